"""Where the bytes of a .tflite file are: weights, records of the channels, headers and padding, everything else.

Read from the file alone, whatever wrote it. Each byte belongs to the first layer that has it, so that the parts of a
file add up to the file, and none is negative.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from subbyte.schemas import PACKED_OPS, PLANE_WIDTHS, STOCK_OPS, Decode, plane_bytes, read_header, record_bytes

from .flatbuffer import TensorType
from .graph import Graph
from .integer_ops import LinearOp

_WEIGHT_BITS = {TensorType.INT4: 4, TensorType.INT8: 8, TensorType.UINT8: 8, TensorType.FLOAT16: 16}


@dataclass(frozen=True)
class LayerBytes:
    """One layer in the file; what it shares with a layer before it is counted there.

    Attributes:
        layer, op: names, as in the file.
        parameters: weights and biases, how many.
        bits: of one stored weight.
        weights: bytes of the weights, of a packed layer with what fills its last blocks.
        records: bytes that each channel has besides: multiplier or scales, bias, zero points; and a codebook.
        rest: bytes of a packed layer's header and padding.
    """

    layer: str
    op: str
    parameters: int
    bits: int
    weights: int
    records: int
    rest: int = 0

    @property
    def total(self) -> int:
        return self.weights + self.records + self.rest


@dataclass(frozen=True)
class Footprint:
    """A file: its size and its layers. `everything_else` is the graph, descriptions of tensors, other constants."""

    file: int
    layers: tuple[LayerBytes, ...]

    @property
    def weights(self) -> int:
        return sum(layer.weights for layer in self.layers)

    @property
    def records(self) -> int:
        return sum(layer.records for layer in self.layers)

    @property
    def rest(self) -> int:
        return sum(layer.rest for layer in self.layers)

    @property
    def everything_else(self) -> int:
        return self.file - self.weights - self.records - self.rest

    @classmethod
    def of(cls, tflite: bytes) -> Footprint:
        """Raises ConversionError for what is not a TFLite model."""
        graph = Graph.read(tflite)
        counter = _ByteCounter(tflite, graph)
        return cls(len(tflite), tuple(map(counter.count, layers_of(graph))))


def layers_of(graph: Graph) -> list[Any]:
    """The ops with weights, in the order in which they are in the graph, and so in every target written from it."""
    return [op for op in graph.operators if isinstance(op, LinearOp) or _has_weights(graph, op)]


def _has_weights(graph: Graph, op: Any) -> bool:
    kind = graph.kind(op)
    if kind in PACKED_OPS.values():
        return True
    weights = int(op.inputs[1]) if kind in STOCK_OPS.values() and len(op.inputs) > 1 else -1
    return weights >= 0 and _stored(graph, weights) is not None


class _ByteCounter:
    """Counts the bytes of a file's layers one after the other; what two of them share, once."""

    def __init__(self, tflite: bytes, graph: Graph) -> None:
        self._graph = graph
        self._start = _address(np.frombuffer(tflite, np.uint8))
        self._is_counted = np.zeros(len(tflite), bool)

    def count(self, op: Any) -> LayerBytes:
        """What an operator with constant weights, stock or packed, adds to the file."""
        graph, kind = self._graph, self._graph.kind(op)
        name = graph.name(int(op.outputs[0])).partition(";")[0]
        tensors = [int(tensor) for tensor in op.inputs[1:] if int(tensor) >= 0]
        if kind in PACKED_OPS.values():
            return self._packed(name, kind, tensors[0])
        weights, *others = tensors
        return LayerBytes(
            name,
            kind,
            parameters=sum(int(np.prod(graph.shape(tensor))) for tensor in tensors),
            bits=_WEIGHT_BITS.get(graph.tensor(weights).type, 32),
            weights=self._new(_stored(graph, weights)),
            records=sum(self._new(_stored(graph, other)) for other in others) + sum(map(self._scales, tensors)),
        )

    def _packed(self, name: str, kind: str, tensor: int) -> LayerBytes:
        data = _stored(self._graph, tensor)
        header = read_header(np.asarray(data, np.uint8).tobytes())
        channels, features, bits = (int(header[f]) for f in ("output_channels", "input_features", "weight_bits"))
        parameters, total = channels * (features + 1), self._new(data)
        if not total:
            return LayerBytes(name, kind, parameters, bits, 0, 0)
        weights = sum(plane_bytes(width, channels, features) for width in PLANE_WIDTHS if bits & width)
        records = sum(record_bytes(header).values())
        if header["decode"] == Decode.CODEBOOK:
            records += 1 << bits
        return LayerBytes(name, kind, parameters, bits, weights, records, total - weights - records)

    def _scales(self, tensor: int) -> int:
        """Bytes of a float scale and a 64-bit zero point for each channel."""
        quantization = self._graph.tensor(tensor).quantization
        return 0 if quantization is None else sum(map(self._new, (quantization.scale, quantization.zeroPoint)))

    def _new(self, vector: np.ndarray | None) -> int:
        """Bytes of a vector, which is a view of the file, that were not counted yet."""
        if vector is None or not len(vector):
            return 0
        first = _address(vector) - self._start
        counted = self._is_counted[first : first + vector.nbytes]
        new = int(np.count_nonzero(~counted))
        counted[:] = True
        return new


def _address(vector: np.ndarray) -> int:
    address: int = vector.__array_interface__["data"][0]
    return address


def _stored(graph: Graph, tensor: int) -> np.ndarray | None:
    """A constant's bytes as they are stored; None for what is computed."""
    data: np.ndarray | None = graph.model.buffers[graph.tensor(tensor).buffer].data
    return data


def float_bytes(layers: Sequence[tuple[Any, LayerBytes]]) -> list[int]:
    """Bytes that each layer would take in float32, 4 a weight and bias; 0 where one before it is the same layer.

    Args:
        layers: ops of a lifted graph with their bytes in a file; what stayed a stock op stays as it is.
    """
    seen: set[tuple[str, bytes]] = set()
    found = []
    for op, layer in layers:
        if not isinstance(op, LinearOp):
            found.append(layer.total)
            continue
        key = (op.layer, op.weights.tobytes())
        found.append(0 if key in seen else 4 * (op.weights.size + op.bias.size))
        seen.add(key)
    return found

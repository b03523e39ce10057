"""Where the bytes of a .tflite file are: weights, records of the channels, headers and padding, everything else.

Read from the file alone, whatever wrote it, so that the parts add up to what lies on the disk.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from subbyte.schemas.packed_layer import PLANE_WIDTHS, BiasType, Decode, MultiplierType, plane_bytes, read_header

from .flatbuffer import TensorType
from .graph import Graph
from .linear import LinearOp
from .targets import PACKED_OPS

#: Stock ops whose weights are told one by one, in the file or still lowered.
STOCK_LAYERS = ("FULLY_CONNECTED", "CONV_2D", "DEPTHWISE_CONV_2D")

_MULTIPLIER_BYTES = {MultiplierType.IN_BIAS: 0, MultiplierType.UFLOAT16: 2, MultiplierType.FLOAT32: 4}
_SHARED_BYTES = {MultiplierType.IN_BIAS: 4, MultiplierType.UFLOAT16: 0, MultiplierType.FLOAT32: 0}
_BIAS_BYTES = {BiasType.INT16: 2, BiasType.INT32: 4}
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
        counted: set[object] = set()
        return cls(len(tflite), tuple(_layer(graph, op, counted) for op in layers_of(graph)))


def layers_of(graph: Graph) -> list[Any]:
    """The ops with weights, in the order in which they are in the graph, and so in every target written from it."""
    return [
        op
        for op in graph.operators
        if isinstance(op, LinearOp)
        or graph.kind(op) in PACKED_OPS.values()
        or (graph.kind(op) in STOCK_LAYERS and _data(graph, int(op.inputs[1])) is not None)
    ]


def _layer(graph: Graph, op: Any, counted: set[object]) -> LayerBytes:
    kind = graph.kind(op)
    name = graph.name(int(op.outputs[0])).partition(";")[0]
    tensors = [int(tensor) for tensor in op.inputs[1:] if int(tensor) >= 0]
    if kind in PACKED_OPS.values():
        return _packed(graph, name, kind, tensors[0], counted)
    weights, *others = tensors
    info = graph.tensor(weights)
    return LayerBytes(
        name,
        kind,
        parameters=sum(int(np.prod(graph.shape(tensor))) for tensor in tensors),
        bits=_WEIGHT_BITS.get(info.type, 32),
        weights=_once(graph, weights, counted),
        records=sum(_once(graph, other, counted) for other in others)
        + sum(_scales(graph, tensor, counted) for tensor in tensors),
    )


def _packed(graph: Graph, name: str, kind: str, tensor: int, counted: set[object]) -> LayerBytes:
    data = np.asarray(_data(graph, tensor), np.uint8).tobytes()
    header = read_header(data)
    channels, features, bits = (int(header[f]) for f in ("output_channels", "input_features", "weight_bits"))
    parameters = channels * (features + 1)
    if not _once(graph, tensor, counted):
        return LayerBytes(name, kind, parameters, bits, 0, 0)
    weights = sum(plane_bytes(width, channels, features) for width in PLANE_WIDTHS if bits & width)
    of_a_channel = _MULTIPLIER_BYTES[header["multiplier_type"]] + _BIAS_BYTES[header["bias_type"]]
    records = channels * of_a_channel + _SHARED_BYTES[header["multiplier_type"]]
    if header["decode"] == Decode.CODEBOOK:
        records += 1 << bits
    return LayerBytes(name, kind, parameters, bits, weights, records, len(data) - weights - records)


def _data(graph: Graph, tensor: int) -> Any | None:
    """A constant's bytes as they are stored; None for what is computed."""
    return graph.model.buffers[graph.tensor(tensor).buffer].data


def _once(graph: Graph, tensor: int, counted: set[object]) -> int:
    """Bytes of a constant that was not counted yet."""
    buffer = graph.tensor(tensor).buffer
    data = _data(graph, tensor)
    if data is None or buffer in counted:
        return 0
    counted.add(buffer)
    return len(data)


def _scales(graph: Graph, tensor: int, counted: set[object]) -> int:
    """Bytes of a float scale and a 64-bit zero point for each channel; equal ones are written once."""
    quantization = graph.tensor(tensor).quantization
    if quantization is None or quantization.scale is None:
        return 0
    key = (bytes(np.asarray(quantization.scale)), bytes(np.asarray(quantization.zeroPoint)))
    if key in counted:
        return 0
    counted.add(key)
    return 12 * len(quantization.scale)

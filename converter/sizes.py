"""How many bytes of a .tflite file a layer takes: its weights, the records of its channels, headers and padding."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from subbyte.schemas import PACKED_OPS, PLANE_WIDTHS, Decode, plane_bytes, read_header, record_bytes

from .flatbuffer import TensorType
from .graph import Graph

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


class ByteCounter:
    """Counts the bytes of a graph's layers one after the other; what two of them share, once."""

    def __init__(self, graph: Graph) -> None:
        self._graph = graph
        self._counted: set[object] = set()

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
            weights=self._constant(weights),
            records=sum(map(self._constant, others)) + sum(map(self._scales, tensors)),
        )

    def _packed(self, name: str, kind: str, tensor: int) -> LayerBytes:
        data = np.asarray(stored(self._graph, tensor), np.uint8).tobytes()
        header = read_header(data)
        channels, features, bits = (int(header[f]) for f in ("output_channels", "input_features", "weight_bits"))
        parameters = channels * (features + 1)
        if not self._constant(tensor):
            return LayerBytes(name, kind, parameters, bits, 0, 0)
        weights = sum(plane_bytes(width, channels, features) for width in PLANE_WIDTHS if bits & width)
        records = sum(record_bytes(header).values())
        if header["decode"] == Decode.CODEBOOK:
            records += 1 << bits
        return LayerBytes(name, kind, parameters, bits, weights, records, len(data) - weights - records)

    def _constant(self, tensor: int) -> int:
        """Bytes of a constant that was not counted yet."""
        buffer, data = self._graph.tensor(tensor).buffer, stored(self._graph, tensor)
        return 0 if data is None or self._seen(("buffer", buffer)) else len(data)

    def _scales(self, tensor: int) -> int:
        """Bytes of a float scale and a 64-bit zero point for each channel; equal vectors are written once."""
        quantization = self._graph.tensor(tensor).quantization
        if quantization is None or quantization.scale is None:
            return 0
        vectors = (quantization.scale, np.float32), (quantization.zeroPoint, np.int64)
        arrays = [np.asarray(vector, dtype) for vector, dtype in vectors if vector is not None]
        return sum(array.nbytes for array in arrays if not self._seen((str(array.dtype), array.tobytes())))

    def _seen(self, key: object) -> bool:
        """Whether it was asked for that before."""
        seen = key in self._counted
        self._counted.add(key)
        return seen


def stored(graph: Graph, tensor: int) -> Any | None:
    """A constant's bytes as they are stored; None for what is computed."""
    return graph.model.buffers[graph.tensor(tensor).buffer].data

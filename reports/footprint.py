"""Where the bytes of a .tflite file are: weights, records of the channels, headers and padding, everything else.

Read from the file alone, whatever wrote it, so that the parts add up to what lies on the disk.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from subbyte.converter.graph import Graph
from subbyte.converter.integer_ops import LinearOp
from subbyte.converter.sizes import ByteCounter, LayerBytes, stored
from subbyte.schemas import PACKED_OPS, STOCK_OPS


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
        return cls(len(tflite), tuple(map(ByteCounter(graph).count, layers_of(graph))))


def layers_of(graph: Graph) -> list[Any]:
    """The ops with weights, in the order in which they are in the graph, and so in every target written from it."""
    return [
        op
        for op in graph.operators
        if isinstance(op, LinearOp)
        or graph.kind(op) in PACKED_OPS.values()
        or (graph.kind(op) in STOCK_OPS.values() and stored(graph, int(op.inputs[1])) is not None)
    ]

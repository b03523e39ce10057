"""A packed `.tflite` as what firmware runs: a chain of packed layers, without the graph around them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from subbyte.schemas import PACKED_OPS, Op, PackedLayer

from .errors import ConversionError
from .flatbuffer import TensorType
from .graph import Graph
from .io_types import set_io
from .layer_names import layer_name

_DENSE = PACKED_OPS[Op.FULLY_CONNECTED]


@dataclass(frozen=True)
class ChainedLayer:
    """A packed layer, the rows of input that it takes, and its name."""

    packed: bytes
    fields: PackedLayer
    rows: int
    name: str


def read_chain(tflite: bytes) -> list[ChainedLayer]:
    """The layers of a packed model. A reshape may stand between them, and float32 inputs and outputs become int8.

    Raises:
        ConversionError: the model is no such chain.
    """
    graph = Graph.read(tflite)
    for op in graph.operators:
        if graph.kind(op) in PACKED_OPS.values() and graph.tensor(int(op.outputs[0])).type == TensorType.INT16:
            raise ConversionError(
                f"{layer_name(graph, op)} has 16-bit activations, and a model for firmware has 8-bit ones: "
                "run the .tflite"
            )
    set_io(graph, "int8")
    for side, tensors in (("input", graph.inputs), ("output", graph.outputs)):
        if len(set(tensors)) != 1:
            raise ConversionError(f"a model for firmware has one {side}, and this one has {len(set(tensors))}")
        if graph.quantization(tensors[0]) is None:
            raise ConversionError(
                f"{side} {graph.name(tensors[0])} is not int8, as firmware needs it: put a quantizer there"
            )
    layers = []
    tensor = graph.inputs[0]
    for op in graph.operators:
        kind, name = graph.kind(op), layer_name(graph, op)
        if kind in PACKED_OPS.values() and kind != _DENSE:
            raise ConversionError(
                f"{name} is a convolution, and firmware has fully connected layers alone: run the .tflite"
            )
        if kind not in (_DENSE, "RESHAPE"):
            raise ConversionError(
                f"{name} is a {kind}, and firmware has packed layers alone: take it out of the model, or run the "
                ".tflite"
            )
        if int(op.inputs[0]) != tensor:
            raise ConversionError(
                f"{name} does not follow the layer before it: a model for firmware is a chain of layers"
            )
        if kind == _DENSE:
            layers.append(_layer(graph, op, name))
        tensor = int(op.outputs[0])
    if not layers or tensor != graph.outputs[0]:
        raise ConversionError("this model is not a chain of packed layers, as a model for firmware has to be")
    return layers


def _layer(graph: Graph, op: Any, name: str) -> ChainedLayer:
    """Raises ConversionError where the packed bytes are damaged, or are for other tensors than those around them."""
    data = graph.constant(int(op.inputs[1])) if len(op.inputs) == 2 else None
    try:
        packed = b"" if data is None else data.tobytes()
        fields = PackedLayer.unpack(packed)
    except ValueError as error:
        raise ConversionError(f"{name} is damaged: {error}") from error
    ends = (fields.input_scale, fields.input_zero_point), (fields.output_scale, fields.output_zero_point)
    x, y = int(op.inputs[0]), int(op.outputs[0])
    rows, rest = divmod(math.prod(graph.shape(x)), fields.codes.shape[1])
    if (graph.quantization(x), graph.quantization(y)) != ends or rest:
        raise ConversionError(f"{name} was packed for another input or output: convert the model again")
    return ChainedLayer(packed, fields, rows, name)

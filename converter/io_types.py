"""Whether a model takes and gives float32 or its quantized codes."""

from __future__ import annotations

from typing import Any

import numpy as np

from .errors import ConversionError
from .flatbuffer import TensorType, schema
from .graph import Graph

#: Tensor types that a model may be asked to take and give.
IO_TYPES = {"float32": TensorType.FLOAT32, "int8": TensorType.INT8, "int16": TensorType.INT16}


def check_io(io: str) -> None:
    """Raises ConversionError for an unknown type."""
    if io not in IO_TYPES:
        raise ConversionError(f"unknown io type {io!r}: choose {', '.join(IO_TYPES)}")


def set_io(graph: Graph, io: str) -> list[str]:
    """Gives every quantized input and output of `graph` the type `io`. Returns a line for each that keeps its own.

    Raises:
        ConversionError: an input or output has quantized codes of another type than asked for.
    """
    for side in ("inputs", "outputs"):
        for tensor in getattr(graph, side):
            _drop_shift(graph, tensor, side)
    floats = io == "float32"
    change_input, change_output = (_float_input, _float_output) if floats else (_quantized_input, _quantized_output)
    for tensor in graph.inputs:
        change_input(graph, tensor)
    for tensor in graph.outputs:
        change_output(graph, tensor)
    graph.prune()
    return [] if floats else _kept(graph, io)


def _kept(graph: Graph, io: str) -> list[str]:
    """A line for each input and output that stays float."""
    notes = []
    for side in ("input", "output"):
        for name, tensor in graph.named(f"{side}s").items():
            if graph.quantization(tensor) is None:
                reason = (
                    "it has no one quantizer directly behind it"
                    if side == "input"
                    else "put QuantActivation behind what it comes from"
                )
                notes.append(f"{side} {name} is not {io}: {reason}")
            elif graph.tensor(tensor).type != IO_TYPES[io]:
                codes = next(name for name, number in IO_TYPES.items() if number == graph.tensor(tensor).type)
                raise ConversionError(f"{side} {name} has {codes} codes, not {io}: choose io {codes} or float32")
    return notes


def _drop_shift(graph: Graph, tensor: int, side: str) -> None:
    """Drops the QUANTIZE between an end in uint8, as files for Edge TPUs have them, and the same codes in int8.

    It adds or takes off 128 and nothing else.
    """
    if graph.tensor(tensor).type != TensorType.UINT8:
        return
    neighbours = graph.consumers(tensor) if side == "inputs" else [graph.producer(tensor)]
    if len(neighbours) != 1 or neighbours[0] is None or graph.kind(neighbours[0]) != "QUANTIZE":
        return
    inner = int((neighbours[0].outputs if side == "inputs" else neighbours[0].inputs)[0])
    old, new = graph.tensor(tensor).quantization, graph.quantization(inner)
    if new is None or old is None or new != (float(old.scale[0]), int(old.zeroPoint[0]) - 128):
        return
    graph.replace(neighbours[0], [])
    if side == "inputs":
        graph.replace_input(tensor, inner)
    else:
        graph.replace_output(tensor, inner)


def _quantized_input(graph: Graph, tensor: int) -> None:
    """Drops the QUANTIZE that reads a float input."""
    readers = graph.consumers(tensor)
    if len(readers) == 1 and graph.kind(readers[0]) == "QUANTIZE" and tensor not in graph.outputs:
        quantized = int(readers[0].outputs[0])
        graph.replace(readers[0], [])
        graph.replace_input(tensor, quantized)


def _quantized_output(graph: Graph, tensor: int) -> None:
    """Drops the DEQUANTIZE that writes a float output."""
    writer = graph.producer(tensor)
    if writer is not None and graph.kind(writer) == "DEQUANTIZE" and graph.quantization(int(writer.inputs[0])):
        graph.replace_output(tensor, int(writer.inputs[0]))


def _float_input(graph: Graph, tensor: int) -> None:
    """Puts a QUANTIZE behind a quantized input."""
    if graph.quantization(tensor) is None:
        return
    real = graph.add_tensor(f"{graph.name(tensor)}_float", graph.shape(tensor), TensorType.FLOAT32)
    graph.operators.insert(0, _convert(graph, "QUANTIZE", real, tensor))
    graph.replace_input(tensor, real)


def _float_output(graph: Graph, tensor: int) -> None:
    """Puts a DEQUANTIZE before a float output."""
    if graph.quantization(tensor) is None:
        return
    real = graph.add_tensor(f"{graph.name(tensor)}_float", graph.shape(tensor), TensorType.FLOAT32)
    graph.replace_output(tensor, real)
    graph.operators.append(_convert(graph, "DEQUANTIZE", tensor, real))


#: The first version of an op that knows a type of codes.
_VERSIONS = {
    ("QUANTIZE", TensorType.INT8): 1,
    ("QUANTIZE", TensorType.INT16): 2,
    ("DEQUANTIZE", TensorType.INT8): 2,
    ("DEQUANTIZE", TensorType.INT16): 3,
}


def _convert(graph: Graph, name: str, source: int, target: int) -> Any:
    options = f"{name.capitalize()}Options"
    codes = graph.tensor(source if name == "DEQUANTIZE" else target).type
    return schema.OperatorT(
        opcodeIndex=graph.operator_code(name, _VERSIONS[name, codes]),
        inputs=np.asarray([source], np.int32),
        outputs=np.asarray([target], np.int32),
        builtinOptionsType=getattr(schema.BuiltinOptions, options),
        builtinOptions=getattr(schema, f"{options}T")(),
    )

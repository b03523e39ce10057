"""Whether a model takes and gives float32 or int8."""

from __future__ import annotations

from typing import Any

import numpy as np

from .errors import ConversionError
from .flatbuffer import TensorType, schema
from .graph import Graph

IO_TYPES = ("float32", "int8")


def check_io(io: str) -> None:
    """Raises ConversionError for an unknown type."""
    if io not in IO_TYPES:
        raise ConversionError(f"unknown io type {io!r}: choose {' or '.join(IO_TYPES)}")


def set_io(graph: Graph, io: str) -> list[str]:
    """Gives every quantized input and output of `graph` the type `io`. Returns a line for each that keeps its own."""
    change_input, change_output = (_int8_input, _int8_output) if io == "int8" else (_float_input, _float_output)
    for tensor in graph.inputs:
        change_input(graph, tensor)
    for tensor in graph.outputs:
        change_output(graph, tensor)
    graph.prune()
    if io == "float32":
        return []
    return [
        f"{side} {name} is not int8: it has no one quantizer directly behind it"
        if side == "input"
        else f"{side} {name} is not int8: put QuantActivation behind what it comes from"
        for side in ("input", "output")
        for name, tensor in graph.named(f"{side}s").items()
        if graph.quantization(tensor) is None
    ]


def _int8_input(graph: Graph, tensor: int) -> None:
    """Drops the QUANTIZE that reads a float input."""
    readers = graph.consumers(tensor)
    if len(readers) == 1 and graph.kind(readers[0]) == "QUANTIZE" and tensor not in graph.outputs:
        quantized = int(readers[0].outputs[0])
        graph.replace(readers[0], [])
        graph.replace_input(tensor, quantized)


def _int8_output(graph: Graph, tensor: int) -> None:
    """Drops the DEQUANTIZE that writes a float output."""
    writer = graph.producer(tensor)
    if writer is not None and graph.kind(writer) == "DEQUANTIZE" and graph.quantization(int(writer.inputs[0])):
        graph.replace_output(tensor, int(writer.inputs[0]))


def _float_input(graph: Graph, tensor: int) -> None:
    """Puts a QUANTIZE behind an int8 input."""
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


def _convert(graph: Graph, name: str, source: int, target: int) -> Any:
    options = f"{name.capitalize()}Options"
    return schema.OperatorT(
        opcodeIndex=graph.operator_code(name, version=2 if name == "DEQUANTIZE" else 1),
        inputs=np.asarray([source], np.int32),
        outputs=np.asarray([target], np.int32),
        builtinOptionsType=getattr(schema.BuiltinOptions, options),
        builtinOptions=getattr(schema, f"{options}T")(),
    )

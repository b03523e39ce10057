"""Whether a model takes and gives float32 or its quantized codes."""

from __future__ import annotations

from .errors import ConversionError
from .flatbuffer import TensorType
from .graph import Graph
from .notes import Note
from .quantize_ops import add_twin, dequantize, is_shift, quantize

#: Tensor types that a model may be asked to take and give, and the word for those that it has.
SAME = "same"
_CODES = {"int8": TensorType.INT8, "uint8": TensorType.UINT8, "int16": TensorType.INT16}
IO_TYPES = {"float32": TensorType.FLOAT32, **_CODES}

_TYPE_NAMES = {number: name.lower() for name, number in vars(TensorType).items() if isinstance(number, int)}


def check_io(io: str | None) -> None:
    """Raises ConversionError for an unknown type; None leaves it to the source."""
    if io is not None and io not in (SAME, *IO_TYPES):
        raise ConversionError(f"unknown io type {io!r}: choose {SAME}, {', '.join(IO_TYPES)}")


def set_io(graph: Graph, io: str, is_keras: bool = False) -> list[Note]:
    """Gives every quantized input and output of `graph` the type `io`. Returns a note for each that keeps its own.

    Args:
        graph: lifted.
        io: one of `IO_TYPES`, or `SAME`, which changes nothing.
        is_keras: the model comes from Keras, whose layers can be named as the mend.

    Raises:
        ConversionError: an input or output has quantized codes of 16 bits and 8 are asked for, or the other way round.
    """
    if io == SAME:
        graph.prune()
        return []
    names = [graph.name(tensor) for tensor in (*graph.inputs, *graph.outputs)]
    for tensor in dict.fromkeys(graph.inputs):
        _wrap_input(graph, _bare_input(graph, tensor, io), io)
    for tensor in dict.fromkeys(graph.outputs):  # one tensor may be two outputs
        _wrap_output(graph, _bare_output(graph, tensor, io), io)
    for tensor, name in zip((*graph.inputs, *graph.outputs), names, strict=True):
        graph.tensor(tensor).name = name.encode()
    graph.prune()
    return [] if io == "float32" else _kept(graph, io, is_keras)


def _kept(graph: Graph, io: str, is_keras: bool) -> list[Note]:
    """A note for each input and output that is not quantized."""
    notes = []
    for side in ("input", "output"):
        for name, tensor in graph.named(f"{side}s").items():
            found = _TYPE_NAMES[graph.tensor(tensor).type]
            if graph.quantization(tensor) is not None:
                if found != io:
                    raise ConversionError(f"{side} {name} has {found} codes, not {io}: choose io {found} or float32")
                continue
            if found != "float32":
                reason = f"it is {found}, which is not quantized"
            elif side == "input":
                reason = "it has no one quantizer directly behind it"
            else:
                reason = "put QuantActivation behind what it comes from" if is_keras else "what gives it runs in float"
            notes.append(Note(f"{side} {name}", f"is not {io}: {reason}"))
    return notes


def _bare_input(graph: Graph, tensor: int, io: str) -> int:
    """The input after the QUANTIZEs that do nothing but change its type are dropped, where nothing else reads it."""
    while True:
        readers = graph.consumers(tensor)
        if len(readers) != 1 or tensor in graph.outputs or graph.kind(readers[0]) != "QUANTIZE":
            return tensor
        if not is_shift(graph, readers[0]) and (graph.quantization(tensor) is not None or io == "float32"):
            return tensor
        inner = int(readers[0].outputs[0])
        graph.replace(readers[0], [])
        graph.replace_input(tensor, inner)
        tensor = inner


def _bare_output(graph: Graph, tensor: int, io: str) -> int:
    """The tensor that ops make the output from which do nothing but change its type."""
    while True:
        writer = graph.producer(tensor)
        if writer is None:
            return tensor
        inner = int(writer.inputs[0]) if len(writer.inputs) else -1
        to_real = io != "float32" and graph.kind(writer) == "DEQUANTIZE" and graph.quantization(inner) is not None
        if not to_real and not is_shift(graph, writer):
            return tensor
        graph.replace_output(tensor, inner)
        tensor = inner


def _wrap_input(graph: Graph, tensor: int, io: str) -> None:
    """Puts a QUANTIZE behind an input whose codes are of another type."""
    end = _end(graph, tensor, io)
    if end is not None:
        graph.operators.insert(0, quantize(graph, end, tensor))
        graph.replace_input(tensor, end)


def _wrap_output(graph: Graph, tensor: int, io: str) -> None:
    """Puts a DEQUANTIZE or QUANTIZE before an output whose codes are of another type."""
    end = _end(graph, tensor, io)
    if end is not None:
        graph.operators.append((dequantize if io == "float32" else quantize)(graph, tensor, end))
        graph.replace_output(tensor, end)


def _end(graph: Graph, tensor: int, io: str) -> int | None:
    """A new tensor of type `io` for the numbers of `tensor`; None where it stays as it is."""
    if graph.quantization(tensor) is None or graph.tensor(tensor).type == IO_TYPES[io]:
        return None
    if io == "float32":
        return graph.add_tensor(f"{graph.name(tensor)}_float", graph.shape(tensor), TensorType.FLOAT32)
    both = {graph.tensor(tensor).type, IO_TYPES[io]}
    return None if TensorType.INT16 in both else add_twin(graph, tensor)

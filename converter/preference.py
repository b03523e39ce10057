"""Which layers of an int8 `.tflite` are worth packing: those that make the file smaller, or those that run faster.

Both ways are tried on a model of the layer alone: bytes are counted, time is measured in the interpreter, here and now.
"""

from __future__ import annotations

from collections.abc import Callable
from copy import copy
from dataclasses import dataclass
from typing import Any

from .errors import ConversionError
from .graph import Graph
from .integer_ops import LinearOp
from .packed_target import write_packed
from .timing import microseconds

#: What can be preferred, by the names that `--prefer` has for it.
PREFERENCES = ("bytes", "speed")


@dataclass(frozen=True)
class Cost:
    """What a model of one layer costs: bytes of its file, and seconds an invoke() where they were measured."""

    bytes: int
    seconds: float | None = None


def check_preference(prefer: str | None) -> None:
    """Raises ConversionError for another than `PREFERENCES`, or None."""
    if prefer is not None and prefer not in PREFERENCES:
        raise ConversionError(f"unknown preference {prefer!r}: choose {' or '.join(PREFERENCES)}")


def reason_to_stay(stock: Cost, packed: Cost, prefer: str) -> str | None:
    """Why a layer is better left as it is, or None where it is worth packing.

    No preference lets a file grow. Where "speed" is preferred and the interpreter runs one of both alone, the layer
    stays.
    """
    if packed.bytes > stock.bytes or (prefer == "bytes" and packed.bytes == stock.bytes):
        return "packed it would take no fewer bytes"
    if prefer == "bytes":
        return None
    if stock.seconds is None or packed.seconds is None:
        return "its speed could not be measured"
    if packed.seconds >= stock.seconds:
        return "packed it would be no faster on this machine"
    return None


def compare(graph: Graph, op: Any, layer: LinearOp, prefer: str) -> tuple[Cost, Cost]:
    """What a stock op costs, and what it costs packed.

    Args:
        graph: has `op`; it is not changed.
        op: a stock op that takes one input that is computed, its first.
        layer: the same in integers; between int8 tensors where `op` is between uint8 ones.
        prefer: time is measured for "speed" alone.
    """
    files = {
        "stock": _alone(graph, op, lambda part: [copy(op)]),
        "packed": _alone(graph, layer, lambda part: write_packed(part, layer)),
    }
    timings = microseconds(files)[0] if prefer == "speed" else {}
    stock, packed = (Cost(len(file), timings[name].median if name in timings else None) for name, file in files.items())
    return stock, packed


def _alone(graph: Graph, op: Any, write: Callable[[Graph], list[Any]]) -> bytes:
    """A model from the first input of `op` to its outputs, with the operators that `write` makes in it."""
    model, main = copy(graph.model), copy(graph.main)
    model.subgraphs, model.signatureDefs, model.metadata = [main], None, None
    model.buffers, model.operatorCodes = list(model.buffers), [copy(code) for code in model.operatorCodes]
    main.tensors = [copy(tensor) for tensor in main.tensors]
    main.inputs, main.outputs = [int(op.inputs[0])], [int(tensor) for tensor in op.outputs]
    part = Graph(model)
    main.operators = write(part)
    part.prune()
    return part.write()

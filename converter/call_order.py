"""The order of layers in a graph: that of the calls in Keras.

TensorFlow's converter orders branches by the names of ops, among them those that Keras numbers through a process.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from .graph import Graph


def sort_by_calls(graph: Graph, calls: Mapping[int, Any]) -> None:
    """Puts ops in the order of calls, each behind all that it needs, and their outputs likewise among the tensors.

    A graph with effects stays as it is: its order has a meaning.

    Args:
        graph: any.
        calls: some of its operators, by their place among the calls.
    """
    if any(graph.has_effects(op) for op in graph.operators):
        return
    makers = {int(tensor): op for op in graph.operators for tensor in op.outputs}
    places = {id(op): place for place, op in enumerate(graph.operators)}
    found: set[int] = set()
    order: list[Any] = []
    for _, last in [*sorted(calls.items()), *enumerate(graph.operators)]:
        waiting, needed = [last], []
        while waiting:
            op = waiting.pop()
            if id(op) not in found:
                found.add(id(op))
                needed.append(op)
                waiting += [makers[int(tensor)] for tensor in op.inputs if int(tensor) in makers]
        order += sorted(needed, key=lambda op: places[id(op)])
    graph.main.operators = order
    outputs = [int(tensor) for op in order for tensor in op.outputs]
    _renumber(graph, dict(zip(outputs, sorted(outputs), strict=True)))


def _renumber(graph: Graph, new: Mapping[int, int]) -> None:
    """Moves each tensor, by its index, to another index that one of them had."""
    tensors = list(graph.main.tensors)
    for old, index in new.items():
        graph.main.tensors[index] = tensors[old]

    def moved(indices: Any) -> np.ndarray:
        return np.asarray([new.get(int(index), int(index)) for index in indices], np.int32)

    for op in graph.operators:
        op.inputs, op.outputs = moved(op.inputs), moved(op.outputs)
    graph.main.inputs, graph.main.outputs = moved(graph.inputs), moved(graph.outputs)
    for entry in graph.signature_maps("inputs", "outputs"):
        entry.tensorIndex = new.get(entry.tensorIndex, entry.tensorIndex)

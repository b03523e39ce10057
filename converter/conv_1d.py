"""Convolutions along one dimension, which no runtime has: they become ones along two, on a height of 1."""

from __future__ import annotations

from .graph import Graph
from .integer_ops import LinearOp

#: Ops that work on any shape, number by number.
_ELEMENTWISE = {"ADD", "SUB", "MUL", "MAXIMUM", "MINIMUM"}


def give_height(graph: Graph, op: LinearOp) -> None:
    """Makes a convolution along one dimension one along two, on a height of 1."""
    x, y = op.inputs[0], op.outputs[0]
    op.inputs, op.outputs = [_with_height(graph, x)], [_with_height(graph, y)]
    graph.replace(op, [graph.reshape(x, op.inputs[0]), op, graph.reshape(op.outputs[0], y)])


def _with_height(graph: Graph, tensor: int) -> int:
    """A new tensor like a [batch, width, channels] one, with a height of 1."""
    (batch, width, channels), info = graph.shape(tensor), graph.tensor(tensor)
    return graph.add_tensor(f"{graph.name(tensor)}/2d", (batch, 1, width, channels), info.type, info.quantization)


def join_heights(graph: Graph) -> None:
    """Takes out the reshapes between neighbours that have been given a height, and gives one to what adds them."""
    for op in list(graph.operators):
        if graph.kind(op) in _ELEMENTWISE:
            sources = [_source_of_reshape(graph, int(tensor)) for tensor in op.inputs]
            shapes = {graph.shape(source) for source in sources if source is not None}
            if None not in sources and len(shapes) == 1 and len(graph.shape(int(op.outputs[0]))) == 3:
                y = int(op.outputs[0])
                op.inputs, op.outputs = sources, [_with_height(graph, y)]
                graph.replace(op, [op, graph.reshape(op.outputs[0], y)])
    for op in [op for op in graph.operators if graph.kind(op) == "RESHAPE"]:
        source = _source_of_reshape(graph, int(op.inputs[0]))
        if source is not None and graph.shape(source) == graph.shape(int(op.outputs[0])):
            for reader in graph.consumers(int(op.outputs[0])):
                reader.inputs = [source if tensor == op.outputs[0] else tensor for tensor in reader.inputs]


def _source_of_reshape(graph: Graph, tensor: int) -> int | None:
    """The four-dimensional tensor of which `tensor` is a reshaped one."""
    producer = graph.producer(tensor)
    if producer is None or graph.kind(producer) != "RESHAPE":
        return None
    source = int(producer.inputs[0])
    return source if len(graph.shape(source)) == 4 else None

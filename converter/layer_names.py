"""What the user calls a layer, from the paths that TensorFlow's converter makes the names of tensors."""

from __future__ import annotations

import re
from collections import Counter
from typing import Any

from .graph import Graph

#: What TensorFlow calls the calls of whole models in a path.
_CALL = re.compile(r"(Stateful)?PartitionedCall(_\d+)?(:\d+)?")
#: What it calls an op within its layer, which may be numbered: "dense/MatMul1".
_OP = re.compile(
    r"(AddV2|AvgPool|BiasAdd|Conv2D|DepthwiseConv2dNative|Elu|FakeQuant\w*|FusedBatchNorm(V\d)?|Identity|MatMul"
    r"|MaxPool|Mean|Mul|Relu6?|Reshape|Rsqrt|Sigmoid|Softmax|Squeeze|Sub|Tanh|Tensordot|act_quant|batchnorm"
    r"|add|conv(2d_transpose|olution)|depthwise|mul|separable_conv2d|sub)(_?\d+)?(:\d+)?"
)


def layer_name(graph: Graph, op: Any) -> str:
    """What the user calls the op's layer: by `graph.layer_names`, or else as much of the path as tells it from others.

    `model/block_2/conv/Relu` is `conv`, or `block_2/conv` where another path ends in `conv` too.
    """
    path = graph.name(int(op.outputs[0])) if len(op.outputs) else ""
    # A Keras layer is a folder in the path, numbered if it is called again.
    folders = path.partition(";")[0].split("/")[::-1]
    candidates = [*folders, *(re.sub(r"_\d+$", "", folder) for folder in folders)]
    known = next((name for name in candidates if name in graph.layer_names), None)
    if known is not None:
        return known
    if graph.path_ends is None:
        graph.path_ends = _ends(graph)
    parts = _layer_path(path)
    for count in range(1, len(parts)):
        end = parts[-count:]
        if graph.path_ends[end] < 2:
            return "/".join(end)
    return "/".join(parts) or "an unnamed layer"


def _layer_path(path: str) -> tuple[str, ...]:
    """The folders down to the layer, of the first of the names of all that TensorFlow's converter has fused."""
    named = [tuple(part for part in name.split("/") if not _CALL.fullmatch(part)) for name in path.split(";")]
    parts = next(filter(None, named), (path,) if path else ())
    if len(parts) > 1 and _OP.fullmatch(parts[-1]):
        parts = parts[:-1]
    # What else stands between an op and its layer begins with a capital: a layer may be called "add".
    while len(parts) > 1 and _OP.fullmatch(parts[-1]) and parts[-1][0].isupper():
        parts = parts[:-1]
    return parts


def _ends(graph: Graph) -> Counter[tuple[str, ...]]:
    """How many layers' paths end in the same folders, by these."""
    paths = {_layer_path(graph.name(int(op.outputs[0]))) for op in graph.operators if len(op.outputs)}
    return Counter(parts[-count:] for parts in paths for count in range(1, len(parts) + 1))

"""How far a deployed model may stand from the same model in Keras.

Where activation scales are powers of two and our layers follow one another, not at all. Otherwise a layer's bias has to
be rounded to the kernel's integers. That moves every sum of a channel by at most half a unit, which is multiplier / 2
of an output code: so no more than this share of the codes can change, by one. A changed code then moves the sums that
it goes into, and the share grows by the sum of |weights| * multiplier from layer to layer. Stock ops that compute (Add,
AveragePooling, Softmax) round in their own way, as do the weights of stock layers, and nothing is promised behind them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from .flatbuffer import TensorType
from .graph import Graph
from .integer_ops import IntegerOp, is_integer_op
from .quantize_ops import is_shift

#: Stock ops that hand codes on as they are.
MOVES = {
    "RESHAPE", "MAX_POOL_2D", "CONCATENATION", "SQUEEZE", "EXPAND_DIMS", "TRANSPOSE", "PAD", "SLICE", "STRIDED_SLICE",
    "SPLIT", "PACK", "UNPACK", "GATHER", "DEQUANTIZE", "REDUCE_MAX", "CAST",
    "MINIMUM", "MAXIMUM",
}  # fmt: skip


@dataclass(frozen=True)
class Bound:
    """At most `share` of a tensor's codes differ from Keras, each by at most `codes`."""

    share: float = 0.0
    codes: int = 0


def keras_bounds(graph: Graph) -> dict[int, Bound | None]:
    """A bound for every tensor that a lifted graph computes; None where nothing is promised."""
    bounds: dict[int, Bound | None] = {tensor: Bound() for tensor in graph.inputs}
    for op in graph.operators:
        before = [bounds.get(int(tensor), Bound()) for tensor in op.inputs]
        known = [bound for bound in before if bound is not None]
        worst = max(known, key=lambda bound: bound.share, default=Bound())
        after: Bound | None = None
        if len(known) == len(before) and is_integer_op(op):
            after = None if op.stock else _behind(graph, op, worst)
        elif len(known) == len(before) and _only_moves(graph, op):
            after = worst
        bounds.update((int(tensor), after) for tensor in op.outputs)
    return bounds


def _behind(graph: Graph, op: IntegerOp, before: Bound) -> Bound:
    own = op.rounding(graph)
    return Bound(min(1.0, own + before.share * op.gain(graph)), before.codes + math.ceil(own))


def _only_moves(graph: Graph, op: object) -> bool:
    if graph.kind(op) == "QUANTIZE":
        # From float it is the input's rounding, which is Keras's; from other codes it rounds anew.
        return graph.tensor(int(op.inputs[0])).type == TensorType.FLOAT32 or is_shift(graph, op)  # type: ignore[attr-defined]
    tensors = [int(tensor) for tensor in (*op.inputs, *op.outputs) if tensor >= 0]  # type: ignore[attr-defined]
    scales = {graph.quantization(tensor) for tensor in tensors} - {None}
    return graph.kind(op) in MOVES and len(scales) <= 1

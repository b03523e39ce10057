"""The forms in which a model is written: what each makes of an op in integers, and how near it stays to it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from subbyte.schemas import PACKED_OPS, STOCK_OPS

from .bounds import Bound
from .errors import ConversionError
from .graph import Graph
from .integer_ops import IntegerOp, LinearOp
from .packed_target import write_packed
from .stock_target import fits_int4, write_int4, write_int8


@dataclass(frozen=True)
class Target:
    """A form in which a model is written.

    Attributes:
        writers: by `IntegerOp.kind`, what makes operators of TFLite from one. One of them has the weights.
        weight_bits: of the container of a stored weight.
        bound: how far what the stock interpreter gives may stand from the integers of the ops, which `--verify` holds
            the target to; None where nothing is promised.
    """

    writers: Mapping[str, Callable[[Graph, Any], list]]
    weight_bits: Callable[[LinearOp], int]
    bound: Bound | None = Bound()  # noqa: RUF009  it is frozen

    def write(self, graph: Graph, op: IntegerOp) -> list:
        """The operators that take the place of `op`; they are not put into the graph."""
        return self.writers[op.kind](graph, op)

    def write_layer(self, graph: Graph, op: LinearOp) -> Any:
        """Writes `op` as `write` does, and gives of its operators the one that has the weights."""
        kinds = (*PACKED_OPS.values(), *STOCK_OPS.values())
        return next(written for written in self.write(graph, op) if graph.kind(written) in kinds)


#: By the name that `--target` has for them. The interpreter's own 4-bit kernels round by an older rule.
TARGETS = {
    "packed": Target({LinearOp.kind: write_packed}, lambda op: op.grid.bits),
    "int8": Target({LinearOp.kind: write_int8}, lambda op: 8),
    "int4": Target({LinearOp.kind: write_int4}, lambda op: 4 if fits_int4(op) else 8, None),
}


def find_target(name: str) -> Target:
    """The target of that name. Raises ConversionError for another."""
    if name not in TARGETS:
        raise ConversionError(f"unknown target {name!r}: choose {', '.join(TARGETS)}")
    return TARGETS[name]

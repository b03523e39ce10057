"""Which layers with weights are a network's first and last: they keep more bits than the others."""

from __future__ import annotations

from collections.abc import Collection, Sequence


def first_and_last(inputs: Sequence[Collection[int]], weighted: Collection[int]) -> set[int]:
    """Those of `weighted` that no other of them comes before, or that none comes after.

    A network with branches has several of either kind.

    Args:
        inputs: for each node of the network, in the order of computation, the nodes whose outputs it reads.
        weighted: the nodes with weights.
    """
    before: list[bool] = []
    for made_by in inputs:
        before.append(any(before[node] or node in weighted for node in made_by))
    behind = [False] * len(inputs)
    for node in reversed(range(len(inputs))):
        for made_by_node in inputs[node]:
            behind[made_by_node] |= behind[node] or node in weighted
    return {node for node in weighted if not (before[node] and behind[node])}

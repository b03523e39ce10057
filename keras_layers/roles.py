"""Which layers of a float model are quantized and what is folded into them, before anything is built."""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import filter as matching
from typing import Any

import tensorflow as tf

from subbyte.schemas import first_and_last

from .float_graph import Call, FloatGraph, Tensor
from .layer_kinds import IDENTITIES, MOVES, QUANTIZED
from .quantizers import Quantizer
from .recipe import Recipe

layers = tf.keras.layers


class Roles:
    """The part that each layer plays in the twin, known before anything is built.

    Attributes:
        quantizers: id of a layer that is quantized to the quantizer of its kernel.
        normalizations: id of a layer to the batch normalization that follows it wherever it is used.
        behind_normalization: tensor of such a layer to that of its normalization.
        folded: ids of the normalizations that become a part of another layer.
        floating: numbers of the calls that only layers left in float need.
    """

    def __init__(self, graph: FloatGraph, recipe: Recipe) -> None:
        self._graph = graph
        consumers = graph.consumers()
        weighted = [call for call in graph.calls if type(call.layer) in QUANTIZED]
        self._check(recipe, weighted)
        ends = _first_and_last(graph, weighted)
        self.quantizers: dict[int, Quantizer] = {}
        self._left: set[int] = set()
        for call in weighted:
            quantizer = recipe.quantizer_of(call.name, id(call.layer) in ends)
            if quantizer is None:
                self._left.add(id(call.layer))
            is_known = call.layer.get_config().get("data_format", "channels_last") in (None, "channels_last")
            if quantizer is not None and is_known:
                self.quantizers.setdefault(id(call.layer), quantizer)
        self.normalizations: dict[int, Any] = {}
        self.behind_normalization: dict[Tensor, Tensor] = {}
        for call in weighted:
            found = self._normalization(call.layer, consumers) if id(call.layer) in self.quantizers else None
            if found is not None:
                self.normalizations[id(call.layer)], tensors = found
                self.behind_normalization |= tensors
        self.folded = {id(layer) for layer in self.normalizations.values()}
        self.floating = _floating(graph, self._left, set(self.quantizers))
        self._groups = _same_ranges(graph, self.folded, set(self.quantizers))

    @staticmethod
    def _check(recipe: Recipe, weighted: list[Call]) -> None:
        names = [call.name for call in weighted]
        for pattern in recipe.layers:
            if not matching(names, pattern):
                raise ValueError(
                    f"no layer fits the recipe's {pattern!r}: those with weights are {', '.join(names) or 'none'}"
                )

    def _normalization(self, layer: Any, consumers: dict[Tensor, list[int]]) -> tuple[Any, dict[Tensor, Tensor]] | None:
        calls = self._graph.calls
        uses = [(number, 0) for number, call in enumerate(calls) if call.layer is layer]
        readers = [consumers.get(tensor, []) for tensor in uses]
        if any(len(numbers) != 1 for numbers in readers) or set(uses) & set(self._graph.output_tensors):
            return None
        found = calls[readers[0][0]].layer
        if not isinstance(found, layers.BatchNormalization) or not _normalizes_last(found, calls[readers[0][0]]):
            return None
        of_found = [number for number, call in enumerate(calls) if call.layer is found]
        if sorted(numbers[0] for numbers in readers) != of_found:
            return None
        return found, {tensor: (numbers[0], 0) for tensor, numbers in zip(uses, readers, strict=True)}

    def is_left(self, call: Call) -> bool:
        """Whether the recipe leaves the layer in float."""
        return id(call.layer) in self._left

    def same_range(self, tensor: Tensor) -> set[Tensor]:
        """The tensors that share one range with this one, since they are joined somewhere."""
        return self._groups.get(tensor, {tensor})

    def shares_range(self, tensors: Sequence[Tensor]) -> bool:
        return all(self.same_range(tensor) == self.same_range(tensors[0]) for tensor in tensors)


def _normalizes_last(layer: Any, call: Call) -> bool:
    axis = layer.axis[0] if isinstance(layer.axis, list | tuple) else layer.axis
    shape = layer.get_build_config()["input_shape"]
    return axis in (-1, len(shape) - 1) and not call.kwargs.get("training") and not call.kwargs.get("mask")


def _first_and_last(graph: FloatGraph, weighted: list[Call]) -> set[int]:
    """Ids of the layers that are first or last wherever one of their calls is."""
    ids = {id(call.layer) for call in weighted}
    numbers = {number for number, call in enumerate(graph.calls) if id(call.layer) in ids}
    made_by = [[number for number, _ in call.inputs] for call in graph.calls]
    return {id(graph.calls[number].layer) for number in first_and_last(made_by, numbers)}


def _floating(graph: FloatGraph, left: set[int], quantized: set[int]) -> set[int]:
    """The calls without a kernel that lead, over one another, to layers left in float and to no quantized one.

    A batch normalization belongs to the float layer that it follows.
    """

    def is_part(call: Call) -> bool:
        follows = any(id(graph.calls[number].layer) in left for number, _ in call.inputs)
        return isinstance(call.layer, layers.BatchNormalization) and follows

    floating = {number for number, call in enumerate(graph.calls) if is_part(call)}
    ends = floating | {number for number, call in enumerate(graph.calls) if id(call.layer) in left | quantized}
    #: Each other call to those that it is connected with.
    connected = {number: {number} for number in range(len(graph.calls)) if number not in ends}
    touched: dict[int, set[int]] = {number: set() for number in connected}
    for number, call in enumerate(graph.calls):
        for made, _ in call.inputs:
            if number in connected and made in connected and connected[number] is not connected[made]:
                connected[number] |= connected[made]
                for other in connected[made]:
                    connected[other] = connected[number]
            elif number in connected and made in ends:
                touched[number].add(made)
            elif made in connected and number in ends:
                touched[made].add(number)
    for number, group in connected.items():
        found = set().union(*(touched[other] for other in group))
        if found and not any(id(graph.calls[end].layer) in quantized for end in found):
            floating.add(number)
    return floating


def _same_ranges(graph: FloatGraph, folded: set[int], quantized: set[int]) -> dict[Tensor, set[Tensor]]:
    """Tensors that a Concatenate joins or that a shared layer reads, with what puts them on a grid."""

    origins: dict[Tensor, Tensor] = {}
    for number, call in enumerate(graph.calls):
        hands_on = type(call.layer) in MOVES or isinstance(call.layer, IDENTITIES) or id(call.layer) in folded
        if hands_on and type(call.layer) is not layers.Concatenate:
            origins[number, 0] = origins.get(call.inputs[0], call.inputs[0])
    joined: dict[Any, set[Tensor]] = {}
    for number, call in enumerate(graph.calls):
        if type(call.layer) is layers.Concatenate:
            joined[number, 0] = {(number, 0), *call.inputs}
        elif id(call.layer) in quantized:
            joined.setdefault(id(call.layer), set()).update(call.inputs)
    groups: dict[Tensor, set[Tensor]] = {}
    for tensors in joined.values():
        group = tensors | {origins.get(tensor, tensor) for tensor in tensors}
        group = group.union(*(groups.get(tensor, set()) for tensor in group))
        groups |= dict.fromkeys(group, group)
    return groups

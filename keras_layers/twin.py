"""Builds the quantization-aware twin of a float model call by call."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import tensorflow as tf

from .activations import ActivationQuantizer, ClippedReLU, QuantActivation, QuantInput
from .calibration import Range
from .cloning import clone, copy_state
from .float_graph import Call, FloatGraph, Tensor, filled
from .kernel_layer import KernelLayer
from .layer_kinds import (
    IDENTITIES,
    KEEP_SIGN,
    MOVES,
    QUANTIZED,
    activation_name,
    is_arithmetic,
    own_range,
    relu_bound,
)
from .normalization import QuantBatchNormalization
from .quantized_kernel import quantized_kernel, quantized_normalization, set_float_weights
from .recipe import Recipe
from .roles import Roles

#: Of the ranges that follow the training data.
MOMENTUM = 0.99


@dataclass(frozen=True)
class Value:
    """A tensor of the twin.

    Attributes:
        tensor: symbolic.
        quantizer: whose weights it holds; None where it is not on a grid.
        is_positive: it is never negative.
        needs_range: a quantized layer gives it, whose op on the device rounds it to some grid.
    """

    tensor: Any
    quantizer: ActivationQuantizer | None = None
    is_positive: bool = False
    needs_range: bool = False


#: What no name of a layer may hold that is called; an input may.
_NOT_IN_NAMES = re.compile(r"^[^A-Za-z0-9.]|[^A-Za-z0-9_.\\/>-]")


#: What the name of a layer may not hold, though that of an input may.
_NOT_IN_NAMES = re.compile(r"^[^A-Za-z0-9.]|[^A-Za-z0-9_.\\/>-]")


@dataclass
class TwinBuilder:
    """Emits the twin of `graph`.

    Attributes:
        graph: the float model, in layers that do one thing.
        recipe: what its layers become.
        ranges: of its tensors on a calibration; or None.
        keeps_output_names: what gives an output takes its name; else layers keep their own, as TFMOT's users know them.
        done: is told of each call that is emitted and each layer that has its weights.
        pairs: name of a quantized layer to the float tensors that it computes, one for each use.
        quantized: names of the float layers that are quantized.
        left: a line for each layer that stayed in float.
    """

    graph: FloatGraph
    recipe: Recipe
    ranges: dict[Tensor, Range] | None
    done: Callable[[], None] = lambda: None
    keeps_output_names: bool = True
    pairs: dict[str, list[Tensor]] = field(default_factory=dict)
    quantized: set[str] = field(default_factory=set)
    left: list[str] = field(default_factory=list)

    def build(self, make: Callable[[Any, Any], tf.keras.Model]) -> tf.keras.Model:
        """The twin: what `make` makes of its symbolic inputs and outputs, nested as the model's."""
        self._roles = Roles(self.graph, self.recipe)
        self._values: dict[Tensor, Value] = {}
        self._on_grid: dict[Tensor, Value] = {}
        self._clones: dict[int, Any] = {}
        self._weights: list[tuple[Any, Any]] = []
        self._left_names: set[str] = set()
        #: Outputs keep their names, so that the model's losses and metrics fit the twin.
        self._output_names: dict[Tensor, str] = {}
        self._names = {call.name for call in self.graph.calls}
        names = self.graph.output_names if self.keeps_output_names else ()
        for tensor, name in zip(self.graph.output_tensors, names, strict=False):
            if tensor not in self._output_names:
                # Of the outputs of one nested model the first alone can have its name.
                is_taken = name in self._output_names.values()
                self._output_names[tensor] = self._name(name) if is_taken else name
                self._names.add(name)
        self._replaced: set[str] = set(self._output_names.values())
        for number, call in enumerate(self.graph.calls):
            outputs = self._emit(number, call)
            self._values |= {(number, i): value for i, value in enumerate(outputs)}
            self.done()
        values = {(number, 0): self._values[number, 0].tensor for number, call in self._inputs()}
        ends = {tensor: self._end(tensor).tensor for tensor in self.graph.output_tensors}
        twin = make(filled(self.graph.inputs, values), filled(self.graph.outputs, ends))
        for layer, copy in self._weights:
            if isinstance(copy, KernelLayer):
                set_float_weights(copy, layer, self._roles.normalizations.get(id(layer)))
            else:
                copy_state(layer, copy)
            self.done()
        return twin

    def _inputs(self) -> list[tuple[int, Call]]:
        return [(number, call) for number, call in enumerate(self.graph.calls) if call.layer is None]

    def _emit(self, number: int, call: Call) -> list[Value]:
        layer = call.layer
        if layer is None:
            symbol = call.args[0]
            return [
                Value(tf.keras.Input(symbol.shape[1:], symbol.shape[0], dtype=symbol.dtype, name=self._own(number)))
            ]
        if id(layer) in self._roles.quantizers:
            return [self._kernel_layer(number, call)]
        if id(layer) in self._roles.folded:
            return [self._values[call.inputs[0]]]
        if number in self._roles.floating:
            return [Value(y) for y in self._call_clone(number, [self._float(tensor) for tensor in call.inputs], True)]
        bound = relu_bound(layer)
        if bound is not None:
            return [self._relu(number, call, bound)]
        if isinstance(layer, IDENTITIES) or activation_name(layer) == "linear":
            is_end = (number, 0) in self._output_names
            x = self._quantized(call.inputs[0]) if is_end else self._values[call.inputs[0]]
            (y,) = self._call_clone(number, [x], True)
            return [replace(x, tensor=y)]
        if type(layer) in MOVES:
            return [self._move(number, call)]
        return self._stock(number, call)

    def _move(self, number: int, call: Call) -> Value:
        read = [self._quantized(tensor) for tensor in call.inputs]
        is_one_grid = len(read) == 1 or self._have_one_grid(call, read)
        (y,) = self._call_clone(number, read, is_one_grid)
        return Value(y, read[0].quantizer if is_one_grid else None, all(x.is_positive for x in read))

    def _have_one_grid(self, call: Call, read: list[Value]) -> bool:
        """Whether what a layer joins is on one grid, even if several quantizers put it there."""
        alike = len({x.is_positive for x in read}) == 1 and self._roles.shares_range(call.inputs)
        return (self.ranges is not None and alike) or all(x.quantizer is read[0].quantizer for x in read)

    def _stock(self, number: int, call: Call) -> list[Value]:
        """A layer that stays what it is."""
        layer = call.layer
        self._name_left(call)
        is_float = self._stays_float(layer)
        read = [self._float(tensor) if is_float else self._quantized(tensor) for tensor in call.inputs]
        own = own_range(layer)
        outputs = self._call_clone(number, read, is_float or own is not None)
        if own and (number, 0) not in self._output_names:
            end, signed = own
            quantizer = QuantActivation(end, signed=signed, name=self._name(f"{call.name}_quant"))
            return [Value(quantizer(outputs[0]), quantizer, not signed)]
        positive = type(layer) in KEEP_SIGN and all(x.is_positive for x in read)
        return [Value(y, None, positive) for y in outputs]

    def _stays_float(self, layer: Any) -> bool:
        """Whether a layer computes with float weights on the device."""
        ours = id(layer) in self._roles.quantizers or id(layer) in self._roles.folded
        is_normalization = type(layer) is tf.keras.layers.BatchNormalization
        return bool(getattr(layer, "weights", [])) and not ours and not is_normalization

    def _name_left(self, call: Call) -> None:
        kind = type(call.layer)
        if kind in QUANTIZED:
            why = "left in float" if self._roles.is_left(call) else "channels first is not supported: left in float"
        elif kind is tf.keras.layers.BatchNormalization:
            why = "stays a layer of its own: it does not follow one layer with weights alone"
        elif is_arithmetic(call.layer):
            return
        else:
            why = "left as it is: it is none of the layers that quantize_model knows"
        if call.name not in self._left_names:
            self._left_names.add(call.name)
            self.left.append(f"{call.name} ({kind.__name__}) {why}")

    def _kernel_layer(self, number: int, call: Call) -> Value:
        layer = call.layer
        x = self._quantized(call.inputs[0])
        if id(layer) not in self._clones:
            quantizer = self._roles.quantizers[id(layer)]
            normalization = self._normalization(number, call)
            copy = quantized_kernel(layer, self._inner(call), quantizer, x.quantizer, normalization, self.recipe)
            self._clones[id(layer)] = copy
            self._weights.append((layer, copy))
        copy = self._clones[id(layer)]
        tensor = self._roles.behind_normalization.get((number, 0), (number, 0))
        self.pairs.setdefault(copy.name, []).append(tensor)
        self.quantized.add(call.name)
        return Value(copy(x.tensor), needs_range=True)

    def _normalization(self, number: int, call: Call) -> QuantBatchNormalization | None:
        """What folds into a layer with a kernel."""
        normalization = self._roles.normalizations.get(id(call.layer))
        if normalization is None:
            return None
        behind = self.graph.calls[self._roles.behind_normalization[number, 0][0]]
        return quantized_normalization(normalization, behind.kwargs.get("training") is False, self.recipe)

    def _relu(self, number: int, call: Call, bound: float) -> Value:
        # Nothing is rounded before the bound if nothing was yet.
        x = self._values[call.inputs[0]]
        found = self._range((number, 0), signed=False)
        end = min(bound, found) if found is not None else bound
        relu = ClippedReLU(
            end if math.isfinite(end) else None,
            bits=self.recipe.activation_bits,
            power_of_two=self.recipe.power_of_two,
            momentum=None if math.isfinite(end) else MOMENTUM,
            name=self._output_names.get((number, 0)) or self._own_name(call.name),
        )
        return Value(relu(x.tensor), relu, True)

    def _float(self, tensor: Tensor) -> Value:
        """The tensor for a layer in float: as it is, unless the layer that gives it has to know its range."""
        value = self._values[tensor]
        return self._quantized(tensor) if value.needs_range else value

    def _quantized(self, tensor: Tensor) -> Value:
        """The tensor on a grid."""
        value = self._values[tensor]
        if value.quantizer is not None or not _is_float(value):
            return value
        if tensor not in self._on_grid:
            call = self.graph.calls[tensor[0]]
            low = self._lowest(tensor)
            signed = not value.is_positive if low is None else low < 0
            found = self._range(tensor, signed)
            kind = QuantInput if call.layer is None else QuantActivation
            quantizer = kind(
                found,
                bits=self.recipe.activation_bits,
                signed=signed,
                power_of_two=self.recipe.power_of_two,
                momentum=MOMENTUM if found is None else None,
                name=self._output_names.get(tensor) or self._name(f"{call.name}_quant"),
            )
            self._on_grid[tensor] = Value(quantizer(value.tensor), quantizer, not signed)
        return self._on_grid[tensor]

    def _end(self, tensor: Tensor) -> Value:
        """An output of the model: on a grid, unless its op has a range of its own."""
        layer = self.graph.calls[tensor[0]].layer
        is_float = tensor[0] in self._roles.floating or self._stays_float(layer)
        is_done = own_range(layer) is not None or is_float
        return self._values[tensor] if is_done else self._quantized(tensor)

    def _range(self, tensor: Tensor, signed: bool) -> float | None:
        if self.ranges is None:
            return None
        return max(self.ranges[other].end(signed) for other in self._roles.same_range(tensor))

    def _lowest(self, tensor: Tensor) -> float | None:
        if self.ranges is None:
            return None
        return min(self.ranges[other].low for other in self._roles.same_range(tensor))

    def _call_clone(self, number: int, read: Sequence[Value], is_end: bool) -> list[Any]:
        """What a copy of the layer gives, called as the model calls it.

        Args:
            number: of the call.
            read: the tensors among its arguments.
            is_end: nothing comes behind the copy where the model ends in it.
        """
        call = self.graph.calls[number]
        if id(call.layer) not in self._clones:
            name = self._own(number) if is_end else self._inner(call)
            self._clones[id(call.layer)] = clone(call.layer, name)
            self._weights.append((call.layer, self._clones[id(call.layer)]))
        values = {tensor: value.tensor for tensor, value in zip(call.inputs, read, strict=True)}
        return replace(call, layer=self._clones[id(call.layer)])(values)

    def _name(self, name: str) -> str:
        """`name` as TensorFlow takes it, or one with a number where that is taken."""
        name = _NOT_IN_NAMES.sub("_", name)
        found, count = name, 0
        while found in self._names:
            count += 1
            found = f"{name}_{count}"
        self._names.add(found)
        return found

    def _own(self, number: int) -> str:
        """The name of what the model may end in."""
        call = self.graph.calls[number]
        return self._output_names.get((number, 0)) or self._inner(call)

    def _inner(self, call: Call) -> str:
        """The layer's own name, or where an output needs that, one that says what the layer is."""
        if call.name in self._output_names.values():
            return self._name(f"{call.name}_{type(call.layer).__name__.lower()}")
        return call.name

    def _own_name(self, name: str) -> str:
        """The layer's own name for what replaces its first use."""
        if name in self._replaced:
            return self._name(name)
        self._replaced.add(name)
        return name


def _is_float(value: Value) -> bool:
    return bool(tf.as_dtype(value.tensor.dtype).is_floating)

"""From a float Keras model to its quantization-aware twin."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import tensorflow as tf

from . import primitives
from .activations import ActivationQuantizer, ClippedReLU, QuantActivation, QuantInput, code_range
from .calibration import activation_ranges, check_calibration
from .conv import QuantConv1D, QuantConv2D, QuantDepthwiseConv1D, QuantDepthwiseConv2D
from .dense import QuantDense
from .float_graph import Call, FloatGraph, Tensor, filled
from .kernel_layer import KernelLayer
from .normalization import QuantBatchNormalization
from .plan import IDENTITIES, KERNEL_LAYERS, MOVES, Plan
from .recipe import Recipe

layers = tf.keras.layers

#: Layers with weights that become ours.
_QUANTIZED: dict[type, type[KernelLayer]] = {
    layers.Dense: QuantDense,
    layers.Conv1D: QuantConv1D,
    layers.Conv2D: QuantConv2D,
    layers.DepthwiseConv1D: QuantDepthwiseConv1D,
    layers.DepthwiseConv2D: QuantDepthwiseConv2D,
}
#: What a quantized layer takes over from a float one, kernel and activation aside.
_TAKEN_OVER = (
    "units", "filters", "kernel_size", "strides", "padding", "data_format", "dilation_rate", "groups",
    "depth_multiplier", "use_bias", "bias_regularizer", "bias_constraint", "activity_regularizer", "trainable",
)  # fmt: skip

#: Stock int8 ops between two ranges.
_ARITHMETIC = (
    layers.Add, layers.Subtract, layers.Multiply, layers.Average, layers.Maximum, layers.Minimum,
    layers.GlobalAveragePooling1D, layers.GlobalAveragePooling2D, layers.LeakyReLU, layers.Softmax, layers.Activation,
)  # fmt: skip
#: The same, as Keras 3 and tf-keras name the operators of tensors.
_OPERATORS = {
    "Add", "Subtract", "Multiply", "Mean", "tf.__operators__.add", "tf.math.add", "tf.math.subtract",
    "tf.math.multiply", "tf.math.reduce_mean",
}  # fmt: skip
#: Of them, those that give nothing negative where they get nothing negative.
_KEEP_SIGN = (
    layers.Add, layers.Multiply, layers.Average, layers.Maximum, layers.Minimum, layers.GlobalAveragePooling1D,
    layers.GlobalAveragePooling2D,
)  # fmt: skip
#: Functions whose int8 op has a range of its own: (end, signed).
_OWN_RANGE = {"softmax": (1.0, False), "sigmoid": (1.0, False), "tanh": (1.0, True)}

#: Of the ranges that follow the training data.
MOMENTUM = 0.99
#: Bias of a layer whose input's range is not known yet: good for inputs up to 32.
_COARSE_RESOLUTION = 4


def quantize_model(model: tf.keras.Model, recipe: Recipe | None = None, calibration: Any = None) -> tf.keras.Model:
    """The quantization-aware twin of a float model, in stage 1, its weights fitted to the float ones.

    Dense, Conv1D and 2D, DepthwiseConv1D and 2D and SeparableConv1D and 2D become layers of this package; a
    BatchNormalization behind one becomes a part of it; ReLU, whether a layer or an argument, becomes `ClippedReLU`.
    Where else a tensor has to be int8 on the device, a `QuantActivation` stands behind it. Nested models are taken
    apart; layers used several times stay shared. What is not known stays as it is, and a warning names it.

    Example:
        twin = ql.quantize_model(model, ql.Recipe(bits=4, layers={"stem": 8}), calibration=x_train[:500])
        twin.compile(...)
        twin.fit(x, y, epochs=10, callbacks=[ql.TwoStage(second_stage_epochs=2)])

    Args:
        model: Sequential or functional, built; it is not changed.
        recipe: default `Recipe()`: 4 bits, 8 in the first and the last layer.
        calibration: real inputs, [samples, ...]: an array, or a list or dictionary of them as the model takes its
            inputs. The ranges of activations are then fixed to those with the least squared error. Without it they
            follow the batches of training, and the first batches must be seen before the model is of use in stage 2.

    Raises:
        ValueError: a model of another kind or without a layer to quantize, a recipe that names no layer, a calibration
            that does not fit.
        TypeError: a recipe that is none.
    """
    if recipe is not None and not isinstance(recipe, Recipe):
        lead = f"Recipe(bits={recipe})" if isinstance(recipe, int) else "Recipe(...)"
        raise TypeError(f"quantize_model takes a Recipe, not {recipe!r}: write {lead}")
    return build_twin(model, recipe or Recipe(), calibration).model


@dataclass
class Twin:
    """A quantized model beside the float one.

    Attributes:
        model: the quantized one.
        graph: the float one.
        pairs: name of a quantized layer to the float tensors that it computes, one for each use.
        left: a line for each layer that stayed in float.
        calibration: the samples used, in the order of the inputs; or None.
    """

    model: tf.keras.Model
    graph: FloatGraph
    pairs: dict[str, list[Tensor]]
    left: list[str]
    calibration: list[np.ndarray] | None


def build_twin(model: tf.keras.Model, recipe: Recipe, calibration: Any = None) -> Twin:
    """See `quantize_model`."""
    graph = primitives.split(FloatGraph.of(model))
    samples = None if calibration is None else check_calibration(model, graph, calibration)
    builder = _Builder(graph, recipe, samples)
    twin = builder.build(model.name)
    if not builder.pairs:
        reasons = "; ".join(builder.left) or "it has no layer with weights"
        raise ValueError(f"nothing to quantize in {model.name}: {reasons}")
    for line in builder.left:
        warnings.warn(f"quantize_model: {line}", stacklevel=3)
    return Twin(twin, graph, builder.pairs, builder.left, samples)


@dataclass
class _Value:
    """A tensor of the twin.

    Attributes:
        tensor: symbolic.
        quantizer: whose weights it holds; None where it is not on a grid.
        is_positive: it is never negative.
    """

    tensor: Any
    quantizer: ActivationQuantizer | None = None
    is_positive: bool = False


@dataclass
class _Builder:
    """Emits the twin call by call."""

    graph: FloatGraph
    recipe: Recipe
    samples: list[np.ndarray] | None
    pairs: dict[str, list[Tensor]] = field(default_factory=dict)
    left: list[str] = field(default_factory=list)

    def build(self, name: str) -> tf.keras.Model:
        self._plan = Plan(self.graph, self.recipe)
        self._ranges = None if self.samples is None else activation_ranges(self.graph, self.samples, self.recipe)
        self._values: dict[Tensor, _Value] = {}
        self._on_grid: dict[Tensor, _Value] = {}
        self._clones: dict[int, Any] = {}
        self._weights: list[tuple[Any, Any]] = []
        self._names = {call.name for call in self.graph.calls}
        self._replaced: set[str] = set()
        for number, call in enumerate(self.graph.calls):
            outputs = self._emit(number, call)
            self._values |= {(number, i): value for i, value in enumerate(outputs)}
        ends = {tensor: self._end(tensor).tensor for tensor in self.graph.output_tensors}
        inputs = [self._values[i, 0].tensor for i, call in enumerate(self.graph.calls) if call.layer is None]
        structure = tf.nest.pack_sequence_as(self.graph.inputs, inputs)
        twin = tf.keras.Model(structure, filled(self.graph.outputs, ends), name=name)
        for layer, clone in self._weights:
            if isinstance(clone, KernelLayer):
                _set_weights(clone, layer, self._plan.normalizations.get(id(layer)))
            elif getattr(layer, "weights", []):
                clone.set_weights(layer.get_weights())
        return twin

    def _emit(self, number: int, call: Call) -> list[_Value]:
        layer = call.layer
        if layer is None:
            symbol = call.args[0]
            return [_Value(tf.keras.Input(symbol.shape[1:], dtype=symbol.dtype, name=call.name))]
        if id(layer) in self._plan.quantizers:
            return [self._kernel_layer(number, call)]
        if id(layer) in self._plan.folded:
            return [self._values[call.inputs[0]]]
        if number in self._plan.floating:
            return [_Value(y) for y in self._call_clone(call, [self._values[tensor] for tensor in call.inputs])]
        bound = primitives.relu_bound(layer)
        if bound is not None:
            return [self._relu(number, call, bound)]
        if isinstance(layer, IDENTITIES) or primitives.activation_name(layer) == "linear":
            x = self._values[call.inputs[0]]
            return [_Value(self._clone(call)(x.tensor), x.quantizer, x.is_positive)]
        if type(layer) in MOVES:
            read = [self._quantized(tensor) for tensor in call.inputs]
            (y,) = self._call_clone(call, read)
            is_one_grid = len(read) == 1 or self._have_one_grid(call, read)
            return [_Value(y, read[0].quantizer if is_one_grid else None, all(x.is_positive for x in read))]
        return self._stock(number, call)

    def _have_one_grid(self, call: Call, read: list[_Value]) -> bool:
        """Whether what a layer joins is on one grid, even if several quantizers put it there."""
        alike = len({x.is_positive for x in read}) == 1 and self._plan.shares_range(call.inputs)
        return (self._ranges is not None and alike) or all(x.quantizer is read[0].quantizer for x in read)

    def _stock(self, number: int, call: Call) -> list[_Value]:
        """A layer that stays what it is."""
        layer = call.layer
        self._name_left(call)
        is_float = self._stays_float(layer)
        read = [self._values[tensor] if is_float else self._quantized(tensor) for tensor in call.inputs]
        outputs = self._call_clone(call, read)
        own = _OWN_RANGE.get(primitives.activation_name(layer) or "")
        if own and (number, 0) not in self.graph.output_tensors:
            end, signed = own
            quantizer = QuantActivation(end, signed=signed, name=self._name(f"{call.name}_quant"))
            return [_Value(quantizer(outputs[0]), quantizer, not signed)]
        positive = type(layer) in _KEEP_SIGN and all(x.is_positive for x in read)
        return [_Value(y, None, positive) for y in outputs]

    def _stays_float(self, layer: Any) -> bool:
        """Whether a layer computes with float weights on the device."""
        ours = id(layer) in self._plan.quantizers or id(layer) in self._plan.folded
        return bool(getattr(layer, "weights", [])) and not ours and type(layer) is not layers.BatchNormalization

    def _name_left(self, call: Call) -> None:
        kind = type(call.layer).__name__
        if type(call.layer) in KERNEL_LAYERS:
            why = "left in float" if self._plan.is_left(call) else "channels first is not supported: left in float"
        elif type(call.layer) is layers.BatchNormalization:
            why = "stays a layer of its own: it does not follow one layer with weights alone"
        elif _is_arithmetic(call.layer):
            return
        else:
            why = "left as it is: it is none of the layers that quantize_model knows"
        if not any(line.startswith(f"{call.name} ") for line in self.left):
            self.left.append(f"{call.name} ({kind}) {why}")

    def _kernel_layer(self, number: int, call: Call) -> _Value:
        layer = call.layer
        x = self._quantized(call.inputs[0])
        if id(layer) not in self._clones:
            self._clones[id(layer)] = self._new_kernel_layer(call, x)
            self._weights.append((layer, self._clones[id(layer)]))
        clone = self._clones[id(layer)]
        tensor = self._plan.behind_normalization.get((number, 0), (number, 0))
        self.pairs.setdefault(clone.name, []).append(tensor)
        return _Value(clone(x.tensor))

    def _new_kernel_layer(self, call: Call, x: _Value) -> KernelLayer:
        layer, quantizer = call.layer, self._plan.quantizers[id(call.layer)]
        config = layer.get_config()
        arguments = {key: config[key] for key in _TAKEN_OVER if key in config}
        kernel = "kernel"
        if "depth_multiplier" in config:
            kernel = "depthwise"
            arguments.pop("groups", None)  # tf-keras has it there, always 1
        for what in ("regularizer", "constraint"):
            if config.get(f"{kernel}_{what}") is not None:
                arguments[f"{kernel}_{what}"] = config[f"{kernel}_{what}"]
        normalization = self._plan.normalizations.get(id(layer))
        if normalization is not None:
            arguments["normalization"] = QuantBatchNormalization(
                momentum=normalization.momentum,
                epsilon=normalization.epsilon,
                scale=normalization.scale,
                bits=self.recipe.parameter_bits,
                name=normalization.name,
                trainable=normalization.trainable,
            )
        else:
            arguments["use_bias"] = True  # for what is corrected later
        return _QUANTIZED[type(layer)](
            **arguments,
            name=call.name,
            kernel_quantizer=quantizer,
            gain="channel",
            parameter_bits=self.recipe.parameter_bits,
            bias_resolution=_bias_resolution(x.quantizer),
            keep_zeros=self.recipe.keep_zeros,
            input_bits=8 if self.recipe.activation_bits <= 8 else 16,
        )

    def _relu(self, number: int, call: Call, bound: float) -> _Value:
        # Nothing is rounded before the bound if nothing was yet.
        x = self._values[call.inputs[0]]
        found = self._range((number, 0), signed=False)
        end = min(bound, found) if found is not None else bound
        relu = ClippedReLU(
            end if math.isfinite(end) else None,
            bits=self.recipe.activation_bits,
            power_of_two=self.recipe.power_of_two,
            momentum=None if math.isfinite(end) else MOMENTUM,
            name=self._own_name(call.name),
        )
        return _Value(relu(x.tensor), relu, True)

    def _quantized(self, tensor: Tensor) -> _Value:
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
                name=self._name(f"{call.name}_quant"),
            )
            self._on_grid[tensor] = _Value(quantizer(value.tensor), quantizer, not signed)
        return self._on_grid[tensor]

    def _end(self, tensor: Tensor) -> _Value:
        """An output of the model: on a grid, unless its op has a range of its own."""
        layer = self.graph.calls[tensor[0]].layer
        is_float = tensor[0] in self._plan.floating or self._stays_float(layer)
        is_done = primitives.activation_name(layer) in _OWN_RANGE or is_float
        return self._values[tensor] if is_done else self._quantized(tensor)

    def _range(self, tensor: Tensor, signed: bool) -> float | None:
        if self._ranges is None:
            return None
        return max(self._ranges[other].end(signed) for other in self._plan.same_range(tensor))

    def _lowest(self, tensor: Tensor) -> float | None:
        if self._ranges is None:
            return None
        return min(self._ranges[other].low for other in self._plan.same_range(tensor))

    def _call_clone(self, call: Call, read: Sequence[_Value]) -> list[Any]:
        values = {tensor: value.tensor for tensor, value in zip(call.inputs, read, strict=True)}
        twin = Call(self._clone(call), call.args, call.kwargs, call.name)
        return twin(values)

    def _clone(self, call: Call) -> Any:
        layer = call.layer
        if id(layer) not in self._clones:
            self._clones[id(layer)] = primitives.clone(layer, call.name)
            self._weights.append((layer, self._clones[id(layer)]))
        return self._clones[id(layer)]

    def _name(self, name: str) -> str:
        """`name`, or one with a number where that is taken."""
        candidates = [name, *(f"{name}_{i}" for i in range(1, len(self.graph.calls) * 2))]
        found = next(candidate for candidate in candidates if candidate not in self._names)
        self._names.add(found)
        return found

    def _own_name(self, name: str) -> str:
        """The layer's own name for what replaces its first use."""
        if name in self._replaced:
            return self._name(name)
        self._replaced.add(name)
        return name


def _bias_resolution(quantizer: ActivationQuantizer | None) -> float:
    """One step of the input: the kernel's own resolution of a bias."""
    if quantizer is None or quantizer.max_value is None or not quantizer.power_of_two:
        return _COARSE_RESOLUTION
    steps = code_range(quantizer.bits, quantizer.signed)[1] + 1
    return float(np.clip(steps / 2.0 ** math.ceil(math.log2(quantizer.max_value)), 2.0**-16, 2.0**16))


def _set_weights(layer: KernelLayer, floating: Any, normalization: Any) -> None:
    kernel, *bias = floating.get_weights()
    layer.set_float_weights(kernel, bias[0] if bias else None)
    if normalization is not None:
        for name in ("gamma", "beta", "moving_mean", "moving_variance"):
            value = getattr(normalization, name, None)
            if value is not None:
                getattr(layer.normalization, name).assign(tf.convert_to_tensor(value))


def _is_arithmetic(layer: Any) -> bool:
    # An operator of tf-keras is a layer with the operator's name and perhaps a number.
    names = {type(layer).__name__, layer.name.rstrip("_0123456789")}
    return type(layer) in _ARITHMETIC or bool(names & _OPERATORS)


def _is_float(value: _Value) -> bool:
    return bool(tf.as_dtype(value.tensor.dtype).is_floating)

"""From a float Keras model to its quantization-aware twin."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import tensorflow as tf

from . import primitives
from .activations import ActivationQuantizer, ClippedReLU, QuantActivation, QuantInput
from .conv import QuantConv1D, QuantConv2D, QuantDepthwiseConv1D, QuantDepthwiseConv2D
from .dense import QuantDense
from .float_graph import Call, FloatGraph, Tensor, filled
from .kernel_layer import KernelLayer
from .normalization import QuantBatchNormalization
from .quantizers import Quantizer
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

#: Nothing in inference.
_IDENTITIES = (
    layers.Dropout, layers.SpatialDropout1D, layers.SpatialDropout2D, layers.GaussianNoise, layers.GaussianDropout,
    layers.ActivityRegularization,
)  # fmt: skip
#: They hand codes on, on the scale on which they get them.
_MOVES = (
    layers.Flatten, layers.Reshape, layers.Permute, layers.RepeatVector, layers.ZeroPadding1D, layers.ZeroPadding2D,
    layers.Cropping1D, layers.Cropping2D, layers.UpSampling1D, layers.UpSampling2D, layers.MaxPooling1D,
    layers.MaxPooling2D, layers.GlobalMaxPooling1D, layers.GlobalMaxPooling2D, layers.AveragePooling1D,
    layers.AveragePooling2D, layers.Concatenate,
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
#: Functions whose int8 op has a range of its own: (end, signed).
_OWN_RANGE = {"softmax": (1.0, False), "sigmoid": (1.0, False), "tanh": (1.0, True)}

#: Of the ranges that follow the training data.
MOMENTUM = 0.99
#: Bias of a layer whose input's range is not known yet: good for inputs up to 32.
_COARSE_RESOLUTION = 4
#: So many samples of a calibration are used, evenly spread over it.
MOST_SAMPLES = 512


def quantize_model(
    model: tf.keras.Model, recipe: Recipe | None = None, calibration: Any = None
) -> tf.keras.Model:
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
        ValueError: a model of another kind, a recipe that names no layer, a calibration that does not fit.
    """
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
    for line in builder.left:
        warnings.warn(f"quantize_model: {line}", stacklevel=3)
    return Twin(twin, graph, builder.pairs, builder.left, samples)


def check_calibration(model: tf.keras.Model, graph: FloatGraph, calibration: Any) -> list[np.ndarray]:
    """At most MOST_SAMPLES samples for each input, in order. Raises ValueError for what does not fit the model."""
    inputs = [call for call in graph.calls if call.layer is None]
    if isinstance(calibration, Mapping):
        missing = [call.name for call in inputs if call.name not in calibration]
        if missing and len(inputs) == len(calibration) == 1:
            arrays = list(calibration.values())
        elif missing:
            raise ValueError(
                f"the calibration has no array {missing[0]!r}: it holds {', '.join(map(str, calibration)) or 'nothing'}"
            )
        else:
            arrays = [calibration[call.name] for call in inputs]
    else:
        arrays = list(calibration) if isinstance(calibration, list | tuple) else [calibration]
    arrays = [np.asarray(array) for array in arrays]
    if len(arrays) != len(inputs):
        raise ValueError(f"the calibration has {len(arrays)} arrays, {model.name} takes {len(inputs)} inputs")
    for call, array in zip(inputs, arrays, strict=True):
        shape = tuple(call.args[0].shape)[1:]
        fits = array.ndim == len(shape) + 1 and all(a in (b, None) or b is None for a, b in zip(array.shape[1:], shape))
        if not fits or array.dtype.kind not in "fiub":
            wanted = ", ".join(map(str, shape))
            raise ValueError(
                f"the calibration of input {call.name!r} is {array.dtype} {list(array.shape)}, the model takes "
                f"[samples, {wanted}]"
            )
        if len(array) == 0 or not np.all(np.isfinite(array)):
            raise ValueError(
                f"the calibration of input {call.name!r} "
                + ("holds NaN or infinity" if len(array) else "is empty: give at least one sample, better some hundreds")
            )
    if len({len(array) for array in arrays}) > 1:
        raise ValueError("the inputs of the calibration have different numbers of samples")
    chosen = np.unique(np.linspace(0, len(arrays[0]) - 1, MOST_SAMPLES).astype(int))
    return [
        array[chosen].astype(tf.as_dtype(call.args[0].dtype).as_numpy_dtype)
        for call, array in zip(inputs, arrays, strict=True)
    ]


@dataclass
class _Value:
    """A tensor of the twin.

    Attributes:
        tensor: symbolic.
        quantizer: whose codes it holds; None where it is not on a grid.
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
        self._plan = _Plan(self.graph, self.recipe)
        self._ranges = None if self.samples is None else _ranges(self.graph, self.samples, self.recipe)
        self._values: dict[Tensor, _Value] = {}
        self._on_grid: dict[Tensor, _Value] = {}
        self._clones: dict[int, Any] = {}
        self._weights: list[tuple[Any, Any]] = []
        self._names: set[str] = {call.name for call in self.graph.calls}
        for number, call in enumerate(self.graph.calls):
            outputs = self._emit(number, call)
            self._values |= {(number, i): value for i, value in enumerate(outputs)}
        ends = {tensor: self._end(tensor).tensor for tensor in self.graph.output_tensors}
        inputs = [self._values[i, 0].tensor for i, call in enumerate(self.graph.calls) if call.layer is None]
        twin = tf.keras.Model(
            inputs[0] if not tf.nest.is_nested(self.graph.inputs) else tf.nest.pack_sequence_as(self.graph.inputs, inputs),
            filled(self.graph.outputs, ends),
            name=name,
        )
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
        bound = primitives.relu_bound(layer)
        if bound is not None:
            return [self._relu(number, call, bound)]
        if isinstance(layer, _IDENTITIES) or primitives.activation_name(layer) == "linear":
            x = self._values[call.inputs[0]]
            return [_Value(self._clone(call)(x.tensor), x.quantizer, x.is_positive)]
        if type(layer) in _MOVES:
            read = [self._quantized(tensor) for tensor in call.inputs]
            (y,) = self._call_clone(call, read)
            same = all(x.quantizer is read[0].quantizer for x in read)
            positive = all(x.is_positive for x in read)
            # Joined parts of equal ranges are on one grid, though several quantizers put them there.
            joined = same or self._plan.shares_range(call.inputs)
            return [_Value(y, read[0].quantizer if joined else None, positive)]
        return self._stock(number, call)

    def _stock(self, number: int, call: Call) -> list[_Value]:
        """A layer that stays what it is."""
        kind = type(call.layer).__name__
        known = type(call.layer) in _ARITHMETIC or kind in _OPERATORS or call.layer.name.rstrip("_0123456789") in _OPERATORS
        if getattr(call.layer, "weights", []) or not known:
            self.left.append(f"{call.name} ({kind}) stays in float: it is not one of the layers that are quantized")
        weighted = bool(getattr(call.layer, "weights", [])) and not isinstance(call.layer, layers.BatchNormalization)
        read = [self._values[t] if weighted or not _is_float(self._values[t]) else self._quantized(t) for t in call.inputs]
        outputs = self._call_clone(call, read)
        positive = known and all(x.is_positive for x in read) and kind not in ("Subtract", "LeakyReLU", "Activation")
        values = [_Value(y, None, positive) for y in outputs]
        own = _OWN_RANGE.get(primitives.activation_name(call.layer) or "")
        if own and (number, 0) not in self.graph.output_tensors:
            end, signed = own
            quantizer = QuantActivation(end, signed=signed, name=self._name(f"{call.name}_quant"))
            values = [_Value(quantizer(outputs[0]), quantizer, not signed)]
        return values

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
            name=self._once(call.name),
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
        if primitives.activation_name(layer) in _OWN_RANGE or getattr(layer, "weights", []) and id(layer) not in self._plan.quantizers and id(layer) not in self._plan.folded:
            return self._values[tensor]
        return self._quantized(tensor)

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

    def _once(self, name: str) -> str:
        """The layer's own name for its first use."""
        self._used = getattr(self, "_used", set())
        if name in self._used:
            return self._name(name)
        self._used.add(name)
        return name


class _Plan:
    """What is known before anything is built."""

    def __init__(self, graph: FloatGraph, recipe: Recipe) -> None:
        self._graph = graph
        consumers = graph.consumers()
        weighted = [call for call in graph.calls if type(call.layer) in _QUANTIZED]
        self._check(recipe, weighted)
        edges = _edges(graph, weighted)
        self.quantizers: dict[int, Quantizer] = {}
        for call in weighted:
            quantizer = recipe.quantizer_of(call.name, id(call.layer) in edges)
            is_known = call.layer.get_config().get("data_format", "channels_last") in (None, "channels_last")
            if quantizer is not None and is_known:
                self.quantizers.setdefault(id(call.layer), quantizer)
        #: Layer to the batch normalization that follows it wherever it is used.
        self.normalizations: dict[int, Any] = {}
        self.behind_normalization: dict[Tensor, Tensor] = {}
        for call in weighted:
            found = self._normalization(call.layer, consumers) if id(call.layer) in self.quantizers else None
            if found is not None:
                self.normalizations[id(call.layer)], tensors = found
                self.behind_normalization |= tensors
        self.folded = {id(layer) for layer in self.normalizations.values()}
        self._groups = _same_ranges(graph, self.folded)

    @staticmethod
    def _check(recipe: Recipe, weighted: list[Call]) -> None:
        from fnmatch import filter as matching

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

    def same_range(self, tensor: Tensor) -> set[Tensor]:
        """The tensors that share one range with this one, since they are joined somewhere."""
        return self._groups.get(tensor, {tensor})

    def shares_range(self, tensors: Sequence[Tensor]) -> bool:
        return all(self.same_range(tensor) == self.same_range(tensors[0]) for tensor in tensors)


def _normalizes_last(layer: Any, call: Call) -> bool:
    axis = layer.axis[0] if isinstance(layer.axis, list | tuple) else layer.axis
    shape = layer.get_build_config()["input_shape"]
    return axis in (-1, len(shape) - 1) and not call.kwargs.get("training") and not call.kwargs.get("mask")


def _edges(graph: FloatGraph, weighted: list[Call]) -> set[int]:
    """The layers with no other before them, or none behind."""
    is_weighted = {number for number, call in enumerate(graph.calls) if call in weighted}
    before: dict[int, bool] = {}
    for number, call in enumerate(graph.calls):
        before[number] = any(before[made] or made in is_weighted for made, _ in call.inputs)
    behind = dict.fromkeys(range(len(graph.calls)), False)
    for number in reversed(range(len(graph.calls))):
        for made, _ in graph.calls[number].inputs:
            behind[made] |= behind[number] or number in is_weighted
    return {id(graph.calls[number].layer) for number in is_weighted if not (before[number] and behind[number])}


def _same_ranges(graph: FloatGraph, folded: set[int]) -> dict[Tensor, set[Tensor]]:
    """Tensors that a Concatenate joins, traced back to what puts them on a grid."""

    def origin(tensor: Tensor) -> Tensor:
        call = graph.calls[tensor[0]]
        hands_on = type(call.layer) in _MOVES or isinstance(call.layer, _IDENTITIES) or id(call.layer) in folded
        return origin(call.inputs[0]) if hands_on and type(call.layer) is not layers.Concatenate else tensor

    groups: dict[Tensor, set[Tensor]] = {}
    for number, call in enumerate(graph.calls):
        if type(call.layer) is layers.Concatenate:
            joined = {(number, 0), *call.inputs, *map(origin, call.inputs)}
            for tensor in list(joined):
                joined |= groups.get(tensor, set())
            groups |= dict.fromkeys(joined, joined)
    return groups


@dataclass(frozen=True)
class _Range:
    """Of a tensor on the calibration: smallest value, and the best end of a signed and of an unsigned range."""

    low: float
    signed: float
    unsigned: float

    def end(self, signed: bool) -> float:
        return self.signed if signed else self.unsigned


def _ranges(graph: FloatGraph, samples: list[np.ndarray], recipe: Recipe) -> dict[Tensor, _Range]:
    ranges = {}
    for number, outputs in graph.run([tf.constant(array) for array in samples]):
        for i, output in enumerate(outputs):
            if output.dtype.is_floating:
                values = output.numpy().reshape(-1)
                if not np.all(np.isfinite(values)):
                    raise ValueError(f"{graph.calls[number].name} gives NaN or infinity on the calibration")
                ends = (best_range(values, recipe.activation_bits, sign, recipe.power_of_two) for sign in (True, False))
                ranges[number, i] = _Range(float(values.min()), *ends)
    return ranges


def best_range(values: np.ndarray, bits: int, signed: bool, power_of_two: bool = True) -> float:
    """The `max_value` of an activation quantizer that gives `values` back with the least squared error.

    Sought among the powers of two from a 256th of the largest |value| up; where the scale need not be one, among even
    parts of the largest.

    Args:
        values: any shape; of more than 2^17 values an even choice is used.
        bits, signed, power_of_two: of the quantizer.
    """
    values = np.asarray(values, np.float64).reshape(-1)
    largest = float(np.abs(values).max(initial=0.0)) if signed else float(values.max(initial=0.0))
    if largest < 2.0**-16:
        return 1.0
    values = values[:: -(-len(values) // 2**17)]
    top = math.ceil(math.log2(largest))
    ends = [2.0 ** (top - i) for i in range(9)] if power_of_two else list(largest * np.linspace(1, 0.1, 46))
    low, high = (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if signed else (0, 2**bits - 1)

    def error(end: float) -> float:
        scale = end / (high + 1 if power_of_two else high)
        return float(np.sum((scale * np.clip(np.rint(values / scale), low, high) - values) ** 2))

    return min(ends, key=error)


def _bias_resolution(quantizer: ActivationQuantizer | None) -> float:
    """One step of the input: the kernel's own resolution of a bias."""
    if quantizer is None or quantizer.max_value is None or not quantizer.power_of_two:
        return _COARSE_RESOLUTION
    steps = 2.0 ** (quantizer.bits - (1 if quantizer.signed else 0))
    return float(np.clip(steps / 2.0 ** math.ceil(math.log2(quantizer.max_value)), 2.0**-16, 2.0**16))


def _set_weights(layer: KernelLayer, floating: Any, normalization: Any) -> None:
    kernel, *bias = floating.get_weights()
    layer.set_float_weights(kernel, bias[0] if bias else None)
    if normalization is not None:
        for name in ("gamma", "beta", "moving_mean", "moving_variance"):
            value = getattr(normalization, name, None)
            if value is not None:
                getattr(layer.normalization, name).assign(tf.convert_to_tensor(value))


def _is_float(value: _Value) -> bool:
    return bool(tf.as_dtype(value.tensor.dtype).is_floating)

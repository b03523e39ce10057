"""What `quantize_model` knows of Keras's layers, in one place."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from .conv import QuantConv1D, QuantConv2D, QuantDepthwiseConv1D, QuantDepthwiseConv2D
from .dense import QuantDense
from .kernel_layer import KernelLayer

layers = tf.keras.layers

#: Layers that can be quantized, and what they become.
QUANTIZED: dict[type, type[KernelLayer]] = {
    layers.Dense: QuantDense,
    layers.Conv1D: QuantConv1D,
    layers.Conv2D: QuantConv2D,
    layers.DepthwiseConv1D: QuantDepthwiseConv1D,
    layers.DepthwiseConv2D: QuantDepthwiseConv2D,
}
#: Layers that are two of those: depthwise, then pointwise.
SEPARABLE = {
    layers.SeparableConv1D: (layers.DepthwiseConv1D, layers.Conv1D),
    layers.SeparableConv2D: (layers.DepthwiseConv2D, layers.Conv2D),
}
#: Nothing in inference.
IDENTITIES = (
    layers.Dropout, layers.SpatialDropout1D, layers.SpatialDropout2D, layers.GaussianNoise, layers.GaussianDropout,
    layers.ActivityRegularization,
)  # fmt: skip
#: They give codes on the scale on which they get them.
MOVES = (
    layers.Flatten, layers.Reshape, layers.Permute, layers.RepeatVector, layers.ZeroPadding1D, layers.ZeroPadding2D,
    layers.Cropping1D, layers.Cropping2D, layers.UpSampling1D, layers.UpSampling2D, layers.MaxPooling1D,
    layers.MaxPooling2D, layers.GlobalMaxPooling1D, layers.GlobalMaxPooling2D, layers.AveragePooling1D,
    layers.AveragePooling2D, layers.Concatenate,
)  # fmt: skip
#: Arithmetic that gives nothing negative where it gets nothing negative.
KEEP_SIGN = (
    layers.Add, layers.Multiply, layers.Average, layers.Maximum, layers.Minimum, layers.GlobalAveragePooling1D,
    layers.GlobalAveragePooling2D,
)  # fmt: skip
#: Stock int8 ops between two ranges.
ARITHMETIC = (*KEEP_SIGN, layers.Subtract, layers.LeakyReLU, layers.Softmax, layers.Activation)
#: The same, as Keras 3 and tf-keras name the operators of tensors.
_OPERATORS = {
    "Add", "Subtract", "Multiply", "Mean", "tf.__operators__.add", "tf.math.add", "tf.math.subtract",
    "tf.math.multiply", "tf.math.reduce_mean",
}  # fmt: skip
#: Functions whose int8 op has a range of its own: (end, signed).
OWN_RANGE = {"softmax": (1.0, False), "sigmoid": (1.0, False), "tanh": (1.0, True)}


def is_arithmetic(layer: Any) -> bool:
    """Whether the layer is a stock op between two ranges, a layer of Keras or an operator."""
    # An operator of tf-keras is a layer with the operator's name and perhaps a number.
    names = {type(layer).__name__, layer.name.rstrip("_0123456789")}
    return type(layer) in ARITHMETIC or bool(names & _OPERATORS)


def own_range(layer: Any) -> tuple[float, bool] | None:
    """(end, signed) of what the layer gives, where its int8 op fixes that."""
    return OWN_RANGE.get(activation_name(layer) or "")


def activation_name(layer: Any) -> str | None:
    """The name of the function that a layer applies; None for a layer that is no activation."""
    if isinstance(layer, layers.Softmax):
        return "softmax"
    return function_name(layer.activation) if isinstance(layer, layers.Activation) else None


def relu_bound(layer: Any) -> float | None:
    """The upper bound of a ReLU, infinity where it has none; None for another layer."""
    if isinstance(layer, layers.ReLU):
        slope, threshold = float(layer.negative_slope), float(layer.threshold)
        if slope or threshold:
            return None
        return float("inf") if layer.max_value is None else float(layer.max_value)
    return {"relu": float("inf"), "relu6": 6.0}.get(activation_name(layer) or "")


def function_name(activation: Any) -> str:
    """The name of an `activation=`, "linear" for none."""
    if isinstance(activation, layers.Layer):
        return str(activation.name)
    return str(getattr(activation, "__name__", "linear" if activation is None else type(activation).__name__))

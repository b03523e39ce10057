"""The layer of this package that takes the place of a float one."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import tensorflow as tf

from .activations import ActivationQuantizer, code_range
from .kernel_layer import KernelLayer
from .layer_kinds import QUANTIZED
from .normalization import QuantBatchNormalization
from .quantizers import Quantizer
from .recipe import Recipe

#: What a quantized layer takes over from a float one, kernel and activation aside: values, and objects.
_VALUES = (
    "units", "filters", "kernel_size", "strides", "padding", "data_format", "dilation_rate", "groups",
    "depth_multiplier", "use_bias", "trainable",
)  # fmt: skip
_OBJECTS = ("bias_regularizer", "bias_constraint", "activity_regularizer")

#: Bias of a layer whose input's range is not known yet: good for inputs up to 32.
_COARSE_RESOLUTION = 4


def quantized_kernel(
    layer: Any,
    name: str,
    quantizer: Quantizer,
    input_quantizer: ActivationQuantizer | None,
    normalization: QuantBatchNormalization | None,
    recipe: Recipe,
) -> KernelLayer:
    """An unbuilt layer of this package like a float one, its activation aside.

    Args:
        layer: the float one, of a class in `QUANTIZED`.
        name: of the new one.
        quantizer: of the kernel.
        input_quantizer: what gives the layer its input; or None.
        normalization: becomes a part of it; or None.
        recipe: for the rest.
    """
    config = layer.get_config()
    arguments = {key: config[key] for key in _VALUES if key in config}
    kernel = "kernel"
    if "depth_multiplier" in config:
        kernel = "depthwise"
        arguments.pop("groups", None)  # tf-keras has it there, always 1
    objects = (*_OBJECTS, f"{kernel}_regularizer", f"{kernel}_constraint")
    # The objects themselves: their classes need not be registered.
    arguments |= {key: value for key in objects if (value := getattr(layer, key, None)) is not None}
    if normalization is not None:
        arguments["normalization"] = normalization
    else:
        arguments["use_bias"] = True  # for what is corrected later
    return QUANTIZED[type(layer)](
        **arguments,
        name=name,
        kernel_quantizer=quantizer,
        gain="channel",
        parameter_bits=recipe.parameter_bits,
        bias_resolution=_bias_resolution(input_quantizer),
        keep_zeros=recipe.keep_zeros,
        input_bits=8 if recipe.activation_bits <= 8 else 16,
    )


def quantized_normalization(normalization: Any, is_frozen: bool, recipe: Recipe) -> QuantBatchNormalization:
    """An unbuilt batch normalization to fold, like a float one.

    Args:
        normalization: the float one.
        is_frozen: the model calls it with training=False, so that its statistics stand still in training as well.
        recipe: says its bits.
    """
    return QuantBatchNormalization(
        momentum=normalization.momentum,
        epsilon=normalization.epsilon,
        scale=normalization.scale,
        bits=recipe.parameter_bits,
        name=normalization.name,
        trainable=normalization.trainable and not is_frozen,
    )


def set_float_weights(layer: KernelLayer, floating: Any, normalization: Any) -> None:
    """Gives a built layer what the float one, and the float batch normalization behind it or None, have."""
    kernel, *bias = floating.get_weights()
    layer.set_float_weights(kernel, bias[0] if bias else None)
    if normalization is not None:
        for name in ("gamma", "beta", "moving_mean", "moving_variance"):
            value = getattr(normalization, name, None)
            if value is not None:
                getattr(layer.normalization, name).assign(tf.convert_to_tensor(value))


def _bias_resolution(quantizer: ActivationQuantizer | None) -> float:
    """One step of the input: the kernel's own resolution of a bias."""
    if quantizer is None or quantizer.max_value is None or not quantizer.power_of_two:
        return _COARSE_RESOLUTION
    steps = code_range(quantizer.bits, quantizer.signed)[1] + 1
    return float(np.clip(steps / 2.0 ** math.ceil(math.log2(quantizer.max_value)), 2.0**-16, 2.0**16))

"""Separable convolutions with 1 to 8-bit weights: a depthwise convolution and one of 1 by 1 behind it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, ClassVar

import tensorflow as tf

from . import deployment as deployments
from . import numerics, quantizers
from .activations import ActivationQuantizer, QuantActivation
from .conv import QuantConv1D, QuantConv2D, QuantDepthwiseConv1D, QuantDepthwiseConv2D, Sizes
from .deployment import Deployment
from .kernel_layer import check_activation
from .normalization import QuantBatchNormalization


class _SeparableConv(tf.keras.layers.Layer):
    """Base of `QuantSeparableConv1D` and `QuantSeparableConv2D`.

    The halves are two ops on a device, so what passes between them is quantized too.
    """

    depthwise_class: ClassVar[type[QuantDepthwiseConv1D | QuantDepthwiseConv2D]]
    pointwise_class: ClassVar[type[QuantConv1D | QuantConv2D]]

    def __init__(
        self,
        filters: int,
        kernel_size: Sizes,
        strides: Sizes = 1,
        padding: str = "valid",
        data_format: str | None = None,
        dilation_rate: Sizes = 1,
        depth_multiplier: int = 1,
        activation: Any = None,
        use_bias: bool = True,
        depthwise_initializer: Any = "quantizer",
        pointwise_initializer: Any = "quantizer",
        bias_initializer: Any = "zeros",
        depthwise_regularizer: Any = "quantizer",
        pointwise_regularizer: Any = "quantizer",
        bias_regularizer: Any = None,
        activity_regularizer: Any = None,
        depthwise_constraint: Any = None,
        pointwise_constraint: Any = None,
        bias_constraint: Any = None,
        *,
        depthwise_quantizer: quantizers.Quantizer | dict[str, Any] | None = None,
        depthwise_activation: ActivationQuantizer | dict[str, Any] | None = None,
        pointwise_quantizer: quantizers.Quantizer | dict[str, Any] | None = None,
        normalization: QuantBatchNormalization | dict[str, Any] | None = None,
        deployment: Deployment | None = None,
        **kwargs: Any,
    ) -> None:
        keywords = deployments.take_keywords(kwargs)
        super().__init__(activity_regularizer=activity_regularizer, **numerics.in_float32(kwargs))
        self.deployment = deployments.get(self.name, deployment, keywords)
        check_activation(self.name, activation)
        window = {
            "kernel_size": kernel_size, "strides": strides, "padding": padding, "dilation_rate": dilation_rate,
            "depth_multiplier": depth_multiplier, "data_format": data_format,
        }  # fmt: skip
        kernel = (depthwise_quantizer, depthwise_initializer, depthwise_regularizer, depthwise_constraint)
        self.depthwise = self._depthwise(window, kernel)
        self.depthwise_activation = self._between(depthwise_activation)
        kernel = (pointwise_quantizer, pointwise_initializer, pointwise_regularizer, pointwise_constraint)
        bias = (use_bias, bias_initializer, bias_regularizer, bias_constraint)
        self.pointwise = self._pointwise(filters, kernel, bias, normalization)

    def _depthwise(
        self, window: dict[str, Any], kernel: tuple[Any, ...]
    ) -> QuantDepthwiseConv1D | QuantDepthwiseConv2D:
        quantizer, initializer, regularizer, constraint = kernel
        return self.depthwise_class(
            **window,
            use_bias=False,
            depthwise_initializer=initializer,
            depthwise_regularizer=regularizer,
            depthwise_constraint=constraint,
            kernel_quantizer=quantizer,
            deployment=self.deployment,
            name=f"{self.name}_depthwise",
        )

    def _between(self, quantizer: ActivationQuantizer | dict[str, Any] | None) -> ActivationQuantizer:
        """The quantizer of what passes from one half to the other."""
        if isinstance(quantizer, dict):
            quantizer = tf.keras.utils.deserialize_keras_object(quantizer)
        if quantizer is None:
            bits = self.deployment.input_bits
            quantizer = QuantActivation(8.0, bits, name=f"{self.name}_depthwise_activation")
        if not isinstance(quantizer, ActivationQuantizer):
            raise TypeError(
                f"{self.name}: depthwise_activation must be a QuantActivation or ClippedReLU, not {quantizer!r}"
            )
        return quantizer

    def _pointwise(
        self, filters: int, kernel: tuple[Any, ...], bias: tuple[Any, ...], normalization: Any
    ) -> QuantConv1D | QuantConv2D:
        quantizer, initializer, regularizer, constraint = kernel
        use_bias, bias_initializer, bias_regularizer, bias_constraint = bias
        return self.pointwise_class(
            filters,
            1,
            use_bias=use_bias,
            kernel_initializer=initializer,
            bias_initializer=bias_initializer,
            kernel_regularizer=regularizer,
            bias_regularizer=bias_regularizer,
            kernel_constraint=constraint,
            bias_constraint=bias_constraint,
            kernel_quantizer=quantizer,
            normalization=normalization,
            deployment=replace(self.deployment, input_bits=8 if self.depthwise_activation.bits <= 8 else 16),
            name=f"{self.name}_pointwise",
        )

    def build(self, input_shape: Any) -> None:
        for layer in self._parts:
            # Loading a model builds the parts of a layer before the layer.
            if not layer.built:
                layer.build(input_shape)
            input_shape = layer.compute_output_shape(input_shape)
        self.built = True

    @property
    def _parts(self) -> tuple[tf.keras.layers.Layer, ...]:
        return self.depthwise, self.depthwise_activation, self.pointwise

    def call(self, inputs: tf.Tensor, training: bool | None = None) -> tf.Tensor:
        for layer in self._parts:
            inputs = layer(inputs, training=training)
        return inputs

    def compute_output_shape(self, input_shape: Any) -> Any:
        return self.pointwise.compute_output_shape(self.depthwise.compute_output_shape(input_shape))

    def get_config(self) -> dict[str, Any]:
        depthwise, pointwise = self.depthwise.get_config(), self.pointwise.get_config()
        window = ("kernel_size", "strides", "padding", "data_format", "dilation_rate", "depth_multiplier")
        behind = ("filters", "activation", "use_bias", "bias_initializer", "bias_regularizer", "bias_constraint")
        kernel = ("initializer", "regularizer", "constraint", "quantizer")
        return {
            **super().get_config(),
            **{name: depthwise[name] for name in (*window, *(f"depthwise_{part}" for part in kernel[:3]))},
            **{name: pointwise[name] for name in (*behind, "normalization")},
            **{f"pointwise_{part}": pointwise[f"kernel_{part}"] for part in kernel},
            "depthwise_quantizer": depthwise["kernel_quantizer"],
            "depthwise_activation": tf.keras.utils.serialize_keras_object(self.depthwise_activation),
            "activity_regularizer": tf.keras.regularizers.serialize(self.activity_regularizer),
            **self.deployment.get_config(),
        }


@tf.keras.utils.register_keras_serializable(package="subbyte")
class QuantSeparableConv1D(_SeparableConv):
    """A SeparableConv1D layer whose two kernels are integer weights times a step.

    Example:
        QuantSeparableConv1D(32, 9, pointwise_quantizer=quantizers.Tanh(bits=4))

    Args:
        filters, ..., bias_constraint: as in stock SeparableConv1D; "quantizer" is explained in `KernelLayer`.
        depthwise_quantizer, pointwise_quantizer: for the two kernels, from `quantizers`; None is `Linear(8)`.
        depthwise_activation: quantizes what passes from the first convolution to the second, a `ClippedReLU` or
            `QuantActivation`; None is `QuantActivation(8.0, input_bits)`.
        normalization: for the second convolution, see `KernelLayer`.
        deployment: how both convolutions ship; None is `Deployment()`. The `input_bits` of the second follow from the
            `depthwise_activation`.
        **kwargs: attributes of `Deployment`, which replace those of `deployment`, and Keras's own, such as `name`.

    Shapes: [B, W, C] -> [B, OW, filters].
    """

    depthwise_class, pointwise_class = QuantDepthwiseConv1D, QuantConv1D


@tf.keras.utils.register_keras_serializable(package="subbyte")
class QuantSeparableConv2D(_SeparableConv):
    """A SeparableConv2D layer whose two kernels are integer weights times a step.

    Example:
        QuantSeparableConv2D(32, 3, padding="same", pointwise_quantizer=quantizers.Tanh(bits=4))

    Args:
        filters, ..., bias_constraint: as in stock SeparableConv2D; "quantizer" is explained in `KernelLayer`.
        depthwise_quantizer, ..., **kwargs: as in `QuantSeparableConv1D`.

    Shapes: [B, H, W, C] -> [B, OH, OW, filters].
    """

    depthwise_class, pointwise_class = QuantDepthwiseConv2D, QuantConv2D

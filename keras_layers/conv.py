"""Convolutions with 1 to 8-bit weights, in one dimension and in two, plain, depthwise and separable.

Channels are last. In one dimension padding may be "causal", and a layer computes what a two-dimensional one computes on
an input of height 1, which is how it is deployed.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import tensorflow as tf

from . import markers, quantizers
from .activations import ActivationQuantizer, QuantActivation
from .folding import MOST_SCALE_BITS
from .kernel_layer import KernelLayer
from .normalization import QuantBatchNormalization

Sizes = int | Sequence[int]


class _Convolution(KernelLayer):
    """Base of the convolutions: the window, and the sums in it.

    Args:
        kernel_size, strides, padding, data_format, dilation_rate: as in stock layers, channels last.
        **kwargs: see `KernelLayer`.
    """

    marker = markers.CONV_2D
    #: How many dimensions the window has.
    rank: ClassVar[int]

    def __init__(
        self,
        *,
        kernel_size: Sizes,
        strides: Sizes,
        padding: str,
        data_format: str | None,
        dilation_rate: Sizes,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.kernel_size = self._sizes("kernel_size", kernel_size)
        self.strides = self._sizes("strides", strides)
        self.dilation_rate = self._sizes("dilation_rate", dilation_rate)
        self.padding = str(padding).lower()
        self.data_format = data_format or tf.keras.backend.image_data_format()
        paddings = ("valid", "same", "causal") if self.rank == 1 else ("valid", "same")
        if self.padding not in paddings:
            raise ValueError(f"{self.name}: padding must be one of {', '.join(paddings)}, not {padding!r}")
        if self.data_format != "channels_last":
            raise ValueError(f"{self.name}: data_format must be 'channels_last', not {self.data_format!r}")
        if max(self.strides) > 1 and max(self.dilation_rate) > 1:
            raise ValueError(
                f"{self.name}: strides {self.strides} and dilation_rate {self.dilation_rate} cannot both be above 1"
            )
        self.input_spec = tf.keras.layers.InputSpec(ndim=self.rank + 2)
        self.supports_masking = False  # as in stock layers: a window sees several time steps

    def _sizes(self, name: str, value: Sizes) -> tuple[int, ...]:
        values = (value,) * self.rank if isinstance(value, int) else tuple(value)
        if len(values) != self.rank or not all(isinstance(size, int) and size > 0 for size in values):
            raise ValueError(f"{self.name}: {name} must be {self.rank} positive integers, not {value!r}")
        return values

    def build(self, input_shape: Any) -> None:
        super().build(input_shape)
        self.input_spec = tf.keras.layers.InputSpec(ndim=self.rank + 2, axes={-1: input_shape[-1]})

    def _output_channels_last(self, kernel: tf.Tensor) -> tf.Tensor:
        """[kernel height, kernel width, input channels of a group, output channels]."""
        return tf.reshape(kernel, (*self._two_dimensional(self.kernel_size), -1, self._channels))

    def _two_dimensional(self, sizes: tuple[int, ...]) -> tuple[int, ...]:
        return (1, *sizes) if self.rank == 1 else sizes

    def _pad(self, x: tf.Tensor) -> tf.Tensor:
        return tf.pad(x, [(0, 0), (self._reach(0) - 1, 0), (0, 0)]) if self.padding == "causal" else x

    def _reach(self, dimension: int) -> int:
        """Inputs from the first to the last that one output sees."""
        return (self.kernel_size[dimension] - 1) * self.dilation_rate[dimension] + 1

    def _product(self, x: tf.Tensor, weights: tf.Tensor) -> tf.Tensor:
        strides, dilations = self._two_dimensional(self.strides), self._two_dimensional(self.dilation_rate)
        if self.rank == 1:
            return tf.squeeze(_conv_2d(tf.expand_dims(x, 1), weights, strides, self._op_padding, dilations), 1)
        return _conv_2d(x, weights, strides, self._op_padding, dilations)

    @property
    def _op_padding(self) -> str:
        return "SAME" if self.padding == "same" else "VALID"

    def _marker_attributes(self) -> dict[str, int | str]:
        strides, dilations = self._two_dimensional(self.strides), self._two_dimensional(self.dilation_rate)
        return {
            "stride_height": strides[0],
            "stride_width": strides[1],
            "dilation_height": dilations[0],
            "dilation_width": dilations[1],
            "padding": self._op_padding,
        }

    def compute_output_shape(self, input_shape: Any) -> Any:
        batch, *sizes, inputs = input_shape
        return (batch, *map(self._output_size, range(self.rank), sizes), self._output_channels(inputs))

    def _output_size(self, dimension: int, size: int | None) -> int | None:
        if size is None:
            return None
        window = self._reach(dimension) if self.padding == "valid" else 1
        if size < window:
            raise ValueError(f"{self.name}: an input of size {size} is smaller than the window, {window}")
        return (size - window) // self.strides[dimension] + 1

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "kernel_size": self.kernel_size,
            "strides": self.strides,
            "padding": self.padding,
            "data_format": self.data_format,
            "dilation_rate": self.dilation_rate,
        }


def _conv_2d(
    x: tf.Tensor, kernel: tf.Tensor, strides: tuple[int, ...], padding: str, dilations: tuple[int, ...]
) -> tf.Tensor:
    """[B, H, W, C] by [kernel height, kernel width, input channels of a group, N]; the channels fall into groups."""
    height, width, inputs, outputs = kernel.shape
    groups = x.shape[-1] // inputs
    if groups == 1:
        return tf.nn.convolution(x, kernel, strides, padding, dilations=dilations)
    if x.shape[1] == 1:
        strides = (strides[1], strides[1])  # any stride is the same along a height of 1
    if inputs == 1 and strides[0] == strides[1]:  # TensorFlow's condition
        kernel = tf.reshape(kernel, (height, width, groups, outputs // groups))
        return tf.nn.depthwise_conv2d(x, kernel, (1, *strides, 1), padding, dilations=dilations)
    parts = zip(tf.split(x, groups, axis=-1), tf.split(kernel, groups, axis=-1), strict=True)
    return tf.concat([tf.nn.convolution(*part, strides, padding, dilations=dilations) for part in parts], axis=-1)


class _Conv(_Convolution):
    """Base of `QuantConv1D` and `QuantConv2D`."""

    def __init__(
        self,
        filters: int,
        kernel_size: Sizes,
        strides: Sizes = 1,
        padding: str = "valid",
        data_format: str | None = None,
        dilation_rate: Sizes = 1,
        groups: int = 1,
        activation: Any = None,
        use_bias: bool = True,
        kernel_initializer: Any = "quantizer",
        bias_initializer: Any = "zeros",
        kernel_regularizer: Any = "quantizer",
        bias_regularizer: Any = None,
        activity_regularizer: Any = None,
        kernel_constraint: Any = None,
        bias_constraint: Any = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(
            kernel_size=kernel_size,
            strides=strides,
            padding=padding,
            data_format=data_format,
            dilation_rate=dilation_rate,
            activation=activation,
            use_bias=use_bias,
            kernel_initializer=kernel_initializer,
            bias_initializer=bias_initializer,
            kernel_regularizer=kernel_regularizer,
            bias_regularizer=bias_regularizer,
            activity_regularizer=activity_regularizer,
            kernel_constraint=kernel_constraint,
            bias_constraint=bias_constraint,
            **kwargs,
        )
        self.filters, self.groups = self._count("filters", filters), self._count("groups", groups)
        if filters % groups:
            raise ValueError(f"{self.name}: {filters} filters do not fall into {groups} equal groups")

    def _output_channels(self, inputs: Any) -> Any:
        return self.filters

    def _kernel_shape(self, inputs: int) -> tuple[int, ...]:
        if inputs % self.groups:
            raise ValueError(f"{self.name}: {inputs} input channels do not fall into {self.groups} equal groups")
        return (*self.kernel_size, inputs // self.groups, self.filters)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "filters": self.filters, "groups": self.groups}


@tf.keras.utils.register_keras_serializable(package="subbyte")
class QuantConv1D(_Conv):
    """A Conv1D layer whose kernel is integer weights times a step.

        y = activation(normalization(gain * (step * convolution(x, weights) + bias)))

    Example:
        QuantConv1D(24, 9, padding="causal", kernel_quantizer=quantizers.Tanh(bits=4))

    Args:
        filters, ..., bias_constraint: as in stock Conv1D; "quantizer" is explained in `KernelLayer`.
        **kwargs: `kernel_quantizer`, `gain`, `normalization`, `parameter_bits`, `bias_resolution`, `scale_bits`,
            `input_bits`: see `KernelLayer`.

    Shapes: [B, W, C] -> [B, OW, filters].
    """

    rank = 1


@tf.keras.utils.register_keras_serializable(package="subbyte")
class QuantConv2D(_Conv):
    """A Conv2D layer whose kernel is integer weights times a step.

        y = activation(normalization(gain * (step * convolution(x, weights) + bias)))

    Example:
        QuantConv2D(64, (10, 4), strides=2, kernel_quantizer=quantizers.Tanh(bits=4))

    Args:
        filters, ..., bias_constraint: as in stock Conv2D; "quantizer" is explained in `KernelLayer`.
        **kwargs: `kernel_quantizer`, `gain`, `normalization`, `parameter_bits`, `bias_resolution`, `scale_bits`,
            `input_bits`: see `KernelLayer`.

    Shapes: [B, H, W, C] -> [B, OH, OW, filters].
    """

    rank = 2


class _DepthwiseConv(_Convolution):
    """Base of `QuantDepthwiseConv1D` and `QuantDepthwiseConv2D`."""

    def __init__(
        self,
        kernel_size: Sizes,
        strides: Sizes = 1,
        padding: str = "valid",
        depth_multiplier: int = 1,
        data_format: str | None = None,
        dilation_rate: Sizes = 1,
        activation: Any = None,
        use_bias: bool = True,
        depthwise_initializer: Any = "quantizer",
        bias_initializer: Any = "zeros",
        depthwise_regularizer: Any = "quantizer",
        bias_regularizer: Any = None,
        activity_regularizer: Any = None,
        depthwise_constraint: Any = None,
        bias_constraint: Any = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(
            kernel_size=kernel_size,
            strides=strides,
            padding=padding,
            data_format=data_format,
            dilation_rate=dilation_rate,
            activation=activation,
            use_bias=use_bias,
            kernel_initializer=depthwise_initializer,
            bias_initializer=bias_initializer,
            kernel_regularizer=depthwise_regularizer,
            bias_regularizer=bias_regularizer,
            activity_regularizer=activity_regularizer,
            kernel_constraint=depthwise_constraint,
            bias_constraint=bias_constraint,
            **kwargs,
        )
        self.depth_multiplier = self._count("depth_multiplier", depth_multiplier)

    def _output_channels(self, inputs: Any) -> Any:
        return None if inputs is None else inputs * self.depth_multiplier

    def _kernel_shape(self, inputs: int) -> tuple[int, ...]:
        return (*self.kernel_size, inputs, self.depth_multiplier)

    def get_config(self) -> dict[str, Any]:
        config = {**super().get_config(), "depth_multiplier": self.depth_multiplier}
        for what in ("initializer", "regularizer", "constraint"):
            config[f"depthwise_{what}"] = config.pop(f"kernel_{what}")
        return config


@tf.keras.utils.register_keras_serializable(package="subbyte")
class QuantDepthwiseConv1D(_DepthwiseConv):
    """A DepthwiseConv1D layer whose kernel is integer weights times a step: a window for each channel.

    Example:
        QuantDepthwiseConv1D(9, padding="causal", kernel_quantizer=quantizers.Tanh(bits=4))

    Args:
        kernel_size, ..., bias_constraint: as in stock DepthwiseConv1D; "quantizer" is explained in `KernelLayer`.
        **kwargs: `kernel_quantizer`, `gain`, `normalization`, `parameter_bits`, `bias_resolution`, `scale_bits`,
            `input_bits`: see `KernelLayer`.

    Shapes: [B, W, C] -> [B, OW, C * depth_multiplier].
    """

    rank = 1


@tf.keras.utils.register_keras_serializable(package="subbyte")
class QuantDepthwiseConv2D(_DepthwiseConv):
    """A DepthwiseConv2D layer whose kernel is integer weights times a step: a window for each channel.

    Example:
        QuantDepthwiseConv2D(3, padding="same", kernel_quantizer=quantizers.Tanh(bits=4))

    Args:
        kernel_size, ..., bias_constraint: as in stock DepthwiseConv2D; "quantizer" is explained in `KernelLayer`.
        **kwargs: `kernel_quantizer`, `gain`, `normalization`, `parameter_bits`, `bias_resolution`, `scale_bits`,
            `input_bits`: see `KernelLayer`.

    Shapes: [B, H, W, C] -> [B, OH, OW, C * depth_multiplier].
    """

    rank = 2


class _SeparableConv(tf.keras.layers.Layer):
    """Base of `QuantSeparableConv1D` and `QuantSeparableConv2D`: a depthwise convolution and one of 1 by 1 behind it.

    They are two ops on a device, so what passes between them is quantized too.
    """

    depthwise_class: ClassVar[type[_DepthwiseConv]]
    pointwise_class: ClassVar[type[_Conv]]

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
        gain: str | None = "scalar",
        normalization: QuantBatchNormalization | dict[str, Any] | None = None,
        parameter_bits: int = 8,
        bias_resolution: float = 16,
        scale_bits: int = MOST_SCALE_BITS,
        **kwargs: Any,
    ) -> None:
        super().__init__(activity_regularizer=activity_regularizer, **kwargs)
        self.depthwise = self.depthwise_class(
            kernel_size,
            strides,
            padding,
            depth_multiplier,
            data_format,
            dilation_rate,
            use_bias=False,
            depthwise_initializer=depthwise_initializer,
            depthwise_regularizer=depthwise_regularizer,
            depthwise_constraint=depthwise_constraint,
            kernel_quantizer=depthwise_quantizer,
            gain=gain,
            parameter_bits=parameter_bits,
            bias_resolution=bias_resolution,
            scale_bits=scale_bits,
            name=f"{self.name}_depthwise",
        )
        if isinstance(depthwise_activation, dict):
            depthwise_activation = tf.keras.utils.deserialize_keras_object(depthwise_activation)
        if depthwise_activation is None:
            depthwise_activation = QuantActivation(8.0, name=f"{self.name}_depthwise_activation")
        if not isinstance(depthwise_activation, ActivationQuantizer):
            raise TypeError(
                f"{self.name}: depthwise_activation must be a QuantActivation or ClippedReLU, "
                f"not {depthwise_activation!r}"
            )
        self.depthwise_activation = depthwise_activation
        self.pointwise = self.pointwise_class(
            filters,
            1,
            activation=activation,
            use_bias=use_bias,
            kernel_initializer=pointwise_initializer,
            bias_initializer=bias_initializer,
            kernel_regularizer=pointwise_regularizer,
            bias_regularizer=bias_regularizer,
            kernel_constraint=pointwise_constraint,
            bias_constraint=bias_constraint,
            kernel_quantizer=pointwise_quantizer,
            gain=gain,
            normalization=normalization,
            parameter_bits=parameter_bits,
            bias_resolution=bias_resolution,
            scale_bits=scale_bits,
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
        quantization = ("gain", "normalization", "parameter_bits", "bias_resolution", "scale_bits")
        kernel = ("initializer", "regularizer", "constraint", "quantizer")
        return {
            **super().get_config(),
            **{name: depthwise[name] for name in (*window, *(f"depthwise_{part}" for part in kernel[:3]))},
            **{name: pointwise[name] for name in (*behind, *quantization)},
            **{f"pointwise_{part}": pointwise[f"kernel_{part}"] for part in kernel},
            "depthwise_quantizer": depthwise["kernel_quantizer"],
            "depthwise_activation": tf.keras.utils.serialize_keras_object(self.depthwise_activation),
            "activity_regularizer": tf.keras.regularizers.serialize(self.activity_regularizer),
        }


@tf.keras.utils.register_keras_serializable(package="subbyte")
class QuantSeparableConv1D(_SeparableConv):
    """A SeparableConv1D layer whose two kernels are integer weights times a step.

    Example:
        QuantSeparableConv1D(32, 9, pointwise_quantizer=quantizers.Tanh(bits=4))

    Args:
        filters, ..., bias_constraint: as in stock SeparableConv1D; "quantizer" is explained in `KernelLayer`.
        depthwise_quantizer, pointwise_quantizer: of the two kernels, from `quantizers`; None is `Linear(8)`.
        depthwise_activation: quantizes what passes from the first convolution to the second, a `ClippedReLU` or
            `QuantActivation`; None is `QuantActivation(8.0)`.
        gain, parameter_bits, bias_resolution, scale_bits: of both convolutions, see `KernelLayer`.
        normalization: of the second, see `KernelLayer`.

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
        depthwise_quantizer, pointwise_quantizer: of the two kernels, from `quantizers`; None is `Linear(8)`.
        depthwise_activation: quantizes what passes from the first convolution to the second, a `ClippedReLU` or
            `QuantActivation`; None is `QuantActivation(8.0)`.
        gain, parameter_bits, bias_resolution, scale_bits: of both convolutions, see `KernelLayer`.
        normalization: of the second, see `KernelLayer`.

    Shapes: [B, H, W, C] -> [B, OH, OW, filters].
    """

    depthwise_class, pointwise_class = QuantDepthwiseConv2D, QuantConv2D

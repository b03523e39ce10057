"""Convolutions with 1 to 8-bit weights, in one dimension and in two, plain and depthwise.

Channels are last. In one dimension padding may be "causal", and a layer computes what a two-dimensional one computes on
an input of height 1, which is how it is deployed.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import tensorflow as tf

from . import markers
from .kernel_layer import KernelLayer

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

        y = normalization(gain * (step * convolution(x, weights) + bias))

    Example:
        QuantConv1D(24, 9, padding="causal", kernel_quantizer=quantizers.Tanh(bits=4))

    Args:
        filters, ..., bias_constraint: as in stock Conv1D; "quantizer" is explained in `KernelLayer`.
        **kwargs: `kernel_quantizer`, `normalization`, `deployment` and its attributes: see `KernelLayer`.

    Shapes: [B, W, C] -> [B, OW, filters].
    """

    rank = 1


@tf.keras.utils.register_keras_serializable(package="subbyte")
class QuantConv2D(_Conv):
    """A Conv2D layer whose kernel is integer weights times a step.

        y = normalization(gain * (step * convolution(x, weights) + bias))

    Example:
        QuantConv2D(64, (10, 4), strides=2, kernel_quantizer=quantizers.Tanh(bits=4))

    Args:
        filters, ..., bias_constraint: as in stock Conv2D; "quantizer" is explained in `KernelLayer`.
        **kwargs: `kernel_quantizer`, `normalization`, `deployment` and its attributes: see `KernelLayer`.

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
        **kwargs: `kernel_quantizer`, `normalization`, `deployment` and its attributes: see `KernelLayer`.

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
        **kwargs: `kernel_quantizer`, `normalization`, `deployment` and its attributes: see `KernelLayer`.

    Shapes: [B, H, W, C] -> [B, OH, OW, C * depth_multiplier].
    """

    rank = 2

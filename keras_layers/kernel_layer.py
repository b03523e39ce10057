"""What layers with a quantized kernel share, whatever product they compute."""

from __future__ import annotations

import math
from typing import Any, ClassVar

import numpy as np
import tensorflow as tf

from . import deployment as deployments
from . import folding, markers, numerics, quantizers, regularizers, stages
from .activations import ActivationQuantizer
from .deployment import Deployment
from .normalization import QuantBatchNormalization


def check_activation(layer: str, activation: Any) -> None:
    """Raises ValueError, naming the layer, for a function that its op on the device would not have a range for."""
    name = activation if isinstance(activation, str) else getattr(activation, "__name__", type(activation).__name__)
    if activation is None or name == "linear":
        return
    if isinstance(activation, ActivationQuantizer):
        mend = f"that {name}"
    elif name.lower().startswith("relu"):
        mend = f"ClippedReLU({'6.0' if name.endswith('6') else 'max_value'})"
    else:
        mend = f"QuantActivation(max_value), and tf.keras.layers.Activation({name!r}) behind that,"
    raise ValueError(f"{layer}: activation={name!r} needs a range: leave it out and put {mend} behind the layer")


class KernelLayer(tf.keras.layers.Layer):
    """Base of the layers whose kernel is integer weights times a step.

        y = normalization(gain * (step * product(x, weights) + bias))

    arXiv 2207.06920, section 4.1: the gain stands outside the product, the bias inside the bracket. The kernel is
    quantized in both stages; stage 2 adds bias and gain (8 bits) and puts the folded scale and offset on the grid of
    the deployed op. A subclass says which shape the kernel has, and the product.

    Args:
        activation: None or "linear"; any other has its range, and stands behind the layer as one of its own.
        use_bias, kernel_initializer, bias_initializer, kernel_regularizer, bias_regularizer,
        activity_regularizer, kernel_constraint, bias_constraint: as in stock layers. "quantizer" takes the kernel
            quantizer's own: for `Tanh` the target distribution. They act on the latent kernel.
        kernel_quantizer: from `quantizers`; None is `Linear(8)`.
        normalization: a `QuantBatchNormalization` between the product and the activation.
        deployment: how the layer ships; None is `Deployment()`.
        **kwargs: attributes of `Deployment`, which replace those of `deployment`, and Keras's own, such as `name`.
    """

    #: What the converter calls the layer; one of `markers`.
    marker: ClassVar[str]

    def __init__(
        self,
        *,
        activation: Any = None,
        use_bias: bool = True,
        kernel_initializer: Any = "quantizer",
        bias_initializer: Any = "zeros",
        kernel_regularizer: Any = "quantizer",
        bias_regularizer: Any = None,
        activity_regularizer: Any = None,
        kernel_constraint: Any = None,
        bias_constraint: Any = None,
        kernel_quantizer: quantizers.Quantizer | dict[str, Any] | None = None,
        normalization: QuantBatchNormalization | dict[str, Any] | None = None,
        deployment: Deployment | None = None,
        **kwargs: Any,
    ) -> None:
        keywords = deployments.take_keywords(kwargs)
        super().__init__(activity_regularizer=activity_regularizer, **numerics.in_float32(kwargs))
        self.deployment = deployments.get(self.name, deployment, keywords)
        self.kernel_quantizer = quantizers.get(kernel_quantizer)
        from_quantizer = self.kernel_quantizer
        self.use_bias = bool(use_bias)
        check_activation(self.name, activation)
        self.kernel_initializer = tf.keras.initializers.get(
            from_quantizer.initializer if kernel_initializer == "quantizer" else kernel_initializer
        )
        self.kernel_regularizer = tf.keras.regularizers.get(
            from_quantizer.regularizer if kernel_regularizer == "quantizer" else kernel_regularizer
        )
        self.bias_initializer = tf.keras.initializers.get(bias_initializer)
        self.bias_regularizer = tf.keras.regularizers.get(bias_regularizer)
        self.kernel_constraint = tf.keras.constraints.get(kernel_constraint)
        self.bias_constraint = tf.keras.constraints.get(bias_constraint)
        self.normalization = self._checked(normalization)
        self.supports_masking = True

    @property
    def kernel_quantizer(self) -> quantizers.Quantizer:
        """What the layer's weights are. Another may take its place at any time, with a built layer too.

        What was compiled before, such as the function that `predict` keeps, goes on with the old one.
        """
        return self._kernel_quantizer

    @kernel_quantizer.setter
    def kernel_quantizer(self, quantizer: quantizers.Quantizer) -> None:
        if self.deployment.keep_zeros:
            self._require_zero(quantizer, "keep_zeros")
        self._kernel_quantizer = quantizer

    def _checked(
        self, normalization: QuantBatchNormalization | dict[str, Any] | None
    ) -> QuantBatchNormalization | None:
        if isinstance(normalization, dict):
            normalization = tf.keras.utils.deserialize_keras_object(normalization)
        if normalization is not None and not isinstance(normalization, QuantBatchNormalization):
            raise TypeError(
                f"{self.name}: normalization must be a QuantBatchNormalization, not {normalization!r}; "
                "a stock BatchNormalization goes behind the layer"
            )
        return normalization

    def _count(self, name: str, value: int) -> int:
        """`value`, checked: a positive integer."""
        if isinstance(value, bool) or not (isinstance(value, int) and value > 0):
            raise ValueError(f"{self.name}: {name} must be a positive integer, not {value!r}")
        return value

    def _output_channels(self, inputs: Any) -> Any:
        """Size of the output's last dimension where the input's is `inputs`; None where neither is known."""
        raise NotImplementedError

    def _kernel_shape(self, inputs: int) -> tuple[int, ...]:
        """Shape of the latent kernel, as in the stock layer. Raises ValueError for inputs that do not fit."""
        raise NotImplementedError

    def _product(self, x: tf.Tensor, weights: tf.Tensor) -> tf.Tensor:
        """Sums of products in x's type, output channels last."""
        raise NotImplementedError

    def _output_channels_last(self, kernel: tf.Tensor) -> tf.Tensor:
        """The kernel with its output channels in the last dimension, where a quantizer expects them."""
        return kernel

    def _pad(self, x: tf.Tensor) -> tf.Tensor:
        """The input with what a stock op adds to it on the device, in front of the layer's own."""
        return x

    def _marker_attributes(self) -> dict[str, int | str]:
        """What the converter has to know of the product beside the weights."""
        return {}

    def build(self, input_shape: Any) -> None:
        numerics.require_float32(self)
        inputs = input_shape[-1]
        if inputs is None:
            raise ValueError(f"{self.name}: the number of inputs, the last dimension, must be known")
        kernel_shape, self._channels = self._kernel_shape(inputs), self._output_channels(inputs)
        self.kernel = self.add_weight(
            name="kernel",
            shape=kernel_shape,
            initializer=self.kernel_initializer,
            regularizer=self.kernel_regularizer,
            constraint=self.kernel_constraint,
        )
        self.kernel_mask = None
        if self.deployment.keep_zeros:
            self.kernel_mask = self.add_weight(
                name="kernel_mask", shape=kernel_shape, initializer="ones", trainable=False
            )
        self._add_bias_and_gain(fan_in=math.prod(kernel_shape) // self._channels)
        self.stage_flag = stages.add_stage_flag(self, "bias_and_gain")
        # Loading a model builds the parts of a layer before the layer.
        if self.normalization is not None and not self.normalization.built:
            self.normalization.build((*input_shape[:-1], self._channels))
        self.built = True

    def _add_bias_and_gain(self, fan_in: int) -> None:
        self.bias = None
        if self.use_bias:
            self.bias = self.add_weight(
                name="bias",
                shape=(self._channels,),
                initializer=self.bias_initializer,
                regularizer=self.bias_regularizer,
                constraint=self.bias_constraint,
            )
        self.gain = None
        if self.deployment.gain is not None:
            start = tf.keras.initializers.Constant(self.kernel_quantizer.initial_gain(fan_in))
            shape = () if self.deployment.gain == "scalar" else (self._channels,)
            self.gain = self.add_weight(name="gain", shape=shape, initializer=start)

    def call(self, inputs: tf.Tensor, training: bool | None = None) -> tf.Tensor:
        output_shape = self.compute_output_shape(inputs.shape)
        padded = self._pad(inputs)
        outputs = self._train(padded) if training else self._infer(padded)
        outputs.set_shape(output_shape)
        return outputs

    def _train(self, inputs: tf.Tensor) -> tf.Tensor:
        latent = self._latent(tf.float32)
        sums = self._product(inputs, self.kernel_quantizer.weights(latent))
        statistics = None
        if self.normalization is not None and self.normalization.trainable:
            statistics = numerics.moments(sums, axes=list(range(len(inputs.shape) - 1)))
        scale, offset = self._fold(latent, statistics)
        return sums * scale + offset

    def _infer(self, inputs: tf.Tensor) -> tf.Tensor:
        """The deployed op of the layer as it is now."""
        quantizer, deployment = self.kernel_quantizer, self.deployment

        def scaled_product(
            x: tf.Tensor, weights: tf.Tensor, scale: tf.Tensor, offset: tf.Tensor, real_weights: tf.Tensor
        ) -> tf.Tensor:
            del real_weights  # for the converter's report
            if deployment.input_bits == 8:
                return (self._exact_product(x, weights) + offset) * scale
            x, weights, scale, offset = (tf.cast(value, tf.float64) for value in (x, weights, scale, offset))
            return numerics.to_float32_sticky((self._product(x, weights) + offset) * scale)

        return markers.call_marked(
            self.marker,
            scaled_product,
            inputs,
            self._deployed_constants,
            layer=self.name,
            bits=quantizer.bits,
            code_offset=quantizer.grid.offset,
            code_step=quantizer.grid.step,
            bias_resolution=f"{deployment.bias_resolution:g}",
            input_bits=deployment.input_bits,
            **self._marker_attributes(),
        )

    def _deployed_constants(self) -> list[tf.Tensor]:
        """Weights, scale, offset and real weights of the deployed op."""
        # float64: the same weights, scales and offsets from every compiler.
        latent = self._latent(tf.float64)
        real_weights = self.kernel_quantizer.real_weights(latent)
        weights = self.kernel_quantizer.round_weights(real_weights)
        scale, offset = self._fold(latent, None)
        # The kernel's scale is positive; a negative batch-norm gamma turns the weights instead.
        flip = tf.where(scale < 0, -tf.ones_like(scale), tf.ones_like(scale))
        scale = tf.abs(scale)
        # Where stage 1 meets a scale of 0, its offset must not divide by it.
        scale = tf.maximum(scale, 2.0**-60)
        arguments = (weights * flip, scale, offset / scale, real_weights * flip)
        return [tf.cast(value, tf.float32) for value in arguments]

    def _latent(self, dtype: tf.DType) -> tf.Tensor:
        kernel = tf.cast(self.kernel, dtype)
        if self.kernel_mask is not None:
            kernel = kernel * tf.cast(self.kernel_mask, dtype)  # tf-keras has no *= on variables
        return self._output_channels_last(kernel)

    def set_float_weights(self, kernel: np.ndarray, bias: np.ndarray | None = None) -> None:
        """Makes a built layer compute what a float layer with these weights computes, as near as its bits allow.

        The latent kernel is fitted by `Quantizer.fit`. The running statistics of a `normalization` are left alone.

        Args:
            kernel: in the shape of the layer's own.
            bias: [output channels], or None.

        Raises:
            ValueError: other shapes; a layer without gain="channel"; a bias for a layer that has none.
        """
        shape = tuple(self.kernel.shape)
        if np.shape(kernel) != shape:
            raise ValueError(f"{self.name}: the kernel is {list(shape)}, not {list(np.shape(kernel))}")
        if self.deployment.gain != "channel" or (bias is not None and self.bias is None):
            raise ValueError(f"{self.name}: float weights need gain='channel', and use_bias=True if there is a bias")
        channels_last = self._output_channels_last(tf.constant(kernel)).numpy()
        latent, gain = self.kernel_quantizer.fit(channels_last)
        assert self.gain is not None
        self.kernel.assign(latent.reshape(shape))
        self.gain.assign(gain)
        if self.kernel_mask is not None:
            self.kernel_mask.assign((np.asarray(kernel) != 0).astype(np.float32))
        if self.bias is not None:
            self.bias.assign(np.zeros_like(gain) if bias is None else bias / gain)

    def get_prunable_weights(self) -> list[tf.Variable]:
        """What TFMOT's prune_low_magnitude sets to zero: the latent kernel."""
        self._require_zero(self.kernel_quantizer, "pruning")
        return [self.kernel]

    def _require_zero(self, quantizer: quantizers.Quantizer, what: str) -> None:
        if not quantizer.grid.has_zero:
            raise ValueError(f"{self.name}: {what} needs a grid with zero: grid='symmetric', from 2 bits on")

    def _exact_product(self, x: tf.Tensor, weights: tf.Tensor) -> tf.Tensor:
        """The product without rounding: float32 holds sums of 8-bit codes times weights below 2^24, float64 the rest.

        It is exact in whatever order the products are added.
        """
        if math.prod(weights.shape[:-1]) * 255 * self.kernel_quantizer.largest_weight < 2**24:
            return self._product(x, weights)
        return tf.cast(self._product(tf.cast(x, tf.float64), tf.cast(weights, tf.float64)), x.dtype)

    def _fold(self, latent: tf.Tensor, statistics: tuple[tf.Tensor, tf.Tensor] | None) -> tuple[tf.Tensor, tf.Tensor]:
        dtype, shape = latent.dtype, (self._channels,)
        on = stages.is_on(self.stage_flag)

        def quantized(*plain: tf.Tensor) -> list[tf.Tensor]:
            rows = tf.stack(plain)
            return tf.unstack(tf.where(on, numerics.quantize_linear(rows, self.deployment.parameter_bits), rows))

        variables = {"gain": self.gain, "bias": self.bias}
        present = {key: value for key, value in variables.items() if value is not None}
        # Constants of the whole shape: TensorFlow's converter does not fold what makes a long vector of a scalar.
        ones = tf.constant(1.0, dtype, shape)
        vectors = [tf.cast(value, dtype) * ones for value in present.values()]
        parameters = {"gain": ones, "bias": tf.constant(0.0, dtype, shape)}
        if present:
            parameters |= zip(present, numerics.straight_through(quantized)(*vectors), strict=True)
        step = self.kernel_quantizer.step(latent)
        scale, offset = folding.fold(step, parameters["gain"], parameters["bias"], self.normalization, statistics)

        def deployed(scale: tf.Tensor, offset: tf.Tensor) -> list[tf.Tensor]:
            on_grid = folding.to_grid(scale, offset, self.deployment.bias_resolution, self.deployment.scale_bits)
            return [tf.where(on, on_grid[0], scale), tf.where(on, on_grid[1], offset)]

        scale, offset = numerics.straight_through(deployed)(scale, offset)
        return scale, offset

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> KernelLayer:
        # In .h5 files and SavedModels tf-keras looks for classes by their bare names.
        parts = (regularizers.TargetDistribution, QuantBatchNormalization)
        with tf.keras.utils.custom_object_scope({part.__name__: part for part in parts}):
            return super().from_config(config)

    def get_config(self) -> dict[str, Any]:
        normalization = self.normalization
        return {
            **super().get_config(),
            "activation": "linear",
            "use_bias": self.use_bias,
            "kernel_initializer": tf.keras.initializers.serialize(self.kernel_initializer),
            "bias_initializer": tf.keras.initializers.serialize(self.bias_initializer),
            "kernel_regularizer": tf.keras.regularizers.serialize(self.kernel_regularizer),
            "bias_regularizer": tf.keras.regularizers.serialize(self.bias_regularizer),
            "activity_regularizer": tf.keras.regularizers.serialize(self.activity_regularizer),
            "kernel_constraint": tf.keras.constraints.serialize(self.kernel_constraint),
            "bias_constraint": tf.keras.constraints.serialize(self.bias_constraint),
            "kernel_quantizer": tf.keras.utils.serialize_keras_object(self.kernel_quantizer),
            "normalization": None if normalization is None else tf.keras.utils.serialize_keras_object(normalization),
            **self.deployment.get_config(),
        }

"""Batch normalization that folds exactly into the layer before it."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from . import numerics, stages

SCALINGS = ("channel", "layer", None)


@tf.keras.utils.register_keras_serializable(package="subbyte")
class QuantBatchNormalization(tf.keras.layers.Layer):
    """Batch normalization on four quantized vectors: equation 2 of arXiv 2207.06920.

        y = gamma_q * (x - C * q(mu / C)) / (C * sqrt(q(var / C^2))) + beta_q,   C a power of two

    Handed to a layer as `normalization=`, it is a part of that layer's one deployed op: the layer folds it, so nothing
    is rounded between them and Keras computes what the kernel computes. In stage 1 it is stock batch normalization.

    Args:
        momentum, epsilon, center, scale: as in stock BatchNormalization.
        bits: width of the four vectors.
        scaling: whose C it is: each "channel"'s, the "layer"'s, or None for a plain linear quantizer over each vector
            (the paper's "BN2", for comparison: small variances share few codes).

    Shapes: any; channels last.
    """

    def __init__(
        self,
        momentum: float = 0.99,
        epsilon: float = 1e-3,
        center: bool = True,
        scale: bool = True,
        bits: int = 8,
        scaling: str | None = "channel",
        **kwargs: Any,
    ) -> None:
        super().__init__(**numerics.in_float32(kwargs))
        if bits not in range(2, 17):
            raise ValueError(f"{self.name}: bits must be 2 to 16, not {bits!r}")
        if scaling not in SCALINGS:
            raise ValueError(f"{self.name}: scaling must be 'channel', 'layer' or None, not {scaling!r}")
        self.momentum, self.epsilon, self.center, self.scale = (
            float(momentum),
            float(epsilon),
            bool(center),
            bool(scale),
        )
        self.bits, self.scaling = int(bits), scaling
        self.supports_masking = True

    def build(self, input_shape: Any) -> None:
        numerics.require_float32(self)
        shape = (input_shape[-1],)
        if shape[0] is None:
            raise ValueError(f"{self.name}: the number of channels, the last dimension, must be known")
        self.gamma = self.add_weight(name="gamma", shape=shape, initializer="ones") if self.scale else None
        self.beta = self.add_weight(name="beta", shape=shape, initializer="zeros") if self.center else None
        self.moving_mean = self.add_weight(name="moving_mean", shape=shape, initializer="zeros", trainable=False)
        self.moving_variance = self.add_weight(name="moving_variance", shape=shape, initializer="ones", trainable=False)
        self.stage_flag = stages.add_stage_flag(self, "batch_norm")
        self.built = True

    def call(self, inputs: tf.Tensor, training: bool | None = None) -> tf.Tensor:
        if training and self.trainable:
            mean, variance = numerics.moments(inputs, axes=list(range(len(inputs.shape) - 1)))
            self.update(mean, variance)
        else:
            mean, variance = tf.convert_to_tensor(self.moving_mean), tf.convert_to_tensor(self.moving_variance)
        multiplier, offset = self.affine(mean, variance)
        return inputs * multiplier + offset

    def update(self, mean: tf.Tensor, variance: tf.Tensor) -> None:
        """Moves the running statistics towards a batch's, [channels] each."""
        for moving, batch in ((self.moving_mean, mean), (self.moving_variance, variance)):
            moving.assign_sub((1 - self.momentum) * (tf.convert_to_tensor(moving) - batch))

    def affine(self, mean: tf.Tensor, variance: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """(multiplier, offset), [channels] each, in mean's type: y = multiplier * x + offset; quantized in stage 2."""
        gamma = tf.ones_like(mean) if self.gamma is None else tf.cast(self.gamma, mean.dtype)
        beta = tf.zeros_like(mean) if self.beta is None else tf.cast(self.beta, mean.dtype)
        on = stages.is_on(self.stage_flag)

        def vectors(*plain: tf.Tensor) -> list[tf.Tensor]:
            return [tf.where(on, *pair) for pair in zip(self._quantize(*plain), plain, strict=True)]

        plain = (mean, variance + self.epsilon, gamma, beta)
        mean, variance, gamma, beta = numerics.straight_through(vectors)(*plain)
        multiplier = gamma / tf.sqrt(variance)
        return multiplier, beta - mean * multiplier

    def _quantize(self, mean: tf.Tensor, variance: tf.Tensor, gamma: tf.Tensor, beta: tf.Tensor) -> list[tf.Tensor]:
        """Equation 2's four vectors, back on their own scale."""
        levels = 2.0**self.bits
        gamma, beta = tf.unstack(numerics.quantize_linear(tf.stack([gamma, beta]), self.bits))
        if self.scaling is None:
            mean = numerics.quantize_linear(mean, self.bits)
            c_squared = numerics.power_of_two_above(tf.reduce_max(variance))
        else:
            largest = tf.maximum(tf.abs(mean), tf.sqrt(variance))
            c = numerics.power_of_two_above(largest if self.scaling == "channel" else tf.reduce_max(largest))
            step = 2 * c / levels
            mean = step * tf.round(tf.clip_by_value(mean / step, 1 - levels / 2, levels / 2 - 1))
            c_squared = c * c
        # A variance of code 0 would divide by zero.
        code = tf.round(tf.clip_by_value(variance / c_squared * levels, 1.0, levels - 1))
        return [mean, code * c_squared / levels, gamma, beta]

    def compute_output_shape(self, input_shape: Any) -> Any:
        return input_shape

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "momentum": self.momentum,
            "epsilon": self.epsilon,
            "center": self.center,
            "scale": self.scale,
            "bits": self.bits,
            "scaling": self.scaling,
        }

"""From a layer's parameters to the one affine map, per output channel, that its deployed op applies to the integer sum.

    y = scale * (sum(weights * x) + offset / scale)

Everything behind the product folds into it: the quantizer's step, gain, bias and batch normalization. In stage 2
`scale` has 10 significant bits, the last of them 1, and `offset` is an integer multiple of scale / resolution. With an
input scale of 2^-e and resolution <= 2^e that is an exact integer bias in the kernel, whatever the input's scale, so
the kernel's arithmetic is Keras's up to an exact power of two.

With fewer than `MOST_SCALE_BITS` the two share 16 bits of the file: 2 for the scale's exponent, `scale_bits` for its
fraction, the rest for the kernel's bias.
"""

from __future__ import annotations

import tensorflow as tf

from . import numerics
from .normalization import QuantBatchNormalization

#: Free bits of a scale's fraction, see `numerics.round_to_odd`.
MOST_SCALE_BITS = 8
_EXPONENT_BITS = 2

#: Beyond this many grid steps of the offset, a float32 sum no longer sees the products.
_MOST_STEPS = 2.0**22


def most_bias(scale_bits: int) -> float:
    """The bias that the kernel's 16 bits hold beside the exponent and the `scale_bits` of its scale."""
    return 2.0 ** (15 - _EXPONENT_BITS - scale_bits)


def fold(
    step: tf.Tensor,
    gain: tf.Tensor,
    bias: tf.Tensor,
    normalization: QuantBatchNormalization | None,
    statistics: tuple[tf.Tensor, tf.Tensor] | None,
) -> tuple[tf.Tensor, tf.Tensor]:
    """(scale, offset) per channel, signed and not yet on a grid.

    Args:
        step, gain, bias: the layer is gain * (step * sum + bias), then the normalization; scalars or [channels].
        normalization: or None.
        statistics: mean and variance of `sum`, [channels] each, for training; None takes the moving statistics.
    """
    scale = gain * step
    offset = gain * bias
    if normalization is not None:
        if statistics is None:
            mean = tf.cast(normalization.moving_mean, scale.dtype)
            variance = tf.cast(normalization.moving_variance, scale.dtype)
        else:
            mean, variance = statistics
            mean, variance = scale * mean + offset, tf.square(scale) * variance
            normalization.update(mean, variance)
        multiplier, shift = normalization.affine(mean, variance)
        scale, offset = scale * multiplier, offset * multiplier + shift
    return scale, offset


def to_grid(
    scale: tf.Tensor, offset: tf.Tensor, resolution: float, scale_bits: int = MOST_SCALE_BITS
) -> tuple[tf.Tensor, tf.Tensor]:
    """(scale, offset) as deployed; no gradient.

    A channel whose scale is too small against its offset (a gamma near 0) gets the smallest scale that still holds the
    offset: its products stay below what the output resolves. Where scale and bias share 16 bits that scale, and the
    smallest within reach of the layer's largest, are larger: there products count that would not, and training goes on
    with them.
    """
    floor = _smallest_scale(scale, offset, resolution, scale_bits)
    small = tf.abs(scale) < floor
    scale = tf.where(small, tf.where(scale < 0, -floor, floor), scale)
    scale = numerics.round_to_odd(scale, scale_bits)
    grid = tf.abs(scale) / resolution
    return scale, grid * tf.round(offset / grid)


def _smallest_scale(scale: tf.Tensor, offset: tf.Tensor, resolution: float, scale_bits: int) -> tf.Tensor:
    """The smallest scale [channels] that still holds each channel's offset."""
    if scale_bits == MOST_SCALE_BITS:
        # A grid coarser than the scale itself holds no more of them: the kernel's bias counts in scales.
        return tf.maximum(tf.abs(offset) * (max(resolution, 1.0) / _MOST_STEPS), 2.0**-30)
    # Half of what the bias holds is left to the input's zero point, whose share the layer does not know.
    most_steps = most_bias(scale_bits) / 2
    by_offset = tf.maximum(tf.abs(offset) * (resolution / most_steps), 2.0**-30)
    power = numerics.power_of_two_below(tf.reduce_max(tf.maximum(tf.abs(scale), by_offset)))
    return tf.maximum(by_offset, power * 2.0 ** (1 - 2**_EXPONENT_BITS))

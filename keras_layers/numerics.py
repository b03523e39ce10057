"""Exact rounding for training and inference: the same bits eager, in a graph, under XLA and in the converter's folding.

What must be exact works on the bits of a float or on float64; nothing here depends on how a compiler fuses.
"""

from __future__ import annotations

import tensorflow as tf

_MANTISSA = 0x007FFFFF
_EXPONENT = 0x7F800000


@tf.custom_gradient
def round_half_even(x: tf.Tensor) -> tf.Tensor:
    """Nearest integer, ties to even; the gradient passes straight through (Bengio et al., 2013)."""
    return tf.round(x), lambda upstream: upstream


@tf.custom_gradient
def sign(x: tf.Tensor) -> tf.Tensor:
    """-1 below zero, else 1; the gradient passes straight through."""
    return tf.where(x < 0, -tf.ones_like(x), tf.ones_like(x)), lambda upstream: upstream


@tf.custom_gradient
def round_to_bfloat16(x: tf.Tensor) -> tf.Tensor:
    """Nearest value with 8 significant bits, in x's type; the gradient passes straight through.

    Integer arithmetic on the bits, because XLA may drop a pair of casts to bfloat16 and back.
    """
    bits = tf.bitcast(tf.cast(x, tf.float32), tf.int32)
    even = tf.bitwise.bitwise_and(tf.bitwise.right_shift(bits, 16), 1)
    bits = tf.bitwise.bitwise_and(bits + 0x7FFF + even, -0x10000)
    return tf.cast(tf.bitcast(bits, tf.float32), x.dtype), lambda upstream: upstream


def power_of_two_above(x: tf.Tensor, floor: float = 2.0**-20) -> tf.Tensor:
    """The smallest power of two that is at least x and at least `floor`; no gradient."""
    x = tf.stop_gradient(x)
    bits = tf.bitcast(tf.maximum(tf.cast(x, tf.float32), floor), tf.int32)
    bits = tf.bitwise.bitwise_and(bits + _MANTISSA, _EXPONENT)
    return tf.cast(tf.bitcast(bits, tf.float32), x.dtype)


def quantize_linear(x: tf.Tensor, bits: int) -> tf.Tensor:
    """x on 2^bits - 1 even steps, symmetric; the tensor's range is the power of two above its largest |x|."""
    levels = 2.0 ** (bits - 1)
    scale = power_of_two_above(tf.reduce_max(tf.abs(x))) / levels
    return scale * round_half_even(tf.clip_by_value(x / scale, 1 - levels, levels - 1))

"""Exact rounding for training and inference: the same bits eager, in a graph, under XLA and in the converter's folding.

What must be exact works on the bits of a float or on float64; nothing here depends on how a compiler fuses.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import tensorflow as tf

_MANTISSA = 0x007FFFFF
_EXPONENT = 0x7F800000


def in_float32(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """A layer's keyword arguments, with dtype="float32" in the place of a mixed-precision policy, global or its own.

    Half floats do not hold the integers of a sum. Keras casts what goes into a layer of another type than the model's.
    """
    policy = arguments.get("dtype") or tf.keras.mixed_precision.global_policy()
    # A policy may be written as a configuration.
    name = policy["config"].get("name") if isinstance(policy, dict) else getattr(policy, "name", policy)
    return {**arguments, "dtype": "float32"} if str(name).startswith("mixed_") else dict(arguments)


def require_float32(layer: tf.keras.layers.Layer) -> None:
    """Raises ValueError for a layer that was told to compute in another type, see `in_float32`."""
    if layer.compute_dtype != "float32":
        raise ValueError(f"{layer.name} would compute in {layer.compute_dtype}: give it dtype='float32'")


#: `straight_through(function)(*tensors)` is `function(*tensors)`, as many tensors in as out; the gradient passes
#: straight through to each (Bengio et al., 2013), so nothing saturates and there is no backward arithmetic to run.
straight_through = tf.grad_pass_through


def straight_through_inside(
    function: Callable[[tf.Tensor], tf.Tensor], x: tf.Tensor, low: tf.Tensor | float, high: tf.Tensor | float
) -> tf.Tensor:
    """function(x), whose gradient passes straight through where low < x < high and is zero elsewhere."""

    @tf.custom_gradient
    def forward(x: tf.Tensor) -> tf.Tensor:
        def backward(upstream: tf.Tensor) -> tf.Tensor:
            # One vectorized pass: comparisons and tf.where on whole activations cost several times as much.
            inside = 0.5 * (high - low) - tf.abs(x - 0.5 * (high + low))
            return tf.raw_ops.ReluGrad(gradients=upstream, features=inside)

        return function(x), backward

    return forward(x)


def moments(x: tf.Tensor, axes: Sequence[int]) -> tuple[tf.Tensor, tf.Tensor]:
    """(mean, variance) over the first axes, as `tf.nn.moments` computes them, with a cheaper gradient."""

    @tf.custom_gradient
    def forward(x: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        mean = tf.reduce_mean(x, axes)
        centred = x - mean

        def backward(of_mean: tf.Tensor, of_variance: tf.Tensor) -> tf.Tensor:
            share = tf.cast(tf.size(mean), x.dtype) / tf.cast(tf.size(x), x.dtype)
            return centred * (2 * share * of_variance) + share * of_mean

        return (mean, tf.reduce_mean(tf.square(centred), axes)), backward

    return forward(x)


def round_to_odd(x: tf.Tensor, fraction_bits: int = 8) -> tf.Tensor:
    """Nearest value whose significand is an odd integer of 10 bits, in x's type; no gradient.

    Of the 10 bits the first and the last are 1, and behind the first `fraction_bits` are free, 1 to 8. What is left
    between is 10..., in the middle of what rounds to the same.

    What a scale has to be so that no integer times the scale lies halfway between two 8-bit codes: n * odd / 2^s is
    halfway only for multiples n of 2^(s-1), and those are beyond 256 codes. Then it does not matter how a kernel breaks
    ties, and kernels that round a float32 product or a fixed-point one give the same codes.

    Integer arithmetic on the bits: the same bits from every compiler.
    """
    bits = tf.bitcast(tf.cast(x, tf.float32), tf.int32)
    half_step = 1 << (22 - fraction_bits)
    bits = tf.bitwise.bitwise_or(tf.bitwise.bitwise_and(bits, -2 * half_step), half_step | 0x4000)
    return tf.cast(tf.bitcast(bits, tf.float32), x.dtype)


def round_half_away(x: tf.Tensor) -> tf.Tensor:
    """Nearest integer, halves away from zero, as TFLite's kernels round to int16 codes; no gradient."""
    size = tf.abs(x)
    below = tf.floor(size)
    # The difference is exact, size + 0.5 would not be.
    return tf.sign(x) * (below + tf.cast(size - below >= 0.5, x.dtype))


def to_float32_sticky(x: tf.Tensor) -> tf.Tensor:
    """float64 to float32, rounded so that rounding to 22 bits or fewer afterwards gives what x itself would give.

    Inexact values get an odd significand ("rounding to odd", Boldo and Melquiond, 2008): a float32 that looks like a
    tie or an integer is one. No gradient.
    """
    near = tf.cast(x, tf.float32)
    error = x - tf.cast(near, tf.float64)
    bits = tf.bitcast(near, tf.int32)
    is_even = tf.equal(tf.bitwise.bitwise_and(bits, 1), 0)
    # One step towards x; the bits of floats grow with their magnitude.
    outwards = tf.equal(error > 0, near > 0)
    stepped = bits + tf.where(outwards, 1, -1)
    wrong = tf.logical_and(is_even, tf.not_equal(error, 0))
    # From zero there is no step inwards; nothing that small is told from 0 by a grid.
    wrong = tf.logical_and(wrong, tf.not_equal(near, 0))
    return tf.bitcast(tf.where(wrong, stepped, bits), tf.float32)


def power_of_two_above(x: tf.Tensor, floor: float = 2.0**-20) -> tf.Tensor:
    """The smallest power of two that is at least x and at least `floor`; no gradient."""
    bits = tf.bitcast(tf.maximum(tf.cast(x, tf.float32), floor), tf.int32)
    bits = tf.bitwise.bitwise_and(bits + _MANTISSA, _EXPONENT)
    return tf.cast(tf.bitcast(bits, tf.float32), x.dtype)


def power_of_two_below(x: tf.Tensor) -> tf.Tensor:
    """The largest power of two that is at most x, a positive normal number of float32; no gradient."""
    bits = tf.bitwise.bitwise_and(tf.bitcast(tf.cast(x, tf.float32), tf.int32), _EXPONENT)
    return tf.cast(tf.bitcast(bits, tf.float32), x.dtype)


def quantize_linear(x: tf.Tensor, bits: int) -> tf.Tensor:
    """Each row of x, [..., n], on 2^bits - 1 even steps, symmetric; a row's range is the power of two above its |x|.

    No gradient: who trains through it wraps it in `straight_through`.
    """
    levels = 2.0 ** (bits - 1)
    scale = power_of_two_above(tf.reduce_max(tf.abs(x), axis=-1, keepdims=True)) / levels
    return scale * tf.round(tf.clip_by_value(x / scale, 1 - levels, levels - 1))

"""Exact rounding: the same bits in every mode as plain numpy."""

import numpy as np
import pytest
import tensorflow as tf
from modes import MODES

from subbyte.keras_layers import numerics

pytestmark = pytest.mark.once  # no layer of either Keras is in it


@pytest.fixture(params=MODES)
def mode(request):
    return MODES[request.param]


def random_floats(seed: int, count: int = 20000) -> np.ndarray:
    """Normal float32 numbers of every sign, exponent and significand."""
    bits = np.random.default_rng(seed).integers(0, 2**32, count, dtype=np.uint32)
    values = bits.view(np.float32)
    return values[np.isfinite(values) & (np.abs(values) >= np.finfo(np.float32).tiny)]


def test_round_to_odd_is_the_nearest_odd_significand(mode):
    values = random_floats(1)
    rounded = mode(numerics.round_to_odd)(tf.constant(values)).numpy().astype(np.float64)
    significand, exponent = np.frexp(values.astype(np.float64))
    # 10 bits: an odd integer from 513 to 1023. The candidate on the other side is never nearer.
    below = 2 * np.floor(np.abs(significand) * 512) + 1
    np.testing.assert_array_equal(rounded, np.sign(values) * np.ldexp(below, exponent - 10))
    error, step = np.abs(rounded - values), np.ldexp(1.0, exponent - 10)
    assert (error <= step).all()
    np.testing.assert_array_equal(np.ldexp(np.abs(rounded), 10 - exponent) % 2, 1)


@pytest.mark.parametrize("fraction_bits", [1, 3, 4, 7])
def test_round_to_odd_with_fewer_free_bits(mode, fraction_bits):
    values = random_floats(2)
    rounded = mode(lambda x: numerics.round_to_odd(x, fraction_bits))(tf.constant(values)).numpy().astype(np.float64)
    significand, exponent = np.frexp(np.abs(rounded))
    ten_bits = significand * 1024
    np.testing.assert_array_equal(ten_bits % 2, 1)
    # 2^fraction_bits values, in the middle of what rounds to them but for the last bit.
    assert len(np.unique(ten_bits)) == 2**fraction_bits
    middle = np.ldexp(np.floor(np.abs(values.astype(np.float64)) / 2.0**exponent * 2 ** (fraction_bits + 1)) + 0.5,
                      exponent - fraction_bits - 1)  # fmt: skip
    np.testing.assert_array_equal(np.sign(rounded), np.sign(values))
    np.testing.assert_allclose(np.abs(rounded), middle + np.ldexp(1.0, exponent - 10), rtol=1e-12)


def test_round_to_odd_keeps_every_product_with_an_integer_away_from_ties():
    exponents = tf.constant(2.0 ** -np.arange(1, 30, 0.17, np.float32))
    scales = np.concatenate([numerics.round_to_odd(exponents, bits).numpy() for bits in (8, 4)])
    sums = np.arange(1, 2**18)
    for scale in scales.astype(np.float64):
        outputs = sums * scale
        assert not (outputs[outputs < 256] % 1 == 0.5).any()


def test_sticky_float32_rounds_to_16_bits_as_float64_does(mode):
    rng = np.random.default_rng(4)
    codes = np.concatenate([rng.uniform(-40000, 40000, 20000), rng.integers(-40000, 40000, 20000) + 0.5, [0.0]])
    # Next to ties by less than float32 tells.
    codes = np.concatenate([codes, codes + 2.0**-30, codes - 2.0**-30])
    found = mode(lambda x: numerics.round_half_away(numerics.to_float32_sticky(x)))(tf.constant(codes)).numpy()
    np.testing.assert_array_equal(found, np.sign(codes) * np.floor(np.abs(codes) + 0.5))
    assert not np.array_equal(np.floor(codes.astype(np.float32) + np.float32(0.5)), np.floor(codes + 0.5))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_power_of_two_above(mode, dtype):
    values = np.abs(random_floats(2))
    values = np.concatenate([values[values < 2.0**126], 2.0 ** np.arange(-30, 100, dtype=np.float32), [0.0]])
    found = mode(numerics.power_of_two_above)(tf.constant(values, dtype)).numpy()
    expected = np.array([2.0 ** np.ceil(np.log2(max(float(v), 2.0**-20))) for v in values])
    # log2 of a value just above a power of two may round down to it.
    expected = np.where(expected < values, 2 * expected, expected)
    assert found.dtype == dtype
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("bits", [2, 5, 8, 16])
def test_quantize_linear_by_rows(mode, bits):
    rng = np.random.default_rng(bits)
    rows = rng.standard_normal((5, 40)).astype(np.float32) * np.array([[1e-9], [0.1], [1.0], [30.0], [0.0]], np.float32)
    rows[2, :3] = [4.0, -4.0, 4.0 - 2.0 ** (3 - bits) / 2]  # the range itself, and a tie next to it
    found = mode(lambda x: numerics.quantize_linear(x, bits))(tf.constant(rows)).numpy()
    for row, quantized in zip(rows.astype(np.float64), found, strict=True):
        limit = 2.0 ** np.ceil(np.log2(max(np.abs(row).max(), 2.0**-20)))
        step = limit / 2 ** (bits - 1)
        expected = step * np.clip(np.rint(row / step), 1 - 2 ** (bits - 1), 2 ** (bits - 1) - 1)
        np.testing.assert_array_equal(quantized, expected)
        assert len(np.unique(quantized)) <= 2**bits - 1


def test_moments_are_the_stock_ones_with_the_stock_gradient(mode):
    x = tf.constant(np.random.default_rng(3).normal(5, 3, (6, 4, 3)).astype(np.float32))

    def run(moments):
        with tf.GradientTape() as tape:
            tape.watch(x)
            mean, variance = moments(x, [0, 1])
            loss = tf.reduce_sum(mean * [1.0, 2.0, 3.0] + tf.sqrt(variance) * [3.0, -1.0, 0.5])
        return mean, variance, tape.gradient(loss, x)

    for ours, stock in zip(mode(lambda: run(numerics.moments))(), run(tf.nn.moments), strict=True):
        np.testing.assert_allclose(ours, stock, rtol=1e-5, atol=1e-6)


def test_straight_through_inside_passes_the_gradient_between_the_bounds(mode):
    x = tf.constant([-2.0, -1.001, -0.999, 0.3, 2.999, 3.001, 9.0])

    def gradient():
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = numerics.straight_through_inside(tf.round, x, -1.0, 3.0)
        return y, tape.gradient(y, x, output_gradients=tf.range(1.0, 8.0))

    y, found = mode(gradient)()
    np.testing.assert_array_equal(y, [-2, -1, -1, 0, 3, 3, 9])
    np.testing.assert_array_equal(found, [0, 0, 3, 4, 5, 0, 0])

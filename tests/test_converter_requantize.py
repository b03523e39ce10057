"""The step of least squares, against every step of a dense scale and figures worked by hand."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from subbyte.converter.integer_ops import LinearOp
from subbyte.converter.requantize import best_step, requantize
from subbyte.schemas import Grid

BITS = range(1, 9)


def values_of(grid: Grid) -> np.ndarray:
    return np.array([grid.offset + grid.step * code for code in range(2**grid.bits)])


def least_errors(weights: np.ndarray, values: np.ndarray, steps: np.ndarray) -> np.ndarray:
    """Sum of squared errors for each step, every weight at the nearest of all products of step and value."""
    errors = np.abs(weights[None, :, None] - steps[:, None, None] * values).min(axis=2)
    return np.sum(errors**2, axis=1)


@st.composite
def channels(draw) -> np.ndarray:
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    count = draw(st.integers(1, 25))
    kinds = {
        "codes": lambda: rng.integers(-128, 128, count),
        "few": lambda: rng.choice([-3, 0, 1], count),
        "bell": lambda: np.rint(rng.normal(0, 30, count)),
        "tails": lambda: rng.laplace(0, 1, count),
        "one sign": lambda: rng.uniform(0, 1, count),
        "sparse": lambda: rng.normal(0, 1, count) * (rng.uniform(size=count) < 0.2),
    }
    return kinds[draw(st.sampled_from(list(kinds)))]().astype(np.float64)


@pytest.mark.parametrize("bits", BITS)
def test_no_step_is_better(bits):
    @settings(deadline=None, max_examples=30)
    @given(channels(), st.sampled_from(Grid.candidates(bits)))
    def check(weights, grid):
        step = best_step(weights, grid)
        if not weights.any():
            assert step == 0
            return
        assert step > 0
        error = np.sum((weights - step * grid.nearest(weights / step)) ** 2)
        largest = np.abs(weights).max()
        # Codes from 0 to the largest, and the neighbourhood of the step itself.
        dense = np.concatenate(
            [largest * np.linspace(1 / 400, 2, 800) * 2 / 2 ** (bits - 1), step * np.linspace(0.99, 1.01, 41)]
        )
        rounding = 1e-12 * np.sum(weights**2)
        assert error <= least_errors(weights, values_of(grid), dense).min() + rounding

    check()


def test_steps_worked_by_hand():
    two_bits, odd_two_bits = Grid.candidates(2)
    (sign,) = Grid.candidates(1)
    assert values_of(two_bits).tolist() == [-2, -1, 0, 1]
    assert values_of(odd_two_bits).tolist() == [-3, -1, 1, 3]
    assert values_of(sign).tolist() == [-1, 1]
    # The mean size.
    assert best_step(np.array([1.0, -2, 6]), sign) == pytest.approx(3)
    # 1, 2, 6 as 0, 0, 1: 36 of 41 explained; 0, 1, 1 explains 32 and 1, 1, 1 explains 27.
    assert best_step(np.array([1.0, 2, 6]), two_bits) == pytest.approx(6)
    # As 0, -1, -2: (2 + 12)^2 / 5 = 39.2 explained.
    assert best_step(np.array([-1.0, -2, -6]), two_bits) == pytest.approx(14 / 5)
    # 1, 1, 3: (1 + 2 + 18)^2 / 11.
    assert best_step(np.array([1.0, 2, -6]), odd_two_bits) == pytest.approx(21 / 11)
    # A zero has to be +-step too: 4^2 / 2 explained.
    assert best_step(np.array([0.0, 4]), sign) == pytest.approx(2)


@pytest.mark.parametrize("bits", BITS)
def test_what_lies_on_a_grid_stays_there(bits):
    for grid in Grid.candidates(bits):
        values = values_of(grid)
        # Every value, so that no coarser step has them all.
        assert best_step(0.3 * values, grid) == pytest.approx(0.3)
        np.testing.assert_array_equal(grid.nearest(values + 0.4 * grid.step), values)
        np.testing.assert_array_equal(grid.nearest(values[[0, -1]] * 9.0), values[[0, -1]])


def layer(weights: np.ndarray, bias: int = 1000) -> LinearOp:
    channels = len(weights)
    return LinearOp(
        layer="layer",
        inputs=[0],
        outputs=[1],
        weights=weights.astype(np.int32),
        weight_scale=np.linspace(0.01, 0.02, channels, dtype=np.float32),
        bias=np.full(channels, bias, np.int32),
        grid=Grid.smallest(weights),
    )


@pytest.mark.parametrize("bits", range(1, 8))
def test_a_layer_in_fewer_bits_is_near_in_real_numbers(bits):
    weights = np.rint(np.random.default_rng(bits).normal(0, 30, (4, 2000))).clip(-127, 127)
    before = layer(weights)
    after = requantize(before, bits)
    assert after.grid.bits == bits
    after.grid.encode(after.weights)
    scale, old_scale = (op.weight_scale.astype(np.float64)[:, None] for op in (after, before))
    error = np.sum((after.weights * scale - weights * old_scale) ** 2)
    # Max 1960 has the least error of 2^bits evenly spaced values for normally distributed numbers, as a share of the
    # variance. 2000 of them vary by a few per cent; at 6 and 7 bits integers lie nearer to grids than real numbers.
    least = {1: 0.3634, 2: 0.1188, 3: 0.03744, 4: 0.01154, 5: 0.003495, 6: 0.001040, 7: 0.000304}[bits]
    assert 0.7 * least < error / np.sum((weights * old_scale) ** 2) < 1.1 * least
    # The report's figure, in units of each channel's step.
    assert after.sqnr_db() == pytest.approx(-10 * np.log10(least), abs=1.2)
    # The bias in real numbers, to half a unit.
    assert np.abs(after.bias * scale[:, 0] - 1000 * old_scale[:, 0]).max() <= 0.5 * scale.max()


def test_a_layer_that_fits_keeps_its_weights():
    weights = np.random.default_rng(0).choice([-127, 3, 127], (4, 9))
    before = layer(weights)
    after = requantize(before, 2)
    np.testing.assert_array_equal(after.weights, before.weights)
    np.testing.assert_array_equal(after.bias, before.bias)
    assert after.grid == before.grid
    assert after.sqnr_db() == np.inf


def test_the_nearer_grid_is_taken():
    rng = np.random.default_rng(0)
    # Three values around zero, and values far from it: 2 bits with zero and without.
    with_zero = layer(100 * rng.integers(-1, 2, (3, 40)) + rng.integers(-5, 6, (3, 40)))
    without = layer(rng.choice([-99, -33, 33, 99], (3, 40)) + rng.integers(-5, 6, (3, 40)))
    assert requantize(with_zero, 2).grid == Grid(2, offset=-2)
    assert requantize(without, 2).grid == Grid(2, offset=-3, step=2)


@pytest.mark.parametrize("bits", [1, 2, 4])
@pytest.mark.parametrize("bias", [0, 2**30])
def test_channels_of_zeros_and_large_biases_stay_in_range(bits, bias):
    weights = np.zeros((3, 50))
    weights[0] = np.arange(-25, 25)
    weights[1, 7] = 1
    after = requantize(layer(weights, bias), bits)
    assert np.all(after.weight_scale > 0)
    assert np.all(np.abs(after.bias.astype(float)) <= 2**30)
    real = after.weight_scale[:, None] * after.weights
    # A channel of zeros adds next to nothing: less than a ten-thousandth of its bias, or of an old unit.
    bias_of_zeros = after.weight_scale[2] * float(after.bias[2])
    assert np.abs(real[2]).sum() * 128 <= 1e-4 * max(bias_of_zeros, 0.02)

"""Kernel quantizers against numpy, and the target distribution of the latent weights."""

import numpy as np
import pytest
import tensorflow as tf
from modes import MODES

from subbyte.keras_layers import TargetDistribution, quantizers
from subbyte.keras_layers.quantizers import Linear, Tanh

GRIDS = [(bits, grid) for bits in range(1, 9) for grid in quantizers.GRIDS if (bits, grid) not in
         {(1, "symmetric"), (8, "bin_centre")}]  # fmt: skip
EVERY = [(kind, *grid) for kind in (Tanh, Linear) for grid in GRIDS]
SIGMA = 0.85


def latent(shape=(200, 40), seed=0, sigma=SIGMA) -> np.ndarray:
    return (np.random.default_rng(seed).standard_normal(shape) * sigma).astype(np.float32)


def grid_values(bits: int, grid: str) -> np.ndarray:
    """The grids as the module's text defines them."""
    return (
        np.arange(1 - 2 ** (bits - 1), 2 ** (bits - 1)) if grid == "symmetric" else np.arange(1 - 2**bits, 2**bits, 2)
    )


def exported(quantizer, values) -> tuple[np.ndarray, np.ndarray]:
    """(codes, step) in float64, as a layer exports them."""
    values = tf.constant(values, tf.float64)
    return quantizer.weights(values).numpy(), quantizer.step(values).numpy()


@pytest.mark.once
@pytest.mark.parametrize(("kind", "bits", "grid"), EVERY)
def test_codes_use_the_grid_and_fit_int8(kind, bits, grid):
    quantizer = kind(bits, grid)
    values = np.concatenate([latent(), np.full((1, 40), 30.0), np.full((1, 40), -30.0)])
    codes, _ = exported(quantizer, values)
    assert set(np.unique(codes)) == set(grid_values(bits, grid) if kind is Tanh else np.unique(codes))
    assert set(np.unique(codes)) <= set(grid_values(bits, grid))
    assert np.abs(codes).max() == quantizer.largest_weight <= 127
    packed = (codes - quantizer.grid.offset) / quantizer.grid.step
    assert packed.min() >= 0
    assert packed.max() <= 2**bits - 1
    np.testing.assert_array_equal(packed, np.rint(packed))


@pytest.mark.once
@pytest.mark.parametrize(("bits", "grid"), GRIDS)
def test_tanh_cuts_the_interval_into_equal_bins(bits, grid):
    values = latent().astype(np.float64)
    codes, step = exported(Tanh(bits, grid), values)
    bins = len(grid_values(bits, grid))
    index = np.minimum(np.floor((np.tanh(values) + 1) / 2 * bins), bins - 1).astype(int)
    np.testing.assert_array_equal(codes, grid_values(bits, grid)[index])
    # A code stands for the middle of its bin.
    np.testing.assert_allclose(codes * step, (2 * index + 1) / bins - 1, rtol=0, atol=1e-15)


@pytest.mark.once
@pytest.mark.parametrize(("bits", "grid"), GRIDS)
@pytest.mark.parametrize("clip", [1.0, 0.6])
def test_linear_takes_the_nearest_value_in_each_channel(bits, grid, clip):
    values = latent().astype(np.float64) * np.linspace(0.1, 3, 40)
    codes, step = exported(Linear(bits, grid, clip=clip), values)
    allowed = grid_values(bits, grid)
    reach = clip * np.abs(values).max(axis=0)
    np.testing.assert_allclose(step, reach / (allowed[-1] + (grid == "bin_centre")), rtol=1e-15)
    nearest = np.abs(values[..., None] - step[:, None] * allowed).min(axis=-1)
    np.testing.assert_allclose(np.abs(values - step * codes), nearest, rtol=0, atol=1e-12)


@pytest.mark.once
def test_linear_gives_a_channel_of_zeros_codes_of_zero():
    codes, step = exported(Linear(4), np.zeros((5, 2)))
    assert (codes == 0).all()
    assert (step > 0).all()


@pytest.mark.once
@pytest.mark.parametrize(("kind", "bits", "grid"), EVERY)
def test_training_sees_what_is_exported(kind, bits, grid):
    quantizer = kind(bits, grid)
    values = latent(seed=bits)
    codes, step = exported(quantizer, values)
    # float32 may decide otherwise only at a threshold: half-way between two codes.
    real = quantizer.real_weights(tf.constant(values, tf.float64)).numpy()
    to_grid = (real - grid_values(bits, grid)[0]) / quantizer.grid.step
    near_threshold = np.abs(to_grid % 1 - 0.5) * quantizer.grid.step < 1e-5 * (quantizer.largest_weight + 1)
    assert near_threshold.mean() < 0.01
    for run in MODES.values():
        seen = run(quantizer.weights)(tf.constant(values)).numpy()
        assert seen.dtype == np.float32
        np.testing.assert_array_equal(seen[~near_threshold], codes[~near_threshold])
    np.testing.assert_allclose(quantizer.step(tf.constant(values)).numpy(), step, rtol=3e-7)


@pytest.mark.once
@pytest.mark.parametrize(("bits", "grid"), GRIDS)
def test_tanh_gradient_is_that_of_tanh_everywhere(bits, grid):
    values = latent()
    quantizer = Tanh(bits, grid)
    x = tf.constant(values)
    with tf.GradientTape() as tape:
        tape.watch(x)
        kernel = quantizer.step(x) * quantizer.weights(x)
    # The outermost codes too: half a bin without a gradient would hold its weights for ever.
    np.testing.assert_allclose(tape.gradient(kernel, x), 1 - np.tanh(values.astype(np.float64)) ** 2, rtol=0, atol=1e-6)


@pytest.mark.once
@pytest.mark.parametrize(("bits", "grid"), GRIDS)
def test_linear_gradient_passes_up_to_the_last_bin_and_stops_beyond(bits, grid):
    quantizer = Linear(bits, grid, clip=0.5)
    x = tf.constant(latent())
    with tf.GradientTape() as tape:
        tape.watch(x)
        kernel = quantizer.step(x) * quantizer.weights(x)
    end = (quantizer.largest_weight + quantizer.grid.step / 2) * quantizer.step(x)
    expected = np.abs(x) < end
    assert 0.01 < expected.numpy().mean() < 1
    np.testing.assert_allclose(tape.gradient(kernel, x), expected, rtol=1e-6)


@pytest.mark.once
@pytest.mark.parametrize("bits", [3, 4, 5, 6])
def test_tanh_reaches_the_theoretical_noise_of_equal_bins(bits):
    # Uniform numbers in n equal bins: signal to noise n^2. N(0, 0.85^2) through tanh is uniform but for 0.3 dB.
    values = latent((1000, 200)).astype(np.float64)
    codes, step = exported(Tanh(bits), values)
    target = np.tanh(values)
    ratio = 10 * np.log10(np.mean(target**2) / np.mean((target - codes * step) ** 2))
    assert ratio == pytest.approx(20 * np.log10(2**bits - 1), abs=0.3)


@pytest.mark.once
@pytest.mark.parametrize(("bits", "grid"), [pair for pair in GRIDS if pair[0] <= 5])
def test_tanh_codes_carry_about_equal_mass(bits, grid):
    codes, _ = exported(Tanh(bits, grid), latent((1000, 200)))
    _, counts = np.unique(codes, return_counts=True)
    share = counts / counts.mean()
    # N(0, 0.85^2) through tanh is not exactly uniform: its density is 6 % low in the middle, 15 % high at 0.7 and falls
    # off in the last hundredths, which the outermost codes of 6 bits and more have for themselves.
    assert share.min() > 0.5
    assert share.max() < 1.2


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Tanh(bits=0), "Tanh: bits must be 1 to 8, not 0"),
        (lambda: Linear(bits=9), "Linear: bits must be 1 to 8, not 9"),
        (lambda: Tanh(bits=True), "bits must be 1 to 8"),
        (lambda: Tanh(bits=2.5), "bits must be 1 to 8"),
        (lambda: Tanh(4, grid="even"), "grid must be one of symmetric, bin_centre"),
        (lambda: Tanh(1, grid="symmetric"), "use grid='bin_centre'"),
        (lambda: Linear(8, grid="bin_centre"), "do not fit int8: use grid='symmetric'"),
        (lambda: Tanh(4, sigma=0), "sigma must be positive"),
        (lambda: Linear(4, clip=0), "clip must be above 0"),
        (lambda: Linear(4, clip=1.1), "clip must be above 0 and at most 1"),
        (lambda: TargetDistribution(sigma=-1), "TargetDistribution needs sigma > 0"),
        (lambda: TargetDistribution(lambda_mu=-1), "weights >= 0"),
    ],
)
def test_bad_arguments_are_named(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_get_refuses_what_is_no_quantizer():
    with pytest.raises(TypeError, match=r"quantizers\.Tanh\(bits=4\)"):
        quantizers.get(4)
    assert quantizers.get(None).get_config() == Linear(8).get_config()


@pytest.mark.parametrize(
    "thing", [Tanh(3, "bin_centre", sigma=0.7), Linear(5, clip=0.9), TargetDistribution(0.5, 0.25, 2.0)]
)
def test_serialization_gives_the_same_thing(thing):
    again = tf.keras.utils.deserialize_keras_object(tf.keras.utils.serialize_keras_object(thing))
    assert type(again) is type(thing)
    assert again.get_config() == thing.get_config()


def test_target_distribution_by_hand():
    # Mean 1, deviations -3, -1, 1, 3: variance 5.
    kernel = tf.Variable([[-2.0, 0.0], [2.0, 4.0]])
    regularizer = TargetDistribution(sigma=1.0, lambda_sigma=0.5, lambda_mu=0.25)
    with tf.GradientTape() as tape:
        loss = regularizer(kernel)
    assert float(loss) == pytest.approx(0.5 * (np.sqrt(5) - 1) ** 2 + 0.25, rel=1e-6)
    # d std = deviation / (4 std), d mean = 1/4.
    deviations = np.array([[-3, -1], [1, 3]])
    expected = 2 * 0.5 * (np.sqrt(5) - 1) * deviations / (4 * np.sqrt(5)) + 2 * 0.25 / 4
    np.testing.assert_allclose(tape.gradient(loss, kernel), expected, rtol=1e-5)


def test_target_distribution_is_finite_for_equal_weights():
    kernel = tf.Variable(tf.ones((3, 3)))
    with tf.GradientTape() as tape:
        loss = TargetDistribution()(kernel)
    assert np.isfinite(tape.gradient(loss, kernel)).all()

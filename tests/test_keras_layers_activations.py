"""Activation quantizers against numpy."""

import numpy as np
import pytest
import tensorflow as tf

from subbyte import keras_layers as ql

KINDS = {
    "input": ql.QuantInput,
    "signed": ql.QuantActivation,
    "unsigned": lambda *a, **k: ql.QuantActivation(*a, signed=False, **k),
    "relu": ql.ClippedReLU,
}


def expected_outputs(kind, x, max_value, bits, power_of_two, stage):
    """bound and round in float64, from the documented ranges."""
    signed = kind in ("input", "signed")
    unsigned = 2**bits if bits <= 8 else 2 ** (bits - 1)  # int16 has no zero point
    low, high = (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if signed else (0, unsigned - 1)
    scale = max_value / (high + power_of_two)
    if power_of_two:
        scale = 2.0 ** np.ceil(np.log2(scale))
    top = high * scale if kind != "relu" else min(high * scale, max_value)
    bounded = np.clip(x, low * scale, top)
    rounded = np.rint if bits <= 8 else lambda v: np.sign(v) * np.floor(np.abs(v) + 0.5)
    return scale * rounded(bounded / scale) if stage == 2 else bounded


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("bits", "max_value", "power_of_two"),
    [(bits, *end) for bits in (2, 3, 5, 8) for end in ((4.0, True), (6.0, True), (6.0, False), (0.3, True))]
    + [(bits, end, True) for bits in (9, 12, 16) for end in (4.0, 6.0, 0.3)],
)
@pytest.mark.parametrize("training", [True, False])
def test_values(kind, bits, max_value, power_of_two, training):
    layer = KINDS[kind](max_value, bits=bits, power_of_two=power_of_two)
    x = np.concatenate([np.linspace(-2 * max_value, 2 * max_value, 1000), [0.0, max_value]]).astype(np.float32)
    layer.build(x.shape)
    for stage in (1, 2):
        ql.set_stage(layer, stage)
        outputs = layer(x, training=training).numpy()
        expected = expected_outputs(kind, x.astype(np.float64), max_value, bits, power_of_two, stage)
        if power_of_two:
            np.testing.assert_array_equal(outputs, expected.astype(np.float32))
        else:
            np.testing.assert_allclose(outputs, expected, rtol=1e-5, atol=1e-5)
        if stage == 2:
            assert len(np.unique(outputs)) <= 2**bits


@pytest.mark.parametrize("training", [True, False])
def test_ties_go_to_even(training):
    layer = ql.QuantActivation(4.0)
    layer.build((4,))
    ql.set_stage(layer, 2)
    steps = np.array([0.5, 1.5, 2.5, -0.5, -1.5, -2.5, 126.5, -127.5], np.float32)
    np.testing.assert_array_equal(layer(steps / 32, training=training) * 32, [0, 2, 2, 0, -2, -2, 126, -128])


@pytest.mark.parametrize("training", [True, False])
def test_ties_of_16_bits_go_away_from_zero(training):
    layer = ql.QuantActivation(4.0, bits=16)
    layer.build((4,))
    ql.set_stage(layer, 2)
    steps = np.array([0.5, 1.5, 2.5, -0.5, -1.5, 32766.5, 0.49999997], np.float32)
    np.testing.assert_array_equal(layer(steps / 8192, training=training) * 8192, [1, 2, 3, -1, -2, 32767, 0])


@pytest.mark.parametrize("training", [True, False])
def test_stage_one_passes_the_inside_untouched(training):
    layer = ql.QuantInput(4.0)
    x = np.random.default_rng(0).uniform(-3.9, 3.9, 1000).astype(np.float32)
    x[:3] = [1e-6, -1e-15, 3.9]
    np.testing.assert_array_equal(layer(x, training=training), x)


def test_momentum_follows_the_moving_average_by_hand():
    layer = ql.QuantInput(4.0, momentum=0.9, power_of_two=False)
    layer.build((2,))
    ql.set_stage(layer, 2)
    # 4 + 0.1 * (8 - 4) = 4.4; then 4.4 + 0.1 * (2 - 4.4) = 4.16. Steps of a 127th.
    for batch, limit in (([-8.0, 1.0], 4.4), ([2.0, 0.3], 4.16)):
        outputs = layer(np.array(batch, np.float32), training=True)
        assert float(layer.moving_maximum.numpy()) == pytest.approx(limit, rel=1e-6)
        step = limit / 127
        np.testing.assert_allclose(outputs, step * np.clip(np.rint(np.array(batch) / step), -128, 127), rtol=1e-5)
    before = float(layer.moving_maximum.numpy())
    np.testing.assert_allclose(layer(np.array([100.0], np.float32)), [4.16], rtol=1e-5)
    assert float(layer.moving_maximum.numpy()) == before


def test_momentum_with_powers_of_two():
    layer = ql.ClippedReLU(4.0, momentum=0.0)
    layer.build((1,))
    layer(np.array([5.0], np.float32), training=True)  # momentum 0: the range is the last batch's, rounded up to 8
    ql.set_stage(layer, 2)
    np.testing.assert_array_equal(layer(np.array([100.0, 1 / 32, 3 / 64], np.float32)), [8 * 255 / 256, 1 / 32, 1 / 16])


@pytest.mark.parametrize("stage", [1, 2])
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("kind", KINDS)
def test_gradients_pass_inside_the_range_alone(kind, stage, training):
    layer = KINDS[kind](2.0)
    layer.build((6,))
    ql.set_stage(layer, stage)
    x = tf.constant([-5.0, -2.1, -1.9, 0.1, 1.9, 2.1])
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = layer(x, training=training)
    below = 1.0 if kind in ("input", "signed") else 0.0
    np.testing.assert_array_equal(tape.gradient(y, x), [0, 0, below, 1, 1, 0])


@pytest.mark.parametrize("kind", KINDS)
def test_config_makes_the_same_layer(kind):
    layer = KINDS[kind](3.0, bits=5, power_of_two=False, momentum=0.5)
    again = type(layer).from_config(layer.get_config())
    assert again.get_config() == layer.get_config()
    assert again.signed == layer.signed
    assert layer.compute_output_shape((2, 3)) == (2, 3)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"max_value": 0}, "max_value must be a positive number, or None with a momentum, not 0"),
        ({"max_value": float("inf")}, "max_value must be"),
        ({"max_value": True}, "max_value must be"),
        ({"max_value": "4"}, "max_value must be"),
        ({"bits": 1}, "bits must be 2 to 16"),
        ({"bits": 17}, "bits must be 2 to 16"),
        ({"bits": 16, "power_of_two": False}, "16 bits need power_of_two=True"),
        ({"momentum": 1.0}, "momentum must be None or a number from 0 to below 1"),
    ],
)
def test_bad_arguments_name_the_layer(arguments, message):
    with pytest.raises(ValueError, match=f"wrong: {message}"):
        ql.ClippedReLU(**{"max_value": 4.0, "name": "wrong", **arguments})

"""quantize_model and quantize_post_training: twins of float models. The oracle is the float model in Keras."""

from __future__ import annotations

import collections
import warnings

import float_nets
import numpy as np
import pytest
import tensorflow as tf
from float_nets import sqnr_db

from subbyte import keras_layers as ql
from subbyte.converter import ConversionError, convert
from subbyte.converter.conversion import Conversion
from subbyte.converter.graph import Graph
from subbyte.converter.verification import verify
from subbyte.keras_layers.calibration import best_range
from subbyte.keras_layers.quantizers import SPANS, Linear, Tanh

keras, layers = tf.keras, tf.keras.layers
NAMES = list(float_nets.FLOAT_NETS)


@pytest.fixture(scope="module")
def nets() -> dict[str, tuple[keras.Model, object]]:
    made = {name: float_nets.drawn(name) for name in NAMES}
    return {name: (model, float_nets.given(model, inputs)) for name, (model, inputs) in made.items()}


@pytest.mark.parametrize("name", NAMES)
def test_a_twin_starts_at_the_float_models_outputs(nets, name):
    model, x = nets[name]
    expected = model(x)
    found = []
    for bits in (8, 4):
        twin = ql.quantize_model(model, ql.Recipe(bits=bits, first_last_bits=None), x)
        assert ql.stage_of(twin) == 1
        found.append(sqnr_db(expected, twin(x)))
    # 8-bit weights have a noise of a 250th of their deviation: 35 dB and more a layer, and the layers' noises add up.
    assert found[0] > 28
    assert found[0] > found[1] > 5


@pytest.mark.parametrize("name", ["dense", "residual"])
def test_without_calibration_ranges_follow_training(nets, name):
    model, x = nets[name]
    expected = model(x)
    twin = ql.quantize_model(model, ql.Recipe(bits=8))
    assert sqnr_db(expected, twin(x)) > 28  # nothing is bounded yet
    ql.set_stage(twin, 2)
    with pytest.raises(ConversionError, match=r"has seen no data.*train the model, or give .* a calibration"):
        convert(twin)
    for layer in twin.layers:
        layer.trainable = False  # the weights stay: only the ranges move
    twin.compile("sgd", "mse")
    ql.set_stage(twin, 1)
    twin.fit(x, expected, batch_size=32, epochs=1, verbose=0)
    ql.set_stage(twin, 2)
    assert sqnr_db(expected, twin(x)) > 18
    convert(twin)


@pytest.mark.parametrize("name", NAMES)
def test_a_twin_converts_whole(nets, name):
    """One QUANTIZE for each input, one DEQUANTIZE for each output, every layer packed, the int8 target's codes."""
    model, x = nets[name]
    twin = ql.quantize_model(model, ql.Recipe(bits=4), x)
    ql.set_stage(twin, 2)
    conversion = Conversion.start(twin)
    graph = Graph.read(conversion.tflite("packed"))
    kinds = collections.Counter(graph.kind(op) for op in graph.operators)
    assert kinds["QUANTIZE"] == len(graph.inputs)
    assert kinds["DEQUANTIZE"] == len(graph.outputs)
    assert not {"CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED", "MUL"} & set(kinds)
    assert not conversion.write().notes
    arrays = {name: x[name.split(":")[0]][:16] if isinstance(x, dict) else x[:16] for name in graph.named("inputs")}
    comparisons = verify(conversion, arrays)
    assert all(comparison.passed for comparison in comparisons)
    assert not any(comparison.differing for comparison in comparisons if comparison.against == "int8 target")
    if name == "shared_and_nested":  # no stock op rounds in between
        assert not any(comparison.differing for comparison in comparisons)


def test_batch_normalization_folds_as_in_keras():
    """One convolution with statistics and 8-bit weights that are exact: what is left is float32's rounding."""
    keras.utils.set_random_seed(3)
    model = keras.Sequential(
        [
            keras.Input((6, 6, 2)),
            layers.Conv2D(4, 3, use_bias=True),
            layers.BatchNormalization(epsilon=0.01),
        ]
    )
    rng = np.random.default_rng(3)
    kernel = rng.integers(-127, 128, (3, 3, 2, 4)).astype(np.float32)
    kernel[0, 0, 0] = 127  # so that each channel's step is 1
    bias, gamma, beta, mean = (rng.normal(size=4).astype(np.float32) for _ in range(4))
    variance = rng.uniform(0.5, 2, 4).astype(np.float32)
    gamma[1] = -gamma[1]
    model.set_weights([kernel, bias, gamma, beta, mean, variance])
    x = rng.integers(-8, 8, (5, 6, 6, 2)).astype(np.float32) / 4
    twin = ql.quantize_model(model, ql.Recipe(bits=8), x)
    assert [type(layer).__name__ for layer in twin.layers[1:]] == ["QuantInput", "QuantConv2D", "QuantActivation"]
    folded = keras.Model(twin.inputs, twin.layers[2].output)
    expected = np.asarray(model(x))
    np.testing.assert_allclose(folded(x), expected, rtol=0, atol=3e-6 * np.abs(expected).max())


@pytest.mark.parametrize("quantizer", [Linear(1), Linear(2), Linear(4), Linear(3, "bin_centre"), Tanh(3), Tanh(1)])
def test_fit_is_near_the_least_squares_optimum(quantizer):
    """Against a search over a hundred times as many steps in numpy, and for the sign against the mean of |w|."""
    rng = np.random.default_rng(0)
    kernel = np.concatenate([rng.normal(size=(60, 3)), rng.laplace(size=(60, 2))], axis=1).astype(np.float32)
    latent, gain = quantizer.fit(kernel)
    wide = tf.constant(latent, tf.float64)
    codes = quantizer.weights(wide).numpy()
    step = np.broadcast_to(quantizer.step(wide).numpy(), 5) * gain
    error = ((kernel - step * codes) ** 2).sum(axis=0)
    levels = np.arange(-quantizer.largest_weight, quantizer.largest_weight + 1, quantizer.grid.step)
    for channel in range(5):
        w = kernel[:, channel].astype(np.float64)
        steps = np.linspace(0.01, 1.2, 4000) * np.abs(w).max() / max(quantizer.largest_weight, 1)
        grids = steps[:, None, None] * levels
        best = min(np.abs(w[:, None] - grid).min(axis=1) ** 2 @ np.ones(60) for grid in grids)
        # Linear's grid never ends beyond the largest weight, as the best one may. Tanh's bins are equal, not nearest.
        assert error[channel] <= best * 1.1
    if quantizer.bits == 1:
        np.testing.assert_allclose(step, np.abs(kernel).mean(axis=0), rtol=1e-5)


@pytest.mark.parametrize(
    "quantizer", [Linear(1), Linear(4, clip=0.9), Linear(2, "bin_centre"), Linear(3, per_channel=False), Tanh(4)]
)
def test_fit_takes_the_best_part_of_the_range(quantizer):
    """Against the quantizer itself on every part of the range, which knows no formula; of equal parts the widest."""
    kernel = np.random.default_rng(1).normal(size=(50, 6)).astype(np.float32)

    def error(latent):
        wide = tf.constant(latent.astype(np.float32), tf.float64)
        values = quantizer.weights(wide).numpy() * quantizer.step(wide).numpy()
        gain = (kernel * values).sum(axis=0) / (values**2).sum(axis=0)
        errors = ((kernel - gain * values) ** 2).sum(axis=0)
        return errors if quantizer.per_channel else errors.sum(keepdims=True)

    latent, _ = quantizer.fit(kernel)
    spans = {span: error(quantizer.latent_of(kernel, span)) for span in SPANS}
    np.testing.assert_allclose(error(latent), np.min(list(spans.values()), axis=0), rtol=1e-9)
    if quantizer.bits == 1:
        np.testing.assert_array_equal(latent, kernel)


@pytest.mark.parametrize("signed", [True, False])
@pytest.mark.parametrize("scale", [0.07, 1.0, 30.0])
def test_best_range_is_the_best_power_of_two(signed, scale):
    rng = np.random.default_rng(1)
    values = scale * rng.laplace(size=5000)
    values = values if signed else np.maximum(values, 0)
    low, steps = (-128, 128) if signed else (0, 256)
    errors = {
        end: np.sum((np.clip(np.rint(values * steps / end), low, low + 255) * end / steps - values) ** 2)
        for end in 2.0 ** np.arange(-12, 12)
    }
    assert best_range(values, 8, signed) == min(errors, key=errors.__getitem__)


def test_best_range_cuts_off_one_outlier():
    values = np.concatenate([np.random.default_rng(2).uniform(0, 1, 10_000), [5.0]])
    assert best_range(values, 4, signed=False) < 5.0 < best_range(values, 8, signed=False)


def test_a_recipe_chooses_bits_by_name(nets):
    model, x = nets["depthwise_separable"]
    recipe = ql.Recipe(bits=3, layers={"depthwise*": 2, "dense*": Tanh(5)})
    bits = {
        layer.name: (layer.kernel_quantizer.bits, type(layer.kernel_quantizer).__name__)
        for layer in ql.quantize_model(model, recipe, x).layers
        if hasattr(layer, "kernel_quantizer")
    }
    assert [bits[name] for name in sorted(bits, key=list(bits).index)] == [
        (8, "Linear"),  # the first
        (2, "Linear"),
        (3, "Linear"),
        (3, "Linear"),
        (5, "Tanh"),  # the last, but named
    ]


def test_a_layer_can_stay_float_and_is_named(nets):
    model, x = nets["dense"]
    first = model.layers[0].name
    with pytest.warns(UserWarning, match=f"{first} .Dense. left in float"):
        twin = ql.quantize_model(model, ql.Recipe(layers={first: None}), x)
    kept = next(layer for layer in twin.layers if layer.name == first)
    assert type(kept) is layers.Dense
    for before, after in zip(model.layers[0].get_weights(), kept.get_weights(), strict=True):
        np.testing.assert_array_equal(before, after)


def test_what_is_not_known_is_named_and_kept():
    model = keras.Sequential(
        [keras.Input((6, 4)), layers.LSTM(5, name="memory"), layers.Dense(3, activation="relu"), layers.Dense(2)]
    )
    x = np.random.default_rng(0).normal(size=(20, 6, 4)).astype(np.float32)
    with pytest.warns(UserWarning, match=r"memory \(LSTM\) left as it is"):
        twin = ql.quantize_model(model, ql.Recipe(bits=8), x)
    assert sqnr_db(model(x), twin(x)) > 25


def test_training_goes_on_from_the_twin(nets):
    model, x = nets["temporal_residual"]
    target = model(x)
    twin = ql.quantize_model(model, ql.Recipe(bits=3), x)
    before = sqnr_db(target, twin(x))
    twin.compile(keras.optimizers.Adam(2e-3), "mse")
    twin.fit(x, target, epochs=20, verbose=0, callbacks=[ql.TwoStage(second_stage_epochs=5)])
    assert ql.stage_of(twin) == 2
    assert sqnr_db(target, twin(x)) > before + 2


def test_a_twin_is_saved_and_loaded(nets, tmp_path):
    model, x = nets["residual"]
    twin = ql.quantize_model(model, ql.Recipe(bits=4, keep_zeros=True), x)
    ql.set_stage(twin, 2)
    twin.save(tmp_path / "twin.keras")
    np.testing.assert_array_equal(keras.models.load_model(tmp_path / "twin.keras")(x), twin(x))


def test_the_float_model_is_left_alone(nets):
    model, x = nets["depthwise_separable"]
    before = [np.copy(weight) for weight in model.get_weights()]
    config = model.get_config()
    ql.quantize_post_training(model, x)
    assert model.get_config() == config
    for old, new in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)


def test_pruned_weights_stay_zero_through_both_stages():
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((20,)), layers.Dense(16, activation="relu"), layers.Dense(3)])
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(64, 20)).astype(np.float32), rng.normal(size=(64, 3)).astype(np.float32)
    kernel, bias = model.layers[0].get_weights()
    mask = rng.uniform(size=kernel.shape) < 0.4
    model.layers[0].set_weights([kernel * mask, bias])
    for recipe in (ql.Recipe(bits=4, keep_zeros=True), ql.Recipe(bits=4, keep_zeros=True, quantizer=Tanh)):
        twin = ql.quantize_model(model, recipe, x)
        twin.compile(keras.optimizers.Adam(0.02), "mse")
        twin.fit(x, y, epochs=6, verbose=0, callbacks=[ql.TwoStage(second_stage_epochs=2)])
        weights = Conversion.start(twin).linear_ops[0].weights.T
        assert not np.any(weights[~mask])
        assert np.any(weights[mask])


@pytest.mark.parametrize("name", [name for name in NAMES if name != "shared_and_nested"])
def test_post_training_corrects_the_means(nets, name):
    """What quantization adds to the mean of a layer's output is gone, and the outputs are nearer than without."""
    model, x = nets[name]
    expected = model(x)
    recipe = ql.Recipe(bits=3)
    plain = ql.quantize_model(model, recipe, x)
    ql.set_stage(plain, 2)
    made = ql.quantize_post_training(model, x, recipe)
    found = sqnr_db(expected, made.model(x))
    assert found > sqnr_db(expected, plain(x))
    assert found == pytest.approx(made.output_sqnr_db, abs=0.02)
    assert ql.stage_of(made.model) == 2
    assert [error.bits for error in made.layers] == [8, *[3] * (len(made.layers) - 2), 8]
    last = tf.nest.flatten(made.model(x))[0]
    if name != "dense":  # its softmax comes behind the layer
        deviation = np.abs(np.mean(last, axis=0) - np.mean(expected, axis=0)).max()
        step = 2 * np.abs(expected).max() / 256  # of the last activation; a power of two may double it
        assert deviation < step


def test_post_training_reports_each_layer(nets):
    """The oracle is Keras: a layer that has a batch normalization gives what that gives in the float model."""
    model, x = nets["temporal_residual"]
    made = ql.quantize_post_training(model, x, ql.Recipe(bits=4))
    reported = {error.layer: error.sqnr_db for error in made.layers}
    compared = 0
    for layer in made.model.layers:
        normalization = getattr(layer, "normalization", None)
        if normalization is not None:
            expected = keras.Model(model.inputs, model.get_layer(normalization.name).output)(x)
            found = keras.Model(made.model.inputs, layer.output)(x)
            # A corrected bias is put on the grid of the deployed one, a 65536th of its range.
            assert reported[layer.name] == pytest.approx(sqnr_db(expected, found), abs=0.02)
            compared += 1
    assert compared == 4
    assert made.layers[0].layer == model.layers[1].name
    assert made.samples == 96


def test_more_samples_than_needed_are_thinned_out(nets):
    model, x = nets["dense"]
    made = ql.quantize_post_training(model, np.concatenate([x] * 8))
    assert made.samples == 512


class Subclass(keras.Model):
    def call(self, x):
        return x


def bad(name: str) -> tuple[object, object, object]:
    model, x = keras.Sequential([keras.Input((4,)), layers.Dense(3), layers.Dense(2)], name="net"), np.ones((2, 4))
    two = keras.Model([a := keras.Input((2,), name="a"), b := keras.Input((2,), name="b")], layers.Add()([a, b]))
    nan = x * np.nan
    return {
        "subclass": (Subclass(name="own"), None, x),
        "no model": (layers.Dense(3, name="own"), None, x),
        "not built": (keras.Sequential([layers.Dense(3)], name="own"), None, x),
        "unknown pattern": (model, ql.Recipe(layers={"conv*": 2}), x),
        "empty": (model, None, x[:0]),
        "shape": (model, None, np.ones((2, 5))),
        "strings": (model, None, np.array([["a"] * 4])),
        "nan": (model, None, nan),
        "count": (model, None, [x, x]),
        "missing": (two, None, {"a": x[:, :2], "c": x[:, :2]}),
        "lengths": (two, None, {"a": x[:, :2], "b": x[:1, :2]}),
        "nothing": (keras.Sequential([keras.Input((4, 4)), layers.LSTM(3, name="memory")], name="net"), None, None),
        "no zero": (model, ql.Recipe(bits=1, first_last_bits=None, keep_zeros=True), x),
    }[name]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"bits": 12}, "Recipe: bits must be 1 to 8, not 12"),
        ({"first_last_bits": 0}, "Recipe: first_last_bits must be 1 to 8, not 0"),
        ({"layers": {"stem*": 9}}, r"Recipe: layers\['stem\*'\] must be 1 to 8, not 9"),
        ({"activation_bits": 1}, "Recipe: activation_bits must be 2 to 16, not 1"),
        ({"parameter_bits": 17}, "Recipe: parameter_bits must be 2 to 16, not 17"),
    ],
)
def test_a_recipe_refuses_bits_that_do_not_exist(arguments, message):
    with pytest.raises(ValueError, match=message):
        ql.Recipe(**arguments)


def test_bits_in_the_place_of_a_recipe_are_refused_with_the_mend():
    model = keras.Sequential([keras.Input((4,)), layers.Dense(3)])
    with pytest.raises(TypeError, match=r"takes a Recipe, not 4: write Recipe\(bits=4\)"):
        ql.quantize_model(model, 4)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("subclass", "own is no Sequential or functional Keras model: rebuild it with"),
        ("no model", "own is no Sequential or functional Keras model"),
        ("not built", "own has no known input shape: give it a tf.keras.Input"),
        ("unknown pattern", "no layer fits the recipe's 'conv\\*': those with weights are dense.*, dense"),
        ("empty", "is empty: give some hundred samples"),
        ("shape", r"is float64 \[2, 5\], the model takes \[samples, 4\]"),
        ("strings", "is <U1"),
        ("nan", "holds NaN or infinity"),
        ("count", "the calibration has 2 arrays, the model takes 1 inputs"),
        ("missing", "the calibration has no array 'b': it holds a, c"),
        ("lengths", "different numbers of samples"),
        ("nothing", r"nothing to quantize in net: memory \(LSTM\) left as it is"),
        ("no zero", "keep_zeros needs a grid with zero"),
    ],
)
def test_bad_input_gets_one_line(name, message):
    model, recipe, calibration = bad(name)
    with warnings.catch_warnings(), pytest.raises(ValueError, match=message) as caught:
        ql.quantize_model(model, recipe, calibration)
    assert "\n" not in str(caught.value)


LOADS = {
    "weights file": lambda one, other, path: (
        one.save_weights(path / "one.weights.h5"),
        other.load_weights(path / "one.weights.h5"),
    ),
    "model file": lambda one, other, path: (one.save(path / "one.keras"), other.load_weights(path / "one.keras")),
    "arrays": lambda one, other, path: other.set_weights(one.get_weights()),
}


@pytest.mark.parametrize("load", LOADS)
@pytest.mark.parametrize("seen", [lambda x: 10 * x, np.abs])
def test_ranges_come_with_weights(load, seen, tmp_path):
    """A twin that was calibrated otherwise becomes the one whose weights it is given, after it was traced, too."""
    tf.keras.utils.set_random_seed(0)
    model = tf.keras.Sequential(
        [tf.keras.Input((8,)), tf.keras.layers.Dense(8, "relu6"), tf.keras.layers.Dense(3, name="last")]
    )
    x = np.random.default_rng(0).normal(size=(64, 8)).astype(np.float32)
    one, other = ql.quantize_model(model, None, x), ql.quantize_model(model, None, seen(x))
    ql.set_stage(one, 2)
    ql.set_stage(other, 2)
    expected = one.predict(x, verbose=0)
    assert (other.predict(x, verbose=0) != expected).any()
    LOADS[load](one, other, tmp_path)
    np.testing.assert_array_equal(other.predict(x, verbose=0), expected)
    np.testing.assert_array_equal(other(x), expected)
    configs = [
        [(layer.max_value, layer.signed) for layer in twin.layers if hasattr(layer, "max_value")]
        for twin in (one, other)
    ]
    assert configs[0] == configs[1]
    other.save(tmp_path / "other.keras")
    np.testing.assert_array_equal(tf.keras.models.load_model(tmp_path / "other.keras")(x), expected)

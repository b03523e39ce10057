"""TFMOT's quantize_apply, clustering and pruning, down to packed models. Oracles: TFMOT, the stock interpreter."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from rich.console import Console

from subbyte import keras_layers as ql
from subbyte.converter.conversion import Conversion, Result
from subbyte.converter.errors import ConversionError
from subbyte.converter.keras_source import load_keras
from subbyte.converter.report import print_layers, to_json
from subbyte.converter.verification import verify

keras, layers = tf.keras, tf.keras.layers
IS_TF_KERAS = layers.Layer.__module__.startswith("tf_keras")

if IS_TF_KERAS:
    import tensorflow_model_optimization as tfmot

    from subbyte.keras_layers.tfmot import SubbyteConfig, SubbyteScheme

    quantization, clustering, sparsity = tfmot.quantization.keras, tfmot.clustering.keras, tfmot.sparsity.keras

with_tfmot = pytest.mark.skipif(not IS_TF_KERAS, reason="TFMOT works with tf-keras: TF_USE_LEGACY_KERAS=1")

RNG = np.random.default_rng(0)
Y = RNG.integers(0, 3, 256)
#: Three patterns in noise.
X = (RNG.normal(size=(3, 8, 6, 1))[Y] + RNG.normal(0, 0.5, (256, 8, 6, 1))).astype(np.float32)


def conv_net() -> keras.Model:
    """BatchNormalization and ReLU behind a convolution and a separable one."""
    x = keras.Input((8, 6, 1))
    y = layers.ReLU()(layers.BatchNormalization()(layers.Conv2D(8, 3, padding="same", use_bias=False, name="stem")(x)))
    y = layers.SeparableConv2D(12, 3, padding="same", use_bias=False, name="block")(y)
    y = layers.ReLU()(layers.BatchNormalization()(y))
    y = layers.Flatten()(layers.MaxPooling2D(2)(y))
    return keras.Model(x, layers.Dense(3, name="head")(y))


def dense_net() -> keras.Model:
    hidden = [layers.Dense(40, activation="relu", name=name) for name in ("first", "second")]
    return keras.Sequential([keras.Input((8, 6, 1)), layers.Flatten(), *hidden, layers.Dense(3, name="head")])


def fitted(model: keras.Model, epochs: int, callbacks: tuple = ()) -> keras.Model:
    model.compile(
        keras.optimizers.Adam(3e-3), keras.losses.SparseCategoricalCrossentropy(from_logits=True), metrics=["accuracy"]
    )
    model.fit(X, Y, epochs=epochs, verbose=0, callbacks=list(callbacks))
    return model


def accuracy(model: keras.Model) -> float:
    return float(np.mean(np.argmax(model(X), axis=1) == Y))


@pytest.fixture(scope="module")
def float_conv() -> keras.Model:
    keras.utils.set_random_seed(0)
    return fitted(conv_net(), 8)


@pytest.fixture(scope="module")
def float_dense() -> keras.Model:
    keras.utils.set_random_seed(0)
    return fitted(dense_net(), 8)


def applied(model: keras.Model, scheme: SubbyteScheme) -> keras.Model:
    return quantization.quantize_apply(quantization.quantize_annotate_model(model), scheme=scheme)


def annotated(model: keras.Model, configs: dict[str, SubbyteConfig | None]) -> keras.Model:
    """The model with these layers alone annotated."""

    def annotate(layer: layers.Layer) -> layers.Layer:
        name = layer.name
        return quantization.quantize_annotate_layer(layer, configs[name]) if name in configs else layer

    return keras.models.clone_model(model, clone_function=annotate)


def converted(model: keras.Model) -> Conversion:
    """A conversion whose packed codes are those of stock int8 ops and of Keras on real inputs."""
    conversion = Conversion.start(model)
    (name,) = conversion.graph.named("inputs")
    comparisons = verify(conversion, {name: X[:40]})
    assert {comparison.against for comparison in comparisons} == {"int8 target", "Keras"}
    assert [comparison for comparison in comparisons if comparison.differing] == []
    return conversion


def bits(conversion: Conversion) -> dict[str, int]:
    return {layer.layer: layer.weight_bits for layer in conversion.write("packed").layers}


@with_tfmot
def test_quantize_apply_gives_a_model_that_trains_and_packs(float_conv):
    model = applied(float_conv, SubbyteScheme(bits=4))
    assert model.name == float_conv.name
    assert {type(layer).__name__ for layer in model.layers if layer.trainable_weights} == {
        "QuantConv2D",
        "QuantDepthwiseConv2D",
        "QuantDense",
    }
    fitted(model, 4, [ql.TwoStage(second_stage_epochs=2)])
    assert ql.stage_of(model) == 2
    assert accuracy(model) > accuracy(float_conv) - 0.05
    assert bits(converted(model)) == {"stem": 8, "block_depthwise": 4, "block_pointwise": 4, "head": 8}


@with_tfmot
def test_calibration_and_recipe_reach_the_twin(float_dense):
    recipe = ql.Recipe(bits=3, first_last_bits=None, layers={"sec*": 6})
    model = applied(float_dense, SubbyteScheme(recipe=recipe, calibration=X))
    ql.set_stage(model, 2)  # calibrated: no training is needed
    assert accuracy(model) > accuracy(float_dense) - 0.1
    assert bits(converted(model)) == {"first": 3, "second": 6, "head": 3}
    same = applied(float_dense, SubbyteScheme(3, X, first_last_bits=None, layers={"sec*": 6}))
    ql.set_stage(same, 2)
    np.testing.assert_array_equal(model(X), same(X))


@with_tfmot
def test_a_config_overrides_the_scheme_for_its_layer(float_conv):
    """Both halves of a separable convolution take it, and `bits` are those of the recipe's quantizer."""
    model = quantization.quantize_annotate_model(
        annotated(float_conv, {"block": SubbyteConfig(bits=2), "head": SubbyteConfig(quantizer=ql.quantizers.Tanh(5))})
    )
    model = quantization.quantize_apply(model, scheme=SubbyteScheme(bits=6, first_last_bits=7))
    found = {layer.name: layer.kernel_quantizer for layer in model.layers if hasattr(layer, "kernel_quantizer")}
    assert {name: (type(quantizer), quantizer.bits) for name, quantizer in found.items()} == {
        "stem": (ql.quantizers.Linear, 7),
        "block_depthwise": (ql.quantizers.Linear, 2),
        "block_pointwise": (ql.quantizers.Linear, 2),
        "head": (ql.quantizers.Tanh, 5),
    }


@with_tfmot
@pytest.mark.filterwarnings("ignore:quantize_model.* left ")
def test_layers_that_are_not_annotated_stay_in_float(float_dense):
    model = annotated(float_dense, {"second": SubbyteConfig(bits=2), "head": None})
    model = quantization.quantize_apply(model, scheme=SubbyteScheme(bits=5, first_last_bits=None))
    found = {layer.name: layer for layer in model.layers}
    assert (found["second"].kernel_quantizer.bits, found["head"].kernel_quantizer.bits) == (2, 5)
    assert type(found["first"]) is layers.Dense
    np.testing.assert_array_equal(found["first"].kernel, float_dense.get_layer("first").kernel)


@with_tfmot
@pytest.mark.filterwarnings("ignore:quantize_model.* left ")
def test_what_stands_between_float_layers_stays_float(float_conv):
    """So that TensorFlow's converter does not round their weights to 8 bits."""
    model = annotated(float_conv, {"head": SubbyteConfig(bits=3)})
    model = quantization.quantize_apply(model, scheme=SubbyteScheme(calibration=X))
    stem = ["InputLayer", "Conv2D", "BatchNormalization", "ReLU"]
    block = ["DepthwiseConv2D", "Conv2D", "BatchNormalization", "ClippedReLU"]
    head = ["MaxPooling2D", "Flatten", "QuantDense", "QuantActivation"]
    assert [type(layer).__name__ for layer in model.layers] == stem + block + head
    ql.set_stage(model, 2)
    assert accuracy(model) > accuracy(float_conv) - 0.1
    assert bits(converted(model)) == {"head": 3}


@with_tfmot
@pytest.mark.parametrize("form", ["model.keras", "model.h5"])
@pytest.mark.filterwarnings("ignore")
def test_models_are_saved_and_loaded(float_conv, tmp_path: Path, form: str):
    before = annotated(float_conv, {"block": SubbyteConfig(quantizer=ql.quantizers.Tanh(2)), "head": None})
    before.save(tmp_path / form)
    with quantization.quantize_scope():
        loaded = keras.models.load_model(tmp_path / form)
    twins = [quantization.quantize_apply(model, scheme=SubbyteScheme(bits=3)) for model in (before, loaded)]
    np.testing.assert_array_equal(*(twin(X) for twin in twins))
    ql.set_stage(twins[0], 2)
    twins[0](X, training=True)  # ranges
    twins[0].save(tmp_path / f"applied_{form}")
    loaded = keras.models.load_model(tmp_path / f"applied_{form}", compile=False)  # no scope
    np.testing.assert_array_equal(twins[0](X), loaded(X))
    assert loaded.get_layer("block_pointwise").kernel_quantizer.get_config() == ql.quantizers.Tanh(2).get_config()


@with_tfmot
def test_a_clustered_model_packs_into_codebooks(float_dense):
    copy = keras.models.clone_model(float_dense)  # cluster_weights changes what it is given
    copy.set_weights(float_dense.get_weights())
    clustered = clustering.cluster_weights(
        copy, number_of_clusters=16, cluster_centroids_init=clustering.CentroidInitialization.KMEANS_PLUS_PLUS
    )
    clustered = clustering.strip_clustering(fitted(clustered, 1))
    model = applied(clustered, SubbyteScheme(recipe=ql.Recipe.clustered(), calibration=X))
    ql.set_stage(model, 2)
    assert np.mean(np.argmax(model(X), axis=1) == np.argmax(clustered(X), axis=1)) > 0.97
    conversion = converted(model)
    assert bits(conversion) == dict.fromkeys(("first", "second", "head"), 4)
    for op in conversion.linear_ops:
        before = clustered.get_layer(op.layer).kernel.numpy().T
        pairs = {(w, int(code)) for w, code in zip(before.ravel(), op.weights.ravel(), strict=True)}
        # Clusters that lie within a step of each other may become one.
        assert len({code for _, code in pairs}) <= len(pairs) == len(np.unique(before)) <= 16
    wide = applied(float_dense, SubbyteScheme(recipe=ql.Recipe.clustered(), calibration=X))
    ql.set_stage(wide, 2)
    rows = (found.write("packed").layers for found in (conversion, Conversion.start(wide)))
    for narrow, layer in zip(*rows, strict=True):
        if layer.layer != "head":  # 120 weights hold few values by nature
            assert layer.weight_bits == 8
            assert layer.stored_bytes - narrow.stored_bytes > 0.45 * layer.weights


@pytest.mark.parametrize(
    ("shape", "values", "expected"),
    [
        ((64, 32), 16, 4),  # half the bytes
        ((64, 32), 32, 5),
        ((64, 32), 64, 6),  # 1536 + 64 bytes of 2048
        ((64, 32), 100, 8),  # 1792 + 128 of 2048 are not worth it
        ((8, 8), 24, 8),  # 40 + 32 bytes of 64
        ((8, 8), 7, 3),  # 24 + 8 bytes of 64
    ],
)
def test_8_bit_layers_of_few_values_take_fewer_bits(shape, values, expected):
    # No two gaps alike, so that no evenly spaced grid has them.
    codes = np.unique(np.rint(127 * np.linspace(0.05, 1, values // 2) ** 1.3))
    codes = np.concatenate([-codes, codes, np.full(values - 2 * len(codes), 0)])
    kernel = np.resize(codes, shape).astype(np.float32)
    assert len(np.unique(kernel)) == values
    layer = ql.QuantDense(shape[1], kernel_quantizer=ql.quantizers.Linear(8, per_channel=False))
    model = keras.Sequential([keras.Input(shape[:1]), ql.QuantInput(4.0), layer, ql.QuantActivation(8.0)])
    layer.kernel.assign(kernel / 127)
    layer.gain.assign(0.02)
    ql.set_stage(model, 2)
    conversion = Conversion.start(model)
    np.testing.assert_array_equal(conversion.linear_ops[0].weights, kernel.T)
    (row,) = conversion.write("packed").layers
    assert (row.weight_bits, row.distinct_values) == (expected, values)
    x = np.random.default_rng(0).normal(size=(20, shape[0])).astype(np.float32)
    (name,) = conversion.graph.named("inputs")
    assert [c.differing for c in verify(conversion, {name: x})] == [0, 0]


@with_tfmot
def test_pruned_weights_stay_zero_through_both_stages(float_dense):
    pruned = sparsity.prune_low_magnitude(float_dense, sparsity.ConstantSparsity(0.6, 0, frequency=1))
    pruned = sparsity.strip_pruning(fitted(pruned, 1, [sparsity.UpdatePruningStep()]))
    zeros = {name: pruned.get_layer(name).kernel.numpy() == 0 for name in ("first", "second", "head")}
    model = applied(pruned, SubbyteScheme(bits=4, keep_zeros=True))
    before = {name: model.get_layer(name).kernel.numpy() for name in zeros}
    fitted(model, 2, [ql.TwoStage(second_stage_epochs=1)])
    conversion = converted(model)
    codes = {op.layer: op.weights.T for op in conversion.linear_ops}
    for name, mask in zeros.items():
        assert np.mean(mask) == pytest.approx(0.6, abs=0.02)
        assert not codes[name][mask].any()
        assert np.any(model.get_layer(name).kernel.numpy() != before[name])  # it has trained
    result = conversion.write("packed")
    found = {layer.layer: layer.zeros for layer in result.layers}
    assert found == pytest.approx({name: np.mean(mask) for name, mask in zeros.items()})
    assert json.loads(to_json(result, None))["layers"][-1]["zeros"] == found["head"]
    assert "zeros" in _printed(result)


def _printed(result: Result) -> str:
    console = Console(width=120, record=True, file=io.StringIO())
    print_layers(console, result)
    return console.export_text()


def test_the_report_has_no_zeros_where_rounding_made_them():
    layer = ql.QuantDense(16, kernel_quantizer=ql.quantizers.Tanh(2))
    model = keras.Sequential([keras.Input((32,)), ql.QuantInput(4.0), layer, ql.QuantActivation(8.0)])
    ql.set_stage(model, 2)
    conversion = Conversion.start(model)
    assert np.mean(conversion.linear_ops[0].weights == 0) > 0.2  # ternary
    result = conversion.write("packed")
    assert result.layers[0].zeros == 0
    assert "zeros" not in _printed(result)


@with_tfmot
def test_layers_are_pruned_directly():
    def prune(layer: layers.Layer) -> layers.Layer:
        return sparsity.prune_low_magnitude(layer, sparsity.ConstantSparsity(0.75, 0, frequency=1))

    model = keras.Sequential(
        [
            keras.Input((8, 6, 1)),
            ql.QuantInput(4.0),
            prune(
                ql.QuantConv2D(
                    8, 3, kernel_quantizer=ql.quantizers.Linear(4), normalization=ql.QuantBatchNormalization()
                )
            ),
            ql.ClippedReLU(4.0),
            layers.Flatten(),
            prune(ql.QuantDense(3, kernel_quantizer=ql.quantizers.Tanh(4))),
            ql.QuantActivation(8.0),
        ]
    )
    fitted(model, 3, [sparsity.UpdatePruningStep(), ql.TwoStage(second_stage_epochs=1)])
    result = converted(sparsity.strip_pruning(model)).write("packed")
    assert [layer.zeros for layer in result.layers] == pytest.approx([0.75, 0.75], abs=0.01)


@with_tfmot
def test_bad_input_is_told_in_one_line(float_dense):
    def refused(match: str, config: object = None, **arguments: object) -> None:
        with quantization.quantize_scope(), pytest.raises(ValueError, match=match) as caught:
            quantization.quantize_apply(annotated(float_dense, {"second": config}), **arguments)
        assert len(str(caught.value).splitlines()) == 1

    refused(r"second is annotated with SubbyteConfig.*scheme=SubbyteScheme\(\)", SubbyteConfig(bits=4))
    foreign = quantization.default_8bit.Default8BitQuantizeScheme().get_quantize_registry()
    refused(
        "second is annotated with Default8BitQuantizeConfig.*give it a SubbyteConfig",
        foreign.get_quantize_config(float_dense.get_layer("second")),
        scheme=SubbyteScheme(),
    )
    refused("no layer fits the recipe's 'fourth'", scheme=SubbyteScheme(layers={"fourth": 2}))
    with pytest.raises(ValueError, match="bits must be 1 to 8, not 9"):
        SubbyteScheme(bits=9)
    with pytest.raises(ValueError, match="bits must be 1 to 8, not 0"):
        SubbyteConfig(bits=0)
    with pytest.raises(ValueError, match="either bits or a quantizer"):
        SubbyteConfig()
    with pytest.raises(ValueError, match="either a recipe or its arguments, not both: bits"):
        SubbyteScheme(bits=3, recipe=ql.Recipe())
    sign = sparsity.prune_low_magnitude(ql.QuantDense(2, kernel_quantizer=ql.quantizers.Tanh(1), name="sign"))
    with pytest.raises(ValueError, match="sign: pruning needs a grid with zero"):
        sign(X[0, 0])


@with_tfmot
@pytest.mark.filterwarnings("ignore:quantize_model.* left ")
@pytest.mark.parametrize(
    ("layer", "config", "match"),
    [
        ("LSTM", None, r"odd \(LSTM\) cannot be quantized: annotate the other layers alone"),
        ("LSTM", 4, r"odd \(LSTM\) cannot be quantized"),
        ("ReLU", 4, "odd is annotated with a SubbyteConfig but has no weights"),
    ],
)
def test_layers_that_cannot_be_quantized_are_named(layer, config, match):
    odd = layers.LSTM(4, name="odd") if layer == "LSTM" else layers.ReLU(name="odd")
    model = keras.Sequential(
        [
            keras.Input((6, 5)),
            quantization.quantize_annotate_layer(odd, config and SubbyteConfig(bits=config)),
            quantization.quantize_annotate_layer(layers.Dense(3)),
        ]
    )
    with pytest.raises(ValueError, match=match):
        quantization.quantize_apply(model, scheme=SubbyteScheme())


#: What makes each kind of wrapped model; a word of the mend.
WRAPPED = {
    "quantized": (lambda model: quantization.quantize_model(model), "start from the float model"),
    "annotated": (lambda model: quantization.quantize_annotate_model(model), "scheme=SubbyteScheme"),
    "pruned": (lambda model: sparsity.prune_low_magnitude(model), "strip_pruning"),
    "clustered": (
        lambda model: clustering.cluster_weights(
            model, number_of_clusters=4, cluster_centroids_init=clustering.CentroidInitialization.LINEAR
        ),
        "strip_clustering",
    ),
}


@with_tfmot
@pytest.mark.parametrize("kind", WRAPPED)
@pytest.mark.parametrize("is_nested", [False, True])
def test_a_model_that_tfmot_has_wrapped_is_named_with_the_mend(kind, is_nested):
    wrap, mend = WRAPPED[kind]
    model = wrap(dense_net())
    if is_nested:
        model = keras.Sequential([keras.Input((8, 6, 1)), model])
    for route in (
        lambda: ql.quantize_model(model, None, X),
        lambda: ql.quantize_post_training(model, X),
        lambda: Conversion.start(model, bits=4, calibration=X),
    ):
        with pytest.raises(ValueError, match=rf"by TFMOT|for TFMOT.*{mend}") as caught:
            route()
        assert mend in str(caught.value)
        assert "\n" not in str(caught.value)


@with_tfmot
def test_a_file_that_tfmot_has_wrapped_is_named_with_the_mend(tmp_path):
    quantization.quantize_model(dense_net()).save(tmp_path / "wrapped.keras")
    with pytest.raises(ConversionError, match=r"quantized to 8 bits by TFMOT: start from the float model"):
        load_keras(tmp_path / "wrapped.keras")


@pytest.mark.skipif(IS_TF_KERAS, reason="this is about Keras 3: the second run of make test")
def test_keras_3_is_refused():
    with pytest.raises(ImportError, match="TFMOT works with tf-keras: set TF_USE_LEGACY_KERAS=1"):
        import subbyte.keras_layers.tfmot  # noqa: F401

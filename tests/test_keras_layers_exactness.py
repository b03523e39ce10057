"""Stage 2 gives the same bits however it runs: eager, predict, XLA, any batch size, saved or not."""

import numpy as np
import pytest
import tensorflow as tf
from modes import MODES

from subbyte import keras_layers as ql
from subbyte.keras_layers.quantizers import Linear, Tanh

keras = tf.keras
X = np.random.default_rng(0).normal(0, 1.5, (64, 30)).astype(np.float32)

QUANTIZERS = [Tanh(1), Tanh(4), Tanh(5, "bin_centre"), Linear(3), Linear(8, clip=0.8)]


def name(quantizer) -> str:
    return f"{type(quantizer).__name__}-{quantizer.bits}-{quantizer.grid}"


@pytest.fixture(params=QUANTIZERS, ids=name, scope="module")
def model(request):
    """Three layers after a few steps of training, in stage 2."""
    keras.utils.set_random_seed(0)
    layers = [keras.Input((30,)), ql.QuantInput(4.0)]
    for units, gain in ((40, "scalar"), (17, "channel")):
        norm = ql.QuantBatchNormalization(momentum=0.7)
        layers.append(ql.QuantDense(units, kernel_quantizer=request.param, gain=gain, normalization=norm))
        layers.append(ql.ClippedReLU(4.0))
    layers += [ql.QuantDense(3, kernel_quantizer=request.param), ql.QuantActivation(4.0)]
    model = keras.Sequential(layers)
    model.compile("adam", "mse", run_eagerly=True)
    model.fit(X, X[:, :3], epochs=3, verbose=0, callbacks=[ql.TwoStage(1)])
    for layer in model.layers:
        if isinstance(layer, ql.QuantDense) and layer.normalization is not None:
            layer.normalization.gamma.assign(layer.normalization.gamma.numpy() * np.resize([1, -1, 0.3], layer.units))
    return model


def test_every_way_to_run_it_gives_the_same_bits(model):
    expected = model(X, training=False).numpy()
    assert len(np.unique(expected)) > 20
    # On the grid of the last activation quantizer.
    np.testing.assert_array_equal(expected * 32, np.rint(expected * 32))
    for jit_compile in (False, True):
        model.compile("sgd", "mse", jit_compile=jit_compile)
        for batch_size in (32, 7) if not jit_compile else (32,):
            outputs = model.predict(X, batch_size=batch_size, verbose=0)
            np.testing.assert_array_equal(outputs, expected)
    rows = [model(X[i : i + size], training=False).numpy() for i, size in ((0, 1), (1, 7), (8, 32), (40, 24))]
    np.testing.assert_array_equal(np.concatenate(rows), expected)


@pytest.mark.parametrize("mode", MODES)
def test_a_weight_on_a_threshold_gets_the_code_of_float64(mode):
    # The float32 numbers next to the thresholds of 8 bits: a tanh in float32 would decide as the compiler rounds.
    thresholds = np.arctanh((np.arange(-127, 127) + 0.5) / 127.5).astype(np.float32)
    latent = thresholds + np.spacing(thresholds) * np.arange(-3, 4, dtype=np.float32)[:, None]
    layer = ql.QuantDense(latent.shape[1], use_bias=False, gain=None, kernel_quantizer=Tanh(8))
    layer.build((None, 7))
    layer.kernel.assign(latent)
    ql.set_stage(layer, 2)
    outputs = MODES[mode](lambda x: layer(x, training=False))(tf.eye(7)).numpy()
    codes = np.rint(127.5 * np.tanh(latent.astype(np.float64)))
    np.testing.assert_array_equal(np.rint(outputs * 127.5), codes)


@pytest.mark.parametrize("model", [Tanh(4)], ids=name, indirect=True)
def test_freezing_it_as_a_saved_model_changes_nothing(model, tmp_path):
    expected = model(X, training=False).numpy()
    function = tf.function(lambda x: model(x, training=False), autograph=False)
    concrete = function.get_concrete_function(tf.TensorSpec((None, 30), tf.float32))
    np.testing.assert_array_equal(concrete(tf.constant(X)), expected)
    model.save(tmp_path / "model.keras")
    np.testing.assert_array_equal(model(X, training=False), expected)
    loaded = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(loaded(X, training=False), expected)
    model.export(str(tmp_path / "saved_model"), **({"verbose": False} if keras_3() else {}))
    np.testing.assert_array_equal(model(X, training=False), expected)
    served = tf.saved_model.load(str(tmp_path / "saved_model"))
    np.testing.assert_array_equal(served.serve(tf.constant(X)), expected)


def keras_3() -> bool:
    return hasattr(keras, "ops")

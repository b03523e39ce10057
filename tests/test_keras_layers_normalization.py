"""QuantBatchNormalization: stock batch normalization in stage 1, equation 2 of the paper in stage 2."""

import numpy as np
import pytest
import tensorflow as tf
from fold_oracle import batch_norm_vectors, normalization_affine
from signatures import parameters

from subbyte import keras_layers as ql
from subbyte.keras_layers.quantizers import Tanh

SCALINGS = ["channel", "layer", None]


@pytest.fixture(autouse=True)
def seeded():
    tf.keras.utils.set_random_seed(0)


def random_norm(channels=6, seed=0, **arguments):
    layer = ql.QuantBatchNormalization(**arguments)
    layer.build((None, channels))
    rng = np.random.default_rng(seed)
    layer.gamma.assign(rng.normal(0, 1, channels))
    layer.beta.assign(rng.normal(0, 1, channels))
    layer.moving_mean.assign(rng.normal(0, 3, channels))
    layer.moving_variance.assign(10.0 ** rng.uniform(-4, 3, channels))
    return layer


def test_arguments_are_those_of_stock_batch_normalization():
    stock = parameters(tf.keras.layers.BatchNormalization)
    for name, parameter in parameters(ql.QuantBatchNormalization).items():
        if name not in ("bits", "scaling", "kwargs"):
            assert parameter.default == stock[name].default


@pytest.mark.parametrize("shape", [(16, 5), (8, 3, 5)])
def test_stage_one_is_stock_dense_and_batch_normalization(shape):
    dense, stock = tf.keras.layers.Dense(4), tf.keras.layers.BatchNormalization(momentum=0.8)
    layer = ql.QuantDense(4, kernel_quantizer=Tanh(4), normalization=ql.QuantBatchNormalization(momentum=0.8))
    for each in (dense, layer):
        each.build(shape)
    stock.build((*shape[:-1], 4))
    norm, quantizer, latent = layer.normalization, layer.kernel_quantizer, tf.constant(layer.kernel.numpy())
    layer.gain.assign(0.7)
    layer.bias.assign([0.1, -0.2, 0.3, 5.0])
    kernel = (quantizer.step(latent) * quantizer.weights(latent)).numpy()
    dense.set_weights([0.7 * kernel, 0.7 * layer.bias.numpy()])
    for each in (norm, stock):
        each.gamma.assign([1.0, -2.0, 0.0, 1e-6])
        each.beta.assign([0.0, 1.0, -1.0, 0.5])
    rng = np.random.default_rng(0)
    for step in range(4):
        x = rng.normal(step, 1 + step, shape).astype(np.float32)
        np.testing.assert_allclose(layer(x, training=True), stock(dense(x), training=True), rtol=1e-4, atol=1e-4)
        np.testing.assert_allclose(norm.moving_mean.numpy(), stock.moving_mean.numpy(), rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(norm.moving_variance.numpy(), stock.moving_variance.numpy(), rtol=1e-4)
        np.testing.assert_allclose(layer(x, training=False), stock(dense(x), training=False), rtol=1e-4, atol=1e-4)


def test_stage_one_gradients_are_those_of_stock_layers():
    x = tf.constant(np.random.default_rng(1).normal(1, 2, (16, 5)).astype(np.float32))
    gradients = []
    for norm in (ql.QuantBatchNormalization(), tf.keras.layers.BatchNormalization()):
        norm.build((None, 5))
        norm.gamma.assign([1.0, -2.0, 0.5, 3.0, 0.1])
        with tf.GradientTape() as tape:
            tape.watch(x)
            loss = tf.reduce_sum(norm(x, training=True) ** 3)
        gradients.append(tape.gradient(loss, [x, *norm.trainable_weights]))
    for ours, stock in zip(*gradients, strict=True):
        np.testing.assert_allclose(ours, stock, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("scaling", SCALINGS)
@pytest.mark.parametrize("bits", [4, 8])
def test_stage_two_is_equation_2(scaling, bits):
    layer = random_norm(scaling=scaling, bits=bits)
    x = np.random.default_rng(2).normal(1, 3, (40, 6)).astype(np.float32)
    ql.set_stage(layer, 2)
    multiplier, offset = normalization_affine(layer, 2)
    np.testing.assert_allclose(layer(x, training=False), x * multiplier + offset, rtol=1e-4, atol=1e-4)
    vectors = (x.mean(axis=0), x.var(axis=0) + layer.epsilon, layer.gamma.numpy(), layer.beta.numpy())
    mean, variance, gamma, beta = batch_norm_vectors(*(v.astype(np.float64) for v in vectors), bits, scaling)
    expected = gamma * (x - mean) / np.sqrt(variance) + beta
    np.testing.assert_allclose(layer(x, training=True), expected, rtol=1e-4, atol=1e-4)


def test_equation_2_by_hand():
    # C = 4 for mean 2.5: mu's step is 4/8, so 2.5 stays; the variance's step is 16/16 = 1: 6.4 becomes 6.
    # gamma and beta on steps of 1/8 and 2/8: 0.8 becomes 6/8, 1.1 becomes 4/4.
    layer = ql.QuantBatchNormalization(bits=4, epsilon=0.0)
    layer.build((None, 1))
    variables = (layer.gamma, layer.beta, layer.moving_mean, layer.moving_variance)
    for variable, value in zip(variables, (0.8, 1.1, 2.5, 6.4), strict=True):
        variable.assign([value])
    ql.set_stage(layer, 2)
    expected = 0.75 * (3.0 - 2.5) / np.sqrt(6.0) + 1.0
    np.testing.assert_allclose(layer(np.array([[3.0]], np.float32)), [[expected]], rtol=1e-6)


@pytest.mark.parametrize("scaling", SCALINGS)
def test_variance_code_is_never_zero(scaling):
    layer = random_norm(scaling=scaling, epsilon=0.0)
    layer.moving_variance.assign([0.0, 1e-30, 1e-12, 1e-6, 1.0, 1e6])
    ql.set_stage(layer, 2)
    for training in (False, True):
        outputs = layer(np.ones((3, 6), np.float32), training=training)
        assert np.isfinite(outputs).all()


@pytest.mark.parametrize("scaling", SCALINGS)
def test_scaling_by_channel_keeps_small_variances_apart(scaling):
    layer = random_norm(scaling=scaling)
    layer.moving_mean.assign(tf.zeros(6))
    layer.moving_variance.assign([0.01, 0.02, 0.04, 0.05, 0.08, 1000.0])
    stage_one = normalization_affine(layer, 1)[0]
    ql.set_stage(layer, 2)
    x = np.eye(6, dtype=np.float32)
    multiplier = np.diag(layer(x).numpy() - layer(np.zeros_like(x)).numpy()) / layer.gamma.numpy()
    error = np.abs(multiplier / (stage_one / layer.gamma.numpy()) - 1)[:5].max()
    assert (error < 0.05) == (scaling == "channel")


@pytest.mark.parametrize("frozen", ["normalization", "layer"])
def test_frozen_uses_and_keeps_the_moving_statistics(frozen):
    layer = ql.QuantDense(4, kernel_quantizer=Tanh(4), normalization=ql.QuantBatchNormalization())
    x = np.random.default_rng(3).normal(2, 3, (20, 5)).astype(np.float32)
    layer(x, training=True)
    (layer if frozen == "layer" else layer.normalization).trainable = False
    before = layer.normalization.moving_mean.numpy()
    np.testing.assert_allclose(layer(x, training=True), layer(x, training=False), rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(layer.normalization.moving_mean.numpy(), before)
    assert len(layer.trainable_weights) == (0 if frozen == "layer" else 3)


def test_frozen_on_its_own():
    norm = random_norm()
    norm.trainable = False
    x = np.random.default_rng(4).normal(5, 2, (8, 6)).astype(np.float32)
    before = norm.moving_mean.numpy()
    np.testing.assert_array_equal(norm(x, training=True), norm(x, training=False))
    np.testing.assert_array_equal(norm.moving_mean.numpy(), before)


@pytest.mark.parametrize(
    ("arguments", "message"), [({"bits": 1}, "bits must be 2 to 16"), ({"scaling": "row"}, "scaling must be 'channel'")]
)
def test_bad_arguments_name_the_layer(arguments, message):
    with pytest.raises(ValueError, match=f"wrong: {message}"):
        ql.QuantBatchNormalization(name="wrong", **arguments)


def test_unknown_channels_are_refused():
    with pytest.raises(ValueError, match="the number of channels, the last dimension, must be known"):
        ql.QuantBatchNormalization().build((3, None))

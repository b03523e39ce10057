"""The convolutions against the stock ones, and what they deploy against float64 arithmetic."""

import numpy as np
import pytest
import tensorflow as tf
from fold_oracle import deployed
from modes import MODES
from signatures import parameters

from subbyte import keras_layers as ql
from subbyte.keras_layers.quantizers import Linear, Tanh

keras, layers = tf.keras, tf.keras.layers
RNG = np.random.default_rng

STOCK = {
    ql.QuantConv1D: layers.Conv1D,
    ql.QuantConv2D: layers.Conv2D,
    ql.QuantDepthwiseConv1D: layers.DepthwiseConv1D,
    ql.QuantDepthwiseConv2D: layers.DepthwiseConv2D,
    ql.QuantSeparableConv1D: layers.SeparableConv1D,
    ql.QuantSeparableConv2D: layers.SeparableConv2D,
}

#: (layer, arguments, input shape)
WINDOWS = [
    (ql.QuantConv1D, {"filters": 5, "kernel_size": 3}, (2, 11, 4)),
    (ql.QuantConv1D, {"filters": 5, "kernel_size": 9, "padding": "causal"}, (2, 11, 3)),
    (ql.QuantConv1D, {"filters": 5, "kernel_size": 4, "padding": "same", "strides": 3}, (2, 11, 3)),
    (ql.QuantConv1D, {"filters": 6, "kernel_size": 2, "padding": "causal", "dilation_rate": 3}, (2, 11, 3)),
    (ql.QuantConv1D, {"filters": 6, "kernel_size": 2, "padding": "causal", "strides": 2}, (2, 11, 3)),
    (ql.QuantConv2D, {"filters": 5, "kernel_size": 1, "strides": 2}, (2, 6, 7, 3)),
    (ql.QuantConv2D, {"filters": 5, "kernel_size": (3, 2), "padding": "SAME", "strides": (2, 1)}, (2, 6, 7, 3)),
    (ql.QuantConv2D, {"filters": 4, "kernel_size": 5, "padding": "same"}, (2, 6, 7, 1)),
    (ql.QuantConv2D, {"filters": 4, "kernel_size": 2, "dilation_rate": (2, 3)}, (2, 6, 7, 3)),
    (ql.QuantConv2D, {"filters": 6, "kernel_size": 3, "groups": 2}, (2, 6, 7, 4)),
    (ql.QuantDepthwiseConv1D, {"kernel_size": 5, "strides": 2, "padding": "same"}, (2, 12, 3)),
    (ql.QuantDepthwiseConv1D, {"kernel_size": 2, "depth_multiplier": 2, "dilation_rate": 3}, (2, 11, 3)),
    (ql.QuantDepthwiseConv2D, {"kernel_size": 3, "padding": "same"}, (2, 6, 7, 5)),
    (ql.QuantDepthwiseConv2D, {"kernel_size": (3, 2), "strides": 2, "depth_multiplier": 3}, (2, 6, 7, 2)),
    (ql.QuantDepthwiseConv2D, {"kernel_size": 2, "dilation_rate": 2}, (2, 6, 7, 1)),
]  # fmt: skip


@pytest.fixture(autouse=True)
def seeded():
    keras.utils.set_random_seed(0)


def built(layer, shape, seed=0):
    """`layer`, built, with random values in all its vectors."""
    layer.build(shape)
    rng, norm = RNG(seed), layer.normalization
    if layer.gain is not None:
        layer.gain.assign(rng.uniform(0.2, 0.7, layer.gain.shape))
    if norm is not None:
        norm.moving_variance.assign(rng.uniform(0.01, 4, norm.moving_variance.shape))
    for variable in (layer.bias, *(() if norm is None else (norm.gamma, norm.beta, norm.moving_mean))):
        if variable is not None:
            variable.assign(rng.normal(0, 1, variable.shape))
    return layer


def on_a_grid(shape, seed=0):
    """Inputs as an activation quantizer gives them: multiples of 1/32."""
    return (RNG(seed).integers(-128, 128, shape) / 32).astype(np.float32)


def product(layer, x, codes):
    """Sums of a layer's windows in float64, by the stock layer, one group at a time."""
    kernel = codes.reshape(layer.kernel.shape)
    config = {"use_bias": False, "dtype": "float64"}
    for name in ("kernel_size", "strides", "padding", "dilation_rate", "filters", "groups", "depth_multiplier"):
        if hasattr(layer, name):
            config[name] = getattr(layer, name)
    groups = config.pop("groups", 1)
    outputs = []
    for part, weights in zip(np.split(x, groups, -1), np.split(kernel, groups, -1), strict=True):
        config |= {"filters": weights.shape[-1]} if "filters" in config else {}
        stock = STOCK[type(layer)](**config)
        stock.build(part.shape)
        stock.set_weights([weights])
        outputs.append(stock(part.astype(np.float64)).numpy())
    return np.concatenate(outputs, -1)


def exported(layer):
    """Codes [..., output channels], and the step."""
    latent = layer.kernel.numpy().astype(np.float64)
    if isinstance(layer, ql.QuantDepthwiseConv1D | ql.QuantDepthwiseConv2D):
        latent = latent.reshape(*latent.shape[:-2], -1)
    return layer.kernel_quantizer.weights(latent).numpy(), layer.kernel_quantizer.step(latent).numpy()


@pytest.mark.parametrize("ours", STOCK)
def test_signature_is_that_of_the_stock_layer(ours):
    stock, mine = parameters(STOCK[ours]), parameters(ours)
    positional = [p.name for p in mine.values() if p.kind is p.POSITIONAL_OR_KEYWORD]
    assert positional == [name for name, p in stock.items() if p.kind is p.POSITIONAL_OR_KEYWORD]
    alike = {(1, 1): 1, "channels_last": None}
    different = {n for n in positional if mine[n].default != alike.get(stock[n].default, stock[n].default)}
    # The quantizer's.
    assert all(name.endswith(("_initializer", "_regularizer")) and not name.startswith("bias") for name in different)
    assert len(different) == (4 if "Separable" in ours.__name__ else 2)


@pytest.mark.parametrize(("ours", "arguments", "shape"), WINDOWS)
def test_close_to_the_stock_layer_with_8_bits(ours, arguments, shape):
    stock = STOCK[ours](
        activation="tanh",
        bias_initializer="random_normal",
        **arguments | {"padding": arguments.get("padding", "valid").lower()},
    )
    x = RNG(0).normal(size=shape).astype(np.float32)
    expected = stock(x)
    layer = ours(kernel_quantizer=Linear(8), gain=None, **arguments)
    layer.build(shape)
    layer.set_weights([*stock.get_weights(), *layer.get_weights()[2:]])
    assert tuple(layer.compute_output_shape(shape)) == expected.shape
    assert layer.compute_output_shape((None, *[None] * layer.rank, shape[-1]))[-1] == expected.shape[-1]
    for stage in (1, 2):
        ql.set_stage(layer, stage)
        for training in (True, False):
            # Up to 45 products with errors of half a step of 1/127 of about 0.5, behind them the bias's 8 bits.
            np.testing.assert_allclose(tf.tanh(layer(x, training=training)), expected, atol=0.04)


@pytest.mark.parametrize(("ours", "arguments", "shape"), WINDOWS)
@pytest.mark.parametrize(
    ("quantizer", "normalization", "gain"),
    [
        (Tanh(1), None, "channel"),
        (Linear(3, "bin_centre"), ql.QuantBatchNormalization, "scalar"),
        (Linear(8), lambda: ql.QuantBatchNormalization(scaling="layer", bits=6), None),
    ],
    ids=["sign", "odd", "8 bits"],
)
def test_stage_two_is_the_integer_formula(ours, arguments, shape, quantizer, normalization, gain):
    norm = normalization and normalization()
    layer = built(ours(kernel_quantizer=quantizer, gain=gain, normalization=norm, **arguments), shape)
    ql.set_stage(layer, 2)
    codes, scale, bias = deployed(layer, *exported(layer))
    x = on_a_grid(shape)
    expected = (product(layer, x, codes) + bias / 16).astype(np.float32) * scale.astype(np.float32)
    for mode in MODES.values():
        np.testing.assert_array_equal(mode(lambda x: layer(x, training=False))(x), expected)
    # Where no batch statistics come in, training computes the same but for float32's last bits.
    layer.trainable = False
    np.testing.assert_allclose(layer(x, training=True), expected, rtol=1e-4, atol=1e-3 * np.abs(expected).max())


@pytest.mark.parametrize(
    ("ours", "arguments", "shape"),
    [
        (ql.QuantConv2D, {"filters": 3, "kernel_size": 3}, (1, 5, 5, 2000)),
        (ql.QuantDepthwiseConv2D, {"kernel_size": 24}, (1, 25, 25, 2)),
    ],
)
def test_wide_windows_accumulate_exactly(ours, arguments, shape):
    # 8-bit codes times 8-bit inputs: past 2^24 float32 no longer counts in ones.
    layer = ours(kernel_quantizer=Linear(8), gain=None, use_bias=False, **arguments)
    layer.build(shape)
    layer.kernel.assign(RNG(1).uniform(0.9, 1, layer.kernel.shape))
    ql.set_stage(layer, 2)
    x = (RNG(2).integers(248, 256, shape) / 16).astype(np.float32)
    codes, scale, _ = deployed(layer, *exported(layer))
    sums = product(layer, x, codes)
    assert (sums * 16 > 2**24).all()
    np.testing.assert_array_equal(layer(x), sums.astype(np.float32) * scale.astype(np.float32))


@pytest.mark.parametrize(("ours", "arguments", "shape"), WINDOWS)
def test_stage_one_is_the_stock_layer_and_batch_normalization(ours, arguments, shape):
    layer = built(ours(kernel_quantizer=Tanh(4), normalization=ql.QuantBatchNormalization(0.8), **arguments), shape)
    codes, step = exported(layer)
    stock = layers.BatchNormalization(momentum=0.8)
    stock.build(layer.compute_output_shape(shape))
    stock.set_weights([v.numpy() for v in layer.normalization.weights[:4]])
    x = RNG(3).normal(0, 1, shape).astype(np.float32)
    moving = layer.normalization.moving_variance.numpy()
    inside = layer.gain.numpy() * (step * product(layer, x, codes) + layer.bias.numpy())
    # Inference first: training moves the statistics, in tf-keras with Bessel's correction for images.
    for training in (False, True):
        expected = stock(inside.astype(np.float32), training=training)
        np.testing.assert_allclose(layer(x, training=training), expected, rtol=1e-3, atol=1e-4)
    moving = 0.8 * moving + 0.2 * inside.var(axis=tuple(range(len(shape) - 1)))
    np.testing.assert_allclose(layer.normalization.moving_variance, moving, rtol=1e-4)


@pytest.mark.parametrize(("ours", "arguments", "shape"), WINDOWS)
@pytest.mark.parametrize("stage", [1, 2])
def test_every_weight_gets_a_gradient(ours, arguments, shape, stage):
    layer = built(ours(kernel_quantizer=Tanh(4), **arguments), shape)
    ql.set_stage(layer, stage)
    x = RNG(4).normal(0, 1, shape).astype(np.float32)
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(layer(x, training=True) ** 3)
    variables = [v if isinstance(v, tf.Variable) else v.value for v in layer.trainable_variables]
    for variable, gradient in zip(variables, tape.gradient(loss, variables), strict=True):
        assert np.isfinite(gradient).all()
        assert np.any(gradient != 0), variable.name


def test_causal_windows_do_not_see_the_future():
    layer = ql.QuantSeparableConv1D(4, 3, padding="causal", dilation_rate=2)
    x = RNG(5).normal(size=(1, 12, 3)).astype(np.float32)
    changed = x.copy()
    changed[:, 7] += 1
    same = np.all(layer(x).numpy() == layer(changed).numpy(), axis=(0, 2))
    assert same[:7].all()
    assert not same[[7, 9, 11]].any()


@pytest.mark.parametrize("rank", [1, 2])
def test_a_separable_layer_is_its_two_convolutions(rank):
    ours, depthwise, pointwise = (
        (ql.QuantSeparableConv1D, ql.QuantDepthwiseConv1D, ql.QuantConv1D)
        if rank == 1
        else (ql.QuantSeparableConv2D, ql.QuantDepthwiseConv2D, ql.QuantConv2D)
    )
    between = ql.ClippedReLU(2.0)
    layer = ours(5, 3, 2, depth_multiplier=2, depthwise_quantizer=Tanh(4), depthwise_activation=between,
                 pointwise_quantizer=Tanh(2), normalization=ql.QuantBatchNormalization())  # fmt: skip
    x = on_a_grid((4, *[9] * rank, 3))
    assert tuple(layer.compute_output_shape(x.shape)) == layer(x).shape
    chain = keras.Sequential([
        keras.Input(x.shape[1:]),
        depthwise(3, 2, depth_multiplier=2, use_bias=False, kernel_quantizer=Tanh(4)),
        ql.ClippedReLU(2.0),
        pointwise(5, 1, kernel_quantizer=Tanh(2), normalization=ql.QuantBatchNormalization()),
    ])  # fmt: skip
    for part, twin in zip((layer.depthwise, between, layer.pointwise), chain.layers, strict=True):
        twin.set_weights(part.get_weights())
    for stage in (1, 2):
        for model in (layer, chain):
            ql.set_stage(model, stage)
        np.testing.assert_array_equal(layer(x), chain(x))
        np.testing.assert_allclose(layer(x, training=True), chain(x, training=True), rtol=1e-5, atol=1e-6)


def small_model():
    parts = [
        # Batch statistics take gain and bias away again.
        ql.QuantConv2D(4, 3, use_bias=False, gain=None, normalization=ql.QuantBatchNormalization(0.7)),
        ql.ClippedReLU(4.0),
        ql.QuantDepthwiseConv2D(3, padding="same", kernel_quantizer=Linear(5), gain="channel"),
        ql.QuantActivation(4.0),
        ql.QuantSeparableConv2D(5, 2, pointwise_quantizer=Tanh(4), depthwise_activation=ql.QuantActivation(2.0)),
        ql.ClippedReLU(4.0),
        layers.Reshape((9, 5)),
        ql.QuantConv1D(3, 3, padding="causal"),
        ql.QuantActivation(4.0),
    ]
    return keras.Sequential([keras.Input((6, 6, 2)), ql.QuantInput(4.0), *parts])


def test_a_trained_model_is_the_same_however_it_runs_and_when_it_is_loaded(tmp_path):
    x = RNG(6).normal(0, 1.5, (40, 6, 6, 2)).astype(np.float32)
    model = small_model()
    model.compile("adam", "mse")
    before = [v.numpy() for v in model.trainable_variables]
    # Batches that divide 40: TensorFlow traces the model again for a last one of another size.
    y = np.zeros((40, 9, 3), np.float32)
    model.fit(x, y, batch_size=20, epochs=2, verbose=0, callbacks=[ql.TwoStage(1)])
    assert all(np.any(v.numpy() != old) for v, old in zip(model.trainable_variables, before, strict=True))
    assert ql.stage_of(model) == 2
    expected = model(x, training=False).numpy()
    assert len(np.unique(expected)) > 20
    np.testing.assert_array_equal(model.predict(x, batch_size=5, verbose=0), expected)
    np.testing.assert_array_equal(tf.function(model, jit_compile=True)(x), expected)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert ql.stage_of(loaded) == 2
    np.testing.assert_array_equal(loaded(x, training=False), expected)


@pytest.mark.parametrize(
    "layer",
    [
        ql.QuantConv1D(3, 2),
        ql.QuantConv2D(
            6, (3, 2), (2, 1), "same", None, 1, 3, "linear", False, "he_normal", "ones", "l2", "l1", "l1", "non_neg",
            "unit_norm", kernel_quantizer=Tanh(3, "bin_centre"), gain="channel", parameter_bits=5, bias_resolution=4,
            normalization=ql.QuantBatchNormalization(0.9), name="conv_a",
        ),
        ql.QuantDepthwiseConv1D(3, padding="causal"),
        ql.QuantDepthwiseConv2D(
            3, 1, "same", 2, None, 2, "linear", False, "he_normal", "ones", "l2", "l1", "l1", "non_neg", "unit_norm",
            kernel_quantizer=Tanh(3), name="depthwise_a",
        ),
        ql.QuantSeparableConv1D(3, 2),
        ql.QuantSeparableConv2D(
            6, 3, 1, "same", None, 2, 2, "linear", False, "he_normal", "zeros", "ones", "l2", "l1", "l2", "l1",
            "non_neg", "unit_norm", "non_neg", depthwise_quantizer=Tanh(3), depthwise_activation=ql.ClippedReLU(2.0),
            pointwise_quantizer=Tanh(2), gain=None, normalization=ql.QuantBatchNormalization(0.9), name="separable_a",
        ),
    ],
    ids=lambda layer: layer.name,
)  # fmt: skip
def test_config_makes_the_same_layer(layer):
    again = type(layer).from_config(layer.get_config())
    assert again.get_config() == layer.get_config()
    # Every argument of the signature is there; the attributes of the deployment stand for it.
    assert set(parameters(type(layer))) - {"deployment", "kwargs"} <= set(layer.get_config())


CONV, DEPTHWISE = {"filters": 4, "kernel_size": 3}, {"kernel_size": 3}


@pytest.mark.parametrize(
    ("ours", "arguments", "message"),
    [
        (ql.QuantConv2D, {**CONV, "filters": 0}, "filters must be a positive integer, not 0"),
        (ql.QuantConv2D, {**CONV, "kernel_size": (3, 3, 3)}, "kernel_size must be 2 positive integers, not"),
        (ql.QuantConv1D, {**CONV, "strides": 0}, "strides must be 1 positive integers, not 0"),
        (ql.QuantConv1D, {**CONV, "padding": "full"}, "padding must be one of valid, same, causal, not 'full'"),
        (ql.QuantConv2D, {**CONV, "padding": "causal"}, "padding must be one of valid, same, not 'causal'"),
        (ql.QuantConv2D, {**CONV, "data_format": "channels_first"}, "data_format must be 'channels_last'"),
        (ql.QuantConv2D, {**CONV, "strides": 2, "dilation_rate": 2}, "strides .* cannot both be above"),
        (ql.QuantDepthwiseConv1D, {**DEPTHWISE, "strides": 2, "dilation_rate": 2}, "strides .* cannot both be above"),
        (ql.QuantConv2D, {**CONV, "groups": 3}, "4 filters do not fall into 3 equal groups"),
        (ql.QuantDepthwiseConv2D, {**DEPTHWISE, "depth_multiplier": 0}, "depth_multiplier must be a positive integer"),
        (ql.QuantDepthwiseConv2D, {**DEPTHWISE, "gain": "row"}, "gain must be 'scalar', 'channel' or None"),
    ],
)  # fmt: skip
def test_bad_arguments_name_the_layer(ours, arguments, message):
    with pytest.raises(ValueError, match=f"^wrong: {message}") as raised:
        ours(name="wrong", **arguments)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("layer", "shape", "message"),
    [
        (lambda: ql.QuantConv2D(4, 3, groups=2, name="wrong"), (1, 5, 5, 3), "wrong: 3 input channels do not"),
        (lambda: ql.QuantConv2D(4, 3, name="wrong"), (1, 5, 2, 3), "wrong: an input of size 2 is smaller"),
        (lambda: ql.QuantConv1D(4, 3, name="wrong"), (1, 5, 5, 3), "wrong.* expected ndim=3, found ndim=4"),
    ],
)  # fmt: skip
def test_inputs_that_do_not_fit_are_refused(layer, shape, message):
    with pytest.raises(ValueError, match=message):
        layer()(np.zeros(shape, np.float32))


def test_another_number_of_channels_is_refused():
    layer = ql.QuantConv2D(4, 3)
    layer(np.zeros((1, 5, 5, 2), np.float32))
    with pytest.raises(ValueError, match="expected axis -1"):
        layer(np.zeros((1, 5, 5, 4), np.float32))


def test_what_passes_between_separable_convolutions_must_be_quantized():
    with pytest.raises(TypeError, match="wrong: depthwise_activation must be a QuantActivation or ClippedReLU"):
        ql.QuantSeparableConv2D(4, 3, depthwise_activation=layers.ReLU(), name="wrong")

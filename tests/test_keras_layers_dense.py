"""QuantDense against stock Dense, and what it deploys against plain numpy."""

import numpy as np
import pytest
import tensorflow as tf
from fold_oracle import deployed
from signatures import parameters

from subbyte import keras_layers as ql
from subbyte.keras_layers.quantizers import Linear, Tanh

# Arguments of Keras 3's Dense alone.
KERAS_3_ONLY = {"lora_rank", "lora_alpha", "quantization_config"}
RNG = np.random.default_rng


@pytest.fixture(autouse=True)
def seeded():
    tf.keras.utils.set_random_seed(0)


def built(layer, inputs=12, seed=0):
    """`layer`, built, with random values in all its vectors."""
    layer.build((None, inputs))
    rng = RNG(seed)
    if layer.bias is not None:
        layer.bias.assign(rng.normal(0, 2, layer.units))
    if layer.gain is not None:
        layer.gain.assign(rng.uniform(0.2, 0.7, layer.gain.shape))
    if (norm := layer.normalization) is not None:
        norm.moving_mean.assign(rng.normal(0, 1, layer.units))
        norm.moving_variance.assign(rng.uniform(0.01, 4, layer.units))
        if norm.gamma is not None:
            norm.gamma.assign(rng.normal(0, 1, layer.units))
        if norm.beta is not None:
            norm.beta.assign(rng.normal(0, 1, layer.units))
    return layer


def exported(layer):
    latent = tf.constant(layer.kernel.numpy(), tf.float64)
    return layer.kernel_quantizer.weights(latent).numpy(), layer.kernel_quantizer.step(latent).numpy()


def test_signature_is_that_of_stock_dense():
    stock = parameters(tf.keras.layers.Dense)
    ours = parameters(ql.QuantDense)
    positional = [p.name for p in ours.values() if p.kind is p.POSITIONAL_OR_KEYWORD]
    assert positional == [n for n, p in stock.items() if p.kind is p.POSITIONAL_OR_KEYWORD and n not in KERAS_3_ONLY]
    different = {name for name in positional if ours[name].default != stock[name].default}
    assert different == {"kernel_initializer", "kernel_regularizer"}  # the quantizer's


@pytest.mark.parametrize("shape", [(7, 12), (3, 5, 12), (2, 3, 4, 12)])
@pytest.mark.parametrize("use_bias", [True, False])
@pytest.mark.parametrize("training", [True, False])
def test_close_to_stock_dense_with_8_bits(shape, use_bias, training):
    stock = tf.keras.layers.Dense(9, activation="tanh", use_bias=use_bias, bias_initializer="random_normal")
    x = RNG(0).normal(size=shape).astype(np.float32)
    expected = stock(x)
    layer = ql.QuantDense(9, None, use_bias, kernel_quantizer=Linear(8), gain=None)
    layer.build(shape)
    layer.set_weights([*stock.get_weights(), *layer.get_weights()[1 + use_bias :]])
    assert layer.compute_output_shape(shape) == (*shape[:-1], 9)
    for stage in (1, 2):
        ql.set_stage(layer, stage)
        outputs = tf.tanh(layer(x, training=training))
        # 12 products with errors of half a step of 1/127 of about 0.5, behind them the bias's 8 bits.
        np.testing.assert_allclose(outputs, expected, atol=0.03)
        assert outputs.shape == (*shape[:-1], 9)


@pytest.mark.parametrize("gain", ["scalar", "channel", None])
@pytest.mark.parametrize("training", [True, False])
def test_gain_stands_outside_the_bracket(gain, training):
    layer = built(ql.QuantDense(4, kernel_quantizer=Tanh(3), gain=gain))
    assert (layer.gain is None) == (gain is None)
    factor = 1.0 if gain is None else layer.gain.numpy()
    assert np.shape(factor) == ((4,) if gain == "channel" else ())
    x = RNG(1).normal(size=(6, 12)).astype(np.float32)
    codes, step = exported(layer)
    expected = factor * (step * (x @ codes) + layer.bias.numpy())
    np.testing.assert_allclose(layer(x, training=training), expected, rtol=1e-5, atol=1e-6)


NORMALIZATIONS = {
    "none": lambda: None,
    "channel": lambda: ql.QuantBatchNormalization(),
    "layer": lambda: ql.QuantBatchNormalization(scaling="layer", bits=6),
    "plain": lambda: ql.QuantBatchNormalization(scaling=None, center=False),
    "unscaled": lambda: ql.QuantBatchNormalization(scale=False),
}


@pytest.mark.parametrize("normalization", NORMALIZATIONS)
@pytest.mark.parametrize("quantizer", [Tanh(1), Tanh(4), Linear(3, "bin_centre"), Linear(8)])
@pytest.mark.parametrize("gain", ["scalar", "channel", None])
def test_stage_two_is_the_integer_formula(normalization, quantizer, gain):
    norm = NORMALIZATIONS[normalization]()
    layer = built(ql.QuantDense(10, kernel_quantizer=quantizer, gain=gain, normalization=norm), inputs=21)
    ql.set_stage(layer, 2)
    codes, scale, bias = deployed(layer, *exported(layer))
    # Inputs on an activation quantizer's grid: multiples of 1/32.
    x = (RNG(2).integers(-128, 128, (50, 21)) / 32).astype(np.float32)
    sums = x.astype(np.float64) @ codes + bias / 16
    expected = sums.astype(np.float32) * scale.astype(np.float32)
    np.testing.assert_array_equal(layer(x, training=False), expected)
    # Where no batch statistics come in, training computes the same but for float32's last bits.
    layer.trainable = False
    np.testing.assert_allclose(layer(x, training=True), expected, rtol=1e-4, atol=1e-3 * np.abs(expected).max())


@pytest.mark.parametrize("spread", [0.3, 3.0])
@pytest.mark.parametrize("resolution", [0.25, 2.0])
@pytest.mark.parametrize("scale_bits", [1, 3, 4, 7])
def test_scales_of_few_bits(scale_bits, resolution, spread):
    """Scales of 2 + scale_bits bits, and biases of what 16 bits have left, with room for as much again."""
    arguments = {"normalization": ql.QuantBatchNormalization(), "bias_resolution": resolution, "scale_bits": scale_bits}
    layer = built(ql.QuantDense(300, kernel_quantizer=Tanh(4), **arguments), inputs=21)
    layer.normalization.gamma.assign(np.exp(RNG(8).normal(0, spread, 300)) * RNG(9).choice([-1, 1], 300))
    layer.normalization.beta.assign(RNG(10).normal(0, spread, 300))
    ql.set_stage(layer, 2)
    codes, scale, bias = deployed(layer, *exported(layer))
    x = (RNG(11).integers(-128, 128, (50, 21)) / 32).astype(np.float32)
    sums = x.astype(np.float64) @ codes + bias / resolution
    np.testing.assert_array_equal(layer(x, training=False), sums.astype(np.float32) * scale.astype(np.float32))
    bits = scale.astype(np.float32).view(np.uint32)
    steps = bits - bits.min()
    assert (steps % (1 << 23 - scale_bits) == 0).all()
    assert steps.max() >> 23 - scale_bits < 2 ** (2 + scale_bits)
    # The smallest scale for an offset is rounded: down by half a step at most.
    assert np.abs(bias).max() <= 2 ** (12 - scale_bits) * (1 + 2.0**-scale_bits)


@pytest.mark.parametrize("gamma", [0.0, 1e-12, -1e-12, 1e-4, -3.0])
@pytest.mark.parametrize("variance", [0.0, 1e-9, 1e9])
def test_extreme_channels_stay_finite_and_keep_their_offset(gamma, variance):
    layer = built(ql.QuantDense(3, kernel_quantizer=Tanh(4), normalization=ql.QuantBatchNormalization()))
    layer.normalization.gamma.assign([gamma, gamma, 1.0])
    layer.normalization.moving_variance.assign([variance, 1.0, 1.0])
    x = (RNG(3).integers(-128, 128, (9, 12)) / 32).astype(np.float32)
    for stage in (1, 2):
        ql.set_stage(layer, stage)
        outputs = layer(x, training=False).numpy()
        assert np.isfinite(outputs).all()
        if abs(gamma) <= 1e-12:
            beta = layer.normalization.beta.numpy()
            # beta in 8 bits of its range, and products below what an output of 8 bits resolves.
            np.testing.assert_allclose(outputs[:, 1], beta[1], atol=2.0**-6)
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(layer(x, training=True) ** 2)
    for gradient in tape.gradient(loss, layer.trainable_weights):
        assert np.isfinite(gradient).all()


def test_a_gamma_of_zero_can_leave_it_in_stage_two():
    layer = built(ql.QuantDense(3, kernel_quantizer=Tanh(4), normalization=ql.QuantBatchNormalization()))
    layer.normalization.gamma.assign([0.0, 1.0, -1.0])
    ql.set_stage(layer, 2)
    x = RNG(4).normal(size=(30, 12)).astype(np.float32)
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(layer(x, training=True) ** 3)
    gradient = tape.gradient(loss, layer.normalization.gamma if hasattr(layer.normalization.gamma, "handle")
                             else layer.normalization.gamma.value)  # fmt: skip
    assert (np.abs(gradient) > 0).all()


@pytest.mark.parametrize("kind", [Tanh, Linear])
@pytest.mark.parametrize("bits", range(1, 9))
def test_a_fresh_layer_keeps_the_variance_of_activations(kind, bits):
    layer = ql.QuantDense(256, kernel_quantizer=kind(bits))
    outputs = layer(RNG(5).standard_normal((200, 256), np.float32), training=True).numpy()
    # He et al.: sqrt(2) in front of a ReLU. Stock Dense has 1 in a square layer.
    assert np.sqrt(2) / 2 < outputs.std() < np.sqrt(2) * 2


def test_arguments_of_the_kernel_act_on_the_latent_kernel():
    layer = ql.QuantDense(
        4, kernel_initializer="ones", kernel_regularizer="l1", kernel_constraint="non_neg", bias_constraint="non_neg",
        kernel_quantizer=Tanh(4), bias_regularizer="l2", activity_regularizer="l2",
    )  # fmt: skip
    layer(np.ones((1, 3), np.float32))
    assert (layer.kernel.numpy() == 1).all()
    assert len(layer.losses) == 3
    assert layer.kernel_constraint is not None
    assert layer.bias_constraint is not None
    plain = ql.QuantDense(4, kernel_quantizer=Tanh(4, sigma=0.5))
    plain.build((None, 300))
    assert plain.kernel.numpy().std() == pytest.approx(0.5, rel=0.1)
    assert isinstance(plain.kernel_regularizer, ql.TargetDistribution)
    assert plain.kernel_regularizer.sigma == 0.5


def test_wide_layers_accumulate_exactly():
    # 8-bit codes times 8-bit inputs: past 2^24 float32 no longer counts in ones.
    layer = ql.QuantDense(20, kernel_quantizer=Linear(8), gain=None, use_bias=False)
    layer.build((None, 9000))
    layer.kernel.assign(RNG(6).uniform(0.5, 1, (9000, 20)))
    ql.set_stage(layer, 2)
    x = (RNG(7).integers(64, 128, (30, 9000)) / 16).astype(np.float32)
    codes, scale, _ = deployed(layer, *exported(layer))
    sums = x.astype(np.float64) @ codes
    assert (sums * 16 > 2**24).all()
    np.testing.assert_array_equal(layer(x), sums.astype(np.float32) * scale.astype(np.float32))


@pytest.mark.parametrize(
    "layer",
    [
        ql.QuantDense(3),
        ql.QuantDense(
            5, "linear", False, "he_normal", "ones", "l2", "l1", "l1", "non_neg", "unit_norm",
            kernel_quantizer=Tanh(3, "bin_centre", sigma=0.9), gain="channel", parameter_bits=5, bias_resolution=4,
            scale_bits=5,
            normalization=ql.QuantBatchNormalization(0.9, 1e-5, False, False, 6, "layer"), name="dense_a",
        ),
    ],
)  # fmt: skip
def test_config_makes_the_same_layer(layer):
    again = type(layer).from_config(layer.get_config())
    assert again.get_config() == layer.get_config()
    assert again.normalization is not layer.normalization or layer.normalization is None


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"units": 0}, ValueError, "units must be a positive integer, not 0"),
        ({"units": True}, ValueError, "units must be"),
        ({"gain": "row"}, ValueError, "gain must be 'scalar', 'channel' or None, not 'row'"),
        ({"parameter_bits": 1}, ValueError, "parameter_bits must be 2 to 16"),
        ({"bias_resolution": 3}, ValueError, "bias_resolution must be a power of two"),
        ({"scale_bits": 9}, ValueError, "scale_bits must be 1 to 8, not 9"),
        ({"kernel_quantizer": "tanh"}, TypeError, "must be a quantizer such as"),
    ],
)
def test_bad_arguments_name_the_layer(arguments, error, message):
    with pytest.raises(error, match=message):
        ql.QuantDense(**{"units": 3, "name": "wrong", **arguments})


def test_stock_batch_normalization_is_refused_with_the_mend():
    with pytest.raises(TypeError, match="goes behind the layer"):
        ql.QuantDense(3, normalization=tf.keras.layers.BatchNormalization())


def test_unknown_inputs_are_refused():
    with pytest.raises(ValueError, match="the number of inputs, the last dimension, must be known"):
        ql.QuantDense(3).build((None, None))


LAYERS = {
    "dense": lambda **arguments: ql.QuantDense(2, **arguments),
    "relu": lambda **arguments: ql.ClippedReLU(4.0, **arguments),
    "normalization": lambda **arguments: ql.QuantBatchNormalization(**arguments),
    "separable": lambda **arguments: ql.QuantSeparableConv1D(2, 1, **arguments),
}


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
@pytest.mark.parametrize("name", LAYERS)
def test_layers_compute_in_float32_under_mixed_precision(name, policy):
    x = RNG(0).normal(size=(2, 5, 3)).astype(np.float16)
    expected = LAYERS[name]()
    outputs = expected(x.astype(np.float32))
    tf.keras.mixed_precision.set_global_policy(policy)
    try:
        by_global = LAYERS[name]()
    finally:
        tf.keras.mixed_precision.set_global_policy("float32")
    for layer in (by_global, LAYERS[name](dtype=policy)):
        assert layer(x).dtype == tf.float32
        layer.set_weights(expected.get_weights())
        np.testing.assert_array_equal(layer(x), outputs)
        assert type(layer).from_config(layer.get_config()).compute_dtype == "float32"


@pytest.mark.parametrize("name", ["dense", "relu", "normalization"])
def test_half_floats_that_are_asked_for_are_refused(name):
    with pytest.raises(ValueError, match="give it dtype='float32'"):
        LAYERS[name](dtype="float16")(tf.zeros((1, 3)))


@pytest.mark.parametrize(
    "make",
    [
        lambda activation: ql.QuantDense(3, activation, name="mine"),
        lambda activation: ql.QuantConv1D(3, 2, activation=activation, name="mine"),
        lambda activation: ql.QuantConv2D(3, 2, activation=activation, name="mine"),
        lambda activation: ql.QuantDepthwiseConv1D(2, activation=activation, name="mine"),
        lambda activation: ql.QuantDepthwiseConv2D(2, activation=activation, name="mine"),
        lambda activation: ql.QuantSeparableConv1D(3, 2, activation=activation, name="mine"),
        lambda activation: ql.QuantSeparableConv2D(3, 2, activation=activation, name="mine"),
    ],
)
def test_an_activation_as_an_argument_is_told_where_to_go(make):
    for none in (None, "linear", tf.keras.activations.linear):
        assert make(none).get_config()["activation"] == "linear"
    for activation, mend in {
        "relu": "put ClippedReLU(max_value) behind the layer",
        tf.nn.relu6: "put ClippedReLU(6.0) behind the layer",
        tf.keras.layers.ReLU(): "put ClippedReLU(max_value) behind the layer",
        "tanh": "put QuantActivation(max_value), and tf.keras.layers.Activation('tanh') behind that, behind the layer",
        "unheard": "Activation('unheard')",
        ql.ClippedReLU(4.0): "put that ClippedReLU behind the layer",
    }.items():
        with pytest.raises(ValueError, match=r"^mine: activation=\S+ needs a range: leave it out") as caught:
            make(activation)
        assert mend in str(caught.value)
        assert "\n" not in str(caught.value)

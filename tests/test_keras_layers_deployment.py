"""How layers ship: the attributes of `Deployment` in every layer, and bits that are chosen after building."""

import dataclasses
import json

import numpy as np
import pytest
import tensorflow as tf

from subbyte import converter
from subbyte import keras_layers as ql
from subbyte.keras_layers.quantizers import Linear, Tanh

keras = tf.keras

LAYERS = {
    ql.QuantDense: ((3,), (1, 4)),
    ql.QuantConv1D: ((3, 2), (1, 6, 4)),
    ql.QuantConv2D: ((3, 2), (1, 6, 6, 4)),
    ql.QuantDepthwiseConv1D: ((2,), (1, 6, 4)),
    ql.QuantDepthwiseConv2D: ((2,), (1, 6, 6, 4)),
    ql.QuantSeparableConv1D: ((3, 2), (1, 6, 4)),
    ql.QuantSeparableConv2D: ((3, 2), (1, 6, 6, 4)),
}
#: A value of each attribute that is not its default.
OTHERS = {
    "gain": "channel",
    "parameter_bits": 5,
    "bias_resolution": 4.0,
    "scale_bits": 3,
    "keep_zeros": True,
    "input_bits": 16,
}


def test_every_attribute_is_tried():
    defaults = dataclasses.asdict(ql.Deployment())
    assert set(OTHERS) == set(defaults)
    assert all(OTHERS[name] != value for name, value in defaults.items())


@pytest.mark.parametrize("attribute", OTHERS)
@pytest.mark.parametrize("kind", LAYERS, ids=lambda kind: kind.__name__)
def test_every_layer_takes_and_keeps_every_attribute(kind, attribute):
    arguments, _ = LAYERS[kind]
    given = {attribute: OTHERS[attribute]}
    layer = kind(*arguments, **given)
    assert layer.deployment == ql.Deployment(**given)
    assert kind(*arguments, deployment=ql.Deployment(**given)).deployment == layer.deployment
    config = json.loads(json.dumps(layer.get_config()))
    assert config[attribute] == OTHERS[attribute]  # as files have it that were saved before there was a Deployment
    assert kind.from_config(layer.get_config()).deployment == layer.deployment


@pytest.mark.parametrize("kind", LAYERS, ids=lambda kind: kind.__name__)
def test_keywords_replace_what_the_deployment_says(kind):
    arguments, shape = LAYERS[kind]
    layer = kind(*arguments, deployment=ql.Deployment(**OTHERS), scale_bits=7)
    assert layer.deployment == ql.Deployment(**{**OTHERS, "scale_bits": 7})
    layer.build(shape)
    halves = (layer.depthwise, layer.pointwise) if hasattr(layer, "pointwise") else (layer,)
    for half in halves:
        assert half.deployment == layer.deployment
        assert half.gain.shape == (half.compute_output_shape(shape)[-1],)
        assert half.kernel_mask is not None
    with pytest.raises(TypeError, match=r"^wrong: deployment must be a Deployment, not \{"):
        kind(*arguments, deployment={"scale_bits": 4}, name="wrong")
    with pytest.raises(ValueError, match=r"^wrong: scale_bits must be 1 to 8, not 9$"):
        kind(*arguments, scale_bits=9, name="wrong")


@pytest.mark.parametrize(
    "given",
    [
        {"gain": "row"}, {"parameter_bits": 1}, {"parameter_bits": 4.5}, {"bias_resolution": 3}, {"scale_bits": True},
        {"keep_zeros": "no"}, {"input_bits": 12},
    ],
)  # fmt: skip
def test_values_that_do_not_exist_are_refused(given):
    (name, value), *_ = given.items()
    with pytest.raises(ValueError, match=f"^{name} must be .*, not {value!r}$"):
        ql.Deployment(**given)


def test_the_second_half_has_the_input_bits_of_what_is_between():
    layer = ql.QuantSeparableConv1D(3, 2, input_bits=16)
    assert (layer.depthwise_activation.bits, layer.pointwise.deployment.input_bits) == (16, 16)
    narrow = ql.QuantSeparableConv1D(3, 2, input_bits=16, depthwise_activation=ql.QuantActivation(8.0))
    assert (narrow.depthwise.deployment.input_bits, narrow.pointwise.deployment.input_bits) == (16, 8)


#: What a separable layer's config was before there was a Deployment, less what is the same in stock layers.
OLD_CONFIG = {
    "name": "old", "trainable": True, "dtype": "float32", "kernel_size": [3], "strides": [1], "padding": "valid",
    "data_format": "channels_last", "dilation_rate": [1], "depth_multiplier": 1, "filters": 4, "activation": "linear",
    "use_bias": True, "gain": "channel", "normalization": None, "parameter_bits": 6, "bias_resolution": 8.0,
    "scale_bits": 5, "pointwise_quantizer": None,
    "depthwise_quantizer": {
        "module": "subbyte.keras_layers.quantizers", "class_name": "Tanh", "registered_name": "subbyte>Tanh",
        "config": {"bits": 4, "grid": "symmetric", "sigma": 0.85},
    },
    "depthwise_activation": {
        "module": "subbyte.keras_layers.activations", "class_name": "QuantActivation",
        "registered_name": "subbyte>QuantActivation",
        "config": {
            "name": "old_between", "trainable": True, "dtype": "float32", "max_value": 2.0, "bits": 8,
            "power_of_two": True, "momentum": None, "signed": True,
        },
    },
}  # fmt: skip


def test_a_config_saved_before_loads():
    layer = ql.QuantSeparableConv1D.from_config(OLD_CONFIG)
    expected = ql.Deployment("channel", 6, 8.0, 5)
    assert layer.deployment == layer.depthwise.deployment == layer.pointwise.deployment == expected
    assert (layer.depthwise.kernel_quantizer.bits, layer.depthwise_activation.max_value) == (4, 2.0)


@pytest.mark.slow
@pytest.mark.parametrize("kind", [ql.QuantDense, ql.QuantConv2D], ids=lambda kind: kind.__name__)
def test_bits_may_be_chosen_after_building(kind):
    arguments, (_, *shape) = LAYERS[kind]
    layer = kind(*arguments, kernel_quantizer=Linear(8), name="chosen")
    model = keras.Sequential([keras.Input(shape), ql.QuantInput(4.0), layer, ql.QuantActivation(8.0)])
    ql.set_stage(model, 2)
    (before,) = converter.convert(model).layers
    layer.kernel_quantizer = Tanh(3)
    result = converter.convert(model)
    assert (before.weight_bits, result.layers[0].weight_bits) == (8, 3)
    x = np.random.default_rng(0).normal(size=(5, *shape)).astype(np.float32)
    codes = np.unique(layer.kernel_quantizer.weights(layer.kernel).numpy())
    assert set(codes) <= set(range(-3, 4))
    # What is computed from now on has the new weights: the same as that of a layer that had them from the start.
    twin = keras.Sequential(
        [
            keras.Input(shape),
            ql.QuantInput(4.0),
            kind(*arguments, kernel_quantizer=Tanh(3), name="chosen"),
            ql.QuantActivation(8.0),
        ]
    )
    twin.set_weights(model.get_weights())
    np.testing.assert_array_equal(model(x), twin(x))
    assert result.layers == converter.convert(twin).layers


def test_another_quantizer_must_have_a_zero_where_zeros_are_kept():
    layer = ql.QuantDense(3, keep_zeros=True, name="pruned")
    with pytest.raises(ValueError, match="pruned: keep_zeros needs a grid with zero"):
        layer.kernel_quantizer = Linear(1)

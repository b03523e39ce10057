"""Small float Keras models with drawn weights, as users have them before they hear of quantization."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import tensorflow as tf

keras = tf.keras
layers = tf.keras.layers

FLOAT_NETS: dict[str, Callable[[], keras.Model]] = {}


def float_net(build: Callable[[], keras.Model]) -> Callable[[], keras.Model]:
    FLOAT_NETS[build.__name__] = build
    return build


def drawn(name: str, seed: int = 0) -> tuple[keras.Model, list[np.ndarray]]:
    """The net of that name with drawn weights and settled statistics, and real inputs for it."""
    keras.utils.set_random_seed(seed)
    model = FLOAT_NETS[name]()
    rng = np.random.default_rng(seed)
    inputs = [rng.normal(size=(96, *x.shape[1:])).astype(np.float32) for x in model.inputs]
    for variable in model.trainable_variables:
        path = getattr(variable, "path", variable.name)
        if any(part in path for part in ("bias", "beta", "gamma")):
            variable.assign(variable + 0.3 * rng.normal(size=variable.shape).astype(np.float32))
    if model.non_trainable_variables:
        for _ in range(40):  # the averages of batch normalization move by a tenth
            model(given(model, inputs), training=True)
    return model, inputs


def sqnr_db(expected: object, found: object) -> float:
    """Signal to noise of what quantization made of float values, nested alike."""
    pairs = zip(tf.nest.flatten(expected), tf.nest.flatten(found), strict=True)
    arrays = [(np.asarray(a, np.float64), np.asarray(b, np.float64)) for a, b in pairs]
    signal = sum(np.sum(np.square(a)) for a, _ in arrays)
    return float(10 * np.log10(signal / sum(np.sum(np.square(a - b)) for a, b in arrays)))


def given(model: keras.Model, inputs: list[np.ndarray]) -> object:
    """Inputs in the form in which the model takes them."""
    if len(inputs) == 1:
        return inputs[0]
    if isinstance(model.input, dict):
        return dict(zip(model.input, inputs, strict=True))
    return inputs


@float_net
def dense() -> keras.Model:
    return keras.Sequential(
        [
            keras.Input((40,)),
            layers.Dense(48, activation="relu"),
            layers.Dropout(0.3),
            layers.Dense(32, use_bias=False),
            layers.BatchNormalization(momentum=0.9),
            layers.ReLU(max_value=6.0),
            layers.Dense(24, activation="tanh"),
            layers.Dense(5, activation="softmax"),
        ]
    )


@float_net
def depthwise_separable() -> keras.Model:
    x = inputs = keras.Input((15, 10, 1))
    x = layers.Conv2D(12, (10, 4), 2, "same", use_bias=False)(x)
    x = layers.ReLU()(layers.BatchNormalization(momentum=0.9)(x))
    x = layers.DepthwiseConv2D(3, padding="same", depth_multiplier=2)(x)
    x = layers.Activation("relu")(layers.BatchNormalization(momentum=0.9, scale=False, center=False)(x))
    x = layers.SeparableConv2D(9, 3, padding="same", activation="relu")(x)
    x = layers.AveragePooling2D(2)(x)
    return keras.Model(inputs, layers.Dense(4)(layers.Flatten()(x)))


@float_net
def temporal_residual() -> keras.Model:
    x = inputs = keras.Input((24, 10))
    x = layers.Conv1D(8, 3, padding="causal", activation="relu")(x)
    for channels, strides in ((8, 1), (12, 2)):
        y = layers.ReLU()(layers.BatchNormalization(momentum=0.9)(layers.Conv1D(channels, 9, strides, "same")(x)))
        y = layers.BatchNormalization(momentum=0.9)(layers.Conv1D(channels, 5, padding="same")(y))
        if strides > 1:
            x = layers.Conv1D(channels, 1, strides, "same")(x)
        x = layers.ReLU()(layers.Add()([x, y]))
    x = layers.SeparableConv1D(10, 3)(layers.DepthwiseConv1D(3, activation="relu")(x))
    return keras.Model(inputs, layers.Dense(4)(layers.GlobalAveragePooling1D()(x)))


@float_net
def residual() -> keras.Model:
    """Operators of tensors, ZeroPadding, Concatenate, pooling."""
    x = inputs = keras.Input((12, 12, 3))
    x = layers.Conv2D(8, 3, activation="relu")(layers.ZeroPadding2D(1)(x))
    y = layers.BatchNormalization(momentum=0.9)(layers.Conv2D(8, 3, padding="same")(x))
    x = layers.ReLU()(x + y)
    x = layers.Concatenate()([layers.MaxPooling2D(2)(x), layers.AveragePooling2D(2)(x)])
    x = layers.Conv2D(6, 3, dilation_rate=2, activation="relu")(x)
    x = layers.Reshape((4, 6))(x)
    return keras.Model(inputs, layers.Dense(3)(layers.Flatten()(x)))


@float_net
def shared_and_nested() -> keras.Model:
    """A nested model used twice, a layer of its own used twice, inputs and outputs by name."""
    z = keras.Input((8,))
    branch = keras.Model(z, layers.Dense(10, activation="relu", name="first")(z), name="branch")
    head = keras.Sequential([keras.Input((20,)), layers.Dense(6, activation="relu", name="first")], name="head")
    left, right = keras.Input((8,), name="left"), keras.Input((8,), name="right")
    twice = layers.Dense(4, name="twice")
    x = head(layers.Concatenate()([branch(left), branch(right)]))
    outputs = {"joined": twice(x), "right": twice(layers.Dense(6, activation="relu", name="side")(right))}
    return keras.Model({"left": left, "right": right}, outputs)

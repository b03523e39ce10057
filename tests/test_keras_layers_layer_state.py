"""What layers keep besides weights, and the keywords of their calls, come along. The oracle is the float model."""

from __future__ import annotations

import warnings
from collections.abc import Callable

import numpy as np
import pytest
import tensorflow as tf
from float_nets import sqnr_db

from subbyte import keras_layers as ql
from subbyte.keras_layers.cloning import clone, copy_state

keras, layers = tf.keras, tf.keras.layers
IS_KERAS_3 = hasattr(keras, "ops")


def twin_of(model: keras.Model, x: object) -> keras.Model:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return ql.quantize_model(model, ql.Recipe(bits=8), x)


class Scaled(layers.Layer):
    """Times `kept`, which a subclass makes."""

    def __init__(self, **kwargs: object) -> None:
        layers.Layer.__init__(self, **kwargs)  # autograph of tf-keras fails on super() here
        self.kept: object = self.first()

    def first(self) -> object:
        return None

    def change(self) -> None:
        """What training or adaptation would do."""
        self.factor().assign(5.0)

    def factor(self) -> object:
        return self.kept

    def call(self, x: tf.Tensor) -> tf.Tensor:
        return x * tf.cast(tf.convert_to_tensor(self.factor()), x.dtype)

    def compute_output_shape(self, shape: tuple) -> tuple:
        return shape


class Weight(Scaled):
    def build(self, shape: tuple) -> None:
        self.kept = self.add_weight(name="factor", shape=(), initializer="ones", trainable=False)
        self.built = True


class Plain(Scaled):
    def first(self) -> object:
        return tf.Variable(1.0, trainable=False)


class InList(Scaled):
    def first(self) -> object:
        return [tf.Variable(2), tf.Variable(1.0)]

    def factor(self) -> object:
        return self.kept[1]


class InDictionary(InList):
    def first(self) -> object:
        return {1: tf.Variable(1.0), 0: tf.Variable(2)}


class InModule(Scaled):
    def first(self) -> object:
        module = tf.Module()
        module.inner = tf.Module()
        module.inner.factor = tf.Variable(1.0)
        return module

    def factor(self) -> object:
        return self.kept.inner.factor


class Inner(Scaled):
    def first(self) -> object:
        return {"one": Plain()}

    def factor(self) -> object:
        return self.kept["one"].kept


class Number(Scaled):
    def first(self) -> object:
        return 1.0

    def change(self) -> None:
        self.kept = 5.0


class Array(Number):
    def first(self) -> object:
        return None

    def change(self) -> None:
        self.kept = np.array([5, 1, 2, 3], np.float32)


KINDS = [Weight, Plain, InList, InDictionary, InModule, Inner, Number, Array]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("around", ["model", "nested model", "wrapper"])
def test_what_is_no_weight_comes_along(kind: type[Scaled], around: str) -> None:
    layer, x = kind(), keras.Input((3, 4))
    if kind is Array:
        layer.change()  # before it, the layer has nothing to compute with
    if around == "model":
        y = layer(x)
    elif around == "nested model":
        y = keras.Sequential([keras.Input((3, 4)), layer])(x)
    else:
        y = layers.TimeDistributed(layer)(x)
    model = keras.Model(x, layers.Dense(2)(y))
    data = np.random.default_rng(0).normal(size=(64, 3, 4)).astype(np.float32)
    layer.change()
    assert sqnr_db(model(data), twin_of(model, data)(data)) > 30


class Late(Scaled):
    """It makes its variable when it is adapted."""

    def change(self) -> None:
        self.kept = tf.Variable(5.0)

    def factor(self) -> object:
        return 1.0 if self.kept is None else self.kept


def test_a_variable_that_a_copy_does_not_have_is_said() -> None:
    model = keras.Sequential([keras.Input((4,)), Late(name="late"), layers.Dense(2)])
    model.layers[0].change()
    with pytest.raises(
        ValueError, match=r"late \(Late\) cannot be copied: of its 1 variables its copy has 0; make all"
    ):
        twin_of(model, np.ones((2, 4)))


#: tf-keras draws these from its own random generator, the others from TensorFlow's of the whole process.
WITH_A_GENERATOR = {
    "RandomFlip": lambda: layers.RandomFlip(seed=1),
    "RandomRotation": lambda: layers.RandomRotation(0.2, seed=1),
    "RandomZoom without seed": lambda: layers.RandomZoom(0.2),
    "RandomContrast": lambda: layers.RandomContrast(0.2, seed=1),
}
OF_KERAS_3 = {
    "Dropout": lambda: layers.Dropout(0.5, seed=1),
    "Dropout without seed": lambda: layers.Dropout(0.5),
    "GaussianNoise": lambda: layers.GaussianNoise(0.5, seed=1),
    "SpatialDropout2D": lambda: layers.SpatialDropout2D(0.5, seed=1),
    "wrapped": lambda: layers.TimeDistributed(layers.Dropout(0.5, seed=1)),
    "cell": lambda: layers.TimeDistributed(layers.GRU(3, dropout=0.5, seed=1)),
}


@pytest.mark.parametrize("name", [*WITH_A_GENERATOR, *(OF_KERAS_3 if IS_KERAS_3 else ())])
def test_a_copy_draws_what_the_layer_would_draw_next(name: str) -> None:
    layer = (WITH_A_GENERATOR | OF_KERAS_3)[name]()
    x = np.random.default_rng(0).uniform(size=(4, 8, 8, 3)).astype(np.float32)
    first = np.asarray(layer(x, training=True))
    copy = clone(layer, "copy")
    copy(x)
    copy_state(layer, copy)
    expected = np.asarray(layer(x, training=True))
    assert (expected != first).any()
    np.testing.assert_array_equal(np.asarray(copy(x, training=True)), expected)


def adapted(kind: type, data: np.ndarray, **arguments: object) -> keras.layers.Layer:
    layer = kind(**arguments)
    layer.adapt(data)
    return layer


NUMBERS = np.random.default_rng(0).normal(20, 7, (64, 1)).astype(np.float32)
WORDS = np.random.default_rng(0).choice(["yes no", "no", "stop", "go go"], (64, 1))
ADAPTED = {
    "Normalization": (NUMBERS, "float32", lambda x: adapted(layers.Normalization, x)),
    "Discretization": (NUMBERS, "float32", lambda x: adapted(layers.Discretization, x, num_bins=9)),
    "IntegerLookup": (
        NUMBERS.astype(np.int64), "int64", lambda x: adapted(layers.IntegerLookup, x, output_mode="multi_hot"),
    ),
    "StringLookup": (WORDS, "string", lambda x: adapted(layers.StringLookup, x, output_mode="multi_hot")),
    "TextVectorization": (WORDS, "string", lambda x: adapted(layers.TextVectorization, x, output_mode="tf_idf")),
}  # fmt: skip
AROUND: dict[str, Callable] = {
    "functional": lambda layer, x: keras.Model(inner := keras.Input(x.shape[1:], dtype=x.dtype), layer(inner))(x),
    "sequential": lambda layer, x: keras.Sequential([keras.Input(x.shape[1:], dtype=x.dtype), layer])(x),
    "time distributed": lambda layer, x: layers.TimeDistributed(layer)(x),
}


@pytest.mark.parametrize(
    ("name", "around"),
    # TextVectorization takes one text a sample.
    [
        (name, around)
        for name in ADAPTED
        for around in AROUND
        if (name, around) != ("TextVectorization", "time distributed")
    ],
)
def test_what_preprocessing_has_seen_comes_along_from_inside(name: str, around: str) -> None:
    data, dtype, make = ADAPTED[name]
    layer = make(data)
    if around == "time distributed":
        data = np.stack([data, data[::-1]], 1)
    x = keras.Input(data.shape[1:], dtype=dtype)
    y = AROUND[around](layer, x)
    model = keras.Model(x, layers.Dense(2)(layers.Rescaling(0.25)(y)))
    tensor = tf.constant(data)
    assert sqnr_db(model(tensor), twin_of(model, data)(tensor)) > 30


def masked(name: str, x: object, mask: object) -> object:
    return {
        "LSTM": lambda: layers.LSTM(6)(x, mask=mask),
        "Bidirectional": lambda: layers.Bidirectional(layers.GRU(4))(x, mask=mask),
        "Attention": lambda: layers.Flatten()(layers.Attention()([x, x], mask=[mask, mask])),
        "MultiHeadAttention": lambda: layers.Flatten()(
            layers.MultiHeadAttention(2, 3)(x, x, attention_mask=layers.Reshape((1, 5))(mask))
        ),
        "GlobalAveragePooling1D": lambda: layers.GlobalAveragePooling1D()(x, mask=mask),
        "nested": lambda: keras.Model(inner := keras.Input((5, 4)), layers.LSTM(6)(inner))(x, mask=mask),
        "deep in nested": lambda: keras.Sequential(
            [keras.Input((5, 4)), layers.Dense(4), layers.GRU(4, return_sequences=True), layers.LSTM(6)]
        )(x, mask=mask),
        "Masking": lambda: layers.LSTM(6)(layers.Dense(5, "relu")(layers.Masking()(x))),
    }[name]()


@pytest.mark.parametrize(
    "name",
    [
        "LSTM",
        "Bidirectional",
        "Attention",
        "MultiHeadAttention",
        "GlobalAveragePooling1D",
        "nested",
        "deep in nested",
        "Masking",
    ],
)
def test_masks_are_kept(name: str) -> None:
    keras.utils.set_random_seed(0)
    x, mask = keras.Input((5, 4)), keras.Input((5,), dtype="bool")
    model = keras.Model([x, mask], layers.Dense(2)(masked(name, x, mask)))
    rng = np.random.default_rng(0)
    data = [rng.normal(size=(64, 5, 4)).astype(np.float32), rng.random((64, 5)) < 0.5]
    data[1][:, 0] = True
    data[0][:, 3:] *= 0
    expected = model(data)
    assert sqnr_db(expected, twin_of(model, data)(data)) > 25
    others = [data[0] + 1, np.ones_like(data[1])]
    assert sqnr_db(expected, model(others)) < 20  # masks count


def used_twice(name: str) -> keras.layers.Layer:
    if name == "Normalization":
        return adapted(layers.Normalization, NUMBERS.reshape(-1, 4))
    layer = Plain() if name == "Plain" else layers.BatchNormalization()
    layer(np.ones((1, 4), np.float32))
    for variable in [layer.kept] if name == "Plain" else layer.variables:
        variable.assign(variable + 0.7)
    return layer


@pytest.mark.parametrize("name", ["Normalization", "Plain", "BatchNormalization"])
def test_a_layer_that_is_used_twice_is_one(name: str) -> None:
    x, layer = keras.Input((4,)), used_twice(name)
    model = keras.Model(x, layers.Dense(2)(layer(layers.Dense(4)(layer(x)))))
    data = NUMBERS.reshape(-1, 4)
    twin = twin_of(model, data)
    assert sqnr_db(model(data), twin(data)) > 30
    assert sum(type(other) is type(layer) for other in twin.layers) == 1


def moving(name: str) -> keras.Model:
    x = keras.Input((5, 4), batch_size=8)
    y = {
        "statistics": lambda: layers.BatchNormalization()(x, training=True),
        "random generator": lambda: layers.RandomFlip(seed=1)(layers.Reshape((5, 4, 1))(x), training=True),
        "recurrent state": lambda: layers.GRU(6, stateful=True)(x),
        "wrapped state": lambda: layers.Bidirectional(layers.GRU(6, stateful=True))(x),
    }[name]()
    return keras.Model(x, layers.Dense(2)(layers.Flatten()(y)))


@pytest.mark.parametrize("make", [twin_of, lambda model, x: ql.quantize_post_training(model, x).model])
@pytest.mark.parametrize("name", ["statistics", "random generator", "recurrent state", "wrapped state"])
def test_calibration_leaves_no_trace(name: str, make: Callable) -> None:
    """The model is not changed, and the twin begins where the model would."""
    keras.utils.set_random_seed(0)
    model, same = moving(name), moving(name)
    same.set_weights(model.get_weights())
    x = np.random.default_rng(0).normal(3, 2, (32, 5, 4)).astype(np.float32)
    twin = make(model, x)
    expected = np.asarray(same(x[:8]))
    np.testing.assert_array_equal(np.asarray(model(x[:8])), expected)
    assert sqnr_db(expected, twin(x[:8])) > 15  # four bits at least

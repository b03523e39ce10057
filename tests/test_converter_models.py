"""What a user's model may look like: how it is saved, how large it becomes, and odd shapes, names and layers."""

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import nets
import numpy as np
import pytest
import tensorflow as tf
from ai_edge_litert.interpreter import Interpreter as StockInterpreter
from nets import Tanh, dense, drawn, keras, layers, ql, ready

from subbyte.converter import ConversionError, convert, float_tflite
from subbyte.converter.conversion import Conversion
from subbyte.converter.graph import Graph
from subbyte.converter.verification import verify
from subbyte.keyword_spotting import models
from subbyte.schemas import PACKED_OPS, Op

BYTES_OF_A_NET = """
import hashlib, sys
sys.path.insert(0, {folder!r})
import nets
from subbyte.converter import convert
print(hashlib.sha256(convert(nets.ready("residual_softmax")).tflite).hexdigest())
"""


PACKED_OP = PACKED_OPS[Op.FULLY_CONNECTED]


def packed_layers(data: bytes) -> list[bytes]:
    graph = Graph.read(data)
    packed = [
        graph.constant(int(op.inputs[1])) for op in graph.operators if graph.kind(op) == PACKED_OPS[Op.FULLY_CONNECTED]
    ]
    return [value.tobytes() for value in packed]


def stage_two(model):
    """Offsets that are not 0, then stage 2."""
    rng = np.random.default_rng(0)
    for variable in model.trainable_variables:
        if any(part in getattr(variable, "path", variable.name) for part in ("bias", "beta")):
            variable.assign(variable + 0.3 * rng.normal(size=variable.shape).astype(np.float32))
    ql.set_stage(model, 2)
    return model


def dense_net(*middle, features: int = 10, **arguments):
    parts = [ql.QuantInput(4.0), dense(8, Tanh(4)), *middle, ql.ClippedReLU(4.0), dense(3, Tanh(4))]
    return stage_two(keras.Sequential([keras.Input((features,), **arguments), *parts, ql.QuantActivation(8.0)]))


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A model with its .keras file, its SavedModel and its conversion."""
    folder = tmp_path_factory.mktemp("saved")
    model = ready("learnt_range")
    model.save(folder / "model.keras")
    model.export(str(folder / "exported"), **({"verbose": False} if hasattr(keras, "ops") else {}))
    return folder, model, Conversion.start(model)


def test_every_way_to_save_it_gives_the_same_packed_layers(saved, tmp_path):
    folder, model, conversion = saved
    result = conversion.write()
    expected = packed_layers(result.tflite)
    assert len(expected) == 2
    assert packed_layers(convert(folder / "model.keras").tflite) == expected
    assert sorted(packed_layers(convert(str(folder / "exported")).tflite)) == sorted(expected)
    tf.saved_model.save(model, str(tmp_path / "by_tensorflow"))
    assert sorted(packed_layers(convert(tmp_path / "by_tensorflow").tflite)) == sorted(expected)


def test_a_saved_model_verifies_against_itself(saved):
    conversion = Conversion.start(saved[0] / "exported")
    rng = np.random.default_rng(0)
    shapes = {name: conversion.graph.shape(tensor)[1:] for name, tensor in conversion.graph.named("inputs").items()}
    comparisons = verify(conversion, {name: 2 * rng.normal(size=(300, *shape)) for name, shape in shapes.items()})
    assert all(comparison.passed for comparison in comparisons)
    assert [comparison.layer for comparison in comparisons if comparison.against == "Keras"]


def test_another_process_gives_the_same_bytes():
    # Default layer names count from here.
    keras.backend.clear_session()
    here = hashlib.sha256(convert(ready("residual_softmax")).tflite).hexdigest()
    script = BYTES_OF_A_NET.format(folder=str(Path(nets.__file__).parent))
    # Another order of hashes and dictionaries.
    environment = os.environ | {"PYTHONHASHSEED": "7"}
    there = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=True)
    assert there.stdout.strip() == here


@pytest.mark.once
def test_the_papers_model_with_16_bit_activations():
    """M1: 223,780 weights of 8 bits, and bias and multiplier of 1,468 channels in 6 bytes each at the most."""
    conversion = Conversion.start(drawn(lambda: models.model("M1", classes=7), seed=0), io="int16")
    result = conversion.write()
    assert sum(layer.weights for layer in result.layers) == 223_780
    assert 0 < len(result.tflite) - 223_780 - 6 * 1_468 < 5_000
    assert result.notes == []
    ((name, _),) = conversion.graph.named("inputs").items()
    # Half of the inputs are on ties, which `verify` keeps out of the comparison.
    x = np.random.default_rng(0).integers(-(2**16), 2**16, (12, 540)) * 2.0**-14
    comparisons = verify(conversion, {name: x})
    assert [(c.differing, c.bound.codes) for c in comparisons if c.bound] == [(0, 0)] * 14


@pytest.mark.once
def test_equal_strings_and_vectors_are_stored_once():
    model = keras.Sequential([keras.Input((24,), name="spectrogram"), ql.QuantInput(4.0)])
    for _ in range(3):
        model.add(dense(24, Tanh(4)))
        model.add(ql.ClippedReLU(4.0))
    ql.set_stage(model, 2)
    tflite = convert(model).tflite
    # As the tensor's name and in the signature; as the custom options of three ops; as the shape of tensors.
    assert tflite.count(b"\x0b\0\0\0spectrogram\0") == 1
    assert tflite.count(b"bits\0") == 1
    assert tflite.count(np.array([2, 1, 24], "<i4").tobytes()) == 1
    graph = Graph.read(tflite)
    assert [
        graph.shape(int(op.outputs[0])) for op in graph.operators if graph.kind(op) == PACKED_OPS[Op.FULLY_CONNECTED]
    ] == [(1, 24)] * 3


@pytest.mark.once
def test_a_shared_layer_is_stored_once():
    result = convert(ready("used_twice"))
    shared = [layer for layer in result.layers if layer.layer == result.layers[0].layer]
    assert len(shared) == 2
    assert [layer.stored_bytes > 0 for layer in shared] == [True, False]
    first, second, _, _ = packed_layers(result.tflite)
    assert first == second
    assert result.tflite.count(first) == 1
    assert sum(layer.stored_bytes for layer in result.layers) < len(result.tflite)


def paper_model(dense_layer, normalization, relu, first, last):
    hidden = [layer for units in (87, 400) * 3 for layer in (dense_layer(units), *normalization(), relu())]
    return keras.Sequential([keras.Input((540,)), *first, *hidden, dense_layer(2), *last])


@pytest.mark.once
def test_size_of_the_papers_largest_model_and_of_its_float_twin(tmp_path):
    def quantized(units: int):
        normalization = ql.QuantBatchNormalization() if units != 2 else None
        return ql.QuantDense(units, kernel_quantizer=Tanh(4), normalization=normalization)

    model = paper_model(quantized, list, lambda: ql.ClippedReLU(4.0), [ql.QuantInput(4.0)], [ql.QuantActivation(16.0)])
    ql.set_stage(model, 2)
    result = convert(model, io="int8")
    assert len(result.tflite) <= 120_600
    assert result.totals["packed"] == len(result.tflite)
    places = [result.tflite.index(layer) for layer in packed_layers(result.tflite)]
    assert len(places) == 7
    assert {place % 64 for place in places} == {0}

    twin = paper_model(layers.Dense, lambda: [layers.BatchNormalization()], lambda: layers.ReLU(4.0), first=[], last=[])

    module = tf.Module()
    module.twin = [v if isinstance(v, tf.Variable) else v.value for v in twin.variables]
    module.call = tf.function(lambda x: twin(x, training=False), [tf.TensorSpec((1, 540))], autograph=False)
    tf.saved_model.save(module, str(tmp_path), signatures=module.call)
    stock = tf.lite.TFLiteConverter.from_saved_model(str(tmp_path)).convert()
    assert abs(result.totals["float32"] - len(stock)) <= 0.01 * len(stock)


@pytest.mark.once
@pytest.mark.parametrize("target", ["int8", "int4"])
def test_totals_are_the_sizes_of_real_files(target, saved):
    _, _, conversion = saved
    result, other = conversion.write(), conversion.write(target)
    assert len(other.tflite) == result.totals[target] == other.totals[target]
    assert other.totals == result.totals
    interpreter = StockInterpreter(model_content=other.tflite)
    interpreter.allocate_tensors()
    assert {layer.op for layer in other.layers} == {"FULLY_CONNECTED"}


# ---- odd models that convert


def functional_with_dictionaries():
    first, second = keras.Input((10,), name="zeta"), keras.Input((6,), name="alpha")
    h = layers.Concatenate()([ql.QuantInput(4.0)(first), ql.QuantInput(4.0)(second)])
    h = ql.ClippedReLU(4.0)(dense(8, Tanh(4))(h))
    outputs = {
        "y2": ql.QuantActivation(8.0)(dense(3, Tanh(4))(h)),
        "y1": ql.QuantActivation(8.0)(dense(2, Tanh(4))(h)),
    }
    return stage_two(keras.Model({"zeta": first, "alpha": second}, outputs))


def nested_twice():
    inner = keras.Sequential([keras.Input((8,)), dense(8, Tanh(4)), ql.ClippedReLU(4.0)], name="inner")
    inputs = keras.Input((10,))
    h = inner(inner(ql.ClippedReLU(4.0)(dense(8, Tanh(4))(ql.QuantInput(4.0)(inputs)))))
    return stage_two(keras.Model(inputs, ql.QuantActivation(8.0)(dense(3, Tanh(4))(h))))


def stock_relu():
    parts = [keras.Input((10,)), ql.QuantInput(4.0), dense(8, Tanh(4)), layers.ReLU()]
    parts.append(ql.QuantActivation(8.0, signed=False))
    return stage_two(keras.Sequential(parts))


def two_layers_on_one_tensor():
    inputs = keras.Input((10,))
    x = ql.QuantInput(4.0)(inputs)
    pair = [ql.QuantActivation(scale)(dense(3, Tanh(bits))(x)) for scale, bits in ((8.0, 4), (4.0, 2))]
    return stage_two(keras.Model(inputs, [*pair, x]))


def noise_between():
    return dense_net(layers.GaussianNoise(0.1), layers.Dropout(0.2))


def two_bit_activations():
    parts = [ql.QuantInput(0.125, bits=2), dense(8, Tanh(4)), ql.ClippedReLU(0.125, bits=2), dense(3, Tanh(4))]
    return stage_two(keras.Sequential([keras.Input((10,)), *parts, ql.QuantActivation(4.0, bits=2)]))


def rank_four_with_pooling():
    parts = [ql.QuantInput(4.0), dense(8, Tanh(4)), ql.ClippedReLU(4.0), layers.GlobalMaxPooling2D()]
    last = [dense(3, Tanh(4)), ql.QuantActivation(4.0)]
    return stage_two(keras.Sequential([keras.Input((4, 6, 10)), *parts, *last]))


class Subclassed(keras.Model):
    def __init__(self):
        super().__init__()
        self.parts = [ql.QuantInput(4.0), dense(8, Tanh(4)), ql.ClippedReLU(4.0), dense(3, Tanh(4))]
        self.last = ql.QuantActivation(8.0)

    # A function of its own hides its tensors from the one around it.
    @tf.function
    def call(self, x, training=False):
        for part in self.parts:
            x = part(x, training=training)
        return self.last(x)


def subclassed():
    model = Subclassed()
    model(np.zeros((2, 10), np.float32))
    return stage_two(model)


def deferred():
    model = keras.Sequential([ql.QuantInput(4.0), dense(4, Tanh(4)), ql.QuantActivation(4.0)])
    model(np.zeros((2, 10), np.float32))
    return stage_two(model)


def fixed_batch_of_float64():
    return dense_net(batch_size=4, dtype="float64")


def extreme_ranges():
    small = [ql.QuantInput(1e-6), dense(8, Tanh(4)), ql.ClippedReLU(8.0), dense(3, Tanh(4))]
    return stage_two(keras.Sequential([keras.Input((10,)), *small, ql.QuantActivation(1e6)]))


def more_than_1024_outputs():
    """TensorFlow's converter does not fold so long a vector if it is made of a scalar."""
    wide = ql.QuantDense(1100, kernel_quantizer=Tanh(1), normalization=ql.QuantBatchNormalization(scale=False))
    plain = ql.QuantDense(1030, kernel_quantizer=ql.quantizers.Linear(4, per_channel=False), use_bias=False)
    layers_in_between = [ql.QuantInput(4.0), wide, ql.ClippedReLU(4.0), plain, ql.QuantActivation(4.0)]
    return stage_two(keras.Sequential([keras.Input((6,)), *layers_in_between]))


def trained_with_xla():
    model = dense_net()
    model.compile("adam", "mse", jit_compile=True)
    x = np.random.default_rng(0).normal(size=(64, 10)).astype(np.float32)
    model.fit(x, x[:, :3], epochs=2, verbose=0, callbacks=[ql.TwoStage(1)])
    return model


ODD = [
    functional_with_dictionaries, nested_twice, stock_relu, two_layers_on_one_tensor, noise_between,
    two_bit_activations, rank_four_with_pooling, subclassed, deferred, fixed_batch_of_float64, extreme_ranges,
    more_than_1024_outputs, trained_with_xla,
]  # fmt: skip


@pytest.mark.parametrize("build", ODD, ids=lambda build: build.__name__)
def test_an_odd_model_gives_the_codes_of_keras(build):
    conversion = Conversion.start(build())
    rng = np.random.default_rng(0)
    inputs = {
        name: 2 * rng.normal(size=(40, *conversion.graph.shape(tensor)[1:]))
        for name, tensor in conversion.graph.named("inputs").items()
    }
    comparisons = verify(conversion, inputs)
    assert [c for c in comparisons if not c.passed or c.bound is None or c.bound.codes] == []
    assert {c.against for c in comparisons} == {"int8 target", "Keras"}
    assert conversion.write().notes == []


@pytest.mark.once
@pytest.mark.parametrize("normalization", ["ours", "stock"])
def test_a_channel_that_hardly_counts_has_a_bias_beyond_32_bits(normalization):
    """On int16: the bias is in steps of 2^-14 times a scale near 0. The format keeps it by a common shift."""
    layer = dense(6, Tanh(4), normalized=normalization == "ours", input_bits=16, name="victim")
    between = [] if normalization == "ours" else [layers.BatchNormalization(momentum=0.5)]
    parts = [keras.Input((10,)), ql.QuantInput(2.0, bits=16), layer, *between, ql.QuantActivation(4.0, bits=16)]
    model = keras.Sequential(parts)
    norm = layer.normalization or between[0]
    norm.gamma.assign([1.0, 1e-7, -0.5, 1.5, -1e-7, 0.0])
    norm.beta.assign([0.1, 3.0, 0.2, -0.3, -2.0, 1.0])
    ql.set_stage(model, 2)
    conversion = Conversion.start(model)
    assert np.abs(conversion.linear_ops[0].bias).max() > 2**31
    ((name, _),) = conversion.graph.named("inputs").items()
    x = np.random.default_rng(0).integers(-(2**15), 2**15, (60, 10)) * 2.0**-14
    to_stock, to_keras = verify(conversion, {name: x})
    assert (to_stock.differing, to_stock.codes) == (0, 360)
    assert to_keras.passed
    assert normalization == "stock" or to_keras.differing == 0


# ---- stock layers that compute


def test_a_stock_dense_layer_promises_nothing_and_says_so():
    parts = [ql.QuantInput(4.0), dense(8, Tanh(4)), ql.QuantActivation(4.0), layers.Dense(5), ql.QuantActivation(4.0)]
    conversion = Conversion.start(stage_two(keras.Sequential([keras.Input((10,)), *parts])))
    ((name, _),) = conversion.graph.named("inputs").items()
    ours, stock = (
        c for c in verify(conversion, {name: np.random.default_rng(0).normal(size=(40, 10))}) if c.against == "Keras"
    )
    assert ours.bound is not None
    assert ours.passed
    assert stock.bound is None
    assert any("is a stock layer: its weights were rounded to 8 bits" in note for note in conversion.write().notes)


@pytest.mark.once
def test_int8_inputs_that_cannot_be_are_noted():
    inputs = keras.Input((10,), name="x")
    wide, narrow = ql.QuantInput(8.0)(inputs), ql.QuantInput(0.5)(inputs)
    pair = [ql.QuantActivation(8.0)(dense(3, Tanh(4))(x)) for x in (wide, narrow)]
    result = convert(stage_two(keras.Model(inputs, pair)), io="int8")
    assert [note for note in result.notes if "input x is not int8" in note]


# ---- models that do not convert, with the mend in the message


def stage_one():
    model = dense_net()
    ql.set_stage(model, 1)
    return model


def only_one_part():
    model = dense_net()
    ql.set_stage(model, 2, parts=("activations",))
    return model


def chain_of(*parts, features: int | None = 10):
    return stage_two(keras.Sequential([keras.Input((features,)), *parts]))


def with_weight(name: str, value: float):
    model = chain_of(ql.QuantInput(4.0), ql.QuantDense(4, name="victim"), ql.QuantActivation(4.0))
    variable = getattr(model.get_layer("victim"), name)
    values = variable.numpy()
    values.flat[1] = value
    variable.assign(values)
    return model


def free_time():
    parts = [ql.QuantInput(4.0), dense(4, Tanh(4)), ql.QuantActivation(4.0)]
    return stage_two(keras.Sequential([keras.Input((None, 10), name="x"), *parts]))


def many_inputs_in_a_subclass():
    class Pair(keras.Model):
        def __init__(self):
            super().__init__()
            self.a, self.b, self.c = ql.QuantInput(4.0), dense(8, Tanh(4)), ql.QuantActivation(4.0)

        def call(self, x, training=None):
            return self.c(self.b(self.a(tf.concat([x["p"], x["q"]], -1)), training=training))

    model = Pair()
    model({"q": np.zeros((2, 6), np.float32), "p": np.zeros((2, 4), np.float32)})
    return stage_two(model)


def victim(**arguments):
    return ql.QuantDense(4, kernel_quantizer=Tanh(4), name="victim", **arguments)


def half_floats(*parts):
    policy = keras.mixed_precision.global_policy()
    keras.mixed_precision.set_global_policy("mixed_float16")
    try:
        return chain_of(ql.QuantInput(4.0), *(part() for part in parts), ql.QuantActivation(4.0))
    finally:
        keras.mixed_precision.set_global_policy(policy)


def looked_up(dtype, table):
    """Rows of an embedding, found by what `table` says of the inputs."""
    table = type(table).from_config(table.get_config() | {"name": "table"})
    parts = [table, layers.Embedding(6, 8), layers.GlobalAveragePooling1D(), ql.QuantInput(4.0), *last_layers()]
    return stage_two(keras.Sequential([keras.Input((5,), dtype=dtype), *parts]))


def last_layers():
    return victim(), ql.QuantActivation(4.0)


BAD = {
    "half floats in front": (lambda: half_floats(layers.Flatten, victim), "layer victim: .* before it .* half floats"),
    "half floats behind": (lambda: half_floats(victim, layers.Flatten), "layer victim: .* behind it .* half floats"),
    "stage one": (stage_one, r"layer .* and \d+ more are still in stage 1 .*set_stage\(model, 2\)"),
    "one part only": (only_one_part, r"still in stage 1 \(bias and gain not quantized\)"),
    "no QuantInput": (
        lambda: chain_of(victim(), ql.QuantActivation(4.0)),
        "layer victim: its input is not quantized; put QuantInput",
    ),
    "no range": (
        lambda: chain_of(ql.QuantInput(4.0), victim()),
        "layer victim: its output has no range .*put ClippedReLU or QuantActivation",
    ),
    "stock ReLU": (
        lambda: chain_of(ql.QuantInput(4.0), victim(), layers.ReLU(), dense(3, Tanh(4)), ql.QuantActivation(4.0)),
        "layer (victim|quant_dense.*): its (output has no range|input is not quantized)",
    ),
    "NaN weight": (lambda: with_weight("kernel", np.nan), "layer victim: its weights hold NaN"),
    "infinite bias": (lambda: with_weight("bias", np.inf), "layer victim: its .*bias hold NaN or infinity"),
    "coarse input": (
        lambda: chain_of(ql.QuantInput(64.0), victim(), ql.QuantActivation(4.0)),
        r"layer victim: its input scale 0.5 is coarser than 1/16.*bias_resolution=2 or its input a smaller max_value",
    ),
    "very coarse input": (
        lambda: chain_of(ql.QuantInput(1000.0), victim(), ql.QuantActivation(4.0)),
        "not exact; give its input a smaller max_value",
    ),
    "fine output": (
        lambda: chain_of(ql.QuantInput(4.0), victim(), ql.QuantActivation(1e-6)),
        "layer victim: its output scale .* larger max_value",
    ),
    "too many inputs": (
        lambda: chain_of(ql.QuantInput(4.0), victim(), ql.QuantActivation(4.0), features=70_000),
        "layer victim does not fit the packed format: 70000 inputs",
    ),
    "free time": (free_time, "input x.* has a free dimension besides the batch"),
    "not built": (
        lambda: keras.Sequential([ql.QuantInput(4.0), dense(4, Tanh(4))]),
        "no known input shape: call it on data",
    ),
    "subclass with several inputs": (many_inputs_in_a_subclass, "subclass with several inputs: convert the SavedModel"),
    "nothing of ours": (
        lambda: keras.Sequential([keras.Input((4,)), layers.Dense(3)]),
        "nothing to pack in this model",
    ),
    "no model": (lambda: 42, "int is no model of"),
    "integers looked up": (
        lambda: looked_up("int64", layers.IntegerLookup(vocabulary=[3, 5])),
        "table needs TensorFlow's LookupTableFindV2, which LiteRT does not have",
    ),
    "strings looked up": (
        lambda: looked_up("string", layers.StringLookup(vocabulary=["a", "b"])),
        "layer victim: it reads a tensor whose shape TensorFlow's converter does not know",
    ),
    "hashed": (
        lambda: looked_up("int32", layers.Hashing(6)),
        "table needs TensorFlow's AsString, which LiteRT does not have",
    ),
    "a space in a name": (
        lambda: stage_two(keras.Sequential([keras.Input((4,), name="in put"), ql.QuantInput(4.0), *last_layers()])),
        "takes no input named 'in put'",
    ),
}


def on_16_bits(*middle, gives: int = 16):
    parts = [ql.QuantInput(4.0, bits=16), *middle, victim(input_bits=16), ql.QuantActivation(4.0, gives, name="last")]
    return chain_of(*parts)


def joined_on_16_bits():
    x = inputs = keras.Input((10,))
    x = ql.QuantInput(4.0, bits=16)(x)
    pair = [ql.ClippedReLU(4.0, bits=16)(dense(4, Tanh(4), input_bits=16)(x)) for _ in range(2)]
    y = layers.Concatenate(name="joined")(pair)
    return stage_two(keras.Model(inputs, ql.QuantActivation(4.0, bits=16)(victim(input_bits=16)(y))))


BAD |= {
    "16 bits into a layer of 8": (
        lambda: chain_of(ql.QuantInput(4.0, bits=16), victim(), ql.QuantActivation(4.0, bits=16)),
        "layer victim: it reads 16-bit activations: give it input_bits=16",
    ),
    "8 bits into a layer of 16": (
        lambda: chain_of(ql.QuantInput(4.0), victim(input_bits=16), ql.QuantActivation(4.0)),
        "layer victim: it reads 8-bit activations: give it input_bits=8",
    ),
    "16 bits to 8": (
        lambda: on_16_bits(gives=8),
        "layer victim: it reads 16-bit activations and gives 8-bit ones: give last more than 8 bits",
    ),
    "8 bits to 16": (
        lambda: chain_of(ql.QuantInput(4.0), victim(), ql.QuantActivation(4.0, bits=9)),
        "layer victim: it reads 8-bit activations and gives 16-bit ones: give .* 8 bits or fewer",
    ),
    "16 bits joined": (joined_on_16_bits, r"has no concatenation of 16-bit activations \(.*joined.*8 bits or fewer"),
}


@pytest.mark.parametrize("case", BAD)
def test_a_model_that_does_not_convert_says_what_to_mend(case):
    build, message = BAD[case]
    with pytest.raises(ConversionError, match=message) as raised:
        convert(build())
    assert "\n" not in str(raised.value)


@pytest.mark.once
@pytest.mark.parametrize(("bits", "io", "codes"), [(16, "int8", "int16"), (8, "int16", "int8")])
def test_codes_of_another_type_than_asked_for(bits, io, codes):
    layer = dense(3, Tanh(4), input_bits=bits)
    model = chain_of(ql.QuantInput(4.0, bits=bits, name="x"), layer, ql.QuantActivation(4.0, bits=bits))
    with pytest.raises(ConversionError, match=f"input .* has {codes} codes, not {io}: choose io {codes} or float32"):
        convert(model, io=io)
    assert len(convert(model, io=codes).notes) == 0


@pytest.mark.once
@pytest.mark.parametrize("arguments", [{"target": "int3"}, {"io": "uint4"}])
def test_unknown_choices_are_refused_before_any_work(arguments):
    with pytest.raises(ConversionError, match=r"unknown .*choose"):
        convert("no such file", **arguments)


class Failing(layers.Layer):
    """It raises what it is given, once the model is made."""

    def __init__(self, error: Exception) -> None:
        layers.Layer.__init__(self, name="failing")
        self.error, self.fails = error, False

    def call(self, x: tf.Tensor) -> tf.Tensor:
        if self.fails:
            raise self.error
        return x

    def compute_output_shape(self, shape: tuple) -> tuple:
        return shape


@pytest.mark.parametrize("kind", [ValueError, TypeError, NotImplementedError])
@pytest.mark.parametrize("route", ["quantized", "float"])
def test_long_errors_of_a_float_model_become_one_line(kind, route):
    configuration = "{'layers': {'inner': '" + "x " * 2000 + "'}}"
    failing = Failing(kind(f"cannot run {configuration} with code {'4wEAAAAA' * 200}\n\nCall arguments received: ..."))
    model = keras.Sequential([keras.Input((4,)), failing, layers.Dense(2)])
    failing.fails = True
    x = np.ones((8, 4), np.float32)
    convert_it = {
        "quantized": lambda: Conversion.start(model, bits=4, calibration=x),
        "float": lambda: float_tflite(model),
    }
    with pytest.raises(ConversionError) as caught:
        convert_it[route]()
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 500
    assert "cannot run {...} with code ..." in str(caught.value)

"""Models of other tools: int8 .tflite files, packed without loss or with fewer bits.

From TensorFlow's own post-training quantization, made by hand, and those of MLPerf Tiny.
"""

import functools
import math
import os
import re
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from ai_edge_litert.interpreter import Interpreter as StockInterpreter
from hypothesis import given, settings
from hypothesis import strategies as st
from models import Model

from subbyte import kernels
from subbyte.converter import ConversionError, convert
from subbyte.converter.conversion import Conversion
from subbyte.converter.flatbuffer import per_channel, schema
from subbyte.converter.from_stock import lift_stock
from subbyte.converter.graph import Graph
from subbyte.converter.verification import verify

RNG = np.random.default_rng(0)


def clustered(shape: tuple[int, ...], values: np.ndarray) -> np.ndarray:
    """Float weights that take few values; every channel holds the largest, so that its scale shows them all."""
    weights = np.random.default_rng(shape).choice(values, shape).astype(np.float32)
    weights[0] = values[np.argmax(np.abs(values))]
    return weights


def steps(codes) -> np.ndarray:
    return np.asarray(list(codes)) / 64


#: name: (weight values, input shape, layers behind flattening, activation)
KINDS = {
    "binary": (steps([-1, 1]), (24,), None),
    "ternary_relu": (steps([-1, 0, 1]), (24,), "relu"),
    "sixteen_clusters_relu6": (np.sort(RNG.normal(size=16)), (24,), "relu6"),
    "rank_three": (np.sort(RNG.normal(size=7)), (5, 24), "relu"),
    "flattened": (np.sort(RNG.normal(size=30)), (4, 3, 2), None),
}


@functools.cache
def float_model(values: tuple[float, ...], shape: tuple[int, ...], activation: str | None, last: bool = False):
    """A TensorFlow function, [1, *shape] to [..., 9], of two dense layers with those weights."""
    features = 24
    first, second = clustered((features, 33), np.asarray(values)), clustered((33, 9), np.asarray(values))
    bias = np.random.default_rng(3).normal(size=(33,)).astype(np.float32)
    bound = {None: tf.identity, "relu": tf.nn.relu, "relu6": tf.nn.relu6}[activation]

    @tf.function(input_signature=[tf.TensorSpec((1, *shape), tf.float32)])
    def call(x):
        if len(shape) == 3:
            x = tf.reshape(x, (1, features))
        return tf.matmul(bound(tf.matmul(x, first) + bias), second)

    return call


def samples(shape: tuple[int, ...], count: int = 60) -> np.ndarray:
    """Skewed, so that zero points are not 0."""
    return np.random.default_rng(1).normal(0.7, 1, (count, 1, *shape)).astype(np.float32)


def quantized(call, shape: tuple[int, ...], **changes) -> bytes:
    converter = tf.lite.TFLiteConverter.from_concrete_functions([call.get_concrete_function()])
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.representative_dataset = lambda: ([x] for x in samples(shape))
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
    converter.inference_input_type = converter.inference_output_type = tf.int8
    for name, value in changes.items():
        setattr(converter, name, value)
    return converter.convert()


@functools.cache
def of_kind(name: str) -> bytes:
    values, shape, activation = KINDS[name]
    return quantized(float_model(tuple(values), shape, activation), shape)


def run(interpreter, count: int = 200) -> np.ndarray:
    """Output codes for int8 inputs drawn over the whole range."""
    interpreter.allocate_tensors()
    (x,), (y,) = interpreter.get_input_details(), interpreter.get_output_details()
    rng = np.random.default_rng(2)
    rows = []
    for _ in range(count):
        interpreter.set_tensor(x["index"], rng.integers(-128, 128, x["shape"]).astype(np.int8))
        interpreter.invoke()
        rows.append(interpreter.get_tensor(y["index"]))
    return np.stack(rows)


@pytest.mark.parametrize("name", KINDS)
def test_packed_equals_the_original_on_the_stock_interpreter(name):
    original = of_kind(name)
    result = convert(original, io="int8", prefer=None)
    assert [layer.op for layer in result.layers] == ["SubbyteFullyConnected"] * 2
    bits = max(1, (len(KINDS[name][0]) - 1).bit_length())
    assert all(layer.weight_bits <= bits for layer in result.layers)
    assert len(result.tflite) < len(original)
    expected = run(StockInterpreter(model_content=original))
    assert len(np.unique(expected)) > 20
    np.testing.assert_array_equal(run(kernels.Interpreter(model_content=result.tflite)), expected)
    for target in ("int8", "int4"):
        stock = StockInterpreter(model_content=convert(original, target=target, io="int8").tflite)
        difference = np.abs(run(stock).astype(int) - expected)
        # Stock 4-bit kernels requantize by an older rule.
        assert difference.max() <= (0 if target == "int8" else 2)


@pytest.mark.parametrize("name", ["ternary_relu", "sixteen_clusters_relu6"])
def test_inputs_have_zero_points_and_verification_passes(name):
    conversion = Conversion.start(of_kind(name))
    zero_points = [conversion.graph.quantization(op.inputs[0])[1] for op in conversion.linear_ops]
    assert all(zero_points), "a zero point of 0 would not test its folding into the bias"
    ((key, tensor),) = conversion.graph.named("inputs").items()
    assert conversion.graph.shape(tensor) == (1, 24)
    comparisons = verify(conversion, {key: samples((24,))[:, 0]})
    assert [(c.against, c.passed) for c in comparisons] == [("int8 target", True)] * 2 + [("original", True)]


def test_a_codebook_is_used_where_it_takes_fewer_bits():
    conversion = Conversion.start(of_kind("sixteen_clusters_relu6"))
    assert all(op.grid.codebook is not None and op.grid.bits == 4 for op in conversion.linear_ops)
    # -127, 0 and 127 are even, but a fourth step leaves int8.
    ternary = Conversion.start(of_kind("ternary_relu"))
    assert all(op.grid.codebook is not None and op.grid.bits == 2 for op in ternary.linear_ops)
    evenly = Conversion.start(of_kind("binary"))
    assert all(op.grid.codebook is None and op.grid.bits == 1 for op in evenly.linear_ops)


def test_float_inputs_and_outputs():
    original = of_kind("binary")
    data = convert(original, io="float32").tflite
    float_interpreter = kernels.Interpreter(model_content=data)
    float_interpreter.allocate_tensors()
    (x,), (y,) = float_interpreter.get_input_details(), float_interpreter.get_output_details()
    assert x["dtype"] == y["dtype"] == np.float32
    stock = StockInterpreter(model_content=original)
    stock.allocate_tensors()
    (stock_x,), (stock_y,) = stock.get_input_details(), stock.get_output_details()
    for sample in samples((24,), 30):
        float_interpreter.set_tensor(x["index"], sample)
        float_interpreter.invoke()
        scale, zero = stock_x["quantization"]
        stock.set_tensor(stock_x["index"], np.clip(np.rint(sample / np.float32(scale)) + zero, -128, 127).astype("i1"))
        stock.invoke()
        scale, zero = stock_y["quantization"]
        codes = np.rint(float_interpreter.get_tensor(y["index"]) / scale) + zero
        np.testing.assert_array_equal(codes, stock.get_tensor(stock_y["index"]))


def mixed_model():
    """A small convolution, a dense layer of few values, one of many."""
    rng = np.random.default_rng(4)
    kernel = rng.normal(size=(3, 3, 1, 4)).astype(np.float32)
    few, many = clustered((64, 40), steps([-1, 0, 1])), rng.normal(size=(40, 60)).astype(np.float32)

    @tf.function(input_signature=[tf.TensorSpec((1, 6, 6, 1), tf.float32)])
    def call(x):
        x = tf.nn.relu(tf.nn.conv2d(x, kernel, 1, "VALID"))
        return tf.matmul(tf.nn.relu(tf.matmul(tf.reshape(x, (1, 64)), few)), many)

    return call


@functools.cache
def mixed() -> bytes:
    return quantized(mixed_model(), (6, 6, 1))


def test_what_cannot_be_packed_stays_stock_with_a_note():
    result = convert(mixed(), io="int8", prefer=None)
    # The convolution has 36 weights, with 32 values after rounding.
    assert [layer.weight_bits for layer in result.layers] == [5, 2]
    (note,) = result.notes
    assert re.search("stays a stock FULLY_CONNECTED: its weights take more than 128 values and need 8 bits", note)
    np.testing.assert_array_equal(
        run(kernels.Interpreter(model_content=result.tflite)), run(StockInterpreter(model_content=mixed()))
    )


def test_models_that_are_not_int8_are_refused():
    converter = tf.lite.TFLiteConverter.from_concrete_functions([mixed_model().get_concrete_function()])
    plain = converter.convert()
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    dynamic = converter.convert()
    for data, weights in ((plain, "float32"), (dynamic, "dynamic-range")):
        for bits in (None, 4):
            with pytest.raises(
                ConversionError, match=f"^nothing to pack .* its weights are {weights}.*; quantize it to"
            ):
                convert(data, bits=bits)
    # uint8 at the border alone is int8 within.
    values, shape, activation = KINDS["ternary_relu"]
    call = float_model(tuple(values), shape, activation)
    bordered = quantized(call, shape, inference_input_type=tf.uint8, inference_output_type=tf.uint8)
    assert len(convert(bordered).layers) == 2


# ---- convolutions that TensorFlow has quantized

#: name: (weight values, [H, W, C] of the input, kernel as in TensorFlow, keywords of the op)
CONVOLUTIONS = {
    "same": ([-1, 1], (9, 8, 5), (3, 3, 5, 7), {}),
    "valid, wide strides": (range(-3, 4), (9, 11, 3), (3, 2, 3, 19), {"padding": "VALID", "strides": (3, 2)}),
    "mlperf's first": (range(-7, 8), (49, 10, 1), (10, 4, 1, 6), {"strides": (2, 2)}),
    "dilated": (range(-15, 16), (12, 9, 4), (3, 2, 4, 6), {"padding": "VALID", "dilations": (2, 3)}),
    "groups": ([-1, 0, 1], (6, 7, 6), (3, 3, 3, 8), {}),
    "pointwise": (range(-31, 32), (5, 4, 17), (1, 1, 17, 33), {}),
    "depthwise": ([-1, 0, 1], (9, 8, 5), (3, 3, 5, 1), {}),
    "depthwise, multiplier": (range(-7, 8), (9, 8, 3), (2, 5, 3, 4), {"padding": "VALID"}),
    "depthwise, stride": (range(-3, 4), (9, 8, 18), (3, 3, 18, 1), {"strides": (2, 2)}),
    "depthwise, dilated": ([-1, 1], (11, 12, 5), (3, 3, 5, 2), {"dilations": (2, 2)}),
}


@functools.cache
def convolution(name: str, bias: bool = True) -> bytes:
    """An int8 model of one convolution, with a bias and ReLU or with neither."""
    values, shape, kernel_shape, options = CONVOLUTIONS[name]
    outputs = kernel_shape[3] * (kernel_shape[2] if name.startswith("depthwise") else 1)
    kernel = clustered((math.prod(kernel_shape) // outputs, outputs), steps(values)).reshape(kernel_shape)
    offset = np.random.default_rng(5).normal(size=100).astype(np.float32)
    options = {"padding": "SAME", "strides": (1, 1), "dilations": (1, 1), **options}

    @tf.function(input_signature=[tf.TensorSpec((1, *shape), tf.float32)])
    def call(x):
        if name.startswith("depthwise"):
            y = tf.nn.depthwise_conv2d(x, kernel, **{**options, "strides": (1, *options["strides"], 1)})
        else:
            y = tf.nn.conv2d(x, kernel, **options)
        return tf.nn.relu(y + offset[: y.shape[-1]]) if bias else y

    return quantized(call, shape)


@pytest.mark.parametrize(("name", "bias"), [*((name, True) for name in CONVOLUTIONS), ("same", False)])
def test_packed_convolutions_equal_the_original_on_the_stock_interpreter(name, bias):
    original = convolution(name, bias)
    result = convert(original, io="int8")
    (layer,) = result.layers
    assert layer.op == ("SubbyteDepthwiseConv2D" if name.startswith("depthwise") else "SubbyteConv2D")
    assert layer.weight_bits == max(1, (len(CONVOLUTIONS[name][0]) - 1).bit_length())
    expected = run(StockInterpreter(model_content=original))
    assert len(np.unique(expected)) > 50
    np.testing.assert_array_equal(run(kernels.Interpreter(model_content=result.tflite)), expected)
    stock = convert(original, target="int8", io="int8").tflite
    np.testing.assert_array_equal(run(StockInterpreter(model_content=stock)), expected)


# ---- by hand

ACTIVATIONS = schema.ActivationFunctionType


@dataclass(frozen=True)
class Layer:
    """One stock int8 layer; `weights` as the stock op stores them."""

    kind: str
    weights: np.ndarray
    scales: np.ndarray
    x_shape: tuple[int, ...] = (1, 6, 6, 2)
    stride: tuple[int, int] = (1, 1)
    dilation: tuple[int, int] = (1, 1)
    same: bool = False
    bias: np.ndarray | None = None
    activation: int = ACTIVATIONS.NONE

    @property
    def channel_dimension(self) -> int:
        return 3 if self.kind == "DEPTHWISE_CONV_2D" else 0

    def y_shape(self) -> tuple[int, ...]:
        channels = self.weights.shape[self.channel_dimension]
        if self.kind == "FULLY_CONNECTED":
            return self.x_shape[0], channels
        reach = [(taps - 1) * step + 1 for taps, step in zip(self.weights.shape[1:3], self.dilation, strict=True)]
        sizes = zip(self.x_shape[1:3], reach, self.stride, strict=True)
        # As TensorFlow documents SAME and VALID.
        outputs = [math.ceil((size if self.same else size - window + 1) / stride) for size, window, stride in sizes]
        return self.x_shape[0], *outputs, channels

    def file(self, change=lambda model: None) -> bytes:
        """The model, with `change` made to it before it is written."""
        model = Model()
        x = model.tensor(self.x_shape, scale=0.037, zero_point=-11)
        kernel = model.tensor(self.weights.shape, data=self.weights.astype(np.int8).tobytes())
        model.tensors[kernel].quantization = per_channel(
            self.scales, dimension=self.channel_dimension if len(self.scales) > 1 else 0
        )
        inputs = [x, kernel]
        if self.bias is not None:
            bias = model.tensor(self.bias.shape, data=self.bias.astype("<i4").tobytes())
            model.tensors[bias].type = schema.TensorType.INT32
            model.tensors[bias].quantization = per_channel(np.float32(0.037) * self.scales)
            inputs.append(bias)
        y = model.tensor(self.y_shape(), scale=0.83, zero_point=5, name="victim")
        options = {"fusedActivationFunction": self.activation}
        if self.kind != "FULLY_CONNECTED":
            (options["strideH"], options["strideW"]), options["padding"] = self.stride, int(not self.same)
            options["dilationHFactor"], options["dilationWFactor"] = self.dilation
        if self.kind == "DEPTHWISE_CONV_2D":
            options["depthMultiplier"] = self.weights.shape[3] // self.x_shape[3]
        names = {"CONV_2D": "Conv2D", "DEPTHWISE_CONV_2D": "DepthwiseConv2D", "FULLY_CONNECTED": "FullyConnected"}
        name = f"{names[self.kind]}Options"
        code = getattr(schema.BuiltinOperator, self.kind)
        model.op(code, inputs, [y], getattr(schema, f"{name}T")(**options), getattr(schema.BuiltinOptions, name))
        model.codes[-1].version = 12 if self.kind == "FULLY_CONNECTED" else 6
        change(model)
        return model.finish([x], [y])


@st.composite
def stock_layers(draw):
    """A layer of any window that fits, of few or of all int8 values, with scales that are no powers of two."""
    kind = draw(st.sampled_from(["CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED"]))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    values = rng.choice(np.arange(-127, 128), draw(st.sampled_from([2, 3, 5, 16, 100, 255])))
    window = {}
    if kind == "FULLY_CONNECTED":
        x_shape, shape = (draw(st.integers(1, 5)), draw(st.integers(1, 70))), [draw(st.integers(1, 40))]
        shape.append(x_shape[1])
    else:
        groups, inputs = draw(st.sampled_from([(1, 1), (1, 3), (1, 17), (2, 2), (3, 1), (5, 1), (18, 1)]))
        kernel = [draw(st.integers(1, 4)), draw(st.integers(1, 4))]
        multiplier = draw(st.integers(1, 3))
        window = {
            "stride": (draw(st.integers(1, 3)), draw(st.integers(1, 3))),
            "dilation": (draw(st.integers(1, 3)), draw(st.integers(1, 3))),
            "same": draw(st.booleans()),
        }
        x_shape = (draw(st.integers(1, 2)), draw(st.integers(10, 13)), draw(st.integers(10, 13)), groups * inputs)
        shape = [1, *kernel, groups * inputs * multiplier]
        if kind == "CONV_2D":
            shape = [groups * multiplier, *kernel, inputs]
    channels = shape[3 if kind == "DEPTHWISE_CONV_2D" else 0]
    features = math.prod(shape) // channels
    scales = rng.uniform(0.1, 1, channels if draw(st.booleans()) else 1) / math.sqrt(features)
    return Layer(
        kind,
        rng.choice(values, shape),
        scales.astype(np.float32),
        x_shape,
        # Of the stock kernels that of FULLY_CONNECTED alone runs without.
        bias=None if kind == "FULLY_CONNECTED" and draw(st.booleans()) else rng.integers(-3000, 3000, channels),
        activation=draw(st.sampled_from([ACTIVATIONS.NONE, ACTIVATIONS.RELU, ACTIVATIONS.RELU6])),
        **window,
    )


@settings(deadline=None, max_examples=100)
@given(stock_layers(), st.sampled_from([None, 8]))
def test_any_stock_layer_packs_without_loss_or_stays(layer, bits):
    original = layer.file()
    graph = Graph.read(original)
    notes = lift_stock(graph, bits)
    if bits is None and len(np.unique(layer.weights)) > 128:
        assert "need 8 bits" in notes[0]
        return
    assert notes == []
    packed = convert(original, io="int8", bits=bits, prefer=None).tflite
    expected = run(StockInterpreter(model_content=original), 5)
    np.testing.assert_array_equal(run(kernels.Interpreter(model_content=packed), 5), expected)


def test_a_convolution_without_a_bias_has_a_bias_of_zeros():
    """The stock interpreter refuses the first and runs the second."""
    kernel = np.random.default_rng(0).integers(-3, 4, (4, 3, 3, 2))
    without = Layer("CONV_2D", kernel, np.float32([0.2]))
    with_zeros = replace(without, bias=np.zeros(4, int))
    packed = kernels.Interpreter(model_content=convert(without.file(), io="int8", prefer=None).tflite)
    np.testing.assert_array_equal(run(packed, 5), run(StockInterpreter(model_content=with_zeros.file()), 5))


CONV = Layer("CONV_2D", np.arange(-20, 16).reshape(2, 3, 3, 2), np.float32([0.02, 0.03]), bias=np.array([5, -9]))
DEPTHWISE = Layer("DEPTHWISE_CONV_2D", np.arange(-20, 16).reshape(1, 3, 3, 4), np.float32([0.1]), bias=np.zeros(4, int))


def quantization_of(tensor: int, **changes):
    def change(model):
        vars(model.tensors[tensor].quantization).update(changes)

    return change


def options_of(**changes):
    def change(model):
        vars(model.operators[0].builtinOptions).update(changes)

    return change


def tensor_of(tensor: int, **changes):
    def change(model):
        vars(model.tensors[tensor]).update(changes)

    return change


def without_options(model):
    model.operators[0].builtinOptions, model.operators[0].builtinOptionsType = None, 0


def computed_weights(model):
    model.tensors[1].buffer = 0


#: What is odd: (layer, change to its file, the reason that it stays stock); the input is tensor 0, weights 1, bias 2.
ODD = {
    "tanh": (CONV, options_of(fusedActivationFunction=ACTIVATIONS.TANH), "activation function is not known"),
    "padding": (CONV, options_of(padding=2), "padding is not known"),
    "stride": (CONV, options_of(strideW=0), r"stride \(1, 0\) .* is no step"),
    "long stride": (replace(CONV, stride=(1, 300), same=True), lambda model: None, "stride and dilation 1 to 255"),
    "no options": (CONV, without_options, "no weights or no options"),
    "other options": (
        CONV,
        lambda model: vars(model.operators[0]).update(
            builtinOptions=schema.Pool2DOptionsT(), builtinOptionsType=schema.BuiltinOptions.Pool2DOptions
        ),
        r"not \[output channels",
    ),
    "output shape": (CONV, options_of(strideW=2), r"stored as \[1, 4, 4, 2\], and its window gives \[4, 2\]"),
    "input rank": (CONV, tensor_of(0, shape=[6, 6, 2]), r"not \[batch, height, width, channels\]"),
    "groups": (replace(CONV, x_shape=(1, 6, 6, 3)), lambda model: None, "2 channels do not fit its 3 inputs"),
    "groups and channels": (replace(CONV, x_shape=(1, 6, 6, 8)), lambda model: None, "2 channels do not fit its 8"),
    "multiplier": (replace(DEPTHWISE, x_shape=(1, 6, 6, 3)), lambda model: None, "4 channels are no multiple of its 3"),
    "depthwise batch": (DEPTHWISE, tensor_of(1, shape=[2, 3, 3, 2]), r"not \[1, height, width, channels\]"),
    "computed weights": (CONV, computed_weights, "weights are int8: constant int8 is wanted"),
    "weights' type": (DEPTHWISE, tensor_of(1, type=schema.TensorType.UINT8), "weights are uint8: constant int8"),
    "zero point": (CONV, quantization_of(1, zeroPoint=np.array([0, 3])), "weights have a zero point"),
    "scale": (CONV, quantization_of(1, scale=np.float32([1, -1])), "not positive"),
    "infinite scale": (CONV, quantization_of(0, scale=np.float32([np.inf])), "not positive"),
    "number of scales": (CONV, quantization_of(1, scale=np.ones(3, np.float32)), "nor one for each channel"),
    "scales of inputs": (CONV, quantization_of(1, quantizedDimension=3), "not those of channels"),
    "scales of rows": (
        replace(DEPTHWISE, scales=np.ones(4, np.float32)), quantization_of(1, quantizedDimension=0), "not those of",
    ),
    "input of no type": (CONV, tensor_of(0, type=99), "input, weights and output are of the unknown type 99, int8"),
    "input of 16 bits": (CONV, tensor_of(0, type=schema.TensorType.INT16), "int16, int8, int8: int8 or uint8 is"),
    "bias of 64 bits": (CONV, tensor_of(2, type=schema.TensorType.INT64, shape=[1]), "bias is not constant int32"),
    "bias of others": (replace(CONV, bias=np.zeros(3, int)), lambda model: None, "bias is not constant int32"),
    "large bias": (replace(CONV, bias=np.array([2**31 - 1, 0])), lambda model: None, "32 bits"),
}  # fmt: skip


@pytest.mark.parametrize("bits", [None, 8])
@pytest.mark.parametrize("name", ODD)
def test_what_is_odd_stays_stock_and_says_why(name, bits):
    layer, change, reason = ODD[name]
    data = layer.file(change)
    graph = Graph.read(data)
    (note,) = lift_stock(graph, bits)
    assert re.search(f"^victim stays a stock {layer.kind}: .*{reason}", note), note
    assert [graph.kind(op) for op in graph.operators] == [layer.kind]
    with pytest.raises(ConversionError, match=r"^nothing to pack in this model: victim stays ") as raised:
        convert(data, bits=bits)
    assert "\n" not in str(raised.value)
    # Without the change the layer packs, so the reason is the change.
    sound = replace(layer, x_shape=(1, 6, 6, 2), bias=None)
    assert lift_stock(Graph.read(sound.file()), bits) == [] or name == "long stride"


def test_damaged_files_convert_or_say_so():
    rng = np.random.default_rng(0)
    refused = []
    for _ in range(120):
        data = bytearray(rng.choice([CONV, DEPTHWISE]).file())
        for _ in range(rng.integers(1, 4)):
            data[rng.integers(8, len(data))] = rng.choice([0, 1, 2, 127, 128, 255])
        try:
            convert(bytes(data), bits=3, first_last_bits=3)
        except ConversionError as error:
            refused.append(str(error))
    assert 10 < len(refused) < 110
    assert not any("\n" in message for message in refused)


# ---- requantized


def dequantized(data: bytes) -> list[tuple[np.ndarray, np.ndarray]]:
    """Weights [channels, features] and biases of a file's stock layers as real numbers, read from the file alone."""
    graph = Graph.read(data)
    layers = []
    for op in graph.operators:
        if graph.kind(op) not in ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED"):
            continue
        constants = [int(tensor) for tensor in op.inputs[1:] if tensor >= 0]
        weights, *bias = (graph.constant(tensor).astype(np.float64) for tensor in constants)
        scale, *bias_scale = (np.asarray(graph.tensor(tensor).quantization.scale, float) for tensor in constants)
        rows = weights.reshape(-1, weights.shape[-1]).T if graph.kind(op) == "DEPTHWISE_CONV_2D" else weights
        rows = rows.reshape(len(rows), -1)
        layers.append((rows * scale[:, None], bias[0] * bias_scale[0] if bias else np.zeros(len(rows))))
    return layers


@settings(deadline=None, max_examples=60)
@given(stock_layers(), st.integers(1, 7))
def test_requantized_layers_are_the_same_in_stock_ops_and_near_the_original(layer, bits):
    original = layer.file()
    files = {
        target: convert(original, target=target, io="int8", bits=bits, first_last_bits=bits)
        for target in ("packed", "int8")
    }
    (row,) = files["packed"].layers
    assert row.weight_bits <= bits
    assert row.distinct_values <= 2**bits
    packed = kernels.Interpreter(model_content=files["packed"].tflite)
    stock = StockInterpreter(model_content=files["int8"].tflite)
    np.testing.assert_array_equal(run(packed, 5), run(stock, 5))
    ((before, bias_before),) = dequantized(original)
    ((after, bias_after),) = dequantized(files["int8"].tflite)
    # A channel on the grid of all 2^bits values up to its largest weight, rounded, is never nearer.
    largest = np.abs(before).max(axis=1, keepdims=True)
    step = np.maximum(largest, 1e-30) / (max(2 ** (bits - 1) - 1, 1))
    rounded = step * np.rint(before / step)
    # float32 scales round by less than a ten-millionth of each weight.
    rounding = 1e-7 * np.abs(before).sum()
    assert np.sqrt(np.sum((after - before) ** 2)) <= np.sqrt(np.sum((rounded - before) ** 2)) + rounding or bits == 1
    scale = Graph.read(files["int8"].tflite)
    unit = np.asarray(scale.tensor(int(scale.operators[0].inputs[2])).quantization.scale, float)
    # Half a unit, and float32's rounding of the scales.
    assert np.all(np.abs(bias_after - bias_before) <= unit / 2 + np.abs(bias_before) * 1e-6)


@functools.cache
def three_convolutions() -> bytes:
    """The kinds after one another, of random weights, with average pooling and Softmax behind."""
    rng = np.random.default_rng(6)
    shapes = ((3, 3, 2, 24), (3, 3, 24, 1), (1, 1, 24, 20))
    first, depthwise, pointwise = (rng.normal(0, 0.3, shape).astype(np.float32) for shape in shapes)
    dense = rng.normal(0, 1, (20, 60)).astype(np.float32)

    @tf.function(input_signature=[tf.TensorSpec((1, 9, 8, 2), tf.float32)])
    def call(x):
        x = tf.nn.relu(tf.nn.conv2d(x, first, 1, "SAME"))
        x = tf.nn.relu(tf.nn.depthwise_conv2d(x, depthwise, (1, 2, 2, 1), "SAME"))
        x = tf.nn.relu(tf.nn.conv2d(x, pointwise, 1, "VALID"))
        return tf.nn.softmax(tf.matmul(tf.reshape(tf.nn.avg_pool2d(x, (5, 4), (5, 4), "VALID"), (1, 20)), dense))

    return quantized(call, (9, 8, 2))


def test_a_step_beyond_the_output_codes_stays_stock():
    """A multiplier of 10 a unit is odd, but stock; one of 600 is for neither kernel."""
    scale = np.float32([10 * 0.83 / 0.037])
    data = Layer("FULLY_CONNECTED", np.random.default_rng(0).integers(-127, 128, (5, 40)), scale, (1, 40)).file()
    with pytest.raises(ConversionError, match="one step of its weights in 1 bits runs through all output codes; give"):
        convert(data, bits=1, first_last_bits=1)
    assert widths(convert(data, bits=4, first_last_bits=4)) == [4]


def widths(result) -> list[int]:
    return [layer.weight_bits for layer in result.layers]


def test_the_first_and_the_last_layer_have_their_own_width():
    original = three_convolutions()
    assert widths(convert(original, bits=4)) == [8, 4, 4, 8]
    assert widths(convert(original, bits=3, first_last_bits=3)) == [3, 3, 3, 3]
    assert widths(convert(original, bits=5, first_last_bits=6)) == [6, 5, 5, 6]
    # What needs fewer bits as it is has them.
    assert widths(convert(of_kind("binary"), bits=4)) == [1, 1]


def test_each_of_two_heads_is_a_last_layer():
    rng = np.random.default_rng(3)
    first, middle, left, right = (rng.normal(0, 0.3, shape).astype(np.float32) for shape in [(40, 40)] * 4)

    @tf.function(input_signature=[tf.TensorSpec((1, 40), tf.float32)])
    def call(x):
        x = tf.nn.relu(tf.matmul(tf.nn.relu(tf.matmul(x, first)), middle))
        return tf.matmul(x, left), tf.matmul(x, right)

    assert widths(convert(quantized(call, (40,)), bits=3)) == [8, 3, 8, 8]


def test_requantized_layers_tell_their_noise():
    result = convert(three_convolutions(), bits=4, target="int8")
    exact, *low, exact_too = [layer.sqnr_db for layer in result.layers]
    assert exact == exact_too == math.inf
    before, after = dequantized(three_convolutions()), dequantized(result.tflite)
    for found, (old, _), (new, _) in zip(low, before[1:-1], after[1:-1], strict=True):
        # The report weighs channels by their steps, this by their scales; a channel of few weights has other steps.
        assert found == pytest.approx(10 * np.log10(np.sum(old**2) / np.sum((new - old) ** 2)), abs=2)
        assert 18 < found < 32


def test_verification_tells_how_often_the_answer_is_the_originals():
    original = three_convolutions()
    conversion = Conversion.start(original, bits=2, first_last_bits=2)
    x = samples((9, 8, 2))[:, 0]
    *exact, agreement = verify(conversion, {next(iter(conversion.graph.named("inputs"))): x})
    assert {comparison.against for comparison in exact} == {"int8 target"}
    assert all(comparison.differing == 0 and comparison.same_top is None for comparison in exact)
    # The same by the files themselves.
    outputs = []
    for interpreter in (
        kernels.Interpreter(model_content=convert(original, io="int8", bits=2, first_last_bits=2).tflite),
        StockInterpreter(model_content=original),
    ):
        interpreter.allocate_tensors()
        (source,), (sink,) = interpreter.get_input_details(), interpreter.get_output_details()
        scale, zero_point = source["quantization"]
        codes = np.clip(np.rint(x / np.float32(scale)) + zero_point, -128, 127).astype(np.int8)
        outputs.append([])
        for sample in codes:
            interpreter.set_tensor(source["index"], sample[None])
            interpreter.invoke()
            outputs[-1].append(interpreter.get_tensor(sink["index"])[0].astype(int))
    ours, theirs = map(np.array, outputs)
    assert (agreement.against, agreement.bound, agreement.passed) == ("original", None, True)
    assert agreement.same_top == np.mean(ours.argmax(axis=1) == theirs.argmax(axis=1))
    assert 0 < agreement.same_top < 1
    assert (agreement.codes, agreement.differing) == (ours.size, np.count_nonzero(ours != theirs))
    assert agreement.largest == np.abs(ours - theirs).max()


# ---- published models

PUBLISHED = ("kws_ref_model.tflite", "str_ww_ref_model.tflite", "kws_ref_model_float32.tflite")


def published(name: str) -> bytes:
    folder = os.environ.get("SUBBYTE_DATA")
    path = Path(folder or ".") / "mlperf_tiny_kws" / name
    if not folder or not path.is_file():
        pytest.skip(f"SUBBYTE_DATA names no folder with mlperf_tiny_kws/{name}")
    return path.read_bytes()


@pytest.mark.parametrize("name", PUBLISHED[:2])
def test_published_models_are_the_same_in_8_bits_and_all_packed(name):
    original = published(name)
    packed = convert(original, io="int8", bits=8)
    expected = run(StockInterpreter(model_content=original), 30)
    np.testing.assert_array_equal(run(kernels.Interpreter(model_content=packed.tflite), 30), expected)
    assert packed.notes == []
    assert len(packed.tflite) < 0.8 * len(original)
    narrow = {target: convert(original, target=target, io="int8", bits=4) for target in ("packed", "int8")}
    first, *between, last = widths(narrow["packed"])
    assert between == [4] * (len(packed.layers) - 2)
    # 7 where the layer has 128 values at most.
    assert min(first, last) >= 7
    assert len(narrow["packed"].tflite) < 0.5 * len(original)
    np.testing.assert_array_equal(
        run(kernels.Interpreter(model_content=narrow["packed"].tflite), 30),
        run(StockInterpreter(model_content=narrow["int8"].tflite), 30),
    )


def test_published_models_without_loss():
    with pytest.raises(ConversionError, match=r"like 9 more: .* need 8 bits; --bits requantizes an int8 .tflite"):
        convert(published(PUBLISHED[0]), prefer=None)
    # Its first and its last layer have 71 and 74 values.
    original = published(PUBLISHED[1])
    result = convert(original, io="int8", prefer=None)
    assert widths(result) == [7, 7]
    assert re.search("stays a stock CONV_2D, like 6 more: .* need 8 bits$", "; ".join(result.notes))
    np.testing.assert_array_equal(
        run(kernels.Interpreter(model_content=result.tflite), 30), run(StockInterpreter(model_content=original), 30)
    )


def test_the_published_float_model_is_refused():
    with pytest.raises(ConversionError, match="weights are dynamic-range, with float32 activations; quantize it"):
        convert(published(PUBLISHED[2]), bits=4)

"""Models of other tools: int8 .tflite files from TensorFlow's own post-training quantization, packed without loss."""

import functools
import os
import re
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from ai_edge_litert.interpreter import Interpreter as StockInterpreter
from subbyte import kernels
from subbyte.converter import ConversionError, convert
from subbyte.converter.conversion import Conversion
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
    result = convert(original, io="int8")
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
    assert [(c.against, c.passed) for c in comparisons] == [("int8 target", True)] * 2


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
    data = convert(original).tflite
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


@functools.cache
def mixed() -> bytes:
    """A convolution, a dense layer of few values, one of many."""
    rng = np.random.default_rng(4)
    kernel = rng.normal(size=(3, 3, 1, 4)).astype(np.float32)
    few, many = clustered((64, 40), steps([-1, 0, 1])), rng.normal(size=(40, 60)).astype(np.float32)

    @tf.function(input_signature=[tf.TensorSpec((1, 6, 6, 1), tf.float32)])
    def call(x):
        x = tf.nn.relu(tf.nn.conv2d(x, kernel, 1, "VALID"))
        return tf.matmul(tf.nn.relu(tf.matmul(tf.reshape(x, (1, 64)), few)), many)

    return quantized(call, (6, 6, 1))


def test_what_cannot_be_packed_stays_stock_with_a_note():
    result = convert(mixed(), io="int8")
    assert [layer.weight_bits for layer in result.layers] == [2]
    assert any("stays a stock CONV_2D: only fully connected" in note for note in result.notes)
    assert any(
        re.search(r"stays a stock FULLY_CONNECTED: its \d+ distinct weights need 8 bits", n) for n in result.notes
    )
    np.testing.assert_array_equal(
        run(kernels.Interpreter(model_content=result.tflite)), run(StockInterpreter(model_content=mixed()))
    )


def test_models_that_are_not_int8_are_refused():
    values, shape, activation = KINDS["ternary_relu"]
    call = float_model(tuple(values), shape, activation)
    converter = tf.lite.TFLiteConverter.from_concrete_functions([call.get_concrete_function()])
    plain = converter.convert()
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    dynamic = converter.convert()
    for data in (plain, dynamic):
        with pytest.raises(ConversionError, match=r"nothing to pack in this model: .* input and output are not int8"):
            convert(data)
    # uint8 at the border alone is int8 within.
    bordered = quantized(call, shape, inference_input_type=tf.uint8, inference_output_type=tf.uint8)
    assert len(convert(bordered).layers) == 2


def test_published_models_convert_or_say_why_not():
    """Runs on a file of its own, and on recordings' models where a data folder is at hand."""
    folder = Path(os.environ.get("SUBBYTE_DATA", Path(__file__).parents[1] / "data"))
    files = [of_kind("binary"), *(path.read_bytes() for path in sorted(folder.glob("mlperf_tiny_kws/*.tflite")))]
    for data in files:
        try:
            result = convert(data, io="int8")
        except ConversionError as error:
            assert re.match("nothing to pack in this model: ", str(error))  # noqa: PT017
            continue
        ours, stock = kernels.Interpreter(model_content=result.tflite), StockInterpreter(model_content=data)
        np.testing.assert_array_equal(run(ours, 20), run(stock, 20))

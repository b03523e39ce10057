"""Files that compute in uint8, as all did before 2020: layers pack between int8 twins, all else stays as it was.

The oracle is the original file in the stock interpreter.
"""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from ai_edge_litert.interpreter import Interpreter
from models import Model
from tflite_corpus import FORMS, schema

from subbyte import kernels
from subbyte.converter import ConversionError, Graph, convert

pytestmark = pytest.mark.once

PACKED = "SubbyteFullyConnected"


def dense(*zero_points: int, width: int = 16, spread: int = 8) -> bytes:
    """A uint8 layer for each zero point, one behind the other, of weights from -spread to spread - 1 around it."""
    rng, model = np.random.default_rng(0), Model()
    first = x = model.tensor([1, width], "uint8", 0.02, 128)
    for zero_point in zero_points:
        codes = np.clip(rng.integers(-spread, spread, (width, width)) + zero_point, 0, 255)
        kernel = model.tensor(codes.shape, "uint8", 0.2 / spread, zero_point, codes.astype(np.uint8).tobytes())
        bias = model.tensor([width], "int8", 0.02 * 0.2 / spread, data=rng.integers(-99, 99, width, "<i4").tobytes())
        model.tensors[bias].type = schema.TensorType.INT32
        y = model.tensor([1, width], "uint8", 0.02, 120)
        options = schema.FullyConnectedOptionsT()
        kind = schema.BuiltinOptions.FullyConnectedOptions
        model.op(schema.BuiltinOperator.FULLY_CONNECTED, [x, kernel, bias], [y], options, kind)
        x = y
    return model.finish([first], [x])


def kinds(tflite: bytes) -> list[str]:
    graph = Graph.read(tflite)
    return [graph.kind(op) for op in graph.operators]


def run(interpreter: Interpreter, samples: np.ndarray) -> np.ndarray:
    """Real outputs for real inputs, whatever the types of the ends are."""
    interpreter.allocate_tensors()
    (x,), (y,) = interpreter.get_input_details(), interpreter.get_output_details()
    outputs = []
    for sample in samples:
        interpreter.set_tensor(x["index"], sample if x["dtype"] == np.float32 else to_codes(sample, x))
        interpreter.invoke()
        found = interpreter.get_tensor(y["index"])
        scale, zero_point = y["quantization"]
        outputs.append(
            found if found.dtype == np.float32 else np.float32(scale) * (found.astype(np.float32) - zero_point)
        )
    return np.stack(outputs)


def to_codes(sample: np.ndarray, detail: dict) -> np.ndarray:
    (scale, zero_point), ends = detail["quantization"], np.iinfo(detail["dtype"])
    return np.clip(np.rint(sample / scale) + zero_point, ends.min, ends.max).astype(detail["dtype"])


def samples(width: int = 16) -> np.ndarray:
    """On the grid of the inputs, so that no type of end rounds them."""
    return (np.random.default_rng(1).integers(-128, 128, (40, 1, width)) * np.float32(0.02)).astype(np.float32)


@pytest.mark.parametrize("io", ["same", "float32", "int8", "uint8"])
@pytest.mark.parametrize("zero_points", [(128, 128), (8, 240), (131,)])
def test_every_type_of_ends_gives_the_same_numbers(zero_points, io):
    original = dense(*zero_points)
    expected = run(Interpreter(model_content=original), samples())
    assert np.ptp(expected) > 1
    graph = Graph.read(original)
    names = [graph.name(tensor) for tensor in (*graph.inputs, *graph.outputs)]
    for target, make in (("packed", kernels.Interpreter), ("int8", Interpreter)):
        tflite = convert(original, target=target, io=io, prefer=None).tflite
        made = make(model_content=tflite)
        np.testing.assert_array_equal(run(made, samples()), expected, err_msg=target)
        ends = (*made.get_input_details(), *made.get_output_details())
        assert {np.dtype(detail["dtype"]).name for detail in ends} == {"uint8" if io == "same" else io}
        assert [detail["name"] for detail in ends] == names


def test_layers_that_follow_one_another_hand_int8_on():
    layers = [PACKED] * 3
    assert kinds(convert(dense(100, 128, 150), prefer=None).tflite) == ["QUANTIZE", *layers, "QUANTIZE"]
    assert kinds(convert(dense(100, 128, 150), io="int8", prefer=None).tflite) == layers


def test_weights_beyond_int8_around_their_zero_point_stay_stock():
    """Their layer computes in uint8 as before, between others that are packed."""
    original = dense(128, 60, 128)
    model = schema.ModelT.InitFromObj(schema.Model.GetRootAs(original))
    wide = next(tensor for tensor in model.subgraphs[0].tensors if tensor.quantization.zeroPoint[0] == 60)
    graph = Graph.read(original)
    codes = np.array(model.buffers[wide.buffer].data)
    codes[:16] = np.arange(240, 256)
    graph.model.buffers[wide.buffer].data = codes
    original = graph.write()
    result = convert(original, prefer=None)
    assert any("need 9 bits" in note for note in result.notes)
    shifts = ["QUANTIZE", PACKED, "QUANTIZE"]
    assert kinds(result.tflite) == [*shifts, "FULLY_CONNECTED", *shifts]
    expected = run(Interpreter(model_content=original), samples())
    np.testing.assert_array_equal(run(kernels.Interpreter(model_content=result.tflite), samples()), expected)
    # Asked for 8 bits, it is rounded to them.
    rounded = convert(original, bits=8).tflite
    assert kinds(rounded) == ["QUANTIZE", PACKED, PACKED, PACKED, "QUANTIZE"]
    found = run(kernels.Interpreter(model_content=rounded), samples())
    assert 0 < np.abs(found - expected).max() < 0.1 * np.ptp(expected)


def test_fewer_bits_pack_the_same_in_uint8_and_int8():
    """Requantized, the weights are those of the file shifted to int8 beforehand."""
    wide = dense(128, 128, spread=128)
    graph = Graph.read(wide)
    for tensor in graph.main.tensors:
        if tensor.type == schema.TensorType.UINT8:
            tensor.type = schema.TensorType.INT8
            tensor.quantization.zeroPoint = tensor.quantization.zeroPoint - 128
            data = graph.model.buffers[tensor.buffer].data
            if data is not None:
                graph.model.buffers[tensor.buffer].data = data ^ 128
    shifted = graph.write()
    for bits in (2, 4, 8):
        ours, theirs = (convert(file, io="int8", bits=bits, first_last_bits=bits).tflite for file in (wide, shifted))
        found, expected = (run(kernels.Interpreter(model_content=file), samples()) for file in (ours, theirs))
        np.testing.assert_array_equal(found, expected)


def test_an_int8_file_may_get_uint8_ends():
    original = FORMS["float_ends"]()
    made = kernels.Interpreter(model_content=convert(original, io="uint8", prefer=None).tflite)
    made.allocate_tensors()
    assert {d["dtype"] for d in (*made.get_input_details(), *made.get_output_details())} == {np.uint8}
    x = np.random.default_rng(0).uniform(-1, 1, (20, 1, 16)).astype(np.float32)
    np.testing.assert_array_equal(run(made, x), run(Interpreter(model_content=original), x))


def test_16_bits_and_8_bits_are_not_one_another():
    with pytest.raises(ConversionError, match=r"input \w+ has int8 codes, not int16: choose io int8 or float32"):
        convert(dense(128), io="int16", prefer=None)


def test_every_pair_of_ends_is_a_round_trip():
    """Whatever ends a file has, it can be given any others, and its own again."""
    original = dense(100, 150)
    expected = run(Interpreter(model_content=original), samples())
    for first, second in itertools.permutations(("float32", "int8", "uint8"), 2):
        changed = convert(original, target="int8", io=first, prefer=None).tflite
        back = convert(changed, io=second, prefer=None).tflite
        np.testing.assert_array_equal(run(kernels.Interpreter(model_content=back), samples()), expected)

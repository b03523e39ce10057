"""The plug-in in stock interpreters: right numbers, one node, every batch size, and clear errors for bad models."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys

import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema
from models import Model, chain, random_layer

from subbyte import kernels
from subbyte.kernels import reference
from subbyte.schemas import HEADER, Geometry, Op, PackedLayer, Padding

pytestmark = pytest.mark.filterwarnings("ignore:.*tf.lite.Interpreter is deprecated", "ignore:.*preserve_all_tensors")


def tensorflow_interpreter(content: bytes, **stock):
    lite = importlib.import_module("tensorflow").lite
    delegate = lite.experimental.load_delegate(str(kernels.delegate_path()))
    return lite.Interpreter(model_content=content, experimental_delegates=[delegate], **stock)


def litert_interpreter(content: bytes, **stock):
    return kernels.Interpreter(model_content=content, **stock)


@pytest.fixture(params=[litert_interpreter, tensorflow_interpreter], ids=["litert", "tensorflow"])
def make_interpreter(request):
    return request.param


def run(interpreter, x: np.ndarray) -> list[np.ndarray]:
    """Every output for one input, at the batch size of `x`."""
    index = interpreter.get_input_details()[0]["index"]
    interpreter.resize_tensor_input(index, x.shape)
    interpreter.allocate_tensors()
    interpreter.set_tensor(index, x)
    interpreter.invoke()
    return [interpreter.get_tensor(output["index"]) for output in interpreter.get_output_details()]


def expect(layers: list[PackedLayer], x: np.ndarray) -> np.ndarray:
    for layer in layers:
        x = reference.fully_connected(layer, x)
    return x


def delegate_nodes(interpreter) -> int:
    return sum(op["op_name"] == "DELEGATE" for op in interpreter._get_ops_details())


def random_input(rng: np.random.Generator, *shape: int) -> np.ndarray:
    return rng.integers(-128, 128, shape).astype(np.int8)


@pytest.mark.parametrize("threads", [None, 1, 3])
def test_a_network_of_every_width(make_interpreter, threads):
    rng = np.random.default_rng(10)
    sizes = [60, 33, 17, 48, 87, 16, 5, 40, 7]
    layers = [random_layer(rng, sizes[b - 1], sizes[b], b) for b in range(1, 9)]
    interpreter = make_interpreter(chain(layers), num_threads=threads)
    for rows in (1, 5, 2, 64, 1):
        x = random_input(rng, rows, 60)
        np.testing.assert_array_equal(run(interpreter, x)[0], expect(layers, x))
    assert delegate_nodes(interpreter) == 1


def test_every_invoke_of_a_streaming_loop(make_interpreter):
    rng = np.random.default_rng(11)
    layers = [random_layer(rng, 30, 20), random_layer(rng, 20, 30, 3)]
    interpreter = make_interpreter(chain(layers))
    interpreter.allocate_tensors()
    first, last = interpreter.get_input_details()[0]["index"], interpreter.get_output_details()[0]["index"]
    x = random_input(rng, 1, 30)
    for _ in range(50):
        interpreter.set_tensor(first, x)
        interpreter.invoke()
        x = expect(layers, x)
        np.testing.assert_array_equal(interpreter.get_tensor(last), x)


@pytest.mark.parametrize("leading", [(), (3,), (2, 3), (1, 2, 2), (0,)], ids=str)
def test_any_rank(make_interpreter, leading):
    rng = np.random.default_rng(12)
    layers = [random_layer(rng, 12, 6), random_layer(rng, 6, 3)]
    x = random_input(rng, *leading, 12)
    interpreter = make_interpreter(chain(layers, leading))
    (output,) = run(interpreter, x)
    assert output.shape == (*leading, 3)
    np.testing.assert_array_equal(output, expect(layers, x))


def test_convolutions_between_dense_layers(make_interpreter):
    """Of every size and batch: scratch memory and shapes follow a resized input."""
    rng = np.random.default_rng(31)
    first = random_layer(rng, 27, 20, 3, op=Op.CONV_2D, geometry=Geometry((3, 3), (2, 1), padding=Padding.SAME))
    depthwise = random_layer(rng, 9, 20, 5, op=Op.DEPTHWISE_CONV_2D, geometry=Geometry((3, 3), groups=20))
    dense = random_layer(rng, 20, 7, 4)
    model = Model()
    x = model.tensor([1, 9, 8, 3], scale=first.input_scale, zero_point=first.input_zero_point)
    y = model.layer(model.layer(model.layer(x, first), depthwise), dense)
    interpreter = make_interpreter(model.finish([x], [y]))
    for shape in ((1, 9, 8, 3), (3, 9, 8, 3), (1, 30, 20, 3), (2, 5, 3, 3)):
        data = random_input(rng, *shape)
        expected = reference.run(dense, reference.run(depthwise, reference.run(first, data)))
        np.testing.assert_array_equal(run(interpreter, data)[0], expected)
    assert delegate_nodes(interpreter) == 1


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((1, 9, 8, 4), r"must be \[batch, height, width, .*\[..., 3\]"),
        ((9, 8, 3), r"must be \[batch, height, width"),
        ((1, 2, 8, 3), "window of the convolution is larger"),
    ],
)
def test_an_image_that_does_not_fit_is_refused(make_interpreter, shape, message):
    rng = np.random.default_rng(32)
    layer = random_layer(rng, 27, 20, 3, op=Op.CONV_2D, geometry=Geometry((3, 3)))
    model = Model()
    x = model.tensor(shape, scale=layer.input_scale, zero_point=layer.input_zero_point)
    interpreter = make_interpreter(model.finish([x], [model.layer(x, layer)]))
    with pytest.raises(RuntimeError, match=message):
        interpreter.allocate_tensors()


def test_stock_ops_around_and_between(make_interpreter):
    """x -> A -> B, A + B (stock) -> C: the stock ADD runs where it ran before, on the same numbers."""
    rng = np.random.default_rng(13)
    a, b, c = random_layer(rng, 24, 32), random_layer(rng, 32, 32, 5), random_layer(rng, 32, 4, 2)
    model = Model()
    x = model.input_for(a)
    first = model.layer(x, a)
    total = model.add(first, model.layer(first, b), scale=0.5, zero_point=0)
    interpreter = make_interpreter(model.finish([x], [model.layer(total, c)]))
    for rows in (1, 4):
        data = random_input(rng, rows, 24)
        left, right = expect([a], data).astype(int), expect([a, b], data).astype(int)
        added = np.clip(left + right, -128, 127).astype(np.int8)  # equal scales: a plain sum of codes
        np.testing.assert_array_equal(run(interpreter, data)[0], expect([c], added))


def test_an_output_that_feeds_two_layers_and_is_an_output_itself(make_interpreter):
    rng = np.random.default_rng(14)
    a, b, c, d = (random_layer(rng, 16, 16, bits) for bits in (4, 3, 2, 1))
    model = Model()
    x = model.input_for(a)
    first = model.layer(x, a)
    left, right = model.layer(first, b), model.layer(first, c)
    after = model.layer(left, d)
    interpreter = make_interpreter(model.finish([x], [first, right, after]))
    for rows in (1, 3):
        data = random_input(rng, rows, 16)
        outputs = run(interpreter, data)
        for output, layers in zip(outputs, ([a], [a, c], [a, b, d]), strict=True):
            np.testing.assert_array_equal(output, expect(layers, data))
    assert delegate_nodes(interpreter) == 1


def test_a_layer_whose_output_nobody_reads(make_interpreter):
    rng = np.random.default_rng(15)
    a, b = random_layer(rng, 16, 16), random_layer(rng, 16, 8)
    model = Model()
    x = model.input_for(a)
    model.layer(x, b)
    interpreter = make_interpreter(model.finish([x], [model.layer(x, a)]))
    data = random_input(rng, 2, 16)
    np.testing.assert_array_equal(run(interpreter, data)[0], expect([a], data))


def test_intermediate_tensors_can_be_read_when_all_are_preserved(make_interpreter):
    rng = np.random.default_rng(16)
    layers = [random_layer(rng, 20, 12), random_layer(rng, 12, 9), random_layer(rng, 9, 5)]
    interpreter = make_interpreter(chain(layers), experimental_preserve_all_tensors=True)
    x = random_input(rng, 1, 20)
    run(interpreter, x)
    for index, count in ((2, 1), (4, 2), (6, 3)):
        np.testing.assert_array_equal(interpreter.get_tensor(index), expect(layers[:count], x))


def test_a_model_from_a_file(tmp_path):
    layer = random_layer(np.random.default_rng(21), 8, 3)
    path = tmp_path / "model.tflite"
    path.write_bytes(chain([layer]))
    x = random_input(np.random.default_rng(22), 1, 8)
    for name in (path, str(path)):
        np.testing.assert_array_equal(run(kernels.Interpreter(name, num_threads=2), x)[0], expect([layer], x))


def test_two_interpreters_share_one_model(make_interpreter):
    rng = np.random.default_rng(17)
    layers = [random_layer(rng, 8, 8), random_layer(rng, 8, 3)]
    one, two = (make_interpreter(chain(layers)) for _ in range(2))
    x, y = random_input(rng, 1, 8), random_input(rng, 4, 8)
    np.testing.assert_array_equal(run(one, x)[0], expect(layers, x))
    np.testing.assert_array_equal(run(two, y)[0], expect(layers, y))
    del one
    np.testing.assert_array_equal(run(two, x)[0], expect(layers, x))


def test_a_model_without_packed_layers_still_runs(make_interpreter):
    model = Model()
    x = model.tensor([1, 4], scale=0.5)
    interpreter = make_interpreter(model.finish([x], [model.add(x, x, 0.5, 0)]))
    assert run(interpreter, np.array([[1, 2, 3, -4]], np.int8))[0].tolist() == [[2, 4, 6, -8]]


def model_with(**changes) -> bytes:
    """A layer of 6 inputs and 3 outputs in a model; `changes` say what is wrong about it."""
    layer = random_layer(np.random.default_rng(18), 6, 3, input_zero_point=5, output_zero_point=-9)
    packed = layer.pack()
    if "header" in changes:
        name, value = changes["header"]
        altered = np.frombuffer(packed, np.uint8).copy()
        altered[: HEADER.itemsize].view(HEADER)[name] = value
        packed = altered.tobytes()
    packed = packed[: changes.get("cut")]
    model = Model()
    x = model.tensor(
        changes.get("input_shape", [1, 6]),
        changes.get("input_type", "int8"),
        scale=changes.get("input_scale", 0.5),
        zero_point=changes.get("input_zero_point", 5),
    )
    constant = model.tensor([len(packed)], changes.get("packed_type", "uint8"), data=packed)
    if changes.get("packed_is_an_input"):
        constant = model.tensor([len(packed)], "uint8")
    output = model.tensor(
        [1, 3],
        changes.get("output_type", "int8"),
        scale=changes.get("output_scale", 0.5),
        zero_point=changes.get("output_zero_point", -9),
        name="logits",
    )
    inputs = {"one": [x], "three": [x, constant, constant], "none": [x, -1]}.get(changes.get("inputs"), [x, constant])
    model.custom(inputs, [output])
    return model.finish([x, constant] if changes.get("packed_is_an_input") else [x], [output])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"header": ("magic", 7)}, "SUBB"),
        ({"header": ("version", 2)}, "another version than 1: convert the model again or update subbyte"),
        ({"header": ("weight_bits", 9)}, "weight_bits must be 1 to 8"),
        ({"header": ("op", 2)}, "of another kind than its op"),
        ({"header": ("input_zero_point", 4)}, "input's scale and zero point"),
        ({"header": ("output_zero_point", 4)}, "output's scale and zero point"),
        ({"header": ("input_scale", 0.25)}, "input's scale and zero point"),
        ({"header": ("output_scale", 0.25)}, "output's scale and zero point"),
        ({"cut": -4}, "the file was cut"),
        ({"cut": 50}, "too few bytes"),
        ({"input_shape": [1, 7]}, r"must be \[..., 6\]"),
        ({"input_shape": [6, 1]}, r"must be \[..., 6\]"),
        ({"input_shape": []}, r"must be \[..., 6\]"),
        ({"input_type": "uint8"}, "must be int8"),
        ({"output_type": "float32"}, "must be int8"),
        ({"packed_type": "int8"}, "constant uint8 tensor"),
        ({"packed_is_an_input": True}, "constant uint8 tensor"),
        ({"input_scale": None}, "input's scale and zero point"),
        ({"input_zero_point": 6}, "input's scale and zero point"),
        ({"output_scale": 1.0}, "output's scale and zero point"),
        ({"output_zero_point": 0}, "output's scale and zero point"),
        ({"inputs": "one"}, "two inputs"),
        ({"inputs": "three"}, "two inputs"),
        ({"inputs": "none"}, "two inputs"),
    ],
    ids=str,
)
def test_a_bad_model_gets_a_clear_error(make_interpreter, changes, message):
    interpreter = make_interpreter(model_with(**changes))
    with pytest.raises(RuntimeError, match=message) as caught:
        interpreter.allocate_tensors()
    assert "subbyte: layer 0" in str(caught.value)
    assert ("the input must be" in str(caught.value)) == ("input_shape" in changes)  # no shape where that fits
    assert '"logits"' in str(caught.value) or "two inputs" in str(caught.value)


def test_the_bad_models_differ_from_a_good_one(make_interpreter):
    make_interpreter(model_with()).allocate_tensors()


def test_a_resize_to_another_number_of_inputs_is_refused(make_interpreter):
    interpreter = make_interpreter(model_with())
    interpreter.resize_tensor_input(0, [1, 8])
    with pytest.raises(RuntimeError, match=r"must be \[..., 6\]"):
        interpreter.allocate_tensors()


def test_an_output_that_is_a_constant_is_refused():
    """Writing to it would end the process: a model's file is mapped read-only."""
    layer = random_layer(np.random.default_rng(19), 6, 3)
    model = Model()
    x = model.input_for(layer)
    constant = model.tensor([1, 3], scale=0.5, data=bytes(3))
    packed = layer.pack()
    model.custom([x, model.tensor([len(packed)], "uint8", data=packed)], [constant])
    interpreter = litert_interpreter(model.finish([x], [constant]))
    with pytest.raises(RuntimeError, match="written"):
        interpreter.allocate_tensors()


def cycle_through(kind: str) -> bytes:
    """A packed layer whose output comes to its own input, by the tensors or through other ops."""
    layer = random_layer(np.random.default_rng(23), 8, 8)
    model = Model()
    x = model.input_for(layer)
    packed = layer.pack()
    constant = model.tensor([len(packed)], "uint8", data=packed)
    first, second = (model.tensor([1, 8], scale=0.5) for _ in range(2))
    if kind == "itself":
        model.custom([first, constant], [first])
    elif kind == "the model's input":
        model.custom([x, constant], [x])
    else:
        model.custom([first, constant], [second])
        if kind == "another layer":
            model.custom([second, constant], [first])
        else:
            builtin = schema.BuiltinOperator.ADD, [second, x], [first]
            model.op(*builtin, schema.AddOptionsT(), schema.BuiltinOptions.AddOptions)
    return model.finish([x], [x if kind == "the model's input" else first])


@pytest.mark.parametrize("kind", ["itself", "the model's input", "another layer", "a stock op"])
def test_a_cycle_is_refused(make_interpreter, kind):
    """TensorFlow's own interpreter ends the process once a delegate claims such an op."""
    with pytest.raises(RuntimeError, match=r"op \d writes a tensor that was read before"):
        make_interpreter(cycle_through(kind))


def test_the_delegate_takes_no_options():
    from ai_edge_litert.interpreter import load_delegate

    with pytest.raises(ValueError, match="no options; unknown: speed"):
        load_delegate(str(kernels.delegate_path()), {"speed": "high"})


def python(code: str, **environment: str) -> subprocess.CompletedProcess:
    command = [sys.executable, "-c", code]
    return subprocess.run(command, capture_output=True, text=True, check=False, env={**os.environ, **environment})


def test_the_environment_forces_an_instruction_set():
    code = "from subbyte import kernels; kernels.Interpreter(model_content=b'')"
    unknown = python(code, SUBBYTE_ISA="mmx")
    assert "SUBBYTE_ISA" in unknown.stderr
    assert "mmx" in unknown.stderr
    for isa, runs in kernels.isas().items():
        assert ("SUBBYTE_ISA" in python(code, SUBBYTE_ISA=isa).stderr) == (not runs)


def test_importing_the_kernels_is_cheap():
    code = "import sys, subbyte.kernels; print([n for n in ('tensorflow', 'ai_edge_litert') if n in sys.modules])"
    done = python(code)
    assert done.stdout.strip() == "[]", done.stderr


def test_without_a_runtime_the_error_says_what_to_install():
    block = "import sys; sys.modules.update(dict.fromkeys(('ai_edge_litert', 'tflite_runtime', 'tensorflow')))"
    done = python(f"{block}\nfrom subbyte import kernels; kernels.Interpreter(model_content=b'')")
    assert done.stderr.strip().endswith("ImportError: no TFLite interpreter is installed: pip install 'subbyte[run]'")


def test_damaged_models_never_crash_the_interpreter():
    """In a process of its own; see fuzz_interpreter.py."""
    script = os.path.join(os.path.dirname(__file__), "fuzz_interpreter.py")
    done = subprocess.run([sys.executable, script, "2000"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    accepted, rejected = map(int, done.stdout.split())
    assert accepted > 50
    assert rejected > 500

"""What a .tflite has besides layers comes through a conversion: state, control flow, metadata, names, types of ends.

The oracle is the original file in the stock interpreter, over a sequence of inputs, on one interpreter throughout.
"""

from __future__ import annotations

import functools
import io
import zipfile

import numpy as np
import pytest
import tensorflow as tf
import tflite_corpus
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.interpreter import Interpreter

from subbyte import kernels
from subbyte.converter import convert

pytestmark = pytest.mark.once


def outputs(interpreter: Interpreter, steps: int = 20) -> list[np.ndarray]:
    """The first output over random inputs, in the codes or numbers that the model takes."""
    interpreter.allocate_tensors()
    rng = np.random.default_rng(1)
    seen = []
    for _ in range(steps):
        for detail in interpreter.get_input_details():
            shape, dtype = detail["shape"], detail["dtype"]
            ends = (-1, 1) if dtype == np.float32 else (np.iinfo(dtype).min, np.iinfo(dtype).max)
            interpreter.set_tensor(detail["index"], rng.uniform(*ends, shape).astype(dtype))
        interpreter.invoke()
        seen.append(interpreter.get_tensor(interpreter.get_output_details()[0]["index"]).copy())
    return seen


def kinds(tflite: bytes) -> list[str]:
    from subbyte.converter import Graph

    graph = Graph.read(tflite)
    return [graph.kind(op) for op in graph.operators]


def expect_equal(original: bytes, **arguments) -> None:
    expected = outputs(Interpreter(model_content=original))
    for target, make in (("packed", kernels.Interpreter), ("int8", Interpreter)):
        tflite = convert(original, target=target, io="int8", bits=8, first_last_bits=8, **arguments).tflite
        np.testing.assert_array_equal(outputs(make(model_content=tflite)), expected, err_msg=target)


def ring_buffer() -> bytes:
    """A window over the last 24 inputs, its past in a variable."""
    past, weights = tf.Variable(tf.zeros((1, 16))), tflite_corpus.few_values(24, 5)

    def step(x):
        window = tf.concat([past.read_value(), x], 1)
        past.assign(window[:, 8:])
        return tf.matmul(window, weights)

    return tflite_corpus.convert(step, (1, 8), state=[past])


def running_sum() -> bytes:
    """A state that is assigned and never read in the same step but through the graph's order."""
    total, first, second = (
        tf.Variable(tf.zeros((1, 8))),
        tflite_corpus.few_values(8, 8),
        tflite_corpus.few_values(8, 3, seed=1),
    )

    def step(x):
        before = total.read_value()
        total.assign(0.5 * before + tf.matmul(x, first))
        return tf.matmul(before + x, second)

    return tflite_corpus.convert(step, (1, 8), state=[total])


@pytest.mark.parametrize("build", [ring_buffer, running_sum], ids=lambda build: build.__name__)
def test_state_in_variables_is_kept(build):
    original = build()
    expect_equal(original)
    packed = kinds(convert(original, io="int8", bits=8).tflite)
    for effect in ("CALL_ONCE", "VAR_HANDLE", "READ_VARIABLE", "ASSIGN_VARIABLE"):
        assert packed.count(effect) == kinds(original).count(effect) > 0


def test_exposed_tensors_leave_the_effects_in():
    """Verification looks at inner tensors; a state must go on there as well."""
    from subbyte.converter import Conversion, Graph

    conversion = Conversion.start(ring_buffer(), io="int8", bits=8)
    exposed = Graph.read(conversion.tflite("packed", [conversion.linear_ops[0].outputs[0]]))
    assert "ASSIGN_VARIABLE" in [exposed.kind(op) for op in exposed.operators]


def test_control_flow_is_kept():
    first, second = tflite_corpus.few_values(8, 8), tflite_corpus.few_values(8, 4, seed=1)

    def branches(x):
        y = tf.matmul(x, first)
        y = tf.cond(tf.reduce_sum(x) > 0, lambda: tf.nn.relu(y), lambda: -y)
        return tf.matmul(y, second)

    original = tflite_corpus.convert(branches, (1, 8))
    assert "IF" in kinds(original)
    expect_equal(original)


@functools.cache
def dense() -> bytes:
    first, second = tflite_corpus.few_values(16, 12), tflite_corpus.few_values(12, 4, seed=1)
    return tflite_corpus.convert(lambda x: tf.matmul(tf.nn.relu(tf.matmul(x, first)), second), (1, 16))


def test_metadata_and_associated_files_are_kept():
    def describe(model):
        model.buffers.append(schema.BufferT(data=np.frombuffer(b"what it takes", np.uint8)))
        entry = schema.MetadataT(name=b"TFLITE_METADATA", buffer=len(model.buffers) - 1)
        model.metadata = [*(model.metadata or []), entry]

    stream = io.BytesIO(tflite_corpus.edited(dense(), describe))
    with zipfile.ZipFile(stream, "a") as archive:
        archive.writestr("labels.txt", "yes\nno\n")
    for target in ("packed", "int8"):
        written = convert(stream.getvalue(), target=target, io="int8").tflite
        with zipfile.ZipFile(io.BytesIO(written)) as archive:
            assert archive.read("labels.txt") == b"yes\nno\n"
        model = schema.ModelT.InitFromObj(schema.Model.GetRootAs(written))
        (entry,) = model.metadata  # what TensorFlow's converter says of its own file is gone
        assert bytes(bytearray(model.buffers[entry.buffer].data)) == b"what it takes"
        outputs(kernels.Interpreter(model_content=written))


def test_further_signatures_are_told():
    class Two(tf.Module):
        weights = tf.constant(tflite_corpus.few_values(8, 4))

        @tf.function(input_signature=[tf.TensorSpec((1, 8))])
        def score(self, x):
            return {"score": tf.matmul(x, self.weights)}

        @tf.function(input_signature=[tf.TensorSpec((1, 8))])
        def double(self, x):
            return {"double": x + x}

    module = Two()
    signatures = [module.score.get_concrete_function(), module.double.get_concrete_function()]
    converter = tf.lite.TFLiteConverter.from_concrete_functions(signatures, module)
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    original = converter.convert()
    model = schema.ModelT.InitFromObj(schema.Model.GetRootAs(original))
    assert len(model.subgraphs) == 2

    from subbyte.converter.conversion import _other_signatures
    from subbyte.converter.graph import Graph

    (note,) = _other_signatures(Graph.read(original))
    assert "stays as it was" in note


def test_what_the_stock_interpreter_reads_is_read():
    def old_fashioned(model):
        for tensor in model.subgraphs[0].tensors:
            if model.buffers[tensor.buffer].data is None:
                tensor.buffer = 0
        model.buffers[0].data = np.zeros(0, np.uint8)
        model.subgraphs[0].tensors[-2].name = "größe".encode("latin-1")

    expect_equal(tflite_corpus.edited(dense(), old_fashioned))


def test_a_vector_of_scales_has_one_dimension():
    """As public files have it: the dimension of the kernel at the bias, which no interpreter loads."""
    depthwise, head = np.random.default_rng(3).normal(size=(5, 5, 16, 1)), tflite_corpus.few_values(16, 4)
    bias = np.linspace(-1, 1, 16)

    def net(x):
        y = tf.nn.relu(tf.nn.depthwise_conv2d(x, depthwise.astype(np.float32), (1, 1, 1, 1), "SAME") + bias)
        return tf.matmul(tf.reduce_mean(y, (1, 2)), head)

    def move(model):
        for tensor in model.subgraphs[0].tensors:
            scales = None if tensor.quantization is None else tensor.quantization.scale
            if scales is not None and len(scales) == 16 and len(tensor.shape) == 1:
                tensor.quantization.quantizedDimension = 3

    plain = tflite_corpus.convert(net, (1, 8, 8, 16))
    expected = outputs(Interpreter(model_content=plain))
    odd = tflite_corpus.edited(plain, move)
    for bits in (None, 8):
        written = convert(odd, io="int8", bits=bits, prefer=None).tflite
        np.testing.assert_array_equal(outputs(kernels.Interpreter(model_content=written)), expected)


def test_ends_in_uint8_become_what_is_asked_for():
    first, second = tflite_corpus.few_values(16, 12), tflite_corpus.few_values(12, 4, seed=1)
    call = lambda x: tf.matmul(tf.nn.relu(tf.matmul(x, first)), second)  # noqa: E731
    original = tflite_corpus.convert(call, (1, 16), inference_input_type=tf.uint8, inference_output_type=tf.uint8)
    expected = outputs(Interpreter(model_content=dense()))
    int8 = convert(original, io="int8", prefer=None)
    np.testing.assert_array_equal(outputs(kernels.Interpreter(model_content=int8.tflite)), expected)
    assert not any("QuantActivation" in note for note in int8.notes)
    floats = kernels.Interpreter(model_content=convert(original, io="float32", prefer=None).tflite)
    floats.allocate_tensors()
    ends = (*floats.get_input_details(), *floats.get_output_details())
    assert {detail["dtype"] for detail in ends} == {np.float32}


def test_any_batch_runs():
    weights, head = tflite_corpus.few_values(3, 3, 1, 8), tflite_corpus.few_values(8 * 8 * 8, 5, seed=1)

    def net(x):
        y = tf.nn.relu(tf.nn.conv2d(x, weights, 1, "SAME"))
        return tf.matmul(tf.reshape(y, (1, -1)), head)

    original = tflite_corpus.convert(net, (1, 8, 8, 1))
    x = np.random.default_rng(0).integers(-128, 128, (6, 8, 8, 1)).astype(np.int8)

    def run(interpreter, batch):
        detail = interpreter.get_input_details()[0]
        interpreter.resize_tensor_input(detail["index"], batch.shape)
        interpreter.allocate_tensors()
        interpreter.set_tensor(detail["index"], batch)
        interpreter.invoke()
        return interpreter.get_tensor(interpreter.get_output_details()[0]["index"])

    expected = np.concatenate([run(Interpreter(model_content=original), row[None]) for row in x])
    for target, make in (("packed", kernels.Interpreter), ("int8", Interpreter)):
        written = convert(original, target=target, io="int8", bits=8).tflite
        np.testing.assert_array_equal(run(make(model_content=written), x), expected)

"""Small `.tflite` files made with TensorFlow's converter, one for each form that such files take.

Every builder gives the bytes of one file. Weights take 15 values where nothing else is said, so that a layer in int8
packs without loss.
"""

from __future__ import annotations

import functools
import io
import tempfile
import zipfile
from collections.abc import Callable, Sequence
from typing import Any

import flatbuffers
import numpy as np
import tensorflow as tf
from ai_edge_litert import schema_py_generated as schema
from models import Model

#: By the name of the form.
FORMS: dict[str, Callable[[], bytes]] = {}

_OPS = tf.lite.OpsSet


def form(build: Callable[[], bytes]) -> Callable[[], bytes]:
    """Puts a builder into `FORMS`; its file is made once."""
    FORMS[build.__name__] = functools.cache(build)
    return FORMS[build.__name__]


def few_values(*shape: int, seed: int = 0) -> np.ndarray:
    """Weights of 15 values; every channel has the largest."""
    weights = np.random.default_rng(seed).integers(-7, 8, shape)
    weights.reshape(-1, shape[-1])[0] = 7
    return (weights / 16).astype(np.float32)


def many_values(*shape: int) -> np.ndarray:
    """Weights that need all 8 bits."""
    return np.random.default_rng(0).normal(size=shape).astype(np.float32)


def convert(
    call: Callable,
    *shapes: tuple[int, ...],
    state: Sequence[Any] = (),
    ops: Sequence[Any] = (),
    types: Sequence[Any] = (),
    **settings: Any,
) -> bytes:
    """`call`, a function of float tensors of these shapes, through TensorFlow's converter: by default all in int8."""
    rng, module = np.random.default_rng(0), tf.Module()
    module.state = list(state)
    module.call = tf.function(call, input_signature=[tf.TensorSpec(shape, tf.float32) for shape in shapes])
    converter = tf.lite.TFLiteConverter.from_concrete_functions([module.call.get_concrete_function()], module)
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.representative_dataset = lambda: (
        [rng.normal(size=shape).astype(np.float32) for shape in shapes] for _ in range(50)
    )
    converter.target_spec.supported_ops = list(ops or [_OPS.TFLITE_BUILTINS_INT8])
    converter.target_spec.supported_types = list(types)
    converter.inference_input_type = converter.inference_output_type = tf.int8
    if state:
        converter.experimental_enable_resource_variables = True
        converter._experimental_variable_quantization = True
    for name, value in settings.items():
        setattr(converter, name, value)
    return converter.convert()


def edited(tflite: bytes, change: Callable[[Any], None]) -> bytes:
    """The file after `change` of its object tree."""
    model = schema.ModelT.InitFromObj(schema.Model.GetRootAs(tflite))
    change(model)
    builder = flatbuffers.Builder(1 << 16)
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())


def in_uint8(tflite: bytes, zero_point: int, few: bool = True) -> bytes:
    """An int8 file with one scale a tensor as files before 2020 are: activations and weights in uint8.

    The weights get a zero point, and 16 values in steps of 3, which no stock 4-bit op holds, or all 256; what the zero
    point takes below 0 is cut off.
    """

    def to_uint8(model: Any) -> None:
        for tensor in model.subgraphs[0].tensors:
            if tensor.type != schema.TensorType.INT8:
                continue
            tensor.type, quantization = schema.TensorType.UINT8, tensor.quantization
            buffer = model.buffers[tensor.buffer]
            if buffer.data is None:
                quantization.zeroPoint = np.asarray(quantization.zeroPoint) + 128
                continue
            weights = np.asarray(buffer.data, np.uint8).view(np.int8).astype(int)
            if few:
                weights, quantization.scale = 3 * (weights // 16), np.asarray(quantization.scale) * 16 / 3
            buffer.data = np.clip(weights + zero_point, 0, 255).astype(np.uint8)
            if not few:
                buffer.data[:2] = 0, 255
            quantization.zeroPoint = np.asarray([zero_point])

    return edited(tflite, to_uint8)


def two_layers(x: Any) -> Any:
    return tf.matmul(tf.nn.relu(tf.matmul(x, few_values(16, 12))), few_values(12, 4, seed=1))


_FLOAT_ENDS = {"inference_input_type": tf.float32, "inference_output_type": tf.float32}


@form
def dense() -> bytes:
    return convert(two_layers, (1, 16))


@form
def dense_of_all_values() -> bytes:
    return convert(lambda x: tf.matmul(x, many_values(64, 16)), (1, 64))


@form
def float_ends() -> bytes:
    return convert(two_layers, (1, 16), **_FLOAT_ENDS)


@form
def uint8_ends() -> bytes:
    return convert(two_layers, (1, 16), inference_input_type=tf.uint8, inference_output_type=tf.uint8)


@form
def int16_activations() -> bytes:
    ops = [_OPS.EXPERIMENTAL_TFLITE_BUILTINS_ACTIVATIONS_INT16_WEIGHTS_INT8]
    return convert(two_layers, (1, 16), ops=ops, inference_input_type=tf.int16, inference_output_type=tf.int16)


def every_kind_of_layer() -> bytes:
    """In int8, with stock ops between the layers."""

    def net(x: Any) -> Any:
        y = tf.nn.relu6(tf.nn.conv2d(x, many_values(3, 3, 3, 8), 2, "SAME") + many_values(8))
        y = tf.nn.depthwise_conv2d(tf.nn.avg_pool2d(y, 2, 1, "VALID"), many_values(3, 3, 8, 1), (1, 1, 1, 1), "VALID")
        both = tf.concat([y, tf.nn.conv2d(y, many_values(1, 1, 8, 8), 1, "VALID")], 3)
        return tf.nn.softmax(0.1 * tf.matmul(tf.reshape(both, (1, -1)), many_values(64, 4)))

    return convert(net, (1, 10, 10, 3), _experimental_disable_per_channel=True)


@form
def uint8() -> bytes:
    return in_uint8(every_kind_of_layer(), zero_point=128)


@form
def uint8_off_centre() -> bytes:
    """Weights of few values, with a zero point far from the middle."""
    return in_uint8(every_kind_of_layer(), zero_point=201)


@form
def uint8_of_all_values() -> bytes:
    return in_uint8(every_kind_of_layer(), zero_point=121, few=False)


@form
def one_scale_for_all_channels() -> bytes:
    return convert(two_layers, (1, 16), _experimental_disable_per_channel=True)


@form
def fixed_batch_of_four() -> bytes:
    return convert(two_layers, (4, 16))


@form
def rank_three() -> bytes:
    return convert(lambda x: tf.tensordot(x, few_values(16, 8), 1), (1, 5, 16))


@form
def no_batch_dimension() -> bytes:
    return convert(lambda x: tf.reshape(two_layers(tf.reshape(x, (1, 16))), (4,)), (16,))


@form
def convolution() -> bytes:
    def net(x: Any) -> Any:
        y = tf.nn.relu6(tf.nn.conv2d(x, few_values(3, 3, 3, 8), 2, "SAME"))
        y = tf.nn.depthwise_conv2d(y, few_values(3, 3, 8, 1), (1, 1, 1, 1), "VALID")
        return tf.matmul(tf.reshape(y, (1, -1)), few_values(72, 4))

    return convert(net, (1, 10, 10, 3))


@form
def transposed_convolution() -> bytes:
    def net(x: Any) -> Any:
        y = tf.nn.conv2d_transpose(x, few_values(3, 3, 4, 8), (1, 10, 10, 4), 2)
        return tf.nn.conv2d(y, few_values(1, 1, 4, 8), 1, "SAME")

    return convert(net, (1, 5, 5, 8))


@form
def several_inputs_and_outputs() -> bytes:
    def net(x: Any, y: Any) -> tuple[Any, Any]:
        both = tf.matmul(tf.concat([x, y], 1), few_values(24, 8))
        return tf.matmul(both, few_values(8, 3)), tf.nn.relu(both)

    return convert(net, (1, 16), (1, 8))


@form
def one_tensor_as_two_outputs() -> bytes:
    def net(x: Any) -> dict[str, Any]:
        y = two_layers(x)
        return {"first": y, "second": y}

    return convert(net, (1, 16))


@form
def softmax() -> bytes:
    return convert(lambda x: tf.nn.softmax(two_layers(x)), (1, 16))


@form
def log_softmax() -> bytes:
    return convert(lambda x: tf.nn.log_softmax(two_layers(x)), (1, 16))


@form
def int32_output() -> bytes:
    return convert(lambda x: tf.argmax(two_layers(x), 1, tf.int32), (1, 16), **_FLOAT_ENDS)


@form
def float_weights() -> bytes:
    return convert(two_layers, (1, 16), optimizations=[], representative_dataset=None, ops=[_OPS.TFLITE_BUILTINS],
                   **_FLOAT_ENDS)  # fmt: skip


@form
def hybrid() -> bytes:
    """Weights in int8, activations in float."""
    return convert(lambda x: tf.matmul(x, many_values(64, 64)), (1, 64), representative_dataset=None,
                   ops=[_OPS.TFLITE_BUILTINS], **_FLOAT_ENDS)  # fmt: skip


@form
def float16_weights() -> bytes:
    return convert(two_layers, (1, 16), representative_dataset=None, ops=[_OPS.TFLITE_BUILTINS],
                   types=[tf.float16], **_FLOAT_ENDS)  # fmt: skip


@form
def branches() -> bytes:
    def net(x: Any) -> Any:
        y = tf.matmul(x, few_values(16, 12))
        y = tf.cond(tf.reduce_sum(x) > 0, lambda: tf.nn.relu(y), lambda: -y)
        return tf.matmul(y, few_values(12, 4, seed=1))

    return convert(net, (1, 16))


@form
def loop() -> bytes:
    def net(x: Any) -> Any:
        y = tf.matmul(x, few_values(16, 12))
        _, y = tf.while_loop(lambda i, _: i < 3, lambda i, y: (i + 1, tf.nn.relu(y) - 0.1), (tf.constant(0), y))
        return tf.matmul(y, few_values(12, 4, seed=1))

    return convert(net, (1, 16))


@form
def variables() -> bytes:
    past = tf.Variable(tf.zeros((1, 16)))

    def step(x: Any) -> Any:
        window = tf.concat([past.read_value(), x], 1)
        past.assign(window[:, 8:])
        return tf.matmul(window, few_values(24, 5))

    return convert(step, (1, 8), state=[past])


@form
def variable_behind_a_layer() -> bytes:
    """A state that no output of the same step depends on."""
    total = tf.Variable(tf.zeros((1, 8)))

    def step(x: Any) -> Any:
        before = total.read_value()
        total.assign(0.5 * before + tf.matmul(x, few_values(8, 8)))
        return tf.matmul(before + x, few_values(8, 3, seed=1))

    return convert(step, (1, 8), state=[total])


@form
def hash_table() -> bytes:
    """The largest class, looked up in a table."""
    keys, values = tf.range(4, dtype=tf.int64), tf.constant(["a", "b", "c", "d"])
    table = tf.lookup.StaticHashTable(tf.lookup.KeyValueTensorInitializer(values, keys), -1)

    def net(x: Any) -> Any:
        found = tf.gather(values, tf.argmax(two_layers(x), 1))
        return tf.cast(table.lookup(found), tf.int32)

    return convert(net, (1, 16), ops=[_OPS.TFLITE_BUILTINS_INT8, _OPS.TFLITE_BUILTINS], state=[table], **_FLOAT_ENDS)


@form
def metadata() -> bytes:
    def add(model: Any) -> None:
        model.buffers.append(schema.BufferT(data=np.frombuffer(b"what it takes and gives", np.uint8)))
        model.metadata = [*(model.metadata or []), schema.MetadataT(b"TFLITE_METADATA", len(model.buffers) - 1)]

    stream = io.BytesIO(edited(dense(), add))
    with zipfile.ZipFile(stream, "a") as archive:
        archive.writestr("labels.txt", "yes\nno\n")
    return stream.getvalue()


@form
def empty_buffer_for_computed_tensors() -> bytes:
    def empty(model: Any) -> None:
        for tensor in model.subgraphs[0].tensors:
            if model.buffers[tensor.buffer].data is None:
                tensor.buffer = 0
        model.buffers[0].data = np.zeros(0, np.uint8)

    return edited(dense(), empty)


@form
def names_in_latin_1() -> bytes:
    def rename(model: Any) -> None:
        main = model.subgraphs[0]
        for index in set(range(len(main.tensors))) - {*main.inputs, *main.outputs}:  # Python cannot ask for the ends
            main.tensors[index].name = b"caf\xe9" + (main.tensors[index].name or b"")

    return edited(dense(), rename)


@form
def sparse_weights() -> bytes:
    return convert(lambda x: tf.matmul(x, np.where(many_values(64, 64) > 1.5, 1, 0).astype(np.float32)), (1, 64),
                   optimizations=[tf.lite.Optimize.DEFAULT, tf.lite.Optimize.EXPERIMENTAL_SPARSITY])  # fmt: skip


@form
def lstm() -> bytes:
    """TensorFlow's converter fuses the loop of a layer of Keras 2 alone."""
    import tf_keras

    tf_keras.utils.set_random_seed(0)
    layers = [tf_keras.Input((6, 4), batch_size=1), tf_keras.layers.LSTM(8), tf_keras.layers.Dense(3)]
    model, rng = tf_keras.Sequential(layers), np.random.default_rng(0)
    model.layers[-1].set_weights([few_values(8, 3), np.zeros(3)])
    converter = tf.lite.TFLiteConverter.from_keras_model(model)
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.representative_dataset = lambda: ([rng.normal(size=(1, 6, 4)).astype(np.float32)] for _ in range(20))
    converter.target_spec.supported_ops = [_OPS.TFLITE_BUILTINS_INT8]
    converter.inference_input_type = converter.inference_output_type = tf.int8
    return converter.convert()


@form
def svdf() -> bytes:
    """A streaming layer with a state in int16, as wake words have it; the converter of today makes none."""
    rng, model = np.random.default_rng(0), Model()
    inputs, filters, memory, rank = 16, 8, 5, 2
    x = model.tensor([1, inputs], scale=0.02)
    features = model.tensor([filters, inputs], scale=0.01, data=rng.integers(-127, 128, (filters, inputs), "i1"))
    time = model.tensor([filters, memory], "int16", 2e-5, data=rng.integers(-30000, 30001, (filters, memory), "<i2"))
    bias = model.tensor([filters // rank], "int32", 2e-5 * 2e-4, data=rng.integers(-9999, 9999, filters // rank, "<i4"))
    state = model.tensor([1, filters * memory], "int16", 2e-4)
    model.tensors[state].isVariable = True
    y = model.tensor([1, filters // rank], scale=0.05)
    options = schema.SVDFOptionsT()
    options.rank, options.fusedActivationFunction = rank, schema.ActivationFunctionType.RELU
    tensors = [x, features, time, bias, state]
    model.op(schema.BuiltinOperator.SVDF, tensors, [y], options, schema.BuiltinOptions.SVDFOptions)
    weights = rng.integers(-7, 8, (3, filters // rank))
    return model.finish([x], [model.fully_connected(y, weights, rng.integers(-99, 99, 3), np.float32([0.05]))])


@form
def recurrent_step() -> bytes:
    """One step of a stateful recurrent layer: its state is a variable."""
    state = tf.Variable(tf.zeros((1, 8)))

    def step(x: Any) -> Any:
        new = tf.tanh(tf.matmul(x, few_values(4, 8)) + tf.matmul(state.read_value(), few_values(8, 8, seed=1)))
        state.assign(new)
        return tf.matmul(new, few_values(8, 3, seed=2))

    return convert(step, (1, 4), state=[state])


@form
def int64_and_bool_outputs() -> bytes:
    def net(x: Any) -> dict[str, Any]:
        y = two_layers(x)
        return {"class": tf.argmax(y, 1, tf.int64), "sure": tf.reduce_max(y, 1) > 0.5}

    return convert(net, (1, 16), ops=[_OPS.TFLITE_BUILTINS_INT8, _OPS.TFLITE_BUILTINS], **_FLOAT_ENDS)


@form
def several_signatures() -> bytes:
    """Each runs a subgraph of its own."""

    class Two(tf.Module):
        @tf.function(input_signature=[tf.TensorSpec((1, 16), tf.float32, name="x")])
        def score(self, x: Any) -> Any:
            return {"score": two_layers(x)}

        @tf.function(input_signature=[tf.TensorSpec((1, 16), tf.float32, name="x")])
        def embed(self, x: Any) -> Any:
            return {"embedding": tf.nn.relu(tf.matmul(x, few_values(16, 12)))}

    module, rng = Two(), np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as folder:
        tf.saved_model.save(module, folder, signatures={"score": module.score, "embed": module.embed})
        converter = tf.lite.TFLiteConverter.from_saved_model(folder, signature_keys=["score", "embed"])
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
        converter.representative_dataset = lambda: (
            (key, {"x": rng.normal(size=(1, 16)).astype(np.float32)}) for key in ("score", "embed") * 20
        )
        converter.target_spec.supported_ops = [_OPS.TFLITE_BUILTINS_INT8]
        return converter.convert()

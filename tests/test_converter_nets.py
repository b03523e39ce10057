"""Every net in `nets`, converted once: packed ops, stock int8 ops and Keras give the same codes."""

import functools
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from ai_edge_litert.interpreter import Interpreter as StockInterpreter
from ai_edge_litert.interpreter import OpResolverType
from nets import CONVOLUTIONAL, FIXED_BATCH, NETS, PROMISES, SIXTEEN_BITS, ready

from subbyte import converter, kernels
from subbyte.converter import packed_target
from subbyte.converter.bounds import keras_bounds
from subbyte.converter.conversion import Conversion
from subbyte.converter.graph import Graph
from subbyte.converter.sizes import Footprint
from subbyte.converter.verification import verify

#: Spreads of the inputs: hardly anything, what the nets expect, far beyond every bound.
SPREADS = (0.1, 2.0, 40.0)
SAMPLES = 102
EXACT = [name for name in NETS if name not in PROMISES]


#: Ops of the packed models. In int8, "SubbyteConv2D" is CONV_2D and so on.
OPS = {
    "resnet": {
        "QUANTIZE": 1, "DEQUANTIZE": 1, "SubbyteConv2D": 5, "SubbyteFullyConnected": 1, "ADD": 1, "CONCATENATION": 1,
        "MAX_POOL_2D": 1, "AVERAGE_POOL_2D": 1,
        "PAD": 2,  # ZeroPadding2D, and the causal layer's
        "RESHAPE": 4,  # to 1-D, on a height of 1, back, Flatten
    },
    "ds_cnn": {
        "QUANTIZE": 1, "DEQUANTIZE": 1, "SubbyteConv2D": 3, "SubbyteDepthwiseConv2D": 2, "MEAN": 1,
        "SubbyteFullyConnected": 1,
    },
    "tc_resnet": {
        "QUANTIZE": 1, "DEQUANTIZE": 1, "SubbyteConv2D": 6, "ADD": 2, "MEAN": 1, "SubbyteFullyConnected": 1,
        "RESHAPE": 2,  # to a height of 1, which the Adds keep, and back for the mean
    },
}  # fmt: skip
STOCK = {
    "SubbyteConv2D": "CONV_2D",
    "SubbyteDepthwiseConv2D": "DEPTHWISE_CONV_2D",
    "SubbyteFullyConnected": "FULLY_CONNECTED",
}


@functools.cache
def converted(name: str):
    """(model, conversion, inputs by name) of a net."""
    model = ready(name)
    conversion = Conversion.start(model)
    rng = np.random.default_rng(list(name.encode()))
    inputs = {}
    for key, tensor in conversion.graph.named("inputs").items():
        shape = conversion.graph.shape(tensor)[1:]
        spread = np.resize(SPREADS, SAMPLES).reshape(-1, *[1] * len(shape))
        inputs[key] = (spread * rng.normal(size=(SAMPLES, *shape))).astype(np.float32)
        if name in SIXTEEN_BITS:
            inputs[key] = off_ties(inputs[key])
    return model, conversion, inputs


def off_ties(x: np.ndarray) -> np.ndarray:
    """The inputs a little aside of where QUANTIZE is halfway between int16 codes: its kernels differ there."""
    return ((2 * np.floor(x * 2.0**14) + 1) * 2.0**-15).astype(np.float32)


def run(interpreter, inputs: dict[str, np.ndarray], batch: int = 1) -> dict[str, np.ndarray]:
    """Outputs by name, [samples, ...], of a model with a signature."""
    runner = interpreter.get_signature_runner()
    taken = {name: detail["index"] for name, detail in runner.get_input_details().items()}
    given = {name: detail["index"] for name, detail in runner.get_output_details().items()}
    del runner
    if batch > 1:
        for name, index in taken.items():
            interpreter.resize_tensor_input(index, [batch, *inputs[name].shape[1:]])
    interpreter.allocate_tensors()
    columns: dict[str, list[np.ndarray]] = {name: [] for name in given}
    for start in range(0, len(next(iter(inputs.values()))), batch):
        for name, index in taken.items():
            interpreter.set_tensor(index, inputs[name][start : start + batch])
        interpreter.invoke()
        for name, index in given.items():
            columns[name].append(interpreter.get_tensor(index))
    return {name: np.concatenate(column) for name, column in columns.items()}


def stock(data: bytes, resolver=OpResolverType.AUTO):
    return StockInterpreter(model_content=data, experimental_op_resolver_type=resolver)


@functools.cache
def outputs(name: str, target: str) -> dict[str, np.ndarray]:
    _, conversion, inputs = converted(name)
    data = conversion.tflite(target)
    return run(kernels.Interpreter(model_content=data) if target == "packed" else stock(data), inputs)


def in_keras(name: str) -> dict[str, np.ndarray]:
    """What `model.predict` gives, by the deployed names."""
    model, conversion, inputs = converted(name)
    order = [inputs[x.name.split(":")[0]] for x in model.inputs]
    # In one batch: TensorFlow traces the model again for a last batch of another size.
    values = model.predict(order[0] if len(order) == 1 else order, batch_size=SAMPLES, verbose=0)
    values = values if isinstance(values, list | tuple) else [values]
    assert list(conversion.graph.named("outputs")) == [f"output_{i}" for i in range(len(values))]
    return {f"output_{i}": value for i, value in enumerate(values)}


def assert_same(ours: dict[str, np.ndarray], theirs: dict[str, np.ndarray]) -> None:
    assert ours.keys() == theirs.keys()
    for key in ours:
        np.testing.assert_array_equal(ours[key], theirs[key])


@pytest.mark.once
@pytest.mark.parametrize("name", NETS)
def test_packed_equals_the_int8_target_on_xnnpack(name):
    packed = outputs(name, "packed")
    assert all(len(np.unique(values)) > 5 for values in packed.values())
    assert_same(outputs(name, "int8"), packed)


@pytest.mark.once
# Stock reference convolutions round twice: test_converter_conv.py has their rule.
@pytest.mark.parametrize("name", [name for name in NETS if name not in CONVOLUTIONAL])
def test_packed_equals_the_int8_target_on_the_reference_kernels(name):
    packed = outputs(name, "packed")
    _, conversion, inputs = converted(name)
    # Stock ops between the layers (Add, Softmax, QUANTIZE) have reference kernels that round in another way.
    stock_ops = PROMISES.get(name) == "stock" or name == "other_width_behind"
    few = {key: values[: SAMPLES if stock_ops else 51] for key, values in inputs.items()}
    reference = run(stock(conversion.tflite("int8"), OpResolverType.BUILTIN_REF), few)
    if stock_ops:
        packed = run(
            kernels.Interpreter(
                model_content=conversion.tflite("packed"), experimental_op_resolver_type=OpResolverType.BUILTIN_REF
            ),
            few,
        )
    assert_same(reference, {key: values[: len(next(iter(few.values())))] for key, values in packed.items()})


@pytest.mark.once
@pytest.mark.parametrize("name", NETS)
def test_an_output_is_listed_once(name):
    """Also where an activation quantizer, whose output is looked at during conversion, is the last layer."""
    _, conversion, _ = converted(name)
    assert sorted(conversion.graph.outputs) == sorted(set(conversion.graph.named("outputs").values()))


@pytest.mark.parametrize("name", EXACT)
def test_predict_gives_what_the_packed_model_gives(name):
    assert_same(in_keras(name), outputs(name, "packed"))


@pytest.mark.parametrize("name", [name for name, promise in PROMISES.items() if promise == "close"])
def test_a_close_net_stays_within_its_bounds(name):
    _, conversion, _ = converted(name)
    bounds = keras_bounds(conversion.graph)
    packed, keras = outputs(name, "packed"), in_keras(name)
    for key, tensor in conversion.graph.named("outputs").items():
        scale = conversion.graph.quantization(int(conversion.graph.producer(tensor).inputs[0]))[0]
        difference = np.rint(np.abs(packed[key] - keras[key]) / scale)
        assert bounds[tensor].share > 0
        assert np.mean(difference > 0) <= min(bounds[tensor].share, 0.05)
        assert difference.max() <= bounds[tensor].codes


@pytest.mark.once
@pytest.mark.parametrize("name", [name for name in EXACT if name not in FIXED_BATCH])
def test_a_batch_gives_what_single_samples_give(name):
    _, conversion, inputs = converted(name)
    data = conversion.tflite("packed")
    assert_same(run(kernels.Interpreter(model_content=data), inputs, batch=17), outputs(name, "packed"))


@pytest.mark.parametrize(
    "name", ["narrow_activations", "stock_between", "used_twice", "causal", "every_width_on_int16", *PROMISES]
)
def test_verification_agrees_and_covers_every_layer(name):
    _, conversion, inputs = converted(name)
    few = {key: values[:24] for key, values in inputs.items()}
    comparisons = verify(conversion, few)
    assert all(comparison.passed for comparison in comparisons)
    for against in ("int8 target", "Keras"):
        layers = [comparison.layer for comparison in comparisons if comparison.against == against]
        assert layers[: len(conversion.linear_ops)] == [op.layer for op in conversion.linear_ops]
    promised = [comparison.bound for comparison in comparisons if comparison.against == "Keras"]
    if name in EXACT:
        assert all(bound is not None and bound.codes == 0 for bound in promised)


@pytest.mark.once
@pytest.mark.parametrize("what", ["weight", "bias"])
def test_verification_finds_one_wrong_number_in_the_packed_model(what, monkeypatch):
    """A packer that writes one weight or bias of the third layer wrong."""
    _, conversion, inputs = converted("linear_quantizer")
    packed_layer = packed_target.packed_layer
    victim = conversion.linear_ops[2].layer

    def sabotaged(graph, op):
        layer = packed_layer(graph, op)
        if op.layer != victim:
            return layer
        if what == "bias":
            return replace(layer, bias=layer.bias + 40 * (np.arange(len(layer.bias)) == 3).astype(np.int32))
        codes = layer.codes.copy()
        codes[3, 5] ^= 1
        return replace(layer, codes=codes)

    monkeypatch.setattr(packed_target, "packed_layer", sabotaged)
    comparisons = verify(conversion, inputs)
    failed = {(c.layer, c.against) for c in comparisons if not c.passed}
    assert {(victim, "int8 target"), (victim, "Keras")} <= failed
    before = [op.layer for op in conversion.linear_ops[:2]]
    assert not [layer for layer, _ in failed if layer in before]


@pytest.mark.once
@pytest.mark.parametrize(("name", "io"), [("several_inputs_and_outputs", np.int8), ("every_width_on_int16", np.int16)])
def test_quantized_inputs_and_outputs_give_the_same_codes(name, io):
    model, _, inputs = converted(name)
    interpreter = kernels.Interpreter(model_content=converter.convert(model, io=io.__name__).tflite)
    runner = interpreter.get_signature_runner()
    taken, made = runner.get_input_details(), runner.get_output_details()
    del runner
    codes = {}
    for key, detail in taken.items():
        assert detail["dtype"] == io
        scale, zero_point = detail["quantization"]
        ends = np.iinfo(io)
        codes[key] = np.clip(np.rint(inputs[key] / scale) + zero_point, ends.min, ends.max).astype(io)
    given = run(interpreter, codes)
    for key, detail in made.items():
        scale, zero_point = detail["quantization"]
        assert given[key].dtype == io
        given[key] = (given[key].astype(np.float32) - zero_point) * np.float32(scale)
    assert_same(given, outputs(name, "packed"))


@pytest.mark.parametrize("name", OPS)
def test_every_stock_layer_between_is_one_int8_op(name):
    _, conversion, _ = converted(name)
    for target in ("packed", "int8"):
        graph = Graph.read(conversion.tflite(target))
        expected = {STOCK.get(kind, kind) if target == "int8" else kind: count for kind, count in OPS[name].items()}
        assert Counter(graph.kind(op) for op in graph.operators) == expected


@pytest.mark.once
def test_the_report_has_the_shapes_of_keras():
    _, conversion, _ = converted("windows")
    result = conversion.write()
    assert [(layer.op, layer.shape) for layer in result.layers][:5] == [
        ("SubbyteConv2D", (3, 3, 3, 7)),
        ("SubbyteConv2D", (1, 1, 7, 10)),
        ("SubbyteConv2D", (5, 4, 10, 6)),
        ("SubbyteDepthwiseConv2D", (3, 3, 6, 2)),
        ("SubbyteConv2D", (2, 3, 4, 9)),
    ]
    assert [layer.weights for layer in result.layers] == [int(np.prod(layer.shape)) for layer in result.layers]
    assert sum(layer.stored_bytes for layer in result.layers) < len(result.tflite)


@pytest.mark.once
def test_scales_of_few_bits_take_two_bytes_a_channel():
    _, conversion, _ = converted("two_bytes_a_channel")
    shared = 4  # the smallest multiplier, once for each layer
    records = [layer.records - shared for layer in Footprint.of(conversion.tflite("packed")).layers]
    assert records == [2 * 87, 2 * 87, 2 * 87, 2 * 87, 2 * 3]


@pytest.mark.once
def test_16_bit_activations_have_8_bit_containers_alone():
    """The stock interpreter has no op of 4-bit weights between int16 tensors."""
    _, conversion, _ = converted("every_width_on_int16")
    assert conversion.tflite("int4") == conversion.tflite("int8")
    assert {layer.weight_bits for layer in conversion.write("int4").layers} == {8}
    assert [layer.weight_bits for layer in conversion.write().layers] == [*range(1, 9), 8]


@pytest.mark.once
@pytest.mark.parametrize(("name", "exact"), [("linear_quantizer", False), ("odd_codes", True)])
def test_the_int4_target_is_within_one_code_a_layer(name, exact):
    """Stock 4-bit kernels requantize by an older rule: one code off where a multiplier is above one half."""
    _, conversion, inputs = converted(name)
    points = [op.outputs[0] for op in conversion.linear_ops]
    found = {}
    for target in ("int8", "int4"):
        interpreter = stock(conversion.tflite(target, points))
        interpreter.allocate_tensors()
        x = interpreter.get_input_details()[0]["index"]
        rows = []
        for sample in next(iter(inputs.values())):
            interpreter.set_tensor(x, sample[None])
            interpreter.invoke()
            rows.append([interpreter.get_tensor(d["index"]) for d in interpreter.get_output_details()])
        found[target] = [np.concatenate(column).astype(int) for column in zip(*rows, strict=True)]
    multiplier = max(packed_target.packed_layer(conversion.graph, op).multiplier.max() for op in conversion.linear_ops)
    assert (multiplier < 0.5) == exact
    differences = [np.abs(four - eight) for four, eight in zip(found["int4"], found["int8"], strict=True)]
    # Behind the first layer, the inputs differ as well.
    assert max(d.max() for d in differences) == 0 if exact else differences[0].max() == 1
    assert np.mean(differences[0] > 0) < 0.1

"""`verify` feeds every form of model, compares all that it gives, and finds what is wrong in it.

The oracle is the sabotage: a packer that writes one weight wrong, a graph that loses its state.
"""

from __future__ import annotations

import copy
from dataclasses import replace

import numpy as np
import pytest
import tensorflow as tf
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.interpreter import Interpreter
from nets import small_net
from tflite_corpus import FORMS, convert, edited, few_values

from subbyte.converter import ConversionError, packed_target, verification
from subbyte.converter.bounds import Bound
from subbyte.converter.comparison import compare, compare_outputs
from subbyte.converter.conversion import Conversion
from subbyte.converter.feeding import End, Feed, signatures
from subbyte.converter.graph import Graph
from subbyte.converter.verification import verify

pytestmark = pytest.mark.once

STATEFUL = ("variables", "variable_behind_a_layer")
FED = (
    "dense", "float_ends", "uint8_ends", "fixed_batch_of_four", "no_batch_dimension", "rank_three",
    "several_inputs_and_outputs", "one_tensor_as_two_outputs", "softmax", "int32_output", "branches", "hash_table",
    "names_in_latin_1", *STATEFUL,
)  # fmt: skip


def inputs(tflite: bytes, samples: int = 30) -> dict[str, np.ndarray]:
    """Real numbers by input name, [samples, ...] each; whole inputs where there is no batch."""
    rng = np.random.default_rng(3)
    details = next(iter(signatures(Graph.read(tflite)))).inputs
    shapes = {end.name: end.shape[1:] if len(end.shape) > 1 else end.shape for end in details}
    return {name: rng.normal(size=(samples, *shape)).astype(np.float32) for name, shape in shapes.items()}


def failed(comparisons) -> set[str]:
    """What the written model differs from."""
    return {comparison.against for comparison in comparisons if not comparison.passed}


def spoil_a_weight(monkeypatch) -> None:
    """The packer turns the last bit of the first four weights of each channel."""
    packed_layer = packed_target.packed_layer

    def sabotaged(graph, op):
        layer = packed_layer(graph, op)
        codes = layer.codes.copy()
        codes[:, :4] ^= 1
        return replace(layer, codes=codes)

    monkeypatch.setattr(packed_target, "packed_layer", sabotaged)


@pytest.mark.parametrize("io", ["float32", "int8"])
@pytest.mark.parametrize("name", FED)
def test_a_model_of_any_form_is_compared_with_the_original(name, io):
    tflite = FORMS[name]()
    comparisons = verify(Conversion.start(tflite, io=io, prefer=None), inputs(tflite))
    assert [comparison.differing for comparison in comparisons] == [0] * len(comparisons)
    outputs = [c for c in comparisons if c.against == "original"]
    interpreter = Interpreter(model_content=tflite)
    sizes = [int(np.prod(detail["shape"])) for detail in interpreter.get_output_details()]
    # 30 samples are 7 batches of 4 and a half, of which the other half is not counted.
    per_sample = 4 if name == "fixed_batch_of_four" else 1
    assert {c.codes for c in outputs} == {30 * size // per_sample for size in sizes}
    assert all(c.bound == Bound() for c in comparisons)


@pytest.mark.parametrize("name", FED)
def test_a_wrong_weight_is_found_in_a_model_of_any_form(name, monkeypatch):
    tflite = FORMS[name]()
    conversion = Conversion.start(tflite, io="float32", prefer=None)
    spoil_a_weight(monkeypatch)
    assert failed(verify(conversion, inputs(tflite))) == {"int8 target", "original"}


@pytest.mark.parametrize("name", STATEFUL)
def test_a_lost_state_is_found(name, monkeypatch):
    """Both targets lose it alike: the original tells."""
    tflite = FORMS[name]()
    conversion = Conversion.start(tflite, io="int8", prefer=None)
    assignments = [op for op in conversion.graph.operators if conversion.graph.kind(op) == "ASSIGN_VARIABLE"]
    assert assignments
    for op in assignments:
        conversion.graph.replace(op, [])
    assert failed(verify(conversion, inputs(tflite))) == {"original"}


@pytest.mark.parametrize("name", ["hash_table", "int32_output", "branches"])
def test_an_output_that_nothing_quantizes_is_compared_after_requantization(name):
    tflite = FORMS[name]()
    *_, comparison = verify(Conversion.start(tflite, bits=1, first_last_bits=1), inputs(tflite, 200))
    assert comparison.against == "original"
    assert comparison.bound is None
    assert comparison.differing > 0
    assert -30 < comparison.sqnr_db < 30
    assert (comparison.same_top is None) == (name != "branches")


@pytest.mark.parametrize("target", ["packed", "int8", "int4"])
def test_what_is_compared_is_what_is_written(target):
    tflite = FORMS["dense"]()
    conversion = Conversion.start(tflite, io="int8", prefer=None)
    comparisons = verify(conversion, inputs(tflite), target=target)
    assert {c.against for c in comparisons} == {"packed target" if target == "int8" else "int8 target", "original"}
    # The interpreter's own 4-bit kernels round by an older rule: nothing is promised.
    assert {c.bound for c in comparisons} == {None if target == "int4" else Bound()}


# ---- signatures


def two_signatures(tflite: bytes) -> bytes:
    """A file that runs the same subgraph under another name, too, with an input of its own name."""

    def add(model):
        model.subgraphs.append(copy.deepcopy(model.subgraphs[0]))
        definition = copy.deepcopy(model.signatureDefs[0])
        definition.signatureKey, definition.subgraphIndex = b"other", 1
        definition.inputs[0].name = b"second"
        model.signatureDefs.append(definition)

    return edited(tflite, add)


def test_every_signature_is_run():
    tflite = two_signatures(FORMS["dense"]())
    conversion = Conversion.start(tflite, io="int8", prefer=None)
    main, other = signatures(Graph.read(tflite))
    assert (main.subgraph, other.key, other.inputs[0].name) == (0, "other", "second")
    arrays = inputs(tflite)
    arrays["second"] = arrays[main.inputs[0].name][:20]
    comparisons = verify(conversion, arrays)
    assert [(c.codes, c.passed) for c in comparisons if c.against == "original"] == [(120, True), (80, True)]
    with pytest.raises(ConversionError, match="no array 'second'"):
        verify(conversion, {main.inputs[0].name: arrays["second"], "something": arrays["second"]})


def test_a_difference_in_another_signature_is_found(monkeypatch):
    tflite = two_signatures(FORMS["dense"]())
    conversion = Conversion.start(tflite, io="int8", prefer=None)

    def spoil(model):
        subgraph = model.subgraphs[1]
        op = subgraph.operators[0]
        tensor = subgraph.tensors[int(op.inputs[1])]
        data = np.array(model.buffers[tensor.buffer].data)
        model.buffers.append(schema.BufferT(data=data[::-1].copy()))
        tensor.buffer = len(model.buffers) - 1

    write = conversion.tflite
    monkeypatch.setattr(conversion, "tflite", lambda target, expose=(): edited(write(target, expose), spoil))
    arrays = inputs(tflite)
    comparisons = verify(conversion, arrays | {"second": next(iter(arrays.values()))})
    assert [c.passed for c in comparisons if c.against == "original"] == [True, False]


# ---- from arrays to what a model takes


def test_codes_of_an_input_are_what_its_type_says():
    """Real numbers are rounded by scale and zero point, codes of the very type are codes: by hand."""
    image = End("image", (1, 3), np.dtype(np.uint8), (0.5, 128))
    real = np.array([[-64.0, 0.2, 3.0]])
    np.testing.assert_array_equal(image.array(image.numbers(real)), [[0, 128, 134]])
    np.testing.assert_array_equal(image.array(image.numbers(np.array([[0, 5, 255]], np.uint8))), [[0, 5, 255]])
    np.testing.assert_array_equal(image.array(image.numbers(np.array([[0, 5, 100]], np.int8))), [[128, 138, 255]])
    np.testing.assert_array_equal(image.real(np.array([0, 128, 134], np.uint8)), [-64.0, 0.0, 3.0])


@pytest.mark.parametrize("dtype", ["bool", "int8", "uint8", "int16", "int32", "int64", "float32", "float64"])
def test_a_type_without_quantization_takes_numbers_as_they_are(dtype):
    end = End("x", (1, 2), np.dtype(dtype))
    for given in (np.array([[0, 1]], np.int64), np.array([[0.0, 1.0]])):
        end.check(given)
        array = end.array(end.numbers(given))
        assert array.dtype == dtype
        np.testing.assert_array_equal(array, [[0, 1]])


@pytest.mark.parametrize(
    ("dtype", "given"), [("int32", 0.5), ("bool", 2), ("int8", 128), ("uint8", -1), ("int64", 1e30), ("int32", 2**40)]
)
def test_a_cast_that_changes_a_value_is_refused(dtype, given):
    with pytest.raises(ConversionError, match=f"input 'x' takes {dtype}, which .* is not"):
        End("x", (1, 1), np.dtype(dtype)).check(np.array([[given]]))


def feed_of(*shapes: tuple[int, ...], **arrays: np.ndarray) -> Feed:
    ends = [End(name, shape, np.dtype("float32")) for name, shape in zip(arrays, shapes, strict=True)]
    return Feed.of(ends, arrays, {})


def test_the_last_batch_is_filled_up_and_cut_off_again():
    feed = feed_of((4, 2), x=np.arange(12.0).reshape(6, 2))
    assert (feed.runs, feed.samples) == (2, 6)
    np.testing.assert_array_equal(feed[1]["x"], [[8, 9], [10, 11], [10, 11], [10, 11]])
    rows = feed.rows([feed[run]["x"] for run in range(2)])
    np.testing.assert_array_equal(rows, np.arange(12.0).reshape(6, 2))
    # An output without that batch is a row a run.
    assert feed.rows([np.zeros(3), np.ones(3)]).shape == (2, 3)
    assert feed.rows([np.float32(1), np.float32(2)]).shape == (2,)
    # What changes its shape is one row of all numbers.
    assert feed.rows([np.zeros(3), np.ones(2)]).shape == (1, 5)


def test_one_dimension_more_is_one_whole_input_each():
    feed = feed_of((4, 2), (3,), x=np.zeros((5, 4, 2)), y=np.zeros((5, 3)))
    assert (feed.runs, feed.samples, feed.group) == (5, 5, 1)
    assert feed[0]["x"].shape == (4, 2)
    assert feed.rows([np.zeros((4, 2))] * 5).shape == (5, 4, 2)


def test_a_state_between_batches_takes_each_sample_once():
    feed = feed_of((4, 2), (3,), x=np.zeros((9, 2)), y=np.zeros((3, 3)))
    assert (feed.runs, feed.samples, feed.group) == (3, 9, 4)


@pytest.mark.parametrize(
    ("shapes", "arrays", "message"),
    [
        ([(1, 2)], {"x": np.zeros((3, 5))}, r"input 'x' is \[3, 5\], the model takes \[samples, 2\]"),
        ([(16,)], {"x": np.zeros((3, 5))}, r"input 'x' is \[3, 5\], the model takes \[samples, 16\]"),
        ([(1, 2)], {"x": np.zeros((0, 2))}, "at least one"),
        ([(1, 2), (1, 2)], {"x": np.zeros((3, 2)), "y": np.zeros((4, 2))}, "the same number of samples"),
        ([(4, 2), (4, 2)], {"x": np.zeros((6, 2)), "y": np.zeros((7, 2))}, "the same number of samples"),
        ([(1, 1)], {"x": np.array([[np.inf]])}, "input 'x' holds NaN or infinity"),
        ([(1, 1)], {"x": np.array([["a"]])}, "input 'x' holds <U1, not numbers"),
    ],
)
def test_arrays_that_do_not_fit_are_named(shapes, arrays, message):
    with pytest.raises(ConversionError, match=message):
        feed_of(*shapes, **arrays)


@pytest.mark.parametrize("name", ["uint8_ends", "dense"])
def test_an_array_of_codes_is_fed_as_codes(name):
    """Whatever the ends of the written model are."""
    tflite = FORMS[name]()
    (end,) = signatures(Graph.read(tflite))[0].inputs
    arrays = inputs(tflite)
    codes = {end.name: end.array(arrays[end.name].astype(float))}
    assert codes[end.name].dtype == end.dtype
    for io in ("float32", "int8"):
        conversion = Conversion.start(tflite, io=io, bits=1, first_last_bits=1)
        assert verify(conversion, codes) == verify(conversion, arrays)


# ---- forms of data


def pieces(array: np.ndarray):
    """Batches of 7, as a generator gives them."""
    return (array[start : start + 7] for start in range(0, len(array), 7))


@pytest.mark.parametrize(
    "form",
    [
        lambda name, array: array,
        lambda name, array: [array],
        lambda name, array: {"another name": array},
        lambda name, array: tf.data.Dataset.from_tensor_slices(array),
        lambda name, array: tf.data.Dataset.from_tensor_slices({name: array}).batch(8),
        lambda name, array: tf.data.Dataset.from_tensor_slices((array, np.zeros(len(array)))).batch(8),
        lambda name, array: pieces(array),
        lambda name, array: lambda: pieces(array),
    ],
)
def test_inputs_come_in_many_forms(form):
    tflite = FORMS["dense"]()
    ((name, array),) = inputs(tflite).items()
    conversion = Conversion.start(tflite, bits=1, first_last_bits=1)
    expected = verify(conversion, {name: array})
    assert expected[-1].differing > 0
    assert verify(conversion, form(name, array)) == expected


def test_data_without_an_input_is_refused_by_its_name():
    tflite = FORMS["several_inputs_and_outputs"]()
    conversion = Conversion.start(tflite, prefer=None)
    with pytest.raises(ConversionError, match="what --verify reads has no array"):
        verify(conversion, {"z": np.zeros((3, 16))})
    with pytest.raises(ConversionError, match="has 1 arrays, the model takes 2 inputs"):
        verify(conversion, np.zeros((3, 16)))


# ---- what cannot be compared


def test_random_numbers_are_refused():
    def noisy(x):
        return tf.matmul(x, few_values(16, 4)) + tf.random.uniform((1, 4))

    tflite = convert(noisy, (1, 16), ops=[tf.lite.OpsSet.TFLITE_BUILTINS_INT8, tf.lite.OpsSet.TFLITE_BUILTINS])
    with pytest.raises(ConversionError, match=r"draws random numbers \(RANDOM_UNIFORM\)"):
        verify(Conversion.start(tflite, bits=4), inputs(tflite))


@pytest.mark.parametrize("name", [b"x", b""])
def test_two_inputs_of_one_name_are_refused(name):
    def rename(model):
        model.signatureDefs = None
        for tensor in model.subgraphs[0].inputs:
            model.subgraphs[0].tensors[tensor].name = name

    tflite = edited(FORMS["several_inputs_and_outputs"](), rename)
    with pytest.raises(ConversionError, match=f"two are called '{name.decode()}': name them apart"):
        verify(Conversion.start(tflite, io="int8", prefer=None), {"x": np.zeros((3, 16))})


def test_what_the_interpreter_refuses_is_refused():
    """A custom op that nobody has."""

    def change(model):
        code = next(code for code in model.operatorCodes if code.builtinCode == schema.BuiltinOperator.SOFTMAX)
        code.builtinCode = code.deprecatedBuiltinCode = schema.BuiltinOperator.CUSTOM
        code.customCode = b"Mystery"

    tflite = edited(FORMS["softmax"](), change)
    with pytest.raises(ConversionError, match=r"--verify cannot run .*Mystery"):
        verify(Conversion.start(tflite, io="int8", prefer=None), inputs(FORMS["softmax"]()))


# ---- comparisons


def test_floats_are_compared_bit_by_bit():
    ours = np.array([1.0, 0.0, np.nan, 2.0], np.float32)
    theirs = np.array([1.0, -0.0, np.nan, np.nextafter(np.float32(2), np.float32(3))], np.float32)
    comparison = compare("y", "original", ours, theirs, Bound())
    assert (comparison.codes, comparison.differing, comparison.passed) == (4, 2, False)
    assert comparison.largest == pytest.approx(2.0**-22)
    assert not compare("y", "original", ours, np.where(ours == 1, np.nan, ours).astype(np.float32), Bound()).passed
    assert compare("y", "original", ours, ours.copy(), Bound()).passed


def test_other_sizes_differ_in_everything():
    comparison = compare("y", "original", np.zeros(3), np.zeros(5), Bound(1.0, 1000))
    assert (comparison.codes, comparison.differing, comparison.passed) == (5, 5, False)


def test_outputs_of_other_types_are_compared_in_codes():
    """uint8 against int8 and against real numbers: 128 apart, and by the scale."""
    theirs = End("y", (1, 3), np.dtype(np.uint8), (0.5, 128)), np.array([[0, 128, 134]], np.uint8)
    for ours in (
        (End("y", (1, 3), np.dtype(np.int8), (0.5, 0)), np.array([[-128, 0, 6]], np.int8)),
        (End("y", (1, 3), np.dtype(np.float32)), np.array([[-64.0, 0.0, 3.0]], np.float32)),
    ):
        assert compare_outputs(ours, theirs, Bound(), requantized=False).differing == 0
        end, array = ours
        wrong = compare_outputs((end, array + array.dtype.type(1)), theirs, Bound(), requantized=True)
        assert wrong.differing == 3
        # One code is half; the numbers are off by one, two codes.
        step = 0.5 if array.dtype == np.int8 else 1.0
        assert wrong.sqnr_db == pytest.approx(10 * np.log10((64**2 + 3**2) / (3 * step**2)))
        assert wrong.same_top == 1.0


def test_keras_computes_few_samples_of_a_large_model_at_once(monkeypatch):
    """Where there is room for what five samples give, twelve take three calls and are compared alike."""
    conversion = Conversion.start(small_net(width=40))
    x = np.random.default_rng(0).normal(size=(12, *small_net().inputs[0].shape[1:])).astype(np.float32)
    whole, asked, reference = verify(conversion, x), [], conversion.source.reference

    def counted(batch):
        asked.append(len(next(iter(batch.values()))))
        return reference(batch)

    conversion.source = replace(conversion.source, reference=counted)
    values = sum(comparison.codes for comparison in whole if comparison.against == "Keras") // len(x)
    monkeypatch.setattr(verification, "_MOST_VALUES", 5 * values)
    assert verify(conversion, x) == whole
    assert asked == [5, 5, 2]

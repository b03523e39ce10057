"""Every form of `.tflite` in every target: packed with the original's outputs, left stock with a note, or refused.

The oracle is the original file in the stock interpreter over a sequence of inputs, each model on one interpreter.
"""

from __future__ import annotations

import numpy as np
import pytest
from ai_edge_litert.interpreter import Interpreter
from tflite_corpus import FORMS, edited

from subbyte import kernels
from subbyte.converter import ConversionError, convert

pytestmark = pytest.mark.once

TARGETS = {"packed": kernels.Interpreter, "int8": Interpreter, "int4": Interpreter}

#: What becomes of each form, in all targets alike; of the others every layer packs.
OUTCOMES = {
    "dense_of_all_values": "refused",
    "uint8_of_all_values": "refused",
    "int16_activations": "refused",
    "transposed_convolution": "packed, rest noted",
    "lstm": "packed, rest noted",
    "svdf": "packed, rest noted",
    "float_weights": "refused",
    "hybrid": "refused",
    "float16_weights": "refused",
    "sparse_weights": "refused",
}


def outputs(interpreter: Interpreter, rounds: int = 16) -> list[np.ndarray]:
    """All outputs over the same random inputs, whole numbers over all of their type."""
    interpreter.allocate_tensors()
    rng, seen = np.random.default_rng(1), []
    for _ in range(rounds):
        for detail in interpreter.get_input_details():
            is_float = detail["dtype"] == np.float32
            ends = (-1, 1) if is_float else (np.iinfo(detail["dtype"]).min, np.iinfo(detail["dtype"]).max)
            interpreter.set_tensor(detail["index"], rng.uniform(*ends, detail["shape"]).astype(detail["dtype"]))
        interpreter.invoke()
        seen += [interpreter.get_tensor(detail["index"]).copy() for detail in interpreter.get_output_details()]
    return seen


def outcome(tflite: bytes, target: str) -> str:
    """What becomes of a file. Fails where outputs differ."""
    try:
        result = convert(tflite, target=target, prefer=None)
    except ConversionError as refusal:
        return "refused" if "\n" not in str(refusal) else "refused in many lines"
    expected = outputs(Interpreter(model_content=tflite))
    assert len({codes.tobytes() for codes in expected}) > 1
    for ours, theirs in zip(outputs(TARGETS[target](model_content=result.tflite)), expected, strict=True):
        assert ours.dtype == theirs.dtype
        np.testing.assert_array_equal(ours, theirs)
    return "packed, rest noted" if any("stays a stock" in note for note in result.notes) else "packed"


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("name", FORMS)
def test_every_form_has_one_of_three_outcomes(name, target):
    assert outcome(FORMS[name](), target) == OUTCOMES.get(name, "packed")


@pytest.mark.parametrize("target", TARGETS)
def test_a_further_signature_runs_as_before(target):
    original = FORMS["several_signatures"]()
    result = convert(original, target=target, prefer=None)
    assert sum("stays as it was" in note for note in result.notes) == 1
    models = Interpreter(model_content=original), TARGETS[target](model_content=result.tflite)
    for key in models[0].get_signature_list():
        ours, theirs = (model.get_signature_runner(key) for model in models)
        for x in np.random.default_rng(1).uniform(-1, 1, (5, 1, 16)).astype(np.float32):
            expected = theirs(x=x)
            for name, found in ours(x=x).items():
                np.testing.assert_array_equal(found, expected[name])


def test_what_the_interpreter_does_not_load_is_refused():
    """A fully connected layer behind the packed one whose depth does not fit, which only the interpreter sees."""

    def widen(model):
        main = model.subgraphs[0]
        last = next(tensor for tensor in main.tensors if tuple(tensor.shape) == (4, 12))
        last.shape = np.asarray((12, 4), np.int32)

    with pytest.raises(ConversionError, match="does not load") as refusal:
        convert(edited(FORMS["dense"](), widen), target="int8")
    assert "\n" not in str(refusal.value)

"""Packing an int8 `.tflite` without loss pays in bytes or in speed, or is left out."""

import contextlib
import dataclasses
import itertools

import numpy as np
import pytest
from models import Model

from subbyte.converter import Conversion, ConversionError, Graph, convert, preference
from subbyte.converter.preference import Cost, reason_to_stay
from subbyte.converter.summary import Summary
from subbyte.converter.timing import Timing

RNG = np.random.default_rng(0)


def chain(*widths: int, values: int = 7) -> bytes:
    """Stock layers one behind the other, weights from -values to values."""
    model = Model()
    first = x = model.tensor([1, widths[0]], scale=0.5)
    for inputs, outputs in itertools.pairwise(widths):
        weights = RNG.integers(-values, values + 1, (outputs, inputs))
        x = model.fully_connected(x, weights, RNG.integers(-99, 99, outputs), np.float32([0.01]))
    return model.finish([first], [x])


def kinds(tflite: bytes) -> list[str]:
    graph = Graph.read(tflite)
    return [graph.kind(op) for op in graph.operators if "FULLY" in graph.kind(op).upper()]


PACKED, STOCK = "SubbyteFullyConnected", "FULLY_CONNECTED"


@pytest.mark.parametrize(
    ("stock", "packed", "prefer", "stays"),
    [
        (Cost(1000), Cost(999), "bytes", False),
        (Cost(1000), Cost(1000), "bytes", True),
        (Cost(1000, 2e-6), Cost(1000, 1e-6), "speed", False),
        (Cost(1000, 2e-6), Cost(900, 2e-6), "speed", True),
        (Cost(1000, 2e-6), Cost(1001, 1e-6), "speed", True),
        (Cost(1000, None), Cost(900, 1e-6), "speed", True),
    ],
)
def test_what_is_better_is_packed(stock, packed, prefer, stays):
    assert (reason_to_stay(stock, packed, prefer) is not None) == stays


def test_a_layer_that_would_grow_stays_as_it_is():
    original = chain(4, 1, 256, 256, 2, 1)
    result = convert(original, io="int8")
    # 256x256 weights of 15 values halve; a header for a handful of weights does not pay.
    assert kinds(result.tflite) == [STOCK, STOCK, PACKED, PACKED, STOCK]
    assert any("no fewer bytes" in note for note in result.notes)
    assert len(result.tflite) < len(original)
    assert kinds(convert(original, io="int8", prefer=None).tflite) == [PACKED] * 5


@pytest.mark.parametrize("widths", [(8, 4), (1, 3, 1), (3, 1), (2, 2, 2, 2)])
def test_a_file_that_would_grow_is_refused(widths):
    original = chain(*widths)
    assert len(convert(original, io="int8", prefer=None).tflite) > 0  # nothing else is wrong with it
    with pytest.raises(ConversionError, match=r"^nothing to (pack|gain) in .*--bits.*$"):
        convert(original, io="int8")


@pytest.mark.parametrize("io", ["int8", "float32"])
@pytest.mark.parametrize("width", [12, 14, 16, 24, 32])
def test_a_file_is_refused_or_smaller(width, io):
    original = chain(1, width, width, 1)
    limit = len(original if io == "int8" else convert(original, target="int8", io=io).tflite)
    if width >= 24:  # 576 weights of 4 bits pay for a header
        assert len(convert(original, io=io).tflite) < limit
        return
    with contextlib.suppress(ConversionError):
        assert len(convert(original, io=io).tflite) < limit


def test_speed_goes_by_what_is_measured(monkeypatch):
    """The machine is a made-up one, on which packing pays for the wide layer alone."""
    original = chain(64, 64, 256)

    def microseconds(files, stopwatch=None):
        is_wide = len(files["stock"]) > 10_000
        return {"stock": Timing((2e-6,)), "packed": Timing((1e-6 if is_wide else 3e-6,))}, {}

    monkeypatch.setattr(preference, "microseconds", microseconds)
    result = convert(original, io="int8", prefer="speed")
    assert kinds(result.tflite) == [STOCK, PACKED]
    assert any("no faster on this machine" in note for note in result.notes)
    assert kinds(convert(original, io="int8").tflite) == [PACKED, PACKED]


def test_a_layer_is_measured_both_ways():
    graph = Graph.read(chain(32, 16))
    (op,) = graph.operators
    (layer,) = Conversion.start(graph.write(), "int8", prefer=None).linear_ops
    layer = dataclasses.replace(layer, inputs=op.inputs[:1], outputs=op.outputs)
    before = [tensor.buffer for tensor in graph.main.tensors]
    stock, packed = preference.compare(graph, op, layer, "speed")
    assert 0 < packed.seconds < 1e-2
    assert 0 < stock.seconds < 1e-2
    assert [tensor.buffer for tensor in graph.main.tensors] == before
    assert graph.operators == [op]


def test_an_unknown_preference_is_refused():
    with pytest.raises(ConversionError, match="choose bytes or speed"):
        convert(chain(8, 8), prefer="beauty")


def test_wide_ends_are_told_once_with_their_share():
    original = chain(64, 8, 8, 128, values=127)
    notes = [note for note in convert(original, io="int8", bits=2).notes if "first_last_bits" in note]
    assert len(notes) == 1
    assert f"{(64 * 8 + 8 * 128) / (64 * 8 + 8 * 8 + 8 * 128):.0%} of the weights" in notes[0]
    assert "--first_last_bits=2" in notes[0]
    for narrow in ({"bits": 2, "first_last_bits": 2}, {"bits": 8}):
        assert not any("first_last_bits" in note for note in convert(original, io="int8", **narrow).notes)
    middle = chain(8, 256, 256, 8, values=127)
    assert not any("first_last_bits" in note for note in convert(middle, io="int8", bits=2).notes)


def test_the_summary_has_the_bytes_of_both_files():
    original = chain(64, 64)
    conversion = Conversion.start(original, "int8")
    result = conversion.write()
    found = Summary.of(conversion, result)
    assert (found.bytes, found.bytes_against, found.against) == (len(result.tflite), len(original), "the original")
    assert found.microseconds > 0
    assert found.microseconds_against > 0
    assert str(Summary("the original", 500, 1000, 3.0, 2.0)) == (
        "500 bytes, 0.50 times those of the original; an invoke() takes 3.0 µs on this machine, 1.50 times as long"
    )

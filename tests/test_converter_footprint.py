"""The parts of a file add up to it and none is negative: every form, net and target, and drawn packed layers."""

from __future__ import annotations

import functools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from models import chain, random_layer
from nets import NETS, ready
from tflite_corpus import FORMS

from subbyte.converter import TARGETS, Conversion, ConversionError, Footprint
from subbyte.reports import footprint_parts


def check(tflite: bytes) -> Footprint:
    footprint = Footprint.of(tflite)
    parts = footprint_parts(footprint)
    assert sum(parts.values()) == len(tflite) == footprint.file
    assert min(parts.values()) >= 0, parts
    for layer in footprint.layers:
        assert min(layer.weights, layer.records, layer.rest) >= 0, layer
    assert sum(layer.total for layer in footprint.layers) + parts["everything else"] == len(tflite)
    # What is no layer is never free: a name, a tensor and an operator for each layer, and the file's own header.
    assert parts["everything else"] > 100 + 40 * len(footprint.layers)
    return footprint


@functools.cache
def written(name: str, target: str) -> bytes | None:
    """A form or a net in a target; None for what has nothing to pack."""
    try:
        start = Conversion.start(FORMS[name](), prefer=None) if name in FORMS else _conversion_of_net(name)
        return start.write(target).tflite
    except ConversionError:
        return None


@functools.cache
def _conversion_of_net(name: str) -> Conversion:
    return Conversion.start(ready(name))


@pytest.mark.once
@pytest.mark.parametrize("name", FORMS)
def test_the_parts_of_every_form_add_up(name: str) -> None:
    check(FORMS[name]())
    for target in TARGETS:
        tflite = written(name, target)
        if tflite is not None:
            check(tflite)


@settings(max_examples=12, deadline=None, derandomize=True)
@given(st.sampled_from(sorted(NETS)), st.sampled_from(sorted(TARGETS)))
def test_the_parts_of_a_net_add_up(name: str, target: str) -> None:
    tflite = written(name, target)
    assert tflite is not None
    assert check(tflite).layers


@st.composite
def layers(draw: st.DrawFn) -> list:
    """Some packed layers, some of them the same one again."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    size = draw(st.integers(1, 70))
    drawn = [random_layer(rng, size, size, draw(st.integers(1, 8))) for _ in range(draw(st.integers(1, 4)))]
    return [draw(st.sampled_from(drawn)) for _ in range(draw(st.integers(1, 6)))]


@pytest.mark.once
@settings(max_examples=60, deadline=None)
@given(layers())
def test_the_parts_of_drawn_layers_add_up(packed: list) -> None:
    check(chain(packed))

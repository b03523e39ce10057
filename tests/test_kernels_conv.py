"""Convolutions in C against numpy, bit for bit, on every instruction set of this machine and between guard pages."""

from __future__ import annotations

import ctypes

import numpy as np
import pytest
from guard import Guarded
from hypothesis import given, settings
from hypothesis import strategies as st
from models import random_layer
from subbyte.kernels import isas, native, reference
from subbyte.schemas import PackedLayer
from subbyte.schemas.packed_layer import Geometry, Op, Padding

ISAS = [name for name, runs in isas().items() if runs]


def run_guarded(layer: PackedLayer, x: np.ndarray, isa: str) -> np.ndarray:
    """The native kernel with every buffer, the scratch memory too, ending at a page without access."""
    packed, library = layer.pack(), native.load()
    memory, inputs = Guarded(packed), Guarded(x.tobytes())
    assert library.subbyte_check(memory.address, len(packed)) == 0
    batch, height, width, _ = x.shape
    sizes = (ctypes.c_int32(), ctypes.c_int32())
    library.subbyte_conv_2d_output(memory.address, height, width, *map(ctypes.byref, sizes))
    shape = (batch, *(size.value for size in sizes), len(layer.codes))
    output = Guarded(bytes(int(np.prod(shape))))
    scratch = Guarded(bytes(library.subbyte_conv_2d_scratch(memory.address, batch, height, width)))
    chosen = library.subbyte_find_isa(isa.encode())
    library.subbyte_conv_2d(
        memory.address, inputs.address, batch, height, width, output.address, scratch.address, chosen
    )
    assert memory.array.tobytes() == packed
    assert inputs.array.tobytes() == x.tobytes()
    return output.array.view(np.int8).reshape(shape).copy()


@st.composite
def convolutions(draw, bits: int):
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    kernel = (draw(st.integers(1, 5)), draw(st.integers(1, 9)))
    stride, dilation = (tuple(draw(st.integers(1, 3)) for _ in range(2)) for _ in range(2))
    is_depthwise = draw(st.booleans())
    groups = draw(st.integers(1, 40 if is_depthwise else 3))
    inputs = 1 if is_depthwise else draw(st.integers(1, 20))  # of a group
    channels = groups * draw(st.integers(1, 3 if is_depthwise else 40))
    geometry = Geometry(kernel, stride, dilation, draw(st.sampled_from(list(Padding))), groups)
    fields = {"code_offset": -(1 << (bits - 1))}
    if draw(st.booleans()):
        fields = {"codebook": rng.integers(-128, 128, 1 << bits).astype(np.int8)}
    layer = random_layer(
        rng,
        kernel[0] * kernel[1] * inputs,
        channels,
        bits,
        op=Op.DEPTHWISE_CONV_2D if is_depthwise else Op.CONV_2D,
        geometry=geometry,
        input_zero_point=draw(st.integers(-128, 127)),
        output_zero_point=draw(st.integers(-20, 20)),
        **fields,
    )
    sizes = [(k - 1) * d + 1 + draw(st.integers(0, 6)) for k, d in zip(kernel, dilation, strict=True)]
    return layer, rng.integers(-128, 128, (draw(st.integers(1, 3)), *sizes, groups * inputs)).astype(np.int8)


@pytest.mark.parametrize("bits", range(1, 9))
@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_any_convolution(bits, data):
    layer, x = data.draw(convolutions(bits))
    expected = reference.run(layer, x)
    assert PackedLayer.unpack(layer.pack()) == layer
    for isa in ISAS:
        np.testing.assert_array_equal(run_guarded(layer, x, isa), expected, err_msg=isa)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("value", [-128, 127])
def test_the_largest_sums_of_a_depthwise_convolution(isa, value):
    """All weights and inputs at their ends, over many taps: nothing saturates."""
    codes = np.zeros((20, 121), np.uint8)
    codes[::2] = 255
    layer = PackedLayer(
        codes=codes,
        weight_bits=8,
        multiplier=np.full(20, 100 / (128 * 128 * 121), np.float32),
        bias=np.zeros(20, np.int32),
        input_scale=1.0,
        output_scale=1.0,
        code_offset=-128,
        op=Op.DEPTHWISE_CONV_2D,
        geometry=Geometry(kernel=(11, 11), groups=20),
    )
    x = np.full((1, 12, 12, 20), value, np.int8)
    np.testing.assert_array_equal(run_guarded(layer, x, isa), reference.run(layer, x))


def test_a_pointwise_convolution_is_a_fully_connected_layer():
    rng = np.random.default_rng(7)
    dense = random_layer(rng, 40, 30, 5)
    layer = PackedLayer(**{**vars(dense), "op": Op.CONV_2D})
    x = rng.integers(-128, 128, (2, 3, 5, 40)).astype(np.int8)
    np.testing.assert_array_equal(native.conv_2d(layer.pack(), x), native.fully_connected(dense.pack(), x))


def test_wrong_use_of_the_python_face_is_refused():
    rng = np.random.default_rng(8)
    with pytest.raises(ValueError, match="no convolution"):
        native.conv_2d(random_layer(rng, 8, 4).pack(), np.zeros((1, 1, 1, 8), np.int8))
    layer = random_layer(rng, 8, 4, op=Op.CONV_2D)
    for x in (np.zeros((1, 1, 8), np.int8), np.zeros((1, 1, 1, 7), np.int8), np.zeros((1, 1, 1, 8))):
        with pytest.raises(ValueError, match=r"int8 \[batch, height, width, 8\]"):
            native.conv_2d(layer.pack(), x)


@pytest.mark.parametrize(
    ("geometry", "features", "message"),
    [
        (Geometry(kernel=(0, 1)), 8, "kernel must be"),
        (Geometry(stride=(256, 1)), 8, "stride and dilation 1 to 255"),
        (Geometry(kernel=(3, 1)), 8, "do not fit"),
        (Geometry(groups=3), 8, "do not fit"),
    ],
)
def test_a_geometry_that_the_format_cannot_hold_is_refused(geometry, features, message):
    with pytest.raises(ValueError, match=message):
        random_layer(np.random.default_rng(9), features, 4, op=Op.CONV_2D, geometry=geometry).pack()

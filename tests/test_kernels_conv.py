"""Convolutions in C against numpy, bit for bit, on every instruction set of this machine and between guard pages."""

from __future__ import annotations

import ctypes

import numpy as np
import pytest
from compilers import stand_in
from guard import Guarded
from hypothesis import given, settings
from hypothesis import strategies as st
from models import Model, random_layer

from subbyte import kernels
from subbyte.kernels import isas, native, reference
from subbyte.schemas import Geometry, Grid, Op, PackedLayer, Padding

#: Of the plug-in; AVX-VNNI, where the processor has the operation in AVX-512 only, of another build.
ISAS = [name for name, runs in isas().items() if runs]
STAND_IN = "avxvnni" if "avx512vnni" in ISAS and not isas().get("avxvnni", True) else None


@pytest.fixture(scope="session")
def libraries() -> dict[str, ctypes.CDLL]:
    """The library of each instruction set that can run here."""
    found = dict.fromkeys(ISAS, native.load())
    if STAND_IN:
        found[STAND_IN] = native.load(str(stand_in()))
    return found


def run_guarded(library: ctypes.CDLL, layer: PackedLayer, x: np.ndarray, isa: str, parts: int = 1) -> np.ndarray:
    """The native kernel with every buffer, the scratch memory too, ending at a page without access."""
    packed = layer.pack()
    memory, inputs = Guarded(packed), Guarded(x.tobytes())
    assert library.subbyte_check(memory.address, len(packed)) == 0
    batch, height, width, _ = x.shape
    sizes = (ctypes.c_int32(), ctypes.c_int32())
    library.subbyte_conv_2d_output(memory.address, height, width, *map(ctypes.byref, sizes))
    shape = (batch, *(size.value for size in sizes), len(layer.codes))
    output = Guarded(bytes(int(np.prod(shape))))
    scratch = Guarded(bytes(library.subbyte_conv_2d_scratch(memory.address, batch, height, width)))
    chosen = library.subbyte_find_isa(isa.encode())
    for part in range(parts):
        library.subbyte_conv_2d_part(
            *(
                memory.address,
                inputs.address,
                batch,
                height,
                width,
                output.address,
                scratch.address,
                chosen,
            ),
            *(part, parts),
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
    groups = draw(st.integers(1, 150 if is_depthwise else 3))
    inputs = 1 if is_depthwise else draw(st.integers(1, 20))  # of a group
    channels = groups * draw(st.integers(1, 3 if is_depthwise else 40))
    geometry = Geometry(kernel, stride, dilation, draw(st.sampled_from(list(Padding))), groups)
    fields = {"code_offset": -(1 << (bits - 1))}
    if bits < 8 and draw(st.booleans()):
        fields = {"code_offset": 1 - (1 << bits), "code_step": 2}
    elif draw(st.booleans()):
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
    # Up to some tiles of 64 output positions.
    sizes = [(k - 1) * d + 1 + draw(st.integers(0, most)) for k, d, most in zip(kernel, dilation, (6, 30), strict=True)]
    return layer, rng.integers(-128, 128, (draw(st.integers(1, 3)), *sizes, groups * inputs)).astype(np.int8)


@pytest.mark.parametrize("bits", range(1, 9))
@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_any_convolution(bits, data, libraries):
    layer, x = data.draw(convolutions(bits))
    expected = reference.run(layer, x)
    assert PackedLayer.unpack(layer.pack()) == layer
    for isa, library in libraries.items():
        parts = data.draw(st.integers(1, 3))
        np.testing.assert_array_equal(run_guarded(library, layer, x, isa, parts), expected, err_msg=isa)


#: (groups, inputs and outputs of each, kernel, width): more weights than are decoded at once, or than at all; more
#: output channels than a tile; few positions; one wide row.
LARGE = [
    (1, 300, 70, (3, 3), 5),
    (1, 9000, 20, (1, 1), 9),
    (2, 5, 300, (2, 2), 4),
    (1, 3, 20, (3, 3), 2),
    (1, 7, 9, (1, 9), 300),
]


@pytest.mark.parametrize("case", LARGE, ids=str)
def test_large_convolutions(case, libraries):
    groups, inputs, outputs, kernel, width = case
    rng = np.random.default_rng(width)
    geometry = Geometry(kernel, padding=Padding.SAME, groups=groups)
    features = kernel[0] * kernel[1] * inputs
    layer = random_layer(
        rng,
        features,
        groups * outputs,
        3,
        op=Op.CONV_2D,
        geometry=geometry,
        input_zero_point=-5,
    )
    x = rng.integers(-128, 128, (1, kernel[0], width, groups * inputs)).astype(np.int8)
    for isa, library in libraries.items():
        np.testing.assert_array_equal(run_guarded(library, layer, x, isa), reference.run(layer, x), err_msg=isa)


@pytest.mark.parametrize("value", [-128, 127])
def test_the_largest_sums_of_a_depthwise_convolution(value, libraries):
    """All weights and inputs at their ends, over many taps: nothing saturates."""
    codes = np.zeros((20, 121), np.uint8)
    codes[::2] = 255
    layer = PackedLayer(
        codes=codes,
        grid=Grid.symmetric(8),
        multiplier=np.full(20, 100 / (128 * 128 * 121), np.float32),
        bias=np.zeros(20, np.int32),
        input_scale=1.0,
        output_scale=1.0,
        op=Op.DEPTHWISE_CONV_2D,
        geometry=Geometry(kernel=(11, 11), groups=20),
    )
    x = np.full((1, 12, 12, 20), value, np.int8)
    for isa, library in libraries.items():
        np.testing.assert_array_equal(run_guarded(library, layer, x, isa), reference.run(layer, x), err_msg=isa)


@pytest.mark.parametrize("clamp", [(-128, 127), (-3, 127), (-128, 90)])
def test_sums_far_beyond_the_codes_are_clamped(clamp, libraries):
    """Products of 2^31 and more, of both signs: what a conversion to integers makes of them is not seen."""
    layer = PackedLayer(
        codes=np.tile(np.array([[0], [15]], np.uint8), (25, 64)),
        grid=Grid.symmetric(4),
        multiplier=np.geomspace(1e-3, 1e30, 50).astype(np.float32),
        bias=np.zeros(50, np.int32),
        input_scale=1.0,
        output_scale=1.0,
        output_zero_point=-7,
        clamp=clamp,
        op=Op.CONV_2D,
    )
    x = np.repeat(np.array([-128, 127], np.int8), 64 * 10).reshape(1, 4, 5, 64)
    for isa, library in libraries.items():
        np.testing.assert_array_equal(run_guarded(library, layer, x, isa), reference.run(layer, x), err_msg=isa)


def test_a_window_that_takes_too_much_memory_is_refused():
    geometry = Geometry((1, 60000), stride=(255, 1), dilation=(1, 255), padding=Padding.SAME, groups=2)
    layer = random_layer(
        np.random.default_rng(3),
        60000,
        2,
        1,
        op=Op.DEPTHWISE_CONV_2D,
        geometry=geometry,
    )
    model = Model()
    x = model.tensor((1, 16000, 1, 2), scale=layer.input_scale, zero_point=layer.input_zero_point)
    interpreter = kernels.Interpreter(model_content=model.finish([x], [model.layer(x, layer)]))
    with pytest.raises(RuntimeError, match="takes too much memory"):
        interpreter.allocate_tensors()


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
    for x in (
        np.zeros((1, 1, 8), np.int8),
        np.zeros((1, 1, 1, 7), np.int8),
        np.zeros((1, 1, 1, 8)),
    ):
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

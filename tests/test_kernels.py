"""The C kernels against numpy, bit for bit, on every instruction set of this machine and on memory with guard pages."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
from compilers import stand_in
from guard import Guarded
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from models import RECORDS, grid, random_layer, with_records

from subbyte.kernels import isas, native, reference
from subbyte.schemas import MAX_FEATURES, Grid, PackedLayer


def runnable_isas() -> list[str]:
    """Those that run here, and AVX-VNNI where AVX-512 has its operation: see `load`."""
    runs = isas()
    return [name for name in runs if runs[name] or (name == "avxvnni" and runs["avx512vnni"])]


ISAS = runnable_isas()
# Around every edge of quads, blocks, strides and tiles, then large; few in each test, all of them over all tests.
FEATURES = (*range(1, 10), 15, 16, 17, 24, 31, 32, 33, 39, 47, 48, 49, 63, 64, 65, 87, 95, 96, 97, 127, 128, 129)
MORE_FEATURES = (
    159,
    161,
    191,
    193,
    223,
    225,
    255,
    256,
    257,
    287,
    300,
    383,
    400,
    447,
    511,
    512,
    513,
    540,
    575,
    600,
    2049,
)
CHANNELS = (*range(1, 5), 7, 8, 9, 15, 16, 17, 31, 32, 33, 40, 47, 48, 49, 63, 64, 65, 70, 79, 113, 255, 256, 257, 300)


@pytest.fixture
def library(isa) -> ctypes.CDLL:
    return native.load(None if isas()[isa] else str(stand_in()))


def oracle(layer: PackedLayer, x: np.ndarray) -> np.ndarray:
    """The sum written out in int64 and the rounding in exact float64, apart from subbyte.kernels.reference."""
    found = layer.grid
    table = np.arange(1 << found.bits) if found.codebook is None else np.asarray(found.codebook)
    weights = found.offset + found.step * table.astype(np.int64)[layer.codes]
    sums = np.einsum("rk,nk->rn", x.astype(np.int64), weights) + layer.bias
    # float32(sum) * multiplier is exact in float64; the product is then rounded to float32 once, as the rule says.
    product = (sums.astype(np.float32).astype(np.float64) * layer.multiplier.astype(np.float64)).astype(np.float32)
    return np.clip(np.rint(product.astype(np.float64)) + layer.output_zero_point, *layer.clamp).astype(np.int8)


def run_guarded(library: ctypes.CDLL, layer: PackedLayer, x: np.ndarray, isa: str) -> np.ndarray:
    """The native kernel with every buffer ending at a page without access."""
    packed, rows, channels = layer.pack(), x.shape[0], layer.codes.shape[0]
    memory, inputs, outputs = Guarded(packed), Guarded(x.tobytes()), Guarded(bytes(rows * channels))
    assert library.subbyte_check(memory.address, len(packed)) == 0
    chosen = library.subbyte_find_isa(isa.encode())
    library.subbyte_fully_connected(memory.address, inputs.address, rows, outputs.address, chosen)
    assert memory.array.tobytes() == packed
    assert inputs.array.tobytes() == x.tobytes()
    return outputs.array.view(np.int8).reshape(rows, channels).copy()


def decode_fields(kind: str, bits: int, rng: np.random.Generator) -> dict:
    if kind == "step 1":
        return {"code_offset": -(1 << (bits - 1))}
    if kind == "step 2":  # odd weights; 8 bits have no room for them
        return {"code_offset": 1 - (1 << bits), "code_step": 2} if bits < 8 else {"code_offset": -128}
    return {"codebook": rng.integers(-128, 128, 1 << bits).astype(np.int8)}


def shapes(seed: int) -> Iterator[tuple[int, int, int]]:
    """(features, channels, rows): every number of features, with other channels and rows for another seed."""
    for index, features in enumerate((*FEATURES, *MORE_FEATURES)):
        for turn in range(3 if features in FEATURES else 1):
            yield features, CHANNELS[(7 * index + 11 * turn + 5 * seed) % len(CHANNELS)], 1 + (index + turn + seed) % 9


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("kind", ["step 1", "step 2", "codebook"])
@pytest.mark.parametrize("bits", range(1, 9))
def test_every_width_decode_and_shape(bits, kind, isa, library):
    rng = np.random.default_rng([bits, *kind.encode()])
    for turn, (features, channels, rows) in enumerate(shapes(bits + len(kind))):
        layer = random_layer(
            rng,
            features,
            channels,
            bits,
            input_zero_point=int(rng.integers(-128, 128)),
            output_zero_point=int(rng.integers(-20, 20)),
            clamp=(-100, 90),
            **decode_fields(kind, bits, rng),
        )
        layer = with_records(layer, RECORDS[turn % len(RECORDS)], rng)
        x = rng.integers(-128, 128, (rows, features)).astype(np.int8)
        expected = oracle(layer, x)
        np.testing.assert_array_equal(run_guarded(library, layer, x, isa), expected)
        np.testing.assert_array_equal(reference.fully_connected(layer, x), expected)


def test_the_shapes_cover_what_they_should():
    drawn = [shape for seed in range(24) for shape in shapes(seed)]
    assert {features for features, _, _ in drawn} == {*FEATURES, *MORE_FEATURES}
    assert {channels for _, channels, _ in drawn} == {*CHANNELS}
    assert {rows for _, _, rows in drawn} == {*range(1, 10)}


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("features", [64, 4097, MAX_FEATURES])
@pytest.mark.parametrize("bits", range(1, 9))
def test_the_largest_sums(bits, features, isa, library):
    """Every code and every input at its end: nothing saturates or wraps on the way to the sum."""
    codes = np.zeros((4, features), np.uint8)
    codes[1::2] = (1 << bits) - 1
    for extreme in (-128, 127):
        x = np.full((1, features), extreme, np.int8)
        layer = PackedLayer(
            codes=codes,
            grid=Grid.symmetric(bits),
            multiplier=np.full(4, 100 / (128 * 128 * features), np.float32),
            bias=np.array([0, 1, -1, 7], np.int32),
            input_scale=1.0,
            output_scale=1.0,
        )
        np.testing.assert_array_equal(run_guarded(library, layer, x, isa), oracle(layer, x))
        extremes = np.where(np.arange(1 << bits) % 2, 127, -128).astype(np.int8)
        by_codebook = replace(layer, grid=grid(bits, codebook=extremes))
        np.testing.assert_array_equal(run_guarded(library, by_codebook, x, isa), oracle(by_codebook, x))


@st.composite
def layers(draw):
    bits = draw(st.integers(1, 8))
    features, channels = draw(st.integers(1, 200)), draw(st.integers(1, 40))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    clamp = sorted((draw(st.integers(-128, 127)), draw(st.integers(-128, 127))))
    layer = random_layer(
        rng,
        features,
        channels,
        bits,
        multiplier=(rng.normal(size=channels) * 10.0 ** draw(st.integers(-30, 30))).astype(np.float32),
        bias=rng.integers(-(2**29), 2**29, channels).astype(np.int32) >> draw(st.integers(0, 29)),
        output_zero_point=draw(st.integers(-128, 127)),
        clamp=tuple(clamp),
        **decode_fields(draw(st.sampled_from(["step 1", "step 2", "codebook"])), bits, rng),
    )
    return layer, rng.integers(-128, 128, (draw(st.integers(1, 9)), features)).astype(np.int8)


@pytest.mark.parametrize("isa", ISAS)
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(case=layers())
def test_any_layer(isa, library, case):
    layer, x = case
    with np.errstate(over="ignore"):
        expected = oracle(layer, x)
    np.testing.assert_array_equal(run_guarded(library, layer, x, isa), expected)


@pytest.mark.parametrize("isa", ISAS)
def test_channels_can_be_computed_in_parts(isa, library):
    rng = np.random.default_rng(4)
    layer = random_layer(rng, 50, 300, 5)
    x = rng.integers(-128, 128, (6, 50)).astype(np.int8)
    packed, chosen, output = layer.pack(), library.subbyte_find_isa(isa.encode()), np.full((6, 300), 99, np.int8)
    for first, last in ((16, 64), (0, 16), (64, 64), (272, 300), (64, 272)):
        before = output.copy()
        library.subbyte_fully_connected_channels(packed, x.ctypes.data, 6, output.ctypes.data, chosen, first, last)
        before[:, first:last] = oracle(layer, x)[:, first:last]
        np.testing.assert_array_equal(output, before)


def sums_to_codes(sums: list[int], multiplier: float, **fields) -> list[int]:
    """Output codes of a layer whose sums are exactly these."""
    count = len(sums)
    layer = PackedLayer(
        codes=np.zeros((count, 1), np.uint8),
        grid=Grid(1),
        multiplier=np.full(count, multiplier, np.float32),
        bias=np.array(sums, np.int32),
        input_scale=1.0,
        output_scale=1.0,
        **fields,
    )
    x = np.zeros((1, 1), np.int8)
    codes = native.fully_connected(layer.pack(), x)
    np.testing.assert_array_equal(codes, reference.fully_connected(layer, x))
    return codes[0].tolist()


def test_ties_go_to_even():
    assert sums_to_codes([1, 3, 5, -1, -3, -5], 0.5) == [0, 2, 2, 0, -2, -2]
    assert sums_to_codes([1, 3, -1], 0.5, output_zero_point=1) == [1, 3, 1]  # the zero point comes after the rounding


def test_products_too_large_for_an_integer_saturate():
    assert sums_to_codes([1, -1, 0], 3e38) == [127, -128, 0]
    assert sums_to_codes([2**30, -(2**30)], 3e38) == [127, -128]  # the product is infinite
    assert sums_to_codes([2**30, -(2**30)], 3e38, clamp=(-5, 9), output_zero_point=-128) == [9, -5]


def test_negative_and_zero_multipliers():
    assert sums_to_codes([10, -10, 0], -0.25) == [-2, 2, 0]
    assert sums_to_codes([10, -10, 2**30], 0.0, output_zero_point=-7) == [-7, -7, -7]


def test_rows_are_independent():
    rng = np.random.default_rng(5)
    layer = random_layer(rng, 45, 19, 5)
    x = rng.integers(-128, 128, (2, 3, 45)).astype(np.int8)
    together = native.fully_connected(layer.pack(), x)
    assert together.shape == (2, 3, 19)
    for index in np.ndindex(2, 3):
        np.testing.assert_array_equal(native.fully_connected(layer.pack(), x[index]), together[index])
    assert native.fully_connected(layer.pack(), x[:0]).shape == (0, 3, 19)


def test_wrong_use_of_the_python_face_is_refused():
    layer = random_layer(np.random.default_rng(6), 8, 4)
    with pytest.raises(ValueError, match=r"int8 \[\.\.\., 8\]"):
        native.fully_connected(layer.pack(), np.zeros((1, 7), np.int8))
    with pytest.raises(ValueError, match=r"int8 \[\.\.\., 8\]"):
        native.fully_connected(layer.pack(), np.zeros((1, 8), np.float32))
    with pytest.raises(ValueError, match="'mmx'"):
        native.fully_connected(layer.pack(), np.zeros((1, 8), np.int8), isa="mmx")


def test_portable_is_the_last_instruction_set():
    assert list(isas())[-1] == "portable"
    assert isas()["portable"]


def test_every_instruction_set_fills_every_slot():
    """The core calls what is there, and asks for nothing: a slot left empty would be a call to address 0."""
    library, index = native.load(), 0
    while isa := library.subbyte_isa_at(index):
        preparing_and_sums, unused, finish = 9, 1, 2  # pointers, as `struct subbyte_isa` has them
        words = (ctypes.c_void_p * (preparing_and_sums + unused + finish)).from_address(isa)
        assert all(words[:preparing_and_sums]), library.subbyte_isa_name(isa)
        assert all(words[preparing_and_sums + unused :]), library.subbyte_isa_name(isa)
        index += 1
    assert index == len(isas())

"""Layers with 16-bit activations: the C kernels against numpy's integers and the stock 16x8 op, bit for bit."""

from __future__ import annotations

import math
from collections.abc import Iterator
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema
from guard import Guarded
from models import INT16, RECORDS, Model, chain, grid, random_layer, with_records
from test_kernels import CHANNELS, FEATURES, decode_fields

from subbyte import kernels
from subbyte.kernels import isas, native, reference
from subbyte.schemas import MAX_FEATURES, Grid, PackedLayer

ISAS = [name for name, runs in isas().items() if runs]
WHOLE = (-(2**15), 2**15 - 1)


def random_codes(rng: np.random.Generator, *shape: int) -> np.ndarray:
    return rng.integers(-(2**15), 2**15, shape).astype(np.int16)


def rounded(value: Fraction) -> int:
    """To the nearest integer, away from zero halfway between two."""
    return int(math.copysign(1, value)) * math.floor(abs(value) + Fraction(1, 2))


def oracle(layer: PackedLayer, x: np.ndarray) -> np.ndarray:
    """Python's integers and fractions."""
    sums = x.astype(np.int64) @ layer.weights.astype(np.int64).T + layer.bias
    multipliers = [Fraction(float(value)) for value in layer.multiplier]
    codes = [[rounded(int(s) * m) for s, m in zip(row, multipliers, strict=True)] for row in sums]
    return np.array([[min(max(code, layer.clamp[0]), layer.clamp[1]) for code in row] for row in codes], np.int16)


def run_guarded(layer: PackedLayer, x: np.ndarray, isa: str) -> np.ndarray:
    """The native kernel with every buffer ending at a page without access."""
    library, packed, rows, channels = native.load(), layer.pack(), x.shape[0], layer.codes.shape[0]
    memory, inputs, outputs = Guarded(packed), Guarded(x.tobytes()), Guarded(bytes(2 * rows * channels))
    assert library.subbyte_check(memory.address, len(packed)) == 0
    scratch = Guarded(bytes(library.subbyte_fully_connected_int16_scratch(memory.address, rows)))
    chosen = library.subbyte_find_isa(isa.encode())
    library.subbyte_fully_connected_int16(
        memory.address, inputs.address, rows, outputs.address, scratch.address, chosen
    )
    assert memory.array.tobytes() == packed
    assert inputs.array.tobytes() == x.tobytes()
    return outputs.array.view(np.int16).reshape(rows, channels).copy()


def shapes(seed: int) -> Iterator[tuple[int, int, int]]:
    """(features, channels, rows): every number of features, with other channels and rows for another seed."""
    for index, features in enumerate((*FEATURES, 161, 300, 513, 540)):
        yield features, CHANNELS[(7 * index + 5 * seed) % len(CHANNELS)], 1 + (index + seed) % 5


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("kind", ["step 1", "step 2", "codebook"])
@pytest.mark.parametrize("bits", range(1, 9))
def test_every_width_decode_and_shape(bits, kind, isa):
    rng = np.random.default_rng([bits, *kind.encode()])
    for turn, (features, channels, rows) in enumerate(shapes(bits + len(kind))):
        fields = decode_fields(kind, bits, rng)
        layer = random_layer(rng, features, channels, bits, activation_type=INT16, clamp=(-30000, 31000), **fields)
        layer = with_records(layer, RECORDS[turn % len(RECORDS)], rng)
        x = random_codes(rng, rows, features)
        expected = reference.fully_connected(layer, x)
        np.testing.assert_array_equal(run_guarded(layer, x, isa), expected)


def test_the_shapes_cover_what_they_should():
    drawn = [shape for seed in range(24) for shape in shapes(seed)]
    assert {channels for _, channels, _ in drawn} == {*CHANNELS}
    assert {rows for _, _, rows in drawn} == {*range(1, 6)}


@pytest.mark.parametrize("kind", ["step 1", "codebook"])
@pytest.mark.parametrize("bits", [1, 5, 8])
def test_the_reference(bits, kind):
    rng = np.random.default_rng(bits)
    for exponent in (-30, -20, -10, -3, 0, 10):
        multiplier = rng.uniform(0, 2.0**exponent, 9).astype(np.float32)
        fields = {"multiplier": multiplier, "activation_type": INT16, **decode_fields(kind, bits, rng)}
        layer = random_layer(rng, 20, 9, bits, **fields)
        x = random_codes(rng, 30, 20)
        np.testing.assert_array_equal(reference.fully_connected(layer, x), oracle(layer, x))


def sums_to_codes(sums: list[int], multiplier: float | list[float], **fields: Any) -> list[int]:
    """Output codes of a layer whose sums are exactly these; every instruction set gives them."""
    layer = PackedLayer(
        codes=np.zeros((len(sums), 1), np.uint8),
        grid=Grid(1),
        multiplier=np.broadcast_to(np.float32(multiplier), len(sums)),
        bias=np.array(sums, np.int64),
        input_scale=1.0,
        output_scale=1.0,
        **{"clamp": WHOLE, "activation_type": INT16, **fields},
    )
    x = np.zeros((1, 1), np.int16)
    codes = oracle(layer, x)
    np.testing.assert_array_equal(reference.fully_connected(layer, x), codes)
    for isa, runs in isas().items():
        if runs:
            np.testing.assert_array_equal(native.fully_connected(layer.pack(), x, isa), codes)
    return codes[0].tolist()


def test_ties_go_away_from_zero():
    assert sums_to_codes([1, 3, 5, -1, -3, -5], 0.5) == [1, 2, 3, -1, -2, -3]
    assert sums_to_codes([512, -512, 1536, -1536], 513 / 1024) == [257, -257, 770, -770]


def test_products_are_exact():
    """One unit of the 24-bit multiplier beside a tie, where 53 bits would see the tie."""
    near = 2**-38 + 2**-61
    assert sums_to_codes([2**37, 2**37 + 2**14], near) == [1, 1]
    assert sums_to_codes([-(2**37), -(2**37) + 2**15], [near, 2**-38 - 2**-62]) == [-1, 0]
    assert sums_to_codes([2**37] * 4, [2**-38, 2**-39, 3 * 2**-39, 2**-38 - 2**-62]) == [1, 0, 1, 0]


def test_multipliers_of_any_size():
    small, large = [1, -1, 0], [2**38, -(2**38), 0]
    for sums in (small, large):
        assert sums_to_codes(sums, 2.0**23 - 0.5) == [32767, -32768, 0]
        for exponent in (-40, -63, -64, -65, -100, -126, -149):  # the last is subnormal
            assert sums_to_codes(sums, 2.0**exponent) == [0, 0, 0]
        assert sums_to_codes(sums, 0.0) == [0, 0, 0]
    assert sums_to_codes(small, 2.0**-1) == [1, -1, 0]
    assert sums_to_codes(large, 2.0**-39) == [1, -1, 0]
    assert sums_to_codes(large, 2.0**-38 * 1.25) == [1, -1, 0]
    assert sums_to_codes([70000, -70000, 5], 1.0, clamp=(-5, 9)) == [9, -5, 5]


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("features", [64, 4097, MAX_FEATURES])
@pytest.mark.parametrize("bits", [1, 3, 4, 8])
def test_the_largest_sums(bits, features, isa):
    """Every code and every input at its end: nothing saturates or wraps on the way to the sum."""
    codes = np.zeros((4, features), np.uint8)
    codes[1::2] = (1 << bits) - 1
    for extreme in (*WHOLE, -1, 255):
        x = np.full((1, features), extreme, np.int16)
        fields: dict[str, Any] = {
            "codes": codes,
            "multiplier": np.full(4, 20000 / (2**22 * features), np.float32),
            "bias": np.array([0, 1, -1, 7], np.int32),
            "input_scale": 1.0,
            "output_scale": 1.0,
            "clamp": WHOLE,
            "activation_type": INT16,
        }
        layer = PackedLayer(**fields, grid=Grid.symmetric(bits))
        np.testing.assert_array_equal(run_guarded(layer, x, isa), oracle(layer, x))
        extremes = np.where(np.arange(1 << bits) % 2, 127, -128).astype(np.int8)
        by_codebook = PackedLayer(**fields, grid=grid(bits, codebook=extremes))
        np.testing.assert_array_equal(run_guarded(by_codebook, x, isa), oracle(by_codebook, x))


def test_channels_can_be_computed_in_parts():
    rng, rows = np.random.default_rng(4), 5
    layer = random_layer(rng, 50, 300, 5, activation_type=INT16)
    x, packed, loaded = random_codes(rng, rows, 50), layer.pack(), native.load()
    scratch = np.empty(loaded.subbyte_fully_connected_int16_scratch(packed, rows), np.int8)
    output, expected = np.full((rows, 300), 99, np.int16), oracle(layer, x)
    for first, last in ((16, 64), (0, 16), (64, 64), (272, 300), (64, 272)):
        before = output.copy()
        pointers = (packed, x.ctypes.data, rows, output.ctypes.data, scratch.ctypes.data, loaded.subbyte_best_isa())
        loaded.subbyte_fully_connected_int16_channels(*pointers, first, last)
        before[:, first:last] = expected[:, first:last]
        np.testing.assert_array_equal(output, before)


def test_wrong_use_of_the_python_face_is_refused():
    packed = random_layer(np.random.default_rng(6), 8, 4, activation_type=INT16).pack()
    with pytest.raises(ValueError, match=r"int16 \[\.\.\., 8\], not int8"):
        native.fully_connected(packed, np.zeros((1, 8), np.int8))
    assert native.fully_connected(packed, np.zeros((0, 2, 8), np.int16)).shape == (0, 2, 4)


def run(content: bytes, x: np.ndarray, threads: int | None = None) -> np.ndarray:
    """The model's only output for one input, at the batch size of `x`."""
    interpreter: Any = kernels.Interpreter(model_content=content, num_threads=threads)
    index = interpreter.get_input_details()[0]["index"]
    interpreter.resize_tensor_input(index, x.shape)
    interpreter.allocate_tensors()
    interpreter.set_tensor(index, x)
    interpreter.invoke()
    return interpreter.get_tensor(interpreter.get_output_details()[0]["index"])


def stock_16x8(layer: PackedLayer, weight_scale: np.ndarray) -> bytes:
    """The layer as the stock op: int8 weights, a scale for each channel, int64 bias."""
    model = Model()
    x = model.input_for(layer)
    channels = len(layer.codes)

    def constant(values: np.ndarray, scale: np.ndarray) -> int:
        tensor = model.tensor(values.shape, values.dtype.name, 1.0, data=values.tobytes())
        quantization = model.tensors[tensor].quantization
        quantization.scale, quantization.zeroPoint = scale.tolist(), [0] * channels
        return tensor

    weights = constant(layer.weights.astype(np.int8), weight_scale)
    bias = constant(layer.bias.astype(np.int64), np.float32(layer.input_scale) * weight_scale)
    y = model.tensor([1, channels], "int16", layer.output_scale)
    options = schema.FullyConnectedOptionsT()
    kind = schema.BuiltinOptions.FullyConnectedOptions
    model.op(schema.BuiltinOperator.FULLY_CONNECTED, [x, weights, bias], [y], options, kind)
    model.codes[-1].version = 7
    return model.finish([x], [y])


@pytest.mark.parametrize(("features", "channels"), [(540, 87), (33, 17), (5000, 3)])
@pytest.mark.parametrize("bits", range(1, 9))
def test_the_stock_op_gives_the_same_codes(bits, features, channels):
    """With multipliers as layers have them, odd integers of 10 bits times a power of two; ties are among the sums."""
    rng = np.random.default_rng([bits, features])
    size = round(math.log2(math.sqrt(features) * 2 ** (bits - 1)))
    weight_scale = np.float32(rng.integers(256, 512, channels) * 2 + 1) / 2**10
    layer = random_layer(
        rng,
        features,
        channels,
        bits,
        multiplier=weight_scale / 2**size,
        bias=rng.integers(-(2**14), 2**14, channels) << size,
        output_scale=0.5 * 2**size,
        activation_type=INT16,
    )
    x = random_codes(rng, 50, features)
    x[:40] //= 2**8  # small sums: ties are one in 2^10 or so
    expected = run(stock_16x8(layer, weight_scale), x)
    assert len(np.unique(expected)) > 100
    np.testing.assert_array_equal(run(chain([layer]), x), expected)


def test_the_stock_op_breaks_ties_as_the_kernels_do():
    layer = random_layer(
        np.random.default_rng(0), 1, 2, 1, code_offset=1, activation_type=INT16, input_scale=1.0, output_scale=1.0,
        multiplier=np.float32([513 / 1024, 1023 / 1024]), bias=np.zeros(2, np.int64),
    )  # fmt: skip
    x = (512 * np.arange(-9, 10, 2, dtype=np.int16))[:, None]
    expected = run(stock_16x8(layer, layer.multiplier), x)
    assert expected[:, 0].tolist() == [-2309, -1796, -1283, -770, -257, 257, 770, 1283, 1796, 2309]
    np.testing.assert_array_equal(run(chain([layer]), x), expected)


@pytest.mark.parametrize("threads", [None, 3])
def test_a_network_of_every_width(threads):
    rng = np.random.default_rng(10)
    sizes = [60, 33, 17, 48, 87, 16, 5, 40, 7]
    layers = [random_layer(rng, sizes[b - 1], sizes[b], b, activation_type=INT16) for b in range(1, 9)]
    content = chain(layers)
    for rows in (1, 5, 2, 0):
        x = expected = random_codes(rng, rows, 60)
        for layer in layers:
            expected = reference.fully_connected(layer, expected)
        np.testing.assert_array_equal(run(content, x, threads), expected)


@pytest.mark.parametrize(("features", "channels", "rows"), [(1024, 1500, 3), (2000, 9, 300)])
def test_threads_share_a_layer(features, channels, rows):
    """By channels, and by rows where there are few of those."""
    rng = np.random.default_rng(features)
    layer = random_layer(rng, features, channels, 4, activation_type=INT16)
    x = random_codes(rng, rows, features)
    np.testing.assert_array_equal(run(chain([layer]), x, threads=4), reference.fully_connected(layer, x))


@pytest.mark.parametrize(
    ("input_type", "output_type", "input_scale", "zero_point", "message"),
    [
        ("int8", "int16", 0.5, 0, "must be int16"),
        ("int16", "int8", 0.5, 0, "must be int16"),
        ("float32", "int16", 0.5, 0, "must be int16"),
        ("int16", "int16", 0.25, 0, "the input's scale"),
        ("int16", "int16", 0.5, 3, "the input's scale and zero point"),
    ],
)
def test_tensors_that_do_not_fit_are_refused(input_type, output_type, input_scale, zero_point, message):
    layer = random_layer(np.random.default_rng(18), 6, 3, activation_type=INT16)
    packed, model = layer.pack(), Model()
    x = model.tensor([1, 6], input_type, input_scale, zero_point)
    constant = model.tensor([len(packed)], "uint8", data=packed)
    y = model.tensor([1, 3], output_type, 0.5)
    model.custom([x, constant], [y])
    interpreter = kernels.Interpreter(model_content=model.finish([x], [y]))
    with pytest.raises(RuntimeError, match=message):
        interpreter.allocate_tensors()


def test_an_8_bit_layer_between_16_bit_tensors_is_refused():
    layer = random_layer(np.random.default_rng(19), 6, 3)
    packed, model = layer.pack(), Model()
    x, y = model.tensor([1, 6], "int16", 0.5), model.tensor([1, 3], "int16", 0.5)
    model.custom([x, model.tensor([len(packed)], "uint8", data=packed)], [y])
    interpreter = kernels.Interpreter(model_content=model.finish([x], [y]))
    with pytest.raises(RuntimeError, match="must be int8"):
        interpreter.allocate_tensors()

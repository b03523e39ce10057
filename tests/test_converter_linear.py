"""Grids hold any weights without loss in the fewest bits; a graph survives reading and writing. No Keras."""

from pathlib import Path

import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.interpreter import Interpreter, OpResolverType
from hypothesis import given, settings
from hypothesis import strategies as st
from models import Model, chain, random_layer

from subbyte import kernels
from subbyte.converter import ConversionError, convert
from subbyte.converter.files import write_atomically
from subbyte.converter.graph import Graph
from subbyte.converter.integer_ops import clamp_codes
from subbyte.schemas import Grid, PackedLayer

FULLY_CONNECTED_OPTIONS = schema.BuiltinOptions.FullyConnectedOptions
INT8 = st.integers(-128, 127)
FEW = st.lists(INT8, min_size=1, max_size=40, unique=True)


def decode(grid: Grid, codes: np.ndarray) -> np.ndarray:
    if grid.codebook is not None:
        return np.asarray(grid.codebook)[codes]
    return grid.offset + grid.step * codes.astype(int)


def fewest_bits(values: list[int]) -> int:
    """A codebook holds any 2^bits values, and nothing holds more."""
    return next(bits for bits in range(1, 9) if len(values) <= 2**bits)


def linear_bits(values: list[int]) -> int | None:
    """Bits of the narrowest evenly spaced grid within int8 that holds the values; None where none does."""
    for bits in range(1, 9):
        for step in range(1, 256):
            for offset in range(-128, 127 - step * (2**bits - 1) + 1):
                grid = range(offset, offset + step * 2**bits, step)
                if all(value in grid for value in values):
                    return bits
    return None


@settings(deadline=None, max_examples=150)
@given(FEW, st.randoms(use_true_random=False))
def test_the_smallest_grid_is_lossless_and_smallest(values, random):
    weights = np.asarray([random.choice(values) for _ in range(50)] + values).reshape(1, -1)
    grid = Grid.smallest(weights)
    codes = grid.encode(weights)
    np.testing.assert_array_equal(decode(grid, codes), weights)
    assert grid.bits == fewest_bits(values)
    # The format takes it, and gives it back.
    layer = PackedLayer(
        codes=codes,
        grid=grid,
        multiplier=np.ones(1, np.float32),
        bias=np.zeros(1, np.int32),
        input_scale=1.0,
        output_scale=1.0,
    )
    np.testing.assert_array_equal(PackedLayer.unpack(layer.pack()).weights, weights)


@settings(deadline=None, max_examples=30)
@given(st.integers(-128, 127), st.integers(1, 60), st.integers(2, 12))
def test_even_spacing_needs_no_codebook(first, step, count):
    values = [v for v in range(first, first + step * count, step) if v <= 127]
    grid = Grid.smallest(np.asarray(values))
    assert (grid.codebook is None) == (linear_bits(values) == grid.bits)


@pytest.mark.parametrize(
    ("values", "bits", "codebook"),
    [
        ([-128, 127], 1, False),
        ([127], 1, False),
        ([-128], 1, False),
        ([0], 1, False),
        ([125, 126, 127], 2, False),
        ([-128, 0, 127], 2, True),
        ([-127, 0, 127], 2, True),
        ([-100, 0, 100], 2, True),
        ([0, 50, 100], 2, False),
        (range(-7, 8), 4, False),
        (range(-15, 16, 2), 4, False),
        (range(-128, 128), 8, False),
        (range(-64, 65), 8, False),
    ],
)
def test_ends_of_int8(values, bits, codebook):
    weights = np.asarray(list(values))
    grid = Grid.smallest(weights)
    assert (grid.bits, grid.codebook is not None) == (bits, codebook)
    np.testing.assert_array_equal(decode(grid, grid.encode(weights)), weights)


@settings(deadline=None)
@given(st.lists(INT8, min_size=1, max_size=20), INT8)
def test_a_weight_off_the_grid_is_refused(values, stranger):
    grid = Grid.smallest(np.asarray(values))
    held = set(decode(grid, np.arange(1 << grid.bits)).tolist())
    if stranger in held:
        assert decode(grid, grid.encode(np.asarray([stranger]))) == stranger
    else:
        with pytest.raises(ValueError, match="off the grid"):
            grid.encode(np.asarray([*values, stranger]))


@given(st.floats(-600, 600), st.floats(0, 600), st.sampled_from([0.5, 0.25, 1 / 3]), INT8)
def test_clamps_are_the_codes_of_their_bounds(low, width, scale, zero_point):
    first, last = clamp_codes(low, low + width, (scale, zero_point))
    expected = [int(np.clip(np.rint(end / scale) + zero_point, -128, 127)) for end in (low, low + width)]
    assert [first, last] == expected
    assert clamp_codes(-np.inf, np.inf, (scale, zero_point)) == (-128, 127)


def test_clamps_of_int16_codes_round_ties_away_from_zero_as_the_codes_do():
    for (low, high), codes in {
        (-np.inf, np.inf): (-32768, 32767),
        (-2.5, 2.5): (-3, 3),
        (-0.5, 1.49): (-1, 1),
        (-1e9, 40000.0): (-32768, 32767),
    }.items():
        assert clamp_codes(low / 64, high / 64, (1 / 64, 0), schema.TensorType.INT16) == codes


def test_a_graph_is_written_as_it_was_read():
    rng = np.random.default_rng(0)
    model = Model()
    layer = random_layer(rng, 12, 12)
    x = model.input_for(layer)
    y = model.layer(x, layer, name="first")
    data = model.finish([x], [model.add(y, y, 0.5, 3)])
    again = Graph.read(data).write()
    assert Graph.read(again).write() == again
    before, after = Graph.read(data), Graph.read(again)
    assert [before.kind(op) for op in before.operators] == [after.kind(op) for op in after.operators]
    assert [before.name(i) for i in range(len(before.main.tensors))] == [
        after.name(i) for i in range(len(after.main.tensors))
    ]
    constants = [i for i in range(len(before.main.tensors)) if before.constant(i) is not None]
    assert len(constants) == 1
    np.testing.assert_array_equal(before.constant(constants[0]), after.constant(constants[0]))


def test_packed_tensors_start_at_multiples_of_64_bytes():
    layers = [random_layer(np.random.default_rng(0), 30, 30) for _ in range(3)]
    data = Graph.read(chain(layers)).write()
    places = [data.index(layer.pack()) for layer in layers]
    assert [place % 64 for place in places] == [0, 0, 0]


def test_a_packed_model_is_refused():
    with pytest.raises(ConversionError, match="packed already"):
        convert(chain([random_layer(np.random.default_rng(0), 8, 8)]))


def test_damaged_bytes_are_refused_whatever_is_damaged():
    rng = np.random.default_rng(1)
    data = chain([random_layer(rng, 40, 20), random_layer(rng, 20, 8)])
    # The last bytes are a name, which Python's flatbuffers cut without a word.
    for length in (*range(0, 64, 4), *rng.integers(64, len(data) - 64, 60)):
        with pytest.raises(ConversionError, match=r"damaged|not a TFLite"):
            Graph.read(data[:length])


def test_flipped_bits_are_converted_or_refused():
    """Never another error: a flip that leaves a readable model need not be noticed."""
    rng = np.random.default_rng(1)
    data = flattening_model(rng)
    refused = 0
    for _ in range(300):
        flipped = bytearray(data)
        flipped[rng.integers(8, len(data))] ^= 1 << rng.integers(8)
        try:
            convert(bytes(flipped), prefer=None)
        except ConversionError:
            refused += 1
    assert 0 < refused < 300


def flattening_model(rng: np.random.Generator) -> bytes:
    """A stock FULLY_CONNECTED that flattens [2, 3, 8] by itself, which converters of other makers write."""
    model = Model()
    x = model.tensor([2, 3, 8], scale=0.5, zero_point=7)
    kernel = model.tensor([9, 24], scale=0.02, data=rng.integers(-2, 2, (9, 24)).astype(np.int8))
    y = model.tensor([2, 9], scale=0.25, zero_point=-3)
    options = schema.FullyConnectedOptionsT()
    model.op(schema.BuiltinOperator.FULLY_CONNECTED, [x, kernel, -1], [y], options, FULLY_CONNECTED_OPTIONS)
    model.codes[-1].version = 4
    return model.finish([x], [y])


def test_a_layer_that_flattens_its_input_by_itself():
    rng = np.random.default_rng(0)
    original = flattening_model(rng)
    result = convert(original, io="int8", prefer=None)
    assert [layer.weight_bits for layer in result.layers] == [2]
    runs = []
    for interpreter in (Interpreter(model_content=original), kernels.Interpreter(model_content=result.tflite)):
        interpreter.allocate_tensors()
        (x,), (y,) = interpreter.get_input_details(), interpreter.get_output_details()
        inputs = np.random.default_rng(2)
        rows = []
        for _ in range(100):
            interpreter.set_tensor(x["index"], inputs.integers(-128, 128, (2, 3, 8)).astype(np.int8))
            interpreter.invoke()
            rows.append(interpreter.get_tensor(y["index"]))
        runs.append(np.stack(rows))
    assert len(np.unique(runs[0])) > 50
    np.testing.assert_array_equal(*runs)


@pytest.mark.parametrize("resolver", [OpResolverType.AUTO, OpResolverType.BUILTIN_REF])
def test_stock_quantize_ops_break_ties_of_int16_in_two_ways(resolver):
    """Why `verify` and the tests of 16-bit networks keep inputs off ties, and docs/numbers.md tells of them."""
    model = Model()
    x, y = model.tensor([1, 11], "float32"), model.tensor([1, 11], "int16", scale=0.5)
    options = schema.BuiltinOptions.QuantizeOptions
    model.op(schema.BuiltinOperator.QUANTIZE, [x], [y], schema.QuantizeOptionsT(), options)
    interpreter = Interpreter(model_content=model.finish([x], [y]), experimental_op_resolver_type=resolver)
    interpreter.allocate_tensors()
    interpreter.set_tensor(0, np.full((1, 11), 0.25, np.float32))
    interpreter.invoke()
    to_even = interpreter.get_tensor(1) == 0
    assert to_even.any() == (resolver == OpResolverType.AUTO)


def test_stock_layers_between_int16_tensors_are_not_packed():
    model = Model()
    x, y = (model.tensor([1, 8], "int16", scale=0.5) for _ in range(2))
    kernel = model.tensor([8, 8], scale=0.02, data=np.ones((8, 8), np.int8))
    options = schema.FullyConnectedOptionsT()
    model.op(schema.BuiltinOperator.FULLY_CONNECTED, [x, kernel, -1], [y], options, FULLY_CONNECTED_OPTIONS)
    data = model.finish([x], [y])
    for bits in (None, 4):
        with pytest.raises(ConversionError, match=r"nothing to pack .* int16, int8, int16: int8 or uint8 is wanted"):
            convert(data, bits=bits)


class TestWriteAtomically:
    def test_a_new_file_has_everyday_permissions(self, tmp_path):
        write_atomically(tmp_path / "a", b"1")
        (tmp_path / "plain").write_bytes(b"")
        assert (tmp_path / "a").read_bytes() == b"1"
        assert (tmp_path / "a").stat().st_mode == (tmp_path / "plain").stat().st_mode

    def test_a_file_that_was_there_keeps_its_permissions(self, tmp_path):
        path = tmp_path / "a"
        path.write_bytes(b"0")
        path.chmod(0o600)
        write_atomically(path, b"1")
        assert (path.read_bytes(), path.stat().st_mode & 0o777) == (b"1", 0o600)

    def test_a_link_stays_a_link(self, tmp_path):
        (tmp_path / "a").write_bytes(b"0")
        (tmp_path / "link").symlink_to(tmp_path / "a")
        write_atomically(tmp_path / "link", b"1")
        assert (tmp_path / "link").is_symlink()
        assert (tmp_path / "a").read_bytes() == b"1"

    def test_a_failed_write_leaves_the_old_file_and_nothing_else(self, tmp_path, monkeypatch):
        path = tmp_path / "a"
        path.write_bytes(b"0")

        def fail(*_):
            raise OSError(28, "No space left on device")

        monkeypatch.setattr("os.replace", fail)
        with pytest.raises(ConversionError, match=r"cannot write .*No space left"):
            write_atomically(path, b"1")
        assert path.read_bytes() == b"0"
        assert list(tmp_path.iterdir()) == [path]

    def test_a_device_is_written_not_replaced(self):
        write_atomically(Path("/dev/null"), b"1")
        assert not Path("/dev/null").is_file()

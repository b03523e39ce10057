"""The packed layer: its two definitions agree, and packing follows the layout's text, byte by byte."""

import doctest
import itertools
import subprocess

import numpy as np
import pytest
from compilers import INCLUDE, ROOT, STRICT, compile_c
from models import INT16, random_layer

from subbyte.schemas import (
    ENUMS,
    HEADER,
    MAGIC,
    MAX_FEATURES,
    PACKED_OPS,
    PLANE_WIDTHS,
    VERSION,
    Grid,
    PackedLayer,
    first_and_last,
    pack_planes,
    unpack_planes,
)
from subbyte.schemas.definition import parse

C_PREFIXES = {
    "Op": "SUBBYTE_",
    "Decode": "SUBBYTE_",
    "Layout": "SUBBYTE_",
    "ActivationType": "SUBBYTE_ACTIVATION_",
    "Requantization": "SUBBYTE_REQUANTIZE_",
    "MultiplierType": "SUBBYTE_MULTIPLIER_",
    "BiasType": "SUBBYTE_BIAS_",
    "Padding": "SUBBYTE_PADDING_",
}


def test_c_header_equals_the_schema(tmp_path):
    claims = [f"sizeof(subbyte_header) == {HEADER.itemsize}"]
    for name in HEADER.names:
        kind, offset = HEADER.fields[name][:2]
        claims.append(f"offsetof(subbyte_header, {name}) == {offset}")
        claims.append(f"sizeof(((subbyte_header *)0)->{name}) == {kind.itemsize}")
        sign = {"u": ">", "i": "<"}.get(kind.base.kind)
        if sign and kind.shape == ():
            claims.append(f"(subbyte_header){{.{name} = -1}}.{name} {sign} 0")
    claims += [f"{prefix}{member.name} == {member.value}" for e, prefix in C_PREFIXES.items() for member in ENUMS[e]]
    claims += [f"SUBBYTE_MAGIC == {MAGIC}", f"SUBBYTE_VERSION == {VERSION}", f"SUBBYTE_MAX_FEATURES == {MAX_FEATURES}"]
    assert set(C_PREFIXES) == set(ENUMS)
    claims += [f'!strcmp(SUBBYTE_{op.name}_NAME, "{name}")' for op, name in PACKED_OPS.items()]
    checks = "".join(f"  CHECK({claim});\n" for claim in claims)
    source = tmp_path / "claims.c"
    source.write_text(
        '#include <stdio.h>\n#include <string.h>\n#include "subbyte_op.h"\n'
        "#define CHECK(claim) if (!(claim)) puts(#claim)\n"
        f"int main(void) {{\n{checks}  return 0;\n}}\n"
    )
    compile_c(["-std=c11", "-Wno-sign-conversion", "-I", INCLUDE, source, "-o", tmp_path / "claims"])
    assert subprocess.run([tmp_path / "claims"], capture_output=True, text=True, check=True).stdout == ""


def test_public_header_is_strict_c(tmp_path):
    source = tmp_path / "user.c"
    source.write_text('#include "subbyte.h"\n')
    compile_c([*STRICT, "-fsyntax-only", "-I", INCLUDE, source])


def test_a_schema_that_needs_padding_is_refused():
    with pytest.raises(ValueError, match="natural alignment"):
        parse("struct S { a : ubyte; b : uint; }", "S")
    with pytest.raises(ValueError, match="no struct"):
        parse("struct S { a : ubyte; }", "T")


def plane_by_the_book(codes: np.ndarray, bits: int, width: int) -> bytes:
    """One plane as packed_layer.fbs describes it, bit by bit, with nothing shared with the packer."""
    channels, features = codes.shape
    below = sum(w for w in PLANE_WIDTHS if w > width and bits & w)  # wider planes hold the lower bits
    inputs_per_block = 32 // width
    plane = bytearray()
    for panel in range(0, channels, 16):
        for first in range(0, features, inputs_per_block):
            for channel in range(panel, min(panel + 16, channels)):
                for i in range(4):
                    byte = 0
                    for field, k in enumerate(range(first + i, first + inputs_per_block, 4)):
                        code = int(codes[channel, k]) if k < features else 0
                        for bit in range(width):
                            byte |= (code >> (below + bit) & 1) << (field * width + bit)
                    plane.append(byte)
    return bytes(plane)


SHAPES = [*itertools.product((1, 2, 3, 4, 5), (1, 3, 4, 5, 9)), (15, 31), (16, 32), (17, 33), (33, 17), (48, 64)]


@pytest.mark.parametrize("bits", range(1, 9))
def test_planes_follow_the_layout(bits):
    rng = np.random.default_rng(bits)
    for channels, features in SHAPES:
        codes = rng.integers(0, 1 << bits, (channels, features))
        planes = pack_planes(codes, bits)
        for width, plane in zip(PLANE_WIDTHS, planes, strict=True):
            assert plane.tobytes() == (plane_by_the_book(codes, bits, width) if bits & width else b"")
        np.testing.assert_array_equal(unpack_planes(planes, channels, features), codes)


@pytest.mark.parametrize("bits", [1, 2, 3])
def test_every_small_matrix_survives_the_round_trip(bits):
    for values in itertools.product(range(1 << bits), repeat=4):
        codes = np.array(values).reshape(2, 2)
        assert unpack_planes(pack_planes(codes, bits), 2, 2).tolist() == codes.tolist()


@pytest.mark.parametrize("activations", list(ENUMS["ActivationType"]), ids=lambda member: member.name)
@pytest.mark.parametrize("codebook", [False, True], ids=["linear", "codebook"])
@pytest.mark.parametrize("bits", range(1, 9))
def test_layers_survive_the_round_trip(bits, codebook, activations):
    rng = np.random.default_rng([bits, codebook, activations])
    for channels, features in SHAPES:
        table = rng.integers(-128, 128, 1 << bits).astype(np.int8) if codebook else None
        wide = rng.integers(2) * 2**20
        bias = rng.integers(-(2**15), 2**15, channels).astype(np.int32) * (1 << rng.integers(10)) + wide
        layer = random_layer(
            rng, features, channels, bits, codebook=table, bias=bias, clamp=(-100, 99), activation_type=activations
        )
        packed = layer.pack()
        assert PackedLayer.unpack(packed) == layer
        assert PackedLayer.unpack(packed).pack() == packed
        offsets = np.frombuffer(packed, HEADER, 1)[0]["plane_offset"]
        assert [offset > 0 for offset in offsets] == [bool(bits & width) for width in PLANE_WIDTHS]
        assert all(offset % 64 == 0 for offset in offsets)


def records(multiplier: list[float], bias: list[int]) -> tuple[str, int, list[int]]:
    """Where a layer's multipliers are, the width of their codes, and (for 16 bits) what is stored of each bias."""
    exact = {"multiplier": np.array(multiplier, np.float32), "bias": np.array(bias, np.int32)}
    layer = random_layer(np.random.default_rng(0), 4, len(bias), **exact)
    packed = layer.pack()
    assert PackedLayer.unpack(packed) == layer
    header = np.frombuffer(packed, HEADER, 1)[0]
    stored = np.frombuffer(packed, "<i2", len(bias), int(header["bias_offset"])).tolist()
    assert header["bias_shift"] == 12 or header["bias_type"] == ENUMS["BiasType"].INT32
    return ENUMS["MultiplierType"](header["multiplier_type"]).name, int(header["multiplier_bits"]), stored


def test_short_multipliers_and_biases_lose_nothing():
    multiplier = [0.5, 2.0**-9, 1.0]  # exponents 8, 0 and 9 above the smallest: 4 bits
    assert records(multiplier, [-4096, 0, 65536]) == ("IN_BIAS", 4, [-16 + 8, 0, 256 + 9])
    assert records(multiplier, [-(2**23), 0, 2**23 - 4096]) == ("IN_BIAS", 4, [-32768 + 8, 0, 32752 + 9])
    # A bias more, and 12 bits do not hold it.
    assert records(multiplier, [-(2**23), 4096, 2**23]) == ("UFLOAT16", 0, [-2048, 1, 2048])
    assert records(multiplier, [-4096, 4096, 2**28])[0] == "UFLOAT16"  # biases of 32 bits
    assert records([0.3, 0.3, 0.3], [-4096, 0, 2**27 - 4096]) == ("IN_BIAS", 0, [-1, 0, 32767])
    assert records([0.3, 0.7, 0.1], [-4096, 0, 4096])[0] == "FLOAT32"
    assert records([-0.5, 0.5, 0.5], [-4096, 0, 4096]) == ("IN_BIAS", 1, [-2 + 1, 0, 2])  # the sign, bit 31
    assert records([-0.3, 0.5, 0.5], [-4096, 0, 4096])[0] == "FLOAT32"
    assert records([-0.5, -0.5, -0.25], [-4096, 0, 4096]) == ("IN_BIAS", 1, [-2 + 1, 1, 2])


def int16_layer(bias: list[int], **fields) -> PackedLayer:
    """Weights 1, 2 and 3, -4 and -8 and -7."""
    values = {
        "codes": np.array([[9, 10, 11], [4, 0, 1]]),
        "multiplier": np.ones(2, np.float32),
        "grid": Grid.symmetric(4),
    }
    values |= {"bias": np.array(bias), "input_scale": 1.0, "output_scale": 1.0}
    return PackedLayer(**{**values, "clamp": (-32768, 32767), "activation_type": INT16, **fields})


def test_biases_of_16_bit_activations():
    def read(bias: list[int]) -> tuple[int, int, list[int]]:
        packed = int16_layer(bias).pack()
        assert PackedLayer.unpack(packed).bias.tolist() == bias
        header = np.frombuffer(packed, HEADER, 1)[0]
        wide = header["bias_type"] == ENUMS["BiasType"].INT32
        stored = np.frombuffer(packed, "<i4" if wide else "<i2", 2, int(header["bias_offset"]))
        return 4 if wide else 2, int(header["bias_shift"]), stored.tolist()

    assert read([0, 0]) == (2, 7, [6, -19])  # 128 * sum of the weights, by hand
    assert read([1, -1]) == (2, 0, [769, -2433])
    assert read([2**30, 1]) == (4, 0, [2**30 + 768, -2431])
    assert read([2**37, -(2**35)]) == (4, 7, [2**30 + 6, -(2**28) - 19])
    with pytest.raises(ValueError, match="multiples of a power of two"):
        read([2**37, 1])
    # 3 inputs, weights to 8: the sum takes 24 * (2^15 + 2^7) of 2^39, which is 3084 units of the shift.
    largest = int16_layer([(2**31 - 3085) * 2**8, 0], codes=np.full((2, 3), 8))
    assert PackedLayer.unpack(largest.pack()) == largest
    with pytest.raises(ValueError, match="leave 40 bits"):
        int16_layer([(2**31 - 3084) * 2**8, 0], codes=np.full((2, 3), 8)).pack()


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"input_zero_point": 1}, "zero points of 0"),
        ({"output_zero_point": -1}, "zero points of 0"),
        ({"clamp": (-32769, 0)}, "int16 codes"),
        ({"multiplier": np.array([1, -1], np.float32)}, "from 0 to"),
        ({"multiplier": np.array([1, 2**23], np.float32)}, "from 0 to"),
        ({"op": ENUMS["Op"].CONV_2D}, "dense layers only"),
    ],
)
def test_what_16_bit_activations_cannot_have_is_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        int16_layer([0, 0], **fields).pack()


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"grid": Grid(0)}, "1 to 8 bits"),
        ({"grid": Grid(3)}, "not 3 bits"),
        ({"codes": np.zeros(3, int)}, "codes must be"),
        ({"multiplier": np.ones(2, np.float32)}, "multiplier must have"),
        ({"multiplier": np.full(3, np.nan, np.float32)}, "not finite"),
        ({"grid": Grid(4, -129)}, "not 8 bits"),
        ({"grid": Grid(4, 0, 0)}, "not 8 bits"),
        ({"grid": Grid(4, codebook=(0,) * 8)}, "16 values"),
        ({"grid": Grid(1, codebook=(0, 128))}, "not 8 bits"),
        ({"codes": np.zeros((3, MAX_FEATURES + 1), np.uint8)}, "32-bit sum"),
        ({"bias": np.array([0, 0, 2**31 - 4 * 15 * 128], np.int64)}, "leave 32 bits"),
        ({"bias": np.array([0, -(2**31), 0], np.int32)}, "leave 32 bits"),
        ({"input_zero_point": 128}, "int8 codes"),
        ({"output_zero_point": -129}, "int8 codes"),
        ({"clamp": (1, 0)}, "in order"),
        ({"clamp": (-128, 128)}, "int8 codes"),
        ({"input_scale": 0.0}, "positive"),
        ({"output_scale": np.nan}, "positive"),
        ({"output_scale": 1e-60}, "positive"),  # zero in float32
    ],
)
def test_what_the_format_cannot_hold_is_refused(fields, message):
    base = {"codes": np.full((3, 4), 15), "grid": Grid(4), "multiplier": np.ones(3, np.float32)}
    base |= {"bias": np.zeros(3, np.int32), "input_scale": 1.0, "output_scale": 1.0}
    with pytest.raises(ValueError, match=message):
        PackedLayer(**{**base, **fields}).pack()


def test_the_worked_example_of_the_documentation():
    results = doctest.testfile(str(ROOT / "docs" / "format.md"), module_relative=False)
    assert results.attempted > 10
    assert results.failed == 0


def test_first_and_last_layers_of_branches():
    """0 reads the input, 1 and 2 read 0, 3 adds them up without weights, 4 and 5 are two heads; 6 has no weights."""
    inputs = [[], [0], [0], [1, 2], [3], [3], [4]]
    assert first_and_last(inputs, {0, 1, 2, 4, 5}) == {0, 4, 5}
    assert first_and_last(inputs, {1, 2, 4}) == {1, 2, 4}
    assert first_and_last(inputs, {4}) == {4}
    assert first_and_last(inputs, set()) == set()
    assert first_and_last([[], [0], [1], [2]], {0, 1, 2, 3}) == {0, 3}

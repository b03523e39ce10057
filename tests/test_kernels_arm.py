"""Every Arm variant, cross-compiled and executed by an emulator, against numpy, bit for bit.

The programs are linked for Linux, where a variant asks the system what the processor has. The emulator has no system:
tests/c/arm.c answers in its place.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from compilers import INCLUDE, ROOT, ZIG, compile_once, core_sources
from emulator import ARM64_MAX, CORTEX_A7, CORTEX_A72, Processor, Program
from models import INT16, RECORDS, grid, random_layer, with_records
from unicorn import UcError

from subbyte.kernels import reference
from subbyte.schemas import MAX_FEATURES, Geometry, Grid, Op, PackedLayer, Padding

AARCH64 = ("-target", "aarch64-linux-musl")
ARMV7 = ("-target", "arm-linux-musleabihf", "-mcpu=cortex_a7")


@dataclass(frozen=True)
class Target:
    """A compiler's target, a processor that runs it, and the variants that this one has, best first."""

    flags: tuple[str, ...]
    processor: Processor
    variants: tuple[str, ...]


TARGETS = {
    "dot product": Target(AARCH64, ARM64_MAX, ("neon_dotprod", "neon", "portable")),
    "armv8": Target(AARCH64, CORTEX_A72, ("neon", "portable")),
    "armv7": Target(ARMV7, CORTEX_A7, ("neon", "portable")),
}
#: (target, variant); the 64-bit programs are one file, so what both processors run is run on one.
CASES = [
    ("dot product", "neon_dotprod"),
    ("armv8", "neon"),
    ("armv8", "portable"),
    ("armv7", "neon"),
    ("armv7", "portable"),
]

# Around the edges of a quad of inputs, a block of each plane and a stride; then large ones.
FEATURES = (*range(1, 70), 87, 95, 96, 97, 127, 128, 129, 255, 256, 257, 400, 540, 600)
CHANNELS = (*range(1, 36), 47, 48, 49, 64, 70)
ROWS = range(1, 10)


EXPORTED = (
    "subbyte_find_isa",
    "subbyte_best_isa",
    "subbyte_fully_connected",
    "subbyte_fully_connected_int16",
    "subbyte_conv_2d",
    "subbyte_conv_2d_scratch",
    "convolve_fitted",
)
#: In C, for programs without a C library.
SUPPORT = (ROOT / "tests/c/fitted.c", ROOT / "tests/c/freestanding.c")


@pytest.fixture(scope="session")
def programs() -> dict[tuple[str, ...], Path]:
    """The linked program of each set of flags."""
    # Without a C library: zig would compile a whole one for each target first, which takes minutes.
    options = ["-std=c11", "-O2", "-ffp-contract=off", "-static", "-nostdlib", "-fno-sanitize=all"]
    options += ["-I", INCLUDE, "-I", ROOT / "tests/c/linux", *(f"-Wl,-u,{name}" for name in EXPORTED)]
    sources = [*core_sources(), ROOT / "tests/c/arm.c", *SUPPORT]
    return {flags: compile_once([*flags, *options, *sources], ZIG) for flags in (AARCH64, ARMV7)}


class Variant:
    """A variant on an emulated processor."""

    def __init__(self, program: Program, name: str) -> None:
        self.program = program
        self.address = program.call("subbyte_find_isa", name.encode() + b"\0")
        assert self.address

    def run(self, layer: PackedLayer, x: np.ndarray) -> np.ndarray:
        """int8 or int16 [rows, K] to the same [rows, N], every buffer ending at a page without access."""
        output = np.zeros((len(x), len(layer.codes)), layer.activation_dtype)
        if layer.activation_type == INT16:
            packed = layer.pack()
            scratch = np.zeros(self.program.call("subbyte_fully_connected_int16_scratch", packed, len(x)), np.int8)
            self.program.call("subbyte_fully_connected_int16", packed, x, len(x), output, scratch, self.address)
        else:
            self.program.call("subbyte_fully_connected", layer.pack(), x, len(x), output, self.address)
        return output

    def convolve(self, layer: PackedLayer, x: np.ndarray) -> np.ndarray:
        """int8 [B, H, W, C] to int8 [B, OH, OW, N], likewise; the scratch memory, too, ends at such a page.

        Twice: called once, and fitted first, when a layer may be looked at for longer.
        """
        output = np.zeros_like(reference.run(layer, x))
        packed, fitted = layer.pack(), np.zeros_like(output)
        scratch = np.zeros(self.program.call("subbyte_conv_2d_scratch", packed, *x.shape[:3]), np.int8)
        self.program.call("subbyte_conv_2d", packed, x, *x.shape[:3], output, scratch, self.address)
        shape = np.array(x.shape, np.int32)
        fault = self.program.call("convolve_fitted", packed, len(packed), x, shape, fitted, scratch, self.address)
        assert not fault
        np.testing.assert_array_equal(fitted, output)
        return output


@pytest.fixture(scope="session", params=CASES, ids=lambda case: " ".join(case))
def variant(request, programs) -> Variant:
    target, name = request.param
    return Variant(Program(programs[TARGETS[target].flags], TARGETS[target].processor), name)


def decode_fields(kind: str, bits: int, rng: np.random.Generator) -> dict:
    if kind == "codebook":
        return {"codebook": rng.integers(-128, 128, 1 << bits).astype(np.int8)}
    return {"code_offset": int(rng.integers(-128, 129 - (1 << bits)))}


def shapes(rng: np.random.Generator) -> Iterator[tuple[int, int, int]]:
    """(K, N, rows): every K, every N and every number of rows, each with some of the others."""
    for features in FEATURES:
        yield features, int(rng.choice(CHANNELS[:20])), int(rng.choice(ROWS))
    for channels in CHANNELS:
        yield int(rng.choice(FEATURES[:69])), channels, int(rng.choice(ROWS))


@pytest.mark.parametrize("kind", ["linear", "codebook"])
@pytest.mark.parametrize("bits", range(1, 9))
def test_every_width_decode_and_shape(bits, kind, variant):
    rng = np.random.default_rng([bits, *kind.encode()])
    for turn, (features, channels, rows) in enumerate(shapes(rng)):
        layer = random_layer(rng, features, channels, bits, **decode_fields(kind, bits, rng))
        layer = with_records(layer, RECORDS[turn % len(RECORDS)], rng)
        x = rng.integers(-128, 128, (rows, features)).astype(np.int8)
        np.testing.assert_array_equal(variant.run(layer, x), reference.fully_connected(layer, x))


@pytest.mark.parametrize("kind", ["linear", "codebook"])
@pytest.mark.parametrize("bits", range(1, 9))
def test_16_bit_activations(bits, kind, variant):
    """Also with biases of 32 bits, multipliers of 24 that are far apart, and ties."""
    rng = np.random.default_rng([bits, *kind.encode()])
    for features, channels, rows in list(shapes(rng))[bits::4]:
        fields = {"activation_type": INT16, **decode_fields(kind, bits, rng)}
        if rows % 2:
            fields["bias"] = rng.integers(-(2**22), 2**22, channels) << 8
            fields["multiplier"] = np.float32(2.0) ** rng.integers(-70, 5, channels) * np.float32(1 + 1 / 2**23)
        elif rows % 4:
            fields["multiplier"] = np.full(channels, 1 / 2**12, np.float32)
        layer = random_layer(rng, features, channels, bits, **fields)
        if rows % 4 == 0:
            layer = with_records(layer, RECORDS[rows // 4 % len(RECORDS)], rng)
        x = rng.integers(-(2**15), 2**15, (rows, features)).astype(np.int16)
        x[:, ::3] //= 2**8
        np.testing.assert_array_equal(variant.run(layer, x), reference.fully_connected(layer, x))


def convolutions(bits: int, kind: str, rng: np.random.Generator) -> Iterator[tuple[PackedLayer, np.ndarray]]:
    """Windows of any kind, dense, with groups and depthwise; more channels than a tile of a depthwise one has."""
    for groups, inputs, outputs in [
        (1, 1, 20),
        (1, 3, 17),
        (1, 40, 5),
        (3, 4, 6),
        (1, 1, 3),
        (70, 1, 1),
        (9, 1, 5),
    ]:
        kernel, stride, dilation = ((int(n) for n in rng.integers(1, high, 2)) for high in (5, 4, 3))
        padding = Padding(int(rng.integers(2)))
        geometry = Geometry(tuple(kernel), tuple(stride), tuple(dilation), padding, groups)
        layer = random_layer(
            rng,
            int(np.prod(geometry.kernel)) * inputs,
            groups * outputs,
            bits,
            op=Op.DEPTHWISE_CONV_2D if inputs == 1 and (groups > 1 or outputs == 3) else Op.CONV_2D,
            geometry=geometry,
            input_zero_point=int(rng.integers(-128, 128)),
            **decode_fields(kind, bits, rng),
        )
        window = [(size - 1) * step + 1 for size, step in zip(geometry.kernel, geometry.dilation, strict=True)]
        shape = (
            int(rng.integers(1, 3)),
            *(size + int(rng.integers(6)) for size in window),
            groups * inputs,
        )
        yield layer, rng.integers(-128, 128, shape).astype(np.int8)


@pytest.mark.parametrize("kind", ["linear", "codebook"])
@pytest.mark.parametrize("bits", range(1, 9))
def test_any_convolution(bits, kind, variant):
    for layer, x in convolutions(bits, kind, np.random.default_rng([bits, *kind.encode()])):
        np.testing.assert_array_equal(variant.convolve(layer, x), reference.run(layer, x))


@pytest.mark.parametrize("features", [31, 64, 4097, MAX_FEATURES])
@pytest.mark.parametrize("bits", range(1, 9))
def test_the_largest_sums(bits, features, variant):
    """Every code and every input at its end: no sum of 16 or 32 bits overflows on the way."""
    codes = np.zeros((5, features), np.uint8)
    codes[1::2] = (1 << bits) - 1
    extremes = np.where(np.arange(1 << bits) % 2, 127, -128).astype(np.int8)
    for decoded in (Grid.symmetric(bits), grid(bits, codebook=extremes), grid(bits, codebook=extremes[::-1])):
        layer = PackedLayer(
            codes=codes,
            grid=decoded,
            multiplier=np.full(5, 100 / (128 * 128 * features), np.float32),
            bias=np.array([0, 1, -1, 7, 3], np.int32),
            input_scale=1.0,
            output_scale=1.0,
        )
        for extreme in (-128, 127):
            x = np.full((1 if features > 5000 else 4, features), extreme, np.int8)
            np.testing.assert_array_equal(variant.run(layer, x), reference.fully_connected(layer, x))


#: (op, window, inputs of a channel's pixel, channels): of 1 to 260 inputs, and depthwise.
LARGE_CONVOLUTIONS = [
    (Op.CONV_2D, (1, 1), 260, 17),
    (Op.CONV_2D, (1, 3), 24, 24),
    (Op.CONV_2D, (1, 3), 3, 16),
    (Op.CONV_2D, (1, 1), 32, 8),
    (Op.DEPTHWISE_CONV_2D, (3, 3), 1, 40),
    (Op.DEPTHWISE_CONV_2D, (5, 9), 1, 8),
]


@pytest.mark.parametrize("bits", range(1, 9))
def test_the_largest_sums_of_a_convolution(bits, variant):
    """Weights at their ends and inputs of -128 at more positions than a tile: where 16 bits are about to overflow.

    In the even channels alone, or in a stretch of them after small weights, so that a chunk may not start anywhere.
    """
    for op, window, inputs, channels in LARGE_CONVOLUTIONS:
        features, is_depthwise = int(np.prod(window)) * inputs, op == Op.DEPTHWISE_CONV_2D
        for decoded in (Grid.symmetric(bits), grid(bits, codebook=np.linspace(-128, 127, 1 << bits).astype(np.int8))):
            codes = np.full((channels, features), 1 << (bits - 1), np.uint8)
            codes[::2] = 0
            codes[1::4, features // 2 :] = 0
            codes[3::4, features // 3 :] = (1 << bits) - 1
            layer = PackedLayer(
                codes=codes,
                grid=decoded,
                multiplier=np.full(channels, 100 / (128 * 128 * features), np.float32),
                bias=np.arange(channels, dtype=np.int32),
                input_scale=1.0,
                output_scale=1.0,
                op=op,
                geometry=Geometry(window, groups=channels if is_depthwise else 1),
            )
            for extreme in (-128, 127):
                x = np.full((1, 7, 23, channels if is_depthwise else inputs), extreme, np.int8)
                np.testing.assert_array_equal(variant.convolve(layer, x), reference.run(layer, x))


@pytest.mark.parametrize("target", TARGETS)
def test_the_best_variant_that_the_processor_has_is_chosen(target, programs):
    found = TARGETS[target]
    program = Program(programs[found.flags], found.processor)
    program.call("set_dot_product", found.processor is ARM64_MAX)
    assert program.call("subbyte_best_isa") == Variant(program, found.variants[0]).address
    for name in ("neon_dotprod", "neon", "portable"):
        address = program.call("subbyte_find_isa", name.encode() + b"\0")
        assert (address != 0 and program.call("subbyte_isa_runs", address) % 2 == 1) == (name in found.variants)


def test_dot_products_need_the_processor(programs):
    """The test of the variant is of the variant: its instructions fault where there are none."""
    layer = random_layer(np.random.default_rng(0), 64, 16)
    with pytest.raises(UcError):
        Variant(Program(programs[AARCH64], CORTEX_A72), "neon_dotprod").run(layer, np.zeros((1, 64), np.int8))

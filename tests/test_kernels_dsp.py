"""The variant for M-class processors with the DSP extension, executed by an emulator, against numpy, bit for bit.

What it must compute is what test_kernels_arm.py asks of every Arm variant: those tests run here on another `variant`.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from compilers import INCLUDE, STRICT, ZIG, compile_once, core_sources
from emulator import CORTEX_M4, CORTEX_M33, Processor, Program
from models import random_layer
from test_kernels_arm import (
    EXPORTED,
    SUPPORT,
    Variant,
    test_16_bit_activations,
    test_any_convolution,
    test_every_width_decode_and_shape,
    test_the_largest_sums,
)

from benchmarks.code_size import CORTEX_M33_DSP
from subbyte.kernels import reference

__all__ = [
    "test_16_bit_activations",
    "test_any_convolution",
    "test_every_width_decode_and_shape",
    "test_the_largest_sums",
]

#: Optimized differently, so that the loops are tested as they become both when small and when fast.
CASES = {"cortex-m4": (CORTEX_M4, "-O3"), "cortex-m33": (CORTEX_M33_DSP, "-Os")}


def build(processor: Processor, level: str) -> Path:
    options = [*STRICT, level, "-g", "-ffreestanding", "-nostdlib", "-fno-sanitize=all", "-ffp-contract=off"]
    options += ["-I", INCLUDE, *(f"-Wl,-u,{name}" for name in EXPORTED)]
    return compile_once([*processor.flags, *options, *core_sources(), *SUPPORT], ZIG)


@pytest.fixture(scope="session")
def programs() -> dict[str, Path]:
    return {name: build(processor, level) for name, (processor, level) in CASES.items()}


@pytest.fixture(scope="session", params=CASES)
def variant(request, programs) -> Variant:
    return Variant(Program(programs[request.param], CASES[request.param][0]), "dsp")


def test_it_is_the_best_variant(variant):
    assert variant.program.call("subbyte_best_isa") == variant.address


def test_a_processor_without_the_extension_has_no_such_variant():
    program = Program(build(CORTEX_M33, "-Os"), CORTEX_M33)
    assert program.call("subbyte_find_isa", b"dsp\0") == 0
    assert program.call("subbyte_best_isa") == Variant(program, "portable").address


# Twice what two multiplications and two ANDs for four weights of each plane are; a codebook is looked up.
@pytest.mark.parametrize(
    ("bits", "is_codebook", "most"),
    [(8, 0, 4), (4, 0, 4), (1, 0, 4), (7, 0, 8), (4, 1, 12)],
)
def test_it_takes_few_instructions(bits, is_codebook, most, programs):
    rng = np.random.default_rng(bits)
    codebook = {"codebook": rng.integers(-128, 128, 1 << bits).astype(np.int8)} if is_codebook else {}
    layer = random_layer(rng, 400, 87, bits, **codebook)
    variant = Variant(Program(programs["cortex-m4"], CORTEX_M4, counts=True), "dsp")
    x = rng.integers(-128, 128, (1, 400)).astype(np.int8)
    np.testing.assert_array_equal(variant.run(layer, x), reference.fully_connected(layer, x))
    assert layer.codes.size / 2 < variant.program.instructions < most * layer.codes.size

"""The emulator gives results worked by hand, faults beyond every buffer, and counts what is executed."""

from pathlib import Path

import numpy as np
import pytest
from compilers import ROOT, ZIG, compile_c
from emulator import ARM64_MAX, CORTEX_A7, CORTEX_A72, CORTEX_M4, CORTEX_M33, Processor, Program
from unicorn import UcError

PROCESSORS = {
    "cortex-a72": CORTEX_A72,
    "arm64": ARM64_MAX,
    "cortex-a7": CORTEX_A7,
    "cortex-m4": CORTEX_M4,
    "cortex-m33": CORTEX_M33,
}


@pytest.fixture(scope="module", params=PROCESSORS)
def processor(request) -> Processor:
    return PROCESSORS[request.param]


def build(processor: Processor, folder: Path) -> Path:
    flags = ["-std=gnu11", "-O1", "-ffreestanding", "-nostdlib", "-fno-sanitize=all"]
    compile_c([*processor.flags, *flags, ROOT / "tests/c/emulated.c", "-o", folder / "program"], ZIG)
    return folder / "program"


@pytest.fixture(scope="module")
def program(processor, tmp_path_factory) -> Program:
    return Program(build(processor, tmp_path_factory.mktemp("emulated")), processor, counts=True)


def test_arguments_beyond_the_registers_are_on_the_stack(program):
    assert program.call("weigh", *range(1, 11)) == sum(i * i for i in range(1, 11))


def test_floating_point_is_on_and_arrays_come_back(program):
    x, y = np.arange(9, dtype=np.float32), np.zeros((3, 3), np.float32)
    program.call("scale", x, 9, np.float32([1.5]).tobytes(), y)
    np.testing.assert_array_equal(y, 1.5 * x.reshape(3, 3))


@pytest.mark.parametrize("size", [1, 100, 4096, 5000])
def test_a_guard_page_lies_behind_and_before_an_array(program, size):
    x = (np.arange(size) % 100).astype(np.int8)
    assert program.call("load", x, size - 1) == (size - 1) % 100
    before_first_page = size - 1 - -(-size // 4096) * 4096
    for beyond in (size, before_first_page):
        with pytest.raises(UcError):
            program.call("load", x, beyond)
        with pytest.raises(UcError):
            program.call("store", x, beyond, 1)
    assert program.call("load", x, 0) == 0  # as if nothing had happened


def test_bytes_cannot_be_written(program):
    assert program.call("load", bytes([1, 2]), 1) == 2
    with pytest.raises(UcError):
        program.call("store", bytes([1, 2]), 1, 3)


@pytest.mark.parametrize("rounds", [1, 10, 1000])
def test_instructions_are_counted(program, rounds):
    program.call("count_down", rounds)
    assert program.instructions == 3 * rounds + 2


@pytest.mark.parametrize("depth", [1, 100, 3000])
def test_the_depth_of_the_stack_is_known(program, depth):
    assert program.call("add_up", depth) == depth * (depth - 1) // 2
    assert 4 * depth <= program.stack_bytes <= 4 * depth + 64


def test_dot_product_runs_where_the_processor_has_it(tmp_path):
    path = build(ARM64_MAX, tmp_path)
    x, y = np.arange(16, dtype=np.int8), np.zeros(4, np.int32)
    Program(path, ARM64_MAX).call("squares", x, y)
    np.testing.assert_array_equal(y, (x.astype(np.int32) ** 2).reshape(4, 4).sum(axis=1))
    with pytest.raises(UcError):
        Program(path, CORTEX_A72).call("squares", x, y)

"""Counting on an emulated Arm core: the arithmetic of counts, on a stand-in for the emulator with known ones."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from benchmarks import arm_interpreter
from benchmarks.arm_interpreter import Machine, measure, table
from benchmarks.conv_networks import ConvNetwork, Draft, float_tflite
from benchmarks.networks import PackedFormat

#: Counts 7,000 to start, and for each invoke a byte of the model each, or half of one if it is packed.
EMULATOR = """#!{python}
import os, pathlib, sys
_, script, model, invokes, *plug_in = sys.argv
size = len(pathlib.Path(model).read_bytes())
each = size // 2 if plug_in else size
assert os.environ["ARM64_CPU"] == "cortex-a72"
pathlib.Path(os.environ["ARM64_COUNT"]).write_text(str(7000 + int(invokes) * each))
print("output", {output})
"""


def write(bits: int, target: str) -> bytes:
    def build(draft: Draft) -> int:
        return draft.dense(draft.average(draft.convolution(draft.input(4, 4, 3), 8)), 5)

    return ConvNetwork("tiny", build).write(PackedFormat(bits), target)


def machine(folder: Path, output: str) -> Machine:
    python = folder / "python"
    python.write_text(EMULATOR.format(python=sys.executable, output=output))
    python.chmod(0o755)
    return Machine(python, "cortex-a72", folder, folder / "plug_in.so")


def test_counts_are_those_of_one_invoke(tmp_path):
    counts = measure(machine(tmp_path, "'00'"), write, [4, 1])
    assert list(counts) == ["float32", "int8", "packed 4", "packed 1"]
    assert counts["int8"] == len(write(8, "int8"))
    assert counts["packed 4"] == len(write(4, "packed")) // 2
    assert counts["float32"] == len(float_tflite(write(8, "int8")))


def test_another_output_is_told(tmp_path):
    with pytest.raises(ValueError, match="packed 4 gives other outputs than stock int8 on cortex-a72"):
        measure(machine(tmp_path, "len(plug_in)"), write, [4])


def test_a_run_that_fails_says_why(tmp_path):
    with pytest.raises(RuntimeError, match=r"(?s)python on cortex-a72: .*ZeroDivisionError"):
        machine(tmp_path, "1 // 0").run(b"", 1, packed=False)


def test_the_table_divides_int8_by_each():
    found = {("M4", "cortex-a72"): {"float32": 120_000.0, "int8": 84_000.0, "packed 4": 42_000.0}}
    assert table(found).splitlines()[2] == "| M4, cortex-a72 | 120.0 (0.70) | 84.0 | 42.0 (2.00) |"


def test_networks_have_the_names_of_the_table():
    assert list(arm_interpreter.NETWORKS) == ["M4", "DS-CNN", "TC-ResNet8", "ResNet-8", "tc_resnet_wide"]

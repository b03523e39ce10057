"""The accelerator's tables: what is read from Vela's summary, the projection, and how a missing Vela is told."""

from __future__ import annotations

import dataclasses
import os
import sys
from pathlib import Path

import numpy as np
import pytest
from test_converter_tflite import Layer as IntegerLayer

from benchmarks import accelerator
from benchmarks.accelerator import KB, PROCESSORS, Converted, Estimate, Fallback, Layer, Row, Vela
from subbyte.keyword_spotting.models import ARCHITECTURES

VELA = Path(__file__).parent.parent / "build" / "vela"
#: .ci/run sets it: there is a package index, and no Vela yet.
MAY_INSTALL = "SUBBYTE_INSTALL_VELA"
with_vela = pytest.mark.skipif(
    not (VELA / "requirement.txt").is_file() and MAY_INSTALL not in os.environ,
    reason=f"no Vela in build/vela: set {MAY_INSTALL}=1 to install it, or run make accelerator",
)

SUMMARY = """\
experiment,network,inference_time,sram_memory_used,dram_memory_used,on_chip_flash_memory_used,\
off_chip_flash_memory_used,total_original_weights,total_npu_encoded_weights,cycles_npu,cycles_total
default,net,0.000264992,0.625,0.0,0.0,129.390625,223792,117776,35996,132496
"""
PLACED = """
CPU operators = 0 (0.0%)
NPU operators = 7 (100.0%)
"""
FALLEN = """
Warning (supported operators) operator: DEQUANTIZE, ofm: 'logits'
Reason: Unsupported opType

Warning (supported operators) operator: QUANTIZE, ofm: 'x/y;'
Reason: Operation has tensor with unsupported DataType Float32 (keras_tensor)
Feature-map dataTypes must be one of {"INT16", "INT8"}

CPU operators = 2 (66.7%)
   CPU: Passthrough = x/y; (outputs [1, 1, 1, 540])
   CPU: Passthrough = logits (outputs [1, 1, 1, 7])
NPU operators = 1 (33.3%)
"""


def test_a_summary_is_read():
    assert Estimate.parse(SUMMARY, PLACED, 134432) == Estimate(
        weight_bytes=117776,
        constant_bytes=132496,  # 129.390625 * 1024
        sram_bytes=640,  # 0.625 * 1024
        cycles=132496,
        seconds=0.000264992,
        npu_operators=7,
        fallbacks=(),
        file_bytes=134432,
    )


def test_constants_are_found_in_any_memory():
    on_chip = SUMMARY.replace("0.0,0.0,129.390625", "0.0,129.390625,0.0")
    assert Estimate.parse(on_chip, PLACED, 0).constant_bytes == 132496


def test_operators_on_the_cpu_are_named_with_the_reason():
    estimate = Estimate.parse(SUMMARY, FALLEN, 0)
    assert estimate.npu_operators == 1
    assert estimate.fallbacks == (
        Fallback("DEQUANTIZE", "logits", "Unsupported opType"),
        Fallback("QUANTIZE", "x/y;", "Operation has tensor with unsupported DataType Float32 (keras_tensor)"),
    )


@pytest.mark.parametrize(
    ("summary", "output", "message"),
    [
        (SUMMARY.replace("cycles_total", "cycles_all"), PLACED, "another form.*cycles_total"),
        (SUMMARY.replace("117776", "many"), PLACED, "another form.*many"),
        (SUMMARY.splitlines()[0], PLACED, "another form"),
        (SUMMARY, "", "another form.*NPU"),
        (SUMMARY, FALLEN.replace("operator: QUANTIZE", "operator QUANTIZE"), "2 operators on the CPU and names 1"),
    ],
)
def test_another_form_is_refused_in_one_line(summary, output, message):
    with pytest.raises(ValueError, match=message) as raised:
        Estimate.parse(summary, output, 0)
    assert "\n" not in str(raised.value)


# Weights of the paper's networks with 2 outputs, worked by hand:
# M2 to M4: 540*87 + 87*400 + 400*87 + 87*400 + 400*87 + 87*400 + 400*2 = 46,980 + 5*34,800 + 800 = 221,780;
#   rest: five vectors for 87 + 400 three times, and a bias of 2: 5*1,461 + 2 = 7,307.
# M5: 540*123 + 123*566 + 566*2 = 66,420 + 69,618 + 1,132 = 137,170 of 5 bits, four times 69,618 of 1;
#   rest 5*2,067 + 2 = 10,337.
# M6: 540*1,080 + 1,080*566 + 4*69,618 + 566*2... with 566*123 for the third: 583,200 + 611,280 + 278,472 + 1,132.
@pytest.mark.parametrize(
    ("name", "expected", "paper"),
    [
        ("M2", 221_780 + 7_307, 228),
        ("M3", 221_780 * 5 / 8 + 7_307, 142),
        ("M4", 221_780 / 2 + 7_307, 114),
        ("M5", 137_170 * 5 / 8 + 278_472 / 8 + 10_337, 128),
        ("M6", 1_474_084 / 8 + 5 * 3_024 + 2, 198),
    ],
)
def test_the_projection_is_the_papers(name, expected, paper):
    architecture = ARCHITECTURES[name]
    units = (540, *architecture.units, 2)
    layers = [
        Layer(features * channels, bits, channels)
        for features, channels, bits in zip(units, units[1:], architecture.bits, strict=False)
    ]
    assert accelerator.projected_bytes(layers) == expected
    # The paper rounds, and does not say how it counts what is no weight.
    assert abs(expected / KB / paper - 1) < 0.02
    assert {case.paper for case in accelerator.CASES if case.model == name and case.bits is None} == {paper}


def test_entropy_is_that_of_the_values():
    assert accelerator.entropy_bits(np.int8([[5, 5], [5, 5]])) == 0
    assert accelerator.entropy_bits(np.int8([-1, 1, -1, 1])) == 4
    # A half, a quarter, two eighths: 1/2 * 1 + 1/4 * 2 + 1/4 * 3 = 1.75 bits each.
    assert accelerator.entropy_bits(np.int8([0, 0, 0, 0, 1, 1, 2, 3])) == 8 * 1.75


def converted(**changes) -> Converted:
    return dataclasses.replace(Converted(b"", 2048, (Layer(1000, 4, 10), Layer(1000, 2, 5)), 2.5), **changes)


def estimate(**changes) -> Estimate:
    return dataclasses.replace(Estimate.parse(SUMMARY, PLACED, 4096), **changes)


def row(**changes) -> Row:
    keys = [(processor, memory) for processor in PROCESSORS for memory in accelerator.MEMORIES]
    return Row(accelerator.CASES[0], converted(), {key: estimate(weight_bytes=750, **changes) for key in keys})


def cells(table: str) -> list[str]:
    return [cell.strip() for cell in table.splitlines()[2].strip("|").split("|")]


def test_the_tables_show_what_was_measured():
    found = row()
    # 1000 * 4 and 1000 * 2 bits are 750 bytes; five vectors of 10 and a bias of 5 are 55: 805 bytes.
    assert cells(accelerator.sizes([found]).split("\n\n")[1]) == [
        "M2, 8 bits", "2,000", "228", "0.8", "0.7", "129.4", "4.0", "2.0", "0.62",
    ]  # fmt: skip
    # 750 bytes for 2000 weights are 3 bits each, as stored on average.
    assert cells(accelerator.widths([found])) == ["M2, 8 bits", "3.00", "2.50", *["3.00"] * 4]
    assert cells(accelerator.times([found], "flash")) == ["M2, 8 bits", *["132,496 (265)"] * 4]


def test_the_placement_is_told():
    assert "every operator of every model on the accelerator, 7 to 7" in accelerator.placement([row()])
    fallen = row(fallbacks=(Fallback("SOFTMAX", "y", "too wide"),))
    assert accelerator.placement([fallen]) == "On the CPU stay SOFTMAX 'y' (too wide) of M2, 8 bits."


def script(path: Path, body: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(0o755)


def one_line(capsys, folder: Path) -> str:
    with pytest.raises(SystemExit) as stopped:
        accelerator.main([f"--vela_dir={folder}"])
    assert stopped.value.code == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    return err


def test_an_environment_that_cannot_be_had_takes_one_line(tmp_path, monkeypatch, capsys):
    (tmp_path / "file").touch()
    assert "cannot make an environment in" in one_line(capsys, tmp_path / "file" / "vela")
    # An environment that is made at once, and whose pip finds no index.
    monkeypatch.setattr(sys, "executable", "/bin/true")
    script(tmp_path / "vela" / "bin" / "python", "echo 'WARNING: retrying' >&2; echo 'ERROR: no index' >&2; exit 1")
    expected = "cannot install ethos-u-vela>=5.0, which needs the package index: ERROR: no index"
    assert expected in one_line(capsys, tmp_path / "vela")
    # The next run tries again.
    script(tmp_path / "vela" / "bin" / "python", 'test "$*" = "-m pip install -q --disable-pip-version-check a>=1"')
    script(tmp_path / "vela" / "bin" / "vela", "echo 5.9.1")
    assert Vela.install(tmp_path / "vela", "a>=1").version == "5.9.1"
    # And then there is one.
    script(tmp_path / "vela" / "bin" / "python", "exit 1")
    Vela.install(tmp_path / "vela", "a>=1")
    with pytest.raises(ValueError, match="cannot install a>=2"):
        Vela.install(tmp_path / "vela", "a>=2")


def test_a_vela_that_fails_takes_one_line(tmp_path):
    with pytest.raises(ValueError, match=r"Vela failed: .*vela") as raised:
        Vela(tmp_path).compile(b"", PROCESSORS[0])
    assert "\n" not in str(raised.value)
    script(tmp_path / "bin" / "vela", "echo first >&2; echo 'the last line' >&2; exit 1")
    with pytest.raises(ValueError, match=r"^Vela failed: the last line$"):
        Vela(tmp_path).compile(b"", PROCESSORS[0])
    script(tmp_path / "bin" / "vela", "echo 'Error: unknown'")
    with pytest.raises(ValueError, match="0 summaries, not one: Error: unknown"):
        Vela(tmp_path).compile(b"", PROCESSORS[0])


@with_vela
def test_vela_stores_fewer_values_in_fewer_bits():
    vela = Vela.install(VELA)
    assert int(vela.version.split(".")[0]) >= 5
    rng = np.random.default_rng(0)

    def compiled(largest: int) -> Estimate:
        weights = rng.integers(-largest, largest + 1, (256, 512))
        return vela.compile(
            IntegerLayer("FULLY_CONNECTED", weights, np.float32([0.1]), x_shape=(1, 512)).file(), PROCESSORS[0]
        )

    for largest, bits in ((127, 8), (15, 5), (7, 4), (1, 2)):
        found = compiled(largest)
        assert found.fallbacks == ()
        assert found.npu_operators == 1
        # No code can do with less than the entropy of even codes; Vela's is at most a tenth above the whole bits.
        assert np.log2(2 * largest + 1) <= 8 * found.weight_bytes / (256 * 512) < 1.1 * bits
        assert found.constant_bytes >= found.weight_bytes + 10 * 256

"""The benchmark of conversions measures every step, and its table divides by the right figures."""

from __future__ import annotations

import dataclasses
import json

from benchmarks import conversion_cost
from benchmarks.conversion_cost import STEPS, Cost, Files, table

MIB = 2**20


def test_every_step_runs_on_a_tiny_model(tmp_path):
    files = conversion_cost._tiny(tmp_path)
    assert files.floating.exists()
    assert files.quantized.exists()
    results = {name: step(files)() for name, step in STEPS.items()}
    assert results["TensorFlow"][4:8] == results["convert"].tflite[4:8] == b"TFL3"
    assert all(comparison.passed for comparison in results["verify"])


def test_a_step_is_measured(tmp_path, monkeypatch):
    """A step that takes 64 MiB, after a small one on the tiny model."""
    held = []

    def step(files: Files):
        return lambda: held.append(bytearray(b"x" * (64 * MIB if files.folder == tmp_path else 1)))

    monkeypatch.setitem(conversion_cost.STEPS, "convert", step)
    cost = conversion_cost.measure("convert", Files(tmp_path))
    assert [len(block) for block in held] == [1, 64 * MIB]
    assert min(cost.cpu_seconds, cost.seconds) > 0
    assert cost.memory >= 0
    assert Cost(**json.loads(json.dumps(dataclasses.asdict(cost)))) == cost


def test_the_table_divides_by_tensorflow_and_by_the_weights(tmp_path):
    costs = {
        "TensorFlow": Cost(20.0, 10.0, 100 * MIB),
        "quantize": Cost(3.0, 4.0, 40 * MIB),
        "convert": Cost(5.0, 6.0, 60 * MIB),
        "verify": Cost(1.0, 2.0, 10 * MIB),
    }
    rows = table("net", Files(tmp_path), 20 * MIB, lambda step, files: costs[step]).splitlines()
    assert rows[2] == "| TensorFlow | 20.0 | 10.0 | 1.00 | 100 | 5.0 |"
    assert rows[5] == "| verify | 1.0 | 2.0 | 0.20 | 10 | 0.5 |"
    # Seconds add up; of two processes the larger peak counts: (4 + 6) / 10, 60 MiB, 60 / 20.
    assert rows[6] == "| quantize and convert | 8.0 | 10.0 | 1.00 | 60 | 3.0 |"

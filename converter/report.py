"""What a conversion tells: tables for people, JSON for machines."""

from __future__ import annotations

import dataclasses
import json
import math
from typing import Any

from subbyte.console import add_columns
from subbyte.extras import needed_by

from .comparison import Comparison
from .conversion import Result
from .summary import Summary
from .wording import (
    comparison_cells,
    comparison_sentences,
    decibel,
    post_training_sentences,
    total_cells,
)

with needed_by("subbyte.converter.report"):
    from rich import box
    from rich.console import Console
    from rich.table import Table

#: With a larger share of zeros a layer is told to be sparse; by chance 8-bit weights have some per cent of them.
_CHANCE = 0.1


def to_json(result: Result, comparisons: list[Comparison] | None, summary: Summary | None = None) -> str:
    """The whole report as one JSON object; without the model's bytes."""
    report: dict[str, Any] = {
        "target": result.target,
        "io": result.io,
        "file_bytes": len(result.tflite),
        "layers": [dataclasses.asdict(layer) for layer in result.layers],
        "totals": result.totals,
        "notes": result.notes,
    }
    if summary is not None:
        report["summary"] = dataclasses.asdict(summary)
    made = result.post_training
    if made is not None:
        layers = [dataclasses.asdict(layer) for layer in made.layers]
        report["post_training"] = {
            "samples": made.samples,
            "layers": [layer | {"sqnr_db": _finite(layer["sqnr_db"])} for layer in layers],
            "output_sqnr_db": _finite(made.output_sqnr_db),
            "same_top": made.same_top,
            "wants_training": made.wants_training,
        }
    if comparisons is not None:
        report["verification"] = [
            dataclasses.asdict(c) | {"largest": _finite(c.largest), "sqnr_db": _finite(c.sqnr_db), "passed": c.passed}
            for c in comparisons
        ]
    for layer in report["layers"]:
        layer["sqnr_db"] = _finite(layer["sqnr_db"])
    return json.dumps(report, indent=2, allow_nan=False)


def _finite(number: float | None) -> float | None:
    """Perfect weights have an infinite ratio, which JSON does not know."""
    return number if number is not None and math.isfinite(number) else None


def print_layers(console: Console, result: Result) -> None:
    """The table of layers and the size of the file beside the other targets; zeros where some layer is sparse."""
    size = len(result.tflite)
    is_sparse = any(layer.zeros > _CHANCE for layer in result.layers)
    table = Table(title="Layers", title_justify="left", box=box.SIMPLE_HEAD)
    add_columns(table, "layer", "op")
    figures = ("kernel", "bits", "values", "bytes", "share", "SQNR dB", *(["zeros"] if is_sparse else []))
    add_columns(table, *figures, justify="right")
    for layer in result.layers:
        table.add_row(
            layer.layer,
            layer.op,
            "x".join(map(str, layer.shape)),
            str(layer.weight_bits),
            str(layer.distinct_values),
            f"{layer.stored_bytes:,}",
            f"{layer.stored_bytes / size:.1%}",
            decibel(layer.sqnr_db),
            *([f"{layer.zeros:.0%}"] if is_sparse else []),
        )
    rest = size - sum(layer.stored_bytes for layer in result.layers)
    table.add_row("everything else", "", "", "", "", f"{rest:,}", f"{rest / size:.1%}", "", end_section=True)
    table.add_row("file", "", "", "", "", f"{size:,}", "100.0%", "")
    console.print(table)

    totals = Table(title="The whole file as", title_justify="left", box=box.SIMPLE_HEAD)
    add_columns(totals, "target")
    add_columns(totals, "bytes", "of float32", justify="right")
    for cells in total_cells(result).values():
        totals.add_row(*cells)
    console.print(totals)
    for note in result.notes:
        console.print(f"note: {note}", soft_wrap=True, highlight=False)


def print_summary(console: Console, summary: Summary) -> None:
    """The line of what the conversion gains."""
    console.print(f"the file: {summary}\n", soft_wrap=True, highlight=False)


def print_post_training(console: Console, made: Any) -> None:
    """What quantization without training did to each layer and to the outputs: a `PostTraining`."""
    title = f"Quantized without training, on {made.samples} inputs"
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD)
    add_columns(table, "layer")
    add_columns(table, "bits", "output SQNR dB", justify="right")
    for layer in made.layers:
        table.add_row(layer.layer, str(layer.bits), decibel(layer.sqnr_db))
    console.print(table)
    for sentence in post_training_sentences(made):
        console.print(sentence, soft_wrap=True, highlight=False)


def print_comparisons(console: Console, comparisons: list[Comparison], samples: int, target: str) -> None:
    """The table of what differs from the model that is written for `target`."""
    title = f"{target.capitalize()} model against others on {samples} inputs"
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD)
    add_columns(table, "layer", "against")
    add_columns(table, "codes", "differ", "largest", "allowed", justify="right")
    add_columns(table, "")
    for comparison in comparisons:
        table.add_row(*comparison_cells(comparison))
    console.print(table)
    for sentence in comparison_sentences(comparisons):
        console.print(sentence, soft_wrap=True, highlight=False)

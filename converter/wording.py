"""What a conversion says of itself, in the same words in a terminal and on a page."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from .comparison import Comparison
from .conversion import Result

NOTHING = "-"

#: What people call the targets, from the largest file to the smallest.
TITLES = {"float32": "float32", "int8": "stock int8", "int4": "stock int4", "packed": "packed"}


def total_cells(result: Result) -> dict[str, tuple[str, str, str]]:
    """The cells of a row by target: its title, the bytes of the whole file, and these as a share of float32's."""
    cells = {}
    for target, title in TITLES.items():
        size = result.totals[target]
        mark = ", computed" if target == "float32" else ""
        mark += " (written)" if target == result.target else ""
        cells[target] = (title + mark, f"{size:,}", f"{size / result.totals['float32']:.1%}")
    return cells


def comparison_cells(comparison: Comparison) -> tuple[str, ...]:
    """Layer, against, codes, how many differ, by how many at most, what is allowed, verdict."""
    return (
        comparison.layer,
        comparison.against,
        f"{comparison.codes:,}",
        f"{comparison.differing:,}",
        f"{comparison.largest:.6g}",
        allowed(comparison),
        "ok" if comparison.passed else "FAILED",
    )


def allowed(comparison: Comparison) -> str:
    """What a comparison may find."""
    bound = comparison.bound
    if comparison.sqnr_db is not None:
        return "any: fewer bits"
    if bound is None:
        return "any: a stock op rounds"
    return f"{bound.share:.1%}, by {bound.codes}" if bound.codes else "none"


def comparison_sentences(comparisons: Sequence[Comparison]) -> list[str]:
    """For each output of a requantized model its noise, and how often it gives the original's class."""
    sentences = []
    for comparison in comparisons:
        if comparison.sqnr_db is not None:
            top = comparison.same_top
            share = "" if top is None else f", its largest is the original's on {top:.1%} of the inputs"
            ratio = decibel(comparison.sqnr_db)
            sentences.append(f"{comparison.layer}: SQNR against the original, dB: {ratio}{share}.")
    return sentences


def post_training_sentences(made: Any) -> list[str]:
    """What quantization without training, a `PostTraining`, did to the outputs, and what is advised."""
    top = "" if made.same_top is None else f", the largest is the same on {made.same_top:.1%} of the inputs"
    sentences = [f"Outputs against the float model: SQNR {decibel(made.output_sqnr_db)} dB{top}."]
    if made.wants_training:
        sentences.append(
            "Training is advised, since the outputs are below 20 dB: subbyte.keras_layers.quantize_model, then "
            "model.fit with TwoStage."
        )
    return sentences


def decibel(ratio: float | None) -> str:
    """A ratio in dB; infinite where nothing was rounded, None where nobody knows what was rounded."""
    return NOTHING if ratio is None else "exact" if ratio == math.inf else f"{ratio:.1f}"

"""What a conversion tells on one page: sizes, codes, ranges, comparisons and times.

    html = conversion_page(conversion, result, name="kws.keras", comparisons=comparisons, inputs=inputs)

`usage` and `measuring` give the figures beside the converter's own, the `_section` modules tell them, `figures` draws
them, `page` has the form.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from subbyte.converter import Conversion, Result
from subbyte.converter.comparison import Comparison
from subbyte.converter.wording import comparison_cells, comparison_sentences, decibel, post_training_sentences

from .code_sections import activations_section, weights_section
from .page import Page, Section, Table
from .size_section import size_section
from .speed_section import speed_section
from .usage import activations, weight_usage


def conversion_page(
    conversion: Conversion,
    result: Result,
    name: str,
    comparisons: Sequence[Comparison] | None = None,
    inputs: dict[str, np.ndarray] | None = None,
) -> str:
    """The page of one conversion, as HTML. It measures for a second or two.

    Args:
        conversion, result: the model, and what was written of it.
        name: of the model, for the title.
        comparisons: of `verify`; None where nothing was verified.
        inputs: real ones by name, [samples, ...] each, for the activations; None where there are none.
    """
    files = {target: conversion.tflite(target) for target in ("packed", "int4", "int8")}
    if conversion.source.floating is not None:
        files["float32"] = conversion.source.floating()
    size = size_section(conversion, result, files)
    speed, median = speed_section(files)
    usages = [weight_usage(op) for op in conversion.linear_ops]
    total, floating = len(result.tflite), result.totals["float32"]
    weights = sum(op.weights.size for op in conversion.linear_ops)
    bits = sum(op.grid.bits * op.weights.size for op in conversion.linear_ops) / weights
    highlights = [
        ("file", f"{total:,} bytes", f"{total / floating:.1%} of float32, computed"),
        ("weights", f"{weights:,}", f"{bits:.3g} bits each on average"),
        ("invoke, packed", median, "median, this machine"),
        ("verification", *_verdict(comparisons)),
    ]
    sections = [
        size,
        weights_section(usages),
        activations_section(activations(conversion, inputs), inputs),
        _verified(comparisons),
    ]
    if result.post_training is not None:
        sections.append(_post_training(result.post_training))
    sections += [speed, _notes(result.notes)]
    lead = f"Converted to TFLite for the target {result.target}, with {result.io} inputs and outputs."
    return Page(name, lead, highlights, sections).html()


def _verdict(comparisons: Sequence[Comparison] | None) -> tuple[str, str]:
    if comparisons is None:
        return "not done", "give --verify=FILE.npz"
    failed = sum(not comparison.passed for comparison in comparisons)
    differing = sum(comparison.differing for comparison in comparisons if comparison.sqnr_db is None)
    if failed:
        return "FAILED", f"{failed} of {len(comparisons)} comparisons"
    codes = sum(comparison.codes for comparison in comparisons if comparison.sqnr_db is None)
    return "passed", f"{differing:,} of {codes:,} codes differ"


def _verified(comparisons: Sequence[Comparison] | None) -> Section:
    if comparisons is None:
        sentence = (
            "Not done: --verify=FILE.npz compares the written model with the int8 target and with what it was made "
            "from, on real inputs, code by code."
        )
        return Section("verification", "Verification", [sentence])
    columns = ("layer", "against", "codes", "differ", "by at most", "allowed", "")
    table = Table(
        "Codes of the written model that differ from others on the inputs of --verify",
        columns,
        [comparison_cells(comparison) for comparison in comparisons],
        texts=2,
    )
    return Section("verification", "Verification", comparison_sentences(comparisons), [table])


def _post_training(made: Any) -> Section:
    rows = [(layer.layer, str(layer.bits), decibel(layer.sqnr_db)) for layer in made.layers]
    table = Table(f"Quantized without training, on {made.samples} inputs", ("layer", "bits", "output SQNR, dB"), rows)
    return Section("post-training", "Without training", post_training_sentences(made), [table])


def _notes(notes: Sequence[str]) -> Section:
    return Section("notes", "Notes", [f"{note}." for note in notes] or ["Every layer with weights was packed."])

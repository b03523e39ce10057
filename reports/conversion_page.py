"""What a conversion tells on one page: sizes, codes, ranges, comparisons and times.

    html = conversion_page(conversion, result, name="kws.keras", comparisons=comparisons, inputs=inputs)

`footprint`, `usage` and `measuring` give the figures, `figures` draws them, `page` has the form.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from subbyte.converter.conversion import Conversion, Result
from subbyte.converter.from_stock import layer_name
from subbyte.converter.integer_ops import LinearOp
from subbyte.converter.report import allowed
from subbyte.converter.verification import Comparison

from . import figures, measuring
from .footprint import Footprint, layers_of
from .measuring import Timing
from .page import NOTHING, Page, Plot, Section, Table
from .usage import SAMPLES, Activation, WeightUsage, activations, weight_usage

TITLES = {"packed": "packed", "int4": "stock int4", "int8": "stock int8", "float32": "float32"}

_PLOTTED_CODES = 256


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
    size = _size(conversion, result, files)
    speed, median = _speed(files)
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
    sections = [size, _weights(usages), _activations(activations(conversion, inputs), inputs), _verified(comparisons)]
    if result.post_training is not None:
        sections.append(_post_training(result.post_training))
    sections += [speed, _notes(result.notes)]
    lead = f"Converted to TFLite for the target {result.target}, with {result.io} inputs and outputs."
    return Page(name, lead, highlights, sections).html()


def _verdict(comparisons: Sequence[Comparison] | None) -> tuple[str, str]:
    if comparisons is None:
        return "not done", "give --verify=FILE.npz"
    failed = sum(not comparison.passed for comparison in comparisons)
    differing = sum(comparison.differing for comparison in comparisons if comparison.same_top is None)
    if failed:
        return "FAILED", f"{failed} of {len(comparisons)} comparisons"
    codes = sum(comparison.codes for comparison in comparisons if comparison.same_top is None)
    return "passed", f"{differing:,} of {codes:,} codes differ"


# Size


def _size(conversion: Conversion, result: Result, files: dict[str, bytes]) -> Section:
    found = {target: Footprint.of(tflite) for target, tflite in files.items() if target != "float32"}
    packed = found["packed"]
    graph = copy.deepcopy(conversion.graph)
    graph.prune_operators()
    ops = layers_of(graph)
    names = [op.layer if isinstance(op, LinearOp) else layer_name(graph, op) for op in ops]
    floating = _float_bytes(ops, packed)
    rest = result.totals["float32"] - sum(floating)
    rows = [
        (
            name,
            str(layer.bits),
            *(f"{value:,}" for value in (layer.weights, layer.records, layer.rest, layer.total)),
            f"{layer.total / packed.file:.1%}",
            *(f"{value:,}" for value in (found["int4"].layers[i].total, found["int8"].layers[i].total, floating[i])),
        )
        for i, (name, layer) in enumerate(zip(names, packed.layers, strict=True))
    ]
    others = [found[target].everything_else for target in ("int4", "int8")]
    sums = [
        (
            *("everything else", "", "", "", ""),
            f"{packed.everything_else:,}",
            f"{packed.everything_else / packed.file:.1%}",
            *(f"{value:,}" for value in (*others, rest)),
        ),
        (
            *("file", ""),
            *(f"{value:,}" for value in (packed.weights, packed.records, packed.rest, packed.file)),
            "100.0%",
            *(f"{value:,}" for value in (found["int4"].file, found["int8"].file, result.totals["float32"])),
        ),
    ]
    columns = ("layer", "bits", "weights", "records", "padding", "packed", "share", "int4", "int8", "float32")
    by_layer = Table("Bytes of each layer in the packed file, and in the others", columns, rows, sums)
    parts = {TITLES[target]: footprint_parts(footprint) for target, footprint in found.items()}
    parts["float32"] = {"weights": sum(floating), "everything else": rest}
    order = ("float32", "stock int8", "stock int4", "packed")
    whole = figures.stacked_bars("whole", {title: parts[title] for title in order}, "bytes", "Bytes of the whole file")
    series = {
        "float32": [*floating, rest],
        "stock int8": [*(layer.total for layer in found["int8"].layers), others[1]],
        "stock int4": [*(layer.total for layer in found["int4"].layers), others[0]],
        "packed": [*(layer.total for layer in packed.layers), packed.everything_else],
    }
    bars = figures.grouped_bars("layers", [*names, "everything else"], series, "bytes", "Bytes of each layer")
    return Section(
        "size",
        "Size",
        [
            "Weights are those of the packed planes, with what fills their last blocks. Records are what each channel "
            "has besides: multipliers and biases, and in stock files scales and zero points; codebooks too. Padding is "
            "the header of a packed layer and what aligns its parts. Everything else is the graph: tensors, operators, "
            "names. float32 is computed, 4 bytes for each weight and bias, the rest as in the packed file.",
        ],
        [
            _whole_table(result, files),
            Plot(whole, "The whole file, in bytes, by what they are for"),
            by_layer,
            Plot(bars, "Bytes of each layer in each target"),
        ],
    )


def footprint_parts(footprint: Footprint) -> dict[str, float]:
    """The parts of a file, for `figures.stacked_bars`."""
    return {
        "weights": footprint.weights,
        "records": footprint.records,
        "padding": footprint.rest,
        "everything else": footprint.everything_else,
    }


def _float_bytes(ops: Iterable[Any], packed: Footprint) -> list[int]:
    """Of each layer in float32, as `Result.totals` counts them: a shared one once, a stock one as it is."""
    counted = set()
    found = []
    for op, layer in zip(ops, packed.layers, strict=True):
        if not isinstance(op, LinearOp):
            found.append(layer.total)
            continue
        key = (op.layer, op.weights.tobytes())
        found.append(0 if key in counted else 4 * (op.weights.size + op.bias.size))
        counted.add(key)
    return found


def _whole_table(result: Result, files: dict[str, bytes]) -> Table:
    rows = []
    for target in ("float32", "int8", "int4", "packed"):
        size = result.totals[target]
        title = TITLES[target] + (", computed" if target == "float32" else "")
        rows.append(
            (
                title + (" (written)" if target == result.target else ""),
                f"{size:,}",
                f"{size / result.totals['float32']:.1%}",
                f"{result.totals['float32'] / size:.2f}",
                _arena(target, files),
            )
        )
    columns = ("target", "file, bytes", "of float32", "times smaller", "arena, bytes")
    caption = (
        "The whole file, and the arena: the memory that the interpreter takes for activations, from the first to the "
        "last byte. The packed kernels' scratch memory is in it, that of stock ops is not; stock files run without "
        "XNNPACK here, which keeps its own"
    )
    return Table(caption, columns, rows)


def _arena(target: str, files: dict[str, bytes]) -> str:
    if target == "int4":
        return "as int8"
    if target not in files:
        return "no float model"
    try:
        return f"{measuring.arena_bytes(files[target]):,}"
    except (RuntimeError, ValueError) as error:
        return f"refused: {str(error).strip().splitlines()[0]}"


# Weights


def _weights(usages: Sequence[WeightUsage]) -> Section:
    rows = [
        (
            usage.layer,
            "x".join(map(str, usage.shape)),
            str(usage.bits),
            f"{usage.used} of {len(usage.values)}",
            f"{usage.entropy:.2f}",
            f"{usage.shares.max():.1%}",
            f"{usage.zeros:.1%}",
            decibel(usage.sqnr_db),
            NOTHING if usage.clipped is None else f"{usage.clipped:.2%}",
        )
        for usage in usages
    ]
    columns = (
        "layer",
        "kernel",
        "bits",
        "values used",
        "entropy, bits",
        "most frequent",
        "zeros",
        "SQNR, dB",
        "clipped",
    )
    caption = (
        "Codes of the weights. Entropy: what a weight needs at least, beside the bits it is stored in; clipped: float "
        "weights more than half a step beyond the last value"
    )
    sentences = [
        "Bars: the share of the weights that has each value, in integers. Line: the density of the float weights in "
        "the same unit, before they were rounded."
    ]
    if any(usage.density is None for usage in usages):
        sentences.append(
            f"{NOTHING} and plots without a line: an int8 .tflite holds codes alone, nobody knows the weights before."
        )
    gallery = [
        Plot(
            figures.codes_and_values(
                f"weights {number}",
                usage.values,
                usage.shares,
                f"Codes and float weights of {usage.layer}",
                usage.density,
            ),
            f"{usage.layer}: {usage.bits} bits, entropy {usage.entropy:.2f}",
        )
        for number, usage in enumerate(usages)
    ]
    return Section("weights", "Weights", sentences, [Table(caption, columns, rows, texts=2)], gallery)


def decibel(value: float | None) -> str:
    """A ratio for a table."""
    return NOTHING if value is None else "exact" if value == math.inf else f"{value:.1f}"


# Activations


def _activations(found: Sequence[Activation], inputs: dict[str, np.ndarray] | None) -> Section:
    measured = inputs is not None
    rows = []
    for tensor in found:
        low, high = tensor.real(tensor.low), tensor.real(tensor.high)
        cells = [
            tensor.name,
            str(tensor.bits),
            f"{tensor.scale:.6g}",
            str(tensor.zero_point),
            f"{low:.4g} to {high:.4g}",
        ]
        if measured:
            first, last = tensor.used
            cells += [f"{tensor.real(first):.4g} to {tensor.real(last):.4g}"]
            cells += [f"{share:.2%}" for share in (tensor.shares[0], tensor.shares[-1])]
        rows.append(cells)
    columns = ["tensor", "bits", "scale", "zero point", "range"]
    if not measured:
        sentence = (
            "How much of the ranges is used, and what is clipped, shows on real inputs: give --verify=FILE.npz, or "
            "--calibration for a float model."
        )
        caption = "Quantized tensors: real = scale x (code - zero point)"
        return Section("activations", "Activations", [sentence], [Table(caption, columns, rows)])
    samples = min(SAMPLES, len(next(iter((inputs or {}).values()))))
    caption = f"Quantized tensors on {samples} inputs: real = scale x (code - zero point)"
    sentences = [
        "At an end are the codes with the smallest or the largest value of the range: what was clipped, and what is "
        "exactly there. At the lower end of a ReLU, 0, that is what it is for. Plots: the share of each value; a bar "
        "that would dwarf the others is cut, and its height stands beside it."
    ]
    gallery = [
        Plot(
            _activation_plot(f"activation {number}", tensor),
            f"{tensor.name}: {tensor.shares[0]:.1%} at the lower end, {tensor.shares[-1]:.1%} at the upper",
        )
        for number, tensor in enumerate(found)
    ]
    columns += ["values seen", "at lower end", "at upper end"]
    return Section("activations", "Activations", sentences, [Table(caption, columns, rows)], gallery)


def _activation_plot(name: str, tensor: Activation) -> str:
    """The share of each code, or of neighbours together where there are more than a plot can show."""
    together = -(-len(tensor.codes) // _PLOTTED_CODES)
    starts = np.arange(0, len(tensor.codes), together)
    shares = np.add.reduceat(tensor.shares, starts)
    values = tensor.scale * (tensor.codes[starts] - tensor.zero_point)
    return figures.codes_and_values(name, values, shares, f"Values of {tensor.name}")


# Comparisons


def _verified(comparisons: Sequence[Comparison] | None) -> Section:
    if comparisons is None:
        sentence = (
            "Not done: --verify=FILE.npz compares the packed model with the int8 target and with what it was made "
            "from, on real inputs, code by code."
        )
        return Section("verification", "Verification", [sentence])
    rows = [
        (
            comparison.layer,
            comparison.against,
            f"{comparison.codes:,}",
            f"{comparison.differing:,}",
            str(comparison.largest),
            allowed(comparison),
            "passed" if comparison.passed else "FAILED",
        )
        for comparison in comparisons
    ]
    columns = ("layer", "against", "codes", "differ", "by at most", "allowed", "")
    table = Table("Codes of the packed model that differ from others on the inputs of --verify", columns, rows, texts=2)
    sentences = [
        f"{comparison.layer}: its largest is the original's on {comparison.same_top:.1%} of the inputs."
        for comparison in comparisons
        if comparison.same_top is not None
    ]
    return Section("verification", "Verification", sentences, [table])


def _post_training(made: Any) -> Section:
    rows = [(layer.layer, str(layer.bits), decibel(layer.sqnr_db)) for layer in made.layers]
    top = "" if made.same_top is None else f"; the largest is the same on {made.same_top:.1%} of the inputs"
    sentences = [f"Outputs against the float model: SQNR {decibel(made.output_sqnr_db)} dB{top}."]
    if made.wants_training:
        sentences.append(
            "Training is advised, since the outputs are below 20 dB: subbyte.keras_layers.quantize_model, then "
            "model.fit with TwoStage."
        )
    table = Table(f"Quantized without training, on {made.samples} inputs", ("layer", "bits", "output SQNR, dB"), rows)
    return Section("post-training", "Without training", sentences, [table])


# Speed


def _speed(files: dict[str, bytes]) -> tuple[Section, str]:
    """The section, and the packed model's median for the top of the page."""
    models = {TITLES[target]: files[target] for target in ("packed", "int8", "float32") if target in files}
    timings, refused = measuring.microseconds(models)
    rows = speed_rows(timings, refused, "stock int8")
    if "float32" not in models:
        rows.append(("float32", *[NOTHING] * 3, "no float model: the source is quantized"))
    columns = ("model", "median, µs", "fastest", "nine in ten", "of stock int8")
    caption = "Microseconds an invoke() takes from Python, one thread, the models in turn"
    section = Section("speed", "Speed", [f"{measuring.machine()}."], [Table(caption, columns, rows)])
    return section, f"{1e6 * timings['packed'].median:.1f} µs" if "packed" in timings else "refused"


def speed_rows(timings: dict[str, Timing], refused: dict[str, str], against: str) -> list[tuple[str, ...]]:
    """A row for each model: median, fastest and ninth decile in µs, and the median as a multiple of another's."""
    base = timings[against].median if against in timings else None
    rows = [
        (
            name,
            *(f"{1e6 * seconds:,.1f}" for seconds in (timing.median, timing.minimum, timing.ninth_decile)),
            NOTHING if base is None else f"{timing.median / base:.2f}",
        )
        for name, timing in timings.items()
    ]
    return rows + [(name, *[NOTHING] * 3, f"refused: {reason}") for name, reason in refused.items()]


def _notes(notes: Sequence[str]) -> Section:
    return Section("notes", "Notes", [f"{note}." for note in notes] or ["Every layer with weights was packed."])

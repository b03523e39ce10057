"""How a conversion uses its codes: the section of the weights, and that of the activations."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from subbyte.converter.wording import NOTHING, decibel

from . import figures
from .page import Plot, Section, Table
from .usage import SAMPLES, Activation, WeightUsage

_PLOTTED_CODES = 256


def weights_section(usages: Sequence[WeightUsage]) -> Section:
    """The codes of each layer's weights: a table, and a plot a layer."""
    sentences = [
        "Bars: the share of the weights that has each value, in integers. Line: the density of the float weights in "
        "the same unit, before they were rounded."
    ]
    if any(usage.density is None for usage in usages):
        sentences.append(
            f"{NOTHING} and plots without a line: an int8 .tflite holds codes alone, nobody knows the weights before."
        )
    gallery = [_weights_plot(f"weights {number}", usage) for number, usage in enumerate(usages)]
    return Section("weights", "Weights", sentences, [_weights_table(usages)], gallery)


def _weights_table(usages: Sequence[WeightUsage]) -> Table:
    caption = (
        "Codes of the weights. Entropy: what a weight needs at least, beside the bits it is stored in; clipped: float "
        "weights more than half a step beyond the last value"
    )
    usage_columns = ("values used", "entropy, bits", "most frequent", "zeros", "SQNR, dB", "clipped")
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
    return Table(caption, ("layer", "kernel", "bits", *usage_columns), rows, texts=2)


def _weights_plot(name: str, usage: WeightUsage) -> Plot:
    label = f"Codes and float weights of {usage.layer}"
    plot = figures.codes_and_values(name, usage.values, usage.shares, label, usage.density)
    return Plot(plot, f"{usage.layer}: {usage.bits} bits, entropy {usage.entropy:.2f}")


def activations_section(found: Sequence[Activation], inputs: dict[str, np.ndarray] | None) -> Section:
    """The ranges of the quantized tensors; with `inputs`, by name, what they used of them, and a plot a tensor."""
    columns = ["tensor", "bits", "scale", "zero point", "range"]
    if inputs is None:
        sentence = (
            "How much of the ranges is used, and what is clipped, shows on real inputs: give --verify=FILE.npz, or "
            "--calibration for a float model."
        )
        table = Table("Quantized tensors: real = scale x (code - zero point)", columns, [*map(_range_cells, found)])
        return Section("activations", "Activations", [sentence], [table])
    samples = min(SAMPLES, len(next(iter(inputs.values()))))
    caption = f"Quantized tensors on {samples} inputs: real = scale x (code - zero point)"
    sentence = (
        "At an end are the codes with the smallest or the largest value of the range: what was clipped, and what is "
        "exactly there. At the lower end of a ReLU, 0, that is what it is for. Plots: the share of each value; a bar "
        "that would dwarf the others is cut, and its height stands above."
    )
    gallery = [
        Plot(
            _activation_plot(f"activation {number}", tensor),
            f"{tensor.name}: {tensor.shares[0]:.1%} at the lower end, {tensor.shares[-1]:.1%} at the upper",
        )
        for number, tensor in enumerate(found)
    ]
    columns += ["values seen", "at lower end", "at upper end"]
    rows = [[*_range_cells(tensor), *_used_cells(tensor)] for tensor in found]
    return Section("activations", "Activations", [sentence], [Table(caption, columns, rows)], gallery)


def _range_cells(tensor: Activation) -> list[str]:
    low, high = tensor.real(tensor.low), tensor.real(tensor.high)
    return [tensor.name, str(tensor.bits), f"{tensor.scale:.6g}", str(tensor.zero_point), f"{low:.4g} to {high:.4g}"]


def _used_cells(tensor: Activation) -> list[str]:
    first, last = tensor.used
    ends = [f"{share:.2%}" for share in (tensor.shares[0], tensor.shares[-1])]
    return [f"{tensor.real(first):.4g} to {tensor.real(last):.4g}", *ends]


def _activation_plot(name: str, tensor: Activation) -> str:
    """The share of each code, or of neighbours together where there are more than a plot can show."""
    together = -(-len(tensor.codes) // _PLOTTED_CODES)
    starts = np.arange(0, len(tensor.codes), together)
    shares = np.add.reduceat(tensor.shares, starts)
    values = tensor.scale * (tensor.codes[starts] - tensor.zero_point)
    return figures.codes_and_values(name, values, shares, f"Values of {tensor.name}")

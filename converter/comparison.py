"""What differs between two models in one tensor."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np

from .bounds import Bound
from .feeding import End


@dataclass(frozen=True)
class Comparison:
    """One tensor in two models.

    Attributes:
        layer: the layer, or the model's output.
        against: what the written model is compared with.
        codes: how many codes were compared, or numbers where nothing quantizes them.
        differing: how many are not equal, bit for bit.
        largest: largest difference, in codes, or between the numbers; NaN where one of them is.
        bound: what may differ; None where nothing is promised.
        sqnr_db: of a requantized model's output, signal to quantization noise against the original's, in dB; else None.
        same_top: of such an output of classes: share of the samples whose largest, the class, is the same; else None.
    """

    layer: str
    against: str
    codes: int
    differing: int
    largest: float
    bound: Bound | None
    sqnr_db: float | None = None
    same_top: float | None = None

    @property
    def passed(self) -> bool:
        bound = self.bound
        return bound is None or (self.differing <= bound.share * self.codes and self.largest <= bound.codes)


def compare(layer: str, against: str, ours: np.ndarray, theirs: np.ndarray, bound: Bound | None) -> Comparison:
    """Two arrays of one type, in any shape. Of different sizes all of the larger differs."""
    if ours.size != theirs.size:
        size = max(ours.size, theirs.size)
        return Comparison(layer, against, size, size, math.inf, bound)
    ours, theirs = ours.ravel(), theirs.ravel()
    if ours.dtype.kind == "f":
        bits = np.dtype(f"u{ours.dtype.itemsize}")
        differing = ours.view(bits) != theirs.view(bits)
        with np.errstate(invalid="ignore"):  # infinity less infinity
            difference = np.abs(ours.astype(np.float64) - theirs.astype(np.float64))[differing]
    else:
        differing = ours != theirs
        # Whole numbers beyond 2^53 differ by about so much.
        difference = np.abs(ours[differing].astype(np.float64) - theirs[differing].astype(np.float64))
    largest = float(difference.max(initial=0))
    return Comparison(layer, against, ours.size, int(np.count_nonzero(differing)), largest, bound)


def compare_outputs(
    ours: tuple[End, np.ndarray], theirs: tuple[End, np.ndarray], bound: Bound | None, requantized: bool
) -> Comparison:
    """One output of the written model and of the original, which may be of different types; then in codes of theirs, or
    of ours.

    Args:
        ours, theirs: the output and its rows, as the interpreter gives them.
        bound: what may differ.
        requantized: noise is asked for, and how often the class stays, where the output looks like one of classes.
    """
    (our_end, our_rows), (their_end, their_rows) = ours, theirs
    common = their_end if their_end.quantization is not None else our_end
    if (our_end.dtype, our_end.quantization) != (their_end.dtype, their_end.quantization):
        our_rows, their_rows = common.array(our_end.real(our_rows)), common.array(their_end.real(their_rows))
    comparison = compare(their_end.name, "original", our_rows, their_rows, bound)
    if not requantized:
        return comparison
    if our_rows.shape != their_rows.shape:
        return replace(comparison, sqnr_db=-math.inf)
    our_values, their_values = (common.real(rows).astype(np.float64) for rows in (our_rows, their_rows))
    return replace(comparison, sqnr_db=_sqnr_db(our_values, their_values), same_top=_same_top(our_values, their_values))


def _sqnr_db(values: np.ndarray, expected: np.ndarray) -> float:
    noise, signal = float(np.sum((values - expected) ** 2)), float(np.sum(expected**2))
    if noise == 0:
        return math.inf
    return 10 * math.log10(signal / noise) if signal > 0 else -math.inf


def _same_top(values: np.ndarray, expected: np.ndarray) -> float | None:
    """The share of samples [samples, ..., classes] whose largest class agrees.

    None where there is no one row of classes for each sample.
    """
    classes = expected.shape[-1]
    if expected.ndim < 2 or classes < 2 or expected[0].size != classes:
        return None
    tops = [array.reshape(len(array), classes).argmax(axis=1) for array in (values, expected)]
    return float(np.mean(tops[0] == tops[1]))

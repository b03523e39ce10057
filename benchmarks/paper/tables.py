"""The tables of docs/results.md, each figure beside the paper's, and what of the paper's claims they bear out."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from subbyte.keyword_spotting.data import Split
from subbyte.keyword_spotting.evaluate import FALSE_ALARMS
from subbyte.keyword_spotting.intervals import Interval, bootstrap, interval
from subbyte.keyword_spotting.metrics import (
    Totals,
    det_area,
    discovery_at,
    highest_threshold,
    keyword_accuracy,
    lowest_threshold,
    percent_above,
)

from ..tables import markdown_table
from .evaluation import Measured

#: On the dev stream, FRR0 of the baseline's operating point; the paper does not give its own.
MISSES = 0.05

Models = dict[str, dict[str, Measured]]


@dataclass(frozen=True)
class Row:
    """A line of a table: a configuration, and the paper's relative FDR degradation in percent where it gives one."""

    name: str
    title: str
    paper: float | None = None


@dataclass(frozen=True)
class Claim:
    """A difference that the paper reports: of the first configuration and the second, in percent of M0's FDR.

    `paper` is its size; None, with the `sign` alone, where the paper shows a curve without numbers.
    """

    first: str
    second: str
    text: str
    paper: float | None = None
    sign: int = 0


MODELS = (
    Row("M0", "M0: float", 0.0),
    Row("M1", "M1: 8 bits, activations 16", 3.1),
    Row("M2", "M2: 8 bits", 3.5),
    Row("M3", "M3: 5 bits", 7.4),
    Row("M4", "M4: 4 bits", 8.7),
)
TANH = (
    Row("tanh-5", "tanh", 7.4),
    Row("linear-5-layer", "linear, one grid a layer", 12.3),
    Row("linear-5-channel", "linear, one grid a channel"),
    Row("tanh-5-full", "tanh, full length"),
    Row("linear-5-layer-full", "linear, one grid a layer, full length"),
    Row("linear-5-channel-full", "linear, one grid a channel, full length"),
)
_STEPS = (
    Row("ladder-weights", "weights", 3.8),
    Row("ladder-gain", "+ bias, gain", 4.7),
    Row("ladder-activations", "+ inputs, activations", 5.2),
    Row("ladder-bn", "+ batch norm with C_BN", 5.3),
    Row("ladder-bn-plain", "+ batch norm without C_BN", 9.0),
)
LADDER = (*_STEPS, *(Row(f"{step.name}-full", f"{step.title}, full length") for step in _STEPS))
WIDTHS = (
    Row("M1", "activations 16", 3.1),
    Row("M2", "activations 8", 3.5),
    Row("activations-5", "activations 5"),
    Row("parameters-5", "gain, bias, batch norm 5", 6.5),
)
BINARY = (
    Row("M5-constant", "M5, rate kept", 14.0),
    Row("M5-drop", "M5, rate lowered", 0.4),
    Row("M6-constant", "M6, rate kept", 6.2),
    Row("M6-drop", "M6, rate lowered", -0.4),
)


def _at_both_lengths(*claims: Claim) -> tuple[Claim, ...]:
    """The claims of ablations as the paper trains them, and of the same trained in full."""
    longer = (
        replace(claim, first=f"{claim.first}-full", second=f"{claim.second}-full", text=f"{claim.text}, at full length")
        for claim in claims
    )
    return (*claims, *longer)


#: The recommended recipe beside the paper's layers, as above and with its augmentation.
RECIPE = (
    Row("M0", "M0: float"),
    Row("M4", "M4: 4 bits"),
    Row("M0-masked", "M0, augmented as recommended"),
    Row("M4-masked", "M4, augmented as recommended"),
    Row("recommended", "recommended: 4 bits"),
)
CLAIMS: dict[str, tuple[Claim, ...]] = {
    "models": (
        Claim("M1", "M0", "8-bit weights and 16-bit activations cost a little", 3.1),
        Claim("M2", "M1", "activations of 8 bits instead of 16 cost almost nothing", 0.4),
        Claim("M3", "M2", "5 bits cost more than 8", 3.9),
        Claim("M4", "M3", "4 bits cost a little more than 5", 1.3),
    ),
    "tanh": _at_both_lengths(
        Claim("tanh-5", "linear-5-layer", "tanh is better than a linear quantizer with one gain a layer", -4.9),
    ),
    "ladder": _at_both_lengths(
        Claim("ladder-gain", "ladder-weights", "bias and gain at 8 bits cost little", 0.9),
        Claim("ladder-activations", "ladder-gain", "inputs and activations at 8 bits cost little", 0.5),
        Claim("ladder-bn", "ladder-activations", "batch norm at 8 bits with C_BN costs nothing", 0.1),
        Claim("ladder-bn-plain", "ladder-bn", "without C_BN batch norm suffers", 3.7),
    ),
    "widths": (
        Claim("activations-5", "M2", "activations of 5 bits are clearly worse than of 8", sign=1),
        Claim("parameters-5", "M2", "gain, bias and batch norm at 5 bits cost as much again", 3.0),
    ),
    "binary": (
        Claim("M5-drop", "M5-constant", "one-bit layers need the lower rate at the end (M5)", -13.6),
        Claim("M6-drop", "M6-constant", "one-bit layers need the lower rate at the end (M6)", -6.6),
        Claim("M5-drop", "M0", "M5 is as good as float", 0.4),
        Claim("M6-drop", "M0", "M6 is as good as float", -0.4),
    ),
    "recipe": (),
}


def cell(found: Interval, digits: int = 1, signed: bool = False) -> str:
    """The value and its interval, as they are."""
    form = f"{{:{'+' if signed else ''}.{digits}f}}"
    value, low, high = ("∞" if np.isinf(number) else form.format(number) for number in
                        (found.value, found.low, found.high))  # fmt: skip
    return f"{value} [{low}, {high}]"


@dataclass(frozen=True)
class Point:
    """A threshold for each seed, by its index, chosen on the dev stream: no more than MISSES are missed there."""

    index: NDArray[np.intp]

    @classmethod
    def of(cls, model: dict[str, Measured]) -> Point:
        return cls(highest_threshold(model["dev"].streams.totals().miss_rates(), MISSES))

    def discoveries(self, found: Totals) -> NDArray[Any]:
        """FDR."""
        return found.at(self.index).discovery_rates()

    def misses(self, found: Totals) -> NDArray[Any]:
        """FRR."""
        return found.at(self.index).miss_rates()


def detection_cells(model: dict[str, Measured], baseline: dict[str, Measured], test: Split) -> list[str]:
    """The cells that DETECTION names, of one configuration."""
    streams, clips = model["test"].streams, model["test"].clips
    point, zero = Point.of(model), Point.of(baseline)

    def at_equal_misses(found: Totals, base: Totals) -> NDArray[Any]:
        return percent_above(discovery_at(found, zero.misses(base)), zero.discoveries(base))

    def at_dev_thresholds(found: Totals, base: Totals) -> NDArray[Any]:
        return percent_above(point.discoveries(found), zero.discoveries(base))

    pair = streams, baseline["test"].streams
    cells = [
        "0" if model is baseline else cell(interval(statistic, *pair), 0, True)
        for statistic in (at_equal_misses, at_dev_thresholds)
    ]
    cells += [
        cell(interval(lambda found, rate=rate: 100.0 * rate(found), streams))
        for rate in (point.discoveries, point.misses)
    ]
    for limit in FALSE_ALARMS:
        chosen = Point(lowest_threshold(model["dev"].clips.totals().alarm_rates(), limit))
        alarms = 100.0 * float(clips.totals().at(chosen.index).alarm_rates())
        missed = interval(lambda found, chosen=chosen: 100.0 * chosen.misses(found), clips)
        cells.append(f"{cell(missed)} at {alarms:.1f}")
    accuracy = bootstrap(keyword_accuracy, model["test"].logits, test.labels, test.speakers)
    percent = Interval(*(100.0 * end for end in (accuracy.value, accuracy.low, accuracy.high)))
    return [*cells, cell(percent), cell(interval(det_area, clips), 2)]


DETECTION = (
    "paper: FDR degradation, %",
    "at M0's misses, %",
    "at thresholds from dev, %",
    "FDR there, %",
    "misses there, %",
    *(f"misses at {100 * limit:g} % false alarms" for limit in FALSE_ALARMS),
    "keyword accuracy, %",
    "DET area",
)


def detection_table(rows: Sequence[Row], models: Models, test: Split, first: str = "model") -> str:
    """Markdown: a line a row, M0 the baseline."""
    lines = (
        [
            row.title,
            "-" if row.paper is None else f"{row.paper:+.1f}" if row.paper else "0",
            *detection_cells(models[row.name], models["M0"], test),
        ]
        for row in rows
        if row.name in models
    )
    return markdown_table([first, *DETECTION], lines)


def claims(section: str, models: Models) -> Iterable[str]:
    """A line for each of the paper's claims: what we see, and whether that agrees."""
    for claim in CLAIMS[section]:
        if not {claim.first, claim.second, "M0"} <= set(models):
            continue
        counts = (models[name]["test"].streams for name in (claim.first, claim.second, "M0"))
        zero = Point.of(models["M0"])

        to_zero = claim.second == "M0"

        def difference(
            first: Totals, second: Totals, base: Totals, zero: Point = zero, to_zero: bool = to_zero
        ) -> NDArray[Any]:
            rate, misses = zero.discoveries(base), zero.misses(base)
            more = discovery_at(first, misses)
            less = rate if to_zero else discovery_at(second, misses)
            with np.errstate(divide="ignore", invalid="ignore"):
                return np.where(more == less, 0.0, 100.0 * (more - less) / rate)

        ours = interval(difference, *counts)
        sign = claim.sign or int(np.sign(claim.paper or 0))
        paper = "without a number" if claim.paper is None else f"{claim.paper:+.1f}"
        yield f"* {claim.text} (paper: {paper}). Ours: {cell(ours, 0, True)}: {verdict(ours, claim.paper, sign)}."


def verdict(ours: Interval, paper: float | None, sign: int) -> str:
    """What an interval says of a claim."""
    if ours.low > 0 or ours.high < 0:
        agrees = (ours.low > 0) == (sign > 0)
        return "**we see it too**" if agrees else "**we see the opposite**"
    if paper is not None and ours.low <= paper <= ours.high:
        return "our data tell it neither from nothing nor from the paper's figure"
    return "our data do not show it" if paper is None else "our data do not show it, and not the paper's figure either"

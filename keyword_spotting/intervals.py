"""95 % bootstrap intervals over speakers: of metrics of clips, and of what is counted at many thresholds.

`bootstrap` draws the clips of speakers for any function of logits and labels. `intervals` draws groups of `Counts`, at
all thresholds at once: a threshold may then be chosen anew in each draw, and streams have intervals like clips.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .metrics import Counts, Floats, Totals, discovery_at, misses_at, stacked_runs

Metric = Callable[[Floats, NDArray[np.int64]], float]
Statistic = Callable[..., Floats]  # of Totals


@dataclass(frozen=True)
class Interval:
    """A measured value and the bounds of its 95 % bootstrap interval."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{100 * self.value:.1f} % [{100 * self.low:.1f}, {100 * self.high:.1f}]"


def bootstrap(
    metric: Metric,
    logits: ArrayLike,
    labels: NDArray[np.int64],
    speakers: NDArray[np.str_],
    against: ArrayLike | None = None,
    draws: int = 1000,
    seed: int = 0,
) -> Interval:
    """`metric` with a 95 % percentile interval from drawing speakers, not clips, with replacement.

    Args:
        metric: of logits [clips, outputs] and labels [clips].
        logits: [clips, outputs], or [runs, clips, outputs] of several seeds, over which the metric is averaged.
        labels: [clips].
        speakers: [clips], who speaks.
        against: logits of another model on the same clips. The value is then the difference, first minus second, and
            each draw uses the same speakers for both.
        draws: bootstrap samples.
        seed: of the draws.
    """
    first, second = stacked_runs(logits), None if against is None else stacked_runs(against)

    def value(clips: NDArray[np.intp]) -> float:
        def mean(runs: Floats) -> float:
            return float(np.mean([metric(run[clips], labels[clips]) for run in runs]))

        return mean(first) - (0.0 if second is None else mean(second))

    clips_of = [np.flatnonzero(speakers == speaker) for speaker in np.unique(speakers)]
    rng = np.random.default_rng(seed)
    drawn = rng.integers(0, len(clips_of), (draws, len(clips_of)))
    values = [value(np.concatenate([clips_of[index] for index in row])) for row in drawn]
    low, high = np.percentile(values, [2.5, 97.5])
    return Interval(value(np.arange(len(labels))), float(low), float(high))


def interval(statistic: Statistic, *counts: Counts, draws: int = 1000, seed: int = 0) -> Interval:
    """`intervals` of one number: `statistic` gives [draws]."""
    return intervals(lambda *found: statistic(*found)[:, np.newaxis], *counts, draws=draws, seed=seed)[0]


def intervals(statistic: Statistic, *counts: Counts, draws: int = 1000, seed: int = 0) -> list[Interval]:
    """Values with 95 % percentile intervals from drawing groups with replacement.

    Groups with keywords and groups without, such as background noise, are drawn apart, as many as there are of each.
    The bounds are draws themselves, so that an infinite one is told.

    Args:
        statistic: from Totals of [draws, runs, thresholds], one for each of `counts`, to numbers [draws, n]. A
            threshold that it finds itself is chosen anew in each draw; one from elsewhere is fixed.
        counts: of one detector, or of several on the same groups: each draw then uses the same groups for all, so that
            a difference is paired.
        draws: bootstrap samples.
        seed: of the draws.

    Raises:
        ValueError: the counts have different groups.
    """
    first = counts[0]
    if any(not np.array_equal(first.groups, other.groups) for other in counts[1:]):
        raise ValueError("a paired comparison needs counts of the same groups")
    rng, weights = np.random.default_rng(seed), np.ones((draws + 1, len(first.groups)))
    for members in (np.flatnonzero(first.positives > 0), np.flatnonzero(first.positives == 0)):
        if len(members):
            weights[1:, members] = rng.multinomial(len(members), np.full(len(members), 1.0 / len(members)), draws)
    values = statistic(*(each.totals(weights) for each in counts))
    low = np.percentile(values[1:], 2.5, axis=0, method="lower")
    high = np.percentile(values[1:], 97.5, axis=0, method="higher")
    return [Interval(*map(float, bounds)) for bounds in zip(values[0], low, high, strict=True)]


def det_curve(
    counts: Counts, alarms: Sequence[float], rate: Callable[[Totals], Floats] = Totals.alarm_rates
) -> list[Interval]:
    """FRR with its interval at each false-alarm rate of `alarms`; see `misses_at`."""
    return intervals(lambda found: np.stack([misses_at(found, limit, rate) for limit in alarms], axis=-1), counts)


def discovery_curve(counts: Counts, misses: Sequence[float]) -> list[Interval]:
    """FDR with its interval at each miss rate of `misses`: the paper's curve."""
    return intervals(lambda found: np.stack([discovery_at(found, limit) for limit in misses], axis=-1), counts)

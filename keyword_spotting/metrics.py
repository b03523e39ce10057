"""Keyword accuracy, misses at a cross-keyword false-alarm rate, and bootstrap intervals over speakers.

A model with outputs (keyword 1 .. keyword n, other) is read as n detectors, one a keyword, with the log posterior as
score. Each test clip of a keyword is one positive trial for its own detector and a negative trial for each of the
n - 1 others; trials of all detectors are pooled, so one threshold serves all. 615 clips of six keywords make 615
positive and 3075 negative trials.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.floating[Any]]
Metric = Callable[[Floats, NDArray[np.int64]], float]


def log_posteriors(logits: Floats) -> Floats:
    """The logarithm of the softmax over the last axis."""
    shifted = np.asarray(logits, np.float64)
    shifted = shifted - shifted.max(axis=-1, keepdims=True)
    result: Floats = shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))
    return result


def moving_average(logits: Floats) -> Floats:
    """The logarithm of the mean posterior [..., classes] of neighbouring windows [..., windows, classes].

    The paper's decision: a windowed moving average of the posterior (arXiv 2207.06920, section 2).
    """
    result: Floats = np.log(np.exp(log_posteriors(logits)).mean(axis=-2) + 1e-12)
    return result


def keyword_accuracy(logits: Floats, labels: NDArray[np.int64]) -> float:
    """Share of keyword clips whose largest output, "other" included, is their own keyword.

    Args:
        logits: [clips, keywords + 1].
        labels: [clips], the index of the keyword that was spoken.
    """
    return float(np.mean(np.argmax(logits, axis=1) == labels))


def trials(logits: Floats, labels: NDArray[np.int64]) -> tuple[Floats, Floats]:
    """Scores of the positive trials [clips] and of the cross-keyword negative trials [clips * (keywords - 1)].

    Raises:
        ValueError: a logit is not finite: such a score is neither above nor below a threshold.
    """
    if not np.isfinite(logits).all():
        raise ValueError("the model gave outputs that are not finite: train it again with a lower learning rate")
    scores = log_posteriors(logits)[:, :-1]
    own = np.arange(scores.shape[1]) == np.asarray(labels)[:, np.newaxis]
    return scores[own], scores[~own]


def detection_error_tradeoff(positives: Floats, negatives: Floats) -> tuple[Floats, Floats, Floats]:
    """False-alarm rates, miss rates and thresholds [n] of every detector that differs, false alarms falling.

    A detector fires where the score is at least its threshold; the last threshold, infinite, never fires.
    """
    thresholds = np.append(np.unique(np.concatenate([positives, negatives])), np.inf)
    misses = np.searchsorted(np.sort(positives), thresholds, side="left") / len(positives)
    alarms = 1.0 - np.searchsorted(np.sort(negatives), thresholds, side="left") / len(negatives)
    return alarms, misses, thresholds


def miss_rate(logits: Floats, labels: NDArray[np.int64], false_alarms: float = 0.01) -> float:
    """Misses at the lowest threshold whose cross-keyword false-alarm rate does not exceed `false_alarms`.

    Args:
        logits: [clips, keywords + 1].
        labels: [clips], the index of the keyword that was spoken.
        false_alarms: a rate, 0 to 1; below 10 / negative trials it rests on a handful of events.
    """
    alarms, misses, _ = detection_error_tradeoff(*trials(logits, labels))
    return float(misses[np.argmax(alarms <= false_alarms)])


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
    first, second = _runs(logits), None if against is None else _runs(against)

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


def _runs(logits: ArrayLike) -> Floats:
    logits = np.asarray(logits)
    return logits if logits.ndim == 3 else logits[np.newaxis]

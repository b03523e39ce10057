"""Keyword accuracy, misses, false alarms and false discoveries, at one threshold and at many.

A model with outputs (keyword 1 .. keyword n, other) is read as n detectors, one a keyword, with the log posterior as
score. Each test clip of a keyword is one positive trial for its own detector and a negative trial for each of the
n - 1 others; trials of all detectors are pooled, so one threshold serves all. 615 clips of six keywords make 615
positive and 3075 negative trials.

`Counts` are hits and false alarms at many thresholds, by group of speakers: of trials of clips (`count_trials`) or of
events in streams (`streams.count_events`). `Counts.totals` adds them up, over the groups or over draws of them, and
everything measured is a function of such `Totals`:

    dev, test = (count_trials(logits, split.labels, split.speakers) for logits, split in ...)
    threshold = lowest_threshold(dev.totals().alarm_rates(), 0.01)         # chosen on dev, one for each run
    interval(lambda found: found.at(threshold).miss_rates(), test)         # reported on test
    interval(lambda model, baseline: relative_degradation(model, baseline, 0.05), test, baseline_test)
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.floating[Any]]

# Log odds from -10 to 10 in steps of 0.05, and of 0.0125 where the posteriors of sure detections pile up: training with
# labels smoothed by 0.1 aims at log odds of 2.4. A logit of 8 bits, averaged over five windows, is hardly finer.
_ODDS = np.unique(np.round(np.append(np.linspace(-10.0, 10.0, 401), np.linspace(1.0, 4.0, 241)), 6))
# Thresholds of log posteriors; the first always fires, the last never.
THRESHOLDS: Floats = np.concatenate([[-np.inf], -np.log1p(np.exp(-_ODDS)), [np.inf]])


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


def stacked_runs(logits: ArrayLike) -> Floats:
    """Logits [runs, clips, outputs] of several seeds; those of a single one [clips, outputs] are one run."""
    logits = np.asarray(logits)
    return logits if logits.ndim == 3 else logits[np.newaxis]


@dataclass(frozen=True)
class Counts:
    """What one detector does at each threshold, by group of speakers. Several seeds of it are stacked, as runs.

    Attributes:
        thresholds: [thresholds], rising, the last infinite, so that the last never fires.
        groups: str [groups], distinct: the speakers or recordings that a bootstrap draws.
        positives: [groups], keywords spoken.
        hits: [runs, groups, thresholds], those of them that were detected.
        false_alarms: [runs, groups, thresholds].
        negatives: [groups], trials in which nothing should fire; 0 for streams, whose alarms are counted by the hour.
        seconds: [groups], of audio; 0 for trials.
    """

    thresholds: Floats
    groups: NDArray[np.str_]
    positives: Floats
    hits: Floats
    false_alarms: Floats
    negatives: Floats
    seconds: Floats

    def __post_init__(self) -> None:
        if not (np.all(self.thresholds[1:] > self.thresholds[:-1]) and self.thresholds[-1] == np.inf):
            raise ValueError("thresholds must rise and end with infinity, which never fires")
        shape = (len(self.groups), len(self.thresholds))
        if self.hits.shape[1:] != shape or self.false_alarms.shape != self.hits.shape:
            raise ValueError(f"hits and false alarms must be [runs, {shape[0]}, {shape[1]}], got {self.hits.shape}")
        if any(len(counts) != shape[0] for counts in (self.positives, self.negatives, self.seconds)):
            raise ValueError(f"positives, negatives and seconds must have the {shape[0]} groups")

    @classmethod
    def stack(cls, runs: Sequence[Counts]) -> Counts:
        """The runs of several seeds of a detector on the same material as one.

        Raises:
            ValueError: they differ in thresholds or groups.
        """
        first = runs[0]
        for other in runs[1:]:
            for field in ("thresholds", "groups", "positives", "negatives", "seconds"):
                if not np.array_equal(getattr(first, field), getattr(other, field)):
                    raise ValueError(f"runs must be counted on the same material, but their {field} differ")
        hits, alarms = (np.concatenate([getattr(run, name) for run in runs]) for name in ("hits", "false_alarms"))
        return dataclasses.replace(first, hits=hits, false_alarms=alarms)

    def runs(self) -> list[Counts]:
        """The counts of each run alone."""
        return [
            dataclasses.replace(self, hits=self.hits[run : run + 1], false_alarms=self.false_alarms[run : run + 1])
            for run in range(len(self.hits))
        ]

    def totals(self, weights: Floats | None = None) -> Totals:
        """Sums over groups, or for each row of `weights` [draws, groups], how often each group was drawn.

        Returns:
            Totals of [runs, thresholds] or [draws, runs, thresholds].
        """
        drawn = np.ones((1, len(self.groups))) if weights is None else weights
        once = [
            (drawn @ counts)[:, np.newaxis, np.newaxis] for counts in (self.positives, self.negatives, self.seconds)
        ]
        each = [np.moveaxis(drawn @ counts, 0, 1) for counts in (self.hits, self.false_alarms)]
        every = [array[0] for array in (*once, *each)] if weights is None else [*once, *each]
        return Totals(*every)


@dataclass(frozen=True)
class Totals:
    """Counts over all groups.

    Attributes:
        positives, negatives, seconds: [..., 1, 1], as in Counts; after `at` [...].
        hits, false_alarms: [..., runs, thresholds]; after `at` [...].
    """

    positives: Floats
    negatives: Floats
    seconds: Floats
    hits: Floats
    false_alarms: Floats

    def at(self, threshold: NDArray[np.intp]) -> Totals:
        """The totals at one threshold for each run, by its index [..., runs]; all runs are pooled, as if one ran on."""
        runs = self.hits.shape[-2]
        once = [runs * counts[..., 0, 0] for counts in (self.positives, self.negatives, self.seconds)]
        index = np.broadcast_to(threshold, self.hits.shape[:-1])[..., np.newaxis]
        picked = [np.take_along_axis(counts, index, -1).sum(axis=(-2, -1)) for counts in (self.hits, self.false_alarms)]
        return Totals(*once, *picked)

    def miss_rates(self) -> Floats:
        """FRR: misses as a share of the keywords spoken."""
        return _ratio(self.positives - self.hits, self.positives)

    def alarm_rates(self) -> Floats:
        """False alarms as a share of the negative trials."""
        return _ratio(self.false_alarms, self.negatives)

    def alarms_per_hour(self) -> Floats:
        """False alarms an hour of audio."""
        return _ratio(3600.0 * self.false_alarms, self.seconds)

    def discovery_rates(self) -> Floats:
        """FDR: false alarms as a share of all detections; 0 where nothing is detected."""
        detections = self.false_alarms + self.hits
        return _ratio(self.false_alarms, np.maximum(detections, 1.0))


def _ratio(counts: Floats, of: Floats) -> Floats:
    """The quotient, which is no number where there is nothing to count."""
    with np.errstate(divide="ignore", invalid="ignore"):
        result: Floats = np.where(of > 0, np.divide(counts, of), np.nan)
    return result


def count_trials(
    logits: ArrayLike, labels: NDArray[np.int64], speakers: NDArray[np.str_], thresholds: Floats = THRESHOLDS
) -> Counts:
    """Counts the trials of clips.

    Args:
        logits: [clips, keywords + 1], or [runs, clips, keywords + 1] of several seeds.
        labels: [clips], the index of the keyword that was spoken.
        speakers: [clips], who speaks.
        thresholds: see Counts; of log posteriors.

    Raises:
        ValueError: a logit is not finite.
    """
    groups, group = np.unique(speakers, return_inverse=True)
    hits, false_alarms = [], []
    for run in stacked_runs(logits):
        positives, negatives = trials(run, labels)  # in the order of the clips
        others = len(negatives) // max(len(positives), 1)
        hits.append(_fired(positives, group, len(groups), thresholds))
        false_alarms.append(_fired(negatives, np.repeat(group, others), len(groups), thresholds))
    clips = np.bincount(group, minlength=len(groups)).astype(np.float64)
    silent = np.zeros(len(groups))
    return Counts(thresholds, groups, clips, np.stack(hits), np.stack(false_alarms), clips * others, silent)


def _fired(scores: Floats, group: NDArray[np.intp], groups: int, thresholds: Floats) -> Floats:
    """How many scores of each group are at least each threshold: [groups, thresholds]."""
    width = len(thresholds) + 1
    below = np.searchsorted(thresholds, scores, side="right")  # thresholds that a score reaches
    reached = np.bincount(group * width + below, minlength=groups * width).reshape(groups, width)
    fired: Floats = np.cumsum(reached[:, ::-1], axis=1)[:, ::-1][:, 1:].astype(np.float64)
    return fired


def lowest_threshold(rates: Floats, limit: ArrayLike) -> NDArray[np.intp]:
    """The index [..., runs] of the lowest threshold from which on the false-alarm `rates` do not exceed `limit`.

    Args:
        rates: [..., runs, thresholds], of `alarm_rates`, `alarms_per_hour` or `discovery_rates`.
        limit: one for all, or [...].
    """
    above = rates > np.asarray(limit)[..., np.newaxis, np.newaxis]
    behind = above.shape[-1] - np.argmax(above[..., ::-1], axis=-1)  # the last that exceeds, plus one
    return np.where(above.any(axis=-1), np.minimum(behind, above.shape[-1] - 1), 0)


def highest_threshold(miss_rates: Floats, limit: ArrayLike) -> NDArray[np.intp]:
    """The index [..., runs] of the highest threshold whose miss rate does not exceed `limit`; if none, of the lowest.

    Args:
        miss_rates: [..., runs, thresholds].
        limit: one for all, or [...].
    """
    met = miss_rates <= np.asarray(limit)[..., np.newaxis, np.newaxis]
    return np.where(met.any(axis=-1), met.shape[-1] - 1 - np.argmax(met[..., ::-1], axis=-1), 0)


def misses_at(found: Totals, alarms: ArrayLike, rate: Callable[[Totals], Floats] = Totals.alarm_rates) -> Floats:
    """FRR [...] where the false alarms do not exceed `alarms`, a share of trials or, by `rate`, a number an hour."""
    return found.at(lowest_threshold(rate(found), alarms)).miss_rates()


def miss_rate(logits: Floats, labels: NDArray[np.int64], false_alarms: float = 0.01) -> float:
    """Misses at the lowest threshold whose cross-keyword false-alarm rate does not exceed `false_alarms`.

    Args:
        logits: [clips, keywords + 1]; each score of theirs is a threshold.
        labels: [clips], the index of the keyword that was spoken.
        false_alarms: a rate, 0 to 1; below 10 / negative trials it rests on a handful of events.
    """
    thresholds = np.append(np.unique(np.concatenate(trials(logits, labels))), np.inf)
    counts = count_trials(logits, labels, np.zeros(len(labels), np.str_), thresholds)
    return float(misses_at(counts.totals(), false_alarms))


def discovery_at(found: Totals, misses: ArrayLike) -> Floats:
    """FDR [...] where the miss rate does not exceed `misses`."""
    return found.at(highest_threshold(found.miss_rates(), misses)).discovery_rates()


def relative_degradation(model: Totals, baseline: Totals, misses: ArrayLike) -> Floats:
    """How much more of its detections are false than the baseline's at the same miss rate [...], in percent.

    100 (FDR / FDR of the baseline - 1), the measure of the paper (arXiv 2207.06920, section 5). Each has the highest
    threshold that misses no more than `misses`.
    """
    return percent_above(discovery_at(model, misses), discovery_at(baseline, misses))


def percent_above(rate: Floats, baseline: Floats) -> Floats:
    """100 (rate / baseline - 1). A baseline of zero makes it infinite, and both zero, no difference, make it zero."""
    with np.errstate(divide="ignore", invalid="ignore"):
        result: Floats = np.where(
            baseline > 0, 100.0 * (np.divide(rate, baseline) - 1.0), np.where(rate > 0, np.inf, 0.0)
        )
    return result


def det_area(found: Totals, alarms: tuple[float, float] = (0.003, 0.1)) -> Floats:
    """The area under the detection error tradeoff on normal-deviate axes [...], the mean over runs; lower is better.

    The axes are those of Martin et al., "The DET curve in assessment of detection task performance" (Eurospeech 1997);
    the integral is ours: of probit(miss rate) over probit(false-alarm rate), from the first to the second of `alarms`.
    The miss rate at a false-alarm rate is that of the lowest threshold which does not exceed it. It is kept half a
    keyword from 0 and from 1, where its probit would be infinite. 50 % misses throughout have the area 0.

    Args:
        found: totals of trials.
        alarms: false-alarm rates between which the area lies.
    """
    from scipy.special import ndtri

    half = 0.5 / found.positives
    misses = ndtri(np.clip(found.miss_rates(), half, 1.0 - half))
    falling = ndtri(
        np.clip(found.alarm_rates(), *alarms)
    )  # a threshold's own false alarms, and those of the one before
    before = np.concatenate([np.broadcast_to(ndtri(alarms[1]), (*falling.shape[:-1], 1)), falling[..., :-1]], axis=-1)
    area: Floats = (misses * (before - falling)).sum(axis=-1).mean(axis=-1)
    return area

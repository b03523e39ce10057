"""The metrics against scikit-learn and cases worked by hand."""

from __future__ import annotations

import functools

import numpy as np
import pytest
import scipy.special
from sklearn import metrics as sklearn_metrics
from subbyte.keyword_spotting import metrics

RNG = np.random.default_rng(0)


def example(clips: int = 400, keywords: int = 6, better: float = 2.0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Logits [clips, keywords + 1], labels and speakers of a fair model."""
    labels = RNG.integers(0, keywords, clips)
    logits = RNG.standard_normal((clips, keywords + 1))
    logits[np.arange(clips), labels] += better
    return logits, labels, np.array([f"s{index % 23}" for index in range(clips)])


def test_log_posteriors_are_scipys_log_softmax() -> None:
    logits = RNG.standard_normal((50, 7)) * 300.0
    np.testing.assert_allclose(metrics.log_posteriors(logits), scipy.special.log_softmax(logits, axis=1), atol=1e-9)


def test_keyword_accuracy_is_sklearns_and_counts_other_as_wrong() -> None:
    logits, labels, _ = example()
    expected = sklearn_metrics.accuracy_score(labels, logits.argmax(axis=1))
    assert metrics.keyword_accuracy(logits, labels) == pytest.approx(expected)
    logits[:, -1] = 99.0
    assert metrics.keyword_accuracy(logits, labels) == 0.0


def test_trials_by_hand() -> None:
    """Two keywords and other; clip 0 says keyword 1, clip 1 says keyword 0."""
    scores = np.log([[0.1, 0.7, 0.2], [0.6, 0.3, 0.1]])
    positives, negatives = metrics.trials(scores, np.array([1, 0]))
    np.testing.assert_allclose(np.exp(positives), [0.7, 0.6])
    np.testing.assert_allclose(np.exp(negatives), [0.1, 0.3])


def test_615_clips_of_six_keywords_make_615_and_3075_trials() -> None:
    positives, negatives = metrics.trials(*example(615)[:2])
    assert (len(positives), len(negatives)) == (615, 3075)


def test_tradeoff_is_sklearns_det_curve() -> None:
    logits, labels, _ = example(better=1.0)
    positives, negatives = metrics.trials(np.round(logits), labels)  # rounded: many ties
    positives, negatives = np.round(positives, 1), np.round(negatives, 1)
    alarms, misses, thresholds = metrics.detection_error_tradeoff(positives, negatives)
    truth = np.repeat([1, 0], [len(positives), len(negatives)])
    expected = sklearn_metrics.det_curve(truth, np.concatenate([positives, negatives]), drop_intermediate=False)
    for alarm, miss, threshold in zip(*expected, strict=True):
        at = np.flatnonzero(thresholds == threshold)[0]
        assert (alarms[at], misses[at]) == pytest.approx((alarm, miss))


def test_misses_by_hand() -> None:
    """100 negatives 0..99; 1 % allows one alarm, so the threshold is 99, and a tie there would be an alarm."""
    negatives = np.arange(100.0)
    positives = np.array([98.5, 99.0, 99.5, 120.0])
    alarms, misses, thresholds = metrics.detection_error_tradeoff(positives, negatives)
    at = np.argmax(alarms <= 0.01 + 1e-12)
    assert (thresholds[at], misses[at]) == (98.5, 0.0)  # 98.5 alarms at 99 alone
    at = np.argmax(alarms <= 0.0)
    assert (thresholds[at], misses[at]) == (99.5, 0.5)


def test_miss_rate_of_extremes() -> None:
    _, labels, _ = example()
    perfect = 50.0 * np.eye(7)[labels]
    assert metrics.miss_rate(perfect, labels) == 0.0
    assert metrics.miss_rate(-perfect, labels) == 1.0
    assert metrics.miss_rate(np.zeros_like(perfect), labels) == 1.0  # one score for all: nothing may fire


def test_a_lower_false_alarm_rate_never_misses_less() -> None:
    logits, labels, _ = example()
    rates = [metrics.miss_rate(logits, labels, rate) for rate in (0.1, 0.01, 0.003, 0.0)]
    assert rates == sorted(rates)


def test_bootstrap_interval_is_that_of_a_mean_over_equal_speakers() -> None:
    """Speakers of 40 clips, all right or all wrong: the binomial interval of 50 speakers, not of 2000 clips."""
    right = np.arange(50) < 35
    logits = np.repeat(np.where(right[:, np.newaxis], [5.0, 0.0, 0.0], [0.0, 5.0, 0.0]), 40, axis=0)
    speakers = np.repeat([f"s{index}" for index in range(50)], 40)
    interval = metrics.bootstrap(metrics.keyword_accuracy, logits, np.zeros(2000, int), speakers)
    assert interval.value == pytest.approx(0.7)
    half = 1.96 * np.sqrt(0.7 * 0.3 / 50)
    assert interval.low == pytest.approx(0.7 - half, abs=0.02)
    assert interval.high == pytest.approx(0.7 + half, abs=0.02)


def test_a_paired_difference_to_itself_is_zero_and_paired_beats_unpaired() -> None:
    logits, labels, speakers = example()
    paired = functools.partial(metrics.bootstrap, metrics.keyword_accuracy, labels=labels, speakers=speakers, draws=200)
    none = paired(logits=logits, against=logits)
    assert (none.value, none.low, none.high) == (0.0, 0.0, 0.0)
    worse = logits.copy()
    worse[:20, -1] = 99.0
    difference, alone = paired(logits=logits, against=worse), paired(logits=logits)
    assert 0.0 < difference.value <= 0.05
    assert difference.high - difference.low < alone.high - alone.low


def test_runs_are_averaged() -> None:
    logits, labels, speakers = example()
    other = example()[0]
    runs = metrics.bootstrap(metrics.keyword_accuracy, np.stack([logits, other]), labels, speakers, draws=10)
    values = [metrics.keyword_accuracy(run, labels) for run in (logits, other)]
    assert runs.value == pytest.approx(np.mean(values))


def test_scores_that_are_no_numbers_are_refused() -> None:
    with pytest.raises(ValueError, match="not finite"):
        metrics.miss_rate(np.full((3, 7), np.nan), np.zeros(3, int))


def test_the_moving_average_is_the_mean_of_the_posteriors() -> None:
    logits = np.log([[[0.5, 0.5], [0.9, 0.1]], [[0.2, 0.8], [0.2, 0.8]]]) + 3.0  # [clips, windows, classes]
    np.testing.assert_allclose(np.exp(metrics.moving_average(logits)), [[0.7, 0.3], [0.2, 0.8]], atol=1e-9)

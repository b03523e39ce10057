"""The metrics against scikit-learn and cases worked by hand."""

from __future__ import annotations

import dataclasses
import functools
import time

import numpy as np
import pytest
import scipy.special
import scipy.stats
from sklearn import metrics as sklearn_metrics

from subbyte.keyword_spotting import intervals, metrics

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


def test_misses_by_hand() -> None:
    """100 negatives 0..99; 1 % allows one alarm, so the threshold is 99, and a tie there would be an alarm."""
    negatives, positives = np.arange(100.0), np.array([98.5, 99.0, 99.5, 120.0])
    thresholds = np.append(np.unique(np.append(negatives, positives)), np.inf)
    hits, alarms = ([[(scores >= level).sum() for level in thresholds]] for scores in (positives, negatives))
    counts = dataclasses.replace(by_hand(hits, alarms, [4], [100]), thresholds=thresholds)
    for rate, threshold, misses in ((0.01, 98.5, 0.0), (0.0, 99.5, 0.5)):  # 98.5 alarms at 99 alone
        assert thresholds[metrics.lowest_threshold(counts.totals().alarm_rates(), rate)] == threshold
        assert metrics.misses_at(counts.totals(), rate) == misses


def test_a_rate_of_exactly_the_limit_does_not_exceed_it() -> None:
    """100 negative trials, of which one scores above its own keyword: 1 %."""
    logits = np.log([[0.8, 0.1, 0.1]] * 99 + [[0.3, 0.6, 0.1]])  # the last clip is taken for the other keyword
    assert metrics.miss_rate(logits, np.zeros(100, int), 0.01) == 0.0


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
    interval = intervals.bootstrap(metrics.keyword_accuracy, logits, np.zeros(2000, int), speakers)
    assert interval.value == pytest.approx(0.7)
    half = 1.96 * np.sqrt(0.7 * 0.3 / 50)
    assert interval.low == pytest.approx(0.7 - half, abs=0.02)
    assert interval.high == pytest.approx(0.7 + half, abs=0.02)


def test_a_paired_difference_to_itself_is_zero_and_paired_beats_unpaired() -> None:
    logits, labels, speakers = example()
    measured = {"labels": labels, "speakers": speakers, "draws": 200}
    paired = functools.partial(intervals.bootstrap, metrics.keyword_accuracy, **measured)
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
    runs = intervals.bootstrap(metrics.keyword_accuracy, np.stack([logits, other]), labels, speakers, draws=10)
    values = [metrics.keyword_accuracy(run, labels) for run in (logits, other)]
    assert runs.value == pytest.approx(np.mean(values))


def test_the_draws_stay_those_of_the_documented_figures() -> None:
    """Tables in the docs hang on the seed and the order of the draws: other ones move their last digits."""
    rng = np.random.default_rng(7)
    labels, logits = rng.integers(0, 6, 300), rng.standard_normal((2, 300, 7))
    logits[:, np.arange(300), labels] += 3
    speakers = np.array([f"s{rng.integers(0, 17)}" for _ in range(300)])
    misses = functools.partial(metrics.miss_rate, false_alarms=0.01)
    found = [intervals.bootstrap(metric, logits, labels, speakers) for metric in (metrics.keyword_accuracy, misses)]
    found += intervals.det_curve(metrics.count_trials(logits, labels, speakers), (0.01,))
    expected = [(0.93167, 0.91194, 0.94937), (0.1, 0.05881, 0.15073), (0.1, 0.06115, 0.15577)]
    assert [(each.value, each.low, each.high) for each in found] == [pytest.approx(row, abs=1e-5) for row in expected]


def test_scores_that_are_no_numbers_are_refused() -> None:
    with pytest.raises(ValueError, match="not finite"):
        metrics.miss_rate(np.full((3, 7), np.nan), np.zeros(3, int))


def test_the_moving_average_is_the_mean_of_the_posteriors() -> None:
    logits = np.log([[[0.5, 0.5], [0.9, 0.1]], [[0.2, 0.8], [0.2, 0.8]]]) + 3.0  # [clips, windows, classes]
    np.testing.assert_allclose(np.exp(metrics.moving_average(logits)), [[0.7, 0.3], [0.2, 0.8]], atol=1e-9)


# Counts by group


def every_threshold(logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
    return np.append(np.unique(np.concatenate(metrics.trials(logits, labels))), np.inf)


def by_hand(hits: list, false_alarms: list, positives: list, negatives: list) -> metrics.Counts:
    """Counts of one run from lists [groups][thresholds]; the thresholds are 0, 1, ... and infinity."""
    count = len(hits[0])
    return metrics.Counts(
        np.append(np.arange(count - 1.0), np.inf),
        np.array([f"g{index}" for index in range(len(hits))]),
        np.array(positives, float),
        np.array([hits], float),
        np.array([false_alarms], float),
        np.array(negatives, float),
        np.zeros(len(hits)),
    )


# Two speakers of 10 keywords and 50 negative trials each.
SMALL = by_hand(
    hits=[[10, 9, 8, 0], [10, 10, 5, 0]],
    false_alarms=[[40, 3, 0, 0], [30, 2, 1, 0]],
    positives=[10, 10],
    negatives=[50, 50],
)


def test_rates_by_hand() -> None:
    totals = SMALL.totals()
    np.testing.assert_allclose(totals.miss_rates(), [[0.0, 0.05, 0.35, 1.0]])
    np.testing.assert_allclose(totals.alarm_rates(), [[0.7, 0.05, 0.01, 0.0]])
    np.testing.assert_allclose(totals.discovery_rates(), [[70 / 90, 5 / 24, 1 / 14, 0.0]])
    assert np.isnan(totals.alarms_per_hour()).all()  # clips have no hours
    hours = dataclasses.replace(SMALL, seconds=np.array([1800.0, 5400.0])).totals()
    np.testing.assert_allclose(hours.alarms_per_hour(), [[35.0, 2.5, 0.5, 0.0]])


@pytest.mark.parametrize(("limit", "index"), [(1.0, 0), (0.7, 0), (0.69, 1), (0.05, 1), (0.01, 2), (0.0, 3)])
def test_the_lowest_threshold_does_not_exceed_a_false_alarm_rate(limit: float, index: int) -> None:
    assert metrics.lowest_threshold(SMALL.totals().alarm_rates(), limit).tolist() == [index]


@pytest.mark.parametrize(("limit", "index"), [(0.0, 0), (0.049, 0), (0.05, 1), (0.3, 1), (0.35, 2), (1.0, 3)])
def test_the_highest_threshold_does_not_exceed_a_miss_rate(limit: float, index: int) -> None:
    assert metrics.highest_threshold(SMALL.totals().miss_rates(), limit).tolist() == [index]


def test_rates_that_rise_again_are_kept_below_the_limit_from_the_threshold_on() -> None:
    """In a stream a higher threshold may give more: a lock-out begins later. By hand: the rate is 0.2 again at 3."""
    rates = np.array([[0.9, 0.1, 0.05, 0.2, 0.1, 0.0]])
    assert metrics.lowest_threshold(rates, 0.1).tolist() == [4]
    assert metrics.highest_threshold(np.array([[0.3, 0.1, 0.2, 0.1, 1.0]]), 0.15).tolist() == [3]
    assert metrics.highest_threshold(np.array([[0.3, 0.4, 1.0]]), 0.2).tolist() == [0]  # never met: the lowest


@pytest.mark.parametrize("ties", [False, True])
def test_counts_are_sklearns_det_curve_and_recounted_group_by_group(ties: bool) -> None:
    logits, labels, speakers = example(better=1.5)
    if ties:
        logits = np.round(0.7 * logits)
    thresholds = every_threshold(logits, labels)
    assert (len(thresholds) < 400) == ties  # of 2400 scores
    counts = metrics.count_trials(logits, labels, speakers, thresholds)
    positives, negatives = metrics.trials(logits, labels)
    truth = np.repeat([1, 0], [len(positives), len(negatives)])
    expected = sklearn_metrics.det_curve(truth, np.concatenate([positives, negatives]), drop_intermediate=False)
    totals = counts.totals()
    for alarm, miss, threshold in zip(*expected, strict=True):
        at = np.flatnonzero(thresholds == threshold)[0]
        assert (totals.alarm_rates()[0, at], totals.miss_rates()[0, at]) == pytest.approx((alarm, miss))
    for index, group in enumerate(counts.groups):
        own = speakers == group
        positives, negatives = metrics.trials(logits[own], labels[own])
        assert (counts.positives[index], counts.negatives[index]) == (len(positives), len(negatives))
        for at in range(0, len(thresholds), 200):
            assert counts.hits[0, index, at] == (positives >= thresholds[at]).sum()
            assert counts.false_alarms[0, index, at] == (negatives >= thresholds[at]).sum()


def test_misses_at_an_alarm_rate_are_those_of_the_trials() -> None:
    logits, labels, speakers = example()
    positives, negatives = metrics.trials(logits, labels)
    counts = metrics.count_trials(logits, labels, speakers, every_threshold(logits, labels))
    for rate in (0.1, 0.01, 0.003, 0.0):
        heard = positives > np.sort(negatives)[-1 - int(rate * len(negatives) + 1e-9)]  # no two scores are the same
        assert metrics.misses_at(counts.totals(), rate) == pytest.approx(1 - heard.mean())
        assert metrics.miss_rate(logits, labels, rate) == pytest.approx(1 - heard.mean())


def test_the_default_thresholds_cost_no_more_than_their_step() -> None:
    """The misses they give lie between those of scores that are moved by a step of 0.05 in log odds either way."""
    logits, labels, speakers = example()
    found = float(metrics.misses_at(metrics.count_trials(logits, labels, speakers).totals(), 0.01))
    positives, negatives = metrics.trials(logits, labels)
    odds = [scipy.special.logit(np.exp(scores)) for scores in (positives, negatives)]
    truth, scores = np.repeat([1, 0], [len(labels), 5 * len(labels)]), np.append(odds[0] - 0.05, odds[1])
    alarms, misses, _ = sklearn_metrics.det_curve(truth, scores, drop_intermediate=False)
    assert metrics.miss_rate(logits, labels, 0.01) <= found <= misses[np.argmax(alarms <= 0.01)]


def test_runs_have_their_own_thresholds_and_their_counts_are_pooled() -> None:
    """The second run is the first with thresholds one further: chosen for each, both do the same."""
    shifted = by_hand([[10, 10, 9, 0], [10, 10, 10, 0]], [[50, 40, 3, 0], [50, 30, 2, 0]], [10, 10], [50, 50])
    both = metrics.Counts.stack([SMALL, shifted])
    chosen = metrics.lowest_threshold(both.totals().alarm_rates(), 0.05)
    assert chosen.tolist() == [1, 2]
    found = both.totals().at(chosen)
    assert (found.hits, found.positives, found.false_alarms, found.negatives) == (38, 40, 10, 200)
    uneven = both.totals().at(np.array([1, 3]))  # the second never fires: no mean of 5/24 and nothing, but 5 of 24
    assert uneven.discovery_rates() == pytest.approx(5 / 24)
    assert [run.totals().hits[0, 1] for run in both.runs()] == [19, 20]
    with pytest.raises(ValueError, match="same material, but their positives differ"):
        metrics.Counts.stack([SMALL, dataclasses.replace(shifted, positives=np.array([10.0, 11.0]))])


def test_relative_degradation_by_hand() -> None:
    """At 5 % misses the baseline finds 19 and 1 false, the model 19 and 5: 5/24 against 1/20."""
    baseline = by_hand([[10, 9, 0], [10, 10, 0]], [[9, 1, 0], [9, 0, 0]], [10, 10], [50, 50]).totals()
    model = SMALL.totals()
    assert metrics.discovery_at(model, 0.05) == pytest.approx(5 / 24)
    assert metrics.relative_degradation(model, baseline, 0.05) == pytest.approx(100 * (5 / 24 * 20 - 1))
    assert metrics.relative_degradation(baseline, baseline, 0.05) == 0.0
    assert metrics.relative_degradation(baseline, model, 0.05) == pytest.approx(100 * (24 / 5 / 20 - 1))


def test_a_baseline_without_false_alarms_is_not_hidden() -> None:
    clean = by_hand([[10, 9, 0]], [[9, 0, 0]], [10], [50])
    noisy = by_hand([[10, 9, 0]], [[9, 2, 0]], [10], [50])
    assert metrics.relative_degradation(noisy.totals(), clean.totals(), 0.1) == np.inf
    assert metrics.relative_degradation(clean.totals(), clean.totals(), 0.1) == 0.0
    assert metrics.relative_degradation(clean.totals(), noisy.totals(), 0.1) == -100.0
    found = intervals.interval(lambda a, b: metrics.relative_degradation(a, b, 0.1), noisy, clean, draws=20)
    assert (found.low, found.high) == (np.inf, np.inf)


def test_the_area_is_that_of_two_gaussians() -> None:
    """Scores of unit variance, d apart, have probit(misses) = -probit(alarms) - d: the area is integrated by hand.

    200,000 scores of each kind leave a deviation of about 0.01 in the probit at 0.3 % alarms, on a width of 1.5.
    """
    rng, d, alarms = np.random.default_rng(1), 3.0, (0.003, 0.1)
    positives, negatives = rng.standard_normal(200_000) + d, rng.standard_normal(200_000)
    thresholds = np.append(np.linspace(-6.0, 9.0, 5000), np.inf)
    hits, false_alarms = ([[(scores >= level).sum() for level in thresholds]] for scores in (positives, negatives))
    counts = by_hand(hits, false_alarms, [200_000], [200_000])
    first, last = scipy.stats.norm.ppf(alarms)
    expected = -(last**2 - first**2) / 2 - d * (last - first)
    assert float(metrics.det_area(counts.totals(), alarms)) == pytest.approx(expected, abs=0.02)


def test_the_area_by_hand_and_of_extremes() -> None:
    """Alarms 70, 5, 1 and 0 %; from 0.3 to 10 % the misses are 100 % below 1 %, 35 % below 5 %, then 5 %."""
    probit = scipy.stats.norm.ppf
    expected = (
        probit(1 - 0.5 / 20) * (probit(0.01) - probit(0.003))
        + probit(0.35) * (probit(0.05) - probit(0.01))
        + probit(0.05) * (probit(0.1) - probit(0.05))
    )
    assert float(metrics.det_area(SMALL.totals())) == pytest.approx(expected)
    width = probit(0.1) - probit(0.003)
    perfect = by_hand([[10, 10, 0]], [[50, 0, 0]], [10], [50])
    assert float(metrics.det_area(perfect.totals())) == pytest.approx(probit(0.5 / 10) * width)
    both = metrics.Counts.stack([SMALL, SMALL])
    assert float(metrics.det_area(both.totals())) == pytest.approx(expected)


# Intervals from counts


def test_an_interval_from_counts_is_that_of_drawing_clips() -> None:
    """The older bootstrap draws the clips of speakers one by one; 4000 draws leave its bounds 2 % of the width."""
    logits, labels, speakers = example(better=1.5)
    counts = metrics.count_trials(logits, labels, speakers, every_threshold(logits, labels))
    found = intervals.interval(lambda totals: metrics.misses_at(totals, 0.01), counts, draws=4000)
    metric = functools.partial(metrics.miss_rate, false_alarms=0.01)
    expected = intervals.bootstrap(metric, logits, labels, speakers, draws=4000)
    assert found.value == expected.value
    near = 0.1 * (expected.high - expected.low)
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high), abs=near)


def test_a_fixed_threshold_gives_the_binomial_interval_of_groups() -> None:
    """50 speakers of 40 keywords, heard all or never: the interval of 50 throws, not of 2000."""
    heard = np.where(np.arange(50) < 35, 40, 0)
    counts = by_hand([[40, each, 0] for each in heard], [[9, 0, 0]] * 50, [40] * 50, [200] * 50)
    fixed = np.array([1])
    found = intervals.interval(lambda totals: totals.at(fixed).miss_rates(), counts)
    half = 1.96 * np.sqrt(0.7 * 0.3 / 50)
    assert found.value == pytest.approx(0.3)
    assert (found.low, found.high) == pytest.approx((0.3 - half, 0.3 + half), abs=0.03)
    anew = intervals.interval(lambda totals: metrics.misses_at(totals, 1.0), counts)
    assert (anew.value, anew.high) == (0.0, 0.0)  # each draw may fire always


def test_paired_counts_share_their_draws() -> None:
    logits, labels, speakers = example()
    first = metrics.count_trials(logits, labels, speakers)
    none = intervals.interval(lambda a, b: metrics.misses_at(a, 0.01) - metrics.misses_at(b, 0.01), first, first)
    assert (none.value, none.low, none.high) == (0.0, 0.0, 0.0)
    other = metrics.count_trials(logits, labels, np.roll(speakers, 1))
    intervals.interval(lambda a, b: a.at(0).miss_rates() - b.at(0).miss_rates(), first, other, draws=2)
    fewer = metrics.count_trials(logits[1:], labels[1:], np.array(["t"] * 399))
    with pytest.raises(ValueError, match="same groups"):
        intervals.interval(lambda a, b: a.at(0).miss_rates(), first, fewer)


def test_groups_without_keywords_are_drawn_apart() -> None:
    """Two speakers and three noises: every draw has keywords, and as many noises."""
    counts = by_hand([[2, 0], [2, 0], [0, 0], [0, 0], [0, 0]], [[0, 0]] * 5, [2, 2, 0, 0, 0], [0] * 5)
    counts = dataclasses.replace(counts, seconds=np.array([1.0, 1.0, 100.0, 100.0, 100.0]))
    for read, value in ((lambda totals: totals.seconds[:, 0, 0], 302.0), (lambda t: t.positives[:, 0, 0], 4.0)):
        found = intervals.interval(read, counts)
        assert (found.value, found.low, found.high) == (value, value, value)
    alarms = dataclasses.replace(counts, false_alarms=np.array([[[0, 0], [0, 0], [0, 0], [0, 0], [3.0, 0]]]))
    found = intervals.interval(lambda totals: totals.at(0).false_alarms, alarms)
    assert (found.value, found.low, found.high) == (3.0, 0.0, 9.0)  # the third noise is drawn 0 to 3 times


def test_curves_are_their_points() -> None:
    logits, labels, speakers = example(better=1.5)
    counts = metrics.count_trials(np.stack([logits, logits]), labels, speakers)
    for found, alarms in zip(intervals.det_curve(counts, (0.1, 0.01)), (0.1, 0.01), strict=True):
        assert found.value == metrics.misses_at(counts.totals(), alarms)
        assert found.low <= found.value <= found.high
    for found, misses in zip(intervals.discovery_curve(counts, (0.05, 0.2)), (0.05, 0.2), strict=True):
        assert found.value == metrics.discovery_at(counts.totals(), misses)


def test_a_thousand_draws_take_well_under_a_second() -> None:
    """36 speakers, five seeds, all thresholds; the bound leaves room for a busy machine."""
    logits, labels, _ = example(615)
    speakers = np.array([f"s{index % 36}" for index in range(615)])
    counts = metrics.count_trials(np.stack([logits] * 5), labels, speakers)
    begin = time.perf_counter()
    intervals.interval(lambda a, b: metrics.relative_degradation(a, b, 0.05), counts, counts)
    assert time.perf_counter() - begin < 5.0


def test_counts_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match="rise and end with infinity"):
        dataclasses.replace(SMALL, thresholds=np.arange(4.0))
    with pytest.raises(ValueError, match=r"must be \[runs, 2, 4\]"):
        dataclasses.replace(SMALL, hits=np.zeros((1, 2, 3)))
    with pytest.raises(ValueError, match="have the 2 groups"):
        dataclasses.replace(SMALL, seconds=np.zeros(3))
    with pytest.raises(ValueError, match="not finite"):
        metrics.count_trials(np.full((3, 7), np.nan), np.zeros(3, int), np.array(["a", "b", "c"]))

"""Metrics against independent definitions."""

from itertools import pairwise

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import f1_score, roc_auc_score

from anomaly_nb.core import DataError
from anomaly_nb.metrics import (
    average_precision,
    best_delay_f1,
    best_f1,
    bootstrap_ci,
    bootstrap_mean,
    delay_f1,
    pauc,
    regular_grid,
    roc_auc,
    tail_threshold,
    vus_pr,
)

cases = st.integers(10, 60).flatmap(
    lambda n: st.tuples(
        st.lists(st.integers(0, 1), min_size=n, max_size=n).filter(lambda y: 0 < sum(y) < len(y)),
        st.lists(st.integers(0, 9), min_size=n, max_size=n),
    )
)


def by_the_rule(labels, predictions, delay):
    "The KDD'19 rule, point by point."
    adjusted, i = list(predictions), 0
    while i < len(labels):
        if labels[i]:
            end = i
            while end < len(labels) and labels[end]:
                end += 1
            adjusted[i:end] = [int(any(predictions[i : min(end, i + delay + 1)]))] * (end - i)
            i = end
        else:
            i += 1
    return f1_score(labels, adjusted, zero_division=0)


@settings(max_examples=100, deadline=None)
@given(cases, st.integers(0, 8))
def test_delay_f1_is_the_rule(case, delay):
    labels, scores = case
    for threshold in range(10):
        predictions = [int(score >= threshold) for score in scores]
        assert delay_f1(labels, predictions, delay)[0] == pytest.approx(by_the_rule(labels, predictions, delay))
    best, threshold = best_delay_f1(labels, scores, delay)
    assert best == pytest.approx(max(by_the_rule(labels, [int(s >= t) for s in scores], delay) for t in range(10)))
    assert by_the_rule(labels, [int(s >= threshold) for s in scores], delay) == pytest.approx(best)


@settings(max_examples=50, deadline=None)
@given(cases)
def test_rankings_are_scikit_learns(case):
    labels, scores = case
    assert roc_auc(labels, scores) == pytest.approx(roc_auc_score(labels, scores), abs=1e-12)
    assert pauc(labels, scores, 0.1) == pytest.approx(roc_auc_score(labels, scores, max_fpr=0.1), abs=1e-12)
    f1, threshold = best_f1(labels, scores)
    assert f1 == pytest.approx(f1_score(labels, np.array(scores) >= threshold), abs=1e-12)
    order = np.random.default_rng(0).permutation(len(labels))
    again = average_precision(np.array(labels)[order], np.array(scores)[order])
    assert average_precision(labels, scores) == pytest.approx(again, abs=1e-12)


def slow_vus_pr(labels, score, window, thresholds=250):
    "VUS-PR by its definition: a curve of thresholds for each width of the soft borders."
    n = len(labels)
    starts = [i for i in range(n) if labels[i] and (i == 0 or not labels[i - 1])]
    ranges = [(i, next((j for j in range(i, n) if not labels[j]), n) - 1) for i in starts]
    levels = np.sort(score)[::-1][np.linspace(0, n - 1, thresholds).astype(int)]
    areas = []
    for width in range(window + 1):
        soft = np.array(labels, float)
        for a, b in ranges:
            for i in range(max(0, a - width // 2), a):
                soft[i] += np.sqrt(1 - (a - i) / width)
            for i in range(b + 1, min(n, b + width // 2 + 1)):
                soft[i] += np.sqrt(1 - (i - b) / width)
        soft = np.where(np.array(labels) == 1, 1, np.minimum(soft, 1))
        half, groups = width // 2, [[ranges[0]]]
        for one, other in pairwise(ranges):
            if one[1] + half >= other[0] - half:
                groups[-1].append(other)
            else:
                groups.append([other])
        wide = [(max(0, group[0][0] - half), min(n - 1, group[-1][1] + half)) for group in groups]
        area, before = 0.0, 0.0
        for level in levels:
            predicted = score >= level
            hits = (soft * predicted).sum()
            positives = (sum(labels) + (np.where(np.array(labels) == 1, 1, soft * predicted)).sum()) / 2
            found = np.mean([predicted[a : b + 1].any() for a, b in wide])
            recall = min(hits / positives, 1) * found
            area, before = area + (recall - before) * hits / predicted.sum(), recall
        areas.append(area)
    return np.mean(areas)


def test_vus_pr_is_its_definition():
    random = np.random.default_rng(0)
    labels = np.zeros(300, int)
    labels[50:60] = labels[66:70] = labels[200:203] = labels[299] = 1
    for score in (random.random(300), random.random(300) + labels, labels.astype(float)):
        assert vus_pr(labels, score, 12) == pytest.approx(slow_vus_pr(labels.tolist(), score, 12), abs=1e-12)


def test_intervals_cover_and_repeat():
    random = np.random.default_rng(0)
    labels = np.repeat([0, 1], [300, 30])
    scores = random.normal(size=330) + labels
    low, high = bootstrap_ci(roc_auc, labels, scores, n=200)
    assert low < roc_auc(labels, scores) < high
    assert (low, high) == bootstrap_ci(roc_auc, labels, scores, n=200)
    covered = [lo <= 0 <= hi for _, lo, hi in (bootstrap_mean(random.normal(size=40), n=400) for _ in range(200))]
    assert 0.88 <= np.mean(covered) <= 0.99


def test_tail_threshold_keeps_its_promise_and_ignores_anomalies():
    scores = np.random.default_rng(0).exponential(size=100_000)
    assert np.mean(scores > tail_threshold(scores, 1e-3)) == pytest.approx(1e-3, rel=0.3)
    mixed = np.concatenate([scores, np.full(1000, 1e6)])
    assert tail_threshold(mixed) < 1.2 * tail_threshold(scores)


@pytest.mark.parametrize(
    "labels, scores, message",
    [
        ([1, 1], [0, 1], "needs both classes"),
        ([0, 1], [0, np.nan], "index 1"),
        ([0, 1, 2], [0, 1, 2], "expected 0 and 1"),
        ([0, 1], [0], "do not belong"),
    ],
)
def test_bad_labels_are_sentences(labels, scores, message):
    for metric in (roc_auc, average_precision, best_f1, lambda y, s: vus_pr(y, s, 3)):
        with pytest.raises(DataError, match=message):
            metric(labels, scores)


@pytest.mark.parametrize(
    "stamps, slots",
    [
        ([0, 1.5, 2.5], [0, 1, 2]),
        ([2.5, 0, 1.5], [2, 0, 1]),
        ([0, 90, 150, 210], [0, 2, 3, 4]),
        (pd.to_datetime(["2020-01-03", "2020-01-01", "2020-01-02"]).tz_localize("Europe/Berlin"), [2, 0, 1]),
        ([pd.Timestamp("2020-01-01", tz="UTC"), pd.Timestamp("2020-01-02", tz="UTC")], [0, 1]),
        ([1_577_836_800_000_000_000, 1_577_836_800_000_000_001, 1_577_836_800_000_000_005], [0, 1, 5]),
    ],
)
def test_each_point_has_a_slot_of_its_own(stamps, slots):
    assert regular_grid(stamps).tolist() == slots


def test_uneven_times_lose_no_label():
    assert delay_f1([0, 1, 0], [0, 1, 1], 0, [0, 1.5, 2.5]) == pytest.approx((2 / 3, 1 / 2, 1))


def test_a_clock_that_jitters_tears_no_holes():
    random = np.random.default_rng(0)
    times = 60 * np.arange(300) + random.integers(-1, 2, 300)
    labels, alarms = np.zeros((2, 300))
    labels[100:200] = alarms[100] = 1
    assert regular_grid(times).tolist() == list(range(300))
    assert delay_f1(labels, alarms, 7, times) == (1, 1, 1)


@pytest.mark.parametrize(
    "stamps, message",
    [
        (pd.to_datetime(["2020-01-01", None, "2020-01-02"]), "NaT"),
        ([pd.NaT, pd.Timestamp("2020-01-01", tz="UTC")], "NaT"),
        ([], "too few"),
        (["a", "b"], "not all entries are numbers"),
        ([0, 0.3, 0.1 + 0.2, 5], "they spread over"),
    ],
)
def test_times_that_are_none(stamps, message):
    with pytest.raises(DataError, match=message):
        regular_grid(stamps)


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: vus_pr([0, 1], [0, 1], -1), "window is -1"),
        (lambda: vus_pr([0, 1], [0, 1], 1, 0), "thresholds is 0"),
        (lambda: tail_threshold([1, 2, 3], np.nan), "rate is nan"),
        (lambda: tail_threshold([1, 2, 3], 0), "rate is 0"),
        (lambda: tail_threshold([1, 2, 3], body=0.1, tail=0.1), "must be the larger one"),
        (lambda: bootstrap_ci(roc_auc, [0, 1], [0, 1], n=0), "n is 0"),
        (lambda: bootstrap_mean([1, 2], n=0), "n is 0"),
        (lambda: pauc([0, 1], [0, 1], 0), "max_fpr is 0"),
        (lambda: delay_f1([0, 1], [0, 1], -1), "delay is -1"),
        (lambda: delay_f1([0, 1], [0, 1], 1, [0]), "do not belong"),
    ],
)
def test_absurd_settings_are_sentences(call, message):
    with pytest.raises(DataError, match=message):
        call()


@pytest.mark.parametrize("alarms", [[1, 1, -1, -1, 1, 1, 1, 1], [0.1, 0.1, 0.9, 0.9, 0.1, 0.1, 0.1, 0.1]])
def test_alarms_are_zeros_and_ones(alarms: list[float]) -> None:
    labels = [0, 0, 1, 1, 0, 0, 0, 0]
    with pytest.raises(DataError, match="is no alarm"):
        delay_f1(labels, alarms, 1)
    assert delay_f1(labels, np.array(labels, bool), 1)[0] == 1

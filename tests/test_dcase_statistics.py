"""Statistics of spectrograms against NumPy, SciPy and scikit-learn."""

import itertools
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import mannwhitneyu
from sklearn.metrics import roc_auc_score

from anomaly_nb.audio import HTK
from anomaly_nb.core import DataError
from anomaly_nb.dcase import Moments, bin_auc, compare, permutation_test, render_clip, significant, time_locked
from anomaly_nb.dcase.alignment import Cycle, Events, Intervals, Unaligned, cycle_period, folded
from anomaly_nb.dcase.statistics import BinHistogram
from anomaly_nb.metrics import pauc, roc_auc


@settings(deadline=None)
@given(st.integers(2, 60), st.lists(st.integers(1, 59), max_size=4), st.floats(-1e6, 1e6))
def test_moments_in_any_batches(n, cuts, offset):
    values = offset + np.random.default_rng(n).normal(size=(n, 4))
    parts = np.split(values, sorted({min(cut, n) for cut in cuts}))
    moments, other = Moments((4,)), Moments((4,))
    for i, part in enumerate(parts):
        if len(part):
            (moments if i % 2 else other).add(part)
    moments.merge(other)
    assert moments.count == n
    assert np.allclose(moments.mean, values.mean(axis=0), rtol=1e-12)
    assert np.allclose(moments.variance, values.var(axis=0, ddof=1), rtol=1e-6)


def test_auc_of_bins():
    random = np.random.default_rng(3)
    normal, broken = random.normal(size=(90, 3, 4)), random.normal(0.7, 1.2, size=(40, 3, 4))
    groups = [BinHistogram(np.zeros((3, 4)), np.ones((3, 4))) for _ in range(2)]
    for group, values in zip(groups, (normal, broken), strict=True):
        for batch in np.array_split(values, 5):
            group.add(batch)
    auc, p = bin_auc(*groups)
    for i, j in np.ndindex(3, 4):
        exact = mannwhitneyu(broken[:, i, j], normal[:, i, j], method="asymptotic", use_continuity=False)
        assert abs(auc[i, j] - exact.statistic / 3600) < 0.02
        assert abs(np.log(p[i, j] / exact.pvalue)) < 1.5


def test_no_discovery_in_noise():
    shares = []
    for seed in range(20):
        p = np.random.default_rng(seed).uniform(size=(128, 313))
        shares.append(significant(p).any())
    assert np.mean(shares) <= 0.2


def test_permutation_test_is_exact():
    values = np.random.default_rng(1).normal(size=(9, 5))
    labels = np.array([1, 0, 0, 1, 0, 1, 0, 0, 0])
    auc, alone, together = permutation_test(values, labels)
    for j in range(5):
        others = []
        for chosen in combinations(range(9), 3):
            mark = np.zeros(9)
            mark[list(chosen)] = 1
            others.append(abs(roc_auc_score(mark, values[:, j]) - 0.5))
        assert auc[j] == pytest.approx(roc_auc_score(labels, values[:, j]))
        assert alone[j] == pytest.approx(np.mean(np.array(others) >= abs(auc[j] - 0.5) - 1e-12))
    assert (together >= alone).all()
    with pytest.raises(DataError, match="relabellings"):
        permutation_test(np.zeros((60, 1)), np.repeat([0, 1], 30))


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, 1), st.integers(0, 6)), min_size=2, max_size=60))
def test_official_auc_and_pauc(pairs):
    labels, scores = np.array([a for a, _ in pairs]), np.array([b for _, b in pairs], float)
    if labels.min() == labels.max():
        with pytest.raises(DataError):
            pauc(labels, scores)
        return
    order = np.random.default_rng(0).permutation(len(labels))
    levels = np.unique(scores)[::-1]
    curve = [(0.0, 0.0)] + [((scores[labels == 0] >= v).mean(), (scores[labels == 1] >= v).mean()) for v in levels]
    for max_fpr in (0.1, 0.5):
        area = 0.0
        for (f0, t0), (f1, t1) in itertools.pairwise(curve):
            if f0 < max_fpr:
                cut = min(f1, max_fpr)
                t1 = t0 + (t1 - t0) * (cut - f0) / (f1 - f0) if f1 > f0 else t1
                area += (cut - f0) * (t0 + t1) / 2
        standard = 0.5 * (1 + (area - max_fpr**2 / 2) / (max_fpr - max_fpr**2 / 2))
        assert pauc(labels, scores, max_fpr) == pytest.approx(standard, abs=1e-12)
        assert pauc(labels[order], scores[order], max_fpr) == pytest.approx(standard, abs=1e-12)
    assert roc_auc(labels, scores) == pytest.approx(roc_auc_score(labels, scores), abs=1e-12)


def pictures(kind, machine=0, n=12, split="train", label=0, seconds=5.0, **options):
    return [render_clip(kind, machine, split, label, i, seconds=seconds, **options) for i in range(n)]


def moments_of(images):
    moments = Moments(images[0].shape)
    moments.add(np.stack(images))
    return moments


def test_a_known_fault_is_found_and_nothing_in_normal_clips():
    normal, held = (
        moments_of([HTK(c.audio) for c in pictures("pump", n=n, split=s)]) for n, s in ((20, "train"), (10, "test"))
    )
    broken = pictures("pump", n=10, split="test", label=1, severity=9, fault="leak")
    found = compare(normal, moments_of([HTK(c.audio) for c in broken])).region()
    truth = np.abs(np.mean([c.gain for c in broken], axis=0)) >= 3
    assert (found & truth).sum() / (found | truth).sum() > 0.8
    assert compare(normal, held).region().mean() <= 0.05


def test_severity_zero_is_no_fault():
    clip = render_clip("valve", 1, "test", 1, 4, severity=0, fault="missing", seconds=3)
    assert np.array_equal(clip.audio, clip.healthy) and not clip.mask.any()


def test_cycles_of_known_length():
    images = [HTK(c.audio) for c in pictures("slider", 2, 10, seconds=8.0)]
    period, strength = cycle_period(images)
    assert abs(HTK.seconds(period) - 1.871) < 0.03 and strength > 0.5
    cycle = Cycle.fit(images)
    columns = cycle.columns(images[0])
    rolled = cycle.columns(np.roll(images[0], 7, axis=1))
    step = (rolled[20:-20] - np.roll(columns, 7)[20:-20]) % cycle.width
    assert np.median(np.minimum(step, cycle.width - step)) <= 2


def test_clicks_are_found_where_they_are():
    images = [HTK(c.audio) for c in pictures("valve", 0, 16, seconds=8.0)]
    model = Intervals.fit(images)
    assert isinstance(model.events, Events)
    assert model.score(images[0]) < model.score(np.full_like(images[0], -60.0))
    row = model.describe(images[0])
    assert 0.5 < row["clicks_per_second"] / row["normal_clicks_per_second"] < 2


def test_machines_without_rhythm_are_not_aligned():
    images = [HTK(c.audio) for c in pictures("pump", n=5)]
    for model in (Cycle, Events):
        with pytest.raises(DataError):
            model.fit(images)
    assert np.array_equal(folded(images[0], Unaligned(157).columns(images[0]), 157), images[0])


@pytest.mark.parametrize("kind", ["ToyConveyor", "fan", "pump", "slider", "valve"])
def test_recordings_begin_at_any_moment_of_the_machine(kind):
    profiles = [HTK(clip.audio).mean(axis=0) for clip in pictures(kind, n=60, seconds=3.0)]
    assert time_locked(profiles) > 0.02


def test_the_slow_rounds_begin_anywhere():
    clips = pictures("ToyConveyor", n=60, split="test", label=1, seconds=4.0, fault="metal")
    scrapes = [np.flatnonzero(np.diff(clip.mask.mean(axis=0) > 0.1, prepend=False)) for clip in clips]
    period = np.median(np.concatenate([np.diff(times[::2]) for times in scrapes]))
    phase = np.sort([times[0] / period % 1 for times in scrapes])
    assert np.diff(phase, prepend=0, append=1).max() < 0.3


def test_time_matters_only_where_it_does():
    random = np.random.default_rng(0)
    noise = random.normal(size=(20, 60))
    p = [time_locked(random.normal(size=(15, 50)), shifts=99, seed=i) for i in range(20)]
    assert np.mean(np.array(p) < 0.05) < 0.3
    assert time_locked(noise + 3 * np.sin(np.arange(60) / 5), shifts=99) == 0.01

"""Unusual shapes: invariances, planted shapes, own thresholds, files, time, errors."""

import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from anomaly_nb.core import DataError
from anomaly_nb.metrics import segments, vus_pr
from anomaly_nb.srcnn import subsequences
from anomaly_nb.srcnn.detector import SpectralResidual
from anomaly_nb.srcnn.subsequences import SubsequenceDetector, heartbeats, join_runs, maxima_law, nearest_squares


def noise(n=3000, seed=0):
    return np.random.default_rng(seed).normal(size=n)


def rhythm(n=4000, seed=0):
    return np.sin(np.arange(n) / 8) + 0.1 * noise(n, seed)


@pytest.mark.parametrize("factor, offset", [(1e6, 0), (1e-9, 0), (1, 1e6), (-1, 0)])
def test_scale_and_offset_do_not_matter(factor, offset):
    values, _ = heartbeats()
    scores = SubsequenceDetector().fit(values).decision_scores_
    other = SubsequenceDetector().fit(values * factor + offset)
    np.testing.assert_allclose(other.decision_scores_, scores, rtol=1e-3, atol=1e-3)


def test_heartbeats_of_another_form_are_found():
    hits, total, false, figures = 0, 0, 0, []
    for seed in range(5):
        values, labels = heartbeats(seed=seed)
        detector = SubsequenceDetector().fit(values)
        points = SpectralResidual().fit(values).decision_scores_
        figures.append(vus_pr(labels, detector.decision_scores_, 100))
        assert figures[-1] > vus_pr(labels, points, 100) + 0.5
        hits += sum(detector.labels_[start:end].any() for start, end in segments(labels))
        total += len(segments(labels))
        incidents = join_runs(detector.labels_ == 1, 45)
        false += sum(not labels[max(0, start - 60) : end + 60].any() for start, end in incidents)
    assert np.mean(figures) > 0.75  # the lowest of eight curves has 0.70, the highest 0.99
    assert hits >= 0.95 * total
    assert false <= 3e-4 * 30_000


@pytest.mark.parametrize("kind", ["reversed", "flat", "faster", "louder"])
def test_planted_shapes_are_found(kind):
    values = rhythm()
    stretch = slice(2000, 2060)
    changed = {
        "reversed": -values[stretch],
        "flat": 0.1 * noise(60, 1),
        "faster": np.sin(np.arange(60) / 3),
        "louder": 2 * values[stretch],
    }
    values[stretch] = changed[kind]
    detector = SubsequenceDetector().fit(values)
    assert 1950 <= detector.decision_scores_.argmax() <= 2110
    assert detector.labels_[1980:2080].any()


@pytest.mark.parametrize("kind", ["white", "autoregressive", "season"])
def test_few_alarms_on_normal_curves(kind):
    alarms = 0
    for seed in range(5):
        values = noise(6000, seed)
        if kind == "autoregressive":
            for i in range(1, len(values)):
                values[i] += 0.9 * values[i - 1]
        if kind == "season":
            values += 3 * np.sin(np.arange(6000) / 16)
        alarms += len(join_runs(SubsequenceDetector().fit(values).labels_ == 1, 50))
    assert alarms <= 4e-4 * 30_000


def test_a_new_curve_is_judged_by_what_was_learned():
    clean, _ = heartbeats(odd=())
    new, labels = heartbeats(seed=1, odd=(9, 10, 11, 12))
    detector = SubsequenceDetector().fit(clean)
    assert all(detector.predict(new)[start:end].any() for start, end in segments(labels))


def test_the_fitted_curve_gets_its_own_scores_again():
    values, _ = heartbeats()
    detector = SubsequenceDetector().fit(values)
    np.testing.assert_array_equal(detector.decision_function(values), detector.decision_scores_)
    np.testing.assert_array_equal(SubsequenceDetector().fit(values).decision_scores_, detector.decision_scores_)
    np.testing.assert_array_equal(SubsequenceDetector().decision_function(values), detector.decision_scores_)
    longer = np.append(values, values[-300:])
    np.testing.assert_allclose(detector.decision_function(longer)[:5500], detector.decision_scores_[:5500], atol=0.02)


def test_save_and_load_give_equal_bits(tmp_path):
    values, _ = heartbeats()
    table = pd.DataFrame({"a": values, "b": rhythm(len(values))})
    detector = SubsequenceDetector(window=60).fit(table)
    detector.save(tmp_path)
    loaded = SubsequenceDetector.load(tmp_path)
    np.testing.assert_array_equal(loaded.decision_function(table), detector.decision_scores_)
    np.testing.assert_array_equal(loaded.decision_function(table[["b", "a"]]), detector.decision_scores_)


def test_gaps_get_no_score_and_raise_no_alarm():
    values = pd.Series(rhythm(), pd.date_range("2024-01-01", periods=4000, freq="min"))
    missing = values.copy()
    missing.iloc[1000:1200] = np.nan
    for curve in (missing, values.drop(values.index[1000:1200])):
        detector = SubsequenceDetector().fit(curve)
        assert np.isfinite(detector.decision_scores_).all()
        assert detector.labels_.sum() <= 40
    assert (SubsequenceDetector().fit(missing).decision_scores_[1000:1200] == 0).all()


def test_table_numbers_incidents():
    values, labels = heartbeats()
    table = SubsequenceDetector().detect(values)
    assert list(table.columns) == ["value", "score", "is_anomaly", "incident"]
    assert table["incident"].max() == len(segments(labels))


@pytest.mark.parametrize("values", [np.full(100, 7.0), np.zeros(25), np.arange(30.0), np.eye(1, 50, 25)[0]])
def test_scores_of_odd_curves_are_finite(values):
    detector = SubsequenceDetector().fit(values)
    assert np.isfinite(detector.decision_scores_).all()
    assert np.isfinite(detector.decision_function(values[:1])).all()
    assert np.isfinite(detector.decision_function(values * 1e9 + 5)).all()


@settings(max_examples=20, deadline=None)
@given(st.lists(st.one_of(st.floats(-1e90, 1e90), st.just(float("nan"))), min_size=1, max_size=80))
def test_any_numbers_give_finite_scores_or_a_sentence(values):
    try:
        scores = SubsequenceDetector().fit(values).decision_scores_
    except DataError as error:
        assert "at least 25" in str(error) or "without gaps" in str(error)
    else:
        assert np.isfinite(scores).all() and (scores >= 0).all()


@pytest.mark.parametrize(
    "settings, values, message",
    [
        ({}, np.arange(24.0), "at least 25"),
        ({}, ["high"] * 30, "not all entries are numbers"),
        ({}, [1.0] * 30 + [np.inf], "index 30"),
        ({"window": 2}, np.arange(99.0), "window"),
        ({"rate": 0}, np.arange(99.0), "rate"),
        ({"contamination": 2}, np.arange(99.0), "contamination"),
    ],
)
def test_errors_are_sentences(settings, values, message):
    with pytest.raises(DataError, match=message):
        SubsequenceDetector(**settings).fit(values)


def test_other_columns_are_refused():
    detector = SubsequenceDetector().fit(rhythm())
    with pytest.raises(DataError, match="Fitted to 1 columns"):
        detector.predict(np.zeros((50, 2)))


def test_a_law_of_maxima_gives_back_its_rate():
    scores = np.exp(0.2 * np.random.default_rng(0).gumbel(size=200_000))
    law = maxima_law(scores, 1)
    assert np.mean(scores > law.threshold(1e-3)) == pytest.approx(1e-3, rel=0.3)


def test_the_number_of_comparisons_is_linear(monkeypatch):
    compared = []

    def counted(values, starts, references, places):
        compared[-1] += len(starts) * len(references)
        return nearest_squares(values, starts, references, places)

    monkeypatch.setattr(subsequences, "nearest_squares", counted)
    for n in (20_000, 200_000):
        compared.append(0)
        SubsequenceDetector().fit(rhythm(n))
    assert 0 < compared[1] < 12 * compared[0]


def test_needs_no_torch():
    code = "import sys; from anomaly_nb.srcnn.everyday import SeriesDetector; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0

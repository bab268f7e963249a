"""The everyday detector: quality on held-out halves, streaming, hostile input, invariances."""

import re

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.signal import lfilter

from anomaly_nb.core import DataError
from anomaly_nb.metrics import best_delay_f1, delay_f1
from anomaly_nb.srcnn import SpectralResidual, load_kpi


@pytest.fixture(scope="module")
def kpi():
    return load_kpi()


def noise(n=3000, seed=0):
    return np.random.default_rng(seed).normal(size=n)


def test_kpi_second_halves(kpi):
    labels, scores, alarms = [], [], []
    for curve in kpi:
        first, second = curve.halves()
        detector = SpectralResidual().fit(first.series)
        labels.append(second.labels)
        scores.append(detector.decision_function(second.series))
        alarms.append(detector.predict(second.series))
    assert delay_f1(labels, alarms, 7)[0] >= 0.92
    assert best_delay_f1(labels, scores, 7)[0] >= 0.93


def test_arrays_and_timestamps_agree(kpi):
    first, second = kpi[0].halves()
    timed = SpectralResidual().fit(first.series)
    plain = SpectralResidual().fit(first.series.to_numpy())
    expected = timed.decision_function(second.series)
    np.testing.assert_array_equal(plain.decision_function(second.series.to_numpy()), expected)
    np.testing.assert_array_equal(timed.decision_function(second.series.to_numpy().tolist()), expected)


@pytest.mark.parametrize("side", ["both", "upper", "lower"])
@pytest.mark.parametrize("period", [1, 50])
def test_a_stream_alarms_where_the_whole_does(side, period):
    values = noise(2200) + 3 * np.sin(2 * np.pi * np.arange(2200) / 50) * (period > 1)
    values[[1500, 2050, 2150]] += 12
    values[1990:2003] = np.nan
    values[2100:2110] = np.nan
    detector = SpectralResidual(period=period, side=side).fit(values[:1400])
    scorer = detector.stream(values[:2000])
    found = np.array([scorer.update(value) for value in values[2000:]])
    expected = [50, 150] if side != "lower" else []
    assert np.isin(expected, np.flatnonzero(found[:, 1])).all() and found[:, 1].sum() <= len(expected) + 3
    assert np.flatnonzero(detector.predict(values)[2000:]).tolist()[: len(expected)] == expected
    assert (found[:3, 0] == 0).all() and (found[100:110] == 0).all()


def test_stream_of_an_unfitted_detector_fits_it():
    detector = SpectralResidual()
    scorer = detector.stream(noise(500))
    assert scorer.update(30.0)[1] and not scorer.update(0.1)[1]
    assert detector.threshold_ > 0


def test_newest_point_is_scored_and_edges_raise_no_alarm():
    values = noise(2000) + np.linspace(0, 50, 2000)
    detector = SpectralResidual().fit(values)
    assert detector.labels_[:5].sum() == detector.labels_[-5:].sum() == 0
    values[-1] += 12
    assert detector.predict(values)[-1] == 1


def test_one_side():
    values = noise()
    values[1000] += 15
    values[2000] -= 15
    upper, lower = SpectralResidual(side="upper").predict(values), SpectralResidual(side="lower").predict(values)
    assert (upper[1000], upper[2000], lower[1000], lower[2000]) == (1, 0, 0, 1)
    np.testing.assert_array_equal(upper | lower, SpectralResidual().predict(values))
    table = SpectralResidual(side="upper").fit(values).detect(values)
    assert np.isneginf(table["lower"]).all() and np.isfinite(table["upper"]).all()


def test_bounds_and_alarms_say_the_same(kpi):
    table = SpectralResidual().fit(kpi[1].series).detect(kpi[1].series)
    outside = (table["value"] < table["lower"]) | (table["value"] > table["upper"])
    np.testing.assert_array_equal(outside, table["is_anomaly"])
    assert ((table["lower"] <= table["expected_value"]) & (table["expected_value"] <= table["upper"])).all()


def test_gaps_and_jitter():
    index = pd.date_range("2024-01-01", periods=3000, freq="5min")
    series = pd.Series(noise(), index)
    series.iloc[2000] += 15
    whole = SpectralResidual().fit(series)
    random = np.random.default_rng(1)
    holes = series.drop(index[500:700]).drop(index[random.choice(np.arange(1000, 1900), 50, replace=False)])
    jitter = series.copy()
    jitter.index = index + pd.to_timedelta(random.integers(-60, 60, 3000), unit="s")
    for other in (holes, jitter):
        alarms = other.index[SpectralResidual().fit(other).labels_ == 1]
        assert len(alarms) <= 6 and abs(alarms - index[2000]).min() < pd.Timedelta("2min")
    missing = series.copy()
    missing.iloc[100:160] = np.nan
    scores = whole.decision_function(missing)
    assert (scores[100:160] == 0).all() and not whole.predict(missing)[90:170].any()


@pytest.mark.parametrize("factor, offset", [(1e6, 0), (1e-12, 0), (1, 1e6), (-1, 0)])
def test_scale_and_offset_do_not_matter(factor, offset):
    values = noise()
    scores = SpectralResidual().decision_function(values)
    np.testing.assert_allclose(SpectralResidual().decision_function(values * factor + offset), scores, rtol=1e-5)


@pytest.mark.parametrize(
    "values",
    [np.full(100, 7.0), np.zeros(12), noise(13) * 1e99, noise(500) + 1e9, np.arange(30.0), np.eye(1, 50, 25)[0]],
    ids=["constant", "zeros", "huge", "offset", "ramp", "impulse"],
)
def test_scores_are_finite(values):
    detector = SpectralResidual().fit(values)
    table = detector.detect(values)
    assert np.isfinite(table.drop(columns="is_anomaly").to_numpy()).all()
    assert np.isfinite(detector.decision_function(values[:1])).all()


@settings(max_examples=30, deadline=None)
@given(st.lists(st.one_of(st.floats(-1e90, 1e90), st.just(float("nan"))), min_size=1, max_size=60))
def test_any_numbers_give_finite_scores_or_a_sentence(values):
    try:
        scores = SpectralResidual().decision_function(values)
    except DataError as error:
        assert "at least 12" in str(error)
    else:
        assert np.isfinite(scores).all() and (scores >= 0).all()


@pytest.mark.parametrize(
    "bad, message",
    [
        ([], "at least 1"),
        (np.arange(11.0), "at least 12"),
        ([np.nan] * 20, "too few to learn from"),
        ([1.0] * 20 + [np.inf], "index 20"),
        (["high"] * 20, "not all entries are numbers"),
        (pd.Series(noise(20), pd.to_datetime(range(19, -1, -1), unit="s")), "not later"),
        (pd.Series(noise(20), pd.to_datetime([0] * 20, unit="s")), "not later"),
    ],
)
def test_bad_input_is_a_sentence(bad, message):
    with pytest.raises(DataError, match=message):
        SpectralResidual().fit(bad)


def test_several_columns():
    table = pd.DataFrame({"a": noise(seed=1), "b": noise(seed=2)})
    table.loc[500, "b"] += 20
    detector = SpectralResidual().fit(table)
    assert detector.labels_[500] == 1 and detector.decision_scores_.shape == (3000,)
    found = detector.detect(table)
    assert found.loc[500, ("b", "is_anomaly")] and not found.loc[500, ("a", "is_anomaly")]
    with pytest.raises(DataError, match="one series"):
        detector.stream(table)


def test_saved_detector_is_the_same(tmp_path, kpi):
    detector = SpectralResidual().fit(kpi[0].series)
    detector.save(tmp_path / "d")
    again = SpectralResidual.load(tmp_path / "d")
    np.testing.assert_array_equal(again.decision_function(kpi[0].series), detector.decision_scores_)
    np.testing.assert_array_equal(again.labels_, detector.labels_)
    assert again.get_params() == detector.get_params() and again.threshold_ == detector.threshold_


def test_contamination_sets_the_share():
    assert SpectralResidual(contamination=0.1).fit(noise()).labels_.mean() == pytest.approx(0.1, abs=0.01)


def test_input_is_left_alone():
    values = noise()
    values[10:20] = np.nan
    before = values.copy()
    SpectralResidual().fit(values).detect(values)
    np.testing.assert_array_equal(values, before)


def test_columns_are_known_by_their_names(tmp_path):
    table = pd.DataFrame({"a": noise(500, 1), "b": 1000 + noise(500, 2), "c": 50 + noise(500, 3)})
    table.loc[300, "b"] += 20
    SpectralResidual().fit(table).save(tmp_path / "d")
    detector, other = SpectralResidual.load(tmp_path / "d"), table[["b", "c", "a"]]
    np.testing.assert_array_equal(detector.decision_function(other), detector.decision_scores_)
    np.testing.assert_array_equal(detector.predict(other), detector.labels_)
    pd.testing.assert_frame_equal(detector.detect(other), detector.detect(table)[["b", "c", "a"]])
    np.testing.assert_array_equal(detector.predict(table.to_numpy()), detector.labels_)
    for renamed in (table.rename(columns={"b": "x"}), table.set_axis(["a", "a", "c"], axis=1)):
        with pytest.raises(DataError, match="no column b, which the detector was fitted to"):
            detector.predict(renamed)
    with pytest.raises(DataError, match="Fitted to 3 columns, got 2"):
        detector.predict(table[["a", "b"]])


def test_columns_without_names_are_taken_as_they_come():
    table = pd.DataFrame({"b": noise(500, 1), "a": 1000 + noise(500, 2)})
    unnamed = SpectralResidual().fit(table.to_numpy())
    np.testing.assert_array_equal(unnamed.predict(table), unnamed.labels_)
    twice = SpectralResidual().fit(table.set_axis(["a", "a"], axis=1))
    np.testing.assert_array_equal(twice.predict(table.set_axis(["a", "a"], axis=1)), twice.labels_)
    single = SpectralResidual().fit(table["b"])
    np.testing.assert_array_equal(single.predict(table[["b"]].set_axis(["c"], axis=1)), single.labels_)


@pytest.mark.parametrize("season", [0, 24], ids=["noise", "daily"])
@pytest.mark.parametrize("n", [100, 200, 365, 720, 1000])
def test_a_spike_is_found_in_a_short_series(n, season):
    found = 0
    for seed in range(50):
        random = np.random.default_rng(seed)
        values = random.normal(size=n) + (10 * np.sin(2 * np.pi * np.arange(n) / season) if season else 0)
        place = int(random.integers(n // 4, 3 * n // 4))
        values[place] += 6
        found += SpectralResidual().fit(values).labels_[place]
    assert found >= 45


def test_a_year_of_days_has_no_ghosts_of_one_odd_day():
    others = 0
    for seed in range(30):
        random = np.random.default_rng(seed)
        values = np.tile([100, 104, 103, 101, 95, 45, 40.0], 52) * (1 + 0.01 * random.normal(size=364))
        place = int(random.integers(30, 330))
        values[place] *= 1 + random.choice([-1, 1]) * random.uniform(0.3, 0.6)
        labels = SpectralResidual().fit(values).labels_
        assert labels[place]
        others += labels.sum() - 1
    assert others <= 30 * 0.6  # twice what is stated


N = 20_000
HOURS = 2 * np.pi * np.arange(N) / 288
CLEAN = {
    "normal": lambda random: random.normal(size=N),
    "autoregressive": lambda random: lfilter([1], [1, -0.9], random.normal(size=N)),
    "walk": lambda random: np.cumsum(random.normal(size=N)),
    "season": lambda random: 10 + 3 * np.sin(HOURS) + 0.3 * random.normal(size=N),
    "Laplace": lambda random: random.laplace(size=N),
    "t of 3 degrees": lambda random: random.standard_t(3, size=N),
    "lognormal": lambda random: random.lognormal(size=N),
    "counts": lambda random: random.poisson(np.exp(1.5 + 1.2 * np.sin(HOURS))).astype(float),
    "few counts": lambda random: random.poisson(0.2, size=N).astype(float),
}


@pytest.mark.parametrize("name", CLEAN)
def test_the_stated_rate_is_met_within_a_factor_of_two(name):
    curves = [CLEAN[name](np.random.default_rng(seed)) for seed in range(6)]
    assert 4 <= np.mean([SpectralResidual().fit(curve).labels_.mean() * 1e4 for curve in curves]) <= 16


@pytest.mark.parametrize(
    "values, reason",
    [
        (np.random.default_rng(0).normal(size=20), "20 points are too few"),
        ((np.random.default_rng(0).random(N) < 0.02) * 1.0, r"2 values, the rarer in \d\.\d\d% of the points"),
    ],
)
def test_a_rate_that_cannot_be_met_is_told(values, reason, caplog):
    with caplog.at_level("INFO"):
        detector = SpectralResidual().fit(values)
    assert caplog.text.count("The share of false alarms is unknown") == 1
    assert re.search(reason, detector.models_.models[0].doubt)
    assert not SpectralResidual().fit(noise()).models_.models[0].doubt


@pytest.mark.parametrize("n", [20, 24])
def test_a_huge_spike_is_found_in_the_shortest_series(n):
    for seed in range(50):
        values = noise(n, seed)
        values[n // 2] += 1000
        assert SpectralResidual().fit(values).labels_[n // 2]


def test_runs_of_anomalies_do_not_move_the_threshold():
    found, false, missed = [], [], []
    for seed in range(8):
        random = np.random.default_rng(seed)
        values, odd = random.normal(size=9000), np.zeros(9000, dtype=bool)
        for start in random.integers(0, 8950, 18):
            length = int(random.integers(3, 20))
            values[start : start + length] += random.choice([-1, 1], length) * random.uniform(4, 15, length)
            odd[start : start + length] = True
        detector = SpectralResidual().fit(values)
        found.append(detector.threshold_)
        false.append(detector.labels_[~odd].mean() * 1e4)
        missed.append(1 - detector.labels_[odd].mean())
    assert max(found) < 4 and np.mean(false) <= 16 and np.mean(missed) < 0.1

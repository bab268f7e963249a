"""Streams that run for weeks: a rate that is kept, no bad reading in memory, levels and events that are learnt."""

import numpy as np
import pandas as pd
import pytest
from scipy.signal import lfilter

from anomaly_nb.core import DataError
from anomaly_nb.srcnn import SpectralResidual
from anomaly_nb.srcnn.stream import StreamScorer

CALM = np.random.default_rng(0).normal(size=14_000)


def smooth(random, n):
    return lfilter([1], [1, -1.9, 0.9604], random.normal(size=n + 500))[500:]


def walk(random, n):
    return np.cumsum(random.normal(size=n))


def seasonal(random, n, period=100):
    return 10 + 3 * np.sin(2 * np.pi * np.arange(n) / period) + 0.3 * random.normal(size=n)


def alarms(history, values, **given):
    scorer = SpectralResidual(**given).fit(history).stream(history)
    return np.array([scorer.update(value)[1] for value in values])


@pytest.mark.parametrize("kind", [smooth, walk, seasonal])
def test_the_stated_rate_is_kept_on_clean_curves(kind):
    curves = [kind(np.random.default_rng(seed), 14_000) for seed in range(6)]
    found = np.mean([alarms(curve[:4000], curve[4000:]).sum() for curve in curves])
    assert 4 <= found <= 16  # of 10,000; 8 are stated


@pytest.mark.parametrize("bad", [100.0, 1e4, 1e90, np.inf, -np.inf])
def test_a_bad_reading_is_forgotten_at_once(bad):
    found = alarms(CALM[:4000], np.append(bad, CALM[4001:5001]))
    assert found[0] and found[1:].sum() <= 3


@pytest.mark.parametrize("shift", [10, -20, 20, 200])
def test_a_lasting_shift_becomes_the_new_level(shift):
    clean, found = alarms(CALM[:4000], CALM[4000:]), alarms(CALM[:4000], CALM[4000:] + shift)
    assert found[0] and found[:1000].sum() <= 20
    np.testing.assert_array_equal(found[-1000:], clean[-1000:])  # nothing that the shift has brought about


def test_growth_and_a_new_scale_are_followed():
    assert alarms(CALM[:4000], CALM[4000:] + np.arange(10_000) / 500).sum() <= 16
    louder = alarms(CALM[:4000], 5 * CALM[4000:])
    assert louder[:1000].sum() <= 200
    np.testing.assert_array_equal(louder[-5000:], alarms(CALM[:4000], CALM[4000:])[-5000:])


def nights(days, first, seed=1):
    random = np.random.default_rng(seed)
    values = seasonal(random, 288 * days, 288)
    values[288 * first + 36 :: 288] += 3
    return values


@pytest.mark.parametrize("first", [0, 14], ids=["in the history", "new"])
def test_a_job_each_night_is_learnt_and_missed(first):
    values = nights(60, first)
    values[288 * 50 + 36] -= 3
    scorer = SpectralResidual().fit(values[: 288 * 14]).stream(values[: 288 * 14])
    job = np.array([scorer.update(value)[1] for value in values[288 * 14 :]])[36::288]
    assert job.sum() <= 1 + 3 * (first > 0) and job[36]  # the 37th of these nights is without the job
    told = [incident.kind for incident in (*scorer.incidents.closed, scorer.incidents.open) if incident]
    assert ("missing event" in told) == (first > 0)


def test_a_job_each_night_is_no_alarm_of_a_whole_curve():
    values = nights(60, 0)
    values[288 * 40 + 36] -= 3
    labels = SpectralResidual().fit(values).labels_[36::288]
    assert np.flatnonzero(labels).tolist() == [40]


def test_incidents_open_and_close():
    scorer = SpectralResidual().fit(CALM[:4000]).stream(CALM[:4000])
    for value in [9.0, -9.0, 0.1, 9.0, *[0.1] * 20]:
        scorer.update(value)
    assert scorer.incidents.open is None or not scorer.incidents.closed
    scorer.update(0.1)
    scorer.update(30.0)
    (first,) = scorer.incidents.closed
    assert (first.first, first.last, first.alarms, first.kind) == (0, 3, 3, "odd reading")
    assert scorer.incidents.open.first == 25 and scorer.incidents.open.peak > 20


def test_times_and_gaps():
    index = pd.date_range("2024-01-01", periods=6000, freq="5min")
    series = pd.Series(seasonal(np.random.default_rng(0), 6000, 288), index)
    detector = SpectralResidual().fit(series[:4000])
    told, counted = detector.stream(series[:4000]), detector.stream(series[:4000])
    later = series[4000:].drop(index[4500:4600])
    by_time = {time: told.update(value, time + pd.Timedelta("40s")) for time, value in later.items()}
    by_count = {time: counted.update(later.get(time, np.nan)) for time in index[4000:]}
    assert by_time == {time: by_count[time] for time in later.index}
    with pytest.raises(DataError, match="not later than the reading before"):
        told.update(0.0, index[-1])
    told.update(0.0, "2026-01-01")  # two years later, the season goes on
    assert (told.origin + told.point - 1) % 288 == 0
    with pytest.raises(DataError, match="the history has no times"):
        SpectralResidual().fit(CALM[:500]).stream(CALM[:500]).update(0.0, "2024-01-01")


def test_a_running_stream_is_saved(tmp_path):
    values = nights(40, 20)
    scorer = SpectralResidual(side="upper").fit(values[: 288 * 14]).stream(values[: 288 * 14])
    for value in values[288 * 14 : 288 * 22 + 37]:
        scorer.update(value)
    scorer.update(np.nan)
    scorer.save(tmp_path / "stream")
    again = StreamScorer.load(tmp_path / "stream")
    rest = values[288 * 22 + 38 :]
    went_on = np.array([scorer.update(value) for value in rest])
    np.testing.assert_allclose([again.update(value) for value in rest], went_on, rtol=1e-9)
    assert list(again.incidents.closed) == list(scorer.incidents.closed)
    SpectralResidual().fit(CALM[:500]).save(tmp_path / "other")
    with pytest.raises(DataError, match="no stream that was saved"):
        StreamScorer.load(tmp_path / "other")


def test_the_pace_of_forgetting():
    history, reached = CALM[:4000], {}
    for pace in (200, 2000, 1e6):
        scorer = SpectralResidual().fit(history).stream(history, forget=pace)
        for value in CALM[4000:8000] + np.arange(4000) / 1000:
            scorer.update(value)
        reached[pace] = scorer.tracker.level
    assert reached[1e6] < 0.5 < reached[2000] < 3.2 < reached[200] < 4.2
    with pytest.raises(DataError, match="forget is nan"):
        SpectralResidual().fit(history).stream(history, forget=np.nan)


@pytest.mark.parametrize("side", ["upper", "lower"])
def test_only_one_side_pages(side):
    scorer = SpectralResidual(side=side).fit(CALM[:4000]).stream(CALM[:4000])
    found = [scorer.update(value)[1] for value in (20.0, *CALM[4000:4050], -20.0, *CALM[4050:4100], np.inf, -np.inf)]
    assert np.flatnonzero(found).tolist() == ([0, 102] if side == "upper" else [51, 103])


def test_scores_stay_finite_on_anything():
    random = np.random.default_rng(0)
    values = random.normal(size=3000) * 10 ** random.uniform(-90, 90, 3000)
    values[random.random(3000) < 0.1] = np.nan
    for history in (CALM[:12], np.zeros(30), np.full(100, 7.0), CALM[:1000]):
        scorer = SpectralResidual().fit(history).stream(history)
        assert np.isfinite([scorer.update(value)[0] for value in values]).all()

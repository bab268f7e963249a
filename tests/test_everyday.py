"""Points and shapes together: alarms of the parts, kinds, columns, gaps, files, errors, and the benchmark's reader."""

import numpy as np
import pandas as pd
import pytest
from scipy.stats import poisson

from anomaly_nb.core import DataError
from anomaly_nb.srcnn import SpectralResidual
from anomaly_nb.srcnn.benchmark import benchmark_folder, judge_series, load_telemetry, read_tsbad, vus_window
from anomaly_nb.srcnn.everyday import SeriesDetector, mixed_faults
from anomaly_nb.srcnn.model import RATE
from anomaly_nb.srcnn.subsequences import SubsequenceDetector, heartbeats


@pytest.fixture(scope="module")
def faults():
    values, spans = mixed_faults()
    return values, spans, SeriesDetector().fit(values)


@pytest.mark.parametrize("seed", range(3))
def test_each_kind_is_named(seed):
    values, spans = mixed_faults(seed=seed)
    found = SeriesDetector().incidents(values)
    for kind, (start, end) in spans.items():
        overlaps = found[(found["start"] < min(end, start + 300)) & (found["end"] >= start - 100)]
        assert kind in set(overlaps["kind"]), (kind, overlaps)
    expected = len(values) * (RATE + SeriesDetector().shape_rate)  # false incidents at the stated rates
    assert len(found) <= 2 * len(spans) + poisson.ppf(0.999, expected)  # a level's two ends are two incidents


def test_parts_keep_their_alarms(faults):
    values, _, detector = faults
    table = detector.detect(values)
    points = SpectralResidual().fit(values)
    shapes = SubsequenceDetector().fit(values)
    np.testing.assert_array_equal(table["point"] > -np.log10(RATE), points.labels_ == 1)
    assert (detector.labels_[(points.labels_ | shapes.labels_) == 1] == 1).all()


def test_one_incident_has_one_number_and_kind(faults):
    values, _, detector = faults
    table = detector.detect(values)
    marked = table[table["incident"] > 0]
    assert (marked.groupby("incident")["kind"].nunique() == 1).all()
    assert table.loc[table["is_anomaly"], "incident"].min() >= 1
    assert set(table["kind"]) <= {"", "point", "shape", "level shift", "frozen", "lost rhythm"}
    assert len(detector.incidents(values)) == table["incident"].max()


def test_a_heartbeat_is_a_shape_and_a_spike_a_point():
    values, _labels = heartbeats()
    assert set(SeriesDetector().incidents(values)["kind"]) == {"shape"}
    spiky = np.random.default_rng(0).normal(size=3000)
    spiky[1500] += 40
    found = SeriesDetector().incidents(spiky)
    assert found.loc[found["evidence"].idxmax(), "kind"] == "point"


def test_deterministic_and_equal_after_load(faults, tmp_path):
    values, _, detector = faults
    np.testing.assert_array_equal(SeriesDetector().fit(values).decision_scores_, detector.decision_scores_)
    detector.save(tmp_path)
    loaded = SeriesDetector.load(tmp_path)
    np.testing.assert_array_equal(loaded.decision_function(values), detector.decision_scores_)
    np.testing.assert_array_equal(loaded.predict(values), detector.labels_)


def test_columns_in_any_order(faults):
    values, _, _ = faults
    table = pd.DataFrame(
        {"a": values, "b": np.roll(values, 3000), "c": np.random.default_rng(1).normal(size=len(values))}
    )
    detector = SeriesDetector().fit(table)
    np.testing.assert_array_equal(detector.predict(table[["c", "a", "b"]]), detector.labels_)
    judged = detector.detect(table)
    assert list(judged.columns.get_level_values(0).unique()) == ["a", "b", "c"]
    assert {"a", "b"} <= set(detector.incidents(table)["column"])


def test_timestamps_with_holes(faults):
    values, _spans, _ = faults
    series = pd.Series(values, pd.date_range("2024-01-01", periods=len(values), freq="5min"))
    holes = series.drop(series.index[6000:6150])
    found = SeriesDetector().incidents(holes)
    assert isinstance(found["start"].iloc[0], pd.Timestamp)
    near = (found["start"] > series.index[5900]) & (found["start"] < series.index[6250])
    assert near.sum() <= 1
    series.iloc[100:150] = np.nan
    assert np.isfinite(SeriesDetector().fit(series).decision_scores_).all()


@pytest.mark.parametrize("values", [np.full(100, 7.0), np.zeros(25), np.arange(30.0), np.eye(1, 50, 25)[0]])
def test_odd_curves(values):
    table = SeriesDetector().detect(values)
    assert np.isfinite(table[["value", "score", "point", "shape"]].to_numpy()).all()
    assert SeriesDetector().fit(np.full(100, 3.0)).labels_.sum() == 0


@pytest.mark.parametrize(
    "settings, values, message",
    [
        ({}, np.arange(24.0), "at least 25"),
        ({}, np.full(40, np.nan), "too few"),
        ({"side": "left"}, np.arange(50.0), "side"),
        ({"window": "wide"}, np.arange(50.0), "window"),
        ({"shape_rate": 1}, np.arange(50.0), "shape_rate"),
    ],
)
def test_errors_are_sentences(settings, values, message):
    with pytest.raises(DataError, match=message):
        SeriesDetector(**settings).fit(values)


def test_telemetry_is_ahead_of_the_published():
    one = next(each for each in load_telemetry() if "T-12" in each.name or each.name.startswith("140_MSL"))
    figures = judge_series(one, ["SeriesDetector", "SpectralResidual"]).set_index("detector")["vus_pr"]
    assert figures["SeriesDetector"] > 0.95 > figures["SpectralResidual"]


def test_a_folder_of_series(tmp_path):
    folder = tmp_path / "series"
    folder.mkdir()
    values, labels = heartbeats(3000)
    table = pd.DataFrame({"Data": values, "Label": labels.astype(int)})
    table.to_csv(folder / "001_ECG_id_1_Medical_tr_500_1st_1500.csv", index=False)
    table.rename(columns={"Data": "value"}).to_csv(folder / "002_ECG_id_2_Medical_tr_500_1st_1500.csv", index=False)
    rows, failed = benchmark_folder(folder, tmp_path / "out", ["SubsequenceDetector"])
    assert len(rows) == 1 and rows["group"].iloc[0] == "ECG" and rows["vus_pr"].iloc[0] > 0.5
    assert len(failed) == 1 and "Data" in next(iter(failed.values()))
    again, _ = benchmark_folder(folder, tmp_path / "out", ["SubsequenceDetector"])
    pd.testing.assert_frame_equal(rows, again)


def test_reader_refuses_other_names(tmp_path):
    with pytest.raises(DataError, match="the name is not like"):
        read_tsbad(tmp_path / "a.csv")
    with pytest.raises(DataError, match="no file named like"):
        benchmark_folder(tmp_path)
    assert vus_window(np.zeros(100)) == 125

"""Reading curves: hostile files, label windows, even grids."""

import io

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from anomaly_nb.core import DataError
from anomaly_nb.datasets import data_sources, sample_path
from anomaly_nb.srcnn import load_kpi, load_nab, read_curve, read_folder
from anomaly_nb.srcnn.detector import read_columns
from anomaly_nb.srcnn.series import even_slots, to_grid


@pytest.mark.parametrize(
    "text, message",
    [
        ("", "not a readable CSV"),
        ("value\n1\n", "1 column"),
        ("0,1\n60,2\n", "header row"),
        ("timestamp,value\n", "only a header"),
        ("timestamp,value\n0,1\n60,high\n", r"row 3: 'high' is not a number"),
        ("timestamp,value\n0,1\n0,2\n", r"row 3: the time 0 occurs twice"),
        ("timestamp,value\n60,1\n0,2\n", r"row 3: the time 0 is earlier"),
        ("timestamp,value\nsoon,1\n", r"row 2: 'soon' is not a time"),
        ("timestamp,value\n0,1e300\n", "beyond 1e100"),
        ("timestamp,value\n0,-inf\n", "beyond 1e100"),
        ("timestamp,value,label\n0,1,yes\n", "'yes' is not a number"),
        ("timestamp,value,label\n0,1,2\n", "the label is 2"),
        ('timestamp,value\n0,"1\n', "not a readable CSV|is not a number"),
    ],
)
def test_bad_files_name_file_row_and_remedy(tmp_path, text, message):
    file = tmp_path / "load.csv"
    file.write_text(text)
    with pytest.raises(DataError, match=message) as caught:
        read_curve(file)
    assert "load.csv" in str(caught.value)


def test_binary_and_missing_files(tmp_path):
    (tmp_path / "noise.csv").write_bytes(bytes(range(256)) * 20)
    for name in ("noise.csv", "absent.csv"):
        with pytest.raises(DataError, match=name):
            read_curve(tmp_path / name)
    with pytest.raises(DataError, match="no CSV file"):
        read_folder(tmp_path / "empty")


@settings(max_examples=100, deadline=None)
@given(st.text(max_size=200))
def test_any_text_is_a_curve_or_a_sentence(tmp_path_factory, text):
    file = tmp_path_factory.getbasetemp() / "fuzz.csv"
    file.write_text(text, encoding="utf-8", errors="replace")
    try:
        read_curve(file)
    except DataError:
        pass


@pytest.mark.parametrize("stamp", [lambda i: 300 * i, lambda i: 300_000 * i + 1_500_000_000_000])
def test_seconds_and_milliseconds(tmp_path, stamp):
    file = tmp_path / "curve.csv"
    file.write_text("timestamp,value\n" + "".join(f"{stamp(i)},{i}\n" for i in range(5)))
    index = read_curve(file).series.index
    assert (np.diff(index.as_unit("s").asi8) == 300).all()


def test_bundled_curves():
    nab, kpi = load_nab(), load_kpi()
    assert (len(nab), sum(map(len, nab)), len(kpi)) == (58, 365_558, 2)
    assert sum(not curve.truth.any() for curve in nab) == 6
    assert all(curve.series.index.is_monotonic_increasing and curve.series.index.is_unique for curve in nab + kpi)
    assert all(0.05 < curve.truth.mean() < 0.2 for curve in nab if curve.truth.any())
    with pytest.raises(DataError, match="no labels"):
        type(kpi[0])("bare", kpi[0].series).truth  # noqa: B018


def test_every_sample_has_licence_and_origin():
    sources = data_sources()
    assert sources[["what", "licence", "origin"]].map(len).to_numpy().all()
    assert all(sample_path(name).stat().st_size for name in sources["sample"])


@given(st.lists(st.integers(1, 50), min_size=1, max_size=50))
def test_slots_are_strictly_increasing_and_keep_values(steps):
    times = pd.to_datetime(np.cumsum([0, *steps]), unit="s")
    slots = even_slots(times)
    assert slots[0] == 0 and (np.diff(slots) > 0).all()
    values = np.arange(len(times), dtype=float)
    np.testing.assert_array_equal(to_grid(values, slots)[slots], values)


def test_a_day_that_may_be_a_month_is_refused() -> None:
    def table(dates: list[str]) -> io.BytesIO:
        return io.BytesIO(("time,value\n" + "".join(f"{date},1\n" for date in dates)).encode())

    march = pd.date_range("2024-03-01", "2024-03-19")
    for form in ("%d/%m/%Y", "%m/%d/%Y", "%d.%m.%Y %H:%M", "%Y-%m-%d"):
        assert read_curve(table(list(march.strftime(form))), "curve").series.index.equals(march)
    with pytest.raises(DataError, match="curve: the day in '01/03/2024' may be the month"):
        read_curve(table(list(march[:12].strftime("%d/%m/%Y"))), "curve")


@pytest.mark.parametrize(
    "cells, first, step",
    [
        (["20240130", "20240131", "20240201"], "2024-01-30", 86400),
        (["20240130.0", " 20240131", "20240201"], "2024-01-30", 86400),
        (["2021", "2022", "2023"], "2021-01-01", 365 * 86400),
        (["20240130", "20240131", "20240199"], "1970-08-23 06:15:30", 1),  # the last one is no date
        (["20240130", "20240131", "21010101"], "1970-08-23 06:15:30", 1),
        (["1860", "1920", "1980"], "1970-01-01 00:31:00", 60),
        (["0", "60", "120"], "1970-01-01", 60),
        (["1706572800", "1706573100"], "2024-01-30", 300),
        (["1706572800000", "1706573100000"], "2024-01-30", 300),
    ],
)
def test_numbers_that_are_dates(cells, first, step):
    file = io.BytesIO(("time,value\n" + "".join(f"{cell},1\n" for cell in cells)).encode())
    index = read_curve(file, "curve").series.index
    assert index[0] == pd.Timestamp(first) and (index[1] - index[0]).total_seconds() == step


HOURS = np.delete(np.arange(100), slice(30, 91))


@pytest.mark.parametrize(
    "index",
    [
        pd.to_timedelta(HOURS, unit="h"),
        pd.Timestamp("2024-01-01") + pd.to_timedelta(HOURS, unit="h"),
        pd.PeriodIndex.from_ordinals(HOURS, freq="h"),
        pd.PeriodIndex.from_ordinals(HOURS, freq="M"),
    ],
    ids=["timedelta", "datetime", "hours", "months"],
)
def test_every_kind_of_time_has_gaps_and_an_order(index):
    np.testing.assert_array_equal(even_slots(index), HOURS)
    assert len(read_columns(pd.Series(1.0, index)).grids[0]) == 100
    for bad in (index[::-1], index.append(index[-1:])):
        with pytest.raises(DataError, match="not later than the one before"):
            read_columns(pd.Series(1.0, bad))


@pytest.mark.parametrize(
    "entries", [["2024-01-02", "2024-01-01"], [pd.Timestamp("2024-01-01"), "b"], [("a", 1), ("a", 2)]]
)
def test_an_index_that_is_no_time(entries):
    with pytest.raises(DataError, match=r"^index: .* no time and no number. Parse the dates, e.g. with pandas.to_dat"):
        read_columns(pd.Series([1.0, 2.0], pd.Index(entries)))

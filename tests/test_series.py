"""Reading curves: hostile files, label windows, even grids."""

import gzip
import io
import logging

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


def table_of(values, **columns):
    time = pd.date_range("2025-03-01", periods=len(values), freq="10min")
    return io.BytesIO(pd.DataFrame({"time": time, **columns}).to_csv(index=False).encode())


@pytest.mark.parametrize("before", [{}, {"host": "web"}, {"empty": np.nan}])
def test_the_only_column_with_numbers_is_the_curve(before):
    values = np.arange(20.0)
    curve = read_curve(table_of(values, **before, temp=values), "room")
    np.testing.assert_array_equal(curve.series, values)


def test_a_column_is_found_by_name_or_asked_for():
    values = np.arange(20.0)
    columns = {"row": 3.0, "value": values, "Anomaly": values > 18}
    curve = read_curve(table_of(values, **columns), "room")
    np.testing.assert_array_equal(curve.series, values)
    assert curve.truth.sum() == 1 and curve.truth[19]
    assert (read_curve(table_of(values, **columns), "room", column="row").series == 3).all()
    columns = {"sensor_id": 3.0, "temp": values}
    with pytest.raises(
        DataError, match=r"room: the columns sensor_id, temp hold numbers\. .* --column NAME, or column="
    ):
        read_curve(table_of(values, **columns), "room")
    with pytest.raises(DataError, match=r"room: no column of values 'heat'\. There are: sensor_id, temp\."):
        read_curve(table_of(values, **columns), "room", column="heat")


@pytest.mark.parametrize("name", ["label", "Label", "is_anomaly", "ANOMALY"])
@pytest.mark.parametrize("cells", [("0", "1"), ("False", "True"), ("false", " TRUE"), ("0.0", "1.0")])
def test_labels_under_usual_names(name, cells):
    text = f"timestamp,value,{name}\n0,1,{cells[0]}\n60,2,{cells[1]}\n"
    assert read_curve(io.BytesIO(text.encode()), "curve").truth.tolist() == [False, True]


PLAIN = "timestamp,value\n2024-01-01 00:00,1.5\n2024-01-01 00:05,-0.25\n"


@pytest.mark.parametrize(
    "data",
    [
        PLAIN.encode("utf-16"),
        PLAIN.encode("utf-8-sig"),
        gzip.compress(PLAIN.encode()),
        PLAIN.replace(",", "\t").encode(),
        PLAIN.replace(",", ";").encode(),
        PLAIN.replace(",", ";").replace(".", ",").encode(),
        PLAIN.replace("\n", "\r\n").encode(),
    ],
    ids=["utf-16", "mark", "gzip", "tabs", "semicolons", "decimal commas", "windows"],
)
def test_one_curve_in_many_files(data):
    series = read_curve(io.BytesIO(data), "curve").series
    assert series.to_dict() == {pd.Timestamp("2024-01-01 00:00"): 1.5, pd.Timestamp("2024-01-01 00:05"): -0.25}


@pytest.mark.parametrize(
    "data, message",
    [
        (b"time;value\n0;1.234,5\n60;2\n", "row 2: '1.234,5' is not a number"),
        (PLAIN.encode("utf-16-le"), "UTF-16 without its mark"),
        (gzip.compress(b"0" * 2**26), "unpack to more than"),
        (gzip.compress(PLAIN.encode())[:-9], "not a readable CSV"),
        (b"time,value\n2024-01-01 00:00+01:00,1\n2024-01-01 00:05,1\n", "row 3: .* no offset from UTC"),
        (b"time,value,label,anomaly\n0,1,0,0\n", "label, anomaly may all hold the labels"),
        (b"time,place,host\n0,a,b\n", "no column beside the times holds numbers"),
    ],
)
def test_what_can_be_read_in_two_ways_is_refused_by_name(data, message):
    with pytest.raises(DataError, match=message):
        read_curve(io.BytesIO(data), "curve")


@pytest.mark.parametrize("unit, factor", [("s", 1), ("ms", 10**3), ("us", 10**6), ("ns", 10**9)])
def test_every_unit_of_an_epoch(unit, factor):
    rows = "".join(f"{(1_700_000_000 + 300 * i) * factor},{i}\n" for i in range(5))
    index = read_curve(io.BytesIO(f"time,value\n{rows}".encode()), "curve").series.index
    assert index[0] == pd.Timestamp("2023-11-14 22:13:20") and (np.diff(index.as_unit("s").asi8) == 300).all()


def test_offsets_across_a_change_of_the_clock():
    times = pd.date_range("2024-10-26", periods=600, freq="5min", tz="Europe/Berlin")
    rows = "".join(f"{time.isoformat()},1\n" for time in times)
    index = read_curve(io.BytesIO(f"timestamp,value\n{rows}".encode()), "curve").series.index
    np.testing.assert_array_equal(index, times.tz_convert("UTC").tz_localize(None))


def test_nothing_in_a_folder_is_left_out_without_a_word(tmp_path, caplog):
    (tmp_path / "A.CSV").write_text(PLAIN)
    (tmp_path / "b.csv.gz").write_bytes(gzip.compress(PLAIN.encode()))
    for name in ("b_anomalies.csv", "notes.txt", "c.parquet"):
        (tmp_path / name).write_text("")
    with caplog.at_level(logging.INFO):
        assert [curve.name for curve in read_folder(tmp_path)] == ["A", "b"]
    assert "srcnn_detect has written it: b_anomalies.csv" in caplog.text
    assert "does not end in .csv or .csv.gz: c.parquet, notes.txt" in caplog.text


def test_the_column_that_was_read_is_told(caplog):
    with caplog.at_level(logging.INFO):
        read_curve(table_of(np.arange(20.0), host="web", load=1.0), "room")
    assert "room: the values are those of the column 'load'" in caplog.text

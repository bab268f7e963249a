"""Curves and settings that cannot be used: each is told in a sentence that says what to change."""

import io

import numpy as np
import pandas as pd
import pytest

from anomaly_nb.core import DataError
from anomaly_nb.srcnn import SRCNN, SpectralResidual, read_curve


def curve(text):
    return read_curve(io.BytesIO(text.encode()), "curve")


@pytest.mark.parametrize("start", ["01/02/24", "01.02.24", "01-02-24", "01/02/2024"])
def test_a_day_that_may_be_a_month(start):
    with pytest.raises(DataError, match=f"curve: the day in '{start} 00:00' may be the month"):
        curve("time,value\n" + "".join(f"{start} {hour:02d}:00,1\n" for hour in range(24)))


@pytest.mark.parametrize("form", ["%d/%m/%y", "%m/%d/%y", "%d.%m.%y %H:%M", "%m-%d-%y", "%d.%m.%YT%H:%M"])
def test_a_day_beyond_the_twelfth_tells(form):
    march = pd.date_range("2024-03-01", "2024-03-19")
    assert curve("time,value\n" + "".join(f"{day},1\n" for day in march.strftime(form))).series.index.equals(march)


def test_a_day_that_may_be_a_year():
    with pytest.raises(DataError, match="the day in '24-01-02' may be the year"):
        curve("time,value\n24-01-02,1\n24-01-03,1\n")


@pytest.mark.parametrize("end", ["\n", "\n\n\n", ",\n,\n\n"])
def test_blank_lines_at_the_end(end):
    assert curve("time,value\n0,1\n60,\n" + end).series.index.size == 2
    with pytest.raises(DataError, match="row 3: nan is not a time"):
        curve("time,value\n0,1\n" + end + "60,2\n")
    with pytest.raises(DataError, match="only a header and no rows"):
        curve("time,value\n" + end)


@pytest.mark.parametrize(
    "text",
    [",time,value\n0,2024-03-25,1\n", "time,host,value\n2024-03-25,a,1\n", "value,Timestamp\n1,2024-03-25\n"],
)
def test_columns_in_another_order(text):
    assert curve(text).series.to_dict() == {pd.Timestamp("2024-03-25"): 1.0}
    with pytest.raises(DataError, match="more cells than the header"):
        curve("time,value\n0,1,\n60,2,\n")


def test_rows_of_several_lengths_and_masks():
    with pytest.raises(DataError, match="Pass a series, or rows of the same length"):
        SpectralResidual().fit([[1, 2], [3]])
    values = np.random.default_rng(0).normal(size=50)
    masked, gaps = np.ma.masked_less(values, -1), np.where(values < -1, np.nan, values)
    scores = SpectralResidual().fit(gaps).decision_scores_
    np.testing.assert_array_equal(SpectralResidual().fit(masked).decision_scores_, scores)


@pytest.mark.parametrize(
    "detector, settings",
    [(SpectralResidual, one) for one in ({"filter_length": 0}, {"filter_length": -5}, {"filter_length": 1})]
    + [(SpectralResidual, one) for one in ({"period": "x"}, {"period": 0}, {"local_window": -1}, {"side": "foo"})]
    + [(SpectralResidual, one) for one in ({"context": -1}, {"context": np.nan}, {"context": "a"})]
    + [(both, {"contamination": value}) for both in (SpectralResidual, SRCNN) for value in (0, np.nan, "a")]
    + [(SRCNN, one) for one in ({"window": 2}, {"steps": 1.5}, {"learning_rate": np.nan}, {"learning_rate": -1})]
    + [(SRCNN, one) for one in ({"seed": -1}, {"weight": np.inf}, {"period": "x"})],
)
def test_settings_that_nothing_can_be_learned_with(detector, settings):
    (name,) = settings
    with pytest.raises(DataError, match=f"^{name} is .*; it (must be|can be)"):
        detector(**settings).fit(np.arange(50.0))


def test_numbers_of_numpy_are_settings():
    values = np.random.default_rng(0).normal(size=100)
    whole, number = np.int64(7), np.float32(0.1)
    plain = SpectralResidual(period=whole, filter_length=whole, local_window=whole, context=number).fit(values)
    assert np.isfinite(plain.decision_scores_).all()
    SRCNN(window=whole, steps=np.int64(1), seed=whole, learning_rate=number, weight=number).fit(values, progress=False)

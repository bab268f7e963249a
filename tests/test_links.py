"""Columns that follow from each other: broken relations, gaps, columns in another order, errors."""

import numpy as np
import pandas as pd
import pytest

from anomaly_nb.core import DataError
from anomaly_nb.srcnn import SeriesDetector, learn_links


def pair(seed, broken=True):
    random = np.random.default_rng(seed)
    a = 10 * np.sin(np.arange(3000) / 23) + 2 * random.normal(size=3000)
    table = pd.DataFrame({"a": a, "b": 2 * a + 0.3 * random.normal(size=3000)})
    if broken:
        table.loc[2000:2059, "b"] = 1.5 * a[2000:2060]
    return table


@pytest.mark.parametrize("seed", range(4))
def test_a_broken_relation_is_found_with_its_place(seed):
    found = SeriesDetector().incidents(learn_links(pair(seed)).residuals(pair(seed)))
    worst = found.loc[found.groupby("column")["evidence"].idxmax()]
    assert set(worst["column"]) == {"a", "b"}
    assert worst["peak"].between(1990, 2070).all() and (worst["evidence"] > 10).all()


def test_what_was_learned_judges_other_rows_in_another_order():
    links, new = learn_links(pair(0, broken=False)), pair(1)
    np.testing.assert_array_equal(links.residuals(new[["b", "a"]]), links.residuals(new))
    assert abs(links.residuals(new)["b"].drop(range(2000, 2060))).max() < 2


def test_gaps_stay_gaps():
    table = pair(0)
    table.loc[100:110, "a"] = np.nan
    left = learn_links(table).residuals(table)
    assert left.index[left["b"].isna()].tolist() == list(range(100, 111))


def test_errors_are_sentences():
    with pytest.raises(DataError, match="at least 2 columns"):
        learn_links(pair(0)[["a"]])
    with pytest.raises(DataError, match="no column b"):
        learn_links(pair(0)).residuals(pair(0)[["a"]])

"""The tour's report: whole, self-contained, readable without network."""

import io
import json
import logging
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
from tqdm import tqdm

from anomaly_nb import tour
from anomaly_nb.core import DataError


def test_the_quick_tour_is_one_self_contained_page(quick_tour, tmp_path):
    page = (quick_tour / "index.html").read_text(encoding="utf-8")
    assert not re.search(r'(src|href)="(?!data:|#)', page), "nothing may be loaded from elsewhere"
    assert page.count("<section") == page.count("<h2>") >= 1
    assert all('alt=""' not in tag and "alt=" in tag for tag in re.findall("<img[^>]*>", page))
    assert "SRCNN" in page and "|x - median|" in page
    tables = re.findall("<table.*?</table>", page, flags=re.DOTALL)
    assert len(tables) == page.count("<section") == 5 and not any("nan" in table.lower() for table in tables)
    assert sorted(path.name for path in quick_tour.iterdir()) == [".lock", "chapters", "index.html"]


def test_an_interrupted_tour_goes_on(quick_tour, tmp_path):
    command = Path(sys.executable).with_name("anomaly_nb_tour")
    page = (quick_tour / "index.html").read_text(encoding="utf-8")
    shutil.copytree(quick_tour / "chapters", tmp_path / "report/chapters")
    kept = {path: path.stat().st_mtime_ns for path in (tmp_path / "report/chapters").iterdir()}
    subprocess.run([command, "--quick", "--out", tmp_path / "report"], check=True, cwd=tmp_path)
    assert kept == {path: path.stat().st_mtime_ns for path in (tmp_path / "report/chapters").iterdir()}
    assert (tmp_path / "report/index.html").read_text(encoding="utf-8") == page


@pytest.fixture
def made(monkeypatch):
    "The chapters that are made when all of them are empty ones."
    names = []

    def empty(name):
        return lambda quick: names.append(name) or tour.Chapter(name, "", "", "", [], pd.DataFrame(), "", ())

    monkeypatch.setattr(tour, "CHAPTERS", {name: empty(name) for name in tour.CHAPTERS})
    return names


def test_the_bar_counts_what_is_still_to_be_made(made, tmp_path, monkeypatch):
    bars = []

    def bar(**options):
        bars.append(tqdm(**options | {"disable": False, "file": io.StringIO()}))
        return bars[-1]

    monkeypatch.setattr(tour, "tqdm", bar)
    tour.anomaly_nb_tour(tmp_path, quick=True)
    for path in (tmp_path / "chapters").glob("engine_sounds*"):
        path.unlink()
    tour.anomaly_nb_tour(tmp_path, quick=True)
    assert made == [*tour.CHAPTERS, "engine sounds"]
    assert [bar.initial for bar in bars] == [0, sum(tour.SHARES.values()) - tour.SHARES["engine sounds"]]
    assert all(bar.n == bar.total for bar in bars)


def test_the_tour_leaves_the_logs_as_they_were(made, tmp_path):
    loggers = [logging.getLogger(name) for name in ("anomaly_nb.training", "anomaly_nb.dcgan")]
    before = [each.level for each in loggers]
    tour.CHAPTERS["time series"] = lambda quick: [made.append(each.getEffectiveLevel()) for each in loggers][5]
    with pytest.raises(IndexError):
        tour.anomaly_nb_tour(tmp_path, quick=True)
    assert made == [logging.WARNING] * 2 and [each.level for each in loggers] == before


@pytest.mark.parametrize("content", [["a", None], ["a", "b"], [1, "<section>"], ["a"], {}, None])
def test_a_damaged_chapter_is_named(made, tmp_path, content):
    path = tour.chapter_path("time series", tmp_path, True)
    path.write_text(json.dumps(content))
    with pytest.raises(DataError, match=f"{path.name}: .* Delete this file, and the chapter is made again"):
        tour.kept_chapter("time series", 1, tmp_path, True)


@pytest.mark.parametrize("code", [tour.GALAXIES, tour.GALAXIES_OWN, tour.MACHINES, tour.MACHINES_OWN])
def test_a_wide_table_is_cut_to_what_a_terminal_shows(code):
    assert '"score", "is_anomaly"' in code.strip().splitlines()[-1]


@pytest.mark.parametrize(
    ("code", "detector"),
    [
        (tour.GALAXIES, "SpectrumDetector()"),
        (tour.IMAGES, 'ImageDetector("DenoisingAutoencoder", options={"features": "hog"})'),
        (tour.IMAGES_OWN, 'ImageDetector("DenoisingAutoencoder", options={"features": "hog"})'),
    ],
)
def test_a_snippet_has_the_detector_of_its_chapter(code, detector):
    assert detector in code

"""The tour's report: whole, self-contained, readable without network."""

import io
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
from anomaly_nb.report import Chapter


def test_the_quick_tour_is_one_self_contained_page(quick_tour, tmp_path):
    page = (quick_tour / "index.html").read_text(encoding="utf-8")
    assert not re.search(r'(src|href)="(?!data:|#)', page), "nothing may be loaded from elsewhere"
    assert page.count("<section") == page.count("<h2>") >= 1
    assert all('alt=""' not in tag and "alt=" in tag for tag in re.findall("<img[^>]*>", page))
    assert "SRCNN" in page and "|x - median|" in page
    assert page.count('class="card"') == 5 and page.index('class="cards"') < page.index("<section")
    assert "prefers-color-scheme: dark" in page and page.count('class="bar ours"') == 5
    tables = re.findall("<table.*?</table>", page, flags=re.DOTALL)
    assert len(tables) == page.count("<section") == 5 and not any("nan" in table.lower() for table in tables)
    assert sorted(path.name for path in quick_tour.iterdir()) == [".lock", "chapters", "index.html"]


def test_an_interrupted_tour_goes_on(quick_tour, tmp_path):
    command = Path(sys.executable).with_name("anomaly_nb_tour")
    page = (quick_tour / "index.html").read_text(encoding="utf-8")
    shutil.copytree(quick_tour / "chapters", tmp_path / "report/chapters")
    kept = {path: path.stat().st_mtime_ns for path in (tmp_path / "report/chapters").glob("*.json")}
    assert len(kept) == 5
    subprocess.run([command, "--quick", "--out", tmp_path / "report"], check=True, cwd=tmp_path)
    assert kept == {path: path.stat().st_mtime_ns for path in kept}
    assert (tmp_path / "report/index.html").read_text(encoding="utf-8") == page


class Empty:
    "A system whose chapter is empty."

    def __init__(self, name, number, made):
        self.name, self.NUMBER, self.SHARE, self.made = name, number, 10 + number, made

    def chapter(self, quick):
        self.made.append(self.name)
        return Chapter(self.name, "", "", "", [], pd.DataFrame(), "", ())


@pytest.fixture
def made(monkeypatch):
    "The chapters that are made when all of them are empty ones."
    names = []
    systems = {name: Empty(name, number, names) for number, name in enumerate(tour.chapters(), 1)}
    monkeypatch.setattr(tour, "chapters", lambda: systems)
    return names


def test_every_system_has_its_place():
    assert list(tour.chapters()) == ["srcnn", "spectra", "dcgan", "fmnist", "dcase"]


def test_the_bar_counts_what_is_still_to_be_made(made, tmp_path, monkeypatch):
    bars = []

    def bar(**options):
        bars.append(tqdm(**options | {"disable": False, "file": io.StringIO()}))
        return bars[-1]

    monkeypatch.setattr("tqdm.auto.tqdm", bar)
    tour.anomaly_nb_tour(tmp_path, quick=True)
    (tmp_path / "chapters/dcgan.json").unlink()
    tour.anomaly_nb_tour(tmp_path, quick=True)
    shares = {name: system.SHARE for name, system in tour.chapters().items()}
    assert made == [*shares, "dcgan"]
    assert [bar.initial for bar in bars] == [0, sum(shares.values()) - shares["dcgan"]]
    assert all(bar.n == bar.total for bar in bars)


def test_the_tour_leaves_the_logs_as_they_were(made, tmp_path, monkeypatch):
    loggers = [logging.getLogger(name) for name in ("anomaly_nb.training", "anomaly_nb.dcgan")]
    before = [each.level for each in loggers]

    def failing(quick):
        made.extend(each.getEffectiveLevel() for each in loggers)
        raise IndexError

    monkeypatch.setattr(tour.chapters()["srcnn"], "chapter", failing)
    with pytest.raises(IndexError):
        tour.anomaly_nb_tour(tmp_path, quick=True)
    assert made == [logging.WARNING] * 2 and [each.level for each in loggers] == before


def test_a_damaged_chapter_is_named(made, tmp_path):
    tour.anomaly_nb_tour(tmp_path, quick=True)
    path = tmp_path / "chapters/srcnn.json"
    path.write_bytes(path.read_bytes()[:-2] + b"x}")
    with pytest.raises(SystemExit, match=r"srcnn\.json: differs from what was written"):
        tour.anomaly_nb_tour(tmp_path, quick=True)


def test_another_tour_in_the_folder_is_made_anew(made, tmp_path):
    for quick in (True, False):
        tour.anomaly_nb_tour(tmp_path, quick=quick)
    assert len(made) == 10


@pytest.mark.parametrize("name", ["spectra", "dcase"])
def test_a_wide_table_is_cut_to_what_a_terminal_shows(name):
    system = tour.chapters()[name]
    for code in (system.CODE, system.OWN):
        assert '"score", "is_anomaly"' in code.strip().splitlines()[-1]


@pytest.mark.parametrize(
    ("name", "detector"),
    [
        ("spectra", "SpectrumDetector()"),
        ("fmnist", "ImageDetector()"),
    ],
)
def test_a_snippet_has_the_detector_of_its_chapter(name, detector):
    assert detector in tour.chapters()[name].CODE

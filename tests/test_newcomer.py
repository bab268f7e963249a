"""The way of a newcomer: the report, a snippet of it in an empty folder, then files of one's own."""

import html
import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from forked import run_script

from anomaly_nb.datasets import sample_path
from anomaly_nb.dcase import synthesize_machines
from anomaly_nb.dcgan.engines import write_engines
from anomaly_nb.fmnist import load_subset

ROOT = Path(__file__).parents[1]
CHAPTERS = ["time series", "galaxy spectra", "engine sounds", "fashion images", "machine sounds"]


def run(code: str, folder: Path) -> str:
    "What a program prints that knows nothing but the installed package."
    strict = "import warnings\n\nwarnings.filterwarnings('error', category=UserWarning, module='anomaly_nb')\n"
    (folder / "snippet.py").write_text(strict + code, encoding="utf-8")
    paths = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    environment = os.environ | {"PYTHONPATH": paths, "MPLBACKEND": "Agg", "OMP_NUM_THREADS": "1", "IN_TEST": "1"}
    done = run_script(folder / "snippet.py", folder=folder, environment=environment)
    assert done.returncode == 0, done.stderr
    return done.stdout


def curve(folder: Path) -> None:
    times = pd.date_range("2024-03-01", periods=1200, freq="5min")
    values = 20 + 3 * np.sin(np.arange(1200) * 2 * np.pi / 288) + np.random.default_rng(0).normal(0, 0.2, 1200)
    values[1000] += 9
    pd.DataFrame({"time": times, "load": values}).to_csv(folder / "load.csv", index=False)


def galaxies(folder: Path) -> None:
    "Enough files to learn from: the bundled ones under several names."
    with zipfile.ZipFile(sample_path("spectra/sdss_objects.zip")) as archive:
        for name in archive.namelist():
            for copy in "abc":
                path = folder / "normal" / f"{copy}-{Path(name).name}"
                path.parent.mkdir(exist_ok=True)
                path.write_bytes(archive.read(name))
    (folder / "new").mkdir()
    for path in sorted((folder / "normal").glob("a-*"))[:2]:
        shutil.copy(path, folder / "new")


def engines(folder: Path) -> None:
    write_engines(folder / "engines", 6, seconds=1.5)
    shutil.copytree(folder / "engines", folder / "new")


def images(folder: Path) -> None:
    pictures, _ = load_subset("train")
    np.save(folder / "normal.npy", pictures[:200])
    np.save(folder / "new.npy", pictures[200:220])


def machines(folder: Path) -> None:
    synthesize_machines(folder / "made", ["fan"], machines=1, train=4, normal=2, anomaly=2, seconds=2)
    (folder / "made/fan/train").rename(folder / "healthy")
    (folder / "made/fan/test").rename(folder / "new")


LONG = {"galaxy spectra", "engine sounds", "fashion images"}
OWN = dict(zip(CHAPTERS, [curve, galaxies, engines, images, machines], strict=True))


@pytest.fixture(scope="module")
def report(quick_tour: Path) -> dict[str, list[str]]:
    "The two snippets of each chapter, as a reader of the built page sees them."
    page = (quick_tour / "index.html").read_text(encoding="utf-8")
    sections = re.findall("<section.*?</section>", page, re.DOTALL)
    found = [re.findall("<pre><code>(.*?)</code></pre>", section, re.DOTALL) for section in sections]
    return {name: [html.unescape(code) for code in codes] for name, codes in zip(CHAPTERS, found, strict=True)}


@pytest.mark.parametrize("chapter", CHAPTERS)
def test_a_snippet_of_the_report_runs_in_an_empty_folder(
    chapter: str, report: dict[str, list[str]], tmp_path: Path
) -> None:
    assert "score" in run(report[chapter][0], tmp_path)


@pytest.mark.parametrize(
    "chapter", [pytest.param(name, marks=pytest.mark.slow) if name in LONG else name for name in CHAPTERS]
)
def test_a_snippet_runs_with_own_files(chapter: str, report: dict[str, list[str]], tmp_path: Path) -> None:
    OWN[chapter](tmp_path)
    shown = run(report[chapter][1], tmp_path)
    assert "score" in shown
    if chapter == "time series":
        assert "2024-03-04 11:20:00" in shown, "the spike of the user's curve is found"


def blocks() -> list[str]:
    return re.findall("``` *python\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.DOTALL)


def test_the_readme_runs_as_printed(tmp_path: Path) -> None:
    own = [block for block in blocks() if "load.csv" in block]
    rest = [block for block in blocks() if "load.csv" not in block]
    assert len(own) == 1 and len(rest) >= 3
    run("\n".join(rest), tmp_path)
    curve(tmp_path)
    shown = run(own[0] + "\nprint(table[table['is_anomaly']])", tmp_path)
    assert "2024-03-04 11:20:00" in shown


def test_the_same_curve_through_the_command(tmp_path: Path) -> None:
    curve(tmp_path)
    command = re.search(r"^srcnn_detect .*$", (ROOT / "README.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert command is not None
    script, *arguments = command[0].split("#")[0].split()
    subprocess.run([Path(sys.executable).with_name(script), *arguments], cwd=tmp_path, check=True, capture_output=True)
    written = pd.read_csv(next(tmp_path.glob("*anomalies.csv")))
    assert len(written) == 1200 and written["is_anomaly"][1000]

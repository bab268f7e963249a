"""The package: a source archive that builds, a wheel that is complete and small, a base that works without extras."""

import os
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from configparser import ConfigParser
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

import pytest

from anomaly_nb.extras import EXTRAS

ROOT = Path(__file__).parents[1]
SECONDS = {"srcnn:SpectralResidual": 0.5, "dcase:SoundDetector": 1.5, "fmnist:ImageDetector": 2.5}  # of CPU time
BLOCKED = "torch lightning torchmetrics tensorboard librosa soundfile astropy pooch psutil dask distributed zarr"
BASE = f"""
import importlib, sys

class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in "{BLOCKED} pyarrow onnx onnxruntime resource fcntl IPython ipywidgets".split():
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

for name in ("resource", "fcntl"):
    sys.modules.pop(name, None)
sys.meta_path.insert(0, Missing())
"""
SERIES = """
import sys
import numpy as np, pandas as pd
from anomaly_nb.srcnn import SpectralResidual, load_kpi, microsoft_sr, training_windows
from anomaly_nb.plots import plot_detection
from anomaly_nb.spectra import SpectrumPCA, simulate_spectra

first, second = load_kpi()[0].halves()
detector = SpectralResidual().fit(first.series)
table = detector.detect(second.series)
detector.save("detector")
assert (SpectralResidual.load("detector").decision_function(second.series) == table["score"]).all()
scorer = detector.stream(first.series)
assert np.isfinite(scorer.update(float(second.series.iloc[0]))[0])
assert len(microsoft_sr(np.sin(np.arange(300.0)))) == 300 and training_windows(np.sin(np.arange(900.0)))[0].size
plot_detection(table, second.labels, detector.threshold_)
spectra = simulate_spectra(80, 0)
galaxies = SpectrumPCA(10).fit(spectra)
galaxies.save("galaxies")
again = SpectrumPCA.load("galaxies").decision_function(spectra[:3])
assert (again == galaxies.decision_function(spectra[:3])).all()
print(int(table["is_anomaly"].sum()), "torch" in sys.modules)
"""


def python(code: str, folder: Path, path: str = str(ROOT)) -> str:
    "What a program prints in a process of its own."
    paths = os.pathsep.join([path, os.environ.get("PYTHONPATH", "")])
    environment = os.environ | {"PYTHONPATH": paths, "MPLBACKEND": "agg"}
    done = subprocess.run([sys.executable, "-c", code], cwd=folder, env=environment, capture_output=True, text=True)
    assert not done.returncode, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def settings() -> dict[str, list[str]]:
    "Requirements by extra, as the names of packages; those of the base under the empty name."
    parser = ConfigParser(delimiters=["="])
    parser.read(ROOT / "settings.ini", encoding="utf-8")
    found = {key.removesuffix("requirements").rstrip("_"): value for key, value in parser["DEFAULT"].items()
             if key.endswith("requirements")}  # fmt: skip
    return {extra: re.findall(r"(?m)(?:^|\s)([\w.-]+)", text) for extra, text in found.items()}


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    "A folder with the source archive, and the wheel that was built from nothing else."
    folder = tmp_path_factory.mktemp("build")
    hidden = shutil.ignore_patterns(".git", ".venv", "__pycache__", "build", "dist", "*.egg-info", "tour", "shared")
    shutil.copytree(ROOT, folder / "sources", ignore=hidden, symlinks=True)
    command = [sys.executable, "-m", "build", "--outdir", folder, folder / "sources"]
    subprocess.run(command, check=True, capture_output=True)
    return folder


@pytest.fixture(scope="module")
def site(built: Path) -> Path:
    "The wheel, installed into a folder of its own."
    (wheel,) = built.glob("*.whl")
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check", "install", "--no-deps"]
    subprocess.run([*pip, "--target", built / "site", wheel], check=True)
    return built / "site"


def test_a_source_archive_holds_what_its_tests_need(built: Path) -> None:
    (archive,) = built.glob("*.tar.gz")
    names = {name.partition("/")[2] for name in tarfile.open(archive).getnames()}
    for folder in ("nbs", "tests", "benchmarks", "anomaly_nb", ".ci"):
        files = {path for path in (ROOT / folder).rglob("*") if path.is_file() and "__pycache__" not in path.parts}
        missing = {str(path.relative_to(ROOT)) for path in files if ".ipynb_checkpoints" not in path.parts} - names
        assert not missing
    assert {"settings.ini", "constraints.txt", "constraints-lowest.txt", "Makefile", "LICENSE", "Dockerfile"} <= names


def test_the_wheel_is_complete_and_small(built: Path) -> None:
    (wheel,) = built.glob("*.whl")
    archive = zipfile.ZipFile(wheel)
    names = set(archive.namelist())
    bundled = {str(path.relative_to(ROOT)) for path in (ROOT / "anomaly_nb/samples").rglob("*") if path.is_file()}
    modules = {str(path.relative_to(ROOT)) for path in (ROOT / "anomaly_nb").rglob("*.py")}
    assert bundled | modules | {"anomaly_nb/py.typed", "anomaly_nb/samples/LICENCES.txt"} <= names
    assert any(name.endswith("/LICENSE") for name in names) and wheel.stat().st_size < 25e6
    metadata = archive.read(next(name for name in names if name.endswith(".dist-info/METADATA"))).decode()
    assert "Classifier: Typing :: Typed" in metadata and "Project-URL: Changelog" in metadata
    links = re.findall(r"\]\(([^)]+)\)", metadata)
    assert links and all(re.match(r"https?://|#", link) for link in links)


def test_every_sample_is_in_the_list_of_licences() -> None:
    listed = (ROOT / "anomaly_nb/samples/LICENCES.txt").read_text(encoding="utf-8")
    for path in (ROOT / "anomaly_nb/samples").rglob("*"):
        assert path.is_dir() or path.suffix in (".json", ".toml", ".txt") or path.name in listed, path


def test_a_detector_runs_from_another_folder(site: Path, tmp_path: Path) -> None:
    told = python("import anomaly_nb; print(anomaly_nb.__file__)" + SERIES, tmp_path, str(site)).split()
    assert told[0].startswith(str(site)) and int(told[-2]) > 0


def test_commands_are_installed(site: Path, tmp_path: Path) -> None:
    (tmp_path / "flat.csv").write_text("timestamp,value\n" + "".join(f"{60 * i},{i % 7}\n" for i in range(200)))
    environment = os.environ | {"PYTHONPATH": str(site)}
    subprocess.run([sys.executable, site / "bin/srcnn_detect", "flat.csv"], cwd=tmp_path, env=environment, check=True)
    assert len((tmp_path / "flat_anomalies.csv").read_text().splitlines()) == 201


def test_the_base_runs_time_series_whole(tmp_path: Path) -> None:
    with_torch = python("import torch" + SERIES, tmp_path).split()
    assert python(BASE + SERIES, tmp_path).split() == [with_torch[0], "False"]


def test_what_is_missing_is_one_sentence(tmp_path: Path) -> None:
    code = """
for name in ("fmnist.ImageDetector", "dcase.SoundDetector", "srcnn.SRCNN", "training", "dcgan.train_dcgan"):
    try:
        eval("anomaly_nb." + name)
    except ModuleNotFoundError as error:
        print(error)
from anomaly_nb.dcase.commands import dcase_check
dcase_check(".")
"""
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", BASE + "import anomaly_nb" + code]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    lines = done.stdout.splitlines()
    assert len(lines) == 5 and all(re.search(r' is not installed\. .*"anomaly_nb\[\w+\]"$', line) for line in lines)
    assert done.returncode == 1 and done.stderr.startswith("error: soundfile is not installed.")


def test_extras_are_those_of_the_settings(settings: dict[str, list[str]]) -> None:
    other = {"IPython": "ipywidgets"}  # what brings a package that has no line of its own
    for extra, packages in EXTRAS.items():
        assert {other.get(name, name) for name in packages} <= set(settings[extra]), extra
    assert "anomaly_nb" in settings["dev"] and settings["all"][:1] == ["anomaly_nb"]


def test_the_base_is_small(settings: dict[str, list[str]]) -> None:
    size, seen, waiting = 0.0, set[str](), list(settings[""])
    while waiting:
        name = re.sub(r"[-_.]+", "-", waiting.pop()).lower()
        if name in seen:
            continue
        seen.add(name)
        try:
            found = distribution(name)
        except PackageNotFoundError:  # for another system
            continue
        files = [file for file in found.files or [] if file.suffix != ".pyc"]
        size += sum(file.size or 0 for file in files) / 1e6
        waiting += [re.split(r"[^\w.-]", each)[0] for each in found.requires or [] if "extra ==" not in each]
    samples = sum(path.stat().st_size for path in (ROOT / "anomaly_nb").rglob("*") if path.is_file()) / 1e6
    assert 200 < size + samples < 450, "MB on disk before Python compiles anything"


@pytest.mark.parametrize("what", SECONDS)
def test_an_import_is_quick(what: str, tmp_path: Path) -> None:
    module, name = what.split(":")
    code = f"import time; from anomaly_nb.{module} import {name}; print(time.process_time())"
    seconds = min(float(python(code, tmp_path)) for _ in range(3))
    assert seconds < 2 * SECONDS[what], "CPU time; twice the bar, because machines differ"


@pytest.mark.slow
def test_the_lowest_versions_do(tmp_path: Path) -> None:
    program = ROOT / ".venv/lowest-versions/bin/python"
    if not program.exists():
        pytest.skip("`make slow` installs the lowest versions")
    names = ["spectral_residual", "stream", "series", "microsoft", "metrics", "core"]
    tests = [ROOT / f"tests/test_{name}.py" for name in names]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "ignore"}
    done = subprocess.run([program, "-m", "pytest", "-q", *tests], cwd=tmp_path, env=environment, capture_output=True)
    assert not done.returncode, done.stdout.decode()[-3000:]

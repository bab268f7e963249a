"""The wheel: complete, and at work far from the repository."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    "The built wheel, installed into a folder of its own."
    folder = tmp_path_factory.mktemp("wheel")
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    sources = folder / "sources"
    sources.mkdir()
    for name in ("anomaly_nb", "settings.ini", "setup.py", "README.md"):
        os.symlink(ROOT / name, sources / name)
    subprocess.run([*pip, "wheel", "--no-deps", "--wheel-dir", folder, sources], check=True)
    wheel = next(folder.glob("*.whl"))
    subprocess.run([*pip, "install", "--no-deps", "--target", folder / "site", wheel], check=True)
    return folder, wheel


def test_the_wheel_is_complete_and_small(installed):
    _, wheel = installed
    names = set(zipfile.ZipFile(wheel).namelist())
    bundled = {str(path.relative_to(ROOT)) for path in (ROOT / "anomaly_nb/samples").rglob("*") if path.is_file()}
    modules = {str(path.relative_to(ROOT)) for path in (ROOT / "anomaly_nb").rglob("*.py")}
    assert bundled | modules | {"anomaly_nb/py.typed"} <= names
    assert wheel.stat().st_size < 30e6


def test_a_detector_runs_from_another_folder(installed, tmp_path):
    folder, _ = installed
    environment = os.environ | {"PYTHONPATH": str(folder / "site")}
    code = (
        "import anomaly_nb; from anomaly_nb.srcnn import SpectralResidual, load_kpi; "
        "print(anomaly_nb.__file__, SpectralResidual().fit(load_kpi()[0].series).labels_.sum())"
    )
    shown = subprocess.check_output([sys.executable, "-c", code], cwd=tmp_path, env=environment, text=True)
    assert shown.startswith(str(folder)) and int(shown.split()[-1]) > 0


def test_commands_are_installed(installed, tmp_path):
    folder, _ = installed
    environment = os.environ | {"PYTHONPATH": str(folder / "site")}
    (tmp_path / "flat.csv").write_text("timestamp,value\n" + "".join(f"{60 * i},{i % 7}\n" for i in range(200)))
    command = folder / "site" / "bin" / "srcnn_detect"
    subprocess.run([sys.executable, command, "flat.csv"], cwd=tmp_path, env=environment, check=True)
    assert len((tmp_path / "flat_anomalies.csv").read_text().splitlines()) == 201

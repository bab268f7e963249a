"""Commands on folders as they are in life."""

import json
import subprocess
import sys
import zipfile

import numpy as np
import pandas as pd
import pytest

from anomaly_nb.datasets import sample_path
from anomaly_nb.spectra import simulate_spectra, write_table
from anomaly_nb.spectra.commands import spectra_detect, spectra_train


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    spectra_train(simulate=150, baseline=True, out=folder)
    return folder


@pytest.fixture
def night(tmp_path):
    folder = tmp_path / "night"
    folder.mkdir()
    with zipfile.ZipFile(sample_path("spectra/sdss_objects.zip")) as archive:
        for name in archive.namelist()[:3]:
            archive.extract(name, folder)
        content = archive.read(archive.namelist()[3])
    (folder / "cut.fits").write_bytes(content[:60_000])
    (folder / "page.fits").write_text("<html>503</html>")
    (folder / "empty.csv").write_text("")
    spectra = simulate_spectra(4, 3)
    spectra.z[1] = np.nan
    write_table(spectra, folder / "table.npz")
    return folder


def test_a_night_with_faults(model, night, tmp_path):
    spectra_detect(night, model=model, out=tmp_path / "out", figures=1)
    table, skipped = (pd.read_csv(tmp_path / "out" / name) for name in ("table.csv", "skipped.csv"))
    assert len(table) == 6 and len(skipped) == 4
    assert {"cut", "page", "empty"} < set(skipped["id"])
    assert json.loads((tmp_path / "out" / "summary.json").read_text())["spectra"] == 6
    assert len(list((tmp_path / "out" / "figures").iterdir())) == 1


def test_resume_gives_the_same(model, night, tmp_path):
    spectra_detect(night, model=model, out=tmp_path / "out", figures=0)
    whole = (tmp_path / "out" / "table.csv").read_text()
    results = sorted((tmp_path / "out" / "results").iterdir())
    for path in results[::2]:
        path.unlink()
    kept = {path: path.stat().st_mtime_ns for path in results[1::2]}
    spectra_detect(night, model=model, out=tmp_path / "out", figures=0)
    assert (tmp_path / "out" / "table.csv").read_text() == whole
    assert kept == {path: path.stat().st_mtime_ns for path in kept}


def test_errors_are_one_line(model, tmp_path):
    script = tmp_path / "spectra_detect.py"
    script.write_text("from anomaly_nb.spectra.commands import spectra_detect\n\nspectra_detect()\n")
    arguments = ["nowhere", "--model", str(model), "--out", str(tmp_path / "out")]
    run = subprocess.run([sys.executable, script, *arguments], capture_output=True, text=True)
    assert run.returncode == 1 and run.stderr.splitlines()[-1].startswith("error: nowhere: no .fits, .npz or .csv")
    assert "Traceback" not in run.stderr
    with pytest.raises(SystemExit, match="no trained detector here"):
        spectra_detect(tmp_path, model=tmp_path / "empty", out=tmp_path / "out")


def test_training_on_a_folder(tmp_path):
    write_table(simulate_spectra(80, 0), tmp_path / "normal" / "a.npz")
    spectra_train(tmp_path / "normal", out=tmp_path / "model", epochs=0)
    spectra_detect(tmp_path / "normal", model=tmp_path / "model", out=tmp_path / "out", figures=0)
    assert len(pd.read_csv(tmp_path / "out" / "table.csv")) == 80
    with pytest.raises(SystemExit, match="too few"):
        write_table(simulate_spectra(5, 0), tmp_path / "few.npz")
        spectra_train(tmp_path / "few.npz", out=tmp_path / "none")


@pytest.mark.slow
def test_two_processes_train_together(tmp_path):
    write_table(simulate_spectra(80, 0), tmp_path / "normal.npz")
    script = tmp_path / "spectra_train.py"
    script.write_text("from anomaly_nb.spectra.commands import spectra_train\n\nspectra_train()\n")
    options = ["--device", "cpu", "--devices", "2", "--strategy", "ddp", "--epochs", "4", "--out", tmp_path / "model"]
    run = subprocess.run(
        [sys.executable, script, "--source", tmp_path / "normal.npz", *options], capture_output=True, text=True
    )
    assert run.returncode == 0, run.stderr
    assert run.stderr.count("kept in") == 1
    spectra_detect(tmp_path / "normal.npz", model=tmp_path / "model", out=tmp_path / "out", figures=0)
    assert len(pd.read_csv(tmp_path / "out" / "table.csv")) == 80


def test_a_processor_that_is_not_there(tmp_path):
    with pytest.raises(SystemExit, match="expected one of auto, cpu"):
        spectra_train(simulate=80, out=tmp_path / "model", device="abacus")
    assert not (tmp_path / "model").exists()


@pytest.mark.parametrize("where", ["cores", "cluster"])
def test_cores_and_a_cluster_find_what_one_process_finds(model, night, tmp_path, where, request):
    spectra_detect(night, model=model, out=tmp_path / "one", figures=0)
    engine = {"workers": 2}
    if where == "cluster":
        engine = {"scheduler": request.getfixturevalue("cluster").address}
    spectra_detect(night, model=model, out=tmp_path / "many", figures=0, chunk_size=2, **engine)
    for name in ("table.csv", "regions.csv", "skipped.csv"):
        assert (tmp_path / "one" / name).read_text() == (tmp_path / "many" / name).read_text()

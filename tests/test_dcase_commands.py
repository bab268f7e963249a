"""The documented commands, as a user types them."""

import logging
import os
import subprocess
import sys

import pytest

from anomaly_nb.dcase.commands import dcase_check, dcase_study, dcase_synthesize, dcase_train_vqvae


def run(folder, command, *arguments):
    "One command in a folder, by a file like the one that an installation makes."
    script = folder / "bin" / command
    script.parent.mkdir(exist_ok=True)
    script.write_text(f"import sys\nfrom anomaly_nb.dcase.commands import {command}\nsys.exit({command}())\n")
    return subprocess.run(
        [sys.executable, "-W", "ignore", script, *map(str, arguments)],
        cwd=folder,
        capture_output=True,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    folder = tmp_path_factory.mktemp("project")
    arguments = "--types fan --machines 1 --train 6 --normal 3 --anomaly 3 --seconds 2.05".split()
    done = run(folder, "dcase_synthesize", "data", *arguments)
    assert done.returncode == 0 and "12 clips are in data" in done.stderr
    return folder


def test_check(project):
    (project / "data/fan/test/odd.wav").write_bytes(b"x")
    bad = run(project, "dcase_check", "data")
    (project / "data/fan/test/odd.wav").unlink()
    assert bad.returncode == 1 and "odd.wav" in bad.stderr and "Traceback" not in bad.stderr


def test_check_against_the_official_counts(project, caplog):
    with caplog.at_level(logging.INFO):
        dcase_check(project / "data", official=True, out=project / "problems.csv")
    assert "officially 3675" in caplog.text and "officially" in (project / "problems.csv").read_text()


def test_train_then_study(project):
    dcase_train_vqvae(project / "data", "fan", epochs=1, batch_size=4, device="cpu", checkpoints=project / "networks")
    assert (project / "networks/stage1/fan/stage1_fan_best.pt").exists()
    dcase_study(str(project / "data"), out=project / "results", checkpoints=project / "networks")
    names = {str(path.relative_to(project / "results")) for path in (project / "results").rglob("*") if path.is_file()}
    assert {"study.html", "study.csv", "maps/fan_id_00.npz", "residuals/study.html"} <= names


def test_mistakes_are_sentences(project):
    for mistake in (
        lambda: dcase_check(project / "nowhere"),
        lambda: dcase_study(str(project / "data"), types="pump"),
        lambda: dcase_train_vqvae(project / "data", "pump"),
        lambda: dcase_train_vqvae(project / "data", "fan", preset="huge"),
        lambda: dcase_synthesize(project / "more", types="rocket"),
    ):
        with pytest.raises(SystemExit, match=r"^error: .*\."):
            mistake()

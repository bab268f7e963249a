"""The documented commands, as a user types them."""

import os
import subprocess
import sys

import pytest


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
    good = run(project, "dcase_check", "data", "--out", "problems.csv")
    assert good.returncode == 0 and "No problem found" in good.stderr
    official = run(project, "dcase_check", "data", "--official")
    assert "officially 3675" in official.stderr
    (project / "data/fan/test/odd.wav").write_bytes(b"x")
    bad = run(project, "dcase_check", "data")
    (project / "data/fan/test/odd.wav").unlink()
    assert bad.returncode == 1 and "odd.wav" in bad.stderr and "Traceback" not in bad.stderr


def test_train_then_study(project):
    trained = run(project, "dcase_train_vqvae", "data", "fan", "--epochs", 1, "--batch_size", 4, "--device", "cpu")
    assert trained.returncode == 0, trained.stderr
    assert (project / "checkpoints/small/stage1/fan/stage1_fan_best.pt").exists()
    studied = run(project, "dcase_study", "data", "--out", "results")
    assert studied.returncode == 0, studied.stderr
    names = {str(path.relative_to(project / "results")) for path in (project / "results").rglob("*") if path.is_file()}
    assert {"study.html", "study.csv", "maps/fan_id_00.npz", "residuals/study.html"} <= names


def test_mistakes_are_sentences(project):
    for command, *arguments in (
        ("dcase_check", "nowhere"),
        ("dcase_study", "data", "--types", "pump"),
        ("dcase_train_vqvae", "data", "pump"),
        ("dcase_synthesize", "more", "--types", "rocket"),
    ):
        done = run(project, command, *arguments)
        assert done.returncode == 1 and done.stderr.startswith("error: ") and "Traceback" not in done.stderr

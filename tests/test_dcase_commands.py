"""The documented commands, as a user types them."""

import logging
import shutil
import sys

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import on_two_machines, rank_by_hand, rank_by_slurm
from forked import run_script

from anomaly_nb.core import DataError
from anomaly_nb.dcase import Rebuilder, checkpoint_path, machines, study, train_vqvae, vqvae
from anomaly_nb.dcase.commands import dcase_check, dcase_study, dcase_synthesize, dcase_train_vqvae
from anomaly_nb.training import read_weights


def script(folder, command, *arguments):
    "How a command is called, by a file like the one that an installation makes."
    path = folder / "bin" / command
    path.parent.mkdir(exist_ok=True)
    path.write_text(f"import sys\nfrom anomaly_nb.dcase.commands import {command}\nsys.exit({command}.main())\n")
    return [sys.executable, "-W", "ignore", path, *map(str, arguments)]


def run(folder, command, *arguments):
    "One command in a folder."
    return run_script(*script(folder, command, *arguments)[3:], folder=folder)


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    folder = tmp_path_factory.mktemp("project")
    arguments = "--types fan --machines 1 --train 6 --normal 3 --anomaly 3 --seconds 2.05".split()
    done = run(folder, "dcase_synthesize", "data", *arguments)
    assert done.returncode == 0 and "12 clips were written to data" in done.stderr
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


@pytest.mark.slow
def test_two_processes_and_two_machines_train_what_one_trains(project):
    words = ["data", "fan", "--epochs", 2, "--batch_size", 2, "--device", "cpu"]
    for devices in (1, 2):
        trained = run(project, "dcase_train_vqvae", *words, "--devices", devices, "--checkpoints", f"by{devices}")
        assert trained.returncode == 0 and trained.stderr.count("The network is in") == 1, trained.stderr
    for name, ranked in (("machines", rank_by_hand), ("slurm", rank_by_slurm)):
        command = script(project, "dcase_train_vqvae", *words, "--nodes", 2, "--checkpoints", name)
        told = on_two_machines(command, project, ranked)
        assert ["The network is in" in text for text in told] == [True, False]
    places = [checkpoint_path(project / name, "fan") for name in ("by1", "by2", "machines", "slurm")]
    processes, *machines = (read_weights(place)["model_state_dict"] for place in places[1:])
    for name, value in processes.items():
        for other in machines:
            torch.testing.assert_close(other[name], value, rtol=1e-4, atol=1e-6, msg=name)
    losses = [pd.read_csv(place.with_name("training") / "metrics.csv")["val_loss"].dropna() for place in places]
    assert np.allclose(losses[1], losses[0], rtol=0.01)  # the first entries come from the first process's clips


def test_a_second_call_keeps_what_is_there(tmp_path):
    arguments = {"machines": 1, "train": 2, "normal": 1, "anomaly": 2, "seconds": 1}
    dcase_synthesize(tmp_path, types="fan", **arguments)
    first = pd.read_csv(tmp_path / "manifest.csv")
    dcase_synthesize(tmp_path, types="pump", severity=3, **arguments)
    both = pd.read_csv(tmp_path / "manifest.csv")
    pd.testing.assert_frame_equal(both.iloc[:5], first)
    assert both["type"].tolist() == ["fan"] * 5 + ["pump"] * 5 and both["file"].is_unique
    dcase_synthesize(tmp_path, types="fan", severity=6, **arguments | {"anomaly": 1})
    again = pd.read_csv(tmp_path / "manifest.csv")
    assert again["file"].tolist() == both["file"].tolist()
    assert again.loc[again["label"] == 1, "severity"].tolist() == [6, 12, 3, 3]
    for text in ("", "a,b\n1,2\n"):
        (tmp_path / "manifest.csv").write_text(text)
        with pytest.raises(SystemExit, match=r"manifest\.csv: .* move it away"):
            dcase_synthesize(tmp_path, types="fan", **arguments)


@pytest.mark.parametrize("other", [{"seed": 5}, {"snr": 3}, {"seconds": 2}])
def test_one_machine_is_not_mixed_from_two(tmp_path, other):
    small = {"types": "fan", "machines": 1, "train": 2, "normal": 1, "anomaly": 1, "seconds": 1}
    dcase_synthesize(tmp_path, **small)
    kept = (tmp_path / "manifest.csv").read_bytes()
    with pytest.raises(SystemExit, match=r"normal_id_00_00000001\.wav: made with another seed, snr or length"):
        dcase_synthesize(tmp_path, **small | {"train": 1} | other)
    assert (tmp_path / "manifest.csv").read_bytes() == kept
    dcase_synthesize(tmp_path, **small | other)  # replaces all
    dcase_synthesize(tmp_path, **small | other | {"train": 1})
    ((name, value),) = other.items()
    table = pd.read_csv(tmp_path / "manifest.csv")
    assert len(table) == 4 and (table[name] == value).all()


def test_a_killed_call_leaves_no_untrue_row(tmp_path, monkeypatch):
    small = {"types": "fan", "machines": 1, "train": 2, "normal": 1, "anomaly": 1, "seconds": 1}
    dcase_synthesize(tmp_path, **small | {"types": "fan,pump"})
    monkeypatch.setattr(machines, "_write_clip", lambda *_: sys.exit("killed"))
    with pytest.raises(SystemExit, match="killed"):
        dcase_synthesize(tmp_path, **small, seed=5)
    assert set(pd.read_csv(tmp_path / "manifest.csv")["type"]) == {"pump"}
    monkeypatch.undo()
    with pytest.raises(SystemExit, match="made with another seed"):
        dcase_synthesize(tmp_path, **small | {"train": 1}, seed=6)
    dcase_synthesize(tmp_path, **small, seed=5)
    assert len(pd.read_csv(tmp_path / "manifest.csv")) == 8


def test_an_interrupted_call_goes_on(tmp_path, monkeypatch):
    small = {"types": "fan", "machines": 1, "train": 3, "normal": 2, "anomaly": 2, "seconds": 1}
    dcase_synthesize(tmp_path / "whole", **small)
    render, rendered = machines.render_clip, []

    def stops(*place):
        if len(rendered) == 5:
            sys.exit("killed")
        rendered.append(place)
        return render(*place)

    monkeypatch.setattr(machines, "render_clip", stops)
    with pytest.raises(SystemExit, match="killed"):
        dcase_synthesize(tmp_path / "parts", **small)
    monkeypatch.setattr(machines, "render_clip", lambda *place: (rendered.append(place), render(*place))[1])
    with pytest.raises(SystemExit, match=r"holds results of another job .severity: 12\.0 -> 3"):
        dcase_synthesize(tmp_path / "parts", **small, severity=3)
    (tmp_path / "parts/fan/train/normal_id_00_00000001.wav").write_bytes(b"damaged since")
    dcase_synthesize(tmp_path / "parts", **small)
    assert len(rendered) == 5 + 3
    for path in (tmp_path / "whole").rglob("*.*"):
        assert path.read_bytes() == (tmp_path / "parts" / path.relative_to(tmp_path / "whole")).read_bytes(), path
    assert not (tmp_path / "parts/fan/unfinished").exists()
    monkeypatch.setattr(machines, "render_clip", stops)
    rendered.clear()
    with pytest.raises(SystemExit, match="killed"):
        dcase_synthesize(tmp_path / "parts", **small)
    monkeypatch.undo()
    dcase_synthesize(tmp_path / "parts", **small, severity=3, restart=True)
    assert pd.read_csv(tmp_path / "parts/manifest.csv")["severity"].max() == 3


def test_networks_are_found_in_both_places(project, tmp_path, monkeypatch, caplog):
    trained = train_vqvae(project / "data", "fan", project / "one", epochs=1, accelerator="cpu", progress=False)
    monkeypatch.chdir(tmp_path)
    read = []
    monkeypatch.setattr(vqvae, "Rebuilder", lambda path: read.append(path) or Rebuilder(path))
    with caplog.at_level(logging.INFO):
        dcase_study(str(project / "data"), out=tmp_path / "results")
    assert "no trained network at checkpoints/stage1/fan/stage1_fan_best.pt or checkpoints/small/stage1" in caplog.text
    for place in (checkpoint_path("checkpoints/small", "fan"), checkpoint_path("checkpoints", "fan")):
        place.parent.mkdir(parents=True)
        shutil.copy(trained, place)
        dcase_study(str(project / "data"), out=tmp_path / "results")
        assert read[-1] == place and (tmp_path / "results/residuals/study.html").exists()


def test_a_machine_that_fails_is_listed_and_costs_the_status(project, tmp_path, monkeypatch, caplog):
    read = study.MachineReader.study

    def fails(reader, *names):
        if names[1] == "id_02":
            raise DataError("The drive was unplugged.")
        return read(reader, *names)

    small = {"types": "pump", "machines": 2, "train": 3, "normal": 2, "anomaly": 2, "seconds": 2}
    dcase_synthesize(tmp_path / "data", **small)
    monkeypatch.setattr(study.MachineReader, "study", fails)
    with caplog.at_level(logging.INFO):
        assert dcase_study(str(tmp_path / "data"), out=tmp_path / "out") == 1
    assert "1 of 2 machines could not be judged" in caplog.text and "pump id_02: The drive" in caplog.text
    monkeypatch.undo()
    assert dcase_study(str(tmp_path / "data"), types="", out=tmp_path / "out", scheduler="") == 0


def test_mistakes_are_sentences(project):
    for mistake in (
        lambda: dcase_check(project / "nowhere"),
        lambda: dcase_study(str(project / "data"), types="pump"),
        lambda: dcase_train_vqvae(project / "data", "pump"),
        lambda: dcase_train_vqvae(project / "data", "fan", preset="huge"),
        lambda: dcase_train_vqvae(project / "data", "fan", seed=-1),
        lambda: dcase_train_vqvae(project / "data", "fan", lr=float("nan")),
        lambda: dcase_synthesize(project / "more", types="rocket"),
    ):
        with pytest.raises(SystemExit, match=r"^error: .*\."):
            mistake()

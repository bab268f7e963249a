"""The documented commands, as a user types them."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import on_two_machines

from anomaly_nb.core import folder_lock
from anomaly_nb.scale import Shards
from anomaly_nb.srcnn import load_kpi
from anomaly_nb.srcnn.commands import srcnn_generate_data, srcnn_train
from anomaly_nb.srcnn.network import SRCNNNetwork


def run(folder, *arguments):
    "One command in a folder, as its console script runs it."
    script = Path(sys.executable).with_name(arguments[0])
    return subprocess.run(
        [script, *arguments[1:]], cwd=folder, capture_output=True, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"}
    )


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    folder = tmp_path_factory.mktemp("project")
    for curve in load_kpi():
        for part, half in zip(("train", "test"), curve.halves(), strict=True):
            path = folder / "datasets/kpi" / part / f"{curve.name}.csv"
            path.parent.mkdir(parents=True, exist_ok=True)
            half.series.to_frame().assign(label=half.truth.astype(int)).to_csv(path)
    short = folder / "datasets/kpi/train/short.csv"
    short.write_text("timestamp,value\n" + "".join(f"{60 * i},1\n" for i in range(20)))
    return folder


def test_the_documented_way(project):
    made = run(project, "srcnn_generate_data", "--dataset", "kpi", "--window", "32", "--step", "64")
    assert made.returncode == 0 and "short: 20 points are no more than the window" in made.stderr
    pairs = json.loads((project / "datasets/kpi/train.json").read_text())
    assert np.shape(pairs) == (274, 2, 32)
    trained = run(project, "srcnn_train", "--dataset", "kpi", "--window", "32", "--epoch", "12", "--num_workers", "0")
    assert trained.returncode == 0, trained.stderr
    assert "epoch 12/12: loss" in trained.stderr and "learning rate changed from 1e-06 to 5e-07" in trained.stderr
    assert "NOT better than the plain spectral residual" in trained.stderr and "--recipe tuned" in trained.stderr
    names = sorted(path.name for path in (project / "snapshot").glob("*.bin"))
    assert names == ["srcnn_retry10_32.bin", "srcnn_retry12_32.bin", "srcnn_retry5_32.bin"]
    state = torch.load(project / "snapshot/srcnn_retry5_32.bin", weights_only=True)
    assert sum(value.numel() for value in state.values()) == 15 * 32**2 + 8 * 32
    checkpoint = "snapshot/srcnn_retry12_32.bin"
    judged = run(project, "srcnn_evaluate", "--dataset", "kpi", "--checkpoint", checkpoint)
    assert judged.returncode == 0 and "srcnn_retry12_32.bin" in judged.stdout and "SpectralResidual" in judged.stdout
    loaded = run(project, "srcnn_train", "--dataset", "kpi", "--epoch", "1", "--load", checkpoint, "--save", "more")
    assert loaded.returncode == 0 and (project / "more/srcnn_retry1_32.bin").exists()
    found = run(project, "srcnn_detect", "datasets/kpi/test/cpu4.csv", "--checkpoint", checkpoint, "--out", "c.csv")
    assert found.returncode == 0 and len(pd.read_csv(project / "c.csv")) == 8784


def test_detection_without_training(project):
    found = run(project, "srcnn_detect", "datasets/kpi/test/cpu4.csv", "--side", "upper")
    assert found.returncode == 0, found.stderr
    table = pd.read_csv(project / "datasets/kpi/test/cpu4_anomalies.csv")
    assert (
        table["is_anomaly"].sum() > 0
        and (table["upper"][table["is_anomaly"]] < table["value"][table["is_anomaly"]]).all()
    )


def test_two_processes_and_two_machines_train_what_one_trains(project):
    shutil.copytree(project / "datasets/kpi/train", project / "datasets/pair/train")
    assert run(project, "srcnn_generate_data", "--dataset", "pair").returncode == 0
    words = ["--dataset", "pair", "--epoch", "2", "--batch_size", "100", "--num_workers", "0", "--device", "cpu"]
    words += ["--lr", "1e-5", "--optimizer", "sgd"]
    for number in ("1", "2"):
        trained = run(project, "srcnn_train", *words, "--devices", number, "--save", f"by{number}")
        assert trained.returncode == 0, trained.stderr
    script, several = Path(sys.executable).with_name("srcnn_train"), ["--nodes", "2", "--save", "machines"]
    told = on_two_machines([script, *words, *several], project)
    assert ["epoch 2/2: loss" in text for text in told] == [True, False]
    folders = ["by1", "by2", "machines"]
    alone, *others = (torch.load(project / name / "srcnn_retry2_32.bin", weights_only=True) for name in folders)
    torch.manual_seed(54321)
    for name, before in SRCNNNetwork(32).state_dict().items():
        for other in others:
            assert (other[name] - alone[name]).norm() < 1e-3 * (alone[name] - before).norm(), name


def test_a_folder_of_checkpoints_belongs_to_one_training(project, monkeypatch):
    monkeypatch.chdir(project)
    for name in ("first", "second"):
        shutil.copytree("datasets/kpi/train", f"datasets/{name}/train")
        srcnn_generate_data(name, step=256)
    words = {"epoch": 1, "num_workers": 0, "device": "cpu", "save": Path("own")}
    srcnn_train("first", **words)
    kept = Path("own/srcnn_retry1_32.bin").read_bytes()
    with pytest.raises(SystemExit, match="own: holds log_first_32_documented of another training"):
        srcnn_train("second", **words)
    with folder_lock("own"), pytest.raises(SystemExit, match="another run works here"):
        srcnn_train("first", **words)
    srcnn_train("first", **words)
    shutil.rmtree("own/log_first_32_documented")
    with pytest.raises(SystemExit, match=r"own: holds srcnn_retry1_32\.bin of another training"):
        srcnn_train("first", **words)
    assert Path("own/srcnn_retry1_32.bin").read_bytes() == kept


@pytest.mark.slow
def test_the_tuned_recipe_beats_the_saliency(project):
    trained = run(
        project, "srcnn_train", "--dataset", "kpi", "--recipe", "tuned", "--save", "tuned", "--num_workers", "0"
    )
    assert "is better than the plain spectral residual" in trained.stderr


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["srcnn_generate_data", "--dataset", "none"], "no CSV file in this folder"),
        (["srcnn_generate_data", "--dataset", "kpi", "--window", "9000"], "No curve is longer than the window"),
        (["srcnn_train", "--dataset", "none"], "Run srcnn_generate_data first"),
        (["srcnn_train", "--dataset", "kpi", "--recipe", "magic"], "expected documented or tuned"),
        (["srcnn_train", "--dataset", "kpi", "--device", "toaster"], "expected one of auto, cpu"),
        (["srcnn_detect", "datasets/kpi/test", "--scheduler", "bogus"], "expected an address"),
        (["srcnn_detect", "absent.csv"], "absent.csv: No such file or directory"),
        (["srcnn_detect", "datasets/kpi/test/cpu4.csv", "--checkpoint", "no.bin"], "no such checkpoint"),
        (["srcnn_evaluate", "--dataset", "none"], "no CSV file in this folder"),
    ],
)
def test_faults_are_one_sentence(project, arguments, message):
    ended = run(project, *arguments)
    assert ended.returncode == 1 and message in ended.stderr and "Traceback" not in ended.stderr


@pytest.mark.parametrize(
    "name", ["srcnn_generate_data", "srcnn_train", "srcnn_evaluate", "srcnn_detect", "anomaly_nb_tour"]
)
def test_help_has_an_example(project, name):
    shown = run(project, name, "--help")
    assert shown.returncode == 0 and f"Example: {name}" in " ".join(shown.stdout.split())


def curves_in(folder, count):
    "A folder of short curves with a jump each, and one file that is no curve."
    folder.mkdir()
    for number in range(count):
        values = np.random.default_rng(number).normal(size=400).round(3)
        values[250 + number] += 20
        rows = "".join(f"{60 * i},{value}\n" for i, value in enumerate(values))
        (folder / f"{number:02d}.csv").write_text("timestamp,value\n" + rows)
    (folder / "notes.csv").write_text("nothing\n")


@pytest.mark.parametrize("where", ["cores", "cluster"])
def test_a_folder_of_curves(tmp_path, where, request):
    curves_in(tmp_path / "load", 8)
    engine = ["--workers", "2"]
    if where == "cluster":
        engine = ["--scheduler", request.getfixturevalue("cluster").address]
    for _ in range(2):  # the second call finds everything done
        found = run(tmp_path, "srcnn_detect", "load", "--chunk_size", "3", *engine)
        assert found.returncode == 0, found.stderr
        assert "3200 points of 9 curves are in load_anomalies; 1 failed" in found.stderr
    failed = pd.read_csv(tmp_path / "load_anomalies/failed.csv")
    assert failed["item"].tolist() == [str(tmp_path / "load/notes.csv")] and "notes.csv" in failed["reason"][0]
    table = Shards(tmp_path / "load_anomalies").table()
    for number in range(8):
        mine = table[table["file"] == str(tmp_path / f"load/{number:02d}.csv")]
        assert len(mine) == 400 and mine["is_anomaly"].iloc[250 + number]
    alone = run(tmp_path, "srcnn_detect", "load/00.csv")  # its table is no curve of the folder
    assert alone.returncode == 0 and (tmp_path / "load/00_anomalies.csv").exists()
    again = run(tmp_path, "srcnn_detect", "load", "--chunk_size", "3", *engine)
    assert "3200 points of 9 curves are in load_anomalies; 1 failed" in again.stderr
    assert "left out, since srcnn_detect has written it: 00_anomalies.csv" in again.stderr
    other = run(tmp_path, "srcnn_detect", "load", "--side", "upper")
    assert other.returncode == 1 and "holds another job" in other.stderr

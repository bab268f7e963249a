"""The documented commands, as a user types them."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from anomaly_nb.scale import Shards
from anomaly_nb.srcnn import load_kpi


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
        (["srcnn_detect", "absent.csv"], "absent.csv: [Errno 2] No such file or directory"),
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
    other = run(tmp_path, "srcnn_detect", "load", "--side", "upper")
    assert other.returncode == 1 and "holds another job" in other.stderr

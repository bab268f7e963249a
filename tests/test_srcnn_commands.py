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
from forked import run_script

from anomaly_nb.core import folder_lock
from anomaly_nb.metrics import best_delay_f1, delay_f1
from anomaly_nb.srcnn import load_kpi
from anomaly_nb.srcnn.commands import srcnn_detect, srcnn_evaluate, srcnn_generate_data, srcnn_train
from anomaly_nb.srcnn.jobs import evaluate_curves
from anomaly_nb.srcnn.network import SRCNNNetwork
from anomaly_nb.srcnn.recipes import first_network
from anomaly_nb.srcnn.series import Curve


def run(folder, name, *arguments):
    "One command in a folder, as its console script runs it."
    script = Path(sys.executable).with_name(name)
    if "--workers" in arguments:  # a process with workers is started by itself: a forked one would wait for them
        words = [script, *arguments]
        return subprocess.run(words, cwd=folder, capture_output=True, text=True)
    return run_script(script, *arguments, folder=folder)


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
    assert (
        "NOT better than the plain spectral residual" in trained.stderr
        and "--recipe tuned --save tuned" in trained.stderr
    )
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


def test_shapes_and_kinds_in_a_table(project):
    out = project / "everyday.csv"
    assert srcnn_detect([project / "datasets/kpi/test/cpu4.csv"], out=str(out), method="everyday") == 0
    table = pd.read_csv(out)
    assert list(table.columns[-5:]) == ["point", "shape", "is_anomaly", "incident", "kind"]
    assert (table.groupby("incident")["kind"].nunique(dropna=False) == 1).all()
    assert table.loc[table["is_anomaly"], "incident"].min() == 1


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
    "arguments, message",
    [
        (["srcnn_train", "--dataset", "kpi", "--recipe", "magic"], "'magic' is not one of 'documented', 'tuned'"),
        (["srcnn_train", "--dataset", "kpi", "--optimizer", "adagrad"], "'adagrad' is not one of 'adam', 'sgd'"),
        (["srcnn_train", "--dataset", "kpi", "--epoch", "many"], "'many' is not a valid integer"),
        (["srcnn_detect", "a.csv", "--side", "up"], "'up' is not one of 'both', 'upper', 'lower'"),
        (["srcnn_detect"], "Missing argument 'FILE...'"),
    ],
)
def test_what_the_parser_refuses_has_status_2(project, arguments, message):
    ended = run(project, *arguments)
    assert ended.returncode == 2 and message in ended.stderr and "Traceback" not in ended.stderr


@pytest.mark.parametrize(
    "choice, message", [({"recipe": "magic"}, "expected documented or tuned"), ({"optimizer": "x"}, "adam or sgd")]
)
def test_choices_are_checked_from_python_too(project, monkeypatch, choice, message):
    monkeypatch.chdir(project)
    with pytest.raises(SystemExit, match=message):
        srcnn_train("kpi", **{"recipe": "tuned"} | choice)


@pytest.fixture
def curves(tmp_path, monkeypatch):
    "A folder with three curves, and one beside them; the working directory is around them."
    monkeypatch.chdir(tmp_path)
    curves_in(tmp_path / "curves", 3)
    Path("curves/notes.csv").unlink()
    shutil.copy("curves/00.csv", "l2.csv")
    Path("junk.bin").write_bytes(b"junk")
    return tmp_path / "curves"


@pytest.mark.parametrize(
    "command, arguments, message",
    [
        (srcnn_generate_data, {"seed": -1}, "seed is -1; it must be a whole number, at least 0"),
        (srcnn_train, {"seed": -1}, "seed is -1"),
        (srcnn_train, {"epoch": 0}, "epoch is 0; it must be a whole number, at least 1"),
        (srcnn_train, {"epoch": -1}, "epoch is -1"),
        (srcnn_train, {"batch_size": 0}, "batch_size is 0"),
        (srcnn_train, {"num_workers": -1}, "num_workers is -1"),
        (srcnn_train, {"lr": float("nan")}, "lr is nan; it must be a number from 0"),
        (srcnn_train, {"lr": -1.0}, "lr is -1"),
        (srcnn_evaluate, {"delay": -1}, "delay is -1; it must be a whole number, at least 0"),
    ],
)
def test_wrong_numbers_are_told_before_anything_is_written(project, monkeypatch, command, arguments, message):
    monkeypatch.chdir(project)
    before = sorted(project.rglob("*"))
    with pytest.raises(SystemExit, match=message):
        command("kpi", **arguments)
    assert sorted(project.rglob("*")) == before


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"file": "curves", "side": "foo"}, "side is 'foo'; it can be"),
        ({"file": "curves", "checkpoint": "junk.bin"}, "junk.bin: not a readable checkpoint"),
        ({"file": "curves", "out": "curves"}, "curves: holds the curves.*another --out"),
        ({"file": "curves", "out": "."}, "holds the curves"),
        ({"file": "l2.csv", "out": "l2.csv"}, "l2.csv: is the curve itself"),
        ({"file": "l2.csv", "out": "curves/../l2.csv"}, "is the curve itself"),
    ],
)
def test_detection_that_cannot_be_leaves_everything_as_it_was(curves, arguments, message):
    before = {path: path.is_file() and path.read_bytes() for path in curves.parent.rglob("*")}
    with pytest.raises(SystemExit, match=message):
        srcnn_detect(**arguments)
    assert {path: path.is_file() and path.read_bytes() for path in curves.parent.rglob("*")} == before


def test_a_folder_of_which_nothing_could_be_judged(curves):
    for path in curves.iterdir():
        path.write_text("nothing\n")
    with pytest.raises(
        SystemExit, match=r"no curve could be judged, the first because of this: .*00\.csv: found 1 col"
    ):
        srcnn_detect("curves")
    assert len(pd.read_csv("curves_anomalies/failed.csv")) == 3
    shutil.copy("l2.csv", curves / "00.csv")
    assert srcnn_detect("curves") == 1  # the mended one is judged now
    assert Path("curves_anomalies/00_anomalies.csv").exists()


def test_a_name_that_is_not_utf8(curves):
    shutil.copy("l2.csv", os.fsencode(curves) + b"/\xff.csv")
    Path(os.fsdecode(os.fsencode(curves) + b"/\xfe.csv")).write_text("nothing\n")
    for _ in range(2):  # the second call finds everything done
        assert srcnn_detect("curves") == 1
        assert Path(os.fsdecode(b"curves_anomalies/\xff_anomalies.csv")).exists()
        assert "fe.csv: found 1 column" in Path("curves_anomalies/failed.csv").read_text()
    assert srcnn_detect(os.fsdecode(b"curves/\xff.csv")) == 0


def test_several_files_and_folders(curves):
    shutil.copytree("curves", "curves/more")
    shutil.copy("l2.csv", "other.csv")
    Path("bad.csv").write_text("nothing\n")
    made = run(curves.parent, "srcnn_detect", "l2.csv", "bad.csv", "other.csv", "curves", "absent")
    assert made.returncode == 1 and "2 of 10 curves could not be judged:" in made.stderr
    assert "bad.csv: found 1 column" in made.stderr and "absent: No such file" in made.stderr
    assert Path("l2_anomalies.csv").read_bytes() == Path("other_anomalies.csv").read_bytes()
    tables = sorted(path.name for path in Path("curves_anomalies").glob("*_anomalies.csv"))
    assert tables == [
        *(f"{i:02d}_anomalies.csv" for i in range(3)),
        *(f"more__{i:02d}_anomalies.csv" for i in range(3)),
    ]
    assert srcnn_detect(["l2.csv", Path("other.csv")]) == 0
    with pytest.raises(SystemExit, match="--out is the place of one table or folder, and there are 2"):
        srcnn_detect(["l2.csv", "other.csv"], out="both.csv")


def test_a_folder_goes_on_and_begins_anew(curves):
    assert srcnn_detect("curves", scheduler="", checkpoint="", out="") == 0  # as callers write what they do not want
    made = {path: path.stat().st_mtime_ns for path in Path("curves_anomalies").glob("*_anomalies.csv")}
    next(iter(made)).unlink()
    shutil.copy("l2.csv", "curves/new.csv")
    assert srcnn_detect("curves") == 0
    again = {path: path.stat().st_mtime_ns for path in Path("curves_anomalies").glob("*_anomalies.csv")}
    assert len(again) == 4 and sum(again[path] == time for path, time in made.items()) == 2
    with pytest.raises(SystemExit, match=r"side: .both. -> .upper..*--restart"):
        srcnn_detect("curves", side="upper")
    assert srcnn_detect("curves", side="upper", restart=True) == 0
    assert np.isneginf(pd.read_csv("curves_anomalies/new_anomalies.csv")["lower"]).all()


def test_without_a_stdout(curves):
    script = f"exec {Path(sys.executable).with_name('srcnn_detect')} l2.csv >&-"
    ended = subprocess.run(["sh", "-c", script], cwd=curves.parent, stderr=subprocess.PIPE, text=True)
    assert ended.returncode == 0 and "Traceback" not in ended.stderr and Path("l2_anomalies.csv").exists()


def test_a_training_of_its_own_in_a_job_of_slurm_waits_for_nobody(project, monkeypatch):
    monkeypatch.chdir(project)
    monkeypatch.setenv("SLURM_PROCID", "1")
    with folder_lock("slurm"), pytest.raises(SystemExit, match="another run works here"):
        srcnn_train("kpi", recipe="tuned", epoch=1, num_workers=0, device="cpu", save=Path("slurm"))


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
        assert found.returncode == 1, found.stderr
        assert "3200 points of 9 curves are in load_anomalies; 1 failed" in found.stderr
        assert "1 of 9 curves could not be judged:" in found.stderr
    failed = pd.read_csv(tmp_path / "load_anomalies/failed.csv")
    assert failed["item"].tolist() == [str(tmp_path / "load/notes.csv")] and "notes.csv" in failed["reason"][0]
    for number in range(8):
        table = pd.read_csv(tmp_path / f"load_anomalies/{number:02d}_anomalies.csv")
        assert len(table) == 400 and table["is_anomaly"].iloc[250 + number]
    alone = run(tmp_path, "srcnn_detect", "load/00.csv")  # its table is no curve of the folder
    assert alone.returncode == 0
    places = [tmp_path / folder / "00_anomalies.csv" for folder in ("load", "load_anomalies")]
    assert places[0].read_bytes() == places[1].read_bytes()
    again = run(tmp_path, "srcnn_detect", "load", "--chunk_size", "3", *engine)
    assert "3200 points of 9 curves are in load_anomalies; 1 failed" in again.stderr
    assert "left out, since srcnn_detect has written it: 00_anomalies.csv" in again.stderr
    other = run(tmp_path, "srcnn_detect", "load", "--side", "upper")
    assert other.returncode == 1 and "another job" in other.stderr


def test_a_delay_counts_the_points_that_are_missing(monkeypatch):
    index = pd.date_range("2024-01-01", periods=60, freq="5min")
    labels, alarms = np.zeros(60, bool), np.zeros(60, bool)
    labels[[*range(10, 20), *range(30, 50)]] = True
    alarms[[10, 48]] = True  # the second is 18 slots after its start
    kept = np.delete(np.arange(60), slice(33, 47))
    curve = Curve("gap", pd.Series(np.arange(60.0), index).iloc[kept], labels[kept])
    table = pd.DataFrame({"score": alarms[kept].astype(float), "is_anomaly": alarms[kept]})
    monkeypatch.setattr("anomaly_nb.srcnn.jobs.microsoft_sr", lambda values: table)
    found = evaluate_curves([curve]).loc["Microsoft SR"]
    expected = delay_f1(curve.labels, alarms[kept], 7, curve.series.index)
    assert tuple(found[["own F1", "own precision", "own recall"]]) == expected and expected[0] < 1
    assert found["best F1"] == best_delay_f1(curve.labels, table["score"], 7, curve.series.index)[0] < 1


def test_a_first_network_leaves_the_callers_generator_alone():
    before = torch.get_rng_state()
    one, other = (first_network(32, 0, "") for _ in range(2))
    assert torch.equal(torch.get_rng_state(), before) and torch.equal(one.fc1.weight, other.fc1.weight)


def test_the_column_of_a_command(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    values = np.random.default_rng(0).normal(size=300)
    values[200] += 20
    columns = {"time": pd.date_range("2024-01-01", periods=300, freq="5min"), "sensor": 3, "load": values}
    Path("curves").mkdir()
    for name in ("a.csv", "curves/a.csv", "curves/b.csv.gz"):
        pd.DataFrame(columns).to_csv(name, index=False)
    with pytest.raises(SystemExit, match="the columns sensor, load hold numbers"):
        srcnn_detect("a.csv")
    assert srcnn_detect("a.csv", column="load") == 0
    assert pd.read_csv("a_anomalies.csv")["is_anomaly"][200]
    assert srcnn_detect("curves", column="load") == 0
    assert {path.name for path in Path("curves_anomalies").glob("*_anomalies.csv")} == {
        "a_anomalies.csv",
        "b_anomalies.csv",
    }

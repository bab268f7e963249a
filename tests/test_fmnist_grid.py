"""The grid survives kill -9 and failures, detectors come back from the disk, and commands run as typed."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import on_two_machines
from forked import run_script

from anomaly_nb.artefacts import load_facts, load_state, save_state
from anomaly_nb.core import DataError
from anomaly_nb.engines import survivors
from anomaly_nb.fmnist import ImageDetector, best_cells, grid, load_subset, make_protocol, run_grid
from anomaly_nb.fmnist.commands import fmnist_train
from anomaly_nb.fmnist.grid import cells_of, finished_cells, settings_text
from anomaly_nb.metrics import roc_auc
from anomaly_nb.scale import chunks
from anomaly_nb.store import Results

ENVIRONMENT = os.environ | {"OMP_NUM_THREADS": "1", "IN_TEST": "1"}
TERMS = {"MSE": {"mse": 1.0}, "MSE+Gradient": {"mse": 1.0, "gradient": 0.1}}
ROWS = {"Autoencoder": {"epochs": 3, "batch_size": 32}, "broken": {"model": "Autoencoder", "options": {"depth": 3}}}
torch.set_num_threads(1)


@pytest.fixture(scope="module")
def task():
    return make_protocol("original", load_subset("train"), load_subset("test"))


def script(folder, name, *arguments):
    "How a command's console script is called."
    path = Path(folder) / f"{name}.py"
    path.write_text(f"from anomaly_nb.fmnist.commands import {name}\n\n{name}.main()\n")
    return [sys.executable, str(path), *map(str, arguments)]


def command(folder, name, *arguments):
    return run_script(*script(folder, name, *arguments)[1:], folder=folder, environment=ENVIRONMENT)


def test_failures_are_recorded_and_the_grid_goes_on(task, tmp_path):
    table = run_grid(ROWS, TERMS, task, tmp_path)
    assert table.loc[("broken", "MSE"), "reason"].startswith("DataError: Autoencoder: ")
    assert table.loc["Autoencoder", "roc_auc"].between(0.3, 1).all() and (table.loc["Autoencoder", "seconds"] > 0).all()
    assert list(best_cells(table).index.get_level_values("model")) == ["Autoencoder"]


def test_labels_take_no_part(task, tmp_path):
    "With other labels the cells, the choices and the thresholds stay; only the figures change."
    rows = {"Autoencoder": ROWS["Autoencoder"]}
    table = run_grid(rows, TERMS, task, tmp_path)
    swapped = run_grid(rows, TERMS, task._replace(truth=1 - task.truth), tmp_path)
    assert (table[["score", "worst three"]] == swapped[["score", "worst three"]]).all(axis=None)
    np.testing.assert_allclose(table["roc_auc"], 1 - swapped["roc_auc"])


def test_a_folder_belongs_to_one_task_and_seed(task, tmp_path):
    rows, others = {"Autoencoder": ROWS["Autoencoder"]}, task._replace(test=task.test[::-1])
    run_grid(rows, ["mse"], task, tmp_path)
    for again, seed in ((task, 1), (others, 0)):
        with pytest.raises(DataError, match="results of another job"):
            run_grid(rows, ["mse"], again, tmp_path, seed=seed)
    assert len(run_grid(rows, ["mse"], task, tmp_path, seed=1, restart=True)) == 1


def test_a_training_folder_belongs_to_one_model_loss_and_data(task, tmp_path):
    def fit(loss="mse", model="Autoencoder", images=task.train):
        detector = ImageDetector(model, loss, score="pixel", epochs=1, batch_size=32)
        return detector.fit(images, folder=tmp_path)

    fit()
    for changed in ({"loss": "ssim"}, {"model": "VAE"}, {"images": task.train[::-1]}):
        with pytest.raises(DataError, match="another job"):
            fit(**changed)


@pytest.mark.parametrize("where", ["cores", "cluster"])
def test_cores_and_a_cluster_give_the_same(task, tmp_path, where, request):
    engine = {"workers": 2} if where == "cores" else {"scheduler": request.getfixturevalue("cluster").address}
    rows = {name: ROWS["Autoencoder"] for name in ("Autoencoder", "VAE")}
    one = run_grid(rows, TERMS, task, tmp_path / "one")
    two = run_grid(rows, TERMS, task, tmp_path / "two", **engine)
    pd.testing.assert_series_equal(one["roc_auc"], two["roc_auc"])


@pytest.mark.slow
def test_killed_and_resumed(tmp_path):
    losses, rows = "MSE = { mse = 1 }\nL1 = { l1 = 1 }\n", "Autoencoder = { epochs = 4 }\nVAE = { epochs = 4 }\n"
    (tmp_path / "grid.toml").write_text(f"[losses]\n{losses}TV = {{ mse = 1, tv = 0.1 }}\n[models]\n{rows}")
    call = script(tmp_path, "fmnist_grid", "--grid", "grid.toml", "--folder", "cells", "--subset")
    quiet = {"stderr": subprocess.DEVNULL, "stdout": subprocess.DEVNULL}
    running = subprocess.Popen(call, cwd=tmp_path, env=ENVIRONMENT, **quiet)
    while not list((tmp_path / "cells").glob("*.npz")):
        time.sleep(0.05)
        assert running.poll() is None
    running.send_signal(signal.SIGKILL)
    running.wait()
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "cells").glob("*.npz")}
    assert 0 < len(before) < 6
    again = command(tmp_path, "fmnist_grid", "--grid", "grid.toml", "--folder", "cells", "--subset")
    assert again.returncode == 0, again.stderr
    assert f"{len(before)} of 6 cells are finished" in again.stderr
    assert all(path.stat().st_mtime_ns == stamp for path, stamp in before.items())
    table = pd.read_csv(tmp_path / "cells/table.csv", index_col=[0, 1])
    assert len(table) == 6 + 7 and table["roc_auc"].notna().all()
    assert table.loc[("1-NN", "none"), "roc_auc"] > 0.5 and ("everything is an anomaly", "none") in table.index


def test_settings_that_changed_are_not_finished(task, tmp_path):
    rows, terms = {"Autoencoder": ROWS["Autoencoder"]}, {"MSE": TERMS["MSE"]}
    first = run_grid(rows, terms, task, tmp_path)
    changed = {"Autoencoder": ROWS["Autoencoder"] | {"epochs": 5}}
    assert len(dict(finished_cells(rows, terms, tmp_path))) == 1 and not dict(finished_cells(changed, terms, tmp_path))
    (file,) = tmp_path.glob("*.npz")
    file.write_bytes(b"")
    again = run_grid(rows, terms, task, tmp_path)
    assert again["roc_auc"].tolist() == first["roc_auc"].tolist()
    assert run_grid(changed, terms, task, tmp_path)["epochs"].tolist() == [5]


def test_names_that_would_share_a_file():
    with pytest.raises(DataError, match=r"\('A-b', 'mse'\) and \('A b', 'mse'\) would share the file A-b__mse.npz"):
        cells_of(["A-b", "A b"], ["mse"])


def test_blanks_between_terms():
    (settings,) = cells_of(["CAE"], ["mse + l1"]).values()
    assert settings["loss"] == {"mse": 1.0, "l1": 1.0}


def test_threads_are_given_back(task, tmp_path):
    torch.set_num_threads(2)
    try:
        run_grid({"Autoencoder": {"epochs": 1}, "broken": ROWS["broken"]}, ["mse"], task, tmp_path)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(1)


def test_settings_are_compared_as_they_come_back_from_the_disk(tmp_path):
    settings = {"model": "CAE", "epochs": np.int64(3), "options": {"sizes": (8, 4)}}
    results = Results(tmp_path, {})
    results.put("cell", None, settings_text(settings))
    assert not results.missing({"cell": settings_text(settings | {"epochs": 3})})
    assert results.missing({"cell": settings_text(settings | {"options": {"sizes": (8, 5)}})})
    with pytest.raises(DataError, match="Use numbers, texts, lists"):
        settings_text(settings | {"model": ImageDetector})


def fail(*_):
    raise RuntimeError("no luck")


def test_failed_cells_are_run_again_if_asked_for(task, tmp_path, monkeypatch):
    calls = []
    monkeypatch.setattr(grid, "run_cell", lambda *_: calls.append(1) or fail())
    for retry, count in ((False, 1), (False, 1), (True, 2)):
        table = run_grid(["CAE"], ["mse"], task, tmp_path, retry=retry)
        assert len(calls) == count and table["reason"].tolist() == ["RuntimeError: no luck"]


def test_a_full_disk_ends_the_call_and_is_no_failure_of_a_cell(task, tmp_path, monkeypatch):
    def full(results, name, *_):
        raise DataError(f"{results.folder / name}.npz: not written (No space left on device). Free some space.")

    monkeypatch.setattr(grid, "run_cell", fail)
    with monkeypatch.context() as disk, pytest.raises(DataError, match="No space left on device"):
        disk.setattr(Results, "put", full)
        run_grid(["CAE", "VAE"], ["mse"], task, tmp_path)
    assert len(run_grid(["CAE", "VAE"], ["mse"], task, tmp_path)) == 2


def test_a_cell_that_takes_its_process_with_it_is_tried_again(task, tmp_path, monkeypatch, caplog):
    def deadly(work, cells, **engine):
        first, *others = chunks(cells, 1)
        yield first, survivors(work, first, lambda task, work: ((chunk, None) for chunk in work))
        yield from real(work, [chunk.items[0] for chunk in others], **engine)

    real = grid.outcomes
    monkeypatch.setattr(grid, "run_cell", fail)
    monkeypatch.setattr(grid, "outcomes", deadly)
    table = run_grid(["CAE", "VAE"], ["mse"], task, tmp_path)
    assert list(table.index) == [("VAE", "mse")] and "CAE__mse: its process died" in caplog.text
    monkeypatch.setattr(grid, "outcomes", real)
    assert len(run_grid(["CAE", "VAE"], ["mse"], task, tmp_path)) == 2


@pytest.mark.parametrize("rank", ["NODE_RANK", "SLURM_PROCID"])
def test_a_job_of_many_that_works_alone_saves_its_detector(tmp_path, monkeypatch, rank):
    monkeypatch.setenv(rank, "1")
    fmnist_train("Autoencoder", epochs=1, score="pixel", subset=True, save=str(tmp_path))
    assert ImageDetector.load(tmp_path).score_ == "pixel"


@pytest.mark.parametrize(
    "name, value, message",
    [
        ("fine_tune", -3, "fine_tune is -3"),
        ("patience", -1, "patience is -1"),
        ("factor", 0, "factor is 0"),
        ("epochs", 0, "epochs is 0"),
        ("batch_size", 0, "batch_size is 0"),
        ("seed", -1, "seed is -1"),
        ("lr", float("nan"), "learning_rate is nan"),
        ("lr", -0.1, "learning_rate is -0.1"),
    ],
)
def test_numbers_that_cannot_be_trained_with(tmp_path, name, value, message):
    with pytest.raises(SystemExit, match=f"error: {message}; it must be a"):
        fmnist_train("Autoencoder", subset=True, save=str(tmp_path), **{name: value})
    assert not list(tmp_path.rglob("*.ckpt"))


def test_train_evaluate(tmp_path):
    arguments = ["--model", "VAE", "--loss", "mse+ms-ssim", "--epochs", 3, "--batch_size", 32, "--save", "vae"]
    trained = command(tmp_path, "fmnist_train", *arguments, "--subset")
    assert trained.returncode == 0, trained.stderr
    assert "epoch 3/3: loss" in trained.stderr and "the detector is in vae" in trained.stderr
    assert list((tmp_path / "vae/logs/train").glob("events*"))
    judged = command(tmp_path, "fmnist_evaluate", "vae", "--subset")
    assert judged.returncode == 0 and "everything is an anomaly" in judged.stdout and "VAE, " in judged.stdout
    table = pd.read_csv(tmp_path / "vae/evaluation.csv", index_col=0)
    task = make_protocol("original", load_subset("train"), load_subset("test"))
    scores = ImageDetector.load(tmp_path / "vae").decision_function(task.test)
    assert table["roc_auc"].iloc[-1] == pytest.approx(roc_auc(task.truth, scores))


def test_a_detector_is_not_judged_on_another_class(tmp_path):
    fmnist_train(subset=True, save=str(tmp_path / "default"))
    done = command(tmp_path, "fmnist_evaluate", "default", "--subset", "--normal", 5)
    assert done.returncode == 1 and "fitted to class 2, protocol original; in this task class 5" in done.stderr
    assert not (tmp_path / "default/evaluation.csv").exists()
    assert command(tmp_path, "fmnist_evaluate", "default", "--subset").returncode == 0


def test_two_processes_and_two_machines_make_one_detector(tmp_path):
    words = ["--model", "CAE", "--epochs", 1, "--batch_size", 32, "--lr", 1e-4, "--score", "pixel", "--subset"]
    for name, more in (("one", []), ("both", ["--devices", 2, "--strategy", "ddp"])):
        trained = command(tmp_path, "fmnist_train", *words, *more, "--save", name)
        assert trained.returncode == 0, trained.stderr
        assert trained.stderr.count(f"the detector is in {name}") == 1
    on_two_machines(script(tmp_path, "fmnist_train", *words, "--nodes", 2, "--save", "machines"), tmp_path)
    one, *others = (load_state(tmp_path / name) for name in ("one", "both", "machines"))
    means = [name for name in one if name.endswith("running_mean")]  # of batch norms, which see the whole batch
    assert len(means) == 3
    for other in others:
        for name in means:
            assert np.abs(other[name] - one[name]).max() < 0.005 * np.abs(one[name]).max(), name
        assert np.allclose(other["decision_scores_"], one["decision_scores_"], atol=1e-3)
        assert other["threshold_"] == pytest.approx(one["threshold_"], rel=1e-3)


@pytest.mark.parametrize(
    "name, arguments, message",
    [
        ("fmnist_train", ["--devices", "0", "--subset"], "0 devices on 1 nodes"),
        ("fmnist_train", ["--model", "CNN", "--subset"], "There is no model 'CNN'"),
        ("fmnist_train", ["--loss", "mse+huber", "--epochs", "1", "--subset"], "['huber'] is unknown"),
        ("fmnist_train", ["--data", "nowhere"], "Name the folder that holds the four Fashion-MNIST files"),
        ("fmnist_evaluate", ["nowhere", "--subset"], "no saved detector here"),
        ("fmnist_grid", ["--grid", "nowhere.toml", "--subset"], "no readable grid"),
    ],
)
def test_errors_are_one_sentence(tmp_path, name, arguments, message):
    done = command(tmp_path, name, *arguments)
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert message in done.stderr.splitlines()[-1]


@pytest.mark.parametrize("option, value", [("--protocol", "all"), ("--features", "edges")])
def test_choices_are_checked_and_listed(tmp_path, option, value):
    done = command(tmp_path, "fmnist_train", option, value, "--subset")
    assert done.returncode == 2 and f"'{value}' is not one of" in done.stderr


def test_a_grid_with_failures_has_a_table_and_status_1(tmp_path):
    (tmp_path / "grid.toml").write_text(
        "[losses]\nMSE = { mse = 1 }\n[models]\nAutoencoder = { epochs = 1 }\nCNN = {}\n"
    )
    done = command(tmp_path, "fmnist_grid", "--grid", "grid.toml", "--folder", "cells", "--subset")
    assert done.returncode == 1 and "1 of 2 cells could not be judged" in done.stderr
    assert "CNN, MSE: DataError: There is no model 'CNN'" in done.stderr and "Autoencoder" in done.stdout
    assert len(pd.read_csv(tmp_path / "cells/table.csv")) == 2 + 7


def test_no_progress_bar_without_a_terminal(task, tmp_path):
    code = "import numpy as np; from anomaly_nb.fmnist import ImageDetector as D; "
    code += "D('CAE', epochs=1, score='pixel').fit(np.zeros((20, 28, 28), 'uint8'){})"
    environment = {name: value for name, value in ENVIRONMENT.items() if name != "IN_TEST"}
    for how in ("", ", progress=False"):
        call = [sys.executable, "-c", code.format(how)]
        done = subprocess.run(call, cwd=tmp_path, capture_output=True, env=environment)
        assert done.returncode == 0 and not done.stdout + done.stderr


def test_a_checkpoint_of_another_model(task, tmp_path):
    for name in ("Autoencoder", "VAE"):
        ImageDetector(name, epochs=1).fit(task.train, progress=False).save(tmp_path / name)
    params = load_facts(tmp_path / "VAE")["params"] | {"model": "Autoencoder"}
    save_state(tmp_path / "VAE", load_state(tmp_path / "VAE"), {"detector": "ImageDetector", "params": params})
    with pytest.raises(DataError, match="do not fit this ImageScorer"):
        ImageDetector.load(tmp_path / "VAE")


@pytest.mark.parametrize("kind", ["shape", "dtype", "mask", "range", "nan", "empty"])
def test_bad_images(task, kind):
    images = task.train[:20]
    bad = {
        "shape": images[:, :20],
        "dtype": images.astype(np.int32) * 2,
        "mask": (images > 127).astype(np.uint8),
        "range": images.astype(float),
        "nan": np.where(np.arange(28) == 3, np.nan, images / 255),
        "empty": images[:0],
    }[kind]
    with pytest.raises(DataError):
        ImageDetector().fit(bad)

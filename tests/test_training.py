"""The shared trainer: a run that is killed ends where an undisturbed one does."""

import signal
import subprocess
import sys
import textwrap
import time
from contextlib import nullcontext

import numpy as np
import pandas as pd
import pytest
import torch
from lightning.pytorch.callbacks import Callback
from torch import nn
from torch.utils.data import TensorDataset

from anomaly_nb.core import DataError, folder_lock
from anomaly_nb.training import device_options, fit_weights, read_weights, train, write_weights

RUN = """
    import sys, time, torch
    from torch import nn
    from torch.utils.data import TensorDataset
    from anomaly_nb.training import train, write_weights

    folder = sys.argv[1]
    torch.set_num_threads(1)
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(3, 8), nn.Dropout(0.2), nn.Tanh(), nn.Linear(8, 1))
    inputs = torch.randn(64, 3, generator=torch.Generator().manual_seed(1))
    data = TensorDataset(inputs, inputs.sum(dim=1, keepdim=True))

    def loss(network, batch):
        time.sleep(float(sys.argv[2]))
        return ((network(batch[0] + 0.1 * torch.randn_like(batch[0])) - batch[1]) ** 2).mean()

    history = train(network, loss, data, epochs=6, batch_size=8, optimizer=lambda p: torch.optim.Adam(p, lr=0.01),
                    schedule=lambda epoch: 0.9 ** epoch, folder=folder, progress=False, accelerator="cpu")
    write_weights(network, folder + "/final.bin")
    history.to_csv(folder + "/history.csv")
"""


@pytest.mark.slow
def test_a_killed_run_ends_like_an_undisturbed_one(tmp_path):
    def command(folder, pause):
        return [sys.executable, "-c", textwrap.dedent(RUN), str(tmp_path / folder), str(pause)]

    subprocess.run(command("whole", 0), check=True)
    process = subprocess.Popen(command("killed", 0.05))
    deadline = time.monotonic() + 120
    while not (tmp_path / "killed/last.ckpt").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    time.sleep(0.2)  # somewhere inside a later epoch
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (tmp_path / "killed/final.bin").exists()
    kept = read_weights(tmp_path / "killed/last.ckpt")["epoch"]
    assert 0 <= kept < 5
    subprocess.run(command("killed", 0), check=True)
    logged = (tmp_path / "killed/metrics.csv").read_text().splitlines()[1]
    assert int(logged.split(",")[0]) == kept + 1, "the second run must go on, not begin again"
    for name in ("final.bin", "history.csv"):
        whole, killed = (tmp_path / folder / name for folder in ("whole", "killed"))
        if name == "history.csv":
            assert whole.read_text() == killed.read_text()
        else:
            one, other = read_weights(whole), read_weights(killed)
            assert all(torch.equal(one[key], other[key]) for key in one)


def test_no_code_is_loaded_from_checkpoints(tmp_path):
    class Evil:
        def __reduce__(self):
            return (open, (str(tmp_path / "owned"), "w"))

    torch.save({"weights": Evil()}, tmp_path / "evil.bin")
    with pytest.raises(DataError, match="unsafe"):
        read_weights(tmp_path / "evil.bin")
    assert not (tmp_path / "owned").exists()


def test_weights_that_do_not_fit(tmp_path):
    write_weights(nn.Linear(2, 2), tmp_path / "w.bin")
    with pytest.raises(DataError, match="do not fit this Linear"):
        fit_weights(nn.Linear(3, 3), read_weights(tmp_path / "w.bin"), "w.bin")
    with pytest.raises(DataError, match="do not fit"):
        fit_weights(nn.Linear(3, 3), [1, 2], "w.bin")


def test_what_the_trainer_refuses():
    with pytest.raises(DataError, match="empty"):
        train(
            nn.Linear(1, 1),
            lambda network, batch: network(batch[0]).sum(),
            TensorDataset(torch.zeros(0, 1)),
            epochs=1,
            batch_size=1,
            optimizer=lambda parameters: torch.optim.SGD(parameters, lr=1),
        )
    for device in ("tpu", "auto:7", "cpu:3", "cpu:²", "cuda:²", "cuda:", "mps:0"):
        with pytest.raises(DataError, match="expected one of"):
            device_options(device)


def small(**options):
    "A training of a moment."
    usual = {"epochs": 1, "batch_size": 4, "optimizer": lambda parameters: torch.optim.SGD(parameters, lr=0.1)}
    data, quiet = TensorDataset(torch.ones(4, 1)), {"progress": False, "accelerator": "cpu"}
    return train(nn.Linear(1, 1), lambda network, batch: network(batch[0]).mean(), data, **usual | quiet | options)


@pytest.mark.parametrize(
    "name, value",
    [
        ("epochs", 0),
        ("epochs", -1),
        ("epochs", 1.5),
        ("batch_size", 0),
        ("num_workers", -1),
        ("seed", -1),
        ("save_steps", 0),
        ("run", {"path": object()}),
    ],
)
def test_a_wrong_argument_leaves_no_folder(tmp_path, name, value):
    with pytest.raises(DataError, match=f"{name}.*whole number|A setting of the job cannot be kept"):
        small(folder=tmp_path / "run", **{name: value})
    assert not (tmp_path / "run").exists()


def test_whole_numbers_of_numpy(tmp_path):
    names = "epochs", "batch_size", "seed", "save_steps"
    history = small(folder=tmp_path, num_workers=np.int64(0), **dict.fromkeys(names, np.int64(1)))
    assert history["epoch"].tolist() == [1]
    assert len(small(folder=tmp_path, epochs=1, batch_size=1, seed=1)) == 1


def test_a_run_is_told_by_all_of_its_settings(tmp_path):
    run = {"betas": (0.9, 0.99), "limit": float("nan"), "rates": {2: 0.1, 10: 0.2}}
    assert len(small(folder=tmp_path, run=run)) == 1
    assert len(small(folder=tmp_path, run=run)) == 1
    for other, changed in (
        (None, r"betas: .*, limit: .*, rates: .*"),
        (run | {"betas": (0.9, 0.9)}, r"betas: \[0.9, 0.99\] -> \[0.9, 0.9\]"),
        (run | {"a": 1}, "a: None -> 1"),
    ):
        with pytest.raises(DataError, match=rf"results of another job \({changed}\)"):
            small(folder=tmp_path, run=other)
    with pytest.raises(DataError, match=r"epochs: 1 -> 2"):
        small(folder=tmp_path, run=run, epochs=2)
    assert len(small(folder=tmp_path, run=run, epochs=2, restart=True)) == 2


def test_a_job_of_slurm_that_trains_alone_keeps_its_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("SLURM_PROCID", "1")
    with folder_lock(tmp_path), pytest.raises(DataError, match="another run works here"):
        small(folder=tmp_path)
    assert not (tmp_path / "manifest.jsonl").exists()


def test_two_processes_give_what_one_gives(tmp_path):
    script = tmp_path / "run.py"
    script.write_text(textwrap.dedent(RUN).replace("0.1 * torch.randn_like(batch[0])", "0").replace("0.2", "0.0"))
    for folder, options in (("one", ""), ("two", ', devices=2, strategy="ddp"')):
        text = script.read_text().replace('accelerator="cpu"', f'accelerator="cpu"{options}')
        (tmp_path / f"{folder}.py").write_text(text)
        subprocess.run([sys.executable, str(tmp_path / f"{folder}.py"), str(tmp_path / folder), "0"], check=True)
    one, two = (read_weights(tmp_path / folder / "final.bin") for folder in ("one", "two"))
    assert all(torch.allclose(one[key], two[key], atol=1e-5) for key in one)
    histories = [pd.read_csv(tmp_path / folder / "history.csv")["loss"] for folder in ("one", "two")]
    assert np.allclose(*histories, rtol=1e-4)


TOGETHER = """
    import sys, torch
    from torch import nn
    from torch.utils.data import TensorDataset
    from anomaly_nb.training import train, write_weights

    torch.set_num_threads(1)
    torch.manual_seed(0)
    convolution = [nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(144, 8)]
    network = nn.Sequential(*convolution, nn.BatchNorm1d(8, momentum=None), nn.Tanh(), nn.Linear(8, 1))
    pictures = 1 + 3 * torch.randn(61, 1, 8, 8, generator=torch.Generator().manual_seed(1))
    several = {"devices": 2, "strategy": "ddp"} if sys.argv[2] == "2" else {}

    def loss(network, batch):
        return ((network(batch[0]) - batch[1]) ** 2).sum()

    data = TensorDataset(pictures, pictures.mean((1, 2, 3))[:, None])  # the last batch is one of 13
    train(network, loss, data, epochs=3, batch_size=16, optimizer=lambda p: torch.optim.SGD(p, lr=0.001), summed=True,
          progress=False, accelerator="cpu", **several)
    assert type(network[1]) is nn.BatchNorm2d
    write_weights(network, sys.argv[1])
"""


def test_summed_losses_and_batch_norms_in_two_processes(tmp_path):
    (tmp_path / "run.py").write_text(textwrap.dedent(TOGETHER))
    for number in ("1", "2"):
        subprocess.run([sys.executable, tmp_path / "run.py", tmp_path / f"{number}.bin", number], check=True)
    one, two = (read_weights(tmp_path / f"{number}.bin") for number in "12")
    for name in one:  # means and variances of the batch norms are among them
        assert torch.allclose(one[name], two[name], atol=1e-5), name


def test_another_number_of_epochs_is_another_run(tmp_path):
    def run(epochs, **options):
        data, options = TensorDataset(torch.ones(4, 1)), {"batch_size": 4, "folder": tmp_path, **options}
        network, rate = nn.Linear(1, 1), {"optimizer": lambda parameters: torch.optim.SGD(parameters, lr=0.1)}
        return train(network, lambda net, batch: net(batch[0]).mean(), data, epochs=epochs, **rate, **options)

    assert len(run(3)) == 3
    for other in (1, 4):
        with pytest.raises(DataError, match=rf"epochs: 3 -> {other}\). .* begin anew with restart=True"):
            run(other)
    assert len(run(3)) == 3 and len(run(2, restart=True)) == 2


def test_an_interrupted_run_says_how_to_go_on(tmp_path):
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(RUN), str(tmp_path), "0.05"], stderr=subprocess.PIPE, text=True
    )
    deadline = time.monotonic() + 120
    while not (tmp_path / "last.ckpt").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert "the same call goes on from there" in errors and "KeyboardInterrupt" in errors
    assert not (tmp_path / "final.bin").exists()
    subprocess.run([sys.executable, "-c", textwrap.dedent(RUN), str(tmp_path), "0"], check=True)
    assert (tmp_path / "final.bin").exists()


def test_two_runs_in_one_folder(tmp_path):
    data = TensorDataset(torch.zeros(4, 1), torch.zeros(4, 1))
    with folder_lock(tmp_path), pytest.raises(DataError, match="another run works here"):
        train(
            nn.Linear(1, 1),
            lambda network, batch: network(batch[0]).mean(),
            data,
            epochs=1,
            batch_size=2,
            optimizer=lambda parameters: torch.optim.SGD(parameters, lr=0.1),
            folder=tmp_path,
        )
    assert not (tmp_path / "manifest.jsonl").exists(), "the settings of the one that was refused"


@pytest.mark.slow
def test_a_run_killed_anywhere_ends_like_an_undisturbed_one(tmp_path):
    def command(folder, pause):
        return [sys.executable, "-c", textwrap.dedent(RUN), str(tmp_path / folder), str(pause)]

    subprocess.run(command("whole", 0), check=True)
    whole = read_weights(tmp_path / "whole" / "final.bin")
    for trial, moment in enumerate(np.random.default_rng(0).uniform(0, 3, 20)):
        process = subprocess.Popen(command(str(trial), 0.05))
        while not (tmp_path / str(trial) / "manifest.jsonl").exists():
            time.sleep(0.01)
        time.sleep(moment)
        process.send_signal(signal.SIGKILL)
        process.wait()
        subprocess.run(command(str(trial), 0), check=True)
        again = read_weights(tmp_path / str(trial) / "final.bin")
        assert all(torch.equal(whole[key], again[key]) for key in whole), moment


def test_a_second_training_is_in_training_mode():
    network, seen = nn.Sequential(nn.Linear(1, 1), nn.Dropout(0.5)), []

    def loss(network, batch):
        seen.append(network.training)
        return network(batch[0]).mean()

    data = TensorDataset(torch.ones(4, 1))
    options = {"epochs": 1, "batch_size": 4, "optimizer": lambda parameters: torch.optim.SGD(parameters, lr=0.1)}
    for _ in range(2):
        train(network, loss, data, accelerator="cpu", **options)
    assert seen == [True, True] and not network.training


class Stop(Callback):
    "Raises an error in the first step."

    def __init__(self, error):
        self.error = error

    def on_train_batch_start(self, *_):
        raise self.error


@pytest.mark.parametrize("error", [None, DataError, KeyboardInterrupt])
@pytest.mark.parametrize("seed", [1, 2])
def test_a_training_leaves_the_callers_generator_alone(error, seed):
    torch.manual_seed(seed)
    nn.Linear(1, 1)  # as in `small`
    expected = torch.rand(3)
    torch.manual_seed(seed)
    with pytest.raises(error) if error else nullcontext():
        small(callbacks=[Stop(error)] if error else [])
    assert torch.equal(torch.rand(3), expected)

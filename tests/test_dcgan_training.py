"""Training end to end: the output folder, exact resume, a kill in the middle of an epoch, faults."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time

import lightning as L
import numpy as np
import pandas as pd
import pytest
import torch
from conftest import on_two_machines
from torch.utils.data import DataLoader

from anomaly_nb.core import DataError
from anomaly_nb.dcgan import DCGANGenerator, SpectrogramFormat, load_config, train_dcgan, training, write_engines
from anomaly_nb.dcgan.jobs import generate, run_training, training_quality
from anomaly_nb.dcgan.quality import frechet_distance, inception_features
from anomaly_nb.dcgan.run import load_dataset
from anomaly_nb.dcgan.spectrograms import prepare_folder
from anomaly_nb.dcgan.training import AdversarialModule, IterationRecord, build_networks, load_networks

TINY = {"features_g": 4, "features_d": 4, "image_size": 64, "batch_size": 8, "device": "cpu"}
LITTLE = {"ema": 0.9, "augmentation": True, "spectral_norm": True, "upsample": "nearest", "discriminator_noise": 0.1}


@pytest.fixture(scope="module")
def data(engines):
    return engines / "dataset"


class Colours(torch.nn.Module):
    "Stands for the Inception network: the mean and the spread of each colour."

    def forward(self, x: torch.Tensor, return_features: bool = False) -> torch.Tensor:
        assert x.dtype == torch.uint8 and return_features
        values = x.float() / 255
        return torch.cat([values.mean(dim=(2, 3)), values.std(dim=(2, 3))], dim=1)


@pytest.fixture
def scripted(tmp_path):
    torch.jit.script(Colours()).save(str(tmp_path / "colours.pt"))
    return tmp_path / "colours.pt"


def settings(data, folder, epochs=4, **changes):
    return load_config(
        "config_test", base_path=str(data), output_dir=str(folder), epochs=epochs, **{**TINY, **LITTLE, **changes}
    )


def weights(folder):
    return torch.load(folder / "checkpoints/final_model.tar")


def same(first, second):
    parts = ("generator", "generator_raw", "discriminator")
    return all(torch.equal(first[part][name], second[part][name]) for part in parts for name in first[part])


MACHINE = ["gpu_memory_used", "gpu_utilization", "cpu_usage", "ram_usage", "process_mb"]
CLOCKED = ["timestamp", "epoch_duration_minutes", "iteration_time_seconds", *MACHINE]


def outputs(folder):
    "Every output of a run, but times, the machine, and what tells of the folder and the epochs asked for."
    found = {}
    for path in [path for path in folder.rglob("*.*") if path.is_file() and "resume" not in path.parts]:
        if path.suffix == ".csv":
            found[path.relative_to(folder)] = pd.read_csv(path).drop(columns=CLOCKED, errors="ignore").to_csv()
        if path.suffix == ".npy":
            found[path.relative_to(folder)] = np.load(path).tobytes()
        if path.suffix == ".tar":
            content = torch.load(path)
            content["config"]["training"].pop("epochs"), content["config"].pop("output")
            for part in ("generator", "generator_raw", "discriminator"):
                content[part] = {name: value.numpy().tobytes() for name, value in content[part].items()}
            found[path.relative_to(folder)] = content
    return found


def tiny_quality(pictures):
    "A measure that takes no time."
    return {"quality": np.float64(pictures.mean())}


@pytest.fixture(scope="module")
def whole(data, tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    train_dcgan(settings(data, folder))
    return folder


def interrupted(config, steps, quality=None):
    "Train until a step in which the user loses patience."
    asked = iter(range(1, steps + 1))

    def resources():
        if next(asked) == steps:
            raise KeyboardInterrupt
        return {}

    with pytest.raises(KeyboardInterrupt) as stop:
        train_dcgan(config, quality=quality, resources=resources)
    assert "the same call goes on from there" in stop.value.__notes__[0] or steps < 4


def test_an_interrupted_run_is_the_same_at_default_settings_with_metrics_on(data, tmp_path):
    "Only names, the device and the number of epochs are chosen, as on a first evening with config_test."
    common = {"base_path": str(data), "device": "cpu", "features_g": 4, "features_d": 4, "epochs": 4}
    for name, times in (("whole", 1), ("parts", 2)):
        config = load_config("config_test", output_dir=str(tmp_path / name), **common)
        if name == "parts":
            interrupted(config, 8, training_quality(config))
        for _ in range(times):  # what has ended stays as it is
            summary = run_training(config, figures=False)
            assert summary["epochs"] == 4 and summary["quality"] > 0
    assert outputs(tmp_path / "whole") == outputs(tmp_path / "parts")


MORTAL = """
import os
from anomaly_nb.dcgan.analytics import ResourceMonitor
from anomaly_nb.dcgan.commands import dcgan_train
row = ResourceMonitor.row
def deadly(self):
    if "MORTAL" in os.environ and self.rows == 3:
        os._exit(0)
    return row(self)
ResourceMonitor.row = deadly
dcgan_train.main()
"""


def train_together(config, devices, nodes=1, killed=False):
    "Train by the command: Lightning starts further processes of a machine with its command line."
    config.save(config.output_folder / "settings.json")
    script = config.output_folder / "train.py"
    script.write_text(MORTAL)
    words = ["--config", config.output_folder / "settings.json", "--devices", str(devices), "--nodes", str(nodes)]
    command = [*(["env", "MORTAL=1"] if killed else []), sys.executable, script, *words]
    if nodes > 1:
        told = "".join(on_two_machines(command, config.output_folder))
    else:
        done = subprocess.run(command, capture_output=True, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"})
        assert done.returncode == 0, done.stderr
        told = done.stderr
    assert told.count("results are in") == (0 if killed else 1)


def test_two_processes_train_what_one_trains(data, tmp_path):
    "The step is small, since Adam makes large steps of differences by rounding."
    quiet = {"augmentation": False, "discriminator_noise": 0.0, "learning_rate": 1e-6, "max_files_limit": 16}
    for number in (1, 2):
        train_together(settings(data, tmp_path / str(number), 2, csv_write_frequency=1, **quiet), number)
    one, two = (weights(tmp_path / str(number)) for number in (1, 2))
    parts = zip(("generator_raw", "discriminator"), build_networks(settings(data, tmp_path)), strict=True)
    for part, network in parts:
        before, *after = (
            torch.cat([state[name].flatten() for name, _ in network.named_parameters()])
            for state in (network.state_dict(), one[part], two[part])
        )
        assert (after[0] - after[1]).norm() < 0.02 * (after[0] - before).norm(), part
    for table in ("epochs_statistics/epoch_statistics.csv", "single_epochs_statistics/epoch_1/epoch_1_iterations.csv"):
        tables = [pd.read_csv(tmp_path / number / table).drop(columns=CLOCKED, errors="ignore") for number in "12"]
        pd.testing.assert_frame_equal(*tables, rtol=1e-2)


@pytest.mark.slow
@pytest.mark.parametrize(("devices", "nodes"), [(2, 1), (1, 2)])
def test_two_processes_go_on_exactly(data, tmp_path, devices, nodes):
    for name, deaths in (("whole", [False]), ("parts", [True, False, False])):
        for killed in deaths:
            train_together(settings(data, tmp_path / name, epochs=3), devices, nodes, killed)
    assert len(pd.read_csv(tmp_path / "parts/epochs_statistics/epoch_statistics.csv")) == 3
    assert outputs(tmp_path / "whole") == outputs(tmp_path / "parts")


def test_how_many_processes_are_absurd(data, tmp_path):
    with pytest.raises(DataError, match="0 devices on 1 nodes"):
        train_dcgan(settings(data, tmp_path), devices=0)
    with pytest.raises(DataError, match="batch_size is 8, which 3 processes cannot share evenly"):
        train_dcgan(settings(data, tmp_path), devices=3)


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("keys", [{"fid_frequency": 3}, {"fid_frequency": 1}, {"fid_frequency": 100}])
@pytest.mark.parametrize("stops", [[8], [4, 8], []])
def test_a_run_in_parts_is_the_same_as_at_once(data, tmp_path, sign, keys, stops):
    "Whether a quality is measured before and after the interrupt or not, and whether it is better or not."
    last = {"key_epochs_last": 2, "milestone_epoch_frequency": 1}
    quality = lambda pictures: {"quality": np.float64(sign * pictures.mean())}  # noqa: E731
    for name in ("whole", "parts"):
        config = settings(data, tmp_path / name, 4).with_values(advanced_metrics=keys, metrics_and_checkpoints=last)
        done = 0
        for stop in stops if name == "parts" else []:
            interrupted(config, stop - done, quality)
            done = 3 * ((stop - 1) // 3)  # the epochs that are finished
        summary = train_dcgan(config, quality=quality)
        assert summary["quality"] is not None and (tmp_path / name / "checkpoints/best_model.tar").is_file()
    if not stops:
        train_dcgan(config, quality=quality)
    outcome = outputs(tmp_path / "whole")
    assert len(outcome) == 13 and outcome == outputs(tmp_path / "parts")


def test_another_run_in_the_same_folder_leaves_nothing_of_the_first(data, tmp_path):
    often = {"milestone_epoch_frequency": 1, "emergency_buffer_size": 9}
    config = settings(data, tmp_path / "a", 3).with_values(metrics_and_checkpoints=often)
    train_dcgan(config)
    other = config.with_values(epochs=2, learning_rate=1e-3)
    with pytest.raises(
        DataError, match=r"epochs: 3 -> 2, .*learning_rate: .* begin anew with restart=True \(--restart"
    ):
        train_dcgan(other)
    train_dcgan(other, restart=True)
    train_dcgan(other.with_values(output_dir=str(tmp_path / "b")))
    assert outputs(tmp_path / "a") == outputs(tmp_path / "b")


@pytest.mark.parametrize(("frequency", "rows"), [(1, 1), (80, 0)])
def test_killed_in_the_middle_of_an_epoch(data, tmp_path, frequency, rows):
    script = tmp_path / "killed.py"
    script.write_text(f"""
import os, signal, torch
torch.set_num_threads(1)
from anomaly_nb.dcgan import load_config, train_dcgan
steps = []
def deadly():
    steps.append(1)
    if len(steps) == 8:
        os.kill(os.getpid(), signal.SIGKILL)
    return {{}}
quality = lambda pictures: dict(quality=float(pictures.mean()))
train_dcgan(load_config({str(tmp_path / "config.json")!r}), quality=quality, resources=deadly)
""")
    keys = {"emergency_checkpoint_frequency": frequency}
    config = settings(data, tmp_path / "run").with_values(metrics_and_checkpoints=keys)
    config = config.with_values(advanced_metrics={"fid_frequency": 1})
    config.save(tmp_path / "config.json")
    done = subprocess.run([sys.executable, script], env=os.environ | {"IN_TEST": "1"}, capture_output=True)
    assert done.returncode == -signal.SIGKILL
    assert len(pd.read_csv(tmp_path / "run/epochs_statistics/epoch_statistics.csv")) == 2
    state = torch.load(tmp_path / "run/resume/last.ckpt")  # after the second epoch, or an iteration later
    assert (state["run"]["iteration"], len(state["run"]["rows"])) == (6 + rows, rows)
    steps = []
    summary = train_dcgan(config, quality=tiny_quality, resources=lambda: steps.append(1) or {})
    assert len(steps) == 6 - rows and summary["iterations"] == 12
    train_dcgan(config.with_values(output_dir=str(tmp_path / "whole")), quality=tiny_quality)
    assert outputs(tmp_path / "run") == outputs(tmp_path / "whole")
    histories = [pd.read_csv(tmp_path / name / "resume/metrics.csv").tail(2) for name in ("run", "whole")]
    pd.testing.assert_frame_equal(*(history.reset_index(drop=True) for history in histories))


def test_what_lost_epochs_left_is_cleared_away(data, tmp_path):
    config = settings(data, tmp_path, 4).with_values(metrics_and_checkpoints={"milestone_epoch_frequency": 1})
    interrupted(config, 7)
    for name in ("samples/epoch_005.npy", "checkpoints/checkpoint_epoch_9.tar"):
        (tmp_path / name).write_bytes(b"of an epoch that a kill has lost")
    (tmp_path / "single_epochs_statistics/epoch_9").mkdir()
    (tmp_path / "samples/epoch_001_grid.png").write_bytes(b"a picture that someone has made")
    train_dcgan(config)
    assert {path.name for path in (tmp_path / "samples").iterdir()} == {
        "epoch_001.npy",
        "epoch_004.npy",
        "epoch_001_grid.png",
    }
    names = [path.name for path in (tmp_path / "checkpoints").glob("checkpoint_epoch_*")]
    assert sorted(names) == ["checkpoint_epoch_3.tar", "checkpoint_epoch_4.tar"]
    assert not (tmp_path / "single_epochs_statistics/epoch_9").exists()


def test_documented_snippet(data, tmp_path, monkeypatch):
    config = settings(data, tmp_path, 1, features_g=64, features_d=4, image_size=64, ema=0.0, upsample="transposed")
    train_dcgan(config.with_values(max_files_limit=4))
    monkeypatch.chdir(tmp_path / "checkpoints")
    generator = DCGANGenerator(config.model.latent_dim, image_size=64)
    generator.load_state_dict(torch.load("best_model.tar")["generator"])
    samples = generator(torch.randn(9, config.model.latent_dim, 1, 1)).detach().numpy()
    assert samples.shape == (9, 1, 64, 64) and np.abs(samples).max() <= 1


def test_output_folder(whole):
    epochs = pd.read_csv(whole / "epochs_statistics/epoch_statistics.csv")
    assert list(epochs["epoch"]) == [1, 2, 3, 4]
    assert (epochs["total_iterations_in_epoch"] == 3).all()
    assert epochs["d_real_accuracy"].between(0, 1).all() and epochs["avg_grad_norm_d"].gt(0).all()
    assert len(pd.read_csv(whole / "single_epochs_statistics/epoch_4/epoch_4_iterations.csv")) == 3
    samples = np.load(whole / "samples/epoch_001.npy")
    assert samples.shape[1:] == (1, 64, 64) and samples.min() >= 0 and samples.max() <= 1
    assert not list(whole.rglob(".*.tar")) and not list(whole.rglob(".*.csv"))


def test_rolling_checkpoints(data, tmp_path):
    keys = {"milestone_epoch_frequency": 1, "emergency_buffer_size": 2}
    train_dcgan(settings(data, tmp_path, 4).with_values(metrics_and_checkpoints=keys))
    names = sorted(path.name for path in (tmp_path / "checkpoints").glob("checkpoint_epoch_*"))
    assert names == ["checkpoint_epoch_3.tar", "checkpoint_epoch_4.tar"]


def test_what_cannot_be_measured_does_not_end_the_training(data, tmp_path, caplog):
    epochs = iter(range(1, 5))

    def measure(pictures):
        if next(epochs) in (1, 3):
            raise DataError("The sound is silent.")
        return {"quality": 2.0}

    config = settings(data, tmp_path, 4).with_values(advanced_metrics={"fid_frequency": 1, "enabled": True})
    train_dcgan(config, quality=measure)
    assert torch.load(tmp_path / "checkpoints/best_model.tar")["epoch"] == 2
    quality = pd.read_csv(tmp_path / "epochs_statistics/checkpoint_metrics.csv")["quality"]
    assert quality.isna().tolist() == [True, False, True, False]
    assert "epoch 3 has no quality and cannot be the best: The sound is silent." in caplog.text


def test_best_model_follows_the_quality(data, tmp_path):
    config = settings(data, tmp_path, 4).with_values(advanced_metrics={"fid_frequency": 1, "enabled": True})
    found = iter([5.0, 2.0, 3.0, 1.9999])
    train_dcgan(config, quality=lambda pictures: {"quality": next(found)})
    kept = torch.load(tmp_path / "checkpoints/best_model.tar")
    assert (kept["epoch"], kept["quality"]) == (2, 2.0)  # 1.9999 is not better by the threshold
    assert list(pd.read_csv(tmp_path / "epochs_statistics/checkpoint_metrics.csv")["quality"]) == [
        5.0,
        2.0,
        3.0,
        1.9999,
    ]


def test_another_run_is_refused_by_the_keys_that_differ_and_leaves_all_as_it_was(data, whole):
    written = whole / "epochs_statistics/experiment_config.json"
    before = written.read_bytes()
    with pytest.raises(
        DataError, match=r"epochs: 4 -> 7, recipe ema: 0.9 -> 0.5, training learning_rate: 0.0002 -> 0.001"
    ):
        train_dcgan(settings(data, whole, learning_rate=0.001, ema=0.5, epochs=7))
    assert written.read_bytes() == before


def test_checkpoint_of_another_shape(whole, tmp_path):
    content = weights(whole)
    content["config"]["model"]["features_g"] = 5
    torch.save(content, tmp_path / "other.tar")
    with pytest.raises(DataError, match=r"other\.tar: its weights do not fit"):
        load_networks(tmp_path / "other.tar")
    (tmp_path / "broken.tar").write_bytes(b"nothing")
    with pytest.raises(DataError, match=r"broken\.tar"):
        load_networks(tmp_path / "broken.tar")


def test_the_discriminators_norm_is_of_its_own_loss_alone(data, tmp_path, monkeypatch):
    "Not of what the generator's backward pass leaves in the discriminator afterwards."
    own, noted = [], []
    loss, note = training.discriminator_loss, IterationRecord.note

    def watched(logits, real, fake, slope):
        found = loss(logits, real, fake, slope)
        parameters = list(logits.__self__.discriminator.parameters())
        gradients = torch.autograd.grad(found[0], parameters, retain_graph=True)
        own.append(float(torch.cat([gradient.flatten() for gradient in gradients]).norm()))
        return found

    monkeypatch.setattr(training, "discriminator_loss", watched)
    monkeypatch.setattr(IterationRecord, "note", lambda self, *a: (noted.append(a[3]), note(self, *a))[1])
    train_dcgan(settings(data, tmp_path, 2))
    assert noted == pytest.approx(own, rel=1e-5) and len(own) == 6
    table = pd.read_csv(tmp_path / "epochs_statistics/epoch_statistics.csv")
    assert table["avg_grad_norm_d"].to_numpy() == pytest.approx(np.reshape(own, (2, 3)).mean(axis=1), rel=1e-5)


def test_accuracies_are_shares_of_right_answers():
    answers = iter([torch.tensor([[1.0], [-1.0], [2.0], [3.0]]), torch.tensor([[-1.0], [1.0], [2.0], [-3.0]])])
    beliefs = training.discriminator_loss(lambda _: next(answers), torch.zeros(4, 1, 8, 8), torch.zeros(4, 1, 8, 8))[1]
    assert beliefs[2:4] == [0.75, 0.5] and beliefs[5] == pytest.approx(1.5)


def test_accuracies_and_iterations_of_a_run_are_in_its_table(data, tmp_path):
    plain = {"ema": 0.0, "augmentation": False, "spectral_norm": False, "upsample": "transposed"}
    train_dcgan(settings(data, tmp_path, 6, **plain, learning_rate=0.002))
    table = pd.read_csv(tmp_path / "epochs_statistics/epoch_statistics.csv")
    assert (table["total_iterations_in_epoch"] == 3).all()
    for name in ("d_real_accuracy", "d_fake_accuracy"):
        assert table[name].between(0, 1).all() and table[name].max() > 0.9 and table[name].nunique() > 1


def test_features_are_honoured(data, tmp_path):
    train_dcgan(settings(data, tmp_path, 1, features_g=6, features_d=10))
    content = weights(tmp_path)
    assert content["generator"]["layers.3.1.weight"].shape[1] == 6
    assert content["discriminator"]["layers.0.0.parametrizations.weight.original"].shape[0] == 10


def test_fp16_needs_a_graphics_card(data, tmp_path):
    with pytest.raises(DataError, match="fp16"):
        train_dcgan(settings(data, tmp_path, 1, precision="fp16"))


def test_a_slope_penalty_is_learned_from(data, tmp_path):
    for name, slope in (("without", 0.0), ("with", 10.0)):
        train_dcgan(settings(data, tmp_path / name, 2, r1=slope))
    without, with_penalty = (
        pd.read_csv(tmp_path / name / "epochs_statistics/epoch_statistics.csv") for name in ("without", "with")
    )
    assert (without["gradient_penalty_value"] == 0).all() and (with_penalty["gradient_penalty_value"] > 0).all()
    assert not same(weights(tmp_path / "without"), weights(tmp_path / "with"))


def test_a_nan_ends_the_run_within_the_iteration(data, tmp_path, monkeypatch):
    step = AdversarialModule.training_step
    monkeypatch.setattr(
        AdversarialModule,
        "training_step",
        lambda self, batch, index: step(self, batch * float("nan") if self.record.iteration == 3 else batch, index),
    )
    config = settings(data, tmp_path, 5)
    summary = train_dcgan(config)
    assert (summary["status"], summary["iterations"], summary["epochs"]) == ("diverged", 4, 2)
    kept = weights(tmp_path)
    assert all(torch.isfinite(value).all() for part in ("generator", "discriminator") for value in kept[part].values())
    assert len(pd.read_csv(tmp_path / "single_epochs_statistics/epoch_2/epoch_2_iterations.csv")) == 1
    assert train_dcgan(config)["iterations"] == 4  # it has ended and stays so


def test_a_nan_leaves_no_trace_in_running_statistics(data, tmp_path, monkeypatch):
    "The documented recipe has batch normalisation in both networks, which a forward pass alone would spoil."
    step = AdversarialModule.training_step
    monkeypatch.setattr(
        AdversarialModule,
        "training_step",
        lambda self, batch, index: step(self, batch * float("nan") if self.record.iteration == 3 else batch, index),
    )
    plain = {"ema": 0.0, "augmentation": False, "spectral_norm": False, "upsample": "transposed"}
    summary = train_dcgan(settings(data, tmp_path, 5, **plain, discriminator_noise=0.0))
    assert (summary["status"], summary["iterations"]) == ("diverged", 4)
    kept = weights(tmp_path)
    running = [name for name in kept["discriminator"] if "running" in name]
    assert len(running) == 6
    for part in ("generator", "generator_raw", "discriminator"):
        assert all(torch.isfinite(value).all() for value in kept[part].values())


def test_a_short_healthy_run_is_never_flagged(data, tmp_path, monkeypatch):
    "An untrained generator makes nearly one picture; that is no collapse."
    seen, note = [], IterationRecord.note
    monkeypatch.setattr(
        IterationRecord, "note", lambda self, *a: (note(self, *a), seen.append(self.detector.memory.status))[0]
    )
    for epochs in (1, 10):
        config = settings(data, tmp_path / str(epochs), epochs).with_values(convergence={"enabled": True})
        plain = {"ema": 0.0, "augmentation": False, "spectral_norm": False, "upsample": "transposed"}
        summary = train_dcgan(config.with_values(recipe=plain))
        assert summary["status"] in ("training", "converged"), summary
    assert len(seen) == 33 and set(seen) <= {"training", "converged"}


def test_the_machine_is_noted_in_each_iteration(data, tmp_path):
    asked = iter(range(100))
    machine = {"gpu_memory_used": None, "gpu_utilization": None, "ram_usage": 50.0, "process_mb": 300.0}
    config = settings(data, tmp_path, 2).with_values(metrics_and_checkpoints={"csv_write_frequency": 1})
    train_dcgan(config, resources=lambda: machine | {"cpu_usage": float(next(asked))})
    rows = pd.read_csv(tmp_path / "single_epochs_statistics/epoch_2/epoch_2_iterations.csv")
    assert rows["cpu_usage"].tolist() == [3, 4, 5] and rows["process_mb"].eq(300).all()
    epochs = pd.read_csv(tmp_path / "epochs_statistics/epoch_statistics.csv")
    assert epochs["cpu_usage"].tolist() == [1, 4] and epochs["gpu_memory_used"].isna().all()


def test_pictures_of_256_rows(tmp_path):
    write_engines(tmp_path / "audio", 2, seconds=1.6)
    table = prepare_folder(tmp_path / "audio", tmp_path / "dataset", SpectrogramFormat(256))
    assert len(table) >= 2
    config = settings(tmp_path / "dataset", tmp_path / "run", 1, image_size=256, batch_size=2)
    assert train_dcgan(config)["iterations"] == -(-len(table) // 2)
    assert np.load(tmp_path / "run/samples/epoch_001.npy").shape[1:] == (1, 256, 256)
    assert len(list(tmp_path.glob("out/*.wav"))) == 0
    generate(tmp_path / "run/checkpoints/best_model.tar", tmp_path / "out", 1, iterations=2)
    assert len(list(tmp_path.glob("out/*.wav"))) == 1


def test_colours_are_refused(data, tmp_path):
    with pytest.raises(DataError, match=r"model.channels is 3; spectrograms are grey"):
        train_dcgan(settings(data, tmp_path, 1, channels=3))


def test_bf16_with_channels_last_learns(data, tmp_path):
    summary = train_dcgan(settings(data, tmp_path, 1, precision="bf16", channels_last=True))
    assert summary["status"] == "training" and summary["iterations"] == 3


def test_a_run_that_diverged_ends_at_once(data, tmp_path):
    config = settings(data, tmp_path, 5).with_values(convergence={"loss_explosion_threshold": 1.0, "enabled": True})
    begun = time.monotonic()
    summary = train_dcgan(config)
    assert summary["status"] == "diverged" and summary["iterations"] <= 6 and summary["epochs"] <= 2
    assert train_dcgan(config)["iterations"] == summary["iterations"] and time.monotonic() - begun < 60


def test_a_run_that_diverged_is_summed_up(data, tmp_path):
    config = settings(data, tmp_path, 5).with_values(convergence={"loss_explosion_threshold": 1.0, "enabled": True})
    assert run_training(config)["status"] == "diverged"
    summaries = [json.loads(path.read_text()) for path in tmp_path.rglob("training_summary.json")]
    assert len(summaries) == 1 and "NaN" not in json.dumps(summaries[0])


def test_quality_is_measured_where_the_keys_say(data, tmp_path):
    def epochs(name, metrics, **frequencies):
        config = settings(data, tmp_path / name, 6).with_values(advanced_metrics={"fid_frequency": 100, **metrics})
        train_dcgan(config.with_values(metrics_and_checkpoints=frequencies), quality=lambda _: {"quality": 1.0})
        return list(pd.read_csv(tmp_path / name / "epochs_statistics/checkpoint_metrics.csv")["epoch"])

    assert epochs("last", {}) == [6]
    assert epochs("by score", {"calculate_is": True, "is_frequency": 2}) == [2, 4, 6]
    assert epochs("by iterations", {}, milestone_checkpoint_frequency=7) == [3, 5, 6]  # steps 9, 15 and the last epoch


def test_states_are_kept_as_often_as_the_key_says(data, tmp_path, monkeypatch):
    kept, save = [], L.Trainer.save_checkpoint
    monkeypatch.setattr(
        L.Trainer, "save_checkpoint", lambda self, *a: (kept.append(self.current_epoch), save(self, *a))
    )
    keys = {"emergency_checkpoint_frequency": 7}
    train_dcgan(settings(data, tmp_path, 6).with_values(metrics_and_checkpoints=keys))
    assert kept == [0, 1, 2, 2, 3, 4, 4, 5]  # at each epoch's end, and after the steps 7 and 14


def test_loading_keys_reach_the_loader(data, tmp_path, monkeypatch):
    seen, make = [], DataLoader.__init__
    monkeypatch.setattr(DataLoader, "__init__", lambda self, *a, **k: (seen.append(k), make(self, *a, **k))[1])
    hardware = {"num_workers": 1, "prefetch_factor": 5, "pin_memory": True}
    train_dcgan(settings(data, tmp_path, 1).with_values(hardware=hardware))
    assert seen[0]["num_workers"] == 1 and seen[0]["prefetch_factor"] == 5
    assert seen[0]["pin_memory"] == torch.cuda.is_available()  # it serves copies to a graphics card only


def test_inception_score_over_recordings(data, tmp_path):
    config = settings(data, tmp_path, 1).with_values(advanced_metrics={"calculate_is": True, "calculate_fid": False})
    measure = training_quality(config)
    row = measure(np.random.default_rng(0).uniform(size=(4, 1, 64, 64)).astype(np.float32))
    assert 1 <= row["inception_score"] <= 3 and "fid_score" not in row and np.isfinite(row["quality"])
    table = pd.read_csv(data / "spectrograms-metadata.csv")
    shutil.copytree(data, tmp_path / "anonymous")
    table.assign(source="one.wav").to_csv(tmp_path / "anonymous/spectrograms-metadata.csv", index=False)
    with pytest.raises(DataError, match="calculate_is"):
        training_quality(config.with_values(base_path=str(tmp_path / "anonymous")))


def test_the_table_of_checkpoints_names_its_embedding(data, tmp_path):
    config = settings(data, tmp_path, 1).with_values(advanced_metrics={"enabled": True, "num_samples_for_metrics": 8})
    run_training(config, figures=False)
    row = pd.read_csv(tmp_path / "epochs_statistics/checkpoint_metrics.csv").iloc[-1]
    assert row["embedding"] == "aisfx" and row["n_generated"] == row["n_real"] == 8 and row["fid_score"] > 0
    assert -1 <= row["ssim_of_pairs"] <= 1 and row["lpips_aisfx_of_pairs"] > 0
    assert np.load(tmp_path / row["image_sample_paths"]).shape[1:] == (1, 64, 64)
    assert row[["stoi_score", "pesq_score", "mcd_score", "image_quality_score"]].isna().all()


def test_inception_weights_of_a_user(data, tmp_path, scripted):
    config = settings(data, tmp_path, 1)
    config = config.with_values(inception_weights=str(scripted), num_samples_for_metrics=1000)
    measure = training_quality(config)
    pictures = np.random.default_rng(0).uniform(size=(4, 1, 64, 64)).astype(np.float32)
    row = measure(pictures)
    real = inception_features(load_dataset(config).pictures(list(range(row["n_real"]))), scripted)
    assert row["embedding"] == "inception" and row["quality_name"] == "kernel_inception"
    assert row["fid_score"] == pytest.approx(frechet_distance(inception_features(pictures, scripted), real))
    with pytest.raises(DataError, match=r"advanced_metrics.inception_weights: no file .*nowhere.pt"):
        training_quality(config.with_values(inception_weights="nowhere.pt"))


@pytest.mark.skipif(os.geteuid() != 0, reason="A small file system can be mounted by root only.")
def test_a_full_disk_ends_training_with_a_sentence(data, tmp_path):
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=300k", "tmpfs", tmp_path], capture_output=True).returncode:
        pytest.skip("No file system can be mounted here.")
    try:
        with pytest.raises(DataError, match=r"not written|space"):
            train_dcgan(settings(data, tmp_path / "run", 4))
        assert not list(tmp_path.rglob("*.part")) and not list(tmp_path.rglob(".*.tar"))
    finally:
        subprocess.run(["umount", "-l", tmp_path], check=True)

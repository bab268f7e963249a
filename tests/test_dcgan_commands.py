"""The commands as they are typed: help, refusals that are sentences, folders of other names, a full disk, the log."""

import json
import logging
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile
import torch

from anomaly_nb.core import DataError, folder_lock
from anomaly_nb.dcgan import (
    SpectrogramDetector,
    SpectrogramFormat,
    audio_to_spectrograms,
    commands,
    jobs,
    load_config,
)
from anomaly_nb.dcgan.analytics import read_run
from anomaly_nb.dcgan.jobs import generate, run_training, training_quality
from anomaly_nb.dcgan.run import load_dataset
from anomaly_nb.dcgan.samples import npy_to_images
from anomaly_nb.dcgan.spectrograms import METADATA, SpectrogramDataset, prepare_folder
from anomaly_nb.dcgan.training import AdversarialModule, write_checkpoint

NAMES = ["dcgan_prepare", "dcgan_train", "dcgan_generate", "dcgan_npy_to_images"]
TINY = {"features_g": 4, "features_d": 4, "image_size": 64, "batch_size": 8, "device": "cpu"}


def write_model(path):
    "A checkpoint of untrained networks."
    write_checkpoint(AdversarialModule(load_config("config_test", **TINY)), path, SpectrogramFormat(64))


@pytest.fixture
def typed(monkeypatch, tmp_path):
    "Types a command in an empty folder; what it ends with, None for success."

    def run(line):
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(sys, "argv", line.split())
        try:
            getattr(commands, line.split()[0]).main()
        except SystemExit as end:
            return end.code
        return None

    root, handlers, level = logging.getLogger(), list(logging.getLogger().handlers), logging.getLogger().level
    yield run
    for handler in [handler for handler in root.handlers if handler not in handlers]:
        root.removeHandler(handler)
        handler.close()
    root.setLevel(level)


def test_commands_load_what_is_heavy_only_when_they_run():
    "So that help is quick, and an interrupt while PyTorch is loaded is answered with a sentence."
    code = "import sys, anomaly_nb.dcgan.commands; print({'torch', 'soundfile', 'PIL', 'scipy'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "set()"


@pytest.mark.parametrize("name", NAMES)
def test_the_help_names_the_command_and_no_empty_default(typed, capsys, name):
    assert typed(f"{name} --help") == 0
    shown = capsys.readouterr().out
    assert shown.startswith(f"Usage: {name} ") and "[default: ]" not in shown and "None" not in shown


def test_the_help_tells_of_channels_and_devices_and_choices(typed, capsys):
    for name in NAMES:
        typed(f"{name} --help")
    shown = " ".join(capsys.readouterr().out.split())
    assert "of several channels the first is taken" in shown and "--devices INTEGER Processors of each machine" in shown
    assert "[INPUT]..." in shown and "[png|jpg|jpeg|bmp|tiff]" in shown


def test_the_configuration_of_a_file_is_shown(typed, capsys, tmp_path):
    (tmp_path / "mine.json").write_text('{"training": {"epochs": 33}}')
    for words, epochs in (("mine.json show", 33), ("show mine.json --epochs 7", 7), ("show", 200)):
        assert typed(f"dcgan_train --config {words}") == 0
        assert json.loads(capsys.readouterr().out)["training"]["epochs"] == epochs
    assert "give one configuration" in typed("dcgan_train --config config mine.json")
    assert "give one configuration" in typed("dcgan_train --config show help")


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ("dcgan_prepare {0}/recordings --image-size 3", "error: image_size is 3; expected 8 to 1024."),
        ("dcgan_prepare {0}/recordings --n-fft 8", "error: n_fft is 8; expected 32 to 65536."),
        ("dcgan_prepare {0}/recordings --overlap 1", "error: overlap is 1.0; it must be"),
        ("dcgan_train --dataset {0}/dataset --seed -1", "error: training.seed is -1"),
        ("dcgan_train --dataset {0}/dataset --seed 99999999999999999999999", "error: training.seed is 9999"),
        ("dcgan_generate {0}/model.tar --seed -1", "error: seed is -1; expected 0 to 2147483647."),
        ("dcgan_generate {0}/model.tar --seed 99999999999999999999", "error: seed is 99999999999999999999; expected"),
        ("dcgan_generate {0}/model.tar --iterations -3", "error: iterations is -3; expected 1 to 10000."),
        ("dcgan_generate {0}/model.tar --iterations 1000000000", "error: iterations is 1000000000; expected"),
        ("dcgan_generate {0}/model.tar --number 0", "error: number is 0; expected 1 to 100000."),
    ],
)
def test_refusals_use_the_names_of_the_options(typed, tmp_path, engines, line, sentence):
    if not (engines / "model.tar").exists():
        write_model(engines / "model.tar")
    told = typed(line.format(engines))
    assert told.startswith(sentence) and "recordings" not in told
    assert not [path for path in tmp_path.rglob("*") if path.is_file() and path.name not in (".lock", "training.log")]


@pytest.mark.parametrize("line", ["dcgan_prepare . --representation cepstrum", "dcgan_train --device abacus"])
def test_choices_are_checked_by_the_parser(typed, capsys, line):
    assert typed(line) == 2
    assert f"'{line.split()[-1]}' is not one of" in capsys.readouterr().err


def test_a_folder_of_samples_is_converted_past_a_damaged_one(typed, tmp_path, caplog):
    (tmp_path / "samples").mkdir()
    for name in "ac":
        np.save(tmp_path / f"samples/{name}.npy", np.zeros((2, 1, 4, 4), np.float32))
    (tmp_path / "samples/b.npy").write_bytes(b"nothing")
    assert typed("dcgan_npy_to_images --batch_convert samples --mode grid --output there") == 1
    assert sorted(path.name for path in (tmp_path / "there").glob("[!.]*")) == ["a_grid.png", "c_grid.png"]
    assert "1 of 3 files could not be judged" in caplog.text and "samples/b.npy" in caplog.text
    assert "error" in typed("dcgan_npy_to_images samples/b.npy")


def test_images_of_one_file_and_of_no_two(typed, tmp_path):
    for name in ("a", "b"):
        np.save(tmp_path / f"{name}.npy", np.zeros((2, 1, 4, 4), np.float32))
    assert typed("dcgan_npy_to_images a.npy --mode grid --output there") == 0
    assert [path.name for path in (tmp_path / "there").glob("[!.]*")] == ["a_grid.png"]
    assert typed("dcgan_npy_to_images --output there --overwrite a.npy --mode=grid") == 0
    for words in ("a.npy b.npy", "", "a.npy --batch-convert ."):
        assert "Give one .npy file, or a folder" in typed(f"dcgan_npy_to_images {words}")


def test_pictures_of_another_size_or_representation_are_refused(typed, engines):
    assert typed(f"dcgan_prepare {engines}/recordings") == 0
    told = typed("dcgan_train --config config_test --device cpu")
    assert told.startswith("error: dataset: the pictures were prepared with image_size 128, model.image_size is 64.")
    folder = Path("few_columns")
    shutil.copytree("dataset", folder)
    table = pd.read_csv(folder / METADATA)
    table[["spectrogram_file", "size", "kind"]].to_csv(folder / METADATA, index=False)
    with pytest.raises(DataError, match=r"image_size 128, model\.image_size is 64"):
        load_dataset(load_config("config_test", base_path=str(folder)))
    with pytest.raises(DataError, match=r"recipe\.representation is 'mel', .* few_columns are 'hybrid'"):
        load_dataset(load_config("config", base_path=str(folder), representation="mel"))
    assert load_dataset(load_config("config", base_path=str(folder))).format is None


def test_folders_of_other_names(engines, tmp_path):
    names = {"metrics_dir": "numbers", "samples_dir": "pictures", "models_dir": "networks"}
    config = load_config("config_test", base_path=str(engines / "dataset"), epochs=1, **TINY)
    config = config.with_values(output={"base_output_dir": str(tmp_path / "run"), **names})
    summary = run_training(config.with_values(advanced_metrics={"enabled": False}))
    assert summary["epochs"] == 1
    made = {path.name for path in (tmp_path / "run").iterdir() if path.is_dir()}
    assert made == {*names.values(), "single_epochs_statistics", "plots", "resume"}
    assert (tmp_path / "run/plots/sample_evolution.png").is_file()
    assert json.loads((tmp_path / "run/training_summary.json").read_text())["training_summary"]["samples"] == 1
    assert (tmp_path / "run/networks/best_model.tar").is_file()
    row = pd.read_csv(tmp_path / "run/numbers/checkpoint_metrics.csv").iloc[0]
    assert (row["image_sample_paths"], row["checkpoint_file_path"]) == (
        "pictures/epoch_001.npy",
        "networks/best_model.tar",
    )


@pytest.mark.parametrize("rank", ["LOCAL_RANK", "SLURM_PROCID"])
def test_a_job_that_trains_alone_locks_and_logs_whatever_its_rank(typed, tmp_path, engines, monkeypatch, rank):
    monkeypatch.setenv(rank, "1")
    line = f"dcgan_train --config config_test --epochs 1 --device cpu --dataset {engines}/dataset --output-dir out"
    with folder_lock(tmp_path / "out"):
        assert "another run works here" in typed(f"{line} --features-g 4 --features-d 4")
    config = load_config("config_test", output_dir=str(tmp_path / "out"))
    for first, level in ((True, config.logging.log_level), (False, "ERROR")):
        jobs.write_log(config, first)
        assert logging.getLogger().level == getattr(logging, level)
    assert (tmp_path / "out/logs/training.log").is_file()


def test_a_run_that_had_ended_keeps_what_was_seen_of_the_machine(engines, tmp_path):
    config = load_config("config_test", base_path=str(engines / "dataset"), output_dir=str(tmp_path), epochs=1, **TINY)
    config = config.with_values(advanced_metrics={"enabled": False})
    run_training(config, figures=False)
    seen = (tmp_path / "resource_monitoring.json").read_bytes()
    run_training(config, figures=False)
    assert (tmp_path / "resource_monitoring.json").read_bytes() == seen
    run_training(config.with_values(epochs=2), figures=False, restart=True)
    assert (tmp_path / "resource_monitoring.json").read_bytes() != seen


def test_perceptual_distance_is_named_by_its_network(engines, tmp_path):
    class Colours(torch.nn.Module):
        def forward(self, x: torch.Tensor, return_features: bool = False) -> torch.Tensor:
            return x.float().mean(dim=(2, 3))

    torch.jit.script(Colours()).save(str(tmp_path / "colours.pt"))
    config = load_config("config_test", base_path=str(engines / "dataset"), **TINY)
    measure = training_quality(config.with_values(inception_weights=str(tmp_path / "colours.pt")))
    row = measure(np.random.default_rng(0).uniform(size=(4, 1, 64, 64)).astype(np.float32))
    assert row["embedding"] == "inception" and row["lpips_aisfx_of_pairs"] > 0 and "lpips_of_pairs" not in row
    assert all(type(value) in (float, int, str) for value in row.values())


@pytest.mark.skipif(os.geteuid() != 0, reason="A small file system can be mounted by root only.")
@pytest.mark.parametrize("size", ["0", "300k"])
def test_a_full_disk_ends_the_command_with_one_sentence(engines, tmp_path, size):
    kind = f"size={size}" if size != "0" else "size=64k"
    if subprocess.run(["mount", "-t", "tmpfs", "-o", kind, "tmpfs", tmp_path], capture_output=True).returncode:
        pytest.skip("No file system can be mounted here.")
    try:
        if size == "0":
            (tmp_path / "full").write_bytes(bytes(64 * 1024))
        script = Path(sys.executable).with_name("dcgan_train")
        line = "--config config_test --epochs 4 --features-g 4 --features-d 4 --device cpu --output-dir out".split()
        environment = os.environ | {"OMP_NUM_THREADS": "1", "IN_TEST": "1"}
        command = [script, *line, "--dataset", engines / "dataset"]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, env=environment)
    finally:
        subprocess.run(["umount", "-l", tmp_path], check=True)
    assert done.returncode == 1 and "Traceback" not in done.stderr and "Logging error" not in done.stderr
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("error: out") and ("Free some space" in last or "No space left" in last)


def test_a_log_line_is_never_lost(tmp_path):
    "Not when the file is full, nor when a second run goes on with it."
    config = load_config("config_test", output_dir=str(tmp_path))
    config = config.with_values(logging={"max_log_size_mb": 0.01, "log_to_console": True})
    root = logging.getLogger()
    before, level = list(root.handlers), root.level
    for part in (0, 1):
        jobs.write_log(config, first=True)
        for number in range(1000 * part, 1000 * part + 1000):
            logging.getLogger("anomaly_nb").info("this is the line %d.", number)
        for handler in [handler for handler in root.handlers if handler not in before]:
            root.removeHandler(handler)
            handler.close()
    root.setLevel(level)
    age = {file: 0 if file.suffix == ".log" else int(file.suffix[1:]) for file in (tmp_path / "logs").iterdir()}
    files = sorted(age, key=lambda file: -age[file])
    assert len(files) > 5 and all(file.stat().st_size <= 10_000 for file in files)
    lines = [line for file in files for line in file.read_text().splitlines()]
    assert [int(line.split()[-1][:-1]) for line in lines] == list(range(2000))


def test_a_log_that_cannot_be_written_says_other_faults(tmp_path, capsys):
    handler = jobs.LogFile(tmp_path / "log")
    handler.setStream(open("/dev/full", "w"))
    record = logging.LogRecord("name", logging.INFO, "file", 1, "line %d", (1,), None)
    handler.emit(record)
    assert capsys.readouterr().err == ""
    record.args = ("text",)
    handler.emit(record)  # a fault of the program is still told
    assert "Logging error" in capsys.readouterr().err


def test_pictures_of_recordings_that_are_gone_are_removed(engines, tmp_path, caplog):
    caplog.set_level(logging.INFO)
    shutil.copytree(engines / "recordings", tmp_path / "recordings")
    form = SpectrogramFormat(64)
    before = prepare_folder(tmp_path / "recordings", tmp_path / "dataset", form)
    (tmp_path / "dataset/spectrograms/mine.png").write_bytes(b"of someone")
    gone = sorted((tmp_path / "recordings").iterdir())[0]
    gone.rename(tmp_path / gone.name)
    after = prepare_folder(tmp_path / "recordings", tmp_path / "dataset", form)
    lost = len(before) - len(after)
    assert lost > 0 and f"{lost} pictures of an earlier preparation are removed" in caplog.text
    left = {path.name for path in (tmp_path / "dataset/spectrograms").iterdir()}
    assert left == {*after["spectrogram_file"], "mine.png"}
    assert len(SpectrogramDataset(tmp_path / "dataset", 64)) == len(after)


def test_a_silent_first_channel_beside_one_with_sound(tmp_path):
    sound = np.sin(np.arange(22050) / 9)
    (tmp_path / "audio").mkdir()
    soundfile.write(tmp_path / "audio/two.wav", np.stack([0 * sound, 0 * sound, sound], axis=1), 22050)
    named = r"two\.wav: the first channel is silent, but channel 3 is not"
    with pytest.raises(DataError, match=named):
        prepare_folder(tmp_path / "audio", tmp_path / "dataset")
    with pytest.raises(DataError, match=named):
        SpectrogramDetector("picture").fit([tmp_path / "audio/two.wav"] * 4)
    soundfile.write(tmp_path / "audio/two.wav", np.stack([sound, 0 * sound], axis=1), 22050)
    first = audio_to_spectrograms(sound, format=SpectrogramFormat(64)).pictures
    prepare_folder(tmp_path / "audio", tmp_path / "dataset", SpectrogramFormat(64))
    assert np.abs(SpectrogramDataset(tmp_path / "dataset", 64).pictures() - first).mean() < 0.002


def test_what_is_too_short_or_not_a_number_is_said_so(tmp_path):
    (tmp_path / "audio").mkdir()
    soundfile.write(tmp_path / "audio/short.wav", np.ones(3), 22050)
    with pytest.raises(DataError, match=r"short\.wav: 3 samples \(0\.00014 s\) are shorter than the 20 ms"):
        prepare_folder(tmp_path / "audio", tmp_path / "dataset")
    detector, broken = SpectrogramDetector("picture"), np.full(9999, np.nan, np.float32)
    for bad, word in ((broken, "NaN"), (np.zeros(9999, np.float32), "silent"), (np.ones(3, np.float32), "3 samples")):
        with pytest.raises(DataError, match=word):
            detector.fit([bad] * 4)


def test_files_are_sorted_by_their_numbers(engines, tmp_path):
    for number in (1000, 995, 5):
        (tmp_path / "samples").mkdir(exist_ok=True)
        np.save(tmp_path / f"samples/epoch_{number:03d}.npy", np.zeros((1, 1, 4, 4), np.float32))
    (tmp_path / "epochs_statistics").mkdir()
    table = pd.DataFrame({"epoch": [1], "avg_generator_loss": 1.0, "avg_discriminator_loss": 1.0})
    table.to_csv(tmp_path / "epochs_statistics/epoch_statistics.csv")
    expected = ["epoch_005", "epoch_995", "epoch_1000"]
    assert [path.stem for path in read_run(tmp_path).samples] == expected
    images = npy_to_images(tmp_path / "samples", mode="grid")
    assert [path.stem for path in images] == [f"{name}_grid" for name in expected]


def test_generated_sound_depends_on_seed_and_number_only(engines, tmp_path):
    write_model(tmp_path / "model.tar")
    few = generate(tmp_path / "model.tar", tmp_path / "few", 2, seed=2**31 - 1, sound=False)
    many = generate(tmp_path / "model.tar", tmp_path / "many", 5, seed=2**31 - 1, sound=False)
    assert np.array_equal(few, many[:2]) and not np.array_equal(few[0], few[1])

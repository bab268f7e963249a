"""The long commands on tiny data: how each is called, what it needs before, and what it leaves behind."""

import io
import os
import re
import sys
from collections.abc import Callable
from pathlib import Path
from runpy import run_path
from typing import NamedTuple

import numpy as np
import pandas as pd
from joblib.externals.loky import reusable_executor


def run(folder: str, label: str, arguments: list[str]) -> None:
    "A command as its console script runs it, with its output in a file."
    name = label.partition(" ")[0]
    os.chdir(folder)
    log = os.open("log.txt", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(log, 1)
    os.dup2(log, 2)
    sys.argv = [name, *arguments]
    place = "tour" if name == "anomaly_nb_tour" else f"{name.partition('_')[0]}.commands"
    script = Path(f".{name}.py")
    script.write_text(f"from anomaly_nb.{place} import {name}\n\n{name}.main()\n")
    try:
        run_path(str(script), run_name="__main__")
    finally:
        if (pool := reusable_executor._executor) is not None:  # of joblib, which ends it when an interpreter ends
            pool.shutdown(wait=True)


def nothing(folder: Path) -> None:
    "A command that makes its data itself."


def curves(folder: Path) -> None:
    random = np.random.default_rng(0)
    for place in ("train", "test"):
        (folder / "datasets/mine" / place).mkdir(parents=True)
        for number in range(12):
            times = pd.date_range("2026", periods=300, freq="min", name="timestamp")
            series = pd.Series(np.sin(np.arange(300) / 8) + 0.1 * random.normal(size=300), times, name="value")
            series.to_csv(folder / "datasets/mine" / place / f"{number}.csv")


def curve_windows(folder: Path) -> None:
    curves(folder)
    run(str(folder), "srcnn_generate_data", ["--dataset", "mine", "--step", "16"])


def spectra(folder: Path) -> None:
    from anomaly_nb.spectra import simulate_spectra, write_table

    for number in range(8):
        write_table(simulate_spectra(6, number), folder / "night" / f"{number}.npz")
    run(str(folder), "spectra_train", ["--simulate", "100", "--baseline", "--out", "model"])


def recordings(folder: Path) -> None:
    from anomaly_nb.dcgan import write_engines

    write_engines(folder / "recordings", 3, seconds=1.5)


def pictures(folder: Path) -> None:
    recordings(folder)
    run(str(folder), "dcgan_prepare", ["recordings", "--out", "dataset", "--image-size", "64"])


def samples(folder: Path) -> None:
    np.save(folder / "samples.npy", np.random.default_rng(0).random((60, 1, 64, 64)))


def image_detector(folder: Path) -> None:
    run(str(folder), "fmnist_train", "--subset --epochs 1 --batch_size 32 --score pixel --save model".split())


def checkpoint(folder: Path) -> None:
    from anomaly_nb.dcgan import SpectrogramFormat, load_config
    from anomaly_nb.dcgan.training import AdversarialModule, write_checkpoint

    config = load_config("config_test", features_g=4, features_d=4, image_size=64)
    write_checkpoint(AdversarialModule(config), folder / "model.tar", SpectrogramFormat(64))


def grid(folder: Path) -> None:
    rows = "Autoencoder = { epochs = 2 }\nVAE = { epochs = 2 }\n"
    (folder / "grid.toml").write_text(f"[losses]\nMSE = {{ mse = 1 }}\nL1 = {{ l1 = 1 }}\n[models]\n{rows}")


def machines(folder: Path) -> None:
    words = ["--types", "fan", "--machines", "1", "--train", "6", "--normal", "2", "--anomaly", "2"]
    run(str(folder), "dcase_synthesize", ["data", *words, "--seconds", "2.05"])


class Long(NamedTuple):
    "A command that may be killed."

    prepare: Callable[[Path], None]  # makes its input in an empty folder
    arguments: str
    out: str  # folder that it keeps for itself
    results: tuple[str, ...]  # patterns of files that must come out the same


TINY_GAN = "--config config_test --epochs 3 --batch-size 8 --image-size 64 --features-g 4 --features-d 4 --device cpu"
COMMANDS = {
    "srcnn_generate_data": Long(curves, "--dataset mine --step 4", "datasets/mine", ("datasets/mine/train.json",)),
    "srcnn_train": Long(
        curve_windows,
        "--dataset mine --epoch 10 --num_workers 0 --device cpu --batch_size 16",
        "snapshot",
        ("snapshot/*.bin",),
    ),
    "srcnn_detect": Long(
        curves,
        "datasets/mine/test --out found --chunk_size 1",
        "found",
        ("found/*.csv", "found/*.jsonl"),
    ),
    "spectra_train": Long(nothing, "--simulate 80 --epochs 3 --components 6 --out model", "model", ("model/*.*",)),
    "spectra_detect": Long(
        spectra, "night --model model --out found --figures 2", "found", ("found/*.csv", "found/figures/*")
    ),
    "dcgan_prepare": Long(recordings, "recordings --out dataset --image-size 64", "dataset", ("dataset/**/*.*",)),
    "dcgan_train": Long(
        pictures,
        f"{TINY_GAN} --dataset dataset --output-dir out",
        "out",
        ("out/checkpoints/*.tar", "out/samples/*.npy"),
    ),
    "dcgan_generate": Long(checkpoint, "model.tar --out made --number 6 --iterations 8", "made", ("made/*.*",)),
    "fmnist_train": Long(
        nothing,
        "--subset --epochs 4 --batch_size 32 --score pixel --save model",
        "model",
        ("model/*.json", "model/*.safe*"),
    ),
    "fmnist_evaluate": Long(image_detector, "model --subset", "", ("model/evaluation.csv",)),
    "fmnist_grid": Long(grid, "--grid grid.toml --folder cells --subset", "cells", ("cells/*.csv", "cells/*.npz")),
    "dcgan_npy_to_images": Long(samples, "samples.npy --output images --overwrite", "", ("images/**/*.*",)),
    "dcase_check": Long(machines, "data --out problems.csv", "", ("problems.csv",)),
    "dcase_synthesize": Long(
        nothing, "data --machines 1 --train 3 --normal 1 --anomaly 1 --seconds 2.05", "data", ("data/**/*.*",)
    ),
    "dcase_train_vqvae": Long(
        machines,
        "data fan --epochs 4 --batch_size 4 --device cpu --checkpoints networks",
        "networks/stage1/fan/training",
        ("networks/**/*.pt",),
    ),
    "dcase_study": Long(machines, "data --out study", "study", ("study/**/*.*",)),
    "anomaly_nb_tour": Long(nothing, "--quick --out tour", "tour", ("tour/index.html", "tour/chapters/*")),
}
WIDE = {  # the same results from several processes, and from a cluster
    "srcnn_detect on two cores": COMMANDS["srcnn_detect"]._replace(
        arguments="datasets/mine/test --out found --chunk_size 1 --workers 2"
    ),
    "srcnn_detect on a cluster": COMMANDS["srcnn_detect"]._replace(
        arguments="datasets/mine/test --out found --chunk_size 1 --scheduler ADDRESS"
    ),
    "spectra_detect on two cores": COMMANDS["spectra_detect"]._replace(
        arguments="night --model model --out found --figures 2 --workers 2"
    ),
    "fmnist_grid on two cores": COMMANDS["fmnist_grid"]._replace(
        arguments="--grid grid.toml --folder cells --subset --workers 2"
    ),
    "dcase_study on two cores": COMMANDS["dcase_study"]._replace(arguments="data --out study --workers 2"),
}
CLOCKED = ("time", "seconds", "memory", "gpu", "cpu_usage", "ram_usage", "duration")  # columns that no two runs share


def content(path: Path) -> bytes:
    "A file without the times in it."
    if path.suffix in (".tar", ".bin", ".pt"):
        import torch

        state, buffer = torch.load(path, weights_only=True), io.BytesIO()
        torch.save(state, buffer)
        return buffer.getvalue()
    if path.suffix == ".csv":
        table = pd.read_csv(path)
        return table[[name for name in table if not any(word in name for word in CLOCKED)]].to_csv().encode()
    if path.suffix == ".html":  # each OGG stream has a number drawn at random
        return re.sub(r"audio/ogg;base64,[^']*", "", path.read_text()).encode()
    return path.read_bytes()


def results(folder: Path, command: Long) -> dict[str, bytes]:
    "What a command has left behind, with half-written files if there are any."
    found = {path for pattern in command.results for path in folder.glob(pattern) if path.is_file()}
    parts = {path for path in folder.rglob(".*.part*")}
    return {str(path.relative_to(folder)): content(path) for path in sorted(found | parts)}

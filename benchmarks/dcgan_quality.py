"""How good are generated engines? Both recipes, raw and averaged weights, beside controls that must lose.

    python benchmarks/dcgan_quality.py train [--data recorded --audio TRAIN --held_out OTHERS] [--recipe "little data"]
    python benchmarks/dcgan_quality.py table [...]
    python benchmarks/dcgan_quality.py trip [...]

Without folders, 30 synthetic engines of four seconds are learnt and 10 with other exhausts are held out. With folders
of recordings, those are used: split them by recording, as `dcgan_recordings.csv` does. Runs that are there are gone on
with. One recipe of one kind of data may be asked for alone; the rows of the others stay in the table. `cpu_minutes` are
those of the processor for the whole training of a row's network.
"""

import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from fastcore.script import call_parse

from anomaly_nb.audio import read_audio
from anomaly_nb.core import DataError
from anomaly_nb.dcgan.config import load_config
from anomaly_nb.dcgan.embedding import embed_sounds
from anomaly_nb.dcgan.engines import TEST_EXHAUSTS, write_engines
from anomaly_nb.dcgan.quality import diversity, kernel_distance, memorisation
from anomaly_nb.dcgan.run import train_dcgan
from anomaly_nb.dcgan.spectrograms import (
    SpectrogramDataset,
    SpectrogramFormat,
    audio_to_spectrograms,
    prepare_folder,
    recordings_in,
    spectral_convergence,
    spectrogram_to_audio,
)
from anomaly_nb.dcgan.training import build_networks, load_networks

RESULTS = Path(__file__).parent / "results"
RECIPES: dict[str, dict[str, Any]] = {
    "little data": {},  # as config_small has it
    "batch norm": {"spectral_norm": False, "epochs": 140},  # the same with batch normalisation, a little longer
    "documented": {"augmentation": False, "spectral_norm": False, "upsample": "transposed"},
}


def folders(work: Path, audio: str, held_out: str) -> tuple[Path, Path]:
    "Folders of recordings to learn from and to hold out."
    if audio:
        return Path(audio), Path(held_out)
    if not (work / "held_out").exists():
        write_engines(work / "train", 30, seconds=4.0)
        write_engines(work / "held_out", 10, TEST_EXHAUSTS, seconds=4.0, seed=1)
    return work / "train", work / "held_out"


def round_trip(folder: Path, form: SpectrogramFormat, iterations: int = 100) -> dict[str, float]:
    "Recordings to 8-bit pictures and back: spectral convergence, and kernel distance of the sounds."
    sounds = np.stack(windows(folder, form))
    parts = [audio_to_spectrograms(sound, form.sample_rate, form) for sound in sounds]
    pictures = np.round(np.concatenate([part.pictures for part in parts]) * 255) / 255
    back = spectrogram_to_audio(pictures, form, np.concatenate([part.level for part in parts]), iterations)
    convergence = spectral_convergence(sounds, back).mean()
    distance = kernel_distance(features(list(sounds), form), features(list(back), form))
    return {"windows": len(sounds), "convergence_db": convergence, "kernel": distance}


def run_folder(work: Path, recipe: str, seed: int) -> Path:
    return work / f"{recipe.replace(' ', '_')}_{seed}"


def cpu_minutes(work: Path, recipe: str, seed: int) -> float | None:
    "Time of the processor for all parts of a training; None where it was not noted."
    path = work / "times.csv"
    if not path.exists():
        return None
    times = pd.read_csv(path, names=["recipe", "seed", "iterations", "seconds"])
    mine = times[(times["recipe"] == recipe) & (times["seed"] == seed)]
    return float(mine["seconds"].sum()) / 60 if len(mine) else None


def train_all(work: Path, audio: Path, seeds: int, epochs: int, recipes: list[str]) -> None:
    "Recipes with all seeds, 128 x 128 pictures, width 16."
    if not (work / "dataset").exists():
        prepare_folder(audio, work / "dataset")
    for recipe in recipes:
        for seed in range(seeds):
            begun = time.process_time()
            config = load_config(
                "config_small",
                base_path=str(work / "dataset"),
                output_dir=str(run_folder(work, recipe, seed)),
                seed=seed,
                device="cpu",
                convergence={"enabled": False},
                **{"epochs": epochs} | RECIPES[recipe],
            )
            trained = list[int]()
            summary = train_dcgan(config, resources=lambda steps=trained: steps.append(1) or {}, progress=False)
            seconds = time.process_time() - begun
            if not trained:  # it had been finished before
                continue
            with open(work / "times.csv", "a") as file:
                file.write(f"{recipe},{seed},{summary['iterations']},{seconds:.0f}\n")


def windows(folder: Path, form: SpectrogramFormat) -> list[np.ndarray]:
    "Sound of a folder's recordings, in windows of a picture's length."
    found = []
    for file in recordings_in(folder):
        sound = read_audio(file, form.sample_rate)
        sound = np.resize(sound, max(len(sound), form.samples))
        found += [sound[i : i + form.samples] for i in range(0, len(sound) - form.samples + 1, form.samples // 2)]
    return [window for window in found if np.abs(window).max() > 1e-4]


def features(sounds: list[np.ndarray], form: SpectrogramFormat) -> np.ndarray:
    return embed_sounds([np.asarray(sound, np.float32) for sound in sounds], form.sample_rate)


def heard(pictures: np.ndarray, form: SpectrogramFormat) -> list[np.ndarray]:
    "Sound of pictures by Griffin-Lim iterations, as the measure during a training has it."
    return list(spectrogram_to_audio(pictures, form, reflection=0))


def painted(run: Path, raw: bool, n: int) -> np.ndarray:
    "Pictures of a trained generator."
    network, _, _ = load_networks(run / "checkpoints" / "final_model.tar", raw=raw)
    with torch.no_grad():
        noise = torch.randn(n, 100, 1, 1, generator=torch.Generator().manual_seed(99))
        return np.concatenate([(network(each[None]).numpy() + 1) / 2 for each in noise])


def controls(dataset: SpectrogramDataset, n: int) -> dict[str, np.ndarray]:
    "Pictures that are easy to make and must lose, and real ones that must win."
    real, random = dataset.pictures(), np.random.default_rng(0)
    untrained = build_networks(load_config("config_small"))[0].eval()
    with torch.no_grad():
        guess = (untrained(torch.randn(n, 100, 1, 1, generator=torch.Generator().manual_seed(5))).numpy() + 1) / 2
    mean = real.mean(axis=0, keepdims=True)
    return {
        "training pictures": real[random.permutation(len(real))[:n]],
        "untrained": guess,
        "noise": random.uniform(size=guess.shape).astype(np.float32),
        "mean picture": np.clip(mean + random.normal(0, 0.01, guess.shape), 0, 1).astype(np.float32),
    }


def measure(
    work: Path, learn: Path, hold: Path, name: str, seeds: int, recipes: list[str], n: int = 64
) -> pd.DataFrame:
    "A row for each set of pictures; without the controls if not all recipes are asked for."
    dataset = SpectrogramDataset(work / "dataset")
    form = dataset.format
    training, held_out = (features(windows(folder, form), form) for folder in (learn, hold))
    rows = []

    def add(what: str, seed: int | None, found: np.ndarray, minutes: float | None = None) -> None:
        copies = memorisation(found, training, held_out)
        near, far = kernel_distance(found, training), kernel_distance(found, held_out)
        row = {
            "data": name,
            "pictures": what,
            "seed": seed,
            "n": len(found),
            "kernel_training": near,
            "kernel_held_out": far,
        }
        row |= {"diversity": diversity(found) / diversity(training), "copies": copies.share, "copies_p": copies.p_value}
        row["cpu_minutes"] = minutes
        rows.append(row)
        print(pd.Series(row).to_frame().T.round(3).to_string(header=len(rows) == 1), flush=True)

    if len(recipes) == len(RECIPES):
        add("held-out recordings", None, held_out)
        for what, pictures in controls(dataset, n).items():
            add(what, None, features(heard(pictures, form), form))
    for recipe in recipes:
        for seed in range(seeds):
            for raw in (True, False):
                run = run_folder(work, recipe, seed)
                if (run / "checkpoints" / "final_model.tar").exists():
                    made, what = heard(painted(run, raw, n), form), "own" if raw else "averaged"
                    add(f"{recipe}, {what} weights", seed, features(made, form), cpu_minutes(work, recipe, seed))
    return pd.DataFrame(rows)


def others(path: Path, data: str, recipe: str) -> pd.DataFrame | None:
    "Rows of a table that stay: those of other data, and of other pictures if one recipe was asked for."
    if not path.exists():
        return None
    table = pd.read_csv(path)
    return table[(table["data"] != data) | ~table["pictures"].str.startswith(recipe)]


@call_parse
def main(
    action: str,  # train, table, or trip: from recording to picture and back
    audio: str = "",  # Folder of recordings to learn from
    held_out: str = "",  # Folder of other recordings
    data: str = "synthetic",  # Name of the data, in the table
    recipe: str = "",  # Only this one: "little data", "batch norm" or "documented"
    work: Path = Path("dcgan_quality"),  # Folder of datasets and runs
    seeds: int = 3,  # Runs of each recipe
    epochs: int = 120,  # Of each run whose recipe does not say otherwise
) -> None:
    torch.set_num_threads(1)
    learn, hold = folders(work / data, audio, held_out)
    recipes = [name for name in RECIPES if recipe in ("", name)]
    if not recipes:
        raise DataError(f"No recipe {recipe!r}. There are {', '.join(RECIPES)}.")
    if action == "train":
        train_all(work / data, learn, seeds, epochs, recipes)
    if action == "trip":
        path = RESULTS / "dcgan_round_trip.csv"
        before = pd.read_csv(path).query("data != @data") if path.exists() else None
        row = pd.DataFrame([{"data": data, **round_trip(learn, SpectrogramFormat())}])
        pd.concat([before, row]).to_csv(path, index=False, float_format="%.4g")
        print(row.round(2).to_string(index=False))
    if action == "table":
        path = RESULTS / "dcgan_quality.csv"
        table = measure(work / data, learn, hold, data, seeds, recipes)
        pd.concat([others(path, data, recipe), table]).to_csv(path, index=False, float_format="%.4g")
        columns = ["kernel_training", "kernel_held_out", "diversity", "copies", "cpu_minutes"]
        print(table.groupby("pictures")[columns].median().round(2).to_string())

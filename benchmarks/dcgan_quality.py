"""How good are generated engines? Both recipes, raw and averaged weights, beside controls that must lose.

    python benchmarks/dcgan_quality.py train [--audio TRAIN --held-out OTHERS --name NAME]
    python benchmarks/dcgan_quality.py table [...]

Without folders, 30 synthetic engines of four seconds are learnt and 10 with other exhausts are held out. With folders of
recordings, those are used: split them by recording. Runs that are there are gone on with.
"""

import time
from pathlib import Path

import torch
from fastcore.script import call_parse

from anomaly_nb.dcgan.config import load_config
from anomaly_nb.dcgan.engines import TEST_EXHAUSTS, write_engines
from anomaly_nb.dcgan.spectrograms import prepare_folder
from anomaly_nb.dcgan.training import train_dcgan

RESULTS = Path(__file__).parent / "results"
RECIPES = {
    "documented": {},
    "little data": {"augmentation": True, "spectral_norm": True, "upsample": "nearest"},
}


def folders(work: Path, audio: str, held_out: str) -> tuple[Path, Path]:
    "Folders of recordings to learn from and to hold out."
    if audio:
        return Path(audio), Path(held_out)
    if not (work / "held_out").exists():
        write_engines(work / "train", 30, seconds=4.0)
        write_engines(work / "held_out", 10, TEST_EXHAUSTS, seconds=4.0, seed=1)
    return work / "train", work / "held_out"


def run_folder(work: Path, recipe: str, seed: int) -> Path:
    return work / f"{recipe.replace(' ', '_')}_{seed}"


def train_all(work: Path, audio: Path, seeds: int, epochs: int) -> None:
    "Both recipes with all seeds, 128 x 128 pictures, width 16."
    if not (work / "dataset").exists():
        prepare_folder(audio, work / "dataset")
    for recipe, changes in RECIPES.items():
        for seed in range(seeds):
            begun = time.process_time()
            config = load_config(
                "config_small",
                base_path=str(work / "dataset"),
                output_dir=str(run_folder(work, recipe, seed)),
                seed=seed,
                epochs=epochs,
                device="cpu",
                convergence={"enabled": False},
                **changes,
            )
            summary = train_dcgan(config, progress=False)
            seconds = time.process_time() - begun
            with open(work / "times.csv", "a") as file:
                file.write(f"{recipe},{seed},{summary['iterations']},{seconds:.0f}\n")


@call_parse
def main(
    action: str,  # train or table
    audio: str = "",  # Folder of recordings to learn from
    held_out: str = "",  # Folder of other recordings
    name: str = "synthetic",  # Of the data, in the table
    work: Path = Path("dcgan_quality"),  # Folder of datasets and runs
    seeds: int = 3,  # Runs of each recipe
    epochs: int = 80,  # Of each run
) -> None:
    torch.set_num_threads(1)
    learn, hold = folders(work / name, audio, held_out)
    if action == "train":
        train_all(work / name, learn, seeds, epochs)


if __name__ == "__main__":
    main()

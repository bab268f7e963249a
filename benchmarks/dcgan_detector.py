"""Engines that were held out against other sounds, everything cut to 5 kHz.

    python benchmarks/dcgan_detector.py CHECKPOINT[,CHECKPOINT...] [--audio TRAIN --held-out ENGINES --others OTHERS]

Each checkpoint is a run of the table, beside a discriminator with first weights of another seed; `mean of runs` adds up
the scores of all runs. Nothing is fitted or chosen on the held-out sounds.
Without folders: 24 synthetic engines are learnt, 20 with other
exhausts and 40 other synthetic sounds are scored.
"""

from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pandas as pd
import torch
from fastcore.script import call_parse

from anomaly_nb.audio import Audio, read_audio
from anomaly_nb.dcgan.detector import SpectrogramDetector, load_discriminator
from anomaly_nb.dcgan.engines import OTHER_SOUNDS, TEST_EXHAUSTS, synthesize_engines, synthesize_other
from anomaly_nb.dcgan.networks import DCGANDiscriminator
from anomaly_nb.dcgan.spectrograms import recordings_in
from anomaly_nb.metrics import bootstrap_ci, roc_auc
from anomaly_nb.training import read_weights

RESULTS = Path(__file__).parent / "results"


def untrained(checkpoint: str, folder: Path, seed: int) -> str:
    "A checkpoint like another one, with first weights."
    content, (_, form) = read_weights(checkpoint), load_discriminator(checkpoint)
    model, recipe = content["config"]["model"], content["config"]["recipe"]
    torch.manual_seed(seed)
    network = DCGANDiscriminator(model["features_d"], form.size, 1, "spectral" if recipe["spectral_norm"] else "batch")
    torch.save(
        content | {"discriminator": network.state_dict(), "format": asdict(form)}, folder / f"untrained_{seed}.tar"
    )
    return str(folder / f"untrained_{seed}.tar")


def sounds(folder: str) -> list[Audio]:
    "The first four seconds of each recording."
    return [read_audio(file, 22050)[: 4 * 22050] for file in recordings_in(folder)]


def synthetic() -> tuple[list[Audio], list[Audio], list[Audio]]:
    engines, held_out = synthesize_engines(24)[0], synthesize_engines(20, TEST_EXHAUSTS, seed=1)[0]
    return (
        list(engines),
        list(held_out),
        [synthesize_other(kind, 3.0, seed) for kind in OTHER_SOUNDS for seed in range(10)],
    )


def looks(checkpoints: list[str], folder: Path) -> dict[str, list[str]]:
    "Checkpoints of the runs of each kind of features."
    trained = {"trained discriminator": checkpoints}
    first = {"untrained discriminator": [untrained(path, folder, seed) for seed, path in enumerate(checkpoints)]}
    return trained | first | {"picture": checkpoints[:1], "embedding": checkpoints[:1]}


@call_parse
def main(
    checkpoint: str,  # Of dcgan_train; several are separated by commas
    audio: str = "",  # Folder of engines to learn
    held_out: str = "",  # Folder of other engines
    others: str = "",  # Folder of sounds that are no engines
    name: str = "",  # Of the data, in the table
) -> None:
    torch.set_num_threads(1)
    learnt, normal, strange = (sounds(audio), sounds(held_out), sounds(others)) if audio else synthetic()
    name = name or ("recorded" if audio else "synthetic")
    truth = np.repeat([0, 1], [len(normal), len(strange)])
    rows = list[dict[str, Any]]()

    def add(look: str, against: str, run: str, scores: np.ndarray) -> None:
        low, high = bootstrap_ci(roc_auc, truth, scores, n=300)
        row = {"data": name, "features": look, "against": against, "run": run, "auroc": roc_auc(truth, scores)}
        rows.append(row | {"low": low, "high": high, "engines": len(normal), "others": len(strange)})

    with TemporaryDirectory() as folder:
        for look, paths in looks(checkpoint.split(","), Path(folder)).items():
            for against in ("counterfeits", "neighbours"):
                detectors = [SpectrogramDetector(look.split()[-1], path, against, cutoff=5000) for path in paths]
                found = [detector.fit(learnt).decision_function(normal + strange) for detector in detectors]
                for run, scores in enumerate(found):
                    add(look, against, str(run), scores)
                if len(found) > 1:
                    add(look, against, "mean of runs", np.mean(found, axis=0))
    table, path = pd.DataFrame(rows), RESULTS / "dcgan_detector.csv"
    before = pd.read_csv(path).query("data != @name") if path.exists() else None
    pd.concat([before, table]).to_csv(path, index=False, float_format="%.4g")
    print(table.round(2).to_string(index=False))

"""Engines that were held out against other sounds, everything cut to 5 kHz.

    python benchmarks/dcgan_detector.py CHECKPOINT [--audio TRAIN --held-out ENGINES --others OTHERS --name NAME]

Nothing is fitted or chosen on the held-out sounds. Without folders: 24 synthetic engines are learnt, 20 with other
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


def untrained(checkpoint: str, folder: Path) -> str:
    "A checkpoint like another one, with first weights."
    content, (_, form) = read_weights(checkpoint), load_discriminator(checkpoint)
    model, recipe = content["config"]["model"], content["config"]["recipe"]
    torch.manual_seed(0)
    network = DCGANDiscriminator(model["features_d"], form.size, 1, "spectral" if recipe["spectral_norm"] else "batch")
    torch.save(content | {"discriminator": network.state_dict(), "format": asdict(form)}, folder / "untrained.tar")
    return str(folder / "untrained.tar")


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


@call_parse
def main(
    checkpoint: str,  # Of dcgan_train
    audio: str = "",  # Folder of engines to learn
    held_out: str = "",  # Folder of other engines
    others: str = "",  # Folder of sounds that are no engines
    name: str = "synthetic",  # Of the data, in the table
) -> None:
    torch.set_num_threads(1)
    learnt, normal, strange = (sounds(audio), sounds(held_out), sounds(others)) if audio else synthetic()
    truth = np.repeat([0, 1], [len(normal), len(strange)])
    rows = list[dict[str, Any]]()
    with TemporaryDirectory() as folder:
        networks = {"trained": checkpoint, "untrained": untrained(checkpoint, Path(folder))}
        for against in ("counterfeits", "neighbours"):
            for look in ("trained discriminator", "untrained discriminator", "picture", "embedding"):
                path = networks[look.split()[0]] if "discriminator" in look else checkpoint
                detector = SpectrogramDetector(look.split()[-1], path, against, cutoff=5000).fit(learnt)
                scores = detector.decision_function(normal + strange)
                low, high = bootstrap_ci(roc_auc, truth, scores, n=300)
                row = {"data": name, "features": look, "against": against, "auroc": roc_auc(truth, scores)}
                rows.append(row | {"low": low, "high": high, "engines": len(normal), "others": len(strange)})
    table, path = pd.DataFrame(rows), RESULTS / "dcgan_detector.csv"
    before = pd.read_csv(path).query("data != @name") if path.exists() else None
    pd.concat([before, table]).to_csv(path, index=False, float_format="%.4g")
    print(table.round(2).to_string(index=False))

"""Detectors on synthetic machines, in the official numbers: simple methods beside the residual of a small VQ-VAE.

Six types, two machines each, 40 training clips and 30 normal and 30 broken test clips of four seconds each; faults take
turns, 6 dB. One detector for each type. The network: the small preset, 8 epochs.
"""

import tempfile
from pathlib import Path

import pandas as pd
import torch
from tqdm.auto import tqdm

from anomaly_nb.dcase.data import DCASEFolder
from anomaly_nb.dcase.detector import METHODS, SoundDetector, evaluate_detector
from anomaly_nb.dcase.machines import synthesize_machines
from anomaly_nb.dcase.sources import MACHINE_TYPES
from anomaly_nb.dcase.vqvae import train_vqvae

RESULTS = Path(__file__).parent / "results"


def main() -> None:
    torch.set_num_threads(1)
    tables = []
    for kind in tqdm(MACHINE_TYPES):
        with tempfile.TemporaryDirectory() as folder:
            synthesize_machines(folder, [kind], 2, 40, 30, 30, severity=6, seconds=4)
            network = str(
                train_vqvae(folder, kind, Path(folder) / "checkpoints", epochs=8, accelerator="cpu", progress=False)
            )
            clips = DCASEFolder(folder, [kind])
            for method in METHODS:
                checkpoint = network if method == "vqvae" else ""
                table = evaluate_detector(clips, lambda _, m=method, c=checkpoint: SoundDetector(m, checkpoint=c))
                tables.append(table.assign(method=method))
    table = pd.concat(tables)
    table.to_csv(RESULTS / "dcase_detectors.csv", index=False, float_format="%.4g")
    averages = table[table["id"] == "average"].pivot(index="type", columns="method", values=["auc", "pauc"])
    print(averages.round(3).to_string())
    print(averages.mean().round(3).to_string())


if __name__ == "__main__":
    main()

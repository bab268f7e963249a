"""Detectors on synthetic machines, in the official numbers: simple methods beside the residual of a small VQ-VAE.

Six types, two machines each, 40 training clips and 30 normal and 30 broken test clips of four seconds each; faults take
turns, 6 dB. One detector for each type. The network: the small preset, 8 epochs. A second table counts false alarms of
the default method after changes of the microphone's gain.
"""

import tempfile
from pathlib import Path

import numpy as np
import pandas as pd
import soundfile
import torch
from tqdm.auto import tqdm

from anomaly_nb.dcase.data import DCASEFolder
from anomaly_nb.dcase.detector import METHODS, SoundDetector, evaluate_detector
from anomaly_nb.dcase.machines import synthesize_machines
from anomaly_nb.dcase.sources import MACHINE_TYPES
from anomaly_nb.dcase.vqvae import train_vqvae

RESULTS = Path(__file__).parent / "results"


def gain_alarms(folder: DCASEFolder, kind: str) -> pd.DataFrame:
    "Count the normal test clips above the threshold of the default detector after the microphone's gain has changed."
    detector = SoundDetector().fit([clip.path for clip in folder.select(kind, "train")])
    sounds = [soundfile.read(clip.path)[0] for clip in folder.select(kind, "test", label=0)]
    rows = []
    for gain in (-6, -3, -1, 0, 1, 3, 6):
        scores = detector.decision_function([np.clip(sound * 10 ** (gain / 20), -1, 1) for sound in sounds])
        found = int((scores > detector.threshold_).sum())
        rows.append({"type": kind, "gain_db": gain, "alarms": found, "clips": len(scores)})
    return pd.DataFrame(rows)


def main() -> None:
    torch.set_num_threads(1)
    tables, alarms = [], []
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
            alarms.append(gain_alarms(clips, kind))
    pd.concat(alarms).to_csv(RESULTS / "dcase_gain.csv", index=False, float_format="%.4g")
    print(pd.concat(alarms).groupby("gain_db")[["alarms", "clips"]].sum().T.to_string())
    table = pd.concat(tables)
    table.to_csv(RESULTS / "dcase_detectors.csv", index=False, float_format="%.4g")
    averages = table[table["id"] == "average"].pivot(index="type", columns="method", values=["auc", "pauc"])
    print(averages.round(3).to_string())
    print(averages.mean().round(3).to_string())


if __name__ == "__main__":
    main()

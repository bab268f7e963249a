"""Small ablations: batch size and stability, balance of the widths, resolution and time.

    python benchmarks/dcgan_ablation.py [--work FOLDER] [--only VARIANT]

24 synthetic engines, the recipe for little data, about 200 steps each. One seed: a difference of 1.5 is noise. Finished
variants are kept in the folder and not trained again; times are those of the processor. With `--only`, the rows of the
other variants stay in the table.
"""

import time
from pathlib import Path

import pandas as pd
import torch
from fastcore.script import call_parse

from anomaly_nb.core import DataError
from anomaly_nb.dcgan.config import load_config
from anomaly_nb.dcgan.engines import write_engines
from anomaly_nb.dcgan.jobs import training_quality
from anomaly_nb.dcgan.run import train_dcgan
from anomaly_nb.dcgan.spectrograms import SpectrogramFormat, prepare_folder

RESULTS = Path(__file__).parent / "results"
LITTLE = {"augmentation": True, "spectral_norm": True, "upsample": "nearest", "ema": 0.99, "precision": "bf16"}
GRID = {
    "base": {},
    "batch 8": {"batch_size": 8, "epochs": 8},
    "batch 64": {"batch_size": 64, "epochs": 64},
    "generator 8, discriminator 16": {"features_g": 8},
    "generator 16, discriminator 8": {"features_d": 8},
    "128 x 128": {"image_size": 128, "epochs": 72},
    "R1 of 1 for spectral norm": {"spectral_norm": False, "r1": 1.0},
    "R1 of 10 for spectral norm": {"spectral_norm": False, "r1": 10.0},
    "documented": {"augmentation": False, "spectral_norm": False, "upsample": "transposed"},
}


@call_parse
def main(
    work: Path = Path("dcgan_ablation"),  # Folder of datasets and runs
    only: str = "",  # Only this variant
) -> None:
    if only not in ("", *GRID):
        raise DataError(f"No variant {only!r}. There are {', '.join(GRID)}.")
    torch.set_num_threads(1)
    base = {"features_g": 16, "features_d": 16, "batch_size": 32, "image_size": 64, "epochs": 32, "device": "cpu"}
    base |= {"num_samples_for_metrics": 32, "fid_frequency": 1000, "convergence": {"enabled": False}}
    if not (work / "audio").exists():
        write_engines(work / "audio", 24, seconds=1.7)
    rows = []
    for name, changes in GRID.items():
        if only not in ("", name):
            continue
        values = {**base, **LITTLE, **changes}
        data = work / f"dataset_{values['image_size']}"
        if not data.exists():
            prepare_folder(work / "audio", data, SpectrogramFormat(int(values["image_size"])))
        folder = work / name.replace(" ", "_").replace(",", "")
        config = load_config("config", base_path=str(data), output_dir=str(folder), **values)
        kept = folder / "seconds.txt"
        begun = time.process_time()
        summary = train_dcgan(config, quality=training_quality(config), progress=False)
        if not kept.exists():
            kept.write_text(f"{(time.process_time() - begun) / summary['iterations']}")
        epochs = pd.read_csv(folder / "epochs_statistics/epoch_statistics.csv")
        last = epochs.tail(5)
        row = {"variant": name, "iterations": summary["iterations"], "kernel_aisfx": summary["quality"]}
        row |= {
            "d_loss": last["avg_discriminator_loss"].mean(),
            "g_loss_std": epochs["avg_generator_loss"].tail(10).std(),
        }
        row["seconds_per_iteration"] = float(kept.read_text())
        rows.append(row)
        print(pd.DataFrame([row]).round(3).to_string(index=False, header=len(rows) == 1), flush=True)
    table, path = pd.DataFrame(rows), RESULTS / "dcgan_ablation.csv"
    if only and path.exists():
        table = pd.concat([pd.read_csv(path).query("variant != @only"), table])
    order = table["variant"].map(list(GRID).index)
    table.iloc[order.argsort(kind="stable")].to_csv(path, index=False, float_format="%.4g")

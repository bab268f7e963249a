"""How much of the carried choice is its seed, and are five networks better than one?

The network and the score that `fmnist_choice.py` chose are trained with five seeds: on its three tasks of other classes
and, looked at last, on `original`. `fmnist_seeds.csv`: AUROC of the single seeds, and of the mean of their scores, each
in deviations of held-out normal images. The argument is a folder for finished cells.
"""

import sys
from pathlib import Path

import numpy as np
import pandas as pd
from fmnist_choice import LOSS, RESULTS, TASKS, make_task
from fmnist_quality import carried_choice

from anomaly_nb.datasets import sample_path
from anomaly_nb.fmnist.data import Protocol, load_fashion_mnist, make_protocol
from anomaly_nb.fmnist.grid import finished_cells, read_grid, run_grid
from anomaly_nb.fmnist.scores import combined
from anomaly_nb.metrics import bootstrap_ci, roc_auc

SEEDS = 5


def seed_row(task: Protocol, folder: Path) -> dict[str, float]:
    "AUROC of single seeds and of their mean score."
    models, losses = read_grid(sample_path("fmnist/grid.toml"))
    model, score = carried_choice().index[0]
    runs = []
    for seed in range(SEEDS):
        rows, terms, place = {model: models[model]}, {LOSS: losses[LOSS]}, folder / f"seed{seed}"
        run_grid(rows, terms, task, place, seed=seed, progress=False)
        ((_, state),) = finished_cells(rows, terms, place)
        runs.append(combined(state["test"], state["validation"], score))
    single = [roc_auc(task.truth, run) for run in runs]
    joint = np.mean(runs, axis=0)
    low, high = bootstrap_ci(roc_auc, task.truth, joint)
    return {
        "seeds": SEEDS,
        "mean": float(np.mean(single)),
        "lowest": min(single),
        "highest": max(single),
        "all together": roc_auc(task.truth, joint),
        "low": low,
        "high": high,
    }


def main() -> None:
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else "runs/fmnist/seeds")
    images, labels = load_fashion_mnist("train")
    tasks = {name: make_task(images, labels, *task) for name, task in TASKS.items()}
    tasks["original"] = make_protocol("original", (images, labels), load_fashion_mnist("test"))
    rows = {}
    for name, task in tasks.items():
        rows[name] = seed_row(task, folder / name)
        print(name, rows[name], flush=True)
    pd.DataFrame(rows).T.rename_axis("task").round(4).to_csv(RESULTS / "fmnist_seeds.csv")


if __name__ == "__main__":
    main()

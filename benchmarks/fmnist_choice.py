"""Which model and which score are good at clothes? Asked of other classes than those of the protocol `original`.

Pullovers, coats and shirts, which that protocol is about, take no part, and neither does the published test split.
Each task has one normal class and two that look like it: 3,840 normal images to learn from, 960 to choose with, 1,200
normal ones against 1,200 others to be judged. All rows of the grid are trained with one loss. Candidates are the six
scores and all sums of two. `fmnist_choice.csv`: AUROC of each row and score by task; the best mean is carried over to
`original` by `fmnist_quality.py`. `fmnist_rules.csv`: what that rule finds on a task when it is carried over from the
other tasks alone, beside the choice by pseudo-anomalies. The argument is a folder of finished cells.
"""

import sys
from itertools import combinations
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd

from anomaly_nb.core import generator
from anomaly_nb.datasets import sample_path
from anomaly_nb.fmnist.data import Protocol, load_fashion_mnist
from anomaly_nb.fmnist.grid import finished_cells, read_grid, run_grid
from anomaly_nb.fmnist.scores import SCORES, combined
from anomaly_nb.metrics import roc_auc

RESULTS = Path(__file__).parent / "results"
TASKS = {"T-shirt": (0, (3, 1)), "Dress": (3, (0, 1)), "Sneaker": (7, (5, 9))}
LOSS = "Charbonnier+Gradient"
CANDIDATES = (*SCORES, *("+".join(pair) for pair in combinations(SCORES, 2)))


def make_task(
    images: npt.NDArray[np.float32], labels: npt.NDArray[np.int64], normal: int, others: tuple[int, ...]
) -> Protocol:
    "A task made from training images of three classes."
    random = generator(normal)
    kept = images[labels == normal][random.permutation(6000)]
    odd = [images[labels == other][random.permutation(6000)[:600]] for other in others]
    classes = np.repeat([normal, *others], [1200, 600, 600])
    truth = (classes != normal).astype(np.int64)
    return Protocol(
        f"class {normal}", kept[:3840], kept[3840:4800], np.concatenate([kept[4800:], *odd]), truth, classes
    )


def main() -> None:
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else "runs/fmnist/choice")
    images, labels = load_fashion_mnist("train")
    models, losses = read_grid(sample_path("fmnist/grid.toml"))
    columns, made = {}, {}
    for name, (normal, others) in TASKS.items():
        task = make_task(images, labels, normal, others)
        table = run_grid(models, {LOSS: losses[LOSS]}, task, folder / name, progress=False)
        top = table.loc[table["worst three"].idxmax()]
        made[name] = {"model": top.name[0], "score": top["score"], "roc_auc": top["roc_auc"]}
        columns[name] = {}
        for (model, _), state in finished_cells(models, {LOSS: losses[LOSS]}, folder / name):
            for score in CANDIDATES:
                values = combined(state["test"], state["validation"], score)
                columns[name][model, score] = roc_auc(task.truth, values)
    choice = pd.DataFrame(columns).rename_axis(["model", "score"])
    rules = {}
    for name in TASKS:
        model, score = choice.drop(columns=name).mean(axis=1).idxmax()
        carried = {"model": model, "score": score, "roc_auc": choice.loc[(model, score), name]}
        rules |= {(name, "made anomalies"): made[name], (name, "carried over from the others"): carried}
    choice["mean"] = choice.mean(axis=1)
    tables = {
        "fmnist_choice": choice.sort_values("mean", ascending=False, kind="stable"),
        "fmnist_rules": pd.DataFrame(rules).T.rename_axis(["task", "rule"]),
    }
    for name, table in tables.items():
        table = table.map(lambda value: round(value, 4) if isinstance(value, float) else value)
        table.to_csv(RESULTS / f"{name}.csv")
        print(f"\n{name}\n{table.head(20).to_string()}")


if __name__ == "__main__":
    main()

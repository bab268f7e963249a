"""How well images of clothes are told apart: baselines, the full grid, and one class against the rest.

Needs the published Fashion-MNIST files. Finished cells are kept in a folder (first argument) and not run again. No
label takes part in any fit or choice: scores and cells are chosen by pseudo-anomalies of held-out normal images, or, in
`fmnist_carried.csv`, carried over from other classes, on which `fmnist_choice.py` has to be run before.
"""

import logging
import sys
from pathlib import Path

import pandas as pd
from fmnist_choice import LOSS

from anomaly_nb.datasets import sample_path
from anomaly_nb.fmnist.baselines import BASELINES, baseline_scores, baseline_table, judge
from anomaly_nb.fmnist.data import CLASSES, Protocol, load_fashion_mnist, make_protocol
from anomaly_nb.fmnist.grid import best_cells, finished_cells, grid_table, read_grid, run_grid
from anomaly_nb.fmnist.scores import CHOICES, combined, rank_scores
from anomaly_nb.metrics import roc_auc

RESULTS = Path(__file__).parent / "results"
CHOSEN = ("DenoisingAutoencoder (HOG)", "MSE")  # the row of the grid that goes on to one class against the rest


def carried_choice() -> pd.DataFrame:
    "The best score of each row on tasks of other classes, the best row first."
    choice = pd.read_csv(RESULTS / "fmnist_choice.csv", index_col=["model", "score"])
    return choice.sort_values("mean", ascending=False, kind="stable").groupby("model", sort=False).head(1)


def carried_table(models: dict, losses: dict, task: Protocol, folder: Path) -> pd.DataFrame:
    "Each row with the loss and the score that are carried over from other classes."
    rows = {}
    for (model, score), other in carried_choice()["mean"].items():
        for _, state in finished_cells({model: models[model]}, {LOSS: losses[LOSS]}, folder):
            held, test = (combined(state[what], state["validation"], score) for what in ("validation", "test"))
            rows[model] = {"score": score, "other classes": other} | judge(task, held, test)
    return pd.DataFrame(rows).T.rename_axis("model").infer_objects()


def one_vs_rest(splits: list, folder: Path) -> pd.DataFrame:
    "AUROC of the chosen row, of each of its scores, and of the baselines, for each normal class."
    models, losses = read_grid(sample_path("fmnist/grid.toml"))
    model, loss = {CHOSEN[0]: models[CHOSEN[0]]}, {CHOSEN[1]: losses[CHOSEN[1]]}
    columns = {}
    for normal, name in enumerate(CLASSES):
        task = make_protocol("one-vs-rest", *splits, normal=normal)
        place = folder / f"class{normal}"
        row = run_grid(model, loss, task, place, progress=False).iloc[0]
        ((_, state),) = finished_cells(model, loss, place)
        column = {"chosen": row["roc_auc"], "score": row["score"]}
        for score in dict.fromkeys((*CHOICES, carried_choice().index[0][1])):
            column[score] = roc_auc(task.truth, combined(state["test"], state["validation"], score))
        for baseline, function in BASELINES.items():
            column[baseline] = roc_auc(task.truth, baseline_scores(task, function)[1])
        columns[name] = column
        pd.DataFrame(columns).to_csv(RESULTS / "fmnist_one_vs_rest.csv")
        print(name, column, flush=True)
    table = pd.DataFrame(columns)
    table["mean"] = table.drop(index="score").astype(float).mean(axis=1)
    return table.rename_axis("detector")


def baseline_draws(splits: list, draws: int = 5) -> pd.DataFrame:
    "AUROC of the baselines over draws of the 4,800 training images: only the images that are held out differ."
    tasks = [make_protocol("original", *splits, seed=seed) for seed in range(draws)]
    rows = {
        name: [roc_auc(task.truth, baseline_scores(task, function)[1]) for task in tasks]
        for name, function in BASELINES.items()
    }
    table = pd.DataFrame(rows).T.rename_axis("detector")
    return pd.DataFrame({"mean": table.mean(axis=1), "lowest": table.min(axis=1), "highest": table.max(axis=1)})


def score_table(models: dict, losses: dict, task: Protocol, folder: Path) -> pd.DataFrame:
    "Every score of every finished cell: what made anomalies say of it, and what the labels say afterwards."
    tables = {}
    for names, state in finished_cells(models, losses, folder):
        if state["reason"]:
            continue
        held = state["validation"]
        table = rank_scores(held, {k: v for k, v in state.items() if k.startswith("made.")})
        table["roc_auc"] = [roc_auc(task.truth, combined(state["test"], held, score)) for score in table.index]
        tables[names] = table[["worst three", "mean", "roc_auc"]]
    return pd.concat(tables, names=["model", "loss", "score"])


def main() -> None:
    logging.basicConfig(level=logging.WARNING)
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else "runs/fmnist")
    parts = sys.argv[2:] or ["baselines", "grid", "one_vs_rest"]
    splits = [load_fashion_mnist(split) for split in ("train", "test")]
    task = make_protocol("original", *splits)
    grid = read_grid(sample_path("fmnist/grid.toml"))
    tables = {}
    if "baselines" in parts:
        tables["fmnist_baselines"] = baseline_table(task)
        tables["fmnist_baseline_draws"] = baseline_draws(splits)
    if "grid" in parts:
        tables["fmnist_grid"] = run_grid(*grid, task, folder / "grid")
    if "table" in parts:  # of a grid that is still running
        tables["fmnist_grid"] = grid_table(*grid, task, folder / "grid")
    if "fmnist_grid" in tables:
        tables["fmnist_models"] = best_cells(tables["fmnist_grid"])
        tables["fmnist_scores"] = score_table(*grid, task, folder / "grid")
        tables["fmnist_carried"] = carried_table(*grid, task, folder / "grid")
    if "one_vs_rest" in parts:
        tables["fmnist_one_vs_rest"] = one_vs_rest(splits, folder)
    for name, table in tables.items():
        table.round(4).to_csv(RESULTS / f"{name}.csv")
        print(f"\n{name}\n{table.round(3).to_string()}")


if __name__ == "__main__":
    main()

"""What memories add: the multi-memory autoencoder, its parts and its options, beside the same network without memories.

Task: 4,800 pullovers to learn from, 1,200 to choose with, 1,000 pullovers against 1,000 coats and 1,000 shirts to be
judged. Each network is trained on three seeds with one recipe and judged by three scores, none of which saw a label:
its own, fixed beforehand (edges and distance from the structure's slot; without that memory edges alone); edges alone,
where only the drawings differ; and, on the first seed, the score or sum of scores that best finds pseudo-anomalies made
from validation pullovers (`rank_scores`). `fmnist_memory.csv`: a row per network;
`fmnist_memory_seeds.csv`: every seed; `fmnist_memory_speed.csv`: a training step with 800 slots as a ratio to one
without memories.
"""

from pathlib import Path

import numpy as np
import pandas as pd
import torch
from fastcore.script import call_parse
from scipy.stats import rankdata
from timing import median_seconds
from tqdm.auto import tqdm

from anomaly_nb.core import folder_lock, generator
from anomaly_nb.fmnist.base import build_model, image_tensor
from anomaly_nb.fmnist.data import Protocol, load_fashion_mnist, make_protocol
from anomaly_nb.fmnist.losses import FlexibleLoss
from anomaly_nb.fmnist.memory import MemAE  # noqa: F401  # enters the registry
from anomaly_nb.fmnist.multimemory import fill_memories
from anomaly_nb.fmnist.scores import SCORES, ImageScorer, ask_all, combined, pseudo_anomalies, rank_scores
from anomaly_nb.fmnist.training import train_model
from anomaly_nb.metrics import roc_auc
from anomaly_nb.store import Results

RESULTS = Path(__file__).parent / "results"
SEEDS = (0, 1, 2)
WITHOUT = {"memories": []}
NETWORKS = {
    "three memories": {},
    "no memories": WITHOUT,
    "MemAE": {},
    "without the centre's memory": {"memories": ["structure", "fft"]},
    "without the structure's memory": {"memories": ["center", "fft"]},
    "without the spectrum's memory": {"memories": ["center", "structure"]},
    "+ frequency attention": {"frequency_attention": True},
    "+ centre attention": {"center_attention": True},
    "+ adaptive centre": {"adaptive_center": True},
    "+ matched textures on a skip": {"texture_slots": 64},
}
COMPARED = ("three memories", "no memories")  # with all scores on the first seed; the others with their own and edges
FIXED = ("model", "hog")  # scores that need no choice
Parts = dict[str, np.ndarray]  # of a cell: six scores (n, 6) by set of images


def run(task: Protocol, name: str, seed: int, epochs: int, results: Results) -> Parts:
    "Train a network and keep its scores, or read them where that was done before."
    all_scores = name in COMPARED and seed == SEEDS[0]
    names = SCORES if all_scores else FIXED
    if not results.missing([cell := f"{name}, {seed}"]):
        return results.get(cell)
    model = build_model("MemAE" if name == "MemAE" else "MultiMemoryAutoencoder", seed=seed, **NETWORKS[name])
    loss = FlexibleLoss("mse")
    settings = {"epochs": epochs, "seed": seed, "progress": False}
    train_model(model, task.train, loss, validation=task.validation, **settings)
    held = ask_all(model, image_tensor(task.validation))
    normals = ask_all(model, image_tensor(task.train)) if all_scores else held
    scorer = ImageScorer(model, "+".join(names)).fit(normals, held)
    images = {"test": task.test}
    if all_scores:
        images |= {f"made.{kind}": made for kind, made in pseudo_anomalies(task.validation[:200]).items()}
    parts = {"validation": scorer.raw(held)}
    parts |= {what: scorer.raw(ask_all(model, image_tensor(pictures))) for what, pictures in images.items()}
    results.put(cell, {what: values.numpy().astype(np.float64) for what, values in parts.items()})
    return results.get(cell)


def test_scores(seeds: list[Parts], score: str) -> np.ndarray:
    "Scores of the test images `(seeds, n)`."
    if score not in FIXED:
        return np.stack([combined(parts["test"], parts["validation"], score) for parts in seeds])
    tests = [parts["test"] for parts in seeds]
    return np.stack([test[:, (FIXED if test.shape[1] == 2 else tuple(SCORES)).index(score)] for test in tests])


def chosen_score(parts: Parts) -> str:
    "The score that finds pseudo-anomalies best."
    made = {name: values for name, values in parts.items() if name.startswith("made.")}
    return str(rank_scores(parts["validation"], made).index[0])


def rank_auc(truth: np.ndarray, score: np.ndarray) -> float:
    "AUROC from ranks, for the many draws of a bootstrap."
    positives = int(truth.sum())
    above = rankdata(score)[truth == 1].sum() - positives * (positives + 1) / 2
    return float(above / positives / (len(truth) - positives))


def interval(task: Protocol, ours: np.ndarray, others: np.ndarray | None = None, n: int = 1000) -> tuple[float, float]:
    "95 % bootstrap interval over test images of the mean AUROC over seeds `(seeds, n)`, or of its gain over `others`."
    random, values = generator(0), []
    for _ in range(n):
        drawn = random.integers(0, len(task.truth), len(task.truth))
        truth = task.truth[drawn]
        value = np.mean([rank_auc(truth, score[drawn]) for score in ours])
        if others is not None:
            value -= np.mean([rank_auc(truth, score[drawn]) for score in others])
        values.append(value)
    low, high = np.quantile(values, (0.025, 0.975))
    return float(low), float(high)


def figures(task: Protocol, what: str, ours: np.ndarray, others: np.ndarray | None) -> dict[str, float]:
    "Mean AUROC of test scores `(seeds, n)` with its interval, and the gain over those of another network."
    aucs = [roc_auc(task.truth, values) for values in ours]
    low, high = interval(task, ours)
    row = {what: np.mean(aucs), f"{what} low": low, f"{what} high": high}
    if others is not None:
        low, high = interval(task, ours, others)
        gain = np.mean(aucs) - np.mean([roc_auc(task.truth, values) for values in others])
        row |= {f"{what} gain": gain, f"{what} gain low": low, f"{what} gain high": high}
    return row


def ablation(task: Protocol, parts: dict[str, list[Parts]]) -> tuple[pd.DataFrame, pd.DataFrame]:
    "A row per network, and a row per seed."
    table, by_seed, plain = {}, [], parts["no memories"]
    for name, seeds in parts.items():
        row = {"seeds": len(seeds)}
        for what, score in (("own", "model"), ("edges", "hog")):
            others = None if name == "no memories" else test_scores(plain[: len(seeds)], score)
            row |= figures(task, what, test_scores(seeds, score), others)
        if name in COMPARED:
            row["choice"] = chosen_score(seeds[0])
            row["chosen"] = roc_auc(task.truth, test_scores(seeds[:1], row["choice"])[0])
            row |= {f"score {s}": roc_auc(task.truth, test_scores(seeds[:1], s)[0]) for s in SCORES}
        table[name] = row
        for seed, of_seed in zip(SEEDS, seeds, strict=False):
            own, edges = (roc_auc(task.truth, test_scores([of_seed], score)[0]) for score in FIXED)
            by_seed.append({"network": name, "seed": seed, "own": own, "edges": edges})
    return pd.DataFrame.from_dict(table, orient="index").rename_axis("network"), pd.DataFrame(by_seed)


def speed(task: Protocol) -> pd.DataFrame:
    "Seconds of a training step of 128 images with 800 slots, relative to the same network without memories."
    images, table = image_tensor(task.train), {}
    for queries in ("image", "location"):
        models = {"no memories": WITHOUT, "three memories": {}}
        steps = {}
        for name, options in models.items():
            model = build_model("MultiMemoryAutoencoder", queries=queries, **options)
            fill_memories(model, images[:2400])
            optimizer = torch.optim.AdamW(model.parameters(), 1e-3)

            model.train()

            def step(model=model, optimizer=optimizer):
                optimizer.zero_grad()
                with torch.autocast("cpu", torch.bfloat16):
                    value = model.loss(images[:128], FlexibleLoss("mse"))
                value.backward()
                optimizer.step()

            steps[name] = step
        seconds = median_seconds(steps, repeats=15)
        table[f"queries by {queries}"] = {"ratio": seconds["three memories"] / seconds["no memories"]}
    return pd.DataFrame.from_dict(table, orient="index").rename_axis("training step")


def baseline(task: Protocol) -> dict:
    "The nearest of all training images in pixels."
    train, test = (image_tensor(images).flatten(1) for images in (task.train, task.test))
    score = torch.cat([torch.cdist(part, train).amin(dim=1) for part in test.split(500)]).numpy().astype(float)
    low, high = interval(task, score[None])
    return {"own": roc_auc(task.truth, score), "own low": low, "own high": high}


@call_parse
def main(
    runs: str = "runs_fmnist_memory",  # folder of finished runs, which are not repeated
    epochs: int = 12,  # of training
    seeds: int = len(SEEDS),  # seeds of the parts and options; the comparison with no memories has all
    only_speed: bool = False,  # measure nothing but the time of a step
) -> None:
    "Train, judge, and write the tables. About 30 minutes on one core."
    torch.set_num_threads(1)
    task = make_protocol("original", load_fashion_mnist("train"), load_fashion_mnist("test"))
    if only_speed:
        steps = speed(task).round(3)
        steps.to_csv(RESULTS / "fmnist_memory_speed.csv")
        print(steps.to_string())
        return
    jobs = [(name, seed) for name in COMPARED for seed in SEEDS]
    jobs += [(name, seed) for seed in SEEDS[:seeds] for name in NETWORKS if name not in COMPARED]
    parts: dict[str, list[Parts]] = {name: [] for name in NETWORKS}
    with folder_lock(runs):
        results = Results(runs, {"epochs": epochs})
        for name, seed in tqdm(jobs):
            parts[name].append(run(task, name, seed, epochs, results))
    table, by_seed = ablation(task, parts)
    table.loc["1-NN of pixels"] = pd.Series(baseline(task))
    table.round(4).to_csv(RESULTS / "fmnist_memory.csv")
    by_seed.round(4).to_csv(RESULTS / "fmnist_memory_seeds.csv", index=False)
    print(table.round(3).T.to_string())

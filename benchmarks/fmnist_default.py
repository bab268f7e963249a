"""How good is `ImageDetector()` without arguments, what did its weights know, and how fast is it?

Needs the published Fashion-MNIST files. `fmnist_default.csv`: AUROC with a 95 % interval on the protocol `original`
(five seeds, and their mean score), on one class against the rest, and on handwritten digits, which nobody looked at
while the detector was made. Each row says what it knew: `normal images` means that nothing but these took part;
`other classes` means that weights were chosen on training images of trousers, shoes and the like (no pullover, coat or
shirt); `looked at the test` means that its maker saw test figures of Fashion-MNIST when weights were set.
`fmnist_weights.csv`: every set of weights that was tried, what other classes say of it, and the test afterwards.
`fmnist_latency.csv`: milliseconds for one image after loading.
"""

import itertools
import tempfile
from collections.abc import Iterator

import numpy as np
import pandas as pd
import torch
from fmnist_choice import RESULTS
from timing import median_seconds

from anomaly_nb.core import generator
from anomaly_nb.fmnist import ImageDetector, load_fashion_mnist, make_protocol
from anomaly_nb.fmnist.base import evaluating, image_tensor, in_blocks
from anomaly_nb.fmnist.baselines import BASELINES, baseline_scores
from anomaly_nb.fmnist.data import Protocol
from anomaly_nb.fmnist.neighbours import EdgeNeighbours
from anomaly_nb.metrics import bootstrap_ci, roc_auc

OTHERS = (0, 1, 3, 5, 7, 8, 9)  # no pullover, coat or shirt
WEIGHTS = tuple(itertools.product((0, 1, 2), (0, 1, 2), (0, 2, 4, 6, 8), (0, 1, 2, 3, 4, 6)))[1:]
SEEDS = 5


def digits() -> Iterator[Protocol]:
    "Handwritten digits of scikit-learn, 8 by 8 pixels, drawn with 28; each in turn is normal."
    from scipy.ndimage import zoom
    from sklearn.datasets import load_digits

    found = load_digits()
    images = np.clip(zoom(found.images, (1, 3.5, 3.5), order=1) / 16, 0, 1)
    order = generator(0).permutation(len(images))
    train, test = ((images[part], found.target[part]) for part in np.split(order, [len(order) // 2]))
    for normal in range(10):
        yield make_protocol("one-vs-rest", train, test, normal=normal)


def default_scores(task: Protocol, seed: int = 0) -> np.ndarray:
    "What the detector says of the test images when it is given all normal ones."
    detector = ImageDetector(seed=seed).fit(np.concatenate([task.train, task.validation]), progress=False)
    return detector.decision_function(task.test)


def terms(task: Protocol) -> tuple[np.ndarray, np.ndarray]:
    "The four terms of validation and test images, in units of the former."
    model = EdgeNeighbours()
    train, held, test = (image_tensor(images) for images in task[1:4])
    with evaluating(model):
        model.prepare(train)
        model.calibrate(held)
        return tuple(
            ((in_blocks(model.terms, images) - model.unit[0]) / model.unit[1]).numpy() for images in (held, test)
        )


def other_tasks(images: np.ndarray, labels: np.ndarray) -> Iterator[Protocol]:
    "One class of `OTHERS` against the rest of them, all of the training split: 3,840 learn, 960 choose, 1,200 judge."
    for normal in OTHERS:
        random = generator(normal)
        kept = images[labels == normal][random.permutation(6000)]
        odd = [images[labels == other][random.permutation(6000)[:400]] for other in OTHERS if other != normal]
        test, truth = np.concatenate([kept[4800:], *odd]), np.repeat([0, 1], [1200, 2400])
        yield Protocol(f"class {normal}", kept[:3840], kept[3840:4800], test, truth, truth)


def look_alikes(task: Protocol, parts: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
    "Normal images, and those others that pixels cannot tell from them: nearer than three of four normal ones."
    held, test = parts
    return (task.truth == 0) | (test[:, 0] < np.quantile(held[:, 0], 0.75))


def weights_table(splits: list) -> pd.DataFrame:
    "AUROC of all weights on other classes, on look-alikes among them, and on both protocols."
    judged = [(task, terms(task)) for task in other_tasks(*splits[0])]
    alike = [(task, parts, look_alikes(task, parts)) for task, parts in judged]
    alike = [each for each in alike if each[0].truth[each[2]].sum() >= 50]
    original = make_protocol("original", *splits)
    tests = [(task, terms(task)) for task in (make_protocol("one-vs-rest", *splits, normal=n) for n in range(10))]
    hard, rows = terms(original)[1], {}
    for weights in WEIGHTS:
        whole = [roc_auc(task.truth, test @ weights) for task, (_, test) in judged]
        near = [roc_auc(task.truth[kept], test[kept] @ weights) for task, (_, test), kept in alike]
        rows[weights] = {
            "other classes": np.mean(whole),
            "look-alikes": np.mean(near),
            "rule": (np.mean(whole) + np.mean(near)) / 2,
            "original": roc_auc(original.truth, hard @ weights),
            "one-vs-rest": np.mean([roc_auc(task.truth, test @ weights) for task, (_, test) in tests]),
        }
    table = pd.DataFrame.from_dict(rows, orient="index")
    table.index = pd.MultiIndex.from_tuples(rows, names=["pixels", "edges", "corrected", "statistics"])
    return table.sort_values("rule", ascending=False, kind="stable")


def row(task: str, detector: str, values: list[tuple[np.ndarray, np.ndarray]], knowledge: str) -> dict[str, object]:
    "Mean AUROC over judged sets of images, with the interval of that mean."
    ends = np.array([bootstrap_ci(roc_auc, truth, score, n=200) for truth, score in values])
    centre = np.array([roc_auc(truth, score) for truth, score in values])
    low, high = (np.sqrt(((ends[:, side] - centre) ** 2).sum()) / len(values) for side in (0, 1))
    mean = float(centre.mean())
    figures = {"roc_auc": mean, "low": mean - low, "high": mean + high}
    return {"task": task, "detector": detector, **figures, "knowledge": knowledge}


def rows_of(task: str, protocols: list[Protocol], chosen: tuple[int, ...]) -> list[dict[str, object]]:
    "The default, the weights that other classes choose, and baselines."
    own = [(each.truth, default_scores(each)) for each in protocols]
    carried = [(each.truth, terms(each)[1] @ chosen) for each in protocols]
    knew = "nothing of this set" if task == "digits" else "looked at the test"
    rows = [row(task, "ImageDetector()", own, knew)]
    rows.append(row(task, f"weights {':'.join(map(str, chosen))}", carried, "other classes"))
    for name in ("1-NN", "HOG + k-NN"):
        scores = [(each.truth, baseline_scores(each, BASELINES[name])[1]) for each in protocols]
        rows.append(row(task, name, scores, "normal images"))
    return rows


def latency(task: Protocol) -> pd.DataFrame:
    "Milliseconds for one image and for a thousand, of a detector that came from the disk."
    normals = np.concatenate([task.train, task.validation])
    with tempfile.TemporaryDirectory() as folder:
        ImageDetector().fit(normals, progress=False).save(folder)
        detector = ImageDetector.load(folder)
    one, many = task.test[:1], task.test[:1024]
    functions = {
        "one image": lambda: detector.decision_function(one),
        "1,024 images": lambda: detector.decision_function(many),
    }
    seconds = median_seconds(functions, repeats=25)
    return pd.DataFrame({"milliseconds": {name: 1000 * value for name, value in seconds.items()}}).rename_axis("what")


def main() -> None:
    torch.set_num_threads(1)
    splits = [load_fashion_mnist(split) for split in ("train", "test")]
    weights = weights_table(splits)
    chosen, original = weights.index[0], make_protocol("original", *splits)
    rows = rows_of("original", [original], chosen)
    runs = [default_scores(original, seed) for seed in range(SEEDS)]
    single = [roc_auc(original.truth, run) for run in runs]
    note = f"lowest {min(single):.4f}, highest {max(single):.4f}"
    rows[0] |= {"detector": f"ImageDetector(), mean of {SEEDS} seeds", "roc_auc": np.mean(single), "note": note}
    joint = [(original.truth, np.mean(runs, axis=0))]
    rows.insert(1, row("original", f"{SEEDS} seeds together", joint, "looked at the test"))
    rows += rows_of("one-vs-rest", [make_protocol("one-vs-rest", *splits, normal=n) for n in range(10)], chosen)
    rows += rows_of("digits", list(digits()), chosen)
    tables = {
        "fmnist_default": pd.DataFrame(rows).set_index(["task", "detector"]),
        "fmnist_weights": weights,
        "fmnist_latency": latency(original),
    }
    for name, table in tables.items():
        table.round(4).to_csv(RESULTS / f"{name}.csv")
        print(f"\n{name}\n{table.head(15).round(4).to_string()}", flush=True)
    print("\nrank correlation over all weights\n", weights.corr("spearman").round(3).to_string())


if __name__ == "__main__":
    main()

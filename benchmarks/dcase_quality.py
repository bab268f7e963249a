"""How well the machine-sound chapter finds faults whose place is known, and whether synthetic clips betray their label.

Localisation: six types, three machines each, 100 training, 50 normal and 50 broken clips for each fault at 6 and 12 dB.
The regions are those of a fixed 3 dB threshold; the usual formula is given the truth's area by an oracle. Single clips:
average precision of each clip's map over its own mask. Leak: clips of severity 0 under both labels, eight data sets of
150 clips for each label and type.
"""

import tempfile
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from scipy.stats import t
from tqdm.auto import tqdm

from anomaly_nb.audio import HTK
from anomaly_nb.dcase.alignment import Aligner, Cycle, Events, Intervals, Unaligned, folded
from anomaly_nb.dcase.detector import NormalSound, SoundDetector
from anomaly_nb.dcase.machines import Rendering, render_clip, synthesize_machines
from anomaly_nb.dcase.sources import FAULTS, MACHINE_TYPES
from anomaly_nb.dcase.statistics import Comparison, Moments, compare
from anomaly_nb.metrics import average_precision, roc_auc

RESULTS = Path(__file__).parent / "results"
TRAIN, TEST, SINGLE = 100, 50, 10  # clips of a machine; clips of a fault whose own map is judged
EVENTS = ("missing", "late")  # faults that leave no trace at a place
RANDOM = ("grit", "tension", "metal")  # brief sounds at times that clips do not share, and nothing normal to align
PERIODIC = ("rail", "metal")  # brief sounds once in a cycle, for the maps of single clips


def overlap(found: np.ndarray, truth: np.ndarray) -> float:
    return float((found & truth).sum() / max((found | truth).sum(), 1))


def equal_area(score: np.ndarray, truth: np.ndarray) -> float:
    "Overlap of the highest bins, as many as the truth has."
    if not truth.any():
        return float("nan")
    return overlap(score >= np.partition(score.ravel(), -truth.sum())[-truth.sum()], truth)


def moments(pictures: np.ndarray) -> Moments:
    result = Moments(pictures.shape[1:])
    result.add(pictures)
    return result


class Machine:
    "One machine's normal clips and what is learned from them."

    def __init__(self, kind: str, number: int) -> None:
        self.kind, self.number = kind, number
        self.train = [HTK(render_clip(kind, number, number=i).audio) for i in range(TRAIN)]
        self.control = [HTK(render_clip(kind, number, "test", 0, i).audio) for i in range(TEST)]
        self.aligner: Aligner = Unaligned(self.train[0].shape[1])
        self.intervals: Intervals | None = None
        if kind == "slider":
            self.aligner = Cycle.fit(self.train[:24])
        if kind == "valve":
            self.aligner = events = Events.fit(self.train[:24])
            self.intervals = Intervals.fit(self.train[:24], events)
        self.normal, self.held = moments(self.place(self.train, self.train)), self.place(self.control, self.control)
        self.sound = NormalSound(self.aligner).add(np.stack(self.train))

    def place(self, pictures: list[np.ndarray], guides: list[np.ndarray]) -> np.ndarray:
        "Pictures on the aligner's columns; a clip's own spectrogram guides its truth as well."
        pairs = zip(pictures, guides, strict=True)
        return np.stack([folded(picture, self.aligner.columns(guide), self.aligner.width) for picture, guide in pairs])

    def against(self, clips: np.ndarray) -> Comparison:
        return compare(self.normal, moments(clips))

    def false_areas(self) -> dict[str, float]:
        eights = [float(self.against(self.held[i : i + 8]).region().mean()) for i in range(0, 48, 8)]
        return {"false_area": float(self.against(self.held).region().mean()), "false_area_8_worst": max(eights)}

    def judge(self, fault: str, severity: float) -> dict[str, object]:
        clips = [render_clip(self.kind, self.number, "test", 1, i, severity, fault) for i in range(TEST)]
        pictures, gains = [HTK(clip.audio) for clip in clips], [clip.gain for clip in clips]
        broken, truth = self.place(pictures, pictures), np.abs(self.place(gains, pictures).mean(axis=0)) >= 3
        plain, plain_truth = np.abs(np.mean(gains, axis=0)), np.abs(np.mean(gains, axis=0)) >= 3
        result = self.against(broken)
        formula = np.abs(np.stack(pictures) - np.mean(self.control, axis=0)).mean(axis=0)
        row = {
            "type": self.kind,
            "id": f"id_{self.number:02d}",
            "fault": fault,
            "severity": severity,
            "truth_area": float(truth.mean()),
            "iou": overlap(result.region(), truth),
            "iou_mean_difference": overlap(np.abs(result.difference) >= 3, truth),
            "iou_formula": equal_area(formula, plain_truth),
            "iou_formula_aligned": equal_area(np.abs(broken - self.held.mean(axis=0)).mean(axis=0), truth),
            **self.single_clips(clips[:SINGLE], pictures, plain),
        }
        if self.intervals is not None:
            scores = [self.intervals.score(picture) for picture in self.control + pictures]
            row["interval_auc"] = roc_auc(np.repeat([0, 1], TEST), scores)
        return row

    def single_clips(self, clips: list[Rendering], pictures: list[np.ndarray], plain: np.ndarray) -> dict[str, float]:
        rows = [
            {
                "clip_ap": average_precision(clip.mask.ravel(), self.sound.deviation(picture).ravel()),
                "clip_chance": float(clip.mask.mean()),
                "clip_ap_of_mean_truth": average_precision(clip.mask.ravel(), plain.ravel()),
            }
            for clip, picture in zip(clips, pictures, strict=False)
            if clip.mask.sum() > 5
        ]
        return pd.DataFrame(rows).mean().to_dict() if rows else {}


def localisation() -> pd.DataFrame:
    rows = []
    for kind, number in tqdm([(kind, number) for kind in MACHINE_TYPES for number in (0, 2, 4)]):
        machine = Machine(kind, number)
        areas = machine.false_areas()
        rows += [machine.judge(fault, severity) | areas for fault in FAULTS[kind] for severity in (6, 12)]
    return pd.DataFrame(rows)


def leak(clips: int = 150, seeds: int = 8) -> pd.DataFrame:
    rows = []
    for kind, seed in tqdm([(kind, seed) for kind in MACHINE_TYPES for seed in range(seeds)]):
        with tempfile.TemporaryDirectory() as folder:
            root = Path(folder)
            synthesize_machines(root, [kind], 1, 40, clips, clips, severity=0, seconds=3, seed=seed)
            train, test = sorted(root.glob("*/train/*.wav")), sorted(root.glob("*/test/*.wav"))
            labels = [int(path.name.startswith("anomaly")) for path in test]
            for method in ("mean", "pca", "gmm", "knn"):
                scores = SoundDetector(method).fit(train).decision_function(test)
                rows.append({"type": kind, "seed": seed, "method": method, "auc": roc_auc(labels, scores)})
    return pd.DataFrame(rows)


def leak_summary(table: pd.DataFrame) -> str:
    "Mean AUC by type and method, and of all methods with the 95 % interval (Student's t) over the data sets."
    seeds = table.groupby(["type", "seed"])["auc"].mean().unstack()
    half = t.ppf(0.975, seeds.shape[1] - 1) * seeds.std(axis=1) / np.sqrt(seeds.shape[1])
    means = table.pivot_table(index="type", columns="method", values="auc")
    mean = seeds.mean(axis=1)
    return means.assign(all=mean, low=mean - half, high=mean + half).round(3).to_string()


def summary(table: pd.DataFrame) -> str:
    "The figures that the chapter quotes."
    groups = ("events", "periodic", "random")
    kind = np.select([table["fault"].isin(names) for names in (EVENTS, PERIODIC, RANDOM)], groups, "sustained")
    events, brief = table["fault"].isin(EVENTS), table["fault"].isin(RANDOM)
    pooled, single = table[~events & ~brief], table.assign(kind=kind)[~events]
    ious = ["iou", "iou_mean_difference", "iou_formula", "iou_formula_aligned"]
    aps = ["clip_ap", "clip_chance", "clip_ap_of_mean_truth"]
    random = table[brief].groupby(["fault", "severity"])[["truth_area", *ious]].mean()
    areas = table[["false_area", "false_area_8_worst"]].max()
    clicks = table[events].groupby(["fault", "severity"])["interval_auc"].agg(["mean", "min"])
    overall = {"placed": pooled, "with random brief sounds": table[~events]}
    return "\n\n".join(
        [
            f"pooled maps, mean over machines\n{pooled.groupby(['type', 'fault'])[ious].mean().round(3).to_string()}",
            f"by type\n{pooled.groupby('type')[ious].mean().round(3).to_string()}",
            *(
                f"pooled IoU, {name}: mean {part['iou'].mean():.3f}, worst {part['iou'].min():.3f}; "
                f"formula: mean {part['iou_formula'].mean():.3f}, worst {part['iou_formula'].min():.3f}"
                for name, part in overall.items()
            ),
            f"random brief sounds\n{random.round(3).to_string()}",
            f"missing and late clicks, AUC of the pauses over machines\n{clicks.round(3).to_string()}",
            f"false areas, worst\n{areas.round(4).to_string()}",
            f"single clips\n{single.groupby(['kind', 'type', 'fault'])[aps].mean().round(3).to_string()}",
            f"{single.groupby(['kind', 'severity'])[aps].mean().round(3).to_string()}",
            f"{single.groupby('kind')[aps].mean().round(3).to_string()}",
        ]
    )


def main() -> None:
    torch.set_num_threads(1)
    RESULTS.mkdir(exist_ok=True)
    table = localisation()
    table.to_csv(RESULTS / "dcase_localisation.csv", index=False, float_format="%.4g")
    print(summary(table))
    leaks = leak()
    leaks.to_csv(RESULTS / "dcase_leak.csv", index=False, float_format="%.4g")
    print(f"\nseverity 0\n{leak_summary(leaks)}")


if __name__ == "__main__":
    main()

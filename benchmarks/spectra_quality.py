"""How well the galaxy-spectra detectors find injected anomalies: five seeds, disjoint sky fibres, two populations.

Every detector learns from 1,200 normal galaxies of the family "observed". It is judged on 300 normal and 400 odd ones
whose noise comes from other fibres; on the same of the family "stellar", which it has never seen; and on those again
after calibration on 150 normals of that family. No anomaly takes part in any fit, choice or threshold.
"""

import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from anomaly_nb.core import generator
from anomaly_nb.metrics import roc_auc
from anomaly_nb.spectra import KINDS, Spectra, SpectrumDetector, SpectrumPCA, inject_anomalies, simulate_spectra

RESULTS = Path(__file__).parent / "results"
SEEDS = (1, 2, 3, 4, 5)


def judged(detector: SpectrumDetector, normal: Spectra, odd: Spectra, truth: pd.DataFrame) -> dict[str, float]:
    "AUC of all kinds and of each, false positives, and how often the top region overlaps the truth."
    top = detector.detect(odd).set_index("id")
    below, above = detector.decision_function(normal), top["score"].to_numpy()
    kinds = truth.drop_duplicates("id").set_index("id")["kind"].loc[odd.ids].to_numpy()

    def auc(scores: np.ndarray) -> float:
        return roc_auc(np.repeat([0, 1], [len(below), len(scores)]), np.concatenate([below, scores]))

    hits = truth.apply(lambda t: t["start"] < top.loc[t["id"], "end"] and t["end"] > top.loc[t["id"], "start"], axis=1)
    found = hits.groupby(truth["id"]).any().loc[odd.ids].to_numpy()
    row = {"all": auc(above)} | {kind: auc(above[kinds == kind]) for kind in KINDS}
    row |= {"false positives": float((below > detector.threshold_).mean()), "located": float(found.mean())}
    return row | {f"located {kind}": float(found[kinds == kind].mean()) for kind in KINDS}


def rows(seed: int) -> Iterator[dict[str, object]]:
    "One seed: three detectors on three populations."
    fibres = generator(seed).permutation(102)
    known, unknown = fibres[:68], fibres[68:]
    train = simulate_spectra(1200, 1000 + seed, fibres=known)
    for name, detector in {
        "SpectrumPCA": SpectrumPCA(seed=seed),
        "SpectrumDetector, no network": SpectrumDetector(epochs=0, seed=seed),
        "SpectrumDetector": SpectrumDetector(seed=seed),
    }.items():
        start = time.process_time()
        detector.fit(train)
        common = {"detector": name, "seed": seed, "fit CPU s": round(time.process_time() - start, 1)}
        for family in ("observed", "stellar"):
            normal = simulate_spectra(300, 2000 + seed, fibres=unknown, family=family)
            clean = simulate_spectra(400, 3000 + seed, fibres=unknown, family=family)
            odd, truth = inject_anomalies(clean, seed=seed)
            yield common | {"population": family} | judged(detector, normal, odd, truth)
        detector.calibrate(simulate_spectra(150, 5000 + seed, fibres=known, family="stellar"))
        yield common | {"population": "stellar, calibrated"} | judged(detector, normal, odd, truth)


def main() -> None:
    torch.set_num_threads(1)
    table = pd.DataFrame([row for seed in SEEDS for row in rows(seed)])
    RESULTS.mkdir(exist_ok=True)
    table.round(4).to_csv(RESULTS / "spectra_quality.csv", index=False)
    mean = table.drop(columns="seed").groupby(["population", "detector"], sort=False).mean()
    print(mean.round(3).T.to_string())


if __name__ == "__main__":
    main()

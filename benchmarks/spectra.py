"""The spectra benchmark: detectors beside each other on injected anomalies, and speeds as ratios in one run.

    python benchmarks/spectra.py quality --seeds 1 2 3 4 5   # writes benchmarks/spectra_quality.csv
    python benchmarks/spectra.py speed
"""

import argparse
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from anomaly_nb.core import generator
from anomaly_nb.datasets import sample_path
from anomaly_nb.metrics import roc_auc
from anomaly_nb.spectra.baseline import ResidualDetector, SpectrumPCA
from anomaly_nb.spectra.benchmark import KINDS, inject_anomalies, simulate_spectra
from anomaly_nb.spectra.data import Spectra
from anomaly_nb.spectra.detector import SpectrumDetector
from anomaly_nb.spectra.preparation import to_rest_frame
from anomaly_nb.spectra.readers import load_sdss_objects, read_sdss

HERE = Path(__file__).parent


def judged(detector: ResidualDetector, normal: Spectra, odd: Spectra, truth: pd.DataFrame) -> dict[str, float]:
    """AUC of all kinds and of each, false positives, and how often the top region overlaps the truth."""
    below, above = detector.decision_function(normal), detector.decision_function(odd)
    kinds = truth.drop_duplicates("id").set_index("id")["kind"].loc[odd.ids].to_numpy()

    def auc(scores: np.ndarray) -> float:
        return roc_auc(np.repeat([0, 1], [len(below), len(scores)]), np.concatenate([below, scores]))

    top = detector.detect(odd).set_index("id")
    hits = truth.apply(lambda t: t["start"] < top.loc[t["id"], "end"] and t["end"] > top.loc[t["id"], "start"], axis=1)
    found = hits.groupby(truth["id"]).any().loc[odd.ids].to_numpy()
    row = {"all": auc(above)} | {kind: auc(above[kinds == kind]) for kind in KINDS}
    row |= {"false positives": float((below > detector.threshold_).mean()), "located": float(found.mean())}
    return row | {f"located {kind}": float(found[kinds == kind].mean()) for kind in KINDS}


def rows(seed: int, epochs: int) -> Iterator[dict[str, object]]:
    """One seed: three detectors on three populations."""
    fibres = generator(seed).permutation(102)
    known, unknown = fibres[:68], fibres[68:]
    train = simulate_spectra(1200, 1000 + seed, fibres=known)
    for name, detector in {
        "SpectrumPCA": SpectrumPCA(seed=seed),
        "SpectrumDetector, no network": SpectrumDetector(epochs=0, seed=seed),
        "SpectrumDetector": SpectrumDetector(epochs=epochs, seed=seed),
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


def quality(seeds: list[int], epochs: int) -> None:
    """Write a row for each seed, detector and population."""
    results = []
    for seed in seeds:
        for row in rows(seed, epochs):
            results.append(row)
            print(pd.DataFrame([row]).round(3).to_dict("records")[0], flush=True)
            pd.DataFrame(results).round(4).to_csv(HERE / "spectra_quality.csv", index=False)


def rate(work: Callable[[], object], items: int) -> float:
    """Items per CPU second, the best of three."""
    best = np.inf
    for _ in range(3):
        start = time.process_time()
        work()
        best = min(best, time.process_time() - start)
    return items / best


def speed() -> None:
    """Scoring beside the document's architecture and rule; reading beside specutils."""
    import tempfile

    from specutils import Spectrum

    from anomaly_nb.spectra.document import CNNAutoencoderWithSkip, detect_anomalous_regions

    train, many = simulate_spectra(200, 0), simulate_spectra(384, 1)
    flux, original = torch.from_numpy(many.flux)[:, None], CNNAutoencoderWithSkip().eval()

    def network() -> np.ndarray:
        with torch.inference_mode():
            return torch.cat([original(flux[i : i + 32]) for i in range(0, len(flux), 32)]).numpy()[:, 0]

    result = {
        "document's network": rate(network, len(many)),
        "document's network and rule": rate(lambda: detect_anomalous_regions(many.flux, network()), len(many)),
    }
    for name, detector in {"SpectrumPCA": SpectrumPCA(), "SpectrumDetector": SpectrumDetector(epochs=4)}.items():
        detector.fit(train)
        result[name] = rate(lambda d=detector: d.decision_function(many), len(many))
    objects = load_sdss_objects()
    names = objects.ids[(objects.classes == "GALAXY") & (objects.z < 0.3)]
    with tempfile.TemporaryDirectory() as folder:
        with zipfile.ZipFile(sample_path("spectra/sdss_objects.zip")) as archive:
            files = []
            for copy in range(10):
                for name in names:
                    files.append(Path(folder) / f"{name}-{copy}.fits")
                    files[-1].write_bytes(archive.read(f"{name}.fits"))
        one_by_one = rate(lambda: [Spectrum.read(file, format="SDSS-III/IV spec") for file in files], len(files))
        result["specutils, file by file"] = one_by_one
        result["read_sdss and to_rest_frame"] = rate(lambda: to_rest_frame(read_sdss(files)), len(files))
    print(pd.Series(result, name="spectra per CPU second").round(0).to_string())
    print("scoring ratio", round(result["SpectrumDetector"] / result["document's network"], 1))
    print("reading ratio", round(result["read_sdss and to_rest_frame"] / one_by_one, 1))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=["quality", "speed"])
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3, 4, 5])
    parser.add_argument("--epochs", type=int, default=40)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    if arguments.what == "quality":
        quality(arguments.seeds, arguments.epochs)
    else:
        speed()

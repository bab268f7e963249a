"""What detectors and commands give is what they gave before: results that were kept, compared bit for bit.

`frozen/results.json` holds shape, digest and a dozen samples of each array that a case gives, and the machine it was
made on. On such a machine the digests must be equal. Elsewhere shapes, texts and samples are compared, the samples
within rtol 1e-5 and atol 1e-6 as for results of networks; of the cases in which rounding grows (`GROWING`), names and
shapes alone. To compare all of them there, freeze them first at a commit that is known to be right.

`frozen/saved` holds the folder of a saved detector of each class; it is made where it is missing, never replaced.

After an intended change: `python tests/test_frozen.py --freeze [CASE ...]`, and a look at the difference.
"""

import hashlib
import json
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import chdir
from dataclasses import replace
from functools import cache
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from unittest.mock import patch

import numpy as np
import pandas as pd
import pytest
import torch
from threadpoolctl import threadpool_limits

from anomaly_nb.artefacts import load_facts, load_state
from anomaly_nb.audio import read_audio
from anomaly_nb.core import Detector
from anomaly_nb.dcase import (
    AudioSpecificStrategy,
    DCASEFolder,
    MaskPrior,
    PerlinStrategy,
    SoundDetector,
    SpectrogramStudy,
    evaluate_detector,
    synthesize_machines,
    train_vqvae,
)
from anomaly_nb.dcgan import (
    ConvergenceDetector,
    SpectrogramDetector,
    SpectrogramFormat,
    engine_recordings,
    load_config,
    synthesize_engines,
    train_dcgan,
    write_engines,
)
from anomaly_nb.dcgan.convergence import detector_state
from anomaly_nb.dcgan.spectrograms import prepare_folder
from anomaly_nb.dcgan.training import AdversarialModule, write_checkpoint
from anomaly_nb.fmnist import ImageDetector, baseline_table, load_subset, make_protocol, run_grid
from anomaly_nb.fmnist.base import MODELS
from anomaly_nb.fmnist.baselines import BASELINES, baseline_scores
from anomaly_nb.fmnist.data import Protocol
from anomaly_nb.spectra import (
    SpectrumDetector,
    SpectrumPCA,
    inject_anomalies,
    load_sdss_objects,
    simulate_spectra,
    write_table,
)
from anomaly_nb.srcnn import SRCNN, SpectralResidual, SRCNNNetwork, load_kpi, load_nab, microsoft_sr

HERE = Path(__file__).resolve().parent
RESULTS, SAVED = HERE / "frozen/results.json", HERE / "frozen/saved"
SAMPLES = 12  # of each array
LOOSE: dict[str, str] = {}  # case: why its digests may change; its samples still agree within 1e-12 of their size
GROWING = {  # cases in which another processor's rounding grows: steps of a training, repeated eigenvectors, ties
    "SpectrumPCA",
    "SpectrumPCA, SDSS",
    "SpectrumDetector, network",
    "SpectrumDetector, no network",
    "SpectrogramDetector, embedding, neighbours",
    "SpectrogramStudy",
    "commands, spectra",
    "image baselines",
    "train_dcgan",
}
LONG = {f"commands, {kind}" for kind in ("engine sounds", "fashion images", "machine sounds")}  # with -m slow
CASES: dict[str, Callable[[], Mapping[str, Any]]] = {}
Case = Callable[[], Mapping[str, Any]]
Record = dict[str, dict[str, Any]]


# ---------------------------------------------------------------- what is kept of a result


def machine() -> dict[str, str]:
    "What bits may depend on."
    cpus = Path("/proc/cpuinfo")
    lines = cpus.read_text().splitlines() if cpus.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    found = {"processor": names[0] if names else platform.processor()}
    found |= {"OPENBLAS_CORETYPE": os.environ.get("OPENBLAS_CORETYPE", ""), "python": platform.python_version()}
    return found | {name: version(name) for name in ("numpy", "scipy", "torch", "pandas", "scikit-learn")}


def is_numeric(values: Any) -> bool:
    return isinstance(values, np.ndarray) and values.dtype.kind in "biuf"


def parts(name: str, value: Any) -> Iterator[tuple[str, Any]]:
    "A result as arrays and texts by name."
    if isinstance(value, torch.Tensor):
        value = value.detach().numpy()
    if isinstance(value, pd.DataFrame):
        table = value.reset_index()
        value = {
            " ".join(map(str, c)) if isinstance(c, tuple) else str(c): table.iloc[:, i]
            for i, c in enumerate(table.columns)
        }
    if isinstance(value, pd.Series):
        plain = value.to_numpy()
        value = plain if is_numeric(plain) else value.astype(str).tolist()
    if isinstance(value, Mapping):
        for key, part in value.items():
            yield from parts(f"{name}/{key}" if name else str(key), part)
        return
    if isinstance(value, bool | int | float | np.generic | list | tuple) and is_numeric(found := np.asarray(value)):
        value = found
    if isinstance(value, list | tuple) and not all(isinstance(part, str) for part in value):
        for number, part in enumerate(value):
            yield from parts(f"{name}/{number}", part)
        return
    yield name, value if is_numeric(value) else "\n".join(value) if isinstance(value, list | tuple) else str(value)


def kept(value: Any) -> dict[str, Any]:
    "What is kept of an array, or of a text."
    if isinstance(value, str):
        short = {"text": value} if len(value) <= 400 else {"begin": value[:200], "end": value[-200:]}
        return {"length": len(value), "sha256": hashlib.sha256(value.encode()).hexdigest(), **short}
    little = np.ascontiguousarray(value, value.dtype.newbyteorder("<"))
    chosen = np.linspace(0, value.size - 1, min(SAMPLES, value.size)).round().astype(int)
    samples = value.reshape(-1)[chosen].tolist()
    digest = hashlib.sha256(little.tobytes()).hexdigest()
    return {"shape": list(value.shape), "sha256": digest, "samples": samples}


def record(name: str) -> Record:
    "Run a case in an empty folder, on one thread."
    torch.set_num_threads(1)
    torch.manual_seed(0)
    with TemporaryDirectory() as folder, chdir(folder), patch.dict(os.environ, IN_TEST="1"), threadpool_limits(1):
        found = dict(parts("", CASES[name]()))
        for place in (str(Path(folder).resolve()), folder, shared().name):
            found = {key: v.replace(place, "FOLDER") if isinstance(v, str) else v for key, v in found.items()}
    return {key: kept(value) for key, value in found.items()}


def differences(now: Record, before: Record, same_machine: bool, loose: bool, growing: bool = False) -> list[str]:
    "What is no longer as it was."
    told = [f"{name}: is gone" for name in before.keys() - now.keys()]
    told += [f"{name}: is new" for name in now.keys() - before.keys()]
    for name in before.keys() & now.keys():
        old, new = before[name], now[name]
        if old["sha256"] == new["sha256"] and old.get("shape") == new.get("shape"):
            continue
        if "samples" not in old or "samples" not in new or old["shape"] != new["shape"] or (same_machine and not loose):
            told.append(f"{name}: {old} has become {new}")
            continue
        if growing and not same_machine:
            continue
        rtol, atol = (1e-12, 0.0) if same_machine else (1e-5, 1e-6)
        if not np.allclose(new["samples"], old["samples"], rtol, atol, equal_nan=True):
            told.append(f"{name}: {old['samples']} have become {new['samples']}")
    return sorted(told)


def case(name: str) -> Callable[[Case], Case]:
    def add(function: Case) -> Case:
        CASES[name] = function
        return function

    return add


@cache
def shared() -> TemporaryDirectory[str]:
    "For inputs that several cases need."
    return TemporaryDirectory()


def judged(detector: Detector, train: Any, other: Any) -> dict[str, Any]:
    "All that a fitted detector says, and what it keeps on disk."
    learned = ("decision_scores_", "threshold_", "labels_")
    found = {name: getattr(detector, name) for name in learned if hasattr(detector, name)}
    found |= {"train": detector.decision_function(train), "other": detector.decision_function(other)}
    found |= {"predicted": detector.predict(other), "detect": detector.detect(other)}
    with TemporaryDirectory() as folder:
        detector.save(folder)
        again = type(detector).load(folder).decision_function(other)
        assert np.array_equal(again, found["other"])
        return found | {"saved": saved_state(Path(folder))}


def saved_state(folder: Path) -> dict[str, Any]:
    "All that is kept on disk but for what is told of the data and of versions."
    told, state = load_facts(folder), load_state(folder)
    state.pop("fitted_to_", None)
    return {"detector": told["detector"], "params": told["params"], **state}


# ---------------------------------------------------------------- time series


@cache
def server() -> tuple[pd.Series, pd.Series]:
    "Twelve days of a server to learn from, five days to judge."
    series = load_kpi()[1].series
    return series[:3456], series[3456:4896]


SETTINGS: dict[str, dict[str, Any]] = {
    "both": {},
    "upper": {"side": "upper"},
    "lower": {"side": "lower", "contamination": 0.02},
    "season of a day": {"period": 288, "filter_length": 256, "local_window": 301},
    "no season": {"period": 1, "context": 0.1},
}


@cache
def gaps() -> tuple[pd.Series, pd.Series]:
    "The same server with values and whole rows missing."
    train, other = (part.copy() for part in server())
    train.iloc[100:140] = np.nan
    other.iloc[700:720] = np.nan
    return train.drop(train.index[900:950]), other.drop(other.index[30:33])


for setting in SETTINGS:
    case(f"SpectralResidual, {setting}")(
        lambda setting=setting: judged(SpectralResidual(**SETTINGS[setting]).fit(server()[0]), *server())
    )


@case("SpectralResidual, gaps")
def series_with_gaps() -> dict[str, Any]:
    return judged(SpectralResidual().fit(gaps()[0]), *gaps())


@case("SpectralResidual, columns")
def columns() -> dict[str, Any]:
    values = np.random.default_rng(0).normal(size=(1000, 2)).cumsum(axis=0)
    table = pd.DataFrame({"wave": np.sin(np.arange(1000) / 8) + 0.1 * values[:, 0], "walk": values[:, 1]})
    table.loc[950, "wave"] += 5
    train, other = table[:700], table[700:].reset_index(drop=True)
    shares = {"": {}, "share": {"contamination": 0.03}}
    return {name: judged(SpectralResidual(**given).fit(train), train, other) for name, given in shares.items()}


@case("SpectralResidual, stream")
def stream() -> dict[str, Any]:
    found = {}
    for side in ("both", "upper"):
        scorer = SpectralResidual(side=side).fit(server()[0]).stream(server()[0])
        pairs = [scorer.update(value) for value in gaps()[1].to_numpy()[:900]]
        found[side] = {"score": [score for score, _ in pairs], "alarm": [alarm for _, alarm in pairs]}
    return found


@case("SpectralResidual, without fit")
def curve_by_curve() -> dict[str, Any]:
    curves = load_nab()[:3]
    return {curve.name: SpectralResidual().detect(curve.series[:1500]) for curve in curves}


@case("microsoft_sr")
def microsoft() -> dict[str, Any]:
    values = server()[1].to_numpy()
    return {
        "plain": microsoft_sr(values),
        "bounds": microsoft_sr(values, margin=True, timestamps=server()[1].index),
        "batches": microsoft_sr(values, margin=True, sensitivity=70, batch_size=500, threshold=0.2),
        "windows": microsoft_sr(values, mag_window=5, score_window=21),
    }


@case("SRCNN")
def srcnn() -> dict[str, Any]:
    train, other = server()
    found = {"one": judged(SRCNN(window=64, steps=3).fit(train), train, other)}
    several = SRCNN(window=64, steps=2, seed=1, weight=0.5, contamination=0.02).fit([train[:1500], other])
    return found | {"several": judged(several, train, other)}


@case("SRCNN, published network")
def published() -> dict[str, Any]:
    torch.manual_seed(3)
    network = SRCNNNetwork(32)
    return judged(SRCNN.from_network(network, 0.5), server()[0][:300], server()[1][:300])


# ---------------------------------------------------------------- spectra


@cache
def galaxies() -> tuple[Any, Any, Any]:
    "Spectra to learn from, odd ones, and those of another population."
    odd = inject_anomalies(simulate_spectra(16, 3), seed=4)[0]
    return simulate_spectra(70, 1), odd, simulate_spectra(24, 5, family="stellar", z=(0.05, 0.2))


def spectral(detector: Any) -> dict[str, Any]:
    "A detector of spectra before and after it is calibrated on another population."
    train, odd, population = galaxies()
    found = judged(detector.fit(train), train, odd)
    found |= {"regions": detector.regions(odd), "more": detector.regions(odd, most=3, neg_log_p=1.0)}
    found |= {"expected": detector.expected(odd), "residuals": detector.residuals(odd)}
    detector.calibrate(population)
    return found | {"calibrated": judged(detector, population, odd)}


@case("simulate_spectra")
def simulated() -> dict[str, Any]:
    names = ("flux", "ivar", "z", "wavelength")
    found = {str(i): {name: getattr(part, name) for name in names} for i, part in enumerate(galaxies())}
    return found | {"ids": galaxies()[0].ids.tolist(), "truth": inject_anomalies(simulate_spectra(16, 3), seed=4)[1]}


@case("SpectrumPCA")
def components() -> dict[str, Any]:
    return spectral(SpectrumPCA(components=4))


@case("SpectrumDetector, no network")
def linear() -> dict[str, Any]:
    return spectral(SpectrumDetector(components=4, epochs=0, seed=1))


@case("SpectrumDetector, network")
def masked_spans() -> dict[str, Any]:
    return spectral(SpectrumDetector(components=4, epochs=4))


@case("SpectrumPCA, SDSS")
def real_galaxies() -> dict[str, Any]:
    spectra = load_sdss_objects()
    return {"detect": SpectrumPCA(components=4).fit(galaxies()[0]).detect(spectra)}


# ---------------------------------------------------------------- engine sounds


TINY = {"features_g": 4, "features_d": 4, "image_size": 64, "batch_size": 8, "device": "cpu"}
MACHINE = ["gpu_memory_used", "gpu_utilization", "cpu_usage", "ram_usage", "process_mb"]
CLOCKED = ["timestamp", "epoch_duration_minutes", "iteration_time_seconds", *MACHINE]


@cache
def engines() -> tuple[list[Any], list[Any]]:
    "Engines to learn from, and recordings to judge."
    recordings = [sound[20000:42050] for sound in engine_recordings().values()]
    return list(synthesize_engines(8, seconds=1.0)[0]), [*synthesize_engines(2, seconds=1.0, seed=5)[0], *recordings]


@cache
def untrained() -> str:
    "A checkpoint of networks that have learned nothing."
    path = Path(shared().name) / "model.tar"
    write_checkpoint(AdversarialModule(load_config("config_test", **TINY)), path, SpectrogramFormat(64))
    return str(path)


def engine_detector(**settings: Any) -> dict[str, Any]:
    learn, other = engines()[0][: 4 if settings["method"] == "embedding" else None], engines()[1]
    return judged(SpectrogramDetector(**settings).fit(learn), learn, other)


for method in ("picture", "embedding", "discriminator"):
    for against in ("counterfeits", "neighbours"):
        case(f"SpectrogramDetector, {method}, {against}")(
            lambda method=method, against=against: engine_detector(
                method=method, against=against, checkpoint=untrained() if method == "discriminator" else ""
            )
        )


@case("SpectrogramDetector, up to 4 kHz")
def low_sounds() -> dict[str, Any]:
    return engine_detector(method="picture", cutoff=4000.0, contamination=0.2, seed=3)


def losses_of(kind: str) -> np.ndarray:
    "Four numbers for each of 900 iterations."
    random, step = np.random.default_rng(1), np.arange(900.0)
    numbers = np.abs(random.normal([1.5, 0.6, 5.0, 3.0], [0.2, 0.05, 0.5, 0.3], (900, 4)))
    if kind == "oscillating":
        numbers[:, 0] = 1.5 + np.sin(step / 3)
    if kind == "converged":
        numbers[300:, :2] = 0.7
    if kind == "won":
        numbers[200:, 1] = 0.001
    if kind == "exploding":
        numbers[500:, 2] *= np.exp(np.minimum(step[500:] - 500, 50) / 5)
    if kind == "no number":
        numbers[400, 1] = np.nan
    return numbers


@case("ConvergenceDetector")
def convergence() -> dict[str, Any]:
    found: dict[str, Any] = {}
    pictures = np.random.default_rng(2).random((6, 1, 8, 8))
    for kind in ("healthy", "oscillating", "converged", "won", "exploding", "no number", "collapsed", "stale"):
        watch = ConvergenceDetector(min_iterations=150, check_frequency=25, patience=250)
        statuses, rates = list[str](), list[tuple[float, float]]()
        for i, numbers in enumerate(losses_of(kind), 1):
            statuses.append(watch.update(i, *numbers))
            if i % 100 == 0 and kind == "collapsed":
                statuses[-1] = watch.check_samples(pictures * (0.01 if 300 <= i < 600 else 1), pictures[::-1])
            if i % 100 == 0 and kind == "stale":
                watch.check_quality(i, 5.0 - min(i, 300) / 100)
            rates.append(watch.learning_rates())
        found[kind] = {"status": statuses, "rates": rates, "stop": watch.stop, "memory": detector_state(watch)}
    return found


def run_files(folder: Path) -> dict[str, Any]:
    "Tables, samples and weights of a run of dcgan_train."
    found: dict[str, Any] = {}
    for path in sorted(folder.rglob("*.csv")):
        table = pd.read_csv(path, float_precision="round_trip").drop(columns=CLOCKED, errors="ignore")
        found[str(path.relative_to(folder))] = table
    found |= {str(path.relative_to(folder)): np.load(path) for path in sorted(folder.glob("samples/*.npy"))}
    for path in sorted(folder.glob("checkpoints/*.tar")):
        content = torch.load(path, weights_only=True)
        found[path.name] = {part: content[part] for part in ("generator", "generator_raw", "discriminator")}
    return found


@case("train_dcgan")
def adversaries() -> dict[str, Any]:
    write_engines("recordings", 3, seconds=1.5)
    pictures = prepare_folder(Path("recordings"), Path("dataset"), SpectrogramFormat(64))
    recipe = {"ema": 0.9, "augmentation": True, "spectral_norm": True, "upsample": "nearest"}
    names = {"base_path": "dataset", "output_dir": "out", "epochs": 2}
    config = load_config("config_test", **names, **TINY, **recipe, discriminator_noise=0.1)
    summary = train_dcgan(config, quality=lambda pictures: {"quality": np.float64(pictures.mean())})
    return {"pictures": pictures, "summary": summary, **run_files(Path("out"))}


# ---------------------------------------------------------------- fashion images


@cache
def clothes() -> Protocol:
    "A small task of the bundled images."
    task = make_protocol("original", load_subset("train"), load_subset("test"))
    short = {"train": task.train[:60], "validation": task.validation[:20]}
    return task._replace(**short, test=task.test[::3], truth=task.truth[::3], classes=task.classes[::3])


OPTIONS: dict[str, dict[str, Any]] = {"MultiMemoryAutoencoder": {"mem_size": 20, "dim": 8}}


def image_detector(model: str, loss: Any = "mse", **settings: Any) -> dict[str, Any]:
    settings = {"score": "pixel", "epochs": 2, "batch_size": 16, "options": OPTIONS.get(model)} | settings
    detector = ImageDetector(model, loss, **settings).fit(clothes().train, progress=False)
    test = clothes().test[::4]
    return judged(detector, clothes().train, test) | {"maps": detector.anomaly_map(test[:5])}


for model in sorted(MODELS):
    case(f"ImageDetector, {model}")(lambda model=model: image_detector(model))


@case("ImageDetector, chosen score")
def chosen_score() -> dict[str, Any]:
    weights = {"mse": 1.0, "ssim": 0.5, "gradient": 0.1}
    return image_detector("Autoencoder", weights, score="choose", factor=2, fine_tune=1, seed=4)


@case("ImageDetector, memories with options")
def memories() -> dict[str, Any]:
    more = {"adaptive_center": True, "frequency_attention": True, "center_attention": True, "texture_slots": 8}
    return image_detector("MultiMemoryAutoencoder", options=OPTIONS["MultiMemoryAutoencoder"] | more)


@case("image baselines")
def image_baselines() -> dict[str, Any]:
    scores = {name: dict(enumerate(baseline_scores(clothes(), each))) for name, each in BASELINES.items()}
    return {"table": baseline_table(clothes()), "scores": scores}


@case("run_grid")
def grid() -> dict[str, Any]:
    losses = {"MSE": {"mse": 1.0}, "MSE+Gradient": {"mse": 1.0, "gradient": 0.1}}
    table = run_grid({name: {"epochs": 2} for name in ("Autoencoder", "VAE")}, losses, clothes(), "cells")
    return {"table": table.drop(columns=["seconds", "memory"])}


# ---------------------------------------------------------------- machine sounds


@cache
def machines() -> Path:
    "A folder of two types of machines."
    root = Path(shared().name) / "machines"
    synthesize_machines(root, ["fan", "slider"], 2, 6, 4, 4, seconds=2.05)
    return root


@case("synthesize_machines")
def synthesized() -> dict[str, Any]:
    rows = synthesize_machines("all", machines=1, train=1, normal=1, anomaly=2, seconds=1.0, seed=2)
    sounds = {name: read_audio(Path("all") / name) for name in rows["file"]}
    masks = {path.stem: dict(np.load(path)) for path in sorted(Path("all/fan").rglob("*.npz"))}
    manifest = pd.read_csv("all/manifest.csv", float_precision="round_trip")
    return {"rows": rows, "manifest": manifest, "sounds": sounds, "masks": masks}


@cache
def rebuilder() -> str:
    "A network after one pass over the fans."
    folder = Path(shared().name) / "networks"
    return str(train_vqvae(machines(), "fan", folder, epochs=1, batch_size=4, accelerator="cpu", progress=False))


def network_file(path: Path | str) -> dict[str, Any]:
    content = torch.load(path, weights_only=True)
    return {"weights": content["model_state_dict"], "mean": content["mean"], "std": content["std"]}


@case("train_vqvae")
def codes() -> dict[str, Any]:
    table = pd.read_csv(Path(rebuilder()).with_name("training") / "metrics.csv", float_precision="round_trip")
    return {"network": network_file(rebuilder()), "losses": table}


def sound_detector(**settings: Any) -> dict[str, Any]:
    folder = DCASEFolder(machines(), ["fan"])
    train, test = ([clip.path for clip in folder.select("fan", split)] for split in ("train", "test"))
    detector = SoundDetector(**settings).fit(train)
    found = judged(detector, train, test)
    return found | {"calibrated": judged(detector.calibrate(test[:4]), train, test)}


for method in ("mean", "pca", "gmm", "knn", "vqvae"):
    case(f"SoundDetector, {method}")(
        lambda method=method: sound_detector(method=method, checkpoint=rebuilder() if method == "vqvae" else "")
    )


@case("SpectrogramStudy")
def study() -> dict[str, Any]:
    report = SpectrogramStudy(machines()).run("out")
    found: dict[str, Any] = {"table": report.table(), "summaries": report.summaries(), "notes": report.notes}
    found |= {over: report.profiles(over) for over in ("bands", "frames")}
    found |= {path.stem: dict(np.load(path)) for path in sorted(Path("out/maps").glob("*.npz"))}
    prior = MaskPrior.from_study(report, "fan")
    prior.save("fan.json")
    found["prior"] = {"file": json.loads(Path("fan.json").read_text()), "found": prior.found()}
    shape = (prior.n_mels, prior.frames)
    for strategy in (AudioSpecificStrategy(prior), PerlinStrategy()):
        found[type(strategy).__name__] = strategy.generate_signed(4, shape, seed=1)
    return found


@case("evaluate_detector")
def official() -> dict[str, Any]:
    return {"table": evaluate_detector(DCASEFolder(machines()), lambda _: SoundDetector("knn"))}


# ---------------------------------------------------------------- commands


def typed(line: str) -> str:
    "A command as a user types it; what it prints."
    name, *words = line.split()
    environment = os.environ | {"PYTHONPATH": str(HERE.parent), "OMP_NUM_THREADS": "1", "IN_TEST": "1"}
    script = Path(sys.executable).with_name(name)
    done = subprocess.run([script, *words], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, f"{line}\n{done.stderr}"
    return done.stdout


def read(path: str, *without: str) -> pd.DataFrame:
    return pd.read_csv(path, float_precision="round_trip").drop(columns=list(without))


@case("commands, time series")
def series_commands() -> dict[str, Any]:
    for part, series in zip(("train", "test"), server(), strict=True):
        folder = Path("datasets/mine") / part
        folder.mkdir(parents=True)
        labels = (series.to_numpy() > np.quantile(series, 0.99)).astype(int)
        series.to_frame("value").assign(label=labels).to_csv(folder / "a.csv", index_label="timestamp")
    typed("srcnn_generate_data --dataset mine --step 32")
    typed("srcnn_train --dataset mine --epoch 2 --batch_size 64 --num_workers 0 --device cpu --lr 1e-3")
    weights = torch.load("snapshot/srcnn_retry2_32.bin", weights_only=True)
    shown = typed("srcnn_evaluate --dataset mine --checkpoint snapshot/srcnn_retry2_32.bin")
    typed("srcnn_detect datasets/mine/test/a.csv --out one.csv --side upper")
    typed("srcnn_detect datasets/mine/test/a.csv --out other.csv --checkpoint snapshot/srcnn_retry2_32.bin")
    windows = np.array(json.loads(Path("datasets/mine/train.json").read_text()))
    return {"windows": windows, "weights": weights, "shown": shown, "one": read("one.csv"), "other": read("other.csv")}


@case("commands, spectra")
def spectra_commands() -> dict[str, Any]:
    write_table(galaxies()[1], "night/odd.npz")
    typed("spectra_train --simulate 64 --epochs 4 --components 4 --out model")
    typed("spectra_detect night --model model --out found --figures 0")
    tables = {path.name: read(str(path)) for path in sorted(Path("found").glob("*.csv"))}
    return {"model": saved_state(Path("model")), **tables}


@case("commands, engine sounds")
def engine_commands() -> dict[str, Any]:
    write_engines("recordings", 2, seconds=1.5)
    typed("dcgan_prepare recordings --out dataset --image-size 64")
    typed(
        "dcgan_train --config config_test --epochs 1 --batch-size 8 --image-size 64 --features-g 4 --features-d 4"
        " --device cpu --dataset dataset --output-dir out"
    )
    typed("dcgan_generate out/checkpoints/final_model.tar --out made --number 2 --iterations 4")
    typed("dcgan_npy_to_images made/samples.npy --output images --mode both")
    from PIL import Image

    found: dict[str, Any] = {}
    for path in sorted(Path("dataset").rglob("*.csv")):
        found[str(path)] = read(str(path))
    for path in sorted([*Path("dataset").rglob("*.png"), *Path("images").rglob("*.png")]):
        found[str(path)] = np.array(Image.open(path))
    found |= {path.name: read_audio(path) for path in sorted(Path("made").glob("*.wav"))}
    return found | {"made": np.load("made/samples.npy")} | run_files(Path("out"))


@case("commands, fashion images")
def image_commands() -> dict[str, Any]:
    typed("fmnist_train --model Autoencoder --epochs 1 --batch_size 64 --score pixel --save model --subset")
    shown = typed("fmnist_evaluate model --subset")
    rows = "[losses]\nMSE = { mse = 1 }\n[models]\nAutoencoder = { epochs = 1 }\n"
    Path("grid.toml").write_text(rows)
    typed("fmnist_grid --grid grid.toml --folder cells --subset")
    figures = read("cells/table.csv", "seconds", "memory")
    figures = {"grid": figures, "judged": read("model/evaluation.csv")}
    return {"model": saved_state(Path("model")), "shown": shown, **figures}


@case("commands, machine sounds")
def machine_commands() -> dict[str, Any]:
    typed("dcase_synthesize data --types fan --machines 1 --train 6 --normal 3 --anomaly 3 --seconds 2.05")
    typed("dcase_check data --out problems.csv")
    typed("dcase_train_vqvae data fan --epochs 1 --batch_size 4 --device cpu --checkpoints networks")
    typed("dcase_study data --out study --checkpoints networks")
    found: dict[str, Any] = {"manifest": read("data/manifest.csv"), "problems": read("problems.csv")}
    found["network"] = network_file("networks/stage1/fan/stage1_fan_best.pt")
    for path in sorted([*Path("study").rglob("*.csv"), *Path("study").rglob("*.npz"), *Path("study").rglob("*.json")]):
        reader = {".csv": read, ".npz": lambda path: dict(np.load(path))}.get(path.suffix)
        found[str(path)] = reader(str(path)) if reader else json.loads(path.read_text())
    return found


# ---------------------------------------------------------------- detectors that were saved once


def small_sounds() -> list[Path]:
    return [clip.path for clip in DCASEFolder(machines(), ["fan"]).select("fan", "test")]


def rounded() -> SpectrumDetector:
    "A detector whose arrays pack well."
    detector = SpectrumDetector(components=1, epochs=4).fit(galaxies()[0])
    model = detector.model_
    with torch.no_grad():
        for weights in model.network.parameters():
            weights.copy_(torch.round(weights * 256) / 256)
    detector.model_ = replace(model, features=np.round(model.features * 256) / 256)
    return detector


ONCE: dict[type[Detector], tuple[Callable[[], Detector], Callable[[], Any]]] = {  # how it was made, what it judges now
    SpectralResidual: (lambda: SpectralResidual(period=288).fit(server()[0][:1500]), lambda: server()[1]),
    SRCNN: (lambda: SRCNN(window=64, steps=2).fit(server()[0][:1500]), lambda: server()[1]),
    SpectrumPCA: (lambda: SpectrumPCA(components=2).fit(galaxies()[0]), lambda: galaxies()[1]),
    SpectrumDetector: (rounded, lambda: galaxies()[1]),
    SpectrogramDetector: (
        lambda: SpectrogramDetector("discriminator", untrained(), "neighbours").fit(engines()[0]),
        lambda: engines()[1],
    ),
    ImageDetector: (
        lambda: ImageDetector("TransformerAnomalyDetector", score="pixel", epochs=1).fit(
            clothes().train, progress=False
        ),
        lambda: clothes().test,
    ),
    SoundDetector: (lambda: SoundDetector("gmm", components=2).fit(small_sounds()[:4]), small_sounds),
}


def loaded(kind: type[Detector]) -> dict[str, Any]:
    "What a detector that was saved once says today."
    shutil.unpack_archive(SAVED / f"{kind.__name__}.zip", "saved")
    detector, given = kind.load("saved"), ONCE[kind][1]()
    found = {"score": detector.decision_function(given), "label": detector.predict(given)}
    return found | {"threshold": detector.threshold_, "detect": detector.detect(given)}


for kind in ONCE:
    case(f"saved, {kind.__name__}")(lambda kind=kind: loaded(kind))


def save_missing() -> None:
    "Save a detector of each class that has none yet."
    torch.set_num_threads(1)
    for kind, (make, _) in ONCE.items():
        if not (SAVED / f"{kind.__name__}.zip").exists():
            with TemporaryDirectory() as folder:
                make().save(folder)
                shutil.make_archive(str(SAVED / kind.__name__), "zip", folder)


# ---------------------------------------------------------------- comparing and freezing


@cache
def frozen() -> dict[str, Any]:
    return dict(json.loads(RESULTS.read_text(encoding="utf-8")))


@pytest.mark.parametrize("name", [pytest.param(n, marks=pytest.mark.slow) if n in LONG else n for n in CASES])
def test_as_it_was(name: str) -> None:
    same_machine = frozen()["machine"] == machine()
    found = differences(record(name), frozen()["cases"][name], same_machine, name in LOOSE, name in GROWING)
    assert not found, "\n".join([f"{len(found)} of {name} differ", *found[:20]])


def test_every_case_is_kept() -> None:
    assert set(frozen()["cases"]) == set(CASES) and LOOSE.keys() | LONG | GROWING <= CASES.keys()


def test_a_change_is_seen() -> None:
    before = {"a": kept(np.linspace(0, 1, 50)), "b": kept("text")}
    for now, same_machine, loose, seen in (
        (np.linspace(0, 1, 50), True, False, False),
        (np.linspace(0, 1, 50) * (1 + 1e-14), True, False, True),
        (np.linspace(0, 1, 50) * (1 + 1e-14), True, True, False),
        (np.linspace(0, 1, 50) * (1 + 1e-7), True, True, True),
        (np.linspace(0, 1, 50) * (1 + 1e-7), False, False, False),
        (np.linspace(0, 1, 50) * (1 + 1e-3), False, False, True),
        (np.linspace(0, 1, 50)[:, None], True, False, True),
    ):
        assert bool(differences({"a": kept(now), "b": before["b"]}, before, same_machine, loose)) == seen
    assert differences({"a": before["a"], "b": kept("other")}, before, False, False)
    far = {"a": kept(np.linspace(0, 2, 50)), "b": before["b"]}
    assert differences(far, before, True, False, growing=True)
    assert not differences(far, before, False, False, growing=True)
    assert differences({"a": kept(np.linspace(0, 1, 49)), "b": before["b"]}, before, False, False, growing=True)
    assert differences({"a": before["a"]}, before, False, False) and differences(before, {"a": before["a"]}, True, True)


def freeze(names: list[str]) -> None:
    "Run cases and keep what they give."
    if unknown := set(names) - set(CASES):
        raise SystemExit(f"No case {', '.join(unknown)}. There are: {'; '.join(CASES)}")
    content = frozen() if names else {"machine": machine(), "cases": {}}
    if content["machine"] != machine():
        raise SystemExit("The results were made on another machine. Freeze all cases together.")
    save_missing()
    content["cases"] |= {name: record(name) for name in names or CASES}
    rows = [
        f"{json.dumps(name)}: {{\n"
        + ",\n".join(f"{json.dumps(key)}: {json.dumps(value)}" for key, value in content["cases"][name].items())
        + "\n}"
        for name in CASES
        if name in content["cases"]
    ]
    text = f'{{"machine": {json.dumps(content["machine"])},\n"cases": {{\n' + ",\n".join(rows) + "\n}}\n"
    RESULTS.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    if sys.argv[1:2] != ["--freeze"]:
        raise SystemExit("Usage: python tests/test_frozen.py --freeze [CASE ...]")
    freeze(sys.argv[2:])

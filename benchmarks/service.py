"""What a service pays: a process that loads a saved detector, and scores one item after the other.

Each detector is fitted to little data and saved; the figures come from processes of their own with one thread, and are
medians over several. `python benchmarks/service.py` prints the table and keeps it in benchmarks/results/service.csv.
"""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from fastcore.script import call_parse

HERE = Path(__file__).parent


def series(folder: Path) -> tuple[Any, Any]:
    "A detector of points in curves, and a day of five-minute values."
    from anomaly_nb.srcnn import SpectralResidual, load_kpi

    first, second = load_kpi()[0].halves()
    return SpectralResidual().fit(first.series), second.series.iloc[:288].to_numpy()


def series_network(folder: Path) -> tuple[Any, Any]:
    "The network on top, and the same day."
    from anomaly_nb.srcnn import SRCNN, load_kpi

    first, second = load_kpi()[0].halves()
    return SRCNN(steps=20).fit(first.series.iloc[:3000], progress=False), second.series.iloc[:288].to_numpy()


def spectra(folder: Path) -> tuple[Any, Any]:
    "Principal components, and one galaxy."
    from anomaly_nb.spectra import SpectrumPCA, simulate_spectra

    galaxies = simulate_spectra(120, 0)
    return SpectrumPCA(10).fit(galaxies), galaxies[:1]


def spectra_network(folder: Path) -> tuple[Any, Any]:
    "A network with a linear head, and one galaxy."
    from anomaly_nb.spectra import SpectrumDetector, simulate_spectra

    galaxies = simulate_spectra(120, 0)
    return SpectrumDetector(10, epochs=4).fit(galaxies), galaxies[:1]


def images(folder: Path) -> tuple[Any, Any]:
    "An autoencoder, and one image."
    from anomaly_nb.fmnist import ImageDetector, load_subset, make_protocol

    task = make_protocol("original", load_subset("train"), load_subset("test"))
    return ImageDetector("CAE", epochs=1).fit(task.train[:200], progress=False), task.test[:1]


def machine_sound(folder: Path) -> tuple[Any, Any]:
    "Neighbours among machines, and one clip of two seconds."
    from anomaly_nb.audio import write_audio
    from anomaly_nb.dcase import SoundDetector

    clips = [folder / f"{i}.wav" for i in range(24)]
    for i, path in enumerate(clips):
        write_audio(path, 0.1 * np.random.default_rng(i).standard_normal(32000))
    return SoundDetector().fit(clips), clips[:1]


def engine_sound(folder: Path) -> tuple[Any, Any]:
    "Pictures of engines, and one recording of two seconds."
    from anomaly_nb.dcgan import SpectrogramDetector, synthesize_engine

    sounds = [synthesize_engine(900 + 200 * i, seconds=2.0, seed=i) for i in range(6)]
    return SpectrogramDetector("picture").fit(sounds), sounds[:1]


DETECTORS: dict[str, Callable[[Path], tuple[Any, Any]]] = {
    function.__name__: function
    for function in (series, series_network, spectra, spectra_network, images, machine_sound, engine_sound)
}
CHILD = """
import json, pickle, sys, time
from importlib import import_module
start = time.process_time()
kind = getattr(import_module(sys.argv[1]), sys.argv[2])
imported = time.process_time() - start
began = time.perf_counter()
detector = kind.load(sys.argv[3])
loaded = time.perf_counter() - began
with open(sys.argv[4], "rb") as file:
    item = pickle.load(file)
seconds = []
for _ in range(12):
    began = time.perf_counter()
    detector.decision_function(item)
    seconds.append(time.perf_counter() - began)
status = open("/proc/self/status").read()
peak = int(status.split("VmHWM:")[1].split()[0]) / 1024
print(json.dumps([imported, loaded, seconds[0], sorted(seconds[2:])[5], peak]))
"""


def measure(
    name: str,  # of `DETECTORS`
    processes: int = 3,  # of which the median is kept
) -> dict[str, Any]:
    "Fit, save, and let other processes load and score."
    with tempfile.TemporaryDirectory() as folder:
        detector, item = DETECTORS[name](Path(folder))
        detector.save(Path(folder) / "detector")
        pd.to_pickle(item, Path(folder) / "item.pickle")  # this program's own file, gone with the folder
        front = ".".join(type(detector).__module__.split(".")[:2])
        command = [sys.executable, "-c", CHILD, front, type(detector).__name__]
        command += [f"{folder}/detector", f"{folder}/item.pickle"]
        threads = dict.fromkeys(["OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"], "1")
        runs = [
            json.loads(subprocess.check_output(command, env=os.environ | threads, text=True)) for _ in range(processes)
        ]
    imported, loaded, first, following, peak = np.median(runs, axis=0)
    return {
        "detector": type(detector).__name__,
        "item": (DETECTORS[name].__doc__ or "").rpartition("and ")[2].rstrip("."),
        "import, CPU s": round(imported, 2),
        "load, ms": round(1e3 * loaded),
        "first item, ms": round(1e3 * first, 1),
        "next item, ms": round(1e3 * following, 1),
        "memory, MB": round(peak),
    }


@call_parse
def main(
    only: str = "",  # Measure no others than the one with this name
) -> None:
    "Measure what a service pays for each detector"
    table = pd.DataFrame([measure(name) for name in DETECTORS if only in ("", name)])
    print(table.to_string(index=False))
    if not only:
        table.to_csv(HERE / "results/service.csv", index=False)

"""What `map_chunks` costs, how it scales from one worker to two, its memory over 100 GB, and what an item costs."""

import inspect
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import numpy as np
import pandas as pd
from timing import fresh_peak, median_seconds, peak

from anomaly_nb.scale import ArrayFile, map_chunks

HERE = Path(__file__).parent
RESULTS = HERE / "results"
LOOPS = 440_000  # additions of an item: about 10 ms


def busy(numbers: list[int]) -> pd.DataFrame:
    "Items that keep a core busy for about 10 ms each."
    sums = []
    for number in numbers:
        total = number
        for i in range(LOOPS):
            total += i
        sums.append(total)
    return pd.DataFrame({"number": numbers, "sum": sums})


def row_sums(rows: np.ndarray) -> np.ndarray:
    return rows.sum(axis=1)


DEFAULT = int(inspect.signature(map_chunks).parameters["chunk_size"].default)


def overhead(chunk_size: int, items: int = 200) -> float:
    "Wall time of `map_chunks` over that of a plain loop over the same chunks."

    def plain() -> None:
        for first in range(0, items, chunk_size):
            busy(list(range(first, first + chunk_size)))

    def mapped() -> None:
        with tempfile.TemporaryDirectory() as folder:
            map_chunks(busy, range(items), folder, chunk_size=chunk_size, progress=False)

    seconds = median_seconds({"plain": plain, "mapped": mapped})
    return seconds["mapped"] / seconds["plain"]


@contextmanager
def cluster(workers: int) -> Iterator[str]:
    "A scheduler and workers with one thread each, as processes of their own."
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"tcp://127.0.0.1:{probe.getsockname()[1]}"
    path = os.pathsep.join([str(HERE), str(HERE.parent), os.environ.get("PYTHONPATH", "")])
    options = {"env": os.environ | {"PYTHONPATH": path}, "stderr": subprocess.DEVNULL, "start_new_session": True}
    python = [sys.executable, "-m"]
    port = address.rsplit(":", 1)[1]
    commands = [[*python, "distributed.cli.dask_scheduler", "--host", "127.0.0.1", "--port", port, "--no-dashboard"]]
    commands += [
        [*python, "distributed.cli.dask_worker", address, "--nthreads", "1", "--no-dashboard"] for _ in range(workers)
    ]
    processes = [subprocess.Popen(command, **options) for command in commands]  # type: ignore[call-overload]
    try:
        from distributed import Client

        with Client(address, timeout=60) as client:
            client.wait_for_workers(workers, timeout=60)
        yield address
    finally:
        for process in processes:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def seconds(items: int = 3000, **engine: object) -> float:
    "Wall time of a run whose workers are warm."
    import scale_speed  # by this name the workers find the function too

    with tempfile.TemporaryDirectory() as folder:
        map_chunks(scale_speed.busy, range(40), folder + "/warm", chunk_size=10, progress=False, **engine)  # type: ignore[arg-type]
        start = time.perf_counter()
        map_chunks(scale_speed.busy, range(items), folder + "/run", chunk_size=100, progress=False, **engine)  # type: ignore[arg-type]
        return time.perf_counter() - start


def scaling(rounds: int = 5) -> dict[str, float]:
    "Two workers against one, in turns, each cluster alone on the machine."
    here, cores, one, two = [], [], [], []
    for _ in range(rounds):
        here.append(seconds())
        cores.append(seconds(workers=2))
        with cluster(1) as single:
            one.append(seconds(scheduler=single))
        with cluster(2) as double:
            two.append(seconds(scheduler=double))
    return {
        "two processes over one": float(np.median(np.divide(here, cores))),
        "two Dask workers over one": float(np.median(np.divide(one, two))),
        "one Dask worker over a plain process": float(np.median(np.divide(here, one))),
    }


def zeros(path: Path, rows: int, width: int = 1_000_000) -> ArrayFile:
    "A file of zeros that takes no room on the disk."
    with path.open("wb") as file:
        header = {"descr": "<f8", "fortran_order": False, "shape": (rows, width)}
        np.lib.format.write_array_header_1_0(file, header)
        file.truncate(file.tell() + 8 * rows * width)
    return ArrayFile(path)


def memory_of_100_gigabytes() -> float:
    "Megabytes that a run over 100 GB takes more than one over a gigabyte, in a process of its own."
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        map_chunks(row_sums, zeros(folder / "small.npy", 125), folder / "first", chunk_size=25, progress=False)
        before = peak()
        map_chunks(row_sums, zeros(folder / "big.npy", 12_500), folder / "all", chunk_size=25, progress=False)
        return peak() - before


Work = dict[tuple[str, str], tuple[Callable[[], object], int, int]]  # by item and name: a call, its items, bytes of one


def curve_work() -> Work:
    from anomaly_nb.srcnn import SpectralResidual

    noise, minutes = np.random.default_rng(0).normal(size=1440) / 5, pd.date_range("2026", periods=1440, freq="min")
    day = pd.Series(np.sin(np.arange(1440) / 230) + noise, minutes)
    detector, stream = SpectralResidual().fit(day), SpectralResidual().fit(day).stream(day)
    return {
        ("a new point of a known curve", "SpectralResidual.stream"): (lambda: stream.update(0.5), 1, 8),
        ("a curve of 1,440 points, learned and scored", "SpectralResidual"): (
            lambda: SpectralResidual().fit(day).detect(day),
            1,
            1440 * 8,
        ),
        ("a curve of 1,440 points, scored", "SpectralResidual"): (lambda: detector.decision_function(day), 1, 1440 * 8),
    }


def spectrum_work() -> Work:
    from anomaly_nb.spectra import SpectrumDetector, simulate_spectra

    spectra = simulate_spectra(300, 0)
    detector = SpectrumDetector(epochs=1).fit(spectra, progress=False)
    size = int(spectra.flux.shape[1]) * 12
    return {("a spectrum", "SpectrumDetector"): (lambda: detector.decision_function(spectra), 300, size)}


def image_work() -> Work:
    from anomaly_nb.fmnist import ImageDetector, load_subset

    images = np.concatenate([load_subset("train")[0]] * 2)[:1024]
    detector = ImageDetector("CAE", score="ssim", epochs=1).fit(images, progress=False)
    return {
        ("an image of 28 by 28 pixels", "ImageDetector"): (lambda: detector.decision_function(images), len(images), 784)
    }


def sound_work(folder: Path) -> Work:
    from anomaly_nb.audio import log_mel, write_audio
    from anomaly_nb.dcase import SoundDetector, render_clip
    from anomaly_nb.dcgan import SpectrogramDetector

    clips = np.stack([render_clip("fan", 0, number=i, seconds=10).audio for i in range(16)])
    files = [folder / f"{number}.wav" for number in range(len(clips))]
    for file, clip in zip(files, clips, strict=True):
        write_audio(file, clip, 16000)
    machines, engines = SoundDetector("knn").fit(files), SpectrogramDetector("picture").fit(files)
    return {
        ("ten seconds of sound, log-mel only", "log_mel"): (lambda: log_mel(clips), 16, 320_000),
        ("ten seconds of sound, scored", "SoundDetector"): (lambda: machines.decision_function(files), 16, 320_000),
        ("ten seconds of engine, scored", "SpectrogramDetector"): (
            lambda: engines.decision_function(files),
            16,
            320_000,
        ),
    }


def command_work(folder: Path) -> Work:
    "Whole commands on a folder of files: reading, scoring and writing."
    from anomaly_nb.datasets import sample_path
    from anomaly_nb.spectra import SpectrumDetector, simulate_spectra, write_table
    from anomaly_nb.spectra.commands import spectra_detect
    from anomaly_nb.srcnn.commands import srcnn_detect

    minutes = pd.Series(np.sin(np.arange(1440) / 230), pd.date_range("2026", periods=1440, freq="min"), name="value")
    for number in range(100):
        noise = np.random.default_rng(number).normal(size=1440) / 5
        target = folder / f"curves/{number:03d}.csv"
        target.parent.mkdir(exist_ok=True)
        (minutes + noise).round(4).rename_axis("timestamp").to_csv(target)
    for number in range(8):
        write_table(simulate_spectra(300, number), folder / f"tables/{number}.npz")
    with zipfile.ZipFile(sample_path("spectra/sdss_objects.zip")) as archive:
        (folder / "objects").mkdir()
        names = archive.namelist()
        for number in range(200):
            (folder / f"objects/{number:03d}.fits").write_bytes(archive.read(names[number % len(names)]))
    SpectrumDetector(epochs=1).fit(simulate_spectra(300, 0), progress=False).save(folder / "model")

    def judge(place: str) -> Callable[[], object]:
        def call() -> None:
            shutil.rmtree(folder / "found", ignore_errors=True)
            if place == "curves":
                srcnn_detect(str(folder / place), str(folder / "found"))
            else:
                spectra_detect(folder / place, model=folder / "model", out=folder / "found", figures=0)

        return call

    def size(place: str) -> int:
        return sum(path.stat().st_size for path in (folder / place).iterdir())

    return {
        ("a CSV file of 1,440 points", "srcnn_detect"): (judge("curves"), 100, size("curves") // 100),
        ("a spectrum in a table of 300", "spectra_detect"): (judge("tables"), 2400, size("tables") // 2400),
        ("a FITS file of one spectrum", "spectra_detect"): (judge("objects"), 200, size("objects") // 200),
    }


def costs() -> pd.DataFrame:
    "Processor time, memory and bytes of one item of each system on one core: in memory, from files, by whole commands."
    import torch

    torch.set_num_threads(1)
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for (item, what), (function, count, size) in (
            curve_work() | spectrum_work() | image_work() | sound_work(Path(folder)) | command_work(Path(folder))
        ).items():
            function()
            before = fresh_peak()
            function()
            memory, best = peak() - before, float("inf")
            for _ in range(5):
                start = time.process_time()
                function()
                best = min(best, time.process_time() - start)
            row = {"item": item, "by": what, "ms of one core": best / count * 1e3, "items at a time": count}
            rows.append(row | {"MB while they are scored": memory, "bytes read": size})
    return pd.DataFrame(rows)


def main() -> None:
    "All figures, or the parts that are named: costs, overhead, scaling, memory."
    parts, figures = sys.argv[1:] or ["costs", "overhead", "scaling", "memory"], dict[str, float]()
    if "costs" in parts:
        table = costs()
        print(table.round(3).to_string(index=False))
        table.to_csv(RESULTS / "scale_costs.csv", index=False, float_format="%.4g")
    if "overhead" in parts:
        for size in (1, DEFAULT):
            note = ", the default" if size == DEFAULT else ""
            figures[f"map_chunks over a plain loop, 10 ms items, chunks of {size}{note}"] = overhead(size)
    if "scaling" in parts:
        figures |= scaling()
    if "memory" in parts:
        code = "import scale_speed; print(scale_speed.memory_of_100_gigabytes())"
        shown = subprocess.check_output([sys.executable, "-c", code], cwd=HERE, text=True)
        figures["MB more for 100 GB than for one gigabyte"] = float(shown)
    table = pd.Series(figures, name="figure").rename_axis("what")
    known = RESULTS / "scale_speed.csv"
    if known.exists():
        table = table.combine_first(pd.read_csv(known, index_col=0)["figure"])
    print(table.round(3).to_string())
    table.to_csv(known, float_format="%.4g")


if __name__ == "__main__":
    sys.path.insert(0, str(HERE))
    main()

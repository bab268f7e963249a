"""Damaged files for every reader of the library: each is read, or refused with a `DataError`, and nothing else."""

import argparse
import io
import json
import os
import resource
import signal
import tempfile
import time
import warnings
import wave
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from typing import Any, NamedTuple

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import pandas as pd

from anomaly_nb.artefacts import load_state, save_state, signed_text
from anomaly_nb.core import DataError
from anomaly_nb.datasets import sample_path

RESULTS = Path(__file__).parent / "results/fuzz.csv"
MEMORY = 12_000_000_000  # bytes of address space; what asks for more is refused by the system, not by luck
PATIENCE = 60  # seconds for one input
EXTREMES = [b"\x00", b"\xff", b"\x7f\xff\xff\xff", b"\x80\x00\x00\x00", b"nan", b"-1", b"9" * 12, b"1e999", b"\n", b'"']


def damage(data: bytes, random: np.random.Generator) -> bytes:
    "A few random changes, half of them within the first kilobytes, where headers are."
    changed = bytearray(data)
    for _ in range(random.integers(1, 5)):
        size = len(changed)
        if not size:
            break
        reach = min(size, 4096) if random.random() < 0.5 else size
        place, kind = int(random.integers(reach)), random.integers(6)
        length = int(min(2 ** random.integers(0, 12), size - place))
        if kind == 0:
            changed[place] ^= 1 << int(random.integers(8))
        elif kind == 1:
            changed[place : place + length] = random.bytes(length)
        elif kind == 2:
            del changed[place : place + length]
        elif kind == 3:
            changed[place:place] = changed[place : place + length]
        elif kind == 4:
            extreme = EXTREMES[int(random.integers(len(EXTREMES)))]
            changed[place : place + len(extreme)] = extreme
        else:
            del changed[place:]
    return bytes(changed)


class Reader(NamedTuple):
    "How a valid file is made, and how it is read."

    make: Callable[[Path], Path]  # gets an empty folder, gives the file that will be damaged
    read: Callable[[Path], Any]  # gets that file


def written(name: str, content: bytes | str) -> Callable[[Path], Path]:
    "Make a file of fixed content."

    def make(folder: Path) -> Path:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())
        return folder / name

    return make


# --- files as users have them


def curve() -> str:
    rows = [f"2026-01-01 00:{minute:02d}:00,{minute * 1.5},0" for minute in range(40)]
    return "\n".join(["timestamp,value,label", *rows])


def sdss() -> bytes:
    with zipfile.ZipFile(sample_path("spectra/sdss_objects.zip")) as archive:
        return archive.read(archive.namelist()[0])


def desi() -> bytes:
    from astropy.io import fits

    count, hdus = 3, [fits.PrimaryHDU()]
    columns = [fits.Column("TARGETID", "K", array=np.arange(count) + 39627000000000000)]
    columns += [fits.Column(f"TARGET_{axis}", "D", array=np.linspace(1, 9, count)) for axis in ("RA", "DEC")]
    hdus.append(fits.BinTableHDU.from_columns(columns, name="FIBERMAP"))
    for arm, low, high in (("B", 3600, 3640), ("R", 3632, 3680)):
        wavelength = np.arange(low, high, 0.8)
        shape = (count, len(wavelength))
        hdus.append(fits.ImageHDU(wavelength, name=f"{arm}_WAVELENGTH"))
        hdus.append(fits.ImageHDU(np.ones(shape, np.float32), name=f"{arm}_FLUX"))
        hdus.append(fits.ImageHDU(np.ones(shape, np.float32), name=f"{arm}_IVAR"))
        hdus.append(fits.ImageHDU(np.zeros(shape, np.int32), name=f"{arm}_MASK"))
    buffer = io.BytesIO()
    fits.HDUList(hdus).writeto(buffer)
    return buffer.getvalue()


def table_npz() -> bytes:
    buffer, flux = io.BytesIO(), np.random.default_rng(0).normal(1, 0.1, (2, 60))
    np.savez(buffer, flux=flux, ivar=np.ones((2, 60)), wavelength=np.linspace(4000, 4100, 60), z=np.array([0.1, 0.2]))
    return buffer.getvalue()


def table_csv() -> str:
    return "\n".join(["wavelength,flux,ivar", *(f"{4000 + i},{1 + 0.01 * i},{2.0}" for i in range(60))])


def sound(format: str = "WAV") -> bytes:
    buffer, samples = io.BytesIO(), (np.sin(np.arange(1600) / 9) * 9000).astype(np.int16)
    if format == "WAV":
        with wave.open(buffer, "wb") as file:
            file.setparams((1, 2, 16000, 0, "NONE", ""))
            file.writeframes(samples.tobytes())
        return buffer.getvalue()
    import soundfile

    soundfile.write(buffer, samples, 16000, format=format)
    return buffer.getvalue()


def array(values: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, values)
    return buffer.getvalue()


def picture(format: str) -> bytes:
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (16, 16), np.uint8)).save(buffer, format)
    return buffer.getvalue()


def idx() -> bytes:
    return b"\x00\x00\x08\x03" + np.array([2, 28, 28], ">i4").tobytes() + bytes(2 * 28 * 28)


def gzipped_idx() -> bytes:
    import gzip

    return gzip.compress(idx(), mtime=0)


def read_published(path: Path) -> None:
    from hashlib import md5
    from unittest.mock import patch

    from anomaly_nb.fmnist import data

    with patch.dict(data.MD5, {"sample-idx3-ubyte": md5(idx()).hexdigest()}):  # as if these two images were published
        data.read_idx(path)


def machine_folder(folder: Path) -> Path:
    for number in range(3):
        for place in ("train", "test"):
            written(f"fan/{place}/normal_id_00_{number:08d}.wav", sound())(folder)
    written("fan/test/anomaly_id_00_00000000.wav", sound())(folder)
    return folder / "fan/train/normal_id_00_00000001.wav"


def read_machines(path: Path) -> None:
    from anomaly_nb.dcase.data import DCASEFolder, read_clips

    folder = DCASEFolder(path.parents[2])
    clips = folder.select("fan", "train")
    read_clips([clip.path for clip in clips], min(folder.samples("fan"), 1600))
    folder.check()


def engines_table(folder: Path) -> Path:
    from dataclasses import asdict

    from anomaly_nb.dcgan.spectrograms import METADATA, SpectrogramFormat

    for number in range(3):
        written(f"spectrograms/{number}.png", picture("PNG"))(folder)
    names = {"spectrogram_file": ["0.png", "1.png", "2.png"], "source": "a.wav", "start_seconds": 0.0}
    pd.DataFrame(names | asdict(SpectrogramFormat(16, n_fft=64, hop=16))).to_csv(folder / METADATA, index=False)
    return folder / METADATA


def read_engines(path: Path) -> None:
    from anomaly_nb.dcgan.spectrograms import SpectrogramDataset

    SpectrogramDataset(path.parent, 16)


def read_samples(path: Path) -> None:
    from anomaly_nb.dcgan.samples import npy_to_images

    npy_to_images(path, path.parent / "images", "grid", "bmp", overwrite=True)


def draw_samples(path: Path) -> None:
    import matplotlib.pyplot as plt

    from anomaly_nb.dcgan.analytics import plot_samples

    try:
        plot_samples([path])
    finally:
        plt.close("all")


def run_table(name: str) -> Callable[[Path], Path]:
    "A table of a training's folder, beside the others."

    def make(folder: Path) -> Path:
        epochs = "epoch,avg_generator_loss,avg_discriminator_loss\n1,0.7,0.6\n2,0.8,0.5\n"
        written("epochs_statistics/epoch_statistics.csv", epochs)(folder)
        written("epochs_statistics/checkpoint_metrics.csv", "epoch,quality\n1,0.5\n2,0.4\n")(folder)
        rows = "iteration,generator_loss,discriminator_loss\n1,0.7,0.6\n2,0.8,0.5\n"
        written("single_epochs_statistics/epoch_1/epoch_1_iterations.csv", rows)(folder)
        return folder / name

    return make


def read_run_of(path: Path) -> None:
    from anomaly_nb.dcgan.analytics import read_run

    read_run(next(parent for parent in path.parents if (parent / "single_epochs_statistics").is_dir()))


# --- files as the library leaves them


def prior(folder: Path) -> Path:
    from anomaly_nb.dcase.priors import MaskPrior, Patch

    patches = (Patch(5, 2, 3, 1, 4.0, "id_00", 5, ((0, 3), (1, 2))), Patch(9, 20, 100, -1, -4.0, "id_02"))
    MaskPrior("fan", 128, 100, patches, 30.0).save(folder / "p.json")
    return folder / "p.json"


def draw_prior(path: Path) -> None:
    from anomaly_nb.dcase.priors import MaskPrior

    MaskPrior.load(path)


def state(name: str) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        save_state(folder, {"weights": np.arange(12.0)}, {"detector": "X", "params": {"a": 1}})
        return next(folder.glob(name))

    return make


def job(name: str) -> Callable[[Path], Path]:
    "A file in the folder of `map_chunks`."

    def make(folder: Path) -> Path:
        from anomaly_nb.scale import map_chunks

        map_chunks(np.asarray, [1.0, 2.0, 3.0], folder, chunk_size=2, progress=False)
        return folder / name

    return make


def read_shards(path: Path) -> None:
    from anomaly_nb.scale import Shards

    shards = Shards(path.parent)
    len(shards.failed), len(shards), list(shards)


def weights(folder: Path) -> Path:
    import torch

    from anomaly_nb.training import write_weights

    write_weights(torch.nn.Linear(3, 2), folder / "weights.bin")
    return folder / "weights.bin"


def read_plain_weights(path: Path) -> None:
    import torch

    from anomaly_nb.training import fit_weights, read_weights

    fit_weights(torch.nn.Linear(3, 2), read_weights(path), path)


def published_network(folder: Path) -> Path:
    from anomaly_nb.srcnn.network import SRCNNNetwork
    from anomaly_nb.training import write_weights

    write_weights(SRCNNNetwork(8), folder / "srcnn_retry5_8.bin")
    return folder / "srcnn_retry5_8.bin"


def windows(folder: Path) -> Path:
    rows = [[[float(i + j) for j in range(8)], [0.0] * 8] for i in range(5)]
    return written("train.json", json.dumps(rows))(folder)


def gan_checkpoint(folder: Path) -> Path:
    from anomaly_nb.dcgan.config import load_config
    from anomaly_nb.dcgan.spectrograms import SpectrogramFormat
    from anomaly_nb.dcgan.training import AdversarialModule, write_checkpoint

    config = load_config("config_test", features_g=2, features_d=2, image_size=64, latent_dim=4)
    write_checkpoint(AdversarialModule(config), folder / "model.tar", SpectrogramFormat(64))
    return folder / "model.tar"


def read_networks(path: Path) -> None:
    from anomaly_nb.dcgan.training import load_networks

    load_networks(path)


def read_judge(path: Path) -> None:
    from anomaly_nb.dcgan.detector import load_discriminator

    load_discriminator(path)


def vqvae_checkpoint(folder: Path) -> Path:
    import torch

    from anomaly_nb.dcase.vqvae import VQ_VAE_2Layer

    size = {"num_hiddens": 8, "num_residual_layers": 1, "num_residual_hiddens": 4}
    size |= {"num_embeddings": [4, 8], "embedding_dim": 4}
    network = VQ_VAE_2Layer(**{name: tuple(v) if isinstance(v, list) else v for name, v in size.items()})
    network(torch.zeros(1, 1, 16, 32))  # a first step of training: networks without one are refused
    content = {"model_state_dict": network.state_dict(), "mean": 0.0, "std": 1.0, "target_T": 32, "size": size}
    torch.save(content, folder / "best.pt")
    return folder / "best.pt"


def read_rebuilder(path: Path) -> None:
    from anomaly_nb.dcase.vqvae import Rebuilder

    Rebuilder(path)


def read_configuration(path: Path) -> None:
    from anomaly_nb.dcgan.config import load_config

    load_config(path)


def read_cells(path: Path) -> None:
    from anomaly_nb.fmnist.grid import cells_of, read_grid

    cells_of(*read_grid(path))


def begun_training(name: str) -> Callable[[Path], Path]:
    "A training of one epoch, which the same call finds finished."

    def make(folder: Path) -> Path:
        go_on(folder / name)
        return folder / name

    return make


def go_on(path: Path) -> None:
    import torch

    from anomaly_nb.training import train

    data = torch.utils.data.TensorDataset(torch.ones(2, 1), torch.ones(2, 1))

    def loss(network: Any, batch: Any) -> Any:
        return network(batch[0]).square().mean()

    options = {"epochs": 1, "batch_size": 2, "folder": path.parent, "progress": False, "accelerator": "cpu"}
    train(torch.nn.Linear(1, 1), loss, data, optimizer=torch.optim.Adam, **options)


def judged_spectra(folder: Path) -> Path:
    "The result of a file, as `spectra_detect` keeps it."
    from anomaly_nb.store import Results

    region = {"start": 4000.0, "end": 4020.0, "reason": "deficit", "value": -5.5, "p_value": 0.001}
    record = {"id": "a", "z": 0.1, "score": 3.5, "is_anomaly": True, **region, "regions": [region]}
    Results(folder, {"model": "0a1b"}).put("r", {"records": [record], "skipped": {"b": "no pixel is good"}})
    return folder / "r.json"


def read_judged(path: Path) -> None:
    from anomaly_nb.store import Results

    Results(path.parent).get("r")


def read_fresh_redshifts(path: Path) -> None:
    from anomaly_nb.spectra.jobs import read_redshifts

    read_redshifts.cache_clear()
    read_redshifts(str(path))


def grid_task() -> Any:
    from anomaly_nb.fmnist.data import Protocol

    images, truth = np.zeros((2, 28, 28), np.uint8), np.array([0, 1])
    return Protocol("original", images, images, images, truth, classes=truth)


def claimed(folder: Path) -> Path:
    claim_grid(folder / "manifest.jsonl")
    return folder / "manifest.jsonl"


def claim_grid(path: Path) -> None:
    from anomaly_nb.fmnist.grid import grid_key
    from anomaly_nb.store import Results

    Results(path.parent, grid_key(grid_task(), 0))


def finished_machine(folder: Path) -> Path:
    "What an interrupted study keeps of a machine."
    from anomaly_nb.dcase.study import SpectrogramStudy, study_machines
    from anomaly_nb.store import Results

    machine_folder(folder)
    reader = SpectrogramStudy(folder).reader
    kept = Results(folder / "unfinished", reader.key())
    study_machines(reader, [("fan", "id_00")], kept)
    return next((folder / "unfinished").glob("*.npz"))


def read_finished(path: Path) -> None:
    from anomaly_nb.store import Results

    Results(path.parent).get(path.stem)


# --- saved detectors


def fitted(kind: str) -> Any:
    "A small detector of each kind."
    random = np.random.default_rng(0)
    if kind in ("SpectralResidual", "SRCNN"):
        from anomaly_nb.srcnn import SRCNN, SpectralResidual

        series = np.sin(np.arange(400) / 8) + 0.1 * random.normal(size=400)
        return SpectralResidual().fit(series) if kind == "SpectralResidual" else SRCNN(32, steps=2).fit(series)
    if kind in ("SpectrumPCA", "SpectrumDetector"):
        from anomaly_nb.spectra import SpectrumDetector, SpectrumPCA, simulate_spectra

        detector: Any = SpectrumPCA(4) if kind == "SpectrumPCA" else SpectrumDetector(4, 1)
        return detector.fit(simulate_spectra(60, 0))
    if kind == "ImageDetector":
        from anomaly_nb.fmnist import ImageDetector, load_subset

        return ImageDetector("CAE", epochs=1, score="pixel").fit(load_subset("test")[0][:40])
    folder = Path(tempfile.mkdtemp(prefix="sounds"))
    files = [written(f"{number}.wav", sound())(folder) for number in range(6)]
    if kind == "SoundDetector":
        from anomaly_nb.dcase import SoundDetector

        return SoundDetector().fit(files)
    from anomaly_nb.dcgan import SpectrogramDetector

    noise = [random.normal(size=22050).astype(np.float32) for _ in files]
    return SpectrogramDetector("picture").fit(noise)


DETECTORS = {
    "SpectralResidual": "anomaly_nb.srcnn",
    "SRCNN": "anomaly_nb.srcnn",
    "SpectrumPCA": "anomaly_nb.spectra",
    "SpectrumDetector": "anomaly_nb.spectra",
    "SoundDetector": "anomaly_nb.dcase",
    "SpectrogramDetector": "anomaly_nb.dcgan",
    "ImageDetector": "anomaly_nb.fmnist",
}


def saved(kind: str, name: str) -> Callable[[Path], Path]:
    "A detector on disk."

    def make(folder: Path) -> Path:
        fitted(kind).save(folder)
        return next(folder.glob(name))

    return make


def signed(path: Path) -> None:
    "Give damaged arrays their own digest, so that they get past the first look."
    if path.suffix == ".safetensors":
        content = json.loads((path.parent / "detector.json").read_text())
        content["arrays_sha256"] = sha256(path.read_bytes()).hexdigest()
        content.pop("sha256")
        (path.parent / "detector.json").write_text(signed_text(content))


def load(kind: str) -> Callable[[Path], None]:
    def read(path: Path) -> None:
        from importlib import import_module

        signed(path)
        getattr(import_module(DETECTORS[kind]), kind).load(path.parent)

    return read


# --- the table


def readers() -> dict[str, Reader]:
    "All readers by name, quick ones first."
    from anomaly_nb.audio import audio_info, read_audio
    from anomaly_nb.dcgan.spectrograms import read_picture
    from anomaly_nb.scale import ArrayFile
    from anomaly_nb.spectra.readers import read_desi, read_sdss, read_table
    from anomaly_nb.srcnn.recipes import read_windows
    from anomaly_nb.srcnn.series import read_curve
    from anomaly_nb.srcnn.srcnn import read_network

    def hear(path: Path) -> None:
        audio_info(path), read_audio(path)

    def see(path: Path) -> None:
        read_picture(path, 16)

    table = {
        "array npy": Reader(written("a.npy", array(np.arange(60.0).reshape(20, 3))), lambda p: ArrayFile(p)[0:5]),
        "array npz": Reader(written("a.npz", table_npz()), lambda path: ArrayFile(path, "flux")[0:2]),
        "mask prior": Reader(prior, draw_prior),
        "windows": Reader(windows, lambda path: read_windows(path, 8)),
        "configuration": Reader(written("c.json", sample_path("dcgan/config.json").read_bytes()), read_configuration),
        "grid": Reader(written("grid.toml", sample_path("fmnist/grid.toml").read_bytes()), read_cells),
        "idx": Reader(written("sample-idx3-ubyte", idx()), read_published),
        "idx gz": Reader(written("sample-idx3-ubyte.gz", gzipped_idx()), read_published),
        "job manifest": Reader(job("manifest.jsonl"), read_shards),
        "job shard": Reader(job("00000000.npz"), read_shards),
        "state json": Reader(state("detector.json"), lambda path: load_state(path.parent)),
        "state arrays": Reader(state("state-*.safetensors"), lambda path: (signed(path), load_state(path.parent))),
        "picture png": Reader(written("p.png", picture("PNG")), see),
        "picture jpeg": Reader(written("p.jpg", picture("JPEG")), see),
        "picture tiff": Reader(written("p.tiff", picture("TIFF")), see),
        "picture npy": Reader(written("p.npy", array(np.random.default_rng(0).random((16, 16)))), see),
        "sound wav": Reader(written("s.wav", sound()), hear),
        "sound flac": Reader(written("s.flac", sound("FLAC")), hear),
        "sound ogg": Reader(written("s.ogg", sound("OGG")), hear),
        "sdss": Reader(written("spec.fits", sdss()), lambda path: read_sdss([path])),
        "spectra npz": Reader(written("t.npz", table_npz()), read_table),
        "spectra csv": Reader(written("t.csv", table_csv()), read_table),
        "samples": Reader(written("s.npy", array(np.random.default_rng(0).random((2, 1, 4, 4)))), read_samples),
        "curve": Reader(written("curve.csv", curve()), read_curve),
        "redshifts": Reader(written("z.csv", "id,z\na,0.1\nb,0.25\nc,\n"), read_fresh_redshifts),
        "spectra result": Reader(judged_spectra, read_judged),
        "grid task": Reader(claimed, claim_grid),
        "finished machine": Reader(finished_machine, read_finished),
        "weights": Reader(weights, read_plain_weights),
        "published network": Reader(published_network, read_network),
        "engine table": Reader(engines_table, read_engines),
        "machine folder": Reader(machine_folder, read_machines),
        "run epochs": Reader(run_table("epochs_statistics/epoch_statistics.csv"), read_run_of),
        "run quality": Reader(run_table("epochs_statistics/checkpoint_metrics.csv"), read_run_of),
        "run iterations": Reader(run_table("single_epochs_statistics/epoch_1/epoch_1_iterations.csv"), read_run_of),
        "vqvae checkpoint": Reader(vqvae_checkpoint, read_rebuilder),
        "gan checkpoint": Reader(gan_checkpoint, read_networks),
        "gan discriminator": Reader(gan_checkpoint, read_judge),
        "desi": Reader(written("coadd.fits", desi()), read_desi),
    }
    for kind in DETECTORS:
        table[f"{kind} json"] = Reader(saved(kind, "detector.json"), load(kind))
        table[f"{kind} arrays"] = Reader(saved(kind, "state-*.safetensors"), load(kind))
    table["samples drawn"] = Reader(
        written("s.npy", array(np.random.default_rng(0).random((2, 1, 4, 4)))), draw_samples
    )
    table["training settings"] = Reader(begun_training("manifest.jsonl"), go_on)
    table["training checkpoint"] = Reader(begun_training("last.ckpt"), go_on)
    return table


# --- the run


class Tally(NamedTuple):
    "What became of the damaged files of one reader."

    inputs: int
    refused: int  # with a `DataError`
    read: int  # the damage did not matter, or cannot be seen
    faults: list[str]  # anything else
    seconds: float  # of the processor


@contextmanager
def limits() -> Iterator[None]:
    "A roof over the memory, and a clock over each input."

    def late(*_: object) -> None:
        raise TimeoutError(f"not done after {PATIENCE} s")

    before = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, before[1]))
    handler = signal.signal(signal.SIGALRM, late)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, handler)
        resource.setrlimit(resource.RLIMIT_AS, before)


def fuzz(
    reader: Reader,
    folder: Path,  # empty, best in memory
    inputs: int,
    most: float = float("inf"),  # seconds of the processor after which to stop
) -> Tally:
    "Damage a valid file so many times and read it each time."
    path = reader.make(folder)
    content = path.read_bytes()
    kept = {file: file.read_bytes() for file in folder.rglob("*") if file.is_file() and file.name != ".lock"}
    refused, read, faults, start = 0, 0, list[str](), time.process_time()
    with limits():
        reader.read(path)  # undamaged, it is read
        for number in range(inputs):
            if time.process_time() - start > most:
                break
            for file in [each for each in kept if each != path and not each.exists()]:
                file.write_bytes(kept[file])
            path.write_bytes(damage(content, np.random.default_rng([inputs, number])))
            signal.alarm(PATIENCE)
            try:
                reader.read(path)
                read += 1
            except DataError:
                refused += 1
            except Exception as error:
                faults.append(f"input {number}: {type(error).__name__}: {error}")
    return Tally(refused + read + len(faults), refused, read, faults, time.process_time() - start)


def main() -> None:
    "Fuzz all readers, or those that are named, and keep what came of it in the table."
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("names", nargs="*", help="readers; none means all")
    parser.add_argument("--inputs", type=int, default=100_000, help="damaged files for each reader")
    parser.add_argument("--hours", type=float, default=2.0, help="processor time for each reader, at most")
    words = parser.parse_args()
    memory = "/dev/shm" if Path("/dev/shm").is_dir() else None
    for name in words.names or readers():
        with tempfile.TemporaryDirectory(dir=memory) as folder:
            found = fuzz(readers()[name], Path(folder), words.inputs, 3600 * words.hours)
        row = {"reader": name, "inputs": found.inputs, "refused": found.refused, "read": found.read}
        row |= {"other errors": len(found.faults), "ms": round(1e3 * found.seconds / max(found.inputs, 1), 2)}
        print(*row.values(), *found.faults[:3], sep="\t", flush=True)
        table = pd.DataFrame([row]).set_index("reader")
        if RESULTS.exists():
            table = pd.concat([pd.read_csv(RESULTS, index_col="reader").drop(index=name, errors="ignore"), table])
        table.loc[[each for each in readers() if each in table.index]].to_csv(RESULTS)


if __name__ == "__main__":
    main()

"""Readers on damaged files: whatever the bytes, they are read or refused with a `DataError`, nothing else."""

import io
import json
import warnings
import wave
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from astropy.io import fits

from anomaly_nb.audio import audio_info, read_audio
from anomaly_nb.core import DataError, load_state, save_state
from anomaly_nb.datasets import sample_path
from anomaly_nb.dcase.masks import MaskPrior, Patch
from anomaly_nb.scale import ArrayFile, Shards, map_chunks
from anomaly_nb.spectra.readers import read_desi, read_sdss, read_table
from anomaly_nb.srcnn.series import read_curve

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


def curve() -> bytes:
    rows = [f"2026-01-01 00:{minute:02d}:00,{minute * 1.5},0" for minute in range(40)]
    return "\n".join(["timestamp,value,label", *rows]).encode()


def sdss() -> bytes:
    with zipfile.ZipFile(sample_path("spectra/sdss_objects.zip")) as archive:
        return archive.read(archive.namelist()[0])


def desi() -> bytes:
    count, hdus = 3, [fits.PrimaryHDU()]
    ids = np.arange(count) + 39627000000000000
    columns = [fits.Column("TARGETID", "K", array=ids)]
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
    buffer = io.BytesIO()
    flux = np.random.default_rng(0).normal(1, 0.1, (2, 60))
    np.savez(buffer, flux=flux, ivar=np.ones((2, 60)), wavelength=np.linspace(4000, 4100, 60), z=np.array([0.1, 0.2]))
    return buffer.getvalue()


def table_csv() -> bytes:
    rows = [f"{4000 + i},{1 + 0.01 * i},{2.0}" for i in range(60)]
    return "\n".join(["wavelength,flux,ivar", *rows]).encode()


def sound() -> bytes:
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(16000)
        file.writeframes(np.arange(1000, dtype=np.int16).tobytes())
    return buffer.getvalue()


def array() -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, np.arange(60.0).reshape(20, 3))
    return buffer.getvalue()


def prior(folder: Path) -> bytes:
    MaskPrior("fan", 128, 100, (Patch(*range(1, len(Patch.__dataclass_fields__) + 1)),), (1,), 0.0).save(folder / "p")
    return (folder / "p").read_bytes()


def state(folder: Path, name: str) -> bytes:
    save_state(folder / "state", {"detector": "X", "params": {"a": 1}, "weights": np.arange(12.0)})
    return (folder / "state" / name).read_bytes()


def weights() -> bytes:
    import torch

    buffer = io.BytesIO()
    torch.save(torch.nn.Linear(3, 2).state_dict(), buffer)
    return buffer.getvalue()


def read_weights(path: Path) -> None:
    from anomaly_nb.training import read_weights

    read_weights(path)


def read_state(path: Path) -> None:
    load_state(path.parent)


def read_whole(path: Path) -> None:
    ArrayFile(path)[0:5]


def read_shards(path: Path) -> None:
    shards = Shards(path.parent)
    len(shards.failed), len(shards), list(shards)


def manifest(folder: Path) -> bytes:
    map_chunks(np.asarray, [1.0, 2.0, 3.0], folder / "job", chunk_size=2)
    return (folder / "job/manifest.jsonl").read_bytes()


READERS: dict[str, tuple[Callable[[Path], bytes], str, Callable[[Path], Any]]] = {
    "curve": (lambda _: curve(), "curve.csv", read_curve),
    "sdss": (lambda _: sdss(), "spec.fits", lambda path: read_sdss([path])),
    "desi": (lambda _: desi(), "coadd.fits", read_desi),
    "spectra npz": (lambda _: table_npz(), "table.npz", read_table),
    "spectra csv": (lambda _: table_csv(), "table.csv", read_table),
    "sound": (lambda _: sound(), "sound.wav", lambda path: (audio_info(path), read_audio(path))),
    "array": (lambda _: array(), "array.npy", read_whole),
    "array npz": (lambda _: table_npz(), "array.npz", lambda path: ArrayFile(path, "flux")[0:2]),
    "mask prior": (prior, "prior.json", MaskPrior.load),
    "detector json": (lambda folder: state(folder, "detector.json"), "state/detector.json", read_state),
    "detector arrays": (lambda folder: state(folder, "state.safetensors"), "state/state.safetensors", read_state),
    "weights": (lambda _: weights(), "weights.bin", read_weights),
    "manifest": (manifest, "job/manifest.jsonl", read_shards),
}


@pytest.mark.parametrize("inputs", [150, pytest.param(100_000, marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", READERS)
def test_only_data_errors(name: str, inputs: int, tmp_path: Path) -> None:
    make, place, read = READERS[name]
    content, path = make(tmp_path), tmp_path / place
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(content)
    read(path)  # undamaged, it is read
    refused = 0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for number in range(inputs):
            damaged = damage(content, np.random.default_rng([inputs, number]))
            path.write_bytes(damaged)
            try:
                read(path)
            except DataError:
                refused += 1
            except Exception as error:
                pytest.fail(
                    f"input {number}: {type(error).__name__}: {error}; {json.dumps(damaged[:80].decode('latin1'))}"
                )
    assert refused > inputs / 50

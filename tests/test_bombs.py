"""Files that would fill the memory, and addresses: refused by every reader, in little memory, called as a library."""

import bz2
import gzip
import io
import json
import lzma
import subprocess
import sys
import textwrap
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits

from anomaly_nb.core import DataError
from anomaly_nb.files import check_local, open_file

MEGABYTES = 100  # that a refusal may take

MEASURED = """
    import json, sys, warnings
    warnings.simplefilter("ignore")
    from pathlib import Path
    import numpy, pandas, astropy.io.fits, astropy.io.fits.hdu.compressed, matplotlib.pyplot, PIL.Image, torch
    from anomaly_nb.dcgan.analytics import plot_samples
    from anomaly_nb.dcgan.samples import npy_to_images
    from anomaly_nb.dcgan.spectrograms import read_picture
    from anomaly_nb.spectra.jobs import read_any, read_redshifts
    from anomaly_nb.spectra.readers import read_desi, read_redrock, read_sdss, read_table
    from anomaly_nb.training import read_weights

    def memory(key):
        return int(next(line for line in open("/proc/self/status") if line.startswith(key)).split()[1]) / 1024

    open("/proc/self/clear_refs", "w").write("5")
    before, path = memory("VmRSS"), Path(sys.argv[1])
    try:
        told = repr(eval(sys.argv[2]))
    except Exception as error:
        told = f"{type(error).__name__}: {error}"
    print(json.dumps([told, memory("VmHWM") - before]))
"""


def coadd(zeros: int, compressed: str = "") -> bytes:
    "Return a DESI file of three spectra whose flux is an image of zeros of so many megabytes."
    columns = [fits.Column("TARGETID", "K", array=np.arange(3))]
    columns += [fits.Column(f"TARGET_{axis}", "D", array=np.ones(3)) for axis in ("RA", "DEC")]
    image = np.zeros((zeros, 250_000), np.float32)
    packed = {"compression_type": compressed} if compressed else {}
    flux = (fits.CompImageHDU if compressed else fits.ImageHDU)(image, name="B_FLUX", **packed)
    parts = [fits.PrimaryHDU(), fits.BinTableHDU.from_columns(columns, name="FIBERMAP"), flux]
    parts += [fits.ImageHDU(np.arange(50.0), name="B_WAVELENGTH"), fits.ImageHDU(np.ones((3, 50)), name="B_IVAR")]
    buffer = io.BytesIO()
    fits.HDUList(parts).writeto(buffer)
    return buffer.getvalue()


def swollen(path: Path) -> None:
    "Write a FITS file of packed tiles of which each becomes far more than its header says."
    data = np.array([np.frombuffer(gzip.compress(bytes(400_000_000), 9), np.uint8)], dtype=object)
    table = fits.BinTableHDU.from_columns([fits.Column("COMPRESSED_DATA", "1PB()", array=data)], name="B_FLUX")
    facts = {"ZIMAGE": True, "ZCMPTYPE": "GZIP_1", "ZBITPIX": -32, "ZNAXIS": 2, "ZNAXIS1": 50, "ZNAXIS2": 1}
    table.header.update(facts)
    targets = fits.BinTableHDU.from_columns([fits.Column("TARGETID", "K", array=[1])], name="FIBERMAP")
    parts = [fits.PrimaryHDU(), targets, table]
    fits.HDUList(parts).writeto(path)


def sparse(path: Path) -> None:
    with path.open("wb") as file:
        np.lib.format.write_array_header_2_0(file, {"descr": "<f8", "fortran_order": False, "shape": (10**8,)})
        file.truncate(8 * 10**8 + file.tell())


def deflated(path: Path) -> None:
    import torch

    buffer = io.BytesIO()
    torch.save({"w": torch.zeros(50_000_000)}, buffer)
    with zipfile.ZipFile(buffer) as archive, zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as packed:
        for name in archive.namelist():
            packed.writestr(name, archive.read(name))


def zeros(path: Path) -> None:
    flux = np.zeros((1, 25_000_000))
    np.savez_compressed(path, flux=flux, ivar=flux, wavelength=flux[0])


def black(path: Path) -> None:
    from PIL import Image

    Image.new("1", (12_000, 12_000)).save(path, "PNG")


def two_members(data: bytes) -> bytes:
    return gzip.compress(data, 6) + gzip.compress(b"\0" * 2880)


BOMBS: dict[str, tuple[str, Callable[[Path], object], str]] = {
    "bzip2 in .fits": ("coadd-a.fits", lambda path: path.write_bytes(bz2.compress(coadd(300))), "read_any(path)"),
    "gzip in .fits": ("coadd-b.fits", lambda path: path.write_bytes(gzip.compress(coadd(300))), "read_desi(path)"),
    "two members": ("coadd-c.fits.gz", lambda path: path.write_bytes(two_members(coadd(300))), "read_desi(path)"),
    "xz as redshifts": ("redrock.fits", lambda path: path.write_bytes(lzma.compress(coadd(300))), "read_redrock(path)"),
    "gzip as SDSS": ("spec.fits.gz", lambda path: path.write_bytes(two_members(coadd(300))), "read_sdss(path)"),
    "packed tiles": ("coadd-d.fits", lambda path: path.write_bytes(coadd(300, "RICE_1")), "read_desi(path)"),
    "a lying tile": ("coadd-e.fits", swollen, "read_desi(path)"),
    "zip in .fits": ("coadd-f.fits", zeros, "read_desi(path)"),
    "npz": ("t.npz", zeros, "read_table(path)"),
    "gzip in .csv": ("t.csv", lambda path: path.write_bytes(gzip.compress(b"1,2\n" * 10**8)), "read_table(path)"),
    "redshifts": ("z.csv", lambda path: path.write_bytes(b"," * 20_000_000), "read_redshifts(str(path))"),
    "checkpoint": ("w.bin", deflated, "read_weights(path)"),
    "sparse checkpoint": ("w.bin", sparse, "read_weights(path)"),
    "sparse samples": ("s.npy", sparse, "npy_to_images(path, path.parent, 'grid', 'bmp')"),
    "samples drawn": ("s.npy", sparse, "plot_samples([path])"),
    "sparse picture": ("p.npy", sparse, "read_picture(path, 64)"),
    "picture": ("p.png", black, "read_picture(path, 64)"),
}
OFTEN = ["bzip2 in .fits", "two members", "checkpoint", "sparse samples"]  # the others with -m slow


@pytest.mark.parametrize("name", [n if n in OFTEN else pytest.param(n, marks=pytest.mark.slow) for n in BOMBS])
def test_bombs_are_refused_before_they_grow(name, tmp_path):
    file, make, read = BOMBS[name]
    make(tmp_path / file)
    words = [sys.executable, "-c", textwrap.dedent(MEASURED), str(tmp_path / file), read]
    told, grown = json.loads(subprocess.check_output(words, text=True, stderr=subprocess.DEVNULL).splitlines()[-1])
    assert told.startswith("DataError: ") and file in told
    assert grown <= MEGABYTES, told


READERS = ["spectra.readers:read_desi", "spectra.readers:read_table", "spectra.jobs:read_redshifts"]
READERS += ["srcnn:read_curve", "training:read_weights", "fmnist.data:read_idx"]


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("address", ["http://localhost:9/a.csv", "s3://bucket/a.csv", "file:///etc/hostname"])
def test_addresses_are_not_fetched(reader, address):
    from importlib import import_module

    module, _, name = reader.partition(":")
    with pytest.raises(DataError):
        getattr(import_module(f"anomaly_nb.{module}"), name)(address)


def test_what_is_packed_is_known_by_its_first_bytes(tmp_path):
    for name, pack in {"a.csv": gzip.compress, "b.csv": bz2.compress, "c.gz": lzma.compress, "d.gz": bytes}.items():
        (tmp_path / name).write_bytes(pack(b"t,v\n1,2\n"))
        with open_file(tmp_path / name) as file:
            assert file.read() == b"t,v\n1,2\n"
    for name, head in {"zstd": b"(\xb5/\xfd", "compress": b"\x1f\x9d\x90"}.items():
        (tmp_path / name).write_bytes(head + bytes(20))
        with pytest.raises(DataError, match=f"packed by {name}, which is not read"), open_file(tmp_path / name):
            pass


@pytest.mark.parametrize("name", ["a/b.csv", "C:/data/a.csv", "C:\\data\\a.csv", "10:30.csv", "./http:x", "~/a"])
def test_names_of_files_are_no_addresses(name):
    assert check_local(name) == Path(name)

"""Folders of real engines for the other benchmarks, from Debian's packages of free games.

    python benchmarks/dcgan_recordings.py PACKAGES [--out recordings]

PACKAGES holds a folder for each package that `dcgan_recordings.csv` names, unpacked (`dpkg -x`). The first four seconds
of each recording are written. Recordings of one engine stay together; in alphabetical order, every fourth one is held
out.
"""

from pathlib import Path

import pandas as pd
from fastcore.script import call_parse

from anomaly_nb.audio import read_audio, write_audio
from anomaly_nb.core import DataError

RATE, SECONDS = 22050, 4
TABLE = Path(__file__).with_suffix(".csv")


def find(packages: Path, package: str, file: str) -> Path:
    "A package's file, which may have been copied with its folders in its name."
    ending = file.replace("/", "_")
    for path in sorted((packages / package).rglob(f"*{Path(file).suffix}")):
        name = str(path.relative_to(packages / package)).replace("/", "_")
        if name == ending or name.endswith(f"_{ending}"):
            return path
    raise DataError(f"{packages}: no {file} in a folder {package}. Unpack Debian's package of this name there.")


@call_parse
def main(
    packages: Path,  # Folder of unpacked packages
    out: Path = Path("recordings"),  # Folders training, held_out and other are made here
) -> None:
    for row in pd.read_csv(TABLE).itertuples():
        name = f"{row.package}_{row.file.replace('/', '_')}"
        sound = read_audio(find(packages, row.package, row.file), RATE)[: RATE * SECONDS]
        write_audio((out / row.part.replace(" ", "_") / name).with_suffix(".wav"), sound, RATE)

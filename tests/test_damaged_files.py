"""Readers on damaged files: whatever the bytes, they are read or refused with a `DataError`, nothing else."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent.parent / "benchmarks"))

from fuzz import fuzz, readers

from anomaly_nb.core import DataError

READERS = readers()


@pytest.mark.parametrize("inputs", [100, pytest.param(100_000, marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", READERS)
def test_only_data_errors(name: str, inputs: int, tmp_path: Path) -> None:
    found = fuzz(READERS[name], tmp_path, inputs)
    assert not found.faults
    assert found.inputs == inputs
    assert found.refused > inputs / 50


def test_decompression_bombs(tmp_path: Path) -> None:
    import gzip

    from PIL import Image

    from anomaly_nb.audio import read_audio, write_audio
    from anomaly_nb.dcgan.spectrograms import read_picture
    from anomaly_nb.fmnist.data import read_idx

    packed = tmp_path / "train-labels-idx1-ubyte.gz"
    packed.write_bytes(gzip.compress(bytes(60_000_000), 1))
    with pytest.raises(DataError, match="MD5"):
        read_idx(packed)
    Image.new("1", (14_000, 14_000)).save(tmp_path / "large.png")
    with pytest.raises(DataError, match="decompression bomb"):
        read_picture(tmp_path / "large.png", 64)
    write_audio(tmp_path / "slow.wav", [0.0] * 100, 1)
    with pytest.raises(DataError, match="sample rate of 1 Hz"):
        read_audio(tmp_path / "slow.wav")

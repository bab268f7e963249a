"""Sound files that were cut or that lie about their length are refused, whole ones are read."""

import struct
from pathlib import Path

import numpy as np
import pytest
import soundfile

from anomaly_nb.audio import read_audio
from anomaly_nb.core import DataError

FORMATS = ["WAV", "FLAC", "OGG", "MP3", "AIFF", "AU", "W64", "RF64"]
NOISE = 0.1 * np.random.default_rng(0).normal(size=64000)


@pytest.mark.parametrize("name", FORMATS)
def test_a_file_is_read_whole_or_not_at_all(tmp_path: Path, name: str) -> None:
    path = tmp_path / "sound"
    soundfile.write(path, NOISE, 16000, format=name)
    assert len(read_audio(path)) == len(NOISE)
    content = path.read_bytes()
    path.write_bytes(content[: len(content) * 6 // 10])
    with pytest.raises(DataError, match=str(path)):
        read_audio(path)


def test_a_damaged_page_in_the_middle_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "sound.ogg"
    soundfile.write(path, NOISE, 16000)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(DataError, match="damaged at byte"):
        read_audio(path)


@pytest.mark.parametrize("promised, read", [(128000, False), (0xFFFFFFFF, True)])
def test_samples_are_read_against_the_header(tmp_path: Path, promised: int, read: bool) -> None:
    path, form = tmp_path / "sound.wav", struct.pack("<IHHIIHH", 16, 1, 1, 16000, 32000, 2, 16)
    path.write_bytes(
        b"RIFF" + struct.pack("<I", 3236) + b"WAVEfmt " + form + b"data" + struct.pack("<I", promised) + bytes(3200)
    )
    if read:  # by a writer that could not know the end
        assert len(read_audio(path)) == 1600
        return
    with pytest.raises(DataError, match="truncated"):
        read_audio(path)

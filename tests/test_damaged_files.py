"""Readers on damaged files: whatever the bytes, they are read or refused with a `DataError`, nothing else."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

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


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=12), inner, max_size=4),
    max_leaves=12,
)
CELLS = st.text(max_size=12) | st.floats().map(str) | st.datetimes().map(str) | st.integers().map(str)
READS_JSON = ["windows", "spectra result", "grid task", "state json", "job manifest", "configuration"]
READS_JSON += ["mask prior", "SpectralResidual json", "training settings"]
OFTEN = settings(max_examples=60, deadline=None, derandomize=True)


def replaced(content: Any, way: list[int], value: Any) -> Any:
    "JSON with one of its parts replaced: the one that is reached by these steps inwards."
    if not way or not isinstance(content, dict | list) or not content:
        return value
    place = list(content)[way[0] % len(content)] if isinstance(content, dict) else way[0] % len(content)
    copy = dict(content) if isinstance(content, dict) else list(content)
    copy[place] = replaced(content[place], way[1:], value)
    return copy


@pytest.mark.parametrize("name", READS_JSON)
def test_json_with_a_part_of_another_type(name: str, tmp_path: Path) -> None:
    path = READERS[name].make(tmp_path)
    lines = path.read_text().splitlines() if path.suffix == ".jsonl" else [path.read_text()]

    @OFTEN
    @given(line=st.integers(0, len(lines) - 1), way=st.lists(st.integers(0, 20), max_size=4), value=JSON)
    def read_or_refuse(line: int, way: list[int], value: Any) -> None:
        changed = [*lines[:line], json.dumps(replaced(json.loads(lines[line]), way, value)), *lines[line + 1 :]]
        path.write_text("\n".join(changed))
        try:
            READERS[name].read(path)
        except DataError as error:
            assert len(str(error)) > 20

    read_or_refuse()


@pytest.mark.parametrize("name", ["curve", "redshifts", "spectra csv"])
def test_tables_of_other_cells(name: str, tmp_path: Path) -> None:
    path = READERS[name].make(tmp_path)
    header = path.read_text().splitlines()[0]

    @OFTEN
    @given(rows=st.lists(st.lists(CELLS, min_size=1, max_size=4), max_size=8), headed=st.booleans())
    def read_or_refuse(rows: list[list[str]], headed: bool) -> None:
        path.write_text("\n".join([header] * headed + [",".join(row) for row in rows]), encoding="utf-8")
        try:
            READERS[name].read(path)
        except DataError as error:
            assert path.name in str(error)

    read_or_refuse()


def test_decompression_bombs(tmp_path: Path) -> None:
    import gzip

    from PIL import Image

    from anomaly_nb.audio import read_audio, write_audio
    from anomaly_nb.dcgan.spectrograms import read_picture
    from anomaly_nb.fmnist.data import MD5, read_idx

    packed = tmp_path / "train-labels-idx1-ubyte.gz"
    packed.write_bytes(gzip.compress(bytes(60_000_000), 1))
    with pytest.raises(DataError, match="MD5"):
        read_idx(packed, MD5["train-labels-idx1-ubyte"])
    Image.new("1", (14_000, 14_000)).save(tmp_path / "large.png")
    with pytest.raises(DataError, match="decompression bomb"):
        read_picture(tmp_path / "large.png", 64)
    write_audio(tmp_path / "slow.wav", [0.0] * 100, 1)
    with pytest.raises(DataError, match="sample rate of 1 Hz"):
        read_audio(tmp_path / "slow.wav")

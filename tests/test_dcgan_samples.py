"""Samples as pictures: every mode and format, right levels, nothing lost or replaced."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from anomaly_nb.core import DataError
from anomaly_nb.dcgan.samples import npy_to_images, picture_grid, to_levels

RNG = np.random.default_rng(0)


def write(folder, name="epoch_001", shape=(5, 1, 16, 12)):
    samples = RNG.random(shape).astype(np.float32)
    np.save(folder / f"{name}.npy", samples)
    return samples


@pytest.mark.parametrize("format", ["png", "jpg", "jpeg", "bmp", "tiff"])
@pytest.mark.parametrize(("mode", "count"), [("individual", 5), ("grid", 1), ("both", 6)])
def test_modes_and_formats(tmp_path, format, mode, count):
    samples = write(tmp_path)
    files = npy_to_images(tmp_path / "epoch_001.npy", mode=mode, format=format)
    assert len(files) == count and all(file.is_file() for file in files)
    assert {file.suffix for file in files} == {f".{format}"}
    names = {str(file.relative_to(tmp_path)) for file in files}
    assert (f"epoch_001_images/epoch_001_sample_05.{format}" in names) == (mode != "grid")
    assert (f"epoch_001_grid.{format}" in names) == (mode != "individual")
    for file in files:
        with Image.open(file) as image:
            image.load()
            assert image.format == {"jpg": "JPEG", "jpeg": "JPEG"}.get(format, format.upper())
    if mode == "individual" and "j" not in format:
        read = np.stack([np.asarray(Image.open(file)) for file in files])
        np.testing.assert_array_equal(read, np.rint(samples[:, 0] * 255)[:, ::-1])
        as_is = npy_to_images(tmp_path / "epoch_001.npy", tmp_path / "as_is", format=format, upright=False)
        np.testing.assert_array_equal(np.asarray(Image.open(as_is[1])), np.rint(samples[1, 0] * 255))


@given(st.floats(0, 1))
def test_levels_are_the_nearest(value):
    level = int(to_levels(np.full((1, 1, 1, 1), value))[0, 0, 0, 0])
    assert abs(level - 255 * value) <= 0.5


def test_quality_changes_jpeg_and_nothing_else(tmp_path):
    write(tmp_path, shape=(1, 1, 64, 64))
    sizes = {}
    for quality in (10, 95):
        for format in ("jpg", "jpeg", "png"):
            file = npy_to_images(tmp_path / "epoch_001.npy", tmp_path / f"{quality}", "grid", format, quality)[0]
            sizes[format, quality] = file.stat().st_size
    assert sizes["jpg", 10] < sizes["jpg", 95] / 2 and sizes["jpeg", 10] < sizes["jpeg", 95] / 2
    assert sizes["png", 10] == sizes["png", 95]


@pytest.mark.parametrize("nrow", [1, 2, 3, 5, 9, None])
def test_every_picture_has_its_place_in_the_grid(nrow):
    pictures = RNG.integers(1, 255, (5, 6, 4, 3), dtype=np.uint8)
    grid, columns = picture_grid(pictures, nrow), min(nrow or 3, 5)
    assert grid.shape == (-(-5 // columns) * 8 + 2, columns * 6 + 2, 3)
    for i, picture in enumerate(pictures):
        top, left = 2 + i // columns * 8, 2 + i % columns * 6
        np.testing.assert_array_equal(grid[top : top + 6, left : left + 4], picture)
    assert (grid > 0).sum() == pictures.size


def test_a_folder_goes_into_one_place_without_losing_a_file(tmp_path):
    (tmp_path / "samples").mkdir()
    for name in ("epoch_001", "epoch_005", "final"):
        write(tmp_path / "samples", name)
    files = npy_to_images(tmp_path / "samples", tmp_path / "pictures", "both")
    assert len(set(files)) == 18 and all(file.is_relative_to(tmp_path / "pictures") for file in files)
    before = {file: (file.stat().st_mtime_ns, file.read_bytes()) for file in files}
    files[-1].unlink()
    with pytest.raises(DataError, match="exists"):
        npy_to_images(tmp_path / "samples", tmp_path / "pictures", "both")
    assert not files[-1].exists()  # nothing was written before the check
    assert all((f.stat().st_mtime_ns, f.read_bytes()) == before[f] for f in files[:-1])
    assert npy_to_images(tmp_path / "samples", tmp_path / "pictures", "both", overwrite=True) == files


def test_one_bad_file_stops_a_folder_before_anything_is_written(tmp_path):
    write(tmp_path, "a")
    np.save(tmp_path / "b.npy", np.full((2, 1, 4, 4), np.nan))
    with pytest.raises(DataError, match=r"b\.npy"):
        npy_to_images(tmp_path)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["a.npy", "b.npy"]


@pytest.mark.parametrize(
    "content",
    [
        np.zeros((3, 2, 4, 4)),
        np.zeros((4, 4)),
        np.zeros((0, 1, 4, 4)),
        np.full((1, 1, 4, 4), -0.5),
        np.full((1, 1, 4, 4), np.inf),
        np.zeros((1, 1, 4, 4), np.int64),
        np.array([None]),
        b"",
        b"no array",
    ],
)
def test_files_that_hold_no_samples(tmp_path, content):
    path = tmp_path / "x.npy"
    path.write_bytes(content) if isinstance(content, bytes) else np.save(path, content)
    with pytest.raises(DataError, match=r"x\.npy"):
        npy_to_images(path)


def test_other_refusals(tmp_path):
    write(tmp_path)
    file = tmp_path / "epoch_001.npy"
    for options in ({"mode": "all"}, {"format": "gif"}, {"quality": 101}, {"mode": "grid", "nrow": 0}):
        with pytest.raises(DataError):
            npy_to_images(file, **options)
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"no \.npy files"):
        npy_to_images(tmp_path / "empty")
    with pytest.raises(DataError, match="no such file"):
        npy_to_images(tmp_path / "none.npy")
    np.savez(tmp_path / "many.npz", a=np.zeros((1, 1, 4, 4)))
    with pytest.raises(DataError, match="archive"):
        npy_to_images(tmp_path / "many.npz")


def test_colours_and_bytes(tmp_path):
    colours = RNG.integers(0, 256, (2, 3, 8, 8), dtype=np.uint8)
    np.save(tmp_path / "c.npy", colours)
    read = [np.asarray(Image.open(file)) for file in npy_to_images(tmp_path / "c.npy")]
    np.testing.assert_array_equal(np.moveaxis(read, 3, 1), colours[:, :, ::-1])


def test_a_batch_goes_on_past_pictures_that_exist(tmp_path):
    from anomaly_nb.dcgan.samples import npy_to_images

    for name in ("a", "b"):
        np.save(tmp_path / f"{name}.npy", np.random.default_rng(0).random((2, 1, 8, 8)).astype(np.float32))
    first = npy_to_images(tmp_path / "a.npy")
    first[0].write_bytes(b"mine")
    assert len(npy_to_images(tmp_path, keep=True)) == 2 and first[0].read_bytes() == b"mine"
    assert npy_to_images(tmp_path, keep=True) == []

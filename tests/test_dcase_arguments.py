"""Arguments that are too small or not there: a sentence that says which, before anything is written."""

import numpy as np
import pandas as pd
import pytest

from anomaly_nb.audio import write_audio
from anomaly_nb.core import DataError
from anomaly_nb.dcase import (
    AudioSpecificStrategy,
    Cycle,
    DCASE2020Task2LogMelDataset,
    DCASE2020Task2TestDataset,
    DCASEFolder,
    Events,
    NormalSound,
    PerlinStrategy,
    SoundDetector,
    SpectrogramStudy,
    energy_test,
    official_table,
    render_clip,
    synthesize_machines,
    train_vqvae,
)
from anomaly_nb.dcase.detector import METHODS

SCORES = pd.DataFrame({"machine_type": "a", "machine_id": "b", "label": [0, 1], "score": [0.0, 1.0]})


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp("short")
    synthesize_machines(root, ["fan"], 1, 4, 2, 2, seconds=0.5)
    return root


@pytest.fixture(scope="module")
def files(root):
    return [clip.path for clip in DCASEFolder(root).select("fan", "train")]


@pytest.mark.parametrize("method", [method for method in METHODS if method != "vqvae"])
def test_no_recording_to_score(files, method):
    detector = SoundDetector(method).fit(files)
    for call in (detector.decision_function, detector.predict, detector.detect):
        with pytest.raises(DataError, match="There is no file in the list"):
            call([])


@pytest.mark.parametrize("value", [0, -1])
@pytest.mark.parametrize("name", ["neighbours", "components"])
def test_detectors_with_nothing_to_compare_with(files, name, value):
    with pytest.raises(DataError, match=f"{name}.* {value}"):
        SoundDetector(**{name: value}).fit(files)


def test_maps_of_single_clips_need_normal_ones():
    picture = np.zeros((128, 20), np.float32)
    with pytest.raises(DataError, match="0 normal clips"):
        NormalSound().deviation(picture)
    with pytest.raises(DataError, match="0 neighbours"):
        NormalSound().add(picture[None]).deviation(picture, neighbours=0)


@pytest.mark.parametrize("seconds", [0, -1, 0.01, 0.39, float("nan"), float("inf")])
def test_clips_that_are_too_short_to_be_rendered(tmp_path, seconds):
    with pytest.raises(DataError, match=r"at least 0\.4 s"):
        render_clip("fan", seconds=seconds)
    with pytest.raises(DataError, match=r"at least 0\.4 s"):
        synthesize_machines(tmp_path, ["fan"], 1, 1, 1, 1, seconds=seconds)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("severity", value) for value in (-1, float("nan"), float("inf"), 1e9)),
        *(("snr", value) for value in (float("nan"), float("inf"), -1e9)),
        *((name, value) for name in ("seed", "machine", "number") for value in (-1, 0.5, float("nan"))),
        ("split", "dev"),
    ],
)
def test_clips_that_cannot_be_rendered(tmp_path, name, value):
    with pytest.raises(DataError, match=name):
        render_clip("fan", **{"label": 1, "seconds": 1, name: value})
    if name in ("severity", "snr", "seed"):
        with pytest.raises(DataError, match=name):
            synthesize_machines(tmp_path, ["fan"], 1, 1, 1, 1, **{"seconds": 1, name: value})
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("samples", [1, 512, 1023])
def test_recordings_shorter_than_one_frame(tmp_path, samples):
    for i in range(4):
        for part in ("train/normal", "test/normal", "test/anomaly"):
            write_audio(tmp_path / f"fan/{part}_id_00_{i:08d}.wav", np.full(samples, 0.1))
    folder = DCASEFolder(tmp_path)
    assert folder.problems["problem"].str.contains("shorter than one frame").sum() == 12
    files = folder.clips["path"].tolist()
    for call in (
        SpectrogramStudy(tmp_path).run,
        lambda: DCASE2020Task2LogMelDataset(tmp_path, "fan"),
        lambda: DCASE2020Task2TestDataset(tmp_path, "fan", 0, 1, 16),
        lambda: SoundDetector().fit(files),
    ):
        with pytest.raises(DataError, match=r"shorter than one frame|12 clips are not usable"):
            call()


@pytest.mark.parametrize("name", ["machines", "train", "normal", "anomaly"])
@pytest.mark.parametrize("count", [0, -2])
def test_data_sets_without_machines_or_clips(tmp_path, name, count):
    with pytest.raises(DataError, match=f"{name} is {count}"):
        synthesize_machines(tmp_path, **{"machines": 1, "train": 1, "normal": 1, "anomaly": 1, name: count})
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("strategy", [AudioSpecificStrategy, PerlinStrategy])
@pytest.mark.parametrize(("n", "shape"), [(0, (128, 320)), (-1, (128, 320)), (2, (0, 320)), (2, (128, 0))])
def test_no_masks(strategy, n, shape):
    with pytest.raises(DataError, match="at least one mask"):
        strategy().generate(n, shape)


@pytest.mark.parametrize("missing", list(SCORES))
def test_tables_of_scores_without_a_column(missing):
    assert len(official_table(SCORES)) == 2
    with pytest.raises(DataError, match=f"no column {missing}"):
        official_table(SCORES.drop(columns=missing))


@pytest.mark.parametrize(
    ("sentence", "call"),
    [
        ("no machine type is chosen", lambda root: DCASEFolder(root, [])),
        ("No machine type is chosen", lambda root: synthesize_machines(root, [])),
        ("No machine type 'rocket'", lambda root: synthesize_machines(root, ["fan", "rocket"])),
        ("batch_size is 0", lambda root: SpectrogramStudy(root, batch_size=0).run()),
        ("target_T is 0", lambda root: DCASE2020Task2TestDataset(root, "fan", 0, 1, 0)),
        ("epochs is 0", lambda root: train_vqvae(root, "fan", root / "networks", epochs=0)),
        ("batch_size is 0", lambda root: train_vqvae(root, "fan", root / "networks", batch_size=0)),
        ("No training clip", lambda _: Cycle.fit([])),
        ("No training clip", lambda _: Events.fit([])),
        ("none of them empty", lambda _: energy_test(np.zeros((0, 2)), np.zeros((3, 2)))),
    ],
)
def test_nothing_to_work_with(root, sentence, call):
    with pytest.raises(DataError, match=sentence):
        call(root)

"""Folders of machine sounds: every accident has its sentence or its row."""

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st

from anomaly_nb.audio import write_audio
from anomaly_nb.core import DataError
from anomaly_nb.dcase import DCASE2020Task2LogMelDataset, DCASE2020Task2TestDataset, DCASEFolder, unpack_motor
from anomaly_nb.dcase.data import OFFICIAL_COUNTS, parse_clip, spectrogram_batches


@pytest.fixture
def root(tmp_path):
    random = np.random.default_rng(0)
    for split, label, count in (("train", "normal", 3), ("test", "normal", 2), ("test", "anomaly", 2)):
        for i in range(count):
            name = f"fan/{split}/{label}_id_00_{i:08d}.wav"
            write_audio(tmp_path / name, 0.1 * random.normal(size=16000))
    return tmp_path


def problems(root, **options):
    table = DCASEFolder(root, **options).problems
    return {row.place: (row.problem, row.serious) for row in table.itertuples()}


def test_a_good_folder(root):
    folder = DCASEFolder(root)
    folder.check()
    assert folder.counts().loc[("fan", "id_00")].tolist() == [3, 2, 2, 1.0]
    assert [clip.label for clip in folder.select("fan", "test")] == [1, 1, 0, 0]
    assert folder.samples("fan") == 16000
    assert "problems" in folder._repr_html_() and "serious" not in folder._repr_html_()


@pytest.mark.parametrize(
    ("name", "audio", "rate", "problem", "serious"),
    [
        ("fan/train/normal_id_00_00000009.wav", np.zeros(15999), 16000, "15999 samples", True),
        ("fan/train/normal_id_00_00000009.wav", np.zeros(16001), 16000, "16001 samples", False),
        ("fan/train/normal_id_00_00000009.wav", np.zeros(48000), 48000, "sample rate 48000", False),
        ("fan/train/normal_id_00_00000009.wav", np.zeros((16000, 8)), 16000, "8 channels", False),
        ("fan/train/broken.wav", np.zeros(16000), 16000, "the name is not like", True),
        ("fan/train/normal_id_00_foo bar_12.wav", np.zeros(16000), 16000, "the name is not like", True),
        ("fan/test/normal_id_00_x9.wav", np.zeros(16000), 16000, "the name is not like", True),
        ("fan/test/normal_id_0\u0663_00000009.wav", np.zeros(16000), 16000, "the name is not like", True),
        ("fan/train/anomaly_id_00_00000009.wav", np.zeros(16000), 16000, "among the training clips", True),
        ("fan/train/more/normal_id_00_00000009.wav", np.zeros(16000), 16000, "too deep", True),
        ("fan/test/normal_id_00_00000009.wav", np.zeros(0), 16000, "no sound", True),
    ],
)
def test_accidents(root, name, audio, rate, problem, serious):
    (root / name).parent.mkdir(exist_ok=True)
    soundfile.write(root / name, audio, rate)
    found = problems(root)
    assert problem in found[name][0] and found[name][1] == serious
    if serious:
        with pytest.raises(DataError):
            DCASEFolder(root).check()
        part = "test" if "test" in name else "train"
        with pytest.raises(DataError):
            DCASE2020Task2LogMelDataset(root, "fan") if part == "train" else DCASE2020Task2TestDataset(
                root, "fan", 0, 1, 32
            )


def test_missing_parts(root):
    for path in (root / "fan/test").glob("anomaly*"):
        path.unlink()
    assert "no anomalous" in problems(root)["fan id_00"][0]
    for path in (root / "fan/test").glob("*"):
        path.unlink()
    assert "no WAV file" in problems(root)["fan/test"][0]
    with pytest.raises(FileNotFoundError):
        DCASEFolder(root, ["pump"])
    with pytest.raises(DataError):
        DCASEFolder(root / "nowhere")


def test_an_unknown_machine_in_the_test_set(root):
    write_audio(root / "fan/test/normal_id_07_00000000.wav", np.zeros(16000))
    rows = DCASEFolder(root).problems.query("place == 'fan id_07'")
    assert rows["problem"].str.contains("no training clip").any() and rows["serious"].all()


@pytest.mark.parametrize("place", ["one.wav", "fan/two.WAV", "fan/extra/three.wav", "spare/fan/train/four.wav"])
def test_sounds_outside_train_and_test_have_a_row(root, place):
    (root / place).parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(root / place, np.zeros(16000), 16000, format="WAV")
    assert problems(root) == {place: ("outside train and test", False)}
    assert set(problems(root, machine_types=["fan"])) == ({place} if place.startswith("fan") else set())
    DCASEFolder(root).check()


@pytest.mark.parametrize(("machine_type", "last"), [("ToyCar", 4), ("ToyConveyor", 3)])
def test_official_ids_of_the_toys(tmp_path, machine_type, last):
    for number in (*range(1, last + 1), last + 1):
        for part in ("train/normal", "test/normal", "test/anomaly"):
            write_audio(tmp_path / machine_type / f"{part}_id_{number:02d}_00000000.wav", 0.1 * np.ones(1600))
    DCASEFolder(tmp_path).check()
    found = problems(tmp_path, official=True)
    named = [f"id_{number:02d}" for number in range(1, last + 1)]
    assert found[f"{machine_type} id_{last + 1:02d}"][0].endswith(", ".join(named))
    wrong = {f"{machine_type}/train"} | {f"{machine_type}/test {name}" for name in named}
    assert set(found) == wrong | {f"{machine_type} id_{last + 1:02d}"}


def test_a_folder_like_the_official_one_has_no_problem(root, monkeypatch):
    monkeypatch.setitem(OFFICIAL_COUNTS, "fan", (3, {"id_00": (2, 2)}))
    assert not problems(root, official=True)
    (root / "fan").rename(root / "press")
    assert problems(root, official=True) == {"press": ("not a type of the development set", False)}


def test_official_counts(root):
    found = problems(root, official=True)
    assert found["fan/train"][0] == "3 clips, officially 3675"
    assert found["fan/test id_06"][0].endswith("officially (100, 361)")


@settings(deadline=None)
@given(st.text(max_size=30))
def test_names_parse_or_are_refused(name):
    try:
        clip = parse_clip(f"fan/test/{name}.wav")
    except (DataError, ValueError):
        return
    assert clip.label in (0, 1) and clip.machine_id.startswith("id_")


def test_datasets(root):
    train = DCASE2020Task2LogMelDataset(str(root), "fan", normalize=True)
    test = DCASE2020Task2TestDataset(str(root), "fan", train.mean, train.std, train.target_T)
    assert train.data.shape == (3, 1, 128, 32) and train.target_T == 32
    assert [test[i][1:] for i in range(4)] == [(1, "id_00"), (1, "id_00"), (0, "id_00"), (0, "id_00")]
    assert test[0][0].shape == (1, 128, 32) and train[0][1] == 0
    shorter = DCASE2020Task2TestDataset(root, "fan", train.mean, train.std, 16)
    assert np.allclose(shorter[0][0], test[0][0][..., :16])


def test_batches_hold_no_more_than_asked(root):
    clips = DCASEFolder(root).select("fan", "test")
    sizes = [len(batch) for _, batch in spectrogram_batches(clips, 16000, batch_size=3)]
    assert sizes == [3, 1]
    with pytest.raises(DataError, match="too short"):
        list(spectrogram_batches(clips, 16001))


def test_the_bundled_motor(tmp_path):
    counts = DCASEFolder(unpack_motor(tmp_path)).counts()
    assert counts.loc[("motor", "id_01")].tolist() == [4, 4, 6, 10.0]

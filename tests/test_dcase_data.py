"""Folders of machine sounds: every accident has its sentence or its row."""

import logging

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st

from anomaly_nb.audio import write_audio
from anomaly_nb.core import DataError
from anomaly_nb.dcase import (
    DCASE2020Task2LogMelDataset,
    DCASE2020Task2TestDataset,
    DCASEFolder,
    SoundDetector,
    SpectrogramStudy,
    evaluate_detector,
    unpack_motor,
)
from anomaly_nb.dcase.clips import parse_clip
from anomaly_nb.dcase.commands import dcase_check, dcase_study
from anomaly_nb.dcase.data import OFFICIAL_COUNTS, spectrogram_batches


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
        ("fan/train/normal_id_00_00000009.wav", np.zeros(15999), 16000, "15999 samples", False),
        ("fan/train/normal_id_00_00000009.wav", np.zeros(16001), 16000, "16001 samples", False),
        ("fan/train/normal_id_00_00000009.wav", np.zeros(48000), 48000, "sample rate 48000", False),
        ("fan/train/normal_id_00_00000009.wav", np.zeros((16000, 8)), 16000, "8 channels", False),
        ("fan/train/broken.wav", np.zeros(16000), 16000, "the name is not like", True),
        ("fan/train/normal_id_00_foo bar_12.wav", np.zeros(16000), 16000, "the name is not like", True),
        ("fan/test/normal_id_00_x9.wav", np.zeros(16000), 16000, "the name is not like", True),
        ("fan/test/normal_id_0\u0663_00000009.wav", np.zeros(16000), 16000, "the name is not like", True),
        ("fan/train/anomaly_id_00_00000009.wav", np.zeros(16000), 16000, "among the training clips", True),
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


def test_links_and_folders_named_like_recordings_have_a_row(root, tmp_path_factory):
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    places = [f"fan/train/normal_id_00_0000000{i}.wav" for i in (7, 8)]
    (root / places[0]).symlink_to(elsewhere / "gone.wav")
    (root / places[1]).mkdir()
    (root / "fan/test/more").symlink_to(elsewhere, target_is_directory=True)
    (root / "gone.wav").symlink_to(elsewhere / "gone.wav")
    found = problems(root)
    assert found == {
        places[0]: ("a link to a file that is not there", True),
        places[1]: ("a folder with the name of a recording", True),
        "fan/test/more": ("a link to a folder", True),
        "gone.wav": ("outside train and test", False),
    }
    with pytest.raises(DataError, match="2 more problems are in"):
        DCASEFolder(root).check()
    real = next((root / "fan/test").glob("normal*"))
    (root / places[0]).unlink()
    (root / places[0]).symlink_to(real)  # a link to a recording is a recording
    assert places[0] not in problems(root)


@pytest.mark.parametrize("kind", ["empty files", "empty folders", "train only"])
def test_folders_without_a_usable_clip(tmp_path, kind):
    for part in ("train/normal", "test/normal", "test/anomaly"):
        path = tmp_path / f"fan/{part}_id_00_00000000.wav"
        path.parent.mkdir(parents=True, exist_ok=True)
        if kind == "empty files":
            soundfile.write(path, np.zeros(0), 16000)
        if kind == "train only":
            break
    folder = DCASEFolder(tmp_path)
    assert folder.problems["serious"].any() and folder.counts().empty and folder.select("fan", "train") == []
    assert "fan" in folder._repr_html_()
    for call in (
        folder.check,
        lambda: folder.samples("fan"),
        lambda: DCASE2020Task2LogMelDataset(tmp_path, "fan"),
        lambda: DCASE2020Task2TestDataset(tmp_path, "fan", 0, 1, 32),
        SpectrogramStudy(tmp_path).run,
        lambda: evaluate_detector(folder, lambda _: SoundDetector()),
    ):
        with pytest.raises(DataError, match=r"\.$"):
            call()
    for command in (dcase_check, dcase_study):
        with pytest.raises(SystemExit, match=r"^error: .*\.$"):
            command(str(tmp_path), out=tmp_path / "out")


def test_problems_are_told_in_whole_words_and_once(root, caplog):
    bad = root / "fan/train/normal_id_00_00000009.wav"
    bad.write_bytes(next((root / "fan/train").glob("*")).read_bytes()[:30])
    row = DCASEFolder(root).problems.iloc[0]
    assert str(root) not in row["problem"] and row["problem"].count("(") == row["problem"].count(")") == 1
    assert row["remedy"] == "check the path, or copy the file again"
    with pytest.raises(DataError, match=r"copy the file again\.$"):
        DCASEFolder(root).check()
    with caplog.at_level(logging.INFO), pytest.raises(SystemExit, match="1 serious problem in"):
        dcase_check(root)
    assert row["problem"] in caplog.text and row["remedy"] in caplog.text
    assert row["remedy"] in DCASEFolder(root)._repr_html_()
    bad.write_bytes(b"")
    (root / "fan/test/squeak.wav").write_bytes(b"")
    with pytest.raises(DataError, match=r"again\. 1 more problem is in [^.]*\.problems\.$"):
        DCASEFolder(root).check()


def test_missing_parts(root):
    for path in (root / "fan/test").glob("anomaly*"):
        path.unlink()
    assert "no anomalous" in problems(root)["fan id_00"][0]
    for path in (root / "fan/test").glob("*"):
        path.unlink()
    assert "no recording (WAV, FLAC or OGG)" in problems(root)["fan/test"][0]
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
    assert clip.label in (-1, 0, 1) and clip.machine_id.startswith(("id_", "section_"))


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


def test_the_bundled_motor(tmp_path):
    counts = DCASEFolder(unpack_motor(tmp_path)).counts()
    assert counts.loc[("motor", "id_01")].tolist() == [4, 4, 6, 10.0]


LAYOUTS = {  # names of training clips, of normal and of broken test clips
    "2020": (
        "fan/train/normal_id_00_{:08d}.wav",
        "fan/test/normal_id_00_{:08d}.wav",
        "fan/test/anomaly_id_00_{:08d}.wav",
    ),
    "2021": (
        "fan/train/section_00_source_train_normal_{:04d}.wav",
        "fan/test/section_00_target_test_normal_{:04d}.wav",
        "fan/test/section_00_source_test_anomaly_{:04d}.wav",
    ),
    "2022": (
        "fan/train/section_00_source_train_normal_{:04d}_n-lv_L2.wav",
        "fan/test/section_00_target_test_normal_{:04d}_n-lv_L2.wav",
        "fan/test/section_00_source_test_anomaly_{:04d}_n-lv_L3.wav",
    ),
    "MIMII": ("fan/id_00/normal/{:08d}.wav", "fan/id_00/normal/1{:07d}.wav", "fan/id_00/abnormal/{:08d}.wav"),
    "ToyADMOS": (
        "fan/case1/NormalSound_IND/fan_A_{:04d}.wav",
        "fan/case1/NormalSound_IND/fan_B_{:04d}.wav",
        "fan/case1/AnomalousSound_IND/fan_A_{:04d}.wav",
    ),
    "own": ("fan/train/normal/{}.ogg", "fan/test/normal/{}.ogg", "fan/test/anomaly/{}.ogg"),
    "FLAC": ("fan/normal/a{}.flac", "fan/normal/b{}.FLAC", "fan/abnormal/{}.flac"),
    "abnormal": ("fan/train/normal_id_0_{}.wav", "fan/test/normal_id_0_{}.wav", "fan/test/abnormal_id_0_{}.wav"),
    "too deep": (
        "dev_data/raw/fan/train/id_00/normal_id_00_{}.wav",
        "dev_data/raw/fan/test/id_00/normal_id_00_{}.wav",
        "dev_data/raw/fan/test/id_00/anomaly_id_00_{}.wav",
    ),
    "the type itself": ("train/normal_id_00_{}.wav", "test/normal_id_00_{}.wav", "test/anomaly_id_00_{}.wav"),
}


def write_layout(root, names, lengths=lambda number: 16000):
    random = np.random.default_rng(0)
    for kind, name in enumerate(names):
        for number in range(3):
            path = root / name.format(number)
            path.parent.mkdir(parents=True, exist_ok=True)
            sound = 0.1 * random.normal(size=lengths(3 * kind + number))
            soundfile.write(path, sound, 16000, format=path.suffix[1:].upper())
    return root


@pytest.mark.parametrize("layout", LAYOUTS)
def test_layouts_of_other_data_sets(tmp_path, layout):
    root = write_layout(tmp_path / "fan", LAYOUTS[layout])
    for litter in ("__MACOSX/fan/train/._normal_id_00_1.wav", "fan/train/._normal_id_00_1.wav", "fan/train/.DS_Store"):
        if (root / litter).parent.is_dir() or litter.startswith("__"):
            (root / litter).parent.mkdir(parents=True, exist_ok=True)
            (root / litter).write_bytes(bytes(82))
    folder = DCASEFolder(root)
    folder.check()
    assert folder.counts()[["train", "normal", "anomaly"]].to_numpy().tolist() == [[3, 3, 3]]
    assert folder.machine_types == ["fan"] and not folder.problems["place"].str.contains("._normal", regex=False).any()
    assert len(SpectrogramStudy(root).run().machines) == 1
    assert DCASE2020Task2LogMelDataset(root, "fan").data.shape == (3, 1, 128, 32)
    clips = folder.select("fan", "test")
    assert {clip.domain for clip in clips} == ({"source", "target"} if layout in ("2021", "2022") else {""})
    assert clips[0].attributes == ("n-lv_l3" if layout == "2022" else "")


@pytest.mark.parametrize("name", ["id_00_{:08d}.wav", "section_00_{:04d}.wav", "section_00_source_test_{:04d}.wav"])
def test_evaluation_clips_have_no_label(tmp_path, name):
    train = "fan/train/normal_id_00_{:08d}.wav" if name.startswith("id") else LAYOUTS["2021"][0]
    root = write_layout(tmp_path, [train, f"fan/test/{name}"])
    folder = DCASEFolder(root)
    folder.check()
    assert [clip.label for clip in folder.select("fan", "test")] == [-1] * 3
    assert folder.counts()[["train", "normal", "anomaly"]].to_numpy().tolist() == [[3, 0, 0]]
    assert DCASE2020Task2TestDataset(root, "fan", 0, 1, 32)[0][1] == -1
    with pytest.raises(DataError, match="3 train, 0 normal, 0 anomaly"):
        SpectrogramStudy(root).run()


@pytest.mark.parametrize(
    ("lengths", "usual"), [(lambda n: 15999 if n == 2 else 16000, 16000), (lambda n: 8000 + 2000 * n, 16000)]
)
def test_lengths_that_differ_are_cut_or_continued(tmp_path, lengths, usual):
    root = write_layout(tmp_path, LAYOUTS["2020"], lengths)
    folder = DCASEFolder(root)
    folder.check()
    assert folder.samples("fan") == usual and folder.clips["usable"].all()
    told = folder.problems["problem"].str.contains(f"brought to {usual}")
    assert told.sum() == sum(lengths(number) != usual for number in range(9))
    assert len(SpectrogramStudy(root).run().machines) == 1
    assert np.isfinite(DCASE2020Task2LogMelDataset(root, "fan").data).all()
    with pytest.raises(DataError, match="do without strict"):
        DCASEFolder(root, strict=True).check()
    with pytest.raises(SystemExit, match="serious problem"):
        dcase_check(root, strict=True)

"""Thresholds of the sound detector: what they mean for clips that it has not heard."""

from pathlib import Path

import numpy as np
import pytest
import soundfile
from scipy.stats import betabinom
from sklearn.pipeline import make_pipeline

from anomaly_nb.core import DataError
from anomaly_nb.dcase import DCASEFolder, SoundDetector, synthesize_machines, train_vqvae
from anomaly_nb.dcase.detector import METHODS

CHEAP = [method for method in METHODS if method != "vqvae"]


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp("machines")
    synthesize_machines(root, ["fan", "pump"], 2, 20, 60, 1, seconds=1)
    return root


def files(root, kind, split):
    return [clip.path for clip in DCASEFolder(root, [kind]).select(kind, split, label=0)]


def most(scores, judged, contamination):
    "So many of the judged clips are flagged in 999 of 1,000 cases at most, if the threshold is a quantile of scores."
    rank = max((scores + 1) * contamination, 1.0)
    return betabinom(judged, rank, scores + 1 - rank).ppf(0.999)


@pytest.mark.parametrize("contamination", [0.05, 0.1])
@pytest.mark.parametrize("method", CHEAP)
@pytest.mark.parametrize("kind", ["fan", "pump"])
def test_held_out_normal_clips_pass(root, kind, method, contamination):
    train, normals = files(root, kind, "train"), files(root, kind, "test")
    detector = SoundDetector(method, contamination=contamination).fit(train)
    assert (len(train), len(normals)) == (40, 120)
    assert detector.predict(normals).sum() <= most(40, 120, contamination)
    assert 1 <= detector.labels_.sum() <= 40 * contamination + 1


def test_the_range_of_the_test_above_is_narrow():
    assert most(40, 120, 0.05) < 30 and most(40, 120, 0.1) < 42


@pytest.mark.parametrize("method", CHEAP)
def test_scores_of_training_clips_are_those_of_models_that_have_not_heard_them(root, method):
    train = files(root, "fan", "train")
    scores = SoundDetector(method).fit(train).decision_scores_
    for hand in range(5):
        others = [path for i, path in enumerate(train) if i % 5 != hand]
        fitted = SoundDetector(method).fit(others)
        assert np.allclose(fitted.decision_function(train[hand::5]), scores[hand::5], rtol=1e-12)


@pytest.mark.parametrize("method", METHODS)
def test_calibration_on_other_normal_clips(root, tmp_path, method):
    train, normals = files(root, "fan", "train"), files(root, "fan", "test")
    checkpoint = train_vqvae(root, "fan", tmp_path / "networks", epochs=1) if method == "vqvae" else ""
    detector = SoundDetector(method, contamination=0.1, checkpoint=checkpoint).fit(train)
    scores = detector.decision_function(normals)
    assert detector.calibrate(normals[::2]) is detector
    assert detector.threshold_ == pytest.approx(np.quantile(scores[::2], 0.9, method="weibull"))
    assert detector.predict(normals[1::2]).sum() <= most(60, 60, 0.1)
    assert np.array_equal(detector.labels_, detector.decision_scores_ > detector.threshold_)
    detector.save(tmp_path / "kept")
    assert SoundDetector.load(tmp_path / "kept").threshold_ == detector.threshold_


def test_few_clips_get_the_largest_score_as_threshold(root):
    detector = SoundDetector("mean").fit(files(root, "fan", "train")[:4])
    assert detector.threshold_ == detector.decision_scores_.max() and not detector.labels_.any()


def test_files_from_generators_and_in_pipelines(root, tmp_path):
    train = files(root, "fan", "train")[:6]
    numbers = {"neighbours": np.int64(2), "contamination": np.float32(0.1), "checkpoint": Path("none.pt")}
    fitted = SoundDetector(**numbers).fit(path for path in train)
    assert fitted.detect(path for path in train)["file"].tolist() == [Path(path).name for path in train]
    inside = make_pipeline(SoundDetector(**numbers)).fit(train)
    assert np.array_equal(inside.decision_function(path for path in train), fitted.decision_function(train))
    fitted.save(tmp_path)
    assert SoundDetector.load(tmp_path).get_params() == fitted.get_params()


@pytest.mark.parametrize(
    ("sentence", "call"),
    [
        ("There is no file in the list", lambda fitted, train: fitted.calibrate([])),
        ("not been fitted", lambda fitted, train: SoundDetector().calibrate(train)),
        ("is one file; a list", lambda fitted, train: fitted.decision_function(str(train[0]))),
        ("is one file; a list", lambda fitted, train: fitted.detect(Path(train[0]))),
        ("is one file; a list", lambda fitted, train: fitted.calibrate("a.wav")),
        ("is one file; a list", lambda fitted, train: SoundDetector().fit("a.wav")),
        ("is one file; a list", lambda fitted, train: SoundDetector().fit(train[0])),
        ("is one file; a list", lambda fitted, train: SoundDetector().fit(None)),
        ("is one file; a list", lambda fitted, train: fitted.detect(3)),
        ("type int64", lambda fitted, train: fitted.detect([np.zeros(16000, int)])),
        ("A NoneType is no path", lambda fitted, train: SoundDetector().fit([*train, None])),
        ("contamination is 'auto'", lambda fitted, train: SoundDetector(contamination="auto").fit(train)),
        ("contamination is nan", lambda fitted, train: SoundDetector(contamination=float("nan")).fit(train)),
        ("neighbours is 1.5", lambda fitted, train: SoundDetector(neighbours=1.5).fit(train)),
        ("components is '4'", lambda fitted, train: SoundDetector("gmm", components="4").fit(train)),
        ("seed is -1", lambda fitted, train: SoundDetector("gmm", seed=-1).fit(train)),
        ("trained network as checkpoint", lambda fitted, train: SoundDetector("vqvae").fit(train)),
    ],
)
def test_mistakes_are_sentences(root, sentence, call):
    train = files(root, "fan", "train")[:6]
    with pytest.raises(DataError, match=sentence):
        call(SoundDetector().fit(train), train)


@pytest.mark.parametrize("kind", ["fan", "pump"])
def test_a_microphone_that_is_turned_up_or_down_is_no_fault(root, kind):
    detector, alarms = SoundDetector().fit(files(root, kind, "train")), []
    sounds = [soundfile.read(path)[0] for path in files(root, kind, "test")]
    for gain in (-6, -1, 1, 6):
        table = detector.detect([np.clip(sound * 10 ** (gain / 20), -1, 1) for sound in sounds])
        alarms.append(table["is_anomaly"].sum())
        assert table["level_db"].median() == pytest.approx(gain, abs=1)
    assert max(alarms) <= most(40, len(sounds), 0.05)


def two_microphones(first, second):
    "Six recordings of two channels."
    random = np.random.default_rng(0)
    noise = random.normal(0, 0.02, (6, 32000, 2))
    return list(np.clip(noise * (first, second), -0.1, 0.1))


def test_the_microphone_is_chosen_by_number_mean_or_best():
    dead_first = two_microphones(0, 1)
    with pytest.raises(DataError, match=r"channel 0 is silent.* channel=1 hears something"):
        SoundDetector().fit(dead_first)
    for channel, heard in ((1, 1), ("mean", "mean"), ("best", 1)):
        assert SoundDetector(channel=channel).fit(dead_first).rows_.listening.channel == heard
    assert SoundDetector(channel="best").fit(two_microphones(1, 5)).rows_.listening.channel == 0  # the other clips
    with pytest.raises(DataError, match="has 2 channels, so there is no channel 2"):
        SoundDetector(channel=2).fit(dead_first)


def test_notes_tell_of_bad_sound_and_of_few_clips():
    clipped = SoundDetector().fit(two_microphones(5, 1))
    assert any("6 of 6 training pieces: clipped" in note for note in clipped.notes_)
    assert any("6 training pieces are too few for a share of 0.05, which takes 19" in note for note in clipped.notes_)
    few = SoundDetector(contamination=0.2).fit(two_microphones(0.5, 1))
    assert few.notes_ == []
    told = few.detect([np.zeros(32000), *two_microphones(5, 1)[:1]])["note"]
    assert told.tolist() == ["silent", "clipped"]

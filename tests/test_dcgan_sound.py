"""Recordings, pictures, detector and commands, from outside."""

import sys
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile
import torch
from forked import run_script

from anomaly_nb.core import DataError
from anomaly_nb.dcgan import (
    SpectrogramDataset,
    SpectrogramDetector,
    SpectrogramFormat,
    audio_to_spectrograms,
    engine_recordings,
    spectrogram_to_audio,
    synthesize_engine,
    synthesize_engines,
    write_engines,
)
from anomaly_nb.dcgan.networks import DCGANDiscriminator
from anomaly_nb.dcgan.spectrograms import prepare_folder, rows_to_magnitude, spectral_convergence

torch.set_num_threads(1)


@pytest.mark.parametrize("rpm, cylinders", [(1200, 4), (3000, 4), (2400, 6), (4500, 3)])
def test_known_speed_is_in_the_sound(rpm, cylinders):
    sound = synthesize_engine(rpm, cylinders, "smooth_39", 4.0, noise=0.05, seed=rpm)
    spectrum = np.abs(np.fft.rfft(sound * np.hanning(len(sound)), 4 * len(sound))) ** 2
    hertz = np.fft.rfftfreq(4 * len(sound), 1 / 22050)
    rates = np.arange(20, 400, 0.25)
    harmonics = [[spectrum[np.searchsorted(hertz, k * rate)] for k in (1, 2, 3, 4)] for rate in rates]
    orders = rates[np.argmax(np.log(np.array(harmonics) + 1e-6).sum(axis=1))] / (rpm / 120)
    assert abs(orders - round(orders)) < 0.1 and round(orders) >= 1  # the firing rate or a half order of it


def test_round_trip_keeps_the_sound():
    sounds = np.stack([audio[20000:36256] for audio in engine_recordings().values()])
    parts = [audio_to_spectrograms(sound) for sound in sounds]
    pictures = np.round(np.concatenate([part.pictures for part in parts]) * 255) / 255
    back = spectrogram_to_audio(pictures, level=np.concatenate([part.level for part in parts]))
    assert spectral_convergence(sounds, back).mean() < -20
    np.testing.assert_allclose(back.std(axis=1), sounds.std(axis=1), rtol=0.1)


def test_reflections_get_nearer_than_griffin_lim():
    sounds = np.stack([audio[start : start + 16256] for audio in engine_recordings().values() for start in (0, 24000)])
    parts = [audio_to_spectrograms(sound) for sound in sounds]
    pictures, level = np.concatenate([part.pictures for part in parts]), np.concatenate([part.level for part in parts])
    ways = [spectrogram_to_audio(pictures, level=level, iterations=40, reflection=step) for step in (0.0, 0.8)]
    plain, reflected = (spectral_convergence(sounds, way).mean() for way in ways)
    assert reflected < plain - 1
    alone = spectrogram_to_audio(pictures[:1], level=level[:1], iterations=40)
    both = [spectral_convergence(sounds[:1], way[:1])[0] for way in (alone, ways[1])]
    assert abs(both[0] - both[1]) < 0.2  # rounding sends the phases elsewhere, to the same quality


def test_a_picture_does_not_depend_on_others():
    sound = synthesize_engines(1, seconds=2.0)[0][0]
    whole = audio_to_spectrograms(sound)
    alone = audio_to_spectrograms(sound[: SpectrogramFormat().samples])
    assert np.allclose(whole.pictures[0], alone.pictures[0], atol=1e-5)


def test_a_quiet_sound_beside_a_loud_one():
    bank = SpectrogramFormat().bank
    rows = torch.rand(2, len(bank), 3, generator=torch.Generator().manual_seed(0))
    rows[0] *= 1e-8
    both, alone = rows_to_magnitude(rows, bank), rows_to_magnitude(rows[:1], bank)
    torch.testing.assert_close(both[:1], alone, rtol=1e-3, atol=1e-12)


def late(seconds):
    "Silence, but for the last few samples, which do not fill a step."
    sound = np.zeros(round(22050 * seconds), np.float32)
    sound[-1000:] = 0.5
    return sound


@pytest.mark.parametrize("kind", ["silent", "short", "text", "empty", "late"])
def test_unusable_recordings_are_named(tmp_path, kind):
    audio = tmp_path / "audio"
    write_engines(audio, 1, seconds=1.0)
    bad = audio / "zz_bad.wav"
    if kind == "text":
        bad.write_text("no sound")
    else:
        sounds = {"silent": np.zeros(22050), "short": np.zeros(3), "empty": np.zeros(0), "late": late(1.0)}
        soundfile.write(bad, sounds[kind], 22050)
    with pytest.raises(DataError, match=r"zz_bad\.wav"):
        prepare_folder(audio, tmp_path / "dataset")
    assert not [path for path in (tmp_path / "dataset").rglob("*") if path.name != ".lock"]  # not a picture is left


def test_recordings_of_the_same_name(tmp_path):
    sound = synthesize_engine(2000, seconds=1.0)
    for name in ("a/b", "c/b"):
        (tmp_path / "audio" / name).parent.mkdir(parents=True)
        soundfile.write(tmp_path / "audio" / f"{name}.wav", sound, 22050)
    table = prepare_folder(tmp_path / "audio", tmp_path / "dataset")
    assert set(table["source"]) == {"a/b.wav", "c/b.wav"} and table["spectrogram_file"].is_unique
    soundfile.write(tmp_path / "audio" / "a_b.wav", sound, 22050)
    with pytest.raises(DataError, match="would have the names of those of"):
        prepare_folder(tmp_path / "audio", tmp_path / "other")


def test_stereo_8_bit_and_96_khz(tmp_path):
    audio = tmp_path / "audio"
    audio.mkdir()
    sound = synthesize_engine(2000, seconds=1.0)
    soundfile.write(audio / "stereo.flac", np.stack([sound, sound], axis=1), 22050)
    soundfile.write(audio / "eight.wav", sound, 22050, subtype="PCM_U8")
    soundfile.write(audio / "fast.wav", np.repeat(sound, 4), 96000)
    soundfile.write(audio / "ogg.ogg", sound, 22050)
    table = prepare_folder(audio, tmp_path / "dataset")
    assert set(table["source"]) == {"stereo.flac", "eight.wav", "fast.wav", "ogg.ogg"}
    assert len(SpectrogramDataset(tmp_path / "dataset")) == len(table)


def test_dataset_faults(tmp_path):
    from PIL import Image

    with pytest.raises(DataError, match="no recordings"):
        prepare_folder(tmp_path, tmp_path / "dataset")
    with pytest.raises(DataError, match="spectrograms_path"):
        SpectrogramDataset(tmp_path)
    Image.new("L", (64, 32)).save(tmp_path / "wide.png")
    with pytest.raises(DataError, match=r"wide\.png: 64 by 32 pixels; image_size"):
        SpectrogramDataset(tmp_path, 64)
    pd.DataFrame({"other": ["wide.png"]}).to_csv(tmp_path / "spectrograms-metadata.csv")
    with pytest.raises(DataError, match="no column"):
        SpectrogramDataset(tmp_path, 64)


@pytest.mark.parametrize("column", ["spectrogram_file", "filename", "image_file", "full_path"])
def test_columns_of_earlier_datasets(tmp_path, column):
    from PIL import Image

    Image.new("L", (64, 64), 255).save(tmp_path / "a.png")
    name = str(tmp_path / "a.png") if column == "full_path" else "a.png"
    pd.DataFrame({column: [name]}).to_csv(tmp_path / "spectrograms-metadata.csv")
    dataset = SpectrogramDataset(tmp_path, 64, spectrograms=".")
    assert dataset[0].shape == (1, 64, 64) and (dataset[0] == 1).all()


def test_npy_and_png_have_the_same_range(tmp_path):
    from PIL import Image

    values = np.linspace(0, 1, 64 * 64).reshape(64, 64)
    np.save(tmp_path / "a.npy", values)
    Image.fromarray(np.round(values[::-1] * 255).astype(np.uint8)).save(tmp_path / "b.png")
    dataset = SpectrogramDataset(tmp_path, 64)
    assert torch.equal(dataset[0], dataset[1]) and dataset[0].min() == -1
    np.save(tmp_path / "c.npy", values * 2)
    with pytest.raises(DataError, match=r"c\.npy"):
        SpectrogramDataset(tmp_path, 64)


def test_detector_contract(tmp_path):
    engines = list(synthesize_engines(8, seconds=1.0)[0])
    detector = SpectrogramDetector("picture", cutoff=5000).fit(engines)
    scores = detector.decision_function(engines)
    assert np.array_equal(scores[:1], detector.decision_function(engines[:1]))
    detector.save(tmp_path)
    assert np.array_equal(SpectrogramDetector.load(tmp_path).decision_function(engines), scores)
    assert set(detector.predict(engines)) <= {0, 1} and len(detector.detect(engines)) == 8
    with pytest.raises(DataError, match="4 or more"):
        SpectrogramDetector("picture").fit(engines[:3])


@pytest.fixture(scope="module")
def fitted():
    return SpectrogramDetector("picture").fit(sound for sound in synthesize_engines(4, seconds=0.5)[0])


def test_a_recording_with_sound_where_nothing_looks_is_named(fitted, tmp_path):
    with pytest.raises(DataError, match=r"^All windows of the sound are silent"):
        audio_to_spectrograms(late(1.0))
    soundfile.write(tmp_path / "late.wav", late(1.0), 22050)
    for verb in (fitted.decision_function, SpectrogramDetector("picture").fit):
        with pytest.raises(DataError, match=r"late\.wav: All windows"):
            verb([tmp_path / "late.wav"] * 4)
        with pytest.raises(DataError, match=r"^All windows"):
            verb([late(1.0)] * 4)


def test_files_may_come_one_after_another_or_in_a_column(fitted, tmp_path):
    write_engines(tmp_path, 2, seconds=0.5)
    files = sorted(tmp_path.glob("*.wav"))
    names = ["engine_000.wav", "engine_001.wav"]
    for given in (iter(files), pd.Series([str(file) for file in files]), np.array(files)):
        assert fitted.detect(given)["recording"].tolist() == names


@pytest.mark.parametrize(
    "given, sentence",
    [
        ("engine.wav", "'engine.wav' is one recording; a list is needed"),
        (Path("engine.wav"), "'engine.wav' is one recording; a list is needed"),
        (np.ones(9999, np.float32), "An array of 9999 samples is one recording; a list is needed"),
        (None, "'None' is one recording"),
        (3, "'3' is one recording"),
        ([], "There is no recording in the list"),
        ([None], "1 samples .* are shorter"),
        ([{}], "The sound: .* Expected .* samples of one channel"),
    ],
)
def test_what_is_no_list_of_recordings_is_said_so(fitted, given, sentence):
    for verb in (fitted.detect, fitted.decision_function, SpectrogramDetector("picture").fit):
        with pytest.raises(DataError, match=sentence):
            verb(given * 4 if isinstance(given, list) else given)


@pytest.mark.parametrize("name, value", [("cutoff", -5), ("cutoff", 1e9), ("contamination", "few"), ("seed", -1)])
def test_settings_out_of_range_are_named(name, value):
    with pytest.raises(DataError, match=f"{name} is {value!r}; it must be"):
        SpectrogramDetector("picture", **{name: value}).fit(list(synthesize_engines(4, seconds=0.5)[0]))


@pytest.mark.parametrize("norm", ["batch", "spectral"])
def test_a_fitted_detector_needs_no_checkpoint(tmp_path, norm):
    engines, checkpoint = list(synthesize_engines(6, seconds=1.0)[0]), tmp_path / "model.tar"
    discriminator = DCGANDiscriminator(8, 64, norm=norm)
    discriminator(torch.rand(4, 1, 64, 64))  # the running means are no longer the first ones
    recipe = {
        "model": {"features_d": 8, "image_size": 64, "channels": 1},
        "recipe": {"spectral_norm": norm == "spectral"},
    }
    content = {"discriminator": discriminator.state_dict(), "config": recipe, "format": asdict(SpectrogramFormat(64))}
    torch.save(content, checkpoint)
    before = torch.get_rng_state()
    detector = SpectrogramDetector(checkpoint=str(checkpoint), against="neighbours").fit(engines)
    scores = detector.decision_function(engines)
    assert torch.equal(torch.get_rng_state(), before)
    detector.save(tmp_path / "kept")
    checkpoint.write_bytes(b"another")
    assert np.array_equal(detector.decision_function(engines), scores)
    assert np.array_equal(SpectrogramDetector.load(tmp_path / "kept").decision_function(engines), scores)
    assert torch.equal(torch.get_rng_state(), before)


def command(folder, name, *options):
    script = Path(sys.executable).with_name(name)
    return run_script(script, *options, folder=folder, environment={"IN_TEST": "1"})


def test_commands(tmp_path):
    write_engines(tmp_path / "recordings", 3, seconds=1.5)
    assert command(tmp_path, "dcgan_prepare", "recordings", "--image-size", "64").returncode == 0
    options = ["--config", "config_test", "--epochs", "1", "--features-g", "4", "--features_d", "4", "--device", "cpu"]
    done = command(tmp_path, "dcgan_train", *options, "--learning-rate=0.001", "--output-dir", "mine")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "mine/plots/epoch_loss_curves.png").exists() and (
        tmp_path / "mine/training_summary.json"
    ).exists()
    assert pd.read_csv(tmp_path / "mine/epochs_statistics/epoch_statistics.csv")["learning_rate_g"].iloc[0] == 0.001
    assert command(tmp_path, "dcgan_generate", "mine/checkpoints/best_model.tar", "--number", "2").returncode == 0
    sound, rate = soundfile.read(tmp_path / "generated/sample_02.wav")
    assert rate == 22050 and np.abs(sound).max() > 0.5
    options = ["--batch-convert", "mine/samples", "--mode", "both", "--output", "images"]
    done = command(tmp_path, "dcgan_npy_to_images", *options)
    assert done.returncode == 0 and list((tmp_path / "images").rglob("*.png"))


@pytest.mark.parametrize(
    "options, named",
    [
        (["--epochs", "0"], "training.epochs"),
        (["--image-size", "100"], "model.image_size"),
        (["--learning-rate", "7"], "training.learning_rate"),
        (["--config", "nothing"], "nothing"),
        (["--config", "config_test"], "no pictures here"),
    ],
)
def test_command_faults(tmp_path, options, named):
    done = command(tmp_path, "dcgan_train", *options)
    assert done.returncode == 1 and done.stderr.strip().splitlines()[-1].startswith("error: ") and named in done.stderr


@pytest.mark.parametrize("suffix", [".wav", ".flac", ".ogg", ".mp3"])
def test_recordings_of_each_kind_become_pictures(tmp_path, suffix):
    sound = synthesize_engine(1800, 4, "smooth_39", 1.6, seed=1)
    (tmp_path / "audio").mkdir()
    soundfile.write(tmp_path / "audio" / f"engine{suffix}", sound, 22050)
    table = prepare_folder(tmp_path / "audio", tmp_path / "dataset", SpectrogramFormat(64))
    exact = audio_to_spectrograms(sound, 22050, SpectrogramFormat(64)).pictures
    pictures = SpectrogramDataset(tmp_path / "dataset", 64).pictures()
    assert set(table["source"]) == {f"engine{suffix}"} and np.isfinite(pictures).all()
    n = min(len(pictures), len(exact))  # MP3 pads the ends
    assert np.abs(pictures[:n] - exact[:n]).mean() < (0.005 if suffix in (".wav", ".flac") else 0.1)

"""Sound files and log-mel spectrograms: references, and files that nobody should have kept."""

from dataclasses import replace

import librosa
import numpy as np
import pytest
import soundfile
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from anomaly_nb.audio import HTK, SLANEY, audio_info, griffin_lim, log_mel, read_audio, resample, write_audio
from anomaly_nb.core import DataError


def by_librosa(audio, recipe):
    options = {} if recipe.scale == "slaney" else {"htk": True, "norm": None}
    power = librosa.feature.melspectrogram(
        y=audio, sr=16000, n_fft=1024, hop_length=512, n_mels=128, pad_mode=recipe.pad_mode, **options
    )
    if recipe.add_floor:
        return 10 * np.log10(power + recipe.floor)
    return librosa.power_to_db(power, ref=1.0, amin=recipe.floor, top_db=recipe.top_db)


@pytest.mark.parametrize("recipe", [HTK, SLANEY, replace(SLANEY, pad_mode="reflect")])
@settings(max_examples=8, deadline=None)
@given(samples=st.integers(513, 200_000), level=st.floats(1e-4, 1), seed=st.integers(0, 99))
def test_log_mel_is_librosas(recipe, samples, level, seed):
    random = np.random.default_rng(seed)
    tone = np.sin(2 * np.pi * random.uniform(50, 7000) * np.arange(samples) / 16000)
    audio = (level * (0.5 * tone + 0.1 * random.normal(size=samples))).astype(np.float32)
    own, reference = log_mel(audio, recipe), by_librosa(audio, recipe)
    heard = reference > reference.max() - 70  # below, both are rounding errors of float32
    assert np.abs(own - reference)[heard].max() < 1e-3


def test_silence_and_range():
    assert np.allclose(HTK(np.zeros(16000)), -100)
    click = np.zeros(16000)
    click[8000] = 1
    assert np.ptp(HTK(click)) == pytest.approx(80, abs=1e-3)
    assert np.isfinite(SLANEY(np.zeros(16000))).all()


def test_batches_are_their_clips():
    audio = np.random.default_rng(0).normal(size=(3, 20_000))
    assert all(np.array_equal(one, log_mel(clip)) for one, clip in zip(log_mel(audio), audio, strict=True))


@pytest.mark.parametrize("bad", [np.zeros(512), np.zeros((2, 3, 4000)), np.full(4000, np.inf), np.full(4000, np.nan)])
def test_log_mel_refuses(bad):
    with pytest.raises(DataError):
        log_mel(bad)


@pytest.mark.parametrize("channels", [1, 2, 8])
def test_a_channel_is_chosen_not_mixed(tmp_path, channels):
    audio = np.random.default_rng(1).uniform(-0.5, 0.5, (4001, channels))
    soundfile.write(tmp_path / "a.wav", audio, 16000)
    assert audio_info(tmp_path / "a.wav") == (16000, channels, 4001)
    assert np.allclose(read_audio(tmp_path / "a.wav"), audio[:, 0], atol=1e-4)
    assert np.allclose(read_audio(tmp_path / "a.wav", channel=channels - 1), audio[:, -1], atol=1e-4)


@pytest.mark.parametrize("rate", [8000, 11025, 44100, 48000])
def test_other_rates_are_resampled(tmp_path, rate):
    time = np.arange(rate) / rate
    write_audio(tmp_path / "a.wav", 0.5 * np.sin(2 * np.pi * 440 * time), rate)
    expected = 0.5 * np.sin(2 * np.pi * 440 * np.arange(16000) / 16000)
    assert np.abs(read_audio(tmp_path / "a.wav")[500:-500] - expected[500:-500]).max() < 5e-3
    assert len(read_audio(tmp_path / "a.wav", None)) == rate


def test_hostile_files(tmp_path):
    path = tmp_path / "a.wav"
    write_audio(path, np.zeros(16000))
    whole = path.read_bytes()
    for content in (b"", b"RIFF", whole[:30], whole[:-2000], b"\x00" * 5000, b"RIFF\xff\xff\xff\x7fWAVE" + b"x" * 99):
        path.write_bytes(content)
        with pytest.raises(DataError, match=r"a\.wav"):
            read_audio(path)
    soundfile.write(path, np.array([0.0, np.nan, 0.0]), 16000, subtype="FLOAT")
    with pytest.raises(DataError, match="NaN"):
        read_audio(path)
    with pytest.raises(DataError, match="no such file"):
        read_audio(tmp_path / "none.wav")
    with pytest.raises(DataError):
        read_audio(tmp_path)


def test_writing_keeps_the_level(tmp_path):
    audio = np.array([0.25, -0.25, 2.0, -2.0])
    for suffix in (".wav", ".flac"):
        write_audio(tmp_path / f"a{suffix}", audio)
        assert np.allclose(read_audio(tmp_path / f"a{suffix}"), [0.25, -0.25, 1, -1], atol=1e-4)


@pytest.mark.parametrize(
    "name, audio, rate, message",
    [
        ("a.wav", [np.nan, 0.5], 16000, r"a\.wav: NaN"),
        ("a.xyz", [0.5], 16000, r"a\.xyz: Unknown format"),
        ("a.wav", ["loud"], 16000, r"a\.wav: could not convert"),
        ("a.wav", [0.5], -5, "sample_rate is -5"),
    ],
)
def test_what_is_no_sound_is_not_written(tmp_path, name, audio, rate, message):
    with pytest.raises(DataError, match=message):
        write_audio(tmp_path / name, audio, rate)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("rate", [-8000, 0, 8000.5])
def test_rates_that_are_none(tmp_path, rate):
    write_audio(tmp_path / "a.wav", np.zeros(99))
    with pytest.raises(DataError, match="sample_rate is"):
        read_audio(tmp_path / "a.wav", rate)
    with pytest.raises(DataError, match="target is"):
        resample(np.zeros(99, np.float32), 16000, rate)


def test_griffin_lim_keeps_magnitudes():
    time = torch.arange(8000) / 8000
    sound = torch.stack([torch.sin(2 * torch.pi * f * time) for f in (200.0, 900.0)])
    window = torch.hann_window(512)
    target = torch.stft(sound, 512, 128, window=window, return_complex=True).abs()
    again = griffin_lim(target, 128, 8000, iterations=60)
    reached = torch.stft(again, 512, 128, window=window, return_complex=True).abs()
    assert float((reached - target).norm() / target.norm()) < 0.1
    assert torch.equal(again, griffin_lim(target, 128, 8000, iterations=60))
    alone = torch.cat([griffin_lim(target[i : i + 1], 128, 8000, iterations=3) for i in (0, 1)])
    for copies in (1, 2, 3, 4):  # as many as fit, and more
        together = griffin_lim(target.repeat(copies, 1, 1), 128, 8000, iterations=3)
        assert torch.allclose(together, alone.repeat(copies, 1), atol=1e-5)


def test_whole_numbers_have_another_full_scale(tmp_path):
    recorded = (1000 * np.sin(np.arange(2000))).astype(np.int16)
    for use in (lambda: write_audio(tmp_path / "a.wav", recorded), lambda: log_mel(recorded)):
        with pytest.raises(DataError, match=r"samples are int16\. Divide them by their full scale"):
            use()
    assert not list(tmp_path.iterdir())

"""Embedding and quality scores beside independent formulas, torchmetrics, and the original network's own numbers."""

import numpy as np
import pytest
import torch
from scipy.linalg import sqrtm
from scipy.ndimage import gaussian_filter
from torchmetrics.image.fid import _compute_fid
from torchmetrics.image.inception import InceptionScore
from torchmetrics.image.kid import poly_mmd

from anomaly_nb.core import DataError
from anomaly_nb.dcgan.embedding import SoundEmbedding, embed_sounds, sound_blocks
from anomaly_nb.dcgan.quality import (
    diversity,
    domain_classifier,
    frechet_distance,
    inception_features,
    inception_score,
    kernel_distance,
    lpips,
    memorisation,
    quality_table,
    ssim,
)

RNG = np.random.default_rng(0)
A, B = RNG.normal(size=(300, 12)) @ RNG.normal(size=(12, 12)), RNG.normal(size=(300, 12)) + 0.3


@pytest.fixture(autouse=True)
def one_thread():
    torch.set_num_threads(1)


def test_frechet_equals_the_matrix_root_and_torchmetrics():
    covariances = np.cov(A, rowvar=False), np.cov(B, rowvar=False)
    means = A.mean(0), B.mean(0)
    root = sqrtm(covariances[0] @ covariances[1]).real
    expected = np.square(means[0] - means[1]).sum() + np.trace(covariances[0] + covariances[1] - 2 * root)
    assert frechet_distance(A, B) == pytest.approx(expected, rel=1e-9)
    arguments = [torch.from_numpy(x) for x in (means[0], covariances[0], means[1], covariances[1])]
    assert frechet_distance(A, B) == pytest.approx(float(_compute_fid(*arguments)), rel=1e-6)


def test_frechet_of_fewer_samples_than_features():
    a, b = RNG.normal(size=(20, 200)), RNG.normal(size=(30, 200))
    eigenvalues = np.linalg.eigvals(np.cov(a, rowvar=False) @ np.cov(b, rowvar=False)).astype(complex)
    traces = np.var(a, axis=0, ddof=1).sum() + np.var(b, axis=0, ddof=1).sum()
    expected = np.square(a.mean(0) - b.mean(0)).sum() + traces - 2 * np.sqrt(eigenvalues).real.sum()
    assert frechet_distance(a, b) == pytest.approx(expected, rel=1e-4)
    assert frechet_distance(a, a) == pytest.approx(0, abs=1e-9)
    assert frechet_distance(a, b) == pytest.approx(frechet_distance(b, a), rel=1e-12)


def test_kernel_equals_a_double_loop_and_torchmetrics():
    a, b = A[:25], B[:31]
    k = lambda x, y: (x @ y / 12 + 1) ** 3  # noqa: E731
    within = lambda s: np.mean([k(x, y) for i, x in enumerate(s) for j, y in enumerate(s) if i != j])  # noqa: E731
    expected = within(a) + within(b) - 2 * np.mean([k(x, y) for x in a for y in b])
    assert kernel_distance(a, b) == pytest.approx(expected, rel=1e-10)
    theirs = float(poly_mmd(torch.from_numpy(A), torch.from_numpy(B)))
    assert kernel_distance(A, B) == pytest.approx(theirs, rel=1e-6)


def test_the_kernel_distance_is_unbiased_and_the_frechet_is_not():
    pairs = [np.split(np.random.default_rng(i).normal(size=(40, 16)), 2) for i in range(400)]
    kernel = np.array([kernel_distance(*pair) for pair in pairs])
    assert abs(kernel.mean()) < 3 * kernel.std() / 20
    assert np.mean([frechet_distance(*pair) for pair in pairs]) > 3


def test_inception_score_equals_its_formula():
    logits = RNG.normal(size=(103, 7)) * 3
    chances = torch.softmax(torch.from_numpy(logits), 1).numpy()
    scores = []
    for i in range(10):
        part = chances[i * 103 // 10 : (i + 1) * 103 // 10]
        scores.append(np.exp(np.mean([(p * np.log(p / part.mean(0))).sum() for p in part])))
    assert inception_score(logits) == pytest.approx((np.mean(scores), np.std(scores)), rel=1e-6)
    assert inception_score(logits + 1e4) == pytest.approx(inception_score(logits), rel=1e-9)
    assert np.isfinite(inception_score(logits * 1e4)).all()
    with pytest.raises(DataError, match="sample per split"):
        inception_score(logits[:9])


@pytest.mark.filterwarnings("ignore:Metric `InceptionScore`:UserWarning", "ignore:std:UserWarning")
@pytest.mark.parametrize("splits", [1, 4, 10])
def test_inception_score_equals_torchmetrics_and_torch_fidelity(monkeypatch, splits):
    """torchmetrics divides the deviation by one less than the splits, torch-fidelity and this library by the splits.

    Both shuffle first, which is left out here.
    """
    logits = np.random.default_rng(3).normal(size=(120, 9)) * 2
    monkeypatch.setattr(torch, "randperm", torch.arange)
    theirs = InceptionScore(torch.nn.Identity(), splits=splits).set_dtype(torch.float64)
    theirs.update(torch.from_numpy(logits))
    mean, deviation = (float(value) for value in theirs.compute())
    found = inception_score(logits, splits)
    assert found[0] == pytest.approx(mean, rel=1e-9)
    if splits > 1:
        assert found[1] * np.sqrt(splits / (splits - 1)) == pytest.approx(deviation, rel=1e-9)
    chances, scores = torch.from_numpy(logits).softmax(1), []  # as torch-fidelity computes it
    for i in range(splits):
        part = chances[i * 120 // splits : (i + 1) * 120 // splits]
        scores.append(float((part * (part.log() - part.mean(0, keepdim=True).log())).sum(1).mean().exp()))
    assert found == pytest.approx((np.mean(scores), np.std(scores)), rel=1e-9, abs=1e-12)


def test_inception_score_of_a_domain_classifier():
    centres = RNG.normal(size=(3, 8)) * 6
    labels = np.repeat(["v8", "kart", "bus"], 40)
    features = np.repeat(centres, 40, axis=0) + RNG.normal(size=(120, 8))
    classify, order = domain_classifier(features, labels), RNG.permutation(120)
    assert inception_score(classify(features[order]), 2)[0] > 2.7
    assert inception_score(classify(features[:40]), 2)[0] < 1.1


def test_ssim_equals_its_formula():
    a = RNG.random((3, 1, 40, 50))
    b = np.clip(a + RNG.normal(0, 0.1, a.shape), 0, 1)
    for x, y, value in zip(a[:, 0], b[:, 0], ssim(a, b), strict=True):
        blur = lambda z: gaussian_filter(z, 1.5, truncate=5 / 1.5, mode="mirror")  # noqa: E731
        mx, my = blur(x), blur(y)
        vx, vy, cov = blur(x * x) - mx**2, blur(y * y) - my**2, blur(x * y) - mx * my
        image = (2 * mx * my + 1e-4) * (2 * cov + 9e-4) / ((mx**2 + my**2 + 1e-4) * (vx + vy + 9e-4))
        assert value == pytest.approx(image.mean(), abs=2e-5)
    np.testing.assert_array_equal(ssim(a[1:2], b[1:2]), ssim(a, b)[1:2])
    assert ssim(a, a) == pytest.approx(np.ones(3), abs=1e-6)


def test_lpips_equals_its_formula_with_a_network_and_weights_of_ones_own():
    torch.manual_seed(0)
    layers = [torch.nn.Conv2d(3, 5, 3), torch.nn.Conv2d(5, 4, 3, stride=2)]

    def stages(x):
        first = layers[0](x)
        return [first, layers[1](first.relu())]

    weights = [RNG.random(5), RNG.random(4)]
    a, b = torch.rand(2, 3, 16, 16), torch.rand(2, 3, 16, 16)
    found = lpips(a, b, stages, weights)
    for i in range(2):
        expected = 0.0
        for x, y, w in zip(stages(a), stages(b), weights, strict=True):
            x, y = x[i].detach().double().numpy(), y[i].detach().double().numpy()
            unit = x / np.sqrt((x**2).sum(0)) - y / np.sqrt((y**2).sum(0))
            expected += (w[:, None, None] * unit**2).sum(0).mean()
        assert found[i] == pytest.approx(expected, rel=1e-5)


def test_lpips_of_the_sound_network_orders_pictures():
    rows = np.abs(np.sin(np.arange(64) / 3))[:, None] * np.ones(64)
    a = np.repeat(rows[None, None], 4, axis=0)
    b = np.clip(np.stack([rows + s * RNG.normal(size=rows.shape) for s in (0, 0.02, 0.1, 0.4)])[:, None], 0, 1)
    distances = lpips(a, b)
    assert distances[0] == 0 and (np.diff(distances) > 0).all()
    with pytest.raises(DataError, match="grey"):
        lpips(np.ones((1, 3, 32, 32)), np.ones((1, 3, 32, 32)))
    with pytest.raises(DataError, match="NaN"):
        lpips(a, b * np.nan)


@pytest.mark.parametrize("measure", [ssim, lpips])
@pytest.mark.parametrize("kind, scale", [(np.uint8, 255), (np.float64, 255), (np.int64, 1), (np.float32, -1)])
def test_pictures_of_another_range_are_refused(measure, kind, scale):
    right, wrong = np.full((1, 1, 16, 16), 0.5), np.full((1, 1, 16, 16), scale, kind)
    for pair in ((wrong, wrong), (right, wrong), (wrong, right)):
        with pytest.raises(DataError, match=f"Pictures of {np.dtype(kind)} from {scale} .*Divide by 255"):
            measure(*pair)
    assert measure(right + 0.5005, right + 0.5005)[0] == pytest.approx({ssim: 1, lpips: 0}[measure], abs=1e-6)


def test_a_network_of_ones_own_may_have_a_range_of_its_own():
    a, b = torch.full((1, 1, 8, 8), -1.0), torch.full((1, 1, 8, 8), 255.0)
    assert lpips(a, b, lambda x: [x]) == pytest.approx(4)


def test_memorisation_tells_copies_from_new_samples():
    training, new = RNG.normal(size=(200, 6)), RNG.normal(size=(100, 6))
    held_out = RNG.normal(size=(150, 6))
    for reference in (None, held_out):
        assert memorisation(new, training, reference).p_value > 1e-3
        copies = memorisation(training[:80] + 0.01 * new[:80], training, reference)
        assert copies.p_value < 1e-9 and copies.share == 1 and copies.ratio < 0.1


def test_diversity_and_the_table_name_what_they_measure():
    assert diversity(A[:2]) == pytest.approx(np.linalg.norm(A[0] - A[1]))
    table = quality_table(A[:50], B, A[60:120], "domain_cnn").set_index("measure")
    assert all("domain_cnn" in name for name in table.index)
    assert table.loc["kernel_domain_cnn_held_out", "n_real"] == 60
    assert table.loc["kernel_domain_cnn_training", "value"] == kernel_distance(A[:50], B)
    assert (table["n_generated"] == 50).all()


@pytest.mark.parametrize("score", [frechet_distance, kernel_distance, memorisation])
@pytest.mark.parametrize("bad", [np.ones((1, 12)), np.full((5, 12), np.nan), np.ones(12), np.ones((5, 3)), [["a"]]])
def test_bad_features_are_refused(score, bad):
    with pytest.raises(DataError):
        score(A, bad)


class Stand(torch.nn.Module):
    "A stand-in for the Inception file: the same call, colours' means as features."

    def forward(self, x: torch.Tensor, return_features: bool = False) -> torch.Tensor:
        assert x.dtype == torch.uint8 and return_features
        return x.float().mean(dim=(2, 3))


def test_inception_needs_a_file_and_uses_it(tmp_path):
    path = tmp_path / "network.pt"
    torch.jit.script(Stand()).save(str(path))
    features = inception_features(np.stack([np.zeros((1, 8, 8)), np.full((1, 8, 8), 0.999)]), path)
    np.testing.assert_allclose(features, [[0, 0, 0], [255, 255, 255]])
    (tmp_path / "broken.pt").write_bytes(b"no network")
    for wrong in (None, tmp_path / "none.pt", tmp_path / "broken.pt"):
        with pytest.raises(DataError, match=r"inception-2015-12-05\.pt"):
            inception_features(np.zeros((2, 1, 8, 8)), wrong)


# First eight features and the length of all, computed once with the original package's network (float32, its own
# checkpoint) on librosa's mel spectrogram, time by band.
ORIGINAL = {
    "chirp": (44100, [2.925338, 0.686887, 0.537630, 0.879832, 0.416445, 2.460809, 4.460609, 1.625735], 48.370178),
    "pulses": (22050, [1.726610, 0.021795, 0.124737, 0.615173, 0.301801, 1.384170, 1.009543, 0.401190], 30.621980),
}
SOUNDS = {
    "chirp": lambda t: np.sin(2 * np.pi * (200 * t + 900 * t * t)),
    "pulses": lambda t: np.sin(2 * np.pi * 55 * t) ** 31,
}


@pytest.mark.parametrize("name", ORIGINAL)
def test_the_embedding_equals_the_originals(name):
    rate, first, length = ORIGINAL[name]
    features = embed_sounds(SOUNDS[name](np.arange(int(1.5 * rate)) / rate), rate)
    assert features.shape == (1, 512)
    np.testing.assert_allclose(features[0, :8], first, atol=2e-3)
    assert np.linalg.norm(features) == pytest.approx(length, rel=5e-4)


def test_the_front_end_equals_librosas():
    librosa = pytest.importorskip("librosa")
    sound = RNG.normal(size=120000).astype(np.float32)
    sound /= np.abs(sound).max()
    power = librosa.feature.melspectrogram(
        y=sound, sr=44100, n_fft=2048, hop_length=1024, n_mels=96, htk=True, norm=1.0, fmax=22050
    )
    expected = np.log10(1e4 * power + 1).T[:100] / 9.457798957824707
    np.testing.assert_allclose(sound_blocks(sound, 44100)[0], expected, atol=1e-5)


def test_neither_neighbours_nor_level_change_an_embedding():
    rate, t = 22050, np.arange(22050) / 22050
    sounds = np.stack([SOUNDS["pulses"](t), SOUNDS["chirp"](t), RNG.normal(size=len(t))])
    together = embed_sounds(sounds, rate)
    np.testing.assert_array_equal(embed_sounds(sounds[1], rate)[0], together[1])
    np.testing.assert_array_equal(embed_sounds(list(sounds[::-1]), rate)[::-1], together)
    np.testing.assert_allclose(embed_sounds(sounds[1] * 0.01, rate)[0], together[1], rtol=2e-3, atol=2e-3)
    assert not any(p.requires_grad for p in SoundEmbedding().parameters())


def test_the_network_draws_nothing_from_the_callers_random_numbers():
    before = torch.get_rng_state()
    SoundEmbedding()
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("bad", [[], np.zeros(5000), [1.0, np.nan], np.ones((2, 2, 50))])
def test_sounds_that_cannot_be_embedded(bad):
    with pytest.raises(DataError):
        embed_sounds(bad, 22050)

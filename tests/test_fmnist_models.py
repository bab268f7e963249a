"""Every model keeps the contract: scores without dice and batch mates, weights that go to the disk and back, ONNX."""

import numpy as np
import pytest
import torch
from sklearn.model_selection import GridSearchCV

from anomaly_nb.core import DataError
from anomaly_nb.fmnist import FlexibleLoss, ImageDetector, image_tensor, load_subset, make_protocol, train_model
from anomaly_nb.fmnist.base import MODELS, ImageModel, apply, build_model
from anomaly_nb.fmnist.detector import DetectorGraph, load_models
from anomaly_nb.fmnist.scores import SCORES, ImageScorer, ask_all

FIFTEEN = [
    "Autoencoder",
    "CAE",
    "CVAE",
    "DeepCAE",
    "DeepCVAE",
    "DeepVAE",
    "DenoisingAutoencoder",
    "DiffusionUNet",
    "GANomaly",
    "HybridCAE",
    "RobustAutoencoder",
    "SimpleDDPM",
    "SkipConnectionAutoencoder",
    "TransformerAnomalyDetector",
    "VAE",
]
VARIANTS = [(name, {}) for name in FIFTEEN] + [
    ("DenoisingAutoencoder", {"features": "hog"}),
    ("DenoisingAutoencoder", {"features": "contrast"}),
    ("EdgeNeighbours", {}),
]
load_models()
torch.set_num_threads(1)


@pytest.fixture(scope="module")
def task():
    return make_protocol("original", load_subset("train"), load_subset("test"))


@pytest.fixture(scope="module")
def images():
    return image_tensor(load_subset("test")[0][::5])


@pytest.fixture(scope="module", params=VARIANTS, ids=lambda pair: "-".join([pair[0], *pair[1].values()]))
def trained(request, task):
    "A model after one epoch, and its scorer with every part."
    name, options = request.param
    model = build_model(name, **options)
    train_model(model, task.train, FlexibleLoss("mse"), validation=task.validation, epochs=1, progress=False)
    answers = [ask_all(model, image_tensor(part)) for part in (task.train, task.validation)]
    return name, options, ImageScorer(model, "+".join(SCORES)).fit(*answers).eval()


def test_the_fifteen_are_there():
    assert set(FIFTEEN) <= set(MODELS)
    assert all(issubclass(model, ImageModel) for model in MODELS.values())


def unchanging(score, images):
    "Alone, in a batch of seven, shuffled and asked again: the same scores."
    all_at_once = score(images)
    assert torch.equal(all_at_once, score(images))
    scale = all_at_once.abs().clamp(min=1)
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(0))
    assert ((score(images[order]) - all_at_once[order]).abs() / scale[order]).max() < 1e-5
    assert ((score(images[:7]) - all_at_once[:7]).abs() / scale[:7]).max() < 1e-5
    alone = torch.cat([score(image[None]) for image in images[:7]])
    assert ((alone - all_at_once[:7]).abs() / scale[:7]).max() < 1e-5


@torch.no_grad()
def test_scores_know_no_batch_mates_and_no_dice(trained, images):
    unchanging(trained[2].model.anomaly_score, images)
    unchanging(trained[2], images[:50])


@pytest.mark.parametrize("name", sorted(MODELS))
def test_detectors_know_no_batch_mates_to_the_last_bit(name, task):
    "Five images among forty, alone, and backwards."
    model = build_model(name, **({"mem_size": 60} if name == "MultiMemoryAutoencoder" else {}))
    normals, detector = image_tensor(task.train[:80]), ImageDetector()
    model.prepare(normals)
    model.calibrate(normals)
    answers = ask_all(model, normals)
    detector.scorer_, detector.threshold_ = ImageScorer(model, "+".join(SCORES)).fit(answers, answers), 0.0
    for method in (detector.decision_function, detector.anomaly_map):
        five = method(task.test[:5])
        assert np.array_equal(method(task.test[:40])[:5], five)
        assert np.array_equal(np.concatenate([method(image[None]) for image in task.test[:5]]), five)
        assert np.array_equal(method(task.test[4::-1])[::-1], five)


@pytest.mark.slow
@torch.no_grad()
def test_a_thousand_batch_mates(trained):
    thousand = image_tensor(load_subset("test")[0])
    unchanging(trained[2].model.anomaly_score, thousand)
    unchanging(trained[2], thousand)


@torch.no_grad()
def test_outputs_are_images(trained, images):
    _, _, scorer = trained
    model = scorer.model
    drawn, latent = apply(model, "reconstruct", images[:5]), apply(model, "latent", images[:5])
    assert drawn.shape == (5, 1, 28, 28) and drawn.min() >= 0 and drawn.max() <= 1
    assert latent.ndim == 2 and latent.shape[1] < 784
    assert apply(model, "anomaly_map", images[:5]).shape == (5, 28, 28)


@torch.no_grad()
def test_all_that_is_known_is_in_the_weights(trained, images):
    name, options, scorer = trained
    again = ImageScorer(build_model(name, seed=1, **options), "+".join(SCORES))
    again.load_state_dict(scorer.state_dict())
    assert torch.equal(again.eval()(images), scorer(images))


@pytest.mark.parametrize("name", ["SkipConnectionAutoencoder", "HybridCAE"])
def test_anomalies_are_not_copied(task, name):
    "Of the change that a corrupted square makes, most is not in the reconstruction."
    model = build_model(name)
    train_model(model, task.train, FlexibleLoss("mse"), epochs=15, batch_size=32, progress=False)
    clean = image_tensor(task.validation)
    broken, square = clean.clone(), (..., slice(10, 18), slice(10, 18))
    broken[square] = 1 - broken[square]
    change = apply(model, "reconstruct", broken)[square] - apply(model, "reconstruct", clean)[square]
    copied = (change * (broken - clean)[square]).sum() / (broken - clean)[square].square().sum()
    assert copied < 0.5


def test_training_learns_for_every_loss(task):
    "The validation loss falls for each of the grid's five losses."
    for weights in ({"mse": 1}, {"mse": 1, "gradient": 0.1}, {"mse": 1, "ms-ssim": 0.3}, {"charbonnier": 1, "tv": 0.1}):
        model = build_model("VAE")
        loss = FlexibleLoss("+".join(weights), weights)
        history = train_model(
            model, task.train, loss, validation=task.validation, epochs=4, batch_size=16, progress=False
        )
        assert history["val_loss"].iloc[-1] < history["val_loss"].iloc[0]


def test_a_divergence_is_not_a_result(task):
    model = build_model("Autoencoder")
    with pytest.raises(DataError, match=r"the loss is nan|the loss is inf"):
        train_model(
            model, task.train, lambda output, target: (output - target).mean() * float("nan"), epochs=1, progress=False
        )


@pytest.mark.parametrize("count", [10, 40, 80])
def test_few_images_are_enough_to_choose_a_score(task, count):
    detector = ImageDetector("Autoencoder", epochs=1).fit(task.train[:count], progress=False)
    assert np.isfinite(detector.decision_scores_).all()
    detector = ImageDetector("Autoencoder", epochs=1, score="hog-ppca").fit(task.train[:count], progress=False)
    noise = np.random.default_rng(0).random((20, 28, 28))
    assert detector.decision_function(noise).min() > detector.decision_scores_.max()


def test_blanks_between_terms_and_the_generator_of_the_caller(task):
    before = torch.get_rng_state()
    plain, wide = (ImageDetector("VAE", loss, score="pixel", epochs=1) for loss in ("mse+l1", "mse + l1"))
    scores = wide.fit(task.train[:20], progress=False).decision_scores_
    assert np.array_equal(scores, plain.fit(task.train[:20], progress=False).decision_scores_)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("share", [2, -1, 0, float("nan"), "few"])
def test_shares_that_are_none(task, share):
    with pytest.raises(DataError, match=f"contamination is {share!r}"):
        ImageDetector("Autoencoder", contamination=share).fit(task.train)


def test_numbers_of_numpy(task, tmp_path):
    one, share = np.int64(1), np.float32(0.1)
    numbers = {"epochs": one, "factor": one, "batch_size": np.int64(16), "contamination": share, "seed": one}
    detector = ImageDetector("Autoencoder", score="pixel", **numbers).fit(task.train[:20], folder=tmp_path / "logs")
    detector.save(tmp_path)
    again = ImageDetector.load(tmp_path)
    assert np.array_equal(again.decision_function(task.test), detector.decision_function(task.test))
    assert again.get_params() == detector.get_params()
    search = GridSearchCV(detector, {"epochs": np.array([1])}, scoring=lambda made, _: made.threshold_, cv=2)
    assert search.fit(task.train[:20]).best_params_ == {"epochs": 1} and np.isfinite(search.best_score_)


def exported(scorer, images, folder):
    onnxruntime = pytest.importorskip("onnxruntime")
    detector = ImageDetector()
    detector.scorer_, detector.score_, detector.threshold_ = scorer, "pixel", 0.5
    detector.export_onnx(folder / "detector.onnx")
    session = onnxruntime.InferenceSession(folder / "detector.onnx")
    results = [session.run(None, {"images": part.numpy()}) for part in (images[:50], images[:1])]
    with torch.no_grad():
        own = DetectorGraph(scorer)(images[:50], torch.tensor(0.5))
    for (scores, alarms, maps), count in zip(results, (50, 1), strict=True):
        wanted = own[0][:count].numpy()
        assert (np.abs(scores - wanted) / np.maximum(np.abs(wanted), 1)).max() < 1e-4
        clear = np.abs(wanted - 0.5) > 1e-3
        assert (alarms[clear] == own[1][:count].numpy()[clear]).all()
        assert np.abs(maps - own[2][:count].numpy()).max() < 1e-4


@pytest.mark.slow
def test_onnx_says_the_same(trained, images, tmp_path):
    exported(trained[2], images, tmp_path)


def test_onnx_of_the_chosen_model(task, images, tmp_path):
    model = build_model("DenoisingAutoencoder", features="hog")
    train_model(model, task.train, FlexibleLoss("mse"), epochs=1, progress=False)
    answers = [ask_all(model, image_tensor(part)) for part in (task.train, task.validation)]
    exported(ImageScorer(model, "ssim+latent-knn").fit(*answers).eval(), images, tmp_path)

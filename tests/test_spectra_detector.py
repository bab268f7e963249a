"""Detectors: the contract, trust in residuals, and the quality that a short training has to reach."""

from itertools import combinations

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.base import clone
from sklearn.pipeline import make_pipeline

from anomaly_nb.core import DataError, generator
from anomaly_nb.metrics import roc_auc
from anomaly_nb.spectra import (
    KINDS,
    Spectra,
    SpectrumDetector,
    SpectrumPCA,
    concatenate,
    inject_anomalies,
    load_sdss_objects,
    load_sky,
    plot_detection,
    simulate_spectra,
    to_rest_frame,
)
from anomaly_nb.spectra.preparation import REST_PIXELS, REST_WAVELENGTH
from anomaly_nb.spectra.report import _heights
from anomaly_nb.spectra.scoring import line_pairs, log_p_values, variance_maps, window_statistics
from anomaly_nb.spectra.verdicts import QUESTIONS
from anomaly_nb.training import device_options

torch.set_num_threads(1)
UNSEEN = slice(60, None)  # sky fibres that training does not use


@pytest.fixture(scope="module")
def train():
    return simulate_spectra(500, 1, fibres=slice(0, 60))


@pytest.fixture(scope="module", params=["SpectrumPCA", "SpectrumDetector"])
def detector(request, train):
    return SpectrumPCA().fit(train) if request.param == "SpectrumPCA" else SpectrumDetector(epochs=8).fit(train)


@pytest.fixture(scope="module")
def normal():
    return simulate_spectra(120, 2, fibres=UNSEEN)


@pytest.fixture(scope="module")
def odd():
    return inject_anomalies(simulate_spectra(160, 3, fibres=UNSEEN), seed=4)


def test_ranking_and_false_alarms(detector, normal, odd):
    below, above = detector.decision_function(normal), detector.decision_function(odd[0])
    labels = np.repeat([0, 1], [len(below), len(above)])
    assert roc_auc(labels, np.concatenate([below, above])) > 0.95
    assert detector.predict(normal).mean() < 0.15
    for kind in range(len(KINDS)):
        one = above[kind :: len(KINDS)]
        assert roc_auc(np.repeat([0, 1], [len(below), len(one)]), np.concatenate([below, one])) > 0.8, KINDS[kind]


def test_regions_point_to_the_truth(detector, odd):
    spectra, truth = odd
    top = detector.detect(spectra).set_index("id")
    hit = truth.apply(lambda t: t["start"] < top.loc[t["id"], "end"] and t["end"] > top.loc[t["id"], "start"], axis=1)
    assert hit.groupby(truth["id"]).any().mean() > 0.9


def test_residual_is_the_noise(detector):
    options = {"seed": 7, "fibres": UNSEEN}
    quiet, silent = (simulate_spectra(30, snr=(snr, snr), **options) for snr in (15, 1e6))
    noisy, clean = to_rest_frame(quiet), to_rest_frame(silent)
    noise = (noisy.flux - clean.flux * (clean.scale / noisy.scale)[:, None]) * np.sqrt(noisy.ivar)
    seen = noisy.ivar > 0
    residual = detector.residuals(quiet)
    each = [np.corrcoef(noise[row][seen[row]], residual[row][seen[row]])[0, 1] for row in range(len(quiet))]
    assert np.median(each) > 0.9


def test_an_injected_line_is_not_reproduced(detector):
    quiet = simulate_spectra(30, 8, fibres=UNSEEN, snr=(15, 15))
    line, _ = inject_anomalies(quiet, ["line"], seed=9)
    added = to_rest_frame(line).flux - to_rest_frame(quiet).flux
    reproduced = detector.expected(line) - detector.expected(quiet)
    at = added.argmax(axis=1)
    rows = np.flatnonzero(added.max(axis=1) > 0.2)
    assert np.median(np.abs(reproduced[rows, at[rows]]) / added[rows, at[rows]]) < 0.2


def test_scores_depend_on_nothing_else(detector, normal):
    scores = detector.decision_function(normal)
    np.testing.assert_array_equal(scores, detector.decision_function(normal))
    order = np.random.default_rng(0).permutation(len(normal))
    np.testing.assert_array_equal(scores[order], detector.decision_function(normal[order]))
    np.testing.assert_array_equal(scores[:3], np.concatenate([detector.decision_function(normal[i]) for i in range(3)]))
    assert len(detector.decision_function(normal[:0])) == 0


def test_units_do_not_matter(detector, normal):
    some = normal[:5]
    before = detector.decision_function(some)
    some.flux *= 1e-3
    some.ivar *= 1e6
    np.testing.assert_allclose(detector.decision_function(some), before, rtol=0.02, atol=0.02)


def test_contract(detector, train, normal):
    assert len(detector.decision_scores_) == len(train)
    np.testing.assert_array_equal(detector.labels_, detector.decision_scores_ > detector.threshold_)
    assert detector.predict(normal).dtype == np.int64
    table = detector.detect(normal)
    names = ["id", "z", "score", "is_anomaly", "start", "end", "reason", "value", "mean_square", "p_value", "judged"]
    assert table.columns.tolist() == [*names, "q_value", "population_alarm"]
    assert table["judged"].all() and not table["population_alarm"].any()
    np.testing.assert_array_equal(table["is_anomaly"], detector.predict(normal) == 1)
    assert set(table["reason"]) <= {"scatter", "excess", "deficit", "line pairs", "coverage"}


def test_saved_and_loaded(detector, odd, tmp_path):
    detector.save(tmp_path)
    again = type(detector).load(tmp_path)
    np.testing.assert_array_equal(again.decision_function(odd[0]), detector.decision_function(odd[0]))
    assert again.regions(odd[0][:4]).equals(detector.regions(odd[0][:4]))
    next(tmp_path.glob("state*.safetensors")).write_bytes(b"junk")
    with pytest.raises(DataError, match="damaged"):
        type(detector).load(tmp_path)


def test_calibration_on_another_population(train):
    detector = SpectrumPCA().fit(train)
    others = simulate_spectra(300, 5, fibres=UNSEEN, family="stellar")
    before = detector.predict(others[150:]).mean()
    basis = detector.model_.basis.copy()
    assert detector.calibrate(others[:150]).predict(others[150:]).mean() < min(before, 0.15)
    np.testing.assert_array_equal(basis, detector.model_.basis)


def test_calibration_drops_what_belongs_to_the_old_threshold(train, normal, tmp_path):
    detector = SpectrumPCA().fit(train[:60])
    detector.save(tmp_path / "fitted")
    for one in (detector, SpectrumPCA.load(tmp_path / "fitted")):
        for _ in range(2):
            one.calibrate(normal[:40])
            assert not hasattr(one, "labels_") and not hasattr(one, "decision_scores_")
        one.save(tmp_path / "calibrated")
        again = SpectrumPCA.load(tmp_path / "calibrated")
        np.testing.assert_array_equal(again.predict(normal), one.predict(normal))
        np.testing.assert_array_equal(one.fit_predict(train[:60]), one.decision_scores_ > one.threshold_)


def test_repeatable(train, normal):
    one, other = (SpectrumDetector(epochs=4).fit(train[:100]).decision_function(normal[:5]) for _ in range(2))
    np.testing.assert_array_equal(one, other)


def test_interrupted_training_goes_on(train, tmp_path):
    detector = SpectrumDetector(epochs=4, folder=str(tmp_path)).fit(train[:100])
    again = SpectrumDetector(epochs=4, folder=str(tmp_path)).fit(train[:100])  # all epochs are done
    np.testing.assert_array_equal(again.decision_scores_, detector.decision_scores_)
    assert (tmp_path / "manifest.jsonl").exists()


def test_bad_input(detector, train, normal):
    spectra = normal[:2]
    spectra.z[1] = np.nan
    with pytest.raises(DataError, match=str(spectra.ids[1])):
        detector.decision_function(spectra)
    with pytest.raises(DataError, match="too few"):
        SpectrumPCA().fit(train[:5])
    with pytest.raises(DataError, match="not been fitted"):
        SpectrumDetector().calibrate(normal)


@pytest.mark.parametrize("make", [SpectrumPCA, SpectrumDetector])
@pytest.mark.parametrize(
    "wrong",
    [{"components": 0}, {"components": -3}, {"components": 2.5}, {"robust": -1}, {"seed": -1}]
    + [{"contamination": value} for value in (2, -1, 0, np.nan)]
    + [{"holdout": value} for value in (2, 0)],
)
def test_parameters_are_checked_first(make, wrong):
    with pytest.raises(DataError, match=f"{next(iter(wrong))} is "):
        make(**wrong).fit(None)


@pytest.mark.parametrize("epochs", [-1, 2.5])
def test_epochs_are_checked_first(epochs):
    with pytest.raises(DataError, match=f"epochs is {epochs}"):
        SpectrumDetector(epochs=epochs).fit(None)


@pytest.mark.parametrize("other", [np.ones((100, 5)), pd.DataFrame({"flux": [1.0]}), "night.npz", None])
def test_what_is_no_spectra(detector, other):
    for use in (SpectrumPCA().fit, detector.calibrate, detector.decision_function, detector.detect, detector.regions):
        with pytest.raises(DataError, match=r"Spectra are needed, not .*Spectra\(flux, ivar, wavelength\)"):
            use(other)


def test_a_pipeline_has_no_labels(train):
    for detector in (SpectrumPCA(), SpectrumDetector(epochs=0)):
        alone = clone(detector).fit(train[:60])
        assert make_pipeline(detector).fit(train[:60])[0].threshold_ == alone.threshold_
    assert SpectrumPCA().fit_predict(train[:60], None).shape == (60,)


@pytest.mark.parametrize("epochs", [0, 4])
def test_numbers_of_numpy_and_paths_are_kept(train, tmp_path, epochs):
    numbers = {"components": np.int64(6), "epochs": np.int64(epochs), "contamination": np.float32(0.125)}
    detector = SpectrumDetector(**numbers, folder=tmp_path / "training").fit(train[:60])
    detector.save(tmp_path / "model")
    again = SpectrumDetector.load(tmp_path / "model")
    assert again.get_params() == detector.get_params() | {"folder": str(tmp_path / "training")}
    np.testing.assert_array_equal(again.decision_function(train[:9]), detector.decision_function(train[:9]))


def test_labels_of_a_figure_do_not_cover_each_other(train, odd):
    pca = SpectrumPCA().fit(train)
    for row in range(12):
        figure = plot_detection(pca, odd[0][row], images=lambda ra, dec: None)
        figure.canvas.draw()
        boxes = [text.get_window_extent() for text in figure.axes[1].texts]
        assert not any(one.overlaps(other) for one, other in combinations(boxes, 2))
    assert _heights(np.array([5000.0, 7000.0, 5100.0])) == [0.86, 0.86, 0.72]


def test_real_quasars_stand_out(detector):
    objects = load_sdss_objects()
    scores = detector.decision_function(objects)
    assert roc_auc(objects.classes != "GALAXY", scores) > 0.7
    far = objects[objects.z > 2]
    assert not detector.detect(far)["judged"].any()
    kept = detector.detect(far, keep=QUESTIONS)
    assert set(kept["reason"]) == {"coverage"} and kept["is_anomaly"].all()


def test_double_lines_are_named(detector):
    galaxies = simulate_spectra(40, 8, fibres=UNSEEN)
    double, _ = inject_anomalies(galaxies, ["double"], seed=9)
    before, after = detector.detect(galaxies), detector.detect(double)
    assert (after["reason"] == "line pairs").sum() > 10 > (before["reason"] == "line pairs").sum()
    assert roc_auc(np.repeat([0, 1], 40), [*before["score"], *after["score"]]) > 0.95


def test_pairs_do_not_see_one_line():
    noise = generator(0).normal(size=(50, REST_PIXELS)).astype(np.float32)
    good = np.ones_like(noise)
    one = noise.copy()
    one[:, np.abs(REST_WAVELENGTH - 6564.6).argmin()] += 8
    np.testing.assert_array_equal(line_pairs(one, good) <= line_pairs(noise, good) + 1e-6, True)


def test_options_of_training_are_used(train):
    with pytest.raises(DataError, match="trains no network"):
        SpectrumPCA().fit(train[:60], accelerator="cpu")
    with pytest.raises(DataError, match="cannot share evenly"):
        SpectrumDetector(epochs=4).fit(train[:60], **device_options("cpu", 3, 1, "ddp_spawn"))


def test_windows_of_noise_are_standard():
    noise = np.random.default_rng(0).normal(size=(300, 2000)).astype(np.float32)
    for values in window_statistics(noise, np.ones_like(noise)):
        assert abs(values.mean()) < 0.1 and abs(values.std() - 1) < 0.15


def test_p_values_are_uniform():
    generator = np.random.default_rng(0)
    normals, new = np.sort(generator.gamma(3, size=(2000, 1)), axis=0), generator.gamma(3, size=(4000, 1))
    p = 10 ** -log_p_values(new, normals)[:, 0]
    for level in (0.5, 0.1, 0.05, 0.01):
        assert abs((p < level).mean() - level) < 0.25 * level + 0.005
    ordered = log_p_values(np.linspace(0, 50, 500)[:, None], normals)[:, 0]
    assert (np.diff(ordered) >= -1e-9).all()


def test_variance_maps_find_wrong_errors():
    rest = to_rest_frame(load_sky())
    good = (rest.ivar > 0).astype(np.float32)
    noise = np.random.default_rng(0).normal(size=good.shape).astype(np.float32) * good
    observed, _ = variance_maps(2 * noise, good, rest.shift)
    seen = observed[np.abs(observed - 1) > 0.5]
    assert len(seen) > 3000 and abs(np.median(seen) - 4) < 0.5


def test_benchmark_is_fair():
    one, other = (simulate_spectra(40, 0, fibres=fibres) for fibres in (slice(0, 50), slice(50, 100)))
    fibres = [{name.split("-", 3)[3] for name in spectra.ids} for spectra in (one, other)]
    assert not fibres[0] & fibres[1]
    changed, truth = inject_anomalies(one, seed=1)
    np.testing.assert_array_equal(changed.ivar, one.ivar)
    assert set(truth["kind"]) == set(KINDS) and (truth["end"] > truth["start"]).all()
    with pytest.raises(DataError):
        simulate_spectra(1, family="unknown")


def test_odd_members_do_not_hide_in_the_list_that_is_learnt():
    share, count = 0.05, 20
    odd, _ = inject_anomalies(simulate_spectra(count, 31, snr=(10, 30)), seed=5)
    mixed = concatenate([simulate_spectra(400 - count, 30), odd])
    detector = SpectrumPCA().fit(mixed)
    labels = np.repeat([0, 1], [400 - count, count])
    assert roc_auc(labels, detector.decision_scores_) > 0.95 and abs(detector.odd_ - share) < 0.05
    assert detector.labels_[labels == 1].mean() >= 0.85 and detector.labels_[labels == 0].mean() < 0.08


@pytest.mark.parametrize("share", [0.0, 0.25])
def test_another_population_without_labels(train, share, tmp_path):
    detector, count = SpectrumPCA().fit(train), round(200 * share)
    odd, _ = inject_anomalies(simulate_spectra(max(count, 1), 6, fibres=UNSEEN, family="stellar"), seed=7)
    others = concatenate([simulate_spectra(200 - count, 5, fibres=UNSEEN, family="stellar"), odd[:count]])
    assert detector.detect(others)["population_alarm"].all()
    found = detector.adapt(others).predict(others)
    assert found[: 200 - count].mean() < 0.12 and (not count or found[200 - count :].mean() > 0.8)
    assert abs(detector.odd_ - share) < 0.1 and not hasattr(detector, "decision_scores_")
    detector.save(tmp_path)
    np.testing.assert_array_equal(SpectrumPCA.load(tmp_path).predict(others), found)
    with pytest.raises(DataError, match="too few to adapt"):
        detector.adapt(others[:10])


@pytest.mark.parametrize("step", [0.8, 1.0])
def test_pixels_of_other_surveys_cost_nothing(step):
    detector, random = SpectrumPCA().fit(simulate_spectra(500, 1, fibres=slice(0, 60))), np.random.default_rng(0)
    sdss, clean = (simulate_spectra(80, 2, fibres=UNSEEN, snr=snr) for snr in ((6, 30), (1e6, 1e6)))
    wavelength = np.arange(3800, 9230, step)
    scale = [np.median(one[~bad]) for one, bad in zip(sdss.flux, sdss.mask, strict=True)]
    flux = np.array([np.interp(wavelength, sdss.wavelength, one / np.median(one)) for one in clean.flux])
    flux *= np.array(scale)[:, None]
    ivar = np.array([np.interp(wavelength, sdss.wavelength, one) for one in sdss.ivar]) * step / 1.38
    noise = random.normal(size=flux.shape) / np.sqrt(np.maximum(ivar, 1e-9))
    table = detector.detect(Spectra(flux + np.where(ivar > 0, noise, 0), ivar, wavelength, z=sdss.z))
    assert table["judged"].all() and table["is_anomaly"].mean() <= 0.1

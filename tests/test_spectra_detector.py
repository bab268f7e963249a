"""Detectors: the contract, trust in residuals, and the quality that a short training has to reach."""

import numpy as np
import pytest
import torch

from anomaly_nb.core import DataError, generator
from anomaly_nb.metrics import roc_auc
from anomaly_nb.spectra import (
    KINDS,
    SpectrumDetector,
    SpectrumPCA,
    inject_anomalies,
    load_sdss_objects,
    load_sky,
    simulate_spectra,
    to_rest_frame,
)
from anomaly_nb.spectra.preparation import REST_PIXELS, REST_WAVELENGTH
from anomaly_nb.spectra.scoring import line_pairs, log_p_values, variance_maps, window_statistics
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
    assert table.columns.tolist() == ["id", "z", "score", "is_anomaly", "start", "end", "reason", "value"]
    np.testing.assert_array_equal(table["is_anomaly"], detector.predict(normal) == 1)
    assert set(table["reason"]) <= {"scatter", "excess", "deficit", "line pairs", "coverage"}


def test_saved_and_loaded(detector, odd, tmp_path):
    detector.save(tmp_path)
    again = type(detector).load(tmp_path)
    np.testing.assert_array_equal(again.decision_function(odd[0]), detector.decision_function(odd[0]))
    assert again.regions(odd[0][:4]).equals(detector.regions(odd[0][:4]))
    (tmp_path / "state.safetensors").write_bytes(b"junk")
    with pytest.raises(DataError, match="damaged"):
        type(detector).load(tmp_path)


def test_calibration_on_another_population(train):
    detector = SpectrumPCA().fit(train)
    others = simulate_spectra(300, 5, fibres=UNSEEN, family="stellar")
    before = detector.predict(others[150:]).mean()
    basis = detector.basis_.copy()
    assert detector.calibrate(others[:150]).predict(others[150:]).mean() < min(before, 0.15)
    np.testing.assert_array_equal(basis, detector.basis_)


def test_repeatable(train, normal):
    one, other = (SpectrumDetector(epochs=4).fit(train[:100]).decision_function(normal[:5]) for _ in range(2))
    np.testing.assert_array_equal(one, other)


def test_interrupted_training_goes_on(train, tmp_path):
    detector = SpectrumDetector(epochs=4, folder=str(tmp_path)).fit(train[:100])
    again = SpectrumDetector(epochs=4, folder=str(tmp_path)).fit(train[:100])  # all epochs are done
    np.testing.assert_array_equal(again.decision_scores_, detector.decision_scores_)
    assert (tmp_path / "run.json").exists()


def test_bad_input(detector, train, normal):
    spectra = normal[:2]
    spectra.z[1] = np.nan
    with pytest.raises(DataError, match=str(spectra.ids[1])):
        detector.decision_function(spectra)
    with pytest.raises(DataError, match="too few"):
        SpectrumPCA().fit(train[:5])
    with pytest.raises(DataError, match="not been fitted"):
        SpectrumDetector().calibrate(normal)


def test_real_quasars_stand_out(detector):
    objects = load_sdss_objects()
    scores = detector.decision_function(objects)
    assert roc_auc(objects.classes != "GALAXY", scores) > 0.7
    far = detector.detect(objects[objects.z > 2])
    assert set(far["reason"]) == {"coverage"} and far["is_anomaly"].all()


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

"""The document's interface: its README's calls, its numbers, and the faults that must not come back."""

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import optim

from anomaly_nb.core import DataError
from anomaly_nb.spectra import (
    CNNAutoencoderWithSkip,
    create_save_path,
    detect_anomalous_regions,
    plot_combined_spectra,
    reset_training_state,
    save_sampling_info,
    train_autoencoder,
)

torch.set_num_threads(1)


@pytest.mark.parametrize("n", [1, 5])
def test_the_readme_runs_as_written(tmp_path, n):
    generator = torch.Generator().manual_seed(0)
    all_fluxes_tensor = 1 + 0.1 * torch.randn(n, 1, 403, generator=generator)
    mask_tensor = torch.ones_like(all_fluxes_tensor)
    zpix_cat = pd.DataFrame({"targetid": 100 + np.arange(n), "mean_fiber_ra": 150.0, "mean_fiber_dec": 2.0})
    IMG_DIR, JSON_DIR = tmp_path / "images", tmp_path / "json"

    autoencoder = CNNAutoencoderWithSkip()
    reset_training_state(autoencoder, optim.Adam(autoencoder.parameters()))
    train_autoencoder(autoencoder, all_fluxes_tensor, mask_tensor, epochs=1)
    autoencoder.eval()
    reconstructed_fluxes = autoencoder(all_fluxes_tensor).detach().numpy().squeeze()
    (anomalous_regions, spectrum_anomalies, anomaly_metadata,
     abs_residual_threshold, rel_residual_threshold, range_mismatch_factor) = detect_anomalous_regions(
        original_fluxes=all_fluxes_tensor.numpy().squeeze(),
        reconstructed_fluxes=reconstructed_fluxes,
        window_size=50,
        percentile_threshold=95,
        range_mismatch_factor=1.5,
        overall_anomaly_threshold=0.3
    )  # fmt: skip
    anomalous_indices, plot_indices, seed = plot_combined_spectra(
        original_fluxes=all_fluxes_tensor.numpy().squeeze(),
        reconstructed_fluxes=reconstructed_fluxes,
        anomalous_regions=anomalous_regions,
        spectrum_anomalies=np.ones(n, bool),
        zpix_cat=zpix_cat,
        wavelengths=None,
        save_directory=IMG_DIR,
        only_anomalous=True,
        images=None,
    )
    path = save_sampling_info(
        anomalous_indices, plot_indices, seed, anomaly_metadata,
        abs_residual_threshold, rel_residual_threshold, range_mismatch_factor,
        json_directory=JSON_DIR, zpix_cat=zpix_cat
    )  # fmt: skip
    assert [path.name for path in IMG_DIR.iterdir()] == ["combined_spectra_with_images_1.png"]
    assert list(json.loads(Path(path).read_text())["anomalous_spectra"]) == [str(100 + i) for i in range(n)]
    assert len(spectrum_anomalies) == n


@given(st.integers(1, 300))
@settings(max_examples=30, deadline=None)
def test_any_length(length):
    assert CNNAutoencoderWithSkip()(torch.zeros(2, 1, length)).shape == (2, 1, length)


def test_weights_of_the_original_load():
    shapes = {name: tuple(value.shape) for name, value in CNNAutoencoderWithSkip().state_dict().items()}
    assert shapes["encoder1.weight"] == (64, 1, 3) and shapes["encoder3.weight"] == (16, 32, 3)
    assert shapes["decoder3.weight"] == (16, 32, 3) and shapes["decoder1.weight"] == (64, 1, 3)


def test_training_is_repeatable_and_ignores_masked_pixels():
    torch.manual_seed(0)
    data, mask = torch.rand(6, 1, 64), torch.ones(6, 1, 64)
    mask[:, :, 50:] = 0
    losses = []
    for fill in (0.0, 1e6):
        torch.manual_seed(1)
        model = CNNAutoencoderWithSkip()
        filled = torch.where(mask > 0, data, torch.tensor(fill))
        losses.append(train_autoencoder(model, filled, mask, epochs=2, batch_size=2)["loss"].tolist())
    assert losses[0] == losses[1]


def test_windows_by_hand():
    original, reconstructed = np.ones((2, 100)), np.ones((2, 100))
    original[1, 60:80] = 2
    regions, odd, found, absolute, relative, factor = detect_anomalous_regions(original, reconstructed, 20, 80)
    assert factor == 1.5 and absolute < 1 and relative < 0.5
    assert [(w["range_start"], w["range_end"]) for w in found[1]] == [(50, 70), (60, 80), (70, 90)]
    assert {w["reason_type"] for w in found[1]} == {"high_absolute_residual"}
    assert regions[1].sum() == 40 and found[0] == [] and odd.tolist() == [False, True]
    _, double, *_ = detect_anomalous_regions(original, reconstructed, 20, 80, 1.5, 0.5, double_count=True)
    _, single, *_ = detect_anomalous_regions(original, reconstructed, 20, 80, 1.5, 0.5)
    assert double.tolist() == [False, True] and single.tolist() == [False, False]


@given(st.integers(2, 400), st.integers(2, 120))
@settings(max_examples=40, deadline=None)
def test_every_pixel_has_a_window(length, window):
    flux = np.ones((1, length))
    regions, *_ = detect_anomalous_regions(flux + 1, flux, window, calibrate_on=(flux, flux))
    assert regions[0].all()


def test_perfect_data_stay_clean_with_calibration():
    generator = np.random.default_rng(0)
    noise = generator.normal(size=(200, 500))
    normal, new = (1 + 0.01 * noise[:100], 1 + 0.01 * noise[100:])
    _, odd, found, *_ = detect_anomalous_regions(new, np.ones_like(new), percentile_threshold=99.9,
                                                 calibrate_on=(normal, np.ones_like(normal)))  # fmt: skip
    assert not odd.any() and sum(map(len, found)) < 30


def test_flux_near_zero_does_not_blow_up():
    original = np.ones((1, 200))
    original[0, 100] = 1e-9
    *_, relative, _ = detect_anomalous_regions(original, original + 0.01)
    assert relative < 1


def test_masked_everything():
    with pytest.raises(DataError, match="All pixels are masked"):
        detect_anomalous_regions(np.ones((1, 60)), np.ones((1, 60)), mask=np.zeros((1, 60)))


def test_concurrent_saves_never_collide(tmp_path):
    with ThreadPoolExecutor(8) as pool:
        paths = list(pool.map(lambda _: create_save_path(tmp_path, "a.b[1]"), range(40)))
    assert len(set(paths)) == 40


def test_prefixes_do_not_clash(tmp_path):
    (tmp_path / "run_extra_7.png").touch()
    (tmp_path / "run2_3.png").touch()
    assert create_save_path(tmp_path, "run").endswith("run_1.png")
    assert create_save_path(tmp_path, "run2").endswith("run2_4.png")
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match="cannot be written"):
        create_save_path(tmp_path / "file", "run")


def test_permuted_catalogue_gives_its_own_names(tmp_path):
    metadata = [
        [{"range_start": i, "range_end": i + 1, "reason_type": "x", "trigger_value": float(i)}] for i in range(4)
    ]
    catalogue = pd.DataFrame({"targetid": [40, 10, 30, 20]})
    path = save_sampling_info([2, 0], [], None, metadata, 0.1, 0.2, 1.5, tmp_path, catalogue)
    spectra = json.loads(Path(path).read_text())["anomalous_spectra"]
    assert {name: item["anomaly_ranges"][0]["range_start"] for name, item in spectra.items()} == {"30": 2, "40": 0}


POSITIONS = {"mean_fiber_ra": np.arange(4.0), "mean_fiber_dec": np.zeros(4)}
FOUND = [[{"range_start": i, "range_end": i + 1, "reason_type": "x", "trigger_value": float(i)}] for i in range(4)]


def plotted(catalogue, **options):
    "Right ascensions for which pictures were asked, row by row."
    asked, flux = [], np.ones((4, 60))
    arguments = {"wavelengths": None, "images": lambda ra, dec: asked.append(ra)} | options
    plot_combined_spectra(flux, flux, [np.zeros(60, bool)] * 4, np.ones(4), catalogue, **arguments)
    return asked


def saved(tmp_path, catalogue, anomalous=(0, 1, 2, 3), shown=(), **options):
    path = save_sampling_info(anomalous, shown, None, FOUND, 0.1, 0.2, 1.5, tmp_path, catalogue, **options)
    spectra = json.loads(Path(path).read_text())["anomalous_spectra"]
    return {name: item["anomaly_ranges"][0]["range_start"] for name, item in spectra.items()}


def test_rows_are_matched_by_target(tmp_path):
    catalogue = {"targetid": np.array([13, 11, 10, 12])} | POSITIONS
    ids = ["10", "11", "12", "13"]
    assert saved(tmp_path, catalogue, ids=ids) == {"10": 0, "11": 1, "12": 2, "13": 3}
    assert plotted(pd.DataFrame(catalogue), ids=np.array([10, 11, 12, 13])) == [2, 1, 3, 0]
    assert plotted(catalogue) == [0, 1, 2, 3]


@pytest.mark.parametrize(
    ("change", "ids", "message"),
    [
        ({"targetid": [10, 11, 12, 14]}, [10, 11, 12, 13], "no target 13"),
        ({"targetid": [10, 11, 12, 11]}, None, "the target 11 occurs 2 times"),
        ({}, [10, 11, 12, 12], "ids: the target 12 occurs 2 times"),
        ({}, [10, 11, 12], "ids: 3 rows for 4 spectra"),
    ],
)
def test_targets_that_do_not_fit_are_named(tmp_path, change, ids, message):
    catalogue = {"targetid": [10, 11, 12, 13]} | POSITIONS | change
    with pytest.raises(DataError, match=message):
        plotted(catalogue, ids=ids)
    with pytest.raises(DataError, match=message):
        saved(tmp_path, catalogue, ids=ids)
    assert not list(tmp_path.iterdir())


def test_columns_wavelengths_and_indices_that_do_not_fit(tmp_path):
    catalogue = {"targetid": [10, 11, 12, 13]} | POSITIONS
    with pytest.raises(DataError, match="zpix_cat: 'targetid' is missing"):
        saved(tmp_path, POSITIONS)
    for name in catalogue:
        with pytest.raises(DataError, match=f"zpix_cat: '{name}' is missing"):
            plotted({key: value for key, value in catalogue.items() if key != name})
    with pytest.raises(DataError, match="mean_fiber_ra: not all entries are numbers"):
        plotted(catalogue | {"mean_fiber_ra": ["a"] * 4})
    with pytest.raises(DataError, match="different lengths"):
        plotted(catalogue | {"mean_fiber_ra": [1.0]})
    for wavelengths in ([1.0, 2.0], ["blue"] * 60, np.ones((2, 60))):
        with pytest.raises(DataError, match="wavelengths"):
            plotted(catalogue, wavelengths=wavelengths)
    flux = np.ones((4, 60))
    with pytest.raises(DataError, match="mask 0 has the shape"):
        plot_combined_spectra(flux, flux, [np.zeros(9, bool)] * 4, np.ones(4), catalogue, images=None)
    with pytest.raises(DataError, match="must have one shape"):
        plot_combined_spectra(flux, flux[:, 1:], [np.zeros(60, bool)] * 4, np.ones(4), catalogue, images=None)
    for rows in ([4], [-1], [0.5]):
        with pytest.raises(DataError, match="anomalous_indices: there is no spectrum"):
            saved(tmp_path, catalogue, rows)
        with pytest.raises(DataError, match="plot_indices: there is no spectrum"):
            saved(tmp_path, catalogue, shown=rows)

"""What a notebook shows of data sets, detectors and reports."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from anomaly_nb.core import Detector
from anomaly_nb.dcase import DCASEFolder, SoundDetector, SpectrogramStudy, synthesize_machines
from anomaly_nb.dcase.data import DCASE2020Task2LogMelDataset, DCASE2020Task2TestDataset
from anomaly_nb.dcase.vqvae import Pieces
from anomaly_nb.dcgan import SpectrogramDetector, audio_to_spectrograms, load_config
from anomaly_nb.fmnist import ImageDetector, load_subset, make_protocol
from anomaly_nb.scale import ArrayFile
from anomaly_nb.spectra import SpectrumDetector, SpectrumPCA, simulate_spectra
from anomaly_nb.spectra.network import HiddenSpans
from anomaly_nb.spectra.preparation import to_rest_frame
from anomaly_nb.srcnn import SRCNN, Curve, SpectralResidual, load_kpi
from anomaly_nb.srcnn.windows import gen_set

DETECTORS: list[Detector] = [
    SpectralResidual(),
    SRCNN(),
    SpectrumDetector(),
    SpectrumPCA(),
    SpectrogramDetector(),
    ImageDetector(),
    SoundDetector(),
]


def data_sets() -> dict[str, Any]:
    spectra = simulate_spectra(12, 0)
    return {
        "Curve": load_kpi()[0],
        "Spectra": spectra,
        "RestSpectra": to_rest_frame(spectra),
        "Spectrograms": audio_to_spectrograms(np.random.default_rng(0).normal(size=22050)),
        "DCGANConfig": load_config("config_test"),
        "Protocol": make_protocol("original", load_subset("train"), load_subset("test")),
    }


def check(name: str, thing: Any) -> None:
    "A line, and a table that has the page's colours and no tag of its own making."
    line, shown = repr(thing), thing._repr_html_()
    assert line.startswith(name) and "\n" not in line and "array(" not in line
    assert shown.startswith("<table>") and name in shown and not re.search("color|background|bgcolor", shown)
    assert shown.count("<table") == shown.count("</table>")


@pytest.mark.parametrize("name", data_sets())
def test_data_sets_are_shown(name: str) -> None:
    thing = data_sets()[name]
    check(name, thing)
    assert len(repr(thing)) < (3000 if name == "DCGANConfig" else 250)


@pytest.mark.parametrize("detector", DETECTORS, ids=lambda detector: type(detector).__name__)
def test_detectors_are_shown(detector: Detector) -> None:
    check(type(detector).__name__, detector)
    assert "not fitted" in detector._repr_html_()
    detector.threshold_ = 0.25
    assert "threshold 0.25" in detector._repr_html_()


def test_training_sets_are_shown() -> None:
    windows = gen_set(4, [([1.0, 2.0, 1.0, 9.0], [0, 0, 0, 1])] * 3)
    spans, pieces = HiddenSpans(to_rest_frame(simulate_spectra(12, 0)), seed=1), Pieces(torch.zeros(2, 1, 8, 130))
    for thing in (windows, spans, pieces):
        check(type(thing).__name__, thing)
    assert "windows=3" in repr(windows) and "spectra=12" in repr(spans) and "pieces=4" in repr(pieces)


def test_machine_sounds_are_shown(tmp_path: Path) -> None:
    synthesize_machines(tmp_path / "<b>machines", ["fan"], machines=1, train=4, normal=2, anomaly=2, seconds=2)
    folder = DCASEFolder(tmp_path / "<b>machines")
    report = SpectrogramStudy(folder.root).run()
    learned = DCASE2020Task2LogMelDataset(folder.root, "fan")
    judged = DCASE2020Task2TestDataset(folder.root, "fan", learned.mean, learned.std, learned.target_T)
    study = SpectrogramStudy(folder.root)
    for thing in (folder, study, report, report.machines[0], report.machines[0].found, learned, judged):
        check(type(thing).__name__, thing)
        assert "<b>machines" not in thing._repr_html_() and len(repr(thing)) < 250
    assert "&lt;b&gt;machines" in folder._repr_html_() and "clips=8" in repr(folder) and "anomalies=2" in repr(judged)


def test_streams_and_array_files_are_shown(tmp_path: Path) -> None:
    curve = load_kpi()[0].series
    scorer = SpectralResidual().fit(curve).stream(curve)
    check("StreamScorer", scorer)
    assert f"period={scorer.period}" in repr(scorer)
    np.save(tmp_path / "rows.npy", np.zeros((3, 2)))
    check("ArrayFile", rows := ArrayFile(tmp_path / "rows.npy"))
    assert "shape=(3, 2)" in repr(rows) and "float64" in repr(rows)


def test_names_from_outside_are_escaped() -> None:
    times = pd.date_range("2024-01-01", periods=3, freq="h")
    curve = Curve("<script>alert(1)</script>", pd.Series([1.0, np.nan, 3.0], times))
    assert "<script>" not in curve._repr_html_() and "missing=1" in repr(curve)
    assert "points=0" in repr(Curve("empty", pd.Series([], pd.DatetimeIndex([]), dtype=float)))
    assert "<i>" not in SpectralResidual().set_params(contamination="<i>")._repr_html_()

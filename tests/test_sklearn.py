"""Each detector as the last step of a scikit-learn pipeline."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer

from anomaly_nb.core import Detector
from anomaly_nb.dcase import SoundDetector, synthesize_machines
from anomaly_nb.dcgan import SpectrogramDetector, synthesize_engines
from anomaly_nb.fmnist import ImageDetector, load_subset
from anomaly_nb.spectra import SpectrumDetector, SpectrumPCA, simulate_spectra
from anomaly_nb.srcnn import SRCNN, SpectralResidual, load_kpi


def machines(folder: Path) -> list[Path]:
    synthesize_machines(folder, ["fan"], machines=1, train=4, normal=1, anomaly=1, seconds=2)
    return sorted(folder.glob("fan/train/*.wav"))


CASES = [
    (SpectralResidual(), lambda folder: load_kpi()[0].series[:2000]),
    (SRCNN(steps=2), lambda folder: load_kpi()[0].series[:2000]),
    (SpectrumPCA(), lambda folder: simulate_spectra(80)),
    (SpectrumDetector(epochs=0), lambda folder: simulate_spectra(80)),
    (SpectrogramDetector("picture"), lambda folder: list(synthesize_engines(4, seconds=0.5)[0])),
    (ImageDetector("Autoencoder", epochs=1), lambda folder: load_subset("train")[0][:40]),
    (SoundDetector("knn"), machines),
]


@pytest.mark.parametrize(("detector", "data"), CASES, ids=[type(detector).__name__ for detector, _ in CASES])
def test_a_detector_ends_a_pipeline(detector: Detector, data: Any, tmp_path: Path) -> None:
    X = data(tmp_path)
    pipeline = make_pipeline(FunctionTransformer(), detector)
    labels = pipeline.fit_predict(X)
    assert set(labels) <= {0, 1} and len(labels) == len(X)
    np.testing.assert_array_equal(pipeline.fit(X)[-1].labels_, labels)
    assert len(pipeline.decision_function(X)) == len(pipeline.predict(X)) == len(X)

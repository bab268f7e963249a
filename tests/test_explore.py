"""Moving the threshold over the data of each system, as `explore` does in a notebook."""

import struct
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure

from anomaly_nb.core import DataError, Detector
from anomaly_nb.dcase import SoundDetector, synthesize_machines
from anomaly_nb.dcgan import SpectrogramDetector, synthesize_engines
from anomaly_nb.dcgan.engines import synthesize_other, write_engines
from anomaly_nb.fmnist import ImageDetector, load_subset, make_protocol
from anomaly_nb.plots import Explorer, explore
from anomaly_nb.spectra import SpectrumPCA, inject_anomalies, simulate_spectra
from anomaly_nb.srcnn import SpectralResidual, load_kpi

pytest.importorskip("ipywidgets", reason="ipywidgets is not installed")


def look_around(detector: Detector, data: Any, folder: Path) -> tuple[Explorer, Any]:
    "Lower the threshold with the slider, choose the worst item, press the button; what was shown of it."
    shown: list[Any] = []
    explorer = explore(detector, data, out=folder / "flagged.csv")
    assert explorer.threshold == detector.threshold_
    draw = explorer.show
    explorer.show = lambda item: shown.append(draw(item)) or shown[-1]
    slider, strip, line, choice, _ = explorer.widgets().children
    slider.value = float(np.quantile(explorer.scores, 0.5))
    said, button = line.children
    above = np.flatnonzero(explorer.scores > slider.value)
    assert f"{len(above)} of {len(explorer.scores)}" in said.value
    assert min(len(above), 500) == len(choice.options) and strip.value.count("<circle") > 0
    drawn = strip.value.count("<polyline") + strip.value.count("<image")
    assert drawn == min(50, len(explorer.scores)) and "nan" not in strip.value
    worst = int(np.argmax(explorer.scores))
    assert choice.options[0][1] == worst and choice.options[0][0].startswith(explorer.names[worst])
    choice.value = choice.options[1][1]
    choice.value = worst
    button.click()
    written = pd.read_csv(folder / "flagged.csv")
    assert len(written) == len(above) and written["is_anomaly"].all()
    np.testing.assert_allclose(written["score"], np.sort(explorer.scores[above])[::-1])
    assert "threshold" not in written or np.allclose(written["threshold"], slider.value)
    return explorer, shown[-1]


def test_points(tmp_path: Path) -> None:
    first, second = load_kpi()[1].halves()
    explorer, shown = look_around(SpectralResidual().fit(first.series), second.series, tmp_path)
    assert isinstance(shown, Figure) and len(shown.axes[0].lines) == 2
    assert explorer.names[0] == str(second.series.index[0])


def test_a_column_may_have_the_name_of_a_result() -> None:
    walk = np.random.default_rng(0).normal(size=(400, 2))
    columns = pd.DataFrame(walk, columns=["score", "id"])
    explorer = explore(SpectralResidual().fit(columns), columns)
    np.testing.assert_array_equal(explorer.scores, SpectralResidual().fit(columns).decision_function(columns))
    assert explorer.names[:2] == ["0", "1"]


@pytest.mark.parametrize("columns", [None, 1, 2])
@pytest.mark.parametrize("form", [np.asarray, list, np.ndarray.tolist])
def test_points_without_an_index(columns: int | None, form: Any, tmp_path: Path) -> None:
    walk = np.random.default_rng(0).normal(size=400 if columns is None else (400, columns))
    _, shown = look_around(SpectralResidual().fit(walk), form(walk), tmp_path)
    assert [len(line.get_xdata()) for line in shown.axes[0].lines][-1] == (columns or 1)


def test_points_of_several_curves(tmp_path: Path) -> None:
    columns = pd.DataFrame({curve.name: curve.series.to_numpy()[:3000] for curve in load_kpi()})
    explorer, shown = look_around(SpectralResidual().fit(columns), columns, tmp_path)
    assert len(shown.axes[0].lines) == 3 and explorer.scores.shape == (3000,)


def test_spectra(tmp_path: Path) -> None:
    odd, _ = inject_anomalies(simulate_spectra(16, seed=1))
    explorer, shown = look_around(SpectrumPCA().fit(simulate_spectra(80)), odd, tmp_path)
    assert "Å" in shown.axes[0].get_xlabel() and explorer.names == odd.ids.tolist()


def test_images(tmp_path: Path) -> None:
    task = make_protocol("original", load_subset("train"), load_subset("test"))
    detector = ImageDetector("Autoencoder", epochs=1).fit(task.train, progress=False)
    for images in (task.test[:60], list(task.test[:60])):
        _, shown = look_around(detector, images, tmp_path)
        assert shown.axes[0].images[0].get_array().shape == (28, 28)


def check_sound(shown: Any, rate: int) -> None:
    picture, player = shown
    assert isinstance(picture, Figure) and "Hz" in picture.axes[0].get_ylabel()
    assert struct.unpack_from("<I", player.data, 24)[0] == rate and "audio" in player._repr_html_()


def test_engine_sounds(tmp_path: Path) -> None:
    engines = list(synthesize_engines(5, seed=0)[0])
    detector = SpectrogramDetector("picture").fit(engines)
    sounds = [*engines, synthesize_other("wind")]
    for given in (sounds, np.array(sounds), iter(sounds)):
        check_sound(look_around(detector, given, tmp_path)[1], 22050)
    write_engines(tmp_path / "recordings", 4, seconds=1.5)
    files = sorted((tmp_path / "recordings").glob("*.wav"))
    for given in (files, np.array(files), pd.Series(files), pd.Series([str(file) for file in files], dtype="string")):
        explorer, shown = look_around(detector, given, tmp_path)
        check_sound(shown, 22050)
        assert explorer.names == [file.name for file in files]


def test_machine_sounds(tmp_path: Path) -> None:
    synthesize_machines(tmp_path / "machines", ["fan"], machines=1, train=6, normal=2, anomaly=2, seconds=2)
    files = sorted((tmp_path / "machines/fan/test").glob("*.wav"))
    detector = SoundDetector("knn").fit(sorted((tmp_path / "machines/fan/train").glob("*.wav")))
    explorer, shown = look_around(detector, files, tmp_path)
    check_sound(shown, 16000)
    assert explorer.names == [file.name for file in files]


def test_nothing_to_look_at() -> None:
    spectra = simulate_spectra(80)
    with pytest.raises(DataError, match="nothing to look at"):
        explore(SpectrumPCA().fit(spectra), spectra[:0])


def test_faults_are_sentences(tmp_path: Path) -> None:
    curve = load_kpi()[0].series
    with pytest.raises(DataError, match="has not been fitted"):
        explore(SpectralResidual(), curve)
    (tmp_path / "file").write_text("in the way")
    explorer = explore(SpectralResidual().fit(curve), curve, out=tmp_path / "file/flagged.csv")
    with pytest.raises(DataError, match="not written"):
        explorer.export()
    line = explorer.widgets().children[2]
    line.children[1].click()
    assert "not written" in line.children[0].value

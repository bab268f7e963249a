"""What completion offers, and what a type checker knows of the package from outside."""

import ast
import importlib
import os
import subprocess
import sys
from pathlib import Path

import pytest

import anomaly_nb
from anomaly_nb.core import Detector
from anomaly_nb.dcase import SoundDetector
from anomaly_nb.dcgan import SpectrogramDetector
from anomaly_nb.fmnist import ImageDetector
from anomaly_nb.spectra import SpectrumDetector, SpectrumPCA
from anomaly_nb.srcnn import SRCNN, SpectralResidual

ROOT = Path(__file__).parents[1]
SYSTEMS = [name for name in dir(anomaly_nb) if (ROOT / "anomaly_nb" / name).is_dir()]
HOUSE = ["artefacts", "audio", "commands", "core", "datasets", "engines", "extras", "files", "fingerprints", "metrics"]
HOUSE += ["plots", "processes", "report", "scale", "store", "tour", "training", "weights"]
VERBS = {"fit", "decision_function", "predict", "fit_predict", "detect", "save", "load", "get_params", "set_params"}


def test_the_package_offers_its_chapters() -> None:
    assert sorted([*SYSTEMS, *HOUSE]) == sorted(name for name in dir(anomaly_nb) if not name.startswith("_"))
    assert {"dcase", "dcgan", "fmnist", "spectra", "srcnn"} <= set(SYSTEMS)
    assert all(getattr(anomaly_nb, name).__name__ == f"anomaly_nb.{name}" for name in dir(anomaly_nb))
    assert isinstance(anomaly_nb.__version__, str)
    assert not hasattr(anomaly_nb, "tree")


@pytest.mark.parametrize("system", SYSTEMS)
def test_a_system_offers_its_public_names(system: str) -> None:
    module = importlib.import_module(f"anomaly_nb.{system}")
    names = dir(module)
    assert names == sorted(names) and len(names) > 10 and set(names) == set(module.__all__)
    assert not [name for name in names if name.startswith("_")]
    for name in names:
        home = getattr(getattr(module, name), "__module__", f"anomaly_nb.{system}")
        assert home.split(".")[:2] == ["anomaly_nb", system] or name.isupper(), f"{name} comes from {home}"


@pytest.mark.parametrize("name", [*SYSTEMS, *HOUSE])
def test_nothing_is_loaded_before_it_is_used(name: str) -> None:
    code = f"import sys, anomaly_nb; dir(anomaly_nb); import anomaly_nb.{name if name in SYSTEMS else 'core'}; "
    code += "print('torch' in sys.modules, 'matplotlib' in sys.modules, 'sklearn' in sys.modules)"
    paths = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    shown = subprocess.check_output([sys.executable, "-c", code], text=True, env=os.environ | {"PYTHONPATH": paths})
    assert shown.split() == ["False", "False", "False"]


@pytest.mark.parametrize(
    "kind", [SpectralResidual, SRCNN, SpectrumDetector, SpectrumPCA, SpectrogramDetector, ImageDetector, SoundDetector]
)
def test_a_detector_offers_its_verbs_and_parameters(kind: type[Detector]) -> None:
    offered = {name for name in dir(kind()) if not name.startswith("_")}
    assert VERBS <= offered and set(kind().get_params()) <= offered
    others = offered - VERBS - set(kind().get_params()) - {"parts"}
    assert len(others) <= 5, f"more than parameters and verbs: {others}"
    assert all(getattr(kind, name).__doc__ for name in others | VERBS - {"fit"})


USER = """
from pathlib import Path

import anomaly_nb
from anomaly_nb.core import DataError, Detector
from anomaly_nb.dcase import DCASEFolder, SoundDetector
from anomaly_nb.dcgan import SpectrogramDetector, audio_to_spectrograms, load_config
from anomaly_nb.fmnist import ImageDetector, load_subset, make_protocol
from anomaly_nb.metrics import roc_auc
from anomaly_nb.plots import explore
from anomaly_nb.spectra import Spectra, SpectrumDetector, simulate_spectra
from anomaly_nb.srcnn import SpectralResidual, load_kpi


def judge(detector: Detector, data: object) -> float:
    return float(detector.fit(data).decision_function(data).max())


def main(folder: Path) -> None:
    first, second = load_kpi()[1].halves()
    detector = SpectralResidual(side="upper").fit(first.series)
    area: float = roc_auc(second.truth, detector.decision_function(second.series))
    spectra: Spectra = simulate_spectra(80, seed=1)
    table = SpectrumDetector(epochs=0).fit(spectra).detect(spectra)
    task = make_protocol("original", load_subset("train"), load_subset("test"))
    print(area, table.shape, judge(ImageDetector("VAE"), task.train), len(explore(detector, second.series).flagged))
    print(SoundDetector.load(folder).threshold_, SpectrogramDetector().get_params(), DCASEFolder(folder).counts())
    print(load_config("config").training, audio_to_spectrograms([0.0, 1.0]).level.sum(), anomaly_nb.__version__)
    print(anomaly_nb.srcnn.SpectralResidual, DataError("a sentence"))
"""
WRONG = {
    'SpectralResidual(side="up")': "arg-type",
    "load_kpi()[0].halfs()": "attr-defined",
    "simulate_spectra('80')": "arg-type",
    "anomaly_nb.spectrum": "attr-defined",
    "anomaly_nb.srcnn.SpectralResiduals": "attr-defined",
}


@pytest.mark.slow
def test_a_users_program_is_checked_strictly(tmp_path: Path) -> None:
    "A sound program passes, and each wrong line is found: the names have types, not `Any`."
    pytest.importorskip("mypy")
    assert (ROOT / "anomaly_nb/py.typed").exists()
    (tmp_path / "program.py").write_text(USER)
    (tmp_path / "wrong.py").write_text(USER + "".join(f"    {line}\n" for line in WRONG))
    environment = os.environ | {"MYPYPATH": str(ROOT)}
    command = [sys.executable, "-m", "mypy", "--strict", "--no-error-summary", "program.py", "wrong.py"]
    command += ["--follow-imports=silent", "--cache-dir", str(tmp_path / "cache")]
    shown = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True).stdout
    errors = [line for line in shown.splitlines() if ": error:" in line]
    ast.parse(USER)
    assert [line for line in errors if line.startswith("program.py")] == [], shown
    assert [line.split("[")[-1].rstrip("]") for line in errors if line.startswith("wrong.py")] == list(WRONG.values())


def modules() -> list[tuple[str, ast.Module]]:
    paths = [path for path in (ROOT / "anomaly_nb").rglob("*.py") if path.name != "_modidx.py"]
    return [(path.relative_to(ROOT).as_posix(), ast.parse(path.read_text(encoding="utf-8"))) for path in paths]


def test_only_commands_print() -> None:
    "Library code logs and returns tables."
    printing = {
        name
        for name, tree in modules()
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print"
    }
    assert all(name.endswith("/commands.py") for name in printing)

"""Every command explains itself with an example, and the example runs."""

import re
import shlex
import subprocess
import sys
import zipfile
from collections.abc import Callable
from functools import cache
from importlib.metadata import entry_points
from pathlib import Path

import pandas as pd
import pytest
from forked import run_script

from anomaly_nb.datasets import sample_path
from anomaly_nb.dcase import synthesize_machines
from anomaly_nb.dcgan.engines import write_engines
from anomaly_nb.dcgan.spectrograms import SpectrogramFormat, prepare_folder
from anomaly_nb.fmnist.data import DEBIAN
from anomaly_nb.spectra.commands import spectra_train
from anomaly_nb.srcnn import load_kpi, load_telemetry

ROOT = Path(__file__).parent.parent


def commands() -> list[str]:
    "The console scripts of the package, as they are installed."
    scripts = entry_points(group="console_scripts")
    return sorted(script.name for script in scripts if script.value.startswith("anomaly_nb."))


def run(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    script = Path(sys.executable).with_name(arguments[0])
    return run_script(script, *arguments[1:], folder=folder, environment={"COLUMNS": "400"})


def example(name: str) -> str:
    shown = run(Path.cwd(), name, "--help")
    assert shown.returncode == 0, shown.stderr
    found = re.search(rf"Example:\s+({name}.*)", shown.stdout)
    assert found, f"{name} --help shows no example"
    return found[1].strip()


def curves(folder: Path) -> None:
    for curve in load_kpi():
        for part, half in zip(("train", "test"), curve.halves(), strict=True):
            path = folder / "datasets/mine" / part / f"{curve.name}.csv"
            path.parent.mkdir(parents=True, exist_ok=True)
            half.series.to_frame().assign(label=half.truth.astype(int)).to_csv(path)
    half.series.to_frame().to_csv(folder / "load.csv")


def windows(folder: Path) -> None:
    curves(folder)
    run(folder, "srcnn_generate_data", "--dataset", "mine").check_returncode()


def night(folder: Path) -> None:
    spectra_train(simulate=120, baseline=True, out=folder / "model")
    with zipfile.ZipFile(sample_path("spectra/sdss_objects.zip")) as archive:
        for name in archive.namelist()[:2]:
            archive.extract(name, folder / "new")


def machines(folder: Path) -> None:
    synthesize_machines(folder / "machines", ["fan"], machines=1, train=4, normal=2, anomaly=2, seconds=2)


def engines(folder: Path) -> None:
    write_engines(folder / "recordings", 4, seconds=1.5)


def pictures(folder: Path) -> None:
    engines(folder)
    prepare_folder(folder / "recordings", folder / "dataset", SpectrogramFormat(64))


def generator(folder: Path) -> None:
    pictures(folder)
    run(folder, *shlex.split(example("dcgan_train"))).check_returncode()


def clothes(folder: Path) -> None:
    if not DEBIAN.exists():
        pytest.skip("Fashion-MNIST is not here: install Debian's dataset-fashion-mnist")
    run(folder, "fmnist_train", "--subset", "--epochs", "1").check_returncode()
    (folder / "mine.toml").write_text("[losses]\nMSE = { mse = 1 }\n\n[models]\nAutoencoder = { epochs = 1 }\n")


def photographs(folder: Path) -> None:
    from PIL import Image

    from anomaly_nb.fmnist.data import load_subset

    images, labels = load_subset("train")
    for number, image in enumerate(images[labels == 2][:60]):
        place = folder / ("good" if number < 50 else "photographs")
        place.mkdir(exist_ok=True)
        Image.fromarray(image).save(place / f"{number:02d}.png")


def telemetry(folder: Path) -> None:
    series = load_telemetry()[0]
    (folder / "TSB-AD-U").mkdir()
    table = pd.DataFrame({"Data": series.values, "Label": series.labels.astype(int)})
    table.to_csv(folder / "TSB-AD-U" / series.name, index=False)


def nothing(folder: Path) -> None:
    pass


PREPARED: dict[str, Callable[[Path], None]] = {
    "srcnn_generate_data": curves,
    "srcnn_train": windows,
    "srcnn_evaluate": curves,
    "srcnn_detect": curves,
    "srcnn_benchmark": telemetry,
    "fmnist_detect": photographs,
    "spectra_detect": night,
    "dcase_check": machines,
    "dcase_train_vqvae": machines,
    "dcgan_prepare": engines,
    "dcgan_train": pictures,
    "dcgan_generate": generator,
    "dcgan_npy_to_images": generator,
    "fmnist_train": clothes,
    "fmnist_evaluate": clothes,
    "fmnist_grid": clothes,
}
LONG = {"spectra_train", "anomaly_nb_tour", "dcase_synthesize", "dcase_study", "srcnn_train"}
LONG |= {"fmnist_train", "fmnist_evaluate", "fmnist_grid", "dcgan_generate", "dcgan_npy_to_images"}


@pytest.mark.parametrize("name", [pytest.param(n, marks=pytest.mark.slow) if n in LONG else n for n in commands()])
def test_the_example_runs(name: str, tmp_path: Path) -> None:
    PREPARED.get(name, nothing)(tmp_path)
    before = set(tmp_path.rglob("*"))
    done = run(tmp_path, *shlex.split(example(name)))
    assert done.returncode == 0, done.stderr
    assert set(tmp_path.rglob("*")) - before or done.stdout or done.stderr


@pytest.mark.parametrize("name", commands())
def test_help_has_an_example_of_known_flags(name: str) -> None:
    text = run(Path.cwd(), name, "--help").stdout
    flags = {word.split("=")[0] for word in shlex.split(example(name)) if word.startswith("--")}
    assert flags <= set(re.findall(r"--[\w-]+", text.split("Example:")[0]))


@cache
def cpu_seconds(*words: Path | str) -> float:
    "The processor time of a program, the lower of two."
    code = "import resource, subprocess, sys\nsubprocess.run(sys.argv[1:], capture_output=True, check=True)\n"
    code += "used = resource.getrusage(resource.RUSAGE_CHILDREN)\nprint(used.ru_utime + used.ru_stime)"
    return min(float(subprocess.check_output([sys.executable, "-c", code, *words], text=True)) for _ in range(2))


@pytest.mark.parametrize("name", commands())
def test_help_is_there_at_once(name: str) -> None:
    "Nothing heavy is loaded for it: a ratio of processor times, so that a slow machine does not matter."
    bare = cpu_seconds(sys.executable, "-c", "import numpy")
    assert cpu_seconds(Path(sys.executable).with_name(name), "--help") < 6 * bare


@pytest.mark.parametrize("name", commands())
def test_every_command_speaks_the_same_language(name: str) -> None:
    version = run(Path.cwd(), name, "--version")
    assert version.returncode == 0 and version.stdout.startswith(f"{name} ")
    script = run(Path.cwd(), name, "--completion", "bash")
    assert script.returncode == 0 and f"_{name.upper()}_COMPLETE" in script.stdout
    wrong = run(Path.cwd(), name, "--no-such-option")
    assert wrong.returncode == 2 and "No such option" in wrong.stderr
    text = run(Path.cwd(), name, "--help").stdout
    assert "--quiet" in text and "--verbose" in text and "[default: ]" not in text and "None" not in text

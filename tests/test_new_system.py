"""The steps by which the guide adds a system, done as they are written: everything else finds it."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
ASKED = """
import json, anomaly_nb, anomaly_nb.tour
from anomaly_nb.toy import LevelDetector
from anomaly_nb.toy.commands import toy_detect
chapters = anomaly_nb.tour.chapters()
print(json.dumps({
    "names": dir(anomaly_nb),
    "labels": LevelDetector().fit([1, 2, 3, 9]).labels_.tolist(),
    "chapters": list(chapters),
    "title": chapters["toy"].chapter().title,
}))
toy_detect.main(["--help"])
"""


def pages() -> dict[str, str]:
    "The pages of the smallest system, as the guide shows them."
    cells = json.loads((ROOT / "nbs/contributing.ipynb").read_text(encoding="utf-8"))["cells"]
    text = "\n".join("".join(cell["source"]) for cell in cells)
    return dict(re.findall(r"`(nbs/toy/\w+)\.ipynb`\n\n```python\n(.*?)```", text, re.DOTALL))


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    "A copy of the project with one more system."
    place = tmp_path_factory.mktemp("project")
    shutil.copytree(ROOT / "nbs", place / "nbs", ignore=shutil.ignore_patterns(".ipynb_checkpoints"), symlinks=True)
    shutil.copytree(ROOT / "anomaly_nb", place / "anomaly_nb", ignore=shutil.ignore_patterns("samples", "__pycache__"))
    (place / "anomaly_nb/samples").symlink_to(ROOT / "anomaly_nb/samples")
    for name in ("settings.ini", "setup.py", "README.md"):
        shutil.copy(ROOT / name, place)
    (place / "nbs/toy").mkdir()
    for name, text in pages().items():
        (place / f"{name}.py").write_text(text)
        command = ["jupytext", "--to", "ipynb", "--set-kernel", "python3", "--quiet", f"{name}.py"]
        subprocess.run([sys.executable, "-m", *command], cwd=place, check=True)
        (place / f"{name}.py").unlink()
    index = place / "nbs/index.ipynb"
    line = '    "        tour,\\n",\n'
    assert index.read_text().count(line) == 1
    index.write_text(index.read_text().replace(line, '    "        toy,\\n",\n' + line))
    # Where IN_TEST is set, nbdev exports nothing.
    environment = {name: value for name, value in os.environ.items() if name != "IN_TEST"}
    subprocess.run([Path(sys.executable).with_name("nbdev_export")], cwd=place, env=environment, check=True)
    return place


def test_the_guide_shows_four_pages() -> None:
    assert list(pages()) == [f"nbs/toy/{name}" for name in ("index", "00_level", "01_commands", "tour")]


def test_everything_finds_a_new_system(tree: Path) -> None:
    environment = os.environ | {"PYTHONPATH": str(tree), "MPLBACKEND": "Agg"}
    told = subprocess.check_output([sys.executable, "-c", ASKED], cwd=tree, env=environment, text=True)
    first, _, help = told.partition("\n")
    found = json.loads(first)
    assert "toy" in found["names"] and found["labels"] == [0, 0, 0, 1]
    assert found["chapters"][-1] == "toy" and found["title"] == "Levels"
    assert "Find odd numbers." in help and "Numbers to judge" in help and "--cutoff" in help


def test_its_command_becomes_a_console_script(tree: Path) -> None:
    told = subprocess.check_output([sys.executable, "setup.py", "-q", "egg_info"], cwd=tree, text=True)
    scripts = (tree / "anomaly_nb.egg-info/entry_points.txt").read_text()
    assert not told and "toy_detect = anomaly_nb.toy.commands:toy_detect.main" in scripts

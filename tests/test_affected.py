"""What a change concerns: the graph of imports on a small tree, and on this one."""

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[1]


def script() -> ModuleType:
    "Import `.ci/affected.py`."
    spec = importlib.util.spec_from_file_location("affected", ROOT / ".ci/affected.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules["affected"] = module  # data classes look their module up
    spec.loader.exec_module(module)
    return module


affected = script()
HOUSE = {
    "__init__": "import lazy_loader\nif TYPE_CHECKING:\n    from anomaly_nb import birds, core, fish, tour\n",
    "core": "def check(): ...",
    "tour": "from importlib import import_module\nfor name in NAMES:\n    import_module(f'anomaly_nb.{name}.tour')",
}
SYSTEM = {
    "__init__": "if TYPE_CHECKING:\n    from anomaly_nb.NAME.songs import *\n",
    "data": "from ..core import check\n\ndef load(): return sample_path('NAME/songs.zip')",
    "songs": "class Song: ...",
    "detector": "def fit():\n    from .data import load  # not at the top",
    "commands": "from .detector import fit\n\n@command\ndef NAME_detect(): ...",
    "tour": "from .detector import fit\nrender_page('chapter.html')",
}
TESTS = {
    "conftest": "@pytest.fixture\ndef report(): import anomaly_nb.tour\n",
    "helper": "from anomaly_nb.birds.songs import Song",
    "test_core": "from anomaly_nb.core import check",
    "test_birds": "from anomaly_nb.birds import fit",
    "test_birds_songs": "import helper",
    "test_fish": "import anomaly_nb\nanomaly_nb.fish.fit()",
    "test_shell": "run(['birds_detect', '--help'])",
    "test_program": "CODE = '''\nfrom anomaly_nb.fish import fit\n'''",
    "test_report": "def test_it(report): ...",
    "test_both": "from anomaly_nb.birds import fit\nfrom anomaly_nb.fish import load",
    "test_form": "pages = (ROOT / 'nbs').rglob('*.ipynb')",
}


def page(*cells: str) -> str:
    "A notebook of cells with code."
    return json.dumps({"cells": [{"cell_type": "code", "source": [cell]} for cell in cells]})


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    "A library with two systems, its pages and its tests."
    modules = {f"{name}.py": code for name, code in HOUSE.items()}
    for system in ("birds", "fish"):
        modules |= {f"{system}/{name}.py": code.replace("NAME", system) for name, code in SYSTEM.items()}
    for name, code in modules.items():
        target = name.removesuffix(".py").replace("/", ".")
        notebook = "nbs/" + name.replace("__init__", "index").replace(".py", ".ipynb")
        exported = code.replace("from ..", "from anomaly_nb.").replace(
            "from .", f"from anomaly_nb.{name.split('/')[0]}."
        )
        write(tmp_path / "anomaly_nb" / name, code)
        write(tmp_path / notebook, page(f"#| default_exp {target}", f"#| export\n{exported}", "%matplotlib inline"))
    write(tmp_path / "nbs/guide.ipynb", page("from anomaly_nb.birds import Song, fit"))
    write(tmp_path / "nbs/birds/study.ipynb", page("from anomaly_nb.birds import load"))
    write(tmp_path / "anomaly_nb/templates/page.html", "<html>")
    write(tmp_path / "anomaly_nb/templates/chapter.html", '{% extends "page.html" %}')
    for name, code in TESTS.items():
        write(tmp_path / "tests" / f"{name}.py", code)
    return tmp_path


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def near(tree: Path, *changed: str, same: tuple[str, ...] = ()) -> set[str]:
    "Return the names of near pages and tests, without their folders and endings."
    found = affected.concern(affected.Tree(tree), changed, same)
    assert not set(found.near) & set(found.far) and len(set(found.near)) == len(found.near)
    return {path.removeprefix("nbs/").removeprefix("tests/").rpartition(".")[0] for path in found.near}


def test_imports_are_followed_through_modules_and_functions(tree: Path) -> None:
    graph = affected.Tree(tree)
    assert graph.distances({"anomaly_nb.core"})["anomaly_nb.birds.data"] == 1
    assert graph.distances({"anomaly_nb.birds.data"}) == {
        "anomaly_nb.birds.data": 0,
        "anomaly_nb.birds.detector": 1,
        "anomaly_nb.birds.commands": 2,
        "anomaly_nb.birds.tour": 2,
        "anomaly_nb.tour": 3,
    }


def test_a_front_is_seen_through(tree: Path) -> None:
    "Who imports one name of a system does not depend on all its modules."
    assert "birds/songs" in near(tree, "nbs/birds/songs.ipynb")
    assert near(tree, "nbs/birds/songs.ipynb") == {"birds/songs", "guide", "test_birds_songs", "test_form"}


def test_pages_and_tests_of_the_system_are_near(tree: Path) -> None:
    found = near(tree, "nbs/birds/data.ipynb")
    pages = {f"birds/{name}" for name in ("data", "detector", "commands", "tour", "study")}
    assert found == pages | {"test_birds", "test_shell", "test_form"}
    far = affected.concern(affected.Tree(tree), ["nbs/birds/data.ipynb"]).far
    assert set(far) == {"nbs/tour.ipynb", "nbs/guide.ipynb", "tests/test_report.py", "tests/test_both.py"}


def test_programs_and_chains_of_names_are_read(tree: Path) -> None:
    assert {"test_fish", "test_program"} <= near(tree, "nbs/fish/data.ipynb")


def test_foundations_leave_the_systems_to_all_tests(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(affected, "IMPORTERS", 1)
    assert near(tree, "nbs/core.ipynb") == {"core", "test_core", "test_form"}
    line = affected.concern(affected.Tree(tree), ["nbs/core.ipynb"]).left_out()
    assert line.startswith("Left to `make test`: 11 pages and ") and "\n" not in line


def test_prose_concerns_its_page_only(tree: Path) -> None:
    assert near(tree, "nbs/birds/data.ipynb", same=("nbs/birds/data.ipynb",)) == {"birds/data", "test_form"}
    assert affected.exported(page("#| export\na = 1", "b = 2")) == affected.exported(page("#| export\na = 1", "b = 3"))
    assert affected.exported(page("#| exports\na = 1")) != affected.exported(page("#| exports\na = 2"))


def test_tests_and_what_they_share(tree: Path) -> None:
    assert near(tree, "tests/test_both.py") == {"test_both"}
    assert near(tree, "tests/helper.py") == {"test_birds_songs"}
    assert near(tree, "tests/conftest.py") == {"test_report"}


def test_templates_and_samples_are_found_by_name(tree: Path) -> None:
    assert {"birds/tour", "fish/tour"} <= near(tree, "anomaly_nb/templates/page.html")
    assert {"birds/data", "birds/detector", "test_birds"} <= near(tree, "anomaly_nb/samples/birds/songs.zip")
    assert "nothing names LICENSE" in affected.concern(affected.Tree(tree), ["LICENSE"]).left_out()


def test_a_module_that_is_gone_concerns_who_imported_it(tree: Path) -> None:
    for name in ("anomaly_nb/birds/songs.py", "nbs/birds/songs.ipynb"):
        (tree / name).unlink()
    assert "test_birds_songs" in near(tree, "anomaly_nb/birds/songs.py", "nbs/birds/songs.ipynb")


def test_the_changed_come_first(tree: Path) -> None:
    found = affected.concern(affected.Tree(tree), ["nbs/birds/data.ipynb", "tests/test_both.py"]).near
    assert set(found[:2]) == {"nbs/birds/data.ipynb", "tests/test_both.py"}
    assert found.index("nbs/birds/detector.ipynb") < found.index("nbs/birds/tour.ipynb")


def test_the_graph_of_this_tree() -> None:
    graph = affected.Tree()
    homes = {page.module for page in graph.pages.values()} - {""}
    assert homes == set(graph.modules), "each module has its page"
    for name, module in graph.modules.items():
        missing = {each for each in module.imports if each not in graph.modules}
        assert not missing, f"{name} imports {missing}"
    (place,) = (path for path, page in graph.pages.items() if page.module == "anomaly_nb.srcnn.detector")
    detector = affected.concern(graph, [place])
    assert {place, "nbs/srcnn/study.ipynb", "tests/test_spectral_residual.py"} <= set(detector.near)
    assert not any("dcase" in path or "fmnist" in path for path in detector.near)
    core = affected.concern(graph, ["nbs/00_core.ipynb"])
    assert len(core.near) < 40 and len(core.near) + len(core.far) > 100

"""A release: one command gives every place the version, or changes nothing."""

import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[1]


def script(root: Path) -> ModuleType:
    "Import `.ci/release.py` of a tree."
    spec = importlib.util.spec_from_file_location("release", root / ".ci/release.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    "A copy of what a release needs, exported, with something new in the changelog."
    folder = tmp_path_factory.mktemp("release") / "tree"
    folder.mkdir()
    script(ROOT).copy_tree(ROOT, folder)
    shutil.copytree(ROOT / ".ci", folder / ".ci", ignore=shutil.ignore_patterns("__pycache__"))
    environment = {name: value for name, value in os.environ.items() if name != "IN_TEST"}
    export = Path(sys.executable).with_name("nbdev_export")
    subprocess.run([export], cwd=folder, env=environment, check=True, capture_output=True)
    log = folder / "CHANGELOG.md"
    text = log.read_text(encoding="utf-8").replace("## [Unreleased]\n", "## [Unreleased]\n\n- News of a test.\n", 1)
    log.write_text(text, encoding="utf-8")
    return folder


@pytest.fixture
def tree(pristine: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(pristine, tmp_path / "tree", symlinks=True))


def contents(folder: Path) -> dict[str, bytes]:
    files = [path for path in folder.rglob("*") if path.is_file() and "__pycache__" not in path.parts]
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def run(tree: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, tree / ".ci/release.py", *arguments]
    return subprocess.run(command, cwd=tree.parent, capture_output=True, text=True)


def test_every_place_of_this_tree_names_the_same_version() -> None:
    assert script(ROOT).check() == []


def test_a_release_changes_every_place_once(tree: Path) -> None:
    before, module = contents(tree), script(tree)
    now = module.stated(tree, "settings.ini", module.PLACES["settings.ini"])
    done = run(tree, "7.0.1")
    assert done.returncode == 0, done.stderr
    after = contents(tree)
    assert {name for name in after if after[name] != before.get(name)} == set(module.PLACES)
    assert before.keys() == after.keys(), "a file too many, or one is gone"
    for name, expression in module.PLACES.items():
        assert module.stated(tree, name, expression) == "7.0.1"
    log = after["CHANGELOG.md"].decode()
    assert (
        log.index("## [Unreleased]") < log.index("## [7.0.1] - ") < log.index("News of a test") < log.index(f"[{now}]")
    )
    assert f"/compare/v7.0.1...HEAD\n[7.0.1]: {module.address(tree)}/compare/v{now}...v7.0.1\n" in log
    assert run(tree, "--check").returncode == 0

    again = run(tree, "7.0.1")
    assert again.returncode == 0 and "already" in again.stdout
    assert contents(tree) == after

    (tree / "CITATION.cff").write_bytes(before["CITATION.cff"])  # as if the first run had been killed
    assert run(tree, "--check").returncode == 1
    assert run(tree, "7.0.1").stdout.splitlines()[0] == "CITATION.cff"
    assert contents(tree) == after


WRONG = ["0.0.1", "1.0", "v9.0.0", "9.0.0rc1", "09.0.0", "9.0.0.0", "9.0.0\n", " ", "9.1\u0660.0"]


@pytest.mark.parametrize("version", WRONG)
def test_a_wrong_version_is_refused_before_anything_is_done(pristine: Path, version: str) -> None:
    module = script(pristine)
    with pytest.raises(module.ReleaseError, match=r"higher one|three numbers"):
        module.release(version, pristine)


def test_a_refusal_is_one_sentence(pristine: Path) -> None:
    before, done = contents(pristine), run(pristine, "0.0.1")
    assert done.returncode == 1 and len(done.stderr.splitlines()) == 1 and done.stderr.startswith("error: 0.0.1 is")
    assert contents(pristine) == before


def spoil_changelog(tree: Path) -> None:
    log = tree / "CHANGELOG.md"
    kept = log.read_text(encoding="utf-8").split("## [Unreleased]\n")
    log.write_text(kept[0] + "## [Unreleased]\n\n" + kept[1][kept[1].index("## [") :], encoding="utf-8")


def spoil_package(tree: Path) -> None:
    with (tree / "anomaly_nb/core.py").open("a", encoding="utf-8") as file:
        file.write("\n# edited by hand\n")


def spoil_citation(tree: Path) -> None:
    (tree / "CITATION.cff").unlink()


@pytest.mark.parametrize("spoil", [spoil_changelog, spoil_package, spoil_citation])
def test_a_tree_that_is_not_ready_is_left_as_it_is(tree: Path, spoil) -> None:  # type: ignore[no-untyped-def]
    spoil(tree)
    before, done = contents(tree), run(tree, "7.0.1")
    assert done.returncode == 1 and len(done.stderr.splitlines()) == 1, done.stderr
    assert contents(tree) == before


def test_a_failure_in_the_middle_leaves_nothing_half_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module, real, left = script(ROOT), os.replace, list[bool]()
    for name in module.PLACES:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    before = contents(tmp_path)

    def replace(source: Path, target: Path) -> None:
        if not left.pop():
            raise OSError("no space left")
        real(source, target)

    monkeypatch.setattr(module.os, "replace", replace)
    for replaced in range(len(before)):
        left[:] = [*[True] * len(before), False, *[True] * replaced]  # also what was replaced is put back
        with pytest.raises(OSError, match="no space"):
            module.replace_all(tmp_path, {name: data + b"\n" for name, data in before.items()})
        assert contents(tmp_path) == before

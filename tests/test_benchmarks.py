"""`make bench`: what it runs, and what it says of a benchmark that cannot be run here."""

import importlib.util
import re
from pathlib import Path
from types import ModuleType

import pytest

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
BY_HAND = {"dcgan_detector", "dcgan_ablation", "dcgan_recordings"}


@pytest.fixture(scope="module")
def runner() -> ModuleType:
    spec = importlib.util.spec_from_file_location("run", BENCHMARKS / "run.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_benchmark_has_its_place(runner: ModuleType) -> None:
    named = {job[0] for job in [*runner.SPEED, *runner.QUALITY]}
    scripts = {path.stem for path in BENCHMARKS.glob("*_*.py")}
    assert scripts == named | BY_HAND and all(name in runner.__doc__ for name in BY_HAND)
    assert {path.stem for path in BENCHMARKS.glob("*_speed.py")} <= {job[0] for job in runner.SPEED}


def test_speed_of_every_system_is_kept(runner: ModuleType) -> None:
    systems = {"srcnn", "spectra", "dcgan", "fmnist", "fmnist_memory", "dcase", "scale"}
    assert systems <= {re.sub("_speed$", "", path.stem) for path in (BENCHMARKS / "results").glob("*_speed.csv")}


def test_missing_files_are_a_sentence(runner: ModuleType, tmp_path: Path) -> None:
    sound, absent, broken = (tmp_path / f"{name}.py" for name in ("sound", "absent", "broken"))
    sound.write_text("print('fine')")
    absent.write_text("from anomaly_nb.core import DataError\nraise DataError('train.gz: not here. Fetch it.')")
    broken.write_text("import sys; sys.exit(3)")
    assert runner.run(sound) == ""
    assert runner.run(absent) == "train.gz: not here. Fetch it."
    assert runner.run(broken) == "it ended with status 3"


def test_the_next_one_runs_after_a_failure(
    runner: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "results").mkdir()
    (tmp_path / "first.py").write_text("raise ValueError('no files')")
    (tmp_path / "second.py").write_text(f"open({str(tmp_path / 'done')!r}, 'w')")
    monkeypatch.setattr(runner, "HERE", tmp_path)
    monkeypatch.setattr(runner, "SPEED", [["first"], ["second"]])
    with pytest.raises(SystemExit, match="first are those of an earlier run"):
        runner.main()
    assert "Not measured: no files" in capsys.readouterr().out
    assert (tmp_path / "done").exists() and (tmp_path / "results/machine.csv").exists()

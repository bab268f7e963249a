"""Every training and every long command: killed at any moment, the same command ends with the same result."""

import multiprocessing
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from contextlib import suppress
from multiprocessing.process import BaseProcess
from pathlib import Path

import numpy as np
import pytest
from killable import COMMANDS, WIDE, nothing, results
from killable import run as run_command

from anomaly_nb.core import folder_lock

QUICK = ["srcnn_detect", "dcgan_generate"]  # in each run of the tests; all of them with -m slow
NAMES = [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in COMMANDS]
ALL = COMMANDS | WIDE
KILLS = [(name, 2) for name in QUICK] + [pytest.param(name, 20, marks=pytest.mark.slow) for name in ALL]
TOLD = ["goes on from there", "is lost", "Run the same command again", "the same call goes on"]
LOADED = ["killable", "lightning", "anomaly_nb.training", "anomaly_nb.dcase", "matplotlib.pyplot", "scipy.stats"]


@pytest.fixture(scope="module")
def start() -> Callable[..., BaseProcess]:
    "Starts a command in a process that has loaded its libraries, so that kills hit its work."
    os.environ |= {"IN_TEST": "1", "OMP_NUM_THREADS": "1"}
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(LOADED)

    def begin(folder: Path, name: str, scheduler: str = "") -> BaseProcess:
        words = ALL[name].arguments.replace("ADDRESS", scheduler).split()
        process = context.Process(target=run_command, args=(str(folder), name, words))
        process.start()
        return process

    return begin


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, Path], Path]:
    "Copies the input of a command into a folder; it is made once, by a process of its own."
    made: dict[str, Path] = {}

    def give(name: str, folder: Path) -> Path:
        if name not in made:
            made[name] = tmp_path_factory.mktemp(name)
            context = multiprocessing.get_context("forkserver")
            process = context.Process(target=ALL[name].prepare, args=(made[name],))
            process.start()
            process.join()
            assert process.exitcode == 0
        shutil.copytree(made[name], folder)
        return folder

    return give


def finish(process: BaseProcess, folder: Path) -> str:
    process.join(600)
    output = (folder / "log.txt").read_text() if (folder / "log.txt").exists() else ""
    assert process.exitcode == 0, output
    return output


@pytest.mark.parametrize(("name", "wanted"), KILLS)
def test_killed_anywhere(name, wanted, start, inputs, tmp_path, request):
    words = [request.getfixturevalue("cluster").address] if "ADDRESS" in ALL[name].arguments else []
    whole = inputs(name, tmp_path / "work")
    begun = time.monotonic()
    finish(start(whole, name, *words), whole)
    seconds, expected = time.monotonic() - begun, results(whole, ALL[name])
    assert expected
    random, killed, trials = np.random.default_rng(len(name)), 0, 0
    while killed < wanted and trials < 3 * wanted:  # of four kills in a trial, the last may come when all is done
        shutil.rmtree(tmp_path / "work")
        folder = inputs(name, tmp_path / "work")
        for moment in random.uniform(0, seconds, 4):
            process = start(folder, name, *words)
            process.join(moment)
            process.kill()  # one that has just ended is left alone
            process.join()
            killed += process.exitcode == -signal.SIGKILL
            assert process.exitcode in (0, -signal.SIGKILL), (folder / "log.txt").read_text()
        finish(start(folder, name, *words), folder)
        found = results(folder, ALL[name])
        assert sorted(found) == sorted(expected)
        assert [path for path in expected if found[path] != expected[path]] == [], trials
        trials += 1
    assert killed >= wanted, "too few kills came while the command was running"


def refused(process: BaseProcess, folder: Path) -> str:
    "What a command says that cannot do its work: one line, no half-written file."
    process.join(600)
    output = (folder / "log.txt").read_text()
    assert process.exitcode == 1 and "Traceback" not in output, output
    assert not list(folder.rglob(".*.part*"))
    return [line for line in output.splitlines() if line.startswith("error: ")][-1]


@pytest.mark.parametrize("name", NAMES)
def test_two_runs_in_one_folder(name, start, inputs, tmp_path):
    if not COMMANDS[name].out:
        pytest.skip("writes one file, whole")
    folder = inputs(name, tmp_path / "work")
    with folder_lock(folder / COMMANDS[name].out):
        assert "another run works here" in refused(start(folder, name), folder)


@pytest.mark.parametrize("name", NAMES)
def test_a_folder_that_cannot_be_written(name, start, inputs, tmp_path):
    if not COMMANDS[name].out:
        pytest.skip("writes one file, whole")
    folder = inputs(name, tmp_path / "work")
    place = folder / COMMANDS[name].out
    if place.exists():
        pytest.skip("its input is in the same folder")
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_text("a file where the folder should be")
    assert "written" in refused(start(folder, name), folder)


@pytest.mark.parametrize("name", NAMES)
def test_input_that_is_not_there(name, start, tmp_path):
    if COMMANDS[name].prepare is nothing:
        pytest.skip("needs no input")
    assert len(refused(start(tmp_path, name), tmp_path)) > 30


@pytest.mark.parametrize("name", NAMES)
def test_full_disk(name, start, inputs, tmp_path):
    folder, place = inputs(name, tmp_path / "work"), tmp_path / "small"
    place.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", place], capture_output=True).returncode:
        pytest.skip("mounting a small file system is not allowed here")
    try:
        if not COMMANDS[name].out:
            pytest.skip("writes one file, whole")
        out = folder / COMMANDS[name].out
        if out.exists():
            shutil.copytree(out, place, dirs_exist_ok=True)
            shutil.rmtree(out)
        out.parent.mkdir(parents=True, exist_ok=True)
        out.symlink_to(place)
        (place / "filled").write_bytes(b"")
        with suppress(OSError), (place / "filled").open("wb") as file:
            while True:
                file.write(bytes(4096))
                file.flush()
        assert "No space left" in refused(start(folder, name), folder)
        assert not list(place.rglob(".*.part*"))
    finally:
        subprocess.run(["umount", place], check=True)


@pytest.mark.parametrize("name", NAMES)
def test_interrupt(name, start, inputs, tmp_path):
    if not COMMANDS[name].out:
        pytest.skip("over in a moment, most of which is the start of Python")
    folder = inputs(name, tmp_path / "work")
    begun = time.monotonic()
    finish(start(folder, name), folder)
    moment, expected = 0.6 * (time.monotonic() - begun), results(folder, COMMANDS[name])
    shutil.rmtree(folder)
    inputs(name, folder)
    process = start(folder, name)
    process.join(moment)
    if process.is_alive():
        with suppress(ProcessLookupError):  # it may end between the two lines
            os.kill(process.pid, signal.SIGINT)
    process.join()
    output = (folder / "log.txt").read_text()
    assert process.exitcode in (0, 130) and "Traceback" not in output, output
    assert process.exitcode == 0 or any(phrase in output for phrase in TOLD), output
    finish(start(folder, name), folder)
    assert results(folder, COMMANDS[name]) == expected

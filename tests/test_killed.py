"""Every training and every long command: killed at any moment, the same command ends with the same result."""

import multiprocessing
import os
import shutil
import signal
import time
from collections.abc import Callable
from multiprocessing.process import BaseProcess
from pathlib import Path

import numpy as np
import pytest
from killable import COMMANDS, results
from killable import run as run_command

QUICK = ["srcnn_detect", "dcgan_generate", "dcase_synthesize"]  # in each run of the tests; all of them with -m slow
NAMES = [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in COMMANDS]
LOADED = ["killable", "lightning", "anomaly_nb.training", "anomaly_nb.dcase", "matplotlib.pyplot", "scipy.stats"]


@pytest.fixture(scope="module")
def start() -> Callable[[Path, str], BaseProcess]:
    "Starts a command in a process that has loaded its libraries, so that kills hit its work."
    os.environ |= {"IN_TEST": "1", "OMP_NUM_THREADS": "1"}
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(LOADED)

    def begin(folder: Path, name: str) -> BaseProcess:
        process = context.Process(target=run_command, args=(str(folder), name, COMMANDS[name].arguments.split()))
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
            process = context.Process(target=COMMANDS[name].prepare, args=(made[name],))
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


@pytest.mark.parametrize("name", NAMES)
def test_killed_anywhere(name, start, inputs, tmp_path, request):
    slow = name not in QUICK or "slow" in (request.config.option.markexpr or "").replace("not slow", "")
    whole = inputs(name, tmp_path / "work")
    begun = time.monotonic()
    finish(start(whole, name), whole)
    seconds, expected = time.monotonic() - begun, results(whole, COMMANDS[name])
    assert expected
    rounds, random, killed = (5 if slow else 1), np.random.default_rng(len(name)), 0
    for trial in range(rounds):
        shutil.rmtree(tmp_path / "work")
        folder = inputs(name, tmp_path / "work")
        for moment in random.uniform(0, seconds, 4 if slow else 2):
            process = start(folder, name)
            process.join(moment)
            if process.is_alive():
                os.kill(process.pid, signal.SIGKILL)
                killed += 1
            process.join()
            assert process.exitcode in (0, -signal.SIGKILL), (folder / "log.txt").read_text()
        finish(start(folder, name), folder)
        found = results(folder, COMMANDS[name])
        assert sorted(found) == sorted(expected)
        assert [path for path in expected if found[path] != expected[path]] == [], trial
    assert killed >= rounds

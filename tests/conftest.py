"""What several tests need: the report of a tour, a browser, a cluster of real processes, engines as pictures."""

import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock

signal.signal(signal.SIGINT, signal.default_int_handler)  # in the background a shell makes its children ignore it
HERE = Path(__file__).parent
ENVIRONMENT = os.environ | {
    "PYTHONPATH": os.pathsep.join([str(HERE), str(HERE.parent), os.environ.get("PYTHONPATH", "")]),
    "OMP_NUM_THREADS": "1",
}


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def rank_by_hand(rank: str) -> dict[str, str]:
    return {"NODE_RANK": rank}


def rank_by_slurm(rank: str) -> dict[str, str]:
    job = {"JOB_ID": "1", "JOB_NAME": "training", "NODELIST": "127.0.0.1", "NNODES": "2", "NTASKS": "2"}
    task = {"NTASKS_PER_NODE": "1", "PROCID": rank, "LOCALID": "0", "NODEID": rank}
    return {f"SLURM_{name}": value for name, value in (job | task).items()}


def on_two_machines(
    command: list[Any], folder: Path, ranked: Callable[[str], dict[str, str]] = rank_by_hand
) -> list[str]:
    "Start the same command as two machines would; what each says."
    meeting = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
    pipes = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE, "text": True, "cwd": folder}
    both = [subprocess.Popen(command, env=ENVIRONMENT | meeting | ranked(rank), **pipes) for rank in "01"]
    try:
        told = [process.communicate(timeout=300)[1] for process in both]
    finally:
        for process in both:
            process.kill()
    assert [process.returncode for process in both] == [0, 0], told
    return told


class Cluster:
    "A Dask scheduler and workers with one thread each, as separate processes on loopback."

    def __init__(self, workers: int) -> None:
        self.port, self.processes = free_port(), list[subprocess.Popen[bytes]]()
        self.address = f"tcp://127.0.0.1:{self.port}"
        self.start(workers)

    def start(self, workers: int) -> None:
        self._run("scheduler", "--host", "127.0.0.1", "--port", str(self.port), "--no-dashboard")
        for _ in range(workers):
            self.add_worker()

    def add_worker(self) -> None:
        self._run("worker", self.address, "--nthreads", "1", "--no-dashboard", "--death-timeout", "60")

    def _run(self, kind: str, *options: str) -> None:
        command = [sys.executable, "-m", "distributed.cli.dask_" + kind, *options]
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        self.processes.append(subprocess.Popen(command, env=ENVIRONMENT, start_new_session=True, **quiet))

    def stop(self) -> None:
        for process in self.processes:
            try:
                os.killpg(process.pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
            process.wait()
        self.processes.clear()


@pytest.fixture(scope="session")
def quick_tour(tmp_path_factory: pytest.TempPathFactory) -> Path:
    "The folder of a quick tour, made once by the command, whichever process of the tests asks first."
    together = tmp_path_factory.getbasetemp()
    together = together.parent if "PYTEST_XDIST_WORKER" in os.environ else together
    folder = together / "quick_tour/report"
    with FileLock(together / "quick_tour.lock"):
        if not (folder / "index.html").exists():
            folder.parent.mkdir(exist_ok=True)
            command = [Path(sys.executable).with_name("anomaly_nb_tour"), "--quick", "--out", folder]
            subprocess.run(command, check=True, cwd=folder.parent, capture_output=True)
    return folder


@pytest.fixture(scope="session")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    "A real browser without a window; its console is kept."
    webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed")
    chromium, driver = (shutil.which(name) for name in ("chromium", "chromedriver"))
    if not chromium or not driver:
        pytest.skip("no browser here: install Debian's chromium and chromium-driver")

    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    profile = tmp_path_factory.mktemp("profile")
    for option in ("headless", "no-sandbox", "disable-gpu", "no-first-run", "disable-background-networking"):
        options.add_argument(f"--{option}")
    for option in ("disable-component-update", "disable-sync", "window-size=1280,1000", f"user-data-dir={profile}"):
        options.add_argument(f"--{option}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    window = webdriver.Chrome(options, webdriver.ChromeService(driver))
    yield window
    window.quit()


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    pytest.importorskip("distributed")
    running = Cluster(2)
    yield running
    running.stop()


@pytest.fixture(scope="module")
def engines(tmp_path_factory: pytest.TempPathFactory) -> Path:
    "A folder with the `recordings` of three engines and the `dataset` that dcgan_prepare would make of them."
    import torch

    from anomaly_nb.dcgan import SpectrogramFormat, write_engines
    from anomaly_nb.dcgan.spectrograms import prepare_folder

    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("engines")
    write_engines(folder / "recordings", 3, seconds=1.5)
    prepare_folder(folder / "recordings", folder / "dataset", SpectrogramFormat(64))
    return folder

"""Run the benchmarks one after another, print their tables and keep them in benchmarks/results.

`make bench` measures speed and memory of all systems. The tables of quality train networks for hours; `--quality` adds
them. What cannot be measured here, for example because files are missing, says so in a sentence, and the next one runs.
`dcgan_detector` and `dcgan_ablation` are run by hand, as they judge networks of one's own, and so is
`dcgan_recordings`, which brings the recordings for them.
"""

import os
import platform
import re
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pandas as pd
from fastcore.script import call_parse

HERE = Path(__file__).parent
SPEED = [
    ["srcnn_speed"],
    ["spectra_speed"],
    ["dcgan_speed"],
    ["fmnist_speed"],
    ["fmnist_memory", "--only_speed"],
    ["dcase_speed"],
    ["scale_speed"],
    ["peers_memory"],
]
QUALITY = [
    ["srcnn_quality"],
    ["srcnn_published"],
    ["spectra_quality"],
    ["spectra_lists"],
    ["spectra_populations"],
    ["dcase_quality"],
    ["dcase_detectors"],
    ["fmnist_choice"],
    ["fmnist_default"],
    ["fmnist_quality"],
    ["fmnist_seeds"],
    ["fmnist_memory"],
    ["dcgan_watcher"],
    ["dcgan_quality", "train"],
    ["dcgan_quality", "table"],
]


def machine() -> pd.DataFrame:
    "What the figures were measured on."
    facts = {
        "processor": platform.machine(),
        "cores": os.cpu_count(),
        "memory, GB": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9),
        "system": platform.system(),
        "Python": platform.python_version(),
        **{name: version(name) for name in ("numpy", "scipy", "torch", "librosa", "scikit-learn", "astropy")},
    }
    return pd.DataFrame(facts.items(), columns=["fact", "value"])


def run(script: Path, *arguments: str) -> str:
    "Run a benchmark; what went wrong, as the last line of its errors without the name of the error, or nothing."
    one_thread = dict.fromkeys(["OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS"], "1")
    command = [sys.executable, script, *arguments]
    done = subprocess.run(command, env=os.environ | one_thread, stderr=subprocess.PIPE, text=True)
    lines = done.stderr.strip().splitlines() or [f"it ended with status {done.returncode}"]
    return re.sub(r"^[\w.]*Error: ", "", lines[-1]) if done.returncode else ""


@call_parse
def main(
    quality: bool = False,  # Measure quality as well, for hours
    only: str = "",  # Run no others than these, by a regular expression
) -> None:
    "Run the benchmarks and keep their tables"
    machine().to_csv(HERE / "results/machine.csv", index=False)
    left_out = []
    for name, *arguments in SPEED + (QUALITY if quality else []):
        if re.search(only, name):
            print(f"\n== {' '.join([name, *arguments])}", flush=True)
            if reason := run(HERE / f"{name}.py", *arguments):
                left_out.append(name)
                print(f"Not measured: {reason}")
    if left_out:
        sys.exit(f"The tables of {', '.join(left_out)} are those of an earlier run.")

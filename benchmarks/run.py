"""Run all benchmarks, print their tables and keep them in benchmarks/results."""

import os
import platform
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pandas as pd

HERE = Path(__file__).parent


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


def main() -> None:
    machine().to_csv(HERE / "results/machine.csv", index=False)
    one_thread = dict.fromkeys(["OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS"], "1")
    for script in sorted(set(HERE.glob("*_*.py"))):
        print(f"\n== {script.stem}", flush=True)
        subprocess.run([sys.executable, script], check=True, env=os.environ | one_thread)


if __name__ == "__main__":
    main()

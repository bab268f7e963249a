"""Run all benchmarks, print their tables and keep them in benchmarks/results."""

import os
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent


def main() -> None:
    one_thread = dict.fromkeys(["OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS"], "1")
    for script in sorted(set(HERE.glob("*_*.py"))):
        print(f"\n== {script.stem}", flush=True)
        subprocess.run([sys.executable, script], check=True, env=os.environ | one_thread)


if __name__ == "__main__":
    main()

"""Timing as ratios: everything that is compared runs in turns within one process, and medians are kept."""

import ctypes
import platform
import time
import tracemalloc
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np


def median_seconds(functions: Mapping[str, Callable[[], object]], repeats: int = 9) -> dict[str, float]:
    "Median seconds of each function; they take turns, so that a noisy moment touches all of them."
    seconds: dict[str, list[float]] = {name: [] for name in functions}
    for function in functions.values():
        function()
    for _ in range(repeats):
        for name, function in functions.items():
            start = time.perf_counter()
            function()
            seconds[name].append(time.perf_counter() - start)
    return {name: float(np.median(values)) for name, values in seconds.items()}


def peak_bytes(function: Callable[[], object]) -> int:
    "Most memory that Python objects and arrays took on top of what was there before."
    tracemalloc.start()
    function()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return peak


def peak() -> float:
    "Most memory that this process has had, in MB; `ru_maxrss` would also count what its parent had when it forked."
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) / 1024


def fresh_peak() -> float:
    "Give free memory back to Linux and forget the peak; memory of this process now, in MB."
    ctypes.CDLL("libc.so.6").malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")
    return peak()


def machine() -> str:
    "What the figures were measured on."
    return f"{platform.machine()}, Python {platform.python_version()}, NumPy {np.__version__}"

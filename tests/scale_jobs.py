"""Work for the tests of `scale`: importable, so that processes and cluster workers find it."""

import os
import signal
import time
from pathlib import Path

import numpy as np
import pandas as pd

from anomaly_nb.core import DataError
from anomaly_nb.scale import map_chunks


def squares(numbers: list[int]) -> pd.DataFrame:
    return pd.DataFrame({"number": numbers, "square": [number * number for number in numbers]})


def poisoned(numbers: list[int]) -> pd.DataFrame:
    "Thirteen is bad input."
    if 13 in numbers:
        raise DataError("13: unlucky. Leave it out.")
    return squares(numbers)


def deadly(numbers: list[int]) -> pd.DataFrame:
    "Thirteen takes its process with it."
    if 13 in numbers:
        os.kill(os.getpid(), signal.SIGKILL)
    return squares(numbers)


def slow(numbers: list[int]) -> pd.DataFrame:
    "Zero takes longer than all others together."
    time.sleep(1.5 if 0 in numbers else 0.01)
    return squares(numbers)


def steady(numbers: list[int]) -> pd.DataFrame:
    time.sleep(0.02 * len(numbers))
    return squares(numbers)


def big(numbers: list[int]) -> np.ndarray:
    "Twenty megabytes an item."
    return np.repeat(np.asarray(numbers, dtype=np.float64)[:, None], 2_500_000, axis=1)


def main(out: str, workers: str, scheduler: str | None = None, items: str = "60") -> None:
    map_chunks(steady, range(int(items)), Path(out), chunk_size=3, workers=int(workers), scheduler=scheduler)

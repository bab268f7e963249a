"""Work for the tests of `scale`: importable, so that processes and cluster workers find it."""

import os
import signal
import threading
import time
from collections.abc import Callable
from functools import cached_property, partial
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from anomaly_nb.core import DataError
from anomaly_nb.fingerprints import describe_code
from anomaly_nb.scale import describe_source, map_chunks


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


class Scaled:
    "A callable object with a method, and with something that it keeps once it was asked for."

    def __init__(self, factor: object) -> None:
        self.factor = factor
        self._lock = threading.Lock()  # tells nothing, and must not hide the rest

    @cached_property
    def kept(self) -> np.ndarray:
        return np.arange(3)

    def times(self, numbers: list[int]) -> np.ndarray:
        return np.asarray(numbers) * np.asarray(self.factor) + 0 * self.kept[0]

    __call__ = times


def multiplied(factor: object) -> Callable[[list[int]], np.ndarray]:
    return lambda numbers: np.asarray([number * factor for number in numbers if number not in {"no", "never", "none"}])


def descriptions() -> list[object]:
    "Of what is known by its content, not by its name."
    torch.manual_seed(0)
    layer = torch.nn.Linear(3, 2)
    functions = multiplied(2), Scaled(layer).times, Scaled(2), partial(Scaled(2).times, other=torch.ones(2))
    sources = torch.arange(6.0), [torch.ones(2, dtype=torch.bfloat16), layer], np.ma.array([1, 2], mask=[0, 1])
    return [describe_code(each) for each in functions] + [describe_source(each) for each in sources]


def main(out: str, workers: str, scheduler: str | None = None, items: str = "60") -> None:
    map_chunks(steady, range(int(items)), Path(out), chunk_size=3, workers=int(workers), scheduler=scheduler)

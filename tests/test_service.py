"""A detector in a service: threads that share one, and what loading it brings along."""

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "benchmarks"))
from service import DETECTORS  # noqa: E402


@pytest.mark.parametrize("name", DETECTORS)
def test_threads_may_share_a_detector(name: str, tmp_path: Path) -> None:
    fitted, item = DETECTORS[name](tmp_path)
    fitted.save(tmp_path / "detector")
    detector = type(fitted).load(tmp_path / "detector")
    expected = fitted.decision_function(item)

    def judge(_: int) -> Any:
        return detector.decision_function(item)

    with ThreadPoolExecutor(4) as threads:
        for scores in threads.map(judge, range(12)):
            np.testing.assert_array_equal(scores, expected)
    code = "import sys; from pathlib import Path; from importlib import import_module; "
    code += f"getattr(import_module({type(fitted).__module__!r}), {type(fitted).__name__!r}).load('detector'); "
    told = subprocess.check_output([sys.executable, "-c", code + "print('lightning' in sys.modules)"], cwd=tmp_path)
    assert told.split() == [b"False"], "a service would wait seconds for what only training needs"

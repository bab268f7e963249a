"""What a job was made of is told in full: each edit of code or of what it names shows, and nothing else does."""

import json
import os
import random
import subprocess
import sys
import textwrap
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from anomaly_nb.core import DataError
from anomaly_nb.fingerprints import describe_code, describe_content
from anomaly_nb.scale import map_chunks
from anomaly_nb.store import Results, decode, encode, read_line, signed_line

PROGRAM = """
import math
import numpy as np
{alias}
FACTOR = {factor}
TABLE = {table}
SETTINGS = {settings}
class Curve:
    scale = {attribute}
    def work(self, x): return x * self.scale + {method}
    @property
    def level(self): return {property}
    @staticmethod
    def twice(x): return x {static} 2
curve = Curve()
curve.extra = {instance}
def counted(function):
    from functools import wraps
    @wraps(function)
    def inner(*given): return function(*given) + {decorator}
    return inner
def leaf(x): return x {operator} {constant}
@counted
def helper(x, weight={default}):
    return leaf(x) + FACTOR * TABLE[{index}] + weight
def make(step):
    def stepped(x): return x + step
    return stepped
closed = make({closure})
ways = dict(first=lambda x: x + {inside})
def score(values):
    found = [helper(value) + SETTINGS["k"] for value in values]
    return closed(sum(found)) + curve.work(1) + ways["first"](2) + named(3) + Curve.twice(1) + curve.level
"""


def choices(dice: random.Random) -> dict[str, object]:
    "A value for each place of the program."
    names = "factor attribute method property instance decorator constant default closure inside".split()
    found: dict[str, object] = {name: dice.randint(0, 99) for name in names}
    found["alias"] = dice.choice(["named = math.sqrt", "named = np.sin", "from math import cos as named"])
    found |= {"table": [dice.randint(0, 9) for _ in range(3)], "settings": {"k": dice.random()}}
    return found | {"operator": dice.choice("+-*"), "static": dice.choice("+-*"), "index": dice.randint(0, 2)}


def described(places: dict[str, object]) -> dict[str, str]:
    "The fingerprint of the program's last function, as of a notebook that has just been run."
    scope: dict[str, Any] = {"__name__": "__main__"}
    exec(compile(PROGRAM.format(**places), "<cell>", "exec"), scope)
    return describe_code(scope["score"])


def test_a_thousand_random_edits_are_all_noticed() -> None:
    dice = random.Random(0)
    places = choices(dice)
    before = described(places)
    for _ in range(1000):
        place = dice.choice(sorted(places))
        edited = places | {place: choices(dice)[place]}
        now = described(edited)
        assert (now == before) == (edited == places), f"{place}: {places[place]} -> {edited[place]}"
        places, before = edited, now


def test_the_same_program_is_the_same_in_another_process(tmp_path: Path) -> None:
    (tmp_path / "cell.py").write_text(PROGRAM.format(**choices(random.Random(3))))
    code = "import json, cell; from anomaly_nb.fingerprints import describe_code\n"
    code += "print(json.dumps(describe_code(cell.score)))"
    found = []
    for seed in ("1", "2"):  # the second one reads compiled code
        paths = os.pathsep.join([str(tmp_path), str(Path(__file__).parents[1])])
        environment = os.environ | {"PYTHONHASHSEED": seed, "PYTHONPATH": paths}
        found.append(subprocess.check_output([sys.executable, "-c", code], env=environment, text=True))
    assert found[0] == found[1] and len(json.loads(found[0])) > 10


def test_comments_and_line_breaks_do_not_count() -> None:
    plain, long = dict[str, Any](), dict[str, Any]()
    exec("def f(x): return x + 1", plain)
    exec("# adds one\ndef f(x):\n\n    return x + 1  # here", long)
    assert describe_code(plain["f"]) == describe_code(long["f"])


def test_a_module_of_the_user_is_followed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    found = []
    for factor in (2, 3):
        module = ModuleType("own_helpers")
        exec(f"FACTOR = {factor}\ndef scale(x): return x * FACTOR", module.__dict__)
        monkeypatch.setitem(sys.modules, "own_helpers", module)

        def named(x: float) -> float:
            import own_helpers  # type: ignore[import-not-found]

            return float(own_helpers.scale(x))

        found.append(describe_code(named))
    assert [name for name in found[0] if found[0][name] != found[1][name]] == ["own_helpers.scale.FACTOR"] or (
        found[0] != found[1]
    )


def run_cells(folder: Path, *cells: str) -> list[object]:
    "Run cells one after another as a notebook does; what `map_chunks` gives, or its error."
    scope: dict[str, Any] = {"__name__": "__main__", "np": np, "map_chunks": map_chunks}
    given = list[object]()
    for cell in cells:
        exec(compile(textwrap.dedent(cell), "<cell>", "exec"), scope)
        try:
            given.append(map_chunks(scope["score"], scope["items"], folder, progress=False).table().tolist())
        except DataError as error:
            given.append(str(error))
    return given


@pytest.mark.parametrize(
    ("cell", "named"),
    [
        ("def score(v): return np.asarray(v) * FACTOR + 1", "code score"),
        ("FACTOR = 3.0", "code FACTOR"),
        ("def helper(v): return v", "code helper"),
        ("items = [4.0, 5.0]", "source"),
    ],
)
def test_an_edited_cell_never_gets_old_rows(tmp_path: Path, cell: str, named: str) -> None:
    first = "FACTOR, items = 2.0, [1.0, 2.0]\ndef helper(v): return v * 1.0\n"
    first += "def score(v): return helper(np.asarray(v)) * FACTOR"
    rows, again, error = run_cells(tmp_path, first, "", cell)
    assert rows == again == [2.0, 4.0]
    assert named in str(error) and "restart=True" in str(error)


@pytest.mark.parametrize("other", ["[7.0, 8.0, 9.0]", "[1.0, 9.0]", "[1.0]"])
def test_another_iterator_never_gets_old_rows(tmp_path: Path, other: str) -> None:
    first = "items = iter([1.0, 2.0])\ndef score(v): return np.asarray(v)"
    rows, error = run_cells(tmp_path, first, f"items = iter({other})")
    assert rows == [1.0, 2.0] and "The iterator" in str(error) and "restart=True" in str(error)


def test_what_a_function_keeps_for_itself_makes_no_other_job(tmp_path: Path) -> None:
    first = "items, seen = [1.0, 2.0], []\ndef score(v):\n    seen.append(len(v))\n    return np.asarray(v)"
    assert run_cells(tmp_path, first, "") == [[1.0, 2.0]] * 2


def test_to_begin_anew_is_the_callers_decision(tmp_path: Path) -> None:
    assert map_chunks(np.asarray, [1, 2], tmp_path).table().tolist() == [1, 2]
    assert map_chunks(np.asarray, [3], tmp_path, restart=True).table().tolist() == [3]
    assert sorted(path.name for path in tmp_path.iterdir()) == [".lock", "00000000.npz", "manifest.jsonl"]


def test_versions_are_part_of_every_key(tmp_path: Path) -> None:
    Results(tmp_path, {"epochs": 3}).put("a", np.arange(3))
    manifest = tmp_path / "manifest.jsonl"
    first, *others = manifest.read_text().splitlines()
    content = read_line(first)
    content["key"]["version"]["anomaly_nb"] = "0.0.1 " + content["key"]["version"]["anomaly_nb"]
    manifest.write_text("\n".join([signed_line(content), *others]) + "\n")
    with pytest.raises(DataError, match=r"version anomaly_nb: '0\.0\.1 .*' -> '"):
        Results(tmp_path, {"epochs": 3})


@pytest.mark.parametrize("value", [np.arange(4.0), {"a": np.arange(3), "b": [1, "x"]}, {"b": None}, [1, 2.5], "text"])
def test_results_read_back_as_they_were(value: Any) -> None:
    encoded = encode(value)
    assert describe_content(decode(encoded.suffix, encoded.data)) == describe_content(value)
    assert encode(value).data == encoded.data


def test_every_bit_of_a_result_is_looked_at(tmp_path: Path) -> None:
    results = Results(tmp_path, {})
    results.put("a", {"score": np.arange(5.0), "loss": 0.5})
    content = (tmp_path / "a.npz").read_bytes()
    for bit in range(0, 8 * len(content), 101):
        damaged = bytearray(content)
        damaged[bit // 8] ^= 1 << bit % 8
        (tmp_path / "a.npz").write_bytes(damaged)
        with pytest.raises(DataError, match="differs from what was written"):
            results.get("a")

"""Flip one bit of what this library has saved: it must be refused, or give the values that were saved.

An oracle decides: what is accepted is used, and its scores or rows are compared with those of the undamaged file. The
table counts flips, refusals, what was accepted with the same values, and what was accepted with others (the bar is 0).
"""

import argparse
import shutil
import tempfile
import warnings
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from fuzz import DETECTORS, fitted

from anomaly_nb.core import DataError
from anomaly_nb.fingerprints import describe_content
from anomaly_nb.store import Results

TABLE = Path(__file__).parent / "results/flips.csv"


class Kept(NamedTuple):
    "Something on disk, and how it is used."

    folder: Path
    read: Callable[[], Any]  # raises `DataError` for damage
    values: Callable[[Any], Any]  # of what was read, to be compared


def detector(kind: str) -> Kept:
    "Save a detector. Its values are all that it was made with and has learned, as it would be saved again."
    folder, made = Path(tempfile.mkdtemp()), fitted(kind)
    made.save(folder)

    def values(one: Any) -> Any:
        again = Path(tempfile.mkdtemp())
        one.save(again)
        found = {path.name: path.read_bytes() for path in again.iterdir() if path.name != "card.md"}
        shutil.rmtree(again)
        return describe_content(found)

    return Kept(folder, lambda: getattr(import_module(DETECTORS[kind]), kind).load(folder), values)


def results(finished: bool) -> Kept:
    "Keep results of every kind in a folder."
    folder = Path(tempfile.mkdtemp())
    made = Results(folder, {"epochs": 3, "rate": 0.5})
    made.put("array", np.arange(40.0), "a", [(1, "x", "why")])
    made.put("table", pd.DataFrame({"a": np.arange(9), "b": ["x"] * 9}), "b")
    made.put("named", {"flux": np.arange(5.0), "z": 0.25}, "c")
    made.put("value", {"roc_auc": 0.75, "names": ["a", "b"]}, "d")
    if finished:
        made.finish()

    def read() -> Any:
        found = Results(folder)
        return found, {name: found.get(name) for name in found.records}

    def values(found: Any) -> Any:
        kept, rows = found
        known = {name: describe_content(value) for name, value in rows.items()}
        return kept.key, kept.records, known

    return Kept(folder, read, values)


def same(found: Any, wanted: Any) -> bool:
    "Tell whether values are those that were saved; an unfinished job may lack a result, which is made again."
    if isinstance(wanted, str):
        return bool(found == wanted)
    return found[0] == wanted[0] and all(
        part.items() <= whole.items() for part, whole in zip(found[1:], wanted[1:], strict=True)
    )


def flip(kept: Kept, path: Path, flips: int, seed: int) -> dict[str, Any]:
    "Flip a bit of a file so many times."
    content, random = path.read_bytes(), np.random.default_rng([flips, seed])
    wanted = kept.values(kept.read())
    counts = {"flips": flips, "refused": 0, "same values": 0, "other values": 0, "other errors": 0}
    for bit in random.integers(0, 8 * len(content), flips):
        damaged = bytearray(content)
        damaged[bit // 8] ^= 1 << int(bit % 8)
        path.write_bytes(damaged)
        try:
            found = kept.read()
            counts["same values" if same(kept.values(found), wanted) else "other values"] += 1
        except DataError:
            counts["refused"] += 1
        except Exception as error:  # counted, and told
            counts["other errors"] += 1
            print(path.name, bit, repr(error))
    path.write_bytes(content)
    return counts


def main() -> None:
    "Flip bits in saved detectors and results of every kind, and write the table."
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--flips", type=int, default=100_000, help="in all, shared evenly by the files")
    wanted, rows = parser.parse_args().flips, list[dict[str, Any]]()
    warnings.simplefilter("ignore")
    made = {kind: detector(kind) for kind in DETECTORS}
    made |= {"results, finished": results(True), "results, unfinished": results(False)}
    files = [(kind, kept, path) for kind, kept in made.items() for path in sorted(kept.folder.iterdir())]
    files = [one for one in files if one[2].suffix != ".md" and not one[2].name.startswith(".")]
    for number, (kind, kept, path) in enumerate(files):
        name = "state.safetensors" if path.suffix == ".safetensors" else path.name
        rows.append({"saved": kind, "file": name} | flip(kept, path, -(-wanted // len(files)), number))
        print(*rows[-1].values(), sep="\t", flush=True)
    TABLE.parent.mkdir(exist_ok=True)
    pd.DataFrame(rows).to_csv(TABLE, index=False)


if __name__ == "__main__":
    main()

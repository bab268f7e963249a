"""The same call on one core, on all cores and on a cluster of real processes, and what long jobs have to survive."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import psutil
import pytest
import scale_jobs as jobs
import torch
from conftest import ENVIRONMENT, Cluster

from anomaly_nb import engines
from anomaly_nb.core import DataError, folder_lock
from anomaly_nb.engines import Chunk, attempt, printable, run_on_cores, run_packed, survivors
from anomaly_nb.fingerprints import describe_code
from anomaly_nb.scale import ArrayFile, Shards, map_chunks, outcomes
from anomaly_nb.store import decode


def contents(folder: Path) -> dict[str, bytes]:
    "Everything a job left behind."
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir()) if path.name != ".lock"}


def start_job(out: Path, *options: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", "import sys, scale_jobs; scale_jobs.main(*sys.argv[1:])", str(out), *options]
    return subprocess.Popen(command, env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def wait_for_chunks(out: Path, count: int) -> None:
    deadline = time.monotonic() + 60
    while len(list(out.glob("0*.parquet"))) < count:
        assert time.monotonic() < deadline, "the job does not get on"
        time.sleep(0.01)


# --- the same bytes everywhere


def test_one_core_all_cores_and_a_cluster_write_the_same_bytes(tmp_path: Path, cluster: Cluster) -> None:
    numbers = list(range(30))
    map_chunks(jobs.poisoned, numbers, tmp_path / "one", chunk_size=4)
    map_chunks(jobs.poisoned, numbers, tmp_path / "two", chunk_size=4, workers=2)
    found = map_chunks(jobs.poisoned, numbers, tmp_path / "cluster", chunk_size=4, scheduler=cluster.address)
    assert contents(tmp_path / "one") == contents(tmp_path / "two") == contents(tmp_path / "cluster")
    assert found.failed.values.tolist() == [[13, "13", "13: unlucky. Leave it out."]]
    assert found.table()["number"].tolist() == [number for number in numbers if number != 13]


def test_lazy_sources_give_what_lists_give(tmp_path: Path) -> None:
    values = np.random.default_rng(0).normal(size=(23, 3))
    np.save(tmp_path / "values.npy", values)
    np.savez_compressed(tmp_path / "values.npz", other=values[:2], values=values)
    zarr = pytest.importorskip("zarr")
    stored = zarr.create_array(str(tmp_path / "values.zarr"), data=values, chunks=(5, 3))
    sources = {
        "array": values,
        "npy": ArrayFile(tmp_path / "values.npy"),
        "npz": ArrayFile(tmp_path / "values.npz", "values"),
        "zarr": stored,
        "iterator": (row for row in values),
    }
    for name, source in sources.items():
        result = map_chunks(np.asarray, source, tmp_path / name, chunk_size=4).table()
        assert np.array_equal(result, values), name


def test_slow_item_holds_nobody_up() -> None:
    work = [Chunk(number, number, [number]) for number in range(12)]
    order = [chunk.number for chunk, _ in run_on_cores(lambda chunk: attempt(jobs.slow, chunk), work, 2)]
    assert sorted(order) == list(range(12))
    assert order.index(0) > 6


def test_slow_item_holds_nobody_up_on_a_cluster(cluster: Cluster) -> None:
    list(outcomes(jobs.steady, range(20), scheduler=cluster.address))  # until then both workers have begun
    finished = outcomes(jobs.slow, range(12), scheduler=cluster.address)
    order = [chunk.number for chunk, outcome in finished if outcome.result.rows == 1]
    assert sorted(order) == list(range(12))
    assert order.index(0) > 6


def test_cluster_without_workers_is_waited_for_and_said(tmp_path: Path, cluster: Cluster) -> None:
    cluster.stop()
    cluster.start(0)
    job = start_job(tmp_path / "late", "1", cluster.address)
    assert job.stdout is not None
    assert any("has no workers; waiting for one" in line for line in job.stdout)
    cluster.add_worker()
    output, _ = job.communicate(timeout=120)
    assert job.returncode == 0, output
    map_chunks(jobs.steady, range(60), tmp_path / "undisturbed", chunk_size=3)
    assert contents(tmp_path / "late") == contents(tmp_path / "undisturbed")


def failing(count: int) -> Iterator[int]:
    "A source whose next file is not there."
    yield from range(count)
    raise FileNotFoundError("part-6.csv")


@pytest.mark.parametrize("where", ["here", "cores", "cluster"])
def test_error_of_the_source_is_raised_everywhere(tmp_path: Path, where: str, request: pytest.FixtureRequest) -> None:
    engine: dict[str, object] = {"workers": 2} if where == "cores" else {}
    if where == "cluster":
        engine = {"scheduler": request.getfixturevalue("cluster").address}
    with pytest.raises(FileNotFoundError, match=r"part-6\.csv"):
        map_chunks(jobs.squares, failing(6), tmp_path, chunk_size=2, **engine)


# --- what dies on the way


def test_item_that_kills_its_process_is_listed_and_costs_no_other(tmp_path: Path) -> None:
    found = map_chunks(jobs.deadly, range(30), tmp_path, chunk_size=4, workers=2)
    assert found.failed["index"].tolist() == [13]
    assert "process died" in found.failed["reason"][0]
    assert found.table()["number"].tolist() == [number for number in range(30) if number != 13]


@pytest.mark.slow
def test_item_that_kills_workers_of_a_cluster_is_listed(tmp_path: Path, cluster: Cluster) -> None:
    found = map_chunks(jobs.deadly, range(20), tmp_path, chunk_size=4, scheduler=cluster.address)
    assert found.failed["index"].tolist() == [13]
    assert found.table()["number"].tolist() == [number for number in range(20) if number != 13]


@pytest.mark.slow
def test_worker_and_scheduler_may_be_killed(tmp_path: Path, cluster: Cluster) -> None:
    map_chunks(jobs.steady, range(60), tmp_path / "undisturbed", chunk_size=3)
    job = start_job(tmp_path / "killed", "1", cluster.address)
    wait_for_chunks(tmp_path / "killed", 3)
    os.killpg(cluster.processes[1].pid, signal.SIGKILL)
    wait_for_chunks(tmp_path / "killed", 6)
    cluster.stop()
    cluster.start(2)
    output, _ = job.communicate(timeout=120)
    assert job.returncode == 0, output
    assert "is gone; waiting" in output
    assert contents(tmp_path / "killed") == contents(tmp_path / "undisturbed")


class LostOnce:
    "A client of a scheduler that is lost just when the third result is fetched."

    lost = False

    def __init__(self, *_: object) -> None: ...

    def submit(self, function: object, packed: bytes, pure: bool) -> "LostOnce":
        future = LostOnce()
        future.packed = packed
        return future

    def result(self) -> object:
        outcome = run_packed(self.packed)
        if not LostOnce.lost and outcome.result == attempt(jobs.squares, Chunk(2, 2, [2])).result:
            LostOnce.lost = True
            raise OSError("connection closed")
        return outcome

    def nthreads(self) -> dict[str, int]:
        return {"worker": 4}

    def run(self, function: Callable[[], object], **_: object) -> dict[str, object]:
        return {"worker": function()}

    def close(self, timeout: float) -> None: ...


def test_result_that_is_lost_on_its_way_is_made_again(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("distributed")
    monkeypatch.setattr(engines, "connect", LostOnce)
    monkeypatch.setattr(engines, "_first_finished", lambda client, flying: flying)
    found = [chunk.number for chunk, _ in outcomes(jobs.squares, range(12), scheduler="tcp://10.0.0.1:8786")]
    assert LostOnce.lost and sorted(found) == list(range(12))


@pytest.mark.slow
def test_workers_killed_one_after_another(tmp_path: Path, cluster: Cluster, kills: int = 20) -> None:
    items = 60 if kills < 3 else 1200
    map_chunks(jobs.steady, range(items), tmp_path / "undisturbed", chunk_size=3)
    job = start_job(tmp_path / "killed", "1", cluster.address, str(items))
    for kill in range(kills):
        wait_for_chunks(tmp_path / "killed", 3 + kill * (items // 3 - 6) // kills)
        assert job.poll() is None, "the job ended before the kill"
        victim = cluster.processes.pop(1)
        os.killpg(victim.pid, signal.SIGKILL)
        victim.wait()
        cluster.add_worker()
    output, _ = job.communicate(timeout=300)
    assert job.returncode == 0, output
    assert contents(tmp_path / "killed") == contents(tmp_path / "undisturbed")


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 2])
def test_killed_job_goes_on_to_the_same_bytes(tmp_path: Path, workers: int, trials: int = 20) -> None:
    map_chunks(jobs.steady, range(60), tmp_path / "undisturbed", chunk_size=3)
    moments = np.random.default_rng(trials).uniform(0.0, 0.25, trials)
    for trial, moment in enumerate(moments):
        out = tmp_path / str(trial)
        for _ in range(2):
            job = start_job(out, str(workers))
            wait_for_chunks(out, len(list(out.glob("0*.parquet"))) + 1) if trial % 2 == 0 else None
            time.sleep(moment)
            job.send_signal(signal.SIGKILL)
            job.communicate()
        job = start_job(out, str(workers))
        output, _ = job.communicate(timeout=120)
        assert job.returncode == 0, output
        assert contents(out) == contents(tmp_path / "undisturbed")


def test_interrupt_keeps_what_is_finished_and_says_how_to_go_on(tmp_path: Path) -> None:
    job = start_job(tmp_path, "1")
    wait_for_chunks(tmp_path, 3)
    job.send_signal(signal.SIGINT)
    output, _ = job.communicate(timeout=60)
    assert "the same call goes on from there" in output
    kept = len(Shards(tmp_path).records)
    assert 3 <= kept < 20
    assert len(map_chunks(jobs.steady, range(60), tmp_path, chunk_size=3)) == 60


# --- what stands in the way


def test_two_runs_in_one_folder(tmp_path: Path) -> None:
    with folder_lock(tmp_path), pytest.raises(DataError, match="another run works here"):
        map_chunks(jobs.squares, range(3), tmp_path)


def test_another_job_in_the_folder(tmp_path: Path) -> None:
    map_chunks(jobs.squares, [1, 2, 3], tmp_path, run={"model": "a"})
    for before, after in (([np.ones(2)], [np.zeros(2)]), (np.arange(3), np.arange(1, 4)), ([1.5], [2.5])):
        out = tmp_path / str(len(list(tmp_path.iterdir())))
        map_chunks(np.asarray, before, out)
        with pytest.raises(DataError, match="holds results of another job"):
            map_chunks(np.asarray, after, out)
    map_chunks(partial(np.multiply, 2), [1, 2, 3], tmp_path / "twice")
    with pytest.raises(DataError, match="holds results of another job"):
        map_chunks(partial(np.multiply, 3), [1, 2, 3], tmp_path / "twice")
    for changed in ({"run": {"model": "b"}}, {"run": {"model": "a"}, "chunk_size": 2}):
        with pytest.raises(DataError, match="holds results of another job"):
            map_chunks(jobs.squares, [1, 2, 3], tmp_path, **changed)
    with pytest.raises(DataError, match="holds results of another job"):
        map_chunks(jobs.squares, [1, 2, 4], tmp_path, run={"model": "a"})


@pytest.mark.parametrize("kind", ["range", "file", "mapped", "part of a file", "zarr", "frame", "series", "large"])
def test_other_data_of_the_same_shape_are_another_job(tmp_path: Path, kind: str) -> None:
    def source(number: int) -> object:
        values = np.full((6, 2), float(number))
        if kind == "range":
            return range(10 * number, 10 * number + 10)
        if kind in ("file", "mapped"):
            np.save(tmp_path / "values.npy", values)
            os.utime(tmp_path / "values.npy", ns=(number, number))
            path = tmp_path / "values.npy"
            return ArrayFile(path) if kind == "file" else np.load(path, mmap_mode="r")
        if kind == "part of a file":
            np.save(tmp_path / "values.npy", np.arange(12.0).reshape(12, 1))
            os.utime(tmp_path / "values.npy", ns=(0, 0))
            return np.load(tmp_path / "values.npy", mmap_mode="r")[6 * number : 6 * number + 6]
        if kind == "zarr":
            zarr = pytest.importorskip("zarr")
            return zarr.create_array(str(tmp_path / f"{number}.zarr"), data=np.zeros((6, 2)), overwrite=True)
        if kind == "large":  # beyond what is looked at as a whole
            return np.full((3_000_000, 3), float(number))
        frame = pd.DataFrame(values, columns=["a", "b"])
        return frame if kind == "frame" else frame["a"]

    for _ in range(2):  # the same data are the same job
        map_chunks(count, source(0), tmp_path / "out", chunk_size=1_000_000)
    with pytest.raises(DataError, match="holds results of another job"):
        map_chunks(count, source(1), tmp_path / "out", chunk_size=1_000_000)


@pytest.mark.parametrize(
    "before, after",
    [
        (jobs.Scaled(2).times, jobs.Scaled(3).times),
        (jobs.Scaled(2), jobs.Scaled(3)),
        (jobs.multiplied(2), jobs.multiplied(3)),
        (lambda numbers: np.asarray(numbers), lambda numbers: -np.asarray(numbers)),
        (jobs.Scaled(torch.zeros(1)), jobs.Scaled(torch.ones(1))),
        (partial(jobs.Scaled(2).times), partial(jobs.Scaled(3).times)),
        (jobs.Scaled(np.ma.array([1], mask=[0])), jobs.Scaled(np.ma.array([1], mask=[1]))),
    ],
)
def test_what_a_function_holds_tells_its_job(tmp_path: Path, before: object, after: object) -> None:
    for _ in range(2):  # what it has cached in the meantime does not matter
        map_chunks(before, [1, 2, 3], tmp_path)  # type: ignore[arg-type]
    with pytest.raises(DataError, match="holds results of another job"):
        map_chunks(after, [1, 2, 3], tmp_path)  # type: ignore[arg-type]


def test_masks_and_tensors_are_looked_at(tmp_path: Path) -> None:
    pairs = [(torch.zeros(99), torch.arange(99) == 50), ([torch.zeros(2)], [torch.ones(2)])]
    pairs += [(np.ma.array([1, 2], mask=[0, 0]), np.ma.array([1, 2], mask=[0, 1]))]
    for number, (before, after) in enumerate(pairs):
        map_chunks(count, before, tmp_path / str(number))
        with pytest.raises(DataError, match="holds results of another job"):
            map_chunks(count, after, tmp_path / str(number))


def test_the_same_content_is_the_same_job_in_another_process() -> None:
    code = "import json, scale_jobs; print(json.dumps(scale_jobs.descriptions()))"
    for seed in ("1", "2"):
        command, environment = [sys.executable, "-c", code], {**ENVIRONMENT, "PYTHONHASHSEED": seed}
        run = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
        assert json.loads(run.stdout) == jobs.descriptions()
    assert sorted(describe_code(jobs.squares)) == ["package pandas", "pd", "squares"]


def count(items: object) -> np.ndarray:
    return np.array([len(items)])  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", [list, iter, np.array, pd.Series])
def test_vanished_and_edited_inputs_are_noticed(tmp_path: Path, kind: Callable[[object], object]) -> None:
    files = [tmp_path / f"{number}.txt" for number in range(6)]
    for number, path in enumerate(files):
        path.write_text(str(number))
    files[2].unlink()
    found = map_chunks(read_numbers, kind(files), tmp_path / "out", chunk_size=2)
    assert found.failed["item"].tolist() == [str(files[2])]
    kept = (tmp_path / "out/00000000.parquet").stat().st_mtime_ns
    files[2].write_text("2")
    files[5].write_text("50")
    again = map_chunks(read_numbers, kind(files), tmp_path / "out", chunk_size=2)
    assert again.table()["number"].tolist() == [0, 1, 2, 3, 4, 50] and not len(again.failed)
    assert (tmp_path / "out/00000000.parquet").stat().st_mtime_ns == kept


def test_failures_are_tried_again_when_asked(tmp_path: Path) -> None:
    allowed = tmp_path / "allowed"
    work = partial(only_where, allowed)
    for retry, failed in ((False, 2), (False, 2), (True, 2)):
        assert len(map_chunks(work, [1, 2], tmp_path / "out", retry=retry).failed) == failed
    allowed.touch()
    assert len(map_chunks(work, [1, 2], tmp_path / "out").failed) == 2
    assert map_chunks(work, [1, 2], tmp_path / "out", retry=True).table()["number"].tolist() == [1, 2]


def only_where(path: Path, numbers: list[int]) -> pd.DataFrame:
    if not path.exists():
        raise DataError(f"{path}: not there.")
    return jobs.squares(numbers)


def read_numbers(paths: list[Path]) -> pd.DataFrame:
    return jobs.squares([int(path.read_text()) for path in paths])


def test_missing_damaged_and_torn_files(tmp_path: Path) -> None:
    map_chunks(jobs.squares, range(6), tmp_path, chunk_size=2)
    whole = contents(tmp_path)
    (tmp_path / "00000001.parquet").unlink()
    (tmp_path / "00000002.parquet").write_bytes(b"torn")
    (tmp_path / "manifest.jsonl").write_bytes(whole["manifest.jsonl"][:-20])
    map_chunks(jobs.squares, range(6), tmp_path, chunk_size=2)
    assert contents(tmp_path) == whole
    shard = tmp_path / "00000000.parquet"
    shard.write_bytes(whole["00000000.parquet"][:-1] + b"x")
    with pytest.raises(DataError, match="differs from what was written"):
        Shards(tmp_path).table()


def test_manifest_that_does_not_say_whose_it_is(tmp_path: Path) -> None:
    map_chunks(jobs.squares, [1, 2, 3], tmp_path)
    manifest = tmp_path / "manifest.jsonl"
    manifest.write_bytes(manifest.read_bytes()[9:])
    with pytest.raises(DataError, match="Delete the folder"):
        map_chunks(jobs.squares, [7, 8, 9], tmp_path)


def test_rows_so_far_are_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(FileNotFoundError):
        map_chunks(jobs.squares, failing(5), tmp_path, chunk_size=2)
    assert len(Shards(tmp_path).table()) == len(Shards(tmp_path)) == 4
    assert "not finished" in caplog.text and "not finished" in repr(Shards(tmp_path))
    caplog.clear()
    assert len(map_chunks(jobs.squares, iter(range(5)), tmp_path, chunk_size=2).table()) == 5
    assert not caplog.text


# --- what functions do and give


def odd_for_two(odd: object) -> Callable[[list[int]], object]:
    "A function that fails for several items at once, and gives something odd for 2."

    def work(numbers: list[int]) -> object:
        if len(numbers) > 1:
            raise ValueError("too many")
        return odd if numbers == [2] else np.array(numbers)

    return work


@pytest.mark.parametrize(
    "odd, reason, alone",
    [
        (np.array(3), "without an axis", "without an axis"),
        (np.array([None]), "array of objects", "array of objects"),
        (np.ones((1, 2)), "dimensions", ""),
        (pd.DataFrame({"x": [1]}), "cannot be joined", ""),
        (pd.DataFrame({"x": [1, "a"]}), "cannot be joined", "Arrow"),
        ({"file": np.ones(1)}, "named its arrays", "named its arrays"),
        ({"rows": np.ones(1)}, "named its arrays", "named its arrays"),
        ({"a": np.ones(2), "b": np.ones(1)}, "unequal length", "unequal length"),
        ({}, "gave a dict", "gave a dict"),
    ],
)
def test_odd_results_are_failures_of_their_item(tmp_path: Path, odd: object, reason: str, alone: str) -> None:
    found = map_chunks(odd_for_two(odd), [1, 2, 3], tmp_path / "three")  # type: ignore[arg-type]
    assert found.table().tolist() == [1, 3]
    assert found.failed["index"].tolist() == [1] and reason in found.failed["reason"][0]
    single = map_chunks(odd_for_two(odd), [2], tmp_path / "one").failed  # type: ignore[arg-type]
    assert alone in "".join(single["reason"]) and len(single) == bool(alone)


def test_chunks_that_do_not_fit_each_other_are_told(tmp_path: Path) -> None:
    found = map_chunks(odd_for_two(np.ones((1, 2))), [1, 2, 3], tmp_path, chunk_size=1)  # type: ignore[arg-type]
    with pytest.raises(DataError, match="take them one by one"):
        found.table()
    assert len(list(found)) == 3


def test_survivors_need_not_fit_each_other() -> None:
    shapes = {1: (1,), 2: (1, 2), 3: (1,)}
    outcome = survivors(
        partial(attempt, lambda numbers: np.ones(shapes[numbers[0]])), Chunk(0, 5, [1, 2, 3]), engines.run_here
    )
    assert decode(outcome.result.suffix, outcome.result.data).tolist() == [1, 1] and outcome.failed[0][0] == 6  # type: ignore[union-attr]


@pytest.mark.parametrize("kind", [np.asarray, pd.Series, torch.tensor, lambda items: [np.array(items)]])
def test_function_may_work_in_place(tmp_path: Path, kind: Callable[[object], object]) -> None:
    source = kind([1.0, 2.0, 3.0])

    def double(items: object) -> np.ndarray:
        for part in items if isinstance(items, list) else [items]:
            part *= 2
        if len(items) > 1:  # type: ignore[arg-type]
            raise ValueError("too many")
        return np.asarray(items).reshape(-1)

    assert map_chunks(double, source, tmp_path).table().tolist() == [2, 4, 6]
    assert np.array_equal(np.asarray(source), np.asarray(kind([1.0, 2.0, 3.0])))


def test_rows_of_a_table_are_taken_by_their_place(tmp_path: Path) -> None:
    curve = pd.Series([1.0, 2.0, -3.0, 4.0], index=[0.0, 0.5, 1.0, 7.0])
    found = map_chunks(roots, curve, tmp_path / "column", chunk_size=2)
    assert found.table().tolist() == [1, 2, 4] and found.failed["index"].tolist() == [2]
    assert map_chunks(roots, pd.DataFrame(curve), tmp_path / "table", chunk_size=2).failed["item"].tolist() == [
        "Series"
    ]


def roots(rows: pd.Series) -> np.ndarray:
    if (rows.to_numpy() < 0).any():
        raise ValueError("negative")
    return rows.to_numpy().reshape(-1)


def test_names_that_are_not_utf_8(tmp_path: Path) -> None:
    name = os.fsdecode(os.fsencode(tmp_path) + b"/x\xff")
    Path(name).write_text("3")
    (tmp_path / "y").write_text("4")
    found = map_chunks(named_numbers, [name, "y\udcff", str(tmp_path / "y")], tmp_path / "out")
    assert found.table()["file"].tolist() == [str(tmp_path / "x") + r"\udcff", str(tmp_path / "y")]
    found.failed.to_csv(tmp_path / "failed.csv")
    assert r"y\udcff" in (tmp_path / "failed.csv").read_text()


def named_numbers(paths: list[str]) -> pd.DataFrame:
    return pd.DataFrame([{"file": printable(path), "number": int(Path(path).read_text())} for path in paths])


@pytest.mark.skipif(sys.platform != "linux", reason="needs a small file system")
def test_full_disk(tmp_path: Path) -> None:
    small = tmp_path / "small"
    small.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", small], capture_output=True).returncode:
        pytest.skip("mounting a small file system is not allowed here")
    try:
        with pytest.raises(DataError, match="No space left"):
            map_chunks(jobs.big, range(10), small / "out", chunk_size=1)
        assert len(Shards(small / "out").records) == 3
        assert not list((small / "out").glob(".0*"))
    finally:
        subprocess.run(["umount", small], check=True)


@pytest.mark.skipif(os.name != "posix" or os.getuid() != 0, reason="becomes another user")
def test_folder_that_cannot_be_written(tmp_path: Path) -> None:
    code = (
        "import os, filelock, joblib, numpy as np, pandas.io.parquet\n"
        "from anomaly_nb.core import DataError\nfrom anomaly_nb.scale import map_chunks\nos.setuid(65534)\n"
        f"try: map_chunks(np.asarray, [1], {str(tmp_path / 'out')!r})\nexcept DataError as error: print(error)"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=ENVIRONMENT)
    assert "cannot be written" in run.stdout, run.stderr


def test_no_scheduler(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("distributed")
    monkeypatch.setattr(engines, "run_on_cluster", partial(engines.run_on_cluster, patience=1.0))
    with pytest.raises(DataError, match="No Dask scheduler answers"):
        map_chunks(jobs.squares, range(3), tmp_path, scheduler="tcp://127.0.0.1:9")


@pytest.mark.parametrize("address", ["bogus", "foo://x", "tcp://10.0.0.1", "tcp://:8786", "http://10.0.0.1:8787"])
def test_addresses_that_are_none(tmp_path: Path, address: str) -> None:
    with pytest.raises(DataError, match="expected an address"):
        map_chunks(jobs.squares, range(3), tmp_path / "out", scheduler=address)
    assert not (tmp_path / "out").exists()


def test_what_answers_is_no_scheduler() -> None:
    pytest.importorskip("distributed")
    with socket.create_server(("127.0.0.1", 0)) as silent, pytest.raises(DataError, match="port of the dashboard"):
        engines.connect(f"tcp://127.0.0.1:{silent.getsockname()[1]}", 0.5)
    with pytest.raises(DataError, match=r"answers at tcp://127\.0\.0\.1:99999"):
        engines.connect("tcp://127.0.0.1:99999", 0.5)


def test_connection_that_fails_leaves_nothing_behind() -> None:
    pytest.importorskip("distributed")
    code = "from anomaly_nb.engines import connect\nconnect('tls://127.0.0.1:9', 0.5)"  # there are no certificates
    begun = time.monotonic()
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=ENVIRONMENT)
    assert "DataError: No Dask scheduler answers" in run.stderr and "Client.__del__" not in run.stderr
    assert time.monotonic() - begun < 8


@pytest.mark.parametrize("where", ["cores", "cluster"])
def test_work_that_cannot_be_sent(tmp_path: Path, where: str, request: pytest.FixtureRequest) -> None:
    engine: dict[str, object] = {"workers": 2}
    if where == "cluster":
        engine = {"scheduler": request.getfixturevalue("cluster").address}
    with pytest.raises(DataError, match="cannot be sent to another process"):
        map_chunks(partial(only_where, threading.Lock()), range(3), tmp_path / "function", **engine)  # type: ignore[arg-type]
    with pytest.raises(DataError, match=r"Item 0: .* cannot be sent to another process"):
        map_chunks(jobs.squares, [threading.Lock()], tmp_path / "item", **engine)


def test_worker_of_another_version_is_named(tmp_path: Path, cluster: Cluster) -> None:
    import anomaly_nb

    other = tmp_path / "other"
    shutil.copytree(Path(str(anomaly_nb.__file__)).parent, other / "anomaly_nb")
    with (other / "anomaly_nb/metrics.py").open("a") as file:
        file.write("CHANGED = True\n")
    command = [sys.executable, "-m", "distributed.cli.dask_worker", cluster.address, "--nthreads", "1"]
    paths = os.pathsep.join([str(other), ENVIRONMENT["PYTHONPATH"]])
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "cwd": tmp_path, "start_new_session": True}
    environment = ENVIRONMENT | {"PYTHONPATH": paths}
    cluster.processes.append(subprocess.Popen([*command, "--no-dashboard"], env=environment, **quiet))
    client = engines.connect(cluster.address)
    client.wait_for_workers(3, timeout=60)
    client.close()
    with pytest.raises(DataError, match=r"The worker tcp://\S+ has anomaly_nb .*, this process .*Install the same"):
        map_chunks(jobs.squares, range(30), tmp_path / "out", chunk_size=1, scheduler=cluster.address)


def test_function_that_workers_cannot_import(tmp_path: Path, cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "only_here.py").write_text("def work(items):\n    return items\n")
    monkeypatch.syspath_prepend(tmp_path)
    from only_here import work

    with pytest.raises(DataError, match=r"A worker cannot load the function .*only_here"):
        map_chunks(work, range(3), tmp_path / "out", scheduler=cluster.address)


@pytest.mark.parametrize(
    "source", [{1, 2}, frozenset((1, 2)), {1: 2}, "abcdef", b"abc", None, 5, np.array(3.0), torch.tensor(3.0)]
)
def test_sources_without_an_order_or_without_items(tmp_path: Path, source: object) -> None:
    with pytest.raises(DataError, match="The source is a"):
        map_chunks(np.asarray, source, tmp_path / "out")  # type: ignore[arg-type]
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("size", [0, 2.5, "2", None])
def test_chunks_of_nothing_leave_no_folder(tmp_path: Path, size: object) -> None:
    with pytest.raises(DataError, match="chunk_size is"):
        map_chunks(jobs.squares, range(3), tmp_path / "out", chunk_size=size)  # type: ignore[arg-type]
    assert not (tmp_path / "out").exists()
    with pytest.raises(DataError, match="name of the folder is empty"):
        map_chunks(jobs.squares, range(3), "")


def test_numbers_of_numpy_are_numbers(tmp_path: Path) -> None:
    options = {"chunk_size": np.int64(2), "run": {"a": np.int64(3), "b": np.float32(0.5)}}
    for _ in range(2):
        assert len(map_chunks(jobs.squares, iter(range(3)), tmp_path / "out", **options)) == 3  # type: ignore[arg-type]
    for bad in (np.ones(2), object(), {1}):
        with pytest.raises(DataError, match="cannot be kept"):
            map_chunks(jobs.squares, range(3), tmp_path / "other", run={"a": bad})


@pytest.mark.parametrize("data", [b"", b"\x93NUMPY", b"PK\x03\x04", b"\x93NUMPY\x01\x00v\x00{'descr': '|O'}"])
def test_files_that_are_no_arrays(tmp_path: Path, data: bytes) -> None:
    for name in ("bad.npy", "bad.npz"):
        (tmp_path / name).write_bytes(data)
        with pytest.raises(DataError, match=name):
            ArrayFile(tmp_path / name)


def peaks_below(pid: int) -> dict[int, int]:
    "Most memory that each process below another one has had so far, in kilobytes, by number."
    children = [child.pid for child in psutil.Process(pid).children(recursive=True)]
    texts = {child: Path(f"/proc/{child}/status").read_text() for child in children}
    return {child: int(text.partition("VmHWM:")[2].split()[0]) for child, text in texts.items()}


@pytest.mark.slow
@pytest.mark.parametrize("where", ["here", "cluster"])
def test_results_bigger_than_the_memory_in_use(tmp_path: Path, where: str, request: pytest.FixtureRequest) -> None:
    address = None
    if where == "cluster":
        cluster = request.getfixturevalue("cluster")
        cluster.stop()
        cluster.start(0)
        limit = ["--memory-limit", "500MB"]  # a quarter of the results
        cluster._run("worker", cluster.address, "--nthreads", "1", "--no-dashboard", *limit)
        address, nanny = cluster.address, cluster.processes[1].pid
    code = (
        "import resource, scale_jobs as jobs\nfrom anomaly_nb.scale import map_chunks\n"
        f"out, engine = {str(tmp_path)!r}, {{'scheduler': {address!r}, 'chunk_size': 1}}\n"
        "map_chunks(jobs.big, range(10), out + '/few', **engine)\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "map_chunks(jobs.big, range(100), out + '/many', **engine)\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=ENVIRONMENT, check=True)
    assert len(Shards(tmp_path / "many")) == 100 and not len(Shards(tmp_path / "many").failed)
    assert int(run.stdout) < (30_000 if where == "here" else 100_000)  # kilobytes; the results are 2 GB
    if address and sys.platform == "linux":
        assert max(peaks_below(nanny).values()) < 500_000

"""Errors, files and the detector contract, under bad conditions."""

import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from anomaly_nb.artefacts import load_state, save_state
from anomaly_nb.commands import command_line
from anomaly_nb.core import (
    DataError,
    as_list,
    atomic_path,
    check_values,
    first_process,
    folder_lock,
    generator,
    when_interrupted,
)
from anomaly_nb.srcnn import SpectralResidual


def test_importing_the_package_is_instant():
    code = "import sys, anomaly_nb; print([m for m in ('numpy', 'pandas', 'torch') if m in sys.modules])"
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "[]"


def test_the_plain_detector_loads_no_torch():
    code = """
        import sys
        from anomaly_nb.srcnn import SpectralResidual, load_kpi
        SpectralResidual().fit(load_kpi()[0].series[:2000])
        print([m for m in ('torch', 'lightning', 'sklearn') if m in sys.modules])
    """
    assert subprocess.check_output([sys.executable, "-c", textwrap.dedent(code)], text=True).strip() == "[]"


def test_a_failed_write_leaves_the_old_file(tmp_path):
    target = tmp_path / "file.txt"
    target.write_text("old")
    with pytest.raises(RuntimeError), atomic_path(target) as path:
        path.write_text("new")
        raise RuntimeError
    assert target.read_text() == "old" and [p.name for p in tmp_path.iterdir()] == ["file.txt"]


def test_a_full_disk_is_a_sentence_and_leaves_nothing(tmp_path):
    code = f"""
        import resource
        import numpy as np
        from anomaly_nb.core import DataError
        from anomaly_nb.srcnn import SpectralResidual
        detector = SpectralResidual().fit(np.random.default_rng(0).normal(size=5000))
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))  # as if 4 kB were left
        try:
            detector.save({str(tmp_path)!r})
        except DataError as error:
            print(error)
    """
    shown = subprocess.check_output([sys.executable, "-c", textwrap.dedent(code)], text=True)
    assert ".safetensors: not written" in shown and "Free some space" in shown
    assert not list(tmp_path.iterdir())


def test_a_path_through_a_file_is_a_sentence(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="not written"), atomic_path(tmp_path / "file" / "below") as path:
        path.write_text("never")


def test_state_keeps_numbers_bit_for_bit(tmp_path):
    state = {"array": np.random.default_rng(0).normal(size=7), "float": 0.1 + 0.2, "name": "ä", "none": None}
    save_state(tmp_path, state)
    again = load_state(tmp_path)
    np.testing.assert_array_equal(again.pop("array"), state.pop("array"))
    assert again == state


@pytest.mark.parametrize("damage", ["cut", "text", "missing", "other"])
def test_damaged_detectors_are_sentences(tmp_path, damage):
    SpectralResidual().fit(np.random.default_rng(0).normal(size=100)).save(tmp_path)
    (arrays,), values = tmp_path.glob("state-*.safetensors"), tmp_path / "detector.json"
    if damage == "cut":
        arrays.write_bytes(arrays.read_bytes()[:50])
    elif damage == "text":
        values.write_text("{")
    elif damage == "missing":
        arrays.unlink()
    else:
        values.write_text(json.dumps(json.loads(values.read_text()) | {"detector": "Other"}))
    with pytest.raises(DataError, match=r"damaged|no saved detector"):
        SpectralResidual.load(tmp_path)


def test_generators_depend_on_seed_and_place_only():
    draws = {place: generator(*place).random() for place in [(0,), (1,), (0, 0), (0, 1), (0, 0, 1)]}
    assert len(set(draws.values())) == len(draws)
    assert all(generator(*place).random() == value for place, value in draws.items())


@pytest.mark.parametrize("values", [[1, None], ["a"], [[1, 2], [3]], object()])
def test_what_is_not_numbers_is_refused(values):
    with pytest.raises(DataError):
        check_values(values)


def test_detectors_speak_scikit_learn():
    from sklearn.base import clone

    detector = SpectralResidual(side="upper", period=7)
    copy = clone(detector)
    assert copy is not detector and copy.get_params() == detector.get_params()
    assert "SpectralResidual" in detector._repr_html_() and "side='upper'" in repr(detector)


def test_an_interrupt_promises_only_what_was_kept(caplog):
    for note in ("", "Three of five files are in out; the same command goes on from there."):
        with pytest.raises(SystemExit) as end, command_line():
            if note:
                with when_interrupted(note):
                    raise KeyboardInterrupt
            raise KeyboardInterrupt
        assert end.value.code == 130
        assert caplog.messages[-1] == f"Interrupted. {note or 'Run the same command again.'}"


def test_an_interrupt_that_a_library_swallows_comes_again():
    code = """
        import ctypes, time
        from anomaly_nb.commands import command_line

        def interrupted():
            raise KeyboardInterrupt

        with command_line():
            ctypes.CFUNCTYPE(None)(interrupted)()
            for _ in range(200):
                time.sleep(0.1)
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (130, "Interrupted. Run the same command again.\n")


def test_a_state_without_its_digest_is_refused(tmp_path):
    save_state(tmp_path, {"weights": np.arange(3.0)})
    content = json.loads((tmp_path / "detector.json").read_text())
    del content["sha256"]
    (tmp_path / "detector.json").write_text(json.dumps(content))
    with pytest.raises(DataError, match=r"detector\.json differs from what was written"):
        load_state(tmp_path)


@pytest.mark.parametrize(
    "values",
    [
        ["1", "2"],
        pd.Series(["1", "2"]),
        np.array([1 + 2j]),
        pd.date_range("2020-01-01", periods=3),
        [10**400],
        5.0,
        np.ma.masked_array([1.0, 999.0], [False, True]),
    ],
)
def test_what_would_become_wrong_numbers_is_refused(values):
    with pytest.raises(DataError, match=r"^values: "):
        check_values(values)


def test_masked_values_are_missing_ones():
    found = check_values(np.ma.masked_array([1, 999], [False, True]), allow_nan=True)
    assert found[0] == 1 and np.isnan(found[1])


@pytest.mark.parametrize("seed", [-1, 0.5, None, "7"])
def test_seeds_are_whole_numbers(seed):
    with pytest.raises(DataError, match=r"seed is .*; it must be a whole number, at least 0"):
        generator(seed)


def test_one_thing_is_no_list():
    for one in ("a.wav", Path("a.wav"), 3, None):
        with pytest.raises(DataError, match="a list is needed"):
            as_list(one)
    with pytest.raises(DataError, match="no recording in the list"):
        as_list(iter([]), "recording")
    assert as_list(Path(name) for name in ("a", "b")) == [Path("a"), Path("b")]


def test_only_files_are_replaced(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    os.mkfifo("pipe")
    for place in (".", "/", "pipe", "/dev/null"):
        with pytest.raises(DataError, match="is not a regular file"), atomic_path(place) as path:
            path.write_text("x")
    Path("real").write_text("old")
    Path("link").symlink_to("real")
    with atomic_path("link") as path:
        path.write_text("new")
    assert Path("link").is_symlink() and Path("real").read_text() == "new"


def test_a_lock_sweeps_its_own_litter_only(tmp_path):
    (tmp_path / "sub").mkdir()
    for name in (".movie.part.mkv", ".movie.12345678.part", "sub/.table.0a1b2c3d.part.csv"):
        (tmp_path / name).touch()
    with folder_lock(tmp_path):
        pass
    left = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()}
    assert left == {".lock", ".movie.part.mkv"}


@pytest.mark.parametrize("rank", ["LOCAL_RANK", "NODE_RANK", "GROUP_RANK", "SLURM_PROCID"])
def test_ranks_count_only_where_processes_train_together(tmp_path, monkeypatch, rank):
    monkeypatch.setenv(rank, "1")
    assert first_process(1) and not first_process(2)
    with folder_lock(tmp_path):
        with pytest.raises(DataError, match="another run works here"), folder_lock(tmp_path):
            pass
        with folder_lock(tmp_path, processes=2):
            pass


def test_numbers_of_numpy_are_saved_and_odd_settings_leave_the_old_detector(tmp_path):
    values = np.sin(np.arange(400) / 5)
    SpectralResidual(filter_length=np.int64(128), contamination=np.float32(0.01)).fit(values).save(tmp_path)
    before = SpectralResidual.load(tmp_path).decision_function(values)
    odd = SpectralResidual().fit(values)
    odd.columns_ = {1, 2}
    with pytest.raises(DataError, match="nothing was saved"):
        odd.save(tmp_path)
    assert np.array_equal(SpectralResidual.load(tmp_path).decision_function(values), before)
    save_state(tmp_path / "state", {"place": Path("a/b"), "none": np.array(2.0), "text": "x"})
    assert load_state(tmp_path / "state") == {"place": "a/b", "none": np.array(2.0), "text": "x"}


def test_a_pipeline_finds_labels():
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    values = np.append(np.sin(np.arange(400) / 5), 9.0)
    found = make_pipeline(StandardScaler(), SpectralResidual()).fit_predict(values[:, None])
    assert found[-1] == 1 and found[:300].sum() == 0


def test_long_settings_are_cut():
    text = repr(SpectralResidual(period=list(range(100_000))))
    assert "period=[0, 1, 2" in text and "..." in text and len(text) < 1000


PRINTS = """
    from anomaly_nb.commands import command_line
    with command_line():
        for line in range(100_000):
            print(line)
"""


@pytest.mark.parametrize(("target", "told"), [("| head -n 1", ""), ("> /dev/full", "error: [Errno 28]")])
def test_output_that_cannot_be_written(target, told):
    shell = f'"{sys.executable}" -c "$PROGRAM" {target}; exit ${{PIPESTATUS[0]}}'
    environment = os.environ | {"PROGRAM": textwrap.dedent(PRINTS)}
    done = subprocess.run(["bash", "-c", shell], env=environment, capture_output=True, text=True)
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert done.stderr.startswith(told) and (told or not done.stderr)

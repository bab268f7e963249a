"""Errors, files and the detector contract, under bad conditions."""

import json
import subprocess
import sys
import textwrap

import numpy as np
import pytest

from anomaly_nb.core import (
    DataError,
    atomic_path,
    check_values,
    command_line,
    generator,
    load_state,
    save_state,
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
    assert "state.safetensors: not written" in shown and "Free some space" in shown
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
    arrays, values = tmp_path / "state.safetensors", tmp_path / "detector.json"
    if damage == "cut":
        arrays.write_bytes(arrays.read_bytes()[:50])
    elif damage == "text":
        values.write_text("{")
    elif damage == "missing":
        arrays.unlink()
    else:
        values.write_text(json.dumps(json.loads(values.read_text()) | {"detector": "Other"}))
    with pytest.raises(DataError, match=r"damaged|no saved detector|holds a Other"):
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
        from anomaly_nb.core import command_line

        def interrupted():
            raise KeyboardInterrupt

        with command_line():
            ctypes.CFUNCTYPE(None)(interrupted)()
            time.sleep(20)
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (130, "Interrupted. Run the same command again.\n")


def test_a_state_without_its_digest_is_refused(tmp_path):
    save_state(tmp_path, {"weights": np.arange(3.0)})
    content = json.loads((tmp_path / "detector.json").read_text())
    del content["sha256"]
    (tmp_path / "detector.json").write_text(json.dumps(content))
    with pytest.raises(DataError, match="'sha256' is missing"):
        load_state(tmp_path)

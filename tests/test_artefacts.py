"""Saved detectors: nothing stale, nothing of another version by half, nothing that is not a number."""

import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from anomaly_nb.artefacts import signed_text
from anomaly_nb.core import DataError
from anomaly_nb.srcnn import SRCNN, SpectralResidual


def rewrite(folder: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    "Change `detector.json` as another version would have written it, with its digest."
    path = folder / "detector.json"
    facts = json.loads(path.read_text())
    del facts["sha256"]
    change(facts)
    path.write_text(signed_text(facts))


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    values = np.sin(np.arange(600) / 9) + 0.1 * np.random.default_rng(0).normal(size=600)
    SpectralResidual().fit(values).save(tmp_path)
    return tmp_path


@pytest.mark.parametrize("version", ["0.0", "9.9"])
def test_a_detector_of_another_version_is_told_by_name(saved, version, caplog):
    rewrite(saved, lambda facts: facts["versions"].update(anomaly_nb=f"{version} (00000000)"))
    with caplog.at_level(logging.WARNING):
        SpectralResidual.load(saved)
    assert f"was saved by anomaly_nb {version}, this is 0." in caplog.text


CHANGES: dict[str, tuple[Callable[[dict[str, Any]], Any], str]] = {
    "a parameter more": (lambda facts: facts["params"].update(power=2), "has the parameter power, which is unknown"),
    "a parameter less": (lambda facts: facts["params"].pop("context"), "lacks the parameter context"),
    "an attribute more": (lambda facts: facts["values"].update(power_=2), "has the attribute power_, which is unknown"),
    "an attribute less": (lambda facts: facts["values"].pop("threshold_"), "lacks the attribute threshold_"),
    "a newer format": (lambda facts: facts.update(format=3), "was saved in format 3, by anomaly_nb 9.9"),
}


@pytest.mark.parametrize("name", CHANGES)
def test_names_of_another_version_are_refused(saved, name):
    change, told = CHANGES[name]
    rewrite(saved, lambda facts: facts["versions"].update(anomaly_nb="9.9"))
    rewrite(saved, change)
    with pytest.raises(DataError, match=told) as error:
        SpectralResidual.load(saved)
    assert "9.9" in str(error.value) and "0.1" in str(error.value)


def test_what_a_class_does_not_annotate_is_not_saved(tmp_path):
    detector = SpectralResidual().fit(np.sin(np.arange(400) / 5))
    detector.secret_ = 1.0
    with pytest.raises(DataError, match="does not annotate secret_"):
        detector.save(tmp_path)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_no_numbers_are_refused(tmp_path, value):
    import torch

    from anomaly_nb.srcnn.network import SRCNNNetwork
    from anomaly_nb.training import write_weights

    network = SRCNNNetwork(32)
    with torch.no_grad():
        next(network.parameters()).view(-1)[0] = value
    write_weights(network, tmp_path / "srcnn_retry5_32.bin")
    with pytest.raises(DataError, match="not finite"):
        SRCNN.from_checkpoint(tmp_path / "srcnn_retry5_32.bin")


def test_a_detector_is_judged_on_the_task_it_was_fitted_to(tmp_path, capsys):
    from anomaly_nb.fmnist.commands import fmnist_evaluate, fmnist_train

    words = ["--subset", "--epochs", "1", "--score", "pixel", "--save", str(tmp_path)]
    with pytest.raises(SystemExit) as done:
        fmnist_train.main(words)
    assert not done.value.code
    others = {"--normal=4": "the normal class 2, not 4", "--protocol=one-vs-rest": "the protocol original"}
    for other, told in others.items():
        with pytest.raises(SystemExit, match=told):
            fmnist_evaluate.main([str(tmp_path), "--subset", other])
    with pytest.raises(SystemExit) as done:
        fmnist_evaluate.main([str(tmp_path), "--subset"])
    assert not done.value.code and "EdgeNeighbours" in capsys.readouterr().out

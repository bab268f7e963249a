"""Each study in a real JupyterLab, driven by a real browser."""

import json
import os
import shutil
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import free_port

ROOT = Path(__file__).parent.parent
STUDIES = sorted(str(path.relative_to(ROOT / "nbs")) for path in (ROOT / "nbs").glob("*/study*.ipynb"))
LONG = {"dcgan/study.ipynb", "fmnist/study_memory.ipynb"}  # a minute of training each
STATE = """
const panel = window.jupyterapp.shell.currentWidget;
if (!panel || !panel.content || !panel.content.widgets || !panel.sessionContext.session) return null;
const cells = panel.content.widgets.filter(cell => cell.model.type === 'code').map(cell => cell.model);
const outputs = cells.flatMap(model => model.sharedModel.toJSON().outputs);
return {
    kernel: panel.sessionContext.session.kernel?.status,
    waiting: cells.filter(model => !model.executionCount && model.sharedModel.source.trim()).length,
    errors: outputs.filter(output => output.output_type === 'error').map(output => output.ename + ': ' + output.evalue),
    pictures: outputs.filter(output => output.data && output.data['image/png']).length,
};
"""


def without_outputs(source: Path, target: Path) -> int:
    "Copy a notebook without outputs; how many pictures it will have."
    notebook = json.loads(source.read_text(encoding="utf-8"))
    cells = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    pictures = sum("image/png" in output.get("data", {}) for cell in cells for output in cell["outputs"])
    for cell in cells:
        cell |= {"outputs": [], "execution_count": None}
    target.write_text(json.dumps(notebook), encoding="utf-8")
    return pictures


@pytest.fixture(scope="module")
def lab(browser: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    "JupyterLab on a copy of the notebooks and of the tables that they show."
    pytest.importorskip("jupyterlab", reason="JupyterLab is not installed")
    folder, port = tmp_path_factory.mktemp("lab"), free_port()
    for part in ("nbs", "benchmarks"):
        shutil.copytree(ROOT / part, folder / part)
    options = [f"--ServerApp.port={port}", "--no-browser", "--IdentityProvider.token=", "--expose-app-in-browser"]
    command = [sys.executable, "-m", "jupyterlab", *options, f"--ServerApp.root_dir={folder}", "--allow-root"]
    paths = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    server = subprocess.Popen(command, env=os.environ | {"PYTHONPATH": paths, "IN_TEST": "1"}, **quiet)
    address = f"http://127.0.0.1:{port}"
    try:
        deadline = time.monotonic() + 60
        while True:
            try:
                urllib.request.urlopen(f"{address}/api", timeout=2).close()
                break
            except OSError:
                assert time.monotonic() < deadline and server.poll() is None, "JupyterLab does not start"
                time.sleep(0.3)
        yield address, folder / "nbs"
    finally:
        server.terminate()
        server.wait(timeout=20)


def wait_for(driver: Any, ready: str, seconds: float) -> dict[str, Any]:
    "The notebook's state as soon as a condition on it holds and nothing changes for a second."
    deadline, before = time.monotonic() + seconds, None
    while True:
        state = driver.execute_script(STATE) if driver.execute_script("return !!window.jupyterapp") else None
        if state and state == before and eval(ready, {}, state):
            return dict(state)
        assert time.monotonic() < deadline, f"not {ready}: {state}"
        before = state
        time.sleep(1.0)


@pytest.mark.parametrize("study", [pytest.param(s, marks=pytest.mark.slow) if s in LONG else s for s in STUDIES])
def test_study_runs_in_the_lab(study: str, lab: tuple[str, Path], browser: Any) -> None:
    "From top to bottom, with the cells that take a minute."
    address, notebooks = lab
    pictures = without_outputs(ROOT / "nbs" / study, notebooks / study)
    browser.get(f"{address}/lab/tree/nbs/{study}?reset")
    wait_for(browser, "kernel == 'idle' and waiting > 0", 90)
    browser.execute_script("window.jupyterapp.commands.execute('notebook:run-all-cells')")
    state = wait_for(browser, "errors or (kernel == 'idle' and waiting == 0)", 600)
    assert state["errors"] == []
    assert state["pictures"] == pictures


EXPLORE = """
from anomaly_nb.plots import explore
from anomaly_nb.srcnn import SpectralResidual, load_kpi

first, second = load_kpi()[1].halves()
explore(SpectralResidual().fit(first.series), second.series)
"""


def test_a_threshold_is_moved_in_the_lab(lab: tuple[str, Path], browser: Any) -> None:
    pytest.importorskip("ipywidgets", reason="ipywidgets is not installed")
    from selenium.webdriver.common.action_chains import ActionChains
    from selenium.webdriver.common.by import By
    from selenium.webdriver.common.keys import Keys
    from selenium.webdriver.support.ui import WebDriverWait

    address, notebooks = lab
    kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    cell = {"cell_type": "code", "id": "a", "source": EXPLORE, "metadata": {}, "outputs": [], "execution_count": None}
    content = {"cells": [cell], "metadata": kernel, "nbformat": 4, "nbformat_minor": 5}
    (notebooks / "look.ipynb").write_text(json.dumps(content), encoding="utf-8")
    browser.get(f"{address}/lab/tree/nbs/look.ipynb?reset")
    wait_for(browser, "kernel == 'idle' and waiting > 0", 90)
    browser.execute_script("window.jupyterapp.commands.execute('notebook:run-all-cells')")
    assert wait_for(browser, "errors or (kernel == 'idle' and waiting == 0)", 120)["errors"] == []
    wait = WebDriverWait(browser, 60)
    dots = wait.until(lambda page: page.find_elements(By.CSS_SELECTOR, ".jp-OutputArea-output svg .dot > circle"))
    thumbnail = browser.find_elements(By.CSS_SELECTOR, ".jp-OutputArea-output svg .dot > g")[-1]
    assert thumbnail.value_of_css_property("visibility") == "hidden"
    ActionChains(browser).move_to_element(dots[-1]).perform()
    assert thumbnail.value_of_css_property("visibility") == "visible"

    def alarms(page: Any) -> int:
        said = [label.text for label in page.find_elements(By.CSS_SELECTOR, ".widget-label")]
        return next((int(text.split()[0]) for text in said if "above the threshold" in text), 0)

    before = wait.until(alarms)
    assert len(browser.find_elements(By.CSS_SELECTOR, ".jp-OutputArea-output select option")) == before
    assert wait.until(lambda page: page.find_elements(By.CSS_SELECTOR, ".jp-OutputArea-output img"))
    handle = browser.find_element(By.CSS_SELECTOR, ".noUi-handle")
    handle.send_keys(Keys.ARROW_RIGHT * 20)
    wait.until(lambda page: 0 < alarms(page) < before)

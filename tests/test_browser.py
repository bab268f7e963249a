"""The reports and some pages in a real browser: on a phone, a tablet and a desk, by day and by night."""

import io
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from anomaly_nb.dcase import SpectrogramStudy, synthesize_machines

ROOT = Path(__file__).parents[1]
NOTEBOOKS = [path.relative_to(ROOT / "nbs") for path in (ROOT / "nbs").rglob("*.ipynb")]
PAGES = sorted(str(path.with_suffix("")) for path in NOTEBOOKS if ".ipynb_checkpoints" not in path.parts)
WIDTHS = {"phone": 390, "tablet": 820, "desk": 1440}
FAULTS = """
const width = document.documentElement.clientWidth;
const wide = [...document.body.children].filter(part => part.getBoundingClientRect().right > width + 1);
return {
    scroll: document.documentElement.scrollWidth - width,
    wide: wide.map(part => part.tagName + ' ' + part.className),
    broken: [...document.images].filter(image => !(image.complete && image.naturalWidth)).map(image => image.alt),
    pictures: document.images.length,
    nameless: [...document.images].filter(image => !image.alt).length,
    title: document.title,
    heading: document.querySelector('h1')?.innerText,
};
"""


@pytest.fixture(scope="module")
def site(browser: Any, quick_tour: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    "The two reports, and pages as `.ci/pages.py` renders them."
    pytest.importorskip("nbdev", reason="nbdev is not installed")
    folder = tmp_path_factory.mktemp("site")
    subprocess.run([sys.executable, ".ci/pages.py", "--out", folder], cwd=ROOT, check=True, capture_output=True)
    synthesize_machines(folder / "machines", ["fan"], machines=1, train=4, normal=2, anomaly=2, seconds=2)
    report = SpectrogramStudy(folder / "machines").run().save(folder / "report")
    pages = {page: folder / f"{page}.html" for page in PAGES}
    return pages | {"tour": quick_tour / "index.html", "machines": report}


@pytest.fixture(params=WIDTHS)
def width(request: pytest.FixtureRequest, browser: Any) -> Iterator[int]:
    wide = WIDTHS[request.param]
    screen = {"width": wide, "height": 900, "deviceScaleFactor": 1, "mobile": wide < 500}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", screen)
    yield wide
    browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


def look(browser: Any, page: Path, mode: str) -> tuple[dict[str, Any], np.ndarray]:
    "Faults of a page, and a picture of its top."
    media = {"features": [{"name": "prefers-color-scheme", "value": mode}]}
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", media)
    browser.get_log("browser")
    browser.get(page.as_uri())
    assert [entry["message"] for entry in browser.get_log("browser") if entry["level"] == "SEVERE"] == []
    picture = Image.open(io.BytesIO(browser.get_screenshot_as_png())).convert("L")
    return browser.execute_script(FAULTS), np.asarray(picture)


@pytest.mark.parametrize("page", ["tour", "machines", *PAGES])
def test_page_fits_the_screen(page: str, site: dict[str, Path], browser: Any, width: int) -> None:
    for mode in ("light", "dark"):
        found, picture = look(browser, site[page], mode)
        assert (found["scroll"], found["wide"]) == (0, [])
        assert (found["broken"], found["nameless"]) == ([], 0)
        assert found["title"] and found["heading"]
        ground = np.median(picture)
        assert ground > 200 if mode == "light" else ground < 60
    if page in ("tour", "srcnn/study"):
        assert found["pictures"] >= 3


def test_code_can_be_read_in_the_dark(site: dict[str, Path], browser: Any) -> None:
    "What is dark on a bright page is bright on a dark one: in the first lines of code, as much ink can be seen."
    ink = {}
    for mode in ("light", "dark"):
        look(browser, site["00_core"], mode)
        code = browser.find_element("css selector", "pre.sourceCode")
        picture = np.asarray(Image.open(io.BytesIO(code.screenshot_as_png)).convert("L")).astype(float)
        ink[mode] = int((abs(picture - np.median(picture)) > 60).sum())
    assert ink["dark"] > 0.7 * ink["light"] > 100


def test_the_links_of_the_report_lead_to_its_chapters(site: dict[str, Path], browser: Any) -> None:
    browser.get(site["tour"].as_uri())
    links = browser.execute_script("return [...document.querySelectorAll('a')].map(a => a.getAttribute('href'))")
    assert len(links) == 5
    assert browser.execute_script("return arguments[0].every(link => document.querySelector(link))", links)


def test_pages_lead_to_each_other(site: dict[str, Path], browser: Any) -> None:
    browser.get(site["index"].as_uri())
    browser.execute_script("document.querySelector('details').open = true")
    browser.find_element("link text", "Core").click()
    assert browser.current_url == site["00_core"].as_uri()
    assert browser.execute_script("return document.querySelector('h1').innerText") == "Core"

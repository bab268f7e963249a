"""Cut-outs against a server on this machine."""

import io
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from email.message import Message
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import ClassVar
from urllib.error import HTTPError, URLError
from urllib.parse import parse_qs, urlparse

import numpy as np
import pytest
from PIL import Image

from anomaly_nb.spectra import cutout_url, fetch_sdss_image, plot_combined_spectra, report
from anomaly_nb.spectra.cutouts import Pictures


def picture() -> bytes:
    file = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (256, 256, 3), np.uint8)).save(file, "JPEG")
    return file.getvalue()


class Handler(BaseHTTPRequestHandler):
    calls: ClassVar[list[str]] = []

    def do_GET(self):
        mood = urlparse(self.path).path.strip("/")
        self.calls.append(self.path)
        number = sum(urlparse(path).path.strip("/") == mood for path in self.calls)
        status, kind, body = 200, "image/jpeg", picture()
        if mood.isdigit():
            status = int(mood)
        elif mood == "later" and number < 3:
            status = 503
        elif mood == "html":
            kind, body = "text/html", b"<html></html>"
        elif mood == "liar":
            body = b"<html></html>"
        elif mood == "truncated":
            body = body[:-5000]
        elif mood == "huge":
            body += bytes(6_000_000)
        elif mood == "slow":
            time.sleep(1)
        elif mood == "redirect":
            self.send_response(302)
            self.send_header("Location", self.path.replace("redirect", "fine"))
            self.end_headers()
            return
        try:
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.end_headers()
            if mood == "drip":
                for start in range(0, len(body), 500):
                    self.wfile.write(body[start : start + 500])
                    time.sleep(0.05)
            else:
                self.wfile.write(body)
        except OSError:
            pass

    def log_message(self, *_):
        pass


@pytest.fixture
def server():
    Handler.calls.clear()
    running = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=running.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{running.server_port}"
    running.shutdown()
    running.server_close()


def fetch(server, mood, **options):
    return fetch_sdss_image(150.0, -2.0, server=f"{server}/{mood}", **({"timeout": 0.4, "pause": 0.01} | options))


@pytest.mark.parametrize(
    ("mood", "arrives", "requests"),
    [
        ("fine", True, 1),
        ("redirect", True, 2),
        ("later", True, 3),
        ("404", False, 1),
        ("500", False, 3),
        ("429", False, 3),
        ("html", False, 1),
        ("liar", False, 1),
        ("truncated", False, 1),
        ("huge", False, 1),
        ("slow", False, 3),
        ("drip", False, 3),
    ],
)
def test_moods(server, mood, arrives, requests):
    assert (fetch(server, mood) is not None) == arrives
    assert len(Handler.calls) == requests


def test_query_is_exact(server):
    fetch(server, "fine", scale=0.4, width=128, height=64)
    query = {name: values[0] for name, values in parse_qs(urlparse(Handler.calls[0]).query).items()}
    assert query == {"ra": "150.000000", "dec": "-2.000000", "scale": "0.4", "width": "128", "height": "64"}


def test_cache_asks_once_even_in_parallel(server, tmp_path):
    first = fetch(server, "fine", cache=tmp_path)
    with ThreadPoolExecutor(8) as pool:
        assert set(pool.map(lambda _: fetch(server, "fine", cache=tmp_path), range(16))) == {first}
    assert len(Handler.calls) == 1 and len(list(tmp_path.iterdir())) == 1
    fetch(server, "html", cache=tmp_path)
    assert len(list(tmp_path.iterdir())) == 1


def test_cache_that_cannot_be_written(server, tmp_path):
    (tmp_path / "file").touch()
    assert fetch(server, "fine", cache=tmp_path / "file") is not None


def test_nobody_answers():
    assert fetch("http://127.0.0.1:9", "fine", retries=1) is None
    assert fetch_sdss_image(1, 2, server="nonsense", retries=0) is None


def test_offline_opens_no_connection(server, monkeypatch):
    monkeypatch.setenv("ANOMALY_NB_OFFLINE", "1")
    assert fetch(server, "fine") is None and not Handler.calls
    assert fetch(server, "fine", offline=False) is not None


def test_server_from_the_environment(monkeypatch):
    monkeypatch.setenv("ANOMALY_NB_CUTOUT_SERVER", "http://mirror/cut")
    assert cutout_url(1, 2).startswith("http://mirror/cut?ra=1.000000")


def rows(images, n=4, **options):
    "Draw the document's figure of n spectra."
    flux, masks = np.ones((n, 60)), [np.zeros(60, bool)] * n
    catalogue = {"targetid": np.arange(n), "mean_fiber_ra": 150.0 + np.arange(n), "mean_fiber_dec": np.zeros(n)}
    return plot_combined_spectra(flux, flux, masks, np.ones(n), catalogue, images=images, **options)


def pictures_of(server, mood):
    return partial(fetch_sdss_image, server=f"{server}/{mood}", timeout=0.4, retries=1, pause=0.01)


def test_the_figure_tells_its_scale(server, tmp_path):
    rows(pictures_of(server, "fine"), scale=0.4)
    assert [parse_qs(urlparse(path).query)["scale"] for path in Handler.calls] == [["0.4"]] * 4
    asked = []
    rows(lambda ra, dec, scale: asked.append(scale), scale=0.7)
    assert asked == [0.7] * 4


def test_the_circle_and_the_bar_follow_the_scale(monkeypatch):
    drawn = []
    monkeypatch.setattr(report, "draw_picture", lambda ax, content, fibre, scale: drawn.append((fibre, scale)))
    rows(None, n=2, scale=0.4, fibre=1.5)
    assert drawn == [(1.5, 0.4)] * 2


@pytest.mark.parametrize(("mood", "calls"), [("503", 2), ("slow", 2), ("404", 4), ("html", 4)])
def test_a_figure_does_not_wait_for_each_picture(server, mood, calls):
    _, chosen, _ = rows(pictures_of(server, mood))
    assert len(chosen) == 4 and len(Handler.calls) == calls  # two attempts for the first picture, or one for each


@pytest.mark.parametrize(
    ("error", "calls"),
    [
        (KeyError("no such galaxy"), 4),
        (FileNotFoundError(2, "No such file", "a.jpg"), 4),
        (ConnectionRefusedError("down"), 1),
        (TimeoutError(), 1),
        (URLError("down"), 1),
        (HTTPError("http://nowhere", 404, "Not Found", Message(), None), 4),
    ],
)
def test_a_hook_that_raises_costs_only_its_picture(error, calls, caplog, tmp_path):
    asked = []

    def hook(ra, dec):
        asked.append(ra)
        raise error

    rows(hook, save_directory=tmp_path)
    assert len(asked) == calls and len(list(tmp_path.iterdir())) == 1
    assert len(caplog.records) == calls and type(error).__name__ in caplog.text


def test_a_callable_without_signature():
    assert Pictures(max)(1.0, 2.0) == 2.0


def test_lines_are_explained(monkeypatch):
    figures = []
    keep = report.blank_figure
    monkeypatch.setattr(report, "blank_figure", lambda *size: figures.append(keep(*size)) or figures[-1])
    rows(None, n=2)
    legends = [ax.get_legend() for part in figures[0].subfigs for ax in part.axes if ax.get_legend()]
    assert [[text.get_text() for text in legend.get_texts()] for legend in legends] == [
        ["original", "reconstruction"]
    ] * 2

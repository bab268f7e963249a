"""Files, protocols and augmentation; baselines on the published data where it is installed."""

import gzip
import shutil
import threading
from functools import partial
from hashlib import md5
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest

from anomaly_nb.core import DataError
from anomaly_nb.fmnist import augment, data, evaluate, load_fashion_mnist, load_subset, make_protocol
from anomaly_nb.fmnist.baselines import BASELINES, baseline_scores
from anomaly_nb.fmnist.data import DEBIAN, MD5, read_idx
from anomaly_nb.metrics import roc_auc

published = pytest.mark.skipif(not DEBIAN.exists(), reason="Debian's dataset-fashion-mnist is not installed")


@published
def test_a_folder_of_the_user(tmp_path):
    for name in MD5:
        with gzip.open(DEBIAN / f"{name}.gz") as packed, open(tmp_path / name, "wb") as plain:
            shutil.copyfileobj(packed, plain)
    images, labels = load_fashion_mnist("test", tmp_path)
    assert images.shape == (10_000, 28, 28) and (np.bincount(labels) == 1000).all()
    damaged = tmp_path / "t10k-labels-idx1-ubyte"
    damaged.write_bytes(damaged.read_bytes()[:-1] + b"\0")
    with pytest.raises(DataError, match="the MD5 of its unpacked content"):
        load_fashion_mnist("test", tmp_path)


def test_a_download_that_is_not_what_was_published(tmp_path, monkeypatch, caplog):
    (tmp_path / "t10k-labels-idx1-ubyte.gz").write_bytes(gzip.compress(b"other labels", mtime=0))
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(SimpleHTTPRequestHandler, directory=tmp_path))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setattr(data, "ADDRESS", f"http://127.0.0.1:{server.server_port}")
    monkeypatch.setattr(data, "DEBIAN", tmp_path / "nowhere")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("FASHION_MNIST", raising=False)
    with caplog.at_level("INFO"), pytest.raises(DataError, match="not downloaded"):
        data.find_file("t10k-labels-idx1-ubyte")
    assert "downloading http://127.0.0.1" in caplog.text
    assert not [path for path in (tmp_path / "cache").rglob("*") if path.is_file()]
    monkeypatch.setitem(data.PACKED, "t10k-labels-idx1-ubyte", md5(gzip.compress(b"other labels", mtime=0)).hexdigest())
    assert data.find_file("t10k-labels-idx1-ubyte").is_file()
    server.shutdown()


@published
def test_the_subset_is_the_first_of_each_class():
    for split, count in (("train", 200), ("test", 100)):
        images, labels = load_fashion_mnist(split)
        part, classes = load_subset(split)
        for kind in range(10):
            assert (part[classes == kind] == images[labels == kind][:count]).all()


@published
@pytest.mark.slow
def test_baselines_are_the_known_ones():
    splits = [load_fashion_mnist(split) for split in ("train", "test")]
    tasks = [make_protocol("original", *splits, seed=seed) for seed in range(5)]  # LOF varies by 0.01 with the draw
    known = {
        "mean image": 0.5739,
        "PCA": 0.6855,
        "1-NN": 0.7043,
        "HOG + k-NN": 0.7658,
        "Isolation Forest": 0.5933,
        "LOF": 0.6595,
    }
    for name, value in known.items():
        measured = [roc_auc(task.truth, baseline_scores(task, BASELINES[name])[1]) for task in tasks]
        assert np.mean(measured) == pytest.approx(value, abs=0.005), name


def test_other_files(tmp_path):
    (tmp_path / "images.idx").write_bytes(b"1234")
    with pytest.raises(DataError, match="is no IDX file of bytes"):
        read_idx(tmp_path / "images.idx")


def test_normal_images_never_leak():
    splits = load_subset("train"), load_subset("test")
    for name in ("original", "one-vs-rest"):
        for normal in range(10):
            task = make_protocol(name, *splits, normal=normal)
            known = {image.tobytes() for image in splits[0][0][splits[0][1] == normal]}
            learnt = [image.tobytes() for part in (task.train, task.validation) for image in part]
            assert set(learnt) == known and len(learnt) == 200
            assert (task.truth == (task.classes != normal)).all()


def test_clothes_stay_upright():
    images = load_subset("train")[0][load_subset("train")[1] == 1][:50]
    more = augment(images, 6)
    assert more.shape == (300, 28, 28) and more.min() >= 0 and more.max() <= 1
    mean, rows = images.mean(axis=0) / 255, more[50:].reshape(5, 50, 28, 28).mean(axis=(0, 1))
    upright, turned = np.corrcoef(mean.ravel(), rows.ravel())[0, 1], np.corrcoef(mean[::-1].ravel(), rows.ravel())[0, 1]
    assert upright > 0.9 and upright > turned + 0.05


def test_figures_of_one_class():
    with pytest.raises(DataError, match="needs both classes"):
        evaluate(np.zeros(5), np.arange(5.0))

"""Pictures as people have them: folders, files, data sets, arrays of any layout, and messages that name a problem."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from anomaly_nb.core import DataError
from anomaly_nb.fmnist import ImageDetector, judge_defects, load_subset, read_pictures

torch.set_num_threads(1)


@pytest.fixture(scope="module")
def pixels():
    return load_subset("train")[0][:40]


@pytest.fixture(scope="module")
def folder(tmp_path_factory, pixels):
    place = tmp_path_factory.mktemp("own pictures")
    for number, image in enumerate(pixels):
        Image.fromarray(image).save(place / f"{number:02d}.png")
    return place


class Labelled(torch.utils.data.Dataset):
    "Pictures with a label, as torchvision's sets have them."

    def __init__(self, images):
        self.images = images

    def __len__(self):
        return len(self.images)

    def __getitem__(self, place):
        return torch.from_numpy(self.images[place])[None] / 255.0, 0


def test_all_that_holds_pictures_gives_the_same(pixels, folder):
    tensor = (torch.from_numpy(pixels) / 255.0).requires_grad_()
    files = sorted(map(str, folder.glob("*.png")))
    arrays = (tensor, pixels[..., None], pixels[:, None], list(pixels))
    for source in (folder, str(folder), files, Labelled(pixels), *arrays):
        np.testing.assert_array_equal(read_pictures(source), read_pictures(pixels))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda x: (x > 127).astype(np.uint8), "pixels are 0 and 1 as uint8"),
        (lambda x: x.astype(float), "Divide by 255"),
        (lambda x: np.stack([x] * 3, axis=1), r"expected the shape \(n, 28, 28\)"),
        (lambda x: np.pad(x, ((0, 0), (2, 2), (2, 2))), "set size and colour"),
        (lambda x: "nowhere", "no such folder"),
    ],
)
def test_messages_name_the_problem(pixels, change, message):
    with pytest.raises(DataError, match=message):
        read_pictures(change(pixels))


@pytest.mark.parametrize(("size", "colour"), [(28, "grey"), (32, "grey"), (64, "rgb")])
def test_sizes_and_colours(folder, tmp_path, size, colour):
    detector = ImageDetector(size=size, colour=colour).fit(folder)
    scores = detector.decision_function(folder)
    assert np.array_equal(detector.decision_function([folder / "07.png"]), scores[7:8])
    assert detector.anomaly_map(folder).shape == (40, size, size)
    assert detector.detect(folder)["file"].tolist() == sorted(map(str, folder.glob("*.png")))
    detector.save(tmp_path)
    assert np.array_equal(ImageDetector.load(tmp_path).decision_function(folder), scores)


def test_networks_say_what_they_read(folder):
    with pytest.raises(DataError, match=r"VAE reads 28 by 28 grey pixels\. Take EdgeNeighbours"):
        ImageDetector("VAE", size=32).fit(folder)


def test_a_broken_file_is_named(folder, tmp_path):
    (tmp_path / "half.png").write_bytes((folder / "00.png").read_bytes()[:60])
    with pytest.raises(DataError, match=r"half.png: cannot be read as a picture"):
        ImageDetector().fit(tmp_path)


def test_defects_are_not_learnt_and_need_both_kinds(folder, tmp_path):
    for split in ("train/good", "test/good"):
        (tmp_path / split).mkdir(parents=True)
        for path in sorted(folder.glob("*.png"))[:12]:
            (tmp_path / split / path.name).write_bytes(path.read_bytes())
    detector = ImageDetector().fit(tmp_path)
    assert len(detector.decision_scores_) == 12
    with pytest.raises(DataError, match="need good pictures and defects"):
        judge_defects(detector, tmp_path)
    (tmp_path / "test/torn").mkdir()
    Image.fromarray(np.full((28, 28), 255, np.uint8)).save(tmp_path / "test/torn/0.png")
    table = judge_defects(detector, Path(tmp_path))
    assert table.loc["torn", "image_auroc"] == 1 and np.isnan(table.loc["torn", "pro"])


def test_the_threshold_of_a_graph_can_be_given(pixels, tmp_path):
    onnxruntime = pytest.importorskip("onnxruntime")
    detector = ImageDetector().fit(pixels)
    detector.export_onnx(tmp_path / "detector.onnx")
    session = onnxruntime.InferenceSession(tmp_path / "detector.onnx")
    images = read_pictures(pixels)[:, None]
    scores, alarms, _ = session.run(None, {"images": images})
    assert np.array_equal(alarms, scores > np.float32(detector.threshold_))
    assert session.run(None, {"images": images, "threshold": np.array(-1e6, np.float32)})[1].all()
    assert session.get_modelmeta().custom_metadata_map["detector"] == "EdgeNeighbours, model"

"""Masks that imitate what was found: outlines, patches that belong together, places, and files of priors."""

import json

import numpy as np
import pytest
import torch

from anomaly_nb.core import DataError, generator
from anomaly_nb.dcase import (
    AudioSpecificStrategy,
    MaskPrior,
    Patch,
    PerlinStrategy,
    SpectrogramStudy,
    VQ_VAE_2Layer,
    compare_masks,
    generate_anomalies,
    place_overlap,
    synthesize_machines,
)

SHAPE = (128, 150)
SLOPE = tuple((2 * band, 2 * band + 6) for band in range(8))
ONE = (Patch(20, 8, 6, 1, 5.0, "id_00", 30, SLOPE), Patch(60, 4, 9, -1, -4.0, "id_00", 60))
OTHER = (Patch(90, 10, 150, 1, 6.0, "id_02"),)


def prior(period=0.0, patches=ONE + OTHER):
    return MaskPrior("fan", *SHAPE, patches, period)


def first_frames(mask):
    "Of the louder and the quieter patch."
    return np.flatnonzero((mask == 1).any(axis=0))[0], np.flatnonzero((mask == -1).any(axis=0))[0]


def test_a_mask_is_of_one_machine_and_its_patches_move_together():
    masks = AudioSpecificStrategy(prior()).generate_signed(60, SHAPE)
    one = [mask for mask in masks if (mask == -1).any()]
    other = [mask for mask in masks if not (mask == -1).any()]
    assert 15 < len(one) < 45
    for mask in one:
        assert (mask[15:35] == 1).any() and not mask[85:].any()
        louder, quieter = first_frames(mask)
        assert abs((quieter - louder) - 30) <= 2
    assert np.ptp([first_frames(mask)[0] for mask in one]) > 40
    for mask in other:
        assert not mask[:80].any() and (mask[:, 0] == mask[:, -1]).all() and (mask[95] == 1).all()


def test_an_outline_is_kept():
    box, slope = 8 * 20, 8 * 6
    masks = AudioSpecificStrategy(prior(patches=ONE[:1])).generate(40, SHAPE)
    areas = masks.sum(axis=(1, 2))
    assert 0.7 * slope < areas.mean() < 1.3 * slope < 0.5 * box
    for mask in masks:
        rows = np.flatnonzero(mask.any(axis=1))
        assert mask[rows].argmax(axis=1)[-1] - mask[rows].argmax(axis=1)[0] >= 10


def test_patches_come_again_after_the_period():
    masks = AudioSpecificStrategy(prior(period=37.5, patches=ONE[1:])).generate(20, SHAPE)
    for mask in masks:
        starts = np.flatnonzero(np.diff(mask.any(axis=0).astype(int), prepend=0) == 1)
        inner = np.diff(starts[starts > 0])
        assert len(inner) >= 2 and set(inner) <= {37, 38}


def test_short_masks_show_a_part_of_what_is_longer():
    masks = AudioSpecificStrategy(prior(patches=ONE)).generate_signed(80, (128, 16))
    seen = {(bool((mask == 1).any()), bool((mask == -1).any())) for mask in masks}
    assert {(True, False), (False, True)} <= seen and (False, False) not in seen


@pytest.mark.parametrize("kind", ["fan", "ToyCar", "slider"])
def test_masks_are_as_large_as_what_was_found(tmp_path, kind):
    synthesize_machines(tmp_path, [kind], 2, 10, 5, 6, seconds=5)
    report = SpectrogramStudy(tmp_path).run()
    made = MaskPrior.from_study(report, kind)
    assert {patch.machine for patch in made.patches} == {"id_00", "id_02"}
    for machine, mask in zip(report.machines, made.found(), strict=True):
        region = machine.found.region()
        assert 0.6 < (mask != 0).mean() / region.mean() < 1.4
    drawn = AudioSpecificStrategy(made).generate_signed(30, (made.n_mels, made.frames))
    assert (drawn != 0).mean() == pytest.approx((made.found() != 0).mean(), rel=0.4)
    assert compare_masks(made, drawn)["p"].min() > 0.01 and place_overlap(made, drawn) > 0.7


@pytest.mark.parametrize("strategy", [AudioSpecificStrategy, PerlinStrategy])
def test_places_are_told_apart(strategy):
    one, other = prior(patches=ONE), prior(patches=OTHER)
    masks = strategy(one).generate_signed(60, SHAPE)
    assert place_overlap(one, masks) > 0.75 and place_overlap(other, masks) == 0
    assert place_overlap(one, np.roll(masks, 12, axis=1)) < 0.3
    assert place_overlap(one, -masks) < 0.1
    assert place_overlap(one, strategy().generate_signed(60, SHAPE)) < 0.3


def test_a_shift_of_the_band_fails_the_comparison():
    made = prior(patches=tuple(Patch(20 + 3 * i, 4, 9, 1, 5.0, f"id_{i:02d}", 30) for i in range(12)))
    masks = AudioSpecificStrategy(made).generate_signed(60, SHAPE)
    assert compare_masks(made, masks)["p"].min() > 0.05
    moved = compare_masks(made, np.roll(masks, 30, axis=1))["p"]
    assert moved["centre"] < 0.001 and moved.drop("centre").min() > 0.05


def test_clouds_lie_inside_patches():
    made = prior(patches=ONE)
    for seed in range(5):
        clouds = PerlinStrategy(made).generate_signed(20, SHAPE, seed)
        for outside in (slice(0, 17), slice(32, 57), slice(67, 128)):
            assert not clouds[:, outside].any()
        assert (clouds[:, :40] >= 0).all() and (clouds[:, 40:] <= 0).all()
        assert 0.2 < (clouds != 0).mean() / (made.found() != 0).mean() < 0.8


def test_priors_read_back_and_damaged_ones_are_refused(tmp_path):
    path, made = tmp_path / "fan.json", prior(period=12.5)
    made.save(path)
    assert MaskPrior.load(path) == made
    state = json.loads(path.read_text())
    assert state["patches"][0]["outline"].startswith("0-6 2-8 ") and state["patches"][1]["outline"] == ""
    assert {"band_hz", "seconds", "duty", "sign", "machine"} <= set(state["patches"][0])
    for name, value in (
        ("outline", "0-6"),
        ("outline", "6-0 " * 8),
        ("outline", "0-6 " * 7 + "0-999"),
        ("outline", 5),
        ("bands", 0),
        ("bands", 1000),
        ("low", -1),
        ("frames", "x"),
        ("frames", 1000),
        ("sign", 0),
    ):
        wrong = json.loads(path.read_text())
        wrong["patches"][0 if name != "frames" else 1][name] = value
        (tmp_path / "wrong.json").write_text(json.dumps(wrong))
        with pytest.raises(DataError, match="not a mask prior"):
            MaskPrior.load(tmp_path / "wrong.json")


def test_drawn_patches_are_patches():
    made = prior(period=20.0)
    for i in range(100):
        for patch in made.draw(generator(0, i), jitter=0.5):
            assert 0 <= patch.low and patch.low + patch.bands <= 128 and len(patch.edges) == patch.bands
            assert (np.diff(patch.edges, axis=1) > 0).all()


@pytest.mark.parametrize("training", [True, False])
def test_the_mode_of_the_network_is_restored(training):
    network = VQ_VAE_2Layer(16, 1, 8, (8, 16), 8)
    network(torch.randn(2, 1, 32, 32))
    network.train(training)
    generate_anomalies(network, torch.zeros(2, 1, 32, 32), np.ones((2, 32, 32), bool))
    assert network.training == training
    with pytest.raises(DataError):
        generate_anomalies(network, torch.zeros(2, 1, 30, 32), np.ones((2, 30, 32), bool))
    assert network.training == training and network.vq_bot.training == training

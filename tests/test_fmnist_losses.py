"""Losses against torchmetrics, per image and under mixed precision, and what they cost."""

import time

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchmetrics.functional.image import (
    multiscale_structural_similarity_index_measure,
    structural_similarity_index_measure,
    total_variation,
)

from anomaly_nb.core import DataError
from anomaly_nb.fmnist import FlexibleLoss
from anomaly_nb.fmnist.losses import TERMS, ms_ssim, ssim, tv

torch.set_num_threads(1)


def pair(seed, n=4, side=28):
    random = torch.Generator().manual_seed(seed)
    target = torch.rand(n, 1, side, side, generator=random)
    noise = 0.2 * torch.randn(target.shape, generator=random)
    return (target + noise).clamp(0, 1), target


def reference_ms_ssim(output, target):
    options = {"data_range": 1.0, "kernel_size": 7, "betas": (0.5, 0.3, 0.2), "reduction": "none"}
    return multiscale_structural_similarity_index_measure(output, target, **options)


@pytest.mark.parametrize("side", [28, 32])
def test_references(side):
    output, target = pair(0, side=side)
    expected = structural_similarity_index_measure(output, target, data_range=1.0, reduction="none")
    torch.testing.assert_close(ssim(output, target), 1 - expected, atol=1e-4, rtol=0)
    torch.testing.assert_close(ms_ssim(output, target), 1 - reference_ms_ssim(output, target), atol=1e-4, rtol=0)
    per_pixel = total_variation(output, reduction="none") / side**2
    torch.testing.assert_close(tv(output, target), per_pixel, atol=1e-6, rtol=0)


@given(seed=st.integers(0, 1000), modes=st.sets(st.sampled_from(sorted(TERMS)), min_size=1))
@settings(max_examples=30, deadline=None)
def test_each_image_has_its_own_number(seed, modes):
    output, target = pair(seed)
    loss = FlexibleLoss("+".join(modes), reduction="none")
    together = loss(output, target)
    assert together.shape == (4,) and together.isfinite().all()
    alone = torch.cat([loss(o[None], t[None]) for o, t in zip(output, target, strict=True)])
    torch.testing.assert_close(alone, together, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(FlexibleLoss("+".join(modes))(output, target), together.mean())
    if modes != {"tv"}:
        assert (loss(target, target) <= together + 1e-6).all()


@given(seed=st.integers(0, 100))
@settings(max_examples=10, deadline=None)
def test_slopes_are_finite_even_for_opposites(seed):
    _, target = pair(seed)
    for output in (1 - target, target.clone(), torch.zeros_like(target)):
        output.requires_grad_()
        FlexibleLoss("+".join(TERMS))(output, target).backward()
        assert output.grad.isfinite().all()


def test_half_precision_changes_nothing():
    output, target = pair(1)
    loss = FlexibleLoss("+".join(TERMS))
    with torch.autocast("cpu", torch.bfloat16):
        inside = loss(output, target)
    assert inside == loss(output, target)


def test_warm_up():
    output, target = pair(2)
    loss, squares = FlexibleLoss("ssim+fft", epoch=3, warmup=5), FlexibleLoss("mse")(output, target)
    assert loss(output, target) == squares != loss(output, target, epoch=5)
    assert FlexibleLoss("ssim+fft", warmup=5)(output, target) == loss(output, target, epoch=5)


@pytest.mark.parametrize("mode, weights", [("mse+msssim", None), ("mse", {"l1": 1.0}), ("mse+MSE", None), ("", None)])
def test_nothing_is_trained_in_silence(mode, weights):
    with pytest.raises(DataError, match="unknown, unused or doubled"):
        FlexibleLoss(mode, weights)


@pytest.mark.parametrize("weight", [float("nan"), float("inf"), -1])
def test_weights_that_are_none(weight):
    with pytest.raises(DataError, match=f"'l1': {float(weight)}.* not numbers from 0 on"):
        FlexibleLoss("mse+l1", {"l1": weight})


def test_blanks_are_no_part_of_a_name():
    loss = FlexibleLoss("mse + L1 ", {" l1": 0.5})
    assert loss.weights == {"mse": 1.0, "l1": 0.5}


def seconds(function, output, target, repeats=5):
    best = float("inf")
    for _ in range(repeats):
        start = time.process_time()
        function(output, target).backward()
        best = min(best, time.process_time() - start)
    return best


def test_all_terms_cost_less_than_the_slowest_elsewhere():
    output, target = pair(3, n=64)
    output.requires_grad_()
    everything = seconds(FlexibleLoss("+".join(TERMS)), output, target)
    slowest = seconds(lambda o, t: reference_ms_ssim(o, t).mean(), output, target)
    assert everything <= 1.3 * slowest

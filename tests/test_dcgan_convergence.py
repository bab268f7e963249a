"""The convergence detector: each status reachable, healthy games left alone, nothing carried over by accident."""

import json
from dataclasses import asdict

import numpy as np
import pytest
import torch

from anomaly_nb.core import DataError
from anomaly_nb.dcgan.config import load_config
from anomaly_nb.dcgan.convergence import (
    ConvergenceDetector,
    detector_state,
    is_collapsed,
    restore_detector,
    sample_distances,
    swing,
)

QUICK = {"min_iterations": 100, "check_frequency": 20, "patience": 300}


def game(n, seed, correlation=0.7, spread=0.15):
    "Correlated noise around levels that drift slowly."
    noise = np.random.default_rng(seed).normal(0, 1, (n, 4))
    for i in range(1, n):
        noise[i] = correlation * noise[i - 1] + np.sqrt(1 - correlation**2) * noise[i]
    drift = np.exp(np.linspace(0, 0.3, n))[:, None] ** np.array([1, -1, 0, 0])
    return np.array([1.8, 0.8, 5.0, 2.0]) * np.exp(spread * noise) * drift


def statuses(run, detector=None, start=1):
    detector = detector or ConvergenceDetector(**QUICK)
    return [detector.update(i, *values) for i, values in enumerate(run, start)]


@pytest.mark.parametrize("correlation", [0.0, 0.5, 0.9, 0.97])
@pytest.mark.parametrize("spread", [0.1, 0.3])
def test_healthy_games_are_not_flagged(correlation, spread):
    for seed in range(8):
        assert set(statuses(game(600, seed, correlation, spread))) == {"training"}


def test_a_real_gan_in_good_health_is_not_flagged():
    "Two small networks that learn a ring of points: real losses, real gradient norms."
    torch.manual_seed(0)
    torch.set_num_threads(1)
    g = torch.nn.Sequential(torch.nn.Linear(8, 64), torch.nn.ReLU(), torch.nn.Linear(64, 2))
    d = torch.nn.Sequential(torch.nn.Linear(2, 64), torch.nn.LeakyReLU(0.2), torch.nn.Linear(64, 1))
    steps = [torch.optim.Adam(net.parameters(), 2e-4, (0.5, 0.999)) for net in (g, d)]
    bce, detector = torch.nn.functional.binary_cross_entropy_with_logits, ConvergenceDetector(**QUICK)
    seen = set()
    for i in range(1, 801):
        angle = torch.rand(64) * 6.2832
        real, fake = torch.stack([angle.cos(), angle.sin()], 1) + 0.05 * torch.randn(64, 2), g(torch.randn(64, 8))
        d_loss = bce(d(real), torch.ones(64, 1)) + bce(d(fake.detach()), torch.zeros(64, 1))
        steps[1].zero_grad()
        d_loss.backward()
        d_norm = torch.nn.utils.clip_grad_norm_(d.parameters(), 1e9)
        steps[1].step()
        g_loss = bce(d(fake), torch.ones(64, 1))
        steps[0].zero_grad()
        g_loss.backward()
        g_norm = torch.nn.utils.clip_grad_norm_(g.parameters(), 1e9)
        steps[0].step()
        seen.add(detector.update(i, g_loss.item(), d_loss.item(), float(g_norm), float(d_norm)))
    assert seen <= {"training", "converged"}


@pytest.mark.parametrize("column", range(4))
@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("enabled", [True, False])
def test_what_is_not_finite_is_seen_in_its_iteration_and_stays(column, value, enabled):
    run = game(60, 0)
    run[33, column] = value
    seen = statuses(run, ConvergenceDetector(**{**asdict(load_config().convergence), "enabled": enabled}))
    assert seen == ["training"] * 33 + ["diverged"] * 27


@pytest.mark.parametrize(("column", "level"), [(0, 300), (1, 300), (2, 6000), (3, 6000)])
def test_explosions_are_seen_within_five_iterations_also_between_checks(column, level):
    run = game(200, 1)
    run[107:, column] = level
    assert statuses(run).index("diverged") <= 112
    run[108:, column] = run[:92, column]  # a single peak is forgiven
    run[107, column] = level
    assert "diverged" not in statuses(run)


def test_convergence_needs_stillness_and_a_discriminator_that_errs():
    still = np.tile([0.69, 1.38, 0.1, 0.1], (400, 1))
    assert "converged" in statuses(still)
    creeping = still + np.linspace(0, 0.8, 400)[:, None] * [1, 1, 0, 0]
    assert "converged" not in statuses(creeping)
    won = np.tile([6.0, 0.0, 0.1, 0.1], (250, 1))
    assert "converged" not in statuses(won)


@pytest.mark.parametrize("period", [8, 20, 30])
@pytest.mark.parametrize("phase", [0.0, 1.0, 2.0])
def test_swings_are_found_and_the_rates_lowered(period, phase):
    run, detector = game(600, 2, spread=0.05), ConvergenceDetector(**QUICK)
    run[:, 0] *= 1 + 0.7 * np.sin(2 * np.pi * np.arange(600) / period + phase)
    assert "oscillating" in statuses(run, detector)
    assert detector.learning_rates()[0] < 0.5
    assert ConvergenceDetector(**QUICK, adaptive_learning_rate=False, memory=detector.memory).learning_rates() == (1, 1)


def test_a_perfect_discriminator_ends_the_training_after_the_patience():
    run = game(900, 3)
    run[300:, 1] = 1e-4
    run[300:, 0] = 8.0
    seen = statuses(run)
    assert 600 <= seen.index("early_stop") <= 660
    run[300:, 0] = np.linspace(20, 2, 600)  # the generator gains on it
    assert "early_stop" not in statuses(run)


def test_quality_without_improvement_ends_the_training():
    detector, run = ConvergenceDetector(**QUICK), game(800, 4)
    for i, values in enumerate(run, 1):
        if i % 50 == 0:
            assert detector.check_quality(i, max(10 - i / 50, 6)) == (i <= 200)
        status = detector.update(i, *values)
        assert (status == "early_stop") == (i >= 500), i
        if status == "early_stop":
            break
    assert detector.stop and "quality" in detector.memory.reason


def test_collapse_of_samples():
    real = np.random.default_rng(0).random((32, 1, 16, 16))
    assert not is_collapsed(real[:16], real[16:]) and not is_collapsed(real)
    assert is_collapsed(real[:1].repeat(16, 0)) and is_collapsed(real[:3].repeat(6, 0))
    assert is_collapsed(0.5 + 0.1 * (real - 0.5), real)
    detector = ConvergenceDetector(**QUICK)
    assert detector.check_samples(torch.from_numpy(real)) == "training"
    assert detector.check_samples(real[:1].repeat(8, 0)) == "mode_collapse"  # about the samples, not about the clock
    seen = statuses(game(150, 5), detector)
    assert set(seen[:99]) == {"training"} and set(seen[99:]) == {"mode_collapse"} and detector.learning_rates()[0] < 1
    assert detector.check_samples(real) == "training"
    assert detector.check_samples(real[:1].repeat(8, 0)) == "mode_collapse"
    assert detector.check_samples(real) == "training"
    assert statuses(game(150, 5), detector, 151)[-1] == "training"
    for i, values in enumerate(game(800, 6), 301):
        detector.check_samples(real[:1].repeat(8, 0))
        if detector.update(i, *values) == "early_stop":
            break
    assert detector.stop and 590 <= i <= 640
    assert ConvergenceDetector().check_samples(real * np.nan) == "diverged"


def test_collapse_to_two_pictures_and_to_shifts_of_one():
    rng = np.random.default_rng(0)
    real = rng.random((32, 1, 16, 16))
    two = real[:2].repeat(8, 0) + 0.05 * rng.standard_normal((16, 1, 16, 16))
    shifts = np.stack([np.roll(real[0], int(shift), axis=-1) for shift in range(16)])
    assert is_collapsed(two, real) and is_collapsed(shifts, real)
    for samples in (two, shifts):
        detector = ConvergenceDetector(iterations=400)
        assert detector.check_samples(samples, real) == "not_started"
        assert detector.check_samples(real[:16], real) == "training"
        assert detector.check_samples(samples, real) == "mode_collapse"


def test_collapse_in_the_embedding_is_relative_to_the_best():
    detector, seen = ConvergenceDetector(iterations=400), []
    for i, values in enumerate(game(400, 9), 1):
        if i % 40 == 0:
            detector.check_diversity(0.12 if i <= 120 else 0.4 if i == 160 else 0.9 if i < 280 else 0.42)
        seen.append(detector.update(i, *values))
    assert set(seen[:98]) == {"training"} and seen[125] == "not_started"
    assert set(seen[159:279]) == {"training"} and seen[279] == "mode_collapse"


BAD = {  # level of generator and discriminator loss and of their gradient norms; None leaves it
    "discriminator_won": (4.0, 1e-3, None, None),
    "generator_won": (0.01, 5.0, None, None),
    "stalled": (None, None, 1e-6, None),
}


@pytest.mark.parametrize("iterations", [400, 800, 3000, 8000])
@pytest.mark.parametrize("status", BAD)
def test_faults_are_told_within_a_hundred_iterations_in_runs_of_any_length(iterations, status):
    run, onset = game(iterations, 11), iterations // 4
    for column, level in enumerate(BAD[status]):
        if level is not None:
            run[onset:, column] = level
    seen = statuses(run[: onset + 101], ConvergenceDetector(iterations=iterations))
    assert set(seen[: onset + 1]) == {"training"} and seen[-1] == status


def test_dead_networks_have_not_started_and_one_spike_ends_nothing():
    dead = np.tile([np.log(2), 2 * np.log(2), 0.0, 0.0], (300, 1))
    assert statuses(dead, ConvergenceDetector(iterations=400))[-1] == "not_started"
    run = game(3000, 12)
    run[2000, 2] = 3e4
    assert set(statuses(run, ConvergenceDetector(iterations=3000))) == {"training"}


def test_slow_swings_and_slow_divergence():
    run = game(3000, 13, spread=0.05)
    run[:, 0] *= 1 + 0.7 * np.sin(2 * np.pi * np.arange(3000) / 150)
    assert "oscillating" in statuses(run, ConvergenceDetector(iterations=3000))
    rising = game(3000, 14)
    rising[:, 0] += np.arange(3000) / 100
    assert "diverged" in statuses(rising, ConvergenceDetector(iterations=3000))


def test_distances_equal_a_loop():
    samples = np.random.default_rng(1).random((7, 1, 5, 4))
    table = np.array([[np.sqrt(np.mean((a - b) ** 2)) for a in samples] for b in samples])
    mean, nearest = sample_distances(samples)
    assert mean == pytest.approx(table[np.triu_indices(7, 1)].mean(), rel=1e-12)
    assert nearest == pytest.approx(np.median((table + 9 * np.eye(7)).min(1)), rel=1e-12)
    with pytest.raises(DataError, match="at least 2"):
        sample_distances(samples[:1])


def test_a_state_is_json_and_a_new_detector_knows_nothing():
    run = game(700, 7)
    run[300:, 0] *= 1 + 0.7 * np.sin(np.arange(400) / 5)
    expected = statuses(run)
    first, second = ConvergenceDetector(**QUICK), ConvergenceDetector(**QUICK)
    seen = statuses(run[:433], first)
    assert second.memory.history == []
    restore_detector(second, json.loads(json.dumps(detector_state(first), allow_nan=False)))
    assert seen + statuses(run[433:], second, 434) == expected
    assert detector_state(second) != detector_state(ConvergenceDetector(**QUICK))
    with pytest.raises(DataError, match="Not the state"):
        restore_detector(second, {"loss_window": []})


def test_swing_of_what_does_not_swing():
    assert swing(np.full(100, 3.0)) == (0.0, 0.0)
    assert swing(np.linspace(0, 5, 100))[0] == 0.0

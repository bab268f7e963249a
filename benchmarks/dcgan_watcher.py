"""Crafted histories of trainings: how soon the watcher tells what is wrong, and whether it leaves good runs alone.

    python benchmarks/dcgan_watcher.py

22 bad histories and 8 healthy ones, each at lengths of 400 to 8,000 iterations. A fault begins at the half of the run
(`onset`), or with the run. It counts as told if a status that fits it is given within 100 iterations of the onset.
Pictures are looked at every 20 iterations where they are the fault. The watching ends 1,500 iterations after the onset.
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
from fastcore.script import call_parse

from anomaly_nb.core import generator
from anomaly_nb.dcgan.convergence import ConvergenceDetector

RESULTS = Path(__file__).parent / "results"
LENGTHS = (400, 800, 2000, 8000)
LOSSES = {"diverged", "generator_won", "discriminator_won", "stalled", "not_started", "oscillating", "early_stop"}
SAMPLES = {"mode_collapse", "not_started", "early_stop"}


def game(n: int, seed: int, correlation: float = 0.7, spread: float = 0.15) -> np.ndarray:
    "Losses and gradient norms of a good game (n, 4)."
    noise = generator(seed, 1).normal(0, 1, (n, 4))
    for i in range(1, n):
        noise[i] = correlation * noise[i - 1] + np.sqrt(1 - correlation**2) * noise[i]
    drift = np.exp(np.linspace(0, 0.3, n))[:, None] ** np.array([1, -1, 0, 0])
    return np.array([1.8, 0.8, 5.0, 2.0]) * np.exp(spread * noise) * drift


def levels(
    g_loss: float = np.nan, d_loss: float = np.nan, g_norm: float = np.nan, d_norm: float = np.nan
) -> np.ndarray:
    return np.array([g_loss, d_loss, g_norm, d_norm])


def step(*values: float, **named: float) -> Callable[[np.ndarray], np.ndarray]:
    "From the onset on, other levels with the noise of the game."
    new = levels(*values, **named)
    return lambda part: np.where(np.isnan(new), part, new * part / part.mean(axis=0))


def grow(column: int, rate: float) -> Callable[[np.ndarray], np.ndarray]:
    "From the onset on, exponential growth of one number, by `rate` an iteration."

    def change(part: np.ndarray) -> np.ndarray:
        part[:, column] *= np.exp(np.minimum(rate * np.arange(len(part)), 40))
        return part

    return change


def wave(period: float, size: float = 0.7) -> Callable[[np.ndarray], np.ndarray]:
    def change(part: np.ndarray) -> np.ndarray:
        part[:, 0] *= 1 + size * np.sin(2 * np.pi * np.arange(len(part)) / period)
        return part

    return change


def ramp(part: np.ndarray) -> np.ndarray:
    part[:, 0] += np.arange(len(part)) / 10
    return part


def dying(part: np.ndarray) -> np.ndarray:
    "The generator's gradients fade, tenfold in 20 iterations."
    part[:, 2] *= 10 ** (-np.arange(len(part)) / 20)
    return part


HISTORIES: dict[str, tuple[float, Callable[[np.ndarray], np.ndarray]]] = {  # onset as a share; change from there
    "dead networks": (0.0, lambda part: np.tile([np.log(2), 2 * np.log(2), 0.0, 0.0], (len(part), 1))),
    "discriminator perfect": (0.5, step(6.0, 1e-3)),
    "discriminator perfect from the start": (0.0, step(5.0, 0.01)),
    "discriminator perfect, small gradients": (0.5, step(8.0, 1e-4, 0.5, 1e-3)),
    "discriminator fooled": (0.5, step(0.01, 5.0)),
    "discriminator stuck at 8": (0.5, step(0.3, 8.0)),
    "discriminator worse than chance": (0.5, step(0.5, 3.0)),
    "generator gradients vanished": (0.5, step(g_norm=1e-5)),
    "generator gradients fade": (0.5, dying),
    "discriminator gradients vanished": (0.5, step(d_norm=1e-5)),
    "all gradients vanished": (0.5, step(g_norm=0.0, d_norm=0.0)),
    "generator loss explodes": (0.5, grow(0, 0.1)),
    "discriminator loss explodes": (0.5, grow(1, 0.1)),
    "gradients explode": (0.5, grow(2, 0.1)),
    "generator loss creeps up": (0.5, ramp),
    "no number": (0.5, step(np.inf)),
    "swing of 20": (0.5, wave(20)),
    "swing of 150": (0.5, wave(150)),
    "one picture": (0.5, lambda part: part),
    "two pictures": (0.5, lambda part: part),
    "shifts of one picture": (0.5, lambda part: part),
    "a paler picture": (0.5, lambda part: part),
}


def spike(row: int) -> Callable[[np.ndarray], np.ndarray]:
    def change(run: np.ndarray) -> np.ndarray:
        run[len(run) // 2, row] *= 6000
        return run

    return change


HEALTHY: dict[str, Callable[[int], np.ndarray]] = {
    "plain": lambda n: game(n, 1),
    "noisy": lambda n: game(n, 2, spread=0.3),
    "slow noise": lambda n: game(n, 3, correlation=0.95),
    "slow and noisy": lambda n: game(n, 4, correlation=0.9, spread=0.3),
    "white noise": lambda n: game(n, 5, correlation=0.0),
    "spike of gradients": lambda n: spike(2)(game(n, 6)),
    "spike of loss": lambda n: spike(0)(game(n, 7)),
    "discriminator ahead at first": lambda n: game(n, 8) * np.where(np.arange(n)[:, None] < 40, [2, 0.03, 1, 1], 1),
}


def samples_of(name: str, random: np.random.Generator) -> np.ndarray:
    "Sixteen pictures after the onset."
    real = pictures(16, random)
    noise = 0.02 * random.standard_normal(real.shape)
    if name == "one picture":
        return real[:1] + noise
    if name == "two pictures":
        return np.repeat(real[:2], 8, axis=0) + noise
    if name == "shifts of one picture":
        return np.stack([np.roll(real[0], int(shift), axis=-1) for shift in random.integers(0, 64, 16)]) + noise
    return 0.5 + 0.1 * (real - 0.5) if name == "a paler picture" else real


def pictures(n: int, random: np.random.Generator) -> np.ndarray:
    "Pictures of lines whose places, strengths and rhythms differ (n, 1, 64, 64)."
    rows, times = np.mgrid[:64, :64]
    found = []
    for _ in range(n):
        pitch, rhythm, phase, bright = random.uniform([4, 0.2, 0, 0.4], [14, 1.5, 6, 1.0])
        found.append(
            bright * (0.5 + 0.5 * np.cos(2 * np.pi * rows / pitch)) * (0.7 + 0.3 * np.sin(rhythm * times + phase))
        )
    return np.array(found)[:, None]


def watch(run: np.ndarray, name: str, onset: int) -> list[str]:
    "Status of each iteration, up to the end."
    watcher, random, statuses = ConvergenceDetector(iterations=len(run)), generator(9, len(run)), list[str]()
    real = pictures(64, generator(8))
    for i, values in enumerate(run, 1):
        if i % 20 == 0 and "pict" in name:
            watcher.check_samples(samples_of(name if i > onset else "", random), real)
        statuses.append(watcher.update(i, *values))
        if watcher.stop or i > onset + 1500:
            break
    return statuses


@call_parse
def main() -> None:
    rows = []
    for n in LENGTHS:
        for seed, (name, (share, change)) in enumerate(HISTORIES.items()):
            run, onset = game(n, 100 + seed), int(share * n)
            with np.errstate(all="ignore"):
                run[onset:] = change(run[onset:].copy())
            statuses, fits = watch(run, name, onset), SAMPLES if "picture" in name else LOSSES
            told = next((i for i in range(onset, len(statuses)) if statuses[i] in fits), None)
            early = any(status != "training" for status in statuses[:onset])
            delay = None if told is None else told + 1 - onset
            rows.append({"length": n, "history": name, "status": "" if told is None else statuses[told]})
            rows[-1] |= {"delay": delay, "within_100": delay is not None and delay <= 100, "alarm_before": early}
        for name, make in HEALTHY.items():
            flagged = sorted(set(watch(make(n), "", n)) - {"training"})
            rows.append({"length": n, "history": f"healthy: {name}", "status": " ".join(flagged), "within_100": False})
            rows[-1] |= {"delay": None, "alarm_before": bool(flagged)}
    table = pd.DataFrame(rows)
    table.to_csv(RESULTS / "dcgan_watcher.csv", index=False, float_format="%.4g")
    bad = ~table["history"].str.startswith("healthy")
    told = table[bad].groupby("length")[["within_100", "alarm_before"]].sum()
    print(told.assign(healthy_flagged=table[~bad].groupby("length")["alarm_before"].sum()).to_string())
    missed = table[bad & ~table["within_100"]]
    print(missed.to_string(index=False), table[~bad & table["alarm_before"]].to_string(index=False), sep="\n")

"""Speed of the time-series detectors, in multiples of a bare Fourier transform forth and back in the same run."""

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from scipy import fft
from timing import machine, median_seconds, peak_bytes

from anomaly_nb.srcnn import SRCNN, SpectralResidual, extend_series, spectral_residual
from anomaly_nb.srcnn.network import SRCNNNetwork

RESULTS = Path(__file__).parent / "results"
N = 10**6


def fft_pair(values: np.ndarray) -> np.ndarray:
    return fft.irfft(fft.rfft(values), len(values))


def batch_rows() -> dict[str, tuple[float, str]]:
    "A million points: saliency, score, table, peak memory."
    from pyod.models.ts_spectral_residual import SpectralResidual as PyODSpectralResidual

    noise = np.random.default_rng(0).normal(size=N)
    peer = PyODSpectralResidual().fit(noise[:1000, None])
    transforms = median_seconds(
        {
            "pair": lambda: fft_pair(noise),
            "saliency": lambda: spectral_residual(noise),
            "peer": lambda: peer.decision_function(noise[:, None]),
        },
        15,
    )
    season = noise + 5 * np.sin(2 * np.pi * np.arange(N) / 288)
    flat, seasonal = SpectralResidual(period=1).fit(noise), SpectralResidual(period=288).fit(season)
    seconds = median_seconds(
        {
            "pair": lambda: fft_pair(noise),
            "score": lambda: flat.decision_function(noise),
            "score, season": lambda: seasonal.decision_function(season),
            "detect": lambda: flat.detect(noise),
            "detect, season": lambda: seasonal.detect(season),
        }
    )
    unit = seconds["pair"]
    long = np.random.default_rng(1).normal(size=10**7)
    return {
        "saliency / FFT pair": (transforms["saliency"] / transforms["pair"], "<= 1.7"),
        "PyOD SR / saliency": (transforms["peer"] / transforms["saliency"], ">= 3"),
        "score / FFT pair, no season": (seconds["score"] / unit, "<= 5"),
        "score / FFT pair, with season": (seconds["score, season"] / unit, "<= 9"),
        "detect / score, no season": (seconds["detect"] / seconds["score"], "<= 2"),
        "detect / score, with season": (seconds["detect, season"] / seconds["score, season"], "<= 2"),
        "peak memory of detect / input, 10^7 points": (
            peak_bytes(lambda: seasonal.detect(long)) / long.nbytes,
            "<= 10",
        ),
    }


def stream_rows(window: int = 1440, updates: int = 20_000) -> dict[str, tuple[float, str]]:
    "Streaming updates with filters as long as a day of minutes; memory over a million updates."
    values = np.random.default_rng(2).normal(size=20 * window)
    scorer = SpectralResidual(period=1, filter_length=window).fit(values).stream(values)
    new, day = np.random.default_rng(3).normal(size=updates).tolist(), values[:window].copy()
    seconds = median_seconds(
        {
            "pair": lambda: [fft_pair(day) for _ in range(updates // 10)],
            "update": lambda: [scorer.update(value) for value in new] and None,
        }
    )
    few = peak_bytes(lambda: [scorer.update(value) and None for value in new[:1000]])
    many = peak_bytes(lambda: any(scorer.update(float("inf") if i < 0 else 0.1) is None for i in range(N)))
    return {
        "update / FFT pair of 1440": (seconds["update"] / seconds["pair"] / 10, "<= 3"),
        "memory growth over 10^6 updates, kB": (max(0, many - few) / 1000, "flat"),
    }


def listed_saliency(values: np.ndarray) -> np.ndarray:
    "The saliency of one window with Python lists, as the published evaluation computes it."
    spectrum = np.fft.fft(values)
    amplitude = [abs(each) for each in spectrum]
    log = [math.log(each) if each > 1e-8 else 0.0 for each in amplitude]
    mean = [sum(log[max(0, i - 2) : i + 1]) / min(i + 1, 3) for i in range(len(log))]
    gain = [
        each * math.exp(one - other) / size if size > 1e-8 else 0.0
        for each, one, other, size in zip(spectrum, log, mean, amplitude, strict=True)
    ]
    return np.array([abs(each) for each in np.fft.ifft(gain)])


def network_rows(window: int = 128, points: int = 20_000, looped: int = 400) -> dict[str, tuple[float, str]]:
    "The published network over every point, on all cores: one batched pass against loops over points."
    torch.manual_seed(0)
    network = SRCNNNetwork(window).eval()
    detector = SRCNN.from_network(network)
    values = np.random.default_rng(4).normal(size=points)

    def loop(saliency: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
        scores = []
        with torch.inference_mode():
            for newest in range(window, window + looped):
                inputs = 100 * saliency(extend_series(values[newest + 6 - window : newest + 1]))
                scores.append(network(torch.tensor(inputs, dtype=torch.float32)[None])[0, window - 6].item())
        return np.array(scores)

    batched = detector.decision_function(values)
    seconds = median_seconds(
        {
            "published": lambda: loop(listed_saliency),
            "fast": lambda: loop(spectral_residual),
            "batch": lambda: detector.decision_function(values),
        },
        5,
    )
    per_point = seconds["batch"] / points
    difference = float(np.abs(loop(listed_saliency) - batched[window : window + looped]).max())
    return {
        "SRCNN, published loop / batched pass, window 128": (seconds["published"] / looped / per_point, ">= 50"),
        "SRCNN, loop on fast saliency / batched pass": (seconds["fast"] / looped / per_point, ""),
        "largest difference of the two": (difference, "<= 1e-6"),
    }


def main() -> None:
    rows = batch_rows() | stream_rows() | network_rows()
    table = pd.DataFrame.from_dict(rows, orient="index", columns=["measured", "bar"]).rename_axis("what")
    table.to_csv(RESULTS / "srcnn_speed.csv", float_format="%.3g")
    print(f"\nsrcnn_speed ({machine()})\n{table.to_string(float_format='{:.3g}'.format)}")


if __name__ == "__main__":
    main()

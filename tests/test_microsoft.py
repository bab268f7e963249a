"""`microsoft_sr` against a plain transcription of the published formulas, loops and all, in every column."""

import bisect

import numpy as np
import pytest

from anomaly_nb.core import DataError
from anomaly_nb.srcnn import average_filter, load_kpi, microsoft_sr, spectral_residual
from anomaly_nb.srcnn.microsoft import running_median

EPS = 1e-8


def trailing_mean(values, n):
    return np.array([np.mean(values[max(0, i - n + 1) : i + 1]) for i in range(len(values))])


def reference_saliency(values, q):
    spectrum = np.fft.fft(values)
    amplitude = np.abs(spectrum)
    silent = amplitude <= EPS
    log = np.where(silent, 0.0, np.log(np.where(silent, 1.0, amplitude)))
    residual = np.exp(log - trailing_mean(log, q))
    spectrum = np.where(silent, 0, spectrum * residual / np.where(silent, EPS, amplitude))
    return np.abs(np.fft.ifft(spectrum))


def reference_extension(values):
    p = values[-7:-1]
    slopes = [(p[-1] - p[i]) / (len(p) - 1 - i) for i in range(len(p) - 1)]
    return np.concatenate([values, [p[1] + sum(slopes)] * 5])


def reference_scores(values, threshold=0.3, mag_window=3, score_window=40):
    saliency = reference_saliency(reference_extension(values), mag_window)
    mean = trailing_mean(saliency, score_window)
    score = np.clip(np.abs(saliency - mean) / np.maximum(mean, EPS) / 10, 0, 1)[: len(values)]
    return saliency[: len(values)], score, score > threshold


def reference_factors():
    factors = [1.0]
    for i in range(50):
        factors.append(factors[-1] / (1.15 + 0.001 * i if i < 40 else 1.25 + 0.01 * i))
    for i in range(50):
        factors.insert(0, factors[0] * (1.25 + 0.001 * i))
    return factors


def reference_medians(values, window):
    "A sorted list in single precision; in its shrinking tail the value that leaves is looked up in double precision."
    n, half, single = len(values), window // 2, values.astype(np.float32)
    middle = [np.median(single[max(0, i - half) : i + half + 1]) for i in range(n - half)]
    cells, live = sorted(single[n - 2 * half - 1 :]), 2 * half + 1
    for i in range(n - half, n):
        place = bisect.bisect_right([float(cell) for cell in cells[:live]], float(values[i - half - 1])) - 1
        while place < live - 1:
            cells[place] = cells[place + 1]  # from -1 on this overwrites the last cell first
            place += 1
        live -= 1
        middle.append((cells[(live - 1) // 2] + cells[live // 2]) / np.float32(2))
    return np.array(middle, np.float64)


def reference_margin(values, flagged, sensitivity):
    n = len(values)
    replaced = values.copy()
    for i in np.flatnonzero(flagged):
        reach = 1
        while True:
            span = range(max(i - reach, 0), min(i + reach, n - 1) + 1)
            near = [j for j in span if not flagged[j]]
            if len(near) >= 4 or (span[0] == 0 and span[-1] == n - 1):
                break
            reach += 2
        if len(near) > 1:
            matrix = np.stack([np.array(near, float), np.ones(len(near))], axis=1)
            slope, level = np.linalg.lstsq(matrix, values[near], rcond=None)[0]
            replaced[i] = slope * i + level
    spectrum = np.fft.fft(replaced)
    k = np.arange(n)
    spectrum[(k > 3 * n / 8) & (k < 5 * n / 8)] = 0
    expected = np.fft.ifft(spectrum).real
    trend = np.abs(reference_medians(values, min(n // 3, 512)))
    unit = np.maximum(0.5 * trend + 0.5 * trend[~flagged].mean(), 1.0)
    factors = reference_factors()
    lower = int(sensitivity)
    factor = (
        0.0
        if sensitivity == 100
        else factors[lower + 1] + (factors[lower] - factors[lower + 1]) * (1 - sensitivity + lower)
    )
    scores = []
    for value, wanted, u, alarm in zip(values, expected, unit, flagged, strict=True):
        margins = [u * factors[s] if s < 100 else 0.0 for s in range(101)][::-1]
        distance = abs(wanted - value)
        above = bisect.bisect_left(margins, distance)
        if not alarm or above == 0:
            scores.append(0.0)
        elif above >= 100:
            scores.append(1.0)
        else:
            gap = (distance - margins[above - 1]) / (margins[above] - margins[above - 1])
            scores.append((above - 1 + gap) / 100)
    outside = (values < expected - unit * factor) | (values > expected + unit * factor)
    bounds = {"expected_value": expected, "unit": unit, "lower": expected - unit * factor}
    return bounds | {"upper": expected + unit * factor, "score": np.array(scores), "is_anomaly": flagged & outside}


@pytest.fixture(scope="module")
def series():
    random = np.random.default_rng(0)
    kpi = load_kpi()[1].series.to_numpy()[10_000:11_000]
    wave = 100 * np.sin(np.arange(600) / 7) + random.normal(0, 3, 600)
    wave[[100, 101, 102, 103, 104, 400]] += 300
    return {"kpi": 50 * kpi, "wave": wave, "noise": random.normal(size=127), "short": random.normal(size=12)}


@pytest.mark.parametrize("name", ["kpi", "wave", "noise", "short"])
@pytest.mark.parametrize("windows", [(3, 40), (1, 21), (10, 100)])
def test_scores_are_the_published_ones(series, name, windows):
    values = series[name]
    table = microsoft_sr(values, mag_window=windows[0], score_window=windows[1])
    saliency, score, alarms = reference_scores(values, 0.3, *windows)
    np.testing.assert_allclose(table["mag"], saliency, atol=1e-8)
    np.testing.assert_allclose(table["score"], score, atol=1e-8)
    np.testing.assert_array_equal(table["is_anomaly"], alarms)


def check_columns(table, values, **given):
    saliency, _, flagged = reference_scores(values)
    wanted = {"value": values, "mag": saliency} | reference_margin(values, flagged, **given)
    assert set(table.columns) == {"timestamp", *wanted}
    for column, numbers in wanted.items():
        np.testing.assert_allclose(table[column].astype(float), numbers, rtol=1e-9, atol=1e-8, err_msg=column)


@pytest.mark.parametrize("name", ["kpi", "wave", "noise", "short"])
@pytest.mark.parametrize("sensitivity", [100, 99, 60.5, 20])
def test_every_column_is_the_published_one(series, name, sensitivity):
    values = series[name]
    check_columns(microsoft_sr(values, margin=True, sensitivity=sensitivity), values, sensitivity=sensitivity)
    assert reference_scores(series["wave"])[2].any()


def test_every_column_of_a_batch_is_the_published_one(series):
    values = series["kpi"][:500]
    table = microsoft_sr(values, margin=True, batch_size=125)
    for start in range(0, 500, 125):
        part = table[start : start + 125]
        check_columns(part, values[start : start + 125], sensitivity=99)


@pytest.mark.parametrize("decimals", [0, 1, 3, 7])
def test_the_published_window_loses_wrong_values_at_its_end(decimals):
    changed = 0
    for seed in range(100):
        random = np.random.default_rng(seed)
        values = np.round(random.normal(size=random.integers(12, 80)), decimals)
        window = len(values) // 3
        medians = running_median(values, window)
        np.testing.assert_array_equal(medians, reference_medians(values, window))
        changed += medians[-1] != np.median(values[-1 - window // 2 :].astype(np.float32))
    assert (changed > 0) == (decimals > 0)  # whole numbers are not rounded


@pytest.mark.parametrize("batch_size", [12, 100, 333])
def test_batches_are_judged_alone(series, batch_size):
    values = series["wave"][:400]
    table = microsoft_sr(values, batch_size=batch_size)
    for start in range(0, 400 - batch_size + 1, batch_size):
        alone = microsoft_sr(values[start : start + batch_size])
        np.testing.assert_array_equal(table["score"][start : start + batch_size], alone["score"])


def test_saliency_of_hostile_input():
    assert np.isfinite(spectral_residual(np.random.default_rng(0).normal(size=100) * 1e98)).all()
    with pytest.raises(DataError, match="index 1"):
        spectral_residual([1.0, np.nan, 2.0])
    with pytest.raises(DataError, match="at least 12"):
        microsoft_sr([1.0] * 11)


@pytest.mark.parametrize("n", [1, 2, 3, 4, 7, 8, 9, 20, 31, 60, 64, 1000])
@pytest.mark.parametrize("length", [1, 5, 60])
def test_a_trailing_mean_is_that_of_its_points(n, length):
    values = 5 + np.random.default_rng(0).normal(size=length)
    np.testing.assert_allclose(average_filter(values, n), trailing_mean(values, n), rtol=1e-14)
    values[0] = 1e17  # forgotten as soon as it is out of the window
    np.testing.assert_allclose(average_filter(values, n)[n:], trailing_mean(values, n)[n:], rtol=1e-14)


@pytest.mark.parametrize("margin", [False, True])
@pytest.mark.parametrize(
    "name, values",
    [
        ("mag_window", (0, 1.5)),
        ("score_window", (0, 1.5)),
        ("threshold", (np.nan, -1)),
        ("sensitivity", (np.nan, -1, 101)),
    ],
)
def test_settings_that_judge_nothing(series, margin, name, values):
    for value in values:
        with pytest.raises(DataError, match=f"^{name} is {value}; it must be a"):
            microsoft_sr(series["noise"], margin=margin, **{name: value})


def test_a_mean_of_no_points():
    with pytest.raises(DataError, match=r"^n is 0; it must be a whole number, at least 1"):
        average_filter([1.0, 2.0], 0)
    with pytest.raises(DataError, match=r"^mag_window is 0"):
        spectral_residual(np.arange(20.0), 0)

"""How well the time-series detectors find real anomalies, beside baselines.

KPI curves: fit on the first half without labels, judge the second half; delay-7 F1 pooled over both curves, with the
best common threshold and with each detector's own. NAB: each series judged by itself, mean average precision and
VUS-PR over the curves that have an anomaly. No label takes part in any fit.
"""

import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
from tqdm.auto import tqdm

from anomaly_nb.metrics import average_precision, best_delay_f1, bootstrap_mean, delay_f1, vus_pr
from anomaly_nb.srcnn import SRCNN, SpectralResidual, load_kpi, load_nab, microsoft_sr
from anomaly_nb.srcnn.baselines import BASELINES, in_tail_units

RESULTS = Path(__file__).parent / "results"
Scores = tuple[np.ndarray, float | None]  # of the judged series, and the detector's own threshold if it has one


def ours(make: Callable[[], SpectralResidual | SRCNN]) -> Callable[[pd.Series, pd.Series], Scores]:
    def score(train: pd.Series, test: pd.Series) -> Scores:
        detector = make().fit(train)
        scores = detector.decision_scores_ if test is train else detector.decision_function(test)
        return scores, detector.threshold_

    return score


def plain(function: Callable[[pd.Series], np.ndarray], threshold: float | None = None):
    "A score without training, and a fixed threshold if it has one."
    return lambda train, test: (np.asarray(function(test)), threshold)


def scaled(function: Callable[[pd.Series], np.ndarray]) -> Callable[[pd.Series, pd.Series], Scores]:
    "A score without training, in units of a threshold for the tail of what it finds in the first half."
    return lambda train, test: (in_tail_units(function, train, test), 1.0)


def pyod_sr(series: pd.Series) -> np.ndarray:
    from pyod.models.ts_spectral_residual import SpectralResidual as PyODSpectralResidual

    return PyODSpectralResidual().fit(series.to_numpy()[:, None]).decision_scores_


def matrix_profile(series: pd.Series, window: int = 100) -> np.ndarray:
    import stumpy

    profile = stumpy.stump(series.to_numpy().astype(float), window)[:, 0].astype(float)
    profile[~np.isfinite(profile)] = 0  # a constant stretch has no distance
    return np.pad(profile, (window // 2, len(series) - len(profile) - window // 2), mode="edge")


def detectors() -> dict[str, Callable[[pd.Series, pd.Series], Scores]]:
    table = {
        "SpectralResidual": ours(SpectralResidual),
        "SRCNN": ours(SRCNN),
        "Microsoft SR": plain(lambda series: microsoft_sr(series)["score"], 0.3),
        **{name: scaled(function) for name, function in BASELINES.items()},
        "PyOD SR": plain(pyod_sr),
    }
    try:
        import stumpy  # noqa: F401
    except ImportError:
        print("stumpy is not installed: no row for the matrix profile (pip install '.[peers]')")
        return table
    return table | {"matrix profile (stumpy)": scaled(matrix_profile)}


def kpi_table() -> pd.DataFrame:
    "Delay-7 F1 on the second halves of the KPI curves."
    curves, rows = load_kpi(), {}
    for name, score in tqdm(detectors().items(), desc="KPI", disable=None):
        judged = [score(first.series, second.series) for first, second in (curve.halves() for curve in curves)]
        labels = [curve.halves()[1].truth for curve in curves]
        row = {"best F1": best_delay_f1(labels, [scores for scores, _ in judged], 7)[0]}
        if judged[0][1] is not None:
            row["own F1"] = delay_f1(labels, [scores > threshold for scores, threshold in judged], 7)[0]
        rows[name] = row
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("detector")


def nab_series() -> pd.DataFrame:
    "Average precision and VUS-PR of each detector on each NAB curve that has an anomaly."
    curves = load_nab()
    network = SRCNN().fit([curve.series for curve in curves[::2]])  # the curves at even places are new to it
    scorers = detectors() | {"SRCNN": plain(network.decision_function)}
    rows = []
    for place, curve in enumerate(tqdm(curves, desc="NAB", disable=None)):
        if not curve.truth.any():
            continue
        for name, score in scorers.items():
            scores, _ = score(curve.series, curve.series)
            figures = {"AP": average_precision(curve.truth, scores), "VUS-PR": vus_pr(curve.truth, scores, 100)}
            rows.append({"curve": curve.name, "new": place % 2 == 1, "detector": name} | figures)
    return pd.DataFrame(rows)


def nab_table(series: pd.DataFrame) -> pd.DataFrame:
    "Means with 95 % bootstrap intervals; curves at odd places were looked at while building, the new ones never."
    rows = {}
    for name, group in series.groupby("detector", sort=False):
        mean, low, high = bootstrap_mean(group["AP"])
        new, volume = group.loc[group["new"], "AP"].mean(), group["VUS-PR"].mean()
        rows[name] = {"AP": mean, "low": low, "high": high, "AP of new curves": new, "VUS-PR": volume}
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("detector")


def duel(series: pd.DataFrame, one: str, other: str) -> pd.DataFrame:
    "Share of new NAB curves on which one detector ranks better than another, and the mean difference."
    wide = series[series["new"]].pivot(index="curve", columns="detector", values="AP")
    share, difference = bootstrap_mean(wide[one] > wide[other]), bootstrap_mean(wide[one] - wide[other])
    rows = {f"share of new curves with {one} above {other}": share, f"mean AP, {one} - {other}": difference}
    return pd.DataFrame.from_dict(rows, orient="index", columns=["value", "low", "high"]).rename_axis("what")


def main() -> None:
    warnings.simplefilter("ignore")
    kpi, series = kpi_table(), nab_series()
    tables = {
        "srcnn_kpi": kpi,
        "srcnn_nab": nab_table(series),
        "srcnn_duel": pd.concat(
            [duel(series, "SRCNN", "SpectralResidual"), duel(series, "SpectralResidual", "Microsoft SR")]
        ),
    }
    for name, table in tables.items():
        table.round(4).to_csv(RESULTS / f"{name}.csv")
        print(f"\n{name}\n{table.round(3).to_string()}")


if __name__ == "__main__":
    main()

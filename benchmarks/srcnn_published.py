"""VUS-PR on 24 series of a public benchmark beside its 32 published rows, and what own thresholds find.

Nothing is chosen here. `python srcnn_published.py --ucr FOLDER` adds files of the UCR anomaly archive, which state no
licence and are not bundled.
"""

from pathlib import Path

import numpy as np
import pandas as pd
from fastcore.script import call_parse

from anomaly_nb.metrics import segments
from anomaly_nb.srcnn import SeriesDetector, SpectralResidual, SubsequenceDetector
from anomaly_nb.srcnn.benchmark import (
    OURS,
    LabelledSeries,
    compare_published,
    duel_published,
    judge_series,
    load_telemetry,
    load_tsbad_nab,
)
from anomaly_nb.srcnn.subsequences import heartbeats, join_runs

RESULTS = Path(__file__).parent / "results"
KINDS = {kind.__name__: kind for kind in (SeriesDetector, SubsequenceDetector, SpectralResidual)}


def read_ucr(folder: Path) -> list[LabelledSeries]:
    "Series of the UCR archive, whose names end with the train length and the ends of the one anomaly."
    found = []
    for path in sorted(folder.glob("*_UCR_Anomaly_*.txt*")):
        train, start, end = (int(part) for part in path.name.partition(".")[0].split("_")[-3:])
        values = np.loadtxt(path).ravel()
        labels = np.zeros(len(values), bool)
        labels[start : end + 1] = True
        found.append(LabelledSeries(path.name.partition(".")[0], "UCR", values, labels, train))
    return found


def beats() -> list[LabelledSeries]:
    "Eight synthetic curves that beat like hearts, three beats of each in another form."
    made = {seed: heartbeats(seed=seed) for seed in range(8)}
    return [LabelledSeries(f"heartbeats {seed}", "heartbeats", *curve) for seed, curve in made.items()]


def alarms(series: list[LabelledSeries], name: str) -> dict[str, object]:
    "Events hit by the own threshold, and incidents outside them and the hundred points beside, per 10,000 points."
    hit = total = false = 0
    for each in series:
        marked = KINDS[name]().fit(each.values).labels_ == 1
        events = segments(each.labels)
        hit, total = hit + sum(bool(marked[start:end].any()) for start, end in events), total + len(events)
        for start, end in join_runs(marked, 50):
            false += not each.labels[max(0, start - 100) : end + 100].any()
    points = sum(len(each.values) for each in series)
    return {"detector": name, "events": total, "hit": hit, "false per 10^4": 1e4 * false / points}


@call_parse
def main(
    ucr: str = "",  # Folder with files of the UCR anomaly archive
) -> None:
    "Measure, print and keep."
    groups = {"telemetry": load_telemetry(), "NAB": load_tsbad_nab(), "heartbeats": beats()}
    groups |= {"UCR": read_ucr(Path(ucr))} if ucr else {}
    public = pd.concat([judge_series(each) for name in ("telemetry", "NAB") for each in groups[name]])
    others = pd.concat(
        [judge_series(each, OURS) for name in groups if name not in set(public["group"]) for each in groups[name]]
    )
    found = pd.concat([public, others])
    found.round(4).to_csv(RESULTS / "srcnn_published.csv", index=False)
    duels = pd.concat({group: duel_published(some) for group, some in public.groupby("group")}, names=["group"])
    duels.round(4).to_csv(RESULTS / "srcnn_published_duels.csv")
    rows = [{"group": group} | alarms(series, name) for group, series in groups.items() for name in KINDS]
    pd.DataFrame(rows).round(2).to_csv(RESULTS / "srcnn_published_alarms.csv", index=False)
    for group, some in public.groupby("group"):
        print(f"\n{group}, mean VUS-PR\n{compare_published(some).head(9).round(3).to_string()}")
    print(f"\n{others.pivot_table(index='group', columns='detector', values='vus_pr').round(3).to_string()}")
    print(f"\n{duels.groupby('group').head(3).round(3).to_string()}\n\n{pd.DataFrame(rows).round(2).to_string()}")

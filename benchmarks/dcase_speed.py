"""Costs of the machine-sound chapter: log-mel beside librosa and a bare FFT, memory of the study and of a codebook."""

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import librosa
import numpy as np
import pandas as pd
import torch
from timing import peak

from anomaly_nb.audio import log_mel

RESULTS = Path(__file__).parent / "results"


def cpu_seconds(functions: dict[str, Callable[[], object]], rounds: int = 15) -> dict[str, float]:
    "Least processor time of each function; they take turns, so that a noisy moment touches all of them."
    best = dict.fromkeys(functions, float("inf"))
    for _ in range(rounds):
        for name, function in functions.items():
            start = time.process_time()
            function()
            best[name] = min(best[name], time.process_time() - start)
    return best


def speed() -> dict[str, float]:
    "Clips of ten seconds on one core: 32, more than the cache holds, and 8, whose frames stay in it for the bare FFT."
    return timed(32) | {"the same for 8 clips": timed(8)[BARE]}


BARE = "log-mel over a bare float32 FFT of the frames"


def timed(clips: int) -> dict[str, float]:
    audio = np.random.default_rng(0).normal(size=(clips, 160_000)).astype(np.float32) / 10
    padded = np.pad(audio, ((0, 0), (512, 512)), mode="reflect")
    view = np.lib.stride_tricks.sliding_window_view(padded, 1024, axis=1)[:, ::512]
    frames = torch.from_numpy(np.ascontiguousarray(view))

    def by_librosa() -> None:
        for clip in audio[:8]:
            options = {"n_fft": 1024, "hop_length": 512, "htk": True, "norm": None, "pad_mode": "reflect"}
            librosa.power_to_db(librosa.feature.melspectrogram(y=clip, sr=16000, **options), top_db=80)

    functions = {
        "own": lambda: log_mel(audio),
        "fft": lambda: [torch.fft.rfft(f) for f in frames],
        "librosa": by_librosa,
    }
    seconds = cpu_seconds(functions)
    return {
        "log-mel, ms a clip": seconds["own"] / clips * 1e3,
        "librosa over log-mel": seconds["librosa"] / 8 / (seconds["own"] / clips),
        BARE: seconds["own"] / seconds["fft"],
    }


def study(folder: str) -> float:
    "Megabytes above the imports."
    from anomaly_nb.dcase.study import SpectrogramStudy
    from anomaly_nb.metrics import roc_auc

    log_mel(np.zeros((8, 160_000)))
    roc_auc([0, 1], [0.0, 1.0])  # loads scikit-learn
    before = peak()
    SpectrogramStudy(folder).run().table()
    return peak() - before


def many_clips(folder: Path) -> int:
    "The official numbers of clips of a fan, as links to 72 different ones."
    from anomaly_nb.dcase.machines import synthesize_machines

    synthesize_machines(folder, ["fan"], 4, 6, 6, 6)
    copies = {"train": 154, "normal": 17, "anomaly": 61}
    for path in sorted(folder.glob("fan/t*/*.wav")):
        stem, number = path.stem.rsplit("_", 1)
        for i in range(1, copies["train" if path.parent.name == "train" else stem.split("_")[0]]):
            os.link(path, path.with_name(f"{stem}_{int(number) + 100 * i:08d}.wav"))
    return len(list(folder.glob("fan/t*/*.wav")))


def codes(form: str) -> float:
    "Megabytes for quantising a batch of 32 pictures with 4,096 entries of 128 numbers."
    from anomaly_nb.dcase.vqvae import nearest_codes

    torch.manual_seed(0)
    vectors, codebook = torch.randn(32 * 32 * 80, 128), torch.randn(4096, 128)
    before = peak()
    if form == "one-hot":
        chosen = (vectors.pow(2).sum(1, keepdim=True) + codebook.pow(2).sum(1) - 2 * vectors @ codebook.T).argmin(dim=1)
        hot = torch.zeros(len(chosen), 4096).scatter_(1, chosen[:, None], 1)
        sums, quantised = hot.T @ vectors, hot @ codebook
    else:
        chosen = nearest_codes(vectors, codebook)
        sums, quantised = torch.zeros(4096, 128).index_add_(0, chosen, vectors), codebook[chosen]
    print(
        int((chosen * torch.arange(len(chosen))).sum()), round(float(sums.sum() + quantised.sum()), 0), file=sys.stderr
    )
    return peak() - before


def in_own_process(*arguments: str) -> float:
    return float(subprocess.check_output([sys.executable, str(Path(__file__).resolve()), *arguments], text=True))


def main() -> None:
    torch.set_num_threads(1)
    figures = speed()
    with tempfile.TemporaryDirectory() as folder:
        clips = many_clips(Path(folder))
        figures[f"study of {clips:,} clips, MB above the imports"] = in_own_process("study", folder)
    memory = {form: in_own_process("codes", form) for form in ("one-hot", "chunks")}
    figures["codes of a batch of 32, MB"] = memory["chunks"]
    figures["the same over the one-hot form"] = memory["chunks"] / memory["one-hot"]
    table = pd.DataFrame(figures.items(), columns=["what", "figure"])
    table.to_csv(RESULTS / "dcase_speed.csv", index=False, float_format="%.3g")
    print(table.to_string(index=False, float_format="%.3g"))


if __name__ == "__main__":
    torch.set_num_threads(1)
    if len(sys.argv) > 1:
        print({"study": study, "codes": codes}[sys.argv[1]](sys.argv[2]))
    else:
        main()

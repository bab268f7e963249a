"""Most memory that a task takes beside a peer, above what was in use before it; each in a process of its own."""

import os
import subprocess
import sys
import tempfile
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import pandas as pd
import torch
from timing import fresh_peak, machine, peak

HERE = Path(__file__).parent
RESULTS = HERE / "results"
Pair = tuple[Callable[[], object], Callable[[], object]]  # ours, the peer's


def saliency() -> Pair:
    "A million points."
    from pyod.models.ts_spectral_residual import SpectralResidual

    from anomaly_nb.srcnn import spectral_residual

    noise = np.random.default_rng(0).normal(size=10**6)
    peer = SpectralResidual().fit(noise[:1000, None])
    return lambda: spectral_residual(noise), lambda: peer.decision_function(noise[:, None])


def reading() -> Pair:
    "Three hundred files; specutils keeps the list that it has read."
    from specutils import Spectrum

    from anomaly_nb.datasets import sample_path
    from anomaly_nb.spectra import load_sdss_objects, read_sdss, to_rest_frame

    objects, folder = load_sdss_objects(), Path(tempfile.mkdtemp(dir=os.environ["BENCHMARK_FOLDER"]))
    names = objects.ids[(objects.classes == "GALAXY") & (objects.z < 0.3)]
    files = [folder / f"{name}-{copy}.fits" for copy in range(-(-300 // len(names))) for name in names][:300]
    with zipfile.ZipFile(sample_path("spectra/sdss_objects.zip")) as archive:
        for file in files:
            file.write_bytes(archive.read(f"{file.stem.rsplit('-', 1)[0]}.fits"))
    own = lambda: to_rest_frame(read_sdss(files))  # noqa: E731
    return own, lambda: [Spectrum.read(file, format="SDSS-III/IV spec") for file in files]


def log_mel() -> Pair:
    "Sixty-four clips of ten seconds."
    import librosa

    from anomaly_nb import audio

    clips = np.random.default_rng(0).normal(size=(64, 160_000)).astype(np.float32) / 10
    options = {"sr": 16000, "n_fft": 1024, "hop_length": 512, "htk": True, "norm": None, "pad_mode": "reflect"}

    def peer() -> object:
        mel = librosa.feature.melspectrogram
        return np.stack([librosa.power_to_db(mel(y=clip, **options), top_db=80) for clip in clips])

    return lambda: audio.log_mel(clips), peer


def inversion() -> Pair:
    "Griffin-Lim, 32 clips of one and a half seconds."
    import librosa

    from anomaly_nb.audio import griffin_lim

    clips = torch.from_numpy(np.random.default_rng(0).normal(size=(32, 32768)).astype(np.float32))
    magnitude = torch.stft(clips, 1024, 256, window=torch.hann_window(1024), return_complex=True).abs()
    options = {"n_iter": 8, "hop_length": 256, "n_fft": 1024, "length": 32768, "random_state": 0}
    peer = lambda: np.stack([librosa.griffinlim(each, **options) for each in magnitude.numpy()])  # noqa: E731
    return lambda: griffin_lim(magnitude, 256, 32768, 8), peer


def losses() -> Pair:
    "Forward and backward, 256 images."
    from torchmetrics.functional.image import multiscale_structural_similarity_index_measure as ms_ssim

    from anomaly_nb.fmnist import FlexibleLoss, image_tensor, load_subset
    from anomaly_nb.fmnist.losses import TERMS

    target = image_tensor(load_subset("train")[0])[:256]
    output = (target + 0.1 * torch.randn(target.shape)).clamp(0, 1).requires_grad_()
    everything, options = FlexibleLoss("+".join(TERMS)), {"kernel_size": 7, "betas": (0.5, 0.3, 0.2)}
    own = lambda: everything(output, target).backward()  # noqa: E731
    return own, lambda: ms_ssim(output, target, data_range=1.0, **options).backward()


TASKS: dict[str, tuple[Callable[[], Pair], str]] = {
    "saliency of a million points": (saliency, "PyOD"),
    "300 SDSS spectra read": (reading, "specutils, file by file"),
    "log-mel spectrograms of 64 clips": (log_mel, "librosa, clip by clip"),
    "sound from 32 pictures": (inversion, "librosa, clip by clip"),
    "eleven image losses, 256 images": (losses, "torchmetrics, MS-SSIM alone"),
}


def measure(function: Callable[[], object]) -> float:
    "Megabytes of a second run above what was in use before it; the result is part of it."
    function()
    before = fresh_peak()
    result = function()
    more = peak() - before
    del result
    return more


def in_own_process(task: str, side: int, folder: str) -> float:
    "The same in a fresh process."
    command = [sys.executable, __file__, task, str(side)]
    shown = subprocess.check_output(command, cwd=HERE, text=True, env=os.environ | {"BENCHMARK_FOLDER": folder})
    return float(shown.split()[-1])


def main() -> None:
    if sys.argv[1:]:
        torch.set_num_threads(1)
        warnings.simplefilter("ignore")  # astropy has one for each file
        print(measure(TASKS[sys.argv[1]][0]()[int(sys.argv[2])]))
        return
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for task, (_, peer) in TASKS.items():
            own, other = (in_own_process(task, side, folder) for side in (0, 1))
            rows.append({"task": task, "peer": peer, "ours, MB": own, "the peer's, MB": other, "ratio": own / other})
    table = pd.DataFrame(rows)
    table.to_csv(RESULTS / "peers_memory.csv", index=False, float_format="%.3g")
    print(f"{machine()}\n{table.round(2).to_string(index=False)}")


if __name__ == "__main__":
    main()

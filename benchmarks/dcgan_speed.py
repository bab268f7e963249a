"""Griffin-Lim beside librosa's, and the step of both networks in plain float32 beside bf16 with channels last.

CPU seconds on one thread, everything in one run. The step: 128 x 128 pictures, width 64, batches of 64.
"""

import time
from pathlib import Path

import librosa
import numpy as np
import pandas as pd
import torch
from torch.nn.functional import binary_cross_entropy_with_logits as cross_entropy

from anomaly_nb.audio import griffin_lim
from anomaly_nb.dcgan.config import load_config
from anomaly_nb.dcgan.engines import engine_recordings, synthesize_engines
from anomaly_nb.dcgan.spectrograms import spectral_convergence
from anomaly_nb.dcgan.training import build_networks

RESULTS = Path(__file__).parent / "results"
FRAME, HOP, SAMPLES = 1024, 256, 32768


def invert() -> list[dict[str, object]]:
    "Clips a CPU second and spectral convergence, for both."
    recorded = [audio[:SAMPLES] for audio in engine_recordings().values()]
    clips = np.concatenate([np.stack(recorded), synthesize_engines(6, seconds=SAMPLES / 22050 + 0.01)[0][:, :SAMPLES]])
    window = torch.hann_window(FRAME)
    magnitude = torch.stft(torch.from_numpy(clips), FRAME, HOP, window=window, return_complex=True).abs()

    def peer(iterations: int) -> np.ndarray:
        options = {"n_iter": iterations, "hop_length": HOP, "n_fft": FRAME, "length": SAMPLES, "random_state": 0}
        return np.stack([librosa.griffinlim(each, **options) for each in magnitude.numpy()])

    def own(iterations: int) -> np.ndarray:
        return griffin_lim(magnitude, HOP, SAMPLES, iterations).numpy()

    rows = []
    for name, function, iterations in (("librosa", peer, 32), ("anomaly_nb", own, 32), ("anomaly_nb", own, 24)):
        function(2)
        times = []
        for _ in range(5):
            begun = time.process_time()
            sound = function(iterations)
            times.append(time.process_time() - begun)
        seconds = min(times)
        quality = float(spectral_convergence(clips, sound, FRAME, HOP).mean())
        rows.append(
            {
                "what": "Griffin-Lim",
                "variant": f"{name}, {iterations} iterations",
                "per_second": len(clips) / seconds,
                "convergence_db": quality,
            }
        )
    return rows


def step_seconds(fast: bool, steps: int = 2) -> float:
    "CPU seconds of a step of discriminator and generator."
    generator, discriminator = build_networks(load_config("config", channels_last=fast))
    order = torch.channels_last if fast else torch.contiguous_format
    generator, discriminator = generator.to(memory_format=order), discriminator.to(memory_format=order)
    optimizers = [torch.optim.Adam(network.parameters(), 2e-4, (0.5, 0.999)) for network in (generator, discriminator)]
    real = torch.rand(64, 1, 128, 128) * 2 - 1
    found = []
    for _ in range(steps + 1):
        begun = time.process_time()
        with torch.autocast("cpu", torch.bfloat16, enabled=fast):
            fake = generator(torch.randn(64, 100, 1, 1))
            on_real, on_fake = discriminator.logits(real), discriminator.logits(fake.detach())
            loss = cross_entropy(on_real, torch.ones_like(on_real)) + cross_entropy(on_fake, torch.zeros_like(on_fake))
        optimizers[1].zero_grad()
        loss.backward()
        optimizers[1].step()
        discriminator.requires_grad_(not fast)  # as in training: the discriminator's weights need no gradient now
        with torch.autocast("cpu", torch.bfloat16, enabled=fast):
            on_fake = discriminator.logits(fake)
            loss = cross_entropy(on_fake, torch.ones_like(on_fake))
        optimizers[0].zero_grad()
        loss.backward()
        optimizers[0].step()
        discriminator.requires_grad_(True)
        found.append(time.process_time() - begun)
    return min(found[1:])


def main() -> None:
    torch.set_num_threads(1)
    rows = invert()
    for name, fast in {"float32": False, "bf16, channels last": True}.items():
        rows.append({"what": "G+D step", "variant": name, "per_second": 1 / step_seconds(fast)})
    table = pd.DataFrame(rows)
    table["ratio"] = table.groupby("what")["per_second"].transform(lambda column: column / column.iloc[0])
    table.to_csv(RESULTS / "dcgan_speed.csv", index=False, float_format="%.4g")
    print(table.round(3).to_string(index=False))


if __name__ == "__main__":
    main()

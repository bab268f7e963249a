"""Speed of the galaxy-spectra detectors beside the document's network, and of the readers beside specutils."""

import tempfile
import zipfile
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from specutils import Spectrum
from timing import machine, median_seconds

from anomaly_nb.datasets import sample_path
from anomaly_nb.spectra import (
    CNNAutoencoderWithSkip,
    SpectrumDetector,
    SpectrumPCA,
    load_sdss_objects,
    read_sdss,
    simulate_spectra,
    to_rest_frame,
)

RESULTS = Path(__file__).parent / "results"


def scoring() -> dict[str, float]:
    "Spectra per second of each detector, whole way from observed spectra to scores."
    train, many = simulate_spectra(200, 0), simulate_spectra(384, 1)
    flux, original = torch.from_numpy(many.flux)[:, None], CNNAutoencoderWithSkip().eval()

    def document() -> np.ndarray:
        with torch.inference_mode():
            return torch.cat([original(flux[i : i + 32]) for i in range(0, len(flux), 32)]).numpy()

    pca, detector = SpectrumPCA().fit(train), SpectrumDetector(epochs=4).fit(train)
    functions = {
        "document's network": document,
        "SpectrumPCA": lambda: pca.decision_function(many),
        "SpectrumDetector": lambda: detector.decision_function(many),
    }
    return {name: len(many) / seconds for name, seconds in median_seconds(functions, repeats=5).items()}


def reading() -> dict[str, float]:
    "Files per second: specutils file by file, and ours up to the rest frame."
    objects = load_sdss_objects()
    names = objects.ids[(objects.classes == "GALAXY") & (objects.z < 0.3)]
    with tempfile.TemporaryDirectory() as folder:
        files = []
        with zipfile.ZipFile(sample_path("spectra/sdss_objects.zip")) as archive:
            for copy in range(10):
                for name in names:
                    files.append(Path(folder) / f"{name}-{copy}.fits")
                    files[-1].write_bytes(archive.read(f"{name}.fits"))
        functions = {
            "specutils, file by file": lambda: [Spectrum.read(file, format="SDSS-III/IV spec") for file in files],
            "read_sdss and to_rest_frame": lambda: to_rest_frame(read_sdss(files)),
        }
        return {name: len(files) / seconds for name, seconds in median_seconds(functions, repeats=5).items()}


def main() -> None:
    torch.set_num_threads(1)
    tables = []
    for what, rates in {"scoring": scoring(), "reading": reading()}.items():
        first = next(iter(rates.values()))
        for name, rate in rates.items():
            tables.append({"what": what, "name": name, "per second": round(rate), "ratio": round(rate / first, 2)})
    table = pd.DataFrame(tables)
    RESULTS.mkdir(exist_ok=True)
    table.to_csv(RESULTS / "spectra_speed.csv", index=False)
    print(f"{machine()}\n{table.to_string(index=False)}")


if __name__ == "__main__":
    main()

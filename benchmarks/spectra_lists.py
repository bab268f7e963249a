"""What spectra detectors say of lists as people have them: redshifts that are off, sky fibres, and real galaxies."""

from pathlib import Path

import numpy as np
import pandas as pd
import torch

from anomaly_nb.core import generator
from anomaly_nb.spectra import SpectrumPCA, concatenate, load_sdss_objects, load_sky, simulate_spectra

RESULTS = Path(__file__).parent / "results"


def main() -> None:
    torch.set_num_threads(1)
    fibres = generator(77).permutation(102)
    detector, rows = SpectrumPCA().fit(simulate_spectra(1200, 11, fibres=fibres[:68])), []
    shifted = simulate_spectra(100, 999, fibres=fibres[68:])
    rows.append({"bar": "normal galaxies, flagged", "value": float(detector.predict(shifted).mean())})
    shifted.z = shifted.z + 1e-3
    table = detector.detect(shifted)
    flagged = table[table["is_anomaly"]]
    rows.append({"bar": "redshift off by 300 km/s, flagged", "value": len(flagged) / len(table)})
    rows.append({"bar": "of these named redshift", "value": float((flagged["reason"] == "redshift").mean())})
    rows.append({"bar": "population alarm there", "value": float(table["population_alarm"].any())})
    objects = load_sdss_objects()
    folder = concatenate([objects, load_sky()[:50]])
    table = detector.adapt(folder).detect(folder)
    galaxies = np.flatnonzero((objects.classes == "GALAXY") & (objects.z < 0.3))
    rows.append({"bar": "real folder: sky fibres that are judged", "value": float(table["judged"][22:].sum())})
    rows.append({"bar": "real galaxies flagged, adapted", "value": float(table["is_anomaly"].iloc[galaxies].sum())})
    rows.append({"bar": "real galaxies", "value": float(len(galaxies))})
    RESULTS.mkdir(exist_ok=True)
    pd.DataFrame(rows).round(4).to_csv(RESULTS / "spectra_lists.csv", index=False)
    print(pd.DataFrame(rows).to_string())


if __name__ == "__main__":
    main()

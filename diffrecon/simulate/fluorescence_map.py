"""A simulated fluorescence map: grains of calcium, iron and zinc in a plate of glass, seen by a detector at 45 degrees.

Independent of the method that it is to test: NumPy in float64, numbers of xraylib written out, absorption summed over
slices of the plate, grains sampled finely within every step, Poisson noise of signal and background, dead time.
"""

from pathlib import Path
from typing import Any

import h5py
import numpy as np

from ._truth import read_truth

__all__ = ["judge", "write"]

ROWS, COLUMNS, FINE, SLICES = 40, 56, 6, 400
STEP, ENERGY, FLUX, DWELL = 2e-6, 17e3, 2e9, 0.1  # [m], [eV], photons a second, [s]
SHARE, DEAD_TIME = 0.02, 2.5e-7  # of the sphere that the detector sees; [s] a count
THICKNESS, DENSITY, TAKEOFF = 30e-4, 2.2, np.deg2rad(45)  # of the plate [cm], [g/cm^3]
ELEMENTS = ("Ca", "Fe", "Zn")
# K alpha: production at 17 keV [cm^2/g], detection, attenuation of SiO2 [cm^2/g], counts under the peak for a photon.
PRODUCTION = {"Ca": 2.7501, "Fe": 11.0706, "Zn": 21.4997}
DETECTED = {"Ca": 0.95, "Fe": 0.99, "Zn": 0.993}
GLASS = {"Ca": 325.20, "Fe": 69.398, "Zn": 29.215}
GLASS_BEAM = 4.0444
UNDER = {"Ca": 4e-7, "Fe": 2e-7, "Zn": 1.5e-7}
MOST = {"Ca": 6e-5, "Fe": 1.5e-5, "Zn": 8e-6}  # [g/cm^2]
SETTINGS = (
    "sample.composition=SiO2, 2.2", f"sample.thickness={THICKNESS * 1e4:.0f} um", "sample.takeoff=45 deg",
)  # fmt: skip


def write(path: str | Path, seed: int = 0) -> dict[str, np.ndarray]:
    """Write net counts of three lines with monitor, times and background; the truth lies under `/truth`.

    **Returns:** the truth: areal masses [g/cm^2] `(y, x)` by element.
    """
    random = np.random.default_rng(seed)
    truth = {name: MOST[name] * _grains(random) for name in ELEMENTS}
    points = np.arange(ROWS * COLUMNS).reshape(ROWS, COLUMNS)
    photons = FLUX * DWELL * (1 + 0.05 * np.sin(points / 90) - 0.04 * points / points.size)
    signal = {n: photons * SHARE * PRODUCTION[n] * DETECTED[n] * _leaves(GLASS[n]) * truth[n] for n in ELEMENTS}
    under = {n: photons * UNDER[n] for n in ELEMENTS}
    rate = np.sum([3 * signal[n] + 20 * under[n] for n in ELEMENTS], 0) / DWELL
    live = DWELL / (1 + rate * DEAD_TIME)
    with h5py.File(path, "w") as file:
        file.attrs.update(
            method="fluorescence-map", energy_eV=ENERGY, pixel_m=STEP, provenance="simulated by diffrecon"
        )
        for name in ELEMENTS:
            share = live / DWELL
            gross = random.poisson((signal[name] + under[name]) * share)
            file[f"lines/{name}/counts"] = (gross - under[name] * share).astype(np.float32)
            file[f"lines/{name}/background"] = (under[name] * share).astype(np.float32)
            file[f"lines/{name}"].attrs.update(
                line="Ka", efficiency=DETECTED[name], production_cm2_per_g=PRODUCTION[name]
            )
        file["monitor/counts"] = photons / 1e3
        file["monitor"].attrs["monitor_per_photon"] = 1e-3
        file["live_time"], file["real_time"] = live.astype(np.float32), np.full((ROWS, COLUMNS), DWELL, np.float32)
        for name in ("live_time", "real_time"):
            file[name].attrs["units"] = "s"
        file.create_group("detector").attrs["solid_angle_fraction"] = SHARE
        file.attrs["tables"] = "Kissel, xraylib"
        for name, values in truth.items():
            file[f"truth/{name}"] = values
    return truth


def judge(path: str | Path, result: Any) -> list[str]:
    """Compare areal masses with the truth in the file: the mass, and errors in units of their bars."""
    lines = []
    for name, truth in zip(ELEMENTS, read_truth(path, *ELEMENTS), strict=True):
        found, bars = (np.asarray(result[key], float) for key in (name, f"{name}_error"))
        spread = np.sqrt(np.mean(((found - truth) / bars) ** 2))
        lines.append(
            f"{name} against the truth: mass {found.sum() / truth.sum():.4f} of it, errors {spread:.2f} of their bars"
        )
    return lines


def _grains(random: np.random.Generator) -> np.ndarray:
    """Between 0 and 1: a film that grows across the map, and soft discs on it, as means over every step."""
    y, x = ((np.arange(n * FINE) + 0.5) / FINE for n in (ROWS, COLUMNS))
    y, x = y[:, None], x[None, :]
    map_ = 0.15 * (x / COLUMNS) * (random.uniform(0.5, 1) + 0 * y)
    for _ in range(9):
        row, column, radius = random.uniform(0, ROWS), random.uniform(0, COLUMNS), random.uniform(2, 6)
        map_ = map_ + random.uniform(0.2, 0.8) / (1 + (((x - column) ** 2 + (y - row) ** 2) / radius**2) ** 4)
    means = np.minimum(map_, 1).reshape(ROWS, FINE, COLUMNS, FINE).mean((1, 3))
    return means


def _leaves(line: float) -> float:
    """Share of a line that leaves the plate, slice by slice, the beam's own absorption with it."""
    depth = (np.arange(SLICES) + 0.5) / SLICES * THICKNESS * DENSITY
    return float(np.mean(np.exp(-depth * (GLASS_BEAM + line / np.sin(TAKEOFF)))))

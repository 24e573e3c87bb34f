"""A simulated K-edge experiment: nickel grains in glass beads, radiographs below and above the K edge of nickel.

Independent of the model it is to test: NumPy in float64, analytic thicknesses on a grid four times finer than the
detector's, intensities (not thicknesses) averaged over its pixels, uneven beams, Poisson noise of frames and flats.
"""

from pathlib import Path
from typing import Any

import numpy as np

from ..geometry import ParallelBeam
from ..scan import Scan
from ._truth import read_truth, write_with_truth

__all__ = ["SETTINGS", "judge", "write"]

ENERGIES = np.array([8250.0, 8420.0])  # [eV]; the edge of nickel is at 8333 eV
MASS_ATTENUATION = {"Ni": (45.5095, 321.0023), "SiO2": (33.3162, 31.3970)}  # [cm^2/g], tables of Elam
DENSITY = {"Ni": 8.908, "SiO2": 2.2}  # [g/cm^3]
PIXEL, FRAME, FINE = 0.5e-6, 128, 4
COUNTS, DARK, FLATS = 4000.0, 100.0, 10  # in the empty beam, offset of the detector, flats of each energy
SETTINGS = ('model.materials=["Ni", "SiO2"]',)


def write(path: str | Path, seed: int = 0) -> dict[str, np.ndarray]:
    """Write two radiographs with flats and darks that `open_scan` reads as they are, with the truth under `/truth`.

    **Returns:** the truth: areal densities [g/cm^2] of `Ni` and `SiO2`, averaged over the pixels, `(y, x)`.
    """
    random = np.random.default_rng(seed)
    areal = _object(random)
    counts, flats = [], []
    for energy in range(2):
        depth = sum(MASS_ATTENUATION[name][energy] * values for name, values in areal.items())
        beam = COUNTS * _beam(energy)
        counts.append(random.poisson(beam * _binned(np.exp(-depth)) + DARK))
        flats += [random.poisson(beam + DARK) for _ in range(FLATS)]
    place = ParallelBeam(PIXEL, ENERGIES, None)
    scan = Scan.from_arrays(
        np.array(counts, np.uint16),
        method="k-edge",
        geometry=place,
        flats=np.array(flats, np.uint16),
        darks=np.full((1, FRAME, FRAME), DARK),
    )
    truth = {name: _binned(values) for name, values in areal.items()}
    write_with_truth(path, scan, truth)
    return truth


def judge(path: str | Path, result: Any) -> list[str]:
    """Compare areal densities with the truth in the file: rms error beside the error bar, and the mean."""
    lines = []
    for name, truth in zip(MASS_ATTENUATION, read_truth(path, *MASS_ATTENUATION), strict=True):
        found, bar = np.asarray(result[name], float), np.asarray(result[f"{name}_error"], float)
        lines.append(
            f"{name} against the truth: rms error {np.sqrt(np.nanmean((found - truth) ** 2)):.3g} g/cm^2 (error bars "
            f"{np.sqrt(np.nanmean(bar**2)):.3g}), mean {np.nanmean(found):.4g} of {truth.mean():.4g} g/cm^2"
        )
    return lines


def _object(random: np.random.Generator) -> dict[str, np.ndarray]:
    """Areal densities [g/cm^2] on the fine grid: beads of glass, grains of nickel."""
    axis = (np.arange(FRAME * FINE) - (FRAME * FINE - 1) / 2) * PIXEL / FINE * 1e6
    half = FRAME * PIXEL * 0.5e6
    glass, nickel = np.zeros((axis.size, axis.size)), np.zeros((axis.size, axis.size))
    for _ in range(9):
        glass += _sphere(axis, random.uniform(-0.7 * half, 0.7 * half, 2), random.uniform(5, 12))
    for _ in range(30):
        nickel += _sphere(axis, random.uniform(-0.8 * half, 0.8 * half, 2), random.uniform(0.6, 2.4))
    return {"Ni": nickel * 1e-4 * DENSITY["Ni"], "SiO2": glass * 1e-4 * DENSITY["SiO2"]}


def _sphere(axis: np.ndarray, centre: np.ndarray, radius: float) -> np.ndarray:
    """Thickness [um]."""
    return 2 * np.sqrt(np.clip(radius**2 - (axis[None] - centre[0]) ** 2 - (axis[:, None] - centre[1]) ** 2, 0, None))


def _beam(energy: int) -> np.ndarray:
    """A smooth, uneven beam, another one at each energy."""
    y, x = np.mgrid[:FRAME, :FRAME] / FRAME - 0.5
    return (1 + 0.1 * energy) * np.exp(-(x**2 + y**2)) * (1 + 0.05 * np.cos(2 * np.pi * (3 + energy) * y))


def _binned(image: np.ndarray) -> np.ndarray:
    return image.reshape(FRAME, FINE, FRAME, FINE).mean((1, 3))

"""Simulated powder frames: ceria and aluminium on a tilted detector with a gap and a hot pixel, rows upside down.

Independent of the operators: pixels of 4 x 4 points whose angles follow from plain geometry, analytic peaks, Poisson
noise. The geometry in the file holds for flipped rows, as happens when one program writes what another reads.
"""

from pathlib import Path
from typing import Any

import numpy as np

from ..io import new_hdf5
from ._truth import read_truth
from .powders import pattern, places

__all__ = ["judge", "write"]

FRAMES, SIZE, FINE = 12, 256, 4
PIXEL, DISTANCE, FOOT, TILT = 0.3e-3, 0.15, (0.028, 0.044), 0.03
ENERGY, WIDTH, POLARISATION = 30e3, 8e-3, 0.98
PHOTONS, LENGTH = 4e9, 1e-3  # a frame; of sample in the beam [m]


def write(path: str | Path, seed: int = 0) -> dict[str, np.ndarray]:
    """Write frames with their geometry, a monitor and the truth.

    **Returns:** the truth: `two_theta` [rad] and `pattern` [counts of a pixel at the foot of the normal, a photon].
    """
    random = np.random.default_rng(seed)
    place = (np.arange(SIZE * FINE) + 0.5) * PIXEL / FINE
    rows, columns = np.meshgrid(place - FOOT[0], place - FOOT[1], indexing="ij")
    two_theta, chi, solid = places(rows, columns, DISTANCE, TILT, PIXEL)
    polarised = 0.5 * (1 + np.cos(two_theta) ** 2 - POLARISATION * np.cos(2 * chi) * np.sin(two_theta) ** 2)
    light = _intensity(two_theta) * polarised * solid
    frame = light.reshape(SIZE, FINE, SIZE, FINE).mean((1, 3))
    photons = PHOTONS * (1 + 0.1 * np.sin(np.arange(FRAMES)))
    counts = random.poisson(frame * photons[:, None, None]).astype(np.uint16)[:, ::-1]
    counts[:, 170:176] = 0
    counts[:, 40, 200] = 40000
    gaps = np.zeros((SIZE, SIZE), np.uint8)
    gaps[170:176] = 1
    angles = np.linspace(two_theta.min(), two_theta.max(), 2000)
    truth = {"two_theta": angles, "pattern": _intensity(angles) * PIXEL**2 / DISTANCE**2}
    with new_hdf5(path) as file:
        file.attrs.update(provenance="simulated by diffrecon", energy_eV=ENERGY, polarisation=POLARISATION)
        file.create_dataset("frames", data=counts[:, None], chunks=(1, 1, SIZE, SIZE), compression="gzip")
        file["mask"], file["monitor"] = gaps, photons[:, None]
        file.create_group("detector").attrs.update(
            distance_m=DISTANCE, poni1_m=FOOT[0], poni2_m=FOOT[1], rot1=TILT, rot2=0.0, rot3=0.0, pixel1_m=PIXEL,
            pixel2_m=PIXEL,
        )  # fmt: skip
        file.attrs["method"] = "azimuthal-integration"
        for name, value in truth.items():
            file[f"truth/{name}"] = value
    return truth


def judge(path: str | Path, result: Any) -> list[str]:
    """Compare the mean pattern with the truth in the file."""
    angles, truth = read_truth(path, "two_theta", "pattern")
    found, at = np.asarray(result["mean_pattern"], float), np.radians(result["two_theta"])
    expected = np.interp(at, angles, truth)
    seen = np.isfinite(found)
    error = np.linalg.norm((found - expected)[seen]) / np.linalg.norm(expected[seen])
    total = found[seen].sum() / expected[seen].sum()
    return [f"mean pattern against the truth: relative error {error:.2%}, sum {total:.4f} of it"]


def _intensity(two_theta: np.ndarray) -> np.ndarray:
    """Give the intensity of the sample, without polarisation [1/sr a photon]."""
    powder = 0.3 * pattern("CeO2", two_theta, ENERGY, WIDTH) + 0.6 * pattern("Al", two_theta, ENERGY, WIDTH)
    return LENGTH * (powder + 2.0 * np.exp(-two_theta / 0.1))

"""Simulated powder diffraction tomography: grains of ceria and aluminium in a glass rod, patterns of every point.

Independent of the operators: discs whose chords are exact along rays finer than the points, absorption on the way in
and out along straight lines through these discs, peaks evaluated for every piece of a ray, Poisson noise.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from ._truth import read_truth
from .powders import lines, pattern

__all__ = ["amounts_of", "judge", "truth_of", "view_of", "write", "write_scan_of"]

VIEWS, STEPS, CHANNELS = 36, 24, 120
STEP, ENERGY, DISTANCE = 20e-6, 30e3, 0.2
ANGLES = np.radians((6.5, 15.5))  # two_theta of the first and the last channel
WIDTH, POLARISATION, PHOTONS, GAIN = 2.2e-3, 0.98, 3e7, 1e-2
FINE = 4  # rays a point, pieces of a ray a step
ATTENUATION = {"CeO2": 1.02e4, "Al": 300.0, "NiO": 5.48e3, "Ni": 9.22e3, "glass": 250.0}  # [1/m] at 30 keV
NAMES = ("CeO2", "Al")


def write(path: str | Path, seed: int = 0) -> dict[str, np.ndarray]:
    """Write counts of patterns with monitor, transmitted beam, solid angles and phases, and the truth.

    **Returns:** the truth: volume fractions of `CeO2` and `Al` `(y, x)`, and `<phase>_scale`, their relative lattices.
    """
    random = np.random.default_rng(seed)
    discs = _discs(random)
    angles = np.arange(VIEWS) * np.pi / VIEWS
    two_theta = np.linspace(ANGLES[0], ANGLES[1], CHANNELS)
    views = [view_of(discs, float(a), two_theta) for a in angles]
    truth = truth_of(discs)
    write_scan_of(path, random, angles, two_theta, views, {name: lines(name) for name in NAMES}, truth)
    with h5py.File(path, "a") as file:
        file.attrs["parallax"] = 1.0
        file.create_group("detector").attrs.update(
            distance_m=DISTANCE, poni1_m=0.05, poni2_m=0.05, pixel1_m=1e-4, pixel2_m=1e-4
        )
    return truth


def write_scan_of(
    path: str | Path, random: np.random.Generator, angles: np.ndarray, two_theta: np.ndarray, views: list,
    phases: Mapping[str, tuple], truth: Mapping[str, np.ndarray],
) -> None:  # fmt: skip
    """Count photons of views as `view_of` gives them, and write them with monitor, transmitted beam, solid angles and
    truth.

    **Arguments:** `phases`: spacings [Angstrom], strengths, Miller indices and cell volume [A^3] by name.
    """
    solid = 2 * np.pi * np.sin(two_theta) * np.ptp(two_theta) / len(two_theta) * (1 + np.cos(two_theta) ** 2) / 4
    background = 0.02 * np.exp(-two_theta / 0.1)
    measured, left = zip(*views, strict=True)
    photons = PHOTONS * (1 + 0.02 * np.sin(np.arange(len(angles) * STEPS))).reshape(-1, STEPS)
    counts = random.poisson(photons[..., None] * (np.array(measured) + background) * solid)
    with h5py.File(path, "w") as file:
        file.attrs.update(
            provenance="simulated by diffrecon", energy_eV=ENERGY, step_m=STEP, polarisation=POLARISATION,
            rotation_centre_u=(STEPS - 1) / 2,
        )  # fmt: skip
        file.create_dataset("counts", data=counts.astype(np.uint32), compression="gzip")
        file["theta"], file["two_theta"], file["normalisation"], file["background"] = (
            angles,
            two_theta,
            solid,
            background,
        )
        for name, values in (("monitor", photons), ("transmitted", photons * np.array(left))):
            file[name] = random.poisson(values * GAIN)
            file[name].attrs["per_photon"] = GAIN
        for name, (spacing, strength, hkl, volume) in phases.items():
            group = file.create_group(f"phases/{name}")
            group["d_A"], group["strength"], group["hkl"] = spacing, strength, hkl
            group.attrs["cell_volume_A3"] = volume
        for name, value in truth.items():
            file[f"truth/{name}"] = value


def judge(path: str | Path, result: Any) -> list[str]:
    """Compare volume fractions and lattice parameters with the truth in the file."""
    said = []
    for name in NAMES:
        truth, scale = read_truth(path, name, f"{name}_scale")
        found = np.asarray(result[name], float)
        error = np.linalg.norm(found - truth) / np.linalg.norm(truth)
        there = (truth > 0.1) & np.isfinite(result[f"{name}_scale"])
        off = (np.asarray(result[f"{name}_scale"]) - scale)[there] * 1e6
        said.append(
            f"{name} against the truth: relative error {error:.3f}, total {found.sum() / truth.sum():.4f} of it, "
            "lattice "
            f"{np.sqrt((off**2).mean()):.0f} ppm (bias {off.mean():.0f})"
        )
    return said


def _discs(random: np.random.Generator) -> np.ndarray:
    """Centre, radius [step], fractions of ceria, aluminium and glass that a disc adds, strains of the two."""
    rows = [[0, 0, 0.45 * STEPS, 0, 0.05, 0.9, 0.0, 3e-4]]
    while len(rows) < 8:
        radius, place = random.uniform(1.5, 3.0), random.uniform(-0.35, 0.35, 2) * STEPS
        apart = all(np.hypot(*(place - r[:2])) > radius + r[2] for r in rows[1:])
        if apart and np.hypot(*place) + radius < rows[0][2]:
            ceria = len(rows) % 2
            rows.append(
                [
                    *place,
                    radius,
                    0.4 * ceria,
                    0.5 * (1 - ceria),
                    -0.5,
                    random.uniform(-2e-3, 2e-3),
                    random.uniform(-2e-3, 2e-3),
                ]
            )
    return np.array(rows)


def view_of(
    discs: np.ndarray, angle: float, two_theta: np.ndarray, names: tuple[str, ...] = NAMES, parallax: bool = True,
    peaks: Any = None, absorbs: Mapping[str, float] = ATTENUATION,
) -> tuple[np.ndarray, np.ndarray]:  # fmt: skip
    """Compute the intensity of every point and channel [1/sr a photon], and the light that goes through.

    **Arguments:** `discs`, one a row: centre, radius [step], what it adds of the two phases and of glass, and the
    strains of the two; `peaks`: pattern of `(name, scale, nearer)`, by default those of cubic lattices; `absorbs` [1/m]
    by name.
    """
    peaks = peaks or (lambda name, scale, nearer: pattern(name, two_theta, ENERGY, WIDTH, scale, nearer))
    count = STEPS * FINE
    axis = (np.arange(count) + 0.5) / FINE - STEPS / 2
    u, t = np.meshgrid(axis, axis, indexing="ij")
    x, y = u * np.cos(angle) - t * np.sin(angle), u * np.sin(angle) + t * np.cos(angle)
    amounts, strains = amounts_of(discs, x, y)
    table = np.array([absorbs[name] for name in (*names, "glass")])
    attenuation = np.tensordot(table, amounts, 1) * STEP / FINE
    depth_in = np.cumsum(attenuation, 1) - attenuation / 2
    before, along = np.exp(-depth_in), attenuation.sum(1)
    # The way out: a cone of one angle about the beam, in the plane of the slice and out of it.
    middle = float(two_theta.mean())
    fans = np.arctan2(np.sin(middle) * np.cos(np.linspace(0, np.pi, 7)), np.cos(middle))
    out = np.mean([np.exp(-_way(discs, x, y, angle, float(f), table) / np.cos(middle)) for f in fans], 0)
    found = np.zeros((STEPS, len(two_theta)))
    pieces = FINE if parallax else count  # of a step share their depth
    for number, name in enumerate(names):
        weight = amounts[number] * before * out * STEP / FINE / FINE
        for strain in np.unique(strains[number][weight > 0]):
            for piece in range(0, count, pieces):
                part = slice(piece, piece + pieces)
                where = (strains[number][:, part] == strain) * weight[:, part]
                share = where.sum(1).reshape(STEPS, FINE).sum(1)
                if share.any():
                    nearer = float(t[0, part].mean()) * STEP / DISTANCE * parallax
                    found += share[:, None] * peaks(name, 1 + strain, nearer)
    glass = (amounts[2] * before * out * STEP / FINE / FINE).sum(1).reshape(STEPS, FINE).sum(1)
    found += glass[:, None] * 150 * np.exp(-(((two_theta - 0.11) / 0.06) ** 2))
    return found, np.exp(-along).reshape(STEPS, FINE).mean(1)


def amounts_of(discs: np.ndarray, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Add up the fractions of two phases and glass, and tell the strain of the crystals there: that of the last
    disc."""
    amounts, strains = np.zeros((3, *x.shape)), np.zeros((2, *x.shape))
    for row in discs:
        inside = np.hypot(x - row[0], y - row[1]) < row[2]
        amounts += inside * row[3:6, None, None]
        strains = np.where(inside, row[6:8, None, None], strains)
    return amounts, strains


def _way(discs: np.ndarray, x: np.ndarray, y: np.ndarray, angle: float, fan: float, table: np.ndarray) -> np.ndarray:
    """Attenuation on a straight way out, by exact chords through the discs, times the cosine of the fan."""
    direction = np.array([-np.sin(angle - fan), np.cos(angle - fan)])
    total = np.zeros(x.shape)
    for row in discs:
        attenuation = row[3:6] @ table
        px, py = x - row[0], y - row[1]
        middle = px * direction[0] + py * direction[1]
        root = np.sqrt(np.maximum(row[2] ** 2 - px**2 - py**2 + middle**2, 0))
        total += attenuation * STEP * (np.maximum(root - middle, 0) - np.maximum(-root - middle, 0))
    return total * np.cos(fan)


def truth_of(discs: np.ndarray, names: tuple[str, ...] = NAMES) -> dict[str, np.ndarray]:
    """Average amounts, and strains by amount, over the steps."""
    fine = 12
    axis = (np.arange(STEPS * fine) + 0.5) / fine - STEPS / 2
    y, x = np.meshgrid(axis, axis, indexing="ij")
    amounts, strains = amounts_of(discs, x, y)
    mean = lambda a: a.reshape(STEPS, fine, STEPS, fine).mean((1, 3))
    found = {}
    for number, name in enumerate(names):
        found[name] = mean(amounts[number])
        found[f"{name}_scale"] = 1 + mean(amounts[number] * strains[number]) / np.maximum(found[name], 1e-9)
    return found

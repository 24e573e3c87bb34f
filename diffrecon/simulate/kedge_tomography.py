"""A simulated K-edge tomogram: vials of iodine in a cylinder of water, counts below and above the K edge of iodine.

Independent of `diffrecon.operators`: exact chords of ellipses in NumPy, intensities averaged over each pixel of the
detector, a source that drifts, flats with noise of their own, and a sample that moves between the two energies.
"""

from pathlib import Path
from typing import Any

import h5py
import numpy as np

from ..io import atomically

METHOD = "k-edge"
ENERGIES = np.array([33019.0, 33319.0])  # [eV]; the edge of iodine is at 33169 eV
MASS_ATTENUATION = {"water": (0.329737, 0.326033), "iodine": (6.632584, 35.415639)}  # [cm^2/g], tables of Elam
FORMULA = {"water": "H2O", "iodine": "I"}
COLUMNS, ROWS, VIEWS, FINE = 64, 2, 90, 4
PIXEL = 150e-6  # [m]
PHOTONS, DARK, FLATS, READOUT = 40000.0, 100.0, 20, 3.0
MOVED, AXIS = 0.6, 1.3  # columns from energy to energy, and of the axis from the middle
VIALS = (20.0, 10.0, 5.0, 2.0, 1.0)  # [mg/cm^3]


def ellipses(seed: int = 0) -> np.ndarray:
    """Tabulate semi-axes, centre [pixel], tilt [rad], and densities of water and iodine [g/cm^3] that an ellipse
    adds."""
    random = np.random.default_rng(seed)
    half, turn = COLUMNS / 2, random.uniform(0, 2 * np.pi)
    rows = [[0.86 * half, 0.78 * half, 0.0, 0.0, random.uniform(0, np.pi), 1.0, 0.0]]
    for number, milligrams in enumerate(VIALS):
        place = turn + 2 * np.pi * number / (len(VIALS) + 1)
        size = 0.14 * half * random.uniform(0.9, 1.1)
        centre = 0.5 * half * np.array([np.cos(place), np.sin(place)])
        rows.append([size, 0.8 * size, *centre, random.uniform(0, np.pi), 0.0, milligrams * 1e-3])
    place = turn + 2 * np.pi * len(VIALS) / (len(VIALS) + 1)
    rows.append([0.12 * half, 0.12 * half, 0.5 * half * np.cos(place), 0.5 * half * np.sin(place), 0.0, -1.0, 0.0])
    return np.array(rows)


def write(path: str | Path, seed: int = 0) -> dict[str, np.ndarray]:
    """Write counts (energy, view, z, u) with flats and darks, as `open_scan` reads them, with the truth under `/truth`.

    **Returns:** the truth: densities [g/cm^3] of `water` and `iodine`, averaged over the voxels, `(z, y, x)`.
    """
    random, table = np.random.default_rng(seed), ellipses(seed)
    angles = np.arange(VIEWS) * np.pi / VIEWS
    gain = 1 + 0.02 * random.standard_normal((ROWS, COLUMNS))
    counts, flats = [], []
    for energy in range(2):
        drift = 1 + 0.02 * np.sin(np.linspace(energy, energy + 4, VIEWS))
        beam = PHOTONS * gain * drift[:, None, None] * _transmitted(table, angles, energy)[:, None]
        counts.append(_read(random, beam))
        flats.append(_read(random, np.broadcast_to(PHOTONS * gain * drift.mean(), (FLATS, ROWS, COLUMNS))))
    truth = _truth(table)
    with atomically(Path(path)) as temporary, h5py.File(temporary, "w") as file:
        file.attrs.update(
            pixel_m=PIXEL, angle_unit="rad", axes="counts (energy, view, z, u); at angle 0 the beam runs along +y"
        )
        file["energies"], file["theta"] = ENERGIES, np.stack([angles, angles])
        file["counts"], file["flats"] = np.stack(counts), np.stack(flats)
        file["darks"] = _read(random, np.zeros((10, ROWS, COLUMNS)))
        file["materials"], file["formula"] = np.array(list(FORMULA), "S"), np.array(list(FORMULA.values()), "S")
        for name, values in truth.items():
            file[f"truth/{name}"] = values
    return truth


def judge(path: str | Path, result: Any) -> list[str]:
    """Compare densities with the truth in the file: relative error, mass, and the noise in plain water."""
    with h5py.File(path) as file:
        truth = {name: np.asarray(file[f"truth/{name}"]) for name in FORMULA}
    lines = []
    for name, true in truth.items():
        found = np.asarray(result[name], float)
        error = np.linalg.norm(found - true) / np.linalg.norm(true)
        lines.append(f"{name} against the truth: relative error {error:.3f}, mass {found.sum() / true.sum():.3f} of 1")
    plain = (truth["water"] > 0.999) & (truth["iodine"] <= 0)
    found = 1e3 * np.asarray(result["iodine"], float)[plain]
    lines.append(f"iodine in plain water: {found.mean():.3f} with 3 sigma {3 * found.std():.2f} mg/cm^3")
    return lines


def _transmitted(table: np.ndarray, angles: np.ndarray, energy: int) -> np.ndarray:
    """Mean transmission (view, u) of the pixels: chords `2 a b sqrt(r^2 - s^2) / r^2` of ellipses at `FINE` rays."""
    u = (np.arange(COLUMNS * FINE) + 0.5) / FINE - COLUMNS / 2 - AXIS - MOVED * energy
    depth = np.zeros((len(angles), u.size))
    for a, b, x, y, tilt, water, iodine in table:
        reach = np.hypot(a * np.cos(angles - tilt), b * np.sin(angles - tilt))[:, None]
        away = u - (x * np.cos(angles) + y * np.sin(angles))[:, None]
        chord = 2 * a * b * np.sqrt(np.clip(reach**2 - away**2, 0, None)) / reach**2
        per_pixel = water * MASS_ATTENUATION["water"][energy] + iodine * MASS_ATTENUATION["iodine"][energy]
        depth += chord * 100 * PIXEL * per_pixel
    return np.exp(-depth).reshape(len(angles), COLUMNS, FINE).mean(-1)


def _truth(table: np.ndarray) -> dict[str, np.ndarray]:
    """Densities on the voxels, each the mean of 25 points; the pixel i is at i - (N - 1)/2."""
    points = (np.arange(COLUMNS * 5) + 0.5) / 5 - COLUMNS / 2
    x, y = points[None], points[:, None]
    maps = np.zeros((2, points.size, points.size))
    for a, b, x0, y0, tilt, water, iodine in table:
        along = (x - x0) * np.cos(tilt) + (y - y0) * np.sin(tilt)
        across = (y - y0) * np.cos(tilt) - (x - x0) * np.sin(tilt)
        maps += np.array([water, iodine])[:, None, None] * ((along / a) ** 2 + (across / b) ** 2 <= 1)
    means = maps.reshape(2, COLUMNS, 5, COLUMNS, 5).mean((2, 4))
    return {name: np.repeat(mean[None], ROWS, 0) for name, mean in zip(FORMULA, means, strict=True)}


def _read(random: np.random.Generator, light: np.ndarray) -> np.ndarray:
    """Counts of the light over a dark with noise of the readout."""
    counts = random.poisson(light) + random.normal(DARK, READOUT, light.shape)
    return np.clip(np.rint(counts), 0, 65535).astype(np.uint16)

"""A simulated fluorescence tomogram: grains of calcium and iron in a glass fibre that keeps most of calcium's line.

Independent of the model it is to test: NumPy in float64, discs whose chords are exact on the way in and out, emission
summed over cells a quarter of the scan's step wide, Poisson noise.
"""

from pathlib import Path
from typing import Any

import h5py
import numpy as np

from ._truth import read_truth

__all__ = ["judge", "write"]

POINTS, VIEWS, FINE = 36, 60, 4
STEP, ENERGY, PHOTONS, TRANSMITTED = 1.5e-6, 17e3, 2e8, 1e6  # [m], [eV], a point, counts of its empty beam
SHARE = 0.03  # of the sphere that the detector sees
COMPONENTS = ("SiO2", "Ca", "Fe")
# Attenuation of Elam at 17 keV, and at K alpha of Ca and Fe [cm^2/g]; production of K alpha by xraylib.
BEAM = np.array([4.04425, 20.83071, 40.4124])
LINES = {"Ca": np.array([325.044, 151.707, 318.759]), "Fe": np.array([69.356, 314.123, 71.022])}
LINE_ENERGY, PRODUCTION = {"Ca": 3691.1, "Fe": 6400.8}, {"Ca": 2.7501, "Fe": 11.0706}
EFFICIENCY = {"Ca": 0.9498, "Fe": 0.9904}
FAN = np.deg2rad(np.linspace(-16, 16, 5))  # directions of the detector about the normal of the beam


def write(path: str | Path, seed: int = 0) -> dict[str, np.ndarray]:
    """Write counts of two lines and of the transmitted beam with monitor and tables; the truth lies under `/truth`.

    **Returns:** the truth: densities [g/cm^3] of `SiO2`, `Ca`, `Fe` on the voxels `(z, y, x)`.
    """
    random = np.random.default_rng(seed)
    discs, density = _grains(random)
    angles = np.arange(VIEWS) * 2 * np.pi / VIEWS
    signals = np.stack([_view(angle, discs, density) for angle in angles])  # (view, channel, u)
    photons = PHOTONS * (1 + 0.03 * np.sin(np.arange(VIEWS * POINTS) / 40).reshape(VIEWS, 1, POINTS))
    truth = _voxels(discs, density)
    with h5py.File(path, "w") as file:
        file.attrs.update(
            method="fluorescence-tomography",
            energy_eV=ENERGY,
            pixel_m=STEP,
            tables="attenuation of Elam, lines of Kissel",
        )
        file["theta"] = angles
        for row, name in enumerate(LINES):
            file[f"lines/{name}/counts"] = random.poisson(photons * signals[:, row, None]).astype(np.uint32)
            file[f"lines/{name}"].attrs.update(
                energy_eV=LINE_ENERGY[name], efficiency=EFFICIENCY[name], production_cm2_per_g=PRODUCTION[name]
            )
        beam = photons * TRANSMITTED / PHOTONS
        file["transmission/counts"] = random.poisson(beam * signals[:, -1, None]).astype(np.uint32)
        file["transmission"].attrs["counts_per_photon"] = TRANSMITTED / PHOTONS
        file["monitor/counts"] = photons / 1e3
        file["monitor"].attrs["monitor_per_photon"] = 1e-3
        file["detector/directions_lab"] = np.stack([np.cos(FAN), np.sin(FAN), 0 * FAN], 1)
        file["detector"].attrs["solid_angle_fraction"] = SHARE
        file["tables/components"] = np.array(COMPONENTS, "S")
        file["tables/sigma_E0"], file["tables/sigma_line"] = BEAM, np.stack(list(LINES.values()))
        for name, values in truth.items():
            file[f"truth/{name}"] = values
    return truth


def judge(path: str | Path, result: Any) -> list[str]:
    """Compare densities with the truth in the file: relative error, and the mass."""
    lines = []
    for name, truth in zip(COMPONENTS, read_truth(path, *COMPONENTS), strict=True):
        found = np.asarray(result[name], float)
        error = np.linalg.norm(found - truth) / np.linalg.norm(truth)
        lines.append(
            f"{name} against the truth: relative error {error:.3f}, mass {found.sum() / truth.sum():.4f} of it"
        )
    return lines


def _grains(random: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Discs (x, y, radius) in steps, none of which touch, and what each adds to the densities of the components."""
    body = 0.43 * POINTS
    discs, density = [(0.0, 0.0, body)], [(2.2, 0.03, 0.015)]
    for added in ((-2.2, -0.03, -0.015), (0, 0.6, 0), (0, 0.3, 0), (0, 0, 0.8), (0, 0, 0.4)):
        while True:
            radius = random.uniform(0.05, 0.10) * POINTS
            x, y = random.uniform(-1, 1, 2) * body
            apart = all(np.hypot(x - a, y - b) > radius + r + 0.5 for a, b, r in discs[1:])
            if np.hypot(x, y) + radius < body - 1 and apart:
                break
        discs.append((x, y, radius))
        density.append(added)
    return np.array(discs), np.array(density, float)


def _chords(x: np.ndarray, y: np.ndarray, way: np.ndarray, discs: np.ndarray) -> np.ndarray:
    """Length in each disc of the rays from points onwards, in steps."""
    dx, dy = x[..., None] - discs[:, 0], y[..., None] - discs[:, 1]
    along, square = dx * way[0] + dy * way[1], dx**2 + dy**2 - discs[:, 2] ** 2
    half = np.sqrt(np.maximum(along**2 - square, 0))
    return np.maximum(-along + half, 0) - np.maximum(-along - half, 0)


def _view(angle: float, discs: np.ndarray, density: np.ndarray) -> np.ndarray:
    """Signal of every channel for one photon at each point of a line of the scan."""
    across = np.array([np.cos(angle), np.sin(angle)])
    along = np.array([-np.sin(angle), np.cos(angle)])
    fine = (np.arange(POINTS * FINE) + 0.5) / FINE - POINTS / 2
    u, t = fine[:, None], fine[None, :]
    x, y = u * across[0] + t * along[0], u * across[1] + t * along[1]
    inside = ((x[..., None] - discs[:, 0]) ** 2 + (y[..., None] - discs[:, 1]) ** 2 < discs[:, 2] ** 2) @ density
    centimetres = 100 * STEP
    beam = np.exp(-_chords(x, y, -along, discs) @ (density @ BEAM) * centimetres)
    rows = []
    for column, (name, table) in enumerate(LINES.items(), start=1):
        ways = [np.cos(f) * across + np.sin(f) * along for f in FAN]
        leaves = np.mean([np.exp(-_chords(x, y, way, discs) @ (density @ table) * centimetres) for way in ways], 0)
        made = PRODUCTION[name] * EFFICIENCY[name] * SHARE * centimetres * inside[..., column]
        rows.append(np.sum(made * beam * leaves, 1) / FINE)
    outside = -2.0 * POINTS * along
    through = _chords(u[:, 0] * across[0] + outside[0], u[:, 0] * across[1] + outside[1], along, discs)
    rows.append(np.exp(-through @ (density @ BEAM) * centimetres))
    return np.stack(rows).reshape(len(rows), POINTS, FINE).mean(2)


def _voxels(discs: np.ndarray, density: np.ndarray) -> dict[str, np.ndarray]:
    fine = (np.arange(POINTS * 8) + 0.5) / 8 - POINTS / 2
    x, y = fine[None, :, None], fine[:, None, None]
    inside = ((x - discs[:, 0]) ** 2 + (y - discs[:, 1]) ** 2 < discs[:, 2] ** 2) @ density
    means = inside.reshape(POINTS, 8, POINTS, 8, -1).mean((1, 3))
    return {name: means[None, ..., c] for c, name in enumerate(COMPONENTS)}

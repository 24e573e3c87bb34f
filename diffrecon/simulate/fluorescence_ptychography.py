"""Simulated far-field frames and counts of iron and calcium at the same positions: grains and filaments on carbon.

Independent of the model it is to test: float64 NumPy, an object of pixels half as large, a probe that is evaluated from
its pupil at every position (annular, defocused, aberrated), exit waves whose spectrum the detector sees half of.
"""

from pathlib import Path
from typing import Any

import numpy as np

from ..io import new_hdf5
from ..physics import energy_to_wavelength
from ._truth import read_truth

__all__ = ["judge", "write"]

FRAME, SCAN, STEP, FINE = 48, 14, 4.0, 2  # pixels of a frame, points along each axis, pixels between, fine pixels
PIXEL, ENERGY, PHOTONS, BACKGROUND = 15e-9, 10e3, 5e5, 0.02  # [m], [eV], of a frame, counts of a pixel
PUPIL, DEFOCUS = 9.0, 7.0  # radius [frequencies of the patch], phase at its edge [rad]
ELEMENTS, AREAL = ("Fe", "Ca"), (3e-4, 4e-4)  # [g/cm^2] where there is most
LINES, PRODUCTION, EFFICIENCY, SHARE = (6400.8, 3691.1), (45.413, 10.584), (0.95, 0.8), 0.08  # Elam's tables
INDEX = ((1.92701e-6, 1.65910e-7), (2.11069e-6, 8.96575e-8))  # delta, beta at 1 g/cm^3 and 10 keV
CARBON, OF_CARBON = (2.07e-6, 2.0e-9), 6e-5  # the same; [g/cm^2], a third of it varies


def write(path: str | Path, seed: int = 0) -> dict[str, np.ndarray]:
    """Write frames, counts, positions and tables; the truth lies under `/truth`.

    **Returns:** the truth: areal densities [g/cm^2] of `Fe`, `Ca` on the object's pixels, `phase` [rad], `counts`
    expected of each element and view.
    """
    random = np.random.default_rng(seed)
    grid = np.stack(np.meshgrid(*2 * [np.arange(SCAN) * STEP], indexing="ij"), -1).reshape(-1, 2)
    positions = 4 + 0.6 * STEP + grid + random.uniform(-0.3, 0.3, grid.shape) * STEP
    size = int(np.ceil(positions.max())) + FRAME + 4
    areal, carbon = _specimen(random, size)
    k = 0.02 * np.pi / energy_to_wavelength(ENERGY)
    tables = np.array([*INDEX, CARBON])
    exponent = -k * np.tensordot((1j * tables[:, 0] + tables[:, 1]), np.concatenate([areal, carbon[None]]), 1)
    pupil = _pupil(random)
    frames, lit = zip(*(_view(place, pupil, np.exp(exponent), areal) for place in positions), strict=True)
    emission = np.array(PRODUCTION) * np.array(EFFICIENCY) * SHARE
    dwell = 1 + 0.03 * random.standard_normal(len(positions))
    clean = PHOTONS * dwell * emission[:, None] * np.array(lit).T
    coarse = lambda fine: fine.reshape(*fine.shape[:-2], size, FINE, size, FINE).mean((-3, -1))
    truth = dict(zip(ELEMENTS, coarse(areal), strict=True)) | {"phase": coarse(exponent.imag), "counts": clean}
    with new_hdf5(path) as file:
        file.attrs.update(energy_eV=ENERGY, pixel_m=PIXEL, photons_mean=PHOTONS)
        counts = random.poisson(np.array(frames) * dwell[:, None, None] + BACKGROUND)
        file.create_dataset("frames", data=counts.astype(np.uint16), compression="gzip")
        file["positions_px"], file["dwell"], file["object_shape"] = positions, dwell, np.array([size, size])
        file["xrf/elements"], file["xrf/counts"] = np.array(ELEMENTS, "S"), random.poisson(clean).astype(np.uint32)
        file["xrf/line_eV"], file["xrf/production_cm2_per_g"] = np.array(LINES), np.array(PRODUCTION)
        file["xrf/efficiency"], file["xrf/delta_beta_per_g_cm3"] = np.array(EFFICIENCY), np.array(INDEX)
        file["xrf"].attrs["solid_angle_fraction"] = SHARE
        for name, values in truth.items():
            file[f"truth/{name}"] = values
    return truth


def judge(path: str | Path, result: Any) -> list[str]:
    """Compare areal densities with the truth in the file, where it was scanned: relative error, mass, correlation.

    The object may lie a pixel beside the truth, as the probe may: it is moved onto it first, by whole pixels.
    """
    lines, edge = [], (FRAME // 2 + 2)
    box = (slice(edge, -edge),) * 2
    found = [np.asarray(result[name], float) for name in ELEMENTS]
    true = read_truth(path, *ELEMENTS)
    moves = [(i, j) for i in range(-3, 4) for j in range(-3, 4)]
    away = lambda move: sum(np.sum((np.roll(f, move, (0, 1)) - t)[box] ** 2) for f, t in zip(found, true, strict=True))
    best = min(moves, key=away)
    for name, image, truth in zip(ELEMENTS, found, true, strict=True):
        image, truth = np.roll(image, best, (0, 1))[box], truth[box]
        error, together = (
            np.linalg.norm(image - truth) / np.linalg.norm(truth),
            np.corrcoef(image.ravel(), truth.ravel()),
        )
        lines.append(
            f"{name} against the truth: relative error {error:.3f}, mass {image.sum() / truth.sum():.4f} of it, "
            f"correlation {together[0, 1]:.3f}"
        )
    return lines


def _specimen(random: np.random.Generator, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Areal densities of iron grains and calcium filaments, and of carbon, on the fine grid [g/cm^2]."""
    n, margin = size * FINE, FRAME * FINE // 2
    y, x = np.mgrid[:n, :n].astype(float)
    span = n - 2 * margin
    place = lambda: margin + random.uniform(0, span, 2)
    iron, calcium = np.zeros((2, n, n))
    for radius in (*random.uniform(6, 13, 7), *random.uniform(2, 4, 22)):
        row, column = place()
        inside = np.clip(radius - np.hypot(y - row, x - column) + 0.5, 0, 1)
        iron = np.maximum(iron, random.uniform(0.4, 1) * inside)
    for _ in range(11):
        start, end = place(), place()
        way = end - start
        along = np.clip(((y - start[0]) * way[0] + (x - start[1]) * way[1]) / (way @ way), 0, 1)
        distance = np.hypot(y - start[0] - along * way[0], x - start[1] - along * way[1])
        calcium = np.maximum(calcium, random.uniform(0.4, 1) * np.clip(random.uniform(1.5, 3.5) - distance + 0.5, 0, 1))
    waves = np.zeros((n, n))
    for _ in range(12):
        fy, fx, turn = *random.normal(0, 0.012, 2), random.uniform(0, 2 * np.pi)
        waves += np.cos(2 * np.pi * (fy * y + fx * x) + turn)
    return np.stack([iron * AREAL[0], calcium * AREAL[1]]), OF_CARBON * (1 + waves / 3 / waves.std())


def _pupil(random: np.random.Generator) -> np.ndarray:
    """An annular pupil on the whole frequencies of the patch, defocused and aberrated, of unit power in the patch."""
    f = np.arange(FRAME) - FRAME // 2
    fy, fx = f[:, None], f[None]
    radius, angle = np.hypot(fy, fx) / PUPIL, np.arctan2(fy, fx)
    ring = np.clip((1 - radius) * PUPIL / 1.5 + 0.5, 0, 1) * np.clip((radius - 0.3) * PUPIL / 1.5 + 0.5, 0, 1)
    a, b = random.normal(0, 0.6, 2)
    pupil = ring * np.exp(
        1j * (DEFOCUS * radius**2 + a * radius**3 * np.cos(3 * angle) + b * radius**2 * np.cos(2 * angle))
    )
    return pupil / np.sqrt(np.sum(abs(pupil) ** 2)) / FRAME


def _view(
    place: np.ndarray, pupil: np.ndarray, transmission: np.ndarray, areal: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Expected counts of a frame without a background, and the areal densities in its light."""
    corner = np.floor(place * FINE).astype(int)
    rest, f = place - corner / FINE, np.arange(FRAME) - FRAME // 2
    fine = (np.arange(FRAME * FINE) - (FINE - 1) / 2) / FINE - (FRAME - 1) / 2
    rows, columns = (np.exp(2j * np.pi * np.outer(fine - shift, f) / FRAME) for shift in rest)
    probe = rows @ pupil @ columns.T / FINE
    part = (..., *(slice(c, c + FRAME * FINE) for c in corner))
    spectrum = np.fft.fft2(probe * transmission[part], norm="ortho")
    inner = np.r_[: FRAME // 2, FRAME * FINE - FRAME // 2 : FRAME * FINE]
    light = abs(probe) ** 2
    return PHOTONS * abs(spectrum[np.ix_(inner, inner)]) ** 2, np.sum(light * areal[part], (1, 2)) / light.sum()

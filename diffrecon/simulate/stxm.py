"""A simulated scan of a scanning transmission microscope: a lens, a ball, an absorber and a patch of fine powder.

Independent of what reads it: exit waves on a grid in float64, one far-field pattern a point by a discrete Fourier
transform, a focused probe of flat phase with soft edges of its pupil, a beam whose monitor follows its changes, Poisson
noise. The powder is a random phase that scatters because the wave is propagated.
"""

from pathlib import Path
from typing import Any

import numpy as np

from .. import physics
from ..geometry import FarField
from ..scan import Scan
from ._truth import read_truth, write_with_truth

__all__ = ["judge", "write"]

POINTS, STEP, FRAME = 32, 4, 48  # along a side of the scan, samples between them, detector pixels
SAMPLE, ENERGY, DETECTOR = 20e-9, 8e3, 75e-6  # [m], [eV], [m]
PUPIL, PHOTONS = 3.0, 1e5  # radius of the beam on the detector [pixel], in the empty beam at every point
POWDER, VARIANCE = 1.6, 0.2  # correlation length [sample] and variance [rad^2] of the random phase


def write(path: str | Path, seed: int = 0) -> dict[str, np.ndarray]:
    """Write frames at the points of a raster that `open_scan` reads as they are, with the truth under `/truth`.

    **Returns:** the truth, light-weighted over the probe: `transmission`, `alpha_x`, `alpha_y`, `phase` [rad],
    `darkfield` [rad^2], `(y, x)`.
    """
    random = np.random.default_rng(seed)
    phase, absorption, patch = _sample(random)
    wave = np.exp(1j * (phase + np.sqrt(patch) * _rough(random, phase.shape)) - absorption)
    probe, places = _probe(), np.arange(POINTS) * STEP
    monitor = 1 + 0.03 * np.sin(np.arange(POINTS**2) / 40)
    frames = np.empty((POINTS**2, FRAME, FRAME), np.uint16)
    for number, (row, column) in enumerate(np.stack(np.meshgrid(places, places, indexing="ij"), -1).reshape(-1, 2)):
        exit_wave = probe * wave[row : row + FRAME, column : column + FRAME]
        pattern = np.abs(np.fft.fftshift(np.fft.fft2(exit_wave, norm="ortho"))) ** 2
        frames[number] = random.poisson(monitor[number] * PHOTONS * pattern)
    wavelength = physics.HC / ENERGY
    positions = np.stack(np.meshgrid(places, places, indexing="ij"), -1).reshape(-1, 2) * SAMPLE
    scan = Scan.from_arrays(
        frames, positions=positions, method="stxm",
        geometry=FarField(FRAME, ENERGY, FRAME * SAMPLE * DETECTOR / wavelength, DETECTOR),
        extra={"monitor": 500 * monitor, "dc": "centre"},
    )  # fmt: skip
    truth = _truth(np.abs(probe) ** 2, phase, absorption, patch, places, wavelength / (2 * np.pi))
    write_with_truth(path, scan, truth)
    return truth


def judge(path: str | Path, result: Any) -> list[str]:
    """Compare the maps with the truth in the file; angles and phase without what empty points leave open."""
    names = ("alpha_x", "alpha_y", "phase", "transmission", "darkfield")
    truth = dict(zip(names, read_truth(path, *names), strict=True))
    lines = []
    for name in names[:3]:
        found, true = (np.asarray(a, float) - np.median(a) for a in (result[name], truth[name]))
        found -= np.mean(found - true)
        lines.append(
            f"{name} against the truth: relative error {np.linalg.norm(found - true) / np.linalg.norm(true):.3f}, "
            f"slope {(found * true).sum() / (true**2).sum():.3f}"
        )
    lines.append(f"transmission: rms error {np.std(np.asarray(result['transmission']) - truth['transmission']):.4f}")
    powder = truth["darkfield"] > 0.9 * truth["darkfield"].max()
    found = np.mean(np.asarray(result["darkfield"])[powder])
    lines.append(f"darkfield of the powder: {found / truth['darkfield'][powder].mean():.2f} of the truth")
    return lines


# ---------------------------------------------------------------------------------------------------- parts
def _sample(random: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Phase, absorption and variance of the powder."""
    size = (POINTS - 1) * STEP + FRAME
    y, x = (np.indices((size, size)) - (size - 1) / 2) / (POINTS * STEP)
    near = lambda row, column: np.hypot(y - row - random.uniform(-0.02, 0.02), x - column - random.uniform(-0.02, 0.02))
    lens = -3.0 * np.exp(-(near(-0.2, -0.2) ** 2) / (2 * 0.1**2))
    ball = -2.5 * np.sqrt(np.clip(1 - (near(0.2, -0.2) / 0.15) ** 2, 0, None))
    film = 1 / (1 + np.exp((near(-0.2, 0.22) - 0.12) / 0.01))
    patch = VARIANCE / (1 + np.exp((near(0.2, 0.22) - 0.14) / 0.01))
    return lens + ball - 0.5 * film, -0.01 * (lens + ball) + 0.1 * film, patch


def _rough(random: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """A Gaussian random field of unit variance with the correlation `exp(-r^2 / (2 POWDER^2))`."""
    f = np.hypot(np.fft.fftfreq(shape[0])[:, None], np.fft.fftfreq(shape[1])[None])
    gain = np.exp(-((np.pi * POWDER * f) ** 2))
    field = np.fft.ifft2(np.fft.fft2(random.standard_normal(shape)) * gain).real
    return field / field.std()


def _probe() -> np.ndarray:
    """A focus in the middle of the frame: no phase but that of its sign."""
    frequency = np.fft.fftfreq(FRAME) * FRAME
    radius = np.hypot(frequency[:, None], frequency[None])
    focus = np.fft.fftshift(np.fft.ifft2(1 / (1 + np.exp((radius - PUPIL) / 0.4)))).real
    return focus / np.linalg.norm(focus)


def _truth(
    light: np.ndarray, phase: np.ndarray, absorption: np.ndarray, patch: np.ndarray, places: np.ndarray, length: float
) -> dict[str, np.ndarray]:
    passed, slopes = np.exp(-2 * absorption), np.gradient(phase, SAMPLE)
    at = lambda image: np.array([[(light * image[r : r + FRAME, c : c + FRAME]).sum() for c in places] for r in places])
    transmission = at(passed)
    return {
        "transmission": transmission,
        "alpha_y": at(passed * slopes[0]) / transmission * length,
        "alpha_x": at(passed * slopes[1]) / transmission * length,
        "phase": at(phase),
        "darkfield": at(passed * patch) / transmission * (length / (POWDER * SAMPLE)) ** 2,
    }

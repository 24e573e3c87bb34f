"""Near-field ptychography of a Siemens star and spheres in a cone beam with structured illumination, as at ID16A.

Independent of `diffrecon.operators`: analytic object sampled finer than the reconstruction, twice the detector's
sampling and twice its field, detector pixels integrated, Poisson noise, motor errors, plain float64 NumPy.
"""

from pathlib import Path

import h5py
import numpy as np

from .._result import Result
from ..io import new_hdf5
from ..physics import ELECTRON_CHARGE, energy_to_wavelength

ENERGY = 17000.0  # [eV]
FOCUS_TO_SAMPLE = 60e-3  # [m]
FOCUS_TO_DETECTOR = 1.28  # [m]
DETECTOR_PIXEL = 8e-6  # [m]
FRAME = 128
VIEWS = 8  # along each axis
STEP = 9.0  # [pixel]
SETTINGS = ("geometry.focus_to_sample=60 mm",)  # what CXI has no place for
POSITION_ERROR = 0.5  # [pixel], of the motors, unknown to the reconstruction
COUNTS = 1500.0  # in the middle of the beam
FINE = 2  # samples a detector pixel, along each axis

MAGNIFICATION = FOCUS_TO_DETECTOR / FOCUS_TO_SAMPLE
PIXEL = DETECTOR_PIXEL / MAGNIFICATION


def write(path: Path, seed: int = 0) -> dict[str, np.ndarray]:
    """Simulate and write a CXI file."""
    rng = np.random.default_rng(seed)
    nominal = _raster(rng)
    actual = nominal + POSITION_ERROR * rng.standard_normal(nominal.shape)
    actual += nominal.mean(0) - actual.mean(0)
    frames = _frames(actual, _probe(rng), seed)
    counts = rng.poisson(frames + 0.5)
    _write_cxi(path, counts, nominal, actual, seed)
    return {"positions": actual, "seed": np.asarray(seed), "mean_counts": np.asarray(counts.mean())}


def _raster(rng: np.random.Generator) -> np.ndarray:
    """A raster with jitter, which avoids the raster's own artefacts; (row, column) [pixel], about zero."""
    axis = (np.arange(VIEWS) - (VIEWS - 1) / 2) * STEP
    grid = np.stack(np.meshgrid(axis, axis, indexing="ij"), -1).reshape(-1, 2)
    return grid + 0.3 * STEP * rng.uniform(-1, 1, grid.shape)


def _grid() -> np.ndarray:
    """Sample coordinates of the fine grid [pixel], about zero."""
    count = 2 * FRAME * FINE
    return (np.arange(count) - (count - 1) / 2) / FINE


def _probe(rng: np.random.Generator) -> np.ndarray:
    """A soft aperture behind a random phase plate, slightly curved; amplitude in sqrt(counts a detector pixel)."""
    u = _grid()
    radius = np.hypot(u[:, None], u[None])
    aperture = 1 / (1 + np.exp((radius - 38) / 2.0))
    f2 = np.fft.fftfreq(u.size, 1 / FINE)[:, None] ** 2 + np.fft.fftfreq(u.size, 1 / FINE)[None] ** 2
    noise = np.fft.ifft2(np.fft.fft2(rng.standard_normal(radius.shape)) * np.exp(-2 * (np.pi * 3.0) ** 2 * f2)).real
    plate = 1.5 * noise / noise.std()
    return np.sqrt(COUNTS) * aperture * np.exp(1j * (plate + 2e-4 * radius**2))


def transmission(y: np.ndarray, x: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Give phase [rad] and amplitude exponent B of the object at sample coordinates `y` (n, 1) and `x` (1, m)
    [pixel]."""
    phase, attenuation = np.zeros((2, y.shape[0], x.shape[1]))
    near = np.ix_(abs(y[:, 0]) < 46, abs(x[0]) < 46)  # most of the field is beyond the star
    radius, angle = np.hypot(y[near[0], [[0]]], x[[[0]], near[1]]), np.arctan2(y[near[0], [[0]]], x[[[0]], near[1]])
    star = (np.cos(18 * angle) > 0) & (radius > 5) & (radius < 46)
    star &= ~((radius > 20) & (radius < 22))
    phase[near], attenuation[near] = -0.5 * star, 0.03 * star
    rng = np.random.default_rng(1000 + seed)
    for _ in range(14):
        cy, cx, a = *rng.uniform(-48, 48, 2), rng.uniform(3, 9)
        here = np.ix_(abs(y[:, 0] - cy) < a, abs(x[0] - cx) < a)
        chord = 2 * np.sqrt(np.clip(a**2 - (y[here[0], [[0]]] - cy) ** 2 - (x[[[0]], here[1]] - cx) ** 2, 0, None))
        phase[here] -= 0.05 * chord
        attenuation[here] += 2e-4 * chord
    return phase, attenuation


def _supersampled(
    y: np.ndarray, x: np.ndarray, width: float, seed: int, count: int = 2
) -> tuple[np.ndarray, np.ndarray]:
    """Mean of phase and exponent over cells of a width, by count x count samples."""
    offsets = ((np.arange(count) + 0.5) / count - 0.5) * width
    parts = [transmission(y[:, None] + dy, x[None] + dx, seed) for dy in offsets for dx in offsets]
    return np.mean([p for p, _ in parts], axis=0), np.mean([b for _, b in parts], axis=0)


def _frames(positions: np.ndarray, probe: np.ndarray, seed: int) -> np.ndarray:
    u = _grid()
    wavelength = energy_to_wavelength(ENERGY)
    distance = (FOCUS_TO_DETECTOR - FOCUS_TO_SAMPLE) / MAGNIFICATION
    f2 = np.fft.fftfreq(u.size, PIXEL / FINE) ** 2
    kernel = np.exp(-1j * np.pi * wavelength * distance * (f2[:, None] + f2[None]))
    edge = (2 * FRAME - FRAME) // 2 * FINE
    frames = []
    for row, column in positions:
        phase, exponent = _supersampled(u + row, u + column, 1 / FINE, seed)
        wave = np.fft.ifft2(np.fft.fft2(probe * np.exp(1j * phase - exponent)) * kernel)
        fine = abs(wave[edge:-edge, edge:-edge]) ** 2
        frames.append(fine.reshape(FRAME, FINE, FRAME, FINE).mean((1, 3)))
    return np.array(frames)


def _write_cxi(path: Path, counts: np.ndarray, nominal: np.ndarray, actual: np.ndarray, seed: int) -> None:
    """CXI as beamlines write it: energy in joules, mask 1 = bad, translation of the sample (x, y, z) in metres."""
    with new_hdf5(path) as file:
        file["cxi_version"] = 160
        detector = file.create_group("entry_1/instrument_1/detector_1")
        detector.create_dataset("data", data=counts.astype("u2"), chunks=(1, FRAME, FRAME), compression="gzip")
        detector["mask"] = np.zeros((FRAME, FRAME), "u4")
        detector["distance"] = FOCUS_TO_DETECTOR - FOCUS_TO_SAMPLE
        detector["x_pixel_size"] = detector["y_pixel_size"] = DETECTOR_PIXEL
        # Fast and slow axes of the detector, as most beamlines have them: rows down, columns against x.
        detector["basis_vectors"] = np.array([[0, -DETECTOR_PIXEL], [-DETECTOR_PIXEL, 0], [0, 0]])
        file["entry_1/instrument_1/source_1/energy"] = ENERGY * ELECTRON_CHARGE
        metres = nominal * PIXEL
        file["entry_1/sample_1/geometry_1/translation"] = np.stack([metres[:, 1], metres[:, 0], 0 * metres[:, 0]], 1)
        file["truth/positions"], file["truth/seed"] = actual, seed


def judge(path: Path, result: Result) -> list[str]:
    """Measure the error of the phase where the light is, and of the positions, against the truth.

    What data cannot tell is removed first: constant and ramp of the phase, which the probe can carry, and its
    curvature, which a stretch of the scan by a fraction of a pixel compensates.
    """
    with h5py.File(path, "r") as file:
        actual, seed = np.asarray(file["truth/positions"]), int(np.asarray(file["truth/seed"]))
        stored = np.asarray(file["entry_1/sample_1/geometry_1/translation"])
    moved = result["positions"] / PIXEL - actual
    origin = moved.mean(0) + (FRAME - 1) / 2  # object pixel of the sample's coordinate zero
    phase = result["phase"]
    y, x = (np.arange(n) - o for n, o in zip(phase.shape, origin, strict=True))
    truth, _ = _supersampled(y, x, 1.0, seed, 4)
    seen = np.isfinite(phase)
    rows, columns = (a[seen] / 64 for a in np.meshgrid(y, x, indexing="ij"))
    free = np.stack([np.ones(rows.size), rows, columns, rows**2, rows * columns, columns**2], 1)
    error = phase[seen] - truth[seen]
    error -= free @ np.linalg.lstsq(free, error, rcond=None)[0]
    scale = np.linalg.norm(truth[seen] - truth[seen].mean())
    nominal = stored[:, [1, 0]] / PIXEL
    before = np.sqrt(np.mean((nominal - actual) ** 2))
    after = np.sqrt(np.mean((moved - moved.mean(0)) ** 2))
    return [
        f"against the truth: phase error {np.sqrt(np.mean(error**2)):.4f} rad rms, "
        f"relative {np.linalg.norm(error) / scale:.3f}, over {seen.mean():.0%} of the field",
        f"against the truth: positions {before:.2f} pixel rms before, {after:.3f} after",
    ]

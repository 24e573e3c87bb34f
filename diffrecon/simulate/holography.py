"""A simulated holography experiment: ellipsoids of two materials before a focused 17 keV beam, four distances.

Independent of the forward model it is to test: NumPy in float64, analytic thicknesses on a grid three times finer than
the reconstruction's, wider vacuum, exact integration over each detector's own pixels, Poisson noise.
"""

from pathlib import Path
from typing import Any

import numpy as np

from .. import quality
from ..geometry import ConeBeam
from ..scan import Scan
from ._truth import read_truth, write_with_truth

__all__ = ["judge", "write"]

ENERGY = 17e3  # [eV]
FOCUS_TO_DETECTOR = 1.28  # [m]
FOCUS_TO_SAMPLE = np.array([21.333333, 22.2, 25.9, 33.2]) * 1e-3
DETECTOR_PIXEL = 3e-6
FRAME = 256
FLUX = 4000.0  # counts a pixel of the empty beam
OVERSAMPLING = 3
EDGE = 20e-9  # Gaussian softness of all edges [m], standard deviation
# delta and beta at 17 keV (tables of Elam and Chantler): a resin of 1.19 g/cm^3, silica of 2.2 g/cm^3
RESIN, SILICA = (9.22e-7, 3.6e-10), (1.583e-6, 4.5e-9)


def write(path: str | Path, seed: int = 0) -> dict[str, np.ndarray]:
    """Write four holograms that `open_scan` reads as they are, with the truth under `/truth`.

    **Returns:** the truth: `phase` [rad] and `attenuation`, averaged over the pixels of the finest distance, `(y, x)`.

    Cost: about five seconds.
    """
    random = np.random.default_rng(seed)
    place = ConeBeam(ENERGY, FOCUS_TO_SAMPLE, FOCUS_TO_DETECTOR, DETECTOR_PIXEL)
    fine = float(place.pixel_size[0]) / OVERSAMPLING
    size = 2048
    phase, attenuation = resin_object(random, size, fine, 2 * np.pi / place.wavelength)
    counts = random.poisson(FLUX * holograms(phase, attenuation, fine, place)).astype(np.uint16)
    truth = {"phase": binned(phase), "attenuation": binned(attenuation)}
    write_with_truth(path, Scan.from_arrays(counts, method="holography", geometry=place, flux=FLUX), truth)
    return truth


def judge(path: str | Path, result: Any) -> list[str]:
    """Compare the reconstructed phase with the truth in the file: relative error without the constant, resolution."""
    (truth,) = read_truth(path, "phase")
    pixel = float(DETECTOR_PIXEL * FOCUS_TO_SAMPLE.min() / FOCUS_TO_DETECTOR)
    inner = (slice(8, -8), slice(8, -8))
    found, truth = (np.asarray(a, float)[inner] for a in (result["phase"], truth))
    error = found - truth
    relative = np.linalg.norm(error - error.mean()) / np.linalg.norm(truth - truth.mean())
    correlation = quality.ring_correlation(truth, found, pixel_size=pixel)
    return [
        f"phase against the truth: relative error {relative:.4f} (constant removed), rms {error.std() * 1e3:.1f} mrad "
        f"of {np.ptp(truth):.2f} rad",
        f"resolution against the truth (half-bit ring correlation): {(correlation.resolution or 0) * 1e9:.0f} nm half "
        f"period, pixel {pixel * 1e9:.0f} nm",
    ]


# ---------------------------------------------------------------------------------------------------- the object
def resin_object(
    random: np.random.Generator, size: int, pixel: float, wavenumber: float
) -> tuple[np.ndarray, np.ndarray]:
    """Make phase and attenuation of a flat resin body with pores, and silica grains in it that displace the resin."""
    axis = (np.arange(size) - (size - 1) / 2) * pixel * 1e6
    resin = _ellipsoid(axis, 0.0, 0.0, 4.2, 3.6, 6.0)
    silica = np.zeros_like(resin)
    for index in range(40):
        distance, turn = 3.0 * np.sqrt(random.random()), 2 * np.pi * random.random()
        radius = random.uniform(0.1, 0.7) if index % 4 else random.uniform(0.4, 1.1)
        grain = _ellipsoid(
            axis,
            distance * np.cos(turn),
            0.85 * distance * np.sin(turn),
            radius,
            radius * random.uniform(0.6, 1.0),
            0.8 * radius,
        )
        resin -= grain * (0.7 if index % 4 else 1.0)
        silica += grain * (index % 4 == 0)
    maps = [wavenumber * (RESIN[i] * resin + SILICA[i] * silica) for i in (0, 1)]
    phase, attenuation = (_softened(m, pixel) for m in (-maps[0], maps[1]))
    return phase, attenuation


def _ellipsoid(axis: np.ndarray, x: float, y: float, a: float, b: float, c: float) -> np.ndarray:
    """Projected thickness [m] of an ellipsoid; coordinates and half axes in micrometres."""
    inside = 1 - ((axis[None] - x) / a) ** 2 - ((axis[:, None] - y) / b) ** 2
    return 2e-6 * c * np.sqrt(np.clip(inside, 0, None))


def _softened(image: np.ndarray, pixel: float) -> np.ndarray:
    gauss = [
        np.exp(-2 * (np.pi * EDGE * f(n, pixel)) ** 2)
        for n, f in zip(image.shape, (np.fft.fftfreq, np.fft.rfftfreq), strict=True)
    ]
    return np.fft.irfft2(np.fft.rfft2(image) * gauss[0][:, None] * gauss[1], s=image.shape)


def binned(image: np.ndarray) -> np.ndarray:
    """Take the mean over the reconstruction's pixels, on the field of view of the finest distance."""
    start = (image.shape[0] - FRAME * OVERSAMPLING) // 2
    part = image[start : start + FRAME * OVERSAMPLING, start : start + FRAME * OVERSAMPLING]
    return part.reshape(FRAME, OVERSAMPLING, FRAME, OVERSAMPLING).mean((1, 3))


# ---------------------------------------------------------------------------------------------------- the experiment
def holograms(phase: np.ndarray, attenuation: np.ndarray, pixel: float, place: ConeBeam) -> np.ndarray:
    """Compute the mean intensities at all distances; the cone beam as a parallel one of effective distance and
    pixel."""
    scattered = np.fft.fft2(np.exp(1j * phase - attenuation) - 1)
    square = np.fft.fftfreq(phase.shape[0], pixel) ** 2
    frames = []
    for distance, detector in zip(place.distance, place.pixel_size, strict=True):
        chirp = np.exp(-1j * np.pi * place.wavelength * distance * square)
        intensity = np.abs(1 + np.fft.ifft2(scattered * chirp[:, None] * chirp)) ** 2
        frames.append(_detected(intensity, pixel, float(detector)))
    return np.stack(frames)


def _detected(intensity: np.ndarray, pixel: float, detector: float) -> np.ndarray:
    """Exact integration of a periodic, band-limited intensity over the detector's pixels."""
    size = intensity.shape[0]
    frequency = np.fft.fftfreq(size, pixel)
    centres = (np.arange(FRAME) - (FRAME - 1) / 2) * detector + (size - 1) / 2 * pixel
    kernel = np.exp(2j * np.pi * np.outer(centres, frequency)) * np.sinc(frequency * detector) / size
    return (kernel @ np.fft.fft2(intensity) @ kernel.T).real

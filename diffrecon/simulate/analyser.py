"""A simulated scan of an analyser crystal: lens, ball, film and powder before a crystal turned over its rocking curve.

The crystal is the complex reflectivity of a thick perfect one, flat at its top and with long tails, that multiplies the
wave's angular spectrum along x. The beam comes off another such crystal: all its directions add up as intensities.
Angles and doses err.
"""

from pathlib import Path

import numpy as np

from ..geometry import ParallelBeam
from ..scan import Scan
from ._truth import write_with_truth
from .differential_phase import COUNTS, ENERGY, Waves, judge, powder_of, refraction_truth, sample_of

__all__ = ["judge", "write"]

FRAME, PIXEL, FINE, MARGIN, DISTANCE = 80, 20e-6, 12, 4, 0.25  # pixels, [m], samples a pixel, pixels around, [m]
HALF_WIDTH, LOSS, BLUR = 1.4e-6, 0.01, 0.55  # of the flat top [rad], absorption of the crystal, detector [pixel]
ANGLES = np.linspace(-7.5e-6, 7.5e-6, 11)  # of the crystal [rad]
STRENGTH, VARIANCE, POWDER = 3.0, 0.6, 4.4e-6  # of lens and ball; of the powder [rad^2], its correlation length [m]
RAYS = np.arange(-32, 33) * 0.375e-6  # directions off the middle of the curve that are added up [rad]


def write(path: str | Path, seed: int = 0) -> dict[str, np.ndarray]:
    """Write reference and sample frames that `open_scan` reads as they are, with the truth under `/truth`.

    **Returns:** the truth: `phase` [rad], `alpha_x`, `alpha_y` [rad], `transmission`, `darkfield` (the powder's
    variance of angles beside that of the rocking curve), and `smooth` (no edge within three pixels), `(y, x)`.
    """
    random = np.random.default_rng(seed)
    waves = Waves(FRAME, PIXEL, FINE, MARGIN)
    phase, absorption, patch, edges = sample_of(waves, random, STRENGTH, VARIANCE)
    behind = np.exp(1j * (phase + powder_of(waves, random, patch, POWDER)) - absorption)
    spectrum = np.fft.fft(waves.propagate(behind, DISTANCE), axis=1)
    angle = waves.wavelength * waves.frequency
    reflected = lambda ray: np.abs(np.fft.ifft(spectrum * reflectivity(angle + ray)[None], axis=1)) ** 2
    images = np.array([waves.camera(reflected(ray), BLUR) for ray in RAYS])
    empty = np.broadcast_to((np.abs(reflectivity(RAYS)) ** 2)[:, None, None], images.shape)
    stacks = {
        "reference": _scan(random, empty, ANGLES),
        "sample": _scan(random, images, ANGLES + random.uniform(-1.5e-7, 1.5e-7)),
    }
    scan = Scan.from_arrays(
        stacks["sample"], method="analyser", geometry=ParallelBeam(PIXEL, ENERGY, DISTANCE),
        extra={"reference": stacks["reference"], "steps": ANGLES, "reference_steps": ANGLES},
    )  # fmt: skip
    # The variance of the slopes of the powder's phase, which is 1.25 / length^2 a unit of its own variance.
    scattered = 1.25 * waves.binned(patch) * (waves.wavelength / (2 * np.pi * POWDER)) ** 2
    truth = refraction_truth(waves, phase, edges) | {
        "transmission": waves.binned(np.exp(-2 * absorption)),
        "darkfield": np.exp(-scattered / (2 * _curve_variance())),
    }
    write_with_truth(path, scan, truth)
    return truth


def reflectivity(angle: np.ndarray) -> np.ndarray:
    """Amplitude that a thick perfect crystal reflects at so many radians off its middle (Darwin's curve, symmetric)."""
    eta = angle / HALF_WIDTH + 1j * LOSS
    root = np.sqrt(eta**2 - 1)
    return np.where(np.abs(eta + root) < 1, eta + root, eta - root)


def _light(position: float) -> np.ndarray:
    """Give how much comes in the directions that are `RAYS` to a crystal turned this far: another crystal's curve."""
    light = np.abs(reflectivity(RAYS + position)) ** 2
    return light / np.sum(np.abs(reflectivity(RAYS)) ** 2)


def _curve_variance() -> float:
    """Variance of the rocking curve above its feet [rad^2]."""
    curve = np.array([_light(position) @ np.abs(reflectivity(RAYS)) ** 2 for position in ANGLES])
    curve = curve - curve.min()
    return float(curve @ ANGLES**2 / curve.sum())


def _scan(random: np.random.Generator, images: np.ndarray, angles: np.ndarray) -> np.ndarray:
    """Turn the crystal."""
    frames = []
    for position in angles + 6e-8 * random.standard_normal(len(angles)):
        dose = COUNTS * (1 + 0.005 * random.standard_normal())
        frames.append(random.poisson(dose * np.tensordot(_light(position), images, 1)))
    return np.asarray(frames, np.uint16)

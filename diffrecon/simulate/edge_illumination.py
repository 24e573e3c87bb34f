"""A simulated edge-illumination scan: a mask makes beamlets, lens, ball, film and powder move and widen them.

Waves pass the apertures of a mask, one a pixel, and the sample; propagated to the detector they are cut by the slits
of a second mask, which is moved. What the beamlets do is what propagation does; positions and doses err.
"""

from pathlib import Path

import numpy as np

from ..geometry import ParallelBeam
from ..scan import Scan
from ._truth import write_with_truth
from .differential_phase import COUNTS, ENERGY, Waves, judge, lost_of, powder_of, refraction_truth, sample_of

__all__ = ["judge", "write"]

FRAME, PIXEL, FINE, MARGIN, DISTANCE = 72, 24e-6, 24, 4, 0.6  # pixels, [m], samples a pixel, pixels around, [m]
APERTURE, SLIT, SOFT = 8e-6, 12e-6, 0.8e-6  # of the masks, their edges [m]
SOURCE, BLUR = 2.5e-6, 0.25  # source seen in a beamlet [m], detector [pixel]
REFERENCE, SAMPLE = np.linspace(-14e-6, 14e-6, 15), np.linspace(-9e-6, 9e-6, 5)  # positions of the second mask [m]
STRENGTH, VARIANCE, POWDER = 6.0, 1.0, 2.2e-6  # of lens and ball; of the powder [rad^2], its correlation length [m]


def write(path: str | Path, seed: int = 0) -> dict[str, np.ndarray]:
    """Write reference and sample frames that `open_scan` reads as they are, with the truth under `/truth`.

    **Returns:** the truth as the apertures see it: `phase` [rad], `alpha_x`, `alpha_y` [rad], `transmission`,
    `darkfield` (of the mask's period), and `smooth` (no edge within three pixels), `(y, x)`.
    """
    random = np.random.default_rng(seed)
    waves = Waves(FRAME, PIXEL, FINE, MARGIN)
    phase, absorption, patch, edges = sample_of(waves, random, STRENGTH, VARIANCE)
    behind = np.exp(1j * (phase + powder_of(waves, random, patch, POWDER)) - absorption)
    passed = 0.02 + 0.98 * _open(waves.place, APERTURE)
    stacks = {}
    for name, wave, drift in (
        ("reference", np.ones_like(behind), 0.0),
        ("sample", behind, random.uniform(-4e-7, 4e-7)),
    ):
        light = waves.blurred(np.abs(waves.propagate(wave * np.sqrt(passed), DISTANCE)) ** 2, SOURCE / PIXEL)
        stacks[name] = _scan(waves, random, light, (REFERENCE if name == "reference" else SAMPLE) + drift)
    scan = Scan.from_arrays(
        stacks["sample"], method="edge-illumination", geometry=ParallelBeam(PIXEL, ENERGY, DISTANCE),
        extra={"reference": stacks["reference"], "steps": SAMPLE, "reference_steps": REFERENCE, "period": PIXEL},
    )  # fmt: skip
    seen = lambda image: waves.binned(passed * image) / waves.binned(np.broadcast_to(passed, image.shape))
    truth = refraction_truth(waves, phase, edges, passed) | {
        "transmission": seen(np.exp(-2 * absorption)),
        "darkfield": np.exp(-seen(patch) * lost_of(waves.wavelength * DISTANCE / PIXEL, POWDER)),  # Yashiro 2010
    }
    write_with_truth(path, scan, truth)
    return truth


def _open(x: np.ndarray, width: float) -> np.ndarray:
    """Give what a mask of one aperture a pixel, in its middle, lets pass along x [m]."""
    cell = (x / PIXEL % 1 - 0.5) * PIXEL  # pixels are even in number: zero is between two
    return (np.tanh((cell + width / 2) / SOFT) - np.tanh((cell - width / 2) / SOFT)) / 2


def _scan(waves: Waves, random: np.random.Generator, light: np.ndarray, positions: np.ndarray) -> np.ndarray:
    """Move the second mask, a hundredth of the light passing its bars."""
    frames = []
    for position in positions + 1.5e-7 * random.standard_normal(len(positions)):
        slits = 0.01 + 0.99 * _open(waves.place - position, SLIT)
        dose = 6 * COUNTS * (1 + 0.004 * random.standard_normal())
        frames.append(random.poisson(dose * waves.camera(light * slits[None], BLUR)))
    return np.asarray(frames, np.uint16)

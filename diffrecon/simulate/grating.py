"""A simulated phase-stepping scan of a grating interferometer: lens, ball, film and powder before two gratings.

Waves pass the sample and a grating of phase-shifting bars, whose self-image at a fractional Talbot distance an
absorbing grating stands in, as a mask that is moved over one period: fringes, their displacement, their loss and the
shear are what propagation does. Steps and doses err, the gratings drift between the scans, and are not quite parallel.
"""

from pathlib import Path

import numpy as np

from .. import physics
from ..geometry import ParallelBeam
from ..scan import Scan
from ._truth import write_with_truth
from .differential_phase import COUNTS, ENERGY, Waves, judge, lost_of, powder_of, refraction_truth, sample_of

__all__ = ["judge", "write"]

FRAME, PIXEL, FINE, MARGIN, STEPS = 112, 4.8e-6, 16, 8, 6  # pixels, [m], samples a pixel, pixels around, frames a scan
BARS, PERIOD, ORDER = 4.8e-6, 2.4e-6, 7  # periods of the gratings [m], order of the Talbot distance
DISTANCE = ORDER * BARS**2 * ENERGY / (8 * physics.HC)  # between the gratings [m]: where bars of half a wave are seen
SHIFT, SOURCE, BLUR = 0.95 * np.pi, 0.4e-6, 0.6  # of the bars [rad], source seen in the fringes [m], detector [pixel]
STRENGTH = 1.5  # of lens and ball


def write(path: str | Path, seed: int = 0) -> dict[str, np.ndarray]:
    """Write reference and sample frames that `open_scan` reads as they are, with the truth under `/truth`.

    **Returns:** the truth: `phase` [rad], `alpha_x`, `alpha_y` [rad], `transmission` as a camera without gratings sees
    it, `darkfield`, and `smooth` (no edge within three pixels), `(y, x)`.
    """
    random = np.random.default_rng(seed)
    waves = Waves(FRAME, PIXEL, FINE, MARGIN)
    phase, absorption, patch, edges = sample_of(waves, random, STRENGTH)
    behind = np.exp(1j * (phase + powder_of(waves, random, patch)) - absorption)
    bars = np.exp(1j * SHIFT * _bars(waves.place / BARS))[None]
    place = _mask_places(waves, random)
    stacks = {}
    for name, wave, drift in (
        ("reference", np.ones_like(behind), 0.0),
        ("sample", behind, random.uniform(-0.04, 0.04)),
    ):
        light = waves.blurred(np.abs(waves.propagate(wave * bars, DISTANCE)) ** 2, SOURCE / PIXEL)
        stacks[name] = _scan(waves, random, light, place, drift)
    steps = {name: np.arange(STEPS) / STEPS for name in ("steps", "reference_steps")}
    scan = Scan.from_arrays(
        stacks["sample"], method="grating", geometry=ParallelBeam(PIXEL, ENERGY, DISTANCE),
        extra={"reference": stacks["reference"], "period": PERIOD, "detector_blur": BLUR, **steps},
    )  # fmt: skip
    bare = np.abs(waves.propagate(np.exp(1j * phase - absorption), DISTANCE)) ** 2
    shear = waves.wavelength * DISTANCE / PERIOD
    truth = refraction_truth(waves, phase, edges) | {
        "transmission": waves.camera(bare, BLUR),
        "darkfield": np.exp(-waves.binned(patch) * lost_of(shear)),  # Yashiro 2010
    }
    write_with_truth(path, scan, truth)
    return truth


def _bars(place: np.ndarray) -> np.ndarray:
    """Bars as wide as their gaps, with soft edges; the place in periods."""
    return 1 / (1 + np.exp(-6 * np.sin(2 * np.pi * place)))


def _mask_places(waves: Waves, random: np.random.Generator) -> np.ndarray:
    """Give where every sample is in the absorbing grating [periods], which is a little turned and too wide: moire."""
    turn, wide = random.uniform(-1.5e-3, 1.5e-3), random.uniform(1.5e-3, 2.5e-3)
    y, x = waves.place[:, None], waves.place[None]
    return (x * np.cos(turn) + y * np.sin(turn)) / (PERIOD * (1 + wide))


def _scan(waves: Waves, random: np.random.Generator, light: np.ndarray, place: np.ndarray, drift: float) -> np.ndarray:
    """Move the mask over its period: a tenth of the light passes its bars."""
    frames = []
    for k in range(STEPS):
        step = k / STEPS + drift + 0.02 * random.standard_normal()
        passed = 0.1 + 0.9 * _bars(place - step)
        dose = 2 * COUNTS * (1 + 0.008 * random.standard_normal())
        frames.append(random.poisson(dose * waves.camera(light * passed, BLUR)))
    return np.asarray(frames, np.uint16)

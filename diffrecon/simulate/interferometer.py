"""A simulated fringe scan of a crystal interferometer: lens, ball, film and powder in one arm, nothing in the other.

The sample and its waves are those of the speckle scan, on a grid four times finer than the pixels; the arms meet as
complex waves. Steps and doses err, the fringes drift between the scans, and the phase turns several times over.
"""

from pathlib import Path
from typing import Any

import numpy as np

from ..geometry import ParallelBeam
from ..scan import Scan
from ._truth import read_truth, write_with_truth
from .differential_phase import (
    COUNTS,
    ENERGY,
    FINE,
    FRAME,
    MARGIN,
    PIXEL,
    Waves,
    powder_of,
    refraction_truth,
    sample_of,
)

__all__ = ["judge", "write"]

STEPS, COHERENCE, DISTANCE = 6, 0.7, 0.05  # frames a scan, visibility, sample to detector [m]


def write(path: str | Path, seed: int = 0) -> dict[str, np.ndarray]:
    """Write reference and sample frames that `open_scan` reads as they are, with the truth under `/truth`.

    **Returns:** the truth: `phase` [rad], `alpha_x`, `alpha_y` [rad], `transmission`, `darkfield`, and `smooth`
    (no edge within three pixels), `(y, x)`.
    """
    random = np.random.default_rng(seed)
    waves = Waves(FRAME, PIXEL, FINE, MARGIN)
    phase, absorption, patch, edges = sample_of(waves, random)
    powder = powder_of(waves, random, patch)
    behind = waves.propagate(np.exp(1j * (phase + powder) - absorption), DISTANCE)
    y, x = waves.place[:, None] / (FRAME * PIXEL), waves.place[None] / (FRAME * PIXEL)
    carrier = np.exp(-2j * np.pi * (random.uniform(-3, 3) * x + random.uniform(-3, 3) * y))
    stacks = {
        "reference": _scan(waves, random, np.ones_like(behind), carrier, 0.0),
        "sample": _scan(waves, random, behind, carrier, random.uniform(-0.05, 0.05)),
    }
    steps = {name: np.arange(STEPS) / STEPS for name in ("steps", "reference_steps")}
    scan = Scan.from_arrays(
        stacks["sample"], method="interferometer", geometry=ParallelBeam(PIXEL, ENERGY, DISTANCE),
        extra={"reference": stacks["reference"], **steps},
    )  # fmt: skip
    truth = refraction_truth(waves, phase, edges) | {
        "transmission": waves.binned(np.exp(-2 * absorption)),
        "darkfield": waves.binned(np.exp(-patch / 2)),  # the coherent wave that is left
    }
    write_with_truth(path, scan, truth)
    return truth


def judge(path: str | Path, result: Any) -> list[str]:
    """Compare the images with the truth in the file, away from borders and edges; the phase without its constant."""
    names = ("phase", "transmission", "darkfield", "smooth")
    truth = dict(zip(names, read_truth(path, *names), strict=True))
    inside = np.zeros(truth["smooth"].shape, bool)
    inside[6:-6, 6:-6] = truth["smooth"][6:-6, 6:-6]
    inside &= np.isfinite(np.asarray(result["phase"]))
    found, true = np.asarray(result["phase"], float)[inside], truth["phase"][inside]
    found, centred = found - np.mean(found - true), true - true.mean()
    lines = [
        f"phase against the truth: relative error {np.linalg.norm(found - true) / np.linalg.norm(centred):.3f}, "
        f"of {np.ptp(true) / (2 * np.pi):.1f} turns"
    ]
    for name in ("transmission", "darkfield"):
        error = np.asarray(result[name], float)[inside] - truth[name][inside]
        lines.append(f"{name}: rms error {np.sqrt(np.mean(error**2)):.4f}")
    return lines


def _scan(waves: Waves, random: np.random.Generator, wave: np.ndarray, carrier: np.ndarray, drift: float) -> np.ndarray:
    """Two arms of half the light each; `COHERENCE` of it interferes."""
    frames = []
    for k in range(STEPS):
        step = k / STEPS + drift + 0.02 * random.standard_normal()
        seen = (wave * carrier * np.exp(-2j * np.pi * step)).real
        light = 0.25 * (1 + np.abs(wave) ** 2) + 0.5 * COHERENCE * seen
        dose = COUNTS * (1 + 0.008 * random.standard_normal())
        frames.append(random.poisson(dose * waves.binned(waves.blurred(light, 0.5))))
    return np.asarray(frames, np.uint16)

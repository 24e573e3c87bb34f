"""What gratings and crystals that are stepped have in common: the sinusoid of every pixel."""

from typing import Any

import numpy as np

from .. import models
from ..errors import InputError
from ..scan import Scan
from ._scan_facts import most_frequent

__all__ = ["fringes_by_air", "fringes_of", "gain_of", "planned_steps"]

_ROUNDS = 4  # in which the air is found by its own fringes


def planned_steps(scan: Scan, count: int, key: str) -> np.ndarray:
    """Say where the frames of one scan are meant to stand [periods], evenly over one by default.

    **Raises:** `InputError` for too few steps, or as many numbers as there are no frames.
    """
    steps = scan.extra.get(key)
    if count < 3:
        raise InputError(
            f"{scan.name}: {count} frames: phase stepping takes three or more; single frames of fringes that the "
            "detector resolves are for -m grating"
        )
    steps = np.arange(count) / count if steps is None else np.asarray(steps, float).ravel()
    if len(steps) != count:
        raise InputError(f"{scan.name}: data.{key} has {len(steps)} numbers for {count} frames (in periods)")
    if np.linalg.matrix_rank(np.stack([steps**0, np.cos(2 * np.pi * steps), np.sin(2 * np.pi * steps)]), 1e-3) < 3:
        raise InputError(f"{scan.name}: data.{key} = {steps.tolist()} [periods]: three different ones are needed")
    return steps


def fringes_of(scan: Scan, frames: np.ndarray, key: str) -> tuple[np.ndarray, np.ndarray, Any]:
    """Fringes of one scan, flux about one, and the steps; of the reference what is predicted instead of them.

    **Raises:** `InputError` as `planned_steps` does.
    """
    values, flux, found = models.fit_fringes(frames, planned_steps(scan, len(frames), key))
    angle = values[2] - 2 * np.pi * found[:, None, None]
    predicted = flux[:, None, None] * values[0] * (1 + values[1] * np.cos(angle))
    return values, flux, found if key == "steps" else predicted


def gain_of(frames: np.ndarray, predicted: np.ndarray) -> float:
    """Variance of a value over the value, from what three numbers a pixel leave; 1 where nothing is left."""
    free = len(frames) - 3
    left = np.median(((frames - predicted) ** 2 / np.maximum(predicted, 1e-6)).sum(0)) / max(free, 1)
    return float(max(left / (1 - 2 / (9 * free)) ** 3, 1e-6)) if free else 1.0


def fringes_by_air(
    still: np.ndarray,
    frames: np.ndarray,
    planned: np.ndarray,
    found: tuple[np.ndarray, np.ndarray, np.ndarray],
    good: np.ndarray,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Fringes, flux and steps [periods] of the sample's frames again, by the pixels that look as without a sample; what
    was `found` where they are few.

    Errors of steps and doses make a moire in all images that is no sample's; air knows better.

    **Arguments:** `still` `(3, y, x)`, light and both quadratures of the reference's fringes.
    """
    for _ in range(_ROUNDS):
        told = _told_by_air(still, frames, planned, found[0], good)
        if told is None:
            break
        found = (models.fit_fringes(frames / told[0][:, None, None], told[1], rounds=0)[0], *told)
    return found


def _told_by_air(
    still: np.ndarray, frames: np.ndarray, planned: np.ndarray, values: np.ndarray, good: np.ndarray
) -> tuple[np.ndarray, np.ndarray] | None:
    """Flux and step of every frame."""
    ratio, turn = values[0] / still[0], np.angle(np.exp(1j * (values[2] - np.arctan2(still[2], still[1]))))
    dose, zero = most_frequent(ratio[good]), most_frequent(turn[good])
    clear = good & (np.abs(ratio / dose - 1) < 0.1) & (np.abs(np.angle(np.exp(1j * (turn - zero)))) < 0.3)
    if clear.sum() < max(100, 0.1 * good.sum()):
        return None
    weight = 1 / np.sqrt(still[0][clear])
    flux, cosine, sine = np.linalg.lstsq((still[:, clear] * weight).T, (frames[:, clear] * weight).T, rcond=None)[0]
    found = np.arctan2(sine, cosine) / (2 * np.pi)
    return flux, planned + (found - planned + 0.5) % 1 - 0.5

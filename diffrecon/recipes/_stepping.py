"""What gratings and crystals that are stepped have in common: the sinusoid of every pixel."""

from typing import Any

import numpy as np

from .. import models
from ..errors import InputError
from ..scan import Scan
from ._scan_facts import most_frequent

__all__ = ["fringes_by_air", "fringes_of", "gain_of", "planned_steps"]

_ROUNDS, _LEAST = 4, 0.1  # in which the air is found by its own fringes; share of the frame that it is to have
# Of a scale, a rotation, and the boosts along both quadratures of (1, cos, sin).
_GENERATORS = np.array(
    [
        np.eye(3),
        [[0, 0, 0], [0, 0, -1], [0, 1, 0]],
        [[0, 1, 0], [1, 0, 0], [0, 0, 0]],
        [[0, 0, 1], [0, 0, 0], [1, 0, 0]],
    ]
)


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
    found: tuple[np.ndarray, np.ndarray, np.ndarray],
    good: np.ndarray,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Fringes, flux and steps [periods] of the sample's frames again, with air as it is without a sample; what was
    `found` where there is little air.

    All frames together tell doses and steps up to a Lorentz boost (`models.fit_fringes`), which makes a moire in all
    images that is no sample's; air tells the boost, and nothing else is taken from it.

    **Arguments:** `still` `(3, y, x)`, light and both quadratures of the reference's fringes.
    """
    values, flux, steps = found
    parts = values[0] * np.stack(
        [np.ones_like(values[0]), values[1] * np.cos(values[2]), values[1] * np.sin(values[2])]
    )
    boost = np.eye(3)
    for _ in range(_ROUNDS):
        clear = _air(np.tensordot(boost, parts, 1), still, good)
        if clear.sum() < max(100, _LEAST * good.sum()):
            return found
        boost = _boost(parts[:, clear], still[:, clear])
    angle = 2 * np.pi * steps
    vectors = flux[:, None] * np.stack([np.ones_like(angle), np.cos(angle), np.sin(angle)], 1) @ np.linalg.inv(boost)
    turn = (np.arctan2(vectors[:, 2], vectors[:, 1]) - angle) / (2 * np.pi)
    flux, steps = vectors[:, 0], steps + (turn + 0.5) % 1 - 0.5
    return models.fit_fringes(frames / flux[:, None, None], steps, rounds=0)[0], flux, steps


def _air(parts: np.ndarray, still: np.ndarray, good: np.ndarray) -> np.ndarray:
    """Find pixels whose light, fringes and visibility are the most frequent ones, beside those without a sample."""
    wave = lambda p: p[1] + 1j * p[2]
    ratio, fringe = parts[0] / still[0], wave(parts) / wave(still)
    dose, zero = most_frequent(ratio[good]), most_frequent(np.angle(fringe[good]))
    turned = np.abs(np.angle(fringe * np.exp(-1j * zero))) < 0.3
    return good & (np.abs(ratio / dose - 1) < 0.1) & turned & (np.abs(np.abs(fringe) / ratio - 1) < 0.15)


def _boost(parts: np.ndarray, still: np.ndarray) -> np.ndarray:
    """Find scale, rotation and boost that take the fringes of pixels nearest to others."""
    found, weight = np.eye(3), 1 / np.sqrt(still[0])
    for _ in range(_ROUNDS):
        at = found @ parts
        slopes = np.stack([(generator @ at * weight).ravel() for generator in _GENERATORS], 1)
        change = np.linalg.lstsq(slopes, ((still - at) * weight).ravel(), rcond=None)[0]
        found = _exponential(np.tensordot(change, _GENERATORS, 1)) @ found
    return found


def _exponential(matrix: np.ndarray) -> np.ndarray:
    """The exponential of a small matrix."""
    total, term = np.eye(3), np.eye(3)
    for order in range(1, 16):
        term = term @ matrix / order
        total = total + term
    return total

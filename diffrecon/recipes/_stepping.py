"""What gratings and crystals that are stepped have in common: the sinusoid of every pixel."""

from typing import Any

import numpy as np

from .. import models
from ..errors import InputError
from ..scan import Scan

__all__ = ["fringes_by_air", "fringes_of", "gain_lines", "gain_of", "planned_steps"]

_ROUNDS, _LEAST = 4, 0.1  # of boosts; share of the frame that air is to have
# Differences of light, phase [rad] and visibility from those of air, the first and the last but for noise: what a
# boost may do is large, what a weak specimen does is small, and must not be taken for air.
_FAR, _NEAR, _SHRINKS, _NOISE = np.array([0.1, 0.3, 0.15]), np.array([0.002, 0.005, 0.005]), 7, 3.0
_ENOUGH, _TRIED = 6000, 200  # pixels that tell a boost; of which one is to be air's
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


def gain_lines(gain: float) -> list[str]:
    """Say so where values are no photon counts."""
    if 0.7 < gain < 1.4:
        return []
    return [f"values are no photon counts: their variance is {gain:.3g} of them, from the references"]


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
    for within in np.geomspace(_FAR, _NEAR, _SHRINKS):
        clear = _air(np.tensordot(boost, parts, 1), still, good, within)
        if clear.sum() < max(100, _LEAST * good.sum()):
            return found
        boost = _boost(parts[:, clear], still[:, clear], boost)
    angle = 2 * np.pi * steps
    vectors = flux[:, None] * np.stack([np.ones_like(angle), np.cos(angle), np.sin(angle)], 1) @ np.linalg.inv(boost)
    turn = (np.arctan2(vectors[:, 2], vectors[:, 1]) - angle) / (2 * np.pi)
    flux, steps = vectors[:, 0], steps + (turn + 0.5) % 1 - 0.5
    return models.fit_fringes(frames / flux[:, None, None], steps, rounds=0)[0], flux, steps


def _air(parts: np.ndarray, still: np.ndarray, good: np.ndarray, within: np.ndarray) -> np.ndarray:
    """Find pixels whose light, phase and visibility are the most frequent ones, beside those without a sample, to
    `within` so much or their noise.
    """
    wave = lambda p: p[1] + 1j * p[2]
    ratio, fringe = parts[0] / still[0], wave(parts) / wave(still)
    turn, seen = fringe / np.maximum(np.abs(fringe), 1e-12), np.abs(fringe) / ratio
    level, zero = np.median(ratio[good]), turn[good].mean()
    bare = ratio / level, np.angle(turn * np.conj(zero)), seen
    most = [max(w, _NOISE * _noise_of(a)) for a, w in zip(bare, within, strict=True)]
    # All three together: the middle of a rod dims and turns evenly, too, but not at the same places.
    each = np.stack([a[good] / w for a, w in zip(bare, most, strict=True)])
    each = each[:, :: max(1, each.shape[1] // _ENOUGH)]
    tried = each[:, :: max(1, each.shape[1] // _TRIED)]
    close = [(np.abs(each - one[:, None]) < 0.5).all(0).sum() for one in tried.T]
    usual = tried[:, int(np.argmax(close))]
    usual = np.median(each[:, (np.abs(each - usual[:, None]) < 1).all(0)], axis=1) * most
    near = (np.abs(bare[0] / usual[0] - 1) < most[0]) & (np.abs(np.angle(np.exp(1j * (bare[1] - usual[1])))) < most[1])
    return good & near & (np.abs(seen - 1) < most[2])


def _noise_of(image: np.ndarray) -> float:
    """Standard deviation of what differs from pixel to pixel along columns, which objects seldom do."""
    return float(np.median(np.abs(np.diff(image, axis=0)))) * 1.48 / np.sqrt(2)


def _boost(parts: np.ndarray, still: np.ndarray, found: np.ndarray) -> np.ndarray:
    """Find scale, rotation and boost that take the fringes of pixels nearest to others, from what was `found`."""
    thin = slice(None, None, max(1, parts.shape[1] // _ENOUGH))
    parts, still = parts[:, thin], still[:, thin]
    weight = 1 / np.sqrt(still[0])
    for _ in range(_ROUNDS):
        at = found @ parts
        slopes = np.stack([(generator @ at * weight).ravel() for generator in _GENERATORS], 1)
        change = np.linalg.solve(slopes.T @ slopes, slopes.T @ ((still - at) * weight).ravel())
        found = _exponential(np.tensordot(change, _GENERATORS, 1)) @ found
        if np.abs(change).max() < 1e-7:
            break
    return found


def _exponential(matrix: np.ndarray) -> np.ndarray:
    """The exponential of a small matrix."""
    total, term = np.eye(3), np.eye(3)
    for order in range(1, 16):
        term = term @ matrix / order
        total = total + term
    return total

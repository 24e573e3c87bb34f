"""Powder frames against their geometry: which way round the frame lies, and pixels that stick out of every ring."""

import dataclasses
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float

from ..frames import spread
from ..geometry import TiltedDetector, polarisation_factor

__all__ = ["Orientation", "check_orientation", "odd_pixels", "sample_frames"]

_SURE = 0.6  # another orientation leaves less than this share of the spread along the rings: it is the right one
_RINGS = 0.75  # more than this: there are no rings to tell by
_TRANSPOSED = "with rows and columns exchanged"
_WORDS = {1: "with rows and columns flipped", 2: "with its rows flipped", 3: "as stored", 4: "with its columns flipped"}


class Orientation(NamedTuple):
    """How the frame lies in its geometry.

    **Fields:** `spread`: share of the frame's variance that is along the rings, by orientation (1 to 4 as in PONI
    files, negative = transposed before); `best` of them; `sure`: it is better by far than the one `given`.
    """

    given: int
    best: int
    spread: dict[int, float]
    sure: bool

    def words(self) -> str:
        """Say which way round the frame fits, and how well."""
        way = f"{_TRANSPOSED}, then {_WORDS[-self.best]}" if self.best < 0 else _WORDS[self.best]
        return (
            f"the frame fits its geometry {way}: {self.spread[self.best]:.0%} of its variance is along the rings, "
            f"{self.spread[self.given]:.0%} {_WORDS[self.given]}, which the geometry says"
        )


def sample_frames(counts: Any, most: int = 9) -> Float[np.ndarray, "view y x"]:
    """Read some frames spread over the stack."""
    chosen = spread(counts.shape[0], most)
    return np.asarray(counts[chosen], np.float32)


def check_orientation(
    frame: Float[np.ndarray, "y x"], mask: Bool[np.ndarray, "y x"], detector: TiltedDetector, degree: float
) -> Orientation:
    """Try a frame in the eight orientations: powder rings are constant along the azimuth in the right one only.

    **Arguments:** `degree` of polarisation, which makes rings uneven.

    A beam that meets the middle of an untilted detector makes orientations equal: then none is `sure`. Four
    (eight, for square frames) sums over a frame: about a second for 2048 x 2048.
    """
    spread = {}
    for transposed in (False, True) if frame.shape[0] == frame.shape[1] else (False,):
        image, good = (frame.T, mask.T) if transposed else (frame, mask)
        for orientation in (1, 2, 3, 4):
            turned = dataclasses.replace(detector, orientation=orientation)
            spread[-orientation if transposed else orientation] = _spread(image, good, turned, degree)
    best = min(spread, key=lambda o: (round(spread[o], 6), o != detector.orientation))
    sure = spread[best] < min(_SURE * spread[detector.orientation], _RINGS)
    return Orientation(detector.orientation, best, spread, sure)


def _spread(frame: np.ndarray, mask: np.ndarray, detector: TiltedDetector, degree: float) -> float:
    """Share of the variance that is within rings."""
    two_theta, chi, weight = detector.angles((frame.shape[0], frame.shape[1]))
    values = (frame / (weight * polarisation_factor(two_theta, chi, degree)))[mask]
    values = np.minimum(values, np.percentile(values, 99.5))
    ring = (two_theta[mask] / _ring_width(detector)).astype(int)
    count = np.bincount(ring)
    mean = np.bincount(ring, values) / np.maximum(count, 1)
    total = float(((values - values.mean()) ** 2).sum())
    return float(((values - mean[ring]) ** 2).sum()) / total if total else 1.0


def _ring_width(detector: TiltedDetector) -> float:
    """[rad]; half a pixel, so that the flanks of sharp rings do not look uneven."""
    return 0.5 * max(detector.pixel1, detector.pixel2) / detector.distance


def odd_pixels(
    frames: Float[np.ndarray, "view y x"], mask: Bool[np.ndarray, "y x"], detector: TiltedDetector
) -> Bool[np.ndarray, "y x"]:
    """Find measured pixels that stick out of their ring in nearly all frames: hot ones, and dead ones in the light.

    A crystal's spot moves with the sample, a pixel does not: with fewer than three frames none are told.
    """
    odd = np.zeros(mask.shape, bool)
    if len(frames) < 3:
        return odd
    usual = np.median(frames, axis=0)
    two_theta, _, weight = detector.angles((mask.shape[0], mask.shape[1]))
    values = usual / weight
    ring = (two_theta / _ring_width(detector)).astype(int)
    rings, lone = ring[mask], values[mask]
    order = np.lexsort((lone, rings))
    first, count = np.unique(rings[order], return_index=True, return_counts=True)[1:]
    middle = np.zeros(int(ring.max()) + 1)
    middle[rings[order][first]] = lone[order][first + count // 2]
    away = np.abs(lone - middle[rings])
    order = np.lexsort((away, rings))
    scatter = np.zeros_like(middle)
    scatter[rings[order][first]] = 1.4826 * away[order][first + count // 2]
    noise = np.sqrt(scatter**2 + np.maximum(middle, 1))
    lonely = values > 3 * _second_neighbour(np.where(mask, values, 0))  # spots of crystals are wider than a pixel
    hot = lonely & (values > middle[ring] * 3 + 20 * noise[ring])
    dead = (usual == 0) & (middle[ring] > 25)
    return mask & (hot | dead)


def _second_neighbour(image: np.ndarray) -> np.ndarray:
    """Second largest of the eight neighbours of every pixel."""
    rows, columns = image.shape
    padded = np.pad(image, 1)
    places = [(i, j) for i in range(3) for j in range(3) if (i, j) != (1, 1)]
    around = np.stack([padded[i : i + rows, j : j + columns] for i, j in places])
    return np.partition(around, -2, axis=0)[-2]

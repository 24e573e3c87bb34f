"""What a tensor SAXS scan can see: for every direction of scattering, which spatial frequencies its views reach.

A view with the ray p measures the scattering into directions q normal to p (two_theta / 2 off, for wide angles), as a
projection, whose frequencies k are normal to p, too. So q is seen at k only if some ray is normal to both, and a
direction is seen completely if the rays go all around it. Tilts that end at 45 degrees leave half of it out for
directions across the rotation axis: the missing wedge of tensor tomography (Nielsen et al., arXiv 2404.14540).
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float

__all__ = ["Directions", "directions"]

_AROUND = 60  # rays around each direction that are asked for
_POLAR, _AZIMUTH = 12, 48  # cells of the map of the half sphere


class Directions(NamedTuple):
    """What the rays of a scan see of each direction of scattering.

    **Fields:** `share` `(polar, azimuth)`, of the spatial frequencies, at `polar` and `azimuth` [rad] in the frame of
    the sample (half a sphere: opposite directions scatter alike); `missing`, the mean of what is not seen; `worst`,
    the direction (x, y, z) of which least is seen; `tolerance` [rad], how near a ray has to be.
    """

    share: Float[np.ndarray, "polar azimuth"]
    polar: Float[np.ndarray, " polar"]
    azimuth: Float[np.ndarray, " azimuth"]
    missing: float
    worst: Float[np.ndarray, " 3"]
    tolerance: float

    def sentence(self) -> str:
        """Say in words what is not seen."""
        x, y, z = self.worst * (1 if self.worst[2] >= 0 else -1)
        return (
            f"missing wedge {self.missing:.0%} of all directions of scattering and spatial frequencies; most for "
            f"scattering along (x, y, z) = ({x:.2f}, {y:.2f}, {z:.2f}), {1 - self.share.min():.0%}"
        )


def directions(rays: Float[np.ndarray, "view 3"], two_theta: float = 0.0, order: int = 6) -> Directions:
    """Find what a scan's rays see of every direction of scattering.

    **Arguments:** `rays` `(view, 3)`, of the beam in the frame of the sample; `two_theta` [rad]; `order` of the
    functions that are to be told apart: within `90 degrees / (order + 1)` they do not change.

    **Cost:** some 35 000 directions times the views.

    ```python
    turns = np.linspace(0, np.pi, 40, endpoint=False)
    seen = directions(np.stack([np.cos(turns), np.sin(turns), 0 * turns], 1))     # one tilt: rays across z
    assert seen.share[0].min() == 1 and seen.share[-1].max() < 0.5 and abs(seen.worst[2]) < 0.3
    ```
    """
    tolerance = np.pi / 2 / (order + 1)
    polar = (np.arange(_POLAR) + 0.5) * np.pi / 2 / _POLAR
    azimuth = (np.arange(_AZIMUTH) + 0.5) * 2 * np.pi / _AZIMUTH
    sine, cosine = np.sin(polar)[:, None], np.cos(polar)[:, None]
    q = np.stack([sine * np.cos(azimuth), sine * np.sin(azimuth), cosine + 0 * azimuth], -1)
    first = np.stack([cosine * np.cos(azimuth), cosine * np.sin(azimuth), -sine + 0 * azimuth], -1)
    second = np.cross(q, first)
    rays = np.asarray(rays, float) / np.linalg.norm(rays, axis=1, keepdims=True)
    seen = np.zeros(q.shape[:2])
    for turn in (np.arange(_AROUND) + 0.5) * np.pi / _AROUND:
        across = np.cos(turn) * first + np.sin(turn) * second
        needed = [
            s * np.cos(two_theta / 2) * across - np.sin(two_theta / 2) * q for s in ((1, -1) if two_theta else (1,))
        ]
        near = [np.abs(p @ rays.T).max(-1) >= np.cos(tolerance) for p in needed]
        seen += np.mean(near, axis=0) / _AROUND
    seen = np.minimum(seen, 1.0)
    weight = np.broadcast_to(sine, seen.shape)
    missing = float(np.sum(weight * (1 - seen)) / weight.sum())
    return Directions(seen, polar, azimuth, missing, _least_seen(q, seen, weight, tolerance), tolerance)


def _least_seen(q: np.ndarray, seen: np.ndarray, weight: np.ndarray, tolerance: float) -> np.ndarray:
    """Find the middle of the region that is seen least: many directions may be seen alike."""
    flat = q.reshape(-1, 3)
    near = weight.ravel() * (np.abs(flat @ flat.T) >= np.cos(2 * tolerance))
    return flat[np.argmin(near @ seen.ravel() / near.sum(1))]

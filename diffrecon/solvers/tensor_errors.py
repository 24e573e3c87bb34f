"""Error bars of direction and anisotropy from what two halves of the views make of a sample."""

from typing import Literal

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from ..operators.scattering import orientation, relative_anisotropy

__all__ = ["spread_of_halves"]

# Half of the difference of halves is the noise of the whole. What both share (voxels too coarse for an edge, smoothing,
# directions that no view sees) adds to it: by this factor two thirds of the voxels of simulated samples lie within.
_SHARED = 1.45
_LARGEST = np.radians(20)  # differences of axes are not Gaussian beyond: one voxel is not to mark its neighbours


def spread_of_halves(
    whole: Float[Array, "z y x lm"],
    halves: tuple[Float[Array, "z y x lm"], Float[Array, "z y x lm"]],
    scatters: Bool[np.ndarray, "z y x"],
    scattering: Literal["equatorial", "polar", "automatic"] = "automatic",
) -> Float[np.ndarray, "z y x 2"]:
    """Estimate the errors (one standard deviation) of fibre direction [rad] and relative anisotropy in every voxel.

    **Arguments:** coefficients of the whole scan and of its halves; `scatters`, voxels that are of the sample; mean
    squares are taken over such neighbours; `scattering` as in `operators.orientation`.

    ```python
    one = jnp.zeros((4, 4, 4, 6)).at[..., 0].set(1.0).at[..., 3].set(-0.3)
    errors = spread_of_halves(one, (1.1 * one, one), np.ones((4, 4, 4), bool))
    assert errors.shape == (4, 4, 4, 2) and np.allclose(errors, 0, atol=1e-3)
    ```
    """
    axis, polar = orientation(whole, scattering), orientation(whole, "polar")
    along = jnp.abs(jnp.sum(axis * polar, -1, keepdims=True)) > 0.5
    first, second = (jnp.where(along, orientation(h, "polar"), orientation(h, "equatorial")) for h in halves)
    cosine = np.clip(np.abs(np.asarray(jnp.sum(first * second, -1))), 0, 1)
    turn = np.minimum(np.arccos(cosine) / 2, _LARGEST)
    change = np.asarray(relative_anisotropy(halves[0]) - relative_anisotropy(halves[1])) / 2
    squares = np.where(scatters[..., None], np.stack([turn, change], -1) ** 2, 0)
    total, count = (_neighbours(a) for a in (squares, scatters[..., None].astype(float)))
    return _SHARED * np.sqrt(total / np.maximum(count, 1))


def _neighbours(values: Float[np.ndarray, "z y x n"]) -> Float[np.ndarray, "z y x n"]:
    """Add up a voxel and its 26 neighbours."""
    for axis in range(3):
        padded = np.pad(values, [(int(a == axis),) * 2 for a in range(4)])
        at = lambda i, padded=padded, axis=axis: np.take(padded, range(i, padded.shape[axis] - 2 + i), axis)
        values = at(0) + at(1) + at(2)
    return values

"""Images with sparse edges from weighted counts: ordered subsets, momentum, and total variation in the data's metric.

A step for each group of views gets as far as many whole steps (Kim, Ramani & Fessler, IEEE Trans. Med. Imaging 34, 167
(2015)); every voxel has a step of its own, one over a bound of its curvature, so that voxels whose light hardly leaves
the body move as fast as others. Edges cost the less the higher they are: the weights of the next round fall with the
steps that this one has found (Candes, Wakin & Boyd, J. Fourier Anal. Appl. 14, 877 (2008)).
"""

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float, PyTree

__all__ = ["edge_weights", "fit_edges", "flattened"]

Steps = Float[Array, "3 component z y x"]


def edge_weights(
    x: Float[Array, "component z y x"], strength: float, fine: int, first: bool | Array
) -> Float[Array, "component z y x"]:
    """Give weights of total variation to the voxels of every component.

    `2 strength / mean step` at `first`, which is the most likely one for strength 1; then `4 strength / (step + mean
    step)` of each voxel.

    **Arguments:** `x`, the image as it is; `fine`: voxels in z are so many times as long as in y and x.
    """
    size = _length(_differences(x, fine))
    level = jnp.sqrt(jnp.mean(x**2, (1, 2, 3), keepdims=True))
    level = jnp.maximum(level, 1e-6 * jnp.max(level) + 1e-30)
    mean = jnp.mean(size, (1, 2, 3), keepdims=True) + 2e-3 * level
    return 2 * strength / jnp.where(first, mean, (size + mean) / 2)


def flattened(
    x: Float[Array, "component z y x"],
    curvature: Float[Array, "component z y x"],
    weights: Float[Array, "component z y x"],
    dual: Steps,
    fine: int = 1,
    steps: int = 4,
) -> tuple[Float[Array, "component z y x"], Steps]:
    """Approach `argmin_y>=0 sum curvature (y - x)^2 / 2 + weights |steps of y|`, from the dual variable on.

    **Returns:** the image, and the dual variable to begin with next time.

    **Source:** projected gradients on the dual (Chambolle 2004), each step as long as the voxel's neighbours allow.

    ```python
    image, one = jnp.zeros((1, 1, 1, 4)).at[..., 2:].set(1.0), jnp.ones((1, 1, 1, 4))
    flatter, _ = flattened(image, one, 0.2 * one, jnp.zeros((3, 1, 1, 1, 4)), steps=200)
    assert jnp.allclose(flatter, jnp.array([0.1, 0.1, 0.9, 0.9]), atol=1e-3)
    ```
    """
    give = 1 / curvature
    around = jnp.maximum(give, jnp.maximum(jnp.roll(give, -1, -1), jnp.roll(give, -1, -2)))
    around = jnp.maximum(around, jnp.roll(give, -1, -3))
    length = 1 / (4 * (2 + (x.shape[1] > 1) / fine**2) * around)
    back = lambda p: jnp.maximum(x - give * _undone(p, fine), 0)

    def step(_: int, p: Array) -> Array:
        return _within(p + length * _differences(back(p), fine), weights)

    dual = lax.fori_loop(0, steps, step, dual)
    return back(dual), dual


def fit_edges(
    gradient: Callable[[Array, Any], Array],
    x: Float[Array, "component z y x"],
    curvature: Float[Array, "component z y x"],
    weights: Float[Array, "component z y x"],
    dual: Steps,
    subsets: PyTree,
    passes: int,
    fine: int = 1,
) -> tuple[Float[Array, "component z y x"], Steps]:
    """Minimise half the weighted squares of the residuals and `weights |steps|`, nowhere below zero.

    **Arguments:** `gradient(x, subset)`: of all data, as one subset has it; `curvature`: no less than that of all data
    (`A' W A 1` for an operator without negative numbers); `subsets`: arrays whose first axis is the subset;
    `passes` over all of them; the rest as in `flattened`.

    **Returns:** the image and its dual variable.
    """

    def step(carry: Any, subset: Any) -> tuple[Any, None]:
        x, ahead, momentum, dual = carry
        new, dual = flattened(ahead - gradient(ahead, subset) / curvature, curvature, weights, dual, fine)
        following = (1 + jnp.sqrt(1 + 4 * momentum**2)) / 2
        return (new, new + (momentum - 1) / following * (new - x), following, dual), None

    start = (x, x, jnp.ones((), x.dtype), _within(dual, weights))
    x, _, _, dual = lax.fori_loop(0, passes, lambda _, carry: lax.scan(step, carry, subsets)[0], start)
    return x, dual


# ---------------------------------------------------------------------------------------------------- differences
def _differences(x: Array, fine: int) -> Array:
    """Forward differences along z, y, x, zero at the border; those along z are over `fine` times the way."""
    parts = []
    for axis, scale in ((-3, 1 / fine), (-2, 1.0), (-1, 1.0)):
        pad = [(0, 0)] * x.ndim
        pad[axis] = (0, 1)
        parts.append(scale * jnp.pad(jnp.diff(x, axis=axis), pad))
    return jnp.stack(parts)


def _undone(p: Array, fine: int) -> Array:
    """Transpose of `_differences`."""
    total: Any = 0.0
    for part, axis, scale in zip(p, (-3, -2, -1), (1 / fine, 1.0, 1.0), strict=True):
        pad = [(0, 0)] * part.ndim
        pad[axis] = (1, 1)
        inner = lax.slice_in_dim(part, 0, part.shape[axis] - 1, axis=axis)
        total = total - scale * jnp.diff(jnp.pad(inner, pad), axis=axis)
    return total


def _length(p: Array) -> Array:
    return jnp.sqrt(jnp.sum(p**2, 0))


def _within(p: Array, weights: Array) -> Array:
    return p * jnp.minimum(1, weights / jnp.maximum(_length(p), np.finfo(np.float32).tiny))

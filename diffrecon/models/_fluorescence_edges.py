"""One round of fluorescence tomography with sparse edges: absorption as it is, densities of all components together."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float

from ..solvers import subset_views
from ..solvers.linear.edges import edge_weights, fit_edges
from ._fluorescence import Fluorescence

__all__ = ["sharpened"]

_TOGETHER = 10  # views in a subset, at least
_SUBSETS = 18  # at most: beyond, one subset says too little of the whole


def sharpened(
    model: Fluorescence,
    counts: Float[Array, "view z u channel"],
    spread: Float[np.ndarray, " channel"],
    strength: float,
    dual: Float[Array, "3 component z y x"] | None,
    steps: int = 36,
) -> tuple[Fluorescence, Float[Array, "3 component z y x"]]:
    """Find densities that explain all counts through the absorption of those before, with as few edges as they can.

    **Arguments:** `spread`: how many times the variance of photon noise the residuals have; `strength` of edges, see
    `solvers.linear.edges`; `dual` of the round before, none in the first; `steps`: of ordered subsets.

    **Returns:** the model, and its dual variable.
    """
    views = len(model.angles)
    many = int(np.clip(views // _TOGETHER, 1, _SUBSETS))
    parts = subset_views(np.asarray(model.angles), views, many)
    longest = max(len(part) for part in parts)
    index = np.stack([np.pad(part, (0, longest - len(part))) for part in parts])
    there = np.stack([np.arange(longest) < len(part) for part in parts]).astype(np.float32)
    first = dual is None
    before = jnp.zeros((3, *model.scaled.shape), model.scaled.dtype) if dual is None else dual
    noise, passes = jnp.asarray(spread, counts.dtype), -(-steps // many)
    density, after = _round(model, counts, noise, strength, before, (index, there), passes, first)
    return model.replace(scaled=density, unit=jnp.ones((len(density), 1, 1, 1), density.dtype)), after


@partial(jax.jit, static_argnames=("passes",))
def _round(
    model: Fluorescence, counts: Array, spread: Array, strength: float, dual: Array, subsets: Any, passes: int,
    first: bool | Array,
) -> tuple[Array, Array]:  # fmt: skip
    many, density, fine = len(subsets[0]), model.density, model.fine
    share = model.turned(slice(None))[1]
    weight = 1 / (jnp.maximum(model.counted(density, share, slice(None)), 1) * spread)

    def gradient(x: Array, subset: tuple[Array, Array]) -> Array:
        views, there = subset
        expected, back = jax.vjp(lambda d: model.counted(d, share, views), x)
        return many * back(there[:, None, None, None] * weight[views] * (expected - counts[views]))[0]

    curvature = _bound(model, share, counts, weight, subsets)
    weights = edge_weights(density, strength, fine, first)
    return fit_edges(gradient, density, curvature, weights, dual, subsets, passes, fine)


def _bound(model: Fluorescence, share: Array, counts: Array, weight: Array, subsets: Any) -> Array:
    """Bound the curvature of every density: `A' W A k / k` with densities `k` that are typical of each component."""
    level = jnp.sqrt(jnp.mean(model.density**2, (1, 2, 3), keepdims=True))
    level = jnp.maximum(level, 1e-6 * jnp.max(level) + 1e-30)
    strong = weight * (model.exposure * model.gain) ** 2
    strong = strong.at[..., -1].set(weight[..., -1] * counts[..., -1] ** 2)  # of the transmitted beam by its depth

    def add(total: Array, subset: tuple[Array, Array]) -> tuple[Array, None]:
        views, there = subset
        signal, back = jax.vjp(lambda d: model.signals(d, share, views), level * jnp.ones_like(total))
        lines, depth = signal
        w = there[:, None, None, None] * strong[views]
        return total + back((w[..., :-1] * lines, w[..., -1:] * depth / depth.shape[-1]))[0], None

    found = lax.scan(add, jnp.zeros_like(model.density), subsets)[0] / level
    return jnp.maximum(found, 1e-5 * jnp.max(found, (1, 2, 3), keepdims=True) + 1e-30)

"""What photon noise leaves open: errors of a solution drawn at random, their size, and cost that is marginal over them.

The most probable object and blur together are a sharp detector and a soft object, whatever the truth: prior and noise
let the object be smaller than it is (Levin et al., CVPR 2009, on blind deconvolution). What the counts say of a blur is
their probability for all objects that agree with them. Its slope is that of the expected cost over the posterior of the
object (expectation maximisation; Dempster, Laird & Rubin, J. R. Stat. Soc. B 39, 1 (1977)): beside the residual of the
best object stands what an error of that object, drawn at random from its posterior, does to the counts. That falls with
the blur, and must be paid for where it is left out.
"""

from collections.abc import Callable, Mapping
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Inexact, PyTree

from .._model import Batch
from ..operators.fourier import blur
from ..priors import Coordinates
from .conjugate_gradients import conjugate_gradients

__all__ = ["MarginalResidual", "posterior_deviation", "posterior_error", "posterior_errors"]

Residual = Callable[[Any, Batch], PyTree]
_REACH = 3.0  # [pixel], over which the squares of few errors are averaged
_DETAIL = 16.0  # [pixel], over which an object is as full of details as its neighbourhood


class MarginalResidual(eqx.Module):
    """Extend a residual so that numbers beside the maps are found by marginal likelihood.

    Called with `(coordinates, batch)`, it gives the residual and its derivative by the maps along `batch.spread`
    `(view, map, ...)`, of which the first counts (from `posterior_error`), at maps that do not move.
    """

    residual: Residual = eqx.field(static=True)

    def __call__(self, coordinates: Coordinates, batch: Batch) -> PyTree:
        """Compute both residuals."""
        rows = lambda white: self.residual(coordinates.at(white), batch)
        along = jax.jvp(rows, (jax.lax.stop_gradient(coordinates.white),), (batch.spread[0],))[1]
        return {"data": rows(coordinates.white), "spread": along}


def posterior_error(
    residual: Residual, coordinates: Coordinates, data: Mapping[str, Any], seed: int, steps: int = 25
) -> Inexact[Array, "map *space"]:
    """Draw an error of the white maps from their posterior: the solution for residuals of pure noise, in the rows of
    data and prior (perturb and optimise; Papandreou & Yuille 2010).

    **Arguments:** `residual` `(coordinates, batch) -> rows`, of variance one; `data`: arrays with the views first, and
    `mask`; `steps` of conjugate gradients.
    """
    return _draws(residual, coordinates, data, jax.random.key(seed)[None], jnp.asarray(steps), False)[0]


def posterior_errors(
    residual: Residual, coordinates: Coordinates, data: Mapping[str, Any], seed: int, draws: int = 3, steps: int = 40
) -> Float[Array, "draw map y x"]:
    """Draw errors of the maps from their posterior, the numbers of the coordinates unknown beside them.

    Photon noise and what the prior leaves open, both: the floor of the error for the geometry of a measurement, if the
    prior is right. **Cost:** `draws * steps` products.
    """
    keys = jax.random.split(jax.random.key(seed), draws)
    return _as_maps(coordinates, _draws(residual, coordinates, data, keys, jnp.asarray(steps), False, True))


def posterior_deviation(
    residual: Residual,
    coordinates: Coordinates,
    data: Mapping[str, Any],
    seed: int,
    draws: int = 4,
    steps: int = 12,
    field: tuple[int, int] | None = None,
    finer: Float[Array, "2 map"] | None = None,
) -> Float[Array, "map y x"]:
    """Estimate the standard deviation of the maps from the truth: by photon noise, and by what the prior holds back.

    The error of the most probable maps is the sum of two independent ones: the solution's answer to noise in the data,
    and what the prior lets the maps be beyond what the data restore (lowest frequencies, details below the noise). A
    prior of one power law is the same everywhere, objects are not: the second part is laid out as the square of the
    maps' gradient, averaged over a neighbourhood, with its mean over the `field` kept: so many rows and columns in the
    middle, those that were seen (all by default). `finer`: variances, of both parts, of details that these coordinates
    are too coarse for (`hologram_details`). **Cost:** `2 * draws * steps` products.
    """
    keys = jax.random.split(jax.random.key(seed), draws)
    errors = _draws(residual, coordinates, data, keys, jnp.asarray(steps), True)
    none = jnp.zeros((2, len(coordinates.white)), errors.real.dtype)
    return _smoothed(coordinates, errors, field, none if finer is None else finer)


@eqx.filter_jit
def _as_maps(coordinates: Coordinates, errors: Array) -> Array:
    return jax.vmap(coordinates.maps)(errors)


@eqx.filter_jit
def _smoothed(
    coordinates: Coordinates,
    errors: Inexact[Array, "draw part map *space"],
    field: tuple[int, int] | None,
    finer: Float[Array, "2 map"],
) -> Array:
    """Take the root mean square of errors, as maps, over a neighbourhood; those of the prior where details are."""
    square = jnp.mean(jnp.square(jax.vmap(jax.vmap(coordinates.maps))(errors)), 0)
    noise, held_back = jnp.maximum(blur(square, _REACH), 0) + finer[..., None, None]
    down, right = jnp.gradient(coordinates.maps(), axis=(-2, -1))
    detail = jnp.maximum(blur(down**2 + right**2, _DETAIL), 0) + 1e-20
    seen = detail.shape[1:] if field is None else field
    rows, columns = (slice((n - m) // 2, (n + m) // 2) for n, m in zip(detail.shape[1:], seen, strict=True))
    return jnp.sqrt(noise + held_back * detail / jnp.mean(detail[:, rows, columns], (-2, -1), keepdims=True))


@eqx.filter_jit
def _draws(
    residual: Residual,
    coordinates: Coordinates,
    data: Any,
    keys: Array,
    steps: Array,
    apart: bool,
    numbers: bool = False,
) -> Array:
    """Solve for noise in the rows of data and prior, together or `apart` `(key, part, ...)`, once for each key: white
    maps, with the numbers held or unknown beside them."""
    views = next(len(value) for name, value in data.items() if name != "mask")
    batch = Batch(jnp.arange(views), {name: jnp.asarray(value) for name, value in data.items()})

    def rows_of(free: tuple[Array, dict[str, Array]]) -> PyTree:
        moved = eqx.tree_at(lambda c: (c.white, c.numbers), coordinates, (free[0], {**coordinates.numbers, **free[1]}))
        return residual(moved, batch), moved.prior()

    free = (coordinates.white, coordinates.numbers if numbers else {})
    value, push = jax.linearize(rows_of, free)
    pull = jax.linear_transpose(push, free)

    def noise(key: Array, like: PyTree) -> PyTree:
        leaves, tree = jax.tree.flatten(like)
        keys = jax.random.split(key, len(leaves))
        return jax.tree.unflatten(
            tree, [jax.random.normal(k, a.shape, a.dtype) for k, a in zip(keys, leaves, strict=True)]
        )

    def drawn(key: Array) -> Array:
        first, second = jax.random.split(key)
        rows = noise(first, value[0]), noise(second, value[1])
        quiet = jax.tree.map(jnp.zeros_like, value)
        solve = lambda rows: conjugate_gradients(
            lambda x: pull(push(x))[0], pull(rows)[0], steps=steps, tolerance=1e-5
        )[0][0]
        return jnp.stack([solve((rows[0], quiet[1])), solve((quiet[0], rows[1]))]) if apart else solve(rows)

    return jax.lax.map(drawn, keys)

"""The empty beam on the device: flats between groups, eigen-flats and their weights."""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

__all__ = ["EmptyBeam", "Mixture", "empty_beam", "fit_eigen_weights"]

_BIN = 2  # pixels joined along each axis before the weights of eigen-flats are fitted: noise has total variation too
_ROUNDS = 25  # of the reweighted least squares


class EmptyBeam(NamedTuple):
    """What divides a block of frames, on the device; a pytree.

    **Fields:** `light` = flat minus dark of each group of flats; `dark`; `components` = eigen-flats (none of them where
    they are not used). All for the same detector rows.
    """

    light: Float[Array, "group y x"]
    dark: Float[Array, "y x"]
    components: Float[Array, "component y x"]


class Mixture(NamedTuple):
    """How much of each part of an `EmptyBeam` a view takes: between groups `left` and `right`, and the components."""

    left: Int[Array, " view"]
    right: Int[Array, " view"]
    share: Float[Array, " view"]
    weights: Float[Array, "view component"]


def empty_beam(beam: EmptyBeam, mixture: Mixture) -> Float[Array, "view y x"]:
    """Flat minus dark for each view."""
    share = mixture.share[:, None, None]
    light = beam.light[mixture.left] * (1 - share) + beam.light[mixture.right] * share
    return light + jnp.einsum("vk,kyx->vyx", mixture.weights, beam.components)


@partial(jax.jit, static_argnames=("rounds",))
def fit_eigen_weights(
    counts: Float[Array, "view band y x"],
    light: Float[Array, "band y x"],
    components: Float[Array, "component band y x"],
    *,
    rounds: int = _ROUNDS,
) -> Float[Array, "view component"]:
    """Weights of the eigen-flats that leave the least total variation in the logarithm of each corrected frame.

    Reweighted least squares: each round solves for the weights with every pixel difference weighted by one over its
    present size, so that edges of the sample count little (V. Van Nieuwenhove et al., Opt. Express 23, 27975 (2015),
    eq. 9, which takes the transmission instead of its logarithm).

    **Arguments:** dark-subtracted counts; `light` = mean flat minus dark; `components` = eigen-flats, all of the same
    bands of neighbouring detector rows.

    **Cost:** `rounds` passes over the sample with one small solve a view.
    """
    counts, light, components = (_binned(a) for a in (counts, light, components))
    floor = 1e-3 * jnp.mean(light)
    log_counts = jnp.log(jnp.maximum(counts, floor))

    def one(frame: Float[Array, "band y x"]) -> Float[Array, " component"]:
        def step(_, weights):
            flat = jnp.maximum(light + jnp.tensordot(weights, components, 1), floor)
            misfit = _differences(frame - jnp.log(flat))
            slopes = jax.vmap(_differences)(components / flat)
            small = 1e-6 + 0.05 * jnp.mean(jnp.abs(misfit))
            towards = slopes / jnp.sqrt(misfit**2 + small**2)
            normal = towards @ slopes.T
            ridge = 1e-6 * jnp.trace(normal) * jnp.eye(normal.shape[0], dtype=normal.dtype)
            return weights + jnp.linalg.solve(normal + ridge, towards @ misfit)

        return jax.lax.fori_loop(0, rounds, step, jnp.zeros(components.shape[0], light.dtype))

    return jax.lax.map(one, log_counts)


def _binned(a: Float[Array, "*any y x"]) -> Float[Array, "*any v u"]:
    """Means of squares of pixels; a single row is joined along x only."""
    ny, nx = (_BIN if n >= 2 * _BIN else 1 for n in a.shape[-2:])
    a = a[..., : a.shape[-2] // ny * ny, : a.shape[-1] // nx * nx]
    return a.reshape(*a.shape[:-2], a.shape[-2] // ny, ny, a.shape[-1] // nx, nx).mean((-3, -1))


def _differences(image: Float[Array, "band y x"]) -> Float[Array, " difference"]:
    return jnp.concatenate([jnp.diff(image, axis=-1).ravel(), jnp.diff(image, axis=-2).ravel()])

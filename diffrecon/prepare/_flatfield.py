"""Flat-field correction and the law of Lambert and Beer, for one block of frames."""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Num

from ._defects import ZINGER_REACH, Filling, mend_spikes, remove_zingers
from ._empty_beam import EmptyBeam, Mixture, empty_beam

__all__ = ["transmission"]


@jax.jit
def transmission(
    counts: Num[Array, "view y x"], flat: Float[Array, "*view y x"], dark: Float[Array, "y x"]
) -> Float[Array, "view y x"]:
    """`(counts - dark) / (flat - dark)`; NaN where the flat is not above the dark.

    ```python
    t = transmission(jnp.full((1, 1, 1), 60), jnp.full((1, 1), 110.0), jnp.full((1, 1), 10.0))   # 0.5
    ```
    """
    return _ratio(counts, flat - dark, dark)


def _ratio(counts: Array, light: Array, dark: Array) -> Array:
    return jnp.where(light > 0, (counts.astype(light.dtype) - dark) / jnp.where(light > 0, light, 1), jnp.nan)


class Zingers(NamedTuple):
    """How hits are found; a pytree.

    **Fields:** `threshold` [standard deviations] of `remove_zingers`, or `None`; counts a photon; read noise [counts].
    """

    threshold: float | None
    gain: float
    read_noise: float


@partial(jax.jit, static_argnames="moves")
def block_transmission(
    counts: Num[Array, "view y x"],
    beam: EmptyBeam,
    mixture: Mixture,
    flux: Float[Array, " view"],
    filling: Filling | None,
    zingers: Zingers | None,
    *,
    moves: int,
) -> tuple[Float[Array, "kept y x"], Bool[Array, "kept y x"] | None]:
    """Transmissions of a block with bad pixels filled and the flux of each view divided out, and where zingers were.

    With `zingers` counts, mixture and flux hold two further views at either end, the neighbours in time, in which
    details have moved by `moves` columns at most; they are cut off.
    """
    where = None
    if zingers is not None and zingers.threshold is not None:
        noise = {"gain": zingers.gain, "read_noise": zingers.read_noise}
        counts, where = remove_zingers(counts, threshold=zingers.threshold, **noise)
    empty = empty_beam(beam, mixture)
    light = _ratio(counts, empty, beam.dark) / flux[:, None, None].astype(beam.light.dtype)
    if filling is not None:
        light = filling.fill(light, 1.0)
    if zingers is None:
        return light, None
    light, hit = mend_spikes(light, empty, zingers.gain, zingers.read_noise, moves)
    hit = hit if where is None else hit | where
    return light[ZINGER_REACH:-ZINGER_REACH], hit[ZINGER_REACH:-ZINGER_REACH]


@jax.jit
def logarithm(light: Float[Array, "view y x"], clip: float) -> tuple[Float[Array, "view y x"], Array]:
    """Line integrals, and how many pixels of each detector row were below the clip (or not a number)."""
    low = ~(light >= clip)
    return -jnp.log(jnp.where(low, clip, light)), jnp.sum(low, (0, 2))

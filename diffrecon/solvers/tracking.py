"""Where a pattern has gone, window by window: what speckle trackers do, and the start of what does better."""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ..operators.fourier import blur

__all__ = ["Tracked", "track_windows"]


class Tracked(NamedTuple):
    """What correlation finds, window by window.

    **Fields:** `displacement` `(2, y, x)` [pixel], whole pixels; `visibility` of the pattern
    relative to the reference; `correlation`, 1 for a perfect match.
    """

    displacement: Float[Array, "2 y x"]
    visibility: Float[Array, "y x"]
    correlation: Float[Array, "y x"]


@partial(jax.jit, static_argnames=("reach",))
def track_windows(
    sample: Float[Array, "view y x"],
    reference: Float[Array, "view y x"],
    *,
    reach: int,
    window: float,
    smooth: float = 5.0,
) -> Tracked:
    """Find the shift of every window of the sample's pattern with the largest normalised correlation.

    All views together (XSVT: Berujon & Ziegler 2016; UMPA: Zdora 2017 minimises the same residual). A parabola through
    the correlations would be pulled towards whole pixels: this is a start, no measurement.

    **Arguments:** frames of common flux; `reach`, largest shift [pixel]; `window`, standard deviation of the Gaussian
    window, and `smooth` of what counts as no pattern [pixel]. **Cost:** `(2 reach + 1)^2` products of the stacks.

    ```python
    pattern = jax.random.normal(jax.random.key(0), (3, 40, 40)) * 0.1 + 1.0
    found = track_windows(jnp.roll(pattern, 2, 2), pattern, reach=3, window=2.0)
    assert jnp.abs(found.displacement[1, 8:-8, 8:-8] - 2.0).max() < 0.1
    ```
    """
    moved, still = (frames / local_mean(frames, smooth) - 1 for frames in (sample, reference))
    side = 2 * reach + 1
    padded = jnp.pad(still, ((0, 0), (reach, reach), (reach, reach)))
    power = local_mean((moved**2).sum(0), window)

    def compare(down: Array, right: Array) -> tuple[Array, Array]:
        there = jax.lax.dynamic_slice(padded, (jnp.zeros_like(down), reach - down, reach - right), moved.shape)
        product, own = local_mean(jnp.stack([(moved * there).sum(0), (there**2).sum(0)]), window)
        return product / jnp.sqrt(jnp.maximum(own * power, 1e-12)), product / jnp.maximum(own, 1e-12)

    def better(best: tuple[Array, ...], index: Array) -> tuple[tuple[Array, ...], None]:
        alike, contrast = compare(index // side - reach, index % side - reach)
        won = alike > best[0]
        return (jnp.where(won, alike, best[0]), jnp.where(won, index, best[1]), jnp.where(won, contrast, best[2])), None

    nothing = (
        jnp.full(moved.shape[1:], -2.0, moved.dtype),
        jnp.zeros(moved.shape[1:], jnp.int32),
        jnp.zeros(moved.shape[1:], moved.dtype),
    )
    (alike, index, contrast), _ = jax.lax.scan(better, nothing, jnp.arange(side * side, dtype=jnp.int32))
    whole = jnp.stack([index // side - reach, index % side - reach]).astype(moved.dtype)
    return Tracked(whole, contrast, alike)


def local_mean(frames: Array, width: float) -> Array:
    """Take the Gaussian mean over a mirrored border, of standard deviation `width` [pixel]."""
    border = min(16, *(n - 1 for n in frames.shape[-2:]))
    pad = [(0, 0)] * (frames.ndim - 2) + [(border, border)] * 2
    return blur(jnp.pad(frames, pad, mode="reflect"), width)[..., border:-border, border:-border]

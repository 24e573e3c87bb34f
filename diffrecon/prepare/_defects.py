"""Pixels that do not tell the truth: dead and hot ones for good, hit by a stray photon in one view."""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Num

from ._references import References

__all__ = ["BadPixels", "find_bad_pixels", "remove_zingers"]

ZINGER_REACH = 2  # neighbours on each side, in time and along the detector row
_DRIFT = 3  # columns that an edge of the sample may move from one view to the next


@dataclasses.dataclass(frozen=True)
class BadPixels:
    """**Fields:** `mask` `(y, x)`, `True` = bad; `dead`, `hot`, `stuck`, `masked` = how many of each kind (a pixel
    counts once, as the first of these that it is)."""

    mask: Bool[np.ndarray, "y x"]
    dead: int = 0
    hot: int = 0
    stuck: int = 0
    masked: int = 0

    def message(self) -> str:
        kinds = (("without flat-field signal", self.dead), ("hot", self.hot), ("stuck", self.stuck),
                 ("masked", self.masked))
        said = ", ".join(f"{count} {kind}" for kind, count in kinds if count)
        total = int(self.mask.sum())
        line = f"{total} bad detector pixel{'s' * (total > 1)} ({said}), filled from their neighbours in the row"
        lost = int(self.mask.all(1).sum())
        return line + (f"; {lost} rows have no good pixel and hold zeros" if lost else "")


def find_bad_pixels(references: References, mask: Bool[np.ndarray, "y x"] | None = None) -> BadPixels:
    """Dead, hot and stuck pixels from flats and darks; those the scan's mask leaves out are bad too.

    Dead: flat minus dark not above 3 % of the median of the detector pixels around. Hot: dark above the median dark by
    half the light of a flat (the flat is then all but full). Stuck: the same count in every flat where others
    fluctuate. Only what holds no signal is called bad: a pixel that is merely noisy or off in gain is not.
    """
    light = references.light.mean(0, dtype=float)
    shape = light.shape
    usual = _local_median(light)
    dead = ~np.isfinite(light) | (light <= 0) | (light < 0.03 * usual)
    dark = references.dark
    hot = dark - np.median(dark) > 0.5 * max(float(np.median(light[~dead])) if (~dead).any() else 0.0, 1e-30)
    stuck = np.zeros(shape, bool)
    if references.frames is not None and len(references.frames) >= 5:
        frames = references.frames
        still = np.ptp(frames, axis=0) == 0
        stuck = still if np.count_nonzero(still) < 0.05 * still.size else stuck
    masked = np.zeros(shape, bool) if mask is None else ~mask
    found, counts = np.zeros(shape, bool), []
    for kind in (dead, hot, stuck, masked):
        counts.append(int(np.count_nonzero(kind & ~found)))
        found |= kind
    return BadPixels(found, *counts)


def _local_median(image: np.ndarray, reach: int = 8) -> np.ndarray:
    """Median of the values 2 * reach + 1 pixels wide along the row; rows may differ by orders of magnitude."""
    padded = np.pad(image, ((0, 0), (reach, reach)), mode="reflect" if image.shape[1] > reach else "edge")
    windows = np.lib.stride_tricks.sliding_window_view(padded, 2 * reach + 1, axis=1)
    return np.median(windows, axis=-1)


class Filling(NamedTuple):
    """Where values are missing and between which columns of the row they are interpolated; a pytree.

    The number of entries is a power of two (the last one repeated), so that few programs are compiled.
    """

    row: Int[Array, " bad"]
    column: Int[Array, " bad"]
    left: Int[Array, " bad"]
    right: Int[Array, " bad"]
    share: Float[Array, " bad"]
    lost: Bool[Array, " bad"]

    @classmethod
    def of(cls, bad: Bool[np.ndarray, "y x"]) -> "Filling | None":
        """For these bad pixels; `None` when there are none."""
        if not bad.any():
            return None
        rows, columns = np.nonzero(bad)
        at = np.arange(bad.shape[1])
        left = np.maximum.accumulate(np.where(bad, -1, at), axis=1)[rows, columns]
        right = np.minimum.accumulate(np.where(bad, bad.shape[1], at)[:, ::-1], axis=1)[:, ::-1][rows, columns]
        lost = (left < 0) & (right >= bad.shape[1])
        # At the edge of the detector the one neighbour there is.
        left, right = np.where(left < 0, right, left), np.where(right >= bad.shape[1], left, right)
        left, right = (np.where(lost, 0, side) for side in (left, right))
        share = np.where(right > left, (columns - left) / np.maximum(right - left, 1), 0.0)
        size = 1 << (rows.size - 1).bit_length()
        fill = lambda a, dtype: jnp.asarray(np.pad(a, (0, size - rows.size), mode="edge"), dtype)
        rows, columns, left, right = (fill(a, jnp.int32) for a in (rows, columns, left, right))
        return cls(rows, columns, left, right, fill(share, jnp.float32), fill(lost, bool))

    def fill(self, values: Float[Array, "view y x"], otherwise: float) -> Float[Array, "view y x"]:
        """Linear interpolation along the row; `otherwise` in rows without any good pixel."""
        between = (values[:, self.row, self.left] * (1 - self.share)
                   + values[:, self.row, self.right] * self.share)
        between = jnp.where(self.lost, otherwise, between)
        return values.at[:, self.row, self.column].set(between.astype(values.dtype))


@jax.jit
def remove_zingers(
    counts: Num[Array, "view y x"], *, threshold: float, gain: float = 1.0, read_noise: float = 0.0
) -> tuple[Float[Array, "view y x"], Bool[Array, "view y x"]]:
    """Replace counts far above both their neighbours in time and those along the row; `(counts, which)`.

    A value is a zinger when it exceeds by `threshold` standard deviations of the counting noise, `sqrt(gain * level +
    read_noise^2)`, the median of two columns on either side AND what the views before and those after hold anywhere
    within 3 columns (twice as far two views away; one of the two views on a side may be hit itself). The bright fringe
    of an edge, narrow as it is, is in the next view a few columns further on, and stays. The median of the same pixel
    in the four views takes its place.

    **Arguments:** `threshold` in standard deviations, 6 to 10; `gain` = counts a photon; `read_noise` [counts].

    ```python
    counts = jnp.full((5, 1, 5), 100.0).at[2, 0, 2].set(4000)
    clean, where = remove_zingers(counts, threshold=8.0)      # 100 everywhere, one True
    ```
    """
    values = counts.astype(jnp.result_type(counts.dtype, jnp.float32))
    in_time, in_space = _median_of_neighbours(values, 0), _median_of_neighbours(values, 2)
    usual = jnp.maximum(_nearby_in_time(values), in_space)
    noise = jnp.sqrt(gain * jnp.maximum(usual, 1) + read_noise**2)
    where = values - usual > threshold * noise
    return jnp.where(where, in_time, values), where


def _nearby_in_time(values: Float[Array, "view y x"]) -> Float[Array, "view y x"]:
    """What the views before, or those after, hold at their brightest within some columns; of two views the darker."""
    if values.shape[0] <= ZINGER_REACH:
        return jnp.full_like(values, jnp.inf)
    near = _running_maximum(values, _DRIFT)
    far = _running_maximum(near, _DRIFT)
    before, after = (jnp.minimum(*pair) for pair in zip(_both_sides(near, 0, 1), _both_sides(far, 0, 2), strict=True))
    return jnp.maximum(before, after)


def _running_maximum(values: Float[Array, "view y x"], reach: int) -> Float[Array, "view y x"]:
    return jax.lax.reduce_window(values, -jnp.inf, jax.lax.max, (1, 1, 2 * reach + 1), (1, 1, 1), "SAME")


def _median_of_neighbours(values: Float[Array, "view y x"], axis: int) -> Float[Array, "view y x"]:
    """Median of the two before and the two after."""
    if values.shape[axis] <= ZINGER_REACH:
        return values
    (a, d), (b, c) = _both_sides(values, axis, 2), _both_sides(values, axis, 1)
    low, high = jnp.maximum(jnp.minimum(a, b), jnp.minimum(c, d)), jnp.minimum(jnp.maximum(a, b), jnp.maximum(c, d))
    return (low + high) / 2


def _both_sides(values: Float[Array, "view y x"], axis: int, step: int) -> tuple[Array, Array]:
    """Neighbours `step` before and after; at the ends those of the other side stand in."""
    padded = jnp.pad(values, [(step, step) if i == axis else (0, 0) for i in range(3)], mode="reflect")
    take = lambda start: jax.lax.slice_in_dim(padded, start, start + values.shape[axis], axis=axis)
    return take(0), take(2 * step)

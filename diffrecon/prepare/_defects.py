"""Pixels that do not tell the truth: dead and hot ones for good, hit by a stray photon in one view."""

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Num

from ..errors import InputError
from ..frames import Measurement
from ._references import References

__all__ = [
    "BadPixels",
    "brighter_than_beam",
    "find_bad_pixels",
    "find_outliers",
    "leave_out",
    "mend_outliers",
    "mend_spikes",
    "remove_zingers",
]

ZINGER_REACH = 2  # neighbours on each side, in time and along the detector row
_MOST_OUTLIERS = 0.02  # share of the pixels that may be defects
_BRIGHTER_THAN_BEAM = 1.25  # times: no edge is as bright in most views
_FAR_BRIGHTER, _SURELY = 1.4, 5.0  # times, and standard deviations
_MOST_MASKED = 0.8  # of the pixels
_DRIFT = 3  # columns that an edge of the sample may move from one view to the next


@dataclasses.dataclass(frozen=True)
class BadPixels:
    """**Fields:** `mask` `(y, x)`, `True` = bad; `masked`, `unlit` (in rows that the beam does not reach), `dead`,
    `hot`, `stuck` = how many of each kind (a pixel counts once, as the first of these that it is)."""

    mask: Bool[np.ndarray, "y x"]
    masked: int = 0
    unlit: int = 0
    dead: int = 0
    hot: int = 0
    stuck: int = 0

    def message(self) -> str:
        kinds = (
            ("masked", self.masked),
            ("in rows without light", self.unlit),
            ("without flat-field signal", self.dead),
            ("hot", self.hot),
            ("stuck", self.stuck),
        )
        said = ", ".join(f"{count} {kind}" for kind, count in kinds if count)
        total = int(self.mask.sum())
        line = f"{total} bad detector pixel{'s' * (total > 1)} ({said}), filled from their neighbours in the row"
        lost = int(self.mask.all(1).sum())
        return line + (f"; {lost} rows have no good pixel and hold zeros" if lost else "")


def find_bad_pixels(
    references: References, mask: Bool[np.ndarray, "y x"] | None = None, lit: Bool[np.ndarray, "y x"] | None = None
) -> BadPixels:
    """Dead, hot and stuck pixels from flats and darks; those the scan's mask leaves out are bad too, and those that are
    `lit` in the frames as no light is (`brighter_than_beam`).

    Unlit: in a row that holds less than 1 % of the light of the bright ones, and less than five times the read noise.
    Dead: flat minus dark not above 3 % of the median of the detector pixels around. Hot: dark above the median dark by
    half the light of a flat (the flat is then all but full). Stuck: the same count in every flat where others
    fluctuate. Only what holds no signal is called bad: a pixel that is merely noisy or off in gain is not.

    **Raises:** `InputError` where the mask leaves so little that rows cannot be filled.
    """
    light = references.light.mean(0, dtype=float)
    shape = light.shape
    masked = np.zeros(shape, bool) if mask is None else ~mask
    if masked.mean() > _MOST_MASKED:
        raise InputError(
            f"the mask leaves {1 - masked.mean():.1%} of the pixels, from which the others cannot be filled: is it the "
            "other way round (nonzero = measured in data.mask, = bad in data.bad_pixels)?"
        )
    usual = _local_median(light)
    unlit = np.broadcast_to(_unlit_rows(np.where(masked, np.nan, light), references)[:, None], shape)
    dead = ~np.isfinite(light) | (light <= 0) | (light < 0.03 * usual)
    dark = references.dark
    hot = dark - np.nanmedian(dark) > 0.5 * max(float(np.median(light[~dead])) if (~dead).any() else 0.0, 1e-30)
    hot = hot if lit is None else hot | lit
    stuck = np.zeros(shape, bool)
    if references.frames is not None and len(references.frames) >= 5:
        frames = references.frames
        still = np.ptp(frames, axis=0) == 0
        spread = max(2 * np.pi * references.gain * float(np.median(light)), 1e-30)
        by_chance = spread ** (-(len(frames) - 1) / 2) * still.size  # that a few photons are as many in every flat
        stuck = still if 10 * by_chance < np.count_nonzero(still) < 0.05 * still.size else stuck
    found, counts = np.zeros(shape, bool), []
    for kind in (masked, unlit, dead, hot, stuck):
        counts.append(int(np.count_nonzero(kind & ~found)))
        found |= kind
    return BadPixels(found, *counts)


def brighter_than_beam(
    counts: Num[np.ndarray, "view y x"],
    light: Float[np.ndarray, "beam y x"],
    dark: Float[np.ndarray, "y x"],
    beam_of: Int[np.ndarray, " view"],
    flats: float | int,
    gain: float = 1.0,
) -> Bool[np.ndarray, "y x"]:
    """Find single pixels that hold a quarter more than the empty beam in most views: hot in the frames alone.

    Where many do the flats are of another exposure; where those above and below do it is the fringe of an edge that
    stays, as that of a capillary. On up to three rows, where that cannot be told, 1.4 times the beam. Noise passes
    for none: five standard deviations are added.

    **Arguments:** counts of some views; `light` of the empty beams less the dark; `beam_of`, which is a view's; how
    many `flats` are averaged in each; `gain` in counts a photon.
    """
    shares = (np.asarray(counts, np.float32) - dark) / np.where(light > 0, light, np.inf)[beam_of]
    usual = np.median(shares, axis=0)
    several = len(usual) > 3
    level = max(float(np.quantile(usual, 0.95)), 1.0)
    beside = np.maximum(_local_median(usual.T, 2).T, level) if several else level
    photons = np.maximum(_local_median(light.mean(0, dtype=float)) / gain, 1e-6)
    noise = np.sqrt((np.pi / 2 / len(shares) + 1 / max(flats, 1)) / photons)
    return usual > (_BRIGHTER_THAN_BEAM if several else _FAR_BRIGHTER) * beside + _SURELY * level * noise


def _unlit_rows(light: np.ndarray, references: References) -> np.ndarray:
    """Find the rows that the beam does not reach; none where there are no flats."""
    if references.frames is None:
        return np.zeros(len(light), bool)
    rows = np.array([np.nanmedian(row) if np.isfinite(row).any() else np.inf for row in light])
    lit = rows[np.isfinite(rows)]
    bright = np.quantile(lit, 0.9) if lit.size else 0.0
    return (rows < 0.01 * bright) & (rows < 5 * max(references.read_noise, 1.0))


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
        """Make the filling of these bad pixels; `None` when there are none."""
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
        more = (1 << (rows.size - 1).bit_length()) - rows.size
        fill = lambda a, dtype: jnp.asarray(np.pad(a, (0, more), mode="edge"), dtype)
        rows, columns, left, right = (fill(a, jnp.int32) for a in (rows, columns, left, right))
        return cls(rows, columns, left, right, fill(share, jnp.float32), fill(lost, bool))

    def fill(self, values: Float[Array, "view y x"], otherwise: float) -> Float[Array, "view y x"]:
        """Linear interpolation along the row; `otherwise` in rows without any good pixel."""
        between = values[:, self.row, self.left] * (1 - self.share) + values[:, self.row, self.right] * self.share
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


_BRIGHTER, _DARKER = 3.0, 20.0  # than all around: no light does that in one view alone
_SPIKE_NOISE = 10.0  # standard deviations that a spike must stand out by
_FARTHEST = 15  # columns that a detail moves between views; beyond, whole rows of the views beside are compared


def columns_moved(scan: Measurement) -> int:
    """Count the columns by which a detail of a sample on the detector may move from one view to the next."""
    if scan.angles is None or scan.views < 2:
        return 3
    step = float(np.median(np.abs(np.diff(scan.angles))))
    return 3 + int(np.ceil(step * scan.frame_shape[1] / 2))


def mend_spikes(
    light: Float[Array, "view y x"], beam: Float[Array, "view y x"], gain: Any, read_noise: Any, moves: int
) -> tuple[Float[Array, "view y x"], Bool[Array, "view y x"]]:
    """Replace transmissions that are wrong in one view: `(transmissions, which)`.

    Such a value is not finite, or three times brighter or twenty times darker than those two and three columns away AND
    than all within `moves` columns in the views before and after, by ten standard deviations at least: a flipped bit, a
    lost pixel, a hit. Edges, slits and wires, which move by fewer columns from view to view, stay. Works on rows by
    themselves.

    **Arguments:** `beam` [counts] by which the counts were divided; `gain` = counts a photon, 0 where it is not known;
    `read_noise` [counts].
    """
    finite = jnp.isfinite(light)
    ring = [(0, d) for d in (-3, -2, 2, 3)]
    values = {True: jnp.where(finite, light, -jnp.inf), False: jnp.where(finite, light, jnp.inf)}
    bound = {}
    for high, most in ((True, jnp.maximum), (False, jnp.minimum)):
        near = _running(values[high], moves, high) if moves <= _FARTHEST else _over_rows(values[high], high)
        before, after = jnp.concatenate([near[:1], near[:-1]]), jnp.concatenate([near[1:], near[-1:]])
        bound[high] = most(most(before, after), _extreme(_around(values[high], ring), most))
    beam = jnp.maximum(beam, 1e-6)
    noise = lambda level: jnp.sqrt(gain * jnp.maximum(level, 0) / beam + (read_noise / beam) ** 2)
    high, low = bound[True], bound[False]
    bright = (light > _BRIGHTER * high) & (light - high > _SPIKE_NOISE * noise(high))
    dark = (_DARKER * jnp.maximum(light, 0) < low) & (low - light > _SPIKE_NOISE * noise(low)) & jnp.isfinite(low)
    which = ~finite | bright | dark
    around = _around(jnp.where(finite, light, 0), ring[1:3]), _around(finite.astype(light.dtype), ring[1:3])
    usual = sum(around[0]) / jnp.maximum(sum(around[1]), 1)
    return jnp.where(which, usual, light), which


def _running(values: Float[Array, "view y x"], reach: int, high: bool) -> Float[Array, "view y x"]:
    """Largest or smallest value within some columns."""
    start, rule = (-jnp.inf, jax.lax.max) if high else (jnp.inf, jax.lax.min)
    return jax.lax.reduce_window(values, start, rule, (1, 1, 2 * reach + 1), (1, 1, 1), "SAME")


def _over_rows(values: Float[Array, "view y x"], high: bool) -> Float[Array, "view y x"]:
    return jnp.broadcast_to((jnp.max if high else jnp.min)(values, -1, keepdims=True), values.shape)


def _extreme(values: list[Array], most: Any) -> Array:
    return most(most(values[0], values[1]), most(values[2], values[3]))


# Who is asked what differences are usual: eight at each of these distances.
_AROUND = (4, 6)
_BEYOND = 0.5  # a defect lies beyond all around by this share of its distance from their median; a fringe goes on
_EXTREME = 20.0  # ... or differs from it by this factor, up or down


@jax.jit
def find_outliers(
    counts: Num[Array, "view y x"], beam: Float[Array, "#view y x"], *, threshold: float = 10.0
) -> tuple[Bool[Array, "view y x"], Float[Array, "view y x"]]:
    """Single pixels of a few frames that stand out from those around, dead, hot or hit: `(which, mended)` [counts].

    A value is an outlier when it differs from the median of the sixteen pixels two away (its usual value there, which
    takes its place in `mended`) by `threshold` standard deviations: those of photon noise or of the differences of the
    same kind (their upper quartile) within six pixels, which are larger where there are fringes. It must also lie
    well beyond the highest or lowest of the sixteen, as no fringe or edge does that goes on in some direction, or
    differ from the median twentyfold: defects of 3 x 3 pixels are found only so. All is of counts over beam, so
    that pixels that differ in gain are not outliers. For frames that have no neighbours in time, such as holograms at
    several distances; where there are, `remove_zingers` is the surer way. An object sharper than the pixel, its
    image not blurred by the detector, can be as sharp as a defect.

    **Arguments:** `counts` without the dark; `beam`, those without sample, of photons (one count a photon).

    ```python
    counts = jnp.full((1, 32, 32), 100.0).at[0, 9, 9].set(0)
    which, mended = find_outliers(counts, jnp.full((1, 32, 32), 100.0))      # one True; 100 everywhere
    ```
    """
    beam = jnp.broadcast_to(jnp.asarray(beam, jnp.result_type(counts.dtype, jnp.float32)), counts.shape)
    lit = beam > 0
    beam = jnp.where(lit, beam, 1)
    values = jnp.where(lit, counts / beam, 0)
    ring = _ranked(_around(values, [(i, j) for i in range(-2, 3) for j in range(-2, 3) if max(abs(i), abs(j)) == 2]))
    usual = (ring[7] + ring[8]) / 2
    off = jnp.abs(values - usual)
    eight = [(i, j) for i in (-1, 0, 1) for j in (-1, 0, 1) if (i, j) != (0, 0)]
    activity = _ranked(_around(off, [(d * i, d * j) for d in _AROUND for i, j in eight]))[11] / 1.15
    noise = (jnp.maximum(usual, 0) + 1 / beam) / beam
    beyond = jnp.maximum(values - ring[-1], ring[0] - values) > _BEYOND * off
    extreme = (values > _EXTREME * usual) | (_EXTREME * values < usual)
    which = ~lit | ((off > threshold * jnp.maximum(jnp.sqrt(noise), activity)) & (beyond | extreme))
    return which, jnp.where(which, usual * beam, counts)


def leave_out(which: Bool[np.ndarray, "y x"], mask: Bool[np.ndarray, "y x"]) -> tuple[Bool[np.ndarray, "y x"], str]:
    """Take outliers out of a mask of good pixels, unless they are too many to be defects: the mask, and what to say.

    ```python
    mask, message = leave_out(np.eye(64, dtype=bool), np.ones((64, 64), bool))
    assert not mask[3, 3] and "64 pixels" in message
    ```
    """
    which = which & mask
    share = which.sum() / max(mask.sum(), 1)
    if share > _MOST_OUTLIERS:
        return mask, (
            f"WARNING: {share:.1%} of the pixels stand out from those around, too many for defects; they are kept. "
            "Give the defects as data.mask, or the pattern as data.flats"
        )
    count = int(which.sum())
    line = f"{count} pixels that stand out from those around are left out (prepare.outliers)" if count else ""
    return mask & ~which, line


def mend_outliers(
    counts: Num[np.ndarray, "view y x"],
    beam: Float[Array, "#view #y #x"],
    mask: Bool[np.ndarray, "y x"],
    *,
    dark: Any = 0.0,
    threshold: float = 10.0,
) -> tuple[Num[np.ndarray, "view y x"], Bool[np.ndarray, "y x"], str]:
    """Leave out, in all frames, pixels that are dead, hot or were hit in one, and put their usual counts there.

    **Arguments:** as `find_outliers`, and the mean `dark` [counts], which `counts` hold and `beam` does not.

    **Returns:** counts, mask and what to say; counts and mask are those given where nothing is left out.
    """
    beam = jnp.broadcast_to(beam, counts.shape)
    which, mended = zip(
        *(find_outliers((n - dark)[None], b[None], threshold=threshold) for n, b in zip(counts, beam, strict=True)),
        strict=True,
    )
    found = np.asarray(jnp.any(jnp.concatenate(which), 0))
    good, message = leave_out(found, mask)
    if (good == mask).all():
        return counts, mask, message
    usual = np.asarray(jnp.concatenate(mended)) + np.asarray(dark)
    return np.where(mask & ~good, usual, counts), good, message


def _around(values: Float[Array, "view y x"], places: list[tuple[int, int]]) -> list[Array]:
    """Pick for every pixel those at some places from it; beyond the border those of the other side."""
    height, width = values.shape[1:]
    reach = max(max(map(abs, place)) for place in places)
    padded = jnp.pad(values, ((0, 0), (reach, reach), (reach, reach)), mode="symmetric")
    return [padded[:, reach + i : reach + i + height, reach + j : reach + j + width] for i, j in places]


def _ranked(values: list[Array]) -> list[Array]:
    """Arrays sorted pixel by pixel, by exchanges of neighbours: few values of many pixels."""
    values = list(values)
    for turn in range(len(values)):
        for i in range(turn % 2, len(values) - 1, 2):
            a, b = values[i], values[i + 1]
            values[i], values[i + 1] = jnp.minimum(a, b), jnp.maximum(a, b)
    return values


def _nearby_in_time(values: Float[Array, "view y x"]) -> Float[Array, "view y x"]:
    """Find what the views before, or after, hold at their brightest within some columns; of two views the darker."""
    if values.shape[0] <= ZINGER_REACH:
        return jnp.full_like(values, jnp.inf)
    near = _running(values, _DRIFT, high=True)
    far = _running(near, _DRIFT, high=True)
    before, after = (jnp.minimum(*pair) for pair in zip(_both_sides(near, 0, 1), _both_sides(far, 0, 2), strict=True))
    return jnp.maximum(before, after)


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

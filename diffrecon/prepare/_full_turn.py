"""Scans over a full turn whose axis lies near an edge of the detector: two half views make a wide one."""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from ..errors import InputError

__all__ = ["StitchPlan", "is_full_turn", "plan_stitch", "should_stitch", "stitch"]

_GAP = 2.5  # usual steps between neighbouring views, from which on some are lacking
_OFFSET = 0.05  # of the detector's width that the axis must lie off the middle before half views are joined
_TRUNCATED = 0.05  # of the largest line integrals that the sample must still absorb at the edge near the axis


class StitchPlan(NamedTuple):
    """How views become wide ones; a pytree.

    **Fields:** `view` = view on the first half turn; `first`, `second`, `share` = the views half a turn later on either
    side of its direction; `start` = detector column of the wide row's first column, `width` columns; `axis` = detector
    column of the rotation axis.
    """

    view: Int[Array, " wide"]
    first: Int[Array, " wide"]
    second: Int[Array, " wide"]
    share: Float[Array, " wide"]
    axis: Float[Array, ""]
    start: int
    width: int

    @property
    def centre(self) -> float:
        """Column of the rotation axis in the wide rows [pixel]."""
        return float(self.axis) - self.start


def is_full_turn(angles: Float[np.ndarray, " view"]) -> bool:
    """Tell whether the views [rad] go all around: no gap of more than two and a half usual steps in 360 degrees."""
    if len(angles) < 4:
        return False
    gaps, usual = _gaps(angles)[1:]
    return bool(gaps.max() < _GAP * usual and np.ptp(angles) > 1.9 * np.pi)


def onwards(angles: Float[np.ndarray, " view"]) -> Float[np.ndarray, " view"]:
    """Count angles [rad] of less than a turn that pass 360 degrees on their way from the first one on."""
    if len(angles) < 4 or np.ptp(angles) > 2 * np.pi:
        return angles
    places, gaps, usual = _gaps(angles)
    if gaps.max() < _GAP * usual:
        return angles
    start = places[(int(np.argmax(gaps)) + 1) % len(places)]
    return start + np.mod(angles - start + 1e-9, 2 * np.pi) - 1e-9


def _gaps(angles: np.ndarray) -> tuple[np.ndarray, np.ndarray, float]:
    """Give the directions in order, the gap behind each, and the usual one."""
    places = np.sort(np.mod(angles, 2 * np.pi))
    gaps = np.diff(np.append(places, places[0] + 2 * np.pi))
    return places, gaps, float(np.median(gaps[gaps > 1e-6])) if (gaps > 1e-6).any() else 0.0


def should_stitch(values: Float[np.ndarray, "view z u"], centre: float) -> bool:
    """Tell whether the axis lies off the middle and the sample reaches beyond the detector on that side."""
    columns = values.shape[-1]
    offset = centre - (columns - 1) / 2
    if abs(offset) < _OFFSET * columns:
        return False
    edge = values[..., -3:] if offset > 0 else values[..., :3]
    return bool(np.mean(edge) > _TRUNCATED * np.quantile(values, 0.95))


def plan_stitch(angles: Float[np.ndarray, " view"], columns: int, centre: float) -> tuple[StitchPlan, np.ndarray]:
    """Choose which views make the wide ones, and the angles of these [rad], from the first view on over half a turn.

    **Arguments:** `centre` = detector column of the rotation axis [pixel].

    **Raises:** `InputError` unless the views go all around and the axis is on the detector.
    """
    if not is_full_turn(angles):
        raise InputError(
            'prepare.full_turn = "stitch" needs views all around, 360 degrees; these span '
            f"{np.degrees(np.ptp(angles)):.0f} degrees"
        )
    if not 2 <= centre <= columns - 3:
        raise InputError(
            f"the rotation axis at column {centre:.1f} leaves no overlap on the detector of {columns} "
            "columns: half views cannot be joined"
        )
    turned = np.mod(np.asarray(angles, float) - angles[0], 2 * np.pi)
    turned[2 * np.pi - turned < 1e-6] = 0.0
    order = np.argsort(turned, kind="stable")
    order = order[np.append(True, np.diff(turned[order]) > 1e-6)]  # the view that repeats the first one
    front = order[turned[order] < np.pi - 1e-6]
    place = np.interp(turned[front] + np.pi, np.append(turned[order], 2 * np.pi), np.arange(order.size + 1))
    first = np.minimum(place.astype(int), order.size - 1)
    share = place - first
    start = int(np.ceil(2 * centre - (columns - 1))) if centre < (columns - 1) / 2 else 0
    end = columns - 1 if centre < (columns - 1) / 2 else int(np.floor(2 * centre))
    plan = StitchPlan(
        jnp.asarray(front),
        jnp.asarray(order[first]),
        jnp.asarray(order[(first + 1) % order.size]),
        jnp.asarray(share, jnp.float32),
        jnp.asarray(centre, jnp.float32),
        start,
        end - start + 1,
    )
    return plan, angles[0] + turned[front]


def stitch(values: Float[Array, "view z u"], plan: StitchPlan) -> Float[Array, "wide z column"]:
    """Wide views: each view, and the mirror image `p(theta + pi, 2 c - u)` of the one half a turn later, blended over
    the columns that both see with a raised cosine.

    Between views and columns the mirror image is interpolated, linearly and by cubic convolution; the view itself is
    not.
    """
    return _stitch(jnp.asarray(values), *plan[:5], start=plan.start, width=plan.width)


@partial(jax.jit, static_argnames=("start", "width"))
def _stitch(values, view, first, second, share, axis, *, start: int, width: int):
    columns = values.shape[-1]
    share = share[:, None, None].astype(values.dtype)
    later = values[first] * (1 - share) + values[second] * share
    u = start + jnp.arange(width)
    whole = jnp.floor(2 * axis).astype(jnp.int32)
    rest = (2 * axis - whole).astype(values.dtype)
    mirrored = jnp.zeros((*later.shape[:-1], width), values.dtype)
    for tap, weight in zip((-1, 0, 1, 2), _cubic(rest), strict=True):
        mirrored += weight * later[..., jnp.clip(whole - u + tap, 0, columns - 1)]
    itself = values[view][..., jnp.clip(u, 0, columns - 1)]
    # From the edge of one picture to the edge of the other; 1 = the view itself.
    right = start >= 0 and width > columns
    near, far = (2 * axis - (columns - 1), columns - 1.0) if right else (2 * axis, 0.0)
    along = jnp.clip((u - near) / (far - near), 0, 1).astype(values.dtype)
    blend = 0.5 + 0.5 * jnp.cos(jnp.pi * along)
    return itself * blend + mirrored * (1 - blend)


def _cubic(t: Array) -> tuple[Array, ...]:
    """Weights of the four neighbours (cubic convolution, a = -1/2)."""
    return (
        ((-0.5 * t + 1) * t - 0.5) * t,
        (1.5 * t - 2.5) * t * t + 1,
        ((-1.5 * t + 2) * t + 0.5) * t,
        (0.5 * t - 0.5) * t * t,
    )

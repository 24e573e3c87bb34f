"""Emission out of a body that absorbs the beam on its way in and every line on its way to the detector.

The body is turned into the frame of the beam, where both ways are the same for every view: u across the beam, t along
it, in voxels; the detector stands still there.
"""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float

from ..errors import InputError

__all__ = ["Escape", "path_in", "slab_share", "turn_to_beam"]

_APART = 2.0  # over the voxels of a slice: spread of the slopes of directions that are walked as one
_LANES = 96  # views x lines that walk to the detector together: 64 to 150 measured alike, 450 half as fast


# ---------------------------------------------------------------------------------------------------- rotation
def turn_to_beam(
    volume: Float[Array, "y x *lane"], angles: Float[Array, " view"], offsets: Float[Array, "..."] | float = 0.0
) -> Float[Array, "u t view *lane"]:
    """Turn slices into the frame of the beam of each view, bilinear, n samples along u and t for n voxels.

    Sample `(i, j)` lies at `u = i - (n - 1)/2 + offset`, `t = j - (n - 1)/2`, that is at `x = u cos - t sin`,
    `y = u sin + t cos`: at angle 0 the beam runs along +y. Outside of the grid it is empty.

    **Arguments:** `angles` [rad]; `offsets` [voxel] of every view along u, differentiable, as the angles are.

    The transpose is a gather, too, three times the cost of the way there; XLA's scatter would be ten times.

    ```python
    image = jnp.zeros((9, 9)).at[4, 7].set(1.0)                       # at x = 3, y = 0
    turned = turn_to_beam(image, jnp.array([0.0, np.pi / 2]))
    assert turned[7, 4, 0] == 1 and jnp.allclose(turned[4, 1, 1], 1)  # u = 3, then t = -3
    ```
    """
    return _turned(volume, angles, jnp.broadcast_to(jnp.asarray(offsets, volume.dtype), angles.shape))


@jax.custom_vjp
def _turned(volume: Array, angles: Array, offsets: Array) -> Array:
    return _gathered(volume, angles, offsets)


def _turned_forward(volume: Any, angles: Any, offsets: Any) -> tuple[Array, Any]:
    moves = angles.perturbed or offsets.perturbed
    values = volume.value, angles.value, offsets.value
    return _gathered(*values), (values if moves else (None, *values[1:]))


def _turned_backward(residuals: tuple[Any, Array, Array], gradient: Any) -> tuple[Any, Any, Any]:
    volume, angles, offsets = residuals
    back = _spread(gradient, angles, offsets)
    if volume is None:
        return back, None, None
    _, pull = jax.vjp(lambda a, o: _gathered(volume, a, o), angles, offsets)
    return back, *pull(gradient)


_turned.defvjp(_turned_forward, _turned_backward, symbolic_zeros=True)


def _places(n: int, dtype: Any) -> Array:
    return jnp.arange(n, dtype=dtype) - (n - 1) / 2


def _lane(weight: Array, like: Array) -> Array:
    return weight.reshape(*weight.shape, *(1,) * (like.ndim - 2))


def _gathered(volume: Array, angles: Array, offsets: Array) -> Array:
    n = volume.shape[0]
    flat = jnp.pad(volume, [(1, 1), (1, 1)] + [(0, 0)] * (volume.ndim - 2)).reshape((n + 2) ** 2, *volume.shape[2:])
    c, s, place = jnp.cos(angles), jnp.sin(angles), _places(n, volume.dtype)
    u, t = place[:, None, None] + offsets, place[None, :, None]
    x, y = (jnp.clip(p + (n + 1) / 2, 0, n + 1) for p in (u * c - t * s, u * s + t * c))
    column, row = (jnp.minimum(jnp.floor(lax.stop_gradient(p)), n) for p in (x, y))
    fx, fy = x - column, y - row
    first = (row * (n + 2) + column).astype(jnp.int32)
    corners = ((0, (1 - fy) * (1 - fx)), (1, (1 - fy) * fx), (n + 2, fy * (1 - fx)), (n + 3, fy * fx))
    parts = [_lane(w, volume) * flat.at[first + step].get(mode="promise_in_bounds") for step, w in corners]
    return parts[0] + parts[1] + parts[2] + parts[3]


def _spread(turned: Array, angles: Array, offsets: Array) -> Array:
    """Transpose: every voxel collects the samples whose bilinear footprint reaches it, of the 9 about its own place."""
    n, dtype, lanes = turned.shape[0], turned.dtype, turned.shape[3:]
    by_view = jnp.pad(jnp.moveaxis(turned, 2, 0), [(0, 0), (2, 2), (2, 2)] + [(0, 0)] * len(lanes))
    wide, place = n + 4, _places(n, dtype)
    x, y = place[None, :], place[:, None]

    def one(total: Array, view: tuple[Array, Array, Array]) -> tuple[Array, None]:
        image, angle, offset = view
        flat, c, s = image.reshape(-1, *lanes), jnp.cos(angle), jnp.sin(angle)
        u, t = x * c + y * s - offset + (n - 1) / 2, y * c - x * s + (n - 1) / 2
        i, j = jnp.clip(jnp.round(u), -1, n), jnp.clip(jnp.round(t), -1, n)
        base = ((i + 2) * wide + j + 2).astype(jnp.int32)
        right, down = (i - u) * c - (j - t) * s, (i - u) * s + (j - t) * c
        for di in (-1, 0, 1):
            for dj in (-1, 0, 1):
                weight = _hat(right + di * c - dj * s) * _hat(down + di * s + dj * c)
                values = flat.at[base + di * wide + dj].get(mode="promise_in_bounds")
                total = total + _lane(weight, total) * values
        return total, None

    return lax.scan(one, jnp.zeros((n, n, *lanes), dtype), (by_view, angles, offsets))[0]


def _hat(distance: Array) -> Array:
    return jnp.maximum(1 - jnp.abs(distance), 0)


# ---------------------------------------------------------------------------------------------------- ways in and out
def slab_share(
    incoming: Float[Array, "*place"] | float, outgoing: Float[Array, "*place"] | float, behind: bool = False
) -> Float[Array, "*place"]:
    """Share of what an evenly filled slab emits that the beam reaches and the line leaves, with primary absorption.

    `(1 - exp(-a - b)) / (a + b)`; for a detector `behind` the slab `exp(-b) (1 - exp(b - a)) / (a - b)`.

    **Arguments:** optical depths of the whole slab, for the beam on its way in `a = mu0 rho t / sin(incidence)` and for
    the line on its way out `b = mu rho t / sin(take-off)`.

    **Source:** Sherman, Spectrochim. Acta 7, 283 (1955), without secondary excitation.

    ```python
    assert abs(slab_share(1.0, 0.5) - (1 - np.exp(-1.5)) / 1.5) < 1e-6 and slab_share(0.0, 0.0) == 1
    ```
    """
    a, b = jnp.asarray(incoming, float), jnp.asarray(outgoing, float)
    depth = a - b if behind else a + b
    thin = jnp.abs(depth) < 1e-3
    safe = jnp.where(thin, 1.0, depth)
    share = jnp.where(thin, 1 - depth / 2 + depth**2 / 6, -jnp.expm1(-safe) / safe)
    return jnp.exp(-b) * share if behind else share


def path_in(values: Float[Array, "u t *lane"]) -> Float[Array, "u t *lane"]:
    """Integrate along the beam up to the middle of each voxel, in units of a voxel; t is the beam's way.

    ```python
    way = path_in(jnp.ones((3, 4)))
    assert jnp.allclose(way[0], jnp.array([0.5, 1.5, 2.5, 3.5]))
    ```
    """
    n = values.shape[1]
    ramp = jnp.asarray(np.tri(n, k=-1) + 0.5 * np.eye(n), values.dtype)
    return jnp.einsum("ts,us...->ut...", ramp, values, precision="highest")


class Escape:
    """Share of what every voxel emits that reaches the detector, the mean over a cone of directions.

    `sum_d weights[d, line] exp(-int mu_line ds)`, from the middle of each voxel along direction d to the edge. The way
    is built up from plane to plane across the direction's main axis, between voxels by second-order interpolation
    (Lax & Wendroff 1960: no blur that would grow on the way); about one part in a thousand of the way for bodies that
    are smooth over two voxels.

    **Arguments:** `directions` `(direction, 3)`, unit vectors in the frame of the beam: u across it, t along it, z;
    `weights` `(direction, line)`.

    Called with attenuation `(u, t, z, view, line)` per voxel; a single slice (z = 1) goes on for ever along z, and
    directions that differ little within it are walked as one (4e-4 of the share, root mean square).
    Differentiable; forward and backward cost about 25 floating-point operations a voxel, line and direction.

    **Raises:** `InputError` for directions steeper than 45 degrees out of the plane, which the planes do not meet.

    ```python
    leaves = Escape(np.array([[1.0, 0.0, 0.0]]), np.ones((1, 1)))
    share = leaves(jnp.full((4, 4, 1, 1, 1), 0.1))
    assert jnp.allclose(share[:, 0, 0, 0, 0], jnp.exp(-0.1 * jnp.array([3.5, 2.5, 1.5, 0.5])))
    ```
    """

    def __init__(self, directions: np.ndarray, weights: np.ndarray):
        directions = np.asarray(directions, float)
        directions = directions / np.linalg.norm(directions, axis=1, keepdims=True)
        flat = np.abs(directions[:, :2])
        if (flat.max(1) < 0.999 * np.abs(directions[:, 2])).any():
            raise InputError("a detector more than 45 degrees above or below the slices is not modelled")
        main = 2 * flat.argmax(1) + (np.take_along_axis(directions, flat.argmax(1)[:, None], 1)[:, 0] < 0)
        self.sides: list[tuple[int, _Cone]] = []
        for side in np.unique(main):
            of_side, axis = directions[main == side], side // 2
            along = np.abs(of_side[:, axis])
            slopes = np.stack([of_side[:, 1 - axis], of_side[:, 2]], 1) / along[:, None]
            self.sides.append((int(side), _Cone(slopes, 1 / along, np.asarray(weights, float)[main == side])))

    def __eq__(self, other: Any) -> bool:
        return isinstance(other, Escape) and self.sides == other.sides

    def __hash__(self) -> int:
        return hash(tuple(self.sides))

    def __call__(self, attenuation: Float[Array, "u t z view line"]) -> Float[Array, "u t z view line"]:
        """Give the share of every voxel, view and line that gets out towards the detector."""
        total: Any = 0.0
        for side, cone in self.sides:
            cone = cone.merged(attenuation.shape[0]) if attenuation.shape[2] == 1 else cone
            total = total + _facing_back(_leaving(_facing(attenuation, side), cone), side)
        return total


def _facing(values: Array, side: int) -> Array:
    """Turn a body so that the direction's main axis is the first one, towards its end: +u, -u, +t, -t."""
    values = values if side < 2 else values.swapaxes(0, 1)
    return values[::-1] if side % 2 else values


def _facing_back(values: Array, side: int) -> Array:
    values = values[::-1] if side % 2 else values
    return values if side < 2 else values.swapaxes(0, 1)


class _Cone:
    """Directions about the first axis as numbers that a compiled program holds; compared by their values."""

    def __init__(self, slopes: np.ndarray, length: np.ndarray, weights: np.ndarray):
        self.slopes, self.length, self.weights = slopes, length, weights
        self.key = (slopes.tobytes(), length.tobytes(), weights.tobytes(), weights.shape)

    def merged(self, n: int) -> "_Cone":
        """Join directions whose ways through a slice of n voxels are half a voxel from their mean's, half way out.

        Elevation only makes a way through a slice longer; the mean of direction and length is exact to first order.
        """
        order = np.argsort(self.slopes[:, 0])
        group, first = np.zeros(len(order), int), self.slopes[order[0], 0]
        for place, number in enumerate(order):
            apart = self.slopes[number, 0] - first > _APART / n
            first = self.slopes[number, 0] if apart else first
            group[number] = group[order[max(place - 1, 0)]] + apart
        share = self.weights.sum(1)
        of = (group == np.arange(group.max() + 1)[:, None]) * np.where(share.max() > 0, share, 1.0)
        of = of / np.maximum(of.sum(1, keepdims=True), 1e-300)
        weights = (group == np.arange(group.max() + 1)[:, None]) @ self.weights
        return _Cone(of @ self.slopes, of @ self.length, weights)

    def __eq__(self, other: Any) -> bool:
        return isinstance(other, _Cone) and self.key == other.key

    def __hash__(self) -> int:
        return hash(self.key)


@partial(jax.custom_vjp, nondiff_argnums=(1,))
def _leaving(attenuation: Array, cone: _Cone) -> Array:
    return _by_views(lambda mu: _escaped(mu, cone)[0], attenuation)


def _leaving_forward(attenuation: Array, cone: _Cone) -> tuple[Array, Array]:
    return _leaving(attenuation, cone), attenuation


def _leaving_backward(cone: _Cone, attenuation: Array, gradient: Array) -> tuple[Array]:
    def one(pair: Array) -> Array:
        return _returned(pair[1], _escaped(pair[0], cone)[1], cone)

    return (_by_views(one, jnp.stack([attenuation, gradient])),)


_leaving.defvjp(_leaving_forward, _leaving_backward)


def _by_views(function: Any, values: Array) -> Array:
    """Some views at a time, so that the ways of all directions stay in the cache; views and lines are one lane."""
    *lead, views, lines = values.shape
    many = max(1, min(views, _LANES // lines))
    blocks = -(-views // many)
    padded = jnp.pad(values, [(0, 0)] * len(lead) + [(0, blocks * many - views), (0, 0)])
    split = jnp.moveaxis(padded.reshape(*lead, blocks, many * lines), -2, 0)
    done = jnp.moveaxis(lax.map(function, split), 0, -2)
    return done.reshape(*done.shape[:-2], blocks * many, lines)[..., :views, :]


def _escaped(mu: Array, cone: _Cone) -> tuple[Array, tuple[Array, ...]]:
    """Walk from the detector inwards: the mean share of each plane, and that of every direction."""
    lanes = mu.shape[-1] // cone.weights.shape[1]
    weights = [jnp.asarray(np.tile(w, lanes), mu.dtype) for w in cone.weights]

    def plane(ways: tuple[Array, ...], m: Array) -> tuple[Any, Any]:
        shares, onwards, mean = [], [], 0.0
        for way, slope, length, weight in zip(ways, cone.slopes, cone.length, weights, strict=True):
            here = _shifted(way, slope)
            share = jnp.exp(-float(length) * (here + 0.5 * m))
            mean = mean + weight * share
            shares.append(share)
            onwards.append(_framed(here + m))
        return tuple(onwards), (mean, tuple(shares))

    start = (_framed(jnp.zeros_like(mu[0])),) * len(cone.length)
    return lax.scan(plane, start, mu, reverse=True)[1]


def _returned(gradient: Array, shares: tuple[Array, ...], cone: _Cone) -> Array:
    """The transpose of the walk, outwards: derivatives by the attenuation of every voxel."""
    lanes = gradient.shape[-1] // cone.weights.shape[1]
    slopes = -cone.length[:, None] * cone.weights
    weights = [jnp.asarray(np.tile(w, lanes), gradient.dtype) for w in slopes]

    def plane(ways: tuple[Array, ...], step: tuple[Array, tuple[Array, ...]]) -> tuple[Any, Array]:
        g, shares = step
        onwards: list[Array] = []
        total: Any = 0.0
        for way, slope, weight, share in zip(ways, cone.slopes, weights, shares, strict=True):
            here, own = _shifted(way, -slope), weight * share * g
            total = total + here + 0.5 * own
            onwards.append(_framed(here + own))
        return tuple(onwards), total

    start = (_framed(jnp.zeros_like(gradient[0])),) * len(cone.length)
    return lax.scan(plane, start, (gradient, shares))[1]


def _framed(plane: Array) -> Array:
    """Add the empty voxels about a plane that its shift reaches for; a single slice needs none along z."""
    return jnp.pad(plane, ((1, 1), (1, 1) if plane.shape[1] > 1 else (0, 0), (0, 0)))


def _shifted(framed: Array, slope: np.ndarray) -> Array:
    """Values at `t + slope[0]`, `z + slope[1]`: three points each way; of `-slope` the transpose."""
    n, deep = framed.shape[0] - 2, framed.shape[1] > 2
    before, here, after = map(float, _three_points(slope[0]))
    rows = before * framed[:n] + here * framed[1 : n + 1] + after * framed[2:]
    if not deep:
        return rows
    before, here, after = map(float, _three_points(slope[1]))
    return before * rows[:, :-2] + here * rows[:, 1:-1] + after * rows[:, 2:]


def _three_points(s: float) -> tuple[float, float, float]:
    return s * (s - 1) / 2, 1 - s * s, s * (s + 1) / 2

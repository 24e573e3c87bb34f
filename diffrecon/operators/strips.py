"""Projection of small slices as sums over strips, each pixel weighted view by view by what is absorbed on the way.

What a pixel scatters is weakened on the way in and on the way out, differently in every view and for every scattering
angle: no transform of the slice knows that, a table does. All channels of a spectrum meet it in one matrix product.

Convention: as `ParallelProjector`; at angle 0 the beam runs along +y. Depth grows along the beam.
"""

import dataclasses
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ..errors import InputError
from ..geometry import polarisation_factor

__all__ = ["Grid", "PatternProjector", "StripProjector", "absorption_factors"]

_FANS = 9  # directions of the way out in the plane of the slice, between which is interpolated
_AZIMUTHS = 9  # of the cone, over half a turn


class Grid(NamedTuple):
    """Pixels of a slice that are reconstructed: those within a disc.

    **Fields:** `steps`: points of the scan across; `pixels`: of the slice to a step; `radius` of the disc [step].
    """

    steps: int
    pixels: int
    radius: float

    @property
    def side(self) -> int:
        """Count the pixels along a side."""
        return self.steps * self.pixels

    @property
    def inside(self) -> np.ndarray:
        """Tell which pixels are within the disc, `(y, x)`."""
        y, x = self._mesh()
        return np.hypot(y, x) < self.radius

    @property
    def places(self) -> tuple[np.ndarray, np.ndarray]:
        """Give y and x of these pixels [step]."""
        y, x = self._mesh()
        return y[self.inside], x[self.inside]

    def _mesh(self) -> tuple[np.ndarray, np.ndarray]:
        axis = (np.arange(self.side) - (self.side - 1) / 2) / self.pixels
        y, x = np.meshgrid(axis, axis, indexing="ij")
        return y, x

    def image(self, values: Any) -> Array:
        """Lay values `(..., pixel)` into images `(..., y, x)`, zero outside."""
        places = jnp.asarray(np.flatnonzero(self.inside))
        values = jnp.asarray(values)
        flat = jnp.zeros((*values.shape[:-1], self.side**2), values.dtype).at[..., places].set(values)
        return flat.reshape(*values.shape[:-1], self.side, self.side)

    def values(self, image: Any) -> Array:
        """Pick the pixels within the disc from images."""
        flat = jnp.asarray(image).reshape(*image.shape[:-2], self.side**2)
        return flat[..., jnp.asarray(np.flatnonzero(self.inside))]

    def coarse(self, values: Any, weights: Any = None) -> np.ndarray:
        """Average to one pixel a step, `(..., y, x)`, with weights where given; NaN where these vanish."""
        mean = lambda v: np.asarray(self.image(v), float).reshape(
            *np.shape(v)[:-1], self.steps, self.pixels, self.steps, self.pixels
        ).mean((-3, -1))  # fmt: skip
        if weights is None:
            return mean(values)
        total = mean(weights)
        return np.where(total > 0, mean(values * weights) / np.where(total > 0, total, 1), np.nan)


class StripProjector(eqx.Module):
    """Line integrals of what pixels scatter, averaged over the width of the beam: `A(values)` [value x step].

    `A((channel, pixel))` -> `(view, node, u, channel)`; `A.adjoint` is its transpose. A node is a scattering angle at
    which the absorption is known.

    **Arguments:** `angles` [rad]; `grid`; `centre`: point of the scan on which the axis falls; `factors`
    `(view, node, pixel)`: what is left of the light that a pixel scatters, one node of ones by default.

    **Cost:** the table takes 4 bytes a view, node, point and pixel: 190 MB for 60 views, 3 nodes, 44 points and a grid
    of 88 x 88. A call is one matrix product.

    **Raises:** `InputError` for factors of another shape.

    ```python
    grid = Grid(8, 2, 4.0)
    A = StripProjector(np.linspace(0, np.pi, 6, endpoint=False), grid, 3.5)
    sinogram = A(jnp.ones((1, int(grid.inside.sum()))))       # (6, 1, 8, 1)
    ```
    """

    table: Float[Array, "view node u pixel"]

    def __init__(self, angles: Any, grid: Grid, centre: float, factors: Any = None):
        angles = np.asarray(angles, float).ravel()
        if factors is None:
            factors = np.ones((angles.size, 1, int(grid.inside.sum())), np.float32)
        if np.shape(factors)[::2] != (angles.size, int(grid.inside.sum())):
            raise InputError(
                f"factors of {np.shape(factors)} for {angles.size} views of {int(grid.inside.sum())} pixels"
            )
        dtype = jnp.zeros(()).dtype
        views = [
            np.asarray(_strips(a, grid, centre)[None] * f[:, None], dtype) for a, f in zip(angles, factors, strict=True)
        ]
        self.table = jnp.asarray(np.stack(views))

    def __call__(self, values: Float[Array, "*view channel pixel"]) -> Float[Array, "view node u channel"]:
        """Project; values may differ from view to view, as with parallax."""
        views, nodes, points, pixels = self.table.shape
        if values.ndim == 3:
            flat = self.table.reshape(views, nodes * points, pixels)
            rays = jnp.einsum("vun,vcn->vuc", flat, values, precision="high")
        else:
            flat = self.table.reshape(-1, pixels)
            rays = jax.custom_derivatives.linear_call(_rays, _back, flat, values)
        return rays.reshape(views, nodes, points, -1)

    def adjoint(self, sinogram: Float[Array, "view node u channel"]) -> Float[Array, "channel pixel"]:
        """The exact transpose."""
        return _back(self.table.reshape(-1, self.table.shape[-1]), sinogram.reshape(-1, sinogram.shape[-1]))

    def of_views(self, views: Any) -> "StripProjector":
        """Keep some views."""
        return eqx.tree_at(lambda A: A.table, self, self.table[jnp.asarray(views)])


class PatternProjector(eqx.Module):
    """Sinograms of all channels at once: `A(volume)`, `(channel, y, x)` -> `(view, channel, u)`, absorption inside.

    The projector that linear solvers take, also within a `Dynamic`: channels stand for slices. `A.adjoint` is the exact
    transpose.

    **Fields:** `table` of a `StripProjector`; `light`, a factor on every datum, or `None`; `angles` of the views [rad];
    `grid`; `ends`: of the channels that share a node, from 0 on. `of` makes it.

    **Cost:** one matrix product a node; `2 views points pixels channels` operations in all.

    ```python
    grid = Grid(8, 1, 4.0)
    angles = np.linspace(0, np.pi, 6, endpoint=False)
    A = PatternProjector.of(StripProjector(angles, grid, 3.5), grid, np.zeros(5, int), angles)
    sinograms = A(jnp.ones((5, 8, 8)))                        # (6, 5, 8)
    ```
    """

    table: Float[Array, "view node u pixel"]
    light: Float[Array, "view channel u"] | None
    angles: Float[Array, " view"]
    grid: Grid = eqx.field(static=True)
    ends: tuple[int, ...] = eqx.field(static=True)

    @classmethod
    def of(
        cls, projector: StripProjector, grid: Grid, nodes: Any, angles: Any, light: Any = None
    ) -> "PatternProjector":
        """Take the projector of a grid; `nodes`: number of its node by channel, not decreasing; `angles` [rad]."""
        ends = np.searchsorted(nodes, np.arange(projector.table.shape[1]), side="right")
        cast = lambda a: jnp.asarray(a, projector.table.dtype)
        lit = None if light is None else cast(light)
        return cls(projector.table, lit, cast(np.ravel(angles)), grid, (0, *(int(n) for n in ends)))

    @property
    def shape(self) -> tuple[int, int]:
        """Give (ny, nx) of a slice."""
        return self.grid.side, self.grid.side

    def __call__(self, volume: Float[Array, "channel y x"], views: Any = None) -> Float[Array, "view channel u"]:
        """Project all views, or some (indices, in their order)."""
        table, light = self._of(views)
        values = self.grid.values(volume)
        rays = [
            _rays(table[:, node].reshape(-1, table.shape[-1]), values[first:last])
            for node, (first, last) in enumerate(zip(self.ends[:-1], self.ends[1:], strict=True))
        ]
        sinograms = jnp.moveaxis(jnp.concatenate(rays, 1).reshape(table.shape[0], table.shape[2], -1), 1, 2)
        return sinograms if light is None else sinograms * light

    def adjoint(self, sinograms: Float[Array, "view channel u"], views: Any = None) -> Float[Array, "channel y x"]:
        """The exact transpose."""
        table, light = self._of(views)
        flat = jnp.moveaxis(sinograms if light is None else sinograms * light, 1, 2).reshape(-1, sinograms.shape[1])
        values = [
            _back(table[:, node].reshape(-1, table.shape[-1]), flat[:, first:last])
            for node, (first, last) in enumerate(zip(self.ends[:-1], self.ends[1:], strict=True))
        ]
        return self.grid.image(jnp.concatenate(values))

    def subset(self, views: Any) -> "PatternProjector":
        """Keep some views."""
        table, light = self._of(views)
        return dataclasses.replace(self, table=table, light=light, angles=self.angles[views])

    def channels(self, chosen: Any) -> "PatternProjector":
        """Keep some channels, in their order."""
        ends = tuple(int(n) for n in np.searchsorted(chosen, self.ends))
        light = None if self.light is None else self.light[:, chosen]
        return dataclasses.replace(self, light=light, ends=ends)

    def _of(self, views: Any) -> tuple[Array, Array | None]:
        if views is None:
            return self.table, self.light
        return self.table[views], None if self.light is None else self.light[views]


def _rays(table: Array, values: Array) -> Array:
    return jnp.matmul(table, values.T, precision="high")


def _back(table: Array, rays: Array) -> Array:
    """In the order in which processors multiply without turning the table over."""
    return jnp.matmul(rays.T, table, precision="high")


def _strips(angle: float, grid: Grid, centre: float) -> Float[np.ndarray, "u pixel"]:
    """Area of a pixel within the strip of a point: the shadow of a square is a trapezoid, integrated exactly."""
    y, x = grid.places
    side = 1 / grid.pixels
    long, short = (abs(f) * side / 2 + 1e-7 for f in (np.cos(angle), np.sin(angle)))
    away = np.arange(grid.steps)[:, None] - (x * np.cos(angle) + y * np.sin(angle) + centre)
    ramp = lambda t: np.maximum(t, 0.0) ** 2 / 2

    def area(t: np.ndarray) -> np.ndarray:
        return (
            ramp(t + long + short) - ramp(t + long - short) - ramp(t - long + short) + ramp(t - long - short)
        ) / (4 * long * short)  # fmt: skip

    return (area(away + 0.5) - area(away - 0.5)) * side**2


def absorption_factors(
    attenuation: Float[np.ndarray, "y x"], angles: Any, grid: Grid, nodes: Any, polarisation: float = 0.0
) -> Float[np.ndarray, "view node pixel"]:
    """Compute what is left of the light that a pixel scatters through `nodes` [rad]: `exp(-in) <exp(-out)>`.


    The sample goes on above and below the slice as it is in it. The mean is over the azimuth, weighted by the polarised
    intensity.

    **Arguments:** `attenuation` [1/step] on the grid.
    """
    nodes = np.asarray(nodes, float)
    y, x = grid.places
    fans = np.linspace(-float(nodes.max()), float(nodes.max()), _FANS)
    chi = np.linspace(0, np.pi, _AZIMUTHS)
    ends = np.r_[0.5, np.ones(_AZIMUTHS - 2), 0.5]
    found = np.empty((len(np.ravel(angles)), len(nodes), len(x)), np.float32)
    for view, angle in enumerate(np.ravel(angles)):
        ways_in, ways_out = _ways(attenuation, float(angle), grid, fans)
        for node, two_theta in enumerate(nodes):
            weight = ends * polarisation_factor(two_theta, chi, polarisation)
            turned = np.arctan2(np.sin(two_theta) * np.cos(chi), np.cos(two_theta))
            place = np.clip((turned - fans[0]) / (fans[1] - fans[0]), 0, _FANS - 1.001)
            low, share = place.astype(int), (place - place.astype(int))[:, None]
            out = (1 - share) * ways_out[low] + share * ways_out[low + 1]
            left = np.exp(-out / np.cos(two_theta))
            found[view, node] = np.exp(-ways_in) * (weight @ left) / weight.sum()
    return found


def _ways(attenuation: np.ndarray, angle: float, grid: Grid, fans: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Attenuation on the way in, and on every direction out per length along the beam, of every pixel."""
    size, step = int(1.5 * grid.side) // 2 * 2, 1 / grid.pixels
    axis = (np.arange(size) - (size - 1) / 2) * step
    u, t = np.meshgrid(axis, axis, indexing="ij")
    cos, sin = np.cos(angle), np.sin(angle)
    on_grid = lambda a, n: a / step + (n - 1) / 2
    turned = _sampled(attenuation, on_grid(u * sin + t * cos, grid.side), on_grid(u * cos - t * sin, grid.side))
    y, x = grid.places
    across, along = x * cos + y * sin, -x * sin + y * cos
    before = np.cumsum(turned, 1) * step - turned * step / 2
    ways_in = _sampled(before, on_grid(across, size), on_grid(along, size))
    ways_out = []
    for fan in np.tan(fans):
        sheared = _sampled(turned, on_grid(u + fan * t, size), on_grid(t, size))
        behind = sheared[:, ::-1].cumsum(1)[:, ::-1] * step - sheared * step / 2
        ways_out.append(_sampled(behind, on_grid(across - fan * along, size), on_grid(along, size)))
    return ways_in, np.stack(ways_out)


def _sampled(image: np.ndarray, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """Linear interpolation, zero outside."""
    padded = np.pad(image, 1)
    r, c = (np.clip(a + 1, 0, n - 1.001) for a, n in ((rows, padded.shape[0]), (columns, padded.shape[1])))
    i, j = r.astype(int), c.astype(int)
    f, g = r - i, c - j
    upper = (1 - g) * padded[i, j] + g * padded[i, j + 1]
    return (1 - f) * upper + f * ((1 - g) * padded[i + 1, j] + g * padded[i + 1, j + 1])

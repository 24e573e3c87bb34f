"""Project a volume that changes while it turns: a time axis around any projector."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float
from numpy.typing import ArrayLike

from ..errors import InputError

__all__ = ["Dynamic", "spline_basis"]


class Dynamic(eqx.Module):
    """Project `V(t) = sum_k b_k(t) V_k` at the time of each view; linear in the volumes V_k.

    `A(volumes)`: (basis, z, y, x) -> (view, row, column), `A.adjoint` its exact transpose. It stands for the projector
    of the still volume everywhere: in linear solvers, `solvers.cgls(A, sinogram)`, and in **every model that has a
    projector and a volume**, `model.replace(volume=A.empty(rows), projector=A)`; for holotomography that is
    `model.replace(delta=A.empty(slices), projector=A)`.

    **Fields:**

    - `projector` of a still volume, in any geometry.
    - `temporal`: `(view, basis)`, b_k at the time of each view; may be an unknown (`"projector.temporal"`).
    - `times`: `(view,)` of exposure [s], or any unit; not decreasing.

    **Smooth in time** (`splines`): b_k are B-splines over the scan and known: a linear problem. Penalise in space and
    time, `penalties.TotalVariation(weight, axes=(0, -2, -1))`. Views of half a turn or so should fall into the span of
    each spline, in directions as different as possible: many quick turns, or angles in golden steps.

    **Low rank** (`low_rank`): few volumes whose courses in time are unknown too,
    `unknowns=("volume", "projector.temporal")`. Volumes and courses are known up to a mixing matrix.

    **Cost:** as many projections as there are volumes, one after another: memory for one. The views of a call are
    projected from every volume, also where its course is zero.

    ```python
    angles = np.arange(60) * 2.39996 % (2 * np.pi)      # golden
    still = dr.operators.ParallelProjector(angles, (32, 32), 32)
    A = Dynamic.splines(still, np.arange(60.0), 6)
    volumes = A.empty(1)
    assert A(volumes).shape == (60, 1, 32)
    assert A.at(30.0, volumes).shape == (1, 32, 32)
    ```
    """

    projector: Any
    temporal: Float[Array, "view basis"]
    times: tuple[float, ...] = eqx.field(static=True, converter=lambda times: tuple(float(t) for t in times))

    def __call__(self, volumes: Float[Array, "basis z y x"], views: Any = None) -> Float[Array, "view row column"]:
        """Project all views, or some (indices, in their order)."""
        return _forward(self, volumes, views)

    def adjoint(self, sinogram: Float[Array, "view row column"], views: Any = None) -> Float[Array, "basis z y x"]:
        """Apply the exact transpose."""
        return _adjoint(self, sinogram, views)

    def subset(self, views: np.ndarray) -> "Dynamic":
        """Make the projector of some of the views, with their times."""
        views = np.arange(len(self.times))[views]
        return Dynamic(self.projector.subset(views), self.temporal[views], np.asarray(self.times)[views])

    @property
    def shape(self) -> tuple[int, int]:
        """Return (ny, nx) of a slice."""
        return self.projector.shape

    def empty(self, slices: int) -> Float[Array, "basis z y x"]:
        """Make volumes of zeros."""
        return jnp.zeros((self.temporal.shape[1], slices, *self.shape), self.temporal.dtype)

    def at(self, times: ArrayLike, volumes: Float[Array, "basis z y x"]) -> Float[Array, "*time z y x"]:
        """Mix the volume at a time, or at several, within the scan; courses are interpolated linearly between views.

        **Raises:** `InputError` for times beyond the scan.
        """
        asked, last = np.asarray(times, np.float64), len(self.times) - 1
        if not np.all((asked >= self.times[0]) & (asked <= self.times[-1])):
            raise InputError(f"times {times} are not all within the scan, {self.times[0]:g} to {self.times[-1]:g}")
        place = np.interp(asked, self.times, np.arange(last + 1))
        low = np.clip(np.floor(place).astype(int), 0, max(last - 1, 0))
        rest = jnp.asarray((place - low)[..., None], self.temporal.dtype)
        weights = (1 - rest) * self.temporal[low] + rest * self.temporal[np.minimum(low + 1, last)]
        return jnp.tensordot(weights.astype(volumes.dtype), volumes, 1)

    @classmethod
    def splines(cls, projector: Any, times: ArrayLike, count: int, *, degree: int = 1) -> "Dynamic":
        """Take `count` B-splines in time: degree 1 = linear between frames, 3 = cubic, 0 = frames each constant.

        **Raises:** `InputError` for times that do not fit the views, and for too few splines.
        """
        times = _checked_times(times, projector)
        return cls(projector, jnp.asarray(spline_basis(times, count, degree), jnp.result_type(float)), times)

    @classmethod
    def low_rank(cls, projector: Any, times: ArrayLike, rank: int) -> "Dynamic":
        """Take `rank` courses that start as Legendre polynomials of time: constant, linear, ...

        **Raises:** `InputError` for times that do not fit the views, and a rank below one.
        """
        times = _checked_times(times, projector)
        if rank < 1:
            raise InputError(f"rank {rank}: a dynamic volume needs one component at least")
        scaled = 2 * (times - times[0]) / max(times[-1] - times[0], np.finfo(float).tiny) - 1
        courses = np.polynomial.legendre.legvander(scaled, rank - 1)
        return cls(projector, jnp.asarray(courses, jnp.result_type(float)), times)


@eqx.filter_jit
def _forward(A: Dynamic, volumes: Array, views: Any) -> Array:
    def add(total: Array, part: tuple[Array, Array]) -> tuple[Array, None]:
        volume, weight = part
        return total + weight[:, None, None] * A.projector(volume, views), None

    like = jax.eval_shape(lambda volume: A.projector(volume, views), volumes[0])
    return lax.scan(add, jnp.zeros(like.shape, like.dtype), (volumes, _weights(A, views, volumes.dtype)))[0]


@eqx.filter_jit
def _adjoint(A: Dynamic, sinogram: Array, views: Any) -> Array:
    one = lambda weight: A.projector.adjoint(weight[:, None, None] * sinogram, views)
    return lax.map(one, _weights(A, views, sinogram.dtype))


def _weights(A: Dynamic, views: Any, dtype: Any) -> Float[Array, "basis view"]:
    return (A.temporal if views is None else A.temporal[views]).T.astype(dtype)


def spline_basis(times: ArrayLike, count: int, degree: int = 1) -> Float[np.ndarray, "view basis"]:
    """Tabulate `count` B-splines of a degree on equal knots from the first to the last time; rows add up to 1.

    By the recursion of de Boor (1972). Degree 1 are hats that peak at `count` equally spaced times.

    **Raises:** `InputError` when `count` is not above the degree.

    ```python
    assert np.allclose(spline_basis([0.0, 1.0, 1.5, 2.0], 3), [[1, 0, 0], [0, 1, 0], [0, 0.5, 0.5], [0, 0, 1]])
    ```
    """
    if not 0 <= degree < count:
        raise InputError(f"{count} splines of degree {degree} in time: give at least {degree + 1}")
    times = np.asarray(times, np.float64)
    intervals = count - degree
    span = times.max() - times.min()
    place = (times - times.min()) / (span if span > 0 else 1.0) * intervals
    knots = np.arange(-degree, intervals + degree + 1.0)
    # The last time belongs to the last interval.
    inside = np.minimum(np.floor(place), intervals - 1)
    basis = (inside[:, None] == knots[None, :-1]).astype(float)
    for order in range(1, degree + 1):
        rise = (place[:, None] - knots[None, : -order - 1]) / order
        fall = (knots[None, order + 1 :] - place[:, None]) / order
        basis = rise * basis[:, :-1] + fall * basis[:, 1:]
    return basis


def _checked_times(times: ArrayLike, projector: Any) -> np.ndarray:
    array = np.asarray(times, np.float64)
    views = len(projector.angles if hasattr(projector, "angles") else projector.ray)
    if array.shape != (views,) or not np.all(np.isfinite(array)) or np.any(np.diff(array) < 0):
        raise InputError(
            f"times of a dynamic scan must be {views} finite numbers, one a view, that do not decrease; "
            f"got the shape {array.shape}: sort the views by time"
        )
    return array

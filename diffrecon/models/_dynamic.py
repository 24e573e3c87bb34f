"""Tomography of a specimen that changes while it turns: a volume with a time axis."""

from typing import Any, ClassVar

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float
from numpy.typing import ArrayLike

from .._model import Model
from ..errors import InputError
from ..operators import ParallelProjector
from ..scan import Scan

__all__ = ["DynamicProjector", "DynamicTomography", "spline_basis"]


class DynamicProjector(eqx.Module):
    """Line integrals of `V(t) = sum_k b_k(t) V_k` at the time of each view; linear in the volumes.

    `A(volumes)`: (basis, z, y, x) -> (view, z, u), `A.adjoint` its exact transpose, so that `diffrecon.solvers.cgls`
    and `sirt` take it as it is.

    **Cost:** one projection of each volume, one after another: memory for one. The views of a call are projected from
    every volume, also where its course is zero.
    """

    projector: ParallelProjector
    temporal: Float[Array, "view basis"]

    def __call__(self, volumes: Float[Array, "basis z y x"], views: Any = None) -> Float[Array, "view z u"]:
        """Projections of all views, or of some (indices, in their order)."""
        return _forward(self, volumes, views)

    def adjoint(self, sinogram: Float[Array, "view z u"], views: Any = None) -> Float[Array, "basis z y x"]:
        """The transpose of the above."""
        return _adjoint(self, sinogram, views)

    def _weights(self, views: Any, dtype: Any) -> Float[Array, "basis view"]:
        return (self.temporal if views is None else self.temporal[views]).T.astype(dtype)


@eqx.filter_jit
def _forward(A: DynamicProjector, volumes: Float[Array, "basis z y x"], views: Any) -> Float[Array, "view z u"]:
    weights = A._weights(views, volumes.dtype)

    def add(total, part):
        volume, weight = part
        return total + weight[:, None, None] * A.projector(volume, views), None

    shape = (weights.shape[1], volumes.shape[1], A.projector.detector)
    return lax.scan(add, jnp.zeros(shape, volumes.dtype), (volumes, weights))[0]


@eqx.filter_jit
def _adjoint(A: DynamicProjector, sinogram: Float[Array, "view z u"], views: Any) -> Float[Array, "basis z y x"]:
    one = lambda weight: A.projector.adjoint(weight[:, None, None] * sinogram, views)
    return lax.map(one, A._weights(views, sinogram.dtype))


class DynamicTomography(Model):
    """Line integrals of a volume that changes with time, `V(t) = sum_k b_k(t) V_k`, from a continuously turning scan.

    **Fields:**

    - `volumes`: `(basis, z, y, x)` [1/pixel], V_k.
    - `temporal`: `(view, basis)`, b_k at the time of each view.
    - `times`: `(view,)` [s], or any unit; of exposure, increasing.
    - `projector`, shared by all; its `centre` and `shifts` may be unknowns too.

    **Smooth in time** (`splines`): b_k are B-splines over the scan and known, the volumes are unknown: a linear
    problem, `solvers.cgls(model.operator, sinogram)`, or `minimise` with penalties in space (`penalties.tv(
    model.volumes, axes=(-2, -1))`) and time (`penalties.dirichlet(model.volumes, axes=(0,))`). Views of half a turn or
    so should fall into the span of each spline, in directions as different as possible: many quick turns, or angles in
    golden steps.

    **Low rank** (`low_rank`): few volumes whose courses in time are unknown too,
    `unknowns=("volumes", "temporal")`; ask for smoothness of `temporal` along the views. Volumes and courses are known
    up to a mixing matrix: `canonical` fixes it.

    **Cost:** as many projections as there are volumes, with the gradient twice that.

    ```python
    A = ParallelProjector(np.arange(60) * 2.39996 % (2 * np.pi), (32, 32), 32)      # golden angles
    model = DynamicTomography.splines(A, np.arange(60.0), 6)
    assert model(np.arange(60)).shape == (60, 1, 32)
    assert model.at(30.0).shape == (1, 32, 32)
    ```
    """

    volumes: Float[Array, "basis z y x"]
    temporal: Float[Array, "view basis"]
    projector: ParallelProjector
    times: tuple[float, ...] = eqx.field(static=True, converter=lambda times: tuple(float(t) for t in times))

    unknowns: ClassVar[tuple[str, ...]] = ("volumes",)

    def __call__(self, views: Any = None) -> Float[Array, "view z u"]:
        """Line integrals of some views."""
        return self.operator(self.volumes, views)

    @property
    def operator(self) -> DynamicProjector:
        """The linear map from the volumes to the sinogram, with its transpose."""
        return DynamicProjector(self.projector, self.temporal)

    def at(self, times: ArrayLike) -> Float[Array, "*time z y x"]:
        """The volume at a time, or at several, within the scan; between views the courses are interpolated linearly."""
        wanted, last = np.asarray(times, np.float64), len(self.times) - 1
        if not np.all((wanted >= self.times[0]) & (wanted <= self.times[-1])):
            raise InputError(f"times {times} are not all within the scan, {self.times[0]:g} to {self.times[-1]:g}")
        place = np.interp(wanted, self.times, np.arange(last + 1))
        low = np.clip(np.floor(place).astype(int), 0, max(last - 1, 0))
        rest = jnp.asarray((place - low)[..., None], self.temporal.dtype)
        weights = (1 - rest) * self.temporal[low] + rest * self.temporal[np.minimum(low + 1, last)]
        return jnp.tensordot(weights.astype(self.volumes.dtype), self.volumes, 1)

    def canonical(self) -> "DynamicTomography":
        """The same model with orthonormal courses and orthogonal volumes, the strongest first (a singular value
        decomposition in time and space; the sign: courses positive on average).
        """
        courses, mixing = jnp.linalg.qr(self.temporal)
        flat = mixing @ self.volumes.reshape(len(self.volumes), -1)
        turn = jnp.linalg.eigh(flat @ flat.T)[1][:, ::-1]
        turn = turn * jnp.where(jnp.sum(courses @ turn, 0) < 0, -1, 1)
        fields = lambda model: (model.temporal, model.volumes)
        return eqx.tree_at(fields, self, (courses @ turn, (turn.T @ flat).reshape(self.volumes.shape)))

    @classmethod
    def splines(
        cls, projector: ParallelProjector, times: ArrayLike, count: int, *, degree: int = 1, rows: int = 1
    ) -> "DynamicTomography":
        """Empty volumes, `count` of them, on B-splines in time: degree 1 = linear between frames, 3 = cubic, 0 =
        frames each constant. `rows` = detector rows.
        """
        times = _checked_times(times, projector)
        return cls._empty(projector, spline_basis(times, count, degree), times, rows)

    @classmethod
    def low_rank(
        cls, projector: ParallelProjector, times: ArrayLike, rank: int, *, rows: int = 1
    ) -> "DynamicTomography":
        """Empty volumes, `rank` of them, whose courses start as Legendre polynomials of time: constant, linear, ..."""
        times = _checked_times(times, projector)
        if rank < 1:
            raise InputError(f"rank {rank}: a dynamic volume needs one component at least")
        scaled = 2 * (times - times[0]) / max(times[-1] - times[0], np.finfo(float).tiny) - 1
        return cls._empty(projector, np.polynomial.legendre.legvander(scaled, rank - 1), times, rows)

    @classmethod
    def from_scan(cls, scan: Scan, count: int = 8, *, degree: int = 1, rank: int | None = None) -> "DynamicTomography":
        """An empty volume as wide as the detector, on `count` splines or of low `rank`.

        Times are `scan.extra["times"]` [s] where the scan has them, else views follow one another evenly.
        """
        projector = ParallelProjector.from_scan(scan)
        times = np.asarray(scan.extra.get("times", np.arange(scan.views)))
        rows = scan.frame_shape[0]
        if rank is not None:
            return cls.low_rank(projector, times, rank, rows=rows)
        return cls.splines(projector, times, count, degree=degree, rows=rows)

    @classmethod
    def _empty(cls, projector, temporal: np.ndarray, times: np.ndarray, rows: int) -> "DynamicTomography":
        dtype = projector.centre.dtype
        volumes = jnp.zeros((temporal.shape[1], rows, *projector.shape), dtype)
        return cls(volumes, jnp.asarray(temporal, dtype), projector, tuple(times))


def spline_basis(times: ArrayLike, count: int, degree: int = 1) -> Float[np.ndarray, "view basis"]:
    """`count` B-splines of a degree on equal knots from the first to the last time, one row a time; rows add up to 1.

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


def _checked_times(times: ArrayLike, projector: ParallelProjector) -> np.ndarray:
    array = np.asarray(times, np.float64)
    views = projector.angles.shape[0]
    if array.shape != (views,) or not np.all(np.isfinite(array)) or np.any(np.diff(array) < 0):
        raise InputError(
            f"times of a dynamic scan must be {views} finite numbers, one a view, that do not decrease; "
            f"got the shape {array.shape}: sort the views by time"
        )
    return array

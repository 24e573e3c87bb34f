"""Tensor SAXS: every voxel scatters differently in every direction, described by real even spherical harmonics.

Spherical harmonics are 4 pi-normalised (their mean square over the sphere is one, `Y_00 = 1`), without Condon-Shortley
phase, even orders only because Friedel pairs are equal, ordered l = 0, 2, 4, ... and m = -l .. l within each. Vectors
have components (x, y, z). (Nielsen et al., Acta Cryst. A 79, 515 (2023); conventions of mumott.)
"""

from typing import Any, Literal

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int
from numpy.typing import ArrayLike

from ..errors import InputError
from ..geometry import TensorGeometry
from .pose import PoseProjector

__all__ = [
    "TensorGeometry",
    "TensorProjector",
    "harmonic_degrees",
    "mean_intensity",
    "orientation",
    "real_harmonics",
    "relative_anisotropy",
    "rotations_from_angles",
    "second_moment",
    "segment_weights",
]

Vector = tuple[float, float, float]
# Gauss-Legendre nodes on a detector segment: 1e-12 for l <= 14 on arcs up to a quarter circle.
ARC_NODES = 10


class TensorProjector(eqx.Module):
    """Coefficients `(z, y, x, lm)` to the scattering of each detector segment, `(view, row, column, segment)`.

    `I_s = sum_lm W_s,lm int a_lm(r(t)) dt`, with W the mean of `Y_lm` over the arc of the segment. The few segments are
    formed before projecting, instead of projecting the many coefficients (exact: both steps are linear).

    **Arguments:** `geometry`; `volume_shape` `(z, y, x)`; `detector_shape` `(row, column)`; `ell_max`, even.

    **Cost:** 200 views of 64^2 x 8 segments, 28 coefficients of 64^3: about 1.5 s forward, 2 s adjoint of one CPU core.

    ```python
    geometry = TensorGeometry(rotations_from_angles(np.linspace(0, np.pi, 6), np.zeros(6)))
    A = TensorProjector(geometry, (8, 8, 8), (8, 8), ell_max=4)
    data = A(jnp.ones((8, 8, 8, 15)))
    ```
    """

    projector: PoseProjector
    weights: Float[Array, "view segment lm"]
    ell_max: int = eqx.field(static=True)

    def __init__(self, geometry: TensorGeometry, volume_shape: Any, detector_shape: Any, ell_max: int = 6):
        ray, row, column = (geometry.in_sample(v) for v in (geometry.beam, geometry.row, geometry.column))
        self.projector = PoseProjector(ray, row, column, volume_shape, detector_shape, geometry.offsets)
        self.weights = jnp.asarray(segment_weights(geometry, ell_max), jnp.result_type(float))
        self.ell_max = ell_max

    def __call__(
        self, coefficients: Float[Array, "z y x lm"], views: Int[Array, " batch"] | None = None
    ) -> Float[Array, "batch row column segment"]:
        """The projections of all views, or of a selection (may be traced)."""
        return self.projector(coefficients, views, self._mixing(views, coefficients.dtype))

    def adjoint(
        self, data: Float[Array, "batch row column segment"], views: Int[Array, " batch"] | None = None
    ) -> Float[Array, "z y x lm"]:
        """The exact transpose."""
        return self.projector.adjoint(data, views, self._mixing(views, data.dtype))

    def _mixing(self, views: Array | None, dtype: Any) -> Array:
        return (self.weights if views is None else self.weights[views]).astype(dtype)


def harmonic_degrees(ell_max: int) -> tuple[np.ndarray, np.ndarray]:
    """l and m of every coefficient, `(lm,)` each; there are `(L + 1)(L + 2) / 2`.

    **Raises:** `InputError` when `ell_max` is odd or negative.

    ```python
    l, m = harmonic_degrees(2)  # l = 0 2 2 2 2 2, m = 0 -2 -1 0 1 2
    ```
    """
    if ell_max < 0 or ell_max % 2:
        raise InputError(f"ell_max must be even and not negative (Friedel pairs are equal), got {ell_max}")
    pairs = [(l, m) for l in range(0, ell_max + 1, 2) for m in range(-l, l + 1)]
    return np.array([l for l, _ in pairs]), np.array([m for _, m in pairs])


def real_harmonics(directions: Any, ell_max: int) -> Any:
    """Real even spherical harmonics of unit vectors `(..., 3)` as `(..., lm)`, by the stable three-term recurrence.

    Polynomials in (x, y, z), no angles and so no pole; NumPy in, NumPy out, and JAX in, JAX out (differentiable).

    ```python
    assert np.allclose(real_harmonics(np.array([0.0, 0.0, 1.0]), 2), [1, 0, 0, np.sqrt(5), 0, 0])
    ```
    """
    degrees = harmonic_degrees(ell_max)
    xp = np if isinstance(directions, np.ndarray) else jnp
    x, y, z = (directions[..., i] for i in range(3))
    cosine, sine = [xp.ones_like(x)], [xp.zeros_like(x)]  # sin^m(theta) times cos(m phi) and sin(m phi)
    for m in range(ell_max):
        cosine, sine = cosine + [x * cosine[m] - y * sine[m]], sine + [x * sine[m] + y * cosine[m]]
    legendre = _legendre(z, ell_max, xp)
    values = [legendre[l, abs(m)] * (cosine[m] if m >= 0 else sine[-m]) for l, m in zip(*degrees, strict=True)]
    return xp.stack(values, -1)


def _legendre(z: Any, ell_max: int, xp: Any) -> dict[tuple[int, int], Any]:
    """Normalised associated Legendre functions without their factor `sin^m(theta)`."""
    table, diagonal = {}, 1.0
    for m in range(ell_max + 1):
        diagonal *= np.sqrt((2 * m + 1) / (2 * m)) if m else 1.0
        table[m, m] = (diagonal * np.sqrt(2.0 if m else 1.0)) * xp.ones_like(z)
        for l in range(m + 1, ell_max + 1):
            raise_ = np.sqrt((4 * l * l - 1) / (l * l - m * m))
            lower = np.sqrt(((l - 1) ** 2 - m * m) / (4 * (l - 1) ** 2 - 1)) if l > m + 1 else 0.0
            table[l, m] = raise_ * (z * table[l - 1, m] - (lower * table[l - 2, m] if l > m + 1 else 0.0))
    return table


def segment_edges(detector_angles: ArrayLike) -> Float[np.ndarray, "segment 2"]:
    """Azimuths [rad] where each segment begins and ends: midway to its neighbours.

    Segments over less than three quarters of a circle are taken as a half circle (Friedel): the neighbours of the first
    and the last are then one another, shifted by pi.
    """
    angles = np.asarray(detector_angles, np.float64)
    span = (angles[-1] - angles[0]) * len(angles) / (len(angles) - 1)
    period = np.pi if abs(span) < 1.5 * np.pi else 2 * np.pi
    period = np.copysign(period, span)
    around = np.concatenate([[angles[-1] - period], angles, [angles[0] + period]])
    middles = (around[1:] + around[:-1]) / 2
    return np.stack([middles[:-1], middles[1:]], -1)


def segment_weights(geometry: TensorGeometry, ell_max: int) -> Float[np.ndarray, "view segment lm"]:
    """Mean of every `Y_lm` over the arc that a detector segment sees, by Gauss-Legendre quadrature in float64.

    The direction probed at azimuth chi is `q = R^T [cos(t) (cos(chi) o + sin(chi) u) - sin(t) p]`, t = two_theta / 2.
    """
    nodes, weights = np.polynomial.legendre.leggauss(ARC_NODES)
    begin, end = segment_edges(geometry.detector_angles).T[:, :, None]
    azimuth = (begin + end) / 2 + (end - begin) / 2 * nodes
    half = geometry.two_theta / 2
    cosine, sine = np.cos(azimuth)[..., None], np.sin(azimuth)[..., None]
    ring = cosine * geometry.detector_origin + sine * geometry.detector_positive_90
    lab = np.cos(half) * ring - np.sin(half) * geometry.beam
    q = np.einsum("nji,stj->nsti", geometry.rotations, lab)
    return np.einsum("nstc,t->nsc", real_harmonics(q, ell_max), weights / 2)


def rotations_from_angles(
    inner: ArrayLike, outer: ArrayLike, inner_axis: Vector = (0.0, 0.0, -1.0), outer_axis: Vector = (1.0, 0.0, 0.0)
) -> Float[np.ndarray, "view 3 3"]:
    """`R = R_outer R_inner` from rotation and tilt angles `(view,)` [rad] about the two axes (mumott's defaults)."""
    return _axis_rotation(outer_axis, outer) @ _axis_rotation(inner_axis, inner)


def _axis_rotation(axis: Vector, angles: ArrayLike) -> np.ndarray:
    angle = np.asarray(angles, np.float64)
    x, y, z = np.asarray(axis, np.float64) / np.linalg.norm(axis)
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    return np.eye(3) + np.sin(angle)[:, None, None] * cross + (1 - np.cos(angle))[:, None, None] * (cross @ cross)


# --- what a beamline scientist looks at -----------------------------------------------------------


def mean_intensity(coefficients: Float[Array, "*voxel lm"]) -> Float[Array, "*voxel"]:
    """Intensity averaged over all directions: `a_00`."""
    return coefficients[..., 0]


def relative_anisotropy(coefficients: Float[Array, "*voxel lm"], floor: float = 1e-9) -> Float[Array, "*voxel"]:
    """Standard deviation of the intensity over directions, divided by its mean: `sqrt(sum_{l>0} a_lm^2) / a_00`.

    `floor` keeps empty voxels finite.
    """
    return jnp.sqrt(jnp.sum(coefficients[..., 1:] ** 2, -1)) / jnp.maximum(coefficients[..., 0], floor)


def second_moment(coefficients: Float[Array, "*voxel lm"]) -> Float[Array, "*voxel 3 3"]:
    """Second moment of the intensity over directions, `mean of I(q) q q^T`; its trace is the mean intensity."""
    if coefficients.shape[-1] < 6:
        raise InputError(f"a second moment needs l = 2, that is 6 coefficients or more, got {coefficients.shape[-1]}")
    mean, xy, yz, zz, xz, xxyy = (coefficients[..., i] for i in range(6))
    xy, yz, xz, xxyy, zz = xy / 15**0.5, yz / 15**0.5, xz / 15**0.5, xxyy / 15**0.5, zz * 5**0.5 / 15
    rows = [[mean / 3 - zz + xxyy, xy, xz], [xy, mean / 3 - zz - xxyy, yz], [xz, yz, mean / 3 + 2 * zz]]
    return jnp.stack([jnp.stack(row, -1) for row in rows], -2)


def orientation(
    coefficients: Float[Array, "*voxel lm"], scattering: Literal["equatorial", "polar", "automatic"] = "automatic"
) -> Float[Array, "*voxel 3"]:
    """Fibre axis (x, y, z), sign arbitrary: an eigenvector of the second moment.

    **Arguments:** `scattering` says where the fibre scatters: `"equatorial"`, at right angles to its axis (collagen;
    smallest eigenvalue), `"polar"`, along it (largest), or `"automatic"`: the one that stands further from the middle.
    """
    values, vectors = jnp.linalg.eigh(second_moment(coefficients))
    equatorial, polar = vectors[..., 0], vectors[..., 2]
    if scattering != "automatic":
        return equatorial if scattering == "equatorial" else polar
    smallest_stands_out = values[..., 1] - values[..., 0] > values[..., 2] - values[..., 1]
    return jnp.where(smallest_stands_out[..., None], equatorial, polar)

"""The quadratic problems of tensor tomography: what they penalise, and about their inverse.

Projecting and back-projecting a tensor volume is nearly a convolution, whose transfer function is a matrix between the
coefficients at every spatial frequency k: only views whose rays are normal to k have seen it, each in the directions
that its segments probe. Inverted frequency by frequency it preconditions the conjugate gradients, which else converge
slowly in what few tilts have seen.
"""

from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from ..operators.scattering import TensorProjector, harmonic_degrees, orientation, real_harmonics
from .conjugate_gradients import ConjugateState, conjugate_start, conjugate_step

__all__ = ["Curvature", "Quadratic", "State", "Strength", "advance", "begin", "curvature_of"]

_CHORD = 0.3  # width (standard deviation) of a ray's extent in the sample, as a fraction of the box
_LARGEST = 2_500_000  # numbers of the table of matrices


class Strength(NamedTuple):
    """How strong the penalties are [units of the noise], and below which step they are quadratic.

    **Fields:** `smooth`, the joint total variation; `uniaxial`, what is not rotationally symmetric about the axis of a
    voxel; `edge`.
    """

    smooth: Array
    uniaxial: Array
    edge: Array


class Curvature(eqx.Module):
    """The matrix at every frequency, looked up by cell; the unit is the mean of the element of the first coefficient.

    `laplacian` is that of the cell's frequency.
    """

    matrices: Float[Array, "cell lm lm"]
    laplacian: Float[Array, " cell"]
    cell: Int[Array, "kz ky kx"]


def curvature_of(A: TensorProjector, prior: Float[np.ndarray, " lm"]) -> Curvature:
    """Tabulate the matrices of a projector in units of the prior.

    The autocorrelation of a ray in the sample is taken as a Gaussian, so that a view has seen the frequencies within
    about the inverse of the sample's size of the plane normal to its ray.
    """
    shape, weights = A.projector.volume_shape, np.asarray(A.weights, float) * prior
    grid = [np.fft.fftfreq(n) for n in shape]
    grid[2] = np.abs(grid[2][: shape[2] // 2 + 1])
    coarse = 1
    while np.prod([len(g) // coarse + 1 for g in grid]) * weights.shape[2] ** 2 > _LARGEST:
        coarse += 1
    steps = [np.rint(g * n / coarse) * coarse / n for g, n in zip(grid, shape, strict=True)]
    tables, cells = zip(*(np.unique(s, return_inverse=True) for s in steps), strict=True)
    kz, ky, kx = (2 * np.pi * k.ravel() for k in np.meshgrid(*tables, indexing="ij"))
    along = np.stack([kx, ky, kz], 1) @ np.asarray(A.projector.ray, float).T
    seen = np.exp(-0.5 * (_CHORD * np.mean(shape) * along) ** 2).astype(np.float32)
    squared = np.einsum("vsi,vsj->vij", weights, weights)
    matrices = (seen @ squared.reshape(len(squared), -1).astype(np.float32)).reshape(-1, *squared.shape[1:])
    index = np.ravel_multi_index(np.meshgrid(*cells, indexing="ij"), [len(t) for t in tables])
    matrices /= matrices[:, 0, 0][index].mean() / prior[0] ** 2
    laplacian = sum(4 * np.sin(k / 2) ** 2 for k in (kx, ky, kz))
    matrices, laplacian = (jnp.asarray(a, jnp.result_type(float)) for a in (matrices, laplacian))
    return Curvature(matrices, laplacian, jnp.asarray(index, jnp.int32))


class Quadratic(eqx.Module):
    """One quadratic problem in `u = x / prior` and in small motions of the views.

    `penalty` is its part in u; `precondition` is about the inverse of the whole, between two scalings by how strongly
    each voxel is seen (and nothing outside the sample), and of the motions view by view.
    """

    prior: Float[Array, " lm"]
    edges: Float[Array, "z y x 1"]
    free: Float[Array, "z y x lm shape"]
    across: Float[Array, "z y x 1"]
    scale: Float[Array, "z y x 1"]
    inverse: Float[Array, "cell lm lm"]
    cell: Int[Array, "kz ky kx"]
    moving: Float[Array, "view motion motion"]

    def penalty(self, u: Float[Array, "z y x lm"]) -> Float[Array, "z y x lm"]:
        transpose = jax.linear_transpose(_gradient, u)
        smooth = transpose([self.edges * g for g in _gradient(u)])[0]
        return smooth + self.across * _not_free(self.free, u)

    def precondition(self, r: tuple[Array, Array]) -> tuple[Array, Array]:
        spectrum = jnp.fft.rfftn(self.scale * r[0], axes=(0, 1, 2))

        def plane(item: tuple[Array, Array]) -> Array:
            cell, line = item
            two = jnp.einsum("yxij,yxjc->yxic", self.inverse[cell], jnp.stack([line.real, line.imag], -1))
            return jax.lax.complex(two[..., 0], two[..., 1])

        spectrum = jax.lax.map(plane, (self.cell, spectrum))
        u = self.scale * jnp.fft.irfftn(spectrum, s=r[0].shape[:3], axes=(0, 1, 2))
        return u, jnp.einsum("vij,vj->vi", self.moving, r[1])


class State(NamedTuple):
    """Where the conjugate gradients stand, in u and the motions, and what they predict."""

    at: ConjugateState
    prediction: Float[Array, "view row column segment"]


@jax.jit
def begin(
    prior: Array, curvature: Curvature, gain: Array, seen: Array, x: Array, prediction: Array, left: Array,
    downhill: Array, w: Array, pictures: Array, strength: Strength,
) -> tuple[Quadratic, State]:  # fmt: skip
    """Set up the quadratic problem about x.

    **Arguments:** `gain`, the unit of `curvature`; `seen` `(z, y, x, 1)`, how strongly each voxel is seen (mean 1), 0
    outside the sample; `left`, data less prediction, and `downhill`, its weighted back-projection; `pictures`
    `(motion, view, row, column, segment)`, what a unit of each motion does to the prediction.
    """
    u = x / prior
    steps = sum(jnp.sum(g * g, -1, keepdims=True) for g in _gradient(u))
    inside = (seen > 0).astype(u.dtype)
    edges = strength.smooth / jnp.sqrt(steps + strength.edge**2)
    free = _free_shapes(u)
    off = jnp.sum(_not_free(free, u) ** 2, -1, keepdims=True)
    across = strength.uniaxial / jnp.sqrt(off + strength.edge**2)
    seen = jnp.maximum(seen, 0.05)
    bent = lambda values: jnp.sum(inside * values / seen) / jnp.sum(inside)
    shift = bent(edges) * curvature.laplacian + bent(across) * (1 - free.shape[-1] / free.shape[-2])
    power = jnp.einsum("avrcs,vrcs,bvrcs->vab", pictures, w, pictures)
    size = jnp.mean(jnp.diagonal(power, axis1=1, axis2=2), 0) if len(pictures) else jnp.zeros(0)
    moving = jnp.linalg.inv(power + 1e-2 * jnp.diag(size)) if len(pictures) else power
    inverse = jnp.linalg.inv(gain * curvature.matrices + shift[:, None, None] * jnp.eye(len(prior), dtype=u.dtype))
    scale = inside / jnp.sqrt(seen)
    quadratic = Quadratic(prior, edges, free, across, scale, inverse, curvature.cell, moving)
    residual = (prior * downhill - quadratic.penalty(u), jnp.einsum("avrcs,vrcs->va", pictures, w * left))
    start = conjugate_start((u, jnp.zeros_like(residual[1])), residual, quadratic.precondition)
    return quadratic, State(start, prediction)


@jax.jit
def advance(quadratic: Quadratic, state: State, shadow: Array, back: Array, w: Array, pictures: Array) -> State:
    """Take one step, given the direction's projection (motions included) and what that is back-projected."""
    direction = state.at.direction
    bent = quadratic.prior * back + quadratic.penalty(direction[0])
    moved = jnp.einsum("avrcs,vrcs->va", pictures, w * shadow)
    at = conjugate_step(state.at, (bent, moved), quadratic.precondition)
    return State(at, state.prediction + at.length * shadow)


def _gradient(u: Float[Array, "z y x lm"]) -> list[Array]:
    """Forward differences, zero across the last face."""
    return [jnp.diff(u, axis=i, append=jax.lax.slice_in_dim(u, u.shape[i] - 1, u.shape[i], axis=i)) for i in range(3)]


# ------------------------------------------------------------------ functions of one axis
def _not_free(free: Float[Array, "z y x lm shape"], u: Float[Array, "z y x lm"]) -> Float[Array, "z y x lm"]:
    return u - jnp.einsum("zyxij,zyxj->zyxi", free, jnp.einsum("zyxij,zyxi->zyxj", free, u))


def _free_shapes(u: Float[Array, "z y x lm"]) -> Float[Array, "z y x lm shape"]:
    """Orthonormal: the zonal function of each order about the voxel's axis, and what turning the axis does to u."""
    degrees, _ = harmonic_degrees(_ell_max(u.shape[-1]))
    orders = np.arange(0, degrees[-1] + 1, 2)
    axis = orientation(u)
    other = jnp.where(jnp.abs(axis[..., :1]) < 0.7, jnp.array([1, 0, 0], u.dtype), jnp.array([0, 1, 0], u.dtype))
    first = jnp.cross(axis, other)
    first = first / jnp.linalg.norm(first, axis=-1, keepdims=True)
    tangents = (first, jnp.cross(axis, first))
    harmonics = lambda d: real_harmonics(d, int(degrees[-1])) / jnp.sqrt(2 * degrees + 1).astype(u.dtype)
    value, turned = harmonics(axis), [jax.jvp(harmonics, (axis,), (t,))[1] for t in tangents]
    of_order = jnp.asarray(degrees[:, None] == orders, u.dtype)  # (lm, order)
    sizes = (u * value) @ of_order @ of_order.T  # of the zonal part, order by order
    zonal = value[..., None] * of_order
    turns = jnp.stack([sizes * t for t in turned], -1)
    turns = turns / jnp.maximum(jnp.linalg.norm(turns, axis=-2, keepdims=True), 1e-9)
    return jnp.concatenate([zonal, turns], -1)


def _ell_max(count: int) -> int:
    """Highest order of so many coefficients, (L + 1)(L + 2) / 2."""
    return round((np.sqrt(8 * count + 1) - 3) / 2)

"""Line integrals through a volume in any pose: tilted tomography, laminography, tensor tomography.

Joseph's method costs four gathers a ray and slice. Here the same sum is factorised (shear-warp, Lacroute & Levoy 1994):

1. The slices normal to the dominant axis of the ray are sheared onto one *base plane*. All voxels of a slice move by
   the same sub-pixel shift, so that bilinear interpolation is four scalar weights on contiguous memory.
2. The base plane is resampled once onto the detector by cubic splines (interpolating, hence without a second blur): an
   affine map, as two passes of small dense matrices.

Both steps are linear in the volume; the transpose of step 1 is written by hand (slices are read where they were added),
that of step 2 is the transposed matrix products. Everything is differentiable in the geometry.
"""

from collections.abc import Sequence
from functools import partial
from typing import Any, Self

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.custom_derivatives import SymbolicZero, linear_call
from jaxtyping import Array, Float, Int
from numpy.typing import ArrayLike

from ..errors import InputError

__all__ = ["PoseProjector", "Poses", "laminography_poses", "rotate_vectors"]

# Views whose shears share one pass over the slices: their base planes together fit a processor's cache.
VIEWS_PER_BLOCK = 4
# Room on the base plane for the tails of the splines and for poses that move: pixels, and a fraction of the depth.
MARGIN, MARGIN_OF_DEPTH = 4, 0.02


class _Group(eqx.Module):
    """Views whose rays share the dominant axis and whose detector is resampled in the same order of passes."""

    views: tuple[int, ...] = eqx.field(static=True)
    axis: int = eqx.field(static=True)  # dominant axis of the ray, as an axis of the volume (z, y, x)
    swap_base: bool = eqx.field(static=True)  # resample the second base axis last instead of the first
    swap_detector: bool = eqx.field(static=True)  # ... together with the detector's columns instead of its rows
    oversampling: int = eqx.field(static=True)
    base: tuple[int, int] = eqx.field(static=True)


class Poses(eqx.Module):
    """The poses of a set of views and the sizes of volume and detector: what every projector for any pose shares."""

    ray: Float[Array, "view 3"]
    row: Float[Array, "view 3"]
    column: Float[Array, "view 3"]
    offsets: Float[Array, "view 2"]
    volume_shape: tuple[int, int, int] = eqx.field(static=True)
    detector_shape: tuple[int, int] = eqx.field(static=True)

    def __init__(
        self,
        ray: ArrayLike,
        row: ArrayLike,
        column: ArrayLike,
        volume_shape: Sequence[int],
        detector_shape: Sequence[int],
        offsets: ArrayLike | None = None,
    ):
        vectors = [np.asarray(v, np.float64) for v in (ray, row, column)]
        offsets = np.zeros((len(vectors[0]), 2)) if offsets is None else np.asarray(offsets, np.float64)
        _check(vectors, offsets, volume_shape, detector_shape)
        self.ray, self.row, self.column = (jnp.asarray(v, jnp.result_type(float)) for v in vectors)
        self.offsets = jnp.asarray(offsets, jnp.result_type(float))
        nz, ny, nx = (int(n) for n in volume_shape)
        rows, columns = (int(n) for n in detector_shape)
        self.volume_shape, self.detector_shape = (nz, ny, nx), (rows, columns)

    def subset(self, views: ArrayLike) -> Self:
        """A projector of some of the views, sorted anew: faster than passing `views` when they are used many times."""
        poses = (self.ray, self.row, self.column, self.offsets)
        ray, row, column, offsets = (np.asarray(v)[np.asarray(views)] for v in poses)
        return type(self)(ray, row, column, self.volume_shape, self.detector_shape, offsets)

    def moved(
        self, rotations: Float[Array, "view 3"] | None = None, offsets: Float[Array, "view 2"] | None = None
    ) -> Self:
        """The same projector with the vectors rotated by rotation vectors [rad] and the offsets shifted [pixel].

        Differentiable in both: the way to refine poses as unknowns.
        """
        new = self
        if rotations is not None:
            new = self.with_poses(*(rotate_vectors(v, rotations) for v in (self.ray, self.row, self.column)))
        if offsets is not None:
            new = eqx.tree_at(lambda p: p.offsets, new, self.offsets + offsets)
        return new

    def with_poses(
        self,
        ray: Float[Array, "view 3"],
        row: Float[Array, "view 3"],
        column: Float[Array, "view 3"],
        offsets: Float[Array, "view 2"] | None = None,
    ) -> Self:
        """The same projector with other vectors close to its own (see the class); differentiable in them.

        **Raises:** `InputError` where there are not as many poses as before.
        """
        if any(v.shape != self.ray.shape for v in (ray, row, column)):
            shapes = [v.shape for v in (ray, row, column)]
            raise InputError(f"with_poses: vectors must be {self.ray.shape}, got {shapes}")
        offsets = self.offsets if offsets is None else offsets
        return eqx.tree_at(lambda p: (p.ray, p.row, p.column, p.offsets), self, (ray, row, column, offsets))


class PoseProjector(Poses):
    """X-ray transform of a volume for a parallel beam in any pose.

    `A(volume)` maps `(z, y, x, *channel)` to `(view, row, column, *channel)`. Pixel (K, J) of a view sees the line
    `(J - (N_J-1)/2 + o_J) column + (K - (N_K-1)/2 + o_K) row + t ray` in voxel units with the origin at the centre of
    the volume; the value is the integral over t [voxel]. Vectors have components (x, y, z).

    **Arguments:** `ray`, `row`, `column`: `(view, 3)`, unit vectors in the frame of the volume; `volume_shape`
    `(z, y, x)`; `detector_shape` `(row, column)`; `offsets` `(view, 2)` = (o_K, o_J) [pixel].

    **Cost:** `2 s N^3 (c + 4)` operations a view where c channels are mixed to s by `mixing`, `8 c N^3` without it, and
    `8 s N^3` for the resampling. Vectors and offsets are array leaves and may be traced: views are sorted by dominant
    axis when the projector is made, and a pose may leave its place by about one degree before the base plane cuts it
    (make a new projector then). Batched calls: use channels, not `vmap`.

    **Raises:** `InputError` for shapes that do not agree and rays that lie in the detector plane.

    ```python
    angles = np.linspace(0, np.pi, 8, endpoint=False)
    zero, one = np.zeros(8), np.ones(8)
    A = PoseProjector(
        ray=np.stack([-np.sin(angles), np.cos(angles), zero], -1),
        row=np.stack([zero, zero, one], -1),
        column=np.stack([np.cos(angles), np.sin(angles), zero], -1),
        volume_shape=(4, 16, 16), detector_shape=(4, 16),
    )
    projections = A(jnp.ones((4, 16, 16)))
    ```
    """

    groups: tuple[_Group, ...]

    def __init__(
        self,
        ray: ArrayLike,
        row: ArrayLike,
        column: ArrayLike,
        volume_shape: Sequence[int],
        detector_shape: Sequence[int],
        offsets: ArrayLike | None = None,
    ):
        super().__init__(ray, row, column, volume_shape, detector_shape, offsets)
        vectors = [np.asarray(v, np.float64) for v in (ray, row, column)]
        self.groups = _sort_views(vectors[0], vectors[1], vectors[2], self.volume_shape)

    @eqx.filter_jit
    def __call__(
        self,
        volume: Float[Array, "z y x *channel"],
        views: Int[Array, " batch"] | None = None,
        mixing: Float[Array, "batch segment channel"] | None = None,
    ) -> Float[Array, "batch row column *value"]:
        """Project; `views` selects views, `mixing` mixes channels before projecting (fewer of them: less work).

        All views at once run in blocks; a selection (may be traced) runs view by view, at about twice the cost a view.
        """
        if volume.shape[:3] != self.volume_shape:
            raise InputError(f"volume {volume.shape} does not fit the projector's {self.volume_shape} (z, y, x)")
        channels = volume.shape[3:]
        volume = volume.reshape(*self.volume_shape, -1)
        # Channels before the plane: mixing is then one plain matrix product a slice, and shifts move contiguous rows.
        slices = {g.axis: jnp.moveaxis(volume, (g.axis, 3), (0, 1)) for g in self.groups}
        geometry = [v.astype(volume.dtype) for v in (self.ray, self.row, self.column, self.offsets)]
        if views is None:
            images = self._all_views(slices, geometry, mixing)
        else:
            images = self._some_views(slices, geometry, mixing, jnp.asarray(views))
        return images.reshape(*images.shape[:3], *channels) if mixing is None else images

    @eqx.filter_jit
    def adjoint(
        self,
        images: Float[Array, "batch row column *value"],
        views: Int[Array, " batch"] | None = None,
        mixing: Float[Array, "batch segment channel"] | None = None,
    ) -> Float[Array, "z y x *channel"]:
        """The exact transpose: `<images, A(volume)> = <A.adjoint(images), volume>`."""
        channels = images.shape[3:] if mixing is None else mixing.shape[-1:]
        # Not linear_transpose: that would transpose the plain sum of `_shear` and not call its hand-written transpose.
        # The forward projection at zero is never computed: nothing under jit uses its value.
        zero = jnp.zeros((*self.volume_shape, *channels), images.dtype)
        return jax.vjp(lambda v: self(v, views, mixing), zero)[1](images)[0]

    def _all_views(self, slices: dict[int, Array], geometry: list[Array], mixing: Array | None) -> Array:
        images = []
        for group in self.groups:
            block, take = min(VIEWS_PER_BLOCK, len(group.views)), np.asarray(group.views)
            # The last block is filled up with copies of the first view, so that all blocks are one compiled loop.
            padded = np.append(take, np.full(-len(take) % block, take[0])).reshape(-1, block)
            project = jax.checkpoint(partial(_project_block, group, self.detector_shape))

            def one(indices, project=project, group=group):
                mix = None if mixing is None else mixing[indices]
                return project(slices[group.axis], [g[indices] for g in geometry], mix)

            out = jax.lax.map(one, jnp.asarray(padded))
            images.append(out.reshape(-1, *out.shape[2:])[: len(take)])
        order = np.argsort(np.concatenate([np.asarray(g.views) for g in self.groups]))
        return jnp.concatenate(images)[order]

    def _some_views(self, slices: dict, geometry: list[Array], mixing: Array | None, views: Array) -> Array:
        group_of_view = np.zeros(len(self.ray), np.int32)
        for number, group in enumerate(self.groups):
            group_of_view[list(group.views)] = number

        def branch(group: _Group, view: Array, mix: Array | None) -> Array:
            project = jax.checkpoint(partial(_project_block, group, self.detector_shape))
            return project(slices[group.axis], [g[view][None] for g in geometry], None if mix is None else mix[None])[0]

        def one(item: tuple[Array, Array | None]) -> Array:
            view, mix = item
            branches = [partial(branch, group) for group in self.groups]
            return jax.lax.switch(jnp.asarray(group_of_view)[view], branches, view, mix)

        return jax.lax.map(one, (views, mixing))


def laminography_poses(
    angles: Any, tilt: Any, *, roll: Any = 0.0, pitch: Any = 0.0
) -> tuple[Float[Array, "view 3"], Float[Array, "view 3"], Float[Array, "view 3"]]:
    """Vectors (ray, row, column) of a parallel beam for a specimen that turns about a tilted axis.

    The volume turns about its z axis, which leans by `tilt` out of the plane across the beam: the ray is
    `cos(tilt) (-sin, cos, 0) + sin(tilt) z`. At `tilt = 0` this is tomography as `ParallelProjector` has it: column
    u = x cos(angle) + y sin(angle), rows along z, at angle 0 the beam along +y.

    **Arguments:** `angles` `(view,)` [rad], `tilt` [rad] (axis and beam make an angle of 90 degrees less `tilt`);
    `roll`: the detector turned about the beam [rad], columns towards rows; `pitch`: the detector turned about its
    columns axis [rad], rows towards the beam (rows are then seen shortened by cos(pitch)). Each a number or one a view.

    NumPy in, NumPy (float64) out; JAX in, JAX out, differentiable in everything.

    ```python
    ray, row, column = laminography_poses(np.linspace(0, 2 * np.pi, 4, endpoint=False), tilt=np.deg2rad(30))
    ```
    """
    traced = any(isinstance(v, jax.Array) for v in (angles, tilt, roll, pitch))
    xp = jnp if traced else np
    angles = xp.asarray(angles, None if traced else np.float64)
    if angles.ndim != 1 or angles.size == 0:
        raise InputError(f"laminography_poses: angles must be one a view [rad], got shape {angles.shape}")
    one, zero = xp.ones_like(angles), xp.zeros_like(angles)
    tilt, roll, pitch = (value * one for value in (tilt, roll, pitch))
    flat = xp.stack([-xp.sin(angles), xp.cos(angles), zero], -1)
    across, up = xp.stack([xp.cos(angles), xp.sin(angles), zero], -1), xp.stack([zero, zero, one], -1)
    cosine, sine = xp.cos(tilt)[:, None], xp.sin(tilt)[:, None]
    ray, upright = cosine * flat + sine * up, cosine * up - sine * flat
    column = xp.cos(roll)[:, None] * across + xp.sin(roll)[:, None] * upright
    row = xp.cos(roll)[:, None] * upright - xp.sin(roll)[:, None] * across
    return ray, xp.cos(pitch)[:, None] * row + xp.sin(pitch)[:, None] * ray, column


def rotate_vectors(vectors: Float[Array, "view 3"], rotations: Float[Array, "view 3"]) -> Float[Array, "view 3"]:
    """Rodrigues' rotation by `|r|` [rad] about `r`, differentiable at r = 0 too.

    ```python
    turned = rotate_vectors(jnp.array([[1.0, 0, 0]]), jnp.array([[0, 0, np.pi / 2]]))  # (0, 1, 0)
    ```
    """
    squared = jnp.sum(rotations**2, axis=-1, keepdims=True)
    small = squared < 1e-8
    angle = jnp.sqrt(jnp.where(small, 1.0, squared))
    sine = jnp.where(small, 1.0 - squared / 6, jnp.sin(angle) / angle)
    cosine = jnp.where(small, 0.5 - squared / 24, (1.0 - jnp.cos(angle)) / angle**2)
    once = jnp.cross(rotations, vectors)
    return vectors + sine * once + cosine * jnp.cross(rotations, once)


# --- the geometry of one block of views -----------------------------------------------------------


def dominant_axes(ray: np.ndarray) -> np.ndarray:
    """The axis of the volume (z, y, x) nearest to each ray.

    Ties (45 degrees) go to one axis whatever the rounding, which keeps groups few.
    """
    return np.argmax(np.abs(ray[:, ::-1]) * np.array([1.0 + 2e-6, 1.0 + 1e-6, 1.0]), axis=1)


def base_map(ray: Any, row: Any, column: Any, axis: int) -> tuple[Any, Any]:
    """Slopes `(view, 2)` of the rays along the dominant axis, and the matrix `(view, base axis, detector axis)` from
    detector (row, column) to base plane coordinates. Works on NumPy and JAX arrays."""
    dominant, others = 2 - axis, [2 - a for a in range(3) if a != axis]
    xp = np if isinstance(ray, np.ndarray) else jnp
    slopes = xp.stack([ray[:, o] / ray[:, dominant] for o in others], -1)
    row, column = (v[:, np.asarray(others)] - slopes * v[:, dominant, None] for v in (row, column))
    return slopes, xp.stack([row, column], -1)


def _sort_views(ray: Any, row: Any, column: Any, shape: tuple[int, int, int]) -> tuple[_Group, ...]:
    members: dict[tuple[int, int], list[int]] = {}
    for view, axis in enumerate(dominant_axes(ray)):
        matrix = base_map(ray[[view]], row[[view]], column[[view]], int(axis))[1][0]
        # The two passes are best conditioned when the largest element of the map is the pivot.
        pivot = int(np.argmax(np.abs(matrix).ravel() * np.array([1.0, 1 - 1e-6, 1 - 2e-6, 1 - 3e-6])))
        members.setdefault((int(axis), pivot), []).append(view)
    return tuple(_group(key, views, ray, row, column, shape) for key, views in sorted(members.items()))


def _group(key: tuple[int, int], views: list[int], ray: Any, row: Any, column: Any, shape: Sequence[int]) -> _Group:
    axis, pivot = key
    slopes, matrix = base_map(ray[views], row[views], column[views], axis)
    depth, sides = shape[axis], [n for a, n in enumerate(shape) if a != axis]
    margin = MARGIN + int(np.ceil(MARGIN_OF_DEPTH * depth))
    # Equal room on both sides: the base pixels then coincide with the voxels of the slice they go through.
    reach = np.ceil(np.max(np.abs(slopes), axis=0) * (depth - 1) / 2).astype(int)
    base = tuple(int(n + 2 * r + 2 * margin) for n, r in zip(sides, reach, strict=True))
    # A pivot below one samples the intermediate image more coarsely than the detector: refine it.
    smallest = np.abs(matrix.reshape(len(views), 4)[:, pivot]).min()
    oversampling = 1 if smallest > 0.85 else 2
    return _Group(tuple(views), axis, pivot >= 2, pivot % 2 == 1, oversampling, (base[0], base[1]))


def _project_block(
    group: _Group,
    detector: tuple[int, int],
    slices: Float[Array, "depth channel u v"],
    geometry: list[Array],
    mixing: Float[Array, "view segment channel"] | None,
) -> Float[Array, "view row column segment"]:
    ray, row, column, offsets = geometry
    slopes, matrix = base_map(ray, row, column, group.axis)
    depth, _, nu, nv = slices.shape
    # The base plane goes through the centres of a slice: slopes of zero and one then interpolate nothing.
    heights = jnp.arange(depth, dtype=slices.dtype) - depth // 2
    middle = slopes * (depth // 2 - (depth - 1) / 2)  # where the rays of the volume's centre meet the base plane
    origin = (np.asarray(group.base) - np.asarray([nu, nv])) / 2
    shifts = jnp.asarray(origin, slices.dtype) - heights[:, None, None] * slopes
    base = _shear(group.base, slices, mixing, shifts)
    base = base * jnp.sqrt(1 + jnp.sum(slopes**2, -1))[:, None, None, None]
    return _warp(group, detector, base, matrix, middle, offsets)


# --- step 1: shear the slices onto the base plane -------------------------------------------------


@partial(jax.custom_jvp, nondiff_argnums=(0,))
def _shear(
    base: tuple[int, int],
    slices: Float[Array, "depth channel u v"],
    mixing: Float[Array, "view segment channel"] | None,
    shifts: Float[Array, "depth view 2"],
) -> Float[Array, "view segment U V"]:
    """Sum of the mixed slices, each moved by its sub-pixel shift: voxel i of a slice lands on base pixel i + shift."""
    views = shifts.shape[1]
    segments = slices.shape[1] if mixing is None else mixing.shape[1]
    size = (segments, slices.shape[2] + 1, slices.shape[3] + 1)

    def add_slice(planes: tuple[Array, ...], item: tuple[Array, Array]) -> tuple[tuple[Array, ...], None]:
        image, shift = item
        # One ring of zeros, so that both neighbours of every target exist.
        if mixing is None:
            images = [jnp.pad(image, ((0, 0), (1, 1), (1, 1)))] * views
        else:
            images = jnp.pad(jnp.einsum("nsc,cuv->nsuv", mixing, image), ((0, 0), (0, 0), (1, 1), (1, 1)))
        start, weights = _taps(shift)
        new = []
        for n, plane in enumerate(planes):
            corner = (jnp.int32(0), start[n, 0], start[n, 1])
            moved = _bilinear(images[n], weights[n], flipped=True)
            window = jax.lax.dynamic_slice(plane, corner, size) + moved
            new.append(jax.lax.dynamic_update_slice(plane, window, corner))
        return tuple(new), None

    empty = tuple(jnp.zeros((segments, *base), slices.dtype) for _ in range(views))
    planes, _ = jax.lax.scan(add_slice, empty, (slices, shifts))
    return jnp.stack(planes)


def _shear_transpose(
    base: tuple[int, int], mixing: Array | None, shifts: Array, planes: Array, size: tuple[int, int]
) -> Float[Array, "depth channel u v"]:
    """Transpose of `_shear` in its slices: each slice reads its shifted window of every base plane."""
    views, segments = planes.shape[:2]
    window = (segments, size[0] + 1, size[1] + 1)

    def read_slice(_: None, shift: Array) -> tuple[None, Array]:
        start, weights = _taps(shift)
        corners = [(jnp.int32(0), start[n, 0], start[n, 1]) for n in range(views)]
        windows = [jax.lax.dynamic_slice(planes[n], corner, window) for n, corner in enumerate(corners)]
        images = [_bilinear(windows[n], weights[n], flipped=False) for n in range(views)]
        if mixing is None:
            return None, sum(images[1:], images[0])
        return None, jnp.einsum("nsc,nsuv->cuv", mixing, jnp.stack(images))

    return jax.lax.scan(read_slice, None, shifts)[1]


def _taps(shift: Float[Array, "view 2"]) -> tuple[Int[Array, "view 2"], Float[Array, "view 2"]]:
    whole = jnp.floor(jax.lax.stop_gradient(shift))
    return whole.astype(jnp.int32), shift - whole


def _bilinear(image: Float[Array, "segment u v"], weights: Float[Array, " 2"], flipped: bool) -> Array:
    """Means of 2 x 2 neighbours with weights (1 - f, f) in both axes; the transpose has them the other way round."""
    f, g = (1 - weights[0], 1 - weights[1]) if flipped else (weights[0], weights[1])
    top, bottom = image[:, :-1], image[:, 1:]
    top, bottom = ((1 - g) * line[..., :-1] + g * line[..., 1:] for line in (top, bottom))
    return (1 - f) * top + f * bottom


@partial(_shear.defjvp, symbolic_zeros=True)
def _shear_jvp(base, primals, tangents):
    slices, mixing, shifts = primals
    d_slices, d_mixing, d_shifts = tangents
    out = _shear(base, slices, mixing, shifts)
    tangent = jnp.zeros_like(out)
    if not isinstance(d_slices, SymbolicZero):
        size = slices.shape[2:]
        tangent = tangent + linear_call(
            lambda fixed, x: _shear(base, x, fixed[0], fixed[1]),
            lambda fixed, y: _shear_transpose(base, fixed[0], fixed[1], y, size),
            (mixing, shifts),
            d_slices,
        )
    moving = [not isinstance(t, SymbolicZero) and t is not None for t in (d_mixing, d_shifts)]
    if any(moving):
        zeros = [jnp.zeros_like(p) if p is not None else None for p in (mixing, shifts)]
        steps = [t if m else z for t, m, z in zip((d_mixing, d_shifts), moving, zeros, strict=True)]
        plain = _shear.fun  # the same sum, differentiated by JAX
        if mixing is None:
            tangent = tangent + jax.jvp(lambda s: plain(base, slices, None, s), (shifts,), (steps[1],))[1]
        else:
            tangent = tangent + jax.jvp(lambda m, s: plain(base, slices, m, s), (mixing, shifts), tuple(steps))[1]
    return out, tangent


# --- step 2: resample the base plane on the detector ----------------------------------------------


def _warp(
    group: _Group,
    detector: tuple[int, int],
    base: Float[Array, "view segment U V"],
    matrix: Float[Array, "view 2 2"],
    middle: Float[Array, "view 2"],
    offsets: Float[Array, "view 2"],
) -> Float[Array, "view row column segment"]:
    """Two passes: first along base axis b for every line of a, giving (a, e); then along a for every e, giving (c, e).

    (c, e) are the detector's (row, column) or (column, row), (a, b) the base's axes, so that the pivot `M_ac` is the
    largest element of the map: the lines of pass two then sample the base at least as finely as the detector does.
    """
    if group.swap_base:
        base, matrix, middle = jnp.swapaxes(base, 2, 3), matrix[:, ::-1], middle[:, ::-1]
    if group.swap_detector:
        matrix, offsets, detector = matrix[:, :, ::-1], offsets[:, ::-1], (detector[1], detector[0])
    size_a, size_b = base.shape[2:]
    slope = matrix[:, 1, 0] / matrix[:, 0, 0]
    scale = matrix[:, 1, 1] - slope * matrix[:, 0, 1]
    c, e = (_centred(n, base.dtype) + offsets[:, i, None] for i, n in enumerate(detector))
    fine = group.oversampling * (size_a - 1) + 1
    a = _centred(fine, base.dtype) / group.oversampling

    middle_a, middle_b = middle[:, 0, None, None], middle[:, 1, None, None]
    first = slope[:, None, None] * (a[:, None] - middle_a) + (scale[:, None] * e)[:, None, :] + middle_b
    first = first + (size_b - 1) / 2
    second = matrix[:, 0, 0, None, None] * c[:, None, :] + (matrix[:, 0, 1, None] * e)[:, :, None] + middle_a
    second = second * group.oversampling + (fine - 1) / 2
    along_b = _spline(first[..., None] - jnp.arange(size_b, dtype=base.dtype))  # (view, a, e, b)
    along_a = _spline(second[..., None] - jnp.arange(fine, dtype=base.dtype))  # (view, e, c, a)

    filter_a = jnp.asarray(_spline_refinement(size_a, group.oversampling), base.dtype)
    filter_b = jnp.asarray(_spline_refinement(size_b, 1), base.dtype)
    coefficients = jnp.einsum("AP,nsPq,Bq->nABs", filter_a, base, filter_b)
    lines = jnp.einsum("naeb,nabs->neas", along_b, coefficients)
    images = jnp.einsum("neca,neas->necs", along_a, lines)
    return images if group.swap_detector else jnp.swapaxes(images, 1, 2)


def _centred(size: int, dtype: Any) -> Float[Array, " {size}"]:
    return jnp.arange(size, dtype=dtype) - (size - 1) / 2


def _spline(distance: Any) -> Any:
    """The cubic B-spline, `(max(2-|t|, 0)^3 - 4 max(1-|t|, 0)^3) / 6`."""
    xp = np if isinstance(distance, np.ndarray) else jnp
    t = xp.abs(distance)
    outer, inner = xp.maximum(2 - t, 0), xp.maximum(1 - t, 0)
    return (outer * outer * outer - 4 * (inner * inner * inner)) / 6


def _spline_refinement(size: int, factor: int) -> np.ndarray:
    """Matrix from `size` samples to the B-spline coefficients of their interpolant on a grid `factor` times finer."""
    coarse = np.linalg.inv(_spline(np.subtract.outer(np.arange(size), np.arange(size)).astype(float)))
    if factor == 1:
        return coarse
    fine = np.arange(factor * (size - 1) + 1)
    samples = _spline(np.subtract.outer(fine / factor, np.arange(size)))
    return np.linalg.inv(_spline(np.subtract.outer(fine, fine).astype(float))) @ samples @ coarse


def _check(vectors: list[np.ndarray], offsets: np.ndarray, volume: Sequence[int], detector: Sequence[int]) -> None:
    views = len(vectors[0])
    if any(v.shape != (views, 3) for v in vectors) or offsets.shape != (views, 2) or views == 0:
        shapes = [v.shape for v in vectors] + [offsets.shape]
        raise InputError(f"ray, row, column must be (view, 3) and offsets (view, 2), got {shapes}")
    if len(volume) != 3 or len(detector) != 2:
        raise InputError(f"shapes must be volume (z, y, x) and detector (row, column), got {volume} and {detector}")
    volume_of_frame = np.abs(np.linalg.det(np.stack(vectors, 1)))
    if not np.all(np.isfinite(volume_of_frame)) or volume_of_frame.min() < 1e-3:
        bad = int(np.argmin(volume_of_frame))
        raise InputError(f"view {bad}: the ray lies in the plane of the detector (or is not finite)")

"""Parallel-beam projection by the Fourier slice theorem, its exact transpose, and the Toeplitz form of their product.

The 1-D transform of the projection at angle theta is the 2-D transform of the slice on the line through the origin
at theta. An image is divided by the transform of a Kaiser-Bessel window, padded, transformed once, and interpolated
with that window at the polar points (J. A. Fessler and B. P. Sutton, IEEE Trans. Signal Process. 51, 560 (2003); the
shape of the window: P. J. Beatty et al., IEEE Trans. Med. Imaging 24, 799 (2005), eq. 5). The rotation axis and the
shifts of the views are phases in the 1-D transform.

Convention: image (y, x), row first; volume (z, y, x); sinogram (view, z, u). Pixel i is at i - (N-1)/2, y grows with
the row. u = x cos(theta) + y sin(theta), so that at angle 0 the beam runs along +y. Lengths in pixels, angles in rad.
"""

import math
import warnings
from functools import partial
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.core import Tracer
from jaxtyping import Array, Complex, Float, Int
from numpy.typing import ArrayLike

from ...errors import InputError
from ._gather import _block_size, _gather_tables, _GatherTables, _in_blocks, _spectrum
from ._polar import (
    _complex_of,
    _fourier_grid,
    _interpolate,
    _on_device,
    _Plan,
    _plan,
    _polar_taps,
    _rolloff,
    _Taps,
    _transfer,
)
from .toeplitz import ToeplitzNormal, _toeplitz_spectrum

__all__ = ["ParallelProjector", "project_parallel"]


class ParallelProjector(eqx.Module):
    """Line integrals through slices [value x pixel]: `A(volume)` -> sinogram, `A.adjoint(sinogram)` -> volume.

    A value of the image is the mean over its pixel; a value of the sinogram is the mean over its detector bin. `A` is a
    pytree: pass it to `jax.jit` as an argument. It can be differentiated, forwards and backwards, with respect to the
    volume, `A.centre` and `A.shifts` (for the angles see `project_parallel`). Channels go on the z axis:
    `A(volume.reshape(-1, ny, nx))`.

    **Arguments:**

    - `angles`: one a view [rad], any order, any range.
    - `shape`: (ny, nx) of a slice.
    - `detector`: number of detector columns.
    - `centre`: detector column on which the rotation axis falls [pixel]; default the middle, (detector - 1) / 2.
    - `shifts`: one a view [pixel], added to the centre.
    - `kernel_width`: taps of the window along each axis; time grows with its square.
    - `oversampling`: of the Fourier grid. Width 5 on a grid of 1.5 computes the sums to 1e-4 of the sinogram; 4 on 2 to
      4e-4 in about the same time; 6 on 2 to 3e-5.
    - `dtype`: of the tables; default that of `jnp.zeros(())`. The type of a call is that of its argument.

    **Cost:** for n x n pixels and v views one real transform of (1.5 n)^2 and about `0.63 v n` Fourier samples of
    `kernel_width^2` complex multiply-adds a slice, forward and back alike. Slices are taken eight at a time: a stack
    costs two thirds as much a slice as a single one, and 16 Fourier grids of memory. The tables take about 300 bytes a
    sample: 70 MB for 512^2 and 720 views. Where those of the adjoint would exceed 2 GiB it is a scatter instead, about
    7 times slower.

    **Raises:** `InputError` for empty or non-finite angles, wrong shapes.

    ```python
    angles = np.linspace(0, np.pi, 90, endpoint=False)
    A = ParallelProjector(angles, (64, 64), 64)
    sinogram = A(jnp.ones((1, 64, 64)))          # (90, 1, 64)
    gradient = A.adjoint(sinogram)               # (1, 64, 64)
    ```
    """

    angles: Float[np.ndarray, " view"] | Float[Array, " view"]
    centre: Float[Array, ""]
    shifts: Float[Array, " view"] | None
    taps: "_Taps"
    transfer: Complex[Array, "view radius"]
    rolloff: tuple[Float[Array, " y"], Float[Array, " x"]]
    tables: "_GatherTables | None"
    shape: tuple[int, int] = eqx.field(static=True)
    detector: int = eqx.field(static=True)
    plan: "_Plan" = eqx.field(static=True)

    def __init__(
        self,
        angles: ArrayLike,
        shape: tuple[int, int],
        detector: int,
        *,
        centre: ArrayLike | None = None,
        shifts: ArrayLike | None = None,
        kernel_width: int = 5,
        oversampling: float = 1.5,
        dtype: jax.typing.DTypeLike | None = None,
    ):
        dtype = jnp.zeros(()).dtype if dtype is None else jnp.dtype(dtype)
        self.angles = _checked_angles(angles)
        self.shape = _checked_shape(shape, detector, kernel_width, oversampling)
        self.detector = int(detector)
        middle = (self.detector - 1) / 2
        offset = _largest_offset(middle if centre is None else centre, shifts, middle, self.angles.size)
        self.centre = _on_device(middle if centre is None else centre, dtype)
        self.shifts = None if shifts is None else _on_device(shifts, dtype)
        self.plan = _plan(self.shape, self.detector, offset, kernel_width, oversampling)

        frequency = np.arange(self.plan.period // 2 + 1) / self.plan.period
        self.taps = _Taps(*(_on_device(a) for a in _polar_taps(np, self.angles, frequency, self.plan, dtype)))
        self.transfer = _on_device(_transfer(np, self.angles, frequency, self.shape), _complex_of(dtype))
        self.rolloff = _rolloff(self.shape, self.plan, dtype)
        self.tables = _gather_tables(self.taps, self.plan, dtype)

    @classmethod
    def from_scan(cls, scan: Any, size: int | None = None) -> "ParallelProjector":
        """The projector of a tomographic `Scan`: its angles, detector columns, and rotation centre (given, or found
        from the data).

        **Arguments:** `size` [pixel] of a slice along x and y; the detector's columns by default.
        """
        columns = scan.frame_shape[1]
        angles = scan.require("angles", "the rotation angle of each view", "/path/of/angles")
        side = size or columns
        return cls(angles, (side, side), columns, centre=scan.find_rotation_centre())

    def subset(self, views: ArrayLike) -> "ParallelProjector":
        """The projector of some of the views, in the order given; views may repeat.

        The fast way to ordered subsets: `A.adjoint(sinogram, views)` fills the whole Fourier grid from tables of all
        views, a subset only touches its own samples (and transforms the grid: one view costs a fifth of 720). Centre
        and shifts are those of `A`, also traced ones; the Fourier grid is the same, so that `A.subset(i)(x)` is
        `A(x)[i]` to rounding.

        **Arguments:** `views`, NumPy indices or a mask; they cannot be traced.

        **Cost:** its share of the set-up and of the tables of `A`: 0.03 s for 72 views of 512^2.

        **Raises:** `InputError` for an empty or traced selection and indices beyond the views.

        ```python
        A = ParallelProjector(np.linspace(0, np.pi, 90, endpoint=False), (64, 64), 64)
        subsets = [A.subset(np.arange(start, 90, 10)) for start in range(10)]
        sinogram = subsets[3](jnp.ones((1, 64, 64)))    # (9, 1, 64): views 3, 13, ... 83
        ```
        """
        if any(isinstance(leaf, Tracer) for leaf in (views, self.angles, *self.taps, self.transfer)):
            raise InputError("subset() sorts tables in NumPy: make subsets outside jax.jit and jax.grad, pass them in")
        chosen = _chosen_views(views, self.angles.shape[0])
        row, column, weight_x, weight_y = (jnp.asarray(np.asarray(t)[..., chosen, :]) for t in self.taps[:4])
        taps = _Taps(row, column, weight_x, weight_y, self.taps.sign[chosen])
        return eqx.tree_at(
            lambda A: (A.angles, A.shifts, A.taps, A.transfer, A.tables),
            self,
            (
                np.asarray(self.angles)[chosen],
                None if self.shifts is None else self.shifts[chosen],
                taps,
                jnp.asarray(np.asarray(self.transfer)[chosen]),
                _gather_tables(taps, self.plan, self.taps.weight_x.dtype),
            ),
            is_leaf=lambda leaf: leaf is None,
        )

    def __call__(
        self, volume: Float[Array, "*z y x"], views: Int[Array, " batch"] | None = None
    ) -> Float[Array, "view *z u"]:
        """Projections (view, z, u) of a volume (z, y, x), or (view, u) of an image (y, x).

        `views` picks some, in its order; it may be traced, so that a compiled step can sample it. It costs the share of
        the views and one Fourier grid.
        """
        if volume.shape[-2:] != self.shape or volume.ndim not in (2, 3):
            raise InputError(f"projector of slices {self.shape} got {volume.shape}: give (y, x) or (z, y, x)")
        stack = volume[None] if volume.ndim == 2 else volume
        sinogram = _project(self, stack, _as_indices(views, self.angles.shape[0]))
        return sinogram[:, 0] if volume.ndim == 2 else sinogram

    def adjoint(
        self, sinogram: Float[Array, "view *z u"], views: Int[Array, " batch"] | None = None
    ) -> Float[Array, "*z y x"]:
        """The exact transpose: (view, z, u) -> (z, y, x), (view, u) -> (y, x), [value x pixel].

        With `views`, the sinogram holds those views only. The tables are of all views: down to one view in eight this
        costs as much as all of them, below it is a scatter of those views alone. Subsets known beforehand cost their
        share only by `subset`.
        """
        indices = _as_indices(views, self.angles.shape[0])
        expected = self.angles.shape[0] if indices is None else indices.shape[0]
        if sinogram.ndim not in (2, 3) or sinogram.shape[0] != expected or sinogram.shape[-1] != self.detector:
            raise InputError(
                f"adjoint of {expected} views of {self.detector} columns got {sinogram.shape}: "
                "give (view, u) or (view, z, u)"
            )
        stack = sinogram[:, None] if sinogram.ndim == 2 else sinogram
        volume = _back_project(self, stack, indices)
        return volume[0] if sinogram.ndim == 2 else volume

    def normal(
        self, weights: ArrayLike | None = None, *, support: float | str = "disc", kernel_width: int = 8
    ) -> "ToeplitzNormal":
        """`N` with `N(volume) == A.adjoint(w A(volume))`, w one number a view.

        One padded transform pair a slice whatever the number of views. The product is a convolution as far as the
        detector sees the whole object. `support` says where the object is: `"disc"` (inscribed in the slice),
        `"square"` (all of it) or a radius [pixel]. Beyond it the product is wrong (4 % for an object that fills the
        square on a detector as wide as its side); what the detector cuts of the ringing of sharp edges costs some
        1e-4. `toeplitz_error` measures both; where they matter use `lambda x: A.adjoint(A(x))`, which is always exact.

        **Cost:** set-up in float64 NumPy, about two seconds for 512^2 and 720 views. Call it outside `jax.jit`.

        **Raises:** `InputError` where the detector does not see the support.
        """
        if isinstance(self.centre, Tracer) or isinstance(self.angles, Tracer):
            raise InputError("normal() computes its kernel in NumPy: call it outside jax.jit and pass the result in")
        exact, reason = self.normal_is_exact(support)
        if not exact:
            raise InputError(f"{reason}. Use A.adjoint(A(x)), or give the radius of the object as support")
        views = self.angles.shape[0]
        weight = np.ones(views) if weights is None else np.broadcast_to(np.asarray(weights, np.float64), (views,))
        spectrum = _toeplitz_spectrum(np.asarray(self.angles, np.float64), weight, self, kernel_width)
        return ToeplitzNormal(spectrum, self.shape)

    def normal_is_exact(self, support: float | str = "disc") -> tuple[bool, str]:
        """Tell whether `normal(support=support)` equals `A.adjoint(w A(x))`, and why (not), in words.

        It does where every view sees the whole support, whatever the centre and the shifts; weights must be one number
        a view. Centre and shifts must be known numbers, not traced ones.

        ```python
        exact, reason = ParallelProjector(np.linspace(0, np.pi, 90), (64, 64), 64, centre=20.0).normal_is_exact()
        # False, "the detector sees a disc of radius 20.5 px only, the support has 32.0 px: the product is no ..."
        ```
        """
        known = {"disc": min(self.shape) / 2, "square": math.hypot(*self.shape) / 2}
        if isinstance(support, str) and support not in known:
            raise InputError(f'support="{support}" is not known: give "disc", "square" or a radius [pixel]')
        radius = known[support] if isinstance(support, str) else support
        seen = self._seen_radius()
        sees = f"the detector sees a disc of radius {seen:.1f} px"
        if radius > seen + 1:
            return False, f"{sees} only, the support has {radius:.1f} px: the product is no convolution"
        return True, f"{sees}, which holds the support of {radius:.1f} px"

    def toeplitz_error(self, volume: Float[Array, "*z y x"] | None = None) -> float:
        """`|N(x) - A'A x| / |A'A x|` for the given volume, or for an ellipse of random values in the inscribed disc."""
        if volume is None:
            volume = _random_disc(self.shape, self.centre.dtype)
        exact = self.adjoint(self(volume))
        product = self.normal(support=0.0)(volume)
        return float(jnp.linalg.norm((product - exact).ravel()) / jnp.linalg.norm(exact.ravel()))

    def _seen_radius(self) -> float:
        """Radius of the disc about the axis that every view sees whole [pixel]."""
        centres = np.asarray(self.centre, np.float64) + (0.0 if self.shifts is None else np.asarray(self.shifts))
        return float(np.min(np.minimum(centres + 0.5, self.detector - 0.5 - centres)))


@partial(jax.jit, static_argnames=("detector", "kernel_width", "oversampling", "largest_offset"))
def project_parallel(
    volume: Float[Array, "*z y x"],
    angles: Float[Array, " view"],
    centre: ArrayLike | None = None,
    shifts: Float[Array, " view"] | None = None,
    *,
    detector: int | None = None,
    kernel_width: int = 6,
    oversampling: float = 2.0,
    largest_offset: float = 32.0,
) -> Float[Array, "view *z u"]:
    """`ParallelProjector` as a function of everything: differentiable in the angles [rad] too.

    The window is evaluated in each call and transposed by JAX, so that a gradient costs some 10 times that of
    `ParallelProjector`. Use it where angles are unknowns. `largest_offset` bounds |centre - middle + shifts| [pixel],
    which must be known beforehand to choose the length of the transforms.

    ```python
    angles = jnp.linspace(0.0, jnp.pi, 30, endpoint=False)
    gradient = jax.grad(lambda a: jnp.sum(project_parallel(jnp.ones((32, 32)), a) ** 2))(angles)
    ```
    """
    ny, nx = volume.shape[-2:]
    detector = nx if detector is None else detector
    _checked_shape((ny, nx), detector, kernel_width, oversampling)
    plan = _plan((ny, nx), detector, largest_offset, kernel_width, oversampling)
    dtype = volume.dtype
    frequency = np.arange(plan.period // 2 + 1) / plan.period
    angles = jnp.asarray(angles, dtype)
    taps = _Taps(*_polar_taps(jnp, angles, jnp.asarray(frequency, dtype), plan, dtype))
    transfer = _transfer(jnp, angles, jnp.asarray(frequency, dtype), (ny, nx))
    rolloff = _rolloff((ny, nx), plan, dtype)
    middle = jnp.asarray((detector - 1) / 2 if centre is None else centre, dtype)
    gain = _gain(transfer, middle, shifts, plan.period, dtype)

    def one(image: Float[Array, "y x"]) -> Float[Array, "view u"]:
        samples = _interpolate(_fourier_grid(image, rolloff, plan).reshape(-1), taps, plan.grid_y)
        return _lines_of(samples, taps.sign, gain, plan.period, detector)

    return one(volume) if volume.ndim == 2 else jnp.moveaxis(lax.map(one, volume), 0, 1)


def _gain(
    transfer: Complex[Array, "view radius"],
    centre: Float[Array, ""],
    shifts: Float[Array, " view"] | None,
    period: int,
    dtype: jax.typing.DTypeLike,
) -> Complex[Array, "view radius"]:
    """Transfer of the pixel and of the bin, and the phase of the rotation axis on the detector."""
    axis = centre[None] if shifts is None else centre + shifts
    return transfer.astype(_complex_of(dtype)) * _shift_phase(axis, period, dtype)


def _lines_of(
    samples: Complex[Array, "view *z radius"],
    sign: Float[Array, " view"],
    gain: Complex[Array, "view radius"],
    period: int,
    detector: int,
) -> Float[Array, "view *z u"]:
    """Polar samples -> detector lines: conjugate mirrored views, apply the gain, transform back, crop."""
    within = tuple(range(1, samples.ndim - 1))
    upright = lax.complex(samples.real, samples.imag * jnp.expand_dims(sign[:, None], within))
    lines = jnp.fft.irfft(upright * jnp.expand_dims(gain, within), period, axis=-1)
    return lines[..., :detector]


def _shift_phase(
    shift: Float[Array, " view"], period: int, dtype: jax.typing.DTypeLike
) -> Complex[Array, "view radius"]:
    """exp(-2 pi i m shift / period), the whole pixels reduced in integers so that float32 keeps its digits."""
    index = np.arange(period // 2 + 1)[None, :]
    whole = jnp.round(lax.stop_gradient(shift))
    turns = (jnp.asarray(index, jnp.int32) * (whole.astype(jnp.int32)[:, None] % period)) % period
    rest = (shift - whole).astype(dtype)[:, None] * jnp.asarray(index, dtype)
    angle = (turns.astype(dtype) + rest) * jnp.asarray(-2 * np.pi / period, dtype)
    return lax.complex(jnp.cos(angle), jnp.sin(angle))


def _project_slices(
    A: ParallelProjector, stack: Float[Array, "z y x"], views: Array | None
) -> Float[Array, "view z u"]:
    sign, transfer, shifts = A.taps.sign.astype(stack.dtype), A.transfer, A.shifts
    if views is not None:
        sign, transfer, shifts = sign[views], transfer[views], None if shifts is None else shifts[views]
    gain = _gain(transfer, A.centre, shifts, A.plan.period, stack.dtype)

    def block(some: Float[Array, "z y x"]) -> Float[Array, "view z u"]:
        return _lines_of(_spectrum(A, some, views), sign, gain, A.plan.period, A.detector)

    return _in_blocks(block, stack, _block_size(A.plan, stack.dtype), 0, 1)


@jax.jit
def _project(A: ParallelProjector, stack: Array, views: Array | None) -> Array:
    return _project_slices(A, stack, views)


@jax.jit
def _back_project(A: ParallelProjector, sinogram: Array, views: Array | None) -> Array:
    like = jax.ShapeDtypeStruct((sinogram.shape[1], *A.shape), sinogram.dtype)
    return jax.linear_transpose(lambda stack: _project_slices(A, stack, views), like)(sinogram)[0]


def _random_disc(shape: tuple[int, int], dtype: jax.typing.DTypeLike) -> Float[Array, "y x"]:
    y, x = (2 * (np.arange(n) + 0.5) / n - 1 for n in shape)
    scale = [min(shape) / n for n in shape]
    inside = (y / scale[0])[:, None] ** 2 + (x / scale[1])[None, :] ** 2 < 0.95
    return jnp.asarray(inside * np.random.default_rng(0).random(shape), dtype)


# Checks of what a user gives
def _checked_angles(angles: ArrayLike) -> np.ndarray:
    array = np.asarray(angles, np.float64)
    if array.ndim != 1 or array.size == 0 or not np.all(np.isfinite(array)):
        raise InputError(f"angles must be a list of finite numbers [rad], got shape {array.shape}")
    if np.ptp(array) > 8 * np.pi + 1e-3:
        warnings.warn(f"angles span {np.ptp(array):.1f} rad, more than four turns: are they in degrees?", stacklevel=3)
    return array


def _checked_shape(shape: tuple[int, int], detector: int, width: int, oversampling: float) -> tuple[int, int]:
    if len(shape) != 2 or min(*shape, detector) < 2:
        raise InputError(f"shape (ny, nx) and detector (columns) must be at least 2, got {shape} and {detector}")
    if not 2 <= width <= 16 or not 1.2 <= oversampling <= 4:
        raise InputError(f"kernel_width {width} must be in 2..16 and oversampling {oversampling} in 1.2..4")
    return int(shape[0]), int(shape[1])


def _largest_offset(centre: ArrayLike, shifts: ArrayLike | None, middle: float, views: int) -> float:
    each = np.zeros(views) if shifts is None else np.asarray(shifts, np.float64)
    if np.ndim(np.asarray(centre)) != 0 or each.shape != (views,):
        raise InputError(f"centre must be one number [pixel] and shifts one a view ({views}), got {each.shape}")
    moved = np.asarray(centre, np.float64) - middle + each
    if not np.all(np.isfinite(moved)):
        raise InputError("centre and shifts must be finite")
    return float(np.max(np.abs(moved)))


def _chosen_views(views: ArrayLike, count: int) -> np.ndarray:
    """Indices in 0..count-1 of a list of indices or of a mask."""
    chosen = np.asarray(views)
    if chosen.dtype == bool and chosen.shape == (count,):
        chosen = np.nonzero(chosen)[0]
    whole = chosen.ndim == 1 and chosen.size > 0 and np.issubdtype(chosen.dtype, np.integer)
    if not whole or chosen.min() < -count or chosen.max() >= count:
        raise InputError(
            f"a subset of {count} views needs a list of at least one index below {count} (or a mask of length "
            f"{count}), got {np.array2string(chosen, threshold=8)}"
        )
    return chosen % count


def _as_indices(views: ArrayLike | None, count: int) -> Array | None:
    """Indices of views, `None` for all of them in their order, which takes the faster path."""
    if views is None or (isinstance(views, np.ndarray) and np.array_equal(views, np.arange(count))):
        return None
    return jnp.asarray(views, jnp.int32)

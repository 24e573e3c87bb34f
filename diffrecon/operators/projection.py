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
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.core import ShapedArray, Tracer
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir
from jaxtyping import Array, Complex, Float, Int, Shaped
from numpy.typing import ArrayLike

from ..errors import InputError
from . import _kaiser_bessel
from .fourier import good_size, half_plane_weights, is_smooth

__all__ = ["ParallelProjector", "ToeplitzNormal", "project_parallel"]

# Cells of the Fourier grid are sorted by the number of samples that reach them; each class is padded to its width.
# More classes pad less and take longer to compile. Narrow classes are one fused loop, wide ones run `_CHUNK` taps at a
# time (a reduction by XLA itself is up to 10 times slower, as it does not keep neighbouring slices in one register).
_CLASS_WIDTHS = (8, 12, 16, 24, 32, 48, 64, 128, 256, 1024)
_CHUNK = 8
_TABLE_LIMIT = 2 << 30  # bytes of adjoint tables above which the adjoint is a scatter
_BLOCK = 8  # slices side by side in the Fourier grid: each entry of the tables then serves a whole cache line
_BLOCK_BYTES = 256 << 20  # of their grids, at most


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


class ToeplitzNormal(eqx.Module):
    """`A'WA` of a parallel projector as a convolution: `N(volume)`, (z, y, x) or (y, x) in and out.

    **Cost:** complex transforms of n lines of n, n lines of 2n, and back. Made by `ParallelProjector.normal`.
    """

    spectrum: Float[Array, "kx ky"]
    shape: tuple[int, int] = eqx.field(static=True)

    def __call__(self, volume: Float[Array, "*z y x"]) -> Float[Array, "*z y x"]:
        if volume.shape[-2:] != self.shape:
            raise InputError(f"Toeplitz product of slices {self.shape} got {volume.shape}")
        stack = volume.reshape(-1, *self.shape)
        return _convolve(self.spectrum, stack, self.shape).reshape(volume.shape)

    def adjoint(self, volume: Float[Array, "*z y x"]) -> Float[Array, "*z y x"]:
        """The same: the product is symmetric."""
        return self(volume)


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


# The plan: sizes that do not depend on data


class _Plan(NamedTuple):
    """Sizes of the transforms and the shape of the window; hashable, so that it can be static."""

    grid_y: int
    grid_x: int
    period: int
    width: int
    beta: float

    @property
    def guard(self) -> int:
        return self.width // 2

    @property
    def rows(self) -> int:
        """Rows of the half plane kx >= 0, with guards on both sides that hold mirrored values."""
        return self.grid_x // 2 + 1 + 2 * self.guard

    def window_transform(self, n: int, m: int) -> Float[np.ndarray, " n"]:
        """Transform of the window at the pixels of an axis of n pixels, grid m."""
        return _kaiser_bessel.transform(self.width, self.beta, (np.arange(n) - n // 2) / m)

    def window_polynomial(self) -> tuple[float, ...]:
        """Coefficients, highest first, of the window in q = (2 t / width)^2."""
        return _kaiser_bessel.fitted(self.beta, 16)


def _plan(shape: tuple[int, int], detector: int, offset: float, width: int, oversampling: float) -> _Plan:
    ny, nx = shape
    # A projection fills +-half a diagonal, the detector +-detector/2 about its middle: a replica of the object one
    # period away must not reach the detector. Interpolation errors decay over a few pixels beyond the object.
    period = good_size(max(math.hypot(ny, nx) / 2 + detector / 2 + offset + 8, detector))
    beta = 1.03 * _kaiser_bessel.beatty_shape(width, oversampling)
    return _Plan(good_size(ny * oversampling), good_size(nx * oversampling), period, width, beta)


def _complex_of(dtype: jax.typing.DTypeLike) -> jnp.dtype:
    return jnp.dtype(jnp.complex128 if jnp.dtype(dtype) == jnp.float64 else jnp.complex64)


# Polar samples: where they are, what they weigh


class _Taps(NamedTuple):
    """Cells and weights of the window about each polar sample; the sample is in the half plane kx >= 0 after `sign`."""

    row: Int[Array, "view radius"]
    column: Int[Array, "view radius"]
    weight_x: Float[Array, "tap view radius"]
    weight_y: Float[Array, "tap view radius"]
    sign: Float[Array, " view"]


def _polar_taps(xp, angles: Any, frequency: Any, plan: _Plan, dtype: jax.typing.DTypeLike) -> tuple:
    """`_Taps` with `xp` = numpy (float64, then cast) or jax.numpy (traced angles)."""
    cosine, sine = xp.cos(angles), xp.sin(angles)
    sign = xp.where(cosine < 0, -1.0, 1.0).astype(cosine.dtype)
    half_width = plan.width / 2
    positions = (
        (sign * cosine)[:, None] * frequency[None, :] * plan.grid_x,
        (sign * sine)[:, None] * frequency[None, :] * plan.grid_y,
    )
    first = [xp.ceil(position - half_width) for position in positions]
    weights = []
    for position, start in zip(positions, first, strict=True):
        distance = xp.stack([position - (start + tap) for tap in range(plan.width)])
        weights.append(_window(xp, distance, plan).astype(dtype))
    row = first[0].astype(xp.int32) + plan.guard
    column = first[1].astype(xp.int32) % plan.grid_y
    return row, column, weights[0], weights[1], sign.astype(dtype)


def _window(xp, distance: Any, plan: _Plan) -> Any:
    q = xp.minimum((distance * (2 / plan.width)) ** 2, 1.0)
    if xp is np:
        return np.i0(plan.beta * np.sqrt(1 - q)) / np.i0(plan.beta)
    return _kaiser_bessel.polynomial(plan.window_polynomial(), q)


def _transfer(xp, angles: Any, frequency: Any, shape: tuple[int, int]) -> Any:
    """Bin over pixel, and the half pixel between the FFT's origin and the middle of an even axis.

    A pixel's value is the object's mean over the pixel, whose transform is already multiplied by sinc(kx) sinc(ky);
    what the detector reads is multiplied by sinc(k). At angle 0 this makes a projection the plain sum of the columns.

    The last frequency, 1/2, is left out: a real line holds only the real part of that sample, and the product of the
    operator and its transpose would be no convolution (1 % off for white noise).
    """
    frequency = frequency[None, :]
    kx, ky = xp.cos(angles)[:, None] * frequency, xp.sin(angles)[:, None] * frequency
    half_y, half_x = ((n // 2) - (n - 1) / 2 for n in shape)
    cycles = kx * half_x + ky * half_y
    size = xp.where(frequency < 0.5, _sinc(frequency) / (_sinc(kx) * _sinc(ky)), 0.0)
    return size * xp.exp(-2j * np.pi * cycles)


def _sinc(x: Any) -> Any:
    """sin(pi x)/(pi x) for |x| <= 1/2 by its series: the derivative of the quotient loses all digits near 0."""
    square, value = (np.pi * x) ** 2, 1.0
    for n in range(9, 0, -1):
        value = 1.0 - square / (2 * n * (2 * n + 1)) * value
    return value


def _on_device(values: ArrayLike, dtype: Any = None) -> Array:
    """Put NumPy numbers on the device; unlike `jnp.asarray`, nothing is compiled for that."""
    return jnp.asarray(values, dtype) if isinstance(values, jax.Array) else jax.device_put(np.asarray(values, dtype))


def _rolloff(
    shape: tuple[int, int], plan: _Plan, dtype: jax.typing.DTypeLike
) -> tuple[Float[Array, " y"], Float[Array, " x"]]:
    """Make what undoes the window in the image, separable."""
    y, x = plan.window_transform(shape[0], plan.grid_y), plan.window_transform(shape[1], plan.grid_x)
    return _on_device(1 / y, dtype), _on_device(1 / x, dtype)


# Image -> half plane -> polar samples, and the transposes written out


def _fourier_grid(images: Float[Array, "*z y x"], rolloff: tuple, plan: _Plan) -> Complex[Array, "*z row column"]:
    """Half plane kx >= 0 of the padded transform, guards mirrored, kx along the first axis."""
    ny, nx = images.shape[-2:]
    flat = images * rolloff[0].astype(images.dtype)[:, None] * rolloff[1].astype(images.dtype)
    lines = jnp.fft.rfft(flat, plan.grid_x, axis=-1) * _origin_phase(plan, nx, images.dtype)
    guard = plan.guard
    low = jnp.conj(lines[..., 1 : guard + 1][..., ::-1])
    high = jnp.conj(lines[..., -guard - 1 : -1][..., ::-1])
    half = jnp.concatenate([low, lines, high], axis=-1).mT
    # The middle row goes to index 0, so that only the x axis needs a phase.
    middle = ny // 2
    zeros = jnp.zeros((*half.shape[:-1], plan.grid_y - ny), half.dtype)
    return jnp.fft.fft(jnp.concatenate([half[..., middle:], zeros, half[..., :middle]], axis=-1), axis=-1)


def _fourier_grid_transpose(
    grid: Complex[Array, "*z row column"], rolloff: tuple, plan: _Plan, shape: tuple[int, int]
) -> Float[Array, "*z y x"]:
    ny, nx = shape
    guard, middle = plan.guard, ny // 2
    columns = jnp.fft.fft(grid, axis=-1)
    half = jnp.concatenate([columns[..., plan.grid_y - middle :], columns[..., : ny - middle]], axis=-1).mT
    lines = half[..., guard : plan.rows - guard]
    low = jnp.conj(half[..., :guard][..., ::-1])
    high = jnp.conj(half[..., plan.rows - guard :][..., ::-1])
    last = plan.grid_x // 2
    lines = lines.at[..., 1 : guard + 1].add(low).at[..., last - guard : last].add(high)
    # irfft counts the inner frequencies twice and divides by the length
    count = np.full(last + 1, plan.grid_x / 2)
    count[[0, -1]] = plan.grid_x
    scaled = jnp.conj(lines * _origin_phase(plan, nx, lines.real.dtype)) * jnp.asarray(count, lines.real.dtype)
    flat = jnp.fft.irfft(scaled, plan.grid_x, axis=-1)[..., :nx]
    return flat * rolloff[0].astype(flat.dtype)[:, None] * rolloff[1].astype(flat.dtype)


def _origin_phase(plan: _Plan, nx: int, dtype: jax.typing.DTypeLike) -> Complex[Array, " half"]:
    """Moves the origin of x from the first pixel to pixel nx // 2."""
    cycles = (np.arange(plan.grid_x // 2 + 1) * (nx // 2)) % plan.grid_x / plan.grid_x
    return jnp.asarray(np.exp(2j * np.pi * cycles), _complex_of(dtype))


def _interpolate(cells: Shaped[Array, "cell *lane"], taps: _Taps, grid_y: int) -> Shaped[Array, "view radius *lane"]:
    """Sum of the taps. One fused loop: the grid stays in cache, the tables are read once for all lanes."""
    width, lanes = taps.weight_x.shape[0], (1,) * (cells.ndim - 1)
    columns = [_wrapped(taps.column + tap, grid_y) for tap in range(width)]
    weight_x, weight_y = (w.reshape(*w.shape, *lanes) for w in (taps.weight_x, taps.weight_y))
    total = jnp.zeros((*taps.row.shape, *cells.shape[1:]), cells.dtype)
    for i in range(width):
        start = (taps.row + i) * grid_y
        line = jnp.zeros(total.shape, cells.dtype)
        for j in range(width):
            line = line + weight_y[j] * cells.at[start + columns[j]].get(mode="promise_in_bounds")
        total = total + weight_x[i] * line
    return total


def _wrapped(column: Int[Array, "..."], size: int) -> Int[Array, "..."]:
    return jnp.where(column >= size, column - size, column)


class _GatherTables(NamedTuple):
    """The transposed interpolation as gathers: for the cells of a class the samples that reach them, padded by weight
    0.

    A scatter-add would be the direct way; XLA runs it on a CPU one number after another, 7 times slower.
    """

    sample: tuple[Int[Array, "width cell"], ...]
    weight: tuple[Float[Array, "width cell"], ...]
    place: Int[Array, " cells"]  # of each cell of the grid in the joined classes; the last place holds 0


def _gather_tables(taps: _Taps, plan: _Plan, dtype: jax.typing.DTypeLike) -> _GatherTables | None:
    """The tables, or `None` where they would take too much memory."""
    if taps.row.size * plan.width**2 * (4 + jnp.dtype(dtype).itemsize) * 1.25 >= _TABLE_LIMIT:
        return None
    cell, weight = _entries(taps, plan)
    order = np.argsort(cell, kind="stable").astype(np.int32)
    degree = np.bincount(cell, minlength=plan.rows * plan.grid_y)
    first = np.cumsum(degree) - degree
    samples, weights, members = [], [], []
    widths = [w for w in _CLASS_WIDTHS if w < degree.max()] + [math.ceil(degree.max() / _CHUNK) * _CHUNK]
    for least, width in zip([0, *widths[:-1]], widths, strict=True):
        cells = np.nonzero((degree > least) & (degree <= width))[0]
        if cells.size == 0:
            continue
        slot = np.arange(width)[:, None]
        used = slot < degree[cells]
        entry = order[first[cells] + np.minimum(slot, degree[cells] - 1)]
        samples.append(_on_device(entry // plan.width**2, np.int32))
        weights.append(_on_device(np.where(used, weight[entry], 0), dtype))
        members.append(cells)
    joined = np.concatenate(members)
    place = np.full(degree.size, joined.size, np.int32)
    place[joined] = np.arange(joined.size)
    return _GatherTables(tuple(samples), tuple(weights), _on_device(place))


def _entries(taps: _Taps, plan: _Plan) -> tuple[np.ndarray, np.ndarray]:
    """Cell and weight of every tap of every sample, sample by sample."""
    tap = np.arange(plan.width, dtype=np.int32)
    row = np.asarray(taps.row).reshape(-1, 1, 1) + tap[:, None]
    column = (np.asarray(taps.column).reshape(-1, 1, 1) + tap) % plan.grid_y
    weight_x, weight_y = (np.asarray(w).reshape(plan.width, -1).T for w in (taps.weight_x, taps.weight_y))
    weight = weight_x[:, :, None] * weight_y[:, None, :]
    return (row * plan.grid_y + column).reshape(-1), weight.reshape(-1)


def _gather_transpose(samples: Shaped[Array, "sample *lane"], tables: _GatherTables) -> Shaped[Array, "cell *lane"]:
    lanes = (1,) * (samples.ndim - 1)
    dtype = samples.real.dtype

    def taps(index: Int[Array, "width cell"], weight: Float[Array, "width cell"]) -> Array:
        weight = weight.astype(dtype).reshape(*weight.shape, *lanes)
        terms = (w * samples.at[i].get(mode="promise_in_bounds") for i, w in zip(index, weight, strict=True))
        return sum(terms, jnp.zeros((), samples.dtype))

    def chunks(index: Int[Array, "width cell"], weight: Float[Array, "width cell"]) -> Array:
        if index.shape[0] <= 2 * _CHUNK:
            return taps(index, weight)
        parts = tuple(a.reshape(-1, _CHUNK, a.shape[1]) for a in (index, weight))
        empty = jnp.zeros((index.shape[1], *samples.shape[1:]), samples.dtype)
        return lax.scan(lambda total, part: (total + taps(*part), None), empty, parts)[0]

    sums = [chunks(index, weight) for index, weight in zip(tables.sample, tables.weight, strict=True)]
    joined = jnp.concatenate([*sums, jnp.zeros((1, *samples.shape[1:]), samples.dtype)])
    return joined.at[tables.place].get(mode="promise_in_bounds")


def _scatter_transpose(samples: Shaped[Array, "sample *lane"], taps: _Taps, plan: _Plan) -> Shaped[Array, "cell *lane"]:
    cells = jax.ShapeDtypeStruct((plan.rows * plan.grid_y, *samples.shape[1:]), samples.dtype)
    of_views = samples.reshape(*taps.row.shape, *samples.shape[1:])
    return jax.linear_transpose(lambda g: _interpolate(g, taps, plan.grid_y), cells)(of_views)[0]


# Several slices share the tables: their real and imaginary parts lie side by side, as the last axis of real arrays.


def _lanes(values: Complex[Array, "..."], axis: int) -> Shaped[Array, "..."]:
    """The slices along `axis` -> lanes, the last axis; a single slice stays complex and has none."""
    if values.shape[axis] == 1:
        return jnp.squeeze(values, axis)
    return jnp.moveaxis(jnp.concatenate([values.real, values.imag], axis), axis, -1)


def _from_lanes(lanes: Shaped[Array, "..."], axis: int) -> Complex[Array, "..."]:
    if jnp.iscomplexobj(lanes):
        return jnp.expand_dims(lanes, axis)
    return lax.complex(*jnp.split(jnp.moveaxis(lanes, -1, axis), 2, axis))


def _in_blocks(function: Callable[[Array], Array], stack: Array, size: int, axis: int, made: int) -> Array:
    """`function` of the slices along `axis`, `size` at most at a time; its result has them along axis `made`."""
    count = stack.shape[axis]
    blocks = math.ceil(count / size)
    if blocks == 1:
        return function(stack)
    size = math.ceil(count / blocks)
    missing = [(0, blocks * size - count if a == axis else 0) for a in range(stack.ndim)]
    padded = jnp.pad(stack, missing) if blocks * size > count else stack
    split = padded.reshape(*stack.shape[:axis], blocks, size, *stack.shape[axis + 1 :])
    done = jnp.moveaxis(lax.map(function, jnp.moveaxis(split, axis, 0)), 0, made)
    joined = done.reshape(*done.shape[:made], blocks * size, *done.shape[made + 2 :])
    return lax.slice_in_dim(joined, 0, count, axis=made)


def _one_by_one(function: Callable[[Array], Array], stack: Array) -> Array:
    """On a CPU one slice after another, whose grid stays in the cache (half the time, measured); elsewhere together."""
    if stack.shape[0] == 1 or jax.default_backend() != "cpu":
        return function(stack)
    return lax.map(function, stack)


def _block_size(plan: _Plan, dtype: jax.typing.DTypeLike) -> int:
    """Slices at a time: as many as fill a cache line, as far as their grids take little memory."""
    grid = plan.rows * plan.grid_y * _complex_of(dtype).itemsize
    most = _BLOCK if jax.default_backend() == "cpu" else 2 * _BLOCK
    return max(1, min(most, _BLOCK_BYTES // grid))


# The operator


def _spectrum(
    A: ParallelProjector, stack: Float[Array, "z y x"], views: Array | None
) -> Complex[Array, "view z radius"]:
    """Polar samples of the slices, with the hand-written transpose attached for reverse mode."""
    leaves, tree = jax.tree.flatten(lax.stop_gradient((A.taps, A.tables, A.rolloff, views)))
    job = _Job(A.plan, A.shape, A.angles.shape[0], tree)
    return _samples_p.bind(*leaves, stack, job=job, transposed=False)


class _Job(NamedTuple):
    """What the primitive below has to know beside its arrays."""

    plan: _Plan
    shape: tuple[int, int]
    views: int
    tree: Any


def _sample_slices(*arrays: Array, job: _Job, transposed: bool) -> Array:
    """Slices -> polar samples or, `transposed`, back; the last array is the stack, the others are the tables."""
    taps, tables, rolloff, views = jax.tree.unflatten(job.tree, arrays[:-1])
    stack, plan = arrays[-1], job.plan
    unfused = partial(_unfused, flag=taps.row[0, 0])
    picked = _picked(taps, views, stack.real.dtype)
    size = _block_size(plan, stack.real.dtype)

    def forward(images: Float[Array, "z y x"]) -> Complex[Array, "view z radius"]:
        cells = _lanes(_one_by_one(lambda image: _fourier_grid(image, rolloff, plan), images), 0)
        cells = cells.reshape(-1, *cells.shape[2:])
        return _from_lanes(unfused(partial(_interpolate, taps=picked, grid_y=plan.grid_y), x=cells), 1)

    if not transposed:
        return _in_blocks(forward, stack, size, 0, 1)
    if tables is None or (views is not None and 8 * views.shape[0] < job.views):
        to_cells = partial(_scatter_transpose, taps=picked, plan=plan)
    else:
        to_cells = partial(_gather_transpose, tables=tables)
        stack = stack if views is None else _all_views(stack, views, job.views)

    def back(samples: Complex[Array, "view z radius"]) -> Float[Array, "z y x"]:
        flat = _lanes(samples, 1)
        cells = unfused(to_cells, x=flat.reshape(-1, *flat.shape[2:]))
        grid = _from_lanes(cells.reshape(plan.rows, plan.grid_y, *cells.shape[1:]), 0)
        return _one_by_one(lambda one: _fourier_grid_transpose(one, rolloff, plan, job.shape), grid)

    return _in_blocks(back, stack, size, 1, 0)


def _picked(taps: _Taps, views: Array | None, dtype: jax.typing.DTypeLike) -> _Taps:
    taps = _Taps(taps.row, taps.column, *(w.astype(dtype) for w in taps[2:]))
    if views is None:
        return taps
    row, column, sign = taps.row[views], taps.column[views], taps.sign[views]
    return _Taps(row, column, taps.weight_x[:, views], taps.weight_y[:, views], sign)


# A primitive, because a linear function with its own transpose that can also be pushed forward and batched is not to
# be had from custom_vjp (no forward mode) or linear_call (no vmap). Linear in its last argument; the tables get no
# gradient.

_samples_p = Primitive("parallel_projection_samples")
_samples_p.def_impl(_sample_slices)
mlir.register_lowering(_samples_p, mlir.lower_fun(_sample_slices, multiple_results=False))


@_samples_p.def_abstract_eval
def _samples_shape(*arrays, job: _Job, transposed: bool):
    dtype = arrays[-1].dtype
    if transposed:
        return ShapedArray((arrays[-1].shape[1], *job.shape), jnp.finfo(dtype).dtype)
    views = jax.tree.unflatten(job.tree, arrays[:-1])[3]
    count = job.views if views is None else views.shape[0]
    return ShapedArray((count, arrays[-1].shape[0], job.plan.period // 2 + 1), _complex_of(dtype))


def _samples_jvp(primals, tangents, **job):
    tangent = ad.instantiate_zeros(tangents[-1])
    return _samples_p.bind(*primals, **job), _samples_p.bind(*primals[:-1], tangent, **job)


def _samples_transpose(cotangent, *arrays, job: _Job, transposed: bool):
    back = _samples_p.bind(*arrays[:-1], cotangent, job=job, transposed=not transposed)
    return [None] * (len(arrays) - 1) + [back]


def _samples_batch(arrays, axes, *, transposed, **job):
    bind = partial(_samples_p.bind, transposed=transposed, **job)
    if any(axis is not None for axis in axes[:-1]):
        moved = [a if axis is None else jnp.moveaxis(a, axis, 0) for a, axis in zip(arrays, axes, strict=True)]
        mapped = [axis is not None for axis in axes]

        def one(some):
            rest = iter(some)
            return bind(*(next(rest) if m else a for a, m in zip(moved, mapped, strict=True)))

        return lax.map(one, [a for a, m in zip(moved, mapped, strict=True) if m]), 0
    # Slices are along axis 0 of volumes and along axis 1 of samples: the batch joins them there.
    axis, made = (1, 0) if transposed else (0, 1)
    stack = jnp.moveaxis(arrays[-1], axes[-1], axis)
    shape, batch = stack.shape, stack.shape[axis : axis + 2]
    joined = bind(*arrays[:-1], stack.reshape(*shape[:axis], -1, *shape[axis + 2 :]))
    return joined.reshape(*joined.shape[:made], *batch, *joined.shape[made + 1 :]), made


ad.primitive_jvps[_samples_p] = _samples_jvp
ad.primitive_transposes[_samples_p] = _samples_transpose
batching.primitive_batchers[_samples_p] = _samples_batch


def _all_views(samples: Complex[Array, "batch z radius"], views: Array, total: int) -> Complex[Array, "view z radius"]:
    return jnp.zeros((total, *samples.shape[1:]), samples.dtype).at[views].add(samples)


def _unfused(function: Callable[[Array], Array], x: Array, flag: Int[Array, ""]) -> Array:
    """`function(x)` with x in memory and its result too.

    XLA's fusion would evaluate whatever made x anew in each of the gathers from it (4 times the time, measured; an
    optimisation barrier is gone before that stage). A branch on a number that only we know (flag >= 0) cannot be fused.
    """
    result = jax.eval_shape(function, x)
    return lax.cond(flag >= 0, function, lambda _: jnp.zeros(result.shape, result.dtype), x)


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


# The Toeplitz product


def _toeplitz_spectrum(
    angles: np.ndarray, weight: np.ndarray, A: ParallelProjector, width: int
) -> Float[Array, "kx ky"]:
    """Transform of the kernel sum_v w_v int |transfer|^2 exp(2 pi i k d.n_v) dk at whole distances |d| < shape.

    The polar samples are spread on the grid of an image of twice the size (its kernel reaches as far), in float64.
    Frequencies as `_convolve_one` has them: (4 k + 1) / (4 mx) along x, k / my along y; divided by mx my.
    """
    ny, nx = A.shape
    plan = _plan((2 * ny, 2 * nx), A.plan.period, 0.0, width, 2.0)
    plan = plan._replace(period=A.plan.period)
    frequency = np.arange(plan.period // 2 + 1) / plan.period
    count = half_plane_weights(plan.period) / plan.period
    strength = np.abs(_transfer(np, angles, frequency, A.shape)) ** 2 * count * weight[:, None]
    row, column, weight_x, weight_y, _ = _polar_taps(np, angles, frequency, plan, np.float64)
    grid = np.zeros(plan.rows * plan.grid_y)
    for i in range(width):
        for j in range(width):
            cell = (row + i) * plan.grid_y + (column + j) % plan.grid_y
            grid += np.bincount(cell.ravel(), (weight_x[i] * weight_y[j] * strength).ravel(), minlength=grid.size)
    kernel = _real_plane_transform(grid.reshape(plan.rows, plan.grid_y), plan)
    y, x = np.arange(-ny, ny), np.arange(-nx, nx)
    kernel = kernel[np.ix_(x % plan.grid_x, y % plan.grid_y)]
    kernel /= plan.window_transform(2 * nx, plan.grid_x)[:, None] * plan.window_transform(2 * ny, plan.grid_y)
    mx, my = _unstrided_size(nx), _unstrided_size(2 * ny - 1)
    folded = np.zeros((mx, my), complex)
    turned = kernel[1:, 1:] * _quarter_twist(mx, x[1:])[:, None]
    np.add.at(folded, np.ix_(x[1:] % mx, y[1:] % my), turned)
    return jnp.asarray(np.fft.fft2(folded).real / folded.size, A.centre.dtype)


def _real_plane_transform(grid: np.ndarray, plan: _Plan) -> np.ndarray:
    """Re sum over the guarded half plane of grid exp(2 pi i cell.d), (grid_x, grid_y)."""
    full = np.zeros((plan.grid_x, plan.grid_y))
    np.add.at(full, np.arange(-plan.guard, plan.rows - plan.guard) % plan.grid_x, grid)
    return np.fft.fft2(full).real


def _convolve_one(spectrum: Array, image: Float[Array, "y x"], shape: tuple[int, int]) -> Float[Array, "y x"]:
    """Convolution with a real, point-symmetric kernel.

    Real lines of length n, to be padded to 2n, are transformed as n complex numbers, multiplied by
    exp(-i pi x / 2n): the frequencies (4k + 1) / 4n, of which the others are conjugates. Only forward transforms:
    the inverse is the conjugate of the transform of the conjugate.
    """
    ny, nx = shape
    mx, my = spectrum.shape
    twist = jnp.asarray(_quarter_twist(mx, np.arange(nx)), _complex_of(image.dtype))
    columns = jnp.fft.fft(jnp.fft.fft(image * twist, mx, axis=1).T, my, axis=1)
    product = jnp.conj(columns) * spectrum.astype(image.dtype)
    back = jnp.fft.fft(product, axis=1)[:, :ny].T
    return (jnp.fft.fft(back, axis=1)[:, :nx] * twist).real


def _quarter_twist(size: int, x: np.ndarray) -> Complex[np.ndarray, " x"]:
    return np.exp(-0.5j * np.pi * x / size)


def _unstrided_size(least: int) -> int:
    """A size of fast transforms whose rows do not share cache sets: transposing rows of 1024 numbers costs as much as
    their transforms."""
    n = least
    while n % 64 == 0 or not is_smooth(n, (2, 3, 5, 7, 11)):
        n += 1
    return n


@eqx.filter_jit
def _convolve(spectrum: Array, stack: Float[Array, "z y x"], shape: tuple[int, int]) -> Float[Array, "z y x"]:
    """One slice after another on a CPU, whose cache holds one; sixteen at a time elsewhere."""
    if stack.shape[0] == 1:
        return _convolve_one(spectrum, stack[0], shape)[None]
    batch = None if jax.default_backend() == "cpu" else 16
    return lax.map(lambda image: _convolve_one(spectrum, image, shape), stack, batch_size=batch)


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

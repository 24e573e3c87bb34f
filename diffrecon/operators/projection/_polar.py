"""Polar samples of a slice's transform: where they are, what they weigh, the grid that they are read from."""

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Complex, Float, Int, Shaped
from numpy.typing import ArrayLike

from .. import _kaiser_bessel
from .._rows import take_rows
from ..fourier import good_size


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
            line = line + weight_y[j] * take_rows(cells, start + columns[j])
        total = total + weight_x[i] * line
    return total


def _wrapped(column: Int[Array, "..."], size: int) -> Int[Array, "..."]:
    return jnp.where(column >= size, column - size, column)

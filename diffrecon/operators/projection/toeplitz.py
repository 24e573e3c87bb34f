"""The product of a parallel projector with its transpose as a convolution."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Complex, Float

from ...errors import InputError
from ..fourier import half_plane_weights, is_smooth
from ._polar import _complex_of, _Plan, _plan, _polar_taps, _transfer

__all__ = ["ToeplitzNormal"]


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


# The Toeplitz product
def _toeplitz_spectrum(angles: np.ndarray, weight: np.ndarray, A: Any, width: int) -> Float[Array, "kx ky"]:
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

"""A periodic field of a fine grid on the pixels of a detector: magnified, shifted, rotated, blurred, integrated.

The detector keeps its own pixels. Frames are not resampled to compare them with a model; the model is integrated over
each pixel instead, so that noise stays where it was measured and every number of the geometry can be an unknown.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from .fourier import gaussian

__all__ = ["cubic_matrix", "pixel_matrix", "rotate_periodic", "to_pixels"]


def pixel_matrix(
    count: int,
    size: int,
    *,
    ratio: Any,
    shift: Any = 0.0,
    stretch: Any = 1.0,
    blur: Any = 0.0,
    centre: float | None = None,
    dtype: Any = jnp.float32,
) -> Float[Array, "count size"]:
    """Matrix that integrates a periodic field of `size` samples over `count` detector pixels along one axis.

    Row i is the trigonometric interpolation at `centre + ratio ((i - (count-1)/2) stretch - shift)`, times the pixel's
    box and a Gaussian blur (a sinc and a Gaussian in Fourier space). Every row adds up to one.

    **Arguments:** `ratio` of the detector pixel to the grid's, one number or an array entry picked by a traced
    index; `shift` of the picture towards larger i [detector pixel]; `stretch`, about 1, corrects the magnification;
    `blur`, standard deviation [detector pixel]; `centre` [grid sample], `(size-1)/2` by default. All but `centre`
    may be traced, and are differentiable.

    **Cost:** `count` FFTs of length `size`, and as many sines.

    ```python
    rows = pixel_matrix(8, 32, ratio=2.0)
    assert jnp.allclose(rows @ jnp.ones(32), 1.0, atol=1e-5)
    ```
    """
    centre = (size - 1) / 2 if centre is None else centre
    places = np.arange(count) - (count - 1) / 2
    k = np.arange(size // 2 + 1)
    traced = any(isinstance(v, jax.Array) for v in (ratio, shift, stretch, blur))
    lib = jnp if traced else np
    real = dtype if traced else float
    as_real = lambda v: lib.asarray(v, real)
    ratio, shift, stretch, blur = (as_real(v) for v in (ratio, shift, stretch, blur))
    # The position in whole and broken samples: whole ones times whole frequencies are reduced to one turn in integers,
    # so that float32 keeps its digits on any grid.
    start = int(np.rint(centre))
    offset = ratio * (as_real(places) * stretch - shift) + (centre - start)
    whole = jax.lax.stop_gradient(jnp.rint(offset)) if traced else np.rint(offset)
    rest = offset - whole
    whole = (whole.astype(np.int32) + start) % size
    turns = ((whole[:, None] * k) % size + rest[:, None] * k) / size
    f = as_real(k / size) * ratio
    # Without the Nyquist term, whose sign depends on the side one comes from.
    transfer = lib.sinc(f) * gaussian(f, blur) * (k < size / 2)
    angle = 2 * np.pi * turns
    # irfft makes sum_k cos(2 pi k (x_i - X_m) / size) out of exp(-2 pi i k x_i / size).
    if traced:
        return jnp.fft.irfft(jax.lax.complex(jnp.cos(angle) * transfer, -jnp.sin(angle) * transfer), n=size, axis=1)
    return jnp.asarray(np.fft.irfft(np.exp(-1j * angle) * transfer, n=size, axis=1), dtype)


def cubic_matrix(size: int, count: int, ratio: float, shift: float = 0.0) -> Float[np.ndarray, "size count"]:
    """Make the matrix of cubic convolution (Keys 1981) from `count` pixels to `size` pixels about the same centre.

    The former lie at `(i - (count-1)/2 - shift) / ratio` in units of the latter: `shift` [pixel] moves the picture
    towards larger indices. Nothing lies beyond the border.

    ```python
    assert np.allclose(cubic_matrix(8, 8, 1.0), np.eye(8))
    ```
    """
    place = (np.arange(size) - (size - 1) / 2) * ratio + (count - 1) / 2 + shift
    d = np.abs(place[:, None] - np.arange(count)[None])
    return np.where(d < 1, 1.5 * d**3 - 2.5 * d**2 + 1, np.where(d < 2, -0.5 * d**3 + 2.5 * d**2 - 4 * d + 2, 0))


def to_pixels(
    image: Float[Array, "*batch Y X"], rows: Float[Array, "y Y"], columns: Float[Array, "x X"]
) -> Float[Array, "*batch y x"]:
    """A field of the grid on the detector: `rows @ image @ columns.T`.

    ```python
    frame = to_pixels(jnp.ones((32, 32)), pixel_matrix(8, 32, ratio=2.0), pixel_matrix(10, 32, ratio=2.0))
    assert frame.shape == (8, 10)
    ```
    """
    return jnp.matmul(jnp.matmul(rows, image, precision="highest"), columns.T, precision="highest")


def rotate_periodic(image: Float[Array, "Y X"], angle: Any) -> Float[Array, "Y X"]:
    """A periodic field turned by a small angle [rad] about the centre of the grid, from the columns' axis towards the
    rows' one: three shears in Fourier space, without interpolation (Unser, Thevenaz & Yaroslavsky 1995).

    What the shears carry over the border comes in on the other side: for fields that are even there.

    **Cost:** six passes of 1-D FFTs.

    ```python
    turned = rotate_periodic(jnp.ones((16, 16)), 0.01)
    assert jnp.allclose(turned, 1.0, atol=1e-5)
    ```
    """
    angle = jnp.asarray(angle, image.dtype)
    turned = _shear(image, jnp.tan(angle / 2), 1)
    turned = _shear(turned, -jnp.sin(angle), 0)
    return _shear(turned, jnp.tan(angle / 2), 1)


def _shear(image: Array, slope: Array, axis: int) -> Array:
    """`image` with each line along `axis` read `slope` times its distance from the centre further on."""
    size, lines = image.shape[axis], image.shape[1 - axis]
    k = np.fft.rfftfreq(size)
    keep = jnp.asarray(k < 0.5, image.dtype)
    distance = jnp.asarray(np.arange(lines) - (lines - 1) / 2, image.dtype)
    ramp = jnp.asarray(2 * np.pi * k, image.dtype)
    phase = (slope * distance)[:, None] * ramp if axis == 1 else ramp[:, None] * (slope * distance)[None, :]
    keep = keep[None, :] if axis == 1 else keep[:, None]
    spectrum = jnp.fft.rfft(image, axis=axis) * keep * jnp.exp(1j * phase)
    return jnp.fft.irfft(spectrum, n=size, axis=axis)

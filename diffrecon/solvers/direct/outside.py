"""What direct methods assume of pixels that nobody measured, beyond the image and under a mask, and the transforms that
go with it.

A Fourier filter needs an image that goes on for ever. `outside` says how; images are contrasts (0 is the empty beam):

- `"vacuum"`: the sample ends within the image and its phase is zero on the border. The contrast goes on with reversed
  sign, which is a sine transform. It forbids the slow waves of noise across the whole image that other continuations
  let through.
- `"mirror"`: the contrast goes on by reflection, a cosine transform. Nothing is assumed of its level and there is no
  step, but structure is invented.
- `"smooth"`: the contrast goes on with means of the nearest pixels, over larger areas the farther away, in a field
  twice as wide: neither a step nor a streak of a single noisy pixel.
- `"unmeasured"` (`ctf` and `ict` only): no value at all, in a field twice as wide. The linear model is fitted to the
  measured pixels alone.

Repeating the border pixels is not offered: their noise becomes streaks without end, which a high delta/beta amplifies
to errors of several hundred per cent.

Spectra are TRANSPOSED, `(..., x frequency, y frequency)`: the second pass of a transform wants columns that lie
together. Those of the sine and cosine transforms are real and have the shape of the image.
"""

import math
from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Inexact

from ...errors import InputError, nearest
from ...operators.fourier import good_size

__all__ = ["OUTSIDE", "extended", "filled", "frequencies", "from_spectrum", "grid", "measured", "pixels_of", "spectrum"]

OUTSIDE = ("vacuum", "mirror", "smooth", "unmeasured")
_REAL = ("vacuum", "mirror")  # transforms of the image alone


def grid(shape: Sequence[int], outside: str) -> tuple[int, int]:
    """Shape of the field that is transformed: the image itself or, where it is padded, at least twice that."""
    if outside not in OUTSIDE:
        raise InputError(
            f"outside = {outside!r} is not known: give one of {', '.join(OUTSIDE)}{nearest(str(outside), OUTSIDE)}"
        )
    rows, columns = shape
    if outside in _REAL:
        return rows, columns
    return _size(2 * rows, outside == "smooth"), _size(2 * columns, outside == "smooth")


def _size(least: int, halved: bool) -> int:
    """The next good size; `halved`: the next product of at most 15 and a power of two."""
    if not halved:
        return good_size(least)
    return min(2 * odd * 2 ** max(math.ceil(math.log2(least / (2 * odd))), 0) for odd in (1, 3, 5, 9, 15))


def extended(contrast: Float[Array, "... y x"], shape: tuple[int, int], outside: str) -> Float[Array, "... Y X"]:
    """The contrast continued to the field that is transformed, periodic; it stays in the corner (0, 0)."""
    if outside in _REAL:
        return contrast
    padded = jnp.pad(contrast, _border(contrast, shape))
    if outside == "unmeasured":
        return padded
    inside = jnp.ones(contrast.shape[-2:], bool)
    return _pyramid(padded, jnp.pad(inside, _border(inside, shape)))


def measured(mask: Bool[Array, "... y x"], shape: tuple[int, int], outside: str, dtype: Any) -> Float[Array, "... Y X"]:
    """1 where the extended contrast has a value, 0 where it has none; at least three axes."""
    mask = mask.reshape((1,) * (3 - mask.ndim) + mask.shape).astype(dtype)
    return jnp.pad(mask, _border(mask, shape), constant_values=0 if outside == "unmeasured" else 1)


def _border(image: Array, shape: tuple[int, int]) -> list[tuple[int, int]]:
    return [(0, 0)] * (image.ndim - 2) + [(0, n - k) for n, k in zip(shape, image.shape[-2:], strict=True)]


def filled(image: Float[Array, "... y x"], mask: Bool[Array, "... y x"]) -> Float[Array, "... y x"]:
    """Pixels that are False in the mask replaced by means of their surroundings, over larger areas in larger gaps.

    **Cost:** about five passes over the image.
    """
    *_, rows, columns = image.shape
    border = _border(image, (_size(rows, True), _size(columns, True)))
    return _pyramid(jnp.pad(image, border), jnp.pad(jnp.broadcast_to(mask, image.shape), border))[..., :rows, :columns]


def _pyramid(image: Array, mask: Array) -> Array:
    """Pixels without a value from a pyramid of images that are halved in size.

    Every level takes over the means of the measured pixels below it and passes them back up by linear interpolation
    (Gortler et al., The Lumigraph, 1996, section 3.4); periodic.
    """
    weight = jnp.broadcast_to(mask, image.shape).astype(image.dtype)
    return _filled(jnp.where(weight > 0, image, 0), weight)


def _filled(value: Array, weight: Array) -> Array:
    """`value`, where the weight is 0 from coarser levels, between 0 and 1 a mixture."""
    rows, columns = value.shape[-2:]
    if rows % 2 or columns % 2 or min(rows, columns) <= 4:
        total = jnp.sum(weight, (-2, -1), keepdims=True)
        mean = jnp.sum(value * weight, (-2, -1), keepdims=True) / jnp.maximum(total, 1e-6)
        return weight * value + (1 - weight) * mean
    seen = _halved(weight)
    coarse = _filled(_halved(value * weight) / jnp.maximum(seen, 1e-6), jnp.minimum(1, 4 * seen))
    return weight * value + (1 - weight) * _doubled(_doubled(coarse, -1), -2)


def _halved(image: Array) -> Array:
    *lead, rows, columns = image.shape
    return jnp.mean(image.reshape(*lead, rows // 2, 2, columns // 2, 2), (-3, -1))


def _doubled(image: Array, axis: int) -> Array:
    """Linear interpolation along an axis to twice the pixels, periodic."""
    axis = image.ndim + axis
    before, after = (0.75 * image + 0.25 * jnp.roll(image, step, axis) for step in (1, -1))
    twice = (*image.shape[:axis], 2 * image.shape[axis], *image.shape[axis + 1 :])
    return jnp.stack([before, after], axis + 1).reshape(twice)


# ---------------------------------------------------------------------------------------------- transforms
def frequencies(shape: tuple[int, int], outside: str) -> tuple[np.ndarray, np.ndarray]:
    """Frequencies of the rows and of the columns of a spectrum [cycles/pixel], float64."""
    if outside == "vacuum":  # falling: see `_cosine`
        rows, columns = ((n - np.arange(n)) / (2 * n) for n in shape)
        return rows, columns
    if outside == "mirror":
        return np.arange(shape[0]) / (2 * shape[0]), np.arange(shape[1]) / (2 * shape[1])
    return np.fft.fftfreq(shape[0]), np.fft.rfftfreq(shape[1])


def pixels_of(image: Sequence[int], outside: str) -> float:
    """Variance of a spectrum's coefficients for noise of variance 1 in every pixel of an image of this shape."""
    return image[0] * image[1] / (4 if outside in _REAL else 1)


def spectrum(image: Float[Array, "... Y X"], outside: str) -> Inexact[Array, "... kx ky"]:
    """The transform of an extended contrast."""
    if outside not in _REAL:
        return jnp.fft.fft(jnp.swapaxes(jnp.fft.rfft(image), -1, -2))
    return _cosine(jnp.swapaxes(_cosine(image, outside), -1, -2), outside)


def from_spectrum(
    values: Inexact[Array, "... X Y"], shape: tuple[int, int], outside: str, crop: Sequence[int]
) -> Float[Array, "... y x"]:
    """The inverse, cropped; rows that are not wanted are not transformed."""
    if outside not in _REAL:
        rows = jnp.swapaxes(jnp.fft.ifft(values)[..., : crop[0]], -1, -2)
        return jnp.fft.irfft(rows, n=shape[1])[..., : crop[1]]
    return _inverse_cosine(jnp.swapaxes(_inverse_cosine(values, outside), -1, -2), outside)


def _cosine(values: Array, outside: str) -> Array:
    """`sum_n x_n cos(pi (n + 1/2) k / N)` along the last axis, by one FFT of N values (Makhoul, IEEE Trans. ASSP 28, 27
    (1980)). For vacuum `sum_n x_n sin(pi (n + 1/2) (N - k) / N)`: the same with every other sign of x reversed.
    """
    n = values.shape[-1]
    values = values * _signs(n, outside, values.dtype)
    ordered = jnp.concatenate([values[..., 0::2], values[..., 1::2][..., ::-1]], -1)
    turned = jnp.fft.rfft(ordered) * _twist(n, values.dtype)
    return jnp.concatenate([turned.real, -turned.imag[..., 1 : (n + 1) // 2][..., ::-1]], -1)


def _inverse_cosine(values: Array, outside: str) -> Array:
    n = values.shape[-1]
    half = n // 2 + 1
    odd = jnp.concatenate([jnp.zeros_like(values[..., :1]), values[..., ::-1][..., : half - 1]], -1)
    ordered = jnp.fft.irfft((values[..., :half] - 1j * odd) * jnp.conj(_twist(n, values.dtype)), n=n)
    even, reversed_odd = ordered[..., : (n + 1) // 2], ordered[..., (n + 1) // 2 :][..., ::-1]
    missing = [(0, 0)] * (values.ndim - 1) + [(0, n % 2)]
    pairs = jnp.stack([even, jnp.pad(reversed_odd, missing)], -1)
    return pairs.reshape(*values.shape[:-1], -1)[..., :n] * _signs(n, outside, values.dtype)


def _signs(n: int, outside: str, dtype: Any) -> Any:
    return jnp.asarray(1 - 2 * (np.arange(n) % 2), dtype) if outside == "vacuum" else 1


def _twist(n: int, dtype: Any) -> Array:
    turns = np.exp(-0.5j * np.pi * np.arange(n // 2 + 1) / n)
    return jnp.asarray(turns, jnp.complex128 if dtype == jnp.float64 else jnp.complex64)

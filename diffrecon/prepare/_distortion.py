"""Lens distortion of the detector, undone by a map that says where in the frame each straight pixel lies."""

from collections.abc import Sequence
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ..errors import InputError

__all__ = ["check_distortion", "radial_distortion", "undistort"]


def radial_distortion(
    shape: tuple[int, int], centre: tuple[float, float], coefficients: Sequence[float]
) -> Float[np.ndarray, "2 y x"]:
    """Map of radial distortion: the straight pixel at distance r from `centre` lies in the frame at
    `r (k0 + k1 r + k2 r^2 + ...)` in the same direction (N. T. Vo et al., Opt. Express 23, 32859 (2015), eq. 4: the
    backward model).

    **Arguments:** `shape` (y, x) of the detector; `centre` (row, column) [pixel index]; `coefficients` k0 (about 1),
    k1 [1/pixel], k2 [1/pixel^2] ...

    ```python
    where = radial_distortion((64, 64), (31.5, 31.5), (1.0, 0.0, 1e-6))
    ```
    """
    k = np.asarray(coefficients, float).ravel()
    if not k.size or not np.isfinite(k).all() or not 0.5 < k[0] < 2:
        raise InputError(f"distortion coefficients {list(coefficients)}: the first is a magnification near 1")
    y, x = np.meshgrid(*(np.arange(n) - c for n, c in zip(shape, centre, strict=True)), indexing="ij")
    factor = np.polyval(k[::-1], np.hypot(y, x))
    return np.stack([centre[0] + y * factor, centre[1] + x * factor])


def check_distortion(where: Float[np.ndarray, "2 y x"], shape: tuple[int, int]) -> Float[np.ndarray, "2 y x"]:
    """A usable map of the detector.

    **Raises:** `InputError` for a wrong shape, values that are not finite, a map that leaves the detector altogether.
    """
    where = np.asarray(where, float)
    if where.shape != (2, *shape):
        raise InputError(
            f"prepare.distortion has shape {where.shape}; expected {(2, *shape)}: for every pixel the row "
            "and the column [pixel] in the frame where it lies"
        )
    if not np.isfinite(where).all():
        raise InputError("prepare.distortion has entries that are not finite")
    inside = [(w >= -1) & (w <= n) for w, n in zip(where, shape, strict=True)]
    if np.mean(inside[0] & inside[1]) < 0.5:
        raise InputError(
            "prepare.distortion sends most pixels outside the detector; it holds pixel indices, not shifts"
        )
    return where


@partial(jax.jit, static_argnames=("order",))
def undistort(
    frames: Float[Array, "view y x"], where: Float[Array, "2 row column"], *, order: int = 3
) -> Float[Array, "view row column"]:
    """Frames resampled at the places `where` (row, column) [pixel]; beyond the edge the edge.

    **Arguments:** `order` 1 = bilinear, 3 = cubic convolution (R. G. Keys, IEEE Trans. ASSP 29, 1153 (1981), a = -1/2),
    which keeps fine detail better.

    **Cost:** 4 or 16 gathers a pixel.
    """
    height, width = frames.shape[-2:]
    whole = jnp.floor(where)
    rest = where - whole
    taps = (0, 1) if order == 1 else (-1, 0, 1, 2)
    weight = _linear if order == 1 else _keys
    base = whole.astype(jnp.int32)
    total = jnp.zeros((frames.shape[0], *where.shape[1:]), frames.dtype)
    for i in taps:
        row = jnp.clip(base[0] + i, 0, height - 1)
        for j in taps:
            column = jnp.clip(base[1] + j, 0, width - 1)
            share = weight(rest[0] - i) * weight(rest[1] - j)
            total = total + frames[:, row, column] * share.astype(frames.dtype)
    return total


def _linear(distance: Array) -> Array:
    return jnp.maximum(1 - jnp.abs(distance), 0)


def _keys(distance: Array) -> Array:
    d = jnp.abs(distance)
    near = (1.5 * d - 2.5) * d * d + 1
    far = ((-0.5 * d + 2.5) * d - 4) * d + 2
    return jnp.where(d <= 1, near, jnp.where(d < 2, far, 0))

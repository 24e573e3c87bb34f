"""Filtered back-projection of parallel-beam sinograms."""

import math

import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Float
from numpy.typing import ArrayLike

from ..errors import InputError
from ..operators.projection import ParallelProjector

__all__ = ["angle_weights", "fbp", "ramp_filter"]

_WEDGE = 15  # times the usual gap between views: a missing wedge (random angles have gaps of up to eight)
_WINDOWS = {
    "ramp": lambda f: np.ones_like(f),
    "shepp-logan": lambda f: np.sinc(f),
    "cosine": lambda f: np.cos(np.pi * f),
    "hamming": lambda f: 0.54 + 0.46 * np.cos(2 * np.pi * f),
    "hann": lambda f: 0.5 + 0.5 * np.cos(2 * np.pi * f),
}


def fbp(
    A: ParallelProjector,
    sinogram: Float[Array, "view *z u"],
    *,
    filter: str = "ramp",
    pad: str = "zero",
    weights: ArrayLike | None = None,
) -> Float[Array, "*z y x"]:
    """Filtered back-projection, [sinogram unit / pixel]: line integrals in, values per pixel out.

    **Arguments:**

    - `sinogram`: line integrals (-log of the transmission), (view, u) or (view, z, u).
    - `filter`: `"ramp"`, `"shepp-logan"`, `"cosine"`, `"hamming"`, `"hann"`, from sharp to smooth.
    - `pad`: what is assumed beyond the detector: `"zero"` where it sees the whole object, `"edge"` where it does not
      (the last value goes on; less cupping in a region of interest).
    - `weights`: angle that each view stands for [rad]; default `angle_weights`, for scans over 180 and 360 degrees,
      even or uneven.

    **Cost:** one adjoint and a pair of 1-D transforms a view. About `pi/2 n` views are needed for n columns.

    **Raises:** `InputError` for unknown names.

    ```python
    A = ParallelProjector(np.linspace(0, np.pi, 90, endpoint=False), (64, 64), 64)
    image = fbp(A, A(jnp.ones((64, 64))), filter="hann")
    ```
    """
    if filter not in _WINDOWS:
        raise InputError(f'fbp: filter "{filter}" is not known: give one of {", ".join(_WINDOWS)}')
    if pad not in ("zero", "edge"):
        raise InputError(f'fbp: pad "{pad}" is not known: give "zero" or "edge"')
    if isinstance(A.angles, Tracer):
        turn = jnp.full(A.angles.shape, math.pi / A.angles.shape[0]) if weights is None else jnp.asarray(weights)
    else:
        turn = angle_weights(np.asarray(A.angles)) if weights is None else np.asarray(weights)
    sinogram = jnp.asarray(sinogram)
    gain = jnp.asarray(ramp_filter(_padded(A.detector), filter), sinogram.dtype)
    turn = jnp.asarray(turn, sinogram.dtype).reshape((-1,) + (1,) * (sinogram.ndim - 1))
    return A.adjoint(_filtered(sinogram, gain, pad) * turn)


def ramp_filter(length: int, window: str = "ramp") -> Float[np.ndarray, " frequency"]:
    """Gain |f| of a 1-D real transform of this length [1/pixel], times the window.

    The transform of the band-limited ramp's own samples, 1/4 at 0 and -1/(pi n)^2 at odd n (Kak & Slaney 1988, eq.
    3.61): sampling |f| itself would set the mean to zero.
    """
    index = np.minimum(np.arange(length), length - np.arange(length))
    kernel = np.where(index % 2 == 1, -1.0 / (np.pi * np.maximum(index, 1)) ** 2, 0.0)
    kernel[0] = 0.25
    return np.fft.rfft(kernel).real * _WINDOWS[window](np.fft.rfftfreq(length))


def angle_weights(angles: Float[np.ndarray, " view"]) -> Float[np.ndarray, " view"]:
    """The angle that each view stands for [rad]: half the gaps to its neighbours modulo pi; pi in all for a full scan.

    Gaps above fifteen times the usual one are a missing wedge: no view stands for it. Repeated directions share their
    angle.
    """
    folded = np.mod(np.asarray(angles, np.float64), np.pi)
    folded[np.pi - folded < 1e-7] = 0.0
    order = np.argsort(folded, kind="stable")
    gaps = np.diff(np.append(folded[order], folded[order[0]] + np.pi))
    # float32 angles of a 360 degree scan repeat the directions only nearly
    distinct = gaps[gaps > 1e-3 * np.pi / gaps.size]
    usual = float(np.median(distinct)) if distinct.size else np.pi
    gaps = np.where(gaps > _WEDGE * usual, usual, gaps)
    weights = np.empty_like(folded)
    weights[order] = (gaps + np.roll(gaps, 1)) / 2
    return weights


def _padded(detector: int) -> int:
    return 2 ** math.ceil(math.log2(2 * detector))


def _filtered(sinogram: Float[Array, "view *z u"], gain: Float[Array, " frequency"], pad: str) -> Array:
    detector, length = sinogram.shape[-1], 2 * (gain.shape[0] - 1)
    if pad == "edge":
        extra = length - detector
        width = [(0, 0)] * (sinogram.ndim - 1) + [(extra // 2, extra - extra // 2)]
        padded, first = jnp.pad(sinogram, width, mode="edge"), extra // 2
    else:
        padded, first = sinogram, 0
    lines = jnp.fft.irfft(jnp.fft.rfft(padded, length, axis=-1) * gain, length, axis=-1)
    return lines[..., first : first + detector]

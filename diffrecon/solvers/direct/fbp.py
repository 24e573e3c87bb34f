"""Filtered back-projection of parallel-beam sinograms, with Paganin's phase filter in the ramp where it is wanted."""

import math
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Float
from numpy.typing import ArrayLike

from ...errors import InputError, nearest
from ...operators.detector import AlignedProjector
from ...operators.projection import ParallelProjector
from .transport import paganin

__all__ = ["PhaseFilter", "angle_weights", "fbp", "ramp_filter"]

_WEDGE = 15  # times the usual gap between views: a missing wedge (random angles have gaps of up to eight)
_WIDER = 2.5  # times the detector: how wide a specimen is taken to be that nobody has measured
_WINDOWS = {
    "ramp": lambda f: np.ones_like(f),
    "shepp-logan": lambda f: np.sinc(f),
    "cosine": lambda f: np.cos(np.pi * f),
    "hamming": lambda f: 0.54 + 0.46 * np.cos(2 * np.pi * f),
    "hann": lambda f: 0.5 + 0.5 * np.cos(2 * np.pi * f),
    "parzen": lambda f: np.where(f <= 0.25, 1 - 6 * (2 * f) ** 2 * (1 - 2 * f), 2 * (1 - 2 * f) ** 3),
    "none": lambda f: np.ones_like(f),
}
_PADS = ("zero", "edge", "smooth")


class PhaseFilter(NamedTuple):
    """Paganin's low-pass filter of a propagated projection (Paganin et al., J. Microsc. 206, 33 (2002), eq. 10):
    `1 / (1 + pi wavelength distance delta_beta f^2)`, f along rows and columns.

    **Fields:** `pixel_size`, `wavelength`, `distance` [m] (effective ones in a cone beam); `delta_beta` = delta/beta of
    the material. The reconstructed values are mu; `delta = mu wavelength / (4 pi) delta_beta`.

    The filter belongs before the logarithm and acts on whole frames: `line_integrals` does that, for attenuation of any
    strength. `fbp(..., phase=...)` multiplies the ramp by it, after the logarithm, which costs nothing: the same to
    first order in the contrast. With features finer than the filter the two differ by 1 % of the contrast where 2 % is
    absorbed, by 4 % where it is 10 %, by a quarter where it is half.

    **Raises:** `InputError` for numbers that are not positive and finite (`checked`).
    """

    pixel_size: float
    wavelength: float
    distance: float
    delta_beta: float

    def checked(self) -> "PhaseFilter":
        """Itself, when every number makes sense."""
        for name, value in self._asdict().items():
            if not (np.isfinite(value) and value > 0):
                raise InputError(f"phase filter: {name} must be positive and finite, got {value}")
        return self

    @property
    def strength(self) -> float:
        """The factor of f^2, f in 1/pixel [pixel^2]."""
        return math.pi * self.wavelength * self.distance * self.delta_beta / self.pixel_size**2

    @property
    def reach(self) -> int:
        """Rows beyond which a row has no influence above 1e-4: what a slab needs on either side [pixel].

        The filter is the convolution with `exp(-2 pi |z| / sqrt(strength))` once the columns are summed. Weak filters
        (strength below about 20) ring a little further, by some 1e-3.
        """
        return math.ceil(math.log(1e4) * math.sqrt(self.strength) / (2 * math.pi)) + 1

    def gain(self, rows: Any, columns: Any) -> np.ndarray:
        """Compute the gain at frequencies [1/pixel], `(row, column)`."""
        return 1 / (1 + self.strength * (np.asarray(rows)[:, None] ** 2 + np.asarray(columns)[None, :] ** 2))

    def line_integrals(
        self, transmission: Float[Array, "view z u"] | np.ndarray, outside: str = "mirror"
    ) -> Float[Array, "view z u"]:
        """Line integrals of mu from frames divided by the empty beam, by the exact filter; see `paganin`."""
        numbers = self.checked()._asdict()
        return -2 / self.delta_beta * paganin(transmission, outside=outside, **numbers)


def fbp(
    A: ParallelProjector | AlignedProjector,
    sinogram: Float[Array, "view *z u"],
    *,
    filter: str = "ramp",
    cutoff: float = 1.0,
    pad: str = "zero",
    extent: float | None = None,
    phase: PhaseFilter | None = None,
    weights: ArrayLike | None = None,
) -> Float[Array, "*slices y x"]:
    """Filtered back-projection, [sinogram unit / pixel]: line integrals in, values per pixel out.

    **Arguments:**

    - `sinogram`: line integrals (-log of the transmission), (view, u) or (view, z, u).
    - `filter`: `"ramp"`, `"shepp-logan"`, `"cosine"`, `"hamming"`, `"hann"`, `"parzen"`, from sharp to smooth; `"none"`
      is the plain back-projection, [sinogram unit x rad].
    - `cutoff`: fraction of the Nyquist frequency where the window ends, in (0, 1].
    - `pad`: what is assumed beyond the detector: `"zero"` where it sees the whole specimen. Where it does not, the
      slice is right up to a constant and a slow bend: `"edge"` (the last value goes on for half a detector), or
      `"smooth"` (the projection of a round specimen about the axis, scaled to the last value, 0 beyond its rim).
    - `extent`: diameter of that specimen [pixel]; 2.5 detectors where it is not known. The better it is known, the
      flatter the slice.
    - `phase`: a `PhaseFilter`, fused in. With a z axis it filters along z too (mirrored at its ends: leave out
      `phase.reach` slices there); a sinogram without one is taken not to change along z.
    - `weights`: angle that each view stands for [rad]; default `angle_weights`, for scans over 180 and 360 degrees,
      even or uneven.

    May be called inside `jax.jit`, with `A` as an argument.

    **Cost:** one adjoint and a pair of 1-D transforms of twice the detector a view. About `pi/2 n` views are needed for
    n columns.

    **Raises:** `InputError` for unknown names, a cutoff or an extent out of range.

    ```python
    A = ParallelProjector(np.linspace(0, np.pi, 90, endpoint=False), (64, 64), 64)
    image = fbp(A, A(jnp.ones((64, 64))), filter="hann")
    ```
    """
    if filter not in _WINDOWS:
        raise InputError(f'fbp: filter "{filter}" is not known: give one of {", ".join(_WINDOWS)}')
    if pad not in _PADS:
        raise InputError(f'fbp: pad "{pad}" is not known: give one of {", ".join(_PADS)}{nearest(pad, _PADS)}')
    if extent is not None and not (np.isfinite(extent) and extent > 0):
        raise InputError(f"fbp: extent, the diameter of the specimen, must be positive [pixel], got {extent}")
    sinogram = jnp.asarray(sinogram)
    if not jnp.issubdtype(sinogram.dtype, jnp.floating):
        raise InputError(f"fbp: the sinogram is of type {sinogram.dtype}: give line integrals, prepare.line_integrals")
    turn = angle_weights(A.angles) if weights is None else weights
    traced = isinstance(turn, jax.Array)
    turn = turn.astype(sinogram.dtype) if traced else jax.device_put(np.asarray(turn, sinogram.dtype))
    extent = _WIDER * A.detector if extent is None else float(extent)
    length = _padded(A.detector, pad, extent)
    gain = ramp_filter(length, filter, cutoff)
    if phase is not None:
        rows = 1 if sinogram.ndim == 2 or sinogram.shape[1] == 1 else 2 * sinogram.shape[1]
        gain = gain * phase.checked().gain(np.fft.fftfreq(rows), np.fft.rfftfreq(length))
    gain = (
        None if filter == "none" and phase is None and cutoff == 1 else jax.device_put(np.asarray(gain, sinogram.dtype))
    )
    return _filter_and_project(A, sinogram, gain, turn, pad, extent)


def ramp_filter(length: int, window: str = "ramp", cutoff: float = 1.0) -> Float[np.ndarray, " frequency"]:
    """Gain |f| of a 1-D real transform of this even length [1/pixel], times the window; 1 for the window `"none"`.

    The transform of the band-limited ramp's own samples, 1/4 at 0 and -1/(pi n)^2 at odd n (Kak & Slaney 1988, eq.
    3.61): sampling |f| itself would set the mean to zero. The window ends at `cutoff` times the Nyquist frequency.
    """
    if not 0 < cutoff <= 1:
        raise InputError(f"cutoff {cutoff} must lie in (0, 1]: a fraction of the Nyquist frequency")
    frequency = np.fft.rfftfreq(length)
    gain = _WINDOWS[window](np.minimum(frequency / cutoff, 0.5)) * (frequency <= 0.5 * cutoff)
    if window == "none":
        return gain
    index = np.minimum(np.arange(length), length - np.arange(length))
    kernel = np.where(index % 2 == 1, -1.0 / (np.pi * np.maximum(index, 1)) ** 2, 0.0)
    kernel[0] = 0.25
    return np.fft.rfft(kernel).real * gain


def angle_weights(angles: Float[np.ndarray, " view"] | Float[Array, " view"]) -> Any:
    """The angle that each view stands for [rad]: half the gaps to its neighbours modulo pi; pi in all for a full scan.

    Gaps above fifteen times the usual one are a missing wedge: no view stands for it. Repeated directions share their
    angle. NumPy in (float64), NumPy out; traced angles are welcome.
    """
    if isinstance(angles, Tracer):
        return _angle_weights(jnp, angles)
    return _angle_weights(np, np.asarray(angles, np.float64))


def _angle_weights(xp: Any, angles: Any) -> Any:
    # float32 angles of a 360 degree scan repeat the directions only nearly
    same = 1e-3 * np.pi / angles.size
    folded = xp.mod(angles, np.pi)
    folded = xp.where(np.pi - folded < same, folded - np.pi, folded)
    order = xp.argsort(folded)
    ordered = folded[order]
    gaps = xp.concatenate([xp.diff(ordered), ordered[:1] + np.pi - ordered[-1:]])
    distinct = gaps > same
    usual = xp.nanmedian(xp.where(distinct | ~xp.any(distinct), gaps, np.nan))
    gaps = xp.where(gaps > _WEDGE * usual, usual, gaps)
    return ((gaps + xp.roll(gaps, 1)) / 2)[xp.argsort(order)]


def _padded(detector: int, pad: str, extent: float) -> int:
    """Length of the transforms: none of what lies within the extent wraps around into the detector."""
    wide = max(2 * detector, detector + extent) if pad == "smooth" else 2 * detector
    return _even_product(math.ceil(wide))


def _even_product(least: int) -> int:
    """The next even number with no prime factor above 5: fast to transform."""
    powers = lambda base: [base**n for n in range(1 + math.ceil(math.log(least, base)))]
    products = [2 * a * b * c for a in powers(2) for b in powers(3) for c in powers(5)]
    return min(n for n in products if n >= least)


@eqx.filter_jit
def _filter_and_project(
    A: Any, sinogram: Array, gain: Array | None, turn: Float[Array, " view"], pad: str, extent: float
) -> Array:
    lines = sinogram if gain is None else _filtered(sinogram, gain, _continued(A, sinogram, gain, pad, extent))
    return A.adjoint(lines * turn.reshape((-1,) + (1,) * (sinogram.ndim - 1)))


def _continued(A: Any, sinogram: Array, gain: Array, pad: str, extent: float) -> tuple[Array, int]:
    """The sinogram with what is assumed on both sides of it, and where its first column then is."""
    detector = sinogram.shape[-1]
    extra = 2 * (gain.shape[-1] - 1) - detector
    if pad == "zero":
        return sinogram, 0
    width = [(0, 0)] * (sinogram.ndim - 1) + [(extra // 2, extra - extra // 2)]
    padded = jnp.pad(sinogram, width, mode="edge")
    if pad == "edge":
        return padded, extra // 2
    profile = _round_specimen(A, np.arange(-(extra // 2), detector + extra - extra // 2), extent, sinogram.dtype)
    return padded * profile.reshape((-1,) + (1,) * (sinogram.ndim - 2) + profile.shape[-1:]), extra // 2


def _round_specimen(A: Any, column: np.ndarray, extent: float, dtype: Any) -> Float[Array, "view column"]:
    """Projection of a disc about the axis, relative to that at the near end of the detector; 1 on the detector."""
    axis = A.centre[None, None] if A.shifts is None else (A.centre + A.shifts)[:, None]
    last = A.detector - 1
    chord = lambda u: jnp.maximum((extent / 2) ** 2 - (u - axis) ** 2, 0.0)
    end = chord(np.where(column > last / 2, last, 0)[None, :])
    # a specimen that ends within the detector leaves nothing outside
    beyond = jnp.sqrt(jnp.where(end > 0, chord(column[None, :]) / jnp.where(end > 0, end, 1), 0))
    return jnp.where((column < 0) | (column > last), beyond, 1.0).astype(dtype)


def _filtered(sinogram: Array, gain: Array, continued: tuple[Array, int]) -> Array:
    """The lines through the filter: `gain` (frequency,), or (row frequency, frequency) with the rows mirrored."""
    padded, first = continued
    detector, length = sinogram.shape[-1], 2 * (gain.shape[-1] - 1)
    lines = jnp.fft.rfft(padded, length, axis=-1)
    if gain.ndim == 2 and gain.shape[0] > 1:
        rows = sinogram.shape[1]
        mirrored = jnp.fft.fft(jnp.concatenate([lines, lines[:, ::-1]], axis=1), axis=1)
        lines = jnp.fft.ifft(mirrored * gain, axis=1)[:, :rows]
    else:
        lines = lines * gain.reshape(-1)
    return jnp.fft.irfft(lines, length, axis=-1)[..., first : first + detector]

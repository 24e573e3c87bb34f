"""A measured curve that a sample displaces, dims and broadens: edge illumination, analyser crystals."""

from typing import Any, ClassVar

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Complex, Float

from ..operators.displacement import fringe_transfer
from ..operators.fourier import blur
from ..solvers.refraction import Information, sum_up
from ._refracting import RefractingSample

__all__ = ["ScannedCurve", "curve_spectrum"]

_PLACE_ERROR = 0.1  # [steps], of a position in one round


class ScannedCurve(RefractingSample):
    """Expected counts behind a sample, one view a position of mask or crystal: each pixel has a curve of its own.

    `exp(a) curve(place - scale D)`, broadened by the variance `-2 width^2 ln V`; D is the displacement along x [pixel],
    V the visibility. The curve is what was measured without the sample, as a band-limited function: nothing about its
    shape is assumed.

    **Fields:** `maps`, the unknown images (`solvers.RefractionMaps`); `place` `(view,)` in steps of the reference's
    grid; `spectrum` `(half, y, x)` of the curves (`curve_spectrum`); `trust` `(y, x)`; `share`, variance that the
    reference adds, over that of the sample; `scale` steps a pixel; `width` in steps; `period` of the mirrored curve.
    """

    place: Float[Array, " view"]
    spectrum: Complex[Array, "half y x"]
    trust: Float[Array, "y x"]
    share: float
    scale: float = eqx.field(static=True)
    width: float = eqx.field(static=True)
    period: int = eqx.field(static=True)

    unknowns: ClassVar[tuple[str, ...]] = ("maps", "place")

    @property
    def transfer(self) -> Float[np.ndarray, "Y half"]:
        """Fringes are not resolved by such pixels: none."""
        return fringe_transfer(self.maps.potential.shape, None)

    def information(self, counts: Float[Array, "view y x"]) -> tuple[Information, "ScannedCurve"]:
        """Sum up what all positions say of the fields; where each frame stood is refined by the way."""
        fields = self.fields()
        frames = jnp.moveaxis(jnp.asarray(counts, self.trust.dtype), 0, -1)
        predicted, slopes = self._predict(jnp.arange(len(self.place)), fields)
        variance = jnp.maximum(predicted, 1e-3 * frames.mean()) * (1 + jnp.exp(fields[2])[..., None] * self.share)
        found = sum_up(frames - predicted, slopes, self.trust[..., None] / variance, fields)
        weight, residual = self.trust[..., None] / variance, frames - predicted
        moved = -slopes[1] / self.scale
        # Places err by a twentieth of a step or so; their mean is the displacement's.
        change = (weight * moved * residual).sum((0, 1)) / ((weight * moved**2).sum((0, 1)) + _PLACE_ERROR**-2)
        change = jnp.clip(change, -_PLACE_ERROR, _PLACE_ERROR)
        return _held_together(found, fields, self.maps.tilt[0]), self.replace(place=self.place + change - change.mean())

    def _predict(self, views: Any, fields: Array) -> tuple[Array, list[Any]]:
        real = fields.dtype
        turn = jnp.asarray(2 * np.pi * np.arange(self.spectrum.shape[0]) / self.period, real)
        seen = jnp.clip(fields[3], 0.05, 2.0)
        falls = seen ** (self.width * turn[:, None, None]) ** 2  # exp(-turn^2 variance / 2)
        where = self.place[views] - self.scale * fields[1][..., None]
        light = jnp.exp(fields[2])[..., None]
        zero = jnp.zeros(where.shape, real)
        value, slope, bend = zero, zero, zero
        for index in range(self.spectrum.shape[0]):
            wave = (self.spectrum[index] * falls[index])[..., None] * jnp.exp(1j * turn[index] * where)
            value = value + wave.real
            slope = slope - turn[index] * wave.imag
            bend = bend + turn[index] ** 2 * wave.real
        broad = light * self.width**2 * bend / seen[..., None]
        return light * value, [None, -self.scale * light * slope, light * value, broad]


def _held_together(found: Information, fields: Array, tilt: Array) -> Information:
    """Let air hold the rows together, whose angles along y no curve tells: they are about as large as those along x."""
    loose = 1 / jnp.maximum(blur(fields[1] ** 2, 4.0), 1e-4)
    hessian = found.hessian.at[0, 0].set(loose)
    return found._replace(hessian=hessian, gradient=found.gradient.at[0].set(-loose * (fields[0] - tilt)))


def curve_spectrum(curves: Float[np.ndarray, "place y x"]) -> tuple[Complex[np.ndarray, "half y x"], int]:
    """Spectrum of curves on an even grid of places, mirrored at both ends; its real part adds up to the curve.

    **Returns:** the spectrum and the period [steps].

    ```python
    curve = np.exp(-np.linspace(-3, 3, 13) ** 2)[:, None, None] * np.ones((1, 2, 2))
    spectrum, period = curve_spectrum(curve)
    wave = np.exp(2j * np.pi * np.arange(len(spectrum)) / period * 6)
    assert np.allclose((wave[:, None, None] * spectrum).real.sum(0), 1.0)
    ```
    """
    mirrored = np.concatenate([curves, curves[-2:0:-1]])
    period = len(mirrored)
    spectrum = np.fft.rfft(mirrored, axis=0) / period
    spectrum[1 : (period + 1) // 2] *= 2
    return spectrum, period

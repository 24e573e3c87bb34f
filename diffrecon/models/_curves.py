"""A measured curve that a sample displaces, dims and broadens: edge illumination, analyser crystals."""

from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Complex, Float

from ..operators.displacement import fringe_transfer, saturated_loss
from ..solvers.refraction import Information, Transfer, sum_up
from ._refracting import RefractingSample, held_together

__all__ = ["ScannedCurve", "curve_spectrum"]

_PLACE_ERROR = 0.1  # [steps], of a position in one round
_AIR = 3.0  # times what curves say of their width is said by air: that on the mean they have not broadened
_SCATTERS = 0.94, 1.0  # visibilities from which a pixel scatters all through, and does not: it tells positions
_USUAL = (np.log(0.3), 2.0)  # logarithm of the saturation, where the curves do not tell it, and how far it may be off


class ScannedCurve(RefractingSample):
    """Expected counts behind a sample, one view a position of mask or crystal: each pixel has a curve of its own.

    `exp(a) curve(place - scale D)`, broadened; D is the displacement along x [pixel]. The curve is what was measured
    without the sample, as a band-limited function: nothing about its shape is assumed. Its frequency `turn` [rad/step]
    keeps `V^saturated_loss((width turn)^2, saturation)`: V is the visibility at `1 / width`, and every frequency loses
    what a random phase takes from it, `s (1 - C)` (Yashiro 2010), where V says that there is one; else, and without
    saturation, the curve is blurred by the variance `-2 width^2 ln V`, which may be below zero.

    **Fields:** `maps`, the unknown images (`solvers.RefractionMaps`); `place` `(view,)` in steps of the reference's
    grid; `saturation`, refined unless `told`; `spectrum` `(half, y, x)` of the curves (`curve_spectrum`); `trust`
    `(y, x)`; `air` `(y, x)`, 1 where nothing scatters; `share`, variance that the reference adds, over that of the
    sample; `scale` steps a pixel; `width` in steps; `period` of the curves [steps];
    `blur` of the detector, standard deviation [pixel].
    """

    place: Float[Array, " view"]
    saturation: Float[Array, ""]
    spectrum: Complex[Array, "half y x"]
    trust: Float[Array, "y x"]
    air: Float[Array, "y x"]
    share: float
    scale: float = eqx.field(static=True)
    width: float = eqx.field(static=True)
    period: float = eqx.field(static=True)
    told: bool = eqx.field(static=True, default=False)
    blur: float = eqx.field(static=True, default=0.0)

    unknowns: ClassVar[tuple[str, ...]] = ("maps", "place", "saturation")

    @property
    def transfer(self) -> Transfer:
        """Say how frames see the images: blurred; fringes are not resolved by such pixels."""
        if not self.blur:
            return self.sharp
        shape = self.maps.potential.shape
        square = np.fft.fftfreq(shape[0])[:, None] ** 2 + np.fft.rfftfreq(shape[1])[None] ** 2
        gain = np.exp(-2 * (np.pi * self.blur) ** 2 * square)
        return self.sharp._replace(displacement=gain, attenuation=gain, visibility=gain)

    @property
    def sharp(self) -> Transfer:
        """Say how a camera would see them that does not blur."""
        return Transfer(fringe_transfer(self.maps.potential.shape, None))

    def information(self, counts: Float[Array, "view y x"]) -> tuple[Information, "ScannedCurve"]:
        """Sum up what all positions say of the fields; where frames stood and the saturation are refined by the way."""
        fields, found, slopes, weight, residual = summed = self._summed(counts)
        refined = self._moved(fields, slopes, weight, residual)
        if not self.told:
            step, _ = self._saturation_step(*summed)
            refined = refined.replace(saturation=self.saturation * jnp.exp(jnp.clip(step, -0.5, 0.5)))
        clear = _AIR * self.air * found.hessian[3, 3]
        hessian = found.hessian.at[3, 3].add(clear)
        mean = (self.air * fields[3]).sum() / jnp.maximum(self.air.sum(), 1)
        gradient = found.gradient.at[3].add(clear * (1 - mean))
        found = found._replace(hessian=hessian, gradient=gradient)
        return held_together(found, fields, self.maps.tilt), refined

    def _moved(self, fields: Array, slopes: list[Any], weight: Array, residual: Array) -> "ScannedCurve":
        """Refine the places, which err by a twentieth of a step or so; their mean is the displacement's."""
        # Positions that are stretched look like curves that are broadened: what scatters does not tell them.
        clear = weight * (1 - _scatters(fields[3]))[..., None]
        moved = -slopes[1] / self.scale
        change = (clear * moved * residual).sum((0, 1)) / ((clear * moved**2).sum((0, 1)) + _PLACE_ERROR**-2)
        change = jnp.clip(change, -_PLACE_ERROR, _PLACE_ERROR)
        return self.replace(place=self.place + change - change.mean())

    def saturation_error(self, counts: Float[Array, "view y x"]) -> Float[Array, ""]:
        """Give the relative standard deviation of the saturation, from the noise of the curves."""
        return self._saturation_step(*self._summed(counts))[1]

    def _summed(self, counts: Array) -> tuple[Array, Information, list[Any], Array, Array]:
        """Fields, what all positions say of them, slopes (the last that of the saturation's logarithm), weights and
        residuals of the values."""
        fields = self.fields()
        frames = jnp.moveaxis(jnp.asarray(counts, self.trust.dtype), 0, -1)
        predicted, *slopes = self._curves(jnp.arange(len(self.place)), fields)
        variance = jnp.maximum(predicted, 1e-3 * frames.mean()) * (1 + jnp.exp(fields[2])[..., None] * self.share)
        weight, residual = self.trust[..., None] / variance, frames - predicted
        return fields, sum_up(residual, slopes[:4], weight, fields), slopes, weight, residual

    def _saturation_step(
        self, fields: Array, found: Information, slopes: list[Any], weight: Array, residual: Array
    ) -> tuple[Array, Array]:
        """Step and standard deviation of its logarithm, the fields of every pixel free to follow."""
        bent = slopes[4]
        with_fields = jnp.stack([(weight * bent * s).sum(-1) for s in slopes[1:4]], -1)
        hessian = jnp.moveaxis(found.hessian[1:, 1:], (0, 1), (-2, -1))
        trace = jnp.trace(hessian, axis1=-2, axis2=-1)[..., None, None]
        firm = hessian + jnp.eye(3, dtype=fields.dtype) * jnp.where(trace > 0, 1e-4 * trace, 1.0)  # 0: did not measure
        follow = jnp.linalg.solve(firm, with_fields[..., None])[..., 0]
        curvature = (weight * bent**2).sum() - (with_fields * follow).sum() + _USUAL[1] ** -2
        downhill = (weight * bent * residual).sum() - (follow * jnp.moveaxis(found.gradient[1:], 0, -1)).sum()
        away = jnp.log(self.saturation) - _USUAL[0]
        return (downhill - away * _USUAL[1] ** -2) / curvature, curvature**-0.5

    def _predict(self, views: Any, fields: Array) -> tuple[Array, list[Any]]:
        value, *slopes = self._curves(views, fields)
        return value, slopes[:4]

    def _curves(self, views: Any, fields: Array) -> tuple[Array, None, Array, Array, Array, Array]:
        """Curves, and their slopes in the fields (there is none along y) and the logarithm of the saturation."""
        real = fields.dtype
        turn = jnp.asarray(2 * np.pi * np.arange(self.spectrum.shape[0]) / self.period, real)
        law = lambda log: saturated_loss((self.width * turn) ** 2, jnp.exp(log))
        log = jnp.log(self.saturation).astype(real)
        loss, more = jax.jvp(law, (log,), (jnp.ones_like(log),))
        seen = jnp.clip(fields[3], 0.05, 2.0)
        fades = jnp.log(seen)
        where = self.place[views] - self.scale * fields[1][..., None]
        zero = jnp.zeros(where.shape, real)
        value, slope, broad, bent = zero, zero, zero, zero
        first = jnp.exp(1j * (2 * np.pi / self.period) * where)
        turned = jnp.ones_like(first)
        scatters, plain = _scatters(fields[3]), (self.width * turn) ** 2
        for index in range(self.spectrum.shape[0]):
            kept = plain[index] + scatters * (loss[index] - plain[index])
            wave = (self.spectrum[index] * jnp.exp(kept * fades))[..., None] * turned
            turned = turned * first
            value = value + wave.real
            slope = slope - turn[index] * wave.imag
            broad = broad + kept[..., None] * wave.real
            bent = bent + (scatters * more[index])[..., None] * wave.real
        light = jnp.exp(fields[2])[..., None]
        value, slope, broad = light * value, light * slope, light * broad / seen[..., None]
        return value, None, -self.scale * slope, value, broad, light * fades[..., None] * bent


def _scatters(visibility: Array) -> Array:
    """Say how much of what a pixel loses is scattering's, 0 to 1: gradually, so that noise throws none to and fro."""
    none = _SCATTERS[1]
    return jnp.clip((none - visibility) / (none - _SCATTERS[0]), 0, 1)


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

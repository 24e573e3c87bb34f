"""The wave of a beam that is one at the detector for all distances, from holograms, with the object beside it.

The focus and the detector stay where they are while the sample moves between them, so that one wave `W` reaches the
detector at every distance. Its modulus is that of the flats, drifts included; its phase no flat shows. Carried back to
the sample over each distance, it lights the object from a different plane each time: what is behind the object tells
the phase. Object and beam are solved for together, each in white coordinates.
"""

from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Complex, Float, PyTree

from .. import losses, operators
from .._model import Batch
from ..operators.fourier import blur, good_size, radial_frequency
from ..priors import Coordinates

__all__ = ["BeamAtDetector", "FlatBeam", "LitObject", "lit_residual"]

_MARGIN = 1.25  # of the frame, over which the beam's structure ends
# A drift of all frames alike and a ramp of the object are the same but for this: frames are taken between the flats.
_BETWEEN = 30.0
_SLOWEST = 2.0  # periods over the frame, of the phase
_PHASE, _MODULUS = 4.0, 2e-4  # power of the phase, and of what the flats miss of the modulus, over that of the modulus
_FLATS = 10.0  # whose noise the modulus has


class FlatBeam(NamedTuple):
    """The beam of each frame by its flats [counts]: `mean` and principal `components` of the flats, and the `weights`
    of the frames."""

    mean: Float[np.ndarray, "y x"]
    components: Float[np.ndarray, "component y x"]
    weights: Float[np.ndarray, "view component"]

    def binned(self) -> "FlatBeam":
        """Add up pixels in pairs."""
        pairs = lambda a: a.reshape(*a.shape[:-2], a.shape[-2] // 2, 2, a.shape[-1] // 2, 2).sum((-3, -1))
        return FlatBeam(pairs(self.mean), pairs(self.components), self.weights)

    @property
    def structure(self) -> float:
        """Rms of the mean over its level."""
        return float(self.mean.std() / self.mean.mean())


class BeamAtDetector(Coordinates):
    """Describe the beam at the detector by white maps: its phase, modulus that the flats do not tell, and the phase of
    each principal component of the flats, by whose weights the beam of each frame drifts.

    **Fields** beside those of `Coordinates`: `inverse_root` `(map, y, x//2 + 1)` of the maps' power; `modulus` `(view,
    y, x)` of the wave by the flats of each view, over its mean; `components` `(component, y, x)` of the modulus, and
    `weights` `(view, component)`; `drifts`: changes of the weights, unknown too, in units of `step`; `rows`, `columns`
    `(view, Y, y)`: from the detector's pixels to those of the object.
    """

    inverse_root: Float[Array, "map y half"]
    modulus: Float[Array, "view y x"]
    components: Float[Array, "component y x"]
    weights: Float[Array, "view component"]
    drifts: Float[Array, "view component"]
    step: Float[Array, " component"]
    rows: Float[Array, "view Y y"]
    columns: Float[Array, "view X x"]

    @classmethod
    def about(cls, model: Any, beam: FlatBeam, contrast: float) -> "BeamAtDetector":
        """Begin with the modulus of the flats and no phase.

        **Arguments:** `model`: a `diffrecon.models.Holography`, its shifts right to a fraction of a pixel; `beam` of
        its frames by the flats; `contrast` of the holograms behind the object, rms, by which they see the beam's phase.
        """
        high, broad = (good_size(_MARGIN * n, parity=n % 2) for n in model.frame)
        size = (high, broad)
        level = beam.mean.mean()
        wide = lambda light: _extended(_sharpened(light / level), size)
        mean = wide(beam.mean)
        modulus = np.stack([wide(beam.mean + np.tensordot(w, beam.components, 1)) for w in beam.weights])
        components = np.array([wide(beam.mean + one) - mean for one in beam.components]).reshape(-1, *size)
        power = np.stack([_power(part, model.frame) for part in (mean - 1, *components)])
        # Phase that is slower than the frame is tilt and focus, which shifts and distances describe.
        slow = (radial_frequency(size) * min(model.frame) / _SLOWEST) ** 4
        structured = power * slow / (1 + slow) + 1e-9
        prior = np.stack(
            [_PHASE * structured[0], _MODULUS * power[0] + 1 / (4 * _FLATS * level), *(_PHASE * structured[1:])]
        )
        counts = 4 * float(level) * len(model.pixels)
        seen = np.array([contrast**2, 1.0, *np.full(len(components), contrast**2)])
        kernels = 1 / np.sqrt(1 / prior + counts * seen[:, None, None])
        cast = lambda a: jnp.asarray(a, model.phase.dtype)
        places = [(model.phase.shape[a], size[a], model.pixel_size / np.asarray(model.pixels)[:, a]) for a in (0, 1)]
        shifts = np.asarray(model.shifts, float)
        rows, columns = (
            np.stack([operators.cubic_matrix(m, n, r, s) for r, s in zip(ratio, shifts[:, a], strict=True)])
            for a, (m, n, ratio) in enumerate(places)
        )
        flux = jnp.full((len(model.pixels), 1, 1), level, model.phase.dtype)
        size_of = np.array([np.sum(one**2) for one in components])
        return cls(
            jnp.zeros((len(prior), *size), model.phase.dtype), cast(kernels), {}, {},
            model.replace(flux=flux, probe=None), cast(1 / np.sqrt(prior)), cast(modulus), cast(components),
            cast(beam.weights), cast(np.zeros_like(beam.weights)),
            cast(1 / np.sqrt(4 * level * size_of + 1)), cast(rows), cast(columns),
        )  # fmt: skip

    def put(self, model: Any, maps: Float[Array, "map y x"]) -> Any:
        """Light the model by the wave, carried back to the sample at every distance."""

        def of_view(view: Array, weights: Array, drift: Array, modulus: Array, rows: Array, columns: Array) -> Array:
            phase = maps[0] + jnp.tensordot(weights + drift, maps[2:], 1)
            wave = (modulus + jnp.tensordot(drift, self.components, 1)) * jnp.exp(jax.lax.complex(maps[1], phase))
            return self._carried(model, view, wave, rows, columns)

        views, drifts = jnp.arange(len(model.pixels)), self.drifts * self.step
        probe = jax.vmap(of_view)(views, self.weights, drifts, self.modulus, self.rows, self.columns)
        return model.replace(probe=probe, flux=self.model.flux)

    def _carried(self, model: Any, view: Array, wave: Array, rows: Array, columns: Array) -> Complex[Array, "Y X"]:
        parts = [operators.to_pixels(part(wave - 1), rows, columns) for part in (jnp.real, jnp.imag)]
        distance = model.distances[view]
        transfer = operators.fresnel_transfer(
            model.grid, pixel_size=model.pixel_size, wavelength=model.wavelength, distance=(-distance[0], -distance[1])
        )
        spectrum = jnp.fft.fft2(jax.lax.complex(*parts), s=model.grid)
        window = model.phase.shape
        return 1 + jnp.fft.ifft2(spectrum * transfer)[: window[0], : window[1]]

    def prior(self) -> PyTree:
        """Compute the power of the maps over what is expected, and the drifts, whose mean is that of the flats."""
        rows = jnp.fft.rfft2(self.maps(), norm="ortho") * self.inverse_root * np.sqrt(2)
        weights = self.weights + self.drifts * self.step
        drifts = jnp.concatenate([weights, _BETWEEN * jnp.mean(weights, 0, keepdims=True)])
        return {"real": jnp.real(rows), "imaginary": jnp.imag(rows), "drifts": drifts}


class LitObject(eqx.Module):
    """Hold the coordinates of an object and of the beam that lights it, which are solved for together."""

    object: Any
    beam: BeamAtDetector

    def solution(self) -> Any:
        """Make the model with both."""
        return self.beam.put(self.object.solution(), self.beam.maps())

    def prior(self) -> PyTree:
        """Compute what is known beforehand of both."""
        return {"object": self.object.prior(), "beam": self.beam.prior()}


def lit_residual(both: LitObject, batch: Batch) -> Float[Array, "view y x"]:
    """Compute the residuals of the counts, of variance one for photon noise."""
    return losses.anscombe_residual(both.solution()(batch.views), batch.counts, batch.mask)


def _power(part: np.ndarray, frame: tuple[int, int]) -> np.ndarray:
    """Expect the power of structure like this at every frequency, from what is within the frame."""
    power = np.abs(np.fft.rfft2(part, norm="ortho")) ** 2 * part.size / np.prod(frame)
    power = np.maximum(np.asarray(blur(jnp.asarray(power, jnp.float32), 1.0), float), 1e-4 * power.mean())
    return power + 1e-12


def _sharpened(light: np.ndarray) -> np.ndarray:
    """Undo the mean over each pixel, and take the modulus."""
    rows, columns = (np.sinc(f(n)) for f, n in zip((np.fft.fftfreq, np.fft.rfftfreq), light.shape, strict=True))
    sharp = np.fft.irfft2(np.fft.rfft2(light) / np.maximum(rows[:, None] * columns, 0.5), s=light.shape)
    return np.sqrt(np.maximum(sharp, 0.01))


def _extended(modulus: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Go on beyond the frame by reflection, fading to one."""
    before = [(m - n) // 2 for m, n in zip(size, modulus.shape, strict=True)]
    pads = [(b, m - n - b) for b, m, n in zip(before, size, modulus.shape, strict=True)]
    wide = np.pad(modulus - 1, pads, mode="reflect")
    fades = [np.interp(np.arange(m), [0, b, b + n - 1, m - 1], [0, 1, 1, 0])
             for m, b, n in zip(size, before, modulus.shape, strict=True)]  # fmt: skip
    return 1 + wide * fades[0][:, None] * fades[1]

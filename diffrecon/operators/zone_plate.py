"""Full-field X-ray microscope: condenser, thin object, zone plate with central stop, Zernike phase ring, detector.

Abbe's theory of the partially coherent image: every point s of the condenser lights the object with a plane wave, of
which the zone plate passes the pupil P shifted by s; the intensities add up,
`I(x) = sum_s w_s |F^-1[P(f + s) F(object)]|^2 / sum_s w_s |P(s)|^2`. Frequencies are in 1/m of the object plane,
magnification is taken out, and the pupil's radius is `NA / wavelength = 1 / (2 outermost zone)`. The image ends at the
frequency `(1 + c) NA / wavelength` for a condenser of c times the zone plate's aperture: `2 NA / wavelength` for a
matched one.

Sources: Born & Wolf, Principles of Optics, section 10.6.3 (transmission cross-coefficients); Zernike, Physica 9, 686
(1942); Attwood, Soft X-rays and Extreme Ultraviolet Radiation, chapter 9.
"""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Complex, Float

from .. import physics
from ..errors import InputError

__all__ = ["ZonePlateMicroscope"]


class ZonePlateMicroscope(eqx.Module):
    """The optics of a transmission X-ray microscope; radii are fractions of the zone plate's.

    **Fields:**

    - `radius` of the pupil, `NA / wavelength` [1/m]; `stop`: radius of the central stop.
    - `ring`: inner and outer radius of the phase ring, `ring_phase` [rad] that it adds, `ring_transmission` of
      amplitudes; an inner radius of zero is a phase dot.
    - `defocus` [m], the object behind the focal plane; `wavelength` [m].
    - `points` `(point, 2)` [1/m] and `weights` `(point,)` of the condenser.
    - `pixel_size` [m] in the object plane; `box`: whether the pixel's own width blurs the image.

    All numbers may be unknowns; edges of the pupil are soft over one step of frequency, which makes them
    differentiable.

    ```python
    optics = ZonePlateMicroscope.make(8e3, outermost_zone=40e-9, pixel_size=10e-9, stop=0.4, condenser=(0.6, 0.9))
    assert jnp.allclose(optics(jnp.ones((32, 32), jnp.complex64)), 1.0, atol=1e-5)
    ```
    """

    radius: Any
    stop: Any
    ring: Any
    ring_phase: Any
    ring_transmission: Any
    defocus: Any
    points: Float[Array, "point 2"]
    weights: Float[Array, " point"]
    wavelength: float = eqx.field(static=True)
    pixel_size: float = eqx.field(static=True)
    box: bool = eqx.field(static=True, default=True)

    @classmethod
    def make(
        cls,
        energy: float,
        *,
        outermost_zone: float,
        pixel_size: float,
        stop: float = 0.0,
        condenser: tuple[float, float] = (0.0, 1.0),
        ring: tuple[float, float] | None = None,
        ring_phase: float = np.pi / 2,
        ring_transmission: float = 1.0,
        defocus: float = 0.0,
        points: int = 64,
        box: bool = True,
    ) -> "ZonePlateMicroscope":
        """Make the optics from the numbers that are written on them.

        **Arguments:** `energy` [eV]; width of the `outermost_zone` [m]; `stop` = diameter of the central stop over the
        zone plate's; `condenser` = inner and outer aperture over the zone plate's, `(0, 0)` = one plane wave; `ring` =
        the phase ring's, `None` = none; about `points` of the condenser are summed over.

        **Raises:** `InputError` for sizes that make no sense, or pixels too large for the optics' band.
        """
        inner, outer = condenser
        if not (outermost_zone > 0 and pixel_size > 0 and 0 <= stop < 1 and 0 <= inner <= outer <= 2):
            raise InputError(
                f"zone plate: outermost zone {outermost_zone} m, stop {stop} and condenser {condenser} "
                "(as fractions of the zone plate) make no microscope"
            )
        if ring is not None and not 0 <= ring[0] < ring[1]:
            raise InputError(f"zone plate: the phase ring {ring} must have an inner radius below its outer one")
        radius = 1 / (2 * outermost_zone)
        if stop > 0 and outer < stop and ring is None:
            raise InputError(f"zone plate: a condenser up to {outer} lights the central stop of {stop} only")
        places, weights = _annulus(inner * radius, outer * radius, points)
        return cls(
            radius,
            stop,
            (0.0, 0.0) if ring is None else ring,
            ring_phase if ring else 0.0,
            ring_transmission if ring else 1.0,
            defocus,
            jnp.asarray(places, jnp.float32),
            jnp.asarray(weights, jnp.float32),
            float(physics.energy_to_wavelength(energy)),
            pixel_size,
            box,
        )

    @property
    def cutoff(self) -> float:
        """Highest frequency in the image [1/m], `NA / wavelength` plus the condenser's own."""
        return float(self.radius) + float(jnp.max(jnp.hypot(*self.points.T)))

    # ------------------------------------------------------------------ optics
    def pupil(self, fy: Any, fx: Any, step: float) -> Complex[Array, "..."]:
        """Amplitude that the optics pass at frequencies [1/m]; edges are soft over a `step` [1/m]."""
        r = jnp.hypot(fy, fx) / self.radius
        width = step / self.radius
        inside = lambda edge: jnp.clip((edge - r) / width + 0.5, 0.0, 1.0)
        opened = inside(1.0) - jnp.where(self.stop > 0, inside(self.stop), 0.0)
        in_ring = inside(self.ring[1]) - jnp.where(self.ring[0] > 0, inside(self.ring[0]), 0.0)
        in_ring = jnp.where(self.ring[1] > 0, in_ring, 0.0)
        turned = self.ring_transmission * jnp.exp(1j * jnp.asarray(self.ring_phase))
        # In this order nothing leaves the range of float32.
        away = -np.pi * (self.wavelength * self.radius) * (jnp.asarray(self.defocus) * self.radius) * r**2
        return opened * (1 + in_ring * (turned - 1)) * jnp.exp(1j * away)

    def __call__(self, wave: Complex[Array, "y x"]) -> Float[Array, "y x"]:
        """Intensity behind a thin object of transmission `wave`, over that without object; periodic borders.

        **Cost:** one FFT, and one for each point of the condenser, one point at a time in memory.
        """
        fy, fx, step = self._frequencies(wave.shape)
        spectrum = jnp.fft.fft2(wave)

        def point(total: Any, at: Any) -> Any:
            place, weight = at
            pupil = self.pupil(fy + place[0], fx + place[1], step)
            field = jnp.fft.ifft2(spectrum * pupil.astype(spectrum.dtype))
            light = self.pupil(place[0], place[1], step)
            image, empty = total
            return (image + weight * _abs2(field), empty + weight * _abs2(light).astype(empty.dtype)), None

        real = spectrum.real.dtype
        start = (jnp.zeros(wave.shape, real), jnp.zeros((), real))
        (image, empty), _ = jax.lax.scan(
            jax.checkpoint(point), start, (self.points.astype(real), self.weights.astype(real))
        )
        image = image / empty
        if not self.box:
            return image
        return jnp.real(jnp.fft.ifft2(jnp.fft.fft2(image) * jnp.asarray(self._pixel(fy, fx), image.dtype)))

    def transfer(
        self, shape: tuple[int, int], dtype: Any = jnp.float32
    ) -> tuple[Complex[Array, "y x"], Complex[Array, "y x"]]:
        """Contrast of a weak phase [1/rad] and of a weak attenuation at every frequency, FFT order.

        With the cross-coefficients `T(f) = sum_s w P(f + s) P*(s)`, over `T(0)`: `i (T(f) - T*(-f))` for the phase
        and `-(T(f) + T*(-f))` for the attenuation of the object `exp(-attenuation + i phase)`.
        """
        fy, fx, step = self._frequencies(shape)
        kind = jnp.result_type(dtype, jnp.complex64)

        def point(total: Any, at: Any) -> Any:
            place, weight = at
            here = jnp.conj(self.pupil(place[0], place[1], step))
            ahead = self.pupil(fy + place[0], fx + place[1], step) * here
            behind = self.pupil(place[0] - fy, place[1] - fx, step) * here
            pair = (total[0] + weight * ahead.astype(kind), total[1] + weight * jnp.conj(behind).astype(kind))
            return pair, None

        zero = jnp.zeros(shape, kind)
        (ahead, behind), _ = jax.lax.scan(point, (zero, zero), (self.points.astype(dtype), self.weights.astype(dtype)))
        pixel = (jnp.asarray(self._pixel(fy, fx), dtype) if self.box else 1.0) / jnp.real(ahead[0, 0])
        return 1j * (ahead - behind) * pixel, -(ahead + behind) * pixel

    def weak_image(self, phase: Float[Array, "y x"], attenuation: Float[Array, "y x"]) -> Float[Array, "y x"]:
        """Contrast `I - 1` of a weak object by `transfer`: linear, hence with an exact adjoint."""
        of_phase, of_attenuation = self.transfer((phase.shape[0], phase.shape[1]), phase.dtype)
        spectrum = of_phase * jnp.fft.fft2(phase) + of_attenuation * jnp.fft.fft2(attenuation)
        return jnp.real(jnp.fft.ifft2(spectrum))

    def _frequencies(self, shape: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray, float]:
        fy, fx = (np.fft.fftfreq(n, self.pixel_size) for n in shape[-2:])
        return fy[:, None], fx[None, :], 1 / (self.pixel_size * max(shape[-2:]))

    def _pixel(self, fy: np.ndarray, fx: np.ndarray) -> np.ndarray:
        return np.sinc(fy * self.pixel_size) * np.sinc(fx * self.pixel_size)


def _abs2(wave: Array) -> Array:
    return jnp.real(wave * jnp.conj(wave))


def _annulus(inner: float, outer: float, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Points of equal weight in an annulus: rings of equal area, turned by the golden angle."""
    if outer == 0:
        return np.zeros((1, 2)), np.ones(1)
    share = (np.arange(count) + 0.5) / count
    radius = np.sqrt(inner**2 + (outer**2 - inner**2) * share)
    turn = np.arange(count) * np.pi * (3 - np.sqrt(5))
    return np.stack([radius * np.sin(turn), radius * np.cos(turn)], 1), np.full(count, 1 / count)

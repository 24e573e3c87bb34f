"""Frames of a scan and counts of elements' lines from one object: areal densities, a smooth remainder, the optics."""

from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Complex, Float, Num

from .. import operators
from .._model import Model
from ._ptychography import Ptychography

__all__ = ["ElementCounts", "ElementFrames", "Elements"]

_DEGREE = 0.01  # unit of a plane's coefficients [rad]


class Elements(Model):
    """An object whose phase and attenuation are those of its elements, and a smooth rest of what does not fluoresce.

    `object = phase + i B` with `phase = -sum K delta_e w_e + rest`, `B = sum K beta_e w_e + rest`, K = 0.01 m times
    2 pi / wavelength, so that delta and beta at 1 g/cm^3 go with w in [g/cm^2]; the transmission is `exp(i object)`.

    **Fields:**

    - `white`: `(element, Y, X)`, coordinates in which the data have about curvature one; `mixing` `(element, element)`
      makes areal densities [g/cm^2] of them, `unit` `(element,)` is their mean size [g/cm^2].
    - `rest`: `(2, Y, X)`, coordinates of the smooth rests of phase and B, whose spectra times `smooth` [rad], less
      `taken` of the elements' own, are the rests. They are expected to become
      white noise of one where `expected` [1/rad] multiplies their spectra.
    - `plane`: `(4,)`, constant and slopes (rows, columns) of the phase, constant of B.
    - `index`: `(2, element)`, K delta and K beta [rad cm^2/g].
    - `seen`: `(Y, X)`, where there was light; `edges` [1/rad]: what a step of an element's phase costs.
    """

    white: Float[Array, "element Y X"]
    rest: Float[Array, "2 Y X"]
    plane: Float[Array, "4"]
    mixing: Float[Array, "element element"]
    unit: Float[Array, " element"]
    index: Float[Array, "2 element"]
    smooth: Float[Array, "2 Y half"]
    taken: Float[Array, "2 Y half"]
    expected: Float[Array, "2 Y half"]
    seen: Bool[Array, "Y X"]
    edges: Float[Array, ""]

    unknowns: ClassVar[tuple[str, ...]] = ("white", "rest", "plane")

    @classmethod
    def empty(cls, shape: tuple[int, int], index: Float[np.ndarray, "2 element"]) -> "Elements":
        """Make an object without elements, on so many pixels."""
        count = index.shape[1]
        cast = lambda values: jnp.asarray(np.asarray(values, np.float32))
        half = shape[1] // 2 + 1
        return cls(
            cast(np.zeros((count, *shape))), cast(np.zeros((2, *shape))), cast(np.zeros(4)), cast(np.eye(count)),
            cast(np.ones(count)), cast(index), cast(np.ones((2, shape[0], half))), cast(np.zeros((2, shape[0], half))),
            cast(np.ones((2, shape[0], half))), jnp.ones(shape, bool), cast(1.0),
        )  # fmt: skip

    def areal(self) -> Float[Array, "element Y X"]:
        """Give the areal densities [g/cm^2], none of them below zero."""
        return jnp.maximum(self.mixed(), 0)

    def mixed(self) -> Float[Array, "element Y X"]:
        """Give what areal densities would be that might be negative [g/cm^2]."""
        return jnp.tensordot(self.mixing, self.white, 1)

    def object(self) -> Complex[Array, "Y X"]:
        """Give `phase + i B`."""
        phase, absorbed = jnp.tensordot(self.index, self.areal(), 1)
        rests = self.rests()
        height, width = self.rest.shape[-2:]
        rows, columns = (jnp.linspace(-1, 1, n, dtype=self.plane.dtype) for n in (height, width))
        constant, down, across, level = _DEGREE * self.plane
        phase = constant + down * rows[:, None] + across * columns + rests[0] - phase
        return phase + 1j * (level + rests[1] + absorbed)

    def rests(self, gain: Float[Array, "2 Y half"] | float = 1.0) -> Float[Array, "2 Y X"]:
        """Give what of phase and B is not of the elements [rad], or with a filter `gain` of theirs.

        `rest` is what differs from the most likely answer to a change of the elements, which takes `taken` of it back:
        coordinates that the object found does not couple.
        """
        spectrum = jnp.fft.rfft2(self.rest) * self.smooth
        sign = jnp.asarray([1.0, -1.0], spectrum.real.dtype)[:, None, None]
        share = sign * jnp.fft.rfft2(jnp.tensordot(self.index, self.areal(), 1)) * self.taken
        return jnp.fft.irfft2((spectrum + share) * gain, s=self.rest.shape[-2:])


class ElementFrames(Model):
    """Frames of a scan of `elements` through the probe of `optics`, whose own object counts for nothing here."""

    elements: Elements
    optics: Ptychography

    def scan(self) -> Ptychography:
        """Give the model of the scan."""
        return self.optics.replace(object=self.elements.object(), refractive=True)

    def __call__(self, views: Any) -> Float[Array, "view y x"]:
        """Predict the counts of some views' frames."""
        return self.scan()(views)


class ElementCounts(Model):
    """Counts of the elements' lines, excited by the light that makes the frames.

    `photons gain_j emission_e mean over the exposure of sum_r |P(r - r_j)|^2 w_e(r) / sum |P|^2`, all modes of the
    probe and the path of a fly scan in it; the specimen is thin, nothing is absorbed on the way in or out.

    **Fields:** `elements`, `optics`; `emission` `(element,)`: counts for a photon and 1 g/cm^2 [cm^2/g]: production
    times solid angle over 4 pi times efficiency; `photons` of a view with gain one; `offset` (row, column) [pixel] by
    which the counts lie beside the frames (clocks that disagree).
    """

    elements: Elements
    optics: Ptychography
    emission: Float[Array, " element"]
    photons: Float[Array, ""]
    offset: Float[Array, "2"]

    unknowns: ClassVar[tuple[str, ...]] = ("elements.white",)

    def __call__(self, views: Any) -> Float[Array, "view element"]:
        """Predict the counts of some views."""
        corners, light = self.light(views)
        return self.counted(self.elements.areal(), corners, light)

    def light(self, views: Any) -> tuple[Num[Array, "view 2"], Float[Array, "view y x"]]:
        """Give corners and intensities of some views' patches: photons on each pixel of the object."""
        weights, offsets = self.optics.exposure(views)
        corners, rest = operators.split_positions(self.optics.places(views) + self.offset)
        beam = jnp.fft.fft2(self.optics.beam(views))
        beam = beam if beam.ndim == 4 else beam[None]
        shape = (beam.shape[-2], beam.shape[-1])

        def add(light: Array, moment: tuple[Array, Array]) -> tuple[Array, None]:
            weight, moved = moment
            ramps = operators.shift_ramps(rest + moved, shape)
            return light + weight * operators.intensity(jnp.fft.ifft2(beam * ramps[:, None])), None

        dark = jnp.zeros((rest.shape[0], *shape), rest.dtype)
        light = jax.lax.scan(add, dark, (jnp.asarray(weights, rest.dtype), offsets))[0]
        share = light / jnp.sum(light, (1, 2), keepdims=True)
        return corners, (self.photons * self.optics.gain[views])[:, None, None] * share

    def counted(
        self, areal: Float[Array, "element Y X"], corners: Num[Array, "view 2"], light: Float[Array, "view y x"]
    ) -> Float[Array, "view element"]:
        """Count what areal densities give in some light."""
        shape = (light.shape[-2], light.shape[-1])
        patches = jax.vmap(lambda one: operators.extract(one, corners, shape))(areal)
        return jnp.einsum("evyx,vyx->ve", patches, light) * self.emission

"""Near-field holography and holotomography: the transfer functions of the distances."""

import dataclasses
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from .. import physics
from ..errors import InputError
from ..regimes import contrast_curves, field_share, sampled_share
from ..settings import setting
from ._detail import FWHM
from ._method import Measurement, Method, Prediction


@dataclasses.dataclass(frozen=True)
class Settings(Measurement):
    """A projection microscope, or a parallel beam (`focus_to_detector = 0`)."""

    flux: float = setting(1e11, "photons a second on the detector's field of view, without the sample", above=0)
    exposure: float = setting(1.0, "of one hologram", unit="s", above=0)
    distances: tuple[float, ...] = setting(
        (21.3e-3, 22.2e-3, 25.9e-3, 33.2e-3), "focus-sample; sample-detector in a parallel beam", unit="m", above=0
    )
    focus_to_detector: float = setting(1.28, "0 = a parallel beam", unit="m", at_least=0)
    detector_pixel: float = setting(3e-6, "of the detector; of a parallel beam in the sample", unit="m", above=0)
    frame: int = setting(2048, "pixels along the shorter side of the detector", at_least=16)
    source: float = setting(50e-9, "full width at half maximum of the focus", unit="m", at_least=0)
    detector_blur: float = setting(0.0, "full width at half maximum", unit="pixel", at_least=0)
    bandwidth: float = setting(0.0, "full width at half maximum of the energy, relative", at_least=0, below=1)
    attenuation: str = setting(
        "tied",
        "of the object: that of its material, or an unknown of its own",
        choices=("tied", "free"),
    )
    views: int = setting(1, "angles of a tomogram; 1 = one projection", at_least=1)

    def checked(self) -> "Settings":
        """Refuse distances that cannot be."""
        if self.focus_to_detector and max(self.distances) >= self.focus_to_detector:
            raise InputError(
                f"distances = {max(self.distances):g} m: the sample would stand behind the detector at "
                f"focus_to_detector = {self.focus_to_detector:g} m"
            )
        if self.attenuation == "free" and len(set(self.distances)) < 2:
            raise InputError("one distance cannot tell phase from attenuation; give more, or attenuation=tied")
        return self


def projected(s: Any, distance: Array) -> tuple[Array, Array, Array, Array]:
    """Give what a projection microscope, or a parallel beam, makes of a distance, seen from the sample.

    **Returns:** pixel [m], effective distance [m], blur (standard deviation) [m], photons of a frame per area [1/m^2].
    """
    share = distance / s.focus_to_detector if s.focus_to_detector else jnp.ones_like(distance)
    pixel = s.detector_pixel * share
    effective = distance * (1 - share) if s.focus_to_detector else distance
    blur = jnp.sqrt((s.source * (1 - share)) ** 2 + (s.detector_blur * pixel) ** 2 + 1e-24) / FWHM
    # A cone of light sheds the same counts on a pixel wherever the sample stands.
    return pixel, effective, blur, s.flux * s.exposure / (s.frame * pixel) ** 2


class Holography(Method):
    """Holograms at some distances, one or many views."""

    name, settings = "holography", Settings
    free = ("distances", "exposure", "energy", "views")

    def predict(self, s: Any, tables: Any) -> Prediction:
        """Add up what every hologram tells (`regimes.phase_information`, for one material)."""
        delta, mu, _ = tables.at(s.energy)
        wavelength = physics.HC / s.energy
        pixels, effective, blur, fluence = projected(s, s.distances)
        counted = fluence * s.efficiency * jnp.exp(-mu * s.thickness)

        def information(f: Any) -> Any:
            sine, cosine = contrast_curves(jnp, f, wavelength, effective, pixels, blur, s.bandwidth / FWHM)
            kept = sampled_share(jnp, f, pixels) * field_share(jnp, f, wavelength, effective, s.frame * pixels)
            weight = counted[:, None] * kept
            phase, absorption = 2 * np.pi / wavelength * delta, mu / 2
            if s.attenuation == "tied":
                return jnp.sum(weight * (phase * sine + absorption * cosine) ** 2, 0)
            own, other, across = (jnp.sum(weight * a, 0) for a in (sine**2, cosine**2, sine * cosine))
            return phase**2 * jnp.maximum(own - across**2 / (other + 1e-12 * jnp.sum(counted)), 0)

        finest = jnp.min(jnp.hypot(pixels, blur * FWHM))
        return Prediction(
            information,
            s.views,
            {"pixel": jnp.min(pixels), "blur": finest * (s.detector_blur + s.source > 0)},
            s.views * jnp.sum(fluence),
            s.views * s.distances.shape[0],
            {},
        )

    def ends(self, settings: Settings) -> dict[str, tuple[float, float]]:
        """Keep the sample in front of the detector."""
        return {"distances": (0.0, 0.9 * settings.focus_to_detector)} if settings.focus_to_detector else {}

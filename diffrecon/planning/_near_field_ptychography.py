"""Near-field ptychography: holograms in a beam with structure of its own, at many positions of the sample."""

import dataclasses
from typing import Any

import jax.numpy as jnp
import numpy as np

from .. import physics
from ..errors import InputError
from ..regimes import contrast_curves, pixel_transfer, sampled_share
from ..settings import setting
from ._detail import FWHM
from ._holography import projected
from ._method import Measurement, Method, Prediction


@dataclasses.dataclass(frozen=True)
class Settings(Measurement):
    """A sample that is moved in a beam behind a diffuser; a projection microscope, or a parallel beam
    (`focus_to_detector = 0`).
    """

    flux: float = setting(1e11, "photons a second on the detector's field of view, without the sample", above=0)
    exposure: float = setting(0.5, "of one position", unit="s", above=0)
    positions: int = setting(17, "of the sample in the beam, of which one's worth goes to the beam itself", at_least=2)
    distance: float = setting(25e-3, "focus-sample; sample-detector in a parallel beam", unit="m", above=0)
    focus_to_detector: float = setting(1.28, "0 = a parallel beam", unit="m", at_least=0)
    detector_pixel: float = setting(3e-6, "of the detector; of a parallel beam in the sample", unit="m", above=0)
    frame: int = setting(2048, "pixels along the shorter side of the detector", at_least=16)
    contrast: float = setting(
        0.3,
        "of the beam without the sample, standard deviation over mean; 0 = without a diffuser",
        at_least=0,
        at_most=1,
    )
    grain: float = setting(
        1e-6,
        "size of the beam's structure at the sample: full width at half maximum of its autocorrelation",
        unit="m",
        above=0,
    )
    source: float = setting(50e-9, "full width at half maximum of the focus", unit="m", at_least=0)
    detector_blur: float = setting(0.0, "full width at half maximum", unit="pixel", at_least=0)
    bandwidth: float = setting(0.0, "full width at half maximum of the energy, relative", at_least=0, below=1)
    views: int = setting(1, "angles of a tomogram; 1 = one projection", at_least=1)

    def checked(self) -> "Settings":
        """Refuse distances that cannot be."""
        if self.focus_to_detector and self.distance >= self.focus_to_detector:
            raise InputError(
                f"distance = {self.distance:g} m: the sample would stand behind the detector at "
                f"focus_to_detector = {self.focus_to_detector:g} m"
            )
        return self


class NearFieldPtychography(Method):
    """Holograms in structured light, one or many views."""

    name, settings = "near-field-ptychography", Settings
    free = ("distance", "exposure", "energy", "views")

    def predict(self, s: Any, tables: Any) -> Prediction:
        """Give what light that arrives straight tells as in holography, and what scattered light tells half of all.

        Of a beam whose scattered share p has a Gaussian spectrum of the deviation w, the wave behind a weak fringe of
        frequency f keeps the correlation `C = 1 - p + p exp(-(2 pi f lambda z w)^2 / 2)` with the wave without it. That
        part makes the contrast of a hologram; the rest meets the beam with random phases: `4 C^2 (phase sin + amplitude
        cos)^2 + 2 (1 - C^2) (phase^2 + amplitude^2)`. Both intensities mixed have the contrast `V^2 = p (2 - p)`.
        """
        delta, mu, _ = tables.at(s.energy)
        wavelength = physics.HC / s.energy
        pixel, effective, blur, fluence = projected(s, jnp.asarray(s.distance))
        counted = (s.positions - 1) * fluence * s.efficiency * jnp.exp(-mu * s.thickness)
        scattered = 1 - jnp.sqrt(1 - s.contrast**2)
        # The intensity's autocorrelation is the square of the wave's, exp(-4 (pi w x)^2).
        width = np.sqrt(np.log(2)) / (np.pi * s.grain)
        phase, amplitude = 2 * np.pi / wavelength * delta, mu / 2

        def information(f: Any) -> Any:
            sine, cosine = (
                curve[0]
                for curve in contrast_curves(
                    jnp, f, wavelength, effective[None], pixel[None], blur[None], s.bandwidth / FWHM
                )
            )
            displaced = (2 * np.pi * f * wavelength * effective * width) ** 2
            alike = (1 - scattered + scattered * jnp.exp(-displaced / 2)) ** 2
            random = 2 * (1 - alike) * (phase**2 + amplitude**2) * pixel_transfer(jnp, f, pixel, blur) ** 2
            kept = sampled_share(jnp, f, pixel[None])[0]
            return counted * kept * (alike * (phase * sine + amplitude * cosine) ** 2 + random)

        finest = jnp.hypot(pixel, blur * FWHM)
        return Prediction(
            information,
            s.views,
            {"pixel": pixel, "blur": finest * (s.detector_blur + s.source > 0)},
            s.views * s.positions * fluence,
            s.views * s.positions,
            {},
        )

    def ends(self, settings: Settings) -> dict[str, tuple[float, float]]:
        """Keep the sample in front of the detector."""
        return {"distance": (0.0, 0.9 * settings.focus_to_detector)} if settings.focus_to_detector else {}

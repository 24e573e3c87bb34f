"""Parallel-beam tomography, by absorption and, at a distance, by phase contrast of one material."""

import dataclasses
from typing import Any

import jax.numpy as jnp
import numpy as np

from .. import physics
from ..regimes import contrast_curves, sampled_share
from ..settings import setting
from ._detail import FWHM
from ._method import Measurement, Method, Prediction


@dataclasses.dataclass(frozen=True)
class Settings(Measurement):
    """Full-field projections over half a turn."""

    energy: float = setting(20e3, "of the beam", unit="eV", at_least=1e3, at_most=2e5)
    flux: float = setting(1e12, "photons a second on the detector's field of view, without the sample", above=0)
    exposure: float = setting(0.1, "of one view", unit="s", above=0)
    overhead: float = setting(0.0, "between views: readout, motors", unit="s", at_least=0)
    thickness: float = setting(1e-3, "diameter of the specimen", unit="m", above=0)
    difference: float = setting(1.0, "of a detail's density from its surroundings, relative; 1 = a void", above=0)
    detail: float = setting(
        5e-6, "size for which a sensitivity is said (full width at half maximum)", unit="m", above=0
    )
    views: int = setting(1500, "angles over half a turn", at_least=2)
    detector_pixel: float = setting(1e-6, "in the specimen", unit="m", above=0)
    width: int = setting(2048, "columns of the detector", at_least=8)
    height: int = setting(2048, "rows that are lit", at_least=1)
    detector_blur: float = setting(1.0, "full width at half maximum", unit="pixel", at_least=0)
    distance: float = setting(0.0, "specimen-detector; 0 = absorption alone", unit="m", at_least=0)
    source: float = setting(0.0, "full width at half maximum of the source", unit="m", at_least=0)
    source_distance: float = setting(50.0, "source-specimen", unit="m", above=0)
    bandwidth: float = setting(0.0, "full width at half maximum of the energy, relative", at_least=0, below=1)


class Tomography(Method):
    """Projections of a specimen that turns by half a turn."""

    name, settings = "tomography", Settings
    free = ("exposure", "energy", "views", "distance", "thickness")

    def predict(self, s: Any, tables: Any) -> Prediction:
        """Add up the views: the contrast of a thickness t of material is `mu t` at contact, with fringes behind."""
        delta, mu, _ = tables.at(s.energy)
        wavelength = physics.HC / s.energy
        pixel, views = s.detector_pixel, s.views
        penumbra = s.source * s.distance / s.source_distance
        blur = jnp.sqrt(penumbra**2 + (s.detector_blur * pixel) ** 2 + 1e-24) / FWHM
        fluence = s.flux * s.exposure / (s.width * s.height * pixel**2)
        counted = fluence * s.efficiency * jnp.exp(-mu * s.thickness)

        def information(f: Any) -> Any:
            one = lambda a: jnp.reshape(a, (1,))
            curves = contrast_curves(jnp, f, wavelength, one(s.distance), pixel, one(blur), s.bandwidth / FWHM)
            sine, cosine = curves[0][0], curves[1][0]
            contrast = 2 * np.pi / wavelength * delta * sine + mu / 2 * cosine
            return counted * sampled_share(jnp, f, one(pixel))[0] * contrast**2

        floors = {
            "pixel": jnp.asarray(pixel),
            "blur": jnp.hypot(pixel, blur * FWHM) * (s.detector_blur + s.source > 0),
            "views": np.pi * s.thickness / (2 * views),  # Crowther et al. 1970
        }
        return Prediction(information, views, floors, views * fluence, views, {})

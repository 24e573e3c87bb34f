"""Refraction angles by stepped gratings: the sinusoid of every pixel."""

import dataclasses
from typing import Any

import jax.numpy as jnp
import numpy as np

from .. import physics
from ..regimes import pixel_transfer
from ..settings import setting
from ._detail import FWHM
from ._method import Measurement, Method, Prediction


@dataclasses.dataclass(frozen=True)
class GratingSettings(Measurement):
    """Phase stepping with and without the sample."""

    energy: float = setting(25e3, "of the beam", unit="eV", at_least=1e3, at_most=2e5)
    flux: float = setting(1e11, "photons a second on the detector's field of view, without the sample", above=0)
    exposure: float = setting(1.0, "of one step", unit="s", above=0)
    overhead: float = setting(0.5, "between steps", unit="s", at_least=0)
    thickness: float = setting(5e-3, "of the sample along the beam", unit="m", above=0)
    difference: float = setting(1.0, "of a detail's density from its surroundings, relative; 1 = a void", above=0)
    detail: float = setting(
        50e-6, "size for which a sensitivity is said (full width at half maximum)", unit="m", above=0
    )
    steps: int = setting(5, "over one period, with the sample and as many without", at_least=3)
    visibility: float = setting(0.25, "of the fringes, amplitude over mean", above=0, at_most=1)
    period: float = setting(2.4e-6, "of the analyser grating", unit="m", above=0)
    distance: float = setting(0.2, "sample-analyser grating", unit="m", above=0)
    detector_pixel: float = setting(5e-6, "in the sample", unit="m", above=0)
    width: int = setting(2048, "columns of the detector", at_least=8)
    height: int = setting(1024, "rows that are lit", at_least=1)
    detector_blur: float = setting(1.0, "full width at half maximum", unit="pixel", at_least=0)
    views: int = setting(1, "angles of a tomogram; 1 = one projection", at_least=1)


class Grating(Method):
    """Angles along one direction, from the phase of the fringes of each pixel."""

    name, settings = "grating", GratingSettings
    free = ("exposure", "energy", "distance", "views", "period")

    def predict(self, s: Any, tables: Any) -> Prediction:
        """Tell angles with the variance `(p / (2 pi d))^2 2 / (V^2 N)` of each scan of N photons.

        The angle is `delta` times the slope of the thickness across the lines, over the shear `wavelength d / p`.
        """
        delta, mu, _ = tables.at(s.energy)
        fluence = s.flux * s.exposure * s.steps / (s.width * s.height * s.detector_pixel**2)
        empty = fluence * s.efficiency
        behind = empty * jnp.exp(-mu * s.thickness)
        # Of the fringe's phase in one view; the scan without the sample serves all views, as noisy as it is.
        counted = 1 / (1 / behind + 1 / empty)
        angle = s.visibility**2 / 2 * counted * (2 * np.pi * s.distance / s.period) ** 2
        shear = physics.HC / s.energy * s.distance / s.period
        blur = s.detector_blur * s.detector_pixel / FWHM

        def information(f: Any) -> Any:
            kept = pixel_transfer(jnp, f, s.detector_pixel, blur) * jnp.sinc(f * shear)
            sampled = jnp.clip((0.5 - f * s.detector_pixel) / 0.01 + 0.5, 0.0, 1.0)
            # The slope along one direction holds half of the gradient's power.
            return angle * delta**2 * (2 * np.pi * f) ** 2 / 2 * kept**2 * sampled

        pixel = jnp.asarray(s.detector_pixel)
        floors = {
            "pixel": pixel,
            "blur": jnp.hypot(pixel, blur * FWHM) * (s.detector_blur > 0),
            "shear": shear,
        }
        own = {"angle of a pixel [rad]": 1 / jnp.sqrt(angle * s.detector_pixel**2)}
        return Prediction(information, s.views, floors, s.views * fluence, (s.views + 1) * s.steps, own)

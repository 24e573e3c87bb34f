"""Refraction angles by the displaced speckles of a membrane."""

import dataclasses
from typing import Any

import jax.numpy as jnp
import numpy as np

from .. import physics
from ..regimes import pixel_transfer
from ..settings import setting
from ._detail import CRITERION, FWHM, detail_ratio
from ._method import Measurement, Method, Prediction


@dataclasses.dataclass(frozen=True)
class Settings(Measurement):
    """A membrane at some positions, with and without the sample."""

    energy: float = setting(25e3, "of the beam", unit="eV", at_least=1e3, at_most=2e5)
    flux: float = setting(1e12, "photons a second on the detector's field of view, without the sample", above=0)
    exposure: float = setting(0.1, "of one position", unit="s", above=0)
    overhead: float = setting(0.2, "between positions", unit="s", at_least=0)
    thickness: float = setting(5e-3, "of the sample along the beam", unit="m", above=0)
    detail: float = setting(
        20e-6, "size for which a sensitivity is said (full width at half maximum)", unit="m", above=0
    )
    positions: int = setting(
        20, "of the membrane, with the sample and as many without; four maps are told from them", at_least=4
    )
    contrast: float = setting(0.2, "of the speckles on the detector, standard deviation over mean", above=0, at_most=1)
    grain: float = setting(
        6e-6,
        "size of the speckles in the sample: full width at half maximum of their autocorrelation",
        unit="m",
        above=0,
    )
    distance: float = setting(0.5, "sample-detector; in a cone beam over the magnification", unit="m", above=0)
    detector_pixel: float = setting(1e-6, "in the sample", unit="m", above=0)
    width: int = setting(2048, "columns of the detector", at_least=8)
    height: int = setting(1024, "rows that are lit", at_least=1)
    detector_blur: float = setting(1.0, "full width at half maximum", unit="pixel", at_least=0)
    views: int = setting(1, "angles of a tomogram; 1 = one projection", at_least=1)


class Speckle(Method):
    """Angles along both directions, from the displacement of a pattern."""

    name, settings = "speckle", Settings
    free = ("exposure", "energy", "distance", "views")

    def predict(self, s: Any, tables: Any) -> Prediction:
        """Tell displacements with the variance `c^2 / (V^2 N)` along each direction, of N photons of each scan.

        The mean square slope of a pattern of contrast V whose autocorrelation is `exp(-r^2 / (2 c^2))` is `V^2 / c^2`;
        the angle is `delta` times the slope of the thickness.
        """
        delta, mu, _ = tables.at(s.energy)
        fluence = s.flux * s.exposure * s.positions / (s.width * s.height * s.detector_pixel**2)
        empty = fluence * s.efficiency
        behind = empty * jnp.exp(-mu * s.thickness)
        counted = 1 / (1 / behind + 1 / empty)  # the pattern without the sample is as noisy
        angle = counted * (s.contrast * s.distance * FWHM / s.grain) ** 2
        blur = s.detector_blur * s.detector_pixel / FWHM

        def information(f: Any) -> Any:
            kept = pixel_transfer(jnp, f, s.detector_pixel, blur)
            sampled = jnp.clip((0.5 - f * s.detector_pixel) / 0.01 + 0.5, 0.0, 1.0)
            return angle * delta**2 * (2 * np.pi * f) ** 2 * kept**2 * sampled

        pixel = jnp.asarray(s.detector_pixel)
        floors = {"pixel": pixel, "blur": jnp.hypot(pixel, blur * FWHM) * (s.detector_blur > 0)}
        share = CRITERION / detail_ratio(information, s.detail, jnp.asarray(s.views, float))
        thickness = np.sqrt(2 * np.pi) * s.detail / FWHM
        own = {
            "angle of a pixel [rad]": 1 / jnp.sqrt(angle * s.detector_pixel**2),
            "phase of a detail [rad]": share * thickness * delta * 2 * np.pi * s.energy / physics.HC,
        }
        return Prediction(information, s.views, floors, s.views * fluence, (s.views + 1) * s.positions, own)

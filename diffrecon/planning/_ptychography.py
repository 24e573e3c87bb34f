"""Ptychography and ptycho-tomography: every photon that meets the object, shared between phase and attenuation."""

import dataclasses
from typing import Any

import jax.numpy as jnp
import numpy as np

from .. import physics
from ..errors import InputError
from ..settings import setting
from ._method import Measurement, Method, Prediction

OVERLAP = 0.6  # of the probe's width: the largest step that leaves neighbours enough in common


@dataclasses.dataclass(frozen=True)
class Settings(Measurement):
    """A coherent spot that is scanned over the sample; diffraction patterns in the far field."""

    energy: float = setting(8e3, "of the beam", unit="eV", at_least=1e3, at_most=2e5)
    flux: float = setting(1e8, "coherent photons a second in the spot", above=0)
    exposure: float = setting(0.1, "of one position", unit="s", above=0)
    overhead: float = setting(0.02, "between positions", unit="s", at_least=0)
    thickness: float = setting(10e-6, "of the sample along the beam", unit="m", above=0)
    detail: float = setting(
        50e-9, "size for which a sensitivity is said (full width at half maximum)", unit="m", above=0
    )
    probe: float = setting(2e-6, "width of the spot on the sample", unit="m", above=0)
    step: float = setting(0.6e-6, "between positions", unit="m", above=0)
    field: float = setting(20e-6, "side of the square that is scanned", unit="m", above=0)
    detector_distance: float = setting(5.0, "sample-detector", unit="m", above=0)
    detector_pixel: float = setting(75e-6, "of the detector", unit="m", above=0)
    frame: int = setting(512, "pixels along a side of the pattern that are used", at_least=8)
    position_error: float = setting(0.0, "of positions that are not refined, root mean square", unit="m", at_least=0)
    views: int = setting(1, "angles of a tomogram; 1 = one projection", at_least=1)

    def checked(self) -> "Settings":
        """Refuse scans without overlap and patterns that are undersampled."""
        if self.step > OVERLAP * self.probe:
            raise InputError(
                f"step = {self.step:g} m leaves a probe of {self.probe:g} m too little overlap: "
                f"{OVERLAP * self.probe:.3g} m at most"
            )
        wavelength = physics.HC / self.energy
        seen = wavelength * self.detector_distance / self.detector_pixel
        if seen < self.probe:
            raise InputError(
                f"detector_distance = {self.detector_distance:g} m: patterns of a probe of {self.probe:g} m are "
                f"undersampled; {self.probe * self.detector_pixel / wavelength:.3g} m or more is needed"
            )
        if self.field < self.probe:
            raise InputError(f"field = {self.field:g} m is smaller than the probe of {self.probe:g} m")
        return self


class Ptychography(Method):
    """Far-field patterns of overlapping positions."""

    name, settings = "far-field-ptychography", Settings
    free = ("exposure", "energy", "step", "views", "detector_distance")

    def predict(self, s: Any, tables: Any) -> Prediction:
        """Give phase and attenuation half of the 4 n that photons can tell each, for n photons per area.

        In each pixel of a diverse pattern a weak change of the exit wave is seen by its part in phase with the wave
        that is there, on average half of its power (compare Dwyer & Paganin, Phys. Rev. B 110, 024110 (2024)).
        """
        delta, mu, _ = tables.at(s.energy)
        wavelength = physics.HC / s.energy
        fluence = s.flux * s.exposure / s.step**2
        counted = fluence * s.efficiency * jnp.exp(-mu * s.thickness)
        half_period = wavelength * s.detector_distance / (s.frame * s.detector_pixel)
        contrast = (2 * np.pi / wavelength * delta) ** 2 + (mu / 2) ** 2

        def information(f: Any) -> Any:
            seen = jnp.clip((0.5 / half_period - f) * half_period / 0.01 + 0.5, 0.0, 1.0)
            blurred = jnp.exp(-4 * (np.pi * s.position_error * f) ** 2)
            return 2 * counted * contrast * seen * blurred

        points = (s.field / s.step) ** 2
        own = {"phase of a pixel [rad]": 1 / jnp.sqrt(2 * counted * half_period**2)}
        return Prediction(information, s.views, {"detector": half_period}, s.views * fluence, s.views * points, own)

    def ends(self, settings: Settings) -> dict[str, tuple[float, float]]:
        """Keep the overlap, and the patterns sampled."""
        wavelength = physics.HC / settings.energy
        return {
            "step": (0.0, OVERLAP * settings.probe),
            "detector_distance": (settings.probe * settings.detector_pixel / wavelength, np.inf),
        }

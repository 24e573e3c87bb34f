"""Tensor SAXS tomography: fibres in voxels from a beam that scans the sample in many orientations."""

import dataclasses
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from ..errors import InputError
from ..settings import setting
from ._detail import scanned
from ._matter import Matter, matter
from ._method import Measurement, Method, Prediction
from ._orientations import noise_of_orders


@dataclasses.dataclass(frozen=True)
class Settings(Measurement):
    """A raster scan of a sample that turns about an axis, which is tilted besides."""

    flux: float = setting(1e10, "photons a second in the spot", above=0)
    exposure: float = setting(0.05, "dwell on one point", unit="s", above=0)
    overhead: float = setting(0.005, "between points", unit="s", at_least=0)
    thickness: float = setting(1e-3, "of the sample along the beam", unit="m", above=0)
    detail: float = setting(
        100e-6, "size for which a sensitivity is said (full width at half maximum)", unit="m", above=0
    )
    scattering: float = setting(
        1.0,
        "counts of all segments over photons behind the sample, for one metre of material; measure it",
        unit="1/m",
        above=0,
    )
    background: float = setting(1e4, "counts a second on all segments without sample, known from elsewhere", at_least=0)
    anisotropy: float = setting(0.5, "relative, of the fibres (0.9 at most without harmonics above 2)", above=0)
    order: int = setting(2, "highest harmonic solved for without help of priors, even; 2 = a tensor", at_least=2)
    segments: int = setting(8, "of the detector over half of the ring, whose opposite halves are added", at_least=3)
    views: int = setting(200, "orientations in all, spread evenly up to the largest tilt", at_least=2)
    largest_tilt: float = setting(
        np.pi / 4, "of the axis that turns; views everywhere at 90 degrees", unit="rad", above=0, at_most=np.pi / 2
    )
    spot: float = setting(50e-6, "full width at half maximum of the beam", unit="m", above=0)
    step: float = setting(50e-6, "between points, and side of a voxel", unit="m", above=0)
    field: float = setting(1.5e-3, "side of the square that is scanned", unit="m", above=0)

    def checked(self) -> "Settings":
        """Refuse odd orders, and those that the segments do not tell apart."""
        if self.order % 2:
            raise InputError(f"order = {self.order}: opposite directions scatter alike, give an even one")
        if self.segments <= self.order:
            raise InputError(
                f"segments = {self.segments} over half of the ring do not tell harmonics of order = {self.order}: more "
                "segments, or a lower order"
            )
        return self


class Tables(NamedTuple):
    """The sample's material, and what the orientations do to noise: `noise` as `noise_of_orders` gives it."""

    matter: Matter
    noise: tuple[float, float]


class TensorSaxs(Method):
    """Counts of azimuthal segments over a raster, in many orientations."""

    name, settings = "saxs-tensor-tomography", Settings
    free = ("exposure", "step", "views")

    def tables(self, settings: Settings, span: tuple[float, float] | None) -> Tables:
        """Look up the material and average over the orientations."""
        found = matter(settings.material, settings.energy, span)
        return Tables(found, noise_of_orders(settings.order, settings.largest_tilt, settings.segments))

    def material(self, tables: Tables) -> Matter:
        """Find the material among the tables."""
        return tables.matter

    def predict(self, s: Any, tables: Tables) -> Prediction:
        """Tell a fibre of relative anisotropy r: angle `sqrt(2 v_2 / 3) / r`, anisotropy `sqrt(v_2 + r^2 v_0)`.

        `v_l` is the variance of a coefficient of order l over the mean intensity of a voxel, of which all others are
        unknown too. N counts on a point, n of them from one voxel: `v_l = pi / 16 N / (views n^2)` times the noise of
        that order (the integral of the inverse information over the ball of frequencies up to `1 / (2 step)`). A turn
        of the fibre by a small angle changes its coefficients of order l by `sqrt(l (l + 1) / 2)` of their norm.
        """
        _, mu, _ = tables.matter.at(s.energy)
        behind = s.flux * s.exposure * s.efficiency * jnp.exp(-mu * s.thickness)
        counts = behind * s.scattering * s.thickness + s.background * s.exposure
        point = (behind * s.scattering) ** 2 / counts  # information on the thickness of material [1/m^2]
        mean, second = (np.pi / 16 * noise / (s.views * point * s.step**2) for noise in tables.noise)
        own = {
            "angle of a fibre [rad]": jnp.sqrt(2 / 3 * second) / s.anisotropy,
            "relative anisotropy": jnp.sqrt(second + s.anisotropy**2 * mean),
        }
        # Crowther's planes a cell of frequencies, order / 2 + 1 of them for as many unknowns, where they are rarest.
        sparse = (s.order / 2 + 1) * np.pi * np.sin(s.largest_tilt) / (2 * s.largest_tilt)
        floors = {"spot": jnp.asarray(s.spot), "step": jnp.asarray(s.step), "views": sparse * s.thickness / s.views}
        fluence = s.views * s.flux * s.exposure / s.step**2
        frames = s.views * (s.field / s.step) ** 2
        return Prediction(scanned(point, s.spot, s.step), s.views, floors, fluence, frames, own)

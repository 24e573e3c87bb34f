"""Powder diffraction tomography: amount and lattice of a phase in voxels, from one of its rings."""

import dataclasses
from typing import Any

import jax.numpy as jnp
import numpy as np

from ..settings import setting
from ._detail import FWHM, scanned
from ._matter import Matter, matter
from ._method import Measurement, Method, Prediction

_CHANNELS = np.linspace(-6.0, 6.0, 241)  # across the peak, in its standard deviations


@dataclasses.dataclass(frozen=True)
class Settings(Measurement):
    """A pencil beam that scans slices at angles over half a turn, a detector behind the sample."""

    energy: float = setting(40e3, "of the beam", unit="eV", at_least=1e3, at_most=2e5)
    flux: float = setting(1e10, "photons a second in the spot", above=0)
    exposure: float = setting(0.05, "dwell on one point", unit="s", above=0)
    overhead: float = setting(0.005, "between points", unit="s", at_least=0)
    material: str = setting("CeO2, 7.2", "of the phase, with its density [g/cm^3]")
    thickness: float = setting(0.5e-3, "diameter of the sample, along the beam", unit="m", above=0)
    detail: float = setting(
        20e-6, "size for which a sensitivity is said (full width at half maximum)", unit="m", above=0
    )
    fraction: float = setting(0.1, "of the volume that is the phase, in a voxel and along the rays", above=0, at_most=1)
    scattering: float = setting(
        1.0,
        "counts of the ring on the detector over photons behind the sample, for one metre of solid phase; measure it",
        unit="1/m",
        above=0,
    )
    two_theta: float = setting(np.radians(9.0), "of the ring", unit="rad", above=0, below=np.pi)
    width: float = setting(np.radians(0.1), "full width at half maximum of the ring in two_theta", unit="rad", above=0)
    background: float = setting(
        1e4, "counts a second below the ring within its full width at half maximum, known from elsewhere", at_least=0
    )
    views: int = setting(180, "angles over half a turn", at_least=2)
    spot: float = setting(10e-6, "full width at half maximum of the beam", unit="m", above=0)
    step: float = setting(10e-6, "between points and between slices, and side of a voxel", unit="m", above=0)
    field: float = setting(0.6e-3, "scanned across the rotation axis", unit="m", above=0)
    height: float = setting(0.1e-3, "scanned along the axis, in slices a step apart", unit="m", above=0)


class DiffractionTomography(Method):
    """Counts of a ring over views and points."""

    name, settings = "diffraction-tomography", Settings
    free = ("exposure", "step", "views")

    def tables(self, settings: Settings, span: tuple[float, float] | None) -> Matter:
        """Look up the phase; the sample absorbs as its share of it: what else is there is taken as light."""
        solid = matter(settings.material, settings.energy, span)
        return dataclasses.replace(solid, attenuation=settings.fraction * solid.attenuation)

    def predict(self, s: Any, tables: Any) -> Prediction:
        """Tell the amount of a phase from the counts of its ring, and its lattice from where they are.

        A ray's ring of A counts with the Gaussian shape g(y), y in its deviations, over b counts a deviation tells a
        share of A with the information `A^2 integral g^2 / (A g + b)`, and its place with `A^2 integral y^2 g^2 /
        (A g + b)` (A each without background). Filtered back-projection up to the Nyquist frequency makes of the
        variance v of rays `pi^2 / (12 views step^2) v` in a voxel. Bragg: `strain = -shift / (2 tan(two_theta / 2))`.
        """
        _, mu, _ = tables.at(s.energy)
        behind = s.flux * s.exposure * s.efficiency * jnp.exp(-mu * s.thickness)
        ring = behind * s.scattering
        shape = np.exp(-(_CHANNELS**2) / 2) / np.sqrt(2 * np.pi)
        per_count = shape**2 / (ring * s.fraction * s.thickness * shape + s.background * s.exposure / FWHM)
        place = _CHANNELS[1] - _CHANNELS[0]
        # Of the thickness of phase, and of the same times its shift: [1/m^2].
        amount, moment = (ring**2 * place * jnp.sum(per_count * w) for w in (1.0, _CHANNELS**2))
        voxel = lambda point: np.pi / jnp.sqrt(12 * s.views * s.step**2 * point)
        shift = voxel(moment) / s.fraction * s.width / FWHM
        own = {
            "volume fraction": voxel(amount),
            "lattice strain": shift / (2 * jnp.tan(s.two_theta / 2)),
        }
        floors = {
            "spot": jnp.asarray(s.spot),
            "step": jnp.asarray(s.step),
            "views": jnp.asarray(np.pi * s.thickness / (2 * s.views)),  # Crowther et al. 1970
        }
        fluence = s.views * s.flux * s.exposure / s.step**2
        frames = s.views * s.field / s.step * jnp.maximum(s.height / s.step, 1.0)  # one slice at least
        return Prediction(scanned(amount, s.spot, s.step), s.views, floors, fluence, frames, own)

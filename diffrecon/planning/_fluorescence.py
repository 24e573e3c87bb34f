"""Maps of an element by the counts of its line, point by point."""

import dataclasses
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from .. import physics
from ..models import attenuation_of, emission_line, excited_line
from ..operators import slab_share
from ..settings import setting
from ._detail import scanned
from ._matter import Matter, matter
from ._method import Measurement, Method, Prediction

DETECTION = 3.0  # standard deviations of the blank (Currie, Anal. Chem. 40, 586 (1968))


@dataclasses.dataclass(frozen=True)
class Settings(Measurement):
    """A focused beam over a slab that holds traces of an element; a detector for its line."""

    energy: float = setting(12e3, "of the beam", unit="eV", at_least=1e3, at_most=2e5)
    flux: float = setting(1e9, "photons a second in the spot", above=0)
    exposure: float = setting(0.1, "dwell on one point", unit="s", above=0)
    overhead: float = setting(0.005, "between points", unit="s", at_least=0)
    efficiency: float = setting(1.0, "share of the line's photons on the detector that is counted", above=0, at_most=1)
    material: str = setting("H2O, 1", "of the slab, with its density [g/cm^3]")
    thickness: float = setting(10e-6, "of the slab along the beam", unit="m", above=0)
    difference: float = setting(0.01, "density of the element in a detail, over that of the slab", above=0)
    line: str = setting("Fe Ka", "of the element: Fe Ka, Fe K (the family), Pb La ...")
    solid_angle: float = setting(0.1, "of the detector [sr]", above=0, at_most=4 * np.pi)
    incidence: float = setting(np.pi / 2, "between beam and surface", unit="rad", above=0, at_most=np.pi / 2)
    takeoff: float = setting(
        np.pi / 4,
        "between surface and the way to the detector, before the slab",
        unit="rad",
        above=0,
        at_most=np.pi / 2,
    )
    background: float = setting(100.0, "counts a second below the line, known from elsewhere", above=0)
    spot: float = setting(0.5e-6, "full width at half maximum of the beam", unit="m", above=0)
    step: float = setting(0.5e-6, "between points", unit="m", above=0)
    field: float = setting(50e-6, "side of the square that is scanned", unit="m", above=0)


class Tables(NamedTuple):
    """What slab and line do at energies.

    **Fields:** `matter` of the slab; `production` `(energy, part)` of the parts of the line [cm^2/g], at the energies
    of `matter`; `lines` `(part,)`, attenuation of the slab for them [1/m]; `atom` [g], mass of one.
    """

    matter: Matter
    production: np.ndarray
    lines: np.ndarray
    atom: float

    def at(self, energy: Any) -> Array:
        """Give the production of the parts [cm^2/g] at an energy [eV]."""
        place, nodes = jnp.log(energy), np.log(self.matter.energies)
        return jnp.stack([jnp.exp(jnp.interp(place, nodes, np.log(part))) for part in self.production.T])


class FluorescenceMap(Method):
    """Counts of one line over a raster."""

    name, settings = "fluorescence-map", Settings
    free = ("exposure", "energy", "step")

    def tables(self, settings: Settings, span: tuple[float, float] | None) -> Tables:
        """Look up slab and line.

        **Raises:** `InputError` for a line that the beam does not excite, at the lowest energy of the range.
        """
        slab = matter(settings.material, settings.energy, span)
        found = [emission_line(settings.line, float(e)) for e in slab.energies]
        lowest = found[0]
        formula, _ = physics.material(settings.material)
        lines = [100 * slab.density * attenuation_of(formula, float(e)) for e in lowest.energies]
        return Tables(
            slab,
            np.array([f.production for f in found]),
            np.array(lines),
            physics.molar_mass(lowest.element) / physics.AVOGADRO,
        )

    def ends(self, settings: Settings) -> dict[str, tuple[float, float]]:
        """Keep the line excited."""
        line = excited_line(settings.line, settings.energy)
        edges = [e for shell, e in physics.edges_by_shell(line.element).items() if shell[0] == line.name[0]]
        return {"energy": (1.001 * max(e for e in edges if e < settings.energy), np.inf)}

    def material(self, tables: Tables) -> Matter:
        """Find the slab among the tables."""
        return tables.matter

    def predict(self, s: Any, tables: Tables) -> Prediction:
        """Count the line: photons, solid angle, production, areal mass, and the share that a slab lets through.

        What is not there is told from what is by the background's noise alone, the blank; a detail whose own counts are
        as many is seen a little later.
        """
        photons = s.flux * s.exposure
        _, mu, _ = tables.matter.at(s.energy)
        depth = s.thickness * np.sin(s.incidence) / np.sin(s.takeoff)
        shares = slab_share(mu * s.thickness * jnp.ones(len(tables.lines)), tables.lines * depth)
        seen = s.solid_angle / (4 * np.pi) * s.efficiency * jnp.sum(tables.at(s.energy) * shares)
        one = photons * seen  # counts of 1 g/cm^2 across the beam
        blank = s.background * s.exposure
        information = scanned((one * 100 * tables.matter.density) ** 2 / blank, s.spot, s.step)
        # One count at least, as the recipe has it: where none is below the line, fewer than three are no line.
        limit = DETECTION * jnp.sqrt(jnp.maximum(blank, 1.0)) / one
        grams = limit * 1e4 * s.spot**2
        own = {
            "limit of detection [g/cm^2]": limit * np.sin(s.incidence),
            "limit in the spot [g]": grams,
            "limit in the spot, atoms": grams / tables.atom,
        }
        points = (s.field / s.step) ** 2
        return Prediction(
            information, 1, {"spot": jnp.asarray(s.spot), "step": jnp.asarray(s.step)}, photons / s.step**2, points, own
        )

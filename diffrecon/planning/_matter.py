"""What a material does at an energy, as differentiable functions of it."""

import dataclasses

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from .. import physics
from ..errors import InputError

_POINTS = 97  # energies tabulated over a range


@dataclasses.dataclass(frozen=True)
class Matter:
    """Tables of a material over energies, between which it is interpolated in logarithms.

    **Fields:** `density` [g/cm^3]; `energies` [eV]; `delta`; `attenuation` [1/m]; `absorption` = mu_en/rho [m^2/kg].
    The given energy is one of the nodes, so that what is said of it is what `physics` says.
    """

    density: float
    energies: np.ndarray
    delta: np.ndarray
    attenuation: np.ndarray
    absorption: np.ndarray

    def at(self, energy: Float[Array, ""] | float) -> tuple[Array, Array, Array]:
        """Give `(delta, attenuation [1/m], mu_en/rho [m^2/kg])` at an energy [eV]."""
        place = jnp.log(energy)
        between = lambda values: jnp.exp(jnp.interp(place, np.log(self.energies), np.log(values)))
        return between(self.delta), between(self.attenuation), between(self.absorption)


def matter(composition: str, energy: float, span: tuple[float, float] | None = None) -> Matter:
    """Tabulate a material at an energy [eV], and over a range of energies for those who differentiate.

    **Raises:** `InputError` for an unknown material, one without density, or an energy outside of the tables.
    """
    formula, density = physics.material(composition)
    if density is None:
        raise InputError(f'material = {composition!r} needs a density in g/cm^3, such as "SiO2, 2.2"')
    nodes = np.unique(np.append(np.geomspace(*span, _POINTS) if span else [], energy))
    pairs = np.array([physics.delta_beta(formula, density, float(e)) for e in nodes])
    mu = physics.attenuation_coefficient(pairs[:, 1], physics.energy_to_wavelength(nodes))
    absorbed = np.array([physics.energy_absorption(formula, float(e)) for e in nodes])
    return Matter(density, nodes, pairs[:, 0], np.asarray(mu), absorbed)

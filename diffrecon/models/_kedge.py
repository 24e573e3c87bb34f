"""Radiographs at several energies: areal densities of named materials."""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from .. import physics
from .._model import Model
from ..errors import InputError

__all__ = ["KEdge", "attenuation_table"]


class KEdge(Model):
    """Expected counts behind materials, one view an energy: `flats exp(-sum_m attenuation_m areal_m) + darks`.

    **Fields:** `areal` `(material, y, x)` [g/cm^2]; `attenuation` `(view, material)`, mass attenuation coefficients
    [cm^2/g]; `flats` `(view, y, x)` or `(view, 1, 1)`, the empty beam less the dark, `darks` `(y, x)` [counts];
    `flats_variance`, relative variance of the flats by their own photons: `(view, y, x)`, or `(1, y, x)` where one
    flat serves all views and its error is common to them. Any may be an unknown, such as
    `unknowns=("areal", "flats")` with flats of one number a view.

    ```python
    table = attenuation_table({"Ni": "Ni", "glass": "SiO2"}, (8.25e3, 8.42e3))
    model = KEdge(jnp.zeros((2, 8, 8)), jnp.asarray(table), jnp.full((2, 1, 1), 1e4), jnp.zeros((1, 1)))
    assert jnp.allclose(model(np.arange(2)), 1e4)
    ```
    """

    areal: Float[Array, "material y x"]
    attenuation: Float[Array, "view material"]
    flats: Float[Array, "view #y #x"]
    darks: Float[Array, "#y #x"]
    flats_variance: Float[Array, "#view #y #x"] | None = None

    unknowns: ClassVar[tuple[str, ...]] = ("areal",)

    def __call__(self, views: Any) -> Float[Array, "view y x"]:
        """Expected counts of some views."""
        return self.signal(views) + self.darks

    def signal(self, views: Any) -> Float[Array, "view y x"]:
        """Counts of the beam alone, without the dark."""
        depth = jnp.einsum("vm,myx->vyx", self.attenuation[views], self.areal, precision="highest")
        return self.flats[views] * jnp.exp(-depth)

    def weight(self, views: Any) -> Float[Array, "view y x"]:
        """Information of the counts on the optical depth of every view, were the flats exact. A view that saw nothing
        counts as a hundredth of a photon."""
        signal = self.signal(views)
        return jnp.maximum(signal**2 / jnp.maximum(signal + self.darks, 1e-3), 1e-2)

    def beside_flats(
        self, views: Any, values: Float[Array, "view y x"], weight: Float[Array, "view y x"]
    ) -> Float[Array, "view y x"]:
        """Take from a gradient by the optical depths, or from `weight` times a direction, what the flats may explain.

        The error of a flat is an unknown beside the depth, of Gaussian prior, and is eliminated: with the diagonal
        matrix W of the weights and the covariance V of the flats' logarithms this is `(1 + W V)^-1` (Woodbury).
        """
        noise = self.flats_variance
        if noise is None:
            return values
        if len(noise) == 1 < len(self.flats):  # one flat: V is the same in all its entries
            return values - weight * noise * values.sum(0) / (1 + noise * weight.sum(0))
        return values / (1 + weight * noise[views])

    def information(self, views: Any) -> Float[Array, "y x material material"]:
        """Fisher information of Poisson counts, behind flats that have noise of their own, on the areal densities of
        every pixel [cm^4/g^2]; its inverse is the covariance of the best unbiased estimate."""
        table, weight = self.attenuation[views], self.weight(views)
        seen = [self.beside_flats(views, weight * column[:, None, None], weight) for column in table.T]
        return jnp.einsum("vm,nvyx->yxmn", table, jnp.stack(seen), precision="highest")


def attenuation_table(
    materials: Mapping[str, str] | Sequence[str], energies: Sequence[float]
) -> Float[np.ndarray, "energy material"]:
    """Mass attenuation coefficients [cm^2/g] of compositions at energies [eV], tables of Elam (no fine structure at
    edges).

    **Raises:** `InputError` for what is no composition, an energy outside of the tables, or materials that the energies
    cannot tell apart; `MissingPackage` without xraydb.
    """
    named = materials if isinstance(materials, Mapping) else {str(m): m for m in materials}
    table = np.array([[10 * physics.mass_attenuation(c, float(e)) for c in named.values()] for e in energies])
    check_table(table, list(named), energies)
    return table


def check_table(table: np.ndarray, names: Sequence[str], energies: Sequence[float]) -> float:
    """Refuse a table that cannot be inverted; returns the condition of its columns scaled to one.

    **Raises:** `InputError` for coefficients that are not positive, fewer different energies than materials, or columns
    that are proportional to one part in a thousand.
    """
    count, several = len(np.unique(np.round(np.asarray(energies, float), 3))), len(names)
    told = ", ".join(f"{e / 1e3:.5g}" for e in energies)
    if not (np.isfinite(table).all() and (table > 0).all()):
        raise InputError(f"k-edge: mass attenuation coefficients {table.tolist()} cm^2/g must be positive")
    if count < several:
        raise InputError(
            f"k-edge: {several} materials ({', '.join(names)}) need as many different energies, and "
            f"{count} are there: {told} keV"
        )
    values = np.linalg.svd(table / np.linalg.norm(table, axis=0), compute_uv=False)
    if values[-1] < 1e-3 * values[0]:
        raise InputError(
            f"k-edge: {', '.join(names)} attenuate in the same proportion at {told} keV: the energies "
            "cannot tell them apart; take energies on both sides of an edge of one of them"
        )
    return float(values[0] / values[-1])

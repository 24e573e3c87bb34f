"""Tomograms at several energies: densities of named materials behind the spectrum of each energy."""

from typing import Any, ClassVar, Self

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from .. import physics
from .._model import Model
from ..operators import ParallelProjector

__all__ = ["KEdgeTomography", "attenuation_spectra"]

_NODES = 41  # of a spectrum
_WIDEST = 2.5  # standard deviations of the energy that a monochromator lets through: 99 % of a normal law
_HARMONIC = 3  # times the energy
_FWHM = 2.3548200450309493  # full width at half maximum of a normal law, in standard deviations


class KEdgeTomography(Model):
    """Expected counts behind volumes of densities:
    `beam exp(drift + gain) sum_k share_k exp(-sum_m coefficients_km int density_m dt) + darks`.

    **Fields:** `density` `(material, z, y, x)` [g/cm^3]; `drift` `(view,)`, logarithm of the brightness of each view
    over its flats; `gain` `(energy, z, u)`, of each pixel over its flats; `moves` `(energy, 4)` [pixel]: how far the
    picture at an energy has moved along the columns, the sample along its own x and y, and the picture along the rows;
    `projector` of all views; `turn` `(view, 2)`, cosine and sine of the angles; `energy_of` `(view,)`, which energy;
    `coefficients` `(energy, node, material)` [cm^2/g] and `shares` `(energy, node)` of the spectrum of each energy;
    `beam` `(energy, z, u)`, the flats less the dark, `darks` `(z, u)` [counts]; `noise`: variance of a count over its
    signal, and of the readout [counts^2]; `pixel` [cm].

    ```python
    angles = np.linspace(0, np.pi, 12, endpoint=False)
    table, shares = attenuation_spectra({"water": "H2O", "iodine": "I"}, (33.0e3, 33.4e3))
    model = KEdgeTomography.empty((1, 16, 16), np.tile(angles, 2), np.repeat([0, 1], 12), table, shares, 0.01)
    assert jnp.allclose(model(np.arange(3)), 1.0) and model(np.arange(24)).shape == (24, 1, 16)
    ```
    """

    density: Float[Array, "material z y x"]
    drift: Float[Array, " view"]
    gain: Float[Array, "energy z u"]
    moves: Float[Array, "energy 4"]
    projector: ParallelProjector
    turn: Float[Array, "view 2"]
    energy_of: Int[Array, " view"]
    coefficients: Float[Array, "energy node material"]
    shares: Float[Array, "energy node"]
    beam: Float[Array, "energy z u"]
    darks: Float[Array, "#z #u"]
    noise: Float[Array, "2"]
    pixel: Float[Array, ""]

    unknowns: ClassVar[tuple[str, ...]] = ("density",)

    @classmethod
    def empty(
        cls,
        shape: tuple[int, int, int],
        angles: Float[np.ndarray, " view"],
        energy_of: Int[np.ndarray, " view"],
        coefficients: Float[np.ndarray, "energy node material"],
        shares: Float[np.ndarray, "energy node"],
        pixel: float,
        *,
        centre: float | None = None,
        columns: Float[np.ndarray, " energy"] | None = None,
        beam: Any = 1.0,
        darks: Any = 0.0,
        noise: tuple[float, float] = (1.0, 0.0),
    ) -> Self:
        """Make the model of nothing in the beam; detector rows and columns are those of the volume `shape` (z, y, x).

        **Arguments:** `angles` [rad] and energies of all views; `pixel` [cm]; `centre`, column of the axis; `columns`,
        by how many the picture at each energy has moved.
        """
        rows, _, width = shape
        real = lambda a: jnp.asarray(a, jnp.result_type(float))
        energies, views = len(shares), len(angles)
        moves = np.zeros((energies, 4))
        moves[:, 0] = 0.0 if columns is None else columns
        projector = ParallelProjector(angles, shape[1:], width, centre=centre, shifts=moves[energy_of, 0])
        return cls(
            real(np.zeros((coefficients.shape[-1], *shape))), real(np.zeros(views)),
            real(np.zeros((energies, rows, width))), real(moves), projector,
            real(np.stack([np.cos(angles), np.sin(angles)], 1)), jnp.asarray(energy_of, jnp.int32), real(coefficients),
            real(shares), real(np.broadcast_to(beam, (energies, rows, width))),
            real(np.broadcast_to(darks, (rows, width))), real(noise), real(pixel),
        )  # fmt: skip

    def __call__(self, views: Any) -> Float[Array, "view z u"]:
        """Expected counts of some views."""
        return self.signal(views) + self.darks

    def signal(self, views: Any) -> Float[Array, "view z u"]:
        """Counts of the beam alone, without the dark."""
        depth, _ = self.attenuated(self.thickness(self.density, views), views)
        return self.light(depth, views)

    def light(self, depth: Float[Array, "view z u"], views: Any) -> Float[Array, "view z u"]:
        """Counts of the beam behind optical depths."""
        energy = self.energy_of[views]
        return self.beam[energy] * jnp.exp(self.drift[views][:, None, None] + self.gain[energy] - depth)

    def thickness(self, density: Float[Array, "material z y x"], views: Any) -> Float[Array, "view material z u"]:
        """Areal densities [g/cm^2] of volumes along the rays of some views."""
        count, rows = density.shape[:2]
        move = self.moves[self.energy_of]
        shifts = move[:, 0] + jnp.sum(move[:, 1:3] * self.turn, 1)
        projector = eqx.tree_at(lambda p: p.shifts, self.projector, shifts.astype(self.projector.centre.dtype))
        lines = projector(density.reshape(-1, *density.shape[2:]), jnp.asarray(views))
        lines = self.pixel * lines.reshape(lines.shape[0], count, rows, -1)
        return lines if rows < 2 else _rows_moved(lines, move[views, 3])

    def attenuated(
        self, thickness: Float[Array, "view material z u"], views: Any
    ) -> tuple[Float[Array, "view z u"], Float[Array, "view material z u"]]:
        """Optical depth behind areal densities, and its derivatives by them [cm^2/g]: means over the spectrum."""
        table, shares = self.coefficients[self.energy_of[views]], self.shares[self.energy_of[views]]
        each = jnp.einsum("vkm,vmzu->vkzu", table, thickness, precision="highest")
        least = jnp.min(each, 1, keepdims=True)
        left = shares[:, :, None, None] * jnp.exp(least - each)
        total = jnp.sum(left, 1)
        slope = jnp.einsum("vkzu,vkm->vmzu", left, table, precision="highest") / total[:, None]
        return least[:, 0] - jnp.log(total), slope

    def of_views(self, views: Any) -> Self:
        """Make the model of some views."""
        return self.replace(
            projector=self.projector.subset(np.asarray(views)), drift=self.drift[views], turn=self.turn[views],
            energy_of=self.energy_of[views],
        )  # fmt: skip


def _rows_moved(lines: Float[Array, "view material z u"], move: Float[Array, " view"]) -> Array:
    """Move pictures along the rows, linear between them; beyond the first and last row all is as there."""
    place = jnp.arange(lines.shape[2]) - move[:, None]
    place = jnp.clip(place, 0, lines.shape[2] - 1)
    first = jnp.minimum(jnp.floor(place).astype(jnp.int32), lines.shape[2] - 2)
    share = (place - first)[:, None, :, None]
    row = lambda which: jnp.take_along_axis(lines, which[:, None, :, None], 2)
    return (1 - share) * row(first) + share * row(first + 1)


def attenuation_spectra(
    materials: dict[str, str], energies: Any, bandwidth: float = 0.0, harmonics: float = 0.0
) -> tuple[Float[np.ndarray, "energy node material"], Float[np.ndarray, "energy node"]]:
    """Mass attenuation coefficients [cm^2/g] over the spectra of a monochromator, tables of Elam, and shares of nodes.

    The spectrum is a normal law, cut at 2.5 standard deviations, of relative full width at half maximum `bandwidth`.
    Behind it a material with an edge attenuates less than its mean coefficient says: the light that it lets through is
    that beside the edge. A share `harmonics` of the counts of the empty beam is at three times the energy, as behind
    silicon (111).

    ```python
    table, shares = attenuation_spectra({"gadolinium": "Gd"}, [50.089e3], bandwidth=0.01)
    assert table.min() < 4.0 and table.max() > 18.0  # the band holds the K edge
    ```
    """
    unit = np.linspace(-_WIDEST, _WIDEST, _NODES) if bandwidth else np.zeros(1)
    share = np.exp(-(unit**2) / 2) / np.exp(-(unit**2) / 2).sum()
    places, share = 1 + unit * bandwidth / _FWHM, share * (1 - harmonics)
    if harmonics:
        places, share = np.append(places, _HARMONIC), np.append(share, harmonics)
    nodes = np.asarray(energies, float)[:, None] * places
    table = [[[10 * physics.mass_attenuation(c, float(e)) for c in materials.values()] for e in row] for row in nodes]
    return np.array(table), np.broadcast_to(share, nodes.shape).copy()

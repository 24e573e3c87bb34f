"""Fluorescence tomography: counts of many lines, Compton scattering and transmission from the densities of elements."""

import dataclasses
from typing import Any, ClassVar

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from .._model import Model
from ..errors import InputError
from ..operators import Escape, path_in, turn_to_beam
from ..scan import Scan

__all__ = ["CrossSections", "Fluorescence"]


@dataclasses.dataclass(frozen=True)
class CrossSections:
    """What components do to the beam and to the lines, in [cm^2/g].

    **Fields:** `components`: names, the light matrix first; `channels`: elements whose lines were counted, and
    `"compton"`; `emission` `(channel, component)`: production times detection, counts = photons times its integral;
    `beam` `(component,)` and `lines` `(channel, component)`: attenuation; `directions` `(direction, 3)`, u, t, z, and
    their `weights` `(direction, channel)`; `table`: where the numbers are from.
    """

    components: tuple[str, ...]
    channels: tuple[str, ...]
    emission: np.ndarray
    beam: np.ndarray
    lines: np.ndarray
    directions: np.ndarray
    weights: np.ndarray
    table: str = "the file's"

    def check(self, name: str) -> "CrossSections":
        """Refuse tables whose shapes do not fit, that are not positive, or that leave a component without a signal.

        **Raises:** `InputError` that begins with `name`.
        """
        channels, components = len(self.channels), len(self.components)
        for field, shape in {
            "emission": (channels, components), "lines": (channels, components), "beam": (components,),
            "directions": (len(self.directions), 3), "weights": (len(self.directions), channels),
        }.items():  # fmt: skip
            values = getattr(self, field)
            if values.shape != shape or not np.isfinite(values).all():
                raise InputError(f"{name}: cross sections: {field} {values.shape}, expected finite numbers {shape}")
        silent = [c for c, e in zip(self.components[1:], self.emission.T[1:], strict=True) if not e.any()]
        if silent:
            raise InputError(f"{name}: {', '.join(silent)} has no line that was counted; leave it out")
        return self


class Fluorescence(Model):
    """Expected counts of every line, and of the transmitted beam as the last channel, of scan points of some views.

    `photons emission int rho A_in A_out dt`, with the beam's attenuation on its way in and the mean over the detector's
    cone of the line's on its way out.

    **Fields:** `scaled` `(component, z, y, x)`: densities in units of `unit`, which broadcasts against it [g/cm^3];
    `fine`: voxels in a step of the scan along y and x, over which absorption is the same;
    `offsets` `(view,)`: where the rotation axis is seen, from the middle of the scan, with its sign turned [step];
    `exposure` `(view, z, u, channel)`: photons that count, of the transmitted beam counts without a sample; `emission`,
    `lines` `(channel, component)`, `beam` `(component,)`: per step and g/cm^3; `gain` `(channel,)`: factors of
    solid angle and monitor; `secondary` `(view, z, u, line)`: counts for one photon by light of other lines, given
    (`secondary_counts`).

    **Cost:** about 0.1 CPU s for a gradient of 64^2 voxels, 90 views, 5 channels, 12 directions.
    """

    scaled: Float[Array, "component z y x"]
    unit: Float[Array, "component #z #y #x"]
    offsets: Float[Array, " view"]
    gain: Float[Array, " channel"]
    angles: Float[Array, " view"]
    exposure: Float[Array, "view z u channel"]
    emission: Float[Array, "line component"]
    lines: Float[Array, "line component"]
    beam: Float[Array, " component"]
    escape: Escape = eqx.field(static=True)
    fine: int = eqx.field(static=True, default=1)
    secondary: Float[Array, "view z u line"] | None = None

    unknowns: ClassVar[tuple[str, ...]] = ("scaled",)

    @classmethod
    def from_scan(cls, scan: Scan) -> "Fluorescence":
        """Put an empty body into the beam of a scan whose `extra` holds `cross_sections`, `photons` and the rest.

        **Raises:** `InputError` for a scan without them.
        """
        extra, (rows, columns) = scan.extra, scan.frame_shape
        for key in ("cross_sections", "photons"):
            if key not in extra:
                raise InputError(f"{scan.name}: fluorescence tomography needs {key}, which this file does not hold")
        if scan.pixel_size is None:
            raise InputError(f'{scan.name}: the step of the scan is missing: --set geometry.pixel_size="1.5 um"')
        tables = CrossSections(**extra["cross_sections"]).check(scan.name)
        photons = np.asarray(extra["photons"], float)
        live = np.asarray(extra.get("live_fraction", 1.0)) * np.ones_like(photons)
        exposure = np.repeat((photons * live)[..., None], len(tables.channels), -1)
        exposure = np.concatenate([exposure, _open_beam(scan, photons)[..., None]], -1)
        centimetres = 100 * float(np.mean(scan.pixel_size))
        middle = (columns - 1) / 2
        offset = middle - (middle if scan.rotation_centre is None else scan.rotation_centre)
        cast = lambda a: jnp.asarray(a, jnp.float32)
        count = len(tables.components)
        return cls(
            cast(np.zeros((count, rows, columns, columns))), cast(np.ones((count, 1, 1, 1))),
            cast(np.full(scan.views, offset)), cast(np.ones(len(tables.channels) + 1)), cast(scan.angles),
            cast(exposure), cast(tables.emission * centimetres), cast(tables.lines * centimetres),
            cast(tables.beam * centimetres), Escape(tables.directions, tables.weights),
        )  # fmt: skip

    @property
    def density(self) -> Float[Array, "component z y x"]:
        """Mass densities [g/cm^3] of the voxels."""
        return self.scaled * self.unit

    @property
    def by_step(self) -> Float[Array, "component z y x"]:
        """Mass densities [g/cm^3] on the grid of the scan."""
        count, deep, n, _ = self.scaled.shape
        return self.density.reshape(count, deep, n // self.fine, self.fine, -1, self.fine).mean((3, 5))

    def refined(self, fine: int) -> "Fluorescence":
        """Make the same body of finer voxels, `fine` to a step."""
        split = lambda a: jnp.repeat(jnp.repeat(a, fine, 2), fine, 3)
        density = split(self.by_step)
        return self.replace(scaled=density, unit=jnp.ones((len(density), 1, 1, 1), density.dtype), fine=fine)

    def turned(self, views: Any) -> tuple[Array, Array, Array]:
        """Turn the body into the frame of the beam, in cells of one step.

        **Returns:** densities `(u, t, z, view, component)`; `A_in A_out` `(u, t, z, view, line)`; transmission of the
        beam `(u, z, view)`, the mean over a step.
        """
        body, gets_out, gets_in, beam = self.ways(views)
        return body, gets_out * gets_in[..., None], beam

    def ways(self, views: Any) -> tuple[Array, Array, Array, Array]:
        """Turn the body as `turned` does, with `A_out` `(u, t, z, view, line)` and `A_in` `(u, t, z, view)` apart."""
        body, depth = self._cells(self.density, views)
        beam = jnp.mean(jnp.exp(-depth), 1)
        return body, self.escape(body @ self.lines.T), jnp.exp(-path_in(body @ self.beam)), beam

    def _cells(self, density: Array, views: Any) -> tuple[Array, Array]:
        """Turn densities into the frame of the beam: cells of one step, and the depth of rays `(u, fine, z, view)`."""
        fine = self.fine
        body = turn_to_beam(jnp.transpose(density, (2, 3, 1, 0)), self.angles[views], self.offsets[views] * fine)
        cells = body.reshape(len(body) // fine, fine, len(body) // fine, fine, *body.shape[2:])
        depth = jnp.moveaxis(jnp.sum(cells, (2, 3)) @ self.beam / fine, 3, 2)
        return jnp.moveaxis(jnp.mean(cells, (1, 3)), 3, 2), depth

    def signals(
        self, density: Float[Array, "component z y x"], share: Float[Array, "u t z view line"], views: Any
    ) -> tuple[Float[Array, "some z u line"], Float[Array, "some z u fine"]]:
        """Sum what densities emit for one photon through the absorption of others (`turned`), and the depths of rays.

        Linear, without negative numbers.
        """
        body, depth = self._cells(density, views)
        emitted = jnp.einsum("utzvl,utzvl->uzvl", body @ self.emission.T, share[:, :, :, views])
        return jnp.transpose(emitted, (2, 1, 0, 3)), jnp.transpose(depth, (3, 2, 0, 1))

    def counted(
        self, density: Float[Array, "component z y x"], share: Float[Array, "u t z view line"], views: Any
    ) -> Float[Array, "some z u channel"]:
        """Predict counts of densities of which the lines go through the absorption of others (`turned`)."""
        lines, depth = self.signals(density, share, views)
        if self.secondary is not None:
            lines = lines + self.secondary[views]
        signal = jnp.concatenate([lines, jnp.mean(jnp.exp(-depth), -1, keepdims=True)], -1)
        return signal * self.exposure[views] * self.gain

    def __call__(self, views: Any) -> Float[Array, "view z u channel"]:
        """Expected counts of some views."""
        body, gets_out, gets_in, beam = self.ways(views)
        # Products that sum over an axis: on CPUs a sum of what was multiplied before takes forty times as long.
        emitted = jnp.einsum("utzvl,utzvl,utzv->uzvl", body @ self.emission.T, gets_out, gets_in)
        signal = jnp.transpose(jnp.concatenate([emitted, beam[..., None]], -1), (2, 1, 0, 3))
        if self.secondary is not None:
            signal = signal.at[..., :-1].add(self.secondary[views])
        return signal * self.exposure[views] * self.gain

    def of_views(self, views: np.ndarray) -> "Fluorescence":
        """Make the model of some views."""
        secondary = None if self.secondary is None else self.secondary[views]
        return self.replace(
            angles=self.angles[views], offsets=self.offsets[views], exposure=self.exposure[views], secondary=secondary
        )


def _open_beam(scan: Scan, photons: np.ndarray) -> np.ndarray:
    """Counts of the transmitted beam without a sample; zero where there was no such detector."""
    if "transmitted" not in scan.extra:
        return np.zeros_like(photons)
    return photons * float(scan.extra.get("transmitted_per_photon", 1.0))

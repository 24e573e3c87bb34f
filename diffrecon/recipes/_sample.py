"""The slab in which elements are spread: what it absorbs of beam and lines."""

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from .. import physics
from ..errors import InputError
from ..models import Line, attenuation_of
from ..settings import setting


@dataclass(frozen=True)
class Sample:
    """The slab in which the elements are evenly spread; without one nothing is absorbed."""

    composition: dict | str | None = setting(
        None, 'formula and density [g/cm^3], "SiO2, 2.2", or mass fractions {Fe = 0.7, Cr = 0.3} with sample.density'
    )
    thickness: float | None = setting(None, "of the slab, along its normal", unit="m", above=0)
    density: float | None = setting(None, "[g/cm^3], instead of that of the composition", above=0)
    window: dict | None = setting(
        None, 'layers between beam and sample, from outside in: {kapton = "8 um", "SiO2, 2.2" = "1 um"}'
    )
    support: dict | None = setting(None, 'layers behind the sample, from it outwards: {"Si3N4, 3.2" = "1 um"}')
    incidence: float = setting(
        np.pi / 2,
        "between beam and surface; masses are per area of the surface",
        unit="rad",
        above=0,
        at_most=np.pi / 2,
    )
    secondary: str = setting(
        "auto",
        "lines of the slab that excite others: by fisx where it is installed, and with a warning where it is not",
        choices=("auto", "on", "off"),
    )
    takeoff: float | None = setting(
        None,
        "between surface and the way to the detector; below zero it stands behind the slab",
        unit="rad",
        at_least=-np.pi / 2,
        at_most=np.pi / 2,
    )


def slab_shares(line: Line, energy: float, sample: Sample) -> np.ndarray:
    """Share of each part of a line that gets out of slab and layers, with the beam's own absorption; ones without any.

    **Raises:** `InputError` for a slab that is not told whole.
    """
    window, support = layers_of(sample.window, "window"), layers_of(sample.support, "support")
    if sample.composition is None:
        if sample.thickness is not None:
            raise InputError('sample.thickness without a composition: --set sample.composition="SiO2, 2.2"')
        if not window and not support:
            return np.ones(len(line.energies))
    mass = 0.0 if sample.composition is None else areal_mass(sample)
    if not sample.takeoff:
        raise InputError('where does the detector stand? --set sample.takeoff="45 deg" between it and the surface')
    behind = sample.takeoff < 0
    if sample.composition is None and support and not behind:
        raise InputError("sample.support does nothing behind a sample without sample.composition; leave it out")
    into = lambda mass, matter: mass * attenuation_of(matter, energy) / np.sin(sample.incidence)
    out = lambda mass, matter: np.array(
        [mass * attenuation_of(matter, float(e)) / np.sin(abs(sample.takeoff or 1)) for e in line.energies]
    )
    depth = sum((into(one.mass, one.material) for one in window), 0.0)
    depth = depth + sum((out(one.mass, one.material) for one in (support if behind else window)), 0.0)
    passed = np.exp(-depth) * np.ones(len(line.energies))
    if sample.composition is None:
        return passed
    import jax.numpy as jnp

    from ..operators import slab_share

    matter = _matter(sample)
    return passed * np.asarray(slab_share(into(mass, matter), jnp.asarray(out(mass, matter), float), behind), float)


class Layer(NamedTuple):
    """One layer of the specimen: formula or name, density [g/cm^3], thickness [cm]."""

    material: str
    density: float
    thickness: float

    @property
    def mass(self) -> float:
        """Areal mass [g/cm^2]."""
        return self.density * self.thickness


def layers_of(stack: dict | None, name: str) -> list[Layer]:
    """Read a stack of layers.

    **Raises:** `InputError` for a layer without a density, or whose thickness is none.
    """
    found = []
    for what, thickness in (stack or {}).items():
        where = f"sample.{name}.{what}"
        density, long = physics.material(what).density, 100 * physics.quantity(thickness, "m", where)
        if density is None:
            raise InputError(f'{where}: {what!r} needs a density in g/cm^3, such as "SiO2, 2.2"')
        if not 0 < long < 10:
            raise InputError(f'{where} = {thickness!r}; expected a thickness with its unit, as "8 um"')
        found.append(Layer(what, density, long))
    return found


def areal_mass(sample: Sample) -> float:
    """Areal mass of the slab [g/cm^2].

    **Raises:** `InputError` without thickness or density.
    """
    if sample.thickness is None:
        raise InputError('how thick is the slab? --set sample.thickness="50 um"')
    density = sample.density
    if density is None and isinstance(sample.composition, str):
        density = physics.material(sample.composition).density
    if density is None:
        raise InputError(f"sample.composition = {sample.composition!r} needs a density: --set sample.density=2.2")
    return 100 * sample.thickness * density


def _matter(sample: Sample) -> Any:
    return sample.composition.partition(",")[0] if isinstance(sample.composition, str) else sample.composition

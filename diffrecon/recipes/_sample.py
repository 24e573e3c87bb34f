"""The slab in which elements are spread: what it absorbs of beam and lines."""

from dataclasses import dataclass
from typing import Any

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
    """Share of each part of a line that gets out of the slab, with the beam's own absorption; ones without a slab.

    **Raises:** `InputError` for a slab that is not told whole.
    """
    if sample.composition is None:
        if sample.thickness is not None:
            raise InputError('sample.thickness without a composition: --set sample.composition="SiO2, 2.2"')
        return np.ones(len(line.energies))
    mass = areal_mass(sample)
    if not sample.takeoff:
        raise InputError('where does the detector stand? --set sample.takeoff="45 deg" between it and the surface')
    import jax.numpy as jnp

    from ..operators import slab_share

    into = mass * attenuation_of(_matter(sample), energy) / np.sin(sample.incidence)
    out = [mass * attenuation_of(_matter(sample), float(e)) / np.sin(abs(sample.takeoff)) for e in line.energies]
    return np.asarray(slab_share(into, jnp.asarray(out, float), behind=sample.takeoff < 0), float)


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

"""What a method gives to be planned: typed settings, and figures as a differentiable function of them."""

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar, NamedTuple

from jaxtyping import Array

from ..errors import InputError
from ..settings import setting
from ._detail import Information
from ._matter import Matter, matter


@dataclasses.dataclass(frozen=True)
class Measurement:
    """Settings that every method has: the light, the time, and a guess of the sample."""

    energy: float = setting(17e3, "of the beam", unit="eV", at_least=1e3, at_most=2e5)
    flux: float = setting(1e11, "photons a second on the sample, within the field of view or the spot", above=0)
    exposure: float = setting(1.0, "of one frame", unit="s", above=0)
    overhead: float = setting(0.1, "between frames: readout, motors", unit="s", at_least=0)
    efficiency: float = setting(1.0, "share of the photons behind the sample that is counted", above=0, at_most=1)
    material: str = setting("SiO2, 2.2", "of the sample, with its density [g/cm^3]")
    thickness: float = setting(50e-6, "of the sample along the beam", unit="m", above=0)
    difference: float = setting(1.0, "of a detail's density from its surroundings, relative; 1 = a void", above=0)
    detail: float = setting(
        1e-6, "size for which a sensitivity is said (full width at half maximum)", unit="m", above=0
    )


class Prediction(NamedTuple):
    """What a method says of a plan.

    **Fields:** `information` of one view on the projected relative density [1/m^4], a function of frequencies [1/m];
    `views` of a tomogram, 1 = a projection; `floors` = half periods [m] below which something else than photons ends
    the resolution, by its name; `fluence` = photons on the sample per area, whole measurement [1/m^2]; `frames`;
    `sensitivities` of its own, named with their units, as `"angle [rad]"`.
    """

    information: Information
    views: Array | float
    floors: Mapping[str, Array]
    fluence: Array
    frames: Array | float
    sensitivities: Mapping[str, Array]


class Method:
    """A method that can be planned; subclass it and `register` an instance.

    **Attributes:** `name`; `settings` = a frozen dataclass that extends `Measurement`, whose `checked` refuses what
    makes no sense together; `free` = the numbers among them that may be optimised. `predict` gets the settings with
    jax arrays in place of these numbers.
    """

    name: ClassVar[str]
    settings: ClassVar[type[Measurement]]
    free: ClassVar[tuple[str, ...]]

    def tables(self, settings: Any, span: tuple[float, float] | None) -> Any:
        """Look up what does not depend on the free numbers, by default the sample's material; over a range of energies
        [eV] where the energy is free.
        """
        return matter(settings.material, settings.energy, span)

    def predict(self, s: Any, tables: Any) -> Prediction:
        """Say what the settings lead to."""
        raise NotImplementedError

    def ends(self, settings: Any) -> Mapping[str, tuple[float, float]]:
        """List the ranges of free numbers that follow from the other settings."""
        return {}

    def material(self, tables: Any) -> Matter:
        """Find the sample's material among the tables: the dose is that in it."""
        return tables


_METHODS: dict[str, Method] = {}


def register(method: Method) -> None:
    """Make a method known to `plan` and `diffrecon design`."""
    _METHODS[method.name] = method


def find(name: str) -> Method:
    """Find a method by its name.

    **Raises:** `InputError` with the nearest one.
    """
    from ..errors import nearest

    if name not in _METHODS:
        raise InputError(f"no method {name!r} can be planned{nearest(name, _METHODS)}")
    return _METHODS[name]


def methods() -> tuple[str, ...]:
    """List the methods that can be planned."""
    return tuple(_METHODS)

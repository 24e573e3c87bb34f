"""A plan: settings of a measurement, what they lead to, and better ones by gradient."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from .. import physics
from ..errors import InputError
from ..settings import fill
from ._detail import CRITERION, FWHM, detail_ratio, smallest_detail
from ._method import Measurement, Method, find

PHOTONS = "photons"
OF_A_DETAIL = ("density [g/cm^3]", "mass [g]")  # sensitivities that every method has
FACTORS = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0)


class Figures(NamedTuple):
    """What a plan leads to.

    **Fields:** `half_period` [m], the largest of `limits`, half periods by what ends the resolution (`"photons"`: the
    smallest detail seen at five standard deviations); `sensitivities`, named with their units; `dose` [Gy], mean over
    the thickness; `time` [s]; `fluence` = photons on the sample, whole measurement [1/m^2].
    """

    half_period: Any
    limits: Mapping[str, Any]
    sensitivities: Mapping[str, Any]
    dose: Any
    time: Any
    fluence: Any

    @property
    def limit(self) -> str:
        """Name what ends the resolution."""
        return max(self.limits, key=lambda name: float(self.limits[name]))


@dataclasses.dataclass(frozen=True)
class Plan:
    """A method with its settings; `plan` makes one.

    ```python
    made = plan("tomography", exposure=0.5)
    assert made.figures().dose > 0 and made.longer(2).figures().time > made.figures().time
    ```
    """

    method: Method
    settings: Any

    def figures(self) -> Figures:
        """Compute what the settings lead to."""
        return self.curve((1.0,))[0]

    def curve(self, factors: Sequence[float] = FACTORS) -> list[Figures]:
        """Compute the same for the exposure times each of some factors: resolution against photons."""
        with jax.enable_x64(True):
            rule = predictor(self)
            found = jax.jit(jax.vmap(lambda e: rule({"exposure": e})))(self.settings.exposure * jnp.asarray(factors))
            found = jax.tree.map(np.asarray, found)
        split = [jax.tree.map(lambda a, i=i: float(a[i]), found) for i in range(len(factors))]
        return [_within(f._replace(sensitivities=_ordered(f.sensitivities)), self.settings.thickness) for f in split]

    def longer(self, factor: float) -> "Plan":
        """Make the plan whose whole measurement takes `factor` times as long: the overhead stays, exposures grow.

        **Raises:** `InputError` where the overhead alone takes longer than that.
        """
        spent = self.settings.exposure + self.settings.overhead
        exposure = factor * spent - self.settings.overhead
        if not exposure > 0:
            raise InputError(f"{factor:g} times the time is less than the overhead of {self.settings.overhead:g} s")
        return self.with_numbers(exposure=exposure)

    def with_numbers(self, **numbers: Any) -> "Plan":
        """Make a plan with other values of some settings.

        **Raises:** `InputError` for values that are refused.
        """
        known = {f.name: getattr(self.settings, f.name) for f in dataclasses.fields(self.settings)}
        return Plan(self.method, fill(type(self.settings), known | numbers, self.method.name))


def plan(method: str, **settings: Any) -> Plan:
    """Plan a measurement: what resolution, sensitivity, dose and time settings lead to, before anything is measured.

    **Arguments:** `method` as `methods()` lists them; `settings` of it, in SI units and eV or as texts with their unit.

    **Raises:** `InputError` for an unknown method or setting, or values that make no sense.

    ```python
    figures = plan("holography", energy="17 keV").figures()
    assert figures.half_period > 0 and figures.dose > 0
    ```
    """
    found = find(method)
    return Plan(found, fill(found.settings, settings, method))


def predictor(made: Plan, span: tuple[float, float] | None = None, *, sizes: bool = True) -> Any:
    """Give the function from free numbers, a mapping of jax arrays, to `Figures` of jax arrays.

    **Arguments:** `span`: the range of energies [eV], where the energy is among them; `sizes`: find the smallest detail
    (most of the work); else photons are said not to limit.
    """
    method, settings = made.method, made.settings
    tables = method.tables(settings, span)
    solid = method.material(tables)

    def figures(numbers: Mapping[str, Any]) -> Figures:
        s = dataclasses.replace(settings, **{k: jnp.asarray(v) for k, v in _numbers(settings, method).items()})
        s = dataclasses.replace(s, **numbers)
        said = method.predict(s, tables)
        _, mu, absorbed = solid.at(s.energy)
        depth = mu * s.thickness
        energy = s.energy * physics.ELECTRON_CHARGE
        dose = said.fluence * energy * absorbed * -jnp.expm1(-depth) / depth
        views = jnp.asarray(said.views, float)
        finest = jnp.max(jnp.stack(jnp.broadcast_arrays(*said.floors.values())))
        seen = smallest_detail(said.information, s.difference, views, finest) if sizes else jnp.zeros(())
        limits = {PHOTONS: seen, **said.floors}
        share = CRITERION / detail_ratio(said.information, s.detail, views)
        sensitivities = {
            "density [g/cm^3]": solid.density * share,
            "mass [g]": 1e6 * solid.density * share * (2 * np.pi) ** 1.5 * (s.detail / FWHM) ** 3,
            **said.sensitivities,
        }
        half_period = jnp.max(jnp.stack(jnp.broadcast_arrays(*limits.values())))
        time = said.frames * (s.exposure + s.overhead)
        return Figures(half_period, limits, sensitivities, dose, jnp.asarray(time), said.fluence)

    return figures


def _within(figures: Figures, thickness: float) -> Figures:
    """Say that no detail is seen where it would have to be larger than the sample is thick."""
    if figures.limits[PHOTONS] <= thickness:
        return figures
    return figures._replace(half_period=np.inf, limits={**figures.limits, PHOTONS: np.inf})


def _ordered(sensitivities: Mapping[str, float]) -> dict[str, float]:
    """Put what all methods have first; jax sorts the keys."""
    return dict(sorted(sensitivities.items(), key=lambda item: item[0] not in OF_A_DETAIL))


def _numbers(settings: Measurement, method: Method) -> dict[str, Any]:
    """Give the numbers that may be arrays, the exposure always among them."""
    return {name: getattr(settings, name) for name in {*method.free, "exposure", "energy", "thickness", "detail"}}

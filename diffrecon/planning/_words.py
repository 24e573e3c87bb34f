"""A plan in words: figures, the curve against photons, what twice the time gives."""

from collections.abc import Sequence

import numpy as np

from .. import physics
from ..settings import listed
from ._detail import CRITERION
from ._plan import FACTORS, OF_A_DETAIL, Figures, Plan


def figures_in_words(plan: Plan, found: Figures) -> list[str]:
    """Write resolution, sensitivities, dose and time, a line each."""
    others = ", ".join(f"{name} {_length(v)}" for name, v in found.limits.items() if name != found.limit and v > 0)
    lines = [("resolution", f"{_length(found.half_period)} half period, limited by {found.limit} ({others})")]
    for name, value in found.sensitivities.items():
        what, _, unit = name.removesuffix("]").partition(" [")
        seen = f" of a detail of {_length(plan.settings.detail)}, {CRITERION:g} standard deviations"
        lines.append((what, _value(value, unit) + (seen if name in OF_A_DETAIL else "")))
    lines += [("dose", _value(found.dose, "Gy")), ("time", _time(found.time))]
    return [f"{name:<24} {said}" for name, said in lines]


def curve_in_words(plan: Plan, factors: Sequence[float] = FACTORS) -> list[str]:
    """Write the curve of resolution against photons as a table."""
    head = (
        f"{'exposure':>10} {'photons/um^2':>13} {'half period':>12}  {'limited by':<10} {'density':>14} {'dose':>10} "
        f"{'time':>10}"
    )
    rows = [head]
    for factor, found in zip(factors, plan.curve(factors), strict=True):
        density = found.sensitivities["density [g/cm^3]"]
        rows.append(
            f"{_value(factor * plan.settings.exposure, 's'):>10} {found.fluence * 1e-12:>13.3g} "
            f"{_length(found.half_period):>12}  {found.limit:<10} {_value(density, 'g/cm^3'):>14} "
            f"{_value(found.dose, 'Gy'):>10} {_time(found.time):>10}"
        )
    return rows


def doubling_in_words(plan: Plan, found: Figures) -> str:
    """Say what twice the time gives."""
    more = plan.longer(2).figures()
    density = lambda figures: figures.sensitivities["density [g/cm^3]"]
    seen = (
        f"resolution {_length(more.half_period)} instead of {_length(found.half_period)}"
        if more.half_period < 0.999 * found.half_period
        else f"no better resolution ({_length(found.half_period)}, limited by {found.limit})"
    )
    return (
        f"doubling the time ({_time(more.time)}) gives {seen}, density {_value(density(more), 'g/cm^3')} instead of "
        f"{_value(density(found), 'g/cm^3')}, dose {_value(more.dose, 'Gy')}"
    )


def settings_in_words(plan: Plan) -> list[str]:
    """Write every setting with its value, unit and what it does."""
    return listed(
        plan.settings, lambda v: f'"{v}"' if isinstance(v, str) else f"{list(v) if isinstance(v, tuple) else v}"
    )


def _length(value: float) -> str:
    return physics.in_words(value, "m") if np.isfinite(value) else "none seen"


def _value(value: float, unit: str) -> str:
    if unit == "g" and value < 1e-13:
        return f"{1e15 * value:.4g} fg"
    return physics.in_words(value, unit) if unit else f"{value:.3g}"


def _time(seconds: float) -> str:
    for size, name in ((86400.0, "d"), (3600.0, "h"), (60.0, "min")):
        if seconds >= 2 * size:
            return f"{seconds / size:.3g} {name}"
    return physics.in_words(seconds, "s")

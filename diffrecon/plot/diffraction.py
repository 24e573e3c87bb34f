"""Pictures of powder diffraction: patterns over their angle with the reflections named, phases in one colour map."""

from typing import TYPE_CHECKING, Any

import numpy as np

from .._result import Quantity, Result
from .curves import curve_axes
from .images import image_panel
from .page import BLUE, FONT, ORANGE, Panel, box_of, drawable, panel_size, scale_bar, show

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Of the phases in their order: told apart in sums of two, and with the usual kinds of colour vision.
_COLOURS = (ORANGE, BLUE, "#009e73", "#f0e442", "#56b4e9")
_FIT, _DIFFERENCE = "#cc79a7", "0.6"  # no phase has these
_STRAIN = "RdBu_r"


def phase_panels(name: str, quantity: Quantity, result: Result) -> list[Panel]:
    """Draw the map of a phase; the first one brings the composite of all phases with its legend."""
    phases = [n for n, q in result.quantities.items() if q.kind == "phase"]
    label = quantity.long_name or name
    own = image_panel(quantity.data, quantity.pixel_size, quantity.units, label, None, "cividis")
    maps = {n: np.clip(np.asarray(result[n], float), 0, None) for n in phases}
    whole = {n: m / max(float(np.percentile(m, 99.5)), 1e-12) for n, m in maps.items()}
    return [_composite(whole, quantity.pixel_size, "phases"), own] if phases[0] == name else [own]


def phase_in_time_panels(name: str, quantity: Quantity, result: Result) -> list[Panel]:
    """Draw all phases in one colour map at the first, the middle and the last time, as bright at all of them."""
    phases = [n for n, q in result.quantities.items() if q.kind == "phase_in_time"]
    if phases[0] != name or np.ndim(quantity.data) != 3:
        return []
    maps = {n.removesuffix("_in_time"): np.clip(np.asarray(result[n], float), 0, None) for n in phases}
    most = {n: max(float(np.percentile(m, 99.5)), 1e-12) for n, m in maps.items()}
    at = _times(quantity, result)
    chosen = sorted({0, len(at) // 2, len(at) - 1})
    panel = lambda k: _composite({n: m[k] / most[n] for n, m in maps.items()}, quantity.pixel_size, f"time {at[k]:.4g}")
    return [panel(k) for k in chosen]


def _times(quantity: Quantity, result: Result) -> np.ndarray:
    """Give the times of a quantity's first axis, or their numbers."""
    times = result.quantities.get("times")
    return np.arange(len(quantity.data)) if times is None else np.asarray(times.data, float)


def course_panels(name: str, quantity: Quantity, result: Result) -> list[Panel]:
    """Draw the courses of all phases over time in one picture, with their error bars."""
    courses = {n: q for n, q in result.quantities.items() if q.kind == "course"}
    phases = [n for n, q in result.quantities.items() if q.kind == "phase"]
    if next(iter(courses)) != name:
        return []
    at = _times(quantity, result)
    shown = [n for n in courses if n.removesuffix("_course") in phases]

    def draw(ax: "Axes") -> Any:
        for number, course in enumerate(shown):
            values, bars = np.asarray(result[course], float), result.quantities.get(f"{course}_error")
            spread = np.zeros_like(values) if bars is None else np.asarray(bars.data, float)
            colour = _COLOURS[number % len(_COLOURS)]
            ax.errorbar(at, values, spread, color=colour, lw=0.8, marker="o", ms=2)
            label = course.removesuffix("_course")
            ax.text(1.01, 0.98 - 0.12 * number, label, color=colour, fontsize=FONT, va="top", transform=ax.transAxes)
        curve_axes(ax, "time", "mean fraction", "phases in time")

    return [Panel(draw, width=2.4, left=0.55, right=0.6, bottom=0.42)]


def element_panels(name: str, quantity: Quantity, result: Result) -> list[Panel]:
    """Draw the map of an element; the first one brings three in one picture, those that stand out most."""
    elements = [n for n, q in result.quantities.items() if q.kind == "element" and np.ndim(q.data) == 2]
    data = np.asarray(quantity.data, float)
    if name not in elements or not np.isfinite(data).any():
        return []
    own = image_panel(data, quantity.pixel_size, quantity.units, quantity.long_name or name, None, "cividis")
    if elements[0] != name or len(elements) < 3:
        return [own]
    most = sorted(sorted(elements, key=lambda n: -_contrast(n, result))[:3], key=elements.index)
    whole = {}
    for element in most:
        values = np.asarray(result[element], float)
        low, high = np.nanpercentile(values, (5, 99.5)) if np.isfinite(values).any() else (0.0, 1.0)
        whole[element] = np.clip(np.nan_to_num((values - low) / max(high - low, 1e-30)), 0, None)
    return [_composite(whole, quantity.pixel_size, "three elements"), own]


def _contrast(name: str, result: Result) -> float:
    """Say how far the map of an element spreads beyond its noise."""
    values, bars = np.asarray(result[name], float), result.quantities.get(f"{name}_error")
    spread = float(np.nanstd(values)) if np.isfinite(values).any() else 0.0
    noise = 0.0 if bars is None else float(np.nanmedian(np.asarray(bars.data, float)))
    return spread / noise if noise > 0 else spread


def _composite(whole: dict[str, np.ndarray], pixel_size: float | None, title: str) -> Panel:
    """Draw maps that end at one, each in a colour of its own, on top of one another."""
    colours = [_rgb(_COLOURS[k % len(_COLOURS)]) for k in range(len(whole))]
    light = sum(np.minimum(m, 1)[..., None] * c for m, c in zip(whole.values(), colours, strict=True))
    picture = np.clip(light, 0, 1)

    def draw(ax: "Axes") -> Any:
        show(ax, picture, title)
        scale_bar(ax, picture.shape[1], pixel_size)
        for number, (phase, colour) in enumerate(zip(whole, colours, strict=True)):
            place = (1.03, 0.97 - 0.11 * number)
            ax.text(*place, phase, color=tuple(0.8 * colour), fontsize=FONT, va="top", transform=ax.transAxes)

    return Panel(draw, *panel_size(picture.shape[:2]))


def _rgb(code: str) -> np.ndarray:
    return np.array([int(code[i : i + 2], 16) / 255 for i in (1, 3, 5)])


def strain_panels(name: str, quantity: Quantity, result: Result) -> list[Panel]:
    """Draw relative lattice parameters as differences from one, symmetric about the mean."""
    data = np.asarray(quantity.data, float)
    if not np.isfinite(data).any():
        return []
    strain = (data - 1) * 1e3
    middle = float(np.nanmean(strain))
    reach = max(float(np.nanpercentile(np.abs(strain - middle), 98)), 1e-3)
    shown, limits = strain[box_of(drawable(strain))], (middle - reach, middle + reach)
    label = quantity.long_name or name
    return [image_panel(shown, quantity.pixel_size, "10⁻³", f"{label} - 1", limits, _STRAIN)]


def pattern_panels(name: str, quantity: Quantity, result: Result) -> list[Panel]:
    """Draw a pattern over the axis that the result has for it."""
    data = np.asarray(quantity.data, float)
    if data.ndim == 2 and np.isfinite(data).any():  # a cake: the mean over the sectors that saw something
        seen = np.isfinite(data)
        data = np.where(seen, data, 0).sum(0) / np.maximum(seen.sum(0), 1)
    if data.ndim != 1:
        return []
    axis = result.quantities.get(quantity.axes[-1])
    across = np.arange(data.size) if axis is None else np.asarray(axis.data, float)
    label = "channel" if axis is None else f"{axis.long_name or quantity.axes[-1]} [{axis.units}]"

    def draw(ax: "Axes") -> Any:
        ax.plot(across, data, color="black", lw=0.6)
        fitted = result.quantities.get("fitted_pattern")
        if name == "mean_pattern" and fitted is not None:
            parts = _parts(result)
            colours = ("0.5", "0.75") if parts else (_FIT, _DIFFERENCE)
            ax.plot(across, np.asarray(fitted.data), color=colours[0], lw=0.5)
            ax.plot(across, data - np.asarray(fitted.data), color=colours[1], lw=0.5)
            for number, part in enumerate(parts.values()):
                ax.fill_between(across, part, color=_COLOURS[number % len(_COLOURS)], alpha=0.35, lw=0)
            _name_reflections(ax, result, colours)
        unit = f" [{quantity.units}]" if quantity.units else ""
        curve_axes(ax, label, f"intensity{unit}", quantity.long_name or name)

    return [Panel(draw, width=3.6, left=0.55, right=0.75, bottom=0.42)]


def _parts(result: Result) -> dict[str, np.ndarray]:
    """Give the patterns of single phases, where the result has them."""
    found = {n: q for n, q in result.quantities.items() if q.kind == "phase_pattern"}
    return {n.removesuffix("_pattern"): np.asarray(q.data, float) for n, q in found.items()}


def _name_reflections(ax: "Axes", result: Result, colours: tuple[str, str]) -> None:
    """Mark the rings of every phase above the pattern, in its colour, with a legend of curves and phases."""
    phases = [n for n, q in result.quantities.items() if q.kind == "phase"] or list(_parts(result))
    rings = result.quantities.get("reflections")
    entries = [("measured", "black"), ("fit", colours[0]), ("difference", colours[1])]
    for number, phase in enumerate(phases if rings is not None else []):
        colour = _COLOURS[number % len(_COLOURS)]
        places = np.asarray(rings.data)  # pyright: ignore[reportOptionalMemberAccess]
        for place in places[places[:, 0] == number, 1]:
            ax.axvline(place, 0.93 - 0.04 * number, 0.97 - 0.04 * number, color=colour, lw=0.8)
        entries.append((phase, colour))
    for number, (text, colour) in enumerate(entries):
        ax.text(1.01, 0.98 - 0.12 * number, text, color=colour, fontsize=FONT - 1, va="top", transform=ax.transAxes)

"""A powder slice that changes while it turns: which views tell of which time, and what is written of the phases."""

from typing import Any

import numpy as np
from jaxtyping import Float

from .._result import Quantity
from ..errors import InputError
from ..operators import spline_basis
from ..scan import Scan
from ._powder_start import Setup

_NEAR = 1 / 3  # of a knot's course: views that tell of its time
_WIDEST = 2 * np.pi / 3  # between directions of these views: maps are a third worse there, and soon much more
_CHANGED = 0.02  # of the attenuation of the whole slice, from which on it is said


def times_of(scan: Scan, views: int) -> Float[np.ndarray, " view"]:
    """Tell when each view was taken: the mean over its points, or the number of the view.

    **Raises:** `InputError` for another number of times, and views that are not in the order of time.
    """
    times = np.asarray(scan.extra.get("times", np.arange(views)), float).ravel()
    if not times.size or times.size % views:
        raise InputError(f"{scan.name}: {times.size} times (data.times) for {views} views; one for each is expected")
    times = times.reshape(views, -1).mean(1)
    if not np.isfinite(times).all() or (np.diff(times) < 0).any():
        raise InputError(f"{scan.name}: the times of the views (data.times) must not decrease: sort the views by time")
    if times[-1] == times[0]:
        raise InputError(
            f"{scan.name}: the times of all views (data.times) are {times[0]:g}; without model.time_knots?"
        )
    return times


def courses_of(scan: Scan, times: Any, angles: Any, knots: int) -> Float[np.ndarray, "view knot"]:
    """Give the share that every knot in time has in every view.

    **Raises:** `InputError` where the views about a knot look from too few directions to tell a change from a shape.
    """
    bad = _blind(times, angles, knots)
    if bad is None:
        return spline_basis(times, knots)
    knot, missing = bad
    fewer = [n for n in range(knots - 1, 1, -1) if _blind(times, angles, n) is None]
    remedy = (
        f"model.time_knots={fewer[0]} is the most that these views allow"
        if fewer
        else "leave model.time_knots out for the mean of the scan; turn quickly, or in golden steps of the angle"
    )
    raise InputError(
        f"{scan.name}: the views about time {np.linspace(times[0], times[-1], knots)[knot]:.4g} (knot {knot + 1} of "
        f"{knots}) leave out {np.degrees(missing):.0f} of 180 degrees, so that a change cannot be told from a shape: "
        f"{remedy}"
    )


def _blind(times: Any, angles: Any, knots: int) -> tuple[int, float] | None:
    """Find the first knot whose views leave out too many directions, and how many [rad]."""
    courses = spline_basis(times, knots)
    for knot in range(knots):
        seen = np.sort(np.mod(np.asarray(angles)[courses[:, knot] >= _NEAR], np.pi))
        gap = float(np.diff(np.r_[seen, seen[0] + np.pi]).max()) if seen.size else np.pi
        if gap > _WIDEST:
            return knot, gap
    return None


def changed_attenuation(absorption: tuple[np.ndarray, Any], times: np.ndarray) -> list[str]:
    """Say where the attenuation of the whole slice, which every view sees, changes with time."""
    total = absorption[0].sum(1)
    slope, middle = np.polyfit((times - times.mean()) / np.ptp(times), total, 1)
    scatter = np.std(total - middle - slope * (times - times.mean()) / np.ptp(times)) * np.sqrt(12 / len(times))
    if not abs(slope) > max(_CHANGED * abs(middle), 3 * scatter):
        return []
    return [f"the slice absorbs {slope / middle:+.0%} at the end of the scan; absorption is that of its mean"]


def phases_in_time(setup: Setup, model: Any) -> dict[str, Quantity]:
    """Give maps of amounts and lattices at the knots, and their courses: means over the slice."""
    amounts = setup.grid.coarse(model.fractions)  # (knot, component, y, x)
    count, knots, found = len(setup.phases), len(amounts), {}
    weight = np.maximum(np.asarray(model.fractions)[:, :count], 0)
    strain = 1 + 1e-3 * setup.grid.coarse(np.asarray(model.strains), weight)
    image, axes = (lambda v, text, kind: Quantity(v, "", ("time", "y", "x"), setup.step, text, kind)), ("time",)
    for number, name in enumerate(setup.components):
        kind = "phase_in_time" if number < count else "data"
        found[f"{name}_in_time"] = image(amounts[:, number], f"{name} at the times", kind)
        mean = amounts[:, number].mean((-2, -1))
        found[f"{name}_course"] = Quantity(mean, "", axes, None, f"mean of {name} over the slice", "course")
    for number, name in enumerate(setup.phases):
        there = amounts[:, number] > 0.1 * amounts[:, number].max()
        scale = np.where(there, strain[:, number], np.nan)
        found[f"{name}_scale_in_time"] = image(scale, f"lattice of {name} at the times", "data")
        total = (amounts[:, number] * there).sum((-2, -1))
        mean = np.nansum(np.where(there, amounts[:, number] * scale, 0), (-2, -1)) / np.where(total > 0, total, np.nan)
        found[f"{name}_scale_course"] = Quantity(mean, "", axes, None, f"mean lattice of {name}", "data")
    times = np.linspace(setup.times[0], setup.times[-1], knots)
    return found | {"times": Quantity(times, "", axes, None, "times of the knots", "data")}


def means_in_time(setup: Setup, model: Any) -> tuple[np.ndarray, np.ndarray]:
    """Average amounts `(component, pixel)` and strains `(phase, pixel)`, by amount, over the scan."""
    share = setup.courses.mean(0)
    fractions, strains = np.asarray(model.fractions, float), np.asarray(model.strains, float)
    weight = np.maximum(fractions[:, : strains.shape[1]], 0) + 1e-9
    return np.tensordot(share, fractions, 1), np.tensordot(share, weight * strains, 1) / np.tensordot(share, weight, 1)


def bars_of(
    setup: Setup, name: str, samples: Float[np.ndarray, "sample *knot y x"], common: float = 0.0
) -> dict[str, Quantity]:
    """Give the error bar of a map from what noise alone makes of it; of one that changes, those of its mean, of its
    maps at the knots, and of its course.

    **Arguments:** `common`: standard deviation that all pixels share.
    """
    give = lambda v, axes, text: Quantity(v, "", axes, setup.step if "y" in axes else None, text, "data")
    if samples.ndim == 3:
        return {f"{name}_error": give(_smoothed(samples, common), ("y", "x"), f"error bar of {name}")}
    share = setup.courses.mean(0)
    mean = _smoothed(np.tensordot(samples, share, (1, 0)), common)
    found = {f"{name}_error": give(mean, ("y", "x"), f"error bar of {name}")}
    maps = np.stack([_smoothed(samples[:, knot], common) for knot in range(samples.shape[1])])
    found[f"{name}_in_time_error"] = give(maps, ("time", "y", "x"), f"error bar of {name} at the times")
    if not name.endswith("_scale"):
        spread = np.sqrt((samples.mean((-2, -1)) ** 2).mean(0))
        found[f"{name}_course_error"] = give(spread, ("time",), f"error bar of the mean of {name}")
    return found


def _smoothed(samples: Float[np.ndarray, "sample y x"], common: float) -> Float[np.ndarray, "y x"]:
    """Standard deviation over samples, variances averaged over three by three pixels, with what all share."""
    variance = np.pad((samples**2).mean(0), 1, mode="edge")
    rows, columns = samples.shape[1:]
    return np.sqrt(sum(variance[i : i + rows, j : j + columns] for i in range(3) for j in range(3)) / 9 + common**2)

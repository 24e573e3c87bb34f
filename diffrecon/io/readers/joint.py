"""Frames of a scan and counts of elements' lines at the same positions.

```
/frames (view, y, x)   far field, zero frequency at the corner, or where the attribute `dc` says
/positions_px (view, 2)   corners of the patches (row, column) [pixel of the object, unless `units` says a length];
/object_shape   rows and columns of the object
/dwell (view,)   photons of each view over their mean, @photons_mean
/xrf/counts (element, view), elements, line_eV, production_cm2_per_g, efficiency, delta_beta_per_g_cm3 (element, 2)
/xrf@solid_angle_fraction;  @energy_eV, pixel_m, step_px and fly_sub_positions of a continuous scan along the rows
```
"""

from typing import Any

import numpy as np

from ... import physics
from ...errors import InputError, MissingPackage
from ..source import Source, text

METHOD = "fluorescence-ptychography"


def probe(source: Source) -> bool:
    """Tell whether a file holds frames and counts of elements at the same positions."""
    return source.has("frames") and source.has("positions_px") and source.has("xrf/counts")


def read(source: Source, given: dict[str, Any]) -> dict[str, Any]:
    """Read frames, places, counts and what turns them into areal densities."""
    found: dict[str, Any] = {
        "counts": source.frames("frames"),
        "positions": source.numbers("positions_px", "positions", (None, 2)),
        "positions_unit": source.units("positions_px") or "pixel",
        "dc": text(source.file.attrs.get("dc", "corner")),
        "method": METHOD,
    }
    for name, attribute in (("energy", "energy_eV"), ("pixel_size", "pixel_m")):
        if source.has(f"/@{attribute}"):
            found[name] = _number(source, "/", attribute)
    if source.has("dwell"):
        found["monitor"] = source.numbers("dwell", "photons of the views", (None,))
    else:
        source.say("no monitor of the views (dwell): their brightness is solved for from the frames")
    if source.has("object_shape"):
        found["object_shape"] = source.numbers("object_shape", "shape of the object", (2,), finite=True)
    if source.has("/@fly_sub_positions") and _number(source, "/", "fly_sub_positions") > 1:
        found["travel"] = np.array([0.0, _number(source, "/", "step_px")])
    found["element_counts"], found["elements"] = _elements(source, found.get("energy"))
    return found


def _elements(source: Source, energy: float | None) -> tuple[np.ndarray, dict[str, Any]]:
    """Counts (view, element), NaN where nothing was counted, and the numbers of the elements."""
    names = source.names("xrf/elements", "names of the elements")
    counts = np.asarray(source.numbers("xrf/counts", "counts of the elements"), float)
    if counts.ndim != 2 or len(counts) != len(names):
        raise InputError(
            f"{source.name}: xrf/counts has shape {counts.shape}; expected {(len(names), 'view')}, a row for each of "
            f"{', '.join(names)} and a column for each position"
        )
    energy = energy if energy is None else float(energy)
    lines = _rows(source, "line_eV", names) if source.has("xrf/line_eV") else np.full(len(names), np.nan)
    if not np.isfinite(lines).all():
        source.say("the energy of a line is not known (xrf/line_eV): whether the beam excites it is not checked")
    share = _number(source, "xrf", "solid_angle_fraction")
    efficiency = _rows(source, "efficiency", names) if source.has("xrf/efficiency") else np.ones(len(names))
    if not source.has("xrf/efficiency"):
        source.say("no efficiency of the fluorescence detector (xrf/efficiency): taken as 1")
    emission = share * efficiency * _rows(source, "production_cm2_per_g", names)
    index = _index(source, names, energy)
    silent = {n: why for n, e, y in zip(names, lines, emission, strict=True) if (why := _silent(n, e, y, energy))}
    for name, why in silent.items():
        source.say(f"{name} left out: {why}")
    kept = [i for i, name in enumerate(names) if name not in silent]
    if not kept:
        raise InputError(f"{source.name}: xrf: no element remains: {'; '.join(silent.values())}")
    counts = np.where(np.isfinite(counts) & (counts >= 0), counts, np.nan).T[:, kept]
    means = [
        f"{names[i]} {np.nanmean(counts[:, row]) if np.isfinite(counts[:, row]).any() else 0:.4g}"
        for row, i in enumerate(kept)
    ]
    source.say(f"counts a view, mean: {', '.join(means)}")
    photons = _number(source, "/", "photons_mean") if source.has("/@photons_mean") else None
    return counts, {
        "names": tuple(names[i] for i in kept), "emission": emission[kept], "delta": index[kept, 0],
        "beta": index[kept, 1], "line": lines[kept], "photons": photons,
    }  # fmt: skip


def _silent(name: str, line: float, emission: float, energy: float | None) -> str:
    """Why an element cannot have given counts; empty where it can."""
    if energy is not None and line >= energy:
        return f"its line at {line:.0f} eV is above the beam's {energy:.0f} eV"
    if energy is not None and np.isfinite(line) and (edge := _edge(name, line)) and edge > energy:
        return f"its line at {line:.0f} eV needs more than the edge at {edge:.0f} eV, the beam has {energy:.0f} eV"
    if not (np.isfinite(emission) and emission > 0):
        return f"production, efficiency and solid angle give {emission:g} counts a photon"
    return ""


def _edge(name: str, line: float) -> float | None:
    """The absorption edge of a line, the lowest above it, where tables are installed."""
    try:
        return min((e for e in physics.edges(name) if e > line), default=None)
    except (MissingPackage, InputError):
        return None


def _index(source: Source, names: list[str], energy: float | None) -> np.ndarray:
    """delta and beta of each element at 1 g/cm^3: the file's, or those of the tables."""
    if source.has("xrf/delta_beta_per_g_cm3"):
        index = _rows(source, "delta_beta_per_g_cm3", names, (2,))
        if not np.isfinite(index).all():
            raise InputError(f"{source.name}: xrf/delta_beta_per_g_cm3 holds numbers that are not finite")
        return index
    if energy is None:
        raise InputError(f"{source.name}: xrf/delta_beta_per_g_cm3 or the attribute energy_eV must be there")
    source.say("delta and beta of the elements are from the tables of xraydb (no xrf/delta_beta_per_g_cm3)")
    return np.array([physics.delta_beta(name, 1.0, energy) for name in names])


def _rows(source: Source, name: str, names: list[str], more: tuple[int, ...] = ()) -> np.ndarray:
    return np.asarray(source.numbers(f"xrf/{name}", name, (len(names), *more)), float)


def _number(source: Source, path: str, name: str) -> float:
    return source.one(f"{path}@{name}", name.replace("_", " "))

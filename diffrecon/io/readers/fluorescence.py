"""Fluorescence tomograms and maps: counts of every line, monitor, transmission, detector, tables.

Two layouts: one group a line below `lines`, and an older one of a single slice with a group an element at the top. One
without angles is a map (y, x), which needs no tables.
"""

import re
from typing import Any

import numpy as np

from ...errors import InputError
from ...frames import at_ceiling
from .._element_maps import side_by_side
from ..source import Source, text

COMPTON = "compton"


def probe(source: Source) -> bool:
    """Tell whether a file holds counts of lines at many angles together with the cross sections."""
    named = source.has("lines") and source.has("tables/sigma_line") and source.has("theta")
    older = source.has("elements") and source.has("sigma_total_E0_cm2_per_g") and source.has("theta")
    return named or older or _is_map(source)


def read(source: Source, given: dict[str, Any]) -> dict[str, Any]:
    """Read counts, what was sent in, and cross sections."""
    if _is_map(source):
        return _map(source)
    found = _by_lines(source) if source.has("lines") else _by_elements(source)
    _check(source, found)
    return found | {"method": "fluorescence-tomography", "angle_unit": "rad"}


def _check(source: Source, found: dict[str, Any]) -> None:
    """Refuse points that no photon reached, and transmitted counts that are none."""
    photons = found["photons"]
    if photons.shape != found["counts"].shape[:3]:
        raise InputError(f"{source.name}: the monitor has shape {photons.shape}, counts {found['counts'].shape[:3]}")
    _refuse(source, "the monitor", photons, ~(np.isfinite(photons) & (photons > 0)))
    if "transmitted" in found:
        transmitted = np.asarray(found["transmitted"], float)
        _refuse(source, "the transmitted counts", transmitted, ~(np.isfinite(transmitted) & (transmitted >= 0)))


def _refuse(source: Source, what: str, values: np.ndarray, wrong: np.ndarray) -> None:
    bad = np.argwhere(wrong)
    if bad.size:
        view, row, column = (int(i) for i in bad[0])
        raise InputError(
            f"{source.name}: {what}: {values[view, row, column]:g} at {len(bad)} points, first view {view}, row {row}, "
            f"point {column}: mend them, or cut such views out of the file"
        )


# ---------------------------------------------------------------------------------------------------- a group a line
def _by_lines(source: Source) -> dict[str, Any]:
    channels = _order(source)
    components = source.names("tables/components", "components")
    counts = [source.numbers(f"lines/{channels[0]}/counts", "counts", (None, None, None))]
    points = counts[0].shape
    per_point = lambda name, what: source.numbers(name, what, points)
    counts += [per_point(f"lines/{name}/counts", "counts") for name in channels[1:]]
    found = {
        "counts": _side_by_side(counts),
        "angles": source.numbers("theta", "angles", points[:1], finite=True),
        "photons": per_point("monitor/counts", "monitor") / _positive(source, "monitor", "monitor_per_photon"),
        "pixel_size": _attribute(source, "/", "pixel_m"),
        "energy": _attribute(source, "/", "energy_eV"),
        "cross_sections": _tables(source, channels, components),
        "lines": _line_names(source, channels),
        "emission": _emission(source, channels),
    }
    if source.has("live_time"):
        found["live_fraction"] = _live_fraction(source, points)
    if source.has("transmission/counts"):
        found["transmitted"] = per_point("transmission/counts", "transmitted counts")
        found["transmitted_per_photon"] = _positive(source, "transmission", "counts_per_photon")
    for key, name in (("moments_x", "moments/u"), ("moments_y", "moments/z")):
        if source.has(name):  # slopes of int delta dt, which is minus the phase over the wave number
            found[key] = -per_point(name, key.replace("_", " "))
    if source.has("/@rotation_centre_u"):
        found["rotation_centre"] = _attribute(source, "/", "rotation_centre_u")
    return found


def _side_by_side(counts: list[np.ndarray]) -> np.ndarray:
    """Stack counts of several lines; the largest number of a narrower type, which is saturated, becomes the wider's."""
    kind = np.result_type(*counts)
    if kind.kind not in "iu":
        return np.stack(counts, -1)
    return np.stack([np.where(at_ceiling(one), np.iinfo(kind).max, one.astype(kind)) for one in counts], -1)


def _live_fraction(source: Source, points: tuple[int, ...]) -> np.ndarray:
    """Give the share of the time in which counts were counted.

    **Raises:** `InputError` for shares that are none.
    """
    live, real = (source.numbers(f"{kind}_time", f"{kind} time", points) for kind in ("live", "real"))
    with np.errstate(divide="ignore", invalid="ignore"):
        share = live / real
    bad = np.argwhere(~((share > 0) & (share <= 1.01)))
    if len(bad):
        raise InputError(
            f"{source.name}: live_time is {share[tuple(bad[0])]:.3g} of real_time at {len(bad)} points, first "
            f"{bad[0].tolist()}: leave such views out (data.views), or mend the times"
        )
    return share


def _line_names(source: Source, channels: list[str]) -> tuple[str, ...]:
    """Name the lines as tables know them, "Fe Ka"; one that says nothing is K alpha."""
    said = lambda n: text(source.file[f"lines/{n}"].attrs["line"]) if source.has(f"lines/{n}@line") else "Ka"
    return tuple(f"{n} {said(n)}" if re.fullmatch("[A-Z][a-z]?", n) else n for n in channels)


def _order(source: Source) -> list[str]:
    """Lines in the order of the rows of the table: elements as the components have them, scattering last."""
    names = list(source.file["lines"])
    rows = len(source.numbers("tables/sigma_line", "attenuation of the lines", (None, None)))
    components = source.names("tables/components", "components")
    ordered = [name for name in components if name in names] + [name for name in names if name not in components]
    if len(ordered) > rows:
        raise InputError(f"{source.name}: tables/sigma_line has {rows} rows for the {len(ordered)} lines {ordered}")
    return ordered


def _tables(source: Source, channels: list[str], components: list[str]) -> dict[str, Any]:
    share, emission = _share(source, "detector@solid_angle_fraction"), np.zeros((len(channels), len(components)))
    directions = source.numbers("detector/directions_lab", "directions of the detector elements", (None, 3), True)
    if not (np.abs(directions).max(1) > 0).all():
        raise InputError(f"{source.name}: detector/directions_lab holds a direction of no length: (0, 0, 0)")
    weights, per_component = np.ones((len(directions), len(channels))), (len(components),)
    for row, name in enumerate(channels):
        efficiency = _positive(source, f"lines/{name}", "efficiency")
        if name == COMPTON:
            emission[row] = share * efficiency * _table(source, "tables/incoherent", per_component)
            weights[:, row] = _table(source, "detector/compton_weight", (len(directions),))
        elif name in components:
            produced = _positive(source, f"lines/{name}", "production_cm2_per_g")
            emission[row, components.index(name)] = share * efficiency * produced
        else:
            raise InputError(f"{source.name}: lines/{name} belongs to none of tables/components ({components})")
    return {
        "components": tuple(components), "channels": tuple(channels), "emission": emission,
        "beam": _table(source, "tables/sigma_E0", per_component),
        "lines": _table(source, "tables/sigma_line", (None, *per_component))[: len(channels)],
        "directions": directions, "weights": weights / len(weights),
        "table": _said(source),
    }  # fmt: skip


def _said(source: Source) -> str:
    return f"the file's ({text(source.file.attrs['tables'])})" if source.has("/@tables") else "the file's"


def _attribute(source: Source, path: str, name: str) -> float:
    return source.one(f"{path}@{name}", name.replace("_", " "))


def _share(source: Source, name: str) -> float:
    """Read a part of the full sphere.

    **Raises:** `InputError` for zero, and for more than all of it.
    """
    share = source.one(name, "share of the sphere", positive=True)
    if share > 1:
        raise InputError(f"{source.name}: {name} is {share:g}; expected a share of the full sphere, 1 at most")
    return share


def _positive(source: Source, path: str, name: str) -> float:
    return source.one(f"{path}@{name}", name.replace("_", " "), positive=True)


def _table(source: Source, name: str, shape: tuple[int | None, ...]) -> np.ndarray:
    """Read cross sections, which are finite and not below zero.

    **Raises:** `InputError`.
    """
    values = source.numbers(name, "cross sections", shape, finite=True)
    if (values < 0).any():
        raise InputError(f"{source.name}: {name} holds cross sections below zero")
    return values


def _emission(source: Source, channels: list[str]) -> dict[str, Any]:
    """Read what the file says of production and detection of every line; NaN where it says nothing."""
    said = lambda name, n: _attribute(source, f"lines/{n}", name) if source.has(f"lines/{n}@{name}") else np.nan
    share = "detector@solid_angle_fraction"
    return {
        "production": np.array([said("production_cm2_per_g", n) for n in channels]),
        "efficiency": np.array([said("efficiency", n) for n in channels]),
        "solid_angle": _share(source, share) if source.has(share) else None,
        "table": _said(source),
    }


# ---------------------------------------------------------------------------------------------------- maps
def _is_map(source: Source) -> bool:
    """Tell a raster with counts of lines, without angles."""
    if source.file is None or source.has("theta") or not hasattr(source.file.get("lines"), "keys"):
        return False
    return any(source.has(f"lines/{name}/counts") for name in source.file["lines"])


def _map(source: Source) -> dict[str, Any]:
    """Read counts (y, x) or (view, y, x) of every line and whatever else is there."""
    channels = [name for name in source.file["lines"] if source.has(f"lines/{name}/counts")]
    if source.has("tables/sigma_line"):
        source.say("tables of a tomogram, but no angles (/theta): read as a map")
    read = lambda inner: {n: source.numbers(f"lines/{n}/{inner}", inner) for n in channels}
    found: dict[str, Any] = {
        "counts": side_by_side(source, read("counts"), "counts"),
        "lines": _line_names(source, channels),
        "emission": _emission(source, channels),
        "method": "fluorescence-map",
    }
    for key, inner in (("area_errors", "errors"), ("area_backgrounds", "background")):
        if all(source.has(f"lines/{n}/{inner}") for n in channels):
            found[key] = side_by_side(source, read(inner), key)
    for key in ("live_time", "real_time", "dwell"):
        if source.has(key):
            found[key] = source.numbers(key, key.replace("_", " "))
    if source.has("monitor/counts"):
        monitor = source.numbers("monitor/counts", "monitor")
        scale = source.has("monitor@monitor_per_photon")
        per_photon = _attribute(source, "monitor", "monitor_per_photon") if scale else None
        found |= {"photons": monitor / per_photon} if per_photon else {"monitor": monitor}
    for key, attribute in (("pixel_size", "pixel_m"), ("energy", "energy_eV")):
        if source.has(f"/@{attribute}"):
            found[key] = _attribute(source, "/", attribute)
    return found


# ---------------------------------------------------------------------------------------------------- older files
def _by_elements(source: Source) -> dict[str, Any]:
    elements = source.names("elements", "elements")
    components = source.names("components", "components")
    counts = [source.numbers(f"{elements[0]}/counts", "counts", (None, None))]
    first = counts[0].shape
    counts = np.stack(counts + [source.numbers(f"{n}/counts", "counts", first) for n in elements[1:]], -1)[:, None]
    share, flat = (
        _positive(source, "/", "detector_fraction"),
        source.numbers("detector_directions_lab", "directions", (None, None), finite=True),
    )
    directions = np.concatenate([flat, np.zeros((len(flat), 1))], 1) if flat.shape[1] == 2 else flat
    emission, per_component = np.zeros((len(elements), len(components))), (len(components),)
    for row, name in enumerate(elements):
        if name not in components:
            raise InputError(f"{source.name}: {name} belongs to none of components ({components})")
        emission[row, components.index(name)] = share * _positive(source, name, "production_cm2_per_g")
    tables = {
        "components": tuple(components), "channels": tuple(elements), "emission": emission,
        "beam": _table(source, "sigma_total_E0_cm2_per_g", per_component),
        "lines": np.stack([_table(source, f"{n}/sigma_total_line_cm2_per_g", per_component) for n in elements]),
        "directions": directions, "weights": np.full((len(directions), len(elements)), 1 / len(directions)),
        "table": "the file's",
    }  # fmt: skip
    found = {
        "counts": counts, "angles": source.numbers("theta", "angles", first[:1], finite=True), "cross_sections": tables,
        "photons": np.full(counts.shape[:3], _positive(source, "/", "I0")),
        "pixel_size": 0.01 * _attribute(source, "/", "pixel_cm"), "energy": _attribute(source, "/", "E0_eV"),
    }  # fmt: skip
    if source.has("transmission_counts"):
        found["transmitted"] = source.numbers("transmission_counts", "transmitted counts", first)[:, None]
        found["transmitted_per_photon"] = _attribute(source, "/", "I0_transmission") / _attribute(source, "/", "I0")
    return found

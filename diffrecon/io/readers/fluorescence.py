"""Fluorescence tomograms with their tables: counts of every line (view, z, u), monitor, transmission, detector.

Two layouts: one group a line below `lines`, and an older one of a single slice with a group an element at the top.
"""

from typing import Any

import numpy as np

from ...errors import InputError
from ..source import Source, text

COMPTON = "compton"


def probe(source: Source) -> bool:
    """Tell whether a file holds counts of lines at many angles together with the cross sections."""
    named = source.has("lines") and source.has("tables/sigma_line") and source.has("theta")
    return named or (source.has("elements") and source.has("sigma_total_E0_cm2_per_g") and source.has("theta"))


def read(source: Source, given: dict[str, Any]) -> dict[str, Any]:
    """Read counts, what was sent in, and cross sections."""
    found = _by_lines(source) if source.has("lines") else _by_elements(source)
    _check(source, found)
    return found | {"method": "fluorescence-tomography", "angle_unit": "rad"}


def _check(source: Source, found: dict[str, Any]) -> None:
    """Refuse points that no photon reached, and say how much of them is not counted for dead time."""
    photons = found["photons"]
    if photons.shape != found["counts"].shape[:3]:
        raise InputError(f"{source.name}: the monitor has shape {photons.shape}, counts {found['counts'].shape[:3]}")
    bad = np.argwhere(~(np.isfinite(photons) & (photons > 0)))
    if bad.size:
        view, row, column = (int(i) for i in bad[0])
        raise InputError(
            f"{source.name}: the monitor is {photons[view, row, column]:g} at {len(bad)} points, first view {view}, "
            f"row {row}, point {column}: leave such views out (data.views) or mend the monitor"
        )


# ---------------------------------------------------------------------------------------------------- a group a line
def _by_lines(source: Source) -> dict[str, Any]:
    channels = _order(source)
    components = [text(name) for name in source.array("tables/components", "components")]
    photons = source.array("monitor/counts", "monitor") / _attribute(source, "monitor", "monitor_per_photon")
    found = {
        "counts": np.stack([source.array(f"lines/{name}/counts", "counts") for name in channels], -1),
        "angles": source.array("theta", "angles"),
        "photons": np.asarray(photons, float),
        "pixel_size": _attribute(source, "/", "pixel_m"),
        "energy": _attribute(source, "/", "energy_eV"),
        "cross_sections": _tables(source, channels, components),
    }
    if source.has("live_time"):
        found["live_fraction"] = source.array("live_time", "live time") / source.array("real_time", "real time")
    if source.has("transmission/counts"):
        found["transmitted"] = source.array("transmission/counts", "transmitted counts")
        found["transmitted_per_photon"] = _attribute(source, "transmission", "counts_per_photon")
    if source.has("/@rotation_centre_u"):
        found["rotation_centre"] = _attribute(source, "/", "rotation_centre_u")
    return found


def _order(source: Source) -> list[str]:
    """Lines in the order of the rows of the table: elements as the components have them, scattering last."""
    names = list(source.file["lines"])
    rows = source.dataset("tables/sigma_line", "attenuation of the lines").shape[0]
    components = [text(name) for name in source.array("tables/components", "components")]
    ordered = [name for name in components if name in names] + [name for name in names if name not in components]
    if len(ordered) > rows:
        raise InputError(f"{source.name}: tables/sigma_line has {rows} rows for the {len(ordered)} lines {ordered}")
    return ordered


def _tables(source: Source, channels: list[str], components: list[str]) -> dict[str, Any]:
    share, emission = _attribute(source, "detector", "solid_angle_fraction"), np.zeros((len(channels), len(components)))
    weights = np.ones((source.dataset("detector/directions_lab", "directions").shape[0], len(channels)))
    for row, name in enumerate(channels):
        efficiency = _attribute(source, f"lines/{name}", "efficiency")
        if name == COMPTON:
            emission[row] = share * efficiency * source.array("tables/incoherent", "incoherent scattering")
            weights[:, row] = source.array("detector/compton_weight", "weights of Compton scattering")
        elif name in components:
            produced = _attribute(source, f"lines/{name}", "production_cm2_per_g")
            emission[row, components.index(name)] = share * efficiency * produced
        else:
            raise InputError(f"{source.name}: lines/{name} belongs to none of tables/components ({components})")
    return {
        "components": tuple(components), "channels": tuple(channels), "emission": emission,
        "beam": source.array("tables/sigma_E0", "attenuation of the beam"),
        "lines": source.array("tables/sigma_line", "attenuation of the lines")[: len(channels)],
        "directions": source.array("detector/directions_lab", "directions"), "weights": weights / len(weights),
        "table": _said(source),
    }  # fmt: skip


def _said(source: Source) -> str:
    return f"the file's ({text(source.file.attrs['tables'])})" if source.has("/@tables") else "the file's"


def _attribute(source: Source, path: str, name: str) -> float:
    return float(np.ravel(source.array(f"{path}@{name}", name))[0])


# ---------------------------------------------------------------------------------------------------- older files
def _by_elements(source: Source) -> dict[str, Any]:
    elements = [text(name) for name in source.array("elements", "elements")]
    components = [text(name) for name in source.array("components", "components")]
    counts = np.stack([source.array(f"{name}/counts", "counts") for name in elements], -1)[:, None]
    share, flat = _attribute(source, "/", "detector_fraction"), source.array("detector_directions_lab", "directions")
    directions = np.concatenate([flat, np.zeros((len(flat), 1))], 1) if flat.shape[1] == 2 else flat
    emission = np.zeros((len(elements), len(components)))
    for row, name in enumerate(elements):
        emission[row, components.index(name)] = share * _attribute(source, name, "production_cm2_per_g")
    tables = {
        "components": tuple(components), "channels": tuple(elements), "emission": emission,
        "beam": source.array("sigma_total_E0_cm2_per_g", "attenuation of the beam"),
        "lines": np.stack([source.array(f"{n}/sigma_total_line_cm2_per_g", "attenuation") for n in elements]),
        "directions": directions, "weights": np.full((len(directions), len(elements)), 1 / len(directions)),
        "table": "the file's",
    }  # fmt: skip
    found = {
        "counts": counts, "angles": source.array("theta", "angles"), "cross_sections": tables,
        "photons": np.full(counts.shape[:3], _attribute(source, "/", "I0")),
        "pixel_size": 0.01 * _attribute(source, "/", "pixel_cm"), "energy": _attribute(source, "/", "E0_eV"),
    }  # fmt: skip
    if source.has("transmission_counts"):
        found["transmitted"] = source.array("transmission_counts", "transmitted counts")[:, None]
        found["transmitted_per_photon"] = _attribute(source, "/", "I0_transmission") / _attribute(source, "/", "I0")
    return found

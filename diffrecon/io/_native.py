"""diffrecon's own input file: datasets `/data/<key>` and `/geometry/<key>` by the names of `open_scan`, in SI units.

What `write_scan` writes; also the simplest layout to aim at when converting a beamline's files.
"""

from pathlib import Path
from typing import Any

import numpy as np

from ..errors import InputError
from ..geometry import ConeBeam, FarField, ParallelBeam
from ..scan import Scan
from ._cxi_out import write_cxi
from ._disk import new_hdf5
from ._given import KEYS, MOTORS
from ._nexus import _dataset, _group, write_frames
from ._source import Source, text


def probe(source: Source) -> bool:
    """Whether this is diffrecon's own layout."""
    return source.has("data/counts")


def read(source: Source, given: dict[str, Any]) -> dict[str, Any]:
    """Everything in `/data` and `/geometry`; other names there are refused, so that a slip does not pass unseen."""
    found: dict[str, Any] = {"counts": source.frames("data/counts")}
    for section in ("data", "geometry"):
        for name in source.file.get(section, {}):
            if name not in KEYS or KEYS[name].section != section:
                source.say(f"not used: /{section}/{name}")
            elif name in MOTORS:
                found[name] = f"/data/{name}"
            elif name != "counts":
                found[name] = _value(source, f"{section}/{name}", name)
    for name, key in (("positions", "positions_unit"), ("angles", "angle_unit")):
        written = source.units(f"data/{name}") if name in found else None
        if written:
            found.setdefault(key, written)
    if "method" in source.file.attrs:
        found["method"] = text(source.file.attrs["method"])
    return found


def _value(source: Source, path: str, name: str) -> Any:
    kind, unit = KEYS[name].kind, KEYS[name].unit
    values = source.array(path, name)
    if kind == "text" or values.dtype.kind in "OSU":
        return text(values[()] if values.ndim == 0 else values)
    if kind == "array" or values.ndim:
        return values
    return source.number(path, name, unit)


def write_scan(path: str | Path, scan: Scan) -> Path:
    """Write a scan so that `open_scan` reads it back: counts, what each view was, geometry; the file appears whole.

    A path that ends in `.cxi` becomes a CXI file, for other programs too: see `write_cxi`.

    **Raises:** `InputError` when the path cannot be written, or for tensor SAXS (mumott's layout holds that).

    ```python
    write_scan("simulated.h5", Scan.from_arrays(counts, angles=angles, method="tomography"))
    ```
    """
    if scan.tensor_geometry is not None:
        raise InputError(f"{path}: write_scan has no place for the geometry of tensor SAXS; use mumott's layout")
    if Path(path).suffix.lower() == ".cxi":
        return write_cxi(path, scan)
    with new_hdf5(path) as file:
        file.attrs.update(creator="diffrecon", NX_class="NXroot")
        if scan.method:
            file.attrs["method"] = scan.method
        data = _group(file, "data", "NXcollection")
        write_frames(data, "counts", scan.counts)
        for name, value in _data(scan).items():
            _dataset(data, name, np.asarray(value))
        for name, unit in (("angles", "rad"), ("positions", scan.positions_unit)):
            if name in data:
                data[name].attrs["units"] = unit
        geometry = _group(file, "geometry", "NXcollection")
        for name, value in _geometry(scan).items():
            geometry[name] = value
            if KEYS[name].unit:
                geometry[name].attrs["units"] = KEYS[name].unit
    return Path(path)


def _data(scan: Scan) -> dict[str, Any]:
    named = {
        name: getattr(scan, name)
        for name in (
            "flats",
            "darks",
            "mask",
            "angles",
            "positions",
            "probe",
            "weights",
            "transmission",
            "flux",
            "saturation",
        )
    }
    named |= {k: v for k, v in scan.extra.items() if k in ("shifts", "dc", "flat_views", "dark_views")}
    return {k: (np.asarray(v, np.uint8) if k == "mask" else v) for k, v in named.items() if v is not None}


def _geometry(scan: Scan) -> dict[str, Any]:
    place = scan.geometry
    named: dict[str, Any] = {"rotation_centre": scan.rotation_centre}
    if isinstance(place, ConeBeam):
        named |= {k: getattr(place, k) for k in ("energy", "focus_to_sample", "focus_to_detector", "detector_pixel")}
    elif isinstance(place, ParallelBeam | FarField):
        named |= {k: getattr(place, k) for k in ("energy", "sample_to_detector", "detector_pixel")}
        if isinstance(place, FarField):
            named["pixel_size"] = place.sample_pixel
        elif scan.method == "near-field-ptychography":
            named["beam"] = "parallel"
    return {k: v for k, v in named.items() if v is not None}

"""Results for ptypy: files that `ptypy.io.h5read` and its plotting scripts open (`.ptyr`).

ptypy keeps arrays in storages of layers: `content/obj/<id>/data (layer, y, x)`, `content/probe/<id>/data`, each with
the pixel `_psize` [m] and the coordinates of pixel (0, 0), `_origin`; positions [m] are the middles of the patches.
Every dataset says of what Python type it was.

ptypy multiplies the wave behind the sample by `exp(i pi r^2 / (wavelength distance))` before the Fourier transform of
the far field; here that curvature is part of the probe, so it is taken out of it for the file.
"""

from pathlib import Path
from typing import Any

import numpy as np

from ..._result import Quantity, Result
from ...errors import InputError
from ...geometry import FarField
from ...scan import Scan
from .._disk import new_hdf5
from .record import provenance

_ID = "Sscan00G00"


def write_ptyr(path: str | Path, result: Result, scan: Scan | None) -> Path:
    """Write object, probe modes and positions of a ptychographic result as ptypy's minimal record.

    **Raises:** `InputError` for a result without object and probe, or with an object of several slices.
    """
    found = result.quantities
    if "object" not in found or "probe" not in found or np.ndim(found["object"].data) != 2:
        raise InputError(
            f"{path}: a .ptyr file holds the object (one plane) and the probe of ptychography; this "
            f"result has {', '.join(found)}; write it as .h5"
        )
    pixel = float(np.mean(np.asarray(found["object"].pixel_size or 1.0, float)))
    frame = np.array(np.shape(found["probe"].data)[-2:])
    corners = _corners(found.get("positions"), pixel)
    middle = np.asarray(found["object"].data.shape) / 2 if corners is None else (corners + frame / 2).mean(0)
    probe = _without_curvature(np.asarray(found["probe"].data), pixel, scan)
    with new_hdf5(path) as file:
        file.attrs["h5rw_version"] = "0.1"
        _store(file, "header", {"kind": "minimal", "description": "Ptypy .h5 compatible storage format"})
        content = {
            "obj": {_ID: _storage(np.asarray(found["object"].data)[None], pixel, middle)},
            "probe": {_ID: _storage(probe, pixel, frame / 2)},
            "pars": {key: str(value) for key, value in provenance(result, scan).items() if isinstance(value, str)},
            "runtime": {},
        }
        if corners is not None:
            content["positions"] = {_ID: (corners + frame / 2 - middle) * pixel}
        _store(file, "content", content)
    return Path(path)


def _without_curvature(probe: np.ndarray, pixel: float, scan: Scan | None) -> np.ndarray:
    """Far-field probe modes without the quadratic phase that ptypy's propagator adds, where the distance is known."""
    place = None if scan is None else scan.geometry
    if not isinstance(place, FarField) or place.wavelength is None or place.sample_to_detector is None:
        return probe
    y, x = (pixel * (np.arange(n) - n // 2) for n in probe.shape[-2:])
    square = y[:, None] ** 2 + x**2
    phase = np.pi * square / (float(place.wavelength) * float(place.sample_to_detector))
    return (probe * np.exp(-1j * phase)).astype(probe.dtype)


def _corners(positions: Quantity | None, pixel: float) -> np.ndarray | None:
    if positions is None:
        return None
    places = np.asarray(positions.data, float)
    return places if positions.units == "pixel" else places / pixel


def _storage(data: np.ndarray, pixel: float, centre: np.ndarray) -> dict[str, Any]:
    """A stack of layers; `centre` [pixel] is where the coordinates are zero."""
    size = np.full(2, pixel)
    return {
        "ID": _ID,
        "data": data,
        "shape": data.shape,
        "_psize": size,
        "_center": np.asarray(centre, float),
        "_origin": -np.asarray(centre, float) * size,
        "layermap": list(range(len(data))),
        "nlayers": len(data),
        "fill_value": 0.0,
    }


def _store(parent: Any, name: str, value: Any) -> None:
    """A value and its Python type, by which it is read."""
    if isinstance(value, dict):
        group = parent.create_group(name)
        group.attrs["type"] = "dict"
        for key, inner in value.items():
            _store(group, key, inner)
        return
    kinds = {str: "string", tuple: "arraytuple", list: "arraylist", np.ndarray: "array"}
    parent[name] = value
    parent[name].attrs["type"] = kinds.get(type(value), "scalar")

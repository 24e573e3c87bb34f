"""Scans out, in diffrecon's own layout: datasets `/data/<key>` and `/geometry/<key>` by the names of `open_scan`."""

from pathlib import Path
from typing import Any

import numpy as np

from ...errors import InputError
from ...geometry import ConeBeam, FarField, ParallelBeam
from ...scan import Scan
from .._disk import new_hdf5
from .._key_table import KEYS
from .cxi import write_cxi
from .record import dataset, new_group, write_frames


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
        data = new_group(file, "data", "NXcollection")
        write_frames(data, "counts", scan.counts)
        for name, value in _data(scan).items():
            dataset(data, name, np.asarray(value))
        for name, unit in (("angles", "rad"), ("positions", scan.positions_unit)):
            if name in data:
                data[name].attrs["units"] = unit
        geometry = new_group(file, "geometry", "NXcollection")
        for name, value in _geometry(scan).items():
            geometry[name] = value
            if KEYS[name].unit:
                geometry[name].attrs["units"] = KEYS[name].unit
    return Path(path)


_EXTRA = (
    "shifts", "dc", "flat_views", "dark_views", "times", "reference", "steps", "reference_steps", "monitor",
    "moments_y", "moments_x",
)  # fmt: skip


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
    named |= {k: v for k, v in scan.extra.items() if k in _EXTRA}
    return {k: (np.asarray(v, np.uint8) if k == "mask" else v) for k, v in named.items() if v is not None}


def _geometry(scan: Scan) -> dict[str, Any]:
    place = scan.geometry
    named: dict[str, Any] = {"rotation_centre": scan.rotation_centre}
    named |= {k: scan.extra.get(k) for k in ("period", "detector_blur", "tilt")}
    if isinstance(place, ConeBeam):
        named |= {k: getattr(place, k) for k in ("energy", "focus_to_sample", "focus_to_detector", "detector_pixel")}
    elif isinstance(place, ParallelBeam | FarField):
        named |= {k: getattr(place, k) for k in ("energy", "sample_to_detector", "detector_pixel")}
        if isinstance(place, FarField):
            named["pixel_size"] = place.sample_pixel
        elif scan.method == "near-field-ptychography":
            named["beam"] = "parallel"
    return {k: v for k, v in named.items() if v is not None}

"""Tomograms at several energies: counts and flats of every energy, angles, and what the sample is made of.

```
/counts (energy, view, z, u), /flats (energy, frame, z, u), /darks (frame, z, u)
/energies [eV], /theta (energy, view) or (view,) [rad]
/materials, /formula: names and compositions;  attributes pixel_m, rotation_centre_u
```
"""

from typing import Any

import numpy as np

from ...errors import InputError
from .._lazy import Stacked
from ..source import Source, text


def probe(source: Source) -> bool:
    """Tell whether a file holds counts (energy, view, z, u) with the energies."""
    return source.has("counts") and source.has("energies") and getattr(source.file["counts"], "ndim", 0) == 4


def read(source: Source, given: dict[str, Any]) -> dict[str, Any]:
    """Read counts with all views of the first energy first, the angle and energy of each, and the materials."""
    stored = source.dataset("counts", "counts")
    energies = source.numbers("energies", "energies", (None,), finite=True).astype(float)
    count, views = stored.shape[:2]
    if len(energies) != count:
        raise InputError(f"{source.name}: /counts holds {count} energies, /energies {len(energies)}")
    found: dict[str, Any] = {
        "counts": Stacked(source.path, stored.name, stored.shape, stored.dtype),
        "energy": np.repeat(energies, views),
        "method": "k-edge",
    }
    if source.has("theta"):
        angles = source.numbers("theta", "angles").astype(float)
        if angles.shape not in ((views,), (count, views)):
            raise InputError(f"{source.name}: /theta has shape {angles.shape}; expected {(count, views)} or {(views,)}")
        found |= {"angles": np.broadcast_to(angles, (count, views)).ravel(), "angle_unit": _angle_unit(source)}
    elif "angles" not in given:
        raise InputError(
            f"{source.name}: counts of {views} views at {count} energies, and no angles (/theta): say where they are, "
            "--set data.angles=0..180 deg for each energy in turn, one for each of all frames"
        )
    if source.has("flats"):
        flats = source.numbers("flats", "flats")
        if flats.ndim != 4 or len(flats) != count:
            raise InputError(f"{source.name}: /flats has shape {flats.shape}; expected (energy, frame, z, u)")
        found["flats"] = flats.reshape(-1, *flats.shape[2:])
    if source.has("darks"):
        darks = source.numbers("darks", "darks")
        if darks.ndim < 2:
            raise InputError(f"{source.name}: /darks has shape {darks.shape}; expected (frame, z, u)")
        found["darks"] = darks.reshape(-1, *darks.shape[-2:])
    return found | _sample(source)


def _angle_unit(source: Source) -> str:
    return text(source.file.attrs.get("angle_unit", "rad"))


def _sample(source: Source) -> dict[str, Any]:
    found: dict[str, Any] = {}
    if source.has("materials"):
        names = source.names("materials", "materials")
        formulas = source.names("formula", "formulas") if source.has("formula") else names
        if len(names) != len(formulas):
            raise InputError(f"{source.name}: {len(names)} materials and {len(formulas)} formulas")
        found["materials"] = dict(zip(names, formulas, strict=True))
    if source.has("/@pixel_m"):
        found["pixel_size"] = source.one("/@pixel_m", "pixel")
    if source.has("/@rotation_centre_u"):
        found["rotation_centre"] = source.one("/@rotation_centre_u", "rotation centre")
    return found

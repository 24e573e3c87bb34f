"""HDF5 files in which every image is a dataset of its own (beamline 8.3.2 of the ALS, and others).

Flats and darks are told by their names (`bak`, `drk`), the rest stands in attributes of the group: `nangles`, `arange`
[deg], `senergy` [eV], `pxsize` [mm].
"""

from typing import Any

import h5py
import numpy as np

from .._datasets import images_of_group, kinds_of_group
from ..source import Source, text

_FEWEST = 3


def probe(source: Source) -> bool:
    """Tell whether one of the outer groups is made of images, and holds a word about the scan."""
    return _group(source) is not None


def read(source: Source, given: dict[str, Any]) -> dict[str, Any]:
    """Read frames, flats and darks (lazy), and what the group says."""
    name = _group(source)
    assert name is not None
    group = source.file[name]
    kinds = kinds_of_group(group)
    found: dict[str, Any] = {}
    for kind, keys in kinds.items():
        images = images_of_group(source, name, keys) if keys and kind not in given else None
        if images is not None:
            found[kind] = images
    source.say(f"/{name}: " + ", ".join(f"{len(keys)} {kind}" for kind, keys in kinds.items() if keys))
    views, span = _number(group, "nangles"), _number(group, "arange")
    if views and span and views > 1:
        found["angles"], found["angle_unit"] = np.linspace(0, span, int(views)), "deg"
        found["method"] = "tomography"
    energy, pixel = _number(group, "senergy"), _number(group, "pxsize")
    return found | ({"energy": energy} if energy else {}) | ({"detector_pixel": pixel * 1e-3} if pixel else {})


def _group(source: Source) -> str | None:
    if source.file is None:
        return None
    for name, item in source.walk(depth=2, most=64):
        if isinstance(item, h5py.Group) and "nangles" in item.attrs and len(item) >= _FEWEST:
            return name
    return None


def _number(group: Any, name: str) -> float | None:
    try:
        value = float(text(group.attrs[name]))
    except (KeyError, ValueError):
        return None
    return value if np.isfinite(value) and value > 0 else None

"""NumPy archives (.npz) and single arrays (.npy), by the names their authors use."""

from typing import Any

import numpy as np

from ..errors import InputError
from ._given import KEYS
from ._source import Source

_ALIASES = {
    "counts": ("counts", "data", "frames", "intensities", "diffraction_patterns", "diffamp2", "projections", "I"),
    "positions": ("positions", "scan", "coordinates", "pos"),
    "probe": ("probe", "illumination"),
    "angles": ("angles", "theta", "angle"),
    "flats": ("flats", "flat", "white", "data_white"),
    "darks": ("darks", "dark", "data_dark"),
    "sample_to_detector": ("sample_to_detector", "distance", "detector_distance"),
    "positions_unit": ("positions_unit", "position_unit", "positions_units", "unit"),
    "angle_unit": ("angle_unit", "angles_unit", "theta_unit"),
}


def probe(source: Source) -> bool:
    """Whether this is a NumPy file."""
    return source.path.suffix.lower() in (".npz", ".npy") and source.path.is_file()


def read(source: Source, given: dict[str, Any]) -> dict[str, Any]:
    """Every array under a name that diffrecon knows; the others are listed in a message."""
    arrays = _load(source)
    found, used = {}, set()
    for key in KEYS:
        name = next((n for n in _ALIASES.get(key, (key,)) if n in arrays), None)
        if name is not None and key not in given:
            found[key] = _plain(arrays[name], KEYS[key].kind)
            used.add(name)
    if "counts" not in found and "counts" not in given:
        raise InputError(
            f"{source.name}: no array called {' or '.join(_ALIASES['counts'][:2])}; "
            f"there are {', '.join(f'{k} {v.shape}' for k, v in arrays.items()) or 'none'}"
        )
    unused = sorted(set(arrays) - used)
    if unused:
        source.say(f"not used: {', '.join(unused)}")
    if "mask" in found:
        source.say("mask taken as True where the pixel measured (give data.bad_pixels for the opposite)")
    return found


def _load(source: Source) -> dict[str, np.ndarray]:
    try:
        with open(source.path, "rb") as file:
            loaded = np.load(file, allow_pickle=False)
            return (
                {"counts": loaded} if isinstance(loaded, np.ndarray) else {name: loaded[name] for name in loaded.files}
            )
    except Exception as error:  # zipfile, zlib and NumPy each raise their own
        raise InputError(
            f"{source.path}: the NumPy file is damaged or incomplete ({str(error).splitlines()[0]})"
        ) from error


def _plain(value: np.ndarray, kind: str) -> Any:
    if kind == "text" or value.dtype.kind in "US":
        return str(value[()]) if value.ndim == 0 else [str(v) for v in value]
    return value[()] if value.ndim == 0 else value

"""NumPy archives (.npz) and single arrays (.npy), by the names their authors use."""

import os
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from ...errors import InputError
from .._key_table import KEYS
from ..source import Source, text

_SMALL = 2**20  # bytes below which an array is read at once

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
    """Tell whether this is a NumPy file."""
    return source.path.suffix.lower() in (".npz", ".npy") and source.path.is_file()


def read(source: Source, given: dict[str, Any]) -> dict[str, Any]:
    """Read every array under a name that diffrecon knows; the others are listed in a message."""
    arrays, others = _load(source)
    found, used = {}, set()
    for key in KEYS:
        name = next((n for n in _ALIASES.get(key, (key,)) if n in arrays), None)
        if name is not None and key not in given:
            found[key] = _plain(arrays[name], KEYS[key].kind)
            used.add(name)
    if "counts" not in found and "counts" not in given:
        raise InputError(
            f"{source.name}: no array called {' or '.join(_ALIASES['counts'][:2])}; "
            f"there are {', '.join([*(f'{k} {v.shape}' for k, v in arrays.items()), *others]) or 'none'}"
        )
    unused = sorted({*arrays, *others} - used)
    if unused:
        source.say(f"not used: {', '.join(unused)}")
    if "mask" in found:
        source.say("mask taken as True where the pixel measured (give data.bad_pixels for the opposite)")
    return found


def _load(source: Source) -> tuple[dict[str, np.ndarray], list[str]]:
    """The arrays whose name is known, and the names of others, which stay unread; those of a file that is not packed
    stay in it until they are looked at (`numpy.memmap`)."""
    known = {*KEYS, *(name for names in _ALIASES.values() for name in names)}
    try:
        if source.path.suffix.lower() == ".npy":
            return {"counts": np.load(source.path, mmap_mode="r", allow_pickle=False)}, []
        with zipfile.ZipFile(source.path) as archive, np.load(source.path, allow_pickle=False) as loaded:
            members = {info.filename: info for info in archive.infolist()}
            wanted = [n for n in loaded.files if n in known]
            arrays = {n: _array(loaded, n, source.path, members.get(f"{n}.npy")) for n in wanted}
            return arrays, [n for n in loaded.files if n not in known]
    except Exception as error:  # zipfile, zlib and NumPy each raise their own
        raise InputError(
            f"{source.path}: the NumPy file is damaged or incomplete ({str(error).splitlines()[0]})"
        ) from error


def _array(loaded: Any, name: str, path: Path, member: zipfile.ZipInfo | None) -> np.ndarray:
    mapped = None if member is None else _mapped(path, member)
    return loaded[name] if mapped is None else mapped


def _mapped(path: Path, member: zipfile.ZipInfo) -> np.ndarray | None:
    """A stored member of an archive where it lies; `None` when it is packed or small."""
    if member.compress_type != zipfile.ZIP_STORED or member.file_size < _SMALL:
        return None
    with open(path, "rb") as file:
        file.seek(member.header_offset)
        head = file.read(30)  # the local header, with the lengths of the name and of the extra field at its end
        file.seek(
            member.header_offset + 30 + int.from_bytes(head[26:28], "little") + int.from_bytes(head[28:30], "little")
        )
        version = np.lib.format.read_magic(file)
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, fortran, dtype = read(file)
        if dtype.hasobject or version > (2, 0) or file.tell() + dtype.itemsize * int(np.prod(shape)) > _end(file):
            return None
        return np.memmap(path, dtype, "r", file.tell(), shape, "F" if fortran else "C")


def _end(file: Any) -> int:
    return os.fstat(file.fileno()).st_size


def _plain(value: np.ndarray, kind: str) -> Any:
    if value.dtype.kind in "SU" and value.size == 1:
        return text(value.ravel()[0])
    return value[()] if value.ndim == 0 else value

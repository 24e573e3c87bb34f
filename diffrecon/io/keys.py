"""What the user may say about a file: every key, its kind, and how its value becomes a number or an array."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from .. import physics
from ..errors import InputError, nearest
from ..frames import Frames, LazyFrames
from ._datasets import images_of_group, kinds_of_group
from ._element_maps import element_maps
from ._guess import PIXELS
from ._images import is_image, stack_of_images
from ._key_table import CHOICES, FRAMES, KEYS, MOTORS
from ._numbers import example, implausible, plain
from ._spectra import spectra
from ._tables import AngleRange, load_table
from .source import Source, is_hdf5


def collect(data: Mapping[str, Any], geometry: Mapping[str, Any], keywords: Mapping[str, Any]) -> dict[str, Any]:
    """Make one dictionary by plain names; `None` means not given.

    **Raises:** `InputError` for a name that is not known, with the nearest one.
    """
    given: dict[str, Any] = {}
    for section, values in (("data", data), ("geometry", geometry), (None, keywords)):
        for name, value in values.items():
            if name not in KEYS or section not in (None, KEYS[name].section):
                known = [k for k in KEYS if section in (None, KEYS[k].section)]
                label = f"{section}.{name}" if section else name
                raise InputError(f"{label} is not something that can be said about a file{nearest(name, known)}")
            if value is not None:
                given[name] = value
    return given


def full_name(name: str) -> str:
    """Give `geometry.energy` for `energy`."""
    return f"{KEYS[name].section}.{name}"


def resolve(source: Source, given: Mapping[str, Any]) -> dict[str, Any]:
    """Give every value as a number in SI units, an array, or lazy frames.

    A text that begins with `/` where a number or an array is expected is a dataset of the file, or else a table on
    disk.

    **Raises:** `InputError` naming the key.
    """
    joined = motors(source, given) | element_maps(source, given, array_of)
    joined |= spectra(source, given, array_of)
    resolved = dict(joined)
    for name, value in given.items():
        if name in MOTORS or name in joined:
            continue
        kind, unit = KEYS[name].kind, KEYS[name].unit
        if kind in ("text", "range", "any"):
            resolved[name] = _text_or_choice(name, value) if kind == "text" else value
        elif kind == "frames":
            points = name == "counts" and bool({"positions", *MOTORS} & set(given)) and _is_dataset(source, value)
            listed = source.dataset(value, name).ndim == 1 if points else False  # one number a point of a map
            resolved[name] = source.numbers(value, name)[None, None] if listed else _frames(source, name, value)
        elif name == "angles" and (spread := AngleRange.parse(value)) is not None:
            resolved[name] = spread
        elif kind == "array":
            resolved[name] = array_of(source, name, value) if name not in FRAMES else _frames(source, name, value)
            written = source.units(value) if unit and _is_dataset(source, value) else source.file_units.get(name)
            if written:
                # The unit written beside the numbers; one that the user states comes from `given` and wins.
                resolved.setdefault("angle_unit" if name == "angles" else "positions_unit", written)
        else:
            resolved[name] = _number(source, name, value, unit)
    return resolved


def motors(source: Source, given: Mapping[str, Any]) -> dict[str, Any]:
    """Make positions (view, 2) [m] or [pixel] from two arrays, each with a unit of its own."""
    named = [name for name in MOTORS if name in given]
    if not named:
        return {}
    if len(named) == 1 or "positions" in given:
        raise InputError(
            "positions are data.positions, or data.positions_y and data.positions_x: both of them, and no other"
        )
    axes = [np.asarray(array_of(source, name, given[name])).ravel() for name in MOTORS]
    if any(axis.dtype.kind not in "iuf" or not axis.size for axis in axes):
        raise InputError(
            f"{source.name}: data.positions_y has {axes[0].size} values of type {axes[0].dtype}, "
            f"data.positions_x {axes[1].size} of type {axes[1].dtype}; expected one number a view, or one a row "
            "and one a column of a map, in each"
        )
    units = [given.get("positions_unit") or _written(source, given[name]) for name in MOTORS]
    if not any(units):
        raise InputError(
            f"{source.name}: no unit beside data.positions_y and data.positions_x; say it, for example "
            "--set data.positions_unit=um"
        )
    units = [unit or other for unit, other in zip(units, units[::-1], strict=True)]
    pixels = [str(unit).strip().lower() in PIXELS for unit in units]
    if any(pixels) and not all(pixels):
        raise InputError(f"{source.name}: data.positions_y is in {units[0]}, data.positions_x in {units[1]}")
    scales = [1.0 if all(pixels) else physics.unit_scale(str(unit), "m") for unit in units]
    source.say(f"positions from two arrays, rows in {units[0]}, columns in {units[1]}")
    axes = [axis * scale for axis, scale in zip(axes, scales, strict=True)]
    found: dict[str, Any] = {"positions_unit": "pixel" if all(pixels) else "m"}
    if axes[0].size != axes[1].size:
        found["positions_of_map"] = axes[0].size, axes[1].size
        axes = [axis.ravel() for axis in np.meshgrid(*axes, indexing="ij")]
    return {"positions": np.stack(axes, -1), **found}


def _written(source: Source, value: Any) -> str | None:
    return source.units(value) if _is_dataset(source, value) else None


def _text_or_choice(name: str, value: Any) -> str:
    value = str(value)
    if name in CHOICES and value not in CHOICES[name]:
        raise InputError(f"{full_name(name)}: {value!r} is none of {', '.join(CHOICES[name])}")
    return value


def _is_dataset(source: Source, value: Any) -> bool:
    return isinstance(value, str) and value.startswith("/") and source.has(value)


def _frames(source: Source, name: str, value: Any) -> Any:
    if not isinstance(value, str):
        return value if isinstance(value, LazyFrames) else np.asarray(value)
    if not _inside(source, value):
        return array_of(source, name, value)
    if "@" in value:
        raise InputError(f"{full_name(name)}: {value} is an attribute, not a stack of frames")
    if (images := images_of_group(source, value, _of_kind(source, name, value))) is not None:
        return images
    return _stack(source, name, value)


def _of_kind(source: Source, name: str, value: str) -> list[str] | None:
    """Name the images of a group that holds counts, flats and darks which are `name`; `None` for all of them."""
    group = source.file.get(value)
    kinds = kinds_of_group(group) if hasattr(group, "keys") else {}
    return kinds.get(name) if sum(map(bool, kinds.values())) > 1 else None


def _stack(source: Source, name: str, value: str) -> Any:
    """Frames of a dataset; those of two axes, and what is no stack of frames, in memory."""
    stored = source.dataset(value, name)
    if name == "counts" and stored.ndim not in (2, 3, 4):
        raise InputError(f"{source.name}: {value} ({full_name(name)}) has shape {stored.shape}; expected (view, y, x)")
    return Frames(stored.file.filename, stored.name) if stored.ndim in (3, 4) else source.array(value, name)


def _inside(source: Source, value: str) -> bool:
    """Tell a dataset of the file from a path on the disk, which may begin with / too."""
    if source.file is None or not value.startswith("/"):
        return False
    return source.has(value) or not (Path(value).exists() or Path(value.partition(":/")[0]).is_file())


def array_of(source: Source, name: str, value: Any) -> np.ndarray | LazyFrames:
    """Read an array: as it is, of a dataset of the file, or of another file.

    **Raises:** `InputError` naming the key and what is there.
    """
    if not isinstance(value, str):
        try:
            return np.asarray(value)
        except ValueError:
            raise InputError(f"{full_name(name)}: rows of different lengths do not make an array") from None
    if _inside(source, value):
        return source.array(value, name)
    file, colon, inside = value.partition(":/")
    for said, within in ((value, ""), (file, "/" + inside.strip("/") if colon else None)):
        for path in (Path(said), (source.path if source.path.is_dir() else source.path.parent) / said):
            if within is not None and path.exists():
                source.say(f"{full_name(name)} from {path.name}{':' + within if within else ''}")
                source.beside.append(path)
                return _from_disk(source, name, path, within)
    raise InputError(
        f"{full_name(name)}: {value!r} is neither a dataset of {source.name} (those begin with /) nor a file, nor "
        "FILE:/dataset of another HDF5 file"
    )


def _from_disk(source: Source, name: str, path: Path, within: str) -> Any:
    """A dataset of another HDF5 file, a table, or images (a folder of them too); angles bring the unit that their file
    names."""
    if path.is_dir() or is_image(path):
        images = stack_of_images(path)
        return images if name == "counts" else np.asarray(images)
    if is_hdf5(path):
        return _other_file(source, name, path, within)
    values, unit = load_table(path, "angle|theta|rot" if name == "angles" else None)
    if unit and name == "angles":
        source.file_units["angles"] = unit
    return values


def _other_file(source: Source, name: str, path: Path, within: str) -> Any:
    """A dataset of another HDF5 file; of a file that holds one stack, that."""
    with Source(path) as other:
        if not within:
            least = 2 if name in (*FRAMES, "mask", "bad_pixels", "positions", "probe") else 1
            stacks = [place for place, stored in other.datasets() if stored.ndim >= least]
            if len(stacks) != 1:
                raise InputError(
                    f"{full_name(name)}: {path.name} holds {len(stacks) or 'no'} datasets of {least} axes or more; "
                    f"say which, {path.name}:/dataset; datasets: {other.listing()}"
                )
            within = stacks[0]
        values = _stack(other, name, within) if name in FRAMES else other.array(within, name)
        if (written := other.units(within)) is not None:
            source.file_units[name] = written
    return values


def _number(source: Source, name: str, value: Any, unit: str) -> Any:
    """A number, or an array of them, in the base unit."""
    label, written = full_name(name), None
    if isinstance(value, str) and value.startswith("/"):
        if source.file is None:
            raise InputError(f"{label}: {value} would be a dataset, but {source.name} is not an HDF5 file")
        written, value = source.units(value) if source.has(value) else None, source.array(value, name)
    if unit == "eV":
        return _energy(source, value, written, label)
    scale = physics.unit_scale(written, unit) if written and unit else 1.0
    if isinstance(value, list | tuple):
        value = [physics.quantity(v, unit, label) for v in value]
    try:
        numbers = np.asarray(physics.quantity(value, unit, label) if np.ndim(value) == 0 else value)
    except InputError:
        raise
    except ValueError:  # of ragged lists
        raise InputError(f"{label}: {value!r} is not a number") from None
    if (
        np.asarray(value).dtype.kind == "b"
        or numbers.dtype.kind not in "iuf"
        or not (np.isfinite(numbers).any() if KEYS[name].holes else np.isfinite(numbers).all())
        or not numbers.size
    ):
        shown = repr(value) if np.size(value) < 5 else f"an array of shape {np.shape(value)}"
        raise InputError(f"{label}: {shown} is not a finite number")
    numbers = numbers.astype(float) * scale
    if (why := implausible(name, numbers)) is not None:
        give = "give it with its unit, e.g." if " " in example(name) else "give a number such as"
        raise InputError(f'{label} {why}; {give} --set {label}="{example(name)}"')
    return plain(numbers)


def _energy(source: Source, value: Any, written: str | None, label: str) -> Any:
    """One energy [eV], or one for each view where they differ; without a unit it is told by the magnitude."""
    said = value if isinstance(value, list | tuple | np.ndarray) else [value]
    found: list[float] = []
    for entry in np.ravel(np.asarray(said)).tolist():
        entry = entry.decode(errors="replace") if isinstance(entry, bytes) else entry
        energy = physics.quantity(entry, "eV", label)
        named = isinstance(entry, str) and any(c.isalpha() for c in entry.lower().replace("e", ""))
        try:
            energy, message = physics.plausible_energy(energy, "eV" if named else written)
        except InputError as error:
            raise InputError(f"{label}: {error}") from None
        found.append(energy)
        if not named and len(found) == 1:
            source.say(message)
    if not found:
        raise InputError(f"{label}: {value!r} is not an energy")
    # What a file recorded wavers about one energy; numbers that a user lists are as different as they say.
    alike = np.ptp(found) <= (0 if isinstance(value, list | tuple) else 1e-3 * max(found))
    return float(np.mean(found)) if alike else np.array(found)


def selection(value: Any, count: int, name: str) -> np.ndarray:
    """Give indices from `"0:100:2"`, `"7"`, several of these (`"0:10,13:64"`), a number, a list of numbers or a slice.

    **Raises:** `InputError` when it selects nothing or lies outside.
    """
    wanted = value
    try:
        if isinstance(value, str) and "," in value:
            return np.concatenate([selection(part, count, name) for part in value.split(",") if part.strip()])
        if isinstance(value, str):
            parts = [int(p) if p.strip() else None for p in value.split(":")]
            wanted = parts[0] if len(parts) == 1 else slice(*parts)
        picked = wanted if isinstance(wanted, slice) else np.asarray(wanted)
        if not isinstance(picked, slice) and picked.dtype.kind == "b" and picked.shape != (count,):
            raise ValueError
        chosen = np.arange(count)[picked].ravel()
    except (ValueError, IndexError, TypeError):
        raise InputError(
            f'{full_name(name)}: {value!r} does not select among {count}; write "first:last" or a list'
        ) from None
    if not chosen.size:
        raise InputError(f"{full_name(name)}: {value!r} selects none of {count}")
    return chosen

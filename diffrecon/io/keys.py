"""What the user may say about a file: every key, its kind, and how its value becomes a number or an array."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from .. import physics
from ..errors import InputError, nearest
from ..frames import Frames, LazyFrames
from ._guess import PIXELS
from ._images import is_image, stack_of_images
from ._tables import AngleRange, load_table
from .source import Source


@dataclasses.dataclass(frozen=True)
class Key:
    """A name of `open_scan` and of `--set section.name`.

    `kind`: `"frames"`, `"array"`, `"number"` (in `unit`; may be an array), `"text"`, `"range"` or `"any"`.
    """

    section: str
    kind: str
    unit: str = ""


KEYS: dict[str, Key] = {
    "counts": Key("data", "frames"),
    "flats": Key("data", "array"),
    "darks": Key("data", "array"),
    "mask": Key("data", "array"),
    "bad_pixels": Key("data", "array"),
    "angles": Key("data", "array", "rad"),
    "angle_unit": Key("data", "text"),
    "positions": Key("data", "array", "m"),
    "positions_y": Key("data", "array", "m"),
    "positions_x": Key("data", "array", "m"),
    "positions_unit": Key("data", "text"),
    "positions_of": Key("data", "text"),
    "probe": Key("data", "array"),
    "weights": Key("data", "array"),
    "transmission": Key("data", "array"),
    "flux": Key("data", "number"),
    "saturation": Key("data", "number"),
    "flat_views": Key("data", "array"),
    "dark_views": Key("data", "array"),
    "layout": Key("data", "text"),
    "views": Key("data", "range"),
    "rows": Key("data", "range"),
    "columns": Key("data", "range"),
    "region": Key("data", "range"),
    "binning": Key("data", "range"),
    "entry": Key("data", "text"),
    "image_key": Key("data", "text"),
    "dc": Key("data", "text"),
    "materials": Key("data", "any"),
    "shifts": Key("data", "array"),
    "times": Key("data", "array"),
    "monitor": Key("data", "array"),
    "energy": Key("geometry", "energy", "eV"),
    "wavelength": Key("geometry", "number", "m"),
    "focus_to_sample": Key("geometry", "number", "m"),
    "focus_to_detector": Key("geometry", "number", "m"),
    "sample_to_detector": Key("geometry", "number", "m"),
    "detector_pixel": Key("geometry", "number", "m"),
    "pixel_size": Key("geometry", "number", "m"),
    "rotation_centre": Key("geometry", "number"),
    "tilt": Key("geometry", "number", "rad"),
    "two_theta": Key("geometry", "number", "rad"),
    "beam": Key("geometry", "text"),
    "poni": Key("geometry", "text"),
}

_CHOICES = {
    "dc": ("centre", "corner"),
    "positions_of": ("patch", "sample"),
    "beam": ("parallel", "cone"),
    "layout": ("projections", "sinogram"),
}


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
    joined = motors(source, given)
    resolved = dict(joined)
    for name, value in given.items():
        if name in MOTORS or name in joined:
            continue
        kind, unit = KEYS[name].kind, KEYS[name].unit
        if kind in ("text", "range", "any"):
            resolved[name] = _text_or_choice(name, value) if kind == "text" else value
        elif kind == "frames":
            resolved[name] = _frames(source, name, value)
        elif name == "angles" and (spread := AngleRange.parse(value)) is not None:
            resolved[name] = spread
        elif kind == "array":
            resolved[name] = _array(source, name, value)
            written = source.units(value) if unit and _is_dataset(source, value) else source.file_units.get(name)
            if written:
                # The unit written beside the numbers; one that the user states comes from `given` and wins.
                resolved.setdefault("angle_unit" if name == "angles" else "positions_unit", written)
        else:
            resolved[name] = _number(source, name, value, unit)
    return resolved


MOTORS = ("positions_y", "positions_x")


def motors(source: Source, given: Mapping[str, Any]) -> dict[str, Any]:
    """Make positions (view, 2) [m] or [pixel] from two arrays, each with a unit of its own."""
    named = [name for name in MOTORS if name in given]
    if not named:
        return {}
    if len(named) == 1 or "positions" in given:
        raise InputError(
            "positions are data.positions, or data.positions_y and data.positions_x: both of them, and no other"
        )
    axes = [np.asarray(_array(source, name, given[name])).ravel() for name in MOTORS]
    if axes[0].size != axes[1].size or any(axis.dtype.kind not in "iuf" for axis in axes):
        raise InputError(
            f"{source.name}: data.positions_y has {axes[0].size} values of type {axes[0].dtype}, "
            f"data.positions_x {axes[1].size} of type {axes[1].dtype}; expected one number a view in each"
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
    return {
        "positions": np.stack([axis * scale for axis, scale in zip(axes, scales, strict=True)], -1),
        "positions_unit": "pixel" if all(pixels) else "m",
    }


def _written(source: Source, value: Any) -> str | None:
    return source.units(value) if _is_dataset(source, value) else None


def _text_or_choice(name: str, value: Any) -> str:
    value = str(value)
    if name in _CHOICES and value not in _CHOICES[name]:
        raise InputError(f"{full_name(name)}: {value!r} is none of {', '.join(_CHOICES[name])}")
    return value


def _is_dataset(source: Source, value: Any) -> bool:
    return isinstance(value, str) and value.startswith("/") and source.has(value)


def _frames(source: Source, name: str, value: Any) -> Any:
    if not isinstance(value, str):
        return value if isinstance(value, LazyFrames) else np.asarray(value)
    if source.file is None:
        return _array(source, name, value)
    if "@" in value:
        raise InputError(f"{full_name(name)}: {value} is an attribute, not a stack of frames")
    stored = source.dataset(value, name)
    if stored.ndim not in (2, 3, 4):
        raise InputError(f"{source.name}: {value} ({full_name(name)}) has shape {stored.shape}; expected (view, y, x)")
    return source.array(value, name) if stored.ndim == 2 else Frames(source.path, value)


def _array(source: Source, name: str, value: Any) -> np.ndarray:
    if not isinstance(value, str):
        try:
            return np.asarray(value)
        except ValueError:
            raise InputError(f"{full_name(name)}: rows of different lengths do not make an array") from None
    if source.file is not None and value.startswith("/") and (source.has(value) or not Path(value).is_file()):
        return source.array(value, name)
    for path in (Path(value), (source.path if source.path.is_dir() else source.path.parent) / value):
        if path.exists():
            source.say(f"{full_name(name)} from {path.name}")
            return _from_disk(source, name, path)
    raise InputError(
        f"{full_name(name)}: {value!r} is neither a dataset of {source.name} (those begin with /) nor a file"
    )


def _from_disk(source: Source, name: str, path: Path) -> Any:
    """A table, or images (a folder of them too); angles bring the unit that their file names."""
    if path.is_dir() or is_image(path):
        images = stack_of_images(path)
        return images if name == "counts" else np.asarray(images)
    values, unit = load_table(path, "angle|theta|rot" if name == "angles" else None)
    if unit and name == "angles":
        source.file_units["angles"] = unit
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
    numbers = np.asarray(physics.quantity(value, unit, label) if np.ndim(value) == 0 else value)
    if numbers.dtype.kind not in "iuf" or not np.isfinite(numbers).all():
        raise InputError(f"{label}: {value!r} is not a finite number")
    numbers = numbers.astype(float) * scale
    if unit == "m":
        _plausible_length(numbers, label, name)
    return float(numbers) if numbers.ndim == 0 else numbers


def _energy(source: Source, value: Any, written: str | None, label: str) -> float:
    if isinstance(value, str):
        energy = physics.quantity(value, "eV", label)
        if any(c.isalpha() for c in value.lower().replace("e", "")):
            return physics.plausible_energy(energy, "eV")[0]
        value = energy
    values = np.unique(np.asarray(value, float))
    if values.size != 1:
        raise InputError(
            f"{label}: {values.size} different energies; one is expected "
            "(those of a K-edge subtraction are model.energies)"
        )
    energy, message = physics.plausible_energy(float(values[0]), written)
    source.say(message)
    return energy


def _plausible_length(numbers: np.ndarray, label: str, name: str) -> None:
    low, high = {"detector_pixel": (1e-10, 0.02), "pixel_size": (1e-12, 0.02), "wavelength": (1e-13, 1e-7)}.get(
        name, (1e-7, 1e3)
    )
    bad = numbers[(numbers < low) | (numbers > high)]
    if bad.size:
        raise InputError(
            f'{label} = {bad[0]:g} m is not plausible; give it with its unit, e.g. --set {label}="'
            f'{"3 um" if "pixel" in name else "1 angstrom" if name == "wavelength" else "1.28 m"}"'
        )


def selection(value: Any, count: int, name: str) -> np.ndarray:
    """Give indices from `"0:100:2"`, `"7"`, a number, a list of numbers or a slice.

    **Raises:** `InputError` when it selects nothing or lies outside.
    """
    wanted = value
    try:
        if isinstance(value, str):
            parts = [int(p) if p.strip() else None for p in value.split(":")]
            wanted = parts[0] if len(parts) == 1 else slice(*parts)
        chosen = np.atleast_1d(np.arange(count)[wanted if isinstance(wanted, slice) else np.asarray(wanted)])
    except (ValueError, IndexError, TypeError):
        raise InputError(
            f'{full_name(name)}: {value!r} does not select among {count}; write "first:last" or a list'
        ) from None
    if not chosen.size:
        raise InputError(f"{full_name(name)}: {value!r} selects none of {count}")
    return chosen

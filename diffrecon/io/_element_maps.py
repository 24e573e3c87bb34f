"""Areas of element lines that another program has fitted: one dataset a line, and what belongs to every scan point."""

import re
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from ..errors import InputError
from .source import Source, text

POINTS = ("photons", "monitor", "live_time", "real_time", "dwell", "live_fraction")
"""Values of every scan point, or one for all."""
BY_LINE = ("area_errors", "area_backgrounds")
"""Values of every scan point and line."""
_LINE = re.compile(r"^[A-Z][a-z]?([ _-](K|L|M)[a-b1-5]?)?$")


def element_maps(source: Source, given: Mapping[str, Any], read: Callable[..., Any]) -> dict[str, Any]:
    """Stack the datasets that `data.elements` names by line, with those of their errors and backgrounds.

    **Arguments:** `read(source, key, value)` reads an array of this or another file.

    **Raises:** `InputError` where they are not there, not numbers, or of different shapes.
    """
    named = given.get("elements")
    if named is None:
        return {}
    if isinstance(named, str):
        named = _stack_with_names(source, named) or lines_of_group(source, named)
    if not isinstance(named, Mapping) or not named:
        raise InputError(
            "data.elements: name the dataset of every line, "
            '--set \'data.elements={"Fe K" = "/fit/Fe", "Ca K" = "/fit/Ca"}\', or the group that holds them'
        )
    found: dict[str, Any] = {"counts": stacked(source, named, "elements", read), "lines": tuple(str(n) for n in named)}
    for key in BY_LINE:
        if given.get(key) is not None:
            found[key] = stacked(source, _like(source, given[key], named, key), key, read)
    return found | {"method": "fluorescence-map"}


def _stack_with_names(source: Source, path: str) -> dict[str, np.ndarray] | None:
    """Split a stack (line, y, x) whose names stand in a dataset beside it, as XRF-Maps and PyXRF write them.

    `None` for what is no such stack.
    """
    if source.file is None or not hasattr(source.file.get(path), "ndim") or source.file[path].ndim not in (3, 4):
        return None
    stack, parent = source.numbers(path, "areas"), source.file[path].parent
    for key in parent:
        beside = parent.get(key)
        if getattr(beside, "shape", None) != stack.shape[:1] or beside.dtype.kind not in "SO":
            continue
        names = [text(name) for name in source.array(f"{parent.name.rstrip('/')}/{key}", "names of lines")]
        found = {re.sub("[_-]", " ", n): part for n, part in zip(names, stack, strict=True) if _LINE.match(n)}
        if found:
            rest = len(names) - len(found)
            source.say(f"lines of {path} by {key}: {', '.join(found)}" + (f"; {rest} others left out" if rest else ""))
            return found
    return None


def lines_of_group(source: Source, path: str) -> dict[str, str]:
    """Name the datasets of a group whose names are those of lines (`Fe_K`, `Pb-L3`, `Ca`).

    **Raises:** `InputError` where there are none.
    """
    group = source.file.get(path) if source.file is not None else None
    keys = [] if group is None or not hasattr(group, "keys") else [str(k) for k in group if _LINE.match(str(k))]
    if not keys:
        raise InputError(
            f"{source.name}: {path} (data.elements) is no group of datasets named after lines, such as Fe_K; name "
            "them: "
            '--set \'data.elements={"Fe K" = "/path"}\''
        )
    return {re.sub("[_-]", " ", key): f"{path.rstrip('/')}/{key}" for key in keys}


def _like(source: Source, said: Any, named: Mapping[str, Any], key: str) -> dict[str, Any]:
    """Datasets of the same lines: a group with the same names, a mapping, or one number for all."""
    if isinstance(said, str) and (split := _stack_with_names(source, said)) is not None:
        said = split
    if isinstance(said, str):
        inner = {name: f"{said.rstrip('/')}/{str(path).rpartition('/')[2]}" for name, path in named.items()}
        missing = [path for path in inner.values() if not source.has(path)]
        if missing:
            raise InputError(f"{source.name}: data.{key}: there is no {missing[0]}; give one dataset for every line")
        return inner
    if isinstance(said, Mapping):
        missing = [name for name in named if name not in said]
        if missing:
            raise InputError(f"data.{key} has nothing for {missing[0]}; give one for every line of data.elements")
        return {name: said[name] for name in named}
    return dict.fromkeys(named, said)


def stacked(source: Source, named: Mapping[str, Any], key: str, read: Callable[..., Any]) -> np.ndarray:
    """Read datasets of one shape, (y, x) or (view, y, x), side by side: `(view, y, x, line)`.

    **Raises:** `InputError` naming what differs.
    """
    return side_by_side(source, {name: np.asarray(read(source, key, said)) for name, said in named.items()}, key)


def side_by_side(source: Source, maps: Mapping[str, np.ndarray], key: str) -> np.ndarray:
    """Lay maps of one shape, (y, x) or (view, y, x), or single numbers side by side: `(view, y, x, line)`.

    **Raises:** `InputError` naming what differs.
    """
    largest = max((v.shape for v in maps.values()), key=len)
    for name, values in maps.items():
        if values.dtype.kind not in "iuf" or values.ndim > 3 or 0 in values.shape:
            said = f"is of type {values.dtype}, shape {values.shape}; expected numbers (y, x)"
            raise InputError(f"{source.name}: {name} ({key}) {said}")
        if values.shape not in (largest, ()):
            first = next(n for n, v in maps.items() if v.shape == largest)
            said = f"has shape {values.shape}, {first} {largest}; all are to be of one map"
            raise InputError(f"{source.name}: {name} ({key}) {said}")
    shape = (1,) * (3 - len(largest)) + largest
    return np.stack([np.broadcast_to(v, largest).reshape(shape) for v in maps.values()], -1)


def match_points(source: Source, values: dict[str, Any], counts: Any) -> None:
    """Give what belongs to scan points, and to their lines, the shape of the counts, in place.

    **Raises:** `InputError` for another number of points.
    """
    if "lines" not in values:
        return
    points = tuple(counts.shape[:3])
    for name in POINTS:
        if values.get(name) is not None:
            values[name] = _of_points(source, name, values[name], points)
    for name in BY_LINE:
        if values.get(name) is not None:
            if isinstance(values[name], str | Mapping):
                raise InputError(f"data.{name} goes with data.elements, which names the datasets of the lines")
            one = np.asarray(values[name], float)
            if one.shape == (1, 1, 1, counts.shape[-1]):
                one = np.broadcast_to(one, counts.shape)
            if one.size not in (1, int(np.prod(counts.shape))):
                raise InputError(
                    f"{source.name}: data.{name} has shape {one.shape}, the areas {tuple(counts.shape)}: one for each"
                )
            values[name] = np.broadcast_to(one, counts.shape) if one.size == 1 else one.reshape(counts.shape)


def _of_points(source: Source, name: str, value: Any, points: tuple[int, ...]) -> np.ndarray:
    array = np.asarray(value)
    if array.dtype.kind not in "iuf":
        raise InputError(f"{source.name}: data.{name} is of type {array.dtype}; expected numbers, one a scan point")
    if array.size == 1:
        return np.full(points, float(array.ravel()[0]))
    if array.size != int(np.prod(points)):
        raise InputError(
            f"{source.name}: data.{name} has shape {array.shape}, the map {points}: give one number, or "
            "one a scan point"
        )
    return array.astype(float).reshape(points)

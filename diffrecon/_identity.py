"""What tells two runs apart: one name for the input, for every setting, for the geometry; and which of them differ.

Checkpoints, journals, unfinished volumes and results carry the same mapping from the name of a thing to a short text,
so that nothing is gone on with, and nothing is overwritten, that belongs to another run.
"""

import dataclasses
import functools
import hashlib
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

__all__ = ["Identity", "described", "difference", "digest", "of_result", "of_scan", "of_settings"]

Identity = Mapping[str, str]

_WHOLE = 64 << 20  # bytes up to which all numbers are looked at
_FRAMES = 64  # of larger arrays
_MARK = "sha256 "  # before what no user wants to read
_DEEP = 12
_FIELDS = (
    "positions", "positions_unit", "angles", "flats", "darks", "mask", "probe", "weights", "transmission",
    "tensor_geometry", "flux", "saturation", "rotation_centre", "window", "geometry", "extra",
)  # fmt: skip


def of_scan(scan: Any) -> dict[str, str]:
    """Name what was measured: the content of its files, what was said about them, frames, geometry.

    Folders do not count: a measurement that was moved is the same. Of arrays in memory the numbers count.
    """
    if scan is None:
        return {}
    made = scan.provenance
    found = {f"the content of {file.name if i else 'the input file'}": file.digest for i, file in enumerate(made.files)}
    found = found or {"the frames": digest(scan.counts)}
    found |= {f"data.{name}": described(value) for name, value in made.given.items()}
    found["shape of the frames"] = str(tuple(int(n) for n in scan.counts.shape))
    for name in _FIELDS:
        value = getattr(scan, name, None)
        parts = vars(value) if name == "geometry" and hasattr(value, "__dict__") else value if name == "extra" else None
        if isinstance(parts, Mapping):
            found |= {f"{name}.{key}": described(part) for key, part in parts.items()}
        elif value is not None:
            found[name] = described(value)
    return found


def of_settings(settings: Mapping[str, Mapping[str, Any]], leave: Iterable[str] = ()) -> dict[str, str]:
    """Name every setting, by section; `leave` names sections and settings that do not count."""
    named = {f"{section}.{key}": value for section, part in settings.items() for key, value in part.items()}
    skip = set(leave)
    return {n: described(v) for n, v in named.items() if n not in skip and n.partition(".")[0] not in skip}


def of_result(method: str, scan: Any, settings: Mapping[str, Mapping[str, Any]]) -> dict[str, str]:
    """Name what a result was made of; what was said about a file is seen in its scan."""
    leave = () if scan is None else ("data", "geometry")
    return {"method": method} | of_scan(scan) | of_settings(settings, leave=(*leave, "output"))


def difference(kept: Identity, now: Identity, leave: Iterable[str] = ()) -> str:
    """Say in words what differs, nothing where all is the same.

    ```python
    assert difference({"solver.steps": "10"}, {"solver.steps": "20"}) == "solver.steps (10 then, 20 now)"
    ```
    """
    names = [n for n in dict.fromkeys([*now, *kept]) if n not in set(leave) and kept.get(n) != now.get(n)]
    said = [_said(name, kept.get(name), now.get(name)) for name in names[:3]]
    return ", ".join(said) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def _said(name: str, kept: str | None, now: str | None) -> str:
    shown = [v if v is not None and len(v) < 60 and not v.startswith(_MARK) else None for v in (kept, now)]
    if None not in shown:
        return f"{name} ({shown[0]} then, {shown[1]} now)"
    return f"{name} (not there {'then' if kept is None else 'now'})" if None in (kept, now) else name


# ---------------------------------------------------------------------------------------------------- values
def digest(values: Any) -> str:
    """Name the content of an array: all of it up to 64 MiB, else shape, type and 64 frames spread over it."""
    shape, kind = tuple(np.shape(values)), str(getattr(values, "dtype", ""))
    found = hashlib.sha256(f"{shape} {kind}".encode())
    if not getattr(values, "is_fully_addressable", True) or not _is_plain(kind):
        return _MARK + found.hexdigest()  # split over processes, or keys of jax: shape and type must do
    size = int(np.prod(shape, dtype=float)) * np.dtype(kind or float).itemsize
    if shape and size > _WHOLE:
        parts: Any = (values[int(i)] for i in np.unique(np.linspace(0, shape[0] - 1, _FRAMES).astype(int)))
    else:
        parts = [values[:] if shape and hasattr(values, "shape") else values]
    for part in parts:
        found.update(np.ascontiguousarray(np.asarray(part)).tobytes())
    return _MARK + found.hexdigest()


def _is_plain(kind: str) -> bool:
    try:
        return np.dtype(kind or float).kind != "O"
    except TypeError:
        return False


def described(value: Any, depth: int = 0) -> str:
    """Write a value as a text that is the same in every process: numbers as they are, arrays by their content,
    functions by name, constants and what they enclose."""
    inner = functools.partial(described, depth=depth + 1)
    if value is None or isinstance(value, bool | int | float | complex | str | bytes):
        return str(value)
    if isinstance(value, np.generic) or (getattr(value, "ndim", None) == 0 and hasattr(value, "dtype")):
        return str(value)
    if depth > _DEEP:
        return type(value).__name__
    if hasattr(value, "dtype") and hasattr(value, "shape"):
        return digest(value)
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{k}: {inner(v)}" for k, v in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(inner, value)) + "]"
    if isinstance(value, set | frozenset):
        return "{" + ", ".join(sorted(map(inner, value))) + "}"
    if isinstance(value, functools.partial):
        return f"{inner(value.func)}({inner(value.args)}, {inner(value.keywords)})"
    return _function(value, depth) if callable(value) and not isinstance(value, type) else _object(value, depth)


def _function(value: Any, depth: int) -> str:
    value = getattr(value, "__wrapped__", value)
    code = getattr(value, "__code__", None)
    if code is None:
        owner = getattr(value, "__self__", None)  # a bound method carries its object
        told = f"{value.__module__}.{value.__qualname__}" if hasattr(value, "__qualname__") else ""
        return f"{told} {_object(owner if told else value, depth)}" if owner is not None or not told else told
    cells = [cell.cell_contents for cell in value.__closure__ or () if _filled(cell)]
    known = [*_constants(code), *cells, value.__defaults__, value.__kwdefaults__]
    text = f"{value.__module__}.{value.__qualname__} {described(known, depth + 1)}"
    return f"{value.__qualname__} {hashlib.sha256(text.encode()).hexdigest()[:16]}"


def _filled(cell: Any) -> bool:
    try:
        return cell.cell_contents is not None
    except ValueError:
        return False


def _constants(code: Any) -> list[str]:
    plain = [repr(c) for c in code.co_consts if isinstance(c, bool | int | float | complex | str)]
    return [*plain, *code.co_names, *(t for c in code.co_consts if hasattr(c, "co_consts") for t in _constants(c))]


def _object(value: Any, depth: int) -> str:
    kind = value if isinstance(value, type) else type(value)
    name = f"{kind.__module__}.{kind.__qualname__}"
    if isinstance(value, type) or value is None:
        return name
    if dataclasses.is_dataclass(value):
        fields = {f.name: getattr(value, f.name, None) for f in dataclasses.fields(value)}
    else:
        fields = getattr(value, "__dict__", {})
    return f"{name} {described(dict(fields), depth + 1)}" if fields else name

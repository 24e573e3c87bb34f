"""diffrecon's own input file: datasets `/data/<key>` and `/geometry/<key>` by the names of `open_scan`, in SI units.

What `write_scan` writes; also the simplest layout to aim at when converting a beamline's files.
"""

from typing import Any

from ... import physics
from ...errors import InputError
from .._key_table import CHOICES, FRAMES, KEYS, MOTORS
from ..source import Source, text


def probe(source: Source) -> bool:
    """Tell whether this is diffrecon's own layout."""
    return source.linked("data/counts")


def read(source: Source, given: dict[str, Any]) -> dict[str, Any]:
    """Read everything in `/data` and `/geometry`; other names there are refused, so that a slip does not pass
    unseen."""
    found: dict[str, Any] = {"counts": source.frames("data/counts")}
    for section in ("data", "geometry"):
        for name in source.file.get(section, {}):
            if name not in KEYS or KEYS[name].section != section:
                source.say(f"not used: /{section}/{name}")
            elif name in MOTORS:
                found[name] = f"/data/{name}"
            elif name != "counts":
                value = _value(source, f"{section}/{name}", name)
                found |= {} if value is None else {name: value}
    for name, key in (("positions", "positions_unit"), ("angles", "angle_unit")):
        written = source.units(f"data/{name}") if name in found else None
        if written:
            found.setdefault(key, written)
    if "method" in source.file.attrs:
        found["method"] = text(source.file.attrs["method"])
    return found


def _value(source: Source, path: str, name: str) -> Any:
    key, stored = KEYS[name], source.file.get(path)
    if key.kind == "text":
        said = text(source.array(path, name)[()])
        if name in CHOICES and said not in CHOICES[name]:
            source.say(f"/{path} is not used: {said!r} is none of {', '.join(CHOICES[name])}")
            return None
        return said
    if name in FRAMES:
        return source.frames(path, name)
    if key.kind in ("array", "any", "range") or getattr(stored, "ndim", 0):
        values = source.array(path, name)
        if key.kind in ("number", "energy"):
            scale = _scale(source, path, key.unit)
            return None if values.dtype.kind not in "iuf" or scale is None else values * scale
        return text(values[()]) if values.dtype.kind in "SUO" and values.ndim == 0 else values
    return source.number(path, name, key.unit)


def _scale(source: Source, path: str, unit: str) -> float | None:
    """Find the scale of the unit beside an array; `None`, with a message, for one that is not known."""
    written = source.units(path)
    try:
        return physics.unit_scale(written, unit) if written and unit else 1.0
    except InputError as error:
        source.say(f"/{path} is not used: {error}")
        return None

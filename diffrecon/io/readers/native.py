"""diffrecon's own input file: datasets `/data/<key>` and `/geometry/<key>` by the names of `open_scan`, in SI units.

What `write_scan` writes; also the simplest layout to aim at when converting a beamline's files.
"""

from typing import Any

from ..keys import KEYS, MOTORS
from ..source import Source, text


def probe(source: Source) -> bool:
    """Tell whether this is diffrecon's own layout."""
    return source.has("data/counts")


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
                found[name] = _value(source, f"{section}/{name}", name)
    for name, key in (("positions", "positions_unit"), ("angles", "angle_unit")):
        written = source.units(f"data/{name}") if name in found else None
        if written:
            found.setdefault(key, written)
    if "method" in source.file.attrs:
        found["method"] = text(source.file.attrs["method"])
    return found


def _value(source: Source, path: str, name: str) -> Any:
    kind, unit = KEYS[name].kind, KEYS[name].unit
    values = source.array(path, name)
    if kind == "text" or values.dtype.kind in "OSU":
        return text(values[()] if values.ndim == 0 else values)
    if kind == "array" or values.ndim:
        return values
    return source.number(path, name, unit)

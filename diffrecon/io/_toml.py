"""Settings as TOML text (the standard library reads TOML but does not write it)."""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

__all__ = ["dumps"]


def dumps(settings: Mapping[str, Any]) -> str:
    """Write TOML of plain values and sections; `None` is left out, a function is written by its name.

    ```python
    assert dumps({"method": "cdi", "solver": {"steps": 5}}) == 'method = "cdi"\\n\\n[solver]\\nsteps = 5\\n'
    ```
    """
    plain = [f"{_key(k)} = {value(v)}" for k, v in settings.items() if not isinstance(v, Mapping) and v is not None]
    blocks = ["\n".join(plain)] if plain else []
    for section, values in settings.items():
        if isinstance(values, Mapping):
            lines = [f"{_key(k)} = {value(v)}" for k, v in values.items() if v is not None]
            blocks.append("\n".join([f"[{_key(section)}]", *lines]))
    return "\n\n".join(blocks) + "\n"


def _key(name: Any) -> str:
    name = str(name)
    return name if name.replace("_", "").replace("-", "").isalnum() and name.isascii() else _text(name)


def value(item: Any) -> str:
    """Write one value as TOML."""
    item = item.tolist() if isinstance(item, np.ndarray | np.generic) or hasattr(item, "tolist") else item
    if isinstance(item, bool):
        return "true" if item else "false"
    if isinstance(item, int):
        return str(item)
    if isinstance(item, float):
        return (
            repr(item) if math.isfinite(item) else {True: "nan", False: "inf" if item > 0 else "-inf"}[math.isnan(item)]
        )
    if isinstance(item, list | tuple):
        return "[" + ", ".join(value(v) for v in item if v is not None) + "]"
    if isinstance(item, Mapping):
        return "{" + ", ".join(f"{_key(k)} = {value(v)}" for k, v in item.items() if v is not None) + "}"
    if callable(item):
        return _text(f"{getattr(item, '__module__', '')}:{getattr(item, '__qualname__', repr(item))}")
    return _text(str(item))


def _text(item: str) -> str:
    escaped = item.replace("\\", "\\\\").replace('"', '\\"')
    return '"' + "".join(c if c >= " " and c != "\x7f" else f"\\u{ord(c):04x}" for c in escaped) + '"'

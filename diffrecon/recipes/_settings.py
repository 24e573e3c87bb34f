"""Settings of a recipe: sections of named values with defaults; unknown names are refused with the nearest one."""

from collections.abc import Mapping
from typing import Any

from ..errors import InputError
from ..errors import nearest as nearest

__all__ = ["merge"]


def merge(
    defaults: Mapping[str, Mapping[str, Any]], given: Mapping[str, Any], method: str
) -> dict[str, dict[str, Any]]:
    """Defaults with the given values laid over them, section by section.

    A value must be of its default's kind where the default says one (a number for a number, a list for a list, text for
    text); `None` as default takes anything.

    **Raises:** `InputError` for an unknown section or key (with the nearest known one) or a value of another kind.

    ```python
    assert merge({"solver": {"steps": 20}}, {"solver": {"steps": 5}}, "demo") == {"solver": {"steps": 5}}
    ```
    """
    settings = {section: dict(values) for section, values in defaults.items()}
    for section, values in given.items():
        if section not in settings:
            raise InputError(f"{method} has no settings section [{section}]{nearest(section, settings)}")
        if not isinstance(values, Mapping):
            raise InputError(f"[{section}] is a section of {method}: write {section}.key = value")
        for key, value in values.items():
            if key not in settings[section]:
                raise InputError(f"{method} has no setting {section}.{key}{nearest(key, settings[section])}")
            settings[section][key] = _checked(value, settings[section][key], f"{section}.{key}")
    return settings


def _checked(value: Any, default: Any, name: str) -> Any:
    if default is None or value is None or callable(default) or callable(value):
        return value
    if isinstance(default, bool):
        if not isinstance(value, bool):
            raise InputError(f"{name}: {value!r} is not true or false")
        return value
    if isinstance(default, int | float):
        if isinstance(value, bool) or not isinstance(value, int | float) or value != value:
            raise InputError(f"{name}: {value!r} is not a number")
        if isinstance(default, int) and not float(value).is_integer():
            raise InputError(f"{name}: {value!r} is not a whole number")
        return type(default)(value)
    if isinstance(default, str) and not isinstance(value, str):
        raise InputError(f"{name}: {value!r} is not a text")
    if isinstance(default, list | tuple):
        return list(value) if isinstance(value, list | tuple) else [value]
    return value

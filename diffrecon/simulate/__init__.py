"""Simulated measurements with known truth, by forward models that share nothing with `diffrecon.operators`.

Each method has an independent, finer model in plain float64 NumPy (analytic objects, oversampled grids, Poisson noise),
written as the file format of that method: what the demo reconstructs has not been made by the operators that invert it.
"""

import importlib
from pathlib import Path
from typing import Any

from .._methods import SIMULATED
from .._result import Result
from ..errors import InputError, nearest

_MODULES: dict[str, Any] = dict(SIMULATED)


def register(method: str, simulation: Any) -> None:
    """Make a simulation known to `diffrecon simulate` and `diffrecon demo`.

    **Arguments:** `simulation` has `write(path, seed) -> truth by name` and `judge(path, result) -> lines`, and may
    have `SETTINGS`, what a reconstruction must be told besides, as texts `section.key=value`, and `METHOD`, if another.
    """
    _MODULES[method] = simulation


def methods() -> tuple[str, ...]:
    """List the methods that can be simulated."""
    return tuple(_MODULES)


def demo_file(method: str, path: str | Path, seed: int = 0) -> dict[str, Any]:
    """Write a simulated measurement of a method as its usual file format; the truth is kept in it under `/truth`.

    **Returns:** the truth by name, empty where a simulation of your own gives none.

    **Raises:** `InputError` for a method that cannot be simulated.
    """
    return _module(method).write(Path(path), seed) or {}


def method_of(simulation: str) -> str:
    """Name the method that reconstructs a simulation: the same, but for variants such as "dynamic-tomography"."""
    return getattr(_module(simulation), "METHOD", simulation)


def settings(method: str) -> tuple[str, ...]:
    """List what a reconstruction must be told because the file format has no place for it, as `section.key=value`."""
    return tuple(getattr(_module(method), "SETTINGS", ()))


def judge(method: str, path: str | Path, result: Result) -> list[str]:
    """Compare a result with the truth in a file that `demo_file` wrote: one line a figure."""
    return _module(method).judge(Path(path), result)


def _module(method: str) -> Any:
    if method not in _MODULES:
        raise InputError(f"no simulation of {method!r}{nearest(method, _MODULES)}")
    place = _MODULES[method]
    return importlib.import_module(f".{place}", __name__) if isinstance(place, str) else place

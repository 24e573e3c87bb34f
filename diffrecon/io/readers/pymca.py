"""Element maps that PyMca has fitted (its HDF5 batch output): areas of every line, with their uncertainties."""

import configparser
import re
from typing import Any

import numpy as np

from .._element_maps import lines_of_group, side_by_side
from ..source import Source

_DEPTH = 4


def probe(source: Source) -> bool:
    """Tell by a process of NeXus with `results/parameters` and PyMca's configuration."""
    return _process(source) is not None


def read(source: Source, given: dict[str, Any]) -> dict[str, Any]:
    """Read areas and uncertainties of every line, and the energy of the fit."""
    process = _process(source)
    found: dict[str, Any] = {"method": "fluorescence-map"}
    named = lines_of_group(source, f"{process}/results/parameters")
    read_all = lambda paths: {name: source.numbers(path, name) for name, path in paths.items()}
    found["counts"] = side_by_side(source, read_all(named), "areas of PyMca")
    found["lines"] = tuple(named)
    errors = {name: path.replace("/parameters/", "/uncertainties/") for name, path in named.items()}
    if all(source.has(path) for path in errors.values()):
        found["area_errors"] = side_by_side(source, read_all(errors), "uncertainties of PyMca")
    energy = _energy(source.words(f"{process}/configuration/data"))
    if energy is not None:
        found["energy"] = 1e3 * energy
    source.say(f"areas of {', '.join(named)} as PyMca has fitted them (/{process})")
    return found


def _process(source: Source) -> str | None:
    if source.file is None:
        return None
    for path, _ in source.walk(depth=_DEPTH, most=500):
        process = path.removesuffix("/results/parameters")
        beside = (f"{process}/configuration", f"{process}/results/uncertainties")
        if process != path and any(source.has(name) for name in beside):
            return process
    return None


def _energy(configuration: str) -> float | None:
    """Read the beam's energy [keV] of a configuration of PyMca: the strongest of its list."""
    parser = configparser.ConfigParser(interpolation=None, strict=False)
    try:
        parser.read_string(configuration)
        lists = {key: re.split(r"[,\s]+", parser["fit"][key].strip()) for key in ("energy", "energyweight")}
        energies = [float(e) if re.match(r"^[\d.]", e) else np.nan for e in lists["energy"]]
        weights = [float(w) if re.match(r"^[\d.]", w) else 0.0 for w in lists["energyweight"]]
    except (configparser.Error, KeyError, ValueError):
        return None
    ranked = [(w, e) for w, e in zip(weights, energies, strict=False) if np.isfinite(e)]
    return max(ranked)[1] if ranked else None

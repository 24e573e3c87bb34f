"""Spectra of a raster: detector elements summed, dead ones left out, the energy of every channel."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import InputError
from ..frames import LazyFrames, at_ceiling
from .source import Source

_DEAD = 0.02  # of the median element's counts
_KILO = 500.0  # below, energies of channels are in keV


def spectra(source: Source, given: Mapping[str, Any], read: Callable[..., Any]) -> dict[str, Any]:
    """Read spectra `(view, y, x, channel)` that `data.spectra` names, with what is known of their energies.

    **Arguments:** `read(source, key, value)` reads an array of this or another file.

    **Raises:** `InputError` for spectra of the wrong shape, dead detectors only, or another number of energies.
    """
    said = given.get("spectra")
    if said is None:
        return {}
    if isinstance(said, list | tuple):
        parts = [_numbers(source, read(source, "spectra", one)) for one in said]
        if len({part.shape for part in parts}) > 1:
            raise InputError(f"{source.name}: data.spectra: shapes {sorted({p.shape for p in parts})} of one raster")
        stack, axis = np.stack(parts, 0), 0
    else:
        stack, axis = _numbers(source, read(source, "spectra", said)), given.get("detector_axis")
    alive = None
    if axis is not None and (isinstance(axis, bool) or not isinstance(axis, int)):
        raise InputError(f"data.detector_axis: {axis!r} is no whole number; of (y, x, element, channel) it is 2")
    if axis is not None:
        stack, alive = _summed(source, stack, int(axis))
    if stack.ndim not in (2, 3, 4):
        raise InputError(
            f"{source.name}: data.spectra has shape {stack.shape}; expected (y, x, channel), (view, y, x, channel) or "
            "(point, channel); with several detector elements say along which axis: data.detector_axis"
        )
    counts = stack.reshape((1,) * (4 - stack.ndim) + stack.shape)
    found: dict[str, Any] = {"counts": counts, "lines": (), "method": "fluorescence-map"}
    if alive is not None:
        found["detector_elements"] = alive
    if given.get("channel_energy") is not None:
        found["channel_energy"] = _energies(source, given["channel_energy"], counts.shape[-1], read)
    if given.get("fit_configuration") is not None:
        found["fit_configuration"] = _configuration(source, str(given["fit_configuration"]))
    return found


def _numbers(source: Source, values: Any) -> np.ndarray:
    values = np.asarray(values[:] if isinstance(values, LazyFrames) else values)
    if values.dtype.kind not in "iuf" or values.ndim < 2 or 0 in values.shape:
        raise InputError(
            f"{source.name}: data.spectra is of type {values.dtype}, shape {values.shape}; expected numbers"
        )
    return values


def _summed(source: Source, stack: np.ndarray, axis: int) -> tuple[np.ndarray, tuple[int, int]]:
    """Sum detector elements, without those that count next to nothing; how many of how many are alive."""
    if not -stack.ndim <= axis < stack.ndim - 1:
        raise InputError(f"{source.name}: data.detector_axis = {axis} is no axis of spectra of shape {stack.shape}")
    elements = np.moveaxis(stack, axis, 0)
    totals = np.array([np.nansum(one, dtype=float) for one in elements])
    good = totals > _DEAD * np.median(totals[totals > 0]) if (totals > 0).any() else totals > 0
    if not good.any():
        raise InputError(f"{source.name}: data.spectra: none of the {len(totals)} detector elements has counts")
    if not good.all():
        dead = ", ".join(str(i) for i in np.flatnonzero(~good))
        source.say(
            f"detector element{'s' * bool((~good).sum() > 1)} {dead} of {len(totals)} (counted from 0) dead: left out "
            "of the sum and of the solid angle"
        )
    if (full := at_ceiling(elements[good])).any():
        source.say(f"{int(full.sum())} channels are at the largest number of {stack.dtype}: saturated")
    integers = stack.dtype.kind in "iu"
    return elements[good].sum(0, dtype=np.int64 if integers else np.float64), (int(good.sum()), len(totals))


def _energies(source: Source, said: Any, channels: int, read: Callable[..., Any]) -> np.ndarray:
    energies = np.ravel(np.asarray(read(source, "channel_energy", said), float))
    if energies.size != channels:
        raise InputError(f"{source.name}: data.channel_energy has {energies.size} values for {channels} channels")
    if not np.isfinite(energies).all() or (np.diff(energies) <= 0).any():
        raise InputError(f"{source.name}: data.channel_energy is to be increasing, finite energies")
    if energies[-1] < _KILO:
        source.say(f"energies of channels up to {energies[-1]:.4g} are taken as keV")
        energies = 1e3 * energies
    return energies


def _configuration(source: Source, said: str) -> str:
    for path in (Path(said), source.path.parent / said):
        if path.is_file():
            source.beside.append(path)
            return path.read_text(errors="replace")
    raise InputError(f"data.fit_configuration: there is no file {said}; give PyMca's .cfg")

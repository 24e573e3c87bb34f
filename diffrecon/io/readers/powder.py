"""Powder diffraction with its geometry: detector frames, or patterns that are integrated already.

```
/frames (view, translation, row, column), or /frame (row, column), /counts (view, translation, channel)
/detector@{distance_m, poni1_m, poni2_m, rot1, rot2, rot3, pixel1_m, pixel2_m}   pyFAI's names; of one frame at the root
/theta [rad], /monitor, /transmitted (with @per_photon), /mask (1 = gap), /empty_frame (@photons)
/times of the views, of a sample that changes
/two_theta [rad], /normalisation [sr], /background of patterns;  /phases/NAME: d_A, strength, hkl and a cell
```
"""

from typing import Any

import numpy as np

from ... import physics
from ...errors import InputError
from ...geometry import TiltedDetector
from .._lazy import Stacked
from ..source import Source, text

_INTEGRATION = "azimuthal-integration"
_DETECTOR = ("distance_m", "poni1_m", "poni2_m", "rot1", "rot2", "rot3", "pixel1_m", "pixel2_m")


def probe(source: Source) -> bool:
    """Tell whether a file holds powder frames or patterns of this layout."""
    frame = source.has("frame") and source.has("/@distance_m")
    patterns = source.has("counts") and source.has("two_theta") and source.has("normalisation")
    return frame or patterns or (source.has("frames") and source.has("detector@distance_m"))


def read(source: Source, given: dict[str, Any]) -> dict[str, Any]:
    """Read counts, geometry, monitors, and what is known of the phases."""
    if source.has("frame"):
        detector = _detector(source, "/")
        return {"counts": source.frames("frame"), "detector": detector, "method": _INTEGRATION} | _beam(
            source, detector
        )
    stack = source.dataset("frames" if source.has("frames") else "counts", "counts")
    if stack.ndim not in (3, 4):
        raise InputError(f"{source.name}: {stack.name} has shape {stack.shape}; expected (view, translation, ...)")
    grid = stack.shape[:2]
    tomogram = source.has("theta") or stack.ndim == 3  # patterns without angles lack them
    method = text(source.file.attrs.get("method", "diffraction-tomography" if tomogram else _INTEGRATION))
    found: dict[str, Any] = {"powder": _powder(source, grid), "method": method}
    detector = _detector(source, "detector") if source.has("detector@distance_m") else None
    angles = source.numbers("theta", "angles", grid[:1]) if source.has("theta") else None
    if stack.ndim == 4:
        found |= {"counts": Stacked(source.path, stack.name, stack.shape, stack.dtype)}
        angles = None if angles is None else np.repeat(angles, grid[1])
        if source.has("mask"):
            found["bad_pixels"] = source.array("mask", "gaps")
    else:
        found["counts"] = source.frames(stack.name)
    if source.has("times"):
        found["times"] = source.numbers("times", "times of the views", grid[:1], finite=True)
    found |= {"detector": detector} if detector is not None else {}
    found |= {"angles": angles, "angle_unit": "rad"} if angles is not None else {}
    return found | _beam(source, detector)


def _beam(source: Source, detector: TiltedDetector | None) -> dict[str, Any]:
    found: dict[str, Any] = {}
    if source.has("/@energy_eV"):
        found["energy"] = source.one("/@energy_eV", "energy")
    elif detector is not None and detector.wavelength:
        found["wavelength"] = detector.wavelength
    if source.has("/@step_m"):
        found["pixel_size"] = source.one("/@step_m", "step")
    if source.has("/@rotation_centre_u"):
        found["rotation_centre"] = source.one("/@rotation_centre_u", "rotation centre")
    return found


def _detector(source: Source, place: str) -> TiltedDetector:
    attributes = source.file[place].attrs
    absent = [name for name in _DETECTOR if name not in attributes and not name.startswith("rot")]
    if absent:
        raise InputError(f"{source.name}: {place} lacks the attributes {', '.join(absent)} of the geometry")
    said = lambda name: source.one(f"{place}@{name}", "geometry") if name in attributes else 0.0
    numbers = {name.removesuffix("_m"): said(name) for name in _DETECTOR}
    if not all(numbers[name] > 0 for name in ("distance", "pixel1", "pixel2")):
        raise InputError(f"{source.name}: {place}: distance and pixels of the geometry are to be above zero")
    waves = [path for path in (f"{place}@wavelength_m", "/@wavelength_m") if source.has(path)]
    orientation = attributes.get("orientation", 3)
    return TiltedDetector(
        **numbers,
        wavelength=source.one(waves[0], "wavelength") if waves else None,
        orientation=int(orientation) if isinstance(orientation, int | np.integer) else 3,
    )


def _powder(source: Source, grid: tuple[int, int]) -> dict[str, Any]:
    """Everything else by name: arrays of the points of the scan, of the channels, and the phases."""
    found: dict[str, Any] = {"grid": grid}
    for name in ("monitor", "transmitted"):
        if source.has(name):
            found[name] = source.numbers(name, f"{name}, one number a point", grid, name == "transmitted").astype(float)
            found[f"{name}_gain"] = _beside(source, name, "per_photon")
    if "monitor" not in found:
        source.say("no monitor: every point is taken to get the same light")
    for name in ("two_theta", "normalisation", "background", "empty_frame"):
        if source.has(name):
            axes = (None,) if name != "empty_frame" else (None, None)
            found[name] = source.numbers(name, name.replace("_", " "), axes, finite=True).astype(float)
    if "two_theta" in found:
        found["two_theta"] = _in_radians(source, found["two_theta"])
    if "empty_frame" in found:
        found["empty_photons"] = _beside(source, "empty_frame", "photons")
    for name in ("polarisation", "parallax"):
        if source.has(f"/@{name}"):
            found[name] = source.one(f"/@{name}", name)
    found["phases"] = {name: _phase(source, name) for name in source.file.get("phases", {}) if _is_phase(source, name)}
    if source.has("phases/silica_pattern"):
        found["amorphous"] = source.numbers("phases/silica_pattern", "amorphous", finite=True).astype(float)
    return found


def _in_radians(source: Source, two_theta: np.ndarray) -> np.ndarray:
    """Give scattering angles in [rad]: by their unit, or degrees where they are larger than half a turn."""
    unit = source.units("two_theta")
    if unit is None and np.abs(two_theta).max(initial=0) > np.pi:
        source.say(f"two_theta reaches {two_theta.max():.4g}: taken as degrees")
        unit = "deg"
    return two_theta if unit is None else two_theta * physics.unit_scale(unit, "rad")


def _is_phase(source: Source, name: str) -> bool:
    there = [key for key in ("d_A", "strength") if source.has(f"phases/{name}/{key}")]
    if len(there) < 2 and hasattr(source.file[f"phases/{name}"], "keys"):
        source.say(
            f"phases/{name} is left out: d_A and strength of its lines are needed, there is {there or 'neither'}"
        )
    return len(there) == 2


def _beside(source: Source, name: str, attribute: str) -> float:
    """Read the attribute of a dataset that turns it into photons, one where there is none.

    **Raises:** `InputError` for one that is not above zero.
    """
    place = f"{name}@{attribute}"
    return source.one(place, attribute.replace("_", " "), positive=True) if source.has(place) else 1.0


def _phase(source: Source, name: str) -> dict[str, Any]:
    """Read spacings, strengths and indices of the lines of a phase, as many of each.

    **Raises:** `InputError`.
    """
    place, said = f"phases/{name}", f"lines of {name}"
    spacings = source.numbers(f"{place}/d_A", f"spacings, {said}", (None,), finite=True)
    arrays = {"d_A": spacings}
    for key, more in (("strength", ()), ("hkl", (3,))):
        if source.has(f"{place}/{key}"):
            arrays[key] = source.numbers(f"{place}/{key}", f"{key}, {said}", (len(spacings), *more), finite=True)
    if not (spacings > 0).all() or (arrays.get("strength", spacings) < 0).any():
        raise InputError(f"{source.name}: {place}: spacings are to be above zero, strengths not below")
    return arrays | dict(source.file[place].attrs.items())

"""Powder diffraction with its geometry: detector frames, or patterns that are integrated already.

```
/frames (view, translation, row, column), or /frame (row, column), /counts (view, translation, channel)
/detector@{distance_m, poni1_m, poni2_m, rot1, rot2, rot3, pixel1_m, pixel2_m}   pyFAI's names; of one frame at the root
/theta [rad], /monitor, /transmitted (with @per_photon), /mask (1 = gap), /empty_frame (@photons)
/two_theta [rad], /normalisation [sr], /background of patterns;  /phases/NAME: d_A, strength, hkl and a cell
```
"""

from typing import Any

import numpy as np

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
    method = text(source.file.attrs.get("method", "diffraction-tomography" if source.has("theta") else _INTEGRATION))
    found: dict[str, Any] = {"powder": _powder(source, grid), "method": method}
    detector = _detector(source, "detector") if source.has("detector@distance_m") else None
    angles = source.array("theta", "angles") if source.has("theta") else None
    if stack.ndim == 4:
        found |= {"counts": Stacked(source.path, stack.name, stack.shape, stack.dtype)}
        angles = None if angles is None else np.repeat(angles, grid[1])
        if source.has("mask"):
            found["bad_pixels"] = source.array("mask", "gaps")
    else:
        found["counts"] = source.frames(stack.name)
    found |= {"detector": detector} if detector is not None else {}
    found |= {"angles": angles, "angle_unit": "rad"} if angles is not None else {}
    return found | _beam(source, detector)


def _beam(source: Source, detector: TiltedDetector | None) -> dict[str, Any]:
    found: dict[str, Any] = {}
    if source.has("/@energy_eV"):
        found["energy"] = float(source.file.attrs["energy_eV"])
    elif detector is not None and detector.wavelength:
        found["wavelength"] = detector.wavelength
    if source.has("/@step_m"):
        found["pixel_size"] = float(source.file.attrs["step_m"])
    if source.has("/@rotation_centre_u"):
        found["rotation_centre"] = float(source.file.attrs["rotation_centre_u"])
    return found


def _detector(source: Source, place: str) -> TiltedDetector:
    attributes = source.file[place].attrs
    absent = [name for name in _DETECTOR if name not in attributes and not name.startswith("rot")]
    if absent:
        raise InputError(f"{source.name}: {place} lacks the attributes {', '.join(absent)} of the geometry")
    numbers = {name.removesuffix("_m"): float(attributes.get(name, 0.0)) for name in _DETECTOR}
    wavelength = attributes.get("wavelength_m", source.file.attrs.get("wavelength_m"))
    orientation = attributes.get("orientation", 3)
    return TiltedDetector(
        **numbers,
        wavelength=None if wavelength is None else float(wavelength),
        orientation=int(orientation) if isinstance(orientation, int | np.integer) else 3,
    )


def _powder(source: Source, grid: tuple[int, int]) -> dict[str, Any]:
    """Everything else by name: arrays of the points of the scan, of the channels, and the phases."""
    found: dict[str, Any] = {"grid": grid}
    for name in ("monitor", "transmitted"):
        if source.has(name):
            values = source.array(name, name).astype(float)
            if values.shape != grid:
                raise InputError(f"{source.name}: {name} has shape {values.shape}, the scan has {grid} points")
            found[name] = values
            found[f"{name}_gain"] = float(source.file[name].attrs.get("per_photon", 1.0))
    for name in ("two_theta", "normalisation", "background", "empty_frame"):
        if source.has(name):
            found[name] = source.array(name, name).astype(float)
    if "empty_frame" in found:
        found["empty_photons"] = float(source.file["empty_frame"].attrs.get("photons", 1.0))
    for name in ("polarisation", "parallax"):
        if source.has(f"/@{name}"):
            found[name] = float(source.file.attrs[name])
    found["phases"] = {name: _phase(source, name) for name in source.file.get("phases", {}) if _is_phase(source, name)}
    if source.has("phases/silica_pattern"):
        found["amorphous"] = source.array("phases/silica_pattern", "amorphous").astype(float)
    return found


def _is_phase(source: Source, name: str) -> bool:
    return source.has(f"phases/{name}/d_A") and source.has(f"phases/{name}/strength")


def _phase(source: Source, name: str) -> dict[str, Any]:
    group = source.file[f"phases/{name}"]
    arrays = {key: np.asarray(group[key][()]) for key in ("d_A", "strength", "hkl") if key in group}
    return arrays | {key: value for key, value in group.attrs.items()}

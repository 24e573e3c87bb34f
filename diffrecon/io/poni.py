"""PONI files: where a powder detector stands, as pyFAI and Dioptas write it."""

import json
from pathlib import Path
from typing import Any

import numpy as np

from .. import physics
from .._optional import require
from ..errors import InputError
from ..frames import spread
from ..geometry import TiltedDetector
from ..marks import Marks
from .values import mask_of

__all__ = ["place_detector", "read_poni", "without_gaps"]

_NUMBERS = {"distance": "distance", "poni1": "poni1", "poni2": "poni2", "rot1": "rot1", "rot2": "rot2", "rot3": "rot3"}


def read_poni(path: str | Path) -> tuple[TiltedDetector, tuple[int, int] | None]:
    """Read a geometry of versions 1 to 2.1; the last entry of a file counts, as for pyFAI.

    **Returns:** the detector, and the shape of its frames where the file says it.

    **Raises:** `InputError` for what is no PONI file or a detector that is not flat; `MissingPackage` where the
    detector is given by its name only, which pyFAI knows.
    """
    entries = _entries(Path(path))
    numbers = {name: _number(entries, key, path) for key, name in _NUMBERS.items()}
    if numbers["distance"] <= 0:
        raise InputError(f"{path}: the distance is {numbers['distance']:g} m; a PONI file of another program?")
    config = _config(entries, path)
    name = entries.get("detector", "Detector")
    if "pixel1" in config or "pixelsize1" in entries:
        pixels = tuple(float(config.get(f"pixel{i}", 0)) or _number(entries, f"pixelsize{i}", path) for i in (1, 2))
        shape = config.get("max_shape")
    else:
        pixels, shape = _named(name, config, path)
    wavelength = _number(entries, "wavelength", path) if "wavelength" in entries else None
    orientation = int(config.get("orientation", 3)) or 3
    if orientation not in (1, 2, 3, 4):
        raise InputError(f"{path}: orientation {orientation}; 1 to 4 are known (rows and columns cannot be exchanged)")
    detector = TiltedDetector(
        **numbers, pixel1=pixels[0], pixel2=pixels[1], wavelength=wavelength, orientation=orientation
    )
    return detector, None if not shape else (int(shape[0]), int(shape[1]))


def place_detector(source: Any, values: dict[str, Any], given: set[str], frame: tuple[int, ...]) -> None:
    """Lay the PONI file that the user names over the detector of the file; wavelength and energy must agree.

    **Raises:** `InputError` where the file is of another detector, or of another energy than the measurement.
    """
    if values.get("poni"):
        path = Path(values["poni"])
        path = path if path.exists() or path.is_absolute() else source.path.parent / path
        values["detector"], shape = read_poni(path)
        if shape is not None and shape != tuple(frame[:2]):
            raise InputError(
                f"{path.name}: made for frames of {shape[0]} x {shape[1]} pixels, those of {source.name} have "
                f"{frame[0]} x {frame[1]}: a PONI file of another detector, or binned frames"
            )
        values.setdefault("method", "azimuthal-integration")
    detector = values.get("detector")
    if detector is None or given & {"energy", "wavelength"} or not detector.wavelength:
        return
    energy = float(physics.wavelength_to_energy(detector.wavelength))
    stated = values.get("energy")
    if stated is not None and abs(float(stated) / energy - 1) > 1e-3:
        raise InputError(
            f"{source.name}: the detector was calibrated at {energy / 1e3:.5g} keV, the file says "
            f'{float(stated) / 1e3:.5g} keV; say which, e.g. --set geometry.energy="{energy / 1e3:.5g} keV"'
        )
    values.setdefault("energy", energy)


def without_gaps(source: Any, values: dict[str, Any], counts: Any) -> Any:
    """Mask what is negative or not finite in every frame of a powder detector: gaps, even of a single frame."""
    if values.get("detector") is None or np.dtype(counts.dtype).kind == "u" or counts.ndim != 3:
        return counts
    chosen = spread(counts.shape[0], 3)
    some = np.asarray(counts[chosen])
    gaps = ~(np.nan_to_num(some, nan=-1.0, posinf=-1.0, neginf=-1.0) >= 0).any(0)
    mask = mask_of(values)
    if mask is not None and mask.shape == gaps.shape:
        gaps = gaps & mask
    if not gaps.any() or gaps.all():
        return counts
    source.say(f"{gaps.sum()} pixels are negative or not finite: gaps of the detector, taken as not measured")
    values["mask"] = ~gaps if mask is None else mask & ~gaps
    values.pop("bad_pixels", None)
    return Marks(np.asarray(gaps), {}).cleared(counts)


def _entries(path: Path) -> dict[str, str]:
    if not path.is_file():
        raise InputError(f"geometry.poni: {path}: no such file")
    try:
        lines = path.read_text().splitlines()
    except (UnicodeDecodeError, OSError) as error:
        raise InputError(f"geometry.poni: {path}: not a text file ({error})") from error
    pairs = (line.partition(":") for line in lines if not line.startswith("#"))
    entries = {key.strip().lower(): value.strip() for key, colon, value in pairs if colon}
    if not {"distance", "poni1", "poni2"} <= set(entries):
        raise InputError(f"{path}: not a PONI file: no Distance, Poni1 and Poni2 in it")
    return entries


def _number(entries: dict[str, str], key: str, path: Any) -> float:
    try:
        return float(entries.get(key, "0" if key.startswith("rot") else "missing"))
    except ValueError:
        raise InputError(f"{path}: {key} is {entries.get(key, 'missing')!r}, not a number") from None


def _config(entries: dict[str, str], path: Any) -> dict[str, Any]:
    try:
        return json.loads(entries.get("detector_config", "{}")) or {}
    except json.JSONDecodeError as error:
        raise InputError(f"{path}: Detector_config is no JSON ({error})") from error


def _named(name: str, config: dict[str, Any], path: Any) -> tuple[tuple[float, ...], Any]:
    """Ask pyFAI for the pixels of a detector that the file only names."""
    detector = require("pyFAI.detectors", "diffraction").detector_factory(name, config)
    if not detector.pixel1 or not getattr(detector, "IS_FLAT", True) or not getattr(detector, "uniform_pixel", True):
        raise InputError(f"{path}: the pixels of {name} are no flat, regular grid; integrate its frames with pyFAI")
    return (float(detector.pixel1), float(detector.pixel2)), detector.max_shape

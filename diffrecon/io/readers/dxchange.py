"""DXchange HDF5 files of tomography (https://dxfile.readthedocs.io): exchange/{data, data_white, data_dark, theta}."""

from typing import Any

import numpy as np

from ..source import Source

_ENERGY = ("measurement/instrument/monochromator/energy", "measurement/instrument/source/energy")
_DISTANCE = (
    "measurement/instrument/detector_motor_stack/setup/z",
    "measurement/instrument/camera_motor_stack/setup/camera_distance",
)
_PIXEL = (
    "measurement/instrument/detection_system/objective/resolution",
    "measurement/instrument/detector/pixel_size",
    "measurement/instrument/detector/pixel_size_x",
    "measurement/instrument/detector/x_actual_pixel_size",
)
_ROTATION = "process/acquisition/rotation"
_PLAN = ("rotation_start", "rotation_step", "num_angles")


def probe(source: Source) -> bool:
    """Tell whether this is a DXchange file."""
    return source.linked("exchange/data")


def read(source: Source, given: dict[str, Any]) -> dict[str, Any]:
    """Read frames, flats, darks, angles; energy, distance and pixel where the beamline wrote them with a unit."""
    group = given.get("entry", "exchange").strip("/")
    found: dict[str, Any] = {"counts": source.frames(f"{group}/data", "projections"), "method": "tomography"}
    for key, name in (("flats", "data_white"), ("darks", "data_dark")):
        if source.has(f"{group}/{name}"):
            found[key] = source.frames(f"{group}/{name}", key)
        elif key not in given:
            source.say(f"no {key} in the file ({group}/{name})")
    found |= _angles(source, group) if "angles" not in given else {}
    ids = source.maybe_numbers("defaults/NDArrayUniqueId", "numbers of the frames") if _dropped(source, found) else None
    if ids is not None:
        found["frame_ids"] = ids
    for key, names in (("sample_to_detector", _DISTANCE), ("detector_pixel", _PIXEL)):
        name = next((n for n in names if source.has(n) and source.units(n)), None)
        bare = next((n for n in names if source.has(n)), None)
        if name is None and bare is not None and key not in given:
            source.say(f"{bare} has no unit and is not used: say it with --set geometry.{key}=...")
        value = None if name is None else source.number(name, key.replace("_", " "), "m")
        if value is not None:
            found[key] = abs(value)
            if value < 0:
                source.say(f"{name} is below zero: taken without its sign")
    energy = source.energy(*_ENERGY)
    return found if energy is None else found | {"energy": energy}


def _angles(source: Source, group: str) -> dict[str, Any]:
    """The angles that were measured, or those that the scan was to have."""
    values = source.maybe_numbers(f"{group}/theta", "angles")
    if values is not None:
        # The format's documentation fixes degrees; the attribute, where there is one, decides.
        return {"angles": values.astype(float).ravel(), "angle_unit": source.units(f"{group}/theta")}
    start, step, number = (source.number(f"{_ROTATION}/{n}", n.replace("_", " ")) for n in _PLAN)
    if step is None or number is None or number < 1:
        return {}
    source.say(
        f"no angles in the file ({group}/theta): {number:g} of the plan, steps of {step:g} degrees ({_ROTATION})"
    )
    return {"angles": (start or 0.0) + step * np.arange(int(number)), "angle_unit": "deg"}


def _dropped(source: Source, found: dict[str, Any]) -> bool:
    angles = found.get("angles")
    return angles is not None and len(angles) > len(found["counts"]) and source.has("defaults/NDArrayUniqueId")

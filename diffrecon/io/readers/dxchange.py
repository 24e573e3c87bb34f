"""DXchange HDF5 files of tomography (https://dxfile.readthedocs.io): exchange/{data, data_white, data_dark, theta}."""

from typing import Any

from ... import physics
from ...frames import Frames
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


def probe(source: Source) -> bool:
    """Tell whether this is a DXchange file."""
    return source.has("exchange/data")


def read(source: Source, given: dict[str, Any]) -> dict[str, Any]:
    """Read frames, flats, darks, angles; energy, distance and pixel where the beamline wrote them with a unit."""
    group = given.get("entry", "exchange")
    source.dataset(f"{group}/data", "projections")
    found: dict[str, Any] = {"counts": Frames(source.path, f"{group}/data"), "method": "tomography"}
    for key, name in (("flats", "data_white"), ("darks", "data_dark")):
        if source.has(f"{group}/{name}"):
            stored = source.dataset(f"{group}/{name}", key)
            found[key] = Frames(source.path, stored.name) if stored.ndim == 3 else source.array(stored.name, key)
        elif key not in given:
            source.say(f"no {key} in the file ({group}/{name})")
    if source.has(f"{group}/theta"):
        found["angles"] = source.array(f"{group}/theta", "angles").astype(float).ravel()
        # The format's documentation fixes degrees; the attribute, where there is one, decides.
        found["angle_unit"] = source.units(f"{group}/theta")
    for key, names, unit in (("sample_to_detector", _DISTANCE, "m"), ("detector_pixel", _PIXEL, "m")):
        name = next((n for n in names if source.has(n) and source.units(n)), None)
        if name is not None:
            found[key] = source.number(name, key, unit)
    name = next((n for n in _ENERGY if source.has(n)), None)
    if name is not None:
        found["energy"], message = physics.plausible_energy(source.number(name, "energy"), source.units(name))
        source.say(message)
    return found

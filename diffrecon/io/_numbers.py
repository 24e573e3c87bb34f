"""Which numbers of a geometry can be: one rule for what a file says and for what the user says."""

from typing import Any

import numpy as np

from .. import physics
from ..errors import InputError
from ._key_table import CHOICES, KEYS
from .source import Source

# What is measured with X-rays lies between; (name, unit, lowest, highest, an example of what to say).
_LENGTH = ("m", 1e-7, 1e3, "1.28 m")
_RANGES: dict[str, tuple[str, float, float, str]] = {
    "detector_pixel": ("m", 1e-9, 0.02, "3 um"),
    "pixel_size": ("m", 1e-12, 0.02, "3 um"),
    "wavelength": ("m", 1e-13, 1e-7, "1 angstrom"),
    "focus_to_sample": _LENGTH,
    "focus_to_detector": _LENGTH,
    "sample_to_detector": _LENGTH,
    "tilt": ("rad", -2 * np.pi, 2 * np.pi, "30 deg"),
    "two_theta": ("rad", -np.pi, np.pi, "2 deg"),
    "flux": ("", 1e-12, 1e30, "4000"),
    "saturation": ("", 1e-12, 1e30, "65535"),
    "rotation_centre": ("", -1e9, 1e9, "511.5"),
    "period": ("m", 1e-9, 0.1, "2.4 um"),
    "detector_blur": ("", 0, 1e4, "0.7"),
    "divergence": ("rad", 0, np.pi / 2, "1 mrad"),
    "live_time": ("s", 0, 1e9, "1 s"),
    "real_time": ("s", 0, 1e9, "1 s"),
    "dwell": ("s", 0, 1e9, "1 s"),
}


def implausible(name: str, value: Any) -> str | None:
    """Say in words why a number, or an array of them in the base unit, cannot be; `None` where it can."""
    numbers = np.asarray(value)
    if numbers.dtype.kind not in "iuf" or not numbers.size:
        return "is not a number"
    if not np.isfinite(numbers).all() and not (name in KEYS and KEYS[name].holes):
        return "is not a finite number"
    if name not in _RANGES:
        return None
    unit, low, high, _ = _RANGES[name]
    bad = numbers[(numbers < low) | (numbers > high)]
    return f"= {float(bad.flat[0]):g} {unit}".rstrip() + " is not plausible" if bad.size else None


def plain(numbers: Any) -> Any:
    """Give one number as such, and several without axes of length 1; pairs (vertical, horizontal) stay pairs."""
    numbers = np.asarray(numbers)
    if numbers.size == 1:
        return numbers.ravel()[0].item()
    return numbers if numbers.ndim <= 1 or numbers.shape[-1] == 2 else np.squeeze(numbers)


def example(name: str) -> str:
    """Give a value of such a number with its unit."""
    return _RANGES[name][3]


def usable(source: Source, values: dict[str, Any], given: set[str]) -> dict[str, Any]:
    """Leave out, with a message, numbers of the file that cannot be; those that the user gives stand in their place.

    An energy without a unit gets it by its magnitude.
    """
    kept = {}
    for name, value in values.items():
        if name not in given and value is not None:
            value, why = _of_text(name, value)
            number = name in KEYS and KEYS[name].kind == "number"
            why = implausible(name, value) if number and why is None else why
            if name == "energy" and why is None:
                value, why = _energy(source, value)
            if why is not None:
                label = f"{KEYS[name].section}.{name}"
                source.say(f"the file's {label} {why}: not used (say it with --set {label}=...)")
                continue
        kept[name] = value
    return kept


def _of_text(name: str, value: Any) -> tuple[Any, str | None]:
    """The number of a text with a unit, one of the words that a key knows; or why it is not."""
    if name not in KEYS:
        return value, None
    if not isinstance(value, str | bytes):
        wrong = KEYS[name].kind == "text"
        number = KEYS[name].kind in ("number", "energy") and np.asarray(value).dtype.kind in "iuf"
        return (plain(value) if number else value), ("is not a text" if wrong else None)
    said = value.decode(errors="replace") if isinstance(value, bytes) else value
    if name in CHOICES and said not in CHOICES[name]:
        return None, f"is {said!r}, none of {', '.join(CHOICES[name])}"
    if KEYS[name].kind not in ("number", "energy"):
        return said, None
    try:
        return physics.quantity(said, KEYS[name].unit), None
    except InputError:
        return None, f"is the text {said!r}"


def _energy(source: Source, value: Any) -> tuple[Any, str | None]:
    """One energy [eV], or one for each view where they differ, or why there is none."""
    numbers = np.atleast_1d(np.asarray(value))
    if numbers.dtype.kind not in "iuf" or not numbers.size:
        return None, "is not a number"
    finite = numbers[np.isfinite(numbers)].astype(float)
    if not finite.size:
        return None, "is not a finite number"
    alike = np.ptp(finite) <= 1e-3 * np.abs(finite).max()
    if not alike and finite.size < numbers.size:
        return None, "is not finite for every view"
    try:
        found = [physics.plausible_energy(float(v)) for v in ([finite.mean()] if alike else finite)]
    except InputError as error:
        return None, f"cannot be: {error}"
    if finite[0] < 200:
        source.say(found[0][1])
    return (found[0][0] if alike else np.array([energy for energy, _ in found])), None

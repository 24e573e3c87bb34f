"""What a scan says and a method makes no use of: named where a file says it, refused where the user does."""

import numpy as np

from .._look import Look
from ..errors import InputError
from ..scan import Scan

__all__ = ["refuse_unused", "unused"]

# What changes a result where it is used: of the file, which is named; only the user says the others.
_FRAMES = {
    "flats": "flats", "darks": "darks", "mask": "the mask", "flux": "the flux", "saturation": "the saturation",
    "weights": "the weights", "transmission": "the transmission",
}  # fmt: skip
_OF_VIEWS = {"shifts": "data.shifts", "sample_translation": "the translations of the sample", "monitor": "the monitor"}
_SAID = ("probe", "times", "reference", "steps", "reference_steps", "live_time", "real_time", "dwell", "quadrants",
         "moments_y", "moments_x", "flat_views", "dark_views")  # fmt: skip
_KEYS = {"bad_pixels": "mask"}  # what the user says under another name than the scan's


def unused(method: Look, scan: Scan) -> str:
    """Name what a scan says and the method makes no use of; empty where there is nothing.

    Of methods that do not say what they use only what is known of each view is told.
    """
    declared = type(method).uses is not Look.uses
    idle = [words for name, words in _FRAMES.items() if declared and not _uses(method, name) and _says(scan, name)]
    idle += [words for name, words in _OF_VIEWS.items() if not _uses(method, name) and _moves(scan.extra.get(name))]
    return f"known and not used by {method.name}: {', '.join(idle)}" if idle else ""


def refuse_unused(method: Look, scan: Scan) -> None:
    """Refuse what the user says of the data and the method makes no use of.

    **Raises:** `InputError` naming the key.
    """
    if type(method).uses is Look.uses:
        return
    checked = (*_FRAMES, *_OF_VIEWS, *_SAID, *_KEYS)
    for key in scan.provenance.given:
        if key in checked and not _uses(method, _KEYS.get(key, key)) and not _dropped(scan, key):
            raise InputError(f"{scan.name}: data.{key} is not used by {method.name}: leave it out")


def _uses(method: Look, name: str) -> bool:
    return name in method.uses or name in method.needs or name in method.wishes


def _dropped(scan: Scan, key: str) -> bool:
    """Tell what was left out, with a message, when the file was opened: beside line integrals, flats."""
    return getattr(scan, key, None) is None and key not in scan.extra and key not in _KEYS


def _says(scan: Scan, name: str) -> bool:
    value = getattr(scan, name)
    return value is not None and not (name == "mask" and np.all(value)) and not (name == "darks" and not np.any(value))


def _moves(values: object) -> bool:
    return values is not None and np.size(values) > 1 and bool(np.ptp(np.asarray(values, float), axis=0).any())  # type: ignore[arg-type]

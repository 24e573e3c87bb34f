"""What several methods read off a scan: numbers of its geometry, the most frequent of many values."""

from typing import Any

import numpy as np

from ..errors import MissingMetadata
from ..scan import Scan

__all__ = ["known_geometry", "most_frequent", "wave_number"]

_NUMBERS = {
    "energy": ("energy", "the photon energy", "20 keV"),
    "pixel_size": ("detector_pixel", "the detector's pixel", "3 um"),
    "distance": ("sample_to_detector", "the distance from the sample to the detector", "0.7 m"),
}


def known_geometry(scan: Scan, *names: str) -> Any:
    """Give the geometry of a scan in which some numbers must be known.

    **Raises:** `MissingMetadata` for the first that is not.
    """
    for name in names:
        if scan.geometry is None or getattr(scan.geometry, name) is None:
            key, what, example = _NUMBERS[name]
            raise MissingMetadata(f"geometry.{key}", what, scan.name, example)
    return scan.geometry


def wave_number(scan: Scan) -> tuple[float, float]:
    """Give pixel [m] and wave number [1/m].

    **Raises:** `MissingMetadata` for what is not known.
    """
    place = known_geometry(scan, "energy", "pixel_size")
    return float(np.mean(place.pixel_size)), 2 * np.pi / float(np.mean(place.wavelength))


def most_frequent(values: np.ndarray) -> float:
    """The middle of the shortest interval that holds an eighth of the values."""
    values, count = np.sort(values), max(1, len(values) // 8)
    first = int(np.argmin(values[count:] - values[:-count])) if len(values) > count else 0
    return float(np.median(values[first : first + count]))

"""The field of a scan: light finer than a pixel, air, and what all of several models have seen."""

from typing import Any

import numpy as np
from jaxtyping import Bool

from ..errors import InputError

__all__ = ["air_rectangle", "common_field", "light_is_fine"]

_FINE_LIGHT = 30.0  # times the power of photon noise, which is white: light finer than a pixel


def light_is_fine(counts: Any, mask: Bool[np.ndarray, "y x"], views: int = 64) -> bool:
    """Say whether frames have structure finer than a pixel, which appears at the highest frequencies they can show."""
    rows, columns = counts.shape[1:]
    corner = np.hypot(np.fft.fftfreq(rows)[:, None], np.fft.fftfreq(columns)[None]) > 0.5
    power, light = 0.0, 0.0
    for view in range(max(1, min(views, counts.shape[0], 2**24 // (rows * columns)))):
        frame = np.where(mask, counts[view], 0).astype(np.float32)
        power += float(np.mean(abs(np.fft.fft2(frame))[corner] ** 2))
        light += float(frame.sum(dtype=float))
    return power > _FINE_LIGHT * light


def air_rectangle(corners: tuple[int, int, int, int], seen: Bool[np.ndarray, "Y X"]) -> Bool[np.ndarray, "Y X"]:
    """Mark `[first row, last, first column, last]` of an object, which is known to be empty there.

    **Raises:** `InputError` where nothing of it was `seen`.
    """
    first, last, left, right = corners
    air = np.zeros(seen.shape, bool)
    air[first:last, left:right] = True
    if min(first, left) < 0 or not (air & seen).any():
        raise InputError(
            f"model.air: rows {first} to {last}, columns {left} to {right} hold nothing that was seen "
            f"of an object of {seen.shape[0]} x {seen.shape[1]} pixels"
        )
    return air


def common_field(*seen: Bool[np.ndarray, "Y X"]) -> tuple[slice, slice]:
    """Cut the middle of the field, as far as all of several masks hold nearly everywhere.

    ```python
    assert common_field(np.ones((9, 9), bool)) == (slice(0, 9), slice(0, 9))
    ```
    """
    both = np.logical_and.reduce(seen)
    rows, columns = (np.flatnonzero(both.any(1 - axis)) for axis in (0, 1))
    within = lambda a, shrink: slice(int(a[0] + shrink * a.size), int(a[-1] + 1 - shrink * a.size))
    parts = [(within(rows, shrink), within(columns, shrink)) for shrink in np.linspace(0, 0.45, 46)]
    return next((part for part in parts if both[part].mean() > 0.995), parts[-1])

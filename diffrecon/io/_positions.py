"""Frames with an axis for the positions of a pattern: (angle, position, y, x) is one view after the other."""

from typing import Any

import numpy as np

from ..frames import LazyFrames


class Unfolded(LazyFrames):
    """Frames `(angle, position, y, x)`, lazy or not, as `(view, y, x)`, all positions of an angle together."""

    def __init__(self, frames: Any):
        self._frames, self._positions = frames, int(frames.shape[1])
        self.shape = (int(frames.shape[0]) * self._positions, *map(int, frames.shape[2:]))
        self.dtype = np.dtype(frames.dtype)

    def _read(self, views: np.ndarray, rows: slice, columns: slice) -> np.ndarray:
        angle, position = np.divmod(views, self._positions)
        angles, place = np.unique(angle, return_inverse=True)
        return np.asarray(self._frames[angles, :, rows, columns])[place, position]


def by_position(values: dict[str, Any], counts: Any) -> Any:
    """Lay the views of frames `(angle, position, y, x)` one after the other, and what is said of them, in place."""
    angles, positions = counts.shape[:2]
    turned = values.get("angles")
    if isinstance(turned, np.ndarray) and np.size(turned) in (angles, angles * positions):
        values["angles"] = np.repeat(np.ravel(turned), positions if np.size(turned) == angles else 1)
    if np.ndim(values["reference"]) == 4:
        reference = np.asarray(values["reference"])
        values["reference"] = reference.reshape(-1, *reference.shape[2:])
    if isinstance(values.get("steps"), np.ndarray):
        values["steps"] = np.ravel(values["steps"])
    return Unfolded(counts)

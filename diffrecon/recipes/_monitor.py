"""The monitor of a scan: one positive number for every frame, row or point, or one line that says where it is none."""

from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from ..errors import InputError

__all__ = ["monitor_at"]


def monitor_at(scan: Any, values: ArrayLike, shape: tuple[int, ...], otherwise: str = "mend the monitor") -> np.ndarray:
    """Give the monitor for every point of `shape` (views first); one number a view, or a row, serves its points.

    **Arguments:** `otherwise`, what to do besides leaving views out.

    **Raises:** `InputError` for another shape, or a point that had no beam.
    """
    values = np.asarray(values, float)
    views = shape[0]
    ways = [(shape[:n], (*shape[:n], *(1,) * (len(shape) - n))) for n in range(len(shape), 0, -1)]
    ways += [(shape[1:n], (1, *shape[1:n], *(1,) * (len(shape) - n))) for n in range(len(shape), 1, -1) if views == 1]
    ways += [((int(np.prod(shape)),), shape)]  # the points of all views in a row
    way = next((made for given, made in ways if values.shape == given), None)
    if way is None:
        few = ", or one number a view" if len(shape) > 1 else ""
        raise InputError(
            f"{scan.name}: data.monitor has shape {values.shape}; expected {shape}{few}{', or a row' if few else ''}"
        )
    values = values.reshape(way)
    bad = np.argwhere(~(np.isfinite(values) & (values > 0)))
    if len(bad):
        what = "views" if len(shape) == 1 else "points"
        first = int(bad[0, 0]) if len(shape) == 1 else bad[0].tolist()
        raise InputError(
            f"{scan.name}: data.monitor is {values[tuple(bad[0])]:g} at {len(bad)} {what}, first {first}: leave such "
            f"views out (data.views), or {otherwise}"
        )
    return np.broadcast_to(values, shape)

"""Values of scan points laid on a grid: rasters as they are, jittered and spiral scans by linear interpolation."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from ..errors import InputError

__all__ = ["Raster", "on_raster", "raster_of"]


class Raster(NamedTuple):
    """A grid of scan points.

    **Fields:** `first` (row, column) of its first point and `step`, in the unit of the positions; `shape` (y, x).
    """

    first: tuple[float, float]
    step: tuple[float, float]
    shape: tuple[int, int]


def raster_of(positions: Float[np.ndarray, "view 2"]) -> Raster:
    """Find the grid of a scan: its rows and columns, or square cells of a point each where it has none.

    **Raises:** `InputError` for fewer than four points, or points on a line.

    ```python
    y, x = np.mgrid[:3, :4]
    assert raster_of(np.stack([2.0 * y.ravel(), 0.5 * x.ravel()], -1)) == Raster((0.0, 0.0), (2.0, 0.5), (3, 4))
    ```
    """
    low, span = positions.min(0), np.ptp(positions, axis=0)
    if len(positions) < 4 or not span.min() > 1e-3 * span.max():
        raise InputError(f"{len(positions)} scan points that span {span[0]:.3g} by {span[1]:.3g}: they make no map")
    lines = [_lines(axis) for axis in positions.T]
    if all(lines) and 0.8 * len(positions) <= lines[0] * lines[1] <= 1.25 * len(positions):
        shape = (lines[0], lines[1])
        step = (float(span[0] / (shape[0] - 1)), float(span[1] / (shape[1] - 1)))
    else:
        cell = float(np.sqrt(np.prod(span) / len(positions)) * (1 + 1 / np.sqrt(len(positions))))
        step, shape = (cell, cell), (int(span[0] / cell + 1.001), int(span[1] / cell + 1.001))
    return Raster((float(low[0]), float(low[1])), step, shape)


def _lines(places: np.ndarray) -> int:
    """Count the lines on which the points of one axis lie, 0 where they lie on none."""
    gaps = np.diff(np.sort(places))
    between = gaps > 0.3 * gaps.max()
    count = int(between.sum()) + 1
    width = gaps[~between].sum() / count  # of one line
    return count if count > 1 and width < 0.25 * np.median(gaps[between]) else 0


def on_raster(
    raster: Raster, positions: Float[np.ndarray, "view 2"], values: Float[np.ndarray, "*signal view"]
) -> Float[np.ndarray, "*signal y x"]:
    """Interpolate values linearly between scan points; NaN where no point with a value is near.

    ```python
    y, x = np.mgrid[:3, :4]
    places = np.stack([y.ravel(), x.ravel()], -1).astype(float)
    assert np.allclose(on_raster(raster_of(places), places, x.ravel() + 0.0), x)
    ```
    """
    from scipy.interpolate import LinearNDInterpolator
    from scipy.spatial import KDTree

    step, first = np.asarray(raster.step), np.asarray(raster.first)
    places = (positions - first) / step
    signals = values.reshape(-1, values.shape[-1]).T
    known = np.isfinite(signals).all(1)
    nodes = np.stack(np.meshgrid(*(np.arange(n, dtype=float) for n in raster.shape), indexing="ij"), -1).reshape(-1, 2)
    if known.sum() < 4:
        return np.full((*values.shape[:-1], *raster.shape), np.nan)
    found = LinearNDInterpolator(places[known], signals[known])(nodes)
    away, nearest = KDTree(places[known]).query(nodes)
    outside = ~np.isfinite(found).all(1)
    found[outside] = signals[known][np.asarray(nearest)[outside]]
    found[away > 0.8] = np.nan
    return found.T.reshape(*values.shape[:-1], *raster.shape)

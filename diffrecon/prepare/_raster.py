"""Values of scan points laid on a grid: rasters as they are, jittered and spiral scans by planes through neighbours."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from ..errors import InputError

__all__ = ["Raster", "on_raster", "raster_of"]

_ON_GRID = 0.02  # [step], by which points of a raster may miss it
_WIDTH, _REACH, _NEAR = 0.45, 1.6, 0.8  # [step]: weight of the points around a node, the farthest, the nearest


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
    """Lay values of scan points on the grid; NaN where no point with a value is near.

    Points that lie on the grid are taken as they are; of others, a plane through those around each node, which weigh
    less with distance. **Cost:** for n points on no grid some `40 n^1.5` multiplications a signal.

    ```python
    y, x = np.mgrid[:3, :4]
    places = np.stack([y.ravel(), x.ravel()], -1).astype(float)
    assert np.allclose(on_raster(raster_of(places), places, x.ravel() + 0.0), x)
    ```
    """
    places = (positions - np.asarray(raster.first)) / np.asarray(raster.step)
    signals = values.reshape(-1, values.shape[-1])
    known = np.isfinite(signals).all(0)
    places, signals = places[known], signals[:, known]
    found = np.full((len(signals), *raster.shape), np.nan)
    nodes = np.rint(places).astype(int)
    single = len(np.unique(nodes, axis=0)) == len(nodes)
    if len(nodes) and single and np.abs(places - nodes).max() < _ON_GRID:
        found[:, nodes[:, 0], nodes[:, 1]] = signals
    elif len(nodes):
        order = np.argsort(places[:, 0])
        places, signals = places[order], signals[:, order]
        for row in range(raster.shape[0]):
            low, high = np.searchsorted(places[:, 0], (row - _REACH, row + _REACH))
            if high > low:
                found[:, row] = _planes(places[low:high], signals[:, low:high], row, raster.shape[1])
    return found.reshape(*values.shape[:-1], *raster.shape)


def _planes(places: np.ndarray, signals: np.ndarray, row: int, columns: int) -> np.ndarray:
    """Fit a plane about every node of one row: its height there, `(signal, column)`."""
    down = np.broadcast_to(places[:, 0] - row, (columns, len(places)))
    right = places[:, 1] - np.arange(columns)[:, None]
    square = down**2 + right**2
    weight = np.where(square < _REACH**2, np.exp(-square / (2 * _WIDTH**2)), 0)
    basis = np.stack([np.ones_like(right), down, right])
    normal = np.einsum("icp,jcp,cp->cij", basis, basis, weight) + np.diag([1e-12, 1e-9, 1e-9])
    heights = np.einsum("icp,cp,sp->csi", basis, weight, signals)
    found = np.linalg.solve(normal[:, None], heights[..., None])[..., 0, 0].T
    return np.where(square.min(1) < _NEAR**2, found, np.nan)

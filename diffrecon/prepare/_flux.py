"""Brightness of each view from the air beside the sample."""

from typing import Any

import numpy as np
from jaxtyping import Bool, Float

from ..errors import InputError

__all__ = ["check_region", "find_air"]

_TILES = 48  # along each axis of the detector; air is judged tile by tile
_DEEP = 0.04  # largest mean line integral of air
_SHAKY = 3.0  # air fluctuates along the views at most this many times as much as the calmest tenth of the tiles
_LEAST = 2  # tiles that a band must be wide


def find_air(transmissions: Float[np.ndarray, "view y x"], tiles: int = _TILES) -> list[tuple[int, int, int, int]]:
    """Bands at the edges of the detector that the sample never shades: (first row, last + 1, first column, last + 1).

    **Arguments:** transmissions of some views spread over the scan, all detector rows or a band of them.

    A tile is air when its transmission, relative to the brightest tiles of the view, stays near one in every view and
    fluctuates no more than the calmest tiles do. Bands of columns at the left and the right come first; where there are
    none, bands of rows at the top and the bottom. One tile beside the sample is left out. Empty when there is no air.
    """
    height, width = transmissions.shape[1:]
    rows, columns = (np.linspace(0, n, min(n, tiles) + 1).astype(int) for n in (height, width))
    means = np.add.reduceat(np.add.reduceat(transmissions, rows[:-1], 1), columns[:-1], 2, dtype=float)
    means /= np.diff(rows)[:, None] * np.diff(columns)
    air = _air_tiles(means)
    left, right = _run(np.asarray(air.all(0))), _run(np.asarray(air.all(0))[::-1])
    bands = []
    if left:
        bands.append((0, height, 0, int(columns[left])))
    if right:
        bands.append((0, height, int(columns[-1 - right]), width))
    if bands:
        return bands
    top, bottom = _run(np.asarray(air.all(1))), _run(np.asarray(air.all(1))[::-1])
    if top:
        bands.append((0, int(rows[top]), 0, width))
    if bottom:
        bands.append((int(rows[-1 - bottom]), height, 0, width))
    return bands


def _air_tiles(means: Float[np.ndarray, "view row column"]) -> Bool[np.ndarray, "row column"]:
    flat = means.reshape(len(means), -1)
    bright = np.quantile(flat, 0.95, axis=1)
    if (bright <= 0).any():
        return np.zeros(means.shape[1:], bool)
    depth = -np.log(np.maximum(flat / bright[:, None], 1e-6))
    shaky = depth.std(0)
    calm = np.quantile(shaky, 0.1)
    # The largest and not the mean: a sample that turns into the tile for a few views has shaded it.
    air = (np.abs(depth).max(0) < _DEEP + 3 * calm) & (np.abs(depth.mean(0)) < _DEEP) & (shaky < _SHAKY * calm + 1e-6)
    return np.asarray(air).reshape(means.shape[1:])


def _run(air: Bool[np.ndarray, " tile"]) -> int:
    """Count the tiles from the edge on, less the one beside the sample; 0 when too few, or when all is air."""
    length = int(np.argmin(np.append(air, False)))
    return length - 1 if _LEAST < length < air.size else 0


def check_region(region: Any, shape: tuple[int, int]) -> tuple[int, int, int, int]:
    """The air region (first row, last + 1, first column, last + 1) as given.

    **Raises:** `InputError` when it is no region of the detector.
    """
    numbers = np.asarray(region)
    if numbers.shape != (4,) or numbers.dtype.kind not in "iu":
        raise InputError(
            f'prepare.flux is {region!r}; give "none", "auto", or the air region [first row, last + 1, '
            "first column, last + 1]"
        )
    r0, r1, c0, c1 = map(int, numbers)
    if not (0 <= r0 < r1 <= shape[0] and 0 <= c0 < c1 <= shape[1]):
        raise InputError(
            f"prepare.flux: the air region {[r0, r1, c0, c1]} does not lie on the detector of {shape[0]} "
            f"rows and {shape[1]} columns"
        )
    return r0, r1, c0, c1

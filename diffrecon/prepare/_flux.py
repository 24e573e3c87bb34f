"""Brightness of each view from the air beside the sample."""

from typing import Any

import numpy as np
from jaxtyping import Bool, Float

from ..errors import InputError
from ..frames import Measurement

__all__ = ["check_region", "find_air", "follows_air", "monitor_of", "said_of", "unusable_monitor"]

_TILES = 48  # along each axis of the detector; air is judged tile by tile
_DEEP = 0.04  # largest mean line integral of air
_SHAKY = 3.0  # air fluctuates along the views at most this many times as much as the calmest tenth of the tiles
_UNEVEN, _GENTLE = 0.2, 0.02  # line integral of air under an uneven beam, and its change from tile to tile
_CHANGES = 0.03  # of a monitor, over its mean, that are worth a division
_LEAST = 2  # tiles that a band must be wide


def monitor_of(scan: Measurement) -> Float[np.ndarray, " view"] | None:
    """Give the brightness of each view by the monitor of the scan, one when the flats were taken (else in the first
    views); `None` where there is none, or it hardly changes."""
    monitor = scan.extra.get("monitor")
    if monitor is None or np.shape(monitor) != (scan.views,):
        return None
    monitor = np.asarray(monitor, float)
    if not (np.isfinite(monitor).all() and (monitor > 0).all()) or np.ptp(monitor) < _CHANGES * monitor.mean():
        return None
    places = np.ravel(np.asarray(scan.extra.get("flat_views", 0.0), float))
    if "flat_views" in scan.extra and np.ptp(places) > 1:  # flats that are interpolated in time hold its course already
        monitor = monitor / np.interp(np.arange(scan.views), *_means(places, np.interp(places, *_course(monitor))))
        return monitor.astype(np.float32)
    return (monitor / np.mean(np.interp(places, *_course(monitor)))).astype(np.float32)


def unusable_monitor(scan: Measurement) -> str:
    """Say why the monitor of a scan is not used; empty where there is none, or it is fine."""
    monitor = scan.extra.get("monitor")
    if monitor is None or np.shape(monitor) != (scan.views,):
        return ""
    bad = np.flatnonzero(~(np.nan_to_num(np.asarray(monitor, float)) > 0))
    views = f"{bad.size} of {scan.views} views ({bad[0]} the first)" if bad.size else ""
    return f"the monitor is not used: zero, negative or no number in {views}" if views else ""


def _course(monitor: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return np.arange(len(monitor)), monitor


def _means(places: np.ndarray, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Give the places in order, each once, with the mean of its values."""
    at = np.unique(places)
    return at, np.array([values[places == place].mean() for place in at])


def follows_air(monitor: Float[np.ndarray, " view"], air: Float[np.ndarray, " view"]) -> bool:
    """Tell whether the air beside the sample changes as the monitor does: division leaves less than half of it."""
    return bool(np.std(np.log(air / monitor)) < 0.5 * np.std(np.log(monitor)))


def said_of(flux: Float[np.ndarray, " view"]) -> str:
    """Say between which numbers the brightness of the views is."""
    return f"brightness of the views {flux.min():.4f} to {flux.max():.4f}"


def find_air(transmissions: Float[np.ndarray, "view y x"], tiles: int = _TILES) -> list[tuple[int, int, int, int]]:
    """Bands at the edges of the detector that the sample never shades: (first row, last + 1, first column, last + 1).

    **Arguments:** transmissions of some views spread over the scan, all detector rows or a band of them.

    A tile is air when its transmission, relative to the brightest tiles of the view, stays near one in every view (or
    near a value that changes gently from tile to tile, as under a beam that is not that of the flats) and fluctuates no
    more than the calmest tiles do. Bands of columns at the left and the right come first; where there are
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
    level, still = depth.mean(0), shaky < _SHAKY * calm + 1e-6
    off = np.abs(depth - level).max(0) < _DEEP + 3 * calm
    near = (np.abs(depth).max(0) < _DEEP + 3 * calm) & (np.abs(level) < _DEEP)
    image = level.reshape(means.shape[1:])
    steps = np.abs(np.diff(image, axis=1, prepend=image[:, :1]))
    gentle = (np.maximum(steps, np.roll(steps, -1, 1)) < _GENTLE).ravel() & (np.abs(level) < _UNEVEN)
    return np.asarray(still & (near | (off & gentle))).reshape(means.shape[1:])


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
            f'prepare.flux is {region!r}; give "none", "auto", "monitor", or the air region [first row, last + 1, '
            "first column, last + 1]"
        )
    r0, r1, c0, c1 = map(int, numbers)
    if not (0 <= r0 < r1 <= shape[0] and 0 <= c0 < c1 <= shape[1]):
        raise InputError(
            f"prepare.flux: the air region {[r0, r1, c0, c1]} does not lie on the detector of {shape[0]} "
            f"rows and {shape[1]} columns"
        )
    return r0, r1, c0, c1

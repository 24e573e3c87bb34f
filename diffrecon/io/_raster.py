"""Where the points of a map stood: the step of the raster, how far from it they are, lists of points laid out on it."""

from typing import Any

import numpy as np

from ..errors import InputError
from ._element_maps import BY_LINE, POINTS
from ._guess import positions_unit
from .source import Source

_OFF = 0.25  # of a step, that points may be off the raster without a word
_ROOM = 4  # places of a raster for every point, at most


def place_points(source: Source, values: dict[str, Any], counts: Any) -> Any:
    """Lay a list of points out on its raster, tell the step, and mark points without a position, in place.

    **Returns:** the counts `(view, y, x, line)` on the raster.

    **Raises:** `InputError` for positions of another number of points, or of no raster.
    """
    stored, of_map = values.pop("positions", None), values.pop("positions_of_map", None)
    if stored is None:
        return counts
    views, rows, columns = counts.shape[:3]
    if of_map is not None and len(stored) not in (views, rows * columns):
        raise InputError(
            f"{source.name}: data.positions_y has {of_map[0]} values, data.positions_x {of_map[1]}, of {views} frames "
            f"of {rows} x {columns}; expected one number a view, or one a row and one a column of a map, in each"
        )
    if "lines" not in values and (counts.ndim != 3 or len(stored) == views or np.size(stored) != 2 * rows * columns):
        values["positions"] = stored  # one a frame
        return counts
    positions = np.asarray(stored, float).reshape(-1, 2)
    if len(positions) == views * rows * columns and views > 1:
        positions = positions[: rows * columns]
    if len(positions) != rows * columns:
        raise InputError(
            f"{source.name}: {len(positions)} positions for a map of {rows} x {columns} points; give one for each, or "
            "none and geometry.pixel_size"
        )
    written = values.pop("positions_unit", None)
    if written is None:
        raise InputError(f"{source.name}: no unit of the positions; say it, --set data.positions_unit=um")
    positions, unit, message = positions_unit(positions, written)
    if unit != "m":
        raise InputError(f"{source.name}: positions of a map are lengths; say their unit, --set data.positions_unit=um")
    if written != "m":
        source.say(message)
    known = np.asarray(np.isfinite(positions).all(1))
    if known.sum() < 2:
        raise InputError(f"{source.name}: the positions are not finite numbers; leave them out (geometry.pixel_size)")
    if rows == 1 and np.ptp(positions[known, 0]) > 0:
        return _laid_out(source, values, counts, positions, known)
    values["point_mask"] = np.broadcast_to(known.reshape(rows, columns), (views, rows, columns))
    _judge(source, values, positions, known, rows, columns)
    return counts


def _judge(
    source: Source, values: dict[str, Any], positions: np.ndarray, known: np.ndarray, rows: int, columns: int
) -> None:
    """Take the step of the raster, and say how far points are off it."""
    row, column = np.divmod(np.arange(rows * columns), columns)
    design = np.stack([np.ones(len(row)), row, column], 1)[known].astype(float)
    fitted = np.linalg.lstsq(design, positions[known], rcond=None)[0]
    steps = [float(np.linalg.norm(fitted[1 + axis])) for axis, n in enumerate((rows, columns)) if n > 1]
    step = float(np.mean(steps)) if steps else 0.0
    if not step > 0:
        raise InputError(f"{source.name}: the positions do not move; leave them out (geometry.pixel_size)")
    off = np.linalg.norm(positions[known] - design @ fitted, axis=1) / step
    if off.max() > _OFF:
        source.say(
            f"points are up to {off.max():.2g} steps off the raster (rms {np.sqrt(np.mean(off**2)):.2g}): the map is "
            "drawn on the raster, the areal mass of each point holds where it was"
        )
    _take_step(source, values, step, max(steps) / min(steps))


def _take_step(source: Source, values: dict[str, Any], step: float, ratio: float) -> None:
    given = values.get("pixel_size")
    if given is None:
        values["pixel_size"] = step
        source.say(f"step of the raster by the positions: {step * 1e6:.4g} um")
    elif abs(float(np.mean(given)) / step - 1) > 0.05:
        source.say(
            f"the positions have a step of {step * 1e6:.4g} um, geometry.pixel_size says {np.mean(given) * 1e6:.4g}"
        )
    if ratio > 1.05:
        source.say(f"steps along rows and columns differ by {ratio:.3g} times: the picture takes their mean")


def _laid_out(
    source: Source, values: dict[str, Any], counts: Any, positions: np.ndarray, known: np.ndarray
) -> np.ndarray:
    """Lay a list of points out on the raster that their steps make."""
    steps = np.array([_step(positions[known, axis]) for axis in (0, 1)])
    places = np.rint((positions - positions[known].min(0)) / steps)
    shape = tuple((places[known].max(0) + 1).astype(int))
    cell = (places[known] @ np.array([shape[1], 1])).astype(int)
    where, first = np.unique(cell, return_index=True)
    if np.prod(shape) > _ROOM * known.sum() or where.size < 0.9 * known.sum():
        raise InputError(
            f"{source.name}: {known.sum()} points do not lie on a raster (their steps would make one of {shape[0]} x "
            f"{shape[1]}); give areas as a map (y, x)"
        )
    taken = np.flatnonzero(known)[first]
    twice, empty = int(known.sum() - where.size), int(np.prod(shape) - where.size)
    source.say(
        f"{known.sum()} points laid out on a raster of {shape[0]} x {shape[1]}"
        + (f"; {int((~known).sum())} have no position" if not known.all() else "")
        + (f"; {twice} lie where another does and are left out" if twice else "")
        + (f"; {empty} places have no point" if empty else "")
    )

    def spread(array: np.ndarray) -> np.ndarray:
        """Bring `(view, 1, point, ...)` to `(view, y, x, ...)`, zeros where there is no point."""
        out = np.zeros((array.shape[0], int(np.prod(shape)), *array.shape[3:]), array.dtype)
        out[:, where] = array[:, 0, taken]
        return out.reshape(array.shape[0], *shape, *array.shape[3:])

    for name in (*POINTS, *BY_LINE):
        if values.get(name) is not None:
            one = np.asarray(values[name])
            values[name] = spread(one.reshape(counts.shape[:3]) if one.size == np.prod(counts.shape[:3]) else one)
    values["point_mask"] = spread(np.ones(counts.shape[:3], bool))
    _take_step(source, values, float(np.mean(steps)), float(steps.max() / steps.min()))
    return spread(np.asarray(counts))


def _step(values: np.ndarray) -> float:
    """Find the step of one motor: places that lie close together are one, and the step is what lies between them."""
    ordered = np.sort(values)
    gaps, reach = np.diff(ordered), float(np.ptp(values))
    if not reach > 0:
        return 1.0
    down = np.maximum(np.sort(gaps)[::-1], 1e-9 * reach)
    most = max(1, min(len(gaps) // 2, len(gaps) - 1))
    least = down[int(np.argmax(down[:most] / down[1 : most + 1]))]
    means = [part.mean() for part in np.split(ordered, np.flatnonzero(gaps >= least) + 1)]
    return float(np.median(np.diff(means)))

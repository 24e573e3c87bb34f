"""Part of a scan: which views, rows and columns the user wants, binned or not, of everything that belongs to them."""

import dataclasses
from typing import Any

import numpy as np

from ..errors import InputError
from ..frames import Excerpt, FourierOrdered, LazyFrames, Window
from ..scan import extra_of_views
from ._views import finite_views
from .keys import full_name, selection
from .source import Source
from .values import zero_frequency_of

_LEAST = 8  # pixels of a far-field frame along either axis; lines are none
_PER_VIEW = ("positions", "angles", "weights", "transmission", "flux")
_PLACES = ("energy", "focus_to_sample", "focus_to_detector", "sample_to_detector", "detector_pixel", "pixel_size")


def take(source: Source, values: dict[str, Any], counts: Any) -> tuple[Any, Window | None]:
    """Take the chosen part of the frames; what belongs to them (flats, mask, angles, pixel, axis...) changes in
    `values`.

    **Raises:** `InputError` for a part that is not there or makes no sense for this scan.
    """
    total = counts.shape[0]
    views = chosen_views(values, total)
    _check_places(source, values, total)
    finite = finite_views(source, values, np.arange(total) if views is None else views)
    views = finite if views is not None or finite.size < total else None
    window = _window(source, values, counts)
    if views is not None:
        _keep_views(values, views, total)
    if window is not None:
        if window.columns != (0, counts.shape[2]):
            values["whole_rows"] = _whole_rows(values, counts, views, window)
        _keep_window(source, values, counts, window)
    return (_excerpt(counts, views, window), window) if views is not None or window is not None else (counts, None)


def _whole_rows(values: dict[str, Any], counts: Any, views: np.ndarray | None, part: Window) -> dict[str, Any]:
    """Give the same views and rows with all columns, and what belongs to them, for whoever looks for the axis."""
    window, whole = dataclasses.replace(part, columns=(0, counts.shape[2])), tuple(counts.shape[1:3])
    found = {"counts": _excerpt(counts, views, window)}
    for key in ("flats", "darks"):
        frames = None if values.get(key) is None else _stack(values[key])
        if frames is not None and tuple(frames.shape[1:]) == whole:
            found[key] = Excerpt(frames, None, window)[:]
    masks = [values.get("mask"), None if values.get("bad_pixels") is None else np.asarray(values["bad_pixels"]) == 0]
    good = [np.asarray(m) != 0 for m in masks if m is not None and np.shape(m) == whole]
    return found | ({"mask": window.all(np.logical_and.reduce(good))} if good else {})


def chosen_views(values: dict[str, Any], total: int) -> np.ndarray | None:
    """Give the views that the user chooses; `None` for all."""
    return selection(values["views"], total, "views") if values.get("views") is not None else None


def _excerpt(counts: Any, views: np.ndarray | None, window: Window | None) -> Any:
    part = Excerpt(counts, views, window)
    in_memory = not isinstance(counts, LazyFrames | np.memmap)
    return part[:] if in_memory else part


# ---------------------------------------------------------------------- which part
def _window(source: Source, values: dict[str, Any], counts: Any) -> Window | None:
    """Rows, columns and binning; `None` when all is wanted as it is."""
    height, width = counts.shape[1:3]
    named = [name for name in ("rows", "columns", "region", "binning") if values.get(name) is not None]
    if not named:
        return None
    if "region" in named and len({"rows", "columns"} & set(named)):
        raise InputError("data.region says rows and columns already: leave data.rows and data.columns out")
    if "region" in named:
        rows, columns = _region(values["region"], height, width)
    else:
        rows = _range(values, "rows", height)
        columns = _range(values, "columns", width)
    binning = _binning(values.get("binning", 1), rows, columns)
    window = Window(rows, columns, binning)
    left = (rows[1] - rows[0]) % binning[0], (columns[1] - columns[0]) % binning[1]
    source.say(
        f"rows {rows[0]}:{rows[1]} of {height}, columns {columns[0]}:{columns[1]} of {width}"
        + (f", {binning[0]} x {binning[1]} pixels summed into one" if binning != (1, 1) else "")
        + (f"; the last {left[0]} rows and {left[1]} columns fill no whole bin and are left out" if any(left) else "")
    )
    return window


def _range(values: dict[str, Any], name: str, size: int) -> tuple[int, int]:
    if values.get(name) is None:
        return 0, size
    chosen = selection(values[name], size, name)
    if (np.diff(chosen) != 1).any():
        raise InputError(f'{full_name(name)}: {values[name]!r} is to be a range "first:last"')
    return int(chosen[0]), int(chosen[-1]) + 1


def _region(value: Any, height: int, width: int) -> tuple[tuple[int, int], tuple[int, int]]:
    shown = "data.region is [first row, last + 1, first column, last + 1]"
    parts = value.strip("[]() ").split(",") if isinstance(value, str) else value
    try:
        numbers = [int(n) for n in parts]
        whole = all(float(n) == int(n) for n in parts)
    except (TypeError, ValueError):
        raise InputError(f"{shown}, four whole numbers; got {value!r}") from None
    if len(numbers) != 4 or not whole:
        raise InputError(f"{shown}, four whole numbers; got {value!r}")
    top, bottom, left, right = numbers
    if not (0 <= top < bottom <= height and 0 <= left < right <= width):
        raise InputError(f"{shown}; {numbers} does not lie within {height} rows and {width} columns")
    return (top, bottom), (left, right)


def _binning(value: Any, rows: tuple[int, int], columns: tuple[int, int]) -> tuple[int, int]:
    """Along rows and columns; a single row is binned along its columns only."""
    try:
        factor = int(value)
        good = factor == float(value) and factor >= 1 and not isinstance(value, bool)
    except (TypeError, ValueError):
        factor, good = 0, False
    if not good:
        raise InputError(f"data.binning: {value!r} is not a whole number of pixels, 1 or more")
    height, width = rows[1] - rows[0], columns[1] - columns[0]
    binning = (1 if height == 1 else factor, factor)
    if binning[0] > height or binning[1] > width:
        raise InputError(f"data.binning: {factor} pixels into one leaves nothing of {height} rows and {width} columns")
    return binning


# ---------------------------------------------------------------------- what belongs to it
def _check_places(source: Source, values: dict[str, Any], total: int) -> None:
    for key in _PLACES:
        value = values.get(key)
        if isinstance(value, np.ndarray) and len(value) not in (1, total):
            raise InputError(f"{source.name}: {full_name(key)} has {len(value)} values for {total} views")


def squared(source: Source, values: dict[str, Any], counts: Any, window: Window | None) -> tuple[Any, Window | None]:
    """Cut far-field frames to a square about their zero frequency: the pixel of the object, wavelength distance /
    (n detector_pixel), is one for rows and columns then.

    Frames with the zero frequency at the corner get it in the centre. What belongs to the frames changes in `values`.
    """
    height, width = counts.shape[1:3]
    if height == width or min(height, width) < _LEAST:
        return counts, window
    if (values.get("dc") or zero_frequency_of(values, counts)) == "corner":
        counts = FourierOrdered(counts, back=True)
        for key in ("flats", "darks", "mask", "bad_pixels", "efficiency"):
            if values.get(key) is not None:
                values[key] = np.fft.fftshift(np.asarray(values[key]), (-2, -1))
        values["dc"] = "centre"
    side = min(height, width)
    top, left = height // 2 - side // 2, width // 2 - side // 2
    part = Window((top, top + side), (left, left + side))
    source.say(
        f"far-field frames of {height} x {width} pixels are cut to the {side} x {side} about their zero frequency, so "
        "that the object's pixels are square (data.region chooses others)"
    )
    _keep_window(source, values, counts, part)
    outer = Window((0, height), (0, width)) if window is None else window
    (by, bx), (row, column) = outer.binning, (outer.rows[0], outer.columns[0])
    whole = Window(
        (row + top * by, row + (top + side) * by), (column + left * bx, column + (left + side) * bx), outer.binning
    )
    return _excerpt(counts, None, part), whole


def _keep_views(values: dict[str, Any], views: np.ndarray, total: int) -> None:
    if "tensor_geometry" in values:
        values["tensor_geometry"] = values["tensor_geometry"].subset(views)
    for key in (*_PER_VIEW, *_PLACES):
        if isinstance(values.get(key), np.ndarray) and len(values[key]) == total:
            values[key] = values[key][views]
    picked = extra_of_views(values, views, total)
    for key in ("flat_views", "dark_views"):
        if key in values and key not in picked:
            del values[key]
    values.update(picked)


def _keep_window(source: Source, values: dict[str, Any], counts: Any, window: Window) -> None:
    _refuse_what_cannot_be_cut(source, values, window)
    whole, (by, bx) = tuple(counts.shape[1:3]), window.binning
    for key in ("flats", "darks", "reference"):
        if values.get(key) is not None:
            values[key] = Excerpt(_whole(source, key, _stack(values[key]), whole, 1), None, window)[:]
    if values.get("efficiency") is not None:
        whole_detector = _whole(source, "efficiency", _stack(values["efficiency"]), whole, 1)
        values["efficiency"] = Excerpt(whole_detector, None, window)[:] / (by * bx)
    for key in ("mask", "bad_pixels"):
        if values.get(key) is not None:
            mask = np.asarray(values[key])
            mask = _whole(source, key, mask, whole, mask.ndim - 2)
            good = (mask != 0 if key == "mask" else mask == 0).reshape(-1, *mask.shape[-2:]).all(0)
            values[key] = window.all(good) if key == "mask" else ~window.all(good)
    for key in ("weights", "transmission"):
        if values.get(key) is not None:
            values[key] = window.total(_whole(source, key, np.asarray(values[key]), whole, 1), 1)
    if values.get("transmission") is not None:
        values["transmission"] = values["transmission"] / (by * bx)
    _rescale(values, window)
    if "tensor_geometry" in values:
        values["tensor_geometry"] = _moved(values["tensor_geometry"], window, whole)
    probe = values.get("probe")
    if probe is not None and np.shape(probe)[-2:] == whole and window.shape != whole:
        source.say("the probe is of whole frames and is left out")
        del values["probe"]


def _refuse_what_cannot_be_cut(source: Source, values: dict[str, Any], window: Window) -> None:
    if "cross_sections" in values or "lines" in values:
        raise InputError(f"{source.name}: rows, columns and binning are for detector pixels; these are scan points")
    if window.binning == (1, 1):
        return
    if "tensor_geometry" in values:
        raise InputError(f"{source.name}: data.binning is for detector pixels; those of tensor SAXS are scan points")
    if "positions" in values and values.get("positions_unit") == "pixel":
        raise InputError(
            f"{source.name}: data.binning needs positions in metres; these are in pixels, say their unit "
            "(data.positions_unit) or multiply them by the pixel size"
        )


def _rescale(values: dict[str, Any], window: Window) -> None:
    """Everything in units of a pixel, or a count of one pixel. `pixel_size` waits until the method is known."""
    by, bx = window.binning
    for key, factor in (("detector_pixel", bx), ("flux", by * bx)):
        if values.get(key) is not None:
            values[key] = values[key] * factor
    if values.get("rotation_centre") is not None:
        values["rotation_centre"] = window.column(float(np.ravel(values["rotation_centre"])[0]))
    if values.get("shifts") is not None:
        values["shifts"] = np.asarray(values["shifts"], float) / np.array([by, bx])


def _stack(frames: Any) -> Any:
    frames = frames if isinstance(frames, LazyFrames) else np.asarray(frames)
    return frames[None] if frames.ndim == 2 else frames


def _whole(source: Source, name: str, array: Any, whole: tuple[int, ...], axis: int) -> Any:
    if array.shape[axis : axis + 2] != whole:
        raise InputError(
            f"{source.name}: {full_name(name)} has shape {array.shape}, the frames {whole}: give it for "
            "the whole frames, it is cut and binned like them"
        )
    return array


def _moved(geometry: Any, window: Window, whole: tuple[int, ...]) -> Any:
    """Offsets of a cut raster: scan point k lies at k + 1/2 - N/2 + offset."""
    first = np.array([window.rows[0], window.columns[0]])
    change = first + (np.array(window.shape) - np.array(whole)) / 2
    return dataclasses.replace(geometry, offsets=geometry.offsets + change)

"""Whether frames can be counts: one pass over them, and one line that says which views are wrong."""

from typing import Any

import numpy as np

from ._summary import Summary, summary_of
from .errors import InputError
from .frames import frame_tiles, index_ranges

FEW = 0.01  # of all values, that may be not finite
_WHOLE_VIEW = 0.9  # of the pixels of a view: the view is wrong, and not some pixels
LARGEST = 1e15  # counts: their squares are numbers of 32 bits still


def check_counts(
    counts: Any,
    mask: np.ndarray | None,
    name: str,
    *,
    empty: bool = False,
    below: bool = False,
    tolerance: bool = False,
    summary: Summary | None = None,
) -> int:
    """Refuse negative or non-finite counts and frames without a single photon, naming the first bad view.

    Pixels that the mask leaves out may hold anything. With `empty` frames may hold nothing, with `below` counts may be
    negative, with `tolerance` one in a hundred may be not finite: **returns** how many are. Reads the frames once,
    unless their `summary` is known, and again where there is something to name.

    **Raises:** `InputError`.
    """
    if np.dtype(counts.dtype).kind not in "iufb":
        raise InputError(f"{name}: counts are of type {counts.dtype}; expected integers or floats")
    summary = summary_of(counts, mask) if summary is None else summary
    bad = int(summary.not_finite.sum())
    low, high = summary.lowest.min(initial=0), summary.highest.max(initial=0)
    if (bad and not tolerance) or (low < 0 and not below) or max(high, -low) > LARGEST:
        _refuse_values(counts, mask, name, below=below, tolerance=tolerance)
    if bad > FEW * np.prod(counts.shape):
        _refuse_values(counts, mask, name, below=below, tolerance=False)
    dark = np.flatnonzero(~summary.lit.any(1))
    if dark.size and (not empty or dark.size == counts.shape[0]):
        _refuse_dark(dark, counts.shape[0], name)
    return bad


def _refuse_values(counts: Any, mask: np.ndarray | None, name: str, *, below: bool, tolerance: bool) -> None:
    """Read the frames again to name the first value that is wrong."""
    for views, rows, part in frame_tiles(counts):
        if mask is not None:
            measured = mask[rows].reshape(mask[rows].shape + (1,) * (part.ndim - 3))
            part = np.where(measured, part, np.zeros((), part.dtype))
        if part.dtype.kind == "f" and not (finite := np.isfinite(part)).all():
            if not tolerance:
                _refuse_first(name, part, ~finite, (views, rows), "", "mend the file")
            part = np.where(finite, part, np.zeros((), part.dtype))
        if not below and part.dtype.kind in "if" and part.min(initial=0) < 0:
            _refuse_first(name, part, part < 0, (views, rows), "negative: ", _NEGATIVE)
        if part.dtype.kind == "f" and part.size and float(np.abs(part).max()) > LARGEST:
            _refuse_first(name, part, np.abs(part) > LARGEST, (views, rows), "", "mend the file")


_NEGATIVE = "undo the subtraction; logarithms of a tomogram are no counts (data.kind=line-integrals)"


def _refuse_first(
    name: str, part: np.ndarray, wrong: np.ndarray, tile: tuple[slice, slice], what: str, remedy: str
) -> None:
    """Name the first value of a tile that is wrong, and the view where all of it is."""
    where = np.argwhere(wrong)[0]
    view, pixel = tile[0].start + where[0], (int(where[1]) + tile[1].start, *map(int, where[2:]))
    shown = f"{what}{part[tuple(where)]}"
    if wrong[where[0]].mean() > _WHOLE_VIEW:
        whole = wrong.reshape(len(wrong), -1).mean(1) > _WHOLE_VIEW
        there = index_ranges(tile[0].start + np.flatnonzero(whole))
        raise InputError(
            f"{name}: counts of view {view} are {shown} in nearly all pixels: leave such views out (data.views; among "
            f"views {tile[0].start} to {tile[0].start + len(wrong) - 1} they are {there}) or {remedy}"
        )
    raise InputError(
        f"{name}: counts of view {view}, pixel {pixel} are {shown}; mask such pixels (data.mask) or {remedy}"
    )


def _refuse_dark(dark: np.ndarray, views: int, name: str) -> None:
    """Say which views to choose instead."""
    if dark.size == views:
        raise InputError(
            f"{name}: there are no counts in any view; check the shutter, which dataset holds the frames, and whether "
            "the mask is the other way round (nonzero = measured in data.mask, = bad in data.bad_pixels)"
        )
    said = f"view {dark[0]} has" if dark.size == 1 else f"{dark.size} views ({dark[0]} the first) have"
    good = index_ranges(np.setdiff1d(np.arange(views), dark))
    raise InputError(f"{name}: {said} no counts at all; leave such views out (data.views={good}) or check the shutter")


def check_some_light(counts: Any, mask: np.ndarray | None, name: str) -> None:
    """Refuse frames that hold no count at all, or nothing finite.

    **Raises:** `InputError`.
    """
    for _, rows, part in frame_tiles(counts):
        part = part if mask is None else part[:, mask[rows]]
        if part.dtype.kind not in "iufb" or bool(((part > 0) & np.isfinite(part)).any()):
            return
    raise InputError(f"{name}: no frame holds any counts; check the shutter and which dataset holds the frames")

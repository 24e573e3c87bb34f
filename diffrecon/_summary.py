"""What one pass over frames tells of every detector row: extremes, sums, zeros, what is not finite, where light is."""

from typing import Any

import numpy as np

from .frames import LazyFrames, frame_tiles


class Summary:
    """Figures of the measured pixels of each detector row, over all views.

    **Fields:** `lowest`, `highest` and `total` of the finite values; how many `values` there are, finite or not, and
    how many of them are `zeros`, `not_finite` or `full` (at the `ceiling` of an integer type); `lit` `(view, row)`,
    whether any value differs from zero, and `peaks`, the highest of the row in each view.
    """

    def __init__(self, shape: tuple[int, ...], dtype: Any):
        views, rows = shape[:2]
        self.ceiling = int(np.iinfo(dtype).max) if np.dtype(dtype).kind in "iu" else None
        self.lowest, self.highest, self.total = np.full(rows, np.inf), np.full(rows, -np.inf), np.zeros(rows)
        self.values, self.zeros, self.not_finite, self.full = np.zeros((4, rows), np.int64)
        self.lit = np.zeros((views, rows), bool)
        self.peaks = np.full((views, rows), -np.inf, np.float32)

    def add(self, views: slice, rows: slice, part: np.ndarray, mask: np.ndarray | None = None) -> None:
        """Take in a tile `(view, row, ...)`; `mask` `(row, column)` is `True` where its pixels are measured."""
        part = part.astype(np.uint8) if part.dtype.kind == "b" else part
        segments = int(np.prod(part.shape[3:]))
        part = part.reshape(*part.shape[:2], -1)
        used = np.ones((), bool) if mask is None else np.repeat(mask, segments, -1)
        self.values[rows] += len(part) * np.broadcast_to(used, part.shape[1:]).sum(-1)
        if part.dtype.kind == "f" and not (finite := np.isfinite(part)).all():
            self.not_finite[rows] += (used & ~finite).sum((0, 2))
            used = used & finite
        self._reduce(views, rows, part, used)

    def _reduce(self, views: slice, rows: slice, part: np.ndarray, used: np.ndarray) -> None:
        whole, kind = bool(used.all()), part.dtype
        end = np.finfo(kind) if kind.kind == "f" else np.iinfo(kind)
        low = (part if whole else np.where(used, part, end.max)).min(-1, initial=end.max)
        high = (part if whole else np.where(used, part, end.min)).max(-1, initial=end.min)
        any_used = low <= high
        self.lowest[rows] = np.minimum(self.lowest[rows], np.where(any_used, low, np.inf).min(0))
        self.highest[rows] = np.maximum(self.highest[rows], np.where(any_used, high, -np.inf).max(0))
        self.total[rows] += (part if whole else np.where(used, part, np.zeros((), kind))).sum((0, 2), dtype=np.float64)
        self.peaks[views, rows] = np.maximum(self.peaks[views, rows], np.where(any_used, high, -np.inf))
        self.lit[views, rows] |= any_used & ((low != 0) | (high != 0))
        if (low <= 0).any():
            self.zeros[rows] += ((part == 0) & used).sum((0, 2))
        if self.ceiling is not None and (high == self.ceiling).any():
            self.full[rows] += ((part == self.ceiling) & used).sum((0, 2))

    def take_rows(self, other: "Summary", rows: np.ndarray) -> None:
        """Copy the figures of some rows."""
        for name in ("lowest", "highest", "total", "values", "zeros", "not_finite", "full"):
            getattr(self, name)[rows] = getattr(other, name)[rows]
        self.lit[:, rows], self.peaks[:, rows] = other.lit[:, rows], other.peaks[:, rows]


def summary_of(counts: Any, mask: np.ndarray | None = None) -> Summary:
    """Summarise frames `(view, y, x)`, lazy or not, in one pass.

    Rows that are measured whole are those of an earlier pass where the frames remember one (`sampled`).
    """
    made, known = Summary(counts.shape, counts.dtype), getattr(counts, "summary", None)
    whole = np.full(counts.shape[1], known is not None)
    if mask is not None:
        whole &= mask.all(1)
    for views, rows, part in frame_tiles(counts, needed=~whole):
        made.add(views, rows, part, None if mask is None else mask[rows])
    if known is not None:
        made.take_rows(known, whole)
    return made


def sampled(counts: Any, views: np.ndarray) -> np.ndarray:
    """Give some views of frames `(view, y, x)`.

    Where packed chunks hold many views, all of them must be unpacked for that: those frames keep the `Summary`, so that
    nobody has to unpack them again for it.
    """
    if not getattr(counts, "bands", 0) or not isinstance(counts, LazyFrames):
        return np.asarray(counts[views])
    some, made = np.empty((views.size, *counts.shape[1:]), counts.dtype), Summary(counts.shape, counts.dtype)
    for _, rows, part in frame_tiles(counts):
        some[:, rows] = part[views]
        made.add(slice(None), rows, part)
    counts.summary = made
    return some

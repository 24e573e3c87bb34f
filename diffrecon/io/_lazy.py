"""Frames that lie in many pieces or in another order: one file or dataset a view, one sinogram a row."""

from collections.abc import Callable
from typing import Any

import numpy as np

from ..frames import LazyFrames

__all__ = ["PerView", "SinogramOrdered"]


class PerView(LazyFrames):
    """Frames that are read one by one when they are asked for.

    **Arguments:** `load(view)` gives one frame of `frame_shape` and `dtype`; `views` = how many there are.
    """

    def __init__(self, load: Callable[[int], np.ndarray], views: int, frame_shape: tuple[int, ...], dtype: Any):
        self._load, self.dtype = load, np.dtype(dtype)
        self.shape = (views, *frame_shape)

    def _read(self, views: np.ndarray, rows: slice, columns: slice) -> np.ndarray:
        shape = (len(views), rows.stop - rows.start, columns.stop - columns.start, *self.shape[3:])
        values = np.empty(shape, self.dtype)
        for place, view in enumerate(views):
            values[place] = np.asarray(self._load(int(view)))[rows, columns]
        return values


class SinogramOrdered(LazyFrames):
    """Frames `(view, row, column)` of a stack of sinograms `(row, view, column)`; reads the wanted rows only."""

    def __init__(self, stored: Any):
        self._stored, self.dtype = stored, np.dtype(stored.dtype)
        rows, views, columns = stored.shape
        self.shape = (views, rows, columns)
        chunks = getattr(stored, "chunks", None)
        self.bands = chunks[0] if chunks else 0

    def _read(self, views: np.ndarray, rows: slice, columns: slice) -> np.ndarray:
        if not len(views):
            return np.empty((0, rows.stop - rows.start, columns.stop - columns.start), self.dtype)
        first, last = int(views.min()), int(views.max()) + 1
        return np.asarray(self._stored[rows, first:last, columns])[:, views - first].swapaxes(0, 1)

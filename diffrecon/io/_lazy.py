"""Frames that lie in many pieces or in another order: one file or dataset a view, one sinogram a row, mirrored ones."""

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from ..errors import InputError
from ..frames import LazyFrames, need_filters, open_hdf5

__all__ = ["Mirrored", "PerView", "SinogramOrdered", "Stacked"]


class PerView(LazyFrames):
    """Frames that are read one by one when they are asked for.

    **Arguments:** `load(wanted)` yields the frames of these views, of `frame_shape` and `dtype`; `views` = how many
    there are.
    """

    def __init__(
        self, load: Callable[[np.ndarray], Iterable[np.ndarray]], views: int, frame_shape: tuple[int, ...], dtype: Any
    ):
        self._load, self.dtype = load, np.dtype(dtype)
        self.shape = (views, *frame_shape)

    def _read(self, views: np.ndarray, rows: slice, columns: slice) -> np.ndarray:
        shape = (len(views), rows.stop - rows.start, columns.stop - columns.start, *self.shape[3:])
        values = np.empty(shape, self.dtype)
        for place, frame in enumerate(self._load(views)):
            values[place] = frame[rows, columns]
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


class Mirrored(LazyFrames):
    """Frames `(view, y, x)` whose rows, columns or both come in reverse order."""

    def __init__(self, frames: Any, rows: bool, columns: bool):
        self._frames, self._reversed = frames, (rows, columns)
        self.shape, self.dtype = tuple(frames.shape), np.dtype(frames.dtype)
        self.bands = getattr(frames, "bands", 0)

    def _read(self, views: np.ndarray, rows: slice, columns: slice) -> np.ndarray:
        sizes, parts = self.shape[1:3], (rows, columns)
        back = [
            slice(size - part.stop, size - part.start) if turned else part
            for size, part, turned in zip(sizes, parts, self._reversed, strict=True)
        ]
        order = tuple(slice(None, None, -1 if turned else 1) for turned in self._reversed)
        return np.asarray(self._frames[(views, *back)])[(slice(None), *order)]


class Stacked(LazyFrames):
    """Frames `(view, translation, row, column)` of a file as `(view * translation, row, column)`."""

    def __init__(self, path: Any, dataset: str, shape: tuple[int, ...], dtype: Any):
        self.path, self.dataset, self.dtype, self._per_view = path, dataset, np.dtype(dtype), shape[1]
        self.shape = (shape[0] * shape[1], *shape[2:])

    def _read(self, views: np.ndarray, rows: slice, columns: slice) -> np.ndarray:
        values = np.empty((len(views), rows.stop - rows.start, columns.stop - columns.start), self.dtype)
        try:
            with open_hdf5(self.path, self.dataset) as file:
                stored = file[self.dataset]
                need_filters(stored)
                for view in np.unique(views // self._per_view):
                    wanted = np.flatnonzero(views // self._per_view == view)
                    inner = views[wanted] % self._per_view
                    low, high = int(inner.min()), int(inner.max()) + 1
                    values[wanted] = stored[int(view), low:high, rows, columns][inner - low]
        except (OSError, RuntimeError, KeyError) as error:
            raise InputError(
                f"{self.path.name}: {self.dataset} cannot be read, the file is damaged or incomplete "
                f"({str(error).splitlines()[0]})"
            ) from error
        return values

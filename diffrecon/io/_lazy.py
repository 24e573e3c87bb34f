"""Frames that lie in many pieces: one file a view, one dataset a view."""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

__all__ = ["PerView"]


class PerView:
    """Frames that are read one by one when they are asked for; indexes as `diffrecon.scan.Frames` does.

    **Arguments:** `load(view)` gives one frame of `frame_shape` and `dtype`; `views` = how many there are.
    """

    def __init__(self, load: Callable[[int], np.ndarray], views: int, frame_shape: tuple[int, ...], dtype: Any):
        self._load, self.dtype = load, np.dtype(dtype)
        self._select = np.arange(views)
        self.shape: tuple[int, ...] = (views, *frame_shape)

    @property
    def ndim(self) -> int:
        return len(self.shape)

    def __len__(self) -> int:
        return self.shape[0]

    def __repr__(self) -> str:
        return f"PerView(shape={self.shape}, dtype={self.dtype})"

    def __getitem__(self, index: Any) -> np.ndarray:
        views, rest = (index[0], index[1:]) if isinstance(index, tuple) else (index, ())
        wanted = self._select[views]
        if not np.ndim(wanted):
            return np.asarray(self._load(int(wanted)))[rest]
        if not len(wanted):
            return np.zeros((0, *self.shape[1:]), self.dtype)[(slice(None), *rest)]
        return np.stack([np.asarray(self._load(int(view)))[rest] for view in wanted])

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        values = self[:]
        return values if dtype is None else values.astype(dtype)

    def blocks(self, size: int) -> Iterator[np.ndarray]:
        """The frames in blocks of at most `size` views."""
        for start in range(0, len(self), size):
            yield self[start : start + size]

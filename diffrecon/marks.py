"""Numbers by which a detector says "not measured": gaps between modules, dead and hot pixels, before any statistic."""

import dataclasses
from collections.abc import Iterator
from typing import Any

import numpy as np

from ._summary import sampled
from .frames import LazyFrames, spread

__all__ = ["Marks", "find_marks"]

_VIEWS = 9  # that are looked at; an odd number, so that a median is one of the values
_BYTES = 2**28  # of frames in memory at once
_NEARLY = 0.85  # of these views: eight of nine
_SEVERAL = 3  # views that tell what stays from what is the same by chance
_NUMBERS = 6  # different marks that a detector may use
_LARGEST = (2**16 - 1, 2**31 - 1, 2**32 - 2, 2**32 - 1, 2**63 - 1, 2**64 - 1)  # ends of scales, and Dectris' bad pixels
_ABOVE_REST = 1.25  # times the brightest other pixel, where the mark is the end of a scale that counts may reach, too
_FAR_ABOVE = 3.0  # where it is just any number
_LEAST = 1000  # counts: smaller ones are equal in nearly all views by chance
_MANY = 16  # pixels at the end of a scale of 16 bits in a type that goes on: marks, though some hold more
_MOST = 0.5  # of the pixels: more is no detector


@dataclasses.dataclass(frozen=True)
class Marks:
    """Pixels that hold the same impossible value in nearly every view.

    **Fields:** `pixels` `(y, x)`, `True` = marked; `values` by which they are, with the number of pixels of each.
    """

    pixels: np.ndarray
    values: dict[float, int]

    def message(self) -> str:
        """Say how many pixels hold which values."""
        said = ", ".join(
            f"{count} pixel{'s' * (count > 1)} {'not finite' if np.isnan(value) else f'at {value:.10g}'}"
            for value, count in self.values.items()
        )
        return f"{said} in nearly every view: a mark of the detector, taken as not measured"

    def cleared(self, frames: Any) -> Any:
        """Give frames `(view, y, x)` with zeros in these pixels; lazy ones stay lazy."""
        if isinstance(frames, LazyFrames | np.memmap):
            return Cleared(frames, self.pixels)
        return np.where(self.pixels, np.zeros((), frames.dtype), frames)


class Cleared(LazyFrames):
    """Frames `(view, y, x)` that are zero in some pixels as they are read."""

    def __init__(self, frames: Any, pixels: np.ndarray):
        self.frames, self.pixels = frames, pixels
        self.shape, self.dtype = tuple(frames.shape), np.dtype(frames.dtype)
        self.bands = getattr(frames, "bands", 0)

    def _read(self, views: np.ndarray, rows: slice, columns: slice) -> np.ndarray:
        block = np.array(self.frames[views, rows, columns])
        block[:, self.pixels[rows, columns]] = 0
        return block


def find_marks(counts: Any) -> Marks | None:
    """Find the pixels that a detector has marked as not measured; `None` where there are none.

    Marks are values that are not finite or negative, the largest integers of 16, 31, 32, 63 and 64 bits (in any type
    that holds them, floats too), or any number far above all other pixels, each in the same pixels of nearly every
    view. A saturated pixel is none: there others come close to it, or it is saturated in some views only.

    **Arguments:** `counts` `(view, y, x)`, lazy or not; nine views spread over them are read. Frames with more axes are
    no images of a detector and have no marks.

    ```python
    counts = np.random.default_rng(0).poisson(20, (9, 8, 8)).astype(np.float32)
    counts[:, 2] = 2**32 - 1
    marks = find_marks(counts)
    assert marks.pixels.sum() == 8 and marks.pixels[2].all()
    ```
    """
    if len(counts.shape) != 3 or np.dtype(counts.dtype).kind not in "iuf" or 0 in counts.shape:
        return None
    some = _sample(counts)
    usual = np.median(some, axis=0)  # of an odd number of views: one of their values
    marked, values = np.zeros(usual.shape, bool), dict[float, int]()
    for value in _candidates(usual):
        held = ~np.isfinite(some) if np.isnan(value) else some == value
        pixels = (held.mean(0) >= _NEARLY) & ~marked
        if pixels.any() and _is_mark(value, some, held, pixels, usual[~pixels & ~marked]):
            values[value] = int(pixels.sum())
            marked = marked | pixels
    return Marks(marked, values) if values and marked.mean() <= _MOST else None


def _sample(counts: Any) -> np.ndarray:
    frame = int(np.prod(counts.shape[1:])) * np.dtype(counts.dtype).itemsize
    size = min(counts.shape[0], _VIEWS, max(_BYTES // max(frame, 1), _SEVERAL))
    views = spread(counts.shape[0], size - (size % 2 == 0))
    return sampled(counts, views)


def _candidates(usual: np.ndarray) -> Iterator[float]:
    """Yield values that may be marks: not finite, negative ones, then the largest from above."""
    finite = usual[np.isfinite(usual)]
    if finite.size < usual.size:
        yield np.nan
    negative = finite[finite < 0]
    if negative.size:
        yield from (float(value) for value in np.unique(negative)[:_NUMBERS])
    if (finite.astype(float) == 2**16 - 1).sum() >= _MANY:  # half precision holds no such number
        yield 2.0**16 - 1
    for _ in range(_NUMBERS):
        finite = finite[finite > 0]
        if not finite.size:
            return
        yield float(finite.max())
        finite = finite[finite < finite.max()]


def _is_mark(value: float, some: np.ndarray, held: np.ndarray, pixels: np.ndarray, rest: np.ndarray) -> bool:
    """Tell a mark, which `pixels` hold always and others never, from noise and from light."""
    kind, views = some.dtype, len(some)
    if np.isnan(value):
        return True
    if value != np.rint(value):
        return False
    always = pixels.sum() > (held.any(0) & ~pixels).sum()
    if value < 0:
        return bool(always and (views >= _SEVERAL or np.unique(some[some < 0]).size == 1))
    brightest, integer = float(rest.max(initial=0)), kind.kind in "iu"
    if value >= 2**31 - 2 and value in [float(kind.type(end)) for end in _LARGEST if not integer or end <= _end(kind)]:
        return True
    if value == 2**16 - 1 and (not integer or _end(kind) > value):  # so many are alike by no chance
        return bool(always and (value > brightest or pixels.sum() >= _MANY))
    if integer and value == _end(kind):
        return bool(always) and value > _ABOVE_REST * brightest
    return bool(always) and views >= _SEVERAL and value >= _LEAST and value > _FAR_ABOVE * brightest


def _end(kind: np.dtype) -> int:
    return int(np.iinfo(kind).max)

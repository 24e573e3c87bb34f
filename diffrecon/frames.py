"""Frames that stay in their files until they are asked for: windows, excerpts, HDF5."""

import dataclasses
import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, Self, TypeVar, runtime_checkable

import numpy as np
from numpy.typing import ArrayLike

from ._hdf5 import native, need_filters, need_sources, open_hdf5
from .errors import InputError

__all__ = ["Frames"]


class LazyFrames:
    """Detector frames `(view, y, x)`, or with a trailing segment axis, that stay in the file until they are asked for.

    Indexes as an array does, reading only the views, rows and columns that the index names; `numpy.asarray` reads all.
    A kind of frames fills in `shape`, `dtype` and `_read`.
    """

    shape: tuple[int, ...]
    dtype: np.dtype
    bands: int = 0
    """Rows of a packed chunk where such chunks hold many views: read rows after rows, so that each is unpacked once."""
    summary: Any = None
    """What an earlier pass over all frames has told of them (`_summary.sampled`)."""

    def _read(self, views: np.ndarray, rows: slice, columns: slice) -> np.ndarray:
        """Those views, in that order, of that part of the detector; the slices have bounds and no step."""
        raise NotImplementedError

    @property
    def ndim(self) -> int:
        return len(self.shape)

    def __len__(self) -> int:
        return self.shape[0]

    def __repr__(self) -> str:
        return f"{type(self).__name__}(shape={self.shape}, dtype={self.dtype})"

    def __getitem__(self, index: Any) -> Any:
        views, *rest = _without_ellipsis(index if isinstance(index, tuple) else (index,), self.ndim)
        wanted = np.arange(len(self))[views]
        rows, inner_rows = _span(rest[0], self.shape[1])
        columns, inner_columns = _span(rest[1], self.shape[2])
        block = self._read(np.atleast_1d(wanted), rows, columns)
        key: Any = (slice(None) if np.ndim(wanted) else 0, inner_rows, inner_columns, *rest[2:])
        return block[key]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        values = self[:]
        return values if dtype is None else values.astype(dtype)

    def blocks(self, size: int) -> Iterator[np.ndarray]:
        """Read the frames in blocks of at most `size` views, one read each."""
        for start in range(0, len(self), size):
            yield self[start : start + size]


def _without_ellipsis(index: tuple, ndim: int) -> tuple:
    """One entry for each axis."""
    if sum(i is not Ellipsis for i in index) > ndim or any(i is None for i in index):
        raise IndexError(f"frames of {ndim} axes cannot be indexed by {index}")
    at = next((n for n, i in enumerate(index) if i is Ellipsis), len(index))
    before, after = index[:at], index[at + 1 :]
    return (*before, *(slice(None),) * (ndim - len(before) - len(after)), *after)


def _span(index: Any, size: int) -> tuple[slice, Any]:
    """The contiguous part of an axis that an index needs, and the index within that part."""
    if isinstance(index, slice):
        chosen = range(size)[index]
        if not chosen:
            return slice(0, 0), slice(None)
        return slice(min(chosen), max(chosen) + 1), slice(None, None, chosen.step)
    if isinstance(index, int | np.integer):
        place = range(size)[index]
        return slice(place, place + 1), 0
    return slice(0, size), index


class Frames(LazyFrames):
    """Frames of an HDF5 dataset, in the detector's own integer type.

    The file is opened for each read and closed after it, so that a Frames can be pickled, shared between processes and
    kept while another program goes on writing. Axes of length 1 before the views are left out.

    **Arguments:** `path` of an HDF5 file, name of the `dataset`, `select` = indices of the frames that count (all by
    default), in the order of the views.
    """

    def __init__(self, path: str | Path, dataset: str, select: ArrayLike | None = None):
        self.path, self.dataset = Path(path), dataset
        with open_hdf5(self.path, dataset) as file:
            stored = file[dataset]
            need_sources(stored)
            self.dtype = native(stored.dtype)
            self._lead = next((n for n in range(stored.ndim) if stored.ndim - n <= 3 or stored.shape[n] != 1), 0)
            whole = stored.shape[self._lead :]
            self._select = np.arange(whole[0]) if select is None else np.asarray(select)
            self.shape = (len(self._select), *whole[1:])
            self.bands = _bands(stored, self._lead)
            packed = stored.chunks is not None and stored.id.get_create_plist().get_nfilters() > 0
            self.chunks = stored.chunks[self._lead :] if packed else None

    def __repr__(self) -> str:
        return f"Frames({self.path.name}:{self.dataset}, shape={self.shape}, dtype={self.dtype})"

    def _read(self, views: np.ndarray, rows: slice, columns: slice) -> np.ndarray:
        # HDF5 reads increasing indices only, and runs faster than lists.
        order, back = np.unique(self._select[views], return_inverse=True)
        part = (rows.stop - rows.start, columns.stop - columns.start)
        values = np.empty((len(order), *part, *self.shape[3:]), self.dtype)
        # Without a cache of chunks only the wanted rows of an unpacked chunk are read.
        try:
            with open_hdf5(self.path, self.dataset, rdcc_nbytes=0) as file:
                stored = file[self.dataset]
                need_filters(stored)
                for place in _runs(order, stored.chunks[self._lead] if stored.chunks else 1):
                    _read_run(stored, order[place], (rows, columns), values[place], self._lead)
        except (OSError, RuntimeError, KeyError) as error:
            raise InputError(
                f"{self.path.name}: {self.dataset} cannot be read, the file is damaged or incomplete "
                f"({str(error).splitlines()[0]})"
            ) from error
        return values if (np.diff(back) == 1).all() else values[back]


def _runs(order: np.ndarray, reach: int) -> Iterator[slice]:
    """Places of runs among increasing indices, that are neighbours or less than `reach` apart."""
    ends = [0, *(np.flatnonzero(np.diff(order) > max(reach - 1, 1)) + 1).tolist(), order.size]
    for first, last in zip(ends[:-1], ends[1:], strict=True):
        if last > first:
            yield slice(first, last)


_MANY_VIEWS = 64  # in one chunk
_BAND_BYTES = 2**26  # of a chunk's views that are unpacked at a time


def _bands(stored: Any, lead: int) -> int:
    """Rows of a chunk, where packed chunks hold many views of less than all rows; 0 otherwise."""
    if stored.chunks is None or stored.ndim - lead < 3 or not stored.id.get_create_plist().get_nfilters():
        return 0
    views, rows = stored.chunks[lead], stored.chunks[lead + 1]
    return rows if views > _MANY_VIEWS and rows < stored.shape[lead + 1] else 0


def _read_run(stored: Any, run: np.ndarray, part: tuple[slice, slice], values: np.ndarray, lead: int) -> None:
    """Increasing views into `values`, in reads of neighbours; HDF5 takes 50 times as long for strides over chunks.

    Views that share chunks come out of one read, even if some between are not wanted, so that no chunk is unpacked
    twice.
    """
    first, last = int(run[0]), int(run[-1]) + 1
    before = (0,) * lead
    if last - first == run.size:
        stored.read_direct(values, (*before, slice(first, last), *part))
        return
    rows, columns = part
    depth = stored.chunks[lead]
    block = -(-_MANY_VIEWS // depth) * depth
    row = block * (columns.stop - columns.start) * values.dtype.itemsize
    band = max(_bands(stored, lead), int(_BAND_BYTES // max(row, 1))) or 1
    for start in range(first // block * block, last, block):
        wanted = (run >= start) & (run < start + block)
        low, high = max(start, first), min(start + block, last)
        for top in range(rows.start, rows.stop, band):
            some = slice(top, min(top + band, rows.stop))
            inner = slice(some.start - rows.start, some.stop - rows.start)
            read = stored[(*before, slice(low, high), some, columns)]
            values[wanted, inner] = read[run[wanted] - low]


class FourierOrdered(LazyFrames):
    """Frames `(view, y, x)` whose zero frequency is moved from the centre to index (0, 0) as they are read, or back."""

    def __init__(self, frames: Any, back: bool = False):
        self.frames, self.shape, self.dtype = frames, tuple(frames.shape), frames.dtype
        self._shift = np.fft.fftshift if back else np.fft.ifftshift

    def _read(self, views: np.ndarray, rows: slice, columns: slice) -> np.ndarray:
        part = (rows.stop - rows.start, columns.stop - columns.start)
        values, start = np.empty((len(views), *part), self.dtype), 0
        for block in frame_blocks(self.frames, views):
            values[start : start + len(block)] = self._shift(block, (-2, -1))[:, rows, columns]
            start += len(block)
        return values


class FiniteFrames(LazyFrames):
    """Frames `(view, y, x)` in which values that are not finite are replaced, as they are read, by those between their
    finite neighbours in the row; by the mean of the frame's finite values in rows that have none."""

    def __init__(self, frames: Any):
        self.frames, self.shape, self.dtype = frames, tuple(frames.shape), native(frames.dtype)
        self.bands = getattr(frames, "bands", 0)

    def _read(self, views: np.ndarray, rows: slice, columns: slice) -> np.ndarray:
        values = np.array(self.frames[(views, rows)], self.dtype)
        wrong = ~np.isfinite(values)
        places = np.arange(values.shape[-1])
        for view, row in np.argwhere(wrong.any(-1)):
            good = ~wrong[view, row]
            if good.any():
                values[view, row, ~good] = np.interp(places[~good], places[good], values[view, row, good])
            else:
                rest = values[view][np.isfinite(values[view])]
                values[view, row] = rest.mean() if rest.size else 0
        return values[..., columns]


@dataclasses.dataclass(frozen=True)
class Window:
    """The part of the whole frames that a scan holds, and how many pixels of them make one of its own.

    **Fields:** `rows` and `columns` = `(first, last + 1)` in pixels of the whole frame; `binning` = pixels summed into
    one along `(row, column)`. What does not fill a whole bin at the end is left out.
    """

    rows: tuple[int, int]
    columns: tuple[int, int]
    binning: tuple[int, int] = (1, 1)

    @property
    def shape(self) -> tuple[int, int]:
        """Give rows and columns of the scan's frames."""
        return (self.rows[1] - self.rows[0]) // self.binning[0], (self.columns[1] - self.columns[0]) // self.binning[1]

    def column(self, whole: float) -> float:
        """Give the column of the scan [pixel] of a column of the whole frame, both counted from the first pixel's
        centre."""
        return (whole - self.columns[0] - (self.binning[1] - 1) / 2) / self.binning[1]

    def whole_column(self, column: float) -> float:
        """Give the inverse of `column`."""
        return column * self.binning[1] + self.columns[0] + (self.binning[1] - 1) / 2

    def total(self, frames: np.ndarray, axis: int = -2) -> np.ndarray:
        """Cut whole frames, rows at `axis` and columns after it, and sum them over bins.

        Integers of fewer than 32 bits become 32 bits wide; Poisson counts stay Poisson counts.

        **Raises:** `InputError` when a sum does not fit into 32 bits.
        """
        return _total(self.cut(frames, axis), self.binning, axis % frames.ndim)

    def all(self, mask: np.ndarray) -> np.ndarray:
        """Cut a mask `(y, x)`: a bin is measured where all its pixels are."""
        rows, columns = self.shape
        binned = self.cut(mask, 0).reshape(rows, self.binning[0], columns, self.binning[1])
        return np.asarray(binned.all((1, 3)))

    def cut(self, frames: np.ndarray, axis: int = -2) -> np.ndarray:
        """Cut from whole frames, rows at `axis`, what lies outside or fills no whole bin."""
        rows, columns = (
            slice(first, first + n * b)
            for (first, _), n, b in zip((self.rows, self.columns), self.shape, self.binning, strict=True)
        )
        return frames[(slice(None),) * (axis % frames.ndim) + (rows, columns)]


def _total(block: np.ndarray, binning: tuple[int, int], axis: int) -> np.ndarray:
    """Sums over bins of rows (at `axis`) and columns, in the type of `_summed_dtype`."""
    if binning == (1, 1):
        return block
    wide = _summed_dtype(block.dtype)
    exact = wide if wide.kind == "f" or block.dtype.itemsize < 4 else np.dtype(f"{wide.kind}8")
    total = _added(_added(block, binning[0], axis, exact), binning[1], axis + 1, exact)
    if exact != wide and total.size and total.max() > np.iinfo(wide).max:
        raise InputError(
            f"binning {binning[0]} x {binning[1]}: a sum of counts is {total.max()}, more than 32 bits "
            "hold; mask or leave out saturated pixels, or bin less"
        )
    return total.astype(wide, copy=False)


def _added(block: np.ndarray, factor: int, axis: int, dtype: np.dtype) -> np.ndarray:
    """Every first, second, ... of `factor` neighbours as strided views, added: several times faster than `sum`."""
    parts = (block[(slice(None),) * axis + (slice(i, None, factor),)] for i in range(factor))
    total = next(parts).astype(dtype)
    for part in parts:
        total += part
    return total


def _summed_dtype(dtype: Any) -> np.dtype:
    """Choose the type of sums over bins, 32 bits at least: JAX has no 64-bit integers by default."""
    dtype = native(dtype)
    return dtype if dtype.kind not in "iu" else np.dtype(np.int32 if dtype.kind == "i" else np.uint32)


class Excerpt(LazyFrames):
    """Some views of other frames, cut to a window and binned as they are read.

    **Arguments:** `frames` (lazy or an array), `views` = indices in the wanted order (all by default), `window` (all of
    the detector by default).
    """

    _BLOCK = 2**24  # bytes of unbinned frames read at once: what the caches hold

    def __init__(self, frames: Any, views: np.ndarray | None = None, window: Window | None = None):
        whole = tuple(frames.shape)
        self._frames = frames
        self._views = np.arange(whole[0]) if views is None else np.asarray(views)
        self._window = Window((0, whole[1]), (0, whole[2])) if window is None else window
        binned = self._window.binning != (1, 1)
        self.dtype = _summed_dtype(frames.dtype) if binned else native(frames.dtype)
        shape: Any = (len(self._views), *self._window.shape, *whole[3:])
        self.shape = shape
        self.bands = -(-getattr(frames, "bands", 0) // self._window.binning[0])

    def _read(self, views: np.ndarray, rows: slice, columns: slice) -> np.ndarray:
        window, (by, bx) = self._window, self._window.binning
        part = Window(
            (window.rows[0] + rows.start * by, window.rows[0] + rows.stop * by),
            (window.columns[0] + columns.start * bx, window.columns[0] + columns.stop * bx),
            window.binning,
        )
        place = (slice(*part.rows), slice(*part.columns))
        if part.binning == (1, 1):
            return np.asarray(self._frames[(self._views[views], *place)], self.dtype)
        values = np.empty((len(views), *part.shape, *self.shape[3:]), self.dtype)
        raw = max(by * bx * int(np.prod(values.shape[1:])) * np.dtype(self._frames.dtype).itemsize, 1)
        step = max(1, self._BLOCK // raw)
        for start in range(0, len(views), step):
            block = np.asarray(self._frames[(self._views[views[start : start + step]], *place)])
            values[start : start + step] = _total(block, part.binning, 1)
        return values


class Entries:
    """Some entries of an array-like along its first axis, read when they are asked for.

    **Arguments:** `values` (lazy or not), `places` = indices of any shape: `(angle, distance)` makes an array
    `(angle, distance, y, x)` of frames `(view, y, x)`.
    """

    def __init__(self, values: Any, places: np.ndarray):
        self.values, self.places = values, np.asarray(places)
        self.shape, self.dtype = (*self.places.shape, *values.shape[1:]), np.dtype(values.dtype)
        self.ndim = len(self.shape)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, index: Any) -> np.ndarray:
        places = self.places[index]
        return np.asarray(self.values[places.ravel()]).reshape(*places.shape, *self.values.shape[1:])

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return np.asarray(self[:], dtype)


class Computed:
    """An array of known shape and dtype that is computed when it is first read, and kept."""

    def __init__(self, compute: Callable[[], Any], shape: tuple[int, ...], dtype: Any):
        self._compute, self.shape, self.dtype = compute, shape, np.dtype(dtype)

    @functools.cached_property
    def _values(self) -> np.ndarray:
        return np.asarray(self._compute(), self.dtype)

    def __getitem__(self, index: Any) -> np.ndarray:
        return self._values[index]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return np.asarray(self._values, dtype)


def pick_views(counts: Any, views: np.ndarray) -> Any:
    """Pick some views of frames in the given order; those that lie in a file stay there."""
    if isinstance(counts, Entries):
        return Entries(counts.values, counts.places[views])
    lazy = isinstance(counts, LazyFrames | np.memmap)
    return Excerpt(counts, np.arange(counts.shape[0])[views]) if lazy else np.asarray(counts)[views]


def index_ranges(numbers: np.ndarray) -> str:
    """Write increasing indices as `0:10,12:40`, as `data.views` takes them."""
    runs = np.split(np.asarray(numbers), np.flatnonzero(np.diff(numbers) != 1) + 1)
    return ",".join(f"{r[0]}:{r[-1] + 1}" if len(r) > 1 else f"{r[0]}" for r in runs)


def at_ceiling(values: np.ndarray) -> np.ndarray:
    """Tell which values are the largest number of their integer type: that many at least. Floats have no such."""
    whole = values.dtype.kind in "iu"
    return values == np.iinfo(values.dtype).max if whole else np.zeros(values.shape, bool)


def spread(count: int, most: int) -> np.ndarray:
    """Choose at most so many of `count` views, evenly from the first to the last."""
    return np.linspace(0, count - 1, min(most, count)).astype(int)


TILE_BYTES = 2**24


def frame_tiles(
    counts: Any, views: np.ndarray | None = None, needed: np.ndarray | None = None
) -> Iterator[tuple[slice, slice, np.ndarray]]:
    """Read frames (of some views) tile after tile of some 16 MB: which views, which rows, and their counts.

    A tile has all rows of some views, or some rows of all views where packed chunks hold many views. Of the latter only
    tiles with a row that is `needed` (row,) are read.
    """
    views = np.arange(counts.shape[0]) if views is None else np.asarray(views)
    bands, height = getattr(counts, "bands", 0), counts.shape[1]
    if not bands:
        start = 0
        for block in frame_blocks(counts, views):
            yield slice(start, start + len(block)), slice(0, height), block
            start += len(block)
        return
    row = views.size * np.prod(counts.shape[2:], dtype=float) * np.dtype(counts.dtype).itemsize
    size = max(1, int(TILE_BYTES // max(row * bands, 1))) * bands
    for top in range(0, height, size):
        rows = slice(top, min(top + size, height))
        if needed is not None and not needed[rows].any():
            continue
        yield slice(0, views.size), rows, np.asarray(counts[views, rows])


def frame_blocks(counts: Any, views: np.ndarray | None = None) -> Iterator[np.ndarray]:
    """Read frames (of some views) block after block, as many at a time as make some 16 MB."""
    views = np.arange(counts.shape[0]) if views is None else np.asarray(views)
    frame = np.prod(counts.shape[1:], dtype=float) * np.dtype(counts.dtype).itemsize
    size = max(1, int(TILE_BYTES // max(frame, 1)))
    for start in range(0, views.size, size):
        yield np.asarray(counts[views[start : start + size]])


@runtime_checkable
class Measurement(Protocol):
    """The fields of a `diffrecon.Scan` that preparation reads; what knows them need not know the scan."""

    @property
    def counts(self) -> Any: ...
    @property
    def positions(self) -> np.ndarray | None: ...
    @property
    def angles(self) -> np.ndarray | None: ...
    @property
    def flats(self) -> np.ndarray | None: ...
    @property
    def darks(self) -> np.ndarray | None: ...
    @property
    def mask(self) -> np.ndarray | None: ...
    @property
    def kind(self) -> str | None: ...
    @property
    def rotation_centre(self) -> float | None: ...
    @property
    def window(self) -> Window | None: ...
    @property
    def extra(self) -> Mapping[str, Any]: ...
    @property
    def views(self) -> int: ...
    @property
    def frame_shape(self) -> tuple[int, int]: ...
    @property
    def name(self) -> str: ...
    def require(self, field: str, what: str, example: str) -> Any: ...
    def replace(self, **fields: Any) -> Self: ...
    def subset(self, views: Sequence[int] | np.ndarray) -> Self: ...


AnyMeasurement = TypeVar("AnyMeasurement", bound=Measurement)

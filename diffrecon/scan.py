"""`Scan`: what every reader returns and every model starts from."""

import dataclasses
import hashlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from ._optional import require
from .errors import InputError, MissingMetadata
from .geometry import FarField, Geometry, geometry_of_views

__all__ = ["Frames", "Provenance", "Scan"]


class LazyFrames:
    """Detector frames `(view, y, x)`, or with a trailing segment axis, that stay in the file until they are asked for.

    Indexes as an array does, reading only the views, rows and columns that the index names; `numpy.asarray` reads all.
    A kind of frames fills in `shape`, `dtype` and `_read`.
    """

    shape: tuple[int, ...]
    dtype: np.dtype

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

    def __getitem__(self, index: Any) -> np.ndarray:
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
        """The frames in blocks of at most `size` views, one read each."""
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
    kept while another program goes on writing.

    **Arguments:** `path` of an HDF5 file, name of the `dataset`, `select` = indices of the frames that count (all by
    default), in the order of the views.
    """

    def __init__(self, path: str | Path, dataset: str, select: ArrayLike | None = None):
        self.path, self.dataset = Path(path), dataset
        with open_hdf5(self.path, dataset) as file:
            stored = file[dataset]
            self.dtype = stored.dtype
            self._select = np.arange(stored.shape[0]) if select is None else np.asarray(select)
            self.shape = (len(self._select), *stored.shape[1:])

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
                for place in _runs(order, stored.chunks[0] if stored.chunks else 1):
                    _read_run(stored, order[place], (rows, columns), values[place])
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


def _read_run(stored: Any, run: np.ndarray, part: tuple[slice, slice], values: np.ndarray) -> None:
    """Increasing views into `values`, in reads of neighbours; HDF5 takes 50 times as long for strides over chunks.

    Views that share chunks come out of one read, even if some between are not wanted, so that no chunk is unpacked
    twice.
    """
    first, last = int(run[0]), int(run[-1]) + 1
    if last - first == run.size:
        stored.read_direct(values, (slice(first, last), *part))
        return
    block = -(-64 // stored.chunks[0]) * stored.chunks[0]
    for start in range(first // block * block, last, block):
        wanted = (run >= start) & (run < start + block)
        low, high = max(start, first), min(start + block, last)
        values[wanted] = stored[(slice(low, high), *part)][run[wanted] - low]


class FourierOrdered(LazyFrames):
    """Frames `(view, y, x)` whose zero frequency is moved from the centre to index (0, 0) as they are read."""

    def __init__(self, frames: Any):
        self.frames, self.shape, self.dtype = frames, tuple(frames.shape), frames.dtype

    def _read(self, views: np.ndarray, rows: slice, columns: slice) -> np.ndarray:
        part = (rows.stop - rows.start, columns.stop - columns.start)
        values, start = np.empty((len(views), *part), self.dtype), 0
        for block in frame_blocks(self.frames, views):
            values[start : start + len(block)] = np.fft.ifftshift(block, (-2, -1))[:, rows, columns]
            start += len(block)
        return values


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
        """Rows and columns of the scan's frames."""
        return (self.rows[1] - self.rows[0]) // self.binning[0], (self.columns[1] - self.columns[0]) // self.binning[1]

    def column(self, whole: float) -> float:
        """Column of the scan [pixel] of a column of the whole frame, both counted from the first pixel's centre."""
        return (whole - self.columns[0] - (self.binning[1] - 1) / 2) / self.binning[1]

    def whole_column(self, column: float) -> float:
        """The inverse of `column`."""
        return column * self.binning[1] + self.columns[0] + (self.binning[1] - 1) / 2

    def total(self, frames: np.ndarray, axis: int = -2) -> np.ndarray:
        """Whole frames, rows at `axis` and columns after it, cut and summed over bins.

        Integers of fewer than 32 bits become 32 bits wide; Poisson counts stay Poisson counts.

        **Raises:** `InputError` when a sum does not fit into 32 bits.
        """
        return _total(self.cut(frames, axis), self.binning, axis % frames.ndim)

    def all(self, mask: np.ndarray) -> np.ndarray:
        """A mask `(y, x)`, cut: a bin is measured where all its pixels are."""
        rows, columns = self.shape
        binned = self.cut(mask, 0).reshape(rows, self.binning[0], columns, self.binning[1])
        return np.asarray(binned.all((1, 3)))

    def cut(self, frames: np.ndarray, axis: int = -2) -> np.ndarray:
        """Whole frames, rows at `axis`, without what lies outside or fills no whole bin."""
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
    """Of sums over bins: 32 bits at least; JAX has no 64-bit integers by default."""
    dtype = np.dtype(dtype)
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
        self.dtype = _summed_dtype(frames.dtype) if binned else np.dtype(frames.dtype)
        shape: Any = (len(self._views), *self._window.shape, *whole[3:])
        self.shape = shape

    def _read(self, views: np.ndarray, rows: slice, columns: slice) -> np.ndarray:
        window, (by, bx) = self._window, self._window.binning
        part = Window(
            (window.rows[0] + rows.start * by, window.rows[0] + rows.stop * by),
            (window.columns[0] + columns.start * bx, window.columns[0] + columns.stop * bx),
            window.binning,
        )
        place = (slice(*part.rows), slice(*part.columns))
        if part.binning == (1, 1):
            return np.asarray(self._frames[(self._views[views], *place)])
        values = np.empty((len(views), *part.shape, *self.shape[3:]), self.dtype)
        raw = max(by * bx * int(np.prod(values.shape[1:])) * np.dtype(self._frames.dtype).itemsize, 1)
        step = max(1, self._BLOCK // raw)
        for start in range(0, len(views), step):
            block = np.asarray(self._frames[(self._views[views[start : start + step]], *place)])
            values[start : start + step] = _total(block, part.binning, 1)
        return values


def pick_views(counts: Any, views: np.ndarray) -> Any:
    """Some views of frames in the given order; those that lie in a file stay there."""
    lazy = isinstance(counts, LazyFrames | np.memmap)
    return Excerpt(counts, np.arange(counts.shape[0])[views]) if lazy else np.asarray(counts)[views]


def frame_blocks(counts: Any, views: np.ndarray | None = None) -> Iterator[np.ndarray]:
    """Frames (of some views) block after block, as many at a time as make some 16 MB."""
    views = np.arange(counts.shape[0]) if views is None else np.asarray(views)
    frame = np.prod(counts.shape[1:], dtype=float) * np.dtype(counts.dtype).itemsize
    size = max(1, int(2**24 // max(frame, 1)))
    for start in range(0, views.size, size):
        yield np.asarray(counts[views[start : start + size]])


def open_hdf5(path: str | Path, name: str | None = None, **options: Any) -> Any:
    """An HDF5 file for reading, never locked, also while another program writes it (SWMR).

    **Arguments:** `name` of the dataset that is wanted: one behind an external link, in a file that is being written,
    is found too; `options` of `h5py.File`.

    **Raises:** `OSError` as HDF5 does.
    """
    import h5py

    try:
        file = h5py.File(path, "r", locking=False, **options)
    except OSError as error:
        if "locking" in str(error):  # this process has the file open with other settings already
            return h5py.File(path, "r", **options)
        if "already open for" not in str(error):
            raise
        return live_hdf5(path, **options)
    if name is None or file.get(name) is not None:
        return file
    file.close()
    return live_hdf5(path, **options)


def live_hdf5(path: str | Path, **options: Any) -> Any:
    """An HDF5 file, and those its links lead to, as readers see them while another program writes."""
    import h5py

    return h5py.File(path, "r", libver="latest", swmr=True, locking=False, **options)


def need_filters(dataset: Any) -> None:
    """Bring in hdf5plugin when a dataset of h5py is packed by a filter that plain HDF5 does not know.

    **Raises:** `MissingPackage` when it is needed and not installed.
    """
    import h5py

    created = dataset.id.get_create_plist()
    codes = [created.get_filter(i)[0] for i in range(created.get_nfilters())]
    if not all(h5py.h5z.filter_avail(code) for code in codes):
        require("hdf5plugin", "filters")


@dataclasses.dataclass(frozen=True)
class Provenance:
    """Where a scan came from; written into every result.

    **Fields:** `path` (empty for arrays), `reader`, `messages` = what the reader decided and the user should know.
    """

    path: str = ""
    reader: str = "arrays"
    messages: tuple[str, ...] = ()

    def checksum(self) -> str:
        """SHA-256 of the input file (reads it once, about 1 s a GB), empty for arrays."""
        if not self.path or not Path(self.path).is_file():
            return ""
        with open(self.path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()


@dataclasses.dataclass(frozen=True, eq=False)
class Scan:
    """One measurement: counts, what each view was, and the geometry.

    Readers fill what the file holds and leave the rest `None`. Counts are lazy and keep the detector's integer type.
    Everything is in the conventions of diffrecon whatever the file's were: SI units, radians, (row, column), mask
    `True` = measured.

    **Fields:**

    - `counts`: `(view, y, x)`, or `(view, y, x, segment)` for tensor SAXS; integer or float, lazy or array.
    - `method`: what the file is (`"near-field-ptychography"`, `"tomography"`, ...), a guess of the reader.
    - `geometry`: `ParallelBeam`, `ConeBeam` or `FarField`; `None` when the file does not say enough.
    - `positions`: `(view, 2)`, displacement of the illuminated patch over the object (row, column): in [m], or in
      [pixel] where `positions_unit` says so.
    - `angles`: `(view,)` [rad], rotation of the sample about z.
    - `flats`, `darks`: `(frame, y, x)`.
    - `mask`: `(y, x)`, `True` where the pixel measured.
    - `probe`: complex first guess `(mode, y, x)`, of any scale.
    - `weights`, `transmission`: per-datum weights and per-pixel transmission of tensor SAXS.
    - `tensor_geometry`: `diffrecon.operators.TensorGeometry` of tensor SAXS.
    - `flux`: mean counts a pixel of the empty beam, where known.
    - `saturation`: counts from which on a pixel only says "at least so many", where known.
    - `rotation_centre`: column of the rotation axis in these frames [pixel], where known.
    - `window`: which part of the whole frames these are, and how they were binned; `None` = all of them.
    - `extra`: further values by name. One entry a view: `shifts` (row, column) [pixel], `sample_translation` (x, y, z)
      [m], `monitor`. Of tomography: `flat_views`, `dark_views` = number of views taken before each flat and dark (0 =
      before the first view, `views` = after the last), `field_of_view` (`"full"`, or `"half"` where the axis stands at
      the detector's edge). Of holography `materials`; of far-field frames `dc`.
    - `provenance`: file, reader, messages.
    """

    counts: Any
    method: str | None = None
    geometry: Geometry | None = None
    positions: np.ndarray | None = None
    positions_unit: str = "m"
    angles: np.ndarray | None = None
    flats: np.ndarray | None = None
    darks: np.ndarray | None = None
    mask: np.ndarray | None = None
    probe: np.ndarray | None = None
    weights: np.ndarray | None = None
    transmission: np.ndarray | None = None
    tensor_geometry: Any = None
    flux: float | None = None
    saturation: float | None = None
    rotation_centre: float | None = None
    window: Window | None = None
    extra: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    provenance: Provenance = Provenance()

    # ------------------------------------------------------------------ making
    @classmethod
    def from_arrays(
        cls,
        counts: ArrayLike,
        *,
        positions: ArrayLike | None = None,
        angles: ArrayLike | None = None,
        mask: ArrayLike | None = None,
        geometry: Geometry | None = None,
        **fields: Any,
    ) -> "Scan":
        """A scan from arrays that are already in the conventions of diffrecon (see the class).

        **Arguments:** `positions` in [m], or in [pixel] with `positions_unit="pixel"`; `angles` in [rad].

        **Raises:** `InputError` when shapes do not fit, counts are negative or not finite, angles look like degrees.

        ```python
        scan = Scan.from_arrays(np.ones((4, 8, 8), np.uint16), angles=np.linspace(0, 3, 4))
        ```
        """
        scan = cls(
            counts=counts if isinstance(counts, LazyFrames) else np.asarray(counts),
            positions=None if positions is None else np.asarray(positions, float),
            angles=None if angles is None else np.asarray(angles, float),
            mask=None if mask is None else np.asarray(mask, bool),
            geometry=geometry,
            **fields,
        )
        scan.check()
        return scan

    def replace(self, **fields: Any) -> "Scan":
        """A copy with some fields changed."""
        return dataclasses.replace(self, **fields)

    # ------------------------------------------------------------------ reading
    @property
    def views(self) -> int:
        """Number of views."""
        return int(self.counts.shape[0])

    @property
    def frame_shape(self) -> tuple[int, int]:
        """Detector rows and columns."""
        return int(self.counts.shape[1]), int(self.counts.shape[2])

    @property
    def name(self) -> str:
        """File name for messages."""
        return Path(self.provenance.path).name or "arrays"

    @property
    def pixel_size(self) -> Any:
        """Pixel in the sample [m], `None` where the geometry does not give it."""
        return None if self.geometry is None else self.geometry.pixel_size

    def subset(self, views: Sequence[int] | np.ndarray) -> "Scan":
        """The scan of some of its views, in the given order, with their distances and energies."""
        views = np.arange(self.views)[np.asarray(views)]
        per_view = ("positions", "angles", "weights", "transmission")
        picked = {k: getattr(self, k)[views] for k in per_view if getattr(self, k) is not None}
        if self.tensor_geometry is not None:
            picked["tensor_geometry"] = self.tensor_geometry.subset(views)
        if self.geometry is not None:
            picked["geometry"] = geometry_of_views(self.geometry, views, self.views)
        extra = extra_of_views(self.extra, views, self.views)
        return self.replace(counts=pick_views(self.counts, views), extra=extra, **picked)

    def absorption(self, **settings: Any) -> np.ndarray:
        """Line integrals `-ln((I - dark) / (flat - dark))`, `(view, y, x)`, by `diffrecon.prepare.line_integrals`."""
        from . import prepare

        return prepare.line_integrals(self, **settings).values

    @property
    def far_field(self) -> bool:
        """Whether the frames are far-field diffraction."""
        return isinstance(self.geometry, FarField) or self.method == "far-field-ptychography"

    def in_fft_order(self) -> "Scan":
        """The scan with the zero frequency of far-field frames at index (0, 0), where models have it; frames stay lazy.

        Near-field scans, and frames that have it there already (`extra["dc"]`), are returned as they are.
        """
        if not self.far_field or self.extra.get("dc", "corner") != "centre":
            return self
        mask = None if self.mask is None else np.fft.ifftshift(self.mask)
        return self.replace(counts=FourierOrdered(self.counts), mask=mask, extra={**self.extra, "dc": "corner"})

    def batch_fields(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """What a cost functional sees of this scan, as fields of its batch: one entry a view, and shared by all views.

        Always `counts` (in the detector's type, lazy, far-field frames in FFT order), `mask` where the scan has one;
        `values` = line integrals where it has flats; `weights` and `transmission` of tensor SAXS.
        """
        scan = self.in_fft_order()
        values = None if scan.flats is None else scan.absorption()
        per_view = {"counts": scan.counts, "values": values, "weights": scan.weights, "transmission": scan.transmission}
        segments = (None,) * (len(scan.counts.shape) - 3)
        shared = {} if scan.mask is None else {"mask": scan.mask[(..., *segments)]}
        return {name: field for name, field in per_view.items() if field is not None}, shared

    def find_rotation_centre(self) -> float:
        """Detector column of the rotation axis [pixel]: as given, or found by
        `diffrecon.prepare.find_rotation_centre`.
        """
        if self.rotation_centre is not None:
            return float(self.rotation_centre)
        from . import prepare

        angles = self.require("angles", "the rotation angle of each view", "/path/of/angles")
        return prepare.find_rotation_centre(self.absorption(), angles).centre

    def require(self, field: str, what: str, example: str) -> Any:
        """A field of the scan, or one clear line that names it, `open_scan`'s key and a value.

        **Raises:** `MissingMetadata`.
        """
        value = getattr(self, field)
        if value is None:
            raise MissingMetadata(f"data.{field}", what, self.name, example)
        return value

    # ------------------------------------------------------------------ checking
    def check(self) -> "Scan":
        """Check shapes and numbers; costs one pass over the frames.

        **Raises:** `InputError` naming the file, the field and the first bad entry.
        """
        return self.check_shapes().check_counts()

    def check_counts(self) -> "Scan":
        """Refuse negative or non-finite counts, and frames without a photon; the ends of a rocking curve (`cdi`) may
        have none.
        """
        check_counts(self.counts, self.mask, self.name, empty=self.method == "cdi")
        return self

    def check_shapes(self) -> "Scan":
        """Check what can be checked without reading the frames."""
        if len(self.counts.shape) not in (3, 4):
            raise InputError(f"{self.name}: counts have shape {tuple(self.counts.shape)}; expected (view, y, x)")
        if 0 in self.counts.shape:
            raise InputError(f"{self.name}: counts have shape {tuple(self.counts.shape)}: there is nothing in them")
        for field, trailing in (("positions", (2,)), ("angles", ())):
            value = getattr(self, field)
            if value is not None and value.shape != (self.views, *trailing):
                raise InputError(
                    f"{self.name}: {field} have shape {value.shape}; expected {(self.views, *trailing)}, "
                    f"one for each of the {self.views} views"
                )
            if value is not None and not np.isfinite(value).all():
                bad = int(np.flatnonzero(~np.isfinite(value).reshape(self.views, -1).all(1))[0])
                raise InputError(f"{self.name}: {field} of view {bad} are not finite")
        if self.mask is not None and self.mask.shape != self.frame_shape:
            raise InputError(f"{self.name}: the mask has shape {self.mask.shape}, the frames {self.frame_shape}")
        if self.mask is not None and not self.mask.any():
            raise InputError(f"{self.name}: the mask leaves no pixel (diffrecon's masks are True where measured)")
        if self.angles is not None and np.ptp(self.angles) > 13 * np.pi:
            raise InputError(
                f"{self.name}: angles span {np.ptp(self.angles):.4g} rad, more than six turns: they "
                "look like degrees; say so with --set data.angle_unit=deg"
            )
        return self


def extra_of_views(extra: Mapping[str, Any], views: np.ndarray, total: int) -> dict[str, Any]:
    """What `Scan.extra` says of some of `total` views: one entry a view picked, times of flats counted in these views.

    Times are left out where the views are not in increasing order.
    """
    views = np.arange(total)[views]
    picked = dict(extra)
    for name in ("shifts", "sample_translation", "monitor"):
        if name in picked and len(picked[name]) == total:
            picked[name] = np.asarray(picked[name])[views]
    for name in ("flat_views", "dark_views"):
        if name in picked and (np.diff(views) <= 0).any():
            del picked[name]
        elif name in picked:
            picked[name] = _places_among(np.asarray(picked[name], float), views)
    return picked


def _places_among(times: np.ndarray, views: np.ndarray) -> np.ndarray:
    """Times on the scale of all views on that of some of them, linear between and beyond them."""
    step = (views[-1] - views[0]) / (len(views) - 1) if len(views) > 1 else 1.0
    beyond = np.minimum(times - views[0], 0) + np.maximum(times - views[-1], 0)
    return np.interp(times, views, np.arange(len(views))) + beyond / step


def check_counts(counts: Any, mask: np.ndarray | None, name: str, *, empty: bool = False) -> None:
    """Refuse negative or non-finite counts and frames without a single photon (unless some may be `empty`), naming the
    first bad view.

    Reads the frames in blocks of some 16 MB. Pixels that the mask leaves out may hold anything.

    **Raises:** `InputError`.
    """
    start = 0
    for part in frame_blocks(counts):
        if part.dtype.kind not in "iufb":
            raise InputError(f"{name}: counts are of type {part.dtype}; expected integers or floats")
        if mask is not None:
            part = np.where(mask.reshape(mask.shape + (1,) * (part.ndim - 3)), part, np.zeros((), part.dtype))
        flat = part.reshape(part.shape[0], -1)
        if part.dtype.kind == "f" and not np.isfinite(flat).all():
            where = np.argwhere(~np.isfinite(part))[0]
            raise InputError(
                f"{name}: counts of view {start + where[0]}, pixel {tuple(map(int, where[1:]))} are "
                f"{part[tuple(where)]}; mask such pixels (data.mask) or mend the file"
            )
        if part.dtype.kind in "if" and flat.min(initial=0) < 0:
            where = np.argwhere(part < 0)[0]
            pixel = tuple(map(int, where[1:]))
            raise InputError(
                f"{name}: counts of view {start + where[0]}, pixel {pixel} are negative "
                f"({part[tuple(where)]}); mask such pixels (data.mask) or undo the subtraction"
            )
        dark = np.flatnonzero(flat.max(1) == 0)
        if dark.size and not empty:
            raise InputError(
                f"{name}: view {start + int(dark[0])} has no counts at all; leave such views out "
                "(data.views) or check the shutter"
            )
        start += part.shape[0]

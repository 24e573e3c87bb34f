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
from .geometry import FarField, Geometry

__all__ = ["Frames", "Provenance", "Scan"]


class Frames:
    """Detector frames that stay in the file until they are asked for, in the detector's own integer type.

    Behaves like an array of shape `(view, y, x)` (or with a trailing segment axis) for indexing along the views and for
    `numpy.asarray`. The file is opened for each read and closed after it, so that a Frames can be pickled, shared
    between processes and kept while another program goes on.

    **Arguments:** `path` of an HDF5 file, name of the `dataset`, `select` = indices of the frames that count (all by
    default), in the order of the views; `rows` = detector rows `(first, last + 1)` to keep (all by default).
    """

    def __init__(self, path: str | Path, dataset: str, select: ArrayLike | None = None,
                 rows: tuple[int, int] | None = None):
        import h5py

        self.path, self.dataset, self._rows = Path(path), dataset, rows
        with h5py.File(self.path, "r") as file:
            stored = file[dataset]
            assert isinstance(stored, h5py.Dataset)
            self.dtype = stored.dtype
            count = stored.shape[0]
            self._select = np.arange(count) if select is None else np.asarray(select)
            height = stored.shape[1:2] if rows is None else (rows[1] - rows[0],)
            self.shape: tuple[int, ...] = (len(self._select), *height, *stored.shape[2:])

    @property
    def ndim(self) -> int:
        return len(self.shape)

    def __len__(self) -> int:
        return self.shape[0]

    def __repr__(self) -> str:
        return f"Frames({self.path.name}:{self.dataset}, shape={self.shape}, dtype={self.dtype})"

    def __getitem__(self, index: Any) -> np.ndarray:
        views, rest = (index[0], index[1:]) if isinstance(index, tuple) else (index, ())
        wanted = self._select[views]
        if self._rows is None:
            return self._read(np.atleast_1d(wanted), rest)[() if np.ndim(wanted) else 0]
        part = self._read(np.atleast_1d(wanted), (slice(*self._rows),))
        return part[(slice(None), *rest)][() if np.ndim(wanted) else 0]

    def _read(self, wanted: np.ndarray, rest: tuple) -> np.ndarray:
        import h5py

        # HDF5 reads increasing indices only, and runs faster than lists.
        order, back = np.unique(wanted, return_inverse=True)
        with h5py.File(self.path, "r") as file:
            stored = file[self.dataset]
            assert isinstance(stored, h5py.Dataset)
            need_filters(stored)
            run = order.size and order[-1] - order[0] + 1 == order.size
            try:
                values = stored[(slice(order[0], order[-1] + 1) if run else order, *rest)]
            except (OSError, RuntimeError) as error:
                raise InputError(f"{self.path.name}: {self.dataset} cannot be read, the file is damaged or incomplete "
                                 f"({str(error).splitlines()[0]})") from error
        return np.asarray(values)[back]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        values = self[:]
        return values if dtype is None else values.astype(dtype)

    def blocks(self, size: int) -> Iterator[np.ndarray]:
        """The frames in blocks of at most `size` views, one read each."""
        for start in range(0, len(self), size):
            yield self[start:start + size]


class FourierOrdered:
    """Frames `(view, y, x)` whose zero frequency is moved from the centre to index (0, 0) as they are read.

    Indexes along the views, like `Frames`, and stays lazy.
    """

    def __init__(self, frames: Any):
        self.frames, self.shape, self.dtype, self.ndim = frames, tuple(frames.shape), frames.dtype, len(frames.shape)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, views: Any) -> np.ndarray:
        if isinstance(views, tuple):
            return self[views[0]][(slice(None),) * np.ndim(np.arange(len(self))[views[0]]) + views[1:]]
        return np.fft.ifftshift(np.asarray(self.frames[views]), (-2, -1))

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        values = self[:]
        return values if dtype is None else values.astype(dtype)

    def blocks(self, size: int) -> Iterator[np.ndarray]:
        """The frames in blocks of at most `size` views."""
        for start in range(0, len(self), size):
            yield self[start:start + size]


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
    - `rotation_centre`: detector column of the rotation axis [pixel], where known.
    - `extra`: further arrays by name (`materials`, `shifts`).
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
    rotation_centre: float | None = None
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
            counts=counts if isinstance(counts, Frames) else np.asarray(counts),
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
        """The scan of some of its views, in the given order."""
        views = np.asarray(views)
        per_view = ("positions", "angles", "weights", "transmission")
        picked = {k: getattr(self, k)[views] for k in per_view if getattr(self, k) is not None}
        if self.tensor_geometry is not None:
            picked["tensor_geometry"] = self.tensor_geometry.subset(views)
        return self.replace(counts=self.counts[views], **picked)

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
        self.check_shapes()
        check_counts(self.counts, self.mask, self.name)
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
                raise InputError(f"{self.name}: {field} have shape {value.shape}; expected {(self.views, *trailing)}, "
                                 f"one for each of the {self.views} views")
            if value is not None and not np.isfinite(value).all():
                bad = int(np.flatnonzero(~np.isfinite(value).reshape(self.views, -1).all(1))[0])
                raise InputError(f"{self.name}: {field} of view {bad} are not finite")
        if self.mask is not None and self.mask.shape != self.frame_shape:
            raise InputError(f"{self.name}: the mask has shape {self.mask.shape}, the frames {self.frame_shape}")
        if self.mask is not None and not self.mask.any():
            raise InputError(f"{self.name}: the mask leaves no pixel (diffrecon's masks are True where measured)")
        if self.angles is not None and np.ptp(self.angles) > 13 * np.pi:
            raise InputError(f"{self.name}: angles span {np.ptp(self.angles):.4g} rad, more than six turns: they "
                             'look like degrees; say so with --set data.angle_unit=deg')
        return self


def check_counts(counts: Any, mask: np.ndarray | None, name: str, block: int = 64) -> None:
    """Refuse negative or non-finite counts and frames without a single photon, naming the first bad view.

    Reads the frames in blocks of `block` views. Pixels that the mask leaves out may hold anything.

    **Raises:** `InputError`.
    """
    for start in range(0, counts.shape[0], block):
        part = np.asarray(counts[start:start + block])
        if part.dtype.kind not in "iufb":
            raise InputError(f"{name}: counts are of type {part.dtype}; expected integers or floats")
        if mask is not None:
            part = np.where(mask.reshape(mask.shape + (1,) * (part.ndim - 3)), part, np.zeros((), part.dtype))
        flat = part.reshape(part.shape[0], -1)
        if part.dtype.kind == "f" and not np.isfinite(flat).all():
            where = np.argwhere(~np.isfinite(part))[0]
            raise InputError(f"{name}: counts of view {start + where[0]}, pixel {tuple(map(int, where[1:]))} are "
                             f"{part[tuple(where)]}; mask such pixels (data.mask) or mend the file")
        if part.dtype.kind in "if" and flat.min(initial=0) < 0:
            where = np.argwhere(part < 0)[0]
            pixel = tuple(map(int, where[1:]))
            raise InputError(f"{name}: counts of view {start + where[0]}, pixel {pixel} are negative "
                             f"({part[tuple(where)]}); mask such pixels (data.mask) or undo the subtraction")
        empty = np.flatnonzero(flat.max(1) == 0)
        if empty.size:
            raise InputError(f"{name}: view {start + int(empty[0])} has no counts at all; leave such views out "
                             "(data.views) or check the shutter")

"""Volumes written slab by slab: NeXus HDF5, TIFF or OME-Zarr, by the suffix of the path.

Everything is written under a temporary name beside the final one, `.<name>.part`, together with a record of the slices
that are done, and renamed when it is whole; so a killed run leaves no half volume, and another one can go on with it.
"""

import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, DTypeLike

from ... import __version__
from ..._identity import difference, of_scan, of_settings
from ..._optional import require
from ..._result import Quantity, Result
from ...errors import InputError
from ...scan import Scan
from .._disk import check_file, check_place, edit_hdf5, in_plain_words, settle
from .._lock import OutputLock
from .ome import OmeZarr
from .record import (
    describe_data,
    describe_entry,
    new_entry,
    provenance,
    quantity_group,
    write_quantity,
    write_report,
)

__all__ = ["VolumeWriter", "check_output", "open_volume", "write_volume"]

VOLUME_SUFFIXES = (".tif", ".tiff", ".zarr")  # of results that are written as their volume alone
_HDF5 = (".h5", ".hdf5", ".nxs")
_TIFF = (".tif", ".tiff")


def open_volume(
    path: str | Path,
    shape: tuple[int, int, int],
    dtype: DTypeLike = np.float32,
    pixel_size: float | None = None,
    units: str = "",
    *,
    name: str = "volume",
    long_name: str = "",
    method: str = "tomography",
    scan: Scan | None = None,
    settings: Mapping[str, Any] | None = None,
    first: int = 0,
    value_range: tuple[float, float] | None = None,
    resume: bool = False,
) -> "VolumeWriter":
    """Open a volume `(z, y, x)` to write slab by slab, in any order.

    | path | what it becomes |
    |---|---|
    | `.h5`, `.nxs`, `.hdf5` | NeXus HDF5 as `write` makes it, opened by `read_result`, silx and h5web; contiguous |
    | `.tif` | one BigTIFF of all slices |
    | `name_####.tif` | one TIFF a slice, numbered with as many digits; the folder is made if it is missing |
    | `.zarr` | OME-Zarr 0.5 (Zarr 3) with a pyramid of 2 x 2 x 2 means, opened by napari, neuroglancer, Fiji |

    **Arguments:**

    - `dtype`: floats are stored as they are; for TIFF also `uint8` or `uint16`, with `value_range` = the values
      that become 0 and the largest integer. What lies outside is clipped and counted.
    - `pixel_size` [m] of a cubic voxel (`None` = not known); `units` of the values.
    - `name` and `long_name` of the quantity; `method` and `scan` for the provenance.
    - `settings` of the reconstruction, by section: what an interrupted run has left is gone on with only if it was made
      of the same scan by the same settings.
    - `first`: number of the first slice, as `write` and `done` count them.
    - `resume`: go on with what an interrupted run has left under the temporary name.

    **Raises:** `InputError` when the path, the type or the shape cannot be, the disk is too small, or what an
    interrupted run left is of another volume.

    ```python
    writer = open_volume("tooth.h5", (4, 64, 64), pixel_size=1e-6, units="1/m")
    for slice_number in (0, 2):
        writer.write(slice_number, np.ones((2, 64, 64)))
    writer.close()
    ```
    """
    path, dtype = Path(path), np.dtype(dtype)
    _check(path, shape, dtype, value_range)
    z, y, x = (int(n) for n in shape)
    quantity = Quantity(np.empty(0), units, ("z", "y", "x"), pixel_size, long_name or name.replace("_", " "), "volume")
    store = _store_of(path)(path, (z, y, x), dtype, name, quantity, value_range)
    store.signature |= {"first": str(first), "method": method, **_made_of(scan, settings)}
    return VolumeWriter(store, Result(method, {}, settings=settings or {}), scan, first, resume)


def _made_of(scan: Scan | None, settings: Mapping[str, Any] | None) -> dict[str, str]:
    """Note what tells two runs apart that write volumes of one shape."""
    return {"version": __version__} | of_scan(scan) | of_settings(settings or {}, leave=("quality", "solver.slab"))


def check_output(path: str | Path) -> Path:
    """Find out before a long solve whether `path` can be written: a file, or a volume by its suffix.

    **Raises:** `InputError` when its folder is missing, nothing can be written there, or what is there already is not
    to be replaced.
    """
    path = Path(path)
    store = _store_of(path) if path.suffix.lower() in VOLUME_SUFFIXES else _Store
    store.check(path)
    return path


def write_volume(path: Path, result: Result, scan: Scan | None = None) -> Path:
    """Write the first volume of a result in the format of the path's suffix.

    **Raises:** `InputError` as `open_volume`, or when the result holds no real volume.
    """
    found = [(n, q) for n, q in result.quantities.items() if q.kind == "volume" and np.ndim(q.data) == 3]
    if not found:
        raise InputError(f"{path}: the result holds no volume ({', '.join(result.quantities)}); write it as .h5")
    name, quantity = found[0]
    data = np.asarray(quantity.data)
    pixel = None if quantity.pixel_size is None else float(np.mean(quantity.pixel_size))
    writer = open_volume(
        path,
        data.shape,
        data.dtype,
        pixel,
        quantity.units,
        name=name,
        long_name=quantity.long_name,
        method=result.method,
        scan=scan,
    )
    try:
        writer.write(0, data)
        writer.close(result)
    except BaseException:
        writer.abort(keep=False)
        raise
    return path


def _check(path: Path, shape: tuple[int, ...], dtype: np.dtype, value_range: tuple[float, float] | None) -> None:
    if len(shape) != 3 or min(shape) < 1:
        raise InputError(f"{path}: a volume has three axes (z, y, x) of one voxel or more; got shape {shape}")
    integer = dtype.kind == "u" and dtype.itemsize <= 2
    if dtype.kind != "f" and not integer:
        raise InputError(f"{path}: volumes are stored as floats, or in TIFF as uint8 or uint16; got {dtype}")
    if integer and (value_range is None or path.suffix.lower() not in _TIFF):
        raise InputError(
            f"{path}: {dtype} needs a TIFF and value_range = (value stored as 0, value stored as {np.iinfo(dtype).max})"
        )
    if value_range is not None and not (integer and np.isfinite(value_range).all() and value_range[0] < value_range[1]):
        raise InputError(f"{path}: value_range {value_range} is for uint8 and uint16, a smaller and a larger number")


def _store_of(path: Path) -> Any:
    suffix = path.suffix.lower()
    if suffix in _TIFF:
        return _TiffSlices if "#" in path.name else _TiffFile
    if suffix not in (*_HDF5, ".zarr"):
        known = ", ".join((*_HDF5, *_TIFF, ".zarr"))
        raise InputError(f"{path}: a volume is written as {known}; {suffix or 'no suffix'} is none of them")
    return _Nexus if suffix in _HDF5 else _Zarr


class VolumeWriter:
    """Slabs in, one whole volume out; made by `open_volume`. One process writes a volume."""

    def __init__(self, store: "_Store", result: Result, scan: Scan | None, first: int, resume: bool):
        self.path, self.shape = store.path, store.shape
        self._store, self._result, self._scan, self._first = store, result, scan, first
        self._record = store.part.with_name(store.part.name + ".done")
        self._done: set[int] = set()
        self._lock = OutputLock(self.path)
        try:
            with in_plain_words(self.path):
                if resume and self._record.exists() and store.part.exists():
                    self._take_up()
                else:
                    self._start()
        except BaseException:
            self._lock.release()
            raise

    def _start(self) -> None:
        self._store.discard()
        folder = self.path.parent
        free = shutil.disk_usage(folder if folder.exists() else folder.parent).free
        if self._store.bytes > free:
            raise InputError(
                f"{self.path}: the volume needs {self._store.bytes / 1e9:.3g} GB, the disk has {free / 1e9:.3g} GB free"
            )
        self._store.create()
        self._record.write_text(json.dumps(self._store.signature) + "\n")

    def _take_up(self) -> None:
        head, *lines = self._record.read_text().splitlines()
        try:
            kept = dict(json.loads(head))
            done = [tuple(map(int, line.split())) for line in lines]
        except (ValueError, TypeError):
            kept, done = {"record of slices": "damaged"}, []
        if differs := difference(kept, self._store.signature):
            raise InputError(
                f"{self.path}: what is left of an interrupted run ({self._store.part.name}) is of another volume, "
                f"which differs in {differs}; resume with the same input and settings, or run without resume"
            )
        self._done = {z for first, count in done for z in range(first, first + count)}
        self._store.reopen()

    def done(self) -> set[int]:
        """List slices that are written, also by the interrupted run that this one goes on with."""
        return {z + self._first for z in self._done}

    def write(self, first_slice: int, slab: ArrayLike) -> None:
        """Write slices `first_slice`, `first_slice + 1`, ... `(z, y, x)`; they count as done when it returns.

        **Raises:** `InputError` when the slab does not fit into the volume, or the disk is full.
        """
        slab, start = np.asarray(slab), int(first_slice) - self._first
        if slab.ndim != 3 or slab.shape[1:] != self.shape[1:] or start < 0 or start + len(slab) > self.shape[0]:
            raise InputError(
                f"{self.path}: a slab {slab.shape} from slice {first_slice} does not fit into a volume "
                f"{self.shape} that begins at slice {self._first}"
            )
        if slab.dtype.kind not in "fiu":
            raise InputError(f"{self.path}: a volume of {slab.dtype} cannot be stored; take its real part or modulus")
        with in_plain_words(self.path):
            self._store.put(start, slab)
            with open(self._record, "a") as record:
                record.write(f"{start} {len(slab)}\n")
        self._done |= set(range(start, start + len(slab)))

    def close(self, result: Result | None = None) -> Path:
        """Add what `result` says besides the volume, and give the whole its final name.

        **Arguments:** `result`: figures, verdict, settings, and in NeXus its other quantities.

        **Raises:** `InputError` when slices are missing, or the disk fails.
        """
        missing = sorted(set(range(self.shape[0])) - self._done)
        if missing:
            raise InputError(
                f"{self.path}: {len(missing)} of {self.shape[0]} slices have not been written, the first "
                f"is {missing[0] + self._first}"
            )
        with in_plain_words(self.path):
            self._store.finish(self._result if result is None else result, self._scan)
            self._record.unlink(missing_ok=True)
        self._lock.release()
        return self.path

    def abort(self, keep: bool = True) -> None:
        """Stop; nothing appears under the final name. Finished slices stay for `resume`, unless `keep` is false."""
        self._store.stop()
        if not keep or not self._done:
            self._store.discard()
            self._record.unlink(missing_ok=True)
        self._lock.release()


# ---------------------------------------------------------------------- formats
class _Store:
    """One format: `create` an empty volume under the temporary name, `put` slabs, `finish`."""

    def __init__(
        self,
        path: Path,
        shape: tuple[int, int, int],
        dtype: np.dtype,
        name: str,
        quantity: Quantity,
        value_range: tuple[float, float] | None,
    ):
        self.path, self.shape, self.dtype, self.name, self.quantity = path, shape, dtype, name, quantity
        self.range, self.clipped = value_range, 0
        self.part = path.with_name(f".{path.name}.part")
        self.bytes = int(np.prod(shape)) * dtype.itemsize
        self.signature = {
            "shape": str(tuple(shape)),
            "dtype": dtype.str,
            "name": name,
            "pixel_size": str(quantity.pixel_size),
            "units": quantity.units,
            "range": str(value_range),
        }
        self.check(path)

    @staticmethod
    def check(path: Path) -> None:
        """Refuse a path that cannot be written."""
        check_file(path)

    def create(self) -> None:
        """Make an empty volume, ready for `put`."""
        raise NotImplementedError

    def reopen(self) -> None:
        """Open what `create` made in an earlier run, ready for `put`."""
        raise NotImplementedError

    def put(self, start: int, slab: np.ndarray) -> None:
        """Write slices `start`, `start + 1`, ..."""
        raise NotImplementedError

    def finish(self, result: Result, scan: Scan | None) -> None:
        """Add figures and provenance, and rename."""
        raise NotImplementedError

    def stop(self) -> None:
        """Let go of open files."""

    def discard(self) -> None:
        """Remove what lies under the temporary name."""
        if self.part.is_dir():
            shutil.rmtree(self.part)
        else:
            self.part.unlink(missing_ok=True)

    def stored(self, slab: np.ndarray) -> np.ndarray:
        """Give values as they lie in the file."""
        if self.range is None:
            return np.ascontiguousarray(slab, self.dtype)
        low, high = self.range
        scaled = (np.asarray(slab, np.float64) - low) * (np.iinfo(self.dtype).max / (high - low))
        top = np.iinfo(self.dtype).max
        self.clipped += int(np.count_nonzero(~((scaled > -0.5) & (scaled < top + 0.5))))
        return np.clip(np.rint(np.nan_to_num(scaled)), 0, top).astype(self.dtype)

    def report(self, result: Result, scan: Scan | None) -> dict[str, Any]:
        """Collect figures, verdict and provenance for formats that have no place for groups."""
        said = {
            "quantity": self.name,
            "long_name": self.quantity.long_name,
            "units": self.quantity.units,
            "pixel_size_m": self.quantity.pixel_size,
            "shape": list(self.shape),
            "verdict": list(result.verdict),
            "quality": _plain(result.quality),
            "process": _plain(provenance(result, scan)),
        }
        if self.range is not None:
            said |= {
                "value_of_0": self.range[0],
                f"value_of_{np.iinfo(self.dtype).max}": self.range[1],
                "clipped_voxels": self.clipped,
            }
        return said


class _Raw(_Store):
    """Numbers as they are at one place of a file: no library between slab and disk, so that its errors are plain."""

    _file: Any = None
    _offset = 0

    def reopen(self) -> None:
        self._offset = self.offset()
        self._file = open(self.part, "r+b", buffering=0)

    def offset(self) -> int:
        """Find where the numbers begin in the file."""
        raise NotImplementedError

    def put(self, start: int, slab: np.ndarray) -> None:
        data = self.stored(slab).data.cast("B")
        self._file.seek(self._offset + start * self.shape[1] * self.shape[2] * self.dtype.itemsize)
        while data:
            data = data[self._file.write(data) :]

    def stop(self) -> None:
        if self._file is not None:
            self._file.close()


class _Nexus(_Raw):
    def create(self) -> None:
        import h5py

        with h5py.File(self.part, "w") as file:
            group = quantity_group(new_entry(file), self.name, self.quantity, self.shape)
            created = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
            created.set_layout(h5py.h5d.CONTIGUOUS)
            created.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
            created.set_fill_time(h5py.h5d.FILL_TIME_NEVER)
            space, kind = h5py.h5s.create_simple(self.shape), h5py.h5t.py_create(self.dtype)
            h5py.h5d.create(group.id, b"data", kind, space, created)
            describe_data(group["data"], self.name, self.quantity)
        self.reopen()

    def offset(self) -> int:
        import h5py

        with h5py.File(self.part, "r") as file:
            return file[f"entry/{self.name}/data"].id.get_offset()

    def finish(self, result: Result, scan: Scan | None) -> None:
        self.stop()
        others = {n: q for n, q in result.quantities.items() if n != self.name}
        whole = Result(
            result.method, {self.name: self.quantity, **others}, result.quality, result.verdict, result.settings
        )
        with edit_hdf5(self.part) as file:
            entry = file["entry"]
            describe_entry(entry, whole, scan)
            for name, quantity in others.items():
                write_quantity(entry, name, quantity)
            write_report(entry, whole, scan)
        settle(self.part, self.path)


class _TiffFile(_Raw):
    def create(self) -> None:
        require("tifffile", "tiff").imwrite(
            self.part, None, shape=self.shape, dtype=self.dtype, bigtiff=True, **_tags(self, "ZYX")
        )
        self.reopen()

    def offset(self) -> int:
        with require("tifffile", "tiff").TiffFile(self.part) as file:
            return file.series[0].dataoffset

    def finish(self, result: Result, scan: Scan | None) -> None:
        self.stop()
        settle(self.part, self.path)
        _write_json(self.path.with_name(self.path.name + ".json"), self.report(result, scan))


class _TiffSlices(_Store):
    @staticmethod
    def check(path: Path) -> None:
        name, digits = path.name, path.name.count("#")
        if digits != name.rfind("#") - name.find("#") + 1:
            raise InputError(f"{path}: one run of # is to stand for the number of the slice")
        if not path.parent.exists():
            check_place(path.parent)  # it will be made
            return
        check_place(path)
        there = next(iter(path.parent.glob(name.replace("#" * digits, "[0-9]" * digits))), None)
        if there is not None:
            raise InputError(f"{there}: slices of this name are there already; remove them or choose another name")

    def slice_name(self, z: int) -> str:
        digits = self.path.name.count("#")
        return self.path.name.replace("#" * digits, f"{z:0{digits}d}")

    def create(self) -> None:
        if 10 ** self.path.name.count("#") < self.shape[0]:
            raise InputError(f"{self.path}: too few # to number {self.shape[0]} slices")
        self.part.mkdir(parents=True)

    def reopen(self) -> None:
        """Do nothing: every slice is opened for itself."""

    def put(self, start: int, slab: np.ndarray) -> None:
        tifffile = require("tifffile", "tiff")
        for z, image in enumerate(self.stored(slab), start):
            tifffile.imwrite(self.part / self.slice_name(z), image, **_tags(self, "YX"))

    def finish(self, result: Result, scan: Scan | None) -> None:
        for z in range(self.shape[0]):
            os.replace(self.part / self.slice_name(z), self.path.parent / self.slice_name(z))
        self.part.rmdir()
        stem = self.path.name[: self.path.name.find("#")].rstrip("_-.") or "slices"
        _write_json(self.path.with_name(f"{stem}.json"), self.report(result, scan))


class _Zarr(_Store):
    def __init__(
        self,
        path: Path,
        shape: tuple[int, int, int],
        dtype: np.dtype,
        name: str,
        quantity: Quantity,
        value_range: tuple[float, float] | None,
    ):
        super().__init__(path, shape, dtype, name, quantity, value_range)
        self.bytes = self.bytes * 8 // 7
        self._ome = OmeZarr(self.part, shape, dtype, quantity)

    @staticmethod
    def check(path: Path) -> None:
        if path.exists() and not OmeZarr.ours(path):
            raise InputError(
                f"{path}: is there already and was not written by diffrecon; remove it or choose another name"
            )
        check_place(path)

    def create(self) -> None:
        self._ome.create()

    def reopen(self) -> None:
        self._ome.reopen()

    def put(self, start: int, slab: np.ndarray) -> None:
        self._ome.put(start, self.stored(slab))

    def finish(self, result: Result, scan: Scan | None) -> None:
        self._ome.finish(self.report(result, scan))
        old = self.path.with_name(f".{self.path.name}.old")
        if self.path.exists():
            os.replace(self.path, old)
        os.replace(self.part, self.path)
        shutil.rmtree(old, ignore_errors=True)


def _tags(store: _Store, axes: str) -> dict[str, Any]:
    """Resolution [pixels per cm], axes and what the numbers mean, as TIFF tags."""
    said: dict[str, Any] = {"axes": axes, "units": store.quantity.units, "long_name": store.quantity.long_name}
    if store.quantity.pixel_size is not None:
        said |= {"PhysicalSizeX": store.quantity.pixel_size * 1e6, "PhysicalSizeXUnit": "um"}
    if store.range is not None:
        said |= {"value_of_0": store.range[0], f"value_of_{np.iinfo(store.dtype).max}": store.range[1]}
    tags: dict[str, Any] = {"photometric": "minisblack", "metadata": said, "software": "diffrecon"}
    if store.quantity.pixel_size is not None:
        tags |= {"resolution": (0.01 / store.quantity.pixel_size,) * 2, "resolutionunit": "CENTIMETER"}
    return tags


def _write_json(path: Path, report: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(report, indent=1) + "\n")


def _plain(value: Any) -> Any:
    """Make a value one that JSON has: arrays as lists, numbers that are not finite as texts."""
    if hasattr(value, "as_quality"):
        value = value.as_quality()
    if isinstance(value, Mapping):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    if isinstance(value, np.ndarray) or hasattr(value, "tolist"):
        return _plain(np.asarray(value).tolist())
    if isinstance(value, float) and not np.isfinite(value):
        return str(value)
    return value if isinstance(value, bool | int | float | str | None) else str(value)

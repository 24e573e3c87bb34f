"""Results as NeXus: what `diffrecon.write` leaves behind and `read_result` takes up again.

```
/entry/<quantity>/data     one NXdata a quantity; units, pixel_size, long_name
/entry/quality/...         figures as scalars, curves as NXdata
/entry/process/            NXprocess: program, version, date, configuration, input file and checksum, versions
```
The chain of `@default` leads viewers (silx, h5web, napari) to the first quantity.
"""

import contextlib
import datetime
import importlib.metadata
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from .._result import Quantity, Result
from ..errors import InputError
from ..frames import frame_blocks
from ..scan import Scan
from ._disk import new_hdf5
from ._source import Source, text
from ._toml import dumps

__all__ = ["read_result", "write"]

VOLUME_SUFFIXES = (".tif", ".tiff", ".zarr")  # what `write` leaves to `_volume`
_KEEP_PLAIN = 64 * 1024  # bytes below which packing costs more than it saves


def write(path: str | Path, result: Any, scan: Scan | None = None) -> Path:
    """Write a result as NeXus HDF5, atomically: the file appears whole or not at all.

    A path that ends in `.cxi` gets a CXI file (images, process, positions as motion of the sample), `.ptyr` object and
    probe as ptypy stores them, for other programs; diffrecon reads only NeXus results back.
    A path that ends in `.tif` or `.zarr` gets the result's volume alone, as TIFF (`name_####.tif`: one file a slice) or
    OME-Zarr, with figures and provenance as JSON: see `open_volume`.

    **Arguments:**

    - `result`: a `Result`, or what `diffrecon.minimise` returns (any object with `value` and `history`). Of a model
      with a method `quantities(scan)` these are written, else every array of the value under its field's name.
    - `scan`: names the input file and its SHA-256 (one pass over the file, about 1 s a GB) in the process group.

    Complex arrays are stored as HDF5 compounds `(r, i)`, which h5py, silx and h5web show as complex. Lengths whose
    pixel size is not known are in pixels: `units="pixel"`, `pixel_size=1`.

    **Raises:** `InputError` when the path cannot be written, is a folder, or the disk is full; nothing is left behind
    then.

    ```python
    dr.write("reconstruction.h5", result, scan)
    ```
    """
    path = Path(path)
    result = result if isinstance(result, Result) else _of_solution(result, scan)
    if not result.quantities:
        raise InputError(f"{path}: the result holds no quantity to write")
    if (
        scan is not None
        and path.exists()
        and Path(scan.provenance.path).is_file()
        and path.samefile(scan.provenance.path)
    ):
        raise InputError(f"{path}: is the measurement itself; give the result another name")
    if path.suffix.lower() in VOLUME_SUFFIXES:
        from ._volume import write_volume

        return write_volume(path, result, scan)
    if path.suffix.lower() == ".cxi":
        from ._cxi_out import write_result_cxi

        return write_result_cxi(path, result, scan)
    if path.suffix.lower() == ".ptyr":
        from ._ptyr import write_ptyr

        return write_ptyr(path, result, scan)
    with new_hdf5(path) as file:
        _write_file(file, result, scan)
    return path


def read_result(path: str | Path) -> Result:
    """Read a file of `write`: the inverse, with all quantities in memory.

    **Raises:** `InputError` when the file is no result of diffrecon or is damaged.
    """
    with _result(path) as source:
        return _read_file(source)


# ---------------------------------------------------------------------- writing
def _write_file(file: Any, result: Result, scan: Scan | None) -> None:
    entry = new_entry(file)
    describe_entry(entry, result, scan)
    for name, quantity in result.quantities.items():
        write_quantity(entry, name, quantity)
    write_report(entry, result, scan)


def new_entry(file: Any) -> Any:
    """The one entry of an empty file."""
    file.attrs.update(NX_class="NXroot", default="entry", creator="diffrecon", creator_version=_version("diffrecon"))
    return _group(file, "entry", "NXentry")


def describe_entry(entry: Any, result: Result, scan: Scan | None) -> None:
    """Method, title, and which quantities there are, the first of them the default."""
    names = list(result.quantities)
    entry.attrs.update(default=names[0], quantities=np.array(names, dtype=object))
    entry["method"] = result.method
    entry["title"] = f"{result.method} by diffrecon" + (f" of {scan.name}" if scan is not None else "")


def write_report(entry: Any, result: Result, scan: Scan | None) -> None:
    """The groups `quality` and `process`."""
    _write_quality(entry, result)
    _write_process(entry, provenance(result, scan))


def _group(parent: Any, name: str, nexus_class: str, **attributes: Any) -> Any:
    group = parent.create_group(name)
    group.attrs["NX_class"] = nexus_class
    group.attrs.update(attributes)
    return group


def write_quantity(entry: Any, name: str, quantity: Quantity) -> None:
    """One quantity as NXdata."""
    data = np.asarray(quantity.data)
    group = quantity_group(entry, name, quantity, data.shape)
    describe_data(_dataset(group, "data", data), name, quantity)


def quantity_group(entry: Any, name: str, quantity: Quantity, shape: tuple[int, ...]) -> Any:
    """The NXdata of a quantity with its axes; the dataset `data` is still to come."""
    pixel, unit = _pixel(quantity)
    group = _group(entry, name, "NXdata", signal="data", kind=quantity.kind, pixel_size=pixel)
    if quantity.kind == "positions":
        return group
    axes = ["."] * len(shape)
    for i, axis in enumerate(quantity.axes[: len(shape)]):
        # Viewers draw scale bars from centred axes; volumes and images have them, modes and coefficients do not.
        if axis in ("x", "y", "z"):
            axes[i] = axis
            group[axis] = (np.arange(shape[i]) - (shape[i] - 1) / 2) * pixel
            group[axis].attrs.update(units=unit, long_name=f"{axis} [{unit}]")
            group.attrs[f"{axis}_indices"] = i
    group.attrs["axes"] = _names(axes)
    return group


def describe_data(stored: Any, name: str, quantity: Quantity) -> None:
    """Units, name and pixel of the dataset `data` of a quantity."""
    pixel, unit = _pixel(quantity)
    stored.attrs.update(
        units="pixel" if unit == "pixel" and quantity.kind == "positions" else quantity.units,
        long_name=quantity.long_name or name.replace("_", " "),
        pixel_size=pixel,
        pixel_size_units=unit,
        axes_names=_names(quantity.axes),
    )


def _pixel(quantity: Quantity) -> tuple[float, str]:
    """Size of a pixel, and the unit of lengths."""
    if quantity.pixel_size is None or (quantity.kind == "positions" and quantity.units == "pixel"):
        return 1.0, "pixel"
    return float(np.mean(np.asarray(quantity.pixel_size, float))), "m"


def _names(names: Sequence[str]) -> np.ndarray:
    """Texts as an attribute, also when there are none (a scalar has no axes)."""
    import h5py

    return np.array(names, dtype=h5py.string_dtype())


def _dataset(group: Any, name: str, data: np.ndarray) -> Any:
    if data.dtype.kind in "US":
        return group.create_dataset(name, data=np.asarray(data, dtype=object))
    packed = {} if data.nbytes < _KEEP_PLAIN else {"compression": "gzip", "compression_opts": 1, "shuffle": True}
    return group.create_dataset(name, data=data, **packed)


def write_frames(group: Any, name: str, frames: Any, change: Callable[[np.ndarray], np.ndarray] = lambda a: a) -> None:
    """Frames as a dataset in their own type, copied block by block, each changed on its way."""
    if _nbytes(frames) < _KEEP_PLAIN:
        group[name] = change(np.asarray(frames))
        return
    stored = group.create_dataset(
        name,
        frames.shape,
        frames.dtype,
        chunks=(1, *frames.shape[1:]),
        compression="gzip",
        compression_opts=1,
        shuffle=True,
    )
    start = 0
    for block in frame_blocks(frames):
        stored[start : start + len(block)] = change(block)
        start += len(block)


def _nbytes(frames: Any) -> float:
    return float(np.prod(frames.shape, dtype=float)) * np.dtype(frames.dtype).itemsize


def _write_quality(entry: Any, result: Result) -> None:
    group = _group(entry, "quality", "NXcollection")
    for name, value in result.quality.items():
        _write_figure(group, name, value)
    if result.verdict:
        group["verdict"] = np.array(result.verdict, dtype=object)


def _write_figure(parent: Any, name: str, value: Any) -> None:
    """A number, a text, a curve, or a group of them."""
    if value is None:
        return
    if hasattr(value, "as_quality"):
        value = value.as_quality()
    if isinstance(value, Mapping):
        group = _group(parent, name, "NXcollection")
        for key, inner in value.items():
            _write_figure(group, str(key), inner)
    elif isinstance(value, str):
        parent[name] = value
    else:
        array = np.asarray(value)
        if array.ndim == 1 and array.size > 1 and array.dtype.kind in "iuf":
            group = _group(parent, name, "NXdata", signal="values")
            group["values"] = array
            group["values"].attrs["long_name"] = name.replace("_", " ")
        elif array.dtype.kind in "iufcb":
            parent[name] = array
        elif array.dtype.kind in "US":
            parent[name] = np.asarray(array, dtype=object)
        else:
            parent[name] = str(value)


def provenance(result: Result, scan: Scan | None) -> dict[str, Any]:
    """How a result was made: program, version, date, configuration, versions, and the input file with its checksum."""
    found: dict[str, Any] = {
        "program": "diffrecon",
        "version": _version("diffrecon"),
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "config": dumps({"method": result.method, **result.settings}),
        "versions": {package: _version(package) for package in ("jax", "jaxlib", "numpy", "optax", "h5py")},
    }
    if scan is not None:
        found["input"] = {
            "file": scan.name,
            "sha256": scan.provenance.checksum(),
            "reader": scan.provenance.reader,
            "messages": "\n".join(scan.provenance.messages),
        }
    return found


def _write_process(entry: Any, made: Mapping[str, Any]) -> None:
    group = _group(entry, "process", "NXprocess")
    for name, value in made.items():
        if isinstance(value, Mapping):
            inner = _group(group, name, "NXcollection")
            for key, text_ in value.items():
                inner[key] = text_
        else:
            group[name] = value


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "unknown"


def _of_solution(solution: Any, scan: Scan | None) -> Result:
    """What `minimise` returned, as a result: the model's own quantities, or every array of it."""
    value = getattr(solution, "value", solution)
    if hasattr(value, "quantities"):
        quantities = dict(value.quantities(scan))
    else:
        pixel = None if scan is None or scan.pixel_size is None else float(np.mean(scan.pixel_size))
        quantities = {name: _plain_quantity(name, array, pixel) for name, array in _leaves(value).items()}
    history = getattr(solution, "history", None)
    quality = {} if history is None else {"history": history}
    if hasattr(solution, "result"):
        quality["outcome"] = str(solution.result)
    return Result((scan.method if scan is not None else None) or type(value).__name__.lower(), quantities, quality)


def _leaves(value: Any) -> dict[str, np.ndarray]:
    """Arrays of a pytree by the names of their fields."""
    import jax

    named = {}
    for path, leaf in jax.tree_util.tree_leaves_with_path(value):
        if hasattr(leaf, "dtype") and hasattr(leaf, "ndim"):
            name = "_".join(str(getattr(p, "name", getattr(p, "key", getattr(p, "idx", p)))) for p in path) or "value"
            named[name] = np.asarray(leaf)
    return named


def _plain_quantity(name: str, array: np.ndarray, pixel: float | None) -> Quantity:
    axes = (
        ("view", "2")
        if name == "positions"
        else ("z", "y", "x")[-array.ndim :]
        if array.ndim <= 3
        else tuple(f"axis{i}" for i in range(array.ndim))
    )
    kind = (
        "positions"
        if name == "positions"
        else "complex"
        if array.dtype.kind == "c" and array.ndim == 2
        else "image"
        if array.ndim == 2
        else "volume"
        if array.ndim == 3
        else "data"
    )
    return Quantity(array, "", tuple(axes) if array.ndim else (), pixel, name.replace("_", " "), kind)


# ---------------------------------------------------------------------- reading
@contextlib.contextmanager
def _result(path: str | Path) -> Iterator[Source]:
    """A file of `write`, open; what is not as `write` leaves it is damage."""
    with Source(path) as source:
        if not source.has("entry/process/program"):
            raise InputError(f"{path}: not a result of diffrecon (no /entry/process)")
        try:
            yield source
        except (TypeError, KeyError, AttributeError, UnicodeDecodeError) as error:
            raise InputError(f"{path}: a damaged result of diffrecon ({' '.join(str(error).split())[:150]})") from error


def _read_file(source: Source) -> Result:
    entry = source.file["entry"]
    names = [text(n) for n in entry.attrs.get("quantities", ()) if source.has(f"entry/{text(n)}/data")]
    quality = {k: _figure(v) for k, v in entry.get("quality", {}).items()}
    verdict = quality.pop("verdict", ())
    settings = _settings(source)
    method = str(settings.pop("method", text(entry["method"][()])))
    return Result(
        method,
        {n: _read_quantity(source, n) for n in names},
        quality,
        (verdict,) if isinstance(verdict, str) else tuple(verdict),
        settings,
    )


def _read_quantity(source: Source, name: str) -> Quantity:
    group = source.file[f"entry/{name}"]
    attributes = group["data"].attrs
    in_pixels = text(attributes.get("pixel_size_units", "m")) == "pixel"
    return Quantity(
        source.array(f"entry/{name}/data", name),
        text(attributes.get("units", "")),
        tuple(text(a) for a in attributes.get("axes_names", ())),
        None if in_pixels else float(attributes["pixel_size"]),
        text(attributes.get("long_name", name)),
        text(group.attrs.get("kind", "image")),
    )


def _figure(item: Any) -> Any:
    if hasattr(item, "items"):  # a group
        if text(item.attrs.get("NX_class", "")) == "NXdata" and "values" in item:
            return item["values"][()]
        return {k: _figure(v) for k, v in item.items()}
    value: Any = item[()]
    if isinstance(value, bytes):
        return value.decode()
    if isinstance(value, np.ndarray):
        return [text(v) for v in value] if value.dtype == object else value
    return value.item() if isinstance(value, np.generic) else value


def _settings(source: Source) -> dict[str, Any]:
    import tomllib

    try:
        return tomllib.loads(text(source.file["entry/process/config"][()]))
    except (KeyError, tomllib.TOMLDecodeError):
        return {}


def process(path: str | Path) -> dict[str, Any]:
    """The process group of a result: program, version, date, config, input, versions.

    **Raises:** `InputError` when the file is no result of diffrecon.
    """
    with _result(path) as source:
        return _figure(source.file["entry/process"])

"""Results out and in again: `write` by the path's suffix, `read_result` and `process` of NeXus files."""

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from .._result import Quantity, Result
from ..errors import InputError
from ..scan import Scan
from ._disk import new_hdf5
from .source import Source, text
from .writers.cxi import write_result_cxi
from .writers.ptyr import write_ptyr
from .writers.record import describe_entry, link_axes, new_entry, write_quantity, write_report
from .writers.volume import VOLUME_SUFFIXES, write_volume

__all__ = ["process", "read_result", "write"]

# What writes a result for the suffix of a path; the others are NeXus HDF5.
WRITERS: dict[str, Callable[[Path, Result, Scan | None], Path]] = {
    **dict.fromkeys(VOLUME_SUFFIXES, write_volume),
    ".cxi": write_result_cxi,
    ".ptyr": write_ptyr,
}
_NEXUS = (".h5", ".hdf5", ".hdf", ".he5", ".nxs", ".nx", "")


def check_suffix(path: str | Path) -> None:
    """Refuse a result's name that promises another format than what would be written.

    **Raises:** `InputError`.
    """
    suffix = Path(path).suffix.lower()
    if suffix not in (*WRITERS, *_NEXUS):
        raise InputError(
            f"{path}: results are written as NeXus HDF5 (.h5, .nxs) or {', '.join(WRITERS)}, not as {suffix}; "
            f"for a picture write {Path(path).stem}.h5, a .png is drawn beside it"
        )


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
    check_suffix(path)
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
    if writer := WRITERS.get(path.suffix.lower()):
        return writer(path, result, scan)
    with new_hdf5(path) as file:
        entry = new_entry(file)
        describe_entry(entry, result, scan)
        for name, quantity in result.quantities.items():
            write_quantity(entry, name, quantity)
        link_axes(entry, result)
        write_report(entry, result, scan)
    return path


def read_result(path: str | Path) -> Result:
    """Read a file of `write`: the inverse, with all quantities in memory.

    **Raises:** `InputError` when the file is no result of diffrecon or is damaged.
    """
    with _result(path) as source:
        return _read_file(source)


def _of_solution(solution: Any, scan: Scan | None) -> Result:
    """Make a result of what `minimise` returned: the model's own quantities, or every array of it."""
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
    """Read the process group of a result: program, version, date, config, input, versions.

    **Raises:** `InputError` when the file is no result of diffrecon.
    """
    with _result(path) as source:
        return _figure(source.file["entry/process"])

"""What every file of a result says: quantities as NXdata, figures, provenance; the words of NeXus.

```
/entry/<quantity>/data     one NXdata a quantity; units, pixel_size, long_name
/entry/quality/...         figures as scalars, curves as NXdata
/entry/process/            NXprocess: program, version, date, configuration, input file and checksum, versions
```
The chain of `@default` leads viewers (silx, h5web, napari) to the first quantity.
"""

import datetime
import importlib.metadata
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from ..._identity import of_result
from ..._result import Quantity, Result
from ...frames import frame_blocks
from ...physics import in_words
from ...scan import Scan
from .._toml import dumps

_KEEP_PLAIN = 64 * 1024  # bytes below which packing costs more than it saves


def new_entry(file: Any) -> Any:
    """Make the one entry of an empty file."""
    file.attrs.update(NX_class="NXroot", default="entry", creator="diffrecon", creator_version=_version("diffrecon"))
    return new_group(file, "entry", "NXentry")


def describe_entry(entry: Any, result: Result, scan: Scan | None) -> None:
    """Write method, title, and which quantities there are, the first of them the default."""
    names = list(result.quantities)
    entry.attrs.update(default=names[0], quantities=np.array(names, dtype=object))
    entry["method"] = result.method
    entry["title"] = f"{result.method} by diffrecon" + (f" of {scan.name}" if scan is not None else "")


def write_report(entry: Any, result: Result, scan: Scan | None) -> None:
    """Write the groups `quality` and `process`."""
    _write_quality(entry, result)
    _write_process(entry, provenance(result, scan))


def new_group(parent: Any, name: str, nexus_class: str, **attributes: Any) -> Any:
    group = parent.create_group(name)
    group.attrs["NX_class"] = nexus_class
    group.attrs.update(attributes)
    return group


def write_quantity(entry: Any, name: str, quantity: Quantity) -> None:
    """Write one quantity as NXdata."""
    data = np.asarray(quantity.data)
    group = quantity_group(entry, name, quantity, data.shape)
    describe_data(dataset(group, "data", data), name, quantity)


def quantity_group(entry: Any, name: str, quantity: Quantity, shape: tuple[int, ...]) -> Any:
    """Make the NXdata of a quantity with its axes; the dataset `data` is still to come."""
    pixel, unit = _pixel(quantity)
    group = new_group(entry, name, "NXdata", signal="data", kind=quantity.kind, pixel_size=pixel)
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


def link_axes(entry: Any, result: Result) -> None:
    """Give quantities the axes and error bars that are quantities themselves: those of the names of their axes, and
    `<name>_error`; viewers then draw patterns over their angles.
    """
    for name, quantity in result.quantities.items():
        group = entry[name]
        axes = [axis if axis in result.quantities else "." for axis in quantity.axes[: quantity.data.ndim]]
        if any(axis not in (".", name) for axis in axes):
            group.attrs["axes"] = _names(axes)
            for axis in set(axes) - {"."}:
                group[axis] = entry[axis]["data"]
                group.attrs[f"{axis}_indices"] = axes.index(axis)
        if f"{name}_error" in result.quantities:
            group["data_errors"] = entry[f"{name}_error"]["data"]


def describe_data(stored: Any, name: str, quantity: Quantity) -> None:
    """Write units, name and pixel of the dataset `data` of a quantity."""
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


def dataset(group: Any, name: str, data: np.ndarray) -> Any:
    if data.dtype.kind in "US":
        return group.create_dataset(name, data=np.asarray(data, dtype=object))
    packed = {} if data.nbytes < _KEEP_PLAIN else {"compression": "gzip", "compression_opts": 1, "shuffle": True}
    return group.create_dataset(name, data=data, **packed)


def write_frames(group: Any, name: str, frames: Any, change: Callable[[np.ndarray], np.ndarray] = lambda a: a) -> None:
    """Write frames as a dataset in their own type, copied block by block, each changed on its way."""
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
    group = new_group(entry, "quality", "NXcollection")
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
        group = new_group(parent, name, "NXcollection")
        for key, inner in value.items():
            _write_figure(group, str(key), inner)
    elif isinstance(value, str):
        parent[name] = value
    else:
        array = np.asarray(value)
        if array.ndim == 1 and array.size > 1 and array.dtype.kind in "iuf":
            group = new_group(parent, name, "NXdata", signal="values")
            group["values"] = array
            group["values"].attrs["long_name"] = name.replace("_", " ")
        elif array.dtype.kind in "iufcb":
            parent[name] = array
        elif array.dtype.kind in "US":
            parent[name] = np.asarray(array, dtype=object)
        else:
            parent[name] = str(value)


def provenance(result: Result, scan: Scan | None) -> dict[str, Any]:
    """Say how a result was made: program, version, date, configuration, versions, the input file and its checksum."""
    found: dict[str, Any] = {
        "program": "diffrecon",
        "version": _version("diffrecon"),
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "config": dumps({"method": result.method, **result.settings}),
        "identity": json.dumps(of_result(result.method, scan, result.settings)),
        "versions": {package: _version(package) for package in ("jax", "jaxlib", "numpy", "optax", "h5py")},
    }
    if scan is not None:
        found["input"] = {
            "file": scan.name,
            "sha256": scan.provenance.checksum(),
            "reader": scan.provenance.reader,
            "messages": "\n".join(scan.provenance.messages),
        }
        found["scan"] = _scan_in_words(scan)
        if scan.provenance.seconds is not None:
            found["duration"] = in_words(scan.provenance.seconds, "s")
        if len(scan.provenance.files) > 1:
            found["input"]["files"] = "\n".join(file.name for file in scan.provenance.files)
    return found


def _scan_in_words(scan: Scan) -> dict[str, str]:
    """Say what was measured, for people, under names that NeXus allows."""
    place, found = scan.geometry, {"views": str(scan.views), "frame": " x ".join(map(str, scan.frame_shape))}
    numbers = {"energy": ("energy", "eV"), "pixel_in_the_sample": ("pixel_size", "m"), "distance": ("distance", "m")}
    for words, (name, unit) in numbers.items():
        value = getattr(place, name, None)
        if value is not None:
            found[words] = in_words(value, unit)
    return found


def _write_process(entry: Any, made: Mapping[str, Any]) -> None:
    group = new_group(entry, "process", "NXprocess")
    for name, value in made.items():
        if isinstance(value, Mapping):
            inner = new_group(group, name, "NXcollection")
            for key, text_ in value.items():
                inner[key] = text_
        else:
            group[name] = value


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "unknown"

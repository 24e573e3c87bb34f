"""HDF5 as it is found on disks: files that are being written, packed by filters, or whose data lie in other files."""

import os
from pathlib import Path
from typing import Any

import numpy as np

from ._optional import require
from .errors import InputError


def open_hdf5(path: str | Path, name: str | None = None, **options: Any) -> Any:
    """Open an HDF5 file for reading, never locked, also while another program writes it (SWMR).

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
    """Open an HDF5 file, and those its links lead to, as readers see them while another program writes."""
    import h5py

    return h5py.File(path, "r", libver="latest", swmr=True, locking=False, **options)


def need_filters(dataset: Any) -> None:
    """Bring in hdf5plugin when a dataset of h5py is packed by a filter that plain HDF5 does not know.

    **Raises:** `MissingPackage` when it is needed and not installed.
    """
    import h5py

    if _plain(dataset):
        return
    created = dataset.id.get_create_plist()
    codes = [created.get_filter(i)[0] for i in range(created.get_nfilters())]
    if not all(h5py.h5z.filter_avail(code) for code in codes):
        require("hdf5plugin", "filters")


def _plain(dataset: Any) -> bool:
    """Tell whether the values lie in one piece in the file itself, neither packed nor elsewhere: asked in no time."""
    return dataset.id.get_offset() is not None


def native(dtype: Any) -> np.dtype:
    """Give the type of this machine for numbers of any byte order; floats that no device knows become doubles."""
    dtype = np.dtype(dtype).newbyteorder("=")
    return np.dtype(np.float64) if dtype.kind == "f" and dtype.itemsize > 8 else dtype


# ---------------------------------------------------------------------- virtual datasets
def need_sources(dataset: Any, depth: int = 16) -> None:
    """Refuse a virtual dataset some source of which is not there: HDF5 gives zeros in its place without a word.

    Sources that are virtual themselves are followed.

    **Raises:** `InputError` that names the file and the source.
    """
    if _plain(dataset) or not dataset.is_virtual or not depth:
        return
    for (name, source), (least, points) in _sources(dataset).items():
        if name == ".":
            _look_into(dataset, dataset.file, Path(dataset.file.filename).name, source, least, points, depth)
            continue
        with _source_file(dataset, name) as file:
            _look_into(dataset, file, name, source, least, points, depth)


def _sources(dataset: Any) -> dict[tuple[str, str], tuple[tuple[int, ...], int]]:
    """File and dataset of every source (of numbered ones, %b, the first), the shape that it must have at least, and how
    many values."""
    needed: dict[tuple[str, str], tuple[tuple[int, ...], int]] = {}
    for part in dataset.virtual_sources():
        key = part.file_name.replace("%b", "0"), part.dset_name.replace("%b", "0")
        before, points = needed.get(key, ((), 0))
        try:
            ends = tuple(int(last) + 1 for last in part.src_space.get_select_bounds()[1])
        except Exception:  # the whole source, whose shape is not in this file, or a selection without end
            ends = ()
        needed[key] = tuple(map(max, zip(before, ends, strict=True))) if before and ends else before or ends, points
        if not ends and part.src_space.get_select_type() == _whole():
            needed[key] = needed[key][0], points + part.vspace.get_select_npoints()
    return needed


def _whole() -> int:
    import h5py

    return h5py.h5s.SEL_ALL


def _source_file(dataset: Any, name: str) -> Any:
    """Open the file of a source as HDF5 finds it: beside the file of the virtual dataset, then from here."""
    home = Path(dataset.file.filename)
    prefix = os.environ.get("HDF5_VDS_PREFIX", "").replace("${ORIGIN}", str(home.parent))
    places = [*([Path(prefix) / name] if prefix else []), home.parent / name, home.resolve().parent / name, Path(name)]
    if Path(name).is_absolute():
        places.insert(1, home.parent / Path(name).name)
    for place in dict.fromkeys(places):
        if place.is_file():
            try:
                return open_hdf5(place)
            except OSError as error:
                raise InputError(
                    f"{home.name}: {dataset.name} is a virtual dataset, and its source {name} is damaged or incomplete "
                    f"({str(error).splitlines()[0]}); copy it again"
                ) from error
    raise InputError(
        f"{home.name}: {dataset.name} is a virtual dataset, and its source {name} is not there "
        "(HDF5 would give zeros); put that file beside this one"
    )


def _look_into(
    dataset: Any, file: Any, name: str, source: str, least: tuple[int, ...], points: int, depth: int
) -> None:
    found = file.get(source)
    where = f"{Path(dataset.file.filename).name}: {dataset.name} is a virtual dataset, and its source {name}:{source}"
    if found is None or not hasattr(found, "is_virtual"):
        raise InputError(f"{where} is not there (HDF5 would give zeros); mend the link or copy the file again")
    short = any(has < wants for has, wants in zip(found.shape, least, strict=False)) or found.size < points
    if short and not dataset.file.swmr_mode:
        raise InputError(
            f"{where} has shape {found.shape}, less than is needed (HDF5 would give zeros for the rest); copy the file "
            "again, or open what is there of it"
        )
    need_sources(found, depth - 1)

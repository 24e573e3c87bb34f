"""Parts of a volume that several tasks have written, as one HDF5 file.

`python join.py volume.h5 part00000.h5 part01024.h5 ...`: the parts in the order of their names, which is that of their
rows. The file holds a virtual dataset: nothing is copied, so the parts must stay beside it.
"""

import sys
from pathlib import Path

import h5py
import numpy as np


def join(output: Path, parts: list[Path]) -> tuple[int, int, int]:
    """Write `output`, whose `/entry/volume/data` is the parts one above the other; returns its shape."""
    sizes = []
    with h5py.File(parts[0]) as first:
        rest, dtype = first["entry/volume/data"].shape[1:], first["entry/volume/data"].dtype
    for part in parts:
        with h5py.File(part) as file:
            shape = file["entry/volume/data"].shape
        if shape[1:] != rest:
            sys.exit(f"{part}: slices of {shape[1:]}, those of {parts[0]} are {rest}")
        sizes.append(shape[0])
    layout = h5py.VirtualLayout((sum(sizes), *rest), dtype)
    start = 0
    for part, size in zip(parts, sizes, strict=True):
        place = part.resolve().relative_to(output.resolve().parent)
        layout[start : start + size] = h5py.VirtualSource(str(place), "entry/volume/data", (size, *rest))
        start += size
    with h5py.File(output, "w") as file, h5py.File(parts[0]) as first:
        file.attrs.update(first.attrs)
        entry = file.create_group("entry")
        entry.attrs.update(first["entry"].attrs)
        for name in set(first["entry"]) - {"volume"}:  # how it was made, judged by the first part
            first.copy(f"entry/{name}", entry)
        group = entry.create_group("volume")
        group.attrs.update(first["entry/volume"].attrs)
        group.create_virtual_dataset("data", layout).attrs.update(first["entry/volume/data"].attrs)
        for axis in "xy":
            first.copy(f"entry/volume/{axis}", group)
        step = float(group["x"][1] - group["x"][0])
        group["z"] = (np.arange(sum(sizes)) - (sum(sizes) - 1) / 2) * step
        group["z"].attrs.update(first["entry/volume/z"].attrs)
    return (sum(sizes), *rest)


if __name__ == "__main__":
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    shape = join(Path(sys.argv[1]), sorted(map(Path, sys.argv[2:])))
    print(f"{sys.argv[1]}: {' x '.join(map(str, shape))}")

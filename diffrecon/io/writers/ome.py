"""OME-Zarr 0.5 (https://ngff.openmicroscopy.org/0.5): a Zarr 3 group with a pyramid of one volume."""

import json
from pathlib import Path
from typing import Any

import numpy as np

from ..._optional import require
from ..._result import Quantity

_CHUNK = (16, 256, 256)
_SMALLEST = 256  # voxels along the longest axis of the last level
_UNITS = (("nanometer", 1e-9), ("micrometer", 1e-6), ("millimeter", 1e-3))


class OmeZarr:
    """Level 0 written slab by slab, the other levels made of it at the end.

    **Cost:** the pyramid reads and writes a seventh more than the volume; 32 slices of a level in memory at once.
    """

    def __init__(self, path: Path, shape: tuple[int, int, int], dtype: np.dtype, quantity: Quantity):
        self._path, self._dtype, self._quantity = path, dtype, quantity
        self._shapes = pyramid(shape)
        self._group: Any = None

    @staticmethod
    def ours(path: Path) -> bool:
        """Tell whether a folder is such a group, written by diffrecon."""
        try:
            return "diffrecon" in json.loads((path / "zarr.json").read_text())["attributes"]
        except (OSError, ValueError, KeyError):
            return False

    def create(self) -> None:
        """Make an empty group with all levels."""
        zarr = require("zarr", "zarr")
        self._group = zarr.create_group(str(self._path), zarr_format=3)
        packed = zarr.codecs.BloscCodec(cname="zstd", clevel=1, shuffle="shuffle")
        for level, shape in enumerate(self._shapes):
            chunks = tuple(min(c, n) for c, n in zip(_CHUNK, shape, strict=True))
            self._group.create_array(
                str(level),
                shape=shape,
                chunks=chunks,
                dtype=self._dtype,
                compressors=packed,
                dimension_names=("z", "y", "x"),
            )

    def reopen(self) -> None:
        """Go on with what is there."""
        self._group = require("zarr", "zarr").open_group(str(self._path), mode="r+")

    def put(self, start: int, slab: np.ndarray) -> None:
        """Write slices of level 0."""
        self._group["0"][start : start + len(slab)] = slab

    def finish(self, report: dict[str, Any]) -> None:
        """Write the pyramid, and the metadata that make it OME-Zarr."""
        for level in range(1, len(self._shapes)):
            fine, coarse = self._group[str(level - 1)], self._group[str(level)]
            for start in range(0, coarse.shape[0], _CHUNK[0]):
                stop = min(start + _CHUNK[0], coarse.shape[0])
                coarse[start:stop] = halved(np.asarray(fine[2 * start : 2 * stop]))
        self._group.attrs.update({"ome": self._metadata(), "diffrecon": report})

    def _metadata(self) -> dict[str, Any]:
        pixel, unit = _in_good_units(self._quantity.pixel_size)
        axes = [{"name": n, "type": "space"} | ({"unit": unit} if unit else {}) for n in ("z", "y", "x")]
        scale, first = np.full(3, pixel), np.zeros(3)
        datasets = []
        for level, shape in enumerate(self._shapes):
            if level:
                twice = np.array(self._shapes[level - 1]) > np.array(shape)
                first, scale = first + np.where(twice, scale / 2, 0), np.where(twice, 2 * scale, scale)
            datasets.append(
                {
                    "path": str(level),
                    "coordinateTransformations": [
                        {"type": "scale", "scale": scale.tolist()},
                        {"type": "translation", "translation": first.tolist()},
                    ],
                }
            )
        name = self._quantity.long_name + (f" [{self._quantity.units}]" if self._quantity.units else "")
        scaling = {"description": "mean of 2 x 2 x 2 voxels"}
        return {
            "version": "0.5",
            "multiscales": [{"name": name, "axes": axes, "datasets": datasets, "type": "mean", "metadata": scaling}],
        }


def pyramid(shape: tuple[int, int, int]) -> list[tuple[int, int, int]]:
    """List the shapes of all levels: every axis halved (rounded up) until none is longer than 256.

    ```python
    assert pyramid((3, 600, 1000)) == [(3, 600, 1000), (2, 300, 500), (1, 150, 250)]
    ```
    """
    shapes = [shape]
    while max(shapes[-1]) > _SMALLEST:
        z, y, x = shapes[-1]
        shapes.append(((z + 1) // 2, (y + 1) // 2, (x + 1) // 2))
    return shapes


def halved(block: np.ndarray) -> np.ndarray:
    """Take the mean over 2 x 2 x 2 voxels, over those that are there at the end of an odd axis."""
    mean = block.astype(np.float64 if block.dtype.itemsize > 4 else np.float32)
    for axis in range(3):
        if mean.shape[axis] % 2:
            mean = np.concatenate([mean, np.take(mean, [-1], axis)], axis)
        even, odd = (np.take(mean, range(i, mean.shape[axis], 2), axis) for i in (0, 1))
        mean = (even + odd) / 2
    return mean


def _in_good_units(pixel: float | None) -> tuple[float, str]:
    """Number and unit of length for people: 0.65 micrometer rather than 6.5e-07 meter."""
    if pixel is None:
        return 1.0, ""
    unit, size = next(((u, s) for u, s in _UNITS if pixel < 1e3 * s), _UNITS[-1])
    return pixel / size, unit

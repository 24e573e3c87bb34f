"""Where a tensor SAXS scan has something to solve for: the voxels whose rays are bright, and the box around them.

What lies outside the sample is known to hold nothing. Leaving it out makes a solve several times cheaper, and what was
measured beside the sample cannot turn into streaks there.
"""

from typing import NamedTuple

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from ..operators.pose import PoseProjector
from ..operators.scattering import TensorProjector

__all__ = ["Support", "find_support"]

# A ray is bright above this fraction of the brightest ones; a voxel is of the sample where this share of the views has
# a bright ray within so many pixels of it: frames that are off by a pixel or two take nothing away.
_BRIGHT, _AGREE = 0.01, 0.85
_ROUND = 4  # sizes of boxes are multiples of it: compiled programs then serve other scans


class Support(NamedTuple):
    """The part of a volume, and of the frames, that a solve is about.

    **Fields:** `volume_shape` of the whole; `corner` and `inside` `(z, y, x)`, first voxel of the box and which of its
    voxels are of the sample; `rows` and `columns` of the frames that see it.
    """

    volume_shape: tuple[int, ...]
    corner: tuple[int, ...]
    inside: Bool[np.ndarray, "z y x"]
    rows: slice
    columns: slice

    def projector(self, A: TensorProjector) -> TensorProjector:
        """Make the projector of the box onto these rows and columns."""
        poses = A.projector
        middle = np.asarray(self.corner) + (np.asarray(self.inside.shape) - np.asarray(self.volume_shape)) / 2
        ray, row, column = (np.asarray(v, float) for v in (poses.ray, poses.row, poses.column))
        frame = [
            (s.start + s.stop - n) / 2 for s, n in zip((self.rows, self.columns), poses.detector_shape, strict=True)
        ]
        moved = np.stack([row @ middle[::-1], column @ middle[::-1]], -1)
        detector = (self.rows.stop - self.rows.start, self.columns.stop - self.columns.start)
        part = PoseProjector(
            ray, row, column, self.inside.shape, detector, np.asarray(poses.offsets, float) + frame - moved
        )
        return eqx.tree_at(lambda a: a.projector, A, part)

    def frames(self, values: Array | np.ndarray) -> Array | np.ndarray:
        """Cut frames `(view, row, column, ...)`."""
        return values[:, self.rows, self.columns]

    def whole(self, box: Float[Array, "z y x lm"]) -> Float[Array, "Z Y X lm"]:
        """Lay the box into the empty volume."""
        place = tuple(slice(c, c + n) for c, n in zip(self.corner, self.inside.shape, strict=True))
        return jnp.zeros((*self.volume_shape, *box.shape[3:]), box.dtype).at[place].set(box)


def find_support(
    poses: PoseProjector, brightness: Float[np.ndarray, "view row column"], counted: Bool[np.ndarray, "view row column"]
) -> Support:
    """Find the sample's voxels from the mean intensity of every ray; rays that do not count say nothing.

    **Cost:** a look-up a voxel and view.
    """
    threshold = _BRIGHT * np.percentile(brightness[counted], 99)
    bright = _grown((brightness > threshold) | ~counted, (1, 2))
    share = _share_of_bright(poses, bright)
    inside = _grown(share >= _AGREE, (0, 1, 2))
    shape = poses.volume_shape
    if not inside.any():
        inside = np.ones(shape, bool)
    place = tuple(_window(np.flatnonzero(inside.any((*others,))), n) for others, n in
                  zip(((1, 2), (0, 2), (0, 1)), shape, strict=True))  # fmt: skip
    lit = (bright & counted).any(0)
    lit = lit if lit.any() else np.ones_like(lit)
    rows, columns = (_window(np.flatnonzero(seen), len(seen)) for seen in (np.any(lit, axis=1), np.any(lit, axis=0)))
    return Support(shape, tuple(p.start for p in place), inside[place], rows, columns)


def _share_of_bright(poses: PoseProjector, bright: Bool[np.ndarray, "view row column"]) -> np.ndarray:
    """Give the share of the views that see a voxel in which its ray is bright; 1 where none sees it."""
    axes = [np.arange(n) - (n - 1) / 2 for n in poses.volume_shape]
    seen, agree = np.zeros(poses.volume_shape, np.int32), np.zeros(poses.volume_shape, np.int32)
    rows, columns = poses.detector_shape
    for view, picture in enumerate(bright):
        place = []
        for vector, offset, size in zip((poses.row, poses.column), poses.offsets[view], (rows, columns), strict=True):
            x, y, z = np.asarray(vector[view], float)
            along = axes[0][:, None, None] * z + axes[1][:, None] * y + axes[2] * x
            place.append(np.rint(along - float(offset) + (size - 1) / 2).astype(np.int32))
        on = (place[0] >= 0) & (place[0] < rows) & (place[1] >= 0) & (place[1] < columns)
        seen += on
        agree += on & picture[np.clip(place[0], 0, rows - 1), np.clip(place[1], 0, columns - 1)]
    return np.where(seen > 0, agree / np.maximum(seen, 1), 1.0)


def _grown(marks: Bool[np.ndarray, "..."], axes: tuple[int, ...]) -> Bool[np.ndarray, "..."]:
    """Mark the neighbours along some axes, too."""
    for axis in axes:
        here = np.moveaxis(marks, axis, 0)
        marks = here.copy()
        marks[1:] |= here[:-1]
        marks[:-1] |= here[1:]
        marks = np.moveaxis(marks, 0, axis)
    return marks


def _window(filled: np.ndarray, size: int) -> slice:
    """Span what is filled, widened to a multiple of `_ROUND` as far as there is room."""
    first, last = int(filled[0]), int(filled[-1]) + 1
    wanted = min(-(-(last - first) // _ROUND) * _ROUND, size)
    first = min(max(first - (wanted - (last - first)) // 2, 0), size - wanted)
    return slice(first, first + wanted)

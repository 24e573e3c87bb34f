"""Where the light was, where the sample is, and the air around it."""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from .. import operators

__all__ = ["dilate", "lit_field", "otsu_threshold", "sample_region"]


def otsu_threshold(values: Float[np.ndarray, "..."]) -> float:
    """Find the threshold between two classes of values, where the variance between their means is largest.

    Otsu, IEEE Trans. Syst. Man Cybern. 9, 62 (1979).

    ```python
    assert 0.1 < otsu_threshold(np.array([0.0, 0.1, 0.9, 1.0])) < 0.9
    ```
    """
    counts, edges = np.histogram(values, 256)
    middle = (edges[1:] + edges[:-1]) / 2
    below, total = np.cumsum(counts), counts.sum()
    mean = np.cumsum(counts * middle)
    between = (mean[-1] * below - mean * total) ** 2 / np.maximum(below * (total - below), 1)
    best = np.flatnonzero(between == between.max())  # all bins between two classes that are far apart
    return float((edges[best[0] + 1] + edges[best[-1] + 1]) / 2)


def dilate(mask: Bool[np.ndarray, "..."], times: int) -> Bool[np.ndarray, "..."]:
    """Grow the True part of a mask by so many pixels along each axis in turn.

    ```python
    assert dilate(np.arange(5) == 2, 1).tolist() == [False, True, True, True, False]
    ```
    """
    for axis in list(range(mask.ndim)) * times:
        padded = np.pad(mask, [(1, 1) if a == axis else (0, 0) for a in range(mask.ndim)])
        mask = np.max(np.lib.stride_tricks.sliding_window_view(padded, 3, axis), axis=-1)
    return mask


def sample_region(
    volume: Float[Array, "z y x"], box: tuple[slice, ...] = (), *, width: float = 1.5, margin: int = 3
) -> Bool[np.ndarray, "z y x"]:
    """Find the voxels that may hold matter: above Otsu's threshold of the blurred volume, and those around.

    **Arguments:** `box`, the part of the volume that was seen (all by default), outside of which there is none;
    `width` of the Gaussian blur, `margin` around what is above the threshold [voxel].
    """
    planes = operators.blur_frames(volume, width)
    smooth = operators.blur_frames(jnp.swapaxes(planes, 0, 1), jnp.asarray([width, 1e-3]))  # along z alone
    smooth, region = np.asarray(jnp.swapaxes(smooth, 0, 1)), np.zeros(volume.shape, bool)
    region[box] = smooth[box] > otsu_threshold(smooth[box])
    return dilate(region, margin)


def lit_field(light: Float[Array, "y x"]) -> tuple[slice, slice]:
    """Find the rows and columns about the middle of an image that are well lit (`operators.well_lit`).

    ```python
    rows, columns = lit_field(np.pad(np.ones((20, 10)), 5))
    assert (rows, columns) == (slice(5, 25), slice(5, 15))
    ```
    """
    lit = np.asarray(operators.well_lit(light))
    cut = []
    for axis, size in enumerate(lit.shape):
        line = lit[:, lit.shape[1] // 2] if axis == 0 else lit[lit.shape[0] // 2]
        dark = np.flatnonzero(~line)
        reach = size // 2 if not dark.size else int(np.abs(dark - (size - 1) / 2).min())
        cut.append(slice(size // 2 - max(reach, 4), size // 2 + max(reach, 4)))
    return cut[0], cut[1]

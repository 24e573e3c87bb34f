"""Flat-field correction and the law of Lambert and Beer."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Num

from ..errors import MissingMetadata
from ..scan import Scan

__all__ = ["LineIntegrals", "line_integrals", "transmission"]

_BLOCK = 256  # views corrected at a time


class LineIntegrals(NamedTuple):
    """**Fields:** `values` `(view, y, x)` = integral of mu along the ray; `clipped` = number of pixels whose
    transmission was below the clip; `dead` = number of detector pixels without flat-field, filled from their neighbours
    in the row."""

    values: np.ndarray
    clipped: int
    dead: int

    def messages(self, clip: float) -> list[str]:
        """What was done, for the user."""
        lines = []
        if self.clipped:
            lines.append(f"{self.clipped} of {self.values.size} pixels transmit less than {clip:g} and were set to it")
        if self.dead:
            lines.append(f"{self.dead} detector pixels have no flat-field signal and were filled from their neighbours")
        return lines


@jax.jit
def transmission(
    counts: Num[Array, "view y x"], flat: Float[Array, "y x"], dark: Float[Array, "y x"]
) -> Float[Array, "view y x"]:
    """`(counts - dark) / (flat - dark)`; NaN where the flat is not above the dark.

    ```python
    t = transmission(jnp.full((1, 1, 1), 60), jnp.full((1, 1), 110.0), jnp.full((1, 1), 10.0))   # 0.5
    ```
    """
    light = flat - dark
    return jnp.where(light > 0, (counts.astype(light.dtype) - dark) / jnp.where(light > 0, light, 1), jnp.nan)


def line_integrals(scan: Scan, *, clip: float = 1e-3) -> LineIntegrals:
    """Line integrals `-ln(transmission)` of all views, `(view, y, x)` float32.

    Flats and darks are averaged over their frames; without darks they are zero. Transmissions below `clip` are set to
    it and counted. Reads the frames in blocks, so that the counts never stand in memory as floats all at once.

    **Raises:** `MissingMetadata` without flats, unless the counts are transmissions already (floats, none above 10).
    """
    flat, dark = _references(scan)
    dead_pixels = np.flatnonzero(np.asarray(flat <= dark))
    values = np.empty(scan.counts.shape, np.float32)
    clipped = 0
    for start in range(0, scan.views, _BLOCK):
        block, count = _logarithm(jnp.asarray(np.asarray(scan.counts[start:start + _BLOCK])), flat, dark, clip)
        values[start:start + _BLOCK] = np.asarray(block)
        clipped += int(count)
    if dead_pixels.size:
        _fill(values, np.asarray(flat <= dark))
    return LineIntegrals(values, clipped, int(dead_pixels.size))


@jax.jit
def _logarithm(counts, flat, dark, clip):
    light = transmission(counts, flat, dark)
    return -jnp.log(jnp.maximum(light, clip)), jnp.sum(light < clip)


def _references(scan: Scan) -> tuple[Array, Array]:
    """Mean flat and mean dark."""
    mean = lambda frames: jnp.asarray(np.asarray(frames).mean(0, dtype=float), jnp.float32)
    if scan.flats is None:
        if np.dtype(scan.counts.dtype).kind == "f" and float(np.max(np.asarray(scan.counts[:8]))) <= 10:
            return jnp.ones(scan.frame_shape), jnp.zeros(scan.frame_shape)
        raise MissingMetadata("data.flats", "the flat field (frames without the sample)", scan.name, "/path/of/flats")
    flat = mean(scan.flats)
    return flat, jnp.zeros_like(flat) if scan.darks is None else mean(scan.darks)


def _fill(values: np.ndarray, dead: Bool[np.ndarray, "y x"]) -> None:
    """Linear interpolation along the detector row over dead pixels, in place; a row that is all dead becomes zero."""
    for row in np.flatnonzero(dead.any(1)):
        good = np.flatnonzero(~dead[row])
        bad = np.flatnonzero(dead[row])
        if not good.size:
            values[:, row] = 0
            continue
        right = (
            np.clip(np.searchsorted(good, bad), 1, max(good.size - 1, 1)) if good.size > 1 else np.zeros(bad.size, int)
        )
        left = np.maximum(right - 1, 0)
        span = np.maximum(good[right] - good[left], 1)
        share: Any = np.clip((bad - good[left]) / span, 0, 1)
        values[:, row, bad] = values[:, row, good[left]] * (1 - share) + values[:, row, good[right]] * share

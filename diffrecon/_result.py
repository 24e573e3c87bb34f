"""`Result`: what a reconstruction gives back, ready to be written, plotted and judged."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

__all__ = ["Quantity", "Result"]


@dataclasses.dataclass(frozen=True)
class Quantity:
    """One array with what it takes to read it: unit, axes and pixel.

    **Fields:** `data`; `units` (`"rad"`, `"1/m"`, `""`); `axes` in order (`("z", "y", "x")`); `pixel_size` [m] (`None`
    = unknown, then lengths are in pixels); `long_name` for labels; `kind` chooses the picture: `"image"`, `"complex"`,
    `"modes"`, `"volume"`, `"positions"`, `"orientation"`, `"direction"` (axes whose length is their
    strength), `"sphere"` (a function of direction), or `"data"` (no picture).
    """

    data: np.ndarray
    units: str
    axes: tuple[str, ...]
    pixel_size: float | None = None
    long_name: str = ""
    kind: str = "image"


@dataclasses.dataclass(frozen=True)
class Result:
    """A reconstruction: named quantities, the figures that judge it, and how it was made.

    **Fields:**

    - `method`: `"tomography"`, ...
    - `quantities`: by name, as written to `/entry/<name>`. The first one is the `@default` picture.
    - `quality`: numbers and curves by name, as written to `/entry/quality`: `held_out_residual`, `noise_floor`,
      `history`...
    - `verdict`: the same in words, one line each, as printed.
    - `settings`: every setting used, by section.
    """

    method: str
    quantities: Mapping[str, Quantity]
    quality: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    verdict: tuple[str, ...] = ()
    settings: Mapping[str, Mapping[str, Any]] = dataclasses.field(default_factory=dict)

    def __getitem__(self, name: str) -> np.ndarray:
        """The array of a quantity."""
        return self.quantities[name].data

"""When a result is none: what its figures must not be."""

from collections.abc import Mapping
from typing import Any

import numpy as np

__all__ = ["failures"]

# Figure -> largest value, its name, and what is usually wrong.
_LIMITS = {
    "held_out_residual": (
        0.5,
        "held-out residual R",
        "positions, distance, pixel size or the orientation of the frames",
    ),
    "relative_residual": (
        0.9,
        "relative residual",
        "the geometry (angles, axis, shape of the volume) or the solver's steps",
    ),
}


def failures(figures: Mapping[str, Any]) -> list[str]:
    """Say in words which figures of a result are those of a failure: its prediction has little to do with the data.

    ```python
    assert failures({"held_out_residual": 0.05}) == []
    assert failures({"relative_residual": 1.0})[0].startswith("FAILED: relative residual 1.00")
    ```
    """
    said = []
    for name, (limit, words, cause) in _LIMITS.items():
        value = figures.get(name)
        if value is not None and np.ndim(value) == 0 and not float(value) <= limit:  # NaN is none either
            said.append(
                f"FAILED: {words} {float(value):.2f} is above {limit}: the result explains hardly anything of the "
                f"data; check {cause}"
            )
    return said

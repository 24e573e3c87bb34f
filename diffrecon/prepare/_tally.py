"""What preparation did to the rows read so far, and what these rows tell of the views."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ..solvers.slices import air_level

__all__ = ["Tally", "levels_of"]

_REPLACING = ("large", "dead", "all")  # methods that replace whole columns of stripes
_JUMP = 0.2  # of the mean line integral of one view against those beside it
_OFFSET = 0.02  # line integral of the air that is worth a line

_UNIFORM = " (or is every row deep in a uniform sample?)"
_AIR = {
    "flats": "the detector sees {0} of the flats in all views, as air does whose brightness has changed: "
    f"prepare.flux=auto divides by it{_UNIFORM}",
    "transmissions": "the frames transmit {0} in all views, where air transmits 1: prepare.flux=auto divides by it"
    f"{_UNIFORM}",
    "lines": "the line integrals are {1:.2f} in all views, where air has 0: prepare.flux=auto takes it off"
    f"{_UNIFORM}",
}


@dataclasses.dataclass
class Tally:
    """What the steps did, for each detector row that was read, and mean line integrals of each view."""

    read: np.ndarray
    clipped: np.ndarray
    zingers: np.ndarray
    stripes: np.ndarray  # mean square change of the line integrals
    columns: np.ndarray
    levels: np.ndarray  # (view, 5), summed over rows: see `levels_of`
    rows: int = 0  # in that sum

    @classmethod
    def empty(cls, rows: int, views: int) -> "Tally":
        """Count nothing yet."""
        whole = lambda: np.zeros(rows, int)
        return cls(np.zeros(rows, bool), whole(), whole(), np.zeros(rows), whole(), np.zeros((views, 5)))

    def copy(self) -> "Tally":
        """Make one that goes on by itself."""
        values = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        return dataclasses.replace(self, **{k: v.copy() for k, v in values.items() if isinstance(v, np.ndarray)})

    def lines(self, settings: Mapping[str, Any], columns: int, against: str = "flats") -> list[str]:
        """Say what was done to single values, and what stands out among the views.

        **Arguments:** `against` what the frames are: `"flats"`, `"transmissions"`, or `"lines"` for logarithms.
        """
        lines, read, views = [], int(self.read.sum()), len(self.levels)
        if settings["zingers"] is not None:
            lines.append(f"{int(self.zingers.sum())} zingers replaced (beyond {settings['zingers']:g} sigma)")
        elif self.zingers.any():
            lines.append(
                f"{int(self.zingers.sum())} values that are in one view three times brighter or twenty times darker "
                "than all around replaced (prepare.bad_pixels=false keeps them; prepare.zingers=8 finds weaker hits)"
            )
        if self.clipped.any():
            lines.append(
                f"{int(self.clipped.sum())} of {read * views * columns} pixels transmit less than {settings['clip']:g} "
                "and were set to it"
            )
        if settings["stripes"] != "none" and read:
            changed = float(np.sqrt(self.stripes.sum() / read))
            replaced = f", {int(self.columns.sum())} columns replaced" if settings["stripes"] in _REPLACING else ""
            lines.append(f"stripes ({settings['stripes']}): {changed:.2g} rms taken off the line integrals{replaced}")
        return lines + (_lines_of_views(self.levels / self.rows, against) if self.rows else [])


@jax.jit
def levels_of(lines: Float[Array, "view z u"]) -> Float[Array, "view 5"]:
    """Sum line integrals over rows: their mean, and those of the outermost columns and of the next ones, left and
    right."""
    columns = lines.shape[-1]
    wide = max(min(columns // 32, 32), min(2, columns))
    bands = lines[..., :wide], lines[..., wide : 2 * wide], lines[..., -2 * wide : columns - wide], lines[..., -wide:]
    means = [jnp.mean(lines, -1), *(jnp.mean(band, -1) for band in bands)]
    return jnp.stack([mean.sum(1) for mean in means], -1)


def _lines_of_views(levels: np.ndarray, against: str) -> list[str]:
    """Name views that are brighter or darker than their neighbours, and air that does not transmit one."""
    lines = []
    jump = levels[:, 0] - _median_of_five(levels[:, 0])
    spread = 1.5 * np.median(np.abs(jump - np.median(jump)))
    odd = np.flatnonzero(np.abs(jump) > max(_JUMP, 8 * spread))
    if odd.size and odd.size <= len(levels) / 4:
        named = ", ".join(f"{view} ({np.exp(-jump[view]):.3g} times)" for view in odd[:6])
        lines.append(
            f"WARNING: the brightness of view{'s' * (odd.size > 1)} {named}{', ...' * (odd.size > 6)} is not that of "
            "the views beside: leave such views out (data.views), or divide by the air (prepare.flux=auto)"
        )
    air = air_level(*levels[:, 1:].T)
    if air is not None and np.abs(air).max() > _OFFSET:
        low, high = np.exp(-air.max()), np.exp(-air.min())
        shown = f"{np.exp(-np.median(air)):.2f}" if high - low < 0.02 else f"{low:.2f} to {high:.2f}"
        lines.append(f"WARNING: at both edges {_AIR[against].format(shown, np.median(air))}")
    return lines


def _median_of_five(values: np.ndarray) -> np.ndarray:
    if len(values) < 5:
        return values
    return np.median(np.lib.stride_tricks.sliding_window_view(np.pad(values, 2, mode="reflect"), 5), -1)

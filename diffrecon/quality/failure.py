"""When a result is none: what its figures must not be."""

import re
from collections.abc import Mapping
from typing import Any

import numpy as np

__all__ = ["failures"]

# Figure -> largest value, its name, the figures that photon noise alone leaves of it, and what is usually wrong.
_LIMITS = {
    "held_out_residual": (
        0.5,
        "held-out residual R",
        ("noise_floor_residual", "noise_floor", "held_out_noise"),
        "positions, distance, pixel size or the orientation of the frames",
    ),
    r"relative_residual(_(?P<part>.+))?": (
        0.9,
        "relative residual",
        ("noise_floor_residual",),
        "the geometry (angles, axis, shape of the volume) or the solver's steps",
    ),
    r"(?P<part>.+)_misfit": (
        0.9,
        "misfit of the counts",
        ("{name}_noise",),
        "the geometry (angles, axis), the lines of the channels and the absorption",
    ),
}
_CLIPPED = 0.5  # share of the values that were set to a bound
_NOISE = 1.3  # times what photon noise alone leaves is no failure: with few counts noise is all that is left
_NOT_FOUND = re.compile(r".*_error|deviation|support|sinogram|projection")  # beside what was reconstructed


def failures(figures: Mapping[str, Any], quantities: Mapping[str, Any] | None = None) -> list[str]:
    """Say in words which figures of a result are those of a failure: its prediction has little to do with the data.

    So are data of which more than half were set to a bound (the figure `clipped_fraction`), and `quantities` (of a
    `Result`) of which every image and volume is zero everywhere. Noise is no failure: a residual that photon noise
    alone leaves, too, is passed over.

    ```python
    assert failures({"held_out_residual": 0.05}) == []
    assert failures({"relative_residual": 1.0})[0].startswith("FAILED: relative residual 1.00")
    ```
    """
    said = [words for name, value in figures.items() if (words := _beyond(name, value, figures))]
    clipped = figures.get("clipped_fraction")
    if clipped is not None and not float(clipped) <= _CLIPPED:
        said.append(
            f"FAILED: {float(clipped):.0%} of the values hold no light above the dark and were set to a bound: the "
            "result is made of it; check darks, flats and what the counts are (data.kind)"
        )
    flat = [] if quantities is None else _empty(quantities)
    if flat:
        said.append(
            f"FAILED: {' and '.join(flat[:4])} {'is' if len(flat) == 1 else 'are'} the same everywhere: nothing was "
            "found; check the counts, flats and darks, and bounds such as solver.positive"
        )
    return said


def _beyond(name: str, value: Any, figures: Mapping[str, Any]) -> str:
    for pattern, (limit, words, floors, cause) in _LIMITS.items():
        found = re.fullmatch(pattern, name)
        if not found or np.ndim(value) != 0:
            continue
        noise = [float(figures[key]) for floor in floors if (key := floor.format(name=name)) in figures]
        if float(value) <= max([limit, *(_NOISE * n for n in noise if np.isfinite(n))]):  # NaN is none either
            continue
        part = found.groupdict().get("part")
        return (
            f"FAILED: {words}{f' ({part})' if part else ''} {float(value):.2f} is above {limit}: the result explains "
            f"hardly anything of the data; check {cause}"
        )
    return ""


def _empty(quantities: Mapping[str, Any]) -> list[str]:
    """Name the images and volumes, if all of them are zero everywhere (a wave: the same number)."""
    kinds = {name: np.asarray(q.data) for name, q in quantities.items() if q.kind in ("image", "volume", "complex")}
    maps = {n: a for n, a in kinds.items() if a.size > 1 and a.dtype.kind in "fc" and not _NOT_FOUND.fullmatch(n)}
    still = [name for name, a in maps.items() if not (a != (a.flat[0] if a.dtype.kind == "c" else 0)).any()]
    return still if len(still) == len(maps) else []

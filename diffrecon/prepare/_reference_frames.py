"""Flats and darks that are none: a shutter that was open, or closed."""

import numpy as np

from ..errors import InputError
from ..frames import AnyMeasurement, Measurement

__all__ = ["sort_out_references"]

_LIT = 0.2  # of the light of a flat: a dark that holds more was taken with the shutter open
_BLACK = 0.2  # of the usual flat: one that holds less was taken with the shutter closed, or while it moved
_DAZZLED = 5.0  # times the usual flat
_EMPTY = 0.02  # of the brightest flat, which tells what is usual


def sort_out_references(scan: AnyMeasurement) -> tuple[AnyMeasurement, list[str]]:
    """Leave out darks that are lit and flats that are not: the scan with the others, and what is to be said.

    Told by the median of each frame over the measured pixels. Flats of different exposures, up to a factor of five from
    the usual one, stay.

    **Raises:** `InputError` where no flat holds light, or all darks hold that of the flats.

    ```python
    flats = np.full((3, 4, 8), 1000.0)
    flats[1] = 0
    scan = dr.Scan(counts=np.full((2, 4, 8), 500.0), flats=flats, darks=np.zeros((2, 4, 8)))
    scan, said = dr.prepare.sort_out_references(scan)
    assert len(scan.flats) == 2 and said[0].startswith("flat 1 left out")
    ```
    """
    if scan.kind in ("transmission", "line-integrals"):
        return scan, []
    if scan.flats is None or np.shape(scan.flats)[-2:] != scan.frame_shape or np.ndim(scan.flats) > 3:
        return scan, []
    flats, darks = _levels(scan.flats, scan), _levels(scan.darks, scan)
    dark = float(darks.min(initial=np.inf)) if darks.size else 0.0
    light = flats - dark
    usual = float(np.median(light[light > _EMPTY * light.max()])) if light.max() > 0 else 0.0
    good_darks = darks - dark <= _LIT * usual
    if usual <= 0 or (darks.size > 1 and good_darks.sum() < 1):
        raise InputError(
            f"{scan.name}: the flats hold no light (median {np.median(flats):g} counts"
            + (f", darks {np.median(darks):g}" if darks.size else "")
            + "): was the shutter closed, are flats and darks exchanged, or is a file missing that they lie in?"
        )
    good_flats = (light >= _BLACK * usual) & (light <= _DAZZLED * usual)
    said, kept = [], {}
    for kind, good, why in (
        ("flat", good_flats, "far from as bright as the others: shutter closed?"),
        ("dark", good_darks, "lit: shutter open?"),
    ):
        if good.size and not good.all():
            said.append(_line(kind, np.flatnonzero(~good), good.size, why))
            kept[f"{kind}s"] = np.asarray(getattr(scan, f"{kind}s"))[good]
            if f"{kind}_views" in scan.extra:
                places = np.asarray(scan.extra[f"{kind}_views"])[good]
                kept["extra"] = {**kept.get("extra", scan.extra), f"{kind}_views": places}
    return (scan.replace(**kept) if kept else scan), said


def _levels(frames: np.ndarray | None, scan: Measurement) -> np.ndarray:
    """Median of each frame over what was measured."""
    if frames is None or np.shape(frames)[-2:] != scan.frame_shape or np.ndim(frames) > 3:
        return np.zeros(0)
    frames = np.asarray(frames).reshape(-1, *scan.frame_shape)
    frames = frames.reshape(len(frames), -1) if scan.mask is None else frames[:, scan.mask]
    return np.array([np.nanmedian(frame) if np.isfinite(frame).any() else np.nan for frame in frames], float)


def _line(kind: str, which: np.ndarray, total: int, why: str) -> str:
    named = ", ".join(map(str, which[:8])) + (", ..." if which.size > 8 else "")
    return f"{kind}{'s' * (which.size > 1)} {named} left out, {which.size} of {total}: {why}"

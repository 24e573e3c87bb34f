"""Flats, darks and views that are none: a shutter that was open, or closed."""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from ..errors import InputError
from ..frames import AnyMeasurement, Measurement, index_ranges

__all__ = ["leave_out_unlit", "sort_out_references", "unlit_views", "usable_references"]

_LIT = 0.05  # of the light of a flat: a dark that holds more was taken with the shutter open
_BLACK = 0.2  # of the usual flat: one that holds less was taken with the shutter closed, or while it moved
_DAZZLED = 5.0  # times the usual flat
_EMPTY = 0.02  # of the brightest flat, which tells what is usual; of the dark, below which flats hold no light
_PART = 0.05  # of the pixels of a flat, that may be black where the others are lit
_BLOCKED = 20.0  # times less light than in the usual view
_CLIPPED = (0.1, 0.9)  # quantiles of a frame between which its mean is taken
_PHOTONS = 30.0  # of which next to none are black by chance
_FEW_VIEWS = 24
_ROWS = 32  # of the detector in which views without light are looked for


class Usable(NamedTuple):
    """Which reference frames are what they are called.

    **Fields:** `flats`, `darks`, one yes or no a frame; `lines` that say which are not.
    """

    flats: np.ndarray
    darks: np.ndarray
    lines: list[str]


def usable_references(scan: Measurement, groups: int = 1) -> Usable:
    """Tell darks that are lit and flats that are not.

    Told by the mean of each frame over the measured pixels, and of flats by their black part. Flats of different
    exposures, up to a factor of five from the usual one, stay.

    **Arguments:** `groups` of as many flats each, one after the other (of energies): each has its own usual one.

    **Raises:** `InputError` where no flat of a group holds light, or all darks hold that of the flats.
    """
    flats, darks = _frames(scan.flats, scan), _frames(scan.darks, scan)
    levels, black = _levels(flats), _levels(darks)
    dark = float(np.nanmin(black, initial=np.inf)) if darks.size else 0.0
    noise = _noise(darks)
    good, lights = np.ones(len(flats), bool), []
    for number, which in enumerate(np.array_split(np.arange(len(flats)), groups)):
        light = levels[which] - dark
        bright = light[light > _EMPTY * np.nanmax(light)]
        usual = float(np.median(bright)) if bright.size else 0.0
        if usual <= (max(_EMPTY * dark, noise / 2) if darks.size else 0):
            of = f" of energy {number}" * (groups > 1)
            raise InputError(
                f"{scan.name}: the flats{of} hold no light (mean {np.median(levels[which]):.4g} counts"
                + (f", darks {np.median(black):.4g}" if darks.size else "")
                + "): was the shutter closed, are flats and darks exchanged, or is a file missing that they lie in?"
            )
        lights.append(usual)
        good[which] = (light >= _BLACK * usual) & (light <= _DAZZLED * usual)
        good[which[good[which]]] = _whole(flats[which[good[which]]], dark, usual)
    fine = black - dark <= max(_LIT * min(lights, default=np.inf), noise)
    lines = [
        _line(kind, np.flatnonzero(~some), some.size, why)
        for kind, some, why in (
            ("flat", good, "far from as bright as the others: shutter closed?"),
            ("dark", fine, "lit: shutter open?"),
        )
        if not some.all()
    ]
    return Usable(good, fine, lines)


def sort_out_references(scan: AnyMeasurement) -> tuple[AnyMeasurement, list[str]]:
    """Leave out darks that are lit and flats that are not (`usable_references`): the scan with the others, and what is
    to be said.

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
    usable, kept = usable_references(scan), {}
    for kind, good in (("flat", usable.flats), ("dark", usable.darks)):
        if good.size and not good.all():
            kept[f"{kind}s"] = np.asarray(getattr(scan, f"{kind}s"))[good]
            if f"{kind}_views" in scan.extra:
                places = np.asarray(scan.extra[f"{kind}_views"])[good]
                kept["extra"] = {**kept.get("extra", scan.extra), f"{kind}_views": places}
    return (scan.replace(**kept) if kept else scan), usable.lines


def leave_out_unlit(scan: AnyMeasurement) -> tuple[AnyMeasurement, list[str]]:
    """Leave out views without light (`unlit_views`): the scan of the others, and what is to be said."""
    unlit, said = unlit_views(scan)
    return (scan.subset(np.setdiff1d(np.arange(scan.views), unlit)) if unlit.size else scan), said


def unlit_views(scan: Measurement, energy_of: np.ndarray | None = None) -> tuple[np.ndarray, list[str]]:
    """Find the views in which the shutter was closed or something stood in the whole beam, and what is to be said.

    Their brightest parts hold 20 times less light than those of the usual view, and all of them 20 times less than the
    views at the angles beside, of the same energy (`energy_of`, a number a view; one energy by default).
    """
    none = np.zeros(0, int)
    if scan.kind == "line-integrals" or scan.views < 3 or len(scan.counts.shape) != 3:
        return none, []
    dark = np.zeros(scan.frame_shape) if scan.darks is None else np.asarray(scan.darks, float)
    dark = np.median(dark.reshape(-1, *scan.frame_shape), axis=0)  # some may be lit
    good = np.ones(scan.frame_shape, bool) if scan.mask is None else scan.mask
    known = getattr(scan.counts, "summary", None)
    if known is not None:  # of an earlier pass, where every read would unpack the whole file
        brightest = np.median(known.peaks, 1) - np.median(dark)
    elif getattr(scan.counts, "bands", 0):
        return none, []
    else:
        brightest = _brightest_of_rows(scan, dark, good)
    energies, energy_of = np.unique(np.zeros(scan.views) if energy_of is None else energy_of, return_inverse=True)
    usual = np.array([np.median(brightest[energy_of == number]) for number in range(len(energies))])[energy_of]
    dim = np.flatnonzero((brightest <= usual / _BLOCKED) & (usual > 0))
    if not dim.size:
        return none, []

    def light(views: np.ndarray) -> np.ndarray:
        return np.where(good, np.asarray(scan.counts[views], np.float32) - dark, -np.inf)

    unlit = dim[_brightest(light(dim)) <= usual[dim] / _BLOCKED]  # a sample may fill the rows: the whole frames tell
    mean = lambda view: float(np.mean(np.clip(light(np.array([view]))[:, good], None, usual[view])))
    angles = np.zeros(scan.views) if scan.angles is None else np.mod(scan.angles, np.pi)
    order = np.lexsort((angles, energy_of))
    each = np.split(order, np.flatnonzero(np.diff(energy_of[order])) + 1)
    unlit = np.sort(np.concatenate([none, *(run for views in each for run in _sudden(unlit, views, mean))]))
    if not unlit.size:
        return none, []
    said = f"view{'s' * (unlit.size > 1)} {index_ranges(unlit)} left out: 20 times darker than the others, or more: "
    return unlit, [f"{said}shutter closed, or the beam blocked?"]


def _sudden(unlit: np.ndarray, order: np.ndarray, mean: Callable[[Any], float]) -> list[np.ndarray]:
    """Keep the runs of views, in `order` of angle, that begin and end at once: a long sample across the beam dims
    little by little."""
    at = np.flatnonzero(np.isin(order, unlit))
    runs = [run for run in np.split(at, np.flatnonzero(np.diff(at) != 1) + 1) if run.size]
    edges = lambda run: ((run[0], run[0] - 1), (run[-1], run[-1] + 1))
    blocked = _BLOCKED if len(order) > _FEW_VIEWS else 10 * _BLOCKED  # few views see a sample change by more
    lies = lambda outer: 0 <= outer < len(order)
    sudden = lambda inner, outer: not lies(outer) or mean(order[inner]) <= mean(order[outer]) / blocked
    return [order[run] for run in runs if all(sudden(*edge) for edge in edges(run))]


def _brightest_of_rows(scan: Measurement, dark: np.ndarray, good: np.ndarray, block: int = 64) -> np.ndarray:
    """Find the brightest light of each view in rows about the middle."""
    height = scan.frame_shape[0]
    first = max(0, (height - _ROWS) // 2)
    rows = slice(first, min(first + _ROWS, height))
    some = good[rows] if good[rows].any() else np.ones(good[rows].shape, bool)
    found = np.zeros(scan.views)
    for start in range(0, scan.views, block):
        views = slice(start, min(start + block, scan.views))
        light = np.asarray(scan.counts[views, rows], np.float32) - dark[rows]
        found[views] = _brightest(np.where(some, light, -np.inf))
    return found


def _brightest(light: np.ndarray) -> np.ndarray:
    """Find the light of the brightest hundredth of neighbouring pixels of each view: single hot ones are none."""
    light = np.where(np.isfinite(light), light, -np.inf)
    pairs = np.minimum(light[..., 1:], light[..., :-1]) if light.shape[-1] > 1 else light
    return np.quantile(pairs.reshape(len(pairs), -1), 0.99, axis=1, method="lower")


def _frames(frames: np.ndarray | None, scan: Measurement) -> np.ndarray:
    """Give the measured pixels of each frame, `(frame, pixel)`; none where the frames are not of the scan's shape."""
    if frames is None or np.shape(frames)[-2:] != scan.frame_shape or np.ndim(frames) > 3:
        return np.zeros((0, 0))
    frames = np.asarray(frames).reshape(-1, *scan.frame_shape)
    return frames.reshape(len(frames), -1) if scan.mask is None else frames[:, scan.mask]


def _levels(frames: np.ndarray) -> np.ndarray:
    """Mean of each frame, its brightest and darkest pixels clipped: a median of a few photons is 0 or 1."""

    def level(frame: np.ndarray) -> float:
        frame = frame[np.isfinite(frame)]
        return float(np.clip(frame, *np.quantile(frame, _CLIPPED)).mean(dtype=float)) if frame.size else np.nan

    return np.array([level(frame) for frame in frames], float)


def _noise(darks: np.ndarray) -> float:
    """Estimate the standard deviation of a pixel between two darks."""
    changes = [np.abs(one.astype(float) - other) for one, other in zip(darks[1:], darks, strict=False)]
    known = [float(np.nanmedian(change)) for change in changes if np.isfinite(change).any()]
    return 1.4826 * min(known, default=0.0) / np.sqrt(2)  # of those that are alike


def _whole(flats: np.ndarray, dark: float, usual: float) -> np.ndarray:
    """Tell flats that are lit wherever the others are: no shutter moved in them."""
    if len(flats) < 3:
        return np.ones(len(flats), bool)
    several = min(int(np.ceil(_PHOTONS / usual)), max(1, flats.shape[1] // 20))  # pixels, where they hold few photons
    pixels = flats.shape[1] // several * several
    flats = flats[:, :pixels].reshape(len(flats), -1, several).mean(2) if several > 1 else flats
    typical = np.nanmedian(flats, axis=0) - dark
    lit = typical > _BLACK * usual
    black = [np.mean(flat[lit] - dark < _BLACK * typical[lit]) if lit.any() else 0.0 for flat in flats]
    return np.array(black) <= _PART


def _line(kind: str, which: np.ndarray, total: int, why: str) -> str:
    named = ", ".join(map(str, which[:8])) + (", ..." if which.size > 8 else "")
    return f"{kind}{'s' * (which.size > 1)} {named} left out, {which.size} of {total}: {why}"

"""First guesses of powder tomography by the mean pattern: width of the peaks, lattices, what is amorphous."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np
from jaxtyping import Float

from ..errors import InputError, nearest
from ..models import Peaks, Phase, powder_pattern

_SPLINES, _WIDER = (12, 40), 4.0  # of a smooth pattern, at first and at most; times as wide as the peaks
_BEND = 0.3  # typical second difference of its splines, over their mean
_OUTSIDE = 6.0  # standard deviations of a channel
_REACH, _STRIDE = 5e-3, 2.5e-3  # of a linear fit of the lattice; between lattices that are tried beyond


def first_peaks(setup: Any, known: Any, fitted: bool) -> Any:
    """Width of the peaks, and a smooth pattern where none is known, by linear fits of the mean pattern."""
    data = setup.data
    channels, step = len(data.two_theta), float(np.diff(data.two_theta).mean())
    smooth = np.zeros((0, channels)) if not fitted else _bsplines(channels, _SPLINES[0]) if known is None else known
    trials = [Peaks(float(width), response=data.response) for width in step * np.geomspace(0.5, 12, 40)]
    places = _places(setup, trials[::8], np.atleast_2d(smooth))
    fits = [_mean_fit(setup, peaks, np.atleast_2d(smooth), places=places) for peaks in trials]
    best = int(np.argmin([fit[0] for fit in fits]))
    peaks = dataclasses.replace(trials[best], sizes=(1.0,) * len(setup.phases))
    setup = dataclasses.replace(setup, peaks=peaks, strains=fits[best][2])
    if not fitted or known is not None:
        return dataclasses.replace(setup, amorphous=np.atleast_2d(smooth))
    finer = int((data.two_theta[-1] - data.two_theta[0]) / (_WIDER * peaks.width))
    splines = _bsplines(channels, int(np.clip(finer, *_SPLINES)))
    usual = max(float(np.mean(fits[best][1] @ smooth)), 1e-30)
    fit = _mean_fit(setup, peaks, splines, bends(splines) / usual, places)
    pattern = np.maximum(fit[1] @ splines, 0.02 * usual)
    amorphous = (pattern / setup.thickness)[None]
    return dataclasses.replace(setup, amorphous=amorphous, splines=splines)


def _mean_fit(
    setup: Any, peaks: Peaks, smooth: np.ndarray, known: np.ndarray | None = None, places: Any = None
) -> tuple[float, np.ndarray, tuple[float, ...]]:
    """Fit the mean pattern by phases, strained a little, and smooth patterns: the misfit, their amounts, and strains.

    **Arguments:** `known` `(fact, smooth)`: combinations of these amounts that are 0 to within 1; `places`: relative
    lattices about which the phases are strained.
    """
    mean, data, count = setup.mean_pattern(), setup.data, len(setup.phases)
    good = np.isfinite(mean) & (data.solid > 0)
    counts = np.maximum(data.counts.sum((0, 1), dtype=float), 1)
    weight = np.where(good, data.light.sum((0, 1)) / np.sqrt(counts), 0)
    about = np.ones(count) if places is None else places
    every = list(zip(setup.phases.values(), about, strict=True))
    at = lambda s: [powder_pattern(q, data.two_theta, setup.wavelength, peaks, s + p - 1) for q, p in every]
    columns = np.stack([*at(1.0), *(np.array(at(1.001)) - np.array(at(0.999))), *smooth]) * weight
    facts = np.zeros((0, len(smooth))) if known is None else known
    columns = np.hstack([columns, np.vstack([np.zeros((2 * count, len(facts))), facts.T])])
    right = np.r_[np.nan_to_num(mean) * weight, np.zeros(len(facts))]
    size = np.linalg.norm(columns, axis=1) + 1e-30
    solved = np.linalg.lstsq(columns.T / size, right, rcond=1e-6)[0] / size
    amounts, moved = solved[:count], solved[count : 2 * count]
    strains = np.where(amounts > 0, np.clip(0.002 * moved / np.where(amounts > 0, amounts, 1), -3e-3, 3e-3), 0)
    return float(((solved @ columns - right) ** 2).sum()), solved[2 * count :], tuple(map(float, strains + about - 1))


def _places(setup: Any, trials: list[Peaks], smooth: np.ndarray) -> np.ndarray:
    """Find lattices roughly, one after the other, where they may be farther away than a linear fit reaches."""
    far = int(np.ceil((setup.largest - _REACH) / _STRIDE - 1e-6))
    found = np.ones(len(setup.phases))
    for number in [*range(len(found))] * 2 if far else []:
        tried = found + np.arange(-far, far + 1)[:, None] * _STRIDE * (np.arange(len(found)) == number)
        tried[:, number] -= found[number] - 1
        misfits = [min(_mean_fit(setup, peaks, smooth, places=at)[0] for peaks in trials) for at in tried]
        found = tried[int(np.argmin(misfits))]
    return found


def phase_parts(setup: Any) -> dict[str, Float[np.ndarray, " channel"]]:
    """Take the mean pattern apart: what every phase and what is smooth has of it, none below zero [1/sr a photon].

    Channels far above the sum, where a ring of another phase may be, count no more.
    """
    mean, data = setup.mean_pattern(), setup.data
    smooth = setup.amorphous if setup.splines is None else setup.splines
    counts = np.maximum(data.counts.sum((0, 1), dtype=float), 1)
    weight = np.where(np.isfinite(mean) & (data.solid > 0), data.light.sum((0, 1)) / np.sqrt(counts), 0)
    every = zip(setup.phases.values(), setup.strains or (0.0,) * len(setup.phases), strict=True)
    columns = np.stack(
        [*(powder_pattern(q, data.two_theta, setup.wavelength, setup.peaks, 1 + s) for q, s in every), *smooth]
    )
    amounts = np.zeros(len(columns))
    for _ in range(4):
        size = np.linalg.norm(columns * weight, axis=1) + 1e-30
        amounts = _not_negative((columns * weight).T / size, np.nan_to_num(mean) * weight) / size
        above = (np.nan_to_num(mean) - amounts @ columns) * weight
        weight = weight * (above < max(_OUTSIDE * float(np.median(np.abs(above[weight > 0]))) / 0.6745, _OUTSIDE))
    parts = amounts[:, None] * columns
    count = len(setup.phases)
    return dict(zip(setup.phases, parts, strict=False)) | {"": parts[count:].sum(0)}


def _not_negative(columns: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Least squares without what would come out below zero: what does is left out, and the rest solved again."""
    free = np.ones(columns.shape[1], bool)
    while True:
        found = np.zeros(len(free))
        found[free] = np.linalg.lstsq(columns[:, free], right, rcond=1e-6)[0]
        if (found >= 0).all():
            return found
        free &= found > 0


def with_axes(phases: Mapping[str, Phase], changes: Mapping[str, Any]) -> dict[str, Phase]:
    """Tell phases how their c axis changes with the a axis.

    **Raises:** `InputError` for a phase that there is not, and for cells without such axes.
    """
    for name, change in changes.items():
        if name not in phases:
            raise InputError(f"model.c_change: no phase {name!r}{nearest(name, phases)}; there is {', '.join(phases)}")
        if not isinstance(change, int | float) or not abs(change) < 10:
            raise InputError(f"model.c_change of {name}: a number is expected, such as -1.2, not {change!r}")
    axes = lambda name, phase: dataclasses.replace(phase, axial=_axial(phase, name), c_change=float(changes[name]))
    return {name: axes(name, phase) if name in changes else phase for name, phase in phases.items()}


def _axial(phase: Phase, name: str) -> Float[np.ndarray, " ring"]:
    """Share of the c axis in 1/spacing^2 of every ring, of hexagonal or tetragonal cells."""
    if phase.hkl is None:
        raise InputError(f"model.c_change of {name}: its lines need hkl, or name a CIF file in model.phases")
    h, k, index = np.asarray(phase.hkl, float).T
    inverse = (1e-10 / phase.spacing) ** 2
    for in_plane in (h * h + h * k + k * k, h * h + k * k):
        columns = np.stack([in_plane, index**2], 1)
        solved = np.linalg.lstsq(columns, inverse, rcond=None)[0]
        if np.abs(columns @ solved - inverse).max() < 1e-3 * inverse.max() and (solved > 0).all():
            return index**2 * solved[1] / inverse
    raise InputError(f"model.c_change of {name}: its rings are those of no hexagonal or tetragonal cell")


def bends(splines: np.ndarray) -> np.ndarray:
    """Second differences of the amounts of splines, in units of what they typically are where these are one."""
    return np.diff(np.eye(len(splines)), 2, axis=0) / _BEND


def _bsplines(channels: int, count: int) -> np.ndarray:
    """Uniform cubic B-splines over the channels."""
    place = np.linspace(0, count - 3, channels)
    away = np.abs(place - (np.arange(count)[:, None] - 1))
    return np.where(away < 1, 2 / 3 - away**2 + away**3 / 2, np.where(away < 2, (2 - away) ** 3 / 6, 0))

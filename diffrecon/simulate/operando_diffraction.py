"""Powder tomography of a catalyst at work: grains of nickel oxide on a support are reduced to nickel during the scan.

The rays, discs and peaks are those of the still simulation, which shares nothing with the operators; every view sees
the grains as they are at its time. Grains convert one after the other from the outside, one of them never. Nickel stays
where it is, so that a volume of oxide leaves 0.60 of it as metal.
"""

from pathlib import Path
from typing import Any

import h5py
import numpy as np

from ._truth import read_truth
from .diffraction_tomography import STEPS, truth_of, view_of, write_scan_of
from .powders import lines

__all__ = ["METHOD", "SETTINGS", "converted", "grains", "judge", "write"]

METHOD, NAMES = "diffraction-tomography", ("NiO", "Ni")
VIEWS, CHANNELS, KNOTS = 90, 130, 6
SECONDS = 1800.0  # of the scan
ANGLES = np.radians((9.0, 17.5))  # two_theta of the first and the last channel
LEFT = 3.5238**3 / 4.1769**3  # volume of metal from one of oxide: both cells hold four atoms of nickel
LASTS = 0.3  # conversion of a grain, as a share of the scan
SHOWN = 9  # times at which the truth is kept
SETTINGS = (f"model.time_knots={KNOTS}", "solver.patterns=false")


def write(path: str | Path, seed: int = 0) -> dict[str, np.ndarray]:
    """Write counts of patterns with the times of the views, and the truth.

    **Returns:** `NiO`, `Ni` `(time, y, x)`, their relative lattices `<phase>_scale`, at `times` [s], and `course`
    `(phase, view)`, the mean of each over the slice.
    """
    random = np.random.default_rng(seed)
    start, begins = grains(random)
    times = np.linspace(0, SECONDS, VIEWS)
    angles = np.mod(np.arange(VIEWS) * np.pi * (np.sqrt(5) - 1) / 2, np.pi)
    two_theta = np.linspace(ANGLES[0], ANGLES[1], CHANNELS)
    at = lambda time: converted(start, begins, time / SECONDS)
    views = [view_of(at(t), float(a), two_theta, NAMES, False) for t, a in zip(times, angles, strict=True)]
    shown = np.linspace(0, SECONDS, SHOWN)
    maps = [truth_of(at(t), NAMES) for t in shown]
    area = np.pi * start[:, 2] ** 2 / STEPS**2
    truth = {name: np.array([m[name] for m in maps]) for name in maps[0]} | {
        "times": shown, "course": np.array([[at(t)[:, 3 + n] @ area for t in times] for n in range(2)])
    }  # fmt: skip
    write_scan_of(path, random, angles, two_theta, views, {name: lines(name) for name in NAMES}, truth)
    with h5py.File(path, "a") as file:
        file["times"] = times
    return truth


def grains(random: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Draw the support and its grains before the reaction, as rows of `view_of`, and the share of the scan at which
    each begins to convert."""
    rows, begins = [[0, 0, 0.45 * STEPS, 0.04, 0.0, 0.6, 0.0, 4e-4]], [0.1]
    while len(rows) < 8:
        radius, place = random.uniform(1.5, 3.0), random.uniform(-0.35, 0.35, 2) * STEPS
        away, apart = np.hypot(*place), all(np.hypot(*(place - r[:2])) > radius + r[2] for r in rows[1:])
        if apart and away + radius < rows[0][2]:
            rows.append([*place, radius, 0.4, 0.0, -0.4, *random.uniform(-1.5e-3, 1.5e-3, 2)])
            begins.append(0.6 - 0.5 * away / rows[0][2])
    begins[-1] = 2.0  # never
    return np.array(rows), np.array(begins)


def converted(start: np.ndarray, begins: np.ndarray, share: float) -> np.ndarray:
    """Give the discs at a share of the scan's duration."""
    done, now = np.clip((share - begins) / LASTS, 0, 1), start.copy()
    now[:, 3], now[:, 4] = start[:, 3] * (1 - done), LEFT * start[:, 3] * done
    return now


def judge(path: str | Path, result: Any) -> list[str]:
    """Compare maps at the times of the truth, and courses at those of the views, with the truth in the file."""
    shown, course = read_truth(path, "times", "course")
    knots = np.asarray(result["times"], float)
    said = []
    for number, name in enumerate(NAMES):
        truth, scale = read_truth(path, name, f"{name}_scale")
        at = lambda values: np.array([_between(knots, values, t) for t in shown])
        found = at(np.asarray(result[f"{name}_in_time"], float))
        error = np.linalg.norm(found - truth) / np.linalg.norm(truth)
        views = np.interp(np.linspace(0, SECONDS, course.shape[1]), knots, np.asarray(result[f"{name}_course"]))
        off = at(np.asarray(result[f"{name}_scale_in_time"], float)) - scale
        there = (truth > 0.1) & np.isfinite(off)
        ppm = off[there] * 1e6
        worst = np.abs(views - course[number]).max() / course[number].max()
        said.append(
            f"{name} against the truth at {len(shown)} times: relative error {error:.3f}, course off by at most "
            f"{worst:.3f} of its largest, lattice {np.sqrt((ppm**2).mean()):.0f} ppm (bias {ppm.mean():.0f})"
        )
    return said


def _between(knots: np.ndarray, values: np.ndarray, time: float) -> np.ndarray:
    """Interpolate maps at knots linearly."""
    place = float(np.interp(time, knots, np.arange(len(knots))))
    low = min(int(place), len(knots) - 2)
    return (1 - place + low) * values[low] + (place - low) * values[low + 1]

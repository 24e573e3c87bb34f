"""The curve of a mask that is moved over its beamlets: it repeats, it is smooth, and its positions and doses err."""

from typing import NamedTuple

import numpy as np

__all__ = ["Illumination", "repeating_curve"]

_USUAL = (0.005, 0.1)  # errors of doses, and of places [steps]
# Tried: lengths [radian / pi], usual errors (the largest: the curve does not repeat as it is said to), heights
_LENGTHS, _SCALES, _HEIGHTS = np.geomspace(0.2, 4, 12), np.geomspace(0.02, 3, 8), np.geomspace(0.1, 10, 5)
_LEVEL = 100.0  # variance of the mean level, which is not known beforehand
_PERIODS = (0.95, 2.5)  # of the curve that the positions are to cover, at least and at most


class Illumination(NamedTuple):
    """A curve of one period.

    **Fields:** `spectrum` `(half, y, x)`, whose waves add up to the curves from the first place on; `period` [steps];
    `curves` `(place, y, x)` on the grid; `error`, of the places [steps] as they were given.
    """

    spectrum: np.ndarray
    period: float
    curves: np.ndarray
    error: np.ndarray


def repeating_curve(places: np.ndarray, frames: np.ndarray, good: np.ndarray, period: float) -> Illumination | None:
    """Read the curves of all pixels from frames at `places` [steps of an even grid from 0 on], `None` if they do not
    repeat.

    A Gaussian process on a circle: how smooth curves are, and how far places and doses err as usual, is what explains
    the mean of all pixels best (the largest evidence; MacKay 1998). What is left of the mean are errors that
    all pixels share; without them, the same process reads each pixel.

    **Arguments:** `frames` `(place, y, x)`; `period` [steps].
    """
    cover = (np.ptp(places) + 1e-9) / period
    if not _PERIODS[0] < cover < _PERIODS[1] or len(places) < 5:
        return None
    level = frames[:, good].mean()
    mean, photons = frames[:, good].mean(1) / level, 1 / max(float(frames[:, good].sum(1).mean()), 1.0)
    slope = np.gradient(mean, places)
    for _ in range(2):  # how far an error of a place moves a value is a matter of the slope
        slope = _smooth(places, mean, period, slope, photons)[2]
    (length, height, scale), fitted, slope, usual = _smooth(places, mean, period, slope, photons)
    if scale > 0.99 * _SCALES[-1]:
        return None
    off, share = mean - fitted, (_USUAL[0] * fitted) ** 2 + (_USUAL[1] * slope) ** 2
    error, dose = off * slope * _USUAL[1] ** 2 / share, 1 + off * fitted * _USUAL[0] ** 2 / share
    there = places + error
    noise = photons * good.sum() + (0.1 * scale) ** 2 * float(usual.mean())
    inverse = np.linalg.inv(_covariance(there, there, period, length, height) + noise * np.eye(len(there)))
    read = lambda x: _covariance(x, there, period, length, height) @ inverse / dose
    count = 4 * len(places)
    waves = np.fft.rfft(read(np.arange(count) * period / count), axis=0)[: int(period / 2) + 1] / count
    waves[1:] *= 2
    on_grid = np.arange(len(places)) * np.ptp(places) / (len(places) - 1)
    through = lambda matrix: np.tensordot(matrix, frames, 1)
    return Illumination(through(waves), float(period), through(read(on_grid)), error)


def _smooth(
    places: np.ndarray, mean: np.ndarray, period: float, slope: np.ndarray, photons: float
) -> tuple[tuple[float, float, float], np.ndarray, np.ndarray, np.ndarray]:
    """Give length, height and scale of the errors that explain the mean curve best, the curve with its slope, and the
    variance of usual errors.
    """
    usual = (_USUAL[0] * mean) ** 2 + (_USUAL[1] * slope) ** 2
    length, height, scale = tried = max(
        ((n, h, s) for n in _LENGTHS for h in _HEIGHTS for s in _SCALES),
        key=lambda tried: _evidence(places, mean, period, tried, usual, photons),
    )
    noise = np.diag(scale**2 * usual + photons)
    weights = np.linalg.solve(_covariance(places, places, period, length, height) + noise, mean)
    curve = lambda x: _covariance(x, places, period, length, height) @ weights
    return tried, curve(places), (curve(places + 1e-3) - curve(places - 1e-3)) / 2e-3, usual


def _covariance(x: np.ndarray, y: np.ndarray, period: float, length: float, height: float) -> np.ndarray:
    away = np.sin(np.pi * (x[:, None] - y[None]) / period)
    return height**2 * np.exp(-2 * (away / length) ** 2) + _LEVEL


def _evidence(
    places: np.ndarray,
    mean: np.ndarray,
    period: float,
    tried: tuple[float, float, float],
    usual: np.ndarray,
    photons: float,
) -> float:
    length, height, scale = tried
    whole = _covariance(places, places, period, length, height) + np.diag(scale**2 * usual + photons)
    root = np.linalg.cholesky(whole)
    return -0.5 * float((np.linalg.solve(root, mean) ** 2).sum()) - float(np.log(np.diag(root)).sum())

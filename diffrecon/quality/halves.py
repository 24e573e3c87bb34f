"""Reconstructions repeated from parts of the data, or from data drawn anew: resolution and error bars."""

import dataclasses
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from ..errors import InputError
from .correlation import RingCorrelation, ring_correlation, shell_correlation


def even_odd(
    reconstruct: Callable[[Any, np.ndarray], ArrayLike],
    sinogram: ArrayLike,
    angles: ArrayLike,
    *,
    pixel_size: float | None = None,
    mask: ArrayLike | None = None,
    taper: float = 0.25,
) -> RingCorrelation:
    """Measure the resolution of a tomogram from one scan: shell correlation of what its even and its odd views give.

    Views are ordered by angle (modulo a turn) and dealt alternately, so that both halves cover every direction. Where
    half of the views undersample the specimen, their streaks, opposite in both halves, lower the correlation, even
    below zero: the figure is then a pessimistic one. `photon_halves` keeps all views in both.

    **Arguments:** `reconstruct(sinogram, angles) -> (z, y, x)` or `(y, x)`, any method (use the settings of the whole
    volume); `sinogram` with the view first, `angles` [rad]; the rest as `shell_correlation`.

    **Raises:** `InputError` for fewer than four views or angles that do not fit.

    ```python
    def reconstruct(sinogram, angles):
        A = dr.operators.ParallelProjector(angles, (32, 32), 32)
        return dr.solvers.fbp(A, sinogram)

    fsc = even_odd(reconstruct, np.random.rand(20, 32), np.linspace(0, np.pi, 20, endpoint=False))
    ```
    """
    data: Any = sinogram if hasattr(sinogram, "shape") else np.asarray(sinogram)
    turns = np.asarray(angles, np.float64)
    if turns.ndim != 1 or data.shape[0] != turns.size or turns.size < 4:
        raise InputError(
            f"even and odd views: {data.shape[0]} views and angles of the shape {turns.shape}; give one "
            "angle [rad] a view, four at least"
        )
    # A view at 2 pi less rounding is the first direction again, not the last.
    order = np.argsort(np.mod(turns + 1e-7, 2 * np.pi), kind="stable")
    halves = [np.asarray(reconstruct(data[part], turns[part])) for part in (order[::2], order[1::2])]
    return shell_correlation(*halves, pixel_size=pixel_size, mask=mask, taper=taper)


def photon_halves(
    reconstruct: Callable[[np.ndarray], ArrayLike],
    counts: ArrayLike,
    *,
    gain: float = 1.0,
    seed: int = 0,
    pixel_size: float | None = None,
    mask: ArrayLike | None = None,
    taper: float = 0.25,
) -> RingCorrelation:
    """Measure the resolution of a tomogram as far as photon noise limits it: shell correlation of two halves of the
    photons.

    Each photon goes to one half or the other by chance (binomial thinning), so that both are independent Poisson counts
    of all views, as from two scans of half the exposure. What both share counts as signal: streaks of too few views,
    rings, a wrong geometry. With `even_odd`, which such faults lower, it brackets the resolution.

    **Arguments:** `reconstruct(counts) -> (z, y, x)` or `(y, x)`, flat-field and logarithm included; it is given halves
    times two, so that flats and darks stay as they are; `counts` of the detector; `gain` = counts a photon; the rest as
    `shell_correlation`.

    **Raises:** `InputError` for counts that are negative or not finite.

    ```python
    counts = np.random.default_rng(0).poisson(1000 + 100 * np.random.rand(16, 64, 64))
    assert photon_halves(np.asarray, counts).correlation[5] > 0.1
    ```
    """
    photons = np.rint(_checked_counts(counts, gain) / gain).astype(np.int64)
    first = np.random.default_rng(seed).binomial(photons, 0.5)
    halves = [np.asarray(reconstruct((2 * gain * half).astype(np.float32))) for half in (first, photons - first)]
    return shell_correlation(*halves, pixel_size=pixel_size, mask=mask, taper=taper)


@dataclasses.dataclass(frozen=True)
class ErrorBars:
    """Mean and standard `deviation` of each voxel over `draws` reconstructions of redrawn data.

    The deviation itself is known to `1 / sqrt(2 (draws - 1))` of its value in a single voxel, better in regions.
    """

    mean: np.ndarray
    deviation: np.ndarray
    draws: int


def bootstrap_photons(
    reconstruct: Callable[[np.ndarray], ArrayLike],
    counts: ArrayLike,
    *,
    draws: int = 20,
    gain: float = 1.0,
    seed: int = 0,
) -> ErrorBars:
    """Estimate error bars of any reconstruction from photon noise: it is repeated from counts that are drawn anew.

    Poisson draws about the measured counts (parametric bootstrap; Efron & Tibshirani 1993, section 6.5). What is not
    photon noise (wrong geometry, missing views, the prior) is not in it.

    **Arguments:** `reconstruct(counts) -> volume`, flat-field and logarithm included (jit it: all draws have one
    shape); `counts` of the detector; `gain` = counts a photon.

    **Raises:** `InputError` for negative counts or fewer than two draws.

    ```python
    bars = bootstrap_photons(lambda counts: np.sqrt(counts), np.full(1000, 400.0))
    assert abs(bars.deviation.mean() - 0.5) < 0.02
    ```
    """
    measured = _checked_counts(counts, gain)
    random = np.random.default_rng(seed)
    kind = measured.dtype if np.issubdtype(measured.dtype, np.floating) else np.float32
    drawn = lambda: (random.poisson(measured / gain) * gain).astype(kind)
    return _spread((reconstruct(drawn()) for _ in range(draws)), draws)


def bootstrap_views(
    reconstruct: Callable[[np.ndarray], ArrayLike], views: int, *, draws: int = 20, seed: int = 0
) -> ErrorBars:
    """Estimate error bars of a reconstruction from what its views disagree about: it is repeated from views drawn with
    replacement.

    Holds the noise, whatever its law, motion and flat-field errors, and also the streaks of the directions that a draw
    leaves out: an upper bound, meant for well-sampled scans and iterative solvers.

    **Arguments:** `reconstruct(indices) -> volume` from the views of these sorted indices `(view,)`, some more than
    once; `views` = how many there are.

    ```python
    data = np.random.default_rng(0).normal(size=400)
    bars = bootstrap_views(lambda views: data[views].mean(keepdims=True), 400, draws=200)
    assert abs(bars.deviation[0] / 0.05 - 1) < 0.2
    ```
    """
    random = np.random.default_rng(seed)
    drawn = lambda: np.sort(random.integers(0, views, views))
    return _spread((reconstruct(drawn()) for _ in range(draws)), draws)


def _checked_counts(counts: ArrayLike, gain: float) -> np.ndarray:
    measured = np.asarray(counts)
    if not (np.isfinite(measured).all() and (measured >= 0).all()) or not gain > 0:
        raise InputError("counts must be finite and not negative, and the gain (counts a photon) above 0")
    return measured


def _spread(volumes: Iterable[ArrayLike], draws: int) -> ErrorBars:
    """Mean and deviation of volumes that are never held together (Welford 1962)."""
    if draws < 2:
        raise InputError(f"a deviation needs two draws at least, not {draws}")
    mean, squares = np.zeros(()), np.zeros(())
    for number, volume in enumerate(volumes, 1):
        difference = np.asarray(volume, float) - mean
        mean = mean + difference / number
        squares = squares + difference * (np.asarray(volume, float) - mean)
    return ErrorBars(mean, np.sqrt(squares / (draws - 1)), draws)


def distance_halves(
    reconstruct: Callable[[np.ndarray], ArrayLike],
    distances: ArrayLike,
    *,
    pixel_size: float | None = None,
    taper: float = 0.25,
) -> RingCorrelation:
    """Measure the resolution of a phase from holograms at several distances: ring correlation of what odd and even ones
    give.

    Frames are ordered by distance and dealt alternately. Both halves have noise, zeros of the transfer function, flats
    and alignment of their own: the figure is a pessimistic one, as each half also misses frequencies that the other
    shows. `photon_halves`, which keeps all distances in both and sees photon noise alone, brackets it from above.

    **Arguments:** `reconstruct(indices) -> (y, x)`, from the frames of those indices with the settings of the whole
    set; `distances` `(view,)` [m], or numbers in their order; the rest as `ring_correlation`.

    **Raises:** `InputError` for fewer than two distances.

    ```python
    frames = np.random.rand(4, 32, 32)
    frc = distance_halves(lambda views: frames[views].mean(0), [0.021, 0.022, 0.026, 0.033])
    ```
    """
    distances = np.asarray(distances, float)
    if distances.ndim != 1 or distances.size < 2 or not np.isfinite(distances).all():
        raise InputError(
            f"distance_halves: distances of shape {distances.shape}; give one finite distance a frame, "
            "two frames at least"
        )
    order = np.argsort(distances, kind="stable")
    halves = [np.asarray(reconstruct(np.sort(part))) for part in (order[::2], order[1::2])]
    return ring_correlation(*halves, pixel_size=pixel_size, taper=taper)

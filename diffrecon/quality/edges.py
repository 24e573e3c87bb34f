"""Sharpness of an edge."""

import dataclasses
import math

import numpy as np
from numpy.typing import ArrayLike

from ..errors import InputError


@dataclasses.dataclass(frozen=True)
class EdgeFit:
    """An error function fitted to an edge: `width` = 10-90 % distance ([m] with a pixel size, else [pixel]), `centre`
    [pixel], the two levels, and the rms `residual` relative to the step."""

    width: float
    centre: float
    low: float
    high: float
    residual: float


def edge_width(profile: ArrayLike, pixel_size: float | None = None) -> EdgeFit:
    """Measure the sharpness of an edge: least-squares fit of `low + (high - low) (1 + erf((x - centre) / (sqrt 2
    sigma))) / 2`.

    The 10-90 % width is 2.563 sigma.

    **Arguments:** `profile` across one edge, at least 6 pixels; `pixel_size` [m].

    **Raises:** `InputError` when there are too few pixels or no edge.

    ```python
    assert edge_width([0, 0, 0, 0, 1, 1, 1, 1]).width < 1
    ```
    """
    values = np.asarray(profile, float)
    if values.ndim != 1 or values.size < 6 or not np.isfinite(values).all():
        raise InputError(f"an edge profile needs at least six finite numbers in a row, not shape {values.shape}")
    ends = max(values.size // 5, 1)
    low, high = values[:ends].mean(), values[-ends:].mean()
    if abs(high - low) <= 1e-12 * max(abs(high), abs(low), 1e-300):
        raise InputError("the profile has no edge: both ends are equal")
    relative = (values - low) / (high - low)
    centre = float(np.interp(0.5, np.maximum.accumulate(relative), np.arange(values.size)))
    parameters = _fit_edge(values, np.array([low, high, centre, 1.0]))
    low, high, centre, sigma = parameters
    error = values - _edge(parameters, np.arange(values.size))[0]
    width = 2 * 1.2815515655446004 * abs(sigma) * (1.0 if pixel_size is None else pixel_size)
    return EdgeFit(width, float(centre), float(low), float(high), float(np.sqrt(np.mean(error**2)) / abs(high - low)))


def _edge(parameters: np.ndarray, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The model and its derivatives by (low, high, centre, sigma)."""
    low, high, centre, sigma = parameters
    scaled = (x - centre) / sigma
    step = 0.5 * (1 + np.array([math.erf(s / math.sqrt(2)) for s in scaled]))
    slope = (high - low) * np.exp(-0.5 * scaled**2) / math.sqrt(2 * math.pi) / sigma
    return low + (high - low) * step, np.stack([1 - step, step, -slope, -slope * scaled], -1)


def _fit_edge(values: np.ndarray, parameters: np.ndarray, rounds: int = 100) -> np.ndarray:
    """Levenberg-Marquardt; sigma is kept above a twentieth of a pixel, below which samples say nothing."""
    x = np.arange(values.size)
    damping = 1e-3
    model, jacobian = _edge(parameters, x)
    for _ in range(rounds):
        normal = jacobian.T @ jacobian
        step = np.linalg.solve(normal + damping * np.diag(np.diag(normal) + 1e-12), jacobian.T @ (values - model))
        trial = parameters + step
        trial[3] = np.clip(abs(trial[3]), 0.05, values.size)
        new_model, new_jacobian = _edge(trial, x)
        if np.sum((values - new_model) ** 2) <= np.sum((values - model) ** 2):
            done = np.abs(trial - parameters).max() < 1e-10 * max(1.0, np.abs(parameters).max())
            parameters, model, jacobian, damping = trial, new_model, new_jacobian, damping / 3
            if done:
                break
        else:
            damping *= 4
    return parameters

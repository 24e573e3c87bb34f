"""Sharpness of an edge."""

import dataclasses
import itertools
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
    """Sharpness of an edge: least-squares fit of `low + (high - low) (1 + erf((x - centre) / (sqrt 2 sigma))) / 2`.

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


def edge_along(
    image: ArrayLike,
    start: tuple[float, ...],
    end: tuple[float, ...],
    *,
    width: float = 0.0,
    pixel_size: float | None = None,
) -> EdgeFit:
    """`edge_width` of the profile between two points of an image or a volume, in steps of one pixel.

    **Arguments:** `image` `(y, x)` or `(z, y, x)`; `start`, `end` indices of two points either side of one edge, the
    line square to it; `width` [pixel] over which the profile is averaged across the line (averages noise; keep it small
    against the edge's curvature); `pixel_size` [m]. Between pixels values are interpolated linearly, which widens an
    edge of one pixel by some 10 %.

    **Raises:** `InputError` for points outside, or as `edge_width`.

    ```python
    step = np.zeros((16, 16)); step[:, 8:] = 1
    assert edge_along(step, (8, 2), (8, 13), width=3).centre == 5.5
    ```
    """
    data = np.asarray(image, float)
    ends = np.asarray([start, end], float)
    if ends.shape != (2, data.ndim) or data.ndim not in (2, 3):
        raise InputError(f"an edge in an array of the shape {data.shape} lies between two points of as many indices")
    if not ((ends >= 0).all() and (ends <= np.asarray(data.shape) - 1).all()):
        raise InputError(f"the points {start} and {end} are not inside of {data.shape}")
    length = float(np.linalg.norm(ends[1] - ends[0]))
    if length < 5:
        raise InputError(f"the points of an edge are {length:.1f} pixels apart; at least 5 are needed")
    along = (ends[1] - ends[0]) / length
    line = ends[0] + np.arange(int(length + 1e-9) + 1)[:, None] * along
    across = np.linalg.svd(along[None])[2][1:]  # an orthonormal basis of what is square to the line
    steps = np.arange(-int(width / 2), int(width / 2) + 1)
    offsets = [
        np.dot(c, across)
        for c in itertools.product(steps, repeat=data.ndim - 1)
        if np.linalg.norm(c) <= width / 2 + 1e-9
    ]
    return edge_width(np.mean([_interpolated(data, line + offset) for offset in offsets], 0), pixel_size)


def _interpolated(image: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Multilinear interpolation at points `(point, axis)`; the border goes on outside."""
    inside = np.clip(points, 0, np.asarray(image.shape) - 1)
    low = np.minimum(inside.astype(int), np.maximum(np.asarray(image.shape) - 2, 0))
    rest, values = inside - low, np.zeros(len(points))
    for corner in itertools.product((0, 1), repeat=image.ndim):
        weight = np.prod(np.where(corner, rest, 1 - rest), axis=1)
        index = np.minimum(low + corner, np.asarray(image.shape) - 1)
        values += weight * image[tuple(index.T)]
    return values


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

"""Tomograms of known answer, for the tests of solvers: exact line integrals of ellipses, averaged over each column."""

import jax.numpy as jnp
import numpy as np

from diffrecon.operators import ParallelProjector

# value, semi-axes, centre, tilt [rad]; lengths in halves of the width
HEAD = np.array(
    [
        [1.0, 0.66, 0.86, 0.0, 0.0, 0.0],
        [-0.7, 0.6, 0.8, 0.0, 0.0, 0.0],
        [-0.2, 0.11, 0.3, 0.22, 0.0, 0.3],
        [-0.2, 0.16, 0.4, -0.22, 0.0, -0.3],
        [0.2, 0.2, 0.22, 0.0, 0.35, 0.0],
        [0.3, 0.05, 0.05, 0.0, -0.5, 0.0],
    ]
)
BEADS = np.array(
    [
        [0.5, 0.8, 0.7, 0.0, 0.0, 0.4],
        [0.5, 0.1, 0.1, 0.3, 0.3, 0.0],
        [0.5, 0.15, 0.1, -0.35, 0.1, 0.5],
        [-0.4, 0.2, 0.15, 0.1, -0.3, 1.0],
        [1.0, 0.04, 0.04, -0.2, 0.4, 0.0],
        [1.0, 0.06, 0.03, 0.45, -0.1, 0.8],
    ]
)


def line_integrals(ellipses, n: int, angles: np.ndarray, columns: int | None = None, rays: int = 8) -> np.ndarray:
    """`(view, u)` [value x pixel], independent of the package's operators."""
    columns = columns or n
    u = ((np.arange(columns * rays) + 0.5) / rays - columns / 2) / (n / 2)
    total = np.zeros((angles.size, u.size))
    for value, a, b, x0, y0, tilt in ellipses:
        t = angles[:, None] - tilt
        reach = (a * np.cos(t)) ** 2 + (b * np.sin(t)) ** 2
        d = u[None] - (x0 * np.cos(angles) + y0 * np.sin(angles))[:, None]
        total += 2 * value * a * b / reach * np.sqrt(np.clip(reach - d**2, 0, None))
    return total.reshape(angles.size, columns, rays).mean(2) * n / 2


def image(ellipses, n: int, rays: int = 6) -> np.ndarray:
    """Mean over each pixel."""
    g = (np.arange(n * rays) + 0.5) / (n * rays) * 2 - 1
    total = np.zeros((g.size, g.size), np.float32)
    for value, a, b, x0, y0, tilt in ellipses:
        x, y = g[None] - x0, g[:, None] - y0
        along, across = x * np.cos(tilt) + y * np.sin(tilt), y * np.cos(tilt) - x * np.sin(tilt)
        total += value * ((along / a) ** 2 + (across / b) ** 2 <= 1)
    return total.reshape(n, rays, n, rays).mean((1, 3))


def scan(ellipses, n: int, views: int, noise: float = 0.0, seed: int = 0, columns: int | None = None):
    """Projector, data with Gaussian noise (a fraction of the largest), truth, and the noise's standard deviation."""
    angles = np.arange(views) * np.pi / views
    exact = line_integrals(ellipses, n, angles, columns)
    sigma = noise * exact.max()
    data = exact + sigma * np.random.default_rng(seed).standard_normal(exact.shape)
    A = ParallelProjector(angles, (n, n), columns or n, dtype=jnp.float32)
    return A, jnp.asarray(data, jnp.float32), image(ellipses, n), sigma


def error(found, truth) -> float:
    """Relative to the truth."""
    return float(np.linalg.norm(np.asarray(found) - truth) / np.linalg.norm(truth))

"""Exact line integrals through ellipsoids in any pose: the truth that tests and experiments of alignment judge by.

Independent of `diffrecon.operators`. Lengths in pixels from the middle of the volume, (x, y, z).
"""

import numpy as np


def sample(seed: int, size: float, count: int = 30, height: float | None = None, contrast: float = 0.02) -> np.ndarray:
    """Rows of value, semi-axes (3), centre (3), tilt about z: a body with inclusions inside a cylinder of radius
    0.42 size; `height` above `size` goes on beyond what a detector of `size` rows sees."""
    rng = np.random.default_rng(seed)
    height = size if height is None else height
    radius = 0.42 * size
    rows = [[contrast / 2, 0.95 * radius, 0.8 * radius, 0.46 * height, 0, 0, 0, rng.uniform(0, np.pi)]]
    for _ in range(count):
        axes = size * rng.uniform(0.03, 0.12) * rng.uniform(0.6, 1.4, 3)
        r, angle = 0.7 * radius * np.sqrt(rng.random()), 2 * np.pi * rng.random()
        z = rng.uniform(-0.36, 0.36) * height
        value = contrast * rng.choice([-0.4, 0.6, 1.0])
        rows.append([value, *axes, r * np.cos(angle), r * np.sin(angle), z, rng.uniform(0, np.pi)])
    return np.array(rows)


def integrals(ellipsoids: np.ndarray, ray: np.ndarray, point: np.ndarray) -> np.ndarray:
    """Along lines `point + t ray` `(..., 3)`, |ray| = 1: exact."""
    total = np.zeros(point.shape[:-1])
    for value, a, b, c, x, y, z, tilt in ellipsoids:
        turn = np.array([[np.cos(tilt), np.sin(tilt), 0], [-np.sin(tilt), np.cos(tilt), 0], [0, 0, 1]])
        scale = turn / np.array([a, b, c])[:, None]
        d, p = ray @ scale.T, (point - [x, y, z]) @ scale.T
        dd, dp, pp = np.sum(d * d, -1), np.sum(d * p, -1), np.sum(p * p, -1)
        total += value * 2 * np.sqrt(np.clip(dp**2 - dd * (pp - 1), 0, None)) / dd
    return total


def views(
    ellipsoids: np.ndarray,
    angles: np.ndarray,
    detector: tuple[int, int],
    *,
    centre: float,
    shifts=None,
    roll=0.0,
    pitch=0.0,
    magnification=1.0,
    fine: int = 3,
) -> np.ndarray:
    """`(view, row, column)`, each pixel the mean of fine x fine rays; conventions of `diffrecon.operators.detector`."""
    rows, columns = detector
    count = len(angles)
    shifts = np.zeros((count, 2)) if shifts is None else shifts
    roll, pitch, magnification = (np.broadcast_to(v, count) for v in (roll, pitch, magnification))
    offset = (np.arange(fine) + 0.5) / fine - 0.5
    row = (np.arange(rows)[:, None] + offset).ravel() - (rows - 1) / 2
    column = (np.arange(columns)[:, None] + offset).ravel() - centre
    out = np.empty((count, rows, columns))
    for v, angle in enumerate(angles):
        dr, dc = row[:, None] - shifts[v, 0], column[None] - shifts[v, 1]
        w = (np.cos(roll[v]) * dr - np.sin(roll[v]) * dc) / magnification[v]
        u = (np.sin(roll[v]) * dr + np.cos(roll[v]) * dc) / magnification[v]
        across = np.array([np.cos(angle), np.sin(angle), 0])
        beam = np.array([-np.sin(angle), np.cos(angle), 0])
        axis = np.array([0.0, 0, 1])
        ray = np.cos(pitch[v]) * beam - np.sin(pitch[v]) * axis
        up = np.cos(pitch[v]) * axis + np.sin(pitch[v]) * beam
        image = integrals(ellipsoids, ray, w[..., None] * up + u[..., None] * across)
        out[v] = image.reshape(rows, fine, columns, fine).mean((1, 3))
    return out


def noisy(values: np.ndarray, counts: float, seed: int) -> np.ndarray:
    """Line integrals of Poisson counts, `counts` in the empty beam."""
    detected = np.random.default_rng(seed).poisson(counts * np.exp(-values))
    return -np.log(np.maximum(detected, 0.5) / counts)


def volume(ellipsoids: np.ndarray, shape: tuple[int, int, int], fine: int = 3) -> np.ndarray:
    """`(z, y, x)`, each voxel the mean of fine^3 samples."""
    z, y, x = ((np.arange(n * fine) + 0.5) / fine - n / 2 for n in shape)
    total = np.zeros([n * fine for n in shape], np.float32)
    for value, a, b, c, x0, y0, z0, tilt in ellipsoids:
        dx, dy = x - x0, (y - y0)[:, None]
        plane = ((dx * np.cos(tilt) + dy * np.sin(tilt)) / a) ** 2 + ((dy * np.cos(tilt) - dx * np.sin(tilt)) / b) ** 2
        total += value * (plane[None] + (((z - z0) / c) ** 2)[:, None, None] <= 1)
    nz, ny, nx = shape
    return total.reshape(nz, fine, ny, fine, nx, fine).mean((1, 3, 5))

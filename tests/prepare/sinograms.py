"""Exact sinograms of ellipses, independent of the operators."""

import numpy as np


def ellipses(seed: int, count: int = 25) -> np.ndarray:
    """A body with inclusions on [-1, 1]^2: amplitude, semi-axes, centre, tilt [rad]."""
    rng = np.random.default_rng(seed)
    parts = [[0.6, 0.8, 0.66, 0.03, -0.02, 0.2]]
    for _ in range(count):
        radius, angle, size = 0.65 * np.sqrt(rng.random()), 2 * np.pi * rng.random(), rng.uniform(0.02, 0.1)
        parts.append(
            [
                rng.uniform(-0.5, 0.8),
                size,
                size * rng.uniform(0.5, 1),
                radius * np.cos(angle),
                0.8 * radius * np.sin(angle),
                np.pi * rng.random(),
            ]
        )
    return np.array(parts)


def sinogram(parts: np.ndarray, angles: np.ndarray, size: int, columns: int, centre: float) -> np.ndarray:
    """Integrals `(view, u)` at the middles of the columns, about 1 in the middle whatever the size of the slice
    [pixel]; axis on column `centre`."""
    total = np.zeros((len(angles), columns))
    u = (np.arange(columns) - centre) / (size / 2)
    for mu, a, b, x0, y0, tilt in parts:
        t = angles[:, None] - tilt
        reach2 = (a * np.cos(t)) ** 2 + (b * np.sin(t)) ** 2
        d = u[None] - (x0 * np.cos(angles) + y0 * np.sin(angles))[:, None]
        total += 2 * mu * a * b / reach2 * np.sqrt(np.clip(reach2 - d**2, 0, None))
    return total

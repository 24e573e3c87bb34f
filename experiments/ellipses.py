"""Slices and their exact sinograms, made of ellipses: the truth that experiments judge by, independent of
`diffrecon.operators`.

Rows of a table: value, semi-axes a and b, centre x and y, tilt; lengths in pixels from the middle of the slice, x along
the columns, y along the rows, angles in rad.
"""

import numpy as np


def image(table: np.ndarray, size: int, fine: int = 8) -> np.ndarray:
    """The slice, each pixel the mean of fine x fine points."""
    grid = (np.arange(size * fine) + 0.5) / fine - size / 2
    total = np.zeros((grid.size, grid.size), np.float32)
    for value, a, b, x0, y0, tilt in table:
        x, y = grid[None, :] - x0, grid[:, None] - y0
        along, across = x * np.cos(tilt) + y * np.sin(tilt), y * np.cos(tilt) - x * np.sin(tilt)
        total += np.float32(value) * ((along / a) ** 2 + (across / b) ** 2 <= 1)
    return total.reshape(size, fine, size, fine).mean((1, 3))


def sinogram(table: np.ndarray, angles: np.ndarray, columns: int, fine: int = 8) -> np.ndarray:
    """Line integrals `(view, column)` along `x cos + y sin = u`, each bin the mean of so many rays.

    A chord through an ellipse at the distance d from its centre is `2 a b sqrt(r^2 - d^2) / r^2`, with
    `r^2 = a^2 cos^2(angle - tilt) + b^2 sin^2(angle - tilt)`.
    """
    u = (np.arange(columns * fine) + 0.5) / fine - columns / 2
    total = np.zeros((len(angles), u.size))
    for value, a, b, x0, y0, tilt in table:
        reach = (a * np.cos(angles - tilt)) ** 2 + (b * np.sin(angles - tilt)) ** 2
        distance = u[None, :] - (x0 * np.cos(angles) + y0 * np.sin(angles))[:, None]
        total += 2 * value * a * b / reach[:, None] * np.sqrt(np.clip(reach[:, None] - distance**2, 0, None))
    return total.reshape(len(angles), columns, fine).mean(2)

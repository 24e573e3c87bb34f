"""Absorption tomography of overlapping ellipses, a DXchange scan with flats, darks, Poisson noise and an axis off the
middle.

Independent of `diffrecon.operators`: exact line integrals of ellipses, averaged over each detector bin by 8 rays and
over the exposure by 3 angles, before the exponential.
"""

from pathlib import Path

import h5py
import numpy as np

from .._result import Result
from ..io import new_hdf5
from ..quality import ring_correlation

COLUMNS, ROWS, VIEWS = 256, 4, 360
CENTRE = 121.3  # detector column of the axis [pixel]; the middle is 127.5
PIXEL = 1.3e-6  # [m]
PHOTONS = 40000.0  # a pixel of the empty beam
DARK = 100.0
RAYS, ANGLES = 8, 3


def _ellipses(seed: int) -> np.ndarray:
    """Rows of mu [1/pixel], semi-axes, centre, tilt: a body with inclusions, lengths in pixels."""
    rng = np.random.default_rng(seed)
    parts = [[0.004, 95, 78, 0, 0, 0.3], [-0.002, 84, 68, 0, 0, 0.3]]
    for _ in range(24):
        radius, angle = 58 * np.sqrt(rng.random()), 2 * np.pi * rng.random()
        a = rng.uniform(2, 14)
        parts.append(
            [
                rng.choice([-0.002, 0.003, 0.006]),
                a,
                a * rng.uniform(0.4, 1),
                radius * np.cos(angle),
                0.8 * radius * np.sin(angle),
                np.pi * rng.random(),
            ]
        )
    return np.array(parts)


def line_integrals(ellipses: np.ndarray, angles: np.ndarray, u: np.ndarray) -> np.ndarray:
    """Compute exact integrals `(angle, u)` along the rays x cos + y sin = u, for evenly spaced u."""
    total = np.zeros((angles.size, u.size))
    views = np.arange(angles.size)[:, None]
    for mu, a, b, x0, y0, tilt in ellipses:
        t = angles[:, None] - tilt
        reach2 = (a * np.cos(t)) ** 2 + (b * np.sin(t)) ** 2
        middle = (x0 * np.cos(angles) + y0 * np.sin(angles))[:, None]
        width = int(2 * max(a, b) / (u[1] - u[0])) + 2  # rays that can meet the ellipse
        first = np.searchsorted(u, (middle - max(a, b))[:, 0])[:, None]
        rays = np.clip(first, 0, max(u.size - width, 0)) + np.arange(min(width, u.size))
        chord = np.sqrt(np.clip(reach2 - (u[rays] - middle) ** 2, 0, None))
        total[views, rays] += 2 * mu * a * b / reach2 * chord
    return total


def phantom(seed: int, row: int, count: int = 6) -> np.ndarray:
    """Make the slice of a detector row [1/pixel], each pixel the mean of count x count samples."""
    g = (np.arange(COLUMNS * count) + 0.5) / count - COLUMNS / 2
    image = np.zeros((g.size, g.size), np.float32)
    for mu, a, b, x0, y0, tilt in _ellipses(seed + row):
        rows, columns = (slice(*np.searchsorted(g, (c - max(a, b), c + max(a, b)))) for c in (y0, x0))
        x, y = g[None, columns] - x0, g[rows, None] - y0
        along, across = x * np.cos(tilt) + y * np.sin(tilt), y * np.cos(tilt) - x * np.sin(tilt)
        image[rows, columns] += mu * ((along / a) ** 2 + (across / b) ** 2 <= 1)
    return image.reshape(COLUMNS, count, COLUMNS, count).mean((1, 3))


def write(path: Path, seed: int = 0) -> dict[str, np.ndarray]:
    """Simulate and write a DXchange file."""
    rng = np.random.default_rng(seed)
    angles = np.arange(VIEWS) * np.pi / VIEWS
    spread = ((np.arange(ANGLES) + 0.5) / ANGLES - 0.5) * np.pi / VIEWS
    u = (np.arange(COLUMNS * RAYS) + 0.5) / RAYS - 0.5 - CENTRE
    flat = PHOTONS * (1 + 0.2 * np.sin(np.arange(COLUMNS) / 17) + 0.05 * rng.standard_normal((ROWS, COLUMNS)))
    counts = np.empty((VIEWS, ROWS, COLUMNS))
    for row in range(ROWS):
        light = np.mean([np.exp(-line_integrals(_ellipses(seed + row), angles + s, u)) for s in spread], 0)
        counts[:, row] = flat[row] * light.reshape(VIEWS, COLUMNS, RAYS).mean(2)
    frames = {
        "data": rng.poisson(counts + DARK),
        "data_white": rng.poisson(np.broadcast_to(flat + DARK, (20, ROWS, COLUMNS))),
        "data_dark": rng.poisson(np.full((20, ROWS, COLUMNS), DARK)),
    }
    with new_hdf5(path) as file:
        file["implements"] = "exchange:measurement"
        for name, values in frames.items():
            file.create_dataset(
                f"exchange/{name}", data=values.astype("u2"), chunks=(1, ROWS, COLUMNS), compression="gzip"
            )
        file["exchange/theta"] = np.degrees(angles)
        file["exchange/theta"].attrs["units"] = "degrees"
        file["measurement/instrument/detector/pixel_size_x"] = PIXEL * 1e6
        file["measurement/instrument/detector/pixel_size_x"].attrs["units"] = "um"
        file["truth/seed"], file["truth/rotation_centre"] = seed, CENTRE
    return {"seed": np.asarray(seed), "rotation_centre": np.asarray(CENTRE)}


def judge(path: Path, result: Result) -> list[str]:
    """Measure the error of the attenuation in the inscribed disc, its mean, and the rotation centre, against the
    truth."""
    with h5py.File(path, "r") as file:
        seed = int(np.asarray(file["truth/seed"]))
    quantity = result.quantities["volume"]
    volume = quantity.data * (quantity.pixel_size or 1.0)
    truth = np.stack([phantom(seed, row) for row in range(ROWS)])
    g = np.arange(COLUMNS) - (COLUMNS - 1) / 2
    disc = np.hypot(g[:, None], g[None]) < 100
    error = np.linalg.norm((volume - truth)[:, disc]) / np.linalg.norm(truth[:, disc])
    mean = volume[:, disc].mean() / truth[:, disc].mean()
    resolution = ring_correlation(volume[0], truth[0], pixel_size=PIXEL)
    found = float(result.quality["rotation_centre"])
    return [
        f"against the truth: attenuation error {error:.3f} in the disc, mean {mean:.4f} of the true one; "
        f"half-bit resolution {resolution.half_period * PIXEL * 1e6:.2f} um (half period)",
        f"against the truth: rotation centre {found:.2f}, true {CENTRE:.2f}",
    ]

"""Tomography of a slice that changes while it turns: a bubble rises, a crystal grows, a grain dissolves.

Independent of `diffrecon.operators`: exact line integrals of ellipses as they are at the time of each view, averaged
over each detector bin by 4 rays before the exponential. Views follow one another in golden steps of the angle.
"""

from pathlib import Path

import numpy as np

from .._result import Result
from ..scan import Scan
from ._truth import write_with_truth
from .tomography import line_integrals

METHOD = "tomography"
COLUMNS, VIEWS, KNOTS = 64, 240, 6
PHOTONS, DARK, RAYS = 20000.0, 100.0, 4
SECONDS = 12.0  # of the scan
SETTINGS = (f"model.time_knots={KNOTS}", "solver.name=fista", "solver.positive=true", "solver.steps=80")


def specimen(share: float) -> np.ndarray:
    """Tabulate mu [1/pixel], semi-axes, centre [pixel] and tilt of the ellipses at a share of the scan's duration."""
    half = COLUMNS / 2
    table = np.array(
        [
            [0.5, 0.84, 0.84, 0, 0, 0],
            [0.5, 0.10, 0.16, -0.45, 0.3, 0.3],
            [0.4, 0.13, 0.09, 0.1, -0.55, 0.9],
            [-0.5, 0.12, 0.12, -0.15, 0.55 - share, 0],
            [0.5, 0.06 + 0.18 * share, 0.05 + 0.12 * share, 0.42, 0.1, 0.5],
            [0.6 * (1 - share), 0.13, 0.13, 0.3, 0.55, 0],
        ]
    )
    table[:, 0] *= 0.03
    table[:, 1:5] *= half
    return table


def write(path: Path, seed: int = 0) -> dict[str, np.ndarray]:
    """Simulate and write a file of diffrecon's own layout."""
    rng, times = np.random.default_rng(seed), np.linspace(0, SECONDS, VIEWS)
    angles = np.mod(np.arange(VIEWS) * np.pi * (np.sqrt(5) - 1) / 2, 2 * np.pi)
    u = (np.arange(COLUMNS * RAYS) + 0.5) / RAYS - COLUMNS / 2
    lines = [line_integrals(specimen(t / SECONDS), angles[[v]], u)[0] for v, t in enumerate(times)]
    light = PHOTONS * np.exp(-np.reshape(lines, (VIEWS, 1, COLUMNS, RAYS))).mean(-1)
    count = lambda mean: rng.poisson(mean + DARK).astype(np.uint16)
    scan = Scan.from_arrays(
        count(light),
        angles=angles,
        flats=count(np.full((20, 1, COLUMNS), PHOTONS)),
        darks=count(np.zeros((20, 1, COLUMNS))),
        rotation_centre=(COLUMNS - 1) / 2,
        method=METHOD,
        extra={"times": times},
    )
    kept = {"seconds": np.asarray(SECONDS)}
    write_with_truth(path, scan, kept)
    return kept


def truth(share: float, count: int = 5) -> np.ndarray:
    """Draw the slice at a share of the scan's duration [1/pixel], each pixel the mean of count x count samples."""
    g = (np.arange(COLUMNS * count) + 0.5) / count - COLUMNS / 2
    image = np.zeros((g.size, g.size))
    for mu, a, b, x0, y0, tilt in specimen(share):
        x, y = g[None] - x0, g[:, None] - y0
        along, across = x * np.cos(tilt) + y * np.sin(tilt), y * np.cos(tilt) - x * np.sin(tilt)
        image += mu * ((along / a) ** 2 + (across / b) ** 2 <= 1)
    return image.reshape(COLUMNS, count, COLUMNS, count).mean((1, 3))


def judge(path: Path, result: Result) -> list[str]:
    """Compare the volume at twelve times with the truth, in the disc and where anything ever changes."""
    shares = np.linspace(0.06, 0.94, 12)
    true, times = np.stack([truth(s) for s in shares]), result.quantities["times"].data
    volumes = result.quantities["volumes"].data[:, 0] * (result.quantities["volumes"].pixel_size or 1.0)
    place = np.interp(shares * SECONDS, times, np.arange(len(times)))
    low = np.minimum(place.astype(int), len(times) - 2)
    rest = (place - low)[:, None, None]
    frames = (1 - rest) * volumes[low] + rest * volumes[low + 1]
    g = np.arange(COLUMNS) - (COLUMNS - 1) / 2
    disc = np.hypot(g[:, None], g) < 0.48 * COLUMNS
    moving = disc & (np.ptp(true, axis=0) > 0.1 * true.max())
    error = lambda where: np.linalg.norm((frames - true)[:, where]) / np.linalg.norm(true[:, where])
    return [
        f"against the truth, at {len(shares)} times: error {error(disc):.3f} in the disc",
        f"against the truth, at {len(shares)} times: error {error(moving):.3f} where anything changes",
    ]

"""Laminography of a plate with voids, grains and wires that turns about a tilted axis: flats, darks, Poisson noise.

Independent of `diffrecon.operators`: exact chords of a box and of ellipsoids that lie anyhow, by the quadratic that a
ray's meeting with each solves, means over the rays in each detector pixel before the light is counted.
"""

from pathlib import Path

import numpy as np

from .._result import Result
from ..geometry import ParallelBeam
from ..scan import Scan
from ._truth import read_truth, write_with_truth

ROWS, COLUMNS, VIEWS, RAYS = 48, 80, 90, 2  # detector pixels, views of a turn, rays along each side of a pixel
TILT, CENTRE = np.deg2rad(30.0), 41.2  # of the axis out of the plane across the beam; its column, the middle is 39.5
HALF = np.array([28.0, 25.0, 4.0])  # half the plate along x, y, z [pixel]
DENSITY = 0.012  # of the plate [1/pixel]
ENERGY, PIXEL = 20e3, 1e-6  # [eV], [m]
PHOTONS, DARK, FLATS = 20000.0, 100.0, 10  # a pixel of the empty beam, counts, frames
DEPTH = 14  # pixels across the plate that are reconstructed
SETTINGS = (f"model.size=[{DEPTH},{COLUMNS},{COLUMNS}]",)


def write(path: str | Path, seed: int = 0) -> dict[str, np.ndarray]:
    """Simulate and write a scan; the truth lies under `/truth`.

    **Returns:** the truth: `seed`, `tilt` [rad], `rotation_centre` [pixel].
    """
    random = np.random.default_rng(seed)
    angles = np.arange(VIEWS) * 2 * np.pi / VIEWS
    bodies = details(seed)
    beam = PHOTONS * (1 + 0.2 * np.sin(np.arange(COLUMNS) / 17) + 0.05 * random.standard_normal((ROWS, COLUMNS)))
    light = np.stack([np.exp(-line_integrals(bodies, angle)) for angle in angles])
    light = light.reshape(VIEWS, ROWS, RAYS, COLUMNS, RAYS).mean((2, 4))
    frames = lambda mean: random.poisson(mean + DARK).astype(np.uint16)
    scan = Scan.from_arrays(
        frames(beam * light), angles=angles, method="laminography", geometry=ParallelBeam(PIXEL, ENERGY, 0.1),
        flats=frames(np.broadcast_to(beam, (FLATS, ROWS, COLUMNS))), darks=frames(np.zeros((FLATS, ROWS, COLUMNS))),
        rotation_centre=CENTRE, extra={"tilt": TILT},
    )  # fmt: skip
    truth = {"seed": np.asarray(seed), "tilt": np.asarray(TILT), "rotation_centre": np.asarray(CENTRE)}
    write_with_truth(path, scan, truth)
    return truth


def judge(path: str | Path, result: Result) -> list[str]:
    """Measure the error of the attenuation within the plate, and how much of it the slices in the middle have."""
    (seed,) = read_truth(path, "seed")
    quantity = result.quantities["volume"]
    found = np.asarray(quantity.data) * (quantity.pixel_size or 1.0)
    truth = phantom(int(seed), found.shape)
    z, y, x = (np.arange(n) - (n - 1) / 2 for n in found.shape)
    inside = np.ix_(abs(z) < HALF[2], abs(y) < HALF[1], abs(x) < HALF[0])
    found, truth = found[inside], truth[inside]
    details_of = lambda volume: (volume - volume.mean((1, 2), keepdims=True)).ravel()
    alike = np.corrcoef(details_of(found), details_of(truth))[0, 1]
    return [
        f"against the truth: attenuation error {np.linalg.norm(found - truth) / np.linalg.norm(truth):.3f} within the "
        f"plate, mean {found.mean() / truth.mean():.3f} of the true one",
        f"against the truth: details within slices of the plate correlate by {alike:.3f}",
    ]


# ---------------------------------------------------------------------------------------------------- specimen
def details(seed: int) -> list[tuple[float, np.ndarray, np.ndarray]]:
    """List attenuation beside the plate's [1/pixel], middle and matrix of ellipsoids, `|M (r - middle)| <= 1`; (x, y,
    z)."""
    random = np.random.default_rng(1000 + seed)
    room, bodies = HALF - [5.0, 5.0, 2.0], []
    for number in range(26):
        middle = random.uniform(-1, 1, 3) * room
        round_one = number < 18
        semi = random.uniform(1.5, 3.5, 3) if round_one else np.array([random.uniform(6, 12), 1.1, 1.1])
        turn = random.uniform(0, 2 * np.pi)
        along = np.array([np.cos(turn), np.sin(turn), 0.0])  # wires lie in the plate
        axes = np.stack([along, [-along[1], along[0], 0.0], [0.0, 0.0, 1.0]])
        value = random.choice([-DENSITY, 0.02]) if round_one else 0.04
        bodies.append((float(value), middle, axes / semi[:, None]))
    return bodies


def line_integrals(bodies: list[tuple[float, np.ndarray, np.ndarray]], angle: float) -> np.ndarray:
    """Compute exact integrals along the rays of a view, `(row, column)`, RAYS a pixel along each side.

    The specimen has turned by `angle` about its z axis, which leans towards the beam by the tilt: the beam runs along
    cos(tilt) (-sin, cos, 0) + sin(tilt) z, columns along (cos, sin, 0).
    """
    beam = np.array([-np.cos(TILT) * np.sin(angle), np.cos(TILT) * np.cos(angle), np.sin(TILT)])
    across = np.array([np.cos(angle), np.sin(angle), 0.0])
    upward = np.cross(across, beam)
    inside = (np.arange(RAYS) + 0.5) / RAYS - 0.5
    v = (np.arange(ROWS)[:, None] + inside).ravel() - (ROWS - 1) / 2
    u = (np.arange(COLUMNS)[:, None] + inside).ravel() - CENTRE
    total = DENSITY * _box(v[:, None, None] * upward + u[:, None] * across, beam)
    for value, middle, matrix in bodies:
        reach = 1 / np.linalg.norm(matrix, axis=1).min()
        near = np.ix_(abs(v - middle @ upward) < reach, abs(u - middle @ across) < reach)
        start = (v[near[0]][..., None] * upward + u[near[1]][..., None] * across - middle) @ matrix.T
        way = matrix @ beam
        a, b, c = way @ way, start @ way, np.sum(start**2, -1) - 1
        total[near] += value * 2 * np.sqrt(np.clip(b**2 - a * c, 0, None)) / a
    return total


def _box(start: np.ndarray, beam: np.ndarray) -> np.ndarray:
    """Measure how long rays are in the plate: from the last plane at which they enter to the first they leave by."""
    beam = np.where(abs(beam) < 1e-12, 1e-12, beam)
    faces = np.sort(np.stack([(-HALF - start) / beam, (HALF - start) / beam]), axis=0)
    return np.clip(faces[1].min(-1) - faces[0].max(-1), 0, None)


def phantom(seed: int, shape: tuple[int, ...], count: int = 3) -> np.ndarray:
    """Make the attenuation [1/pixel] of voxels `(z, y, x)` about the axis, each the mean of count^3 points."""
    z, y, x = ((np.arange(n * count) + 0.5) / count - n / 2 for n in shape)
    volume = np.zeros((z.size, y.size, x.size), np.float32)
    volume[np.ix_(abs(z) < HALF[2], abs(y) < HALF[1], abs(x) < HALF[0])] = DENSITY
    for value, middle, matrix in details(seed):
        reach = 1 / np.linalg.norm(matrix, axis=1).min()
        near = np.ix_(*(abs(axis - m) < reach for axis, m in zip((z, y, x), middle[::-1], strict=True)))
        points = np.stack(np.broadcast_arrays(x[near[2]], y[near[1]], z[near[0]]), -1) - middle
        volume[near] += np.float32(value) * (np.sum((points @ matrix.T) ** 2, -1) <= 1)
    return volume.reshape(shape[0], count, shape[1], count, shape[2], count).mean((1, 3, 5))

"""Poses, exact line integrals of ellipsoids, and Joseph's method in plain NumPy."""

import numpy as np


def tilted(tilts_deg, views, seed=0):
    """Vectors (ray, row, column) of rotations about z then tilts about the detector's columns."""
    angles = np.concatenate([np.arange(views) * 2 * np.pi / views + 0.1 * i for i in range(len(tilts_deg))])
    tilt = np.repeat(np.deg2rad(tilts_deg), views)
    zero = np.zeros_like(angles)
    column = np.stack([np.cos(angles), np.sin(angles), zero], -1)
    beam, up = np.stack([-np.sin(angles), np.cos(angles), zero], -1), np.stack([zero, zero, zero + 1], -1)
    c, s = np.cos(tilt)[:, None], np.sin(tilt)[:, None]
    return c * beam + s * up, c * up - s * beam, column


def any_pose(views, seed):
    matrices = np.linalg.qr(np.random.default_rng(seed).standard_normal((views, 3, 3)))[0]
    return matrices[:, 0], matrices[:, 1], matrices[:, 2]


def pixel_origins(row, column, detector, offsets):
    k = np.arange(detector[0])[:, None, None] - (detector[0] - 1) / 2 + offsets[0]
    j = np.arange(detector[1])[None, :, None] - (detector[1] - 1) / 2 + offsets[1]
    return k * row + j * column


def joseph(volume, ray, row, column, detector, offsets=(0, 0)):
    """One sample a slice of the dominant axis, bilinear in the other two, zero outside."""
    axis = int(np.argmax(np.abs(ray)))  # component (x, y, z)
    start = pixel_origins(row, column, detector, offsets)
    shape = np.array(volume.shape[::-1])
    padded, total = np.pad(volume, 1), np.zeros(detector)
    for i in range(shape[axis]):
        t = (i - (shape[axis] - 1) / 2 - start[..., axis]) / ray[axis]
        index = start + t[..., None] * ray + (shape - 1) / 2 + 1
        index = np.clip(index, 0, shape + 1 - 1e-9)
        low = np.floor(index).astype(int)
        low[..., axis] = i + 1
        part = index - low
        others = [a for a in range(3) if a != axis]
        for du in (0, 1):
            for dv in (0, 1):
                corner = low.copy()
                corner[..., others[0]] += du
                corner[..., others[1]] += dv
                weight = np.abs(1 - du - part[..., others[0]]) * np.abs(1 - dv - part[..., others[1]])
                corner = np.minimum(corner, shape + 1)
                total += weight * padded[corner[..., 2], corner[..., 1], corner[..., 0]]
    return total * np.linalg.norm(ray) / abs(ray[axis])


ELLIPSOIDS = [  # centre (x, y, z), half axes, value; in units of half the volume
    ((0.0, 0.0, 0.0), (0.62, 0.5, 0.55), 1.0),
    ((0.2, -0.15, 0.1), (0.2, 0.3, 0.25), -0.6),
    ((-0.25, 0.2, -0.2), (0.15, 0.12, 0.2), 0.8),
]


def ellipsoid_volume(n, sub=4):
    fine = (np.arange(n * sub) + 0.5) / (n * sub) * 2 - 1
    z, y, x = np.meshgrid(fine, fine, fine, indexing="ij")
    volume = np.zeros_like(x)
    for (a, b, c), (ra, rb, rc), value in ELLIPSOIDS:
        volume += value * (((x - a) / ra) ** 2 + ((y - b) / rb) ** 2 + ((z - c) / rc) ** 2 < 1)
    return volume.reshape(n, sub, n, sub, n, sub).mean((1, 3, 5))


def ellipsoid_projection(ray, row, column, detector, n, sub=4):
    """Exact line integrals [voxel], averaged over sub x sub rays a pixel."""
    fine = tuple(d * sub for d in detector)
    start = pixel_origins(row / sub, column / sub, fine, (0, 0))
    total = np.zeros(fine)
    for centre, axes, value in ELLIPSOIDS:
        axes = np.array(axes) * n / 2
        p, o = ray / axes, (start - np.array(centre) * n / 2) / axes
        po, pp = o @ p, p @ p
        discriminant = po**2 - pp * ((o**2).sum(-1) - 1)
        total += value * 2 * np.sqrt(np.maximum(discriminant, 0)) / pp
    return total.reshape(detector[0], sub, detector[1], sub).mean((1, 3))


def error(a, b):
    return np.linalg.norm(a - b) / np.linalg.norm(b)

"""Tensor SAXS tomography of an osteon: concentric lamellae whose fibre pitch turns with radius, a canal and pores.

Independent of `diffrecon.operators`: an analytic field of fibres, not voxelised and not band limited in direction,
summed over sub-rays of every raster point and azimuths of every detector segment; each sub-ray is attenuated by itself,
counts are Poisson. Lengths are in voxels, positions and directions (x, y, z) in the frame of the sample.
"""

from pathlib import Path
from typing import NamedTuple

import h5py
import numpy as np
from jaxtyping import Float

from .._result import Result
from ..errors import InputError
from ..io import new_hdf5

SIZE = 22  # volume and raster
TILTS = (0.0, 15.0, 30.0, 45.0)  # [degree]
ROTATIONS = 22  # a tilt
SEGMENTS = 8  # over half a circle
PEAK = 1000.0  # counts of the brightest segment
ATTENUATION = 0.03  # 1/voxel at density one
RADIUS, HALF_HEIGHT = 8.0, 7.0  # of the osteon: at 45 degrees its corners just stay in the raster
CANAL = (1.2, -0.8, 2.4)  # x, y, radius
RAYS, STEP, AZIMUTHS = 2, 0.5, 4  # rays a raster step along each axis, step along the beam, azimuths a segment
SAMPLES = 4  # a voxel along each axis, for the truth


class Fibres(NamedTuple):
    """What fills a point: density, the aligned part of it, its concentration (< 0: scatters across), its axis."""

    density: np.ndarray
    aligned: np.ndarray
    concentration: np.ndarray
    axis: Float[np.ndarray, "point 3"]


def fibres(points: Float[np.ndarray, "point 3"], seed: int) -> Fibres:
    """Give the sample at any points."""
    x, y, z = points.T
    radius, azimuth = np.hypot(x, y), np.arctan2(y, x)
    density = 1 + 0.25 * np.cos(0.35 * z) + 0.2 * np.cos(azimuth)
    outside = (radius > RADIUS - 0.4 + 0.4 * np.cos(3 * azimuth)) | (abs(z) > HALF_HEIGHT)
    density[outside | (np.hypot(x - CANAL[0], y - CANAL[1]) < CANAL[2])] = 0
    for *centre, size in _pores(seed):
        density[np.sum((points - centre) ** 2, 1) < size**2] = 0
    # Twisted plywood: the pitch turns from one side of the long axis to the other on the way out, as in lamellar bone.
    pitch = np.radians(45 - 15 * (radius - 3)) + 0.03 * z
    axis = np.stack([-np.sin(pitch) * np.sin(azimuth), np.sin(pitch) * np.cos(azimuth), np.cos(pitch)], 1)
    return Fibres(density, 0.75 + 0.02 * z, -5 + 1.5 * np.cos(azimuth - 1), axis)


def _pores(seed: int) -> Float[np.ndarray, "pore 4"]:
    """Centres and radii."""
    rng = np.random.default_rng(1000 + seed)
    distance, azimuth, z = rng.uniform(4, 7, 5), rng.uniform(0, 2 * np.pi, 5), rng.uniform(-5.5, 5.5, 5)
    return np.stack([distance * np.cos(azimuth), distance * np.sin(azimuth), z, rng.uniform(1, 1.8, 5)], 1)


def intensity(fibre: Fibres, directions: Float[np.ndarray, "direction 3"]) -> Float[np.ndarray, "point direction"]:
    """Compute the scattering to unit vectors: its mean over the sphere is the density."""
    light = watson(fibre.axis @ directions.T, fibre.concentration[:, None])
    light *= (fibre.density * fibre.aligned)[:, None]  # in place: these arrays are most of the work
    light += (fibre.density * (1 - fibre.aligned))[:, None]
    return light


def watson(cosine: np.ndarray, concentration: np.ndarray) -> np.ndarray:
    """Compute `exp(k cos^2)` divided by its mean over the sphere, `int_0^1 exp(k t^2) dt` (16 Gauss-Legendre nodes)."""
    nodes, weights = np.polynomial.legendre.leggauss(16)
    t2 = ((nodes + 1) / 2) ** 2
    values = np.square(cosine) * concentration
    np.exp(values, out=values)
    values /= np.exp(concentration[..., None] * t2) @ (weights / 2)
    return values


# ---------------------------------------------------------------------------------------------------- the experiment
def write(path: Path, seed: int = 0) -> dict[str, np.ndarray]:
    """Simulate and write a mumott HDF5 file, with the truth under `/truth`.

    **Returns:** the truth: `mean` intensity over directions, relative `anisotropy`, `occupancy` `(z, y, x)` and fibre
    `direction` `(z, y, x, xyz)`; `seed`.

    Cost: about four seconds.
    """
    rng = np.random.default_rng(seed)
    inner, outer = _angles()
    rotations = [turn((1, 0, 0), b) @ turn((0, 0, -1), a) for a, b in zip(inner, outer, strict=True)]
    offsets = rng.uniform(-0.4, 0.4, (len(inner), 2))  # (j, k), what alignment finds
    views = [_view(r, o, seed) for r, o in zip(rotations, offsets, strict=True)]
    attenuated, transmission = (np.stack(parts) for parts in zip(*views, strict=True))
    flux = PEAK / attenuated.max()
    data = rng.poisson(flux * attenuated) / flux / transmission[..., None]
    truth = {**_truth(seed), "seed": np.asarray(seed)}
    with new_hdf5(path) as file:
        _write_geometry(file)
        for n in range(len(inner)):
            group = file.create_group(f"projections/{n}")
            group.create_dataset("data", data=data[n].astype("f4"), compression="gzip")
            group.create_dataset("diode", data=transmission[n].astype("f4"), compression="gzip")
            group["weights"] = np.ones(data[n].shape, "u1")
            group["rotation_matrix"], group["j_offset"], group["k_offset"] = rotations[n], *offsets[n][:, None]
            group["inner_angle"], group["outer_angle"] = inner[n : n + 1], outer[n : n + 1]
            group["inner_axis"], group["outer_axis"] = np.array([0.0, 0, -1]), np.array([1.0, 0, 0])
        for name, values in truth.items():
            file[f"truth/{name}"] = values
    return truth


def _angles() -> tuple[np.ndarray, np.ndarray]:
    """Rotation and tilt of every view; half a turn without tilt, where the other half repeats it."""
    turns = [
        (np.pi if tilt == 0 else 2 * np.pi) * (np.arange(ROTATIONS) + 0.25 * i) / ROTATIONS
        for i, tilt in enumerate(TILTS)
    ]
    return np.concatenate(turns), np.repeat(np.radians(TILTS), ROTATIONS)


def turn(axis: tuple[float, float, float], angle: float) -> Float[np.ndarray, "3 3"]:
    """Make a right-handed rotation about a unit vector (Rodrigues)."""
    along, across = np.outer(axis, axis), np.cross(np.eye(3), axis)  # across @ v = axis x v
    return np.cos(angle) * np.eye(3) + (1 - np.cos(angle)) * along + np.sin(angle) * across


def _view(rotation: np.ndarray, offset: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Attenuated scattering `(J, K, segment)` and transmission `(J, K)`, both for unit flux.

    Beam along y, J along x, K along z, azimuths from x to z; all turned into the sample.
    """
    fine = (np.arange(SIZE * RAYS) + 0.5) / RAYS - SIZE / 2
    depth = np.arange(-0.75 * SIZE, 0.75 * SIZE, STEP) + STEP / 2
    lab = np.meshgrid(fine + offset[0], depth, fine + offset[1], indexing="ij")  # x = J, y = beam, z = K
    points = np.stack([axis.ravel() for axis in lab], 1) @ rotation
    near = np.flatnonzero((abs(points[:, 2]) < HALF_HEIGHT) & (np.hypot(points[:, 0], points[:, 1]) < RADIUS))
    fibre = fibres(points[near], seed)
    j, rest = np.divmod(near, depth.size * fine.size)
    ray = j * fine.size + rest % fine.size
    azimuth = (np.arange(SEGMENTS * AZIMUTHS) + 0.5) / AZIMUTHS - 0.5
    azimuth *= np.pi / SEGMENTS
    directions = np.stack([np.cos(azimuth), 0 * azimuth, np.sin(azimuth)], 1) @ rotation
    light = intensity(fibre, directions).reshape(len(near), SEGMENTS, AZIMUTHS).mean(2)
    scattered = np.stack([_along(ray, values, fine.size) for values in light.T], -1)
    transmission = np.exp(-ATTENUATION * _along(ray, fibre.density, fine.size))
    return _raster(scattered * transmission[..., None]), _raster(transmission)


def _along(ray: np.ndarray, values: np.ndarray, count: int) -> np.ndarray:
    """Integral along each ray, `(count, count)`."""
    return STEP * np.bincount(ray, values, count**2).reshape(count, count)


def _raster(rays: np.ndarray) -> np.ndarray:
    """Mean over the rays of a raster point."""
    return rays.reshape(SIZE, RAYS, SIZE, RAYS, *rays.shape[2:]).mean((1, 3))


def _write_geometry(file: h5py.File) -> None:
    file["detector_angles"] = np.arange(SEGMENTS) * np.pi / SEGMENTS
    file["volume_shape"] = np.full(3, SIZE)
    file["p_direction_0"] = np.array([0.0, 1, 0])
    file["j_direction_0"] = file["detector_direction_origin"] = np.array([1.0, 0, 0])
    file["k_direction_0"] = file["detector_direction_positive_90"] = np.array([0.0, 0, 1])


# ---------------------------------------------------------------------------------------------------- the truth
def _truth(seed: int) -> dict[str, np.ndarray]:
    """Means over every voxel, `(z, y, x)`. Mean and anisotropy are moments over the sphere, without harmonics."""
    centres = np.arange(SIZE) + 0.5 - SIZE / 2
    z, y, x = np.meshgrid(centres, centres, centres, indexing="ij")
    near = (np.hypot(x, y) < RADIUS + 1) & (abs(z) < HALF_HEIGHT + 1)
    voxels = np.stack([x[near], y[near], z[near]], 1)
    directions, weights = _half_sphere()
    light, filled, tensor = np.zeros((len(voxels), len(weights))), np.zeros(len(voxels)), np.zeros((len(voxels), 3, 3))
    steps = (np.arange(SAMPLES) + 0.5) / SAMPLES - 0.5
    for shift in np.stack(np.meshgrid(steps, steps, steps), -1).reshape(-1, 3):
        fibre = fibres(voxels + shift, seed)
        light += intensity(fibre, directions) / SAMPLES**3
        filled += (fibre.density > 0) / SAMPLES**3
        tensor += (fibre.density * fibre.aligned)[:, None, None] * fibre.axis[:, :, None] * fibre.axis[:, None]
    mean = light @ weights
    spread = np.sqrt((light - mean[:, None]) ** 2 @ weights) / np.maximum(mean, 1e-9)
    found = {"mean": mean, "anisotropy": spread, "occupancy": filled, "direction": np.linalg.eigh(tensor)[1][..., -1]}
    truth = {name: np.zeros((*near.shape, *values.shape[1:])) for name, values in found.items()}
    for name, values in found.items():
        truth[name][near] = values
    return truth


def _half_sphere() -> tuple[Float[np.ndarray, "direction 3"], Float[np.ndarray, " direction"]]:
    """Directions and weights of a mean over the half sphere, which is enough for even functions."""
    nodes, weights = np.polynomial.legendre.leggauss(10)
    z, azimuth = (nodes[:, None] + 1) / 2, np.arange(20) * 2 * np.pi / 20
    ring = np.sqrt(1 - z**2)
    directions = np.stack([ring * np.cos(azimuth), ring * np.sin(azimuth), z + 0 * azimuth], -1)
    return directions.reshape(-1, 3), np.repeat(weights / 2 / 20, 20)


def judge(path: Path, result: Result) -> list[str]:
    """Measure the errors of mean, relative anisotropy and fibre direction over the voxels that are full.

    **Raises:** `InputError` when the volume is not the one of the truth.
    """
    with h5py.File(path, "r") as file:
        truth = {name: np.asarray(file[f"truth/{name}"]) for name in ("mean", "anisotropy", "occupancy", "direction")}
    if result["mean"].shape != truth["mean"].shape:
        raise InputError(f"the truth is a volume of {truth['mean'].shape}, the result one of {result['mean'].shape}")
    full = truth["occupancy"] > 0.999
    mean, anisotropy, direction = (np.asarray(result[n], float)[full] for n in ("mean", "anisotropy", "direction"))
    error = np.linalg.norm(mean - truth["mean"][full]) / np.linalg.norm(truth["mean"][full])
    spread = np.sqrt(np.mean((anisotropy - truth["anisotropy"][full]) ** 2))
    cosine = np.abs(np.sum(direction * truth["direction"][full], -1))
    angle = np.degrees(np.arccos(np.clip(cosine, 0, 1)))
    return [
        f"against the truth: mean intensity error {error:.3f}, relative anisotropy error {spread:.3f} rms of "
        f"{truth['anisotropy'][full].mean():.2f}, over {full.sum()} full voxels",
        f"against the truth: fibre direction error {np.median(angle):.1f} degrees median, "
        f"{np.percentile(angle, 90):.1f} degrees 90th percentile",
    ]

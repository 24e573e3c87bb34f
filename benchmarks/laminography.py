"""Laminography: CPU seconds of a projection, its transpose and gradients, by both projectors for any pose; error
against the exact line integrals of a ball.

    python benchmarks/laminography.py [--size 128] [--views 180] [--tilt 30 45] [--poses]
"""

import argparse
import time
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import table

from diffrecon.operators import FourierPoseProjector, PoseProjector, dot_test, laminography_poses


def measure(function: Callable, *arguments: Any, repeats: int = 5) -> float:
    """Median CPU seconds after one warm-up call."""
    jax.block_until_ready(function(*arguments))
    times = []
    for _ in range(repeats):
        start = time.process_time()
        jax.block_until_ready(function(*arguments))
        times.append(time.process_time() - start)
    return float(np.median(times))


def misfit(volume: jax.Array, project: Callable, data: jax.Array) -> jax.Array:
    return jnp.sum((project(volume) - data) ** 2)


def ours(kind: type, size: int, views: int, tilt: float, poses: bool) -> None:
    angles = np.arange(views) * 2 * np.pi / views
    A = kind(*laminography_poses(angles, np.deg2rad(tilt)), (size,) * 3, (size, size))
    volume = jnp.asarray(np.random.default_rng(0).random((size,) * 3), jnp.float32)
    images = A(volume)
    forward, adjoint = measure(A, volume), measure(A.adjoint, images)
    gradient = measure(eqx.filter_jit(jax.grad(misfit)), volume, A, 0.9 * images)
    if kind is FourierPoseProjector:
        case = f"laminography, {size}^3, {views} views"
        table.note(f"{case}: forward", "CPU s", forward)
        table.note(f"{case}: gradient", "CPU s", gradient)
    print(
        f"{kind.__name__:21s} tilt {tilt:.0f}: forward {forward:.2f}, transpose {adjoint:.2f}, volume gradient "
        f"{gradient:.2f} s = {gradient / forward:.1f} forwards; dot test {dot_test(A, A.adjoint, volume):.0e}"
    )
    if poses:

        def cost(rotations, A, volume, data):
            return jnp.sum((A.moved(rotations)(volume) - data) ** 2)

        seconds = measure(eqx.filter_jit(jax.grad(cost)), jnp.zeros((views, 3)), A, volume, 0.9 * images)
        print(f"{'':21s} gradient in all poses {seconds:.2f} s = {seconds / forward:.1f} forwards")


def accuracy(tilt: float, size: int = 64, views: int = 8) -> None:
    """Relative error of the projections of a voxelised ball off the centre, against its exact line integrals."""
    centre, radius, sub = np.array([0.13, -0.21, 0.17]) * size, 0.22 * size, 4
    fine = (np.arange(size * sub) + 0.5) / sub - size / 2
    grid = np.meshgrid(fine, fine, fine, indexing="ij")
    inside = sum((g - c) ** 2 for g, c in zip(grid, centre[::-1], strict=True)) < radius**2
    volume = jnp.asarray(inside.reshape(size, sub, size, sub, size, sub).mean((1, 3, 5)), jnp.float32)
    poses = laminography_poses(np.arange(views) * 2 * np.pi / views + 0.1, np.deg2rad(tilt))
    exact = []
    for _, row, column in zip(*poses, strict=True):
        distance = (fine[:, None] - centre @ row) ** 2 + (fine - centre @ column) ** 2
        chord = 2 * np.sqrt(np.maximum(radius**2 - distance, 0))
        exact.append(chord.reshape(size, sub, size, sub).mean((1, 3)))
    for kind in (FourierPoseProjector, PoseProjector):
        found = np.asarray(kind(*poses, volume.shape, (size, size))(volume))
        print(f"{kind.__name__:21s} tilt {tilt:.0f}: error {np.linalg.norm(found - exact) / np.linalg.norm(exact):.4f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--views", type=int, default=180)
    parser.add_argument("--tilt", type=float, nargs="+", default=[30.0, 45.0])
    parser.add_argument("--poses", action="store_true", help="time the gradient in the poses too")
    options = table.arguments(parser).parse_args()
    for tilt in options.tilt:
        ours(FourierPoseProjector, options.size, options.views, tilt, options.poses)
        ours(PoseProjector, options.size, options.views, tilt, False)
        accuracy(tilt)
    table.keep(options, "python benchmarks/laminography.py --tilt 30")


if __name__ == "__main__":
    main()

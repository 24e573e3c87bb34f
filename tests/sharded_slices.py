"""A volume split over devices: the second half of `sharded_problem.py`."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.experimental import multihost_utils

import diffrecon as dr
from diffrecon import sharding, stream

COLUMNS, VIEWS, SLICES = 16, 24, 6


class Lazy:
    """A sinogram that notes which rows were read."""

    def __init__(self, values):
        self.values, self.shape, self.dtype, self.read = values, values.shape, values.dtype, set()

    def __getitem__(self, index):
        rows = index[1] if isinstance(index, tuple) and len(index) > 1 else slice(None)
        self.read |= set(np.arange(self.shape[1])[rows].tolist())
        return self.values[index]


def problem():
    rng = np.random.default_rng(0)
    angles = np.linspace(0, np.pi, VIEWS, endpoint=False)
    y, x = np.mgrid[:COLUMNS, :COLUMNS] - (COLUMNS - 1) / 2
    volume = rng.uniform(size=(8, COLUMNS, COLUMNS)) * (np.hypot(x, y) < 6)
    shifts = rng.normal(size=VIEWS)
    size = (COLUMNS, COLUMNS)
    data = dr.operators.ParallelProjector(angles, size, COLUMNS, shifts=shifts)(jnp.asarray(volume, jnp.float32))
    # narrow taps: quicker to compile
    A = dr.operators.ParallelProjector(angles, size, COLUMNS, shifts=np.zeros(VIEWS), kernel_width=3, oversampling=2.0)
    return A, np.asarray(data)


def whole(array, axis=0, slices=SLICES):
    """On every process, without the slices of zeros that fill up."""
    array = multihost_utils.process_allgather(array, tiled=True) if jax.process_count() > 1 else array
    return np.take(np.asarray(array), np.arange(slices), axis)


def linear(A, data, mesh, numbers):
    """Six slices, no multiple of four devices."""
    lazy = Lazy(data[:, :SLICES])
    b = sharding.shard_slices(lazy, mesh)
    numbers["rows read"] = np.asarray(sorted(lazy.read))
    split = sharding.OverSlices(A, mesh)
    numbers["forward"] = whole(split(split.adjoint(b)), 1)
    found = (
        dr.solvers.fbp(A, b) if mesh is None else sharding.on_slices(dr.solvers.fbp, mesh, axes=(None, 1), out=0)(A, b)
    )
    numbers["fbp"] = whole(found)
    for name, solver in (("cgls", dr.solvers.cgls), ("sirt", dr.solvers.sirt)):
        solution = solver(split, b, steps=4)  # few: this small problem amplifies rounding tenfold a step
        numbers[name], numbers[f"{name} history"] = whole(solution.x), np.asarray(solution.history)


def geometry(A, data, mesh, numbers):
    """Volume and shifts together: one all-reduce of the gradient of the shifts a step."""
    start = sharding.shard_slices(np.zeros((8, COLUMNS, COLUMNS), np.float32), mesh, axis=0)
    model = dr.models.Tomography(start, sharding.OverSlices(A, mesh))
    cost = lambda model, batch: jnp.mean((model(batch.views) - batch.values) ** 2)
    solve = partial(
        dr.minimise,
        cost,
        model,
        {"values": sharding.shard_slices(data, mesh)},
        steps=25,
        mesh=mesh,
        chunk=10,
        unknowns={"volume": optax.adam(0.05), "projector.projector.shifts": optax.adam(0.05)},
    )
    for name, options in (("all views", {}), ("batches", {"batch_size": 7})):
        solution = solve(**options)
        volume, shifts = solution.value.volume, solution.value.projector.projector.shifts
        if mesh is not None:
            # still split after the solve
            assert len(volume.sharding.device_set) == mesh.size and not volume.is_fully_replicated
            assert shifts.is_fully_replicated
        numbers[f"{name}: volume"], numbers[f"{name}: shifts"] = whole(volume, slices=8), np.asarray(shifts)
        numbers[f"{name}: history"] = solution.history


class Slabs(dict):
    """A writer."""

    write = dict.__setitem__

    def close(self, result=None):
        self.closed = True

    def done(self):
        return set()


def slabs(A, data, numbers):
    """Every process its share of the slices, split over its own devices; nobody waits for anybody."""
    mine = stream.share((0, 8), jax.process_count(), jax.process_index())
    lazy, writer = Lazy(data), Slabs()
    stream.tomography_slabs(
        A, lambda a, b: lazy[:, a:b], writer, slices=mine, slab=3, mesh=sharding.slice_mesh(local=True)
    )
    own = np.concatenate([writer[first] for first in sorted(writer)])
    numbers["slabs"] = multihost_utils.process_allgather(own, tiled=True)
    numbers["rows streamed"] = np.asarray(sorted(lazy.read))


def main(out):
    """Write the numbers of this process to OUT.slices.INDEX.npz."""
    mesh = sharding.slice_mesh()
    A, data = problem()
    numbers = {"devices": np.asarray(jax.device_count())}
    linear(A, data, mesh, numbers)
    geometry(A, data, mesh, numbers)
    slabs(A, data, numbers)
    np.savez(f"{out}.slices.{jax.process_index()}.npz", allow_pickle=False, **numbers)

"""Devices and processes: one mesh axis, `data` over views or `slice` over slices.

Over views the object is replicated, views are split, and one all-reduce a step joins the gradients. In a parallel beam
the volume can be split instead: every device keeps its slices and their detector rows, the projector is on all of them,
and nothing is exchanged but sums (norms of a solver, the gradient of a geometry that all slices share). The same script
runs on one device, on several, and on several processes.
"""

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, PyTree

__all__ = [
    "OverSlices",
    "agree",
    "data_mesh",
    "free_memory",
    "gather",
    "initialise",
    "on_slices",
    "place_of_slices",
    "replicate",
    "shard_slices",
    "shard_views",
    "slice_mesh",
    "splits_slices",
    "total",
    "wait_for_all",
]


def initialise(**settings: Any) -> None:
    """Join the processes of a SLURM or MPI job, or of explicit settings, into one program; does nothing in a single
    process.

    Call it before anything else touches jax. `settings` go to `jax.distributed.initialize` (`coordinator_address`,
    `num_processes`, `process_id`); without them the launcher is detected from its environment variables.
    """
    launched = any(int(os.environ.get(name, "1")) > 1 for name in ("SLURM_NTASKS", "OMPI_COMM_WORLD_SIZE", "PMI_SIZE"))
    if settings or launched:
        jax.distributed.initialize(**settings)


def wait_for_all() -> None:
    """Return when every process has come here; nothing to wait for in a single one."""
    if jax.process_count() > 1:
        from jax.experimental import multihost_utils

        multihost_utils.sync_global_devices("diffrecon")


def data_mesh(devices: int | None = None) -> Mesh | None:
    """A mesh over all devices (or the first `devices`), or `None` where there is only one.

    Axes are of the type `Auto`: the compiler places the communication; explicit axes refuse gathers with split
    positions.
    """
    return _mesh(jax.devices()[:devices], "data")


def slice_mesh(devices: int | None = None, *, local: bool = False) -> Mesh | None:
    """A mesh for split slices over all devices (or the first `devices`, or those of this process only: `local`);
    `None` where there is only one.

    Without communication between slices (filtered back-projection, `stream`) every process may well work by itself:
    `local=True`, and its own share of the slices.
    """
    return _mesh((jax.local_devices() if local else jax.devices())[:devices], "slice")


def gather(values: Array) -> Array | np.ndarray:
    """Give an array that may be split over devices and processes as a whole to every process.

    What lies on one device stays there; what is split comes to the host.
    """
    if len(values.sharding.device_set) == 1:
        return values
    if jax.process_count() == 1 or values.is_fully_replicated:
        return np.asarray(values)
    from jax.experimental import multihost_utils

    return np.asarray(multihost_utils.process_allgather(values, tiled=True))


def total(values: np.ndarray) -> np.ndarray:
    """Add what every process has to that of the others."""
    if jax.process_count() == 1:
        return values
    from jax.experimental import multihost_utils

    return np.asarray(multihost_utils.process_allgather(values)).sum(0)


def agree(values: Any) -> np.ndarray:
    """Take the first process's values of numbers on which processes may differ, such as free memory."""
    if jax.process_count() == 1:
        return np.asarray(values)
    from jax.experimental import multihost_utils

    return np.asarray(multihost_utils.broadcast_one_to_all(np.asarray(values)))


def _mesh(devices: list[Any], axis: str) -> Mesh | None:
    if len(devices) < 2:
        return None
    return jax.make_mesh((len(devices),), (axis,), axis_types=(AxisType.Auto,), devices=devices)


def free_memory(device: Any) -> float:
    """Bytes that are free: on a GPU by its own count, on a CPU of the machine or of the job's control group."""
    stats = device.memory_stats() if device.platform != "cpu" else None
    if stats and "bytes_limit" in stats:
        return float(stats["bytes_limit"] - stats.get("bytes_in_use", 0))
    free = float(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    meminfo = Path("/proc/meminfo")
    if meminfo.exists():
        lines = meminfo.read_text().splitlines()
        free = 1024.0 * next(int(line.split()[1]) for line in lines if line.startswith("MemAvailable"))
    limit, used = (Path(f"/sys/fs/cgroup/memory.{name}") for name in ("max", "current"))
    if limit.exists() and (said := limit.read_text().strip()).isdigit():
        free = min(free, float(said) - float(used.read_text()))
    return free


def shard_views(values: Any, mesh: Mesh | None) -> Array:
    """An array on the devices, its first axis split over the mesh; each process reads only its own part of `values`.

    `values` may be lazy (anything with `shape`, `dtype` and slicing along the first axis). When the number of views is
    no multiple of the number of devices the last view is repeated up to one: `array[:views]` are the views. On a
    `slice_mesh` there is nothing to split by views: what `shard_slices` has split stays so, the rest is replicated.
    """
    if mesh is None:
        return values if isinstance(values, jax.Array) else jax.device_put(np.asarray(values[:]))
    if splits_slices(mesh):
        return replicate(values if isinstance(values, jax.Array) else np.asarray(values[:]), mesh)
    count = values.shape[0]
    padded = -(-count // mesh.size) * mesh.size
    sharding = NamedSharding(mesh, PartitionSpec("data"))

    def read(index: Any) -> np.ndarray:
        start, stop, _ = index[0].indices(padded)
        part = np.asarray(values[min(start, count - 1) : max(min(stop, count), min(start, count - 1) + 1)])
        missing = (stop - start) - part.shape[0]
        return np.concatenate([part, np.repeat(part[-1:], missing, 0)]) if missing > 0 else part

    return jax.make_array_from_callback((padded, *values.shape[1:]), sharding, read)


def shard_slices(values: Any, mesh: Mesh | None, axis: int = 1) -> Array:
    """An array on the devices, its slices split over a `slice_mesh`; each process reads only its own part of `values`.

    **Arguments:** `values` may be lazy (anything with `shape`, `dtype` and slicing along the leading axes); `axis` of
    the slices: 1 in a sinogram (view, z, u), 0 in a volume (z, y, x). When their number is no multiple of the number of
    devices, slices of zeros follow: they add nothing to a norm, and `array[:, :slices]` are the slices.
    """
    if mesh is None:
        return values if isinstance(values, jax.Array) else jax.device_put(np.asarray(values[:]))
    count = values.shape[axis]
    padded = -(-count // mesh.size) * mesh.size
    shape = (*values.shape[:axis], padded, *values.shape[axis + 1 :])

    def read(index: Any) -> np.ndarray:
        start, stop, _ = index[axis].indices(padded)
        part = np.asarray(values[(*index[:axis], slice(min(start, count), min(stop, count)))])
        missing = [(0, 0)] * part.ndim
        missing[axis] = (0, stop - start - part.shape[axis])
        return np.pad(part, missing) if missing[axis][1] else part

    return jax.make_array_from_callback(shape, NamedSharding(mesh, _slices_at(axis)), read)


def place_of_slices(mesh: Mesh | None, axis: int = 1) -> NamedSharding | None:
    """Find where `shard_slices` puts an array; `None` without a mesh."""
    return None if mesh is None else NamedSharding(mesh, _slices_at(axis))


def on_slices(
    function: Callable[..., Array], mesh: Mesh, *, axes: Sequence[int | None], out: int
) -> Callable[..., Array]:
    """`function` of split arrays, called on every device of a `slice_mesh` with its own slices.

    **Arguments:** `axes`: of the slices in each argument, `None` for one that every device has as a whole (a
    projector); `out`: axis of the slices in the result. Can be differentiated in all arguments: gradients of whole ones
    are summed over the devices.
    """
    specs = tuple(PartitionSpec() if axis is None else _slices_at(axis) for axis in axes)

    def mapped(*arguments: Any) -> Array:
        arrays, plain = eqx.partition(arguments, eqx.is_array)
        inner = lambda *own: function(*eqx.combine(own, plain))
        # the compiler would gather whole arrays for a loop over slices: the parts are cut by hand
        return jax.shard_map(inner, mesh=mesh, in_specs=specs, out_specs=_slices_at(out), check_vma=False)(*arrays)

    return mapped


class OverSlices(eqx.Module):
    """A projector of single slices, on volumes and sinograms that are split over a `slice_mesh`.

    Goes wherever the projector goes (`solvers.cgls(OverSlices(A, mesh), sinogram)`): same numbers, but for the order of
    sums. Without a mesh it is the projector.

    ```python
    A = dr.operators.ParallelProjector(np.linspace(0, np.pi, 60, endpoint=False), (32, 32), 32)
    split = OverSlices(A, slice_mesh())
    image = split.adjoint(shard_slices(np.ones((60, 4, 32), "f4"), split.mesh))
    ```
    """

    projector: Any
    mesh: Mesh | None = eqx.field(static=True)

    @property
    def angles(self) -> Any:
        """Those of the projector [rad]."""
        return self.projector.angles

    def __call__(self, volume: Array, views: Any = None) -> Array:
        """(z, y, x) -> (view, z, u), both split along z."""
        if self.mesh is None:
            return self.projector(volume, views)
        return on_slices(lambda A, x, v: A(x, v), self.mesh, axes=(None, 0, None), out=1)(self.projector, volume, views)

    def adjoint(self, sinogram: Array, views: Any = None) -> Array:
        """(view, z, u) -> (z, y, x), both split along z."""
        if self.mesh is None:
            return self.projector.adjoint(sinogram, views)
        back = on_slices(lambda A, y, v: A.adjoint(y, v), self.mesh, axes=(None, 1, None), out=0)
        return back(self.projector, sinogram, views)


def _slices_at(axis: int) -> PartitionSpec:
    return PartitionSpec(*[None] * axis, "slice")


def replicate(tree: PyTree, mesh: Mesh | None) -> PyTree:
    """Every array of a pytree as a whole on every device of the mesh (on the default device without one).

    Arrays that are split over a `slice_mesh` stay as they are.
    """
    if mesh is None:
        return jax.tree.map(lambda leaf: jnp.asarray(leaf) if isinstance(leaf, np.ndarray) else leaf, tree)
    sharding = NamedSharding(mesh, PartitionSpec())

    def place(leaf: Any) -> Any:
        if not isinstance(leaf, jax.Array | np.ndarray) or _is_split(leaf, mesh):
            return leaf
        host = np.asarray(leaf)
        return jax.make_array_from_callback(host.shape, sharding, lambda index: host[index])

    return jax.tree.map(place, tree)


def splits_slices(mesh: Mesh | None) -> bool:
    """Tell whether a mesh is a `slice_mesh`."""
    return mesh is not None and mesh.axis_names == ("slice",)


def _is_split(leaf: Any, mesh: Mesh) -> bool:
    """Tell whether an array lies on this mesh in slices."""
    placed = getattr(leaf, "sharding", None)
    return isinstance(placed, NamedSharding) and placed.mesh == mesh and "slice" in placed.spec

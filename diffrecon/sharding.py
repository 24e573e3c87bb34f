"""Devices and processes: one mesh axis `data` over views.

The object is replicated, views are split, and one all-reduce a step joins the gradients. The same script runs on one
device, on several, and on several processes.
"""

import os
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, PyTree

__all__ = ["data_mesh", "initialise", "replicate", "shard_views", "wait_for_all"]


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
    available = jax.devices()[:devices]
    if len(available) < 2:
        return None
    return jax.make_mesh((len(available),), ("data",), axis_types=(AxisType.Auto,), devices=available)


def shard_views(values: Any, mesh: Mesh | None) -> Array:
    """An array on the devices, its first axis split over the mesh; each process reads only its own part of `values`.

    `values` may be lazy (anything with `shape`, `dtype` and slicing along the first axis). When the number of views is
    no multiple of the number of devices the last view is repeated up to one: `array[:views]` are the views.
    """
    if mesh is None:
        return values if isinstance(values, jax.Array) else jax.device_put(np.asarray(values[:]))
    count = values.shape[0]
    padded = -(-count // mesh.size) * mesh.size
    sharding = NamedSharding(mesh, PartitionSpec("data"))

    def read(index: Any) -> np.ndarray:
        start, stop, _ = index[0].indices(padded)
        part = np.asarray(values[min(start, count - 1):max(min(stop, count), min(start, count - 1) + 1)])
        missing = (stop - start) - part.shape[0]
        return np.concatenate([part, np.repeat(part[-1:], missing, 0)]) if missing > 0 else part

    return jax.make_array_from_callback((padded, *values.shape[1:]), sharding, read)


def replicate(tree: PyTree, mesh: Mesh | None) -> PyTree:
    """Every array of a pytree as a whole on every device of the mesh (on the default device without one)."""
    if mesh is None:
        return jax.tree.map(lambda leaf: jnp.asarray(leaf) if isinstance(leaf, np.ndarray) else leaf, tree)
    sharding = NamedSharding(mesh, PartitionSpec())

    def place(leaf: Any) -> Any:
        if not isinstance(leaf, jax.Array | np.ndarray):
            return leaf
        host = np.asarray(leaf)
        return jax.make_array_from_callback(host.shape, sharding, lambda index: host[index])

    return jax.tree.map(place, tree)

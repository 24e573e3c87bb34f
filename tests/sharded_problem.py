"""Two small problems for `test_sharding.py`, which compares their numbers on one device, four, and two processes: a
stochastic one, whose views are split, and that of `sharded_slices.py`, whose slices are.

`python sharded_problem.py OUT [coordinator processes index]` writes the numbers of each process to OUT.views.INDEX.npz
and OUT.slices.INDEX.npz.
"""

import sys

import jax
import jax.numpy as jnp
import numpy as np
import optax
import sharded_slices

import diffrecon as dr


class Lazy:
    """Frames that note which views were read."""

    def __init__(self, values):
        self.values, self.shape, self.dtype, self.read = values, values.shape, values.dtype, set()

    def __getitem__(self, index):
        self.read |= set(np.atleast_1d(np.arange(self.shape[0])[index]).tolist())
        return self.values[index]


def problem():
    """Thirteen views (no multiple of any number of devices) of an object through known masks."""
    rng = np.random.default_rng(0)
    masks = rng.uniform(0.2, 1, (13, 6, 8)).astype(np.float32)
    truth = rng.uniform(1, 3, (6, 8)).astype(np.float32)
    counts = rng.poisson(100 * masks * truth).astype(np.uint16)
    return masks, counts


def cost(model, batch):
    assert batch.counts.dtype == jnp.uint16
    return dr.losses.poisson(100 * model * batch.masks, batch.counts)


def views(out):
    masks, counts = problem()
    numbers = {}
    for size, held in ((None, []), (None, [2, 9]), (4, []), (5, [2, 9])):
        lazy = Lazy(counts)
        data = {"masks": masks, "counts": lazy}
        solution = dr.minimise(
            cost,
            jnp.ones((6, 8)),
            data,
            optax.adam(0.05),
            steps=30,
            chunk=11,
            batch_size=size,
            held_out=held,
            checkpoint=f"{out}.state.npz" if held else None,  # which looks at frames of all views, to know them again
            resident=0 if size == 5 else None,  # read ahead, block by block
        )
        name = f"batches of {size}, {len(held)} held out"
        numbers[name] = np.concatenate([np.ravel(solution.value), solution.history, np.ravel(solution.held_out)])
        if not held:
            numbers[f"views read, {size}"] = np.asarray(sorted(lazy.read))
    resumed = dr.minimise(
        cost,
        jnp.ones((6, 8)),
        {"masks": masks, "counts": counts},
        optax.adam(0.05),
        steps=60,
        chunk=11,
        held_out=[2, 9],
        batch_size=5,
        checkpoint=f"{out}.state.npz",
        resume=True,
    )
    numbers["resumed"] = resumed.history
    numbers["devices"] = np.asarray(jax.device_count())
    np.savez(f"{out}.views.{jax.process_index()}.npz", allow_pickle=False, **numbers)


def main(out, *processes):
    if processes:
        jax.config.update("jax_cpu_collectives_implementation", "gloo")
        address, count, index = processes
        dr.sharding.initialise(coordinator_address=address, num_processes=int(count), process_id=int(index))
    views(out)
    sharded_slices.main(out)


if __name__ == "__main__":
    main(*sys.argv[1:])

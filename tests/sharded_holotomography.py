"""The holotomography recipe, for `test_sharding_holotomography.py`, which compares one process with two.

`python sharded_holotomography.py OUT [coordinator processes index]` writes the numbers of each process to
OUT.index.npz.
"""

import sys

import jax
import numpy as np

from diffrecon import recipes, sharding
from diffrecon.simulate import _holotomography as simulated


def main(out, *processes):
    if processes:
        jax.config.update("jax_cpu_collectives_implementation", "gloo")
        address, count, index = processes
        sharding.initialise(coordinator_address=address, num_processes=int(count), process_id=int(index))
    setup = simulated.Setup(angles=9, distances=2, frame=16, counts=3000.0, wobble=0.3, centre=0.4, grains=False)
    scan, _ = simulated.measure(setup)
    result = recipes.reconstruct(scan, settings={"model": {"centre": False}, "solver": {"steps": 3, "align": 1}})
    np.savez(f"{out}.{jax.process_index()}.npz", allow_pickle=False, devices=jax.device_count(),
             delta=result["delta"], shifts=result["shifts"], history=result.quality["history"],
             held=result.quality["held_out_deviance"])


if __name__ == "__main__":
    main(*sys.argv[1:])

"""Few views: total variation, its weight chosen by views left out, beside filtered back-projection, against the truth.

    python benchmarks/few_views.py [--size 256] [--views 60] [--noise 0.01] [--seed 0]

The Shepp-Logan phantom by exact, bin-averaged ellipse projections (the generator of projection.py) with Gaussian noise
of the given share of the largest line integral.
"""

import argparse
import time

import jax.numpy as jnp
import numpy as np
import table
from projection import exact_sinogram, phantom

import diffrecon as dr


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--views", type=int, default=60)
    parser.add_argument("--noise", type=float, default=0.01)
    parser.add_argument("--seed", type=int, default=0)
    options = table.arguments(parser).parse_args()
    n, angles = options.size, np.arange(options.views) * np.pi / options.views
    truth, exact = phantom(n), exact_sinogram(n, angles)
    noise = options.noise * exact.max() * np.random.default_rng(options.seed).standard_normal(exact.shape)
    sinogram = jnp.asarray(exact + noise, jnp.float32)
    A = dr.operators.ParallelProjector(angles, (n, n), n)
    error = lambda image: float(np.linalg.norm(np.asarray(image) - truth) / np.linalg.norm(truth))
    ramp, hann = (error(dr.solvers.fbp(A, sinogram, filter=name)) for name in ("ramp", "hann"))
    for run in ("with compilation", "again"):
        start = time.process_time()
        choice = dr.solvers.choose_weight(A, sinogram, dr.penalties.TotalVariation(), bounds=(0.0, None))
        found, spent = error(choice.solution.x), time.process_time() - start
        print(f"total variation, {run}: CPU {spent:.1f} s, {choice.message}")
    print(
        f"{n} pixels, {options.views} views, noise {options.noise:g}, seed {options.seed}: error of FBP {ramp:.3f} "
        f"(ramp), {hann:.3f} (Hann); of TV {found:.4f}: {ramp / found:.1f} and {hann / found:.1f} times lower"
    )

    case = f"few views, {n} x {n}, {options.views} views, noise {options.noise:g}: total variation"
    table.note(case, "error", found)
    table.note(case, "error", min(ramp, hann), "filtered back-projection")
    table.note(case, "CPU s", spent)
    table.keep(options, "python benchmarks/few_views.py")


if __name__ == "__main__":
    main()

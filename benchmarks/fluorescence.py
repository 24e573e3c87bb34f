"""Fluorescence tomography beside what is usual: EM with absorption ignored, and the alternation.

    python benchmarks/fluorescence.py fluorescence_2d_n64.h5

The file is one that `open_scan` reads, with true densities [g/cm^3] below `truth/density`. Relative error over the
field, and mass over the true one; processor seconds of a second run, without compilation.
"""

import argparse
import time

import h5py
import jax
import jax.numpy as jnp
import numpy as np
import table

import diffrecon as dr

METHODS = {
    "EM, absorption ignored": {"name": "alternate", "sweeps": 1},
    "alternation, 2 sweeps": {"name": "alternate", "sweeps": 2},
    "alternation, 4 sweeps": {"name": "alternate"},
    "all components in one likelihood, sparse edges": {},
}


def without_absorption(scan: dr.Scan) -> dr.Scan:
    """The same counts, as if nothing were absorbed."""
    tables = dict(scan.extra["cross_sections"])
    tables |= {"beam": 1e-9 * tables["beam"], "lines": 1e-9 * tables["lines"]}
    rest = {key: value for key, value in scan.extra.items() if not key.startswith("transmitted")}
    return scan.replace(extra={**rest, "cross_sections": tables})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file")
    parser.add_argument("--once", action="store_true", help="time the first run, with compilation")
    options = table.arguments(parser).parse_args()
    scan = dr.open_scan(options.file)
    with h5py.File(options.file) as file:
        truth = {name: values[()] for name, values in file["truth/density"].items()}
    names = [name for name in scan.extra["cross_sections"]["components"][1:] if name in truth]
    print("| method | CPU s |", " | ".join(names), "|")
    for label, solver in METHODS.items():
        given = without_absorption(scan) if "ignored" in label else scan
        for _ in range(1 if options.once else 2):
            start = time.process_time()
            result = dr.reconstruct(given, settings={"solver": solver})
            spent = time.process_time() - start
        found = {name: np.asarray(result[name], float) for name in names}
        error = {n: np.linalg.norm(found[n] - truth[n]) / np.linalg.norm(truth[n]) for n in names}
        case = f"fluorescence tomography, {scan.counts.shape[2]} points, {len(np.unique(scan.angles))} views"
        if not solver:
            table.note(f"{case}: default", "CPU s", spent)
        if not solver or "ignored" in label:
            program = label if solver else table.OURS
            table.note(f"{case}: default", f"mean error of {', '.join(names)}", np.mean(list(error.values())), program)
        cells = [f"{error[n]:.3f}, {found[n].sum() / truth[n].sum():.3f}" for n in names]
        print(f"| {label} | {spent:.1f} |", " | ".join(cells), "|", flush=True)
    spent = gradient(scan)
    print(f"one gradient through both absorptions: {spent:.3f} CPU s, median of 15")
    table.note("fluorescence tomography, gradient through both absorptions", "CPU s", spent)
    table.keep(options, "python benchmarks/fluorescence.py fluorescence_2d_n64.h5")


def gradient(scan: dr.Scan) -> float:
    """Time the gradient of the likelihood of all counts by all densities, compiled before."""
    model = dr.models.Fluorescence.from_scan(scan)
    density = 0.3 * jax.random.uniform(jax.random.key(0), model.scaled.shape)
    views = jnp.arange(len(model.angles))
    counts = 1.05 * model.replace(scaled=density)(views)

    @jax.jit
    @jax.grad
    def slope(scaled, counts):
        expected = model.replace(scaled=scaled)(views)
        return jnp.sum(expected - counts * jnp.log(jnp.maximum(expected, 1e-3)))

    spent = []
    for _ in range(16):
        start = time.process_time()
        jax.block_until_ready(slope(density, counts))
        spent.append(time.process_time() - start)
    return float(np.median(spent[1:]))


if __name__ == "__main__":
    main()

"""Every view shifted at random, the detector rolled, the axis off the middle, photon noise: is the geometry found?

    python experiments/alignment/run.py [--size 96] [--rows 48] [--views 64] [--counts 10000] [--seed 0]

Prints the row of the table in README.md and writes alignment.png.
"""

import argparse
import sys
import time
from pathlib import Path

import jax.numpy as jnp
import numpy as np

import diffrecon as dr
from diffrecon import plot
from diffrecon.motion import Motion
from diffrecon.operators import AlignedProjector
from diffrecon.solvers import align

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parents[1] / "tests"))
import moving_ellipsoids as truth  # noqa: E402

LARGEST, ROLL, OFF = 5.0, np.radians(0.5), 7.0  # [pixel], [rad], [pixel]
CGLS_STEPS = 15


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in (("size", 96), ("rows", 48), ("views", 64), ("counts", 10000), ("seed", 0), ("turn", 180)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--height", type=float, help="of the sample [pixel]; the rows by default")
    parser.add_argument("--output", type=Path, default=HERE)
    options = parser.parse_args()
    detector, views = (options.rows, options.size), options.views
    angles = np.linspace(0, np.radians(options.turn), views, endpoint=False)
    rng = np.random.default_rng(options.seed + 100)
    sample = truth.sample(options.seed, options.size, height=options.height or options.rows)
    true = {"centre": (options.size - 1) / 2 + OFF, "shifts": rng.uniform(-LARGEST, LARGEST, (views, 2)), "roll": ROLL}
    data = truth.noisy(truth.views(sample, angles, detector, **true), options.counts, options.seed)

    begun = time.process_time()
    found = align(data, angles)
    seconds = time.process_time() - begun
    print("\n".join(found.messages))
    errors, aligned = compare(found.motion, true, angles)
    values = jnp.asarray(data, jnp.float32)
    slices = {}
    middle = (data.shape[2] - 1) / 2
    for name, geometry in (
        ("as given", Motion(middle)),
        ("found", found.motion),
        ("true geometry", aligned),
    ):
        A = AlignedProjector(angles, (options.size,) * 2, detector, geometry, slices=found.projector.volume_shape[0])
        slices[name] = dr.solvers.cgls(A, values, steps=CGLS_STEPS).x
    shape = found.projector.volume_shape
    exact = truth.volume(displaced(sample, found.motion, true, angles), shape)
    rows = slice((shape[0] - options.rows) // 2 + 6, (shape[0] + options.rows) // 2 - 6)
    error = {n: float(np.linalg.norm(v[rows] - exact[rows]) / np.linalg.norm(exact[rows])) for n, v in slices.items()}
    print(
        f"| {options.size} | {options.rows} | {options.turn} | {options.counts} | {options.seed} | "
        f"{errors['row']:.4f} | {errors['column']:.4f} | {errors['centre']:+.4f} | {errors['roll']:+.4f} | "
        f"{error['as given']:.3f} | {error['found']:.4f} | {error['true geometry']:.4f} | {seconds:.0f} |"
    )
    draw(slices | {"truth": exact}, found.motion, errors["true shifts"], options.output / "alignment.png")


def compare(found: Motion, true: dict, angles: np.ndarray) -> tuple[dict, Motion]:
    """Errors less the motions of the sample that no data can tell, and the true geometry with these motions."""
    motions = _motions(angles, true["roll"])
    difference = np.asarray(found.shifts, float) - true["shifts"]
    difference[:, 1] += float(found.centre) - true["centre"]
    fit = np.linalg.lstsq(motions, difference.ravel(), rcond=None)[0]
    rest = (difference.ravel() - motions @ fit).reshape(-1, 2)
    same = (true["shifts"].ravel() + motions[:, 1:] @ fit[1:]).reshape(-1, 2)
    same[:, 1] -= float(found.centre) - true["centre"]
    geometry = Motion(found.centre, shifts=same, roll=true["roll"])
    row, column = np.sqrt(np.mean(rest**2, axis=0))
    return {
        "row": row,
        "column": column,
        "centre": fit[0],
        "roll": np.degrees(float(found.roll) - true["roll"]),
        "true shifts": same,
    }, geometry


def displaced(sample: np.ndarray, found: Motion, true: dict, angles: np.ndarray) -> np.ndarray:
    """The sample where the found geometry puts it."""
    difference = np.asarray(found.shifts, float) - true["shifts"]
    difference[:, 1] += float(found.centre) - true["centre"]
    _, z, x, y = np.linalg.lstsq(_motions(angles, true["roll"]), difference.ravel(), rcond=None)[0]
    moved = sample.copy()
    moved[:, 4:7] -= [x, y, z]
    return moved


def _motions(angles: np.ndarray, roll: float) -> np.ndarray:
    """Columns: centre, and sample moved along z, x, y, as (row, column) of every view."""
    one, none = np.ones(angles.size), np.zeros(angles.size)
    pairs = [(none, one), (one * np.cos(roll), -one * np.sin(roll))]
    pairs += [(t * np.sin(roll), t * np.cos(roll)) for t in (np.cos(angles), np.sin(angles))]
    return np.array([np.stack(pair, 1).ravel() for pair in pairs]).T


def draw(slices: dict, geometry: Motion, true: np.ndarray, path: Path) -> None:
    from matplotlib.figure import Figure

    page = Figure(figsize=(13, 5.6), layout="constrained")
    grid = page.subplots(2, 4)
    limits = (0.0, float(np.percentile(slices["truth"], 99.5)))
    for ax, (name, volume) in zip(grid[0], slices.items(), strict=True):
        plot.image(np.asarray(volume)[volume.shape[0] // 2], units="1/pixel", title=name, limits=limits, ax=ax)
    for ax, i, name in zip(grid[1], (0, 1), ("rows", "columns"), strict=False):
        ax.plot(true[:, i], np.asarray(geometry.shifts)[:, i], ".")
        ax.plot([-6, 6], [-6, 6], "k", lw=0.5)
        ax.set(xlabel=f"true shift along {name} [pixel]", ylabel="found")
    for ax, i, name in zip(grid[1, 2:], (0, 1), ("rows", "columns"), strict=True):
        ax.plot(np.asarray(geometry.shifts)[:, i] - true[:, i], ".-", lw=0.5)
        ax.set(xlabel="view", ylabel=f"error along {name} [pixel]", ylim=(-0.06, 0.06))
    page.savefig(path, dpi=80)


if __name__ == "__main__":
    main()

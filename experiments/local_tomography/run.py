"""A detector that sees the middle of a large specimen: how wrong is the region, and what helps?

    python experiments/local_tomography/run.py [--columns 128] [--zoom 3] [--output FOLDER]

Prints the table of README.md and writes region.png.
"""

import argparse
import sys
from pathlib import Path

import jax.numpy as jnp
import numpy as np

import diffrecon as dr
from diffrecon import plot

HERE = Path(__file__).parent
sys.path.append(str(HERE.parent))
import ellipses  # noqa: E402

PIXEL = 0.65e-6  # [m]
SHOWN = ("whole field", "zero", "edge", "smooth", "smooth, longest diameter")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--columns", type=int, default=128, help="of the zoomed detector")
    parser.add_argument("--zoom", type=int, default=3, help="the specimen's field in detectors")
    parser.add_argument("--photons", type=float, default=1e5, help="on a pixel in each view")
    parser.add_argument("--output", type=Path, default=HERE)
    options = parser.parse_args()

    columns, field = options.columns, options.columns * options.zoom
    table = specimen(field, columns)
    views = round(np.pi / 2 * field)
    angles = np.arange(views) * np.pi / views
    lines = ellipses.sinogram(table, angles, field, fine=4)
    whole = measured(lines, options.photons)
    first = (field - columns) // 2
    part = whole[:, first : first + columns]
    every = slice(0, None, options.zoom)
    fewer_lines = measured(lines[every, first : first + columns], options.photons * options.zoom)

    full = dr.operators.ParallelProjector(angles, (field, field), field)
    local = dr.operators.ParallelProjector(angles, (columns, columns), columns)
    fewer = dr.operators.ParallelProjector(angles[every], (columns, columns), columns)
    diameter = 0.92 * field
    crop = slice(first, first + columns)
    found = {
        "whole field": dr.solvers.fbp(full, whole)[crop, crop],
        "zero": dr.solvers.fbp(local, part),
        "edge": dr.solvers.fbp(local, part, pad="edge"),
        "smooth": dr.solvers.fbp(local, part, pad="smooth"),
        "smooth, longest diameter": dr.solvers.fbp(local, part, pad="smooth", extent=diameter),
        f"the same, 1/{options.zoom} of the views, each longer": dr.solvers.fbp(
            fewer, fewer_lines, pad="smooth", extent=diameter
        ),
    }
    judge({name: np.asarray(x) for name, x in found.items()}, table, field, columns, options.output / "region.png")


def measured(lines: np.ndarray, photons: float) -> jnp.ndarray:
    """Line integrals from counts."""
    counts = np.random.default_rng(1).poisson(photons * np.exp(-lines))
    return jnp.asarray(-np.log(np.maximum(counts, 1) / photons), jnp.float32)


def specimen(field: int, columns: int) -> np.ndarray:
    """A body of elliptic outline with coarse inclusions everywhere and fine ones in the region."""
    random = np.random.default_rng(0)
    half, mu = field / 2, 2.0 / field
    rows = [[mu, 0.92 * half, 0.8 * half, 0, 0, 0.4]]
    for _ in range(60):
        radius, angle = half * 0.72 * np.sqrt(random.random()), 2 * np.pi * random.random()
        a = random.uniform(0.01, 0.07) * half
        value = mu * random.choice([-0.6, 0.5, 1.0])
        tilt = np.pi * random.random()
        rows.append([value, a, a * random.uniform(0.4, 1), radius * np.cos(angle), 0.85 * radius * np.sin(angle), tilt])
    for _ in range(60):
        radius, angle = 0.45 * columns * np.sqrt(random.random()), 2 * np.pi * random.random()
        a = random.uniform(1.5, 4)
        rows.append([mu * random.choice([-0.6, 0.8]), a, a, radius * np.cos(angle), radius * np.sin(angle), 0])
    return np.array(rows)


def judge(found: dict[str, np.ndarray], table: np.ndarray, field: int, columns: int, path: Path) -> None:
    """Errors in the disc that the zoomed detector sees whole: of the values, and of the contrast."""
    first = (field - columns) // 2
    truth = ellipses.image(table, field, fine=4)[first : first + columns, first : first + columns]
    grid = np.arange(columns) - (columns - 1) / 2
    disc = np.hypot(grid[:, None], grid) < 0.48 * columns
    inner = np.hypot(grid[:, None], grid) < 0.4 * columns
    print(
        "| beyond the detector | error of the values | mean / true mean | error of the contrast "
        "| half-bit resolution [pixel] |\n|---|---|---|---|---|"
    )
    for name, x in found.items():
        error = np.linalg.norm((x - truth)[disc]) / np.linalg.norm(truth[disc])
        contrast, true = x - x[inner].mean(), truth - truth[inner].mean()
        flat = np.linalg.norm((contrast - true)[inner]) / np.linalg.norm(true[inner])
        correlation = dr.quality.shell_correlation(x, truth)
        print(
            f"| {name} | {error:.3f} | {x[disc].mean() / truth[disc].mean():.3f} | {flat:.3f} "
            f"| {correlation.half_period:.2f} |"
        )
    draw(truth, found, disc, path)


def draw(truth: np.ndarray, found: dict[str, np.ndarray], disc: np.ndarray, path: Path) -> None:
    """The region as it is and as it comes out, on one scale; what no view saw whole is left out."""
    from matplotlib.figure import Figure

    shown = {"truth": truth} | {n: found[n] for n in SHOWN}
    page = Figure(figsize=(7.2, 4.4), dpi=150)
    axes = page.subplots(2, 3, gridspec_kw={"left": 0.02, "right": 0.9, "top": 0.94, "bottom": 0.06, "wspace": 0.45})
    scale = 1 / PIXEL
    limits = (-0.3 * truth.max() * scale, 1.6 * truth.max() * scale)
    for ax, (name, x) in zip(axes.ravel(), shown.items(), strict=True):
        plot.image(np.where(disc, x, np.nan) * scale, pixel_size=PIXEL, units="1/m", limits=limits, title=name, ax=ax)
    page.savefig(path)


if __name__ == "__main__":
    main()

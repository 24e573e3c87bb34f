"""One, two and three circles: how many projections does each algorithm need, against pi/2 N?

    python experiments/phantoms/run.py [--size 128] [--photons 2e4] [--output FOLDER]

Prints the table of README.md and writes phantoms.png and projections.png.
"""

import argparse
import itertools
import sys
from pathlib import Path

import jax.numpy as jnp
import numpy as np

import diffrecon as dr
from diffrecon import plot

HERE = Path(__file__).parent
sys.path.append(str(HERE.parent))
import ellipses  # noqa: E402

# In units of half the slice: value, radius, x, y.
CIRCLES = {
    "one circle": [(1.0, 0.5, 0.0, 0.0)],
    "two circles": [(1.0, 0.25, -0.45, 0.0), (1.0, 0.25, 0.45, 0.0)],
    "three circles": [(1.0, 0.3, -0.35, 0.3), (0.6, 0.2, 0.45, 0.35), (0.8, 0.12, 0.2, -0.5)],
}
SHARES = (1 / 32, 1 / 16, 1 / 8, 1 / 4, 1 / 2, 1.0, 2.0)
SHOWN = (1 / 16, 1 / 4, 1.0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=128, help="N, pixels along the slice")
    parser.add_argument("--photons", type=float, default=2e4, help="on a pixel in each view")
    parser.add_argument("--output", type=Path, default=HERE)
    options = parser.parse_args()

    needed = np.pi / 2 * options.size
    errors, slices = {}, {}
    for share in SHARES:
        for solver, stack, each in solve(round(share * needed), options):
            slices[solver, share] = stack
            for name, error in zip(CIRCLES, each, strict=True):
                errors.setdefault((name, solver), []).append(error)
    print(f"N = {options.size}, pi/2 N = {needed:.0f}")
    print("| phantom | solver | " + " | ".join(f"M = {round(s * needed)}" for s in SHARES) + " |")
    print("|---|---|" + "---|" * len(SHARES))
    for name, solver in itertools.product(CIRCLES, ("FBP", "SIRT", "TV")):
        print(f"| {name} | {solver} | " + " | ".join(f"{e:.3f}" for e in errors[name, solver]) + " |")
    draw_slices(slices, options.output / "phantoms.png")
    draw_errors(errors, needed, options.output / "projections.png")


def table(name: str, size: int) -> np.ndarray:
    """Circles whose total line integral through the middle is about 2 (transmission e^-2)."""
    scale = size / 2
    return np.array([[2.0 * v / size, r * scale, r * scale, x * scale, y * scale, 0] for v, r, x, y in CIRCLES[name]])


def solve(views: int, options: argparse.Namespace):
    """Name, slices (phantom, y, x) [1/pixel] and their errors in the inscribed disc, of every solver."""
    size = options.size
    circles = [table(name, size) for name in CIRCLES]
    angles = np.arange(views) * np.pi / views
    lines = np.stack([ellipses.sinogram(c, angles, size) for c in circles], 1)
    counts = np.random.default_rng(0).poisson(options.photons * np.exp(-lines))
    b = jnp.asarray(-np.log(np.maximum(counts, 1) / options.photons), jnp.float32)
    truth = np.stack([ellipses.image(c, size) for c in circles])
    A = dr.operators.ParallelProjector(angles, (size, size), size)
    disc = np.hypot(*np.meshgrid(*[np.arange(size) - (size - 1) / 2] * 2)) < size / 2 - 1

    noise = float(np.sqrt(np.mean(np.exp(lines) / options.photons)))
    total_variation = dr.penalties.TotalVariation(0.5 * noise * np.sqrt(views), axes=(-2, -1))
    found = {
        "FBP": dr.solvers.fbp(A, b),
        "SIRT": dr.solvers.sirt(A, b, steps=100, bounds=(0.0, None)).x,
        "TV": dr.solvers.fista(A, b, total_variation, steps=200, bounds=(0.0, None)).x,
    }
    for solver, stack in found.items():
        stack = np.asarray(stack)
        error = np.linalg.norm((stack - truth)[:, disc], axis=1) / np.linalg.norm(truth[:, disc], axis=1)
        yield solver, stack, error


def draw_slices(slices: dict, path: Path) -> None:
    """Solvers down, numbers of projections across, for the three circles."""
    from matplotlib.figure import Figure

    page = Figure(figsize=(7.2, 6.0), dpi=150)
    size, last = next(iter(slices.values())).shape[-1], len(CIRCLES) - 1
    axes = page.subplots(3, 3, gridspec_kw={"left": 0.02, "right": 0.9, "top": 0.95, "bottom": 0.04, "wspace": 0.55})
    for row, solver in enumerate(("FBP", "SIRT", "TV")):
        for column, share in enumerate(SHOWN):
            title = f"{solver}, M = {round(share * np.pi / 2 * size)}"
            plot.image(
                slices[solver, share][last],
                units="1/pixel",
                limits=(-0.4 / size, 2.4 / size),
                title=title,
                ax=axes[row, column],
            )
    page.savefig(path)


def draw_errors(errors: dict, needed: float, path: Path) -> None:
    """Error against M / (pi/2 N), one panel a phantom."""
    from matplotlib.figure import Figure

    page = Figure(figsize=(7.2, 2.6), dpi=150, layout="constrained")
    axes = page.subplots(1, 3, sharey=True)
    for ax, name in zip(axes, CIRCLES, strict=True):
        for solver, colour, style in (("FBP", "#333333", "-"), ("SIRT", "#0072b2", "--"), ("TV", "#d55e00", "-.")):
            ax.loglog(SHARES, errors[name, solver], style, color=colour, marker="o", markersize=3, label=solver)
        ax.axvline(1, color="0.7", linewidth=0.8, zorder=0)
        ax.set_title(name, fontsize=9, loc="left")
        ax.set_xlabel("projections M / (π/2 N)", fontsize=8)
        ax.tick_params(labelsize=8)
        ax.spines[["top", "right"]].set_visible(False)
    axes[0].set_ylabel("relative error in the disc", fontsize=8)
    axes[0].legend(fontsize=8, frameon=False)
    page.savefig(path)


if __name__ == "__main__":
    main()

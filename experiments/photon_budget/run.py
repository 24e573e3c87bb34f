"""How many photons does a detail cost? The Rose criterion and Flannery's D^4/R^4 exp(mu D)/(mu D)^2, by simulation.

    python experiments/photon_budget/run.py [--output FOLDER]

Prints the tables of README.md and writes budget.png and voids.png.
"""

import argparse
import sys
from pathlib import Path

import jax.numpy as jnp
import numpy as np

import diffrecon as dr
from diffrecon import physics, plot

HERE = Path(__file__).parent
sys.path.append(str(HERE.parent))
import ellipses  # noqa: E402

RATIOS = (24, 48, 96, 192)  # D / R: one pixel is as large as the detail
DEPTHS = (0.25, 0.5, 1.0, 2.0, 3.0, 4.5)  # mu D


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=HERE)
    options = parser.parse_args()
    print("| D/R | mu D | photons needed, formula | by simulation | ratio |\n|---|---|---|---|---|")
    sizes = [row(ratio, 2.0) for ratio in RATIOS]
    depths = [row(64, depth) for depth in DEPTHS]
    slope = np.polyfit(np.log(RATIOS), np.log([measured for _, measured in sizes]), 1)[0]
    print(f"power of D/R by simulation: {slope:.3f} (Flannery: 4)\n")
    print("| photons | contrast over noise | voids found | false alarms |\n|---|---|---|---|")
    pictures = [detect(share) for share in (0.1, 1.0, 4.0)]
    draw_budget(sizes, depths, slope, options.output / "budget.png")
    draw_voids(pictures, options.output / "voids.png")


def row(ratio: int, depth: float) -> tuple[float, float]:
    """Photons on the whole field in all views for contrast over noise = 5: by the formula, and as simulated."""
    expected = physics.rose_photons(1.0, ratio, depth / ratio) * ratio**2
    measured = needed(ratio, depth)
    print(f"| {ratio} | {depth:g} | {expected:.3g} | {measured:.3g} | {measured / expected:.3f} |", flush=True)
    return expected, measured


def scan(table: np.ndarray, ratio: int, photons: float, repeats: int = 1) -> np.ndarray:
    """Slices (repeat, y, x) [1/pixel]: pi/2 N views, `photons` on a pixel in all views, filtered back-projection."""
    size = ratio + 8
    views = round(np.pi / 2 * size)
    angles = np.arange(views) * np.pi / views
    light = photons / views * np.exp(-ellipses.sinogram(table, angles, size))
    counts = np.random.default_rng(0).poisson(np.broadcast_to(light[:, None], (views, repeats, size)))
    A = dr.operators.ParallelProjector(angles, (size, size), size)
    return np.asarray(dr.solvers.fbp(A, jnp.asarray(-np.log(np.maximum(counts, 0.5) * views / photons), jnp.float32)))


def needed(ratio: int, depth: float, bright: float = 2e4) -> float:
    """The noise in the middle, from the spread of scans of many photons, scaled to contrast / 5."""
    mu = depth / ratio
    size = ratio + 8
    photons = bright * round(np.pi / 2 * size) * np.exp(depth)
    body = np.array([[mu, ratio / 2, ratio / 2, 0, 0, 0]])
    grid = np.arange(size) - (size - 1) / 2
    middle = np.hypot(grid[:, None], grid) < max(0.06 * ratio, 1.6)
    spread = scan(body, ratio, photons, repeats=2 + 1500 // int(middle.sum()))[:, middle].var(axis=0, ddof=1)
    return float(photons * 25 * np.mean(spread) / mu**2) * ratio**2


def detect(share: float, ratio: int = 96, depth: float = 2.0) -> tuple[np.ndarray, str]:
    """Voids of one pixel's area near the middle, with a share of the photons that the Rose criterion asks for."""
    mu = depth / ratio
    places = np.arange(-20, 21, 5) + 0.5
    y, x = (p.ravel() for p in np.meshgrid(places, places, indexing="ij"))
    radius = 1 / np.sqrt(np.pi)
    body = [[mu, ratio / 2, ratio / 2, 0, 0, 0]]
    table = np.array([*body, *([-mu, radius, radius, a, b, 0] for a, b in zip(x, y, strict=True))])
    photons = share * physics.rose_photons(1.0, ratio, mu)
    found = scan(table, ratio, photons)[0]
    index = lambda p: np.round(p + (found.shape[0] - 1) / 2).astype(int)
    inside = np.zeros(found.shape, bool)
    inside[np.ix_(index(np.arange(-22, 23) + 0.5), index(np.arange(-22, 23) + 0.5))] = True
    near = np.zeros_like(inside)
    for a in (-1, 0, 1):
        for b in (-1, 0, 1):
            near[index(y) + a, index(x) + b] = True
    solid, void = found[inside & ~near], found[index(y), index(x)]
    ratio_found = (solid.mean() - void.mean()) / solid.std()
    threshold = (solid.mean() + void.mean()) / 2
    hits, alarms = np.mean(void < threshold), np.mean(solid < threshold)
    print(f"| {share:g} x Rose | {ratio_found:.2f} | {100 * hits:.1f} % | {100 * alarms:.2f} % |", flush=True)
    middle = slice(found.shape[0] // 2 - 26, found.shape[0] // 2 + 26)
    return found[middle, middle], f"{share:g} × Rose, contrast / noise = {ratio_found:.1f}"


def draw_budget(sizes: list, depths: list, slope: float, path: Path) -> None:
    """Photons against D/R and against mu D, the formula as a line and the simulation as points."""
    from matplotlib.figure import Figure

    page = Figure(figsize=(7.2, 2.9), dpi=150, layout="constrained")
    left, right = page.subplots(1, 2)
    ratios, fine = np.array(RATIOS), np.linspace(0.2, 5, 200)
    left.loglog(ratios, [e for e, _ in sizes], color="#0072b2", linewidth=1, label=r"25 π²/12 (D/R)⁴ e$^{µD}$/(µD)²")
    simulated = [m for _, m in sizes]
    left.loglog(ratios, simulated, "o", color="#d55e00", markersize=4, label=f"simulation, power {slope:.2f}")
    left.set_xticks(ratios, [f"{r}" for r in ratios])
    left.minorticks_off()
    left.set_xlabel("specimen over detail, D / R  (µD = 2)", fontsize=8)
    left.set_ylabel("photons on the field, all views", fontsize=8)
    right.semilogy(fine, [physics.rose_photons(1, 64, d / 64) * 64**2 for d in fine], color="#0072b2", linewidth=1)
    right.semilogy(DEPTHS, [m for _, m in depths], "o", color="#d55e00", markersize=4)
    right.axvline(2, color="0.7", linewidth=0.8, zorder=0)
    right.set_xlabel("depth µD  (D / R = 64; fewest at 2)", fontsize=8)
    left.legend(fontsize=8, frameon=False)
    for ax in (left, right):
        ax.tick_params(labelsize=8)
        ax.spines[["top", "right"]].set_visible(False)
    page.savefig(path)


def draw_voids(pictures: list, path: Path) -> None:
    """The middle of the specimen with its voids."""
    from matplotlib.figure import Figure

    page = Figure(figsize=(7.2, 2.3), dpi=150)
    axes = page.subplots(1, 3, gridspec_kw={"left": 0.02, "right": 0.9, "top": 0.88, "bottom": 0.1, "wspace": 0.5})
    mu = 2.0 / 96
    for ax, (found, title) in zip(axes, pictures, strict=True):
        plot.image(found, units="1/pixel", limits=(-0.5 * mu, 2 * mu), title=title, ax=ax)
    page.savefig(path)


if __name__ == "__main__":
    main()

"""A Ti/Fe eutectic: does the shell correlation of even and odd views agree with what sampling and photons allow?

    python experiments/eutectic/run.py [--size 96] [--rows 48] [--views 150] [--output FOLDER]

Prints the table of README.md and writes eutectic.png and correlation.png.
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

PIXEL = 0.1e-6  # [m]
ENERGY = 17e3  # [eV]
MATRIX, LAMELLA = "Ti, 4.51", "FeTi, 6.5"  # beta titanium and the intermetallic phase
PHOTONS = (1e3, 1e4, 1e5, 1e6)  # on a pixel in each view
COLOURS = ("#bbbbbb", "#56b4e9", "#0072b2", "#333333")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=96)
    parser.add_argument("--rows", type=int, default=48)
    parser.add_argument("--views", type=int, default=150)
    parser.add_argument("--output", type=Path, default=HERE)
    options = parser.parse_args()

    mu = {
        name: physics.attenuation_from_density(physics.material(name).density or 0, name, ENERGY)
        for name in (MATRIX, LAMELLA)
    }
    print(", ".join(f"{name}: {value:.4g} 1/m" for name, value in mu.items()))
    slices = eutectic(options.size, options.rows, mu[MATRIX] * PIXEL, (mu[LAMELLA] - mu[MATRIX]) * PIXEL)
    angles = np.arange(options.views) * np.pi / options.views
    lines = np.stack([ellipses.sinogram(s, angles, options.size, fine=4) for s in slices], 1)
    truth = np.stack([ellipses.image(s, options.size, fine=4) for s in slices])
    diameter = 0.92 * options.size * PIXEL
    sampled = diameter * np.pi / (2 * options.views)
    print(f"pi D / (2 M), the half period that {options.views} views sample: {sampled * 1e9:.0f} nm")
    print(
        "| photons a pixel and view | even/odd, half-bit | one-bit | against the truth | Rose | dose "
        "| density of FeTi |"
    )
    print("|---|---|---|---|---|---|---|")
    curves, volumes = {}, {}
    for photons in PHOTONS:
        curves[photons], volumes[photons] = judge(lines, angles, truth, photons, mu, diameter, options)
    draw(truth, volumes, options.output / "eutectic.png")
    draw_curves(curves, options.output / "correlation.png")


def eutectic(size: int, rows: int, matrix: float, step: float) -> list[np.ndarray]:
    """A wire of titanium with colonies of lamellae and fibres, 0.55 um apart; the table of each row's slice.

    Flat ellipsoids with an axis along the wire: their cut at the height z is an ellipse, smaller by
    `sqrt(1 - (z / c)^2)`.
    """
    random = np.random.default_rng(3)
    radius = 0.46 * size
    seeds = radius * np.array([0.6, 0.6j, -0.6, -0.5j]) * np.exp(1j * random.uniform(0, 2 * np.pi))
    bodies = []
    for colony in range(len(seeds)):
        turn, lift = np.exp(1j * (0.4 + 1.1 * colony)), random.uniform(0, 20)
        for layer in np.arange(-rows / 2 - 20 + lift, rows / 2 + 20, 20):
            shift = turn * (random.uniform(0, 17) + 1j * random.uniform(0, 6))
            for v in np.arange(-size, size, 5.5):
                for u in np.arange(-size, size, 17.0):
                    place = shift + turn * (u + 0.5 * random.normal() + 1j * (v + 0.2 * random.normal()))
                    a, b, c = random.uniform(5, 7.5), random.uniform(1.5, 2.0), random.uniform(8, 9.5)
                    ends = place + turn * a * np.array([-1, 0, 1])
                    within = np.abs(ends[:, None] - seeds).argmin(1) == colony
                    if within.all() and np.abs(ends).max() < radius - 1:
                        bodies.append([a, b, c, place.real, place.imag, layer + 0.5 * random.normal(), np.angle(turn)])
    tables = []
    for z in np.arange(rows) - (rows - 1) / 2:
        cut = [[matrix, radius, radius, 0, 0, 0]]
        for a, b, c, x, y, height, tilt in bodies:
            share = 1 - ((z - height) / c) ** 2
            if share > 0:
                cut.append([step, a * np.sqrt(share), b * np.sqrt(share), x, y, tilt])
        tables.append(np.array(cut))
    return tables


def judge(lines, angles, truth, photons, mu, diameter, options):
    """One row of the table: resolution by even and odd views and against the truth, Rose, dose, density."""
    counts = np.random.default_rng(int(photons)).poisson(photons * np.exp(-lines))
    b = jnp.asarray(-np.log(np.maximum(counts, 0.5) / photons), jnp.float32)

    def reconstruct(sinogram, turned):
        A = dr.operators.ParallelProjector(turned, (options.size,) * 2, options.size)
        return dr.solvers.fbp(A, sinogram)

    volume = np.asarray(reconstruct(b, angles))
    curve = dr.quality.even_odd(reconstruct, b, angles, pixel_size=PIXEL)
    against = dr.quality.shell_correlation(volume, truth)
    contrast = mu[LAMELLA] - mu[MATRIX]
    mean = float(-np.log(np.exp(-lines).mean())) / diameter  # of the whole specimen, by its mean transmission
    rose = physics.rose_size(photons * options.views, PIXEL, diameter, mean, contrast)
    dose = physics.absorbed_dose(photons * options.views, PIXEL, MATRIX, ENERGY, diameter)
    inside = np.abs(truth / PIXEL - mu[LAMELLA]) < 1e-3 * mu[LAMELLA]
    density = physics.density_from_attenuation(volume[inside].mean() / PIXEL, LAMELLA, ENERGY)
    # The truth has no noise: half a bit in the whole data, a signal to noise of 0.41, is a correlation of 0.54 with it.
    known = np.interp(0.54, against.correlation[::-1], against.frequency[::-1])
    lengths = (*(0.5 / crossing * PIXEL for crossing in (curve.crossing, curve.one_bit_crossing, known)), rose)
    print(
        f"| {photons:.0e} | "
        + " | ".join(f"{length * 1e9:.0f} nm" for length in lengths)
        + f" | {dose / 1e6:.3g} MGy | {density:.2f} g/cm^3 |",
        flush=True,
    )
    return curve, volume


def draw(truth: np.ndarray, volumes: dict[float, np.ndarray], path: Path) -> None:
    """The middle slice, true and from few and many photons."""
    from matplotlib.figure import Figure

    page = Figure(figsize=(7.2, 2.4), dpi=150)
    axes = page.subplots(1, 3, gridspec_kw={"left": 0.02, "right": 0.9, "top": 0.88, "bottom": 0.1, "wspace": 0.5})
    limits = (-0.1 * truth.max() / PIXEL, 1.2 * truth.max() / PIXEL)
    shown = {"truth": truth} | {f"{p:.0e} photons".replace("e+0", "e"): volumes[p] for p in (1e4, 1e6)}
    for ax, (name, volume) in zip(axes, shown.items(), strict=True):
        plot.image(volume[len(volume) // 2] / PIXEL, pixel_size=PIXEL, units="1/m", limits=limits, title=name, ax=ax)
    page.savefig(path)


def draw_curves(curves: dict[float, dr.quality.RingCorrelation], path: Path) -> None:
    """Shell correlations with the half-bit and one-bit curves."""
    from matplotlib.figure import Figure

    page = Figure(figsize=(4.6, 3.0), dpi=150, layout="constrained")
    ax = page.subplots()
    for colour, (photons, curve) in zip(COLOURS, curves.items(), strict=True):
        label = f"{photons:.0e} photons: {curve.half_period * PIXEL * 1e9:.0f} nm".replace("e+0", "e")
        ax.plot(curve.frequency, curve.correlation, color=colour, linewidth=1.2, label=label)
    last = curves[PHOTONS[-1]]
    ax.plot(last.frequency, last.half_bit, color="#d55e00", linewidth=1.0, label="half-bit")
    ax.plot(last.frequency, last.one_bit, color="#d55e00", linewidth=1.0, linestyle="--", label="one-bit")
    ax.set(xlim=(0, 0.5), ylim=(-0.1, 1.05))
    ax.set_xlabel("spatial frequency [cycles/pixel]", fontsize=8)
    ax.set_ylabel("shell correlation of even and odd views", fontsize=8)
    ax.tick_params(labelsize=8)
    ax.spines[["top", "right"]].set_visible(False)
    ax.legend(fontsize=7, frameon=False)
    page.savefig(path)


if __name__ == "__main__":
    main()

"""Resolution against photons in near-field ptychography: predicted by Fisher information, then reconstructed.

    python experiments/dose/run.py [--seed 0] [--output FOLDER]

Prints the table of README.md and writes dose.png.
"""

import argparse
import sys
import time
from pathlib import Path

import jax.numpy as jnp
import numpy as np

import diffrecon as dr
from diffrecon import plot, uncertainty

HERE = Path(__file__).parent
sys.path.append(str(HERE.parent))
import near_field  # noqa: E402

PHOTONS = (10, 30, 100, 300, 1000, 3000, 10000)  # a pixel in the middle of the beam, in each of the frames
VIEWS = 5  # along each axis
MIDDLE = 40  # pixels of the field that are judged
CONTRAST = 0.5  # of the object, 1 = a star of 0.5 rad
BRIGHT = 1e5  # photons of the model to predict from


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, default=HERE)
    options = parser.parse_args()
    start = time.process_time()
    scan = near_field.scan(options.seed, VIEWS, contrast=CONTRAST)
    part = near_field.middle(scan.size, MIDDLE)
    # The model to predict from is what bright light shows; errors fall as the root of the photons.
    bright = near_field.solve(scan, (scan.frames * BRIGHT).astype(np.float32), 600, 60)
    information = uncertainty.fisher_information(bright, len(scan.positions), unknowns=("object",), block_size=25)
    errors = np.asarray(information.draws(8, steps=60, damping=1e-4).object)[(slice(None), *part)]
    light = np.asarray(dr.operators.coverage(bright.probe, bright.positions, bright.object.shape, bright.gain))[part]
    dose = float(light.mean()) / BRIGHT
    floor = near_field.compare(np.asarray(bright.object), scan.truth(), part)[0]
    print(
        f"phase error of {BRIGHT:g} photons a pixel of a frame without noise: {floor:.4f} rad\n\n"
        "| photons on a pixel of the object | noise of the phase, predicted [rad] | found | against the "
        "truth | half period of two halves, predicted [pixel] | found |\n|---|---|---|---|---|---|"
    )
    rows = [
        row(scan, bright, errors * (BRIGHT / photons) ** 0.5, photons, dose, part, options.seed) for photons in PHOTONS
    ]
    draw(rows, options.output / "dose.png")
    print(f"{time.process_time() - start:.0f} CPU s")


def reconstruct(bright: dr.models.Ptychography, counts: np.ndarray, photons: float) -> np.ndarray:
    """The object by maximum likelihood from nothing; probe and positions are known."""
    model = bright.replace(object=jnp.ones_like(bright.object), probe=bright.probe * (photons / BRIGHT) ** 0.5)
    solved = dr.solvers.levenberg_marquardt(
        near_field.residual,
        model,
        {"counts": counts.astype(np.float32)},
        steps=15,
        cg_steps=30,
        tolerance=1e-6,
        unknowns=("object",),
        block_size=25,
    )
    return np.asarray(solved.value.object)


def row(scan: near_field.Scan, bright, errors: np.ndarray, photons: float, dose: float, part, seed: int) -> dict:
    """One dose: what is predicted and what is found."""
    obj = np.asarray(bright.object)[part]
    predicted = uncertainty.expected_correlation(obj, errors, noiseless=True, pixel_size=near_field.PIXEL)
    noise = float(np.sqrt(np.mean([flat((error / obj).imag)[3:-3, 3:-3] ** 2 for error in errors])))
    counts = scan.counts(photons, seed + 1)
    whole = reconstruct(bright, counts, photons)
    error, _ = near_field.compare(whole, scan.truth(), part)
    apart, _ = near_field.compare(whole, np.asarray(bright.object), part)
    # Two halves of the photons: independent Poisson counts of half the exposure.
    first = np.random.default_rng(seed + 2).binomial(counts.astype(int), 0.5)
    halves = [reconstruct(bright, half, photons / 2)[part] for half in (first, counts - first)]
    found = dr.quality.ring_correlation(*halves, pixel_size=near_field.PIXEL)
    print(
        f"| {photons * dose:.3g} | {noise:.4f} | {apart:.4f} | {error:.4f} | {predicted.half_period:.2f} | "
        f"{found.half_period:.2f} |",
        flush=True,
    )
    return {
        "photons": photons * dose,
        "noise": noise,
        "error": error,
        "apart": apart,
        "predicted": predicted,
        "found": found,
        "phase": flat(np.angle(whole[part])),
    }


def flat(image: np.ndarray) -> np.ndarray:
    """Without its constant and ramp."""
    rows, columns = np.meshgrid(*(np.linspace(-1, 1, n) for n in image.shape), indexing="ij")
    free = np.stack([np.ones(image.size), rows.ravel(), columns.ravel()], 1)
    return image - (free @ np.linalg.lstsq(free, image.ravel(), rcond=None)[0]).reshape(image.shape)


def said(photons: float) -> str:
    return f"{float(f'{photons:.2g}'):,.0f} photons a pixel".replace(",", " ")


def draw(rows: list[dict], path: Path) -> None:
    """Error and resolution against photons, correlations of three doses, and their phases."""
    from matplotlib.figure import Figure

    page = Figure(figsize=(7.2, 4.6), dpi=150)
    above = page.subplots(1, 3, gridspec_kw={"left": 0.09, "right": 0.98, "top": 0.97, "bottom": 0.58, "wspace": 0.36})
    below = page.subplots(1, 3, gridspec_kw={"left": 0.02, "right": 0.89, "top": 0.4, "bottom": 0.04, "wspace": 0.5})
    photons = [r["photons"] for r in rows]
    blue, red = "#0072b2", "#d55e00"
    above[0].loglog(photons, [r["noise"] for r in rows], color=blue, linewidth=1, label="predicted")
    above[0].loglog(photons, [r["apart"] for r in rows], "o", color=red, markersize=4, label="against bright light")
    above[0].loglog(
        photons, [r["error"] for r in rows], "o", color=red, markersize=4, fillstyle="none", label="against the truth"
    )
    above[0].set_ylabel("phase error [rad]", fontsize=8)
    above[0].yaxis.set_minor_formatter("")
    above[1].semilogx(photons, [r["predicted"].half_period for r in rows], color=blue, linewidth=1, label="predicted")
    above[1].semilogx(photons, [r["found"].half_period for r in rows], "o", color=red, markersize=4, label="two halves")
    above[1].set_ylabel("half period [pixel]", fontsize=8)
    for ax in above[:2]:
        ax.set_xlabel("photons on a pixel of the object", fontsize=8)
    chosen = [rows[i] for i in (0, len(rows) // 2, len(rows) - 1)]
    for shade, r in zip((0.75, 0.45, 0.0), chosen, strict=True):
        line = above[2].plot(r["found"].frequency, r["found"].correlation, "o", markersize=2.5, color=str(shade))[0]
        above[2].plot(
            r["predicted"].frequency,
            r["predicted"].correlation,
            color=line.get_color(),
            linewidth=1,
            label=said(r["photons"]),
        )
    above[2].plot(r["found"].frequency, r["found"].half_bit, color=blue, linewidth=0.8, linestyle=":", label="half-bit")
    above[2].set_xlabel("frequency [1/pixel]", fontsize=8)
    above[2].set_ylabel("ring correlation of halves", fontsize=8)
    above[2].set_ylim(-0.75, 1.05)
    for ax in above:
        ax.tick_params(labelsize=8)
        ax.spines[["top", "right"]].set_visible(False)
        ax.legend(fontsize=7, frameon=False)
    for ax, r in zip(below, chosen, strict=True):
        plot.image(
            r["phase"], pixel_size=near_field.PIXEL, units="rad", limits=(-0.5, 0.3), title=said(r["photons"]), ax=ax
        )
    page.savefig(path)


if __name__ == "__main__":
    main()

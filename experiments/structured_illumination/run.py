"""What does structure in the illumination bring to near-field ptychography, and how many views does it save?

    python experiments/structured_illumination/run.py [--seed 0] [--output FOLDER]

Prints the table of README.md and writes structure.png and views.png.
"""

import argparse
import sys
import time
from pathlib import Path

import numpy as np

import diffrecon as dr
from diffrecon import plot

HERE = Path(__file__).parent
sys.path.append(str(HERE.parent))
import near_field  # noqa: E402

STRUCTURE = {"smooth": 0.0, "structured": 1.5}  # phase of the diffuser [rad rms]
VIEWS = (3, 4, 6)  # along each axis, over the same 24 x 24 pixels
PHOTONS = 8000.0  # in the middle of the beam, of all frames together
MIDDLE = 36  # pixels of the field that are judged
STEPS = 1500
SOFTNESS = 3.5  # of the beam's edge [pixel]: a hard one has fringes


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, default=HERE)
    options = parser.parse_args()
    start = time.process_time()
    print(
        "| illumination | views | phase error [rad rms] | error of the amplitude | half period [pixel] |\n"
        "|---|---|---|---|---|"
    )
    found = {(name, views): row(name, views, options.seed) for name in STRUCTURE for views in VIEWS}
    draw_images([found[name, VIEWS[-1]] for name in STRUCTURE], options.output / "structure.png")
    draw_views(found, options.output / "views.png")
    print(f"{time.process_time() - start:.0f} CPU s")


def row(name: str, views: int, seed: int) -> dict:
    """One scan: the same photons in all, on more or fewer frames."""
    scan = near_field.scan(seed, views, structure=STRUCTURE[name], softness=SOFTNESS)
    counts = scan.counts(PHOTONS / views**2, seed + 1)
    model = near_field.solve(scan, counts, STEPS, 40, 1e-6)
    part = near_field.middle(scan.size, MIDDLE)
    obj, probe, truth = np.asarray(model.object), np.asarray(model.probe[0]), scan.truth()
    error, correlation = near_field.compare(obj, truth, part)
    found = dr.quality.align(truth[part], obj[part])[0]
    # Data tell amplitudes up to one factor, which the probe takes.
    ratio = abs(found / truth[part])[3:-3, 3:-3]
    found = found / ratio.mean()
    wrong = ratio.std() / ratio.mean()
    print(f"| {name} | {views**2} | {error:.4f} | {wrong:.4f} | {correlation.half_period:.2f} |", flush=True)
    return {
        "name": name,
        "object": found,
        "probe": probe,
        "error": error,
        "amplitude": wrong,
        "half_period": correlation.half_period,
    }


def draw_images(found: list[dict], path: Path) -> None:
    """Object and probe, phase and amplitude; a row for each illumination."""
    from matplotlib.figure import Figure

    page = Figure(figsize=(7.2, 3.6), dpi=150)
    axes = page.subplots(
        2, 4, gridspec_kw={"left": 0.02, "right": 0.93, "top": 0.94, "bottom": 0.05, "wspace": 0.62, "hspace": 0.3}
    )
    for line, case in zip(axes, found, strict=True):
        obj, probe = case["object"], case["probe"]
        lit = abs(probe) > 0.2 * abs(probe).max()
        turned = probe * np.exp(-1j * np.angle(np.sum(probe[lit])))
        panels = (
            (np.angle(obj), "rad", f"object, phase ({case['name']})", (-0.9, 0.25)),
            (abs(obj), "", "object, amplitude", (0.93, 1.07)),
            (np.where(lit, np.angle(turned), np.nan), "rad", "probe, phase", None),
            (abs(probe), "√counts", "probe, amplitude", None),
        )
        for ax, (image, units, title, limits) in zip(line, panels, strict=True):
            plot.image(image, pixel_size=near_field.PIXEL, units=units, title=title, limits=limits, ax=ax)
    page.savefig(path)


def draw_views(found: dict, path: Path) -> None:
    """Error and resolution against the number of views."""
    from matplotlib.figure import Figure

    page = Figure(figsize=(7.2, 2.6), dpi=150, layout="constrained")
    axes = page.subplots(1, 2)
    for ax, key, label in zip(
        axes, ("error", "amplitude"), ("phase error [rad rms]", "error of the amplitude [rms]"), strict=True
    ):
        for name, colour in zip(STRUCTURE, ("#d55e00", "#0072b2"), strict=True):
            ax.plot(
                [v**2 for v in VIEWS],
                [found[name, v][key] for v in VIEWS],
                "o-",
                color=colour,
                markersize=4,
                linewidth=1,
                label=f"{name} illumination",
            )
        ax.set_xscale("log")
        ax.set_xticks([v**2 for v in VIEWS], [str(v**2) for v in VIEWS])
        ax.minorticks_off()
        ax.set_ylim(0)
        ax.set_xlabel("views, photons of all together the same", fontsize=8)
        ax.set_ylabel(label, fontsize=8)
        ax.tick_params(labelsize=8)
        ax.spines[["top", "right"]].set_visible(False)
    axes[0].legend(fontsize=8, frameon=False)
    page.savefig(path)


if __name__ == "__main__":
    main()

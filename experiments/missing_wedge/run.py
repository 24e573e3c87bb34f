"""A fibre's direction with the missing wedge and without: tensor SAXS tomograms of one sample, tilted less and less.

    python experiments/missing_wedge/run.py [--seed 0] [--tilts 0 15 30 45 90] [--output FOLDER]

Prints the tables of README.md and writes wedge.png.
"""

import argparse
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np

import diffrecon as dr
from diffrecon.simulate import scattering

HERE = Path(__file__).parent
RINGS = 4  # tilts from none to the largest, each a turn of as many views
BANDS = ((0, 20), (20, 35), (35, 60))  # between the fibre and the axis of rotation [degree]
SETTINGS = {
    "align": {"unknowns": ()},
    "model": {"ell_max": 6, "scattering": "equatorial"},
    "solver": {"smoothness": 16.0, "rounds": 2, "steps": 6},
}


class Found(NamedTuple):
    """Error of the direction [degree], its error bar, and the angle of the fibre to the axis of rotation, of every full
    voxel; the map of what is seen; errors of the mean and of the anisotropy."""

    error: np.ndarray
    bar: np.ndarray
    inclination: np.ndarray
    seen: dr.regimes.Directions
    mean: float
    anisotropy: float


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--tilts", type=float, nargs="+", default=[0, 15, 30, 45, 90])
    parser.add_argument("--output", type=Path, default=HERE)
    options = parser.parse_args()
    start, found = time.process_time(), {}
    bands = " | ".join(f"fibres at {low} to {high} degrees" for low, high in BANDS)
    heads = "largest tilt | missing | mean | anisotropy | direction, median | 90 % | within error bar"
    print(f"| {heads} | {bands} | CPU s |\n|" + "---|" * 11)
    for tilt in options.tilts:
        began = time.process_time()
        found[tilt] = one = scanned(tilt, options.seed)
        inside = [(one.inclination >= low) & (one.inclination < high) for low, high in BANDS]
        groups = " | ".join(f"{np.median(one.error[part]):.1f}" for part in inside)
        figures = f"{one.seen.missing:.0%} | {one.mean:.3f} | {one.anisotropy:.3f}"
        within = np.mean(one.error < one.bar)
        angles = f"{np.median(one.error):.1f} | {np.percentile(one.error, 90):.1f} | {within:.0%}"
        print(f"| {tilt:g} | {figures} | {angles} | {groups} | {time.process_time() - began:.0f} |", flush=True)
    draw(found, options.output / "wedge.png")
    print(f"{time.process_time() - start:.0f} CPU s")


def scanned(tilt: float, seed: int) -> Found:
    """Simulate the scan with tilts up to this one, and reconstruct it."""
    scattering.TILTS = tuple(np.linspace(0, tilt, RINGS))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "osteon.h5"
        truth = scattering.write(path, seed)
        scan = dr.open_scan(path)
        result = dr.reconstruct(scan, settings=SETTINGS)
    place = scan.tensor_geometry
    seen = dr.regimes.directions(place.in_sample(place.beam), place.two_theta)
    full = truth["occupancy"] > 0.999
    mean, anisotropy, direction = (np.asarray(result[n], float)[full] for n in ("mean", "anisotropy", "direction"))
    axis = truth["direction"][full]
    degrees = lambda cosine: np.degrees(np.arccos(np.clip(np.abs(cosine), 0, 1)))
    length = np.maximum(np.linalg.norm(direction, axis=-1), 1e-9)
    off = np.linalg.norm(mean - truth["mean"][full]) / np.linalg.norm(truth["mean"][full])
    spread = np.sqrt(np.mean((anisotropy - truth["anisotropy"][full]) ** 2))
    bar = np.degrees(np.asarray(result["direction_error"], float)[full])
    return Found(
        degrees((direction * axis).sum(-1) / length), bar, degrees(axis[:, 2]), seen, float(off), float(spread)
    )


def draw(found: dict[float, Found], path: Path) -> None:
    """Above, the share of spatial frequencies seen by direction of scattering; below, errors by inclination."""
    from matplotlib.figure import Figure

    page = Figure(figsize=(2.1 * len(found), 4.0), dpi=110)
    axes = page.subplots(
        2, len(found), gridspec_kw={"left": 0.07, "right": 0.93, "top": 0.92, "bottom": 0.11, "hspace": 0.25}
    )
    for column, (tilt, one) in zip(axes.T, found.items(), strict=True):
        azimuth, polar = np.meshgrid(one.seen.azimuth, np.sin(one.seen.polar))
        shown = column[0].scatter(
            polar * np.cos(azimuth), polar * np.sin(azimuth), c=one.seen.share, s=7, vmin=0, vmax=1
        )
        column[0].set(aspect="equal", xticks=[], yticks=[])
        column[0].set_title(f"tilts up to {tilt:g}°", fontsize=9)
        column[1].plot(one.inclination, one.error, ".", color="0.6", markersize=1)
        edges = np.arange(0, 61, 6)
        number = np.digitize(one.inclination, edges)
        middle = [
            np.median(one.error[number == n]) if (number == n).sum() > 10 else np.nan for n in range(1, len(edges))
        ]
        column[1].plot((edges[1:] + edges[:-1]) / 2, middle, color="black", linewidth=1.2)
        column[1].set(ylim=(0, 30), xlim=(0, 60))
        column[1].tick_params(labelsize=7)
        column[1].set_xlabel("fibre to rotation axis [deg]", fontsize=7)
    axes[1, 0].set_ylabel("error of the direction [deg]", fontsize=8)
    box = axes[0, -1].get_position()
    bar = page.colorbar(shown, cax=page.add_axes((0.945, box.y0, 0.01, box.height)))
    bar.set_label("share seen", fontsize=7)
    bar.ax.tick_params(labelsize=7)
    page.savefig(path)


if __name__ == "__main__":
    main()

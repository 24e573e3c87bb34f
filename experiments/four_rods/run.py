"""Delta of a perspex rod by its speckles, beside the table: a measured scan of four rods.

    python experiments/four_rods/run.py [--data four_rod_speckle.h5] [--output FOLDER]

Prints the table of README.md and draws rods.png. Without the data it says so, and ends.
"""

import argparse
import time
from pathlib import Path

import numpy as np

import diffrecon as dr

HERE = Path(__file__).parent
TABLE = 4.263e-7  # delta of PMMA, 1.19 g/cm^3, 25 keV (xraydb)
AXIS, LEAN, RADIUS = 361.5, 0.076, 252.7  # of the rod: column in the middle row, columns a row, pixels
INSIDE, BANDS = 0.9, 6  # of the radius that is fitted; bands of rows for the error
READERS = {
    "one phase for all frames": {},
    "largest correlation (XSVT)": {"kind": "correlation"},
    "windows (UMPA)": {"kind": "window"},
    "linear (LCS)": {"kind": "linear"},
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--data", type=Path, default=HERE.parents[2] / "shared" / "data" / "real" / "four_rod_speckle.h5"
    )
    parser.add_argument("--output", type=Path, default=HERE)
    options = parser.parse_args()
    if not options.data.exists():
        print(f"skipped: {options.data} is not there (github.com/samanthaalloo/EvVSDev_SBXIFokkerPlanck; README.md)")
        return
    scan = dr.open_scan(options.data)
    results = {}
    print(
        "| read by | delta / table | bands of rows | noise of air [nrad] | frames never fitted | CPU s |\n|"
        + "---|" * 6
    )
    for name, solver in READERS.items():
        began = time.process_time()
        settings = {"solver": solver} | (
            {"model": {"reach": 1}} if solver.get("kind") in ("correlation", "window") else {}
        )
        results[name] = result = dr.reconstruct(scan, settings=settings)
        angle, spent = np.asarray(result["alpha_x"], float), time.process_time() - began
        parts, seen = bands(angle), result.quality
        said = (
            f"{seen['held_out_residual']:.4f} (pixel ratio {seen['held_out_ratio']:.4f})"
            if "held_out_residual" in seen
            else ""
        )
        air = 1e9 * np.nanstd(angle[10:-10, 950:1140])
        found = f"{slope(angle):.3f} | {np.min(parts):.3f} to {np.max(parts):.3f}"
        print(f"| {name} | {found} | {air:.0f} | {said} | {spent:.0f} |", flush=True)
    draw(results, options.output / "rods.png")


def across(shape: tuple[int, int]) -> np.ndarray:
    """Distance of every pixel from the rod's axis, in radii."""
    row, column = np.indices(shape)
    return (column - AXIS - LEAN * (row - shape[0] / 2)) / RADIUS


def known(u: np.ndarray, delta: float = TABLE) -> np.ndarray:
    """Angle behind a cylinder [rad]."""
    return 2 * delta * u / np.sqrt(1 - np.minimum(u**2, 0.999))


def slope(angle: np.ndarray, rows: np.ndarray | None = None) -> float:
    """Slope of the angles against those of the table, an offset free."""
    rows = np.arange(4, len(angle) - 4) if rows is None else rows
    u = across(angle.shape)[rows]
    part = (np.abs(u) < INSIDE) & np.isfinite(angle[rows])
    return float(np.polyfit(known(u[part]), angle[rows][part], 1)[0])


def bands(angle: np.ndarray) -> list[float]:
    """The slope of single bands of rows."""
    return [slope(angle, rows) for rows in np.array_split(np.arange(4, len(angle) - 4), BANDS)]


def profile(angle: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean angle at distances from the axis."""
    u, edges = across(angle.shape), np.linspace(-1.08, 1.08, 109)
    where = np.digitize(u, edges)
    mean = [np.nanmean(angle[4:-4][where[4:-4] == k]) for k in range(1, len(edges))]
    return (edges[1:] + edges[:-1]) / 2, np.array(mean)


def draw(results: dict, path: Path) -> None:
    """Three signals of the rods, and profiles across perspex with the table's curve."""
    from matplotlib.figure import Figure

    page = Figure(figsize=(7.6, 6.2), dpi=110)
    rows = page.add_gridspec(5, 1, height_ratios=[1, 1, 1, 0.25, 3.6], left=0.09, right=0.87, top=0.96, bottom=0.08)
    first = results["one phase for all frames"]
    shown = {
        "alpha_x": ("refraction along x [µrad]", 1e6, (-2.0, 2.0)),
        "transmission": ("transmission", 1.0, (0.8, 1.1)),
        "darkfield": ("dark field (visibility)", 1.0, (0.3, 1.05)),
    }
    for number, (name, (said, factor, limits)) in enumerate(shown.items()):
        ax = page.add_subplot(rows[number])
        image = ax.imshow(factor * np.asarray(first[name]), cmap="gray", vmin=limits[0], vmax=limits[1], aspect="auto")
        ax.set(xticks=[], yticks=[])
        ax.set_title(said, fontsize=8, pad=2)
        box = ax.get_position()
        bar = page.colorbar(image, cax=page.add_axes((0.885, box.y0, 0.014, box.height)), extend="both")
        bar.ax.tick_params(labelsize=7)
        if number == 0:
            length = 1e-3 / 6.5e-6
            ax.plot([985, 985 + length], [105, 105], color="black", linewidth=2)
            ax.text(985 + length / 2, 96, "1 mm", fontsize=7, ha="center", va="bottom")
    ax, u = page.add_subplot(rows[4]), np.linspace(-0.985, 0.985, 400)
    ax.plot(u, 1e6 * known(u), color="black", linewidth=1, label=f"table: delta = {TABLE:.3e}")
    for (name, result), colour in zip(results.items(), ("tab:red", "tab:blue", "tab:green", "tab:orange"), strict=True):
        place, mean = profile(np.asarray(result["alpha_x"], float))
        fitted = np.polyfit(known(place[np.abs(place) < INSIDE]), mean[np.abs(place) < INSIDE], 1)
        ax.plot(
            place, 1e6 * (mean - fitted[1]), ".", markersize=4 if colour == "tab:red" else 2.5, color=colour, label=name
        )
    ax.set(xlabel="distance from the axis of perspex [radii]", ylabel="angle [µrad]", ylim=(-3, 3), xlim=(-1.09, 1.09))
    ax.legend(fontsize=8, loc="upper left")
    page.savefig(path)


if __name__ == "__main__":
    main()

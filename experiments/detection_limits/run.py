"""Limits of detection of a fluorescence map against the dwell time: predicted by Fisher information, then counted.

    python experiments/detection_limits/run.py [--seed 0] [--output FOLDER]

Prints the table of README.md and writes limits.png.
"""

import argparse
import time
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

import diffrecon as dr

HERE = Path(__file__).parent
ENERGY, FLUX, SOLID_ANGLE, STEP = 17e3, 2e9, 0.25, 0.5e-6  # [eV], photons a second, [sr], of the scan [m]
GLASS, DENSITY, THICKNESS, TAKEOFF, INTO = "SiO2", 2.2, 30e-6, np.deg2rad(45), 4.0444  # [m]; of the beam [cm^2/g]
DWELLS = np.logspace(-3, 1, 9)  # [s]
SIDES = 4  # channels beside a line for one below it
POINTS, TRACES = (64, 80), 40  # of the map; columns without traces


class Element(NamedTuple):
    """What the simulation is told of a line: numbers of xraylib 4 (Kissel), not of the package's own tables.

    **Fields:** `production` of K alpha at 17 keV and `glass`, attenuation of SiO2 for it [cm^2/g]; `under`, counts a
    second below the line.
    """

    production: float
    glass: float
    under: float


ELEMENTS = {
    "Ca": Element(2.7501, 325.20, 800.0),
    "Fe": Element(11.0706, 69.398, 400.0),
    "Zn": Element(21.4997, 29.215, 300.0),
}
COLOURS = {"Ca": "#0072b2", "Fe": "#d55e00", "Zn": "#009e73"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, default=HERE)
    options = parser.parse_args()
    start, random = time.process_time(), np.random.default_rng(options.seed)
    fine = np.logspace(np.log10(DWELLS[0]), np.log10(DWELLS[-1]), 81)
    curves = {name: predicted(name, fine) for name in ELEMENTS}
    limits = {name: predicted(name, DWELLS) for name in ELEMENTS}
    heads = " | ".join(f"{n}: predicted [ug/cm^2] | found / predicted | own sides" for n in ELEMENTS)
    print(f"| dwell [s] | {heads} | traces seen | blanks seen |\n|---|{'---|' * (3 * len(ELEMENTS) + 2)}")
    rows = [row(dwell, {n: float(limits[n][k]) for n in ELEMENTS}, random) for k, dwell in enumerate(DWELLS)]
    draw(fine, curves, rows, options.output / "limits.png")
    print(f"{time.process_time() - start:.0f} CPU s")


def predicted(name: str, dwells: np.ndarray) -> np.ndarray:
    """Limits of detection [g/cm^2] by the plan: three deviations of the blank over the counts of one g/cm^2."""
    plan = dr.planning.plan(
        "fluorescence-map", energy=ENERGY, line=f"{name} Ka", flux=FLUX, solid_angle=SOLID_ANGLE, thickness=THICKNESS,
        material=f"{GLASS}, {DENSITY}", takeoff=TAKEOFF, background=ELEMENTS[name].under, step=STEP, exposure=1.0,
    )  # fmt: skip
    return np.array([f.sensitivities["limit of detection [g/cm^2]"] for f in plan.curve(tuple(dwells))])


# ---------------------------------------------------------------------------------------------------- simulation
def counted(name: str, dwell: float, amount: np.ndarray, random: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Counts in a line and beside it, by NumPy alone: the slab is summed slice by slice."""
    element = ELEMENTS[name]
    depth = (np.arange(2000) + 0.5) / 2000 * 100 * THICKNESS * DENSITY
    leaves = np.mean(np.exp(-depth * (INTO + element.glass / np.sin(TAKEOFF))))
    one = FLUX * dwell * SOLID_ANGLE / (4 * np.pi) * element.production * leaves
    under = element.under * dwell
    return random.poisson(under + one * amount), random.poisson(SIDES * under, amount.shape)


def mapped(dwell: float, lines: np.ndarray, under: np.ndarray) -> Any:
    """Areal masses by the recipe; `lines` counts and `under` what lies below them, each `(y, x, line)`."""
    scan = dr.Scan.from_arrays(
        (lines - under)[None].astype(np.float32), geometry=dr.ParallelBeam(STEP, ENERGY), method="fluorescence-map",
        extra={"lines": tuple(f"{n} Ka" for n in ELEMENTS), "area_backgrounds": under[None], "dwell": dwell},
    )  # fmt: skip
    slab = {"composition": f"{GLASS}, {DENSITY}", "thickness": THICKNESS, "takeoff": TAKEOFF, "secondary": "off"}
    told = {"beam": {"flux": FLUX}, "detector": {"solid_angle": SOLID_ANGLE}, "sample": slab}
    return dr.reconstruct(scan, settings=told)


def row(dwell: float, limits: dict[str, float], random: np.random.Generator) -> dict[str, dict[str, float]]:
    """One dwell time: three standard deviations of blank points by the recipe, and how often traces at the limit, and
    blanks, exceed the limit that it says."""
    amount = (np.arange(POINTS[1]) >= TRACES) * np.ones(POINTS)
    counts = [counted(name, dwell, limits[name] * amount, random) for name in ELEMENTS]
    lines, sides = (np.stack(part, -1).astype(float) for part in zip(*counts, strict=True))
    own = sides / SIDES
    by_mean, by_own = (mapped(dwell, lines, under) for under in (own.mean((0, 1)) + 0 * own, own))
    found = {}
    for name in ELEMENTS:
        spread = [3 * float(np.nanstd(np.asarray(r[name], float)[:, :TRACES])) for r in (by_mean, by_own)]
        reported = by_mean.quality[name]["detection_limit"]
        found[name] = {
            "predicted": 1e6 * limits[name],
            "blank": ELEMENTS[name].under * dwell,
            "mean": spread[0] / limits[name],
            "own": spread[1] / limits[name],
            "seen": float(np.mean(np.asarray(by_mean[name])[:, TRACES:] > reported)),
            "alarms": float(np.mean(np.asarray(by_mean[name])[:, :TRACES] > reported)),
        }
        assert abs(reported / limits[name] - 1) < 0.01, "plan and recipe say different limits"
    parts = [f"{f['predicted']:.3g} | {f['mean']:.2f} | {f['own']:.2f}" for f in found.values()]
    seen, alarms = (np.mean([f[key] for f in found.values()]) for key in ("seen", "alarms"))
    print(f"| {dwell:.3g} | {' | '.join(parts)} | {seen:.0%} | {alarms:.2%} |", flush=True)
    return found


# ---------------------------------------------------------------------------------------------------- picture
def draw(fine: np.ndarray, curves: dict[str, np.ndarray], rows: list[dict], path: Path) -> None:
    """Limits against dwell time, predicted as lines and found as points; their ratio against the counts of a blank."""
    from matplotlib.figure import Figure

    page = Figure(figsize=(7.2, 3.1), dpi=150)
    room = {"left": 0.08, "right": 0.985, "top": 0.98, "bottom": 0.14, "wspace": 0.42}
    left, right = page.subplots(1, 2, gridspec_kw=room)
    for name, colour in COLOURS.items():
        limit = {key: np.array([r[name][key] for r in rows]) for key in ("predicted", "mean")}
        left.loglog(fine, 1e6 * curves[name], color=colour, linewidth=1)
        left.loglog(DWELLS, limit["predicted"] * limit["mean"], "o", color=colour, markersize=4)
        end = fine[-1], 1e6 * curves[name][-1]
        left.annotate(f"{name} Kα", end, (5, -3), textcoords="offset points", fontsize=8, color=colour)
    left.plot([], [], color="0.3", linewidth=1, label="predicted")
    left.plot([], [], "o", color="0.3", markersize=4, label="found: 3 × spread of blank points")
    left.set_xlabel("dwell on a point [s]", fontsize=8)
    left.set_ylabel("limit of detection [µg/cm²]", fontsize=8)
    draw_ratios(right, rows)
    for ax, place in ((left, "lower left"), (right, "lower right")):
        ax.tick_params(labelsize=8)
        ax.spines[["top", "right"]].set_visible(False)
        ax.legend(fontsize=7, frameon=False, loc=place)
    page.savefig(path)


def draw_ratios(ax: Any, rows: list[dict]) -> None:
    """Found over predicted, with both ways to know the background."""
    known = {"mean": ("mean of the map", "full"), "own": ("each point's own sides", "none")}
    for key, (said, fill) in known.items():
        for name, colour in COLOURS.items():
            blank, ratio = (np.array([r[name][k] for r in rows]) for k in ("blank", key))
            ax.semilogx(blank, ratio, "o", color=colour, markersize=4, fillstyle=fill)
        ax.plot([], [], "o", color="0.3", markersize=4, fillstyle=fill, label=f"background: {said}")
    worse = (1 + 1 / SIDES) ** 0.5
    ax.axhline(1, color="0.3", linewidth=1)
    ax.axhline(worse, color="0.3", linewidth=1, linestyle="--")
    ax.text(0.2, worse + 0.015, f"√(1 + 1/{SIDES})", fontsize=8, color="0.3")
    ax.axvline(1, color="0.75", linewidth=0.8, zorder=0)
    ax.set_xlabel("counts below the line, in one point", fontsize=8)
    ax.set_ylabel("limit found over predicted", fontsize=8)
    ax.set_ylim(0.4, 1.25)


if __name__ == "__main__":
    main()

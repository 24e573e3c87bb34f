"""State of charge of a battery electrode, particle by particle, from the lattice of its cathode material.

    python experiments/battery_electrode/run.py [--seed 0] [--output FOLDER]

Prints the tables of README.md and writes charge.png. Needs xraydb (`pip install "diffrecon[materials]"`).
"""

import argparse
import itertools
import tempfile
import time
from functools import cache, partial
from pathlib import Path

import numpy as np
import xraydb

import diffrecon as dr
from diffrecon.simulate import diffraction_tomography as powder
from diffrecon.simulate import powders

HERE = Path(__file__).parent
# The size is that of S.-C. Yin, Y.-H. Rho, I. Swainson, L. F. Nazar, Chem. Mater. 18, 1901 (2006); the numbers are not
# fitted to its table: put your own calibration here.
A, C = 2.860, 14.23  # [Angstrom] at x = 1 in LixNi1/3Mn1/3Co1/3O2
A_SLOPE, C_SLOPE = 0.0254, -0.0316  # relative change for a change of x by one: -1.27 % and +1.58 % at x = 0.5
ATOMS = {"Li": 0.0, "Ni": 0.5, "O": (0.2585, 1 - 0.2585)}  # heights over c; Ni stands for the metals
CENTRED = np.array([(0, 0, 0), (2 / 3, 1 / 3, 1 / 3), (1 / 3, 2 / 3, 2 / 3)])
SHAKE = 0.6  # Debye-Waller B [A^2]
ABSORBS = {"NMC": 2590.0, "Al": 300.0, "glass": 30.0}  # [1/m] at 30 keV; "glass" is carbon and binder here
NAMES = ("NMC", "Al")
VIEWS, CHANNELS = 60, 200
RANGE = np.radians((4.2, 17.6))  # two_theta
WAVELENGTH = 12.39841984332 / 30  # [Angstrom]
SETTINGS = {
    "model": {"c_change": {"NMC": C_SLOPE / A_SLOPE}, "lattice_change": 0.015},
    "solver": {"patterns": False, "strain_step": 1e-3},
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, default=HERE)
    options = parser.parse_args()
    start, random = time.process_time(), np.random.default_rng(options.seed)
    discs = electrode(random)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "electrode.h5"
        truth = write(path, discs, random)
        scan = dr.open_scan(path)
        scan = scan.replace(counts=np.asarray(scan.counts))
    print(
        "| model | NMC | Al | x, rms | bias | within one error bar | mean x | true | deviance | CPU s |\n|"
        + "---|" * 10
    )
    alike = {**SETTINGS, "model": {"lattice_change": 0.015}}
    results = []
    for label, settings in {"c falls where a grows": SETTINGS, "lattices keep their shape": alike}.items():
        began = time.process_time()
        results.append(dr.reconstruct(scan, settings=settings))
        print(f"| {label} | {figures(results[-1], truth)} | {time.process_time() - began:.0f} |", flush=True)
    best = results[0]
    print("\n| particle | diameter [um] | x of its core, of its shell | mean, true | found |\n|---|---|---|---|---|")
    for line in particles(best, truth, discs):
        print(line)
    draw(best, truth, options.output / "charge.png")
    print(f"{time.process_time() - start:.0f} CPU s")


# ---------------------------------------------------------------------------------------------------- the sample
def electrode(random: np.random.Generator) -> np.ndarray:
    """Rows of `diffraction_tomography.view_of`: an aluminium wire in carbon and binder, about it particles whose cores
    are less charged than their shells, and those near the wire less than those outside.
    """
    steps = powder.STEPS
    rows = [[0, 0, 0.46 * steps, 0, 0, 1.0, 1.0, 0], [0, 0, 2.6, 0, 0.97, -1.0, 1.0, 4e-4]]
    for _ in range(20000):
        radius, place = random.uniform(1.3, 2.3), random.uniform(-0.45, 0.45, 2) * steps
        away, others = np.hypot(*place), [r for r in rows[1:] if r[5] < 0]
        apart = all(np.hypot(*(place - r[:2])) > radius + r[2] + 0.2 for r in others)
        if apart and away + radius < rows[0][2] and len(others) < 14:
            shell = 0.95 - 0.35 * away / rows[0][2] + random.uniform(-0.06, 0.06)
            core = min(shell + random.uniform(0.0, 0.15), 1.0)
            rows += [[*place, radius, 0.8, 0, -0.8, shell, 0], [*place, 0.55 * radius, 0, 0, 0, core, 0]]
    table = np.array(rows)
    table[:, 6] = A_SLOPE * (table[:, 6] - 1)
    return table


def write(path: Path, discs: np.ndarray, random: np.random.Generator) -> dict[str, np.ndarray]:
    """Simulate and write the scan. Nothing of the charge is in the file: lines of NMC are those with all lithium."""
    angles, two_theta = np.arange(VIEWS) * np.pi / VIEWS, np.linspace(*RANGE, CHANNELS)
    peaks = cache(partial(peaks_of, two_theta))
    views = [powder.view_of(discs, float(a), two_theta, NAMES, False, peaks, ABSORBS) for a in angles]
    truth = powder.truth_of(discs, NAMES)
    phases = {"NMC": lines_of_nmc(), "Al": powders.lines("Al")}
    powder.write_scan_of(path, random, angles, two_theta, views, phases, truth)
    return truth


@cache
def lines_of_nmc() -> tuple[np.ndarray, np.ndarray, np.ndarray, float]:
    """Spacings [Angstrom], strengths, Miller indices and volume [A^3] of the cell with all lithium."""
    found: dict[tuple, tuple] = {}
    for hkl in itertools.product(range(-5, 6), range(-5, 6), range(-20, 21)):
        inverse = in_plane(hkl) / A**2 + hkl[2] ** 2 / C**2
        if not 0 < inverse < (2 * np.sin(RANGE[1] / 2 * 1.1) / WAVELENGTH) ** 2:
            continue
        sine, wave = np.sqrt(inverse) / 2, np.exp(2j * np.pi * (CENTRED @ hkl)).sum()
        factor = 0j
        for element, heights in ATOMS.items():
            f = xraydb.f0(element, sine)[0] + xraydb.f1_chantler(element, 30e3) + 1j * xraydb.f2_chantler(element, 30e3)
            factor += f * wave * np.exp(2j * np.pi * hkl[2] * np.atleast_1d(heights)).sum()
        label, total = found.get(key := (round(in_plane(hkl), 6), abs(hkl[2])), (hkl, 0.0))
        found[key] = max(label, hkl), total + abs(factor) ** 2 * np.exp(-2 * SHAKE * sine**2)
    strongest = max(total for _, total in found.values())
    kept = [(label, total) for label, total in found.values() if total > 1e-3 * strongest]
    hkl = np.array([label for label, _ in kept])
    spacing = 1 / np.sqrt(in_plane(hkl.T) / A**2 + hkl[:, 2] ** 2 / C**2)
    return spacing, np.array([total for _, total in kept]), hkl, np.sqrt(3) / 2 * A**2 * C


def in_plane(hkl) -> float:
    """1/spacing^2 of the hexagonal plane, over 1/a^2."""
    return 4 / 3 * (hkl[0] ** 2 + hkl[0] * hkl[1] + hkl[1] ** 2)


def peaks_of(two_theta: np.ndarray, name: str, scale: float, nearer: float) -> np.ndarray:
    """Pattern of a volume fraction of one [1/(m sr)] (B. E. Warren, X-ray Diffraction, ch. 4), both axes by x."""
    if name == "Al":
        return powders.pattern(name, two_theta, 30e3, powder.WIDTH, scale, nearer)
    x = 1 + (scale - 1) / A_SLOPE
    a, c = A * (1 + A_SLOPE * (x - 1)), C * (1 + C_SLOPE * (x - 1))
    _, strength, hkl, _ = lines_of_nmc()
    theta = np.arcsin(WAVELENGTH / 2 * np.sqrt(in_plane(hkl.T) / a**2 + hkl[:, 2] ** 2 / c**2))
    volume = np.sqrt(3) / 2 * a**2 * c * 1e-30
    power = (
        powders.RADIUS**2
        * (WAVELENGTH * 1e-10) ** 3
        * strength
        / (8 * np.pi * volume**2 * np.sin(theta) * np.sin(2 * theta))
    )
    away = (two_theta[:, None] - 2 * theta) / powder.WIDTH
    gauss = np.sqrt(4 * np.log(2) / np.pi) * np.exp(-4 * np.log(2) * away**2)
    return ((0.5 * gauss + 1 / np.pi / (1 + 4 * away**2)) / powder.WIDTH * power).sum(1)


# ---------------------------------------------------------------------------------------------------- judgement
def charge(result: dr.Result) -> tuple[np.ndarray, np.ndarray]:
    """Lithium content x, NaN where there is no NMC, and its error bar."""
    return 1 + (np.asarray(result["NMC_scale"], float) - 1) / A_SLOPE, np.asarray(
        result["NMC_scale_error"], float
    ) / A_SLOPE


def figures(result: dr.Result, truth: dict[str, np.ndarray]) -> str:
    """Errors of the fractions, and of x where at least a fifth is NMC."""
    share = [np.linalg.norm(np.asarray(result[n]) - truth[n]) / np.linalg.norm(truth[n]) for n in NAMES]
    x, bar = charge(result)
    true = 1 + (truth["NMC_scale"] - 1) / A_SLOPE
    there = (truth["NMC"] > 0.2) & np.isfinite(x)
    off, weight = (x - true)[there], truth["NMC"][there]
    within = np.mean(np.abs(off) < bar[there])
    means = [np.average(values[there], weights=weight) for values in (x, true)]
    said = [f"{v:.3f}" for v in (*share, np.sqrt(np.mean(off**2)), off.mean())]
    return " | ".join([*said, f"{within:.0%}", *(f"{m:.3f}" for m in means), f"{result.quality['deviance']:.2f}"])


def particles(result: dr.Result, truth: dict[str, np.ndarray], discs: np.ndarray) -> list[str]:
    """Mean x of every particle, weighted by how much NMC is found in a pixel."""
    x, bar = charge(result)
    axis, rows = np.arange(powder.STEPS) - (powder.STEPS - 1) / 2, []
    true = 1 + (truth["NMC_scale"] - 1) / A_SLOPE
    for number, (shell, core) in enumerate(zip(discs[2::2], discs[3::2], strict=True)):
        inside = (np.hypot(axis - shell[0], axis[:, None] - shell[1]) < shell[2]) & np.isfinite(x)
        weight = np.asarray(result["NMC"])[inside]
        mean, expected = (np.average(v[inside], weights=weight) for v in (x, true))
        spread = np.sqrt(np.average(bar[inside] ** 2, weights=weight))
        states = " and ".join(f"{1 + d[6] / A_SLOPE:.2f}" for d in (core, shell))
        rows.append(f"| {number + 1} | {40 * shell[2]:.0f} | {states} | {expected:.3f} | {mean:.3f} ± {spread:.3f} |")
    return rows


# ---------------------------------------------------------------------------------------------------- picture
def draw(result: dr.Result, truth: dict[str, np.ndarray], path: Path) -> None:
    """Charge of the truth and as found, its error bar and the error in units of it, beside the phases."""
    from matplotlib.figure import Figure

    x, bar = charge(result)
    there = truth["NMC"] > 0.2
    true = np.where(there, 1 + (truth["NMC_scale"] - 1) / A_SLOPE, np.nan)
    x, bar = (np.where(there, v, np.nan) for v in (x, bar))
    panels = [
        ("NMC found", np.asarray(result["NMC"]), "cividis", (0, 0.85), "volume fraction"),
        ("lithium content, truth", true, "viridis", (0.55, 1.0), "x"),
        ("lithium content, found", x, "viridis", (0.55, 1.0), "x"),
        ("error bar", bar, "magma", (0, np.nanpercentile(bar, 98)), "x"),
        ("error over error bar", (x - true) / bar, "RdBu_r", (-4, 4), ""),
    ]  # fmt: skip
    page = Figure(figsize=(10.5, 2.1), dpi=120)
    axes = page.subplots(1, 5, gridspec_kw={"left": 0.01, "right": 0.96, "top": 0.88, "bottom": 0.05, "wspace": 0.35})
    for ax, (title, values, colours, limits, unit) in zip(axes, panels, strict=True):
        shown = ax.imshow(values, cmap=colours, vmin=limits[0], vmax=limits[1])
        ax.set(xticks=[], yticks=[])
        ax.set_title(title, fontsize=8)
        bar_of = page.colorbar(shown, ax=ax, fraction=0.046, pad=0.03)
        bar_of.ax.tick_params(labelsize=7)
        bar_of.set_label(unit, fontsize=7)
    axes[0].plot([1, 6], [22.3, 22.3], color="white", linewidth=2)
    axes[0].text(6.6, 22.8, "100 µm", color="white", fontsize=7)
    page.savefig(path)


if __name__ == "__main__":
    main()

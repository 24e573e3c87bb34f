"""A section through fly ash: four elements in a hollow glass ball, with and without self-absorption in the model.

    python experiments/fly_ash/run.py [--seed 0] [--output FOLDER]

Prints the table of README.md and writes fly_ash.png.
"""

import argparse
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np

import diffrecon as dr

HERE = Path(__file__).parent
POINTS, VIEWS, STEP, ENERGY = 64, 90, 1.25e-6, 18e3  # of the scan; [m], [eV]
PHOTONS, TRANSMITTED, SHARE = 3e8, 1e6, 0.03  # a point; counts of its empty beam; of the sphere that the detector sees
FINE, ALONG = 4, 2  # rays in a point, places in a step along each
FAN = np.deg2rad(np.linspace(-18, 18, 7))  # directions of the detector about the normal of the beam
GLASS, ELEMENTS = "Al6Si2O13", ("Ca", "Ti", "Fe", "Sr")
COMPONENTS = (GLASS, *ELEMENTS)
BODY = {GLASS: 2.4, "Ca": 0.05, "Ti": 0.02, "Fe": 0.03}  # [g/cm^3]
GRAINS = (
    {"Ca": 0.7}, {"Ca": 0.4, "Ti": 0.2}, {"Ca": 0.25}, {"Ti": 0.5}, {"Fe": 1.1}, {"Fe": 0.7}, {"Fe": 0.4, "Ti": 0.1},
    {"Sr": 0.05},
)  # fmt: skip


class Tables(NamedTuple):
    """Cross sections [cm^2/g] of components: for the beam, and `(line, component)`; production of every line."""

    beam: np.ndarray
    lines: np.ndarray
    production: np.ndarray


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, default=HERE)
    options = parser.parse_args()
    began = time.process_time()
    scan, truth, left = section(options.seed)
    print("leaves the section: " + ", ".join(f"{n} {s:.0%}" for n, s in zip(ELEMENTS, left, strict=True)))
    print(f"| seed {options.seed} | " + " | ".join(ELEMENTS) + " | CPU s |\n|" + "---|" * (len(ELEMENTS) + 2))
    columns = {"truth": truth}
    for label, solve in METHODS.items():
        start = time.process_time()
        columns[label] = solve(scan)
        spent = time.process_time() - start
        cells = [
            f"{error(columns[label][n], truth[n]):.3f}, {columns[label][n].sum() / truth[n].sum():.3f}"
            for n in ELEMENTS
        ]
        print(f"| {label} | " + " | ".join(cells) + f" | {spent:.1f} |", flush=True)
    draw(columns, options.output / "fly_ash.png")
    print(f"{time.process_time() - began:.0f} CPU s")


def error(found: np.ndarray, true: np.ndarray) -> float:
    """Relative error over the field."""
    return float(np.linalg.norm(found - true) / np.linalg.norm(true))


# ---------------------------------------------------------------------------------------------------- methods
def back_projected(scan: dr.Scan) -> dict[str, np.ndarray]:
    """Every sinogram by itself, nothing absorbed, as maps of elements are often made."""
    tables, found = scan.extra["cross_sections"], {}
    A = dr.operators.ParallelProjector(np.asarray(scan.angles), (POINTS, POINTS), POINTS)
    for row, name in enumerate(ELEMENTS):
        per_gram = scan.extra["photons"] * tables["emission"][row, row + 1] * 100 * STEP
        found[name] = np.asarray(dr.solvers.fbp(A, (scan.counts[..., row] / per_gram).astype(np.float32)))[0]
    return found


def without_self_absorption(scan: dr.Scan) -> dict[str, np.ndarray]:
    """The same method, the beam absorbed on its way in, lines not on their way out."""
    tables = scan.extra["cross_sections"]
    tables = {**tables, "lines": 1e-9 * tables["lines"]}
    return with_self_absorption(scan.replace(extra={**scan.extra, "cross_sections": tables}))


def alternation(scan: dr.Scan) -> dict[str, np.ndarray]:
    """EM with the absorption as it is, then the absorption anew, four times."""
    return with_self_absorption(scan, {"solver": {"name": "alternate"}})


def with_self_absorption(scan: dr.Scan, settings: dict | None = None) -> dict[str, np.ndarray]:
    """All absorption in the model."""
    result = dr.reconstruct(scan, settings=settings or {})
    return {name: np.asarray(result[name], float)[0] for name in ELEMENTS}


METHODS = {
    "filtered back-projection": back_projected,
    "without self-absorption": without_self_absorption,
    "alternation": alternation,
    "with self-absorption": with_self_absorption,
}


# ---------------------------------------------------------------------------------------------------- simulation
def section(seed: int) -> tuple[dr.Scan, dict[str, np.ndarray], np.ndarray]:
    """Counts, true densities [g/cm^3] on the grid of the scan, and the share of every line that leaves the section.

    Chords through ellipses are exact for the beam on its way in and for every direction of the detector; emission is
    summed over cells finer than a voxel. Cross sections are those of the package, the rest is NumPy in float64.
    """
    random = np.random.default_rng(seed)
    ellipses, density = particle(random)
    tables = cross_sections()
    angles = np.arange(VIEWS) * 2 * np.pi / VIEWS
    signals, free = map(np.stack, zip(*(view(a, ellipses, density, tables) for a in angles), strict=True))
    photons = PHOTONS * (1 + 0.03 * np.sin(np.arange(VIEWS * POINTS) / 40).reshape(VIEWS, 1, POINTS))
    counts = random.poisson(photons[..., None] * signals[:, None, :, :-1]).astype(np.uint32)
    per_photon = TRANSMITTED / PHOTONS
    emission = np.zeros((len(ELEMENTS), len(COMPONENTS)))
    emission[:, 1:] = np.diag(SHARE * tables.production)
    extra = {
        "photons": photons,
        "transmitted": random.poisson(per_photon * photons * signals[:, None, :, -1]),
        "transmitted_per_photon": per_photon,
        "cross_sections": {
            "components": COMPONENTS, "channels": ELEMENTS,
            "emission": emission, "beam": tables.beam, "lines": tables.lines,
            "directions": np.stack([np.cos(FAN), np.sin(FAN), 0 * FAN], 1),
            "weights": np.full((len(FAN), len(ELEMENTS)), 1 / len(FAN)), "table": "xraydb",
        },
    }  # fmt: skip
    scan = dr.Scan.from_arrays(
        counts, angles=angles, method="fluorescence-tomography", geometry=dr.ParallelBeam(STEP, ENERGY), extra=extra
    )
    return scan, voxels(ellipses, density), signals[..., :-1].sum((0, 1)) / free.sum((0, 1))


def cross_sections() -> Tables:
    """Look attenuation and K lines up."""
    lines = [dr.models.emission_line(f"{name} Ka", ENERGY, "xraydb") for name in ELEMENTS]
    means = [float(np.average(line.energies, weights=line.production)) for line in lines]
    at = lambda energy: np.array([dr.models.attenuation_of(c, energy) for c in COMPONENTS])
    return Tables(at(ENERGY), np.stack([at(e) for e in means]), np.array([line.production.sum() for line in lines]))


def particle(random: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Ellipses `(x, y, half axes, tilt)` in steps and what each adds to the densities: a ball of glass with a rim of
    strontium a step wide and two pores, and grains in the wall, none of which touch."""
    row = lambda added: [added.get(c, 0.0) for c in COMPONENTS]
    radius, squeeze, tilt = 0.44 * POINTS, random.uniform(0.85, 0.95), random.uniform(0, np.pi)
    ellipses = [(0.0, 0.0, radius, squeeze * radius, tilt), (0.0, 0.0, radius - 1, squeeze * radius - 1, tilt)]
    density, places = [row(BODY | {"Sr": 0.02}), row({"Sr": -0.02})], []
    empty = {name: -value for name, value in BODY.items()}
    for size, added in [(0.13, empty), (0.07, empty), *((random.uniform(0.04, 0.08), grain) for grain in GRAINS)]:
        size *= POINTS
        for _ in range(10000):
            x, y = random.uniform(-1, 1, 2) * radius
            apart = all(np.hypot(x - a, y - b) > size + other + 0.5 for a, b, other in places)
            if apart and np.hypot(x, y) + size < squeeze * radius - 2:
                break
        else:
            raise SystemExit("no room for the grains of this seed: take another one")
        places.append((x, y, size))
        ellipses.append((x, y, size, random.uniform(0.6, 1) * size, random.uniform(0, np.pi)))
        density.append(row(added))
    return np.array(ellipses), np.array(density)


def unit(x: np.ndarray, y: np.ndarray, ellipses: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Places in coordinates in which each ellipse is the unit circle, along a new last axis."""
    cx, cy, a, b, tilt = ellipses.T
    c, s, dx, dy = np.cos(tilt), np.sin(tilt), x[..., None] - cx, y[..., None] - cy
    return (c * dx + s * dy) / a, (c * dy - s * dx) / b


def chords(x: np.ndarray, y: np.ndarray, way: np.ndarray, ellipses: np.ndarray) -> np.ndarray:
    """Length in each ellipse of the rays from points onwards, in steps."""
    p, q = unit(x, y, ellipses)
    c, s = np.cos(ellipses[:, 4]), np.sin(ellipses[:, 4])
    u, v = (c * way[0] + s * way[1]) / ellipses[:, 2], (c * way[1] - s * way[0]) / ellipses[:, 3]
    square, along = u**2 + v**2, p * u + q * v
    root = np.sqrt(np.maximum(along**2 - square * (p**2 + q**2 - 1), 0))
    return (np.maximum(root - along, 0) - np.maximum(-along - root, 0)) / square


def view(angle: float, ellipses: np.ndarray, density: np.ndarray, tables: Tables) -> tuple[np.ndarray, np.ndarray]:
    """Signal of every line and of the transmitted beam for one photon at each point, and of the lines if nothing were
    absorbed."""
    across, along = np.array([np.cos(angle), np.sin(angle)]), np.array([-np.sin(angle), np.cos(angle)])
    u = (np.arange(POINTS * FINE) + 0.5) / FINE - POINTS / 2
    t = (np.arange(POINTS * ALONG) + 0.5) / ALONG - POINTS / 2
    x, y = (u[:, None] * across[k] + t * along[k] for k in (0, 1))
    centimetres = 100 * STEP
    inside = (np.hypot(*unit(x, y, ellipses)) < 1) @ density
    body = inside[..., 0] + inside[..., 1:].sum(-1) > 0
    x, y, inside = x[body], y[body], inside[body]
    beam = np.exp(-chords(x, y, -along, ellipses) @ (density @ tables.beam) * centimetres)
    leaves: np.ndarray = np.zeros((len(x), len(ELEMENTS)))
    for f in FAN:
        way = np.cos(f) * across + np.sin(f) * along
        leaves += np.exp(-chords(x, y, way, ellipses) @ (density @ tables.lines.T) * centimetres) / len(FAN)
    made = SHARE * centimetres * tables.production * inside[:, 1:] / ALONG
    rays = np.nonzero(body)[0]
    point = lambda values: np.stack([np.bincount(rays // FINE, v, POINTS) for v in values.T], -1) / FINE
    start = -2.0 * POINTS * along
    through = chords(u * across[0] + start[0], u * across[1] + start[1], along, ellipses) @ (density @ tables.beam)
    transmitted = np.exp(-through * centimetres).reshape(POINTS, FINE).mean(1)
    return np.concatenate([point(made * beam[:, None] * leaves), transmitted[:, None]], -1), point(made)


def voxels(ellipses: np.ndarray, density: np.ndarray) -> dict[str, np.ndarray]:
    """Mean densities of the voxels."""
    fine = (np.arange(POINTS * 8) + 0.5) / 8 - POINTS / 2
    inside = (np.hypot(*unit(fine[None] + 0 * fine[:, None], fine[:, None] + 0 * fine[None], ellipses)) < 1) @ density
    means = inside.reshape(POINTS, 8, POINTS, 8, -1).mean((1, 3))
    return {name: means[..., c] for c, name in enumerate(COMPONENTS)}


# ---------------------------------------------------------------------------------------------------- picture
def draw(columns: dict[str, dict[str, np.ndarray]], path: Path) -> None:
    """Rows of elements, columns of methods after the truth; colours are those of the row."""
    from matplotlib.figure import Figure

    page = Figure(figsize=(7.6, 5.9), dpi=110)
    room = {"left": 0.035, "right": 0.905, "top": 0.955, "bottom": 0.015, "wspace": 0.04, "hspace": 0.04}
    axes = page.subplots(len(ELEMENTS), len(columns), gridspec_kw=room)
    for number, (line, name) in enumerate(zip(axes, ELEMENTS, strict=True)):
        top = float(columns["truth"][name].max())
        for ax, (label, found) in zip(line, columns.items(), strict=True):
            ax.imshow(found[name], cmap="inferno", vmin=0, vmax=top)
            ax.set(xticks=[], yticks=[])
            if number == 0:
                ax.set_title(label, fontsize=8)
        line[0].set_ylabel(name, fontsize=9)
        box = line[-1].get_position()
        bar = page.colorbar(
            line[-1].images[0], cax=page.add_axes((box.x1 + 0.01, box.y0, 0.014, box.height)), extend="both"
        )
        bar.set_label("g/cm³", fontsize=8)
        bar.ax.tick_params(labelsize=8)
    length = 20e-6 / STEP
    axes[0, 0].plot([3, 3 + length], [60, 60], color="white", linewidth=2)
    axes[0, 0].text(5 + length, 60, "20 µm", color="white", fontsize=8, va="center")
    page.savefig(path)


if __name__ == "__main__":
    main()

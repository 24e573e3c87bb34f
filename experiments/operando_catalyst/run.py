"""A catalyst that is reduced while it is scanned: which grain becomes metal when, from one continuous scan.

    python experiments/operando_catalyst/run.py [--seed 0] [--knots 4 6 10] [--output FOLDER]

Prints the tables of README.md and writes catalyst.png, of the last number of knots.
"""

import argparse
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np

import diffrecon as dr
from diffrecon.simulate import operando_diffraction as catalyst

HERE = Path(__file__).parent
PHASES = ("NiO", "Ni")
COLOURS = {"NiO": np.array([0.0, 0.45, 0.70]), "Ni": np.array([0.84, 0.37, 0.0])}
RIM = 0.7  # of a grain, not averaged [pixel]


class Found(NamedTuple):
    """Maps by phase `(time, y, x)` at `times` [s], and error bars of their means over the slice, where there are."""

    times: np.ndarray
    maps: dict[str, np.ndarray]
    bars: dict[str, np.ndarray]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--knots", type=int, nargs="+", default=[4, 6, 10])
    parser.add_argument("--output", type=Path, default=HERE)
    options = parser.parse_args()
    start, results = time.process_time(), {}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "catalyst.h5"
        truth = catalyst.write(path, options.seed)
        scan = dr.open_scan(path)
        scan = scan.replace(counts=np.asarray(scan.counts))
    print("| method | NiO | Ni | course of NiO | of Ni | half converted, rms [s] | CPU s |\n|" + "---|" * 7)
    for label, solve in methods(options.knots).items():
        began = time.process_time()
        results[label] = solve(scan)
        figures = " | ".join(f"{value:.3f}" for value in errors(results[label], truth))
        off = halves(results[label], options.seed)[:, 1] - halves(None, options.seed)[:, 1]
        alike = np.isfinite(off).sum() == np.isfinite(halves(None, options.seed)[:, 1]).sum()
        said = f"{np.sqrt(np.nanmean(off**2)):.0f}" if alike else "-"
        print(f"| {label} | {figures} | {said} | {time.process_time() - began:.0f} |", flush=True)
    best = results[list(results)[-1]]
    print("\n| grain | radius [um] | half converted after [s] | found [s] |\n|---|---|---|---|")
    for number, (true, found) in enumerate(zip(halves(None, options.seed), halves(best, options.seed), strict=True)):
        said = [f"{t:.0f}" if np.isfinite(t) else "never" for t in (true[1], found[1])]
        print(f"| {number + 1} | {true[0]:.0f} | {said[0]} | {said[1]} |")
    draw(best, truth, options.output / "catalyst.png")
    print(f"{time.process_time() - start:.0f} CPU s")


# ---------------------------------------------------------------------------------------------------- methods
def methods(knots: list[int]) -> dict:
    """Ways to look at the scan, by their words."""
    return {
        "one still slice": lambda scan: pieces(scan, 1),
        "six slices of 15 views each": lambda scan: pieces(scan, 6),
        **{f"{n} knots in time": lambda scan, n=n: in_time(scan, n) for n in knots},
    }


def in_time(scan: dr.Scan, knots: int) -> Found:
    """The method: all views at once, amounts and lattices linear in time between knots."""
    result = dr.reconstruct(scan, settings={"model": {"time_knots": knots}, "solver": {"patterns": False}})
    maps = {name: np.asarray(result[f"{name}_in_time"], float) for name in PHASES}
    return Found(
        np.asarray(result["times"]), maps, {name: np.asarray(result[f"{name}_course_error"]) for name in PHASES}
    )


def pieces(scan: dr.Scan, count: int) -> Found:
    """What one would do without a time axis: cut the scan into pieces, and take the sample to stand still in each."""
    settings, maps, times = {"solver": {"patterns": False}, "quality": {"samples": 0}}, [], []
    for views in np.array_split(np.arange(scan.views), count):
        result = dr.reconstruct(part_of(scan, views), settings=settings)
        maps.append([np.asarray(result[name], float) for name in PHASES])
        times.append(scan.extra["times"][views].mean())
    return Found(np.array(times), dict(zip(PHASES, np.moveaxis(np.array(maps), 1, 0), strict=True)), {})


def part_of(scan: dr.Scan, views: np.ndarray) -> dr.Scan:
    """Some views, with their light."""
    powder = dict(scan.extra["powder"])
    powder |= {name: powder[name][views] for name in ("monitor", "transmitted")} | {
        "grid": (len(views), scan.counts.shape[1])
    }
    extra = {name: value for name, value in scan.extra.items() if name != "times"} | {"powder": powder}
    return scan.replace(counts=scan.counts[views], angles=scan.angles[views], extra=extra)


# ---------------------------------------------------------------------------------------------------- judgement
def at(found: Found, name: str, times: np.ndarray) -> np.ndarray:
    """Maps at other times: linear between those found, as the nearest beyond them."""
    place = np.interp(times, found.times, np.arange(len(found.times)))
    low = np.clip(place.astype(int), 0, max(len(found.times) - 2, 0))
    high, share = np.minimum(low + 1, len(found.times) - 1), (place - low)[:, None, None]
    return (1 - share) * found.maps[name][low] + share * found.maps[name][high]


def errors(found: Found, truth: dict[str, np.ndarray]) -> list[float]:
    """Relative errors of the maps at the times of the truth, and the largest of the courses over their maximum."""
    maps = [np.linalg.norm(at(found, n, truth["times"]) - truth[n]) / np.linalg.norm(truth[n]) for n in PHASES]
    views = np.linspace(0, catalyst.SECONDS, truth["course"].shape[1])
    means = [at(found, name, views).mean((1, 2)) for name in PHASES]
    return maps + [float(abs(m - c).max() / c.max()) for m, c in zip(means, truth["course"], strict=True)]


def halves(found: Found | None, seed: int) -> np.ndarray:
    """Radius [um] of every grain, and when half of its oxide is gone [s], NaN = never; `None`: the truth."""
    discs, begins = catalyst.grains(np.random.default_rng(seed))
    rows, times = [], np.linspace(0, catalyst.SECONDS, 721)
    axis = np.arange(catalyst.STEPS) - (catalyst.STEPS - 1) / 2
    for (x, y, radius, *_), begin in zip(discs[1:], begins[1:], strict=True):
        if found is None:
            left = np.array(
                [catalyst.converted(discs[:1], np.array([begin]), t / catalyst.SECONDS)[0, 3] for t in times]
            )
        else:
            inside = np.hypot(axis - x, axis[:, None] - y) < radius - RIM
            left = at(found, "NiO", times)[:, inside].mean(1)
        gone = left < 0.5 * left[0]
        rows.append((radius * 20, times[np.argmax(gone)] if gone.any() else np.nan))
    return np.array(rows)


# ---------------------------------------------------------------------------------------------------- picture
def draw(found: Found, truth: dict[str, np.ndarray], path: Path) -> None:
    """Both phases in one colour map at five times, truth above and found below; beside them the courses."""
    from matplotlib.figure import Figure

    page = Figure(figsize=(8.6, 2.75), dpi=130)
    chosen = np.arange(0, 9, 2)
    shown = {
        "truth": {n: truth[n][chosen] for n in PHASES},
        "found": {n: at(found, n, truth["times"][chosen]) for n in PHASES},
    }
    axes = page.subplots(
        2, 5, gridspec_kw={"left": 0.03, "right": 0.66, "top": 0.92, "bottom": 0.03, "wspace": 0.05, "hspace": 0.05}
    )
    most = {"NiO": 0.42, "Ni": 0.42 * catalyst.LEFT}
    for line, (word, maps) in zip(axes, shown.items(), strict=True):
        line[0].set_ylabel(word, fontsize=9)
        for number, ax in enumerate(line):
            light = sum(np.clip(maps[n][number] / most[n], 0, 1)[..., None] * COLOURS[n] for n in PHASES)
            ax.imshow(np.clip(light, 0, 1))
            ax.set(xticks=[], yticks=[])
            if word == "truth":
                ax.set_title(f"{truth['times'][chosen[number]] / 60:.1f} min", fontsize=8)
    axes[0, 0].plot([1, 6], [22, 22], color="white", linewidth=2)
    axes[0, 0].text(7, 22.5, "100 µm", color="white", fontsize=7)
    ax, views = page.add_axes((0.735, 0.14, 0.255, 0.78)), np.linspace(0, catalyst.SECONDS, truth["course"].shape[1])
    for name, course in zip(PHASES, truth["course"], strict=True):
        ax.plot(views / 60, 100 * course, color=COLOURS[name], linewidth=1, label=f"{name}, truth")
        means = found.maps[name].mean((1, 2))
        ax.errorbar(
            found.times / 60,
            100 * means,
            100 * found.bars[name],
            color=COLOURS[name],
            fmt="o",
            markersize=4,
            label=f"{name}, found",
        )
    ax.set_xlabel("time [min]", fontsize=8)
    ax.set_ylabel("mean volume fraction of the slice [%]", fontsize=8)
    ax.tick_params(labelsize=7)
    ax.legend(fontsize=7, frameon=False)
    page.savefig(path)


if __name__ == "__main__":
    main()

"""Holograms to volume in two steps or in one: what does it change with few angles, few photons, a dense sample?

    python experiments/holotomography/run.py [--config config.toml] [--variant NAME] [--output FOLDER]

Prints the table of README.md and writes holotomography.png.
"""

import argparse
import time
import tomllib
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

import diffrecon as dr
from diffrecon import quality
from diffrecon.simulate import holotomography as simulated

HERE = Path(__file__).parent


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", type=Path, default=HERE / "config.toml")
    parser.add_argument("--variant", help="this one alone")
    parser.add_argument("--output", type=Path, default=HERE)
    options = parser.parse_args()
    config = tomllib.loads(options.config.read_text())
    print(
        "| scan | | error of delta | mean | half-bit [nm] | held-out deviance / noise | frames placed to [pixel] | "
        "CPU s |\n|---|---|---|---|---|---|---|---|",
        flush=True,
    )
    chosen = {name: v for name, v in config["variants"].items() if options.variant in (None, name)}
    found = {name: compare(name, variant, config["steps"]) for name, variant in chosen.items()}
    picture(found, options.output / "holotomography.png")


def compare(name: str, variant: dict, steps: int) -> dict[str, np.ndarray]:
    """Both ways of one scan: a row of the table each; volumes of delta by name, the truth among them."""
    setup = simulated.Setup(**variant)
    scan, truth = simulated.measure(setup)
    volumes, before = {}, 0.0
    for way, solver in (("two steps", {"name": "two-step"}), ("jointly", {"steps": steps})):
        start = time.process_time()
        result = dr.reconstruct(scan, settings={"solver": solver})
        seconds = time.process_time() - start - before  # the second way begins with the first
        before = seconds
        train = np.setdiff1d(np.arange(setup.angles), result.quality["held_out_views"])
        ratio = result.quality["held_out_deviance"] / result.quality["noise_floor_deviance"]
        volume = np.asarray(result["delta"], float)
        figures = simulated.compare(setup, volume)
        placed = simulated.shift_error(
            np.asarray(result["shifts"])[train] / setup.pixel, truth["shifts"][train], setup.turns[train]
        )
        print(
            f"| {name} | {way} | {figures['error']:.3f} | {figures['mean']:+.1%} | "
            f"{figures['half_bit'] * setup.pixel * 1e9:.0f} | {ratio:.3f} | {placed:.3f} | {seconds:.0f} |",
            flush=True,
        )
        volumes[way] = simulated.registered(volume, simulated.true_volume(setup, volume.shape))
    return {**volumes, "truth": simulated.true_volume(setup, volumes["jointly"].shape)}


def picture(found: dict[str, dict[str, np.ndarray]], path: Path) -> None:
    """The middle slice of all variants and both ways, a profile through it, the shell correlation with the truth."""
    figure, axes = plt.subplots(len(found), 5, figsize=(16, 3.2 * len(found)), layout="constrained", squeeze=False)
    figure.get_layout_engine().set(w_pad=0.1)
    pixel = simulated.DEMO.pixel * 1e6
    for row, (name, volumes) in zip(axes, found.items(), strict=True):
        truth = volumes["truth"]
        high = truth.max()
        z = int(np.argmax((truth > 0.8 * high).sum((1, 2))))
        y = int(np.argmax((truth[z] > 0.8 * high).sum(1)))
        extent = (0, truth.shape[2] * pixel, truth.shape[1] * pixel, 0)
        for axis, way in zip(row, ("truth", "two steps", "jointly"), strict=False):
            image = axis.imshow(volumes[way][z] * 1e6, cmap="gray", vmin=-0.1e6 * high, vmax=1e6 * high, extent=extent)
            axis.axhline((y + 0.5) * pixel, color="tab:orange", lw=0.6)
            axis.set(title=f"{way}\n{name}", xlabel="x [µm]")
        figure.colorbar(image, ax=row[2], label="delta [10$^{-6}$]")
        x = (np.arange(truth.shape[2]) + 0.5) * pixel
        for way, style in (("truth", "k-"), ("two steps", "C0-"), ("jointly", "C1-")):
            row[3].plot(x, volumes[way][z, y] * 1e6, style, lw=1, label=way)
            if way != "truth":
                curve = quality.shell_correlation(volumes[way], truth)
                row[4].plot(curve.frequency, curve.correlation, style, label=way)
        row[4].plot(curve.frequency, curve.half_bit, "k:", lw=0.8, label="half bit")
        row[3].set(xlabel="x [µm]", ylabel="delta [10$^{-6}$]", title="along the line")
        row[4].set(xlabel="frequency [cycles/pixel]", ylim=(-0.1, 1.05), title="shell correlation with the truth")
        row[3].legend(fontsize=7)
        row[4].legend(fontsize=7)
    figure.savefig(path, dpi=80)


if __name__ == "__main__":
    main()

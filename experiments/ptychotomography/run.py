"""Frames to volume in two steps or in one: what does it change where the sample is wider than the scanned field?

    python experiments/ptychotomography/run.py [--config config.toml] [--variant NAME] [--output FOLDER]

Prints the table of README.md and writes local.png.
"""

import argparse
import time
import tomllib
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.patches import Circle

import diffrecon as dr
from diffrecon.simulate import ptychotomography as simulated

HERE = Path(__file__).parent
LOW, HIGH = -1.6, 1.2  # of the grey values [1e-6]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", type=Path, default=HERE / "config.toml")
    parser.add_argument("--variant", help="this one alone")
    parser.add_argument("--output", type=Path, default=HERE)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    config = tomllib.loads(options.config.read_text())
    print(
        "| scan | | error of delta, without its mean | half-bit resolution [pixel] | held-out residual / noise | "
        "centre (1.30) | CPU s |\n|---|---|---|---|---|---|---|"
    )
    chosen = {name: v for name, v in config["variants"].items() if options.variant in (None, name)}
    volumes = {name: compare(name, variant, config, options.seed) for name, variant in chosen.items()}
    picture(volumes, options.output / "local.png")


def compare(name: str, variant: dict, config: dict, seed: int) -> dict[str, np.ndarray]:
    """Both ways of one scan: a row of the table each; volumes of delta by name, the truth among them."""
    setup = simulated.Setup(local=True, seed=seed, **variant)
    scan, _ = simulated.measure(setup)
    ways = {
        "two steps": {"start": "projections", "first": config["first"], "steps": 0},
        "jointly": {"first": config["first"], "steps": config["steps"]},
    }
    found = {}
    for way, solver in ways.items():
        start = time.process_time()
        result = dr.reconstruct(scan, settings={"model": {"size": config["size"]}, "solver": solver})
        seconds = time.process_time() - start
        delta = np.asarray(result["delta"], float)
        figures = simulated.compare(setup, delta)
        ratio = result.quality["held_out_residual"] / result.quality["noise_floor_residual"]
        centre = result.quality["rotation_centre"]
        print(
            f"| {name} | {way} | {figures['structure']:.3f} | {figures['half_bit']:.2f} | {ratio:.2f} | {centre:.2f} "
            f"| {seconds:.0f} |",
            flush=True,
        )
        found[way] = delta
    found["truth"] = simulated.DELTA * simulated.phantom(simulated.ellipsoids(setup), found["jointly"].shape)
    return found


def picture(volumes: dict[str, dict[str, np.ndarray]], path: Path) -> None:
    """The slice in the middle, of all variants and both ways; each with its own mean in the region removed."""
    figure, axes = plt.subplots(2, len(volumes) + 1, figsize=(3.1 * (len(volumes) + 1), 6.4), layout="constrained")
    radius = simulated.field_radius(simulated.Setup())
    for row, way in zip(axes, ("two steps", "jointly"), strict=True):
        for axis, (name, found) in zip(row, [*volumes.items(), ("truth", next(iter(volumes.values())))], strict=True):
            volume = found["truth" if name == "truth" else way]
            z, size = volume.shape[0] // 2, volume.shape[1]
            ring = np.hypot(*np.meshgrid(np.arange(size) - (size - 1) / 2, np.arange(size) - (size - 1) / 2)) < radius
            axis.imshow((volume[z] - volume[z][ring].mean()) * 1e6, cmap="gray", vmin=LOW, vmax=HIGH)
            axis.add_patch(Circle(((size - 1) / 2, (size - 1) / 2), radius, fill=False, color="tab:orange"))
            axis.set(title=name if name == "truth" else f"{way}\n{name}", xticks=[], yticks=[])
    bar = figure.colorbar(ScalarMappable(Normalize(LOW, HIGH), "gray"), ax=axes, shrink=0.6)
    bar.set_label("delta, without its mean in the circle [10$^{-6}$]")
    figure.savefig(path, dpi=110)


if __name__ == "__main__":
    main()

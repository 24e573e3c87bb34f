"""181 views where about a thousand would be needed: which solver predicts views that it has not seen?

    python experiments/tooth/run.py FOLDER [--output FOLDER]

FOLDER holds tooth.h5 (from TomoPy's examples). Prints the table of README.md and writes tooth.png.
"""

import argparse
import time
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

import diffrecon as dr
from diffrecon import plot

HERE = Path(__file__).parent


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--output", type=Path, default=HERE)
    options = parser.parse_args()
    config = tomllib.loads((HERE / "config.toml").read_text())
    scan = dr.open_scan(options.folder / config["input"])
    values = jnp.asarray(scan.absorption()[:, config["row"]])
    centre = scan.find_rotation_centre()
    print(f"rotation centre {centre:.2f}")

    held = np.arange(scan.views) % config["every"] == config["every"] // 2
    seen, unseen = np.flatnonzero(~held), np.flatnonzero(held)
    columns = values.shape[-1]
    projector = lambda views: dr.operators.ParallelProjector(
        scan.angles[views], (columns, columns), columns, centre=centre
    )
    fitted, judge = projector(seen), projector(unseen)
    relative = lambda A, x, b: float(jnp.linalg.norm(A(x) - b) / jnp.linalg.norm(b))

    slices = {}
    print("| solver | residual, fitted views | residual, unseen views | CPU s |\n|---|---|---|---|")
    for name, solve in solvers(fitted, values[seen], config):
        begun = time.process_time()
        slices[name] = jax.block_until_ready(solve())
        seconds = time.process_time() - begun
        figures = relative(fitted, slices[name], values[seen]), relative(judge, slices[name], values[unseen])
        print(f"| {name} | {figures[0]:.4f} | {figures[1]:.4f} | {seconds:.1f} |", flush=True)
    draw(slices, options.output / "tooth.png")


def solvers(A: Any, b: jax.Array, config: dict[str, Any]) -> Iterator[tuple[str, Callable[[], jax.Array]]]:
    """Every solver of the configuration, by name."""
    yield "FBP", lambda: dr.solvers.fbp(A, b)
    yield "FBP, Hann", lambda: dr.solvers.fbp(A, b, filter="hann")
    for steps in config["steps"]["cgls"]:
        yield f"CGLS, {steps} steps", lambda steps=steps: dr.solvers.cgls(A, b, steps=steps).x
    for steps in config["steps"]["sirt"]:
        yield f"SIRT, {steps} steps", lambda steps=steps: dr.solvers.sirt(A, b, steps=steps).x
    for weight in config["tv"]["weights"]:
        yield f"TV, weight {weight:g}", lambda weight=weight: total_variation(A, b, weight, config["tv"])


def total_variation(A: Any, b: jax.Array, weight: float, settings: dict[str, Any]) -> jax.Array:
    """Least squares, total variation and nothing negative, from the filtered back-projection."""

    def cost(model: dr.models.Tomography, batch: dr.Batch) -> jax.Array:
        penalty = dr.penalties.tv(model.volume, eps=settings["eps"], axes=(-2, -1))
        return dr.losses.gaussian(model(batch.views), batch.values) + weight * penalty

    start = dr.solvers.fbp(A, b)
    rate = optax.cosine_decay_schedule(settings["learning_rate"], settings["steps"], 0.02)
    solution = dr.minimise(
        cost,
        dr.models.Tomography(start[None], A),
        {"values": b[:, None]},
        optax.adam(rate),
        steps=settings["steps"],
        unknowns=("volume",),
        project=dr.constraints.on("volume", dr.constraints.positive),
    )
    return solution.value.volume[0]


def draw(slices: dict[str, jax.Array], path: Path) -> None:
    """The same part of some slices, on the same grey values."""
    from matplotlib.figure import Figure

    names = [n for n in slices if n in ("FBP", "CGLS, 20 steps")] + ["TV, weight 0.3"]
    page = Figure(figsize=(3.4 * len(names), 3.3), layout="constrained")
    for ax, name in zip(page.subplots(1, len(names), squeeze=False)[0], names, strict=True):
        plot.image(
            np.asarray(slices[name])[150:410, 210:460], units="1/pixel", title=name, limits=(-0.002, 0.012), ax=ax
        )
    page.savefig(path, dpi=80)


if __name__ == "__main__":
    main()

"""A specimen that changes while it turns: one still volume against a volume with a time axis.

    python experiments/moving_sample/run.py [--size 80] [--views 320] [--output FOLDER]

Prints the table of README.md and writes moving.png.
"""

import argparse
import sys
import time
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

import diffrecon as dr
from diffrecon import plot

HERE = Path(__file__).parent
sys.path.append(str(HERE.parent))
import ellipses  # noqa: E402

GOLDEN = np.pi * (np.sqrt(5) - 1) / 2  # [rad] between views
SHOWN = (0.1, 0.5, 0.9)  # of the scan's duration
JUDGED = np.linspace(0.06, 0.94, 12)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=80)
    parser.add_argument("--views", type=int, default=320)
    parser.add_argument("--photons", type=float, default=2e4, help="on a pixel in each view")
    parser.add_argument("--frames", type=int, default=8, help="splines in time")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, default=HERE)
    options = parser.parse_args()

    times = np.linspace(0, 1, options.views)
    angles = np.mod(np.arange(options.views) * GOLDEN, 2 * np.pi)
    lines = np.concatenate(
        [ellipses.sinogram(specimen(t, options.size), angles[i : i + 1], options.size) for i, t in enumerate(times)]
    )
    counts = np.random.default_rng(options.seed).poisson(options.photons * np.exp(-lines))
    b = jnp.asarray(-np.log(np.maximum(counts, 1) / options.photons), jnp.float32)[:, None]
    A = dr.operators.ParallelProjector(angles, (options.size,) * 2, options.size)
    truth = {t: ellipses.image(specimen(t, options.size), options.size) for t in (*SHOWN, *JUDGED)}

    shown = {"truth": [truth[t] for t in SHOWN]}
    print("| model | error over time | of the moving parts | CPU s |\n|---|---|---|---|")
    for name, solve in solvers(A, b, times, options).items():
        begun = time.process_time()
        at = jax.block_until_ready(solve())
        seconds = time.process_time() - begun
        print(
            f"| {name} | {error(at, truth, options.size):.3f} | {error(at, truth, options.size, True):.3f} "
            f"| {seconds:.0f} |",
            flush=True,
        )
        shown[name] = [at(t) for t in SHOWN]
    draw({n: shown[n] for n in ("truth", "still, TV", "splines, TV in space and time")}, options.output / "moving.png")


def specimen(t: float, size: int) -> np.ndarray:
    """A bubble rises, a crystal grows, a grain dissolves, another turns; the rest stands still (t from 0 to 1)."""
    table = np.array(
        [
            [0.5, 0.84, 0.84, 0, 0, 0],
            [0.5, 0.10, 0.16, -0.45, 0.3, 0.3],
            [0.4, 0.13, 0.09, 0.1, -0.55, 0.9],
            [-0.5, 0.12, 0.12, -0.15, 0.55 - 1.0 * t, 0],
            [0.5, 0.06 + 0.18 * t, 0.05 + 0.12 * t, 0.42, 0.1, 0.5],
            [0.6 * (1 - t), 0.13, 0.13, 0.3, 0.55, 0],
            [0.4, 0.22, 0.06, -0.5, -0.25, np.pi * t],
        ]
    )
    table[:, 0] *= 2.5 / size
    table[:, 1:5] *= size / 2
    return table


def solvers(A: Any, b: jax.Array, times: np.ndarray, options: argparse.Namespace) -> dict[str, Any]:
    """What gives the slice at a time, by name."""
    moving = dr.operators.Dynamic.splines(A, times, options.frames)
    noise = float(jnp.sqrt(jnp.mean(jnp.exp(b)) / options.photons))
    weight = 0.6 * noise * np.sqrt(options.views)
    tv = dr.penalties.TotalVariation

    def still(x):
        return lambda t: np.asarray(x).reshape(options.size, options.size)

    def frames(volumes, A=moving):
        return lambda t: np.asarray(A.at(t, volumes)).reshape(options.size, options.size)

    share = np.sqrt(1 / options.frames)
    spacetime = tv(share * weight, axes=(0, -2, -1), isotropic=False)
    return {
        "still, FBP": lambda: still(dr.solvers.fbp(A, b, filter="hann")),
        "still, TV": lambda: still(dr.solvers.fista(A, b, tv(weight, axes=(-2, -1)), steps=150, bounds=(0, None)).x),
        "splines, CGLS": lambda: frames(dr.solvers.cgls(moving, b, steps=10).x),
        "splines, TV in space": lambda: frames(
            dr.solvers.fista(moving, b, tv(share * weight, axes=(-2, -1)), steps=150, bounds=(0, None)).x
        ),
        "splines, TV in space and time": lambda: frames(
            dr.solvers.fista(moving, b, spacetime, steps=150, bounds=(0, None)).x
        ),
        "low rank 4, TV in space": lambda: frames(*low_rank(A, b, times, options)),
    }


def low_rank(A: Any, b: jax.Array, times: np.ndarray, options: argparse.Namespace) -> tuple[Any, Any]:
    """Solve for four volumes and their courses, both unknown."""
    scale = 2.5 / options.size

    def cost(model: dr.models.Tomography, batch: dr.Batch) -> jax.Array:
        misfit = dr.losses.gaussian(model(batch.views), batch.values)
        space = dr.penalties.tv(model.volume / scale, axes=(-2, -1), eps=0.01)
        return misfit + 1e-4 * space + 1e-3 * dr.penalties.dirichlet(model.projector.temporal, axes=(0,))

    rate = optax.cosine_decay_schedule(1.0, 300, 0.02)
    courses = dr.operators.Dynamic.low_rank(A, times, 4)
    start = dr.models.Tomography(courses.empty(1), courses)
    unknowns = {"volume": 0.05 * scale, "projector.temporal": 0.01}
    found = dr.minimise(cost, start, {"values": b}, optax.adam(rate), steps=300, unknowns=unknowns).value
    return found.volume, found.projector


def error(at: Any, truth: dict[float, np.ndarray], size: int, moving: bool = False) -> float:
    """Relative error of the slices at many times, in the disc or where anything ever changes by a tenth."""
    grid = np.arange(size) - (size - 1) / 2
    where = np.hypot(grid[:, None], grid) < 0.48 * size
    true = np.stack([truth[t] for t in JUDGED])
    if moving:
        where &= np.ptp(true, axis=0) > 0.1 * true.max()
    found = np.stack([at(t) for t in JUDGED])
    return float(np.linalg.norm((found - true)[:, where]) / np.linalg.norm(true[:, where]))


def draw(shown: dict[str, list[np.ndarray]], path: Path) -> None:
    """Models down, times across, on one scale."""
    from matplotlib.figure import Figure

    page = Figure(figsize=(7.2, 6.6), dpi=150)
    axes = page.subplots(3, 3, gridspec_kw={"left": 0.02, "right": 0.9, "top": 0.95, "bottom": 0.04, "wspace": 0.4})
    top = 1.1 * max(image.max() for image in shown["truth"])
    for row, (name, images) in zip(axes, shown.items(), strict=True):
        for ax, image, t in zip(row, images, SHOWN, strict=True):
            title = f"{name}, t = {t:g}" if ax is row[0] and len(name) < 12 else name if ax is row[0] else f"t = {t:g}"
            plot.image(image, units="1/pixel", limits=(-0.1 * top, top), title=title, ax=ax)
    page.savefig(path)


if __name__ == "__main__":
    main()

"""Absorption tomography in a parallel beam: flat-field, logarithm, rotation centre, a direct or an iterative solve."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from .. import losses, penalties, prepare, solvers
from .._console import Console
from .._model import Batch
from .._result import Quantity, Result
from ..errors import InputError, nearest
from ..models import Tomography
from ..operators import ParallelProjector
from ..scan import Scan

DEFAULTS: dict[str, dict[str, Any]] = {
    "prepare": {
        "clip": 1e-3,            # smallest transmission
        "centre_search": None,   # [first, last] column; the middle half of the detector by default
    },
    "model": {"size": None},     # pixels of a slice along x and y; the detector's columns by default
    "loss": {"function": None},  # solver.name = "tv" or "minimise": a function (model, batch) -> scalar
    "optimiser": {"learning_rate": 0.03},  # of solver.name = "tv" and "minimise", in units of the volume's range
    "solver": {
        "name": "fbp",           # fbp, cgls, sirt, mlem, tv, minimise
        "steps": None,           # 20 (cgls), 100 (sirt), 50 (mlem), 200 (tv, minimise)
        "filter": "ramp",        # fbp: ramp, shepp-logan, cosine, hamming, hann
        "pad": "zero",           # fbp: zero, or edge where the sample is wider than the detector
        "tikhonov": 0.0,         # cgls
        "positive": False,       # sirt
        "tv": 1.0,              # weight of total variation, in units of misfit of the FBP / range
    },
}

_STEPS = {"cgls": 20, "sirt": 100, "mlem": 50, "tv": 200, "minimise": 200}


def defaults(method: str) -> Mapping[str, Mapping[str, Any]]:
    """Every setting by section."""
    return DEFAULTS


def reconstruct(scan: Scan, settings: Mapping[str, Mapping[str, Any]], console: Console, method: str) -> Result:
    """The attenuation coefficient of a volume, slice by detector row."""
    if settings["solver"]["name"] not in ("fbp", *_STEPS):
        raise InputError(f"solver.name: tomography has no solver {settings['solver']['name']!r}"
                         f"{nearest(settings['solver']['name'], ('fbp', *_STEPS))}")
    angles = scan.require("angles", "the rotation angle of each view", "/path/of/angles")
    integrals = prepare.line_integrals(scan, clip=settings["prepare"]["clip"])
    messages = integrals.messages(settings["prepare"]["clip"])
    centre, said = _centre(scan, integrals.values, angles, settings)
    for line in (*messages, said):
        console.say(line)

    columns = scan.frame_shape[1]
    size = settings["model"]["size"] or columns
    projector = ParallelProjector(angles, (size, size), columns, centre=centre)
    sinogram = jnp.asarray(integrals.values)
    volume, history, ending = _solve(projector, sinogram, settings, console)
    if not bool(jnp.all(jnp.isfinite(volume))):
        raise InputError(f"{scan.name}: the reconstruction is not finite; check the flats and darks")
    return _result(method, scan, projector, sinogram, volume, history, (*messages, said, *ending), centre, settings)


def _centre(scan: Scan, values: np.ndarray, angles: np.ndarray, settings) -> tuple[float, str]:
    if scan.rotation_centre is not None:
        return float(scan.rotation_centre), f"rotation centre {scan.rotation_centre:.2f} as given"
    search = settings["prepare"]["centre_search"]
    found = prepare.find_rotation_centre(values, angles, search=tuple(search) if search else None)
    return found.centre, found.message


# ---------------------------------------------------------------------------------------------------- solve
def _solve(
    projector: ParallelProjector, sinogram: jax.Array, settings: Mapping[str, Mapping[str, Any]], console: Console
) -> tuple[jax.Array, np.ndarray, tuple[str, ...]]:
    """Volume [1/pixel], history of the relative residual (or cost), and what the user should know of how it ended."""
    solver = settings["solver"]
    name = solver["name"]
    steps = solver["steps"] or _STEPS.get(name, 0)
    if name == "fbp":
        return solvers.fbp(projector, sinogram, filter=solver["filter"], pad=solver["pad"]), np.zeros(0), ()
    if name in ("tv", "minimise"):
        return _minimise(projector, sinogram, steps, settings, console)
    progress = console.progress(steps, f"{name}: step")
    show = lambda step, x, residual: progress.update(step, residual=residual)
    if name == "cgls":
        solution = solvers.cgls(projector, sinogram, steps=steps, tikhonov=solver["tikhonov"], callback=show)
    elif name == "sirt":
        bounds = (0.0, None) if solver["positive"] else None
        solution = solvers.sirt(projector, sinogram, steps, bounds=bounds, callback=show)
    else:
        solution = solvers.mlem(projector, jnp.maximum(sinogram, 0), steps, callback=show)
    ending = (f"{name} diverged and was stopped; the last good volume is kept",) if bool(solution.diverged) else ()
    return solution.x, np.asarray(solution.history), ending


def _minimise(projector, sinogram, steps, settings, console) -> tuple[jax.Array, np.ndarray, tuple[str, ...]]:
    """The one optax loop on line integrals, from the filtered back-projection; with total variation, or the user's
    cost.
    """
    start = solvers.fbp(projector, sinogram, filter="hann")
    span = float(jnp.percentile(start, 99) - jnp.percentile(start, 1))
    weight = settings["solver"]["tv"] * float(jnp.mean((projector(start) - sinogram) ** 2)) / span

    def total_variation(model: Tomography, batch: Batch) -> jax.Array:
        return losses.gaussian(model(batch.views), batch.values) + weight * penalties.tv(model.volume, eps=1e-3 * span)

    def least_squares(model: Tomography, batch: Batch) -> jax.Array:
        return losses.gaussian(model(batch.views), batch.values)

    name = settings["solver"]["name"]
    cost = settings["loss"]["function"] or (total_variation if name == "tv" else least_squares)
    rate = optax.cosine_decay_schedule(settings["optimiser"]["learning_rate"] * span, steps, 0.02)
    solution = solvers.minimise(
        cost, Tomography(start, projector), {"values": sinogram}, optax.adam(rate), steps=steps, unknowns=("volume",),
        console=console, label=f"{name}: step", checkpoint=console.checkpoint, resume=console.resume,
    )
    ending = () if solution.result.startswith("done") else (solution.result,)
    return solution.value.volume, solution.history, ending


# ---------------------------------------------------------------------------------------------------- out
def _result(method, scan, projector, sinogram, volume, history, lines, centre, settings) -> Result:
    residual = float(jnp.linalg.norm(projector(volume) - sinogram) / jnp.linalg.norm(sinogram))
    pixel = None if scan.pixel_size is None else float(scan.pixel_size)
    units = "1/pixel" if pixel is None else "1/m"
    scaled = np.asarray(volume) / (pixel or 1.0)
    quantities = {
        "volume": Quantity(scaled, units, ("z", "y", "x"), pixel, "attenuation coefficient", "volume"),
        "sinogram": Quantity(
            np.asarray(sinogram[:, sinogram.shape[1] // 2]),
            "",
            ("view", "x"),
            pixel,
            "line integrals of the middle row",
            "sinogram",
        ),
    }
    figures: dict[str, Any] = {"relative_residual": residual, "rotation_centre": centre}
    if history.size:
        figures["history"] = history
    verdict = (
        *lines,
        f"relative residual |A x - b| / |b| = {residual:.4f} ({settings['solver']['name']}, {scan.views} views)",
    )
    needed = int(np.ceil(np.pi / 2 * scan.frame_shape[1]))
    if scan.views < needed / 2 and settings["solver"]["name"] == "fbp":
        verdict = (
            *verdict,
            f"{scan.views} views where about {needed} (pi/2 columns) sample every direction: expect streaks, or "
            "try solver.name=tv",
        )
    return Result(method, quantities, figures, verdict, settings)

"""Laminography: line integrals, tilt of the rotation axis given or refined, a direct or an iterative solve."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from .. import penalties, prepare, solvers
from .._console import Console
from .._result import Quantity, Result
from ..errors import InputError, nearest
from ..models import Laminography
from ..operators import FourierPoseProjector
from ..scan import Scan

DEFAULTS: dict[str, dict[str, Any]] = {
    "prepare": {**prepare.DEFAULTS, "full_turn": "as-is"},
    "model": {
        "tilt": None,  # of the rotation axis out of the plane across the beam [rad]; the file's by default
        "size": None,  # pixels along y and x, or [z, y, x]; the detector's columns and rows by default
    },
    "align": {
        "tilt": False,  # refine the tilt by the residual of a short solve
        "span": 0.017,  # [rad] first step of the search to either side
        "steps": 12,  # of the solve (cgls) at each tilt
    },
    "solver": {
        "name": "cgls",  # fbp, cgls, sirt, fista (total variation)
        "steps": None,  # 20 (cgls), 100 (sirt, fista)
        "filter": "ramp",  # fbp: ramp, shepp-logan, cosine, hamming, hann, parzen
        "tikhonov": 0.0,  # cgls
        "positive": False,  # sirt, fista
        "tv": 0.02,  # fista: weight of total variation, in units of the volume's range x the views
    },
}
_STEPS = {"cgls": 20, "sirt": 100, "fista": 100}
_ROUNDS, _MOVES, _SHRINK = 2, 6, 4  # of the search for the tilt
_SMOOTHING = 1.5  # [pixel] of the data it looks at


def defaults(method: str) -> Mapping[str, Mapping[str, Any]]:
    """Every setting by section."""
    return DEFAULTS


def reconstruct(scan: Scan, settings: Mapping[str, Mapping[str, Any]], console: Console, method: str) -> Result:
    """The attenuation coefficient of a volume that turned about a tilted axis."""
    name = settings["solver"]["name"]
    if name not in ("fbp", *_STEPS):
        raise InputError(f"solver.name: laminography has no solver {name!r}{nearest(name, ('fbp', *_STEPS))}")
    model = Laminography.from_scan(scan, tilt=settings["model"]["tilt"], size=_size(settings["model"]["size"]))
    preparation = prepare.Preparation(scan, settings["prepare"])
    integrals = jnp.asarray(preparation.rows(0, scan.frame_shape[0]))
    lines = [*preparation.messages, _axis_line(scan)]
    if settings["align"]["tilt"]:
        found = refine_tilt(model, integrals, span=settings["align"]["span"], steps=settings["align"]["steps"])
        lines.append(found.message)
        model = Laminography.from_scan(scan, tilt=found.tilt, size=model.projector.volume_shape)
    for line in lines:
        console.say(line)
    volume, history, ending = _solve(model.posed(), integrals, settings["solver"], console)
    if not bool(jnp.all(jnp.isfinite(volume))):
        raise InputError(f"{scan.name}: the reconstruction is not finite; check the flats and darks")
    return _result(method, scan, settings, model, integrals, volume, history, [*lines, *ending])


def _size(size: Any) -> int | tuple[int, int, int] | None:
    if not isinstance(size, list | tuple):
        return size
    if len(size) != 3:
        raise InputError(f"model.size: {size!r} must be one number, or three: z, y, x [pixel]")
    return int(size[0]), int(size[1]), int(size[2])


def _axis_line(scan: Scan) -> str:
    if scan.rotation_centre is not None:
        return f"rotation axis on column {scan.rotation_centre:.2f} as given"
    return (
        f"rotation axis taken to be in the middle, column {(scan.frame_shape[1] - 1) / 2:.2f}: give "
        "geometry.rotation_centre where it is not"
    )


# ---------------------------------------------------------------------------------------------------- tilt
class TiltSearch(NamedTuple):
    """**Fields:** `tilt` [rad]; `tried` (tilt, relative residual) of every solve; `message`."""

    tilt: float
    tried: tuple[tuple[float, float], ...]
    message: str


def refine_tilt(
    model: Laminography, integrals: Float[Array, "view row column"], *, span: float = 0.017, steps: int = 12
) -> TiltSearch:
    """The tilt [rad] at which a few steps of conjugate gradients explain the data best (variable projection).

    Three tilts make a parabola; the search goes on about its vertex, first until the best lies between the others, then
    with a quarter of the distance. Data are smoothed by a Gaussian first, which no pose minds (the object is smoothed
    by the same): the edges that voxels cannot hold would pull the tilt aside (by 0.8 degrees in a volume of 20^3).

    **Arguments:** `span` [rad], the first distance; the poses may move by about two degrees in all.

    **Cost:** about seven solves of `steps` steps, compiled once.

    **Raises:** `InputError` for a span that is not positive.
    """
    if not (np.isfinite(span) and span > 0):
        raise InputError(f"align.span: {span} must be a positive angle [rad]")
    tried: dict[float, float] = {}
    smooth = _smoothed(integrals)

    def residual(tilt: float) -> float:
        if tilt not in tried:
            posed = eqx.tree_at(lambda m: m.tilt, model, jnp.asarray(tilt, model.tilt.dtype)).posed()
            tried[tilt] = float(solvers.cgls(posed, smooth, steps=steps).history[-1])
        return tried[tilt]

    first = tilt = float(model.tilt)
    settled = False
    for _ in range(_ROUNDS):
        for _ in range(_MOVES):
            tilt, settled = _parabola_step(residual, tilt, span)
            if settled:
                break
        span /= _SHRINK
    message = f"tilt {np.rad2deg(tilt):.3f} deg found by the residual ({np.rad2deg(first):.3f} deg given)"
    if not settled:
        message = f"tilt: no minimum of the residual near {np.rad2deg(tilt):.3f} deg; it is not to be trusted"
    return TiltSearch(tilt, tuple(sorted(tried.items())), message)


def _smoothed(images: Float[Array, "view row column"]) -> Float[Array, "view row column"]:
    reach = int(np.ceil(4 * _SMOOTHING))
    kernel = np.exp(-0.5 * (np.arange(-reach, reach + 1) / _SMOOTHING) ** 2)
    for axis in (1, 2):
        padded = jnp.pad(images, [(reach, reach) if a == axis else (0, 0) for a in range(3)], mode="edge")
        parts = [jax.lax.slice_in_dim(padded, i, i + images.shape[axis], axis=axis) for i in range(len(kernel))]
        images = sum((w * p for w, p in zip(kernel[1:], parts[1:], strict=True)), kernel[0] * parts[0]) / kernel.sum()
    return images


def _parabola_step(residual, tilt: float, span: float) -> tuple[float, bool]:
    """The vertex when the middle of three tilts is the best, else the better neighbour."""
    low, middle, high = (residual(tilt + side * span) ** 2 for side in (-1, 0, 1))
    if middle > min(low, high):
        return (tilt - span, False) if low < high else (tilt + span, False)
    bend = low - 2 * middle + high
    return tilt + (span * (low - high) / (2 * bend) if bend > 0 else 0.0), True


# ---------------------------------------------------------------------------------------------------- solve
def _solve(
    A: FourierPoseProjector, integrals: Array, solver: Mapping[str, Any], console: Console
) -> tuple[Array, np.ndarray, tuple[str, ...]]:
    """Volume [1/pixel], history of the relative residual, and what the user should know of how it ended."""
    name = solver["name"]
    if name == "fbp":
        return solvers.laminography_fbp(A, integrals, filter=solver["filter"]), np.zeros(0), ()
    steps = solver["steps"] or _STEPS[name]
    progress = console.progress(steps, f"{name}: step")
    show = lambda report: progress.update(report.step, residual=report.loss)
    bounds = (0.0, None) if solver["positive"] else None
    if name == "cgls":
        solution = solvers.cgls(A, integrals, steps=steps, tikhonov=solver["tikhonov"], callback=show)
    elif name == "sirt":
        solution = solvers.sirt(A, integrals, steps=steps, bounds=bounds, callback=show)
    else:
        start = solvers.laminography_fbp(A, integrals, filter="hann")
        span = float(jnp.percentile(start, 99.5) - jnp.percentile(start, 0.5))
        penalty = penalties.TotalVariation(solver["tv"] * span * len(integrals))
        solution = solvers.fista(
            A, integrals, penalty, steps=steps, x0=start, bounds=bounds, normal="exact", callback=show
        )
    ending = (f"{name} diverged and was stopped; the last good volume is kept",) if bool(solution.diverged) else ()
    return solution.x, np.asarray(solution.history), ending


# ---------------------------------------------------------------------------------------------------- out
def _result(method, scan, settings, model: Laminography, integrals, volume, history, lines: list[str]) -> Result:
    residual = float(jnp.linalg.norm(model.posed()(volume) - integrals) / jnp.linalg.norm(integrals))
    pixel = None if scan.pixel_size is None else float(scan.pixel_size)
    tilt = float(model.tilt)
    quantities = {
        "volume": Quantity(
            jax.device_get(volume) / np.float32(pixel or 1.0),
            "1/pixel" if pixel is None else "1/m",
            ("z", "y", "x"),
            pixel,
            "attenuation coefficient",
            "volume",
        ),
        "projection": Quantity(np.asarray(integrals[0]), "", ("y", "x"), pixel, "line integrals of the first view"),
    }
    figures: dict[str, Any] = {"relative_residual": residual, "tilt": tilt}
    if history.size:
        figures["history"] = history
    missing = 1 - np.cos(abs(tilt))  # fraction of the directions in the cone |q_xy| < |q_z| tan(tilt)
    lines = [
        *lines,
        f"relative residual |A x - b| / |b| = {residual:.4f} ({settings['solver']['name']}, "
        f"{scan.views} views, tilt {np.rad2deg(tilt):.2f} deg)",
    ]
    if missing > 0.01:
        lines.append(
            f"{100 * missing:.0f} % of all directions (a cone about the axis) are not measured: faces across "
            "the axis are blurred"
        )
    return Result(method, quantities, figures, tuple(lines), settings)

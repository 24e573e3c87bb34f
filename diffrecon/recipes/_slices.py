"""From line integrals to slices: every solver that `solver.name` may say, behind one call."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float

from .. import losses, penalties, solvers
from .._console import Console
from .._model import Batch
from ..errors import InputError, nearest
from ..models import Tomography
from ..stream import each_slice

__all__ = [
    "SOLVER",
    "STEPS",
    "Slices",
    "check_slabs",
    "check_solver",
    "padding",
    "slab_solver",
    "solve_counts",
    "solve_slices",
]

SOLVER: dict[str, Any] = {
    "name": "fbp",  # fbp, cgls, lsqr, sirt, sart, mlem, osem, fista, primal-dual, poisson, minimise
    "steps": None,  # 20 (cgls, lsqr), 100 (sirt, fista, ...), 10 passes (sart, osem)
    "filter": "ramp",  # fbp: ramp, shepp-logan, cosine, hamming, hann, parzen
    "cutoff": 1.0,  # fbp: where the filter ends, as a fraction of the Nyquist frequency
    "pad": "auto",  # fbp: zero, edge, smooth; auto: smooth where the sample is wider than the detector
    "extent": None,  # fbp, smooth: diameter of the sample [pixel]
    "tikhonov": 0.0,  # cgls, lsqr
    "relaxation": None,  # sirt, sart
    "subsets": 10,  # sart, osem
    "positive": False,  # sirt, sart, fista, primal-dual: no negative values
    "weights": "none",  # photons: every ray by its photon noise
    "stopping": None,  # held-out (views left out choose the number of steps), discrepancy (with weights=photons)
    "penalty": "tv",  # fista, primal-dual: tv, tgv, wavelet, none
    "weight": None,  # of the penalty; chosen by views left out where it is not given
    "inner": 2,  # fista: steps of the penalty in each step
}
STEPS = {
    "cgls": 20,
    "lsqr": 20,
    "sirt": 100,
    "sart": 10,
    "mlem": 50,
    "osem": 10,
    "fista": 100,
    "primal-dual": 300,
    "poisson": 4,
    "minimise": 200,
}
_CONTINUED = (
    "the sample is wider than the detector: projections are continued smoothly (solver.pad=smooth); values "
    "are right up to a constant"
)
_TAKES_BOUNDS = ("sirt", "sart", "fista", "primal-dual")
_TAKES_STOPPING = ("cgls", "lsqr", "sirt", "sart", "mlem", "osem")
_TAKES_WEIGHTS = ("cgls", "lsqr", "sirt", "sart", "fista", "primal-dual")


@dataclasses.dataclass(frozen=True)
class Slices:
    """**Fields:** `volume` (z, y, x) [1/pixel]; `history` of the relative residual (or the cost); `messages`, what the
    user should know of how it ended; `curves` for the quality group: what views left out say."""

    volume: Float[Array, "z y x"]
    history: np.ndarray
    messages: tuple[str, ...] = ()
    curves: Mapping[str, Any] = dataclasses.field(default_factory=dict)


def check_solver(solver: Mapping[str, Any]) -> None:
    """Refuse what cannot be followed, before anything is read.

    **Raises:** `InputError` naming the setting.
    """
    name, known = solver["name"], ("fbp", *STEPS)
    if name not in known:
        raise InputError(f"solver.name: tomography has no solver {name!r}{nearest(name, known)}")
    if solver["positive"] and name not in (*_TAKES_BOUNDS, "mlem", "osem", "poisson"):
        raise InputError(f"solver.positive: {name} has no bounds; take one of {', '.join(_TAKES_BOUNDS)}")
    if solver["stopping"] is not None and name not in _TAKES_STOPPING:
        raise InputError(f"solver.stopping: {name} does not stop early; take one of {', '.join(_TAKES_STOPPING)}")
    if solver["weights"] not in ("none", "photons"):
        raise InputError(f'solver.weights {solver["weights"]!r} is not known: give "none" or "photons"')
    if solver["weights"] == "photons" and name not in _TAKES_WEIGHTS:
        raise InputError(f"solver.weights: {name} weighs all rays alike; take one of {', '.join(_TAKES_WEIGHTS)}")
    if solver["stopping"] == "discrepancy" and solver["weights"] != "photons":
        raise InputError("solver.stopping=discrepancy needs the noise: add solver.weights=photons")
    _penalty(solver, 1.0)


def solve_slices(
    A: Any,
    sinogram: Float[Array, "view z u"],
    settings: Mapping[str, Mapping[str, Any]],
    console: Console,
    *,
    variance: Float[Array, "view z u"] | None = None,
) -> Slices:
    """The solver that the settings name. `A` is a projector of the geometry; `variance` of the line integrals.

    **Raises:** `InputError` where solver and data do not fit.
    """
    solver = settings["solver"]
    name, steps = solver["name"], solver["steps"] or STEPS.get(solver["name"], 0)
    if name == "fbp":
        pad = padding(sinogram, solver["pad"])
        said = (_CONTINUED,) if pad != "zero" and solver["pad"] == "auto" else ()
        return Slices(_fbp(A, sinogram, solver, pad), np.zeros(0), said)
    if name == "minimise":
        return _minimise(A, sinogram, steps, settings, console)
    progress = console.progress(steps, f"{name}: step")
    show = lambda report: progress.update(report.step, residual=report.loss)
    weights = None if solver["weights"] == "none" or variance is None else 1 / variance
    if name in ("fista", "primal-dual"):
        return _penalised(A, sinogram, steps, solver, weights, show)
    solution = _plain(A, sinogram, steps, solver, weights, show)
    ending = (f"{name} diverged and was stopped; the last good volume is kept",) if bool(solution.diverged) else ()
    said = (f"{name}: {solution.message}",) if solution.message and not ending else ()
    held = None if solution.held_out is None else np.asarray(solution.held_out)
    curves = {} if held is None else {"held_out_history": np.stack([np.arange(1, held.size + 1), held], 1)}
    return Slices(solution.x, np.asarray(solution.history), (*ending, *said), curves)


def solve_counts(
    A: Any, counts: Any, flats: np.ndarray, darks: np.ndarray, solver: Mapping[str, Any], console: Console
) -> Slices:
    """The most likely volume for the raw counts; with the penalty where a weight is given (units of log-likelihood)."""
    steps = solver["steps"] or STEPS["poisson"]
    progress = console.progress(steps, "poisson: parabola")
    penalty = None if solver["weight"] is None else _penalty(solver, float(solver["weight"]))
    solution = solvers.transmission(
        A,
        counts,
        flats,
        darks,
        penalty,
        steps=steps,
        callback=lambda report: progress.update(report.step, deviance=report.loss),
    )
    history = np.asarray(solution.history)
    said = f"Poisson deviance a ray: {history[np.isfinite(history)][-1]:.3f} (about 1 where the model is right)"
    return Slices(solution.x, history, (said,))


def check_slabs(solver: Mapping[str, Any]) -> None:
    """Refuse solvers that need the whole volume at once.

    **Raises:** `InputError` naming the solver.
    """
    name = solver["name"]
    if name in ("poisson", "minimise") or solver["stopping"] is not None or solver["weights"] != "none":
        raise InputError(f"slabs: {name} with these settings needs the whole volume at once (solver.slab=0)")


def slab_solver(solver: Mapping[str, Any], pad: str, weight: float | None) -> Callable[[Any, Array], Array]:
    """The same as a function `(projector, sinogram) -> volume` that treats every slice by itself and can be compiled.

    `pad` of fbp and the penalty's `weight` are fixed for all slabs; for solvers that pass `check_slabs`.
    """
    name = solver["name"]
    if name == "fbp":
        return lambda A, b: _fbp(A, b, solver, pad)
    steps = solver["steps"] or STEPS[name]
    if name in ("fista", "primal-dual"):
        penalty, bounds = _penalty(solver, weight or 1.0), _bounds(solver)
        if name == "fista":
            return each_slice(
                lambda A, b: solvers.fista(
                    A, b, penalty, steps=steps, bounds=bounds, inner=solver["inner"], normal="exact"
                ).x
            )
        return each_slice(lambda A, b: solvers.primal_dual(A, b, penalty, steps=steps, bounds=bounds).x)
    return each_slice(lambda A, b: _plain(A, b, steps, solver, None, None).x)


# ---------------------------------------------------------------------------------------------------- direct
def padding(sinogram: Float[Array, "view z u"], pad: str) -> str:
    """What lies beyond the detector: nothing where the outer columns hold air, else the sample goes on."""
    if pad != "auto":
        return pad
    lines = jnp.abs(jnp.mean(sinogram, axis=1))  # the mean row is enough and quiet
    edge = jnp.maximum(jnp.mean(lines[:, :4], 1), jnp.mean(lines[:, -4:], 1))
    return "smooth" if float(jnp.median(edge)) > 0.05 * float(jnp.percentile(lines, 99)) else "zero"


def _fbp(A: Any, sinogram: Array, solver: Mapping[str, Any], pad: str) -> Array:
    return solvers.fbp(A, sinogram, filter=solver["filter"], cutoff=solver["cutoff"], extent=solver["extent"], pad=pad)


# ---------------------------------------------------------------------------------------------------- iterative
def _plain(A: Any, b: Array, steps: int, solver: Mapping[str, Any], weights: Array | None, show: Any) -> Any:
    """Least squares and maximum likelihood without a penalty."""
    name, bounds = solver["name"], _bounds(solver)
    common: dict[str, Any] = {"steps": steps, "stopping": solver["stopping"], "callback": show}
    if name in _TAKES_WEIGHTS:
        common |= {"weights": weights, "noise": 1.0 if solver["stopping"] == "discrepancy" else None}
    relaxation = {} if solver["relaxation"] is None else {"relaxation": float(solver["relaxation"])}
    if name == "cgls":
        normal = "auto" if solver["stopping"] != "held-out" and show is not None and steps >= 40 else None
        return solvers.cgls(A, b, tikhonov=solver["tikhonov"], normal=normal, **common)
    if name == "lsqr":
        return solvers.lsqr(A, b, tikhonov=solver["tikhonov"], **common)
    if name == "sirt":
        return solvers.sirt(A, b, bounds=bounds, **relaxation, **common)
    if name == "sart":
        return solvers.sart(A, b, subsets=solver["subsets"], bounds=bounds, **relaxation, **common)
    if name == "mlem":
        return solvers.mlem(A, jnp.maximum(b, 0), **common)
    return solvers.osem(A, jnp.maximum(b, 0), subsets=solver["subsets"], **common)


def _penalised(A: Any, b: Array, steps: int, solver: Mapping[str, Any], weights: Array | None, show: Any) -> Slices:
    """FISTA or primal-dual; the penalty's weight by views left out where it is not given."""
    weight, said, curves, bounds = solver["weight"], (), {}, _bounds(solver)
    if weight is None and solver["penalty"] != "none":
        chosen = solvers.choose_weight(A, b, _penalty(solver, 1.0), weights=weights, bounds=bounds, final_steps=steps)
        weight, said = float(chosen.weight), (chosen.message,)
        curves = {
            "penalty_weight": weight,
            "penalty_weights": np.asarray(chosen.weights),
            "held_out_by_weight": np.asarray(chosen.residuals),
        }
        if solver["name"] == "fista":
            return Slices(chosen.solution.x, np.asarray(chosen.solution.history), said, curves)
    penalty = _penalty(solver, weight or 1.0)
    if solver["name"] == "fista":
        solution = solvers.fista(
            A, b, penalty, steps=steps, weights=weights, bounds=bounds, inner=solver["inner"], callback=show
        )
    else:
        solution = solvers.primal_dual(A, b, penalty, steps=steps, weights=weights, bounds=bounds, callback=show)
    said = (*said, *((f"{solver['name']}: {solution.message}",) if solution.message else ()))
    return Slices(solution.x, np.asarray(solution.history), said, curves)


def _penalty(solver: Mapping[str, Any], weight: float) -> Any:
    """Penalties act in the plane of a slice, so that slices do not depend on one another."""
    plane, name = (-2, -1), solver["penalty"]
    made: dict[str, Callable[[], Any]] = {
        "none": lambda: None,
        "tv": lambda: penalties.TotalVariation(weight, axes=plane),
        "tgv": lambda: penalties.GeneralisedVariation(weight, axes=plane),
        "wavelet": lambda: penalties.WaveletSparsity(weight),
    }
    if name not in made:
        raise InputError(f"solver.penalty: there is no penalty {name!r}{nearest(name, made)}")
    return made[name]()


def _bounds(solver: Mapping[str, Any]) -> tuple[float | None, float | None] | None:
    return (0.0, None) if solver["positive"] else None


# ---------------------------------------------------------------------------------------------------- any cost
def _minimise(A: Any, sinogram: Array, steps: int, settings: Mapping[str, Any], console: Console) -> Slices:
    """The one optax loop on line integrals with the user's cost, from the filtered back-projection."""
    start = solvers.fbp(A, sinogram, filter="hann")
    span = float(jnp.percentile(start, 99) - jnp.percentile(start, 1))

    def least_squares(model: Tomography, batch: Batch) -> jax.Array:
        return losses.gaussian(model(batch.views), batch.values)

    cost = settings["loss"]["function"] or least_squares
    rate = optax.cosine_decay_schedule(settings["optimiser"]["learning_rate"] * span, steps, 0.02)
    solution = solvers.minimise(
        cost,
        Tomography(start, A),
        {"values": sinogram},
        optax.adam(rate),
        steps=steps,
        unknowns=("volume",),
        console=console,
        label="minimise: step",
        checkpoint=console.checkpoint,
        resume=console.resume,
    )
    ending = () if solution.ending.finished else (solution.result,)
    return Slices(solution.value.volume, np.asarray(solution.history), ending)

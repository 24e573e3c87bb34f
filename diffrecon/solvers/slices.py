"""Solve line integrals for a volume, slice by slice, by the name of a solver and of a penalty.

Both names are looked up in tables that are open: `SLICE_SOLVERS["mine"] = SliceSolver(function, steps)`.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from .. import penalties
from .._console import Console
from ..errors import InputError, nearest
from ..operators.dynamic import Dynamic
from ..settings import setting, unless
from .direct.fbp import fbp
from .ending import Ending, Interrupted
from .linear.choose import choose_weight
from .linear.iterate import LinearSolution
from .linear.least_squares import cgls, lsqr, mlem, sirt
from .linear.proximal import fista, primal_dual
from .linear.subsets import osem, sart

__all__ = ["SLICE_PENALTIES", "SLICE_SOLVERS", "SliceOptions", "SliceSolver", "Slices", "slice_solver", "solve_slices"]

_STEPPED = ("cgls", "lsqr", "sirt", "sart", "mlem", "osem")
_PENALISED = ("fista", "primal-dual")
_TRIALS = 8  # of a weight, about
FILTERS = ("ramp", "shepp-logan", "cosine", "hamming", "hann", "parzen")


def _of(*names: str) -> dict[str, Any]:
    """Make the rule of a setting that belongs to some solvers."""
    return {"only": {"name": names}}


@dataclasses.dataclass(frozen=True)
class SliceOptions:
    """How a volume is found from line integrals."""

    name: str = setting("fbp", "a name in solvers.SLICE_SOLVERS, poisson, or minimise")
    steps: int | None = setting(
        None,
        "by default 20 (cgls, lsqr), 10 (sart, osem), 50 (mlem), 300 (primal-dual), 100",
        at_least=1,
        only={"name": unless("fbp")},
    )
    filter: str = setting("ramp", "of the back-projection", choices=FILTERS, **_of("fbp"))
    cutoff: float = setting(1.0, "end of the filter, as a fraction of the Nyquist frequency", above=0, **_of("fbp"))
    pad: str = setting("auto", "beyond the detector", choices=("auto", "zero", "edge", "smooth"), **_of("fbp"))
    extent: float | None = setting(
        None,
        "diameter of the sample for pad = smooth",
        unit="pixel",
        only={"name": ("fbp",), "pad": ("auto", "smooth")},
    )
    tikhonov: float = setting(0.0, "weight of |x|^2", at_least=0, **_of("cgls", "lsqr"))
    relaxation: float | None = setting(None, "length of the steps", above=0, **_of("sirt", "sart"))
    subsets: int = setting(10, "groups of views", at_least=1, **_of("sart", "osem"))
    positive: bool = setting(False, "no negative values", **_of("sirt", "sart", "mlem", "osem", *_PENALISED, "poisson"))
    weights: str = setting(
        "none",
        "every ray by its photon noise",
        choices=("none", "photons"),
        **_of("cgls", "lsqr", "sirt", "sart", *_PENALISED),
    )
    stopping: str | None = setting(
        None, "by views left out, or at the noise (with photons)", choices=("held-out", "discrepancy"), **_of(*_STEPPED)
    )
    penalty: str = setting(
        "tv",
        "a name in solvers.SLICE_PENALTIES",
        known=lambda: tuple(SLICE_PENALTIES),
        **_of(*_PENALISED, "poisson"),
    )
    weight: float | None = setting(
        None,
        "of the penalty; by default chosen by views left out (poisson: none)",
        at_least=0,
        only={"name": (*_PENALISED, "poisson"), "penalty": unless("none")},
    )
    inner: int = setting(
        2, "steps of the penalty in each step", at_least=1, only={"name": ("fista",), "penalty": unless("none")}
    )

    def count(self) -> int:
        """Count the steps, by default those of the solver."""
        return self.steps or SLICE_SOLVERS[self.name].steps

    def made_penalty(self, weight: float, A: Any) -> Any:
        """Make the penalty, in the plane of a slice (so that slices do not depend on one another), and in time."""
        return SLICE_PENALTIES[self.penalty](weight, (0, -2, -1) if isinstance(A, Dynamic) else (-2, -1))

    def checked(self, others: tuple[str, ...] = ()) -> "SliceOptions":
        """Refuse names that are in no table; `others` are solvers that the caller knows.

        **Raises:** `InputError` with the nearest name.
        """
        known = {"name": (*SLICE_SOLVERS, *others), "penalty": tuple(SLICE_PENALTIES)}
        for key, names in known.items():
            if (name := getattr(self, key)) not in names:
                raise InputError(f"solver.{key}: there is no {name!r}{nearest(name, names)}")
        if self.stopping == "discrepancy" and self.weights != "photons":
            raise InputError("solver.stopping=discrepancy needs the noise: add solver.weights=photons")
        return self


@dataclasses.dataclass(frozen=True)
class Slices:
    """Hold a volume and how it was found.

    **Fields:** `volume` (z, y, x) [1/pixel]; `history` of the relative residual; `messages`, what the user should know
    of how it ended; `curves`: figures, what views left out say; `options` with all that was chosen on the way;
    `ending`.
    """

    volume: Float[Array, "*basis z y x"]
    history: np.ndarray
    messages: tuple[str, ...]
    curves: Mapping[str, Any]
    options: SliceOptions
    ending: Ending = Ending.DONE


def solve_slices(
    A: Any,
    sinogram: Float[Array, "view z u"],
    options: SliceOptions,
    *,
    weights: Float[Array, "view z u"] | None = None,
    console: Console | None = None,
) -> Slices:
    """Solve line integrals for the volume by the solver that the options name.

    **Arguments:** `A`: a projector of the geometry, also a `Dynamic`; `weights`: inverse variances, used where
    `options.weights` says so.

    **Raises:** `InputError` for unknown names, and where solver and data do not fit.

    ```python
    A = dr.operators.ParallelProjector(np.linspace(0, np.pi, 40, endpoint=False), (32, 32), 32)
    solved = solve_slices(A, A(jnp.ones((1, 32, 32))), SliceOptions(name="sirt", steps=5))
    assert solved.volume.shape == (1, 32, 32)
    ```
    """
    options, console = options.checked(), console or Console(quiet=True)
    weights = None if options.weights == "none" else weights
    solver, messages, curves = SLICE_SOLVERS[options.name], (), {}
    if options.name == "fbp":
        pad = padding(sinogram) if options.pad == "auto" else options.pad
        messages = (_CONTINUED,) if options.pad == "auto" and pad == "smooth" else ()
        options = dataclasses.replace(options, pad=pad)
    choosing = options.name in _PENALISED and options.weight is None and options.penalty != "none"
    begin = lambda: console.progress(options.count(), f"{options.name}: step")
    progress = None if choosing or not solver.steps else begin()

    def show(report: Any) -> None:
        nonlocal progress
        progress = progress or begin()
        progress.update(report.step, residual=report.loss)

    solution = None
    try:
        if choosing:
            try:
                choice = _chosen(A, sinogram, options, weights, console, show)
            except Interrupted as stop:
                choice = stop.solution
            options, messages = dataclasses.replace(options, weight=float(choice.weight)), (choice.message,)
            curves = {"penalty_weight": float(choice.weight), "penalty_weights": np.asarray(choice.weights)}
            curves["held_out_by_weight"] = np.asarray(choice.residuals)
            interrupted = choice.solution.ending is Ending.INTERRUPTED
            solution = choice.solution if options.name == "fista" or interrupted else None
        solution = solution or solver.solve(A, sinogram, options, weights, show if solver.steps else None)
    except Interrupted as stop:
        solution = stop.solution
    if bool(solution.diverged):
        messages = (f"{options.name} diverged and was stopped; the last good volume is kept", *messages)
    elif solution.message:
        messages = (*messages, f"{options.name}: {solution.message}")
    if solution.held_out is not None:
        held = np.asarray(solution.held_out)
        curves = {"held_out_history": np.stack([np.arange(1, held.size + 1), held], 1)}
    return Slices(solution.x, np.asarray(solution.history), messages, curves, options, solution.ending)


def _chosen(A: Any, sinogram: Any, options: SliceOptions, weights: Any, console: Console, show: Any) -> Any:
    """Choose the weight of the penalty by views left out, each trial shown."""
    line, done = console.progress(_TRIALS, f"{options.name}: weight of {options.penalty}, trial"), 0

    def tried(weight: float, residual: float) -> None:
        nonlocal done
        done += 1
        line.total = max(line.total, done + 1)
        line.update(done, weight=weight, held_out=residual)

    return choose_weight(
        A, sinogram, options.made_penalty(1.0, A), weights=weights, bounds=_bounds(options),
        final_steps=options.count(), tried=tried, callback=show,
    )  # fmt: skip


def slice_solver(options: SliceOptions) -> Callable[[Any, Array], Array]:
    """Make the solver of some options a function `(projector, sinogram) -> volume` that can be compiled.

    Give it the options that `solve_slices` returned, in which padding and weight are known.
    """
    return lambda A, b: SLICE_SOLVERS[options.name].solve(A, b, options, None, None).x


# ---------------------------------------------------------------------------------------------------- tables
class SliceSolver(NamedTuple):
    """Hold the entry of a table.

    **Fields:** `solve(A, sinogram, options, weights, callback) -> LinearSolution`; `steps` by default, 0 for none.

    Weights and callback may be `None`. Without a callback it may be traced by `jax.vmap`, one slice at a time.
    """

    solve: Callable[..., LinearSolution]
    steps: int = 0


def _fbp(A: Any, b: Array, options: SliceOptions, weights: Any, show: Any) -> LinearSolution:
    volume = fbp(A, b, filter=options.filter, cutoff=options.cutoff, extent=options.extent, pad=options.pad)
    return LinearSolution(volume, jax.device_put(np.zeros(0, np.float32)), False)


def _stepped(solver: Callable, *extra: str, weighted: bool = True, bounded: bool = False) -> Callable:
    """Make a table's entry of a solver without a penalty; `extra` options go by their names."""

    def solve(A: Any, b: Array, options: SliceOptions, weights: Any, show: Any) -> LinearSolution:
        more = {name: getattr(options, name) for name in extra if getattr(options, name) is not None}
        if weighted:
            more |= {"weights": weights, "noise": 1.0 if options.stopping == "discrepancy" else None}
        if bounded:
            more["bounds"] = _bounds(options)
        if solver is cgls and options.stopping != "held-out" and show is not None and options.count() >= 40:
            more["normal"] = "auto"
        if solver in (mlem, osem):
            b = jnp.maximum(b, 0)
        return solver(A, b, steps=options.count(), stopping=options.stopping, callback=show, **more)

    return solve


def _fista(A: Any, b: Array, options: SliceOptions, weights: Any, show: Any) -> LinearSolution:
    return fista(
        A,
        b,
        options.made_penalty(options.weight or 1.0, A),
        steps=options.count(),
        weights=weights,
        bounds=_bounds(options),
        inner=options.inner,
        normal="auto" if show is not None else "exact",
        callback=show,
    )


def _primal_dual(A: Any, b: Array, options: SliceOptions, weights: Any, show: Any) -> LinearSolution:
    penalty = options.made_penalty(options.weight or 1.0, A)
    return primal_dual(
        A, b, penalty, steps=options.count(), weights=weights, bounds=_bounds(options), callback=show
    )  # fmt: skip


SLICE_SOLVERS: dict[str, SliceSolver] = {
    "fbp": SliceSolver(_fbp),
    "cgls": SliceSolver(_stepped(cgls, "tikhonov"), 20),
    "lsqr": SliceSolver(_stepped(lsqr, "tikhonov"), 20),
    "sirt": SliceSolver(_stepped(sirt, "relaxation", bounded=True), 100),
    "sart": SliceSolver(_stepped(sart, "relaxation", "subsets", bounded=True), 10),
    "mlem": SliceSolver(_stepped(mlem, weighted=False), 50),
    "osem": SliceSolver(_stepped(osem, "subsets", weighted=False), 10),
    "fista": SliceSolver(_fista, 100),
    "primal-dual": SliceSolver(_primal_dual, 300),
}
# (weight, axes) -> an object of `diffrecon.penalties`, or any `prox(x, step)`
SLICE_PENALTIES: dict[str, Callable[[float, tuple[int, ...]], Any]] = {
    "none": lambda weight, axes: None,
    "tv": lambda weight, axes: penalties.TotalVariation(weight, axes=axes, isotropic=len(axes) == 2),
    "tgv": lambda weight, axes: penalties.GeneralisedVariation(weight, axes=axes[-2:]),
    "wavelet": lambda weight, axes: penalties.WaveletSparsity(weight),
}
_CONTINUED = (
    "the sample is wider than the detector: projections are continued smoothly (solver.pad=smooth); values "
    "are right up to a constant"
)


def _bounds(options: SliceOptions) -> tuple[float | None, float | None] | None:
    return (0.0, None) if options.positive else None


def padding(sinogram: Float[Array, "view z u"]) -> str:
    """Choose what lies beyond the detector: nothing where the outer columns hold air, its own value where that is not
    zero (the beam has changed since the flats), else the sample goes on."""
    means = np.asarray(_mean_row(sinogram))
    lines = np.abs(means)  # quiet, and enough
    edge = np.maximum(lines[:, :4].mean(1), lines[:, -4:].mean(1))
    if np.median(edge) <= 0.05 * np.percentile(lines, 99):
        return "zero"
    wide = max(min(means.shape[1] // 32, 32), min(2, means.shape[1]))
    bands = means[:, :wide], means[:, wide : 2 * wide], means[:, -2 * wide : -wide], means[:, -wide:]
    return "smooth" if air_level(*(band.mean(1) for band in bands)) is None else "edge"


def air_level(
    left: Float[np.ndarray, " view"],
    next_left: Float[np.ndarray, " view"],
    next_right: Float[np.ndarray, " view"],
    right: Float[np.ndarray, " view"],
) -> Float[np.ndarray, " view"] | None:
    """Give the line integral of the air on both sides of the sample; `None` where the edges do not look like air.

    Air is the same on both sides in every view, whatever the views among themselves, and does not rise towards the
    middle, as the mean over the views of every truncated sample does.

    **Arguments:** mean line integrals of the outermost columns, and of as many next to them.
    """
    level, apart = (left + right) / 2, left - right
    noise = 1.5 * float(np.median(np.abs(apart - np.median(apart)))) / 2**0.5
    rise = float(np.abs(np.mean((next_left + next_right) / 2 - level)))
    same = np.abs(apart) < 0.02 + 0.05 * np.abs(level) + 4 * noise
    steady = noise < 0.01 + 0.02 * np.abs(level).max()
    flat = rise < 0.002 + 0.03 * np.abs(level).mean() + 3 * noise / len(left) ** 0.5
    return level if steady and flat and same.mean() > 0.95 and np.abs(level).max() < 1 else None


@jax.jit
def _mean_row(sinogram: Float[Array, "view z u"]) -> Float[Array, "view u"]:
    return jnp.mean(sinogram, axis=1)

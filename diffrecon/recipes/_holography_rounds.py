"""Holography: the rounds of a solve, on binned frames first where these say as much."""

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from .. import solvers
from .._console import Console
from ..modality import Outcome, Problem, Run, Stage, Work, put
from ..priors import PowerLaw
from . import _holography_beam as beams
from ._holography_problem import MAPS, Holograms, Settings, Solver, device

_DOUBT = 1.5  # how much better vacuum must do where stripes that flats leave hide what pixels never fitted say
BLURS = {"source_blur", "detector_blur"}  # by marginal likelihood: the most probable object explains any blur away


def retrieved(problem: Holograms, settings: Settings, console: Console) -> Work:
    """Solve for one material first, then for all there is, then for the details; coarse to fine."""
    if problem.can_be_binned(settings) or problem.other is not None or beams.wanted_at_all(problem, settings):
        problem = yield from _coarse_first(problem, settings, console)
    else:
        problem = yield from _found(problem, settings, console)
    return (yield from _detailed(problem, settings))


# ------------------------------------------------------------------------------------------ coarse to fine
def _coarse_first(problem: Holograms, settings: Settings, console: Console) -> Work:
    """Find everything but the details on binned frames; then a round on the frames as they are."""
    names = (*MAPS, *problem.refine)
    solve = lambda _, run: _solved_coarse(problem, settings, console, run)
    solved = yield Stage("holography, coarse", solve, names)
    wide = problem.other is not None and solved.model.phase.shape == problem.other.model.phase.shape
    whole = problem.other if wide else problem
    laws = tuple(PowerLaw(*map(float, law)) for law in solved.figures["prior_laws"])
    fields = {name: getattr(solved.model, name) for name in names}
    problem = whole.replace(model=put(whole.model, fields), laws=laws, other=None, figures=solved.figures)
    if "beam_maps" in solved.figures:
        problem = beams.lit(problem, solved.figures)
    strong = _strong(problem, problem.model.phase)
    problem = problem.measured(7) if strong else problem
    steps = 2 if strong else 1
    return (yield from _round(problem, device(problem.data), settings, "all", steps, settings.solver.cg_steps,
                              () if problem.model.probe is not None else problem.refine,
                              vacuum=settings.loss.vacuum))  # fmt: skip


def _solved_coarse(whole: Holograms, settings: Settings, console: Console, run: Run) -> Outcome:
    """Run the rounds on binned frames, if they can be binned, in the surroundings that one material says are right, and
    lift what they find."""
    binned = lambda problem: problem.binned() if problem.can_be_binned(settings) else problem
    problem = binned(whole).replace(other=None)
    done = _driven(_begun(problem, settings, console), problem, run)
    if whole.other is not None and done.ending.finished:
        problem = binned(whole.other)
        other = _driven(_begun(problem, settings, console), problem, run)
        unseen = [outcome.problem.unseen(settings.quality.seed) for outcome in (done, other)]
        wide = unseen[1] < (1.0 if whole.beam is None else _DOUBT) * unseen[0]
        console.say(
            f"beyond the frames: {'the specimen goes on' if wide else 'vacuum'}; pixels that were not fitted are "
            f"{unseen[0]:.3g} times photon noise away from a specimen in vacuum, {unseen[1]:.3g} from one that goes on"
        )
        done, whole = (other, whole.other) if wide else (done, whole)
    figures: dict[str, Any] = {}
    if done.ending.finished and beams.wanted(done.problem, settings):
        done, figures = beams.solved(done, settings, console, run)
    if done.ending.finished and not figures:
        more = _driven(_completed(done.problem, settings, console), done.problem, run)
        done = more._replace(history=np.concatenate([done.history, more.history]))
    coarse, laws, model = done.problem, done.problem.laws, done.problem.model
    if whole.can_be_binned(settings):  # power on pixels half as large, at frequencies half as high
        laws = tuple(PowerLaw(4 * 2**law.slope * law.level, law.slope) for law in laws)
        model = whole.model.lifted(coarse.model)
    problem = whole.replace(model=model, laws=laws)
    return Outcome(problem, done.history, done.ending, done.detail, {"prior_laws": np.array(laws), **figures})


def _driven(plan: Work, problem: Holograms, run: Run) -> Outcome:
    """Run stages inside a stage, until one does not finish."""
    outcome, history = Outcome(problem, np.zeros(0)), [np.zeros(0)]
    try:
        stage = next(plan)
        while True:
            outcome = stage.solve(outcome.problem, run)
            history.append(outcome.history)
            if not outcome.ending.finished:
                break
            stage = plan.send(outcome.problem)
    except StopIteration as end:
        outcome = outcome._replace(problem=end.value)
    return outcome._replace(history=np.concatenate(history))


# ------------------------------------------------------------------------------------------ rounds
def _strong(problem: Holograms, phase: Array) -> bool:
    """Say whether linear theory does not hold, or the specimen has no border to hold the lowest frequencies."""
    return problem.model.borderless or float(jnp.ptp(phase)) > 1.0


def _found(problem: Holograms, settings: Settings, console: Console) -> Work:
    """Solve for one material first, then for all there is."""
    problem = yield from _begun(problem, settings, console)
    return (yield from _completed(problem, settings, console))


def _begun(problem: Holograms, settings: Settings, console: Console) -> Work:
    """Guess, and solve for one material."""
    solver, data = settings.solver, device(problem.data)
    turn = lambda problem, *options, **more: _round(problem, data, settings, *options, **more)
    phase, law = problem.model.first_guess(problem.data["counts"], problem.data["mask"])
    # Where linear theory does not hold, what it says of the lowest frequencies is worse than nothing.
    strong = _strong(problem, phase)
    model = problem.model.replace(phase=jnp.zeros_like(phase) if strong else phase)
    problem = problem.replace(model=model, laws=(law,), curvature=None)
    console.say(f"first guess by the contrast transfer function; power of the phase falls as f^{law.slope:.2g}")
    for damping in solver.damping if strong else [0.01]:
        problem = yield from turn(problem, "one material", 3, 8, raised=damping)
        if strong:  # what the first guess said of the power was as wrong as its phase
            problem = problem.with_laws()
    return problem


def _completed(problem: Holograms, settings: Settings, console: Console) -> Work:
    """Solve for the geometry, for attenuation where one material does not do, and for all at once."""
    solver, data = settings.solver, device(problem.data)
    turn = lambda problem, *options, **more: _round(problem, data, settings, *options, **more)
    strong = _strong(problem, problem.model.phase)
    # A wrong geometry must not pass for attenuation: its numbers come first, unless registration has just found them.
    if problem.refine and not (problem.settled and set(problem.refine) == {"shifts"}):
        problem = yield from _geometry_first(problem, turn, solver, strong)
    one, problem = problem, problem.opened(settings, console)
    problem = yield from _all_rounds(problem, turn, settings)
    if len(problem.laws) > len(one.laws) and settings.model.attenuation is None and len(one.named) < 2:
        # What explains the pixels that are fitted may be invented: those that are not decide.
        seed = settings.quality.seed
        before, after = one.unseen(seed), problem.unseen(seed)
        if after > before:
            console.say(f"pixels never fitted: {before:.3g} with one material, {after:.3g} with attenuation: one it is")
            problem = yield from _all_rounds(one, turn, settings)
    return problem


def _all_rounds(problem: Holograms, turn: Callable[..., Work], settings: Settings) -> Work:
    """Solve for all maps there are, and the geometry."""
    solver, strong = settings.solver, _strong(problem, problem.model.phase)
    rounds = solver.rounds + problem.model.borderless if strong else 1
    for index in range(rounds):
        problem = problem.measured(index) if strong else problem
        problem = yield from turn(
            problem, "all", solver.steps, solver.cg_steps, problem.refine, vacuum=settings.loss.vacuum
        )
        if problem.model.borderless:
            problem = problem.with_laws()
    return problem


def _detailed(problem: Holograms, settings: Settings) -> Work:
    """Sharpen the details."""
    loss, data = settings.loss, device(problem.data)
    for _ in range(settings.solver.tv_rounds if loss.tv and not problem.half else 0):
        problem = yield from _round(problem, data, settings, "details", 2, settings.solver.cg_steps,
                                    vacuum=loss.vacuum, variation=loss.tv)  # fmt: skip
    return problem


def _geometry_first(problem: Holograms, turn: Callable[..., Work], solver: Solver, strong: bool) -> Work:
    """Solve for the numbers of the geometry, with one material. Blurs come in rounds: each takes a share of what is
    left, and lets the object and its prior follow."""
    blurred = bool(BLURS & set(problem.refine))
    for index in range(6 if blurred else 1):
        problem = problem.measured(index) if strong else problem.replace(curvature=None)
        problem = yield from turn(
            problem, "geometry", 3 if blurred else 12, solver.cg_steps, problem.refine, seed=index
        )
        if blurred:
            problem = problem.with_laws()
    return problem


def _round(
    problem: Holograms,
    data: dict[str, Array],
    settings: Settings,
    label: str,
    steps: int,
    cg_steps: int,
    refine: tuple[str, ...] = (),
    seed: int = 0,
    **strengths: float,
) -> Work:
    """Yield a stage of Gauss-Newton steps in white coordinates; the problem with its maps and geometry comes back."""
    names, label = (*MAPS[: len(problem.laws)], *refine), f"holography, {label}"
    options: dict[str, Any] = {"steps": steps, "cg_steps": cg_steps, "seed": seed, "function": settings.loss.function}

    def solve(_: Problem, run: Run) -> Outcome:
        start = problem.coordinates(settings, refine=refine, **strengths)
        solution = solvers.fit_holograms(
            start, data, marginal=bool(BLURS & set(refine)), console=run.console, label=f"{label}: step", **options
        )
        return Outcome(problem.replace(model=solution.value), solution.history, solution.ending, solution.detail)

    solved = yield Stage(label, solve, names)
    return problem.replace(model=put(problem.model, {name: getattr(solved.model, name) for name in names}))

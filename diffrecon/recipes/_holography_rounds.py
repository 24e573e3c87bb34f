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
from ._holography_problem import FEW, MAPS, Holograms, Settings, Solver, device

_DOUBT = 1.5  # how much better vacuum must do where stripes that flats leave hide what pixels never fitted say
_FULL = 0.3  # of the total variation, in a specimen that goes on
_SETTLING = 3  # steps between the coarsest frames and those as they are, without vacuum
_WAIT = 0.1  # [flux], added to the curvature of what coarser pixels have found
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
    names = (*MAPS, "delta_beta", *problem.refine)
    solve = lambda _, run: _solved_coarse(problem, settings, console, run)
    solved = yield Stage("holography, coarse", solve, names)
    wide = problem.other is not None and solved.model.phase.shape == problem.other.model.phase.shape
    whole = problem.other if wide else problem
    laws = tuple(PowerLaw(*map(float, law)) for law in solved.figures["prior_laws"])
    fields = {name: getattr(solved.model, name) for name in names}
    problem = whole.replace(model=put(whole.model, fields), laws=laws, other=None, figures=solved.figures)
    if "beam_maps" in solved.figures:
        problem = yield from beams.refined(problem, settings)
        problem = beams.lit(problem, problem.figures)
    return (yield from _followed(problem, settings))


def _solved_coarse(whole: Holograms, settings: Settings, console: Console, run: Run) -> Outcome:
    """Run the rounds on binned frames, if they can be binned, in the surroundings that one material says are right, and
    lift what they find."""
    levels = _levels(whole, settings)
    problem = levels[-1].replace(other=None)
    done = _driven(_begun(problem, settings, console), problem, run)
    if whole.other is not None and done.ending.finished:
        others = _levels(whole.other, settings)
        problem = others[-1]
        other = _driven(_begun(problem, settings, console), problem, run)
        unseen = [outcome.problem.unseen(settings.quality.seed) for outcome in (done, other)]
        wide = unseen[1] < (1.0 if whole.beam is None else _DOUBT) * unseen[0]
        console.say(
            f"beyond the frames: {'the specimen goes on' if wide else 'vacuum'}; pixels that were not fitted are "
            f"{unseen[0]:.3g} times photon noise away from a specimen in vacuum, {unseen[1]:.3g} from one that goes on"
        )
        done, levels = (other, others) if wide else (done, levels)
    figures: dict[str, Any] = {}
    if done.ending.finished and beams.wanted(done.problem, settings):
        done, figures = beams.solved(done, settings, console, run)
    if done.ending.finished and not figures:
        done = _then(done, _completed(done.problem, settings, console, len(levels) > 2), run)
        done = _then(done, _weak_detailed(done.problem, settings), run)
    for finer in reversed(levels[1:-1]):
        problem = _lifted(finer, done.problem)
        problem = beams.lit(problem, figures) if figures else problem
        done = _then(done._replace(problem=problem), _between(problem, settings), run)
    problem = done.problem if len(levels) == 1 else _lifted(levels[0], done.problem)
    return Outcome(problem, done.history, done.ending, done.detail, {"prior_laws": np.array(problem.laws), **figures})


def _levels(problem: Holograms, settings: Settings) -> list[Holograms]:
    """Bin the frames in pairs as long as much is left of them: from fine to coarse."""
    levels = [problem]
    if problem.can_be_binned(settings):
        levels.append(problem.binned())
        # The stripes of mirrors do not outlive a second time.
        while min(levels[-1].model.frame) >= 2 * FEW and problem.beam is None and levels[-1].can_be_binned(settings):
            levels.append(levels[-1].binned())
    return levels


def _lifted(finer: Holograms, coarse: Holograms) -> Holograms:
    """Take object, shifts and laws of the frames that are binned once more."""
    laws = tuple(law.on_pixels(0.5) for law in coarse.laws)
    return finer.replace(model=finer.model.lifted(coarse.model), laws=laws, other=None)


def _followed(problem: Holograms, settings: Settings, steps: int = 1) -> Work:
    """Solve for all there is, once more, of an object that coarser pixels have found: the lowest frequencies, which
    these know best, wait; and so do the shifts of a specimen that goes on."""
    strong, wide = _strong(problem, problem.model.phase), problem.model.borderless
    problem = problem.measured(7) if strong else problem
    lit = problem.model.probe is not None
    refine = () if wide or lit else problem.refine
    if not (strong or refine or problem.half or not settings.loss.tv):
        return problem  # the details do it
    steps, raised = (2, 0.0) if lit and wide else (steps, _WAIT)
    return (yield from _round(problem, device(problem.data), settings, "all", steps, _few(settings),
                              refine, raised=raised, vacuum=settings.loss.vacuum))  # fmt: skip


def _few(settings: Settings) -> int:
    """Give the number of conjugate gradients of a step that begins near its end."""
    return (settings.solver.cg_steps + 1) // 2


def _between(problem: Holograms, settings: Settings) -> Work:
    """Solve on frames that are binned, but not the most. A specimen that goes on scatters more light than the coarsest
    ones resolve: what is slow is settled here."""
    if problem.model.borderless:
        tied = problem.measured(7).tied(settings)
        problem = yield from _round(tied, device(tied.data), settings, "all", _SETTLING, settings.solver.cg_steps,
                                    tied.refine)  # fmt: skip
        return problem.with_laws()
    problem = yield from _followed(problem, settings, 2)
    return (yield from _weak_detailed(problem, settings))


def _weak_detailed(problem: Holograms, settings: Settings) -> Work:
    """Sharpen the details of a weak object on binned frames, where it costs little; grains of a strong one are finer
    than such pixels, and what they leave is taken for variation."""
    return problem if _strong(problem, problem.model.phase) else (yield from _detailed(problem, settings))


def _then(done: Outcome, plan: Work, run: Run) -> Outcome:
    """Go on with further stages, unless one did not finish."""
    if not done.ending.finished:
        return done
    more = _driven(plan, done.problem, run)
    return more._replace(history=np.concatenate([done.history, more.history]))


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


def _completed(problem: Holograms, settings: Settings, console: Console, settles_later: bool = False) -> Work:
    """Solve for the geometry, for attenuation where one material does not do, and for all at once.

    **Arguments:** `settles_later`: finer frames, not yet the finest, will settle what is slow.
    """
    solver, data = settings.solver, device(problem.data)
    turn = lambda problem, *options, **more: _round(problem, data, settings, *options, **more)
    strong = _strong(problem, problem.model.phase)
    # A wrong geometry must not pass for attenuation: its numbers come first, unless registration has just found them.
    if problem.refine and not (problem.settled and set(problem.refine) == {"shifts"}):
        problem = yield from _geometry_first(problem, turn, solver, strong)
    one, problem = problem, problem.opened(settings, console)
    problem = yield from _all_rounds(problem, turn, settings, settles_later)
    if len(problem.laws) > len(one.laws) and settings.model.attenuation is None and len(one.named) < 2:
        # What explains the pixels that are fitted may be invented: those that are not decide.
        seed = settings.quality.seed
        before, after = one.unseen(seed), problem.unseen(seed)
        if after > before:
            console.say(f"pixels never fitted: {before:.3g} with one material, {after:.3g} with attenuation: one it is")
            problem = yield from _all_rounds(one, turn, settings, settles_later)
    return problem


def _all_rounds(problem: Holograms, turn: Callable[..., Work], settings: Settings, settles_later: bool) -> Work:
    """Solve for all maps there are, and the geometry."""
    solver, strong = settings.solver, _strong(problem, problem.model.phase)
    rounds = solver.rounds + problem.model.borderless if strong else 1
    if problem.model.borderless and settles_later:
        rounds -= solver.rounds  # more of them only follow what such pixels do not resolve, along a ramp
    for index in range(rounds):
        problem = problem.measured(index).tied(settings) if strong else problem
        problem = yield from turn(
            problem, "all", solver.steps, solver.cg_steps, problem.refine, vacuum=settings.loss.vacuum
        )
        if problem.model.borderless:
            problem = problem.with_laws()
    if not strong:  # what the transfer functions have taught of the power is a first guess
        problem = yield from turn(
            problem.with_laws(), "all", (solver.steps + 1) // 2, solver.cg_steps, problem.refine,
            vacuum=settings.loss.vacuum,
        )  # fmt: skip
    return problem


def _detailed(problem: Holograms, settings: Settings) -> Work:
    """Sharpen the details, a step for each set of weights of the total variation; the lowest frequencies wait, which
    so few conjugate gradients would only move about.

    A specimen that goes on is full of details: the whole variation leaves more than photon noise there, most at the
    rim, which few frames see.
    """
    loss, data = settings.loss, device(problem.data)
    wide, rounds = problem.model.borderless, settings.solver.tv_rounds
    wait, variation = (0.0, _FULL * loss.tv) if wide else (_WAIT, loss.tv)
    if wide and problem.model.probe is None and rounds > 1 and min(problem.model.frame) >= 4 * FEW:
        rounds -= 1  # larger frames, which coarser ones have settled
    for _ in range(rounds if loss.tv and not problem.half else 0):
        problem = yield from _round(problem, data, settings, "details", 1, _few(settings),
                                    raised=wait, vacuum=loss.vacuum, variation=variation)  # fmt: skip
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

"""Holography in a beam with structure: its wave at the detector is solved for with the object, on binned frames."""

from collections.abc import Mapping
from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np

from .. import prepare, solvers
from .._console import Console
from ..modality import Outcome, Run, Stage, Work, put
from ..operators.fourier import twice_as_fine
from ..prepare import BeamAtDetector, LitObject, lit_residual
from ..priors import filtered
from ._holography_problem import MAPS, Holograms, Settings, device

_STRUCTURE = 0.03  # rms of the flats, from which a beam may have to be a wave
_RESIDUAL = 1.5  # times photon noise, that flats which divide must leave
_BETTER = 0.7  # of the deviance of pixels never fitted: the wave is taken
_ROUNDS = 3
_UNKNOWNS = ("object.white", "beam.white", "beam.drifts")


def of_flats(scan: Any, seed: int) -> "prepare.FlatBeam | None":
    """Give the beam of one set of flats with structure.

    Its weights begin at the mean flat: those that fit a frame best take a ramp of the object, which moves the stripes
    of all frames alike, for a drift.
    """
    if prepare.flats_of_views(scan).ndim == 4:  # of every view its own
        return None
    dark = 0.0 if scan.darks is None else np.asarray(scan.darks, float).mean(0)
    mean, components = prepare.flat_components(scan.flats, dark, seed)
    beam = prepare.FlatBeam(mean, components, np.zeros((scan.views, len(components))))
    return beam if beam.structure > _STRUCTURE else None


def wanted_at_all(problem: Holograms, settings: Settings) -> bool:
    """Say whether there are flats with structure, and nothing that a wave cannot be solved for beside."""
    free = set(problem.refine) <= {"shifts"} and settings.loss.function is None and settings.model.probe is None
    return free and problem.beam is not None and problem.held is not None and not problem.half


def wanted(problem: Holograms, settings: Settings) -> bool:
    """Say whether flats that divide leave enough for a wave to be tried."""
    return wanted_at_all(problem, settings) and problem.excess(settings.quality.seed) > _RESIDUAL


def solved(done: Outcome, settings: Settings, console: Console, run: Run) -> tuple[Outcome, dict[str, Any]]:
    """Solve for the beam with the object, of one material first; what flats that divide have left comes back where
    pixels that were never fitted are not much better explained."""
    before, seed = done.problem, settings.quality.seed
    problem, data, history = before, device(before.data), [done.history]
    contrast = float(np.std((before.data["counts"] - before.model.dark) / np.asarray(before.model.flux) - 1))
    beam = BeamAtDetector.about(before.model, before.beam, contrast)
    problem = problem.replace(model=beam.model)
    solution = None
    for index in range(_ROUNDS):
        lit = problem.replace(model=beam.put(problem.model, beam.maps()))
        if index == _ROUNDS // 2:
            problem = problem.replace(laws=lit.opened(settings, console).laws)
        problem = problem.replace(curvature=lit.measured(index).curvature)
        both = LitObject(problem.coordinates(settings, refine=problem.refine), beam)
        solution = _joint(both, data, 3, settings.solver.cg_steps, run)
        history.append(solution.history)
        found = solution.value
        problem = problem.replace(model=found.object.solution()).with_laws()
        beam = BeamAtDetector.about(problem.model, before.beam, contrast).at(found.beam.white)
        beam = eqx.tree_at(lambda b: b.drifts, beam, found.beam.drifts)
        if not solution.ending.finished:
            break
    assert solution is not None
    lit = problem.replace(model=beam.put(problem.model, beam.maps()))
    unseen = [one.unseen(seed) for one in (before, lit)]
    taken = unseen[1] < _BETTER * unseen[0]
    console.say(
        f"pixels never fitted: {unseen[0]:.3g} times photon noise where flats divide, {unseen[1]:.3g} with the wave of "
        f"the beam: {'it is solved for' if taken else 'flats divide'}"
    )
    if not taken:
        return done, {}
    outcome = Outcome(lit, np.concatenate(history), solution.ending, solution.detail)
    figures = {"beam_maps": np.asarray(beam.maps()), "beam_drifts": np.asarray(beam.drifts * beam.step)}
    return outcome, figures | {"beam_contrast": contrast}


def _joint(both: LitObject, data: Mapping[str, Any], steps: int, cg_steps: int, run: Run) -> solvers.Solution:
    names = (*_UNKNOWNS, *(("object.numbers",) if both.object.numbers else ()))
    names = tuple(name for name in names if name != "beam.drifts" or both.beam.drifts.size)
    return solvers.levenberg_marquardt(
        lit_residual, both, data, prior=LitObject.prior, steps=steps, cg_steps=cg_steps, unknowns=names, damping=0.03,
        tolerance=2e-5, block_size=len(both.beam.rows), probes=0, console=run.console, label="holography, beam: step",
    )  # fmt: skip


def refined(problem: Holograms, settings: Settings) -> Work:
    """Solve for object and wave together once more where binned frames have found them: these do not show the finest
    stripes. The problem comes back with its maps, unlit, and the wave in its figures."""
    figures = problem.figures
    if not _coarser(problem, figures["beam_maps"]):
        return problem
    names = (*MAPS, *problem.refine)

    def solve(_: Any, run: Run) -> Outcome:
        beam = _lifted(problem, figures)
        curvature = problem.replace(model=beam.put(beam.model, beam.maps())).measured(0).curvature
        dark = problem.replace(model=beam.model, curvature=curvature)
        both = LitObject(dark.coordinates(settings, refine=problem.refine), beam)
        solution = _joint(both, device(problem.data), 2, (3 * settings.solver.cg_steps + 3) // 4, run)
        found, object_ = solution.value.beam, solution.value.object.solution()
        more = {"beam_maps": np.asarray(found.maps()), "beam_drifts": np.asarray(found.drifts * found.step)}
        return Outcome(problem.replace(model=object_), solution.history, solution.ending, solution.detail, more)

    solved = yield Stage("holography, beam", solve, names)
    model = put(problem.model, {name: getattr(solved.model, name) for name in names})
    return problem.replace(model=model, figures={**figures, **solved.figures})


def lit(problem: Holograms, figures: Mapping[str, Any]) -> Holograms:
    """Light frames by the wave that these, or binned ones, have found."""
    beam = _lifted(problem, figures)
    return problem.replace(model=beam.put(beam.model, beam.maps()))


def _coarser(problem: Holograms, maps: Any) -> bool:
    return problem.model.frame[0] > 1.5 * maps.shape[1] / 1.25


def _lifted(problem: Holograms, figures: Mapping[str, Any]) -> BeamAtDetector:
    """Bring the wave that these frames, finer or coarser ones have found to the pixels of the problem."""
    beam = BeamAtDetector.about(problem.model, problem.beam, float(figures["beam_contrast"]))
    maps = jnp.asarray(figures["beam_maps"])
    while _coarser(problem, maps):
        maps = jnp.stack([twice_as_fine(one) for one in maps])
    while 1.5 * problem.model.frame[0] < maps.shape[1] / 1.25:
        maps = maps.reshape(len(maps), maps.shape[1] // 2, 2, maps.shape[2] // 2, 2).mean((2, 4))
    less = [max(m - n, 0) for m, n in zip(maps.shape[1:], beam.white.shape[1:], strict=True)]
    maps = maps[:, less[0] // 2 : maps.shape[1] - (less[0] + 1) // 2, less[1] // 2 : maps.shape[2] - (less[1] + 1) // 2]
    more = [n - m for m, n in zip(maps.shape[1:], beam.white.shape[1:], strict=True)]
    maps = jnp.pad(maps, [(0, 0), *((n // 2, n - n // 2) for n in more)])
    drifts = jnp.asarray(figures["beam_drifts"], maps.dtype).reshape(beam.drifts.shape) / beam.step
    beam = eqx.tree_at(lambda b: b.drifts, beam, drifts)
    return beam.at(filtered(maps, 1 / beam.kernels))

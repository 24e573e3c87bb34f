"""Coherent diffraction imaging: one pattern, many random starts at once, projections, refinement, judgement."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array

from .. import losses, quality
from .._console import Console
from .._model import Batch
from .._result import Quantity
from ..errors import InputError
from ..modality import Modality, Outcome, Problem, Run, Stage, Work, descent
from ..models import Diffraction, diffraction_pattern, oversampling_ratio
from ..scan import Scan
from ..settings import Numbers, above, section, setting
from ..solvers import RandomStarts, Shrinking, onto_positive, onto_real, onto_support, random_starts
from . import looks

_SHRINKING = {"shrink_every": above(0)}
_KNOWN = {"complex": onto_support, "real": onto_real, "positive": onto_positive}


_OFF_MIDDLE = 2.0  # pixels of the light from the zero frequency that are worth a warning
_FEW = ": fewer than 2 do not determine a complex object; a larger detector distance or a smaller object is needed"


@dataclass(frozen=True)
class Model:
    """What is known of the object and of the pattern."""

    object: str = setting("complex", "or real, or real and not negative", choices=tuple(_KNOWN))
    support: Numbers | None = setting(
        None, "bound of the object: an array, or sides of a box [pixel]; the autocorrelation by default"
    )
    three_dimensional: bool | None = setting(
        None, "several frames: one pattern in three dimensions (the default), or (false) exposures to be added"
    )
    background: Numbers | None = setting(None, "counts in every pixel that are not the object's")
    coherence: float | tuple[float, ...] | None = setting(
        0.29,
        "blur of the pattern in the refinement [detector pixel], one number or one for each axis; 0.29 is the pixel's",
        at_least=0,
    )


@dataclass(frozen=True)
class Solver:
    """How the phases are retrieved."""

    starts: int = setting(16, "random starts, all at once", at_least=1)
    rule: str = setting("hio", "of the projections", choices=("er", "hio", "raar", "dm"))
    beta: float | None = setting(None, "of the rule; its own default", only={"rule": ("hio", "raar", "dm")})
    steps: int = setting(600, "projections, of which the last tenth is error reduction", at_least=1)
    shrink_every: int = setting(
        20, "steps between two looks at the support, within the bound; 0 keeps the first support", at_least=0
    )
    shrink_width: tuple[float, float] = setting(
        (3.0, 1.0),
        "blur of the modulus that defines it [pixel], at the beginning and in the end",
        above=0,
        only=_SHRINKING,
    )
    shrink_threshold: tuple[float, ...] = setting(
        (0.05, 0.2), "of the blurred modulus' maximum; of two, what lies between is tried first", above=0, below=1,
        only=_SHRINKING,
    )  # fmt: skip
    keep: float = setting(0.25, "fraction of the starts, the best ones, that are averaged", above=0, at_most=1)
    refine: int = setting(100, "steps of the likelihood's gradient from the average, with what blurs the pattern",
                          at_least=0)  # fmt: skip
    seed: int = setting(0, "of the random phases")


@dataclass(frozen=True)
class Quality:
    """How the result is judged."""

    held_out: float = setting(0.02, "fraction of the measured pixels that are never used", at_least=0, below=0.5)
    seed: int = setting(0, "that draws them")


@dataclass(frozen=True)
class Settings:
    """Every setting of the method."""

    model: Model = section(Model)
    solver: Solver = section(Solver)
    quality: Quality = section(Quality)


@dataclass(frozen=True)
class Pattern(Problem):
    """The problem with the pixels held out."""

    held: Any = None


class Cdi(looks.Cdi, Modality):
    """A complex object from its diffraction pattern."""

    settings = Settings

    def start(self, scan: Scan, settings: Settings, console: Console) -> Pattern:
        """Put the measured modulus with random phases into a first support, and hold some pixels out."""
        if len(settings.solver.shrink_threshold) not in (1, 2):
            raise InputError("solver.shrink_threshold is a number between 0 and 1, or two to try what lies between")
        known = settings.model
        counts, mask = diffraction_pattern(scan, known.three_dimensional)
        model = Diffraction.from_scan(
            scan, three_dimensional=counts.ndim == 3, support=known.support, positive=known.object == "positive",
            background=known.background, coherence=known.coherence,
        )  # fmt: skip
        for line in (*model.describe(counts, mask), *_off_middle(counts)):
            console.say(line)
        draw = np.random.default_rng(settings.quality.seed)
        held = mask & (draw.uniform(size=mask.shape) < settings.quality.held_out)
        data = {"counts": counts[None], "mask": mask & ~held}
        cost = _cost if known.object == "complex" else _real_cost
        return Pattern(model, data, cost, {"object": 1.0}, gauge=Diffraction.centred, held=held)

    def stages(self, problem: Pattern, settings: Settings, console: Console) -> Work:
        """Project many random starts, average the best, and maximise the likelihood from there."""
        first = lambda problem, run: _from_starts(problem, settings, run)
        problem = yield Stage("cdi: random starts", first, keeps=("object", "support"))
        if settings.solver.refine:
            # The curvature of the mean cost is at most `2 / pixels`; a step of its inverse is one of error reduction.
            rule = optax.sgd(0.5 * problem.data["mask"].sum(), momentum=0.9, nesterov=True)
            stage = descent("refinement: step", rule, settings.solver.refine)

            def solve(problem: Pattern, run: Run) -> Outcome:
                outcome = stage.solve(problem, run)
                obj = outcome.problem.model.inside()
                obj = obj if settings.model.object == "complex" else jnp.real(obj) + 0j
                model = problem.model.replace(object=obj)
                return outcome._replace(problem=problem.replace(model=model), history=np.zeros(0))

            yield Stage(stage.label, solve)

    def verdict(self, problem: Pattern, scan: Scan, settings: Settings) -> tuple[dict[str, Any], list[str]]:
        """Judge by pixels held out, the size of the support, and how far the random starts agree."""
        counts, used, held = problem.data["counts"][0], problem.data["mask"], problem.held
        prediction = problem.predict(np.arange(1))[0].astype(float)
        figures, lines = {"residual": quality.held_out_residual(counts, prediction, used)}, []
        if held.any():
            figures |= {
                "held_out_residual": quality.held_out_residual(counts, prediction, held),
                "held_out_deviance": quality.deviance(counts, prediction, held),
                "noise_floor": quality.noise_floor(prediction, held),
                "deviance_floor": quality.noise_floor(prediction, held, metric=quality.deviance),
            }
            lines.append(
                f"pixels held out: R {figures['held_out_residual']:.4f} (photon noise alone "
                f"{figures['noise_floor']:.4f}), deviance {figures['held_out_deviance']:.2f} (photon noise alone "
                f"{figures['deviance_floor']:.2f}); pixels fitted: R {figures['residual']:.4f}"
            )
            lines += quality.unexplained(figures["held_out_residual"], figures["noise_floor"])
        lines += _off_middle(counts)
        ratio = figures["oversampling_ratio"] = oversampling_ratio(problem.model.support)
        size = int(problem.model.support.sum())
        lines.append(f"support of {size} pixels, {ratio:.1f} data for each pixel of the object{_FEW * (ratio < 2)}")
        return figures, lines + _agreement(problem.figures, problem.model.pixel_size)

    def quantities(self, problem: Pattern, scan: Scan, settings: Settings) -> dict[str, Quantity]:
        """Give object, phase and support, in the array's middle."""
        return problem.model.quantities()


def _off_middle(counts: np.ndarray) -> list[str]:
    """Say how far the middle of the light is from the zero frequency, at index (0, 0); nothing within two pixels."""
    profile = lambda axis: np.moveaxis(counts, axis, 0).reshape(counts.shape[axis], -1).sum(1, dtype=float)
    turns = [np.angle(profile(axis) @ np.exp(2j * np.pi * np.arange(n) / n)) for axis, n in enumerate(counts.shape)]
    off = np.array(turns) * counts.shape / (2 * np.pi)
    if not np.abs(off).max() > _OFF_MIDDLE:
        return []
    shown = ", ".join(f"{o:+.1f}" for o in off)
    return [
        f"WARNING: the middle of the light is ({shown}) pixels off the zero frequency, which is a "
        "ramp in the phase: is the beam in the middle of the frames (data.region), or does the object deflect it?"
    ]


def _agreement(figures: Mapping[str, Any], pixel: float | None) -> list[str]:
    """Say how far the random starts agree, also of a run that was resumed after them."""
    residuals = figures["start_residuals"]
    good = round(figures["agreeing_starts"] * residuals.size)
    line = (
        f"{good} of {residuals.size} random starts end within 10 % of the best residual ({np.nanmin(residuals):.4f}); "
        f"{figures['averaged_starts']} are averaged"
    )
    if "prtf" not in figures:
        return [line]
    frequency, transfer = figures["prtf_frequency"], figures["prtf"]
    return [line, str(quality.PhaseTransfer(frequency, transfer, figures["prtf_at_half"], figures["prtf_at_e"], pixel))]


def _figures(starts: RandomStarts, problem: Pattern) -> dict[str, Any]:
    good = int(np.sum(starts.residuals < 1.1 * np.nanmin(starts.residuals)))
    figures = {"start_residuals": starts.residuals, "agreeing_starts": good / starts.residuals.size}
    figures["averaged_starts"] = len(starts.kept)
    if len(starts.kept) < 2:
        return figures
    transfer = quality.phase_transfer(
        starts.kept, problem.data["counts"][0], problem.data["mask"], problem.model.pixel_size
    )
    return figures | transfer.as_quality()


def _from_starts(problem: Pattern, settings: Settings, run: Run) -> Outcome:
    model, solver = problem.model, settings.solver
    within = True if settings.model.support is None else model.support
    low, *_, high = 2 * solver.shrink_threshold
    shrinking = Shrinking(solver.shrink_every, solver.shrink_width, (low, high), within)
    starts = random_starts(
        model.sets(problem.data["counts"][0], problem.data["mask"]), _KNOWN[settings.model.object],
        starts=solver.starts, rule=solver.rule, beta=solver.beta, steps=solver.steps, shrinking=shrinking,
        keep=solver.keep, predict=model.predict, seed=solver.seed, console=run.console,
    )  # fmt: skip
    model = model.replace(object=starts.average, support=jnp.asarray(starts.support))
    history = np.nanmin(starts.gap, 1)
    return Outcome(problem.replace(model=model), history, starts.ending, figures=_figures(starts, problem))


def _cost(model: Diffraction, batch: Batch) -> Array:
    """Half the Poisson deviance, nearly: with 3/8 added the roots of counts have the same variance down to a few."""
    return losses.amplitude(model(batch.views), batch.counts, batch.mask, floor=0.375)


def _real_cost(model: Diffraction, batch: Batch) -> Array:
    return _cost(model.replace(object=jnp.real(model.object)), batch)

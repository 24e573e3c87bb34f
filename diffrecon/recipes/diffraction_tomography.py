"""Powder diffraction tomography: phases, lattice parameters and patterns of every pixel of a slice.

The counts of all points and channels are fitted at once: amounts and lattice parameters inside the projector, with what
is absorbed on the way in and out, and with the parallax of a thick sample.
"""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from .. import losses
from .._console import Console
from .._model import Batch
from .._result import Quantity
from ..errors import InputError
from ..modality import Modality, Outcome, Problem, Run, Stage, Work
from ..models import PowderTomography
from ..quality import deviance
from ..scan import Scan
from ..settings import section, setting
from ..solvers import GridPrior, poisson_gauss_newton, poisson_samples
from . import looks
from ._frame_bins import Integration
from ._powder_patterns import PatternSolver, slices_of_patterns
from ._powder_settings import OF_PHASES, Model, Solver
from ._powder_shape import refined_shape, shape_by_rays
from ._powder_start import Setup, absorption_of, setup_of
from ._powder_time import bars_of, changed_attenuation, courses_of, means_in_time, phases_in_time, times_of

_TYPICAL = 0.3  # amount, before any is known
_LATTICE_IN_TIME = 1.0  # typical change of a lattice from knot to knot [1e-3]
_AFTER = 6  # rounds for peaks that were found by rays
_CONTRADICTED = 3.0  # deviance of a count from which on the model is not that of the data
_CONVERGED = 2e-4  # of the cost: a round that gains less is the last


@dataclass(frozen=True)
class Quality:
    """How the result is judged."""

    held_out: float = setting(0.0, "fraction of the views that are never fitted", at_least=0, below=1)
    seed: int = setting(0, "of the choice of views, and of the noise of error bars")
    samples: int = setting(6, "of noise for the error bars; 0 leaves them out", at_least=0, only=OF_PHASES)


@dataclass(frozen=True)
class Settings:
    """Every setting of the method."""

    model: Model = section(Model)
    solver: Solver = section(Solver)
    patterns: PatternSolver = section(PatternSolver, name="sirt", positive=True)
    integration: Integration = section(Integration)
    quality: Quality = section(Quality)

    def checked(self) -> "Settings":
        """Refuse settings that do not fit together, before anything is read.

        **Raises:** `InputError`.
        """
        self.patterns.checked()
        if self.solver.name == "phases" and not self.solver.patterns and self.patterns != Settings().patterns:
            raise InputError("[patterns] has no effect with solver.patterns=false")
        return self


@dataclass(frozen=True)
class Slice(Problem):
    """The problem with what its model was made of."""

    setup: Any = None
    prior: Any = None
    patterns: Any = None  # as they were found
    solver: Any = None  # whose prior it is
    lines: tuple[str, ...] = field(default=())

    def beside(self) -> dict[str, np.ndarray]:
        """Give the shape of the peaks and the smooth pattern, of which the basis was made."""
        peaks = self.setup.peaks
        shape = {"width": peaks.width, "lorentz": peaks.lorentz, "sizes": peaks.sizes, "smooth": self.setup.amorphous}
        return {name: np.asarray(value, float) for name, value in shape.items()}

    def with_beside(self, kept: Mapping[str, np.ndarray]) -> "Slice":
        """Make the setup, and the prior, of peaks that an earlier run has found."""
        width, lorentz = (float(kept[name]) for name in ("width", "lorentz"))
        sizes = tuple(float(size) for size in kept["sizes"])
        peaks = dataclasses.replace(self.setup.peaks, width=width, lorentz=lorentz, sizes=sizes)
        setup = dataclasses.replace(self.setup, peaks=peaks, amorphous=np.asarray(kept["smooth"]))
        return self.replace(setup=setup, prior=_prior(setup, self.solver, self.model))

    def into(self, part: Any, views: np.ndarray) -> "Slice":
        """Lay in what the problem of some views has solved, the shape of the peaks and the empty beam too."""
        whole, found = super().into(part, views), part.model
        return whole.replace(model=whole.model.replace(basis=found.basis, background=found.background))


class DiffractionTomography(looks.DiffractionTomography, Modality):
    """Volume fractions, lattice parameters and patterns `(channel, y, x)` of a slice."""

    settings = Settings

    def start(self, scan: Scan, settings: Settings, console: Console) -> Slice:
        """Integrate frames, find the attenuation, and put even amounts of the phases into the slice."""
        setup = setup_of(scan, settings)
        if settings.model.time_knots:
            setup = _in_time(setup, scan, settings.model.time_knots)
        model = setup.model()
        for line in setup.lines:
            console.say(line)
        data = {"counts": setup.data.counts}
        prior = _prior(setup, settings.solver, model)
        return Slice(
            model,
            data,
            _cost,
            {"fractions": 1.0, "strains": 1.0},
            setup=setup,
            prior=prior,
            lines=setup.lines,
            solver=settings.solver,
        )

    def stages(self, problem: Slice, settings: Settings, console: Console) -> Work:
        """Fit amounts, then lattice parameters with them; the shape of the peaks in between."""
        if settings.solver.name == "phases" and problem.setup.phases:
            keeps = ("fractions", "strains", "background", "basis.patterns", "basis.weights", "basis.amorphous")
            problem = yield Stage("amounts", _Rounds(2, settings.solver, free=0.0, damping=0.3, least=_TYPICAL), keeps)
            for number in range(2):
                problem = yield Stage(
                    f"lattice {number + 1}", _Rounds(2, settings.solver, damping=0.2 / (number + 1)), keeps
                )
            problem = yield Stage("phases", partial(_phases, settings.solver), keeps)
        if _wants_patterns(problem, settings):
            yield Stage(f"patterns: {settings.patterns.name}", partial(_patterns, settings), keeps=())

    def verdict(self, problem: Slice, scan: Scan, settings: Settings) -> tuple[dict[str, Any], list[str]]:
        """Say how well the model explains the counts, and how much of every phase there is."""
        lines, setup = list(problem.lines), problem.setup
        if problem.patterns is not None:
            lines += [f"patterns: {line}" for line in problem.patterns.messages]
        if settings.solver.name != "phases" or not setup.phases:
            return {}, lines
        counts = np.asarray(problem.data["counts"])
        expected = problem.predict(np.arange(problem.views)).astype(float)
        measured = np.asarray(problem.model.light) > 0
        figure = deviance(counts, expected, measured)
        lines.append(_said_of(figure))
        amounts = setup.grid.coarse(problem.model.fractions).reshape(-1, len(setup.components), *2 * [setup.grid.steps])
        for name, images in zip(setup.components, np.moveaxis(amounts, 1, 0), strict=True):
            mean = " to ".join(f"{image.mean():.4g}" for image in images[:: max(len(images) - 1, 1)])
            lines.append(f"{name}: mean {mean}, largest {images.max():.3g}")
        for name, deviation in zip(setup.phases, problem.figures.get("lattice_deviation", ()), strict=False):
            lines.append(f"mean lattice of {name}: known to {1e6 * deviation:.0f} ppm by the photons")
        return {"deviance": figure}, lines

    def quantities(self, problem: Slice, scan: Scan, settings: Settings) -> dict[str, Quantity]:
        """Give amounts, lattice parameters, attenuation, patterns."""
        setup, model, found = problem.setup, problem.model, {}
        pixel = setup.step
        image = lambda v, text, kind="image", unit="": Quantity(v, unit, ("y", "x"), pixel, text, kind)
        if settings.solver.name == "phases" and setup.phases:
            changes = setup.courses is not None
            fractions, strains = means_in_time(setup, model) if changes else (model.fractions, model.strains)
            amounts = setup.grid.coarse(fractions)
            for number, name in enumerate(setup.components):
                what = "volume fraction" if number < len(setup.phases) else "amount"
                found[name] = image(
                    amounts[number], f"{what} of {name}", "phase" if number < len(setup.phases) else "image"
                )
            weight = np.maximum(np.asarray(fractions[: len(setup.phases)]), 0)
            strain = setup.grid.coarse(np.asarray(strains), weight) * 1e-3
            for number, name in enumerate(setup.phases):
                there = amounts[number] > 0.1 * amounts[number].max()
                found[f"{name}_scale"] = image(
                    np.where(there, 1 + strain[number], np.nan), f"lattice of {name}", "strain"
                )
            found |= phases_in_time(setup, model) if changes else {}
            found |= self._curves(problem) | _sinograms(setup)
        if setup.attenuation is not None:
            found["attenuation"] = image(setup.grid.coarse(setup.attenuation) / setup.step, "attenuation", unit="1/m")
        if _wants_patterns(problem, settings):
            if problem.patterns is None:  # of a run that was resumed after its stages
                problem = _patterns(settings, problem, Run(Console(quiet=True))).problem
            slices, axes, unit = problem.patterns, ("two_theta", "y", "x"), "1/(m sr)"
            found["patterns"] = Quantity(slices.patterns, unit, axes, pixel, "patterns", "data")
            if slices.knots is not None:
                knots = Quantity(slices.knots, unit, ("time", *axes), pixel, "patterns at the times", "data")
                found |= {
                    "patterns_in_time": knots,
                    "times": Quantity(slices.times, "", ("time",), None, "times of the patterns", "data"),
                }
            found.setdefault(
                "mean_pattern", Quantity(setup.mean_pattern(), "1/sr", ("two_theta",), None, "mean pattern", "pattern")
            )
        found["two_theta"] = Quantity(
            np.degrees(setup.data.two_theta), "deg", ("two_theta",), None, "scattering angle", "data"
        )
        return found

    def _curves(self, problem: Slice) -> dict[str, Quantity]:
        setup, views = problem.setup, np.arange(problem.views)
        light = np.asarray(problem.model.light).sum((0, 1))
        over = lambda counts: np.where(light > 0, counts.sum((0, 1)) / np.where(light > 0, light, 1), np.nan)
        measured, fitted = over(np.asarray(problem.data["counts"], float)), over(problem.predict(views).astype(float))
        curve = lambda v, text, kind="data": Quantity(v, "1/sr", ("two_theta",), None, text, kind)
        return {
            "mean_pattern": curve(measured, "mean pattern", "pattern"),
            "fitted_pattern": curve(fitted, "mean of the fit"),
            "reflections": Quantity(
                setup.reflections(), "", ("ring", "phase_and_degree"), None, "reflections of the phases", "data"
            ),
        }  # fmt: skip

    def error_bars(self, problem: Slice, scan: Scan, settings: Settings) -> tuple[dict[str, Quantity], list[str]]:
        """Give what photon noise leaves uncertain, by solutions for noise alone."""
        setup, samples = problem.setup, settings.quality.samples
        if settings.solver.name != "phases" or not setup.phases or not samples:
            return {}, []
        counts = jnp.asarray(problem.data["counts"], jnp.float32)
        key = jax.random.key(settings.quality.seed)
        # Steps of a Laplace law of rate w have the variance 2 / w^2: flat regions are no stiffer than that.
        prior = dataclasses.replace(problem.prior, rounding=2 / float(np.median(problem.prior.edges)))
        amounts, strains = poisson_samples(problem.model, counts, prior, key, samples, settings.solver.steps)
        weight = np.maximum(np.asarray(problem.model.fractions), 0)
        moved = setup.grid.coarse(amounts)  # (sample, [knot,] component, y, x)
        bent = setup.grid.coarse(
            np.asarray(strains), np.broadcast_to(weight[..., : len(setup.phases), :], strains.shape)
        )
        bent = 1e-3 * np.nan_to_num(bent)
        # What all pixels have in common, conjugate gradients reach last, and where photons are few not at all.
        common = problem.figures.get("lattice_deviation", np.zeros(len(setup.phases)))
        nothing = np.zeros(len(setup.components))
        found = {}
        for names, values, kind, level in (
            (setup.components, moved, "", nothing), (setup.phases, bent, "_scale", common),
        ):  # fmt: skip
            for number, name in enumerate(names):
                found |= bars_of(setup, f"{name}{kind}", values[..., number, :, :], float(level[number]))
        return found, [f"error bars: photon noise through {samples} solutions; not the model's own errors"]


def _said_of(deviance_of_counts: float) -> str:
    """Say how well the counts are explained, as a warning where they are not."""
    said = f"Poisson deviance of a count: {deviance_of_counts:.3f}; well above 1 a phase is missing, or absorption is"
    if deviance_of_counts < _CONTRADICTED:
        return said
    return f"WARNING: {said}, or energy, scattering angles, lattices or the order of the angles are of another scan"


def _sinograms(setup: Setup) -> dict[str, Quantity]:
    """Give the sinogram of the strongest ring of every phase, as measured."""
    rings = {name: setup.ring_sinogram(name) for name in setup.phases}
    return {
        f"{name}_sinogram": Quantity(
            ring[1], "1/sr", ("view", "u"), setup.step, f"{name} at {ring[0]:.2f} deg", "image"
        )
        for name, ring in rings.items()
        if ring is not None
    }


class _Rounds:
    """Some rounds of Gauss-Newton; after every second one, what the pixels share."""

    def __init__(
        self, rounds: int, solver: Solver, free: float = 1.0, damping: float = 0.0, least: float = 0.02,
        peaks: bool = True,
    ):  # fmt: skip
        self.rounds, self.solver, self.free, self.damping, self.least = rounds, solver, free, damping, least
        self.peaks = peaks  # whose shape is fitted, too

    def __call__(self, problem: Slice, run: Run) -> Outcome:
        """Solve; a round that lowers the cost no more ends them."""
        model, counts = problem.model, jnp.asarray(problem.data["counts"], jnp.float32)
        progress, history, setup = run.console.progress(self.rounds, "diffraction tomography: round"), [], problem.setup
        for number in range(self.rounds):
            prior = _prior(setup, self.solver, model, self.least)
            model, before, after = poisson_gauss_newton(
                model, counts, prior, free=self.free, steps=self.solver.steps, damping=self.damping
            )
            history.append(float(after) / counts.size)
            progress.update(number + 1, cost=history[-1])
            if float(before) - float(after) < _CONVERGED * abs(float(after)):
                break
            if number % 2:
                prior = _prior(setup, self.solver, model, self.least)
                model, setup = refined_shape(model, counts, setup, prior, self.peaks)
        return Outcome(
            problem.replace(model=model, setup=setup, prior=_prior(setup, self.solver, model, self.least)),
            np.array(history),
        )


def _phases(solver: Solver, problem: Slice, run: Run) -> Outcome:
    """Find amounts and lattices to the end; then the peaks by free amounts of every ray, the slice for these peaks, and
    its mean lattices by free amounts again.
    """
    counts = jnp.asarray(problem.data["counts"], jnp.float32)
    first = _Rounds(solver.rounds, solver)(problem, run)
    model, setup, _ = shape_by_rays(first.problem.model, counts, first.problem.setup)
    rounds = _Rounds(min(_AFTER, solver.rounds), solver, peaks=False)
    last = rounds(first.problem.replace(model=model, setup=setup), run)
    model, setup, deviation = shape_by_rays(last.problem.model, counts, last.problem.setup, peaks=False)
    figures = {"lattice_deviation": 1e-3 * deviation}
    return Outcome(last.problem.replace(model=model), np.r_[first.history, last.history], figures=figures)


def _wants_patterns(problem: Slice, settings: Settings) -> bool:
    alone = settings.solver.name == "patterns" or not problem.setup.phases
    return alone or settings.solver.patterns


def _patterns(settings: Settings, problem: Slice, run: Run) -> Outcome:
    """Find the pattern of every pixel, of a sample that changes at so many times."""
    knots = settings.model.time_knots
    slices = slices_of_patterns(problem.setup, settings.patterns, run.console, problem.setup.times, knots)
    return Outcome(problem.replace(patterns=slices), np.zeros(0), figures=slices.figures)


def _in_time(setup: Setup, scan: Scan, knots: int) -> Setup:
    """Put knots in time into what a model is made of.

    **Raises:** `InputError` where the times or the directions of the views do not allow it.
    """
    times = times_of(scan, len(setup.angles))
    courses = courses_of(scan, times, setup.angles, knots)
    absorption = absorption_of(dict(scan.extra.get("powder", {}))) if setup.attenuation is not None else None
    lines = [] if absorption is None else changed_attenuation(absorption, times)
    return dataclasses.replace(setup, courses=courses, times=times, lines=(*setup.lines, *lines))


def _prior(setup: Setup, solver: Solver, model: PowderTomography, least: float = 0.02) -> GridPrior:
    """Edges weigh by the size of the amounts they are between, and less where amounts have more of them; fields by how
    they change from point to point.

    **Arguments:** `least` amount that is taken to be typical.
    """
    amounts = np.asarray(model.fractions, float)
    amounts = amounts.reshape(-1, *amounts.shape[-2:])  # (knot, component, pixel)
    typical = np.maximum(np.percentile(amounts, 98, axis=-1).max(0), least)
    image = np.asarray(setup.grid.image(amounts), float)
    square = (np.diff(image, axis=-1)[..., :-1, :] ** 2 + np.diff(image, axis=-2)[..., :-1] ** 2).mean(0)
    rate = amounts.shape[-1] / np.maximum(np.sqrt(square).sum((-2, -1)), 1e-30)  # the likeliest of a Laplace law
    edges = solver.tv * np.minimum(8.0 * setup.grid.pixels / typical, rate)
    slow = None if setup.courses is None else (1 / (solver.time_step * typical) ** 2, 1 / _LATTICE_IN_TIME**2)
    return GridPrior.within(setup.grid, edges, 1e-6 / solver.strain_step**2, small=1e-3, rounding=0.01, slow=slow)


def _cost(model: PowderTomography, batch: Batch) -> Array:
    return losses.poisson(model(batch.views), batch.counts, None)

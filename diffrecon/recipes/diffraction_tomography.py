"""Powder diffraction tomography: phases, lattice parameters and patterns of every pixel of a slice.

The counts of all points and channels are fitted at once: amounts and lattice parameters inside the projector, with what
is absorbed on the way in and out, and with the parallax of a thick sample.
"""

import dataclasses
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
from ._powder_patterns import PatternSolver, slices_of_patterns
from ._powder_shape import refined_shape
from ._powder_start import Setup, setup_of
from .integration import Integration

_PHASES = {"name": ("phases",)}
_OF_PHASES = {"solver.name": ("phases",)}
_TYPICAL = 0.3  # amount, before any is known
_CONVERGED = 2e-4  # of the cost: a round that gains less is the last


@dataclass(frozen=True)
class Model:
    """What is in the slice."""

    phases: dict | tuple[str, ...] | str | None = setting(
        None,
        'names of phases that the file describes, or CIF files by name, {ceria = "CeO2.cif"}; by default the file\'s',
    )
    pixels: int | None = setting(
        None,
        "of the slice to a step of the scan; by default 2, or 1 where the table would not fit",
        at_least=1,
        at_most=4,
    )
    absorption: bool = setting(True, "inside the projector, from the transmitted beam where it was measured")
    parallax: bool | None = setting(
        None, "depth moves peaks; by default where the sample's size shows beside the detector's distance"
    )
    polarisation: float | None = setting(
        None, "degree, horizontal; by default the file's, or 0.99", at_least=-1, at_most=1
    )
    amorphous: bool = setting(True, "a smooth pattern of its own, besides the phases", only=_OF_PHASES)
    time_knots: int | None = setting(
        None, "so many slices of patterns, linear in time between them (data.times)",
        at_least=2, only={"solver.name": ("patterns",)},
    )  # fmt: skip


@dataclass(frozen=True)
class Solver:
    """How it is found."""

    name: str = setting(
        "phases", "phases inside the projector, or patterns of every pixel alone", choices=("phases", "patterns")
    )
    rounds: int = setting(12, "of Gauss-Newton for amounts and lattice, at most", at_least=1, only=_PHASES)
    steps: int = setting(20, "of conjugate gradients in a round", at_least=1, only=_PHASES)
    tv: float = setting(
        1.0, "weight of total variation of the amounts, in units of what edges of a grain at every fifth point have",
        at_least=0, only=_PHASES,
    )  # fmt: skip
    strain_step: float = setting(
        3e-4, "typical change of a lattice parameter from point to point, relative", above=0, only=_PHASES
    )
    patterns: bool = setting(True, "the pattern of every pixel, too, as [patterns] says", only=_PHASES)


@dataclass(frozen=True)
class Quality:
    """How the result is judged."""

    held_out: float = setting(0.0, "fraction of the views that are never fitted", at_least=0, below=1)
    seed: int = setting(0, "of the choice of views, and of the noise of error bars")
    samples: int = setting(6, "of noise for the error bars; 0 leaves them out", at_least=0, only=_OF_PHASES)


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
    times: Any = None  # of the views
    lines: tuple[str, ...] = field(default=())


class DiffractionTomography(looks.DiffractionTomography, Modality):
    """Volume fractions, lattice parameters and patterns `(channel, y, x)` of a slice."""

    settings = Settings

    def start(self, scan: Scan, settings: Settings, console: Console) -> Slice:
        """Integrate frames, find the attenuation, and put even amounts of the phases into the slice."""
        setup = setup_of(scan, settings, console)
        model = setup.model()
        for line in setup.lines:
            console.say(line)
        data = {"counts": setup.data.counts}
        prior = _prior(setup, settings.solver, model)
        times = _times(scan, len(setup.angles)) if settings.model.time_knots else None
        return Slice(
            model, data, _cost, {"fractions": 1.0, "strains": 1.0}, setup=setup, prior=prior, lines=setup.lines,
            times=times,
        )  # fmt: skip

    def stages(self, problem: Slice, settings: Settings, console: Console) -> Work:
        """Fit amounts, then lattice parameters with them; the shape of the peaks in between."""
        if settings.solver.name == "phases" and problem.setup.phases:
            keeps = ("fractions", "strains", "background", "basis.patterns", "basis.weights", "basis.amorphous")
            problem = yield Stage("amounts", _Rounds(2, settings.solver, free=0.0, damping=0.3, least=_TYPICAL), keeps)
            for number in range(2):
                problem = yield Stage(
                    f"lattice {number + 1}", _Rounds(2, settings.solver, damping=0.2 / (number + 1)), keeps
                )
            problem = yield Stage("phases", _Rounds(settings.solver.rounds, settings.solver), keeps)
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
        lines.append(f"Poisson deviance of a count: {figure:.3f}; well above 1 a phase is missing, or absorption is")
        amounts = setup.grid.coarse(problem.model.fractions)
        for name, image in zip(setup.components, amounts, strict=True):
            lines.append(f"{name}: mean {image.mean():.4g}, largest {image.max():.3g}")
        return {"deviance": figure}, lines

    def quantities(self, problem: Slice, scan: Scan, settings: Settings) -> dict[str, Quantity]:
        """Give amounts, lattice parameters, attenuation, patterns."""
        setup, model, found = problem.setup, problem.model, {}
        pixel = setup.step
        image = lambda v, text, kind="image", unit="": Quantity(v, unit, ("y", "x"), pixel, text, kind)
        if settings.solver.name == "phases" and setup.phases:
            amounts = setup.grid.coarse(model.fractions)
            for number, name in enumerate(setup.components):
                what = "volume fraction" if number < len(setup.phases) else "amount"
                found[name] = image(
                    amounts[number], f"{what} of {name}", "phase" if number < len(setup.phases) else "image"
                )
            weight = np.maximum(np.asarray(model.fractions[: len(setup.phases)]), 0)
            strain = setup.grid.coarse(np.asarray(model.strains), weight) * 1e-3
            for number, name in enumerate(setup.phases):
                there = amounts[number] > 0.1 * amounts[number].max()
                found[f"{name}_scale"] = image(
                    np.where(there, 1 + strain[number], np.nan), f"lattice of {name}", "strain"
                )
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
        found = {}
        for number, name in enumerate(setup.components):
            spread = _smoothed(setup.grid.coarse(np.asarray(amounts[:, number])))
            found[f"{name}_error"] = Quantity(spread, "", ("y", "x"), setup.step, f"error bar of {name}", "data")
        for number, name in enumerate(setup.phases):
            moved = setup.grid.coarse(
                np.asarray(strains[:, number]), np.broadcast_to(weight[number], strains[:, number].shape)
            )
            spread = _smoothed(np.nan_to_num(moved)) * 1e-3
            found[f"{name}_scale_error"] = Quantity(
                spread, "", ("y", "x"), setup.step, f"error bar of the lattice of {name}", "data"
            )
        return found, [f"error bars: photon noise through {samples} solutions; not the model's own errors"]


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

    def __init__(self, rounds: int, solver: Solver, free: float = 1.0, damping: float = 0.0, least: float = 0.02):
        self.rounds, self.solver, self.free, self.damping, self.least = rounds, solver, free, damping, least

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
                model, setup = refined_shape(model, counts, setup, _prior(setup, self.solver, model, self.least))
        return Outcome(
            problem.replace(model=model, setup=setup, prior=_prior(setup, self.solver, model, self.least)),
            np.array(history),
        )


def _wants_patterns(problem: Slice, settings: Settings) -> bool:
    alone = settings.solver.name == "patterns" or not problem.setup.phases
    return alone or settings.solver.patterns


def _patterns(settings: Settings, problem: Slice, run: Run) -> Outcome:
    """Find the pattern of every pixel, of a sample that changes at so many times."""
    knots = settings.model.time_knots
    slices = slices_of_patterns(problem.setup, settings.patterns, run.console, problem.times, knots)
    return Outcome(problem.replace(patterns=slices), np.zeros(0), figures=slices.figures)


def _times(scan: Scan, views: int) -> np.ndarray:
    """Tell when each view was taken: the mean over its points, or the number of the view.

    **Raises:** `InputError` for another number of times, and views that are not in the order of time.
    """
    times = np.asarray(scan.extra.get("times", np.arange(views)), float).ravel()
    if not times.size or times.size % views:
        raise InputError(f"{scan.name}: {times.size} times (data.times) for {views} views; one for each is expected")
    times = times.reshape(views, -1).mean(1)
    if not np.isfinite(times).all() or (np.diff(times) < 0).any():
        raise InputError(f"{scan.name}: the times of the views (data.times) must not decrease: sort the views by time")
    return times


def _prior(setup: Setup, solver: Solver, model: PowderTomography, least: float = 0.02) -> GridPrior:
    """Edges weigh by the size of the amounts they are between, and less where amounts have more of them; fields by how
    they change from point to point.

    **Arguments:** `least` amount that is taken to be typical.
    """
    amounts = np.asarray(model.fractions, float)
    typical = np.maximum(np.percentile(amounts, 98, axis=1), least)
    image = np.asarray(setup.grid.image(amounts), float)
    steps = np.hypot(np.diff(image, axis=-1)[..., :-1, :], np.diff(image, axis=-2)[..., :-1]).sum((-2, -1))
    rate = amounts.shape[1] / np.maximum(steps, 1e-30)  # the likeliest of a Laplace law
    edges = solver.tv * np.minimum(8.0 * setup.grid.pixels / typical, rate)
    return GridPrior.within(setup.grid, edges, smooth=1e-6 / solver.strain_step**2, small=1e-3, rounding=0.01)


def _smoothed(samples: np.ndarray) -> np.ndarray:
    """Standard deviation over samples `(sample, y, x)`, variances averaged over three by three pixels."""
    variance = np.pad((samples**2).mean(0), 1, mode="edge")
    rows, columns = samples.shape[1:]
    return np.sqrt(sum(variance[i : i + rows, j : j + columns] for i in range(3) for j in range(3)) / 9)


def _cost(model: PowderTomography, batch: Batch) -> Array:
    return losses.poisson(model(batch.views), batch.counts, None)

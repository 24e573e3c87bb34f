"""Ptycho-tomography: a first look at the volume, where the air is, then everything jointly, judged on views of every
angle that were never fitted."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Bool, Float

from .. import losses, operators, prepare, quality
from .._console import Console
from .._model import Batch
from .._result import Quantity
from ..modality import Modality, Outcome, Problem, Run, Stage, Work, descent
from ..models import PtychoProjections, PtychoTomography, frames_by_angle
from ..quality.held_out import held_out_figures
from ..scan import Scan
from ..settings import section, setting
from ..solvers import minimise
from ..solvers.engines import optimisers
from . import looks


@dataclass(frozen=True)
class Model:
    """Sample and beam, and what of them is solved for."""

    modes: int = setting(1, "incoherent probe modes", at_least=1)
    margin: float = setting(4, "around the scanned field [detector pixel]", at_least=0)
    size: int | None = setting(
        None, "side of a slice [object pixel]; larger than a projection where the sample leaves the field", at_least=2
    )
    oversampling: int = setting(1, "object pixels along a detector pixel (near field)", at_least=1)
    border: int = setting(0, "of the beam's window beyond the frame [detector pixel] (near field)", at_least=0)
    air: bool | str = setting(
        "auto", "hold voxels outside the sample at zero once it is seen; false where it fills the field",
        choices=("auto", True, False),
    )  # fmt: skip
    positive: bool | None = setting(None, "delta not below zero; by default where air is assumed")
    delta: bool = setting(True, "delta as an unknown")
    beta: bool = setting(True, "beta as an unknown")
    probe: bool = setting(True, "the probe as an unknown")
    positions: bool = setting(True, "the place of every view as an unknown")
    shifts: bool = setting(True, "the motion of the sample at every angle as an unknown")
    centre: bool = setting(True, "the rotation axis as an unknown")
    background: bool = setting(True, "the background as an unknown; zero otherwise")
    gain: bool = setting(False, "the brightness of every view as an unknown")


@dataclass(frozen=True)
class Loss:
    """What is minimised."""

    function: Callable[..., Any] | None = setting(None, "(model, batch) -> scalar; amplitudes by default")


def _unknown(name: str) -> dict[str, Any]:
    """Make the rule of a step: its unknown is solved for."""
    return {f"model.{name}": (True,)}


@dataclass(frozen=True)
class Optimiser:
    """Steps of the descent."""

    name: str = setting("adam", "any optax optimiser that takes a learning rate", known=optimisers)
    learning_rate: float = setting(0.003, "of delta [rad/pixel]", above=0, only=_unknown("delta"))
    beta: float = setting(3e-5, "of beta [1/pixel]", above=0, only=_unknown("beta"))
    probe: float = setting(0.02, "of the probe, in units of its amplitude", above=0, only=_unknown("probe"))
    positions: float = setting(0.04, "of positions [pixel]", above=0, only=_unknown("positions"))
    shifts: float = setting(0.04, "of shifts [pixel]", above=0, only=_unknown("shifts"))
    centre: float = setting(0.04, "of the rotation axis [pixel]", above=0, only=_unknown("centre"))
    background: float = setting(0.05, "of the background [sqrt(counts)]", above=0, only=_unknown("background"))
    gain: float = setting(0.01, "of the brightness", above=0, only=_unknown("gain"))
    constant: float = setting(0.3, "part of the steps before they shrink to 1/50", at_least=0, at_most=1)


@dataclass(frozen=True)
class Solver:
    """Where to begin, and for how long."""

    start: str = setting(
        "volume",
        "an empty one; or every angle by itself, aligned and back-projected",
        choices=("volume", "projections"),
    )
    first: int = setting(120, "steps of the first look, or of the projections", at_least=1)
    steps: int = setting(400, "steps of the joint descent; 0 ends with the first look", at_least=0)
    batch_size: int = setting(4, "angles a step", at_least=1)
    seed: int = setting(0, "of the order of the angles")


@dataclass(frozen=True)
class Quality:
    """How the result is judged."""

    held_out: float = setting(0.1, "share of the views of every angle that are never fitted", at_least=0, below=1)
    halves: bool = setting(False, "shell correlation of even and odd angles: two more volumes")
    seed: int = setting(0, "of the views that are left out, and of the photon noise they are compared with")


@dataclass(frozen=True)
class Settings:
    """Every setting of the method."""

    model: Model = section(Model)
    loss: Loss = section(Loss)
    optimiser: Optimiser = section(Optimiser)
    solver: Solver = section(Solver)
    quality: Quality = section(Quality)


@dataclass(frozen=True)
class Exposures(Problem):
    """The problem, which is cut by views of every angle, `(angle, view)`, or by whole angles.

    Halves start from geometry and light that are `known`.
    """

    known: bool = False

    def of(self, views: np.ndarray) -> "Exposures":
        """Make the problem of some views of every angle, or of some angles."""
        if views.ndim == 1:
            return super().of(views)
        pick = lambda values: values[np.arange(len(views))[:, None], views]
        model = self.model.replace(positions=pick(self.model.positions), gain=pick(self.model.gain))
        return self.replace(model=model, data={k: v if k == "mask" else pick(v) for k, v in self.data.items()})

    def into(self, part: Problem, views: np.ndarray) -> "Exposures":
        """Lay what some views of every angle have solved into all; find the places of the others, and nothing else."""
        rows, nominal = np.arange(len(views))[:, None], self.model.positions
        moved = jnp.mean(part.model.positions - nominal[rows, views], axis=1, keepdims=True)
        gain = self.model.gain.at[rows, views].set(part.model.gain)
        positions = (nominal + moved).at[rows, views].set(part.model.positions)
        whole = self.replace(model=part.model.replace(positions=positions, gain=gain))
        others = np.stack([np.setdiff1d(np.arange(nominal.shape[1]), seen) for seen in views])
        positions = positions.at[rows, others].set(_places(whole.of(others)))
        return whole.replace(model=whole.model.replace(positions=positions))


def _places(problem: Exposures) -> Float[Array, "angle view 2"]:
    """Fit the places of all views of the problem, each with its best gain; projections do not change."""
    model = problem.model
    still = model.separate(model.projections(np.arange(problem.views)))

    def cost(model: PtychoProjections, batch: Batch) -> Array:
        return _amplitudes(losses.matched(model(batch.views), batch.counts, batch.mask), batch)

    rule = optax.adam(optax.cosine_decay_schedule(0.1 * model.optics.oversampling, 40, 0.05))
    return minimise(cost, still, problem.data, rule, steps=40, unknowns=("positions",)).value.positions


def _amplitudes(prediction: Array, batch: Batch) -> Array:
    """Compare amplitudes, because their noise is the same in bright and dark pixels."""
    return losses.amplitude(prediction, batch.counts, batch.mask & batch.seen[..., None, None])


class PtychoTomographic(looks.PtychoTomography, Modality):
    """delta and beta, probe, rotation axis, shifts and positions of ptychographic scans at many angles."""

    settings = Settings

    def start(self, scan: Scan, settings: Settings, console: Console) -> Exposures:
        """Make an empty volume, the probe from the mean frame, axis and positions as the scan says."""
        chosen = settings.model
        optics = {"oversampling": chosen.oversampling, "border": chosen.border}
        model = PtychoTomography.from_scan(scan, chosen.modes, margin=chosen.margin, size=chosen.size, **optics)
        if not chosen.background:
            dark = jnp.zeros_like(model.optics.background)
            model = model.replace(optics=model.optics.replace(background=dark))
        console.say(model.summary(scan))
        cost = settings.loss.function or (lambda model, batch: _amplitudes(model(batch.views), batch))
        return Exposures(
            model, frames_by_angle(scan), cost, _unknowns(model, settings), ("positions", "gain", "shifts"),
            gauge=lambda solved: solved.centred(model.positions),
        )  # fmt: skip

    def split(self, problem: Exposures, settings: Settings) -> tuple[np.ndarray, np.ndarray]:
        """Choose the same number of views at every angle; none for fewer than six views an angle."""
        (angles, views), share = problem.data["seen"].shape, settings.quality.held_out
        count = int(np.clip(round(views * share), 1, views // 3)) if views >= 6 and share else 0
        generator = np.random.default_rng(settings.quality.seed)
        order = np.stack([generator.permutation(views) for _ in range(angles)])
        return np.sort(order[:, count:], 1), np.sort(order[:, :count], 1)

    def stages(self, problem: Exposures, settings: Settings, console: Console) -> Work:
        """Look at the volume, find the air, descend in all unknowns."""
        solver = settings.solver
        if not problem.known:
            if solver.start == "projections":
                problem = yield Stage("projections", partial(_two_step, settings=settings))
            else:
                problem = yield _descent("first look: step", problem, settings, solver.first)
            problem = yield Stage("air", partial(_without_air, settings=settings), ("sample",))
        if solver.steps:
            yield _descent("ptycho-tomography: step", problem, settings, solver.steps)

    def judge(self, problem: Exposures, settings: Settings) -> tuple[dict[str, Any], list[str]]:
        """Compare frames that were never fitted with their prediction; their places are fitted, and their gain."""
        data, mask = problem.data, problem.data["mask"]
        predicted = losses.matched(jnp.asarray(problem.predict(np.arange(problem.views))), data["counts"], mask)
        counts, predicted = (np.asarray(a)[data["seen"]] for a in (data["counts"], predicted))
        which = f"{len(counts)} views of all angles"
        return held_out_figures(counts, predicted.astype(float), mask, settings.quality.seed, which)

    def verdict(self, problem: Exposures, scan: Scan, settings: Settings) -> tuple[dict[str, Any], list[str]]:
        """Say where the axis is, how far the sample moved, and what was taken for air."""
        model = problem.model
        axis = model.rotation_centre(scan)
        rows, columns = np.asarray(model.shifts).std(0) / model.optics.oversampling
        line = (
            f"rotation axis in the middle of a view at column {axis:.2f} pixel; from angle to angle the sample moved "
            f"by {rows:.2f} (rows) and {columns:.2f} (columns) pixel rms"
        )
        return {"rotation_centre": axis}, [line, _air(model, settings)]

    def halves(self, start: Exposures, solved: Exposures, settings: Settings) -> tuple[Exposures, Exposures]:
        """Take the even and the odd angles, in the order of their size, in the geometry and light that were found."""
        empty = jnp.zeros_like(solved.model.delta)
        unknowns = {name: start.unknowns[name] for name in ("delta", "beta") if name in start.unknowns}
        model = solved.model.replace(delta=empty, beta=empty)
        start = start.replace(model=model, unknowns=unknowns, gauge=lambda model: model, known=True)
        order = np.argsort(np.asarray(model.projector.angles), kind="stable")
        return start.of(order[::2]), start.of(order[1::2])

    def correlate(self, first: Exposures, second: Exposures, scan: Scan) -> tuple[dict[str, Any], str]:
        """Compare two volumes shell by shell where all angles see them."""
        box = seen_box(first.model)
        volumes = (np.asarray(half.model.delta[box]) for half in (first, second))
        curve = quality.shell_correlation(*volumes, pixel_size=first.model.optics.pixel_size)
        return {"shell_correlation": curve.as_quality()}, f"even against odd angles: {curve}"

    def quantities(self, problem: Exposures, scan: Scan, settings: Settings) -> dict[str, Quantity]:
        """Give the volumes, the probe and the places."""
        return problem.model.quantities(scan)


# ---------------------------------------------------------------------------------------------------- solve
def _unknowns(model: PtychoTomography, settings: Settings) -> dict[str, float]:
    """Name what is solved for, each with its step."""
    rates, pixel = settings.optimiser, model.optics.oversampling
    steps = {
        "delta": rates.learning_rate,
        "beta": rates.beta,
        "optics.probe": rates.probe * operators.beam_amplitude(model.optics.probe),
        "positions": rates.positions * pixel,
        "shifts": rates.shifts * pixel,
        "centre": rates.centre * pixel,
        "optics.background": rates.background,
        "gain": rates.gain,
    }
    return {name: step for name, step in steps.items() if getattr(settings.model, name.removeprefix("optics."))}


def _rule(settings: Settings, steps: int) -> optax.GradientTransformation:
    """Let steps grow to full size, which the unknowns' own factors multiply, and fall to a fiftieth."""
    chosen = settings.optimiser
    warm, flat = min(20, steps // 4), max(int(steps * chosen.constant), steps // 4)
    parts = [
        optax.linear_schedule(0.02, 1.0, warm),
        optax.constant_schedule(1.0),
        optax.cosine_decay_schedule(1.0, max(steps - flat, 1), 0.02),
    ]
    return getattr(optax, chosen.name)(optax.join_schedules(parts, [warm, flat]))


def _descent(label: str, problem: Exposures, settings: Settings, steps: int) -> Stage:
    """Make the stage of a joint descent, a few angles a step."""
    positive, solver = settings.model.positive, settings.solver
    positive = _sees_air(settings) if positive is None else positive
    return descent(
        label, _rule(settings, steps), steps, batch_size=solver.batch_size, seed=solver.seed,
        project=(lambda model: model.replace(delta=jnp.maximum(model.delta, 0))) if positive else None,
    )  # fmt: skip


def _two_step(problem: Exposures, run: Run, settings: Settings) -> Outcome:
    """Take each projection by itself (the probe is shared), flattened, aligned, back-projected: the usual way."""
    model, chosen, steps = problem.model, settings.model, settings.solver.first
    angles = np.arange(problem.views)
    unknowns = {k: v for k, v in problem.unknowns.items() if k not in ("delta", "beta", "shifts", "centre")}

    def cost(model: PtychoProjections, batch: Batch) -> Array:
        counts = jnp.swapaxes(model(angles, batch.views), 0, 1)
        return _amplitudes(counts, batch)

    # A few views of every angle a step: all images move in all steps.
    data = {k: v if k == "mask" else np.swapaxes(v, 0, 1) for k, v in problem.data.items()}
    solution = minimise(
        cost, model.separate(), data, _rule(settings, steps), steps=steps, batch_size=4,
        unknowns={**unknowns, "images": 0.04}, seed=settings.solver.seed, console=run.console,
        label="projections: step",
    )  # fmt: skip
    model = prepare.volume_of_projections(
        model, solution.value, air=_sees_air(settings), console=run.console,
        unknowns=[name for name in ("centre", "shifts") if getattr(chosen, name)],
    )  # fmt: skip
    return Outcome(problem.replace(model=model), solution.history, solution.ending)


# ---------------------------------------------------------------------------------------------------- the air
def _sees_air(settings: Settings) -> bool:
    """Say whether the scan is taken to see all of the sample and air around it."""
    return settings.model.air is True or (settings.model.air == "auto" and settings.model.size is None)


def seen_box(model: PtychoTomography) -> tuple[slice, slice, slice]:
    """Give the part of the volume about the axis that all angles see."""
    rows, columns = prepare.lit_field(model.light())
    side = model.delta.shape[-1]
    out = max((side - (columns.stop - columns.start) + 1) // 2, 0)
    return rows, slice(out, side - out), slice(out, side - out)


def _without_air(problem: Exposures, run: Run, settings: Settings) -> Outcome:
    """Find the voxels that may hold matter: all, where no air is to be seen."""
    model, everywhere = problem.model, np.ones(problem.model.delta.shape, bool)
    sample = everywhere
    if _sees_air(settings):
        box = seen_box(model)
        region = prepare.sample_region(model.delta, box)
        sample = region if region[box].mean() <= 0.7 else everywhere
    model = model.replace(sample=jnp.asarray(sample))
    run.console.say(_air(model, settings))
    return Outcome(problem.replace(model=model), np.zeros(0))


def _air(model: PtychoTomography, settings: Settings) -> str:
    sample: Bool[Array, "z y x"] | None = model.sample
    unknown = "no air is assumed, delta is known up to a constant and a slow bend"
    if sample is None or not _sees_air(settings):
        return unknown
    if bool(jnp.all(sample)):
        return f"the sample fills the scanned field: {unknown}"
    return f"air, held at zero: all but {float(jnp.mean(sample[seen_box(model)])):.0%} of the scanned field"

"""Engines of ptychography: steps of different kinds on one model and one cost, chained in stages.

`run_stages(model, data, ["dm:60", "lsqml:30", "lm:10"], ...)` starts each stage from the model of the one before. A
model is anything with the fields and methods of `diffrecon.models.Ptychography` that an engine reads: `object`,
`probe`, `gain`, `efficiency`, `places(views)`, `beam(views)`, `waves(views)`, `transmission()`, and the call.
"""

import dataclasses
import functools
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float

from .. import losses, operators
from .._console import Console
from .._model import Batch
from ..errors import InputError, nearest
from .descent.gauss_newton import levenberg_marquardt
from .descent.minimise import Solution, minimise
from .descent.preconditioned import optimal_step, periodic_momentum, preconditioned
from .scans import amplitude_cost, decaying, decaying_rule
from .sets.exit_waves import project_waves

__all__ = [
    "ENGINES",
    "EngineTask",
    "engine",
    "in_units",
    "optimisers",
    "parse_stages",
    "run_engine",
    "run_stages",
    "stabilised_rows",
    "wave_curvature",
    "wave_rows",
]

Cost = Callable[[Any, Batch], Any]


@dataclasses.dataclass(frozen=True)
class EngineTask:
    """Hold what an engine needs besides the model: data, cost, unknowns with their step factors, and how to go on.

    **Fields:** `data` (`{"counts": (view, y, x), "mask": (y, x)}` in the model's order), `cost`, `unknowns` (name ->
    step in units of `learning_rate`, see `run_stages`), `held_out` (views never fitted), `learning_rate` of the object,
    `constant` (fraction of the steps before the rate decays), `squares` (rate at which Adam and its kin average
    squared gradients; their own by default), `batch_size`, `seed`, `console`, `label`, `checkpoint`, `resume`.
    """

    data: Mapping[str, Any]
    unknowns: Mapping[str, float]
    cost: Cost
    held_out: Any = ()
    learning_rate: float = 0.04
    constant: float = 0.3
    squares: float | None = None
    batch_size: int = 10
    seed: int = 0
    console: Console = dataclasses.field(default_factory=lambda: Console(quiet=True))
    label: str = "ptychography"
    checkpoint: Any = None
    resume: bool = False

    def steps(self, epochs: int, batch_size: int | None = None) -> int:
        """Count the steps in so many epochs."""
        train = self.data["counts"].shape[0] - np.size(self.held_out)
        return epochs * -(-train // min(batch_size or self.batch_size, train))

    def figure(self, model: Any, most: int = 32) -> float:
        """Give the cost of a model on at most `most` held-out views, or on fitted ones where none are held out."""
        views = np.asarray(self.held_out, int)
        views = (views if views.size else np.arange(self.data["counts"].shape[0]))[:most]
        shared = lambda name, value: name == "mask" and value.ndim < 3
        fields = {n: np.asarray(v if shared(n, v) else v[views]) for n, v in self.data.items()}
        return float(_cost_of(self.cost, model, Batch(views, fields)))


Engine = Callable[[Any, int, EngineTask], Solution]


@eqx.filter_jit
def _cost_of(cost: Cost, model: Any, batch: Batch) -> Array:
    return jnp.real(cost(model, batch))


def run_stages(
    model: Any,
    data: Mapping[str, Any],
    stages: Sequence[str],
    *,
    unknowns: Mapping[str, float],
    cost: Cost = amplitude_cost,
    console: Console | None = None,
    label: str = "ptychography",
    **task: Any,
) -> Solution:
    """Run engines one after another, each from the model that the one before it left.

    **Arguments:** `stages` such as `["dm:60", "lsqml:30"]` (see `ENGINES`, or any optax optimiser, with a number of
    epochs); `unknowns` (name -> step in units of `learning_rate` and of `model.natural_steps()`); the rest as the
    fields of `EngineTask`.

    **Returns:** a `Solution` with the histories of all stages. Ctrl-C ends the chain with the better of what the
    interrupted stage had reached and what it started from; so does a stage that broke down.

    **Raises:** `InputError` for an unknown engine or a number of epochs that is none.

    ```python
    solution = run_stages(model, {"counts": counts, "mask": mask}, ["adam:20"], unknowns={"object": 1.0, "probe": 1.0})
    ```
    """
    console = console or Console(quiet=True)
    planned = parse_stages(stages)
    settings = EngineTask(data, in_units(model, unknowns), cost, console=console, **task)
    solutions: list[Solution] = []
    for number, (name, epochs) in enumerate(planned, 1):
        count = f" {number}/{len(planned)}" if len(planned) > 1 else ""
        part = dataclasses.replace(settings, label=f"{label}: {name}{count}: step")
        solutions.append(run_engine(name, model, epochs, part, first=number == 1))
        if not solutions[-1].ending.finished:
            break
        model = solutions[-1].value
    before = np.cumsum([0, *(s.history.size for s in solutions)])
    held = [s.held_out + [done, 0.0] for s, done in zip(solutions, before, strict=False)]
    history = np.concatenate([s.history for s in solutions])
    return dataclasses.replace(solutions[-1], history=history, held_out=np.concatenate(held))


def run_engine(name: str, model: Any, epochs: int, task: EngineTask, *, first: bool = True) -> Solution:
    """Run one engine; of a stage after the `first` that does not come to its end the better of its two ends is kept.

    **Raises:** `InputError` for an unknown engine.
    """
    solution = engine(name)(model, epochs, task)
    if first or solution.ending.finished or task.figure(solution.value) <= task.figure(model):
        return solution
    return dataclasses.replace(solution, value=model)


def parse_stages(stages: Sequence[str] | str) -> list[tuple[str, int]]:
    """Read `["dm:60", "lm:10"]` as pairs of engine and number of epochs.

    **Raises:** `InputError` for an unknown engine, with the nearest known one, or epochs that are no positive whole
    number.

    ```python
    assert parse_stages(["adam:12"]) == [("adam", 12)]
    ```
    """
    stages = [stages] if isinstance(stages, str) else list(stages)
    if not stages:
        raise InputError('solver.stages is empty: say an engine and its epochs, such as ["adam:20"]')
    pairs = []
    for stage in stages:
        name, _, epochs = str(stage).partition(":")
        engine(name.strip())
        if not epochs.strip().isdecimal() or int(epochs) < 1:
            raise InputError(f"solver.stages: {stage!r} has no number of epochs; write {name.strip()}:20")
        pairs.append((name.strip(), int(epochs)))
    return pairs


def engine(name: str) -> Engine:
    """Look an engine up by name: one of `ENGINES`, or any optimiser of optax.

    **Raises:** `InputError` for neither, with the nearest name.
    """
    if name in ENGINES:
        return ENGINES[name]
    if name in optimisers():
        return lambda model, epochs, task: _optax(model, epochs, task, name)
    raise InputError(
        f"there is no engine {name!r}{nearest(name, [*ENGINES, *optimisers()])}; there are {', '.join(ENGINES)} and "
        "the optimisers of optax"
    )


@functools.cache
def optimisers() -> tuple[str, ...]:
    """List the optimisers of optax that are made from a learning rate alone."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of those that are about to go
        return tuple(name for name in dir(optax) if name[0].islower() and _is_optimiser(getattr(optax, name)))


def _is_optimiser(make: Any) -> bool:
    """Tell whether something of optax makes an optimiser from a learning rate alone."""
    try:
        return isinstance(make(learning_rate=0.1), optax.GradientTransformation)
    except (TypeError, ValueError):
        return False


def in_units(model: Any, unknowns: Mapping[str, float]) -> dict[str, float]:
    """Give steps in the model's own units, those of `model.natural_steps()`."""
    natural = model.natural_steps()
    return {name: factor * natural.get(name, 1.0) for name, factor in unknowns.items()}


# ---------------------------------------------------------------------------------------------------- gradients
def _optax(model: Any, epochs: int, task: EngineTask, name: str) -> Solution:
    """Run any optax optimiser with a decaying step."""
    steps = task.steps(epochs)
    rule = decaying_rule(name, task.learning_rate, steps, task.constant, task.squares)
    late = {
        unknown: decaying_rule(name, task.learning_rate * factor, steps, task.constant, task.squares, deaf=True)
        for unknown, factor in task.unknowns.items()
        if unknown in _TOLD_BY_STRUCTURE and _is_empty(model)
    }
    return _minimise(model, task, rule, {**task.unknowns, **late}, steps, task.batch_size)


# What frames of an empty object do not depend on: in the first step its gradient is rounding noise, of which Adam would
# make whole steps, others on every number of devices.
_TOLD_BY_STRUCTURE = ("positions", "scan_matrix", "drift", "travel", "source_blur")


def _is_empty(model: Any) -> bool:
    values = np.ravel(model.object)
    return not np.ptp(np.abs(values - values[0]))


class KeptScale:
    """Positions that move one by one, while the scan as a whole keeps its scale and shear.

    The data hardly tell these from a scale of object and probe, so that they would drift. What the positions have moved
    is freed of its symmetric linear part about the middle of the scan, a rotation stays; `model.scan_matrix` solves for
    all of it. Equal to another of the same scan, so that programs compiled for one serve the other.
    """

    def __init__(self, nominal: Float[np.ndarray, "view 2"]):
        self.nominal = np.asarray(nominal, np.float32)
        self.places = np.asarray(nominal - np.mean(nominal, 0), np.float64)
        self.inverse = np.linalg.pinv(self.places, rcond=1e-3)

    def __call__(self, model: Any) -> Any:
        """Give the model with its scan as large as at the beginning."""
        moved = model.positions - self.nominal
        matrix = jnp.asarray(self.inverse, moved.dtype) @ moved
        grown = jnp.asarray(self.places, moved.dtype) @ ((matrix + matrix.T) / 2)
        return eqx.tree_at(lambda m: m.positions, model, model.positions - grown)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, KeptScale) and np.array_equal(self.nominal, other.nominal)

    def __hash__(self) -> int:
        return hash(self.nominal.tobytes())


def _kept_scale(model: Any, task: EngineTask, unknowns: Mapping[str, Any]) -> KeptScale | None:
    """Keep the scale of scans whose positions are solved for, unless the geometry has it."""
    nominal = task.data.get("nominal")
    if nominal is None or len(nominal) < 6 or "positions" not in unknowns or model.scan_matrix is not None:
        return None
    return KeptScale(nominal)


def _minimise(
    model: Any,
    task: EngineTask,
    rule: optax.GradientTransformation,
    unknowns: Mapping[str, Any],
    steps: int,
    batch_size: int,
) -> Solution:
    return minimise(
        task.cost,
        model,
        task.data,
        rule,
        steps=steps,
        batch_size=batch_size,
        unknowns=unknowns,
        project=_kept_scale(model, task, unknowns),
        seed=task.seed,
        held_out=task.held_out,
        checkpoint=task.checkpoint,
        resume=task.resume and task.checkpoint is not None,
        console=task.console,
        label=task.label,
    )


def _with_waves(model: Any, task: EngineTask, rule: optax.GradientTransformation, epochs: int, batch_size: int):
    """Use a rule of its own for object and probe; Adam, as in the default engine, for what else is unknown."""
    steps = task.steps(epochs, batch_size)
    rate = task.learning_rate
    waves = [name for name in ("object", "probe") if name in task.unknowns]
    if not waves:
        raise InputError("this engine solves for object and probe; with neither unknown use adam")
    others = {
        name: decaying_rule("adam", rate * factor, steps, task.constant)
        for name, factor in task.unknowns.items()
        if name not in waves
    }
    return _minimise(model, task, rule, dict.fromkeys(waves, 1.0) | others, steps, batch_size)


def wave_curvature(
    model: Any, batch: Batch, *, object_share: float = 0.05, probe_share: float = 0.05
) -> dict[str, Float[Array, "..."]]:
    """Give the curvature of the mean amplitude cost of a batch along each pixel of object and probe.

    It is `2 / pixels` times the sum over views of the light on the object's pixel, and of the object's intensity on the
    probe's. Each view's light is mixed with its maximum, `(1 - share) |P|^2 + share max |P|^2`, so that dark pixels
    move slowly (rPIE: Maiden, Johnson & Li 2017; a share of one is ePIE: Maiden & Rodenburg 2009).
    """
    places = model.places(batch.views)
    corners, rest = operators.split_positions(places)
    shape = (model.probe.shape[-2], model.probe.shape[-1])
    ramps = operators.shift_ramps(rest, shape)
    beam = jnp.fft.ifft2(jnp.fft.fft2(model.beam(batch.views)) * ramps[:, None])
    light = operators.intensity(beam) * model.gain[batch.views][:, None, None]
    intensity = jnp.abs(model.transmission()) ** 2
    thick = intensity.reshape(-1, *intensity.shape[-2:])
    patches = jnp.prod(jnp.stack([operators.extract(one, corners, shape) for one in thick]), 0)
    patches = patches * model.gain[batch.views][:, None, None]

    peak = lambda a: jnp.max(a, (-2, -1), keepdims=True)
    mixed = lambda a, share: (1 - share) * a + share * peak(a)
    scale = 2 / _measured(batch)
    seen = operators.deposit(jnp.zeros(intensity.shape[-2:], light.dtype), corners, mixed(light, object_share))
    if model.refractive:
        seen = seen * intensity
    return {"object": scale * seen, "probe": scale * jnp.sum(mixed(patches, probe_share), 0)}


def _measured(batch: Batch) -> Any:
    """Count the measured pixels of a batch."""
    views, rows, columns = batch.counts.shape
    if batch.mask is None:
        return views * rows * columns
    return jnp.sum(jnp.broadcast_to(batch.mask, batch.counts.shape), dtype=jnp.result_type(float))


def wave_rows(model: Any, batch: Batch) -> Array:
    """Scale the waves on measured pixels so that the squares of their changes bound the amplitude cost from above."""
    waves = model.waves(batch.views)
    waves = waves * jnp.sqrt(model.gain[batch.views])[:, None, None, None]
    share = model.efficiency
    if share is not None:  # of each pixel, or, where pixels of waves are others, of the best
        waves = waves * jnp.sqrt(share if waves.shape[-2:] == share.shape else share.max()).astype(waves.real.dtype)
    if batch.mask is not None and waves.shape[-2:] == batch.counts.shape[-2:]:
        waves = jnp.where(jnp.broadcast_to(batch.mask, batch.counts.shape)[:, None], waves, 0)
    return waves * jnp.sqrt(2 / _measured(batch)).astype(waves.real.dtype)


def _pie(model: Any, epochs: int, task: EngineTask, share: float, step: float, friction: float = 0.0) -> Solution:
    """One view a step: ePIE (share 1), rPIE, or with `friction` mPIE; the step decays, or the noise of single views
    stays in the result."""
    decay = decaying(-step, task.steps(epochs, 1), task.constant)
    rule = [
        preconditioned(lambda m, b: wave_curvature(m, b, object_share=share, probe_share=min(1.0, 10 * share))),
        optax.scale_by_schedule(decay),
    ]
    if friction:
        rule.append(periodic_momentum(friction, every=30))
    return _with_waves(model, task, optax.chain(*rule), epochs, 1)


def _lsqml(model: Any, epochs: int, task: EngineTask) -> Solution:
    """Preconditioned gradients of batches with momentum, and the best steps of object and probe together."""
    waves = [name for name in ("object", "probe") if name in task.unknowns]
    rule = optax.chain(
        preconditioned(wave_curvature),
        optax.trace(0.5),
        optimal_step(wave_rows, waves),
        optax.scale_by_schedule(decaying(1.0, task.steps(epochs), task.constant)),
    )
    return _with_waves(model, task, rule, epochs, task.batch_size)


# ---------------------------------------------------------------------------------------------------- exit waves
def _sets(model: Any, epochs: int, task: EngineTask, rule: str, beta: float) -> Solution:
    """Difference map or RAAR on exit waves."""
    held = np.asarray(task.held_out, int)
    return project_waves(
        model,
        task.data,
        np.setdiff1d(np.arange(task.data["counts"].shape[0]), held),
        task.unknowns,
        rule=rule,
        beta=beta,
        steps=epochs,
        judge=(lambda model: task.figure(model, held.size)) if held.size else None,
        console=task.console,
        label=task.label,
    )


# ---------------------------------------------------------------------------------------------------- second order
def stabilised_rows(model: Any, batch: Batch) -> Float[Array, "view y x"]:
    """Give the residuals of variance one (`diffrecon.losses.anscombe_residual`) of some views."""
    return losses.anscombe_residual(model(batch.views), batch.counts, batch.mask)


def _lm(model: Any, epochs: int, task: EngineTask) -> Solution:
    """Levenberg-Marquardt on all views; an epoch is one damped step of ten conjugate gradients."""
    if task.cost is not amplitude_cost:
        task.console.say("engine lm fits the counts alone, by their amplitudes; priors and other costs do not enter")
    solution = levenberg_marquardt(
        stabilised_rows,
        model,
        task.data,
        steps=epochs,
        cg_steps=10,
        unknowns=tuple(task.unknowns),
        held_out=task.held_out,
        seed=task.seed,
        console=task.console,
        label=task.label,
    )
    # Half squares of a view, of variance one, to the mean amplitude cost.
    pixels = np.prod(task.data["counts"].shape[1:]) * np.mean(task.data["mask"])
    scale = 1 / (2 * pixels)
    return dataclasses.replace(solution, history=scale * solution.history, held_out=solution.held_out * [1, scale])


# Functions `(model, epochs, task) -> Solution` by name: put one of your own in, and `solver.stages` knows it.
ENGINES: dict[str, Engine] = {
    "epie": lambda model, epochs, task: _pie(model, epochs, task, 1.0, 1.0),
    "rpie": lambda model, epochs, task: _pie(model, epochs, task, 0.1, 0.5),
    "mpie": lambda model, epochs, task: _pie(model, epochs, task, 0.1, 0.2, 0.9),
    "lsqml": _lsqml,
    # beta = -1 is the difference map as ptychography writes it.
    "dm": lambda model, epochs, task: _sets(model, epochs, task, "dm", -1.0),
    "raar": lambda model, epochs, task: _sets(model, epochs, task, "raar", 0.75),
    "lm": _lm,
}

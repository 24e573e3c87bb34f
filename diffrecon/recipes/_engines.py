"""Engines of ptychography: steps of different kinds on one model and one cost, chained in stages.

`run_stages(model, data, ["dm:60", "lsqml:30", "lm:10"], ...)` starts each stage from the model of the one before.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float

from .. import losses, operators
from .._console import Console
from .._model import Batch
from ..errors import InputError, nearest
from ..models import Ptychography
from ..solvers import Solution, levenberg_marquardt, minimise, optimal_step, periodic_momentum, preconditioned
from ._exit_waves import project_waves

__all__ = ["ENGINES", "Task", "amplitude_cost", "decaying", "parse_stages", "run_stages"]

Cost = Callable[[Any, Batch], Any]


@dataclasses.dataclass(frozen=True)
class Task:
    """What an engine is given besides the model: data, cost, unknowns with their step factors, and how to go on.

    **Fields:** `data` (`{"counts": (view, y, x), "mask": (y, x)}` in the model's order), `cost`, `unknowns` (name ->
    step size in units of `learning_rate`), `held_out` (views never fitted), `learning_rate` of the object, `constant`
    (fraction of the steps before the rate decays), `batch_size`, `seed`, `console`, `label`, `checkpoint`, `resume`.
    """

    data: Mapping[str, Any]
    cost: Cost
    unknowns: Mapping[str, float]
    held_out: Any = ()
    learning_rate: float = 0.04
    constant: float = 0.3
    batch_size: int = 10
    seed: int = 0
    console: Console | None = None
    label: str = "ptychography"
    checkpoint: Any = None
    resume: bool = False

    def steps(self, epochs: int, batch_size: int | None = None) -> int:
        """Steps in so many epochs."""
        train = self.data["counts"].shape[0] - np.size(self.held_out)
        return epochs * -(-train // min(batch_size or self.batch_size, train))


Engine = Callable[[Ptychography, int, Task], Solution]


def run_stages(
    model: Ptychography,
    data: Mapping[str, Any],
    stages: Sequence[str],
    *,
    unknowns: Mapping[str, float],
    cost: Cost | None = None,
    held_out: Any = (),
    learning_rate: float = 0.04,
    constant: float = 0.3,
    batch_size: int = 10,
    seed: int = 0,
    console: Console | None = None,
    label: str = "ptychography",
) -> Solution:
    """Run engines one after another, each from the model that the one before it found.

    **Arguments:** `stages` such as `["dm:60", "lsqml:30"]` (see `ENGINES`, or any optax optimiser, with a number of
    epochs); the rest as the fields of `Task`, where the step of the probe is in units of its amplitude where the light
    is, and that of the positions in detector pixels. `cost` is `amplitude_cost` by default.

    **Returns:** a `Solution` with the histories of all stages. Ctrl-C ends the chain with the better of what the
    interrupted stage had found and what it started from; so does a stage that broke down.

    **Raises:** `InputError` for an unknown engine or a number of epochs that is none.

    ```python
    solution = run_stages(model, {"counts": counts, "mask": mask}, ["adam:20"], unknowns={"object": 1.0, "probe": 1.0})
    ```
    """
    console = console or Console(quiet=True)
    planned = parse_stages(stages)
    factors = _in_units(model, unknowns)
    history: list[np.ndarray] = []
    held: list[np.ndarray] = []
    found: Solution | None = None
    for number, (name, epochs) in enumerate(planned, 1):
        count = f" {number}/{len(planned)}" if len(planned) > 1 else ""
        task = Task(
            data,
            cost or amplitude_cost,
            factors,
            held_out,
            learning_rate,
            constant,
            batch_size,
            seed,
            console,
            f"{label}: {name}{count}: step",
            _checkpoint(console, number, len(planned)),
            console.resume,
        )
        found = engine(name)(model, epochs, task)
        done = sum(part.size for part in history)
        history.append(found.history)
        held.append(found.held_out + np.asarray([done, 0.0]))
        if not found.result.startswith(("done", "converged")):
            if number > 1 and _figure(found.value, task) > _figure(model, task):
                found = dataclasses.replace(found, value=model)
            break
        model = found.value
    assert found is not None
    return dataclasses.replace(found, history=np.concatenate(history), held_out=np.concatenate(held))


def parse_stages(stages: Sequence[str] | str) -> list[tuple[str, int]]:
    """`["dm:60", "lm:10"]` as pairs of engine and number of epochs.

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
    """The engine of a name: one of `ENGINES`, or any optimiser of optax.

    **Raises:** `InputError` for neither, with the nearest name.
    """
    if name in ENGINES:
        return ENGINES[name]
    if _is_optimiser(getattr(optax, name, None)):
        return lambda model, epochs, task: _optax(model, epochs, task, name)
    raise InputError(
        f"there is no engine {name!r}{nearest(name, [*ENGINES, 'adam', 'adamw', 'radam', 'lamb'])}; there "
        f"are {', '.join(ENGINES)} and the optimisers of optax"
    )


def _is_optimiser(make: Any) -> bool:
    """Whether something of optax makes an optimiser from a learning rate alone."""
    try:
        return isinstance(make(learning_rate=0.1), optax.GradientTransformation)
    except (TypeError, ValueError):
        return False


def _in_units(model: Ptychography, unknowns: Mapping[str, float]) -> dict[str, float]:
    """Step factors in the model's own units: the probe's amplitude where the light is, the object's pixels."""
    amplitude = operators.beam_amplitude(model.probe)
    units = {"probe": amplitude, "probe_variations": amplitude, "positions": model.oversampling}
    return {name: factor * units.get(name, 1.0) for name, factor in unknowns.items()}


def _checkpoint(console: Console, number: int, stages: int) -> Any:
    if console.checkpoint is None or stages == 1:
        return console.checkpoint
    path = Path(console.checkpoint)
    return path.with_name(f"{path.name}.{number}")


def _figure(model: Ptychography, task: Task, most: int = 32) -> float:
    """How good a model is: the cost on held-out views, or on some that were fitted."""
    views = np.asarray(task.held_out, int)
    views = (views if views.size else np.arange(task.data["counts"].shape[0]))[:most]
    return float(_cost_of(task.cost, model, Batch(views, _fields(task.data, views))))


def _fields(data: Mapping[str, Any], views: np.ndarray) -> dict[str, np.ndarray]:
    """The data of some views; a mask of one frame is shared."""
    shared = lambda name, value: name == "mask" and value.ndim < 3
    return {name: np.asarray(value if shared(name, value) else value[views]) for name, value in data.items()}


@eqx.filter_jit
def _cost_of(cost: Cost, model: Ptychography, batch: Batch) -> Array:
    return jnp.real(cost(model, batch))


# ---------------------------------------------------------------------------------------------------- the cost
def amplitude_cost(model: Ptychography, batch: Batch) -> jax.Array:
    """The default cost functional: amplitudes, because their noise is the same in bright and dark pixels."""
    return losses.amplitude(model(batch.views), batch.counts, batch.mask)


def decaying(rate: float, steps: int, constant: float) -> optax.Schedule:
    """A constant rate for a fraction of the steps, then half a cosine down to a fiftieth: noise of the batches averages
    out.
    """
    flat = int(steps * constant)
    return optax.join_schedules(
        [optax.constant_schedule(rate), optax.cosine_decay_schedule(rate, max(steps - flat, 1), 0.02)], [flat]
    )


# ---------------------------------------------------------------------------------------------------- gradients
def _optax(model: Ptychography, epochs: int, task: Task, name: str) -> Solution:
    """Any optax optimiser with a decaying step."""
    steps = task.steps(epochs)
    rule = getattr(optax, name)(decaying(task.learning_rate, steps, task.constant))
    return _minimise(model, task, rule, task.unknowns, steps, task.batch_size)


def _minimise(
    model: Ptychography,
    task: Task,
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
        seed=task.seed,
        held_out=task.held_out,
        checkpoint=task.checkpoint,
        resume=task.resume and task.checkpoint is not None,
        console=task.console,
        label=task.label,
    )


def _with_waves(model: Ptychography, task: Task, rule: optax.GradientTransformation, epochs: int, batch_size: int):
    """A rule of its own for object and probe; Adam, as in the default engine, for what else is unknown."""
    steps = task.steps(epochs, batch_size)
    rate = task.learning_rate
    waves = [name for name in ("object", "probe") if name in task.unknowns]
    if not waves:
        raise InputError("this engine solves for object and probe; with neither unknown use adam")
    others = {
        name: optax.adam(decaying(rate * factor, steps, task.constant))
        for name, factor in task.unknowns.items()
        if name not in waves
    }
    return _minimise(model, task, rule, dict.fromkeys(waves, 1.0) | others, steps, batch_size)


def wave_curvature(
    model: Ptychography, batch: Batch, *, object_share: float = 0.05, probe_share: float = 0.05
) -> dict[str, Float[Array, "..."]]:
    """Curvature of the mean amplitude cost of a batch along each pixel of object and probe: `2 / pixels` times the sum
    over views of the light on the object's pixel, and of the object's intensity on the probe's.

    Each view's light is mixed with its maximum, `(1 - share) |P|^2 + share max |P|^2`, so that dark pixels move slowly
    (rPIE: Maiden, Johnson & Li 2017; a share of one is ePIE: Maiden & Rodenburg 2009).
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
    """Number of measured pixels in a batch."""
    views, rows, columns = batch.counts.shape
    if batch.mask is None:
        return views * rows * columns
    return jnp.sum(jnp.broadcast_to(batch.mask, batch.counts.shape), dtype=jnp.result_type(float))


def wave_rows(model: Ptychography, batch: Batch) -> Array:
    """The measured waves, scaled so that the squares of their changes bound the amplitude cost from above."""
    waves = model.waves(batch.views)
    waves = waves * jnp.sqrt(model.gain[batch.views])[:, None, None, None]
    if batch.mask is not None and waves.shape[-2:] == batch.counts.shape[-2:]:
        waves = jnp.where(jnp.broadcast_to(batch.mask, batch.counts.shape)[:, None], waves, 0)
    return waves * jnp.sqrt(2 / _measured(batch)).astype(waves.real.dtype)


def _pie(model: Ptychography, epochs: int, task: Task, share: float, step: float, friction: float = 0.0) -> Solution:
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


def _lsqml(model: Ptychography, epochs: int, task: Task) -> Solution:
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
def _sets(model: Ptychography, epochs: int, task: Task, rule: str, beta: float) -> Solution:
    """Difference map or RAAR on exit waves."""
    held = np.asarray(task.held_out, int)
    views = np.setdiff1d(np.arange(task.data["counts"].shape[0]), held)
    judge = (lambda found: _figure(found, task, held.size)) if held.size else None
    return project_waves(
        model,
        task.data,
        views,
        task.unknowns,
        rule=rule,
        beta=beta,
        steps=epochs,
        judge=judge,
        console=task.console,
        label=task.label,
    )


# ---------------------------------------------------------------------------------------------------- second order
def stabilised_rows(model: Ptychography, batch: Batch) -> Array:
    """Residuals `2 sqrt(p + 3/8) - 2 sqrt(n + 3/8)` of variance one (Anscombe 1948), zero where nothing was measured:
    unlike plain amplitudes their derivative stays finite in dark pixels.
    """
    prediction = model(batch.views)
    rows = 2 * (jnp.sqrt(prediction + 0.375) - jnp.sqrt(batch.counts.astype(prediction.dtype) + 0.375))
    return rows if batch.mask is None else jnp.where(batch.mask, rows, 0)


def _lm(model: Ptychography, epochs: int, task: Task) -> Solution:
    """Levenberg-Marquardt on all views; an epoch is one damped step of ten conjugate gradients."""
    if task.cost is not amplitude_cost and task.console:
        task.console.say("engine lm fits the counts alone, by their amplitudes; priors and other costs do not enter")
    found = levenberg_marquardt(
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
    return dataclasses.replace(found, history=scale * found.history, held_out=found.held_out * [1, scale])


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

"""`minimise`: the one optax loop."""

import dataclasses
import functools
import json
import os
import time
import zipfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh, PartitionSpec
from jaxtyping import Array, PyTree

from ... import sharding
from ..._cache import keep_compiled_programs
from ..._console import Console
from ..._model import Batch
from ...errors import InputError
from ..ending import Ending
from ..progress import Callback, Progress
from .feed import Feed, Fields, Plan, Sampler

__all__ = ["Solution", "minimise"]

Cost = Callable[[Any, Batch], Any]

# One object for all calls: a second minimisation of the same cost and shapes finds its compiled program again.
_DEFAULT_OPTIMISER = optax.adam(1e-2)


@dataclasses.dataclass(frozen=True)
class Solution:
    """What a minimisation gives back, also when it was interrupted or broke down.

    **Fields:** `value` (the model with its unknowns solved), `history` (the cost of every step), `held_out` (pairs of
    step and cost on the held-out views), `ending` (an `Ending`), `state` (what `resume` needs: optimiser state and
    step), `waited` (fraction of the time that went by waiting for files; 0 for data on the device), `detail` (step and
    unknown of the ending), `result` (ending and detail in one sentence).
    """

    value: Any
    history: np.ndarray
    held_out: np.ndarray
    ending: Ending
    state: Any = None
    waited: float = 0.0
    detail: str = ""

    @property
    def result(self) -> str:
        """Say how it ended, in one sentence."""
        return self.ending.sentence(self.detail)


def minimise(
    cost: Cost,
    model: Any,
    data: Any = None,
    optimiser: optax.GradientTransformation | None = None,
    *,
    steps: int | None = None,
    epochs: float | None = None,
    batch_size: int | None = None,
    unknowns: Sequence[str] | Mapping[str, Any] | Callable[[Any], Any] | None = None,
    project: Callable[[Any], Any] | None = None,
    held_out: Sequence[int] | np.ndarray | None = None,
    resident: float | None = None,
    mesh: Mesh | None = None,
    callback: Callback | None = None,
    checkpoint: str | Path | None = None,
    resume: bool | Any = False,
    seed: int = 0,
    chunk: int = 50,
    console: Console | None = None,
    label: str = "step",
) -> Solution:
    """Minimise a cost functional over the unknowns of a model.

    **Arguments:**

    - `cost`: any function `(model, batch) -> real scalar`; it should be a mean over the batch, so that its size does
      not depend on `batch_size`.
    - `model`: any pytree: a `diffrecon.Model`, a bare array.
    - `data`: a `Scan`, or a mapping of arrays whose first axis is the view (`{"counts": ..., "mask": ...}`; a `mask`
      with fewer axes than the rest is shared by all views). `None` for a cost that needs no data (its batch is then
      empty).
    - `optimiser`: any optax optimiser or chain, also one with a line search; `optax.adam(1e-2)` by default.
    - `steps` or `epochs`: how long. An epoch sees every view once (its last batch is filled up with views of its
      first).
    - `batch_size`: views a step, sampled on the device without replacement; all views by default.
    - `unknowns`: names of the fields to solve for (`("object", "probe")`, dotted for nested ones), or a mapping from
      names to a step-size factor or to an optimiser of their own, or a function `model -> leaf or tuple of leaves`. By
      default the model's own `unknowns`, or all floating-point arrays. A plain number (a distance) may be named too.
    - `project`: a function `model -> model` applied after each step (constraints).
    - `held_out`: views never used in a step; the cost on them is shown and recorded.
    - `resident`: bytes of data that may lie on the device. Frames in files that take more are read ahead of the steps
      that need them, block by block in a thread of its own, in their own integer type, with the same views in the same
      steps. By default half of what is free; 0 reads everything ahead. Needs `batch_size`.
    - `mesh`: devices to split the views over (`diffrecon.sharding.data_mesh()`, the default where there are several).
      Or a `slice_mesh()`: arrays of the model and of `data` that `sharding.shard_slices` has split stay so, the rest is
      on every device, and what the cost sums over slices (the gradient of shifts that they share) is summed over
      devices; the projector is then `sharding.OverSlices`.
    - `callback`: called with a `Progress` between compiled chunks of `chunk` steps; returning `True` stops.
    - `checkpoint`: file that keeps the state, written between chunks at most once a minute, and at the end or Ctrl-C;
      `resume=True` goes on from it to the same numbers as an uninterrupted run. `resume` may also be `Solution.state`.
    - `seed`: of the sampling.
    - `console`: shows progress (`diffrecon.Console()`); silent by default.

    **Returns:** a `Solution`. Ctrl-C returns the best state so far. A cost or gradient that is not finite stops the
    loop with the last finite state, and `detail` says in which unknown and step.

    **Raises:** `InputError` for names that the model does not have, a checkpoint of another problem, data that neither
    fit nor can be read in batches, or a file that fails while it is read (after the checkpoint is written).

    Complex gradients are conjugated here, and nowhere else: jax differentiates `f(z)` as `df/dx - i df/dy`, and
    steepest descent needs `df/dx + i df/dy`.

    ```python
    target = jnp.arange(3.0)
    cost = lambda x, batch: jnp.sum((x - target) ** 2)
    solution = minimise(cost, jnp.zeros(3), optimiser=optax.sgd(0.3), steps=50)
    assert jnp.allclose(solution.value, target)
    ```
    """
    keep_compiled_programs()
    console = console if console and jax.process_index() == 0 else Console(quiet=True)
    mesh = mesh if mesh is not None else sharding.data_mesh()
    model, chosen = _Unknowns.choose(model, unknowns)
    sampler = Sampler.make(data, batch_size, held_out, seed).only_read(cost, model)
    total = sampler.total_steps(steps, epochs)

    feed = sampler.feed(mesh, resident)
    free, fixed = sharding.replicate(eqx.partition(model, chosen.mask), mesh)
    rule = chosen.rule(optimiser or _DEFAULT_OPTIMISER, free)
    problem = _Problem(cost, rule, project, sampler.plan, chosen.scales, mesh, _places(free, mesh))
    run = _Run(free, sharding.replicate(rule.init(free), mesh), 0, [], [])
    if resume:
        run = _restore(run, resume if not isinstance(resume, bool) else checkpoint, mesh)

    return _loop(problem, run, fixed, feed, chosen, total, chunk, callback, checkpoint, console, label)


# ---------------------------------------------------------------------------------------- the compiled part
@dataclasses.dataclass(frozen=True)
class _Problem:
    """Everything that is compiled in: functions and small numbers, never data."""

    cost: Cost
    rule: optax.GradientTransformationExtraArgs
    project: Callable[[Any], Any] | None
    plan: Plan
    scales: tuple[float, ...]
    mesh: Mesh | None
    places: tuple[Any, ...] = ()  # where each unknown lies; none on one device


def _places(free: PyTree, mesh: Mesh | None) -> tuple[Any, ...]:
    return () if mesh is None else tuple(leaf.sharding for leaf in jax.tree.leaves(free))


@eqx.filter_jit
def _run_chunk(problem: _Problem, free, state, fixed, fields: Fields, first, count, size: int):
    """`count` (at most `size`) steps from step number `first`, or as many as stay finite.

    Returns the state, the losses, how many steps were done, and whether the cost and each unknown were finite in the
    last one.
    """
    plan = problem.plan

    def body(carry):
        i, free, state, order, losses, _ = carry
        order = plan.refresh(order, first + i)
        views, per_view, shared = plan.batch(fields, order, first + i, i)
        value_fn = _value_function(problem, fixed, views, per_view, shared)
        loss, gradient = jax.value_and_grad(value_fn)(free)
        gradient = jax.tree.map(jnp.conj, gradient)
        # Rules that look at the model itself (`preconditioned`, `optimal_step`) get it with the batch.
        updates, new_state = problem.rule.update(
            gradient,
            state,
            free,
            value=loss,
            grad=gradient,
            value_fn=_line_search(value_fn),
            model=eqx.combine(free, fixed),
            batch=Batch(views, per_view | shared),
        )
        new = _moved(problem, free, updates, fixed)
        finite = _finite(loss, gradient, new)
        good = jnp.all(finite)
        free, state = jax.tree.map(lambda n, o: jnp.where(good, n, o), (new, new_state), (free, state))
        if problem.places:
            leaves, structure = jax.tree.flatten(free)
            free = jax.tree.unflatten(structure, map(jax.lax.with_sharding_constraint, leaves, problem.places))
        return i + good, free, state, order, losses.at[i].set(loss.astype(losses.dtype)), finite

    leaves = jax.tree.leaves(free)
    losses = jnp.zeros(size, jnp.result_type(*[leaf.real.dtype for leaf in leaves]))
    start = (jnp.zeros_like(count), free, state, plan.order(first), losses, jnp.ones(1 + len(leaves), bool))
    done, free, state, _, losses, finite = jax.lax.while_loop(lambda c: (c[0] < count) & jnp.all(c[-1]), body, start)
    return free, state, losses, done, finite


def _value_function(problem: _Problem, fixed, views, per_view: dict[str, Array], shared: dict[str, Array]):
    """The cost of a batch as a function of the free unknowns; on a mesh every device works on its share of the views.

    The share is cut by hand (`shard_map`), because the compiler lets every device do all FFTs of a batch. Each device
    differentiates its own mean cost, and cost and gradient are averaged; views that do not divide are worked on by all.
    """

    def value(free, fixed, views, per_view, shared):
        return jnp.real(problem.cost(eqx.combine(free, fixed), Batch(views, per_view | shared)))

    # On split slices the compiler sums over devices; the loop over slices is cut by `sharding.OverSlices`.
    mesh = None if sharding.splits_slices(problem.mesh) else problem.mesh
    count = views.shape[0]
    even = 0 if mesh is None else count // mesh.size * mesh.size
    if mesh is None or even == 0:
        return lambda free: value(free, fixed, views, per_view, shared)

    arrays, plain = eqx.partition(fixed, eqx.is_array)
    all_of, part_of = PartitionSpec(), PartitionSpec("data")

    def on_device(free, arrays, views, per_view, shared):
        own = jax.value_and_grad(value)(free, eqx.combine(arrays, plain), views, per_view, shared)
        return jax.lax.pmean(own, "data")

    on_mesh = jax.shard_map(
        on_device, mesh=mesh, in_specs=(all_of, all_of, part_of, part_of, all_of), out_specs=all_of, check_vma=False
    )

    def with_gradient(free):
        cut = lambda part: (views[part], {k: v[part] for k, v in per_view.items()}, shared)
        result = on_mesh(free, arrays, *cut(slice(even)))
        if even == count:
            return result
        rest = jax.value_and_grad(value)(free, fixed, *cut(slice(even, count)))
        return jax.tree.map(lambda a, b: (even * a + (count - even) * b) / count, result, rest)

    # A derivative of its own, so that the gradient inside is the gradient for a line search too.
    value_fn = jax.custom_vjp(lambda free: with_gradient(free)[0])
    value_fn.defvjp(with_gradient, lambda gradient, scale: (jax.tree.map(lambda g: scale * g, gradient),))
    return value_fn


def _line_search(value_fn):
    """A cost for line searches of optax, which insist that somebody takes every further argument of a rule."""
    return lambda free, model=None, batch=None: value_fn(free)


def _moved(problem: _Problem, free, updates, fixed):
    """The unknowns after their updates, each times its step-size factor, and the projection."""
    leaves, structure = jax.tree.flatten(updates)
    scaled = [u * jnp.asarray(s, u.real.dtype) for u, s in zip(leaves, problem.scales, strict=True)]
    new = optax.apply_updates(free, jax.tree.unflatten(structure, scaled))
    if problem.project is None:
        return new
    projected = problem.project(eqx.combine(new, fixed))
    return eqx.filter(projected, jax.tree.map(lambda x: x is not None, new, is_leaf=lambda x: x is None))


def _finite(loss, gradient, new) -> Array:
    """Flags: the cost, then each unknown with its gradient."""
    whole = lambda x: jnp.all(jnp.isfinite(x))
    pairs = zip(jax.tree.leaves(gradient), jax.tree.leaves(new), strict=True)
    return jnp.stack([jnp.isfinite(loss)] + [whole(g) & whole(n) for g, n in pairs])


@eqx.filter_jit
def _cost_of(cost: Cost, free, fixed, batch: Batch):
    return jnp.real(cost(eqx.combine(free, fixed), batch))


# ---------------------------------------------------------------------------------------- choice of unknowns
@dataclasses.dataclass(frozen=True)
class _Unknowns:
    """Which leaves of the model move, their names, their step-size factors and their own optimisers."""

    mask: PyTree
    names: tuple[str, ...]
    scales: tuple[float, ...]
    own: Mapping[str, optax.GradientTransformation]
    labels: tuple[str, ...]

    @classmethod
    def choose(cls, model: Any, unknowns: Any) -> tuple[Any, "_Unknowns"]:
        """The model with arrays where it has NumPy arrays or numbers to solve for, and what is free in it."""
        if unknowns is None:
            unknowns = getattr(model, "unknowns", None)
        if callable(unknowns):
            unknowns = _names_of(model, unknowns)
        wanted = (
            None
            if unknowns is None
            else (dict(unknowns) if isinstance(unknowns, Mapping) else dict.fromkeys(unknowns, 1.0))
        )
        model = jax.tree_util.tree_map_with_path(
            lambda path, leaf: _as_array(leaf, _label(_dotted(path), wanted)), model
        )
        leaves, structure = jax.tree_util.tree_flatten_with_path(model)
        names = {_dotted(path): _label(_dotted(path), wanted) for path, leaf in leaves if eqx.is_inexact_array(leaf)}
        missing = set(wanted or ()) - set(names.values())
        if missing:
            raise InputError(
                f"the model has no floating-point field {min(missing)!r} to solve for (it has {', '.join(names)})"
            )
        chosen = {name: label for name, label in names.items() if label is not None}
        if not chosen:
            raise InputError("the model has no floating-point array to solve for")
        values: dict[str, Any] = wanted or {}
        factors = {k: float(v) for k, v in values.items() if isinstance(v, int | float)}
        return model, cls(
            jax.tree.unflatten(structure, [_dotted(path) in chosen for path, _ in leaves]),
            tuple(name or "model" for name in chosen),
            tuple(factors.get(label, 1.0) for label in chosen.values()),
            {k: v for k, v in values.items() if k not in factors},
            tuple(chosen.values()),
        )

    def rule(self, optimiser: optax.GradientTransformation, free: PyTree) -> optax.GradientTransformationExtraArgs:
        """The optimiser for all, or one for each of those that have their own."""
        is_complex = any(jnp.iscomplexobj(leaf) for leaf in jax.tree.leaves(free))
        rule = _joint_rule(optimiser, tuple(self.own.items()), self.labels)
        return _in_reals(rule) if is_complex and _has_curvature(rule, free) else rule


@functools.lru_cache(maxsize=64)
def _joint_rule(optimiser, own: tuple, labels: tuple[str, ...]) -> optax.GradientTransformationExtraArgs:
    """Cached, because a new rule is a new program to compile."""
    if not own:
        return optax.with_extra_args_support(optimiser)
    names = dict(own)
    tags = [label if label in names else "" for label in labels]
    rules: dict[Any, optax.GradientTransformation] = {"": optimiser} | names
    return optax.multi_transform(rules, lambda tree: jax.tree.unflatten(jax.tree.structure(tree), tags))


def _has_curvature(rule: optax.GradientTransformationExtraArgs, free: PyTree) -> bool:
    """Tell whether an optimiser takes inner products of gradients (L-BFGS, line searches)."""
    kinds = (optax.ScaleByLBFGSState, optax.ScaleByZoomLinesearchState, optax.ScaleByBacktrackingLinesearchState)
    special = lambda node: isinstance(node, kinds)
    return any(special(node) for node in jax.tree.leaves(jax.eval_shape(rule.init, free), is_leaf=special))


@functools.lru_cache(maxsize=64)
def _in_reals(rule: optax.GradientTransformationExtraArgs) -> optax.GradientTransformationExtraArgs:
    """A rule that sees every complex unknown as pairs of reals: those of optax with inner products are wrong on complex
    numbers.
    """

    def split(tree):
        return jax.tree.map(lambda z: jnp.stack([z.real, z.imag], -1) if jnp.iscomplexobj(z) else z, tree)

    def join(tree, like):
        return jax.tree.map(
            lambda p, z: jax.lax.complex(p[..., 0], p[..., 1]) if jnp.iscomplexobj(z) else p, tree, like
        )

    def init(params):
        return rule.init(split(params))

    def update(updates, state, params=None, **extra):
        value_fn = _line_search(lambda pairs: extra["value_fn"](join(pairs, params)))
        pairs = split(updates)
        moves, state = rule.update(pairs, state, split(params), **extra | {"grad": pairs, "value_fn": value_fn})
        return join(moves, params), state

    return optax.GradientTransformationExtraArgs(init, update)


def _as_array(leaf: Any, label: str | None) -> Any:
    """NumPy arrays as jax arrays, and numbers too where they are unknowns; of a definite type, as loops want them."""
    if isinstance(leaf, np.ndarray) or (label and isinstance(leaf, float | np.floating)):
        leaf = jnp.asarray(leaf)
    return jnp.asarray(leaf, leaf.dtype) if isinstance(leaf, jax.Array) else leaf


def _dotted(path: tuple) -> str:
    return ".".join(str(getattr(k, "name", getattr(k, "key", getattr(k, "idx", k)))) for k in path)


def _label(path: str, wanted: Mapping[str, Any] | None) -> str | None:
    """The entry of `wanted` that a leaf belongs to; everything belongs to "" where nothing is said."""
    if wanted is None:
        return ""
    matches = [name for name in wanted if path == name or path.startswith(name + ".")]
    return max(matches, key=len) if matches else None


def _names_of(model: Any, where: Callable[[Any], Any]) -> list[str]:
    """Names of the leaves that a where-function picks."""
    leaves, structure = jax.tree_util.tree_flatten_with_path(model)
    marks = [object() for _ in leaves]
    picked = jax.tree.leaves(where(jax.tree.unflatten(structure, marks)))
    names = [_dotted(path) for (path, _), mark in zip(leaves, marks, strict=True) if any(mark is p for p in picked)]
    return names


# ---------------------------------------------------------------------------------------- the loop on the host
@dataclasses.dataclass
class _Run:
    free: PyTree
    state: PyTree
    step: int
    history: list[float]
    held_out: list[tuple[int, float]]


def _loop(problem, run, fixed, feed: Feed, chosen, total, chunk, callback, checkpoint, console, label) -> Solution:
    progress = console.progress(total, label)
    progress.first = run.step
    best, best_figure = run.free, np.inf
    ending, detail = Ending.DONE, f"{total} steps"
    saved = started = time.monotonic()
    pieces = feed.pieces(run.step, total, chunk)
    try:
        while run.step < total:
            losses, finite = _advance(problem, run, fixed, pieces, min(chunk, total - run.step))
            if not finite.all():
                ending, detail = Ending.NOT_FINITE, _not_finite(finite, chosen.names, run.step)
                break
            held_figure = _held_figure(problem.cost, run.free, fixed, feed)
            if held_figure is not None:
                run.held_out.append((run.step, held_figure))
            figure = float(losses.mean()) if held_figure is None else held_figure
            if figure < best_figure:
                best, best_figure = run.free, figure
            shown = {"loss": float(losses.mean())} | ({"held_out": held_figure} if held_figure is not None else {})
            progress.update(run.step, **shown)
            if checkpoint and time.monotonic() - saved > 60 and run.step < total:
                _save(run, checkpoint)
                saved = time.monotonic()
            if callback is not None:
                report = Progress(
                    run.step,
                    total,
                    eqx.combine(run.free, fixed),
                    shown["loss"],
                    held_figure,
                    time.monotonic() - started,
                )
                if callback(report) is True:
                    ending, detail = Ending.STOPPED, f"after {run.step} steps"
                    break
    except KeyboardInterrupt:
        solution = _solution(best, fixed, Ending.INTERRUPTED, run, feed.waited, f"after {run.step} steps")
        console.say(solution.result)
        if checkpoint:
            _save(run, checkpoint)
        return solution
    except InputError:
        if checkpoint and run.step:
            _save(run, checkpoint)
        raise
    finally:
        pieces.close()
    if checkpoint:
        _save(run, checkpoint)
    solution = _solution(run.free, fixed, ending, run, feed.waited, detail)
    if not ending.finished:
        console.say(solution.result)
    return solution


def _advance(problem: _Problem, run: _Run, fixed, pieces, count: int) -> tuple[np.ndarray, np.ndarray]:
    """`count` steps, or as many as stay finite; their losses, and what was finite in the last one."""
    first, before, finite = run.step, len(run.history), np.ones(1, bool)
    while run.step < first + count and finite.all():
        steps, size, fields = next(pieces)
        free, state, losses, done, finite = _run_chunk(
            problem, run.free, run.state, fixed, fields, jnp.asarray(run.step), jnp.asarray(steps), size
        )
        losses, finite = np.asarray(losses)[: int(done)], np.asarray(finite)
        run.free, run.state, run.step = free, state, run.step + losses.size
        run.history += losses.tolist()
    return np.asarray(run.history[before:]), finite


def _held_figure(cost: Cost, free, fixed, feed: Feed) -> float | None:
    """The cost on the held-out views, a mean over them."""
    costs = [(count, float(_cost_of(cost, free, fixed, batch))) for count, batch in feed.held_batches()]
    return sum(n * c for n, c in costs) / sum(n for n, _ in costs) if costs else None


def _solution(free: PyTree, fixed: PyTree, ending: Ending, run: _Run, waited: float, detail: str) -> Solution:
    history, held_out = np.asarray(run.history), np.asarray(run.held_out).reshape(-1, 2)
    return Solution(eqx.combine(free, fixed), history, held_out, ending, run, waited, detail)


def _not_finite(finite: np.ndarray, names: tuple[str, ...], step: int) -> str:
    """Say which unknown broke down, and in which step."""
    bad = [name for name, good in zip(names, finite[1:], strict=True) if not good]
    what = f"the gradient or the update of {', '.join(bad)}" if bad and finite[0] else "the cost"
    where = f" (nor the gradient of {', '.join(bad)})" if bad and not finite[0] else ""
    return f"step {step}: {what}{where}; try a smaller learning rate"


# ---------------------------------------------------------------------------------------- checkpoints
def _save(run: _Run, path: str | Path) -> None:
    """Write the state beside its final name and rename it, so that a killed run leaves the previous one."""
    if jax.process_index() != 0:
        return
    path = Path(path)
    leaves: dict[str, Any] = {
        f"leaf_{i}": np.asarray(leaf) for i, leaf in enumerate(jax.tree.leaves((run.free, run.state)))
    }
    header = json.dumps({"step": run.step, "history": run.history, "held_out": run.held_out})
    temporary = path.with_name(path.name + ".part")
    try:
        with open(temporary, "wb") as file:
            np.savez(file, header=np.asarray(header), **leaves)
        os.replace(temporary, path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise InputError(f"{path}: the checkpoint cannot be written: {error.strerror}") from error


def _restore(run: _Run, source: Any, mesh: Mesh | None) -> _Run:
    """The state from a checkpoint file or from `Solution.state`."""
    if isinstance(source, _Run):
        return dataclasses.replace(source, history=list(source.history), held_out=list(source.held_out))
    if source is None:
        raise InputError("resume=True needs checkpoint=path")
    sharding.wait_for_all()
    if not Path(source).is_file():
        return run
    leaves, structure = jax.tree.flatten((run.free, run.state))
    try:
        with open(source, "rb") as file, np.load(file, allow_pickle=False) as stored:
            header = json.loads(str(stored["header"]))
            values = [stored[f"leaf_{i}"] for i in range(len(stored.files) - 1)]
    except (OSError, EOFError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise InputError(f"{source}: not a checkpoint of diffrecon ({error})") from error
    same = len(values) == len(leaves) and all(v.shape == jnp.shape(w) for v, w in zip(values, leaves, strict=True))
    if not same:
        raise InputError(
            f"{source}: a checkpoint of another problem (other unknowns, shapes or optimiser); delete it to start anew"
        )
    placed = [jnp.asarray(v, jnp.result_type(w)) for v, w in zip(values, leaves, strict=True)]
    free, state = sharding.replicate(jax.tree.unflatten(structure, placed), mesh)
    return _Run(free, state, header["step"], header["history"], [tuple(h) for h in header["held_out"]])

"""`minimise`: the one optax loop."""

import dataclasses
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh
from jaxtyping import PyTree

from ... import __version__, sharding
from ..._cache import keep_compiled_programs
from ..._console import Console
from ..._identity import described, digest
from ...errors import InputError
from ..ending import Ending
from ..journal import Journal
from ..progress import Callback, Progress
from .compiled import Cost, Problem, cost_of, places_of, run_chunk
from .feed import Feed, Sampler
from .unknowns import Unknowns

__all__ = ["Solution", "minimise"]

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
    if resume is True and checkpoint is None:
        raise InputError("resume=True needs checkpoint=path")
    model, free_in = Unknowns.choose(model, unknowns)
    sampler = Sampler.make(data, batch_size, held_out, seed).only_read(cost, model)
    total = sampler.total_steps(steps, epochs)

    feed = sampler.feed(mesh, resident)
    free, fixed = sharding.replicate(eqx.partition(model, free_in.mask), mesh)
    rule = free_in.rule(optimiser or _DEFAULT_OPTIMISER, free)
    problem = Problem(cost, rule, project, sampler.plan, free_in.scales, mesh, places_of(free, mesh))
    run = _Run(free, sharding.replicate(rule.init(free), mesh), 0, [], [])
    if resume is True:
        sharding.wait_for_all()
    told = {} if checkpoint is None else run.identity(cost, rule, fixed, free_in, sampler)
    journal = Journal(checkpoint, told, resume is True)
    run = run.resumed(resume, journal, mesh)
    return _Loop(problem, run, fixed, feed, free_in.names, total, chunk, callback, journal, console, label).solve()


@dataclasses.dataclass
class _Run:
    """Where the loop stands: also what `resume` takes."""

    free: PyTree
    state: PyTree
    step: int
    history: list[float]
    held_out: list[tuple[int, float]]

    def arrays(self) -> dict[str, Any]:
        """Give what a checkpoint keeps."""
        leaves = {f"leaf {i}": leaf for i, leaf in enumerate(jax.tree.leaves((self.free, self.state)))}
        return leaves | {"history": self.history, "held_out": np.reshape(self.held_out, (-1, 2))}

    def resumed(self, source: Any, journal: Journal, mesh: Mesh | None) -> "_Run":
        """The state of `Solution.state` or of a journal, where there is one."""
        if isinstance(source, _Run):
            return dataclasses.replace(source, history=list(source.history), held_out=list(source.held_out))
        kept = journal.read(0)
        if kept is None:
            return self
        leaves, structure = jax.tree.flatten((self.free, self.state))
        placed = [jnp.asarray(kept[f"leaf {i}"], jnp.result_type(leaf)) for i, leaf in enumerate(leaves)]
        free, state = sharding.replicate(jax.tree.unflatten(structure, placed), mesh)
        history, held_out = kept["history"].tolist(), [(int(step), cost) for step, cost in kept["held_out"]]
        return _Run(free, state, len(history), history, held_out)

    def identity(self, cost: Cost, rule: Any, fixed: PyTree, unknowns: Unknowns, sampler: Sampler) -> dict[str, str]:
        """Name what a checkpoint belongs to: cost, optimiser, unknowns, shapes of all that is carried, data, draws."""
        carried = [(jnp.shape(a), str(jnp.result_type(a))) for a in jax.tree.leaves((self.free, self.state))]
        data = {**sampler.per_view, **sampler.shared}
        return {
            "version": __version__,
            "cost": described(cost),
            "what is fixed in the model": described(fixed),
            "optimiser": described(rule),
            "unknowns": described((unknowns.names, unknowns.scales)),
            "shapes of the unknowns": described(carried),
            "batch_size": described(sampler.plan.batch_size),
            "seed": described(sampler.plan.seed),
            "held_out": described(sampler.held.tolist()),
        } | {f"data.{name}": digest(values) for name, values in sorted(data.items())}


@dataclasses.dataclass
class _Loop:
    """The loop on the host: chunks of compiled steps, and between them figures, callback and checkpoint."""

    problem: Problem
    run: _Run
    fixed: PyTree
    feed: Feed
    names: tuple[str, ...]
    total: int
    chunk: int
    callback: Callback | None
    journal: Journal
    console: Console
    label: str

    def solve(self) -> Solution:
        """Go on until all steps are done, or something ends it."""
        run = self.run
        self.progress = self.console.progress(self.total, self.label)
        self.progress.first = run.step
        self.best, self.best_figure = run.free, np.inf
        self.saved = self.started = time.monotonic()
        pieces = self.feed.pieces(run.step, self.total, self.chunk)
        try:
            ending, detail = self._chunks(pieces)
        except KeyboardInterrupt:
            ending, detail = Ending.INTERRUPTED, f"after {run.step} steps"
        except InputError:
            self._keep()
            raise
        finally:
            pieces.close()
        self._keep()
        free = self.best if ending is Ending.INTERRUPTED else run.free
        history, held_out = np.asarray(run.history), np.asarray(run.held_out).reshape(-1, 2)
        model = eqx.combine(free, self.fixed)
        solution = Solution(model, history, held_out, ending, run, self.feed.waited, detail)
        if not ending.finished:
            self.console.say(solution.result)
        return solution

    def _chunks(self, pieces: Any) -> tuple[Ending, str]:
        run = self.run
        while run.step < self.total:
            losses, finite = self._advance(pieces)
            if not finite.all():
                bad = self.feed.sampler.not_finite()
                if bad and not run.step:
                    raise InputError(f"{bad}; mask such data (mask=..., True where measured) or mend them")
                return Ending.NOT_FINITE, _not_finite(finite, self.names, run.step, bad)
            loss, held = float(losses.mean()), self._held_out()
            run.held_out += [] if held is None else [(run.step, held)]
            if (loss if held is None else held) < self.best_figure:
                self.best, self.best_figure = run.free, loss if held is None else held
            self.progress.update(run.step, **{"loss": loss} | ({} if held is None else {"held_out": held}))
            if time.monotonic() - self.saved > 60 and run.step < self.total:
                self._keep()
            if self.callback is not None:
                value, seconds = eqx.combine(run.free, self.fixed), time.monotonic() - self.started
                if self.callback(Progress(run.step, self.total, value, loss, held, seconds)) is True:
                    return Ending.STOPPED, f"after {run.step} steps"
        return Ending.DONE, f"{self.total} steps"

    def _advance(self, pieces: Any) -> tuple[np.ndarray, np.ndarray]:
        """A chunk of steps, or as many as stay finite; their losses, and what was finite in the last one."""
        run, before, finite = self.run, len(self.run.history), np.ones(1, bool)
        last = min(run.step + self.chunk, self.total)
        while run.step < last and finite.all():
            steps, size, fields = next(pieces)
            first, count = jnp.asarray(run.step), jnp.asarray(steps)
            carried = run_chunk(self.problem, run.free, run.state, self.fixed, fields, first, count, size)
            run.free, run.state, losses, done, finite = carried
            losses, finite = np.asarray(losses)[: int(done)], np.asarray(finite)
            run.step += losses.size
            run.history += losses.tolist()
        return np.asarray(run.history[before:]), finite

    def _held_out(self) -> float | None:
        """The cost on the held-out views, a mean over them."""
        cost = lambda batch: float(cost_of(self.problem.cost, self.run.free, self.fixed, batch))
        costs = [(count, cost(batch)) for count, batch in self.feed.held_batches()]
        return sum(n * c for n, c in costs) / sum(n for n, _ in costs) if costs else None

    def _keep(self) -> None:
        if self.journal.path is not None and self.run.step:
            self.journal.write(0, self.run.arrays())
        self.saved = time.monotonic()


def _not_finite(finite: np.ndarray, names: tuple[str, ...], step: int, data: str) -> str:
    """Say which unknown broke down, in which step, and whether the data are to blame."""
    bad = [name for name, good in zip(names, finite[1:], strict=True) if not good]
    what = f"the gradient or the update of {', '.join(bad)}" if bad and finite[0] else "the cost"
    where = f" (nor the gradient of {', '.join(bad)})" if bad and not finite[0] else ""
    return f"step {step}: {what}{where}; {data or 'try a smaller learning rate'}"

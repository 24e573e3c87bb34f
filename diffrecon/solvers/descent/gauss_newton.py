"""Levenberg-Marquardt: a second-order step for any model, without matrices and without learning rates."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, PyTree

from ..._cache import keep_compiled_programs
from ..._console import Console
from ..._model import Batch
from ...errors import InputError
from ..conjugate_gradients import conjugate_gradients, inner
from ..ending import Ending
from ..progress import Callback, Progress
from .blocks import Blocks, Residual, conjugate, half_square, prior_rows, scaling, weighted_rows
from .feed import Sampler
from .minimise import Solution
from .unknowns import Unknowns

__all__ = ["levenberg_marquardt"]

_TOLERANCE = 0.03  # of conjugate gradients: the steps of a linear model need no more


def levenberg_marquardt(
    residual: Residual,
    model: Any,
    data: Any = None,
    *,
    steps: int = 10,
    cg_steps: int = 10,
    prior: Callable[[Any], PyTree] | None = None,
    unknowns: Any = None,
    project: Callable[[Any], Any] | None = None,
    held_out: Any = None,
    damping: float = 1e-2,
    tolerance: float = 1e-4,
    block_size: int = 16,
    probes: int = 4,
    callback: Callback | None = None,
    seed: int = 0,
    console: Console | None = None,
    label: str = "Levenberg-Marquardt step",
) -> Solution:
    """Minimise `1/2 sum |r|^2` of a residual by damped Gauss-Newton steps.

    Each step solves `(J'J + damping D) dx = -J'r` by at most `cg_steps` preconditioned conjugate gradients and is taken
    if it lowers the cost; the damping follows the ratio of actual and predicted decrease (Marquardt 1963; Nielsen
    1999). The scaling D, which is also the preconditioner, is the diagonal of J'J, estimated from J'w of `probes`
    random signs w (Bekas, Kokiopoulou & Saad 2007): object, probe, positions and background find their scales by
    themselves.

    **Arguments:** `residual` is a function `(model, batch) -> real array or pytree of arrays`, one row a view, such as
    `sqrt(model(views)) - sqrt(counts)`; `prior` is a function `model -> residuals` added once (not a batch). `data`,
    `unknowns`, `held_out`, `project`, `callback`, `console` as in `minimise`. `block_size` views are worked on at a
    time, so that memory does not grow with the scan; small blocks stay in the processor's cache, and one block of all
    views is linearised once a step. `probes=0` leaves D = 1, for unknowns that are whitened already. The loop ends
    when the cost falls by less than `tolerance` of itself.

    **Returns:** a `Solution` whose history is the cost divided by the number of views.

    **Cost:** a step is `cg_steps + probes / steps + 2` products with J and its transpose, each about twice a gradient.

    ```python
    solution = levenberg_marquardt(lambda x, batch: batch.y - x**2, jnp.ones(3), {"y": jnp.full((4, 3), 4.0)}, steps=8)
    assert jnp.allclose(solution.value, 2.0, atol=1e-3)
    ```
    """
    keep_compiled_programs()
    console = console or Console(quiet=True)
    model, chosen = Unknowns.choose(model, unknowns)
    sampler = Sampler.make(data, None, held_out, seed).only_read(residual, model)
    feed = sampler.feed(None, np.inf)
    blocks = Blocks.make((feed.fields.per_view, feed.fields.shared), np.asarray(sampler.plan.views), block_size)
    free, fixed = eqx.partition(model, chosen.mask)
    held = list(feed.held_batches())
    problem = (residual, prior)
    progress = console.progress(steps, label)
    history: list[float] = []
    held_out_history: list[tuple[int, float]] = []
    ending, detail = Ending.DONE, f"{steps} steps"
    views = max(len(sampler.plan.views), 1)

    cost = float(_cost(problem, free, fixed, blocks))
    if not np.isfinite(cost):
        raise InputError("the cost of the first guess is not finite")
    rescale = lambda step: scaling(problem, free, fixed, blocks, jax.random.key(seed + step), probes)
    scale = rescale(0) if probes else jax.tree.map(lambda a: jnp.ones(a.shape, a.real.dtype), free)
    grow = 2.0
    try:
        for step in range(1, steps + 1):
            if probes and step in (3, 8, 20):
                scale = rescale(step)
            trial, predicted = _step(problem, free, fixed, blocks, scale, jnp.asarray(damping), jnp.asarray(cg_steps))
            if project is not None:
                trial = _projected(project, trial, fixed)
            new = float(_cost(problem, trial, fixed, blocks))
            ratio = (cost - new) / max(float(predicted), 1e-30)
            # Equal costs: the step is below what the cost's precision shows, and the linear model knows better.
            accepted = np.isfinite(new) and new <= cost
            if accepted:
                decrease = (cost - new) / max(cost, 1e-30)
                free, cost = trial, new
                damping = damping * max(1 / 3, 1 - (2 * ratio - 1) ** 3)
                grow = 2.0
            else:
                damping, grow = damping * grow, grow * 2
                decrease = np.inf
            history.append(cost / views)
            shown = {"loss": cost / views}
            figure = None
            if held:
                total = sum(float(half_square(residual(eqx.combine(free, fixed), b))) for _, b in held)
                figure = shown["held_out"] = total / sampler.held.size
                held_out_history.append((step, figure))
            progress.update(step, **shown)
            report = Progress(step, steps, eqx.combine(free, fixed), cost / views, figure, 0.0)
            if callback is not None and callback(report) is True:
                ending, detail = Ending.STOPPED, f"after {step} steps"
                break
            if decrease < tolerance:
                ending, detail = Ending.CONVERGED, f"the cost fell by {decrease:.1e} of itself in step {step}"
                break
            if damping > 1e8:
                ending, detail = Ending.STUCK, f"after {step} steps"
                break
    except KeyboardInterrupt:
        ending, detail = Ending.INTERRUPTED, f"after {len(history)} steps"
        console.say(ending.sentence(detail))
    held_out_costs = np.asarray(held_out_history).reshape(-1, 2)
    return Solution(eqx.combine(free, fixed), np.asarray(history), held_out_costs, ending, detail=detail)


# ---------------------------------------------------------------------------------------- compiled
@eqx.filter_jit
def _cost(problem, free, fixed, blocks: Blocks) -> Array:
    residual, prior = problem
    data = blocks.sum(lambda batch, weight: half_square(weighted_rows(residual, free, fixed, batch, weight)))
    return data + half_square(prior_rows(prior, free, fixed))


@eqx.filter_jit
def _step(problem, free, fixed, blocks: Blocks, scale: PyTree, damping: Array, cg_steps: Array):
    """One damped Gauss-Newton trial: the new unknowns and the decrease of the cost that the linear model predicts."""
    residual, prior = problem

    if blocks.views.shape[0] == 1:
        # J of all rows at once: what it is made of stays in memory, instead of being computed for every product.
        views, per_view, weight = jax.tree.map(lambda a: a[0], (blocks.views, blocks.per_view, blocks.weight))
        batch = Batch(views, per_view | blocks.shared)
        rows = lambda f: (weighted_rows(residual, f, fixed, batch, weight), prior_rows(prior, f, fixed))
        value, forward = jax.linearize(rows, free)
        transposed = jax.linear_transpose(forward, free)
        gradient = conjugate(transposed(value)[0])
        product = lambda x: transposed(forward(x))[0]
    else:

        def gradient_of(batch, weight):
            rows, pull = jax.vjp(lambda f: weighted_rows(residual, f, fixed, batch, weight), free)
            return pull(rows)[0]

        def product(x):
            of_block = lambda batch, weight: _normal_of_block(
                lambda f: weighted_rows(residual, f, fixed, batch, weight), free, x
            )
            of_prior = _normal_of_block(lambda f: prior_rows(prior, f, fixed), free, x)
            return jax.tree.map(jnp.add, blocks.sum(of_block), of_prior)

        rows, pull = jax.vjp(lambda f: prior_rows(prior, f, fixed), free)
        gradient = conjugate(jax.tree.map(jnp.add, blocks.sum(gradient_of), pull(rows)[0]))

    def normal(x):
        return jax.tree.map(lambda t, s, v: jnp.conj(t) + (damping * s).astype(v.real.dtype) * v, product(x), scale, x)

    right = jax.tree.map(jnp.negative, gradient)
    divide = lambda r: jax.tree.map(jnp.divide, r, scale)
    step, left = conjugate_gradients(normal, right, precondition=divide, steps=cg_steps, tolerance=_TOLERANCE)
    # 1/2 x'Ax + g'x with Ax = -g - left: no further product.
    predicted = 0.5 * (inner(step, left) - inner(gradient, step))
    return jax.tree.map(jnp.add, free, step), predicted


def _normal_of_block(function: Callable[[PyTree], PyTree], free: PyTree, x: PyTree) -> PyTree:
    """`J'J x` of one function of the unknowns."""
    push = jax.jvp(function, (free,), (x,))[1]
    return jax.vjp(function, free)[1](push)[0]


@eqx.filter_jit
def _projected(project, free, fixed):
    return eqx.filter(
        project(eqx.combine(free, fixed)), jax.tree.map(lambda x: x is not None, free, is_leaf=lambda x: x is None)
    )

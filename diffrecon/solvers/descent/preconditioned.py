"""Pieces of optimisers that look at the model: gradients divided by a curvature, step lengths from the model's own
linearisation, momentum over many steps. Each is an optax transformation for `minimise`, which hands it `model` and
`batch` at every step.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, PyTree

from ..._model import Batch
from ...errors import InputError
from .unknowns import LooksAtModel, dotted

__all__ = ["optimal_step", "periodic_momentum", "preconditioned"]

Curvature = Callable[[Any, Batch], Mapping[str, Array]]


def preconditioned(curvature: Curvature) -> optax.GradientTransformationExtraArgs:
    """Divide the gradient of some unknowns by their curvature; zero where the curvature is zero.

    **Arguments:** `curvature` is a function `(model, batch) -> {name: array}` of positive numbers that broadcast
    against the unknown of that (dotted) name, such as the diagonal of the cost's Gauss-Newton matrix. Unknowns that it
    does not name pass unchanged.

    With the exact diagonal a step of length one is Newton's for each number alone, so that units disappear.

    ```python
    cost = lambda x, batch: jnp.sum(jnp.array([1.0, 100.0]) * x["a"] ** 2)
    rule = optax.chain(preconditioned(lambda model, batch: {"a": jnp.array([2.0, 200.0])}), optax.scale(-1.0))
    solution = minimise(cost, {"a": jnp.ones(2)}, optimiser=rule, steps=1)
    assert jnp.allclose(solution.value["a"], 0.0, atol=1e-6)
    ```
    """

    def update(updates, state, params=None, **extra):
        divisors = curvature(extra["model"], extra["batch"])

        def divide(path, gradient):
            divisor = divisors.get(dotted(path))
            if divisor is None:
                return gradient
            divisor = divisor.astype(gradient.real.dtype)
            return jnp.where(divisor > 0, gradient / jnp.where(divisor > 0, divisor, 1), 0)

        return jax.tree_util.tree_map_with_path(divide, updates), state

    return optax.GradientTransformationExtraArgs(lambda params: LooksAtModel(), update)


def optimal_step(
    rows: Callable[[Any, Batch], PyTree], names: Sequence[str], *, limit: float = 2.0, damping: float = 1e-3
) -> optax.GradientTransformationExtraArgs:
    """One step length for each of some unknowns, solved for jointly on the batch (as in LSQML: Odstrcil, Menzel &
    Guizar-Sicairos 2018, there for object and probe).

    The incoming updates are directions `d_i`, downhill after a change of sign. Along them the cost is about
    `g.d a + 1/2 sum |J d a|^2`, with J the derivative of `rows`; its minimum over the lengths `a` is a system as small
    as there are unknowns. The updates of `names` leave as `-a_i d_i`, the others unchanged.

    **Arguments:** `rows` is a function `(model, batch) -> real or complex array(s)` whose squares make the curvature:
    residuals (Gauss-Newton), or the waves on the detector times `sqrt(2 / pixels)`, which bounds the curvature of a
    mean amplitude cost from above. `limit` is the longest step, in units of the direction; `damping` is relative. Where
    the system has no positive solution, each unknown gets a step of its own.

    **Cost:** a linearisation of `rows` and a product with it for each name: about as much as the cost's gradient.

    ```python
    cost = lambda x, batch: 0.5 * jnp.sum((3 * x["a"] + x["b"] - 1) ** 2)
    rule = optimal_step(lambda x, batch: 3 * x["a"] + x["b"], ("a", "b"), limit=jnp.inf)
    start = {"a": jnp.zeros(2), "b": jnp.zeros(2)}
    solution = minimise(cost, start, optimiser=rule, steps=3)
    assert cost(solution.value, None) < 1e-5
    ```
    """

    def update(updates, state, params=None, **extra):
        model, batch = extra["model"], extra["batch"]
        directions = {dotted(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(updates)}
        gradients = {dotted(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(extra["grad"])}
        missing = [name for name in names if name not in directions]
        if missing:
            raise InputError(f"optimal_step: {missing[0]!r} is not an unknown of this optimiser")
        moved = {name: directions[name] for name in names}
        push = jax.linearize(lambda leaves: rows(_with_leaves(model, leaves), batch), _leaves(model, names))[1]
        zero = {name: jnp.zeros_like(d) for name, d in moved.items()}
        images = [push(zero | {name: -d}) for name, d in moved.items()]
        normal = jnp.stack([jnp.stack([_inner(p, q) for q in images]) for p in images])
        slope = jnp.stack([_inner(gradients[name], d) for name, d in moved.items()])
        lengths = _lengths(normal, slope, limit, damping)
        index = {name: i for i, name in enumerate(names)}

        def scale(path, direction):
            name = dotted(path)
            return -lengths[index[name]].astype(direction.real.dtype) * direction if name in index else direction

        return jax.tree_util.tree_map_with_path(scale, updates), state

    return optax.GradientTransformationExtraArgs(lambda params: LooksAtModel(), update)


def _lengths(normal: Array, slope: Array, limit: float, damping: float) -> Array:
    """Minimum of `-slope.a + 1/2 a.normal.a` over positive lengths, or of each alone."""
    diagonal = jnp.diagonal(normal)
    floor = jnp.finfo(normal.dtype).tiny
    together = jnp.linalg.solve(normal + jnp.diag(damping * diagonal + floor), slope)
    alone = slope / jnp.maximum(diagonal, floor)
    good = jnp.all(jnp.isfinite(together)) & jnp.all(together > 0)
    return jnp.clip(jnp.where(good, together, alone), 0, limit)


def _inner(a: PyTree, b: PyTree) -> Array:
    pairs = zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    return sum(
        (jnp.sum(p.real * q.real) + (jnp.sum(p.imag * q.imag) if jnp.iscomplexobj(p) else 0) for p, q in pairs),
        start=jnp.zeros(()),
    )


def _leaves(model: Any, names: Sequence[str]) -> dict[str, Array]:
    found = {dotted(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(model)}
    return {name: found[name] for name in names}


def _with_leaves(model: Any, leaves: Mapping[str, Array]) -> Any:
    return jax.tree_util.tree_map_with_path(lambda path, leaf: leaves.get(dotted(path), leaf), model)


class MomentumState(NamedTuple):
    """Velocity, where the last kick ended, and steps since then."""

    velocity: PyTree
    origin: PyTree
    since: Array


def periodic_momentum(friction: float, every: int) -> optax.GradientTransformation:
    """Momentum over many small steps: each `every` steps `v <- friction v + (x - x at the last kick)` and
    `x <- x + friction v` (mPIE: Maiden, Johnson & Li 2017).

    Comes last in a chain: what enters is the whole step. Single-view steps are too noisy for momentum of their own.

    ```python
    rule = optax.chain(optax.sgd(0.1), periodic_momentum(0.7, every=5))
    ```
    """

    def init(params):
        return MomentumState(jax.tree.map(jnp.zeros_like, params), params, jnp.zeros((), jnp.int32))

    def update(updates, state, params=None):
        def kick(_):
            moved = jax.tree.map(lambda p, u, o: p + u - o, params, updates, state.origin)
            velocity = jax.tree.map(lambda v, m: friction * v + m, state.velocity, moved)
            steps = jax.tree.map(lambda u, v: u + friction * v, updates, velocity)
            return steps, MomentumState(velocity, jax.tree.map(jnp.add, params, steps), jnp.zeros((), jnp.int32))

        def go_on(_):
            return updates, MomentumState(state.velocity, state.origin, state.since + 1)

        return jax.lax.cond(state.since + 1 >= every, kick, go_on, None)

    return optax.GradientTransformation(init, update)

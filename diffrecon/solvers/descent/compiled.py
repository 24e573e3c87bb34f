"""The compiled part of `minimise`: a chunk of steps, on one device or several."""

import dataclasses
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh, PartitionSpec
from jaxtyping import Array, PyTree

from ... import sharding
from ..._model import Batch, one_number
from .feed import Fields, Plan
from .unknowns import line_search

__all__ = ["Cost", "Problem", "cost_of", "places_of", "run_chunk"]

Cost = Callable[[Any, Batch], Any]


@dataclasses.dataclass(frozen=True)
class Problem:
    """Everything that is compiled in: functions and small numbers, never data."""

    cost: Cost
    rule: optax.GradientTransformationExtraArgs
    project: Callable[[Any], Any] | None
    plan: Plan
    scales: tuple[float, ...]
    mesh: Mesh | None
    places: tuple[Any, ...] = ()  # where each unknown lies; none on one device


def places_of(free: PyTree, mesh: Mesh | None) -> tuple[Any, ...]:
    return () if mesh is None else tuple(leaf.sharding for leaf in jax.tree.leaves(free))


@eqx.filter_jit
def run_chunk(problem: Problem, free, state, fixed, fields: Fields, first, count, size: int):
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
            value_fn=line_search(value_fn),
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


def _value_function(problem: Problem, fixed, views, per_view: dict[str, Array], shared: dict[str, Array]):
    """The cost of a batch as a function of the free unknowns; on a mesh every device works on its share of the views.

    The share is cut by hand (`shard_map`), because the compiler lets every device do all FFTs of a batch. Each device
    differentiates its own mean cost, and cost and gradient are averaged; views that do not divide are worked on by all.
    """

    def value(free, fixed, views, per_view, shared):
        return one_number(problem.cost(eqx.combine(free, fixed), Batch(views, per_view | shared)))

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


def _moved(problem: Problem, free, updates, fixed):
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
def cost_of(cost: Cost, free, fixed, batch: Batch):
    return one_number(cost(eqx.combine(free, fixed), batch))

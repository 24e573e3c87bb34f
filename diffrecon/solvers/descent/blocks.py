"""Residuals of views in blocks: sums over them, and the diagonal of their normal matrix."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, PyTree

from ..._model import Batch

__all__ = ["Blocks", "Residual", "conjugate", "half_square", "prior_rows", "scaling", "weighted_rows"]

Residual = Callable[[Any, Batch], PyTree]


class Blocks(eqx.Module):
    """Training views cut into equal blocks `(block, view, ...)`; the last one is filled with views of weight zero."""

    views: Array
    per_view: dict[str, Array]
    shared: dict[str, Array]
    weight: Array

    @classmethod
    def make(cls, fields: tuple[dict[str, Any], dict[str, Any]], views: np.ndarray, size: int) -> "Blocks":
        per_view, shared = fields
        if not per_view:
            return cls(jnp.zeros((1, 0), jnp.int32), {}, shared, jnp.ones((1, 0)))
        count = views.size
        size = min(size, count)
        blocks = -(-count // size)
        size = -(-count // blocks)
        pad = np.minimum(np.arange(blocks * size), count - 1)
        cut = lambda v: jnp.asarray(v[pad].reshape(blocks, size, *v.shape[1:]))
        weight = (np.arange(blocks * size) < count).astype(np.float32).reshape(blocks, size)
        return cls(
            jnp.asarray(views[pad].reshape(blocks, size)),
            {k: cut(v) for k, v in per_view.items()},
            shared,
            jnp.asarray(weight),
        )

    def sum(self, function: Callable[[Batch, Array], PyTree]) -> PyTree:
        """Sum over blocks of a function of batch and weights."""

        def body(total, block):
            views, per_view, weight = block
            part = function(Batch(views, per_view | self.shared), weight)
            return jax.tree.map(jnp.add, total, part), None

        scanned = (self.views, self.per_view, self.weight)
        first = jax.tree.map(lambda a: a[0], scanned)
        like = jax.eval_shape(lambda b: function(Batch(b[0], b[1] | self.shared), b[2]), first)
        zero = jax.tree.map(lambda a: jnp.zeros(a.shape, a.dtype), like)
        return jax.lax.scan(body, zero, scanned)[0]


def weighted_rows(residual: Residual, free, fixed, batch: Batch, weight: Array) -> PyTree:
    rows = residual(eqx.combine(free, fixed), batch)
    if weight.shape[0] == 0:
        return rows
    return jax.tree.map(lambda r: r * weight.astype(r.dtype).reshape((-1,) + (1,) * (r.ndim - 1)), rows)


def half_square(rows: PyTree) -> Array:
    return 0.5 * sum((jnp.sum(jnp.square(r)) for r in jax.tree.leaves(rows)), start=jnp.zeros(()))


def prior_rows(prior, free, fixed) -> PyTree:
    return () if prior is None else prior(eqx.combine(free, fixed))


def conjugate(tree: PyTree) -> PyTree:
    return jax.tree.map(jnp.conj, tree)


@eqx.filter_jit
def scaling(problem, free, fixed, blocks: Blocks, key, probes: int) -> PyTree:
    """Diagonal of J'J from `probes` random sign vectors: mean of |J'w|^2, floored at a thousandth of each unknown's
    mean.
    """
    residual, prior = problem

    def squares(index):
        def block(batch, weight):
            rows, pull = jax.vjp(lambda f: weighted_rows(residual, f, fixed, batch, weight), free)
            return pull(
                _signs(
                    rows,
                    jax.random.fold_in(
                        jax.random.fold_in(key, index), batch.views.ravel()[0] if batch.views.size else 0
                    ),
                )
            )[0]

        rows, pull = jax.vjp(lambda f: prior_rows(prior, f, fixed), free)
        total = jax.tree.map(jnp.add, blocks.sum(block), pull(_signs(rows, jax.random.fold_in(key, index + probes)))[0])
        return jax.tree.map(lambda t: jnp.real(t * jnp.conj(t)) / (2 if jnp.iscomplexobj(t) else 1), total)

    total = squares(0)
    for index in range(1, probes):
        total = jax.tree.map(jnp.add, total, squares(index))
    return jax.tree.map(lambda t: t / probes + 1e-3 * jnp.mean(t / probes) + 1e-20, total)


def _signs(rows: PyTree, key) -> PyTree:
    leaves, structure = jax.tree.flatten(rows)
    return jax.tree.unflatten(
        structure,
        [jax.random.rademacher(jax.random.fold_in(key, i), leaf.shape, leaf.dtype) for i, leaf in enumerate(leaves)],
    )

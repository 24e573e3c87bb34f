"""Blurs by marginal likelihood: numbers that the most probable object would always explain away.

The most probable object and blur together are a sharp detector and a soft object, whatever the truth: prior and noise
let the object be smaller than it is (Levin et al., CVPR 2009, on blind deconvolution). What the counts say of a blur is
their probability for all objects that agree with them. Its slope is that of the expected cost over the posterior of the
object (expectation maximisation; Dempster, Laird & Rubin, J. R. Stat. Soc. B 39, 1 (1977)): beside the residual of the
best object stands what an error of that object, drawn at random from its posterior, does to the counts. That falls with
the blur, and must be paid for where it is left out.
"""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from .._model import Batch
from ._whitened import Whitened, prior_rows, residual

__all__ = ["drawn", "marginal_residual"]


def marginal_residual(unknowns: Whitened, batch: Batch) -> dict[str, Array]:
    """The residual, and its derivative by the object along `batch.spread` `(view, map, y, x)`, of which the first
    counts, at an object that does not move."""
    rows = lambda white: residual(_with(unknowns, white), batch)
    along = jax.jvp(rows, (jax.lax.stop_gradient(unknowns.white),), (batch.spread[0],))[1]
    return {"data": rows(unknowns.white), "spread": along}


@eqx.filter_jit
def drawn(
    unknowns: Whitened, data: Any, seed: Array, steps: int = 25, prior: bool = True
) -> Float[Array, "view map y x"]:
    """An error of the white object, drawn from its posterior: the solution for residuals of pure noise (perturb and
    optimise; Papandreou & Yuille 2010), by conjugate gradients; once for each view, all alike. Without noise in the
    rows of the `prior` it is what repeated measurements would scatter by."""
    batch = Batch(jnp.arange(len(unknowns.model.pixels)), {name: jnp.asarray(value) for name, value in data.items()})
    rows = lambda white: (residual(_with(unknowns, white), batch), prior_rows(_with(unknowns, white)))
    value, push = jax.linearize(rows, unknowns.white)
    pull = jax.linear_transpose(push, unknowns.white)
    leaves, tree = jax.tree.flatten(value)
    keys = jax.random.split(jax.random.key(seed), len(leaves))
    noise = [jax.random.normal(key, leaf.shape, leaf.dtype) for key, leaf in zip(keys, leaves, strict=True)]
    if not prior:  # the first leaf is that of the data
        noise[1:] = [jnp.zeros_like(rows) for rows in noise[1:]]
    right = pull(jax.tree.unflatten(tree, noise))[0]
    error = jax.scipy.sparse.linalg.cg(lambda x: pull(push(x))[0], right, maxiter=steps)[0]
    return jnp.broadcast_to(error, (batch.views.size, *error.shape))


def _with(unknowns: Whitened, white: Float[Array, "map y x"]) -> Whitened:
    return eqx.tree_at(lambda u: u.white, unknowns, white)

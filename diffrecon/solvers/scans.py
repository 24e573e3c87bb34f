"""Views of a scan: what they cost, and where those lie that were never fitted.

A model is anything that is called with views and has their `positions`, as `diffrecon.models.Ptychography` has.
"""

import dataclasses
import functools
import inspect
from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Bool, Float, Num

from .. import losses
from .._model import Batch

__all__ = ["ScanCost", "amplitude_cost", "decaying", "decaying_rule", "fit_places", "matched_frames"]

_NOISE = 0.25  # variance of the root of a photon count
_PIXELS = 2**23  # pixels of the waves that are in memory at once while views are placed


def amplitude_cost(model: Any, batch: Batch) -> Float[Array, ""]:
    """Compare amplitudes, whose noise is the same in bright and dark pixels: the default cost of ptychography.

    Any model whose call predicts the counts of some views will do.
    """
    return losses.amplitude(model(batch.views), batch.counts, batch.mask)


@dataclasses.dataclass(frozen=True)
class ScanCost:
    """Amplitudes of the counts, edges of the object and how far motors miss. Equal ones share a compiled program.

    **Fields:** `edges`, a function of the transmission such as `diffrecon.penalties.SparseEdges`; `position_prior`,
    standard deviation of the motors' errors about `batch.nominal` [detector pixel]; `saturation` [counts]. `None`
    leaves each of them out.
    """

    edges: Callable[[Array], Array] | None = None
    position_prior: float | None = None
    saturation: float | None = None

    def __call__(self, model: Any, batch: Batch) -> Float[Array, ""]:
        """Give the cost of a batch of views."""
        prediction = model(batch.views)
        if self.saturation is not None:
            prediction = losses.saturated(prediction, batch.counts, self.saturation)
        value = losses.amplitude(prediction, batch.counts, batch.mask)
        if self.edges is not None:
            value = value + _noise(prediction, batch) * self.edges(model.transmission())
        if self.position_prior is not None:
            moved = (model.positions[batch.views] - batch.nominal) / (self.position_prior * model.oversampling)
            # A mean over pixels of half the log-likelihood, as the amplitudes are: 1/4 for every unit of variance.
            value = value + jnp.sum(moved**2) / (4 * batch.counts.size)
        return value


def _noise(prediction: Array, batch: Batch) -> Array:
    """Weigh the data less against the prior where the model cannot explain them, as if that were noise.

    A mean over views, as the cost is: devices that share a batch then come to the number that one of them does.
    """
    per_view = None if batch.mask is None or batch.mask.ndim < 3 else 0
    compare = jax.vmap(losses.amplitude, in_axes=(0, 0, per_view))
    each = compare(jax.lax.stop_gradient(prediction), batch.counts, batch.mask)
    return jnp.mean(jnp.clip(each / _NOISE, 1, 4))


@functools.lru_cache(maxsize=64)  # here and below: another object is another program to compile
def decaying(rate: float, steps: int, constant: float) -> optax.Schedule:
    """Keep a rate for a fraction of the steps, then lower it along half a cosine to a fiftieth: noise of the batches
    averages out.
    """
    flat = int(steps * constant)
    return optax.join_schedules(
        [optax.constant_schedule(rate), optax.cosine_decay_schedule(rate, max(steps - flat, 1), 0.02)], [flat]
    )


@functools.lru_cache(maxsize=64)
def decaying_rule(
    name: str, rate: float, steps: int, constant: float, squares: float | None = None, deaf: bool = False
) -> optax.GradientTransformation:
    """Make an optimiser of optax with a rate that decays (`decaying`); a `deaf` one takes no gradient in step 0.

    `squares` is the rate `b2` at which Adam and its kin average squared gradients.
    """
    make = getattr(optax, name)
    own = {} if squares is None or "b2" not in inspect.signature(make).parameters else {"b2": squares}
    rule = make(decaying(rate, steps, constant), **own)
    if not deaf:
        return rule

    def update(updates: Any, state: Any, params: Any = None) -> Any:
        step = optax.tree_utils.tree_get_all_with_path(state, "count")[0][1]
        heard = jax.tree.map(lambda g: jnp.where(step > 0, g, jnp.zeros_like(g)), updates)
        return rule.update(heard, state, params)

    return optax.GradientTransformation(rule.init, update)


def fit_places(
    model: Any, counts: Any, mask: Bool[np.ndarray, "y x"], *, steps: int = 20
) -> Float[np.ndarray, "view 2"]:
    """Find the positions [pixel] at which views fit best, each with its best gain; nothing else moves.

    No other view can tell these of a view that was never fitted. Their start should be within a few pixels: where the
    neighbours in time lie. `counts` may lie in a file; `model.of_views` gives the model of some views.

    **Cost:** Gauss-Newton steps of every view by itself, damped after Marquardt (1963), until none moves by more than a
    thousandth of a pixel: five predictions a step, and `steps` at most.
    """
    solutions = []
    for part in _portions(model, len(counts)):
        solutions.append(np.asarray(_placed(model.of_views(part), np.asarray(counts[part]), mask, steps)))
    return np.concatenate(solutions)


class _Places(NamedTuple):
    """Best positions so far, their cost, slope and curvature; what is tried next and how it is damped."""

    best: Float[Array, "view 2"]
    cost: Float[Array, " view"]
    slope: Float[Array, "view 2"]
    curvature: Float[Array, "view 2 2"]
    damping: Float[Array, " view"]
    trial: Float[Array, "view 2"]
    step: Array


@eqx.filter_jit
def _placed(model: Any, counts: Any, mask: Any, steps: Any) -> Array:
    views, widest = jnp.arange(counts.shape[0]), float(model.oversampling)

    def residual(places: Array) -> Array:
        predicted = losses.matched(model.replace(positions=places)(views), counts, mask)
        return losses.anscombe_residual(predicted, counts, mask)

    def advance(now: _Places) -> _Places:
        off, push = jax.linearize(residual, now.trial)
        sides = jnp.stack([push(jnp.zeros_like(now.trial).at[:, axis].set(1)) for axis in (0, 1)], 1)
        cost = jnp.einsum("vyx,vyx->v", off, off)
        better = cost < now.cost
        take = lambda new, old: jnp.where(better.reshape(-1, *(1,) * (new.ndim - 1)), new, old)
        slope = take(jnp.einsum("vayx,vyx->va", sides, off), now.slope)
        curvature = take(jnp.einsum("vayx,vbyx->vab", sides, sides), now.curvature)
        damping = jnp.where(better, now.damping / 4, now.damping * 8)
        best = take(now.trial, now.best)
        own = jnp.diagonal(curvature, axis1=1, axis2=2)
        added = damping[:, None] * own + 1e-6 * jnp.max(own) + 1e-12
        held = curvature + added[..., None] * jnp.eye(2)
        move = jnp.clip(-jnp.linalg.solve(held, slope[..., None])[..., 0], -widest, widest)
        return _Places(best, take(cost, now.cost), slope, curvature, damping, best + move, now.step + 1)

    start, count = model.positions, counts.shape[0]
    full = lambda value, *shape: jnp.full((count, *shape), value, start.dtype)
    first = _Places(start, full(jnp.inf), full(0, 2), full(0, 2, 2), full(1e-2), start, jnp.zeros((), int))
    moving = lambda now: (now.step < 2) | ((now.step < steps) & (jnp.max(jnp.abs(now.trial - now.best)) > 1e-3))
    return jax.lax.while_loop(moving, advance, first).best


def matched_frames(model: Any, counts: Num[np.ndarray, "view y x"], mask: Any) -> Float[np.ndarray, "view y x"]:
    """Predict frames, each with the gain that matches the sum of its counts."""
    parts = _portions(model, len(counts))
    return np.concatenate([np.asarray(_matched(model.of_views(part), counts[part], mask)) for part in parts])


@eqx.filter_jit
def _matched(model: Any, counts: Any, mask: Any) -> Array:
    return losses.matched(model(jnp.arange(counts.shape[0])), counts, mask)


def _portions(model: Any, views: int) -> list[np.ndarray]:
    size = max(1, _PIXELS // int(np.prod(model.probe.shape)))
    return [np.arange(first, min(first + size, views)) for first in range(0, views, size)]

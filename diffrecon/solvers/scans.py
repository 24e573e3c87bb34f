"""Views of a scan: what they cost, and where those lie that were never fitted.

A model is anything that is called with views and has their `positions`, as `diffrecon.models.Ptychography` has.
"""

import dataclasses
import functools
import inspect
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Bool, Float, Num

from .. import losses
from .._model import Batch
from .descent.minimise import minimise

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
    model: Any, counts: Any, mask: Bool[np.ndarray, "y x"], *, steps: int = 60
) -> Float[np.ndarray, "view 2"]:
    """Find the positions [pixel] at which views fit best, each with its best gain; nothing else moves.

    No other view can tell these of a view that was never fitted. Their start should be within a few pixels: where the
    neighbours in time lie. `counts` may lie in a file; `model.of_views` gives the model of some views.
    """
    rule = decaying_rule("adam", float(0.1 * model.oversampling), steps, 0.3)
    solutions = []
    for part in _portions(model, len(counts)):
        data = {"counts": np.asarray(counts[part]), "mask": mask}
        some = minimise(_cost_of_places, model.of_views(part), data, rule, steps=steps, unknowns=("positions",))
        solutions.append(np.asarray(some.value.positions))
    return np.concatenate(solutions)


def matched_frames(model: Any, counts: Num[np.ndarray, "view y x"], mask: Any) -> Float[np.ndarray, "view y x"]:
    """Predict frames, each with the gain that matches the sum of its counts."""
    parts = _portions(model, len(counts))
    return np.concatenate([np.asarray(_matched(model.of_views(part), counts[part], mask)) for part in parts])


@eqx.filter_jit
def _matched(model: Any, counts: Any, mask: Any) -> Array:
    return losses.matched(model(jnp.arange(counts.shape[0])), counts, mask)


def _cost_of_places(model: Any, batch: Batch) -> Array:
    return losses.amplitude(losses.matched(model(batch.views), batch.counts, batch.mask), batch.counts, batch.mask)


def _portions(model: Any, views: int) -> list[np.ndarray]:
    size = max(1, _PIXELS // int(np.prod(model.probe.shape)))
    return [np.arange(first, min(first + size, views)) for first in range(0, views, size)]

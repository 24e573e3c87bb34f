"""Iterative solvers of linear problems `A x = b`: conjugate gradients, SIRT, MLEM.

`A` is any linear callable. Its adjoint is `A.adjoint` where there is one (an exact and fast one, as
`ParallelProjector` has), else the conjugate transpose that JAX derives. Arrays may be complex.
"""

import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.core import Tracer
from jaxtyping import Array, ArrayLike, Float, Inexact

from ..errors import InputError

__all__ = ["LinearSolution", "cgls", "mlem", "sirt"]

_CHUNK = 50  # steps between two calls of the user's callback
_DIVERGED = 100.0  # times the residual at the start
_SHORT_RAY = 0.02  # of the longest: below it a ray's weight grows no further


class LinearSolution(NamedTuple):
    """What a linear solver gives back.

    **Fields:** `x`; `history`, the relative residual `|A x - b| / |b|` after each step (NaN after a stop); `diverged`,
    true where it stopped because the residual was not finite or 100 times that of the start: x is then the last good
    one.
    """

    x: Inexact[Array, "..."]
    history: Float[Array, " step"]
    diverged: Array | bool


Callback = Callable[[int, Array, float], Any]


def cgls(
    A: Callable[[Array], Array],
    b: Inexact[Array, "..."],
    *,
    x0: Inexact[Array, "..."] | None = None,
    steps: int = 20,
    tikhonov: float = 0.0,
    callback: Callback | None = None,
) -> LinearSolution:
    """Least squares, `argmin |A x - b|^2 + tikhonov |x|^2`, by conjugate gradients (Bjorck, 1996, algorithm 7.4.1).

    **Arguments:**

    - `A`: linear callable; `b`: the data.
    - `x0`: first guess, default 0. Needed (for its shape) where `A` has no `adjoint`.
    - `steps`: also the regularisation: noise comes back with the later ones.
    - `callback(step, x, residual)`: called every 50 steps and at the end.

    **Cost:** one forward and one adjoint a step; compiled once for each shape.

    ```python
    solution = cgls(lambda x: 2.0 * x, jnp.ones(4), x0=jnp.zeros(4), steps=3)
    ```
    """
    operator = _Operator(A, jnp.asarray(b), _first_guess(A, b, x0))
    ridge = jnp.asarray(tikhonov, operator.b.real.dtype)
    x = operator.start
    return _iterate(_cgls_step, (operator, ridge), _cgls_start(operator, ridge, x), x, steps, callback)


def sirt(
    A: Callable[[Array], Array],
    b: Float[Array, "..."],
    steps: int = 100,
    *,
    x0: Float[Array, "..."] | None = None,
    relaxation: float = 1.5,
    bounds: tuple[float | None, float | None] | None = None,
    callback: Callback | None = None,
) -> LinearSolution:
    """Simultaneous iterative reconstruction: `x <- clip(x + relaxation C A'R (b - A x))`, R = 1/(A 1), C = 1/(A'1)
    (Gilbert 1972).

    Rays that miss the volume get weight 0, rays shorter than 2 % of the longest that of 2 %: a band-limited projector
    rings about 0 there.

    **Arguments:** as `cgls`; `relaxation` in (0, 2): 1 is the textbook's, 1.5 gets as far in two thirds of the steps
    and is stable, for C A'R A has eigenvalues up to 1; `bounds` = (least, largest) value, `None` for no bound.

    **Raises:** `InputError` for a relaxation outside (0, 2), where it diverges.
    """
    if not 0 < relaxation < 2:
        raise InputError(f"sirt: relaxation {relaxation} must lie between 0 and 2, outside it diverges")
    operator = _Operator(A, jnp.asarray(b), _first_guess(A, b, x0))
    low, high = (None, None) if bounds is None else bounds
    problem = (operator, _sirt_weights(operator, jnp.asarray(relaxation, operator.b.dtype)), low, high)
    x = operator.start
    return _iterate(_sirt_step, problem, _residual_start(operator, x), x, steps, callback)


def mlem(
    A: Callable[[Array], Array],
    b: Float[Array, "..."],
    steps: int = 50,
    *,
    x0: Float[Array, "..."] | None = None,
    callback: Callback | None = None,
) -> LinearSolution:
    """Maximum likelihood of Poisson data `b ~ A x`: `x <- x / (A'1) A'(b / (A x))` (Shepp & Vardi 1982, eq. 2.13).

    x stays non-negative. `x0` must be positive where x may be; default: one value that predicts the sum of the data.

    **Raises:** `InputError` for negative data.
    """
    b = jnp.asarray(b)
    if not isinstance(b, Tracer) and bool(jnp.any(b < 0)):
        raise InputError("mlem: data must be counts and some are negative; use cgls or sirt for -log data")
    operator = _Operator(A, b, _first_guess(A, b, x0))
    sensitivity, start = _mlem_start(operator)
    x = operator.start if x0 is not None else start
    return _iterate(_mlem_step, (operator, sensitivity), _residual_start(operator, x), x, steps, callback)


# Shared parts


class _Operator(eqx.Module):
    """A problem as a pytree: arrays inside A are traced, functions are static."""

    forward: Callable[[Array], Array]
    b: Array
    start: Array

    def adjoint(self, y: Array) -> Array:
        known = getattr(self.forward, "adjoint", None)
        if known is not None:
            return known(y)
        transpose = jax.linear_transpose(self.forward, jax.ShapeDtypeStruct(self.start.shape, self.start.dtype))
        return jnp.conj(transpose(jnp.conj(y))[0])


def _first_guess(A: Callable[[Array], Array], b: ArrayLike, x0: Array | None) -> Array:
    if x0 is not None:
        return jnp.asarray(x0)
    if not hasattr(A, "adjoint"):
        raise InputError("the operator has no adjoint: give x0 (zeros of the shape of the solution)")
    like = jax.eval_shape(A.adjoint, jnp.asarray(b))  # pyright: ignore[reportFunctionMemberAccess]
    return jnp.zeros(like.shape, like.dtype)


def _norm(x: Array) -> Float[Array, ""]:
    return jnp.sqrt(_squared(x))


def _squared(x: Array) -> Float[Array, ""]:
    return jnp.sum(x.real**2 + x.imag**2) if jnp.iscomplexobj(x) else jnp.sum(x * x)


def _iterate(step, problem, state, x: Array, steps: int, callback: Callback | None) -> LinearSolution:
    """Chunks of compiled steps; between them the user's callback."""
    if steps < 1:
        raise InputError(f"steps must be at least 1, got {steps}")
    history, done, alive = [], 0, jnp.asarray(True)
    carry = (x, state, alive)
    while done < steps:
        length = steps - done if callback is None else min(_CHUNK, steps - done)
        carry, residuals = _chunk(step, problem, carry, length)
        history.append(residuals)
        done += length
        if callback is not None:
            callback(done, carry[0], float(residuals[-1]))
            if not bool(carry[2]):
                break
    x, _, alive = carry
    joined = jnp.concatenate(history)
    joined = jnp.pad(joined, (0, steps - joined.shape[0]), constant_values=jnp.nan)
    if not isinstance(alive, Tracer) and not bool(alive):
        last = int(np.sum(np.isfinite(np.asarray(joined))))
        warnings.warn(f"stopped after step {last}: the residual diverged; x is the one before", stacklevel=3)
    return LinearSolution(x, joined, jnp.logical_not(alive))


@eqx.filter_jit
def _chunk(step, problem, carry, length: int):
    """`length` steps; a step whose residual is not finite or far above the data is undone and ends the iteration."""
    b_norm = _norm(problem[0].b)
    scale = jnp.where(b_norm > 0, b_norm, 1)
    worst = _DIVERGED * jnp.maximum(scale, _norm(problem[0].forward(problem[0].start) - problem[0].b))

    def body(carry, _):
        x, state, alive = carry
        new_x, new_state, residual = step(problem, x, state)
        good = alive & jnp.isfinite(residual) & (residual < worst) & jnp.all(jnp.isfinite(new_x))
        kept = jax.tree.map(lambda new, old: jnp.where(good, new, old), (new_x, new_state), (x, state))
        return (*kept, good), jnp.where(good, residual / scale, jnp.nan)

    return lax.scan(body, carry, None, length=length)


# Conjugate gradients


class _ConjugateState(NamedTuple):
    residual: Array
    direction: Array
    gamma: Array  # squared norm of the gradient


@eqx.filter_jit
def _cgls_start(operator: _Operator, ridge: Array, x: Array) -> _ConjugateState:
    residual = operator.b - operator.forward(x)
    gradient = operator.adjoint(residual) - ridge * x
    return _ConjugateState(residual, gradient, _squared(gradient))


def _cgls_step(problem, x: Array, state: _ConjugateState):
    operator, ridge = problem
    image = operator.forward(state.direction)
    curvature = _squared(image) + ridge * _squared(state.direction)
    # at the solution both are 0: stay there
    length = jnp.where(curvature > 0, state.gamma / jnp.where(curvature > 0, curvature, 1), 0)
    x = x + length * state.direction
    residual = state.residual - length * image
    gradient = operator.adjoint(residual) - ridge * x
    gamma = _squared(gradient)
    ratio = jnp.where(state.gamma > 0, gamma / jnp.where(state.gamma > 0, state.gamma, 1), 0)
    return x, _ConjugateState(residual, gradient + ratio * state.direction, gamma), _norm(residual)


# SIRT and MLEM carry the residual b - A x, so that a step costs one pair


@eqx.filter_jit
def _residual_start(operator: _Operator, x: Array) -> Array:
    return operator.b - operator.forward(x)


@eqx.filter_jit
def _sirt_weights(operator: _Operator, relaxation: Array) -> tuple[Array, Array]:
    rows = operator.forward(jnp.ones_like(operator.start))
    columns = operator.adjoint(jnp.ones_like(operator.b))
    return _guarded_inverse(rows), relaxation * _guarded_inverse(columns)


def _guarded_inverse(sums: Array) -> Array:
    largest = jnp.max(sums)
    inverse = 1 / jnp.maximum(sums, _SHORT_RAY * jnp.where(largest > 0, largest, 1))
    return jnp.where(sums > 1e-3 * largest, inverse, 0)


def _sirt_step(problem, x: Array, residual: Array):
    operator, (row, column), low, high = problem
    x = x + column * operator.adjoint(row * residual)
    if low is not None or high is not None:
        x = jnp.clip(x, low, high)
    residual = operator.b - operator.forward(x)
    return x, residual, _norm(residual)


@eqx.filter_jit
def _mlem_start(operator: _Operator) -> tuple[Array, Array]:
    sensitivity = operator.adjoint(jnp.ones_like(operator.b))
    ones = jnp.ones_like(operator.start)
    level = jnp.sum(operator.b) / jnp.sum(operator.forward(ones))
    return sensitivity, level * ones


def _mlem_step(problem, x: Array, residual: Array):
    operator, sensitivity = problem
    predicted = operator.b - residual
    floor = 1e-6 * jnp.max(predicted)
    ratio = jnp.where(predicted > floor, operator.b / jnp.maximum(predicted, floor), 0)
    x = jnp.maximum(x * _guarded_inverse(sensitivity) * operator.adjoint(ratio), 0)
    residual = operator.b - operator.forward(x)
    return x, residual, _norm(residual)

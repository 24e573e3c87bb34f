"""Iterative solvers of linear problems `A x = b`: conjugate gradients, LSQR, SIRT, MLEM. `A` is any linear callable
(see `_iterate`).
"""

from functools import partial
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, ArrayLike, Float, Inexact

from ...errors import InputError
from ..progress import Callback
from .iterate import (
    Bounds,
    LinearSolution,
    Operator,
    Rule,
    Start,
    clipped,
    dot,
    iterate,
    noise_norm,
    squared,
    stopped,
)
from .normal import NormalEquations, normal_equations

__all__ = ["cgls", "lsqr", "mlem", "sirt"]

_SHIFT = 0.01  # of the largest datum: background of mlem and osem
_SHORT_RAY = 0.02  # of the longest: below it a ray's weight grows no further


def cgls(
    A,
    b: Inexact[Array, "..."],
    *,
    x0: Inexact[Array, "..."] | None = None,
    steps: int = 20,
    tikhonov: float = 0.0,
    weights: ArrayLike | None = None,
    normal: NormalEquations | str | None = None,
    stopping: str | None = None,
    noise: float | None = None,
    callback: Callback | None = None,
) -> LinearSolution:
    """Least squares, `argmin |A x - b|^2_W + tikhonov |x|^2`, by conjugate gradients (Bjorck, 1996, algorithm 7.4.1).

    **Arguments:**

    - `A`: linear callable; `b`: the data.
    - `x0`: first guess, default 0. Needed (for its shape) where `A` has no `adjoint`.
    - `steps`: also the regularisation: noise comes back with the later ones.
    - `weights`: inverse variances of the data, one a datum or one a view; 0 where a datum does not count.
    - `normal`: `"auto"` iterates on the normal equations where `A'WA` is a convolution (see `normal_equations`, also
      for its cost), or an object from there, to use it for many solves. The residuals of the history are then right to
      about 1e-3 of |b|, the last one to rounding.
    - `stopping`: `None` does all steps. `"held-out"` solves without one view in eight first, and takes the number of
      steps that predicts these best (twice the cost); `"discrepancy"` stops where the residual is that of noise of
      standard deviation `noise` a datum (of weights = 1/variance by default).
    - `callback`: called with a `Progress` (`loss` is the relative residual) every 50 steps and at the end;
      `True` stops.

    **Cost:** one forward and one adjoint a step; compiled once for each shape, whatever the number of steps.

    **Raises:** `InputError` for wrong shapes, negative weights, unknown rules.

    ```python
    solution = cgls(lambda x: 2.0 * x, jnp.ones(4), x0=jnp.zeros(4), steps=3)
    ```
    """
    if normal is not None:
        if stopping == "held-out":
            raise InputError('cgls: stopping="held-out" goes without normal')
        if stopping not in (None, "discrepancy"):
            raise InputError(f'stopping = "{stopping}" is not known: give "held-out", "discrepancy" or None')
        equations = normal_equations(A, b, weights=weights) if isinstance(normal, str) else normal
        target = None if stopping is None else noise_norm(equations.problem, noise)
        return _cgls_normal(equations, x0, steps, tikhonov, Rule(target, None, callback))
    run = partial(_cgls, tikhonov=tikhonov)
    return stopped(run, A, b, weights, x0, steps, stopping=stopping, noise=noise, callback=callback)


def lsqr(
    A,
    b: Inexact[Array, "..."],
    *,
    x0: Inexact[Array, "..."] | None = None,
    steps: int = 20,
    tikhonov: float = 0.0,
    weights: ArrayLike | None = None,
    stopping: str | None = None,
    noise: float | None = None,
    callback: Callback | None = None,
) -> LinearSolution:
    """Least squares, `argmin |A x - b|^2_W + tikhonov |x|^2`, by bidiagonalisation (Paige & Saunders, ACM Trans. Math.
    Softw. 8, 43 (1982)).

    The iterates are those of `cgls`; in float32 they keep more digits where A is badly
    conditioned, for one vector more of memory.

    **Arguments:** as `cgls`.

    ```python
    solution = lsqr(lambda x: 2.0 * x, jnp.ones(4), x0=jnp.zeros(4), steps=3)
    ```
    """
    run = partial(_lsqr, tikhonov=tikhonov)
    return stopped(run, A, b, weights, x0, steps, stopping=stopping, noise=noise, callback=callback)


def sirt(
    A,
    b: Float[Array, "..."],
    *,
    steps: int = 100,
    x0: Float[Array, "..."] | None = None,
    relaxation: float = 1.5,
    bounds: Bounds = None,
    weights: ArrayLike | None = None,
    stopping: str | None = None,
    noise: float | None = None,
    callback: Callback | None = None,
) -> LinearSolution:
    """Simultaneous iterative reconstruction: `x <- clip(x + relaxation C A'WR (b - A x))`, R = 1/(A 1), C = 1/(A'W 1)
    (Gilbert 1972).

    Rays that miss the volume get weight 0, rays shorter than 2 % of the longest that of 2 %: a band-limited projector
    rings about 0 there.

    **Arguments:** as `cgls`; `relaxation` in (0, 2): 1 is the textbook's, 1.5 gets as far in two thirds of the steps
    and is stable, for C A'WR A has eigenvalues up to 1; `bounds` = (least, largest) value, `None` for no bound.

    **Raises:** `InputError` for a relaxation outside (0, 2), where it diverges.
    """
    if not 0 < relaxation < 2:
        raise InputError(f"sirt: relaxation {relaxation} must lie between 0 and 2, outside it diverges")
    run = partial(_sirt, relaxation=relaxation, bounds=bounds)
    return stopped(run, A, b, weights, x0, steps, stopping=stopping, noise=noise, callback=callback)


def mlem(
    A,
    b: Float[Array, "..."],
    *,
    steps: int = 50,
    x0: Float[Array, "..."] | None = None,
    background: ArrayLike | None = None,
    stopping: str | None = None,
    callback: Callback | None = None,
) -> LinearSolution:
    """Maximum likelihood of Poisson data `b ~ A x`: `x <- x / (A'1) A'(b / (A x))` (Shepp & Vardi 1982, eq. 2.13).

    x stays non-negative. Both sides have a background of 1 % of the largest datum added, so that rays through air,
    where a band-limited projector rings about zero, do no harm. `x0` must be positive where x may be; default: one
    value that predicts the sum of the data.

    **Arguments:** as `cgls`; `background`: counts that are expected besides, `b ~ A x + background`; then no other is
    added. It takes the shape of the data and goes without `stopping`.

    **Raises:** `InputError` for negative data, a background with `stopping`.
    """
    if background is not None and stopping is not None:
        raise InputError("mlem: a background goes without stopping")
    run = partial(_mlem, level=x0 is None, background=background)
    return stopped(run, A, checked_counts(b, "mlem"), None, x0, steps, stopping=stopping, noise=None, callback=callback)


# Conjugate gradients: a step begins with the gradient, so that the start needs no operator


class _ConjugateState(NamedTuple):
    residual: Array  # b - A x, or A'W(b - A x) on the normal equations
    direction: Array
    gamma: Array  # squared norm of the last gradient, 0 before the first


def _conjugate_start(residual: Array, x: Array) -> _ConjugateState:
    return _ConjugateState(residual, jnp.zeros_like(x), jnp.zeros((), x.real.dtype))


def _turned(gradient: Array, state: _ConjugateState) -> tuple[Array, Array]:
    """The next direction, and the squared norm of the gradient."""
    gamma = squared(gradient)
    return gradient + _ratio(gamma, state.gamma) * state.direction, gamma


def _cgls(operator: Operator, steps: int, rule: Rule, tikhonov: float) -> LinearSolution:
    return iterate(
        _cgls_begin, _cgls_step, operator, (jnp.asarray(tikhonov, jnp.finfo(operator.b.dtype).dtype),), steps, rule
    )


def _cgls_begin(operator: Operator, ridge: Array) -> Start:
    residual = operator.first_residual()
    return operator.begun(ridge, _conjugate_start(residual, operator.start), residual=residual)


def _cgls_step(operator: Operator, ridge: Array, x: Array, state: _ConjugateState):
    direction, gamma = _turned(operator.adjoint(operator.weighted(state.residual)) - ridge * x, state)
    image = operator.forward(direction)
    length = _ratio(gamma, operator.norm(image) ** 2 + ridge * squared(direction))
    residual = state.residual - length * image
    return x + length * direction, _ConjugateState(residual, direction, gamma), operator.norm(residual)


def _ratio(a: Array, b: Array) -> Array:
    """a / b, and 0 where b is 0: at the solution both are."""
    return jnp.where(b > 0, a / jnp.where(b > 0, b, 1), 0)


def _cgls_normal(equations: NormalEquations, x0, steps: int, tikhonov: float, rule: Rule) -> LinearSolution:
    """The same on the normal equations, in the box of the object."""
    settings = (
        None if x0 is None else equations.inside(x0),
        jnp.asarray(tikhonov, jnp.finfo(equations.rhs.dtype).dtype),
    )
    return equations.solved(_normal_begin, _normal_step, equations.bare(), settings, steps, rule)


def _normal_begin(equations: NormalEquations, x: Array | None, ridge: Array) -> Start:
    x, residual = equations.begun(x)
    return equations.start(ridge, x, _conjugate_start(residual, x), residual)


def _normal_step(equations: NormalEquations, ridge: Array, x: Array, state: _ConjugateState):
    direction, gamma = _turned(state.residual - ridge * x, state)
    product = equations.product(direction)
    length = _ratio(gamma, dot(direction, product) + ridge * squared(direction))
    x, residual = x + length * direction, state.residual - length * product
    return x, _ConjugateState(residual, direction, gamma), equations.misfit(x, residual)


# LSQR


class _LsqrState(NamedTuple):
    u: Array
    below: Array  # of the rows damp * x
    beta: Array
    v: Array
    direction: Array
    phi: Array
    rho: Array
    cosine: Array
    sine: Array


def _lsqr(operator: Operator, steps: int, rule: Rule, tikhonov: float) -> LinearSolution:
    damp = jnp.asarray(np.sqrt(tikhonov), jnp.finfo(operator.b.dtype).dtype)
    return iterate(_lsqr_begin, _lsqr_step, operator, (damp,), steps, rule)


def _root(operator: Operator, y: Array) -> Array:
    return y if operator.weights is None else jnp.sqrt(operator.weights) * y


def _lsqr_begin(operator: Operator, damp: Array) -> Start:
    """Damping is appended to A as rows `damp x = 0`, so that a first guess does not change the problem."""
    residual, x = operator.first_residual(), operator.start
    (u, below), beta = _unit(_root(operator, residual), -damp * x)
    zero, one, nothing = jnp.zeros_like(beta), jnp.ones_like(beta), jnp.zeros_like(x)
    state = _LsqrState(u, below, zero, nothing, nothing, beta, one, -one, zero)
    return operator.begun(damp, state, residual=residual)


def _unit(*parts: Array) -> tuple[list[Array], Array]:
    length = jnp.sqrt(jnp.sum(jnp.stack([squared(p) for p in parts])))
    inverse = jnp.where(length > 0, 1 / jnp.where(length > 0, length, 1), 0)
    return [inverse * p for p in parts], length


def _lsqr_step(operator: Operator, damp: Array, x: Array, state: _LsqrState):
    back = operator.adjoint(_root(operator, state.u)) + damp * state.below
    (v,), alpha = _unit(back - state.beta * state.v)
    direction = v - _ratio(state.sine * alpha, state.rho) * state.direction
    image = _root(operator, operator.forward(v))
    (u, below), beta = _unit(image - alpha * state.u, damp * v - alpha * state.below)
    turned = -state.cosine * alpha
    rho = jnp.sqrt(turned**2 + beta**2)
    cosine, sine = _ratio(turned, rho), _ratio(beta, rho)
    x = x + _ratio(cosine * state.phi, rho) * direction
    phi = sine * state.phi
    residual = jnp.sqrt(jnp.maximum(phi**2 - damp**2 * squared(x), 0))
    return x, _LsqrState(u, below, beta, v, direction, phi, rho, cosine, sine), residual


# SIRT and MLEM carry the residual b - A x, so that a step costs one pair


def _sirt(operator: Operator, steps: int, rule: Rule, relaxation: float, bounds: Bounds) -> LinearSolution:
    settings = (jnp.asarray(relaxation, operator.b.dtype), bounds)
    return iterate(_sirt_begin, _sirt_step, operator, settings, steps, rule)


def _sirt_begin(operator: Operator, relaxation: Array, bounds: Bounds) -> Start:
    rows = operator.forward(jnp.ones_like(operator.start))
    columns = operator.adjoint(operator.weighted(jnp.ones_like(operator.b)))
    fixed = (operator.weighted(guarded_inverse(rows)), relaxation * guarded_inverse(columns), bounds)
    residual = operator.first_residual()
    return operator.begun(fixed, residual, residual=residual)


def guarded_inverse(sums: Array) -> Array:
    """1 / sums of rows or columns; 0 where they are nothing, bounded where they are little."""
    largest = jnp.max(sums)
    inverse = 1 / jnp.maximum(sums, _SHORT_RAY * jnp.where(largest > 0, largest, 1))
    return jnp.where(sums > 1e-3 * largest, inverse, 0)


def _sirt_step(operator: Operator, fixed: tuple, x: Array, residual: Array):
    row, column, bounds = fixed
    x = clipped(x + column * operator.adjoint(row * residual), bounds)
    residual = operator.residual(x)
    return x, residual, operator.norm(residual)


def checked_counts(b: ArrayLike, name: str) -> Array:
    b = jnp.asarray(b)
    if not isinstance(b, Tracer) and bool(jnp.any(b < 0)):
        raise InputError(f"{name}: data must be counts and some are negative; use cgls or sirt for -log data")
    return b


def _mlem(operator: Operator, steps: int, rule: Rule, level: bool, background: ArrayLike | None) -> LinearSolution:
    background = None if background is None else jnp.broadcast_to(jnp.asarray(background), operator.b.shape)
    return iterate(_mlem_begin, _mlem_step, operator, (level, background), steps, rule)


def _mlem_begin(operator: Operator, level: bool, background: Array | None) -> Start:
    sensitivity = operator.adjoint(jnp.ones_like(operator.b))
    x, image = mlem_level(operator) if level else (operator.start, operator.forward(operator.start))
    residual = operator.b - (image if background is None else image + background)
    return operator.begun((sensitivity, background), residual, x, residual)


def mlem_level(operator: Operator) -> tuple[Array, Array]:
    """A constant volume that predicts the sum of the data, and its image."""
    ones = jnp.ones_like(operator.start)
    image = operator.forward(ones)
    level = jnp.sum(operator.b) / jnp.sum(image)
    return level * ones, level * image


def mlem_factor(operator: Operator, sensitivity: Array, predicted: Array) -> Array:
    """Compute what the volume is multiplied by: `(A'1)^-1 A'((b + s) / (A x + s))`.

    The shift s is a background known to be in both (1 % of the largest datum). Without it a band-limited projector,
    which rings about zero in air, divides noise by almost nothing there and diverges.
    """
    shift = _SHIFT * jnp.max(operator.b)
    ratio = (operator.b + shift) / jnp.maximum(predicted + shift, 0.1 * shift)
    return jnp.maximum(guarded_inverse(sensitivity) * operator.adjoint(ratio), 0)


def _mlem_step(operator: Operator, fixed: tuple, x: Array, residual: Array):
    sensitivity, background = fixed
    predicted = operator.b - residual
    if background is None:
        x = x * mlem_factor(operator, sensitivity, predicted)
        residual = operator.residual(x)
    else:
        ratio = operator.b / jnp.maximum(predicted, 1e-6 * jnp.max(operator.b))
        x = x * guarded_inverse(sensitivity) * operator.adjoint(ratio)
        residual = operator.residual(x) - background
    return x, residual, operator.norm(residual)

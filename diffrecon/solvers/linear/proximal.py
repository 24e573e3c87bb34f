"""Least squares and likelihoods with penalties that have no gradient: FISTA, and the primal-dual algorithm of Chambolle
& Pock.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, ArrayLike, Float, Inexact, PyTree

from ...errors import InputError
from ..progress import Callback
from .iterate import Bounds, LinearSolution, Operator, Rule, Start, clipped, dot, iterate, norm, squared
from .least_squares import checked_counts, guarded_inverse
from .normal import NormalEquations, normal_equations

__all__ = ["Huber", "LeastSquares", "Poisson", "fista", "primal_dual"]

_POWER_STEPS = 12  # of the power iteration at most
_SAFETY = 1.02  # |A|^2 over its estimate, which comes from below


class _Function(eqx.Module):
    """A plain function `prox(x, step)` in the place of a penalty object."""

    function: Callable[..., Any]

    def start(self, x: Array) -> PyTree:
        return ()

    def prox(self, x: Array, step: Array, state: PyTree, *, steps: int, bounds: Bounds) -> tuple[Array, PyTree]:
        return clipped(self.function(x, step), bounds), ()


def fista(
    A,
    b: Inexact[Array, "..."],
    penalty: Any = None,
    *,
    steps: int = 100,
    x0: Inexact[Array, "..."] | None = None,
    weights: ArrayLike | None = None,
    bounds: Bounds = None,
    inner: int = 2,
    lipschitz: ArrayLike | None = None,
    normal: NormalEquations | str = "auto",
    callback: Callback | None = None,
) -> LinearSolution:
    """`argmin 1/2 |A x - b|^2_W + penalty(x)` within bounds, by accelerated proximal gradients (Beck & Teboulle, SIAM
    J. Imaging Sci. 2, 183 (2009)) with restarts (O'Donoghue & Candes 2015).

    **Arguments:**

    - `A`, `b`, `x0`, `weights`, `callback` as in `cgls`.
    - `penalty`: an object of `diffrecon.penalties` (`TotalVariation`, `GeneralisedVariation`, `DirectionalVariation`,
      `WaveletSparsity`); or any function `prox(x, step)`, such as `lambda x, step: prox_l1(x, 0.1 * step)` or a
      denoiser; or `None`: least squares within bounds.
    - `bounds` = (least, largest) value, `None` for no bound.
    - `inner`: steps of the penalty's own loop in each step. It goes on from where it was, so that few do.
    - `lipschitz`: |A|^2_W if known, else found by a power iteration of a few steps and raised where it proves too
      small.
    - `normal`: `"auto"` uses the convolution in place of A'WA where that is exact, `"exact"` never does; or an object
      of `normal_equations`, to set it up once for many solves.

    **Cost:** one product with A'WA a step; the penalty adds some passes over the volume.

    **Raises:** `InputError` for wrong shapes and unknown names.

    ```python
    from diffrecon.penalties import TotalVariation
    step = jnp.repeat(jnp.array([0.0, 1.0]), 8)
    solution = fista(lambda x: x, step, TotalVariation(0.8), x0=jnp.zeros(16), steps=60)
    assert jnp.allclose(solution.x[:8], 0.1, atol=1e-2)       # 0.8 / 8
    ```
    """
    if inner < 1:
        raise InputError(f"fista: inner must be at least 1, got {inner}")
    equations = normal_equations(A, b, weights=weights, x0=x0, support=normal) if isinstance(normal, str) else normal
    problem = _Proximal(equations.bare(), as_penalty(penalty), bounds, inner)
    lipschitz = None if lipschitz is None else jnp.asarray(lipschitz, equations.rhs.real.dtype)
    settings = (None if x0 is None and bounds is None else clipped(equations.inside(x0), bounds), lipschitz)
    rule = Rule(callback=callback)
    return equations.solved(_fista_begin, _fista_step, problem, settings, steps, rule)


def as_penalty(penalty: Any) -> Any:
    """An object with `start` and `prox`."""
    if penalty is None:
        return _Function(_unchanged)
    if hasattr(penalty, "prox") and hasattr(penalty, "start"):
        return penalty
    if callable(penalty):
        return _Function(penalty)
    raise InputError(
        f"penalty: {type(penalty).__name__} is neither an object of diffrecon.penalties nor a function prox(x, step)"
    )


def _unchanged(x: Array, step: Array) -> Array:
    return x


class _Proximal(eqx.Module):
    equations: NormalEquations
    penalty: Any
    bounds: Bounds
    inner: int = eqx.field(static=True)


class _FistaState(NamedTuple):
    residual: Array  # A'W(b - A x)
    ahead: Array
    residual_ahead: Array
    momentum: Array
    lipschitz: Array
    penalty: PyTree


@eqx.filter_jit
def largest_eigenvalue(equations: NormalEquations) -> Float[Array, ""]:
    """Find the largest eigenvalue of the normal equations, from below, to about a per cent.

    From a constant plus something random: the operators of tomography have smooth first eigenvectors.
    """
    product, like = equations.product, equations.rhs
    first = 1 + 0.1 * jax.random.normal(jax.random.key(0), like.shape, like.real.dtype)
    first = (first / norm(first)).astype(like.dtype)

    def body(carry):
        x, new, _, count = carry
        image = product(x)
        size = norm(image)
        return image / jnp.where(size > 0, size, 1), size, new, count + 1

    going = lambda carry: (carry[3] < _POWER_STEPS) & (jnp.abs(carry[1] - carry[2]) > 3e-3 * carry[1])
    zero = jnp.zeros((), like.real.dtype)
    found = lax.while_loop(going, body, (first, zero + 1, zero, 0))[1]
    return _SAFETY * jnp.where(found > 0, found, 1)


def _fista_begin(problem: _Proximal, x: Array | None, lipschitz: Array | None) -> Start:
    x, residual = problem.equations.begun(x)
    lipschitz = largest_eigenvalue(problem.equations) if lipschitz is None else lipschitz
    state = _FistaState(residual, x, residual, jnp.ones_like(lipschitz), lipschitz, problem.penalty.start(x))
    return problem.equations.start((), x, state, residual)


def _fista_step(problem: _Proximal, _: tuple, x: Array, state: _FistaState):
    step = 1 / state.lipschitz
    new, kept = problem.penalty.prox(
        state.ahead + step * state.residual_ahead, step, state.penalty, steps=problem.inner, bounds=problem.bounds
    )
    residual = problem.equations.residual(new)
    # |A d|^2 <= L |d|^2 must hold for the step that was made; it raises L where the power iteration stopped early.
    moved = new - state.ahead
    size = squared(moved)
    ratio = jnp.where(size > 0, dot(moved, state.residual_ahead - residual) / jnp.where(size > 0, size, 1), 0)
    lipschitz = jnp.maximum(state.lipschitz, _SAFETY * ratio)
    momentum = jnp.where(dot(moved, new - x) < 0, 1.0, state.momentum)
    following = (1 + jnp.sqrt(1 + 4 * momentum**2)) / 2
    speed = (momentum - 1) / following
    ahead = new + speed * (new - x)
    residual_ahead = residual + speed * (residual - state.residual)
    figure = problem.equations.misfit(new, residual)
    return new, _FistaState(residual, ahead, residual_ahead, following, lipschitz, kept), figure


# How a prediction meets the data, as proximal maps of the conjugate


class LeastSquares(eqx.Module):
    """`1/2 |A x - b|^2_W`.

    ```python
    term = LeastSquares()
    ```
    """

    def dual(self, p: Array, sigma: Array, b: Array, weights: Array) -> Array:
        """`argmin_q 1/(2 sigma) |q - p|^2 + F*(q)`."""
        return weights * (p - sigma * b) / (weights + sigma)


class Huber(eqx.Module):
    """Quadratic up to `threshold` [unit of b], linear beyond: zingers and bad columns pull, but not harder.

    ```python
    term = Huber(0.05)
    ```
    """

    threshold: Float[Array, ""]

    def __init__(self, threshold: ArrayLike):
        if not float(jnp.asarray(threshold)) > 0:
            raise InputError(f"Huber: the threshold {threshold} must be positive")
        self.threshold = jnp.asarray(threshold, jnp.zeros(()).dtype)

    def dual(self, p: Array, sigma: Array, b: Array, weights: Array) -> Array:
        """Return the proximal map of the conjugate, as `LeastSquares.dual` does."""
        limit = weights * self.threshold.astype(p.dtype)
        return jnp.clip(weights * (p - sigma * b) / (weights + sigma), -limit, limit)


class Poisson(eqx.Module):
    """Counts `b ~ A x + background`: `sum A x - b ln(A x + background)`.

    ```python
    term = Poisson(background=2.0)
    ```
    """

    background: Float[Array, "..."]

    def __init__(self, background: ArrayLike = 0.0):
        self.background = jnp.asarray(background, jnp.zeros(()).dtype)

    def dual(self, p: Array, sigma: Array, b: Array, weights: Array) -> Array:
        """Return the proximal map of the conjugate, as `LeastSquares.dual` does; weights are 0 (not measured) or 1."""
        p = p + sigma * self.background.astype(p.dtype)
        return jnp.where(weights > 0, 0.5 * (1 + p - jnp.sqrt((p - 1) ** 2 + 4 * sigma * b)), 0)


def primal_dual(
    A,
    b: Float[Array, "..."],
    penalty: Any = None,
    *,
    data: Any = None,
    steps: int = 300,
    x0: Float[Array, "..."] | None = None,
    weights: ArrayLike | None = None,
    bounds: Bounds = None,
    balance: float = 1.0,
    callback: Callback | None = None,
) -> LinearSolution:
    """`argmin data(A x) + penalty(x)` within bounds, by the primal-dual algorithm (Chambolle & Pock, J. Math. Imaging
    Vision 40, 120 (2011)) with a step for each pixel and each datum (Pock & Chambolle, ICCV 2011, eq. 10).

    No inner loops and no smoothing: the penalty is exact in the limit, and the data term need not be quadratic. For
    least squares `fista` is faster.

    **Arguments:** as `fista`; `penalty`: an object of `diffrecon.penalties`; `data`: `LeastSquares()` (default),
    `Huber(threshold)` or `Poisson(background)`, or any object with their method `dual`; `weights` multiply the data
    term. `balance` multiplies the dual steps and divides the primal ones: below 1 where x is large compared with what
    the data term's derivative is, above 1 otherwise; it changes the speed only.

    **Cost:** one forward and one adjoint a step.

    **Raises:** `InputError` for negative counts with `Poisson`, wrong shapes.

    ```python
    from diffrecon.penalties import TotalVariation
    noisy = jnp.repeat(jnp.array([1.0, 3.0]), 8).at[3].set(50.0)
    solution = primal_dual(lambda x: x, noisy, TotalVariation(0.5), data=Huber(0.5), x0=jnp.zeros(16), steps=500)
    assert solution.x[3] < 2.0
    ```
    """
    if not 0 < balance < float("inf"):
        raise InputError(f"primal_dual: balance {balance} must be positive")
    data = LeastSquares() if data is None else data
    b = checked_counts(b, "primal_dual with Poisson data") if isinstance(data, Poisson) else b
    operator = Operator.make(A, b, x0, weights)
    if penalty is not None and not hasattr(penalty, "analyse"):
        raise InputError("primal_dual: penalty must be an object of diffrecon.penalties; fista takes any function")
    problem, settings = _Saddle(operator, penalty, data, bounds), (jnp.asarray(balance),)
    return iterate(_saddle_begin, _saddle_step, problem, settings, steps, Rule(callback=callback))


class _Saddle(eqx.Module):
    operator: Operator
    penalty: Any
    data: Any
    bounds: Bounds


class _SaddleSteps(NamedTuple):
    tau: Array  # steps of the pixels
    sigma: Array  # steps of the data
    sigma_penalty: Array
    tau_auxiliary: Array


class _SaddleState(NamedTuple):
    image: Array  # A x
    image_ahead: Array
    ahead: Array
    auxiliary: PyTree
    auxiliary_ahead: PyTree
    dual: Array
    dual_penalty: PyTree


def _saddle_steps(operator: Operator, penalty: Any, balance: Array) -> _SaddleSteps:
    """Reciprocal sums of rows and columns. The penalty's share: K scaled so that it weighs as much as A on the mean."""
    columns = operator.adjoint(jnp.ones_like(operator.b))
    rows = operator.forward(jnp.ones_like(operator.start))
    sigma = balance * guarded_inverse(rows)
    if penalty is None:
        return _SaddleSteps(0.95 * guarded_inverse(columns) / balance, sigma, jnp.zeros(()), jnp.zeros(()))
    # K = s (K / s): any s splits the pixel's step between the two; that of equal parts makes neither the bottleneck.
    usual = jnp.maximum(jnp.mean(columns), jnp.finfo(columns.dtype).tiny ** 0.5)
    bound = jnp.asarray(penalty.bound(operator.start), columns.dtype)
    tau = 0.95 / (jnp.maximum(columns, 0) + usual) / balance
    return _SaddleSteps(tau, sigma, balance * usual / bound, 0.95 / usual / balance)


def _primal(problem: _Saddle, x: Array, auxiliary: PyTree) -> Any:
    return x if auxiliary is None else (x, auxiliary)


def _saddle_begin(problem: _Saddle, balance: Array) -> Start:
    operator, penalty = problem.operator, problem.penalty
    x = clipped(operator.start, problem.bounds)
    auxiliary = penalty.auxiliary(x) if hasattr(penalty, "auxiliary") else None
    image, dual = operator.forward(x), None
    if penalty is not None:
        shapes = jax.eval_shape(penalty.analyse, _primal(problem, x, auxiliary))
        dual = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), shapes)
    state = _SaddleState(image, image, x, auxiliary, auxiliary, jnp.zeros_like(image), dual)
    return operator.begun(_saddle_steps(operator, penalty, balance), state, x, operator.b - image)


def _saddle_step(problem: _Saddle, steps: _SaddleSteps, x: Array, state: _SaddleState):
    operator, penalty = problem.operator, problem.penalty
    weights = jnp.ones_like(operator.b) if operator.weights is None else operator.weights
    dual = problem.data.dual(state.dual + steps.sigma * state.image_ahead, steps.sigma, operator.b, weights)
    down, auxiliary, dual_penalty = operator.adjoint(dual), state.auxiliary, state.dual_penalty
    if penalty is not None:
        moved = penalty.analyse(_primal(problem, state.ahead, state.auxiliary_ahead))
        raised = jax.tree.map(lambda p, k: p + steps.sigma_penalty * k, state.dual_penalty, moved)
        dual_penalty = penalty.shrink(raised, steps.sigma_penalty)
        back = penalty.synthesise(dual_penalty)
        down = down + (back if auxiliary is None else back[0])
        if auxiliary is not None:
            auxiliary = jax.tree.map(lambda w, g: w - steps.tau_auxiliary * g, auxiliary, back[1])
    new = clipped(x - steps.tau * down, problem.bounds)
    image = operator.forward(new)
    twice = lambda new, old: jax.tree.map(lambda n, o: 2 * n - o, new, old)
    following = _SaddleState(
        image,
        twice(image, state.image),
        twice(new, x),
        auxiliary,
        twice(auxiliary, state.auxiliary),
        dual,
        dual_penalty,
    )
    return new, following, operator.norm(operator.b - image)

"""What the linear solvers share: the problem as a pytree, the compiled loop, the rules by which it ends.

`A` is any linear callable. Its adjoint is `A.adjoint` where there is one (an exact and fast one, as
`ParallelProjector` has), else the conjugate transpose that JAX derives. Arrays may be complex. `A.subset(views)`, or
`A(x, views)` and `A.adjoint(y, views)`, lets a solver leave views out; views are the first axis of the data.
"""

import time
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

from ..._cache import keep_compiled_programs
from ...errors import InputError
from ..ending import Ending, Interrupted
from ..progress import Callback, Progress

__all__ = ["LinearSolution"]

_CHUNK = 50  # steps between two calls of the user's callback
_MOST = 500  # steps between two looks of the host where nobody waits for one
_DATA = 2e7  # data times steps between two looks, some seconds of a CPU, so that Ctrl-C is heard
_LOOK = 10  # steps between two looks at a stopping rule
_DIVERGED = 100.0  # times the residual at the start

Bounds = tuple[float | None, float | None] | None


class LinearSolution(eqx.Module):
    """What a linear solver gives back.

    **Fields:** `x`; `history`, the relative residual `|A x - b| / |b|` after each step (NaN after a stop); `diverged`,
    true where it stopped because the residual was not finite or 100 times that of the start: x is then the last good
    one; `held_out`, the same residual of views that were left out, where `stopping="held-out"` asked for it; `message`,
    what the user should know (which rule ended it, which path was taken); `ending`, an `Ending` (not inside `jax.jit`).
    """

    x: Inexact[Array, "..."]
    history: Float[Array, " step"]
    diverged: Array | bool
    held_out: Float[Array, " judged"] | None = None
    message: str = eqx.field(static=True, default="")
    ended: Ending = eqx.field(static=True, default=Ending.DONE)

    @property
    def ending(self) -> Ending:
        """Tell how the iteration ended."""
        return Ending.DIVERGED if bool(self.diverged) else self.ended


class Operator(eqx.Module):
    """`min |A x - b|^2_W` as a pytree: arrays inside A are traced, functions are static."""

    forward: Callable[..., Array]
    b: Array
    weights: Array | None
    start: Array
    from_zero: bool = eqx.field(static=True, default=False)

    @classmethod
    def make(cls, A: Callable, b: ArrayLike, x0: ArrayLike | None, weights: ArrayLike | None = None) -> "Operator":
        """Checked data; data of weight zero become zero, so that NaN there does no harm."""
        keep_compiled_programs()
        b = jnp.asarray(b)
        if not jnp.issubdtype(b.dtype, jnp.inexact):
            b = b.astype(jnp.zeros(()).dtype)
        if weights is not None:
            weights = checked_weights(weights, b)
            b = jnp.where(weights > 0, b, 0)
        return cls(A, b, weights, first_guess(A, b, x0), x0 is None)

    def adjoint(self, y: Array) -> Array:
        known = getattr(self.forward, "adjoint", None)
        if known is not None:
            return known(y)
        transpose = jax.linear_transpose(self.forward, jax.ShapeDtypeStruct(self.start.shape, self.start.dtype))
        return jnp.conj(transpose(jnp.conj(y))[0])

    def residual(self, x: Array) -> Array:
        return self.b - self.forward(x)

    def first_residual(self) -> Array:
        """The residual at the start, without A where that is zero."""
        return self.b if self.from_zero else self.residual(self.start)

    def begun(self, fixed: Any, state: Any, x: Array | None = None, residual: Array | None = None) -> "Start":
        """The start of a solve from `x` (the first guess by default), whose residual may be known."""
        residual = self.first_residual() if residual is None else residual
        return Start(fixed, self.start if x is None else x, state, self.norm(self.b), self.norm(residual))

    def weighted(self, y: Array) -> Array:
        return y if self.weights is None else self.weights * y

    def norm(self, y: Array) -> Float[Array, ""]:
        """`|y|_W`."""
        return norm(y) if self.weights is None else norm(jnp.sqrt(self.weights) * y)


def checked_weights(weights: ArrayLike, b: Array) -> Array:
    """Weights (inverse variances) in the shape of the data; one a view is enough."""
    weights = jnp.asarray(weights, b.real.dtype)
    if weights.ndim == 1 and b.ndim > 1 and weights.shape[0] == b.shape[0]:
        weights = weights.reshape(-1, *(1,) * (b.ndim - 1))
    try:
        weights = jnp.broadcast_to(weights, b.shape)
    except ValueError as error:
        raise InputError(f"weights of shape {weights.shape} do not fit data of shape {b.shape}") from error
    if not isinstance(weights, Tracer) and not bool(jnp.all((weights >= 0) & jnp.isfinite(weights))):
        raise InputError("weights must be finite and not negative: they are inverse variances, 0 where nothing counts")
    return weights


def first_guess(A: Callable[..., Array], b: Array, x0: ArrayLike | None) -> Array:
    if x0 is not None:
        return jnp.asarray(x0)
    adjoint = getattr(A, "adjoint", None)
    if adjoint is None:
        raise InputError("the operator has no adjoint: give x0 (zeros of the shape of the solution)")
    like = jax.eval_shape(adjoint, b)
    return jnp.zeros(like.shape, like.dtype)


def norm(x: Array) -> Float[Array, ""]:
    return jnp.sqrt(squared(x))


def squared(x: Array) -> Float[Array, ""]:
    return jnp.sum(x.real**2 + x.imag**2) if jnp.iscomplexobj(x) else jnp.sum(x * x)


def dot(x: Array, y: Array) -> Float[Array, ""]:
    return jnp.sum(jnp.real(jnp.conj(x) * y))


def clipped(x: Array, bounds: Bounds) -> Array:
    low, high = (None, None) if bounds is None else bounds
    return x if low is None and high is None else jnp.clip(x, low, high)


# The loop


class Rule(NamedTuple):
    """When to end, and who wants to know: a residual to reach, views to be judged by, the user's callback."""

    target: Array | None = None
    judge: Operator | None = None
    callback: Callback | None = None


class Start(NamedTuple):
    """Numbers that stay, the first iterate, what a step hands to the next, `|b|` and `|A x - b|`."""

    fixed: Any
    x: Array
    state: Any
    size: Array
    residual: Array


class _Carry(NamedTuple):
    x: Array
    state: Any
    alive: Array
    reached: Array


@eqx.filter_jit
def _begun(begin: Callable[..., Start], problem: Any, settings: tuple) -> tuple[Any, _Carry, tuple[Array, Array]]:
    """The constants of a solve, its first iterate, `|b|` and the residual from which on it has diverged."""
    fixed, x, state, size, residual = begin(problem, *settings)
    scale = jnp.where(size > 0, size, 1)
    return (
        fixed,
        _Carry(x, state, jnp.asarray(True), jnp.asarray(False)),
        (
            scale,
            _DIVERGED * jnp.maximum(scale, residual),
        ),
    )


def iterate(
    begin: Callable[..., Start], step: Callable, problem: Any, settings: tuple, steps: int, rule: Rule
) -> LinearSolution:
    """Run `begin(problem, *settings)` and compiled steps `step(problem, fixed, x, state) -> x, state, residual`.

    Two programs, whatever the number of steps; callback and rules are looked at between runs of the second.
    """
    if steps < 1:
        raise InputError(f"steps must be at least 1, got {steps}")
    started = time.monotonic()
    fixed, carry, limit = _begun(begin, problem, settings)
    traced = any(isinstance(leaf, Tracer) for leaf in jax.tree.leaves((problem, fixed, carry)))
    length = _LOOK if rule.target is not None or rule.judge is not None else _MOST
    length = min(length, _CHUNK) if rule.callback is not None else length
    length = max(1, min(length, int(_DATA / max(1, *(getattr(leaf, "size", 1) for leaf in jax.tree.leaves(problem))))))
    curves, done, message, ended = [], 0, "", Ending.DONE
    try:
        while done < steps and not message:
            count = steps if traced else min(length, steps - done)
            size, number = (steps, count) if traced else (_MOST, jnp.asarray(count))
            new, curve = _chunk(step, (problem, fixed), carry, limit, rule.target, rule.judge, number, size)
            curve = curve if traced else np.asarray(curve)[:, :count]
            carry, done = new, done + count
            curves.append(curve)
            message, ended = _ending(rule, carry, done, steps, curves, time.monotonic() - started)
    except KeyboardInterrupt as stop:
        if not curves:
            raise
        solution = _solution(rule, carry, curves, steps, f"interrupted after step {_taken(curves)}", Ending.INTERRUPTED)
        raise Interrupted(solution) from stop
    if traced:
        return LinearSolution(carry.x, curves[0][0], jnp.logical_not(carry.alive), None, message, ended)
    return _solution(rule, carry, curves, steps, message, ended)


def _solution(
    rule: Rule, carry: _Carry, curves: list[Array | np.ndarray], steps: int, message: str, ended: Ending
) -> LinearSolution:
    """Put together what has been done."""
    history, judged = np.concatenate(curves, 1)
    diverged = not bool(carry.alive)
    if diverged:
        message = f"stopped after step {_taken(curves)}: the residual diverged; x is the one before"
        warnings.warn(message, stacklevel=5)
    history = jax.device_put(np.pad(history, (0, max(0, steps - history.size)), constant_values=np.nan))
    held_out = None if rule.judge is None else jax.device_put(judged)
    return LinearSolution(carry.x, history, diverged, held_out, message, ended)


def _taken(curves: list[Array | np.ndarray]) -> int:
    return int(np.sum(np.isfinite(np.concatenate(curves, 1)[0])))


def _ending(
    rule: Rule, carry: _Carry, done: int, steps: int, curves: list[Array | np.ndarray], seconds: float
) -> tuple[str, Ending]:
    """Say why the loop ends after this chunk; nothing where it goes on."""
    stop = False
    if rule.callback is not None:
        stop = rule.callback(Progress(done, steps, carry.x, float(curves[-1][0, -1]), seconds=seconds)) is True
        if not bool(carry.alive):
            return "diverged", Ending.DIVERGED
    if rule.target is not None and bool(carry.reached):
        return f"stopped after step {_taken(curves)}: the residual has come down to the noise", Ending.CONVERGED
    if rule.judge is not None:
        curve = np.concatenate(curves, 1)[1]
        # Past the minimum by as many steps as it took to get there, or clearly above it.
        best = int(np.argmin(curve)) if np.isfinite(curve).all() else 0
        if curve.size > max(2 * (best + 1), best + 2 * _LOOK) or curve[-1] > 1.05 * curve[best]:
            return f"the views held out are predicted best after step {best + 1}", Ending.CONVERGED
    return (f"stopped by the callback after step {done}", Ending.STOPPED) if stop else ("", Ending.DONE)


@eqx.filter_jit
def _chunk(step, problem, carry: _Carry, limit: tuple[Array, Array], target, judge, count: Array | int, size: int):
    """`count` (at most `size`) steps; one whose residual is not finite or far above the data is undone and the last.

    A number as `count` makes a loop that can be differentiated, an array one that serves all numbers of steps. Returns
    the carry and the residuals of the solve and of the views held out, `(2, size)`.
    """
    scale, worst = limit

    def body(index, both):
        (x, state, alive, reached), curves = both
        new_x, new_state, residual = step(*problem, x, state)
        good = alive & jnp.isfinite(residual) & (residual < worst) & jnp.all(jnp.isfinite(new_x))
        taken = good & ~reached
        x, state = jax.tree.map(lambda new, old: jnp.where(taken, new, old), (new_x, new_state), (x, state))
        alive, moved = good | (alive & reached), jnp.where(taken, residual / scale, jnp.nan)
        reached = reached if target is None else reached | (taken & (residual <= target))
        figure = moved if judge is None else judge.norm(judge.residual(x)) / judge.norm(judge.b)
        curves = curves.at[:, index].set(jnp.stack([moved, figure]))
        return _Carry(x, state, alive, reached), curves

    curves = jnp.full((2, size), jnp.nan, scale.dtype)
    return lax.fori_loop(0, count, body, (carry, curves))


# Rules that end a solve


def stopped(
    run: Callable[..., LinearSolution],
    A: Callable,
    b: ArrayLike,
    weights: ArrayLike | None,
    x0: ArrayLike | None,
    steps: int,
    *,
    stopping: str | None,
    noise: float | None,
    callback: Callback | None,
) -> LinearSolution:
    """`run(operator, steps, rule)` under the rule that the user named."""
    operator = Operator.make(A, b, x0, weights)
    if stopping is None:
        return run(operator, steps, Rule(callback=callback))
    if stopping == "discrepancy":
        return run(operator, steps, Rule(target=noise_norm(operator, noise), callback=callback))
    if stopping != "held-out":
        raise InputError(f'stopping = "{stopping}" is not known: give "held-out", "discrepancy" or None')
    train, held = split_views(operator.b.shape[0])
    judge = some_views(operator, held)
    first = run(some_views(operator, train), steps, Rule(judge=judge))
    assert first.held_out is not None
    best = int(np.argmin(np.asarray(first.held_out))) + 1
    final = run(operator, best, Rule(callback=callback))
    said = f"{best} steps: {len(held)} of {operator.b.shape[0]} views held out are then predicted best"
    said += "" if best < steps else " (the last step tried: more may be better)"
    return LinearSolution(final.x, final.history, final.diverged, first.held_out, said, final.ended)


def noise_norm(operator: Operator, noise: float | None) -> Array:
    """|noise|_W for a standard deviation a datum (of weights = 1/variance by default)."""
    if noise is None and operator.weights is None:
        raise InputError("the discrepancy needs noise= the standard deviation of a datum, or weights = 1/variance")
    count = operator.b.size if operator.weights is None else jnp.sum(operator.weights > 0)
    return jnp.asarray(1.0 if noise is None else noise) * jnp.sqrt(jnp.asarray(count, operator.b.real.dtype))


def split_views(count: int, fold: int = 0, folds: int | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Views to solve with and views to judge by: about one in eight, one from each run of neighbours at random.

    A regular choice would beat with symmetries of the sample.
    """
    if count < 8:
        raise InputError(f"{count} views are too few to hold some out: use stopping=None or the discrepancy")
    folds = 8 if folds is None else folds
    rng = np.random.default_rng(count)
    labels = np.concatenate([rng.permutation(folds) for _ in range(-(-count // folds))])[:count]
    return np.flatnonzero(labels != fold), np.flatnonzero(labels == fold)


class _Selected(eqx.Module):
    """Some views of an operator that takes `views`."""

    whole: Callable[..., Array]
    views: Array

    def __call__(self, x: Array) -> Array:
        return self.whole(x, self.views)

    def adjoint(self, y: Array) -> Array:
        return self.whole.adjoint(y, self.views)  # pyright: ignore[reportFunctionMemberAccess]

    def subset(self, views: np.ndarray) -> "_Selected":
        return _Selected(self.whole, self.views[views])


def some_views(operator: Operator, views: np.ndarray) -> Operator:
    """The problem of some of the views."""
    subset = getattr(operator.forward, "subset", None)
    A = subset(views) if subset is not None else _Selected(operator.forward, jnp.asarray(views))
    weights = None if operator.weights is None else operator.weights[views]
    return Operator(A, operator.b[views], weights, operator.start, operator.from_zero)

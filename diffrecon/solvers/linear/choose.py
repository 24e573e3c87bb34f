"""The weight of a penalty, chosen by the data."""

import dataclasses
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float, Inexact

from ...errors import InputError
from ..ending import Ending, Interrupted
from ..progress import Callback
from .iterate import Bounds, LinearSolution, Operator, noise_norm, some_views, split_views
from .normal import NormalEquations, normal_equations
from .proximal import fista, largest_eigenvalue

__all__ = ["WeightChoice", "choose_weight"]

_RATIO = 4.0  # between neighbours of the coarse ladder
_RUNGS = 12
_FIRST = 0.1  # first weight, of the largest gradient at a constant volume


class WeightChoice(eqx.Module):
    """Weight of a penalty, and those that were tried for it.

    **Fields:** `weight`; `weights` that were tried, ascending, and `residuals`, the relative residual at each: of the
    views held out, or of all views (discrepancy); `target`, the residual of noise alone (discrepancy); `solution`, that
    of all views with the chosen weight; `message`.
    """

    weight: float
    weights: Float[np.ndarray, " trial"]
    residuals: Float[np.ndarray, " trial"]
    target: float | None
    solution: LinearSolution
    message: str


def choose_weight(
    A,
    b: Inexact[ArrayLike, "view *rest"],
    penalty: Any,
    *,
    method: str = "held-out",
    noise: float | None = None,
    weights: ArrayLike | None = None,
    bounds: Bounds = None,
    steps: int = 60,
    folds: int = 1,
    final_steps: int = 100,
    tried: Callable[[float, float], Any] | None = None,
    callback: Callback | None = None,
) -> WeightChoice:
    """The weight of a penalty in `fista`, and the solution with it.

    `"held-out"`: solves without one view in eight and takes the weight whose solution predicts those best
    (cross-validation; Stone 1974). Needs no knowledge of the noise and counts all errors of the model.
    `"discrepancy"`: takes the weight at which the residual is that of the noise (Morozov 1966), where `noise`, the
    standard deviation of a datum, or `weights` = 1/variance are known. It smooths more, and cannot be met where the
    model's own errors exceed the noise.

    Weights are tried on a ladder of powers of 4 from large to small, each from the solution before, until the residual
    held out has risen twice; then between the best and its neighbours, and a parabola through the logarithms.

    **Arguments:** `A`, `b`, `weights`, `bounds` as in `fista`; `penalty`: an object of `diffrecon.penalties`, whose own
    weight is not used; `steps` of each trial, `final_steps` of the solution; `folds` 1 to 8: how many different eighths
    of the views are held out; `tried(weight, residual)` is called after each trial, `callback` in the final solve.

    **Cost:** about 8 trials a fold of `steps` each.

    **Raises:** `InputError` for fewer than 8 views, a discrepancy without noise, unknown names.

    ```python
    from diffrecon.penalties import TotalVariation
    A = dr.operators.ParallelProjector(np.linspace(0, np.pi, 24, endpoint=False), (32, 32), 48)
    disc = jnp.asarray(np.hypot(*np.mgrid[-16:16, -16:16]) < 10, jnp.float32)
    noisy = A(disc) + 0.3 * jax.random.normal(jax.random.key(0), (24, 48))
    choice = choose_weight(A, noisy, TotalVariation(), bounds=(0.0, None))
    assert jnp.linalg.norm(choice.solution.x - disc) < 0.2 * jnp.linalg.norm(disc)
    ```
    """
    if not hasattr(penalty, "scaled"):
        raise InputError("choose_weight: penalty must be an object of diffrecon.penalties, which has a weight")
    if method not in ("held-out", "discrepancy") or not 1 <= folds <= 8:
        raise InputError(f'choose_weight: method "{method}" must be "held-out" or "discrepancy", folds {folds} in 1..8')
    operator = Operator.make(A, b, None, weights)
    equations = normal_equations(A, operator.b, weights=weights)
    target = None
    if method == "discrepancy":
        target = float(noise_norm(operator, noise) / operator.norm(operator.b))
        trials = [_Trial.whole(equations, penalty, bounds, steps)]
    else:
        views = operator.b.shape[0]
        trials = [
            _Trial.without(operator, weights, split_views(views, fold), penalty, bounds, steps) for fold in range(folds)
        ]
    # Fewer views have a smaller |A|^2: one estimate does for all.
    lipschitz = largest_eigenvalue(equations.bare())
    curve: dict[float, float] = {}

    def measure(weight: float) -> float:
        curve[weight] = np.nan  # until it is known: where Ctrl-C comes meanwhile
        curve[weight] = float(np.mean([trial(weight, lipschitz) for trial in trials]))
        if tried is not None:
            tried(weight, curve[weight])
        return curve[weight]

    def choice(weight: float, solution: LinearSolution, message: str) -> WeightChoice:
        weights = np.array(sorted(curve))
        return WeightChoice(weight, weights, np.array([curve[w] for w in weights]), target, solution, message)

    try:
        _descend(curve, measure, _FIRST * _largest_gradient(equations), target)
        weight, message = _at_target(curve, target) if target is not None else _at_minimum(curve, measure)
    except KeyboardInterrupt as stop:
        weight, last = list(curve)[-1] if curve else np.nan, getattr(stop, "solution", None)
        if last is None and trials[0].last is not None:
            weight, last = trials[0].last
            last = dataclasses.replace(last, ended=Ending.INTERRUPTED)
        if last is None:
            raise
        said = f"weight {weight:.3g}: interrupted while the weight was chosen, with views left out"
        raise Interrupted(choice(weight, last, said)) from stop
    try:
        solution = fista(
            A, operator.b, penalty.scaled(weight), steps=final_steps, bounds=bounds, normal=equations,
            lipschitz=lipschitz, callback=callback,
        )  # fmt: skip
    except Interrupted as stop:
        raise Interrupted(choice(weight, stop.solution, message)) from stop
    return choice(weight, solution, message)


class _Trial:
    """Solves for one weight after another, each from the solution before, and gives the residual that counts."""

    def __init__(self, equations: NormalEquations, judge: Operator | None, share: float, penalty, bounds, steps: int):
        self.equations, self.judge, self.share = equations, judge, share
        self.penalty, self.bounds, self.steps = penalty, bounds, steps
        self.start: Array | None = None
        self.last: tuple[float, LinearSolution] | None = None

    @classmethod
    def whole(cls, equations: NormalEquations, penalty, bounds: Bounds, steps: int) -> "_Trial":
        return cls(equations, None, 1.0, penalty, bounds, steps)

    @classmethod
    def without(cls, operator: Operator, weights, split, penalty, bounds: Bounds, steps: int) -> "_Trial":
        train, held = split
        part = some_views(operator, train)
        each = weights if weights is None or np.ndim(weights) == 0 else np.asarray(weights)[train]
        equations = normal_equations(part.forward, part.b, weights=each, x0=part.start)
        # The data term is a sum: with fewer views the same balance has a smaller weight.
        share = len(train) / (len(train) + len(held))
        return cls(equations, some_views(operator, held), share, penalty, bounds, steps)

    def __call__(self, weight: float, lipschitz: Array) -> float:
        operator = self.equations.problem
        penalty = self.penalty.scaled(weight * self.share)
        solution = fista(
            operator.forward,
            operator.b,
            penalty,
            steps=self.steps,
            x0=self.start,
            bounds=self.bounds,
            normal=self.equations,
            lipschitz=lipschitz,
        )
        self.start, self.last = solution.x, (weight, solution)
        if self.judge is None:
            return float(solution.history[-1])
        return float(self.judge.norm(self.judge.residual(solution.x)) / self.judge.norm(self.judge.b))


def _largest_gradient(equations: NormalEquations) -> float:
    """Largest element of A'W(b - A c) for the constant c that fits best: the scale of every weight."""
    ones = jnp.ones_like(equations.rhs)
    product = equations.product(ones)
    level = jnp.vdot(ones, equations.rhs) / jnp.vdot(ones, product)
    largest = float(jnp.max(jnp.abs(equations.rhs - level * product)))
    if not largest > 0:
        raise InputError("choose_weight: the data are those of a constant volume; there is nothing to choose")
    return largest


def _descend(curve: dict[float, float], measure: Callable[[float], float], first: float, target: float | None) -> None:
    """Go down the coarse ladder until the residual has risen twice (or has reached the target)."""
    for rung in range(_RUNGS):
        measure(first * _RATIO**-rung)
        values = list(curve.values())
        if target is not None and values[-1] <= target:
            break
        if target is None and len(values) > 2 and min(values[-2:]) > min(values[:-2]):
            break


def _at_minimum(curve: dict[float, float], measure: Callable[[float], float]) -> tuple[float, str]:
    best = min(curve, key=lambda w: curve[w])
    for weight in (best * _RATIO**0.5, best / _RATIO**0.5):
        measure(weight)
    tried = sorted(curve)
    best = min(tried, key=lambda w: curve[w])
    position = tried.index(best)
    if position in (0, len(tried) - 1):
        end = "smallest" if position == 0 else "largest"
        return best, f"weight {best:.3g}, the {end} tried: the views held out do not tell how much to smooth"
    near = tried[position - 1 : position + 2]
    weight = float(np.exp(_vertex(np.log(near), np.log([curve[w] for w in near]))))
    return weight, f"weight {weight:.3g}: the views held out are predicted best, to {curve[best]:.4f} of their norm"


def _vertex(x: np.ndarray, y: np.ndarray) -> float:
    """Lowest point of the parabola through three points."""
    curvature, slope, _ = np.polyfit(x - x[1], y, 2)
    return float(x[1] - (slope / (2 * curvature) if curvature > 0 else 0.0))


def _at_target(curve: dict[float, float], target: float) -> tuple[float, str]:
    weights = np.array(sorted(curve))
    residuals = np.array([curve[w] for w in weights])
    if residuals[0] > target:
        said = f"weight {weights[0]:.3g}, the smallest tried, leaves a residual of {residuals[0]:.4f}, the noise is "
        return float(weights[0]), said + f"{target:.4f}: the model's error is larger than the noise"
    above = int(np.argmax(np.append(residuals > target, True)))
    if above == len(weights):
        return float(weights[-1]), f"weight {weights[-1]:.3g}: even the largest tried comes down to the noise"
    pair = slice(above - 1, above + 1)
    weight = float(np.exp(np.interp(np.log(target), np.log(residuals[pair]), np.log(weights[pair]))))
    return weight, f"weight {weight:.3g}: the residual is that of the noise, {target:.4f}"

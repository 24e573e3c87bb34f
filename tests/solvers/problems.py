"""Small problems with known answers, and solvers as functions of a problem: the tests run every pair that fits.

A new solver is one line in `SOLVERS`, a new problem one line in `PROBLEMS`.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

import diffrecon as dr
from diffrecon import solvers


@dataclasses.dataclass(frozen=True)
class Problem:
    """`residual(x, batch)` has one row a view and vanishes at `answer`; `matrix` and `right` where it is linear."""

    residual: Callable[[Any, Any], Any]
    start: Any
    data: dict[str, np.ndarray] | None
    answer: Any
    matrix: np.ndarray | None = None
    right: np.ndarray | None = None

    def cost(self, x, batch):
        rows = self.residual(x, batch)
        return 0.5 * jnp.mean(jnp.real(rows * jnp.conj(rows)))


def _linear(seed: int, positive: bool = False) -> Problem:
    """Twelve equations, four unknowns, condition about two."""
    rng = np.random.default_rng(seed)
    matrix = np.linalg.qr(rng.standard_normal((12, 4)))[0] * np.array([1.0, 1.2, 1.5, 2.0]) * 3
    answer = rng.standard_normal(4)
    if positive:
        matrix, answer = rng.uniform(0.1, 1, (12, 4)), rng.uniform(0.5, 2, 4)
    right = matrix @ answer
    data = {"rows": matrix.astype(np.float32), "values": right.astype(np.float32)}
    return Problem(
        lambda x, b: b.rows @ x - b.values, jnp.full(4, 0.7 if positive else 0.0), data, answer, matrix, right
    )


def _complex(seed: int = 3) -> Problem:
    """Complex least squares: diverges where gradients are not conjugated."""
    rng = np.random.default_rng(seed)
    draw = lambda *shape: rng.standard_normal(shape) + 1j * rng.standard_normal(shape)
    matrix = np.linalg.qr(draw(12, 4))[0] * 3
    answer = draw(4)
    data = {"rows": matrix.astype(np.complex64), "values": (matrix @ answer).astype(np.complex64)}

    def residual(x, batch):
        difference = batch.rows @ x - batch.values
        return jnp.stack([difference.real, difference.imag], -1)

    return Problem(residual, jnp.zeros(4, jnp.complex64), data, answer)


def _curve(seed: int = 4) -> Problem:
    """A decaying exponential: non-linear, amplitude and rate of different size."""
    t = np.linspace(0, 2, 20)
    data = {"t": t.astype(np.float32), "y": (3 * np.exp(-1.5 * t)).astype(np.float32)}
    return Problem(
        lambda x, b: x["amplitude"] * jnp.exp(-x["rate"] * b.t) - b.y,
        {"amplitude": jnp.asarray(1.0), "rate": jnp.asarray(0.5)},
        data,
        {"amplitude": 3.0, "rate": 1.5},
    )


def _rosenbrock() -> Problem:
    """Rosenbrock's valley as residuals: `(10 (x1 - x0^2), 1 - x0)`; a cost without data."""
    return Problem(
        lambda x, b: jnp.stack([10 * (x[1] - x[0] ** 2), 1 - x[0]]),
        jnp.asarray([-1.2, 1.0]),
        None,
        np.array([1.0, 1.0]),
    )


PROBLEMS = {
    "linear": _linear(1),
    "linear, positive": _linear(2, positive=True),
    "complex": _complex(),
    "curve": _curve(),
    "rosenbrock": _rosenbrock(),
}


def _minimise(optimiser, steps):
    return lambda p: dr.minimise(p.cost, p.start, p.data, optimiser, steps=steps).value


def _levenberg_marquardt(p: Problem):
    return solvers.levenberg_marquardt(p.residual, p.start, p.data, steps=60, tolerance=0.0, damping=1e-3).value


def _linear_solver(solver, steps):
    def solve(p: Problem):
        matrix, right = jnp.asarray(p.matrix, jnp.float32), jnp.asarray(p.right, jnp.float32)
        return solver(lambda x: matrix @ x, right, x0=p.start, steps=steps).x

    return solve


# name -> (solve, problems it is made for, tolerance relative to the answer)
ALL = tuple(PROBLEMS)
SOLVERS: dict[str, tuple[Callable[[Problem], Any], tuple[str, ...], float]] = {
    "adam": (_minimise(optax.adam(optax.cosine_decay_schedule(0.05, 3000)), 3000), ALL, 0.02),
    "sgd": (_minimise(optax.sgd(0.5), 400), ("linear", "complex", "curve"), 1e-3),
    "momentum": (
        _minimise(optax.sgd(0.1, momentum=0.9), 600),
        ("linear", "linear, positive", "complex", "curve"),
        1e-3,
    ),
    "lbfgs": (_minimise(optax.lbfgs(), 60), ("linear, positive", "complex", "rosenbrock"), 1e-3),
    "levenberg-marquardt": (_levenberg_marquardt, ALL, 1e-3),
    "cgls": (_linear_solver(solvers.cgls, 6), ("linear", "linear, positive"), 1e-4),
    "lsqr": (_linear_solver(solvers.lsqr, 4), ("linear", "linear, positive"), 1e-4),
    "fista": (_linear_solver(solvers.fista, 300), ("linear", "linear, positive"), 1e-3),
    "primal-dual": (_linear_solver(solvers.primal_dual, 3000), ("linear, positive",), 1e-2),
    "sirt": (_linear_solver(solvers.sirt, 3000), ("linear, positive",), 1e-2),
    "mlem": (_linear_solver(solvers.mlem, 3000), ("linear, positive",), 1e-2),
}


def relative_error(found: Any, answer: Any) -> float:
    """`|found - answer| / |answer|` over all leaves."""
    found, answer = (np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(t)]) for t in (found, answer))
    return float(np.linalg.norm(found - answer) / np.linalg.norm(answer))

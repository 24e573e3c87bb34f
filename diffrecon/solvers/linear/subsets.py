"""Ordered subsets: a step for each group of views. One pass over the data gets as far as several whole steps."""

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, ArrayLike, Float, Int

from ...errors import InputError
from ..progress import Callback
from .iterate import Bounds, LinearSolution, Operator, Rule, Start, clipped, iterate, some_views, stopped
from .least_squares import checked_counts, guarded_inverse, mlem_factor, mlem_level

__all__ = ["osem", "sart", "subset_views"]


def sart(
    A,
    b: Float[Array, "view *ray"],
    *,
    steps: int = 10,
    subsets: int = 10,
    x0: Float[Array, "..."] | None = None,
    relaxation: float = 1.0,
    bounds: Bounds = None,
    weights: ArrayLike | None = None,
    stopping: str | None = None,
    noise: float | None = None,
    callback: Callback | None = None,
) -> LinearSolution:
    """Simultaneous algebraic reconstruction on ordered subsets (OS-SART): the step of `sirt` for one subset of the
    views after the other (Andersen & Kak, Ultrasonic Imaging 6, 81 (1984); Wang & Jiang, J. X-Ray Sci. Technol. 12, 169
    (2004)).

    Subsets are interleaved in angle and follow each other at large angular distances. One subset is `sirt`.

    **Arguments:** as `sirt`; `subsets`: number of groups of views. Much fewer than 20: each is compiled by itself, and
    groups of few views do not pay (each step transforms the volume). With noise the iterates run around in a cycle, the
    smaller the `relaxation` the nearer to the least-squares solution.

    **Returns:** the history has the residual of each pass, of every subset when it had its turn.

    **Cost:** a pass is one forward and one adjoint, and the transforms of the volume once a subset.

    **Raises:** `InputError` for a relaxation outside (0, 2), more subsets than views, an operator that cannot pick
    views.

    ```python
    A = dr.operators.ParallelProjector(np.linspace(0, np.pi, 30, endpoint=False), (32, 32), 32)
    solution = sart(A, A(jnp.ones((32, 32))), steps=3, subsets=3, bounds=(0.0, None))
    ```
    """
    if not 0 < relaxation < 2:
        raise InputError(f"sart: relaxation {relaxation} must lie between 0 and 2, outside it diverges")
    run = partial(_sart, subsets=subsets, relaxation=relaxation, bounds=bounds)
    return stopped(run, A, b, weights, x0, steps, stopping=stopping, noise=noise, callback=callback)


def osem(
    A,
    b: Float[Array, "view *ray"],
    *,
    steps: int = 5,
    subsets: int = 10,
    x0: Float[Array, "..."] | None = None,
    stopping: str | None = None,
    callback: Callback | None = None,
) -> LinearSolution:
    """Maximum likelihood of Poisson data on ordered subsets: the step of `mlem` for one subset of the views after the
    other (Hudson & Larkin, IEEE Trans. Med. Imaging 13, 601 (1994)).

    **Arguments:** as `mlem` and `sart`. **Raises:** `InputError` for negative data, more subsets than views.
    """
    run = partial(_osem, subsets=subsets, level=x0 is None)
    return stopped(run, A, checked_counts(b, "osem"), None, x0, steps, stopping=stopping, noise=None, callback=callback)


def subset_views(angles: ArrayLike | None, views: int, subsets: int) -> list[Int[np.ndarray, " view"]]:
    """Views of each subset, in the order in which to use the subsets.

    Every subset has each `subsets`-th view in order of the angle modulo pi, and is followed by one about 0.38 of a
    subset's gap further (the golden section keeps new directions far from all that were used: Kohler 2004).

    ```python
    assert [list(v) for v in subset_views(None, 6, 3)] == [[0, 3], [1, 4], [2, 5]]
    ```
    """
    if not 1 <= subsets <= views:
        raise InputError(f"{views} views cannot be cut into {subsets} subsets")
    known = angles is not None and not isinstance(angles, Tracer)
    order = np.argsort(np.mod(np.asarray(angles, np.float64), np.pi), kind="stable") if known else np.arange(views)
    stride = max(1, round(subsets * 0.382))
    while math.gcd(stride, subsets) > 1:
        stride += 1
    return [np.sort(order[(k * stride) % subsets :: subsets]) for k in range(subsets)]


def _parts(operator: Operator, subsets: int) -> tuple[list[Operator], list[np.ndarray]]:
    A = operator.forward
    if not hasattr(A, "subset") and not hasattr(A, "adjoint"):
        raise InputError(
            "ordered subsets need an operator that can pick views: A.subset(views), or A(x, views) and "
            "A.adjoint(y, views)"
        )
    if any(isinstance(leaf, Tracer) for leaf in (operator.b, operator.start)):
        raise InputError("subsets are made in NumPy: call sart and osem outside jax.jit")
    views = subset_views(getattr(A, "angles", None), operator.b.shape[0], subsets)
    return [some_views(operator, v) for v in views], views


def _sart(
    operator: Operator, steps: int, rule: Rule, subsets: int, relaxation: float, bounds: Bounds
) -> LinearSolution:
    parts, views = _parts(operator, subsets)
    rows = operator.weighted(_row_weights(operator))
    columns = [relaxation * guarded_inverse(_column_sums(operator, v)) for v in views]
    factors = [(rows[v], column) for v, column in zip(views, columns, strict=True)]
    return iterate(_pass_begin, _sart_pass, parts, (operator, operator.start, (factors, bounds)), steps, rule)


def _pass_begin(parts: list[Operator], operator: Operator, x: Array, fixed: Any) -> Start:
    return operator.begun(fixed, (), x)


@eqx.filter_jit
def _row_weights(operator: Operator) -> Array:
    return guarded_inverse(operator.forward(jnp.ones_like(operator.start)))


def _column_sums(operator: Operator, views: np.ndarray) -> Array:
    """A'W 1 over some views, by the whole operator: it is compiled once."""
    picked = np.zeros(operator.b.shape[0])
    picked[views] = 1
    shape = (-1,) + (1,) * (operator.b.ndim - 1)
    ones = jnp.asarray(picked.reshape(shape), operator.b.dtype) * jnp.ones_like(operator.b)
    return _adjoint(operator, operator.weighted(ones))


@eqx.filter_jit
def _adjoint(operator: Operator, y: Array) -> Array:
    return operator.adjoint(y)


def _pass(parts: list[Operator], step: Callable[[int, Array, Array], Array], x: Array) -> tuple[Array, Array]:
    """All subsets in turn; x and the residual that they met."""
    total = jnp.zeros((), x.dtype)
    for number, part in enumerate(parts):
        residual = part.residual(x)
        total = total + part.norm(residual) ** 2
        x = step(number, x, residual)
    return x, jnp.sqrt(total)


def _sart_pass(parts: list[Operator], fixed: tuple, x: Array, state: tuple):
    factors, bounds = fixed

    def step(number: int, x: Array, residual: Array) -> Array:
        row, column = factors[number]
        return clipped(x + column * parts[number].adjoint(row * residual), bounds)

    x, residual = _pass(parts, step, x)
    return x, state, residual


def _osem(operator: Operator, steps: int, rule: Rule, subsets: int, level: bool) -> LinearSolution:
    parts, views = _parts(operator, subsets)
    x = eqx.filter_jit(mlem_level)(operator)[0] if level else operator.start
    sensitivities = [_column_sums(operator, v) for v in views]
    return iterate(_pass_begin, _osem_pass, parts, (operator, x, sensitivities), steps, rule)


def _osem_pass(parts: list[Operator], sensitivities: list[Array], x: Array, state: tuple):
    def step(number: int, x: Array, residual: Array) -> Array:
        part = parts[number]
        return x * mlem_factor(part, sensitivities[number], part.b - residual)

    x, residual = _pass(parts, step, x)
    return x, state, residual

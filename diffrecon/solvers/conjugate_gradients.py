"""Conjugate gradients for symmetric positive systems of any pytree: one loop for all that solve one inside."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

__all__ = ["ConjugateState", "conjugate_gradients", "conjugate_start", "conjugate_step", "inner"]

_TINY = 1e-30
Operator = Callable[[PyTree], PyTree]
Inner = Callable[[PyTree, PyTree], Array]


def conjugate_gradients(
    apply: Operator,
    b: PyTree,
    *,
    x0: PyTree | None = None,
    precondition: Operator | None = None,
    steps: Array | int,
    tolerance: Any = None,
    dot: Inner | None = None,
) -> tuple[PyTree, PyTree]:
    """Solve `apply(x) = b` for a real symmetric positive operator on pytrees (Hestenes & Stiefel 1952).

    **Arguments:** `b`, the right side; `x0`, default 0; `precondition`, about the inverse of `apply`, symmetric too;
    `steps` at most, may be traced, so that other numbers compile nothing; `tolerance`: end where the residual (in the
    norm of the preconditioner) has fallen to this fraction of what it was, `None` for all steps (a loop that can be
    differentiated, if `steps` is a number); `dot`, the inner product, by default `Re sum conj(a) b` over all leaves.
    One that keeps axes solves several systems side by side.

    **Returns:** the solution and the residual `b - apply(x)` that is left. **Cost:** one product a step, and one for a
    first guess.

    ```python
    matrix = jnp.array([[4.0, 1.0], [1.0, 3.0]])
    x, left = conjugate_gradients(lambda x: matrix @ x, jnp.array([1.0, 2.0]), steps=2)
    assert jnp.allclose(matrix @ x, jnp.array([1.0, 2.0]), atol=1e-5)
    ```
    """
    alike = lambda tree: jax.tree.map(lambda a, like: a.astype(like.dtype), tree, b)  # constants may be of 64 bits
    product, improve, dot = apply, precondition or (lambda x: x), dot or inner
    apply, precondition = lambda x: alike(product(x)), lambda x: alike(improve(x))
    x0 = x0 if x0 is None else alike(x0)
    zero = jax.tree.map(jnp.zeros_like, b)
    residual = b if x0 is None else jax.tree.map(jnp.subtract, b, apply(x0))
    state = conjugate_start(zero if x0 is None else x0, residual, precondition, dot)

    def body(state: ConjugateState) -> ConjugateState:
        return conjugate_step(state, apply(state.direction), precondition, dot)

    if tolerance is None:
        state = jax.lax.fori_loop(0, steps, lambda _, state: body(state), state)
    else:
        first = state.size
        going = lambda carry: (carry[0] < steps) & jnp.any(carry[1].size > tolerance**2 * first)
        state = jax.lax.while_loop(going, lambda carry: (carry[0] + 1, body(carry[1])), (0, state))[1]
    return state.x, state.residual


class ConjugateState(NamedTuple):
    """Carry conjugate gradients from one step to the next.

    **Fields:** `x`; `residual` of it; `direction` of the next step; `size`, the squared norm of the residual;
    `length` of the last step along its direction.
    """

    x: PyTree
    residual: PyTree
    direction: PyTree
    size: Float[Array, "..."]
    length: Float[Array, "..."]


def conjugate_start(x: PyTree, residual: PyTree, precondition: Operator, dot: Inner | None = None) -> ConjugateState:
    """Begin conjugate gradients at `x` with its residual, for loops that cannot be compiled as a whole."""
    direction = precondition(residual)
    size = (dot or inner)(residual, direction)
    return ConjugateState(x, residual, direction, size, jnp.zeros_like(size))


def conjugate_step(
    state: ConjugateState, image: PyTree, precondition: Operator, dot: Inner | None = None
) -> ConjugateState:
    """Take one step, given the operator's product with `state.direction`."""
    dot = dot or inner
    length = state.size / jnp.maximum(dot(state.direction, image), _TINY)
    x, residual = _add(length, state.direction, state.x), _add(-length, image, state.residual)
    correction = precondition(residual)
    size = dot(residual, correction)
    direction = _add(size / jnp.maximum(state.size, _TINY), state.direction, correction)
    return ConjugateState(x, residual, direction, size, length)


def inner(a: PyTree, b: PyTree) -> Float[Array, ""]:
    """Return `Re sum conj(a) b` over all leaves: the inner product of the numbers as pairs of reals."""
    pairs = zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    return sum((jnp.sum(jnp.real(jnp.conj(p) * q)) for p, q in pairs), start=jnp.zeros(()))


def _add(factor: Array, x: PyTree, y: PyTree) -> PyTree:
    return jax.tree.map(lambda p, q: factor.astype(q.real.dtype) * p + q, x, y)

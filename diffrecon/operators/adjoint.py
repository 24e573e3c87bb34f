"""The adjoint of any linear operator, taken from the operator itself, and the test that it is one."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, PyTree

__all__ = ["adjoint_of", "dot_test", "inner", "random_like"]


def _structure(x: PyTree) -> PyTree:
    return jax.tree.map(lambda a: jax.ShapeDtypeStruct(jnp.shape(a), jnp.result_type(a)), x)


def adjoint_of(function: Callable[[PyTree], PyTree], x_like: PyTree) -> Callable[[PyTree], PyTree]:
    """The adjoint of a linear function of one argument: `conj(transpose(conj(y)))`.

    **Arguments:** `x_like` has the shapes and types of the argument (arrays or `jax.ShapeDtypeStruct`).

    **Returns:** a function from outputs to inputs. Its cost is that of the transposed operations: a gather becomes a
    scatter, which is slow; operators that can do better have their own `adjoint`.

    ```python
    forward = lambda x: jnp.fft.fft(x, norm="ortho")
    backward = adjoint_of(forward, jnp.zeros(8, jnp.complex64))
    ```
    """
    transpose = jax.linear_transpose(function, _structure(x_like))

    def adjoint(y: PyTree) -> PyTree:
        (x,) = transpose(jax.tree.map(jnp.conj, y))
        return jax.tree.map(jnp.conj, x)

    return adjoint


def inner(a: PyTree, b: PyTree) -> Array:
    """`sum conj(a) b` over all leaves."""
    products = jax.tree.map(lambda p, q: jnp.vdot(p, q, precision=jax.lax.Precision.HIGHEST), a, b)
    return sum(jax.tree.leaves(products), start=jnp.zeros(()))


def random_like(x_like: PyTree, seed: int) -> PyTree:
    """Signed standard normal numbers (complex where `x_like` is) of the same shapes."""
    generator = np.random.default_rng(seed)

    def draw(x: Any) -> Array:
        shape, dtype = jnp.shape(x), jnp.result_type(x)
        real = generator.standard_normal(shape)
        if jnp.issubdtype(dtype, jnp.complexfloating):
            real = real + 1j * generator.standard_normal(shape)
        return jnp.asarray(real, dtype)

    return jax.tree.map(draw, x_like)


def dot_test(
    forward: Callable[[PyTree], PyTree],
    adjoint: Callable[[PyTree], PyTree],
    x_like: PyTree,
    y_like: PyTree | None = None,
    seed: int = 0,
) -> float:
    """`|<y, A x> - <A'y, x>| / (|y| |A x|)` for random signed x and y: zero for a matched pair.

    The products are summed in float64, so that what is measured is the operator and not the sum.

    ```python
    forward = lambda x: 2.0 * x
    assert dot_test(forward, forward, jnp.zeros(5)) < 1e-6
    ```
    """
    x = random_like(x_like, seed)
    image = forward(x)
    y = random_like(image if y_like is None else y_like, seed + 1)
    back = adjoint(y)
    left = _inner64(y, image)
    right = _inner64(back, x)
    scale = np.sqrt(abs(_inner64(y, y)) * abs(_inner64(image, image)))
    # Real parameters of complex operators see the real part of the inner product only.
    if all(not jnp.issubdtype(jnp.result_type(a), jnp.complexfloating) for a in jax.tree.leaves(x)):
        left, right = left.real, right.real
    return float(abs(left - right) / scale)


def _inner64(a: PyTree, b: PyTree) -> complex:
    pairs = zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    return complex(sum(np.vdot(np.asarray(p, np.complex128), np.asarray(q, np.complex128)) for p, q in pairs))

"""The tools that test everything else must themselves tell a right adjoint from a wrong one."""

import jax.numpy as jnp
import numpy as np
import pytest

from diffrecon.operators import adjoint_of, dot_test, inner, random_like

MATRIX = np.random.default_rng(0).standard_normal((5, 3)) + 1j * np.random.default_rng(1).standard_normal((5, 3))
MATRIX = jnp.asarray(MATRIX, jnp.complex64)


def forward(x):
    return MATRIX @ x


def test_adjoint_is_the_conjugate_transpose():
    y = random_like(jnp.zeros(5, jnp.complex64), 0)
    np.testing.assert_allclose(adjoint_of(forward, jnp.zeros(3, jnp.complex64))(y), jnp.conj(MATRIX).T @ y, rtol=1e-5)


def test_dot_test_passes_the_adjoint_and_fails_the_transpose():
    x = jnp.zeros(3, jnp.complex64)
    assert dot_test(forward, adjoint_of(forward, x), x) < 1e-6
    assert dot_test(forward, lambda y: MATRIX.T @ y, x) > 0.1
    assert dot_test(forward, lambda y: 1.001 * (jnp.conj(MATRIX).T @ y), x) > 1e-5


def test_real_unknowns_of_a_complex_operator():
    x = jnp.zeros(3)
    function = lambda v: MATRIX @ v.astype(jnp.complex64)
    assert dot_test(function, adjoint_of(function, x), x) < 1e-6
    assert adjoint_of(function, x)(jnp.ones(5, jnp.complex64)).dtype == jnp.float32


def test_pytrees():
    x = {"a": jnp.zeros(3), "b": jnp.zeros((2, 2))}
    function = lambda v: (2 * v["a"], jnp.sum(v["b"], 0) + v["a"][:2])
    assert dot_test(function, adjoint_of(function, x), x) < 1e-6


def test_inner_conjugates_its_first_argument():
    assert inner(jnp.asarray([1j]), jnp.asarray([1.0 + 0j])) == -1j
    assert inner({"a": jnp.ones(2), "b": jnp.ones(3)}, {"a": jnp.ones(2), "b": jnp.ones(3)}) == 5


def test_random_like_is_signed_reproducible_and_of_the_same_type():
    one, again, other = (random_like(jnp.zeros(1000, jnp.complex64), seed) for seed in (0, 0, 1))
    assert one.dtype == jnp.complex64 and jnp.array_equal(one, again) and not jnp.array_equal(one, other)
    assert float(one.real.mean()) == pytest.approx(0, abs=0.1) and float((one.imag < 0).mean()) == pytest.approx(
        0.5, abs=0.1
    )

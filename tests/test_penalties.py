"""Penalties against closed forms, their gradients against finite differences, proximal maps against their
definition."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffrecon import penalties

RANDOM = np.random.default_rng(3)
PENALTIES = {
    "tv": lambda x: penalties.tv(x, eps=0.1),
    "tv anisotropic": lambda x: penalties.tv(x, eps=0.1, isotropic=False),
    "tv of a stack": lambda x: penalties.tv(x, eps=0.1, axes=(-1,)),
    "dirichlet": penalties.dirichlet,
    "laplacian": penalties.laplacian,
    "tikhonov": lambda x: penalties.tikhonov(x, 0.3),
    "l1": penalties.l1,
    "l1 smoothed": lambda x: penalties.l1(x, eps=0.1),
}


def image(shape, complex_numbers):
    x = RANDOM.normal(size=shape)
    return jnp.asarray(x + 1j * RANDOM.normal(size=shape) if complex_numbers else x)


@pytest.mark.parametrize("complex_numbers", [False, True])
@pytest.mark.parametrize("name", PENALTIES)
def test_gradient_belongs_to_the_value(name, complex_numbers):
    with jax.enable_x64(True):
        x, direction = (image((5, 6), complex_numbers) for _ in range(2))
        gradient = jnp.conj(jax.grad(PENALTIES[name])(x))
        slope = jnp.sum(jnp.real(jnp.conj(gradient) * direction))
        h = 1e-5  # truncation h^2 and rounding 1e-16 / h are both far below the tolerance
        differences = (PENALTIES[name](x + h * direction) - PENALTIES[name](x - h * direction)) / (2 * h)
        np.testing.assert_allclose(slope, differences, rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("name", PENALTIES)
@pytest.mark.parametrize("dtype", ["float32", "complex64"])
def test_gradient_of_a_flat_image_is_finite(name, dtype):
    x = jnp.zeros((4, 4), dtype)
    value, gradient = jax.value_and_grad(PENALTIES[name])(x)
    assert value.dtype == jnp.float32 and gradient.dtype == x.dtype
    assert bool(jnp.all(jnp.isfinite(gradient)))


def test_tv_is_the_perimeter_times_the_height():
    square = jnp.zeros((16, 16)).at[4:12, 5:11].set(3.0)
    # Forward differences: one of the four corners sees both edges at once and costs sqrt(2) instead of 2.
    assert float(penalties.tv(square, eps=1e-7)) * 256 == pytest.approx(3 * (2 * 8 + 2 * 6 - 2 + 2**0.5), rel=1e-4)
    assert float(penalties.tv(square, eps=1e-7, isotropic=False)) * 256 == pytest.approx(3 * (2 * 8 + 2 * 6), rel=1e-4)


def test_tv_is_quadratic_below_eps():
    ramp = 1e-3 * jnp.arange(8.0)
    assert float(penalties.tv(ramp, eps=1.0)) == pytest.approx(7 / 8 * 1e-6 / 2, rel=0.05)


def test_laplacian_and_dirichlet_of_a_ramp():
    ramp = jnp.broadcast_to(2.0 * jnp.arange(10.0), (10, 10))
    assert float(penalties.dirichlet(ramp)) == pytest.approx(0.5 * 4 * 9 / 10)
    inside = penalties.laplacian(ramp) - 0.5 * 2 * 4 / 10  # the two borders, where the slope begins and ends
    assert abs(float(inside)) < 1e-6


@pytest.mark.parametrize("complex_numbers", [False, True])
@pytest.mark.parametrize(("prox", "value"), [
    (penalties.prox_l1, lambda y: jnp.sum(jnp.abs(y))),
    (penalties.prox_tikhonov, lambda y: 0.5 * jnp.sum(jnp.abs(y) ** 2)),
    (lambda x, w: penalties.prox_tv(x, w, steps=400), lambda y: penalties.tv(y, eps=0.0) * y.size),
])
def test_proximal_map_minimises_its_definition(prox, value, complex_numbers):
    with jax.enable_x64(True):
        x, weight = image((6, 7), complex_numbers), 0.4
        objective = lambda y: 0.5 * jnp.sum(jnp.abs(y - x) ** 2) + weight * value(y)
        best = prox(x, weight)
        for scale in (1e-1, 1e-2, 1e-3):
            for _ in range(10):
                assert objective(best) <= objective(best + scale * image(x.shape, complex_numbers)) + 1e-6


def test_prox_tv_lowers_a_step_by_weight_over_length():
    step = jnp.concatenate([jnp.zeros(4), jnp.ones(8)])
    expected = np.concatenate([np.full(4, 0.3 / 4), np.full(8, 1 - 0.3 / 8)])
    np.testing.assert_allclose(penalties.prox_tv(step, 0.3, steps=300), expected, atol=1e-4)

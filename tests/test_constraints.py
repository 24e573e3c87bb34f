"""Projections: what they give, and that repeating them changes nothing."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from diffrecon import constraints
from diffrecon.errors import InputError
from diffrecon.solvers import minimise

RANDOM = np.random.default_rng(5)
INSIDE = jnp.asarray(RANDOM.random((4, 5)) > 0.5)
PROJECTIONS = {
    "positive": constraints.positive,
    "bounded": lambda x: constraints.bounded(x, 0.2, 0.9),
    "support": lambda x: constraints.support(x, INSIDE, 1.0),
}


def image(complex_numbers):
    x = RANDOM.normal(size=(4, 5))
    return jnp.asarray(x + 1j * RANDOM.normal(size=x.shape) if complex_numbers else x)


@pytest.mark.parametrize("complex_numbers", [False, True])
@pytest.mark.parametrize("name", PROJECTIONS)
def test_projection_is_idempotent_and_keeps_the_type(name, complex_numbers):
    x = image(complex_numbers)
    once = PROJECTIONS[name](x)
    assert once.dtype == x.dtype
    np.testing.assert_allclose(PROJECTIONS[name](once), once, atol=1e-6)


def test_values():
    np.testing.assert_array_equal(constraints.positive(jnp.array([-1.0, 2.0])), [0, 2])
    np.testing.assert_array_equal(constraints.positive(jnp.array([-1.0 + 2j, 2.0 - 1j])), [0, 2])
    np.testing.assert_allclose(constraints.bounded(jnp.array([3j, 0.5]), high=1.0), [1j, 0.5])


def test_homogeneous_is_the_nearest_point_of_the_line():
    phase, attenuation = jnp.asarray(RANDOM.normal(size=(2, 6)))
    ratio = 3.0
    p, a = constraints.homogeneous(phase, attenuation, ratio)
    np.testing.assert_allclose(p, -ratio * a, rtol=1e-5)
    # What was taken off is orthogonal to the line (-ratio, 1).
    np.testing.assert_allclose(-ratio * (phase - p) + (attenuation - a), 0, atol=1e-5)
    again = constraints.homogeneous(p, a, ratio)
    np.testing.assert_allclose(again, (p, a), atol=1e-5)


class Pair(eqx.Module):
    phase: jax.Array
    attenuation: jax.Array


def test_on_makes_a_projection_of_models():
    model = Pair(jnp.array([-2.0, 1.0]), jnp.array([0.5, -0.5]))
    clipped = constraints.on("phase", constraints.bounded, high=0.0)(model)
    np.testing.assert_array_equal(clipped.phase, [-2, 0])
    np.testing.assert_array_equal(clipped.attenuation, model.attenuation)
    both = constraints.on(("phase", "attenuation"), constraints.homogeneous, delta_beta=2.0)(model)
    np.testing.assert_allclose(both.phase, -2 * both.attenuation, atol=1e-6)
    with pytest.raises(InputError, match="volume"):
        constraints.on("volume", constraints.positive)(model)


def test_minimise_obeys_a_projection():
    model = Pair(jnp.zeros(3), jnp.zeros(3))
    target = jnp.array([-1.0, 0.5, 2.0])
    cost = lambda m, batch: jnp.sum((m.phase - target) ** 2)
    project = constraints.on("phase", constraints.positive)
    solution = minimise(cost, model, optimiser=optax.sgd(0.3), steps=40, unknowns=("phase",), project=project)
    np.testing.assert_allclose(solution.value.phase, [0, 0.5, 2], atol=1e-5)

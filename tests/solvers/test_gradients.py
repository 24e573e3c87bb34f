"""Integration of gradients against images whose slopes are closed forms."""

import jax.numpy as jnp
import numpy as np
import pytest

import diffrecon as dr
from diffrecon.solvers import integrate_gradients

Y, X = np.mgrid[:60, :72] / 12.0
IMAGE = np.sin(X + 0.4) * np.cos(0.8 * Y) + 0.2 * X * Y  # runs out of the frame on every side
DOWN = (-0.8 * np.sin(X + 0.4) * np.sin(0.8 * Y) + 0.2 * X) / 12
RIGHT = (np.cos(X + 0.4) * np.cos(0.8 * Y) + 0.2 * Y) / 12


def error(found):
    return np.linalg.norm(np.asarray(found) - (IMAGE - IMAGE.mean())) / np.linalg.norm(IMAGE - IMAGE.mean())


def slopes(noise=0.0):
    rng = np.random.default_rng(0)
    return [jnp.asarray(g + noise * rng.standard_normal(g.shape), jnp.float32) for g in (DOWN, RIGHT)]


def test_a_sample_that_leaves_the_frame():
    assert error(integrate_gradients(*slopes())) < 2e-3


def test_unknown_slopes_do_not_matter():
    down, right = slopes()
    hole = np.zeros(Y.shape, bool)
    hole[20:30, 40:52] = True
    spoilt = [jnp.where(hole, jnp.nan, g) for g in (down, right)]
    found = integrate_gradients(*spoilt, weight=np.where(hole, 0.0, 1.0))
    left = np.asarray(found) - IMAGE
    assert np.std(left[~hole]) < 0.02 * np.std(IMAGE)


def test_weights_keep_noise_where_it_is():
    """Half of the frame is a hundred times noisier: weights keep it from bending the other half."""
    rng = np.random.default_rng(1)
    loud = np.where(X > 3, 0.2, 0.002)
    noisy = [jnp.asarray(g + loud * rng.standard_normal(g.shape), jnp.float32) for g in (DOWN, RIGHT)]
    calm = X < 2.7
    spread = lambda found: np.std((np.asarray(found) - IMAGE)[calm])
    assert spread(integrate_gradients(*noisy, weight=1 / loud**2)) < 0.3 * spread(integrate_gradients(*noisy))


def test_refused():
    with pytest.raises(dr.InputError, match="expected two images"):
        integrate_gradients(jnp.ones((4, 5)), jnp.ones((5, 4)))

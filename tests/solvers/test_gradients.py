"""Integration of gradients against images whose slopes are closed forms."""

import jax.numpy as jnp
import numpy as np
import pytest

import diffrecon as dr
from diffrecon.solvers import integrate_gradients, unwrap_phase

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


def test_steps_beyond_the_solution_do_no_harm():
    """Equal weights are solved in one step; what rounding leaves of the residual must not grow from there on."""
    assert error(integrate_gradients(*slopes(), weight=np.ones(Y.shape), steps=200)) < 2e-3


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


# ---------------------------------------------------------------------------------------------------- whole turns
def wrapped(phase):
    return jnp.asarray(np.angle(np.exp(1j * phase)), jnp.float32)


def test_turns_through_noise_and_holes():
    """Five turns up and down, noise, and a strip that did not measure: whole turns are right, nothing is smoothed."""
    noisy = 30 * np.exp(-((X - 3) ** 2 + (Y - 2.4) ** 2) / 1.5)
    noisy = noisy + 0.2 * np.random.default_rng(2).standard_normal(Y.shape)
    seen = np.ones(Y.shape)
    seen[25:28, 10:] = 0
    found, contradictions = unwrap_phase(jnp.where(seen > 0, wrapped(noisy), jnp.nan), seen)
    off = (np.asarray(found) - noisy)[seen > 0]
    np.testing.assert_allclose(off, np.median(off), atol=1e-4)
    assert contradictions == 0 and abs(np.median(found)) <= np.pi


def test_contradictions_are_counted_and_stay_where_they_are():
    """A step that fades along its edge: no phase without a jump has these neighbours."""
    step = np.where(X > 3, 2.2 * np.pi * np.clip(Y - 1.5, 0, 1), 0.0)
    found, contradictions = unwrap_phase(wrapped(step))
    off = np.round((np.asarray(found) - step) / (2 * np.pi))
    assert contradictions >= 1
    assert (off == np.median(off)).mean() > 0.4


def test_unwrapping_refuses():
    with pytest.raises(dr.InputError, match="expected an image"):
        unwrap_phase(jnp.ones(5))
    with pytest.raises(dr.InputError, match="weights of shape"):
        unwrap_phase(jnp.ones((4, 5)), np.ones((5, 4)))

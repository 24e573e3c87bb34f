"""Losses against their formulas, with integer counts, dead pixels and derivatives."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffrecon import losses

RNG = np.random.default_rng(0)
PREDICTION = RNG.uniform(1, 20, (4, 6, 5))
COUNTS = RNG.poisson(PREDICTION).astype(np.uint16)
MASK = RNG.random((6, 5)) > 0.2


def plain(name, p, n):
    if name == "poisson":
        return p - n + np.where(n > 0, n * np.log(np.maximum(n, 1) / p), 0)
    if name == "amplitude":
        return (np.sqrt(n + 0.01) - np.sqrt(p + 0.01)) ** 2
    if name == "gaussian":
        return 0.5 * (p - n) ** 2
    r = abs(p - n)
    return np.where(r < 1, 0.5 * r**2, r - 0.5)


LOSSES = ["poisson", "amplitude", "gaussian", "huber"]


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("masked", [False, True])
def test_is_the_mean_of_its_formula_over_measured_pixels(name, masked):
    each = plain(name, PREDICTION, COUNTS.astype(float))
    expected = each[:, MASK].mean() if masked else each.mean()
    found = getattr(losses, name)(
        jnp.asarray(PREDICTION, jnp.float32), jnp.asarray(COUNTS), jnp.asarray(MASK) if masked else None
    )
    assert found.dtype == jnp.float32 and float(found) == pytest.approx(expected, rel=2e-5)


@pytest.mark.parametrize("name", LOSSES)
def test_dead_pixels_may_hold_anything(name):
    """NaN or infinity in a dead pixel, of prediction or counts, reaches neither value nor gradient."""
    function = getattr(losses, name)
    bad_p, bad_n = PREDICTION.astype(np.float32), COUNTS.astype(np.float32)
    bad_p[:, ~MASK], bad_n[:, ~MASK] = np.nan, np.inf
    value, gradient = jax.value_and_grad(function)(jnp.asarray(bad_p), jnp.asarray(bad_n), jnp.asarray(MASK))
    clean = jax.value_and_grad(function)(jnp.asarray(PREDICTION, jnp.float32), jnp.asarray(COUNTS), jnp.asarray(MASK))
    assert float(value) == pytest.approx(float(clean[0]), rel=1e-6)
    assert not np.asarray(gradient)[:, ~MASK].any()
    np.testing.assert_allclose(np.asarray(gradient)[:, MASK], np.asarray(clean[1])[:, MASK], rtol=1e-5)


@pytest.mark.parametrize("name", LOSSES)
def test_gradient_against_finite_differences(name):
    with jax.enable_x64(True):
        function = getattr(losses, name)
        p, move = jnp.asarray(PREDICTION), jnp.asarray(RNG.standard_normal(PREDICTION.shape))
        step = 1e-6
        slope = float(jnp.sum(jax.grad(function)(p, COUNTS) * move))
        ends = [float(function(p + sign * step * move, COUNTS)) for sign in (1, -1)]
        assert slope == pytest.approx((ends[0] - ends[1]) / (2 * step), rel=1e-5)


@pytest.mark.parametrize("name", LOSSES)
def test_dark_pixels_have_finite_values_and_gradients(name):
    for counts in (0, 3):
        value, gradient = jax.value_and_grad(getattr(losses, name))(jnp.zeros(3), jnp.full(3, counts, jnp.uint16))
        assert np.isfinite(value) and np.isfinite(gradient).all()


def test_noise_floors_as_documented():
    mean = np.full(200_000, 50.0)
    counts = np.random.default_rng(1).poisson(mean).astype(np.uint16)
    assert float(losses.poisson(jnp.asarray(mean), counts)) == pytest.approx(0.5, rel=0.02)
    assert float(losses.amplitude(jnp.asarray(mean), counts)) == pytest.approx(0.25, rel=0.02)


def test_gaussian_of_complex_numbers_and_weights():
    assert float(losses.gaussian(jnp.asarray([3 + 4j]), jnp.asarray([0j]))) == 12.5
    assert float(losses.gaussian(jnp.asarray([2.0, 2.0]), jnp.zeros(2), weights=jnp.asarray([1.0, 0.0]))) == 1.0


def test_masked_mean_of_nothing_is_zero():
    assert float(losses.masked_mean(jnp.full(3, jnp.nan), jnp.zeros(3, bool))) == 0.0


def test_anscombe_residual_has_the_variance_of_one():
    """At three counts as at a hundred (Anscombe 1948), zero in dead pixels, with a finite derivative in dark ones."""
    rng = np.random.default_rng(5)
    for mean in (3.0, 100.0):
        residual = losses.anscombe_residual(jnp.full(200_000, mean), rng.poisson(mean, 200_000))
        assert float(jnp.var(residual)) == pytest.approx(1, abs=0.05)
    dead = losses.anscombe_residual(jnp.asarray([2.0, 0.0]), jnp.asarray([9, 0]), jnp.asarray([False, True]))
    assert dead.tolist() == [0.0, 0.0]
    slope = jax.grad(lambda p: losses.anscombe_residual(p, jnp.asarray(4)))(0.0)
    assert np.isfinite(slope)


def test_matched_frames_have_the_counts_of_measured_pixels():
    gains = np.asarray([0.5, 2.0, 3.0, 1.0])[:, None, None]
    frames = losses.matched(jnp.asarray(PREDICTION), jnp.asarray(gains * PREDICTION), jnp.asarray(MASK))
    np.testing.assert_allclose(frames, gains * PREDICTION, rtol=1e-6)

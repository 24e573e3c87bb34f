"""Recipe `ptycho-tomography` on small simulated scans, and its parts."""

import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest

from diffrecon import recipes
from diffrecon._console import Console
from diffrecon.errors import InputError
from diffrecon.models import frames_by_angle
from diffrecon.recipes import _ptychotomography as recipe
from diffrecon.simulate import ptychotomography as simulated

SETUP = simulated.Setup(angles=12, views=3, step=4.0, frame=32, aperture=8.0, counts=3000.0, wobble=0.4, centre=0.8)
SHORT = {"solver": {"first": 60, "steps": 120}}


@pytest.fixture(scope="module")
def scan():
    return simulated.measure(SETUP)[0]


@pytest.fixture(scope="module")
def result(scan):
    return recipes.reconstruct(scan, settings=SHORT)


def test_delta_has_the_structure_of_the_sample(scan, result):
    """In so few steps and angles the level is not settled yet; what the demo reaches is on the page."""
    figures = simulated.compare(SETUP, np.asarray(result["delta"], float))
    assert figures["structure"] < 0.7 and figures["half_bit"] < 1.5
    assert result.quantities["delta"].axes == ("z", "y", "x")
    assert result["positions"].shape == (scan.views, 2)


def test_judged_on_views_never_fitted(scan, result):
    assert 1 < result.quality["held_out_residual"] / result.quality["noise_floor_residual"] < 2
    assert any("12 views of all angles" in line for line in result.verdict)
    assert result.quality["rotation_centre"] == pytest.approx(SETUP.centre, abs=0.6)


def test_positions_written_are_those_of_the_patches_about_the_axis(scan, result):
    """In the order of the scan: the motors' own, less the axis, up to errors and wobble of half a pixel."""
    moved = result["positions"] / simulated.PIXEL - np.asarray(scan.positions) / simulated.PIXEL
    moved[:, 1] += SETUP.centre
    assert np.sqrt(np.mean((moved - moved.mean(0)) ** 2)) < 1.0


def test_no_view_is_both_fitted_and_held_out():
    data = {"seen": np.ones((5, 10), bool), "counts": np.arange(50).reshape(5, 10), "mask": np.ones((2, 2), bool)}
    parts = recipe.Parts.split(data, {"held_out": 0.2, "seed": 0})
    assert parts.held.shape == (5, 2) and parts.train.shape == (5, 8)
    both = np.concatenate([parts.train, parts.held], 1)
    np.testing.assert_array_equal(np.sort(both, 1), np.broadcast_to(np.arange(10), (5, 10)))
    np.testing.assert_array_equal(parts.of_data(data, parts.held)["counts"], parts.held + 10 * np.arange(5)[:, None])
    assert recipe.Parts.split({"seen": np.ones((5, 5), bool)}, {"held_out": 0.2, "seed": 0}).held.shape == (5, 0)


def test_air_is_found_and_a_sample_that_fills_the_field_is_told(scan):
    settings = recipes.merge(recipe.DEFAULTS, {}, "x")
    model = recipe.first_guess(scan, settings, Console(quiet=True))
    middle = [n // 2 for n in model.delta.shape]
    ball = simulated.phantom(np.array([[1, 6, 6, 6, 0, 0, 0, 0]]), model.delta.shape)
    noise = 0.002 * np.random.default_rng(0).standard_normal(ball.shape)
    sample, said = recipe._sample(model.replace(delta=jnp.asarray(0.04 * ball + noise, jnp.float32)), settings["model"])
    assert sample is not None and "air" in said
    sample = np.asarray(sample)
    assert sample[ball > 0].all() and sample.mean() < 6 * (ball > 0).mean() and sample[tuple(middle)]
    wide = simulated.phantom(np.array([[1, 30, 30, 30, 0, 0, 0, 0], [-0.7, 3, 3, 3, 0, 0, 0, 0]]), model.delta.shape)
    none, said = recipe._sample(model.replace(delta=jnp.asarray(0.04 * wide + noise, jnp.float32)), settings["model"])
    assert none is None and "no air" in said


def test_flattened_removes_what_air_shows():
    rows, columns = np.indices((12, 40))
    bump = np.exp(-((columns - 19.5) ** 2 + (rows - 6) ** 2) / 20.0)
    stack = np.stack([bump + 0.3 + 0.02 * columns, bump - 1.0])
    np.testing.assert_allclose(recipe.flattened(stack, air=True), [bump, bump], atol=1e-4)
    even = recipe.flattened(stack, air=False)
    assert even.min() == 0 and np.ptp(even.mean((1, 2))) < 1e-12


def test_same_places_told_once(scan):
    """`centred` moves nothing: it says with shifts and centre what positions said."""
    settings = recipes.merge(recipe.DEFAULTS, {}, "x")
    nominal = recipe.first_guess(scan, settings, Console(quiet=True))
    rng = np.random.default_rng(1)
    moved = nominal.replace(positions=nominal.positions + jnp.asarray(rng.normal(0.6, 0.2, nominal.positions.shape)))
    told = recipe.centred(moved, nominal)
    np.testing.assert_allclose(told.places(np.arange(12)), moved.places(np.arange(12)), atol=1e-4)
    np.testing.assert_allclose(np.mean(told.positions - nominal.positions, 1), 0, atol=1e-4)
    assert float(nominal.centre - told.centre) == pytest.approx(0.6, abs=0.2)


def test_settings_that_are_nothing_are_refused(scan):
    with pytest.raises(InputError, match="solver.start"):
        recipes.reconstruct(scan, settings={"solver": {"start": "projection"}})
    with pytest.raises(InputError, match="optax has no optimiser"):
        recipes.reconstruct(scan, settings={"optimiser": {"name": "adm"}})


@pytest.mark.full
def test_two_steps_then_jointly_of_a_sample_that_leaves_the_field():
    """The joint refinement explains views never fitted better than the two steps, and the axis is found."""
    setup = dataclasses.replace(SETUP, local=True, angles=24, counts=1000.0)
    scan = simulated.measure(setup)[0]
    settings = {"model": {"size": 64}, "solver": {"first": 150, "steps": 250}}
    settings = recipes.merge(recipe.DEFAULTS, settings, "x")
    nominal, data = recipe.first_guess(scan, settings, Console(quiet=True)), frames_by_angle(scan)
    two, _ = recipe.two_step(nominal, data, settings, Console(quiet=True))
    one = recipe.joint(two, data, settings, Console(quiet=True), 250).value
    cost = lambda m: float(jnp.mean((jnp.sqrt(m(np.arange(24))) - np.sqrt(data["counts"])) ** 2))
    assert cost(one) < 0.5 * cost(two)

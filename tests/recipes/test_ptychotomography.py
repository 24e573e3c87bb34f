"""Recipe `ptycho-tomography` on small simulated scans, and its parts."""

import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest

from diffrecon import recipes
from diffrecon._console import Console
from diffrecon.errors import InputError
from diffrecon.recipes import ptychotomography as recipe
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
    """In so few steps and angles the level is not settled yet; what the demo reaches is on the page. The details are
    right to the pixel, which the mirrored sample does not come near."""
    figures = simulated.compare(SETUP, np.asarray(result["delta"], float))
    assert figures["structure"] < 0.6 and figures["half_bit"] < 1.15
    truth = simulated.DELTA * simulated.phantom(simulated.ellipsoids(SETUP), result["delta"].shape)
    mirrored = simulated.compare(SETUP, truth[:, ::-1])
    assert mirrored["structure"] > 1.0 and mirrored["half_bit"] > 1.5
    assert result.quantities["delta"].axes == ("z", "y", "x")
    assert result["positions"].shape == (scan.views, 2)


def test_judged_on_views_never_fitted(scan, result):
    assert 1 < result.quality["held_out_residual"] / result.quality["noise_floor_residual"] < 2
    assert any("12 views of all angles" in line for line in result.verdict)
    assert result.quality["rotation_centre"] == pytest.approx(SETUP.centre, abs=0.5)


def test_positions_written_are_those_of_the_patches_about_the_axis(scan, result):
    """In the order of the scan: the motors' own, less the axis, up to errors and wobble of half a pixel."""
    moved = result["positions"] / simulated.PIXEL - np.asarray(scan.positions) / simulated.PIXEL
    moved[:, 1] += SETUP.centre
    assert np.sqrt(np.mean((moved - moved.mean(0)) ** 2)) < 1.0


METHOD, SETTINGS = recipe.PtychoTomographic(), recipe.Settings()


@pytest.fixture(scope="module")
def problem(scan):
    return METHOD.start(scan, SETTINGS, Console(quiet=True))


def test_no_view_is_both_fitted_and_held_out(problem):
    """The same number at every angle; data and model are cut alike, and nothing else is."""
    fitted, held = METHOD.split(problem, SETTINGS)
    assert held.shape == (12, 1) and fitted.shape == (12, 8)
    np.testing.assert_array_equal(np.sort(np.concatenate([fitted, held], 1), 1), np.tile(np.arange(9), (12, 1)))
    part = problem.of(held)
    np.testing.assert_array_equal(part.data["counts"][5, 0], problem.data["counts"][5, held[5, 0]])
    np.testing.assert_array_equal(part.model.positions[5, 0], problem.model.positions[5, held[5, 0]])
    few = problem.of(np.tile(np.arange(5), (12, 1)))
    assert METHOD.split(few, SETTINGS)[1].size == 0


def _with_air(problem, scan, contrast):
    """What the stage between first look and descent says of a volume."""
    noise = 0.002 * np.random.default_rng(0).standard_normal(contrast.shape)
    seen = problem.replace(model=problem.model.replace(delta=jnp.asarray(0.04 * contrast + noise, jnp.float32)))
    plan = METHOD.stages(seen, SETTINGS, Console(quiet=True))
    next(plan)
    model = plan.send(seen).solve(seen, recipe.Run(Console(quiet=True))).problem.model
    plan.close()
    return np.asarray(model.sample), METHOD.verdict(problem.replace(model=model), scan, SETTINGS)[1][-1]


def test_air_is_found_and_a_sample_that_fills_the_field_is_told(problem, scan):
    shape = problem.model.delta.shape
    ball = simulated.phantom(np.array([[1, 6, 6, 6, 0, 0, 0, 0]]), shape)
    sample, line = _with_air(problem, scan, ball)
    # A cube of half side 3 rolled round a ball of radius 6 covers 4.92 times the ball (Steiner's formula).
    assert sample[ball > 0].all() and sample.mean() < 4.92 * (ball > 0).mean() and "held at zero" in line
    wide = simulated.phantom(np.array([[1, 30, 30, 30, 0, 0, 0, 0], [-0.7, 3, 3, 3, 0, 0, 0, 0]]), shape)
    everything, line = _with_air(problem, scan, wide)
    assert everything.all() and "no air" in line


def test_same_places_told_once(problem):
    """The gauge moves nothing: it says with shifts and centre what positions said."""
    nominal, rng = problem.model, np.random.default_rng(1)
    moved = nominal.replace(positions=nominal.positions + jnp.asarray(rng.normal(0.6, 0.2, nominal.positions.shape)))
    told = problem.gauge(moved)
    np.testing.assert_allclose(told.places(np.arange(12)), moved.places(np.arange(12)), atol=1e-4)
    np.testing.assert_allclose(np.mean(told.positions - nominal.positions, 1), 0, atol=1e-4)
    assert float(nominal.centre - told.centre) == pytest.approx(0.6, abs=0.2)


def test_settings_that_are_nothing_are_refused(scan):
    with pytest.raises(InputError, match="solver.start"):
        recipes.reconstruct(scan, settings={"solver": {"start": "projection"}})
    with pytest.raises(InputError, match="did you mean adam"):
        recipes.reconstruct(scan, settings={"optimiser": {"name": "adm"}})


@pytest.mark.nightly
def test_jointly_explains_more_than_the_two_steps_of_a_sample_that_leaves_the_field():
    """The same start, no step more or all: views never fitted are explained better, and the axis is found."""
    setup = dataclasses.replace(SETUP, local=True, angles=24, counts=1000.0)
    scan = simulated.measure(setup)[0]
    figures = []
    for steps in (0, 250):
        solver = {"start": "projections", "first": 150, "steps": steps}
        figures.append(recipes.reconstruct(scan, settings={"model": {"size": 64}, "solver": solver}).quality)
    two, one = (f["held_out_deviance"] - f["noise_floor_deviance"] for f in figures)
    assert one < 0.5 * two

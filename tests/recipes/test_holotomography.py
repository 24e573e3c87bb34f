"""Recipe `holotomography` on small simulated scans, and its parts."""

import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest

from diffrecon import quality, recipes
from diffrecon._console import Console
from diffrecon.errors import InputError
from diffrecon.models import HoloTomography, holograms_by_angle
from diffrecon.recipes import _holotomography as recipe
from diffrecon.recipes import _two_step as steps
from diffrecon.simulate import _holotomography as simulated

SETUP = simulated.Setup(angles=12, distances=3, frame=24, counts=4000.0, wobble=0.4, centre=0.8, grains=False)
SHORT = {"solver": {"steps": 8, "align": 2}}
QUIET = Console(quiet=True)


def settings(**given):
    return recipes.merge(recipe.DEFAULTS, {**SHORT, **given}, "holotomography")


@pytest.fixture(scope="module")
def measured():
    return simulated.measure(SETUP)


@pytest.fixture(scope="module")
def scan(measured):
    return measured[0]


@pytest.fixture(scope="module")
def result(scan):
    return recipes.reconstruct(scan, settings=SHORT)


@pytest.fixture(scope="module")
def in_two_steps(scan):
    """Model, angles that are fitted, and those that are not."""
    train, held = recipe.split(SETUP.angles, recipe.DEFAULTS["quality"])
    model = recipe.first_guess(scan, settings(), QUIET)
    return *steps.two_step(model, holograms_by_angle(scan), train, settings(), QUIET), train, held


def test_delta_is_that_of_the_cell(result):
    figures = simulated.compare(SETUP, np.asarray(result["delta"], float))
    assert figures["error"] < 0.3 and abs(figures["mean"]) < 0.08 and figures["half_bit"] < 2.0
    quantity = result.quantities["delta"]
    assert quantity.axes == ("z", "y", "x") and quantity.pixel_size == pytest.approx(SETUP.pixel)


def test_places_of_the_frames_and_axis(measured, result):
    scan, truth = measured
    train, _ = recipe.split(SETUP.angles, recipe.DEFAULTS["quality"])
    found = np.asarray(result["shifts"]) / SETUP.pixel
    error = simulated.shift_error(found[train], truth["shifts"][train], SETUP.turns[train])
    assert error < 0.15 < simulated.shift_error(0 * found[train], truth["shifts"][train], SETUP.turns[train])
    assert result.quality["rotation_centre"] == pytest.approx(float(truth["rotation_centre"]), abs=0.5)


def test_judged_on_angles_never_fitted(result, scan, in_two_steps):
    """And jointly they are explained better than in two steps."""
    assert any("1 whole angles, 3 holograms" in line for line in result.verdict)
    model, _, _, held = in_two_steps
    _, counts, predicted = recipe.predict_held(model, holograms_by_angle(scan), held, settings()["model"])
    assert result.quality["held_out_deviance"] < quality.deviance(counts, predicted)


def test_no_angle_is_both_fitted_and_held_out():
    for count in (12, 60):
        train, held = recipe.split(count, {"held_out": 0.1, "seed": 3})
        np.testing.assert_array_equal(np.sort(np.concatenate([train, held])), np.arange(count))
        assert held.size == count // 10 or held.size == 1
    assert recipe.split(7, {"held_out": 0.1, "seed": 0})[1].size == 0
    assert recipe.split(60, {"held_out": 0.0, "seed": 0})[1].size == 0


@pytest.mark.full
def test_batches_of_angles_descend(scan, in_two_steps):
    model, prior, train, _ = in_two_steps
    chosen = settings(solver={"batch_size": 4, "epochs": 10})
    found, history, _ = recipe.joint(model, holograms_by_angle(scan), train, prior, chosen, QUIET)
    assert history.size == 30
    start, ours = (
        simulated.compare(SETUP, np.asarray(m.refractive_index()[0], float))["error"] for m in (model, found)
    )
    assert ours < 0.5 * start and history[-3:].mean() < history[:3].mean()


@pytest.mark.full
def test_homogeneous_ball_has_its_delta(monkeypatch):
    """Closed form: in both ways delta inside is that of the ball, in absolute units, and beta what delta_beta says."""
    setup = dataclasses.replace(SETUP, angles=16, counts=20000.0, wobble=0.0, centre=0.0)
    delta, ratio, radius = 4e-7, 500.0, 7.0
    ball = np.array([[delta, delta / ratio, radius, radius, radius, 0.0, 0.0, 0.0, 0.0]])
    monkeypatch.setattr(simulated, "ellipsoids", lambda setup: ball)
    scan, _ = simulated.measure(setup)
    known = {"shifts": False, "centre": False, "delta_beta": ratio}
    found = recipes.reconstruct(scan, settings={**SHORT, "model": known, "quality": {"held_out": 0.0}})
    axis = np.arange(setup.frame) - (setup.frame - 1) / 2
    inside = sum(a**2 for a in np.meshgrid(axis, axis, axis)) < (radius - 2) ** 2
    assert np.mean(found["delta"][inside]) == pytest.approx(delta, rel=0.05)
    assert np.std(found["delta"][inside]) < 0.1 * delta
    np.testing.assert_allclose(found["beta"], found["delta"] / ratio, rtol=1e-4)
    quick = recipes.reconstruct(scan, settings={"model": known, "solver": {"name": "two-step"}})
    assert np.mean(quick["delta"][inside]) == pytest.approx(delta, rel=0.15)


def test_frames_are_placed_by_a_volume_that_is_right(measured):
    scan, truth = measured
    model = recipe.first_guess(scan, settings(), QUIET)
    scale = 2 * np.pi / model.wavelength * model.pixel_size
    model = model.replace(
        delta=jnp.asarray(scale * simulated.true_volume(SETUP, model.delta.shape), jnp.float32),
        centre=jnp.asarray(SETUP.centre),
    )
    placed = steps.place_frames(model, holograms_by_angle(scan), np.arange(SETUP.angles), rounds=2)
    assert np.sqrt(np.mean((np.asarray(placed.shifts) - truth["shifts"]) ** 2)) < 0.08
    np.testing.assert_allclose(placed.gain, 1, atol=0.01)


def test_same_places_told_once(scan):
    model = recipe.first_guess(scan, settings(), QUIET)
    theta = SETUP.turns[:, None]
    model = model.replace(shifts=model.shifts.at[..., 1].set(0.6 + 0.3 * np.cos(theta)))
    told = steps.centred(model)
    assert float(told.centre) == pytest.approx(0.6, abs=1e-5)
    np.testing.assert_allclose(told.shifts[..., 1] + told.centre, model.shifts[..., 1], atol=1e-5)


def test_axis_of_an_isolated_sample():
    """The outline says it in spite of a large smooth background; a sample at the border does not."""
    z, u = np.indices((32, 48))
    angles = np.arange(12) * np.pi / 14
    at = 25.3 + 5 * np.cos(angles) - 3 * np.sin(angles)
    lines = np.stack([np.exp(-((u - c) ** 2 + (z - 16) ** 2) / 40) for c in at])
    background = 0.2 * np.random.default_rng(0).standard_normal(12)[:, None, None]
    assert steps.axis_of_isolated(lines + background, angles) == pytest.approx(25.3, abs=0.1)
    assert steps.axis_of_isolated(np.roll(lines, 20, 2), angles) is None
    assert steps.axis_of_isolated(lines[:3], angles[:3]) is None


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"solver": {"name": "jointly"}}, "solver.name: 'jointly' is none of joint, two-step"),
        ({"model": {"quantity": "density"}}, "needs the composition"),
        ({"model": {"delta_beta": -3.0}}, "to be positive"),
        ({"model": {"size": 1}}, "needs two pixels"),
        ({"quality": {"held_out": 0.7}}, "below one half"),
    ],
)
def test_settings_that_cannot_be_followed_are_refused(scan, given, message):
    with pytest.raises(InputError, match=message):
        recipes.reconstruct(scan, settings=given)


def test_density_of_a_named_composition(scan, in_two_steps):
    pytest.importorskip("xraydb")
    model = in_two_steps[0]
    chosen = settings(model={"quantity": "density", "material": "C4H7NO, 1.35"})
    density = recipe._wanted(model, scan, chosen)["density"]
    assert density.units == "g/cm^3"
    # delta of 1.35 g/cm^3 is 1.049e-6 at 17 keV (tables)
    np.testing.assert_allclose(density.data, np.asarray(model.refractive_index()[0]) / 1.0487e-6 * 1.35, rtol=1e-3)
    electrons = recipe._wanted(model, scan, settings(model={"quantity": "electron-density"}))["electron_density"]
    np.testing.assert_allclose(electrons.data.max() / density.data.max(), 0.6022 * 46 / 85.1, rtol=0.02)


def test_defects_of_the_detector_are_left_out(scan):
    """A dead and a hot pixel of all frames: found, and mended for the transfer functions; frames without them lose
    nothing."""
    model, whole = HoloTomography.from_scan(scan, delta_beta=2500.0), holograms_by_angle(scan)
    assert recipe.good_pixels(model, whole, settings(), QUIET)["mask"].all()
    counts = np.array(scan.counts)
    counts[:, 9, 10], counts[:, 15, 4] = 0, 60000
    broken = scan.replace(counts=counts)
    data = recipe.good_pixels(model, holograms_by_angle(broken), settings(), QUIET)
    assert np.argwhere(~data["mask"]).tolist() == [[9, 10], [15, 4]]
    assert recipe.good_pixels(model, data, settings(prepare={"outliers": 0.0}), QUIET) is data
    contrast = lambda data: np.abs(
        steps.contrast(
            model, jnp.asarray(data["counts"][np.array([3])]), jnp.asarray(data["mask"]), np.array([3]), (24, 24)
        )
    ).max()
    assert contrast(data) < 1.05 * contrast(whole)
    ramp = np.add.outer(np.arange(24.0), 0.1 * np.arange(24))
    mended = steps._mended(jnp.asarray(ramp * data["mask"]), jnp.asarray(data["mask"]))
    np.testing.assert_allclose(mended, ramp, rtol=1e-5)
    with pytest.raises(InputError, match="negative"):
        recipe.good_pixels(model, data, settings(prepare={"outliers": -1.0}), QUIET)

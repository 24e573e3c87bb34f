"""Recipe `holotomography` on small simulated scans."""

import dataclasses

import numpy as np
import pytest

from diffrecon import recipes
from diffrecon.errors import InputError
from diffrecon.simulate import holotomography as simulated

SETUP = simulated.Setup(angles=12, distances=3, frame=24, counts=4000.0, wobble=0.4, centre=0.8, grains=False)
SHORT = {"solver": {"steps": 8, "align": 2}}


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
    return recipes.reconstruct(scan, settings={"solver": {"name": "two-step", "align": 2}})


def test_delta_is_that_of_the_cell(result):
    figures = simulated.compare(SETUP, np.asarray(result["delta"], float))
    assert figures["error"] < 0.3 and abs(figures["mean"]) < 0.08 and figures["half_bit"] < 2.0
    quantity = result.quantities["delta"]
    assert quantity.axes == ("z", "y", "x") and quantity.pixel_size == pytest.approx(SETUP.pixel)


def test_places_of_the_frames_and_axis(measured, result):
    scan, truth = measured
    train = np.setdiff1d(np.arange(SETUP.angles), result.quality["held_out_views"])
    found = np.asarray(result["shifts"]) / SETUP.pixel
    error = simulated.shift_error(found[train], truth["shifts"][train], SETUP.turns[train])
    assert error < 0.15 < simulated.shift_error(0 * found[train], truth["shifts"][train], SETUP.turns[train])
    assert result.quality["rotation_centre"] == pytest.approx(float(truth["rotation_centre"]), abs=0.5)


def test_judged_on_angles_never_fitted(result, scan, in_two_steps):
    """And jointly they are explained better than in two steps."""
    assert any("1 whole angles, 3 holograms" in line for line in result.verdict)
    assert result.quality["held_out_deviance"] < 0.5 * in_two_steps.quality["held_out_deviance"]


def test_frames_of_unseen_angles_are_placed(measured, result):
    """To what photon noise allows, on a volume that has never seen them."""
    held, truth = result.quality["held_out_views"], measured[1]["shifts"]
    moved = np.asarray(result["shifts"])[held] / SETUP.pixel - truth[held]
    assert np.std(moved, axis=(0, 1)).max() < 0.15


def test_batches_of_angles_descend(scan, in_two_steps):
    found = recipes.reconstruct(scan, settings={"solver": {"align": 2, "batch_size": 4, "epochs": 10}})
    assert found.quality["history"].size == 30
    start, ours = (simulated.compare(SETUP, np.asarray(r["delta"], float))["error"] for r in (in_two_steps, found))
    history = found.quality["history"]
    assert ours < 0.5 * start and history[-3:].mean() < history[:3].mean()


@pytest.mark.nightly
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


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"solver": {"name": "jointly"}}, "solver.name: 'jointly' is none of joint, two-step"),
        ({"solver": {"slab": 5}}, "solver.slab has no effect with solver.name = joint"),
        ({"solver": {"cgls_steps": 3}}, "solver.cgls_steps has no effect"),
        ({"prepare": {"outliers": -1.0}}, "at least 0"),
        ({"model": {"quantity": "density"}}, "needs the composition"),
        ({"model": {"delta_beta": -3.0}}, "above 0"),
        ({"model": {"size": 1}}, "needs two pixels"),
        ({"quality": {"held_out": 0.7}}, "below 0.5"),
    ],
)
def test_settings_that_cannot_be_followed_are_refused(scan, given, message):
    with pytest.raises(InputError, match=message):
        recipes.reconstruct(scan, settings=given)


def test_density_of_a_named_composition(scan):
    pytest.importorskip("xraydb")
    solver, material = {"name": "two-step", "align": 0}, "C4H7NO, 1.35"
    of = lambda quantity: recipes.reconstruct(
        scan, settings={"solver": solver, "model": {"quantity": quantity, "material": material}}
    )
    found, electrons = of("density"), of("electron-density")
    assert found.quantities["density"].units == "g/cm^3"
    # delta of 1.35 g/cm^3 is 1.049e-6 at 17 keV (tables)
    np.testing.assert_allclose(found["density"], found["delta"] / 1.0487e-6 * 1.35, rtol=1e-3)
    ratio = electrons["electron_density"].max() / found["density"].max()
    np.testing.assert_allclose(ratio, 0.6022 * 46 / 85.1, rtol=0.02)

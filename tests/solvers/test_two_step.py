"""Holotomography in two steps, part by part: contrast, places of the frames, line integrals in place of the volume."""

import jax.numpy as jnp
import numpy as np
import pytest

from diffrecon.models import HoloTomography, holograms_by_angle
from diffrecon.simulate import holotomography as simulated
from diffrecon.solvers import PhaseRetrieval, back_project, place_frames
from diffrecon.solvers.direct.two_step import contrast

SETUP = simulated.Setup(angles=12, distances=3, frame=24, counts=4000.0, wobble=0.4, centre=0.8, grains=False)


@pytest.fixture(scope="module")
def measured():
    return simulated.measure(SETUP)


@pytest.fixture(scope="module")
def true_model(measured):
    model = HoloTomography.from_scan(measured[0], delta_beta=2500.0)
    scale = 2 * np.pi / model.wavelength * model.pixel_size
    delta = scale * simulated.true_volume(SETUP, model.delta.shape)
    return model.replace(delta=jnp.asarray(delta, jnp.float32), centre=jnp.asarray(SETUP.centre))


def test_frames_are_placed_by_a_volume_that_is_right(measured, true_model):
    scan, truth = measured
    placed = place_frames(true_model, holograms_by_angle(scan), rounds=2)
    assert np.sqrt(np.mean((np.asarray(placed.shifts) - truth["shifts"]) ** 2)) < 0.08
    np.testing.assert_allclose(placed.gain, 1, atol=0.01)


def test_lines_stand_for_the_volume(measured, true_model):
    """What places the frames is the same from projections as from the volume; other angles stay where they are."""
    data, some = holograms_by_angle(measured[0]), np.array([1, 4])
    lines = np.asarray(true_model.projector(true_model.delta))
    one, other = (place_frames(true_model, data, *more, angles=some, quiet=True) for more in ((), (lines,)))
    np.testing.assert_allclose(one.shifts, other.shifts, atol=1e-4)
    assert np.abs(one.shifts[some]).min() > 0 and not np.asarray(one.shifts)[[0, 2, 3]].any()


def test_phases_of_frames_in_their_places_are_those_of_the_sample(measured, true_model):
    scan, truth = measured
    model, data = true_model.replace(shifts=jnp.asarray(truth["shifts"], jnp.float32)), holograms_by_angle(scan)
    lines = np.asarray(PhaseRetrieval.of(model, data)(model, data)[0])
    true = np.asarray(model.projector(model.delta))
    flat = lambda images: (images - images.mean((1, 2), keepdims=True)).ravel()  # slow bends of the phase are noise
    assert np.corrcoef(flat(lines), flat(true))[0, 1] > 0.97
    volume = np.asarray(back_project(model.projector, true, "cgls", steps=12))
    assert np.linalg.norm(volume - model.delta) < 0.25 * np.linalg.norm(model.delta)


def test_contrast_of_frames_with_defects(measured, true_model):
    """A dead and a hot pixel are filled from around, for the transfer functions."""
    data = holograms_by_angle(measured[0])
    counts, mask = np.array(data["counts"][np.array([3])]), np.ones(true_model.frame, bool)
    whole = contrast(true_model, jnp.asarray(counts), jnp.asarray(mask), np.array([3]), (24, 24))
    counts[..., 9, 10], counts[..., 15, 4] = 0, 60000
    mask[9, 10] = mask[15, 4] = False
    mended = contrast(true_model, jnp.asarray(counts), jnp.asarray(mask), np.array([3]), (24, 24))
    assert np.abs(mended - whole).max() < 0.5 * np.abs(whole).max()
    assert np.abs(mended).max() < 1.05 * np.abs(whole).max()

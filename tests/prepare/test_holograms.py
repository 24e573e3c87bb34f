"""Holograms at many angles before the volume is known: defects, places within an angle, axis; sample, light and air."""

import jax.numpy as jnp
import numpy as np
import pytest

from diffrecon import prepare
from diffrecon.models import HoloTomography, holograms_by_angle
from diffrecon.simulate import holotomography as simulated

SETUP = simulated.Setup(angles=12, distances=3, frame=24, counts=4000.0, wobble=0.4, centre=0.8, grains=False)


def test_defects_of_the_detector_are_left_out():
    """A dead and a hot pixel of all frames; frames without them lose nothing."""
    scan = simulated.measure(SETUP)[0]
    model, whole = HoloTomography.from_scan(scan, delta_beta=2500.0), holograms_by_angle(scan)
    assert prepare.mask_hologram_outliers(model, whole)[0]["mask"].all()
    counts = np.array(scan.counts)
    counts[:, 9, 10], counts[:, 15, 4] = 0, 60000
    broken = holograms_by_angle(scan.replace(counts=counts))
    data, message = prepare.mask_hologram_outliers(model, broken)
    assert np.argwhere(~data["mask"]).tolist() == [[9, 10], [15, 4]] and "2 pixels" in message
    assert prepare.mask_hologram_outliers(model, data, 0)[0] is data


def test_frames_far_out_of_place_are_registered():
    """Two and a half pixels rms: the frames of an angle on that of its finest pixel, to a fraction of a pixel."""
    setup = simulated.Setup(angles=3, distances=2, frame=48, counts=4000.0, wobble=2.5, centre=0.0, grains=False)
    scan, truth = simulated.measure(setup)
    model = HoloTomography.from_scan(scan, delta_beta=2500.0)
    model, _ = prepare.register_angles(model, holograms_by_angle(scan))
    apart = lambda shifts: np.asarray(shifts)[:, 1] - np.asarray(shifts)[:, 0]
    assert np.abs(apart(truth["shifts"])).max() > 1.5
    np.testing.assert_allclose(apart(model.shifts), apart(truth["shifts"]), atol=0.4)


def test_axis_of_an_isolated_sample():
    """The outline says it in spite of a large smooth background; a sample at the border does not."""
    z, u = np.indices((32, 48))
    angles = np.arange(12) * np.pi / 14
    at = 25.3 + 5 * np.cos(angles) - 3 * np.sin(angles)
    lines = np.stack([np.exp(-((u - c) ** 2 + (z - 16) ** 2) / 40) for c in at])
    background = 0.2 * np.random.default_rng(0).standard_normal(12)[:, None, None]
    assert prepare.find_isolated_centre(lines + background, angles) == pytest.approx(25.3, abs=0.1)
    assert prepare.find_isolated_centre(np.roll(lines, 20, 2), angles) is None
    assert prepare.find_isolated_centre(lines[:3], angles[:3]) is None


def test_flattened_projections_lose_what_air_shows():
    rows, columns = np.indices((12, 40))
    bump = np.exp(-((columns - 19.5) ** 2 + (rows - 6) ** 2) / 20.0)
    stack = np.stack([bump + 0.3 + 0.02 * columns, bump - 1.0])
    np.testing.assert_allclose(prepare.flatten_projections(stack, air=True), [bump, bump], atol=1e-4)
    even = prepare.flatten_projections(stack, air=False)
    assert even.min() == 0 and np.ptp(even.mean((1, 2))) < 1e-12


def test_a_sample_is_told_from_the_air_around_it():
    """A ball in noise: all of it, and a rim of three voxels and the blur."""
    axis = np.arange(40) - 19.5
    radius = np.sqrt(sum(a**2 for a in np.meshgrid(axis, axis, axis)))
    volume = 0.04 * (radius < 6) + 0.002 * np.random.default_rng(0).standard_normal(radius.shape)
    box = (slice(2, 38), slice(4, 36), slice(4, 36))
    region = prepare.sample_region(jnp.asarray(volume, jnp.float32), box)
    assert region[radius < 6].all() and not region[radius > 6 + 3 * np.sqrt(3) + 2].any()

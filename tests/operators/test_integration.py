"""Azimuthal integration: closed forms of the geometry, sums that keep every count, error bars that are the scatter."""

import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest

from diffrecon.errors import InputError
from diffrecon.geometry import TiltedDetector, polarisation_factor
from diffrecon.operators import AzimuthalIntegrator, Bins, Cake
from diffrecon.simulate.powders import places

DETECTOR = TiltedDetector(0.15, 0.0047, 0.0053, 0.0, 0.0, 0.0, 1e-4, 1e-4, 4e-11)
SHAPE = (90, 110)
CAKE = Cake(0.0, 0.06, 40)


def test_angles_are_those_of_plain_geometry():
    """Rays to a plane that is turned about the vertical, worked out another way; rings of an untilted one are round."""
    turned = dataclasses.replace(DETECTOR, rot1=0.3)
    rows, columns = np.meshgrid(
        (np.arange(90) + 0.5) * 1e-4 - 0.0047, (np.arange(110) + 0.5) * 1e-4 - 0.0053, indexing="ij"
    )
    expected = places(rows, columns, 0.15, 0.3, 1e-4)
    found = turned.angles(SHAPE)
    np.testing.assert_allclose(found[0], expected[0], atol=1e-12)
    np.testing.assert_allclose(found[1], expected[1], atol=1e-12)
    np.testing.assert_allclose(found[2] * turned.pixel_solid_angle, expected[2], rtol=1e-12)
    np.testing.assert_allclose(DETECTOR.angles(SHAPE)[0], np.arctan(np.hypot(rows, columns) / 0.15), atol=1e-13)


@pytest.mark.parametrize(("orientation", "flip"), [(1, np.s_[::-1, ::-1]), (2, np.s_[::-1]), (4, np.s_[:, ::-1])])
def test_orientations_flip_the_frame(orientation, flip):
    turned = dataclasses.replace(DETECTOR, rot1=0.1, rot2=-0.2, rot3=0.3)
    other = dataclasses.replace(turned, orientation=orientation)
    for one, two in zip(turned.angles(SHAPE), other.angles(SHAPE), strict=True):
        np.testing.assert_allclose(one[flip], two, atol=1e-12)


@pytest.mark.parametrize("splitting", ["no", "bbox"])
def test_what_scatters_evenly_is_even(splitting):
    """Counts that are solid angle times polarisation make a pattern of ones, whatever is masked."""
    two_theta, chi, solid = DETECTOR.angles(SHAPE)
    frame = solid * polarisation_factor(two_theta, chi, 0.9)
    mask = np.random.default_rng(0).random(SHAPE) > 0.3
    frame = np.where(mask, frame, 1e4)
    table = AzimuthalIntegrator(DETECTOR, SHAPE, CAKE, mask=mask, splitting=splitting, polarisation=0.9)
    found = np.asarray(table(jnp.asarray(frame, jnp.float32)[None]))[0]
    np.testing.assert_allclose(found[np.asarray(table.seen)], 1, rtol=2e-6)


@pytest.mark.parametrize("splitting", ["no", "bbox"])
@pytest.mark.parametrize(
    ("kind", "largest"), [(np.uint16, 50), (np.int32, 50), (np.uint32, 50), (np.uint32, 2**31), (np.float32, 50)]
)
def test_no_count_is_lost(splitting, kind, largest):
    counts = np.random.default_rng(1).poisson(50, (2, *SHAPE)).astype(kind)
    counts[1, 3, 5:60] = largest  # beyond what a sum of 32 bits holds
    table = AzimuthalIntegrator(DETECTOR, SHAPE, Cake(-0.01, 0.2, 50, 3), splitting=splitting)
    found, expected = np.asarray(table.sums(jnp.asarray(counts))).sum(1), counts.sum((1, 2), dtype=float)
    np.testing.assert_allclose(found, expected, rtol=1e-6)


@pytest.mark.parametrize("splitting", ["no", "bbox"])
def test_bins_without_jax_are_those_of_the_integrator(splitting):
    """Sums and response to a pattern, which an inspection needs."""
    frames = np.random.default_rng(0).poisson(20, (2, *SHAPE)).astype(np.float32)
    one, other = (kind(DETECTOR, SHAPE, CAKE, splitting=splitting) for kind in (AzimuthalIntegrator, Bins.of))
    np.testing.assert_allclose(other.sums(frames), one.sums(frames), rtol=1e-6)
    np.testing.assert_allclose(other.response(2).weight, one.response(2).weight, atol=1e-6)


@pytest.mark.parametrize("splitting", ["no", "bbox"])
def test_error_bars_are_the_scatter(splitting):
    counts = np.random.default_rng(2).poisson(3.0, (400, 40, 40))
    table = AzimuthalIntegrator(DETECTOR, (40, 40), Cake(0.0, 0.06, 25), splitting=splitting)
    found, bars = (np.asarray(a) for a in table.with_errors(jnp.asarray(counts)))
    good = np.asarray(table.sums(jnp.ones((1, 40, 40))))[0] > 10
    ratio = found.std(0)[good] / np.sqrt((bars**2).mean(0))[good]
    assert ratio == pytest.approx(1, abs=0.15) and ratio.mean() == pytest.approx(1, abs=0.03)


def test_spots_of_crystals_are_clipped():
    rng = np.random.default_rng(3)
    counts = rng.poisson(100.0, (1, *SHAPE))
    spots = rng.integers(0, 90, (60, 2))
    counts[0, spots[:, 0], spots[:, 1]] += 3000
    table = AzimuthalIntegrator(DETECTOR, SHAPE, CAKE, solid_angle=False)
    plain = np.asarray(table(jnp.asarray(counts)))[0]
    clipped, bars = (np.asarray(a)[0] for a in table.clipped(jnp.asarray(counts)))
    busy = np.asarray(table.norm) > 50
    assert (plain[busy] - 100).max() > 20
    assert np.abs((clipped[busy] - 100) / bars[busy]).max() < 5


def test_wrong_input_is_refused():
    with pytest.raises(InputError, match="the mask has shape"):
        AzimuthalIntegrator(DETECTOR, SHAPE, CAKE, mask=np.ones((3, 3)))
    with pytest.raises(InputError, match="no measured pixel"):
        AzimuthalIntegrator(DETECTOR, SHAPE, Cake(0.5, 0.6, 10))
    with pytest.raises(InputError, match="geometry.energy"):
        AzimuthalIntegrator(
            dataclasses.replace(DETECTOR, wavelength=None), SHAPE, Cake(0.0, 1e9, 10, 1, "q")
        )  # fmt: skip
    split = AzimuthalIntegrator(DETECTOR, SHAPE, CAKE, splitting="bbox")
    with pytest.raises(InputError, match="splitting = no"):
        split.clipped(jnp.zeros((1, *SHAPE)))


def test_channels_see_their_pixels_as_they_stand():
    """Sums of a tilted detector's pixels, each the mean over 400 points of its area, against the response's means."""
    tilted = dataclasses.replace(DETECTOR, rot1=0.02)
    table = AzimuthalIntegrator(tilted, SHAPE, Cake(0.0, 0.06, 90), polarisation=0.9)
    ring = lambda angle: np.exp(-(((angle - 0.03) / 6e-4) ** 2)) + angle
    side = (np.arange(20) + 0.5) / 20
    mean = np.mean([ring(tilted.angles(SHAPE, r, c)[0]) for r in side for c in side], 0)
    found = np.asarray(table(jnp.asarray(mean * np.asarray(table.weight), jnp.float32)[None]))[0]
    response = table.response()
    expected, seen = response(ring(response.angles)), np.asarray(table.seen)
    np.testing.assert_allclose(expected[seen], found[seen], atol=0.01)
    assert np.abs(ring(table.cake.centres) - found)[seen].max() > 0.05  # what evenly wide channels would say

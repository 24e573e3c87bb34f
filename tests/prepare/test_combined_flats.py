"""Flats of a drifting beam combined for each hologram, against the beam that was simulated."""

import numpy as np
import pytest

from diffrecon.errors import InputError
from diffrecon.prepare import combine_flats

SIZE, FLUX, DARK = 64, 8000.0, 100.0


def drifting(random, count, modes):
    """Beams: a smooth one with stripes of a multilayer that move up and down, and a second drift."""
    y, x = np.mgrid[:SIZE, :SIZE] / SIZE
    stripes = lambda shift: 0.1 * np.sin(2 * np.pi * (9 * y + 0.4 * np.sin(7 * x) + shift)) + 0.07 * np.sin(
        2 * np.pi * (23 * y - 1.7 * shift)
    )
    shifts = 0.04 * random.normal(size=count)
    second = 0.02 * random.normal(size=count)[:, None, None] * np.cos(2 * np.pi * 3 * x) * (modes > 1)
    return FLUX * (1 + 0.2 * np.cos(3 * x) + np.stack([stripes(s) for s in shifts]) + second)


def fringes():
    """A hologram of a disc, roughly."""
    r = np.hypot(*(np.mgrid[:SIZE, :SIZE] - SIZE / 2))
    return 1 + 0.3 * np.cos(0.02 * r**2) * np.exp(-((r / 18) ** 2)) - 0.2 * (r < 14)


def wrong(light, beams):
    """Rms of the flat-field error, brightness apart."""
    ratio = light / beams
    return float(np.mean((ratio / ratio.mean((1, 2), keepdims=True)).std((1, 2))))


def test_combination_is_nearer_than_the_mean():
    random = np.random.default_rng(0)
    flats = random.poisson(drifting(random, 30, 2) + DARK)
    beams = drifting(random, 3, 2)
    counts = random.poisson(beams * fringes() + DARK)
    found = combine_flats(counts, flats, np.full((2, SIZE, SIZE), DARK))
    mean = np.broadcast_to(flats.mean(0) - DARK, beams.shape)
    assert wrong(found.light, beams) < wrong(mean, beams) / 2
    assert len(found.weights) == 3 and "principal components" in found.message


def test_each_distance_has_its_own_flats():
    random = np.random.default_rng(1)
    sets = np.stack([drifting(random, 12, 1), 2 * drifting(random, 12, 1)[:, ::-1]])
    beams = np.stack([sets[0, 0], sets[1, 0]])
    found = combine_flats(random.poisson(beams), random.poisson(sets))
    assert wrong(found.light, beams) < wrong(sets.mean(1), beams) / 2
    assert np.allclose(found.light.mean((1, 2)), beams.mean((1, 2)), rtol=0.01)


def test_brightness_is_fitted_outside_the_object():
    random = np.random.default_rng(2)
    flats, beam = random.poisson(drifting(random, 8, 1)), drifting(random, 1, 1)
    outside = np.ones((SIZE, SIZE), bool)
    outside[8:-8, 8:-8] = False
    found = combine_flats(random.poisson(0.8 * beam * fringes()), flats, outside=outside)
    assert found.gains[0] == pytest.approx(0.8, abs=0.005)
    assert found.light.mean() == pytest.approx(0.8 * beam.mean(), rel=0.005)


def test_flats_that_differ_by_noise_alone_are_averaged():
    random = np.random.default_rng(3)
    flats = random.poisson(1000, (6, 32, 32))
    found = combine_flats(random.poisson(1000, (2, 32, 32)), flats)
    assert found.weights[0].size == 0 and np.allclose(found.light[1], flats.mean(0), rtol=1e-5)


@pytest.mark.parametrize(
    ("counts", "flats", "more"),
    [
        (np.ones((4, 4)), np.ones((3, 4, 4)), {}),
        (np.ones((2, 4, 4)), np.ones((3, 5, 4)), {}),
        (np.ones((2, 4, 4)), np.ones((3, 3, 4, 4)), {}),
        (np.full((2, 4, 4), np.nan), np.ones((3, 4, 4)), {}),
        (np.ones((2, 4, 4)), np.ones((3, 4, 4)), {"darks": np.full((4, 4), 2.0)}),
        (np.ones((2, 4, 4)), np.ones((3, 4, 4)), {"darks": np.ones((2, 5, 5))}),
        (np.ones((2, 8, 8)), np.ones((3, 8, 8)), {"outside": np.zeros((8, 8), bool)}),
    ],
)
def test_what_does_not_fit_is_refused(counts, flats, more):
    with pytest.raises(InputError, match="combine_flats"):
        combine_flats(counts, flats, **more)

"""Power laws, white coordinates, edges and vacuum: what is known of an object before its measurement."""

import jax.numpy as jnp
import numpy as np
import pytest

from diffrecon.operators.fourier import half_plane_weights, radial_frequency
from diffrecon.priors import (
    Coordinates,
    PowerLaw,
    Variation,
    filtered,
    unseen_ramp,
    vacuum_weights,
    whitening,
)


# ------------------------------------------------------------------------------------------ power laws
def test_power_law_comes_out_of_noise():
    rng = np.random.default_rng(0)
    frequency = radial_frequency((64, 64), zero=0.5)
    power = 2e-4 * frequency**-3.0 * rng.exponential(size=frequency.shape) + 0.01 * rng.standard_normal(frequency.shape)
    law = PowerLaw.fit(power, frequency)
    assert law.slope == pytest.approx(-3, abs=0.3) and law.level == pytest.approx(2e-4, rel=0.6)


def test_power_law_of_what_is_known_ends_at_the_first_hole():
    frequency = radial_frequency((96, 64))
    power, known = 3.0 * frequency**-2.5, np.ones(frequency.shape)
    known[(frequency > 0.2) & (frequency < 0.3)] = 0.2
    power[frequency > 0.3] = 1e6  # beyond the hole nothing counts
    law = PowerLaw.fit(power, frequency, known)
    assert law.slope == pytest.approx(-2.5, abs=0.03) and law.level == pytest.approx(3, rel=0.1)
    assert np.allclose(law(frequency[:3]), 3.0 * frequency[:3] ** -2.5, rtol=0.05)


def test_power_law_refined_by_a_solution_that_noise_has_shrunk():
    """A Wiener solution has `known` of the power; the law of the object comes back from it."""
    rng, truth = np.random.default_rng(1), PowerLaw(0.02, -3.0)
    frequency = radial_frequency((128, 128))
    spectrum = np.fft.rfft2(rng.standard_normal((128, 128)), norm="ortho") * np.sqrt(truth(frequency))
    curvature = 5e2 * np.ones(frequency.shape)
    noisy = spectrum + np.fft.rfft2(rng.standard_normal((128, 128)), norm="ortho") / np.sqrt(curvature)
    image = np.fft.irfft2(noisy * curvature / (curvature + 1 / truth(frequency)), s=(128, 128), norm="ortho")
    image, curvature = jnp.asarray(image, jnp.float32), jnp.asarray(curvature, jnp.float32)
    law = truth.refined(image, curvature)
    assert law.slope == pytest.approx(-3.0, abs=0.1) and law.level == pytest.approx(0.02, rel=0.3)
    assert truth.refined(image, 1e-9 * curvature) is truth


def test_slopes_stay_those_of_objects():
    frequency = radial_frequency((64, 64))
    assert PowerLaw.fit(frequency**-9.0, frequency).slope == -6.0
    assert PowerLaw.fit(np.ones(frequency.shape), frequency).slope == -1.5


# ------------------------------------------------------------------------------------------ coordinates
class Pair(Coordinates):
    def put(self, model, maps):
        return {"maps": maps, **model} if model else maps


def test_whitened_maps_have_curvature_one():
    rng = np.random.default_rng(2)
    f = radial_frequency((6, 6))
    curvature = jnp.asarray([[2 + f, 1 - 3 * f], [1 - 3 * f, 1 + f**2]], jnp.float32)
    kernels, inverse = whitening(curvature)
    product = jnp.einsum("kiyx,klyx,ljyx->ijyx", kernels, curvature, kernels)
    assert np.allclose(product, np.eye(2)[..., None, None] * np.ones((6, 4)), atol=1e-3)
    maps = jnp.asarray(rng.standard_normal((2, 6, 6)), jnp.float32)
    coordinates = Pair(filtered(maps, inverse), kernels, {}, {}, None)
    assert np.allclose(coordinates.solution(), maps, atol=1e-4)
    assert np.allclose(coordinates.at(jnp.zeros_like(maps)).solution(), 0)


def test_one_matrix_and_complex_maps():
    rng = np.random.default_rng(3)
    maps, matrix = rng.standard_normal((3, 5, 4)), rng.standard_normal((3, 3))
    mixed = filtered(jnp.asarray(maps, jnp.float32), jnp.asarray(matrix[..., None, None], jnp.float32))
    assert np.allclose(mixed, np.einsum("mn,nyx->myx", matrix, maps), atol=1e-5)
    wave, kernel = rng.standard_normal((1, 5, 4)) + 1j, rng.random((1, 5, 4))
    result = filtered(jnp.asarray(wave, jnp.complex64), jnp.asarray(kernel, jnp.float32))
    assert np.allclose(result, np.fft.ifft2(kernel * np.fft.fft2(wave)), atol=1e-5)


@pytest.mark.parametrize("columns", [6, 7])
def test_half_plane_stands_for_the_whole(columns):
    image = np.random.default_rng(4).standard_normal((5, columns))
    half = np.abs(np.fft.rfft2(image, norm="ortho")) ** 2 * half_plane_weights(columns)
    assert half.sum() == pytest.approx((image**2).sum())


# ------------------------------------------------------------------------------------------ edges and vacuum
def test_vacuum_is_where_nothing_is():
    y, x = np.mgrid[:96, :96] - 47.5
    thing = -np.sqrt(np.maximum(1 - (x**2 + y**2) / 20**2, 0))
    thing += 0.005 * np.random.default_rng(0).standard_normal((96, 96))
    thing -= 0.2 * (np.hypot(y - 30, x - 25) < 6)  # a fainter part apart
    weights = np.asarray(vacuum_weights(jnp.asarray(thing, jnp.float32), jnp.full((96, 49), 4.0), 0.06, 0.5))
    assert weights.max() == pytest.approx(2.0, rel=0.01)  # the strength over the variance 1/4
    assert weights[np.hypot(x, y) < 18].max() < 1e-3 and weights[np.hypot(y - 30, x - 25) < 5].max() < 1e-3
    assert np.median(weights[:8]) > 1.9
    assert not vacuum_weights(jnp.zeros((32, 32)), jnp.ones((32, 17)), 0.06, 0.5).any()


def test_variation_spares_edges():
    """A step weighs one over its height, noise one over its own: of details finer than the first maximum."""
    image = np.zeros((64, 64))
    image[:, 32:] = 1.0
    law = Variation.about(jnp.asarray(image, jnp.float32), PowerLaw(1e-3, -3.0), jnp.full((64, 33), 1e4), 0.02)
    edges = np.asarray(law.edges)
    assert edges[:, 31].max() < 0.05 * np.median(edges[:, 10:20])
    assert np.median(edges[:, 10:20]) <= 1e4 / 0.1 * 1.001  # one over a tenth of the variance of a pixel


def test_a_ramp_that_nothing_tells_is_as_large_as_in_images_of_the_law():
    """Against images drawn at random on a larger domain: what regression on all else leaves of their ramps."""
    law, size, seen, random = PowerLaw(1e-3, -3.0), 96, 24, np.random.default_rng(0)
    frequency = np.hypot(np.fft.fftfreq(size)[:, None], np.fft.rfftfreq(size))
    root = np.sqrt(np.where(frequency > 0, law(np.maximum(frequency, 1e-9)), 0))
    noise = np.fft.rfft2(random.standard_normal((1200, size, size)), norm="ortho")
    images = np.fft.irfft2(noise * root, s=(size, size), norm="ortho")[:, :seen, :seen]
    rows = np.arange(seen) - (seen - 1) / 2
    slopes = [np.einsum("nyx,y->n", images, rows), np.einsum("nyx,x->n", images, rows)] / (seen * (rows**2).sum())
    rest = images - images.mean((1, 2), keepdims=True) - slopes[0][:, None, None] * rows[:, None]
    rest -= slopes[1][:, None, None] * rows
    slow = rest.reshape(-1, 8, 3, 8, 3).mean((2, 4)).reshape(len(rest), 64)  # a ramp follows from what is slow
    left = slopes[0] - slow @ np.linalg.lstsq(slow, slopes[0], rcond=1e-4)[0]
    ramp = unseen_ramp(law, (seen, seen), (seen, seen))[0]
    assert abs(ramp / (left.std() * np.sqrt((rows**2).mean())) - 1) < 0.1
    larger = unseen_ramp(law, (seen, seen), (3 * seen, 3 * seen))[0]
    assert larger < 0.7 * ramp  # what goes on around is seen

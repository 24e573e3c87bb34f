"""From coarse to fine and back: the same wave, the same light, the same places."""

import jax.numpy as jnp
import numpy as np

from diffrecon.models import Ptychography, coarser, has_coarser, refined


def test_a_smooth_model_is_the_same_after_a_coarser_one():
    y, x = np.meshgrid((np.arange(24) - 11.5) / 4, (np.arange(32) - 15.5) / 4, indexing="ij")
    beam = 3 * np.exp(-(y**2) - 0.5 * (x - 0.3) ** 2 + 0.5j * x)
    places = np.array([[2.0, 3.0], [5.5, 8.25]])
    fine = Ptychography(
        jnp.ones((37, 51), jnp.complex64), jnp.asarray(beam[None], jnp.complex64), jnp.asarray(places),
        jnp.zeros((12, 16)), jnp.ones(2), distance=1e-3, wavelength=1e-10, pixel_size=50e-9, oversampling=2,
        travel=jnp.asarray([[1.0, 0.0]]),
    )  # fmt: skip
    small = coarser(fine)
    assert has_coarser(fine) and not has_coarser(small) and small.object.shape == (19, 26)
    assert small.pixel_size == 100e-9 and small.oversampling == 1 and small.probe.shape == (1, 12, 16)
    np.testing.assert_allclose(np.sum(abs(small.probe) ** 2), np.sum(abs(fine.probe) ** 2), rtol=1e-5)
    back = refined(small.replace(background=small.background + 5), fine)
    np.testing.assert_allclose(back.probe, fine.probe, atol=2e-3)
    np.testing.assert_allclose(back.object, fine.object, atol=1e-5)
    np.testing.assert_allclose(back.positions, places)
    np.testing.assert_allclose(back.travel, fine.travel)
    assert back.pixel_size == fine.pixel_size and back.oversampling == 2
    np.testing.assert_array_equal(back.background, fine.background)


def test_modes_come_back_with_the_light_of_all():
    wave = np.exp(-((np.arange(16) - 7.5) ** 2) / 10)
    probe = np.stack([np.outer(wave, wave), 0.3 * np.outer(wave, wave * (np.arange(16) - 7.5))])
    model = Ptychography(
        jnp.ones((20, 20), jnp.complex64), jnp.asarray(probe, jnp.complex64), jnp.zeros((1, 2)), jnp.zeros((1, 1)),
        jnp.ones(1), far=True,
    )  # fmt: skip
    assert coarser(model).probe.shape == (1, 16, 16)
    back = refined(coarser(model), model)
    assert back.probe.shape == (2, 16, 16)
    np.testing.assert_allclose(np.sum(abs(back.probe) ** 2), np.sum(probe**2), rtol=1e-5)

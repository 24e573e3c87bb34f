"""What transforms have in common, against closed forms."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffrecon.operators.fourier import blur


@pytest.mark.parametrize("shape", [(12, 15), (3, 16, 10)])
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.complex64])
def test_blur_dampens_a_wave_by_the_transform_of_the_gaussian(shape, dtype):
    y, x = np.mgrid[: shape[-2], : shape[-1]]
    wave = np.cos(2 * np.pi * (2 * y / shape[-2] + 3 * x / shape[-1]) + 0.3)
    image = jnp.asarray(np.broadcast_to(wave, shape) + 2, dtype)
    gain = np.exp(-2 * np.pi**2 * ((0.8 * 2 / shape[-2]) ** 2 + (0.5 * 3 / shape[-1]) ** 2))
    np.testing.assert_allclose(blur(image, (0.8, 0.5)), np.broadcast_to(gain * wave + 2, shape), atol=2e-6)


def test_blur_along_all_axes_is_the_sampled_gaussian_and_its_own_transpose():
    with jax.enable_x64(True):
        spot = jnp.zeros((24, 20, 22)).at[5, 7, 20].set(1.0)
        distance = [(np.arange(n) - at + n // 2) % n - n // 2 for n, at in zip(spot.shape, (5, 7, 20), strict=True)]
        square = sum(np.meshgrid(*[d**2 for d in distance], indexing="ij"))
        gauss = np.exp(-square / (2 * 1.6**2)) / (2 * np.pi * 1.6**2) ** 1.5
        np.testing.assert_allclose(blur(spot, 1.6, range(3)), gauss, atol=1e-7)
        one, other = (jnp.asarray(np.random.default_rng(i).standard_normal((9, 8))) for i in (0, 1))
        assert float(jnp.vdot(blur(one, 1.1), other)) == pytest.approx(
            float(jnp.vdot(one, blur(other, 1.1))), rel=1e-12
        )


def test_blur_has_a_derivative_by_its_width():
    with jax.enable_x64(True):
        image = jnp.asarray(np.random.default_rng(0).standard_normal((8, 9)))
        cost = lambda width: jnp.sum(blur(image, width) ** 2)
        slope = (cost(0.7 + 1e-6) - cost(0.7 - 1e-6)) / 2e-6
        assert float(jax.grad(cost)(0.7)) == pytest.approx(float(slope), rel=1e-7)

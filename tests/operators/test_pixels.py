"""A field of the grid on detector pixels: closed forms, dot test, finite differences."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffrecon.operators import pixel_matrix, rotate_periodic

SIZE, COUNT = 64, 20


def gauss(y, x, centre, width=(3.0, 5.0)):
    return np.exp(-((y - centre[0]) ** 2) / (2 * width[0] ** 2) - (x - centre[1]) ** 2 / (2 * width[1] ** 2))


@pytest.mark.parametrize(("shift", "stretch", "blur"), [(0.0, 1.0, 0.0), (1.3, 1.02, 0.0), (-0.4, 0.99, 0.7)])
def test_pixels_of_a_wave_are_its_mean_over_them(shift, stretch, blur):
    ratio, k = 1.4, 5
    phase = 2 * np.pi * k / SIZE
    wave = np.cos(phase * (np.arange(SIZE) - (SIZE - 1) / 2) + 0.3)
    places = ratio * ((np.arange(COUNT) - (COUNT - 1) / 2) * stretch - shift)
    expected = np.cos(phase * places + 0.3) * np.sinc(k / SIZE * ratio) * np.exp(-((phase * ratio * blur) ** 2) / 2)
    for cast in (float, jnp.asarray):  # plain numbers in float64, traced ones in float32
        rows = pixel_matrix(COUNT, SIZE, ratio=cast(ratio), shift=cast(shift), stretch=cast(stretch), blur=cast(blur))
        np.testing.assert_allclose(rows @ jnp.asarray(wave, jnp.float32), expected, atol=2e-5)
        np.testing.assert_allclose(jnp.sum(rows, 1), 1, atol=1e-5)


@pytest.mark.parametrize("name", ["ratio", "shift", "stretch", "blur"])
def test_derivatives_agree_with_finite_differences(name):
    with jax.enable_x64(True):
        numbers = {"ratio": 1.4, "shift": 0.3, "stretch": 1.01, "blur": 0.5}
        weights = jnp.asarray(np.random.default_rng(0).normal(size=(COUNT, SIZE)))

        def total(value):
            given = {k: jnp.asarray(v) for k, v in (numbers | {name: value}).items()}
            return jnp.sum(weights * pixel_matrix(COUNT, SIZE, dtype=jnp.float64, **given))

        value, h = jnp.asarray(numbers[name]), 1e-6
        np.testing.assert_allclose(jax.grad(total)(value), (total(value + h) - total(value - h)) / (2 * h), rtol=1e-6)


def test_rotation_carries_a_bump_around_the_centre():
    y, x = np.mgrid[:SIZE, :SIZE] - (SIZE - 1) / 2
    angle, centre = 0.15, (6.0, -4.0)
    cos, sin = np.cos(angle), np.sin(angle)
    turned = rotate_periodic(jnp.asarray(gauss(y, x, centre), jnp.float32), angle)
    expected = gauss(y * cos - x * sin, x * cos + y * sin, centre)
    np.testing.assert_allclose(turned, expected, atol=2e-5)

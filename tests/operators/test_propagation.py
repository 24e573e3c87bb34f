"""Propagation against closed forms, in both precisions."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special

import diffrecon as dr
from diffrecon import operators as op

WAVELENGTH = float(dr.physics.energy_to_wavelength(17e3))


def grid(n, pixel):
    return (np.arange(n) - (n - 1) / 2) * pixel


@pytest.mark.parametrize("distance", [2e-3, -5e-3, (3e-3, 8e-3)])
def test_fresnel_of_a_gaussian_beam(distance):
    """A waist w0 spreads as `exp(-(x/w0)^2 / q) / q^(1/2)` along each axis, `q = 1 + i D lambda / (pi w0^2)`."""
    n, pixel, waist = 256, 50e-9, 0.6e-6
    x = grid(n, pixel)
    rayleigh = np.pi * waist**2 / WAVELENGTH

    def beam(z):
        q = 1 + 1j * z / rayleigh
        return np.exp(-((x / waist) ** 2) / q) / np.sqrt(q)

    vertical, horizontal = np.broadcast_to(distance, 2)
    wave = jnp.asarray(np.outer(beam(0.0), beam(0.0)), jnp.complex64)
    transfer = op.fresnel_transfer((n, n), pixel_size=pixel, wavelength=WAVELENGTH, distance=distance)
    np.testing.assert_allclose(op.propagate(wave, transfer), np.outer(beam(vertical), beam(horizontal)), atol=2e-6)


def test_fresnel_of_a_slit():
    """Fresnel integrals: `U(x) = [F((a - x) s) + F((a + x) s)] / (2i)^(1/2)`, `s^2 = 2 / (lambda D)`."""
    n, pixel, half, distance = 2048, 20e-9, 4e-6, 10e-3
    x = grid(n, pixel)
    scale = np.sqrt(2 / (WAVELENGTH * distance))
    integral = lambda u: (lambda s, c: c + 1j * s)(*scipy.special.fresnel(u))
    exact = (integral((half - x) * scale) + integral((half + x) * scale)) / np.sqrt(2j)
    # The edge lies between two pixels.
    slit = jnp.asarray((abs(x) < half)[:, None] * np.ones((1, 2)), jnp.complex64)
    transfer = op.fresnel_transfer((n, 2), pixel_size=pixel, wavelength=WAVELENGTH, distance=distance)
    inner = slice(n // 4, -n // 4)
    found = np.asarray(op.propagate(slit, transfer))[inner, 0]
    assert np.linalg.norm(found - exact[inner]) < 0.01 * np.linalg.norm(exact[inner])


def test_sign_a_weak_phase_makes_contrast_of_the_right_sign():
    """CTF: a phase `phi cos(2 pi f x)` at `chi = pi/2` makes intensity `1 + 2 phi cos(2 pi f x)`."""
    n, pixel, cycles = 64, 100e-9, 8
    f = cycles / (n * pixel)
    distance = 0.5 / (WAVELENGTH * f**2)
    phase = 1e-3 * np.cos(2 * np.pi * f * np.arange(n) * pixel)[None] * np.ones((2, 1))
    transfer = op.fresnel_transfer((2, n), pixel_size=pixel, wavelength=WAVELENGTH, distance=distance)
    hologram = abs(np.asarray(op.propagate(jnp.asarray(np.exp(1j * phase), jnp.complex64), transfer))) ** 2
    np.testing.assert_allclose(hologram - 1, 2 * phase, atol=5e-6)


def test_forward_then_back_and_energy():
    wave = op.random_like(jnp.zeros((3, 32, 48), jnp.complex64), 0)
    transfer = op.fresnel_transfer((32, 48), pixel_size=50e-9, wavelength=WAVELENGTH, distance=0.02)
    there = op.propagate(wave, transfer)
    np.testing.assert_allclose(op.propagate(there, jnp.conj(transfer)), wave, atol=3e-6)
    assert float(jnp.sum(abs(there) ** 2) / jnp.sum(abs(wave) ** 2)) == pytest.approx(1, abs=1e-6)
    half = op.fresnel_transfer((32, 48), pixel_size=50e-9, wavelength=WAVELENGTH, distance=0.01)
    np.testing.assert_allclose(op.propagate(op.propagate(wave, half), half), there, atol=3e-6)


def test_vacuum_is_exact_to_the_last_bit():
    transfer = op.fresnel_transfer((96, 80), pixel_size=50e-9, wavelength=WAVELENGTH, distance=0.02)
    wave = op.propagate_in_vacuum(jnp.ones((2, 40, 32), jnp.complex64), transfer)
    assert jnp.array_equal(wave, jnp.ones_like(wave))
    with pytest.raises(dr.InputError, match="smaller than the wave"):
        op.propagate_in_vacuum(jnp.ones((97, 40), jnp.complex64), transfer)


def test_vacuum_padding_equals_propagation_of_the_whole_field():
    """A window with an object that ends in vacuum, padded with vacuum, is the large field's middle."""
    whole = np.ones((128, 128), np.complex64)
    x = grid(32, 1)
    whole[48:80, 48:80] = np.exp(-1j * np.exp(-(x[:, None] ** 2 + x**2) / 20))
    transfer = op.fresnel_transfer((128, 128), pixel_size=100e-9, wavelength=WAVELENGTH, distance=0.01)
    expected = np.asarray(op.propagate(jnp.asarray(whole), transfer))[48:80, 48:80]
    found = op.propagate_in_vacuum(jnp.asarray(whole[48:80, 48:80]), transfer)
    np.testing.assert_allclose(found, expected, atol=2e-6)


@pytest.mark.parametrize("traced, tolerance", [(False, 2e-7), (True, 2e-3)])
def test_kernel_keeps_its_digits_in_float32(traced, tolerance):
    """17 keV, 0.5 m, 50 nm: phases of 10^4 rad, where a naive float32 kernel is 141 % wrong."""
    shape, pixel, distance = (256, 256), 50e-9, 0.5
    f = np.fft.fftfreq(256, pixel)
    exact = np.exp(-1j * np.pi * WAVELENGTH * distance * (f[:, None] ** 2 + f**2))
    path = jnp.asarray(distance, jnp.float32) if traced else distance
    found = np.asarray(op.fresnel_transfer(shape, pixel_size=pixel, wavelength=WAVELENGTH, distance=path))
    assert found.dtype == np.complex64
    assert np.linalg.norm(found - exact) < tolerance * np.linalg.norm(exact)


def test_fraunhofer_keeps_counts_and_is_unitary():
    wave = op.random_like(jnp.zeros((2, 12, 10), jnp.complex64), 1)
    far = op.fraunhofer(wave)
    assert float(jnp.sum(abs(far) ** 2)) == pytest.approx(float(jnp.sum(abs(wave) ** 2)), rel=1e-6)
    back = lambda far: jnp.fft.ifft2(far, norm="ortho")
    np.testing.assert_allclose(back(far), wave, atol=1e-6)
    assert op.dot_test(op.fraunhofer, back, wave) < 1e-6


@pytest.mark.parametrize(
    "name, value",
    [
        ("distance", 0.013),
        ("wavelength", WAVELENGTH),
        ("pixel_size", 61e-9),
        ("distance", (0.013, 0.017)),
        ("pixel_size", (61e-9, 50e-9)),
    ],
)
def test_derivative_with_respect_to_the_geometry(name, value):
    """Central differences in float64: step 1e-6 balances truncation (phases of 400 rad: 3e-8) against rounding
    (1e-9).
    """
    with jax.enable_x64(True):
        wave = op.random_like(jnp.zeros((16, 16), jnp.complex128), 2)
        weight = op.random_like(jnp.zeros((16, 16)), 3)
        plain = {"distance": 0.013, "wavelength": WAVELENGTH, "pixel_size": 61e-9}

        def figure(factor):
            geometry = plain | {name: jnp.asarray(value) * factor}
            transfer = op.fresnel_transfer((16, 16), dtype=jnp.complex128, **geometry)
            return jnp.sum(weight * abs(op.propagate(wave, transfer)) ** 2)

        slope = jax.grad(figure)(jnp.asarray(1.0))
        step = 1e-6
        assert float(slope) == pytest.approx(float(figure(1 + step) - figure(1 - step)) / (2 * step), rel=1e-6)
        # The traced value and the plain number give the same kernel.
        same = op.fresnel_transfer((16, 16), dtype=jnp.complex128, **(plain | {name: value}))
        assert float(figure(1.0)) == pytest.approx(
            float(jnp.sum(weight * abs(op.propagate(wave, same)) ** 2)), rel=1e-9
        )


def test_sampling_in_words():
    good = op.sampling((512, 512), pixel_size=50e-9, wavelength=WAVELENGTH, distance=0.01)
    assert good.enough and good.message.startswith("well sampled") and good.aperture == (0.5, 0.5)
    number = 50e-9**2 / (WAVELENGTH * 0.1)
    bad = op.sampling((512, 4096), pixel_size=50e-9, wavelength=WAVELENGTH, distance=0.1)
    assert not bad.enough and bad.fresnel_number[0] == pytest.approx(number)
    assert bad.pixels[0] == int(np.ceil(1 / number)) and f"pad to {bad.pixels[0]} pixels" in bad.message
    assert bad.aperture[0] == pytest.approx(0.5 * number * 512)
    assert "vertically" in bad.message and "horizontally" not in bad.message
    assert op.sampling((8, 8), pixel_size=1e-6, wavelength=WAVELENGTH, distance=0.0).enough

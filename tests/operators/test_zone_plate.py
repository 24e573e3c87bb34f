"""The X-ray microscope against closed forms, plain NumPy and finite differences."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import diffrecon as dr
from diffrecon.operators import ZonePlateMicroscope, adjoint_of, dot_test

ZONE, PIXEL, SIZE = 40e-9, 10e-9, 64


def optics(**told):
    return ZonePlateMicroscope.make(8e3, **{"outermost_zone": ZONE, "pixel_size": PIXEL, **told})


def radius(size=SIZE):
    f = np.fft.fftfreq(size, PIXEL)
    return np.hypot(f[:, None], f) * 2 * ZONE  # in units of NA / wavelength


def test_matched_condenser_has_the_chinese_hat_and_ends_at_twice_the_aperture():
    """Autocorrelation of a disc: 2/pi (acos(r/2) - r/2 sqrt(1 - r^2/4)), cut-off 2 NA / wavelength."""
    microscope = optics(points=1500, box=False)
    of_phase, of_attenuation = microscope.transfer((SIZE, SIZE))
    half = np.minimum(radius() / 2, 1)
    expected = -2 * 2 / np.pi * (np.arccos(half) - half * np.sqrt(1 - half**2))
    assert np.abs(np.asarray(of_attenuation) - expected).max() < 0.06
    assert np.abs(np.asarray(of_phase)).max() < 0.06  # in focus: no phase contrast
    beyond = radius() > 2 + 2 / (SIZE * PIXEL) * 2 * ZONE
    assert beyond.any() and np.abs(np.asarray(of_attenuation))[beyond].max() == 0
    assert microscope.cutoff == pytest.approx(1 / ZONE, rel=1e-3)


def test_coherent_light_with_a_phase_dot_is_zernike_contrast():
    """A dot that turns the direct light by 90 degrees: contrast of phase -2, positive phase contrast, none of
    attenuation."""
    microscope = optics(condenser=(0, 0), ring=(0, 0.1), box=False)
    of_phase, of_attenuation = (np.asarray(a) for a in microscope.transfer((SIZE, SIZE)))
    inside = (radius() < 0.9) & (radius() > 0.25)
    np.testing.assert_allclose(of_phase[inside], 2, atol=1e-5)
    np.testing.assert_allclose(of_attenuation[inside], 0, atol=1e-5)
    assert np.abs(of_phase[radius() > 1.1]).max() == 0


def test_defocus_is_fresnel_propagation():
    """One plane wave, the object at a distance before the focal plane's conjugate: contrast 2 sin(chi), -2 cos(chi)."""
    microscope = optics(condenser=(0, 0), defocus=3e-6, box=False)
    of_phase, of_attenuation = (np.asarray(a) for a in microscope.transfer((SIZE, SIZE)))
    inside = radius() < 0.9
    chi = np.pi * microscope.wavelength * 3e-6 * (radius() / (2 * ZONE)) ** 2
    np.testing.assert_allclose(of_phase[inside], 2 * np.sin(chi)[inside], atol=1e-4)
    np.testing.assert_allclose(of_attenuation[inside], -2 * np.cos(chi)[inside], atol=1e-4)


@pytest.mark.parametrize(
    "told",
    [
        {"stop": 0.4, "condenser": (0.5, 0.9)},
        {"condenser": (0.4, 0.5), "ring": (0.35, 0.55), "ring_transmission": 0.8, "defocus": 2e-6},
    ],
)
def test_weak_image_is_the_image_of_a_weak_object(told):
    microscope, rng = optics(points=16, **told), np.random.default_rng(0)
    f2 = radius() ** 2
    phase, attenuation = (
        np.fft.ifft2(np.fft.fft2(rng.standard_normal((SIZE, SIZE))) * np.exp(-f2)).real * 1e-3 for _ in range(2)
    )
    with jax.enable_x64(True):
        image = microscope(jnp.asarray(np.exp(1j * phase - attenuation)))
        weak = microscope.weak_image(jnp.asarray(phase), jnp.asarray(attenuation))
        assert np.abs(image - 1 - weak).max() < 2e-3 * np.abs(weak).max()


def test_image_of_plain_numpy():
    """Abbe's sum written out, hard pupil on a grid fine in frequency."""
    size, rng = 96, np.random.default_rng(1)
    microscope = optics(stop=0.3, condenser=(0.4, 0.8), points=24, box=False)
    f = np.fft.fftfreq(size, PIXEL)
    wave = np.exp(
        np.fft.ifft2(
            np.fft.fft2(rng.standard_normal((size, size)) * (0.3 - 0.05))
            * np.exp(-(np.hypot(f[:, None], f) ** 2) * (2 * ZONE) ** 2)
        )
        * (1j - 0.3)
    )
    image, empty = 0, 0
    for y, x in np.asarray(microscope.points, float):
        r = np.hypot(f[:, None] + y, f + x) * 2 * ZONE
        image = image + np.abs(np.fft.ifft2(np.fft.fft2(wave) * ((r < 1) & (r > 0.3)))) ** 2
        empty += 1
    found = np.asarray(microscope(jnp.asarray(wave, jnp.complex64)))
    assert np.linalg.norm(found - image / empty) < 0.1 * np.linalg.norm(image / empty - 1)  # edges are soft


def test_adjoint_and_gradient():
    with jax.enable_x64(True):
        microscope = optics(points=8, condenser=(0.3, 0.7), defocus=1e-6, stop=0.2)
        like = (jnp.zeros((16, 20)), jnp.zeros((16, 20)))
        forward = lambda maps: microscope.weak_image(*maps)
        assert dot_test(forward, adjoint_of(forward, like), like) < 1e-12
        rng = np.random.default_rng(0)
        phase = jnp.asarray(0.3 * rng.standard_normal((16, 20)))
        target = jnp.asarray(rng.standard_normal((16, 20)))

        def cost(phase, defocus, stop):
            changed = ZonePlateMicroscope(**{**vars(microscope), "defocus": defocus, "stop": stop})
            return jnp.sum(target * changed(jnp.exp(1j * phase)))

        at = (phase, 1e-6, 0.2)
        gradient = jax.jit(jax.grad(cost, argnums=(0, 1, 2)))(*at)
        way = jnp.asarray(rng.standard_normal((16, 20)))
        value = jax.jit(cost)
        slope = (value(phase + 1e-6 * way, *at[1:]) - value(phase - 1e-6 * way, *at[1:])) / 2e-6
        assert float(jnp.vdot(gradient[0], way)) == pytest.approx(float(slope), rel=1e-6)
        slope = (value(phase, 1e-6 + 1e-11, 0.2) - value(phase, 1e-6 - 1e-11, 0.2)) / 2e-11
        assert float(gradient[1]) == pytest.approx(float(slope), rel=1e-5)


def test_deconvolution_with_the_known_optics():
    """Wiener's filter beats the image itself, more so the more photons, and says what it does not know."""
    rng = np.random.default_rng(0)
    microscope = optics(stop=0.4, condenser=(0.5, 1.0), points=40, outermost_zone=60e-9)
    y, x = np.mgrid[:SIZE, :SIZE]
    truth = 0.05 * (((x // 8) % 2) * ((y - 32) ** 2 + (x - 32) ** 2 < 500)).astype(float)
    transfer = microscope.transfer((SIZE, SIZE))[1]
    blurred = np.asarray(microscope.weak_image(jnp.zeros((SIZE, SIZE)), jnp.asarray(truth, jnp.float32)))
    errors, known = [], np.zeros(1)
    for counts in (1e3, 1e5):
        image = rng.poisson(counts * (1 + blurred)) / counts - 1
        found, known = dr.solvers.deconvolve(image, transfer, noise=counts**-0.5)
        errors.append(np.linalg.norm(found - truth) / np.linalg.norm(-0.5 * image - truth))
    assert errors[0] < 0.8 and errors[1] < 0.8 and known[1] > 0.95 and known[-1] < 0.05


@pytest.mark.parametrize(
    "told", [{"stop": 1.2}, {"condenser": (0.8, 0.3)}, {"ring": (0.5, 0.4)}, {"stop": 0.5, "condenser": (0.0, 0.3)}]
)
def test_optics_that_make_no_sense_are_refused(told):
    with pytest.raises(dr.InputError, match="zone plate"):
        optics(**told)

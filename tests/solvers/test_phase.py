"""Direct phase retrieval against closed forms and against holograms of an independent, finer model."""

from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

from diffrecon.errors import InputError
from diffrecon.solvers import ctf, paganin
from diffrecon.solvers._phase import ctf_response

PIXEL, WAVELENGTH = 5e-8, 7.2932e-11
DISTANCES = (0.0205, 0.0228, 0.0274)


def grating(n: int, periods: int) -> np.ndarray:
    # Cosine about the mirror points, so that continuation by reflection is exact.
    return np.broadcast_to(np.cos(np.pi * periods * (np.arange(n) + 0.5) / n), (n, n))


def hologram(phase: np.ndarray, attenuation: np.ndarray, distance: float, pixel: float = PIXEL) -> np.ndarray:
    """Fresnel hologram in NumPy on the mirrored object: exact for it, and independent of diffrecon."""
    wave = np.pad(np.exp(1j * phase - attenuation), [(0, n) for n in phase.shape], mode="symmetric")
    f2 = sum(np.meshgrid(*[np.fft.fftfreq(n, pixel) ** 2 for n in wave.shape], indexing="ij"))
    wave = np.fft.ifft2(np.fft.fft2(wave) * np.exp(-1j * np.pi * WAVELENGTH * distance * f2))
    return np.abs(wave[: phase.shape[0], : phase.shape[1]]) ** 2


def test_a_weak_phase_grating_has_contrast_two_sine_chi():
    n, periods, height = 64, 12, 1e-3
    for distance in DISTANCES:
        image = hologram(height * grating(n, periods), np.zeros((n, n)), distance)
        sine, _ = ctf_response((2 * n, 2 * n), [PIXEL**2 / (WAVELENGTH * distance)])
        # The grating has `periods` half periods in n pixels: frequency index `periods` of the mirrored 2n.
        np.testing.assert_allclose(image - 1, sine[0, 0, periods] * height * grating(n, periods), atol=3e-6)


@pytest.mark.parametrize("delta_beta", [300.0, np.inf])
def test_ctf_of_one_material_inverts_a_weak_grating(delta_beta):
    phase = -1e-3 * (1 + grating(64, 5) * 0.5 + grating(64, 11).T * 0.3)
    images = np.stack([hologram(phase, -phase / delta_beta, d) for d in DISTANCES])
    found, attenuation = ctf(
        jnp.asarray(images, jnp.float32), pixel_size=PIXEL, wavelength=WAVELENGTH, distances=DISTANCES,
        delta_beta=delta_beta, regularisation=(1e-9, 1e-9),
    )
    error = np.asarray(found) - phase
    assert np.abs(error - error.mean()).max() < 1e-5  # the constant of a pure phase object is not in the data
    np.testing.assert_allclose(attenuation, -np.asarray(found) / delta_beta, rtol=1e-6)


def test_ctf_tells_phase_from_attenuation():
    phase, attenuation = -1e-3 * grating(64, 9), 4e-4 * grating(64, 14).T
    images = np.stack([hologram(phase, attenuation, d) for d in DISTANCES])
    found = ctf(jnp.asarray(images, jnp.float32), pixel_size=PIXEL, wavelength=WAVELENGTH, distances=DISTANCES,
                regularisation=(1e-7, 1e-7))
    np.testing.assert_allclose(found[0] - np.mean(found[0]), phase, atol=2e-5)
    np.testing.assert_allclose(found[1] - np.mean(found[1]), attenuation, atol=2e-5)


def test_regularisation_has_two_levels():
    images = np.random.default_rng(0).normal(1, 0.01, (1, 64, 64)).astype("f4")
    options: dict[str, Any] = dict(pixel_size=PIXEL, wavelength=WAVELENGTH, distances=(0.02,), delta_beta=100.0)
    solve = lambda low, high: np.asarray(ctf(images, regularisation=(low, high), **options)[0])
    spectrum = lambda a: np.abs(np.fft.rfft2(a))
    strong, weak = spectrum(solve(1e-4, 1e3)), spectrum(solve(1e-4, 1e-4))
    assert strong[0, 30] < 0.05 * weak[0, 30]  # high frequencies are damped by the high level
    np.testing.assert_allclose(strong[0, 0], weak[0, 0], rtol=5e-2)  # the lowest ones are not


@pytest.mark.parametrize("generalised", [False, True])
def test_paganin_inverts_the_transport_of_intensity(generalised):
    n, ratio, distance, pixel = 128, 500.0, 0.05, 1e-6
    phase = -0.4 * (1.2 + grating(n, 3) * 0.7 + grating(n, 4).T * 0.3)
    image = hologram(phase, -phase / ratio, distance, pixel)
    found = paganin(jnp.asarray(image, jnp.float32), pixel_size=pixel, wavelength=WAVELENGTH, distance=distance,
                    delta_beta=ratio, generalised=generalised)
    assert np.linalg.norm(found - phase) / np.linalg.norm(phase) < 5e-3


def test_border_that_is_mirrored_makes_no_artefact_at_high_delta_beta():
    # A sample that leaves the field of view: the case in which repeating border pixels fails.
    n, ratio, pixel = 96, 3000.0, 1e-6
    phase = -2.0 * (1.2 + grating(n, 1))
    image = hologram(phase, -phase / ratio, 0.02, pixel)
    found = paganin(image, pixel_size=pixel, wavelength=WAVELENGTH, distance=0.02, delta_beta=ratio)
    assert np.linalg.norm(found - phase) / np.linalg.norm(phase) < 0.05


def test_stacks_are_solved_image_by_image():
    images = np.random.default_rng(1).normal(1, 0.01, (3, 2, 32, 48)).astype("f4")
    options: dict[str, Any] = dict(pixel_size=PIXEL, wavelength=WAVELENGTH, distances=DISTANCES[:2], delta_beta=50.0,
                                   outside="vacuum")
    together = ctf(images, **options)[0]
    assert together.shape == (3, 32, 48)
    np.testing.assert_allclose(together[1], ctf(images[1], **options)[0], atol=1e-5)


def test_what_cannot_be_is_refused():
    images = jnp.ones((2, 16, 16))
    options: dict[str, Any] = dict(pixel_size=PIXEL, wavelength=WAVELENGTH)
    with pytest.raises(InputError, match="3 distances"):
        ctf(images, distances=DISTANCES, delta_beta=1.0, **options)
    with pytest.raises(InputError, match="one distance"):
        ctf(images[:1], distances=(0.1,), **options)
    with pytest.raises(InputError, match="mirror"):
        ctf(images, distances=(0.1, 0.2), delta_beta=1.0, outside="edge", **options)
    with pytest.raises(InputError, match="delta/beta"):
        paganin(images, distance=0.1, delta_beta=np.inf, **options)

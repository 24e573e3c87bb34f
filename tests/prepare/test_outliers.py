"""Defects of the detector in holograms, among fringes that are as sharp as they."""

import jax.numpy as jnp
import numpy as np
import pytest

from diffrecon.prepare import find_outliers

N = 160


def holograms(seed: int, flux: float, depth: float) -> tuple[np.ndarray, np.ndarray]:
    """Counts of a sharp-edged disc with sharp grains at two distances (NumPy), and the beam, unlike from pixel to
    pixel."""
    random = np.random.default_rng(seed)
    y, x = np.mgrid[:N, :N] - (N - 1) / 2
    phase = -depth * (np.hypot(y, x) < 50).astype(float)
    for _ in range(12):
        dy, dx, radius = random.uniform(-30, 30, 2).tolist() + [random.uniform(1, 8)]
        phase -= 0.3 * depth * (np.hypot(y - dy, x - dx) < radius)
    f = np.fft.fftfreq(N)
    images = []
    for fresnel_number in (0.05, 0.5):
        chirp = np.exp(-1j * np.pi / fresnel_number * (f[:, None] ** 2 + f**2))
        images.append(np.abs(np.fft.ifft2(np.fft.fft2(np.exp((1j + 0.002) * phase)) * chirp)) ** 2)
    beam = flux * random.normal(1, 0.05, (1, N, N))
    return random.poisson(beam * np.array(images)).astype(np.uint16), beam


@pytest.mark.parametrize("depth", [0.3, 3.0])
@pytest.mark.parametrize(("seed", "flux"), [(0, 4000.0), (1, 50.0), (2, 1.5)])
def test_fringes_and_noise_are_no_outliers(seed, flux, depth):
    counts, beam = holograms(seed, flux, depth)
    which, mended = find_outliers(counts, jnp.asarray(beam))
    assert float(which.mean()) < 3e-4  # edges sharper than any detector's
    np.testing.assert_array_equal(np.asarray(mended)[~np.asarray(which)], counts[~np.asarray(which)])


@pytest.mark.parametrize("flux", [4000.0, 300.0])
def test_dead_hot_and_hit_pixels_are_found_and_mended(flux):
    clean, beam = holograms(3, flux, 0.5)
    counts, bad = clean.copy(), np.zeros(clean.shape, bool)
    for region in (np.s_[:, 20:23, 30:33], np.s_[:, 0, 0], np.s_[:, 60, 100], np.s_[0, 90, 80], np.s_[:, N - 1, 70]):
        bad[region] = True
    counts[:, 20:23, 30:33] = counts[:, 0, 0] = 0  # nine dead ones in the vacuum, one in the corner
    counts[:, 60, 100] *= 3
    counts[0, 90, 80] = counts[:, N - 1, 70] = 60000
    which, mended = find_outliers(counts, jnp.asarray(beam))
    assert np.asarray(which)[bad].all()
    assert int(which.sum()) <= bad.sum() + 2  # a grain or edge sharper than any detector's
    assert np.abs(np.asarray(mended)[bad] / clean[bad] - 1).max() < 0.5


def test_pixels_without_light_are_outliers():
    beam = np.full((1, 24, 24), 100.0)
    beam[0, 5, 6] = 0
    which, mended = find_outliers(np.full((2, 24, 24), 100.0), jnp.asarray(beam))
    assert np.argwhere(np.asarray(which)).tolist() == [[0, 5, 6], [1, 5, 6]]
    assert np.isfinite(np.asarray(mended)).all()

"""The phase-retrieval transfer function: closed forms of phases that agree, are random, or agree up to a frequency."""

import numpy as np
import pytest

from diffrecon.errors import InputError
from diffrecon.quality import phase_transfer

N = 64


def spectrum(seed=0, shape=(N, N)):
    """A falling modulus and random phases."""
    rng = np.random.default_rng(seed)
    radius = np.sqrt(sum(np.ix_(*[np.fft.fftfreq(n) ** 2 for n in shape])))
    return np.exp(-6 * radius) * np.exp(2j * np.pi * rng.uniform(size=shape)), radius


def starts(wave, errors):
    return np.array([np.fft.ifftn(wave * np.exp(1j * e), norm="ortho") for e in errors])


@pytest.mark.parametrize("shape", [(N, N), (16, 24, 20)])
def test_starts_that_agree(shape):
    wave, _ = spectrum(shape=shape)
    found = phase_transfer(starts(wave, [0, 0, 0]), abs(wave) ** 2)
    np.testing.assert_allclose(found.transfer, 1.0, rtol=1e-6)
    assert found.at_half == 0.5 and "detector's edge" in str(found)


@pytest.mark.parametrize("sigma", [0.5, 1.2])
def test_gaussian_errors_of_the_phase(sigma):
    """`<exp(i e)> = exp(-sigma^2 / 2)` for normal errors."""
    wave, _ = spectrum()
    errors = sigma * np.random.default_rng(1).standard_normal((200, N, N))
    found = phase_transfer(starts(wave, errors), abs(wave) ** 2)
    np.testing.assert_allclose(found.transfer[3:], np.exp(-(sigma**2) / 2), atol=0.03)


def test_random_phases_leave_one_over_root_of_the_starts():
    """The mean length of a random walk is sqrt(pi / 4 starts)."""
    wave, _ = spectrum()
    errors = 2 * np.pi * np.random.default_rng(2).uniform(size=(25, N, N))
    found = phase_transfer(starts(wave, errors), abs(wave) ** 2)
    np.testing.assert_allclose(found.transfer[8:], np.sqrt(np.pi / 100), rtol=0.2)  # 0.52 / sqrt(50 pixels or more)


def test_resolution_is_where_the_phases_stop_to_agree():
    wave, radius = spectrum()
    errors = np.where(radius > 0.2, 2 * np.pi * np.random.default_rng(3).uniform(size=(30, N, N)), 0)
    found = phase_transfer(starts(wave, errors), abs(wave) ** 2, pixel_size=10e-9)
    assert abs(found.at_half - 0.2) < 1.5 / N and abs(found.at_e - 0.2) < 1.5 / N and found.at_half <= found.at_e
    assert "nm" in str(found)
    assert found.as_quality()["prtf_at_half"] == found.at_half


def test_unmeasured_pixels_do_not_count():
    wave, radius = spectrum()
    mask = radius > 0.06
    errors = np.where(mask, 0, 2 * np.pi * np.random.default_rng(4).uniform(size=(9, N, N)))
    counts = np.where(mask, abs(wave) ** 2, 0)
    found = phase_transfer(starts(wave, errors), counts, mask)
    np.testing.assert_allclose(found.transfer, 1.0, rtol=1e-6)
    assert found.frequency[0] > 0.05


@pytest.mark.parametrize("objects", [np.ones((1, 8, 8)), np.ones((8, 8)), np.ones((0, 8, 8))])
def test_needs_two(objects):
    with pytest.raises(InputError, match="two or more"):
        phase_transfer(objects, np.ones((8, 8)))

"""Figures of quality against closed forms."""

import numpy as np
import pytest

from diffrecon import quality
from diffrecon.errors import InputError


def spectrum_noise(shape, seed, complex_values=True):
    random = np.random.default_rng(seed)
    noise = random.normal(size=shape)
    return noise + 1j * random.normal(size=shape) if complex_values else noise


@pytest.mark.parametrize("shape", [(256, 256), (200, 260), (64, 64, 64)])
def test_ring_correlation_of_known_signal_to_noise(shape):
    """White signal and white noise of ratio s in every ring: the expected correlation is s / (s + 1)."""
    signal, ratio = spectrum_noise(shape, 1, False), 3.0
    noisy = [signal + spectrum_noise(shape, seed, False) / np.sqrt(ratio) for seed in (2, 3)]
    found = quality.ring_correlation(*noisy, realign=False, taper=0)
    kept = found.samples > 100
    deviation = (found.correlation - ratio / (ratio + 1))[kept]
    # The correlation of n samples scatters by (1 - C^2) / sqrt(n / 2); real images have half as many free samples.
    allowed = 5 * (1 - (ratio / (ratio + 1)) ** 2) / np.sqrt(found.samples[kept] / 2)
    assert (np.abs(deviation) < allowed).all()
    assert abs(deviation.mean()) < 0.01


def test_ring_correlation_follows_a_spectrum():
    """A signal that falls with frequency: the crossing is where s / (s + 1) meets the half-bit curve."""
    shape = (512, 512)
    frequency = np.hypot(*np.meshgrid(*(np.fft.fftfreq(n) for n in shape), indexing="ij"))
    amplitude = np.exp(-frequency / 0.06)
    signal = np.fft.ifftn(np.fft.fftn(spectrum_noise(shape, 1, False)) * amplitude).real
    level = 0.02
    noisy = [signal + level * spectrum_noise(shape, seed, False) for seed in (2, 3)]
    found = quality.ring_correlation(*noisy, realign=False, taper=0)
    ratio = np.exp(-found.frequency / 0.06) ** 2 / level ** 2
    expected = found.frequency[(ratio / (ratio + 1) < found.half_bit)][0]
    assert found.crossing == pytest.approx(expected, rel=0.05)
    assert found.half_period == pytest.approx(0.5 / found.crossing)


@pytest.mark.parametrize("samples", [16.0, 100.0, 1e4])
def test_thresholds(samples):
    """The constants printed in van Heel & Schatz (2005), with the square root of n in two dimensions too."""
    root = np.sqrt(samples)
    half = (0.2071 + 1.9102 / root) / (1.2071 + 0.9102 / root)
    one = (0.5 + 2.4142 / root) / (1.5 + 1.4142 / root)
    assert quality.threshold(samples, 0.5) == pytest.approx(half, rel=1e-4)
    assert quality.threshold(samples, 1.0) == pytest.approx(one, rel=1e-4)


def test_samples_of_a_ring():
    """Without a window n is the number of samples of the ring, about 2 pi r; a window lowers it."""
    image = spectrum_noise((128, 128), 0, False)
    plain = quality.ring_correlation(image, image, realign=False, taper=0)
    assert plain.samples[29] == pytest.approx(2 * np.pi * 30, rel=0.1)
    assert plain.correlation == pytest.approx(1.0)
    tapered = quality.ring_correlation(image, image, realign=False, taper=0.5)
    hann = (3 / 8) ** 2 / (35 / 128)  # (mean w^2)^2 / mean w^4 of a Hann window, one axis
    assert tapered.samples[29] / plain.samples[29] == pytest.approx(hann ** 2, rel=1e-3)


def test_noise_alone_stays_below_half_bit():
    found = quality.ring_correlation(spectrum_noise((256, 256), 1, False), spectrum_noise((256, 256), 2, False),
                                     realign=False)
    assert found.crossing < 0.05


def smooth_object(shape, seed):
    frequency = sum(f ** 2 for f in np.meshgrid(*(np.fft.fftfreq(n) for n in shape), indexing="ij"))
    phase, absorption = (np.fft.ifftn(np.fft.fftn(spectrum_noise(shape, s, False)) * np.exp(-frequency / 0.02)).real
                         for s in (seed, seed + 1))
    return np.exp(1.2j * phase / phase.std() * 0.5 - 0.1 * np.abs(absorption / absorption.std()))


@pytest.mark.parametrize("shift", [(0.0, 0.0), (2.35, -4.8)])
@pytest.mark.parametrize("ramp", [(0.0, 0.0), (1.7, -2.4)])
def test_shift_ramp_and_constant_do_not_count(shift, ramp):
    """Complex images that differ by shift, phase ramp and constant phase correlate fully."""
    image = smooth_object((192, 192), 3)
    y, x = np.indices(image.shape)
    plane = np.exp(2j * np.pi * (ramp[0] * y / 192 + ramp[1] * x / 192) + 0.7j)
    other = quality.shift_image(image, shift) * plane
    first, second = (0.02 * spectrum_noise(image.shape, seed) for seed in (10, 11))
    plain = quality.ring_correlation(image + first, image + second, realign=False)
    found = quality.ring_correlation(image + first, other + second)
    assert np.array(found.shift) == pytest.approx(-np.array(shift), abs=0.02)
    assert found.crossing == pytest.approx(plain.crossing, rel=0.05)
    assert np.abs(found.correlation - plain.correlation)[:30].max() < 0.02


def test_register_subpixel_in_three_dimensions():
    image = smooth_object((32, 40, 36), 5).real
    shift = np.array([1.25, -2.5, 0.4])
    assert quality.register(image - image.mean(), quality.shift_image(image, -shift) - image.mean()) == pytest.approx(
        shift, abs=0.02)


def test_shapes_are_checked():
    with pytest.raises(InputError, match="one shape"):
        quality.ring_correlation(np.ones((16, 16)), np.ones((16, 17)))
    with pytest.raises(InputError, match="too small"):
        quality.ring_correlation(np.ones((4, 4)), np.ones((4, 4)))


@pytest.mark.parametrize("sigma", [0.6, 2.0, 5.0])
@pytest.mark.parametrize("levels", [(0.2, 1.7), (3.0, -1.0)])
def test_edge_width(sigma, levels):
    from math import erf, sqrt

    x = np.arange(60)
    step = np.array([0.5 * (1 + erf((v - 27.3) / (sqrt(2) * sigma))) for v in x])
    found = quality.edge_width(levels[0] + (levels[1] - levels[0]) * step, pixel_size=1e-8)
    assert found.width == pytest.approx(2.5631 * sigma * 1e-8, rel=1e-3)
    assert found.centre == pytest.approx(27.3, abs=1e-3)
    assert (found.low, found.high) == pytest.approx(levels, abs=1e-3)
    assert found.residual < 1e-4


def test_edge_needs_an_edge():
    with pytest.raises(InputError, match="no edge"):
        quality.edge_width(np.ones(20))


def test_residual_and_its_floor():
    """R of Poisson draws is the floor; sqrt counts scatter by 1/2, so R = E|N(0, 1/2)| / sqrt(I) for many counts."""
    prediction = np.full((4, 100, 100), 400.0)
    draws = np.random.default_rng(5).poisson(prediction)
    expected = 0.5 * np.sqrt(2 / np.pi) / 20
    assert quality.held_out_residual(draws, prediction) == pytest.approx(expected, rel=0.02)
    assert quality.noise_floor(prediction) == pytest.approx(expected, rel=0.02)
    assert quality.deviance(draws, prediction) == pytest.approx(1.0, rel=0.03)
    assert quality.noise_floor(prediction, metric=quality.deviance) == pytest.approx(1.0, rel=0.03)
    assert quality.held_out_residual(4 * prediction, prediction) == pytest.approx(0.5)


def test_residual_leaves_masked_pixels_out():
    counts, prediction = np.full((2, 4, 4), 9.0), np.full((2, 4, 4), 9.0)
    counts[:, 0, 0] = 1e9
    mask = np.ones((4, 4), bool)
    mask[0, 0] = False
    assert quality.held_out_residual(counts, prediction, mask) == 0
    with pytest.raises(InputError):
        quality.held_out_residual(counts, prediction[:1])

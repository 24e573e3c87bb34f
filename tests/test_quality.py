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
    ratio = np.exp(-found.frequency / 0.06) ** 2 / level**2
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
    assert tapered.samples[29] / plain.samples[29] == pytest.approx(hann**2, rel=1e-3)


def test_noise_alone_stays_below_half_bit():
    found = quality.ring_correlation(
        spectrum_noise((256, 256), 1, False), spectrum_noise((256, 256), 2, False), realign=False
    )
    assert found.crossing < 0.05


def smooth_object(shape, seed):
    frequency = sum(f**2 for f in np.meshgrid(*(np.fft.fftfreq(n) for n in shape), indexing="ij"))
    phase, absorption = (
        np.fft.ifftn(np.fft.fftn(spectrum_noise(shape, s, False)) * np.exp(-frequency / 0.02)).real
        for s in (seed, seed + 1)
    )
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
        shift, abs=0.02
    )


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


# ---------------------------------------------------------------------- volumes
@pytest.mark.parametrize("shape", [(24, 48, 40), (40, 24, 30), (3, 64, 72)])
def test_shell_correlation_of_known_signal_to_noise(shape):
    """White signal and noise of ratio s: s / (s + 1) in every shell, non-cubic volumes and thin stacks too."""
    signal, ratio = spectrum_noise(shape, 1, False), 3.0
    noisy = [(signal + spectrum_noise(shape, seed, False) / np.sqrt(ratio)).astype(np.float32) for seed in (2, 3)]
    found = quality.shell_correlation(*noisy)
    kept = found.samples > 60
    assert kept.sum() > 5 and found.frequency[-1] == pytest.approx(0.5, abs=0.03)
    deviation = (found.correlation - ratio / (ratio + 1))[kept]
    allowed = 5 * (1 - (ratio / (ratio + 1)) ** 2) / np.sqrt(found.samples[kept] / 2)
    assert (np.abs(deviation) < allowed).all() and abs(deviation.mean()) < 0.03


def test_shells_are_counted_whole():
    """Every Fourier sample of the cube within Nyquist is in one shell: 4 pi r^2 of them, times the window's share."""
    volume = spectrum_noise((32, 32, 32), 0, False)
    found = quality.ring_correlation(volume, volume, taper=0)
    assert found.samples[9] == pytest.approx(4 * np.pi * 100, rel=0.05)
    assert found.samples.sum() + 1 == np.sum(
        np.rint(32 * np.sqrt(sum(f**2 for f in np.meshgrid(*[np.fft.fftfreq(32)] * 3, indexing="ij")))) <= 16
    )


def band_limited(shape, cut, seed):
    """White below a frequency, nothing above."""
    frequency = sum(f**2 for f in np.meshgrid(*(np.fft.fftfreq(n) for n in shape), indexing="ij"))
    image = np.fft.ifftn(np.fft.fftn(spectrum_noise(shape, seed, False)) * (frequency < cut**2)).real
    return image / image.std()


@pytest.mark.parametrize("cut", [0.15, 0.3])
def test_shell_correlation_finds_the_band(cut):
    """A specimen without detail beyond a frequency, noise everywhere: the resolution is half a period of the band."""
    truth = band_limited((64, 96, 80), cut, 4)
    level = np.sqrt(0.1 / (4 / 3 * np.pi * cut**3))  # signal to noise 10 within the band
    noisy = [truth + level * spectrum_noise(truth.shape, seed, False) for seed in (5, 6)]
    found = quality.shell_correlation(*noisy, pixel_size=2e-6)
    assert found.crossing == pytest.approx(cut, abs=1.5 / 64)  # shells wide; the window's edge blurs by another
    assert found.resolution is not None and found.resolution == pytest.approx(2e-6 * 0.5 / found.crossing)
    assert found.one_bit_crossing <= found.crossing
    assert f"{found.resolution * 1e6:.3g} um" in str(found) and "half-bit" in str(found)


def test_what_the_scan_did_not_see_does_not_correlate():
    """Corners that are alike in both volumes (arithmetic of the reconstruction) leave noise uncorrelated."""
    shape = (16, 48, 48)
    y, x = np.indices(shape[1:]) - 23.5
    corners = 10 * spectrum_noise(shape, 0, False) * (np.hypot(y, x) > 24)
    noisy = [spectrum_noise(shape, seed, False) + corners for seed in (1, 2)]
    assert quality.shell_correlation(*noisy).crossing < 0.15
    assert quality.ring_correlation(*noisy, realign=False, taper=0).crossing == 0.5


def test_a_mask_leaves_noise_uncorrelated():
    shape = (32, 48, 48)
    y, x = np.indices(shape[1:]) - 23.5
    mask = np.hypot(y, x) < 12
    truth = band_limited(shape, 0.2, 7)
    noisy = [truth + 0.2 * spectrum_noise(shape, seed, False) for seed in (1, 2)]
    whole, masked = quality.shell_correlation(*noisy), quality.shell_correlation(*noisy, mask=mask)
    high = whole.frequency > 0.4
    assert np.abs(masked.correlation[high]).max() < 0.15
    assert masked.samples[10] < 0.5 * whole.samples[10]
    with pytest.raises(InputError, match="mask"):
        quality.shell_correlation(*noisy, mask=np.zeros(shape, bool))


def test_shell_correlation_checks_what_it_is_given():
    volume = np.ones((8, 16, 16))
    for other, match in ((volume[:4], "one shape"), (np.where(volume > 0, np.nan, 0), "finite")):
        with pytest.raises(InputError, match=match):
            quality.shell_correlation(volume, other)
    with pytest.raises(InputError, match="too small"):
        quality.shell_correlation(volume[..., :4], volume[..., :4])


@pytest.mark.parametrize("order", ["steady", "random", "two turns"])
def test_even_and_odd_views(order):
    """A scan of a still image with noise: each half averages half of the views, both cover all directions."""
    views, ratio = 40, 0.1
    truth = spectrum_noise((128, 128), 0, False)
    frames = truth + spectrum_noise((views, 128, 128), 1, False) / np.sqrt(ratio)
    angles = np.linspace(0, (4 if order == "two turns" else 1) * np.pi, views, endpoint=False)
    seen = []
    if order == "random":
        angles = np.random.default_rng(3).permutation(angles)

    def reconstruct(values, turned):
        seen.append(np.sort(turned % (2 * np.pi)))
        return values.mean(0)

    found = quality.even_odd(reconstruct, frames, angles, pixel_size=1e-6)
    expected = views / 2 * ratio / (1 + views / 2 * ratio)
    kept = found.samples > 100
    assert np.abs(found.correlation[kept] - expected).mean() < 0.05
    assert len(seen[0]) == len(seen[1]) == views // 2
    assert np.abs(seen[0] - seen[1]).max() <= 1.01 * 2 * np.pi / 20
    with pytest.raises(InputError, match="one angle"):
        quality.even_odd(reconstruct, frames, angles[1:])


def test_angle_that_rounds_to_a_turn_is_the_first_direction():
    angles = np.array([2 * np.pi - 1e-9, 0.5, 1.0, 1.5])
    seen = []
    quality.even_odd(lambda v, a: seen.append(a) or v.mean(0), np.random.default_rng(0).random((4, 16, 16)), angles)
    assert seen[0] == pytest.approx([2 * np.pi, 1.0], abs=1e-6)


@pytest.mark.parametrize("gain", [1.0, 4.0])
def test_photon_halves_have_twice_the_variance(gain):
    """White signal of variance S on a level L of photons: each half scatters by 2 L, hence S / (S + 2 L)."""
    level = 2000.0
    truth = level + 60 * np.random.default_rng(0).normal(size=(128, 128))
    counts = gain * np.random.default_rng(1).poisson(truth)
    found = quality.photon_halves(lambda c: c / gain, counts, gain=gain, pixel_size=1e-6)
    signal = truth.var()
    expected = signal / (signal + 2 * level)
    kept = found.samples > 100
    assert np.abs(found.correlation[kept] - expected).mean() < 0.05
    assert quality.photon_halves(lambda c: c, np.full((64, 64), 500)).crossing < 0.1
    with pytest.raises(InputError, match="counts"):
        quality.photon_halves(np.asarray, -counts)


# ---------------------------------------------------------------------- error bars
def test_line_integral_variance_is_that_of_poisson_counts():
    random = np.random.default_rng(0)
    light, dark, flat = 900.0, 100.0, 4100.0
    counts = random.poisson(light + dark, 200000)
    flats = random.poisson(flat, (4, 200000)).mean(0)
    integrals = -np.log((counts - dark) / (flats - dark))
    assert quality.line_integral_variance(light + dark, flat, dark, flats=4) == pytest.approx(integrals.var(), rel=0.02)
    assert quality.line_integral_variance(light + dark, flat, dark) < integrals.var()
    assert np.isinf(quality.line_integral_variance([90.0, 100.0], flat, dark)).all()


def test_bootstrap_of_photons():
    """sqrt(counts) has the deviation 1/2; with a gain g that of photons."""
    counts = np.full(4000, 900.0)
    bars = quality.bootstrap_photons(np.sqrt, counts, draws=30)
    assert bars.deviation.mean() == pytest.approx(0.5, rel=0.02) and bars.draws == 30
    assert bars.mean.mean() == pytest.approx(30.0, rel=1e-3)
    bars = quality.bootstrap_photons(np.asarray, counts.astype(np.uint16), draws=30, gain=9.0)
    assert bars.deviation.mean() == pytest.approx(9 * 10, rel=0.02)
    for wrong in ([-1.0, 2.0], [np.nan, 1.0]):
        with pytest.raises(InputError, match="counts"):
            quality.bootstrap_photons(np.sqrt, wrong)
    with pytest.raises(InputError, match="two draws"):
        quality.bootstrap_photons(np.sqrt, counts, draws=1)


def test_bootstrap_of_views():
    """The mean of n views scatters by sigma / sqrt n, whatever the noise is."""
    data = np.random.default_rng(1).uniform(-1, 1, size=(300, 50))
    bars = quality.bootstrap_views(lambda views: data[views].mean(0), 300, draws=60)
    assert bars.deviation.mean() == pytest.approx(np.sqrt(1 / 3 / 300), rel=0.05)


# ---------------------------------------------------------------------- scale of a scan
def test_edge_error_is_where_the_phase_changes_whatever_its_turns():
    rows = np.arange(12)[:, None] + np.zeros(8)
    phase = 0.3 * rows + 2 * (np.arange(8) > 3)
    found = quality.edge_error(np.exp(1j * phase), 1.25)
    wanted = np.full(phase.shape, 0.6)
    wanted[[0, -1]] = 0.3  # beyond the rim nothing is known
    wanted[:, 3:5] += 2
    assert np.allclose(found, 0.08 * 0.5 * wanted) and found.shape == phase.shape
    assert np.allclose(found, quality.edge_error(np.exp(1j * (phase + 2.5)), 1.25))
    assert not quality.edge_error(np.exp(1j * phase), 1.0).any()  # as near as photons let views be


def test_scale_error_is_what_a_stretch_does_to_the_phase():
    """A wrapped phase and the same stretched about the middle of the scan; a rotation of the motors is not counted."""
    random = np.random.default_rng(0)
    motors, middle = random.uniform(0, 30, (40, 2)), (31.0, 28.5)
    y, x = np.mgrid[:60, :56].astype(float)
    phase = lambda y, x: 4 * np.sin(0.11 * y) * np.cos(0.13 * x)
    stretch, turn = np.array([[0.004, 0.001], [0.001, -0.003]]), np.array([[0.0, 0.01], [-0.01, 0.0]])
    places = motors + (motors - motors.mean(0)) @ (stretch + turn) + 0.7
    found = quality.scale_error(np.exp(1j * phase(y, x)), places, motors, middle)
    moved = np.stack([y - middle[0], x - middle[1]], -1) @ stretch
    change = np.abs(phase(y + moved[..., 0], x + moved[..., 1]) - phase(y, x))
    assert (change < 1.3 * found + 2e-3).all()  # along the gradient; across it the phase stays
    assert 0.5 < np.mean(change[2:-2, 2:-2]) / np.mean(found[2:-2, 2:-2]) < 0.9  # of an angle at random: 2/pi
    assert np.allclose(quality.scale_error(np.exp(1j * phase(y, x)), motors @ (np.eye(2) + turn), motors, middle), 0)


def test_unseen_data_that_are_missed_by_far_are_warned_of():
    counts = np.random.default_rng(0).poisson(50.0, (4, 16, 16))
    wrong = 50 * (1 + 0.8 * np.sin(np.arange(16)))
    judged = lambda p: quality.held_out_figures(counts, np.broadcast_to(p, counts.shape), True, 0, "4 views")[1]
    lines = [judged(50.0), judged(wrong)]
    assert not any("WARNING" in line for line in lines[0]) and "WARNING: unseen data are missed" in lines[1][-1]

"""What judges a phase from holograms: halves, jumps, gradients, error bars against repeated reconstructions."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import diffrecon as dr
from diffrecon import quality
from diffrecon.errors import InputError
from diffrecon.models import Holography
from diffrecon.operators import phase_gradient, refraction_angle
from diffrecon.uncertainty import phase_error_image, phase_noise

SIZE, FLUX = 16, 2000.0


# ------------------------------------------------------------------------------------------ halves
def test_halves_of_distances_are_dealt_alternately():
    dealt = []
    image = np.random.default_rng(0).normal(size=(32, 32))
    found = quality.distance_halves(lambda views: dealt.append(views.tolist()) or image, [0.3, 0.1, 0.2, 0.4])
    assert dealt == [[1, 0], [2, 3]] or dealt == [[0, 1], [2, 3]]
    assert found.crossing == 0.5 and np.allclose(found.correlation, 1)


def test_halves_of_photons_and_of_distances_fall_with_the_dose():
    random, f = np.random.default_rng(1), np.hypot(np.fft.fftfreq(64)[:, None], np.fft.rfftfreq(64))
    smooth = np.fft.irfft2(np.fft.rfft2(random.normal(size=(64, 64))) * np.exp(-((f / 0.08) ** 2)), s=(64, 64))
    signal = 1 + 0.2 * smooth / smooth.std()
    crossings = []
    for dose in (3.0, 300.0):
        counts = random.poisson(dose * np.clip(signal, 0, None), (4, 64, 64))
        photons = quality.photon_halves(lambda c: c.mean(0), counts)
        views = quality.distance_halves(lambda v, c=counts: c[v].mean(0), np.arange(4))
        assert abs(photons.crossing - views.crossing) < 0.06
        crossings.append(photons.crossing)
    assert crossings[0] < crossings[1] - 0.05


def test_halves_need_two_distances():
    with pytest.raises(InputError, match="distance_halves"):
        quality.distance_halves(lambda views: np.ones((32, 32)), [0.1])


# ------------------------------------------------------------------------------------------ wraps and gradients
def test_jumps_and_residues_of_a_wrapped_phase():
    y, x = np.mgrid[:40, :40] - 19.5
    smooth = -0.01 * (y**2 + x**2)
    assert quality.phase_jumps(smooth).count == 0 and "no wraps" in quality.phase_jumps(smooth).message
    wrapped = quality.phase_jumps(np.angle(np.exp(1j * smooth)))
    assert wrapped.count > 20 and wrapped.residues == 0 and "WARNING" in wrapped.message
    vortex = quality.phase_jumps(np.angle((x - 3.2) + 1j * (y + 4.1)) + np.zeros((2, 1, 1)))
    assert vortex.residues == 2
    for bad in (np.full((3, 3), np.nan), np.ones((3, 3), complex), np.ones(3)):
        with pytest.raises(InputError, match="phase_jumps"):
            quality.phase_jumps(bad)


def test_gradient_of_a_quadratic_phase_and_the_focus_of_a_lens():
    y, x = (np.mgrid[:9, :12] - np.array([4.0, 5.5])[:, None, None]) * 1e-6
    wavelength, focus = 1e-10, 0.7
    lens = -np.pi / wavelength * (x**2 + y**2) / focus  # a converging lens
    inner = (slice(1, -1), slice(1, -1))
    with jax.enable_x64(True):
        down, right = np.asarray(refraction_angle(jnp.asarray(lens), 1e-6, wavelength))
    # Rays meet on the axis at the focus.
    assert np.allclose((y + focus * down)[inner], 0, atol=1e-15)
    assert np.allclose((x + focus * right)[inner], 0, atol=1e-15)
    stretched = phase_gradient(jnp.asarray(lens, jnp.float32), (1e-6, 2e-6))
    assert np.allclose(stretched[1][inner] * wavelength / np.pi, right[inner], rtol=1e-3, atol=1e-9)


def test_gradient_of_a_line_is_refused():
    with pytest.raises(InputError, match="phase_gradient"):
        phase_gradient(jnp.ones(4), 1e-6)


# ------------------------------------------------------------------------------------------ error bars
@pytest.fixture(scope="module")
def model():
    """A strong little object at three distances."""
    beam = dr.ConeBeam(17e3, np.array([0.0213, 0.0222, 0.0259]), 1.28, 3e-6)
    scan = dr.Scan.from_arrays(np.ones((3, SIZE, SIZE)), method="holography", geometry=beam, flux=FLUX)
    start = Holography.from_scan(scan, delta_beta=500.0, shape=(SIZE, SIZE))
    y, x = np.mgrid[:SIZE, :SIZE] - (SIZE - 1) / 2
    return start.replace(phase=jnp.asarray(-1.5 * np.exp(-(y**2 + 2 * x**2) / 20), jnp.float32))


def inverse_power(shape):
    f = np.hypot(np.fft.fftfreq(shape[0])[:, None], np.fft.rfftfreq(shape[1]))
    return np.maximum(f, 1 / SIZE) ** 3 / 2e-3


def test_bars_are_the_spread_of_repeated_reconstructions(model):
    """Repeated: Gauss-Newton with a dense Jacobian, from new photons each time."""
    shape, power = model.phase.shape, inverse_power(model.phase.shape)
    predict = jax.jit(lambda phase: model.replace(phase=phase)(jnp.arange(3)).ravel())
    jacobian = np.asarray(jax.jit(jax.jacfwd(predict))(model.phase), float).reshape(-1, model.phase.size)
    unit = np.eye(model.phase.size).reshape(-1, *shape)
    prior = np.fft.irfft2(np.fft.rfft2(unit) * power, s=shape).reshape(len(unit), -1)
    truth, expected = np.asarray(model.phase, float), np.asarray(predict(model.phase), float)
    inverse = np.linalg.inv(jacobian.T @ (jacobian / expected[:, None]) + prior)

    random, found = np.random.default_rng(0), []
    for _ in range(40):
        counts, phase = random.poisson(expected), truth
        for _ in range(3):
            rest = (counts - np.asarray(predict(jnp.asarray(phase, jnp.float32)), float)) / expected
            phase = phase + (inverse @ (jacobian.T @ rest - prior @ phase.ravel())).reshape(shape)
        found.append(phase)
    repeated = np.std(found, axis=0, ddof=1)
    draws = phase_noise(
        model, 3, unknowns=("phase",), draws=16, steps=100, damping=1e-6, inverse_powers={"phase": power}
    )
    bars = np.sqrt(np.mean(np.asarray(draws, float) ** 2, axis=0))
    assert np.sqrt(np.mean(bars**2)) == pytest.approx(np.sqrt(np.mean(repeated**2)), rel=0.08)
    # Taking all other pixels as known misses some of it.
    assert np.median(phase_error_image(model, 3, probes=4)) < 0.95 * np.median(bars)


def test_priors_are_checked(model):
    for wrong in ({"probe": np.ones((SIZE, SIZE // 2 + 1))}, {"phase": np.ones((3, 3))}):
        with pytest.raises(InputError, match="inverse_powers"):
            phase_noise(model, 3, draws=1, inverse_powers=wrong)

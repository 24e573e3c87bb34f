"""Fisher information against closed forms, dense matrices and the spread of repeated measurements."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import small_scans

import diffrecon as dr
from diffrecon import uncertainty
from diffrecon.models import Holography, Ptychography
from diffrecon.uncertainty import fisher_information, phase_error_image, phase_noise, predicted_resolution


class Decay(dr.Model):
    """Counts that fall from view to view, in three pixels of different sensitivity."""

    start: jax.Array
    rate: jax.Array

    def __call__(self, views):
        times = jnp.asarray(views, self.rate.dtype)[:, None]
        return self.start * jnp.exp(-self.rate * times) * jnp.asarray([1.0, 2.0, 5.0], self.rate.dtype)


class Waves(dr.Model):
    """A few complex numbers seen through random complex mixtures."""

    object: jax.Array
    shape = (7, 6)

    def __call__(self, views):
        rng = np.random.default_rng(3)
        mix = rng.standard_normal((2, 12, *self.shape, self.object.size))
        mix = jnp.asarray(mix[0] + 1j * mix[1], self.object.dtype)
        wave = jnp.einsum("vijk,k->vij", mix[views], self.object)
        return jnp.real(wave * jnp.conj(wave))


class Picture(dr.Model):
    """A complex image measured directly: frames of its real and of its imaginary part."""

    object: jax.Array

    def transmission(self):
        return self.object

    def __call__(self, views):
        return jnp.broadcast_to(jnp.stack([self.object.real, self.object.imag]), (len(views), 2, *self.object.shape))


def near_field(frames, obj, probe, positions):
    return Ptychography(
        jnp.asarray(obj, jnp.complex64),
        jnp.asarray(probe[None], jnp.complex64),
        jnp.asarray(positions, jnp.float32),
        jnp.full((1, 1), 0.5),
        jnp.ones(len(frames)),
        small_scans.DISTANCE,
        small_scans.WAVELENGTH,
        small_scans.PIXEL,
    )


def dense(model, views, weight):
    """`F` of `Waves`, real parts before imaginary ones, from its matrix of derivatives in NumPy."""
    count = model.object.size
    steps = np.concatenate([np.eye(count), 1j * np.eye(count)])
    rows = [
        jax.jvp(lambda o: model.replace(object=o)(views), (model.object,), (jnp.asarray(s, model.object.dtype),))[1]
        for s in steps
    ]
    jacobian = np.stack([np.asarray(r, float).ravel() for r in rows], 1)
    return jacobian.T @ (np.ravel(weight)[:, None] * jacobian)


def waves():
    rng = np.random.default_rng(0)
    values = rng.standard_normal((2, 4))
    return Waves(jnp.asarray(values[0] + 1j * values[1], jnp.complex128 if jax.config.x64_enabled else jnp.complex64))


def test_mean_of_gaussian_numbers_and_of_counts():
    model = Decay(jnp.asarray(40.0), jnp.asarray(0.0))
    one = lambda m: m.start
    known = dict(unknowns=("start",))
    # Sensitivities 1, 2 and 5: F = n (1 + 4 + 25) / sigma^2, and n (1 + 2 + 5) / 40 for counts.
    found = fisher_information(model, 20, noise=3.0, **known).error_bar(one, damping=0.0)
    assert found == pytest.approx(3 / np.sqrt(20 * 30), rel=1e-4)
    found = fisher_information(model, 20, **known).error_bar(one, damping=0.0)
    assert found == pytest.approx(np.sqrt(40 / (20 * 8)), rel=1e-4)


def test_attenuation_of_one_pixel_in_focus():
    """n = n0 exp(-2 B): the bar of B is 1 / (2 sqrt(n))."""
    model = Picture(jnp.full((8, 8), 0.7 + 0.2j))
    predict = lambda m, views: 900 * jnp.broadcast_to(jnp.abs(m.object) ** 2, (len(views), 8, 8))
    information = fisher_information(model, 2, unknowns=("object",), predict=predict)
    counts = 2 * 900 * (0.7**2 + 0.2**2)
    bar = information.error_bar(lambda m: -jnp.log(jnp.abs(m.object[3, 4])), damping=1e-6)
    assert bar == pytest.approx(0.5 / np.sqrt(counts), rel=1e-3)


@pytest.mark.parametrize("each", [False, True])
def test_product_diagonal_and_bars_of_complex_unknowns_are_those_of_the_dense_matrix(each):
    with jax.enable_x64(True):
        model, views = waves(), np.array([1, 2, 4, 7, 8, 9, 11])  # two blocks, the last one filled up
        mask = np.random.default_rng(1).random((12, *Waves.shape) if each else Waves.shape) > 0.3
        information = fisher_information(model, views, unknowns=("object",), mask=mask, block_size=4)
        predicted = np.asarray(model(views))
        expected = dense(model, views, (mask[views] if each else mask) / predicted)
        rng = np.random.default_rng(2)
        a, b = (rng.choice([-1.0, 1.0], 4) * rng.random(4) for _ in range(2))
        product = np.asarray(information.product(model.replace(object=jnp.asarray(a + 1j * b))).object)
        np.testing.assert_allclose(
            np.concatenate([product.real, product.imag]),
            expected @ np.concatenate([a, b]),
            atol=1e-12 * np.abs(product).max(),
        )
        diagonal = np.asarray(information.diagonal(probes=3000).object)
        np.testing.assert_allclose(np.concatenate([diagonal.real, diagonal.imag]), np.diag(expected), rtol=0.08)
        # The phase of all is not measured: phases against the first one are.
        quantity = lambda m: jnp.angle(m.object[1:] * jnp.conj(m.object[0]))
        bars = information.error_bar(quantity, damping=1e-9, tolerance=1e-12)
        gradient = np.asarray(
            jax.jacrev(lambda x: quantity(Waves(jax.lax.complex(*x))))(
                jnp.stack([model.object.real, model.object.imag])
            )
        ).reshape(3, 8)
        variance = np.diag(gradient @ np.linalg.pinv(expected, 1e-10) @ gradient.T)
        np.testing.assert_allclose(bars, np.sqrt(variance), rtol=1e-5)


def test_draws_have_the_covariance_of_the_inverse():
    model = waves()
    information = fisher_information(model, 12, unknowns=("object",))
    draws = np.asarray(information.draws(1000, steps=20, damping=1e-3).object)
    stacked = np.concatenate([draws.real, draws.imag], 1)
    phase = np.concatenate([-model.object.imag, model.object.real])
    keep = np.eye(8) - np.outer(phase, phase) / (phase @ phase)
    expected = keep @ np.linalg.pinv(dense(model, np.arange(12), 1 / np.asarray(model(np.arange(12)))), 1e-4) @ keep
    found = keep @ np.cov(stacked.T) @ keep
    np.testing.assert_allclose(found, expected, atol=0.1 * np.diag(expected).max())


def test_spread_of_maximum_likelihood_is_the_predicted_one():
    """200 measurements of a decay, each fitted by Newton's method in NumPy."""
    start, rate, views = 60.0, 0.1, np.arange(12)
    information = fisher_information(Decay(jnp.asarray(start), jnp.asarray(rate)), 12, unknowns=("start", "rate"))
    bars = [float(information.error_bar(q, damping=0.0)) for q in (lambda m: m.start, lambda m: m.rate)]
    counts = np.random.default_rng(0).poisson(start * np.exp(-rate * views)[:, None] * [1, 2, 5], (200, 12, 3)).sum(2)
    found = np.tile([np.log(start), rate], (200, 1))
    design = np.stack([np.ones(12), -views.astype(float)], 1)
    for _ in range(8):
        predicted = 8 * np.exp(found @ design.T)
        gradient = (counts - predicted) @ design
        curvature = np.einsum("dv,vi,vj->dij", predicted, design, design)
        found = found + np.linalg.solve(curvature, gradient[..., None])[..., 0]
    spread = np.exp(found[:, 0]).std(ddof=1), found[:, 1].std(ddof=1)
    np.testing.assert_allclose(spread, bars, rtol=3 / np.sqrt(2 * 200))  # three standard errors
    # Were the other one known, the bars would be smaller: correlations matter here.
    alone = fisher_information(
        information.fixed.replace(start=jnp.asarray(start), rate=jnp.asarray(rate)), 12, unknowns=("rate",)
    ).error_bar(lambda m: m.rate, damping=0.0)
    assert alone < 0.8 * bars[1]


def test_spread_of_reconstructed_phases_is_the_predicted_one():
    """Maximum likelihood (Fisher's scoring, dense) of a tiny near-field scan, from 30 draws of its counts."""
    rng, size, frame = np.random.default_rng(0), 11, 8
    obj = np.exp((0.5j - 0.05) * small_scans._smooth(rng, size, 1.0))
    probe = 20 * np.exp(1j * small_scans._smooth(rng, frame, 1.0))
    positions = np.stack(np.meshgrid(*[np.arange(3) * 1.4] * 2, indexing="ij"), -1).reshape(-1, 2)
    model, views, middle = near_field(positions, obj, probe, positions), np.arange(9), (slice(3, 8), slice(3, 8))
    truth = jnp.stack([model.object.real, model.object.imag]).ravel()
    unpacked = lambda x: jax.lax.complex(*x.reshape(2, size, size))
    counts = lambda x: model.replace(object=unpacked(x))(views).ravel()
    both = jax.jit(lambda x: (counts(x), jax.jacfwd(counts)(x)))
    found = []
    for seed in range(30):
        x, drawn = truth, np.random.default_rng(seed).poisson(np.asarray(counts(truth)))
        for _ in range(2):
            predicted, jacobian = (np.asarray(a, float) for a in both(x))
            curvature = (jacobian.T / predicted) @ jacobian
            curvature += np.diag(1e-3 * (np.diag(curvature) + 1e-3 * np.diag(curvature).mean()))
            x = x + np.linalg.solve(
                curvature,
                (jacobian.T / predicted) @ (drawn - predicted) - 1e-3 * np.diag(curvature) * np.asarray(x - truth),
            ).astype(np.float32)
        found.append(np.angle(np.asarray(unpacked(x)) / obj)[middle])
    errors = np.asarray(phase_noise(model, 9, unknowns=("object",), draws=60))[(slice(None), *middle)]
    measured, predicted = (np.sqrt(np.mean(np.square(e))) for e in (found, errors))
    assert measured == pytest.approx(predicted, rel=0.08)
    # The diagonal alone is a lower bound.
    image = np.asarray(phase_error_image(model, 9, probes=8))
    assert np.median(image[middle]) < predicted


def test_weak_phase_in_line():
    """One hologram of a weak phase: F_pp = 4 n0 mean over frequencies of sin^2(pi lambda D f^2)."""
    size, pixel, wavelength, distance, flux = 32, 1e-7, 1e-10, 4e-3, 1000.0
    model = Holography(
        jnp.zeros((size, size)),
        jnp.zeros((size, size)),
        jnp.asarray(np.inf),
        jnp.full((1, 1, 1), flux),
        jnp.zeros((1, 1)),
        jnp.zeros((1, 2)),
        jnp.full((1, 2), distance),
        jnp.zeros(()),
        jnp.zeros(()),
        ((pixel, pixel),),
        (0.0,),
        pixel,
        wavelength,
        (size, size),
        (size, size),
    )
    f2 = np.add.outer(*[np.fft.fftfreq(size, pixel) ** 2] * 2)
    # Pixels of the detector integrate: a box in the frame is a sinc in the spectrum; its last frequency is left out.
    f = np.fft.fftfreq(size)
    box = np.where(abs(f) < 0.5, np.sinc(f), 0)
    transfer = 2 * np.sin(np.pi * wavelength * distance * f2) * np.outer(box, box)
    expected = 1 / np.sqrt(flux * np.mean(transfer**2))
    found = np.asarray(phase_error_image(model, 1, probes=64))
    assert np.median(found) == pytest.approx(expected, rel=0.05)


def test_expected_correlation_of_white_noise():
    rng = np.random.default_rng(0)
    size, deviation = 32, 0.3
    f2 = np.add.outer(*[np.fft.fftfreq(size) ** 2] * 2)
    picture = np.fft.ifft2(np.fft.fft2(rng.standard_normal((size, size))) * np.exp(-60 * f2)).real
    model = Picture(jnp.asarray(1 + 0.1j * picture / picture.std(), jnp.complex64))
    window = uncertainty.cosine_window((size, size), 0.25)
    signal = abs(np.fft.fft2(window * 0.1j * picture / picture.std())) ** 2
    ring = np.rint(np.sqrt(f2) * size).astype(int)
    mean = lambda values: np.bincount(ring.ravel(), values.ravel())[2:17] / np.bincount(ring.ravel())[2:17]
    noise = 2 * deviation**2 / 4 * np.sum(window**2)
    settings = dict(unknowns=("object",), noise=deviation, draws=16, steps=5, noiseless=True)
    halves = predicted_resolution(model, 4, pixel_size=1e-8, **settings)
    np.testing.assert_allclose(halves.correlation[1:], mean(signal) / (mean(signal) + 2 * noise), atol=0.06)
    truth = predicted_resolution(model, 4, halves=False, **settings)
    assert truth.crossing > halves.crossing and 0.07 < halves.crossing < 0.12


@pytest.mark.parametrize("bad", [{"views": 0}, {"noise": "gauss"}, {"noise": -1.0}, {"noise": float("nan")}])
def test_what_is_refused(bad):
    with pytest.raises(dr.errors.InputError, match="fisher_information"):
        fisher_information(waves(), **{"views": 3, "unknowns": ("object",)} | bad)


def test_complex_quantities_are_refused():
    with pytest.raises(dr.errors.InputError, match="complex"):
        fisher_information(waves(), 3, unknowns=("object",)).error_bar(lambda m: m.object[0])

"""Direct phase retrieval against closed forms and against holograms of an independent, finer model."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import fft

from diffrecon import plot
from diffrecon.errors import InputError
from diffrecon.sharding import data_mesh, shard_views
from diffrecon.solvers import ctf, ctf_response, ict, l_curve, mixed, paganin, tie
from diffrecon.solvers.direct import outside as _outside

PIXEL, WAVELENGTH = 5e-8, 7.2932e-11
DISTANCES = (0.0205, 0.0228, 0.0274)
BEAM: dict[str, Any] = dict(pixel_size=PIXEL, wavelength=WAVELENGTH)
N = 64
SHORT = (0.004, 0.005, 0.0065)  # so that fringes of small images stay within them


def grating(n: int, periods: int) -> np.ndarray:
    # Cosine about the mirror points, so that continuation by reflection is exact.
    return np.broadcast_to(np.cos(np.pi * periods * (np.arange(n) + 0.5) / n), (n, n))


def hologram(phase: np.ndarray, attenuation: np.ndarray, distance: float, pixel: float = PIXEL) -> np.ndarray:
    """Fresnel hologram in NumPy on the mirrored object: exact for it, and independent of diffrecon."""
    wave = np.pad(np.exp(1j * phase - attenuation), [(0, n) for n in phase.shape], mode="symmetric")
    f2 = sum(np.meshgrid(*[np.fft.fftfreq(n, pixel) ** 2 for n in wave.shape], indexing="ij"))
    wave = np.fft.ifft2(np.fft.fft2(wave) * np.exp(-1j * np.pi * WAVELENGTH * distance * f2))
    return np.abs(wave[: phase.shape[0], : phase.shape[1]]) ** 2


def blobs(n: int, width: float = 0.05, finer: int = 1, seed: int = 0) -> np.ndarray:
    """A sum of Gaussians of height 1 that ends well within the image, on `finer` times as many pixels."""
    rng = np.random.default_rng(seed)
    x = (np.arange(n * finer) + 0.5) / finer - n / 2
    total = np.zeros((n * finer, n * finer))
    for y0, x0 in rng.uniform(-0.15, 0.15, (6, 2)) * n:
        total += np.exp(-((x[:, None] - y0) ** 2 + (x - x0) ** 2) / (2 * (width * n) ** 2))
    return total / total.max()


def isolated(phase: float, ratio: float, distances=SHORT, noise: float = 0.0, n: int = N, seed: int = 0):
    """Truth and holograms of blobs in vacuum: propagated on pixels of half the size in a field four times as wide,
    then binned."""
    fine = -phase * blobs(n, finer=2, seed=seed)
    wide = np.pad(fine, 3 * n)
    binned = lambda a: a.reshape(n, 2, n, 2).mean((1, 3))
    middle = np.s_[3 * n : 5 * n, 3 * n : 5 * n]
    images = np.stack([binned(hologram(wide, -wide / ratio, d, PIXEL / 2)[middle]) for d in distances])
    images += noise * np.random.default_rng(seed + 1).normal(size=images.shape)
    return binned(fine), images.astype(np.float32)


def error(found: Any, truth: np.ndarray) -> float:
    """Relative, without the constant."""
    left = np.asarray(found, float) - truth
    return float(np.linalg.norm(left - left.mean()) / np.linalg.norm(truth - truth.mean()))


# ------------------------------------------------------------------------------------------------ the transforms
@pytest.mark.parametrize("shape", [(8, 6), (7, 9)])
def test_vacuum_is_a_sine_and_mirror_a_cosine_transform(shape):
    image = np.random.default_rng(0).normal(size=(2, *shape)).astype("f4")
    for outside, reference in (
        ("vacuum", fft.dstn(image, axes=(1, 2))[:, ::-1, ::-1]),
        ("mirror", fft.dctn(image, axes=(1, 2))),
    ):
        values = _outside.spectrum(jnp.asarray(image), outside)
        np.testing.assert_allclose(values, reference.swapaxes(1, 2) / 4, atol=1e-5)
        np.testing.assert_allclose(_outside.from_spectrum(values, shape, outside, shape), image, atol=1e-6)


def test_smooth_continuation_and_fill():
    rng = np.random.default_rng(0)
    ramp = np.broadcast_to(np.linspace(0, 1, 24), (20, 24)) + 0.01 * rng.normal(size=(20, 24))
    shape = _outside.grid((20, 24), "smooth")
    wide = np.asarray(jax.jit(lambda a: _outside.extended(a, shape, "smooth"))(jnp.asarray(ramp, jnp.float32)))
    np.testing.assert_allclose(wide[:20, :24], ramp, atol=1e-6)
    outside = wide[:20, 24:]
    assert outside.min() > -0.05 and outside.max() < 1.05  # means of what is there
    steps = np.diff(wide[10, 23:], append=wide[10, :1])
    assert np.abs(steps).max() < 0.3  # a membrane from border to border, not the whole jump of 1
    hole = np.ones((20, 24), bool)
    hole[5:12, 6:14] = False
    filled = jax.jit(_outside.filled)(jnp.asarray(np.where(hole, ramp, 0), jnp.float32), jnp.asarray(hole))
    assert np.abs(np.asarray(filled) - ramp)[~hole].max() < 0.12


# ------------------------------------------------------------------------------------------------ closed forms
def test_a_weak_phase_grating_has_contrast_two_sine_chi():
    n, periods, height = 64, 12, 1e-3
    for distance in DISTANCES:
        image = hologram(height * grating(n, periods), np.zeros((n, n)), distance)
        sine, _ = ctf_response((2 * n, 2 * n), [PIXEL**2 / (WAVELENGTH * distance)])
        # The grating has `periods` half periods in n pixels: frequency index `periods` of the mirrored 2n.
        np.testing.assert_allclose(image - 1, sine[0, 0, periods] * height * grating(n, periods), atol=3e-6)


@pytest.mark.parametrize("delta_beta", [300.0, np.inf])
def test_ctf_of_one_material_inverts_a_weak_grating(delta_beta):
    phase = -1e-3 * (1 + grating(N, 5) * 0.5 + grating(N, 11).T * 0.3)
    images = np.stack([hologram(phase, -phase / delta_beta, d) for d in DISTANCES])
    found = ctf(
        jnp.asarray(images, jnp.float32),
        distances=DISTANCES,
        delta_beta=delta_beta,
        regularisation=1e-9,
        outside="mirror",
        **BEAM,
    )
    left = np.asarray(found.phase) - phase
    assert np.abs(left - left.mean()).max() < 1e-5  # the constant of a pure phase object is not in the data
    np.testing.assert_allclose(found.attenuation, -np.asarray(found.phase) / delta_beta, rtol=1e-6)


def test_ctf_tells_phase_from_attenuation():
    phase, attenuation = -1e-3 * grating(N, 9), 4e-4 * grating(N, 14).T
    images = np.stack([hologram(phase, attenuation, d) for d in DISTANCES])
    found = ctf(jnp.asarray(images, jnp.float32), distances=DISTANCES, regularisation=1e-7, outside="mirror", **BEAM)
    np.testing.assert_allclose(found.phase - np.mean(found.phase), phase, atol=2e-5)
    np.testing.assert_allclose(found.attenuation - np.mean(found.attenuation), attenuation, atol=2e-5)


def test_astigmatic_beam_has_a_distance_for_each_axis():
    phase = -1e-3 * (1 + grating(N, 5) * 0.5 + grating(N, 11).T * 0.3)
    pairs = [(d, 1.3 * d) for d in DISTANCES]
    images = np.stack([hologram(phase, 0 * phase, d) for d in DISTANCES])
    along = phase[:1] + 0 * phase  # rows see one distance, columns the other: linear in so weak a phase
    crossed = np.stack(
        [hologram(phase - along, 0 * phase, d) + hologram(along, 0 * phase, 1.3 * d) - 1 for d in DISTANCES]
    )
    options: dict[str, Any] = dict(delta_beta=np.inf, regularisation=1e-9, outside="mirror", **BEAM)
    assert error(ctf(crossed.astype("f4"), distances=pairs, **options).phase, phase) < 0.02
    assert error(ctf(images.astype("f4"), distances=pairs, **options).phase, phase) > 0.1


@pytest.mark.parametrize("generalised", [False, True])
def test_paganin_inverts_the_transport_of_intensity(generalised):
    n, ratio, distance, pixel = 128, 500.0, 0.05, 1e-6
    phase = -0.4 * (1.2 + grating(n, 3) * 0.7 + grating(n, 4).T * 0.3)
    image = hologram(phase, -phase / ratio, distance, pixel)
    found = paganin(
        jnp.asarray(image, jnp.float32),
        pixel_size=pixel,
        wavelength=WAVELENGTH,
        distance=distance,
        delta_beta=ratio,
        generalised=generalised,
        outside="mirror",
    )
    assert np.linalg.norm(found - phase) / np.linalg.norm(phase) < 5e-3


@pytest.mark.parametrize("outside, most", [("mirror", 0.05), ("smooth", 0.25)])
def test_border_makes_no_artefact_at_high_delta_beta(outside, most):
    # A sample that leaves the field of view: the case in which repeating border pixels fails.
    n, ratio, pixel = 96, 3000.0, 1e-6
    phase = -2.0 * (1.2 + grating(n, 1))
    image = hologram(phase, -phase / ratio, 0.02, pixel)
    found = paganin(image, pixel_size=pixel, wavelength=WAVELENGTH, distance=0.02, delta_beta=ratio, outside=outside)
    assert np.linalg.norm(found - phase) / np.linalg.norm(phase) < most


def test_intensity_transfer_keeps_strong_attenuation():
    # Absorption of up to 63 %, where ctf, linear in the attenuation, is wrong by a third.
    ratio, distances = 20.0, (1e-5, 2e-5)
    phase = -5.0 * (1 + grating(N, 3)) * (1 + 0.5 * grating(N, 2).T) / 3
    images = np.stack([hologram(phase, -phase / ratio, d, 1e-6) for d in distances]).astype("f4")
    options: dict[str, Any] = dict(
        pixel_size=1e-6,
        wavelength=WAVELENGTH,
        distances=distances,
        delta_beta=ratio,
        regularisation=1e-9,
        outside="mirror",
    )
    assert error(ict(images, **options).phase, phase) < 1e-3
    assert error(ctf(images, **options).phase, phase) > 0.1


def test_transport_of_intensity_between_two_planes_knows_no_material():
    # Phase and attenuation have nothing to do with one another.
    n, pixel, distances = 64, 1e-6, (0.0, 2e-4)
    phase = -2.0 * (grating(n, 3) + 0.6 * grating(n, 2).T)
    attenuation = 0.4 * (1 + grating(n, 1).T * grating(n, 2))
    images = np.stack([hologram(phase, attenuation, d, pixel) for d in distances])
    with jax.enable_x64(True):
        found = tie(
            jnp.asarray(images),
            pixel_size=pixel,
            wavelength=WAVELENGTH,
            distances=distances,
            outside="mirror",
            regularisation=0.0,
        )
    assert found.phase.dtype == jnp.float64
    assert error(found.phase, phase) < 0.01
    np.testing.assert_allclose(found.attenuation, attenuation, atol=0.01)


def test_mixed_approach_takes_strong_slow_attenuation():
    phase, attenuation = -0.1 * (grating(N, 5) + 0.7 * grating(N, 8).T), 0.5 * (1 + 0.5 * grating(N, 3))
    images = np.stack([hologram(phase, attenuation, d) for d in SHORT]).astype("f4")
    contact = np.exp(-2 * attenuation).astype("f4")
    options: dict[str, Any] = dict(distances=SHORT, regularisation=1e-4, outside="mirror", **BEAM)
    found = mixed(images, contact, **options)
    assert error(found.phase, phase) < 0.12  # 0.45 without the term that is lagged
    assert error(ctf(images, **options).phase, phase) > 0.3
    np.testing.assert_allclose(found.attenuation, attenuation, atol=0.03)


# ------------------------------------------------------------------------------------------------ regularisation
def test_regularisation_has_two_levels():
    images = np.random.default_rng(0).normal(1, 0.01, (1, N, N)).astype("f4")
    options: dict[str, Any] = dict(distances=(0.02,), delta_beta=100.0, outside="mirror", **BEAM)
    solve = lambda low, high: fft.dctn(np.asarray(ctf(images, regularisation=(low, high), **options).phase))
    strong, weak = abs(solve(1e-4, 1e3)), abs(solve(1e-4, 1e-4))
    assert strong[0, 60] < 0.05 * weak[0, 60]  # high frequencies are damped by the high level
    np.testing.assert_allclose(strong[0, 0], weak[0, 0], rtol=5e-2)  # the lowest ones are not


def test_each_unknown_has_its_own_levels():
    _, images = isolated(0.05, 20.0, noise=0.01)
    options: dict[str, Any] = dict(distances=SHORT, **BEAM)
    loose = ctf(images, regularisation=((1e-4, 1e-2), (1e-4, 1e-2)), **options)
    tight = ctf(images, regularisation=((1e-4, 1e-2), (1e3, 1e3)), **options)
    assert np.std(tight.attenuation) < 0.01 * np.std(loose.attenuation)
    assert np.std(tight.phase) > 0.3 * np.std(loose.phase)


@pytest.mark.parametrize("noise, seed", [(0.03, 2), (0.003, 1)])
def test_regularisation_is_learnt_from_the_images(noise, seed):
    """As good as the best pair of levels that the truth would have chosen, at two levels of noise; the noise is
    found."""
    truth, images = isolated(0.2, 300.0, noise=noise, seed=seed)
    options: dict[str, Any] = dict(distances=SHORT, delta_beta=300.0, **BEAM)
    found = ctf(images, **options)
    oracle = min(
        error(ctf(images, regularisation=(low, high), **options).phase, truth)
        for low in 10.0 ** np.arange(-6, 0, 2)
        for high in 10.0 ** np.arange(-4, 2, 2)
    )
    assert error(found.phase, truth) < 1.1 * oracle
    np.testing.assert_allclose(found.regularisation.noise, noise**2, rtol=0.5)
    assert "noise" in found.regularisation.message and "cycles/pixel" in found.regularisation.message


def test_two_unknowns_from_noisy_images():
    truth, images = isolated(0.2, 50.0, noise=0.01)
    found = ctf(images, distances=SHORT, **BEAM)
    assert error(found.phase, truth) < 0.3
    assert "attenuation" in found.regularisation.message


def test_one_image_tells_its_noise_by_the_zeros_of_its_transfer():
    truth, images = isolated(0.2, 300.0, (0.01,), noise=0.01)
    found = ctf(images, distances=(0.01,), delta_beta=300.0, **BEAM)
    np.testing.assert_allclose(found.regularisation.noise, 1e-4, rtol=0.5)
    assert error(found.phase, truth) < 0.2


def test_learnt_regularisation_serves_other_images_and_may_be_scaled():
    _, images = isolated(0.2, 300.0, noise=0.01)
    options: dict[str, Any] = dict(distances=SHORT, delta_beta=300.0, **BEAM)
    first = ctf(images, **options)
    again = ctf(images, regularisation=first.regularisation, **options)
    np.testing.assert_allclose(again.phase, first.phase, atol=1e-5)
    flat = ctf(images, regularisation=first.regularisation.scaled(1e6), **options)
    assert np.std(flat.phase) < 0.3 * np.std(first.phase)


def test_l_curve_bends_at_the_learnt_strength():
    truth, images = isolated(0.2, 300.0, noise=0.01)
    options: dict[str, Any] = dict(distances=SHORT, delta_beta=300.0, **BEAM)
    curve = l_curve(images, **options)
    assert np.all(np.diff(curve.misfit) > 0) and np.all(np.diff(curve.size) < 0)  # stronger: less fit, less object
    middle = int(np.argmin(abs(np.log(curve.factors))))
    np.testing.assert_allclose(curve.misfit[middle], 1, atol=0.2)  # the discrepancy principle agrees
    errors = [
        error(ctf(images, regularisation=curve.regularisation.scaled(f), **options).phase, truth)
        for f in (1e-2, 1.0, 1e2)
    ]
    assert errors[1] == min(errors)
    assert plot.l_curve(curve).axes[0].get_yscale() == "log"


# ------------------------------------------------------------------------------------------------ what is not measured
def test_vacuum_forbids_slow_noise():
    truth, images = isolated(0.2, 2000.0, noise=0.02)
    options: dict[str, Any] = dict(distances=SHORT, delta_beta=2000.0, **BEAM)
    errors = {o: error(ctf(images, outside=o, **options).phase, truth) for o in ("vacuum", "mirror")}
    assert errors["vacuum"] < 0.8 * errors["mirror"]


@pytest.mark.parametrize("outside", ["vacuum", "unmeasured"])
def test_masked_pixels_are_unmeasured(outside):
    truth, images = isolated(0.2, 300.0, noise=0.003)
    mask = np.ones((N, N), bool)
    mask[28:36, :] = mask[10:16, 40:46] = False
    broken = np.where(mask, images, np.nan)
    options: dict[str, Any] = dict(distances=SHORT, delta_beta=300.0, outside=outside, **BEAM)
    whole = error(ctf(images, **options).phase, truth)
    found = error(ctf(broken, mask=mask, **options).phase, truth)
    assert found < 3 * whole + 0.1
    np.testing.assert_array_equal(
        ctf(np.where(mask, images, 7.0), mask=mask, **options).phase,
        ctf(np.where(mask, images, -3.0), mask=mask, **options).phase,
    )


def test_paganin_fills_masked_pixels():
    truth, images = isolated(0.2, 300.0, (0.005,))
    mask = np.ones((N, N), bool)
    mask[30:33, 20:40] = False
    options: dict[str, Any] = dict(distance=0.005, delta_beta=300.0, **BEAM)
    whole, found = paganin(images[0], **options), paganin(np.where(mask, images[0], np.nan), mask=mask, **options)
    assert error(found, truth) < error(whole, truth) + 0.05


# ------------------------------------------------------------------------------------------------ stacks
def test_stacks_are_solved_image_by_image():
    images = np.random.default_rng(1).normal(1, 0.01, (3, 2, 32, 48)).astype("f4")
    options: dict[str, Any] = dict(distances=DISTANCES[:2], regularisation=1e-2, **BEAM)
    together, _ = ctf(images, **options)
    assert together.shape == (3, 32, 48)
    np.testing.assert_allclose(together[1], ctf(images[1], **options).phase, atol=1e-4 * float(np.std(together)))


def test_inside_jit_and_sharded_over_views():
    images = np.random.default_rng(1).normal(1, 0.01, (4, 2, 16, 16)).astype("f4")
    solve = jax.jit(lambda a: ctf(a, distances=DISTANCES[:2], delta_beta=50.0, regularisation=1e-2, **BEAM).phase)
    expected = ctf(images, distances=DISTANCES[:2], delta_beta=50.0, regularisation=1e-2, **BEAM).phase
    np.testing.assert_allclose(solve(images), expected, atol=1e-4 * float(jnp.std(expected)))
    mesh = data_mesh()
    if mesh is not None:
        split = shard_views(images, mesh)
        assert solve(split).sharding.is_equivalent_to(split.sharding, 4)


# ------------------------------------------------------------------------------------------------ bad input
ONES = np.ones((2, 16, 16), np.float32)
TWO: dict[str, Any] = dict(distances=(0.1, 0.2), **BEAM)


@pytest.mark.parametrize(
    "call, word",
    [
        (lambda: ctf(ONES, distances=DISTANCES, delta_beta=1.0, **BEAM), "3 distances"),
        (lambda: ctf(ONES[:1], distances=(0.1,), **BEAM), "one distance"),
        (lambda: ctf(ONES, distances=(0.0, 0.1), delta_beta=1.0, **BEAM), "not zero"),
        (lambda: ctf(ONES, distances=(0.1, np.nan), delta_beta=1.0, **BEAM), "finite"),
        (lambda: ctf(ONES, distances=0.1, delta_beta=1.0, **BEAM), "expected numbers"),
        (lambda: ctf(ONES, delta_beta=1.0, outside="edge", **TWO), "vacuum, mirror"),
        (lambda: ctf(ONES, delta_beta=-3.0, **TWO), "delta/beta"),
        (lambda: ctf(ONES, regularisation=-1.0, **TWO), "negative"),
        (lambda: ctf(ONES, regularisation="l-curve", **TWO), "auto"),
        (lambda: ctf(ONES, regularisation=(1, 2, 3), **TWO), "pair"),
        (lambda: ctf(ONES * np.nan, **TWO), "NaN"),
        (lambda: ctf(ONES + 1j, **TWO), "complex"),
        (lambda: ctf(ONES, mask=np.ones((3, 3), bool), **TWO), "mask"),
        (lambda: ctf(ONES, **(TWO | {"pixel_size": -1.0})), "pixel_size"),
        (lambda: ict(ONES, delta_beta=np.inf, **TWO), "delta/beta"),
        (lambda: paganin(ONES, distance=0.1, delta_beta=np.inf, **BEAM), "delta/beta"),
        (lambda: paganin(ONES, distance=0.1, delta_beta=1.0, outside="unmeasured", **BEAM), "smooth"),
        (lambda: tie(ONES, distances=(0.1, 0.1), **BEAM), "zero"),
        (lambda: tie(np.ones((3, 8, 8)), **TWO), "two planes"),
        (lambda: mixed(ONES, **TWO), "contact"),
        (lambda: mixed(ONES, ONES[0, :3], **TWO), "contact image"),
    ],
)
def test_what_cannot_be_is_refused(call, word):
    with pytest.raises(InputError, match=word):
        call()

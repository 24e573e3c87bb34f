"""Zingers, bad pixels, stripes, hardening, distortion, one by one."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffrecon import operators, prepare, solvers
from diffrecon.errors import InputError
from diffrecon.prepare._stripes import running_median
from diffrecon.prepare._wavelet import daubechies, wavelet_join, wavelet_split

from .sinograms import ellipses, sinogram


# ---------------------------------------------------------------------------------------------------- zingers
def test_zingers_go_and_moving_fringes_stay():
    rng = np.random.default_rng(0)
    views, columns = 40, 120
    fringe = np.zeros((views, 2, columns))
    for v in range(views):  # a bright line one pixel wide, two columns further on in each view
        fringe[v, :, 20 + 2 * v] = 3000
    counts = rng.poisson(5000 + fringe).astype(np.uint16)
    hit = np.zeros(counts.shape, bool)
    hit[tuple(rng.integers(0, n, 60) for n in counts.shape)] = True
    hit[:, :, [0, -1]] = False
    clean, found = prepare.remove_zingers(jnp.asarray(counts + 20000 * hit), threshold=8.0)
    assert (np.asarray(found) & hit).sum() >= 0.95 * hit.sum()
    assert not (np.asarray(found) & ~hit).any()
    assert np.abs(np.asarray(clean)[np.asarray(found)] - 5000).max() < 3300


def test_few_views_have_no_zingers():
    counts = jnp.full((2, 1, 9), 100).at[0, 0, 4].set(9000)
    assert not np.asarray(prepare.remove_zingers(counts, threshold=5.0)[1]).any()


# ---------------------------------------------------------------------------------------------------- stripes
@pytest.mark.parametrize("size", [3, 5, 21])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_running_median_is_exact(size, dtype):
    with jax.enable_x64(dtype == np.float64):
        values = np.random.default_rng(1).standard_normal((7, 50)).astype(dtype)
        found = np.asarray(running_median(jnp.asarray(values), size))
        m = size // 2
        windows = np.lib.stride_tricks.sliding_window_view(values, size, axis=1)
        np.testing.assert_array_equal(found[:, m:-m], np.median(windows, -1))
        assert found.dtype == dtype


@pytest.mark.parametrize("order", [1, 2, 5, 8])
def test_wavelets_are_orthogonal_and_blind_to_polynomials(order):
    low = daubechies(order)
    for shift in range(0, 2 * order, 2):
        assert abs(low[shift:] @ low[: low.size - shift] - (shift == 0)) < 1e-9
    with jax.enable_x64(True):
        signal = jnp.asarray(np.random.default_rng(0).standard_normal((3, 64)))
        coarse, detail = wavelet_split(signal, low)
        np.testing.assert_allclose(wavelet_join(coarse, detail, low), signal, atol=1e-9)
        np.testing.assert_allclose(jnp.sum(coarse**2) + jnp.sum(detail**2), jnp.sum(signal**2), rtol=1e-9)
        ramp = wavelet_split(jnp.arange(64.0) ** min(order - 1, 3), low)[1]
        np.testing.assert_allclose(ramp[: 32 - order], 0, atol=1e-6 * 64 ** min(order - 1, 3))


def striped(seed, columns=160, views=200, noise=0.01):
    """Clean noisy sinogram, the same with weak, partial, wide and idle stripes, and its angles."""
    rng = np.random.default_rng(seed)
    angles = np.linspace(0, np.pi, views, endpoint=False)
    clean = sinogram(ellipses(seed), angles, columns, columns, (columns - 1) / 2)
    clean = clean + noise * rng.standard_normal(clean.shape)
    stripes = np.zeros_like(clean)
    places = rng.permutation(np.arange(30, columns - 30))
    stripes[:, places[:12]] += 0.04 * rng.standard_normal(12)
    stripes[views // 3 :, places[12]] += 0.1
    wide = places[13]
    stripes[:, wide : wide + 4] += 0.15
    dirty = clean + stripes
    dirty[:, places[14]] = 0.5 + noise * rng.standard_normal(views)
    return angles, clean.astype(np.float32), dirty.astype(np.float32)


# what is left of the error of the slice, at most; change of a clean sinogram in units of its noise, at most
@pytest.mark.parametrize(
    "method, left, changed", [("sorting", 0.6, 0.6), ("fourier-wavelet", 0.65, 0.9), ("all", 0.5, 0.95)]
)
@pytest.mark.parametrize("seed", [11, 12])
def test_stripes_go_and_a_clean_sinogram_stays(method, left, changed, seed):
    angles, clean, dirty = striped(seed)
    A = operators.ParallelProjector(angles, (160, 160), 160)
    remove = lambda s: np.asarray(prepare.remove_stripes(jnp.asarray(s)[:, None], method).values)[:, 0]
    error = lambda s: float(jnp.linalg.norm(solvers.fbp(A, jnp.asarray(s)) - solvers.fbp(A, jnp.asarray(clean))))
    assert error(remove(dirty)) < left * error(dirty)
    assert np.sqrt(np.mean((remove(clean) - clean) ** 2)) < changed * 0.01


@pytest.mark.parametrize("method", ["large", "dead"])
def test_large_and_dead_touch_only_what_stands_out(method):
    _, clean, dirty = striped(13)
    found = prepare.remove_stripes(jnp.asarray(dirty)[:, None], method)
    same = ~np.asarray(found.defective[0])
    np.testing.assert_array_equal(np.asarray(found.values)[:, 0][:, same], dirty[:, same])
    # An idle column varies least along the views; the others' offset is largest where the wide stripe is.
    worst = 30 + dirty[:, 30:-30].std(0).argmin() if method == "dead" else np.abs((dirty - clean).mean(0)).argmax()
    assert not same[worst] and (~same).sum() < 40
    untouched = prepare.remove_stripes(jnp.asarray(clean)[:, None], "dead")
    assert not np.asarray(untouched.defective).any()


def test_rows_are_treated_by_themselves_and_names_are_checked():
    _, _, dirty = striped(14)
    both = prepare.remove_stripes(jnp.stack([dirty, dirty[::-1]], 1), "sorting").values
    one = prepare.remove_stripes(jnp.asarray(dirty)[:, None], "sorting").values
    np.testing.assert_allclose(both[:, :1], one, atol=1e-6)
    with pytest.raises(InputError, match="no method"):
        prepare.remove_stripes(one, "sort")
    with pytest.raises(InputError, match="at least 3"):
        prepare.remove_stripes(one, "sorting", size=1)


# ---------------------------------------------------------------------------------------------------- hardening
def test_hardening_is_fitted_from_constant_mass():
    angles = np.linspace(0, np.pi, 90, endpoint=False)
    bar = np.array([[0.9, 0.8, 0.2, 0, 0, 0.3], [0.5, 0.2, 0.1, 0.4, 0.0, 0.0]])
    true = sinogram(bar, angles, 128, 160, 79.5)[:, None]
    measured = (np.sqrt(1 + 4 * 0.12 * true) - 1) / (2 * 0.12)  # p + 0.12 p^2 = true
    coefficients = prepare.fit_hardening(measured, order=2)
    np.testing.assert_allclose(coefficients, [1, 0.12], rtol=0.02)
    np.testing.assert_allclose(prepare.linearise(jnp.asarray(measured), coefficients), true, atol=5e-3)
    disc = sinogram(np.array([[0.9, 0.5, 0.5, 0, 0, 0.0]]), angles, 128, 160, 79.5)[:, None]
    with pytest.raises(InputError, match="round"):
        prepare.fit_hardening(disc)
    with pytest.raises(InputError, match="leaves the detector"):
        prepare.fit_hardening(measured[..., 60:100])


# ---------------------------------------------------------------------------------------------------- distortion
@pytest.mark.parametrize("order, close", [(1, 4e-2), (3, 2e-3)])
def test_distortion_is_undone(order, close):
    y, x = np.mgrid[:60, :80].astype(float)
    picture = lambda y, x: np.sin(0.35 * y) * np.cos(0.3 * x + 0.1 * y)
    where = prepare.radial_distortion((60, 80), (28.0, 41.0), (0.98, 2e-4, -1e-6))
    # Newton's iteration inverts the map: at (y, x) of the frame, where the straight pixel came from.
    straight = np.stack([y, x])
    for _ in range(60):
        r = np.hypot(straight[0] - 28, straight[1] - 41)
        factor = 0.98 + 2e-4 * r - 1e-6 * r**2
        straight = np.stack([28 + (y - 28) / factor, 41 + (x - 41) / factor])
    frame = picture(*straight)
    found = np.asarray(prepare.undistort(jnp.asarray(frame[None], jnp.float32), jnp.asarray(where), order=order))[0]
    np.testing.assert_allclose(found[3:-3, 3:-3], picture(y, x)[3:-3, 3:-3], atol=close)
    same = prepare.undistort(jnp.asarray(frame[None]), jnp.asarray(np.indices((60, 80)), jnp.float32), order=order)
    np.testing.assert_allclose(same[0], frame, atol=1e-6)


def test_coefficients_of_distortion_are_checked():
    with pytest.raises(InputError, match="near 1"):
        prepare.radial_distortion((4, 4), (1.5, 1.5), (0.0, 1.0))

"""Filtered back-projection: filters, what lies beyond the detector, the phase filter, use inside jit."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffrecon.errors import InputError
from diffrecon.operators.projection import ParallelProjector
from diffrecon.solvers import PhaseFilter, fbp, paganin
from diffrecon.solvers.direct.fbp import angle_weights, ramp_filter

# amplitude, semi-axes, centre, turn: a uniform specimen with inclusions, and a shell around something thin
UNIFORM = [(1.0, 110, 95, 6, -4, 0.3), (0.5, 12, 7, 15, 8, 1.0), (-0.6, 9, 14, -20, 5, 0.2), (0.8, 4, 4, 2, -22, 0)]
SHELL = [(1.0, 85, 110, 0, 0, 0.0), (-0.7, 81, 105, 0, -2, 0.0), (0.2, 20, 12, -18, 4, 1.2), (0.3, 6, 6, 12, -14, 0)]


def ellipses(parts, angles, columns):
    """Exact line integrals [pixel], averaged over each bin by four rays."""
    u = (np.arange(4 * columns) + 0.5) / 4 - columns / 2
    total = np.zeros((len(angles), u.size))
    for amplitude, a, b, x, y, turn in parts:
        square = (a * np.cos(angles - turn)) ** 2 + (b * np.sin(angles - turn)) ** 2
        distance = u - (x * np.cos(angles) + y * np.sin(angles))[:, None]
        half = np.sqrt(np.maximum(square[:, None] - distance**2, 0))
        total += 2 * amplitude * a * b * half / square[:, None]
    return total.reshape(len(angles), columns, 4).mean(2)


def slice_of(parts, size):
    fine = (np.arange(4 * size) + 0.5) / 4 - size / 2
    x, y = np.meshgrid(fine, fine)
    image = np.zeros(x.shape)
    for amplitude, a, b, x0, y0, turn in parts:
        along = (x - x0) * np.cos(turn) + (y - y0) * np.sin(turn)
        across = (y - y0) * np.cos(turn) - (x - x0) * np.sin(turn)
        image += amplitude * ((along / a) ** 2 + (across / b) ** 2 <= 1)
    return image.reshape(size, 4, size, 4).mean((1, 3))


def test_error_of_the_whole_specimen():
    """The geometry of the reference case in small: exact data in, error in the disc out."""
    parts = [(a, b / 2, c / 2, x / 2, y / 2, t) for a, b, c, x, y, t in UNIFORM]
    angles = np.linspace(0, np.pi, 200, endpoint=False)
    A = ParallelProjector(angles, (128, 128), 128, dtype=jnp.float32)
    found = np.asarray(fbp(A, jnp.asarray(ellipses(parts, angles, 128), jnp.float32)))
    truth = slice_of(parts, 128)
    disc = np.hypot(*(np.mgrid[:128, :128] - 63.5)) < 62
    assert np.linalg.norm((found - truth)[disc]) / np.linalg.norm(truth[disc]) < 0.06


# ------------------------------------------------------------------------------------------------ filters
def test_parzen_and_cutoff():
    plain, parzen = ramp_filter(64), ramp_filter(64, "parzen")
    # the window at 0, a half and all of Nyquist: 1, 1/4, 0, smooth in between
    np.testing.assert_allclose((parzen / plain)[[0, 16, 32]], [1, 0.25, 0], atol=1e-12)
    assert np.all(np.diff(parzen / plain) <= 0)
    cut = ramp_filter(64, "hann", 0.5)
    assert np.all(cut[17:] == 0) and cut[16] == pytest.approx(0, abs=1e-12)
    np.testing.assert_allclose(cut[8] / plain[8], 0.5)
    np.testing.assert_array_equal(ramp_filter(64, "ramp", 0.5)[17:], 0)
    np.testing.assert_array_equal(ramp_filter(64, "ramp", 0.5)[:17], plain[:17])


def test_no_filter_is_the_weighted_back_projection():
    A = ParallelProjector(np.linspace(0, np.pi, 11, endpoint=False), (16, 16), 16, dtype=jnp.float32)
    data = jnp.asarray(np.random.default_rng(0).normal(size=(11, 2, 16)), jnp.float32)
    np.testing.assert_allclose(fbp(A, data, filter="none"), A.adjoint(data) * (np.pi / 11), rtol=2e-5, atol=1e-5)
    # cut off, it is low-passed
    cut = fbp(A, data, filter="none", cutoff=0.4)
    assert float(jnp.linalg.norm(cut)) < 0.95 * float(jnp.linalg.norm(A.adjoint(data) * (np.pi / 11)))


@pytest.mark.parametrize(
    "bad",
    [
        {"filter": "ram-lak"},
        {"pad": "smoth"},
        {"cutoff": 0.0},
        {"cutoff": 1.5},
        {"extent": -3.0},
        {"extent": np.nan},
        {"phase": PhaseFilter(1e-6, 1e-10, 0.1, -1.0)},
        {"phase": PhaseFilter(1e-6, 1e-10, np.inf, 10.0)},
    ],
)
def test_what_makes_no_sense_is_refused(bad):
    A = ParallelProjector(np.linspace(0, np.pi, 4, endpoint=False), (8, 8), 8)
    with pytest.raises(InputError):
        fbp(A, jnp.ones((4, 8)), **bad)
    with pytest.raises(InputError, match="line integrals"):
        fbp(A, jnp.ones((4, 8), jnp.uint16))


# ------------------------------------------------------------------------------------------------ weights and jit
ANGLES = [
    np.linspace(0, np.pi, 50, endpoint=False),
    np.linspace(0, 2 * np.pi, 60, endpoint=False),
    np.linspace(0.3, 0.3 - np.pi, 41),
    np.linspace(-1, 1, 40),
    np.sort(np.random.default_rng(2).uniform(0, np.pi, 80)),
    np.array([0.7]),
]


@pytest.mark.parametrize("angles", ANGLES, ids=["half", "whole turn", "both ends", "wedge", "random", "one"])
def test_weights_of_traced_angles(angles):
    expected = angle_weights(angles)
    traced = jax.jit(angle_weights)(jnp.asarray(angles, jnp.float32))
    np.testing.assert_allclose(traced, expected, rtol=1e-3, atol=2e-5)


def test_both_ends_of_a_half_turn_share_their_angle():
    weights = angle_weights(np.linspace(0, np.pi, 41))
    assert weights[0] + weights[-1] == pytest.approx(np.pi / 40)
    np.testing.assert_allclose(weights[1:-1], np.pi / 40)


def test_inside_jit_with_the_projector_as_argument():
    rng = np.random.default_rng(0)
    angles = np.sort(rng.uniform(0, np.pi, 60))
    A = ParallelProjector(angles, (32, 32), 40, centre=20.7, shifts=rng.normal(size=60), dtype=jnp.float32)
    data = jnp.asarray(rng.normal(size=(60, 2, 40)), jnp.float32)
    for options in ({}, {"pad": "smooth", "filter": "hann"}):
        outside = fbp(A, data, **options)
        inside = jax.jit(lambda A, b, options=options: fbp(A, b, **options))(A, data)
        np.testing.assert_allclose(inside, outside, atol=3e-4 * float(jnp.abs(outside).max()))


def test_double_precision_stays_double():
    with jax.enable_x64(True):
        A = ParallelProjector(np.linspace(0, np.pi, 20, endpoint=False), (16, 16), 16, dtype=jnp.float64)
        phase = PhaseFilter(1e-6, 1e-10, 0.1, 100.0)
        data = jnp.asarray(np.random.default_rng(0).normal(size=(20, 3, 16)))
        assert fbp(A, data, pad="smooth", phase=phase).dtype == jnp.float64


# ------------------------------------------------------------------------------------------------ local tomography
@pytest.mark.parametrize("parts, extent", [(UNIFORM, 220.0), (SHELL, 210.0)], ids=["uniform", "shell"])
@pytest.mark.parametrize("columns, centre", [(96, None), (128, 66.3)])
def test_smooth_continuation_flattens_a_region_of_interest(parts, extent, columns, centre):
    """Exact data of a specimen about twice as wide as the detector; judged after a constant is removed."""
    angles = np.linspace(0, np.pi, 240, endpoint=False)
    off = 0.0 if centre is None else centre - (columns - 1) / 2
    moved = ellipses(parts, angles, columns + 40)
    u = np.arange(columns) + 20 - off
    data = np.stack([np.interp(u, np.arange(columns + 40), line) for line in moved])
    A = ParallelProjector(angles, (columns, columns), columns, centre=centre, dtype=jnp.float32)
    truth = slice_of(parts, columns)
    inner = np.hypot(*(np.mgrid[:columns, :columns] - (columns - 1) / 2)) < 0.44 * columns

    def bend(**options):
        return np.std((np.asarray(fbp(A, jnp.asarray(data, jnp.float32), **options)) - truth)[inner])

    zero, edge, guessed, known = bend(), bend(pad="edge"), bend(pad="smooth"), bend(pad="smooth", extent=extent)
    assert guessed < edge < zero
    assert known < 0.9 * edge and known < 0.25 * zero


def test_smooth_changes_nothing_where_the_specimen_ends_within_the_detector():
    A = ParallelProjector(np.linspace(0, np.pi, 30, endpoint=False), (32, 32), 48, dtype=jnp.float32)
    y, x = np.mgrid[:32, :32] - 15.5
    data = A(jnp.asarray(1 / (1 + np.exp(np.hypot(x, y) - 9)), jnp.float32))
    for extent in (None, 30.0):
        np.testing.assert_allclose(fbp(A, data, pad="smooth", extent=extent), fbp(A, data), atol=3e-3)


# ------------------------------------------------------------------------------------------------ phase
PHASE = PhaseFilter(pixel_size=1e-6, wavelength=5e-11, distance=0.2, delta_beta=300.0)


def absorbing(contrast, shape=(12, 24, 48)):
    """Transmissions of a smooth random specimen, at most `contrast` absorbed."""
    rng = np.random.default_rng(5)
    noise = np.fft.rfft2(rng.normal(size=shape))
    fy, fx = np.fft.fftfreq(shape[1])[:, None], np.fft.rfftfreq(shape[2])
    smooth = np.fft.irfft2(noise * np.exp(-60 * (fy**2 + fx**2)), shape[1:])
    integrals = (smooth - smooth.min()) / np.ptp(smooth)
    return np.exp(np.log(1 - contrast) * integrals).astype(np.float32)


def test_exact_phase_filter_is_that_of_paganin():
    frames = absorbing(0.5)
    phase = paganin(frames, pixel_size=1e-6, wavelength=5e-11, distance=0.2, delta_beta=300.0, outside="mirror")
    np.testing.assert_allclose(PHASE.line_integrals(frames), -phase * 2 / 300.0, rtol=1e-6)
    # a uniform specimen keeps its line integral
    np.testing.assert_allclose(PHASE.line_integrals(np.full((1, 8, 8), 0.3, np.float32)), -np.log(0.3), rtol=1e-5)


def test_fused_phase_filter_is_filter_then_ramp():
    """Against the 2-D filter written out in NumPy on mirrored, zero-padded line integrals."""
    integrals = np.random.default_rng(1).normal(size=(12, 10, 32)).astype(np.float32)
    A = ParallelProjector(np.linspace(0, np.pi, 12, endpoint=False), (32, 32), 32, dtype=jnp.float32)
    doubled = np.concatenate([integrals, integrals[:, ::-1]], 1)
    fz, fu = np.fft.fftfreq(20)[:, None], np.fft.rfftfreq(64)
    ramp = ramp_filter(64) / (1 + PHASE.strength * (fz**2 + fu**2))
    lines = np.fft.irfft2(np.fft.rfft2(doubled, (20, 64)) * ramp, (20, 64))[:, :10, :32]
    expected = A.adjoint(jnp.asarray(lines * np.pi / 12, jnp.float32))
    np.testing.assert_allclose(fbp(A, integrals, phase=PHASE), expected, atol=1e-5)
    # one row alone: nothing changes along z
    one = fbp(A, integrals[:, 3], phase=PHASE)
    np.testing.assert_allclose(fbp(A, integrals[:, 3:4], phase=PHASE)[0], one, atol=1e-6)
    np.testing.assert_allclose(fbp(A, np.repeat(integrals[:, 3:4], 4, 1), phase=PHASE)[2], one, atol=1e-5)


@pytest.mark.parametrize("contrast, apart", [(0.02, 0.01), (0.1, 0.05), (0.5, 0.4)])
def test_fused_and_exact_filter_agree_to_first_order(contrast, apart):
    """Before the logarithm and after it: the difference is of second order in the contrast."""
    frames = absorbing(contrast)
    exact = np.asarray(PHASE.line_integrals(frames))
    integrals = -np.log(frames)
    mirrored = np.pad(integrals, [(0, 0), (0, 24), (0, 48)], mode="symmetric")
    gain = PHASE.gain(np.fft.fftfreq(48), np.fft.rfftfreq(96))
    fused = np.fft.irfft2(np.fft.rfft2(mirrored) * gain, (48, 96))[:, :24, :48]
    difference = np.linalg.norm(fused - exact) / np.linalg.norm(exact - exact.mean())
    assert difference < apart


def test_reach_of_the_phase_filter():
    """Rows further away than that do not matter."""
    phase = PHASE._replace(delta_beta=30.0)
    impulse = np.zeros((1, 4 * phase.reach, 64), np.float32)
    impulse[0, 2 * phase.reach] = 1.0  # a whole row: no decay along the columns helps
    gain = phase.gain(np.fft.fftfreq(impulse.shape[1]), np.fft.rfftfreq(64))
    spread = np.fft.irfft2(np.fft.rfft2(impulse) * gain, impulse.shape[1:])[0, :, 0]
    outside = np.abs(np.arange(spread.size) - 2 * phase.reach) >= phase.reach
    assert np.abs(spread[outside]).max() < 1e-4 * spread.max()
    assert phase.reach < 50

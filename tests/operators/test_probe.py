"""Probe-object model against the formula of the file format, written here in plain NumPy, and its derivatives."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffrecon import operators as op

FRAME, FIELD = (12, 16), (40, 44)


def shift(image, by):
    """Band-limited shift towards larger indices by (row, column)."""
    fy, fx = np.fft.fftfreq(image.shape[-2])[:, None], np.fft.fftfreq(image.shape[-1])[None]
    return np.fft.ifft2(np.fft.fft2(image) * np.exp(-2j * np.pi * (fy * by[0] + fx * by[1])))


def predict(obj, probe, position, transfer=None):
    """`sum over modes abs2(shift(propagate(shift(probe, f) * object[r:r+n, c:c+m]), -f))`, positions = (r, c) + f."""
    corner = np.floor(position + 0.5).astype(int)
    rest = position - corner
    n, m = probe.shape[-2:]
    wave = shift(probe, rest) * obj[corner[0] : corner[0] + n, corner[1] : corner[1] + m]
    if transfer is None:
        detected = np.fft.fft2(wave, norm="ortho")
    else:
        detected = shift(np.fft.ifft2(np.fft.fft2(wave) * transfer), -rest)
    return (abs(detected) ** 2).sum(0)


def setting(x64=False):
    rng = np.random.default_rng(0)
    draw = lambda *s: rng.standard_normal(s) + 1j * rng.standard_normal(s)
    dtype = jnp.complex128 if x64 else jnp.complex64
    obj, probe = jnp.asarray(draw(*FIELD), dtype), jnp.asarray(draw(2, *FRAME), dtype)
    positions = jnp.asarray(rng.uniform(1, 24, (5, 2)), dtype(0).real.dtype)
    transfer = op.fresnel_transfer(FRAME, pixel_size=100e-9, wavelength=7e-11, distance=3e-3, dtype=dtype)
    return obj, probe, positions, transfer


@pytest.mark.parametrize("near", [False, True])
@pytest.mark.parametrize("x64", [False, True])
def test_prediction_is_the_documented_formula(near, x64):
    with jax.enable_x64(x64):
        obj, probe, positions, transfer = setting(x64)
        waves = op.near_field(obj, probe, positions, transfer) if near else op.far_field(obj, probe, positions)
        found = np.asarray(op.intensity(waves))
        plain = [np.asarray(a, np.complex128) for a in (obj, probe, transfer)]
        expected = np.stack(
            [predict(plain[0], plain[1], p, plain[2] if near else None) for p in np.asarray(positions, float)]
        )
        assert np.linalg.norm(found - expected) < (1e-12 if x64 else 3e-6) * np.linalg.norm(expected)


@pytest.mark.parametrize("near", [False, True])
def test_gradients_against_finite_differences(near):
    """Central differences in float64: step 1e-6 balances truncation against rounding."""
    with jax.enable_x64(True):
        obj, probe, positions, transfer = setting(True)
        weight = op.random_like(jnp.zeros((5, *FRAME)), 1)
        values = {"object": obj, "probe": probe, "positions": positions, "transfer": transfer}

        def figure(values):
            o, p, s, t = (values[name] for name in ("object", "probe", "positions", "transfer"))
            return jnp.sum(weight * op.intensity(op.near_field(o, p, s, t) if near else op.far_field(o, p, s)))

        gradient = jax.grad(figure)(values)
        for name in ("object", "probe", "positions"):
            direction = op.random_like(values[name], 7)
            slope = float(jnp.sum((gradient[name] * direction).real))
            step = 1e-6
            ends = [figure(values | {name: values[name] + sign * step * direction}) for sign in (1, -1)]
            assert slope == pytest.approx(float(ends[0] - ends[1]) / (2 * step), rel=1e-6), name


def test_extract_takes_the_patch_at_each_corner():
    obj = jnp.arange(FIELD[0] * FIELD[1]).reshape(FIELD)
    patches = op.extract(obj, jnp.asarray([[0, 0], [3, 5]]), FRAME)
    np.testing.assert_array_equal(patches[1], np.asarray(obj)[3:15, 5:21])


def test_split_positions():
    corners, rest = op.split_positions(jnp.asarray([[3.7, 2.2], [2.5, -0.6], [0.0, 7.4999]]))
    np.testing.assert_array_equal(corners, [[4, 2], [3, -1], [0, 7]])
    np.testing.assert_allclose(rest, [[-0.3, 0.2], [-0.5, 0.4], [0, 0.4999]], atol=1e-6)
    assert float(jax.grad(lambda p: jnp.sum(op.split_positions(p)[1]))(jnp.asarray([[3.7, 2.2]]))[0, 0]) == 1


def test_fourier_shift_moves_towards_larger_indices_and_back():
    image = jnp.zeros((8, 10)).at[2, 3].set(1.0)
    np.testing.assert_allclose(
        op.fourier_shift(image, jnp.asarray([1.0, -2.0])), jnp.zeros((8, 10)).at[3, 1].set(1.0), atol=1e-6
    )
    # A cosine under the Nyquist frequency moves by fractions of a pixel exactly.
    x = np.arange(10)
    wave = jnp.asarray(np.cos(2 * np.pi * 3 * x / 10)[None] * np.ones((8, 1)))
    np.testing.assert_allclose(
        op.fourier_shift(wave, jnp.asarray([0.4, 0.3])).real[0], np.cos(2 * np.pi * 3 * (x - 0.3) / 10), atol=1e-6
    )


def test_coverage_is_the_probe_light_on_the_object():
    _, probe, positions, _ = setting()
    times = jnp.asarray([1.0, 2.0, 0.5, 1.0, 1.0])
    found = np.asarray(op.coverage(probe, positions, FIELD, times))
    expected = np.zeros(FIELD)
    for (r, c), t in zip(np.floor(np.asarray(positions) + 0.5).astype(int), np.asarray(times), strict=True):
        expected[r : r + FRAME[0], c : c + FRAME[1]] += t * (abs(np.asarray(probe)) ** 2).sum(0)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


def test_orthogonal_modes_predict_the_same_frames():
    obj, probe, positions, _ = setting()
    modes = op.orthogonal_modes(probe)
    overlap = np.asarray(jnp.einsum("ayx,byx->ab", jnp.conj(modes), modes))
    power = overlap.diagonal().real
    assert abs(overlap[0, 1]) < 1e-5 * power[0] and power[0] > power[1]
    before, after = (op.intensity(op.far_field(obj, p, positions)) for p in (probe, modes))
    np.testing.assert_allclose(after, before, rtol=1e-4, atol=1e-4 * float(before.max()))

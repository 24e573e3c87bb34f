"""Random starts of coherent diffraction: projections, shrinking support, alignment, all together."""

import jax.numpy as jnp
import numpy as np
import pytest
from diffraction_patterns import particle, pattern_of

from diffrecon.solvers import (
    DiffractionSets,
    Shrinking,
    align_starts,
    onto_counts,
    onto_positive,
    onto_real,
    onto_support,
    random_starts,
    shrink_wrap,
)


def test_shrink_wrap_is_a_blur_and_a_threshold():
    rng = np.random.default_rng(2)
    objects = np.zeros((2, 24, 24), complex)
    objects[:, 8:14, 9:17] = rng.uniform(1, 2, (2, 6, 8)) * np.exp(1j * rng.uniform(-3, 3, (2, 6, 8)))
    found = np.asarray(shrink_wrap(jnp.asarray(objects, jnp.complex64), 1.5, 0.3))
    offsets = np.arange(-8, 9)
    kernel = np.exp(-(offsets**2) / (2 * 1.5**2))
    for one, support in zip(abs(objects), found, strict=True):
        smooth = sum(
            a * b * np.roll(one, (dy, dx), (0, 1))
            for dy, a in zip(offsets, kernel, strict=True)
            for dx, b in zip(offsets, kernel, strict=True)
        )
        relative = smooth / smooth.max()
        clear = abs(relative - 0.3) > 1e-3
        np.testing.assert_array_equal(support[clear], relative[clear] > 0.3)


def test_what_a_pattern_cannot_tell_is_removed():
    truth, _ = particle((48, 48))
    twin = np.roll(np.conj(np.flip(truth)), (3, -5), (0, 1)) * np.exp(2j)
    aligned = align_starts(np.stack([truth, twin]))
    np.testing.assert_allclose(aligned[1], truth, atol=1e-6)


def wave_data(seed=3):
    rng = np.random.default_rng(seed)
    obj, support = particle((8, 8), seed)
    measured = rng.uniform(size=(8, 8)) < 0.8
    data = DiffractionSets.of(pattern_of(obj), support, measured)
    start = rng.standard_normal((2, 8, 8)) + 1j * rng.standard_normal((2, 8, 8))
    return data, jnp.asarray(start, jnp.complex64)


def test_projection_onto_counts():
    """The measured modulus, phases as they were, and nothing touched where nothing was measured."""
    data, start = wave_data()
    found = onto_counts(start, data)
    before, after = (np.fft.fft2(np.asarray(x), norm="ortho") for x in (start, found))
    measured, modulus = np.asarray(data.measured), np.asarray(data.modulus)
    for one, other in zip(before, after, strict=True):
        np.testing.assert_allclose(abs(other)[measured], modulus[measured], atol=1e-4)
        np.testing.assert_allclose(other[~measured], one[~measured], atol=1e-4)
        np.testing.assert_allclose((other * np.conj(one))[measured].imag, 0, atol=1e-3)
        assert ((other * np.conj(one))[measured].real > -1e-3).all()


@pytest.mark.parametrize("onto", [onto_counts, onto_support, onto_real, onto_positive])
def test_projections_land_on_the_nearest_point_and_stay(onto):
    """Once there, a projection moves no more; no point of the set near the found one is nearer to the start."""
    data, start = wave_data()
    found = onto(start, data)
    np.testing.assert_allclose(onto(found, data), found, atol=1e-5)
    distance = jnp.linalg.norm(found - start)
    rng = np.random.default_rng(4)
    for size in (0.01, 0.1, 1.0):
        move = size * (rng.standard_normal(start.shape) + 1j * rng.standard_normal(start.shape))
        other = onto(found + jnp.asarray(move, jnp.complex64), data)
        assert jnp.linalg.norm(other - start) >= distance * (1 - 1e-6)


def test_an_empty_start_gets_the_modulus():
    data, start = wave_data()
    found = onto_counts(jnp.zeros_like(start), data)
    assert np.isfinite(np.asarray(found)).all() and float(jnp.abs(found).sum()) > 0


def test_starts_agree_on_an_object_and_stay_within_the_bound():
    rng = np.random.default_rng(7)
    obj = np.zeros((32, 32))
    obj[10:18, 12:19] = rng.uniform(1, 2, (8, 7))
    box = np.zeros((32, 32), bool)
    box[8:20, 10:21] = True
    sets = DiffractionSets.of(pattern_of(obj) + 0.5, box, background=0.5)
    shrinking = Shrinking(every=10, thresholds=(0.15, 0.15), within=jnp.asarray(box))
    solution = random_starts(sets, onto_positive, starts=4, steps=100, shrinking=shrinking, keep=0.5)
    assert solution.gap.shape == (100, 4) and solution.residuals.shape == (4,) and len(solution.kept) == 2
    assert solution.threshold == pytest.approx(0.15) and not solution.support[~box].any()
    aligned = align_starts(np.stack([obj + 0j, np.asarray(solution.average)]))[1]
    np.testing.assert_allclose(aligned, obj, atol=0.02)
    fixed = random_starts(sets, starts=2, steps=5, shrinking=Shrinking(every=0))
    np.testing.assert_array_equal(fixed.support, box)

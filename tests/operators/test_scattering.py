"""Spherical harmonics, detector segments and the tensor projector."""

from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffrecon.errors import InputError
from diffrecon.operators.scattering import (
    TensorGeometry,
    TensorProjector,
    harmonic_degrees,
    orientation,
    real_harmonics,
    relative_anisotropy,
    rotations_from_angles,
    second_moment,
    segment_edges,
    segment_weights,
)


def directions(count, seed=0):
    q = np.random.default_rng(seed).standard_normal((count, 3))
    return q / np.linalg.norm(q, axis=1, keepdims=True)


def geometry(views=5, **settings):
    rng = np.random.default_rng(1)
    return TensorGeometry(rotations_from_angles(rng.uniform(0, 6, views), rng.uniform(0, 0.8, views)), **settings)


def test_harmonics_agree_with_scipy():
    special = pytest.importorskip("scipy.special")
    q = directions(40)
    polar, azimuth = np.arccos(q[:, 2]), np.arctan2(q[:, 1], q[:, 0])
    for i, (l, m) in enumerate(zip(*harmonic_degrees(12), strict=True)):
        complex_ = special.sph_harm_y(l, abs(m), polar, azimuth) * np.sqrt(4 * np.pi) * (-1.0) ** m
        expected = complex_.real if m == 0 else np.sqrt(2) * (complex_.real if m > 0 else complex_.imag)
        np.testing.assert_allclose(real_harmonics(q, 12)[:, i], expected, atol=1e-11)


def test_addition_theorem():
    """sum_m Y_lm(p) Y_lm(q) = (2l+1) P_l(p.q), to high orders."""
    p, q = directions(20, 1), directions(20, 2)
    l, _ = harmonic_degrees(40)
    product = real_harmonics(p, 40) * real_harmonics(q, 40)
    for degree in (0, 2, 12, 40):
        legendre = np.polynomial.legendre.Legendre.basis(degree)((p * q).sum(1))
        np.testing.assert_allclose(product[:, l == degree].sum(1), (2 * degree + 1) * legendre, atol=1e-11)


def test_harmonics_differentiate_at_the_pole():
    gradient = jax.jacobian(lambda q: real_harmonics(q, 4))(jnp.array([0.0, 0.0, 1.0]))
    assert np.all(np.isfinite(gradient))
    np.testing.assert_allclose(gradient[4, 0], np.sqrt(15), rtol=1e-6)  # Y_21 = sqrt(15) x z


def test_odd_order_is_refused():
    with pytest.raises(InputError, match="even"):
        harmonic_degrees(3)


def test_segment_edges():
    half = segment_edges(np.arange(8) * np.pi / 8)
    np.testing.assert_allclose(half[:, 1] - half[:, 0], np.pi / 8)
    np.testing.assert_allclose(half[0], [-np.pi / 16, np.pi / 16])
    full = segment_edges(0.1 + np.arange(6) * np.pi / 3)
    np.testing.assert_allclose(full[:, 1] - full[:, 0], np.pi / 3)
    uneven = segment_edges([0.0, 0.5, 2.0])
    np.testing.assert_allclose(uneven[:, 1] - uneven[:, 0], [(0.5 - (2 - np.pi)) / 2, 1.0, (np.pi - 0.5) / 2])


@pytest.mark.parametrize("two_theta", [0.0, 0.3])
def test_segment_weights_are_means_over_the_arc(two_theta):
    g = geometry(3, two_theta=two_theta)
    azimuth = g.detector_angles[:, None] + np.pi / 8 * ((np.arange(4000) + 0.5) / 4000 - 0.5)
    ring = np.stack([np.cos(azimuth), 0 * azimuth, np.sin(azimuth)], -1)
    lab = np.cos(two_theta / 2) * ring - np.sin(two_theta / 2) * np.array([0, 1, 0])
    expected = real_harmonics(np.einsum("nji,stj->nsti", g.rotations, lab), 8).mean(2)
    np.testing.assert_allclose(segment_weights(g, 8), expected, atol=1e-6)


def test_isotropic_scattering_is_the_projection_in_every_segment():
    A = TensorProjector(geometry(), (6, 7, 8), (9, 9), 4)
    volume = jnp.asarray(np.random.default_rng(0).standard_normal((6, 7, 8)), jnp.float32)
    data = A(jnp.zeros((6, 7, 8, 15)).at[..., 0].set(volume))
    expected = A.projector(volume)
    np.testing.assert_allclose(data, np.broadcast_to(expected[..., None], data.shape), atol=2e-5)


def test_one_oriented_voxel_scatters_as_its_direction_says():
    """A voxel with I(q) = 1 + P_2(q.d): the sum over the detector is the mean of I over each arc."""
    g, d = geometry(4), np.array([0.48, 0.6, 0.64])
    l, _ = harmonic_degrees(4)
    a = real_harmonics(d, 4) * np.where(l == 0, 1.0, np.where(l == 2, 1 / 5, 0.0))
    A = TensorProjector(g, (7, 7, 7), (11, 11), 4)
    total = A(jnp.zeros((7, 7, 7, 15)).at[3, 3, 3].set(jnp.asarray(a))).sum((1, 2))
    azimuth = g.detector_angles[:, None] + np.pi / 8 * ((np.arange(500) + 0.5) / 500 - 0.5)
    q = np.einsum("nji,stj->nsti", g.rotations, np.stack([np.cos(azimuth), 0 * azimuth, np.sin(azimuth)], -1))
    expected = (1 + 1.5 * (q @ d) ** 2 - 0.5).mean(2)
    # One voxel's hat function is sampled on the raster, so that its total depends a little on where the raster lies.
    ratio = np.asarray(total) / expected
    np.testing.assert_allclose(ratio, np.broadcast_to(ratio.mean(1, keepdims=True), ratio.shape), rtol=2e-5)
    np.testing.assert_allclose(ratio, 1.0, atol=0.2)


def test_moments_anisotropy_and_orientation():
    d = directions(30, 3)
    l, _ = harmonic_degrees(6)
    kinds: tuple[tuple[float, Literal["polar", "equatorial"]], ...] = ((1.0, "polar"), (-1.0, "equatorial"))
    for sign, kind in kinds:
        zonal = np.where(l == 0, 2.0, np.where(l == 2, sign * 0.3, 0.0))
        a = jnp.asarray(zonal * real_harmonics(d, 6))
        for found in (orientation(a, kind), orientation(a)):
            np.testing.assert_allclose(np.abs((np.asarray(found) * d).sum(1)), 1, atol=1e-5)
        np.testing.assert_allclose(jnp.trace(second_moment(a), axis1=-2, axis2=-1), 2.0, rtol=1e-6)
        np.testing.assert_allclose(relative_anisotropy(a), 0.3 * np.sqrt(5) / 2, rtol=1e-5)
    q = directions(200_000, 4)
    one = np.array([2.0, 0.1, -0.2, 0.3, 0.15, -0.25] + 22 * [0.05])
    sampled = np.einsum("n,ni,nj->ij", real_harmonics(q, 6) @ one, q, q) / len(q)
    np.testing.assert_allclose(second_moment(jnp.asarray(one)), sampled, atol=0.02)


def test_geometry_is_checked_and_subset():
    g = geometry(5)
    assert len(g.subset([3, 1])) == 2
    np.testing.assert_array_equal(g.subset([3, 1]).rotations[1], g.rotations[1])
    with pytest.raises(InputError, match="no rotation"):
        TensorGeometry(2 * g.rotations)
    with pytest.raises(InputError, match="offsets"):
        TensorGeometry(g.rotations, np.zeros((4, 2)))

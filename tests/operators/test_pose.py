"""The projector for any pose: Joseph's method in plain NumPy, exact ellipsoids, transpose and finite differences."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ellipsoids import any_pose, ellipsoid_projection, ellipsoid_volume, error, joseph, tilted

from diffrecon.errors import InputError
from diffrecon.operators.adjoint import dot_test
from diffrecon.operators.pose import PoseProjector, rotate_vectors


@pytest.mark.parametrize("poses", [tilted((0, 30, 45), 12), any_pose(8, 3)], ids=["tilted", "any"])
def test_no_less_accurate_than_joseph_against_exact_ellipsoids(poses):
    n, detector = 32, (36, 40)
    volume = ellipsoid_volume(n)
    ray, row, column = poses
    views = range(len(ray))
    exact = np.stack([ellipsoid_projection(ray[i], row[i], column[i], detector, n) for i in views])
    reference = np.stack([joseph(volume, ray[i], row[i], column[i], detector) for i in views])
    ours = np.asarray(PoseProjector(ray, row, column, volume.shape, detector)(jnp.asarray(volume)))
    assert error(ours, exact) < 1.12 * error(reference, exact)
    assert error(ours, exact) < 0.03


def test_equals_joseph_where_rays_meet_the_voxels():
    """Along the axes, with no offset, the base plane is the detector and both sums are the same."""
    volume = np.random.default_rng(0).standard_normal((6, 8, 8))
    eye = np.eye(3)
    for ray, row, column in [(eye[1], eye[2], eye[0]), (eye[2], eye[1], eye[0]), (-eye[0], eye[2], eye[1])]:
        sides = [volume.shape[2 - int(np.argmax(np.abs(v)))] for v in (row, column)]
        ours = PoseProjector(ray[None], row[None], column[None], volume.shape, sides)(jnp.asarray(volume))[0]
        np.testing.assert_allclose(ours, volume.sum(2 - int(np.argmax(np.abs(ray)))), atol=3e-6)


def test_offsets_move_the_detector():
    poses = tilted((20,), 5)
    volume = jnp.asarray(ellipsoid_volume(20))
    wide = PoseProjector(*poses, volume.shape, (26, 28))(volume)
    shifted = PoseProjector(*poses, volume.shape, (26, 28), np.tile([1.0, 2.0], (5, 1)))(volume)
    np.testing.assert_allclose(shifted[:, :-1, :-2], wide[:, 1:, 2:], atol=2e-5)


@pytest.mark.parametrize("x64", [False, True])
def test_adjoint_is_the_transpose(x64):
    ray, row, column = (np.concatenate(v) for v in zip(tilted((0, 40), 2), any_pose(1, 1), strict=True))
    with jax.enable_x64(x64):
        A = PoseProjector(ray, row, column, (7, 9, 8), (10, 11), 0.3 * np.ones((5, 2)))
        limit = 1e-12 if x64 else 1e-6
        assert dot_test(A, A.adjoint, jnp.zeros((7, 9, 8))) < limit
        views = jnp.array([4, 0, 4, 3])
        assert dot_test(lambda v: A(v, views), lambda y: A.adjoint(y, views), jnp.zeros((7, 9, 8, 3))) < limit
        mix = jnp.asarray(np.random.default_rng(2).standard_normal((5, 2, 3)))
        assert dot_test(lambda v: A(v, None, mix), lambda y: A.adjoint(y, None, mix), jnp.zeros((7, 9, 8, 3))) < limit


def test_selected_views_and_mixing_agree_with_all_views():
    rng = np.random.default_rng(0)
    A = PoseProjector(*any_pose(4, 5), (7, 8, 9), (9, 10))
    volume, mixing = jnp.asarray(rng.standard_normal((7, 8, 9, 3))), jnp.asarray(rng.standard_normal((4, 2, 3)))
    full = A(volume)
    views = np.array([3, 2, 2, 1])
    np.testing.assert_allclose(A(volume, jnp.asarray(views)), full[views], atol=2e-5)
    np.testing.assert_allclose(A.subset(views)(volume), full[views], atol=2e-5)
    np.testing.assert_allclose(A(volume, None, mixing), jnp.einsum("nsc,nkjc->nkjs", mixing, full), atol=2e-4)
    np.testing.assert_allclose(A(volume[..., 0]), full[..., 0], atol=1e-5)


def test_gradients_of_the_pose_agree_with_finite_differences():
    with jax.enable_x64(True):
        rng = np.random.default_rng(0)
        A = PoseProjector(*any_pose(3, 7), (8, 8, 8), (9, 9), rng.uniform(-0.5, 0.5, (3, 2)))
        volume = jnp.asarray(np.pad(rng.standard_normal((4, 4, 4)), 2))
        target = jnp.asarray(rng.standard_normal((3, 9, 9)))

        def cost(parameters, volume):
            return jnp.sum(A.moved(*parameters)(volume) * target) + 0.1 * jnp.sum(A.moved(*parameters)(volume) ** 2)

        # The sum is piecewise smooth in the pose (bilinear), so start off the kinks and step little.
        start = (jnp.asarray(rng.uniform(-0.01, 0.01, (3, 3))), jnp.asarray(rng.uniform(-0.3, 0.3, (3, 2))))
        step = jax.tree.map(lambda p: jnp.asarray(rng.standard_normal(p.shape)), start)
        h = 1e-6
        ends = [cost(jax.tree.map(lambda p, d, e=e: p + e * d, start, step), volume) for e in (h, -h)]
        expected = (ends[0] - ends[1]) / (2 * h)
        gradient = jax.grad(cost)(start, volume)
        by_gradient = sum(jnp.vdot(g, d) for g, d in zip(gradient, step, strict=True))
        np.testing.assert_allclose(by_gradient, expected, rtol=1e-6)
        forward_mode = jax.jvp(lambda p: cost(p, volume), (start,), (step,))[1]
        np.testing.assert_allclose(forward_mode, expected, rtol=1e-6)
        views = jnp.array([1, 2])
        some = jax.grad(lambda p: jnp.sum(A.moved(*p)(volume, views) * target[views]))(start)
        every = jax.grad(lambda p: jnp.sum(A.moved(*p)(volume)[views] * target[views]))(start)
        np.testing.assert_allclose(some[0], every[0], atol=1e-10)


def test_rotate_vectors():
    quarter = rotate_vectors(jnp.array([[1.0, 0, 0]]), jnp.array([[0, 0, np.pi / 2]]))
    np.testing.assert_allclose(quarter, [[0, 1, 0]], atol=1e-6)
    slope = jax.jacobian(lambda r: rotate_vectors(jnp.array([[1.0, 0, 0]]), r[None])[0])(jnp.zeros(3))
    np.testing.assert_allclose(slope, [[0, 0, 0], [0, 0, 1], [0, -1, 0]], atol=1e-6)


def test_wrong_input_is_refused():
    ray, row, column = any_pose(3, 0)
    with pytest.raises(InputError, match="plane of the detector"):
        PoseProjector(row, row, column, (4, 4, 4), (4, 4))
    with pytest.raises(InputError, match="view, 3"):
        PoseProjector(ray[:2], row, column, (4, 4, 4), (4, 4))
    with pytest.raises(InputError, match="does not fit"):
        PoseProjector(ray, row, column, (4, 4, 4), (4, 4))(jnp.zeros((4, 4, 5)))

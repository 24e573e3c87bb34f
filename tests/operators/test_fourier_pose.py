"""The Fourier projector for any pose: exact ellipsoids, Joseph's method, ParallelProjector, transpose, derivatives."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ellipsoids import any_pose, ellipsoid_projection, ellipsoid_volume, error, joseph, tilted

from diffrecon.errors import InputError
from diffrecon.operators import FourierPoseProjector, ParallelProjector, laminography_poses


def smooth_volume(shape, seed=0):
    """Some round Gaussians inside the inscribed ellipsoid: what every band-limited projector must agree on."""
    rng = np.random.default_rng(seed)
    grid = np.meshgrid(*(np.arange(n) - (n - 1) / 2 for n in shape), indexing="ij")
    volume = np.zeros(shape)
    for _ in range(6):
        centre = rng.uniform(-0.2, 0.2, 3) * shape
        volume += rng.uniform(0.5, 1) * np.exp(-sum((g - c) ** 2 for g, c in zip(grid, centre, strict=True)) / 8)
    return volume


@pytest.mark.parametrize("tilt", [0, 15, 30, 45, 60, "any"])
def test_more_accurate_than_joseph_at_every_tilt(tilt):
    n, detector = 32, (36, 40)
    volume = ellipsoid_volume(n)
    ray, row, column = any_pose(8, 3) if tilt == "any" else tilted((tilt,), 9)
    poses = list(zip(ray, row, column, strict=True))
    exact = np.stack([ellipsoid_projection(*pose, detector, n) for pose in poses])
    reference = np.stack([joseph(volume, *pose, detector) for pose in poses])
    ours = np.asarray(FourierPoseProjector(ray, row, column, volume.shape, detector)(jnp.asarray(volume)))
    assert error(ours, exact) < 0.9 * error(reference, exact)


@pytest.mark.parametrize("shape", [(20, 22, 22), (21, 21, 19)])
def test_without_tilt_it_is_the_parallel_projector(shape):
    angles = np.random.default_rng(0).uniform(-4, 4, 9)
    volume = jnp.asarray(smooth_volume(shape))
    expected = ParallelProjector(angles, shape[1:], 25, centre=12.0 + 1.3)(volume)
    poses = laminography_poses(angles, tilt=0.0)
    A = FourierPoseProjector(*poses, shape, (shape[0], 25), offsets=np.tile([0.0, -1.3], (9, 1)))
    assert error(np.asarray(A(volume)), np.asarray(expected)) < 2e-3


def test_any_pose_agrees_with_joseph_where_both_are_exact():
    volume, detector = smooth_volume((20, 24, 22)), (25, 23)
    offsets = np.random.default_rng(1).uniform(-2, 2, (8, 2))
    ray, row, column = any_pose(8, 2)
    ours = FourierPoseProjector(ray, row, column, volume.shape, detector, offsets)(jnp.asarray(volume))
    views = zip(ray, row, column, offsets, strict=True)
    expected = np.stack([joseph(volume, r, k, j, detector, o) for r, k, j, o in views])
    assert error(np.asarray(ours), expected) < 0.03  # Joseph's interpolation blurs


def test_offsets_of_whole_pixels_move_the_image():
    poses = tilted((20,), 5)
    volume = jnp.asarray(smooth_volume((20, 20, 20)))
    wide = FourierPoseProjector(*poses, volume.shape, (26, 28))(volume)
    moved = FourierPoseProjector(*poses, volume.shape, (26, 28), np.tile([1.0, 2.0], (5, 1)))(volume)
    assert error(np.asarray(moved[:, :-1, :-2]), np.asarray(wide[:, 1:, 2:])) < 1e-3


def test_a_small_detector_sees_its_part_and_pixels_beyond_the_object_see_nothing():
    """No replica of the object reaches a detector of any size."""
    volume = jnp.asarray(smooth_volume((16, 30, 30)))
    poses = tilted((35,), 6)
    large, middle, small = (
        np.asarray(FourierPoseProjector(*poses, volume.shape, (n, n))(volume)) for n in (90, 40, 12)
    )
    assert error(middle, large[:, 25:65, 25:65]) < 2e-3
    assert error(small, large[:, 39:51, 39:51]) < 2e-3
    assert np.abs(large[:, :10]).max() < 2e-3 * large.max()


def test_selected_traced_and_batched_views_agree_with_all():
    A = FourierPoseProjector(*tilted((20,), 4), (7, 8, 9), (9, 10))
    volumes = jnp.asarray(np.random.default_rng(0).standard_normal((2, 7, 8, 9)))
    full, views = A(volumes[0]), np.array([3, 2, 2, 1])
    np.testing.assert_allclose(A(volumes[0], jnp.asarray(views)), full[views], atol=2e-5)
    np.testing.assert_allclose(A.subset(views)(volumes[0]), full[views], atol=2e-2)  # other periods
    both = jax.vmap(A)(volumes)
    np.testing.assert_allclose(both[0], full, atol=2e-5)
    np.testing.assert_allclose(both[1], A(volumes[1]), atol=2e-5)
    back = jax.vmap(A.adjoint)(both)
    np.testing.assert_allclose(back[0], A.adjoint(full), atol=1e-3)


def check_gradient(cost, start):
    """Reverse mode against central differences in a random direction of each unknown, forward mode in all at once."""
    rng, h = np.random.default_rng(0), 1e-6
    cost, gradient = jax.jit(cost), jax.jit(jax.grad(cost))(start)
    step = {name: jnp.asarray(rng.standard_normal(p.shape)) for name, p in start.items()}
    total = 0.0
    for name in start:
        ends = [cost(start | {name: start[name] + e * step[name]}) for e in (h, -h)]
        along = (ends[0] - ends[1]) / (2 * h)
        np.testing.assert_allclose(jnp.vdot(gradient[name], step[name]), along, rtol=2e-5, err_msg=name)
        total += along
    np.testing.assert_allclose(jax.jvp(cost, (start,), (step,))[1], total, rtol=2e-5)


@pytest.mark.nightly
def test_gradients_of_every_geometry_parameter_agree_with_finite_differences():
    with jax.enable_x64(True):
        rng, shape = np.random.default_rng(0), (8, 10, 9)
        angles = np.linspace(0, 6, 4) + 0.05
        A = FourierPoseProjector(*laminography_poses(angles, 1.1), shape, (9, 11))
        volume, target = jnp.asarray(smooth_volume(shape)), rng.standard_normal((4, 9, 11))

        def cost(p):
            vectors = laminography_poses(p["angles"], p["tilt"], roll=p["roll"], pitch=p["pitch"])
            images = A.with_poses(*vectors).moved(p["rotations"], p["offsets"])(volume)
            return jnp.sum(images * target) + 0.1 * jnp.sum(images**2)

        start = {"tilt": jnp.asarray(1.103), "roll": jnp.asarray(0.01), "pitch": jnp.asarray(-0.02)}
        start["angles"] = jnp.asarray(angles) + 0.003
        start["rotations"] = jnp.asarray(rng.uniform(-0.01, 0.01, (4, 3)))
        start["offsets"] = jnp.asarray(rng.uniform(-0.3, 0.3, (4, 2)))
        check_gradient(cost, start)


def test_pushes_forward_through_several_dominant_axes():
    with jax.enable_x64(True):
        A = FourierPoseProjector(*tilted((10,), 3), (7, 7, 7), (7, 7))
        assert len(A.groups) == 2
        volume, turn = jnp.asarray(smooth_volume((7, 7, 7))), jnp.full((3, 3), 0.3)
        images = jax.jit(lambda r: A.moved(r)(volume))
        start, h = jnp.full((3, 3), 0.01), 1e-6
        tangent = jax.jvp(images, (start,), (turn,))[1]
        expected = (images(start + h * turn) - images(start - h * turn)) / (2 * h)
        np.testing.assert_allclose(tangent, expected, atol=1e-5 * np.abs(expected).max())


def test_laminography_poses():
    angles = np.array([0.0, np.pi / 2])
    ray, row, column = laminography_poses(angles, np.deg2rad(30))
    np.testing.assert_allclose(ray[0], [0, np.cos(np.pi / 6), 0.5], atol=1e-12)
    np.testing.assert_allclose(column, [[1, 0, 0], [0, 1, 0]], atol=1e-12)
    np.testing.assert_allclose(row[0], [0, -0.5, np.cos(np.pi / 6)], atol=1e-12)
    ray, row, column = laminography_poses(angles, 0.3, roll=np.pi / 2)  # a quarter turn: columns become rows
    upright = laminography_poses(angles, 0.3)
    np.testing.assert_allclose(column, upright[1], atol=1e-12)
    np.testing.assert_allclose(row, -upright[2], atol=1e-12)
    ray, row, column = laminography_poses(angles, 0.3, pitch=0.2)
    np.testing.assert_allclose(np.sum(row * ray, 1), np.sin(0.2), atol=1e-12)
    with pytest.raises(InputError, match="one a view"):
        laminography_poses(0.3, 0.1)


def test_wrong_input_is_refused():
    ray, row, column = any_pose(3, 0)
    with pytest.raises(InputError, match="plane of the detector"):
        FourierPoseProjector(row, row, column, (4, 4, 4), (4, 4))
    A = FourierPoseProjector(ray, row, column, (4, 4, 4), (4, 5))
    with pytest.raises(InputError, match="does not fit"):
        A(jnp.zeros((4, 4, 5)))
    with pytest.raises(InputError, match="row, column"):
        A.adjoint(jnp.zeros((2, 4, 5)))

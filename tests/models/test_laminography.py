"""The laminography model: from a scan, its poses as unknowns, filtered back-projection."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import diffrecon as dr
from diffrecon import Motion
from diffrecon.models import Laminography
from diffrecon.solvers import laminography_fbp

ANGLES = np.linspace(0, 2 * np.pi, 6, endpoint=False) + 0.05


def blob(n, width=3.0, centre=(1.0, -0.5, 0.7)):
    grid = np.meshgrid(*[np.arange(n) - (n - 1) / 2] * 3, indexing="ij")
    return jnp.asarray(np.exp(-sum((g - c) ** 2 for g, c in zip(grid, centre, strict=True)) / (2 * width**2)))


def test_from_scan_puts_the_axis_where_the_scan_says():
    scan = dr.Scan.from_arrays(np.ones((6, 9, 12)), angles=ANGLES, rotation_centre=6.5, extra={"tilt": 0.4})
    model = Laminography.from_scan(scan, size=10)
    assert model.volume.shape == (9, 10, 10) and float(model.projector.motion.tilt) == pytest.approx(0.4)
    point = model.volume.at[4, 4:6, 4:6].set(1.0)  # on the axis
    image = model.projector(point)
    column = jnp.sum(image * jnp.arange(12), (1, 2)) / jnp.sum(image, (1, 2))
    np.testing.assert_allclose(column, 6.5, atol=0.02)
    with pytest.raises(dr.InputError, match="tilt of the rotation axis is not known"):
        Laminography.from_scan(scan.replace(extra={}))


def test_every_geometry_parameter_has_the_gradient_of_finite_differences():
    with jax.enable_x64(True):
        rng = np.random.default_rng(0)
        motion = Motion(4.1, shifts=np.full((3, 2), -0.1), roll=0.02, wobble=np.zeros((3, 2)))
        model = Laminography.from_angles(ANGLES[:3], 1.1, (7, 8, 8), (9, 9), motion=motion)
        volume, target = blob(8, 1.5)[:7], rng.standard_normal((3, 9, 9))
        values = model.projector.motion.known()
        steps = {name: jnp.asarray(rng.standard_normal(v.shape)) for name, v in values.items()}

        @jax.jit
        def cost(p):
            A = model.projector.at(model.projector.motion.replace(**p))
            return jnp.sum(Laminography(volume, A)() * target)

        gradient = jax.jit(jax.grad(cost))(values)
        for name, step in steps.items():
            ends = [cost(values | {name: values[name] + h * step}) for h in (1e-6, -1e-6)]
            np.testing.assert_allclose(jnp.vdot(gradient[name], step), (ends[0] - ends[1]) / 2e-6, rtol=2e-5)


@pytest.mark.parametrize("tilt, limit", [(0.0, 0.02), (0.3, 0.12)])
def test_filtered_back_projection_keeps_the_scale(tilt, limit):
    """Exact for a turn without tilt; with one, what the missing cone takes (1 - cos tilt of a round blob) is absent."""
    truth = blob(24)
    model = Laminography.from_angles(np.linspace(0, 2 * np.pi, 60, endpoint=False), tilt, truth.shape, (28, 28))
    A = model.projector
    found = laminography_fbp(A, A(truth))
    assert jnp.linalg.norm(found - truth) < limit * 2 * jnp.linalg.norm(truth)
    assert abs(float(jnp.vdot(found, truth) / jnp.vdot(truth, truth)) - 1) < limit
    with pytest.raises(dr.InputError, match="view, row, column"):
        laminography_fbp(A, jnp.zeros((3, 28, 28)))


def test_a_rolled_detector_is_filtered_across_the_axis():
    truth, angles = blob(24), np.linspace(0, 2 * np.pi, 60, endpoint=False)
    upright, rolled = (
        Laminography.from_angles(angles, 0.3, truth.shape, (28, 28), motion=Motion(13.5, roll=roll)).projector
        for roll in (0, 0.2)
    )
    first, second = (laminography_fbp(A, A(truth)) for A in (upright, rolled))
    assert jnp.linalg.norm(first - second) < 0.06 * jnp.linalg.norm(first)


def test_wrong_input_is_refused():
    with pytest.raises(dr.InputError, match="must lie between"):
        Laminography.from_angles(ANGLES, 30.0, (4, 4, 4), (4, 4))
    with pytest.raises(dr.InputError, match="one a view"):
        Laminography.from_angles(np.zeros((2, 2)), 0.3, (4, 4, 4), (4, 4))

"""Detector motion and projections in an unknown geometry: closed forms, exact integrals, transposes, derivatives."""

import equinox as eqx
import jax
import jax.numpy as jnp
import moving_ellipsoids as truth
import numpy as np
import pytest

from diffrecon.errors import InputError
from diffrecon.motion import FREEDOMS, Motion
from diffrecon.operators.detector import AlignedProjector, move_images

VIEWS, SIZE = 4, 24
ANGLES = np.linspace(0.1, np.pi, VIEWS)
RANDOM = np.random.default_rng(3)
SHIFTS = RANDOM.uniform(-3, 3, (VIEWS, 2))
SIZES = np.linspace(0.95, 1.06, VIEWS)
TURNS = RANDOM.uniform(-0.08, 0.08, VIEWS)
WOBBLE = RANDOM.uniform(-0.05, 0.05, (VIEWS, 2))
DRIFT = [[1.0, -2.0], [0.5, 1.5]]
# One geometry a way of computing: pictures moved, angles too, every pose.
GEOMETRIES = {
    "moved": {"shifts": SHIFTS, "drift": DRIFT, "magnification": SIZES, "roll": 0.06},
    "turned": {"angles": TURNS, "roll": -0.04},
    "posed": {"pitch": 0.07, "wobble": WOBBLE, "roll": 0.03, "shifts": SHIFTS, "magnification": SIZES, "angles": TURNS},
}


@pytest.fixture(params=list(GEOMETRIES))
def given(request):
    return GEOMETRIES[request.param]


def build(given, rows=10, **settings) -> AlignedProjector:
    return AlignedProjector(ANGLES, (SIZE, SIZE + 1), (rows, SIZE), Motion(13.3, **given), **settings)


def gaussians(shape, centre, shifts, roll, size) -> np.ndarray:
    """Two blobs where the equations at the top of the module put them."""
    row, column = (np.arange(n, dtype=float) for n in shape)
    image = np.zeros((len(shifts), *shape))
    for value, z, u in ((1.0, -3.2, 4.1), (0.6, 2.5, -5.7)):
        r = (shape[0] - 1) / 2 + shifts[:, 0] + size * (z * np.cos(roll) + u * np.sin(roll))
        c = centre + shifts[:, 1] + size * (-z * np.sin(roll) + u * np.cos(roll))
        distance = (row[None, :, None] - r[:, None, None]) ** 2 + (column[None, None] - c[:, None, None]) ** 2
        image += value * np.exp(-distance / (2 * (1.8 * size[:, None, None]) ** 2))
    return image


@pytest.mark.parametrize("shape", [(32, 40), (27, 41)])
@pytest.mark.parametrize("roll", [None, 0.2])
def test_pictures_move_as_said(shape, roll):
    large, size = (44, 61), np.array([1.0, 0.9, 1.12])
    shifts = np.array([[0.0, 0.0], [2.3, -1.4], [-3.6, 2.2]])
    still = gaussians(large, 29.5, np.zeros((3, 2)), 0.0, np.ones(3))
    moved = move_images(
        jnp.asarray(still, jnp.float32),
        shape,
        shifts=jnp.asarray(shifts),
        roll=roll,
        magnification=jnp.asarray(size),
        pivot=29.5,
        centre=19.2,
    )
    expected = gaussians(shape, 19.2, shifts, roll or 0.0, size)
    assert np.abs(np.asarray(moved) - expected).max() < 2e-3


def test_whole_pixels_are_exact():
    images = jnp.asarray(RANDOM.normal(size=(2, 9, 12)), jnp.float32)
    moved = move_images(images, (9, 12), shifts=jnp.array([[1.0, 2.0], [-2.0, 0.0]]))
    assert np.allclose(moved[0, 1:, 2:], images[0, :-1, :-2], atol=2e-6)
    assert np.allclose(moved[1, :-2], images[1, 2:], atol=2e-6)


def test_a_step_at_the_edge_does_not_ring():
    """An image that is not dark at its edges: the way back joins them."""
    ramp = jnp.broadcast_to(jnp.linspace(1.0, 3.0, 40), (1, 20, 40))
    moved = np.asarray(move_images(ramp, (20, 40), shifts=jnp.array([[0.0, 0.5]])))
    expected = np.asarray(ramp) - 0.5 * 2 / 39
    assert np.abs(moved - expected)[..., 6:-6].max() < 3e-3  # a jump would ring by a tenth


def test_projections_are_those_of_ellipsoids(given):
    """Signs and scales of every parameter, against exact line integrals."""
    parts, size = truth.sample(1, 32, count=10), 32
    roll, pitch = given["roll"], given.get("pitch", 0.0)
    if "wobble" in given:
        roll, pitch = roll + WOBBLE[:, 0], pitch + WOBBLE[:, 1]
    shifts = given.get("shifts")
    if "drift" in given:
        order = np.outer(np.arange(VIEWS) + 0.5, [1, 2])
        shifts = shifts + np.cos(np.pi * order / VIEWS) @ np.asarray(DRIFT)
    angles, magnification = ANGLES + given.get("angles", 0.0), given.get("magnification", 1.0)
    expected = truth.views(
        parts, angles, (size, size), centre=17.3, shifts=shifts, roll=roll, pitch=pitch, magnification=magnification
    )
    A = AlignedProjector(ANGLES, (size, size), (size, size), Motion(17.3, **given), slices=56)
    found = np.asarray(A(jnp.asarray(truth.volume(parts, A.volume_shape))))
    # A voxel model of sharp edges on 32 pixels; a wrong sign or pivot is above 10 %.
    assert np.linalg.norm(found - expected) < 0.03 * np.linalg.norm(expected)


@pytest.mark.parametrize("way", list(GEOMETRIES))
def test_derivative_of_every_parameter(way):
    """Against central differences, in double precision."""
    with jax.enable_x64(True):
        z, y, x = np.meshgrid(*(np.arange(n) - (n - 1) / 2 for n in (14, SIZE, SIZE + 1)), indexing="ij")
        volume = jnp.asarray(np.exp(-((x - 3) ** 2 + (y + 2) ** 2 + (z - 1) ** 2) / 18))
        A = build(GEOMETRIES[way], rows=6, slices=14)
        weight = jnp.asarray(np.random.default_rng(5).normal(size=(VIEWS, 6, SIZE)))
        cost = jax.jit(lambda geometry: jnp.sum(weight * A.at(geometry)(volume)))
        gradient = jax.jit(jax.grad(cost))(A.motion)
        # The window of FourierPoseProjector ends in steps of 1e-4: a short difference seldom goes over one.
        step, tolerance = (1e-6 if way == "posed" else 1e-4), 1e-5
        for name in FREEDOMS:
            if getattr(A.motion, name) is None:
                continue
            direction = np.random.default_rng(6).normal(size=jnp.shape(getattr(A.motion, name)))
            ahead, behind = (
                cost(eqx.tree_at(lambda g, name=name: getattr(g, name), A.motion, replace_fn=lambda v, s=s: v + s))
                for s in (step * direction, -step * direction)
            )
            difference = float(ahead - behind) / (2 * step)
            derivative = float(jnp.sum(getattr(gradient, name) * direction))
            assert abs(derivative - difference) < tolerance * max(abs(difference), 1.0), name


def test_subset_is_the_same_operator():
    A = build(GEOMETRIES["moved"])
    z, y, x = np.meshgrid(*(np.arange(n) - (n - 1) / 2 for n in A.volume_shape), indexing="ij")
    volume, some = jnp.asarray(np.exp(-((x - 3) ** 2 + y**2 + z**2) / 18), jnp.float32), np.array([3, 1])
    whole = A(volume)
    assert np.allclose(A.subset(some)(volume), whole[some], atol=2e-4 * float(jnp.abs(whole).max()))
    assert np.allclose(A(volume, some), whole[some], atol=1e-5 * float(jnp.abs(whole).max()))


def test_one_row():
    A = AlignedProjector(ANGLES, (SIZE, SIZE), (1, SIZE), Motion(12.0, shifts=SHIFTS))
    assert A.volume_shape == (1, SIZE, SIZE)
    assert A(jnp.ones(A.volume_shape)).shape == (VIEWS, 1, SIZE)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"roll": 2.0}, "degrees"),
        ({"shifts": np.zeros((VIEWS + 1, 2))}, "shape"),
        ({"shifts": np.full((VIEWS, 2), np.nan)}, "finite"),
        ({"magnification": np.full(VIEWS, -1.0)}, "positive"),
        ({"drift": np.zeros(3)}, "shape"),
    ],
)
def test_bad_geometry_is_refused(fields, words):
    with pytest.raises(InputError, match=words):
        build(fields)


def test_bad_arrays_and_names_are_refused():
    with pytest.raises(InputError, match="volume"):
        build({})(jnp.ones((3, 3, 3)))
    with pytest.raises(InputError, match="adjoint"):
        build({}).adjoint(jnp.ones((3, 3, 3)))
    with pytest.raises(InputError, match="did you mean|nearest|roll"):
        Motion(1.0).freed(("rol",), 3)

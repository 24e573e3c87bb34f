"""The parallel-beam projector against closed forms, its transpose, its derivatives and its Toeplitz product."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffrecon.errors import InputError
from diffrecon.operators.adjoint import dot_test
from diffrecon.operators.projection import ParallelProjector, _gather, project_parallel

RANDOM = np.random.default_rng(0)
# (ny, nx), columns, centre, shifts, angles
GEOMETRIES = {
    "square": ((32, 32), 32, None, None, np.linspace(0, np.pi, 40, endpoint=False)),
    "odd": ((33, 27), 41, None, None, np.linspace(0, np.pi, 31, endpoint=False)),
    "wide detector": ((24, 40), 97, 40.0, None, np.linspace(0, 2 * np.pi, 25)),
    "narrow detector, centre off by 20": ((48, 48), 61, 50.3, None, np.linspace(0, np.pi, 30)),
    "shifted views in any order": ((30, 31), 40, 21.2, RANDOM.normal(size=23), RANDOM.uniform(-7, 7, 23)),
}


@pytest.fixture(params=list(GEOMETRIES.values()), ids=list(GEOMETRIES))
def geometry(request):
    return request.param


def build(geometry, dtype, **settings) -> ParallelProjector:
    shape, detector, centre, shifts, angles = geometry
    return ParallelProjector(angles, shape, detector, centre=centre, shifts=shifts, dtype=dtype, **settings)


def ellipses(n: int) -> np.ndarray:
    """Value, semi-axes, centre (x, y), tilt, in pixels; y grows with the row."""
    table = [[1, 0.6, 0.8, 0.05, 0, 0.2], [-0.5, 0.2, 0.3, -0.2, 0.3, -0.4], [0.7, 0.05, 0.12, 0.3, -0.2, 1.1]]
    table = np.array(table)
    table[:, 1:5] *= n / 2
    return table


def ellipse_image(n: int, fine: int = 8) -> np.ndarray:
    position = (np.arange(n * fine) + 0.5) / fine - n / 2
    x, y = position[None, :], position[:, None]
    image = np.zeros((n * fine, n * fine), np.float32)
    for value, a, b, x0, y0, tilt in ellipses(n):
        along = (x - x0) * np.cos(tilt) + (y - y0) * np.sin(tilt)
        across = -(x - x0) * np.sin(tilt) + (y - y0) * np.cos(tilt)
        image += value * ((along / a) ** 2 + (across / b) ** 2 <= 1)
    return image.reshape(n, fine, n, fine).mean((1, 3))


def ellipse_sinogram(n: int, angles: np.ndarray, fine: int = 16) -> np.ndarray:
    u = (np.arange(n * fine) + 0.5) / fine - n / 2
    total = np.zeros((angles.size, u.size))
    for value, a, b, x0, y0, tilt in ellipses(n):
        radius2 = (a * np.cos(angles - tilt)) ** 2 + (b * np.sin(angles - tilt)) ** 2
        distance = u[None, :] - (x0 * np.cos(angles) + y0 * np.sin(angles))[:, None]
        chord = np.sqrt(np.clip(radius2[:, None] - distance**2, 0, None))
        total += 2 * value * a * b / radius2[:, None] * chord
    return total.reshape(angles.size, n, fine).mean(2)


def relative(a, b) -> float:
    return float(np.linalg.norm(np.asarray(a) - np.asarray(b)) / np.linalg.norm(np.asarray(b)))


# What it computes


def test_error_to_the_exact_sinogram_of_ellipses():
    n, angles = 512, np.linspace(0, np.pi, 45, endpoint=False) + 0.01
    A = ParallelProjector(angles, (n, n), n, dtype=jnp.float32)
    assert relative(A(jnp.asarray(ellipse_image(n), jnp.float32)), ellipse_sinogram(n, angles)) < 0.0030


def test_gaussian_spot_lands_where_the_convention_says(geometry):
    (ny, nx), detector, centre, shifts, angles = geometry
    A = build(geometry, jnp.float32)
    y, x = np.arange(ny)[:, None] - (ny - 1) / 2, np.arange(nx)[None, :] - (nx - 1) / 2
    x0, y0, sigma = 3.0, -2.0, 1.5
    image = np.exp(-((x - x0) ** 2 + (y - y0) ** 2) / (2 * sigma**2))
    middle = (detector - 1) / 2 if centre is None else centre
    axis = middle + (0 if shifts is None else shifts[:, None])
    u = np.arange(detector)[None, :] - axis
    spot = np.exp(-((u - (x0 * np.cos(angles) + y0 * np.sin(angles))[:, None]) ** 2) / (2 * sigma**2))
    # samples, not pixel means, of a spot that is nearly band-limited: the pixel costs about 1 %
    volume = jnp.asarray(np.stack([image, image]), jnp.float32)
    assert relative(A(volume)[:, 1], spot * sigma * np.sqrt(2 * np.pi)) < 0.02


def test_views_along_the_axes_are_plain_sums():
    image = np.zeros((20, 24), np.float32)
    image[4:17, 3:20] = np.hanning(15)[1:-1, None] * np.hanning(19)[None, 1:-1]
    A = ParallelProjector([0, np.pi / 2, np.pi], (20, 24), 40, dtype=jnp.float32)
    sinogram = np.asarray(A(jnp.asarray(image)))
    assert relative(sinogram[0], np.pad(image.sum(0), 8)) < 1e-3
    assert relative(sinogram[1], np.pad(image.sum(1), 10)) < 1e-3
    assert relative(sinogram[2], np.pad(image.sum(0), 8)[::-1]) < 1e-3


def test_object_that_fills_the_square():
    n, angle = 64, 0.6
    A = ParallelProjector([angle], (n, n), 96, dtype=jnp.float32)
    u = np.abs((np.arange(96 * 32) + 0.5) / 32 - 48)
    c, s = np.cos(angle), np.sin(angle)
    # the trapezium of a square's shadow
    shadow = np.clip((n / 2 * (c + s) - u) / (c * s), 0, n / c).reshape(96, 32).mean(1)
    assert relative(A(jnp.ones((n, n), jnp.float32))[0], shadow) < 0.005


def test_stack_views_and_single_slices_agree():
    A = build(GEOMETRIES["shifted views in any order"], jnp.float32)
    volume = jnp.asarray(RANDOM.normal(size=(2, 30, 31)), jnp.float32)
    sinogram = A(volume)
    assert sinogram.shape == (23, 2, 40)
    views = jnp.array([5, 2, 2, 20])
    np.testing.assert_allclose(A(volume[1]), sinogram[:, 1], atol=1e-4)
    np.testing.assert_allclose(A(volume, views), sinogram[views], atol=1e-4)
    np.testing.assert_allclose(jax.vmap(A)(volume), jnp.moveaxis(sinogram, 1, 0), atol=1e-4)


@pytest.mark.parametrize("views", [[5, 2, 2, -3], np.arange(23) % 3 == 1], ids=["indices", "mask"])
def test_subset_is_the_projector_of_those_views(views):
    A = build(GEOMETRIES["shifted views in any order"], jnp.float32)
    B = A.subset(views)
    chosen = np.arange(23)[views]
    volume = jnp.asarray(RANDOM.normal(size=(2, 30, 31)), jnp.float32)
    np.testing.assert_array_equal(B.angles, A.angles[chosen])
    np.testing.assert_allclose(B(volume), A(volume)[chosen], atol=1e-4)
    assert dot_test(B, B.adjoint, volume) < 1e-6
    sinogram = jnp.asarray(RANDOM.normal(size=(len(chosen), 2, 40)), jnp.float32)
    np.testing.assert_allclose(B.adjoint(sinogram), A.adjoint(sinogram, jnp.asarray(chosen)), atol=2e-4)


def test_subset_keeps_an_unknown_centre():
    A = build(GEOMETRIES["odd"], jnp.float32)
    image = jnp.asarray(RANDOM.normal(size=A.shape), jnp.float32)

    def cost(centre, pick):
        return jnp.sum(pick(eqx.tree_at(lambda a: a.centre, A, centre)) ** 2)

    views = np.array([1, 7])
    of_subset = jax.grad(cost)(A.centre, lambda a: a.subset(views)(image))
    np.testing.assert_allclose(of_subset, jax.grad(cost)(A.centre, lambda a: a(image)[views]), rtol=1e-4)


def test_slices_do_not_depend_on_the_block_they_are_in():
    A = build(GEOMETRIES["shifted views in any order"], jnp.float32)
    few = jnp.asarray(RANDOM.normal(size=(3, 30, 31)), jnp.float32)
    places = np.array([0, 8, 16])
    many = jnp.zeros((17, 30, 31), jnp.float32).at[places].set(few)  # three blocks of six, the last with one to spare
    weight = jnp.asarray(RANDOM.normal(size=(23, 3, 40)), jnp.float32)

    def cost(geometry, volume, places):
        centre, shifts = geometry
        moved = eqx.tree_at(lambda a: (a.centre, a.shifts), A, (centre, shifts))
        return jnp.sum(weight * moved(volume)[:, places] ** 2)

    run = jax.value_and_grad(cost, argnums=(0, 1))
    value, gradient = run((A.centre, A.shifts), many, places)
    expected, (geometry, volume) = run((A.centre, A.shifts), few, np.arange(3))
    np.testing.assert_allclose(value, expected, rtol=1e-4)
    for got, wanted in zip(gradient[0], geometry, strict=True):
        np.testing.assert_allclose(got, wanted, rtol=1e-3, atol=1e-3 * float(jnp.max(jnp.abs(wanted))))
    np.testing.assert_allclose(gradient[1][places], volume, atol=1e-4 * float(jnp.max(jnp.abs(volume))))
    assert dot_test(A, A.adjoint, many) < 1e-6


def test_vmap_over_volumes_and_sinograms():
    A = build(GEOMETRIES["odd"], jnp.float32)
    volumes = jnp.asarray(RANDOM.normal(size=(3, 4, *A.shape)), jnp.float32)  # twelve slices: two blocks
    sinograms = jax.vmap(A)(volumes)
    np.testing.assert_allclose(sinograms[2], A(volumes[2]), atol=1e-4)
    assert dot_test(jax.vmap(A), jax.vmap(A.adjoint), volumes) < 1e-6


def test_wider_window_converges():
    image = jnp.asarray(ellipse_image(64), jnp.float32)
    angles = np.linspace(0, np.pi, 20, endpoint=False)
    exact = ParallelProjector(angles, (64, 64), 64, kernel_width=12, oversampling=2, dtype=jnp.float32)(image)
    settings = {"oversampling": 2, "dtype": jnp.float32}
    operators = [ParallelProjector(angles, (64, 64), 64, kernel_width=w, **settings) for w in (3, 4, 6)]
    errors = [relative(A(image), exact) for A in operators]
    assert errors[0] < 1e-2 and errors[1] < 2e-3 and errors[2] < 2e-4


# Transpose


def test_transpose_float32(geometry):
    A = build(geometry, jnp.float32)
    volume = jnp.zeros((2, *A.shape), jnp.float32)
    assert dot_test(A, A.adjoint, volume) < 1e-6


def test_transpose_float64(geometry):
    with jax.enable_x64(True):
        A = build(geometry, jnp.float64)
        assert dot_test(A, A.adjoint, jnp.zeros((2, *A.shape), jnp.float64)) < 1e-12


@pytest.mark.parametrize("views", [[3, 4], [3, 4, 4, 9, 17, 1, 0]], ids=["scatter", "gather"])
def test_transpose_of_some_views(views):
    A, views = build(GEOMETRIES["shifted views in any order"], jnp.float32), jnp.asarray(views)
    volume = jnp.zeros(A.shape, jnp.float32)
    assert dot_test(lambda x: A(x, views), lambda y: A.adjoint(y, views), volume) < 1e-6


def test_transpose_without_tables(monkeypatch):
    A = build(GEOMETRIES["odd"], jnp.float32)
    monkeypatch.setattr(_gather, "_TABLE_LIMIT", 0)
    B = build(GEOMETRIES["odd"], jnp.float32)
    y = jnp.asarray(RANDOM.normal(size=(31, 41)), jnp.float32)
    assert B.tables is None
    assert relative(B.adjoint(y), A.adjoint(y)) < 1e-5


def test_operator_of_one_precision_follows_its_argument():
    with jax.enable_x64(True):
        A = build(GEOMETRIES["square"], jnp.float64)
        volume = jnp.ones((32, 32), jnp.float32)
        assert A(volume).dtype == jnp.float32 and A.adjoint(A(volume)).dtype == jnp.float32


# Derivatives. The costs are smooth in the geometry: central differences of 1e-4 are off by 1e-8, rounding by 1e-10.


def test_gradients_of_volume_centre_and_shifts():
    with jax.enable_x64(True):
        A = build(GEOMETRIES["shifted views in any order"], jnp.float64)
        image = jnp.asarray(RANDOM.normal(size=A.shape))
        weight = jnp.asarray(RANDOM.normal(size=(23, 40)))

        def cost(A, image):
            return jnp.sum(weight * A(image) ** 2)

        gradient = eqx.filter_grad(cost)(A, image)
        step = 1e-4

        def central(where, direction):
            moved = [eqx.tree_at(where, A, where(A) + sign * step * direction) for sign in (1, -1)]
            return (cost(moved[0], image) - cost(moved[1], image)) / (2 * step)

        direction = jnp.asarray(RANDOM.normal(size=23))
        np.testing.assert_allclose(gradient.centre, central(lambda a: a.centre, 1.0), rtol=1e-6)
        np.testing.assert_allclose(gradient.shifts @ direction, central(lambda a: a.shifts, direction), rtol=1e-6)
        by_hand = 2 * A.adjoint(weight * A(image))
        np.testing.assert_allclose(jax.grad(cost, argnums=1)(A, image), by_hand, rtol=1e-9, atol=1e-9)


def test_gradient_of_the_angles():
    with jax.enable_x64(True):
        angles = jnp.asarray([0.3, np.pi / 2, 1.9, 4.0])
        image = jnp.asarray(ellipse_image(24), jnp.float64)
        weight = jnp.asarray(RANDOM.normal(size=(4, 24)))

        def cost(angles):
            return jnp.sum(weight * project_parallel(image, angles, 12.3, kernel_width=7) ** 2)

        direction, step = jnp.asarray([1.0, -0.5, 0.7, 0.2]), 1e-4
        central = (cost(angles + step * direction) - cost(angles - step * direction)) / (2 * step)
        np.testing.assert_allclose(jax.grad(cost)(angles) @ direction, central, rtol=1e-4)


def test_functional_form_agrees_with_the_operator():
    angles = np.linspace(0, np.pi, 12, endpoint=False)
    image = jnp.asarray(ellipse_image(32), jnp.float32)
    A = ParallelProjector(angles, (32, 32), 40, centre=21.0, kernel_width=6, oversampling=2, dtype=jnp.float32)
    functional = project_parallel(image, jnp.asarray(angles, jnp.float32), 21.0, detector=40)
    assert relative(functional, A(image)) < 2e-3


def test_forward_mode_second_order_and_jit():
    A = build(GEOMETRIES["odd"], jnp.float32)
    x, dx = (jnp.asarray(RANDOM.normal(size=A.shape), jnp.float32) for _ in range(2))

    def cost(x):
        return 0.5 * jnp.sum(A(x) ** 2)

    value, tangent = jax.jvp(A, (x,), (dx,))
    np.testing.assert_allclose(tangent, A(dx), atol=1e-4)
    curvature = jax.jvp(jax.grad(cost), (x,), (dx,))[1]
    np.testing.assert_allclose(curvature, A.adjoint(A(dx)), rtol=1e-4, atol=1e-2)
    np.testing.assert_allclose(eqx.filter_jit(lambda A, x: A(x))(A, x), value, atol=1e-5)
    back = jax.grad(lambda y: jnp.sum(A.adjoint(y) * x))(A(x))
    np.testing.assert_allclose(back, A(x), atol=1e-3)


# Toeplitz


def test_toeplitz_is_exact_where_the_detector_sees_everything():
    with jax.enable_x64(True):
        angles = np.linspace(0, np.pi, 31, endpoint=False)
        A = ParallelProjector(angles, (24, 32), 96, kernel_width=12, oversampling=2)
        assert A.plan.period == 96
        volume = jnp.asarray(RANDOM.normal(size=(2, 24, 32)))
        weight = RANDOM.uniform(0.5, 2, 31)
        product = A.normal(weight, support="square", kernel_width=12)(volume)
        assert relative(product, A.adjoint(jnp.asarray(weight)[:, None, None] * A(volume))) < 1e-8


def test_toeplitz_of_a_disc_and_of_a_square_on_a_cropped_detector():
    angles = np.linspace(0, np.pi, 90, endpoint=False)
    A = ParallelProjector(angles, (64, 64), 64, kernel_width=6, oversampling=2, dtype=jnp.float32)
    y, x = np.mgrid[:64, :64] - 31.5
    disc = jnp.asarray(1 / (1 + np.exp(np.hypot(x, y) - 24)), jnp.float32)
    assert A.toeplitz_error(disc) < 1e-3
    assert A.toeplitz_error(jnp.ones((64, 64), jnp.float32)) > 1e-2
    with pytest.raises(InputError, match="sees a disc of radius 32"):
        A.normal(support="square")
    assert A.normal_is_exact()[0] and not A.normal_is_exact("square")[0] and A.normal_is_exact(20.0)[0]


def test_toeplitz_where_the_axis_or_a_shift_takes_the_object_out_of_view():
    angles = np.linspace(0, np.pi, 12, endpoint=False)
    off_axis = ParallelProjector(angles, (64, 64), 64, centre=20.0, dtype=jnp.float32)
    with pytest.raises(InputError, match=r"sees a disc of radius 20\.5 px only, the support has 32"):
        off_axis.normal()
    assert off_axis.normal_is_exact(20.0)[0]
    shifted = ParallelProjector(angles, (64, 64), 64, shifts=np.eye(12)[4] * 6.0, dtype=jnp.float32)
    exact, reason = shifted.normal_is_exact()
    assert not exact and "radius 26.0 px only" in reason
    assert ParallelProjector(angles, (64, 64), 76, shifts=np.eye(12)[4] * 6.0, dtype=jnp.float32).normal_is_exact()[0]


@pytest.mark.parametrize("shape", [(16, 16), (17, 24), (58, 20)])
def test_toeplitz_of_any_shape_and_several_slices(shape):
    with jax.enable_x64(True):
        A = ParallelProjector(np.linspace(0, 3, 13), shape, 96, kernel_width=12, oversampling=2)
        assert A.plan.period == 96  # the detector holds the whole ringing of the slice's edges
        volume = jnp.asarray(RANDOM.normal(size=(3, *shape)))
        assert relative(A.normal(support="square", kernel_width=12)(volume), A.adjoint(A(volume))) < 1e-8


def test_toeplitz_is_symmetric():
    N = build(GEOMETRIES["square"], jnp.float32).normal()
    assert dot_test(N, N.adjoint, jnp.zeros((32, 32), jnp.float32)) < 1e-6


# Wrong use


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([], (8, 8), 8), "angles"),
        (([np.nan], (8, 8), 8), "angles"),
        (([0.0], (8,), 8), "shape"),
        (([0.0], (8, 8), 1), "detector"),
    ],
)
def test_wrong_geometry_is_refused(arguments, message):
    with pytest.raises(InputError, match=message):
        ParallelProjector(*arguments)


def test_wrong_arrays_are_refused():
    A = ParallelProjector([0.0, 1.0], (8, 9), 10)
    with pytest.raises(InputError, match="slices"):
        A(jnp.ones((9, 8)))
    with pytest.raises(InputError, match="2 views of 10 columns"):
        A.adjoint(jnp.ones((3, 10)))
    with pytest.raises(InputError, match="shifts one a view"):
        ParallelProjector([0.0, 1.0], (8, 8), 8, shifts=[1.0])
    with pytest.raises(InputError, match="support"):
        A.normal(support="circle")
    for views in ([], [2], [0.5], [True, False, True]):
        with pytest.raises(InputError, match="subset of 2 views"):
            A.subset(views)
    with pytest.raises(InputError, match=r"outside jax\.jit"):
        eqx.filter_jit(lambda A: A.subset([0]))(A)


def test_angles_in_degrees_are_pointed_out():
    with pytest.warns(UserWarning, match="degrees"):
        ParallelProjector(np.arange(0, 180.0), (8, 8), 8)

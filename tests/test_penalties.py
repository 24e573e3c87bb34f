"""Penalties against closed forms, their gradients against finite differences, proximal maps against their
definition."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffrecon import penalties
from diffrecon.errors import InputError

RANDOM = np.random.default_rng(3)
PENALTIES = {
    "tv": lambda x: penalties.tv(x, eps=0.1),
    "tv anisotropic": lambda x: penalties.tv(x, eps=0.1, isotropic=False),
    "tv of a stack": lambda x: penalties.tv(x, eps=0.1, axes=(-1,)),
    "dirichlet": penalties.dirichlet,
    "laplacian": penalties.laplacian,
    "tikhonov": lambda x: penalties.tikhonov(x, 0.3),
    "l1": penalties.l1,
    "l1 smoothed": lambda x: penalties.l1(x, eps=0.1),
}


def image(shape, complex_numbers):
    x = RANDOM.normal(size=shape)
    return jnp.asarray(x + 1j * RANDOM.normal(size=shape) if complex_numbers else x)


@pytest.mark.parametrize("complex_numbers", [False, True])
@pytest.mark.parametrize("name", PENALTIES)
def test_gradient_belongs_to_the_value(name, complex_numbers):
    with jax.enable_x64(True):
        x, direction = (image((5, 6), complex_numbers) for _ in range(2))
        gradient = jnp.conj(jax.grad(PENALTIES[name])(x))
        slope = jnp.sum(jnp.real(jnp.conj(gradient) * direction))
        h = 1e-5  # truncation h^2 and rounding 1e-16 / h are both far below the tolerance
        differences = (PENALTIES[name](x + h * direction) - PENALTIES[name](x - h * direction)) / (2 * h)
        np.testing.assert_allclose(slope, differences, rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("name", PENALTIES)
@pytest.mark.parametrize("dtype", ["float32", "complex64"])
def test_gradient_of_a_flat_image_is_finite(name, dtype):
    x = jnp.zeros((4, 4), dtype)
    value, gradient = jax.value_and_grad(PENALTIES[name])(x)
    assert value.dtype == jnp.float32 and gradient.dtype == x.dtype
    assert bool(jnp.all(jnp.isfinite(gradient)))


def test_tv_is_the_perimeter_times_the_height():
    square = jnp.zeros((16, 16)).at[4:12, 5:11].set(3.0)
    # Forward differences: one of the four corners sees both edges at once and costs sqrt(2) instead of 2.
    assert float(penalties.tv(square, eps=1e-7)) * 256 == pytest.approx(3 * (2 * 8 + 2 * 6 - 2 + 2**0.5), rel=1e-4)
    assert float(penalties.tv(square, eps=1e-7, isotropic=False)) * 256 == pytest.approx(3 * (2 * 8 + 2 * 6), rel=1e-4)


def test_tv_is_quadratic_below_eps():
    ramp = 1e-3 * jnp.arange(8.0)
    assert float(penalties.tv(ramp, eps=1.0)) == pytest.approx(7 / 8 * 1e-6 / 2, rel=0.05)


def test_laplacian_and_dirichlet_of_a_ramp():
    ramp = jnp.broadcast_to(2.0 * jnp.arange(10.0), (10, 10))
    assert float(penalties.dirichlet(ramp)) == pytest.approx(0.5 * 4 * 9 / 10)
    inside = penalties.laplacian(ramp) - 0.5 * 2 * 4 / 10  # the two borders, where the slope begins and ends
    assert abs(float(inside)) < 1e-6


@pytest.mark.parametrize("complex_numbers", [False, True])
@pytest.mark.parametrize(
    ("prox", "value"),
    [
        (penalties.prox_l1, lambda y: jnp.sum(jnp.abs(y))),
    ],
)
def test_proximal_map_minimises_its_definition(prox, value, complex_numbers):
    with jax.enable_x64(True):
        x, weight = image((6, 7), complex_numbers), 0.4
        objective = lambda y: 0.5 * jnp.sum(jnp.abs(y - x) ** 2) + weight * value(y)
        best = prox(x, weight)
        for scale in (1e-1, 1e-2, 1e-3):
            for _ in range(10):
                assert objective(best) <= objective(best + scale * image(x.shape, complex_numbers)) + 1e-6


# ---------------------------------------------------------------------------------------- penalties as objects
OBJECTS = {
    "tv": penalties.TotalVariation(0.4),
    "tv of rows": penalties.TotalVariation(0.4, axes=(-1,)),
    "anisotropic tv": penalties.TotalVariation(0.4, isotropic=False),
    "huber tv": penalties.TotalVariation(0.4, huber=0.3),
    "tgv": penalties.GeneralisedVariation(0.4, ratio=1.5),
    "directional": penalties.DirectionalVariation(0.4, [[0.7, 0.7], [0.2, -0.2], [0.0, 0.5]]),
    "haar": penalties.WaveletSparsity(0.4, order=1, levels=2),
    "daubechies 2": penalties.WaveletSparsity(0.4, order=2, levels=2),
    "daubechies 3": penalties.WaveletSparsity(0.4, order=3, levels=1),
    "daubechies 4": penalties.WaveletSparsity(0.4, order=4, levels=2),
}


def primal(penalty, x, draw):
    return (x, jax.tree.map(draw, penalty.auxiliary(x))) if hasattr(penalty, "auxiliary") else x


def inner_product(a, b):
    return sum(jnp.sum(p * q) for p, q in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True))


@pytest.mark.parametrize("shape", [(8, 12), (3, 8, 8)])
@pytest.mark.parametrize("name", OBJECTS)
def test_synthesis_is_the_transpose_of_analysis(name, shape):
    with jax.enable_x64(True):
        penalty, draw = OBJECTS[name], lambda like: jnp.asarray(RANDOM.normal(size=like.shape))
        x = primal(penalty, draw(jnp.zeros(shape)), draw)
        fields = penalty.analyse(x)
        dual = jax.tree.map(draw, fields)
        np.testing.assert_allclose(inner_product(fields, dual), inner_product(x, penalty.synthesise(dual)), rtol=1e-6)


@pytest.mark.parametrize("name", OBJECTS)
def test_bound_is_no_less_than_the_norm(name):
    penalty, draw = OBJECTS[name], lambda like: jnp.asarray(RANDOM.normal(size=like.shape), jnp.float32)
    x = primal(penalty, draw(jnp.zeros((16, 16))), draw)
    x, size = jax.tree.map(lambda v: v / 16, x), 0.0
    for _ in range(60):
        y = penalty.synthesise(penalty.analyse(x))
        size = jnp.sqrt(inner_product(y, y) / inner_product(x, x))
        x = jax.tree.map(lambda v, scale=1 / size: scale * v, y)
    assert 0.3 * penalty.bound(x) < size <= 1.0001 * penalty.bound(x)


@pytest.mark.parametrize("name", [n for n in OBJECTS if n != "tgv"])
def test_proximal_map_of_objects_minimises_its_definition(name):
    with jax.enable_x64(True):
        penalty, x = OBJECTS[name], image((8, 8), False)
        objective = lambda y: 0.5 * jnp.sum((y - x) ** 2) + 0.7 * penalty.cost(y)
        best = penalty.prox(x, 0.7, penalty.start(x), steps=600)[0]
        assert objective(best) < objective(x)
        for scale in (1e-1, 1e-2, 1e-3):
            for _ in range(10):
                assert objective(best) <= objective(best + scale * image(x.shape, False)) + 1e-6


def test_bounds_and_warm_starts_of_the_proximal_map():
    penalty, x = OBJECTS["tv"], jnp.asarray(RANDOM.normal(size=(12, 12)), jnp.float32)
    best, state = penalty.prox(x, 1.0, penalty.start(x), steps=500, bounds=(0.0, 0.5))
    assert float(best.min()) == 0.0 and float(best.max()) == 0.5
    few, warm = x, penalty.start(x)
    for _ in range(200):
        few, warm = penalty.prox(x, 1.0, warm, steps=2, bounds=(0.0, 0.5))
    cold = penalty.prox(x, 1.0, penalty.start(x), steps=2, bounds=(0.0, 0.5))[0]
    assert jnp.linalg.norm(few - best) < 0.05 * jnp.linalg.norm(cold - best)


def test_generalised_variation_leaves_slopes_as_they_are():
    y, x = np.mgrid[:24, :24] / 24.0
    slope = jnp.asarray(0.5 * x + 0.3 * y, jnp.float32)
    noisy = slope + 0.05 * jnp.asarray(RANDOM.normal(size=slope.shape), jnp.float32)
    tgv, tv = penalties.GeneralisedVariation(1.0), penalties.TotalVariation(1.0)
    clean = tgv.prox(slope, 1.0, tgv.start(slope), steps=600)[0]
    np.testing.assert_allclose(clean, slope, atol=2e-3)
    errors = [float(jnp.linalg.norm(p.prox(noisy, 0.15, p.start(slope), steps=600)[0] - slope)) for p in (tgv, tv)]
    assert errors[0] < 0.6 * errors[1]


def test_generalised_variation_is_flat_on_affine_images():
    image = jnp.asarray(np.add.outer(np.arange(6.0), 2 * np.arange(7.0)), jnp.float32)
    field = tuple(jnp.full((6, 7), slope) for slope in (1.0, 2.0))
    assert float(penalties.GeneralisedVariation(1.0).cost((image, field))) < 1e-5


@pytest.mark.parametrize("order", [1, 2, 3, 4])
def test_wavelets_are_orthonormal_and_do_not_see_polynomials(order):
    penalty = penalties.WaveletSparsity(1.0, order=order, levels=1)
    x = jnp.asarray(RANDOM.normal(size=(16, 16)), jnp.float32)
    parts = penalty.analyse(x)
    np.testing.assert_allclose(inner_product(parts, parts), jnp.sum(x**2), rtol=1e-5)
    np.testing.assert_allclose(penalty.synthesise(parts), x, atol=1e-5)
    power = jnp.broadcast_to((jnp.arange(16.0) / 16) ** (order - 1), (16, 16))
    along_x = penalty.analyse(power)[0][1]
    assert float(jnp.abs(along_x[:, : -(order - 1) or None]).max()) < 1e-5  # the border wraps round


def test_cycle_spinning_moves_the_grid():
    penalty = penalties.WaveletSparsity(0.3, order=1, levels=3)
    step = jnp.zeros((8, 8)).at[:, 3:].set(1.0)
    state, seen = penalty.start(step), set()
    for _ in range(8):
        out, state = penalty.prox(step, 1.0, state)
        seen.add(round(float(jnp.sum(jnp.abs(out - step))), 4))
    assert int(state) == 8 and len(seen) > 1


def test_directional_variation_keeps_layers():
    layers = jnp.broadcast_to(jnp.asarray(RANDOM.normal(size=16), jnp.float32)[:, None], (16, 16))
    noisy = layers + 0.3 * jnp.asarray(RANDOM.normal(size=(16, 16)), jnp.float32)
    directional, tv = penalties.DirectionalVariation(1.0, [[0.0, 1.0], [0.05, 0.0]]), penalties.TotalVariation(0.3)
    errors = [
        float(jnp.linalg.norm(p.prox(noisy, 1.0, p.start(noisy), steps=400)[0] - layers)) for p in (directional, tv)
    ]
    assert errors[0] < 0.5 * errors[1]


def test_penalty_objects_refuse_nonsense():
    with pytest.raises(InputError, match="weight"):
        penalties.TotalVariation(-1.0)
    with pytest.raises(InputError, match="weight"):
        penalties.GeneralisedVariation(np.nan)
    with pytest.raises(InputError, match="order"):
        penalties.WaveletSparsity(1.0, order=7)
    with pytest.raises(InputError, match="even"):
        penalties.WaveletSparsity(1.0).start(jnp.zeros((5, 8)))
    with pytest.raises(InputError, match="directions"):
        penalties.DirectionalVariation(1.0, [0.0, 1.0])


def test_prior_of_sparse_edges_at_its_most_likely_weight():
    """Without a weight its gradient is that with the weight 2 / mean |d|, whatever the scale of the image."""
    image = np.zeros((16, 16), np.float32)
    image[4:9, 6:12] = 3.0
    free = penalties.SparseEdges(None, image.size, 100, small=1e-4)
    mean = penalties.tv(jnp.asarray(image), eps=1e-4, axes=(-2, -1))
    fixed = penalties.SparseEdges(2 / float(mean), image.size, 100, small=1e-4)
    np.testing.assert_allclose(jax.grad(free)(image), jax.grad(fixed)(image), rtol=2e-3, atol=1e-6)
    differ = lambda prior: float(prior(2.0 * image) - prior(image))
    assert differ(free) == pytest.approx(image.size / 100 * np.log(2), rel=1e-2)

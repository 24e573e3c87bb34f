"""FISTA, primal-dual, the choice of a weight and the normal equations, on small tomograms of known answer."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tomograms import BEADS, HEAD, error, scan

from diffrecon import penalties, solvers
from diffrecon.errors import InputError
from diffrecon.operators import ParallelProjector
from diffrecon.solvers import choose_weight, fista, normal_equations, primal_dual

N = 48
STEP = jnp.repeat(jnp.array([0.0, 1.0]), 8)


@pytest.fixture(scope="module")
def few_views():
    return scan(HEAD, N, 24, noise=0.01, columns=64)


@pytest.fixture(scope="module")
def equations(few_views):
    A, b, *_ = few_views
    return normal_equations(A, b)


def identity(x):
    return x


# ---------------------------------------------------------------------------------------- fista
def test_fista_solves_the_closed_form():
    found = fista(identity, STEP, penalties.TotalVariation(0.8), x0=jnp.zeros(16), steps=100)
    np.testing.assert_allclose(found.x, np.repeat([0.1, 0.9], 8), atol=2e-3)
    exact = np.linalg.norm(found.x - STEP) / np.linalg.norm(STEP)
    assert float(found.history[-1]) == pytest.approx(exact, rel=1e-3)


def test_fista_takes_any_function_as_prox():
    a = jnp.asarray(np.random.default_rng(0).normal(size=(20, 10)), jnp.float32)
    truth = jnp.zeros(10).at[3].set(2.0)
    found = fista(
        lambda x: a @ x, a @ truth, lambda x, step: penalties.prox_l1(x, 0.01 * step), x0=jnp.zeros(10), steps=200
    ).x
    np.testing.assert_allclose(found, truth, atol=5e-3)
    gradient = a.T @ (a @ found - a @ truth)
    assert float(jnp.max(jnp.abs(gradient))) < 0.0101  # optimality of l1


def test_fista_minimises_least_squares_within_bounds():
    a = np.random.default_rng(1).normal(size=(12, 4)).astype("f4")
    b = (a @ [1.0, -1.0, 0.5, 2.0]).astype("f4")
    found = np.asarray(fista(lambda x: a @ x, jnp.asarray(b), x0=jnp.zeros(4), bounds=(0.0, 1.5), steps=300).x)
    gradient = a.T @ (a @ found - b)
    inside = (found > 1e-6) & (found < 1.5 - 1e-6)
    assert found.min() >= 0 and found.max() <= 1.5
    np.testing.assert_allclose(gradient[inside], 0, atol=1e-3)
    assert (gradient[found <= 1e-6] > -1e-3).all() and (gradient[found >= 1.5 - 1e-6] < 1e-3).all()


def test_too_small_a_lipschitz_constant_is_raised():
    a = jnp.diag(jnp.array([1.0, 10.0]))
    found = fista(lambda x: a @ x, jnp.ones(2), x0=jnp.zeros(2), lipschitz=5.0, steps=300)
    np.testing.assert_allclose(found.x, [1.0, 0.1], rtol=1e-2)


def test_total_variation_beats_filtered_back_projection(few_views, equations):
    A, b, truth, _ = few_views
    found = fista(A, b, penalties.TotalVariation(0.3), bounds=(0.0, None), normal=equations, steps=100)
    assert error(found.x, truth) < error(solvers.fbp(A, b), truth) / 2.5
    assert float(found.x.min()) >= 0
    residual = jnp.linalg.norm(A(found.x) - b) / jnp.linalg.norm(b)
    assert float(found.history[-1]) == pytest.approx(float(residual), rel=1e-3)


@pytest.mark.parametrize(
    "penalty",
    [
        penalties.GeneralisedVariation(0.3),
        penalties.WaveletSparsity(0.3),
        penalties.DirectionalVariation(0.2, [[0.0, 1.0], [1.0, 0.0], [0.7, 0.7], [0.7, -0.7]]),
    ],
)
def test_every_penalty_beats_none(few_views, equations, penalty):
    A, b, truth, _ = few_views
    errors = [error(fista(A, b, p, normal=equations, steps=60).x, truth) for p in (penalty, None)]
    assert errors[0] < 0.8 * errors[1]


# ---------------------------------------------------------------------------------------- normal equations
def test_convolution_is_the_exact_product_and_is_said(few_views, equations):
    A, b, truth, _ = few_views
    assert equations.toeplitz and "convolution" in equations.message
    x = jnp.asarray(truth)
    exact = A.adjoint(A(x))
    product = equations.outside(equations.product(equations.inside(x)))
    may_differ = np.asarray(equations.mask) > 0
    assert error(product[may_differ], np.asarray(exact)[may_differ]) < 1e-3
    np.testing.assert_allclose(float(equations.b_squared), float(jnp.sum(b**2)), rtol=1e-4)


def test_small_samples_are_cut_out():
    angles = np.linspace(0, np.pi, 30, endpoint=False)
    A = ParallelProjector(angles, (96, 96), 96)
    disc = jnp.asarray(np.hypot(*np.mgrid[-48:48, -48:48]) < 12, jnp.float32)
    equations = normal_equations(A, A(disc))
    assert equations.rhs.shape[-1] == 64 and "air" in equations.message
    whole = solvers.cgls(A, A(disc), steps=8).x
    cut = solvers.cgls(A, A(disc), steps=8, normal=equations)
    assert cut.x.shape == (96, 96)
    assert error(cut.x, np.asarray(disc)) < 1.02 * error(whole, np.asarray(disc))
    residual = jnp.linalg.norm(A(cut.x) - A(disc)) / jnp.linalg.norm(A(disc))
    # Its square is a difference of sums of size one, each right to 2e-7: 7e-3 of 3.4e-5, half of that in the root.
    assert float(cut.history[-1]) == pytest.approx(float(residual), rel=4e-3)


def test_no_convolution_where_it_is_not_one(few_views):
    A, b, *_ = few_views
    cut = ParallelProjector(np.asarray(A.angles), (N, N), 32)
    wide = normal_equations(cut, b[:, 16:48])
    assert not wide.toeplitz and "edge of the detector" in wide.message
    uneven = normal_equations(A, b, weights=np.random.default_rng(0).uniform(0.5, 1, b.shape))
    assert not uneven.toeplitz and "ray to ray" in uneven.message
    assert not normal_equations(A, b, support="exact").toeplitz
    assert normal_equations(A, b, weights=np.linspace(0.5, 1, 24)).toeplitz
    assert not normal_equations(lambda x: A(x), b, x0=jnp.zeros((N, N))).toeplitz


# ---------------------------------------------------------------------------------------- primal-dual
@pytest.mark.parametrize("data", [None, solvers.LeastSquares()])
def test_primal_dual_solves_the_closed_form(data):
    found = primal_dual(identity, STEP, penalties.TotalVariation(0.8), data=data, x0=jnp.zeros(16), steps=600)
    np.testing.assert_allclose(found.x, np.repeat([0.1, 0.9], 8), atol=2e-3)


def test_primal_dual_and_fista_agree(few_views, equations):
    A, b, *_ = few_views
    for penalty in (penalties.TotalVariation(0.3), penalties.GeneralisedVariation(0.3)):
        first = primal_dual(A, b, penalty, bounds=(0.0, None), steps=400).x
        second = fista(A, b, penalty, bounds=(0.0, None), inner=5, steps=200, normal=equations).x
        assert error(first, np.asarray(second)) < 0.03


def test_huber_data_forget_outliers(few_views):
    A, b, truth, sigma = few_views
    spoilt = b.at[::5, ::7].add(8.0)
    solve = lambda data: primal_dual(A, spoilt, penalties.TotalVariation(0.3), data=data, steps=300).x
    assert error(solve(solvers.Huber(3 * float(sigma))), truth) < 0.5 * error(solve(None), truth)


def test_poisson_data_satisfy_their_optimality():
    a = np.random.default_rng(2).uniform(0.1, 1, (12, 4)).astype("f4")
    counts = np.random.default_rng(2).poisson(a @ [20.0, 10, 30, 5] + 2).astype("f4")
    found = primal_dual(
        lambda x: jnp.asarray(a) @ x,
        jnp.asarray(counts),
        data=solvers.Poisson(2.0),
        x0=jnp.ones(4),
        bounds=(0.0, None),
        balance=0.05,
        steps=5000,
    ).x
    gradient = a.T @ (1 - counts / (a @ np.asarray(found) + 2))
    inside = np.asarray(found) > 1e-3
    np.testing.assert_allclose(gradient[inside], 0, atol=2e-3)
    assert (gradient[~inside] > -2e-3).all()


def test_generalised_variation_is_better_on_a_slope():
    y, x = np.mgrid[:N, :N] / N - 0.5
    truth = np.where(np.hypot(x, y) < 0.4, 1 + 1.5 * x, 0)
    angles = np.linspace(0, np.pi, 16, endpoint=False)
    A = ParallelProjector(angles, (N, N), 64)
    b = A(jnp.asarray(truth, jnp.float32))
    b = b + 0.4 * jax.random.normal(jax.random.key(0), b.shape)
    best = {}
    for kind in (penalties.TotalVariation, penalties.GeneralisedVariation):
        best[kind] = min(error(fista(A, b, kind(w), inner=4, steps=80).x, truth) for w in (0.7, 1.4, 2.8))
    assert best[penalties.GeneralisedVariation] < 0.95 * best[penalties.TotalVariation]


# ---------------------------------------------------------------------------------------- the weight
@pytest.mark.parametrize(
    "noise, ellipses",
    [
        (0.02, HEAD),
        (0.005, BEADS),
    ],
)
def test_chosen_weight_is_near_the_best(noise, ellipses):
    A, b, truth, sigma = scan(ellipses, N, 30, noise=noise, seed=7, columns=64)
    choice = choose_weight(A, b, penalties.TotalVariation(), bounds=(0.0, None), steps=60, final_steps=60)
    best = min(
        error(fista(A, b, penalties.TotalVariation(w), bounds=(0.0, None), steps=60).x, truth)
        for w in choice.weight * np.array([0.25, 0.5, 1, 2, 4])
    )
    assert error(choice.solution.x, truth) < 1.25 * best
    assert choice.weights.shape == choice.residuals.shape and np.all(np.diff(choice.weights) > 0)
    assert "held out" in choice.message


def test_discrepancy_takes_the_residual_of_the_noise():
    A, b, truth, sigma = scan(HEAD, N, 30, noise=0.03, seed=1, columns=64)
    choice = choose_weight(
        A, b, penalties.TotalVariation(), method="discrepancy", noise=float(sigma), steps=60, final_steps=60
    )
    assert choice.target is not None
    assert float(choice.solution.history[-1]) == pytest.approx(choice.target, rel=0.05)
    tiny = choose_weight(A, b, penalties.TotalVariation(), method="discrepancy", noise=1e-6, steps=60, final_steps=60)
    assert "model's error" in tiny.message


def test_wrong_use_of_penalties_is_refused(few_views):
    A, b, *_ = few_views
    with pytest.raises(InputError, match="prox"):
        fista(A, b, 3.0)
    with pytest.raises(InputError, match="support"):
        fista(A, b, normal="toeplitz")
    with pytest.raises(InputError, match="diffrecon.penalties"):
        primal_dual(A, b, lambda x, step: x)
    with pytest.raises(InputError, match="counts"):
        primal_dual(A, -jnp.abs(b), data=solvers.Poisson())
    with pytest.raises(InputError, match="noise"):
        choose_weight(A, b, penalties.TotalVariation(), method="discrepancy")
    with pytest.raises(InputError, match="held-out"):
        choose_weight(A, b, penalties.TotalVariation(), method="l-curve")
    with pytest.raises(InputError, match="weights"):
        fista(A, b, weights=-jnp.ones_like(b))

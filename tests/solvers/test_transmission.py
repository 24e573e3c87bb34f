"""Poisson likelihood of raw counts."""

import jax.numpy as jnp
import numpy as np
import optax
import pytest
from tomograms import HEAD, error, image, line_integrals

import diffrecon as dr
from diffrecon import penalties, solvers
from diffrecon.errors import InputError

N, VIEWS, DARK = 48, 40, 1.0
ANGLES = np.arange(VIEWS) * np.pi / VIEWS
EXACT = line_integrals(HEAD, N, ANGLES)
SCALE = 3.5 / EXACT.max()
TRUTH = image(HEAD, N) * SCALE


@pytest.fixture(scope="module")
def A():
    return dr.operators.ParallelProjector(ANGLES, (N, N), N, dtype=jnp.float32)


def counted(flat, seed=0):
    return np.random.default_rng(seed).poisson(flat * np.exp(-EXACT * SCALE) + DARK)


@pytest.mark.parametrize("flat", [10.0, 40.0])
def test_likelihood_beats_the_logarithm_at_low_counts(A, flat):
    counts = counted(flat)
    net = np.clip(counts - DARK, 0.5, None)
    logarithm, variances = np.log(flat / net).astype("f4"), ((net + DARK) / net**2).astype("f4")
    ladder = flat * np.array([0.1, 0.25, 0.6, 1.5])
    of_counts = [solvers.transmission(A, counts, flat, DARK, penalties.TotalVariation(w)).x for w in ladder]
    of_log = [
        solvers.fista(A, logarithm, penalties.TotalVariation(w), weights=1 / variances, bounds=(0.0, None)).x
        for w in ladder
    ]
    best, best_of_log = (min(error(x, TRUTH) for x in xs) for xs in (of_counts, of_log))
    assert best < 0.9 * best_of_log


def test_many_counts_give_weighted_least_squares(A):
    flat = 1000.0
    counts = counted(flat)
    net = counts - DARK
    penalty = penalties.TotalVariation(30.0)
    found = solvers.transmission(A, counts, flat, DARK, penalty, inner=100).x
    least_squares = solvers.fista(
        A,
        np.log(flat / net).astype("f4"),
        penalty,
        weights=(net**2 / counts).astype("f4"),
        bounds=(0.0, None),
        steps=400,
    ).x
    assert error(found, np.asarray(least_squares)) < 0.06


def test_cost_falls_and_masked_data_do_not_count(A):
    counts = counted(40.0)
    mask = np.ones(counts.shape, bool)
    mask[3:6, 10:20] = False
    spoilt = np.where(mask, counts, 60000)
    seen = []
    penalty = penalties.TotalVariation(10.0)
    found = solvers.transmission(
        A,
        spoilt,
        40.0,
        DARK,
        penalty,
        mask=mask,
        steps=4,
        callback=lambda report: seen.append((report.value, report.loss)),
    )

    def cost(x):
        expected = 40.0 * np.exp(-np.asarray(A(x), np.float64)) + DARK
        return np.sum((expected - counts * np.log(expected))[mask]) + float(penalty.cost(x))

    costs = [cost(x) for x, _ in seen]
    assert all(b < a + 1.0 for a, b in zip(costs[:-1], costs[1:], strict=True))
    assert float(found.history[-1]) == pytest.approx(1.0, abs=0.25)
    assert error(found.x, TRUTH) < 0.4


def test_stops_for_the_callback_and_refuses_nonsense(A):
    counts = counted(40.0)
    stopped = solvers.transmission(A, counts, 40.0, DARK, steps=3, inner=3, callback=lambda *_: True)
    assert "callback" in stopped.message and np.isnan(float(stopped.history[-1]))
    with pytest.raises(InputError, match="negative"):
        solvers.transmission(A, counts - 5, 40.0)
    with pytest.raises(InputError, match="flats"):
        solvers.transmission(A, counts, 0.0)
    with pytest.raises(InputError, match="shape"):
        solvers.transmission(A, counts, np.ones(7))


def test_model_minimised_with_the_poisson_loss(A):
    flat = 40.0
    model = dr.models.TransmissionTomography(jnp.zeros((1, N, N)), A, flat, DARK)
    counts = counted(flat)[:, None]
    cost = lambda m, b: (dr.losses.poisson(m(b.views), b.counts) + 4.0 * dr.penalties.tv(m.volume, eps=1e-3))
    rate = optax.cosine_decay_schedule(0.01, 150, 0.05)
    found = dr.minimise(cost, model, {"counts": counts}, optax.adam(rate), steps=150, unknowns=("volume",)).value
    assert error(found.volume[0], TRUTH) < 0.45

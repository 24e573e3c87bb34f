"""Levenberg-Marquardt: blocks, priors and endings (its answers are checked with all solvers in test_minimise.py)."""

import jax.numpy as jnp
import numpy as np
import pytest
from problems import PROBLEMS, relative_error

import diffrecon as dr
from diffrecon.solvers import Ending, levenberg_marquardt

CURVE = PROBLEMS["curve"]


def test_blocks_of_views_do_not_change_the_numbers():
    """Twenty views in blocks of 20, 7 (the last one is filled up) and 3."""
    whole = levenberg_marquardt(CURVE.residual, CURVE.start, CURVE.data, steps=4, block_size=20, tolerance=0.0)
    for size in (7, 3):
        blocks = levenberg_marquardt(CURVE.residual, CURVE.start, CURVE.data, steps=4, block_size=size, tolerance=0.0)
        # The scaling is estimated with other random signs: steps differ, the cost of a start and the answer do not.
        assert relative_error(blocks.value, CURVE.answer) < 0.05 and blocks.history[-1] < whole.history[0]
    linear = PROBLEMS["linear"]
    ends = [
        levenberg_marquardt(linear.residual, linear.start, linear.data, steps=12, block_size=size, damping=1e-6).value
        for size in (12, 5)
    ]
    np.testing.assert_allclose(ends[0], ends[1], atol=2e-4)


def test_held_out_views_are_not_fitted():
    data = {name: values.copy() for name, values in CURVE.data.items()}
    data["y"][[3, 11]] = 50.0
    solution = levenberg_marquardt(CURVE.residual, CURVE.start, data, steps=30, held_out=[3, 11], tolerance=0.0)
    assert relative_error(solution.value, CURVE.answer) < 1e-3
    expected = 0.25 * np.sum((data["y"] - 3 * np.exp(-1.5 * data["t"]))[[3, 11]] ** 2)
    assert solution.held_out[-1, 1] == pytest.approx(expected, rel=1e-2)


def test_prior_is_added_once():
    """`sum_i (x - 4)^2 / 2 + w^2 x^2 / 2` over five views has its minimum at `20 / (5 + w^2)`."""
    solution = levenberg_marquardt(
        lambda x, b: b.y - x,
        jnp.zeros(1),
        {"y": np.full((5, 1), 4.0, np.float32)},
        prior=lambda x: jnp.sqrt(5.0) * x,
        steps=20,
        tolerance=0.0,
    )
    # The cost of 20 is known to 1.2e-6 in float32, and 5 dx^2 = 1.2e-6 at dx = 4.9e-4: no step below it can be told.
    assert float(solution.value[0]) == pytest.approx(2.0, abs=4.9e-4)


def test_cost_never_rises_and_the_ending_is_said():
    rosenbrock = PROBLEMS["rosenbrock"]
    solution = levenberg_marquardt(rosenbrock.residual, rosenbrock.start, steps=60)
    assert np.all(np.diff(solution.history) <= 0)
    stopped = levenberg_marquardt(CURVE.residual, CURVE.start, CURVE.data, steps=9, callback=lambda p: p.step == 3)
    assert stopped.ending is Ending.STOPPED and len(stopped.history) == 3


def test_project_and_unknowns():
    start = {"amplitude": jnp.asarray(1.0), "rate": jnp.asarray(1.5)}
    solution = levenberg_marquardt(
        CURVE.residual,
        start,
        CURVE.data,
        steps=20,
        unknowns=("amplitude",),
        project=lambda x: x | {"amplitude": jnp.minimum(x["amplitude"], 2.5)},
    )
    assert float(solution.value["amplitude"]) == 2.5 and float(solution.value["rate"]) == 1.5


def test_interrupt_returns_the_best_so_far():
    def stop(report):
        if report.step == 2:
            raise KeyboardInterrupt

    solution = levenberg_marquardt(CURVE.residual, CURVE.start, CURVE.data, steps=9, callback=stop)
    assert solution.ending is Ending.INTERRUPTED and solution.detail == "after 2 steps"


def test_first_guess_that_is_not_finite_is_refused():
    with pytest.raises(dr.InputError, match="first guess is not finite"):
        levenberg_marquardt(lambda x, b: jnp.log(x), -jnp.ones(2), steps=2)

"""Ctrl-C in the middle of a solve: the best state comes back, and loops around the solver end, too."""

import io

import jax.numpy as jnp
import numpy as np
import pytest

from diffrecon import penalties
from diffrecon._console import Console
from diffrecon.operators import ParallelProjector
from diffrecon.solvers import SliceOptions, cgls, choose_weight, fista, solve_slices, transmission
from diffrecon.solvers.ending import Ending, Interrupted

A = ParallelProjector(np.linspace(0, np.pi, 16, endpoint=False), (16, 16), 16)
DISC = jnp.asarray(np.hypot(*np.mgrid[-8:8, -8:8]) < 5, jnp.float32)
DATA = A(DISC) + 0.01 * jnp.asarray(np.random.default_rng(0).normal(size=(16, 16)), jnp.float32)


def ctrl_c(*_, **__):
    raise KeyboardInterrupt


@pytest.mark.parametrize(
    "solve",
    [
        lambda: cgls(A, DATA, steps=100, callback=ctrl_c),
        lambda: fista(A, DATA, penalties.TotalVariation(0.01), steps=100, callback=ctrl_c),
        lambda: transmission(A, 100 * jnp.exp(-0.1 * DATA), 100.0, 0.0, steps=4, callback=ctrl_c),
    ],
)
def test_the_best_state_comes_with_the_interruption(solve):
    with pytest.raises(Interrupted) as caught:
        solve()
    solution = caught.value.solution
    assert solution.ending is Ending.INTERRUPTED and "interrupted after step" in solution.message
    assert 0 < np.isfinite(solution.history).sum() < solution.history.size


def test_a_search_for_the_weight_ends_with_the_last_trial():
    with pytest.raises(Interrupted) as caught:
        choose_weight(A, DATA, penalties.TotalVariation(), steps=20, tried=ctrl_c)
    choice = caught.value.solution
    assert choice.solution.ending is Ending.INTERRUPTED and "interrupted while the weight was chosen" in choice.message
    assert choice.weights == [choice.weight]
    assert np.linalg.norm(choice.solution.x - DISC) < 0.9 * np.linalg.norm(DISC)


@pytest.mark.parametrize("name", ["sirt", "fista", "primal-dual"])
def test_slices_keep_what_there_is(name):
    class Stops(Console):
        def progress(self, total, label):
            line = super().progress(total, label)
            line.update = ctrl_c
            return line

    lines = DATA[:, None]
    solved = solve_slices(A, lines, SliceOptions(name=name), console=Stops(quiet=True, stream=io.StringIO()))
    assert solved.ending is Ending.INTERRUPTED and solved.volume.shape == (1, 16, 16)
    assert any("interrupted" in message for message in solved.messages)
    assert np.linalg.norm(A(solved.volume) - lines) < 0.9 * np.linalg.norm(lines)

"""Strips against exact chords, absorption against closed forms, the transpose; SIRT of all channels."""

import jax.numpy as jnp
import numpy as np
import pytest

from diffrecon.errors import InputError
from diffrecon.operators import Grid, StripProjector, absorption_factors, dot_test
from diffrecon.solvers import sirt_patterns

ANGLES = np.linspace(0.1, 3.0, 7)
GRID = Grid(16, 2, 8.0)


def test_projections_of_a_disc_are_its_chords():
    """A disc of pixels against chords averaged over the width of the beam: but for its ragged edge."""
    y, x = GRID.places
    inside = ((y - 1) ** 2 + (x + 0.5) ** 2 < 25).astype(np.float32)
    found = np.asarray(StripProjector(ANGLES, GRID, 7.2)(jnp.asarray(inside)[None]))[:, 0, :, 0]
    fine = (np.arange(16 * 50) + 0.5) / 50 - 0.5
    for view, angle in enumerate(ANGLES):
        middle = 7.2 - 0.5 * np.cos(angle) + np.sin(angle)
        chords = 2 * np.sqrt(np.maximum(25 - (fine - middle) ** 2, 0)).reshape(16, 50).mean(1)
        assert np.abs(found[view] - chords).max() < 0.35
        assert found[view].sum() == pytest.approx(inside.sum() / 4, rel=1e-4)


def test_absorption_of_a_uniform_rod():
    """Straight ways in and out through a disc at small angles add up to the chord; at the middle they are radii."""
    mu, grid = 0.05, Grid(24, 2, 10.0)
    image = np.asarray(grid.image(np.full(int(grid.inside.sum()), mu)))
    factors = absorption_factors(image, ANGLES, grid, [1e-3, 0.3])
    y, x = grid.places
    for view, angle in enumerate(ANGLES):
        u = x * np.cos(angle) + y * np.sin(angle)
        expected = np.exp(-mu * 2 * np.sqrt(np.maximum(100 - u**2, 0)))
        inner = np.hypot(x, y) < 8
        # The disc of pixels has two ragged edges of half a pixel.
        np.testing.assert_allclose(factors[view, 0][inner], expected[inner], rtol=0.025)
    middle = np.hypot(x, y).argmin()
    # In the plane the way out is a radius; out of it the rod goes on: the radius over the cosine to the plane.
    chi = np.linspace(0, np.pi, 2000)
    ways = 10 / np.sqrt(1 - (np.sin(0.3) * np.sin(chi)) ** 2)
    assert factors[0, 1][middle] == pytest.approx(np.exp(-mu * 10) * np.exp(-mu * ways).mean(), rel=0.015)


@pytest.mark.parametrize("by_view", [False, True])
def test_transpose(by_view):
    factors = np.random.default_rng(0).random((7, 3, int(GRID.inside.sum())))
    A = StripProjector(ANGLES, GRID, 7.5, factors)
    x = jnp.zeros(((7,) if by_view else ()) + (4, int(GRID.inside.sum())))
    import diffrecon.operators as op

    assert dot_test(A, op.adjoint_of(A, x), x) < 1e-6
    if not by_view:
        assert dot_test(A, A.adjoint, x) < 1e-6


def test_sirt_of_all_channels_is_sirt():
    """The matrix against the iteration as it is written down."""
    rng = np.random.default_rng(1)
    table = np.asarray(StripProjector(ANGLES, Grid(10, 1, 5.0), 4.5).table)[:, 0]
    rays, data = table.reshape(-1, table.shape[-1]).astype(float), rng.random((70, 3))
    long = rays.sum(1)
    R, C = np.where(long > 0.02 * long.max(), 1 / np.maximum(long, 1e-9), 0), 1 / rays.sum(0)
    x = np.zeros((rays.shape[1], 3))
    for _ in range(20):
        x = np.maximum(x + C[:, None] * (rays.T @ (R[:, None] * (data - rays @ x))), 0)
    found = sirt_patterns(jnp.asarray(table), jnp.asarray(data.reshape(7, 10, 3), jnp.float32), 20)
    np.testing.assert_allclose(found, x, atol=2e-5 * x.max())


def test_wrong_factors_are_refused():
    with pytest.raises(InputError, match="factors of"):
        StripProjector(ANGLES, GRID, 7.5, np.ones((3, 1, 5)))

"""The closed form of the noise of a filtered back-projection against its Monte Carlo."""

import jax.numpy as jnp
import numpy as np
import pytest

from diffrecon import quality
from diffrecon.errors import InputError
from diffrecon.operators import ParallelProjector
from diffrecon.solvers import fbp, fbp_deviation

N, VIEWS = 40, 60
DISC = np.hypot(*np.meshgrid(*[np.arange(N) - (N - 1) / 2] * 2)) < N / 2 - 3


def projector(angles):
    return ParallelProjector(angles, (N, N), N, centre=19.9)


ANGLES = {
    "half turn": np.linspace(0, np.pi, VIEWS, endpoint=False),
    "whole turn": np.linspace(0, 2 * np.pi, VIEWS, endpoint=False),
    "uneven": np.sort(np.random.default_rng(1).uniform(0, np.pi, VIEWS)),
}


@pytest.mark.parametrize("name, filter", [("half turn", "ramp"), ("whole turn", "hann 0.7"), ("uneven", "ramp")])
def test_deviation_is_that_of_many_draws(name, filter):
    """Variances that differ from ray to ray by a factor of 20, as behind a dense specimen."""
    angles = ANGLES[name]
    how = {"filter": "hann", "cutoff": 0.7} if filter == "hann 0.7" else {}
    A = projector(angles)
    u = np.arange(N) - (N - 1) / 2
    variance = 0.01 * np.exp(3 * np.exp(-((u / 10) ** 2))[None] * (1 + 0.3 * np.cos(2 * angles))[:, None])
    draws = 300
    noise = np.random.default_rng(0).normal(size=(VIEWS, draws, N)) * np.sqrt(variance)[:, None]
    measured = np.asarray(fbp(A, jnp.asarray(noise, jnp.float32), **how)).std(0)
    expected = np.asarray(fbp_deviation(A, jnp.asarray(variance, jnp.float32), **how))
    ratio = (expected / measured)[DISC]
    # One voxel's measured deviation scatters by 1 / sqrt(2 draws) = 4 %.
    assert abs(np.mean(ratio) - 1) < 0.02 and ratio.std() < 0.05


def test_even_rays_give_the_textbook_number():
    """pi / sqrt(12 M), lowered by the transfer of voxels (0.7 %) and the one frequency left out."""
    deviation = fbp_deviation(projector(ANGLES["half turn"]), jnp.full((VIEWS, 2, N), 0.04))
    assert deviation.shape == (2, N, N)
    assert deviation[1, N // 2, N // 2] == pytest.approx(0.2 * np.pi / np.sqrt(12 * VIEWS), rel=0.04)


@pytest.mark.parametrize("wrong", [-1.0, np.nan, np.inf])
def test_variance_must_be_one(wrong):
    with pytest.raises(InputError, match="variance"):
        fbp_deviation(projector(ANGLES["uneven"]), jnp.full((VIEWS, N), wrong))


@pytest.mark.parametrize("shape", [(VIEWS, N + 1), (VIEWS - 1, N), (VIEWS * N,)])
def test_a_variance_of_wrong_shape_is_refused(shape):
    with pytest.raises(InputError, match="views"):
        fbp_deviation(projector(ANGLES["uneven"]), jnp.ones(shape))


def test_unknown_filter():
    with pytest.raises(InputError, match="filter"):
        fbp_deviation(projector(ANGLES["uneven"]), jnp.ones((VIEWS, N)), filter="rump")


def test_bootstrap_of_counts_agrees():
    """From counts: the variance of the logarithm through the closed form, and reconstructions from redrawn counts."""
    angles = ANGLES["half turn"]
    A = projector(angles)
    u = np.arange(N) - (N - 1) / 2
    chord = 0.06 * 2 * np.sqrt(np.clip(15.0**2 - u**2, 0, None))
    counts = np.random.default_rng(2).poisson(np.broadcast_to(2000 * np.exp(-chord) + 50, (VIEWS, N)))

    def reconstruct(counts):
        return fbp(A, jnp.asarray(-np.log((counts - 50) / 2000), jnp.float32))

    bars = quality.bootstrap_photons(reconstruct, counts, draws=40)
    variance = quality.line_integral_variance(counts, 2050.0, 50.0)
    ratio = np.asarray(fbp_deviation(A, jnp.asarray(variance, jnp.float32)))[DISC] / bars.deviation[DISC]
    assert abs(ratio.mean() - 1) < 0.04
    assert np.corrcoef(bars.mean[DISC], np.asarray(reconstruct(counts))[DISC])[0, 1] > 0.98

"""A volume with a time axis against exact sinograms of moving discs."""

import jax.numpy as jnp
import numpy as np
import optax
import pytest

from diffrecon import minimise, penalties
from diffrecon.errors import InputError
from diffrecon.models import Tomography
from diffrecon.motion import Motion
from diffrecon.operators import AlignedProjector, Dynamic, ParallelProjector, spline_basis
from diffrecon.solvers import cgls

N, VIEWS = 40, 240
TIMES = np.linspace(0, 8, VIEWS)
ANGLES = np.mod(np.arange(VIEWS) * np.pi * (np.sqrt(5) - 1) / 2, 2 * np.pi)
ROWS = (np.arange(N) - (N - 1) / 2)[:, None]
COLUMNS = ROWS.T


def discs(time):
    """Value, radius, x, y [pixel]: a still body, a disc that rises, one that grows denser."""
    share = time / 8
    return [(1.0, 16.0, 0.0, 0.0), (1.0, 4.0, -7.0, 9 - 18 * share), (2 * share, 4.0, 8.0, 0.0)]


def image(time, fine=5):
    offsets = (np.arange(fine) + 0.5) / fine - 0.5
    inside = lambda r, x, y: np.mean([np.hypot(COLUMNS + a - x, ROWS + b - y) < r for a in offsets for b in offsets], 0)
    return sum(value * inside(r, x, y) for value, r, x, y in discs(time))


def sinogram(noise=0.0, fine=4):
    """Exact chords of the discs at the time of each view, averaged over the bin."""
    u = (np.arange(N * fine) + 0.5) / fine - N / 2
    lines = np.zeros((VIEWS, u.size))
    for view, (angle, time) in enumerate(zip(ANGLES, TIMES, strict=True)):
        for value, r, x, y in discs(time):
            distance = u - x * np.cos(angle) - y * np.sin(angle)
            lines[view] += 2 * value * np.sqrt(np.clip(r**2 - distance**2, 0, None))
    binned = lines.reshape(VIEWS, N, fine).mean(-1)
    return binned + noise * np.random.default_rng(0).normal(size=binned.shape)


@pytest.fixture(scope="module")
def projector():
    return ParallelProjector(ANGLES, (N, N), N)


def error(reconstruction, times=(1.0, 2.5, 4.0, 5.5, 7.0)):
    """Relative error of the frames at some times, in the disc."""
    disc = np.hypot(ROWS, COLUMNS) < 18
    truth = np.stack([image(t) for t in times])[:, disc]
    found = np.stack([np.asarray(reconstruction(t)).reshape(N, N) for t in times])[:, disc]
    return np.linalg.norm(found - truth) / np.linalg.norm(truth)


# ---------------------------------------------------------------------- the basis
@pytest.mark.parametrize("degree, count", [(0, 4), (1, 2), (1, 7), (2, 5), (3, 4), (3, 9)])
def test_splines_are_a_partition_of_unity(degree, count):
    times = np.concatenate([[2.0], np.sort(np.random.default_rng(0).uniform(2, 5, 200)), [5.0]])
    basis = spline_basis(times, count, degree)
    assert basis.shape == (202, count) and (basis >= -1e-12).all()
    np.testing.assert_allclose(basis.sum(1), 1, atol=1e-12)
    assert ((basis > 1e-9).sum(1) <= degree + 1).all()
    # Splines of a degree hold every polynomial of that degree.
    fit = np.linalg.lstsq(basis, times**degree, rcond=None)[0]
    np.testing.assert_allclose(basis @ fit, times**degree, rtol=1e-9)


@pytest.mark.parametrize("count, degree", [(3, 3), (0, 0), (2, -1)])
def test_too_few_splines(count, degree):
    with pytest.raises(InputError, match="splines"):
        spline_basis([0.0, 1.0], count, degree)


# ---------------------------------------------------------------------- the operator


def test_is_the_projection_of_the_mixed_volume(projector):
    """At each view it is the still projector of the volume of that time."""
    volumes = jnp.asarray(np.random.default_rng(2).normal(size=(4, 2, N, N)), jnp.float32)
    A = Dynamic.splines(projector, TIMES, 4)
    some = np.array([0, 101, 239])
    for line, view in zip(A(volumes, some), some, strict=True):
        still = projector(A.at(TIMES[view], volumes), np.array([view]))[0]
        np.testing.assert_allclose(line, still, atol=2e-5 * float(jnp.abs(still).max()))
    np.testing.assert_allclose(A(volumes, np.arange(VIEWS)), A(volumes), rtol=1e-6)
    np.testing.assert_allclose(A.subset(some)(volumes), A(volumes, some), atol=1e-5 * float(jnp.abs(volumes).max()) * N)
    assert A.at([1.0, 2.0, 3.0], volumes).shape == (3, 2, N, N)


def test_any_projector_has_a_time_axis():
    """A rolled and shifted detector: at each view the still projector of the volume of that time."""
    motion = Motion(10.3, shifts=np.random.default_rng(0).uniform(-1, 1, (12, 2)), roll=0.05)
    still = AlignedProjector(ANGLES[:12], (20, 20), (6, 20), motion, slices=12)
    A = Dynamic.splines(still, TIMES[:12], 3)
    model = Tomography(jnp.asarray(np.random.default_rng(1).normal(size=(3, 12, 20, 20)), jnp.float32), A)
    views = np.array([2, 7])
    for line, view in zip(model(views), views, strict=True):
        expected = still(A.at(TIMES[view], model.volume), np.array([view]))[0]
        np.testing.assert_allclose(line, expected, atol=2e-5 * float(jnp.abs(expected).max()))


# ---------------------------------------------------------------------- recovery
@pytest.fixture(scope="module")
def measured():
    return jnp.asarray(sinogram(noise=0.3)[:, None], jnp.float32)


@pytest.fixture(scope="module")
def still_error(projector, measured):
    still = cgls(projector, measured, steps=12).x
    return min(error(lambda t: still), error(lambda t: cgls(projector, measured, steps=5).x))


def at(model):
    return lambda time: model.projector.at(time, model.volume)


@pytest.mark.parametrize("degree", [1, 3])
def test_time_axis_halves_the_error_of_a_still_volume(projector, measured, still_error, degree):
    """A linear solve, stopped early."""
    A = Dynamic.splines(projector, TIMES, 6, degree=degree)
    assert error(at(Tomography(cgls(A, measured, steps=12).x, A))) < 0.6 * still_error


def test_penalties_in_space_and_time(projector, measured, still_error):
    A = Dynamic.splines(projector, TIMES, 8)

    def cost(model, batch):
        misfit = jnp.mean((model(batch.views) - batch.values) ** 2)
        space = penalties.tv(model.volume, axes=(-2, -1), eps=0.01)
        return misfit + 0.5 * space + 0.5 * penalties.dirichlet(model.volume, axes=(0,))

    rule = optax.adam(optax.cosine_decay_schedule(0.1, 150))
    solution = minimise(cost, Tomography(A.empty(1), A), {"values": measured}, rule, steps=150)
    assert error(at(solution.value)) < 0.5 * still_error


def test_low_rank_finds_the_courses(projector, measured, still_error):
    """A disc grows denser linearly: rank two holds it; the rising disc needs more."""
    A = Dynamic.low_rank(projector, TIMES, 4)

    def cost(model, batch):
        misfit = jnp.mean((model(batch.views) - batch.values) ** 2)
        space = penalties.tv(model.volume, axes=(-2, -1), eps=0.01)
        return misfit + 0.3 * space + penalties.dirichlet(model.projector.temporal, axes=(0,))

    unknowns = {"volume": 1.0, "projector.temporal": 0.3}
    rule = optax.adam(optax.cosine_decay_schedule(0.06, 120))
    solution = minimise(cost, Tomography(A.empty(1), A), {"values": measured}, rule, steps=120, unknowns=unknowns)
    assert not np.allclose(solution.value.projector.temporal, A.temporal)
    assert error(at(solution.value)) < 0.7 * still_error


# ---------------------------------------------------------------------- what a user gives
def test_times_keep_their_digits(projector, measured):
    """Seconds since 1970 in float32 would be known to two minutes."""
    A = Dynamic.splines(projector, 1.7e9 + TIMES, 4)
    cost = lambda model, batch: jnp.mean((model(batch.views) - batch.values) ** 2)
    solved = minimise(cost, Tomography(A.empty(1), A), {"values": measured}, optax.sgd(0.1), steps=1).value
    assert solved.projector.times[-1] == 1.7e9 + TIMES[-1]
    np.testing.assert_allclose(at(solved)(1.7e9 + TIMES[-1]), solved.volume[-1], rtol=1e-5)


@pytest.mark.parametrize("times", [TIMES[:-1], TIMES[::-1], np.full(VIEWS, np.nan)])
def test_times_are_checked(projector, times):
    with pytest.raises(InputError, match="times"):
        Dynamic.splines(projector, times, 4)


def test_other_errors(projector):
    A = Dynamic.splines(projector, TIMES, 4)
    with pytest.raises(InputError, match="within the scan"):
        A.at(9.0, A.empty(1))
    with pytest.raises(InputError, match="rank"):
        Dynamic.low_rank(projector, TIMES, 0)

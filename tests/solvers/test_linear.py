"""Linear solvers against closed forms, and filtered back-projection."""

import h5py
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffrecon.errors import InputError
from diffrecon.operators.projection import ParallelProjector
from diffrecon.solvers import cgls, lsqr, mlem, osem, sart, sirt, subset_views
from diffrecon.solvers.direct.fbp import angle_weights, fbp, ramp_filter

RANDOM = np.random.default_rng(1)


def matrix(complex_numbers: bool) -> np.ndarray:
    a = RANDOM.normal(size=(12, 7))
    return (a + 1j * RANDOM.normal(size=a.shape)).astype("complex64") if complex_numbers else a.astype("f4")


@pytest.fixture(scope="module")
def disc() -> tuple[ParallelProjector, jax.Array]:
    """A soft disc with a hole, and a projector that sees it whole."""
    n = 64
    y, x = np.mgrid[:n, :n] - (n - 1) / 2
    image = 1 / (1 + np.exp(np.hypot(x, y) - 24)) - 0.5 / (1 + np.exp(np.hypot(x - 8, y + 5) - 6))
    A = ParallelProjector(np.linspace(0, np.pi, 100, endpoint=False), (n, n), n, dtype=jnp.float32)
    return A, jnp.asarray(image, jnp.float32)


@pytest.mark.parametrize("complex_numbers", [False, True])
@pytest.mark.parametrize("ridge", [0.0, 0.5])
def test_cgls_solves_the_normal_equations(complex_numbers, ridge):
    a = matrix(complex_numbers)
    b = (a @ np.ones(7) + RANDOM.normal(size=12)).astype(a.dtype)
    start = jnp.zeros(7, a.dtype)
    solution = cgls(lambda x: jnp.asarray(a) @ x, jnp.asarray(b), x0=start, steps=25, tikhonov=ridge)
    expected = np.linalg.solve(a.conj().T @ a + ridge * np.eye(7), a.conj().T @ b)
    np.testing.assert_allclose(solution.x, expected, rtol=2e-4, atol=2e-5)
    final = np.linalg.norm(a @ expected - b) / np.linalg.norm(b)
    np.testing.assert_allclose(solution.history[-1], final, rtol=1e-3)


@pytest.mark.parametrize("solver", [cgls, lsqr, sirt, mlem])
def test_other_numbers_of_steps_compile_nothing(disc, solver):
    """One program for the start and one for all numbers of steps; the same step, one by one or all at once."""
    A, image = disc
    data, programs = A(image), []
    count = lambda event, *_, **__: programs.append(event) if event.endswith("backend_compile_duration") else None
    solver(A, data, steps=3)
    jax.monitoring.register_event_duration_secs_listener(count)
    try:
        solution = solver(A, data, steps=7)
        assert not programs
    finally:
        jax.monitoring.unregister_event_duration_listener(count)
    np.testing.assert_array_equal(solution.history[:3], solver(A, data, steps=3).history)


def test_cgls_starts_where_it_is_told(disc):
    A, image = disc
    solution = cgls(A, A(image), x0=image, steps=2)
    assert float(solution.history[0]) < 1e-5
    assert solution.x.shape == image.shape


def test_residuals_of_cgls_fall_and_the_callback_sees_them(disc):
    A, image = disc
    seen = []
    solution = cgls(A, A(image), steps=60, callback=lambda report: seen.append((report.step, report.loss)))
    assert np.all(np.diff(solution.history) <= 1e-6)
    assert [step for step, _ in seen] == [50, 60]
    assert seen[-1][1] == pytest.approx(float(solution.history[-1]))


def test_sirt_converges_within_its_bounds(disc):
    A, image = disc
    solution = sirt(A, A(image), steps=100, bounds=(0.0, None))
    assert not bool(solution.diverged)
    assert float(solution.history[-1]) < 0.02
    assert float(jnp.min(solution.x)) >= 0
    assert np.linalg.norm(solution.x - image) / np.linalg.norm(image) < 0.1


def test_sirt_step_is_the_formula():
    a = RANDOM.uniform(0.5, 1, (9, 4)).astype("f4")
    b = RANDOM.uniform(1, 2, 9).astype("f4")
    solution = sirt(lambda x: jnp.asarray(a) @ x, jnp.asarray(b), steps=2, x0=jnp.zeros(4), relaxation=0.9)
    x = np.zeros(4)
    for _ in range(2):
        x = x + 0.9 * (a.T @ ((b - a @ x) / a.sum(1))) / a.sum(0)
    np.testing.assert_allclose(solution.x, x, rtol=1e-5)


def test_rays_that_miss_do_no_harm():
    angles = np.linspace(0, np.pi, 60, endpoint=False)
    A = ParallelProjector(angles, (32, 32), 80, dtype=jnp.float32)
    y, x = np.mgrid[:32, :32] - 15.5
    image = jnp.asarray(np.hypot(x, y) < 10, jnp.float32)
    data = A(image) + jnp.asarray(RANDOM.normal(size=(60, 80)) * 0.1, jnp.float32)
    solution = sirt(A, data, steps=50)
    assert not bool(solution.diverged)
    assert np.linalg.norm(solution.x - image) / np.linalg.norm(image) < 0.3


def test_mlem_keeps_counts_and_recovers_positive_images(disc):
    A, image = disc
    data = jnp.maximum(A(image), 0)
    solution = mlem(A, data, steps=60)
    assert float(jnp.min(solution.x)) >= 0
    assert float(solution.history[-1]) < 0.02
    assert float(jnp.sum(A(solution.x))) == pytest.approx(float(jnp.sum(data)), rel=0.01)
    with pytest.raises(InputError, match="counts"):
        mlem(A, -data, steps=2)


def test_divergence_stops_with_the_last_good_volume():
    # row and column sums of 1, but an eigenvalue of 25: what SIRT assumes (no negative elements) does not hold
    a = jnp.array([[3.0, -2.0], [-2.0, 3.0]])
    with pytest.warns(UserWarning, match="diverged"):
        solution = sirt(lambda x: a @ x, jnp.array([1.0, -1.0]), steps=40, x0=jnp.zeros(2))
    assert bool(solution.diverged)
    assert np.all(np.isfinite(solution.x))
    assert np.isnan(solution.history[-1]) and np.isfinite(solution.history[0])


def test_not_finite_data_stop_at_once():
    with pytest.warns(UserWarning, match="diverged"):
        solution = cgls(lambda x: 2 * x, jnp.array([1.0, jnp.nan]), x0=jnp.zeros(2), steps=5)
    np.testing.assert_array_equal(solution.x, np.zeros(2))


def test_solvers_can_be_compiled_and_differentiated(disc):
    A, image = disc
    b = A(image)
    outer = jax.jit(lambda A, b: cgls(A, b, steps=5).x)(A, b)
    np.testing.assert_allclose(outer, cgls(A, b, steps=5).x, atol=1e-5)
    scale = jax.grad(lambda s: jnp.sum(cgls(A, s * b, steps=3).x))(1.0)
    np.testing.assert_allclose(scale, jnp.sum(cgls(A, b, steps=3).x), rtol=1e-3)


def test_wrong_use_is_refused():
    with pytest.raises(InputError, match="x0"):
        cgls(lambda x: x, jnp.ones(3))
    with pytest.raises(InputError, match="steps"):
        cgls(lambda x: x, jnp.ones(3), x0=jnp.ones(3), steps=0)
    with pytest.raises(InputError, match="relaxation"):
        sirt(lambda x: x, jnp.ones(3), x0=jnp.ones(3), relaxation=2.5)


# LSQR, weights, ordered subsets, rules that end a solve


@pytest.mark.parametrize("complex_numbers", [False, True])
@pytest.mark.parametrize("damping", [0.0, 0.7])
def test_lsqr_solves_the_normal_equations_from_any_start(complex_numbers, damping):
    a = matrix(complex_numbers)
    b = (a @ np.ones(7) + RANDOM.normal(size=12)).astype(a.dtype)
    start = jnp.asarray(RANDOM.normal(size=7), a.dtype)
    solution = lsqr(lambda x: jnp.asarray(a) @ x, jnp.asarray(b), x0=start, steps=20, tikhonov=damping**2)
    expected = np.linalg.solve(a.conj().T @ a + damping**2 * np.eye(7), a.conj().T @ b)
    np.testing.assert_allclose(solution.x, expected, rtol=5e-4, atol=5e-5)
    final = np.linalg.norm(a @ expected - b) / np.linalg.norm(b)
    np.testing.assert_allclose(solution.history[-1], final, rtol=2e-3)


def test_lsqr_and_cgls_take_the_same_steps(disc):
    A, image = disc
    b = A(image)
    first, second = lsqr(A, b, steps=6), cgls(A, b, steps=6)
    # Rounding of float32, 6e-8, grown by the condition of the steps so far, some 1e4.
    assert np.linalg.norm(first.x - second.x) < 1e-3 * np.linalg.norm(second.x)
    np.testing.assert_allclose(first.history, second.history, rtol=1e-2)


@pytest.mark.parametrize("solver", [cgls, lsqr])
def test_weights_are_inverse_variances(solver):
    a, weights = matrix(False), RANDOM.uniform(0.1, 2, 12).astype("f4")
    weights[3] = 0
    b = (a @ np.ones(7) + RANDOM.normal(size=12)).astype("f4")
    spoilt = b.copy()
    spoilt[3] = np.nan
    found = solver(lambda x: jnp.asarray(a) @ x, jnp.asarray(spoilt), x0=jnp.zeros(7), steps=20, weights=weights).x
    expected = np.linalg.solve(a.T @ (weights[:, None] * a), a.T @ (weights * b))
    np.testing.assert_allclose(found, expected, rtol=2e-3, atol=2e-4)


def test_weighted_sirt_goes_to_the_weighted_solution():
    a, weights = RANDOM.uniform(0.1, 1, (12, 4)).astype("f4"), RANDOM.uniform(0.2, 2, 12).astype("f4")
    b = RANDOM.uniform(1, 2, 12).astype("f4")
    found = np.asarray(
        sirt(lambda x: jnp.asarray(a) @ x, jnp.asarray(b), steps=6000, x0=jnp.zeros(4), weights=weights).x
    )
    metric = weights / a.sum(1)  # SIRT weighs rays by their reciprocal length too
    expected = np.linalg.solve(a.T @ (metric[:, None] * a), a.T @ (metric * b))
    np.testing.assert_allclose(found, expected, rtol=2e-2, atol=2e-2)


def test_ordered_subsets_get_further_in_a_pass(disc):
    A, image = disc
    b = A(image)
    whole, subsets = sirt(A, b, steps=5, bounds=(0.0, None)), sart(A, b, steps=5, subsets=4, bounds=(0.0, None))
    assert float(jnp.min(subsets.x)) >= 0
    errors = [float(jnp.linalg.norm(A(s.x) - b)) for s in (whole, subsets)]
    assert errors[1] < 0.6 * errors[0]


def test_one_subset_is_sirt_and_osem_with_one_is_mlem(disc):
    A, image = disc
    b = jnp.maximum(A(image), 0)
    np.testing.assert_allclose(sart(A, b, steps=3, subsets=1, relaxation=1.5).x, sirt(A, b, steps=3).x, atol=1e-5)
    np.testing.assert_allclose(osem(A, b, steps=3, subsets=1).x, mlem(A, b, steps=3).x, atol=1e-4)


def test_osem_gets_further_than_mlem(disc):
    A, image = disc
    b = jnp.maximum(A(image), 0)
    errors = [float(jnp.linalg.norm(s(A, b, steps=4, **o).x - image)) for s, o in ((mlem, {}), (osem, {"subsets": 4}))]
    assert errors[1] < 0.5 * errors[0]


class Rows:
    """An operator that takes views and has no subset()."""

    def __init__(self, a):
        self.a = jnp.asarray(a)

    def __call__(self, x, views=None):
        return (self.a if views is None else self.a[views]) @ x

    def adjoint(self, y, views=None):
        return (self.a if views is None else self.a[views]).T @ y


def test_subsets_of_an_operator_that_takes_views():
    a = RANDOM.uniform(0.1, 1, (12, 4)).astype("f4")
    found = sart(Rows(a), jnp.asarray(a @ np.arange(1.0, 5)), steps=800, subsets=3, x0=jnp.zeros(4))
    np.testing.assert_allclose(found.x, np.arange(1.0, 5), rtol=0.05)


def test_subsets_are_interleaved_and_follow_each_other_far_apart():
    angles = np.linspace(0, np.pi, 60, endpoint=False)
    groups = subset_views(RANDOM.permutation(angles), 60, 10)
    assert sorted(np.concatenate(groups)) == list(range(60)) and {len(g) for g in groups} == {6}
    first = [subset_views(angles, 60, 10)[k][0] for k in range(10)]
    assert min(abs(np.diff(first))) >= 3
    with pytest.raises(InputError, match="subsets"):
        subset_views(None, 4, 5)


@pytest.mark.parametrize("solver", [cgls, lambda A, b, **options: sart(A, b, subsets=4, **options)])
def test_held_out_views_choose_the_number_of_steps(disc, solver):
    A, image = disc
    noisy = A(image) + jnp.asarray(np.random.default_rng(0).normal(size=(100, 64)) * 2.0, jnp.float32)
    chosen = solver(A, noisy, steps=40, stopping="held-out")
    errors = [float(jnp.linalg.norm(solver(A, noisy, steps=k).x - image)) for k in (1, 3, 10, 40)]
    # prediction is a milder judge than the image: a step or two more than the best
    assert float(jnp.linalg.norm(chosen.x - image)) < min(1.6 * min(errors), 0.6 * errors[-1])
    assert "held out" in chosen.message and chosen.held_out.size >= chosen.history.size


def test_discrepancy_stops_at_the_noise(disc):
    A, image = disc
    noisy = A(image) + jnp.asarray(np.random.default_rng(0).normal(size=(100, 64)) * 1.0, jnp.float32)
    stopped = cgls(A, noisy, steps=40, stopping="discrepancy", noise=1.0)
    curve = np.asarray(stopped.history)
    last = int(np.isfinite(curve).sum()) - 1
    target = np.sqrt(noisy.size) / np.linalg.norm(noisy)
    assert curve[last] <= target < curve[last - 1]
    exact = np.linalg.norm(A(stopped.x) - noisy) / np.linalg.norm(noisy)
    assert curve[last] == pytest.approx(exact, rel=1e-3)
    weighted = cgls(A, noisy, steps=40, stopping="discrepancy", weights=np.ones(100))
    np.testing.assert_allclose(weighted.x, stopped.x, atol=1e-5)
    with pytest.raises(InputError, match="noise"):
        cgls(A, noisy, stopping="discrepancy")
    with pytest.raises(InputError, match="held-out"):
        cgls(A, noisy, stopping="never")


def test_the_callback_can_stop(disc):
    A, image = disc
    stopped = cgls(A, A(image), steps=120, callback=lambda report: report.step >= 50)
    assert np.isfinite(stopped.history).sum() == 50 and "callback" in stopped.message


# Filtered back-projection


@pytest.mark.parametrize(
    "angles",
    [
        np.linspace(0, np.pi, 120, endpoint=False),
        np.linspace(0, 2 * np.pi, 200, endpoint=False),
        np.sort(RANDOM.uniform(0, np.pi, 300)),
        np.linspace(0.3, 0.3 - np.pi, 121),
    ],
    ids=["half turn", "full turn", "uneven", "backwards, both ends"],
)
def test_fbp_gives_values_per_pixel(angles, disc):
    _, image = disc
    A = ParallelProjector(angles, (64, 64), 80, dtype=jnp.float32)
    slice_ = np.asarray(fbp(A, A(image)))
    y, x = np.mgrid[:64, :64] - 31.5
    plateau = (np.hypot(x, y) < 18) & (np.hypot(x - 8, y + 5) > 12)
    assert slice_[plateau].mean() == pytest.approx(np.asarray(image)[plateau].mean(), rel=2e-3)
    assert np.linalg.norm(slice_ - image) / np.linalg.norm(image) < 0.03


@pytest.mark.parametrize("window", ["shepp-logan", "cosine", "hamming", "hann"])
def test_windows_smooth_and_keep_the_amplitude(window, disc):
    A, image = disc
    sharp, smooth = (np.asarray(fbp(A, A(image), filter=name)) for name in ("ramp", window))
    assert np.abs(np.diff(smooth, axis=0)).max() < np.abs(np.diff(sharp, axis=0)).max()
    assert smooth.sum() == pytest.approx(sharp.sum(), rel=2e-3)


def test_edge_padding_flattens_a_region_of_interest():
    y, x = np.mgrid[:128, :128] - 63.5
    wide = jnp.asarray(1 / (1 + np.exp(np.hypot(x, y) - 50)), jnp.float32)
    angles = np.linspace(0, np.pi, 120, endpoint=False)
    data = ParallelProjector(angles, (128, 128), 128, dtype=jnp.float32)(wide)[:, 48:80]
    A = ParallelProjector(angles, (32, 32), 32, dtype=jnp.float32)
    inner = np.hypot(*(np.mgrid[:32, :32] - 15.5)) < 13
    ripple = [np.ptp(np.asarray(fbp(A, data, pad=pad))[inner]) for pad in ("zero", "edge")]
    assert ripple[1] < 0.5 * ripple[0]


def test_ramp_filter_and_weights():
    gain = ramp_filter(256)
    assert gain[-1] == pytest.approx(0.5, rel=1e-2)
    # not zero: that is the point of building it in real space
    assert 0 < gain[0] < 0.01
    assert angle_weights(np.linspace(0, np.pi, 50, endpoint=False)).sum() == pytest.approx(np.pi)
    assert angle_weights(np.linspace(0, 2 * np.pi, 50, endpoint=False)).sum() == pytest.approx(np.pi)
    wedge = angle_weights(np.linspace(-1, 1, 100))
    assert wedge.sum() == pytest.approx(2.0, rel=0.02)


def test_unknown_names_are_refused(disc):
    A, image = disc
    with pytest.raises(InputError, match="ramp, shepp-logan"):
        fbp(A, A(image), filter="ram-lak")
    with pytest.raises(InputError, match="edge"):
        fbp(A, A(image), pad="mirror")


def test_tooth(shared_data):
    with h5py.File(shared_data / "real" / "tooth.h5") as file:
        names = ("data", "data_white", "data_dark", "theta")
        data, white, dark, theta = (np.asarray(file[f"exchange/{name}"], float) for name in names)
    dark, white = dark.mean(0), white.mean(0)
    sinogram = -np.log(np.clip((data - dark) / (white - dark), 1e-3, None))[:, 0]
    A = ParallelProjector(np.deg2rad(theta), (640, 640), 640, centre=295.25, dtype=jnp.float32)
    assert float(cgls(A, jnp.asarray(sinogram, jnp.float32), steps=20).history[-1]) < 0.0066

"""`minimise`: solvers against known answers, and everything the loop promises."""

import os
import signal

import h5py
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from problems import PROBLEMS, SOLVERS, relative_error

import diffrecon as dr
from diffrecon.frames import Excerpt, Frames
from diffrecon.solvers import Ending
from diffrecon.solvers.descent.compiled import Problem, run_chunk
from diffrecon.solvers.descent.feed import Fields, Plan


class Line(dr.Model):
    """`slope * t + offset.value`, with nested fields."""

    slope: jax.Array
    offset: dict
    scale: float = 1.0

    def __call__(self, t):
        return self.scale * (self.slope * t + self.offset["value"])


def line(slope=0.0, offset=0.0, scale=1.0):
    return Line(jnp.asarray(slope), {"value": jnp.asarray(offset), "fixed": jnp.asarray(7)}, scale)


T = np.linspace(-1, 1, 12, dtype=np.float32)
LINE_DATA = {"t": T, "y": 2 * T + 0.5}


def line_cost(model, batch):
    return jnp.mean((model(batch.t) - batch.y) ** 2)


@pytest.mark.parametrize("solver, problem", [(s, p) for s, (_, fits, _) in SOLVERS.items() for p in fits])
def test_solver_finds_known_answer(solver, problem):
    solve, _, tolerance = SOLVERS[solver]
    p = PROBLEMS[problem]
    assert relative_error(p.start, p.answer) > 10 * tolerance
    assert relative_error(solve(p), p.answer) < tolerance


# ---------------------------------------------------------------------------------------- complex numbers
def _quadratic() -> tuple:
    """A complex least-squares cost of condition 10, and the same of pairs of reals."""
    parts = jax.random.normal(jax.random.key(0), (3, 40, 20))
    matrix = (parts[0] + 1j * parts[1]) * jnp.logspace(0, 1, 20)
    right = matrix @ (parts[2, 0] + 1j * parts[2, 1])
    cost = lambda z, batch: jnp.mean(jnp.abs(matrix @ z - right) ** 2)
    return cost, lambda pairs, batch: cost(pairs[:, 0] + 1j * pairs[:, 1], batch)


RULES = {
    "clip": optax.chain(optax.clip(1.0), optax.adam(0.05)),
    "sign": optax.sign_sgd(0.01),
    "lion": optax.lion(0.01),
    "prodigy": optax.contrib.prodigy(),
    "adafactor": optax.adafactor(0.05),
    "lbfgs": optax.lbfgs(),
}
LONG_RULES = {
    "rms": optax.rmsprop(0.05),
    "lamb": optax.lamb(0.05),
    "amsgrad": optax.amsgrad(0.05),
    "adamax": optax.adamax(0.05),
    "rprop": optax.rprop(0.05),
    "adan": optax.adan(0.05),
    "cocob": optax.contrib.cocob(),
    "dadapt": optax.contrib.dadapt_adamw(),
    "momo": optax.contrib.momo_adam(),
    "schedule-free": optax.contrib.schedule_free_adamw(0.05),
    "block-rms": optax.chain(optax.clip_by_block_rms(1.0), optax.adam(0.05)),
    "adaptive-clip": optax.chain(optax.adaptive_grad_clip(0.1), optax.adam(0.05)),
}


@pytest.mark.parametrize("rule", [*RULES, *LONG_RULES])
def test_any_rule_of_optax_is_right_on_complex_unknowns(rule):
    """A complex unknown goes where its pairs of reals go."""
    rule, (cost, of_pairs) = (RULES | LONG_RULES)[rule], _quadratic()
    solution = dr.minimise(cost, jnp.zeros(20, jnp.complex64), optimiser=rule, steps=40)
    pairs = dr.minimise(of_pairs, jnp.zeros((20, 2)), optimiser=rule, steps=40)
    assert solution.ending.finished
    np.testing.assert_allclose(cost(solution.value, None), of_pairs(pairs.value, None), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("rule", [optax.adam(0.05), optax.sgd(0.002, momentum=0.9)], ids=["adam", "momentum"])
def test_rules_that_know_complex_numbers_do_not_see_their_axes(rule):
    """Turning all numbers by one phase turns the solution, as the parts apart would not."""
    cost = _quadratic()[0]
    turn = jnp.exp(0.7j).astype(jnp.complex64)
    start = jnp.ones(20, jnp.complex64)
    plain = dr.minimise(cost, start, optimiser=rule, steps=20).value
    turned = dr.minimise(lambda z, b: cost(z / turn, b), turn * start, optimiser=rule, steps=20).value
    np.testing.assert_allclose(turned / turn, plain, atol=1e-4)


def test_complex_gradient_is_steepest_descent():
    """One step of sgd with rate 1 on |z - a|^2 / 2 lands on a; without the conjugation it would land on conj(a)."""
    a = jnp.asarray([1 + 2j, -3 - 0.5j], jnp.complex64)
    solution = dr.minimise(
        lambda z, b: 0.5 * jnp.sum(jnp.abs(z - a) ** 2), jnp.zeros(2, jnp.complex64), optimiser=optax.sgd(1.0), steps=1
    )
    np.testing.assert_allclose(solution.value, a, rtol=1e-6)


def test_line_search_with_complex_unknowns_lowers_the_cost_every_step():
    p = PROBLEMS["complex"]
    solution = dr.minimise(p.cost, p.start, p.data, optax.lbfgs(), steps=12)
    finite = solution.history[solution.history > 1e-9]
    assert np.all(np.diff(finite) < 0) and solution.history[-1] < 1e-8


# ---------------------------------------------------------------------------------------- unknowns
def test_factor_multiplies_the_step_of_one_unknown():
    moved = dr.minimise(
        line_cost, line(), LINE_DATA, optax.sgd(0.1), steps=1, unknowns={"slope": 3.0, "offset": 1}
    ).value
    plain = dr.minimise(line_cost, line(), LINE_DATA, optax.sgd(0.1), steps=1).value
    assert moved.slope == pytest.approx(3 * float(plain.slope), rel=1e-6)
    assert moved.offset["value"] == pytest.approx(float(plain.offset["value"]), rel=1e-6)


def test_unknown_with_an_optimiser_of_its_own():
    unknowns = {"slope": optax.sgd(0.25), "offset.value": 1.0}
    moved = dr.minimise(line_cost, line(), LINE_DATA, optax.sgd(0.1), steps=1, unknowns=unknowns).value
    plain = dr.minimise(line_cost, line(), LINE_DATA, optax.sgd(0.1), steps=1).value
    assert moved.slope == pytest.approx(2.5 * float(plain.slope), rel=1e-6)
    assert moved.offset["value"] == pytest.approx(float(plain.offset["value"]), rel=1e-6)


@pytest.mark.parametrize("unknowns", [("slope",), lambda m: m.slope, lambda m: (m.slope,)])
def test_only_named_unknowns_move(unknowns):
    value = dr.minimise(line_cost, line(offset=0.5), LINE_DATA, optax.sgd(0.5), steps=80, unknowns=unknowns).value
    assert value.slope == pytest.approx(2.0, abs=1e-4) and value.offset["value"] == 0.5
    assert value.offset["fixed"] == 7


def test_nested_where_function():
    value = dr.minimise(
        line_cost, line(slope=2.0), LINE_DATA, optax.sgd(0.3), steps=60, unknowns=lambda m: m.offset["value"]
    ).value
    assert value.slope == 2.0 and value.offset["value"] == pytest.approx(0.5, abs=1e-4)


def test_plain_number_becomes_an_unknown_when_it_is_named():
    value = dr.minimise(line_cost, line(1.0, 0.25), LINE_DATA, optax.sgd(0.2), steps=80, unknowns=("scale",)).value
    assert value.scale == pytest.approx(2.0, abs=1e-4)
    assert isinstance(dr.minimise(line_cost, line(), LINE_DATA, steps=1).value.scale, float)


def test_numpy_model():
    value = dr.minimise(
        lambda x, b: jnp.sum((x - 2.0) ** 2), np.zeros(3, np.float32), optimiser=optax.sgd(0.25), steps=40
    ).value
    np.testing.assert_allclose(value, 2.0, rtol=1e-5)


@pytest.mark.parametrize("unknowns", [("slop",), {"offset.valu": 1.0}, ("offset.fixed",), lambda m: m.offset["fixed"]])
def test_names_that_the_model_does_not_have(unknowns):
    with pytest.raises(dr.InputError, match="no floating-point"):
        dr.minimise(line_cost, line(), LINE_DATA, steps=1, unknowns=unknowns)


@pytest.mark.parametrize(
    "settings, says",
    [
        ({}, "either steps"),
        ({"steps": 1, "epochs": 1}, "either steps"),
        ({"steps": 1, "held_out": [99]}, "view 99"),
    ],
)
def test_bad_settings_are_one_line(settings, says):
    with pytest.raises(dr.InputError, match=says):
        dr.minimise(line_cost, line(), LINE_DATA, **settings)


def test_data_of_different_length_are_refused():
    with pytest.raises(dr.InputError, match="different numbers of views"):
        dr.minimise(line_cost, line(), {"t": T, "y": T[:5]}, steps=1)
    with pytest.raises(dr.InputError, match="batch_size needs data"):
        dr.minimise(lambda m, b: m.slope**2, line(), steps=1, batch_size=3)


# ---------------------------------------------------------------------------------------- views and batches
class Seen(dr.Model):
    """Counts how often a view was in a step: sgd with rate 1 on minus the sum adds one a view."""

    times: jax.Array


def seen_cost(model, batch):
    return -jnp.sum(model.times[batch.views]) + 0.0 * jnp.sum(batch.y)


@pytest.mark.parametrize(
    "views, batch, epochs, held", [(12, 4, 1, []), (12, 4, 3, []), (12, 3, 2, [0, 5, 11]), (10, 4, 1, [])]
)
def test_epoch_sees_every_view_and_held_out_ones_never(views, batch, epochs, held):
    data = {"y": np.zeros(views, np.float32)}
    times = dr.minimise(
        seen_cost, Seen(jnp.zeros(views)), data, optax.sgd(1.0), epochs=epochs, batch_size=batch, held_out=held
    ).value.times
    train = np.setdiff1d(np.arange(views), held)
    assert not np.asarray(times)[held].any()
    extra = -len(train) % batch * epochs  # views that fill the last batch of an epoch
    assert np.asarray(times)[train].min() == epochs and times.sum() == epochs * len(train) + extra


def test_order_differs_between_epochs_and_seeds():
    plan = Plan(tuple(range(32)), 8, seed=0)
    orders = [np.asarray(plan.order(step)) for step in (0, 3, 4)] + [np.asarray(Plan(tuple(range(32)), 8, 1).order(0))]
    np.testing.assert_array_equal(orders[0], orders[1])
    assert not np.array_equal(orders[0], orders[2]) and not np.array_equal(orders[0], orders[3])
    np.testing.assert_array_equal(np.sort(orders[0]), np.arange(32))


def test_batch_holds_the_data_of_its_views():
    """Fields, views and counts stay together through permutation and held-out views, and counts stay uint16."""

    def cost(model, batch):
        assert batch.counts.dtype == jnp.uint16 and batch.mask.shape == (2, 2)
        wrong = jnp.sum(jnp.abs(batch.counts[:, 0, 0].astype(jnp.float32) - 10 * batch.views))
        return jnp.sum(model) * 0 + wrong

    counts = np.broadcast_to((10 * np.arange(11, dtype=np.uint16))[:, None, None], (11, 2, 2))
    data = {"counts": counts, "mask": np.ones((2, 2), bool)}
    solution = dr.minimise(cost, jnp.zeros(1), data, steps=20, batch_size=3, held_out=[2, 7])
    assert not solution.history.any() and not solution.held_out[:, 1].any()


def test_held_out_cost_is_the_mean_over_its_views():
    data = {"y": np.arange(40.0, dtype=np.float32)}
    held = np.arange(0, 40, 1)[3:38]  # more than one block
    solution = dr.minimise(
        lambda x, b: jnp.mean((x - b.y) ** 2), jnp.zeros(()), data, optax.sgd(0.0), steps=2, held_out=held
    )
    assert solution.held_out.tolist()[-1] == pytest.approx([2, np.mean(held.astype(float) ** 2)], rel=1e-5)


def test_scan_with_lazy_frames_is_data(tmp_path):
    counts = np.arange(1, 7, dtype=np.uint16)[:, None, None] * np.ones((6, 3, 3), np.uint16)
    with h5py.File(tmp_path / "frames.h5", "w") as file:
        file["counts"] = counts
    mask = np.ones((3, 3), bool)
    mask[0, 0] = False
    scan = dr.Scan.from_arrays(Frames(tmp_path / "frames.h5", "counts"), mask=mask)

    def cost(model, batch):
        assert batch.counts.dtype == jnp.uint16
        return dr.losses.gaussian(jnp.broadcast_to(model, batch.counts.shape), batch.counts, batch.mask)

    value = dr.minimise(cost, jnp.zeros(()), scan, optax.sgd(0.5), steps=60, held_out=[0]).value
    assert value == pytest.approx(4.0, rel=1e-5)  # mean of 2 .. 6


# ---------------------------------------------------------------------------------------- the loop
def stochastic(chunk=50, **settings):
    return dr.minimise(line_cost, line(), LINE_DATA, OPTIMISER, batch_size=5, chunk=chunk, held_out=[1, 4], **settings)


OPTIMISER = optax.adam(0.05)


def same(a, b):
    return all(np.array_equal(x, y) for x, y in zip(jax.tree.leaves(a.value), jax.tree.leaves(b.value), strict=True))


def test_chunks_do_not_change_the_numbers():
    reference = stochastic(50, steps=60)
    for chunk in (7, 60):
        other = stochastic(chunk, steps=60)
        assert same(other, reference)
        np.testing.assert_array_equal(other.history, reference.history)


@pytest.mark.parametrize("optimiser", [OPTIMISER, optax.lbfgs()], ids=["adam", "lbfgs"])
def test_resume_is_bitwise_exact(tmp_path, optimiser):
    path = tmp_path / "state.npz"
    run = lambda **more: dr.minimise(
        line_cost, line(), LINE_DATA, optimiser, batch_size=5, chunk=7, held_out=[1], **more
    )
    whole = run(steps=30)
    first = run(steps=11, checkpoint=path)
    for second in (run(steps=30, resume=first.state), run(steps=30, checkpoint=path, resume=True)):
        assert same(second, whole)
        np.testing.assert_array_equal(second.history, whole.history)
        np.testing.assert_array_equal(second.held_out[-1], whole.held_out[-1])
    assert len(first.history) == 11 and not list(tmp_path.glob("*.part"))


def test_resume_without_a_file_starts_anew_and_refuses_what_does_not_fit(tmp_path):
    path = tmp_path / "state.npz"
    assert same(stochastic(steps=5, checkpoint=path, resume=True), stochastic(steps=5))
    with pytest.raises(dr.InputError, match="another problem"):
        dr.minimise(lambda x, b: jnp.sum(x**2), jnp.ones(3), steps=9, checkpoint=path, resume=True)
    for content in (b"", b"PK\x03\x04broken", b"text"):
        path.write_bytes(content)
        with pytest.raises(dr.InputError, match="not a checkpoint"):
            stochastic(steps=9, checkpoint=path, resume=True)
    with pytest.raises(dr.InputError, match="checkpoint=path"):
        stochastic(steps=9, resume=True)
    with pytest.warns(UserWarning, match="cannot be written"):
        stochastic(steps=9, checkpoint=tmp_path / "no" / "state.npz")


def _interrupt(_):
    raise KeyboardInterrupt


def _send_signal(report):
    os.kill(os.getpid(), signal.SIGINT)


@pytest.mark.parametrize("stop", [_interrupt, _send_signal])
def test_control_c_returns_the_best_so_far_and_can_go_on(stop, tmp_path):
    at_20 = lambda report: stop(report) if report.step == 20 else None
    path = tmp_path / "state.npz"
    solution = stochastic(10, steps=60, callback=at_20, checkpoint=path)
    assert solution.ending is Ending.INTERRUPTED and len(solution.history) == 20
    best = solution.held_out[np.argmin(solution.held_out[:, 1]), 0]
    assert same(solution, stochastic(10, steps=int(best)))
    assert same(stochastic(steps=60, checkpoint=path, resume=True), stochastic(steps=60))


def test_callback_sees_the_model_and_stops():
    reports = []

    def callback(report):
        reports.append((report.step, float(report.value.slope), report.held_out, report.seconds))
        return report.step >= 20

    solution = stochastic(10, steps=60, callback=callback)
    assert [r[0] for r in reports] == [10, 20] and solution.ending is Ending.STOPPED
    assert reports[-1][1] == solution.value.slope and reports[-1][2] == solution.held_out[-1, 1]


def test_project_is_applied_after_each_step_and_keeps_fixed_fields():
    bound = lambda m: type(m)(jnp.minimum(m.slope, 1.0), m.offset, m.scale)
    value = dr.minimise(line_cost, line(), LINE_DATA, optax.sgd(0.2), steps=80, project=bound).value
    assert value.slope == 1.0 and value.offset["value"] == pytest.approx(0.5, abs=1e-3)


# ---------------------------------------------------------------------------------------- data that do not fit
def frames_in(path, views=23, shape=(4, 5)):
    counts = np.random.default_rng(1).poisson(9.0, (views, *shape)).astype(np.uint16)
    with h5py.File(path, "w") as file:
        file.create_dataset("counts", data=counts, chunks=(3, *shape))
    return counts


def frames_cost(model, batch):
    assert batch.counts.dtype == jnp.uint16
    light = jnp.exp(model["gain"][batch.views])[:, None, None] * model["image"]
    return jnp.mean(jnp.where(batch.valid, light - batch.counts, 0) ** 2)


FRAMES_RULE = optax.adam(0.1)


def fit_frames(counts, chunk=6, **settings):
    start = {"gain": jnp.zeros(counts.shape[0]), "image": jnp.ones(counts.shape[1:])}
    valid = np.random.default_rng(2).random(counts.shape) > 0.1
    return dr.minimise(
        frames_cost, start, {"counts": counts, "valid": valid}, FRAMES_RULE, batch_size=4, chunk=chunk, **settings
    )


def test_data_read_ahead_give_the_same_numbers(tmp_path):
    """Same views in the same steps: with chunks longer and shorter than an epoch, held-out views, masks, resume."""
    counts = frames_in(tmp_path / "f.h5")
    lazy = Frames(tmp_path / "f.h5", "counts")
    settings = {"steps": 27, "held_out": [0, 11], "seed": 3}
    reference = fit_frames(counts, **settings)
    state = tmp_path / "state.npz"
    fit_frames(lazy, **settings | {"steps": 13}, resident=0, checkpoint=state)
    for other in (
        fit_frames(lazy, **settings, resident=0),
        fit_frames(counts, **settings, resident=100),
        fit_frames(lazy, **settings, resident=0, checkpoint=state, resume=True),
        fit_frames(Excerpt(lazy), 4, **settings, resident=0),
    ):
        np.testing.assert_allclose(other.history, reference.history, rtol=1e-6)
        np.testing.assert_allclose(other.value["image"], reference.value["image"], rtol=1e-6)
        np.testing.assert_allclose(other.held_out[-1], reference.held_out[-1], rtol=1e-6)
    assert reference.waited == 0


def test_small_blocks_within_a_chunk_and_held_out_views_that_stay_in_the_file(tmp_path, monkeypatch):
    counts = frames_in(tmp_path / "f.h5")
    monkeypatch.setattr("diffrecon.solvers.descent.feed._LEAST_BLOCK", 500)  # two steps of 4 views with 60 bytes each
    reads = []

    class Watched(Frames):
        def _read(self, views, rows, columns):
            reads.append(len(views))
            return super()._read(views, rows, columns)

    settings = {"steps": 12, "held_out": np.arange(0, 23, 2), "seed": 3}
    found = fit_frames(Watched(tmp_path / "f.h5", "counts"), **settings, resident=0)
    assert sorted(reads) == [8] * 6 + [12] * 2  # blocks of two steps; the held-out views after both chunks
    np.testing.assert_allclose(found.history, fit_frames(counts, **settings).history, rtol=1e-6)


def test_files_are_read_ahead_where_memory_is_short(tmp_path, monkeypatch):
    """By default half of what is free holds data; what is in the host's memory already stays there."""
    counts = frames_in(tmp_path / "f.h5")
    lazy = Frames(tmp_path / "f.h5", "counts")
    assert fit_frames(lazy, steps=6).waited == 0
    monkeypatch.setattr("diffrecon.sharding.free_memory", lambda device: 1000.0)
    ahead, at_once = fit_frames(lazy, steps=6), fit_frames(counts, steps=6)
    assert ahead.waited > 0 and at_once.waited == 0
    np.testing.assert_allclose(ahead.history, at_once.history, rtol=1e-6)


def test_data_that_neither_fit_nor_are_drawn_from_are_refused(tmp_path):
    frames_in(tmp_path / "f.h5")
    scan = dr.Scan.from_arrays(Frames(tmp_path / "f.h5", "counts"))
    for settings, says in (({"resident": 10}, "give batch_size"), ({"resident": -1}, "no number of bytes")):
        with pytest.raises(dr.InputError, match=says):
            dr.minimise(line_cost, line(), scan, steps=1, **settings)


def test_file_that_breaks_while_it_is_read_is_one_line_and_the_state_is_saved(tmp_path):
    frames_in(tmp_path / "f.h5", 40)
    lazy = Frames(tmp_path / "f.h5", "counts")
    state = tmp_path / "state.npz"

    def cut(report):
        if report.step == 6:
            with open(tmp_path / "f.h5", "r+b") as file:
                file.truncate(900)

    with pytest.raises(dr.InputError, match="f.h5.*damaged or incomplete"):
        fit_frames(lazy, steps=60, resident=0, checkpoint=state, callback=cut)
    assert state.is_file()


def test_control_c_while_data_are_read_ahead(tmp_path):
    frames_in(tmp_path / "f.h5")
    at_12 = lambda report: _interrupt(report) if report.step == 12 else None
    solution = fit_frames(Frames(tmp_path / "f.h5", "counts"), steps=60, resident=0, callback=at_12)
    assert solution.ending is Ending.INTERRUPTED and len(solution.history) == 12


# ---------------------------------------------------------------------------------------- what is not finite
def test_not_finite_cost_keeps_the_last_finite_state():
    solution = dr.minimise(lambda x, b: jnp.sum(x**4), jnp.full(2, 10.0), optimiser=optax.sgd(1.0), steps=50)
    assert (
        solution.ending is Ending.NOT_FINITE
        and np.isfinite(solution.value).all()
        and np.isfinite(solution.history).all()
    )
    assert solution.detail.startswith(f"step {len(solution.history)}: ") and solution.state.step == len(
        solution.history
    )


def test_not_finite_gradient_names_its_unknown_and_its_step():
    """The root's slope at zero is infinite while the cost is finite; `slope` reaches zero exactly in its third step."""

    def cost(model, batch):
        return jnp.sqrt(jnp.abs(model.slope)) * 0 + model.slope + jnp.abs(model.offset["value"])

    solution = dr.minimise(cost, line(slope=2.0, offset=3.0), optimiser=optax.sgd(1.0), steps=40)
    assert solution.detail.startswith("step 2: ") and "slope" in solution.result and "offset" not in solution.result
    assert len(solution.history) == 2 and solution.value.slope == 0.0 and solution.value.offset["value"] == 1.0


# ---------------------------------------------------------------------------------------- compiled programs
def test_second_call_compiles_nothing():
    traced = []

    def cost(model, batch):
        traced.append(1)
        return line_cost(model, batch)

    for settings in ({}, {"optimiser": OPTIMISER, "unknowns": {"slope": 2.0, "offset": optax.sgd(0.1)}}):

        def run(data, settings=settings):
            dr.minimise(cost, line(), data, steps=70, batch_size=4, held_out=[3], **settings)

        run(LINE_DATA)
        before = len(traced)
        run({k: v + 1 for k, v in LINE_DATA.items()})
        assert len(traced) == before > 0
        traced.clear()


def test_data_are_arguments_of_the_program_and_not_part_of_it():
    """A closure over 4 MB of data would make a program text of megabytes."""
    import equinox as eqx

    from diffrecon.solvers.descent.unknowns import Unknowns

    data = {"y": np.random.default_rng(0).standard_normal((1000, 1000)).astype(np.float32)}
    cost = lambda x, b: jnp.mean((x - b.y) ** 2)
    model, chosen = Unknowns.choose(jnp.zeros(1000), None)
    free, fixed = eqx.partition(model, chosen.mask)
    problem = Problem(cost, OPTIMISER, None, Plan(tuple(range(1000)), 8, 0), chosen.scales, None)
    fields = Fields({k: jnp.asarray(v) for k, v in data.items()}, {}, {})
    lowered = run_chunk.lower(  # pyright: ignore[reportFunctionMemberAccess]
        problem, free, OPTIMISER.init(free), fixed, fields, jnp.asarray(0), jnp.asarray(5), 50
    )
    assert len(lowered.as_text()) < 200_000


def test_silent_by_default_and_progress_on_a_console(capsys):
    stochastic(steps=5)
    assert capsys.readouterr() == ("", "")
    stochastic(steps=5, console=dr.Console(), label="fit")
    said = capsys.readouterr().err
    assert "fit 5/5" in said and "held out" in said

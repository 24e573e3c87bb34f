"""Holotomography in two steps, slab by slab: the volume of the run in memory, Ctrl-C and going on, beta, halves."""

import numpy as np
import pytest

from diffrecon import recipes, solvers, stream
from diffrecon._console import Console
from diffrecon.errors import InputError
from diffrecon.simulate import holotomography as simulated

SETUP = simulated.Setup(angles=10, distances=2, frame=16, counts=4000.0, wobble=0.3, centre=0.4, grains=False)
SOLVER = {"name": "two-step", "align": 1}


class Kept:
    """A writer that keeps slices and may be interrupted."""

    def __init__(self, finished=None, fail_at=None):
        self.slices, self.fail_at, self.events = dict(finished or {}), fail_at, []
        self.before = set(self.slices)

    def __call__(self, shape, units, pixel_size, long_name, name="volume"):
        self.shape, self.name = shape, name
        return self

    def write(self, first, slab):
        if self.fail_at is not None and first >= self.fail_at:
            raise KeyboardInterrupt
        self.slices |= {first + i: np.array(image) for i, image in enumerate(slab)}

    def close(self, result=None):
        self.events.append("close")

    def abort(self):
        self.events.append("abort")

    def done(self):
        return self.before

    def volume(self):
        return np.stack([self.slices[i] for i in sorted(self.slices)])


@pytest.fixture(scope="module")
def scan():
    return simulated.measure(SETUP)[0]


@pytest.fixture(scope="module")
def in_memory(scan):
    return recipes.reconstruct(scan, settings={"solver": {**SOLVER, "slab": 0}})


def test_the_volume_of_the_run_in_memory_and_going_on(scan, in_memory, tmp_path, monkeypatch):
    """Interrupted in the last pass, then gone on with: rounds are not done again, slices neither."""
    settings = {"solver": {**SOLVER, "slab": 5}}
    assert recipes.wants_slabs(scan, None, settings)
    path, broken = str(tmp_path / "checkpoint"), Kept(fail_at=10)
    with pytest.raises(KeyboardInterrupt):
        recipes.reconstruct_slabs(scan, None, settings, Console(quiet=True, checkpoint=path), broken)
    assert sorted(broken.slices) == list(range(10)) and broken.events == ["abort"]
    again = Kept(broken.slices)

    def never(*_, **__):
        raise AssertionError("done again")

    monkeypatch.setattr(solvers.PhaseRetrieval, "of", never)
    result = recipes.reconstruct_slabs(scan, None, settings, Console(quiet=True, checkpoint=path, resume=True), again)
    assert again.events == ["close"] and again.name == "delta"
    scale = np.abs(in_memory["delta"]).max()
    np.testing.assert_allclose(again.volume(), in_memory["delta"], atol=1e-5 * scale)
    np.testing.assert_allclose(result["middle_slice"], in_memory["delta"][8], atol=1e-5 * scale)
    np.testing.assert_allclose(result["shifts"], in_memory["shifts"], atol=1e-3 * SETUP.pixel)
    assert result.quality["held_out_deviance"] == pytest.approx(in_memory.quality["held_out_deviance"], rel=1e-4)
    assert [p.name for p in tmp_path.iterdir()] == ["checkpoint"]  # phases are gone


def test_what_slabs_cannot_do_is_said(scan):
    for given in ({"model": {"beta": True}}, {"quality": {"halves": True}}):
        with pytest.raises(InputError, match="slab=0"):
            recipes.reconstruct_slabs(scan, None, {"solver": {**SOLVER, "slab": 5}, **given}, None, Kept())


def test_scratch_is_written_by_views_and_read_by_rows(tmp_path):
    lines = stream.Scratch((4, 5, 6), tmp_path / "lines")
    values = np.random.default_rng(0).standard_normal((4, 5, 6)).astype(np.float32)
    lines[np.array([2, 0])] = values[[2, 0]]
    np.testing.assert_array_equal(
        lines.rows(1, 3), np.where(np.isin(np.arange(4), [0, 2])[:, None, None], values[:, 1:3], 0)
    )
    lines.put_rows(3, values[:, 3:], np.arange(4))
    np.testing.assert_array_equal(lines[np.array([3])][0, 3:], values[3, 3:])
    assert not lines.found and stream.Scratch((4, 5, 6), tmp_path / "lines").found
    lines.close()
    assert not (tmp_path / "lines").exists()
    with pytest.raises(InputError, match="no file for"):
        stream.Scratch((4, 5, 6), tmp_path / "nowhere" / "lines")


def test_a_signal_between_steps_keeps_the_last_round(scan, in_memory, monkeypatch):
    """In the second round: the volume and the places of the first; in the first one there is nothing to keep."""
    from diffrecon.recipes import holotomography

    place, calls = holotomography.place_frames, []

    def placed(*arguments, quiet=False, **options):
        calls.append(quiet)
        if calls == [True] * stop:
            raise KeyboardInterrupt
        return place(*arguments, quiet=quiet, **options)

    monkeypatch.setattr(holotomography, "place_frames", placed)
    settings, stop = {"solver": {**SOLVER, "align": 2, "slab": 0}}, 2
    kept = recipes.reconstruct(scan, settings=settings)
    assert any("interrupted" in line and "round 2" in line for line in kept.verdict)
    match = np.corrcoef(kept["delta"].ravel(), in_memory["delta"].ravel())[0, 1]
    assert match > 0.9
    calls.clear()
    stop = 1
    with pytest.raises(KeyboardInterrupt):
        recipes.reconstruct(scan, settings=settings)


# ------------------------------------------------------------------------------------------------ joint
@pytest.mark.nightly
def test_interrupted_joint_descent_keeps_its_state_and_goes_on(scan, tmp_path):
    settings = {"solver": {"align": 1, "steps": 10}}
    whole = recipes.reconstruct(scan, settings=settings)
    path = str(tmp_path / "checkpoint")
    calls = []

    class Interrupted(Console):
        def progress(self, total, label):
            shown = super().progress(total, label)
            update = shown.update

            def interrupt(done, **figures):
                update(done, **figures)
                if "holotomography" in label and done >= 5 and not calls:
                    calls.append(done)
                    raise KeyboardInterrupt

            shown.update = interrupt
            return shown

    part = recipes.reconstruct(scan, settings=settings, console=Interrupted(quiet=True, checkpoint=path))
    assert calls and any("interrupted" in line for line in part.verdict)
    assert part.quality["history"].size < 10 and np.isfinite(part["delta"]).all()
    again = recipes.reconstruct(scan, settings=settings, console=Console(quiet=True, checkpoint=path, resume=True))
    assert again.quality["history"].size == whole.quality["history"].size
    np.testing.assert_allclose(again["delta"], whole["delta"], atol=1e-3 * np.abs(whole["delta"]).max())


def test_beta_has_a_volume_of_its_own(monkeypatch):
    """A ball that absorbs ten times what delta_beta says: beta and delta of the ball, in absolute units."""
    setup = simulated.Setup(angles=16, distances=4, frame=24, counts=50000.0, wobble=0.0, centre=0.0)
    delta, beta, radius = 4e-7, 2e-8, 7.0
    ball = np.array([[delta, beta, radius, radius, radius, 0.0, 0.0, 0.0, 0.0]])
    monkeypatch.setattr(simulated, "ellipsoids", lambda setup: ball)
    known = {"shifts": False, "centre": False, "delta_beta": 200.0, "beta": True, "beta_scale": 0.1}
    found = recipes.reconstruct(simulated.measure(setup)[0], settings={"model": known, "solver": {"steps": 15}})
    axis = np.arange(setup.frame) - (setup.frame - 1) / 2
    inside = sum(a**2 for a in np.meshgrid(axis, axis, axis)) < (radius - 2) ** 2
    assert np.mean(found["beta"][inside]) == pytest.approx(beta, rel=0.2)
    assert np.mean(found["delta"][inside]) == pytest.approx(delta, rel=0.1)


@pytest.mark.parametrize("name", ["two-step", pytest.param("joint", marks=pytest.mark.nightly)])
def test_halves_agree_where_there_is_signal(scan, name):
    short = {"steps": 5} if name == "joint" else {}
    solver = {"name": name, "align": 1, **short}
    found = recipes.reconstruct(scan, settings={"solver": solver, "quality": {"halves": True}})
    curve = found.quality["shell_correlation"]["correlation"]
    assert curve[1] > 0.8 > np.min(curve) and any("even against odd" in line for line in found.verdict)

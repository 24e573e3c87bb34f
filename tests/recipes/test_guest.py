"""A method of somebody else's: one file, by three doors, judged by the driver."""

import dataclasses
import importlib.metadata
import re
import signal
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import optax
import pytest

import diffrecon as dr
from diffrecon import modality
from diffrecon._look import REGISTERED
from diffrecon.cli import main
from diffrecon.scan import InputFile

PAGE = Path(__file__).resolve().parents[2] / "docs" / "extending.md"
GUEST = re.search(r"## A method\n.*?```python\n(.*?)```", PAGE.read_text(), re.DOTALL)


@pytest.fixture(autouse=True)
def own_register():
    before = dict(REGISTERED)
    yield
    REGISTERED.clear()
    REGISTERED.update(before)


@pytest.fixture
def guest(tmp_path):
    path = tmp_path / "fading.py"
    assert GUEST is not None
    path.write_text(GUEST[1])
    return path


def scan(views=20):
    rng = np.random.default_rng(0)
    image = 50 + 40 * np.sin(np.arange(12)[:, None] / 2) * np.cos(np.arange(14) / 3)
    counts = rng.poisson(image)[None].repeat(views, 0)
    return dr.Scan.from_arrays(counts.astype(np.int32), flux=77.0), counts[0]


def run(guest, **settings):
    exec(compile(guest.read_text(), str(guest), "exec"), {"__name__": "fading"})
    return dr.reconstruct(scan()[0], "fading-image", settings)


def test_driver_solves_and_judges_a_guest(guest):
    result = run(guest, quality={"halves": True})
    np.testing.assert_allclose(result["image"], scan()[1], rtol=0.05, atol=2)
    assert result.quality["held_out_residual"] < 0.02 and len(result.quality["held_out_views"]) == 2
    assert result.quality["history"].size == 400
    assert result.settings["solver"] == {"steps": 200, "rate": 0.05}
    assert any("two halves" in line for line in result.verdict)


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"solvr": {}}, "did you mean solver"),
        ({"solver": {"stepz": 1}}, "did you mean steps"),
        ({"solver": {"steps": 0}}, "at least 1"),
        ({"solver": {"rate": "fast"}}, "not a number"),
        ({"quality": {"halves": 3}}, "not true or false"),
    ],
)
def test_settings_of_a_guest_are_checked(guest, settings, message):
    with pytest.raises(dr.InputError, match=message):
        run(guest, **settings)


def test_needs_of_a_guest_are_checked(guest):
    run(guest)
    with pytest.raises(dr.MissingMetadata, match="the flux"):
        dr.reconstruct(scan()[0].replace(flux=None), "fading-image")


def test_interrupted_guest_goes_on_where_it_was(guest, tmp_path):
    exec(compile(guest.read_text(), str(guest), "exec"), {"__name__": "fading"})
    whole = dr.reconstruct(scan()[0], "fading-image")
    path = tmp_path / "run.checkpoint"

    class Stops(dr.Console):
        def progress(self, total, label):
            if label == "fine":
                raise KeyboardInterrupt
            return super().progress(total, label)

    first = dr.reconstruct(scan()[0], "fading-image", {}, Stops(quiet=True, checkpoint=str(path)))
    assert any("interrupted" in line and "in fine" in line for line in first.verdict)
    assert 0 < first.quality["history"].size < whole.quality["history"].size
    again = dr.reconstruct(scan()[0], "fading-image", {}, dr.Console(quiet=True, checkpoint=str(path), resume=True))
    np.testing.assert_array_equal(again["image"], whole["image"])
    assert again.settings == whole.settings
    np.testing.assert_array_equal(again.quality["history"], whole.quality["history"])
    other = {"solver": {"steps": 100}}
    with pytest.raises(dr.InputError, match=r"another problem, which differs in solver.steps \(200 then, 100 now\)"):
        dr.reconstruct(scan()[0], "fading-image", other, dr.Console(quiet=True, checkpoint=str(path), resume=True))


def test_a_stage_that_is_interrupted_goes_on_in_its_middle(guest, tmp_path):
    """Its state lies beside the journal, which is there from the start and says what both belong to."""
    exec(compile(guest.read_text(), str(guest), "exec"), {"__name__": "fading"})
    whole, path = dr.reconstruct(scan()[0], "fading-image"), tmp_path / "run.checkpoint"
    (tmp_path / "run.checkpoint.7").write_text("of another run")

    class Stops(dr.Console):
        def progress(self, total, label):
            progress = super().progress(total, label)
            progress.update = lambda done, **figures: signal.raise_signal(signal.SIGINT)
            return progress

    first = dr.reconstruct(scan()[0], "fading-image", {}, Stops(quiet=True, checkpoint=str(path)))
    assert 0 < first.quality["history"].size < 200 and "interrupted" in first.verdict[0]
    assert sorted(p.name for p in tmp_path.glob("run*")) == ["run.checkpoint", "run.checkpoint.0"]
    other = dr.Scan.from_arrays(scan()[0].counts + 1, flux=77.0)
    resumed = dr.Console(quiet=True, checkpoint=str(path), resume=True)
    with pytest.raises(dr.InputError, match="another problem, which differs in the frames, fitted counts;"):
        dr.reconstruct(other, "fading-image", {}, resumed)
    again = dr.reconstruct(scan()[0], "fading-image", {}, resumed)
    np.testing.assert_array_equal(again["image"], whole["image"])
    np.testing.assert_array_equal(again.quality["history"], whole.quality["history"])


def test_a_run_may_be_interrupted_twice(guest, tmp_path, monkeypatch):
    """What the journal had before the second run is there for the third."""
    exec(compile(guest.read_text(), str(guest), "exec"), {"__name__": "fading"})
    method = modality.find("fading-image")
    rule = optax.adam(0.05)
    monkeypatch.setattr(type(method), "stages", lambda *_: (dr.descent(f"part {i}", rule, 20) for i in range(3)))
    whole, path = dr.reconstruct(scan()[0], "fading-image"), str(tmp_path / "run.checkpoint")
    for last in ("part 1", "part 2"):

        class Stops(dr.Console):
            def progress(self, total, label, last=last):
                if label == last:
                    raise KeyboardInterrupt
                return super().progress(total, label)

        resumed = Stops(quiet=True, checkpoint=path, resume=last == "part 2")
        part = dr.reconstruct(scan()[0], "fading-image", {}, resumed)
        assert any("interrupted" in line and last in line for line in part.verdict)
    again = dr.reconstruct(scan()[0], "fading-image", {}, dr.Console(quiet=True, checkpoint=path, resume=True))
    np.testing.assert_array_equal(again["image"], whole["image"])
    np.testing.assert_array_equal(again.quality["history"], whole.quality["history"])


def test_command_line_takes_a_guest(guest, tmp_path, capsys):
    np.savez(tmp_path / "a.npz", counts=scan()[0].counts, flux=77.0)
    common = ["-m", "fading-image", "--with", str(guest), "-o", str(tmp_path / "out.h5"), "--set", "solver.steps=50"]
    assert main(["reconstruct", str(tmp_path / "a.npz"), "-q", *common]) == 0
    assert dr.read_result(tmp_path / "out.h5").method == "fading-image"
    assert main(["reconstruct", str(tmp_path / "a.npz"), "-m", "fading-image", "--settings", "--with", str(guest)]) == 0
    assert "steps = 200  # steps of Adam (at least 1)" in capsys.readouterr().out


def test_guest_has_a_demo(guest, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(dr.simulate, "_MODULES", dict(dr.simulate._MODULES))
    demo = """
import h5py
import diffrecon as dr

def write(path, seed):
    with h5py.File(path, "w") as file:
        file["frames"] = np.full((12, 8, 8), 5.0)

class Simulation:
    SETTINGS = ("data.flux=77", "data.counts=/frames")
    write = staticmethod(write)
    judge = staticmethod(lambda path, result: [f"mean {result['image'].mean():.2f}"])

dr.simulate.register("fading-image", Simulation)
"""
    guest.write_text(guest.read_text() + demo)
    assert main(["demo", "fading-image", "--with", str(guest), "-o", str(tmp_path)]) == 0
    assert "mean 5.0" in capsys.readouterr().out


def test_guest_that_does_not_run_is_named_with_its_line(tmp_path, capsys):
    (tmp_path / "bad.py").write_text("x = 1\ny = x + z\n")
    assert main(["inspect", "nothing.h5", "--with", str(tmp_path / "bad.py")]) == 2
    assert "bad.py does not run (line 2): NameError" in capsys.readouterr().err


def test_installed_package_offers_a_method(guest, monkeypatch):
    space: dict = {"__name__": "fading"}
    exec(compile(guest.read_text(), str(guest), "exec"), space)
    REGISTERED.pop("fading-image")

    class Point:
        name = "fading-image"
        load = staticmethod(lambda: space["FadingImage"])

    monkeypatch.setattr(importlib.metadata, "entry_points", lambda group: [Point] * (group == "diffrecon.modalities"))
    assert "fading-image" in dr.recipes.methods()
    assert dr.reconstruct(scan()[0], "fading-image")["image"].shape == (12, 14)


def test_two_problems_make_one(guest):
    """The sum of two costs over the same views, in which a field of the same name is one unknown."""
    run(guest)
    settings = modality.find("fading-image").settings()
    problem = modality.find("fading-image").start(scan()[0], settings, dr.Console(quiet=True))
    both = problem + problem.replace(model=problem.model.replace(gain=2 * problem.model.gain))
    views = np.arange(4)
    batch = lambda p: dr.Batch(views, modality.subset(p.data, views, p.shared))
    image = jnp.full((12, 14), 30.0)
    moved = lambda p: p.replace(model=p.model.replace(image=image))
    alone = moved(problem).cost(moved(problem).model, batch(problem))
    twice = moved(problem).model.replace(gain=2 * problem.model.gain)
    total = both.cost(modality.put(both.model, {"first.image": image}), batch(both))
    assert float(total) == pytest.approx(float(alone + problem.cost(twice, batch(problem))), rel=1e-5)
    assert set(both.unknowns) == {"first.image", "first.rate"} and both.of(views).views == 4


def test_a_solve_is_not_lost_where_its_judgement_is(guest, monkeypatch, tmp_path):
    """Ctrl-C while unseen views judge, or an input that is gone by then: the result says what was not done."""
    exec(compile(guest.read_text(), str(guest), "exec"), {"__name__": "fading"})
    method, start = modality.find("fading-image"), scan()[0]

    def raising(error):
        def judge(*_):
            raise error

        return judge

    monkeypatch.setattr(type(method), "judge", raising(KeyboardInterrupt()))
    result = dr.reconstruct(start, "fading-image", {"solver": {"steps": 5}})
    assert "not done: judging" in result.verdict[0] and "image" in result.quantities
    monkeypatch.setattr(type(method), "judge", raising(dr.InputError("counts cannot be read")))
    with pytest.raises(dr.InputError, match="cannot be read"):
        dr.reconstruct(start, "fading-image", {"solver": {"steps": 5}})
    (tmp_path / "frames").write_text("gone by then")
    made = dataclasses.replace(start.provenance, files=(InputFile.of(tmp_path / "frames"),))
    (tmp_path / "frames").unlink()
    result = dr.reconstruct(start.replace(provenance=made), "fading-image", {"solver": {"steps": 5}})
    assert "the input has changed or gone: judging" in result.verdict[0] and "cannot be read" in result.verdict[0]

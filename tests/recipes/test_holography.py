"""The holography recipe on data of an independent generator, whose truth it must find."""

import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest

from diffrecon import Console, recipes, solvers
from diffrecon.errors import InputError
from diffrecon.io import open_scan, read_result, write
from diffrecon.prepare import mend_outliers
from diffrecon.simulate import holography as simulation
from diffrecon.solvers import Ending

QUICK = {"solver": {"rounds": 1, "steps": 3, "cg_steps": 10, "tv_rounds": 1}}


@pytest.fixture(scope="module")
def simulated(tmp_path_factory):
    patch = pytest.MonkeyPatch()
    patch.setattr(simulation, "FRAME", 128)
    patch.setattr(simulation, "DETECTOR_PIXEL", 4.5e-6)
    path = tmp_path_factory.mktemp("holography") / "holograms.h5"
    truth = simulation.write(path, seed=7)
    yield path, truth
    patch.undo()


@pytest.fixture(scope="module")
def found(simulated):
    """With the halves of the photons, which change nothing of it."""
    return recipes.reconstruct(open_scan(simulated[0]), None, QUICK | {"quality": {"halves": "photons"}})


def relative(found, truth):
    error = found - truth
    return np.linalg.norm(error - error.mean()) / np.linalg.norm(truth - truth.mean())


def test_recipe_finds_the_phase_and_the_shifts(simulated, found, tmp_path):
    path, truth = simulated
    assert relative(found["phase"], truth["phase"]) < 0.05
    ratios = found.quality["deviance"] / found.quality["noise_floor_deviance"]
    assert 0.7 < ratios.min() and ratios.max() < 1.1
    # The frames of the simulation are not shifted: what registration and refinement leave is their error.
    assert np.abs(found.quality["shifts"]).max() < 0.15
    write(tmp_path / "result.h5", found, open_scan(path))
    lines = simulation.judge(path, read_result(tmp_path / "result.h5"))
    assert "nm" in lines[1] and float(lines[0].partition("relative error ")[2].split()[0]) < 0.05
    # Errors are as large as their bars, up to the constant that holograms do not tell: 0.683 of a normal law.
    error, bar = (found["phase"] - truth["phase"])[8:-8, 8:-8], found["phase_error"][8:-8, 8:-8]
    assert 0.58 < np.mean(np.abs(error - error.mean()) < bar) < 0.78


def test_named_materials_give_thicknesses(simulated):
    pytest.importorskip("xraydb")
    settings = {
        "model": {"materials": {"silica": "SiO2, 2.2", "resin": "C5H8O2, 1.19"}, "register": False},
        "solver": {"rounds": 1, "steps": 2, "cg_steps": 8},
        "loss": {"tv": 0.0},
        "quality": {"error_bar": False},
    }
    result = recipes.reconstruct(open_scan(simulated[0]), "holography", settings)
    assert relative(result["phase"], simulated[1]["phase"]) < 0.1
    assert {"thickness_resin", "thickness_silica"} <= set(result.quantities)
    assert result["thickness_resin"].max() > 2e-7  # [m]


def test_file_holds_the_truth_and_opens_as_it_is(simulated):
    path, truth = simulated
    scan = open_scan(path)
    assert scan.method == "holography" and scan.flux == 4000 and scan.counts.shape == (4, 128, 128)
    assert truth["phase"].min() < -0.5 and truth["attenuation"].max() < 0.01
    # An empty corner: the counts there are the flux within photon noise of its mean.
    corner = np.asarray(scan.counts[3])[:8, :8].mean()
    assert corner == pytest.approx(4000, rel=0.02)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"model": {"material": "C7H9O3"}}, "density"),
        ({"model": {"materials": {"resin": "C7H9O3"}}}, "density"),
        ({"model": {"materials": "C5H8O2"}}, "table"),
        ({"model": {"delta_beta": -3.0}}, "above 0"),
        ({"model": {"refine": ["shift"]}}, "refine"),
        ({"model": {"refine": "shift"}}, "there is no 'shift'"),
        ({"prepare": {"outliers": -1.0}}, "at least 0"),
        ({"loss": {"tv": -1.0}}, "at least 0"),
        ({"loss": {"vacuum": -1.0}}, "at least 0"),
        ({"model": {"probe": "flats"}}, "needs flats"),
        ({"model": {"probe": "yes"}}, "none of"),
        ({"quality": {"halves": "views"}}, "none of"),
    ],
)
def test_bad_settings_are_refused(simulated, settings, message):
    with pytest.raises(InputError, match=message):
        recipes.reconstruct(open_scan(simulated[0]), "holography", settings)


@pytest.mark.nightly
def test_defects_of_the_detector_change_nothing(simulated, found):
    scan = open_scan(simulated[0])
    counts = np.array(scan.counts)
    counts[:, 50:52, 90:92], counts[:, 120, 100], counts[2, 80, 60] = 0, 60000, 50000
    broken = scan.replace(counts=counts)
    result = recipes.reconstruct(broken, "holography", QUICK | {"quality": {"error_bar": False}})
    assert relative(result["phase"], simulated[1]["phase"]) < 1.1 * relative(found["phase"], simulated[1]["phase"])
    ratios = result.quality["deviance"] / result.quality["noise_floor_deviance"]
    assert ratios.max() < 1.1


def test_a_pattern_is_not_taken_for_defects():
    """Pixels that are unlike one another throughout, and no flats: said, and kept."""
    random = np.random.default_rng(0)
    counts, mask = random.poisson(1000, (2, 64, 64)).astype(float), np.ones((64, 64), bool)
    counts[:, random.random((64, 64)) < 0.05] = 0
    kept, good, message = mend_outliers(counts, jnp.full((1, 1, 1), 1000.0), mask)
    assert kept is counts and good is mask and "too many" in message


@pytest.mark.nightly
def test_an_interrupted_run_goes_on_to_the_same_result(simulated, found, tmp_path, monkeypatch):
    checkpoint, solve, rounds = str(tmp_path / "run.checkpoint"), solvers.levenberg_marquardt, []

    def interrupted_after_the_binned_frames(*arguments, **options):
        rounds.append(1)
        solution = solve(*arguments, **options)
        return dataclasses.replace(solution, ending=Ending.INTERRUPTED) if len(rounds) == 4 else solution

    monkeypatch.setattr("diffrecon.solvers.holography.levenberg_marquardt", interrupted_after_the_binned_frames)
    console = lambda resume: Console(quiet=True, checkpoint=checkpoint, resume=resume)
    part = recipes.reconstruct(open_scan(simulated[0]), None, QUICK, console(False))
    assert any("interrupted" in line for line in part.verdict) and "phase_error" not in part.quantities
    assert len(rounds) == 4
    whole = recipes.reconstruct(open_scan(simulated[0]), None, QUICK, console(True))
    assert len(rounds) == 4 + 2  # all three rounds of the binned frames were read
    np.testing.assert_allclose(whole["phase"], found["phase"], atol=2e-4)


def test_halves_say_the_resolution(simulated, found):
    quality = {"halves": "distances", "error_bar": False}
    distances = recipes.reconstruct(open_scan(simulated[0]), None, QUICK | {"quality": quality})
    for kind, result in (("photons", found), ("distances", distances)):
        assert any(f"two halves of the {kind}" in line and "nm" in line for line in result.verdict)
        assert result.quality["correlation"][2] > 0.9

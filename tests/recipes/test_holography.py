"""The holography recipe on data of an independent generator, whose truth it must find."""

import numpy as np
import pytest

from diffrecon import recipes
from diffrecon.errors import InputError
from diffrecon.io import open_scan
from diffrecon.simulate import _holography as simulation

QUICK = {"solver": {"rounds": 1, "steps": 3, "cg_steps": 10, "tv_rounds": 1}}


@pytest.fixture(scope="module")
def simulated(tmp_path_factory):
    patch = pytest.MonkeyPatch()
    patch.setattr(simulation, "FRAME", 192)
    path = tmp_path_factory.mktemp("holography") / "holograms.h5"
    truth = simulation.write(path, seed=7)
    yield path, truth
    patch.undo()


@pytest.fixture(scope="module")
def found(simulated):
    return recipes.reconstruct(open_scan(simulated[0]), None, QUICK)


def relative(found, truth):
    error = found - truth
    return np.linalg.norm(error - error.mean()) / np.linalg.norm(truth - truth.mean())


def test_recipe_finds_the_phase_and_the_shifts(simulated, found):
    path, truth = simulated
    assert relative(found["phase"], truth["phase"]) < 0.05
    ratios = found.quality["deviance"] / found.quality["noise_floor_deviance"]
    assert 0.7 < ratios.min() and ratios.max() < 1.1
    # The frames of the simulation are not shifted: what registration and refinement leave is their error.
    assert np.abs(found.quality["shifts"]).max() < 0.15
    assert "nm" in simulation.judge(path, found)[1]


def test_named_materials_give_thicknesses(simulated):
    pytest.importorskip("xraydb")
    settings = {
        "model": {"materials": {"silica": "SiO2, 2.2", "resin": "C5H8O2, 1.19"}, "register": False},
        "solver": {"rounds": 1, "steps": 2, "cg_steps": 8}, "loss": {"tv": 0.0},
    }
    result = recipes.reconstruct(open_scan(simulated[0]), "holography", settings)
    assert relative(result["phase"], simulated[1]["phase"]) < 0.1
    assert {"thickness_resin", "thickness_silica"} <= set(result.quantities)
    assert result["thickness_resin"].max() > 2e-7  # [m]


def test_file_holds_the_truth_and_opens_as_it_is(simulated):
    path, truth = simulated
    scan = open_scan(path)
    assert scan.method == "holography" and scan.flux == 4000 and scan.counts.shape == (4, 192, 192)
    assert truth["phase"].min() < -0.5 and truth["attenuation"].max() < 0.01
    # An empty corner: the counts there are the flux within photon noise of its mean.
    corner = np.asarray(scan.counts[3])[:8, :8].mean()
    assert corner == pytest.approx(4000, rel=0.02)


@pytest.mark.parametrize(("settings", "message"), [
    ({"model": {"material": "C7H9O3"}}, "density"),
    ({"model": {"materials": {"resin": "C7H9O3"}}}, "density"),
    ({"model": {"materials": "C5H8O2"}}, "table"),
    ({"model": {"delta_beta": -3.0}}, "positive"),
    ({"model": {"refine": ["shift"]}}, "refine"),
    ({"loss": {"tv": -1.0}}, "negative"),
])
def test_bad_settings_are_refused(simulated, settings, message):
    with pytest.raises(InputError, match=message):
        recipes.reconstruct(open_scan(simulated[0]), "holography", settings)

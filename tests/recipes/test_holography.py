"""The holography recipe on data of an independent generator, whose truth it must find."""

import numpy as np
import pytest

from diffrecon import recipes
from diffrecon.errors import InputError
from diffrecon.io import open_scan
from diffrecon.simulate import _holography as simulation

QUICK = {"solver": {"steps": [12, 4, 4]}}


@pytest.fixture(scope="module")
def simulated(tmp_path_factory):
    path = tmp_path_factory.mktemp("holography") / "holograms.h5"
    return path, simulation.write(path, seed=7)


@pytest.mark.slow
def test_recipe_finds_the_phase(simulated):
    path, truth = simulated
    result = recipes.reconstruct(open_scan(path), None, QUICK)
    found = result["phase"]
    error = found - truth["phase"]
    relative = np.linalg.norm(error - error.mean()) / np.linalg.norm(truth["phase"] - truth["phase"].mean())
    assert relative < 0.04
    ratios = result.quality["deviance"] / result.quality["noise_floor_deviance"]
    assert ratios.max() < 1.1
    lines = simulation.judge(path, result)
    assert f"{relative:.3f}"[:4] in lines[0] and "nm" in lines[1]


def test_file_holds_the_truth_and_opens_as_it_is(simulated):
    path, truth = simulated
    scan = open_scan(path)
    assert scan.method == "holography" and scan.flux == 4000 and scan.counts.shape == (4, 256, 256)
    assert truth["phase"].min() < -0.5 and truth["attenuation"].max() < 0.01
    # An empty corner: the counts there are the flux within photon noise of its mean.
    corner = np.asarray(scan.counts[3])[:16, :16].mean()
    assert corner == pytest.approx(4000, rel=0.02)


def test_same_seed_same_data(tmp_path, simulated):
    again = simulation.write(tmp_path / "again.h5", seed=7)
    np.testing.assert_array_equal(again["phase"], simulated[1]["phase"])


@pytest.mark.parametrize(("settings", "message"), [
    ({"material": "SiO2"}, "density"),
    ({"delta_beta": -3.0}, "positive"),
])
def test_bad_settings_are_refused(simulated, settings, message):
    with pytest.raises(InputError, match=message):
        recipes.reconstruct(open_scan(simulated[0]), "holography", {"model": settings})

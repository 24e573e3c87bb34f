"""Laminography from raw counts of exact ellipsoids to a volume; a tilt that is wrong by a degree is found."""

import numpy as np
import pytest
from ellipsoids import ellipsoid_projection, ellipsoid_volume, error

import diffrecon as dr
from diffrecon.operators import laminography_poses

N, VIEWS, TILT = 20, 40, np.deg2rad(25)


@pytest.fixture(scope="module")
def scan():
    angles = np.linspace(0, 2 * np.pi, VIEWS, endpoint=False)
    poses = zip(*laminography_poses(angles, TILT), strict=True)
    exact = np.stack([ellipsoid_projection(*pose, (N, N + 2), N, 2) for pose in poses])
    counts = np.random.default_rng(0).poisson(1e6 * np.exp(-0.05 * exact))
    flats, darks = np.full((2, N, N + 2), 1000100), np.full((2, N, N + 2), 100)
    return dr.Scan.from_arrays(counts + 100, angles=angles, flats=flats, darks=darks, extra={"tilt": TILT})


def test_tilt_wrong_by_a_degree_is_found(scan):
    settings = {"model": {"tilt": TILT + np.deg2rad(1.0), "size": N}, "align": {"tilt": True}, "solver": {"steps": 15}}
    result = dr.reconstruct(scan, "laminography", settings)
    assert any("found by the residual" in line for line in result.verdict)
    assert abs(np.rad2deg(result.quality["tilt"] - TILT)) < 0.05
    truth = 0.05 * ellipsoid_volume(N)
    assert error(result["volume"], truth) < 0.2
    assert any("not measured" in line for line in result.verdict)


@pytest.mark.nightly
@pytest.mark.parametrize(
    "solver",
    [
        {"name": "fbp", "filter": "hann"},
        {"name": "fista", "steps": 30},
    ],
)
def test_other_solvers(scan, solver):
    result = dr.reconstruct(scan, "laminography", {"model": {"size": N}, "solver": solver})
    assert error(result["volume"], 0.05 * ellipsoid_volume(N)) < (0.4 if solver["name"] == "fbp" else 0.2)


def test_rows_without_light_and_mixed_angles(scan):
    """All slices see a row: it is filled from those beside; angles in another order leave far more than noise."""
    ask = {"model": {"size": N}, "solver": {"steps": 15}}
    plain = dr.reconstruct(scan, "laminography", ask)
    dark = np.where(np.arange(N)[:, None] == 8, 100, scan.flats)
    result = dr.reconstruct(scan.replace(flats=dark), "laminography", ask)
    assert error(result["volume"], np.asarray(plain["volume"])) < 0.1
    assert any("filled from the rows beside them" in line for line in result.verdict)
    angles = np.random.default_rng(0).permutation(scan.angles)
    mixed = dr.reconstruct(scan.replace(angles=angles), "laminography", ask)
    assert any("WARNING: the volume leaves" in line for line in mixed.verdict)
    assert not any("WARNING" in line for line in plain.verdict)


def test_wrong_settings_are_refused(scan):
    with pytest.raises(dr.InputError, match="model.tilt"):
        dr.reconstruct(scan.replace(extra={}), "laminography")
    with pytest.raises(dr.InputError, match="must lie between"):
        dr.reconstruct(scan, "laminography", {"model": {"tilt": 30.0}})
    with pytest.raises(dr.InputError, match="did you mean cgls"):
        dr.reconstruct(scan, "laminography", {"solver": {"name": "cgl"}})
    with pytest.raises(dr.InputError, match="model.size"):
        dr.reconstruct(scan, "laminography", {"model": {"size": [4, 5]}})

"""Numbers that are none, and volumes that cannot hold the sample, are refused before the solve."""

import dataclasses
from types import SimpleNamespace

import h5py
import numpy as np
import pytest

import diffrecon as dr
from diffrecon.errors import InputError
from diffrecon.modality import Problem
from diffrecon.operators import TensorGeometry, rotations_from_angles
from diffrecon.recipes._tensor_figures import judged, spheres
from diffrecon.recipes.tensor_saxs import Settings, _check
from diffrecon.regimes import directions

PLACE = TensorGeometry(
    rotations_from_angles(inner=np.linspace(0, 3, 5), outer=np.zeros(5)),
    offsets=np.zeros((5, 2)),
    detector_angles=np.arange(8) * np.pi / 8,
)


def scan(**changes):
    fields = {k: changes.pop(k) for k in ("weights", "transmission") if k in changes}
    return dr.Scan(counts=np.ones((5, 8, 22, 8)), tensor_geometry=dataclasses.replace(PLACE, **changes), **fields)


def test_offsets_and_weights_that_are_no_numbers_are_refused():
    offsets = np.zeros((5, 2))
    offsets[3, 1] = np.nan
    with pytest.raises(InputError, match="offsets of view 3 are not finite"):
        _check(scan(offsets=offsets), None)
    with pytest.raises(InputError, match="transmission are not finite"):
        _check(scan(transmission=np.full((5, 8, 22), np.nan)), None)
    _check(scan(), Settings().model.volume_shape)


@pytest.mark.parametrize("shape", [(1, 2, 3), (8, 4, 4)])
def test_a_volume_far_smaller_than_the_frames_is_refused(shape):
    with pytest.raises(InputError, match="volume_shape.*some \\[8, 22, 22\\]"):
        _check(scan(), shape)
    _check(scan(), (8, 16, 16))


def test_the_residual_stands_beside_photon_noise_read_from_the_data():
    """Poisson counts of a smooth frame with an edge, divided by flux and transmission; in any unit of the data."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:24, :24] / 24.0
    clean = (1 + np.sin(4 * y) * np.cos(3 * x))[None, ..., None] * np.linspace(0.5, 1.5, 5)[:, None, None, None]
    clean = np.broadcast_to(np.where(x > 0.2, 1.0, 0.0)[None, ..., None] * clean, (5, 24, 24, 6))
    light, flux, unit = np.exp(-y - x)[None] * np.ones((5, 1, 1)), 60.0, 7.0
    data = unit * rng.poisson(flux * clean * light[..., None]) / flux / light[..., None]
    problem = lambda prediction: Problem(
        SimpleNamespace(projector=lambda _: prediction, coefficients=None),
        {"counts": data, "transmission": light},
        cost=lambda model, batch: 0.0,
        unknowns={},
    )
    figures, lines = judged(problem(unit * clean))
    expected = np.sqrt(np.sum(unit**2 * clean / flux / light[..., None]) / np.sum(data**2))
    assert figures["photon_noise"] == pytest.approx(expected, rel=0.1)
    assert figures["relative_residual"] == pytest.approx(expected, rel=0.1) and len(lines) == 1
    _, lines = judged(problem(unit * clean[::-1]))  # views in another order
    assert "does not explain the data" in lines[-1]


def test_missing_wedge_follows_from_the_rays():
    """Rays all over the sphere see everything; one turn sees its axis whole, and of the rest the poles of its rays."""
    turn = np.linspace(0, np.pi, 36, endpoint=False)
    one = directions(np.stack([np.cos(turn), np.sin(turn), 0 * turn], 1))
    height = (np.arange(400) + 0.5) / 400
    spiral = np.sqrt(1 - height**2)[:, None] * np.stack([np.cos(2.4 * np.arange(400)), np.sin(2.4 * np.arange(400))], 1)
    every = directions(np.column_stack([spiral, height]))
    assert every.missing < 0.01
    tolerance = one.tolerance  # directions across the axis see rays within it of the equator, of a quarter circle
    assert one.share[-1].mean() == pytest.approx(tolerance / (np.pi / 2), abs=0.05) and one.share[0].min() == 1
    tilted = directions(PLACE.in_sample(PLACE.beam), two_theta=0.2)
    assert 0 < tilted.missing < 1 and "missing wedge" in tilted.sentence()


def test_functions_of_direction_are_those_of_the_voxels():
    coefficients = np.zeros((2, 3, 4, 6))
    coefficients[1, 2, 3, [0, 3]] = 1.0, 0.5  # 1 + 0.5 sqrt(5) (3 z^2 - 1) / 2
    shown = spheres(coefficients, np.ones((2, 3, 4)), (1, 2, 3), 2)["functions"]
    z = np.cos((np.arange(18) + 0.5) * np.pi / 36)
    np.testing.assert_allclose(shown.data[0, :, 7], 1 + 0.25 * np.sqrt(5) * (3 * z**2 - 1), atol=1e-6)
    assert spheres(coefficients, np.arange(24.0).reshape(2, 3, 4), None, 2)["functions"].data.shape == (3, 18, 72)
    for places in ((1, 2), (2, 0, 0)):
        with pytest.raises(InputError, match="model.shown"):
            spheres(coefficients, np.ones((2, 3, 4)), places, 2)


@pytest.mark.parametrize("shape", [(3, 5, 4, 8), (5, 4, 8), (3, 5, 4), (5, 4)])
def test_marks_of_any_pixels_become_weights(tmp_path, shape):
    path = tmp_path / "scan.h5"
    with h5py.File(path, "w") as file:
        file["detector_angles"] = np.arange(8) * np.pi / 8
        for n in range(3):
            group = file.create_group(f"projections/{n}")
            group["data"], group["rotation_matrix"] = np.ones((4, 5, 8)), PLACE.rotations[n]
    marks = np.zeros(shape, bool)
    marks[(0,) * len(shape)] = True
    scan = dr.open_scan(path, bad_pixels=marks)
    assert scan.weights.shape == (3, 5, 4, 8) and scan.mask is None
    assert (scan.weights == 0).sum() == np.prod((3, 5, 4, 8)) / np.prod(shape)
    assert scan.weights.ravel()[0] == 0
    with pytest.raises(InputError, match="row, column, segment"):
        dr.open_scan(path, mask=np.ones((5, 5)))

import numpy as np
import pytest

import diffrecon as dr
from diffrecon import prepare
from diffrecon.errors import InputError
from diffrecon.prepare._full_turn import onwards

from .sinograms import ellipses, sinogram


def noisy(views, turn, size, columns, centre, seed=0, rows=1):
    angles = np.linspace(0, turn, views, endpoint=False)
    rng = np.random.default_rng(seed)
    stack = np.stack([sinogram(ellipses(seed + r), angles, size, columns, centre) for r in range(rows)], 1)
    return (stack + 0.01 * rng.standard_normal(stack.shape)).astype(np.float32), angles


@pytest.mark.parametrize(
    "views, turn, size, centre, within",
    [
        (240, np.pi, 100, 70.7, 0.15),
        (40, np.pi, 100, 55.2, 0.4),  # few views
        (9, np.pi, 100, 70.3, 0.5),
        (300, 2 * np.pi, 100, 71.6, 0.1),
        (300, np.pi, 200, 67.1, 0.3),  # the sample leaves the detector
        (360, 2 * np.pi, 180, 108.3, 0.15),  # half views
        (360, 2 * np.pi, 180, 19.3, 0.15),
    ],
)
def test_centre_is_found(views, turn, size, centre, within):
    values, angles = noisy(views, turn, size, 128, centre, seed=6)
    found = prepare.find_rotation_centre(values, angles)
    assert abs(found.centre - centre) < within, found.message
    assert set(found.estimates) <= {"mirror", "double wedge", "mass", "reconstruction"}
    if size == 100:  # nothing leaves the detector: all that apply agree
        assert {"double wedge", "mass", "reconstruction"} <= set(found.estimates)
        assert "WARNING" not in found.message


def test_few_views_in_any_order():
    """Golden angles, of which no two neighbours are alike: the double wedge is lost, least squares decide."""
    angles = np.mod(np.arange(24) * np.radians(111.246), np.pi)
    values = sinogram(ellipses(6), angles, 100, 128, 70.3)[:, None]
    found = prepare.find_rotation_centre(values.astype(np.float32), angles)
    assert abs(found.centre - 70.3) < 0.3 and "WARNING" not in found.message, found.message


def test_an_optimum_on_the_edge_of_the_search_is_said():
    values, angles = noisy(240, np.pi, 100, 128, 80.0)
    found = prepare.find_rotation_centre(values, angles, search=(40, 72))
    assert "WARNING" in found.message and "edge of the search from 40 to 72" in found.message


def test_rows_without_contrast_are_passed_over():
    values, angles = noisy(200, np.pi, 100, 128, 70.7)
    air = 0.01 * np.random.default_rng(1).standard_normal((200, 6, 128)).astype(np.float32)
    found = prepare.find_rotation_centre(np.concatenate([air, values], 1), angles, rows=1)
    assert abs(found.centre - 70.7) < 0.2


@pytest.mark.parametrize("said, binning", [({"columns": "8:60"}, 1), ({"region": [0, 2, 70, 110], "binning": 2}, 2)])
def test_the_axis_of_some_columns_is_looked_for_in_whole_rows(tmp_path, said, binning):
    """Counts, flats and a dead column of a file of which a part beside the axis, or little around it, is read."""
    values, angles = noisy(120, np.pi, 100, 128, 66.3)
    light = np.rint(4e3 * np.exp(-np.repeat(values, 2, 1)) + 20).astype(np.uint16)
    light[:, :, 90] = 3000
    good = np.arange(128)[None].repeat(2, 0) != 90
    flats, darks = np.full((3, 2, 128), 4020, np.uint16), np.full((3, 2, 128), 20, np.uint16)
    np.savez(tmp_path / "a.npz", counts=light, flats=flats, darks=darks, angles=angles, mask=good)
    scan = dr.open_scan(tmp_path / "a.npz", method="tomography", angle_unit="rad", **said).subset(
        np.arange(119, -1, -1)
    )
    found = prepare.Preparation(scan).find_rotation_centre()
    assert abs(scan.window.whole_column(found.centre) - 66.3) < 0.3, found.message
    assert f"in rows of {128 // binning} columns, of which {scan.frame_shape[1]} were chosen" in found.message


def test_angles_that_pass_a_turn_are_those_of_half_a_turn():
    values, angles = noisy(90, np.pi, 100, 128, 66.4)
    plain = prepare.find_rotation_centre(values, angles).centre
    assert prepare.find_rotation_centre(values, np.mod(angles + 5.2, 2 * np.pi)).centre == pytest.approx(
        plain, abs=0.02
    )
    assert np.ptp(onwards(np.mod(angles - 1, 2 * np.pi))) < np.pi


def test_what_cannot_be_found_is_refused():
    values, angles = noisy(90, np.pi, 100, 128, 63.0)
    with pytest.raises(InputError, match="half a turn"):
        prepare.find_rotation_centre(values[:60], angles[:60])
    with pytest.raises(InputError, match="do not differ"):
        prepare.find_rotation_centre(np.zeros((90, 1, 128), np.float32), angles)
    with pytest.raises(InputError, match="frames of 2 columns are too narrow"):
        prepare.find_rotation_centre(values[..., :2], angles)


def test_tooth(shared_data):
    scan = dr.open_scan(shared_data / "real" / "tooth.h5")
    found = prepare.Preparation(scan).find_rotation_centre()
    assert abs(found.centre - 295.8) < 0.4 and "WARNING" not in found.message

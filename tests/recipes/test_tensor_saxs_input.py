"""Numbers that are none, and volumes that cannot hold the sample, are refused before the solve."""

import dataclasses

import numpy as np
import pytest

import diffrecon as dr
from diffrecon.errors import InputError
from diffrecon.operators import TensorGeometry, rotations_from_angles
from diffrecon.recipes.tensor_saxs import Settings, _check

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

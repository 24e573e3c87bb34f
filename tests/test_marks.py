"""Values by which detectors mark what they did not measure, in any type; light and noise are none."""

import h5py
import numpy as np
import pytest

import diffrecon as dr
from diffrecon.marks import find_marks

LIGHT = np.random.default_rng(0).poisson(200, (12, 24, 40))
GAPS = np.zeros((24, 40), bool)
GAPS[5:8] = GAPS[:, 30] = True
MARKS = [
    *((kind, 2**32 - 1) for kind in ("uint32", "int64", "uint64", "float32", "float64")),
    *((kind, 2**16 - 1) for kind in ("uint16", "uint32", "int64", "float32")),
    *((kind, value) for kind in ("int16", "int32", "float32") for value in (-1, -2, -8)),
    *(("int32", 2**31 - 1), ("float32", 2**31 - 1), ("uint64", 2**64 - 1), ("uint32", 2**32 - 2)),
    *(("float32", np.nan), ("float64", np.inf), ("int64", 10**6)),
]


def marked(kind, value, gaps=GAPS):
    counts = LIGHT.astype(kind)
    counts[:, gaps] = value
    return counts


@pytest.mark.parametrize("kind, value", MARKS)
def test_a_mark_is_found_whatever_its_type(kind, value):
    scan = dr.Scan.from_arrays(marked(kind, value))
    assert np.array_equal(scan.mask, ~GAPS) and scan.counts.max() < 400 and scan.counts.min() >= 0
    assert f"{GAPS.sum()} pixels" in scan.provenance.messages[-1] and scan.counts.dtype == kind


def test_light_noise_and_saturation_are_no_marks():
    random = np.random.default_rng(1)
    assert find_marks(LIGHT) is None
    subtracted = (random.poisson(0.5, LIGHT.shape) - random.poisson(0.5, LIGHT.shape)).astype(np.int32)
    assert all(find_marks(subtracted[:views]) is None for views in (1, 3, 5, 12))
    camera = np.minimum(random.poisson(65000, LIGHT.shape), 65535).astype(np.uint16)
    camera[:, 5:15, 5:15] = 3000
    camera[:, :, 30:] = 65535  # air that is too bright, beside air that is nearly so
    assert find_marks(camera) is None
    beam = LIGHT.astype(np.uint32)
    beam[:, 12, 20] = random.poisson(40000, len(beam))  # a bright spot that fluctuates as light does
    assert find_marks(beam) is None


def test_ends_of_sixteen_bits_are_marks_beside_a_beam_that_is_brighter():
    y, x = np.indices((24, 40))
    counts = LIGHT.astype(np.uint32)
    counts += (2e5 * np.exp(-((y - 12) ** 2 + (x - 12) ** 2) / 8)).astype(np.uint32)
    assert find_marks(counts) is None and find_marks(counts[:1]) is None
    for views in (1, 12):
        some = counts[:views].copy()
        some[:, GAPS] = 65535
        assert np.array_equal(find_marks(some).pixels, GAPS)


def test_one_marked_pixel_does_not_move_the_zero_frequency(tmp_path):
    y, x = np.indices((24, 40))
    counts = np.random.default_rng(0).poisson(300 * np.exp(-((y - 12) ** 2 + (x - 20) ** 2) / 20), (12, 24, 40))
    hot = np.random.default_rng(1).poisson(100_000, 12)
    for name, value in (("mark", 2**32 - 1), ("noisy", hot), ("none", counts[:, 1, 2])):
        counts[:, 1, 2] = value
        np.savez(tmp_path / f"{name}.npz", counts=counts.astype(np.uint32), positions=np.arange(24.0).reshape(12, 2))
        scan = dr.open_scan(tmp_path / f"{name}.npz", method="far-field-ptychography", positions_unit="pixel")
        assert scan.extra["dc"] == "centre", name


def test_marks_are_masked_before_frames_are_cut_and_summed(tmp_path):
    with h5py.File(tmp_path / "scan.h5", "w") as file:
        file["counts"], file["flats"] = marked("uint32", 2**32 - 1), marked("uint32", 2**32 - 1)[:2]
        file["angles"] = np.linspace(0, 3, 12)
    options = {"counts": "/counts", "flats": "/flats", "angles": "/angles", "angle_unit": "rad"}
    scan = dr.open_scan(tmp_path / "scan.h5", method="tomography", binning=2, rows="2:20", **options)
    assert np.array_equal(scan.mask, ~GAPS[2:20].reshape(9, 2, 20, 2).any((1, 3)))
    assert np.asarray(scan.counts).max() < 1200 and scan.flats.max() < 1200

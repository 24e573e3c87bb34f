"""`Scan`, its lazy frames, and what it hands to a cost functional."""

import pickle

import h5py
import numpy as np
import pytest

import diffrecon as dr
from diffrecon.scan import FourierOrdered, Frames


@pytest.fixture
def frames(tmp_path):
    values = np.arange(7 * 4 * 6, dtype=np.uint16).reshape(7, 4, 6)
    with h5py.File(tmp_path / "frames.h5", "w") as file:
        file["counts"] = values
    return values, tmp_path / "frames.h5"


@pytest.mark.parametrize(
    "index",
    [
        3,
        -1,
        slice(2, 5),
        slice(None),
        [5, 1, 1],
        np.array([0, 6]),
        (2, slice(1, 3)),
        (slice(0, 4), 2),
        ([4, 0], slice(None), 1),
    ],
    ids=str,
)
def test_lazy_frames_index_as_arrays_do(frames, index):
    values, path = frames
    lazy = Frames(path, "counts")
    np.testing.assert_array_equal(lazy[index], values[index])
    assert lazy[index].dtype == np.uint16


def test_lazy_frames_select_blocks_and_pickle(frames):
    values, path = frames
    picked = Frames(path, "counts", select=[6, 2, 4])
    assert picked.shape == (3, 4, 6) and len(picked) == 3 and picked.ndim == 3
    np.testing.assert_array_equal(np.asarray(picked), values[[6, 2, 4]])
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(picked))[1:, 1:3], values[[2, 4], 1:3])
    np.testing.assert_array_equal(np.concatenate(list(picked.blocks(2))), values[[6, 2, 4]])


@pytest.mark.parametrize("index", [3, slice(2, 5), [5, 1], (2, slice(1, 3)), ([4, 0], slice(None), 1)], ids=str)
def test_frames_in_fft_order_stay_lazy_and_index_as_arrays_do(frames, index):
    values, path = frames
    lazy = FourierOrdered(Frames(path, "counts"))
    expected = np.fft.ifftshift(values, (1, 2))
    np.testing.assert_array_equal(lazy[index], expected[index])
    assert lazy.shape == expected.shape and lazy.dtype == np.uint16
    np.testing.assert_array_equal(np.concatenate(list(lazy.blocks(3))), expected)


def test_batch_fields_of_near_field_scan_are_the_frames_themselves(frames):
    values, path = frames
    lazy, mask = Frames(path, "counts"), values[0] > 3
    per_view, shared = dr.Scan.from_arrays(lazy, mask=mask, method="near-field-ptychography").batch_fields()
    assert per_view["counts"] is lazy and set(per_view) == {"counts"}
    np.testing.assert_array_equal(shared["mask"], mask)
    assert dr.Scan.from_arrays(values + 1).batch_fields()[1] == {}


@pytest.mark.parametrize("dc", ["centre", "corner"])
def test_batch_fields_of_far_field_scan_have_the_zero_frequency_at_the_corner(dc):
    counts = np.random.default_rng(0).poisson(3, (3, 5, 8)).astype(np.uint16) + 1
    mask = counts[0] > 2
    stored, stored_mask = (np.fft.fftshift(a, (-2, -1)) if dc == "centre" else a for a in (counts, mask))
    scan = dr.Scan.from_arrays(stored, mask=stored_mask, method="far-field-ptychography", extra={"dc": dc})
    per_view, shared = scan.batch_fields()
    np.testing.assert_array_equal(np.asarray(per_view["counts"]), counts)
    np.testing.assert_array_equal(shared["mask"], mask)
    again = scan.in_fft_order().in_fft_order()
    np.testing.assert_array_equal(np.asarray(again.counts), counts)


def test_batch_fields_of_tensor_saxs():
    counts = np.ones((3, 4, 5, 8), np.float32)
    scan = dr.Scan.from_arrays(
        counts, mask=np.ones((4, 5), bool), weights=np.full(counts.shape, 0.5), transmission=np.full((3, 4, 5), 0.9)
    )
    per_view, shared = scan.batch_fields()
    assert set(per_view) == {"counts", "weights", "transmission"}
    assert np.broadcast_shapes(shared["mask"].shape, counts.shape) == counts.shape


def test_batch_fields_of_tomography_hold_the_line_integrals():
    prepare = pytest.importorskip("diffrecon.prepare")
    if not hasattr(prepare, "line_integrals"):
        pytest.skip("diffrecon.prepare.line_integrals is not there yet")
    counts = np.full((4, 2, 6), 250, np.uint16)
    scan = dr.Scan.from_arrays(
        counts,
        angles=np.linspace(0, 3, 4),
        flats=np.full((3, 2, 6), 1010.0),
        darks=np.full((2, 2, 6), 10.0),
        method="tomography",
    )
    per_view, _ = scan.batch_fields()
    np.testing.assert_allclose(np.asarray(per_view["values"]), -np.log(0.24), rtol=1e-5)


def test_subset_takes_every_field_of_the_views():
    counts = np.arange(1, 5, dtype=np.uint16)[:, None, None] * np.ones((4, 3, 3), np.uint16)
    scan = dr.Scan.from_arrays(counts, positions=np.arange(8.0).reshape(4, 2), angles=np.arange(4.0)).subset([3, 1])
    assert scan.views == 2 and scan.frame_shape == (3, 3)
    np.testing.assert_array_equal(scan.counts[:, 0, 0], [4, 2])
    np.testing.assert_array_equal(scan.positions, [[6, 7], [2, 3]])
    np.testing.assert_array_equal(scan.angles, [3, 1])


def _nan_in_view_two():
    counts = np.ones((4, 3, 3))
    counts[2, 1, 0] = np.nan
    return counts


@pytest.mark.parametrize(
    "counts, fields, says",
    [
        (np.ones((4, 3)), {}, "expected (view, y, x)"),
        (np.ones((0, 3, 3)), {}, "nothing in them"),
        (_nan_in_view_two(), {}, "view 2, pixel (1, 0)"),
        (-np.ones((4, 3, 3), np.int16), {}, "negative"),
        (np.zeros((4, 3, 3), np.uint16), {}, "view 0 has no counts"),
        (np.ones((4, 3, 3), complex), {}, "type complex128"),
        (np.ones((4, 3, 3)), {"positions": np.zeros((3, 2))}, "positions have shape (3, 2)"),
        (np.ones((4, 3, 3)), {"positions": np.full((4, 2), np.inf)}, "positions of view 0 are not finite"),
        (np.ones((4, 3, 3)), {"mask": np.ones((3, 4), bool)}, "the mask has shape (3, 4)"),
        (np.ones((4, 3, 3)), {"mask": np.zeros((3, 3), bool)}, "leaves no pixel"),
        (np.ones((4, 3, 3)), {"angles": np.linspace(0, 180, 4)}, "look like degrees"),
    ],
    ids=lambda v: v if isinstance(v, str) else "",
)
def test_refuses_what_is_no_measurement(counts, fields, says):
    with pytest.raises(dr.InputError) as caught:
        dr.Scan.from_arrays(counts, **fields)
    assert says in str(caught.value) and "\n" not in str(caught.value)


def test_masked_pixels_may_hold_anything():
    mask = np.ones((3, 3), bool)
    mask[1, 0] = False
    assert dr.Scan.from_arrays(_nan_in_view_two(), mask=mask).views == 4

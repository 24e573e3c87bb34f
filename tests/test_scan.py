"""`Scan`, its lazy frames, and what it hands to a cost functional."""

import pickle

import h5py
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import diffrecon as dr
from diffrecon.frames import Excerpt, FourierOrdered, Frames, LazyFrames, Window
from diffrecon.scan import extra_of_views


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


@pytest.mark.parametrize(
    "select, read",
    [
        ([0, 1, 2, 3], 1),
        ([6, 4, 2, 0], 4),
        ([0, 1, 4, 5, 6], 2),
        ([3, 3, 0], 2),
        ([5, 4, 3], 1),
        ([], 0),
    ],
    ids=str,
)
def test_lazy_frames_read_runs(frames, select, read, monkeypatch):
    values, path = frames
    lazy, count = Frames(path, "counts"), []
    get = h5py.Dataset.read_direct
    monkeypatch.setattr(h5py.Dataset, "read_direct", lambda *a, **k: (count.append(1), get(*a, **k))[1])
    picked = lazy[np.array(select, int)]
    np.testing.assert_array_equal(picked, values[np.array(select, int)])
    assert len(count) == read


@pytest.mark.parametrize("chunks", [(16, 2, 3), (5, 4, 6), (100, 4, 6), (1, 4, 6)], ids=str)
def test_lazy_frames_of_chunks_that_hold_many_views(tmp_path, chunks, monkeypatch):
    values = np.random.default_rng(0).integers(0, 1000, (300, 4, 6)).astype(np.uint16)
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("counts", data=values, chunks=chunks, compression="gzip")
    lazy, reads = Frames(tmp_path / "a.h5", "counts"), []
    get = h5py.Dataset.__getitem__
    monkeypatch.setattr(h5py.Dataset, "__getitem__", lambda *a, **k: (reads.append(1), get(*a, **k))[1])
    for index in (np.s_[3:290:7], np.s_[::2, 1:3], np.s_[[290, 5, 6, 100, 5]], np.s_[7], np.s_[250:]):
        np.testing.assert_array_equal(lazy[index], values[index])
    reads.clear()
    lazy[::4]
    assert len(reads) == (0 if chunks[0] == 1 else -(-297 // (-(-64 // chunks[0]) * chunks[0])))


@pytest.mark.parametrize(
    "index",
    [
        ...,
        (..., 2),
        (0, ..., 1),
        (slice(None), slice(3, 0, -2)),
        (slice(None), slice(2, 2)),
        (1, -1, -1),
        (slice(None), [3, 0]),
        (slice(4, None, -1), slice(None), slice(None, None, 2)),
        np.arange(7) % 2 == 0,
    ],
    ids=str,
)
def test_excerpts_index_as_arrays_do(frames, index):
    values, path = frames
    lazy = Excerpt(Frames(path, "counts"))
    np.testing.assert_array_equal(lazy[index], values[index])


@pytest.mark.parametrize("index", [(0, 0, 0, 0), (None, 0), 7, (0, 4)], ids=str)
def test_lazy_frames_refuse_what_arrays_refuse(frames, index):
    with pytest.raises(IndexError):
        Frames(frames[1], "counts")[index]


def test_an_excerpt_of_an_excerpt(frames):
    values, path = frames
    outer = Excerpt(Frames(path, "counts"), np.array([5, 3, 1]), Window((1, 4), (0, 6)))
    inner = Excerpt(outer, np.array([2, 0]), Window((0, 2), (1, 5), (2, 2)))
    expected = values[[1, 5], 1:3, 1:5].reshape(2, 1, 2, 2, 2).sum((2, 4))
    np.testing.assert_array_equal(np.asarray(inner), expected)
    assert inner.dtype == np.uint32 and outer.dtype == np.uint16


@pytest.mark.parametrize(
    "dtype, summed",
    [
        (np.uint8, np.uint32),
        (np.int16, np.int32),
        (np.uint32, np.uint32),
        (np.float32, np.float32),
        (np.float64, np.float64),
    ],
)
def test_binned_counts_keep_their_kind(dtype, summed):
    window = Window((0, 2), (0, 4), (2, 2))
    total = window.total(np.full((3, 2, 4), 100, dtype), 1)
    assert total.dtype == summed and (total == 400).all() and total.shape == (3, 1, 2)


def test_window_columns_are_inverse():
    window = Window((0, 9), (7, 40), (3, 4))
    assert window.shape == (3, 8) and window.column(window.whole_column(2.25)) == pytest.approx(2.25)
    assert window.column(8.5) == 0  # the middle of columns 7 to 10


def test_times_of_flats_follow_the_views():
    extra = {"flat_views": [0, 5, 10], "shifts": np.arange(20).reshape(10, 2), "materials": "gold"}
    part = extra_of_views(extra, np.arange(2, 8), 10)
    assert part["flat_views"].tolist() == [-2, 3, 8] and part["materials"] == "gold"
    assert part["shifts"][0].tolist() == [4, 5]
    assert extra_of_views(extra, np.arange(0, 10, 5), 10)["flat_views"].tolist() == [0, 1, 2]
    assert extra_of_views(extra, np.array([4]), 10)["flat_views"].tolist() == [-4, 1, 6]
    assert "flat_views" not in extra_of_views(extra, np.array([4, 2]), 10)


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


class _CountedFrames(LazyFrames):
    """Frames of 250 counts that keep which views were read."""

    def __init__(self, views, rows, columns):
        self.shape, self.dtype, self.read = (views, rows, columns), np.dtype(np.uint16), set()

    def _read(self, views, rows, columns):
        self.read |= set(views.tolist())
        return np.full((len(views), rows.stop - rows.start, columns.stop - columns.start), 250, np.uint16)


def test_line_integrals_are_made_when_a_cost_reads_them():
    def scan():
        beam = {"flats": np.full((3, 2, 6), 1010.0), "darks": np.full((2, 2, 6), 10.0)}
        return dr.Scan(_CountedFrames(40, 2, 6), method="tomography", angles=np.linspace(0, 3, 40), **beam)

    def fit(cost, **settings):
        data = scan()
        result = dr.minimise(cost, jnp.zeros(()), data, optax.sgd(0.5), **settings)
        return float(result.value), len(data.counts.read)

    # Two steps of four views, read ahead: no more than these are read for a cost that never names the values.
    level, read = fit(lambda x, batch: jnp.mean((x - batch.counts) ** 2) / 2, steps=2, batch_size=4, resident=0)
    assert read <= 8 and level == pytest.approx(250 * 0.75)
    value, read = fit(lambda x, batch: jnp.mean((x - batch.values) ** 2) / 2, steps=30)
    assert value == pytest.approx(-np.log(0.24), rel=1e-5) and read == 40
    # Whoever hands the whole batch on has every field.
    inner = jax.jit(lambda x, batch: jnp.mean((x - batch.values) ** 2) / 2)
    assert fit(lambda x, batch: inner(x, batch), steps=30)[0] == pytest.approx(-np.log(0.24), rel=1e-5)


def test_subset_takes_every_field_of_the_views():
    counts = np.arange(1, 5, dtype=np.uint16)[:, None, None] * np.ones((4, 3, 3), np.uint16)
    scan = dr.Scan.from_arrays(counts, positions=np.arange(8.0).reshape(4, 2), angles=np.arange(4.0)).subset([3, 1])
    assert scan.views == 2 and scan.frame_shape == (3, 3)
    np.testing.assert_array_equal(scan.counts[:, 0, 0], [4, 2])
    np.testing.assert_array_equal(scan.positions, [[6, 7], [2, 3]])
    np.testing.assert_array_equal(scan.angles, [3, 1])


def test_subset_takes_the_geometry_of_the_views(tmp_path):
    counts = np.ones((4, 3, 3), np.uint16)
    beam = dr.ConeBeam(np.array([8e3, 9e3, 10e3, 11e3]), np.array([[1, 2], [3, 4], [5, 6], [7, 8]]) * 1e-3, 1.2, 3e-6)
    scan = dr.Scan.from_arrays(counts, method="holography", geometry=beam)
    for views in ([3, 1], np.array([False, True, False, True])):
        part = scan.subset(views)
        order = np.arange(4)[views]
        np.testing.assert_array_equal(part.geometry.focus_to_sample, beam.focus_to_sample[order])
        np.testing.assert_array_equal(part.geometry.energy, beam.energy[order])
        assert part.geometry.focus_to_detector == 1.2 and part.geometry.detector_pixel == 3e-6
        np.testing.assert_array_equal(part.geometry.distance, beam.distance[order])
    dr.io.write_scan(tmp_path / "scan.h5", scan)
    read = dr.open_scan(tmp_path / "scan.h5", data={"views": [3, 1]})
    np.testing.assert_allclose(read.geometry.focus_to_sample, beam.focus_to_sample[[3, 1]])
    np.testing.assert_allclose(read.geometry.energy, beam.energy[[3, 1]])
    # One energy, one pair of foci for all views, an unknown distance: nothing to pick.
    alike = dr.ConeBeam(8e3, np.array([1e-3, 2e-3]), 1.2, 3e-6)
    assert scan.replace(geometry=alike).subset([0]).geometry.focus_to_sample.shape == (2,)
    assert scan.replace(geometry=dr.ParallelBeam(1e-6)).subset([0]).geometry.energy is None


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
        (np.zeros((4, 3, 3), np.uint16), {}, "no counts in any view"),
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


def test_a_scan_shows_itself_in_a_line():
    scan = dr.Scan.from_arrays(np.ones((90, 8, 8), np.uint16), angles=np.linspace(0, 3, 90))
    assert repr(scan) == "Scan(arrays: method not clear, 90 views of 8 x 8 uint16; angles)"

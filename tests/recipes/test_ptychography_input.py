"""Odd frames and positions: what cannot be used is left out and said, the rest reconstructs as without it."""

import numpy as np
import pytest
import small_scans

import diffrecon as dr
from diffrecon.frames import Excerpt
from diffrecon.prepare import check_frames

FAR = "far-field-ptychography"


@pytest.fixture(scope="module")
def scan():
    frames, _, probe, positions = small_scans.make(False, seed=4)
    counts = np.random.default_rng(1).poisson(frames + 0.2).astype(np.uint16)
    return dr.Scan(counts=counts, positions=positions, positions_unit="pixel", method=FAR, probe=probe)


def put(array, place, value, dtype=None):
    array = np.array(array, dtype)
    array[place] = value
    return array


def changed(scan, field, place, value, dtype=None):
    return scan.replace(**{field: put(getattr(scan, field), place, value, dtype)})


VIEWS = {
    # name: (field, place, value, type), what is said
    "shutter closed": (("counts", 3, 0, None), "view 3 left out: no counts"),
    "two of them": (("counts", [3, 7], 0, None), "views 3, 7 left out"),
    "broken frame": (("counts", 3, np.nan, float), "view 3 left out: pixels not finite or negative"),
    "frame after a subtraction": (("counts", (3, slice(9)), -1, np.int32), "view 3 left out: pixels not finite"),
    "position lost": (("positions", (3, 0), np.nan, None), "view 3 left out: no finite position"),
}


@pytest.mark.parametrize("name", VIEWS)
def test_views_are_left_out(scan, name):
    change, says = VIEWS[name]
    odd = changed(scan, *change)
    report = check_frames(odd)
    assert says in report.messages[0] and len(report.messages) == 1
    kept = np.setdiff1d(np.arange(scan.views), np.atleast_1d(change[1])[:1] if change[1] != [3, 7] else [3, 7])
    np.testing.assert_array_equal(report.views, kept)
    usable = report.apply(odd)
    np.testing.assert_array_equal(usable.counts, scan.counts[kept])
    np.testing.assert_array_equal(usable.positions, scan.positions[kept])
    assert report.mask.all() and usable.check() is usable


@pytest.mark.parametrize("factor, says", [(100, "more than 20 times"), (0.01, "less than 1/20")])
def test_flashes_and_half_closed_shutters(scan, factor, says):
    """Held against the median: a drift of the beam by a factor of three stays."""
    drift = np.linspace(1, 3, scan.views)[:, None, None]
    counts = (scan.counts * drift).astype(np.uint32)
    report = check_frames(scan.replace(counts=put(counts, 3, counts[3] * factor)))
    assert report.views.size == scan.views - 1 and 3 not in report.views and says in report.messages[0]
    assert check_frames(scan.replace(counts=counts)).messages == ()


def test_pixels_are_masked(scan):
    """Broken in one view: not measured in any; the largest number of the type everywhere: not measured."""
    odd = changed(scan, "counts", (4, 3, 5), np.nan, float)
    report = check_frames(odd)
    assert np.argwhere(~report.mask).tolist() == [[3, 5]] and "pixel (3, 5) is not finite" in report.messages[0]
    assert report.apply(odd).check().mask is report.mask

    gap = changed(scan, "counts", (slice(None), slice(10, 12)), 65535)
    report = check_frames(gap)
    assert np.argwhere(~report.mask)[:, 0].tolist() == [10] * 32 + [11] * 32
    assert "64 pixels (the first (10, 0)) are at 65535" in report.messages[0] and report.saturation is None
    known = scan.replace(mask=put(np.ones(scan.frame_shape, bool), slice(10, 12), False), counts=gap.counts)
    assert check_frames(known).messages == () and check_frames(known).apply(known).mask is not None


@pytest.mark.parametrize("kind, top", [(np.uint8, 255), (np.uint16, 2000), (float, 2000)])
def test_saturation_is_said(scan, kind, top):
    report = check_frames(scan.replace(counts=np.minimum(scan.counts, top).astype(kind)))
    assert f"saturated at {top}" in report.messages[-1] and report.saturation == top
    assert check_frames(scan).saturation is None


@pytest.mark.parametrize("change, says", [
    (lambda s: s.subset([0]), "1 of 1 views can be used"),
    (lambda s: s.replace(counts=np.zeros_like(s.counts)), "0 of 36 views.*no counts"),
    (lambda s: s.replace(counts=s.counts - 1.0 * (np.indices(s.counts.shape)[2] == np.arange(36)[:, None, None])
                         * (np.indices(s.counts.shape)[1] < 32) * 1e9), "pixels have finite counts"),
])  # fmt: skip
def test_refuses_what_is_no_scan(scan, change, says):
    with pytest.raises(dr.InputError, match=says):
        check_frames(change(scan))


def test_frames_are_read_in_blocks(scan):
    """The same whatever the block."""
    odd = changed(changed(scan, "counts", 3, 0), "counts", (slice(None), 4, 4), 65535)
    first, second = check_frames(odd), check_frames(odd, block=5)
    assert first.messages == second.messages and np.array_equal(first.mask, second.mask)
    assert np.array_equal(first.views, second.views)


def test_odd_frames_of_bytes(scan):
    """Neither square nor even, of the smallest type."""
    low = np.ix_(*(np.r_[: (n + 1) // 2, 32 - n // 2 : 32] for n in (31, 27)))  # frequencies kept: coarser pixels
    frames = np.stack([frame[low] for frame in scan.counts])
    counts = np.random.default_rng(2).poisson(frames * (250 / frames.max())).astype(np.uint8)
    places, probe = scan.positions * np.asarray([31, 27]) / 32, np.fft.ifft2(np.fft.fft2(scan.probe)[low])
    odd = dr.Scan(counts=counts, positions=places, positions_unit="pixel", method=FAR, probe=probe)
    result = dr.reconstruct(odd, settings={"solver": {"steps": 300}})
    assert result["object"].shape[0] > 31 and result["probe"].shape == (1, 31, 27)
    assert result.quality["held_out_residual"] < 1.5 * result.quality["noise_floor_residual"]


def test_type_of_the_counts_changes_nothing(scan):
    models = [dr.models.Ptychography.from_scan(scan.replace(counts=scan.counts.astype(kind)))
              for kind in (np.uint16, np.int32, np.float32, np.float64)]  # fmt: skip
    for model in models[1:]:
        np.testing.assert_allclose(model.probe, models[0].probe, rtol=1e-5)
        assert model.probe.dtype == models[0].probe.dtype == np.complex64


def test_hot_and_dead_pixels_by_their_neighbours(scan):
    """A camera that fluctuates as light does holds no largest integer; the brightest speckle stays."""
    counts = np.asarray(scan.counts).astype(np.uint32) + 300
    counts[:, 2, 5] = np.random.default_rng(0).poisson(90_000, len(counts))
    counts[:, 9, 9] = 1
    report = check_frames(scan.replace(counts=counts))
    assert np.argwhere(~report.mask).tolist() == [[2, 5], [9, 9]] and "hot or dead" in report.messages[0]
    assert check_frames(scan).mask.all()


def test_negative_values_of_a_subtraction_are_no_photons(scan):
    """In memory and in files; a single negative number is a mark still."""
    below = np.random.default_rng(0).normal(0, 2, scan.counts.shape)
    subtracted = scan.replace(counts=(scan.counts + below).astype(np.float32))
    report = check_frames(subtracted)
    assert "background was subtracted" in report.messages[0] and report.views.size == scan.views
    kept = np.asarray(report.apply(subtracted).counts)
    assert report.mask.all() and (kept == np.maximum(subtracted.counts, 0)).all()
    lazy = check_frames(subtracted.replace(counts=Excerpt(subtracted.counts)))
    np.testing.assert_array_equal(lazy.counts[3:5, 2:9], kept[3:5, 2:9])
    marked = changed(scan, "counts", (4, 3, slice(5, 7)), -1, float)
    assert check_frames(marked).counts is None and not check_frames(marked).mask[3, 5:7].any()

"""Flats, darks, views and single values that are not what they seem: left out, mended, or named."""

import numpy as np
import pytest

from diffrecon import prepare
from diffrecon.errors import InputError
from diffrecon.scan import Scan
from diffrecon.solvers.slices import padding

from .sinograms import ellipses, sinogram
from .test_pipeline import ANGLES, body, scan_of

TRUTH = body(rows=2)


@pytest.fixture(scope="module")
def scan():
    return scan_of(TRUTH)


def prepared(scan, **settings):
    found = prepare.Preparation(scan, settings)
    return np.asarray(found.rows(0, scan.frame_shape[0])), "\n".join(found.messages)


@pytest.mark.parametrize("count", [1, 2, 3, 5, 6, 7])
def test_any_number_of_dead_pixels_is_filled(scan, count):
    flats = scan.flats.copy()
    flats[:, 1, 5 : 5 + 7 * count : 7] = 100
    values, said = prepared(scan.replace(flats=flats))
    assert f"{count} without flat-field signal" in said and np.abs(values - TRUTH).max() < 0.2


def test_lit_darks_and_black_flats_are_left_out(scan):
    darks, flats = np.repeat(scan.darks, 3, 0), scan.flats.copy()
    darks[[0, 4]] = flats[:2]
    flats[3], flats[5] = 100.0, 0.0
    values, said = prepared(scan.replace(darks=darks, flats=flats, extra={"flat_views": np.zeros(10)}))
    assert np.abs(values - TRUTH).mean() < 0.012
    assert "darks 0, 4 left out, 2 of 9" in said and "flats 3, 5 left out, 2 of 10" in said
    with pytest.raises(InputError, match="flats hold no light"):
        prepare.Preparation(scan.replace(flats=0 * flats))
    with pytest.raises(InputError, match="flats hold no light"):
        prepare.Preparation(scan.replace(flats=scan.darks, darks=scan.flats))


def test_values_wrong_in_one_view_are_replaced(scan):
    counts, random = scan.counts.copy(), np.random.default_rng(5)
    for view in range(1, 60, 2):  # two hits side by side in neighbouring views are not told from a detail
        counts[view, random.integers(2), random.integers(8, 56)] = random.choice([0, 65000])
    hit = (counts != scan.counts) & (TRUTH < 2.0)
    values, said = prepared(scan.replace(counts=counts))
    assert "in one view" in said and np.abs(values - TRUTH)[hit].max() < 0.35
    clean, said = prepared(scan)
    assert "in one view" not in said
    kept, _ = prepared(scan.replace(counts=counts), bad_pixels=False)
    assert np.abs(kept - TRUTH)[hit].min() > 1.0
    np.testing.assert_array_equal(clean[~hit.any((1, 2))], prepared(scan, bad_pixels=False)[0][~hit.any((1, 2))])


def test_a_wire_a_slit_and_few_views_are_no_defects():
    angles = np.linspace(0, np.pi, 30, endpoint=False)
    u = np.arange(96)[None] - 47.5
    wire = 5.0 * (np.abs(u - 35 * np.cos(angles[:, None])) < 1)  # one or two columns, far off the axis
    block = 4.0 * (np.abs(u) < 40) - 3.5 * (np.abs(u - 30 * np.sin(angles[:, None])) < 1)
    for truth in (wire, block):
        _, said = prepared(scan_of(truth[:, None], angles=angles, photons=5e4))
        assert "in one view" not in said


def test_rows_without_light_are_named():
    flats = np.random.default_rng(0).poisson(np.array([5000.0, 5000, 1])[:, None] * np.ones((8, 3, 64))) + 100.0
    counts = np.random.default_rng(1).poisson(np.array([4000.0, 4000, 1])[:, None] * np.ones((9, 3, 64))) + 100.0
    scan = scan_of(np.zeros((9, 3, 64))).replace(flats=flats, counts=counts, darks=np.full((3, 3, 64), 100.0))
    values, said = prepared(scan)
    assert "64 in rows without light" in said and "1 rows have no good pixel" in said and (values[:, 2] == 0).all()


def test_one_bright_view_is_named(scan):
    counts = (scan.counts - 100) * np.where(np.arange(60) == 31, 10, 1)[:, None, None] + 100
    _, said = prepared(scan.replace(counts=counts))
    assert "brightness of view 31 (9.99 times)" in said and "WARNING" not in prepared(scan)[1]


@pytest.mark.parametrize("beam", [1.4, np.linspace(1.0, 1.25, 60)], ids=["brighter flats", "beam that falls"])
def test_air_of_another_brightness_is_no_wide_sample(scan, beam):
    factor = np.broadcast_to(1 / np.asarray(beam), (60,))[:, None, None]
    changed = scan.replace(counts=(scan.counts - 100) * factor + 100)
    values, said = prepared(changed)
    assert f"{'0.71' if np.ndim(beam) == 0 else '0.80 to 1.00'} of the flats" in said and padding(values) == "edge"
    mended, said = prepared(changed, flux="auto")
    assert "WARNING" not in said and padding(mended) == "zero" and np.abs(mended - TRUTH).mean() < 0.012
    monitored, said = prepared(changed.replace(extra={"monitor": 7e3 * factor.ravel()}))
    if np.ndim(beam):
        assert "monitor, which the air follows" in said and np.abs(monitored - TRUTH).mean() < 0.012


def test_a_wide_sample_is_one_and_a_monitor_of_something_else_is_not_used(scan):
    wide = sinogram(ellipses(2), ANGLES, 120, 64, 31.5)[:, None]
    values, said = prepared(scan_of(wide))
    assert padding(values) == "smooth" and "of the flats" not in said
    other = np.random.default_rng(0).uniform(1, 2, 60)
    values, said = prepared(scan.replace(extra={"monitor": other}))
    assert "does not follow it" in said and np.abs(values - TRUTH).mean() < 0.012


def test_air_under_an_uneven_beam_is_found(scan):
    slope = 1 + 0.06 * np.linspace(-1, 1, 64)  # between flats and views
    flicker = 1 + 0.05 * np.sin(np.arange(60))
    counts = (scan.counts - 100) * slope * flicker[:, None, None] + 100
    found = prepare.Preparation(scan.replace(counts=counts), {"flux": "auto"})
    assert found.messages[1].count("columns") == 2  # on both sides
    np.testing.assert_allclose(found.flux / found.flux.mean(), flicker / flicker.mean(), rtol=5e-3)


@pytest.mark.parametrize("kind, off", [("transmission", 0.36), ("line-integrals", 0.36), ("line-integrals", -0.2)])
def test_air_of_divided_frames_is_brought_to_one(kind, off):
    """Without flats: the words are those of the frames, and the remedy that they name works."""
    lines = sinogram(ellipses(6), ANGLES, 60, 96, 47.0)[:, None] + off
    lines = lines + 0.003 * np.random.default_rng(0).standard_normal(lines.shape)
    counts = np.asarray(lines if kind == "line-integrals" else np.exp(-lines), np.float32)
    scan = Scan.from_arrays(counts, angles=ANGLES, method="tomography", kind=kind)
    _, said = prepared(scan)
    what = f"the line integrals are {off:.2f}" if kind == "line-integrals" else "the frames transmit 0.70"
    assert f"at both edges {what} in all views" in said and "flats in all" not in said
    values, said = prepared(scan, flux="auto")
    assert np.abs(values[:, 0, :6]).mean() < 0.02 and "at both edges" not in said


@pytest.mark.parametrize("light", [0.0, 0.02])
def test_views_without_light_are_left_out(scan, light):
    """A shutter that closed twice, or let little pass; one view a view where line integrals of all are asked for."""
    dark, views = np.r_[20:25, 59], np.setdiff1d(np.arange(60), np.r_[20:25, 59])
    counts = np.asarray(scan.counts, float).copy()
    counts[dark] = 100 + light * (counts[dark] - 100)
    found = prepare.Preparation(scan.replace(counts=counts))
    values = np.asarray(found.rows(0, 2))
    assert "views 20:25,59 left out: 20 times darker" in "\n".join(found.messages)
    assert np.array_equal(found.angles, ANGLES[views]) and np.abs(values - TRUTH[views]).mean() < 0.012
    assert prepare.line_integrals(scan.replace(counts=counts)).values.shape == (60, 2, 64)
    thick = counts.copy()  # a sample that lets a hundredth pass beside air is no shutter
    thick[dark] = np.where(np.arange(64) < 4, scan.counts[dark], 0.01 * (scan.counts[dark] - 100) + 100)
    assert "left out" not in prepared(scan.replace(counts=thick))[1]


def test_darks_that_are_lit_a_little_and_flats_that_are_black_in_part(scan):
    darks, flats = np.repeat(scan.darks, 3, 0), scan.flats.copy()
    darks[:3] += 0.1 * (flats[:3] - 100)
    flats[9, :, :32] = 100
    values, said = prepared(scan.replace(darks=darks, flats=flats))
    assert np.abs(values - TRUTH).mean() < 0.012
    assert "darks 0, 1, 2 left out, 3 of 9" in said and "flat 9 left out, 1 of 10" in said
    noise = np.random.default_rng(3).poisson(100, (10, 2, 64))
    for dark, flat in ((noise[:5], noise[5:]), (scan.flats[:5], scan.flats[5:])):
        with pytest.raises(InputError, match="flats hold no light"):
            prepare.Preparation(scan.replace(darks=dark, flats=flat))


def test_a_pixel_that_is_hot_in_the_frames_alone(scan):
    counts = np.asarray(scan.counts).copy()
    counts[:, 1, 30] = 60000
    values, said = prepared(scan.replace(counts=counts))
    assert "1 bad detector pixel (1 hot)" in said and np.abs(values - TRUTH).max() < 0.2


def test_masks_that_leave_hardly_anything_and_frames_that_are_divided(scan):
    mask = np.zeros((2, 64), bool)
    mask[:, 5] = True
    with pytest.raises(InputError, match=r"the mask leaves 1\.6% .* other way round"):
        prepare.Preparation(scan.replace(mask=mask))
    divided = ((scan.counts - 100) / (scan.flats.mean(0) - 100)).astype(np.float32)
    with pytest.raises(InputError, match=r"the frames reach 1\.\d+, the flats .*data\.kind=transmission"):
        prepare.Preparation(scan.replace(counts=divided))


@pytest.mark.parametrize("value", [0.0, np.nan])
def test_a_monitor_that_is_none_is_named(scan, value):
    monitor = np.linspace(1, 0.7, 60)
    monitor[4] = value
    assert (
        "the monitor is not used: zero, negative or no number in 1 of 60 views (4 the first)"
        in prepared(scan.replace(extra={"monitor": monitor}))[1]
    )


@pytest.mark.parametrize("views", [12, 90])
def test_a_long_sample_that_dims_the_beam_keeps_its_views(views):
    """A plate wider than the detector: hardly any light along it."""
    angles = np.arange(views) * np.pi / views
    lines = np.minimum(1 / np.maximum(np.abs(np.cos(angles)), 1e-9), 6.0)
    counts = np.random.default_rng(1).poisson(2e4 * np.exp(-lines)[:, None, None] * np.ones((4, 64)))
    flats, darks = np.full((3, 4, 64), 2e4), np.zeros((3, 4, 64))
    scan = Scan(counts=counts.astype(float), flats=flats, darks=darks, angles=angles)
    assert prepare.unlit_views(scan)[0].size == 0
    scan.counts[5:7] = 0
    assert np.array_equal(prepare.unlit_views(scan)[0], [5, 6])


@pytest.mark.parametrize("photons", [0.5, 2.0])
def test_frames_of_a_photon_a_pixel_are_neither_dark_nor_hot(photons):
    rng = np.random.default_rng(2)
    angles = np.arange(60) * np.pi / 60
    counts = rng.poisson(photons * 0.2 * np.ones((60, 32, 64)))
    scan = Scan(
        counts=counts.astype(float), flats=rng.poisson(photons, (5, 32, 64)), darks=np.zeros((5, 32, 64)), angles=angles
    )
    found = prepare.Preparation(scan)
    said = "\n".join(found.messages)
    assert found.scan.views == 60 and "left out" not in said and " hot" not in said and " stuck" not in said


def test_fringes_of_a_capillary_are_no_hot_pixels():
    shares = np.ones((16, 64))
    shares[:, [6, 57]], shares[:, [7, 56]] = 1.5, 0.7
    shares[9, 30] = 1.6
    counts = np.random.default_rng(3).poisson(2000 * shares, (9, 16, 64))
    beam = np.full((1, 16, 64), 2000.0)
    hot = prepare.brighter_than_beam(counts, beam, np.zeros((16, 64)), np.zeros(9, int), flats=5)
    assert np.array_equal(np.argwhere(hot), [[9, 30]])

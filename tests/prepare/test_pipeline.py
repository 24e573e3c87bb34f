import numpy as np
import pytest

import diffrecon as dr
from diffrecon import prepare
from diffrecon.errors import InputError, MissingMetadata
from diffrecon.prepare import _pipeline

from .sinograms import ellipses, sinogram

ANGLES = np.linspace(0, np.pi, 60, endpoint=False)


def scan_of(integrals, *, photons=2e4, dark=100.0, noise=True, flats=10, seed=0, **fields):
    """Counts `(view, z, u)` behind a beam that is bright in the middle."""
    rng = np.random.default_rng(seed)
    views, rows, columns = integrals.shape
    beam = photons * (1 - 0.3 * np.linspace(-1, 1, columns) ** 2) * np.ones((rows, columns))
    draw = rng.poisson if noise else (lambda mean: np.asarray(mean, float))
    fields = {"flats": draw(np.broadcast_to(beam, (flats, rows, columns))) + dark, "angles": ANGLES[:views], **fields}
    counts, darks = draw(beam * np.exp(-integrals)) + dark, np.full((3, rows, columns), dark)
    return dr.Scan.from_arrays(counts, darks=darks, **fields)


def body(rows=5, columns=64, seed=1):
    return np.stack([sinogram(ellipses(seed + r), ANGLES, 56, columns, 31.5) for r in range(rows)], 1)


def test_line_integrals_are_the_truth_within_noise():
    truth = body()
    found = prepare.line_integrals(scan_of(truth, noise=False))
    np.testing.assert_allclose(found.values, truth, atol=2e-5)
    assert found.clipped == 0 and found.dead == 0 and found.values.dtype == np.float32
    assert found.messages == ("mean of 10 flats",)


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"zingers": 8.0, "stripes": "sorting", "stripe_size": 9},
        {"distortion": prepare.radial_distortion((5, 64), (2, 31.5), (1.0, 0, 3e-5)), "flux": "auto"},
    ],
)
def test_rows_are_those_of_the_whole_whatever_the_blocks(settings, monkeypatch):
    truth = body()
    scan = scan_of(truth)
    whole = np.asarray(prepare.Preparation(scan, settings).rows(0, 5))
    monkeypatch.setattr(_pipeline, "_BLOCK_BYTES", 4 * 64 * 5 * 7)
    prepared = prepare.Preparation(scan, settings)
    parts = np.concatenate([np.asarray(prepared.rows(0, 2)), np.asarray(prepared.rows(2, 5))], 1)
    np.testing.assert_allclose(parts, whole, atol=2e-6)
    assert prepared.shape == whole.shape


def test_clipped_and_dead_pixels_are_counted_once_and_filled():
    truth = body()
    scan = scan_of(truth, noise=False)
    scan.flats[:, 2, 30] = 100.0  # flat = dark
    counts = scan.counts.copy()
    counts[3, 1, 10:14] = 100.0
    prepared = prepare.Preparation(scan.replace(counts=counts))
    prepared.rows(0, 5)
    values = np.asarray(prepared.rows(0, 5))  # rows read twice count once
    assert prepared.clipped == 4 and prepared.bad == 1
    np.testing.assert_allclose(values[3, 1, 10:14], -np.log(1e-3), rtol=1e-6)
    np.testing.assert_allclose(values[:, 2, 30], truth[:, 2, 30], atol=0.1)
    assert any("1 without flat-field signal" in line for line in prepared.messages)
    assert any(line.startswith("4 of 19200 pixels") for line in prepared.messages)


def test_flats_are_interpolated_in_time():
    truth = body()
    drift = (1 + 0.2 * np.arange(60) / 60)[:, None, None]
    scan = scan_of(truth, noise=False)
    counts = (scan.counts - 100) * drift + 100
    flats = np.concatenate([scan.flats[:2], (scan.flats[:2] - 100) * 1.2 + 100])
    timed = scan.replace(counts=counts, flats=flats, extra={"flat_views": np.array([0.0, 0, 60, 60])})
    prepared = prepare.Preparation(timed)
    np.testing.assert_allclose(np.asarray(prepared.rows(0, 5)), truth, atol=2e-5)
    assert prepared.messages[0] == "4 flats in 2 groups, interpolated in time"
    mean = prepare.line_integrals(timed, flats="mean").values
    assert np.abs(mean - truth).max() > 0.05
    with pytest.raises(InputError, match="when the flats were taken"):
        prepare.Preparation(timed.replace(extra={}), {"flats": "interpolate"})


def test_eigen_flats_follow_a_beam_that_moves():
    rng = np.random.default_rng(3)
    y, x = np.mgrid[:24, :64]
    stripes = lambda shift: 1 + 0.2 * np.sin(0.9 * (y - shift)) + 0.1 * np.cos(0.4 * x)
    truth = np.stack([sinogram(ellipses(5), ANGLES, 56, 64, 31.5)] * 24, 1)
    frames = lambda shifts, t: rng.poisson(np.stack([3e4 * stripes(s) for s in shifts]) * t)
    scan = dr.Scan.from_arrays(
        frames(0.6 * rng.standard_normal(60), np.exp(-truth)), flats=frames(0.6 * rng.standard_normal(24), 1.0)
    )
    error = lambda how: np.sqrt(np.mean((prepare.line_integrals(scan, flats=how).values - truth) ** 2))
    assert error("eigen") < 0.35 * error("mean")
    prepared = prepare.Preparation(scan, {"flats": "eigen"})
    assert 1 <= len(prepared.references.basis) <= 4


def test_eigen_flats_of_nothing_but_noise_are_none():
    flats = np.random.default_rng(0).poisson(1000, (12, 30, 40)).astype(float)
    assert len(prepare.eigen_flats(flats)) == 0


@pytest.mark.parametrize("region", ["auto", [0, 5, 0, 4]])
def test_flux_of_each_view_is_found_in_the_air(region):
    truth = body()
    flicker = 1 + 0.05 * np.random.default_rng(2).standard_normal(60)
    scan = scan_of(truth, noise=False)
    counts = (scan.counts - 100) * flicker[:, None, None] + 100
    prepared = prepare.Preparation(scan.replace(counts=counts), {"flux": region})
    np.testing.assert_allclose(prepared.flux, flicker, rtol=2e-3)
    np.testing.assert_allclose(np.asarray(prepared.rows(0, 5)), truth, atol=3e-3)


def test_a_sample_that_fills_the_detector_has_no_air():
    truth = 0.3 + np.stack([sinogram(ellipses(1), ANGLES, 120, 64, 31.5)] * 2, 1)
    prepared = prepare.Preparation(scan_of(truth), {"flux": "auto"})
    assert (prepared.flux == 1).all() and any("no air" in line for line in prepared.messages)


def test_half_views_are_joined_where_the_axis_is_near_an_edge():
    angles = np.linspace(0, 2 * np.pi, 180, endpoint=False)
    parts = ellipses(4)
    for centre in (71.3, 8.7):
        narrow = sinogram(parts, angles, 128, 80, centre)[:, None]
        scan = scan_of(narrow, angles=angles, noise=False)
        prepared = prepare.Preparation(scan)
        views, _, width = prepared.shape
        assert views == 90 and len(prepared.angles) == 90 and width > 120
        wide = sinogram(parts, prepared.angles, 128, width, prepared.rotation_centre)
        np.testing.assert_allclose(np.asarray(prepared.rows(0, 1))[:, 0], wide, atol=0.12)
        assert np.sqrt(np.mean((np.asarray(prepared.rows(0, 1))[:, 0] - wide) ** 2)) < 0.01
        assert np.asarray(prepare.line_integrals(scan).values).shape == narrow.shape


def test_a_full_turn_that_sees_all_stays_as_it_is():
    angles = np.linspace(0, 2 * np.pi, 120, endpoint=False)
    values = sinogram(ellipses(4), angles, 60, 80, 42.0)[:, None]
    prepared = prepare.Preparation(scan_of(values, angles=angles, noise=False))
    assert prepared.shape == values.shape and prepared.rotation_centre is None


def test_transmissions_need_no_flats_and_counts_do():
    scan = dr.Scan.from_arrays(np.full((4, 1, 8), 0.5))
    np.testing.assert_allclose(prepare.line_integrals(scan).values, np.log(2), rtol=1e-6)
    with pytest.raises(MissingMetadata, match="flat field"):
        prepare.line_integrals(dr.Scan.from_arrays(np.full((4, 1, 8), 500)))


@pytest.mark.parametrize(
    "settings, says",
    [
        ({"stripe": "all"}, "did you mean stripe"),
        ({"stripes": "wavelet"}, "prepare.stripes: 'wavelet' is none of"),
        ({"clip": 0}, "above 0; below 1"),
        ({"flux": [0, 9, 0, 4]}, "does not lie on the detector"),
        ({"flux": "left"}, "air region"),
        ({"zingers": -1}, "standard deviations"),
        ({"beam_hardening": [0.0, 1.0]}, "a1 above zero"),
        ({"distortion": np.zeros((5, 64))}, "expected \\(2, 5, 64\\)"),
        ({"full_turn": "stitch"}, "360 degrees"),
    ],
)
def test_settings_that_cannot_be_followed_are_refused_in_one_line(settings, says):
    with pytest.raises(InputError, match=says) as error:
        prepare.Preparation(scan_of(body()), settings)
    assert "\n" not in str(error.value)


def test_wrong_references_are_refused():
    scan = scan_of(body())
    with pytest.raises(InputError, match="exchanged"):
        prepare.Preparation(scan.replace(flats=scan.flats * 0, darks=scan.flats))
    with pytest.raises(InputError, match="flats have shape"):
        prepare.Preparation(scan.replace(flats=scan.flats[:, :2]))
    with pytest.raises(InputError, match="do not lie on the detector"):
        prepare.Preparation(scan).rows(3, 9)

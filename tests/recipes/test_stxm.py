"""Scanning transmission against closed forms: spots whose place and width are known, projections of Gaussian bodies."""

import h5py
import numpy as np
import pytest

import diffrecon as dr
from diffrecon.prepare import frame_moments, on_raster, raster_of

FRAME, PIXEL, DISTANCE, ENERGY, STEP = 32, 50e-6, 1.25, 10e3, 0.2e-6
ANGLE = PIXEL / DISTANCE
WAVE = 2 * np.pi * ENERGY / dr.physics.HC
ROWS, COLUMNS = 20, 24
Y, X = np.mgrid[:ROWS, :COLUMNS].astype(float)
PHASE = -1.5 * np.exp(-((X - 11) ** 2 + (Y - 9) ** 2) / 16)
DOWN, RIGHT = (-2 * (v - c) / 16 * PHASE / STEP / WAVE for v, c in ((Y, 9), (X, 11)))  # [rad]
PASSED = 1 - 0.3 * np.exp(-((X - 16) ** 2 + (Y - 14) ** 2) / 8)
BROAD = np.where(np.hypot(X - 5, Y - 14) < 3, 1.5, 0.0)  # more variance [pixel^2]


def frames(down=DOWN, right=RIGHT):
    """Gaussian spots with tails, moved by the angle: all moments are closed forms."""
    k = np.arange(FRAME) - (FRAME - 1) / 2
    one = lambda centre, variance: np.exp(-((k - centre[..., None] - 0.7) ** 2) / (2 * variance[..., None]))
    y, x = (one(a / ANGLE, 4.0 + BROAD) / np.sqrt(2 * np.pi * (4.0 + BROAD))[..., None] for a in (down, right))
    return (1e6 * PASSED[..., None, None] * y[..., None] * x[..., None, :]).reshape(-1, FRAME, FRAME)


def scan_of(stack, positions=None, geometry=None, **fields):
    places = np.stack([Y, X], -1).reshape(-1, 2) * STEP if positions is None else positions
    geometry = dr.FarField(FRAME, ENERGY, DISTANCE, PIXEL) if geometry is None else geometry
    return dr.Scan.from_arrays(stack, positions=places, method="stxm", geometry=geometry, **fields)


def near(found, true, limit):
    assert np.abs(np.asarray(found, float) - true).max() < limit * np.abs(true).max()


# ---------------------------------------------------------------------------------------------------- frames
def test_every_signal_is_the_closed_form():
    monitor = 1 + 0.2 * np.sin(np.arange(Y.size))
    stack = np.rint(monitor[:, None, None] * frames()).astype(np.uint32) + 3  # a dark level of 3
    scan = scan_of(stack, extra={"monitor": monitor}, darks=np.full((2, FRAME, FRAME), 3.0))
    result = dr.reconstruct(scan, settings={"model": {"empty": [0, 4, 0, 3]}})
    near(result["alpha_x"], RIGHT, 2e-3)
    near(result["alpha_y"], DOWN, 2e-3)
    near(result["transmission"], PASSED, 1e-3)
    near(result["darkfield"], BROAD * ANGLE**2, 5e-3)
    phase = np.asarray(result["phase"], float)
    near(phase - phase[0, 0], PHASE - PHASE[0, 0], 0.02)
    assert result.quantities["phase"].pixel_size == pytest.approx(STEP)
    error = np.sqrt(4.0 / (1e6 * PASSED[0, 0] * monitor[0])) * ANGLE
    assert result["alpha_x_error"][0, 0] == pytest.approx(error, rel=0.02)
    assert not [line for line in result.verdict if "WARNING" in line]


def test_a_ramp_of_phase_moves_the_moment_by_its_slope():
    """By waves: any probe, focused or not, times a ramp."""
    rng = np.random.default_rng(0)
    k = np.fft.fftfreq(FRAME) * FRAME
    pupil = (np.hypot(k[:, None], k) < 6) * np.exp(2j * rng.standard_normal((FRAME, FRAME)))
    probe = np.fft.ifft2(pupil)
    seen = lambda y, x: np.abs(np.fft.fft2(probe * np.exp(2j * np.pi * (y * k[:, None] + x * k) / FRAME))) ** 2
    still, moved = frame_moments([np.stack([seen(0, 0), seen(2, -3)])], corner=True).centre.T
    np.testing.assert_allclose(moved - still, [2, -3], atol=1e-9)


def test_jittered_points_and_pixels_are_laid_on_a_grid():
    rng = np.random.default_rng(1)
    places = np.stack([Y, X], -1).reshape(-1, 2) + rng.uniform(-0.25, 0.25, (Y.size, 2))
    raster = raster_of(places)
    assert abs(raster.shape[0] - ROWS) <= 1 and abs(raster.shape[1] - COLUMNS) <= 1
    laid = on_raster(raster, places, np.stack([places[:, 0], 2 * places[:, 1]]))
    true = [np.indices(raster.shape)[i] * raster.step[i] + raster.first[i] for i in (0, 1)]
    inside = (slice(1, -1), slice(1, -1))
    np.testing.assert_allclose(laid[0][inside], true[0][inside], atol=1e-9)
    np.testing.assert_allclose(laid[1][inside], 2 * true[1][inside], atol=1e-9)


def test_a_detector_that_stands_the_other_way_is_named():
    words = lambda stack: " ".join(dr.reconstruct(scan_of(stack)).verdict)
    assert "stand another way" in words(frames()[:, ::-1])
    assert "stand another way" in words(np.swapaxes(frames(), 1, 2))
    assert "stand another way" not in words(frames())


def test_a_structured_probe_is_warned_of():
    """Weak angles of a wide beam in a sample that absorbs: what the probe adds may be as large."""
    words = " ".join(dr.reconstruct(scan_of(frames(0.02 * DOWN, 0.02 * RIGHT))).verdict)
    assert "structured" in words


def test_missing_points_leave_the_phase_whole():
    """A map with a hole, and points that saw no light."""
    keep = np.hypot(X - 18, Y - 4).ravel() > 2.5
    stack, places = frames()[keep], np.stack([Y, X], -1).reshape(-1, 2)[keep] * STEP
    stack[np.flatnonzero(keep[: ROWS * 2])[:3]] = 0
    result = dr.reconstruct(scan_of(stack, places), settings={"model": {"empty": [16, 20, 18, 24]}})
    phase, seen = np.asarray(result["phase"], float), np.isfinite(np.asarray(result["phase"]))
    assert 10 < (~seen).sum() < 30
    assert np.abs(phase - PHASE - np.median((phase - PHASE)[seen]))[seen].max() < 0.03


def test_quadrants_of_an_even_cone(tmp_path):
    """Against the areas of a disc on both halves, counted on a fine grid."""
    cone, k = 40 * ANGLE, (np.arange(160) - 79.5) / 60
    disc = lambda a, b: np.hypot(k[:, None] - a, k - b) < 1
    down, right = 0.3 * DOWN / np.abs(DOWN).max(), 0.3 * RIGHT / np.abs(RIGHT).max()
    parts = [[np.reshape(disc(a, b)[r, c].sum(), ()) for a, b in zip(down.ravel(), right.ravel(), strict=True)]
             for r in (slice(0, 80), slice(80, 160)) for c in (slice(0, 80), slice(80, 160))]  # fmt: skip
    with h5py.File(tmp_path / "q.h5", "w") as file:
        file["q"] = np.reshape(parts, (4, ROWS, COLUMNS))
    scan = dr.open_scan(
        tmp_path / "q.h5", method="stxm", quadrants="/q", divergence=cone, pixel_size=STEP, energy=ENERGY
    )
    result = dr.reconstruct(scan, settings={"model": {"empty": [16, 20, 20, 24]}})
    near(result["alpha_x"], right * cone, 0.02)
    near(result["alpha_y"], down * cone, 0.02)
    with pytest.raises(dr.InputError, match="geometry.divergence"):
        dr.reconstruct(scan.replace(extra={k: v for k, v in scan.extra.items() if k != "divergence"}))


# ---------------------------------------------------------------------------------------------------- tomograms
BLOBS = ((0.0, 0.0, 4.0, 1.5e5), (9.0, -5.0, 2.5, 3e5))  # x, y, width [step], attenuation [1/m]
DELTA = 4e-12  # of a blob over its attenuation [m]


@pytest.fixture(scope="module")
def tomogram(tmp_path_factory):
    """Two Gaussian bodies, whose projections and slopes are closed forms, two rows, in an HDF5 file of its own."""
    rng = np.random.default_rng(0)
    angles, u = np.deg2rad(np.arange(0, 180, 4.0)), np.arange(40) - 18.5  # the axis is on column 18.5
    lines, slopes = np.zeros((2, len(angles), 2, 40))
    for x, y, width, mu in BLOBS:
        off = u - (x * np.cos(angles) + y * np.sin(angles))[:, None]
        line = mu * STEP * np.sqrt(2 * np.pi) * width * np.exp(-(off**2) / (2 * width**2))
        lines += line[:, None]
        slopes += (DELTA * off / width**2 / STEP * line)[:, None]  # alpha = -grad int delta
    monitor = rng.uniform(0.8, 1.2, lines.shape)
    path = tmp_path_factory.mktemp("stxm") / "any.h5"
    with h5py.File(path, "w") as file:
        file["i/t"], file["i/m"] = rng.poisson(1e6 * monitor * np.exp(-lines)).astype(np.uint32), 40 * monitor
        file["i/theta"], file["i/ax"] = np.rad2deg(angles), slopes + 1e-8 * rng.standard_normal(slopes.shape)
        file["i/theta"].attrs["units"] = "deg"
    return path


def open_tomogram(path, **more):
    keys = {"counts": "/i/t", "monitor": "/i/m", "moments_x": "/i/ax", "angles": "/i/theta"}
    return dr.open_scan(path, method="stxm", energy="10 keV", pixel_size=STEP, **{**keys, **more})


def test_volumes_of_attenuation_and_phase(tomogram):
    result = dr.reconstruct(open_tomogram(tomogram))
    assert result.quality["rotation_centre"] == pytest.approx(18.5, abs=0.1)
    x = np.arange(40) - 19.5
    true = sum(mu * np.exp(-((x - bx) ** 2 + (x[:, None] - by) ** 2) / (2 * w**2)) for bx, by, w, mu in BLOBS)
    inside = np.hypot(x[:, None], x) < 16
    for name, expected in (("attenuation", true), ("phase", -WAVE * DELTA * true)):
        error = (np.asarray(result[name], float)[1] - expected)[inside]
        assert np.linalg.norm(error) < 0.08 * np.linalg.norm(expected), name
    assert result.quantities["phase"].units == "rad/m" and result["transmission"].shape == (45, 2, 40)


def test_photons_weigh_and_positive_solvers_serve(tomogram):
    solver = {"name": "sirt", "steps": 10, "weights": "photons", "positive": True}
    result = dr.reconstruct(open_tomogram(tomogram), settings={"solver": solver})
    assert np.min(result["attenuation"]) >= 0 and np.max(result["phase"]) <= 0


def test_one_map_of_sums(tomogram):
    """Counts (row, point) with a monitor of the same shape."""
    rng = np.random.default_rng(2)
    monitor = rng.uniform(0.5, 1.5, (ROWS, COLUMNS))
    scan = dr.Scan.from_arrays((1e6 * monitor * PASSED)[None], method="stxm", extra={"monitor": monitor})
    near(dr.reconstruct(scan)["transmission"], PASSED, 0.01)


# ---------------------------------------------------------------------------------------------------- refused
@pytest.mark.parametrize(
    "change, words",
    [
        ({"monitor": np.ones(7)}, r"data.monitor has shape \(7,\); expected \(45, 2, 40\)"),
        ({"monitor": np.zeros(45)}, "data.monitor is 0 at 45 points"),
        ({"moments_x": np.zeros((45, 2, 39))}, "data.moments_x has shape"),
        ({"angles": None}, "45 images .* and no angles"),
    ],
)
def test_stacks_refused(tomogram, change, words):
    with pytest.raises(dr.InputError, match=words):
        dr.reconstruct(open_tomogram(tomogram, **change), "stxm")


@pytest.mark.parametrize(
    "change, settings, words",
    [
        ({}, {"model": {"empty": [0, 40, 0, 3]}}, "the map has 20 rows of 24 points"),
        ({}, {"solver": {"name": "sirt"}}, "solver.* is for tomograms"),
        ({"geometry": dr.FarField(FRAME, ENERGY, None, PIXEL)}, {}, "geometry.sample_to_detector"),
        ({"positions": np.zeros((Y.size, 2))}, {}, "they make no map"),
        ({"darks": np.full((1, FRAME, FRAME), 1e9)}, {}, "no light"),
    ],
)
def test_frames_refused(change, settings, words):
    with pytest.raises(dr.InputError, match=words):
        dr.reconstruct(scan_of(frames(), **change), settings=settings)

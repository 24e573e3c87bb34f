"""Edge illumination and analyser against curves written down directly, which are no Gaussians."""

import math

import numpy as np
import pytest

import diffrecon as dr
from diffrecon.recipes._illumination import repeating_curve
from diffrecon.recipes.scanned import _refuse_odd_doses, read_stacks

SIZE, PIXEL, ENERGY = 48, 24e-6, 25e3
ROW, COLUMN = np.mgrid[:SIZE, :SIZE].astype(float)


def curve(place, width):
    """A slit seen through a slit: flat top, soft flanks; broadened exactly, by many displaced copies."""
    soft = lambda x: 0.5 * (np.tanh((x + 1.3) / 0.5) - np.tanh((x - 1.3) / 0.5)) + 0.02
    nodes, weights = np.polynomial.hermite_e.hermegauss(15)
    weights = weights / weights.sum()
    return sum(w * soft(place - n * width) for n, w in zip(nodes, weights, strict=True))


def scattered(place, width, phase):
    """A curve of the scattering variance `width^2`: a blur, or behind grains of a variance of the `phase`, where light
    scatters not at all, once, twice ... by the odds of Poisson.
    """
    if not phase:
        return curve(place, width)
    return sum(
        math.exp(-phase) * phase**n / math.factorial(n) * curve(place, width * math.sqrt(n / phase)) for n in range(9)
    )


def scan_of(method, distance, unit, phase=0.0):
    """Positions in units of `unit`, a lens and a patch that scatters."""
    rng = np.random.default_rng(0)
    lens = 0.5 * (COLUMN - 20) / 6 * np.exp(-((COLUMN - 20) ** 2 + (ROW - 26) ** 2) / 80)  # [unit]
    patch = np.hypot(ROW - 12, COLUMN - 34) < 7
    still, there = np.linspace(-4, 4, 17), np.linspace(-2.4, 2.4, 7)
    at = lambda places, moved: places[:, None, None] - moved
    reference = rng.poisson(60000 * curve(at(still, 0 * lens), 0.0))
    behind = scattered(at(there, lens), np.where(patch, 0.6, 0.0), phase)
    sample = rng.poisson(60000 * np.where(patch, 0.8, 1.0) * behind)
    scan = dr.Scan.from_arrays(
        sample,
        method=method,
        geometry=dr.ParallelBeam(PIXEL, ENERGY, distance),
        extra={"reference": reference, "steps": there * unit, "reference_steps": still * unit},
    )
    return scan, lens, patch


@pytest.mark.parametrize("method, distance, unit, angle, phase", [
    ("edge-illumination", 0.6, 3e-6, 3e-6 / 0.6, 0.0), ("analyser", 0.25, 1.5e-6, 1.5e-6, 0.8)])  # fmt: skip
def test_signals_come_back(method, distance, unit, angle, phase):
    scan, lens, patch = scan_of(method, distance, unit, phase)
    counts = np.array(scan.counts)
    counts[:, 2, 8:10] = 0  # dead pixels once made the saturation not a number
    result = dr.reconstruct(scan.replace(counts=counts), settings={"quality": {"error_bars": 0}})
    assert np.isnan(result["transmission"][2, 8:10]).all() and np.isnan(result["transmission"]).sum() == 2
    found, inside = np.asarray(result["alpha_x"], float) / angle, np.zeros((SIZE, SIZE), bool)
    inside[4:-4, 4:-4] = True
    assert np.linalg.norm((found - lens)[inside]) < 0.15 * np.linalg.norm(lens[inside])
    core, air = np.hypot(ROW - 12, COLUMN - 34) < 4, (ROW > 32) & (COLUMN > 34) & inside
    assert np.mean(result["transmission"][core]) / np.mean(result["transmission"][air]) == pytest.approx(0.8, abs=0.01)
    assert np.mean(result["scattering"][core]) / angle**2 == pytest.approx(0.36, abs=0.05)
    assert abs(np.mean(result["scattering"][air])) / angle**2 < 0.03
    if phase:  # grains scatter once by wavelength / (2 pi length), and a blur has none
        length = dr.physics.energy_to_wavelength(ENERGY) / (2 * np.pi * 0.6 * angle / math.sqrt(phase))
        assert result.quality["correlation_length"] == pytest.approx(length, rel=0.15)


@pytest.mark.parametrize(
    "change, words",
    [
        ({"steps": None}, "where the mask stood"),
        ({"steps": 3e-6 * np.arange(3.0)}, "3 numbers for 7 frames"),
        ({"steps": 3e-6 * np.array([0, 1, 0, 1, 0, 1, 0])}, "take three positions"),
        ({"steps": np.array([0.0, 1, 2, np.nan, 4, 5, 6])}, "no finite number for 1 frames, first 3"),
        ({"steps": np.linspace(-3.0, 3.0, 7)}, "in the same unit"),
        ({"reference": np.random.default_rng(0).poisson(9000, (17, SIZE, SIZE))}, "no curve over"),
    ],
)
def test_refused(change, words):
    scan, _, _ = scan_of("edge-illumination", 0.6, 3e-6)
    with pytest.raises(dr.InputError, match=words):
        dr.reconstruct(scan.replace(extra={**scan.extra, **change}))


@pytest.mark.parametrize("method, distance, unit", [("edge-illumination", 0.6, 3e-6), ("analyser", 0.25, 1.5e-6)])
@pytest.mark.parametrize(
    "which, frame, times, words",
    [
        ("sample", 4, 5.0, "frame 4 with the sample .* 4.9.* times as bright .*data.views"),
        ("sample", slice(None), 6.0, r"6.* times as bright as those of data\.reference"),
        ("sample", 2, 0.0, "frames with the sample 2 hold no light"),
        ("reference", 7, 0.0, "reference frames 7 hold no light"),
        ("reference", 16, 0.0, "reference frames 16 hold no light"),
        ("reference", 7, 5.0, "reference frame 7 .* times as bright .*data.reference_steps"),
    ],
)
def test_frames_of_another_exposure_are_named(method, distance, unit, which, frame, times, words):  # fmt: skip
    scan, _, _ = scan_of(method, distance, unit)
    stacks = {"sample": np.array(scan.counts, float), "reference": np.array(scan.extra["reference"], float)}
    stacks[which][frame] *= times
    scan = scan.replace(counts=stacks["sample"], extra={**scan.extra, "reference": stacks["reference"]})
    with pytest.raises(dr.InputError, match=words):
        dr.reconstruct(scan)


def test_the_depth_of_reflection_is_taken_back():
    """Frames at the top of the curve are displaced by 0.5 pixels, at its feet by 0.2; the crystal on either side."""
    scan, lens, _ = scan_of("analyser", 0.25, 1.5e-6)
    there, rng = np.linspace(-2.4, 2.4, 7), np.random.default_rng(2)
    still = rng.poisson(6e6 * curve(np.linspace(-4, 4, 17)[:, None, None] - 0 * lens, 0.0))
    bright, inside = scan.replace(extra={**scan.extra, "reference": still}), (slice(6, -6), slice(6, -6))
    found = {}
    for side in (1, -1, 0):
        lag = side * (0.2 + 0.3 * np.exp(-((there / 1.6) ** 4)))[:, None, None]
        column = COLUMN + lag
        moved = 0.5 * (column - 20) / 6 * np.exp(-((column - 20) ** 2 + (ROW - 26) ** 2) / 80)
        frames = rng.poisson(6e6 * curve(there[:, None, None] - moved, 0.0))
        result = dr.reconstruct(bright.replace(counts=frames), settings={"quality": {"error_bars": 0}})
        found[side] = result.quality["image_lag"]
        angle = np.asarray(result["alpha_x"], float)[inside] / 1.5e-6
        assert np.linalg.norm(angle - lens[inside]) < 0.04 * np.linalg.norm(lens[inside])
    assert found[0] == 0.0 and found[1] == pytest.approx(-found[-1], rel=0.05) and 0.2 < found[1] < 0.7


def test_air_does_not_scatter():
    """Doses that bend over the curve, and positions that are stretched, look like a curve of another width."""
    scan, lens, patch = scan_of("edge-illumination", 0.6, 3e-6)
    doses = np.array([1.01, 1.0, 0.99, 0.985, 0.99, 1.0, 1.01])[:, None, None]
    there = 0.97 * np.linspace(-2.4, 2.4, 7)[:, None, None] - lens
    behind = scattered(there, np.where(patch, 0.6, 0.0), 0.0)
    frames = np.random.default_rng(1).poisson(60000 * doses * np.where(patch, 0.8, 1.0) * behind)
    air = (ROW > 32) & (COLUMN > 34) & (ROW < 44) & (COLUMN < 44)
    levels = {}
    for known in ("mode", "none"):
        settings = {"quality": {"error_bars": 0}, "model": {"air": known}}
        result = dr.reconstruct(scan.replace(counts=frames), settings=settings)
        assert any("taken for air" in line for line in result.verdict) == (known == "mode")
        levels[known] = [float(np.median(np.asarray(result[name])[air])) for name in ("darkfield", "transmission")]
    assert levels["mode"][0] == pytest.approx(1, abs=0.01)
    assert levels["mode"][1] == pytest.approx(1, abs=0.02)  # the brightest frames, which say most of it, lack 1.5 %
    assert abs(levels["none"][0] - 1) > 3 * abs(levels["mode"][0] - 1)


def test_positions_of_the_reference_err():
    """A curve that repeats and is smooth tells where the reference's frames stood; told wrongly it is not used."""
    rng, period, places = np.random.default_rng(3), 12.0, np.arange(15.0)
    error = 0.08 * rng.standard_normal(15)
    error -= np.polyval(np.polyfit(places, error, 1), places)
    true = lambda x: 1.2 - 0.8 * np.cos(2 * np.pi * (x - 1.3) / period) + 0.1 * np.cos(4 * np.pi * x / period)
    light = np.linspace(4000, 9000, 400).reshape(1, 20, 20)
    frames, good = rng.poisson(light * true(places + error)[:, None, None]).astype(float), np.ones((20, 20), bool)
    found = repeating_curve(places, frames, good, period)
    left = np.polyval(np.polyfit(places, found.error, 1), places)
    assert np.std(found.error - left - error) < 0.75 * np.std(error)
    wave = np.exp(2j * np.pi * np.arange(len(found.spectrum)) / period * places[:, None])
    read = np.einsum("km,myx->kyx", wave, found.spectrum).real
    mean = lambda stack: (stack / light).mean((1, 2))
    assert np.std(mean(read) / true(places) - 1) < 0.7 * np.std(mean(frames) / true(places) - 1)
    assert repeating_curve(places, frames, good, 9.0) is None
    assert repeating_curve(places, frames, good, 20.0) is None  # not a whole period


def test_a_narrow_curve_in_wide_steps_is_no_other_exposure():
    scan, _, _ = scan_of("analyser", 0.25, 1.5e-6)
    places = np.arange(-3, 4) * 1.5
    curve = lambda at: 60000 * (np.exp(-(at**2) / 2) + 0.01)[:, None, None] * np.ones((SIZE, SIZE))
    there = np.asarray(scan.extra["steps"]) / 1.5e-6
    extra = {**scan.extra, "reference": curve(places), "reference_steps": places * 1.5e-6}
    stacks = read_stacks(scan.replace(counts=0.8 * curve(there), extra=extra), same=False)
    _refuse_odd_doses(scan, stacks, places, there)
    stacks.reference[1] *= 60
    with pytest.raises(dr.InputError, match="reference frame 1 .* another exposure"):
        _refuse_odd_doses(scan, stacks, places, there)

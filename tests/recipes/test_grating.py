"""Phase stepping against frames written down directly: fringes with a closed form, steps and doses that err."""

import numpy as np
import pytest

import diffrecon as dr
from diffrecon._console import Console
from diffrecon.models import fit_fringes
from diffrecon.recipes._stepping import fringes_by_air
from diffrecon.recipes.grating import Grating, Settings

SIZE, PIXEL, PERIOD, DISTANCE, ENERGY = 64, 4.8e-6, 2.4e-6, 0.4, 20e3
ROW, COLUMN = np.mgrid[:SIZE, :SIZE].astype(float)
TURN = 2 * np.pi * PIXEL / PERIOD
DOSES = np.array([1.004, 0.995, 1.0, 1.006, 0.997, 0.998])
STEPS = np.arange(6) / 6 + np.array([0.02, -0.03, 0.01, 0.0, -0.02, 0.015])


def scan_of(displacement, transmission=1.0, visibility=1.0, counts=20000.0, **extra):
    """Moire of two fringes over the frame, a visibility that is uneven."""
    rng = np.random.default_rng(0)
    moire = 2 * np.pi * (2 * COLUMN + ROW) / SIZE
    seen = 0.4 + 0.05 * np.cos(ROW / 20)

    def frames(moved, light, sharp, steps, doses):
        turn = (moire + TURN * moved)[None] - 2 * np.pi * steps[:, None, None]
        return rng.poisson(doses[:, None, None] * counts * light * (1 + sharp * seen * np.cos(turn)))

    still = frames(0 * COLUMN, 1.0, 1.0, STEPS[::-1] - STEPS.mean() + 0.4, DOSES[::-1])
    there = frames(displacement, transmission, visibility, STEPS, DOSES)
    planned = {"reference_steps": np.arange(6)[::-1] / 6, "steps": np.arange(6) / 6, "period": PERIOD}
    return dr.Scan.from_arrays(
        there,
        method="grating",
        geometry=dr.ParallelBeam(PIXEL, ENERGY, DISTANCE),
        extra={"reference": still, **planned, **extra},
    )


def test_signals_come_back():
    lens = 0.12 * (COLUMN - 30) / 8 * np.exp(-((COLUMN - 30) ** 2 + (ROW - 34) ** 2) / 150)
    patch = np.hypot(ROW - 14, COLUMN - 48) < 8
    scan = scan_of(lens, np.where(patch, 0.8, 1.0), np.where(patch, 0.6, 1.0))
    result = dr.reconstruct(scan, settings={"model": {"fringes": False}})
    found = np.asarray(result["alpha_x"], float) * DISTANCE / PIXEL
    inside = np.zeros((SIZE, SIZE), bool)
    inside[6:-6, 6:-6] = True
    assert np.linalg.norm((found - lens)[inside]) < 0.12 * np.linalg.norm(lens[inside])
    assert found[inside] @ lens[inside] / (lens[inside] @ lens[inside]) == pytest.approx(1, abs=0.04)
    core = np.hypot(ROW - 14, COLUMN - 48) < 5
    air = (ROW > 50) & (COLUMN > 40) & inside
    assert np.mean(result["darkfield"][core]) / np.mean(result["darkfield"][air]) == pytest.approx(0.6, abs=0.03)
    assert np.mean(result["transmission"][core]) / np.mean(result["transmission"][air]) == pytest.approx(0.8, abs=0.01)
    assert "alpha_y" not in result.quantities and "alpha_x_error" in result.quantities


def test_steps_and_doses_are_found():
    frames = scan_of(0 * COLUMN).counts
    (_, visibility, _), flux, steps = fit_fringes(frames, np.arange(6) / 6)
    assert np.abs(steps - steps.mean() - STEPS + STEPS.mean()).max() < 3e-3
    assert np.abs(flux / flux.mean() - DOSES / DOSES.mean()).max() < 5e-3
    planned = fit_fringes(frames, np.arange(6) / 6, rounds=0)[0]
    truth = 0.4 + 0.05 * np.cos(ROW / 20)
    assert np.std(visibility - truth) < 0.5 * np.std(planned[1] - truth)


def test_a_boost_of_steps_and_doses_changes_no_frame():
    """The degeneracy that the docs name: other steps, doses and fringes, the same frames to the last digit."""
    step, point = 2 * np.pi * STEPS, np.array([1.0, 0.3, -0.2])
    null = np.stack([np.ones(6), np.cos(step), np.sin(step)], 1)
    speed = 0.02
    grow = 1 / np.sqrt(1 - speed**2)
    boost = np.array([[grow, grow * speed, 0], [grow * speed, grow, 0], [0, 0, 1]])
    moved = null @ boost
    doses, steps = moved[:, 0], np.arctan2(moved[:, 2], moved[:, 1]) / (2 * np.pi)
    again = doses[:, None] * np.stack([np.ones(6), np.cos(2 * np.pi * steps), np.sin(2 * np.pi * steps)], 1)
    np.testing.assert_allclose(again @ np.linalg.solve(boost, point), null @ point, rtol=1e-12)
    assert np.ptp(doses) > 0.03


@pytest.mark.parametrize(
    "change, words",
    [
        ({"period": None}, "geometry.period"),
        ({"steps": np.arange(4) / 4}, "4 numbers for 6 frames"),
        ({"steps": np.arange(6.0)}, "three different ones"),
        ({"reference": np.full((6, SIZE, SIZE), 100.0)}, "nothing to displace"),
    ],
)
def test_refused(change, words):
    with pytest.raises(dr.InputError, match=words):
        dr.reconstruct(scan_of(0 * COLUMN, **change), "grating")


@pytest.mark.parametrize("seed", range(3))
def test_fringes_without_moire_keep_their_steps(seed):
    """One phase in all pixels: bright frames are noisier everywhere, and nothing but the plan tells the steps."""
    rng, planned = np.random.default_rng(seed), np.arange(6) / 6
    frames = rng.poisson(
        1000 * (1 + 0.3 * np.cos(rng.uniform(0, 6) - 2 * np.pi * planned))[:, None, None] + np.zeros((80, 80))
    )
    (_, visibility, _), flux, step = fit_fringes(frames, planned)
    assert np.std(step - planned) < 0.02 and np.std(flux) < 0.02
    assert np.median(visibility) == pytest.approx(0.3, rel=0.05)


def single_frames(kind, height, period=4.6, width=12.0, counts=20000.0):
    """One frame without and one with a Gaussian lens: a grid of squares, lines, or moire of an analyser; by closed
    forms, looked up where the rays come from. Gives the scan and the displacement where they land [pixel]."""
    rng, (y, x) = np.random.default_rng(3), (ROW - 30, COLUMN - 33)
    lens = height * np.exp(-(y**2 + x**2) / (2 * width**2))
    moved = -np.stack([y, x]) / width**2 * lens
    bends = [(q**2 / width**2 - 1) / width**2 * lens for q in (y, x)]
    bright = (1 - bends[0]) * (1 - bends[1]) - (y * x / width**4 * lens) ** 2

    def pattern(down, right):
        u, v = right + 0.1 * down, down - 0.1 * right
        wave = lambda place: 0.4 * np.cos(2 * np.pi * place / period)
        if kind == "moire":
            return 1 + 0.4 * np.cos(2 * np.pi * u / period - TURN * (COLUMN - right))
        return 1 + wave(u) if kind == "lines" else (1 + wave(u)) * (1 + wave(v))

    moire = kind == "moire"
    there = pattern(ROW if moire else ROW - moved[0], COLUMN - moved[1])
    if moire:  # the envelope stays, and the phase turns by the displacement over the analyser's period
        u = COLUMN + 0.1 * ROW
        there = 1 + 0.4 * np.cos(2 * np.pi * u / period - TURN * moved[1])
    frames = [rng.poisson(counts * a)[None] for a in (there * bright, pattern(ROW, COLUMN))]
    extra = {"reference": frames[1]} | ({"period": PERIOD} if moire else {})
    geometry = dr.ParallelBeam(PIXEL, ENERGY, DISTANCE)
    return dr.Scan.from_arrays(frames[0], method="grating", geometry=geometry, extra=extra), moved


def test_one_frame_of_a_grid():
    """Displacements of more than half a period, where windows of a periodic pattern lose their way."""
    scan, moved = single_frames("grid", 50.0)
    assert np.abs(moved).max() > 0.5 * 4.6
    result = dr.reconstruct(scan, settings={"quality": {"error_bars": 0}})
    true, _ = dr.operators.along_rays(moved, np.zeros((1, SIZE, SIZE)), rounds=40)
    inside = np.s_[6:-6, 6:-6]
    for name, one in zip(("alpha_y", "alpha_x"), true, strict=True):
        found, one = (np.asarray(result[name], float) * DISTANCE / PIXEL)[inside], one[inside]
        assert np.linalg.norm(found - one) < 0.1 * np.linalg.norm(one)
        assert (found * one).sum() / (one**2).sum() == pytest.approx(1, abs=0.04)
    seen = result.quality
    assert seen["held_out_residual"] < 4 * seen["held_out_noise"] < 0.1 * seen["held_out_ratio"]
    assert "pixels never fitted" in result.verdict[0]


@pytest.mark.parametrize("kind, height", [("lines", 30.0), ("moire", 2.0)])
def test_one_frame_of_one_direction(kind, height):
    """The first guess already has the angle across the lines: by the grating's own period, or by the analyser's."""
    scan, moved = single_frames(kind, height)
    problem = Grating().begin(scan, Settings(), Console(quiet=True))
    found, true = np.asarray(problem.model.fields())[1][8:-8, 8:-8], moved[1][8:-8, 8:-8]
    assert (found * true).sum() / (true**2).sum() == pytest.approx(1, abs=0.15)
    assert np.array_equal(problem.told, [0, 1])
    assert any(("moire of" if kind == "moire" else "own, displaced") in line for line in problem.lines)


def test_a_pattern_without_a_period_is_no_grating():
    rng = np.random.default_rng(0)
    rough = dr.prepare.mean_around(rng.standard_normal((1, SIZE, SIZE)), 1.2)
    frames = rng.poisson(5000 * (1 + 0.2 * rough / rough.std()))
    scan = single_frames("lines", 0.0)[0].replace(extra={"reference": frames})
    with pytest.raises(dr.InputError, match="shows no fringes.*-m speckle"):
        dr.reconstruct(scan, "grating")


def test_air_takes_the_boost_out_of_steps_and_doses():
    """Frames of known steps and doses; a sample of uneven phase and visibility fills two thirds of them."""
    random, size = np.random.default_rng(0), 60
    y, x = np.mgrid[:size, :size]
    sample = np.hypot(y - 30, x - 30) < 27
    still = np.stack([np.full((size, size), 1e4), 3e3 * np.cos(x / 9), 3e3 * np.sin(x / 9)])
    mean = np.where(sample, 0.8 + 0.1 * np.sin(y / 5), 1.0) * still[0]
    visibility = 0.3 * np.where(sample, random.uniform(0.5, 0.9, (size, size)), 1.0)
    phase = x / 9 + np.where(sample, 1.5 * np.sin(y / 7) + 0.8, 0.0)
    planned = np.arange(6) / 6
    steps = planned + random.normal(0, 0.03, 6)
    flux = 1 + random.normal(0, 0.02, 6)
    angle = phase - 2 * np.pi * steps[:, None, None]
    frames = flux[:, None, None] * mean * (1 + visibility * np.cos(angle))
    found = fit_fringes(frames, planned)
    assert np.abs(found[2] - steps).max() > 5e-3  # all frames alone leave the boost open
    values, dose, step = fringes_by_air(still, frames, found, np.ones((size, size), bool))
    np.testing.assert_allclose(step, steps, atol=1e-4)
    np.testing.assert_allclose(dose, flux, rtol=3e-4)
    np.testing.assert_allclose(values[1], visibility, atol=1e-3)

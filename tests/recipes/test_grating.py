"""Phase stepping against frames written down directly: fringes with a closed form, steps and doses that err."""

import numpy as np
import pytest

import diffrecon as dr
from diffrecon.models import fit_fringes

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

"""Fringe scans against frames written down directly: a phase of several turns, steps, doses and a drift that err."""

import numpy as np
import pytest

import diffrecon as dr

SIZE, PIXEL, ENERGY = 48, 5e-6, 20e3
ROW, COLUMN = np.mgrid[:SIZE, :SIZE].astype(float)
PHASE = -9.0 * np.exp(-((COLUMN - 18) ** 2 + (ROW - 24) ** 2) / 90)
PATCH = np.hypot(ROW - 12, COLUMN - 37) < 7
PASSED, SHARP = np.where(PATCH, 0.7, 1.0), np.where(PATCH, 0.6, 1.0)
QUICK = {"solver": {"steps": 60}, "quality": {"error_bars": 3}}


def scan_of(phase=PHASE, counts=8000.0, dose=1.0, **extra):
    """Two arms of half the light each, in closed form; steps, doses and the drift between the scans err."""
    rng = np.random.default_rng(0)
    errors, doses = np.array([0.02, -0.03, 0.01, 0.0, -0.02, 0.02]), np.array([1.004, 0.995, 1, 1.006, 0.997, 0.998])

    def frames(phase, passed, sharp, steps, doses):
        carrier = 2 * np.pi * (2 * COLUMN + ROW) / SIZE
        turn = (phase + carrier)[None] - 2 * np.pi * steps[:, None, None]
        light = 0.5 * (1 + passed) + 0.7 * np.sqrt(passed) * sharp * np.cos(turn)
        return rng.poisson(doses[:, None, None] * counts * light).astype(np.uint16)

    still = frames(0 * COLUMN, 1.0, 1.0, np.arange(6) / 6 + errors[::-1], doses[::-1])
    there = frames(phase, PASSED, SHARP, np.arange(6) / 6 + errors + 0.07, dose * doses)
    return dr.Scan.from_arrays(
        there, method="interferometer", geometry=dr.ParallelBeam(PIXEL, ENERGY), extra={"reference": still, **extra}
    )  # fmt: skip


@pytest.fixture(scope="module")
def result():
    return dr.reconstruct(scan_of(dose=0.93), settings=QUICK)


def test_phase_of_several_turns_comes_back(result):
    """And the constant is that of air, the dose between the scans no transmission."""
    found = np.asarray(result["phase"], float)
    assert np.sqrt(np.mean((found - PHASE)[4:-4, 4:-4] ** 2)) < 0.03
    core, air = np.hypot(ROW - 12, COLUMN - 37) < 5, (ROW > 38) & (COLUMN > 34)
    assert np.mean(result["transmission"][core]) == pytest.approx(0.7, abs=0.015)
    assert np.mean(result["transmission"][air]) == pytest.approx(1.0, abs=0.01)
    assert np.mean(result["darkfield"][core]) == pytest.approx(0.6, abs=0.02)
    angle = np.gradient(PHASE, PIXEL, axis=1) / (2 * np.pi * ENERGY / dr.physics.HC)
    error = (np.asarray(result["alpha_x"]) - angle)[4:-4, 4:-4]
    assert np.linalg.norm(error) < 0.05 * np.linalg.norm(angle)


def test_an_unseen_step_judges_and_bars_are_those_of_noise(result):
    seen = result.quality
    assert seen["held_out_residual"] < seen["held_out_sinusoid"] < 2 * seen["held_out_noise"]
    assert seen["fringe_drift"] == pytest.approx(-0.07, abs=0.01)
    air = (ROW > 32) & (ROW < SIZE - 4) & (COLUMN > 30) & (COLUMN < SIZE - 4)
    error = np.asarray(result["phase"])[air] - PHASE[air]
    assert 0.5 < np.std(error) / np.median(result["phase_error"][air]) < 2


def test_steps_that_run_backwards_are_named():
    """A phase of the other sign: what attenuates would be ahead of air."""
    scan = scan_of(np.where(PATCH, -2.5, 0.0))
    flipped = scan.replace(extra={**scan.extra, "steps": -np.arange(6) / 6, "reference_steps": -np.arange(6) / 6})
    words = lambda scan: " ".join(dr.reconstruct(scan, settings=QUICK | {"quality": {"held_out": 0.0}}).verdict)
    assert "sign changed" in words(flipped) and "sign changed" not in words(scan)


@pytest.mark.parametrize(
    "change, words",
    [
        ({"reference": None}, "data.reference"),
        ({"steps": np.arange(4) / 4}, "4 numbers for 6 frames"),
        ({"reference": np.full((6, SIZE, SIZE), 100.0)}, "there is no phase in them"),
    ],
)
def test_refused(change, words):
    with pytest.raises(dr.InputError, match=words):
        dr.reconstruct(scan_of(**change))


def test_pixel_and_energy_are_asked_for():
    scan = scan_of().replace(geometry=dr.ParallelBeam(None, ENERGY))
    with pytest.raises(dr.InputError, match="geometry.detector_pixel"):
        dr.reconstruct(scan)


def test_volumes_are_solved_angle_by_angle():
    scan = scan_of()
    turned = scan.replace(counts=np.concatenate([scan.counts] * 2), angles=np.repeat([0.0, 1.0], 6))
    with pytest.raises(dr.InputError, match="angle by angle"):
        dr.reconstruct(turned, settings={"volume": {"name": "joint"}})
    with pytest.raises(dr.InputError, match="frames at many angles"):
        dr.reconstruct(scan, settings={"volume": {"name": "cgls"}})

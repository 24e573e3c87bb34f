"""Registration of holograms of different distances: against a plain NumPy model, finer than the frames."""

import functools

import numpy as np
import pytest

from diffrecon.errors import InputError
from diffrecon.prepare import _registration, register_distances

WAVELENGTH, FINE, FRAME, GRID = 7.3e-11, 2.5e-8, 96, 512
PIXELS = np.array([5e-8, 5.3e-8, 6.4e-8])
DISTANCES = np.array([3e-3, 3.2e-3, 3.9e-3])
SHIFTS = np.array([[0.0, 0.0], [2.63, -4.4], [-6.2, 3.85]])


def blobs(seed, strength, angle=0.0):
    """Phase [rad], down to about `-strength`: spheres in a flat body, as a frame turned by `angle` sees them."""
    random = np.random.default_rng(seed)
    axis = np.arange(GRID) - (GRID - 1) / 2
    down, right = axis[:, None] + angle * axis, axis - angle * axis[:, None]
    thickness = lambda y, x, a, b: np.sqrt(np.clip(1 - ((down - y) / a) ** 2 - ((right - x) / b) ** 2, 0, None))
    phase = 0.6 * thickness(2, -3, 70, 70)
    for _ in range(25):
        y, x = random.uniform(-45, 45, 2)
        phase += random.uniform(-0.2, 0.3) * thickness(y, x, *[random.uniform(3, 14)] * 2)
    return -strength * phase / phase.max()


def holograms(phase, shifts=SHIFTS, photons=2000.0, seed=0, delta_beta=1000.0):
    """Counts on each distance's own pixels, by exact trigonometric interpolation; one phase, or one for each frame."""
    f, frames = np.fft.fftfreq(GRID, FINE), []
    phases = np.broadcast_to(phase, (len(PIXELS), GRID, GRID))
    for own, pixel, distance, shift in zip(phases, PIXELS, DISTANCES, shifts, strict=True):
        chirp = np.exp(-1j * np.pi * WAVELENGTH * distance * f**2)
        scattered = np.fft.fft2(np.exp((1j + 1 / delta_beta) * own) - 1)
        intensity = np.abs(1 + np.fft.ifft2(scattered * chirp[:, None] * chirp)) ** 2
        place = np.arange(FRAME) - (FRAME - 1) / 2
        rows, columns = (
            np.exp(2j * np.pi * np.outer((place - s) * pixel + (GRID - 1) / 2 * FINE, f)) * np.sinc(f * pixel) / GRID
            for s in shift
        )
        frames.append((rows @ np.fft.fft2(intensity) @ columns.T).real)
    return np.random.default_rng(seed).poisson(photons * np.stack(frames)).astype(float)


@functools.cache
def example():
    """Holograms of a weak object."""
    return holograms(blobs(4, 0.5))


def found(counts, flux=2000.0, **other):
    return register_distances(counts, flux, pixels=PIXELS, distances=DISTANCES, wavelength=WAVELENGTH, **other)


@pytest.mark.parametrize("strength", [0.3, 6.0])
def test_shifts_of_a_weak_and_of_a_strong_object(strength):
    counts = holograms(blobs(3, strength))
    for delta_beta in (np.inf, 300.0):
        shifts, report = found(counts, delta_beta=delta_beta)
        assert np.abs(shifts - SHIFTS).max() < 0.15
        assert report.spread.max() < 0.15 and "WARNING" not in report.message


def test_flats_dark_mask_and_dead_pixels():
    counts, random = example(), np.random.default_rng(1)
    flat = 2000 * (1 + 0.3 * random.random((FRAME, FRAME)))
    mask = random.random((FRAME, FRAME)) > 0.03
    mask[30:34] = False
    raw = np.where(mask, counts / 2000 * flat + 50, 1e6)
    raw[0, 3, 3] = np.nan
    shifts, _ = found(raw, flat, dark=50.0, mask=mask)
    assert np.abs(shifts - SHIFTS).max() < 0.2


def test_start_fixes_the_first_frame():
    counts, start = example(), np.array([[1.5, -2.0]] * 3)
    free, moved = found(counts)[0], found(counts, start=start)[0]
    assert np.array_equal(moved[0], start[0])
    # Displacements are of the object: in units of each frame's pixel.
    assert np.allclose(moved - free, start[0] * PIXELS[0] / PIXELS[:, None], atol=0.15)


def test_large_frames_are_binned(monkeypatch):
    counts = example()[:, :95, :93]  # the end cut off: centres move by (0.5, 1.5) pixels
    whole, _ = found(counts)
    monkeypatch.setattr(_registration, "_LARGEST", 48)
    binned, _ = found(counts)
    expected = SHIFTS - np.array([0.5, 1.5]) * (PIXELS[0] / PIXELS[:, None] - 1)
    assert np.abs(whole - expected).max() < 0.15 and np.abs(binned - expected).max() < 0.3


def test_rotation_of_a_frame():
    counts = holograms([blobs(7, 1.0, angle) for angle in (0.0, 0.02, -0.01)])
    _, report = found(counts)
    assert np.abs(report.rotations - [0.0, 0.02, -0.01]).max() < 0.008
    assert np.all(report.rotation_errors[1:] < 0.004)


def test_frames_without_an_object_are_told():
    noise = np.random.default_rng(0).poisson(2000, (3, FRAME, FRAME))
    assert "WARNING" in found(noise)[1].message


def test_one_frame_has_nothing_to_be_registered_to():
    shifts, report = register_distances(
        np.ones((1, 32, 32)), 1.0, pixels=(5e-8,), distances=(0.01,), wavelength=WAVELENGTH
    )
    assert np.array_equal(shifts, [[0, 0]]) and "WARNING" not in report.message


@pytest.mark.parametrize(
    "change",
    [
        {"counts": np.ones((3, 8, 8))},
        {"counts": np.ones((32, 32))},
        {"flux": np.ones((3, 5, 5))},
        {"flux": 0.0},
        {"pixels": [5e-8, 5e-8]},
        {"distances": [0.1, -0.1, 0.1]},
        {"wavelength": np.nan},
        {"start": np.zeros((2, 2))},
        {"mask": np.zeros((32, 32), bool)},
    ],
)
def test_what_does_not_fit_is_refused(change):
    given = {
        "counts": np.ones((3, 32, 32)),
        "flux": 1.0,
        "pixels": PIXELS,
        "distances": DISTANCES,
        "wavelength": WAVELENGTH,
    }
    with pytest.raises(InputError, match="register_distances"):
        register_distances(**(given | change))

"""Holograms of specimens that go on beyond the frames, from an independent generator, and of isolated ones."""

import numpy as np
import pytest

from diffrecon import ConeBeam, Console, Scan, recipes
from diffrecon.errors import InputError
from diffrecon.models import Holography
from diffrecon.recipes import _holography_problem as problems

N, OVER, WIDE, FLUX = 64, 2, 4, 8000.0
PLACE = ConeBeam(17e3, np.array([0.0213, 0.0226, 0.0259, 0.0332]), 1.28, 9e-6)
QUICK = {"solver": {"rounds": 2, "steps": 3, "cg_steps": 12, "tv_rounds": 1}, "quality": {"error_bar": False}}


def grains(seed: int, isolated: bool) -> np.ndarray:
    """A phase of soft discs on a window four times the field, or in its middle only."""
    random, size = np.random.default_rng(seed), N * OVER * WIDE
    axis = np.arange(size) - (size - 1) / 2
    phase, reach = np.zeros((size, size)), (0.25 if isolated else 0.5 * WIDE) * N * OVER
    for _ in range(25 if isolated else 1600):
        y, x = random.uniform(-reach, reach, 2)
        radius = OVER * random.uniform(1.5, 7)
        phase -= (
            random.uniform(0.02, 0.06)
            * radius
            / OVER
            * np.exp(-((((axis[:, None] - y) ** 2 + (axis - x) ** 2) / radius**2) ** 2))
        )
    return phase


def measured(phase: np.ndarray, seed: int, ratio: float = 2500) -> Scan:
    """Photon counts by NumPy: a finer grid, exact integration over each distance's own pixels."""
    fine, size = float(PLACE.pixel_size[0]) / OVER, len(phase)
    f = np.fft.fftfreq(size, fine)
    spectrum, frames = np.fft.fft2(np.exp((1j + 1 / ratio) * phase)), []
    for pixel, distance in zip(PLACE.pixel_size, PLACE.distance, strict=True):
        chirp = np.exp(-1j * np.pi * PLACE.wavelength * distance * f**2)
        waves = np.fft.fft2(np.abs(np.fft.ifft2(spectrum * chirp[:, None] * chirp)) ** 2)
        places = (np.arange(N) - (N - 1) / 2) * pixel + (size - 1) / 2 * fine
        rows = np.exp(2j * np.pi * np.outer(places, f)) * np.sinc(f * pixel) / size
        frames.append((rows @ waves @ rows.T).real)
    counts = np.random.default_rng(seed).poisson(FLUX * np.array(frames)).astype(np.uint16)
    return Scan.from_arrays(counts, method="holography", geometry=PLACE, flux=FLUX)


def error(found: np.ndarray, phase: np.ndarray) -> float:
    """Relative and without the constant, an eighth of the field cut off."""
    start, cut = (len(phase) - N * OVER) // 2, slice(N // 8, -N // 8)
    truth = phase[start : start + N * OVER, start : start + N * OVER].reshape(N, OVER, N, OVER).mean((1, 3))[cut, cut]
    off = found[cut, cut] - truth
    return float(np.linalg.norm(off - off.mean()) / np.linalg.norm(truth - truth.mean()))


@pytest.fixture(scope="module")
def specimen():
    phase = grains(5, isolated=False)
    return measured(phase, 1), phase


def test_a_specimen_that_goes_on_is_found_without_vacuum(specimen, capsys):
    scan, phase = specimen
    found, held, means = {}, {}, {}
    for surroundings in ("auto", "vacuum"):
        settings = QUICK | {"model": {"surroundings": surroundings, "register": False, "attenuation": False}}
        result = recipes.reconstruct(scan, "holography", settings, Console())
        found[surroundings] = error(result["phase"], phase)
        means[surroundings] = float(result["phase"].mean())
        held[surroundings] = (
            result.quality["held_out_deviance"] / result.quality["held_out_noise_floor_deviance"]
        ).mean()
    assert "the specimen goes on" in capsys.readouterr().err
    assert found["auto"] < 0.12 and found["auto"] < 0.7 * found["vacuum"]
    assert held["auto"] < held["vacuum"]
    assert abs(means["vacuum"]) > 0.01  # vacuum is zero


def test_an_isolated_object_lies_in_vacuum(capsys):
    phase = grains(6, isolated=True)
    result = recipes.reconstruct(measured(phase, 2), "holography", QUICK | {"model": {"register": False}}, Console())
    assert "goes on" not in capsys.readouterr().err
    assert error(result["phase"], phase) < 0.2


def test_details_say_what_a_stain_attenuates(specimen):
    """A stain of delta/beta 30, told nothing: each detail of B is below the noise, together they are not."""
    phase = specimen[1]
    chosen = {"surroundings": "specimen", "register": False, "attenuation": True}
    result = recipes.reconstruct(measured(phase, 4, 30), "holography", QUICK | {"model": chosen})
    assert 20 < float(next(line for line in result.verdict if "delta/beta" in line).split()[-1]) < 40
    assert error(result["attenuation"], -phase / 30) < 0.3


def test_what_cannot_be_known_is_named(specimen):
    settings = {"model": {"surroundings": "specimen", "attenuation": False}}
    settings |= {"solver": {"rounds": 1, "steps": 2, "cg_steps": 8, "tv_rounds": 0}}
    result = recipes.reconstruct(specimen[0], "holography", settings)
    assert abs(result["phase"].mean()) < 1e-4
    line = next(line for line in result.verdict if "without vacuum" in line)
    assert "ramp" in line and "shifts" in line
    draws, axis = result["phase_error_draws"], np.arange(N) - (N - 1) / 2
    slopes = np.array([np.einsum("dyx,y->d", draws, axis), np.einsum("dyx,x->d", draws, axis)]) / (N * (axis**2).sum())
    drawn = np.sqrt((slopes**2).mean(1).sum() * (axis**2).mean())  # two in one: rms of the ramps of the draws
    assert float(line.split("a ramp of ")[1].split()[0]) == pytest.approx(drawn, rel=0.06)
    off = error(result["phase"], specimen[1]) * specimen[1].std()
    assert 0.2 < np.sqrt(np.mean(result["phase_error"] ** 2)) / off < 5


def test_blocks_that_are_never_fitted():
    mask = np.ones((40, 42), bool)
    mask[:5] = False
    held = problems.held_blocks((3, 40, 42), mask, 0)
    assert 0.005 < held.mean() < 0.05 and not held[:, :5].any()
    assert not np.array_equal(held[0], held[1]) and held.reshape(3, 10, 4, 42).any(2).sum() * 4 >= held.sum()
    assert not problems.held_blocks((1, 3, 3), mask[:3, :3], 0).any()


def test_binned_models_see_binned_frames():
    scan = Scan.from_arrays(np.ones((4, N, N), np.uint16), method="holography", geometry=PLACE, flux=FLUX)
    model = Holography.from_scan(scan, borderless=True)
    assert model.borderless and model.phase.shape == model.grid and min(model.grid) > 1.3 * N * 1.556
    rows, columns = (np.arange(n) - (n - 1) / 2 for n in model.grid)
    smooth = -0.3 * np.exp(-((rows[:, None] - 6) ** 2 + (columns + 4) ** 2) / 2 / 8.0**2)
    model = model.replace(phase=smooth.astype(np.float32), shifts=model.shifts + np.array([1.5, -2.5], np.float32))
    frames, coarse = np.asarray(model(np.arange(4))), model.binned()
    paired = frames.reshape(4, N // 2, 2, N // 2, 2).sum((2, 4))
    np.testing.assert_allclose(coarse(np.arange(4)), paired, rtol=2e-3)
    back = model.lifted(coarse)
    assert np.abs(np.asarray(back.phase) - smooth).max() < 4e-3 and np.allclose(back.shifts, model.shifts)
    # A ramp of the phase, here of eight turns over the window, is shifts of the frames and nothing else.
    ramp = np.broadcast_to(16 * np.pi * rows[:, None] / rows.size, model.grid).astype(np.float32)
    moved = 8 * model.wavelength * np.asarray(model.distances) / (rows.size * model.pixel_size * np.array(model.pixels))
    tilted = model.replace(phase=model.phase + ramp, attenuation=model.attenuation + ramp / model.delta_beta)
    back = tilted.replace(shifts=model.shifts - (moved * [1, 0]).astype(np.float32))
    off, left = (float(np.abs(np.asarray(other(np.arange(4))) - frames).max()) for other in (tilted, back))
    assert left < 0.05 * off


def test_a_word_that_is_none_of_the_surroundings(specimen):
    with pytest.raises(InputError, match="surroundings"):
        recipes.reconstruct(specimen[0], "holography", {"model": {"surroundings": "air"}})


def test_a_beam_with_structure_is_a_wave_where_unseen_pixels_say_so(specimen, monkeypatch):
    """One wave at the detector, of stripes that flats see the modulus of only; carried back and through by NumPy. It is
    found on frames of 32 pixels and solved for once more on those of 64."""
    monkeypatch.setattr(problems, "_LEAST", N // 2)
    phase, fine = specimen[1], float(PLACE.pixel_size[0]) / OVER
    size = len(phase)
    axis, f = np.arange(size) - (size - 1) / 2, np.fft.fftfreq(size, fine)
    frames, flats, random = [], None, np.random.default_rng(3)
    for pixel, distance in zip(PLACE.pixel_size, PLACE.distance, strict=True):
        x = axis * fine / pixel
        fade = np.clip((0.9 - np.abs(axis) / axis.max()) / 0.25, 0, 1)
        wave = (1 + fade * 0.15 * np.cos(2 * np.pi * x / 9)) * np.exp(0.5j * fade * np.cos(2 * np.pi * x / 13 + 1))
        chirp = np.exp(-1j * np.pi * PLACE.wavelength * distance * f**2)
        probe = np.fft.ifft(np.fft.fft(wave) * np.conj(chirp))[:, None]
        behind = np.fft.fft2(probe * np.exp((1j + 1 / 2500) * phase)) * chirp[:, None] * chirp
        places = (np.arange(N) - (N - 1) / 2) * pixel + (size - 1) / 2 * fine
        rows = np.exp(2j * np.pi * np.outer(places, f)) * np.sinc(f * pixel) / size
        frames.append((rows @ np.fft.fft2(np.abs(np.fft.ifft2(behind)) ** 2) @ rows.T).real)
        flats = (rows @ np.fft.fft(np.abs(wave) ** 2)).real[:, None] * np.ones(N) if flats is None else flats
    scan = Scan.from_arrays(
        random.poisson(FLUX * np.array(frames)).astype(np.uint16), method="holography", geometry=PLACE,
        flats=random.poisson(FLUX * np.repeat(flats[None], 10, 0)).astype(np.uint16),
    )  # fmt: skip
    found = {}
    for probe in (None, False):
        chosen = {"surroundings": "specimen", "register": False, "attenuation": False, "probe": probe}
        result = recipes.reconstruct(scan, "holography", QUICK | {"model": chosen})
        found[probe] = error(result["phase"], phase), result.quality["deviance"].max()
        assert ("beam_maps" in result.quality) == (probe is None)
        if probe is None:
            assert result.quality["beam_maps"].shape[1] > N  # of the frames as they are
    assert found[None][0] < 0.7 * found[False][0] and found[None][1] < 0.3 * found[False][1]

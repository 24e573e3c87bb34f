"""Speckle imaging against patterns whose displacement is a closed form: sums of waves, looked up exactly."""

import h5py
import numpy as np
import pytest

import diffrecon as dr
from diffrecon.cli import main
from diffrecon.recipes import _pattern_checks
from diffrecon.solvers import read_by_correlation, read_by_windows, read_linear, track_windows

SIZE, PIXEL, DISTANCE, ENERGY = 80, 3e-6, 0.7, 20e3
PLACE = np.mgrid[:SIZE, :SIZE].astype(float)
WAVES = np.random.default_rng(0).uniform([0, 0.14, 0], [2 * np.pi, 0.33, 2 * np.pi], (120, 3))


def pattern(view, y, x):
    turn, frequency, phase = WAVES.T[:, :, None, None]
    along = np.cos(turn) * (x + 97 * view) + np.sin(turn) * (y - 61 * view)
    return 1 + 0.02 * np.cos(2 * np.pi * frequency * along + phase).sum(0)


def lens(height=6.0, width=11.0, centre=(35.0, 43.0)):
    """Potential [pixel^2], displacement (row, column) and brightening of a Gaussian lens, where the rays land."""
    y, x = PLACE[0] - centre[0], PLACE[1] - centre[1]
    potential = height * np.exp(-(y**2 + x**2) / (2 * width**2))
    slope = -np.stack([y, x]) / width**2 * potential
    yy, xx = ((q**2 / width**2 - 1) / width**2 * potential for q in (y, x))
    yx = y * x / width**4 * potential
    return potential, slope, (1 - yy) * (1 - xx) - yx**2


def scan_of(views, *, counts=20000.0, drift=(0.0, 0.0), transmission=1.0, visibility=1.0, gain=1.0, seed=1, height=6.0):
    rng = np.random.default_rng(seed)
    _, moved, bright = lens(height)
    noisy = lambda a: gain * rng.poisson(counts * np.asarray(a))
    still = noisy([pattern(n, *PLACE) for n in range(views)])
    there = [pattern(n, *(PLACE - moved - np.array(drift)[:, None, None])) for n in range(views)]
    sample = noisy([transmission * bright * (1 + visibility * (p - 1)) for p in there])
    geometry = dr.ParallelBeam(PIXEL, ENERGY, DISTANCE)
    return dr.Scan.from_arrays(sample, method="speckle", geometry=geometry, extra={"reference": still})


def true_angles(height=6.0):
    """At the sample: the displacement that ends where it is looked up."""
    found, _ = dr.operators.along_rays(lens(height)[1], np.zeros((1, SIZE, SIZE)), rounds=40)
    return found * PIXEL / DISTANCE


@pytest.fixture(scope="module")
def solved():
    patch = (np.hypot(PLACE[0] - 60, PLACE[1] - 16) < 9).astype(float)
    scan = scan_of(6, drift=(0.21, -0.13), transmission=1 - 0.2 * patch, visibility=1 - 0.5 * patch)
    return dr.reconstruct(scan), patch


def test_small_displacements_are_not_locked(solved):
    """Displacements below a third of a pixel come out with the slope one, where correlation gives 0.85."""
    result, _ = solved
    for name, true in zip(("alpha_y", "alpha_x"), true_angles(), strict=True):
        found = np.asarray(result[name], float)
        assert np.abs(true).max() * DISTANCE / PIXEL < 0.35
        inside = np.zeros(true.shape, bool)
        inside[6:-6, 6:-6] = True
        assert found[inside] @ true[inside] / (true[inside] @ true[inside]) == pytest.approx(1, abs=0.02)
        assert np.linalg.norm((found - true)[inside]) < 0.1 * np.linalg.norm(true[inside])


def test_drift_of_the_pattern_is_no_refraction(solved):
    result, _ = solved
    assert result.quality["pattern_drift_y"] == pytest.approx(0.21, abs=0.01)
    assert result.quality["pattern_drift_x"] == pytest.approx(-0.13, abs=0.01)


def test_transmission_and_dark_field(solved):
    result, patch = solved
    core = (np.hypot(PLACE[0] - 60, PLACE[1] - 16) < 6) & (patch > 0)
    air = (PLACE[0] > 55) & (PLACE[0] < 74) & (PLACE[1] > 50) & (PLACE[1] < 74)
    assert np.nanmean(result["darkfield"][core]) == pytest.approx(0.5, abs=0.03)
    assert np.nanmean(result["darkfield"][air]) == pytest.approx(1.0, abs=0.01)
    assert result["transmission"][air].mean() == pytest.approx(1.0, abs=0.003)  # not over what the sample takes
    assert result["transmission"][core].mean() == pytest.approx(0.8, abs=0.01)
    assert np.nanmean(result["scattering"][core]) > 10 * abs(np.nanmean(result["scattering"][air]))


def test_phase_is_the_potential(solved):
    """The Legendre transform: the phase's own slope is the angle."""
    result, _ = solved
    phase = np.asarray(result["phase"], float)
    slope = np.gradient(phase, PIXEL, axis=1) * 12.398419843320026e-7 / ENERGY / (2 * np.pi)
    inside = np.s_[10:-10, 10:-10]
    assert np.nanstd(slope[inside] - result["alpha_x"][inside]) < 0.05 * np.nanstd(result["alpha_x"][inside])


def test_frames_never_fitted_are_predicted(solved):
    result, _ = solved
    seen = result.quality
    assert seen["held_out_residual"] < 1.6 * seen["held_out_noise"]
    assert seen["held_out_residual"] < 0.75 * seen["held_out_ratio"]


def test_error_bars_are_the_scatter(solved):
    result, _ = solved
    air = np.s_[60:74, 50:74]
    bar, scatter = np.median(result["alpha_x_error"][air]), np.std((result["alpha_x"] - true_angles()[1])[air])
    assert 0.4 * scatter < bar < 2.5 * scatter


def test_one_position_and_values_that_are_no_counts():
    scan = scan_of(1, gain=0.2, height=14.0)
    result = dr.reconstruct(scan, settings={"quality": {"error_bars": 0}})
    true = true_angles(14.0)[1][8:-8, 8:-8]
    found = np.asarray(result["alpha_x"], float)[8:-8, 8:-8]
    assert np.linalg.norm(found - true) < 0.35 * np.linalg.norm(true)
    assert any("no photon counts" in line for line in result.verdict)


def test_tracker_finds_whole_pixels():
    moved = np.array([pattern(n, PLACE[0] - 3, PLACE[1] + 2) for n in range(3)], np.float32)
    still = np.array([pattern(n, *PLACE) for n in range(3)], np.float32)
    found = track_windows(moved, still, reach=4, window=2.0)
    assert (np.asarray(found.displacement)[:, 8:-8, 8:-8] == np.array([3, -2])[:, None, None]).mean() > 0.99


def test_bad_pixels_are_left_out():
    scan = scan_of(5)
    counts, reference = scan.counts.copy(), scan.extra["reference"].copy()
    counts[:, 20:22, 30:33] = 0
    reference[2, 50, 50] = 65535
    dead = scan.replace(counts=counts.astype(np.uint16), extra={"reference": reference.astype(np.uint16)})
    result = dr.reconstruct(dead, settings={"quality": {"error_bars": 0}})
    assert np.isnan(result["transmission"][20:22, 30:33]).all() and np.isnan(result["transmission"][50, 50])
    assert any("6 pixels never saw light" in line for line in result.verdict)
    assert np.nanstd(result["alpha_x"][:12]) < 3e-7


@pytest.mark.parametrize(
    "change, words",
    [
        (lambda s: s.replace(extra={}), "data.reference"),
        (lambda s: s.replace(extra={"reference": s.extra["reference"][:2]}), "2 reference frames and 5 sample frames"),
        (lambda s: s.replace(extra={"reference": s.extra["reference"][:, 1:]}), "both stacks come from one detector"),
        (lambda s: s.replace(extra={"reference": np.full(s.counts.shape, 100.0)}), "no pattern"),
        (lambda s: s.replace(counts=s.counts[[1, 0, 2, 3, 4]]), "frame 0 is that of 1, 1 is that of 0"),
        (lambda s: s.replace(extra={"reference": np.roll(s.extra["reference"], 12, 2)}), "moved by 12 pixels"),
        (lambda s: s.replace(extra={"reference": s.counts}), "are the same"),
        (lambda s: s.replace(geometry=dr.ParallelBeam(PIXEL, None, DISTANCE)), "geometry.energy"),
        (lambda s: s.replace(geometry=dr.ParallelBeam(PIXEL, ENERGY, 0.0)), "refraction needs one"),
    ],
)
def test_refused(change, words):
    with pytest.raises(dr.InputError, match=words):
        dr.reconstruct(change(scan_of(5)), "speckle")


def test_what_the_stacks_tell_before_anything_is_solved():
    """Half a frame without a pattern, another membrane, exposures that differ: each is named, and where."""
    scan, random = scan_of(5), np.random.default_rng(2)
    still = np.array(scan.extra["reference"], np.float32)
    flat = np.where(PLACE[1] < 40, random.poisson(20000.0, still.shape), still).astype(np.float32)
    patterns, good = dr.prepare.split_patterns(flat), np.ones((SIZE, SIZE), bool)
    (line,) = _pattern_checks.unseen_lines(patterns, 0.05, good)
    assert "columns 0 to 3" in line and _pattern_checks.unseen_lines(dr.prepare.split_patterns(still), 0.05, good) == []
    turned = np.array(scan.counts, float).transpose(0, 2, 1)
    assert "is not found" in _pattern_checks.check_partners(scan, turned, still)[0]
    dim = np.array(scan.counts, np.float32) * np.array([1, 1, 3, 1, 1], np.float32)[:, None, None]
    assert "frame 2 is 3 times" in _pattern_checks.light_lines(scan, dim, still, good)[0]
    assert "transmits 0.5 everywhere" in _pattern_checks.air_lines(0.5 * good, good)[0]
    assert _pattern_checks.air_lines(np.where(PLACE[0] < 30, 0.5, 1.0), good) == []


def test_file_of_two_stacks(tmp_path, capsys):
    """Stacks at the root and attributes with units in their names need no further setting; a part takes both along."""
    scan = scan_of(5)
    with h5py.File(tmp_path / "scan.h5", "w") as file:
        file["sample"], file["reference"] = scan.counts.astype(np.uint16), scan.extra["reference"].astype(np.uint16)
        file.attrs.update(kind="speckle", energy_keV=20, pixel_m=PIXEL, sample_to_detector_m=DISTANCE)
    found = dr.open_scan(tmp_path / "scan.h5", views="1:3", region=[0, 40, 8, 72])
    assert found.method == "speckle" and found.geometry.energy == 20e3 and found.geometry.distance == DISTANCE
    np.testing.assert_array_equal(found.extra["reference"], scan.extra["reference"][1:3, 0:40, 8:72])
    assert main(["inspect", str(tmp_path / "scan.h5")]) == 0
    assert "reference    5 x 80 x 80" in capsys.readouterr().out


READERS = {"correlation": read_by_correlation, "window": read_by_windows, "linear": read_linear}


@pytest.mark.parametrize("kind, low, high", [("correlation", 0.7, 0.97), ("window", 0.5, 0.95), ("linear", 0.8, 1.3)])
def test_classical_readers_are_off_by_what_they_say(kind, low, high):
    """A fifth of a pixel, light and contrast lost: displacements come out too small, or too large, and never exact."""
    rng, cut = np.random.default_rng(0), np.s_[:, :40, :40]
    frames = lambda shift, loss: np.array([pattern(n, PLACE[0], PLACE[1] - shift) for n in range(4)])[cut] * loss
    noisy = lambda a: rng.poisson(20000 * a).astype(np.float32)
    found = READERS[kind](noisy(0.8 * (1 + 0.7 * (frames(0.2, 1) - 1))), noisy(frames(0.0, 1)))
    inside = np.s_[8:-8, 8:-8]
    assert low < np.mean(found.displacement[1][inside]) / 0.2 < high
    assert abs(np.mean(found.displacement[0][inside])) < 0.02
    assert np.mean(found.transmission[inside]) == pytest.approx(0.8, abs=0.02)
    assert np.mean(found.visibility[inside]) == pytest.approx(0.7, abs=0.12)


def test_a_reader_in_the_place_of_the_model():
    result = dr.reconstruct(scan_of(5), settings={"solver": {"kind": "linear"}})
    true, found = true_angles()[1][8:-8, 8:-8], np.asarray(result["alpha_x"], float)[8:-8, 8:-8]
    assert (found * true).sum() / (true**2).sum() == pytest.approx(1.2, abs=0.25)
    assert "alpha_x_error" not in result.quantities and result.quantities["phase"].units == "rad"
    assert any("below a third of a pixel" in line for line in result.verdict)


def test_direction_of_scattering():
    """Fibres blur every wave by its own direction: strength and direction of the tensor come back."""
    turn, sigma = 0.6, (0.6, 0.2)  # [rad] from x; deviations along and across [pixel]
    even = np.arange(200)[:, None] * [0.6180340, 0.4142136, 0.7320508] % 1  # directions are not to prefer frequencies
    waves = [0, 0.14, 0] + [2 * np.pi, 0.19, 2 * np.pi] * even
    fibres = np.hypot(PLACE[0] - 40, PLACE[1] - 40) < 22

    def seen(view, scatters):
        total = np.ones((SIZE, SIZE))
        for angle, frequency, phase in waves:
            along, across = np.cos(angle - turn) * sigma[0], np.sin(angle - turn) * sigma[1]
            kept = np.exp(-2 * np.pi**2 * frequency**2 * (along**2 + across**2)) if scatters else 1.0
            place = np.cos(angle) * (PLACE[1] + 97 * view) + np.sin(angle) * (PLACE[0] - 61 * view)
            total += 0.02 * np.where(fibres, kept, 1.0) * np.cos(2 * np.pi * frequency * place + phase)
        return total

    rng = np.random.default_rng(0)
    still, there = (rng.poisson([20000 * seen(n, scatters) for n in range(10)]) for scatters in (False, True))
    geometry = dr.ParallelBeam(PIXEL, ENERGY, DISTANCE)
    scan = dr.Scan.from_arrays(there, method="speckle", geometry=geometry, extra={"reference": still})
    settings = {"model": {"direction": 3.0, "fringes": False}, "quality": {"error_bars": 0, "held_out": 0.0}}
    result = dr.reconstruct(scan, settings=settings)
    core, air = np.hypot(PLACE[0] - 40, PLACE[1] - 40) < 14, (np.hypot(PLACE[0] - 40, PLACE[1] - 40) > 32)
    unit = (PIXEL / DISTANCE) ** 2
    xx, xy, yy = (np.median(np.asarray(result[f"scattering_{k}"])[core]) / unit for k in ("xx", "xy", "yy"))
    assert 0.5 * np.arctan2(2 * xy, xx - yy) == pytest.approx(turn, abs=0.04)
    assert xx + yy == pytest.approx(sigma[0] ** 2 + sigma[1] ** 2, rel=0.05)
    assert np.hypot(xx - yy, 2 * xy) == pytest.approx(sigma[0] ** 2 - sigma[1] ** 2, rel=0.15)
    axis = np.asarray(result["scattering_direction"])
    assert np.nanmedian(np.linalg.norm(axis[air], axis=-1)) < 0.15 * np.median(np.linalg.norm(axis[core], axis=-1))
    x, y = np.moveaxis(axis[core], -1, 0)[:2]
    assert np.std((np.arctan2(y, x) - turn + np.pi / 2) % np.pi) < 0.2


def test_a_point_focus_magnifies_what_is_seen():
    """A spherical wave on a fine grid, propagated to membrane, sample and detector as it is, without a scaling theorem:
    angles and phase come out in the sample's pixels."""
    size, fine, pixel, focus, behind, before = 56, 0.5e-6, 3e-6, 3.0, 1.5, 0.3
    seen, wavelength, rng = 1.5 * pixel, dr.physics.HC / ENERGY, np.random.default_rng(4)
    count = 768
    place = (np.arange(count) - (count - 1) / 2) * fine
    frequency = np.fft.fftfreq(count, fine)
    square = place[:, None] ** 2 + place**2
    turn = np.pi * wavelength * (frequency[:, None] ** 2 + frequency**2)
    propagated = lambda wave, z: np.fft.ifft2(np.fft.fft2(wave) * np.exp(-1j * z * turn))
    window = 1 / (1 + np.exp((np.abs(place) - 170e-6) / 2e-6))
    focused = np.exp(1j * np.pi * square / (wavelength * (focus - before))) * window[:, None] * window
    grains = np.exp(-2 * (np.pi * 1.6 * pixel) ** 2 * (frequency[:, None] ** 2 + frequency**2) / 2)
    rough = np.fft.ifft2(np.fft.fft2(rng.standard_normal((count, count))) * grains).real
    rough *= 0.5 / rough.std()
    lens = -5.0 * np.exp(-square / (2 * (10 * pixel) ** 2))

    def camera(wave):
        cells = round(seen / fine)
        edge = (count - size * cells) // 2
        light = (np.abs(wave) ** 2)[edge : edge + size * cells, edge : edge + size * cells]
        return light.reshape(size, cells, size, cells).mean((1, 3))

    still, there = [], []
    for y, x in ((0, 0), (23, 31), (-40, 17), (51, -44)):
        beam = propagated(focused * np.exp(1j * np.roll(rough, (y, x), (0, 1))), before)
        still.append(camera(propagated(beam, behind)))
        there.append(camera(propagated(beam * np.exp(1j * lens), behind)))
    noisy = lambda stack: rng.poisson(20000 * np.array(stack) / np.mean(still))
    geometry = dr.ConeBeam(ENERGY, focus, focus + behind, seen)
    scan = dr.Scan.from_arrays(
        noisy(there), method="speckle", geometry=geometry, extra={"reference": noisy(still), "detector_blur": 0.0}
    )
    result = dr.reconstruct(scan, settings={"prior": {"phase": 0.1}, "quality": {"error_bars": 0, "held_out": 0.0}})
    y, x = (np.mgrid[:size, :size] - (size - 1) / 2) * pixel
    phase = -5.0 * np.exp(-(y**2 + x**2) / (2 * (10 * pixel) ** 2))
    angle = -x / (10 * pixel) ** 2 * phase * wavelength / (2 * np.pi)
    inside = np.s_[6:-6, 6:-6]
    slope = lambda found, true: float((found * true)[inside].sum() / (true**2)[inside].sum())
    assert slope(np.asarray(result["alpha_x"], float), angle) == pytest.approx(1, abs=0.03)
    found = np.asarray(result["phase"], float)[inside]
    planes = np.stack([np.ones(found.size), *(g.ravel() for g in np.indices(found.shape))], 1)
    flat = lambda a: a.ravel() - planes @ np.linalg.lstsq(planes, a.ravel(), rcond=None)[0]
    found, true = flat(found), flat(phase[inside])
    assert found @ true / (true @ true) == pytest.approx(1, abs=0.03)

"""Regimes against closed forms and plain NumPy; designs against their neighbours."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import diffrecon as dr
from diffrecon import regimes
from diffrecon.cli import main
from diffrecon.geometry import ConeBeam, ParallelBeam
from diffrecon.regimes import _design

PARALLEL = ParallelBeam(detector_pixel=1e-6, energy=20e3, sample_to_detector=0.2)
FOUR = ConeBeam(17e3, np.array([21.333333, 22.2, 25.9, 33.2]) * 1e-3, 1.28, 3e-6)


def test_phase_contrast_is_largest_at_the_root_of_half_the_fresnel_number():
    setup = regimes.Setup.of(PARALLEL)
    expected = np.sqrt(setup.fresnel_numbers[0] / 2) / setup.pixels[0]
    assert regimes.phase_maximum(setup.wavelength, 0.2) == pytest.approx(expected, rel=1e-12)
    f = np.linspace(0.5, 1.5, 2001) * expected
    sine = regimes.transfer(f, regimes.Setup(setup.wavelength, setup.distances, np.array([1e-12]), setup.blur))[0][0]
    assert f[np.argmax(sine)] == pytest.approx(expected, rel=1e-3) and sine.max() == pytest.approx(2, rel=1e-6)


def test_transfer_vanishes_at_the_zero_crossings_and_nowhere_else():
    setup = regimes.Setup.of(PARALLEL)
    phase, attenuation = regimes.zero_crossings(setup.wavelength, 0.2, setup.nyquist)
    sine, cosine = (a[0] for a in regimes.transfer(phase, setup)), regimes.transfer(attenuation, setup)[1][0]
    assert np.abs(next(iter(sine))).max() < 1e-12 and np.abs(cosine).max() < 1e-12
    fine = np.linspace(0, setup.nyquist, 20001)[1:]
    for curve, zeros in zip(regimes.transfer(fine, setup), (phase, attenuation), strict=True):
        assert np.count_nonzero(np.diff(np.sign(curve[0]))) == len(zeros)


def test_critical_distance_puts_the_first_maximum_at_the_period():
    assert regimes.phase_maximum(1e-10, regimes.critical_distance(2e-6, 1e-10)) == pytest.approx(1 / 2e-6)


@pytest.mark.parametrize("told, factor", [({}, 1.0), ({"bandwidth": 0.2}, None)])
def test_transfer_is_the_contrast_of_a_propagated_wave(told, factor):
    """A weak cosine in plain NumPy, averaged over pixels, over the source's image and over the spectrum."""
    setup = regimes.Setup.of(PARALLEL, source_size=1e-4, source_distance=50.0, **told)
    size, fine, cycles = 256, 0.25e-6, 14
    f = cycles / (size * fine)
    x = np.arange(size) * fine
    wavelengths, spectrum = np.array([setup.wavelength]), np.array([1.0])
    if setup.bandwidth:
        steps = np.linspace(-4, 4, 81)
        wavelengths = setup.wavelength * (1 + setup.bandwidth * steps)
        spectrum = np.exp(-0.5 * steps**2) / np.exp(-0.5 * steps**2).sum()
    q = np.fft.fftfreq(size, fine)
    contrast = 0.0
    for wavelength, share in zip(wavelengths, spectrum, strict=True):
        wave = np.fft.ifft(
            np.fft.fft(np.exp(1e-5j * np.cos(2 * np.pi * f * x))) * np.exp(-1j * np.pi * wavelength * 0.2 * q**2)
        )
        contrast += share * (np.fft.fft(abs(wave) ** 2)[cycles].real * 2 / size / 1e-5)
    image = 1e-4 * 0.2 / 50.0 / 2.3548200450309493
    contrast *= np.sinc(f * 1e-6) * np.exp(-2 * (np.pi * image * f) ** 2)
    assert regimes.transfer(f, setup)[0][0] == pytest.approx(contrast, rel=1e-3)


def test_smallest_phase_has_a_closed_form_for_a_fine_pixel():
    fine = ParallelBeam(0.1e-6, 20e3, 0.05)
    setup, size = regimes.Setup.of(fine, counts=100.0), 3e-6
    s, n, reach = size / regimes._transfer.FWHM, 100.0 / 1e-14, setup.wavelength * 0.05
    a, b = 4 * np.pi**2 * s**2, 2 * np.pi * reach
    expected = 5 / np.sqrt(8 * np.pi**3 * s**4 * n * (1 / a - a / (a**2 + b**2)))
    assert regimes.smallest_phase(size, setup) == pytest.approx(expected, rel=1e-2)


def test_survey_names_what_limits():
    found = regimes.survey(FOUR, counts=4000, frame=512)
    reach = 512 * found.setup.pixels.max() / (2 * found.setup.wavelength * found.setup.distances.max())
    assert found.limited_by == "field of view" and found.band[1] <= max(reach, found.limits["field of view"].max())
    assert found.regimes == ("holographic",) * 4
    blurred = regimes.survey(FOUR, counts=4000, frame=512, source_size=400e-9)
    assert blurred.limited_by == "source and detector blur" and blurred.band[1] < found.band[1]
    assert blurred.details[0][3] > found.details[0][3]
    assert regimes.survey(PARALLEL, frame=2048).limited_by == "pixel"
    assert any("5 standard deviations" in line for line in found.lines())
    with pytest.raises(dr.InputError, match="source_distance"):
        regimes.survey(PARALLEL, source_size=1e-5)


def test_regime_in_words():
    assert [regimes.regime(n) for n in (30, 3, 0.01)] == ["contact", "edge enhancement", "holographic"]
    assert regimes.regime(1e-6, 0.2) == "far field"


# ---------------------------------------------------------------------- design
BENCH = {
    "detector_pixel": 3e-6,
    "focus_to_detector": 1.28,
    "nearest": 21.3e-3,
    "farthest": 60e-3,
    "frame": 512,
    "counts": 16000.0,
    "starts": 2,
    "steps": 30,
}


def test_design_is_no_worse_than_customary_sets():
    found = regimes.design_distances(17e3, delta_beta=None, **BENCH)
    assert found.figure <= 1.001 * min(found.figures[name]["error"] for name in found.sets)
    assert (np.diff(found.distances) >= 0).all() and found.distances[0] >= 21.2e-3 and found.distances[-1] <= 60.1e-3
    # An optimum at the end of the range is said.
    assert found.distances[0] > 21.4e-3 or any("nearest distance allowed" in line for line in found.lines())
    assert found.figures["optimised"]["error"] < 0.95 * found.figures["customary ratios"]["error"]


def test_gradient_of_the_figure_of_merit():
    """Against central differences in double precision."""
    with jax.enable_x64(True):
        tool = _design._instrument(
            17e3, 3e-6, 21.3e-3, 60e-3, 1.28, 2, 50e-9, None, 0.5, 1e-3, 64, 1e3, None, -3.5, 0.3, None, None
        )
        f = np.linspace(tool.band[0], tool.band[1], 400)
        frequency, width = jnp.asarray(f), jnp.full(400, f[1] - f[0])
        for merit in ("error",):
            cost = jax.jit(lambda d, name=merit: _design._merits(d, frequency, width, tool)[name])
            at, step = jnp.asarray([0.024, 0.041]), 1e-7
            found = jax.grad(cost)(at)
            for axis in range(2):
                move = jnp.zeros(2).at[axis].set(step)
                expected = (cost(at + move) - cost(at - move)) / (2 * step)
                assert found[axis] == pytest.approx(float(expected), rel=1e-5)


@pytest.mark.parametrize(
    "told, said",
    [
        ({"nearest": 0.1}, "increasing"),
        ({"farthest": 2.0}, "behind the detector"),
        ({"merit": "best"}, "none of"),
        ({"count": 1, "delta_beta": None}, "one distance"),
        ({"finest": 1e-9}, "band"),
        ({"counts": -1.0}, "positive"),
    ],
)
def test_designs_that_make_no_sense_are_refused(told, said):
    with pytest.raises(dr.InputError, match=said):
        regimes.design_distances(17e3, **{**BENCH, "delta_beta": np.inf, **told})


# ---------------------------------------------------------------------- command line
def test_inspect_and_design_on_the_command_line(tmp_path, capsys):
    pytest.importorskip("matplotlib")
    counts = np.random.default_rng(0).poisson(1000, (4, 32, 32)).astype(np.uint16)
    dr.io.write_scan(tmp_path / "h.h5", dr.Scan.from_arrays(counts, method="holography", geometry=FOUR, flux=1000.0))
    assert main(["inspect", str(tmp_path / "h.h5"), "--plot", str(tmp_path / "ctf.png")]) == 0
    said = capsys.readouterr().out
    assert "what this geometry can see" in said and "holographic" in said and (tmp_path / "ctf.png").stat().st_size
    beam = ["--energy", "20", "--detector-pixel", "0.65 um", "--range", "5 mm:50 mm", "--frame", "64"]
    assert main(["design", *beam, "-n", "1", "--delta-beta", "inf"]) == 0
    assert "optimised" in capsys.readouterr().out
    assert main(["design", *beam[:-4], "--range", "5 mm"]) == 2
    assert "colon" in capsys.readouterr().err

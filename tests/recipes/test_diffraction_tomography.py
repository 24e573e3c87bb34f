"""Powder tomography of an independent simulation: amounts, lattices, error bars, patterns; frames; what is refused."""

import dataclasses
from typing import Any

import h5py
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

import diffrecon as dr
from diffrecon import simulate
from diffrecon._console import Console
from diffrecon.cli import main
from diffrecon.errors import InputError
from diffrecon.models import Peaks, Phase, powder_basis, powder_pattern
from diffrecon.operators import Grid
from diffrecon.recipes._powder_peaks import with_axes
from diffrecon.recipes._powder_shape import shape_by_rays
from diffrecon.recipes._powder_time import changed_attenuation
from diffrecon.recipes.diffraction_tomography import DiffractionTomography
from diffrecon.settings import build
from diffrecon.simulate import diffraction_tomography, operando_diffraction, powders
from diffrecon.solvers import GridPrior

open_hdf5: Any = h5py.File


@pytest.fixture(scope="module")
def patterns(tmp_path_factory):
    path = tmp_path_factory.mktemp("xrd-ct") / "scan.h5"
    diffraction_tomography.write(path, 1)
    return path


@pytest.fixture(scope="module")
def result(patterns):
    return dr.reconstruct(
        dr.open_scan(patterns), settings={"quality": {"samples": 4}, "solver": {"rounds": 3, "steps": 15}}
    )


def figures(patterns, result):
    lines = simulate.judge("diffraction-tomography", patterns, result)
    numbers = lambda line: [
        float(line.split(word)[1].split()[0].strip(",)")) for word in ("error ", "total ", "lattice ", "bias ")
    ]
    return {line.split()[0]: numbers(line) for line in lines}


def test_phases_and_lattices_of_a_slice(patterns, result):
    """Absorption, parallax, the width of the peaks and the glass's pattern are found, not told."""
    for error, total, rms, bias in figures(patterns, result).values():
        assert error < 0.12 and total == pytest.approx(1, abs=0.02)
        assert rms < 250 and abs(bias) < 80
    assert result.quality["deviance"] < 1.3


def test_what_is_written(patterns, result):
    assert result["patterns"].shape == (120, 24, 24) and result["two_theta"].size == 120
    names = {"CeO2", "CeO2_scale", "CeO2_error", "CeO2_scale_error", "amorphous", "attenuation"}
    assert names <= set(result.quantities)
    with open_hdf5(patterns) as file:
        fraction = file["truth/CeO2"][()]
    # The glass starts beneath every peak: the pattern of ceria's grains is above that of the rest at its first ring.
    ring = np.argmin(np.abs(result["two_theta"] - 7.59))
    assert result["patterns"][ring][fraction > 0.39].mean() > 5 * result["patterns"][ring][fraction == 0].mean()
    assert np.median(result["CeO2_error"][fraction > 0.39]) < 0.02


def test_a_peak_of_the_basis_is_the_peak(patterns):
    """Any strain and depth, by polynomials of few patterns, against the plain sum over rings of another program."""
    spacing, strength, hkl, volume = powders.lines("CeO2")
    phase = Phase(spacing * 1e-10, strength, volume * 1e-30, 1.0, hkl)
    two_theta = np.linspace(0.1, 0.3, 300)
    wavelength = 1.239841984332e-6 / 30e3
    peaks = Peaks(2.5e-3)
    found = powder_pattern(phase, two_theta, wavelength, peaks, 1.0013, 1.5e-3)
    expected = powders.pattern("CeO2", two_theta, 30e3, 2.5e-3, 1.0013, 1.5e-3)
    np.testing.assert_allclose(found, expected, atol=0.02 * expected.max())
    basis = powder_basis({"CeO2": phase}, two_theta, wavelength, peaks, 1.0, 2e-3, np.zeros((0, 300)))
    a, b = np.arccos(0.0013 / 5e-3), np.arccos(1.5e-3 / 2e-3)
    orders = np.cos(a * np.arange(basis.weights.shape[1])), np.cos(b * np.arange(basis.weights.shape[2]))
    summed = np.einsum("a,b,abr,rk->k", *orders, np.asarray(basis.weights[0]), np.asarray(basis.patterns[0]))
    np.testing.assert_allclose(summed, found, atol=2e-3 * found.max())


def test_axes_of_a_cell_change_apart():
    """Every ring where its indices say, by the axes themselves; a basis of a wide range holds peaks far away."""
    hkl = np.array([(0, 0, 3), (1, 0, 1), (1, 0, 4), (1, 1, 0), (2, -1, 3)])
    plane, height = 4 / 3 * (hkl[:, 0] ** 2 + hkl[:, 0] * hkl[:, 1] + hkl[:, 1] ** 2), hkl[:, 2] ** 2
    spacing = lambda a, c: 1e-10 / np.sqrt(plane / a**2 + height / c**2)
    lines = {"NMC": Phase(spacing(2.86, 14.23), np.full(5, 1e5), 1e-28, 1.0, hkl)}
    phase = with_axes(lines, {"NMC": -1.25})["NMC"]
    found, volume = phase.scaled(0.99)
    np.testing.assert_allclose(found, spacing(2.86 * 0.99, 14.23 * 1.0125), rtol=1e-9)
    assert volume == pytest.approx(1e-28 * 0.99**2 * 1.0125)
    two_theta, peaks = np.linspace(0.08, 0.32, 200), Peaks(2.5e-3)
    basis = powder_basis({"NMC": phase}, two_theta, 4.13e-11, peaks, 1.0, 0.0, np.zeros((0, 200)), 0.015)
    orders = np.cos(np.arccos(-0.01 / 0.015) * np.arange(basis.weights.shape[1]))
    summed = np.einsum("a,ar,rk->k", orders, np.asarray(basis.weights[0, :, 0]), np.asarray(basis.patterns[0]))
    exact = powder_pattern(phase, two_theta, 4.13e-11, peaks, 0.99)
    np.testing.assert_allclose(summed, exact, atol=3e-3 * exact.max())
    with pytest.raises(InputError, match="no phase 'NCM'.*NMC"):
        with_axes(lines, {"NCM": -1.0})
    with pytest.raises(InputError, match="a number is expected"):
        with_axes(lines, {"NMC": "c"})
    with pytest.raises(InputError, match="no hexagonal or tetragonal"):
        with_axes({"NMC": dataclasses.replace(phase, hkl=hkl[::-1])}, {"NMC": -1.0})


def test_patterns_of_a_sample_that_grows(patterns):
    """Twice as much of everything at the end of the scan: patterns at two times say so."""
    scan = dr.open_scan(patterns)
    powder = dict(scan.extra["powder"])
    sky = (powder["monitor"] / powder["monitor_gain"])[..., None] * powder["normalisation"] * powder["background"]
    growth = np.linspace(1, 2, 36)[:, None, None]
    every = np.r_[0:36:6, 1:36:6, 2:36:6, 3:36:6, 4:36:6, 5:36:6]  # six turns by and by: any time sees all sides
    counts = np.maximum(np.asarray(scan.counts) - sky, 0)[every] * growth + sky[every]
    powder |= {name: powder[name][every] for name in ("monitor", "transmitted")}
    grown = scan.replace(
        counts=counts.astype(np.float32), angles=scan.angles[every], extra={**scan.extra, "powder": powder}
    )
    settings = {"solver": {"name": "patterns"}, "model": {"time_knots": 2, "absorption": False}}
    result = dr.reconstruct(grown, settings=settings | {"patterns": {"name": "mlem", "steps": 12}})
    first, last = result["patterns_in_time"].sum((1, 2, 3))
    assert last / first == pytest.approx(2, abs=0.15)
    assert result["patterns"].shape == (120, 24, 24) and result["times"].tolist() == [0, 35]


@pytest.fixture(scope="module")
def operando(tmp_path_factory):
    """Grains of nickel oxide become nickel within 40 views in golden steps."""
    path = tmp_path_factory.mktemp("operando") / "scan.h5"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(operando_diffraction, "VIEWS", 40)
        patch.setattr(operando_diffraction, "CHANNELS", 90)
        operando_diffraction.write(path, 1)
    return path


def test_phases_of_a_catalyst_that_is_reduced(operando):
    """What the rays have seen of every time: the oxide's course down and the metal's up, grain by grain."""
    settings = {"model": {"time_knots": 4, "pixels": 1}, "quality": {"samples": 2}}
    settings |= {"solver": {"rounds": 1, "steps": 12, "patterns": False}}
    result = dr.reconstruct(dr.open_scan(operando), settings=settings)
    with open_hdf5(operando) as file:
        course, begins, ends = (file[f"truth/{name}"][()] for name in ("course", "NiO", "Ni"))
    hats = np.stack([np.interp(np.linspace(0, 3, 40), np.arange(4), hat) for hat in np.eye(4)], 1)
    for number, name in enumerate(("NiO", "Ni")):
        nearest = np.linalg.lstsq(hats, course[number], rcond=None)[0]  # to the truth that lines between knots can be
        np.testing.assert_allclose(result[f"{name}_course"], nearest, atol=0.05 * course[number].max())
    assert result["NiO_in_time"].shape == (4, 24, 24) == result["Ni_in_time_error"].shape
    there = begins[0] > 0.3
    alive, dead = there & (ends[-1] > 0.15), there & (ends[-1] < 0.03)  # one grain stays what it was
    assert dead.any() and result["NiO_in_time"][-1][dead].mean() > 0.3 > 0.08 > result["Ni_in_time"][-1][dead].mean()
    assert result["Ni_in_time"][-1][alive].mean() == pytest.approx(ends[-1][alive].mean(), abs=0.03)
    np.testing.assert_allclose(result["NiO"].mean(), course[0].mean(), rtol=0.03)
    assert result["times"].tolist() == [0, 600, 1200, 1800] and "to" in "".join(result.verdict)
    titles = [ax.get_title() or ax.get_title("left") for ax in dr.plot.figure(result).axes]
    assert {"time 0", "time 1200", "time 1800", "phases in time"} <= set(titles)


def test_changes_that_the_views_do_not_tell_are_refused(operando):
    """Half a turn, slowly: what changes at its end lies in other directions than what was there at the beginning."""
    scan = dr.open_scan(operando)
    asked = {"model": {"time_knots": 6, "absorption": False}}
    slow = scan.replace(angles=np.arange(40) * np.pi / 40)
    with pytest.raises(InputError, match=r"leave out \d+ of 180 degrees.*model.time_knots=2 is the most"):
        dr.reconstruct(slow, settings=asked)
    with pytest.raises(InputError, match="quickly, or in golden steps"):
        dr.reconstruct(scan.replace(angles=np.arange(40) * 0.01), settings=asked)
    still = {name: value for name, value in scan.extra.items() if name != "times"}
    with pytest.raises(InputError, match=r"times of all views \(data.times\) are 7"):
        dr.reconstruct(scan.replace(extra={**still, "times": np.full(40, 7.0)}), settings=asked)
    with pytest.raises(InputError, match="must not decrease"):
        dr.reconstruct(scan.replace(extra={**still, "times": -np.arange(40)}), settings=asked)


def test_a_slice_that_absorbs_more_and_more_is_named():
    random, times = np.random.default_rng(0), np.linspace(0, 9, 30)
    lines = lambda growth: (random.normal(0.1 * (1 + growth * times / 9)[:, None], 0.001, (30, 24)), None)
    assert changed_attenuation(lines(0.0), times) == []
    assert "absorbs +18%" in changed_attenuation(lines(0.2), times)[0]  # of the mean


def test_curvature_of_what_is_known_in_time():
    """The quadratic meets the slope of its cost, and a sample that stands still costs as much as without a time."""
    grid = Grid(5, 1, 2.5)
    random, pixels = np.random.default_rng(0), int(grid.inside.sum())
    amounts, fields = (np.float32(random.random((3, 2, pixels))) for _ in range(2))
    common = dict(edges=[2.0, 3.0], smooth=0.7, small=0.2, rounding=0.1)
    prior, still = GridPrior.within(grid, slow=([4.0, 5.0], 6.0), **common), GridPrior.within(grid, **common)
    same, nothing = np.repeat(amounts[:1], 3, 0), np.zeros_like(fields)

    @jax.jit
    def figures():
        slopes = jax.grad(prior.cost, (0, 1))(amounts, fields)
        products = prior.curvature(amounts, fields)[0](amounts, fields)
        return slopes, products, prior.cost(same, nothing), still.cost(amounts[0], nothing[0])

    slopes, products, changing, standing = figures()
    for slope, product in zip(slopes, products, strict=True):
        np.testing.assert_allclose(slope, product, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(changing, standing, rtol=1e-5)


def test_an_inspection_names_phases_and_rings_that_none_explains(patterns, tmp_path, capsys):
    assert main(["inspect", str(patterns)]) == 0
    said = capsys.readouterr().out
    assert "rings of CeO2 89%" in said and "every ring in the mean pattern belongs to a phase" in said
    picture = tmp_path / "pattern.png"
    assert main(["inspect", str(patterns), "--set", "model.phases=CeO2", "--plot", str(picture)]) == 0
    said = capsys.readouterr().out
    assert "rings of CeO2 100%" in said and "rings that no phase explains" in said and picture.exists()
    found = [float(word.split()[-1]) for word in said.split("degrees: ")[1].split(" (d ")[:-1]]
    aluminium = 2 * np.degrees(np.arcsin(12.39842 / 30 / 2 / 4.0495 * np.sqrt([3, 4])))  # 111 and 200
    assert all(np.abs(np.array(found) - ring).min() < 0.08 for ring in aluminium), said


def test_wrong_input_is_refused(patterns, tmp_path):
    scan = dr.open_scan(patterns)
    with pytest.raises(InputError, match="no lines of NMC"):
        dr.reconstruct(scan, settings={"model": {"phases": ["NMC"]}})
    for settings, said in (
        ({"patterns": {"name": "fbp"}}, "knows no absorption"),
        ({"patterns": {"name": "sirt", "tikhonov": 1.0}}, "tikhonov"),
        ({"patterns": {"name": "mlem", "stopping": "held-out"}}, "without a rule"),
        ({"patterns": {"steps": 9}, "solver": {"patterns": False}}, "has no effect"),
        ({"solver": {"time_step": 0.1}}, "has no effect without model.time_knots"),
    ):
        with pytest.raises(InputError, match=said):
            dr.reconstruct(scan, settings=settings)
    with pytest.raises(InputError, match=r"\[integration\] have no effect"):
        dr.reconstruct(scan, settings={"integration": {"channels": 100}})
    powder = dict(scan.extra["powder"])
    with pytest.raises(InputError, match="119 scattering angles for 120 channels"):
        short = {**powder, "two_theta": powder["two_theta"][1:]}
        dr.reconstruct(scan.replace(extra={**scan.extra, "powder": short}))
    with pytest.raises(InputError, match="data.monitor is 0 at"):
        monitor = np.where(np.arange(24) == 3, 0, powder["monitor"])
        dr.reconstruct(scan.replace(extra={**scan.extra, "powder": {**powder, "monitor": monitor}}))
    with pytest.raises(InputError, match="data.angles"):
        dr.reconstruct(scan.replace(angles=None))


def test_mean_lattices_whatever_the_amounts(patterns, result):
    """Grains smeared over half the slice: with the amounts of every ray free the lattices of the fit come out."""
    scan = dr.open_scan(patterns)
    problem = DiffractionTomography().start(scan, build(DiffractionTomography.settings, {}, "x"), Console(quiet=True))
    setup, counts = problem.setup, jnp.asarray(problem.data["counts"], jnp.float32)
    amounts = np.stack([result[name] for name in setup.components])
    smeared = gaussian_filter(amounts, (0, 4, 4)).repeat(setup.grid.pixels, 1).repeat(setup.grid.pixels, 2)
    amounts_there = jnp.asarray(setup.grid.values(smeared), jnp.float32)
    model = problem.model.replace(fractions=amounts_there, strains=problem.model.strains + 0.2)
    moved, _, deviation = shape_by_rays(model, counts, setup)
    for number, (name, amount) in enumerate(zip(setup.phases, amounts, strict=False)):
        there = amount > 0.1 * amount.max()
        known = np.average(result[f"{name}_scale"][there] - 1, weights=amount[there])
        # 1.6e-4 with the amounts held at these
        assert float(moved.strains[number].mean()) * 1e-3 == pytest.approx(known, abs=6e-5)
    assert (deviation < 1e-2).all() and (result.quality["lattice_deviation"] < 1e-5).all()

"""Powder tomography of an independent simulation: amounts, lattices, error bars, patterns; frames; what is refused."""

from typing import Any

import h5py
import numpy as np
import pytest

import diffrecon as dr
from diffrecon import simulate
from diffrecon.errors import InputError
from diffrecon.models import Peaks, Phase, powder_basis, powder_pattern
from diffrecon.simulate import diffraction_tomography, powders

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


def test_wrong_input_is_refused(patterns, tmp_path):
    scan = dr.open_scan(patterns)
    with pytest.raises(InputError, match="no lines of NMC"):
        dr.reconstruct(scan, settings={"model": {"phases": ["NMC"]}})
    for settings, said in (
        ({"patterns": {"name": "fbp"}}, "knows no absorption"),
        ({"patterns": {"name": "sirt", "tikhonov": 1.0}}, "tikhonov"),
        ({"patterns": {"name": "mlem", "stopping": "held-out"}}, "without a rule"),
        ({"patterns": {"steps": 9}, "solver": {"patterns": False}}, "has no effect"),
        ({"model": {"time_knots": 3}}, "has no effect with solver.name = phases"),
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

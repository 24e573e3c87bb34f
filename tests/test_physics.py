"""Constants, units and the numbers of X-ray optics."""

import numpy as np
import pytest
import scipy.constants

import diffrecon as dr
from diffrecon import physics


def test_constants():
    c = scipy.constants
    assert physics.HC == pytest.approx(c.h * c.c / c.e, rel=1e-12)
    assert physics.ELECTRON_CHARGE == c.e and physics.AVOGADRO == c.N_A
    assert physics.CLASSICAL_ELECTRON_RADIUS == pytest.approx(c.value("classical electron radius"), rel=1e-8)


@pytest.mark.parametrize(
    "text, unit, value",
    [
        ("3.65 mm", "m", 3.65e-3),
        ("50nm", "m", 50e-9),
        ("1.2e-3 m", "m", 1.2e-3),
        ("-.5 um", "m", -0.5e-6),
        ("2 µm", "m", 2e-6),
        ("17 keV", "eV", 17e3),
        ("12", "eV", 12.0),
        (7, "eV", 7.0),
        ("180 deg", "rad", np.pi),
        ("5 mrad", "rad", 5e-3),
        ("100 ms", "s", 0.1),
        ("3", "", 3.0),
        (np.float32(2), "m", 2.0),
    ],
)
def test_quantity(text, unit, value):
    assert physics.quantity(text, unit) == pytest.approx(value, rel=1e-12)


@pytest.mark.parametrize(
    "text, unit",
    [
        ("3 keV", "m"),
        ("mm", "m"),
        ("1,5 mm", "m"),
        ("3 parsec", "m"),
        ("", "m"),
        (None, "m"),
        ([1, 2], "m"),
        ("1 2 mm", "m"),
    ],
)
def test_quantity_refuses_in_one_line(text, unit):
    with pytest.raises(dr.InputError) as caught:
        physics.quantity(text, unit, "geometry.distance")
    assert str(caught.value).startswith("geometry.distance: ") and "\n" not in str(caught.value)


def test_energy_and_wavelength_are_inverse():
    assert physics.energy_to_wavelength(12398.41984332002) == pytest.approx(1e-10, rel=1e-12)
    energies = np.array([1e3, 17e3])
    np.testing.assert_allclose(
        physics.wavelength_to_energy(physics.energy_to_wavelength(energies)), energies, rtol=1e-14
    )


@pytest.mark.parametrize(
    "value, unit, energy",
    [
        (2.028e-15, None, 12658.0),
        (17.0, None, 17e3),
        (17050.0, None, 17050.0),
        (12.4, "keV", 12.4e3),
        (2.724e-15, "J", 17002.0),
    ],
)
def test_plausible_energy(value, unit, energy):
    found, said = physics.plausible_energy(value, unit)
    assert found == pytest.approx(energy, rel=1e-3) and "keV" in said


@pytest.mark.parametrize(
    "value, unit", [(0.0, None), (-5.0, None), (1e9, None), (float("nan"), None), (1.0, "eV"), (3.0, "mm")]
)
def test_what_is_no_x_ray_energy(value, unit):
    with pytest.raises(dr.InputError):
        physics.plausible_energy(value, unit)


def test_fresnel_number():
    assert physics.fresnel_number(1e-6, 1e-10, 1e-2) == pytest.approx(1.0)


def test_delta_gives_the_electron_density_of_water():
    """0.334 electrons per cubic angstrom; delta = 1.5e-6 at 12.4 keV or so."""
    pytest.importorskip("xraydb")
    delta, beta = physics.delta_beta("H2O", 1.0, 12e3)
    assert 1e-6 < delta < 2e-6 and 0 < beta < 1e-8
    wavelength = physics.energy_to_wavelength(12e3)
    assert physics.electron_density(delta, wavelength) == pytest.approx(0.334e30, rel=0.01)
    # Water absorbs about 3 / cm at 12 keV (NIST).
    assert physics.attenuation_coefficient(beta, wavelength) == pytest.approx(300, rel=0.15)


# Mass energy-absorption coefficients of liquid water [cm^2/g], NIST (Hubbell & Seltzer 1995).
WATER_ABSORPTION = [(10e3, 4.944), (20e3, 0.5503), (30e3, 0.1557), (60e3, 0.03190), (100e3, 0.02546)]


@pytest.mark.parametrize("energy, expected", WATER_ABSORPTION)
def test_energy_absorption_of_water(energy, expected):
    pytest.importorskip("xraydb")
    assert 10 * physics.energy_absorption("water", energy) == pytest.approx(expected, rel=0.015)


def test_recoil_share_of_slow_electrons():
    """Far below 511 keV the recoil takes E / (m c^2) of the energy (Thomson: mean of 1 - cos is 1)."""
    assert physics._recoil_share(10.0) == pytest.approx(10.0 / physics.ELECTRON_REST_ENERGY, rel=1e-3)


def test_material():
    xraydb = pytest.importorskip("xraydb")
    assert physics.material("SiO2, 2.65") == ("SiO2", 2.65)
    assert physics.material(" water ") == ("H2O", 1.0)
    assert physics.material("Ti").density == pytest.approx(xraydb.atomic_density("Ti"))
    assert physics.material("C5H8O2N7") == ("C5H8O2N7", None)


@pytest.mark.parametrize("text", ["Xx2", "SiO2, heavy", "SiO2, -1", "SiO2, nan", "", ", 2", None])
def test_what_is_no_material_is_refused(text):
    pytest.importorskip("xraydb")
    with pytest.raises(dr.InputError, match="material") as caught:
        physics.material(text)
    assert "\n" not in str(caught.value)


def test_density_from_attenuation_is_independent_of_the_given_density():
    """mu of 2.2 g/cm^3 silica by xraydb gives 2.2 back, whatever density the composition names."""
    xraydb = pytest.importorskip("xraydb")
    mu = 100 * xraydb.material_mu("SiO2", 22e3, density=2.2)
    for composition in ("SiO2", "SiO2, 2.65"):
        assert physics.density_from_attenuation(mu, composition, 22e3) == pytest.approx(2.2, rel=1e-9)
    assert physics.attenuation_from_density(2.2, "SiO2", 22e3) == pytest.approx(mu, rel=1e-9)


def test_density_from_delta_and_from_electrons():
    """Water at 17 keV by three ways: delta, delta -> electrons -> density, and the closed form N_A 10 / 18.015."""
    pytest.importorskip("xraydb")
    delta, _ = physics.delta_beta("H2O", 1.0, 17e3)
    assert physics.density_from_delta(1.3 * delta, "H2O", 17e3) == pytest.approx(1.3, rel=1e-9)
    expected = 1e6 * physics.AVOGADRO * 10 / 18.015
    assert physics.electrons_from_density(1.0, "water") == pytest.approx(expected, rel=1e-4)
    electrons = physics.electron_density(delta, physics.energy_to_wavelength(17e3))
    assert physics.density_from_electrons(electrons, "water") == pytest.approx(1.0, rel=2e-3)  # f' of oxygen
    assert physics.density_from_electrons(expected, "H2O") == pytest.approx(1.0, rel=1e-4)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_volumes_keep_their_type(dtype):
    pytest.importorskip("xraydb")
    volume = np.full((2, 3, 4), 120.0, dtype)
    found = physics.density_from_attenuation(volume, "water", 17e3)
    assert found.dtype == dtype and found.shape == volume.shape
    assert isinstance(physics.density_from_attenuation(120, "water", 17e3), float)


@pytest.mark.parametrize("energy", [17.0, 0.0, float("nan"), 1e7])
def test_energies_outside_of_the_tables(energy):
    pytest.importorskip("xraydb")
    with pytest.raises(dr.InputError, match="eV"):
        physics.density_from_attenuation(100.0, "H2O", energy)


def test_dose_counts_the_energy_that_stays():
    """Per mass: fluence times energy times mu_en/rho; through a thick layer the mean is what is absorbed over depth."""
    pytest.importorskip("xraydb")
    dose = physics.absorbed_dose(1e6, 1e-6, "water", 20e3)
    assert dose == pytest.approx(1e18 * 20e3 * physics.ELECTRON_CHARGE * 0.05503, rel=5e-3)
    mu = physics.attenuation_from_density(1.0, "water", 20e3)
    thin, thick = (physics.absorbed_dose(1e6, 1e-6, "water", 20e3, t) for t in (1e-7, 10 / mu))
    assert thin == pytest.approx(dose, rel=1e-4) and thick == pytest.approx(dose / 10, rel=1e-3)
    with pytest.raises(dr.InputError, match="density"):
        physics.absorbed_dose(1e6, 1e-6, "C5H8O2N7", 20e3, 1e-3)
    with pytest.raises(dr.InputError, match="photons"):
        physics.absorbed_dose(-1.0, 1e-6, "water", 20e3)


def test_rose_photons_scale_as_flannery():
    """All pixels of a view: D^4/R^4 exp(mu D)/(mu D)^2, with the constant 25 pi^2/12."""
    mu, size, feature = 800.0, 2e-3, 1e-5
    total = physics.rose_photons(feature, size, mu) * (size / feature) ** 2
    expected = 25 * np.pi**2 / 12 * (size / feature) ** 4 * np.exp(mu * size) / (mu * size) ** 2
    assert total == pytest.approx(expected, rel=1e-12)
    assert physics.rose_photons(feature, size, mu, contrast=mu / 10) == pytest.approx(
        100 * physics.rose_photons(feature, size, mu), rel=1e-12
    )
    with pytest.raises(dr.InputError):
        physics.rose_photons(1e-3, 1e-4, mu)


def test_rose_size_is_the_inverse():
    photons, pixel, size, mu = 3e5, 2e-6, 1e-3, 900.0
    found = physics.rose_size(photons, pixel, size, mu)
    assert physics.rose_photons(found, size, mu) == pytest.approx(photons * (found / pixel) ** 2, rel=1e-9)
    assert physics.rose_size(16 * photons, pixel, size, mu) == pytest.approx(found / 2, rel=1e-9)
    with pytest.raises(dr.InputError):
        physics.rose_size(0.0, pixel, size, mu)


def test_dose_statement():
    """720 x 1e4 photons of 17 keV on 1 um^2 of water: 2.51 Gy per 1e4 at the surface, less over a millimetre."""
    pytest.importorskip("xraydb")
    said = physics.dose_statement(1e4, 720, 1e-6, "water", 17e3, 1e-3)
    assert "1.71 kGy in 1 mm of H2O, 1 g/cm^3" in said and "17 keV" in said and "720 views" in said
    mu = physics.attenuation_from_density(1.0, "water", 17e3)
    assert f"{1e6 * physics.rose_size(7.2e6, 1e-6, 1e-3, mu):.3g} um" in said


def test_density_and_electrons_from_delta_against_closed_forms():
    """Water far from its edges: delta = r_e lambda^2 n_e / 2 pi with n_e = N_A rho Z / M."""
    wavelength = physics.energy_to_wavelength(25e3)
    electrons = 6.02214076e23 * 10 / 18.015 * 1e6
    delta = 2.8179403205e-15 * wavelength**2 * electrons / (2 * np.pi)
    assert abs(physics.delta_from_density(1.0, "H2O", 25e3) / delta - 1) < 2e-3  # anomalous terms are in the tables
    assert abs(physics.density_from_delta(physics.delta_from_density(2.33, "Si", 18e3), "Si", 18e3) - 2.33) < 1e-9
    assert abs(physics.electrons_per_cubic_angstrom(delta, wavelength) - 1e-30 * electrons) < 1e-9
    assert abs(physics.delta_from_electrons(electrons, wavelength) / delta - 1) < 1e-12
    found = physics.density_from_electrons(physics.electron_density(delta, wavelength), "H2O")
    assert abs(found - 1) < 1e-3


@pytest.mark.parametrize("energy, absorbed", [(8e3, 0.956), (17.5e3, 0.748), (30e3, 0.388), (60e3, 0.073)])
def test_beta_of_light_matter_holds_what_scatters_out_of_the_beam(energy, absorbed):
    """Shares of photo-absorption in water; the total by the table of xraydb that a transmission obeys."""
    xraydb = pytest.importorskip("xraydb")
    _, beta = physics.delta_beta("H2O", 1.0, energy)
    measured = 100 * xraydb.material_mu("H2O", energy, density=1.0, kind="total")
    assert abs(physics.attenuation_coefficient(beta, physics.energy_to_wavelength(energy)) / measured - 1) < 1e-6
    assert abs(physics.delta_beta("H2O", 1.0, energy, "photo")[1] / beta - absorbed) < 2e-3
    for outside in (3.0, 2e6):
        with pytest.raises(dr.errors.InputError, match="outside of the tables"):
            physics.delta_beta("H2O", 1.0, outside)


def test_edges_are_those_that_xraydb_gives():
    """Its file is read without it."""
    xraydb = pytest.importorskip("xraydb")
    for element in ("Fe", "Pb", "B"):
        expected = {shell: edge.energy for shell, edge in xraydb.xray_edges(element).items()}
        assert physics.edges_by_shell(element) == expected
    with pytest.raises(dr.InputError, match="no element"):
        physics.edges("Xy")

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

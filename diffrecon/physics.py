"""Constants, units, and the numbers of X-ray optics: everything here is plain float64 and knows no array library but
NumPy.

Conventions: SI units inside (m, rad), energy in eV; `n = 1 - delta + i beta`.
"""

import re
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from ._optional import require
from .errors import InputError

HC = 1.239841984332002e-06
"""Planck's constant times the speed of light [eV m] (CODATA 2018, exact)."""

ELECTRON_CHARGE = 1.602176634e-19
"""[J] in one eV (exact)."""

CLASSICAL_ELECTRON_RADIUS = 2.8179403205e-15
"""[m] (CODATA 2022)."""

AVOGADRO = 6.02214076e23
"""[1/mol] (exact)."""

# Scale to the base unit of each dimension: metre, electron volt, radian, second, kg/m^3.
_UNITS: dict[str, dict[str, float]] = {
    "m": {"m": 1.0, "cm": 1e-2, "mm": 1e-3, "um": 1e-6, "µm": 1e-6, "μm": 1e-6, "micron": 1e-6, "microns": 1e-6,
          "micrometer": 1e-6, "millimeter": 1e-3, "meter": 1.0, "metre": 1.0, "nm": 1e-9, "nanometer": 1e-9,
          "pm": 1e-12, "angstrom": 1e-10, "å": 1e-10},
    "eV": {"ev": 1.0, "kev": 1e3, "mev": 1e6, "j": 1 / ELECTRON_CHARGE, "joule": 1 / ELECTRON_CHARGE},
    "rad": {"rad": 1.0, "radian": 1.0, "radians": 1.0, "mrad": 1e-3, "urad": 1e-6, "deg": np.pi / 180,
            "degree": np.pi / 180, "degrees": np.pi / 180, "°": np.pi / 180},
    "s": {"s": 1.0, "ms": 1e-3, "us": 1e-6, "min": 60.0},
    "": {"": 1.0, "pixel": 1.0, "px": 1.0, "counts": 1.0},
}
_QUANTITY = re.compile(r"^\s*([-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?)\s*([^\d\s]*)\s*$")


def unit_scale(text: str, unit: str) -> float:
    """Factor from the unit written as `text` to the base unit `unit` (`"m"`, `"eV"`, `"rad"`, `"s"` or `""`).

    **Raises:** `InputError` when `text` is no unit of that dimension.

    ```python
    assert unit_scale("mm", "m") == 1e-3
    ```
    """
    table = _UNITS[unit]
    key = text.strip()
    for candidate in (key, key.lower()):
        if candidate in table:
            return table[candidate]
    known = ", ".join(list(table)[:6])
    raise InputError(f"{text!r} is not a unit of {unit or 'a plain number'} (known: {known})")


def quantity(value: Any, unit: str, name: str = "value") -> float:
    """A number in the base unit from a number or from a text with its unit, such as `"3.65 mm"` or `"17.05 keV"`.

    **Arguments:** `unit` is `"m"`, `"eV"`, `"rad"`, `"s"` or `""`; `name` appears in the error.

    **Raises:** `InputError` when it is no number or its unit has another dimension.

    ```python
    assert quantity("3.65 mm", "m") == 3.65e-3
    assert quantity(12.0, "eV") == 12.0
    ```
    """
    if isinstance(value, str):
        match = _QUANTITY.match(value)
        if match is None:
            raise InputError(f"{name}: {value!r} is not a number with a unit, such as {_example(unit)!r}")
        try:
            return float(match[1]) * (unit_scale(match[2], unit) if match[2] else 1.0)
        except InputError as error:
            raise InputError(f"{name}: {error}") from None
    try:
        return float(value)
    except (TypeError, ValueError):
        raise InputError(f"{name}: {value!r} is not a number") from None


def _example(unit: str) -> str:
    return {"m": "3.65 mm", "eV": "17 keV", "rad": "30 deg", "s": "0.1 s"}.get(unit, "1.5")


def energy_to_wavelength(energy: ArrayLike) -> Any:
    """Wavelength [m] of photons of an energy [eV].

    ```python
    assert abs(energy_to_wavelength(17000.0) - 7.2932e-11) < 1e-15
    ```
    """
    return HC / np.asarray(energy, float)[()]


def wavelength_to_energy(wavelength: ArrayLike) -> Any:
    """Energy [eV] of photons of a wavelength [m]."""
    return HC / np.asarray(wavelength, float)[()]


def fresnel_number(pixel_size: ArrayLike, wavelength: ArrayLike, distance: ArrayLike) -> Any:
    """Fresnel number of one pixel, `pixel^2 / (wavelength distance)`; all lengths in [m]."""
    return (np.asarray(pixel_size, float) ** 2 / (np.asarray(wavelength, float) * np.asarray(distance, float)))[()]


def plausible_energy(value: float, unit: str | None = None) -> tuple[float, str]:
    """Energy in eV from a number whose unit is written, or else told by its magnitude, and a message that says which.

    J below 1e-10, keV below 200, eV above: X-ray imaging lives between 100 eV and 200 keV, so that the ranges do not
    meet.

    **Raises:** `InputError` when the number is no X-ray energy in any of these units.
    """
    if unit:
        energy, said = value * unit_scale(unit, "eV"), f"unit attribute {unit!r}"
    elif 0 < value < 1e-10:
        energy, said = value / ELECTRON_CHARGE, "taken as joules by its magnitude"
    elif 0 < value < 200:
        energy, said = value * 1e3, "taken as keV by its magnitude"
    else:
        energy, said = float(value), "taken as eV"
    if not 50 <= energy <= 5e5:
        raise InputError(f"energy {value:g} ({said}) is {energy:g} eV, which is no X-ray energy (50 eV to 500 keV); "
                         'give it with its unit, e.g. "17 keV"')
    return energy, f"energy {value:g} {said}: {energy / 1e3:.4g} keV"


def delta_beta(formula: str, density: float, energy: float) -> tuple[float, float]:
    """Refractive index decrement and absorption index of a named material, from the tables of xraydb (Elam, Chantler).

    **Arguments:** chemical `formula` (`"SiO2"`), `density` [g/cm^3], `energy` [eV].

    **Returns:** `(delta, beta)` of `n = 1 - delta + i beta`.

    **Raises:** `MissingPackage` without xraydb (`pip install "diffrecon[materials]"`).
    """
    xraydb = require("xraydb", "materials")
    delta, beta, _ = xraydb.xray_delta_beta(formula, density, energy)
    return float(delta), float(beta)


def attenuation_coefficient(beta: ArrayLike, wavelength: ArrayLike) -> Any:
    """Linear attenuation coefficient `mu = 4 pi beta / wavelength` [1/m]."""
    return (4 * np.pi * np.asarray(beta, float) / np.asarray(wavelength, float))[()]


def electron_density(delta: ArrayLike, wavelength: ArrayLike) -> Any:
    """Electrons per cubic metre from `delta = r_e wavelength^2 n_e / (2 pi)` (far from absorption edges)."""
    return (2 * np.pi * np.asarray(delta, float)
            / (CLASSICAL_ELECTRON_RADIUS * np.asarray(wavelength, float) ** 2))[()]

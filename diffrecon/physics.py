"""Constants, units, and the numbers of X-ray optics: everything here is plain float64 and knows no array library but
NumPy.

Conventions: SI units inside (m, rad), energy in eV; `n = 1 - delta + i beta`.
"""

import contextlib
import importlib.util
import re
import sqlite3
from pathlib import Path
from typing import Any, NamedTuple

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

ELECTRON_REST_ENERGY = 510998.95
"""[eV] (CODATA 2022)."""

ELEMENTS = tuple(
    "H He Li Be B C N O F Ne Na Mg Al Si P S Cl Ar K Ca Sc Ti V Cr Mn Fe Co Ni Cu Zn Ga Ge As Se Br Kr Rb Sr Y Zr Nb "
    "Mo Tc Ru Rh Pd Ag Cd In Sn Sb Te I Xe Cs Ba La Ce Pr Nd Pm Sm Eu Gd Tb Dy Ho Er Tm Yb Lu Hf Ta W Re Os Ir Pt Au "
    "Hg Tl Pb Bi Po At Rn Fr Ra Ac Th Pa U Np Pu Am Cm Bk Cf".split()
)
"""Symbols of the elements that the tables hold, by atomic number from 1."""

# Units of each dimension: symbols, whose prefixes are symbols too, and names, whose prefixes are names.
_SYMBOLS: dict[str, dict[str, float]] = {
    "m": {"m": 1.0, "A": 1e-10, "Å": 1e-10, "\u212b": 1e-10, "å": 1e-10},
    "eV": {"eV": 1.0, "J": 1 / ELECTRON_CHARGE},
    "rad": {"rad": 1.0, "deg": np.pi / 180, "°": np.pi / 180, "arcmin": np.pi / 10800, "arcsec": np.pi / 648000},
    "s": {"s": 1.0, "min": 60.0, "h": 3600.0},
    "": {"": 1.0, "px": 1.0, "1": 1.0},
}
_NAMES: dict[str, dict[str, float]] = {
    "m": {"meter": 1.0, "metre": 1.0, "micron": 1e-6, "angstrom": 1e-10, "angström": 1e-10, "ångström": 1e-10},
    "eV": {"electronvolt": 1.0, "joule": 1 / ELECTRON_CHARGE},
    "rad": {"radian": 1.0, "degree": np.pi / 180, "turn": 2 * np.pi, "revolution": 2 * np.pi},
    "s": {"second": 1.0, "sec": 1.0, "minute": 60.0, "hour": 3600.0},
    "": {"pixel": 1.0, "count": 1.0, "photon": 1.0, "dimensionless": 1.0},
}
_PREFIX_SYMBOLS = {"f": 1e-15, "p": 1e-12, "n": 1e-9, "u": 1e-6, "m": 1e-3, "c": 1e-2, "d": 0.1, "k": 1e3, "M": 1e6,
                   "G": 1e9}  # fmt: skip
_PREFIX_NAMES = {"femto": 1e-15, "pico": 1e-12, "nano": 1e-9, "micro": 1e-6, "milli": 1e-3, "centi": 1e-2,
                 "deci": 0.1, "kilo": 1e3, "mega": 1e6, "giga": 1e9}  # fmt: skip
_KNOWN = {"m": "m, cm, mm, um, nm, angstrom", "eV": "eV, keV, MeV, J", "rad": "rad, mrad, deg", "s": "s, ms, min"}
_QUANTITY = re.compile(r"^\s*([-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?)\s*([^\d\s]*)\s*$")


def unit_scale(text: str, unit: str) -> float:
    """Factor from the unit written as `text` to the base unit `unit` (`"m"`, `"eV"`, `"rad"`, `"s"` or `""`).

    Symbols and names with prefixes, the latter as pint and UDUNITS spell them: `"um"`, `"micrometres"`,
    `"kiloelectron_volt"`. Capitals tell M from m where they make a unit, and are overlooked otherwise.

    **Raises:** `InputError` when `text` is no unit of that dimension.

    ```python
    assert unit_scale("mm", "m") == 1e-3 and unit_scale("kiloelectron_volt", "eV") == 1e3
    ```
    """
    written = text.strip().strip("[]()").strip().replace("µ", "u").replace("μ", "u")
    plain = re.sub(r"[\s_-]", "", written.lower())
    folded = {symbol.lower(): scale for symbol, scale in _SYMBOLS[unit].items()}
    # "mev" of a careless writer is mega; a prefix of capitals is none of lower-case letters.
    prefixes = {**_PREFIX_SYMBOLS, **({"m": 1e6} if unit == "eV" else {})}
    for symbols, before, spelled in (
        (_SYMBOLS[unit], _PREFIX_SYMBOLS, written),
        (folded, prefixes, plain),
        (_NAMES[unit], _PREFIX_NAMES, plain),
        (_NAMES[unit], _PREFIX_NAMES, plain.removesuffix("s")),
    ):
        if (scale := _with_prefix(spelled, symbols, before)) is not None:
            return scale
    known = _KNOWN.get(unit, "pixel, counts")
    raise InputError(f"{text!r} is not a unit of {unit or 'a plain number'} (known: {known})")


def _with_prefix(spelled: str, units: dict[str, float], prefixes: dict[str, float]) -> float | None:
    if spelled in units:
        return units[spelled]
    for prefix, scale in prefixes.items():
        rest = spelled.removeprefix(prefix)
        if rest and rest != spelled and rest in units:
            return scale * units[rest]
    return None


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


def in_words(value: ArrayLike, unit: str) -> str:
    """Write a number with the prefix that suits it, "17 keV", "3.65 mm"; an array as a range.

    ```python
    assert in_words(3.65e-3, "m") == "3.65 mm" and in_words([1e4, 2e4], "eV") == "10 to 20 keV"
    ```
    """
    values = np.atleast_1d(np.asarray(value, float))
    biggest = np.abs(values).max()
    prefixes = [(1e3, "k"), (1.0, ""), (1e-3, "m"), (1e-6, "u"), (1e-9, "n"), (1e-12, "p")]
    scale, prefix = next(((s, p) for s, p in prefixes if biggest >= s), prefixes[-1])
    if unit == "m" and scale > 1:
        scale, prefix = 1.0, ""
    ends = [values.min(), values.max()] if np.ptp(values) > 1e-9 * biggest else [values[0]]
    return " to ".join(f"{v / scale:.4g}" for v in ends) + f" {prefix}{unit}"


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
        raise InputError(
            f"energy {value:g} ({said}) is {energy:g} eV, which is no X-ray energy (50 eV to 500 keV); "
            'give it with its unit, e.g. "17 keV"'
        )
    return energy, f"energy {value:g} {said}: {energy / 1e3:.4g} keV"


def delta_beta(formula: str, density: float, energy: float, kind: str = "total") -> tuple[float, float]:
    """Refractive index decrement and absorption index of a named material, from the tables of xraydb (Elam, Chantler).

    **Arguments:** chemical `formula` (`"SiO2"`), `density` [g/cm^3], `energy` [eV]; `kind` of attenuation that beta
    stands for, as in `mass_attenuation`: `"total"`, which a transmission image measures, or `"photo"`, absorption
    alone, as tables of optical constants have it. Of water the latter is 0.96, 0.75, 0.39 and 0.07 of the former at 8,
    17.5, 30 and 60 keV.

    **Returns:** `(delta, beta)` of `n = 1 - delta + i beta`, `beta = wavelength mu / (4 pi)`.

    **Raises:** `InputError` for an energy outside of the tables; `MissingPackage` without xraydb (`pip install
    "diffrecon[materials]"`).

    ```python
    delta, beta = delta_beta("H2O", 1.0, 30e3)
    assert 2000 < delta / beta < 2150 and delta / delta_beta("H2O", 1.0, 30e3, "photo")[1] > 5000
    ```
    """
    attenuation = 1e3 * density * mass_attenuation(formula, energy, kind)  # refuses energies outside of the tables
    delta = float(require("xraydb", "materials").xray_delta_beta(formula, density, energy)[0])
    return delta, float(attenuation * energy_to_wavelength(energy) / (4 * np.pi))


def edges(element: str) -> tuple[float, ...]:
    """Look up the absorption edges of an element [eV], in the tables of xraydb (Elam).

    **Raises:** `InputError` for a text that is no element; `MissingPackage` without xraydb.

    ```python
    assert 8970 < max(edges("Cu")) < 8990
    ```
    """
    return tuple(edges_by_shell(element).values())


def edges_by_shell(element: str) -> dict[str, float]:
    """Look up the absorption edges of an element [eV] by shell (`"K"`, `"L3"`), in the tables of xraydb (Elam).

    Its file is read as the SQLite that it is: to import xraydb takes longer than `inspect` takes in all.

    **Raises:** as `edges`.

    ```python
    assert 7100 < edges_by_shell("Fe")["K"] < 7120
    ```
    """
    if element not in ELEMENTS:
        raise InputError(f"{element!r} is no element")
    found = importlib.util.find_spec("xraydb")
    file = None if found is None or found.origin is None else Path(found.origin).with_name("xraydb.sqlite")
    if file is None or not file.exists():
        return {shell: edge.energy for shell, edge in require("xraydb", "materials").xray_edges(element).items()}
    with contextlib.closing(sqlite3.connect(f"{file.as_uri()}?mode=ro&immutable=1", uri=True)) as table:
        rows = table.execute("select iupac_symbol, absorption_edge from xray_levels where element = ?", (element,))
        return {str(shell): float(energy) for shell, energy in rows}


def refraction(composition: str, energy: float | None, name: str = "material") -> tuple[float, float]:
    """Look up delta and beta of a composition with its density, such as `"SiO2, 2.2"` [g/cm^3], at an energy [eV].

    **Raises:** `InputError` that begins with `name` where density or energy are missing.
    """
    substance = material(composition)
    if substance.density is None or energy is None:
        lacks = "the energy of the scan" if energy is None else "a density in g/cm^3"
        raise InputError(f'{name} = {composition!r} needs {lacks}, such as "SiO2, 2.2" at "17 keV"')
    return delta_beta(substance.formula, substance.density, float(energy))


def delta_beta_ratio(
    energy: float | None, given: float | None = None, composition: str | None = None, name: str = "model.material"
) -> float:
    """Choose delta / beta of a sample: that of a `composition` with density, a `given` one, or that of light organic
    matter at the energy [eV].

    The last is `8.8 (E / keV)^2`, 2500 at 17 keV: delta falls as E^-2, photoelectric beta as E^-4; above some 25 keV,
    where scattering takes over, it is an overestimate (name the material). 1000 where the energy is not known.

    **Raises:** `InputError` for a ratio that is not positive, and as `refraction`.

    ```python
    assert round(delta_beta_ratio(17e3)) == 2543
    ```
    """
    if composition is not None:
        delta, beta = refraction(str(composition), energy, name)
        return delta / beta
    if given is None:
        return 1000.0 if energy is None else 8.8 * (float(energy) / 1e3) ** 2
    if not float(given) > 0:
        raise InputError(f"model.delta_beta = {float(given):g} is to be positive (inf for a pure phase object)")
    return float(given)


def attenuation_coefficient(beta: ArrayLike, wavelength: ArrayLike) -> Any:
    """Linear attenuation coefficient `mu = 4 pi beta / wavelength` [1/m]."""
    return (4 * np.pi * np.asarray(beta, float) / np.asarray(wavelength, float))[()]


def electron_density(delta: ArrayLike, wavelength: ArrayLike) -> Any:
    """Electrons per cubic metre from `delta = r_e wavelength^2 n_e / (2 pi)` (far from absorption edges)."""
    return (2 * np.pi * np.asarray(delta, float) / (CLASSICAL_ELECTRON_RADIUS * np.asarray(wavelength, float) ** 2))[()]


def electrons_per_cubic_angstrom(delta: ArrayLike, wavelength: ArrayLike) -> Any:
    """`electron_density` in the unit of crystallography; water has 0.334.

    ```python
    wavelength = energy_to_wavelength(17e3)
    assert abs(electrons_per_cubic_angstrom(delta_from_electrons(0.334e30, wavelength), wavelength) - 0.334) < 1e-9
    ```
    """
    return 1e-30 * electron_density(delta, wavelength)


def delta_from_electrons(electrons: ArrayLike, wavelength: ArrayLike) -> Any:
    """delta of so many electrons per cubic metre, the inverse of `electron_density`."""
    return (
        CLASSICAL_ELECTRON_RADIUS * np.asarray(wavelength, float) ** 2 * np.asarray(electrons, float) / (2 * np.pi)
    )[()]


# ---------------------------------------------------------------------- named materials
class Material(NamedTuple):
    """A chemical `formula` and its `density` [g/cm^3], `None` where neither the text nor the tables give one."""

    formula: str
    density: float | None


def material(composition: str) -> Material:
    """A material from a formula (`"SiO2"`), a formula with its density [g/cm^3] (`"SiO2, 2.2"`), or a name (`"water"`).

    Without a density that of the table of xraydb is taken: of materials it knows by name or formula, and of elements.

    **Raises:** `InputError` for what is no formula and no name; `MissingPackage` without xraydb.

    ```python
    assert material("SiO2, 2.65") == ("SiO2", 2.65)
    ```
    """
    xraydb = require("xraydb", "materials")
    refused = f'material {composition!r}: give a formula with its density in g/cm^3, as "SiO2, 2.2", or a name'
    name, comma, written = (part.strip() for part in str(composition).partition(","))
    try:
        formula, listed = xraydb.get_material(name) or (name, None)
        elements = xraydb.chemparse(formula)
        density = float(written) if comma else listed
    except ValueError:
        raise InputError(refused) from None
    if not elements or not (density is None or 0 < density < 100):
        raise InputError(refused)
    if density is None and len(elements) == 1:
        density = xraydb.atomic_density(next(iter(elements)))
    return Material(formula, None if density is None else float(density))


def mass_attenuation(composition: str, energy: float, kind: str = "total") -> float:
    """Mass attenuation coefficient mu/rho [m^2/kg] of a composition at an energy [eV], tables of Elam in xraydb.

    **Arguments:** `composition` as in `material` (its density does not matter here); `kind` = `"total"` (what a
    transmission image measures), `"photo"`, `"incoh"` (Compton) or `"coh"` (Rayleigh).

    **Raises:** `InputError` for an energy outside of the tables, 100 eV to 800 keV.

    ```python
    assert abs(mass_attenuation("H2O", 20e3) - 0.0810) < 0.001  # NIST: 0.8096 cm^2/g
    ```
    """
    if not 100 <= energy <= 8e5:
        raise InputError(f"energy {energy:g} eV is outside of the tables (100 eV to 800 keV); 17 keV is 17000")
    if kind not in ("total", "photo", "incoh", "coh"):
        raise InputError(f'kind {kind!r} is not known: give "total", "photo", "incoh" or "coh"')
    formula = material(composition).formula
    per_centimetre = require("xraydb", "materials").material_mu(formula, float(energy), density=1.0, kind=kind)
    return 0.1 * float(per_centimetre)


def energy_absorption(composition: str, energy: float) -> float:
    """Mass energy-absorption coefficient mu_en/rho [m^2/kg]: the share of the light's energy that stays as dose.

    Photoelectric absorption whole (fluorescence is assumed not to escape) and of Compton scattering the recoil energy,
    by the Klein-Nishina cross-section for electrons at rest. Agrees with the table of NIST for water within 0.3 % from
    10 to 30 keV and 1.3 % up to 100 keV.
    """
    photo, compton = (mass_attenuation(composition, energy, kind) for kind in ("photo", "incoh"))
    return photo + compton * _recoil_share(energy)


def _recoil_share(energy: float) -> float:
    """Mean kinetic energy of the recoil electron over the photon's: integrals of dsigma/dOmega (Klein & Nishina
    1929)."""
    cosine, weight = np.polynomial.legendre.leggauss(64)
    kept = 1 / (1 + energy / ELECTRON_REST_ENERGY * (1 - cosine))  # scattered over incident energy
    cross_section = weight * kept**2 * (kept + 1 / kept - 1 + cosine**2)
    return float(np.sum(cross_section * (1 - kept)) / np.sum(cross_section))


# ---------------------------------------------------------------------- from what a volume holds to what it means
def density_from_attenuation(attenuation: ArrayLike, composition: str, energy: float) -> Any:
    """Mass density [g/cm^3] of a material of known composition from its attenuation coefficient [1/m] at an energy
    [eV].

    `rho = mu / (mu/rho)` with the total cross-section. Where the volume holds something else than the composition the
    density is that of the composition which absorbs as much.

    ```python
    rho = density_from_attenuation(np.full((4, 4, 4), 120.3), "H2O", 17e3)   # water: 1 g/cm^3
    assert abs(rho.mean() - 1) < 0.01
    ```
    """
    return _scaled(attenuation, 1e-3 / mass_attenuation(composition, energy))


def attenuation_from_density(density: ArrayLike, composition: str, energy: float) -> Any:
    """Attenuation coefficient [1/m] of a composition of a mass density [g/cm^3] at an energy [eV]."""
    return _scaled(density, 1e3 * mass_attenuation(composition, energy))


def density_from_delta(delta: ArrayLike, composition: str, energy: float) -> Any:
    """Mass density [g/cm^3] of a material of known composition from delta of `n = 1 - delta + i beta` at an energy
    [eV]."""
    return _scaled(delta, 1 / delta_beta(material(composition).formula, 1.0, energy)[0])


def delta_from_density(density: ArrayLike, composition: str, energy: float) -> Any:
    """delta of a composition of a mass density [g/cm^3] at an energy [eV], the inverse of `density_from_delta`.

    ```python
    assert abs(delta_from_density(1.0, "H2O", 17e3) / 7.97e-7 - 1) < 0.01
    ```
    """
    return _scaled(density, delta_beta(material(composition).formula, 1.0, energy)[0])


def electrons_from_density(density: ArrayLike, composition: str) -> Any:
    """Electrons per cubic metre of a composition of a mass density [g/cm^3]: `N_A rho sum Z / sum M`.

    Times 1e-30 it is per cubic angstrom.

    ```python
    assert abs(1e-30 * electrons_from_density(1.0, "H2O") - 0.3343) < 1e-4
    ```
    """
    return _scaled(density, 1e6 * AVOGADRO * _electrons_per_gram(composition))


def density_from_electrons(electrons: ArrayLike, composition: str) -> Any:
    """Mass density [g/cm^3] of a composition from its electrons per cubic metre (`electron_density` of delta)."""
    return _scaled(electrons, 1e-6 / (AVOGADRO * _electrons_per_gram(composition)))


def molar_mass(element: str) -> float:
    """Mass of a mole of an element [g].

    ```python
    assert abs(molar_mass("Fe") - 55.845) < 1e-3
    ```
    """
    return float(require("xraydb", "materials").atomic_mass(element))


def _electrons_per_gram(composition: str) -> float:
    """Moles of electrons in a gram."""
    xraydb = require("xraydb", "materials")
    elements = xraydb.chemparse(material(composition).formula)
    electrons = sum(count * xraydb.atomic_number(symbol) for symbol, count in elements.items())
    return electrons / sum(count * molar_mass(symbol) for symbol, count in elements.items())


def _scaled(values: ArrayLike, factor: float) -> Any:
    """`values * factor`; arrays, of jax too, keep their floating-point type."""
    held: Any = values if hasattr(values, "dtype") else np.asarray(values, float)
    return held * factor if np.issubdtype(held.dtype, np.floating) else np.asarray(held, float) * factor


# ---------------------------------------------------------------------- dose
def absorbed_dose(
    photons: float, pixel_size: float, composition: str, energy: float, thickness: float | None = None
) -> float:
    """Absorbed dose [Gy] of a material behind each pixel of which so many photons have arrived in all views together.

    `D = (N / a^2) E mu_en/rho` at the surface (Howells et al., J. Electron Spectrosc. 170, 4 (2009)), times
    `(1 - exp(-mu t)) / (mu t)` for the mean over a `thickness` t.

    **Arguments:** `photons` incident on a pixel, summed over the views; `pixel_size` [m] at the sample; `composition`
    as in `material`, with its density where a thickness [m] is given; `energy` [eV].

    **Raises:** `InputError` for a negative number of photons, no pixel, or a thickness of a material without density.

    ```python
    assert 2 < absorbed_dose(1e4, 1e-6, "water", 17e3) < 3
    ```
    """
    if not (photons >= 0 and pixel_size > 0 and np.isfinite(photons)):
        raise InputError(f"dose of {photons} photons a pixel of {pixel_size} m: both must be positive numbers")
    surface = photons / pixel_size**2 * energy * ELECTRON_CHARGE * energy_absorption(composition, energy)
    if thickness is None:
        return float(surface)
    density = material(composition).density
    if density is None or not thickness > 0:
        raise InputError(
            f'mean dose over {thickness} m of {composition!r}: give a density, as "{composition}, 1.2", '
            "and a thickness above 0"
        )
    depth = attenuation_from_density(density, composition, energy) * thickness
    return float(surface * -np.expm1(-depth) / depth)


def rose_photons(
    feature: float, diameter: float, attenuation: float, contrast: float | None = None, criterion: float = 5.0
) -> float:
    """Photons on a pixel as large as a feature, all views together, for the feature to be seen in a tomogram.

    Filtered back-projection (ramp) of M views of N incident photons a pixel of size R leaves, in the middle of the
    specimen, the variance `pi^2 / (12 M N exp(-mu D) R^2)` (`diffrecon.solvers.fbp_deviation`); a feature of one such
    pixel is seen when its contrast is `criterion` times the standard deviation (Rose, J. Opt. Soc. Am. 38, 196 (1948)):
    `M N = criterion^2 pi^2 / 12 exp(mu D) / (contrast R)^2`. Summed over the `(D / R)^2` pixels of a view this is
    `D^4 / R^4 exp(mu D) / (mu D)^2` times a constant for a contrast mu (Flannery et al., Science 237, 1439 (1987)).

    **Arguments:** `feature` R and `diameter` D of the specimen [m]; `attenuation` mu of the specimen and `contrast`,
    the difference of a feature [1/m]; default mu, a void.

    ```python
    assert abs(rose_photons(1e-6, 1e-3, 1e3) / rose_photons(2e-6, 1e-3, 1e3) - 4) < 1e-9
    ```
    """
    difference = attenuation if contrast is None else abs(contrast)
    if not (0 < feature <= diameter and difference > 0 and attenuation >= 0):
        raise InputError(
            f"a feature of {feature} m in a specimen of {diameter} m with a contrast of {difference} 1/m: "
            "sizes and contrast must be positive, the feature the smaller one"
        )
    return float(criterion**2 * np.pi**2 / 12 * np.exp(attenuation * diameter) / (difference * feature) ** 2)


def rose_size(
    photons: float,
    pixel_size: float,
    diameter: float,
    attenuation: float,
    contrast: float | None = None,
    criterion: float = 5.0,
) -> float:
    """Smallest feature [m] that a scan shows: where `rose_photons` of the feature are what the scan has given it.

    Below `pixel_size` the pixels limit, not the photons.

    **Arguments:** `photons` incident on a pixel of `pixel_size` [m], summed over the views; the rest as `rose_photons`.

    ```python
    size = rose_size(1e6, 1e-6, 1e-3, 1e3)
    assert abs(rose_photons(size, 1e-3, 1e3) / (1e6 * (size / 1e-6) ** 2) - 1) < 1e-9
    ```
    """
    if not (photons > 0 and pixel_size > 0):
        raise InputError(f"{photons} photons on a pixel of {pixel_size} m: both must be positive")
    needed = rose_photons(pixel_size, diameter, attenuation, contrast, criterion)
    return float(pixel_size * (needed / photons) ** 0.25)


class VolumeUnit(NamedTuple):
    """Name what the values of a tomogram [1/pixel] are multiplied by, and what they are then."""

    factor: float
    units: str
    long_name: str


def volume_unit(
    quantity: str,
    pixel: float | None,
    energy: float | None = None,
    material: str | None = None,
    delta_beta: float | None = None,
) -> VolumeUnit:
    """Convert a tomogram [1/pixel] to attenuation, delta, density or electron density.

    **Arguments:** `quantity`, `"attenuation"` (which knows no pixel size as 1/pixel), `"delta"`, `"density"` or
    `"electron-density"`; `pixel` [m]; `energy` [eV]; `material`, a composition; `delta_beta`, where the line integrals
    are those of a phase filter: then delta is measured, else attenuation.

    **Raises:** `InputError` for a quantity that needs more than is known.
    """
    if material is None and (quantity == "density" or quantity == "electron-density" and delta_beta is None):
        raise InputError(f'model.quantity={quantity} needs the composition: give model.material, such as "SiO2, 2.2"')
    if quantity == "attenuation":
        return VolumeUnit(1 / (pixel or 1.0), "1/pixel" if pixel is None else "1/m", "attenuation")
    if pixel is None or energy is None:
        raise InputError(f"model.quantity={quantity} needs geometry.detector_pixel and geometry.energy")
    wavelength = float(energy_to_wavelength(energy))
    delta = None if delta_beta is None else wavelength / (4 * np.pi) * delta_beta / pixel
    if quantity == "delta" and delta is None:
        raise InputError("model.quantity=delta needs phase contrast: give prepare.delta_beta of the sample")
    if quantity == "delta":
        return VolumeUnit(delta or 0.0, "", "refractive decrement")
    if quantity == "electron-density" and delta is not None:
        return VolumeUnit(1e-30 * float(electron_density(delta, wavelength)), "1/angstrom^3", "electron density")
    composition = str(material)
    if delta is None:
        density = density_from_attenuation(1 / pixel, composition, energy)
    else:
        density = density_from_delta(delta, composition, energy)
    if quantity == "density":
        return VolumeUnit(float(density), "g/cm^3", f"density as {material}")
    electrons = 1e-30 * float(electrons_from_density(density, composition))
    return VolumeUnit(electrons, "1/angstrom^3", "electron density")


def dose_statement(
    photons: float, views: int, pixel_size: float, composition: str, energy: float, diameter: float
) -> str:
    """A sentence on the dose of a scan and the smallest void that its photons allow to be seen.

    **Arguments:** `photons` incident on a pixel in each of so many `views`; `pixel_size` and `diameter` of the specimen
    [m]; `composition` with its density as in `material`; `energy` [eV].

    ```python
    print(dose_statement(1e4, 720, 1e-6, "water", 17e3, 1e-3))
    ```
    """
    total = photons * views
    dose = absorbed_dose(total, pixel_size, composition, energy, diameter)
    formula, density = material(composition)
    mu = attenuation_from_density(density or 0.0, composition, energy)
    size = rose_size(total, pixel_size, diameter, mu)
    limit = f"{size * 1e6:.3g} um" if size > pixel_size else f"one pixel ({pixel_size * 1e6:.3g} um)"
    scale, unit = next((s, u) for s, u in ((1e6, "MGy"), (1e3, "kGy"), (1.0, "Gy"), (0.0, "Gy")) if dose >= s)
    return (
        f"{views} views of {photons:.3g} photons a pixel of {pixel_size * 1e6:.3g} um at {energy / 1e3:.4g} keV: "
        f"{dose / (scale or 1.0):.3g} {unit} in {diameter * 1e3:.3g} mm of {formula}, {density:g} g/cm^3; "
        f"smallest void seen at 5 standard deviations: {limit}"
    )

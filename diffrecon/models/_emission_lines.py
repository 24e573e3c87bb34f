"""Lines of elements: energies, production per areal mass, detection. The one home of which table they come from.

K lines must not come from Elam's yields (xraydb's): 16 % low for calcium, 24 % for silicon. xraylib has Kissel's
partial cross sections; where it is not installed, Elam's photoelectric cross sections are divided among the shells,
with yields of Bambynek 1984 and K alpha shares of Scofield 1974, within 1.2 % of xraylib up to 60 keV.
"""

import contextlib
import importlib.util
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from .. import physics
from .._optional import require
from ..errors import InputError
from ..physics import ELEMENTS

__all__ = [
    "LINE_TABLES", "Line", "attenuation_of", "detection_efficiency", "emission_line", "excited_line", "line_table",
    "mass_fractions", "split_line",
]  # fmt: skip

LINE_TABLES = {
    "xraylib": "xraylib (Kissel's partial cross sections, cascades)",
    "xraydb": "xraydb (Elam's cross sections; K: yields of Bambynek 1984, K alpha shares of Scofield 1974)",
}
"""What each table is, as it is written into a result."""

_NAMED = re.compile(r"^([A-Z][a-z]?)(?:[ _-]?(K|Ka|Kb|L|L1|L2|L3|La|M|Ma))?$")
# Shares of K alpha in all K lines: Scofield, At. Data Nucl. Data Tables 14, 121 (1974), as xraylib has them.
_ALPHA = np.array([
    (12, 1.0), (13, 0.987), (14, 0.973), (15, 0.9575), (16, 0.9418), (17, 0.9253), (18, 0.9075), (19, 0.8963),
    (20, 0.8884), (22, 0.8849), (25, 0.8819), (28, 0.8806), (31, 0.8768), (34, 0.8634), (38, 0.8485), (42, 0.8378),
    (47, 0.8276), (50, 0.8206), (56, 0.8076), (60, 0.8035), (70, 0.7956), (82, 0.7846), (92, 0.7764),
])  # fmt: skip
_BEYOND = 2.0  # times the K edge, where the share of the shell is taken to stay as it is


class Line(NamedTuple):
    """A line, or a family of lines, of an element at one beam energy.

    **Fields:** `element`; `name` (`"Ka"`, `"K"` = the whole family, ...); `energies` [eV] and `production` [cm^2/g] of
    its parts: photons sent out over the full sphere per beam photon and areal mass; `table`, its name.
    """

    element: str
    name: str
    energies: np.ndarray
    production: np.ndarray
    table: str

    def __str__(self) -> str:
        return f"{self.element} {self.name}"


def line_table(name: str = "auto") -> str:
    """Choose a table: `"auto"` is xraylib where it is installed, else xraydb.

    **Raises:** `InputError` for an unknown name; `MissingPackage` where xraylib is asked for and not installed.
    """
    if name == "auto":
        return "xraylib" if importlib.util.find_spec("xraylib") else "xraydb"
    if name not in LINE_TABLES:
        raise InputError(f"there is no table of lines {name!r}; known: auto, {', '.join(LINE_TABLES)}")
    if importlib.util.find_spec(name) is None:
        require(name, "fluorescence")  # says how to install it
    return name


def split_line(text: str) -> tuple[str, str] | None:
    """Split `"Fe Ka"`, `"Fe_K"`, `"Pb-La"` or `"Fe"` into element and line (empty where none is named).

    `None` for what names no line, such as `"compton"`.

    ```python
    assert split_line("Pb_L3") == ("Pb", "L3") and split_line("Fe") == ("Fe", "") and split_line("scatter") is None
    ```
    """
    found = _NAMED.match(text.strip())
    if found is None or found[1] not in ELEMENTS:
        return None
    return found[1], found[2] or ""


def emission_line(text: str, energy: float, table: str = "auto") -> Line:
    """Look a line up: `"Fe Ka"` is K alpha alone, `"Fe K"` the whole family, `"Fe"` the deepest family excited.

    **Arguments:** `energy` [eV] of the beam; `table` as in `line_table`.

    **Raises:** `InputError` for a text that names no line, a line that the beam does not excite (with its edge), or
    one that the table does not hold; `MissingPackage` without the table.

    **Source:** `tau_shell omega p` of Kissel's partial photoelectric cross sections with cascades (xraylib), or see
    `LINE_TABLES`.

    ```python
    iron = emission_line("Fe Ka", 17e3, "xraydb")
    assert abs(iron.energies[0] - 6400) < 5 and abs(iron.production[0] - 11.07) < 0.15  # [cm^2/g]
    ```
    """
    element, name, _, _, table = excited_line(text, energy, table)
    parts = (_of_xraylib if table == "xraylib" else _of_xraydb)(element, name, float(energy), _edges(element, table))
    good = [(e, q) for e, q in parts if q > 0]
    if not good:
        raise InputError(f"the table {table} holds no line {element} {name}; choose another (tables.lines) or line")
    energies, production = np.array(good, float).T
    return Line(element, name, energies, production, table)


def excited_line(text: str, energy: float, table: str = "auto") -> Line:
    """Name a line as `emission_line` does, by its edge alone: energies and production, which take longer, are empty.

    **Raises:** as `emission_line`, but for lines that a table lacks.
    """
    named = split_line(text)
    if named is None:
        raise InputError(f'{text!r} names no line of an element; write "Fe Ka", "Fe K" (the family), "Pb La", "Pb L"')
    table, (element, name) = line_table(table), named
    edges = _edges(element, table)
    family = name[:1] or next((f for f, shell in (("K", "K"), ("L", "L3")) if edges.get(shell, np.inf) < energy), "K")
    name = name or family
    shell = {"K": "K", "L": "L3", "M": "M5"}[family] if len(name) == 1 or name[1] in "ab" else name
    if not energy > edges.get(shell, np.inf):
        at = f"its {shell} edge is at {edges[shell] / 1e3:.4g} keV" if shell in edges else f"it has no {shell} edge"
        raise InputError(f"{element} {name} is not excited by a beam of {energy / 1e3:.4g} keV: {at}")
    if family == "M" and table == "xraydb":
        raise InputError(f"{element} {name}: the table xraydb holds no M lines; pip install xraylib (tables.lines)")
    return Line(element, name, np.zeros(0), np.zeros(0), table)


# ---------------------------------------------------------------------------------------------------- tables
_SHELLS = ("K", "L1", "L2", "L3", "M1", "M2", "M3", "M4", "M5")


def _edges(element: str, table: str) -> dict[str, float]:
    """Energies [eV] of the edges of an element, by shell."""
    if table == "xraydb":
        return physics.edges_by_shell(element)
    xraylib, edges = require("xraylib", "fluorescence"), dict[str, float]()
    for shell in _SHELLS:
        with contextlib.suppress(ValueError):  # xraylib's way to say that there is none
            number = xraylib.SymbolToAtomicNumber(element)
            edges[shell] = 1e3 * xraylib.EdgeEnergy(number, getattr(xraylib, f"{shell}_SHELL"))
    return edges


def _of_xraylib(element: str, name: str, energy: float, edges: Mapping[str, float]) -> list[tuple[float, float]]:
    """Energy [eV] and production [cm^2/g] of the parts of a line."""
    xraylib = require("xraylib", "fluorescence")
    number, kilo = xraylib.SymbolToAtomicNumber(element), energy / 1e3

    def value(function: Any, *arguments: Any) -> float:
        try:
            return float(function(number, *arguments))
        except ValueError:  # xraylib's way to say that there is none
            return 0.0

    of_line = lambda line: (1e3 * value(xraylib.LineEnergy, line), value(_cascade(xraylib), line, kilo))
    if name[0] == "K":
        wanted = {"K": ("KA", "KB"), "Ka": ("KA",), "Kb": ("KB",)}[name]
        return [of_line(getattr(xraylib, f"{line}_LINE")) for line in wanted]
    if name in ("La", "Ma"):
        return [of_line(xraylib.LA_LINE if name == "La" else xraylib.MA1_LINE)]
    strongest = {"L3": "LA", "L2": "LB1", "L1": "LB3", "M5": "MA1", "M4": "MB", "M3": "MG"}
    shells = [s for s in strongest if (s == name if len(name) > 1 else s[0] == name)]
    by_shell = []
    for shell in shells:
        if energy > edges.get(shell, np.inf):
            produced = value(xraylib.CS_FluorShell_Kissel_Cascade, getattr(xraylib, f"{shell}_SHELL"), kilo)
            by_shell.append((of_line(getattr(xraylib, f"{strongest[shell]}_LINE"))[0], produced))
    return by_shell


def _cascade(xraylib: Any) -> Any:
    return xraylib.CS_FluorLine_Kissel_Cascade


def _of_xraydb(element: str, name: str, energy: float, edges: Mapping[str, float]) -> list[tuple[float, float]]:
    """Energy [eV] and production [cm^2/g] of the parts of a line."""
    vacancies = _k_vacancies(element, energy, edges) if name[0] == "K" else _l_vacancies(element, energy, edges)
    xraydb, number = require("xraydb", "fluorescence"), require("xraydb", "fluorescence").atomic_number(element)
    parts = []
    for shell, made in vacancies.items():
        lines = xraydb.xray_lines(element, initial_level=shell)
        if name[0] == "K":
            series = 0.0370 + 0.03112 * number + 5.44e-5 * number**2 - 1.25e-6 * number**3  # Bambynek 1984
            alpha = float(np.interp(number, *_ALPHA.T))
            shares = {"Ka": alpha, "Kb": 1 - alpha}
            wanted = {"K": ("Ka", "Kb")}.get(name, (name,))
            parts += [(_mean_energy(lines, kind), made * series**4 / (1 + series**4) * shares[kind]) for kind in wanted]
        elif name in ("L", shell, "La"):
            kind = "La" if name == "La" else ""
            share = sum(v.intensity for k, v in lines.items() if k.startswith(kind))
            if shell == "L3" or not kind:
                yields = xraydb.xray_edge(element, shell).fyield
                parts.append((_mean_energy(lines, kind), made * yields * share))
    return parts


def _mean_energy(lines: Mapping[str, Any], kind: str) -> float:
    chosen = [v for k, v in lines.items() if k.startswith(kind)]
    total = sum(v.intensity for v in chosen)
    return sum(v.energy * v.intensity for v in chosen) / total if total else 0.0


def _photo(element: str, energy: float) -> float:
    return 10 * physics.mass_attenuation(element, energy, "photo")


def _k_vacancies(element: str, energy: float, edges: Mapping[str, float]) -> dict[str, float]:
    """K vacancies [cm^2/g]: what a power law from below the edge leaves of the cross section.

    Its share grows up to twice the edge and hardly beyond, where the power law would lead astray.
    """
    edge = edges["K"]
    near, far, place = 0.999 * edge, 0.8 * edge, min(energy, _BEYOND * edge)
    power = np.log(_photo(element, far) / _photo(element, near)) / np.log(near / far)
    outer = _photo(element, near) * (place / near) ** -power
    return {"K": _photo(element, energy) * (1 - outer / _photo(element, place))}


def _l_vacancies(element: str, energy: float, edges: Mapping[str, float]) -> dict[str, float]:
    """L vacancies [cm^2/g] by jump ratios from the innermost shell, and Coster-Kronig transitions (Elam)."""
    xraydb = require("xraydb", "fluorescence")
    left, made = _photo(element, energy), {}
    for shell in ("K", "L1", "L2", "L3"):
        made[shell] = 0.0
        if energy > edges.get(shell, np.inf):
            made[shell] = left * (1 - 1 / xraydb.xray_edge(element, shell).jump_ratio)
            left -= made[shell]
    del made["K"]
    moves = lambda a, b: float(xraydb.ck_probability(element, a, b, total=False) or 0)
    made["L2"] += moves("L1", "L2") * made["L1"]
    made["L3"] += moves("L2", "L3") * made["L2"] + moves("L1", "L3") * made["L1"]
    return {shell: value for shell, value in made.items() if value > 0}


# ---------------------------------------------------------------------------------------------------- matter
def attenuation_of(composition: str | Mapping[str, float], energy: float) -> float:
    """Total mass attenuation [cm^2/g] of a formula or name, or of mass fractions `{"Fe": 0.7, "Cr": 0.3}`.

    **Raises:** `InputError` for what is no matter or an energy outside of the tables (Elam's, through xraydb).

    ```python
    assert abs(attenuation_of({"H2O": 1.0}, 20e3) - attenuation_of("water", 20e3)) < 1e-9
    ```
    """
    if not isinstance(composition, Mapping):
        return 10 * physics.mass_attenuation(composition, energy)
    total = sum(float(share) for share in composition.values())
    if not total > 0 or min(float(v) for v in composition.values()) < 0:
        raise InputError(f"mass fractions {dict(composition)!r} are to be positive")
    return sum(10 * physics.mass_attenuation(c, energy) * float(v) / total for c, v in composition.items())


def mass_fractions(composition: str | Mapping[str, float]) -> dict[str, float]:
    """Mass fraction of every element of a formula, a name, or a mixture `{"Fe": 0.7, "SiO2": 0.3}`; they add up to one.

    **Raises:** `InputError` for what is no matter.

    ```python
    assert abs(mass_fractions("SiO2")["Si"] - 0.4674) < 1e-4
    ```
    """
    xraydb, found = require("xraydb", "fluorescence"), dict[str, float]()
    parts = composition if isinstance(composition, Mapping) else {composition: 1.0}
    whole = sum(float(share) for share in parts.values())
    for name, share in parts.items():
        masses = {e: n * physics.molar_mass(e) for e, n in xraydb.chemparse(physics.material(name).formula).items()}
        for element, mass in masses.items():
            found[element] = found.get(element, 0.0) + float(share) / whole * mass / sum(masses.values())
    return found


def detection_efficiency(
    energies: Float[np.ndarray, " line"],
    chip: float | None = None,
    filters: Mapping[str, float] | None = None,
    material: str = "Si",
) -> Float[np.ndarray, " line"]:
    """Share of photons that pass the filters and are absorbed in the chip of the detector.

    **Arguments:** `energies` [eV]; `chip` thickness [m], `None` absorbs all; `filters`: composition with density where
    no table has it (`"Be"`, `"air"`, `"kapton"`, `"C10H8O4, 1.4"`) and thickness [m]; `material` of the chip.

    **Raises:** `InputError` for a filter without a density.

    ```python
    share = detection_efficiency(np.array([3.7e3, 17e3]), 450e-6, {"Be": 8e-6})
    assert share[0] > 0.9 and 0.4 < share[1] < 0.6
    ```
    """
    depth = lambda what, thickness: np.array([_areal(what, thickness) * attenuation_of(what, e) for e in energies])
    passed = np.exp(-sum((depth(what, t) for what, t in (filters or {}).items()), np.zeros(len(energies))))
    return passed if chip is None else passed * -np.expm1(-depth(material, chip))


def _areal(composition: str, thickness: float) -> float:
    """Areal mass [g/cm^2] of a thickness [m]."""
    density = physics.material(composition).density
    if density is None:
        raise InputError(f'{composition!r} needs a density in g/cm^3, such as "SiO2, 2.2"')
    return 100 * thickness * density

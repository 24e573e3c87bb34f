"""Phases from crystal structures: lattice, atoms and their tabulated form factors give rings and their strengths."""

import itertools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from .. import physics
from .._optional import require
from ..errors import InputError
from ._rings import Phase

__all__ = ["phase_from_cif", "phase_of_lines"]

_WEAKEST = 1e-4  # of the strongest ring
_LARGEST = 1e4  # spacing [angstrom]
_DEBYE_WALLER = 0.005  # [A^2], mean square displacement of atoms for which the structure gives none


def phase_from_cif(path: str | Path, energy: float, largest: float) -> Phase:
    """Read a structure and compute its rings up to the scattering angle `largest` [rad] at `energy` [eV].

    **Raises:** `InputError` for a file without cell or atoms; `MissingPackage` without gemmi and xraydb.
    """
    gemmi, xraydb = require("gemmi", "diffraction"), require("xraydb", "materials")
    try:
        structure = gemmi.read_small_structure(str(path))
    except (RuntimeError, ValueError, OSError) as error:
        raise InputError(f"{path}: not a CIF file ({' '.join(str(error).split())[:120]})") from error
    sites = structure.get_all_unit_cell_sites()
    if not sites or structure.cell.volume <= 1:
        raise InputError(f"{path}: no unit cell or no atoms in the CIF file")
    wavelength = physics.HC / energy
    shortest = wavelength * 1e10 / (2 * np.sin(largest / 2))
    hkl, spacing = _reflections(structure.cell, shortest)
    amplitude = np.zeros(len(hkl), complex)
    sine = 1 / (2 * spacing)
    for element in {site.element.name for site in sites}:
        factor = np.asarray(xraydb.f0(element, sine), float)
        factor = factor + float(xraydb.f1_chantler(element, energy)) + 1j * float(xraydb.f2_chantler(element, energy))
        for site in (s for s in sites if s.element.name == element):
            shake = site.u_iso if site.u_iso > 0 else _DEBYE_WALLER
            place = np.array([site.fract.x, site.fract.y, site.fract.z])
            wave = np.exp(2j * np.pi * (hkl @ place) - 8 * np.pi**2 * shake * sine**2)
            amplitude += site.occ * factor * wave
    return _rings(hkl, spacing, np.abs(amplitude) ** 2, structure.cell.volume * 1e-30)


def _reflections(cell: Any, shortest: float) -> tuple[np.ndarray, np.ndarray]:
    top = [int(np.ceil(length / shortest)) + 1 for length in (cell.a, cell.b, cell.c)]
    hkl = np.array([h for h in itertools.product(*(range(-n, n + 1) for n in top)) if any(h)])
    spacing = np.array([cell.calculate_d(list(map(int, h))) for h in hkl])
    return hkl[spacing > shortest], spacing[spacing > shortest]


def _rings(hkl: np.ndarray, spacing: np.ndarray, power: np.ndarray, volume: float) -> Phase:
    """Join reflections of one spacing."""
    order = np.argsort(-spacing)
    hkl, spacing, power = hkl[order], spacing[order], power[order]
    ring = np.concatenate([[0], np.cumsum(-np.diff(spacing) > 1e-5 * spacing[1:])])
    strength = np.bincount(ring, power)
    first = np.searchsorted(ring, np.arange(ring[-1] + 1))
    labels = np.array([max(map(tuple, hkl[ring == n])) for n in range(len(first))])
    strong = strength > _WEAKEST * strength.max()
    return Phase(spacing[first][strong] * 1e-10, strength[strong], volume, hkl=labels[strong])


def phase_of_lines(lines: Mapping[str, Any], name: str) -> Phase:
    """Make a phase of the rings that a file lists: `d_A`, `strength`, `cell_volume_A3` and, where known,
    `crystallite_nm`, `hkl`.

    **Raises:** `InputError` where the cell is missing or lines do not fit.
    """
    spacing, strength = (np.asarray(lines[key], float).ravel() for key in ("d_A", "strength"))
    volume = _beside(lines, "cell_volume_A3", name) or _beside(lines, "a_A", name) ** 3
    if spacing.size != strength.size or not ((spacing > 0) & (spacing < _LARGEST)).all() or not volume > 0:
        raise InputError(
            f"phases/{name}: as many d_A (above 0, below {_LARGEST:g}) as strength, and cell_volume_A3, are expected"
        )
    size = _beside(lines, "crystallite_nm", name) * 1e-9 or 200e-9
    return Phase(spacing * 1e-10, strength, volume * 1e-30, size, lines.get("hkl"))


def _beside(lines: Mapping[str, Any], key: str, name: str) -> float:
    """Read one number that is not below zero; 0 where there is none.

    **Raises:** `InputError`.
    """
    value = np.asarray(lines.get(key, 0.0))
    if value.size != 1 or value.dtype.kind not in "iuf" or not 0 <= (number := float(value.ravel()[0])) < np.inf:
        raise InputError(f"phases/{name}: {key} is no number above zero: {str(value.tolist())[:40]}")
    return number

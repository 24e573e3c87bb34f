"""What simulated powder diffraction shares: lines of some phases, peaks, and where the pixels of a detector stand.

Independent of `diffrecon.geometry` and of the operators: plain NumPy in float64, tilted planes met by rays.
"""

import numpy as np

__all__ = ["PHASES", "lines", "pattern", "places"]

RADIUS = 2.8179403205e-15  # [m] of the electron
_LIGHT = 1.239841984332e-6  # [eV m]

# cell [Angstrom], multiplicity x |F|^2 of the lines by h^2 + k^2 + l^2, from tabulated form factors at 30 keV
PHASES = {
    "CeO2": (
        5.4113,
        {3: 285717, 4: 110049, 8: 462552, 11: 529788, 12: 107327, 16: 151299, 19: 386743, 20: 255607, 24: 446603},
    ),
    "Al": (4.0495, {3: 9565.7, 4: 6318.6, 8: 8510.8, 11: 13099, 12: 4011.6, 16: 2165.3, 19: 6834.9, 20: 6327.8}),
    "NiO": (4.1769, {3: 34149, 4: 61808, 8: 79314, 11: 55910, 12: 37199, 16: 20828, 19: 33828, 20: 64884, 24: 52185}),
    "Ni": (3.5238, {3: 52612, 4: 34115, 8: 41907, 11: 62118, 12: 18912, 16: 10240, 19: 33135, 20: 31036, 24: 24441}),
}


def lines(phase: str) -> tuple[np.ndarray, np.ndarray, np.ndarray, float]:
    """Give spacings [Angstrom], strengths, Miller indices and cell volume [A^3] of a cubic phase."""
    cell, strengths = PHASES[phase]
    sums = np.array(list(strengths))
    hkl = np.array([_indices(n) for n in sums])
    return cell / np.sqrt(sums), np.array(list(strengths.values())), hkl, cell**3


def _indices(total: int) -> tuple[int, int, int]:
    top = range(int(np.sqrt(total)), -1, -1)
    return next((h, k, m) for h in top for k in top for m in top if h >= k >= m and h * h + k * k + m * m == total)


def pattern(
    phase: str, two_theta: np.ndarray, energy: float, width: float, scale: float = 1.0, nearer: float = 0.0
) -> np.ndarray:
    """Photons scattered per photon, length and solid angle [1/(m sr)] at volume fraction 1, without polarisation
    (B. E. Warren, X-ray Diffraction, ch. 4).

    **Arguments:** `width` [rad], full at half maximum of peaks half Gauss and half Lorentz; `scale` of the lattice;
    `nearer`: shift of the scattering point towards the detector, over the distance.
    """
    wavelength = _LIGHT / energy
    spacing, strength, _, volume = lines(phase)
    theta = np.arcsin(wavelength * 1e10 / (2 * spacing * scale))
    power = RADIUS**2 * wavelength**3 * strength / (8 * np.pi * (volume * 1e-30 * scale**3) ** 2)
    power = power / (np.sin(theta) * np.sin(2 * theta))
    seen = np.arctan((1 - nearer) * np.tan(2 * theta))
    away = (two_theta[..., None] - seen) / width
    gauss = np.sqrt(4 * np.log(2) / np.pi) * np.exp(-4 * np.log(2) * away**2)
    lorentz = 2 / np.pi / (1 + 4 * away**2)
    return ((0.5 * gauss + 0.5 * lorentz) / width * power).sum(-1)


def places(rows: np.ndarray, columns: np.ndarray, distance: float, tilt: float, pixel: float) -> tuple:
    """Angles of points of a tilted detector: two_theta, chi [rad] and solid angle of a pixel [sr].

    **Arguments:** `rows`, `columns` [m] from the foot of the normal to the plane; `tilt` of the normal about the
    vertical [rad].
    """
    normal = np.array([0.0, np.sin(tilt), np.cos(tilt)])  # (vertical, horizontal, beam)
    across = np.array([0.0, np.cos(tilt), -np.sin(tilt)])
    point = distance * normal + rows[..., None] * np.array([1.0, 0.0, 0.0]) + columns[..., None] * across
    length = np.linalg.norm(point, axis=-1)
    two_theta = np.arccos(point[..., 2] / length)
    return two_theta, np.arctan2(point[..., 0], point[..., 1]), pixel**2 * distance / length**3

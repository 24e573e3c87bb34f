"""Rings of crystalline phases and the pattern that they make: NumPy alone, which `inspect` needs, too."""

import dataclasses
from typing import Any

import numpy as np
from jaxtyping import Float

from ..operators import ChannelResponse

__all__ = ["Peaks", "Phase", "powder_pattern"]

_RADIUS = 2.8179403205e-15  # [m] of the electron
_POINTS = 3  # of a channel, at which a peak is evaluated


@dataclasses.dataclass(frozen=True)
class Phase:
    """A crystalline phase by its rings.

    **Fields:** `spacing` [m]; `strength` = sum of |F|^2 over a ring, Debye-Waller factor included; `volume` of the cell
    [m^3]; `size` of the crystallites [m]; `hkl` `(ring, 3)` for labels; `axial` `(ring,)`: share of the c axis in
    1/spacing^2, and `c_change`: by how much c changes, relatively, where a changes by one. Lattices keep their shape
    where it is one.
    """

    spacing: np.ndarray
    strength: np.ndarray
    volume: float
    size: float = 1e-6
    hkl: Any = None
    axial: Any = 0.0
    c_change: float = 1.0

    def scaled(self, scale: float) -> tuple[np.ndarray, float]:
        """Give spacings and volume of the cell where the a axis is `scale` times as long."""
        if self.c_change == 1:
            return self.spacing * scale, self.volume * scale**3
        c = 1 + self.c_change * (scale - 1)
        return self.spacing / np.sqrt((1 - self.axial) / scale**2 + self.axial / c**2), self.volume * scale**2 * c


@dataclasses.dataclass(frozen=True)
class Peaks:
    """Shape of the peaks: the instrument's full width at half maximum [rad], and the share of Lorentz.

    **Fields:** `sizes`: factors on the sizes of the phases; `response`: what every channel sees of a pattern, where
    pixels of frames were added up; without it channels are evenly wide.
    """

    width: float
    lorentz: float = 0.5
    sizes: tuple[float, ...] = ()
    response: ChannelResponse | None = None


def powder_pattern(
    phase: Phase, two_theta: Any, wavelength: float, peaks: Peaks, scale: float = 1.0, nearer: float = 0.0
) -> Float[np.ndarray, " channel"]:
    """Photons scattered per photon, length and solid angle [1/(m sr)] at volume fraction 1, polarisation left out.

    Kinematic rings (B. E. Warren, X-ray Diffraction, ch. 4), widened by the instrument and by the crystallites' size
    (Scherrer); averaged over each channel, or over its pixels where `peaks` has their response.

    **Arguments:** `two_theta` [rad], uniform; `scale` of the lattice; `nearer`: how far the scattering point is towards
    the detector, over the distance.
    """
    spacing, volume = phase.scaled(scale)
    sine = wavelength / (2 * spacing)
    theta = np.arcsin(np.minimum(sine, 0.999))
    width = np.hypot(peaks.width, 0.9 * wavelength / (phase.size * np.cos(theta)))
    power = _RADIUS**2 * wavelength**3 * phase.strength / (8 * np.pi * volume**2)
    power = np.where(sine < 0.999, power / (np.sin(theta) * np.sin(2 * theta)), 0)
    seen = np.arctan((1 - nearer) * np.tan(2 * theta))
    away = (_points(two_theta, peaks) - seen) / width
    gauss = np.sqrt(4 * np.log(2) / np.pi) * np.exp(-4 * np.log(2) * away**2)
    lorentz = 2 / np.pi / (1 + 4 * away**2)
    values = (((1 - peaks.lorentz) * gauss + peaks.lorentz * lorentz) / width * power).sum(-1).mean(1)
    return values if peaks.response is None else peaks.response(values)


def _points(two_theta: Any, peaks: Peaks) -> Float[np.ndarray, "place point 1"]:
    """Give the angles at which a pattern is evaluated."""
    if peaks.response is not None:
        return peaks.response.angles[:, None, None]
    step = (two_theta[-1] - two_theta[0]) / (len(two_theta) - 1)
    return np.asarray(two_theta)[:, None, None] + (np.arange(_POINTS) - (_POINTS - 1) / 2)[:, None] / _POINTS * step

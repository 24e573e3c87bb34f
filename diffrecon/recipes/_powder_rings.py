"""Patterns of a powder scan, as the file has them or of its frames, and the phases that explain them; no jax."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float

from ..errors import InputError
from ..frames import frame_blocks
from ..geometry import TiltedDetector
from ..models import Peaks, Phase, phase_from_cif, phase_of_lines
from ..operators import ChannelResponse
from ..scan import Scan
from ._frame_bins import Integration, bins_of
from ._monitor import monitor_at


@dataclass(frozen=True)
class Patterns:
    """Integrated data.

    **Fields:** `counts` `(view, u, channel)`; `two_theta` [rad]; `solid` angle of a channel, with polarisation [sr];
    `photons` `(view, u)`; `background` [1/sr a photon].
    """

    counts: np.ndarray
    two_theta: np.ndarray
    solid: np.ndarray
    photons: np.ndarray
    background: np.ndarray
    background_variance: np.ndarray | None = None  # where it was measured
    response: ChannelResponse | None = None  # of the channels, where frames were integrated

    @property
    def light(self) -> np.ndarray:
        """Photons times solid angle."""
        return self.photons[..., None] * self.solid


@dataclass(frozen=True)
class Rings:
    """Patterns and the phases that explain them."""

    data: Patterns
    wavelength: float
    phases: Mapping[str, Phase]
    peaks: Peaks = Peaks(1e-3)
    amorphous: Any = ()  # (other, channel) [1/(m sr)]
    splines: np.ndarray | None = None  # (spline, channel), where the amorphous pattern is fitted
    strains: tuple[float, ...] = ()  # of the phases on average, by the mean pattern
    largest: float = 5e-3  # change of a lattice parameter

    @property
    def thickness(self) -> float:
        """Give the depth [m] over which the mean pattern is spread, one where it is not known."""
        return 1.0

    @property
    def components(self) -> list[str]:
        """Name the phases, and what is amorphous."""
        return [*self.phases, *(["amorphous"] if len(self.amorphous) else [])]

    def mean_pattern(self) -> np.ndarray:
        """Mean of all points [1/sr a photon], the empty beam taken away."""
        light = self.data.light.sum((0, 1))
        counts = self.data.counts.sum((0, 1), dtype=float)
        return np.where(light > 0, counts / np.where(light > 0, light, 1), np.nan) - self.data.background

    def reflections_of(self, phase: Phase) -> Float[np.ndarray, "ring 2"]:
        """Angle [rad] and strength of the rings that the patterns reach."""
        angle = 2 * np.arcsin(np.minimum(self.wavelength / (2 * phase.spacing), 1))
        seen = (angle > self.data.two_theta[0]) & (angle < self.data.two_theta[-1])
        return np.stack([angle, phase.strength / (np.sin(angle / 2) * np.sin(angle) + 1e-30)], 1)[seen]

    def reflections(self) -> Float[np.ndarray, "ring 2"]:
        """Number of the phase and angle [degree] of every ring that the patterns reach."""
        found = []
        for number, phase in enumerate(self.phases.values()):
            sine = self.wavelength / (2 * phase.spacing)
            angle = 2 * np.arcsin(np.minimum(sine, 1))
            strong = phase.strength > 0.02 * phase.strength.max()
            seen = strong & (angle > self.data.two_theta[0]) & (angle < self.data.two_theta[-1])
            found += [(number, np.degrees(a)) for a in angle[seen]]
        return np.array(found).reshape(-1, 2)


# ---------------------------------------------------------------------------------------------------- the scan
def patterns_of(
    scan: Scan, file: dict[str, Any], rules: Integration, kind: Callable[..., Any]
) -> tuple[Patterns, list[str]]:
    """Patterns as the file has them, or of its frames; `kind` of their bins as in `bins_of`."""
    if "two_theta" in file or "two_theta" in scan.extra:
        if rules != Integration():
            raise InputError(f"{scan.name}: holds patterns: settings of [integration] have no effect")
        counts = np.asarray(scan.counts)
        two_theta = np.asarray(file.get("two_theta", scan.extra.get("two_theta")), float).ravel()
        if two_theta.size != counts.shape[2] or (np.diff(two_theta) <= 0).any():
            raise InputError(
                f"{scan.name}: {two_theta.size} scattering angles for {counts.shape[2]} channels; as many, increasing, "
                "are expected"
            )
        solid, background = (
            _of_channels(scan, file, name, np.full(two_theta.size, usual))
            for name, usual in (("normalisation", 1.0), ("background", 0.0))
        )
        solid, lines = _unmasked(scan, solid)
        return Patterns(counts, two_theta, solid, _photons(scan, file, counts.shape[:2]), background), lines
    if rules.axis != "two_theta" or rules.sectors != 1 or rules.clip is not None:
        raise InputError("diffraction-tomography fits counts of patterns over two_theta, without sectors and clipping")
    detector = scan.extra.get("detector")
    table, lines = bins_of(scan, rules, kind, finer=2)
    grid = tuple(file.get("grid", ()))
    if len(grid) != 2 or grid[0] * grid[1] != scan.views:
        grid = _grid_of_angles(scan)
    sums = [np.asarray(table.sums(block)) for block in frame_blocks(scan.counts)]
    sky = detector.pixel_solid_angle if isinstance(detector, TiltedDetector) else 1.0
    solid = np.asarray(table.norm, float) * sky
    background, variance = np.zeros(len(solid)), None
    if "empty_frame" in file:
        empty = np.asarray(table.sums(np.asarray(file["empty_frame"], np.float32)[None]))[0]
        per_count = np.where(solid > 0, 1 / np.where(solid > 0, solid, 1), 0) / file["empty_photons"]
        background, variance = empty * per_count, np.maximum(empty, 1) * np.maximum(per_count, 1e-30) ** 2
        lines.append(f"the empty frame of {file['empty_photons']:.3g} photons is what scatters without the sample")
    else:
        lines.append("no empty frame: what the air scatters counts as amorphous")
    counts = np.concatenate(sums).reshape(*grid, -1)
    photons = _photons(scan, file, grid)
    return Patterns(counts, table.cake.centres, solid, photons, background, variance, table.response()), lines


def _unmasked(scan: Scan, solid: np.ndarray) -> tuple[np.ndarray, list[str]]:
    """Leave out channels that are masked at a position, by giving them no solid angle.

    **Raises:** `InputError` where none remains.
    """
    if scan.mask is None or np.asarray(scan.mask).all():
        return solid, []
    measured = np.asarray(scan.mask, bool).all(0)
    if not measured.any():
        raise InputError(f"{scan.name}: the mask leaves no channel that every position has measured")
    return solid * measured, [f"{(~measured).sum()} of {measured.size} channels are masked and left out"]


def _of_channels(scan: Scan, file: dict[str, Any], name: str, usual: np.ndarray) -> np.ndarray:
    """One number a channel: solid angles, or what the empty beam scatters.

    **Raises:** `InputError` for another number of them, below zero, or none above it where light goes through.
    """
    values = np.asarray(file.get(name, usual), float).ravel()
    if values.size != usual.size:
        raise InputError(f"{scan.name}: {values.size} values of {name} for {usual.size} channels; as many are expected")
    if name == "normalisation" and not ((values >= 0).all() and values.max() > 0):
        raise InputError(
            f"{scan.name}: normalisation from {values.min():.3g} to {values.max():.3g}: solid angles of the channels "
            "[sr], none below zero and some above, are expected"
        )
    return values


def _grid_of_angles(scan: Scan) -> tuple[int, int]:
    """Views and points of frames in a row: the angle stays while the sample moves."""
    angles = np.asarray(scan.angles, float)
    turns = np.flatnonzero(np.abs(np.diff(angles)) > 1e-9)
    points = int(turns[0]) + 1 if turns.size else scan.views
    if scan.views % points or (np.abs(np.diff(angles.reshape(-1, points), axis=1)) > 1e-9).any():
        raise InputError(
            f"{scan.name}: {scan.views} frames are no grid of angles and points: the angle must stay for as many "
            "frames at each angle"
        )
    return scan.views // points, points


def _photons(scan: Scan, file: dict[str, Any], grid: tuple[int, ...]) -> np.ndarray:
    values = scan.extra.get("monitor", file.get("monitor"))
    if values is None:
        return np.ones(grid[:2])
    lit = monitor_at(scan, values, tuple(grid[:2]))
    return lit / (1.0 if "monitor" in scan.extra else file.get("monitor_gain", 1.0))


def phases_of(wanted: Any, file: dict[str, Any], scan: Scan, largest: float) -> dict[str, Phase]:
    """Phases by name: lines that the file lists, or CIF files."""
    known = file.get("phases", {})
    if wanted is None:
        return {name: phase_of_lines(lines, name) for name, lines in known.items()}
    named = wanted if isinstance(wanted, Mapping) else None
    if named is None:
        words = (wanted,) if isinstance(wanted, str) else wanted  # "A,B" comes as one word from the command line
        names = [name.strip() for word in words for name in word.split(",")]
        absent = [name for name in names if name not in known]
        if absent:
            raise InputError(
                f"{scan.name}: no lines of {', '.join(absent)} in the file (it has {', '.join(known) or 'none'}); "
                f"name a CIF file: --set 'model.phases={{{absent[0]} = \"{absent[0]}.cif\"}}'"
            )
        return {name: phase_of_lines(known[name], name) for name in names}
    energy = float(scan.geometry.energy)  # pyright: ignore[reportOptionalMemberAccess]
    return {name: phase_from_cif(path, energy, largest * 1.1) for name, path in named.items()}

"""From a scan to the start of powder tomography: patterns, attenuation, absorption, phases, the shape of the peaks."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from .. import prepare
from .._console import Console
from ..errors import InputError
from ..frames import frame_blocks
from ..geometry import TiltedDetector
from ..models import Peaks, Phase, PowderTomography, phase_from_cif, phase_of_lines, powder_basis
from ..operators import ChannelResponse, Grid, StripProjector, absorption_factors
from ..scan import Scan
from ..solvers import GridPrior, edge_preserving_slice
from ._monitor import monitor_at
from ._powder_peaks import first_peaks, with_axes
from .integration import Integration, integrator

_TABLE = 2.0  # [GiB] of the projector, from which on pixels are as large as the steps
_MOST = 16.0  # [GiB], beyond which it is refused
_NODES = 3  # scattering angles at which absorption is computed
_SHOWS = 3e-4  # half a sample over the detector's distance, from which on depth moves peaks visibly


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
class Setup:
    """Everything from which the model is made, and made anew with other peaks."""

    data: Patterns
    angles: np.ndarray
    centre: float
    step: float  # [m]
    wavelength: float
    grid: Grid
    phases: Mapping[str, Phase]
    peaks: Peaks
    amorphous: np.ndarray  # (other, channel) [1/(m sr)]
    splines: np.ndarray | None  # (spline, channel), where the amorphous pattern is fitted
    attenuation: np.ndarray | None  # (pixel,) [1/step]
    polarisation: float
    distance: float | None  # [m], where parallax counts
    lines: tuple[str, ...] = ()
    strains: tuple[float, ...] = ()  # of the phases on average, by the mean pattern
    courses: Any = None  # (view, knot) of a sample that changes
    times: Any = None  # of the views
    largest: float = 5e-3  # change of a lattice parameter

    @property
    def components(self) -> list[str]:
        """Name the phases, and what is amorphous."""
        return [*self.phases, *(["amorphous"] if len(self.amorphous) else [])]

    @property
    def nodes(self) -> np.ndarray:
        """Give the scattering angles at which absorption is known [rad]."""
        count = _NODES if self.attenuation is not None else 1
        low, high = self.data.two_theta[0], self.data.two_theta[-1]
        return low + (np.arange(count) + 0.5) / count * (high - low)

    @property
    def reach(self) -> float:
        """Give the largest depth over the detector's distance."""
        return 0.0 if self.distance is None else self.grid.radius * self.step / self.distance

    def basis(self, peaks: Peaks | None = None, amorphous: Any = None) -> Any:
        """Make the patterns that span the phases."""
        return powder_basis(
            self.phases, self.data.two_theta, self.wavelength, peaks or self.peaks, self.step, self.reach,
            self.amorphous if amorphous is None else amorphous, self.largest,
        )  # fmt: skip

    def projector(self, grid: Grid) -> StripProjector:
        """Make the projector of a grid, absorption inside."""
        return StripProjector(self.angles, grid, self.centre, self._factors(grid))

    def _factors(self, grid: Grid) -> Any:
        if self.attenuation is None:
            return None
        values = self.attenuation if grid == self.grid else grid.values(self.grid.coarse(self.attenuation))
        image = np.asarray(grid.image(values), float)
        return absorption_factors(image, self.angles, grid, self.nodes, self.polarisation)

    def model(self) -> PowderTomography:
        """Put even, small amounts of everything into the slice."""
        cast = lambda a: jnp.asarray(a, jnp.float32)
        pixels, count = int(self.grid.inside.sum()), len(self.phases)
        strains = np.broadcast_to(np.reshape(self.strains or (0.0,) * count, (count, 1)) * 1e3, (count, pixels))
        y, x = self.grid.places
        turned = self.angles[:, None]
        depths = (y * np.cos(turned) - x * np.sin(turned)) / self.grid.radius
        between = np.stack([_lagrange(self.nodes, j, self.data.two_theta) for j in range(len(self.nodes))])
        knots = () if self.courses is None else (self.courses.shape[1],)
        return PowderTomography(
            jnp.full((*knots, len(self.components), pixels), 0.05, jnp.float32),
            cast(np.broadcast_to(strains, (*knots, count, pixels))),
            self.basis(), self.projector(self.grid), cast(between), cast(depths) if self.reach else None,
            cast(self.data.light), cast(self.data.background),
            None if self.courses is None else cast(self.courses),
        )  # fmt: skip

    def mean_pattern(self) -> np.ndarray:
        """Mean of all points [1/sr a photon], the empty beam taken away."""
        light = self.data.light.sum((0, 1))
        counts = self.data.counts.sum((0, 1), dtype=float)
        return np.where(light > 0, counts / np.where(light > 0, light, 1), np.nan) - self.data.background

    def ring_sinogram(self, name: str) -> tuple[float, Float[np.ndarray, "view u"]] | None:
        """Give the strongest ring of a phase within the patterns, its angle [degree], and the mean of its channels in
        every point [1/sr a photon], the empty beam taken away; `None` where there is no ring.
        """
        rings = self.reflections_of(self.phases[name])
        if not len(rings):
            return None
        middle = rings[np.argmax(rings[:, 1]), 0]
        data, step = self.data, float(np.diff(self.data.two_theta).mean())
        near = np.abs(data.two_theta - middle) < max(self.peaks.width, step)
        light = data.light[..., near].sum(-1)
        seen = data.counts[..., near].sum(-1) - data.light[..., near] @ data.background[near]
        return float(np.degrees(middle)), np.where(light > 0, seen / np.where(light > 0, light, 1), np.nan)

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


def _lagrange(nodes: np.ndarray, number: int, at: np.ndarray) -> np.ndarray:
    others = [n for n in range(len(nodes)) if n != number]
    return np.prod([(at - nodes[n]) / (nodes[number] - nodes[n]) for n in others], axis=0) * np.ones_like(at)


# ---------------------------------------------------------------------------------------------------- the scan
def setup_of(scan: Scan, settings: Any, console: Console) -> Setup:
    """Take a scan apart: everything that the model needs, with the first guess of peaks and attenuation.

    **Raises:** `InputError` where scattering angles, energy or step are missing, or the slice is too large.
    """
    rules, file = settings.model, dict(scan.extra.get("powder", {}))
    data, lines = patterns_of(scan, file, settings.integration, console)
    views, steps = data.counts.shape[:2]
    angles = np.asarray(scan.angles, float).reshape(views, -1)[:, 0]
    wavelength = None if scan.geometry is None else scan.geometry.wavelength
    if wavelength is None:
        raise InputError(f'{scan.name}: powder tomography needs the energy: --set geometry.energy="30 keV"')
    step = scan.pixel_size
    if step is None:
        raise InputError(
            f'{scan.name}: powder tomography needs the step of the scan: --set geometry.pixel_size="15 um"'
        )
    signal = ((data.counts * (data.solid > 0)).sum(-1) / data.photons) - (data.background * data.solid).sum()
    if not signal.max() > 0:
        raise InputError(
            f"{scan.name}: nothing scatters more than the empty beam: counts, background, normalisation and monitor do "
            "not belong together"
        )
    absorption = absorption_of(file) if rules.absorption else None
    if rules.absorption and absorption is None:
        lines.append(
            "no transmitted beam in the file: absorption is left out; amounts are too small where it is strong"
        )
    centre = _centre(scan, angles, signal if absorption is None else absorption[0], lines)
    grid = _grid(steps, centre, signal, rules.pixels, views, absorption is not None, lines)
    degree = rules.polarisation if rules.polarisation is not None else file.get("polarisation", 0.99)
    phases = phases_of(rules.phases, file, scan, float(data.two_theta[-1]))
    phases = with_axes(phases, rules.c_change or {})
    said = rules.parallax if rules.parallax is not None or "parallax" not in file else bool(file["parallax"])
    distance = _distance(scan, said, grid, float(step), lines)
    nothing = np.zeros((0, len(data.two_theta)))
    setup = Setup(
        data, angles, centre, float(step), float(wavelength), grid, phases, Peaks(1e-3), nothing, None, None,
        float(degree), distance, largest=rules.lattice_change,
    )  # fmt: skip
    if absorption is not None:
        setup = dataclasses.replace(setup, attenuation=_attenuation(setup, *absorption))
    if phases:
        setup = first_peaks(setup, file.get("amorphous") if rules.amorphous else None, rules.amorphous)
        lines.append(f"peaks: {np.degrees(setup.peaks.width):.3g} degrees of the instrument, by the mean pattern")
    elif settings.solver.name == "phases":
        lines.append(
            "no phase is known: the pattern of every pixel is found instead, as solver.name=patterns does; name phases "
            "by their CIF files in model.phases"
        )
    return dataclasses.replace(setup, lines=tuple(lines))


def patterns_of(scan: Scan, file: dict[str, Any], rules: Integration, console: Console) -> tuple[Patterns, list[str]]:
    """Patterns as the file has them, or of its frames."""
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
    table, found = integrator(scan, rules, console, finer=2)
    lines = list(found)
    grid = tuple(file.get("grid", ()))
    if len(grid) != 2 or grid[0] * grid[1] != scan.views:
        grid = _grid_of_angles(scan)
    sums = [np.asarray(table.sums(jnp.asarray(block))) for block in frame_blocks(scan.counts)]
    sky = detector.pixel_solid_angle if isinstance(detector, TiltedDetector) else 1.0
    solid = np.asarray(table.norm, float) * sky
    background, variance = np.zeros(len(solid)), None
    if "empty_frame" in file:
        empty = np.asarray(table.sums(jnp.asarray(file["empty_frame"], jnp.float32)[None]))[0]
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


def absorption_of(file: dict[str, Any]) -> tuple[np.ndarray, np.ndarray] | None:
    """Line integrals of the attenuation, and their inverse variances."""
    if "transmitted" not in file or "monitor" not in file:
        return None
    seen, sent = file["transmitted"] / file["transmitted_gain"], file["monitor"] / file["monitor_gain"]
    ratio = np.maximum(seen, 0.5 / file["transmitted_gain"]) / sent
    return -np.log(ratio), 1 / (1 / np.maximum(file["transmitted"], 0.5) + 1 / np.maximum(file["monitor"], 0.5))


def _centre(scan: Scan, angles: np.ndarray, signal: np.ndarray, lines: list[str]) -> float:
    if scan.rotation_centre is not None:
        return float(scan.rotation_centre)
    centre = float(prepare.find_rotation_centre(signal[:, None].astype(np.float32), angles).centre)
    lines.append(f"rotation axis at point {centre:.2f}, by the summed signal")
    return centre


def _grid(
    steps: int, centre: float, signal: np.ndarray, pixels: int | None, views: int, absorbing: bool, lines: list[str]
) -> Grid:
    """The disc that holds what scatters, as fine as the memory allows."""
    profile = signal.max(0)
    lit = np.flatnonzero(profile > 0.01 * profile.max())
    if min(profile[0], profile[-1]) > 0.5 * profile.max():
        lines.append(
            "the sample reaches beyond the scan on both sides: what lies outside is laid into the slice's edge"
        )
    radius = min(steps / 2, float(np.abs(lit - centre).max()) + 1.5)
    size = lambda n: 4 * views * (_NODES if absorbing else 1) * steps * Grid(steps, n, radius).inside.sum() / 2**30
    chosen = pixels or (2 if size(2) < _TABLE else 1)
    if pixels is None and chosen == 1:
        lines.append("pixels as large as the steps, for the table would not fit otherwise (model.pixels)")
    if size(chosen) > _MOST:
        raise InputError(
            f"the table of {views} views, {steps} points and {chosen} pixels a step takes {size(chosen):.0f} GiB; bin "
            "the scan, or take model.pixels=1 and model.absorption=false"
        )
    return Grid(steps, chosen, radius)


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


def _distance(scan: Scan, parallax: bool | None, grid: Grid, step: float, lines: list[str]) -> float | None:
    """Distance of the detector, where depth is to move the peaks."""
    detector = scan.extra.get("detector")
    if parallax is False:
        return None
    distance = detector.distance if isinstance(detector, TiltedDetector) else None
    if distance is None:
        if parallax:
            raise InputError(f"{scan.name}: parallax needs the detector's distance: --set geometry.poni=FILE.poni")
        return None
    half = grid.radius * step / distance
    if parallax is None and half > _SHOWS:
        lines.append(f"parallax: depth moves peaks by up to {np.degrees(half) / 2:.3g} degrees, which is in the model")
    return distance if parallax or (parallax is None and half > _SHOWS) else None


# ---------------------------------------------------------------------------------------------------- first guesses
def _attenuation(setup: Setup, values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Attenuation of the slice [1/step] from the transmitted beam."""
    projector = StripProjector(setup.angles, setup.grid, setup.centre)
    prior = GridPrior.within(setup.grid, [50.0], smooth=0.0, small=1e-3, rounding=0.05)
    cast = lambda a: jnp.asarray(a, jnp.float32)
    return np.maximum(np.asarray(edge_preserving_slice(projector, cast(values), cast(weights), prior)), 0)

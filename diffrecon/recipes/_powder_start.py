"""From a scan to the start of powder tomography: attenuation, absorption, slice, the shape of the peaks."""

import dataclasses
from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from .. import prepare
from ..errors import InputError
from ..geometry import TiltedDetector
from ..models import Peaks, PowderTomography, powder_basis
from ..operators import AzimuthalIntegrator, Grid, StripProjector, absorption_factors
from ..scan import Scan
from ..solvers import GridPrior, edge_preserving_slice
from ._powder_peaks import first_peaks, with_axes
from ._powder_rings import Rings, patterns_of, phases_of

_TABLE = 2.0  # [GiB] of the projector, from which on pixels are as large as the steps
_MOST = 16.0  # [GiB], beyond which it is refused
_NODES = 3  # scattering angles at which absorption is computed
_SHOWS = 3e-4  # half a sample over the detector's distance, from which on depth moves peaks visibly


@dataclass(frozen=True, kw_only=True)
class Setup(Rings):
    """Everything from which the model is made, and made anew with other peaks."""

    angles: np.ndarray
    centre: float
    step: float  # [m]
    grid: Grid
    attenuation: np.ndarray | None = None  # (pixel,) [1/step]
    polarisation: float
    distance: float | None  # [m], where parallax counts
    lines: tuple[str, ...] = ()
    courses: Any = None  # (view, knot) of a sample that changes
    times: Any = None  # of the views

    @property
    def thickness(self) -> float:
        """Give the depth of the sample [m], over which the mean pattern is spread."""
        return self.grid.radius * self.step

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


def _lagrange(nodes: np.ndarray, number: int, at: np.ndarray) -> np.ndarray:
    others = [n for n in range(len(nodes)) if n != number]
    return np.prod([(at - nodes[n]) / (nodes[number] - nodes[n]) for n in others], axis=0) * np.ones_like(at)


# ---------------------------------------------------------------------------------------------------- the scan
def setup_of(scan: Scan, settings: Any) -> Setup:
    """Take a scan apart: everything that the model needs, with the first guess of peaks and attenuation.

    **Raises:** `InputError` where scattering angles, energy or step are missing, or the slice is too large.
    """
    rules, file = settings.model, dict(scan.extra.get("powder", {}))
    data, lines = patterns_of(scan, file, settings.integration, AzimuthalIntegrator)
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
    setup = Setup(
        data, float(wavelength), phases, amorphous=np.zeros((0, len(data.two_theta))), largest=rules.lattice_change,
        angles=angles, centre=centre, step=float(step), grid=grid, polarisation=float(degree), distance=distance,
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

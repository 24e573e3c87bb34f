"""Scanning transmission: absorption, refraction angles, integrated phase and dark field of maps and tomograms."""

from dataclasses import dataclass
from functools import partial
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from .._console import Console
from .._result import Quantity
from ..errors import InputError
from ..modality import Modality, Outcome, Problem, Run, Stage, Work
from ..scan import Scan
from ..settings import section, setting
from ..solvers import integrate_gradients
from ..solvers.slices import SLICE_SOLVERS, SliceOptions
from . import looks
from ._scan_points import Points, Signals, points_of, signals_of
from ._scan_words import orientation_lines, probe_lines
from ._volumes import Volumes, projector_of, solve_each, without_ends


@dataclass(frozen=True)
class Model:
    """What is in the beam."""

    empty: tuple[int, int, int, int] | None = setting(
        None, "points of the map without a sample: [first row, last + 1, first column, last + 1]; by default flats, or "
        "those of the most frequent transmission",
    )  # fmt: skip


@dataclass(frozen=True)
class Solver(SliceOptions):
    """How volumes are found from projections at many angles."""

    name: str = setting("fbp", "a name in solvers.SLICE_SOLVERS", known=lambda: tuple(SLICE_SOLVERS))


@dataclass(frozen=True)
class Settings:
    """Every setting of the method."""

    model: Model = section(Model)
    solver: Solver = section(Solver)


@dataclass(frozen=True)
class Microscope(Problem):
    """The problem with where its points are, what they say, and the phase that their angles are slopes of [rad]."""

    scan: Any = None
    points: Points = Points((0, 0), None)
    signals: Signals | None = None
    phase: Any = None
    names: tuple[str, ...] = ()
    lines: tuple[str, ...] = ()


class Stxm(looks.Stxm, Modality):
    """Transmission, angles [rad], phase [rad] and dark field [rad^2] from a scanned beam, frame by frame or summed."""

    settings = Settings

    def start(self, scan: Scan, settings: Settings, console: Console) -> Microscope:
        """Find the grid of the scan; nothing is read yet."""
        points, views = points_of(scan), 1 if scan.positions is not None else scan.views
        settings.solver.checked()
        if scan.angles is None and settings.solver != Solver():
            raise InputError(f"{scan.name}: solver.* is for tomograms, and this is one map: leave it out")
        empty = Volumes(jnp.zeros((0, 1, 1, 1), jnp.float32))
        return Microscope(empty, {"counts": np.zeros((views, 1))}, _no_cost, {"volumes": 1.0}, scan=scan, points=points)

    def split(self, problem: Microscope, settings: Settings) -> tuple[np.ndarray, np.ndarray]:
        """Nothing is fitted to views, so that none is held out."""
        return np.arange(problem.views), np.zeros(0, int)

    def stages(self, problem: Microscope, settings: Settings, console: Console) -> Work:
        """Sum the frames up, lay them on the grid and integrate; solve for volumes where there are angles."""
        problem = yield Stage(f"{self.name}: maps", partial(_mapped, empty=settings.model.empty), keeps=())
        if problem.scan.angles is not None and problem.points.raster is None:
            yield Stage(f"{self.name}: volumes", partial(_solved, options=settings.solver), keeps=())

    def verdict(self, problem: Microscope, scan: Scan, settings: Settings) -> tuple[dict[str, Any], list[str]]:
        """Say how far the angles are those of a phase, what the probe may add, and how the volumes explain the data."""
        return {}, list(problem.lines)

    def quantities(self, problem: Microscope, scan: Scan, settings: Settings) -> dict[str, Quantity]:
        """Give maps, or volumes with the stacks that they come from."""
        signals, step = problem.signals, problem.points.step
        assert signals is not None
        pixel = None if step is None else step[1]
        tomogram = len(problem.model.volumes) > 0
        found = _volumes(problem, pixel) if tomogram else {}
        stacks = {"transmission": (signals.transmission, "", "transmission")}
        if signals.alpha is not None:
            stacks["alpha_x"] = (signals.alpha[1], "rad", "refraction angle along x")
            stacks["alpha_y"] = (signals.alpha[0], "rad", "refraction angle along y")
        if problem.phase is not None and not tomogram:
            stacks["phase"] = (problem.phase, "rad", "phase")
        if signals.darkfield is not None:
            stacks["darkfield"] = (signals.darkfield, "rad^2", "variance of scattering angles")
        kind, axes, pick = ("data", ("view", "y", "x"), slice(None)) if tomogram else ("image", ("y", "x"), 0)
        for name, (values, units, label) in stacks.items():
            found[name] = Quantity(np.asarray(values[pick], np.float32), units, axes, pixel, label, kind)
            if name in signals.errors:
                bar = np.asarray(signals.errors[name][pick], np.float32)
                found[f"{name}_error"] = Quantity(bar, units, axes, pixel, f"error bar: {label}", "data")
        return found


def _no_cost(model: Volumes, batch: Any) -> Array:
    return jnp.zeros(())


# ---------------------------------------------------------------------------------------------------- maps
def _mapped(problem: Microscope, run: Run, empty: Any) -> Outcome:
    """Read the points, and integrate their angles."""
    scan, points = problem.scan, problem.points
    progress = run.console.progress(scan.views, "stxm: frame")
    show = (lambda done: progress.update(min(done, scan.views))) if points.raster is not None else None
    signals = signals_of(scan, points, empty, show)
    lines, figures, phase = list(signals.lines), {}, None
    if signals.alpha is not None and signals.alpha.shape[1] == 1:
        image = signals.alpha[:, 0]
        figures["curl"], said = orientation_lines(image, points.step, points.raster is not None)
        figures["probe_angle"], more = probe_lines(image, signals.transmission[0], signals.spread)
        lines += said + more
    if signals.alpha is not None:
        wave, said = _wave_number(scan, points)
        lines += said
        phase = None if wave is None or points.step is None else _integrated(signals, points.step, wave, scan.angles)
    for line in lines:
        run.console.say(line)
    done = problem.replace(signals=signals, phase=phase, lines=tuple(lines))
    return Outcome(done, np.zeros(0), figures=figures)


def _wave_number(scan: Scan, points: Points) -> tuple[float | None, list[str]]:
    """Give it [1/m], or say what is missing for a phase."""
    if points.step is None:
        return None, ['no step of the scan, hence no phase: say --set geometry.pixel_size="1 um"']
    if scan.geometry is None or scan.geometry.wavelength is None:
        return None, ['no energy, hence no phase: say --set geometry.energy="10 keV"']
    return 2 * np.pi / float(np.mean(scan.geometry.wavelength)), []


def _integrated(signals: Signals, step: tuple[float, float], wave: float, angles: Any) -> Float[np.ndarray, "view y x"]:
    """Integrate the angles of every view to the phase [rad], zero in air (median), in a tomogram at both ends."""
    assert signals.alpha is not None
    slopes = signals.alpha * wave * np.asarray(step)[:, None, None, None]
    known = np.asarray(np.isfinite(slopes).all(0))
    single = slopes.shape[2] == 1
    if single:  # one line: the same twice, with nothing along y
        slopes, known = np.repeat(slopes, 2, 2) * np.array([0.0, 1.0])[:, None, None, None], np.repeat(known, 2, 1)
    cast = lambda a: jnp.asarray(np.nan_to_num(a), jnp.float32)
    phases = [integrate_gradients(cast(d), cast(r), weight=None if k.all() else cast(k)) for d, r, k in zip(
        slopes[0], slopes[1], known, strict=True)]  # fmt: skip
    phase = np.where(known, np.asarray(phases, float), np.nan)[:, : 1 if single else None]
    return phase - np.nanmedian(phase, (1, 2), keepdims=True) if angles is None else without_ends(phase)


# ---------------------------------------------------------------------------------------------------- volumes
def _solved(problem: Microscope, run: Run, options: SliceOptions) -> Outcome:
    """Solve for attenuation, and for phase and scattering where they are known, in one geometry."""
    scan, signals = problem.scan, problem.signals
    assert signals is not None
    sinograms = {"attenuation": -np.log(np.maximum(signals.transmission, 1e-6))}
    if problem.phase is not None:
        sinograms["phase"] = -problem.phase  # positive where there is matter
    if signals.darkfield is not None:
        sinograms["darkfield"] = signals.darkfield
    A, lines = projector_of(scan, scan.angles, sinograms["attenuation"])
    volumes, history, figures, said = solve_each(A, sinograms, options, weights=signals.counts, console=run.console)
    lines += said
    for line in lines:
        run.console.say(line)
    done = problem.replace(model=Volumes(volumes), names=tuple(sinograms), lines=(*problem.lines, *lines))
    return Outcome(done, history, figures=figures)


def _volumes(problem: Microscope, pixel: float | None) -> dict[str, Quantity]:
    of = {
        "attenuation": (1.0, "", "attenuation coefficient"),
        "phase": (-1.0, "rad", "phase a length, -k delta"),
        "darkfield": (1.0, "rad^2", "variance of scattering angles a length"),
    }
    found = {}
    for name, volume in zip(problem.names, np.asarray(problem.model.volumes), strict=True):
        sign, unit, label = of[name]
        units = f"{unit or '1'}/{'pixel' if pixel is None else 'm'}"
        values = np.asarray(sign * volume / (pixel or 1.0), np.float32)
        found[name] = Quantity(values, units, ("z", "y", "x"), pixel, label, "volume")
    return found

"""Tomography in a parallel beam: prepared line integrals, geometry, a direct or an iterative solve, a verdict."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array

from .. import losses, models, physics, prepare, quality, solvers
from .._console import Console
from .._model import Batch
from .._result import Quantity, Result
from ..errors import InputError
from ..modality import Modality, Outcome, Problem, Run, Stage, Work, descent
from ..motion import FREEDOMS
from ..operators import AlignedProjector, Dynamic, ParallelProjector
from ..prepare import Settings as Prepare
from ..scan import Scan
from ..settings import GIVEN, as_dict, section, setting
from ..solvers.ending import Interrupted
from . import looks
from ._axis import find_axis, whole_column
from ._line_integrals import contradictions, dose, flat_halves, residual
from ._slabs import middle_rows, stream_slabs, too_large

_STEPS = {"poisson": 4, "minimise": 200}  # of the solvers that are not in the table of `solvers.SLICE_SOLVERS`
_UNPENALISED = "cgls"  # solves halves in the place of solvers with a penalty
_MINIMISE = {"solver.name": ("minimise",)}
_KINDS = ("attenuation", "delta", "density", "electron-density")


# ---------------------------------------------------------------------------------------------------- settings
@dataclass(frozen=True)
class Align:
    """Geometry from the data."""

    unknowns: tuple[str, ...] = setting(
        (), "names of diffrecon.motion.FREEDOMS, such as centre, shifts, roll", known=lambda: tuple(FREEDOMS)
    )
    rows: int = setting(
        64, "detector rows that are used for it, about the middle", at_least=1, only={"unknowns": GIVEN}
    )


@dataclass(frozen=True)
class Model:
    """What is reconstructed."""

    size: int | None = setting(None, "pixels of a slice along x and y; the detector's columns by default", at_least=2)
    quantity: str = setting("attenuation", "values of the volume", choices=_KINDS)
    material: str | None = setting(None, 'composition, such as "SiO2, 2.2" (density, dose; needs xraydb)')
    time_knots: int | None = setting(None, "so many volumes, linear in time between them (data.times)", at_least=2)


@dataclass(frozen=True)
class Loss:
    """The cost of solver.name = minimise."""

    function: Callable[..., Any] | None = setting(
        None, "(model, batch) -> scalar; least squares by default", only=_MINIMISE
    )


@dataclass(frozen=True)
class Optimiser:
    """The descent of solver.name = minimise."""

    learning_rate: float = setting(0.03, "of Adam, in units of the volume's range", above=0, only=_MINIMISE)


@dataclass(frozen=True)
class Solver(solvers.SliceOptions):
    """How the volume is found."""

    name: str = setting(
        "fbp",
        "a name in solvers.SLICE_SOLVERS, poisson, or minimise",
        known=lambda: (*solvers.SLICE_SOLVERS, *_STEPS),
    )
    slab: int | None = setting(None, "slices at a time; by default what the memory holds, 0 = all at once", at_least=0)

    def count(self) -> int:
        """Count the steps, by default those of the solver."""
        return self.steps or _STEPS.get(self.name) or super().count()


@dataclass(frozen=True)
class Quality:
    """What is said of the result."""

    halves: bool = setting(False, "resolution: shell correlation of even and odd views")
    deviation: str = setting("none", "error bars (closed-form: of fbp)", choices=("none", "closed-form", "bootstrap"))
    draws: int = setting(20, "of the bootstrap", at_least=2, only={"deviation": ("bootstrap",)})
    seed: int = setting(0, "of the bootstrap", only={"deviation": ("bootstrap",)})


@dataclass(frozen=True)
class Settings:
    """Every setting of the method."""

    prepare: Prepare = section(Prepare)
    align: Align = section(Align)
    model: Model = section(Model)
    loss: Loss = section(Loss)
    optimiser: Optimiser = section(Optimiser)
    solver: Solver = section(Solver)
    quality: Quality = section(Quality)

    def checked(self) -> "Settings":
        """Refuse settings that do not fit together, before anything is read.

        **Raises:** `InputError`.
        """
        name = self.solver.checked(tuple(_STEPS)).name
        if self.model.quantity == "delta" and self.prepare.delta_beta is None:
            raise InputError("model.quantity=delta needs phase contrast: give prepare.delta_beta of the sample")
        if self.quality.deviation == "closed-form" and name != "fbp":
            raise InputError("quality.deviation=closed-form is that of solver.name=fbp; take bootstrap")
        if self.model.time_knots is not None and name in ("fbp", "poisson"):
            raise InputError(f"model.time_knots: {name} has no time axis; take solver.name=cgls or fista")
        return self


# ---------------------------------------------------------------------------------------------------- modality
@dataclass(frozen=True)
class Tomogram(Problem):
    """The problem with its geometry in words and numbers, the light behind it, and what its solver had to say."""

    lines: tuple[str, ...] = ()
    beam: tuple[np.ndarray, np.ndarray] | None = None  # mean flat less dark, and dark [counts], where a solver asks
    unit: physics.VolumeUnit = physics.VolumeUnit(1.0, "1/pixel", "attenuation")
    where: str = ""  # in the words of figures that are those of some rows
    options: Any = None  # of the solver, with what it chose
    prepared: Any = None  # the preparation that the rows come from, of which they are those from `first` on
    first: int = 0
    half: bool = False  # of the views: without a penalty, which would sharpen both alike

    def with_flats(self, change: np.ndarray) -> "Tomogram":
        """Make the problem of other flats, by what they add to the line integrals of each row `(z, u)`."""
        beam = None if self.beam is None else (self.beam[0] * np.exp(change), self.beam[1])
        values = self.data["values"] + jnp.asarray(change, jnp.float32)
        return self.replace(data={**self.data, "values": values}, beam=beam)

    @property
    def kept(self) -> slice:
        """Pick the slices that the detector's rows see: a volume that moves along rows has more."""
        slices, rows = self.model.volume.shape[-3], self.data["values"].shape[1]
        return slice((slices - rows) // 2, (slices - rows) // 2 + rows)


class Tomography(looks.Tomography, Modality):
    """A volume slice by detector row, from frames with flats and darks or from line integrals."""

    settings = Settings

    def start(self, scan: Scan, settings: Settings, console: Console) -> Tomogram:
        """Prepare all rows, find the geometry, and put an empty volume in it."""
        prepared = _prepared(scan, settings)
        rows = prepared.rows(0, prepared.shape[1])
        return _problem(prepared, _geometry(prepared, settings, console, rows), rows, settings)

    def stages(self, problem: Tomogram, settings: Settings, console: Console) -> Work:
        """Solve by the solver that the settings name."""
        way = {"minimise": _descend, "poisson": _likelihood}.get(settings.solver.name, _solve)
        yield Stage(f"tomography: {settings.solver.name}", partial(way, settings), keeps=())

    def halves(self, start: Tomogram, solved: Tomogram, settings: Settings) -> tuple[Tomogram, Tomogram]:
        """Deal the views alternately in the order of their angles, and the flats, whose noise all views share."""
        order = np.argsort(np.mod(np.asarray(_still(start).angles) + 1e-7, 2 * np.pi), kind="stable")
        first, second = (start.replace(half=True).of(part) for part in (order[::2], order[1::2]))
        apart = flat_halves(start.prepared, start.first, start.data["values"].shape[1])
        return (first, second) if not apart else (first.with_flats(apart[0]), second.with_flats(apart[1]))

    def image(self, problem: Tomogram) -> np.ndarray:
        """Give the volume, in the middle of the scan where it changes."""
        volume, A = problem.model.volume, problem.model.projector
        return np.asarray(A.at(np.mean([A.times[0], A.times[-1]]), volume) if isinstance(A, Dynamic) else volume)

    def correlate(self, first: Tomogram, second: Tomogram, scan: Scan) -> tuple[dict[str, Any], str]:
        """Compare the volumes of even and odd views."""
        correlation = quality.shell_correlation(*map(self.image, (first, second)), pixel_size=_pixel(scan))
        figures, way = {"shell_correlation": correlation.as_quality()}, ""
        if first.options is not None and first.options.name == _UNPENALISED:
            way = f" (by {_UNPENALISED}, without penalty)"
        elif first.cost is not least_squares:
            way = " (an upper bound: what the cost knows beforehand is in both)"
        return figures, f"even against odd views{first.where}{way}: {correlation}"

    def verdict(self, problem: Tomogram, scan: Scan, settings: Settings) -> tuple[dict[str, Any], list[str]]:
        """Say how well the volume explains the line integrals, and what dose it took."""
        values, name = problem.data["values"], settings.solver.name
        misfit, needed = residual(problem.model, values, scan), int(np.ceil(np.pi / 2 * values.shape[2]))
        figures, said = contradictions(problem.prepared, problem.model.projector, values, problem.first)
        lines = [
            *problem.lines,
            f"relative residual |A x - b| / |b| = {misfit:.4f}{problem.where} ({name}, {problem.views} views)",
            *said,
            *dose(scan, settings.model.material, _energy(scan), values),
        ]
        if name == "fbp" and problem.views < needed / 2:
            lines.append(
                f"{problem.views} views where about {needed} (pi/2 columns) sample every direction: expect streaks, or "
                "try solver.name=fista"
            )
        return {"relative_residual": misfit} | figures, lines

    def quantities(self, problem: Tomogram, scan: Scan, settings: Settings) -> dict[str, Quantity]:
        """Give the volume (with its course in time where it changes) and the sinogram of the middle row."""
        (factor, units, label), pixel, A = problem.unit, _pixel(scan), problem.model.projector
        scaled = lambda volume: np.asarray(volume)[..., problem.kept, :, :] * np.float32(factor)
        volume, rows = scaled(self.image(problem)), problem.data["values"]
        found = {"volume": Quantity(volume, units, ("z", "y", "x"), pixel, label, "volume")}
        if problem.where:
            found = {"middle_slice": Quantity(volume[len(volume) // 2], units, ("y", "x"), pixel, label, "image")}
        if isinstance(A, Dynamic):
            volumes, axes = scaled(problem.model.volume), ("time", "z", "y", "x")
            times = np.linspace(A.times[0], A.times[-1], len(volumes))
            found["volumes"] = Quantity(volumes, units, axes, pixel, f"{label} at the times", "data")
            found["times"] = Quantity(times, "", ("time",), None, "times of the volumes", "data")
        middle, words = np.asarray(rows)[:, rows.shape[1] // 2], "line integrals of the middle row"
        return found | {"sinogram": Quantity(middle, "", ("view", "x"), pixel, words, "sinogram")}

    def error_bars(self, problem: Tomogram, scan: Scan, settings: Settings) -> tuple[dict[str, Quantity], list[str]]:
        """Propagate photon noise through FBP, or solve again from views drawn with replacement."""
        kind, solver, units = settings.quality.deviation, settings.solver, problem.unit.units
        if kind == "none":
            return {}, []
        if kind == "closed-form":
            A, noise = problem.model.projector, problem.data["variance"]
            bars = solvers.fbp_deviation(A, noise, filter=solver.filter, cutoff=solver.cutoff)
        else:
            solve = next(self.stages(problem, settings, Console(quiet=True))).solve
            again = lambda views: self.image(solve(problem.of(np.asarray(views)), Run(Console(quiet=True))).problem)
            draws, seed = settings.quality.draws, settings.quality.seed
            bars = quality.bootstrap_views(again, problem.views, draws=draws, seed=seed).deviation
        bars = np.asarray(bars)[problem.kept] * np.float32(problem.unit.factor)
        bar = Quantity(bars, units, ("z", "y", "x"), _pixel(scan), "standard deviation", "volume")
        said = f"error bar: median standard deviation{problem.where} {np.median(bars):.3g} {units}"
        return {"deviation": bar}, [said.rstrip()]

    # ------------------------------------------------------------------ other ways
    def preview(self, scan: Scan, settings: Settings, console: Console) -> Result:
        """Take one slice with three rotation centres: the one found and one on either side."""
        prepared = _prepared(scan, settings)
        _, height, columns = prepared.shape
        row, step, quantities = height // 2, max(1.0, columns / 200), {}
        axis, sinogram = _axis(prepared, settings, console), prepared.rows(row, row + 1)
        factor, units, _ = _unit(scan, settings)
        for label, off in (("_less", -step), ("", 0.0), ("_more", step)):
            at = axis.centre + off
            A = ParallelProjector(axis.projector.angles, axis.projector.shape, columns, centre=at)
            image = np.asarray(solvers.solve_slices(A, sinogram, solvers.SliceOptions()).volume[0]) * factor
            words = f"rotation centre {at:.2f}"
            quantities[f"slice{label}"] = Quantity(image, units, ("y", "x"), _pixel(scan), words, "image")
        words = f"rotation centre {axis.centre:.2f}, and {step:g} pixels less and more"
        said = (*prepared.messages, *axis.lines, f"preview of detector row {row}: {words}")
        return Result(self.name, quantities, {"rotation_centre": axis.centre}, said, as_dict(settings))

    def wants_slabs(self, scan: Scan, settings: Settings) -> bool:
        """Go slab by slab as the settings say, or where the volume would take more than half of the free memory."""
        if settings.solver.slab is not None:
            return settings.solver.slab > 0
        size = settings.model.size or scan.frame_shape[1]
        return settings.model.time_knots is None and too_large(scan.views, scan.frame_shape, size)

    def slabs(self, scan: Scan, settings: Settings, console: Console, writer: Callable[..., Any]) -> Result:
        """Reconstruct slab by slab into a file; figures are those of the middle rows, which stand for the volume."""
        prepared = _prepared(scan, settings)
        geometry = _geometry(prepared, settings, console)
        first, last = middle_rows(prepared.shape[1], 2)
        middle = _problem(prepared, geometry, prepared.rows(first, last), settings, first, " in the middle rows")
        return stream_slabs(self, middle, prepared, scan, settings, console, writer)


# ---------------------------------------------------------------------------------------------------- start
class Geometry(NamedTuple):
    """Say where the axis is, and what was learned about it."""

    projector: Any  # ParallelProjector, AlignedProjector where more than columns move, or a Dynamic around one
    centre: float
    lines: tuple[str, ...]
    figures: Mapping[str, Any] = {}


def _prepared(scan: Scan, settings: Settings) -> prepare.Preparation:
    """Learn from a sample of the frames how rows are prepared."""
    scan.require("angles", *Tomography.needs["angles"])
    return prepare.Preparation(scan, settings.prepare.as_mapping())


def _axis(prepared: prepare.Preparation, settings: Settings, console: Console, rows: Any = None) -> Geometry:
    """Find the rotation axis, by `rows` where all are in memory."""
    centre, moves, said = find_axis(prepared, settings.prepare.centre_search, rows)
    lines = (said, moves.said) if moves.said else (said,)
    for line in (*prepared.messages, *lines):
        console.say(line)
    angles, columns = np.asarray(prepared.angles), prepared.shape[2]
    if np.ptp(angles) > 4 * np.pi:  # a sample that goes on turning: directions repeat
        angles = np.mod(angles, 2 * np.pi)
    size = settings.model.size or columns
    projector = ParallelProjector(angles, (size, size), columns, centre=centre, shifts=moves.columns)
    return Geometry(projector, centre, lines)


def _geometry(prepared: prepare.Preparation, settings: Settings, console: Console, rows: Any = None) -> Geometry:
    """Find the axis, and what else is unknown of the geometry."""
    start = _axis(prepared, settings, console, rows)
    if settings.align.unknowns:
        start = _aligned(start, prepared, settings, console, rows)
    if settings.model.time_knots is None:
        return start
    times = np.asarray(prepared.scan.extra.get("times", np.arange(prepared.shape[0])), float)
    return start._replace(projector=Dynamic.splines(start.projector, times, settings.model.time_knots))


def _aligned(
    start: Geometry, prepared: prepare.Preparation, settings: Settings, console: Console, rows: Any
) -> Geometry:
    (views, height, columns), A = prepared.shape, start.projector
    first, last = middle_rows(height, settings.align.rows)
    some = prepared.rows(first, last) if rows is None else rows[:, first:last]
    alignment = solvers.align(
        some, A.angles, unknowns=settings.align.unknowns, centre=start.centre, size=A.shape[0], console=console
    )
    for line in alignment.messages:
        console.say(line)
    motion = alignment.motion
    moves, known = np.asarray(motion.offsets(views)), motion.known()
    if known.keys() <= {"centre", "shifts", "drift"} and (height == 1 or not moves[:, 0].any()):
        aligned: Any = ParallelProjector(A.angles, A.shape, columns, centre=motion.centre, shifts=moves[:, 1])
    else:
        aligned = AlignedProjector(A.angles, A.shape, (height, columns), motion)
    figures = {f"geometry_{name}": np.asarray(value) for name, value in known.items()} | {"geometry_shifts": moves}
    centre, lines = float(motion.centre), start.lines
    if centre != start.centre:
        lines = (
            f"rotation centre {centre:.2f} by the alignment{whole_column(prepared, centre)}",
            f"before it: {lines[0]}",
            *lines[1:],
        )
        console.say(lines[0])
    return Geometry(aligned, centre, (*lines, *alignment.messages), figures)


def _problem(
    prepared: prepare.Preparation,
    geometry: Geometry,
    rows: Array,
    settings: Settings,
    first: int = 0,
    where: str = "",
) -> Tomogram:
    """Put an empty volume behind prepared rows, the first of them detector row `first`."""
    A, beam, scan = geometry.projector, None, cast(Scan, prepared.scan)
    data: dict[str, Any] = {"values": rows}
    if settings.solver.weights == "photons" or settings.quality.deviation == "closed-form":
        data["variance"] = prepared.variance(first, rows)
    if settings.solver.name == "poisson":
        if changed := prepared.changed():
            raise InputError(f"solver.name=poisson works on the counts as they are: no prepare.{changed[0]}")
        data["counts"], beam = np.asarray(scan.counts), prepared.beam()
    shape = getattr(A, "volume_shape", (rows.shape[1], *A.shape))
    return Tomogram(
        models.Tomography(
            A.empty(shape[0]) if isinstance(A, Dynamic) else jax.device_put(np.zeros(shape, np.float32)), A
        ),
        data,
        settings.loss.function or least_squares,
        {"volume": 1.0},
        lines=(*prepared.messages, *geometry.lines),
        figures={"rotation_centre": geometry.centre, **geometry.figures, **prepared.clipped_fraction},
        beam=beam,
        unit=_unit(scan, settings),
        where=where,
        prepared=prepared,
        first=first,
    )


# ---------------------------------------------------------------------------------------------------- solve
def _solve(settings: Settings, problem: Tomogram, run: Run) -> Outcome:
    """Solve the line integrals by the table of solvers."""
    variance = problem.data.get("variance")
    weights = None if variance is None else 1 / variance
    A, values = problem.model.projector, problem.data["values"]
    options: solvers.SliceOptions = settings.solver
    if problem.half and options.name in ("fista", "primal-dual"):
        options = solvers.SliceOptions(name=_UNPENALISED, weights=options.weights)
    solved = solvers.solve_slices(A, values, options, weights=weights, console=run.console)
    outcome = _outcome(problem, solved.volume, solved.history, solved.messages, solved.curves, solved.options)
    return outcome._replace(ending=solved.ending)


def _likelihood(settings: Settings, problem: Tomogram, run: Run) -> Outcome:
    """Find the most likely volume for the raw counts; with the penalty where a weight is given."""
    solver, A = settings.solver, problem.model.projector
    progress = run.console.progress(solver.count(), "poisson: parabola")
    penalty = None if solver.weight is None or problem.half else solver.made_penalty(solver.weight, A)
    show = lambda report: progress.update(report.step, deviance=report.loss)
    counts, (flat, dark) = problem.data["counts"], problem.beam or (0, 0)
    try:
        solution = solvers.transmission(A, counts, flat, dark, penalty, steps=solver.count(), callback=show)
    except Interrupted as stop:
        solution = stop.solution
    history = np.asarray(solution.history)
    said = f"Poisson deviance a ray: {history[np.isfinite(history)][-1]:.3f} (about 1 where the model is right)"
    return _outcome(problem, solution.x, history, (said,), {}, solver)._replace(ending=solution.ending)


def _descend(settings: Settings, problem: Tomogram, run: Run) -> Outcome:
    """Minimise the user's cost by Adam, from the filtered back-projection (an empty volume where it changes)."""
    model, values, still = problem.model, problem.data["values"], _still(problem)
    first = solvers.fbp(still, values, filter="hann") if isinstance(still, ParallelProjector) else still.adjoint(values)
    span = float(jnp.percentile(first, 99) - jnp.percentile(first, 1))
    if model.volume.ndim == first.ndim:
        problem = problem.replace(model=model.replace(volume=first))
    steps = settings.solver.count()
    rate = optax.cosine_decay_schedule(settings.optimiser.learning_rate * span, steps, 0.02)
    return descent("minimise: step", optax.adam(rate), steps).solve(problem, run)


def _outcome(problem: Tomogram, volume: Array, history: np.ndarray, said: Any, curves: Any, options: Any) -> Outcome:
    problem = problem.replace(
        model=problem.model.replace(volume=volume), lines=(*problem.lines, *said), options=options
    )
    return Outcome(problem, history, figures=curves)


def _still(problem: Tomogram) -> Any:
    """Give the projector of a volume that stands still."""
    A = problem.model.projector
    return A.projector if isinstance(A, Dynamic) else A


def least_squares(model: models.Tomography, batch: Batch) -> Array:
    """Give half the mean squared difference of line integrals."""
    return losses.gaussian(model(batch.views), batch.values)


# ---------------------------------------------------------------------------------------------------- words
def _pixel(scan: Scan) -> float | None:
    return None if scan.pixel_size is None else float(scan.pixel_size)


def _energy(scan: Scan) -> float | None:
    energy = getattr(scan.geometry, "energy", None)
    return None if energy is None else float(energy)


def _unit(scan: Scan, settings: Settings) -> physics.VolumeUnit:
    model, ratio = settings.model, settings.prepare.delta_beta
    return physics.volume_unit(model.quantity, _pixel(scan), _energy(scan), model.material, ratio)

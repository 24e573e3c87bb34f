"""Ptychography, near and far field: check the scan, guess, solve in stages, judge on views never fitted."""

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
import numpy as np

from .. import operators, quality, uncertainty
from .._console import Console
from .._result import Quantity
from ..frames import pick_views
from ..modality import Modality, Outcome, Problem, Run, Stage, Work
from ..models import Ptychography, check_orientation
from ..penalties import SparseEdges
from ..prepare import air_rectangle, check_frames, common_field, light_is_fine
from ..quality.held_out import held_out_figures, split_views
from ..scan import Scan
from ..settings import above, refuse_changed, section, setting
from ..solvers import EngineTask, ScanCost, engine, fit_places, in_units, matched_frames, parse_stages, run_engine
from ..solvers.engines import optimisers
from . import looks
from ._coarse_first import SQUARES, coarse_stage, epochs_of
from ._far_start import focused

Pair = tuple[float, float]
_DEFAULT_COST = {"function": (None,)}
_THICK = {"slices": above(1)}
_GEOMETRY = ("scan_matrix", "travel", "source_blur", "detector_blur", "distance", "astigmatism", "tilt")


# ---------------------------------------------------------------------------------------------------- settings
@dataclass(frozen=True)
class Model:
    """What is described and what is solved for. Geometry: true solves for it, a value fixes it."""

    check: str = setting("auto", "mend, name or ignore flipped or swapped positions", choices=("auto", "report", "no"))
    modes: int = setting(1, "incoherent probe modes", at_least=1)
    margin: float = setting(8.0, "room around the scanned area", unit="detector pixel", at_least=0)
    refractive: bool = setting(False, "the object as phase and attenuation, without wraps")
    slices: int = setting(1, "slices of a thick object", at_least=1)
    slice_spacing: float | None = setting(None, "distance between slices", unit="m", above=0, only=_THICK)
    refine_spacing: bool = setting(False, "solve for the distance between slices", only=_THICK)
    variations: int = setting(0, "ways in which the first probe mode may change along the scan", at_least=0)
    air: tuple[int, int, int, int] | None = setting(
        None, "[first row, last, first column, last] that is empty: phase 0"
    )
    drift: int = setting(0, "knots of a drift of the scan, linear in time between them", at_least=0)
    object: bool = setting(True, "solve for the object")
    probe: bool = setting(True, "solve for the probe")
    positions: bool = setting(True, "solve for the positions")
    background: bool = setting(True, "solve for an incoherent background")
    gain: bool = setting(False, "solve for the brightness of each view")
    scan_matrix: bool | tuple[Pair, Pair] | None = setting(None, "scale, rotation and shear of the positions")
    travel: bool | Pair | None = setting(None, "path of a fly scan in an exposure", unit="detector pixel")
    source_blur: bool | float | Pair | None = setting(None, "sigma of the beam's wandering", unit="detector pixel")
    detector_blur: bool | float | Pair | None = setting(None, "sigma of the point spread", unit="detector pixel")


@dataclass(frozen=True)
class NearModel(Model):
    """What is described and solved for in the near field."""

    oversampling: int | None = setting(None, "object pixels along a detector's; 2 where light is finer", at_least=1)
    border: int = setting(0, "beam beyond each edge of the frame", unit="detector pixel", at_least=0)
    distance: bool | float | None = setting(None, "effective distance; the scan's by default", unit="m")
    astigmatism: bool | float | None = setting(None, "vertical minus horizontal effective distance", unit="m")
    tilt: bool | Pair | None = setting(None, "slope of the scan plane along (rows, columns)", unit="rad")


@dataclass(frozen=True)
class Loss:
    """What is minimised."""

    function: Callable[..., Any] | None = setting(None, "a function (model, batch) -> scalar; amplitudes by default")
    tv: float | None = setting(
        None, "weight of total variation [1/step]; by default from the object", at_least=0, only=_DEFAULT_COST
    )
    position_prior: float | None = setting(
        None,
        "standard deviation of the motors' errors",
        unit="detector pixel",
        above=0,
        only={"function": (None,), "model.positions": (True,)},
    )
    saturation: float | None = setting(None, 'counts that say "at least so many"; as the frames look', above=0)


@dataclass(frozen=True)
class Optimiser:
    """Steps of gradient engines; those of the unknowns in units of the object's."""

    name: str = setting(
        "adam", "any optax optimiser that takes a learning rate", known=optimisers, only={"solver.stages": (None,)}
    )
    learning_rate: float = setting(0.04, "step of the object", above=0)
    probe: float = setting(1.0, "step of the probe, in units of its amplitude", above=0)
    positions: float = setting(1.0, "step of the positions", unit="detector pixel", above=0)
    background: float = setting(
        2.0, "step of the background [sqrt(counts)]", above=0, only={"model.background": (True,)}
    )
    gain: float = setting(0.1, "step of the gain", above=0, only={"model.gain": (True,)})
    geometry: float = setting(1.0, "factor on the steps of distance, blur and the like", above=0)
    constant: float = setting(0.3, "part of the steps before they shrink to 1/50", at_least=0, at_most=1)


@dataclass(frozen=True)
class Solver:
    """Which engines, and for how long."""

    stages: tuple[str, ...] | None = setting(None, 'engines with epochs, ["dm:60", "lsqml:30"], not the optimiser')
    steps: int = setting(
        600, "steps of a plain descent, at least ten epochs", at_least=1, only={"stages": (None,), "epochs": (None,)}
    )
    epochs: int | None = setting(None, "exactly so many epochs instead", at_least=1, only={"stages": (None,)})
    batch_size: int = setting(10, "views a step; small batches stay in the processor's cache", at_least=1)
    seed: int = setting(0, "seed of the batches")


@dataclass(frozen=True)
class Quality:
    """How the result is judged."""

    held_out: float = setting(0.1, "share of views never fitted", at_least=0, below=1, only={"held_out_views": (None,)})
    held_out_views: tuple[int, ...] | None = setting(None, "these views instead")
    seed: int = setting(0, "seed of the choice of views and of the noise to compare with")
    error_bar: bool = setting(True, "give the phase an error bar from the photon noise")
    halves: bool = setting(False, "reconstruct the even and the odd views, too, and correlate them")


@dataclass(frozen=True)
class NearSettings:
    """Every setting of near-field ptychography."""

    model: NearModel = section(NearModel)
    loss: Loss = section(Loss)
    optimiser: Optimiser = section(Optimiser, positions=2.0, background=10.0)
    solver: Solver = section(Solver, steps=2000)
    quality: Quality = section(Quality)

    def checked(self) -> "NearSettings":
        """Refuse engines that are not known, and what has no effect beside them.

        **Raises:** `InputError`.
        """
        _refuse_idle(self)
        return self


@dataclass(frozen=True)
class FarSettings:
    """Every setting of far-field ptychography."""

    model: Model = section(Model, background=False)
    loss: Loss = section(Loss)
    optimiser: Optimiser = section(Optimiser, learning_rate=0.08, constant=0.2)
    solver: Solver = section(Solver)
    quality: Quality = section(Quality)

    def checked(self) -> "FarSettings":
        """Refuse engines that are not known, and what has no effect beside them.

        **Raises:** `InputError`.
        """
        _refuse_idle(self)
        return self


def _refuse_idle(settings: Any) -> None:
    """Refuse settings that have no effect beside several others."""
    model, stages = settings.model, settings.solver.stages
    if not (model.probe or model.variations):
        refuse_changed(settings, ("optimiser.probe",), "with model.probe = false")
    if not (model.positions or model.drift):
        refuse_changed(settings, ("optimiser.positions",), "with model.positions = false")
    names = {name for name, _ in parse_stages(stages)} if stages else set()
    for name in names:
        engine(name)
    if names and names <= {"dm", "raar", "lm"}:
        idle = ("loss.function", "loss.tv", "loss.position_prior", "solver.batch_size", "optimiser.learning_rate")
        refuse_changed(settings, (*idle, "optimiser.constant"), f"with solver.stages = {', '.join(stages)}")


# ---------------------------------------------------------------------------------------------------- the problem
@dataclass(frozen=True)
class ScanProblem(Problem):
    """Views of a scan that can be used, with what is known of all views of the file."""

    kept: Any = ()  # which views of the file these are
    written: Any = ()  # positions of all views of the file, as they are meant
    saturation: float | None = None
    edges: bool = True  # whether the prior of sparse edges enters
    known_probe: bool = False  # whether the first probe is the file's

    def of(self, views: np.ndarray) -> "ScanProblem":
        """Make the problem of some views."""
        return super().of(views).replace(kept=self.kept[views])

    def into(self, part: Problem, views: np.ndarray) -> "ScanProblem":
        """Lay a solution for some views into the problem of all, and place those that were not fitted."""
        whole = super().into(part, views).replace(kept=self.kept)
        unseen = np.setdiff1d(np.arange(self.views), views)
        nominal, positions = self.data["nominal"], np.array(whole.model.positions)
        moved = positions[views] - nominal[views]
        for axis in (0, 1):  # errors drift smoothly: start where the neighbours in time lie
            positions[unseen, axis] = nominal[unseen, axis] + np.interp(unseen, views, moved[:, axis])
        model = whole.model.replace(positions=jnp.asarray(positions)).of_views(unseen)
        positions[unseen] = fit_places(model, pick_views(self.data["counts"], unseen), self.data["mask"])
        return whole.replace(model=whole.model.replace(positions=jnp.asarray(positions)))


def _cost(problem: ScanProblem, settings: Any) -> Callable[..., Any]:
    loss, edges = settings.loss, None
    if problem.edges and loss.tv != 0:
        measured = int(problem.views * np.mean(problem.data["mask"]) * np.prod(problem.data["counts"].shape[1:]))
        edges = SparseEdges(loss.tv, int(problem.model.well_seen().sum()), measured)
    return loss.function or ScanCost(edges, loss.position_prior, problem.saturation)


def _unknowns(model: Ptychography, settings: Any) -> dict[str, float]:
    """Name what is solved for, with its step at a learning rate of one."""
    rules, steps = settings.model, settings.optimiser
    factors = {"object": 1.0} | {name: getattr(steps, name) for name in ("probe", "positions", "background", "gain")}
    factors = {name: factor for name, factor in factors.items() if getattr(rules, name)}
    factors |= {name: steps.geometry for name in _GEOMETRY if getattr(rules, name, None) is True}
    if rules.drift:
        factors["drift"] = steps.positions
    if rules.variations:
        factors |= {"probe_variations": steps.probe, "variation_weights": 1.0}
    if rules.refine_spacing:
        factors["slice_spacing"] = steps.geometry
    return in_units(model, factors)


# ---------------------------------------------------------------------------------------------------- the modality
class NearFieldPtychography(looks.NearFieldPtychography, Modality):
    """Object, probe modes, positions and background of a scan in the near field."""

    settings = NearSettings

    def start(self, scan: Scan, settings: Any, console: Console) -> ScanProblem:
        """Leave out what would spoil the scan, mend its positions, and make the first guess."""
        scan, rules = scan.replace(method=self.name), settings.model
        report = check_frames(scan)
        good = report.apply(scan)
        for line in report.messages:
            console.say(line)
        if rules.check != "no":
            orientation = check_orientation(good)
            console.say(orientation.message)
            if rules.check == "auto":
                scan, good = orientation.apply(scan), orientation.apply(good)
        ordered = good.in_fft_order()
        mask = np.ones(good.frame_shape, bool) if ordered.mask is None else ordered.mask
        model = self.first_guess(good, ordered.counts, mask, rules, console)
        levels = (settings.loss.saturation, scan.saturation, report.saturation)
        problem = ScanProblem(
            model,
            {"counts": ordered.counts, "mask": mask, "nominal": np.asarray(model.positions)},
            ScanCost(),
            _unknowns(model, settings),
            per_view=model.by_view(),
            kept=report.views,
            written=np.asarray(scan.positions, float),
            saturation=next((level for level in levels if level is not None), None),
            known_probe=scan.probe is not None,
        )
        air = None if rules.air is None else air_rectangle(rules.air, model.well_seen())
        gauge = lambda model: model.fix_gauge(gain=rules.gain, air=air)
        return problem.replace(cost=_cost(problem, settings), gauge=gauge)

    def first_guess(self, scan: Scan, counts: Any, mask: np.ndarray, rules: Any, console: Console) -> Ptychography:
        """Make the model to start from, with the geometry that the settings ask for."""
        far = scan.far_field
        sampling = 1 if far else rules.oversampling or (2 if light_is_fine(counts, mask) else 1)
        optics = {} if far else {"oversampling": sampling, "border": rules.border}
        model = Ptychography.from_scan(
            scan, rules.modes, margin=rules.margin, slices=rules.slices, slice_spacing=rules.slice_spacing,
            refractive=rules.refractive, variations=rules.variations, **optics,
        )  # fmt: skip
        if not rules.background and scan.darks is None:
            model = model.replace(background=jnp.asarray(np.zeros(model.background.shape, np.float32)))
        geometry = {name: getattr(rules, name) for name in _GEOMETRY if hasattr(rules, name)}
        model = model.with_geometry(drift=rules.drift, **geometry)
        _say_start(scan, model, not far and rules.oversampling is None, console)
        return model

    def split(self, problem: Any, settings: Any) -> tuple[np.ndarray, np.ndarray]:
        """Choose the views that are never fitted; by name they are those of the file."""
        if settings.quality.held_out_views is None:
            return super().split(problem, settings)
        held = np.isin(problem.kept, split_views(len(problem.written), settings.quality)[1])
        return np.flatnonzero(~held), np.flatnonzero(held)

    def stages(self, problem: Any, settings: Any, console: Console) -> Work:
        """Yield one stage for each engine."""
        solver, optimiser = settings.solver, settings.optimiser
        coarse, epochs = epochs_of(problem, solver)
        planned = parse_stages(solver.stages or f"{optimiser.name}:{epochs}")
        cost = _cost(problem, settings)
        parts = lambda problem: {"unknowns": _unknowns(problem.model, settings), "cost": _cost(problem, settings)}

        def task_of(problem: ScanProblem, run: Run, label: str) -> EngineTask:
            return EngineTask(
                problem.data, problem.unknowns, cost, learning_rate=optimiser.learning_rate,
                constant=optimiser.constant, batch_size=solver.batch_size, seed=solver.seed, console=run.console,
                label=label, checkpoint=run.checkpoint, resume=run.resume, squares=SQUARES if coarse else None,
            )  # fmt: skip

        def stage(number: int, name: str, epochs: int) -> Stage:
            count = f" {number}/{len(planned)}" if len(planned) > 1 else ""
            label = f"ptychography: {name}{count}: step"

            def solve(problem: ScanProblem, run: Run) -> Outcome:
                end = run_engine(name, problem.model, epochs, task_of(problem, run, label), first=number == 1)
                return Outcome(problem.replace(model=end.value), end.history, end.ending, end.detail)

            return Stage(label, solve)

        if problem.model.far and not problem.known_probe and {"object", "probe"} <= set(problem.unknowns):
            label = "ptychography: defocus of the first probe"
            yield Stage(label, lambda problem, run: focused(problem, task_of(problem, run, label)), keeps=("probe",))
        if coarse:
            yield coarse_stage(optimiser.name, coarse, task_of, parts)
        for number, (name, epochs) in enumerate(planned, 1):
            yield stage(number, name, epochs)

    def judge(self, problem: Any, settings: Any) -> tuple[dict[str, Any], list[str]]:
        """Compare predicted with measured frames of views that gave nothing but their place and gain."""
        counts, mask = np.asarray(problem.data["counts"]), problem.data["mask"]
        predicted = matched_frames(problem.model, counts, mask)
        if problem.saturation is not None:
            predicted = np.where(counts >= problem.saturation, np.minimum(predicted, counts), predicted)
        figures, lines = held_out_figures(counts, predicted, mask, settings.quality.seed, f"{problem.views} views")
        return figures | {"held_out_views": problem.kept}, lines

    def verdict(self, problem: Any, scan: Scan, settings: Any) -> tuple[dict[str, Any], list[str]]:
        """Say what geometry was found, how much of the object was seen, and what the beam is made of."""
        model, lines = problem.model, []
        seen = model.well_seen()
        if model.advances_phase():
            lines.append(
                "the object advances the phase where it absorbs, as no matter does: the sign of the distance or "
                "the direction of the detector's axes is probably wrong"
            )
        solved = {n: v for n, v in model.geometry().items() if getattr(settings.model, n, None) is True}
        lines += [f"{n} found: {np.array2string(v, precision=5)}" for n, v in solved.items() if n != "travel"]
        power = np.sum(abs(np.asarray(model.probe)) ** 2, (1, 2))
        figures: dict[str, Any] = solved | {"oversampling": model.oversampling, "border": model.border}
        figures |= {"well_seen_fraction": float(seen.mean()), "mode_power": power / power.sum()}
        if problem.kept.size < len(problem.written):
            figures["views"] = problem.kept
        shares = ", ".join(f"{p:.1%}" for p in figures["mode_power"])
        return figures, [*lines, f"{seen.mean():.0%} of the object's field is seen well; probe modes carry {shares}"]

    def halves(self, start: Any, solved: Any, settings: Any) -> tuple[Any, Any]:
        """Make the problems of every other view, without the prior of edges, which would sharpen both alike."""
        return super().halves(start.replace(edges=False), solved, settings)

    def correlate(self, first: Any, second: Any, scan: Scan) -> tuple[dict[str, Any], str]:
        """Compare the phases of two halves where both have seen nearly all."""
        part = common_field(first.model.well_seen(), second.model.well_seen())
        images = [np.asarray(half.model.transmission())[(..., *part)] for half in (first, second)]
        one, other = (image.prod(0) if image.ndim == 3 else image for image in images)
        other, _ = quality.align(one, other)
        pixel = first.model.pixel_size
        correlation = quality.ring_correlation(np.angle(one), np.angle(other), pixel_size=pixel, realign=False)
        return correlation.as_quality(), f"two halves of the views: {correlation}"

    def error_bars(self, problem: Any, scan: Scan, settings: Any) -> tuple[dict[str, Quantity], list[str]]:
        """Give the phase's standard deviation by photon noise, from the Fisher information's diagonal, by the scale of
        the scan where positions were solved for, and where it changes within pixels as far as unseen views are missed.
        """
        if not settings.quality.error_bar:
            return {}, []
        model, (fitted, _) = problem.model, self.split(problem, settings)
        bar = uncertainty.phase_error_image(model, fitted, mask=problem.data["mask"], probes=4)
        holds = "photon noise, probe and other pixels taken as known"
        wave = np.asarray(model.transmission())
        if {"positions", "scan_matrix"} & set(problem.unknowns):
            places, nominal = model.all_places(), np.asarray(problem.data["nominal"], float)
            middle = nominal.mean(0) + (np.array(model.probe.shape[-2:]) - 1) / 2
            bar = np.hypot(bar, quality.scale_error(wave, places, nominal, tuple(middle)))
            holds += "; scale of the scan"
        if "held_out_deviance" in problem.figures:
            missed = problem.figures["held_out_deviance"] / problem.figures["noise_floor_deviance"]
            bar = np.hypot(bar, quality.edge_error(wave, missed))
            holds += "; edges, by what unseen views miss"
        bar = np.where(model.well_seen(), bar, np.nan)
        name = f"error bar of the phase ({holds})"
        phase = dataclasses.replace(model.quantities()["phase"], data=bar, long_name=name)
        return {"phase_error": phase}, [f"{name}: {np.nanmedian(bar):.2g} rad, median where seen well"]

    def quantities(self, problem: Any, scan: Scan, settings: Any) -> dict[str, Quantity]:
        """Give what is written; the phase where it was seen well, without what is left of a ramp in the air."""
        model = problem.model
        solved, seen = model.quantities(), model.well_seen()
        phase = np.where(seen, solved["phase"].data, np.nan)
        if settings.model.air is not None and phase.ndim == 2:
            rows, columns = np.nonzero(air_rectangle(settings.model.air, seen) & seen)
            plane = np.stack([np.ones(rows.size), rows, columns], 1)
            offset, down, right = np.linalg.lstsq(plane, phase[rows, columns], rcond=None)[0]
            phase -= offset + down * np.arange(phase.shape[0])[:, None] + right * np.arange(phase.shape[1])
        solved["phase"] = dataclasses.replace(solved["phase"], data=phase, long_name="phase where seen well")
        return solved | _of_all_views(solved, problem)


class FarFieldPtychography(looks.FarFieldPtychography, NearFieldPtychography):
    """Object, probe modes and positions of a scan in the far field."""

    settings = FarSettings


# ---------------------------------------------------------------------------------------------------- parts
def _say_start(scan: Scan, model: Ptychography, by_itself: bool, console: Console) -> None:
    pixel = "unknown pixel size" if model.pixel_size is None else f"pixel {model.pixel_size * 1e9:.2f} nm"
    counts = float(np.sum(abs(np.asarray(model.probe)) ** 2))
    console.say(
        f"{scan.views} views of {scan.frame_shape[0]} x {scan.frame_shape[1]}, {pixel}, object "
        f"{model.object.shape[-2]} x {model.object.shape[-1]}; probe power set to the mean frame, {counts:.4g} counts"
    )
    if by_itself and model.oversampling > 1:
        console.say(
            "the light is finer than a detector pixel: object on pixels half as large (model.oversampling=1 to "
            "keep the detector's)"
        )
    if not model.far:
        shape, distance = (model.probe.shape[-2], model.probe.shape[-1]), float(model.distance)
        report = operators.sampling(shape, pixel_size=model.pixel_size, wavelength=model.wavelength, distance=distance)
        console.say(f"effective distance {distance * 1e3:.4g} mm; {report.message}")


def _of_all_views(solved: dict[str, Quantity], problem: ScanProblem) -> dict[str, Quantity]:
    """Positions and gain of all views of the file: a view that was left out lies where its neighbours in time say, and
    has no gain."""
    kept, written, total = problem.kept, problem.written, len(problem.written)
    if kept.size == total:
        return {}
    positions, pixel = solved["positions"].data, solved["positions"].pixel_size or 1.0
    nominal, places = problem.data["nominal"] * pixel, np.empty_like(written)
    for axis in (0, 1):
        slope, shift = np.polyfit(written[kept, axis], nominal[:, axis], 1)
        moved = np.interp(np.arange(total), kept, positions[:, axis] - nominal[:, axis])
        places[:, axis] = slope * written[:, axis] + shift + moved
    places[kept] = positions
    gain = np.zeros(total, solved["gain"].data.dtype)
    gain[kept] = solved["gain"].data
    both = {"positions": places, "gain": gain}
    return {name: dataclasses.replace(solved[name], data=values) for name, values in both.items()}

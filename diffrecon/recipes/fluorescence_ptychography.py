"""Fluorescence and ptychography at once: areal densities of elements, sharp as the phase, in one cost with the frames.

Ptychography first, then elements that explain its object and the counts, then frames and counts in one sum of two
problems that share elements, probe and positions; judged on positions that gave neither frames nor counts.
"""

import dataclasses
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax.numpy as jnp
import numpy as np

from .. import operators, quality
from .._console import Console
from .._result import Quantity
from ..errors import InputError
from ..modality import Modality, Outcome, Pair, Problem, Run, Stage, Work, put
from ..models import ElementCounts, ElementFrames, Elements, Ptychography, check_orientation
from ..prepare import check_frames
from ..quality.held_out import held_out_figures
from ..scan import Scan
from ..settings import section, setting
from ..solvers import (
    EngineTask,
    amplitude_cost,
    fit_places,
    in_units,
    matched_frames,
    minimise,
    run_engine,
)
from ..solvers.scans import decaying_rule
from . import looks
from ._element_stages import (
    CountsCost,
    areal_error,
    expected_anew,
    first_elements,
    offset_cost,
    separation,
    separation_cost,
    with_amounts,
)
from ._far_start import best_defocus

_OFFSET_STEPS = 60
_OFFSET = 0.5  # of counts beside frames that is worth a word [pixel]
_ROUNDS = 3  # of elements; between them smooth rests are expected as rough as they were found
_OF_SAMPLE = ("elements.white", "elements.rest", "elements.plane")


# ---------------------------------------------------------------------------------------------------- settings
@dataclass(frozen=True)
class Model:
    """What is described and what is solved for."""

    modes: int = setting(1, "incoherent probe modes", at_least=1)
    margin: float = setting(8.0, "around the scanned area, where the file gives no object", unit="pixel", at_least=0)
    positions: bool = setting(True, "solve for the positions")
    check: str = setting("auto", "mend, name or ignore flipped or swapped positions", choices=("auto", "report", "no"))
    travel: tuple[float, float] | None = setting(None, "path of a fly scan in an exposure; the file's", unit="pixel")
    gain: bool | None = setting(None, "solve for the brightness of each view; by default without a monitor")


@dataclass(frozen=True)
class Solver:
    """How long each stage takes, and how much edges cost."""

    first: int = setting(1200, "steps of ptychography alone", at_least=1)
    separation: int = setting(600, "steps of the elements that explain its object and the counts", at_least=1)
    steps: int = setting(400, "steps of frames and counts in one cost; 0 leaves them out", at_least=0)
    batch_size: int = setting(10, "views a step of ptychography and of the one cost", at_least=1)
    edges: float = setting(1.0, "times the weight of edges that the phase itself makes most likely", at_least=0)
    seed: int = setting(0, "of the batches")


@dataclass(frozen=True)
class Quality:
    """How the result is judged."""

    held_out: float = setting(0.1, "share of positions whose frames and counts are never fitted", at_least=0, below=1)
    seed: int = setting(0, "of the choice of positions and of the noise to compare with")
    error_bar: bool = setting(True, "give areal densities an error bar from photon noise")


@dataclass(frozen=True)
class Settings:
    """Every setting of the method."""

    model: Model = section(Model)
    solver: Solver = section(Solver)
    quality: Quality = section(Quality)


# ---------------------------------------------------------------------------------------------------- the problem
@dataclass(frozen=True)
class Joint(Problem):
    """Frames and counts in one sum, with the names of the elements and what is known of all views of the file."""

    names: tuple[str, ...] = ()
    kept: Any = ()  # which views of the file these are
    known_probe: bool = False

    @property
    def frames(self) -> dict[str, Any]:
        """Give the data of the frames by the names that ptychography has for them."""
        return {name: self.data[f"a_{name}"] for name in ("counts", "mask", "nominal")}

    @property
    def counts(self) -> dict[str, Any]:
        """Give the data of the elements."""
        return {name: self.data[f"b_{name}"] for name in ("counts", "seen")}

    def of(self, views: np.ndarray) -> "Joint":
        """Make the problem of some views."""
        return super().of(views).replace(kept=self.kept[views])

    def into(self, part: Problem, views: np.ndarray) -> "Joint":
        """Lay a solution for some views into the problem of all, and place those that were not fitted."""
        whole = super().into(part, views).replace(kept=self.kept)
        solved = {"first.elements": part.model.first.elements, "second.offset": part.model.second.offset}
        whole = whole.replace(model=put(whole.model, solved))
        unseen = np.setdiff1d(np.arange(self.views), views)
        optics = whole.model.first.optics
        if "first.optics.positions" in self.unknowns:
            nominal, positions = self.data["a_nominal"], np.array(optics.positions)
            moved = positions[views] - nominal[views]
            for axis in (0, 1):
                positions[unseen, axis] = nominal[unseen, axis] + np.interp(unseen, views, moved[:, axis])
            scan = whole.model.first.replace(optics=optics.replace(positions=jnp.asarray(positions))).scan()
            frames = np.asarray(self.data["a_counts"][unseen])
            positions[unseen] = fit_places(scan.of_views(unseen), frames, self.data["a_mask"])
            whole = whole.replace(model=put(whole.model, {"first.optics.positions": jnp.asarray(positions)}))
        first, second = whole.model.both()
        return whole.replace(model=Pair(first, second, whole.model.tied))


# ---------------------------------------------------------------------------------------------------- the modality
class FluorescencePtychography(looks.FluorescencePtychography, Modality):
    """Areal densities [g/cm^2] of elements, object and probe, from frames and counts at the same positions."""

    settings = Settings

    def start(self, scan: Scan, settings: Settings, console: Console) -> Joint:
        """Leave out what would spoil the scan, put an empty object into a beam made of the mean frame."""
        scan = scan.replace(method=self.name)
        report = check_frames(scan)
        good = _mended(report.apply(scan), settings.model.check, console).in_fft_order()
        counts, lines = looks.counted(good)
        for line in [*report.messages, *lines]:
            console.say(line)
        table, rules = looks.elements_of(good), settings.model
        optics = _optics(good, rules)
        if optics.wavelength is None or optics.pixel_size is None:
            raise InputError(f'{scan.name}: the energy is missing: --set geometry.energy="10 keV"')
        index = 0.02 * np.pi / optics.wavelength * np.stack([table["delta"], table["beta"]])
        elements = Elements.empty((optics.object.shape[-2], optics.object.shape[-1]), index)
        mask = np.ones(good.frame_shape, bool) if good.mask is None else good.mask
        frames = {"counts": good.counts, "mask": mask, "nominal": np.asarray(optics.positions)}
        solved = {"optics.probe": 1.0} | ({"optics.positions": 1.0} if rules.positions else {})
        gain = "monitor" not in good.extra if rules.gain is None else rules.gain
        solved |= {"optics.gain": 1.0} if gain else {}
        unknowns = dict.fromkeys(_OF_SAMPLE, 1.0) | solved
        by_view = tuple(f"optics.{name}" for name in optics.by_view())
        photons = table.get("photons") or _photons(good, console)
        model = ElementCounts(
            elements, optics, jnp.asarray(table["emission"], jnp.float32), jnp.asarray(photons, jnp.float32),
            jnp.zeros(2),
        )  # fmt: skip
        one = Problem(ElementFrames(elements, optics), frames, amplitude_cost, unknowns, per_view=by_view)
        two = Problem(model, counts, CountsCost(int(mask.sum())), unknowns, per_view=by_view)
        both = one + two
        fields = {field.name: getattr(both, field.name) for field in dataclasses.fields(both)}
        fields["model"] = Pair(both.model.first, both.model.second, ("elements", "optics"))  # all that both have is one
        console.say(
            f"{good.views} views of {good.frame_shape[0]} x {good.frame_shape[1]}, pixel {optics.pixel_size * 1e9:.2f} "
            f"nm, object {optics.object.shape[-2]} x {optics.object.shape[-1]}; {', '.join(table['names'])}"
        )
        return Joint(**fields, names=tuple(table["names"]), kept=report.views, known_probe=scan.probe is not None)

    def stages(self, problem: Joint, settings: Settings, console: Console) -> Work:
        """Ptychography, elements that explain it, then all in one cost."""
        keeps = ("first.optics.object", "first.optics.probe", "first.optics.positions", "first.optics.gain")
        yield Stage("ptychography: step", partial(_alone, settings), keeps)
        keeps = tuple(f"first.elements.{field.name}" for field in dataclasses.fields(Elements))
        keeps = (*keeps, "second.offset")
        for number in range(_ROUNDS):
            yield Stage(_round(number), partial(_separated, settings, number), keeps)
        if settings.solver.steps:
            yield Stage("frames and counts: step", partial(_together, settings))

    def judge(self, problem: Joint, settings: Settings) -> tuple[dict[str, Any], list[str]]:
        """Compare frames and counts that were never fitted with what the model says of them."""
        model, seed = problem.model, settings.quality.seed
        frames, which = np.asarray(problem.data["a_counts"]), f"{problem.views} views"
        predicted = matched_frames(model.first.scan(), frames, problem.data["a_mask"])
        figures, lines = held_out_figures(frames, predicted, problem.data["a_mask"], seed, which)
        counts, seen = problem.data["b_counts"], problem.data["b_seen"]
        expected = np.asarray(model.both()[1](np.arange(problem.views)), float)
        for column, name in enumerate(problem.names):
            part = seen[:, column]
            if part.any():
                own = expected[part, column]
                found = quality.deviance(counts[part, column], own, True)
                floor = quality.noise_floor(own, True, metric=quality.deviance, seed=seed)
                figures |= {f"held_out_deviance_{name}": found, f"noise_floor_deviance_{name}": floor}
                lines.append(
                    f"held-out Poisson deviance a count of {name} {found:.3f} (photon noise alone {floor:.3f})"
                )
        return figures | {"held_out_views": problem.kept}, lines

    def verdict(self, problem: Joint, scan: Scan, settings: Settings) -> tuple[dict[str, Any], list[str]]:
        """Give the mass of every element in the field that was seen, and what of the phase is none of theirs."""
        model, figures = problem.model.first, {}
        elements = model.elements
        seen, pixel = np.asarray(elements.seen), 100 * float(model.optics.pixel_size)
        areal, words = np.asarray(elements.areal(), float), []
        for name, density in zip(problem.names, areal, strict=True):
            figures[f"{name}_mass"] = density[seen].sum() * pixel**2
            words.append(f"{name}: {figures[f'{name}_mass']:.4g} g, at most {density[seen].max():.3g} g/cm^2")
        rest = np.asarray(elements.rests())[:, seen].std(1)
        figures |= {"rest_phase": float(rest[0]), "rest_attenuation": float(rest[1])}
        words.append(
            f"beside these elements the object has a smooth rest of {rest[0]:.3g} rad (phase) and {rest[1]:.2g} "
            "(attenuation), rms: matter that does not fluoresce"
        )
        offset = np.asarray(problem.model.second.offset, float)
        figures["counts_offset"] = offset
        if np.linalg.norm(offset) > _OFFSET:
            words.append(
                f"counts lie {offset[0]:.2f} rows and {offset[1]:.2f} columns [pixel] beside the frames, or more: do "
                "the clocks of the two detectors disagree?"
            )
        figures["well_seen_fraction"] = float(seen.mean())
        if len(problem.kept) < scan.views:
            figures["views"] = problem.kept
        return figures, words

    def error_bars(self, problem: Joint, scan: Scan, settings: Settings) -> tuple[dict[str, Quantity], list[str]]:
        """Give standard deviations by photon noise: of each pixel, with the correlations between its elements."""
        if not settings.quality.error_bar:
            return {}, []
        model = problem.model.first
        bars, pixel = (
            areal_error(problem.model.both()[1], model.scan().light(), problem.counts),
            model.optics.pixel_size,
        )
        label = "error bar of {} (photon noise, other pixels taken as known)"
        return {
            f"{name}_error": Quantity(bar, "g/cm2", ("y", "x"), pixel, label.format(name), "data")
            for name, bar in zip(problem.names, bars, strict=True)
        }, []

    def quantities(self, problem: Joint, scan: Scan, settings: Settings) -> dict[str, Quantity]:
        """Give phase and areal densities on the object's grid, object, probe and positions."""
        model = problem.model.first
        solved, seen = model.scan().quantities(), np.asarray(model.elements.seen)
        areal, pixel = np.asarray(model.elements.areal()), model.optics.pixel_size
        phase = dataclasses.replace(solved["phase"], data=np.where(seen, solved["phase"].data, np.nan))
        maps = {
            name: Quantity(np.where(seen, w, 0), "g/cm2", ("y", "x"), pixel, f"areal density of {name}", "image")
            for name, w in zip(problem.names, areal, strict=True)
        }
        rest = Quantity(
            np.where(seen, np.asarray(model.elements.rests())[0], np.nan), "rad", ("y", "x"), pixel,
            "phase of no element", "data",
        )  # fmt: skip
        others = {name: solved[name] for name in ("object", "probe", "positions", "gain")}
        return {"phase": phase} | maps | others | {"rest": rest}


# ---------------------------------------------------------------------------------------------------- input
def _mended(scan: Scan, check: str, console: Console) -> Scan:
    """Put positions right that are flipped or swapped, where that is wanted."""
    if check == "no":
        return scan
    found = check_orientation(scan)
    console.say(found.message)
    return found.apply(scan) if check == "auto" else scan


def _photons(scan: Scan, console: Console) -> float:
    """The mean counts of a frame, where nobody knows the photons."""
    mean = float(np.mean(np.sum(np.asarray(scan.counts, float), (1, 2))))
    console.say(f"photons of a view not known (photons_mean): taken as the {mean:.4g} counts of a mean frame")
    return mean


def _optics(scan: Scan, rules: Model) -> Ptychography:
    """Probe and places of the scan; on the grid of the file's object where it has one that holds all patches."""
    optics = Ptychography.from_scan(scan, rules.modes, margin=rules.margin)
    shape, places = scan.extra.get("object_shape"), np.asarray(scan.positions, float)
    if shape is not None and scan.positions_unit == "pixel":
        shape = tuple(int(n) for n in np.ravel(shape))
        room = np.subtract(shape, scan.frame_shape)
        if len(shape) == 2 and (places.min(0) >= 1).all() and (places.max(0) <= room - 1).all():
            empty = jnp.ones(shape, optics.object.dtype)
            optics = optics.replace(object=empty, positions=jnp.asarray(places, jnp.float32))
    if scan.darks is None:
        optics = optics.replace(background=jnp.zeros(optics.background.shape, jnp.float32))
    monitor = scan.extra.get("monitor")
    if monitor is not None:
        gain = np.asarray(monitor, float) / np.mean(monitor)
        optics = optics.replace(gain=jnp.asarray(gain, jnp.float32))
    travel = scan.extra.get("travel") if rules.travel is None else rules.travel
    return optics if travel is None else optics.with_geometry(travel=tuple(float(t) for t in travel))


# ---------------------------------------------------------------------------------------------------- solve
def _alone(settings: Settings, problem: Joint, run: Run) -> Outcome:
    """Ptychography by itself, from the defocus that fits best."""
    optics, solver = problem.model.first.optics, settings.solver
    names = {name.removeprefix("first.optics.") for name in problem.unknowns} & {"probe", "positions", "gain"}
    steps = {"object": 1.0, "probe": 1.0, "positions": 0.25, "gain": 0.1}
    factors = {name: step for name, step in steps.items() if name in {"object", *names}}
    task = EngineTask(
        problem.frames, in_units(optics, factors), amplitude_cost, learning_rate=0.08, constant=0.2,
        batch_size=solver.batch_size, seed=solver.seed, console=run.console, label="ptychography: step",
        checkpoint=run.checkpoint, resume=run.resume,
    )  # fmt: skip
    if not problem.known_probe:
        still = dataclasses.replace(task, unknowns=in_units(optics, {"object": 1.0, "probe": 1.0}))
        optics = best_defocus(optics, still, run.console)
    epochs = max(10, -(-solver.first // -(-problem.views // solver.batch_size)))
    end = run_engine("adam", optics, epochs, task)
    optics = end.value.fix_gauge(gain="gain" in names)
    model = put(problem.model, {"first.optics": optics})
    return Outcome(problem.replace(model=model), end.history, end.ending, end.detail)


def _separated(settings: Settings, number: int, problem: Joint, run: Run) -> Outcome:
    """Elements that explain the object of ptychography and the counts in the light of its probe, in rounds."""
    counts, steps = problem.model.both()[1], -(-settings.solver.separation // _ROUNDS)
    optics, rule = counts.optics, decaying_rule("adam", 0.1, _OFFSET_STEPS, 0.5)
    if number:
        placed = minimise(offset_cost, counts, problem.counts, rule, steps=_OFFSET_STEPS, unknowns=("offset",))
        counts = placed.value
    model, data = separation(counts, np.asarray(optics.object), optics.light(), problem.counts, optics.well_seen())
    elements = expected_anew(counts.elements) if number else first_elements(model, data, settings.solver.edges)
    solution = minimise(
        separation_cost, model.replace(counts=counts.replace(elements=elements)), data,
        decaying_rule("adam", 1.0, steps, 0.2), steps=steps, unknowns=[f"counts.{name}" for name in _OF_SAMPLE],
        console=run.console, label=_round(number), checkpoint=run.checkpoint, resume=run.resume,
    )  # fmt: skip
    elements = with_amounts(solution.value.counts, problem.counts)
    model = put(problem.model, {"first.elements": elements, "second.offset": counts.offset})
    history = solution.history / (2 * problem.views * problem.data["a_mask"].sum())  # as the frames' cost is
    return Outcome(problem.replace(model=model), history, solution.ending, solution.detail)


def _round(number: int) -> str:
    return f"elements {number + 1}/{_ROUNDS}: step"


def _together(settings: Settings, problem: Joint, run: Run) -> Outcome:
    """Frames and counts in one cost."""
    solver, optics = settings.solver, problem.model.first.optics
    amplitude = operators.beam_amplitude(optics.probe)
    steps = {"probe": 0.1 * amplitude, "positions": 0.05, "gain": 0.01}
    unknowns = {f"first.{name}": 1.0 for name in _OF_SAMPLE}
    unknowns |= {n: steps[n.removeprefix("first.optics.")] for n in problem.unknowns if n.startswith("first.optics.")}
    solution = minimise(
        problem.cost, problem.model, problem.data, decaying_rule("adam", 0.03, solver.steps, 0.3), steps=solver.steps,
        batch_size=solver.batch_size, unknowns=unknowns, seed=solver.seed, console=run.console,
        label="frames and counts: step", checkpoint=run.checkpoint, resume=run.resume,
    )  # fmt: skip
    return Outcome(problem.replace(model=solution.value), solution.history, solution.ending, solution.detail)

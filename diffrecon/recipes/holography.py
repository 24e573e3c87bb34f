"""Holography: shifts by registration, contrast transfer function as first guess, then the full model by Gauss-Newton
steps, with priors learnt from the data.

The cost is the residual of amplitudes plus a Gaussian prior: the spectrum of every map falls as a power of the
frequency. The powers are fitted to what the data have determined, so that no regularisation weight is left to choose;
details are then kept sharp by the logarithm of the total variation, which needs no weight either. One material comes
first; at its beginning the curvature is raised by `damping`: the lowest frequencies, which holograms show least, wait
until the details that scatter into them are right. Where one material leaves a residual, attenuation of its own or the
other named materials follow, and the numbers of the geometry that are to be refined go along.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from .. import losses, physics, prepare, quality, solvers
from .._console import Console
from .._model import Batch
from .._result import Quantity
from ..errors import InputError
from ..modality import Modality, Outcome, Problem, Run, Stage, Work, put
from ..models import Holography
from ..priors import PowerLaw
from ..scan import Scan
from ..settings import section, setting
from ..solvers import HologramCoordinates, HologramCurvature

GEOMETRY = ("shifts", "rotations", "stretch", "distances", "source_blur", "detector_blur", "flux")
_HALVES = ("photons", "distances")
_BLURS = {"source_blur", "detector_blur"}  # by marginal likelihood: the most probable object explains any blur away
_WIDER = 1.3  # window over the frames, for a beam of unknown wave
_HOLDS = "photon noise and prior; constant, ratio of delta to beta and geometry taken as right"
_MAPS = ("phase", "attenuation")  # of the model; the second where one material does not explain the data


@dataclass(frozen=True)
class Prepare:
    """What is done to the frames."""

    outliers: float = setting(10.0, "leave out pixels that stand out by so many sigma; 0 keeps all", at_least=0)


@dataclass(frozen=True)
class Model:
    """What object, beam and geometry may be."""

    delta_beta: float | None = setting(None, "of the main material; by default that of light organic matter", above=0)
    material: str | None = setting(None, 'instead: formula and density [g/cm^3], "SiO2, 2.2" (needs xraydb)')
    materials: dict | None = setting(None, 'instead: several, {resin = "C5H8O2, 1.19"}; two tell their thicknesses')
    attenuation: bool | None = setting(None, "that delta_beta does not explain; by default where a residual is left")
    attenuation_scale: float = setting(0.15, "its size to begin with, in units of the phase", above=0)
    refine: tuple[str, ...] | None = setting(
        None, f"to solve for, of {', '.join(GEOMETRY)}; by default shifts that were registered"
    )
    probe: bool | str | None = setting(
        None,
        "wave of a beam with strong structure, from the flats of all distances, and from holograms in turn with the "
        "object; by default flats divide",
        choices=(False, "flats", "refine"),
    )
    register: bool | None = setting(None, "find the shifts between frames; by default where none are given")


@dataclass(frozen=True)
class Loss:
    """What is minimised."""

    function: Callable[..., Any] | None = setting(None, "a function (model, batch) -> scalar; amplitudes by default")
    negative: float = setting(0.25, "weight of phases above vacuum, in units of the flux", at_least=0)
    tv: float = setting(1.0, "strength of the total variation, in units of photon noise; 0 for none", at_least=0)
    vacuum: float = setting(0.1, "weight of squares where nothing is, as of an isolated object; 0 for none", at_least=0)


@dataclass(frozen=True)
class Solver:
    """How long it is solved."""

    damping: tuple[float, ...] = setting((1.0, 0.1), "of the rounds of one strong material [flux]", at_least=0)
    rounds: int = setting(2, "with everything to be solved for; one where the phase is weak", at_least=0)
    tv_rounds: int = setting(2, "with the total variation", at_least=0)
    steps: int = setting(4, "Gauss-Newton steps a round", at_least=1)
    cg_steps: int = setting(20, "conjugate gradients a step; fewer in the rounds of one material", at_least=1)


@dataclass(frozen=True)
class Quality:
    """How the result is judged."""

    error_bar: bool = setting(True, "of the phase, from photon noise")
    halves: bool | str | None = setting(
        None, "correlate two more solves, of half the photons or distances", choices=(False, True, *_HALVES)
    )
    seed: int = setting(0, "of noise floors, error bars and halves")


@dataclass(frozen=True)
class Settings:
    """Every setting of the method."""

    prepare: Prepare = section(Prepare)
    model: Model = section(Model)
    loss: Loss = section(Loss)
    solver: Solver = section(Solver)
    quality: Quality = section(Quality)


@dataclass(frozen=True)
class Holograms(Problem):
    """The problem with what the last round took for granted.

    **Fields:** power `laws` of the maps that are solved for; `curvature`; `refine`: numbers of the geometry; `settled`:
    shifts have just been registered; `named` materials (delta, beta); `lines` for the user; `half` of the data;
    `excess` of the residual over photon noise.
    """

    laws: tuple[PowerLaw, ...] = ()
    curvature: HologramCurvature | None = None
    refine: tuple[str, ...] = ()
    settled: bool = False
    named: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    lines: tuple[str, ...] = ()
    half: bool = False
    scan: Any = None  # with flats, for the wave of the beam

    def with_phase_law(self) -> "Holograms":
        """Refit the law of the phase to the solution."""
        law = self.laws[0].refined(self.model.phase, self.known().of_phase(self.model))
        return self.replace(laws=(law, *self.laws[1:]))

    def known(self) -> HologramCurvature:
        """Give the curvature of the last round, or that of a weak object."""
        return solvers.transfer_curvature(self.model) if self.curvature is None else self.curvature

    def coordinates(self, settings: Settings, **options: Any) -> HologramCoordinates:
        """Make the white coordinates of a round."""
        options |= {"negative": settings.loss.negative}
        return HologramCoordinates.about(self.model, self.known(), self.laws, **options)

    def judged(self, seed: int) -> dict[str, Any]:
        """Judge every hologram: Poisson deviance, and that of photon noise alone."""
        prediction, mask = self.predict(np.arange(self.views)).astype(float), self.data["mask"]
        pairs = zip(self.data["counts"], prediction, strict=True)
        floor = [quality.noise_floor(p, mask, metric=quality.deviance, seed=seed) for p in prediction]
        found = np.array([quality.deviance(n, p, mask) for n, p in pairs])
        return {"deviance": found, "noise_floor_deviance": np.array(floor)}

    def excess(self, seed: int) -> float:
        """Compute the largest deviance of a hologram over that of photon noise alone."""
        figures = self.judged(seed)
        return float((figures["deviance"] / figures["noise_floor_deviance"]).max())


class HolographyMethod(Modality):
    """Phase and attenuation of an isolated object from its holograms at one or several distances."""

    name, settings = "holography", Settings
    needs = {"geometry": ("the geometry (energy, distances)", "a file with geometry")}
    wishes = ("flux",)

    def start(self, scan: Scan, settings: Settings, console: Console) -> Holograms:
        """Put vacuum into the scan's geometry and beam, register the frames, leave out outliers."""
        chosen, threshold = settings.model, settings.prepare.outliers
        for name in set(chosen.refine or ()) - set(GEOMETRY):
            raise InputError(f"model.refine: {name!r} is none of {', '.join(GEOMETRY)}")
        model, named = _vacuum(scan, chosen)
        geometry, *lines = model.describe()
        console.say(geometry)
        counts, mask = np.asarray(scan.counts), np.ones(scan.frame_shape, bool) if scan.mask is None else scan.mask
        dark = np.asarray(model.dark, float)
        if threshold:
            counts, mask, line = prepare.mend_outliers(counts, _beam(model), mask, dark=dark, threshold=threshold)
            lines.append(_warning(line, console))
        scan = scan.replace(counts=counts, mask=mask)  # a hot pixel would pull what is fitted to flats and frames, too
        model = _lit(scan, model, chosen, console)
        register = "shifts" not in scan.extra if chosen.register is None else chosen.register
        settled = register and scan.views > 1
        if settled:
            shifts, report = prepare.register_distances(
                counts, np.asarray(_beam(model)), pixels=np.asarray(model.pixels),
                distances=np.asarray(model.distances, float), wavelength=model.wavelength, dark=dark,
                delta_beta=float(model.delta_beta), mask=mask, start=np.asarray(model.shifts, float),
            )  # fmt: skip
            model = model.replace(shifts=jnp.asarray(shifts, model.shifts.dtype))
            lines.append(_warning(report.message, console))
        refine = chosen.refine if chosen.refine is not None else ("shifts",) if settled else ()
        return Holograms(
            model.with_unknowns(refine), {"counts": counts, "mask": mask}, _cost(settings),
            dict.fromkeys((*_MAPS, *refine), 1.0), refine=refine, settled=settled, named=named,
            lines=tuple(filter(None, lines)), scan=scan,
        )  # fmt: skip

    def stages(self, problem: Holograms, settings: Settings, console: Console) -> Work:
        """Solve, and where the beam's wave is to be refined solve again with the wave from flats and holograms."""
        problem = yield from _retrieved(problem, settings, console)
        for _ in range(2 if settings.model.probe == "refine" and not problem.half else 0):
            scan = problem.scan
            lit = prepare.illumination_from_flats(
                problem.model, prepare.flats_of_views(scan), scan.darks, counts=problem.data["counts"],
                mask=problem.data["mask"], console=console,
            )  # fmt: skip
            problem = yield from _retrieved(problem.replace(model=_emptied(lit)), settings, console)
        return problem

    def verdict(self, problem: Holograms, scan: Scan, settings: Settings) -> tuple[dict[str, Any], list[str]]:
        """Judge every hologram, and say what became of phase and geometry."""
        model, figures = problem.model, problem.judged(settings.quality.seed)
        for name in problem.refine:  # blurs enter squared: their sign means nothing
            value = np.asarray(getattr(model, name), float)
            figures[name] = np.abs(value) if name in _BLURS else value
        if problem.laws:
            figures["prior_slope"] = problem.laws[0].slope
        ratios = figures["deviance"] / figures["noise_floor_deviance"]
        missed = "" if ratios.max() < 1.1 else "; above 1.1 the model misses something: drift, blur, flux or distance"
        shown = ", ".join(f"{r:.3f}" for r in ratios)
        lines = [f"Poisson deviance over photon noise alone, for each hologram: {shown}{missed}"]
        lines.append(f"phase down to {float(jnp.min(model.total_phase())):.3f} rad")
        if "shifts" in problem.refine:
            places = ", ".join(f"({y:.2f}, {x:.2f})" for y, x in figures["shifts"])
            lines.append(f"shifts of the frames [their pixels]: {places}")
        if len(problem.named) > 2:
            lines.append(
                f"{len(problem.named)} materials are named: phase and attenuation are two numbers a pixel and tell the "
                "thicknesses of two materials, not of more"
            )
        return figures, [*lines, *problem.lines]

    def quantities(self, problem: Holograms, scan: Scan, settings: Settings) -> dict[str, Quantity]:
        """Give phase, attenuation and wave, and thicknesses where one or two materials are named."""
        return problem.model.quantities() | problem.model.thicknesses(problem.named)

    def error_bars(self, problem: Holograms, scan: Scan, settings: Settings) -> tuple[dict[str, Quantity], list[str]]:
        """Give the error bar of the phase from photon noise and prior, grown where the model misses something.

        The prior is the power law alone: total variation, as a Gaussian about its solution, says too much.
        """
        if not settings.quality.error_bar:
            return {}, []
        seed = settings.quality.seed
        coordinates = problem.coordinates(settings, vacuum=settings.loss.vacuum)
        deviation = solvers.posterior_deviation(
            solvers.hologram_residual, coordinates, _device(problem.data), seed, field=problem.model.frame
        )
        bar = deviation[0] * np.sqrt(max(problem.excess(seed), 1.0))
        bar, name = problem.model.in_view(bar), "error bar of the phase"
        quantity = Quantity(bar, "rad", ("y", "x"), problem.model.pixel_size, f"{name}, {_HOLDS}", "image")
        return {"phase_error": quantity}, [f"{name}: {np.median(bar):.2g} rad in the median ({_HOLDS})"]

    def halves(self, start: Holograms, solved: Holograms, settings: Settings) -> tuple[Holograms, Holograms]:
        """Halve the photons or deal the distances, in the geometry of the whole and without total variation, which
        would sharpen both alike."""
        counts, model = start.data["counts"], _emptied(solved.model)
        whole = start.replace(half=True, refine=(), settled=True, named={})
        if settings.quality.halves == "distances":
            if start.views < 2:
                raise InputError("quality.halves = distances: there is one distance, two at least are needed")
            order = np.argsort(np.asarray(model.distances).mean(1), kind="stable")
            deal = (np.sort(order[::2]), np.sort(order[1::2]))
            parts = [(model.of_views(views), counts[views]) for views in deal]
        else:
            first = np.random.default_rng(settings.quality.seed).binomial(np.rint(counts).astype(np.int64), 0.5)
            model = model.replace(flux=0.5 * model.flux, dark=0.5 * model.dark)
            parts = [(model, part.astype(np.float32)) for part in (first, np.rint(counts) - first)]
        first, second = (whole.replace(model=m, data={**start.data, "counts": c}) for m, c in parts)
        return first, second

    def image(self, problem: Holograms) -> np.ndarray:
        """Give the phase."""
        return np.asarray(problem.model.total_phase())

    def correlate(self, first: Holograms, second: Holograms, scan: Scan) -> tuple[dict[str, Any], str]:
        """Correlate the phases of the halves on rings."""
        kind = "photons" if first.views == scan.views else "distances"
        measure = quality.shell_correlation if kind == "photons" else quality.ring_correlation
        correlation = measure(self.image(first), self.image(second), pixel_size=first.model.pixel_size)
        return correlation.as_quality(), f"two halves of the {kind}, without total variation: {correlation}"


# ------------------------------------------------------------------------------------------ start
def _vacuum(scan: Scan, chosen: Model) -> tuple[Holography, dict[str, tuple[float, float]]]:
    """Make vacuum of the main material, and the named materials (delta, beta), the one of largest delta/beta first."""
    energy = scan.geometry.energy if scan.geometry is not None else None
    texts = (chosen.materials or {}).items()
    named = {name: physics.refraction(text, energy, f"model.materials.{name}") for name, text in texts}
    named = dict(sorted(named.items(), key=lambda item: -item[1][0] / item[1][1]))
    ratios = [delta / beta for delta, beta in named.values()]
    ratio = ratios[0] if ratios else physics.delta_beta_ratio(energy, chosen.delta_beta, chosen.material)
    return Holography.from_scan(scan, delta_beta=ratio, wider=_WIDER if chosen.probe else 1.0), named


def _beam(model: Holography) -> Array:
    """Give the empty beam of every view without the dark [counts]: a number, or an image, a view."""
    return model.flux if model.probe is None else _wave_intensity(model)


@eqx.filter_jit
def _wave_intensity(model: Holography) -> Array:
    return model.empty_beam(np.arange(len(model.pixels))) - model.dark


def _lit(scan: Scan, model: Holography, chosen: Model, console: Console) -> Holography:
    """Light the model by the beam's wave, or by the best combination of the flats where there are several."""
    if chosen.probe:
        flats = prepare.flats_of_views(scan)
        return prepare.illumination_from_flats(model, flats, scan.darks, mask=scan.mask, console=console)
    if scan.flats is None or len(scan.flats) < 3:
        return model
    combined = prepare.combine_flats(scan.counts, scan.flats, scan.darks)
    console.say(combined.message)
    return model.replace(flux=jnp.asarray(combined.light, model.flux.dtype))


def _emptied(model: Holography) -> Holography:
    return model.replace(phase=jnp.zeros_like(model.phase), attenuation=jnp.zeros_like(model.attenuation))


def _warning(line: str, console: Console) -> str:
    """Say a line, and return it where the verdict should say it again."""
    if line:
        console.say(line)
    return line if "WARNING" in line else ""


# ------------------------------------------------------------------------------------------ rounds
def _retrieved(problem: Holograms, settings: Settings, console: Console) -> Work:
    """Solve for one material first, then for all there is, then for the details."""
    solver, loss, data = settings.solver, settings.loss, _device(problem.data)
    turn = lambda problem, *options, **more: _round(problem, data, settings, *options, **more)
    phase, law = problem.model.first_guess(problem.data["counts"], problem.data["mask"])
    # Where linear theory does not hold, what it says of the lowest frequencies is worse than nothing.
    strong = float(jnp.ptp(phase)) > 1.0
    model = problem.model.replace(phase=jnp.zeros_like(phase) if strong else phase)
    problem = problem.replace(model=model, laws=(law,), curvature=None)
    console.say(f"first guess by the contrast transfer function; power of the phase falls as f^{law.slope:.2g}")
    for damping in solver.damping if strong else [0.01]:
        problem = yield from turn(problem, "one material", 3, 8, raised=damping)
        if strong:  # what the first guess said of the power was as wrong as its phase
            problem = problem.with_phase_law()
    # A wrong geometry must not pass for attenuation: its numbers come first, unless registration has just found them.
    if problem.refine and not (problem.settled and set(problem.refine) == {"shifts"}):
        problem = yield from _geometry_first(problem, turn, solver, strong)
    problem = _opened(problem, settings, console)
    for index in range(solver.rounds if strong else 1):
        problem = _measured(problem, index) if strong else problem
        problem = yield from turn(problem, "all", solver.steps, solver.cg_steps, problem.refine, vacuum=loss.vacuum)
    for _ in range(solver.tv_rounds if loss.tv and not problem.half else 0):
        problem = yield from turn(problem, "details", 2, solver.cg_steps, vacuum=loss.vacuum, variation=loss.tv)
    return problem


def _measured(problem: Holograms, index: int) -> Holograms:
    return problem.replace(curvature=solvers.measured_curvature(problem.model, index))


def _geometry_first(problem: Holograms, turn: Callable[..., Work], solver: Solver, strong: bool) -> Work:
    """Solve for the numbers of the geometry, with one material. Blurs come in rounds: each takes a share of what is
    left, and lets the object and its prior follow."""
    blurred = bool(_BLURS & set(problem.refine))
    for index in range(6 if blurred else 1):
        problem = _measured(problem, index) if strong else problem.replace(curvature=None)
        problem = yield from turn(
            problem, "geometry", 3 if blurred else 12, solver.cg_steps, problem.refine, seed=index
        )
        if blurred:
            problem = problem.with_phase_law()
    return problem


def _opened(problem: Holograms, settings: Settings, console: Console) -> Holograms:
    """Solve for attenuation too, where one material does not explain the data or several are named."""
    asked, excess = settings.model.attenuation, problem.excess(settings.quality.seed)
    more = (len(problem.named) > 1 or excess > 1.05) if asked is None else asked
    also = "; solving for attenuation too" if more and asked is None else ""
    console.say(f"residual of one material: {excess:.3f} times photon noise{also}")
    if not more:
        return problem
    # Small dense details: their power falls more slowly by one power of the frequency; their size is relative to the
    # phase where phase contrast is best.
    law, frequency = problem.laws[0], float(solvers.first_maximum(problem.model))
    other = PowerLaw(law.level * settings.model.attenuation_scale**2 / (2 * frequency), law.slope + 1)
    return problem.replace(laws=(law, other))


def _round(
    problem: Holograms,
    data: dict[str, Array],
    settings: Settings,
    label: str,
    steps: int,
    cg_steps: int,
    refine: tuple[str, ...] = (),
    seed: int = 0,
    **strengths: float,
) -> Work:
    """Yield a stage of Gauss-Newton steps in white coordinates; the problem with its maps and geometry comes back."""
    names, label = (*_MAPS[: len(problem.laws)], *refine), f"holography, {label}"
    options: dict[str, Any] = {"steps": steps, "cg_steps": cg_steps, "seed": seed, "function": settings.loss.function}

    def solve(_: Problem, run: Run) -> Outcome:
        start = problem.coordinates(settings, refine=refine, **strengths)
        solution = solvers.fit_holograms(
            start, data, marginal=bool(_BLURS & set(refine)), console=run.console, label=f"{label}: step", **options
        )
        return Outcome(problem.replace(model=solution.value), solution.history, solution.ending, solution.detail)

    solved = yield Stage(label, solve, names)
    return problem.replace(model=put(problem.model, {name: getattr(solved.model, name) for name in names}))


def _device(data: Mapping[str, Any]) -> dict[str, Array]:
    """Put the data on the device, once for all rounds."""
    return {name: jnp.asarray(value) for name, value in data.items()}


def _cost(settings: Settings) -> Callable[[Holography, Batch], Any]:
    """Give the cost of the data alone: the user's, or amplitudes."""
    amplitude = lambda model, batch: 2 * losses.amplitude(model(batch.views), batch.counts, batch.mask, floor=0.375)
    return settings.loss.function or amplitude

"""Holotomography: two steps (phase of each angle, back-projection, places of the frames), then one cost from the volume
to the raw frames of all distances and angles, judged on angles that were never fitted.

The cost is the residual of amplitudes plus a Gaussian prior: the power of delta falls as a power of the frequency, law
and level of which are measured in the projections, so that no weight is left to choose. The volume is solved for in
coordinates of curvature one (`solvers.WhiteVolume`); L-BFGS then needs some ten steps.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from .. import physics, prepare, quality, sharding
from .._console import Console
from .._result import Quantity, Result
from ..errors import InputError
from ..modality import Modality, Outcome, Problem, Run, Stage, Work
from ..models import HoloTomography, hologram_table, holograms_by_angle
from ..quality.held_out import held_out_figures, split_views
from ..scan import Scan
from ..settings import GIVEN, section, setting
from ..solvers import PhaseRetrieval, back_project, fit_volume, hologram_cost, place_frames
from ..solvers.direct.two_step import over_angles, projections_of
from ..solvers.slices import FILTERS
from . import looks
from ._holotomography_slabs import in_slabs

PLACES = ("shifts", "gain", "centre")  # what the stages before the volume keep
_JOINT, _TWO_STEP = {"name": ("joint",)}, {"name": ("two-step",)}
_OF_JOINT = {"solver.name": ("joint",)}
_PLAIN = _JOINT | {"batch_size": GIVEN}  # steps of some angles each
_LBFGS = _JOINT | {"batch_size": (None,)}


@dataclass(frozen=True)
class Prepare:
    """What is done to the frames."""

    outliers: float = setting(10.0, "leave out pixels so many standard deviations off, 0: none", at_least=0)


@dataclass(frozen=True)
class Model:
    """Sample and geometry, and what of them is solved for."""

    delta_beta: float | None = setting(
        None, "delta / beta of the sample; by default that of light organic matter", above=0, only={"material": (None,)}
    )
    material: str | None = setting(None, 'instead of it: formula and density [g/cm^3], such as "C5H8O2, 1.19"')
    beta: bool = setting(False, "a volume of absorption that delta_beta does not explain")
    beta_scale: float = setting(
        0.01, "size of that absorption beside delta that is expected", above=0, only={"beta": (True,)}
    )
    size: int | None = setting(None, "pixels of a slice along x and y; the finest field of view by default")
    height: int | None = setting(None, "slices; the finest field of view by default")
    flats: str = setting("mean", "of all, or equal groups, one a distance", choices=("mean", "distance"))
    shifts: bool = setting(True, "place the frames")
    centre: bool = setting(True, "find the rotation axis")
    gain: bool = setting(False, "brightness of every frame as an unknown")
    register: bool = setting(False, "register the frames of an angle first, if more than two pixels out of place")
    refine_delta_beta: bool = setting(False, "delta / beta as an unknown of the joint descent", only=_OF_JOINT)
    quantity: str = setting(
        "delta", "one more volume: density (needs material) [g/cm^3] or electron-density [1/angstrom^3]",
        choices=("delta", "density", "electron-density"),
    )  # fmt: skip


@dataclass(frozen=True)
class Loss:
    """The cost of the joint descent; weights of 1 are what the data say."""

    function: Callable[..., Any] | None = setting(
        None, "(model, batch) -> scalar for the data; amplitudes by default", only=_OF_JOINT
    )
    negative: float = setting(1.0, "weight of values below vacuum, which X-rays do not see", at_least=0, only=_OF_JOINT)
    prior: float = setting(1.0, "weight of the prior", above=0, only=_OF_JOINT)


@dataclass(frozen=True)
class Solver:
    """Which way, and how long."""

    name: str = setting("joint", "one cost for all, or the two steps alone", choices=("joint", "two-step"))
    second: str = setting("fbp", "back-projection of the two steps", choices=("fbp", "cgls"))
    filter: str = setting("ramp", "of the back-projection", choices=FILTERS, only={"second": ("fbp",)})
    cgls_steps: int = setting(8, "of the back-projection", at_least=1, only={"second": ("cgls",)})
    align: int = setting(3, "rounds of placing the frames in two steps", at_least=0)
    slab: int | None = setting(None, "slices at a time; 0: all; by default what fits", at_least=0, only=_TWO_STEP)
    steps: int = setting(15, "L-BFGS steps of the joint descent", at_least=1, only=_LBFGS)
    memory: int = setting(8, "steps that L-BFGS remembers", at_least=1, only=_LBFGS)
    batch_size: int | None = setting(None, "angles a step, plain steps: for large scans", at_least=1, only=_JOINT)
    epochs: float = setting(12.0, "passes over the angles of these steps", above=0, only=_PLAIN)
    seed: int = setting(0, "of the order of the angles", only=_PLAIN)


@dataclass(frozen=True)
class Quality:
    """How the result is judged."""

    held_out: float = setting(0.1, "share of whole angles that are never fitted", at_least=0, below=0.5)
    halves: bool = setting(False, "shell correlation of even and odd angles: two more volumes")
    seed: int = setting(0, "of the angles that are left out, and of the photon noise they are compared with")


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
    """The problem, and what no reconstruction can know of frames of other angles: `places`, of shifts and gain.

    Halves start from a geometry that is `known`.
    """

    places: tuple[str, ...] = ()
    known: bool = False

    def into(self, part: Problem, views: np.ndarray) -> "Holograms":
        """Lay what some angles have solved into all, and place the frames of the others on the volume."""
        whole = super().into(part, views)
        others = np.setdiff1d(np.arange(self.views), views)
        return whole.placed(others) if others.size and isinstance(whole.model.delta, jax.Array) else whole

    def placed(self, angles: np.ndarray, *lines: Any) -> "Holograms":
        """Fit the places of the frames of some angles, to the volume or to line integrals of all angles."""
        if not self.places:
            return self
        fit = {name: name in self.places for name in ("shifts", "gain")}
        return self.replace(model=place_frames(self.model, self.data, *lines, angles=angles, rounds=4, **fit))

    def predict(self, views: np.ndarray, *lines: Any) -> np.ndarray:
        """Predict the frames of some angles, block after block."""
        return np.asarray(over_angles(_predicted, self.model, self.data, views, *lines))


def _predicted(model: HoloTomography, angles: Array, counts: Array, mask: Array, *lines: Array) -> Array:
    return model.frames(projections_of(model, angles, lines), angles)


class Holotomography(looks.Holotomography, Modality):
    """delta and beta, rotation axis and places of the frames, from holograms at several distances and many angles."""

    settings = Settings

    def start(self, scan: Scan, settings: Settings, console: Console, *, volume: bool = True) -> Holograms:
        """Make an empty volume in the geometry of the scan; without `volume` memory holds none."""
        chosen = settings.model
        if chosen.quantity == "density" and chosen.material is None:
            raise InputError(
                'model.quantity=density needs the composition: give model.material, such as "C5H8O2, 1.19"'
            )
        energy = scan.require("geometry", *self.needs["geometry"]).energy
        model = HoloTomography.from_scan(
            scan,
            delta_beta=physics.delta_beta_ratio(energy, chosen.delta_beta, chosen.material),
            beta=chosen.beta, size=chosen.size, height=chosen.height, flats=chosen.flats, volume=volume,
        )  # fmt: skip
        data, message = prepare.mask_hologram_outliers(model, holograms_by_angle(scan), settings.prepare.outliers)
        console.say(model.summary() + (f"; {message}" if message else ""))
        volumes = ("delta", *(["beta"] if chosen.beta else []), "delta_beta") if volume else ()
        return Holograms(
            model, data, hologram_cost, dict.fromkeys((*volumes, *PLACES), 1.0),
            per_view=("shifts", "gain"), gauge=HoloTomography.centred,
            places=tuple(name for name in ("shifts", "gain") if getattr(chosen, name)),
        )  # fmt: skip

    def split(self, problem: Holograms, settings: Settings) -> tuple[np.ndarray, np.ndarray]:
        """Choose whole angles that are never fitted, evenly spread."""
        return split_views(problem.views, settings.quality, spread=True)

    def stages(self, problem: Holograms, settings: Settings, console: Console) -> Work:
        """Place the frames on the volume of two steps, make it anew, and descend from it in all unknowns."""
        problem = yield from placement(problem, settings, partial(_two_step, settings=settings))
        problem = yield _stage("two steps", lambda p, _: _two_step(p, settings)[0], None)
        if settings.solver.name == "joint":
            yield Stage("holotomography: step", partial(_joint, settings=settings))

    def judge(self, problem: Holograms, settings: Settings, *lines: Any) -> tuple[dict[str, Any], list[str]]:
        """Compare the frames of whole angles with their prediction; their places have been fitted, no more."""
        flat = lambda a: np.asarray(a, float).reshape(-1, *problem.model.frame)
        counts, predicted = flat(problem.data["counts"]), flat(problem.predict(np.arange(problem.views), *lines))
        which = f"{problem.views} whole angles, {len(counts)} holograms"
        return held_out_figures(counts, predicted, np.asarray(problem.data["mask"]), settings.quality.seed, which)

    def verdict(
        self, problem: Holograms, scan: Scan, settings: Settings, volume: Any = None
    ) -> tuple[dict[str, Any], list[str]]:
        """Say where the axis is and how far frames have moved, and warn of a sample that is wider than the volume."""
        model, lines = problem.model, []
        if _edge(model.delta if volume is None else volume) > 0.05:
            lines.append(
                "the volume is not empty at its border: the sample may be wider than the finest field of view "
                "(model.size, model.height)"
            )
        rows, columns = np.asarray(model.shifts).std((0, 1))
        lines.append(
            f"rotation axis at column {model.rotation_centre():.2f} of the finest frames; frames moved by {rows:.2f} "
            f"(rows) and {columns:.2f} (columns) pixel rms"
        )
        return {"rotation_centre": model.rotation_centre(), "delta_beta": float(model.delta_beta)}, lines

    def halves(self, start: Holograms, solved: Holograms, settings: Settings) -> tuple[Holograms, Holograms]:
        """Take the even and the odd angles, in the order of their size, in the geometry that was found."""
        places = {name: getattr(solved.model, name) for name in PLACES}
        start = start.replace(model=start.model.replace(**places), known=True)
        order = np.argsort(np.asarray(start.model.projector.angles), kind="stable")
        return start.of(order[::2]), start.of(order[1::2])

    def correlate(self, first: Holograms, second: Holograms, scan: Scan) -> tuple[dict[str, Any], str]:
        """Compare two volumes shell by shell."""
        volumes = (np.asarray(half.model.delta) for half in (first, second))
        curve = quality.shell_correlation(*volumes, pixel_size=first.model.pixel_size)
        return {"shell_correlation": curve.as_quality()}, f"even against odd angles: {curve}"

    def quantities(self, problem: Holograms, scan: Scan, settings: Settings) -> dict[str, Quantity]:
        """Give delta and beta, the density that is asked for, and the places of the frames."""
        model, said = problem.model, settings.model.quantity
        if said == "delta":
            return model.quantities()
        factor, units, long_name = model.unit(said, settings.model.material)
        volume = np.asarray(model.delta * factor)
        return model.quantities() | {
            said.replace("-", "_"): Quantity(volume, units, ("z", "y", "x"), model.pixel_size, long_name, "volume")
        }

    def wants_slabs(self, scan: Scan, settings: Settings) -> bool:
        """Say whether two steps go through the volume in slabs: as set, or where phases and volume would take more than
        half of the free memory."""
        if settings.solver.name != "two-step" or settings.model.beta:
            return False
        if settings.solver.slab is not None:
            return settings.solver.slab > 0
        height, columns = scan.frame_shape
        side, slices = settings.model.size or columns, settings.model.height or height
        # float32: phases and volume, each in work and as result
        needed = 8.0 * slices * side * (len(hologram_table(scan)[0]) + 2 * side)
        return bool(sharding.agree(needed > 0.5 * sharding.free_memory(jax.local_devices()[0])))

    def slabs(self, scan: Scan, settings: Settings, console: Console, writer: Callable[..., Any]) -> Result:
        """Take the two steps from file to file, for volumes that memory does not hold."""
        return in_slabs(self, scan, settings, console, writer, placement)


# ---------------------------------------------------------------------------------------------------- two steps
def placement(problem: Holograms, settings: Settings, look: Callable[[Holograms], tuple[Holograms, tuple]]) -> Work:
    """Yield the stages that find the axis and place the frames, round after round on the volume of two steps.

    **Arguments:** `look(problem)` makes that volume: the problem with it, or line integrals that stand for it.
    """
    chosen = settings.model
    if problem.known:
        return problem
    if chosen.register:
        problem = yield _stage("registration of each angle", _said(prepare.register_angles), PLACES)
    if chosen.centre:
        axis = partial(prepare.find_hologram_axis, general=_general(settings))
        problem = yield _stage("rotation axis", _said(axis), PLACES)
    for number in range(settings.solver.align if chosen.shifts or chosen.centre else 0):
        work = partial(_round, look=look, gain=chosen.gain, number=number + 1)
        problem = yield _stage(f"places of the frames, round {number + 1}", work, PLACES)
    return problem


def _stage(label: str, work: Callable[[Holograms, Console], Holograms], keeps: tuple[str, ...] | None) -> Stage:
    return Stage(label, lambda problem, run: Outcome(work(problem, run.console), np.zeros(0)), keeps)


def _said(work: Callable[..., tuple[HoloTomography, str]]) -> Callable[[Holograms, Console], Holograms]:
    """Make the work of a stage of a function of model and data that gives a model and what is to be said."""

    def solve(problem: Holograms, console: Console) -> Holograms:
        model, message = work(problem.model, problem.data)
        console.say(message)
        return problem.replace(model=model)

    return solve


def _general(settings: Settings) -> float:
    return settings.model.beta_scale if settings.model.beta else 0.0


def _two_step(problem: Holograms, settings: Settings) -> tuple[Holograms, tuple]:
    """Make delta (and beta) of the phases of all angles."""
    model, general, solver = problem.model, _general(settings), settings.solver
    maps = PhaseRetrieval.of(model, problem.data, general)(model, problem.data)
    back = partial(back_project, model.projector, method=solver.second, filter=solver.filter, steps=solver.cgls_steps)
    beta = back(maps[1] - maps[0] / float(model.delta_beta)) if general else None
    return problem.replace(model=model.replace(delta=back(maps[0]), beta=beta)), ()


def _round(problem: Holograms, console: Console, look: Callable[..., Any], gain: bool, number: int) -> Holograms:
    """Look at the sample, and place the frames on what it predicts."""
    before = problem.model
    seen, lines = look(problem)
    model = place_frames(seen.model, problem.data, *lines, gain=gain, quiet=True).centred()
    moved = float(jnp.sqrt(jnp.mean((model.shifts - before.shifts) ** 2)))
    console.say(
        f"frames placed on the volume's prediction, round {number}: moved by {moved:.3f} pixel rms; rotation axis at "
        f"{model.rotation_centre():.2f}"
    )
    return problem.replace(model=model)


# ---------------------------------------------------------------------------------------------------- jointly
def _joint(problem: Holograms, run: Run, settings: Settings) -> Outcome:
    """Descend in all unknowns at once; in the volume alone where the geometry is known."""
    chosen, solver, model = settings.model, settings.solver, problem.model
    power = PhaseRetrieval.of(model, problem.data, _general(settings)).power_of_volume(model)
    run.console.say(f"prior: power of delta falls as f^{power.slope:.2g}")
    free = {"shifts": chosen.shifts or chosen.centre, "gain": chosen.gain, "ratio": chosen.refine_delta_beta}
    solution = fit_volume(
        model, problem.data, power, data_term=settings.loss.function or hologram_cost,
        steps=solver.steps, memory=solver.memory, batch_size=solver.batch_size, epochs=solver.epochs, seed=solver.seed,
        coordinates={
            "free": tuple(name for name, unknown in free.items() if unknown and not problem.known),
            "prior": settings.loss.prior, "negative": settings.loss.negative, "beta_scale": chosen.beta_scale,
        },
        console=run.console, label="holotomography: step", checkpoint=run.checkpoint, resume=run.resume,
    )  # fmt: skip
    return Outcome(problem.replace(model=solution.value), solution.history, solution.ending, solution.detail)


# ---------------------------------------------------------------------------------------------------- judge
def _edge(volume: Float[Array, "z y x"]) -> float:
    """Compare the mean modulus in the outermost layers of the cylinder that all angles see with the largest value; of
    one slice those of its circle."""
    axis = np.arange(volume.shape[1]) - (volume.shape[1] - 1) / 2
    radius = np.hypot(axis[:, None], axis[None])
    shell = np.broadcast_to((radius > 0.94 * axis[-1]) & (radius <= axis[-1]), volume.shape).copy()
    if len(volume) > 2:
        shell[[0, -1]] = radius <= axis[-1]
    border = jnp.sum(jnp.abs(volume) * shell) / shell.sum()
    return float(border / jnp.maximum(jnp.max(jnp.abs(volume)), 1e-30))

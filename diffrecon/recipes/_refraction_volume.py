"""Volumes of what refracts: the frames of every angle solved by the method, then their line integrals for volumes."""

import dataclasses
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from .._console import Console
from .._result import Quantity
from ..errors import InputError
from ..modality import Outcome, Problem, Run, Stage, Work
from ..scan import Scan
from ..settings import setting
from ..solvers.refraction import information_of
from ..solvers.refraction_volumes import RefractionVolumes, consistent_volumes, landed_maps, projected_fields
from ..solvers.slices import SLICE_SOLVERS, SliceOptions, padding
from ._refraction import scattering_scale
from ._volumes import Volumes, projector_of, solve_each, without_ends

__all__ = ["RefractionTomogram", "Volume", "start", "at_angles", "by_angle", "stages", "verdict", "volume_quantities"]

_STAGES = 20  # after which finished angles are in the journal
_WORSE = 1.3  # misfit over that of the angles so far, from which on an angle is begun afresh
_SAME = 1e-6  # [rad]
_STEPS = 20  # of conjugate gradients in a round of the joint solve
_SCATTERING = ("scattering", "scattering a length")
_OF_FRAMES = ("flux", "drift", "place", "step")  # what models refine of single frames


@dataclass(frozen=True)
class Volume(SliceOptions):
    """How volumes are found where there are frames at many angles."""

    name: str = setting(
        "fbp",
        "a name in solvers.SLICE_SOLVERS, or joint: one cost functional of all frames",
        known=lambda: (*SLICE_SOLVERS, "joint"),
    )
    rounds: int = setting(3, "readings of all frames", at_least=1, only={"name": ("joint",)})
    prior: float = setting(
        0.3, "few steps of all volumes, in units of a voxel's noise", at_least=0, only={"name": ("joint",)}
    )

    def count(self) -> int:
        """Count the steps, by default those of the solver."""
        return self.steps or (_STEPS if self.name == "joint" else super().count())


class Lines(NamedTuple):
    """Line integrals of one angle `(y, x)`, up to what air adds to them.

    **Fields:** `delta` and `attenuation`; `scattering` [rad^2], of angles, or of the phase where that is what is seen;
    `light`, counts of all frames. Lengths in pixels.
    """

    delta: np.ndarray
    attenuation: np.ndarray
    scattering: np.ndarray
    light: np.ndarray


class Angles(Volumes):
    """Line integrals of all angles so far, `(angle, 4, row, column)` as `Lines`, and the volumes that they become."""

    lines: Float[Array, "angle 4 row column"]


@dataclass(frozen=True)
class RefractionTomogram(Problem):
    """The problem with its frames by angle: `angles` [rad] and `views` `(angle, position)`; `third`, name and words of
    the volume beside delta and attenuation."""

    scan: Any = None
    angles: Any = None
    views_of: Any = None
    pixel: float = 1.0
    before: Any = None
    misfits: tuple[float, ...] = ()
    afresh: int = 0
    third: tuple[str, str] = _SCATTERING
    lines: tuple[str, ...] = ()


def at_angles(scan: Scan) -> bool:
    """Say whether the scan has frames at more than one angle."""
    return scan.angles is not None and float(np.ptp(scan.angles)) > _SAME


def start(scan: Scan, size: tuple[int, int], pixel: float, third: tuple[str, str] = _SCATTERING) -> RefractionTomogram:
    """Sort the frames by angle; nothing is read yet.

    **Arguments:** `size` of the frames; `pixel` in the sample [m]; `third`, name and words of the third volume.
    """
    angles, views = by_angle(scan)
    empty = Angles(jnp.zeros((0, 1, 1, 1), jnp.float32), jnp.zeros((len(angles), 4, *size), jnp.float32))
    said = f"{len(angles)} angles of {views.shape[1]} frames each"
    return RefractionTomogram(
        empty, {"counts": scan.counts}, _no_cost, {"lines": 1.0, "volumes": 1.0}, scan=scan, angles=angles,
        views_of=views, pixel=pixel, third=third, lines=(said,),
    )  # fmt: skip


def by_angle(scan: Scan) -> tuple[np.ndarray, np.ndarray]:
    """Angles, and the frames of each in the order of the file.

    **Raises:** `InputError` where angles do not have as many frames each.
    """
    turned = np.asarray(scan.angles, float)
    order = np.argsort(turned, kind="stable")
    begins = np.flatnonzero(np.diff(turned[order], prepend=-np.inf) > _SAME)
    counts = np.diff(begins, append=len(turned))
    even, still = bool((counts == counts[0]).all()), scan.extra.get("reference")
    each = int(counts[0]) if even else 0
    if each < 2 and still is not None and np.ndim(still) == 3 and _together(turned[order], len(still)):
        each = len(still)  # angles as an encoder reads them differ a little from position to position
    if not each:
        raise InputError(
            f"{scan.name}: angles have between {counts.min()} and {counts.max()} frames each; every angle needs "
            "the same positions of the pattern: choose frames with data.views"
        )
    views = np.sort(order.reshape(-1, each), axis=1)
    return turned[views].mean(1), views


def _together(turned: np.ndarray, each: int) -> bool:
    """Say whether sorted angles come in groups of so many, with wide gaps between them."""
    if each < 2 or len(turned) % each or len(turned) < 2 * each:
        return False
    groups = turned.reshape(-1, each)
    return bool(np.ptp(groups, axis=1).max() < 0.25 * (groups[1:, 0] - groups[:-1, -1]).min())


def stages(method: Any, problem: RefractionTomogram, settings: Any) -> Work:
    """Solve some angles in every stage, so that a run that is killed goes on from there, then the volumes."""
    options = settings.volume.checked(("joint",))
    for part in np.array_split(np.arange(len(problem.angles)), min(_STAGES, len(problem.angles))):
        label = f"{method.name}: angles {part[0] + 1} to {part[-1] + 1} of {len(problem.angles)}"
        problem = yield Stage(label, partial(_solved, method=method, part=part, settings=settings), keeps=("lines",))
    first = dataclasses.replace(options, name="fbp") if options.name == "joint" else options
    problem = yield Stage(f"{method.name}: volumes", partial(_volumes, options=first), keeps=("volumes",))
    if options.name == "joint":
        yield Stage(f"{method.name}: joint", partial(_joint, method=method, settings=settings), keeps=("volumes",))


def _solved(problem: RefractionTomogram, run: Run, *, method: Any, part: np.ndarray, settings: Any) -> Outcome:
    """Solve angle after angle, each from where its neighbour ended; those that fit badly are begun afresh."""
    lines, misfits = np.array(problem.model.lines), list(problem.misfits)
    before, afresh = problem.before, problem.afresh
    share = len(problem.angles) ** -0.5  # what is smoothed in one angle is a bias in all of them
    progress = run.console.progress(len(problem.angles), "angle")
    for number in part:
        scan = _of_angle(problem.scan, problem.views_of[number])
        found, one, misfit = method.line_integrals(scan, settings, before, share)
        if before is not None and misfit > _WORSE * np.median([*misfits, misfit][:50]):
            again, another, fresh = method.line_integrals(scan, settings, None, share)
            if fresh < misfit:
                found, one, misfit, afresh = again, another, fresh, afresh + 1
        lines[number], before = np.stack(found), one
        misfits.append(float(misfit))
        progress.update(int(number) + 1, misfit=misfit)
    model = problem.model.replace(lines=jnp.asarray(lines))
    done = problem.replace(model=model, before=before, misfits=tuple(misfits), afresh=afresh)
    return Outcome(done, np.zeros(0))  # a misfit of each angle is no convergence


def _of_angle(scan: Scan, views: np.ndarray) -> Scan:
    """Make the scan of one angle, as the method knows it."""
    return dataclasses.replace(scan.subset(views), angles=None)


def _volumes(problem: RefractionTomogram, run: Run, options: SliceOptions) -> Outcome:
    """Take air out of the line integrals and solve for volumes in one geometry."""
    measured = Lines(*np.moveaxis(np.asarray(problem.model.lines, float), 1, 0))
    said = []
    if padding(jnp.asarray(measured.attenuation - _air(measured.attenuation), jnp.float32)) == "smooth":
        said.append(
            "the sample seems to reach the borders of the frames, where air is needed on both sides: delta is not "
            "to be trusted beyond its edges"
        )
    integrals = {
        "delta": without_ends(measured.delta),
        "attenuation": measured.attenuation - _air(measured.attenuation),
        problem.third[0]: measured.scattering - _air(measured.scattering),
    }
    A, lines = projector_of(problem.scan, problem.angles, integrals["delta"])
    volumes, history, figures, more = solve_each(A, integrals, options, weights=measured.light, console=run.console)
    for name in ("attenuation", problem.third[0]):  # many samples do neither, and their residual is no failure
        figures[f"misfit_{name}"] = figures.pop(f"relative_residual_{name}")
    lines = [*said, *lines, *more]
    for line in lines:
        run.console.say(line)
    done = problem.replace(model=problem.model.replace(volumes=volumes), lines=(*problem.lines, *lines))
    return Outcome(done, history, figures=figures)


def _joint(problem: RefractionTomogram, run: Run, *, method: Any, settings: Any) -> Outcome:
    """Solve all frames for the volumes at once, from those of the single angles."""
    options, scan = settings.volume, problem.scan
    centre = scan.rotation_centre if scan.rotation_centre is not None else problem.figures["rotation_centre"]
    A, _ = projector_of(scan.replace(rotation_centre=centre), problem.angles, np.asarray(problem.model.lines)[:, 0])
    begin = lambda number, before: method.begin(
        _of_angle(scan, problem.views_of[number]), settings, Console(quiet=True), before
    )
    one = begin(0, problem.before)
    loss = scattering_scale(one.unit, one.grain, method.saturation(problem.before or one))
    scale = jnp.asarray([-one.unit.angle, 1.0, loss])[:, None, None, None]
    potential, attenuation, loss = problem.model.volumes / scale
    volumes = RefractionVolumes(potential, attenuation, loss, jnp.zeros((len(problem.angles), 4)))
    known: dict[int, Any] = {}  # of single frames, by angle
    transfer = one.model.transfer
    history, progress = [], run.console.progress(options.rounds * len(problem.angles), "joint: angle")
    for round_ in range(options.rounds):
        fields, told, misfits = projected_fields(A, volumes), [], []
        for number in range(len(problem.angles)):
            one = begin(number, one)
            model = one.model.replace(maps=landed_maps(fields[number], volumes.air[number, :2]))
            information, known[number] = _told(model, jnp.asarray(one.data["counts"]), known.get(number))
            told.append(information)
            misfits.append(float(jnp.median(information.misfit)))
            progress.update(round_ * len(problem.angles) + number + 1, misfit=misfits[-1])
        together = jax.tree.map(lambda *a: jnp.stack(a), *told)
        weights = (options.prior,) * 3
        volumes = consistent_volumes(A, together, volumes, transfer, weights, steps=options.count())
        history.append(float(np.median(misfits)))
    found = jnp.stack([volumes.potential, volumes.attenuation, volumes.loss]) * scale
    model = problem.model.replace(volumes=found)
    return Outcome(problem.replace(model=model), np.asarray(history), figures=dict(problem.figures))


def _told(model: Any, counts: Any, known: dict[str, Any] | None) -> tuple[Any, dict[str, Any]]:
    """Sum up the frames of one angle; what is known of single frames is refined by the way."""
    model = model.replace(**(known or {}))
    for _ in range(0 if known else 2):
        model = information_of(model, counts)[1]
    information, model = information_of(model, counts)
    return information, {name: getattr(model, name) for name in _OF_FRAMES if hasattr(model, name)}


def _air(stack: np.ndarray) -> np.ndarray:
    """The level of every view at both ends of its lines `(view, 1, 1)`."""
    width = max(1, stack.shape[-1] // 20)
    return np.median(np.concatenate([stack[..., :width], stack[..., -width:]], -1), (1, 2), keepdims=True)


def verdict(problem: RefractionTomogram) -> tuple[dict[str, Any], list[str]]:
    """Say how the frames of the angles were explained."""
    lines, misfits = list(problem.lines), np.asarray(problem.misfits)
    if misfits.size:
        worst = int(np.argmax(misfits))
        lines.append(
            f"misfit of the frames in units of their noise: {np.median(misfits):.2f} (median of the angles), "
            f"{misfits[worst]:.2f} at the worst; {problem.afresh} angles were begun afresh"
        )
    return {"misfit": misfits}, lines


def volume_quantities(problem: RefractionTomogram) -> dict[str, Quantity]:
    """Give the volumes, and the line integrals that they come from."""
    labels = {
        "delta": ("", "refractive decrement"),
        "attenuation": ("1/m", "attenuation coefficient"),
        problem.third[0]: ("rad^2/m", problem.third[1]),
    }
    found = {}
    for (name, (units, label)), volume in zip(labels.items(), np.asarray(problem.model.volumes), strict=False):
        values = np.asarray(volume / problem.pixel, np.float32) * (problem.pixel if name == "delta" else 1.0)
        found[name] = Quantity(values, units, ("z", "y", "x"), problem.pixel, label, "volume")
    return found


def _no_cost(model: Volumes, batch: Any) -> Array:
    return jnp.zeros(())

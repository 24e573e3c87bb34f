"""Laminography: line integrals, tilt of the rotation axis given or refined, a direct or an iterative solve."""

from dataclasses import dataclass
from functools import partial
from typing import Any, cast

import jax.numpy as jnp
import numpy as np

from .. import models, penalties, prepare, solvers
from .._console import Console
from .._result import Quantity
from ..modality import Modality, Outcome, Problem, Run, Stage, Work
from ..prepare import Settings as Prepare
from ..scan import Scan
from ..settings import section, setting
from ..solvers.ending import Interrupted
from ..solvers.slices import FILTERS
from . import looks
from ._line_integrals import residual
from .tomography import least_squares

_UNEXPLAINED, _MISFIT = 4.0, 0.1  # times the noise, and a share of the line integrals: more is no right geometry
_STEPS = {"cgls": 20, "sirt": 100, "fista": 100}


@dataclass(frozen=True)
class Model:
    """What is reconstructed."""

    tilt: float | None = setting(
        None, "of the axis out of the plane across the beam; by default the file's", unit="rad"
    )
    size: int | tuple[int, int, int] | None = setting(
        None, "pixels along y and x, or [z, y, x]; by default the detector's"
    )


@dataclass(frozen=True)
class Align:
    """Geometry from the data."""

    tilt: bool = setting(False, "refine the tilt by the residual of a short solve")
    span: float = setting(0.017, "first step of the search to either side", unit="rad", above=0, only={"tilt": (True,)})
    steps: int = setting(12, "of the solve (cgls) at each tilt", at_least=1, only={"tilt": (True,)})


@dataclass(frozen=True)
class Solver:
    """How the volume is found."""

    name: str = setting("cgls", "fista has total variation", choices=("fbp", *_STEPS))
    steps: int | None = setting(None, "by default 20 (cgls), 100 (sirt, fista)", at_least=1, only={"name": (*_STEPS,)})
    filter: str = setting("ramp", "of the back-projection", choices=FILTERS, only={"name": ("fbp",)})
    tikhonov: float = setting(0.0, "weight of |x|^2", at_least=0, only={"name": ("cgls",)})
    positive: bool = setting(False, "no negative values", only={"name": ("sirt", "fista")})
    tv: float = setting(0.02, "of the volume's range x views: total variation", at_least=0, only={"name": ("fista",)})


@dataclass(frozen=True)
class Settings:
    """Every setting of the method."""

    prepare: Prepare = section(Prepare, full_turn="as-is")
    model: Model = section(Model)
    align: Align = section(Align)
    solver: Solver = section(Solver)


@dataclass(frozen=True)
class Plate(Problem):
    """The problem with what is to be said of it."""

    lines: tuple[str, ...] = ()


class Laminography(looks.Laminography, Modality):
    """The attenuation coefficient of a flat specimen that turned about a tilted axis."""

    settings = Settings

    def start(self, scan: Scan, settings: Settings, console: Console) -> Plate:
        """Prepare line integrals and put an empty volume in their geometry."""
        preparation = prepare.Preparation(scan, settings.prepare.as_mapping())
        make = partial(models.Laminography.from_scan, cast(Scan, preparation.scan))
        model = make(tilt=settings.model.tilt, size=settings.model.size)
        values = jnp.asarray(preparation.rows(0, scan.frame_shape[0]))
        lines = [*preparation.messages, _axis_line(scan)]
        if preparation.lost_rows.size:
            values = _between_rows(values, preparation.lost_rows)
            lines.append("rows without a good pixel are filled from the rows beside them: slices share all rows")
        if settings.align.tilt:
            align = settings.align
            search = solvers.refine_tilt(model.projector, values, span=align.span, steps=align.steps)
            model = make(tilt=search.tilt, size=model.projector.volume_shape)
            lines.append(search.message)
        for line in lines:
            console.say(line)
        figures = preparation.clipped_fraction | _noise(preparation, values)
        return Plate(model, {"values": values}, least_squares, {"volume": 1.0}, lines=tuple(lines), figures=figures)

    def stages(self, problem: Plate, settings: Settings, console: Console) -> Work:
        """Solve by the solver that the settings name."""
        yield Stage(f"laminography: {settings.solver.name}", partial(_solve, settings.solver), keeps=())

    def verdict(self, problem: Plate, scan: Scan, settings: Settings) -> tuple[dict[str, Any], list[str]]:
        """Say how well the volume explains the line integrals, and what was not measured."""
        misfit, tilt = residual(problem.model, problem.data["values"], scan), float(problem.model.projector.motion.tilt)
        lines = [
            *problem.lines,
            f"relative residual |A x - b| / |b| = {misfit:.4f} ({settings.solver.name}, {problem.views} views, tilt "
            f"{np.rad2deg(tilt):.2f} deg)",
        ]
        floor = problem.figures.get("noise_floor_residual")
        if floor is not None:
            lines.append(f"photon noise alone is {floor:.4f} of the line integrals")
            if misfit > max(_UNEXPLAINED * floor, _MISFIT):
                lines.append(
                    f"WARNING: the volume leaves {misfit / floor:.1f} times as much as noise does: angles or their "
                    "order, tilt, axis, rows and columns, light that changed, or a specimen beyond the volume "
                    "(model.size)"
                )
        missing = 1 - np.cos(abs(tilt))  # fraction of the directions in the cone |q_xy| < |q_z| tan(tilt)
        if missing > 0.01:
            lines.append(
                f"{100 * missing:.0f} % of all directions (a cone about the axis) are not measured: faces across "
                "the axis are blurred"
            )
        return {"relative_residual": misfit, "tilt": tilt}, lines

    def quantities(self, problem: Plate, scan: Scan, settings: Settings) -> dict[str, Quantity]:
        """Give the volume and the first projection."""
        pixel = None if scan.pixel_size is None else float(scan.pixel_size)
        volume, units = np.asarray(problem.model.volume) / np.float32(pixel or 1.0), "1/m" if pixel else "1/pixel"
        first = np.asarray(problem.data["values"][0])
        return {
            "volume": Quantity(volume, units, ("z", "y", "x"), pixel, "attenuation coefficient", "volume"),
            "projection": Quantity(first, "", ("y", "x"), pixel, "line integrals of the first view"),
        }


def _between_rows(values: Any, lost: np.ndarray) -> Any:
    """Fill detector rows by those on either side."""
    good = np.setdiff1d(np.arange(values.shape[1]), lost)
    if not good.size:
        return values
    place = np.interp(lost, good, np.arange(good.size))
    below = good[np.floor(place).astype(int)]
    above = good[np.ceil(place).astype(int)]
    share = jnp.asarray((place % 1)[:, None], values.dtype)
    return values.at[:, lost].set(values[:, below] * (1 - share) + values[:, above] * share)


def _noise(preparation: prepare.Preparation, values: Any) -> dict[str, float]:
    """Compare photon noise with the line integrals; nothing where flats do not tell it."""
    if preparation.scan.flats is None or preparation.settings["delta_beta"] is not None:
        return {}
    variance = preparation.variance(0, values)
    seen = jnp.where(variance < 1e3, variance, 0)
    return {"noise_floor_residual": float(jnp.sqrt(seen.sum()) / jnp.maximum(jnp.linalg.norm(values), 1e-30))}


def _axis_line(scan: Scan) -> str:
    if scan.rotation_centre is not None:
        return f"rotation axis on column {scan.rotation_centre:.2f} as given"
    return (
        f"rotation axis taken to be in the middle, column {(scan.frame_shape[1] - 1) / 2:.2f}: give "
        "geometry.rotation_centre where it is not"
    )


def _solve(solver: Solver, problem: Plate, run: Run) -> Outcome:
    """Solve for the volume [1/pixel]."""
    A, values, name = problem.model.projector, jnp.asarray(problem.data["values"]), solver.name
    if name == "fbp":
        volume = solvers.laminography_fbp(A, values, filter=solver.filter)
        return Outcome(problem.replace(model=problem.model.replace(volume=volume)), np.zeros(0))
    steps, bounds = solver.steps or _STEPS[name], (0.0, None) if solver.positive else None
    progress = run.console.progress(steps, f"{name}: step")
    show = lambda report: progress.update(report.step, residual=report.loss)
    try:
        if name == "cgls":
            solution = solvers.cgls(A, values, steps=steps, tikhonov=solver.tikhonov, callback=show)
        elif name == "sirt":
            solution = solvers.sirt(A, values, steps=steps, bounds=bounds, callback=show)
        else:
            start = solvers.laminography_fbp(A, values, filter="hann")
            span = float(jnp.percentile(start, 99.5) - jnp.percentile(start, 0.5))
            penalty = penalties.TotalVariation(solver.tv * span * len(values))
            solution = solvers.fista(
                A, values, penalty, steps=steps, x0=start, bounds=bounds, normal="exact", callback=show
            )
    except Interrupted as stop:
        solution = stop.solution
    model = problem.model.replace(volume=solution.x)
    return Outcome(problem.replace(model=model), np.asarray(solution.history), solution.ending)

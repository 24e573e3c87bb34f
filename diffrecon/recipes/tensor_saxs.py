"""Tensor SAXS tomography: spherical-harmonic coefficients of every voxel, and the fibres that they describe."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from .._console import Console
from .._model import Batch
from .._result import Quantity
from ..errors import InputError
from ..modality import Modality, Outcome, Problem, Run, Stage, Work
from ..models import SaxsTensor
from ..operators import mean_intensity, orientation, relative_anisotropy
from ..scan import Scan
from ..settings import section, setting
from ..solvers import spread_of_halves, tensor_poses, tensor_tomography
from ..solvers.tensor_poses import MOTIONS
from . import looks
from ._tensor_figures import coverage, judged, spheres

# What the journal keeps of a solve: the volume, and the geometry that was found.
_KEPT = (
    "coefficients",
    "errors",
    "projector.weights",
    *(f"projector.projector.{n}" for n in ("ray", "row", "column", "offsets")),
)


@dataclass(frozen=True)
class Model:
    """What a voxel holds."""

    ell_max: int = setting(6, "highest order of the spherical harmonics, even; eight segments carry 6 to 8", at_least=2)
    volume_shape: tuple[int, int, int] | None = setting(
        None, "(z, y, x) [voxel]; by default the rows, and the columns for y and x", at_least=1
    )
    shown: tuple[int, ...] | None = setting(
        None, "voxels whose functions of direction are drawn: z, y, x of the first, then of the next", at_least=0
    )
    scattering: str = setting(
        "automatic",
        "how fibres scatter: across their axis, along it, or as seen from the data",
        choices=("automatic", "equatorial", "polar"),
    )


@dataclass(frozen=True)
class Solver:
    """How the coefficients are found."""

    smoothness: float | None = setting(
        None, "strength of the joint total variation; by default the one that predicts held-out views best", at_least=0
    )
    held_out: int = setting(
        9, "every so many-th view is held out while the smoothness is tried", at_least=2, only={"smoothness": (None,)}
    )
    rounds: int = setting(3, "quadratic problems for each strength", at_least=1)
    steps: int = setting(4, "steps of conjugate gradients for each of them", at_least=1)
    uniaxial: float = setting(
        4.0,
        "strength of what holds each voxel to rotational symmetry about its axis, relative to the smoothness",
        at_least=0,
    )
    error_bars: bool = setting(True, "solve halves of the views, too, for error bars of direction and anisotropy")


@dataclass(frozen=True)
class Align:
    """What is found of the views together with the volume."""

    unknowns: tuple[str, ...] = setting(
        ("shifts",),
        "of each view: shifts, angles, wobble, flux (names of diffrecon.motion.FREEDOMS); [] for none",
        known=lambda: tuple(MOTIONS),
    )


@dataclass(frozen=True)
class Settings:
    """Every setting of the method."""

    model: Model = section(Model)
    align: Align = section(Align)
    solver: Solver = section(Solver)


class TensorSaxs(looks.TensorSaxs, Modality):
    """Orientation of fibres in every voxel from tensor SAXS projections."""

    settings = Settings

    def start(self, scan: Scan, settings: Settings, console: Console) -> Problem:
        """Put empty coefficients into the geometry of the scan."""
        shape = settings.model.volume_shape
        _check(scan, shape)
        model = SaxsTensor.from_scan(scan, ell_max=settings.model.ell_max, volume_shape=shape)
        data = {"counts": scan.counts, "weights": scan.weights, "transmission": scan.transmission}
        data = {name: values for name, values in data.items() if values is not None}
        return Problem(model, data, _cost, {"coefficients": 1.0})

    def stages(self, problem: Problem, settings: Settings, console: Console) -> Work:
        """Solve once: the views held out for the smoothness join its last rounds."""
        solver = settings.solver

        def solve(problem: Problem, run: Run) -> Outcome:
            data, model = problem.data, problem.model
            solution = tensor_tomography(
                model.projector, data["counts"], weights=data.get("weights"), transmission=data.get("transmission"),
                smoothness=solver.smoothness, uniaxial=solver.uniaxial, align=settings.align.unknowns,
                held_out=solver.held_out, rounds=solver.rounds, steps=solver.steps, halves=solver.error_bars,
                console=run.console,
            )  # fmt: skip
            model = model.replace(coefficients=solution.coefficients, projector=solution.projector)
            if solution.halves is not None:
                scatters = np.asarray(_scatters(model.coefficients))
                kind: Any = settings.model.scattering
                spread = spread_of_halves(model.coefficients, solution.halves, scatters, kind)
                model = model.replace(errors=jnp.asarray(spread, model.coefficients.dtype))
            figures: dict[str, Any] = {"residual": solution.residual, "smoothness": solution.smoothness}
            figures |= {f"found_{name}": values for name, values in solution.motions.items()}
            figures |= {} if np.isnan(solution.agreement) else {"motion_of_views": solution.agreement}
            figures |= {"smoothness_path": solution.path} if len(solution.path) else {}
            return Outcome(problem.replace(model=model), np.zeros(0), solution.ending, figures=figures)

        yield Stage("tensor SAXS", solve, _KEPT)

    def verdict(self, problem: Problem, scan: Scan, settings: Settings) -> tuple[dict[str, Any], list[str]]:
        """Say how well the data are explained, how smooth the coefficients are, and what views held out said of it."""
        figures, lines = judged(problem)
        _, seen, words = coverage(problem)
        figures, lines = figures | seen, [*lines, *_geometry_lines(problem.figures), words]
        line, path = f"smoothness {problem.figures['smoothness']:g}", problem.figures.get("smoothness_path")
        if path is None:
            return figures, [*lines, line]
        best = path[:, 1].min()
        line += (
            f", chosen on held-out views (mean square residual {best:.3f} of what the first fit leaves: it compares "
            "smoothnesses, not models)"
        )
        return figures | {"held_out_over_first_fit": best}, [*lines, line]

    def error_bars(self, problem: Problem, scan: Scan, settings: Settings) -> tuple[dict[str, Quantity], list[str]]:
        """Give the errors of direction and anisotropy."""
        if not settings.solver.error_bars or not np.any(problem.model.errors):
            return {}, []
        scatters = np.asarray(_scatters(problem.model.coefficients))
        turn, spread = np.moveaxis(np.where(scatters[..., None], problem.model.errors, np.nan), -1, 0)
        axes, pixel = ("z", "y", "x"), scan.pixel_size
        line = (
            f"error bars (medians): fibre direction {np.degrees(np.nanmedian(turn)):.1f} degrees, relative anisotropy "
            f"{np.nanmedian(spread):.3f}; from two halves of the views"
        )
        return {
            "direction_error": Quantity(turn, "rad", axes, pixel, "error bar of the fibre direction", "volume"),
            "anisotropy_error": Quantity(spread, "", axes, pixel, "error bar of the relative anisotropy", "volume"),
        }, [line]

    def quantities(self, problem: Problem, scan: Scan, settings: Settings) -> dict[str, Quantity]:
        """Give mean, anisotropy, fibre direction and the coefficients themselves."""
        coefficients, axes, pixel = problem.model.coefficients, ("z", "y", "x"), scan.pixel_size
        mean, anisotropy, direction = map(np.asarray, _fibres(coefficients, settings.model.scattering))
        shown = spheres(coefficients, anisotropy, settings.model.shown, settings.model.ell_max)
        return {
            "mean": Quantity(mean, "", axes, pixel, "mean scattered intensity", "volume"),
            "anisotropy": Quantity(anisotropy, "", axes, pixel, "relative anisotropy", "volume"),
            "direction": Quantity(direction, "", (*axes, "xyz"), pixel, "fibre direction", "orientation"),
            "coefficients": Quantity(
                np.asarray(coefficients), "", (*axes, "lm"), pixel, "spherical-harmonic coefficients", "data"
            ),
            "coverage": coverage(problem)[0],
            **shown,
        }


def _geometry_lines(figures: Mapping[str, Any]) -> list[str]:
    """Say what was found of the views."""
    found = {n.removeprefix("found_"): np.asarray(v) for n, v in figures.items() if n.startswith("found_")}
    if found or "motion_of_views" not in figures:
        return tensor_poses.changes(found)
    moved = figures["motion_of_views"]
    return [f"views as given agree with the data to {moved:.2g} pixel rms; nothing was changed"]


def _check(scan: Scan, shape: tuple[int, int, int] | None) -> None:
    """Refuse a geometry with numbers that are none, and a volume far smaller than what the frames show."""
    place, (rows, columns) = scan.tensor_geometry, scan.frame_shape
    for name in ("offsets", "rotations", "detector_angles", "two_theta"):
        values = np.asarray(getattr(place, name, 0.0), float)
        if not np.isfinite(values).all():
            where = np.argwhere(~np.isfinite(values))
            view = f" of view {where[0][0]}" if name in ("offsets", "rotations") else ""
            raise InputError(f"{scan.name}: {name}{view} are not finite; leave such views out (data.views)")
    for name, values in (("weights", scan.weights), ("transmission", scan.transmission)):
        if values is not None and not np.isfinite(np.asarray(values)).all():
            raise InputError(f"{scan.name}: {name} are not finite; a weight of zero leaves a datum out")
    if shape is not None and (shape[0] < rows / 4 or max(shape[1:]) < columns / 4):
        raise InputError(
            f"model.volume_shape = {list(shape)}: frames of {rows} x {columns} pixels show a sample of some "
            f"[{rows}, {columns}, {columns}] voxels; a smaller volume explains none of what lies outside"
        )


def _cost(model: SaxsTensor, batch: Batch) -> Array:
    weights = getattr(batch, "weights", None)
    return 0.5 * jnp.mean((1.0 if weights is None else weights) * (model(batch.views) - batch.counts) ** 2)


def _scatters(coefficients: Array) -> Array:
    """Tell the voxels of the sample from empty ones."""
    mean = mean_intensity(coefficients)
    return mean > 0.1 * jnp.percentile(mean, 99)


@jax.jit(static_argnames="scattering")
def _fibres(coefficients: Array, scattering: Any) -> tuple[Array, Array, Array]:
    """Mean, anisotropy and direction; of empty voxels the last two are noise divided by nothing, and left out."""
    mean = mean_intensity(coefficients)
    scatters = _scatters(coefficients)
    anisotropy = jnp.where(scatters, relative_anisotropy(coefficients), jnp.nan)
    return mean, anisotropy, jnp.where(scatters[..., None], orientation(coefficients, scattering), jnp.nan)

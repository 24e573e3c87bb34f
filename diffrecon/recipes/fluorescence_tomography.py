"""Fluorescence tomography: densities of all elements and of the light matrix from counts, with every absorption.

Started by alternation, then one cost: the likelihood of all lines, Compton scattering and transmission, whose gradient
goes through the absorption of the beam and of every line, beside sparse edges whose strength the data choose.
"""

from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from .._console import Console
from .._model import Batch
from .._result import Quantity
from ..errors import InputError, MissingPackage
from ..modality import Modality, Outcome, Problem, Run, Stage, Work
from ..models import (
    CrossSections,
    Excitation,
    Fluorescence,
    alternate,
    curvature,
    excitations,
    measured_offsets,
    refined_amounts,
    refined_offsets,
    secondary_counts,
    sharpened,
)  # fmt: skip
from ..scan import Scan
from ..settings import section, setting
from . import looks
from ._sensitivity import Tables, energy_of, lines_of, with_table
from ._tomogram_points import measured_points

_COMPTON = "compton"
_ROUNDS = 2  # of alternation and one step of the offsets
_WORSE = (5.0, 0.12)  # times the noise, and misfit, from which on counts contradict each other
_NAMED = 0.01  # of a line's counts: secondary excitation that is named where it is left out


@dataclass(frozen=True)
class Align:
    """Where the sample was."""

    unknowns: str = setting(
        "none", "found from the sinograms: the axis, or a shift of every view", choices=("none", "axis", "wobble")
    )


@dataclass(frozen=True)
class Model:
    """What the counts are made of."""

    secondary: bool = setting(
        False, "lines of one element that excite another's on their way through the body, to first order"
    )


@dataclass(frozen=True)
class Solver:
    """How the densities are found."""

    name: str = setting(
        "joint",
        "all components in one likelihood with sparse edges, or the alternation",
        choices=("joint", "alternate"),
    )
    sweeps: int | None = setting(
        None, "of the alternation; 2 where rounds with sparse edges follow, else 4", at_least=1
    )
    sweep_steps: int = setting(20, "of EM in each sweep", at_least=1)
    rounds: int = setting(5, "with sparse edges, absorption anew in each", at_least=1, only={"name": ("joint",)})
    steps: int = setting(36, "of ordered subsets in each round", at_least=1, only={"name": ("joint",)})
    smoothness: float = setting(
        0.3, "times the weight of sparse edges that the densities themselves make most likely; 0 is none", at_least=0,
        only={"name": ("joint",)},
    )  # fmt: skip
    voxels: int = setting(2, "to a step of the scan along y and x", at_least=1, only={"name": ("joint",)})
    model_error: float = setting(
        0.03, "of the prediction, at most: edges of grains within a voxel", at_least=0, only={"name": ("joint",)}
    )


@dataclass(frozen=True)
class Settings:
    """Every setting of the method."""

    align: Align = section(Align)
    model: Model = section(Model)
    solver: Solver = section(Solver)
    tables: Tables = section(Tables)


@dataclass(frozen=True)
class Emission(Problem):
    """The problem with the names of what it holds."""

    components: tuple[str, ...] = ()
    channels: tuple[str, ...] = ()
    table: str = ""
    lines: tuple[str, ...] = ()
    excited: tuple[Excitation, ...] = ()
    step: float = 1.0  # of the scan [cm]

    @property
    def compton(self) -> int | None:
        """Give the channel of Compton scattering."""
        return self.channels.index(_COMPTON) if _COMPTON in self.channels else None


class FluorescenceTomography(looks.FluorescenceTomography, Modality):
    """Mass densities [g/cm^3] of elements through their own absorption."""

    settings = Settings

    def start(self, scan: Scan, settings: Settings, console: Console) -> Emission:
        """Put an empty body into the beam; counts of lines and of the transmitted beam side by side."""
        warnings: list[str] = []
        if "cross_sections" in scan.extra:
            scan, warnings = with_table(scan, settings.tables.lines)
        model, tables = Fluorescence.from_scan(scan), scan.extra["cross_sections"]
        channels, transmitted = tuple(tables["channels"]), scan.extra.get("transmitted")
        if transmitted is None and _COMPTON not in channels:
            raise InputError(
                f"{scan.name}: nothing tells how the matrix absorbs: it takes transmitted counts or Compton scattering"
            )
        counts, valid, said = measured_points(scan, channels)
        model = model.replace(exposure=model.exposure * jnp.asarray(valid, model.exposure.dtype))
        excited = _excited(scan, settings)
        lines = [f"cross sections: {tables['table']}", *warnings, *said, *_span_line(scan.angles)]
        for line in lines:
            console.say(line)
        return Emission(
            model, {"counts": counts}, _cost, {"scaled": 1.0}, per_view=("angles", "offsets", "exposure", "secondary"),
            components=tuple(tables["components"]), channels=channels, table=str(tables["table"]), lines=tuple(lines),
            excited=excited, step=100 * float(np.mean(scan.pixel_size)),
        )  # fmt: skip

    def stages(self, problem: Emission, settings: Settings, console: Console) -> Work:
        """Alternate, with the axis where it is unknown, then descend through everything at once."""
        solver, free = settings.solver, settings.align.unknowns
        keeps = ("scaled", "unit", "offsets")
        problem = yield Stage("fluorescence: alternation", partial(_alternated, solver, free), keeps)
        if settings.model.secondary and problem.excited:
            keeps = (*keeps, "secondary")
            again = partial(_excited_again, solver)
            problem = yield Stage("fluorescence: alternation with secondary excitation", again, keeps)
        if solver.name == "joint":
            problem = yield Stage("fluorescence: sparse edges", partial(_sharpened, solver, free), keeps)
            yield Stage("fluorescence: amounts", partial(_amounts, solver), keeps)

    def judge(self, problem: Emission, settings: Settings) -> tuple[dict[str, Any], list[str]]:
        """Nothing is held out: every view sees the body from a side of its own."""
        return {}, []

    def verdict(self, problem: Emission, scan: Scan, settings: Settings) -> tuple[dict[str, Any], list[str]]:
        """Give the mass of every element, how well each channel is explained, and where the axis seems to be."""
        model, counts = problem.model, problem.data["counts"]
        expected = np.asarray(_predicted(model), float)
        figures: dict[str, Any] = {"table": problem.table}
        words = list(problem.lines)
        voxel = (100 * float(np.mean(scan.pixel_size))) ** 3
        for name, density in zip(problem.components, np.asarray(model.by_step, float), strict=True):
            figures[f"{name}_mass"] = density.sum() * voxel
            words.append(f"{name}: {density.sum() * voxel:.4g} g, at most {density.max():.3g} g/cm^3")
        for channel, name in enumerate((*problem.channels, "transmission")):
            n, y = counts[..., channel].astype(float), np.maximum(expected[..., channel], 1e-3)
            if n.any():
                misfit = np.sqrt(np.sum((n - y) ** 2) / np.sum(n**2))
                figures |= {f"{name}_misfit": misfit, f"{name}_misfit_noise": np.sqrt(n.sum() / np.sum(n**2))}
        parts = ", ".join(f"{k.removesuffix('_misfit')} {v:.1%}" for k, v in figures.items() if k.endswith("_misfit"))
        words.append(f"counts are explained within {parts} (noise and edges within a voxel)")
        words += _contradictions(figures)
        moves = np.asarray(refined_offsets(model, jnp.asarray(counts), True) - model.offsets)
        off = float(np.sqrt(np.mean(moves**2)))
        figures |= {"offsets": np.asarray(model.offsets), "offsets_left": off}
        if settings.align.unknowns != "none":
            words.append(f"axis {(scan.frame_shape[1] - 1) / 2 - np.mean(model.offsets):.3f}, views moved by up to "
                         f"{np.ptp(model.offsets) / 2:.2f} steps")  # fmt: skip
        elif off > 0.15:
            words.append(f"views seem to be off by {off:.2f} steps (rms): try align.unknowns = wobble")
        more, said = _secondary_shares(problem)
        return figures | more, words + said

    def quantities(self, problem: Emission, scan: Scan, settings: Settings) -> dict[str, Quantity]:
        """Give the density of every element and of the matrix, with error bars, and a sinogram."""
        model, pixel = problem.model, float(np.mean(scan.pixel_size))
        density = np.asarray(model.by_step)
        bars = np.asarray(_bars(model))
        axes = ("z", "y", "x")
        found = {
            name: Quantity(density[c], "g/cm3", axes, pixel, f"density of {name}", "volume")
            for c, name in list(enumerate(problem.components))[1:] + [(0, problem.components[0])]
        }
        found |= {
            f"{name}_error": Quantity(bars[c], "g/cm3", axes, pixel, f"error bar of {name}", "data")
            for c, name in enumerate(problem.components)
        }
        sinogram = problem.data["counts"][:, density.shape[1] // 2, :, 0]
        label = f"counts of {problem.channels[0]}"
        return found | {"sinogram": Quantity(sinogram, "counts", ("view", "u"), pixel, label, "image")}


# ---------------------------------------------------------------------------------------------------- solve
def _alternated(solver: Solver, free: str, problem: Emission, run: Run) -> Outcome:
    model, counts = problem.model, jnp.asarray(problem.data["counts"])
    if free != "none":
        offsets = measured_offsets(model, counts, problem.compton, free == "wobble")
        model = model.replace(offsets=jnp.asarray(offsets, counts.dtype))
        for done in range(_ROUNDS):
            model = alternate(model, counts, problem.compton, 1, solver.sweep_steps)
            model = model.replace(offsets=refined_offsets(model, counts, free == "wobble" and done > 0))
            run.console.say(f"axis {(counts.shape[2] - 1) / 2 - float(jnp.mean(model.offsets)):.3f}")
    sweeps = solver.sweeps or (2 if solver.name == "joint" else 4)
    model = alternate(model, counts, problem.compton, sweeps, solver.sweep_steps)
    return Outcome(problem.replace(model=model), np.zeros(0))


def _excited_again(solver: Solver, problem: Emission, run: Run) -> Outcome:
    model = _with_secondary(problem).model
    model = alternate(model, jnp.asarray(problem.data["counts"]), problem.compton, _ROUNDS, solver.sweep_steps)
    return Outcome(_with_secondary(problem.replace(model=model)), np.zeros(0))


def _with_secondary(problem: Emission) -> Emission:
    """Put in what the densities as they are now excite in each other."""
    found = secondary_counts(problem.model, list(problem.excited), problem.step)
    return problem.replace(model=problem.model.replace(secondary=found))


def _sharpened(solver: Solver, free: str, problem: Emission, run: Run) -> Outcome:
    """Rounds of all components together on finer voxels, the noise of edges and the absorption anew in each."""
    model, dual = problem.model.refined(solver.voxels), None
    counts = jnp.asarray(problem.data["counts"])
    for done in range(solver.rounds):
        spread = _spread(solver, problem.data["counts"], model)
        model, dual = sharpened(model, counts, spread, solver.smoothness, dual, solver.steps)
        if free != "none":
            model = model.replace(offsets=refined_offsets(model, counts, free == "wobble"))
        run.console.say(f"fluorescence: round {done + 1} of {solver.rounds}")
    return Outcome(problem.replace(model=model), np.zeros(0))


def _spread(solver: Solver, counts: np.ndarray, model: Fluorescence) -> np.ndarray:
    """Estimate how many times the variance of photon noise the residuals of every channel have.

    One number a channel, so that counts keep their sums: weights that fall with the counts would favour the faint
    borders of grains, where a blurred prediction is too bright, and make every element too light.
    """
    expected = np.maximum(np.asarray(_predicted(model), float), 1e-3)
    square, mean = (np.maximum(np.mean(counts.astype(float) ** k, (0, 1, 2)), 1e-9) for k in (2, 1))
    error = np.clip(np.mean((counts - expected) ** 2 - counts, (0, 1, 2)) / square, 0, solver.model_error**2)
    return 1 + error * square / mean


def _amounts(solver: Solver, problem: Emission, run: Run) -> Outcome:
    if problem.model.secondary is not None:
        problem = _with_secondary(problem)
    spread = _spread(solver, problem.data["counts"], problem.model)
    model = refined_amounts(problem.model, jnp.asarray(problem.data["counts"]), jnp.asarray(spread, jnp.float32))
    return Outcome(problem.replace(model=model), np.zeros(0))


def _excited(scan: Scan, settings: Settings) -> tuple[Excitation, ...]:
    """Look up which lines excite which.

    **Raises:** where it is asked for: `MissingPackage` without a table, `InputError` for a file that names no lines.
    """
    if "lines" not in scan.extra:
        if settings.model.secondary:
            raise InputError(f"{scan.name}: this layout does not say which lines were counted: model.secondary = false")
        return ()
    try:
        energy = energy_of(scan)
        lines, _ = lines_of(scan, energy, settings.tables.lines)
    except MissingPackage:
        if settings.model.secondary:
            raise
        return ()
    return tuple(excitations(CrossSections(**scan.extra["cross_sections"]), lines, energy))


def _contradictions(figures: dict[str, Any]) -> list[str]:
    """Warn of channels that are explained far worse than noise and edges within a voxel allow."""
    names = [key.removesuffix("_misfit") for key in figures if key.endswith("_misfit")]
    floor = lambda name: max(_WORSE[0] * figures[f"{name}_misfit_noise"], _WORSE[1])
    bad = [name for name in names if figures[f"{name}_misfit"] > floor(name)]
    if not bad:
        return []
    return [
        f"WARNING: counts of {', '.join(bad)} contradict each other: check angles and their order, the axis "
        "(align.unknowns), the direction of the detector and the absorption"
    ]


def _secondary_shares(problem: Emission) -> tuple[dict[str, Any], list[str]]:
    """Give the share of secondary excitation in the counts of every line, and say which matter."""
    if not problem.excited:
        return {}, []
    model, inside = problem.model, problem.model.secondary is not None
    counted = np.asarray(_with_secondary(problem).model.secondary * model.exposure[..., :-1], float).sum((0, 1, 2))
    shares = counted / np.maximum(problem.data["counts"][..., :-1].sum((0, 1, 2), dtype=float), 1)
    figures = {f"{n}_secondary": s for n, s in zip(problem.channels, shares, strict=True) if s > 0}
    much = [(n, s) for n, s in zip(problem.channels, shares, strict=True) if s > _NAMED]
    if not much:
        return figures, []
    causes = lambda n: sorted(
        {problem.components[e.source] for e in problem.excited if problem.channels[e.channel] == n}
    )
    parts = "; ".join(f"{s:.1%} of {n} by {', '.join(causes(n))}" for n, s in much)
    rest = "taken into account" if inside else "masses are too large by about that (model.secondary = true)"
    return figures, [f"secondary excitation: {parts}: {rest}"]


@jax.jit
def _predicted(model: Fluorescence) -> Array:
    return model(slice(None))


@jax.jit
def _bars(model: Fluorescence) -> Array:
    expected, model = model(slice(None)), model.refined(1)
    return 1 / jnp.sqrt(jnp.maximum(curvature(model, expected), 1e-30))


def _cost(model: Fluorescence, batch: Batch) -> Array:
    """Half the Poisson deviance, summed."""
    expected = jnp.maximum(model(batch.views), 1e-3)
    counts = batch.counts
    deviance = expected - counts - counts * jnp.log(expected / jnp.maximum(counts, 1))
    return jnp.sum(deviance)


def _span_line(angles: Any) -> list[str]:
    """Say so when the views leave out one side of the body."""
    steps = np.sort(np.mod(np.asarray(angles, float), 2 * np.pi))
    gap = float(np.max(np.diff(np.r_[steps, steps[0] + 2 * np.pi])))
    if gap < np.pi / 2:
        return []
    return [
        f"no view over {np.rad2deg(gap):.0f} degrees: self-absorption is not the same from behind, measure the full "
        "circle; densities deep inside are less certain than their error bars"
    ]

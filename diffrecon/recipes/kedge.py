"""K-edge subtraction: areal densities of named materials from radiographs at two or more energies.

The likelihood of the counts is solved pixel by pixel; a penalty on edges joins the pixels. Subtraction of logarithms,
`solver.name = "direct"`, is its limit for many photons.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float

from .. import losses, penalties, physics, prepare, quality
from .._console import Console
from .._model import Batch
from .._result import Quantity
from ..errors import InputError
from ..modality import Modality, Outcome, Problem, Run, Stage, Work, descent
from ..models import KEdge, attenuation_table, check_table
from ..priors import Coordinates, filtered
from ..scan import Scan
from ..settings import above, refuse_changed, section, setting
from ..solvers import fisher_deviation, fisher_scoring, log_subtraction
from . import _kedge_volume, looks
from ._kedge_volume import direct_densities

_LIKELIHOOD = {"name": ("likelihood",)}
_NO_LIGHT = 0.01  # of the empty beam, in the brightest pixels
_AIR = 0.9  # of the empty beam, in the brightest five by five pixels: less is no air


@dataclass(frozen=True)
class Model:
    """What is in the beam."""

    materials: dict | tuple[str, ...] | str | None = setting(
        None, 'compositions ["Ni", "SiO2"], or named: {nickel = "Ni", glass = "SiO2"}'
    )
    energies: tuple[Any, ...] | str | None = setting(
        None, 'of the views, ["8.25 keV", "8.42 keV"]; by default the file\'s'
    )
    attenuation: tuple[Any, ...] | None = setting(
        None,
        "measured mass attenuation coefficients [cm^2/g] instead of the tables: a row an energy, a column a material",
    )
    bandwidth: float = setting(
        0.0, "of tomograms: full width at half maximum of the energy, relative; 0.01 to 0.03 of multilayers",
        at_least=0, below=0.5,
    )  # fmt: skip
    harmonics: float = setting(
        0.0, "of tomograms: share of the counts of the empty beam at three times the energy", at_least=0, below=0.5
    )


@dataclass(frozen=True)
class Solver:
    """How the areal densities are found."""

    name: str = setting(
        "likelihood", "Poisson likelihood, or logarithms and a weighted solve", choices=("likelihood", "direct")
    )
    steps: int = setting(12, "of radiographs: steps of Fisher scoring", at_least=1, only=_LIKELIHOOD)
    tv: float | None = setting(
        None,
        "weight of total variation, in units of each material's error bar; by default 0 for radiographs, where 0.3 is "
        "a beginning, and 0.35 for tomograms",
        at_least=0,
        only=_LIKELIHOOD,
    )
    positive: bool = setting(False, "with tv: densities below zero cost", only=_LIKELIHOOD)
    tv_steps: int = setting(
        60, "of radiographs: steps of L-BFGS with total variation", at_least=1, only=_LIKELIHOOD | {"tv": above(0)}
    )
    rounds: int = setting(24, "of Gauss-Newton for tomograms", at_least=5, only=_LIKELIHOOD)
    align: str = setting(
        "picture",
        "of tomograms: besides the axis, how far the picture moved between energies, or the sample on its stage too",
        choices=("none", "picture", "sample"),
        only=_LIKELIHOOD,
    )


@dataclass(frozen=True)
class Quality:
    """How tomograms are judged."""

    held_out: float = setting(0.05, "of tomograms: fraction of the views that are never fitted", at_least=0, below=1)
    seed: int = setting(0, "of the choice of views, and of the noise of error bars")


@dataclass(frozen=True)
class Settings:
    """Every setting of the method."""

    model: Model = section(Model)
    solver: Solver = section(Solver)
    quality: Quality = section(Quality)


@dataclass(frozen=True)
class Radiographs(Problem):
    """The problem with the names of its materials and what is to be said of its data."""

    materials: Mapping[str, str] = field(default_factory=dict)
    lines: tuple[str, ...] = ()


class KEdgeSubtraction(looks.KEdge, Modality):
    """Areal densities [g/cm^2] with error bars from radiographs at several energies."""

    settings = Settings

    def start(self, scan: Scan, settings: Settings, console: Console) -> Problem:
        """Put zero areal densities behind the scan's beam; tomograms get volumes."""
        named = settings.model.materials
        materials = _materials(scan.extra.get("materials") if named is None else named)
        energies = _energies(scan, settings.model.energies)
        if looks.at_angles(scan):
            several = np.unique(energies)
            check_table(_table(materials, several, settings.model.attenuation), list(materials), list(several))
            refuse_changed(settings, ("solver.steps", "solver.tv_steps"), "on tomograms, which take solver.rounds")
            return _kedge_volume.start(scan, settings, materials, energies, console)
        _refuse_of_radiographs(settings)
        table = _table(materials, energies, settings.model.attenuation)
        condition = check_table(table, list(materials), list(energies))
        model, lines = _model(scan, table)
        mask = np.ones(scan.frame_shape, bool) if scan.mask is None else np.asarray(scan.mask, bool)
        mask = mask & np.broadcast_to((np.asarray(model.flats) > 0).all(0), mask.shape)
        for energy, row in zip(energies, table, strict=True):
            values = ", ".join(f"{name} {value:.4g}" for name, value in zip(materials, row, strict=True))
            console.say(f"{energy / 1e3:.5g} keV: mu/rho {values} cm^2/g")
        lines = (_condition_line(condition), *lines)
        data = {"counts": np.asarray(scan.counts), "mask": mask}
        return Radiographs(model, data, _cost, {"areal": 1.0}, materials=materials, lines=lines)

    def split(self, problem: Problem, settings: Settings) -> tuple[np.ndarray, np.ndarray]:
        """Leave out views of tomograms; each radiograph is the only one at its energy."""
        if isinstance(problem, _kedge_volume.Densities):
            return super().split(problem, settings)
        return np.arange(problem.views), np.arange(0)

    def stages(self, problem: Any, settings: Settings, console: Console) -> Work:
        """Solve the logarithms, the likelihood, and with total variation where a weight is given."""
        solver = settings.solver
        if isinstance(problem, _kedge_volume.Densities):
            keeps = ("density", "drift", "gain", "moves")
            work = _kedge_volume.Rounds(solver.rounds) if solver.name == "likelihood" else direct_densities
            yield Stage("k-edge: densities", work, keeps)
            return
        problem = yield Stage("k-edge: logarithms", _by_pixel(log_subtraction))
        if solver.name == "direct":
            return
        problem = yield Stage("k-edge: likelihood", _by_pixel(lambda m, c: fisher_scoring(m, c, solver.steps)))
        if solver.tv:
            white = _whitened(problem)
            cost = _Penalised(solver.tv, solver.positive)
            stage = descent("k-edge, total variation: step", optax.lbfgs(memory_size=10), solver.tv_steps, chunk=20)

            def solve(problem: Radiographs, run: Run) -> Outcome:
                outcome = stage.solve(problem.replace(model=white, cost=cost, unknowns={"white": 1.0}), run)
                return outcome._replace(problem=problem.replace(model=outcome.problem.model.solution()))

            yield Stage(stage.label, solve)

    def verdict(self, problem: Any, scan: Scan, settings: Settings) -> tuple[dict[str, Any], list[str]]:
        """Say how well the energies tell the materials apart, and how well the model explains the counts."""
        if isinstance(problem, _kedge_volume.Densities):
            return _kedge_volume.verdict(problem)
        model, counts, mask = problem.model, problem.data["counts"], problem.data["mask"]
        areal, bars = np.asarray(model.areal), np.asarray(fisher_deviation(model, problem.views))
        prediction = problem.predict(np.arange(problem.views)).astype(float)
        deviance = np.array([quality.deviance(n, p, mask) for n, p in zip(counts, prediction, strict=True)])
        figures: dict[str, Any] = {"deviance": deviance}
        before = ", before total variation" if settings.solver.tv else ""
        lines, noise = list(problem.lines), "photon noise"
        if model.flats_variance is not None:
            noise += " of frames and flats"
        for name, image, bar in zip(problem.materials, areal, bars, strict=True):
            figures[f"{name}_mean"] = float(image[mask].mean())
            lines.append(
                f"{name}: mean {image[mask].mean():.4g} g/cm^2, error bar of a pixel {np.median(bar[mask]):.2g} g/cm^2 "
                f"({noise}{before})"
            )
            if image[mask].mean() < -5 * max(np.median(bar[mask]) / mask.sum() ** 0.5, 0.01 * np.median(bar[mask])):
                lines.append(
                    f"WARNING: {name} is below zero on the mean, as no matter is: check flats, darks and the order of "
                    "the energies; or another material is missing"
                )
        if problem.views > len(problem.materials):
            left = deviance.mean() / _floor(problem)
            lines.append(
                f"Poisson deviance a pixel over what is left by the fit: {left:.3f}; "
                "well above 1 a material is missing, or a table is wrong"
            )
        dark = float((counts[:, mask] <= np.mean(np.asarray(model.darks))).mean())
        if dark > 1e-3:
            figures["clipped_fraction"] = dark
            lines.append(f"{dark:.2%} of the values hold no light above the dark: thick pixels are lower bounds")
        return figures, lines

    def error_bars(self, problem: Any, scan: Scan, settings: Settings) -> tuple[dict[str, Quantity], list[str]]:
        """Give error bars of volumes; those of radiographs come with them."""
        if isinstance(problem, _kedge_volume.Densities) and settings.solver.name == "likelihood":
            return _kedge_volume.error_bars(problem, scan, settings.solver.rounds, settings.quality.seed)
        return {}, []

    def quantities(self, problem: Any, scan: Scan, settings: Settings) -> dict[str, Quantity]:
        """Give the (areal) density of every material, and its error bar."""
        if isinstance(problem, _kedge_volume.Densities):
            return _kedge_volume.quantities(problem, scan)
        areal, bars = np.asarray(problem.model.areal), np.asarray(fisher_deviation(problem.model, problem.views))
        pixel = None if scan.pixel_size is None else float(np.mean(scan.pixel_size))

        def image(values: np.ndarray, label: str) -> Quantity:
            return Quantity(np.where(problem.data["mask"], values, np.nan), "g/cm2", ("y", "x"), pixel, label, "image")

        named = list(problem.materials.items())
        found = {name: image(areal[m], f"areal density of {c}") for m, (name, c) in enumerate(named)}
        return found | {f"{name}_error": image(bars[m], f"error bar of {c}") for m, (name, c) in enumerate(named)}


# ---------------------------------------------------------------------------------------------------- the scan
def _refuse_of_radiographs(settings: Settings) -> None:
    """Refuse what only tomograms have, and a bound without the total variation that keeps it."""
    changed = [name for name in ("bandwidth", "harmonics") if getattr(settings.model, name)]
    if changed:
        raise InputError(
            f"model.{changed[0]} is for tomograms: radiographs need coefficients of their spectrum, model.attenuation; "
            "or the rotation angles are missing (data.angles)"
        )
    only = "on radiographs (or are the rotation angles missing? data.angles)"
    refuse_changed(settings, ("solver.rounds", "solver.align", "quality"), only)
    if not settings.solver.tv:
        refuse_changed(settings, ("solver.positive",), "on radiographs without solver.tv")


def _energies(scan: Scan, energies: Any) -> np.ndarray:
    stored = None if scan.geometry is None else scan.geometry.energy
    if energies is None and stored is None:
        raise InputError(f"{scan.name}: k-edge needs the energy of every view: {looks.SAY_ENERGIES}")
    if isinstance(energies, str):
        energies = energies.split(",")
    values = stored if energies is None else [_energy(e) for e in energies]
    energies = np.atleast_1d(np.asarray(values, float))
    if energies.shape != (scan.views,):
        raise InputError(
            f"{scan.name}: {energies.size} energies for {scan.views} views; one for each is expected (model.energies)"
        )
    return energies


def _energy(value: Any) -> float:
    number = physics.quantity(value.strip() if isinstance(value, str) else value, "eV", "model.energies")
    return number if isinstance(value, str) and number > 200 else physics.plausible_energy(number)[0]


def _materials(materials: Any) -> dict[str, str]:
    if materials is None:
        raise InputError('k-edge: which materials? For example --set \'model.materials=["Ni", "SiO2"]\'')
    if isinstance(materials, str):
        materials = [part for part in re.split(r"[;,]\s*", materials) if part]
    named = (
        dict(materials) if isinstance(materials, Mapping) else {str(m).partition(",")[0].strip(): m for m in materials}
    )
    if not named or not isinstance(materials, Mapping) and len(named) < len(materials):
        raise InputError(f"model.materials: {materials!r}: name one or more materials, each once")
    return {re.sub(r"\W+", "_", str(name)): str(composition) for name, composition in named.items()}


def _table(materials: Mapping[str, str], energies: np.ndarray, measured: Any) -> np.ndarray:
    if measured is None:
        return attenuation_table(materials, list(energies))
    try:
        table = np.asarray(measured, float)
    except (TypeError, ValueError):
        table = np.zeros(0)
    if table.shape != (len(energies), len(materials)):
        raise InputError(
            f"model.attenuation: expected {len(energies)} rows (energies) of {len(materials)} numbers "
            f"(materials) in cm^2/g, not {measured!r}"
        )
    return table


def _model(scan: Scan, table: np.ndarray) -> tuple[KEdge, list[str]]:
    """Put zero areal densities behind the scan's beam; flats in groups of one energy where their number allows it."""
    if scan.flats is None and scan.flux is None:
        raise InputError(f"{scan.name}: {looks.NO_BEAM}")
    beams = prepare.energy_beams(scan, np.arange(scan.views))
    beam, dark, noise = beams.light, beams.dark, None
    lines = [*beams.lines]
    if scan.flats is not None:
        lines += [looks.TWO_BEAMS] * (scan.flux is not None)
        noise = (np.maximum(beam, 0) + dark) / (beams.flats[:, None, None] * np.maximum(beam, 1e-3) ** 2)
    if not (beam > 0).any():
        raise InputError(f"{scan.name}: the empty beam is nowhere above the dark")
    good = np.ones(beam.shape[1:], bool) if scan.mask is None or scan.mask.shape != beam.shape[1:] else scan.mask
    lost = int((good & ~(beam > 0).all(0)).sum())
    if lost:
        lines.append(f"{lost} pixels without light or value in flats or darks are left out; they hold NaN")
    beam, dark = np.where(beam > 0, beam, 0), np.nan_to_num(dark)
    noise = None if noise is None else np.nan_to_num(noise)
    lines += _odd_views(scan, beam, dark)
    cast = lambda a: jnp.asarray(a, jnp.float32)
    zero = cast(np.zeros((table.shape[1], *scan.frame_shape)))
    noise = None if noise is None else cast(noise)
    return KEdge(zero, cast(table), cast(np.maximum(beam, 0)), cast(dark), noise), lines


def _odd_views(scan: Scan, beam: np.ndarray, dark: np.ndarray) -> list[str]:
    """Name views that transmit more than the empty beam, as no matter does, and views that hold no air.

    **Raises:** `InputError` for a view without light, the only one at its energy.
    """
    light, lit = np.asarray(scan.counts, float) - dark, np.broadcast_to(beam > 0, scan.counts.shape)
    if scan.mask is not None:
        lit = lit & scan.mask
    beam = np.broadcast_to(beam, light.shape)
    parts = [n[on] / b[on] for n, b, on in zip(light, beam, lit, strict=True)]
    shares = np.array([np.median(part) for part in parts])
    brightest = np.array([np.quantile(part, 0.99) for part in parts])
    if (brightest < _NO_LIGHT).any():
        view = int(np.argmin(brightest))
        raise InputError(
            f"{scan.name}: view {view} transmits {max(brightest[view], 0):.2g} of the empty beam at most, as no other "
            "does at its energy: was the shutter closed?"
        )
    said, named = [], lambda some, of: ", ".join(f"{view} ({of[view]:.3g} times)" for view in some[:6])
    bright = np.flatnonzero(~(shares < 1.2))
    if bright.size:
        said.append(
            f"WARNING: views brighter than the empty beam: {named(bright, shares)}; check flats, exposure and order"
        )
    share = light / np.where(beam > 0, beam, 1)
    brightest = np.array([_brightest_region(part, on) for part, on in zip(share, lit, strict=True)])
    dim = np.flatnonzero(brightest < _AIR)
    if dim.size:
        said.append(
            f"views nowhere as bright as the empty beam: {named(dim, brightest)} at most; where there is air beside "
            "the sample the flats are of another exposure"
        )
    return said


def _brightest_region(share: np.ndarray, lit: np.ndarray) -> float:
    """Find the transmission of the brightest five by five pixels."""
    rows, columns = (n // 5 for n in share.shape)
    if not rows or not columns:
        return float(np.median(share[lit]))
    tiles = lambda a: a[: rows * 5, : columns * 5].reshape(rows, 5, columns, 5).sum((1, 3), dtype=float)
    return float(np.max(tiles(np.where(lit, share, 0)) / np.maximum(tiles(lit), 1)))


def _floor(problem: Radiographs) -> float:
    """Compute the deviance a pixel that noise of frames and flats leaves after a fit by the right model.

    Residuals of a weighted fit have the covariance `C - A F^-1 A'`, C that of the data in optical depth.
    """
    model, views, mask = problem.model, np.arange(problem.views), problem.data["mask"]
    table, weight = np.asarray(model.attenuation, float), np.asarray(model.weight(views), float)
    flats = 0.0 if model.flats_variance is None else np.asarray(model.flats_variance, float)
    fitted = np.einsum("vyx,vm,vn->yxmn", weight, table, table)[mask]
    solved = np.linalg.solve(np.asarray(model.information(views), float)[mask], fitted)
    used = np.trace(solved, axis1=-2, axis2=-1)
    return float(np.mean((1 + weight * flats).sum(0)[mask] - used)) / problem.views


def _condition_line(condition: float) -> str:
    much = ": noise grows by about as much; energies closer to an edge, on both sides, would help"
    return f"the energies tell the materials apart with a condition of {condition:.3g}{much if condition > 30 else ''}"


# ---------------------------------------------------------------------------------------------------- solve
def _by_pixel(solver: Any) -> Any:
    """Make a stage's solve of a function `(model, counts) -> areal densities`."""

    def solve(problem: Radiographs, run: Run) -> Outcome:
        areal = solver(problem.model, jnp.asarray(problem.data["counts"]))
        areal = jnp.where(problem.data["mask"], areal, 0)  # where there is no beam there is no number
        return Outcome(problem.replace(model=problem.model.replace(areal=areal)), np.zeros(0))

    return solve


def _cost(model: KEdge, batch: Batch) -> Array:
    return losses.poisson(model(batch.views), batch.counts, batch.mask)


class _Densities(Coordinates):
    """Areal densities in coordinates in which the data have curvature one and the materials do not fight."""

    spread: Float[Array, "material 1 1"]

    def put(self, model: KEdge, maps: Float[Array, "material y x"]) -> KEdge:
        """Put the areal densities into the model."""
        return model.replace(areal=maps)


def _whitened(problem: Radiographs) -> _Densities:
    """Take the coordinates in which the mean Fisher information is one."""
    model, mask = problem.model, problem.data["mask"]
    matrix = np.asarray(model.information(jnp.arange(problem.views)), float)[mask].mean(0)
    basis = np.linalg.inv(np.linalg.cholesky(matrix)).T  # in float64: lines of neighbouring elements are much alike
    bars = np.asarray(fisher_deviation(model, problem.views), float)
    spread = np.median(bars[:, mask], axis=1)[:, None, None]
    cast = lambda a: jnp.asarray(a, jnp.float32)
    white = filtered(model.areal, cast(np.linalg.inv(basis)[..., None, None]))
    return _Densities(white, cast(basis[..., None, None]), {}, {}, model, cast(spread))


class _Penalised:
    """Negative log-likelihood a pixel and energy, with total variation of each material in units of its error bar."""

    def __init__(self, tv: float, positive: bool):
        self.tv, self.positive = tv, positive

    def __call__(self, problem: _Densities, batch: Batch) -> Array:
        """Give the cost."""
        model = problem.solution()
        scaled = model.areal / problem.spread
        share = self.tv * scaled.shape[0] / model.flats.shape[0]
        cost = _cost(model, batch) + share * penalties.tv(scaled, eps=0.1, axes=(-2, -1))
        return cost + jnp.mean(jnp.minimum(scaled, 0) ** 2) if self.positive else cost

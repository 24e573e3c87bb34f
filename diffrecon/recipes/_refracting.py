"""The solve that all differential phase methods share: fit, predict frames never fitted, fit all, error bars."""

from dataclasses import dataclass
from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np

from .. import losses, prepare
from .._console import Console
from .._model import Batch
from .._result import Quantity
from ..errors import InputError
from ..modality import Modality, Outcome, Problem, Run, Stage, Work
from ..scan import Scan
from ..settings import setting
from ..solvers.refraction import RefractionMaps, fit_maps, information_of
from . import _refraction_volume
from ._pattern_checks import air_lines, contradiction_lines
from ._refraction import (
    AtSample,
    Unit,
    at_sample,
    error_maps,
    error_quantities,
    optics_of,
    refraction_quantities,
    scattering_of,
    zero_of,
)  # fmt: skip
from ._refraction_volume import RefractionTomogram, Volume

__all__ = [
    "Quality", "Refracting", "Refraction", "Solver", "Volume", "judges", "maps_and", "poisson_cost",
    "refuse_volume",
]  # fmt: skip


_FEW = 5  # positions, from which on some can judge; below, pixels do
_OBLIQUE = 0.35  # part of the direction across lines, below which they tell nothing of that axis


@dataclass(frozen=True)
class Solver:
    """How the images are found."""

    rounds: int = setting(5, "readings of all frames", at_least=1)
    steps: int = setting(12, "of conjugate gradients in each", at_least=1)


@dataclass(frozen=True)
class Quality:
    """How the result is judged."""

    held_out: float | None = setting(
        0.2,
        "fraction of the membrane positions that judge before they are fitted; of the pixels, of fewer than 5",
        at_least=0,
        below=1,
    )
    seed: int = setting(0, "of the choice of positions, and of the error bars")
    error_bars: int = setting(3, "solves of noise alone for the error bars; 0 for none", at_least=0)
    halves: bool = setting(False, "two more solves, of every other position")


@dataclass(frozen=True)
class Refraction(Problem):
    """The problem with its reference and what is to be said of it.

    **Fields:** `grain`, the size of the pattern [pixel], by which a visibility means scattering, and its
    `saturation` (`operators.saturated_loss`); `across` (row, column), the only
    direction that the pattern tells; `patterns`, the reference taken apart (`prepare.split_patterns`);
    `steady`, the share of the prior of the visibility that the pattern needs; `planned`, steps as they were meant
    [periods].
    """

    unit: Unit = Unit(1.0, 1.0, 1.0, 0.0, 1.0)
    good: Any = None
    reference: Any = None
    gain: float = 1.0
    grain: float = 1.0
    saturation: float = 0.0
    across: tuple[float, float] | None = None
    patterns: Any = None
    steady: float = 1.0
    planned: Any = None
    lines: tuple[str, ...] = ()

    @property
    def told(self) -> np.ndarray:
        """Displacements (row, column) that the pattern tells, as one or zero: both of oblique lines, neither well."""
        return np.ones(2) if self.across is None else np.array([abs(part) > _OBLIQUE for part in self.across], float)


class Refracting(Modality):
    """Phase [rad], refraction angles [rad], transmission and dark field from a displaced pattern; of frames at many
    angles, volumes of delta, attenuation [1/m] and scattering [rad^2/m].
    """

    def begin(self, scan: Scan, settings: Any, console: Console, before: Refraction | None = None) -> Refraction:
        """Make the first guess of frames at one angle, from that `before`, if any."""
        raise NotImplementedError

    def start(self, scan: Scan, settings: Any, console: Console) -> Any:
        """Make the first guess; of frames at many angles, sort them."""
        if _refraction_volume.at_angles(scan):
            return _refraction_volume.start(scan, scan.frame_shape, optics_of(scan).pixel)
        refuse_volume(scan, settings)
        return self.begin(scan, settings, console)

    def line_integrals(self, scan: Scan, settings: Any, before: Any, share: float) -> tuple[Any, Refraction, float]:
        """Solve the frames of one angle for its line integrals, with a `share` of the priors; give the solved problem
        and its misfit, too.
        """
        problem, misfit = self.solved(self.begin(scan, settings, Console(quiet=True), before), settings, share)
        seen, unit = self.sample(problem, settings), problem.unit
        lines = _refraction_volume.Lines(
            -seen.potential * unit.angle, -seen.attenuation, self.scattering(problem, seen.visibility),
            np.asarray(problem.data["counts"], float).sum(0),
        )  # fmt: skip
        return lines, problem, misfit

    def saturation(self, problem: Refraction) -> float:
        """Say how far the loss of visibility saturates (`operators.saturated_loss`); 0 if it is not known."""
        return problem.saturation

    def scattering(self, problem: Refraction, visibility: np.ndarray) -> np.ndarray:
        """Give the variance of scattering angles [rad^2] that a visibility means."""
        rings = None if problem.patterns is None else problem.patterns.rings
        return scattering_of(visibility, problem.unit, problem.grain, self.saturation(problem), rings)

    def solved(self, problem: Refraction, settings: Any, share: float) -> tuple[Refraction, float]:
        """Fit all frames of one angle with a `share` of the priors; give the misfit, too."""
        fit = {"rounds": settings.solver.rounds, "steps": settings.solver.steps}
        counts = jnp.asarray(problem.data["counts"])
        model, history = fit_maps(problem.model, counts, settings.prior.smoothness(share, problem.steady), **fit)
        return problem.replace(model=model), float(history[-1])

    def split(self, problem: Refraction | RefractionTomogram, settings: Any) -> tuple[np.ndarray, np.ndarray]:
        """Fit all positions: those that judge are held out in a stage of their own, and then fitted too."""
        return np.arange(problem.views), np.zeros(0, int)

    def stages(self, problem: Any, settings: Any, console: Console) -> Work:
        """Fit without the positions that judge, judge, and fit all; of many angles, solve each, then the volumes."""
        if isinstance(problem, RefractionTomogram):
            yield from _refraction_volume.stages(self, problem, settings)
            return
        share = self.held_out(problem, settings)
        held = judges(problem.views, share, settings.quality.seed)
        keeps = (*problem.unknowns, "trust")  # which pixels are believed is found by a fit, too
        rounds = settings.solver.rounds
        if held.size:
            judge = lambda p, run: _judged(p, run, held, settings, rounds)
            problem = yield Stage(f"{self.name}: without the judges", judge, keeps)
        elif share and len(problem.reference) == problem.views < _FEW:
            judge = lambda p, run: _judged_pixels(p, run, share, settings, rounds)
            problem = yield Stage(f"{self.name}: without the judges", judge, keeps)
        rest = max(2, rounds // 2) if "held_out_residual" in problem.figures else rounds
        yield Stage(self.name, lambda p, run: _fitted(p, run, settings, rest), keeps)

    def held_out(self, problem: Refraction, settings: Any) -> float:
        """Say what part of the frames, or of the pixels, judges."""
        return settings.quality.held_out or 0.0

    def image(self, problem: Refraction | RefractionTomogram) -> np.ndarray:
        """The displacement along x, by which halves are compared."""
        return np.asarray(problem.model.fields(sharp=True)[1])

    def drift(self, problem: Refraction, zero: np.ndarray) -> tuple[dict[str, Any], str]:
        """Say how the pattern moved between the scans: figures, and the same in words."""
        raise NotImplementedError

    def verdict(self, problem: Any, scan: Scan, settings: Any) -> tuple[dict[str, Any], list[str]]:
        """Say how the pattern drifted, and how well frames were predicted that had not been fitted."""
        if isinstance(problem, RefractionTomogram):
            return _refraction_volume.verdict(problem)
        figures, line = self.drift(problem, self.zero(problem, settings, measured=True))
        taken = "; this is taken as zero (air)" if settings.model.air == "mode" else "; it is left in"
        seen, lines = problem.figures, [*problem.lines, line + taken]
        if "held_out_residual" in seen:
            pixels = "held_out_pixels" in seen
            judges, beside = ("pixels", "reference dimmed alone") if pixels else ("frames", "pixel ratio of the others")
            lines.insert(0, (
                f"{int(seen['held_out_pixels' if pixels else 'held_out_count'])} {judges} never fitted: relative "
                f"residual {seen['held_out_residual']:.4f}; {beside} {seen['held_out_ratio']:.4f}, noise of the frames "
                f"{seen['held_out_noise']:.4f}"
            ))  # fmt: skip
            lines += contradiction_lines(seen["held_out_residual"], seen["held_out_noise"])
        lines += air_lines(np.exp(np.asarray(problem.model.fields()[2], float)), problem.good)
        return figures, lines

    def zero(self, problem: Refraction, settings: Any, measured: bool = False) -> np.ndarray:
        """Give the displacement (row, column) [pixel] that is taken as zero; as `measured`, whether it is taken or
        not."""
        if settings.model.air == "none" and not measured:
            return np.zeros(2)
        fields = np.array(problem.model.fields(sharp=True)[:2], float) * problem.told[:, None, None]
        return zero_of(fields[:, problem.good])

    def sample(self, problem: Refraction, settings: Any) -> AtSample:
        """Carry the images back to where the rays left the sample."""
        fields = np.array(problem.model.fields(sharp=True), float)
        fields[:2] *= problem.told[:, None, None]
        return at_sample(fields, problem.model.maps, problem.good, self.zero(problem, settings))

    def quantities(self, problem: Any, scan: Scan, settings: Any) -> dict[str, Quantity]:
        """Give phase, angles, transmission and dark field, or volumes."""
        if isinstance(problem, RefractionTomogram):
            return _refraction_volume.volume_quantities(problem)
        fields, sample = np.asarray(problem.model.fields(sharp=True), float), self.sample(problem, settings)
        scattering = self.scattering(problem, sample.visibility)
        found = refraction_quantities(fields, sample, problem.unit, problem.good, scattering)
        return {
            k: v for k, v in found.items() if problem.told[{"alpha_y": 0}.get(k, 1)] or k not in ("alpha_x", "alpha_y")
        }

    def error_bars(self, problem: Any, scan: Scan, settings: Any) -> tuple[dict[str, Quantity], list[str]]:
        """Give the deviation of every image, from the noise of the frames."""
        count, seed = settings.quality.error_bars, settings.quality.seed
        if not count or isinstance(problem, RefractionTomogram):
            return {}, []
        model = problem.model
        information, _ = information_of(model, jnp.asarray(problem.data["counts"]))
        prior = settings.prior.smoothness(1.0, problem.steady)
        deviation = error_maps(information, model, prior, count, seed)
        written = self.quantities(problem, scan, settings)
        bars = error_quantities(deviation, written, problem.unit, problem.grain, self.saturation(problem))
        told = "alpha_x" if "alpha_x" in written else "alpha_y"
        angle, dark = (float(np.nanmedian(bars[f"{name}_error"].data)) for name in (told, "darkfield"))
        return bars, [f"error bar of the angles {angle:.2g} rad, of the dark field {dark:.2g} (median)"]


def refuse_volume(scan: Scan, settings: Any) -> None:
    """Refuse settings of volumes where all frames are of one angle.

    **Raises:** `InputError`.
    """
    if settings.volume != type(settings)().volume:
        raise InputError(f"{scan.name}: volume.* is for frames at many angles, and these are of one: leave it out")


def maps_and(*others: str) -> dict[str, float]:
    """Name the unknowns: the images, and what belongs to single frames."""
    return {f"maps.{name}": 1.0 for name in RefractionMaps._fields} | dict.fromkeys(others, 1.0)


def poisson_cost(model: Any, batch: Batch) -> Any:
    return losses.poisson(model(batch.views), batch.counts)


# ---------------------------------------------------------------------------------------------------- stages
def judges(views: int, share: float | None, seed: int) -> np.ndarray:
    """Choose the positions that judge; with fewer than five every one is needed."""
    count = round((share or 0.0) * views) if views >= _FEW else 0
    return np.sort(np.random.default_rng(seed).permutation(views)[:count])


def _fitted(problem: Refraction, run: Run, settings: Any, rounds: int) -> Outcome:
    progress = run.console.progress(rounds, "round")
    prior = settings.prior.smoothness(1.0, problem.steady)
    model, history = fit_maps(
        problem.model, jnp.asarray(problem.data["counts"]), prior, rounds=rounds,
        steps=settings.solver.steps, callback=lambda step, misfit: progress.update(step, misfit=misfit),
    )  # fmt: skip
    return Outcome(problem.replace(model=model), history)


def _judged(problem: Refraction, run: Run, held: np.ndarray, settings: Any, rounds: int) -> Outcome:
    """Fit the other positions and predict those held out."""
    fitted = np.setdiff1d(np.arange(problem.views), held)
    outcome = _fitted(problem.of(fitted), run, settings, rounds)
    figures = _prediction(outcome.problem, problem, held)
    whole = problem.into(outcome.problem, fitted)
    model = whole.model.replace(maps=outcome.problem.model.maps, trust=outcome.problem.model.trust)
    return Outcome(whole.replace(model=model), outcome.history, figures=figures)


def _judged_pixels(problem: Refraction, run: Run, share: float, settings: Any, rounds: int) -> Outcome:
    """Fit the other pixels and predict those held out, single ones here and there, from what is around them."""
    random, trust = np.random.default_rng(settings.quality.seed), problem.model.trust
    held = (random.random(problem.good.shape) < share) & problem.good
    hidden = problem.model.replace(trust=trust * jnp.asarray(~held))
    outcome = _fitted(problem.replace(model=hidden), run, settings, rounds)
    solved = outcome.problem.model
    counts, reference = np.asarray(problem.data["counts"], float), np.asarray(problem.reference, float)
    others = problem.good & ~held
    near = lambda frames: prepare.mean_around((frames * others).sum(0), 2.0)
    edge = min(12, min(held.shape) // 8)
    held[:edge], held[-edge:], held[:, :edge], held[:, -edge:] = (False,) * 4
    predicted = np.asarray(_predicted(solved, jnp.arange(problem.views)))
    rms = lambda found: float(np.std((counts / found - 1)[:, held]))
    figures = {
        "held_out_residual": rms(predicted), "held_out_ratio": rms(near(counts) / near(reference) * reference),
        "held_out_noise": float(np.sqrt(np.mean(problem.gain / np.maximum(counts, 1e-3)[:, held]))),
        "held_out_pixels": float(held.sum()),
    }  # fmt: skip
    return Outcome(problem.replace(model=solved.replace(trust=trust)), outcome.history, figures=figures)


def _prediction(solved: Refraction, whole: Refraction, held: np.ndarray) -> dict[str, float]:
    """Predict frames that were not fitted; flux and drift are the only things of their own that they are asked for."""
    counts = np.asarray(whole.data["counts"])
    others = np.setdiff1d(np.arange(whole.views), held)
    unseen = whole.of(held).model.replace(maps=solved.model.maps, trust=solved.model.trust)
    for _ in range(4):
        unseen = information_of(unseen, jnp.asarray(counts[held]))[1]
    predicted = np.asarray(_predicted(unseen, jnp.arange(len(held))))
    reference = whole.reference
    ratio = (counts[others] / reference[others]).mean(0) * reference[held]
    inside = np.zeros(whole.good.shape, bool)
    edge = min(12, min(whole.good.shape) // 8)
    inside[edge:-edge, edge:-edge] = whole.good[edge:-edge, edge:-edge]
    rms = lambda found: float(np.std((counts[held] / found - 1)[:, inside]))
    noise = float(np.sqrt(np.mean(whole.gain / np.maximum(counts[held], 1e-3)[:, inside])))
    return {
        "held_out_residual": rms(predicted), "held_out_ratio": rms(ratio), "held_out_noise": noise,
        "held_out_count": float(len(held)),
    }  # fmt: skip


@eqx.filter_jit
def _predicted(model: Any, views: Any) -> Any:
    return model(views)

"""Crystal (Bonse-Hart) interferometers by fringe scans: the phase itself, transmission and visibility."""

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from .. import penalties, prepare
from .._console import Console
from .._model import Batch
from .._result import Quantity
from ..errors import InputError
from ..modality import Modality, Outcome, Problem, Run, Stage, Work, descent
from ..models import InterferometerFringes, fit_fringes
from ..operators.displacement import thin_closed
from ..scan import Scan
from ..settings import section, setting
from ..solvers import unwrap_phase
from ..solvers.slices import SLICE_SOLVERS
from . import _refraction_volume, looks
from ._pattern_checks import contradiction_lines
from ._refracting import Quality, judges, refuse_volume
from ._refraction import Beam, Prior, Stacks, blur_of, read_stacks
from ._refraction_volume import RefractionTomogram, Volume
from ._scan_facts import most_frequent, wave_number
from ._stepping import fringes_by_air, fringes_of, gain_lines, gain_of, planned_steps

_CLEAR = 0.9  # visibility above which the model is asked to predict a pixel; its unresolved structure it smooths out
_GRAINS = 0.1  # of the variance of unresolved structure that is left in the mean phase of a pixel, about
_SMALL = 0.5  # of its noise: bends and steps from which on their size counts, no longer its square
_UNRESOLVED = ("phase_variance", "variance of the unresolved phase a length")
_UNKNOWNS = {"phase": 1.0, "attenuation": 1.0, "visibility": 1.0}


@dataclass(frozen=True)
class Model(Beam):
    """What is in the beam, and how it is seen."""

    arm: float = setting(0.5, "share of the light that goes through the sample's arm", above=0, below=1)
    detector_blur: float | None = setting(
        None, "standard deviation; by default the file's, or 0.5", unit="pixel", at_least=0
    )


@dataclass(frozen=True)
class Solver:
    """How the images are found."""

    steps: int = setting(100, "of Adam", at_least=1)
    rate: float = setting(0.02, "length of the first steps [rad]", above=0)


@dataclass(frozen=True)
class Settings:
    """Every setting of the method."""

    model: Model = section(Model)
    prior: Prior = section(Prior)
    solver: Solver = section(Solver)
    volume: Volume = section(Volume)
    quality: Quality = section(Quality)


@dataclass(frozen=True)
class Fringes(Problem):
    """The problem with its scan and what is to be said of it.

    **Fields:** `planned`, steps as they were meant [periods]; `share`, variance that the reference adds over that of
    the sample; `contradictions`, see `solvers.unwrap_phase`.
    """

    planned: Any = None
    good: Any = None
    gain: float = 1.0
    share: float = 1.0
    contradictions: int = 0
    lines: tuple[str, ...] = ()


class Interferometer(looks.Interferometer, Modality):
    """Phase [rad], transmission and dark field from the fringes of two arms that meet; of frames at many angles,
    volumes of delta, attenuation [1/m] and variance of the phase that pixels do not resolve [rad^2/m].
    """

    settings = Settings

    def start(self, scan: Scan, settings: Settings, console: Console) -> Fringes | RefractionTomogram:
        """Make the first guess; of frames at many angles, sort them."""
        if not _refraction_volume.at_angles(scan):
            refuse_volume(scan, settings)
            return self.begin(scan, settings, console)
        if settings.volume.name == "joint":
            raise InputError(
                f"{scan.name}: volume.name = joint is for methods that see slopes of the phase; interferometers solve "
                f"angle by angle: choose one of {', '.join(SLICE_SOLVERS)}"
            )
        return _refraction_volume.start(scan, scan.frame_shape, wave_number(scan)[0], _UNRESOLVED)

    def line_integrals(
        self, scan: Scan, settings: Settings, before: Fringes | None, share: float
    ) -> tuple[_refraction_volume.Lines, Fringes, float]:
        """Solve the frames of one angle for its line integrals, with a `share` of the priors; give the solved problem
        and its misfit, too.
        """
        prior = Prior(*(share * weight for weight in dataclasses.astuple(settings.prior)))
        problem = self.begin(scan, dataclasses.replace(settings, prior=prior), Console(quiet=True))
        if before is not None:  # one program for all angles
            problem = problem.replace(cost=before.cost)
        solved = _fit(self.name, settings.solver).solve(problem, Run(Console(quiet=True)))
        pixel, number = wave_number(scan)
        phase, transmission, visibility = _images(solved.problem.model)
        lines = _refraction_volume.Lines(
            -phase / (number * pixel), -np.log(transmission), -2 * np.log(np.maximum(visibility, 0.02)),
            np.asarray(problem.data["counts"], float).sum(0),
        )  # fmt: skip
        return lines, solved.problem, float(solved.history[-1])

    def begin(self, scan: Scan, settings: Settings, console: Console) -> Fringes:
        """Fit the fringes of every pixel in both scans, and take the whole turns out of the phase between them."""
        wave_number(scan)
        stacks, planned = read_stacks(scan, same=False), planned_steps(scan, scan.views, "steps")
        still, _, told = fringes_of(scan, stacks.reference, "reference_steps")
        gain = gain_of(stacks.reference, told)
        lines = [*stacks.lines, *_lines(scan, still, stacks, gain), *gain_lines(gain)]
        blur = blur_of(scan, settings.model.detector_blur, 0.5)
        empty = InterferometerFringes.of_fringes(still, planned, arm=settings.model.arm, blur=blur)
        model, contradictions = _first_model(empty, stacks.sample, planned, stacks.good, settings.model.air == "mode")
        share = len(stacks.sample) / len(stacks.reference)
        if contradictions:
            lines.append(
                f"{contradictions} places where the phase turns by more than pi from pixel to pixel, or noise does: "
                "whole turns of 2 pi around them are a guess"
            )
        if min(len(stacks.sample), len(stacks.reference)) < 4:
            lines.append(
                "three frames leave nothing to find errors of their steps with: these make a moire in all images that "
                "no error bar holds; four or more tell"
            )
        for line in lines:
            console.say(line)
        cost = _cost(model, stacks.good, settings.prior, gain, share)
        return Fringes(
            model, {"counts": stacks.sample}, cost, _UNKNOWNS, per_view=("flux", "step"), planned=planned,
            good=stacks.good, gain=gain, share=share, contradictions=contradictions, lines=tuple(lines),
        )  # fmt: skip

    def split(self, problem: Fringes | RefractionTomogram, settings: Settings) -> tuple[np.ndarray, np.ndarray]:
        """Fit all steps: those that judge are held out in a stage of their own, and then fitted too."""
        return np.arange(problem.views), np.zeros(0, int)

    def stages(self, problem: Any, settings: Settings, console: Console) -> Work:
        """Fit without the steps that judge, judge, and fit all; of many angles, solve each, then the volumes."""
        if isinstance(problem, RefractionTomogram):
            yield from _refraction_volume.stages(self, problem, settings)
            return
        fit = _fit(self.name, settings.solver)
        held = judges(problem.views, settings.quality.held_out, settings.quality.seed)
        if held.size and problem.views - held.size >= 3:
            judge = partial(_judged, fit=fit, held=held, air=settings.model.air == "mode")
            yield Stage(f"{self.name}: without the judges", judge, keeps=())
        yield fit

    def image(self, problem: Fringes) -> np.ndarray:
        """The phase, by which halves are compared."""
        return np.asarray(problem.model.phase)

    def verdict(self, problem: Any, scan: Scan, settings: Settings) -> tuple[dict[str, Any], list[str]]:
        """Say how well a step was predicted that had not been fitted, and how the fringes drifted."""
        if isinstance(problem, RefractionTomogram):
            return _refraction_volume.verdict(problem)
        model, seen, lines = problem.model, problem.figures, list(problem.lines)
        if "held_out_residual" in seen:
            lines.insert(0, (
                f"steps never fitted ({int(seen['held_out_count'])}), in the {seen['held_out_share']:.0%} of the "
                f"pixels that scatter little: relative residual {seen['held_out_residual']:.4f}; a sinusoid for each "
                f"pixel alone {seen['held_out_sinusoid']:.4f}, noise of the frames {seen['held_out_noise']:.4f}"
            ))  # fmt: skip
            lines += contradiction_lines(seen["held_out_residual"], seen["held_out_noise"])
        zero, step = _zero(problem), np.asarray(model.step)
        moved = step - problem.planned
        drift = (zero / (2 * np.pi) - moved.mean() + 0.5) % 1 - 0.5
        taken = "both are those of air" if settings.model.air == "mode" else "the phase keeps the drift"
        lines.append(
            f"between the scans the fringes drifted by {drift:+.3f} periods (modulo one), the dose by "
            f"{float(np.mean(model.flux)) - 1:+.1%}; {taken}; steps err by {moved.std():.3f} periods, doses by "
            f"{np.std(model.flux) / np.mean(model.flux):.2%}"
        )
        lines += _direction(problem, zero)
        return {"steps": step, "fringe_drift": drift}, lines

    def quantities(self, problem: Any, scan: Scan, settings: Settings) -> dict[str, Quantity]:
        """Give the phase, the angles that it means, transmission and dark field, or volumes."""
        if isinstance(problem, RefractionTomogram):
            return _refraction_volume.volume_quantities(problem)
        pixel, number = wave_number(scan)
        images = _images(problem.model)
        phase = images[0] - (_zero(problem) if settings.model.air == "mode" else 0.0)
        down, right = (slope / pixel / number for slope in np.gradient(phase))
        show = lambda a: np.where(problem.good, a, np.nan).astype(np.float32)
        image = lambda a, units, label: Quantity(show(a), units, ("y", "x"), pixel, label)
        return {
            "phase": image(phase, "rad", "phase"),
            "alpha_x": image(right, "rad", "refraction angle along x"),
            "alpha_y": image(down, "rad", "refraction angle along y"),
            "transmission": image(images[1], "", "transmission"),
            "darkfield": image(images[2], "", "visibility over that of the reference"),
        }

    def error_bars(self, problem: Any, scan: Scan, settings: Settings) -> tuple[dict[str, Quantity], list[str]]:
        """Solve again with other noise: deviations of every image, and no bias."""
        count, (pixel, number) = settings.quality.error_bars, wave_number(scan)
        if not count or isinstance(problem, RefractionTomogram):
            return {}, []
        rng, total = np.random.default_rng(settings.quality.seed), np.zeros((5, *problem.good.shape))
        fit, expected = _fit("error bars", settings.solver, 0.5), problem.predict(np.arange(problem.views))
        solve = lambda counts: _signals(
            fit.solve(problem.replace(data={"counts": counts}), Run(Console(quiet=True))).problem.model
        )
        plain = solve(expected)
        for _ in range(count):
            deviation = np.sqrt(problem.gain * expected * (1 + problem.share))
            total += (solve(expected + deviation * rng.standard_normal(expected.shape).astype(np.float32)) - plain) ** 2
        bars = np.sqrt(prepare.mean_around(total / count, 4.0))
        bars[1:3] /= pixel * number
        names = ("phase", "alpha_x", "alpha_y", "transmission", "darkfield")
        units = ("rad", "rad", "rad", "", "")
        found = {
            f"{name}_error": Quantity(bar.astype(np.float32), unit, ("y", "x"), pixel, f"error bar: {name}", "data")
            for name, unit, bar in zip(names, units, bars, strict=True)
        }
        middle = [float(np.median(bar[problem.good])) for bar in bars]
        return found, [f"error bar of the phase {middle[0]:.2g} rad, of the dark field {middle[4]:.2g} (median)"]


# ---------------------------------------------------------------------------------------------------- start
def _first_model(
    empty: InterferometerFringes, frames: np.ndarray, planned: np.ndarray, good: np.ndarray, air: bool = False
) -> tuple[InterferometerFringes, int]:
    """Take every pixel's own sinusoid, and the whole turns out of its phase; steps and doses by the `air` if any."""
    still = parts_of(empty)
    values, flux, step = fit_fringes(frames, planned)
    if air:
        values, flux, step = fringes_by_air(still, frames, (values, flux, step), good)
    (mean, visibility, phase), seen = values, np.hypot(still[1], still[2])
    passed = np.clip((mean / still[0] - 1 + empty.arm) / empty.arm, 0.02, 1.5)
    sharp = np.clip(mean * visibility / np.maximum(seen, 1e-6) / np.sqrt(passed), 0.05, 1.2)
    cast = lambda a: jnp.asarray(a, jnp.float32)
    wrapped = np.angle(np.exp(1j * (phase - np.asarray(empty.carrier, float))))
    unwrapped, contradictions = unwrap_phase(cast(wrapped), cast(good * (seen * sharp) ** 2))
    fields = {"phase": unwrapped, "attenuation": cast(np.log(passed)), "visibility": cast(sharp)}
    return empty.replace(flux=cast(flux), step=cast(step), **fields), int(contradictions)


def _lines(scan: Scan, still: np.ndarray, stacks: Stacks, gain: float) -> list[str]:
    """Say what the fringes can tell.

    **Raises:** `InputError` where there are none.
    """
    seen = float(np.median(still[1][stacks.good]))
    if not seen > 0.02:
        raise InputError(
            f"{scan.name}: the fringes of the reference have a visibility of {seen:.3f}: there is no phase in them; "
            "check data.reference and data.reference_steps"
        )
    light = [float(stack.sum(0).mean()) for stack in (stacks.sample, stacks.reference)]
    noise = np.sqrt(2 * gain * (1 / light[0] + 1 / light[1])) / seen
    return [f"fringes of visibility {seen:.3f} tell the phase to {noise:.2g} rad in a single pixel"]


# ---------------------------------------------------------------------------------------------------- solve
def _cost(model: InterferometerFringes, good: np.ndarray, prior: Prior, gain: float, share: float) -> Callable:
    """Residuals in units of their noise; few bends of the phase, few steps of attenuation and visibility.

    Structure of phase variance s that pixels do not resolve leaves a visibility of `exp(-s / 2)`, and some of s in the
    mean phase of each pixel: no signal but noise, for which the phase is smoothed there.
    """
    light, seen = (float(np.median(np.asarray(a)[good])) * len(model.step) for a in (model.mean, model.amplitude))
    told = np.sqrt(seen**2 / light / (2 * gain * (1 + share)))  # one over the noise of a phase and of a visibility
    level = np.sqrt(light / (gain * (1 + share))) * model.arm
    known, usual = jnp.asarray(good, jnp.float32), most_frequent(np.asarray(model.visibility)[good])
    stopped = jax.lax.stop_gradient

    def cost(model: Any, batch: Batch) -> Any:
        expected = model(batch.views)
        variance = gain * (1 + share) * jnp.maximum(stopped(expected), 1e-2 * light / len(model.step))
        misfit = (known * (batch.counts - expected) ** 2 / variance).sum(0) / 2
        clear = jnp.clip(thin_closed(stopped(model.visibility)) / usual, 0.2, 1.0)[1:-1, 1:-1]
        grains = jnp.sqrt(1 - 2 * _GRAINS * told**2 * jnp.log(clear))
        rough = prior.phase * (grains * _bending(told * model.phase)).mean()
        rough += prior.transmission * penalties.tv(level * model.attenuation, eps=_SMALL)
        return misfit.mean() + rough + prior.visibility * penalties.tv(told * model.visibility, eps=_SMALL)

    return cost


def _bending(image: Any) -> Any:
    """Size of the second differences within the frame."""
    middle = image[1:-1, 1:-1]
    down = image[2:, 1:-1] - 2 * middle + image[:-2, 1:-1]
    right = image[1:-1, 2:] - 2 * middle + image[1:-1, :-2]
    across = (image[2:, 2:] - image[2:, :-2] - image[:-2, 2:] + image[:-2, :-2]) / 4
    return jnp.sqrt(down**2 + right**2 + 2 * across**2 + _SMALL**2)


def _fit(label: str, solver: Solver, share: float = 1.0) -> Stage:
    """Make the descent; a share of its steps is enough where it begins near the end."""
    steps = max(1, round(share * solver.steps))
    return descent(label, optax.adam(optax.cosine_decay_schedule(solver.rate, steps, 0.02)), steps)


def _judged(problem: Fringes, run: Run, fit: Stage, held: np.ndarray, air: bool) -> Outcome:
    """Begin and fit without some steps, and predict those; of their own they are asked for flux and step only."""
    counts, rest = np.asarray(problem.data["counts"]), np.setdiff1d(np.arange(problem.views), held)
    blank = problem.model.replace(flux=problem.model.flux[rest], step=problem.model.step[rest])
    model, _ = _first_model(blank, counts[rest], problem.planned[rest], problem.good, air)
    part = problem.replace(model=model, data={"counts": counts[rest]})
    solved = fit.solve(part, run)
    alone = _sinusoid(counts[rest], problem.planned[rest])
    inside = problem.good & (np.asarray(solved.problem.model.visibility) > _CLEAR)
    inside = inside if inside.any() else problem.good
    left = lambda images: np.concatenate([_left(counts[k], images)[inside] for k in held])
    figures = {
        "held_out_residual": float(left(parts_of(solved.problem.model)).std()),
        "held_out_sinusoid": float(left(alone).std()),
        "held_out_noise": float(np.sqrt(np.mean(problem.gain / np.maximum(counts[held][:, inside], 1e-3)))),
        "held_out_count": float(len(held)),
        "held_out_share": float(inside.sum() / problem.good.sum()),
    }
    return Outcome(problem, solved.history, solved.ending, solved.detail, figures)


def parts_of(model: InterferometerFringes) -> np.ndarray:
    """Light and both quadratures of the wave, from predictions at three steps."""
    some = model.replace(flux=jnp.ones(3), step=jnp.asarray([0.0, 0.25, 0.5]))
    first, second, third = np.asarray(some(np.arange(3)), float)
    light = (first + third) / 2
    return np.stack([light, first - light, second - light])


def _sinusoid(frames: np.ndarray, planned: np.ndarray) -> np.ndarray:
    (mean, visibility, phase), _, _ = fit_fringes(frames, planned)
    return mean * np.stack([np.ones_like(mean), visibility * np.cos(phase), visibility * np.sin(phase)])


def _left(frame: np.ndarray, images: np.ndarray) -> np.ndarray:
    """Compute what remains of a frame, relative, when flux and step are fitted to it."""
    flux, cosine, sine = np.linalg.lstsq(images.reshape(3, -1).T, frame.ravel(), rcond=None)[0]
    step = np.arctan2(sine, cosine)
    return frame / np.maximum(flux * (images[0] + images[1] * np.cos(step) + images[2] * np.sin(step)), 1e-6) - 1


# ---------------------------------------------------------------------------------------------------- results
def _images(model: InterferometerFringes) -> np.ndarray:
    """Phase [rad], transmission and visibility."""
    return np.stack([np.asarray(a, float) for a in (model.phase, jnp.exp(model.attenuation), model.visibility)])


def _signals(model: InterferometerFringes) -> np.ndarray:
    """Phase and its slopes along x and y [rad/pixel], without its constant, transmission and visibility."""
    phase, transmission, visibility = _images(model)
    down, right = np.gradient(phase)
    return np.stack([phase - np.median(phase), right, down, transmission, visibility])


def _zero(problem: Fringes) -> float:
    """The most frequent phase: that of air [rad]."""
    return most_frequent(np.asarray(problem.model.phase, float)[problem.good])


def _direction(problem: Fringes, zero: float) -> list[str]:
    """Say so where the steps seem to run the other way: matter that attenuates more is to retard more."""
    phase, passed = (np.asarray(a, float)[problem.good] for a in (problem.model.phase, problem.model.attenuation))
    ahead = (np.abs(phase - zero) > 1.0) & (passed < -0.02)
    if ahead.sum() < 20 or np.median(phase[ahead] - zero) < 0:
        return []
    return ["what attenuates is ahead of air: if the steps run the other way, give data.steps with the sign changed"]

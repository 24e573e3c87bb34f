"""Gratings, by phase stepping whose steps and doses err, or by single frames: phase, transmission and dark field."""

from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
import numpy as np

from .._console import Console
from ..errors import InputError, MissingMetadata
from ..models import SteppedFringes
from ..scan import Scan
from ..settings import section, setting
from ..solvers.refraction import first_maps
from . import looks
from ._refracting import Quality as _Quality
from ._refracting import Refracting, Refraction, Solver, Volume, maps_and, poisson_cost
from ._refraction import Detection, Prior, Stacks, Unit, optics_of, read_stacks
from ._single_shot import shot_of
from ._stepping import fringes_by_air, fringes_of, gain_lines, gain_of, planned_steps

_START = 0.03  # of the priors, for phases that are smooth as they were read
_STEADY = 0.25  # of the prior of the visibility: fringes tell it in every period, random speckles here and there
_PIXELS = 0.1  # of single frames, that judge by default


@dataclass(frozen=True)
class Model(Detection):
    """What is in the beam, how it is seen, and what the fringes are."""

    fringes: bool | None = setting(
        None, "the phase leaves its propagation fringes in the intensity; by default where gratings are stepped"
    )
    reading: str = setting(
        "auto",
        "steps of phase stepping (from 3 frames on), or single frames: fringes that are the grating's own, or moire of "
        "an analyser (geometry.period below 2 pixels), moved as the sample refracts or reversed",
        choices=("auto", "steps", "fringes", "moire", "moire-reversed"),
    )


@dataclass(frozen=True)
class Quality(_Quality):
    """How the result is judged."""

    held_out: float | None = setting(
        None,
        "fraction of the steps that judge before they are fitted, from 5 on, by default none; of the pixels of single "
        "frames, by default a tenth",
        at_least=0, below=1,
    )  # fmt: skip


@dataclass(frozen=True)
class Settings:
    """Every setting of the method."""

    model: Model = section(Model)
    prior: Prior = section(Prior)
    solver: Solver = section(Solver)
    volume: Volume = section(Volume)
    quality: Quality = section(Quality)


class Grating(looks.Grating, Refracting):
    """Phase, refraction, transmission and dark field from fringes: stepped ones, or those of single frames."""

    settings = Settings

    def begin(self, scan: Scan, settings: Settings, console: Console, before: Refraction | None = None) -> Refraction:
        """Fit the fringes of every pixel in both scans, with the steps and doses of the frames; or follow those of
        single frames.
        """
        reading = settings.model.reading
        if reading not in ("auto", "steps") or (reading == "auto" and scan.views < 3):
            return _single_shot(scan, settings, console)
        unit, stacks = optics_of(scan), read_stacks(scan, same=False)
        period = scan.extra.get("period")
        if period is None:
            raise MissingMetadata("geometry.period", "the period of the analysing grating", scan.name, "2.4 um")
        turn = 2 * np.pi * unit.detector / float(period)
        still, _, told = fringes_of(scan, stacks.reference, "reference_steps")
        moved, flux, steps = found = fringes_of(scan, stacks.sample, "steps")
        planned = planned_steps(scan, scan.views, "steps")
        if settings.model.air == "mode":
            wave = still[1] * np.exp(1j * still[2])
            parts = still[0] * np.stack([np.ones_like(still[0]), wave.real, wave.imag])
            moved, flux, steps = fringes_by_air(parts, stacks.sample, found, stacks.good)
        gain = gain_of(stacks.reference, told)
        fringes = settings.model.of(scan, unit)
        shear = unit.spread / np.pi * unit.pixel / float(period)
        model = _first_model(still, moved, flux, steps, stacks, settings, turn, gain, fringes | {"shear": shear})
        lines = [*stacks.lines, *_lines(scan, still, stacks, turn, unit, float(period)), *gain_lines(gain)]
        for line in lines:
            console.say(line)
        return Refraction(
            model, {"counts": stacks.sample}, poisson_cost, maps_and(), per_view=("flux", "step"),
            unit=unit, good=stacks.good, reference=stacks.reference, gain=gain, grain=2 / turn,
            saturation=unit.saturation(2 / turn, settings.model.correlation_length), across=(0.0, 1.0),
            lines=tuple(lines), planned=planned,
        )  # fmt: skip

    def held_out(self, problem: Refraction, settings: Settings) -> float:
        """Let pixels judge single frames, and steps where it is asked for."""
        told = settings.quality.held_out
        return (_PIXELS if problem.views < 3 else 0.0) if told is None else told

    def drift(self, problem: Refraction, zero: np.ndarray) -> tuple[dict[str, Any], str]:
        """Say how the gratings moved: the mean between the scans, and from step to step."""
        model = problem.model
        if not isinstance(model, SteppedFringes) or problem.views < 3:
            y, x = (float(z) for z in zero)
            return {
                "fringe_drift_y": y,
                "fringe_drift_x": x,
            }, f"between the scans the fringes drifted by ({y:+.3f}, {x:+.3f}) pixels"
        step, drift = np.asarray(model.step), float(zero[1]) * model.turn / (2 * np.pi)
        error = step - problem.planned  # steps that air has told have the drift in them
        common = np.angle(np.exp(2j * np.pi * error).mean()) / (2 * np.pi)
        error, periods = (error - common + 0.5) % 1 - 0.5, drift - common
        return {"steps": step, "grating_drift": periods}, (
            f"between the scans the fringes drifted by {periods:+.3f} periods; steps err by {error.std():.3f} periods, "
            f"doses by {np.asarray(model.flux).std() / np.asarray(model.flux).mean():.2%}"
        )


def _single_shot(scan: Scan, settings: Settings, console: Console) -> Refraction:
    """Follow the fringes of single frames from pixel to pixel."""
    unit, stacks = optics_of(scan), read_stacks(scan)
    fringes = settings.model.of(scan, unit, usual=False)
    shot = shot_of(scan, stacks, unit, settings.prior.smoothness(_START), fringes, settings.model.reading)
    lines = (*stacks.lines, *shot.lines)
    for line in lines:
        console.say(line)
    displaced = not isinstance(shot.model, SteppedFringes)
    per_view = ("flux", "drift", "smooth", "structure") if displaced else ("flux", "step")
    grain = 2 / abs(shot.turn)
    return Refraction(
        shot.model, {"counts": stacks.sample}, poisson_cost, maps_and(*(("flux", "drift") if displaced else ())),
        per_view=per_view, unit=unit, good=stacks.good, reference=stacks.reference, gain=shot.gain, grain=grain,
        saturation=unit.saturation(grain, settings.model.correlation_length), across=shot.across, steady=_STEADY,
        lines=lines,
    )  # fmt: skip


def _first_model(
    still: np.ndarray,
    moved: np.ndarray,
    flux: np.ndarray,
    steps: np.ndarray,
    stacks: Stacks,
    settings: Settings,
    turn: float,
    gain: float,
    fringes: dict[str, Any],
) -> SteppedFringes:
    """Take the fringes' displacement, wrapped about the common one, and the images closest to it."""
    wave = still[1] * moved[1] * np.exp(1j * (moved[2] - still[2]))
    common = np.angle(wave.sum())
    displacement = (np.angle(wave * np.exp(-1j * common)) + common) / turn
    visibility = np.clip(moved[1] / np.maximum(still[1], 1e-3), 0.1, 1.2)
    fields = np.stack([0 * displacement, displacement, np.log(moved[0] / still[0]), visibility]).astype(np.float32)
    light = len(flux) * still[0].mean() / gain
    trust = light * (turn * still[1] * visibility) ** 2 / 4 * stacks.good
    cast = lambda a: jnp.asarray(a, jnp.float32)
    return SteppedFringes(
        maps=first_maps(cast(fields), cast(trust), settings.prior.smoothness()), flux=cast(flux), step=cast(steps),
        mean=cast(still[0]), amplitude=cast(still[1]), phase=cast(still[2]), trust=cast(stacks.good),
        deviation=cast(gain), share=len(stacks.sample) / len(stacks.reference), turn=float(turn), **fringes,
    )  # fmt: skip


def _lines(scan: Scan, still: np.ndarray, stacks: Stacks, turn: float, unit: Unit, period: float) -> list[str]:
    """Say what the fringes can tell.

    **Raises:** `InputError` where there are none.
    """
    seen = float(np.median(still[1][stacks.good]))
    photons = float(stacks.sample.sum(0).mean())
    if not seen > 0.02:
        raise InputError(
            f"{scan.name}: the fringes of the reference have a visibility of {seen:.3f}: there is nothing to displace; "
            "check data.reference and data.reference_steps"
        )
    shear = unit.spread / np.pi * unit.pixel / period
    noise = 2 / (seen * np.sqrt(photons)) / turn * unit.angle
    return [
        f"fringes of visibility {seen:.3f} tell an angle to {noise:.2g} rad in a single pixel, up to "
        f"{np.pi / turn * unit.angle:.2g} rad without a wrap; they compare points {shear:.1f} pixels apart (the shear)"
    ]

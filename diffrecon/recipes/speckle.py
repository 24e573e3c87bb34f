"""Speckle-based imaging: phase, transmission and dark field from the pattern of a membrane, displaced by a sample."""

import dataclasses
from dataclasses import dataclass
from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np

from .. import prepare
from .._console import Console
from .._result import Quantity
from ..errors import InputError
from ..modality import Outcome, Run, Stage, Work
from ..models import DisplacedReference, TrackedSample
from ..scan import Scan
from ..settings import refuse_changed, section, setting
from ..solvers.refraction import RefractionMaps, first_maps
from ..solvers.trackers import ReadPattern, read_by_correlation, read_by_windows, read_linear
from ..solvers.tracking import track_windows
from . import looks
from ._pattern_checks import check_partners, unseen_lines
from ._refracting import Quality, Refracting, Refraction, Volume, judges, maps_and, poisson_cost
from ._refracting import Solver as _Solver
from ._refraction import (
    Detection,
    Prior,
    Stacks,
    Unit,
    displaced_pattern,
    flux_of,
    optics_of,
    read_stacks,
    scattering_tensor,
)  # fmt: skip
from ._stepping import gain_lines

_TRACKED = 8  # positions that the start looks at
_READERS = ("correlation", "window", "linear")
_BIAS = {"correlation": "0.85 to 0.89", "window": "0.72 to 0.76", "linear": "1.06 to 1.09"}  # measured


@dataclass(frozen=True)
class Model(Detection):
    """What is in the beam, how it is seen, and how far it is moved."""

    direction: float = setting(
        0.0, "window in which the direction of scattering is read, standard deviation; 0 for none", unit="pixel",
        at_least=0,
    )  # fmt: skip
    reach: int = setting(4, "largest displacement that the start looks for", unit="pixel", at_least=1)


@dataclass(frozen=True)
class Solver(_Solver):
    """How the images are found."""

    kind: str = setting(
        "model",
        "one phase for all frames, or a classical reader of each pixel for comparison: correlation (XSVT), window "
        "(UMPA), linear (LCS)",
        choices=("model", *_READERS),
    )
    window: float = setting(
        2.0, "standard deviation of the window of classical readers", unit="pixel", above=0, only={"kind": _READERS}
    )


@dataclass(frozen=True)
class Settings:
    """Every setting of the method."""

    model: Model = section(Model)
    prior: Prior = section(Prior)
    solver: Solver = section(Solver, rounds=10)
    volume: Volume = section(Volume)
    quality: Quality = section(Quality)

    def checked(self) -> "Settings":
        """Refuse what classical readers, which fit no model, make no use of.

        **Raises:** `InputError`.
        """
        if self.solver.kind != "model":
            names = ["prior", "solver.rounds", "solver.steps", "model.fringes", "model.detector_blur"]
            names += ["quality.held_out", "quality.seed", "quality.error_bars"]
            names += ["model.reach"] if self.solver.kind == "linear" else []
            refuse_changed(self, names, f"with solver.kind = {self.solver.kind}")
        return self


class Speckle(looks.Speckle, Refracting):
    """Phase [rad], refraction angles [rad], transmission and dark field from displaced speckles."""

    settings = Settings

    def begin(self, scan: Scan, settings: Settings, console: Console, before: Refraction | None = None) -> Refraction:
        """Take the references apart and track their pattern window by window."""
        unit, stacks = optics_of(scan), read_stacks(scan)
        if before is not None and np.array_equal(before.reference, stacks.reference):
            patterns = before.patterns
        else:
            patterns = prepare.split_patterns(stacks.reference)
        lines = [*stacks.lines, *_pattern_lines(scan, stacks, patterns, unit)]
        if before is None:
            lines += check_partners(scan, stacks.sample, stacks.reference)
        if settings.solver.kind != "model":
            return _to_be_read(scan, stacks, patterns, unit, lines, settings.model.correlation_length)
        maps = before.model.maps if before is not None else _tracked_maps(stacks, settings)
        model = displaced_pattern(stacks, patterns, maps, settings.model.of(scan, unit))
        for line in lines:
            console.say(line)
        return Refraction(
            model, {"counts": stacks.sample}, poisson_cost, maps_and("flux", "drift"),
            per_view=("flux", "drift", "smooth", "structure"), unit=unit, good=stacks.good, reference=stacks.reference,
            gain=patterns.gain, grain=patterns.grain,
            saturation=unit.saturation(patterns.grain, settings.model.correlation_length), patterns=patterns,
            lines=tuple(lines),
        )  # fmt: skip

    def stages(self, problem: Any, settings: Settings, console: Console) -> Work:
        """Fit the model, or read the pattern pixel by pixel."""
        if isinstance(getattr(problem, "model", None), TrackedSample):
            yield Stage(
                f"speckle: {settings.solver.kind}", lambda p, run: _read(p, run, settings), keeps=("maps", "tracked")
            )
        else:
            yield from super().stages(problem, settings, console)

    def line_integrals(self, scan: Scan, settings: Settings, before: Refraction | None, share: float) -> Any:
        """Solve the frames of one angle; half of the rounds are enough from where a neighbour ended."""
        if before is not None:
            solver = dataclasses.replace(settings.solver, rounds=max(2, settings.solver.rounds // 2))
            settings = dataclasses.replace(settings, solver=solver)
        return super().line_integrals(scan, settings, before, share)

    def solved(self, problem: Refraction, settings: Settings, share: float) -> tuple[Refraction, float]:
        """Fit the frames of one angle, or read them."""
        if settings.solver.kind == "model":
            return super().solved(problem, settings, share)
        outcome = _read(problem, Run(Console(quiet=True)), settings)
        return outcome.problem, float(outcome.history[-1])

    def quantities(self, problem: Any, scan: Scan, settings: Settings) -> dict[str, Quantity]:
        """Give what all of these methods write, and the tensor of the scattering if it is asked for."""
        found = super().quantities(problem, scan, settings)
        window = settings.model.direction
        if not window or not isinstance(getattr(problem, "model", None), DisplacedReference):
            return found
        tensor = _visibility_tensor(problem.model, jnp.asarray(problem.data["counts"]), window)
        means = lambda visibility: self.scattering(problem, visibility)
        landed = np.asarray(problem.model.fields()[:2], float) - self.zero(problem, settings)[:, None, None]
        return found | scattering_tensor(np.asarray(tensor, float), landed, found["scattering"], means)

    def error_bars(self, problem: Any, scan: Scan, settings: Settings) -> tuple[dict[str, Quantity], list[str]]:
        """Give the deviation of every image; classical readers say none."""
        return super().error_bars(problem, scan, settings) if settings.solver.kind == "model" else ({}, [])

    def drift(self, problem: Refraction, zero: np.ndarray) -> tuple[dict[str, Any], str]:
        """Say how the pattern moved between the scans."""
        figures: dict[str, Any] = {"pattern_drift_y": float(zero[0]), "pattern_drift_x": float(zero[1])}
        if isinstance(problem.model, TrackedSample):
            return figures, f"between the scans the pattern drifted by ({zero[0]:+.3f}, {zero[1]:+.3f}) pixels"
        drift = np.asarray(problem.model.drift)
        figures["drift"] = drift + zero
        return figures, (
            f"between the scans the pattern drifted by ({zero[0]:+.3f}, {zero[1]:+.3f}) pixels, single frames by "
            f"{drift.std():.3f} pixels about it"
        )


# ---------------------------------------------------------------------------------------------------- start
def _to_be_read(
    scan: Scan, stacks: Stacks, patterns: Any, unit: Unit, lines: list[str], told: float | None
) -> Refraction:
    """Hold both stacks for a reader."""
    empty = TrackedSample.of_fields(np.zeros((4, *scan.frame_shape), np.float32), stacks.good)
    data = {"counts": stacks.sample, "reference": stacks.reference}
    return Refraction(
        empty, data, poisson_cost, {"maps.potential": 1.0, "tracked": 1.0}, unit=unit, good=stacks.good,
        reference=stacks.reference, gain=patterns.gain, grain=patterns.grain,
            saturation=unit.saturation(patterns.grain, told), patterns=patterns, lines=tuple(lines),
    )  # fmt: skip


def _read(problem: Refraction, run: Run, settings: Settings) -> Outcome:
    """Read the pattern by a classical reader; both angles are integrated to the phase."""
    kind, window = settings.solver.kind, settings.solver.window
    sample, reference = (jnp.asarray(problem.data[k], jnp.float32) for k in ("counts", "reference"))
    flux = sample.mean((1, 2)) / reference.mean((1, 2))
    sample = sample * (flux.mean() / flux)[:, None, None]
    found: ReadPattern
    if kind == "linear":
        found = read_linear(sample, reference, window=window)
    else:
        reader = read_by_correlation if kind == "correlation" else read_by_windows
        found = reader(sample, reference, reach=settings.model.reach, window=window)
    light = jnp.log(jnp.maximum(found.transmission, 1e-3))
    model = TrackedSample.of_fields(jnp.stack([*found.displacement, light, found.visibility]), problem.good)
    line = (
        f"solver.kind={kind}: pixel by pixel; displacements below a third of a pixel come out {_BIAS[kind]} of the "
        "truth on simulated scans (solver.kind=model has no such bias)"
    )
    run.console.say(line)
    done = problem.replace(model=model, lines=(*problem.lines, line))
    return Outcome(done, np.asarray([float(jnp.median(found.match))]))


@eqx.filter_jit
def _visibility_tensor(model: DisplacedReference, counts: Any, window: float) -> Any:
    return model.visibility_tensor(counts, window)


def _tracked_maps(stacks: Stacks, settings: Settings) -> RefractionMaps:
    """Track by windows, and take the images closest to what they say."""
    flux, views = flux_of(stacks), len(stacks.sample)
    some = np.setdiff1d(np.arange(views), judges(views, settings.quality.held_out, settings.quality.seed))[:_TRACKED]
    window = 3.0 if len(some) < 3 else 2.0 if len(some) < 10 else 1.5
    sample, reference = jnp.asarray(stacks.sample[some]), jnp.asarray(stacks.reference[some])
    tracked = track_windows(sample, reference, reach=settings.model.reach, window=window)
    ratio = prepare.mean_around(stacks.sample.mean(0), 1.5) / prepare.mean_around(
        (stacks.reference * flux[:, None, None]).mean(0), 1.5
    )
    fields = jnp.stack([*tracked.displacement, jnp.log(jnp.asarray(ratio)), jnp.clip(tracked.visibility, 0.1, 1.2)])
    trust = 12.0 * jnp.clip(tracked.correlation, 0.05, 1.0) ** 2 * jnp.asarray(stacks.good)
    return first_maps(fields, trust, settings.prior.smoothness())


def _pattern_lines(scan: Scan, stacks: Stacks, patterns: Any, unit: Unit) -> list[str]:
    """Say what the pattern can tell.

    **Raises:** `InputError` for frames without one.
    """
    views, mean = len(stacks.reference), float(stacks.reference.mean())
    noise = np.sqrt(2 * patterns.gain / mean / views)
    if not patterns.contrast > 0.2 * np.sqrt(patterns.gain / mean):
        raise InputError(
            f"{scan.name}: the reference frames show no pattern (contrast {patterns.contrast:.4f}, noise "
            f"{np.sqrt(patterns.gain / mean):.4f} of the mean): is data.reference the stack with the membrane?"
        )
    shift = np.sqrt(2) * noise / patterns.contrast * patterns.grain / 2  # half of the slopes' power is along each axis
    lines = [
        f"{views} positions; speckles of {patterns.contrast:.3f} contrast and {patterns.grain:.1f} pixels tell a "
        f"displacement along an axis to {shift:.3f} pixels, an angle to {shift * unit.angle:.2g} rad, in a single pixel"
    ]
    if len(scan_waves := prepare.find_carriers(stacks.reference[:1]).waves):
        period = float(1 / np.hypot(*scan_waves[0]))
        lines.append(
            f"the pattern repeats every {period:.2f} pixels: displacements of more than half of that are not told from "
            "smaller ones by windows; -m grating follows such fringes from pixel to pixel"
        )
    return lines + gain_lines(patterns.gain) + unseen_lines(patterns, shift, stacks.good)

"""Speckle-based imaging: phase, transmission and dark field from the pattern of a membrane, displaced by a sample."""

from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
import numpy as np

from .. import prepare
from .._console import Console
from ..errors import InputError
from ..models import DisplacedReference
from ..scan import Scan
from ..settings import section, setting
from ..solvers.refraction import first_maps
from ..solvers.tracking import track_windows
from . import looks
from ._refracting import Quality, Refracting, Refraction, Solver, judges, maps_and, poisson_cost
from ._refraction import Detection, Prior, Stacks, Unit, optics_of, read_stacks

_TRACKED = 8  # positions that the start looks at


@dataclass(frozen=True)
class Model(Detection):
    """What is in the beam, how it is seen, and how far it is moved."""

    reach: int = setting(4, "largest displacement that the start looks for", unit="pixel", at_least=1)


@dataclass(frozen=True)
class Settings:
    """Every setting of the method."""

    model: Model = section(Model)
    prior: Prior = section(Prior)
    solver: Solver = section(Solver)
    quality: Quality = section(Quality)


class Speckle(looks.Speckle, Refracting):
    """Phase [rad], refraction angles [rad], transmission and dark field from displaced speckles."""

    settings = Settings

    def start(self, scan: Scan, settings: Settings, console: Console) -> Refraction:
        """Take the references apart and track their pattern window by window."""
        unit, stacks = optics_of(scan), read_stacks(scan)
        patterns = prepare.split_patterns(stacks.reference)
        lines = [*stacks.lines, *_pattern_lines(scan, stacks, patterns, unit)]
        model = _first_model(stacks, patterns, settings, settings.model.of(scan, unit))
        for line in lines:
            console.say(line)
        return Refraction(
            model, {"counts": stacks.sample}, poisson_cost, maps_and("flux", "drift"),
            per_view=("flux", "drift", "smooth", "structure"), unit=unit, good=stacks.good, reference=stacks.reference,
            gain=patterns.gain, grain=patterns.grain, lines=tuple(lines),
        )  # fmt: skip

    def drift(self, problem: Refraction, zero: np.ndarray) -> tuple[dict[str, Any], str]:
        """Say how the pattern moved between the scans."""
        drift = np.asarray(problem.model.drift)
        figures = {"drift": drift + zero, "pattern_drift_y": float(zero[0]), "pattern_drift_x": float(zero[1])}
        return figures, (
            f"between the scans the pattern drifted by ({zero[0]:+.3f}, {zero[1]:+.3f}) pixels, single frames by "
            f"{drift.std():.3f} pixels about it"
        )


# ---------------------------------------------------------------------------------------------------- start
def _first_model(stacks: Stacks, patterns: Any, settings: Settings, fringes: dict[str, Any]) -> DisplacedReference:
    """Track by windows, and take the images closest to what they say."""
    flux = jnp.asarray(stacks.sample.mean((1, 2)) / stacks.reference.mean((1, 2)))
    views = len(flux)
    some = np.setdiff1d(np.arange(views), judges(views, settings.quality))[:_TRACKED]
    window = 3.0 if len(some) < 3 else 2.0 if len(some) < 10 else 1.5
    sample, reference = jnp.asarray(stacks.sample[some]), jnp.asarray(stacks.reference[some])
    tracked = track_windows(sample, reference, reach=settings.model.reach, window=window)
    ratio = prepare.mean_around(stacks.sample.mean(0), 1.5) / prepare.mean_around(
        (stacks.reference * np.asarray(flux)[:, None, None]).mean(0), 1.5
    )
    fields = jnp.stack([*tracked.displacement, jnp.log(jnp.asarray(ratio)), jnp.clip(tracked.visibility, 0.1, 1.2)])
    trust = 12.0 * jnp.clip(tracked.correlation, 0.05, 1.0) ** 2 * jnp.asarray(stacks.good)
    return DisplacedReference(
        maps=first_maps(fields, trust, settings.prior.smoothness()),
        flux=flux, drift=jnp.zeros((views, 2)), smooth=jnp.asarray(patterns.smooth),
        structure=jnp.asarray(patterns.structure), trust=jnp.asarray(stacks.good, jnp.float32),
        deviation=patterns.gain, share=patterns.share, **fringes,
    )  # fmt: skip


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
    shift = noise / patterns.contrast * patterns.grain / 2
    lines = [
        f"{views} positions; speckles of {patterns.contrast:.3f} contrast and {patterns.grain:.1f} pixels tell a "
        f"displacement to {shift:.3f} pixels, an angle to {shift * unit.angle:.2g} rad, in a single pixel"
    ]
    if not 0.7 < patterns.gain < 1.4:
        lines.append(f"values are no photon counts: their variance is {patterns.gain:.3g} of them, from the references")
    return lines

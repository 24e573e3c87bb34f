"""Azimuthal integration: patterns, or cakes, of powder frames, with error bars from the counts."""

from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from .._console import Console
from .._model import Model as AnyModel
from .._result import Quantity
from ..frames import frame_blocks
from ..modality import Modality, Outcome, Problem, Run, Stage, Work
from ..operators import AzimuthalIntegrator
from ..scan import Scan
from ..settings import section
from . import looks
from ._frame_bins import Integration, bins_of, powder_file
from ._monitor import monitor_at

_STAGES = 20  # after which finished patterns are in the journal


@dataclass(frozen=True)
class Settings:
    """Every setting of the method."""

    integration: Integration = section(Integration)


class Patterns(AnyModel):
    """What has been integrated so far; `done` says of every view whether it has been, by one or zero."""

    pattern: Float[Array, "view ..."]
    error: Float[Array, "view ..."]
    done: Float[Array, " view"]

    def __call__(self, views: Any) -> Array:
        """Patterns of some views."""
        return self.pattern[views]


@dataclass(frozen=True)
class Frames(Problem):
    """Frames with the table that integrates them."""

    table: Any = None
    scale: Any = None  # of every view
    lines: tuple[str, ...] = ()


class AzimuthalIntegration(looks.AzimuthalIntegration, Modality):
    """Patterns `(view, channel)` of powder frames."""

    settings = Settings

    def start(self, scan: Scan, settings: Settings, console: Console) -> Frames:
        """Make the table of pixels and channels."""
        table, lines = bins_of(scan, settings.integration, AzimuthalIntegrator)
        empty = np.zeros((scan.views, *table.cake.shape), np.float32)
        scale = 1 / monitor_of(scan) if settings.integration.monitor else np.ones(scan.views)
        data = {"counts": scan.counts}
        model = Patterns(jnp.asarray(empty), jnp.asarray(empty), jnp.zeros(scan.views))
        unknowns = {"pattern": 1.0, "error": 1.0, "done": 1.0}
        return Frames(model, data, _no_cost, unknowns, table=table, scale=scale, lines=tuple(lines))

    def stages(self, problem: Frames, settings: Settings, console: Console) -> Work:
        """Integrate a part of the frames in every stage, so that a run that is killed goes on from there."""
        for views in np.array_split(np.arange(problem.views), min(_STAGES, problem.views)):
            label = f"frames {views[0] + 1} to {views[-1] + 1} of {problem.views}"
            problem = yield Stage(label, _Part(views, settings.integration.clip))

    def verdict(self, problem: Frames, scan: Scan, settings: Settings) -> tuple[dict[str, Any], list[str]]:
        """Say what was found of the frames, and how far rings are from even."""
        lines, done = list(problem.lines), np.asarray(problem.model.done) > 0
        pattern, error = (np.asarray(a, float)[done] for a in (problem.model.pattern, problem.model.error))
        seen = np.asarray(problem.table.seen)
        relative = np.median((error / np.maximum(pattern, 1e-30))[:, seen & (pattern.mean(0) > 0)])
        lines.append(f"error bar of a channel: {relative:.2%} of it (median)")
        if not done.all():
            lines.append(f"{np.sum(~done)} of {scan.views} frames were not integrated: their patterns are NaN")
        dim = np.flatnonzero(done)[pattern[:, seen].sum(1) < 0.05 * np.median(pattern[:, seen].sum(1))]
        if dim.size:
            said = ", ".join(map(str, dim[:8])) + (", ..." if dim.size > 8 else "")
            lines.append(f"{dim.size} of {scan.views} frames are nearly dark: {said}")
        return {"median_relative_error": float(relative)}, lines

    def quantities(self, problem: Frames, scan: Scan, settings: Settings) -> dict[str, Quantity]:
        """Give patterns with their errors, the axis, and the mean pattern; channels that no pixel met are NaN."""
        cake, seen = problem.table.cake, np.asarray(problem.table.seen)
        model, done = problem.model, np.asarray(problem.model.done) > 0
        there = seen & done.reshape(-1, *(1,) * seen.ndim)
        pattern, error = (np.where(there, np.asarray(a), np.nan) for a in (model.pattern, model.error))
        caked = () if cake.sectors == 1 else ("azimuth",)
        axes, unit = (
            ("view", *caked, cake.axis),
            "" if settings.integration.monitor and _has_monitor(scan) else "counts",
        )
        centres, axis_unit = (
            (np.degrees(cake.centres), "deg") if cake.axis == "two_theta" else (cake.centres * 1e-9, "1/nm")
        )
        found = {
            "mean_pattern": Quantity(pattern[done].mean(0), unit, axes[1:], None, "mean pattern", "pattern"),
            "pattern": Quantity(pattern, unit, axes, None, "patterns", "image" if not caked else "data"),
            "pattern_error": Quantity(error, unit, axes, None, "error bar of the patterns", "data"),
            cake.axis: Quantity(centres, axis_unit, (cake.axis,), None, _AXIS[cake.axis], "data"),
        }
        if caked:
            azimuth = -180 + (np.arange(cake.sectors) + 0.5) * 360 / cake.sectors
            found["azimuth"] = Quantity(azimuth, "deg", ("azimuth",), None, "azimuth from the horizontal", "data")
        return found


_AXIS = {"two_theta": "scattering angle", "q": "scattering vector"}


class _Part:
    """Integrate some views, block by block."""

    def __init__(self, views: np.ndarray, clip: float | None):
        self.views, self.clip = views, clip

    def __call__(self, problem: Frames, run: Run) -> Outcome:
        """Fill their patterns and errors in."""
        model, at = problem.model, int(self.views[0])
        pattern, error, done = np.array(model.pattern), np.array(model.error), np.array(model.done)
        progress = run.console.progress(problem.views, "azimuthal integration: frame")
        for block in frame_blocks(problem.data["counts"], self.views):
            found, bars = integrate(problem.table, block, self.clip)
            place = slice(at, at + len(block))
            scale = np.asarray(problem.scale[place]).reshape(-1, *(1,) * (found.ndim - 1))
            pattern[place], error[place] = found * scale, bars * scale
            done[place] = 1
            at += len(block)
        progress.update(at)
        found = Patterns(jnp.asarray(pattern), jnp.asarray(error), jnp.asarray(done))
        return Outcome(problem.replace(model=found), np.zeros(0))


def integrate(table: AzimuthalIntegrator, frames: np.ndarray, clip: float | None) -> tuple[np.ndarray, np.ndarray]:
    """Integrate frames of counts: intensities and their errors."""
    on_device = jnp.asarray(frames)
    if clip is not None:
        found, bars = table.clipped(on_device, clip)
    else:
        found, bars = table.with_errors(on_device)
    return np.asarray(found), np.asarray(bars)


def _has_monitor(scan: Scan) -> bool:
    return "monitor" in scan.extra or "monitor" in powder_file(scan)


def monitor_of(scan: Scan) -> Float[np.ndarray, " view"]:
    """Give the monitor of every frame, ones where there is none.

    **Raises:** `InputError` for another number of values, or one that is not positive.
    """
    if not _has_monitor(scan):
        return np.ones(scan.views)
    values = np.asarray(scan.extra.get("monitor", powder_file(scan).get("monitor")), float).ravel()
    values = values / (1.0 if "monitor" in scan.extra else powder_file(scan).get("monitor_gain", 1.0))
    return monitor_at(scan, values, (scan.views,), "do not divide: --set integration.monitor=false")


def _no_cost(model: Patterns, batch: Any) -> Array:
    return jnp.zeros(())

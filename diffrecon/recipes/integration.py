"""Azimuthal integration: patterns, or cakes, of powder frames, with error bars from the counts."""

import dataclasses
from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from .. import prepare
from .._console import Console
from .._model import Model as AnyModel
from .._result import Quantity
from ..errors import InputError
from ..frames import frame_blocks
from ..geometry import TiltedDetector
from ..modality import Modality, Outcome, Problem, Run, Stage, Work
from ..operators import AzimuthalIntegrator, Cake, radial_range
from ..scan import Scan
from ..settings import section, setting
from . import looks
from ._monitor import monitor_at

_RINGLESS = 0.8  # share of the variance along rings, whichever way round, from which on the geometry makes none
_NOISY = 0.5  # share of the variance that noise makes, from which on nothing is said
_STAGES = 20  # after which finished patterns are in the journal


@dataclass(frozen=True)
class Integration:
    """From frames to patterns."""

    axis: str = setting("two_theta", "of the patterns", choices=("two_theta", "q"))
    channels: int | None = setting(None, "of a pattern; by default as wide as a pixel", at_least=2)
    range: tuple[float, float] | None = setting(
        None, "first and last edge, in degrees of two_theta or 1/nm of q; by default all that the detector sees"
    )
    sectors: int = setting(
        1, "of azimuth, counted from chi = -180 degrees; one makes patterns, more make cakes", at_least=1
    )
    splitting: str = setting(
        "no",
        "of pixels between channels: none (sharpest), or evenly over the radii of their corners, which narrow channels "
        "need",
        choices=("no", "bbox"),
    )
    polarisation: float | None = setting(
        None, "degree of horizontal polarisation; by default the file's, or 0.99", at_least=-1, at_most=1
    )
    solid_angle: bool = setting(True, "divide by the solid angle of every pixel")
    orientation: int | None = setting(
        None,
        "of the stored frame, as in PONI files; by default the geometry's, if the rings agree",
        choices=(1, 2, 3, 4),
    )
    masked: bool = setting(
        True, "leave out what did not measure; false counts it as dark, as programs do that are given no mask"
    )
    hot_pixels: bool = setting(
        True, "find pixels that stick out of their ring in nearly every frame, and leave them out"
    )
    clip: float | None = setting(
        None,
        "leave out pixels beyond so many standard deviations of their ring, against spots of crystals; 5 is usual",
        above=1,
    )
    monitor: bool = setting(True, "divide by the monitor where the file has one")


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
        table, lines = integrator(scan, settings.integration, console)
        empty = np.zeros((scan.views, *table.cake.shape), np.float32)
        scale = 1 / monitor_of(scan) if settings.integration.monitor else np.ones(scan.views)
        data = {"counts": scan.counts}
        model = Patterns(jnp.asarray(empty), jnp.asarray(empty), jnp.zeros(scan.views))
        unknowns = {"pattern": 1.0, "error": 1.0, "done": 1.0}
        return Frames(model, data, _no_cost, unknowns, table=table, scale=scale, lines=lines)

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


def integrator(
    scan: Scan, rules: Integration, console: Console, finer: int = 1
) -> tuple[AzimuthalIntegrator, tuple[str, ...]]:
    """Make the table for the frames of a scan, once geometry and frames are seen to belong together.

    **Arguments:** `finer`: channels to the width of a pixel, where their number is not given.

    **Raises:** `InputError` without a geometry, for frames that lie with rows and columns exchanged, or a bad range.
    """
    detector = scan.extra.get("detector")
    if not isinstance(detector, TiltedDetector):
        raise InputError(
            f"{scan.name}: where does the detector stand? Give its PONI file: --set geometry.poni=FILE.poni"
        )
    if scan.geometry is not None and scan.geometry.wavelength is not None:
        detector = dataclasses.replace(detector, wavelength=float(scan.geometry.wavelength))
    mask = np.ones(scan.frame_shape, bool) if scan.mask is None else np.asarray(scan.mask, bool)
    degree = rules.polarisation if rules.polarisation is not None else _file(scan).get("polarisation", 0.99)
    frames = prepare.sample_frames(scan.counts)
    detector, lines = _oriented(scan, frames, mask, detector, rules, degree)
    if rules.hot_pixels and (odd := prepare.odd_pixels(frames, mask, detector)).any():
        places = ", ".join(f"({r}, {c})" for r, c in np.argwhere(odd)[:5])
        more = ", ..." if odd.sum() > 5 else ""
        lines.append(
            f"{odd.sum()} pixels stick out of their ring in nearly every frame and are left out: {places}{more}"
        )
        mask = mask & ~odd
    cake = _cake(detector, scan.frame_shape, rules, finer)
    table = AzimuthalIntegrator(
        detector, scan.frame_shape, cake, mask=mask if rules.masked else None, splitting=rules.splitting,
        polarisation=degree, solid_angle=rules.solid_angle,
    )  # fmt: skip
    return table, tuple(lines)


def _oriented(
    scan: Scan, frames: np.ndarray, mask: np.ndarray, detector: TiltedDetector, rules: Integration, degree: float
) -> tuple[TiltedDetector, list[str]]:
    """Lay the frame as its rings have it, unless the user says how; what is certain is said, loudly."""
    if rules.orientation is not None:
        detector = dataclasses.replace(detector, orientation=rules.orientation)
    frame = frames.mean(0)
    found = prepare.check_orientation(frame, mask, detector, degree)
    if not found.sure:
        return detector, _no_rings(found, frame[mask], len(frames))
    if found.best < 0:
        raise InputError(f"{scan.name}: {found.words()}; transpose the frames or mend the geometry")
    if rules.orientation is not None:
        return detector, [f"integration.orientation = {rules.orientation} as you say, although {found.words()}"]
    line = f"{found.words()}; taken so (integration.orientation = {found.given} insists on the geometry)"
    return dataclasses.replace(detector, orientation=found.best), [line]


def _no_rings(found: prepare.Orientation, values: np.ndarray, frames: int) -> list[str]:
    """Warn where frames with more structure than noise are no rings, whichever way round they lie."""
    least, values = min(found.spread.values()), np.minimum(values, np.percentile(values, 99.5))
    noise = max(float(values.mean()), 0.0) / frames
    if least < _RINGLESS or noise > _NOISY * float(values.var()):
        return []
    return [
        f"WARNING: at least {least:.0%} of the variance of the frames is along what the geometry calls rings, any "
        "way round they lie: distance, centre or pixel are those of another detector or scan, or few large crystals "
        "scatter (geometry.poni)"
    ]


def _cake(detector: TiltedDetector, shape: tuple[int, int], rules: Integration, finer: int) -> Cake:
    low, high = radial_range(detector, shape, rules.axis, rules.splitting)
    if rules.range is not None:
        low, high = (np.radians(v) if rules.axis == "two_theta" else v * 1e9 for v in rules.range)
        if not 0 <= low < high:
            raise InputError(
                f"integration.range = {list(rules.range)}: two numbers, the first the smaller, are expected"
            )
    full = radial_range(detector, shape, "two_theta", "no")[1]
    per_radian = detector.distance / max(detector.pixel1, detector.pixel2)
    across = max(2, int(np.tan(min(full, 1.5)) * per_radian))
    whole = radial_range(detector, shape, rules.axis, "no")
    channels = rules.channels or max(2, round(finer * across * (high - low) / (whole[1] - min(whole[0], 0.0))))
    return Cake(float(low), float(high), int(channels), rules.sectors, rules.axis)


def _file(scan: Scan) -> dict[str, Any]:
    return dict(scan.extra.get("powder", {}))


def _has_monitor(scan: Scan) -> bool:
    return "monitor" in scan.extra or "monitor" in _file(scan)


def monitor_of(scan: Scan) -> Float[np.ndarray, " view"]:
    """Give the monitor of every frame, ones where there is none.

    **Raises:** `InputError` for another number of values, or one that is not positive.
    """
    if not _has_monitor(scan):
        return np.ones(scan.views)
    values = np.asarray(scan.extra.get("monitor", _file(scan).get("monitor")), float).ravel()
    values = values / (1.0 if "monitor" in scan.extra else _file(scan).get("monitor_gain", 1.0))
    return monitor_at(scan, values, (scan.views,), "do not divide: --set integration.monitor=false")


def _no_cost(model: Patterns, batch: Any) -> Array:
    return jnp.zeros(())

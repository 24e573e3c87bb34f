"""Powder frames and their geometry: settings of the integration, which way round a frame lies, its bins. No jax."""

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np

from .. import prepare
from ..errors import InputError
from ..geometry import TiltedDetector
from ..operators import Cake, radial_range
from ..scan import Scan
from ..settings import setting

Table = TypeVar("Table")
_RINGLESS = 0.8  # share of the variance along rings, whichever way round, from which on the geometry makes none
_NOISY = 0.5  # share of the variance that noise makes, from which on nothing is said


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


def bins_of(scan: Scan, rules: Integration, kind: Callable[..., Table], finer: int = 1) -> tuple[Table, list[str]]:
    """Make the bins of the frames of a scan, once geometry and frames are seen to belong together; what is to be said.

    **Arguments:** `kind`: `AzimuthalIntegrator`, or `Bins.of`, which needs no jax; `finer`: channels to the width of a
    pixel, where their number is not given.

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
    degree = rules.polarisation if rules.polarisation is not None else powder_file(scan).get("polarisation", 0.99)
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
    table = kind(
        detector, scan.frame_shape, cake, mask=mask if rules.masked else None, splitting=rules.splitting,
        polarisation=degree, solid_angle=rules.solid_angle,
    )  # fmt: skip
    return table, lines


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


def powder_file(scan: Scan) -> dict[str, Any]:
    """Give what a powder file says besides its frames."""
    return dict(scan.extra.get("powder", {}))

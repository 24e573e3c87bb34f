"""Scan points of a scanning microscope: where they are, what they measured, which of them are empty."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float

from .. import prepare
from ..errors import InputError, MissingMetadata
from ..frames import frame_blocks, spread
from ..geometry import FarField
from ..prepare import Raster
from ..scan import Scan
from ._monitor import monitor_at
from ._scan_facts import most_frequent

__all__ = ["Points", "Signals", "check_points", "points_of", "signals_of"]

_SOME = 64  # frames that find the middle of the beam
_EDGE = 0.01  # share of the light in the outermost pixels that is worth a word


class Points(NamedTuple):
    """Where a scan was.

    **Fields:** `shape` (y, x) of the grid; `step` (y, x) [m], `None` where it is not known; `raster` of frames, `None`
    for stacks that are on a grid already; `angle` of a detector pixel [rad], of frames.
    """

    shape: tuple[int, int]
    step: tuple[float, float] | None
    raster: Raster | None = None
    angle: float = 0.0


class Signals(NamedTuple):
    """What the points say, `(view, y, x)` each, NaN where nothing is known.

    **Fields:** `transmission`; `alpha` (2, ...) along rows and columns [rad], `darkfield` [rad^2] or `None`; `errors`
    by name, from the noise of photons; `counts` of each point; `spread` of the empty beam [rad], 0 where not seen;
    `lines` for the user.
    """

    transmission: Float[np.ndarray, "view y x"]
    alpha: Float[np.ndarray, "2 view y x"] | None
    darkfield: Float[np.ndarray, "view y x"] | None
    errors: dict[str, np.ndarray]
    counts: Float[np.ndarray, "view y x"]
    spread: float
    lines: tuple[str, ...]


# ---------------------------------------------------------------------------------------------------- where
def points_of(scan: Scan) -> Points:
    """Find the grid of a scan of frames, one a position, or of a stack (angle, row, point).

    **Raises:** `MissingMetadata` for what turns pixels into angles, `InputError` for points that make no map.
    """
    if scan.positions is not None:
        return _of_frames(scan)
    pixel = None if scan.pixel_size is None else np.ravel(np.asarray(scan.pixel_size, float))
    step = None if pixel is None else (float(pixel[0]), float(pixel[-1]))
    check_points(scan)
    if scan.angles is None and scan.views > 1:
        raise InputError(
            f"{scan.name}: {scan.views} images (row, point) and no angles: give data.angles for a tomogram, "
            "data.positions for frames of a detector, or data.views for one map"
        )
    return Points(scan.frame_shape, step)


def _of_frames(scan: Scan) -> Points:
    assert scan.positions is not None
    if scan.angles is not None and np.ptp(scan.angles) > 0:
        raise InputError(
            f"{scan.name}: frames at many angles: reduce them to stacks (angle, row, point) of counts, moments_x and "
            "moments_y, or reconstruct them: -m ptycho-tomography"
        )
    place, pixel = scan.geometry, scan.pixel_size
    if scan.positions_unit == "pixel" and pixel is None:
        raise MissingMetadata("geometry.pixel_size", "the length of a pixel of the positions", scan.name, "20 nm")
    scale = np.mean(pixel) if scan.positions_unit == "pixel" else 1.0
    raster = prepare.raster_of(np.asarray(scan.positions, float) * scale)
    if place is not None and place.distance is not None and getattr(place, "detector_pixel", None) is not None:
        angle = float(np.mean(place.detector_pixel)) / float(np.mean(place.distance))
    elif isinstance(place, FarField) and place.wavelength is not None and pixel is not None:
        angle = float(place.wavelength) / (place.frame * float(np.mean(pixel)))
    else:
        if place is None or place.distance is None:
            raise MissingMetadata("geometry.sample_to_detector", "the distance to the detector", scan.name, "2 m")
        raise MissingMetadata("geometry.detector_pixel", "the detector's pixel", scan.name, "75 um")
    return Points(raster.shape, raster.step, raster, angle)


def check_points(scan: Scan) -> None:
    """Refuse a monitor or moments of another shape than the stack, and ones that are no numbers.

    **Raises:** `InputError` naming the value, what is there and what is expected.
    """
    shape = (scan.views, *scan.frame_shape)
    monitor, moments = scan.extra.get("monitor"), [scan.extra.get(name) for name in ("moments_y", "moments_x")]
    if monitor is not None:
        monitor_at(scan, np.asarray(monitor), shape)
    for name, values in zip(("moments_y", "moments_x"), moments, strict=True):
        if values is not None and np.size(values) != np.prod(shape):
            raise InputError(
                f"{scan.name}: data.{name} has shape {np.shape(values)}; expected {shape}, the mean angle [rad] of "
                "every point"
            )


# ---------------------------------------------------------------------------------------------------- what
def signals_of(scan: Scan, points: Points, empty: Any, callback: Callable[[int], None] | None = None) -> Signals:
    """Read what the points measured, against empty ones.

    **Raises:** `InputError` for a region that is not there or without light.
    """
    return _from_stack(scan, empty) if points.raster is None else _from_frames(scan, points, empty, callback)


def _from_frames(scan: Scan, points: Points, empty: Any, callback: Callable[[int], None] | None) -> Signals:
    sums, mean, lines = _reader(scan, callback)
    found = sums(frame_blocks(scan.counts))
    monitor = scan.extra.get("monitor")
    sent = 1.0 if monitor is None else monitor_at(scan, np.ravel(np.asarray(monitor)), (scan.views, 1, 1)).ravel()
    raw, dim = found.total / sent, int((~(found.total > 0)).sum())
    where = np.asarray(scan.positions, float) * (np.mean(scan.pixel_size) if scan.positions_unit == "pixel" else 1.0)
    assert points.raster is not None
    if empty is None and scan.flats is not None:
        still = sums([np.asarray(scan.flats)])
        level = np.mean(still.total) if monitor is None else most_frequent(_bright(raw))
        zero, broad = still.centre.mean(1), float(still.variance.mean())
        lines.append("angles and dark field are against data.flats")
    else:
        nodes = np.rint((where - points.raster.first) / np.asarray(points.raster.step)).astype(int)
        clear, said = _empty_points(scan, raw, found.total, nodes, points.shape, empty)
        level, zero = float(np.median(raw[clear])), np.median(found.centre[:, clear], 1)
        broad, lines = float(np.median(found.variance[clear])), said + lines
    if dim:
        lines.append(f"{dim} of {scan.views} frames without light, or with values that are no numbers: left out")
    light, angle, passed = np.maximum(found.total, 1.0), points.angle, raw / level
    stack = np.stack([
        passed, *(found.centre - zero[:, None]) * angle, (found.variance - broad) * angle**2, passed / np.sqrt(light),
        np.sqrt(np.maximum(found.variance, 0) / light) * angle,
        np.sqrt(np.maximum(found.fourth - found.variance**2, 0) / light) * angle**2, found.total,
    ])  # fmt: skip
    laid = prepare.on_raster(points.raster, where, stack)[:, None]
    errors = {"transmission": laid[4], "alpha_y": laid[5], "alpha_x": laid[5], "darkfield": laid[6]}
    return Signals(laid[0], laid[1:3], laid[3], errors, laid[7], float(np.sqrt(max(broad, 0))) * angle, tuple(lines))


def _reader(scan: Scan, callback: Callable[[int], None] | None) -> tuple[Callable, np.ndarray, list[str]]:
    """Make what sums frames up about the middle of the beam, with the mean frame and what is to be said of it.

    **Raises:** `InputError` for frames without light.
    """
    dark = 0.0 if scan.darks is None else np.asarray(scan.darks, np.float64).mean(0)
    some = spread(scan.views, _SOME)
    mean = np.asarray(scan.counts[some], np.float64).mean(0)
    corner = scan.extra.get("dc", "centre") == "corner"
    sums = partial(prepare.frame_moments, good=scan.mask, dark=dark, corner=corner)
    middle = sums([mean[None]]).centre[:, 0]
    if not np.isfinite(middle).all():
        raise InputError(f"{scan.name}: no light in the frames; check data.darks and the mask")
    about = partial(sums, origin=(float(middle[0]), float(middle[1])), callback=callback)
    return about, mean, _edge_line(mean - dark, scan.mask, corner)


def _from_stack(scan: Scan, empty: Any) -> Signals:
    shape = (scan.views, *scan.frame_shape)
    counts, sent, known = _sums(scan, shape)
    lines: list[str] = []
    clear = None
    if not known or empty is not None:
        if scan.flux is not None and empty is None:
            level = float(np.mean(scan.flux))
        elif scan.flats is not None and empty is None:
            level = np.asarray(scan.flats, float).mean(0)
        else:
            nodes = np.moveaxis(np.indices(shape)[1:], 0, -1).reshape(-1, 2)
            raw = (counts / sent).ravel()
            clear, lines = _empty_points(scan, raw, counts.ravel(), nodes, scan.frame_shape, empty)
            level = np.median(raw[clear])
        sent = sent * level
    light = np.maximum(counts, 0.5)
    passed, dim = light / sent, int((counts < 0.5).sum())
    if dim:
        lines.append(f"{dim} points without light: half a count is taken there")
    moments = [scan.extra.get(name) for name in ("moments_y", "moments_x")]
    alpha = _by_quadrants(scan, shape, clear)
    if any(m is not None for m in moments):
        alpha = np.stack([np.zeros(shape) if m is None else np.asarray(m, float).reshape(shape) for m in moments])
    return Signals(passed, alpha, None, {"transmission": passed / np.sqrt(light)}, light, 0.0, tuple(lines))


def _sums(scan: Scan, shape: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray, bool]:
    """Give the transmitted counts, what was sent in, and whether the file says how many counts that makes.

    **Raises:** `InputError` for counts of another shape, negative ones, and ones that are no numbers.
    """
    given, transmitted = scan.provenance.given, scan.extra.get("transmitted")
    named = transmitted is not None and not {"counts", "quadrants"} & set(given)
    counts = np.asarray(transmitted if named else scan.counts, float)
    if counts.shape != shape:
        raise InputError(f"{scan.name}: the transmitted counts have shape {counts.shape}; expected (angle, row, point)")
    bad = np.argwhere(~(np.isfinite(counts) & (counts >= 0)))
    if len(bad):
        raise InputError(
            f"{scan.name}: counts of {len(bad)} points are negative or no numbers, first at {bad[0].tolist()} (angle, "
            "row, point): leave such views out (data.views), or mend them"
        )
    counts = counts - (0.0 if scan.darks is None else np.asarray(scan.darks, float).mean(0))
    share, photons, monitor = (scan.extra.get(n) for n in ("transmitted_per_photon", "photons", "monitor"))
    if named and photons is not None and "monitor" not in given:
        return counts, np.asarray(photons, float) * (1.0 if share is None else float(share)), share is not None
    sent = np.ones(shape) if monitor is None else monitor_at(scan, np.asarray(monitor), shape)
    return counts, sent, False


def _by_quadrants(scan: Scan, shape: tuple[int, ...], clear: Any) -> np.ndarray | None:
    """Angles of an evenly filled cone by the light on both halves of a detector, against those of empty points.

    A disc of radius 1 moved by a has `(2 / pi) (asin a + a sqrt(1 - a^2))` more on one half, wherever it is along it.

    **Raises:** `InputError` for another shape, `MissingMetadata` without the cone's half-angle.
    """
    stored, cone = scan.extra.get("quadrants"), scan.extra.get("divergence")
    if stored is None:
        return None
    if np.size(stored) != 4 * np.prod(shape):
        raise InputError(f"{scan.name}: data.quadrants has shape {np.shape(stored)}; expected {(4, *shape)}")
    if cone is None:
        what = "half the opening of the beam's cone, which turns quadrants into angles"
        raise MissingMetadata("geometry.divergence", what, scan.name, "0.5 mrad")
    parts = np.asarray(stored, float).reshape(4, *shape)
    total = np.maximum(parts.sum(0), 0.5)
    more = np.stack([parts[2] + parts[3] - parts[0] - parts[1], parts[1] + parts[3] - parts[0] - parts[2]]) / total
    moved = np.linspace(-1, 1, 2001)
    alpha = float(cone) * np.interp(more, 2 / np.pi * (np.arcsin(moved) + moved * np.sqrt(1 - moved**2)), moved)
    zero = 0.0 if clear is None else np.median(alpha.reshape(2, -1)[:, clear], 1)[:, None, None, None]
    return alpha - zero


# ---------------------------------------------------------------------------------------------------- empty points
def _bright(raw: np.ndarray) -> np.ndarray:
    """The brightest quarter: the sample attenuates."""
    raw = raw[np.isfinite(raw)]
    return raw[raw >= np.quantile(raw, 0.75)]


def _empty_points(
    scan: Scan, raw: np.ndarray, counts: np.ndarray, nodes: np.ndarray, shape: tuple[int, int], empty: Any
) -> tuple[Bool[np.ndarray, " point"], list[str]]:
    """Tell which points have no sample: those of a region, or those of the most frequent bright transmission."""
    lit = np.isfinite(raw) & (counts > 0)
    if not lit.any():
        raise InputError(f"{scan.name}: no light at any point; check data.counts, data.darks and the mask")
    if empty is None:
        level = most_frequent(_bright(raw[lit]))
        width = max(3 / np.sqrt(np.median(counts[lit])), 0.002)
        clear = lit & (np.abs(raw / level - 1) < width)
        return clear, [
            f"no empty region is said (model.empty): {clear.mean():.0%} of the points, of the most frequent bright "
            "transmission, are taken for it; transmission and angles are against theirs"
        ]
    r0, r1, c0, c1 = (int(v) for v in empty)
    if not (0 <= r0 < r1 <= shape[0] and 0 <= c0 < c1 <= shape[1]):
        raise InputError(f"{scan.name}: model.empty = {list(empty)}: the map has {shape[0]} rows of {shape[1]} points")
    clear = lit & (nodes[:, 0] >= r0) & (nodes[:, 0] < r1) & (nodes[:, 1] >= c0) & (nodes[:, 1] < c1)
    if not clear.any():
        raise InputError(f"{scan.name}: model.empty = {list(empty)}: no point with light is there")
    return clear, []


def _edge_line(mean: np.ndarray, good: np.ndarray | None, corner: bool) -> list[str]:
    """Say so where the beam reaches the edge of the detector: what falls beside it is missing in all moments."""
    image = np.where(True if good is None else good, mean, 0)
    image = np.fft.fftshift(image) if corner else image
    share = 1 - image[1:-1, 1:-1].sum() / max(image.sum(), 1e-30)
    if share < _EDGE:
        return []
    return [
        f"WARNING: {share:.1%} of the light falls on the outermost pixels: light beside the detector is missing in "
        "transmission, angles and dark field"
    ]

"""Which frames and pixels of a scan can be used: closed shutters, flashes, dead and saturated pixels, subtractions."""

import dataclasses
from typing import Any

import numpy as np

from ..errors import InputError
from ..frames import AnyMeasurement, LazyFrames, Measurement, spread

__all__ = ["FramesReport", "check_frames"]

_BRIGHTER = 20.0  # times the median brightness of a frame: no object or drift of the beam does that
_BAD_PART = 0.05  # of a frame's pixels: more is a broken frame, less are broken pixels
_SATURATED_AT_LEAST = 100  # counts: small numbers are the largest value often without being an end of the scale
_SATURATED_PIXELS = 20
_DEFECT_VIEWS = 25  # in which defects are looked for
_DEFECT = 20.0  # times brighter or darker than all eight neighbours, in nine views of ten: light moves with the sample
_DEFECT_COUNTS = 100  # at least, of the brighter
_SUBTRACTED = 0.25  # of all light, that may lie below zero where a background was subtracted


@dataclasses.dataclass(frozen=True)
class FramesReport:
    """Say what of a scan can be used.

    **Fields:** `views` = indices of the usable views, `mask` `(y, x)` `True` = measured, `saturation` = counts at which
    frames look cut off, or `None`, `messages` = one line for everything that was found, `counts` = the frames from zero
    on where a background had been subtracted, else `None`.
    """

    views: np.ndarray
    mask: np.ndarray
    saturation: float | None
    messages: tuple[str, ...]
    counts: Any = None

    def apply(self, scan: AnyMeasurement) -> AnyMeasurement:
        """Give the scan of the usable views, with the mask."""
        scan = scan if self.counts is None else scan.replace(counts=self.counts)
        scan = scan if self.views.size == scan.views else scan.subset(self.views)
        return scan if self.mask.all() and scan.mask is None else scan.replace(mask=self.mask)


def check_frames(scan: Measurement, block: int = 64) -> FramesReport:
    """Look for frames and pixels that would spoil a reconstruction silently.

    Views are left out that have no counts (shutter closed), a position that is not finite, more than 5 % of pixels that
    are not finite or negative (broken frames), or 20 times more or less light than the median (flashes, or a shutter
    that was closing). Pixels are masked that are not finite or negative in any other view, or at the largest value of
    an integer detector in at least half of the views, by which many detectors mark what they did not measure,
    and single ones that are 20 times brighter or darker than all their neighbours in nearly all views. Where many
    pixels hold the same largest value, the frames look saturated.

    Floats around zero, from which a background was subtracted, are taken as zero photons where they are negative.

    One pass over the frames, `block` views at a time.

    **Raises:** `InputError` when less than two views or half of the pixels remain.

    ```python
    counts = np.full((9, 8, 8), 40, np.uint16)
    counts[3] = 0
    report = check_frames(dr.Scan(counts=counts))
    assert report.views.tolist() == [0, 1, 2, 4, 5, 6, 7, 8] and "view 3" in report.messages[0]
    ```
    """
    measured = np.ones(scan.frame_shape, bool) if scan.mask is None else scan.mask
    below = _subtracted(scan, measured)
    counts = None if below is None else _from_zero(scan.counts)
    scan = scan if counts is None else scan.replace(counts=counts)
    survey = _survey(scan, measured, block)
    reasons = _reasons(scan, survey)
    left_out = np.unique(np.concatenate(list(reasons.values())))
    views = np.setdiff1d(np.arange(scan.views), left_out)
    messages = [_line_of_views(reason, some) for reason, some in reasons.items() if some.size]
    if below is not None:
        messages.append(
            f"a background was subtracted: {below:.0%} of the values are negative, taken as zero photons; frames "
            "before the subtraction, with data.darks, tell their noise better"
        )
    if views.size < 2:
        raise InputError(
            f"{scan.name}: {views.size} of {scan.views} views can be used, a scan needs overlapping ones"
            + "".join(f"; {line}" for line in messages)
        )
    dead = survey.marked >= 0.5 * scan.views
    mask = measured.copy()
    mask[measured] = ~survey.wrong & ~dead
    if mask.sum() < 0.5 * measured.sum():
        raise InputError(
            f"{scan.name}: only {mask.sum()} of {measured.sum()} pixels have finite counts from zero on "
            "in all views: mask the others (data.mask) or undo a subtraction"
        )
    defects = _defects(scan, views, mask)
    mask &= ~defects
    where = np.argwhere(measured)
    if defects.any():
        said = (
            f"{_pixels(np.argwhere(defects))} {_DEFECT:g} times brighter or darker than all around in nearly all views"
        )
        messages.append(f"{said}: hot or dead, left out")
    if survey.wrong.any():
        messages.append(f"{_pixels(where[survey.wrong])} not finite or negative in some views: left out in all")
    if dead.any():
        messages.append(
            f"{_pixels(where[dead])} at {survey.mark:g}, the largest {scan.counts.dtype}: taken as not measured"
        )
    saturation = survey.saturation(dead)
    if saturation is not None:
        messages.append(
            f'frames look saturated at {saturation:g} counts: such pixels say "at least so many" '
            "(loss.saturation=inf takes them as they are)"
        )
    return FramesReport(views, mask, saturation, tuple(messages), counts)


class NoNegatives(LazyFrames):
    """Frames whose negative values are read as zero."""

    def __init__(self, frames: Any):
        self._frames, self.shape, self.dtype = frames, tuple(frames.shape), np.dtype(frames.dtype)
        self.bands = getattr(frames, "bands", 0)

    def _read(self, views: np.ndarray, rows: slice, columns: slice) -> np.ndarray:
        values = np.asarray(self._frames[(views, rows)])[..., columns]
        return np.where(values < 0, np.zeros((), self.dtype), values)  # what is no number stays so


def _from_zero(frames: Any) -> Any:
    """Take negative values as zero: of arrays at once, of frames in files as they are read."""
    in_memory = isinstance(frames, np.ndarray) and not isinstance(frames, np.memmap)
    return np.asarray(NoNegatives(frames)) if in_memory else NoNegatives(frames)


def _subtracted(scan: Measurement, measured: np.ndarray) -> float | None:
    """Give the share of negative values of frames from which a background was subtracted, else `None`.

    There they are small, many, and not all alike: a single negative number is the mark of what was not measured.
    """
    if np.dtype(scan.counts.dtype).kind != "f":
        return None
    some = spread(scan.views, _DEFECT_VIEWS)
    values = np.concatenate([np.asarray(scan.counts[view])[measured] for view in some])
    values = values[np.isfinite(values)]
    negative = values[values < 0]
    if negative.size < 2 or negative.max() == negative.min():
        return None
    return negative.size / values.size if -negative.sum() < _SUBTRACTED * values[values > 0].sum() else None


@dataclasses.dataclass
class _Survey:
    """Hold what one pass over the measured pixels counts."""

    mark: float  # the largest value that the type of the counts can hold
    broken: np.ndarray  # part of the pixels that are not finite or negative, by view
    total: np.ndarray  # counts of the others, by view
    wrong: np.ndarray  # whether a pixel is not finite or negative in a view that is not broken
    marked: np.ndarray  # in how many views a pixel holds the mark
    largest: float = 0.0  # below the mark
    held: int = 0  # how often

    def saturation(self, dead: np.ndarray) -> float | None:
        """Give the largest value, where many pixels hold exactly it and none is beyond."""
        marks = int(self.marked[~dead].sum())
        top, held = (self.mark, marks) if marks else (self.largest, self.held)
        return top if held >= _SATURATED_PIXELS and top >= _SATURATED_AT_LEAST else None


def _survey(scan: Measurement, measured: np.ndarray, block: int) -> _Survey:
    mark = float(np.iinfo(scan.counts.dtype).max) if np.dtype(scan.counts.dtype).kind in "iu" else np.inf
    pixels = int(measured.sum())
    survey = _Survey(mark, np.zeros(scan.views), np.zeros(scan.views), np.zeros(pixels, bool), np.zeros(pixels, int))
    for start in range(0, scan.views, block):
        part = np.asarray(scan.counts[start : start + block])[:, measured]
        wrong = ~np.isfinite(part) | (part < 0)
        at_mark = part == mark
        good = np.where(wrong | at_mark, 0, part)
        here = slice(start, start + block)
        survey.broken[here] = wrong.mean(1)
        survey.total[here] = good.sum(1, dtype=float)
        survey.wrong |= wrong[wrong.mean(1) <= _BAD_PART].any(0)
        survey.marked += at_mark.sum(0)
        top = float(good.max())
        survey.held = survey.held * (top <= survey.largest) + int(np.sum(good == top)) * (top >= survey.largest)
        survey.largest = max(survey.largest, top)
    return survey


def _defects(scan: Measurement, views: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Find single hot and dead pixels by their neighbours."""
    if np.dtype(scan.counts.dtype).kind not in "iuf" or min(scan.frame_shape) < 3:
        return np.zeros(mask.shape, bool)
    some = views[spread(len(views), _DEFECT_VIEWS)]
    often, (rows, columns) = np.zeros(mask.shape), mask.shape
    places = [(i, j) for i in range(3) for j in range(3) if (i, j) != (1, 1)]
    for view in some:  # one at a time: the search takes nine times its size
        frame = np.where(mask, scan.counts[view], 0).astype(float)
        frame[~np.isfinite(frame)] = 0
        around = lambda value, frame=frame: (
            np.pad(np.where(mask, frame, value), 1, constant_values=value)[i : i + rows, j : j + columns]
            for i, j in places
        )
        highest, lowest = np.maximum.reduce([*around(0.0)]), np.minimum.reduce([*around(np.inf)])
        hot = (frame > _DEFECT * highest) & (frame >= _DEFECT_COUNTS)
        dead = (_DEFECT * frame < lowest) & (lowest >= _DEFECT_COUNTS) & np.isfinite(lowest)
        often += hot | dead
    return (often >= 0.9 * len(some)) & mask


def _reasons(scan: Measurement, survey: _Survey) -> dict[str, np.ndarray]:
    """List the views that cannot be used, by the reason."""
    broken, total = survey.broken > _BAD_PART, survey.total
    dark, lit = total <= 0, np.median(total[total > 0]) if (total > 0).any() else 1.0
    placed = np.ones(scan.views, bool) if scan.positions is None else np.isfinite(scan.positions).all(1)
    fine = placed & ~broken & ~dark
    return {
        "no finite position": np.flatnonzero(~placed),
        "pixels not finite or negative": np.flatnonzero(placed & broken),
        "no counts, shutter closed?": np.flatnonzero(placed & ~broken & dark),
        f"more than {_BRIGHTER:g} times the usual counts": np.flatnonzero(fine & (total > _BRIGHTER * lit)),
        f"less than 1/{_BRIGHTER:g} of the usual counts": np.flatnonzero(fine & (total < lit / _BRIGHTER)),
    }


def _line_of_views(reason: str, views: np.ndarray) -> str:
    named = ", ".join(map(str, views[:8])) + (", ..." if views.size > 8 else "")
    return f"view{'s' if views.size > 1 else ''} {named} left out: {reason}"


def _pixels(places: np.ndarray) -> str:
    first = tuple(map(int, places[0]))
    return f"pixel {first} is" if len(places) == 1 else f"{len(places)} pixels (the first {first}) are"

"""Areas of lines over a raster: which points and values can be used, their variance, and the noise of a blank."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from ..errors import InputError
from ..frames import at_ceiling
from ..scan import Scan

_IMPOSSIBLE = 5.0  # standard deviations below zero at which an area is a mistake and no noise
_WHOLE = 0.5  # of the values of a line that are whole numbers: fewer are areas of a fit
_SEVERAL = 3  # values below zero that are the same by no chance
_NO_AREA = -1.0  # by which some programs mark a point without a value


class Areas(NamedTuple):
    """Areas that can be used.

    **Fields:** `counts`, `variance`, `valid`, `blank` (standard deviation without the element), each
    `(view, y, x, line)`; `how` the blank is known; `words` that say what was left out.
    """

    counts: np.ndarray
    variance: np.ndarray
    valid: np.ndarray
    blank: np.ndarray
    how: str
    words: tuple[str, ...]


def areas_of(scan: Scan, lines: Mapping[int, Any], exposure: np.ndarray) -> Areas:
    """Pick the channels of the lines; leave out, with a message, what is no measurement.

    **Arguments:** `exposure` `(view, y, x)` times live fraction.

    **Raises:** `InputError` where nothing is left.
    """
    stored, channels = np.asarray(scan.counts), list(lines)
    names, words = [str(line) for line in lines.values()], list[str]()
    counts = stored[..., channels].astype(float)
    errors, background = (_by_line(scan, name, channels) for name in ("area_errors", "area_backgrounds"))
    valid = np.ones(counts.shape, bool)

    def leave_out(bad: np.ndarray, why: str) -> None:
        bad = np.broadcast_to(bad, counts.shape) & valid
        if bad.any():
            words.append(f"left out: {shown_points(bad, names)} {why}")
            valid[bad] = False

    if scan.extra.get("point_mask") is not None:
        leave_out(~np.asarray(scan.extra["point_mask"])[..., None], "without a position, or places without a point")
    lit = np.isfinite(exposure) & (exposure > 0)
    leave_out(~lit[..., None], "without light: the monitor, the time or the live fraction is zero or no number")
    leave_out(~np.isfinite(counts), "not a finite number")
    leave_out(at_ceiling(stored[..., channels]), f"at the largest number of {stored.dtype}: saturated")
    if scan.saturation is not None:
        leave_out(counts >= scan.saturation, f"at {scan.saturation:g} counts or more: saturated")
    if len(channels) > 1:
        leave_out((counts == _NO_AREA).all(-1, keepdims=True), "marked with -1 in every line")
    leave_out(_marked(counts, valid), "at one whole number below zero: a mark")
    counts = np.where(valid, counts, 0)
    variance = _variance(counts, errors, background)
    integers = stored.dtype.kind in "iu"
    leave_out(counts < (0 if integers else -_IMPOSSIBLE * np.sqrt(variance)), "below zero, which counts are not")
    if not valid.any():
        raise InputError(f"{scan.name}: no point is left: {'; '.join(words) or 'the areas are empty'}")
    words += _spikes(counts, valid, names)
    one = float(scan.extra.get("count_size", 1.0))  # of a value that is the mean of several
    blank, how = _blank(counts, valid, errors, background, one)
    return Areas(np.where(valid, counts, 0), np.where(valid, variance, 1), valid, blank, how, tuple(words))


def _marked(counts: np.ndarray, valid: np.ndarray) -> np.ndarray:
    """Tell values below zero that are a mark: one whole number, all of them and not where counts fade to, or again and
    again among values that are none."""
    marked = np.zeros(counts.shape, bool)
    for line in range(counts.shape[-1]):
        values, good = counts[..., line], valid[..., line]
        below, often = np.unique(values[good & (values < 0)], return_counts=True)
        fitted = np.mean(values[good] == np.rint(values[good])) < _WHOLE if good.any() else False
        for value, times in zip(below, often, strict=True):
            next_above = np.sum(values[good] == value + 1)  # many, where a background of whole counts was taken away
            alone = len(below) == 1 and times > _SEVERAL * next_above
            if times >= _SEVERAL and value == np.rint(value) and (alone or fitted):
                marked[..., line] |= good & (values == value)
    return marked


def _spikes(counts: np.ndarray, valid: np.ndarray, names: list[str]) -> list[str]:
    """Name single points that hold most counts of a line."""
    found = []
    for line, name in enumerate(names):
        values = np.where(valid[..., line], np.maximum(counts[..., line], 0), 0)
        view, row, column = (int(i) for i in np.unravel_index(values.argmax(), values.shape))
        top, total = values[view, row, column], values.sum()
        if values.size > 100 and top > 0.5 * total and top > 100 * np.partition(values.ravel(), -2)[-2]:
            found.append(
                f"WARNING: a single point of {name} (view {view}, row {row}, column {column}) holds {top / total:.1%} "
                "of its counts: is it saturated or damaged (data.saturation)?"
            )
    return found


def _by_line(scan: Scan, name: str, channels: list[int]) -> np.ndarray | None:
    values = scan.extra.get(name)
    return None if values is None else np.asarray(values, float)[..., channels]


def _variance(counts: np.ndarray, errors: np.ndarray | None, background: np.ndarray | None) -> np.ndarray:
    """Take that of the fit that made them, else of their photons and of those below the peak."""
    under = 0.0 if background is None else np.nan_to_num(np.maximum(background, 0))
    photons = np.maximum(np.maximum(counts, 0) + under, 1)
    if errors is None:
        return photons
    return np.where(np.isfinite(errors) & (errors > 0), np.nan_to_num(errors) ** 2, photons)


def _blank(
    counts: np.ndarray, valid: np.ndarray, errors: np.ndarray | None, background: np.ndarray | None, one: float
) -> tuple[np.ndarray, str]:
    """Standard deviation of an area where the element is not: what is below the peak makes it, one count at least."""
    if background is not None:
        return np.sqrt(np.maximum(np.nan_to_num(background), one**2)), ""
    if errors is None:
        return np.ones(counts.shape), " at best (no background is known: data.area_backgrounds)"
    rest = np.where(valid & np.isfinite(errors) & (errors > 0), errors**2 - np.maximum(counts, 0), np.nan)
    blank = np.ones(counts.shape[-1])
    for line in range(counts.shape[-1]):
        some = rest[..., line][np.isfinite(rest[..., line])]
        blank[line] = np.sqrt(max(float(np.median(some)), 1.0)) if some.size else 1.0
    return np.broadcast_to(blank, counts.shape), ""


def shown_points(bad: np.ndarray, names: list[str]) -> str:
    """Say how many points, of which lines, and where the first is."""
    points = bad.any(-1)
    of = [name for channel, name in enumerate(names) if bad[..., channel].any()]
    view, row, column = (int(i) for i in np.argwhere(points)[0])
    first = f"row {row}, column {column}" if bad.shape[0] == 1 else f"view {view}, row {row}, column {column}"
    which = "" if len(of) == len(names) else f" of {', '.join(of)}"
    many = int(points.sum())
    return f"{many} point{'s' * (many > 1)}{which} ({first}{' the first' if many > 1 else ''})"


def check_lines(scan: Scan) -> None:
    """Refuse a scan that says nothing of lines.

    **Raises:** `InputError`.
    """
    if "lines" not in scan.extra:
        raise InputError(
            f'{scan.name}: which datasets are areas of lines? --set \'data.elements={{"Fe K" = "/fit/Fe"}}\', or the '
            "group that holds them: --set data.elements=/fit; or spectra: --set data.spectra=/counts"
        )

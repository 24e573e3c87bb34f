"""Where the rotation axis is, also of a sample that is moved from view to view on purpose, against rings."""

from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from .. import prepare
from ..errors import InputError
from ._slabs import middle_rows

__all__ = ["Moves", "find_axis", "whole_column"]

_LEAST = 0.25  # pixels that are worth it
_MOVED = 1e-7  # [m] that are worth a word
_SURE = 0.1  # by which the moves seen in the frames may differ from those written


class Moves(NamedTuple):
    """By how many columns the picture of each view has moved (`None` = not at all), and what is to be said."""

    columns: Float[np.ndarray, " view"] | None = None
    said: str = ""


def find_axis(
    prepared: prepare.Preparation, search: tuple[float, float] | None, rows: Any = None
) -> tuple[float, Moves, str]:
    """Give the column of the axis, the moves of the views, and where the axis comes from in words.

    **Arguments:** `rows`, those of the whole detector where they have been prepared already.

    **Raises:** `InputError` for an axis that is given far outside of the detector.
    """
    scan: Any = prepared.scan
    joined, columns, moves = prepared.rotation_centre, prepared.shape[2], Moves()
    sample = None
    if joined is None and {"shifts", "sample_translation"} & set(scan.extra):
        sample = prepared.rows(*middle_rows(prepared.shape[1], 8)) if rows is None else rows
        moves = column_moves(scan, sample, np.asarray(prepared.angles))
    if scan.rotation_centre is not None and joined is None:
        centre = float(scan.rotation_centre)
        if not -columns <= centre <= 2 * columns:
            raise InputError(
                f"{scan.name}: geometry.rotation_centre = {centre:g} lies farther off the detector, {columns} columns, "
                "than that is wide: it is counted in columns from the first"
            )
        return (
            centre,
            moves,
            f"rotation centre {centre:.2f} as given{whole_column(prepared, centre)}" + beside(centre, columns),
        )
    if moves.columns is None or sample is None:
        axis = prepared.find_rotation_centre(rows)
    else:
        some = moved_back(np.asarray(sample)[:, :: max(1, sample.shape[1] // 16)], moves.columns)
        axis = prepare.find_rotation_centre(some, scan.angles, search=search)
    return axis.centre, moves, axis.message + whole_column(prepared, axis.centre)


def whole_column(prepared: prepare.Preparation, centre: float) -> str:
    """Say which column of the whole detector the axis is in, where only a part was read; else nothing."""
    window = None if prepared.rotation_centre is not None else prepared.scan.window
    return "" if window is None else f"; column {window.whole_column(centre):.2f} of the whole detector"


def beside(centre: float, columns: int) -> str:
    """Warn of an axis that lies on the first column, or off the detector; else nothing."""
    if 0 < centre <= columns - 1:
        return ""
    return (
        f"; WARNING: columns are counted from 0 to {columns - 1}: it leaves half of the sample unseen; a distance from "
        f"the middle would be column {(columns - 1) / 2 + centre:.1f}"
    )


def column_moves(scan: Any, rows: Float[Any, "view z u"], angles: Float[np.ndarray, " view"]) -> Moves:
    """Find by how many columns each view has moved.

    `extra["shifts"]` (row, column) [pixel] are taken as they are. x of `extra["sample_translation"]` [m] moves
    the picture to either side: the centre of mass of the views tells to which, and whether it does at all.
    """
    shifts, translation = scan.extra.get("shifts"), scan.extra.get("sample_translation")
    if shifts is not None and np.shape(shifts) == (len(angles), 2):
        along = np.asarray(shifts, float)
        rest = f"; those along rows, up to {np.abs(along[:, 0]).max():.1f}, are not used" if along[:, 0].any() else ""
        farthest = np.abs(along[:, 1]).max()
        return Moves(along[:, 1], f"views shifted back by up to {farthest:.1f} columns (data.shifts){rest}")
    if translation is None or np.shape(translation) != (len(angles), 3):
        return Moves()
    if scan.pixel_size is None:
        far = float(np.ptp(np.asarray(translation, float)[:, 0]))
        said = f"the sample was moved by {far:.3g} m (sample translation): by how many columns the pixel size tells"
        return Moves(None, f"{said} (geometry.pixel_size); not used" if far > _MOVED else "")
    moved = np.asarray(translation, float)[:, 0] / float(np.mean(scan.pixel_size))
    if not np.isfinite(moved).all() or np.ptp(moved) < _LEAST:
        return Moves()
    farthest, slope = np.abs(moved).max(), _seen(rows, angles, moved - moved.mean())
    if abs(abs(slope) - 1) > _SURE:
        return Moves(
            None,
            f"WARNING: the sample was moved by up to {farthest:.1f} pixels (sample translation); the views do not "
            "show as a shift of columns: not used; data.shifts says by how much each view moved",
        )
    return Moves(
        np.sign(slope) * moved, f"views shifted back by up to {farthest:.1f} columns (sample translation along x)"
    )


def _seen(rows: Any, angles: np.ndarray, moved: np.ndarray) -> float:
    """Find how many columns the centre of mass moves for each that is written, besides its way round the axis."""
    lines = np.asarray(rows, float).sum(1)
    total = lines.sum(1)
    if not (total > 0).all() or np.ptp(total) > 0.3 * total.mean():
        return 0.0
    centre = lines @ np.arange(lines.shape[1]) / total
    basis = np.stack([np.ones_like(angles), np.cos(angles), np.sin(angles), moved], 1)
    return float(np.linalg.lstsq(basis, centre, rcond=None)[0][3])


def moved_back(rows: Float[Any, "view z u"], moves: Float[np.ndarray, " view"]) -> Float[np.ndarray, "view z u"]:
    """Move views back by so many columns, linear between them: enough to find the axis."""
    columns = np.arange(np.shape(rows)[-1])
    back = [
        [np.interp(columns + move, columns, line) for line in view]
        for view, move in zip(np.asarray(rows), moves, strict=True)
    ]
    return np.asarray(back, np.float32)

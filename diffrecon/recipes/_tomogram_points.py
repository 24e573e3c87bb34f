"""Points of a fluorescence tomogram that are no measurement: left out, and named."""

import numpy as np

from ..errors import InputError
from ..frames import at_ceiling
from ..scan import Scan
from ._map_points import shown_points

__all__ = ["measured_points"]

_SURE = 30  # counts of a usual view, from which on a view without any has not been measured


def measured_points(scan: Scan, names: tuple[str, ...]) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Lay counts of lines and of the transmitted beam side by side, and tell which of them are measurements.

    **Returns:** counts `(view, z, u, channel)`, zero where they are none; the same as yes and no; what is to be said.

    **Raises:** `InputError` where nothing of a channel is left.
    """
    stored, transmitted = np.asarray(scan.counts), scan.extra.get("transmitted")
    channels = [stored[..., c] for c in range(stored.shape[-1])]
    names = (*names, "transmission")[: len(channels) + (transmitted is not None)]
    channels += [] if transmitted is None else [np.asarray(transmitted)]
    counts = np.stack([one.astype(np.float32) for one in channels], -1)
    valid, words = np.ones(counts.shape, bool), list[str]()

    def leave_out(bad: np.ndarray, why: str) -> None:
        bad = np.broadcast_to(bad, counts.shape) & valid
        if bad.any():
            words.append(f"left out: {shown_points(bad, list(names))} {why}")
            valid[bad] = False

    leave_out(~np.isfinite(counts), "not a finite number")
    leave_out(np.stack([at_ceiling(one) for one in channels], -1), "at the largest number of their type: saturated")
    if scan.saturation is not None:
        leave_out(counts >= scan.saturation, f"at {scan.saturation:g} counts or more: saturated")
    leave_out(counts < 0, "below zero, which counts are not")
    counts = np.where(valid, counts, 0)
    total = counts.sum((1, 2), keepdims=True, dtype=float)
    leave_out((total == 0) & (np.median(total, 0) > _SURE), "in views without a single count")
    gone = [name for name, seen in zip(names, np.asarray(valid.any((0, 1, 2))), strict=True) if not seen]
    if gone:
        raise InputError(f"{scan.name}: no point of {', '.join(gone)} is left: {'; '.join(words)}")
    words += [f"no counts of {name} at all" for name, n in zip(names, counts.sum((0, 1, 2)), strict=True) if n == 0]
    if transmitted is None:
        counts, valid = (np.concatenate([a, np.zeros_like(a[..., :1])], -1) for a in (counts, valid))
    return counts, valid, words

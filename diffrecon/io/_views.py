"""Which value belongs to which frame: scans that were stopped, dropped frames, angles of flats and darks too."""

from typing import Any

import numpy as np

from ..errors import InputError
from ..frames import index_ranges
from .keys import full_name
from .source import Source

_PER_VIEW = ("angles", "positions", "shifts", "times", "sample_translation", "monitor", "element_counts")


def match_views(source: Source, values: dict[str, Any], views: int, chosen: np.ndarray | None) -> None:
    """Give arrays of one entry a frame as many entries as there are frames, in place; every guess is a message.

    - `frame_ids` (numbers of the frames that were kept, counted from the first) pick the entries of those frames.
    - Of angles that were recorded with flats and darks too, the run whose neighbours all differ is taken.
    - Of a scan that was stopped, the first entries belong to the first frames.

    Entries may lack where the user chooses views (`chosen`) that have one.

    **Raises:** `InputError` where it is not clear which entry belongs to which frame, with what to say.
    """
    ids, base = _ids(source, values, views), values.pop("frame_base", None)
    for name in _PER_VIEW:
        entries = values.get(name)
        if not isinstance(entries, np.ndarray) or not entries.ndim or len(entries) == views:
            continue
        if name == "monitor" and entries.ndim > 1:  # one entry a scan point
            continue
        if ids is not None and len(entries) > views:
            first, gone = _first_number(source, name, ids, base, len(entries)), len(entries) - views
            source.say(
                f"{gone} of {len(entries)} frames were dropped: {name} of the {views} others, by their numbers "
                f"(the first frame has {first})"
            )
            values[name] = entries[ids - first]
        elif len(entries) > views:
            values[name] = entries[_run(source, values, name, views)]
        elif chosen is not None and chosen.max() < len(entries):
            lacking = np.full((views - len(entries), *entries.shape[1:]), np.nan)
            values[name] = np.concatenate([entries.astype(float), lacking])
        elif name in ("angles", "positions", "element_counts"):
            raise InputError(
                f"{source.name}: {len(entries)} {name.replace('_', ' ')} for {views} frames; where the last frames "
                f"have none, say --set data.views=0:{len(entries)}"
            )


def _ids(source: Source, values: dict[str, Any], views: int) -> np.ndarray | None:
    """Numbers of the frames, where they are increasing and one a frame."""
    ids = values.pop("frame_ids", None)
    if ids is None:
        return None
    ids = np.asarray(ids).ravel()
    if ids.dtype.kind not in "iuf" or ids.size != views or (np.diff(ids.astype(float)) <= 0).any():
        return None
    return ids.astype(np.int64)


def _first_number(source: Source, name: str, ids: np.ndarray, base: int | None, total: int) -> int:
    """The number of the first frame of a scan of `total` frames, some of which were dropped.

    **Raises:** `InputError` where the first or the last may be among those.
    """
    if ids[-1] - ids[0] + 1 == total:
        return int(ids[0])
    base = int(ids[0]) if base is None and ids[0] in (0, 1) else base
    if base is None or ids[0] < base or ids[-1] - base >= total:
        raise InputError(
            f"{source.name}: {len(ids)} frames, numbered from {ids[0]} to {ids[-1]}, and {total} {name}: it is not "
            f"clear which belong together; give those of the {len(ids)} frames ({full_name(name)})"
        )
    return base


def _run(source: Source, values: dict[str, Any], name: str, views: int) -> slice:
    """The entries of the frames among more entries than frames."""
    entries = np.asarray(values[name])
    more, others = len(entries) - views, [len(values[k]) for k in ("flats", "darks") if values.get(k) is not None]
    if name == "angles" and entries.dtype.kind in "iuf":
        steps = np.diff(entries.astype(float).ravel())
        still = np.flatnonzero(steps == 0)
        if still.size:
            # Flats and darks are taken while the sample stands still.
            ways = [s for s in range(more + 1) if _turns(steps[s : s + views - 1])]
            if len(ways) == 1:
                source.say(
                    f"{len(entries)} angles for {views} views: {ways[0]} at the start and {more - ways[0]} at the end "
                    "are left out, where the angle stands still (flats and darks)"
                )
                return slice(ways[0], ways[0] + views)
        if still.size or more == sum(others) > 0:
            raise InputError(
                f"{source.name}: {len(entries)} angles for {views} views, and it is not clear which belong to "
                f"{'the ' + str(sum(others)) + ' flats and darks' if others else 'which'}; give those of the views "
                f'({full_name(name)}, a table of {views} lines, or "0..180 deg")'
            )
    source.say(f"the first {views} of {len(entries)} {name} are taken: the scan was stopped after {views} frames")
    return slice(0, views)


def _turns(steps: np.ndarray) -> bool:
    """Tell whether the sample turns on in every step, the same way."""
    return bool(steps.size) and (bool((steps > 0).all()) or bool((steps < 0).all()))


def finite_views(source: Source, values: dict[str, Any], views: np.ndarray) -> np.ndarray:
    """Leave out, with a message, views whose angle or position is not a finite number.

    **Raises:** `InputError` when none remains.
    """
    for name in ("angles", "positions"):
        entries = values.get(name)
        if not isinstance(entries, np.ndarray) or entries.dtype.kind not in "iuf" or views.max() >= len(entries):
            continue
        good = np.isfinite(entries[views].reshape(views.size, -1)).all(1)
        if good.all():
            continue
        if not good.any():
            raise InputError(f"{source.name}: the {name} are not finite numbers in any view")
        source.say(f"view{'s' if (~good).sum() > 1 else ''} {index_ranges(views[~good])} left out: {name} not finite")
        views = views[good]
    return views

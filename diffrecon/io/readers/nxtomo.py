"""NXtomo: NeXus files of tomography, with projections, flats and darks in one stack told apart by `image_key`.

https://manual.nexusformat.org/classes/applications/NXtomo.html; frames may lie in other files behind external links.
"""

import re
from typing import Any

import numpy as np

from ... import physics
from ...errors import InputError
from ...frames import Frames
from ..source import Source, text

_PROJECTION, _FLAT, _DARK = 0, 1, 2


def probe(source: Source) -> bool:
    """Tell whether some group holds an image_key."""
    return source.file is not None and bool(_keys(source))


def read(source: Source, given: dict[str, Any]) -> dict[str, Any]:
    """Read projections (lazy), flats, darks, angles, and what the instrument group says."""
    detector = _detector(source, given.get("entry"))
    data = f"{detector}/data"
    key = source.array(given.get("image_key") or f"{detector}/image_key", "image key").ravel()
    entry = detector.split("/")[0]
    angles = _angles(source, entry, key.size)
    key = _written(source, key, source.dataset(data, "frames"), angles)
    count = key.size
    views = np.flatnonzero(key == _PROJECTION)
    if not views.size:
        raise InputError(
            f"{source.name}: image_key of {detector} marks no projection (0); values: {np.unique(key).tolist()}"
        )
    flats, darks = (np.flatnonzero(key == kind) for kind in (_FLAT, _DARK))
    left = count - views.size - flats.size - darks.size
    source.say(
        f"{detector}: image_key says {views.size} projections, {flats.size} flats, {darks.size} darks"
        + (f", {left} frames to leave out" if left else "")
    )
    found: dict[str, Any] = {"counts": Frames(source.path, data, views), "method": "tomography"}
    for name, which in (("flats", flats), ("darks", darks)):
        if which.size:
            found[name] = Frames(source.path, data, which)
            found[f"{name[:-1]}_views"] = np.searchsorted(views, which).astype(float)
    if angles is not None:
        values = source.array(angles, "angles").astype(float).ravel()
        found["angles"] = values[views] if values.size >= count else values
        found["angle_unit"] = source.units(angles)
        source.say(f"angles from {angles}")
    return found | _instrument(source, detector) | _per_frame(source, entry, detector, views)


def _written(source: Source, key: np.ndarray, stored: Any, angles: str | None) -> np.ndarray:
    """The image key of the frames that are there: all of them, or, while the file is being written, the first ones."""
    count = stored.shape[0]
    if source.live:
        count = min([key.size, count] + ([] if angles is None else [source.file[angles].shape[0]]))
        source.say(f"the file is still being written: the first {count} frames are taken")
    elif key.size != count:
        raise InputError(f"{source.name}: image_key has {key.size} entries, {stored.name} {count} frames")
    return key[:count]


def _per_frame(source: Source, entry: str, detector: str, views: np.ndarray) -> dict[str, Any]:
    """Read what else was recorded with every frame: translation of the sample, beam monitor, place of the axis."""
    found: dict[str, Any] = {}
    moved = [_column(source, f"{entry}/sample/{axis}_translation", "m", views) for axis in "xyz"]
    if any(m is not None for m in moved):
        found["sample_translation"] = np.stack([np.zeros(views.size) if m is None else m for m in moved], -1)
    monitor = _column(source, f"{entry}/control/data", "", views)
    if monitor is not None:
        found["monitor"] = monitor
    if source.has(f"{detector}/field_of_view"):
        seen = text(source.array(f"{detector}/field_of_view", "field of view")[()]).lower()
        found["field_of_view"] = seen
        source.say(f"field of view: {seen}" + (" (the axis stands at the detector's edge)" if seen == "half" else ""))
    for name in ("x_rotation_axis_pixel_position", "estimated_cor_from_motor"):
        if source.has(f"{detector}/{name}"):
            # Some files count it from the detector's first column, others from its middle.
            source.say(
                f"{name} = {source.number(f'{detector}/{name}', name):g} pixels is not used: it may count from "
                "the first column or from the middle; give geometry.rotation_centre"
            )
            break
    return found


def _column(source: Source, name: str, unit: str, views: np.ndarray) -> np.ndarray | None:
    """Finite values of the views of a dataset with one number a frame."""
    if not source.has(name) or source.file[name].shape[:1] <= (views.max(),) or source.file[name].ndim != 1:
        return None
    values = source.array(name, name)[views]
    if values.dtype.kind not in "iuf" or not np.isfinite(values).all():
        return None
    written = source.units(name)
    return values.astype(float) * (physics.unit_scale(written, unit) if written and unit else 1.0)


def _keys(source: Source) -> list[str]:
    """Groups that hold an image_key."""
    found: list[str] = []
    source.file.visit(lambda name: found.append(str(name)))
    return [name.rpartition("/")[0] for name in found if name.endswith("/image_key")]


def _detector(source: Source, wanted: str | None) -> str:
    """The one group whose frames can be read; links that lead nowhere are passed over when another group is whole."""
    groups = [
        g for g in _keys(source) if wanted is None or g == wanted.strip("/") or g.split("/")[0] == wanted.strip("/")
    ]
    if not groups:
        raise InputError(f"{source.name}: no entry {wanted!r} with an image_key; there are {', '.join(_keys(source))}")
    is_stack = lambda g: source.has(f"{g}/data") and source.file[f"{g}/data"].ndim == 3
    if not any(map(is_stack, groups)):
        source.follow_live_links()
    whole = [g for g in groups if is_stack(g)]
    if not whole:
        source.dataset(f"{groups[0]}/data", "frames")  # raises, naming the link
        raise InputError(f"{source.name}: {groups[0]}/data is not a stack of frames")
    for group in set(groups) - set(whole):
        source.say(f"{group}/data leads nowhere and is passed over")
    # The same stack linked from two places of one entry is one scan.
    if len({g.split("/")[0] for g in whole}) > 1 or len({_stack(source, g) for g in whole}) > 1:
        said = ", ".join(f"{g}: {source.file[f'{g}/data'].shape[0]} frames" for g in whole)
        raise InputError(f"{source.name} holds several scans ({said}); choose with --set data.entry={whole[0]}")
    return whole[0]


def _stack(source: Source, group: str) -> tuple[str, str]:
    stored = source.file[f"{group}/data"]
    return stored.file.filename, stored.name


def _angles(source: Source, entry: str, count: int) -> str | None:
    """The dataset of rotation angles: NXtomo's own name, or the one motor of fitting length that is called so."""
    standard = (
        f"{entry}/sample/rotation_angle",
        f"{entry}/data/rotation_angle",
        f"{entry}/tomo_entry/sample/rotation_angle",
    )
    for name in standard:
        if source.has(name):
            return name
    likely = re.compile(r"rotation_angle|theta|rot(ation)?(_|$)|angle|phi", re.IGNORECASE)
    fitting = [
        name
        for name in _paths(source.file[entry], entry)
        if likely.search(name.rpartition("/")[2]) and _is_motor(source, name, count)
    ]
    # Read-back positions before demanded ones.
    fitting.sort(key=lambda name: ("_set" in name, len(name)))
    return fitting[0] if fitting else None


def _paths(group: Any, prefix: str, depth: int = 4) -> list[str]:
    """Names of everything below a group, links that lead nowhere too."""
    import h5py

    names = []
    for key in group:
        name = f"{prefix}/{key}"
        names.append(name)
        if depth and group.get(key, getclass=True, getlink=True) is h5py.HardLink:
            inner = group.get(key)
            if isinstance(inner, h5py.Group):
                names += _paths(inner, name, depth - 1)
    return names


def _is_motor(source: Source, name: str, count: int) -> bool:
    import h5py

    stored = source.file.get(name)
    if not isinstance(stored, h5py.Dataset) or stored.dtype.kind != "f" or stored.ndim != 1:
        return False
    return stored.shape[0] == count or source.live


def _instrument(source: Source, detector: str) -> dict[str, Any]:
    """Energy, distance and pixel, where the file has them."""
    entry = detector.split("/")[0]
    found: dict[str, Any] = {}
    for name in (
        f"{entry}/instrument/beam/incident_energy",
        f"{entry}/beam/incident_energy",
        f"{entry}/instrument/monochromator/energy",
        f"{entry}/sample/beam/incident_energy",
    ):
        if source.has(name) and source.file[name].size == 1:
            found["energy"], message = physics.plausible_energy(source.number(name, "energy"), source.units(name))
            source.say(message)
            break
    for key, name in (("sample_to_detector", "distance"), ("detector_pixel", "x_pixel_size")):
        if source.has(f"{detector}/{name}") and source.file[f"{detector}/{name}"].size == 1:
            found[key] = abs(source.number(f"{detector}/{name}", name, "m"))
    return found

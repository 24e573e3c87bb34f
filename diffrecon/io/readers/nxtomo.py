"""NXtomo: NeXus files of tomography, with projections, flats and darks in one stack told apart by `image_key`.

https://manual.nexusformat.org/classes/applications/NXtomo.html; frames may lie in other files behind external links.
"""

import re
from typing import Any

import numpy as np

from ... import physics
from ...errors import InputError
from ...frames import Frames
from ..source import Source, identity

_PROJECTION, _FLAT, _DARK, _INVALID = 0, 1, 2, 3


def probe(source: Source) -> bool:
    """Tell whether some group holds an image_key."""
    return source.file is not None and bool(_keys(source))


def read(source: Source, given: dict[str, Any]) -> dict[str, Any]:
    """Read projections (lazy), flats, darks, angles, and what the instrument group says."""
    detector = _detector(source, given.get("entry"))
    data = f"{detector}/data"
    name = given.get("image_key") or f"{detector}/image_key"
    key = source.numbers(name, "image key").ravel()
    entry = _entry(detector)
    stored = source.dataset(data, "frames")
    if stored.ndim < 2:
        raise InputError(f"{source.name}: {data} has shape {stored.shape}; expected (view, y, x)")
    line = stored.ndim == 2
    frames = source.array(data, "frames")[:, None] if line else Frames(source.path, data)
    angles = _angles(source, entry, key.size)
    key = _written(source, key, len(frames), angles)
    if "image_key" not in given:
        key = _without_alignment(source, detector, key)
    views = np.flatnonzero(key == _PROJECTION)
    if not views.size:
        raise InputError(f"{source.name}: {name} marks no projection (0); values: {np.unique(key).tolist()}")
    flats, darks = (np.flatnonzero(key == kind) for kind in (_FLAT, _DARK))
    left = key.size - views.size - flats.size - darks.size
    source.say(
        f"{detector}: image_key says {views.size} projections, {flats.size} flats, {darks.size} darks"
        + (f", {left} frames to leave out" if left else "")
        + (f"; frames of one line of {frames.shape[2]} pixels" if line else "")
    )
    pick = lambda which: frames[which] if line else Frames(source.path, data, which)
    found: dict[str, Any] = {"counts": pick(views), "method": "tomography"}
    for kind, which in (("flats", flats), ("darks", darks)):
        if which.size:
            found[kind] = pick(which)
            found[f"{kind[:-1]}_views"] = np.searchsorted(views, which).astype(float)
    values = None if angles is None or "angles" in given else source.maybe_numbers(angles, "angles")
    if angles is not None and values is not None:
        values = values.astype(float).ravel()
        # One angle a frame, as the format has it, or one a projection.
        found["angles"] = values[views] if values.size > views.max() and values.size != views.size else values
        found["angle_unit"] = source.units(angles)
        source.say(f"angles from {angles}")
    if "flip" not in given:
        _say_mirrored(source, detector)
    return found | _instrument(source, detector) | _per_frame(source, entry, detector, views)


def _entry(detector: str) -> str:
    """The entry of a detector, or the subentry (`entry1/tomo_entry`), in which its sample stands."""
    before, inside, _ = detector.partition("/instrument/")
    return before if inside else detector.split("/")[0]


def _written(source: Source, key: np.ndarray, count: int, angles: str | None) -> np.ndarray:
    """The image key of the frames that are there: all of them, or, of a scan that was stopped or is still being
    written, the first ones."""
    if source.live:
        count = min([key.size, count] + ([] if angles is None else [source.file[angles].shape[0]]))
        source.say(f"the file is still being written: the first {count} frames are taken")
    elif key.size > count:
        source.say(f"{count} frames for {key.size} entries of image_key: the scan was stopped, the first {count} hold")
    elif key.size < count:
        source.say(f"{count} frames for {key.size} entries of image_key: the last {count - key.size} are left out")
    return key[:count]


def _without_alignment(source: Source, detector: str, key: np.ndarray) -> np.ndarray:
    """The key without frames that were taken once more after the scan to align it (control key -1)."""
    control = source.maybe_numbers(f"{detector}/image_key_control", "control key")
    if control is None or control.size < key.size:
        return key
    again = np.flatnonzero((control.ravel()[: key.size] == -1) & (key == _PROJECTION))
    if not again.size or again.size == (key == _PROJECTION).sum():
        return key
    source.say(
        f"{again.size} alignment frames (image_key_control -1) are left out; --set data.image_key={detector}/image_key "
        "takes them"
    )
    key = key.copy()
    key[again] = _INVALID
    return key


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
        seen = source.words(f"{detector}/field_of_view").lower()
        found["field_of_view"] = seen
        source.say(f"field of view: {seen}" + (" (the axis stands at the detector's edge)" if seen == "half" else ""))
    for name in ("x_rotation_axis_pixel_position", "estimated_cor_from_motor"):
        place = source.number(f"{detector}/{name}", name)
        if place is not None:
            # Some files count it from the detector's first column, others from its middle.
            source.say(
                f"{name} = {place:g} pixels is not used: it may count from the first column or from the middle; "
                "give geometry.rotation_centre"
            )
            break
    return found


def _say_mirrored(source: Source, detector: str) -> None:
    """Name a camera that mirrors, as a turn of 180 degrees among the detector's transformations.

    Writers of different years mean different axes by the same words, so that nothing is undone unasked.
    """
    for name, _ in source.walk(detector, depth=2):
        turn = source.file.get(name)
        attributes = getattr(turn, "attrs", {})
        if attributes.get("transformation_type") not in ("rotation", b"rotation"):
            continue
        angle, axis = source.number(name, "turn of the detector", "rad"), np.ravel(attributes.get("vector", 0))
        if angle is not None and abs(abs(angle) - np.pi) < 0.01 and axis.size == 3:
            flip = {0: "up-down", 1: "left-right"}.get(int(np.argmax(np.abs(axis))), "both")
            source.say(
                f"{name} turns the detector by 180 degrees about ({', '.join(f'{a:g}' for a in axis)}); the frames are "
                f"taken as they are stored: --set data.flip={flip} mirrors them, data.flip=none if they are right"
            )


def _column(source: Source, name: str, unit: str, views: np.ndarray) -> np.ndarray | None:
    """Finite values of the views of a dataset with one number a frame."""
    values = source.maybe_numbers(name, name.rpartition("/")[2])
    if values is None or values.ndim != 1 or values.size <= views.max() or not np.isfinite(values[views]).all():
        return None
    written = source.units(name)
    try:
        return values[views].astype(float) * (physics.unit_scale(written, unit) if written and unit else 1.0)
    except InputError as error:
        source.say(f"{name} is not used: {error}")
        return None


def _keys(source: Source) -> list[str]:
    """Groups that hold an image_key, behind links too."""
    names = (name for name, _ in source.walk() if name.endswith("/image_key"))
    return [name.rpartition("/")[0] for name in names]


def _detector(source: Source, wanted: str | None) -> str:
    """The one group whose frames can be read; links that lead nowhere are passed over when another group is whole."""
    groups = [
        g for g in _keys(source) if wanted is None or g == wanted.strip("/") or g.split("/")[0] == wanted.strip("/")
    ]
    if not groups:
        raise InputError(f"{source.name}: no entry {wanted!r} with an image_key; there are {', '.join(_keys(source))}")
    is_stack = lambda g: source.has(f"{g}/data") and getattr(source.file[f"{g}/data"], "ndim", 0) >= 2
    if not any(map(is_stack, groups)):
        source.follow_live_links()
    whole = [g for g in groups if is_stack(g)]
    if not whole:
        source.dataset(f"{groups[0]}/data", "frames")  # raises, naming the link
        raise InputError(f"{source.name}: {groups[0]}/data is not a stack of frames")
    for group in set(groups) - set(whole):
        source.say(f"{group}/data leads nowhere and is passed over")
    # The same group, or the same stack within an entry, linked from several places is one scan.
    whole.sort(key=lambda g: "/instrument/" not in g)
    whole = list({identity(source.file[g]): g for g in reversed(whole)}.values())[::-1]
    if len({g.split("/")[0] for g in whole}) > 1 or len({identity(source.file[f"{g}/data"]) for g in whole}) > 1:
        said = ", ".join(f"{g}: {source.file[f'{g}/data'].shape[0]} frames" for g in whole)
        raise InputError(f"{source.name} holds several scans ({said}); choose with --set data.entry={whole[0]}")
    return whole[0]


def _angles(source: Source, entry: str, count: int) -> str | None:
    """The dataset of rotation angles: NXtomo's own name, or the one motor of fitting length that is called so."""
    standard = (
        f"{entry}/sample/rotation_angle",
        f"{entry}/data/rotation_angle",
        f"{entry}/tomo_entry/sample/rotation_angle",
        f"{entry.split('/')[0]}/sample/rotation_angle",
    )
    for name in standard:
        if source.has(name):
            return name
    likely = re.compile(r"rotation_angle|theta|rot(ation)?(_|$)|angle|phi", re.IGNORECASE)
    fitting = [
        name
        for name, _ in source.walk(entry, depth=4)
        if likely.search(name.rpartition("/")[2]) and _is_motor(source, name, count)
    ]
    # Read-back positions before demanded ones.
    fitting.sort(key=lambda name: ("_set" in name, len(name)))
    return fitting[0] if fitting else None


def _is_motor(source: Source, name: str, count: int) -> bool:
    import h5py

    stored = source.file.get(name)
    if not isinstance(stored, h5py.Dataset) or stored.dtype.kind != "f" or stored.shape is None or stored.ndim != 1:
        return False
    return stored.shape[0] == count or source.live


def _instrument(source: Source, detector: str) -> dict[str, Any]:
    """Energy, distance and pixel, where the file has them."""
    entry = _entry(detector)
    found: dict[str, Any] = {}
    places = ("instrument/beam/incident_energy", "beam/incident_energy", "instrument/monochromator/energy",
              "sample/beam/incident_energy")  # fmt: skip
    energy = source.energy(*(f"{base}/{place}" for base in (entry, detector.split("/")[0]) for place in places))
    if energy is not None:
        found["energy"] = energy
    distance = source.number(f"{detector}/distance", "distance", "m")
    if distance is not None:
        found["sample_to_detector"] = abs(distance)
    pixel = _pixel(source, detector, "pixel of the detector")
    if pixel is not None:
        found["detector_pixel"] = pixel
    return found | _sample_pixel(source, entry, found)


def _pixel(source: Source, group: str, what: str) -> float | None:
    """The pixel along the columns [m]; that along the rows where it is another one is named."""
    sizes = {axis: source.number(f"{group}/{axis}_pixel_size", what, "m") for axis in "xy"}
    known = {axis: abs(size) for axis, size in sizes.items() if size is not None}
    if any(size is not None and size < 0 for size in sizes.values()):
        source.say(f"{group}: a pixel size is below zero: taken without its sign")
    if len(known) == 2 and known["y"] > 0 and abs(known["x"] / known["y"] - 1) > 1e-3:
        source.say(
            f"{group}: {what} is {known['x']:.4g} m wide and {known['y']:.4g} m high: the width is used for both"
        )
    return known.get("x", known.get("y"))


def _sample_pixel(source: Source, entry: str, found: dict[str, Any]) -> dict[str, Any]:
    """The pixel in the sample, as the file has it (optics, cone beam), or by the distance of the source.

    A camera's pixel is not that of the sample behind optics or in a cone beam.
    """
    pixel = _pixel(source, f"{entry}/sample", "pixel in the sample")
    source_distance = source.number(f"{entry}/instrument/source/distance", "source to sample", "m")
    effective = source.number(f"{entry}/sample/propagation_distance", "propagation distance", "m")
    if effective is not None:
        source.say(f"effective propagation distance {effective:.4g} m")
    camera, distance = found.get("detector_pixel"), found.get("sample_to_detector")
    if pixel is None and source_distance and camera and distance:
        magnified = 1 + distance / abs(source_distance)
        if magnified > 1.01:
            pixel, effective = camera / magnified, distance / magnified
            source.say(
                f"cone beam: source {abs(source_distance):.4g} m before and detector {distance:.4g} m behind the "
                f"sample, magnification {magnified:.4g}"
            )
    if pixel is None:
        return {}
    if camera and abs(pixel / camera - 1) > 1e-3:
        source.say(f"pixel in the sample {pixel:.4g} m, of the detector {camera:.4g} m")
    return {"pixel_size": pixel} | (
        {} if effective is None or not effective else {"sample_to_detector": abs(effective)}
    )

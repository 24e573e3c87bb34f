"""What was measured and where it stood: the method that a file's values point to, its geometry, what it cannot lack.

Everything that `io` knows of single methods is in this module.
"""

from typing import Any

import numpy as np

from .. import physics
from ..errors import InputError, MissingMetadata
from ..geometry import ConeBeam, FarField, Geometry, ParallelBeam
from ..scan import Scan
from . import _guess
from ._key_table import KEYS
from .keys import full_name
from .source import Source

PTYCHOGRAPHY = ("near-field-ptychography", "far-field-ptychography", "fluorescence-ptychography")
LINE_INTEGRALS = ("tomography", "laminography")  # methods that may get divided frames
_IMAGES = (*PTYCHOGRAPHY, *LINE_INTEGRALS, "cdi", "holography", "holotomography", "k-edge", "ptycho-tomography")
FOURIER_PLANE = ("far-field-ptychography", "fluorescence-ptychography", "cdi")  # frames with a zero frequency


def far_field(kind: str | None, values: dict[str, Any]) -> bool:
    """Tell whether the frames are far-field patterns; a scanning microscope has them where there is one a position."""
    return kind in FOURIER_PLANE or (kind == "stxm" and "positions" in values)


# Fields that a method cannot do without, with an example of what to say when the file lacks it.
_NEEDED = {
    "tomography": {"angles": "angles.txt"},
    "near-field-ptychography": {"positions": "positions.txt"},
    "far-field-ptychography": {"positions": "positions.txt"},
    "fluorescence-ptychography": {"positions": "positions.txt"},
}


def check_scan(source: Source, scan: Scan) -> None:
    """Refuse a scan that lacks what its method needs, or whose numbers contradict one another.

    **Raises:** `InputError`, `MissingMetadata`.
    """
    if scan.method is None and scan.provenance.reader == "CXI" and scan.positions is None:
        what = f"where the sample was in each of {scan.views} frames (one pattern in three dimensions: -m cdi)"
        raise MissingMetadata("data.positions", what, source.name, "positions.txt")
    if scan.kind in ("transmission", "line-integrals") and scan.method not in (*LINE_INTEGRALS, None):
        raise InputError(
            f"{source.name}: data.kind = {scan.kind} is for {', '.join(LINE_INTEGRALS)}; {scan.method} takes counts"
        )
    if len(scan.counts.shape) == 4 and scan.method in _IMAGES:
        raise InputError(
            f"{source.name}: counts have shape {tuple(scan.counts.shape)}; {scan.method} takes (view, y, x)"
        )
    axis, width = scan.rotation_centre, scan.frame_shape[1]
    if axis is not None and not -width <= axis <= 2 * width:
        raise InputError(
            f"{source.name}: geometry.rotation_centre = {axis:g} is more than a width beside the frames of {width} "
            "columns; it is a column of the detector, counted from 0"
        )
    needed = _NEEDED.get(scan.method or "", {})
    first_missing(source, {k: getattr(scan, k) for k in needed}, needed)
    scan.check_shapes()
    if scan.method in PTYCHOGRAPHY:
        _check_positions(scan)
    if scan.method == PTYCHOGRAPHY[0]:
        _check_motion(source, scan)


def guess_method(source: Source, values: dict[str, Any], counts: Any, mask: np.ndarray | None) -> str | None:
    """Guess the method that the metadata point to; near and far field are told apart by the frames."""
    if "positions" in values and np.ptp(values["positions"], axis=0).max(initial=0) > 0 and counts.ndim == 3:
        if "focus_to_sample" in values or values.get("beam"):
            return PTYCHOGRAPHY[0]
        near, why = _looks_near(values, counts, mask)
        source.say(f"{PTYCHOGRAPHY[0] if near else PTYCHOGRAPHY[1]}: {why} (choose with -m)")
        return PTYCHOGRAPHY[0] if near else PTYCHOGRAPHY[1]
    if "angles" in values:
        return "tomography"
    return None


def _looks_near(values: dict[str, Any], counts: Any, mask: np.ndarray | None) -> tuple[bool, str]:
    """Near field where the features of the frames move with the sample by a magnification that the numbers allow."""
    positions = values["positions"]
    if len(positions) != counts.shape[0] or len(positions) < 4:
        return False, "too few positions to tell near from far field"
    agree, motion = _feature_motion(values, counts, mask)
    slope = float(np.sqrt(abs(np.linalg.det(motion))))
    turned = np.abs(motion + slope * np.eye(2)).max() > 0.25 * slope
    field = _far_field(values)
    if agree > 0.85 and slope > 0:
        # With positions in object pixels the features of a near-field frame move by just as many pixels. In metres,
        # a beam that is narrow enough for far-field sampling is a defocused far-field probe, whose features move too.
        # Half the field is narrow enough whatever the frames hold; where they are dark all around, nothing is folded
        # back, and the whole field will do. A beam that fills the frames of a near-field scan is far wider than either.
        mean = _guess.mean_frame(counts)
        width = np.sqrt(_guess.lit_pixels(mean).sum()) / slope
        in_metres = values.get("positions_unit") == "m"
        widest = None if field is None else field if _guess.dark_border(mean, mask) else field / 2
        near = widest is None or width > widest if in_metres else not turned and 0.8 < slope < 1.25
        if near:
            return True, "the features of the frames move with the sample"
        return False, "features move with the sample, but as those of a defocused far-field probe"
    if field is not None and _guess.neighbour_step(positions) > field / 2:
        return True, "the steps are too wide for far-field sampling with this detector"
    return False, "the features of the frames do not move with the sample"


def _feature_motion(values: dict[str, Any], counts: Any, mask: np.ndarray | None) -> tuple[float, np.ndarray]:
    """Find how the features of the frames move, which takes most of an inspection, once."""
    if "feature_motion" not in values:
        values["feature_motion"] = _guess.feature_motion(counts, values["positions"], mask)
    return values["feature_motion"]


def _far_field(values: dict[str, Any]) -> float | None:
    """`wavelength distance / pixel` [m]: the field of far-field frames, at most half of which a probe may fill."""
    known = [values.get(k) for k in ("energy", "sample_to_detector", "detector_pixel")]
    if values.get("positions_unit") != "m" or any(k is None or np.ndim(k) for k in known):
        return None
    energy, distance, pixel = (float(k) for k in known if k is not None)
    return physics.HC / energy * distance / pixel


def geometry_of(
    source: Source, values: dict[str, Any], counts: Any, mask: np.ndarray | None, kind: str | None, strict: bool
) -> Geometry | None:
    try:
        return _place(source, values, counts, mask, kind)
    except MissingMetadata as error:
        if strict:
            raise
        known = [
            f"{k.replace('_', ' ')} {np.mean(values[k]):.5g} {KEYS[k].unit}"
            for k in KEYS
            if KEYS[k].section == "geometry" and isinstance(values.get(k), float | np.ndarray)
        ]
        if known:
            source.say(f"known of the geometry: {', '.join(known)}")
        source.say(f"missing: {str(error).removeprefix(source.name + ': ')}")
        return None


def _place(
    source: Source, values: dict[str, Any], counts: Any, mask: np.ndarray | None, kind: str | None
) -> Geometry | None:
    energy, pixel, distance = (values.get(k) for k in ("energy", "detector_pixel", "sample_to_detector"))
    sample_pixel = values.get("pixel_size")
    if far_field(kind, values):
        place = FarField(min(counts.shape[1:3]), energy, distance, pixel, sample_pixel)
        if kind in PTYCHOGRAPHY and values.get("positions_unit") == "m" and place.pixel_size is None:
            first_missing(source, values, {"energy": "12 keV", "sample_to_detector": "2 m", "detector_pixel": "75 um"})
        return place
    if "focus_to_sample" in values:
        return _cone(source, values)
    if kind == PTYCHOGRAPHY[0] and values.get("beam") != "parallel" and sample_pixel is None:
        likely = _likely_focus(values, counts, mask)
        estimate = f"; {likely} is an estimate by the motion of the features, wrong by 20 % or so: give yours"
        raise MissingMetadata(
            "geometry.focus_to_sample",
            "the distance from the focus to the sample of this near-field scan (geometry.beam=parallel for a parallel "
            f"beam, -m far-field-ptychography for a far-field one{estimate if likely else ''})",
            source.name,
            likely or "3.65 mm",
        )
    if kind == PTYCHOGRAPHY[0]:
        first_missing(
            source,
            values,
            {"energy": "12 keV", "sample_to_detector": "5 cm"}
            | ({} if sample_pixel else {"detector_pixel": "0.65 um"}),
        )
    if kind == "holography":
        first_missing(source, values, {"energy": "17 keV"})
        if distance is None:
            raise MissingMetadata(
                "geometry.focus_to_sample",
                "the distance from the focus to the sample (or, for a parallel beam, geometry.sample_to_detector)",
                source.name,
                "21 mm",
            )
        first_missing(source, values, {} if sample_pixel else {"detector_pixel": "3 um"})
    if kind is None and energy is None and pixel is None and sample_pixel is None:
        return None
    return ParallelBeam(pixel if sample_pixel is None else sample_pixel, energy, distance)


def first_missing(source: Source, values: dict[str, Any], examples: dict[str, str]) -> None:
    for name, example in examples.items():
        if values.get(name) is None:
            said = _why_not(source, name)
            raise MissingMetadata(full_name(name), name.replace("_", " ") + said, source.name, example)


_WORDS = {"sample_to_detector": "distance", "detector_pixel": "pixel", "focus_to_sample": "focus"}


def _why_not(source: Source, name: str) -> str:
    """Give what was said about a value of the file that could not be used."""
    said = [m for m in source.messages if "not used" in m and _WORDS.get(name, name) in m.lower()]
    return f" (of what the file says, {said[0]})" if said else ""


def _cone(source: Source, values: dict[str, Any]) -> ConeBeam:
    focus = values["focus_to_sample"]
    if "focus_to_detector" in values:
        detector = values["focus_to_detector"]
    else:
        first_missing(source, values, {"sample_to_detector": "1.28 m"})
        detector = focus + values["sample_to_detector"]
    first_missing(source, values, {"energy": "17 keV", "detector_pixel": "3 um"})
    if np.min(np.asarray(detector) - np.asarray(focus)) <= 0:
        raise InputError(
            f"{source.name}: the detector ({np.min(detector):g} m from the focus) is not behind the sample "
            f"({np.max(focus):g} m): check geometry.focus_to_sample and geometry.focus_to_detector"
        )
    return ConeBeam(values["energy"], focus, detector, values["detector_pixel"])


def _likely_focus(values: dict[str, Any], counts: Any, mask: np.ndarray | None) -> str | None:
    """Estimate it by the magnification by which the features of the frames move."""
    distance, pixel = values.get("sample_to_detector"), values.get("detector_pixel")
    if distance is None or pixel is None or values.get("positions") is None or len(values["positions"]) < 4:
        return None
    agree, motion = _feature_motion(values, counts, mask)
    magnification = abs(float(np.trace(motion))) / 2 * pixel
    return f"{distance / (magnification - 1) * 1e3:.2g} mm" if agree > 0.7 and magnification > 1.5 else None


def _check_positions(scan: Scan) -> None:
    """Refuse positions that cannot be: nothing moves, or neighbours do not overlap."""
    pixel = 1.0 if scan.positions_unit == "pixel" else scan.pixel_size
    if pixel is None or scan.positions is None:
        return
    places = scan.positions / np.mean(pixel)
    hint = "; check their unit (--set data.positions_unit=um) and the geometry"
    span = float(np.ptp(places, axis=0).max())
    if span > 1e5:
        raise InputError(f"{scan.name}: positions span {span:.3g} object pixels{hint}")
    if scan.views > 1 and span < 0.5:
        raise InputError(f"{scan.name}: positions span only {span:.2g} object pixels: the sample does not move{hint}")
    step = _guess.neighbour_step(places)
    if step > max(scan.frame_shape):
        raise InputError(
            f"{scan.name}: neighbouring positions are {step:.4g} object pixels apart, frames only "
            f"{max(scan.frame_shape)} wide: they do not overlap{hint}"
        )


def _check_motion(source: Source, scan: Scan) -> None:
    """Say so when the features of near-field frames do not move as positions and magnification have it."""
    if scan.positions is None or scan.views < 4 or (scan.positions_unit != "pixel" and scan.pixel_size is None):
        return
    pixel = 1.0 if scan.positions_unit == "pixel" else float(np.mean(scan.pixel_size))
    agree, motion = _guess.feature_motion(scan.counts, scan.positions / pixel, scan.mask)
    slope = float(np.sqrt(abs(np.linalg.det(motion))))
    if agree < 0.85 or slope == 0:
        return
    if np.abs(motion + slope * np.eye(2)).max() > 0.25 * slope:
        source.say(
            "the features of the frames do not move against the positions: rows and columns or signs of the positions "
            f"may be mixed up (shift per pixel of position: {np.round(motion, 2).tolist()})"
        )
    elif slope > 2:  # no probe makes the features faster
        raise InputError(
            f"{source.name}: the features of the frames move by {slope:.3g} pixels per pixel of position, where one is "
            "expected: check the units of geometry.focus_to_sample and the other distances, and of the positions"
        )
    elif abs(slope - 1) > 0.3:  # a structured probe, which stands still, slows the features down
        source.say(
            f"the features of the frames move by {slope:.2f} pixels per pixel of position: check the geometry and the "
            "unit of the positions"
        )


# ---------------------------------------------------------------------------------------------------- tensor SAXS
def marks_into_weights(source: Source, values: dict[str, Any]) -> None:
    """Put marks of pixels into the weights of tensor SAXS, where every segment of every view may have its own.

    **Raises:** `InputError` for marks that are neither of frames, of their segments, of views, nor of all.
    """
    if values.get("tensor_geometry") is None:
        return
    shape = tuple(values["counts"].shape)
    for key in ("mask", "bad_pixels"):
        marks = values.pop(key, None)
        if marks is None:
            continue
        good = np.asarray(marks) != 0 if key == "mask" else np.asarray(marks) == 0
        lies = {shape: good, shape[1:]: good, shape[:3]: good[..., None], shape[1:3]: good[..., None]}
        if good.shape not in lies:
            raise InputError(
                f"{source.name}: data.{key} has shape {good.shape}, the data {shape}: give marks (row, column), "
                "(row, column, segment), (view, row, column) or (view, row, column, segment)"
            )
        weights = np.ones(shape, np.float32) if values.get("weights") is None else values["weights"]
        values["weights"] = weights * lies[good.shape]
        source.say(f"data.{key} leaves out {1 - good.mean():.2%} of the data: their weights are zero")

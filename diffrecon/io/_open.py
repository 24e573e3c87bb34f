"""`open_scan`: find the format, read what is there, lay what the user says over it, convert, check."""

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from .. import physics
from ..errors import InputError, MissingMetadata
from ..frames import LazyFrames
from ..geometry import ConeBeam, FarField, Geometry, ParallelBeam
from ..scan import Provenance, Scan
from . import _cxi, _dxchange, _folder, _guess, _mumott, _native, _npz, _nxtomo, _part, _ptyd
from ._given import KEYS, MOTORS, collect, full_name, motors, resolve
from ._lazy import SinogramOrdered
from ._source import Source
from ._tables import AngleRange

__all__ = ["open_scan"]


@dataclasses.dataclass(frozen=True)
class Reader:
    """A format: its name, whether a source is of it, and what it holds (keys of `KEYS` in SI units, and `method`)."""

    name: str
    probe: Callable[[Source], bool]
    read: Callable[[Source, dict[str, Any]], dict[str, Any]]


READERS = (
    Reader("ptypy", _ptyd.probe, _ptyd.read),
    Reader("CXI", _cxi.probe, _cxi.read),
    Reader("mumott", _mumott.probe, _mumott.read),
    Reader("NXtomo", _nxtomo.probe, _nxtomo.read),
    Reader("DXchange", _dxchange.probe, _dxchange.read),
    Reader("diffrecon", _native.probe, _native.read),
    Reader("NumPy", _npz.probe, _npz.read),
    Reader("images", _folder.probe, _folder.read),
)

# Fields of `Scan.extra` that readers and users fill in.
_EXTRA = (
    "materials",
    "shifts",
    "two_theta",
    "flat_views",
    "dark_views",
    "sample_translation",
    "monitor",
    "field_of_view",
)

PTYCHOGRAPHY = ("near-field-ptychography", "far-field-ptychography")

# What a method cannot do without, with an example of what to say when the file lacks it.
NEEDED = {
    "tomography": {"angles": "angles.txt"},
    "near-field-ptychography": {"positions": "positions.txt"},
    "far-field-ptychography": {"positions": "positions.txt"},
}


def open_scan(
    path: str | Path,
    *,
    method: str | None = None,
    data: Mapping[str, Any] | None = None,
    geometry: Mapping[str, Any] | None = None,
    check: bool = True,
    **metadata: Any,
) -> Scan:
    """Open a measurement; frames stay in the file until they are asked for.

    Reads CXI (ptychography), DXchange and NXtomo (tomography), mumott (SAXS tensor tomography), ptypy's `.ptyd`, NumPy
    `.npz`/`.npy`, TIFF and EDF files and folders, and any other HDF5 file that the keywords describe. Units that the
    file does not state are told by magnitude; every such decision stands in `scan.provenance.messages`.

    **Arguments:**

    - `method`: what was measured (`"near-field-ptychography"`, `"tomography"`, ...); guessed from the file by default.
    - `check`: read all frames once and refuse negative, non-finite or empty ones (about 1 s a GB).
    - `metadata`: what the file lacks or has wrong, by name, or by section in `data` and `geometry`. Numbers are in [m],
      [eV], [rad], or texts with a unit (`"3.65 mm"`, `"17 keV"`); a text that begins with `/` is a dataset of the file
      (`/path@name` an attribute). `data`: counts, layout (`"sinogram"` for stacks (row, view, column)), flats, darks,
      flat_views, dark_views, mask (True = measured), bad_pixels (True = bad), angles (also a range,
      `"0..180 deg"`), angle_unit, positions (or positions_y and positions_x, motors each in a unit of its own),
      positions_unit, positions_of (`"patch"`, or `"sample"` where it is the sample that they move), probe, flux,
      saturation (counts from which on a pixel says "at least so many"), entry, image_key, dc, materials, shifts; and
      which part: views, rows, columns, region (`[first row, last + 1, first column, last + 1]`), binning (pixels
      summed into one along both axes). `geometry`: energy, wavelength, focus_to_sample, focus_to_detector,
      sample_to_detector, detector_pixel, pixel_size, rotation_centre, two_theta, beam (`"parallel"` or `"cone"`).
      Flats, mask, pixel sizes, rotation centre and flux are always given for the whole frames; they are cut and
      binned like these.

    **Raises:** `InputError` when the file cannot be used, `MissingMetadata` when a number is missing: one line each.

    ```python
    scan = dr.open_scan("near_field.cxi", focus_to_sample="3.65 mm")
    scan = dr.open_scan("tooth.h5", rows="0:1", binning=2)
    scan = dr.open_scan("holograms.h5", method="holography", counts="/raw", energy="17 keV", focus_to_sample="/z1",
                        focus_to_detector=1.28, detector_pixel="3 um", flux=4000)
    ```
    """
    return read(path, method, collect(data or {}, geometry or {}, metadata), check=check)


def read(
    path: str | Path, method: str | None, given: dict[str, Any], *, check: bool = True, strict: bool = True
) -> Scan:
    """As `open_scan`; with `strict=False` missing metadata become messages and the geometry stays `None`."""
    with Source(path) as source:
        given = resolve(source, given)
        reader, found = _find(source, given)
        if "positions" not in given:
            found |= motors(source, {k: v for k, v in found.items() if k in (*MOTORS, "positions_unit")})
        for name in set(given) & set(found):
            source.say(f"{full_name(name)}: the given value is used, the file's is not")
        for key in ("flats", "darks"):  # the file's times are of the file's frames
            if key in given:
                found.pop(f"{key[:-1]}_views", None)
        # A wavelength that the user gives replaces the energy of the file.
        if "wavelength" in given:
            found.pop("energy", None)
        scan = _assemble(source, {**found, **given}, set(given), reader, method, strict)
    if check:
        scan.check_counts()
    return scan


def _find(source: Source, given: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    if source.has("entry") and source.has("entry/process/program"):
        raise InputError(
            f"{source.path}: this is a result of diffrecon, not a measurement; look at it with "
            f"diffrecon inspect {source.name} or diffrecon report {source.name}"
        )
    for reader in READERS:
        if reader.probe(source):
            return reader.name, reader.read(source, given)
    if "counts" in given:
        return "HDF5 by paths" if source.file is not None else "arrays", {}
    if source.file is not None:
        raise InputError(
            f"{source.path}: an HDF5 file of no known layout ({', '.join(r.name for r in READERS[:6])}); say where "
            f"the frames are, e.g. --set data.counts=/path; datasets: {source.listing()}"
        )
    if source.path.is_dir():
        raise InputError(f"{source.path}: a folder without TIFF or EDF files")
    raise InputError(
        f"{source.path}: neither HDF5, NumPy, TIFF nor EDF; diffrecon reads CXI, NXtomo, DXchange, mumott, ptyd, "
        ".npz, .npy, TIFF, EDF and any HDF5 whose datasets are named with --set"
    )


# ---------------------------------------------------------------------- from values to a Scan
def _assemble(
    source: Source, values: dict[str, Any], given: set[str], reader: str, method: str | None, strict: bool
) -> Scan:
    counts = _stack_of(values, source)
    _angles(source, values, given, counts.shape[0])
    _positions(source, values)
    if "wavelength" in values and "energy" not in values:
        values["energy"] = float(physics.wavelength_to_energy(values["wavelength"]))
    counts, window = _part.take(source, values, counts)
    mask = _mask(values)
    kind = method or values.get("method") or _guess_method(source, values, counts, mask)
    if window is not None and values.get("pixel_size") is not None and kind not in ("far-field-ptychography", "cdi"):
        values["pixel_size"] = values["pixel_size"] * window.binning[1]
    place = _geometry(source, values, counts, mask, kind, strict)
    scan = Scan(
        counts=counts,
        method=kind,
        geometry=place,
        positions=values.get("positions"),
        positions_unit=values.get("positions_unit", "m"),
        angles=values.get("angles"),
        flats=_frames(values.get("flats")),
        darks=_frames(values.get("darks")),
        mask=mask,
        probe=_probe(values.get("probe")),
        weights=values.get("weights"),
        transmission=values.get("transmission"),
        tensor_geometry=values.get("tensor_geometry"),
        flux=_scalar(values.get("flux"), "flux"),
        saturation=_saturation(source, values, counts),
        rotation_centre=_scalar(values.get("rotation_centre"), "rotation_centre"),
        window=window,
        extra=_extra(source, values, counts, kind),
        provenance=Provenance(str(source.path), reader, ()),
    )
    if strict:
        _first_missing(source, {k: getattr(scan, k) for k in NEEDED.get(kind or "", {})}, NEEDED.get(kind or "", {}))
        scan.check_shapes()
        if kind in PTYCHOGRAPHY:
            _check_positions(scan)
        if kind == PTYCHOGRAPHY[0]:
            _check_motion(source, scan)
    return scan.replace(provenance=Provenance(str(source.path), reader, tuple(dict.fromkeys(source.messages))))


def _stack_of(values: dict[str, Any], source: Source) -> Any:
    counts = values.get("counts")
    if counts is None:
        raise MissingMetadata("data.counts", "the stack of frames", source.name, "/path/of/the/frames")
    if counts.ndim == 2:
        counts = np.asarray(counts)[None]
    if values.get("layout") == "sinogram" and counts.ndim == 3:
        counts = _sinograms(source, values, counts)
    if counts.ndim not in (3, 4) or 0 in counts.shape:
        raise InputError(
            f"{source.name}: counts have shape {tuple(counts.shape)}; expected (view, y, x), none of them 0"
        )
    if counts.dtype.kind not in "iuf":
        raise InputError(f"{source.name}: counts are of type {counts.dtype}; expected integers or floats")
    return counts


def _sinograms(source: Source, values: dict[str, Any], stored: Any) -> Any:
    """Frames from sinograms (row, view, column); flats, darks and mask of the same layout follow."""
    rows, views, columns = stored.shape
    source.say(f"{rows} sinogram{'s' if rows > 1 else ''} of {views} views (data.layout = sinogram)")
    for key in ("flats", "darks", "mask", "bad_pixels"):
        if values.get(key) is not None:
            values[key] = _of_sinograms(np.asarray(values[key]), rows, columns)
    return SinogramOrdered(stored) if isinstance(stored, LazyFrames | np.memmap) else stored.swapaxes(0, 1)


def _of_sinograms(frames: np.ndarray, rows: int, columns: int) -> np.ndarray:
    """(row, frame, column), (frame, column) of a single row, or (column,), as frames (frame, row, column)."""
    if frames.ndim == 3 and frames.shape[0] == rows and frames.shape[1] != rows:
        return frames.swapaxes(0, 1)
    if frames.ndim < 3 and frames.shape[-1:] == (columns,) and rows == 1:
        return frames.reshape(-1, 1, columns)
    return frames


def _angles(source: Source, values: dict[str, Any], given: set[str], views: int) -> None:
    if "angles" not in values:
        return
    if isinstance(values["angles"], AngleRange):
        values["angles"], message = values["angles"].over(views)
        source.say(message)
        return
    angles = np.asarray(values["angles"])
    if angles.dtype.kind not in "iuf" or not np.isfinite(angles).all() or angles.size == 0:
        raise InputError(f"{source.name}: the angles are not finite numbers")
    values["angles"], message = _guess.radians(
        angles.astype(float).ravel(), values.get("angle_unit"), "angle_unit" in given, source.name
    )
    source.say(message)


def _positions(source: Source, values: dict[str, Any]) -> None:
    if "positions" not in values:
        return
    positions = np.asarray(values["positions"])
    if positions.ndim == 2 and positions.shape[0] == 2 and positions.shape[1] > 3:
        source.say("positions stored as (2, view): transposed")
        positions = positions.T
    if positions.dtype.kind not in "iuf" or positions.ndim != 2 or positions.shape[1] not in (2, 3):
        raise InputError(
            f"{source.name}: positions have shape {positions.shape} and type {positions.dtype}; expected (view, 2), "
            "row and column"
        )
    if positions.shape[1] == 3:
        raise InputError(f"{source.name}: positions have three columns; give (view, 2), row and column")
    if not np.isfinite(positions).all():
        bad = int(np.flatnonzero(~np.isfinite(positions).all(1))[0])
        raise InputError(f"{source.name}: positions of view {bad} are not finite; leave the view out (data.views)")
    if values.get("positions_of") == "sample":
        source.say("positions are the motion of the sample: the patch moves the other way")
        positions = -positions
    values["positions"], values["positions_unit"], message = _guess.positions_unit(
        positions.astype(float), values.get("positions_unit")
    )
    source.say(message)


def _frames(frames: Any) -> np.ndarray | None:
    if frames is None:
        return None
    frames = np.asarray(frames)
    return frames[None] if frames.ndim == 2 else frames


def _mask(values: dict[str, Any]) -> np.ndarray | None:
    if values.get("mask") is None and values.get("bad_pixels") is None:
        return None
    named = [np.asarray(values[k]) != 0 for k in ("mask", "bad_pixels") if values.get(k) is not None]
    mask = named[0] if values.get("mask") is not None else ~named[0]
    mask = mask & ~named[1] if len(named) == 2 else mask
    return mask.all(0) if mask.ndim == 3 else mask


def _probe(probe: Any) -> np.ndarray | None:
    if probe is None:
        return None
    probe = np.asarray(probe)
    probe = probe.reshape(-1, *probe.shape[-2:]) if probe.ndim >= 2 else probe
    if probe.ndim != 3:
        raise InputError(f"the probe has shape {probe.shape}; expected (y, x) or (mode, y, x)")
    return probe.astype(np.complex64) if probe.dtype.kind != "c" else probe


def _scalar(value: Any, name: str) -> float | None:
    if value is None:
        return None
    if np.size(value) != 1:
        raise InputError(f"{full_name(name)}: {np.size(value)} values where one is expected")
    return float(np.ravel(value)[0])


def _saturation(source: Source, values: dict[str, Any], counts: Any) -> float | None:
    """Counts from which on a pixel says "at least so many"; true of sums over bins, too."""
    level = _scalar(values.get("saturation"), "saturation")
    if level is None:
        return None
    if not level > 0:
        raise InputError(f"{source.name}: data.saturation = {level:g}; expected a positive number of counts")
    largest = np.iinfo(counts.dtype).max if counts.dtype.kind in "iu" else np.inf
    if level > largest:
        raise InputError(f"{source.name}: data.saturation = {level:g}, but {counts.dtype} counts end at {largest}")
    return level


def _extra(source: Source, values: dict[str, Any], counts: Any, kind: str | None) -> dict[str, Any]:
    extra = {k: values[k] for k in _EXTRA if values.get(k) is not None}
    for key in ("flat_views", "dark_views"):
        frames = values.get(f"{key.partition('_')[0]}s")
        if key in extra:
            extra[key] = np.asarray(extra[key], float).ravel()
            if frames is None or len(extra[key]) != len(frames) or not np.isfinite(extra[key]).all():
                raise InputError(
                    f"{source.name}: {full_name(key)} is to be one finite number for each of the "
                    f"{0 if frames is None else len(frames)} frames; got {extra[key].size}"
                )
    if kind in ("far-field-ptychography", "cdi"):
        seen = _guess.zero_frequency(_guess.mean_frame(counts))
        extra["dc"] = values["dc"] if values.get("dc") else seen
        source.say(
            f"zero frequency at the {extra['dc']} of the frames"
            + ("" if extra["dc"] == seen else f", although they are brighter at the {seen} (data.dc={seen})")
        )
    return extra


# ---------------------------------------------------------------------- what was measured, and where it stood
def _guess_method(source: Source, values: dict[str, Any], counts: Any, mask: np.ndarray | None) -> str | None:
    """The method that the metadata point to; near and far field are told apart by the frames."""
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
    agree, motion = _guess.feature_motion(counts, positions, mask)
    slope = float(np.sqrt(abs(np.linalg.det(motion))))
    turned = np.abs(motion + slope * np.eye(2)).max() > 0.25 * slope
    field = _far_field(values)
    if agree > 0.85 and slope > 0:
        # With positions in object pixels the features of a near-field frame move by just as many pixels. In metres,
        # a beam that is narrow enough for far-field sampling is a defocused far-field probe, whose features move too.
        width = np.sqrt(_guess.lit_pixels(_guess.mean_frame(counts))) / slope
        in_metres = values.get("positions_unit") == "m"
        near = field is None or width > field / 2 if in_metres else not turned and 0.8 < slope < 1.25
        if near:
            return True, "the features of the frames move with the sample"
        return False, "features move with the sample, but as those of a defocused far-field probe"
    if field is not None and _guess.neighbour_step(positions) > field / 2:
        return True, "the steps are too wide for far-field sampling with this detector"
    return False, "the features of the frames do not move with the sample"


def _far_field(values: dict[str, Any]) -> float | None:
    """`wavelength distance / pixel` [m]: the field of far-field frames, at most half of which a probe may fill."""
    known = [values.get(k) for k in ("energy", "sample_to_detector", "detector_pixel")]
    if values.get("positions_unit") != "m" or any(k is None or np.ndim(k) for k in known):
        return None
    energy, distance, pixel = (float(k) for k in known if k is not None)
    return physics.HC / energy * distance / pixel


def _geometry(
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
    if kind in ("far-field-ptychography", "cdi"):
        place = FarField(min(counts.shape[1:3]), energy, distance, pixel, sample_pixel)
        if kind in PTYCHOGRAPHY and values.get("positions_unit") == "m" and place.pixel_size is None:
            _first_missing(source, values, {"energy": "12 keV", "sample_to_detector": "2 m", "detector_pixel": "75 um"})
        return place
    if "focus_to_sample" in values:
        return _cone(source, values)
    if kind == PTYCHOGRAPHY[0] and values.get("beam") != "parallel" and sample_pixel is None:
        raise MissingMetadata(
            "geometry.focus_to_sample",
            "the distance from the focus to the sample of this near-field scan "
            "(geometry.beam=parallel for a parallel beam, -m far-field-ptychography for a far-field one)",
            source.name,
            _likely_focus(values, counts, mask),
        )
    if kind == PTYCHOGRAPHY[0]:
        _first_missing(
            source,
            values,
            {"energy": "12 keV", "sample_to_detector": "5 cm"}
            | ({} if sample_pixel else {"detector_pixel": "0.65 um"}),
        )
    if kind == "holography":
        _first_missing(source, values, {"energy": "17 keV"})
        if distance is None:
            raise MissingMetadata(
                "geometry.focus_to_sample",
                "the distance from the focus to the sample (or, for a parallel beam, geometry.sample_to_detector)",
                source.name,
                "21 mm",
            )
        _first_missing(source, values, {} if sample_pixel else {"detector_pixel": "3 um"})
    if kind is None and energy is None and pixel is None and sample_pixel is None:
        return None
    return ParallelBeam(pixel if sample_pixel is None else sample_pixel, energy, distance)


def _first_missing(source: Source, values: dict[str, Any], examples: dict[str, str]) -> None:
    for name, example in examples.items():
        if values.get(name) is None:
            raise MissingMetadata(full_name(name), name.replace("_", " "), source.name, example)


def _cone(source: Source, values: dict[str, Any]) -> ConeBeam:
    focus = values["focus_to_sample"]
    if "focus_to_detector" in values:
        detector = values["focus_to_detector"]
    else:
        _first_missing(source, values, {"sample_to_detector": "1.28 m"})
        detector = focus + values["sample_to_detector"]
    _first_missing(source, values, {"energy": "17 keV", "detector_pixel": "3 um"})
    if np.min(np.asarray(detector) - np.asarray(focus)) <= 0:
        raise InputError(
            f"{source.name}: the detector ({np.min(detector):g} m from the focus) is not behind the sample "
            f"({np.max(focus):g} m): check geometry.focus_to_sample and geometry.focus_to_detector"
        )
    return ConeBeam(values["energy"], focus, detector, values["detector_pixel"])


def _likely_focus(values: dict[str, Any], counts: Any, mask: np.ndarray | None) -> str:
    """An example that is close to the truth: the magnification by which the features of the frames move."""
    distance, pixel = values.get("sample_to_detector"), values.get("detector_pixel")
    if distance is None or pixel is None or values.get("positions") is None or len(values["positions"]) < 4:
        return "3.65 mm"
    agree, motion = _guess.feature_motion(counts, values["positions"], mask)
    magnification = abs(float(np.trace(motion))) / 2 * pixel
    return f"{distance / (magnification - 1) * 1e3:.2g} mm" if agree > 0.7 and magnification > 1.5 else "3.65 mm"


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
    if scan.positions is None or scan.views < 4:
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
    elif abs(slope - 1) > 0.3:  # a structured probe, which stands still, slows the features down
        source.say(
            f"the features of the frames move by {slope:.2f} pixels per pixel of position: check the geometry and the "
            "unit of the positions"
        )

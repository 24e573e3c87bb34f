"""From the values of a reader and of the user to the fields of a `Scan`: shapes, types, units."""

from typing import Any

import numpy as np

from .._checks import FEW, LARGEST
from .._hdf5 import native
from ..errors import InputError, MissingMetadata
from ..frames import Excerpt, FiniteFrames, LazyFrames
from ..marks import find_marks
from . import _guess
from ._key_table import KEYS
from ._lazy import Mirrored, SinogramOrdered
from ._positions import by_position
from ._tables import AngleRange
from .keys import full_name
from .methods import PTYCHOGRAPHY, far_field
from .source import Source

# Values that become entries of `Scan.extra`, by which models and preparation ask for them.
EXTRA = (
    "materials", "shifts", "two_theta", "tilt", "times", "flat_views", "dark_views", "flat_times", "view_times",
    "sample_translation", "monitor", "field_of_view", "detector", "powder", "reference", "steps", "reference_steps",
    "period", "detector_blur", "efficiency", "cross_sections", "photons", "live_fraction", "transmitted",
    "transmitted_per_photon", "lines", "emission", "live_time", "real_time", "dwell", "area_errors", "area_backgrounds",
    "channel_energy", "fit_configuration", "detector_elements", "point_mask", "count_size", "moments_y", "moments_x",
    "quadrants", "divergence", "element_counts", "elements", "object_shape", "travel",
)  # fmt: skip
_OF_FRAMES = ("flats", "darks", "mask", "bad_pixels", "efficiency")
_NEARLY, _MOST = 0.85, 0.5  # of the frames in which a pixel is no number; of the pixels, that may be none
_MANY_TURNS = 4 * 2 * np.pi
_FIELDS = {
    *KEYS,
    "method",
    "tensor_geometry",
    "frame_ids",
    "frame_base",
    "axes_of_rows",
    "line",
}  # values that become fields of the scan or of its geometry


def stack_of(values: dict[str, Any], source: Source) -> Any:
    counts = values.get("counts")
    if counts is None and values.get("quadrants") is not None:
        quadrants = _numbers_of(source, "quadrants", values["quadrants"])
        counts = quadrants.sum(0) if quadrants.ndim > 2 and len(quadrants) == 4 else None
        if counts is None:
            raise InputError(
                f"{source.name}: data.quadrants has shape {quadrants.shape}; expected (4, row, point) or (4, angle, "
                "row, point): upper left, upper right, lower left, lower right"
            )
    if counts is None:
        raise MissingMetadata("data.counts", "the stack of frames", source.name, "/path/of/the/frames")
    if isinstance(counts, str | bytes) or counts.dtype.kind not in "iuf":
        counts = np.asarray(counts)
        raise InputError(f"{source.name}: counts are of type {counts.dtype}; expected integers or floats")
    for key in (*_OF_FRAMES, "weights", "transmission", "probe"):
        if values.get(key) is not None:
            values[key] = _numbers_of(source, key, values[key])
    by_line = "lines" in values  # one map is one view, and one line an axis
    counts = _native(counts if by_line else _without_ones(counts))
    if counts.ndim == 2:
        counts = _of_two_axes(source, values, counts)
    if values.get("layout") == "sinogram" and counts.ndim == 3:
        counts = _sinograms(source, values, counts)
    if counts.ndim == 4 and values.get("reference") is not None and not by_line:
        counts = by_position(values, counts)
    segments = by_line or "tensor_geometry" in values or counts.shape[3:] != (1,)
    if counts.ndim not in (3, 4) or 0 in counts.shape or not segments:
        last = "; leave out the last axis, of one" if counts.ndim == 4 and counts.shape[3] == 1 else ""
        raise InputError(
            f"{source.name}: counts have shape {tuple(counts.shape)}; expected (view, y, x), none of them 0{last}"
        )
    for key in _OF_FRAMES:
        if values.get(key) is not None:
            values[key] = _like_frames(source, key, values[key], counts)
    return _mirrored(values, counts)


def _mirrored(values: dict[str, Any], counts: Any) -> Any:
    """Frames, and what is of their shape, mirrored as `data.flip` says."""
    how = values.get("flip") or "none"
    if how == "none":
        return counts
    if counts.ndim != 3:
        raise InputError(f"data.flip = {how} mirrors frames (view, y, x); these have shape {tuple(counts.shape)}")
    rows, columns = how in ("up-down", "both"), how in ("left-right", "both")
    for key in (*_OF_FRAMES, "weights", "transmission", "reference"):
        found = values.get(key)
        if found is not None and tuple(found.shape[-2:]) == tuple(counts.shape[1:3]):
            values[key] = _reversed(found, rows, columns)
    return _reversed(counts, rows, columns)


def _reversed(frames: Any, rows: bool, columns: bool) -> Any:
    """Frames `(..., y, x)` in the reverse order of rows, columns or both; those in a file stay there."""
    if isinstance(frames, LazyFrames):
        return Mirrored(frames, rows, columns)
    axes = tuple(axis for axis, turned in ((-2, rows), (-1, columns)) if turned)
    return np.ascontiguousarray(np.flip(np.asarray(frames), axes))


def without_marks(source: Source, values: dict[str, Any], counts: Any) -> Any:
    """Clear the pixels that the detector marks as not measured, before anything is told by the frames."""
    if values.get("kind") == "line-integrals":  # around zero beside the sample, and negative in many views
        return counts
    marks, given = find_marks(counts), mask_of(values)
    if marks is None or (given is not None and given.shape != marks.pixels.shape):
        _mask_unknown(source, values)
        return counts
    source.say(marks.message())
    values["mask"] = ~marks.pixels if given is None else given & ~marks.pixels
    values.pop("bad_pixels", None)
    for key in ("flats", "darks"):
        frames = values.get(key)
        if frames is not None and np.shape(frames)[-2:] == marks.pixels.shape:
            values[key] = marks.cleared(frames if isinstance(frames, LazyFrames) else np.asarray(frames))
    _mask_unknown(source, values)
    return marks.cleared(counts)


def _mask_unknown(source: Source, values: dict[str, Any]) -> None:
    """Mask pixels that are no number in nearly every flat or dark: single ones are filled (`references_of`)."""
    for key in ("flats", "darks"):
        if values.get(key) is None or np.dtype(values[key].dtype).kind != "f":
            continue
        frames = np.asarray(values[key])
        frames = frames.reshape(-1, *frames.shape[-2:])
        unknown = (~np.isfinite(frames)).mean(0) > _NEARLY
        given = mask_of(values)
        if not FEW < unknown.mean() < _MOST or (given is not None and given.shape != unknown.shape):
            continue
        source.say(f"{int(unknown.sum())} pixels are not finite in the {key}: taken as not measured")
        values["mask"] = ~unknown if given is None else given & ~unknown
        values.pop("bad_pixels", None)
        values[key] = np.where(unknown, np.zeros((), frames.dtype), frames)


def _numbers_of(source: Source, name: str, value: Any) -> Any:
    value = value if isinstance(value, LazyFrames) else np.asarray(value)
    allowed = "iufbc" if name == "probe" else "iufb"
    if value.dtype.kind not in allowed:
        raise InputError(f"{source.name}: {full_name(name)} is of type {value.dtype}; expected numbers")
    return _native(value)


def _native(frames: Any) -> Any:
    """Numbers in the byte order of this machine; those in a file stay there."""
    if isinstance(frames, LazyFrames) or frames.dtype == native(frames.dtype):
        return frames
    return Excerpt(frames) if isinstance(frames, np.memmap) and frames.ndim > 2 else frames.astype(native(frames.dtype))


def _without_ones(frames: Any) -> Any:
    """Frames without axes of length 1 before the views."""
    while not isinstance(frames, LazyFrames) and frames.ndim > 3 and frames.shape[0] == 1:
        frames = frames[0]
    return frames


def _of_two_axes(source: Source, values: dict[str, Any], counts: Any) -> np.ndarray:
    """One frame, or the lines of a line detector where there is an angle (or a key) for each."""
    counts = np.asarray(counts)
    angles = values.get("angles")
    lines = counts.shape[0]
    of_lines = isinstance(angles, np.ndarray) and lines > 1 and (len(np.ravel(angles)) == lines or "line" in values)
    if not of_lines or values.get("layout") == "sinogram":
        return counts[None]
    source.say(f"{lines} views of one line of {counts.shape[1]} pixels: a line detector")
    return counts[:, None]


def _like_frames(source: Source, name: str, value: Any, counts: Any) -> Any:
    """Flats, darks and masks (frame, y, x) or (y, x) of the frames' shape; lines as frames of one row.

    **Raises:** `InputError` where the shape is not that of the frames.
    """
    value, frame = _without_ones(value), tuple(counts.shape[1:3])
    if value.ndim < 3 and frame[0] == 1 and value.shape[-1:] == frame[1:] and value.shape != frame:
        value = np.asarray(value).reshape(-1, *frame)
    if value.ndim not in (2, 3, 4) or tuple(value.shape[-2:]) != frame:
        sinograms = (
            tuple(value.shape[::2]) == tuple(counts.shape[::2]) and value.ndim == 3 and name in ("flats", "darks")
        )
        raise InputError(
            f"{source.name}: {'the mask' if name in ('mask', 'bad_pixels') else 'frames'} ({full_name(name)}) of shape "
            f"{tuple(value.shape)}; expected {frame}, that of the whole frames, or a stack of such"
            + ("; stacks (row, view, column) are --set data.layout=sinogram" if sinograms else "")
        )
    if 0 in value.shape:
        raise InputError(f"{source.name}: {full_name(name)}: there is nothing in shape {tuple(value.shape)}")
    return value


def _sinograms(source: Source, values: dict[str, Any], stored: Any) -> Any:
    """Frames from sinograms (row, view, column); flats, darks and mask of the same layout follow."""
    rows, views, columns = stored.shape
    source.say(f"{rows} sinogram{'s' if rows > 1 else ''} of {views} views (data.layout = sinogram)")
    for key in _OF_FRAMES:
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


def check_angles(source: Source, values: dict[str, Any], given: set[str], views: int) -> None:
    if "angles" not in values:
        return
    if isinstance(values["angles"], AngleRange):
        values["angles"], message = values["angles"].over(views)
        source.say(message)
        return
    turns = np.asarray(values["angles"])
    if turns.dtype.kind not in "iuf" or turns.size == 0:
        raise InputError(f"{source.name}: the angles are not numbers but of type {turns.dtype}, shape {turns.shape}")
    values["angles"], message = _guess.radians(
        turns.astype(float).ravel(), values.get("angle_unit"), "angle_unit" in given, source.name
    )
    source.say(message)


def one_turn(source: Source, values: dict[str, Any]) -> None:
    """Count angles that go on over many turns within one: what stands in the beam is the same."""
    angles = values.get("angles")
    if isinstance(angles, np.ndarray) and angles.size and np.ptp(angles) > _MANY_TURNS:
        source.say(f"angles span {np.ptp(angles) / 2 / np.pi:.1f} turns and are counted within one")
        values["angles"] = np.mod(angles, 2 * np.pi)


def check_positions(source: Source, values: dict[str, Any]) -> None:
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
    if positions.shape[1] == 3 and "axes_of_rows" in values:
        source.say("positions of three columns are the motion of the sample along x, y, z, as CXI has it")
        positions = -positions[:, :2] @ values["axes_of_rows"]
    if positions.shape[1] == 3:
        raise InputError(f"{source.name}: positions have three columns; give (view, 2), row and column")
    if values.get("positions_of") == "sample":
        source.say("positions are the motion of the sample: the patch moves the other way")
        positions = -positions
    values["positions"], values["positions_unit"], message = _guess.positions_unit(
        positions.astype(float), values.get("positions_unit")
    )
    source.say(message)


def references_of(source: Source, values: dict[str, Any], name: str) -> np.ndarray | None:
    """Flats or darks in memory; single values that are not finite are filled along the row, with a message.

    **Raises:** `InputError` for frames that are no counts.
    """
    if values.get(name) is None:
        return None
    frames = np.asarray(values[name])
    frames = frames[None] if frames.ndim == 2 else frames
    while frames.ndim > 3 and len(frames) == 1:
        frames = frames[0]
    if not frames.size:
        raise InputError(f"{source.name}: {full_name(name)}: there is nothing in shape {frames.shape}")
    if frames.dtype.kind != "f":
        return frames
    bad = int((~np.isfinite(frames)).sum())
    if bad > FEW * frames.size:
        raise InputError(
            f"{source.name}: {bad} of {frames.size} values of the {name} are not finite ({full_name(name)})"
        )
    if bad:
        source.say(
            f"{bad} of {frames.size} values of the {name} are not finite: filled from their neighbours in the row"
        )
        frames = np.asarray(FiniteFrames(frames)) if frames.ndim == 3 else np.nan_to_num(frames, posinf=0, neginf=0)
    if np.abs(frames).max() > LARGEST:
        raise InputError(
            f"{source.name}: {name} reach {np.abs(frames).max():.3g}, which are no counts ({full_name(name)})"
        )
    return frames


def mask_of(values: dict[str, Any]) -> np.ndarray | None:
    if values.get("mask") is None and values.get("bad_pixels") is None:
        return None
    named = [np.asarray(values[k]) != 0 for k in ("mask", "bad_pixels") if values.get(k) is not None]
    mask = named[0] if values.get("mask") is not None else ~named[0]
    mask = mask & ~named[1] if len(named) == 2 else mask
    return mask.all(0) if mask.ndim == 3 else mask


def check_efficiency(source: Source, values: dict[str, Any], kind: str | None) -> None:
    """Say what becomes of the relative efficiency of the pixels; those that see nothing are masked.

    **Raises:** `InputError` for one that is not one number a pixel, none below zero and some above.
    """
    if values.get("efficiency") is None:
        return
    efficiency = np.asarray(values["efficiency"], float)
    efficiency = efficiency.mean(0) if efficiency.ndim == 3 else efficiency
    if kind not in PTYCHOGRAPHY:
        del values["efficiency"]
        source.say(f"the efficiency of the pixels is not used by {kind}: frames are taken as they are")
        return
    if efficiency.ndim != 2 or (efficiency < 0).any() or not (efficiency > 0).any():
        raise InputError(
            f"{source.name}: data.efficiency, the relative efficiency of the pixels, is of shape {efficiency.shape} "
            "and is to be one number a pixel, zero or more; give the right one with --set data.efficiency=/dataset"
        )
    seeing = np.isfinite(efficiency) & (efficiency > 0)
    low, high = efficiency[seeing].min(), efficiency[seeing].max()
    blind = f"; {int((~seeing).sum())} pixels without any are masked" if not seeing.all() else ""
    source.say(f"efficiency of the pixels {low:.3g} to {high:.3g}: predicted counts are multiplied by it{blind}")
    given = mask_of(values)
    values.pop("bad_pixels", None)
    values["mask"] = seeing if given is None else given & seeing
    values["efficiency"] = np.where(seeing, efficiency, 1)


def probe_of(probe: Any) -> np.ndarray | None:
    if probe is None:
        return None
    probe = np.asarray(probe)
    probe = probe.reshape(-1, *probe.shape[-2:]) if probe.ndim >= 2 else probe
    if probe.ndim != 3:
        raise InputError(f"the probe has shape {probe.shape}; expected (y, x) or (mode, y, x)")
    return probe.astype(np.complex64) if probe.dtype.kind != "c" else probe


def scalar(value: Any, name: str) -> float | None:
    if value is None:
        return None
    if np.size(value) != 1:
        raise InputError(f"{full_name(name)}: {np.size(value)} values where one is expected")
    return float(np.ravel(value)[0])


def flux_of(source: Source, values: dict[str, Any], kind: str | None, views: int) -> Any:
    """Give the counts of the empty beam: one number, or for radiographs at several energies one for each view."""
    flux = values.get("flux")
    if flux is None or kind != "k-edge" or np.size(flux) < 2:
        return scalar(flux, "flux")
    flux = np.ravel(np.asarray(flux, float))
    if flux.size != views:
        raise InputError(f"{source.name}: data.flux has {flux.size} values for {views} views; give one, or one a view")
    return flux


def saturation_of(source: Source, values: dict[str, Any], counts: Any) -> float | None:
    """Read the counts from which on a pixel says "at least so many"; true of sums over bins, too."""
    level = scalar(values.get("saturation"), "saturation")
    if level is None:
        return None
    if not level > 0:
        raise InputError(f"{source.name}: data.saturation = {level:g}; expected a positive number of counts")
    largest = np.iinfo(counts.dtype).max if counts.dtype.kind in "iu" else np.inf
    if level > largest:
        raise InputError(f"{source.name}: data.saturation = {level:g}, but {counts.dtype} counts end at {largest}")
    return level


def zero_frequency_of(values: dict[str, Any], counts: Any) -> str:
    """Tell where the frames have their zero frequency, `"centre"` or `"corner"`, by their light."""
    mean, good = _guess.mean_frame(counts), mask_of(values)
    return _guess.zero_frequency(_guess.without_specks(mean if good is None else np.where(good, mean, 0)))


def extra_of(source: Source, values: dict[str, Any], counts: Any, kind: str | None) -> dict[str, Any]:
    extra = {k: v for k, v in values.items() if v is not None and (k in EXTRA or k not in _FIELDS)}
    if strange := sorted(set(extra) - set(EXTRA)):
        source.say(f"kept in scan.extra, but nothing in diffrecon reads it: {', '.join(strange)}")
    for key in ("flat_views", "dark_views"):
        frames = values.get(f"{key.partition('_')[0]}s")
        if key in extra:
            extra[key] = np.asarray(extra[key], float).ravel()
            if frames is None or len(extra[key]) != len(frames) or not np.isfinite(extra[key]).all():
                raise InputError(
                    f"{source.name}: {full_name(key)} is to be one finite number for each of the "
                    f"{0 if frames is None else len(frames)} frames; got {extra[key].size}"
                )
    if "reference" in extra:
        extra["reference"] = references_of(source, extra, "reference")
    shifts = extra.get("shifts")
    if shifts is not None:
        extra["shifts"] = shifts = np.asarray(shifts)
        if shifts.shape != (counts.shape[0], 2) or shifts.dtype.kind not in "iuf" or not np.isfinite(shifts).all():
            raise InputError(
                f"{source.name}: data.shifts has shape {shifts.shape}, type {shifts.dtype}; expected "
                f"({counts.shape[0]}, 2) finite numbers, row and column for each view"
            )
    if far_field(kind, values):
        seen = zero_frequency_of(values, counts)
        extra["dc"] = values["dc"] if values.get("dc") else seen
        source.say(
            f"zero frequency at the {extra['dc']} of the frames"
            + ("" if extra["dc"] == seen else f", although they are brighter at the {seen} (data.dc={seen})")
        )
    return extra

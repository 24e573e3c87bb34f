"""`Scan`: what every reader returns and every model starts from."""

import dataclasses
import hashlib
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Self

import numpy as np
from numpy.typing import ArrayLike

from ._checks import check_counts, check_some_light
from ._summary import Summary
from .errors import InputError, MissingMetadata
from .frames import Computed, FiniteFrames, FourierOrdered, LazyFrames, Window, pick_views
from .geometry import FarField, Geometry, geometry_of_views
from .marks import find_marks

__all__ = ["InputFile", "Provenance", "Scan"]

# Methods whose recipe leaves out frames and pixels that it cannot use, and says so (`prepare.check_frames`).
_LOOKS_ITSELF = (
    "near-field-ptychography", "far-field-ptychography", "fluorescence-ptychography", "stxm", "fluorescence-map",
    "fluorescence-tomography",
)  # fmt: skip
_FAR = ("far-field-ptychography", "fluorescence-ptychography")
# Methods that clip what transmits too little, and count it.
_CLIPS = ("tomography", "laminography")
_WHOLE = 64 << 20  # bytes of a file up to which all of it is looked at
_BLOCK, _BLOCKS = 256 << 10, 64  # of larger ones


class InputFile(NamedTuple):
    """A file that frames come from, as it was when it was opened.

    **Fields:** `path`; `size` [byte]; `modified` [ns]; `digest` of all its bytes, or above 64 MiB of size, time of
    modification and 64 blocks spread over it.
    """

    path: str
    size: int
    modified: int
    digest: str

    @classmethod
    def of(cls, path: str | Path) -> "InputFile":
        """Look at a file: one pass up to 64 MiB (some 50 ms), 16 MiB of a larger one.

        **Raises:** `OSError`.
        """
        with open(path, "rb") as file:
            state = os.fstat(file.fileno())
            if state.st_size <= _WHOLE:
                return cls(str(path), state.st_size, state.st_mtime_ns, hashlib.file_digest(file, "sha256").hexdigest())
            found = hashlib.sha256(f"{state.st_size} {state.st_mtime_ns}".encode())
            for place in np.linspace(0, state.st_size - _BLOCK, _BLOCKS).astype(int):
                file.seek(int(place))
                found.update(file.read(_BLOCK))
        return cls(str(path), state.st_size, state.st_mtime_ns, f"sampled {found.hexdigest()}")

    @property
    def name(self) -> str:
        """Give the name without its folder."""
        return Path(self.path).name

    def changed(self) -> bool:
        """Tell whether the file is another one now, or gone."""
        try:
            state = os.stat(self.path)
            same = (state.st_size, state.st_mtime_ns) == (self.size, self.modified)
            return not same and InputFile.of(self.path).digest != self.digest
        except OSError:
            return True

    def checksum(self) -> str:
        """Give the SHA-256 of all bytes, known already up to 64 MiB, else read (1 s a GB); empty for a changed file."""
        if not self.digest.startswith("sampled"):
            return self.digest
        try:
            with open(self.path, "rb") as file:
                found = hashlib.file_digest(file, "sha256").hexdigest()
        except OSError:
            return ""
        return "" if self.changed() else found


@dataclasses.dataclass(frozen=True)
class Provenance:
    """Where a scan came from; written into every result.

    **Fields:** `path` (empty for arrays), `reader`, `messages` = what the reader decided and the user should know;
    `files` = every file that frames may come from (behind links and virtual datasets, too) as it was when it was
    opened; `given` = what was said about the data in them; `seconds` that the command line took to reconstruct them.
    """

    path: str = ""
    reader: str = "arrays"
    messages: tuple[str, ...] = ()
    files: tuple[InputFile, ...] = ()
    given: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    seconds: float | None = None

    def checksum(self) -> str:
        """Compute the SHA-256 of the input as it was when it was opened (a large file is read once, 1 s a GB).

        Of a folder, or a file with others behind it: that of the lines that `sha256sum` prints, in order. Empty for
        arrays, and for a file that has changed meanwhile.
        """
        sums = [file.checksum() for file in self.files]
        if len(sums) < 2 or not all(sums):
            return sums[0] if len(sums) == 1 else ""
        lines = "".join(f"{s}  {file.name}\n" for s, file in zip(sums, self.files, strict=True))
        return hashlib.sha256(lines.encode()).hexdigest()

    def changed(self) -> list[str]:
        """Name the files that have changed, or gone, since they were opened."""
        return [file.name for file in self.files if file.changed()]


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Scan:
    """One measurement: counts, what each view was, and the geometry.

    Readers fill what the file holds and leave the rest `None`. Counts are lazy and keep the detector's integer type.
    Everything is in the conventions of diffrecon whatever the file's were: SI units, radians, (row, column), mask
    `True` = measured.

    **Fields:**

    - `counts`: `(view, y, x)`, or `(view, y, x, segment)` for tensor SAXS; integer or float, lazy or array.
    - `method`: what the file is (`"near-field-ptychography"`, `"tomography"`, ...), a guess of the reader.
    - `geometry`: `ParallelBeam`, `ConeBeam` or `FarField`; `None` when the file does not say enough.
    - `positions`: `(view, 2)`, displacement of the illuminated patch over the object (row, column): in [m], or in
      [pixel] where `positions_unit` says so.
    - `angles`: `(view,)` [rad], rotation of the sample about z.
    - `flats`, `darks`: `(frame, y, x)`.
    - `mask`: `(y, x)`, `True` where the pixel measured.
    - `kind`: what the counts are, `"counts"`, `"transmission"` or `"line-integrals"`; `None` where nobody said so.
    - `probe`: complex first guess `(mode, y, x)`, of any scale.
    - `weights`, `transmission`: per-datum weights and per-pixel transmission of tensor SAXS.
    - `tensor_geometry`: `diffrecon.operators.TensorGeometry` of tensor SAXS.
    - `flux`: mean counts a pixel of the empty beam, where known; for k-edge subtraction also `(view,)`.
    - `saturation`: counts from which on a pixel only says "at least so many", where known.
    - `rotation_centre`: column of the rotation axis in these frames [pixel], where known.
    - `window`: which part of the whole frames these are, and how they were binned; `None` = all of them.
    - `whole_rows`: the same views and rows with all columns of the detector, where the user chose some of a scan of
      tomography: the rotation axis is looked for there.
    - `extra`: further values by name. One entry a view: `shifts` (row, column) [pixel], `sample_translation` (x, y, z)
      [m], `monitor`, `times` [s]. Of speckles and gratings: `reference` `(frame, y, x)`, the pattern without the
      sample; `steps` and `reference_steps` of grating, mask or crystal; `period` [m]; `detector_blur` [pixel].
      Of tomography: `flat_views`, `dark_views` = number of views taken before each flat
      and dark (0 = before the first view, `views` = after the last), `field_of_view` (`"full"`, or `"half"` where the
      axis stands at the detector's edge). Of fluorescence `cross_sections` (see `diffrecon.models.CrossSections`), and
      one entry a scan point: `photons` sent in, `live_fraction`, `transmitted` counts; `lines` = the name of every
      channel ("Fe Ka"), `emission` = what the file says of their production and detection; of maps `live_time`,
      `real_time`, `dwell` [s], `area_errors` and `area_backgrounds` of every line. Of a
      scanning microscope `moments_y`, `moments_x` [rad], mean angles of the beam, or `quadrants` `(4, ...)` and
      `divergence` [rad]. Beside frames of ptychography `element_counts` `(view, element)`, NaN where nothing was
      counted, `elements` with their numbers, `object_shape`, `travel` (row, column) of a fly scan [pixel]. Of
      laminography `tilt` [rad]; of holography `materials`; of far-field frames `dc`.
    - `provenance`: file, reader, messages.
    """

    counts: Any
    method: str | None = None
    geometry: Geometry | None = None
    positions: np.ndarray | None = None
    positions_unit: str = "m"
    angles: np.ndarray | None = None
    flats: np.ndarray | None = None
    darks: np.ndarray | None = None
    mask: np.ndarray | None = None
    kind: str | None = None
    probe: np.ndarray | None = None
    weights: np.ndarray | None = None
    transmission: np.ndarray | None = None
    tensor_geometry: Any = None
    flux: float | np.ndarray | None = None
    saturation: float | None = None
    rotation_centre: float | None = None
    window: Window | None = None
    whole_rows: "Scan | None" = None
    extra: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    provenance: Provenance = Provenance()

    def __repr__(self) -> str:
        shape, kind = " x ".join(map(str, self.counts.shape[1:])), np.dtype(self.counts.dtype)
        fields = ("positions", "angles", "flats", "darks", "mask", "flux", "probe", "weights", "transmission")
        known = [name for name in fields if getattr(self, name) is not None] + sorted(self.extra)
        about = f"{self.views} views of {shape} {kind}"
        place = "" if self.geometry is None else f"; {self.geometry}"
        return f"Scan({self.name}: {self.method or 'method not clear'}, {about}; {', '.join(known)}{place})"

    # ------------------------------------------------------------------ making
    @classmethod
    def from_arrays(
        cls,
        counts: ArrayLike,
        *,
        positions: ArrayLike | None = None,
        angles: ArrayLike | None = None,
        mask: ArrayLike | None = None,
        geometry: Geometry | None = None,
        **fields: Any,
    ) -> "Scan":
        """Make a scan of arrays that are already in the conventions of diffrecon (see the class).

        **Arguments:** `positions` in [m], or in [pixel] with `positions_unit="pixel"`; `angles` in [rad].

        **Raises:** `InputError` when shapes do not fit, counts are negative or not finite, angles look like degrees.

        ```python
        scan = Scan.from_arrays(np.ones((4, 8, 8), np.uint16), angles=np.linspace(0, 3, 4))
        ```
        """
        scan = cls(
            counts=counts if isinstance(counts, LazyFrames) else np.asarray(counts),
            positions=None if positions is None else np.asarray(positions, float),
            angles=None if angles is None else np.asarray(angles, float),
            mask=None if mask is None else np.asarray(mask, bool),
            geometry=geometry,
            **fields,
        ).without_marks()
        scan.check()
        return scan

    def without_marks(self) -> Self:
        """Make the scan whose mask leaves out the pixels that the detector has marked as not measured (gaps between
        modules, dead pixels; see `diffrecon.marks.find_marks`), with zeros there, and which says so.
        """
        marks = find_marks(self.counts)
        if marks is None or (self.mask is not None and self.mask.shape != marks.pixels.shape):
            return self
        said = dataclasses.replace(self.provenance, messages=(*self.provenance.messages, marks.message()))
        good = ~marks.pixels if self.mask is None else self.mask & ~marks.pixels
        same = {
            name: marks.cleared(frames) if frames is not None and frames.shape[-2:] == good.shape else frames
            for name, frames in (("counts", self.counts), ("flats", self.flats), ("darks", self.darks))
        }
        return self.replace(mask=good, provenance=said, **same)

    def replace(self, **fields: Any) -> Self:
        """Make a copy with some fields changed."""
        return dataclasses.replace(self, **fields)

    # ------------------------------------------------------------------ reading
    @property
    def views(self) -> int:
        """Count the views."""
        return int(self.counts.shape[0])

    @property
    def frame_shape(self) -> tuple[int, int]:
        """Give detector rows and columns."""
        return int(self.counts.shape[1]), int(self.counts.shape[2])

    @property
    def name(self) -> str:
        """Give the file name for messages."""
        return Path(self.provenance.path).name or "arrays"

    @property
    def pixel_size(self) -> Any:
        """Give the pixel in the sample [m], `None` where the geometry does not give it."""
        return None if self.geometry is None else self.geometry.pixel_size

    def subset(self, views: Sequence[int] | np.ndarray) -> Self:
        """Make the scan of some of its views, in the given order, with their distances and energies."""
        views = np.arange(self.views)[np.asarray(views)]
        per_view = ("positions", "angles", "weights", "transmission")
        picked = {k: getattr(self, k)[views] for k in per_view if getattr(self, k) is not None}
        if self.flux is not None and np.ndim(self.flux):
            picked["flux"] = np.asarray(self.flux)[views]
        if self.tensor_geometry is not None:
            picked["tensor_geometry"] = self.tensor_geometry.subset(views)
        if self.geometry is not None:
            picked["geometry"] = geometry_of_views(self.geometry, views, self.views)
        if self.whole_rows is not None:
            picked["whole_rows"] = self.whole_rows.subset(views)
        extra = extra_of_views(self.extra, views, self.views)
        return self.replace(counts=pick_views(self.counts, views), extra=extra, **picked)

    def absorption(self, **settings: Any) -> np.ndarray:
        """Compute line integrals `-ln((I - dark) / (flat - dark))`, `(view, y, x)`, by
        `diffrecon.prepare.line_integrals`."""
        from . import prepare

        return prepare.line_integrals(self, **settings).values

    @property
    def far_field(self) -> bool:
        """Tell whether the frames are far-field diffraction."""
        return isinstance(self.geometry, FarField) or self.method in _FAR

    def in_fft_order(self) -> "Scan":
        """Make the scan with the zero frequency of far-field frames at index (0, 0), where models have it; frames stay
        lazy.

        Near-field scans, and frames that have it there already (`extra["dc"]`), are returned as they are.
        """
        if not self.far_field or self.extra.get("dc", "corner") != "centre":
            return self
        moved = {
            name: np.fft.ifftshift(getattr(self, name), (-2, -1))
            for name in ("mask", "flats", "darks")
            if getattr(self, name) is not None
        }
        extra = {**self.extra, "dc": "corner"}
        if "efficiency" in extra:
            extra["efficiency"] = np.fft.ifftshift(extra["efficiency"], (-2, -1))
        return self.replace(counts=FourierOrdered(self.counts), extra=extra, **moved)

    def batch_fields(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """Give what a cost functional sees of this scan, as fields of its batch: one entry a view, and shared by all
        views.

        Always `counts` (in the detector's type, lazy, far-field frames in FFT order), `mask` where the scan has one;
        `values` = line integrals where it has flats, computed when they are first read; `weights` and `transmission`
        of tensor SAXS.
        """
        scan = self.in_fft_order()
        divided = scan.flats is not None or scan.kind in ("transmission", "line-integrals")
        values = None if not divided else Computed(scan.absorption, tuple(scan.counts.shape), np.float32)
        per_view = {"counts": scan.counts, "values": values, "weights": scan.weights, "transmission": scan.transmission}
        segments = (None,) * (len(scan.counts.shape) - 3)
        shared = {} if scan.mask is None else {"mask": scan.mask[(..., *segments)]}
        return {name: field for name, field in per_view.items() if field is not None}, shared

    def find_rotation_centre(self) -> float:
        """Find the detector column of the rotation axis [pixel]: as given, or by
        `diffrecon.prepare.find_rotation_centre`.
        """
        if self.rotation_centre is not None:
            return float(self.rotation_centre)
        from . import prepare

        angles = self.require("angles", "the rotation angle of each view", "/path/of/angles")
        return prepare.find_rotation_centre(self.absorption(), angles).centre

    def require(self, field: str, what: str, example: str) -> Any:
        """Give a field of the scan, or one clear line that names it, `open_scan`'s key and a value.

        **Raises:** `MissingMetadata`.
        """
        value = getattr(self, field)
        if value is None:
            raise MissingMetadata(f"data.{field}", what, self.name, example)
        return value

    # ------------------------------------------------------------------ checking
    def check(self) -> "Scan":
        """Check shapes and numbers; costs one pass over the frames.

        **Raises:** `InputError` naming the file, the field and the first bad entry.
        """
        if self.angles is not None and np.isfinite(self.angles).all() and np.ptp(self.angles) > 13 * np.pi:
            raise InputError(
                f"{self.name}: angles span {np.ptp(self.angles):.4g} rad, more than six turns: they "
                "look like degrees; say so with --set data.angle_unit=deg"
            )
        return self.check_shapes().check_counts()

    def check_counts(self, summary: Summary | None = None) -> "Scan":
        """Refuse negative or non-finite counts and frames without a photon, where the method cannot deal with them.

        The ends of a rocking curve (`cdi`) may have no counts; tomography and K-edge subtraction deal with views
        without light. Ptychography looks at its frames itself and leaves out what it cannot use. Of transmissions and
        line integrals of tomography single values that are not finite are filled along the row, with a message, and
        negative ones are clipped with the others below the smallest transmission.

        **Arguments:** `summary` of the frames and the mask, where a pass over them was made before.
        """
        if self.method in _LOOKS_ITSELF:
            check_some_light(self.counts, self.mask, self.name)
            return self
        floats = self.method in _CLIPS and np.dtype(self.counts.dtype).kind == "f"
        bad = check_counts(
            self.counts,
            self.mask,
            self.name,
            empty=self.method in ("cdi", "k-edge", *_CLIPS) or self.kind == "line-integrals",
            below=floats,
            tolerance=floats,
            summary=summary,
        )
        if not bad:
            return self
        said = f"{bad} of {np.prod(self.counts.shape)} values are not finite: filled from their neighbours in the row"
        note = dataclasses.replace(self.provenance, messages=(*self.provenance.messages, said))
        return self.replace(counts=FiniteFrames(self.counts), provenance=note)

    def check_shapes(self) -> "Scan":
        """Check what can be checked without reading the frames."""
        if len(self.counts.shape) not in (3, 4):
            raise InputError(f"{self.name}: counts have shape {tuple(self.counts.shape)}; expected (view, y, x)")
        if 0 in self.counts.shape:
            raise InputError(f"{self.name}: counts have shape {tuple(self.counts.shape)}: there is nothing in them")
        for field, trailing in (("positions", (2,)), ("angles", ())):
            value = getattr(self, field)
            if value is not None and value.shape != (self.views, *trailing):
                raise InputError(
                    f"{self.name}: {field} have shape {value.shape}; expected {(self.views, *trailing)}, "
                    f"one for each of the {self.views} views"
                )
            if value is not None and not np.isfinite(value).all():
                bad = int(np.flatnonzero(~np.isfinite(value).reshape(self.views, -1).all(1))[0])
                raise InputError(f"{self.name}: {field} of view {bad} are not finite")
        if self.mask is not None and self.mask.shape != self.frame_shape:
            raise InputError(f"{self.name}: the mask has shape {self.mask.shape}, the frames {self.frame_shape}")
        if self.mask is not None and not self.mask.any():
            raise InputError(f"{self.name}: the mask leaves no pixel (diffrecon's masks are True where measured)")
        return self


def extra_of_views(extra: Mapping[str, Any], views: np.ndarray, total: int) -> dict[str, Any]:
    """Pick what `Scan.extra` says of some of `total` views: one entry a view picked, times of flats counted in these
    views.

    Times are left out where the views are not in increasing order.
    """
    views = np.arange(total)[views]
    picked = dict(extra)
    points = (
        "photons", "live_fraction", "transmitted", "live_time", "real_time", "dwell", "area_errors", "area_backgrounds",
        "point_mask", "moments_y", "moments_x", "element_counts",
    )  # fmt: skip
    for name in ("shifts", "sample_translation", "monitor", "times", "reference", "steps", *points):
        if name in picked and len(picked[name]) == total:
            picked[name] = np.asarray(picked[name])[views]
    for name in ("flat_views", "dark_views"):
        if name in picked and (np.diff(views) <= 0).any():
            del picked[name]
        elif name in picked:
            picked[name] = _places_among(np.asarray(picked[name], float), views)
    return picked


def _places_among(times: np.ndarray, views: np.ndarray) -> np.ndarray:
    """Times on the scale of all views on that of some of them, linear between and beyond them."""
    step = (views[-1] - views[0]) / (len(views) - 1) if len(views) > 1 else 1.0
    beyond = np.minimum(times - views[0], 0) + np.maximum(times - views[-1], 0)
    return np.interp(times, views, np.arange(len(views))) + beyond / step

"""`open_scan`: find the format, read what is there, lay what the user says over it, convert, check."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .. import physics
from ..errors import InputError, MissingMetadata
from ..scan import Provenance, Scan
from . import _part
from ._content import input_files
from ._element_maps import match_points
from ._key_table import KEYS, MOTORS
from ._numbers import usable
from ._raster import place_points
from ._views import match_views
from .keys import collect, full_name, motors, resolve
from .methods import FOURIER_PLANE, LINE_INTEGRALS, check_scan, geometry_of, guess_method, marks_into_weights
from .poni import place_detector, without_gaps
from .readers import readers
from .source import Source
from .values import (
    check_angles,
    check_efficiency,
    check_positions,
    extra_of,
    flux_of,
    mask_of,
    one_turn,
    probe_of,
    references_of,
    saturation_of,
    scalar,
    stack_of,
    without_marks,
)

__all__ = ["open_scan", "read"]


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
      (`/path@name` an attribute), `"FILE:/path"` one of another HDF5 file. `data`: counts, kind (`"counts"`,
      `"transmission"` or `"line-integrals"`), layout (`"sinogram"` for stacks (row, view, column)), flats, darks,
      flat_views, dark_views, mask (True = measured), bad_pixels (True = bad), efficiency, angles (also a range,
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
    """Read a file as `open_scan` does; with `strict=False` missing metadata become messages, as do problems,
    and the geometry stays `None`.
    """
    with Source(path) as source:
        said = {name: value for name, value in given.items() if KEYS[name].section == "data"}
        given = resolve(source, given)
        reader, found = _find(source, given)
        if "positions" not in given:
            found |= motors(source, {k: v for k, v in found.items() if k in (*MOTORS, "positions_unit")})
        for name in set(given) & set(found) & set(KEYS):
            source.say(f"{full_name(name)}: the given value is used, the file's is not")
        for key in ("flats", "darks"):  # the file's times are of the file's frames
            if key in given:
                found.pop(f"{key[:-1]}_views", None)
        # A wavelength that the user gives replaces the energy of the file.
        if "wavelength" in given:
            found.pop("energy", None)
        found = usable(source, found, set(given))
        files = input_files(source)
        scan = _assemble(source, {**found, **given}, set(given), reader, method, strict)
        made = Provenance(str(source.path), reader, tuple(dict.fromkeys(source.messages)), files, said)
        scan = scan.replace(provenance=made)
    return scan.check_counts() if check else scan


def _find(source: Source, given: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    if source.has("entry") and source.has("entry/process/program"):
        raise InputError(
            f"{source.path}: this is a result of diffrecon, not a measurement; look at it with "
            f"diffrecon inspect {source.name} or diffrecon report {source.name}"
        )
    for reader in readers():
        if reader.probe(source):
            return reader.name, reader.read(source, given)
    if "counts" in given or "quadrants" in given:
        return "HDF5 by paths" if source.file is not None else "arrays", {}
    if source.file is not None:
        raise InputError(
            f"{source.path}: an HDF5 file of no known layout ({', '.join(r.name for r in readers())}); say where "
            f"the frames are, e.g. --set data.counts=/path; datasets: {source.listing()}"
        )
    if source.path.is_dir():
        raise InputError(f"{source.path}: a folder without TIFF, EDF or PNG files")
    raise InputError(
        f"{source.path}: neither HDF5, NumPy, TIFF nor EDF; diffrecon reads CXI, NXtomo, DXchange, mumott, ptyd, "
        ".npz, .npy, TIFF, EDF and any HDF5 whose datasets are named with --set"
    )


def _assemble(
    source: Source, values: dict[str, Any], given: set[str], reader: str, method: str | None, strict: bool
) -> Scan:
    marks_into_weights(source, values)
    counts = without_marks(source, values, stack_of(values, source))
    match_points(source, values, counts)
    counts = place_points(source, values, counts)
    place_detector(source, values, given, counts.shape[1:])
    counts = without_gaps(source, values, counts)
    check_positions(source, values)
    check_angles(source, values, given, counts.shape[0])
    match_views(source, values, counts.shape[0], _part.chosen_views(values, counts.shape[0]))
    if "wavelength" in values and "energy" not in values:
        values["energy"] = float(physics.wavelength_to_energy(values["wavelength"]))
    if values.get("kind") in ("transmission", "line-integrals"):
        for key in ("flats", "darks"):
            if values.pop(key, None) is not None:
                source.say(f"{key} are not used: the frames are {values['kind']} (data.kind)")
    counts, window = _part.take(source, values, counts)
    one_turn(source, values)
    mask = mask_of(values)
    kind = method or values.get("method") or guess_method(source, values, counts, mask)
    if kind in FOURIER_PLANE and counts.ndim == 3:
        counts, window = _part.squared(source, values, counts, window)
    if window is not None and values.get("pixel_size") is not None and kind not in FOURIER_PLANE:
        values["pixel_size"] = values["pixel_size"] * window.binning[1]
    check_efficiency(source, values, kind)
    mask = mask_of(values)
    place = geometry_of(source, values, counts, mask, kind, strict)
    values.pop("feature_motion", None)  # known to these two only
    whole_rows = values.pop("whole_rows", None)
    scan = Scan(
        counts=counts,
        method=kind,
        geometry=place,
        positions=values.get("positions"),
        positions_unit=values.get("positions_unit", "m"),
        angles=values.get("angles"),
        flats=references_of(source, values, "flats"),
        darks=references_of(source, values, "darks"),
        mask=mask,
        probe=probe_of(values.get("probe")),
        kind=values.get("kind"),
        weights=values.get("weights"),
        transmission=values.get("transmission"),
        tensor_geometry=values.get("tensor_geometry"),
        flux=flux_of(source, values, kind, counts.shape[0]),
        saturation=saturation_of(source, values, counts),
        rotation_centre=scalar(values.get("rotation_centre"), "rotation_centre"),
        window=window,
        extra=extra_of(source, values, counts, kind),
        provenance=Provenance(str(source.path), reader, ()),
    )
    if whole_rows is not None and kind in LINE_INTEGRALS:
        scan = scan.replace(whole_rows=scan.replace(**{"mask": None, **whole_rows}))
    if strict:
        check_scan(source, scan)
        if kind in LINE_INTEGRALS and scan.pixel_size is None:
            source.say(
                'no pixel size: lengths are in pixels, attenuation a pixel (--set geometry.detector_pixel="2 um")'
            )
        return scan
    try:
        check_scan(source, scan)
    except MissingMetadata:
        pass  # listed as missing
    except InputError as error:
        source.say(f"problem: {str(error).removeprefix(f'{source.name}: ')}")
    return scan

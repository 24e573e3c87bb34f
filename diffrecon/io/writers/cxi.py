"""CXI files for other programs (https://www.cxidb.org/cxi.html, version 1.6): scans as data, results as images.

CXI has joules and metres, masks as bits with 0 = good, positions as the motion of the sample along laboratory x, y, z,
and the orientation of the detector by the vectors from pixel to pixel. Detectors are written with rows along -y and
columns along -x, seen along the beam.
"""

import datetime
from pathlib import Path
from typing import Any

import numpy as np

from ... import physics
from ..._result import Quantity, Result
from ...errors import InputError
from ...geometry import ConeBeam, FarField
from ...scan import Scan
from .._disk import new_hdf5
from .record import dataset, provenance, write_frames

_VERSION = 160
# Unit vectors of rows and columns (slow, fast), each along laboratory x, y, z.
_BASIS = np.array([[0.0, -1.0, 0.0], [-1.0, 0.0, 0.0]])
_INVALID = 0x1  # bit of a mask


def write_cxi(path: str | Path, scan: Scan) -> Path:
    """Write a scan of ptychography or coherent diffraction as CXI, for cdtools, SHARP, PyNX, ptypy and `open_scan`.

    Counts keep their type and are copied block by block; far-field frames get their zero frequency in the centre. What
    CXI has no place for stands beside its names: `source_1/focus_to_sample` of a cone beam, and the method as an
    attribute of the entry.

    **Raises:** `InputError` when the path cannot be written, or when positions in pixels have no pixel size to become
    metres by.

    ```python
    dr.io.write_cxi("scan.cxi", scan)
    ```
    """
    shift = scan.far_field and scan.extra.get("dc") == "corner"
    centred = (lambda frames: np.fft.fftshift(frames, (-2, -1))) if shift else (lambda frames: frames)
    motion = _motion(path, scan)
    with new_hdf5(path) as file:
        entry = _entry(file, scan)
        detector = _instrument(entry, scan)
        write_frames(detector, "data", scan.counts, centred)
        if scan.mask is not None:
            detector["mask"] = np.where(centred(scan.mask), 0, _INVALID).astype(np.uint32)
        if scan.darks is not None:
            detector["data_dark"] = centred(np.asarray(scan.darks))
        if scan.probe is not None:
            entry["instrument_1/source_1/illumination"] = np.asarray(scan.probe)
        data = entry.create_group("data_1")
        _link(data, "data", f"{detector.name}/data")
        if motion is not None:
            _translation(entry, motion)
            detector["data"].attrs["axes"] = "translation:y:x"
            for group in (data, detector):
                _link(group, "translation", f"{entry.name}/sample_1/geometry_1/translation")
    return Path(path)


def write_result_cxi(path: str | Path, result: Result, scan: Scan | None) -> Path:
    """Write a result as CXI: images (object, probe, phase, ...) as `image_n`, positions as motion of the sample, the
    rest as `result_n`.
    """
    with new_hdf5(path) as file:
        entry = _entry(file, scan)
        entry.create_dataset("title", data=f"{result.method} by diffrecon")
        if scan is not None:
            _instrument(entry, scan)
        images = {n: q for n, q in result.quantities.items() if q.kind in ("image", "complex", "modes", "volume")}
        for number, (name, quantity) in enumerate(images.items(), 1):
            _image(entry, number, name, quantity, result, scan)
        others = {n: q for n, q in result.quantities.items() if n not in images}
        for number, (name, quantity) in enumerate(others.items(), 1):
            group = entry.create_group(f"result_{number}")
            group.attrs.update(title=name, long_name=quantity.long_name, units=quantity.units)
            dataset(group, "data", np.asarray(quantity.data))
            if quantity.kind == "positions" and quantity.units == "m":
                _translation(entry, _to_laboratory(np.asarray(quantity.data)))
        if images:
            data = entry.create_group("data_1")
            _link(data, "data", f"{entry.name}/image_1/data")
    return Path(path)


# ---------------------------------------------------------------------- parts
def _entry(file: Any, scan: Scan | None) -> Any:
    file["cxi_version"] = _VERSION
    entry = file.create_group("entry_1")
    entry["program_name"] = "diffrecon"
    entry["start_time"] = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    if scan is not None and scan.method:
        entry.attrs["method"] = scan.method
    return entry


def _instrument(entry: Any, scan: Scan) -> Any:
    """Source and detector as far as the geometry is known; returns the detector's group."""
    place, instrument = scan.geometry, entry.create_group("instrument_1")
    source, detector = instrument.create_group("source_1"), instrument.create_group("detector_1")
    if place is None:
        return detector
    if place.energy is not None:
        energy = _one(place.energy, scan)
        source["energy"] = energy * physics.ELECTRON_CHARGE
        source["wavelength"] = physics.HC / energy
    pixel, distance = place.detector_pixel, None
    if isinstance(place, ConeBeam):
        source["focus_to_sample"] = _one(place.focus_to_sample, scan)
        distance = place.focus_to_detector - place.focus_to_sample
    else:
        distance = place.sample_to_detector
        if not isinstance(place, FarField) and scan.method == "near-field-ptychography":
            entry.attrs["beam"] = "parallel"
    if distance is not None:
        detector["distance"] = _one(distance, scan)
    if pixel is not None:
        pixel = _one(pixel, scan)
        detector["x_pixel_size"], detector["y_pixel_size"] = pixel, pixel
        detector["basis_vectors"] = _BASIS * pixel
    for name, unit in (("distance", "m"), ("x_pixel_size", "m"), ("y_pixel_size", "m"), ("basis_vectors", "m")):
        if name in detector:
            detector[name].attrs["units"] = unit
    for name, unit in (("energy", "J"), ("wavelength", "m"), ("focus_to_sample", "m")):
        if name in source:
            source[name].attrs["units"] = unit
    return detector


def _one(value: Any, scan: Scan) -> float:
    values = np.unique(np.asarray(value, float))
    if values.size != 1:
        raise InputError(f"{scan.name}: CXI has one energy and one distance for all views; here are {values.size}")
    return float(values[0])


def _motion(path: str | Path, scan: Scan) -> np.ndarray | None:
    """Motion of the sample (view, 3) [m]."""
    if scan.positions is None:
        return None
    if scan.positions_unit == "m":
        return _to_laboratory(scan.positions)
    if scan.pixel_size is None:
        raise InputError(
            f"{path}: CXI has positions in metres, those of {scan.name} are in pixels of unknown size; "
            "say --set geometry.pixel_size, or energy, distance and detector pixel"
        )
    return _to_laboratory(scan.positions * float(np.mean(scan.pixel_size)))


def _to_laboratory(positions: np.ndarray) -> np.ndarray:
    """The patch moves by positions over the object where the sample moves the other way."""
    return -(positions @ _BASIS)


def _translation(entry: Any, motion: np.ndarray) -> None:
    entry["sample_1/geometry_1/translation"] = motion
    entry["sample_1/geometry_1/translation"].attrs["units"] = "m"


def _image(entry: Any, number: int, name: str, quantity: Quantity, result: Result, scan: Scan | None) -> None:
    """One image with what CXI says about images."""
    group, data = entry.create_group(f"image_{number}"), np.asarray(quantity.data)
    group.attrs.update(title=name, long_name=quantity.long_name, units=quantity.units)
    dataset(group, "data", data)
    group["data"].attrs["axes"] = ":".join(quantity.axes)
    group["title"], group["data_space"] = name, "diffraction" if name == "background" else "real"
    group["data_type"] = {"image": "real", "volume": "real"}.get(quantity.kind, "complex amplitude")
    group["dimensionality"] = np.int32(3 if quantity.kind == "volume" else 2)
    group["is_fft_shifted"] = np.int32(0)
    if quantity.pixel_size is not None and data.ndim >= 2:
        pixel = float(np.mean(np.asarray(quantity.pixel_size, float)))
        group["image_size"] = pixel * np.array(data.shape[-2:][::-1], float)  # x, y
        group["image_size"].attrs["units"] = "m"
        group.attrs["pixel_size"] = pixel
    made = provenance(result, scan)
    process = group.create_group("process_1")
    for key in ("program", "version", "date", "identity"):
        process[key] = made[key]
    process["command"] = made["config"]
    for note, line in enumerate(result.verdict, 1):
        process[f"note_{note}"] = line
    if scan is not None:
        _link(group, "source_1", f"{entry.name}/instrument_1/source_1")
        _link(group, "detector_1", f"{entry.name}/instrument_1/detector_1")


def _link(group: Any, name: str, target: str) -> None:
    import h5py

    group[name] = h5py.SoftLink(target)

"""ptypy's prepared data (.ptyd): meta (or info, common) and chunks of frames with positions.

https://ptycho.github.io/ptypy/rst/data_management.html: energy in keV, lengths in metres, weights 0 = bad pixel.
"""

import functools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from ..._hdf5 import native, need_filters, open_hdf5
from ...errors import InputError
from .._lazy import PerView
from ..source import Source


def probe(source: Source) -> bool:
    """Tell whether this is a .ptyd file."""
    return source.has("chunks") and any(source.has(f"{c}/data") for c in _chunks(source))


def read(source: Source, given: dict[str, Any]) -> dict[str, Any]:
    """Read frames of all chunks (lazy), positions, mask and geometry."""
    chunks = [c for c in _chunks(source) if source.has(f"{c}/data")]
    if absent := sorted(set(_chunks(source)) - set(chunks)):
        source.say(f"chunks without frames are passed over: {', '.join(absent)}")
    datasets = [source.dataset(f"{c}/data", "frames") for c in chunks]
    if any(d.ndim != 3 or d.dtype.kind not in "iuf" for d in datasets):
        raise InputError(
            f"{source.name}: frames of shape {datasets[0].shape}, {datasets[0].dtype}; expected (view, y, x)"
        )
    if len({d.dtype for d in datasets}) > 1:
        raise InputError(
            f"{source.name}: chunks hold frames of different types: {sorted({str(d.dtype) for d in datasets})}"
        )
    if len({d.shape[1:] for d in datasets}) > 1:
        raise InputError(
            f"{source.name}: chunks hold frames of different shapes: {sorted({d.shape[1:] for d in datasets})}"
        )
    where = [(f"{c}/data", i) for c, d in zip(chunks, datasets, strict=True) for i in range(d.shape[0])]
    counts = PerView(
        functools.partial(_frames, source.path, where), len(where), datasets[0].shape[1:], native(datasets[0].dtype)
    )
    found: dict[str, Any] = {"counts": counts, "dc": "centre"}
    if "positions" not in given and all(source.has(f"{c}/positions") for c in chunks):
        found["positions"] = _positions(source, chunks, datasets)
        found["positions_unit"] = "m"
    bad = _bad_pixels(source, chunks, datasets[0].shape[1:])
    if bad is not None:
        found["bad_pixels"] = bad
    return found | _meta(source)


def _positions(source: Source, chunks: list[str], datasets: list[Any]) -> np.ndarray:
    """Positions of all chunks; of a chunk that holds fewer frames, those of its first."""
    parts = []
    for chunk, frames in zip(chunks, datasets, strict=True):
        part = source.numbers(f"{chunk}/positions", "positions")
        if part.ndim != 2 or len(part) < len(frames):
            raise InputError(
                f"{source.name}: {chunk}/positions has shape {part.shape}; expected one row for each of the frames"
            )
        if len(part) > len(frames):
            source.say(f"{chunk}: the first {len(frames)} of {len(part)} positions are taken, as many as frames")
        parts.append(part[: len(frames)])
    return np.concatenate(parts)


def _chunks(source: Source) -> list[str]:
    import h5py

    if not isinstance(source.file.get("chunks"), h5py.Group):
        return []
    names = sorted(source.file["chunks"], key=lambda n: int(n) if n.isdigit() else -1)
    return [f"chunks/{n}" for n in names]


def _frames(path: Path, where: list[tuple[str, int]], wanted: np.ndarray) -> Iterator[np.ndarray]:
    with open_hdf5(path) as file:
        for view in wanted:
            name, index = where[view]
            stored = file[name]
            need_filters(stored)
            yield np.asarray(stored[index])


def _bad_pixels(source: Source, chunks: list[str], shape: tuple[int, ...]) -> np.ndarray | None:
    names = [n for n in ("common/weight2d", "meta/weight2d", "info/weight2d") if source.has(n)]
    names += [f"{c}/weights" for c in chunks if source.has(f"{c}/weights")]
    bad = np.zeros(shape, bool)
    for name in names:
        weights = source.maybe_numbers(name, "weights")
        if weights is not None and weights.shape[-2:] == shape:
            bad |= ~(weights.reshape(-1, *shape) > 0).all(0)
        elif weights is not None:
            source.say(f"{name} has shape {weights.shape}, the frames {shape}: not used")
    if bad.any():
        source.say(f"weights leave out {int(bad.sum())} of {bad.size} pixels")
    return bad if bad.any() else None


def _meta(source: Source) -> dict[str, Any]:
    """Geometry; only numbers that are there."""
    found: dict[str, Any] = {}
    energy = _number(source, "energy")
    if energy:
        # Documented in keV; 1e4 is eV all the same.
        found["energy"] = energy * 1e3 if energy < 200 else energy
        source.say(f"energy {energy:g} taken as {'keV' if energy < 200 else 'eV'} (ptypy's files have keV)")
    distance, pixel = _number(source, "distance"), _pixel(source)
    found |= {} if distance is None else {"sample_to_detector": distance}
    found |= {} if pixel is None else {"detector_pixel": pixel}
    name = next((f"{g}/propagation" for g in ("meta", "info", "common") if source.has(f"{g}/propagation")), None)
    said = "" if name is None else source.words(name).lower()
    if name is not None and not said.startswith(("near", "far")):
        source.say(f"{name} is not used: {said!r} is neither nearfield nor farfield")
    elif name is not None:
        near = said.startswith("near")
        found["method"] = "near-field-ptychography" if near else "far-field-ptychography"
        if near:
            # ptypy propagates on the sample's pixel: its psize and distance are the effective ones.
            found["beam"] = "parallel"
    return found


def _place(source: Source, name: str) -> str | None:
    return next((f"{g}/{name}" for g in ("meta", "info", "common") if source.has(f"{g}/{name}")), None)


def _number(source: Source, name: str) -> float | None:
    place = _place(source, name)
    return None if place is None else source.number(place, name)


def _pixel(source: Source) -> float | None:
    """One pixel [m], or that of both axes."""
    place = _place(source, "psize")
    values = None if place is None else source.maybe_numbers(place, "pixel")
    if values is None or values.dtype.kind not in "iuf" or values.size not in (1, 2) or not (values > 0).all():
        if values is not None:
            source.say(f"{place} (pixel) is not used: {values.tolist()} are not one or two lengths")
        return None
    if np.ptp(values) > 1e-3 * values.max():
        source.say(f"pixels are not square ({values.tolist()} m): their geometric mean is used")
    return float(np.sqrt(values.min() * values.max()))

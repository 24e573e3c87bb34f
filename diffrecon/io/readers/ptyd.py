"""ptypy's prepared data (.ptyd): meta (or info, common) and chunks of frames with positions.

https://ptycho.github.io/ptypy/rst/data_management.html: energy in keV, lengths in metres, weights 0 = bad pixel.
"""

import functools
from pathlib import Path
from typing import Any

import numpy as np

from ...errors import InputError
from ...frames import need_filters, open_hdf5
from .._lazy import PerView
from ..source import Source, text


def probe(source: Source) -> bool:
    """Tell whether this is a .ptyd file."""
    return source.has("chunks") and any(source.has(f"{c}/data") for c in _chunks(source))


def read(source: Source, given: dict[str, Any]) -> dict[str, Any]:
    """Read frames of all chunks (lazy), positions, mask and geometry."""
    chunks = [c for c in _chunks(source) if source.has(f"{c}/data")]
    datasets = [source.dataset(f"{c}/data", "frames") for c in chunks]
    if len({d.shape[1:] for d in datasets}) > 1:
        raise InputError(
            f"{source.name}: chunks hold frames of different shapes: {sorted({d.shape[1:] for d in datasets})}"
        )
    where = [(f"{c}/data", i) for c, d in zip(chunks, datasets, strict=True) for i in range(d.shape[0])]
    counts = PerView(
        functools.partial(_frame, source.path, where), len(where), datasets[0].shape[1:], datasets[0].dtype
    )
    found: dict[str, Any] = {"counts": counts, "dc": "centre"}
    if all(source.has(f"{c}/positions") for c in chunks):
        found["positions"] = np.concatenate([source.array(f"{c}/positions", "positions") for c in chunks])
        found["positions_unit"] = "m"
    bad = _bad_pixels(source, chunks, datasets[0].shape[1:])
    if bad is not None:
        found["bad_pixels"] = bad
    return found | _meta(source)


def _chunks(source: Source) -> list[str]:
    names = sorted(source.file["chunks"], key=lambda n: int(n) if n.isdigit() else -1)
    return [f"chunks/{n}" for n in names]


def _frame(path: Path, where: list[tuple[str, int]], view: int) -> np.ndarray:
    name, index = where[view]
    with open_hdf5(path) as file:
        stored = file[name]
        need_filters(stored)
        return np.asarray(stored[index])


def _bad_pixels(source: Source, chunks: list[str], shape: tuple[int, ...]) -> np.ndarray | None:
    names = [n for n in ("common/weight2d", "meta/weight2d", "info/weight2d") if source.has(n)]
    names += [f"{c}/weights" for c in chunks if source.has(f"{c}/weights")]
    bad = np.zeros(shape, bool)
    for name in names:
        weights = source.array(name, "weights")
        if weights.shape[-2:] == shape:
            bad |= (weights.reshape(-1, *shape) <= 0).any(0)
    return bad if bad.any() else None


def _meta(source: Source) -> dict[str, Any]:
    """Geometry; only numbers that are there."""
    found: dict[str, Any] = {}
    energy = _number(source, "energy")
    if energy:
        # Documented in keV; 1e4 is eV all the same.
        found["energy"] = energy * 1e3 if energy < 200 else energy
        source.say(f"energy {energy:g} taken as {'keV' if energy < 200 else 'eV'} (ptypy's files have keV)")
    for key, name in (("sample_to_detector", "distance"), ("detector_pixel", "psize")):
        value = _number(source, name)
        if value:
            found[key] = value
    propagation = next(
        (source.file[f"{g}/propagation"][()] for g in ("meta", "info", "common") if source.has(f"{g}/propagation")),
        None,
    )
    if propagation is not None:
        near = text(propagation).lower().startswith("near")
        found["method"] = "near-field-ptychography" if near else "far-field-ptychography"
        if near:
            # ptypy propagates on the sample's pixel: its psize and distance are the effective ones.
            found["beam"] = "parallel"
    return found


def _number(source: Source, name: str) -> float | None:
    for group in ("meta", "info", "common"):
        if source.has(f"{group}/{name}"):
            values = np.ravel(source.array(f"{group}/{name}", name))
            if values.dtype.kind in "iuf" and values.size and np.isfinite(values).all():
                return float(values.mean())
    return None

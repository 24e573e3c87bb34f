"""CXI files of ptychography, near and far field (https://www.cxidb.org/cxi.html).

What differs from diffrecon's conventions and is converted here: energy in joules, mask as bits with 0 = good, positions
as the motion of the sample in laboratory axes, the detector's orientation by its basis vectors.
"""

from typing import Any

import numpy as np

from ... import physics
from ...errors import InputError
from .._numbers import implausible
from ..source import Source, text

# Bits of a CXI mask that mark a pixel without making its reading wrong: in a peak (0x20), in a halo (0x800), has signal
# above the background (0x1000; Cheetah has the same bit for a correction that failed).
_SIGNAL = 0x1000
_HARMLESS = 0x20 | 0x800 | _SIGNAL
# The detector's rows run down and its columns towards -x, seen along the beam: what CXI writers of ptychography store.
_USUAL_BASIS = np.array([[0.0, -1.0], [-1.0, 0.0], [0.0, 0.0]])


def probe(source: Source) -> bool:
    """Tell whether this is a CXI file."""
    return source.has("cxi_version") or any(source.has(f"{e}/instrument_1/detector_1") for e in _entries(source))


def read(source: Source, given: dict[str, Any]) -> dict[str, Any]:
    """Read everything that diffrecon knows how to use, in SI units."""
    entry = _entry(source, given.get("entry"))
    detector = f"{entry}/instrument_1/detector_1"
    data = _first(source, f"{detector}/data", f"{entry}/data_1/data")
    # Where there is none, this says what is wrong: missing, or a link that leads nowhere.
    found: dict[str, Any] = {"counts": source.frames(data or f"{detector}/data"), "dc": "centre"}
    focus = f"{entry}/instrument_1/source_1/focus_to_sample"  # not of CXI: `write_cxi` puts it there
    distance = source.number(f"{detector}/distance", "distance from sample to detector", "m")
    known = {
        "energy": _energy(source, entry),
        "sample_to_detector": None if distance is None else abs(distance),
        "focus_to_sample": source.number(focus, "distance from focus to sample", "m"),
    }
    found |= {name: value for name, value in known.items() if value is not None}
    found |= {k: text(source.file[entry].attrs[k]) for k in ("method", "beam") if k in source.file[entry].attrs}
    basis, pixel = _basis(source, detector)
    if pixel is not None:
        found["detector_pixel"] = pixel
    translation = _first(
        source, f"{entry}/sample_1/geometry_1/translation", f"{entry}/data_1/translation", f"{detector}/translation"
    )
    found["axes_of_rows"] = basis[:2]
    if translation is not None and "positions" not in given:
        found["positions"] = _positions(source, translation, basis)
        found["positions_unit"] = source.units(translation) or "m"
    elif "positions" not in given and (found["counts"].ndim == 2 or found["counts"].shape[0] == 1):
        found.setdefault("method", "cdi")
    if source.has(f"{detector}/mask"):
        found["bad_pixels"] = _bad_pixels(source, f"{detector}/mask")
    for name in (f"{entry}/instrument_1/source_1/probe", f"{entry}/instrument_1/source_1/illumination"):
        if source.has(name):
            found["probe"] = source.array(name, "probe")
    if source.has(f"{detector}/data_dark"):
        found["darks"] = source.numbers(f"{detector}/data_dark", "dark frames")
    efficiency = source.maybe_numbers(f"{detector}/qe_mask", "efficiency of the pixels")
    if efficiency is not None:
        found["efficiency"] = efficiency
    return found


def _entries(source: Source) -> list[str]:
    if source.file is None:
        return []
    return [k for k in source.file if k.startswith("entry_") and source.has(f"{k}/instrument_1")]


def _entry(source: Source, wanted: str | None) -> str:
    entries = _entries(source)
    if wanted is not None:
        if wanted.strip("/") not in entries:
            raise InputError(f"{source.name}: there is no entry {wanted!r}; entries: {', '.join(entries)}")
        return wanted.strip("/")
    if not entries:
        raise InputError(f"{source.name}: a CXI file without entry_1/instrument_1; datasets: {source.listing()}")
    if len(entries) > 1:
        raise InputError(
            f"{source.name} holds several entries ({', '.join(entries)}); choose with --set data.entry={entries[0]}"
        )
    return entries[0]


def _first(source: Source, *names: str) -> str | None:
    return next((name for name in names if source.has(name)), None)


def _energy(source: Source, entry: str) -> float | None:
    energy = source.energy(
        f"{entry}/instrument_1/source_1/energy",
        f"{entry}/instrument_1/beam_1/energy",
        f"{entry}/instrument_1/beam_1/incident_energy",
    )
    name = _first(
        source, f"{entry}/instrument_1/source_1/wavelength", f"{entry}/instrument_1/beam_1/incident_wavelength"
    )
    if energy is not None or name is None:
        return energy
    wavelength = source.number(name, "wavelength", "m")
    if wavelength is None or implausible("wavelength", wavelength) is not None:
        return None
    return float(physics.wavelength_to_energy(wavelength))


def _basis(source: Source, detector: str) -> tuple[np.ndarray, float | None]:
    """Unit vectors of the slow and the fast axis (columns), and the pixel [m]."""
    stored = source.maybe_numbers(f"{detector}/basis_vectors", "basis vectors")
    if stored is not None:
        vectors = stored.astype(float)
        vectors = vectors.T if vectors.shape == (2, 3) else vectors
        sizes = np.linalg.norm(vectors, axis=0) if vectors.shape == (3, 2) else np.zeros(2)
        if sizes.all() and np.isfinite(sizes).all():
            _same_sizes(source, sizes[0], sizes[1])
            return vectors / sizes, float(np.sqrt(sizes.prod()))
        source.say(f"{detector}/basis_vectors are not two vectors in space and were not used")
    read = [source.number(f"{detector}/{axis}_pixel_size", "pixel size", "m") for axis in "yx"]
    sizes = [abs(size) for size in read if size]
    source.say("no basis vectors: detector rows taken along -y, columns along -x")
    if not sizes:
        return _USUAL_BASIS, None
    _same_sizes(source, sizes[0], sizes[-1])
    return _USUAL_BASIS, float(np.sqrt(sizes[0] * sizes[-1]))


def _same_sizes(source: Source, y: float, x: float) -> None:
    if abs(y / x - 1) > 1e-3:
        source.say(f"the detector's pixels are not square ({y:.4g} m by {x:.4g} m): their geometric mean is used")


def _positions(source: Source, name: str, basis: np.ndarray) -> np.ndarray:
    """Displacement of the patch over the object (row, column): the sample moves by +t, so the patch by -t over it."""
    motion = source.numbers(name, "positions").astype(float)
    if motion.ndim != 2 or motion.shape[1] not in (2, 3):
        raise InputError(f"{source.name}: {name} has shape {motion.shape}; expected (view, 3), x, y, z in metres")
    return -motion[:, :2] @ basis[:2]


def _bad_pixels(source: Source, name: str) -> np.ndarray:
    mask = source.numbers(name, "mask")
    if mask.dtype.kind == "f" and not np.isfinite(mask).all():
        raise InputError(f"{source.name}: {name} (mask) holds values that are not finite; expected bits")
    bits = mask.astype(np.int64)
    if (bits & _SIGNAL).any():
        source.say(
            f"{name}: {int(((bits & _SIGNAL) != 0).sum())} pixels have bit 0x1000, taken as 'has signal' (CXI 1.6), "
            "not as bad (data.bad_pixels says otherwise)"
        )
    bad = (bits & ~_HARMLESS) != 0
    if bad.ndim == 3:
        source.say("the mask differs from frame to frame: a pixel bad in any frame is left out of all")
        bad = bad.any(0)
    source.say(f"mask: {int(bad.sum())} of {bad.size} pixels are bad (CXI: bits set)")
    return bad

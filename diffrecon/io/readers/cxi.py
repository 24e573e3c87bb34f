"""CXI files of ptychography, near and far field (https://www.cxidb.org/cxi.html).

What differs from diffrecon's conventions and is converted here: energy in joules, mask as bits with 0 = good, positions
as the motion of the sample in laboratory axes, the detector's orientation by its basis vectors.
"""

from typing import Any

import numpy as np

from ... import physics
from ...errors import InputError
from ..source import Source, text

# Bits of a CXI mask that mark a pixel without making its reading wrong: in a peak (0x20), in a halo (0x800).
_HARMLESS = 0x20 | 0x800
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
    energy = _energy(source, entry)
    if energy is not None:
        found["energy"] = energy
    if source.has(f"{detector}/distance"):
        found["sample_to_detector"] = abs(source.number(f"{detector}/distance", "sample-detector distance", "m"))
    if source.has(f"{entry}/instrument_1/source_1/focus_to_sample"):  # not of CXI: `write_cxi` puts it there
        found["focus_to_sample"] = source.number(f"{entry}/instrument_1/source_1/focus_to_sample", "focus", "m")
    found |= {k: text(source.file[entry].attrs[k]) for k in ("method", "beam") if k in source.file[entry].attrs}
    basis, pixel = _basis(source, detector)
    if pixel is not None:
        found["detector_pixel"] = pixel
    translation = _first(
        source, f"{entry}/sample_1/geometry_1/translation", f"{entry}/data_1/translation", f"{detector}/translation"
    )
    if translation is not None:
        found["positions"] = _positions(source, translation, basis)
        found["positions_unit"] = source.units(translation) or "m"
    elif "positions" not in given and (found["counts"].ndim == 2 or found["counts"].shape[0] == 1):
        found.setdefault("method", "cdi")
    if source.has(f"{detector}/mask"):
        found["bad_pixels"] = _bad_pixels(source, f"{detector}/mask")
    for name in (f"{entry}/instrument_1/source_1/probe", f"{entry}/instrument_1/source_1/illumination"):
        if source.has(name):
            found["probe"] = source.array(name, "probe")
    dark = _first(source, f"{detector}/data_dark")
    if dark is not None:
        found["darks"] = np.atleast_3d(source.array(dark, "dark frames"))
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
    name = _first(
        source,
        f"{entry}/instrument_1/source_1/energy",
        f"{entry}/instrument_1/beam_1/energy",
        f"{entry}/instrument_1/beam_1/incident_energy",
    )
    if name is not None:
        energy, message = physics.plausible_energy(source.number(name, "photon energy"), source.units(name))
        source.say(message)
        return energy
    name = _first(
        source, f"{entry}/instrument_1/source_1/wavelength", f"{entry}/instrument_1/beam_1/incident_wavelength"
    )
    return None if name is None else float(physics.wavelength_to_energy(source.number(name, "wavelength", "m")))


def _basis(source: Source, detector: str) -> tuple[np.ndarray, float | None]:
    """Unit vectors of the slow and the fast axis (columns), and the pixel [m]."""
    if source.has(f"{detector}/basis_vectors"):
        vectors = np.asarray(source.array(f"{detector}/basis_vectors", "basis vectors"), float)
        vectors = vectors.T if vectors.shape == (2, 3) else vectors
        sizes = np.linalg.norm(vectors, axis=0) if vectors.shape == (3, 2) else np.zeros(2)
        if sizes.all() and np.isfinite(sizes).all():
            _same_sizes(source, sizes[0], sizes[1])
            return vectors / sizes, float(np.sqrt(sizes.prod()))
        source.say(f"{detector}/basis_vectors are not two vectors in space and were not used")
    sizes = [
        source.number(f"{detector}/{axis}_pixel_size", "pixel size", "m")
        for axis in "yx"
        if source.has(f"{detector}/{axis}_pixel_size")
    ]
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
    motion = np.asarray(source.array(name, "positions"), float)
    if motion.ndim != 2 or motion.shape[1] not in (2, 3):
        raise InputError(f"{source.name}: {name} has shape {motion.shape}; expected (view, 3), x, y, z in metres")
    return -motion[:, :2] @ basis[:2]


def _bad_pixels(source: Source, name: str) -> np.ndarray:
    mask = source.array(name, "mask")
    bad = (mask.astype(np.int64) & ~_HARMLESS) != 0
    if bad.ndim == 3:
        source.say("the mask differs from frame to frame: a pixel bad in any frame is left out of all")
        bad = bad.any(0)
    source.say(f"mask: {int(bad.sum())} of {bad.size} pixels are bad (CXI: bits set)")
    return bad
